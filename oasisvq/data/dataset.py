"""A prepared dataset: one uint8 array for each split, and one manifest.

It is a folder with `manifest.json` and `train.npy`, `validation.npy`, ... of shape (slices, size, size).
The arrays are memory-mapped, so a dataset opens instantly and nothing is decoded during training.
"""

import dataclasses
import hashlib
import json
import re
import tokenize
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oasisvq.codec.pixels import Box
from oasisvq.data.layouts import SPLITS, Images
from oasisvq.data.recipe import DEFAULT_RECIPE, Recipe, recipe_from_dict
from oasisvq.errors import DatasetError
from oasisvq.files import read_bytes
from oasisvq.scans.geometry import PLANES
from oasisvq.scans.volumes import volume_suffix

MANIFEST = "manifest.json"
MANIFEST_FORMAT = 1
MAX_MANIFEST_BYTES = 2**30
_LAST_NUMBER = re.compile(r"\d+(?=[^\d/]*$)")  # of a name: the number of a slice


@dataclasses.dataclass(frozen=True)
class SliceRecord:
    """Where one slice of a prepared dataset comes from."""

    subject: str
    source: str  # path below the raw folder
    source_bytes: int  # of a pair, both files together
    source_shape: tuple[int, int]  # height, width; for a volume those of its slice at 1 mm
    slice_number: int  # for a volume, millimetres from its first slice

    @property
    def volume(self) -> str:
        """What the slices of one volume share: its path; for images their path without the number."""
        return self.source if volume_suffix(Path(self.source)) else _LAST_NUMBER.sub("", self.source)


@dataclasses.dataclass(frozen=True)
class VolumeRecord:
    """How one volume, or one stack of 16-bit images, was brought to grey levels."""

    source: str  # path below the raw folder; for a stack that of its first image
    session: str
    variant: str
    axis_codes: str  # where the axes of its array grow to; empty for images
    voxel_size: tuple[float, ...]  # millimetres; empty for images
    intensity: tuple[float, float] | None  # values that became 0 and 255; None for labels
    is_guessed: bool = False  # whether its header leaves open which side is left
    axis: str = "axial"  # the axis that its slices follow


@dataclasses.dataclass(frozen=True)
class Split:
    """One split: its slices in order, the array's checksum, and where its content lies."""

    records: tuple[SliceRecord, ...]
    sha256: str
    content: Box  # around pixels that are not 0 in some slice


@dataclasses.dataclass(frozen=True)
class Dataset:
    """An open prepared dataset.

    Attributes:
        folder: where it is.
        layout: of the raw folder.
        raw: the raw folder that it was made from.
        images: what its slices hold.
        size: side of a slice in pixels.
        splits: by name.
        recipe: what else was chosen when it was prepared; the default if its parts differ in it.
        volumes: how each volume was brought to grey levels.
        labels: of label volumes, each label and the grey level that stands for it.
        parts: checksums of the manifests of the datasets that it was joined from, see `joined.py`.
        named: the raw folder that the user named to get it; None if the user named `folder`.
    """

    folder: Path
    layout: str
    raw: str
    images: Images
    size: int
    splits: dict[str, Split]
    recipe: Recipe = DEFAULT_RECIPE
    volumes: tuple[VolumeRecord, ...] = ()
    labels: tuple[tuple[int, int], ...] = ()
    parts: tuple[str, ...] = ()
    named: Path | None = None

    @property
    def shown(self) -> Path:
        """What messages and reports call it."""
        return self.named or self.folder

    def array(self, split: str) -> NDArray[np.uint8]:
        """The memory-mapped (slices, size, size) array of a split.

        Raises:
            DatasetError: there is no such split, or its file does not fit the manifest.
        """
        if split not in self.splits:
            raise DatasetError(f"{self.shown}: no split '{split}'; it has {', '.join(self.splits)}")
        if not self.splits[split].records:
            raise DatasetError(f"{self.shown}: the split '{split}' has no slices")
        path = self.folder / f"{split}.npy"
        expected = (len(self.splits[split].records), self.size, self.size)
        try:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError, SyntaxError, tokenize.TokenError) as error:
            raise DatasetError(
                f"{path}: missing or damaged ({error}); prepare the dataset anew"
            ) from error
        if not isinstance(array, np.memmap) or array.shape != expected or array.dtype != np.uint8:
            raise DatasetError(
                f"{path}: not the array that {MANIFEST} describes, expected {expected} of uint8; "
                "prepare the dataset anew"
            )
        return array

    def verify(self) -> None:
        """Compare every array with its checksum.

        Raises:
            DatasetError: a file is missing, of another size, or changed.
        """
        for name, split in self.splits.items():
            if array_checksum(self.array(name)) != split.sha256:
                raise DatasetError(
                    f"{self.folder / name}.npy: differs from its checksum in {MANIFEST}; "
                    "prepare the dataset anew"
                )


def array_checksum(array: NDArray[np.uint8]) -> str:
    """SHA-256 of an array's values, read a few slices at a time."""
    digest = hashlib.sha256()
    for start in range(0, len(array), 64):
        digest.update(array[start : start + 64].tobytes())
    return digest.hexdigest()


def refuse_shared_subjects(subjects: dict[str, set[str]], where: Path) -> None:
    """Raise if a person is in two splits.

    Raises:
        DatasetError: names the first such subject and both splits.
    """
    seen: dict[str, str] = {}
    for split, members in subjects.items():
        for subject in sorted(members):
            if subject in seen:
                raise DatasetError(
                    f"{where}: subject {subject} is in the splits {seen[subject]} and {split}; "
                    "all slices of a person must be in one split"
                )
            seen[subject] = split


def is_prepared(folder: Path) -> bool:
    """Whether `preprocess` wrote this folder: it has a manifest of ours, whole or damaged."""
    path = folder / MANIFEST
    if not path.is_file():
        return False
    try:
        fields = json.loads(read_bytes(path, MAX_MANIFEST_BYTES))
    except (ValueError, RecursionError):
        return True  # damaged; `open_dataset` says so
    return isinstance(fields, dict) and {"format", "layout", "splits"} <= fields.keys()


def manifest_bytes(dataset: Dataset) -> bytes:
    """The manifest of a dataset; the inverse of `open_dataset`."""
    return json.dumps(
        {
            "format": MANIFEST_FORMAT,
            "layout": dataset.layout,
            "raw": dataset.raw,
            "images": dataset.images.value,
            "size": dataset.size,
            "recipe": dataset.recipe.as_dict(),
            "labels": [list(pair) for pair in dataset.labels],
            "parts": list(dataset.parts),
            "volumes": [dataclasses.asdict(volume) for volume in dataset.volumes],
            "splits": {
                name: {
                    "sha256": split.sha256,
                    "content": list(split.content),
                    "slices": [dataclasses.asdict(record) for record in split.records],
                }
                for name, split in dataset.splits.items()
            },
        },
        indent=None,
    ).encode()


def open_dataset(folder: Path) -> Dataset:
    """Open a prepared dataset.

    Raises:
        FileError: the manifest cannot be read.
        DatasetError: the manifest is damaged or of another version, there are no images, or a
            subject is in two splits.
    """
    path = folder / MANIFEST
    if not folder.is_dir():
        raise DatasetError(
            f"{folder}: no such folder; make it with `oasisvq preprocess RAW -o {folder}`"
        )
    content = read_bytes(path, MAX_MANIFEST_BYTES)
    try:
        fields = json.loads(content)
        if fields["format"] != MANIFEST_FORMAT:
            raise DatasetError(
                f"{path}: manifest format {fields['format']!r}, this version of oasisvq reads "
                f"{MANIFEST_FORMAT}; prepare the dataset anew"
            )
        splits = {str(name): _split(entry) for name, entry in fields["splits"].items()}
        dataset = Dataset(
            folder,
            str(fields["layout"]),
            str(fields["raw"]),
            Images(fields["images"]),
            int(fields["size"]),
            splits,
            # older manifests do not have all of these
            recipe_from_dict(fields["recipe"]) if "recipe" in fields else DEFAULT_RECIPE,
            tuple(_volume(entry) for entry in fields.get("volumes", [])),
            tuple((int(label), int(level)) for label, level in fields.get("labels", [])),
            tuple(str(part) for part in fields.get("parts", [])),
        )
    except (
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        OverflowError,
        RecursionError,
    ) as error:
        raise DatasetError(f"{path}: damaged manifest; prepare the dataset anew") from error
    unknown = sorted(set(splits) - set(SPLITS))
    if unknown:
        raise DatasetError(f"{path}: unknown splits {unknown}, expected {', '.join(SPLITS)}")
    if not any(split.records for split in splits.values()):
        raise DatasetError(f"{folder}: a dataset with no images")
    refuse_shared_subjects(
        {name: {record.subject for record in split.records} for name, split in splits.items()}, path
    )
    return dataset


def _volume(entry: dict[str, Any]) -> VolumeRecord:
    intensity, axis = entry["intensity"], str(entry.get("axis", "axial"))
    if axis not in PLANES:
        raise ValueError(f"no axis {axis}")
    if intensity is not None:
        low, high = intensity
        intensity = float(low), float(high)
    return VolumeRecord(
        str(entry["source"]),
        str(entry["session"]),
        str(entry["variant"]),
        str(entry["axis_codes"]),
        tuple(float(step) for step in entry["voxel_size"]),
        intensity,
        bool(entry.get("is_guessed", True)),  # older manifests do not say
        axis,
    )


def _split(entry: dict[str, Any]) -> Split:
    records = tuple(
        SliceRecord(
            str(record["subject"]),
            str(record["source"]),
            int(record["source_bytes"]),
            (int(record["source_shape"][0]), int(record["source_shape"][1])),
            int(record["slice_number"]),
        )
        for record in entry["slices"]
    )
    top, left, bottom, right = (int(side) for side in entry["content"])
    return Split(records, str(entry["sha256"]), Box(top, left, bottom, right))
