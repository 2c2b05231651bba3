"""Payload <-> `.codes` bytes. This docstring is the specification of the format, version 1.

All numbers are unsigned; *varint* is unsigned LEB128 in its shortest form (seven bits a byte,
least significant group first, the top bit set on all bytes but the last), at most 5 bytes.

| field | size | meaning |
|---|---|---|
| magic | 4 | the bytes `OVQC` |
| version | 1 | 1 |
| coder | 1 | how the payload is coded: 0 packed, 1 by the prior (see `entropy.py`) |
| kind | 1 | what is coded: 0 one image |
| sample type | 1 | of the original: 0 uint8, 1 uint16 |
| blocks | 1 | optional blocks, one bit each; none is defined yet, so 0 |
| height, width | varint × 2 | of the original in pixels, 1 to 65,535, product at most 2^26 |
| stride | varint | pixels to a side of one cell, 1 to 64 |
| top, left, h, w | varint × 4 | the coded window in cells; h and w may be 0 together |
| levels | varint | of the index grid, 1 to 64 |
| K | varint | codebook size, 2 to 65,535 |
| low, high | varint × 2 | grey levels that pixels 0 and 1 stand for, low <= high |
| payload bytes | varint | length of the payload |
| fingerprint | 8 | of the codec (coder 0), of codec and prior (coder 1): see `modelfile.py` |
| payload | | the indices |
| CRC-32 | 4 | little-endian, of all bytes before it (the CRC of zip and PNG) |

The window MUST lie in the grid of ceil(height / stride) × ceil(width / stride) cells. Pixels
outside the window are `low`. Nothing MUST follow the CRC. A reader MUST refuse, with nothing
decoded: another magic, a version it does not know, an unknown coder, kind, sample type or block,
a number out of its range or not in its shortest form, another length, a wrong CRC, and, before
pixels are made, a model with another fingerprint.

For an image of 256×256 the overhead is 38 bytes. Never imports torch.
"""

import struct
import zlib
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from oasisvq.codec.entropy import decode_with_prior, most_indices, packed_bytes, unpack
from oasisvq.codec.pixels import Window, cells
from oasisvq.codec.prior import Prior
from oasisvq.errors import CodesFileError
from oasisvq.files import read_bytes

MAGIC = b"OVQC"
VERSION = 1
SUFFIX = ".codes"
FINGERPRINT_BYTES = 8
MAX_SIDE = 65_535
MAX_PIXELS = 2**26
MAX_STRIDE = 64
MAX_LEVELS = 64
MAX_CODEBOOK_SIZE = 65_535
MAX_INDICES = 2**28
MAX_FILE_BYTES = 2**30
_CRC_BYTES = 4
_VARINT_BYTES = 5


class Coder(IntEnum):
    """How indices become a payload."""

    PACKED = 0
    PRIOR = 1


class Kind(IntEnum):
    """What a file holds."""

    IMAGE = 0


class SampleType(IntEnum):
    """Type of the original's grey levels."""

    UINT8 = 0
    UINT16 = 1

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """The NumPy type."""
        return np.dtype(np.uint8 if self is SampleType.UINT8 else np.uint16)


@dataclass(frozen=True)
class CodesHeader:
    """What a `.codes` file says of itself, see the table above."""

    coder: Coder
    kind: Kind
    sample_type: SampleType
    shape: tuple[int, int]
    stride: int
    window: Window
    levels: int
    codebook_size: int
    intensity: tuple[int, int]
    fingerprint: bytes

    @property
    def index_count(self) -> int:
        """Indices in the payload."""
        return self.levels * self.window.height * self.window.width


class Codes(NamedTuple):
    """A `.codes` file: its header and its indices.

    Attributes:
        header: what the file says of itself.
        indices: (levels, h, w) uint16, each in 0..K-1.
        file_bytes: size of the whole file.
    """

    header: CodesHeader
    indices: NDArray[np.uint16]
    file_bytes: int


class CodesFile(NamedTuple):
    """A `.codes` file before its payload is decoded.

    Attributes:
        header: what the file says of itself.
        payload: the coded indices.
        file_bytes: size of the whole file.
        name: what messages call it.
    """

    header: CodesHeader
    payload: bytes
    file_bytes: int
    name: str

    def codes(self, prior: Prior | None = None) -> Codes:
        """Decode the payload.

        Args:
            prior: of the model whose fingerprint the file names, which the caller has compared.

        Raises:
            CodesFileError: the payload is damaged, or it needs a prior and none is given.
        """
        header = self.header
        shape = header.levels, header.window.height, header.window.width
        if header.coder is Coder.PRIOR and prior is None:
            raise CodesFileError(
                f"{self.name}: coded with the prior of model {header.fingerprint.hex()[:8]}; name that "
                "model with --model"
            )
        try:
            if prior is None or header.coder is Coder.PACKED:
                flat = unpack(self.payload, header.codebook_size, header.index_count)
                return Codes(header, flat.reshape(shape), self.file_bytes)
            known = prior.config
            if known.codebook_size != header.codebook_size or known.levels < header.levels:
                raise CodesFileError("its grid does not fit the prior of the model that it names")
            return Codes(header, decode_with_prior(self.payload, prior, shape), self.file_bytes)
        except CodesFileError as error:
            raise CodesFileError(f"{self.name}: damaged: {error}") from error


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number >= 0x80:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


class _Reader:
    """Takes fields off the front of a file."""

    def __init__(self, content: bytes, name: str) -> None:
        self.content, self.name, self.position = content, name, 0

    def fail(self, message: str) -> CodesFileError:
        return CodesFileError(f"{self.name}: {message}")

    def take(self, count: int) -> bytes:
        taken = self.content[self.position : self.position + count]
        if len(taken) < count:
            raise self.fail(
                f"truncated: ends after {len(self.content)} bytes, within the header; "
                "get a whole copy of the file"
            )
        self.position += count
        return taken

    def varint(self, field: str, low: int, high: int) -> int:
        number = 0
        for place in range(_VARINT_BYTES):
            byte = self.take(1)[0]
            number |= (byte & 0x7F) << (7 * place)
            if byte < 0x80:
                if byte == 0 and place:
                    break
                if not low <= number <= high:
                    raise self.fail(
                        f"damaged: {field} is {number}, expected {low} to {high}; "
                        "get a whole copy of the file"
                    )
                return number
        raise self.fail(f"damaged: {field} is no number in its shortest form; get a whole copy")


def write(header: CodesHeader, payload: bytes) -> bytes:
    """Header and payload to the bytes of a file."""
    assert len(header.fingerprint) == FINGERPRINT_BYTES
    numbers = (
        *header.shape,
        header.stride,
        *header.window,
        header.levels,
        header.codebook_size,
        *header.intensity,
        len(payload),
    )
    content = b"".join(
        (
            MAGIC,
            bytes((VERSION, header.coder, header.kind, header.sample_type, 0)),
            *(_varint(number) for number in numbers),
            header.fingerprint,
            payload,
        )
    )
    return content + struct.pack("<I", zlib.crc32(content))


def read(content: bytes, name: str) -> CodesFile:
    """The inverse of `write`; `name` is what messages call the file.

    Raises:
        CodesFileError: any deviation from the specification outside the payload.
    """
    reader = _Reader(content, name)
    if content[: len(MAGIC)] != MAGIC:
        found = "an empty file" if not content else "not a .codes file"
        raise reader.fail(f"{found}; expected a file that `oasisvq encode` wrote")
    reader.take(len(MAGIC))
    version = reader.take(1)[0]
    if version != VERSION:
        raise reader.fail(
            f"format version {version}, but this version of oasisvq reads version {VERSION}; "
            "update oasisvq, or get a whole copy if the file is damaged"
        )
    coder, kind, sample_type, blocks = reader.take(4)
    shape = reader.varint("height", 1, MAX_SIDE), reader.varint("width", 1, MAX_SIDE)
    if shape[0] * shape[1] > MAX_PIXELS:
        raise reader.fail(f"{shape[0]}×{shape[1]} pixels, more than the limit of {MAX_PIXELS:,}")
    stride = reader.varint("stride", 1, MAX_STRIDE)
    window = Window(*(reader.varint(f"window {field}", 0, MAX_SIDE) for field in Window._fields))
    levels = reader.varint("levels", 1, MAX_LEVELS)
    codebook_size = reader.varint("codebook size", 2, MAX_CODEBOOK_SIZE)
    low, high = reader.varint("low", 0, 65_535), reader.varint("high", 0, 65_535)
    payload_bytes = reader.varint("payload bytes", 0, MAX_FILE_BYTES)
    fingerprint = reader.take(FINGERPRINT_BYTES)
    expected = reader.position + payload_bytes + _CRC_BYTES
    if len(content) < expected:
        raise reader.fail(
            f"truncated or damaged: {len(content)} bytes, expected {expected}; get a whole copy"
        )
    if len(content) > expected:
        raise reader.fail(
            f"{len(content) - expected} bytes follow the end of the file (or it is damaged); "
            "get a whole copy"
        )
    (crc,) = struct.unpack("<I", content[-_CRC_BYTES:])
    if crc != zlib.crc32(content[:-_CRC_BYTES]):
        raise reader.fail("damaged: its CRC-32 does not fit its content; get a whole copy of the file")
    if coder not in set(Coder) or kind not in set(Kind) or sample_type not in set(SampleType) or blocks:
        raise reader.fail(
            f"coder {coder}, kind {kind}, sample type {sample_type}, blocks {blocks}: not all known "
            "to this version of oasisvq; update oasisvq"
        )
    header = CodesHeader(
        Coder(coder),
        Kind(kind),
        SampleType(sample_type),
        shape,
        stride,
        window,
        levels,
        codebook_size,
        (low, high),
        fingerprint,
    )
    _refuse_out_of_bounds(header, payload_bytes, reader)
    payload = content[reader.position : reader.position + payload_bytes]
    return CodesFile(header, payload, len(content), name)


def _refuse_out_of_bounds(header: CodesHeader, payload_bytes: int, reader: _Reader) -> None:
    """Bounds that need several fields, before anything is allocated."""
    window, grid = header.window, tuple(cells(side, header.stride) for side in header.shape)
    if window.top + window.height > grid[0] or window.left + window.width > grid[1]:
        raise reader.fail(
            f"damaged: a window {tuple(window)} beyond the grid of {grid[0]}×{grid[1]} cells"
        )
    if (window.height == 0) != (window.width == 0):
        raise reader.fail(f"damaged: a window of {window.height}×{window.width} cells")
    largest = 2 ** (8 * header.sample_type.dtype.itemsize) - 1
    if not header.intensity[0] <= header.intensity[1] <= largest:
        raise reader.fail(f"damaged: grey levels {header.intensity}, expected 0 to {largest} in order")
    if header.index_count > MAX_INDICES:
        raise reader.fail(f"{header.index_count:,} indices, more than the limit of {MAX_INDICES:,}")
    if header.coder is Coder.PACKED:
        expected = packed_bytes(header.index_count, header.codebook_size)
        if payload_bytes != expected:
            raise reader.fail(f"damaged: a payload of {payload_bytes} bytes, expected {expected}")
    elif header.index_count > most_indices(payload_bytes, header.codebook_size):
        raise reader.fail(
            f"damaged: {header.index_count:,} indices in a payload of {payload_bytes} bytes"
        )


def read_codes_file(path: Path) -> CodesFile:
    """Read a `.codes` file up to its payload, without torch and without the model.

    Raises:
        FileError: missing or unreadable.
        CodesFileError: not a whole `.codes` file of a known version.
    """
    return read(read_bytes(Path(path), MAX_FILE_BYTES), str(path))
