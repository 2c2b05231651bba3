"""A path -> what it is: determined once, and passed on as a `Source`.

An image is one file. A volume is one file, or two files that form a pair. DICOM is one file, or a folder
that directly holds the files of one series. A stack is the images in one folder that are slices of one
subject. Images and volumes are recognised by their names; DICOM files also by their first bytes, since
many have no ending. The contents are read by `read_scan` in `scan.py`.
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
_NEVER_DICOM = (".json", ".tsv", ".csv", ".txt", ".codes", ".npz", ".safetensors")  # not opened to check


class SourceKind(Enum):
    """Which reader understands a source."""

    IMAGE = "image"
    VOLUME = "volume"
    DICOM = "DICOM"
    STACK = "stack"


class FileState(NamedTuple):
    """The state of a file, by which a change is noticed."""

    number: int
    size: int
    changed_ns: int

    @classmethod
    def of(cls, path: Path) -> "FileState":
        """The state of a regular file.

        Raises:
            FileError: it is missing, or not a regular file.
        """
        require_file(path)
        state = path.stat()
        return cls(state.st_ino, state.st_size, state.st_mtime_ns)


@dataclass(frozen=True)
class Source:
    """A path and what it is.

    Attributes:
        path: the file, as messages show it; for a pair the file that was named, for a DICOM series its
            folder, for a stack its names with a `*` in place of the number.
        kind: which reader understands it.
        files: all files that belong to it.
        is_series: whether it is a folder with the files of a DICOM series.
        volume: which of several volumes in it is meant, from 0; None if it has only one.
        stack: the names of its files, if it is a stack.
    """

    path: Path
    kind: SourceKind
    files: tuple[Path, ...]
    is_series: bool = False
    volume: int | None = None
    stack: StackNames | None = None

    @property
    def name(self) -> str:
        """Its name: that of its file without the ending, or that of its folder.

        A stack has the name that its files have in common, or else that of its folder. One of several
        volumes has its number appended, such as `scan_volume007`.
        """
        if self.stack is not None:
            return self.stack.stem or self.path.parent.resolve().name
        name = self.path.resolve().name if self.is_series else stem(self.path)
        return name if self.volume is None else f"{name}_volume{self.volume:03d}"

    @cached_property
    def states(self) -> tuple[FileState, ...]:
        """The states of its files when this was first asked for; see `states_now`."""
        return self.states_now()

    def states_now(self) -> tuple[FileState, ...]:
        """The states of its files now.

        Raises:
            FileError: one is missing, or not a regular file.
        """
        return tuple(FileState.of(path) for path in self.files)

    @property
    def size(self) -> int:
        """Size of all its files in bytes."""
        return sum(state.size for state in self.states)

    @property
    def changed_ns(self) -> int:
        """When the newest of its files was written, in ns."""
        return max(state.changed_ns for state in self.states)

    def holds(self, path: Path) -> bool:
        """Whether a path leads to one of its files, under any name."""
        return path.exists() and any(path.samefile(file) for file in self.files if file.exists())


def stem(path: Path) -> str:
    """The name of a scan without its ending: scan.nii.gz -> scan."""
    suffix = volume_suffix(path) or dicom_suffix(path) or path.suffix
    return path.name[: len(path.name) - len(suffix)]


def source_at(path: Path) -> Source:
    """What a path is: a file, or a folder that directly holds one DICOM series.

    A file of no known kind counts as an image; the reader of images then says what it expected.

    Raises:
        FileError: it is missing, unreadable, or neither a file nor a folder.
        ImageError: it is a folder without DICOM files.
    """
    if path.is_dir():
        return Source(path, SourceKind.DICOM, tuple(dicom_files_in(path)), is_series=True)
    require_file(path)
    kind = _named_kind(path)
    if kind is None:
        kind = SourceKind.DICOM if is_dicom(path) else SourceKind.IMAGE
    return _file(path, kind)


def stack_at(folder: Path, stack: StackNames) -> Source:
    """The images in a folder that have the names of a stack."""
    files = tuple(folder / name for name in stack.names)
    return Source(folder / stack.pattern, SourceKind.STACK, files, stack=stack)


def sources_below(folder: Path, passed_over: PassedOver, globs: Globs = EVERYTHING) -> Iterator[Source]:
    """The sources in a folder and in those below it, in the order of the walk.

    In each folder the images and volumes come first, by name. Then come its DICOM files as one source: a
    file, or else a series. Whether they really are one series is checked when they are read.

    Args:
        folder: where to look.
        passed_over: records everything that is not a source.
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
    """The kind of a file by its name; None if the name does not tell."""
    if volume_suffix(path) is not None:
        return SourceKind.VOLUME
    if dicom_suffix(path) is not None:
        return SourceKind.DICOM
    return SourceKind.IMAGE if path.suffix.lower() in IMAGE_SUFFIXES else None


def _is_unnamed_dicom(path: Path) -> bool:
    is_directory = path.name.upper() == "DICOMDIR"  # an index of files, not an image
    return not is_directory and path.suffix.lower() not in _NEVER_DICOM and is_dicom(path)


def _is_second_of_pair(path: Path) -> bool:
    """Whether this is the .img of a pair, which its .hdr represents."""
    suffix = volume_suffix(path) or ""
    return suffix.startswith(".img") and any(file != path and file.is_file() for file in files_of(path))
