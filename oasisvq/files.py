"""Atomic writes, locks, overwrite policy, reading with a limit.

Never imports torch.
"""

import json
import os
import re
import shutil
import stat
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from oasisvq.errors import FileError

try:
    import fcntl
except ImportError:  # Windows has none
    fcntl = None  # type: ignore[assignment]

METRICS_FILE = "metrics.jsonl"  # in a run folder
MAX_METRICS_BYTES = 2**28
STORE_SUFFIX = ".tokens"  # of a folder of arrays, see `tokens.py`
MODEL_FILE = "model.safetensors"  # in a run folder, and beside the bundled model's card
_KEPT_MODEL = re.compile(r"(model-)?[0-9a-f]{8}\.safetensors")  # see `model_store.py`
_TEMPORARY_PREFIX, _TEMPORARY_SUFFIX = ".oasisvq-", ".tmp"
_TEMPORARY = re.compile(r"\.oasisvq-[a-z0-9_]{8}\.tmp")  # as `mkstemp` names them


def _reason(error: OSError) -> str:
    return error.strerror or str(error)


def is_model_name(path: Path) -> bool:
    """Whether a file has the name of a model in a run folder, in the store, or beside codes."""
    return path.name == MODEL_FILE or _KEPT_MODEL.fullmatch(path.name) is not None


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
    """The content of a file, if it has at most `limit` bytes.

    Raises:
        FileError: missing, no regular file, unreadable, or larger than `limit`.
    """
    require_file(path)
    try:
        with path.open("rb") as stream:
            # not read(limit + 1), which allocates that much before it reads a byte
            size = os.fstat(stream.fileno()).st_size
            content = b"" if size > limit else stream.read()
    except OSError as error:
        raise FileError(f"{path}: cannot be read: {_reason(error)}") from error
    if max(size, len(content)) > limit:
        raise FileError(f"{path}: has more than {limit:,} bytes, the limit for such a file")
    return content


def read_rows(path: Path, limit: int) -> list[dict[str, Any]]:
    """The rows of a file with one JSON object per line; damaged lines are left out.

    There are none if there is no such file, or it is larger than `limit`.
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
        FileError: `path` exists and `force` is not set; or is a folder, a pipe or a device, which are
            never replaced.
    """
    if path.is_dir():
        raise FileError(f"{path}: is a folder, expected the name of a file to write")
    if path.exists() and not path.is_file():
        raise FileError(f"{path}: is a pipe or device, expected the name of a file to write")
    if os.path.lexists(path) and not force:
        raise FileError(f"{path}: exists; pass -f to overwrite it or name another output")


def require_output(path: Path, force: bool) -> None:
    """Raise unless an output can be written, so that problems show before the work and not after it.

    Raises:
        FileError: something is in the way, see `refuse_overwrite`; or the folder is missing or cannot
            be written to.
    """
    refuse_overwrite(path, force)
    folder = path.parent
    if not folder.is_dir():
        found = "is a file" if folder.exists() else "does not exist"
        raise FileError(f"{path}: the folder {folder} {found}; make it or name another output")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise FileError(f"{path}: the folder {folder} cannot be written to; name another output")


def make_folder(path: Path) -> None:
    """Create a folder and its parents.

    Raises:
        FileError: it cannot be created.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(f"{path}: the folder cannot be created: {_reason(error)}") from error


def _lock(descriptor: int) -> bool | None:
    """Lock an open file; the result is as in `claimed`."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return None
    return True


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether an open file still lies at `path`."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


@contextmanager
def claimed(path: Path, create: bool = False) -> Iterator[bool | None]:
    """Lock a file while the block runs, so that other processes see that it is in use.

    The system releases the lock when the process ends, however it ends. The locked file is not deleted.
    Who wants a file that is in use has to try again.

    Gives: True if this process has the lock, False if another process has it, None if that cannot be
    known, because the system or the file system has no locks.

    Raises:
        FileError: the file cannot be opened for writing; or, without `create`, it is missing.
    """
    descriptor = -1
    try:
        while True:
            try:
                descriptor = os.open(path, os.O_RDWR | (os.O_CREAT if create else 0), 0o666)
            except OSError as error:
                raise FileError(f"{path}: cannot be written: {_reason(error)}") from error
            free = _lock(descriptor)
            if free is False or _is_at(descriptor, path):
                break
            stale, descriptor = descriptor, -1  # the process that had it has deleted it
            os.close(stale)
        yield free
    finally:
        if descriptor >= 0:
            os.close(descriptor)


def _open_temporary(folder: Path) -> tuple[Path, BinaryIO]:
    """A new file that other processes see as in use while it is open."""
    while True:
        descriptor, name = tempfile.mkstemp(_TEMPORARY_SUFFIX, _TEMPORARY_PREFIX, folder)
        path, stream = Path(name), os.fdopen(descriptor, "wb")
        if _lock(descriptor) is not False and _is_at(descriptor, path):
            return path, stream
        stream.close()  # another process cleaned up the folder before the lock was taken


@contextmanager
def atomic_writers(*paths: Path) -> Iterator[list[BinaryIO]]:
    """Streams to temporary files beside `paths`, which get these names when the block succeeds.

    An interrupted or failed block leaves the old files, or none, and no temporary file. What a killed
    process leaves is removed by the next write into the folder. If several files make one output, the
    last must be the file that the others depend on, such as a header. It is removed while the others
    are replaced. So a kill leaves all files old, all new, or no header, but never old beside new ones.

    Raises:
        FileError: a folder is missing or not writable, or the disk is full.
    """
    unfinished: list[tuple[Path, BinaryIO]] = []
    try:
        for path in paths:
            _clear_once(path.parent.absolute())
            unfinished.append(_open_temporary(path.parent))
        yield [stream for _, stream in unfinished]
        umask = os.umask(0)
        os.umask(umask)
        for temporary, stream in unfinished:
            stream.flush()
            os.fsync(stream.fileno())
            temporary.chmod(0o666 & ~umask)  # mkstemp makes it private; outputs follow the umask
            if fcntl is None:
                stream.close()  # Windows cannot rename an open file
        if len(paths) > 1:
            paths[-1].unlink(missing_ok=True)
        for path in paths:
            unfinished[0][0].replace(path)
            unfinished.pop(0)[1].close()
    except OSError as error:
        raise FileError(f"{paths[0]}: cannot be written: {_reason(error)}") from error
    finally:
        for temporary, stream in unfinished:
            with suppress(OSError):  # its buffered content may not fit on the disk
                stream.close()
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_writer(path: Path) -> Iterator[BinaryIO]:
    """A stream to one file, see `atomic_writers`.

    Raises:
        FileError: the folder is missing or not writable, or the disk is full.
    """
    with atomic_writers(path) as (stream,):
        yield stream


@contextmanager
def temporary_folder(folder: Path) -> Iterator[Path]:
    """A new temporary folder in `folder`; `move_into_place` gives it its final name when complete.

    It is deleted with its content when the block ends, however it ends. What a killed process leaves is
    deleted by the next write into `folder`.

    Raises:
        FileError: `folder` is missing or not writable.
    """
    _clear_once(folder.absolute())
    descriptor = -1
    try:
        while True:
            path = Path(tempfile.mkdtemp(_TEMPORARY_SUFFIX, _TEMPORARY_PREFIX, folder))
            if fcntl is None:  # Windows cannot open folders
                break
            with suppress(FileNotFoundError):
                descriptor = os.open(path, os.O_RDONLY)
                if _lock(descriptor) is not False and _is_at(descriptor, path):
                    break
                os.close(descriptor)  # another process cleaned up the folder before the lock was taken
                descriptor = -1
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)
    except OSError as error:
        raise FileError(f"{folder}: cannot be written: {_reason(error)}") from error
    finally:
        if descriptor >= 0:
            os.close(descriptor)


def move_into_place(unfinished: Path, target: Path) -> None:
    """Give a temporary folder its name, or move its files into an existing folder.

    Raises:
        FileError: something cannot be replaced.
    """
    try:
        if target.is_dir():
            for path in sorted(unfinished.iterdir()):
                path.replace(target / path.name)
        else:
            umask = os.umask(0)
            os.umask(umask)
            unfinished.chmod(0o777 & ~umask)  # mkdtemp makes it private
            unfinished.replace(target)
    except OSError as error:
        raise FileError(f"{target}: cannot be written: {_reason(error)}") from error


def remove_temporaries(folder: Path) -> None:
    """Delete temporary files of killed processes in a folder, but none that a process still writes.

    Without locks the two cannot be distinguished, and nothing is deleted.
    """
    try:
        paths = [path for path in folder.iterdir() if _TEMPORARY.fullmatch(path.name)]
    except OSError:
        return  # the write that follows will report the problem
    for path in paths:
        with suppress(OSError, FileError):  # another process was faster, or another user owns it
            mode = path.lstat().st_mode
            if stat.S_ISREG(mode):
                with claimed(path) as free:
                    if free:
                        path.unlink()
            elif stat.S_ISDIR(mode):
                _remove_temporary_folder(path)


def _remove_temporary_folder(path: Path) -> None:
    if fcntl is None:
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        if _lock(descriptor) and _is_at(descriptor, path):
            shutil.rmtree(path)
    finally:
        os.close(descriptor)


@lru_cache(maxsize=16)  # folders that are currently written to
def _clear_once(folder: Path) -> None:
    remove_temporaries(folder)


def write_atomically(path: Path, content: bytes) -> None:
    """Write `content` to `path`, whole or not at all.

    Raises:
        FileError: see `atomic_writer`.
    """
    with atomic_writer(path) as stream:
        stream.write(content)


def link_atomically(source: Path, target: Path, is_right: Callable[[Path], bool]) -> bool:
    """Make `target` a hard link to `source`, whole or not at all.

    Args:
        source: a file that another process may replace in the meantime.
        target: the new link; its folder must exist.
        is_right: checks the link before it gets its name.

    Returns:
        Whether the link was made; the file system, or another owner of the file, may not allow it.
    """
    link = target.parent / f"{_TEMPORARY_PREFIX}{os.urandom(4).hex()}{_TEMPORARY_SUFFIX}"
    try:
        os.link(source, link)
        if not is_right(link):
            return False
        link.replace(target)
    except OSError:
        return False
    finally:
        link.unlink(missing_ok=True)  # it also remains if a file is replaced by itself
    return True


def write_arrays(stream: BinaryIO, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write arrays as `numpy.savez` does, but leave no archive open if that fails.

    NumPy up to 1.26 leaves it open. It is then closed after its stream, with a traceback on stderr.
    """
    with zipfile.ZipFile(stream, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)
