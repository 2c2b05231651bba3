"""Names in BIDS, the Brain Imaging Data Structure: entities, a suffix, and what they stand for.

    sub-01/ses-2/anat/sub-01_ses-2_acq-mprage_run-1_T1w.nii.gz
    derivatives/fmriprep/sub-01/anat/sub-01_space-MNI152Lin_desc-preproc_T1w.nii.gz

Specification: Gorgolewski et al. 2016, doi 10.1038/sdata.2016.44, and bids-specification.readthedocs.io.
"""

import re
from typing import NamedTuple

DERIVED_FOLDER = re.compile(r"(?:^|/)(derivatives|sourcedata)/")  # beside the raw data of a dataset

_NAME = re.compile(r"(?:^|/)(sub-[A-Za-z0-9]+(?:_[^/_]+)*)(?i:\.(?:nii|hdr|img)(?:\.gz)?)$")
_ANATOMY = ("T1w", "T2w", "FLAIR", "PDw", "T2starw", "UNIT1", "inplaneT1", "inplaneT2", "PDT2", "angio")
_SERIES = ("bold", "cbv", "dwi", "asl", "pet", "epi")
_OTHERS = ("sbref", "boldref", "magnitude", "magnitude1", "magnitude2", "phasediff", "fieldmap")
_LABELS = re.compile(r"(?i)\w*(?:seg|mask|roi|label|labels|lesion|lesions|parc|wmh|groundtruth)$")
_WHOLE_BRAIN = re.compile(r"(?i)brain|skullstripped|bet|ss")
_NEITHER = {
    "probseg": "probabilities",
    **dict.fromkeys(_SERIES, "series of volumes"),
}
_TOLD = ("space", "res", "den", "label", "part", "desc")  # entities that tell kinds of files apart


class BidsFile(NamedTuple):
    """What a name in BIDS tells.

    Attributes:
        kind: its suffix with the entities that tell kinds of files apart: `desc-aparcaseg_dseg`.
        holds: `scans`, `skull-stripped` or `segmentations`; for other files what they hold instead.
        session: when the person was scanned; empty if the name does not tell.
        by_default: whether it is taken without being asked for.
        place: of several files of a session, the one with the lowest place is taken.
        space: files of one space match voxel by voxel; empty if that is of no use.
    """

    kind: str
    holds: str
    session: str
    by_default: bool
    place: int
    space: str


def read_name(path: str) -> BidsFile | None:
    """What the name of a volume tells; None for other files and other names."""
    match = _NAME.search(path)
    if match is None:
        return None
    *parts, suffix = match[1].split("_")
    if not parts or "-" in suffix:
        return None
    entities = dict(part.split("-", 1) for part in parts if "-" in part)
    holds = _holds(suffix, entities)
    kind = suffix
    if holds not in _NEITHER.values():
        kind = "_".join([*(f"{key}-{entities[key]}" for key in _TOLD if key in entities), suffix])
    return BidsFile(
        kind,
        holds,
        entities.get("ses", ""),
        _is_default(suffix, holds, entities),
        _place(suffix, entities),
        _space(suffix, holds, entities),
    )


def is_typical(path: str) -> bool:
    """Whether a path has a name that only BIDS gives: one with a known suffix."""
    told = read_name(path)
    return told is not None and (
        told.kind.rpartition("_")[2] in (*_ANATOMY, *_NEITHER, *_OTHERS) or told.holds == "segmentations"
    )


def _holds(suffix: str, entities: dict[str, str]) -> str:
    if suffix in _NEITHER:
        return _NEITHER[suffix]
    if _LABELS.match(suffix):
        return "segmentations"
    if entities.get("part", "mag") != "mag":
        return f"{entities['part']} of complex values"
    if _WHOLE_BRAIN.fullmatch(entities.get("desc", "")):
        return "skull-stripped"
    return "scans"


def _is_default(suffix: str, holds: str, entities: dict[str, str]) -> bool:
    """True for T1w as scanned or preprocessed, for skull-stripped T1w and for segmentations."""
    if holds == "scans":
        return suffix == "T1w" and entities.get("desc", "preproc") == "preproc"
    return holds == "segmentations" or (holds == "skull-stripped" and suffix == "T1w")


def _place(suffix: str, entities: dict[str, str]) -> int:
    """Rank of a file: plain files first, then files derived from them, and other spaces last."""
    kinds = 0 if suffix in ("T1w", "dseg") else 2 if suffix.endswith("mask") else 1
    return 10 * ("space" in entities) + 4 * ("desc" in entities) + kinds


def _space(suffix: str, holds: str, entities: dict[str, str]) -> str:
    """The space of a file; empty for labels that do not cover the brain, such as lesions."""
    covers = suffix == "dseg" or entities.get("desc") == "brain"
    if holds == "segmentations" and (not covers or "label" in entities):
        return ""
    return "_".join(entities.get(key, "native") for key in ("space", "res", "den"))
