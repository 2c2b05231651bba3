"""Atomic writes, overwrite policy, reading with a limit, walking a tree.

Never imports torch.
"""

import json
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from oasisvq.errors import FileError

METRICS_FILE = "metrics.jsonl"  # in a run folder
MAX_METRICS_BYTES = 2**28
MODEL_FILE = "model.safetensors"  # in a run folder, and beside the bundled model's card
_TEMPORARY_PREFIX = ".oasisvq-"


def _reason(error: OSError) -> str:
    return error.strerror or str(error)


def require_file(path: Path) -> None:
    """Raise unless `path` is a regular file.

    Raises:
        FileError: missing, a folder, or a pipe or device.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        hint = " (a dangling link)" if path.is_symlink() else ""
        raise FileError(f"{path}: no such file{hint}; check the name") from None
    except OSError as error:
        raise FileError(f"{path}: cannot be read: {_reason(error)}") from error
    if stat.S_ISDIR(mode):
        raise FileError(f"{path}: is a folder, expected a file")
    if not stat.S_ISREG(mode):
        raise FileError(f"{path}: is a pipe or device, expected a regular file")


def read_bytes(path: Path, limit: int) -> bytes:
    """The whole file, if it has at most `limit` bytes.

    Raises:
        FileError: missing, no regular file, unreadable, or larger than `limit`.
    """
    require_file(path)
    try:
        with path.open("rb") as stream:
            # not read(limit + 1), which reserves as much before it reads a byte
            size = os.fstat(stream.fileno()).st_size
            content = b"" if size > limit else stream.read()
    except OSError as error:
        raise FileError(f"{path}: cannot be read: {_reason(error)}") from error
    if max(size, len(content)) > limit:
        raise FileError(f"{path}: has more than {limit:,} bytes, the limit for such a file")
    return content


def read_rows(path: Path, limit: int) -> list[dict[str, Any]]:
    """The rows of a file of JSON objects, one a line, without lines that someone has spoilt.

    None where there is no such file, or it is larger than `limit`.
    """
    try:
        lines = read_bytes(path, limit).splitlines()
    except FileError:
        return []
    rows = []
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            rows.append(row)
    return rows


def refuse_overwrite(path: Path, force: bool) -> None:
    """Raise if something is in the way of an output.

    Raises:
        FileError: `path` exists and `force` is not set, or is a folder.
    """
    if path.is_dir():
        raise FileError(f"{path}: is a folder, expected the name of a file to write")
    if path.exists() and not force:
        raise FileError(f"{path}: exists; pass -f to overwrite it or name another output")


def make_folder(path: Path) -> None:
    """Create a folder and its parents.

    Raises:
        FileError: it cannot be created.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(f"{path}: the folder cannot be created: {_reason(error)}") from error


@contextmanager
def atomic_writer(path: Path) -> Iterator[BinaryIO]:
    """A stream to a temporary file in the same folder, renamed to `path` when the block ends well.

    An interrupted or failed block leaves the old file, or none, and no temporary file.

    Raises:
        FileError: the folder is missing or not writable, or the disk is full.
    """
    temporary: Path | None = None
    try:
        descriptor, name = tempfile.mkstemp(prefix=_TEMPORARY_PREFIX, dir=path.parent)
        temporary = Path(name)
        with os.fdopen(descriptor, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)  # mkstemp makes it private; outputs follow the umask
        temporary.replace(path)
        temporary = None
    except OSError as error:
        raise FileError(f"{path}: cannot be written: {_reason(error)}") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def remove_temporaries(folder: Path) -> None:
    """Delete what killed writers left in a folder that no other process writes to now."""
    for path in folder.glob(f"{_TEMPORARY_PREFIX}*"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def write_atomically(path: Path, content: bytes) -> None:
    """Write `content` to `path`, whole or not at all.

    Raises:
        FileError: see `atomic_writer`.
    """
    with atomic_writer(path) as stream:
        stream.write(content)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """What lies in a folder, by name.

    Raises:
        FileError: it cannot be listed.
    """
    try:
        return sorted(os.scandir(folder), key=lambda entry: entry.name)
    except FileNotFoundError:
        raise FileError(f"{folder}: no such folder; check the name") from None
    except NotADirectoryError:
        raise FileError(f"{folder}: is a file, expected a folder") from None
    except OSError as error:
        raise FileError(f"{folder}: cannot be listed: {_reason(error)}") from error


def walk(folder: Path, wanted: Callable[[Path], bool]) -> Iterator[Path]:
    """The wanted files below a folder in a fixed order, hidden ones left out.

    First a folder's own files by name, then its folders by name, so that only one folder's names
    are held at a time.

    Raises:
        FileError: a folder cannot be listed.
    """
    folders = []
    for entry in _entries(folder):
        if entry.name.startswith("."):
            continue
        if entry.is_dir(follow_symlinks=False):
            folders.append(Path(entry.path))
        elif wanted(Path(entry.path)):
            yield Path(entry.path)
    for inner in folders:
        yield from walk(inner, wanted)


def walk_folder(folder: Path, wanted: Callable[[Path], bool]) -> Iterator[Path]:
    """The wanted files of one folder by name, hidden ones and inner folders left out.

    Raises:
        FileError: it cannot be listed.
    """
    names = [entry.name for entry in _entries(folder) if not entry.is_dir()]
    yield from (folder / name for name in names if not name.startswith(".") and wanted(folder / name))


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
    """`2/8` to a shard; indices run from 0 like ranks.

    Raises:
        ValueError: not i/n with 0 <= i < n.
    """
    index, _, count = text.partition("/")
    shard = Shard(int(index), int(count))
    if not 0 <= shard.index < shard.count:
        raise ValueError(text)
    return shard


def shard_of_environment() -> tuple[Shard, str]:
    """The shard that torchrun or SLURM gave this process, and which of them; else the whole."""
    for name, index, count in (
        ("torchrun", "RANK", "WORLD_SIZE"),
        ("SLURM", "SLURM_PROCID", "SLURM_NTASKS"),
    ):
        if name == "SLURM" and "SLURM_JOB_ID" in os.environ and "SLURM_STEP_ID" not in os.environ:
            continue  # the batch script itself, which sees the job's tasks but is none of them
        given = os.environ.get(index, ""), os.environ.get(count, "")
        if all(each.isdigit() for each in given) and 0 <= int(given[0]) < int(given[1]) > 1:
            return Shard(int(given[0]), int(given[1])), name
    return WHOLE, ""
