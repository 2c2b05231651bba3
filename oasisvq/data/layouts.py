"""The layouts in which OASIS lies on a user's disk: one table, and what a path tells in each of them.

A layout is a list of variants: files of one kind, recognised by the ends of their paths. Everything here
looks at names alone; `members.py` looks at folders.

Splits are made by subject: all slices of a person are in one split.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from oasisvq.data.bids import DERIVED_FOLDER, is_typical, read_name
from oasisvq.errors import DatasetError
from oasisvq.scans.words import LABEL_WORD

SPLITS = ("train", "validation", "test")
SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validate", "validation", "valid", "val", "dev"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}


class Images(str, Enum):
    """Kinds of images: scans of the head, scans of the brain alone, or tissue labels."""

    SCANS = "scans"
    SKULL_STRIPPED = "skull-stripped"
    SEGMENTATIONS = "segmentations"


@dataclass(frozen=True)
class Variant:
    """Files of one kind in a layout.

    Attributes:
        name: what messages and `--variant` call it.
        images: what the files count as; empty if they are neither scans nor labels.
        pattern: of the ends of their paths; its groups name the split, the session and the slice.
        axis_codes: of its Analyze files, regardless of their headers.
        space: within a session, variants of one space match voxel by voxel.
        by_default: whether it is taken without being asked for.
        place: within a session, the variant with the lowest place is taken.
        holds: what its files are if they are neither scans nor labels.
    """

    name: str
    images: tuple[Images, ...]
    pattern: re.Pattern[str]
    axis_codes: str | None = None
    space: str = ""
    by_default: bool = True
    place: int = 0
    holds: str = ""

    @property
    def what(self) -> str:
        """What its files are, in a word or two."""
        return self.images[0].value if self.images else self.holds or "neither scans nor labels"


@dataclass(frozen=True)
class Layout:
    """A way in which images lie in folders.

    Attributes:
        key: what `--layout` calls it.
        name: what messages call it.
        example: a path, for messages.
        variants: in order of preference within a session; empty if `reads_bids`.
        marker: paths that show this layout even if none of its images are there.
        one_a_session: whether one file is taken for each session; otherwise every file is taken.
        whole: whether it was published as slices with splits, and is used whole or not at all.
        reads_bids: whether names are read as BIDS names; each kind of file then is a variant.
        apart: folders below the raw one whose files are of the layout, but are left out.
    """

    key: str
    name: str
    example: str
    variants: tuple[Variant, ...]
    marker: re.Pattern[str] | None = None
    one_a_session: bool = True
    whole: bool = False
    reads_bids: bool = False
    apart: re.Pattern[str] | None = None

    def variant_of(self, path: str) -> tuple[Variant, dict[str, str]] | None:
        """The variant of a path, and its split, session and slice; None for other files."""
        if self.reads_bids:
            return _bids_variant(path)
        for variant in self.variants:
            match = variant.pattern.search(path)
            if match:
                return variant, match.groupdict()
        return None

    def shows_in(self, paths: Iterable[str]) -> bool:
        """Whether any of these paths is of this layout; folders end with a slash."""
        if self.reads_bids:
            return any(is_typical(path) for path in paths)
        marker = self.marker
        return any(
            (marker is not None and marker.search(path)) or self.variant_of(path) for path in paths
        )


def _bids_variant(path: str) -> tuple[Variant, dict[str, str]] | None:
    told = read_name(path)
    if told is None:
        return None
    images = tuple(each for each in Images if each.value == told.holds)
    variant = Variant(
        told.kind,
        images,
        re.compile(re.escape(told.kind)),
        space=told.space,
        by_default=told.by_default,
        place=told.place,
        holds=told.holds,
    )
    return variant, {"session": told.session}


_VOLUME = r"(?i:\.(?:hdr|img|nii)(?:\.gz)?)$"
_ANY_VOLUME = r"(?:\.(?:hdr|img|nii|mgh|mnc)(?:\.gz)?|\.mgz)$"
_IMAGE = r"\.(?:png|jpe?g|tiff?|webp|bmp)$"
_SCANS = (Images.SCANS,)
_STRIPPED = (Images.SKULL_STRIPPED,)
_EITHER = (Images.SCANS, Images.SKULL_STRIPPED)  # since there are no scans with a skull beside them
_LABELS = (Images.SEGMENTATIONS,)
_OASIS1 = r"OAS1_\d{4}_(?P<session>MR\d+)"
_OASIS2 = r"OAS2_\d{4}_(?P<session>MR\d+)"
_OASIS3 = r"OAS3\d{4}_(?:MR_|sess?-)(?P<session>d\d+)(?!.*_(?:desc|space|label)-).*_"
_NEURITE = r"OASIS_OAS1_\d{4}_(?P<session>MR\d+)/"
_TASK = r"OASIS_\d{4}(?:_0000)?"
_LABEL_NAME = r"(?<![a-z])(?:lesions?|gt|annot(?:ation)?s?)(?![a-z])[^/]*"  # of files alone
_SHARE_WORD = r"(?<![a-z])(?:probseg|prob(?:ability)?(?:map)?s?|pve(?:_?\d)?|posteriors?)(?![a-z])[^/]*"
_STRIPPED_WORD = r"(?<![a-z])(?:ss|brain|bet|(?:skull[-_]?)?stripped|masked)(?![a-z])"


def _variant(
    name: str,
    images: tuple[Images, ...],
    pattern: str,
    axis_codes: str | None = None,
    space: str = "",
    by_default: bool = True,
) -> Variant:
    return Variant(name, images, re.compile(pattern), axis_codes, space, by_default)


def _png_slices(middle: str, prefix: str) -> str:
    return (
        rf"(?:^|/)keras_png_slices_{middle}(?P<split>train|validate|test)/(?:.*/)?"
        rf"{prefix}_\d{{3,4}}_slice_(?P<slice>\d{{1,4}})(?:\.nii)?\.png$"
    )


PNG_SLICES = Layout(
    "png-slices",
    "UQ PNG slices",
    "keras_png_slices_train/case_001_slice_0.nii.png",
    (
        _variant("case", _SCANS, _png_slices("", "case")),
        _variant("seg", _LABELS, _png_slices("seg_", "seg")),
    ),
    marker=re.compile(r"(?:^|/)keras_png_slices_(?P<seg>seg_)?(?:train|validate|test)/"),
    one_a_session=False,
    whole=True,
)
# Analyze headers of OASIS-1 give a wrong orientation: its volumes are stored as ASL as they were
# scanned, and as LAS in the space of the atlas.
OASIS1 = Layout(
    "oasis1",
    "OASIS-1",
    "OAS1_0001_MR1/PROCESSED/MPRAGE/T88_111/OAS1_0001_MR1_mpr_n4_anon_111_t88_gfc.hdr",
    (
        _variant("t88_gfc", _SCANS, rf"{_OASIS1}_[^/]*_t88_gfc{_VOLUME}", "LAS", "T88"),
        _variant("sbj_111", _SCANS, rf"{_OASIS1}_[^/]*_sbj_111{_VOLUME}", "ASL"),
        _variant("mpr", _SCANS, rf"{_OASIS1}_mpr-\d+_anon{_VOLUME}", "ASL"),
        _variant("t88_masked_gfc", _STRIPPED, rf"{_OASIS1}_[^/]*_t88_masked_gfc{_VOLUME}", "LAS", "T88"),
        _variant("fseg", _LABELS, rf"{_OASIS1}_[^/]*_fseg{_VOLUME}", "LAS", "T88"),
    ),
)
OASIS2 = Layout(
    "oasis2",
    "OASIS-2",
    "OAS2_0001_MR1/RAW/mpr-1.nifti.hdr",
    (_variant("mpr", _SCANS, rf"{_OASIS2}[/_](?:RAW/)?mpr-\d+(?:\.nifti)?{_VOLUME}", "ASL"),),
)
OASIS3 = Layout(
    "oasis3",
    "OASIS-3",
    "OAS30001_MR_d0129/anat1/sub-OAS30001_ses-d0129_T1w.nii.gz",
    (
        _variant("T1w", _SCANS, rf"{_OASIS3}T1w{_VOLUME}"),
        _variant("T2w", _SCANS, rf"{_OASIS3}T2w{_VOLUME}", by_default=False),
        _variant("FLAIR", _SCANS, rf"{_OASIS3}FLAIR{_VOLUME}", by_default=False),
    ),
    apart=DERIVED_FOLDER,
)
NEURITE = Layout(
    "neurite",
    "neurite-oasis",
    "OASIS_OAS1_0001_MR1/orig.nii.gz",
    (
        _variant("orig", _SCANS, rf"{_NEURITE}orig{_VOLUME}", space="native"),
        _variant("aligned_orig", _SCANS, rf"{_NEURITE}aligned_orig{_VOLUME}", space="aligned"),
        _variant("norm", _STRIPPED, rf"{_NEURITE}norm{_VOLUME}", space="native"),
        _variant("aligned_norm", _STRIPPED, rf"{_NEURITE}aligned_norm{_VOLUME}", space="aligned"),
        _variant("seg4", _LABELS, rf"{_NEURITE}seg4{_VOLUME}", space="native"),
        _variant("aligned_seg4", _LABELS, rf"{_NEURITE}aligned_seg4{_VOLUME}", space="aligned"),
        _variant("seg35", _LABELS, rf"{_NEURITE}seg35{_VOLUME}", space="native"),
        _variant("aligned_seg35", _LABELS, rf"{_NEURITE}aligned_seg35{_VOLUME}", space="aligned"),
    ),
)
TASK = Layout(
    "task",
    "neurite-oasis as imagesTr and labelsTr",
    "imagesTr/OASIS_0001_0000.nii.gz",
    (
        _variant("imagesTr", _EITHER, rf"(?:^|/)imagesTr/{_TASK}{_VOLUME}", space="Tr"),
        _variant("labelsTr", _LABELS, rf"(?:^|/)labelsTr/{_TASK}{_VOLUME}", space="Tr"),
        _variant("imagesTs", _EITHER, rf"(?:^|/)imagesTs/{_TASK}{_VOLUME}", None, "Ts", False),
        _variant("labelsTs", _LABELS, rf"(?:^|/)labelsTs/{_TASK}{_VOLUME}", None, "Ts", False),
    ),
)
KAGGLE = Layout(
    "kaggle",
    "Kaggle imagesoasis",
    "Data/Non Demented/OAS1_0001_MR1_mpr-1_100.jpg",
    (
        _variant(
            "jpeg", _SCANS, r"OAS1_\d{4}_(?P<session>MR\d+_mpr-\d+)_(?P<slice>\d+)(?i:\.(?:jpe?g|png))$"
        ),
    ),
    one_a_session=False,
)
BIDS = Layout(
    "bids",
    "BIDS",
    "sub-01/anat/sub-01_T1w.nii.gz",
    (),
    reads_bids=True,
    apart=DERIVED_FOLDER,
)
ANYTHING = Layout(
    "anything",
    "images or volumes",
    "OAS1_0001/scan.nii.gz",
    (
        _variant("maps of probability", (), rf"(?i){_SHARE_WORD}{_ANY_VOLUME}"),
        _variant("label volumes", _LABELS, rf"(?i)(?:{LABEL_WORD}.*|{_LABEL_NAME}){_ANY_VOLUME}"),
        _variant("skull-stripped volumes", _EITHER, rf"(?i){_STRIPPED_WORD}[^/]*{_ANY_VOLUME}"),
        _variant("volumes", _SCANS, rf"(?i){_ANY_VOLUME}"),
        _variant("label images", _LABELS, rf"(?i)(?:{LABEL_WORD}.*|{_LABEL_NAME}){_IMAGE}"),
        _variant("images", _SCANS, rf"(?i){_IMAGE}"),
    ),
    one_a_session=False,
)
LAYOUTS = (PNG_SLICES, OASIS1, OASIS2, OASIS3, NEURITE, TASK, KAGGLE, BIDS, ANYTHING)


def layout_named(key: str) -> Layout:
    """The layout with this key.

    Raises:
        DatasetError: there is no such layout.
    """
    for layout in LAYOUTS:
        if layout.key == key:
            return layout
    known = ", ".join(layout.key for layout in LAYOUTS)
    raise DatasetError(f"no layout '{key}'; expected one of {known}")


def recognise(paths: list[str]) -> Layout | None:
    """The first layout of the table that these paths show; None if there is none."""
    return next((layout for layout in LAYOUTS if layout.shows_in(paths)), None)


def given_split(path: str) -> str | None:
    """The split of a path by the name of a folder in it: train, validation (val, ...) or test."""
    for part in path.split("/")[:-1]:
        if part.lower() in SPLIT_NAMES:
            return SPLIT_NAMES[part.lower()]
    return None


_SLICE_OF_NAME = re.compile(r"(.+?)[-_. ]*(?:slice|slc|z)[-_]?(\d+)\D*$", re.IGNORECASE)
_LAST_NUMBER = re.compile(r"(\d+)\D*$")


def slice_of(stem: str) -> tuple[str, int]:
    """Subject and slice of an arbitrary name: `mary_slice_07` -> (`mary`, 7).

    Without a word such as `slice`, the number stays in the name: `mary_07` -> (`mary_07`, 7). A name
    without a number has the number 0.
    """
    match = _SLICE_OF_NAME.match(stem)
    if match:
        return match[1], int(match[2])
    number = _LAST_NUMBER.search(stem)
    return stem, int(number[1]) if number else 0
