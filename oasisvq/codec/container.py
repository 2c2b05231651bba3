"""Payload <-> `.codes` bytes. This docstring is the specification of the format, version 1.

All numbers are unsigned; *varint* is unsigned LEB128 in its shortest form (seven bits a byte,
least significant group first, the top bit set on all bytes but the last), at most 5 bytes;
*float64* is little-endian IEEE 754.

| field | size | meaning |
|---|---|---|
| magic | 4 | the bytes `OVQC` |
| version | 1 | 1 |
| coder | 1 | 0 packed, 1 by the prior (`entropy.py`, `recall.py`), 2 labels (`labels.py`) |
| kind | 1 | what is coded: 0 an image, 1 a volume |
| sample type | 1 | of the original: 0 uint8, 1 uint16, and in volumes those listed below |
| blocks | 1 | optional blocks, one bit each: 1 labels, 2 labels that are not whole; not both |
| *kind 1:* slices | varint | 1 to 65,535 |
| height, width | varint × 2 | of a slice in pixels, 1 to 65,535; see the limits below |
| *coder 0, 1:* stride | varint | pixels to a side of one cell, 1 to 64 |
| top, left, h, w | varint × 4 | the coded window in cells; h and w may be 0 together |
| levels | varint | of the index grid, 1 to 64 |
| K | varint | codebook size, 2 to 65,535 |
| low, high | varint × 2; kind 1: float64 × 2 | darkest and brightest value, low <= high |
| payload bytes | varint | length of the payload |
| *coder 0, 1:* fingerprint | 8 | of the model (`modelfile.py`) |
| *kind 1:* volume | | see below |
| *block 1, 2:* labels | | see below |
| payload | | the indices, or the labels |
| CRC-32 | 4 | little-endian, of all bytes before it (the CRC of zip and PNG) |

Limits: 2^26 pixels a slice, 2^30 voxels a volume, 2^28 indices, 2^30 bytes of payload. Sample types
of volumes: 2 int8, 3 int16, 4 uint32, 5 int32, 6 float32, 7 float64, 8 int64, 9 uint64.

A *volume* follows as: one byte for the format it came in (0 NIfTI-1, 1 NIfTI-1 pair, 2 NIfTI-2, 3
NIfTI-2 pair, 4 Analyze); one byte for the slicing, 8 · order + flips, where order counts (slice, row,
column) axes of the voxel array as 012 021 102 120 201 210, and bits 1, 2, 4 of flips say that
slices, rows, columns run against the index; the header of that format (348 bytes, NIfTI-2: 540) as a
bitmap of the bytes that are not 0, most significant bit first and filled with 0, and those bytes;
and, for coder 0 and 1, two varints a slice: darkest and brightest value in 65,535ths of the way from
low to high.

Of an image, pixels 0 and 1 stand for low and high; of a slice of a volume, for the slice's own
darkest and brightest value. A slice whose two values are equal has no indices; the others have
levels × h × w each, one slice after the other. The window MUST lie in the grid of
ceil(height / stride) × ceil(width / stride) cells. Pixels outside the window are the darkest value of
their slice, and so are all pixels of a slice that has no indices.

Indices become pixels as `quantizer.py` and `networks.py` say, in integers: a pixel is a number p from 0
to 65,535, and stands for (p / 65,535) · (high - low) + low, each operation in float64, rounded to the
nearest whole number, of two the even one, where the sample type is one of integers. So every reader
restores the same values.

*Labels* are the values that the original takes, in order: a varint of their number, 1 to 65,535; the
smallest, as a varint of 2v or, below 0, of -2v - 1; and varints of the steps to the next, at least 1.
With block 2, where not all are whole or some are beyond ±2^31, the number is followed by the values
themselves, rising, in the original's type, little-endian. With coder 2 labels MUST be there, and are
coded as such; with coder 0 and 1 pixels stand for the place of a label in their order, from low 0 to
high count - 1.

Nothing MUST follow the CRC. A reader MUST refuse, with nothing decoded: another magic, a version it
does not know, an unknown coder, kind, sample type, format or block, a number out of its range or not
in its shortest form, another length, a wrong CRC, a header of the original that is none or has
another shape or type, and, before pixels are made, a model with another fingerprint.

For an image of 256×256 the overhead is 38 bytes. Never imports torch.
"""

import math
import struct
import zlib
from itertools import pairwise
from pathlib import Path

import numpy as np

from oasisvq.codec.codes import CodesFile
from oasisvq.codec.entropy import most_indices, packed_bytes
from oasisvq.codec.headers import (
    FINGERPRINT_BYTES,
    MAX_CODEBOOK_SIZE,
    MAX_INDICES,
    MAX_LABELS,
    MAX_LEVELS,
    MAX_SLICES,
    MAX_STRIDE,
    RANGE_UNITS,
    Coder,
    CodesHeader,
    Kind,
    SampleType,
    VolumeHeader,
)
from oasisvq.codec.pixels import NOTHING, Window, cells
from oasisvq.errors import CodesFileError, ImageError
from oasisvq.files import read_bytes
from oasisvq.scans.geometry import SLICINGS, Form, Slicing
from oasisvq.scans.limits import MAX_FILE_BYTES, MAX_PIXELS, MAX_SIDE, MAX_VOXELS

MAGIC = b"OVQC"
VERSION = 1
SUFFIX = ".codes"
_CRC_BYTES = 4
_VARINT_BYTES = 5
_LABELS_BLOCK, _VALUES_BLOCK = 1, 2
_MAX_WHOLE = 2**31  # of labels in block 1
_OF_IMAGES = (SampleType.UINT8, SampleType.UINT16)


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
    uses_model = header.coder is not Coder.LABELS
    assert len(header.fingerprint) == FINGERPRINT_BYTES * uses_model
    blocks = 0
    if header.labels:
        blocks = _LABELS_BLOCK if _are_whole(header.labels) else _VALUES_BLOCK
    parts = [MAGIC, bytes((VERSION, header.coder, header.kind, header.sample_type, blocks))]
    numbers = [header.volume.slices] if header.volume else []
    numbers += header.shape
    if uses_model:
        numbers += [header.stride, *header.window, header.levels, header.codebook_size]
    parts += [_varint(number) for number in numbers]
    if uses_model and header.volume:
        parts.append(struct.pack("<2d", *header.intensity))
    elif uses_model:
        parts += [_varint(int(level)) for level in header.intensity]
    parts += [_varint(len(payload)), header.fingerprint]
    if header.volume:
        parts.append(_volume_bytes(header.volume))
    if header.labels:
        parts.append(_labels_bytes(header))
    content = b"".join(parts) + payload
    return content + struct.pack("<I", zlib.crc32(content))


def _volume_bytes(volume: VolumeHeader) -> bytes:
    content = np.frombuffer(volume.content, np.uint8)
    assert len(content) == volume.form.header_bytes
    present = content != 0
    ranges = b"".join(_varint(side) for pair in volume.ranges for side in pair)
    return b"".join(
        (
            bytes((volume.form, volume.slicing.number)),
            np.packbits(present).tobytes(),
            content[present].tobytes(),
            ranges,
        )
    )


def _are_whole(labels: tuple[float, ...]) -> bool:
    return all(isinstance(each, int) and -_MAX_WHOLE < each < _MAX_WHOLE for each in labels)


def _shortest(labels: tuple[float, ...]) -> tuple[float, ...]:
    """Integers in place of floats that are whole."""
    return tuple(int(each) if each == int(each) else each for each in labels)


def _labels_bytes(header: CodesHeader) -> bytes:
    if not _are_whole(header.labels):
        values = header.label_values
        return _varint(len(values)) + values.astype(values.dtype.newbyteorder("<")).tobytes()
    labels = [int(label) for label in header.labels]
    first = 2 * labels[0] if labels[0] >= 0 else -2 * labels[0] - 1
    steps = (after - before for before, after in pairwise(labels))
    return b"".join(_varint(number) for number in (len(labels), first, *steps))


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
    header, payload_bytes = _read_header(reader)
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
    _refuse_out_of_bounds(header, payload_bytes, reader)
    if header.volume:
        _refuse_geometry(header, header.volume, reader)
    payload = content[reader.position : reader.position + payload_bytes]
    return CodesFile(header, payload, len(content), name)


def _read_header(reader: _Reader) -> tuple[CodesHeader, int]:
    """The fields before the payload, each within its own bounds, and the payload's length."""
    coder, kind, sample_type, blocks = reader.take(4)
    is_known = coder in set(Coder) and kind in set(Kind) and sample_type in set(SampleType)
    if not is_known or blocks not in (0, _LABELS_BLOCK, _VALUES_BLOCK):
        raise reader.fail(
            f"coder {coder}, kind {kind}, sample type {sample_type}, blocks {blocks}: not all known "
            "to this version of oasisvq; update oasisvq, or get a whole copy if the file is damaged"
        )
    is_volume, uses_model = kind == Kind.VOLUME, coder != Coder.LABELS
    slices = reader.varint("slices", 1, MAX_SLICES) if is_volume else 1
    shape = reader.varint("height", 1, MAX_SIDE), reader.varint("width", 1, MAX_SIDE)
    if shape[0] * shape[1] > MAX_PIXELS:
        raise reader.fail(f"{shape[0]}×{shape[1]} pixels, more than the limit of {MAX_PIXELS:,}")
    if slices * shape[0] * shape[1] > MAX_VOXELS:
        raise reader.fail(f"{slices} such slices, more than the limit of {MAX_VOXELS:,} voxels")
    stride = levels = codebook_size = 0
    window, intensity = NOTHING, (0.0, 0.0)
    if uses_model:
        stride = reader.varint("stride", 1, MAX_STRIDE)
        window = Window(*(reader.varint(f"window {field}", 0, MAX_SIDE) for field in Window._fields))
        levels = reader.varint("levels", 1, MAX_LEVELS)
        codebook_size = reader.varint("codebook size", 2, MAX_CODEBOOK_SIZE)
        if is_volume:
            low, high = struct.unpack("<2d", reader.take(16))
        else:
            low, high = reader.varint("low", 0, 65_535), reader.varint("high", 0, 65_535)
        intensity = low, high
    payload_bytes = reader.varint("payload bytes", 0, MAX_FILE_BYTES)
    header = CodesHeader(
        Coder(coder),
        Kind(kind),
        SampleType(sample_type),
        shape,
        stride,
        window,
        levels,
        codebook_size,
        intensity,
        reader.take(FINGERPRINT_BYTES * uses_model),
        _read_volume(reader, slices, uses_model) if is_volume else None,
        _read_labels(reader, blocks, SampleType(sample_type).dtype),
    )
    return header, payload_bytes


def _read_volume(reader: _Reader, slices: int, has_ranges: bool) -> VolumeHeader:
    form, slicing = reader.take(2)
    if form not in set(Form) or slicing >= SLICINGS:
        raise reader.fail(
            f"volume format {form}, slicing {slicing}: not known to this version of oasisvq; update "
            "oasisvq, or get a whole copy if the file is damaged"
        )
    length = Form(form).header_bytes
    bitmap = np.frombuffer(reader.take(-(-length // 8)), np.uint8)
    present = np.unpackbits(bitmap)
    if present[length:].any():
        raise reader.fail("damaged: the bitmap of its header is not filled with 0; get a whole copy")
    content = np.zeros(length, np.uint8)
    content[present[:length] == 1] = np.frombuffer(reader.take(int(present.sum())), np.uint8)
    if np.count_nonzero(content) != present.sum():
        raise reader.fail("damaged: a byte of its header is marked but 0; get a whole copy")
    ranges = []
    for _ in range(slices if has_ranges else 0):
        low = reader.varint("darkest value of a slice", 0, RANGE_UNITS)
        ranges.append((low, reader.varint("brightest value of a slice", low, RANGE_UNITS)))
    return VolumeHeader(slices, Slicing.of_number(slicing), Form(form), content.tobytes(), tuple(ranges))


def _read_labels(reader: _Reader, blocks: int, dtype: np.dtype[np.generic]) -> tuple[float, ...]:
    if not blocks:
        return ()
    count = reader.varint("number of labels", 1, MAX_LABELS)
    if blocks == _VALUES_BLOCK:
        values = np.frombuffer(reader.take(count * dtype.itemsize), dtype.newbyteorder("<"))
        is_rising = bool((values[1:] > values[:-1]).all())  # false of NaN
        found: tuple[float, ...] = tuple(values.tolist())
        if not (is_rising and np.isfinite(values).all()) or _are_whole(_shortest(found)):
            raise reader.fail("damaged: labels that do not rise, or are whole and not written so")
        return found
    first = reader.varint("label", 0, 2**32 - 1)
    labels = [first // 2 if first % 2 == 0 else -(first + 1) // 2]
    for _ in range(count - 1):
        labels.append(labels[-1] + reader.varint("step of labels", 1, 2**32 - 1))
    return tuple(labels)


def _refuse_out_of_bounds(header: CodesHeader, payload_bytes: int, reader: _Reader) -> None:
    """Bounds that need several fields, before anything is allocated."""
    if header.kind is Kind.IMAGE and header.sample_type not in _OF_IMAGES:
        raise reader.fail(f"damaged: an image of {header.sample_type.name.lower()}")
    dtype = header.sample_type.dtype
    if header.labels and dtype.kind in "iu":
        smallest, largest = _limits(dtype)
        if header.labels[0] < smallest or header.labels[-1] > largest:
            raise reader.fail(f"damaged: labels beyond {dtype}")
    elif header.labels:
        labels = np.array(header.labels)
        if (labels.astype(dtype) != labels).any():
            raise reader.fail(f"damaged: labels that no {dtype} holds exactly")
    if header.coder is Coder.LABELS:
        if not header.labels:
            raise reader.fail("damaged: a file of labels that names none")
        return
    _refuse_grid(header, payload_bytes, reader)
    low, high = header.intensity
    smallest, largest = (0, 2**16 - 1) if header.labels else _limits(dtype)
    if not smallest <= low <= high <= largest or math.isinf(high - low):  # false of what is no number
        raise reader.fail(
            f"damaged: grey levels {header.intensity}, expected {smallest} to {largest} in order"
        )
    if header.labels and (low, high) != (0, len(header.labels) - 1):
        raise reader.fail("damaged: a range of pixels that does not fit its labels")


def _refuse_geometry(header: CodesHeader, volume: VolumeHeader, reader: _Reader) -> None:
    """The original's header has to be one, of the same shape and type as ours says."""
    try:
        geometry = volume.geometry
    except ImageError as error:
        raise reader.fail(f"damaged: {error}") from error
    shape = header.slices, *header.shape
    stored = (*geometry.shape, 1)[:3] if len(geometry.shape) >= 2 else ()
    expected = tuple(shape[volume.slicing.axes.index(axis)] for axis in range(3))
    if stored != expected or any(side != 1 for side in geometry.shape[3:]):
        raise reader.fail(f"damaged: a header of {geometry.shape} voxels, expected {expected}")
    if geometry.dtype.newbyteorder("=") != header.sample_type.dtype:
        raise reader.fail(
            f"damaged: a header of {geometry.dtype}, expected {header.sample_type.name.lower()}"
        )


def _limits(dtype: np.dtype[np.generic]) -> tuple[float, float]:
    """The smallest and the largest value of a type."""
    if dtype.kind == "f":
        largest = float(np.finfo(dtype.name).max)
        return -largest, largest
    bounds = np.iinfo(dtype.name)
    return int(bounds.min), int(bounds.max)


def _refuse_grid(header: CodesHeader, payload_bytes: int, reader: _Reader) -> None:
    window, grid = header.window, tuple(cells(side, header.stride) for side in header.shape)
    if window.top + window.height > grid[0] or window.left + window.width > grid[1]:
        raise reader.fail(
            f"damaged: a window {tuple(window)} beyond the grid of {grid[0]}×{grid[1]} cells"
        )
    if (window.height == 0) != (window.width == 0):
        raise reader.fail(f"damaged: a window of {window.height}×{window.width} cells")
    indices = header.slices * header.levels * window.height * window.width
    if indices > MAX_INDICES:
        raise reader.fail(f"{indices:,} indices, more than the limit of {MAX_INDICES:,}")
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
