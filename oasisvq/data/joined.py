"""Several prepared datasets -> one, with their arrays one after another.

The source of each slice then begins with `dataset-1/`, `dataset-2/` and so on, since the same file may
be in several datasets, cut along different axes.
"""

import dataclasses
import hashlib
from collections.abc import Iterator, Sequence
from functools import reduce
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from oasisvq.codec.pixels import union
from oasisvq.data.dataset import (
    MANIFEST,
    MAX_MANIFEST_BYTES,
    Dataset,
    Split,
    VolumeRecord,
    is_prepared,
    open_dataset,
)
from oasisvq.data.layouts import SPLITS
from oasisvq.data.recipe import DEFAULT_RECIPE
from oasisvq.data.work import working_on, write_slices
from oasisvq.errors import DatasetError
from oasisvq.files import read_bytes

COPIED_AT_ONCE = 64  # slices


def join(parts: Sequence[Dataset], output: Path) -> Dataset:
    """Write a dataset of all slices of others, in their splits; an existing `output` is replaced.

    Raises:
        DatasetError: the datasets do not fit together, a person is in two splits, or one is damaged.
        FileError: `output` is in the way, or cannot be written.
    """
    refuse_unlike(parts)
    refuse_persons_in_two_splits(parts)
    for part in parts:
        part.verify()
    first, recipes = parts[0], {part.recipe for part in parts}
    joined = Dataset(
        folder=output,
        layout=", ".join(dict.fromkeys(part.layout for part in parts)),
        raw=", ".join(dict.fromkeys(part.raw for part in parts)),
        images=first.images,
        size=first.size,
        splits={},
        recipe=first.recipe if len(recipes) == 1 else DEFAULT_RECIPE,
        volumes=tuple(_volumes(parts)),
        labels=first.labels,
        parts=checksums(parts),
    )
    with working_on(output, force=True) as work:
        work.new.mkdir()
        for name in SPLITS:
            if any(name in part.splits for part in parts):
                joined.splits[name] = _write_split(parts, name, work.new / f"{name}.npy")
        work.put_in_place(joined)
    return open_dataset(output)


def is_joined_from(folder: Path, parts: Sequence[Dataset]) -> bool:
    """Whether `folder` is what `join` makes of these datasets."""
    return is_prepared(folder) and open_dataset(folder).parts == checksums(parts)


def checksums(parts: Sequence[Dataset]) -> tuple[str, ...]:
    """Checksums of the manifests, which hold those of the arrays."""
    manifests = (read_bytes(part.folder / MANIFEST, MAX_MANIFEST_BYTES) for part in parts)
    return tuple(hashlib.sha256(content).hexdigest() for content in manifests)


def refuse_unlike(parts: Sequence[Dataset]) -> None:
    """Raise unless the datasets hold the same kind of images, in one size and with the same labels.

    Raises:
        DatasetError: names two that differ.
    """
    first = parts[0]
    for other in parts[1:]:
        ours, theirs = (f"{each.images.value} of {each.size}×{each.size}" for each in (first, other))
        if ours != theirs:
            raise DatasetError(
                f"{other.shown}: {theirs} pixels, but {first.shown} has {ours}; prepare one of them anew"
            )
        if first.labels != other.labels:
            raise DatasetError(
                f"{other.shown}: other labels, or other grey levels for them, than {first.shown}; train "
                "on one of them"
            )


def refuse_persons_in_two_splits(parts: Sequence[Dataset]) -> None:
    """Raise if a person is in different splits of two datasets.

    Raises:
        DatasetError: names the first such person, and both places.
    """
    seen: dict[str, tuple[str, Dataset]] = {}
    for part in parts:
        for name, split in part.splits.items():
            for subject in dict.fromkeys(record.subject for record in split.records):
                other, where = seen.setdefault(subject, (name, part))
                if other != name:
                    raise DatasetError(
                        f"{part.shown}: subject {subject} is in its split {name}, but in {other} of "
                        f"{where.shown}; all slices of a person must be in one split: prepare one of "
                        "them anew from folders train, validation and test, or with --subjects if "
                        "these are two persons"
                    )


def _source(number: int, source: str) -> str:
    return f"dataset-{number}/{source}"


def _volumes(parts: Sequence[Dataset]) -> Iterator[VolumeRecord]:
    for number, part in enumerate(parts, 1):
        for volume in part.volumes:
            yield dataclasses.replace(volume, source=_source(number, volume.source))


def _write_split(parts: Sequence[Dataset], name: str, path: Path) -> Split:
    """Write the array of a split, a few slices at a time, and describe it."""
    theirs = [(number, part) for number, part in enumerate(parts, 1) if name in part.splits]
    records = tuple(
        dataclasses.replace(record, source=_source(number, record.source))
        for number, part in theirs
        for record in part.splits[name].records
    )

    def pieces() -> Iterator[NDArray[np.uint8]]:
        for _, part in theirs:
            array = part.array(name)
            for start in range(0, len(array), COPIED_AT_ONCE):
                yield array[start : start + COPIED_AT_ONCE]

    size = parts[0].size
    content = reduce(union, (part.splits[name].content for _, part in theirs))
    return Split(records, write_slices(path, (len(records), size, size), pieces()), content)
