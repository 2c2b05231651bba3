"""metrics.jsonl: every report of a training as a row of JSON, in the order of its steps."""

import json
from pathlib import Path
from typing import Any

from oasisvq.errors import FileError
from oasisvq.files import MAX_METRICS_BYTES, METRICS_FILE, read_rows


class MetricsFile:
    """The metrics of a run folder.

    Attributes:
        path: the file.
        length: bytes of the rows that belong to this training; rows beyond were written by a training
            that was killed after its last checkpoint.
    """

    def __init__(self, run: Path) -> None:
        self.path = run / METRICS_FILE
        self.length = 0

    def cut(self) -> None:
        """Create the file, or drop everything beyond `length`.

        Raises:
            FileError: it cannot be written.
        """
        try:
            with self.path.open("ab") as stream:
                self.length = min(self.length, stream.tell())
                stream.truncate(self.length)
        except OSError as error:
            raise self._not_writable(error) from error

    def write(self, row: dict[str, Any]) -> None:
        """Add a row.

        Raises:
            FileError: the file cannot be written.
        """
        line = (json.dumps(row) + "\n").encode()
        try:
            with self.path.open("ab") as stream:
                stream.write(line)
        except OSError as error:
            raise self._not_writable(error) from error
        self.length += len(line)

    def rows(self) -> list[dict[str, Any]]:
        """All rows, without damaged lines; empty if there is no file."""
        return read_rows(self.path, MAX_METRICS_BYTES)

    def _not_writable(self, error: OSError) -> FileError:
        return FileError(f"{self.path}: cannot be written: {error.strerror}")
