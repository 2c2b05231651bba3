"""Images of a folder -> stacks: which of them are the slices of one subject, by their names.

Images form a stack if they lie in one folder, have the same size and type, and their names differ only
in the number of the slice (see `scans/stacks.py`). In addition, something must show that they are slices
of one subject. This is either a word before the number (`slice`, `slc`, `z`, or names of exported DICOM
such as `IM-0001-0012`, `img12`, `I012`), or the name of a subject on the path below the input, as in
`persons.py`. A bare number, such as `1018.png`, counts as a slice only in the folder of a subject: in
other folders it may stand for a person.
"""

import re
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from oasisvq.data.persons import subject_of
from oasisvq.errors import ImageError
from oasisvq.folders import EVERYTHING, Globs, PassedOver
from oasisvq.scans.images import look_at
from oasisvq.scans.limits import MAX_VOXELS, VOXELS_A_PIXEL
from oasisvq.scans.source import Source, SourceKind, sources_below, stack_at
from oasisvq.scans.stacks import Numbered, StackNames, numbered

MAX_STACKED = 32_767  # images of a stack, and their sides: the limit of the geometry of a volume
_OF_SERIES = re.compile(  # what stands before the number of an image that was exported from DICOM
    r"(?i)(?:im|img|image|i|mr|frame|se|ser|series|dicom|dcm)[-_ ]?(?:\d+[-_ ]+)*"
)


class Taken(NamedTuple):
    """Which of its inputs a run takes.

    Attributes:
        globs: which files below folders.
        stacks: whether images that are slices of one subject become one source.
    """

    globs: Globs = EVERYTHING
    stacks: bool = False

    def below(self, folder: Path, passed_over: PassedOver, max_pixels: int) -> Iterator[Source]:
        """The sources below a folder, see `sources_below`."""
        sources = sources_below(folder, passed_over, self.globs)
        return in_stacks(sources, folder, max_pixels) if self.stacks else sources

    def of_named(self, sources: Iterator[Source], max_pixels: int) -> Iterator[Source]:
        """The sources of named files."""
        return in_stacks(sources, None, max_pixels) if self.stacks else sources


ALL_OF_THEM = Taken()


def in_stacks(sources: Iterable[Source], top: Path | None, max_pixels: int) -> Iterator[Source]:
    """The sources, with each stack in the place of its first image and its other images left out.

    Args:
        sources: the sources, folder by folder.
        top: the folder that they lie in; None if each was named.
        max_pixels: how large an image may be; a stack may be as large as a volume, see `limits.py`.
    """
    for _, of_folder in groupby(sources, lambda each: each.files[0].parent):
        listed = list(of_folder)
        stacks = {stack.files[0]: stack for stack in _stacks_of(listed, top, max_pixels)}
        taken = {path for stack in stacks.values() for path in stack.files}
        for source in listed:
            if source.files[0] in stacks:
                yield stacks[source.files[0]]
            elif source.files[0] not in taken:
                yield source


def only_stack(folder: Path, max_pixels: int, globs: Globs = EVERYTHING) -> Source:
    """The stack that a folder holds.

    Raises:
        FileError: the folder cannot be listed.
        ImageError: it holds none, or several, or other scans too.
    """
    found = list(Taken(globs, stacks=True).below(folder, PassedOver(), max_pixels))
    stacks = [source for source in found if source.stack]
    if len(stacks) != 1:
        raise ImageError(
            f"{folder}: {len(stacks)} stacks of images, expected one for one file; name a folder with -o"
        )
    if len(found) > 1:
        other = next(source for source in found if not source.stack)
        raise ImageError(
            f"{folder}: {other.path.name} is no slice of the stack, so one file cannot hold all; leave "
            "it out with --exclude, or name a folder with -o"
        )
    return stacks[0]


def stack_if_one(folder: Path, max_pixels: int) -> Source | None:
    """The stack that a folder holds; None if it holds none or several."""
    found = Taken(EVERYTHING, stacks=True).below(folder, PassedOver(), max_pixels)
    stacks = [source for source in found if source.stack]
    return stacks[0] if len(stacks) == 1 else None


def _stacks_of(sources: list[Source], top: Path | None, max_pixels: int) -> Iterator[Source]:
    """The stacks of one folder."""
    groups: dict[tuple[str, ...], list[tuple[Numbered, Path]]] = {}
    for source in sources:
        parts = numbered(source.path.name) if source.kind is SourceKind.IMAGE else None
        if parts is None:
            continue
        subject = subject_of(_below(source.path, top)) or ""
        if subject or parts.is_slice or _OF_SERIES.fullmatch(parts.before):
            groups.setdefault((parts.before, parts.after, subject), []).append((parts, source.path))
    for members in groups.values():
        if len(members) > 1 and (stack := _stack_of(members, max_pixels)):
            yield stack


def _below(path: Path, top: Path | None) -> str:
    """A path that begins with the name of the top folder."""
    top = top or path.parent
    return f"{top.resolve().name}/{path.relative_to(top).as_posix()}"


def _stack_of(members: list[tuple[Numbered, Path]], max_pixels: int) -> Source | None:
    """The largest group of one size and type among images with similar names; None if it is no stack."""
    width = max((len(parts.digits) for parts, _ in members if parts.digits[0] == "0"), default=1)
    alike: dict[tuple[tuple[int, int], bool], list[tuple[int, Path]]] = {}
    for parts, path in members:
        number = int(parts.digits)
        seen = look_at(path)
        if seen is not None and parts.digits == f"{number:0{width}d}":
            alike.setdefault(seen, []).append((number, path))
    (sides, _), chosen = max(alike.items(), key=lambda item: len(item[1]), default=(((0, 0), False), []))
    pixels = sides[0] * sides[1]
    most = min(VOXELS_A_PIXEL * max_pixels, MAX_VOXELS)
    fits = (
        pixels <= max_pixels and len(chosen) * pixels <= most and max(*sides, len(chosen)) <= MAX_STACKED
    )
    if len(chosen) < 2 or not fits:
        return None
    chosen.sort()
    first = members[0][0]
    stack = StackNames(first.before, first.after, width, tuple(number for number, _ in chosen))
    return None if stack.problem else stack_at(chosen[0][1].parent, stack)
