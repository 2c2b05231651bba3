"""The indices of many `.codes` files as one array file, for people who train on the tokens; and back.

Shapes: N slices, L levels, h×w grid.

An array file is a `.npz` (NumPy, nothing pickled) or a `.safetensors`. It holds

| name | shape, type | meaning |
|---|---|---|
| indices | (N, L, h, w) uint16 | 0..K-1, or `NO_INDEX` where a slice has no such cell or level |
| windows | (N, 4) int32 | top, left, height, width of each slice's window in its image's grid |
| shapes | (N, 2) int32 | height and width of each image in pixels |
| intensities | (N, 2) int32 | grey levels that pixels 0 and 1 stand for |
| sample_types | (N,) uint8 | 0 uint8, 1 uint16 |
| levels | (N,) uint8 | levels of each slice |
| origin | (2,) int32 | cell of the images' grid that the array's cell (0, 0) is |
| codebook | (2,) int32 | K, pixels to a side of a cell |
| fingerprint | (8,) uint8 | of the model that made all of them |
| names, subjects | N strings | path below the folder without its ending; subject or "" |

All arrays lie on one grid, so that one cell means one place in every slice.
"""

import hashlib
import io
import json
import os
import zipfile
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oasisvq.codec import container
from oasisvq.codec.codes import NO_INDEX, Codes, CodesFile
from oasisvq.codec.container import SUFFIX, read_codes_file
from oasisvq.codec.entropy import pack
from oasisvq.codec.headers import MAX_CODEBOOK_SIZE, MAX_STRIDE, Coder, CodesHeader, Kind, SampleType
from oasisvq.codec.modelfile import parse_safetensors_metadata
from oasisvq.codec.pixels import Window
from oasisvq.data.persons import subject_of
from oasisvq.errors import CodesFileError, FileError
from oasisvq.files import atomic_writer, read_bytes, write_arrays, write_atomically
from oasisvq.folders import PassedOver, walk
from oasisvq.models import ModelFinder

TOKEN_SUFFIXES = (".npz", ".safetensors")
MAX_TOKEN_BYTES = 2**36
MAX_NAME_BYTES = 255  # of a file or folder, on most systems
_DEVICES = {"CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$"} | {  # on Windows, whatever their ending
    f"{name}{number}" for name in ("COM", "LPT") for number in "0123456789¹²³"
}
MAX_SPREAD = 4  # the common grid may have so many times the cells of the largest window
_ARRAYS = {
    "indices": (np.uint16, 4),
    "windows": (np.int32, 2),
    "shapes": (np.int32, 2),
    "intensities": (np.int32, 2),
    "sample_types": (np.uint8, 1),
    "levels": (np.uint8, 1),
    "origin": (np.int32, 1),
    "codebook": (np.int32, 1),
    "fingerprint": (np.uint8, 1),
}
_WIDTHS = {"windows": 4, "shapes": 2, "intensities": 2}
_LENGTHS = {"origin": 2, "codebook": 2, "fingerprint": 8}


@dataclass(frozen=True)
class Tokens:
    """The arrays of the table above, and two lists of strings."""

    arrays: dict[str, NDArray[Any]]
    names: list[str]
    subjects: list[str]

    def __len__(self) -> int:
        return len(self.names)

    def codes(self, position: int) -> Codes:
        """One slice as its `.codes` file held it.

        Raises:
            CodesFileError: the arrays do not describe a valid file.
        """
        arrays = self.arrays
        window = Window(*(int(side) for side in arrays["windows"][position]))
        levels = int(arrays["levels"][position])
        top, left = window.top - int(arrays["origin"][0]), window.left - int(arrays["origin"][1])
        rows, columns = slice(top, top + window.height), slice(left, left + window.width)
        indices = arrays["indices"][position, :levels, rows, columns]
        codebook_size, stride = (int(number) for number in arrays["codebook"])
        expected = (levels, window.height, window.width)
        fits = min(top, left, *window) >= 0 and indices.shape == expected
        if not fits or (indices.size and int(indices.max()) >= codebook_size):
            raise CodesFileError(
                f"{self.names[position]}: damaged: its window or an index is out of range"
            )
        header = CodesHeader(
            coder=Coder.PACKED,
            kind=Kind.IMAGE,
            sample_type=SampleType(int(arrays["sample_types"][position])),
            shape=(int(arrays["shapes"][position][0]), int(arrays["shapes"][position][1])),
            stride=stride,
            window=window,
            levels=levels,
            codebook_size=codebook_size,
            intensity=(
                int(arrays["intensities"][position][0]),
                int(arrays["intensities"][position][1]),
            ),
            fingerprint=arrays["fingerprint"].tobytes(),
        )
        content = container.write(header, pack(indices, codebook_size))
        return container.read(content, self.names[position]).codes()


def gather(folder: Path, model: Path | None = None, passed_over: PassedOver | None = None) -> Tokens:
    """The indices of all `.codes` files below a folder.

    Args:
        folder: where they are.
        model: that made them, for files coded with its prior; where None, the one that a
            `ModelFinder` finds.
        passed_over: told of the other files there.

    Raises:
        FileError: there are none.
        CodesFileError: one is damaged, or they were made with several models.
        ModelError: no whole model.
    """
    paths = []
    passed_over = passed_over or PassedOver()
    for listing in walk(folder):
        paths += passed_over.sift(listing, lambda path: path.suffix == SUFFIX)
    if not paths:
        raise FileError(f"{folder}: no {SUFFIX} files in it; make them with `oasisvq encode`")
    names = [path.relative_to(folder).with_suffix("").as_posix() for path in paths]
    _refuse_unsafe(names, str(folder))
    find = ModelFinder(model)
    files = [_unpacked(read_codes_file(path), path, find) for path in paths]
    first = files[0].header
    for path, file in zip(paths, files, strict=True):
        if file.header.fingerprint != first.fingerprint:
            raise CodesFileError(
                f"{path}: made with model {file.header.fingerprint.hex()[:8]}, but {paths[0]} with "
                f"{first.fingerprint.hex()[:8]}; export the files of one model at a time"
            )
    windows = np.array([file.header.window for file in files], dtype=np.int32)
    used = windows[(windows[:, 2] > 0)] if (windows[:, 2] > 0).any() else windows
    origin = used[:, :2].min(axis=0)
    extent = (used[:, :2] + used[:, 2:]).max(axis=0) - origin
    levels = max(file.header.levels for file in files)
    largest = max(file.header.window.height * file.header.window.width for file in files)
    if extent.prod() > MAX_SPREAD * largest:
        raise CodesFileError(
            f"{folder}: its windows spread over a grid of {extent[0]}×{extent[1]} cells, more than "
            f"{MAX_SPREAD} times the largest of them; export images of one kind at a time"
        )
    indices = np.full((len(files), levels, *extent), NO_INDEX, dtype=np.uint16)
    for position, file in enumerate(files):
        window = file.header.window
        if window.height:
            top, left = window.top - origin[0], window.left - origin[1]
            rows, columns = slice(top, top + window.height), slice(left, left + window.width)
            indices[position, : file.header.levels, rows, columns] = file.indices
        else:  # a constant image has no cells; its place is set to the origin
            windows[position, :2] = origin
    headers = [file.header for file in files]
    arrays: dict[str, NDArray[Any]] = {
        "indices": indices,
        "windows": windows,
        "shapes": np.array([header.shape for header in headers], dtype=np.int32),
        "intensities": np.array([header.intensity for header in headers], dtype=np.int32),
        "sample_types": np.array([header.sample_type for header in headers], dtype=np.uint8),
        "levels": np.array([header.levels for header in headers], dtype=np.uint8),
        "origin": origin.astype(np.int32),
        "codebook": np.array([first.codebook_size, first.stride], dtype=np.int32),
        "fingerprint": np.frombuffer(first.fingerprint, dtype=np.uint8),
    }
    return Tokens(arrays, names, [subject_of(name) or "" for name in names])


def _unpacked(file: CodesFile, path: Path, find: ModelFinder) -> Codes:
    """Codes as a packed file would hold them; a model is looked for only for a prior."""
    if file.header.coder is Coder.LABELS or file.header.volume:
        held = "labels kept exactly" if file.header.coder is Coder.LABELS else "a volume"
        raise CodesFileError(
            f"{file.name}: holds {held}, and an array file holds the indices of images; read it "
            "with oasisvq.read_codes"
        )
    if file.header.coder is Coder.PACKED:
        return file.codes()
    model = find(file.header, path)
    codes = file.codes(model.prior, model.codebooks)
    header = replace(codes.header, coder=Coder.PACKED, fingerprint=model.fingerprint)
    return codes._replace(header=header)


def write_tokens(tokens: Tokens, path: Path) -> None:
    """Write an array file, whole or not at all; the inverse of `read_tokens`.

    Raises:
        FileError: the name has another ending, or the file cannot be written.
    """
    if path.suffix == ".npz":
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


def read_tokens(path: Path) -> Tokens:
    """Read an array file that `write_tokens` wrote.

    Raises:
        FileError: missing or unreadable.
        CodesFileError: not such a file, or damaged.
    """
    content = read_bytes(path, MAX_TOKEN_BYTES)
    try:
        fields, names, subjects = _parse(path, content)
        arrays = {name: fields[name] for name in _ARRAYS}
    except KeyError as error:
        raise CodesFileError(f"{path}: not a file of `oasisvq export`: it has no {error}") from error
    except Exception as error:  # zip, NumPy, safetensors and JSON readers raise whatever they like
        raise CodesFileError(f"{path}: not a whole file of `oasisvq export` ({error})") from error
    count = len(names)
    for name, (dtype, dimensions) in _ARRAYS.items():
        array = arrays[name]
        length = _LENGTHS.get(name, count)
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
        or (arrays["sample_types"] > SampleType.UINT16).any()
        or any((arrays[name] < 0).any() for name in ("windows", "shapes", "intensities"))
    ):
        raise CodesFileError(f"{path}: damaged: a number is out of range")
    _refuse_unsafe(names, str(path))
    return Tokens(arrays, names, subjects)


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


def _refuse_unsafe(names: list[str], where: str) -> None:
    """Names become paths below an output folder: none may lead out of it, on whatever system.

    Raises:
        CodesFileError: a name could, or is that of two slices.
    """
    if len(set(names)) < len(names):
        twice = next(name for name, count in Counter(names).items() if count > 1)
        raise CodesFileError(f"{where}: damaged: two slices named {twice}")
    for name in names:
        if not _is_safe(name):
            raise CodesFileError(
                f"{where}: a name that cannot be a path below the output folder: '{name}'; rename it"
            )


def _is_safe(name: str) -> bool:
    """Whether a name is a path downwards on every system, of folders and a file without its ending."""
    *folders, last = name.split("/")
    return (
        bool(last.strip("."))
        and all(map(_is_safe_part, (*folders, f"{last}.png")))
        and not any(folder.endswith((".", " ")) for folder in folders)  # which Windows leaves out
    )


def _is_safe_part(part: str) -> bool:
    try:
        size = len(os.fsencode(part))
    except UnicodeEncodeError:
        return False
    device = part.split(".", maxsplit=1)[0].rstrip().upper()
    is_plain = "\0" not in part and "\\" not in part and not PureWindowsPath(part).drive
    return 0 < size <= MAX_NAME_BYTES and is_plain and device not in _DEVICES
