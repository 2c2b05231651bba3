"""What the names of files tell about their contents. Never imports torch."""

import re

# Words of masks, parcellations and other maps of labels, as a regular expression without case.
LABEL_WORD = (
    r"(?<![a-z])(?:[fad]?seg\d*|seg(?:mentation)?s?|label(?:map)?s?|masks?|rois?|tissues?"
    r"|aparc(?:aseg)?|parc(?:ellation)?s?|wmh|ground[-_]?truth)(?![a-z])"
)
_LABELS = re.compile(LABEL_WORD, re.IGNORECASE)

_SESSION = r"OAS1_\d{4}_MR\d+"
_OASIS_AXES = (  # the headers of OASIS's Analyze files give a wrong orientation
    (re.compile(rf"{_SESSION}_.*_t88_(?:masked_)?gfc"), "LAS"),
    (re.compile(rf"{_SESSION}_.*_sbj_111"), "ASL"),
    (re.compile(rf"{_SESSION}_mpr-\d+_anon"), "ASL"),
    (re.compile(r"OAS2_\d{4}_MR\d+[/_](?:RAW/)?mpr-\d+"), "ASL"),
)


def names_labels(name: str) -> bool:
    """Whether the name of a file has a word for label maps in it: `sub-01_dseg.nii.gz`, `mask.png`."""
    return _LABELS.search(name) is not None


def axes_of_oasis(path: str) -> str | None:
    """The axis codes of an OASIS Analyze file, by its path; None for other files."""
    return next((codes for pattern, codes in _OASIS_AXES if pattern.search(path)), None)
