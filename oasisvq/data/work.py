"""The hidden folder beside an output in which a dataset is made, and what the output may replace.

The process that works in it locks it. It outlives a kill, and is deleted when the output is complete.
"""

import dataclasses
import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from oasisvq.data.dataset import MANIFEST, Dataset, is_prepared, manifest_bytes
from oasisvq.data.layouts import SPLITS
from oasisvq.errors import FileError, OasisVQError
from oasisvq.files import claimed, make_folder


@dataclasses.dataclass(frozen=True)
class Work:
    """Where things lie while a dataset is made.

    Attributes:
        final: the output, with links followed.
    """

    final: Path

    @property
    def folder(self) -> Path:
        """The work folder, which holds the parts (see `parts.py`) and everything below."""
        return self.final.with_name(f".{self.final.name}.parts")

    @property
    def lock(self) -> Path:
        """The lock file, held by the process that works here."""
        return self.folder / "lock"

    @property
    def new(self) -> Path:
        """The new dataset, until it is whole."""
        return self.folder / "new"

    @property
    def old(self) -> Path:
        """The dataset that it replaces, between the two renames."""
        return self.folder / "old"

    def put_in_place(self, dataset: Dataset) -> None:
        """Write the manifest of the dataset in `new`, and rename `new` to `final`.

        A kill between the two renames is undone by the next run. An empty `final` stays the same folder,
        since somebody may be in it: the files are moved there, the manifest last.
        """
        with (self.new / MANIFEST).open("wb") as stream:  # not atomically: the folder as a whole is
            stream.write(manifest_bytes(dataset))
            _force_to_disk(stream)
        try:
            if self.final.exists() and not is_prepared(self.final):
                for name in (*(f"{split}.npy" for split in dataset.splits), MANIFEST):
                    (self.new / name).replace(self.final / name)
                return
            if self.final.exists():
                self.final.replace(self.old)
            self.new.replace(self.final)
        finally:
            self.undo()

    def undo(self) -> None:
        """Delete a half-written dataset, and put back an old one that was not replaced."""
        shutil.rmtree(self.new, ignore_errors=True)
        if self.old.exists() and not self.final.exists():
            self.old.replace(self.final)
        shutil.rmtree(self.old, ignore_errors=True)


@contextmanager
def working_on(output: Path, force: bool) -> Iterator[Work]:
    """The work folder of an output, for this process alone; deleted unless the block is interrupted.

    Raises:
        FileError: another process makes this output, the output is in the way, or a file cannot be
            written.
    """
    work = Work(Path(os.path.realpath(output)))
    make_folder(work.folder)
    try:
        with claimed(work.lock, create=True) as free:
            if free is False:
                raise FileError(
                    f"{output}: another process is making it; wait for its end or name another output"
                )
            keep = any(work.folder.glob("*.npz"))  # of an interrupted run, if this one is refused
            try:
                work.undo()
                _refuse_replacing(output, force)
                keep = False
                yield work
            except (OSError, OasisVQError):
                if not keep:
                    shutil.rmtree(work.folder, ignore_errors=True)
                raise
            shutil.rmtree(work.folder, ignore_errors=True)
    except OSError as error:
        raise FileError(f"{output}: cannot be written: {error.strerror or error}") from error


def write_slices(path: Path, shape: tuple[int, int, int], pieces: Iterable[NDArray[np.uint8]]) -> str:
    """Write the array of a split piece by piece; returns its checksum, see `array_checksum`."""
    digest = hashlib.sha256()
    with path.open("wb") as stream:
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(stream, header)
        for piece in pieces:
            stream.write(piece.data)
            digest.update(piece.data)
        _force_to_disk(stream)
    return digest.hexdigest()


def _force_to_disk(stream: BinaryIO) -> None:
    stream.flush()
    os.fsync(stream.fileno())


def _refuse_replacing(output: Path, force: bool) -> None:
    """Refuse to replace anything but an empty folder, or a prepared dataset with `force`."""
    if is_prepared(output):
        if not force:
            raise FileError(f"{output}: exists; pass -f to replace it or name another output")
        ours = {MANIFEST, *(f"{split}.npy" for split in SPLITS)}
        others = sorted(path.name for path in output.iterdir() if path.name not in ours)
        if others:
            raise FileError(
                f"{output}: holds {others[0]} beside a prepared dataset; move it away or name "
                "another output"
            )
        if Path.cwd().is_relative_to(output.resolve()):
            raise FileError(f"{output}: you are in this folder, which is replaced; go elsewhere first")
    elif output.is_symlink() and not output.exists() and Path(os.path.realpath(output)).is_symlink():
        raise FileError(f"{output}: a link that leads in a circle; name another output")
    elif output.exists() and not (output.is_dir() and not any(output.iterdir())):
        raise FileError(f"{output}: exists and is no prepared dataset; name another output")
