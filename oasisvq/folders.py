"""Walking a folder tree, counting what is passed over, and dividing what is found into shards.

Never imports torch.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePath
from typing import NamedTuple

from oasisvq.errors import FileError
from oasisvq.files import is_model_name

_LEFT_OUT = "file left out by --include or --exclude"
_NOWHERE, _NO_ENDING = "link that points nowhere", "file without an ending"
_WALKED = "link to a folder that is taken elsewhere"
_PLURALS = {
    _LEFT_OUT: "files left out by --include or --exclude",
    _NOWHERE: "links that point nowhere",
    _NO_ENDING: "files without an ending",
    _WALKED: "links to folders that are taken elsewhere",
}


@dataclass(frozen=True)
class Globs:
    """Which files below a folder are taken, by shell patterns.

    A pattern with a slash must match the path below the folder, where `*` also matches slashes. A
    pattern without a slash must match the name of the file or of a folder on its path.

    Attributes:
        include: if there are any, one of these must match.
        exclude: none of these may match.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def take(self, path: PurePath) -> bool:
        """Whether a file is taken, by its path below the folder."""
        is_in = not self.include or any(_matches(path, pattern) for pattern in self.include)
        return is_in and not any(_matches(path, pattern) for pattern in self.exclude)


EVERYTHING = Globs()


def _matches(path: PurePath, pattern: str) -> bool:
    if "/" not in pattern.rstrip("/"):
        return any(fnmatchcase(part, pattern.rstrip("/")) for part in path.parts)
    return fnmatchcase(path.as_posix(), f"{pattern}*" if pattern.endswith("/") else pattern)


class Listing(NamedTuple):
    """One folder of a walk.

    Attributes:
        folder: its path.
        files: its files by name; links to files and dangling links count as files.
        passed_links: how many links to folders are not followed, see `walk`.
        left_out: how many files the globs leave out.
    """

    folder: Path
    files: list[Path]
    passed_links: int
    left_out: int = 0


def walk(top: Path, globs: Globs = EVERYTHING) -> Iterator[Listing]:
    """A folder and all folders below it in a fixed order, without hidden files and folders.

    A folder comes before its subfolders, which follow by name, so that the names of only one folder are
    held at a time. Links to folders are followed, but each folder is walked once. A link into the same
    tree is not followed, because that folder is walked under its own name. A link to a parent folder is
    not followed either.

    Raises:
        FileError: a folder cannot be listed.
    """
    _entries(top)  # raises at once if the folder cannot be listed
    for listing in _walk(top, top.resolve(), {_identity(top)}):
        taken = [path for path in listing.files if globs.take(path.relative_to(top))]
        yield listing._replace(files=taken, left_out=len(listing.files) - len(taken))


def _walk(folder: Path, root: Path, seen: set[tuple[int, int]]) -> Iterator[Listing]:
    files, inner, passed_links = [], [], 0
    for entry in _entries(folder):
        path = Path(entry.path)
        if entry.name.startswith("."):
            continue
        if not entry.is_dir():
            files.append(path)
        elif (entry.is_symlink() and not _leads_out(path, root)) or _identity(path) in seen:
            passed_links += 1
        else:
            seen.add(_identity(path))
            inner.append(path)
    yield Listing(folder, files, passed_links)
    for path in inner:
        yield from _walk(path, root, seen)


def _identity(folder: Path) -> tuple[int, int]:
    state = folder.stat()
    return state.st_dev, state.st_ino


def _leads_out(link: Path, root: Path) -> bool:
    """Whether a link leads to a folder that walking `root` does not reach otherwise."""
    target = link.resolve()
    if not target.is_relative_to(root):
        return not root.is_relative_to(target)
    return any(part.startswith(".") for part in target.relative_to(root).parts)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """The entries of a folder, by name.

    Raises:
        FileError: it cannot be listed.
    """
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except FileNotFoundError:
        raise FileError(f"{folder}: no such folder; check the name") from None
    except NotADirectoryError:
        raise FileError(f"{folder}: is a file, expected a folder") from None
    except OSError as error:
        raise FileError(f"{folder}: cannot be listed: {error.strerror or error}") from error
    if not os.access(folder, os.X_OK):  # its names are readable, its files are not
        raise FileError(f"{folder}: cannot be searched: no permission; see chmod +x")
    return entries


class PassedOver:
    """Counts what a run over folders did not take, by kind, for the report at its end."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def sift(self, listing: Listing, is_wanted: Callable[[Path], bool]) -> list[Path]:
        """The wanted files of one folder; the other files, and links, are counted."""
        self.add_listing(listing)
        wanted = []
        for path in listing.files:
            if is_wanted(path):
                wanted.append(path)
            else:
                self.add_file(path)
        return wanted

    def add_file(self, path: Path) -> None:
        """Count a file by its ending or as a dangling link; a model beside its codes is not counted."""
        if is_model_name(path):
            return
        if path.is_symlink() and not path.exists():
            self.counts[_NOWHERE] += 1
        else:
            self.counts[ending_of(path) or _NO_ENDING] += 1

    def add_listing(self, listing: Listing) -> None:
        """Count links to folders that are walked under their own names, and files left out by globs."""
        self.counts[_WALKED] += listing.passed_links
        self.counts[_LEFT_OUT] += listing.left_out

    def __str__(self) -> str:
        """Such as `passed over: 3 .json, 1 link that points nowhere`; empty if nothing was."""
        if not self.counts.total():
            return ""
        ordered = sorted(self.counts.items(), key=lambda item: (item[0] in _PLURALS, -item[1], item[0]))
        told = [
            f"{count:,} {_PLURALS.get(what, what) if count > 1 else what}"
            for what, count in ordered
            if count
        ]
        return "passed over: " + ", ".join(told)

    def as_dict(self) -> dict[str, int]:
        """As JSON holds it."""
        return {what: count for what, count in self.counts.items() if count}


def ending_of(path: Path) -> str:
    """The ending of a name in lower case, such as `.json` or `.tar.gz`; empty if it has none."""
    name = path.name.lower()
    packed = ".gz" if name.endswith(".gz") else ""
    return Path(name.removesuffix(packed)).suffix + packed


@dataclass(frozen=True)
class Shard:
    """One of `count` equal parts of a run's files: every file whose place is `index` modulo `count`."""

    index: int
    count: int

    def takes(self, place: int) -> bool:
        """Whether the file at this place of the walk is in the shard."""
        return place % self.count == self.index


WHOLE = Shard(0, 1)


def parse_shard(text: str) -> Shard:
    """`2/8` as a shard; indices count from 0 like ranks.

    Raises:
        ValueError: not i/n with 0 <= i < n.
    """
    index, _, count = text.partition("/")
    shard = Shard(int(index), int(count))
    if not 0 <= shard.index < shard.count:
        raise ValueError(text)
    return shard


def shard_of_environment() -> tuple[Shard, str]:
    """The shard that torchrun or SLURM gave this process, and the launcher's name; else the whole."""
    for name, index, count in (
        ("torchrun", "RANK", "WORLD_SIZE"),
        ("SLURM", "SLURM_PROCID", "SLURM_NTASKS"),
    ):
        if name == "SLURM" and "SLURM_JOB_ID" in os.environ and "SLURM_STEP_ID" not in os.environ:
            continue  # the batch script itself sees the job's tasks but is not one of them
        given = os.environ.get(index, ""), os.environ.get(count, "")
        if all(each.isdigit() for each in given) and 0 <= int(given[0]) < int(given[1]) > 1:
            return Shard(int(given[0]), int(given[1])), name
    return WHOLE, ""
