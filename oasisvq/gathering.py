"""A folder of `.codes` files -> one array file of their indices, see `tokens.py`. Never imports torch.

Shapes: F files, N slices, L levels, h×w grid.

The files are read twice. Their headers give the size of the array. Then their indices go into it one
file after another, so that for a `.npz` or a store only one file is in memory at a time.
"""

import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from oasisvq.codec.codes import NO_INDEX, Codes, CodesFile
from oasisvq.codec.container import SUFFIX, read_codes_file
from oasisvq.codec.entropy import pack
from oasisvq.codec.headers import Coder, CodesHeader
from oasisvq.codec.slices import codes_of
from oasisvq.data.layouts import slice_of
from oasisvq.data.persons import subject_of
from oasisvq.errors import CodesFileError, FileError
from oasisvq.files import STORE_SUFFIX, atomic_writer
from oasisvq.folders import EVERYTHING, WHOLE, Globs, PassedOver, Shard, walk
from oasisvq.jobs import calls
from oasisvq.models import ModelFinder
from oasisvq.tokens import (
    MAX_TOKEN_BYTES,
    Tokens,
    header_bytes,
    refuse_unsafe,
    store_writer,
    write_strings,
    write_tokens,
)

MAX_SPREAD = 4  # the common grid may have this many times the cells of the largest window

Arrays = dict[str, NDArray[Any]]


class _Unpacked(NamedTuple):
    """Indices of a file (slices, L, h, w), its header as in a packed file, and that header as bytes."""

    indices: NDArray[np.uint16]
    header: CodesHeader
    header_bytes: bytes


@dataclass(frozen=True)
class _Unpacker:
    """Reads one file after another, in any process; searches a model only for prior-coded files."""

    find: ModelFinder

    def __call__(self, path: Path) -> _Unpacked:
        codes = self._codes(read_codes_file(path), path)
        header = codes.header.of_indices
        indices = codes.indices if header.volume else codes.indices[None]
        if header.volume is None and not header.labels:
            return _Unpacked(indices, header, b"")
        payload = pack(indices[header.coded_slices], header.codebook_size)
        return _Unpacked(indices, header, header_bytes(header, payload))

    def _codes(self, file: CodesFile, path: Path) -> Codes:
        if file.header.coder is Coder.PACKED:
            return file.codes()
        model = self.find(file.header, path)
        codes = codes_of(model, file)
        return codes._replace(header=replace(codes.header, coder=Coder.PACKED))


class Gathering:
    """The files of a folder, or of one shard, by their headers, and their layout in the array."""

    def __init__(
        self,
        folder: Path,
        model: Path | None = None,
        passed_over: PassedOver | None = None,
        shard: Shard = WHOLE,
        jobs: int = 1,
        globs: Globs = EVERYTHING,
    ) -> None:
        """Read the headers.

        Args:
            folder: where the `.codes` files are.
            model: the model that made them, for files coded with its prior; if None, a `ModelFinder`
                finds it.
            passed_over: counts the other files in the folder.
            shard: which of the files; the grid is that of all files.
            jobs: number of processes that read indices.
            globs: which files of the folder.

        Raises:
            FileError: there are none.
            CodesFileError: a file is damaged or has no indices, or there are files of several models.
        """
        self._paths, self._jobs = [], jobs
        self._unpack = _Unpacker(ModelFinder(model))
        passed_over = passed_over or PassedOver()
        for listing in walk(folder, globs):
            self._paths += passed_over.sift(listing, lambda path: path.suffix == SUFFIX)
        if not self._paths:
            told = f"; {passed_over}" if str(passed_over) else ""
            raise FileError(f"{folder}: no {SUFFIX} files in it{told}; make them with `oasisvq encode`")
        names = [path.relative_to(folder).with_suffix("").as_posix() for path in self._paths]
        refuse_unsafe(names, str(folder))
        rows = [self._row(path) for path in self._paths]
        windows = np.array([row[:4] for row in rows], np.int32)
        corners, sizes = windows[:, :2], windows[:, 2:]
        has_cells = sizes[:, 0] > 0
        used = has_cells if has_cells.any() else np.ones(len(windows), np.bool_)
        origin = corners[used].min(axis=0)
        origins = np.broadcast_to(origin, corners.shape)
        extent = (corners + sizes)[used].max(axis=0) - origin
        if extent.prod() > MAX_SPREAD * sizes.prod(axis=1).max():  # each window gets its own origin
            origins, extent = corners, sizes.max(axis=0)
        windows[~has_cells, :2] = origins[
            ~has_cells
        ]  # a constant image has no cells, but it needs a position
        ours = [place for place in range(len(rows)) if shard.takes(place)]
        if not ours:
            raise FileError(f"{folder}: {len(rows)} files, too few for so many shards; use fewer")
        kept = [rows[place] for place in ours]
        self.reduced = sum(row[13] for row in kept)  # files of which only the indices are exported
        self._paths = [self._paths[place] for place in ours]
        self.names = [names[place] for place in ours]
        self.subjects = [
            subject_of(PurePosixPath(name).with_name(row[12]).as_posix()) or ""
            for name, row in zip(self.names, kept, strict=True)
        ]
        slices = [row[10] for row in kept]
        self.shape = (sum(slices), max(row[9] for row in rows), int(extent[0]), int(extent[1]))
        if 2 * int(np.prod(self.shape, dtype=np.float64)) > MAX_TOKEN_BYTES:
            raise CodesFileError(
                f"{folder}: {self.shape} indices, more than the limit of {MAX_TOKEN_BYTES:,} bytes; "
                "export shards, or images of one kind at a time"
            )
        positions = [
            [slice_of(PurePosixPath(name).name)[1]] if row[11] is None else row[11]
            for name, row in zip(self.names, kept, strict=True)
        ]
        self.arrays: Arrays = {
            "files": np.repeat(np.arange(len(kept), dtype=np.int32), slices),
            "positions": np.concatenate(positions).clip(0, 2**31 - 1).astype(np.int32),
            "windows": windows[ours],
            "origins": np.ascontiguousarray(origins[ours], np.int32),
            "shapes": np.array([row[4:6] for row in kept], np.int32),
            "intensities": np.array([row[6:8] for row in kept], np.float64),
            "sample_types": np.array([row[8] for row in kept], np.uint8),
            "levels": np.array([row[9] for row in kept], np.uint8),
            "codebook": np.array([self._first.codebook_size, self._first.stride], np.int32),
            "fingerprint": np.frombuffer(self._first.fingerprint, np.uint8),
        }

    def _row(self, path: Path) -> tuple[Any, ...]:
        """What the array needs of a file; without the header, as there may be 100,000 files."""
        header = read_codes_file(path).header
        if header.coder is Coder.LABELS:
            raise CodesFileError(
                f"{path}: holds labels kept exactly, which have no indices; leave such files out with "
                "--exclude, or read them with oasisvq.read_codes"
            )
        if path == self._paths[0]:
            self._first = header
        if header.fingerprint != self._first.fingerprint:
            raise CodesFileError(
                f"{path}: made with model {header.fingerprint.hex()[:8]}, but {self._paths[0]} with "
                f"{self._first.fingerprint.hex()[:8]}; export the files of one model at a time"
            )
        numbers = header.stack.numbers if header.stack else range(header.slices)
        sizes = (*header.window, *header.shape, *header.intensity)
        kinds = int(header.sample_type), header.levels, header.slices
        shown = header.stack.names[0] if header.stack else path.name  # tells the subject
        return (*sizes, *kinds, numbers if header.volume else None, shown, header.has_more)

    def blocks(self) -> Iterator[NDArray[np.uint16]]:
        """The rows (slices, L, h, w) of the array, file by file; afterwards `headers` are known.

        Raises:
            CodesFileError: a file is damaged, or has changed since its header was read.
            ModelError: no whole model.
        """
        headers, ends = [], []
        end = 0
        for file, (path, unpacked) in enumerate(calls(self._unpack, self._paths, self._jobs)):
            window, levels = self.arrays["windows"][file], int(self.arrays["levels"][file])
            first, last = np.searchsorted(self.arrays["files"], (file, file + 1))
            expected = (last - first, levels, window[2], window[3])
            if unpacked.indices.shape != expected:
                raise CodesFileError(f"{path}: changed while it was exported; run again")
            block = np.full((last - first, *self.shape[1:]), NO_INDEX, np.uint16)
            top, left = window[:2] - self.arrays["origins"][file]
            rows, columns = slice(top, top + window[2]), slice(left, left + window[3])
            block[:, :levels, rows, columns] = unpacked.indices
            headers.append(unpacked.header_bytes)
            end += len(unpacked.header_bytes)
            ends.append(end)
            yield block
        self.arrays["headers"] = np.frombuffer(b"".join(headers), np.uint8)
        self.arrays["header_ends"] = np.array(ends, np.int64)

    def tokens(self) -> Tokens:
        """The whole array file, in memory."""
        indices = np.concatenate(list(self.blocks()))
        return Tokens({"indices": indices, **self.arrays}, self.names, self.subjects)

    def write(self, path: Path) -> None:
        """Write the array file, whole or not at all.

        Raises:
            FileError: the name has another ending, or it cannot be written.
            CodesFileError, ModelError: see `blocks`.
        """
        if path.suffix == STORE_SUFFIX:
            with store_writer(path) as folder:
                with (folder / "indices.npy").open("wb") as stream:
                    self._write_indices(stream)
                for name, array in self.arrays.items():
                    np.save(folder / f"{name}.npy", array, allow_pickle=False)
                write_strings(folder, self.names, self.subjects)
        elif path.suffix == ".npz":
            with atomic_writer(path) as whole, zipfile.ZipFile(whole, "w") as archive:
                with archive.open("indices.npy", "w", force_zip64=True) as member:
                    self._write_indices(cast(BinaryIO, member))
                strings = {"names": np.array(self.names), "subjects": np.array(self.subjects)}
                for name, array in {**self.arrays, **strings}.items():
                    with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                        np.lib.format.write_array(member, array, allow_pickle=False)
        else:  # .safetensors: a checksum stands before the arrays
            write_tokens(self.tokens(), path)

    def _write_indices(self, stream: BinaryIO) -> None:
        described = {"descr": "<u2", "fortran_order": False, "shape": self.shape}
        np.lib.format.write_array_header_1_0(stream, described)
        for block in self.blocks():
            stream.write(block.astype("<u2", copy=False).tobytes())


def gather(folder: Path, model: Path | None = None, passed_over: PassedOver | None = None) -> Tokens:
    """The indices of all `.codes` files below a folder, in memory; see `Gathering`."""
    return Gathering(folder, model, passed_over).tokens()
