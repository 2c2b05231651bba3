"""Which OASIS layout a folder has, and which subject and split each file belongs to.

The subject is the key of every split: all slices of a person are in one split.
"""

import re
from enum import Enum
from pathlib import Path
from typing import NamedTuple

from oasisvq.errors import DatasetError
from oasisvq.files import walk

SPLITS = ("train", "validation", "test")


class Images(str, Enum):
    """Which images of a dataset: the scans, or their tissue labels."""

    SCANS = "scans"
    SEGMENTATIONS = "segmentations"


class SliceFile(NamedTuple):
    """One slice image on disk."""

    path: Path
    split: str
    subject: str
    slice_number: int


_SPLIT_FOLDER = re.compile(r"keras_png_slices_(seg_)?(train|validate|test)")
_SLICE_NAME = re.compile(r"(case|seg)_(\d{3,4})_slice_(\d{1,4})(\.nii)?\.png")
_SPLIT_OF_FOLDER = {"train": "train", "validate": "validation", "test": "test"}


_SUBJECTS = (
    (re.compile(r"(?:case|seg)_(\d{3,4})_slice_"), "OAS1_"),
    (re.compile(r"(?<![A-Za-z0-9])(OAS[12]_\d{4}|OAS3\d{4})(?!\d)"), ""),
)


def subject_of(name: str) -> str | None:
    """The OASIS subject that a file's name or path names, or None: OAS1_0001, OAS2_0001, OAS30001."""
    for pattern, prefix in _SUBJECTS:
        match = pattern.search(name)
        if match:
            return f"{prefix}{int(match[1]):04d}" if prefix else match[1]
    return None


def split_folders(root: Path) -> list[Path]:
    """The `keras_png_slices_*` folders of a PNG-slices download, however it is pointed at.

    `root` may be the folder that holds them, any parent up to two levels above, or one of them.
    """
    if _SPLIT_FOLDER.fullmatch(root.resolve().name):
        return [root]
    for pattern in ("*", "*/*", "*/*/*"):
        found = sorted(
            path for path in root.glob(pattern) if path.is_dir() and _SPLIT_FOLDER.fullmatch(path.name)
        )
        if found:
            return found
    return []


def find_slices(root: Path, images: Images) -> list[SliceFile]:
    """All slices of the UQ PNG layout below `root`, by split, subject and slice number.

    Raises:
        DatasetError: `root` is missing, of no known layout, or holds no such images.
    """
    if not root.is_dir():
        found = "is a file, no folder" if root.exists() else "no such folder"
        raise DatasetError(f"{root}: {found}; expected a folder with OASIS images")
    folders = split_folders(root)
    if not folders:
        raise DatasetError(
            f"{root}: no known OASIS layout; expected folders named keras_png_slices_train, "
            "keras_png_slices_validate, ... (or keras_png_slices_seg_...) in it"
        )
    wants_seg = images is Images.SEGMENTATIONS
    slices = []
    for folder in folders:
        match = _SPLIT_FOLDER.fullmatch(folder.name) or _SPLIT_FOLDER.fullmatch(folder.resolve().name)
        assert match is not None
        if bool(match[1]) != wants_seg:
            continue
        for path in walk(folder, lambda p: p.suffix == ".png"):
            name = _SLICE_NAME.fullmatch(path.name)
            if name is None or (name[1] == "seg") != wants_seg:
                raise DatasetError(
                    f"{path}: not a slice of this layout; expected a name like "
                    f"{'seg' if wants_seg else 'case'}_001_slice_0.nii.png"
                )
            subject = subject_of(path.name)
            assert subject is not None
            slices.append(SliceFile(path, _SPLIT_OF_FOLDER[match[2]], subject, int(name[3])))
    if not slices:
        raise DatasetError(
            f"{root}: no {images.value} in it (found {', '.join(f.name for f in folders)}); "
            f"expected PNG slices, or choose the other kind with --images"
        )
    return sorted(slices, key=lambda s: (SPLITS.index(s.split), s.subject, s.slice_number))
