"""Whose scan a file is: by its path, or else by the level of folders that clearly names persons.

A person in two splits makes every figure on the splits worthless, so nothing here is decided by what is
only likely. If neither a name nor a level of folders tells, the caller has to ask.
"""

import re
from collections.abc import Iterable

# Names that datasets give their subjects; the one nearest to the end of the path counts.
_SUBJECTS = (
    (re.compile(r"(?:case|seg)_(\d{3,4})_slice_"), "OAS1_"),
    (re.compile(r"(?<![A-Za-z0-9])(OAS[12]_\d{4}|OAS3\d{4}|OASIS_\d{4})(?!\d)"), ""),
    (re.compile(r"(?<![A-Za-z0-9])(sub-[A-Za-z0-9]+)"), ""),
    (re.compile(r"(?<!\d)(\d{3}_S_\d{4,5})(?!\d)"), ""),  # ADNI: site, S, number
    (re.compile(r"(?<![A-Za-z0-9])(IXI\d{3})(?!\d)"), ""),
    (re.compile(r"(?<![A-Za-z0-9])(BraTS-[A-Z]{2,4}-\d{5})(?!\d)"), ""),  # -000 behind it is the visit
)
# Words that people number their subjects with; the one nearest to the beginning of the path counts.
_WORDS = re.compile(
    r"(?<![A-Za-z0-9])((?:sub|subj|subject|pat|patient|pt|person|participant|volunteer)[-_ ]?\d+"
    r"|p\d{2,})(?![A-Za-z0-9])",
    re.IGNORECASE,
)


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_DIAGNOSES = _words(
    "ad adni case cases cn con control controls ctrl demented emci female hc healthy lmci male mci pd "
    "nondemented verymilddemented milddemented moderatedemented verymilddementia milddementia "
    "moderatedementia patient patients smc"
)
_GROUPS = _words(  # for groups of persons, kinds of scans, or purposes of folders; also with a number
    "batch cohort class data dataset disc disk fold group part release set site sites center centre "
    "images img label labels masks nifti nii volumes "
    "t1 t2 t1w t2w t1ce flair dwi pdw mprage mpr mr mri mris raw axial coronal sagittal "
    "train training test testing val valid validate validation"
)
_TIMES = _words(  # for when, or in which order, one person was scanned; also with a number
    "acq baseline bl day dicom echo exam exp followup fu i im image m month rep repeat run s scan scans "
    "se ser series ses sess session slice st study t te time timepoint tp v visit vol volume w week y "
    "year z"
)
_DATE = re.compile(r"(?:19|20)\d{2}(?:[-_.]?\d{2}){0,2}(?:[-_T .]?\d{2,6}[-_.\d]*)?$")
_LEAST_DIGITS = 3  # of a name that is only a number: 0, 1 and 2 are classes


def subject_of(path: str) -> str | None:
    """The subject that a path names: OAS1_0001, OAS30001, sub-7, 002_S_0001, IXI002, subj01; or None."""
    parts = path.split("/")
    for part in reversed(parts):
        for pattern, prefix in _SUBJECTS:
            match = pattern.search(part)
            if match:
                return f"{prefix}{int(match[1]):04d}" if prefix else match[1]
    for part in parts:
        match = _WORDS.search(part)
        if match:
            return match[1]
    return None


def level_of_persons(folders: Iterable[tuple[str, ...]]) -> int | None:
    """Which level of folders clearly names persons; None if this is open.

    The names of such a level are a common word or prefix with numbers, or numbers alone, and are not
    visits or dates. Each level above it has a single name, or names known as those of groups or visits.

    Args:
        folders: above each file, from the top.
    """
    folders = set(folders)
    for level in range(min((len(each) for each in folders), default=0)):
        names = {each[level] for each in folders}
        if len(names) > 1 and _are_numbered_persons(names):
            return level
        if len(names) > 1 and not all(_is_group(name) or _is_time(name) for name in names):
            return None  # these may be persons, and the folders below them their visits
        if len(names) == 1 and all(_is_time(name) for name in names):
            return None  # the folder of one person
    return None


def spelled_alike(subjects: Iterable[str]) -> dict[str, str]:
    """Subjects whose names differ only in case, separators or leading zeros -> the first of them.

    Subj01, subj-01 and SUBJ_1 are one person.
    """
    firsts: dict[tuple[str, ...], str] = {}
    same = {}
    for subject in sorted(subjects):
        words = re.findall(r"\d+|[^\W\d_]+", subject.casefold())
        form = tuple(word.lstrip("0") if word.isdecimal() else word for word in words)
        same[subject] = firsts.setdefault(form or (subject,), subject)
    return same


def guessed_person(folder: tuple[str, ...], stem: str) -> str:
    """The likeliest person of a file: its uppermost folder that is no group or visit, else its stem."""
    for name in folder:
        if not (_is_group(name) or _is_time(name)):
            return name
    return stem


def _is_group(name: str) -> bool:
    bare = re.sub(r"[^a-z0-9]", "", name.lower())
    return bare in _DIAGNOSES or _without_number(bare) in _GROUPS or bare in _GROUPS


def _is_time(name: str) -> bool:
    bare = re.sub(r"[^a-z0-9]", "", name.lower())
    return bool(_DATE.match(name)) or _without_number(bare) in _TIMES


def _without_number(name: str) -> str:
    return re.sub(r"\d+$", "", name)


def _are_numbered_persons(names: set[str]) -> bool:
    if not all(re.search(r"\d", name) for name in names) or all(_DATE.match(name) for name in names):
        return False
    if all(name.isdigit() for name in names):
        return all(len(name) >= _LEAST_DIGITS for name in names)
    if any(_is_group(name) or _is_time(name) for name in names):
        return False
    numbers = [re.findall(r"\d+", name) for name in names]
    frames = {re.sub(r"\d+", "#", name) for name in names}
    if len(frames) > 1:  # NDARAA075AMK: letters among the digits differ too
        shapes = {re.sub(r"[A-Za-z0-9]", "x", name) for name in names}
        starts = {name[:2] for name in names}
        firsts = {first for first, *_ in numbers}  # HC001_base, HC001_year: visits, told by letters
        are_alike = len(shapes) == len(starts) == 1 and len(min(names)) > 2 * _LEAST_DIGITS
        return are_alike and len(firsts) == len(names)
    # the first number that differs between names is the person's; the next may be that of a visit
    varying = [column for column in zip(*numbers, strict=True) if len(set(column)) > 1]
    return len(set(varying[0])) == len(names)
