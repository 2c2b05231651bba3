"""Slices of one volume on their way to the dataset: made in parallel, kept in a file, found again.

A part holds the slices of one volume, or of one stack of images, in a work folder beside the output. Its
name depends on the names, sizes and dates of the files and on every setting. So after an interruption
the next run finds what was done, and nothing out of date.
"""

import hashlib
import json
import os
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from oasisvq.data.found import Member
from oasisvq.data.layouts import Images
from oasisvq.data.recipe import Recipe
from oasisvq.data.slices import Cut, cut_stack, cut_volume
from oasisvq.errors import ImageError, OasisVQError
from oasisvq.files import write_arrays
from oasisvq.jobs import processors
from oasisvq.scans.limits import DEFAULT_MAX_PIXELS
from oasisvq.scans.volumes import partner, volume_suffix

VERSION = 3  # of how slices are cut; a new one invalidates older parts
_BYTES_PER_JOB = 2**25  # of members for which another process pays off


@dataclass(frozen=True)
class Part:
    """One unit of work: a volume, or the images of one session.

    Attributes:
        members: one volume, or the images in order.
        path: the file that holds its slices.
    """

    members: tuple[Member, ...]
    path: Path


@dataclass(frozen=True)
class Maker:
    """How parts are made; it is sent to the processes that make them."""

    images: Images
    size: int
    recipe: Recipe
    whole: bool
    max_pixels: int = DEFAULT_MAX_PIXELS

    def part(self, members: tuple[Member, ...], folder: Path) -> Part:
        """The part of these members in a work folder."""
        told = [
            VERSION,
            self.images.value,
            self.size,
            str(self.recipe.slices),
            self.recipe.percentiles,
            self.recipe.axis,
            [
                (
                    s.name,
                    s.slice_number,
                    s.variant.axis_codes,
                    _states(s.path),
                    s.guide and _states(s.guide),
                )
                for s in members
            ],
        ]
        name = hashlib.sha256(json.dumps(told).encode()).hexdigest()[:32]
        return Part(members, folder / f"{name}.npz")

    def cut(self, members: tuple[Member, ...]) -> Cut:
        """The slices of a volume or stack.

        Raises:
            OasisVQError: it cannot be read, or is unusable.
        """
        first = members[0]
        if first.slice_number is None:
            return cut_volume(
                first.path,
                self.images,
                self.size,
                self.recipe,
                first.variant.axis_codes,
                first.guide,
                self.max_pixels,
            )
        paths = [member.path for member in members]
        numbers = [member.slice_number or 0 for member in members]
        return cut_stack(
            paths, numbers, self.images, self.size, self.recipe, self.whole, self.max_pixels
        )

    def make(self, part: Part) -> OasisVQError | None:
        """Make one part and write it; returns the error if it could not be made."""
        states = [_states(member.path) for member in part.members]
        try:
            cut = self.cut(part.members)
        except OasisVQError as error:
            return error
        for member, state in zip(part.members, states, strict=True):
            if _states(member.path) != state:
                return ImageError(f"{member.path}: changed while it was read; run again")
        write_cut(cut, part.path)
        return None


def files_of(path: Path) -> list[Path]:
    """The files of a volume or image that exist: of a pair, both."""
    suffix = volume_suffix(path)
    is_pair = suffix is not None and suffix.startswith((".hdr", ".img"))
    return [each for each in ([path, partner(path)] if is_pair else [path]) if each.is_file()]


def bytes_of(path: Path) -> int:
    """Bytes of a volume or image; of a pair, of both files."""
    return sum(each.stat().st_size for each in files_of(path))


def _states(path: Path) -> list[tuple[int, int]]:
    states = [each.stat() for each in files_of(path)]
    return [(state.st_size, state.st_mtime_ns) for state in states]


def write_cut(cut: Cut, path: Path) -> None:
    """Write slices to a part file, whole or not at all.

    It is not forced to the disk: a file that a power cut damages fails its checksum and is made again.
    """
    facts = json.dumps(cut._replace(planes=None)._asdict()).encode()  # type: ignore[arg-type]
    temporary = path.with_suffix(f".{os.getpid()}")
    with temporary.open("wb") as stream:
        write_arrays(stream, {"facts": np.frombuffer(facts, np.uint8), "planes": cut.planes})
    temporary.replace(path)


def read_cut(path: Path, with_planes: bool) -> Cut | None:
    """The slices of a part file, or only the facts about them; None if it is missing or damaged."""
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as part:
            facts = json.loads(part["facts"].tobytes())
            planes: NDArray[np.uint8] = part["planes"] if with_planes else np.empty((0, 0, 0), np.uint8)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    low_high = facts["intensity"]
    return Cut(
        planes,
        facts["numbers"],
        [(height, width) for height, width in facts["shapes"]],
        facts["places"],
        low_high and (low_high[0], low_high[1]),
        tuple(facts["labels"]),
        facts["axis_codes"],
        tuple(facts["voxel_size"]),
        facts["is_guessed"],
        tuple(facts["errors"]),
        facts["guide_error"],
    )


def sensible_jobs(members: Iterable[Member]) -> int:
    """Number of processes for this work: one per processor, but only one for a few megabytes."""
    work = sum(bytes_of(member.path) for member in members)
    return max(1, min(processors(), work // _BYTES_PER_JOB))
