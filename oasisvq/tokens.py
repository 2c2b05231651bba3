"""The indices of many `.codes` files <-> one array file, for training on the tokens.

Shapes: F files, N slices, L levels, h×w grid. An image is a file with one slice, a volume one with many.

An array file is a `.npz` (NumPy, nothing pickled), a `.safetensors`, or a `.tokens` *store*. A store is
a folder with one `.npy` for each array, and the strings in `tokens.json`; its indices are memory-mapped
instead of read. An array file holds

| name | shape, type | meaning |
|---|---|---|
| indices | (N, L, h, w) uint16 | 0..K-1, or `NO_INDEX` where a slice has no such cell or level |
| files | (N,) int32 | number of each slice's file in `names`; slices of a file are consecutive |
| positions | (N,) int32 | number of a slice in its volume; for images, the number in the name, else 0 |
| windows | (F, 4) int32 | top, left, height, width of the window in the grid of a file's slices |
| origins | (F, 2) int32 | the cell of that grid that is cell (0, 0) of the array |
| shapes | (F, 2) int32 | height and width of the slices in pixels |
| intensities | (F, 2) float64 | values that pixels 0 and 1 stand for |
| sample_types | (F,) uint8 | 0 uint8, 1 uint16, and so on as in `SampleType` |
| levels | (F,) uint8 | levels of each file |
| headers | (bytes,) uint8 | for volumes and labels: the packed `.codes` file up to its payload |
| header_ends | (F,) int64 | end of each file's header, which starts at the end of the one before |
| codebook | (2,) int32 | K, and pixels per side of a cell |
| fingerprint | (8,) uint8 | fingerprint of the model that made all files |
| names, subjects | F strings | path below the folder without its ending; subject or "" |

If the windows lie near each other, all have the same origin, so that one cell means the same place in
every slice. Otherwise the origin of each window is its own corner, and `NO_INDEX` pads it to the right
and below.
"""

import hashlib
import io
import json
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from oasisvq.codec import container
from oasisvq.codec.codes import NO_INDEX, Codes
from oasisvq.codec.entropy import pack
from oasisvq.codec.headers import MAX_CODEBOOK_SIZE, MAX_STRIDE, Coder, CodesHeader, Kind, SampleType
from oasisvq.codec.modelfile import MAX_MODEL_HEADER_BYTES, parse_safetensors_metadata
from oasisvq.codec.pixels import Window
from oasisvq.errors import CodesFileError, FileError
from oasisvq.files import (
    STORE_SUFFIX,
    atomic_writer,
    move_into_place,
    read_bytes,
    require_output,
    temporary_folder,
    write_arrays,
    write_atomically,
)
from oasisvq.text import is_safe_name

TOKEN_SUFFIXES = (".npz", ".safetensors", STORE_SUFFIX)
STRINGS_FILE = "tokens.json"  # of a store; written last
MAX_TOKEN_BYTES = 2**36
_CRC_BYTES = 4
_ARRAYS: dict[str, tuple[type, int]] = {
    "indices": (np.uint16, 4),
    "files": (np.int32, 1),
    "positions": (np.int32, 1),
    "windows": (np.int32, 2),
    "origins": (np.int32, 2),
    "shapes": (np.int32, 2),
    "intensities": (np.float64, 2),
    "sample_types": (np.uint8, 1),
    "levels": (np.uint8, 1),
    "header_ends": (np.int64, 1),
    "headers": (np.uint8, 1),  # as long as the checked `header_ends` says
    "codebook": (np.int32, 1),
    "fingerprint": (np.uint8, 1),
}
_WIDTHS = {"windows": 4, "origins": 2, "shapes": 2, "intensities": 2}
_LENGTHS = {"codebook": 2, "fingerprint": 8}
_OF_SLICES = ("indices", "files", "positions")


@dataclass(frozen=True)
class Tokens:
    """The arrays in the table above, two lists of strings, and the store that they are mapped from."""

    arrays: dict[str, NDArray[Any]]
    names: list[str]
    subjects: list[str]
    store: Path | None = None

    def __len__(self) -> int:
        return len(self.names)

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process maps a store itself, so its arrays are not sent."""
        if self.store is not None:
            return read_tokens, (self.store,)
        return Tokens, (self.arrays, self.names, self.subjects)

    @property
    def slices(self) -> int:
        """The number of slices in all files."""
        return len(self.arrays["indices"])

    def codes(self, position: int) -> Codes:
        """The content of one `.codes` file.

        Args:
            position: the position of its name.

        Raises:
            CodesFileError: the arrays do not describe a valid file.
        """
        arrays, name = self.arrays, self.names[position]
        window = Window(*(int(side) for side in arrays["windows"][position]))
        levels = int(arrays["levels"][position])
        top, left = (
            corner - int(own)
            for corner, own in zip(window[:2], arrays["origins"][position], strict=True)
        )
        first, end = np.searchsorted(arrays["files"], (position, position + 1))
        rows, columns = slice(top, top + window.height), slice(left, left + window.width)
        indices = arrays["indices"][first:end, :levels, rows, columns]
        codebook_size = int(arrays["codebook"][0])
        if min(top, left, *window) < 0 or indices.shape[1:] != (levels, window.height, window.width):
            raise CodesFileError(f"{name}: damaged: its window or an index is out of range")
        # a slice with nothing but ground has no indices
        grids = indices[(indices != NO_INDEX).any(axis=(1, 2, 3))] if indices.size else indices
        if grids.size and int(grids.max()) >= codebook_size:
            raise CodesFileError(f"{name}: damaged: its window or an index is out of range")
        payload = pack(grids, codebook_size)
        start = int(arrays["header_ends"][position - 1]) if position else 0
        header = arrays["headers"][start : int(arrays["header_ends"][position])].tobytes()
        if header:
            file = container.read(join(header, payload), name)
            if file.header.fingerprint != arrays["fingerprint"].tobytes():
                raise CodesFileError(f"{name}: damaged: its header names another model")
            return file.codes()
        content = container.write(self._header_of_image(position, window, levels), payload)
        return container.read(content, name).codes()

    def _header_of_image(self, position: int, window: Window, levels: int) -> CodesHeader:
        arrays = self.arrays
        codebook_size, stride = (int(number) for number in arrays["codebook"])
        low, high = (float(level) for level in arrays["intensities"][position])
        if arrays["sample_types"][position] > SampleType.UINT16 or not 0 <= low <= high <= 65_535:
            raise CodesFileError(f"{self.names[position]}: damaged: its grey levels are out of range")
        return CodesHeader(
            coder=Coder.PACKED,
            kind=Kind.IMAGE,
            sample_type=SampleType(int(arrays["sample_types"][position])),
            shape=(int(arrays["shapes"][position][0]), int(arrays["shapes"][position][1])),
            stride=stride,
            window=window,
            levels=levels,
            codebook_size=codebook_size,
            intensity=(int(low), int(high)),
            fingerprint=arrays["fingerprint"].tobytes(),
        )


def header_bytes(header: CodesHeader, payload: bytes) -> bytes:
    """The beginning of a packed `.codes` file, up to its payload; see `join`."""
    content = container.write(header, payload)
    return content[: len(content) - len(payload) - _CRC_BYTES]


def join(header: bytes, payload: bytes) -> bytes:
    """The bytes of the packed `.codes` file with this beginning."""
    content = header + payload
    return content + struct.pack("<I", zlib.crc32(content))


def write_tokens(tokens: Tokens, path: Path) -> None:
    """Write an array file, whole or not at all; the inverse of `read_tokens`.

    Raises:
        FileError: the name has another ending, or the file cannot be written.
    """
    if path.suffix == STORE_SUFFIX:
        with store_writer(path) as folder:
            for name, array in tokens.arrays.items():
                np.save(folder / f"{name}.npy", array, allow_pickle=False)
            write_strings(folder, tokens.names, tokens.subjects)
    elif path.suffix == ".npz":
        strings = {"names": np.array(tokens.names), "subjects": np.array(tokens.subjects)}
        with atomic_writer(path) as stream:
            write_arrays(stream, {**tokens.arrays, **strings})
    elif path.suffix == ".safetensors":
        from safetensors.numpy import save

        written = {"names": json.dumps(tokens.names), "subjects": json.dumps(tokens.subjects)}
        metadata = {**written, "sha256": _checksum(tokens.arrays, written)}
        arrays = {name: np.ascontiguousarray(array) for name, array in tokens.arrays.items()}
        write_atomically(path, save(arrays, metadata))
    else:
        raise FileError(
            f"{path}: tokens are written as {' or '.join(TOKEN_SUFFIXES)}; rename the output"
        )


@contextmanager
def store_writer(path: Path) -> Iterator[Path]:
    """A folder that becomes the store `path` if the block succeeds, and is deleted otherwise.

    Raises:
        FileError: it cannot be written.
    """
    with temporary_folder(path.parent) as folder, temporary_folder(path.parent) as old:
        yield folder
        if (path / STRINGS_FILE).is_file():  # an older store; nothing else is ever replaced
            path.replace(old / path.name)
        move_into_place(folder, path)


def write_strings(folder: Path, names: list[str], subjects: list[str]) -> None:
    """Write the strings of a store, after its arrays; a store without strings counts as incomplete."""
    strings = {"names": names, "subjects": subjects}
    (folder / STRINGS_FILE).write_text(json.dumps(strings), encoding="utf-8")


def require_tokens(path: Path, force: bool) -> None:
    """Raise unless an array file can be written there.

    Raises:
        FileError: another ending, or something is in the way, see `require_output`.
    """
    if path.suffix not in TOKEN_SUFFIXES:
        raise FileError(
            f"{path}: tokens are written as {' or '.join(TOKEN_SUFFIXES)}; rename the output"
        )
    if path.suffix != STORE_SUFFIX or not path.is_dir():
        require_output(path, force)
    elif not (path / STRINGS_FILE).is_file():
        raise FileError(f"{path}: is a folder, but not a store of tokens; name another output")
    elif not force:
        raise FileError(f"{path}: exists; pass -f to overwrite it or name another output")


def is_export(path: Path) -> bool:
    """Whether a `.safetensors` file is an array file rather than a model, by its metadata.

    Raises:
        FileError: missing or unreadable.
        ModelError: not a safetensors file.
    """
    content = read_bytes(path, MAX_TOKEN_BYTES)
    return "names" in parse_safetensors_metadata(content, path, MAX_MODEL_HEADER_BYTES)


def read_tokens(path: Path) -> Tokens:
    """Read an array file that `oasisvq export` or `write_tokens` wrote; indices of a store are mapped.

    Raises:
        FileError: missing or unreadable.
        CodesFileError: not such a file, or damaged.
    """
    is_store = path.suffix == STORE_SUFFIX and path.is_dir()
    if is_store and not (path / STRINGS_FILE).is_file():
        raise CodesFileError(f"{path}: half written: it has no {STRINGS_FILE}; export it again")
    content = b"" if is_store else read_bytes(path, MAX_TOKEN_BYTES)
    try:
        fields, names, subjects = _parse_store(path) if is_store else _parse(path, content)
        arrays = {name: fields[name] for name in _ARRAYS}
    except KeyError as error:
        raise CodesFileError(f"{path}: not a file of `oasisvq export`: it has no {error}") from error
    except Exception as error:  # zip, NumPy, safetensors and JSON readers raise whatever they like
        raise CodesFileError(f"{path}: not a whole file of `oasisvq export` ({error})") from error
    count, slices = len(names), len(arrays["files"]) if arrays["files"].ndim else 0
    for name, (dtype, dimensions) in _ARRAYS.items():
        array = arrays[name]
        length = _LENGTHS.get(name, slices if name in _OF_SLICES else count)
        if name == "headers":
            length = int(arrays["header_ends"][-1]) if arrays["header_ends"].size else 0
        fits = array.dtype == dtype and array.ndim == dimensions and len(array) == length
        if not fits or (name in _WIDTHS and array.shape[1] != _WIDTHS[name]):
            raise CodesFileError(
                f"{path}: damaged: array {name} is {array.dtype} of shape {array.shape}"
            )
    if len(subjects) != count or not all(type(n) is str for n in names + subjects):
        raise CodesFileError(f"{path}: damaged: {count} names and {len(subjects)} subjects")
    codebook_size, stride = (int(number) for number in arrays["codebook"])
    if (
        not 2 <= codebook_size <= MAX_CODEBOOK_SIZE
        or not 1 <= stride <= MAX_STRIDE
        or (arrays["sample_types"] > max(SampleType)).any()
        or any((arrays[name] < 0).any() for name in ("windows", "shapes", "positions"))
        or not np.array_equal(np.unique(arrays["files"]), np.arange(count))
        or any((np.diff(arrays[name]) < 0).any() for name in ("files", "header_ends"))
    ):
        raise CodesFileError(f"{path}: damaged: a number is out of range")
    refuse_unsafe(names, str(path))
    return Tokens(arrays, names, subjects, path.absolute() if is_store else None)


def _parse_store(path: Path) -> tuple[dict[str, NDArray[Any]], list[str], list[str]]:
    strings = json.loads(read_bytes(path / STRINGS_FILE, MAX_TOKEN_BYTES))
    fields = {}
    for name in _ARRAYS:
        mapped: Literal["r"] | None = "r" if name == "indices" else None
        fields[name] = np.load(path / f"{name}.npy", mmap_mode=mapped, allow_pickle=False)
    return fields, list(strings["names"]), list(strings["subjects"])


def _parse(path: Path, content: bytes) -> tuple[dict[str, NDArray[Any]], list[str], list[str]]:
    if path.suffix == ".npz":
        with zipfile.ZipFile(io.BytesIO(content)) as members:
            if any(member.compress_type != zipfile.ZIP_STORED for member in members.infolist()):
                raise ValueError("compressed members, which could unpack without a limit")
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            fields = {name: archive[name] for name in archive.files}
        return fields, fields["names"].tolist(), fields["subjects"].tolist()
    from safetensors.numpy import load

    metadata = parse_safetensors_metadata(content, path)
    fields = load(content)
    if _checksum(fields, metadata) != metadata["sha256"]:
        raise ValueError("its checksum does not fit its content")
    return fields, json.loads(metadata["names"]), json.loads(metadata["subjects"])


def _checksum(arrays: dict[str, NDArray[Any]], strings: dict[str, str]) -> str:
    """SHA-256 over names and subjects as written and over every array by name."""
    digest = hashlib.sha256(f"{strings['names']}\0{strings['subjects']}".encode())
    for name in sorted(arrays):
        digest.update(f"\0{name}{arrays[name].shape}\0".encode())
        digest.update(np.ascontiguousarray(arrays[name]).tobytes())
    return digest.hexdigest()


def refuse_unsafe(names: list[str], where: str) -> None:
    """Raise unless all names are distinct, and stay inside an output folder on every system.

    Names become paths below an output folder.

    Raises:
        CodesFileError: a name could lead out of the folder, or two files have the same name.
    """
    if len(set(names)) < len(names):
        twice = next(name for name, count in Counter(names).items() if count > 1)
        raise CodesFileError(f"{where}: damaged: two files named {twice}")
    for name in names:
        if not _is_safe(name):
            raise CodesFileError(
                f"{where}: the name '{name}' cannot be a path below the output folder; rename the file"
            )


def _is_safe(name: str) -> bool:
    """Whether a name is a path that leads downwards on every system: folders, then a file's stem."""
    *folders, last = name.split("/")
    return (
        bool(last.strip("."))
        and all(map(is_safe_name, (*folders, f"{last}.png")))
        and not any(folder.endswith((".", " ")) for folder in folders)  # Windows drops these
    )
