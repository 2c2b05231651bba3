"""A table that names the subjects of files whose own names do not: CSV or TSV, one line a file.

    file,subject
    1018,OAS1_0379
    1038,OAS1_0379

The file is a whole name, a path below the raw folder, or the beginning of either at a word boundary:
`1018` stands for `1018_SS.nii.gz`, and `101` does not. A heading may name the columns, in any order.
"""

import csv
import io
from pathlib import Path

from oasisvq.errors import DatasetError
from oasisvq.files import read_bytes

MAX_TABLE_BYTES = 2**26
_FILE_HEADINGS = ("file", "filename", "name", "path", "prefix", "scan")
_SUBJECT_HEADINGS = (
    *("subject", "subject_id", "participant_id", "participant", "person"),
    *("patient", "patient_id", "id"),
)


class SubjectTable:
    """Subjects by names of files."""

    def __init__(self, path: Path, subjects: dict[str, str]) -> None:
        self.path = path
        self._subjects = subjects

    def subject(self, name: str) -> str | None:
        """The subject of a file by its path below the raw folder; None if the table has none."""
        for told in (Path(name).name, name):
            for end in range(len(told), 0, -1):
                ends_word = end == len(told) or not (told[end - 1].isalnum() and told[end].isalnum())
                if ends_word and told[:end] in self._subjects:
                    return self._subjects[told[:end]]
        return None


def read_subjects(path: Path) -> SubjectTable:
    """Read a table of subjects.

    Raises:
        FileError: the table is missing or unreadable.
        DatasetError: it is not text, lacks two columns or any line, or has two subjects for one file.
    """
    try:
        text = read_bytes(path, MAX_TABLE_BYTES).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path}: no UTF-8 text; expected a table of file and subject") from error
    first = text.partition("\n")[0]
    separator = next((each for each in "\t;," if each in first), ",")
    try:
        rows = [row for row in csv.reader(io.StringIO(text), delimiter=separator) if any(row)]
    except csv.Error as error:
        raise DatasetError(f"{path}: no table of file and subject ({error})") from error
    file, subject = 0, 1
    heading = [cell.strip().lower() for cell in rows[0]] if rows else []
    if any(cell in _FILE_HEADINGS + _SUBJECT_HEADINGS for cell in heading):
        file, subject = _columns(heading)
        rows = rows[1:]
    subjects: dict[str, str] = {}
    for row in rows:
        if len(row) <= max(file, subject) or not row[file].strip() or not row[subject].strip():
            raise DatasetError(f"{path}: the line {row} has no two columns; expected file and subject")
        key, person = row[file].strip(), row[subject].strip()
        if subjects.setdefault(key, person) != person:
            raise DatasetError(f"{path}: gives {key} the subjects {subjects[key]} and {person}")
    if not subjects:
        raise DatasetError(f"{path}: an empty table; expected lines of file and subject")
    return SubjectTable(path, subjects)


def _columns(heading: list[str]) -> tuple[int, int]:
    """The columns of file and subject; the first other one for that which the heading does not name."""
    file = next((n for n, cell in enumerate(heading) if cell in _FILE_HEADINGS), None)
    subject = next((n for n, cell in enumerate(heading) if cell in _SUBJECT_HEADINGS), None)
    if file is None:
        file = 1 if subject == 0 else 0
    if subject is None:
        subject = 1 if file == 0 else 0
    return file, subject
