"""A path -> what it is: found out once, and carried from there on as a `Source`.

An image or a volume is one file, a volume in two files is a pair, DICOM is one file or a folder that
directly holds the files of one series, a stack is the images of one folder that are a subject's slices.
Names tell images and volumes; DICOM files are told by their first bytes too, for many have no ending.
What is inside is read by `read_scan` in `scan.py`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from oasisvq.files import require_file
from oasisvq.folders import EVERYTHING, Globs, Listing, PassedOver, walk
from oasisvq.scans.dicom import DICOM_SUFFIXES, dicom_files_in, dicom_suffix, is_dicom
from oasisvq.scans.images import IMAGE_SUFFIXES
from oasisvq.scans.stacks import StackNames
from oasisvq.scans.volumes import VOLUME_SUFFIXES, files_of, volume_suffix

SCAN_SUFFIXES = (*IMAGE_SUFFIXES, *VOLUME_SUFFIXES, *DICOM_SUFFIXES)
_NEVER_DICOM = (".json", ".tsv", ".csv", ".txt", ".codes", ".npz", ".safetensors")  # not opened to see


class SourceKind(Enum):
    """Which reader understands a source."""

    IMAGE = "image"
    VOLUME = "volume"
    DICOM = "DICOM"
    STACK = "stack"


class FileState(NamedTuple):
    """What tells a file from a changed one."""

    number: int
    size: int
    changed_ns: int

    @classmethod
    def of(cls, path: Path) -> "FileState":
        """The state of a regular file.

        Raises:
            FileError: it is missing, or none.
        """
        require_file(path)
        state = path.stat()
        return cls(state.st_ino, state.st_size, state.st_mtime_ns)


@dataclass(frozen=True)
class Source:
    """A path and what it is.

    Attributes:
        path: the file; of a pair the one that was named, of a DICOM series its folder, of a stack its
            names with a `*` for the number. Messages name it.
        kind: which reader understands it.
        files: all files that belong to it.
        is_series: whether it is a folder with the files of a DICOM series.
        volume: of several volumes in it the one that is meant, from 0; None where it has but one.
        stack: of a stack the names of its files.
    """

    path: Path
    kind: SourceKind
    files: tuple[Path, ...]
    is_series: bool = False
    volume: int | None = None
    stack: StackNames | None = None

    @property
    def name(self) -> str:
        """What it is called: the name of its file without the ending, or of its folder.

        A stack is called by what its names have in common, or by its folder where that is nothing. One
        of several volumes has its number behind it, such as `scan_volume007`.
        """
        if self.stack is not None:
            return self.stack.stem or self.path.parent.resolve().name
        name = self.path.resolve().name if self.is_series else stem(self.path)
        return name if self.volume is None else f"{name}_volume{self.volume:03d}"

    @cached_property
    def states(self) -> tuple[FileState, ...]:
        """Those of its files when this was first asked; see `states_now`."""
        return self.states_now()

    def states_now(self) -> tuple[FileState, ...]:
        """What tells its files from changed ones.

        Raises:
            FileError: one is missing or no regular file.
        """
        return tuple(FileState.of(path) for path in self.files)

    @property
    def size(self) -> int:
        """Bytes of all its files."""
        return sum(state.size for state in self.states)

    @property
    def changed_ns(self) -> int:
        """When the youngest of its files was written, in ns."""
        return max(state.changed_ns for state in self.states)

    def holds(self, path: Path) -> bool:
        """Whether a path is one of its files, by whatever name."""
        return path.exists() and any(path.samefile(file) for file in self.files if file.exists())


def stem(path: Path) -> str:
    """A name without the ending that makes it one of a scan: scan.nii.gz -> scan."""
    suffix = volume_suffix(path) or dicom_suffix(path) or path.suffix
    return path.name[: len(path.name) - len(suffix)]


def source_at(path: Path) -> Source:
    """What a path is: a file, or a folder that directly holds one DICOM series.

    A file that is nothing known counts as an image, whose reader then says what it should have been.

    Raises:
        FileError: missing, unreadable, or neither file nor folder.
        ImageError: a folder without DICOM files.
    """
    if path.is_dir():
        return Source(path, SourceKind.DICOM, tuple(dicom_files_in(path)), is_series=True)
    require_file(path)
    kind = _named_kind(path)
    if kind is None:
        kind = SourceKind.DICOM if is_dicom(path) else SourceKind.IMAGE
    return _file(path, kind)


def stack_at(folder: Path, stack: StackNames) -> Source:
    """The images of a folder with the names of a stack."""
    files = tuple(folder / name for name in stack.names)
    return Source(folder / stack.pattern, SourceKind.STACK, files, stack=stack)


def sources_below(folder: Path, passed_over: PassedOver, globs: Globs = EVERYTHING) -> Iterator[Source]:
    """The sources of a folder and of those below it, in the order of the walk.

    Of each folder first the images and volumes by name, then its DICOM files: one source where it is
    one file, else a series. Whether they are one series is seen when they are read.

    Args:
        folder: where to look.
        passed_over: told of everything that is no source.
        globs: which files are taken.

    Raises:
        FileError: a folder cannot be listed.
    """
    for listing in walk(folder, globs):
        passed_over.add_listing(listing)
        yield from _sources_of(listing, passed_over)


def _sources_of(listing: Listing, passed_over: PassedOver) -> Iterator[Source]:
    dicom = []
    for path in listing.files:
        kind = _named_kind(path)
        if kind is SourceKind.DICOM or (kind is None and _is_unnamed_dicom(path)):
            dicom.append(path)
        elif kind is None:
            passed_over.add_file(path)
        elif not _is_second_of_pair(path):
            yield _file(path, kind)
    if len(dicom) == 1:
        yield _file(dicom[0], SourceKind.DICOM)
    elif dicom:
        yield Source(listing.folder, SourceKind.DICOM, tuple(dicom), is_series=True)


def _file(path: Path, kind: SourceKind) -> Source:
    if kind is not SourceKind.VOLUME:
        return Source(path, kind, (path,))
    present = tuple(file for file in files_of(path) if file == path or file.is_file())
    return Source(path, kind, present)


def _named_kind(path: Path) -> SourceKind | None:
    """What the name of a file says; None where it says nothing."""
    if volume_suffix(path) is not None:
        return SourceKind.VOLUME
    if dicom_suffix(path) is not None:
        return SourceKind.DICOM
    return SourceKind.IMAGE if path.suffix.lower() in IMAGE_SUFFIXES else None


def _is_unnamed_dicom(path: Path) -> bool:
    is_directory = path.name.upper() == "DICOMDIR"  # an index of files, and no image
    return not is_directory and path.suffix.lower() not in _NEVER_DICOM and is_dicom(path)


def _is_second_of_pair(path: Path) -> bool:
    """Whether this is the .img of a pair, whose .hdr stands for it."""
    suffix = volume_suffix(path) or ""
    return suffix.startswith(".img") and any(file != path and file.is_file() for file in files_of(path))
