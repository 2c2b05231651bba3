"""Payload <-> `.codes` bytes. This docstring is the specification of the format, version 1.

Numbers are unsigned unless they are called signed. A *varint* is an unsigned LEB128 number in its
shortest form (seven bits a byte, least significant group first, the top bit set on all bytes but the
last), of at most 5 bytes unless stated otherwise. A *signed* number v is the varint of 2v or, if v is
below 0, of -2v - 1; it has at most 10 bytes. A *float64* is little-endian IEEE 754.

| field | size | meaning |
|---|---|---|
| magic | 4 | the bytes `OVQC` |
| version | 1 | 1 |
| coder | 1 | 0 packed, 1 by the prior (`entropy.py`, `recall.py`), 2 labels (`labels.py`) |
| kind | 1 | what is coded: 0 an image, 1 a volume |
| sample type | 1 | of the original: 0 uint8, 1 uint16; for volumes also those listed below |
| blocks | 1 | which optional blocks follow: the sum of their numbers 1, 2, 4, .. 64 |
| *kind 1:* slices | varint | 1 to 65,535 |
| height, width | varint × 2 | of a slice in pixels, 1 to 65,535; see the limits below |
| *coder 0, 1:* stride | varint | side of one cell in pixels, 1 to 64 |
| top, left, h, w | varint × 4 | the coded window in cells; h and w may both be 0 |
| levels | varint | of the index grid, 1 to 64 |
| K | varint | codebook size, 2 to 65,535 |
| low, high | varint × 2; kind 1: float64 × 2 | darkest and brightest value, low <= high |
| payload bytes | varint | length of the payload |
| *coder 0, 1:* fingerprint | 8 | of the model (`modelfile.py`) |
| *kind 1:* volume | | see below |
| *block 1, 2:* labels | | block 1 if all are whole numbers, block 2 if not; see below |
| *block 4:* ground | | see below |
| *block 8:* residue | | see below |
| *block 16:* outliers | | see below |
| *block 32:* stack | | see below |
| *block 64:* restoration | | see below |
| payload | | the indices, or the labels |
| *block 4:* support | | which voxels are not ground, see `ground.py` |
| *block 8:* residue | | bins of these voxels, see `residue.py` |
| CRC-32 | 4 | little-endian, of all bytes before it (the CRC of zip and PNG) |

The fields from stride to high belong to coder 0 and 1.

Limits: 2^26 pixels a slice, 2^30 voxels a volume, 2^28 indices, 2^30 bytes of payload. Sample types
of volumes: 2 int8, 3 int16, 4 uint32, 5 int32, 6 float32, 7 float64, 8 int64, 9 uint64.

A *volume* block holds, in this order:

- One byte for the file format of the original: 0 NIfTI-1, 1 NIfTI-1 pair, 2 NIfTI-2, 3 NIfTI-2 pair,
  4 Analyze.
- One byte for the slicing, 8 · order + flips. Slices, rows and columns follow axes of the voxel array;
  order is the place, from 0, of these axes in 012 021 102 120 201 210. Bits 1, 2 and 4 of flips say that
  slices, rows and columns run against the index.
- The original's header (348 bytes; NIfTI-2: 540): a bitmap of the bytes that are not 0, most significant
  bit first and padded with 0, and then those bytes.
- For coder 0 and 1, two varints a slice: its darkest and its brightest value, in 65,535ths of the way
  from low to high.

In an image, the pixel values 0 and 1 stand for low and high; in a slice of a volume, for the slice's own
darkest and brightest value. A slice whose two values are equal has no indices. Each of the others has
levels × h × w indices, one slice after the other. The window MUST lie in the grid of
ceil(height / stride) × ceil(width / stride) cells. Pixels outside the window have the darkest value of
their slice, and so do all pixels of a slice without indices.

Indices become pixels in integers, as `quantizer.py` and `networks.py` say. A pixel is a number p from 0
to 65,535. It stands for (p / 65,535) · (high - low) + low, each operation in float64. If the sample type
is an integer type, the result is rounded to the nearest whole number, ties to even. So every reader
restores the same values.

*Labels* are the distinct values of the original, in rising order. Block 1 holds a varint of their
number, 1 to 65,535; the smallest as a signed number of at most 5 bytes; and for each of the others a
varint of the step to it, at least 1. Block 2 replaces it if not all labels are whole or some are beyond
±2^31: it holds their number and then the values themselves, in the original's type, little-endian. With
coder 2 labels MUST be there, and the payload codes them without a model. With coder 0 and 1 a pixel
stands for the rank of a label in this order, from low 0 to high count - 1.

The *ground* is one value that many voxels share: a float64, which may be NaN, if the sample type is a
float type, else a signed number up to 2^53 in magnitude. A varint gives the length of the support in
bytes. Decoded voxels outside the support are the ground. A voxel of the support that would decode to the
ground's value gets the next value above it that the sample type has or, if there is none, the next below
it.

A *residue* holds all other voxels to within a bound, by bins, see `bins.py`. It begins with one byte for
the rule: 0 whole, for integer sample types; 1 multiples or 2 within, for float types. After rule 0
follow step, from 1 to 2^54, and bound, to 2^54, as varints of at most 10 bytes, and origin as a signed
number up to 2^55 in magnitude; after rule 1 step as a float64 and origin as after rule 0; after rule 2
step, bound and origin as float64.
Then come the smallest and the largest bin, as signed numbers below 2^56 in magnitude, and a varint of
the payload's length in bytes. Bins are coded given what all the indices decode to, before ground is laid
on. Without its residue the file decodes to the image of its indices, with as many of the first levels as
the reader asks for.

*Outliers* are voxels whose values are stored here and override everything else. The block holds a varint
of their number, 1 to 65,535. Then, for each outlier, a varint gives the step to its place from the place
before; places count through all slices laid flat, and the first step counts from -1. Last come the
values: signed numbers up to 2^53 in magnitude if the sample type is an integer type, else finite, in the
sample type, little-endian. Outliers MUST be in the support, and have no bins in a residue. Labels have
neither ground nor residue nor outliers.

A *restoration* corrects decoded voxels by their depth in the support, see `restoration.py`. For each
depth from 1 to 4 it holds the weights own - 256, around and offset as signed numbers from -1024 to 1024.
It MUST come with a ground, and without a residue.

A *stack* is a volume whose slices were images of uint8 or uint16, with names that differ in one number
alone. The block holds the text before the number and the text after it, each as a varint of its length
in bytes and its UTF-8 bytes; a varint of the least digits of a number, 1 to 9, to which it is padded
with zeros; and a varint of the first slice's number. Numbers are below 10^9. The numbers of the other
slices follow as pairs of varints until there are as many as slices: a step to the next number, at least
1, and how many slices in a row have that step. The steps of adjacent pairs differ. Every name MUST be
one that a file may have on every system, see `is_safe_name` in `text.py`. Planes are the images as they
are, in the order of their numbers.

There MUST be nothing after the CRC. A reader MUST refuse, before it decodes anything: a wrong magic; a
version it does not know; an unknown coder, kind, sample type, format or block; a number that is out of
its range or not in its shortest form; a file of another length than its fields say; a wrong CRC; and a
header of the original that is invalid or has another shape or type. It MUST refuse a model with another
fingerprint before it makes any pixels.

For an image of 256×256 the overhead is 38 bytes. Never imports torch.
"""

import math
import struct
import zlib
from pathlib import Path

import numpy as np

from oasisvq.codec.blocks import (
    are_whole,
    ground_bytes,
    labels_bytes,
    outliers_bytes,
    read_ground,
    read_labels,
    read_outliers,
    read_residue,
    read_restoration,
    read_stack,
    read_values,
    read_volume,
    residue_bytes,
    restoration_bytes,
    stack_bytes,
    values_bytes,
    volume_bytes,
)
from oasisvq.codec.codes import NOTHING_BESIDE, Beside, CodesFile
from oasisvq.codec.entropy import most_indices, packed_bytes
from oasisvq.codec.fields import Reader, varint
from oasisvq.codec.headers import (
    FINGERPRINT_BYTES,
    MAX_CODEBOOK_SIZE,
    MAX_INDICES,
    MAX_LEVELS,
    MAX_SLICES,
    MAX_STRIDE,
    Coder,
    CodesHeader,
    Kind,
    Outliers,
    SampleType,
    VolumeHeader,
)
from oasisvq.codec.pixels import NOTHING, Window, cells
from oasisvq.errors import ImageError
from oasisvq.files import read_bytes
from oasisvq.scans.limits import MAX_FILE_BYTES, MAX_PIXELS, MAX_SIDE, MAX_VOXELS

MAGIC = b"OVQC"
VERSION = 1
SUFFIX = ".codes"
_CRC_BYTES = 4
_LABELS_BLOCK, _VALUES_BLOCK, _GROUND_BLOCK, _RESIDUE_BLOCK = 1, 2, 4, 8
_OUTLIERS_BLOCK, _STACK_BLOCK, _RESTORATION_BLOCK = 16, 32, 64
_OF_IMAGES = (SampleType.UINT8, SampleType.UINT16)


def write(header: CodesHeader, payload: bytes, beside: Beside = NOTHING_BESIDE) -> bytes:
    """Header and payloads to the bytes of a file."""
    uses_model = header.coder is not Coder.LABELS
    assert len(header.fingerprint) == FINGERPRINT_BYTES * uses_model
    blocks = 0
    if header.labels:
        blocks = _LABELS_BLOCK if are_whole(header.labels) else _VALUES_BLOCK
    blocks |= _GROUND_BLOCK * bool(header.ground) | _RESIDUE_BLOCK * bool(header.residue)
    blocks |= _OUTLIERS_BLOCK * bool(header.outliers) | _STACK_BLOCK * bool(header.stack)
    blocks |= _RESTORATION_BLOCK * bool(header.restoration)
    parts = [MAGIC, bytes((VERSION, header.coder, header.kind, header.sample_type, blocks))]
    numbers = [header.volume.slices] if header.volume else []
    numbers += header.shape
    if uses_model:
        numbers += [header.stride, *header.window, header.levels, header.codebook_size]
    parts += [varint(number) for number in numbers]
    if uses_model and header.volume:
        parts.append(struct.pack("<2d", *header.intensity))
    elif uses_model:
        parts += [varint(int(level)) for level in header.intensity]
    parts += [varint(len(payload)), header.fingerprint]
    if header.volume:
        parts.append(volume_bytes(header.volume))
    if header.labels:
        whole = blocks & _LABELS_BLOCK
        parts.append(labels_bytes(header.labels) if whole else values_bytes(header.label_values))
    if header.ground:
        assert header.ground.payload_bytes == len(beside.support)
        parts.append(ground_bytes(header.ground, header.sample_type))
    if header.residue:
        assert header.residue.payload_bytes == len(beside.residue)
        parts.append(residue_bytes(header.residue))
    if header.outliers:
        parts.append(outliers_bytes(header.outliers, header.sample_type))
    if header.stack:
        assert len(header.stack.numbers) == header.slices
        parts.append(stack_bytes(header.stack))
    if header.restoration:
        parts.append(restoration_bytes(header.restoration))
    content = b"".join((*parts, payload, beside.support, beside.residue))
    return content + struct.pack("<I", zlib.crc32(content))


def read(content: bytes, name: str) -> CodesFile:
    """The inverse of `write`; messages call the file `name`.

    Raises:
        CodesFileError: the file deviates from the specification outside its payloads.
    """
    reader = Reader(content, name)
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
    lengths = (
        payload_bytes,
        *(block.payload_bytes if block else 0 for block in (header.ground, header.residue)),
    )
    expected = reader.position + sum(lengths) + _CRC_BYTES
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
    payload, support, residue = (reader.take(length) for length in lengths)
    return CodesFile(header, payload, len(content), name, Beside(support, residue))


def _read_header(reader: Reader) -> tuple[CodesHeader, int]:
    """The fields before the payload, each checked against its own bounds, and the payload's length."""
    coder, kind, sample_type, blocks = reader.take(4)
    is_known = coder in set(Coder) and kind in set(Kind) and sample_type in set(SampleType)
    both = _LABELS_BLOCK | _VALUES_BLOCK
    known = 2 * _RESTORATION_BLOCK - 1  # all blocks together
    if not is_known or blocks & ~known or blocks & both == both:
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
        read_volume(reader, slices, uses_model) if is_volume else None,
        _read_labels(reader, blocks, SampleType(sample_type)),
        read_ground(reader, SampleType(sample_type)) if blocks & _GROUND_BLOCK else None,
        read_residue(reader, SampleType(sample_type)) if blocks & _RESIDUE_BLOCK else None,
        _read_outliers(reader, blocks, SampleType(sample_type), slices * shape[0] * shape[1]),
        read_stack(reader, slices) if blocks & _STACK_BLOCK else None,
        read_restoration(reader) if blocks & _RESTORATION_BLOCK else None,
    )
    return header, payload_bytes


def _read_labels(reader: Reader, blocks: int, sample_type: SampleType) -> tuple[float, ...]:
    if blocks & _VALUES_BLOCK:
        return read_values(reader, sample_type.dtype)
    return read_labels(reader) if blocks & _LABELS_BLOCK else ()


def _read_outliers(reader: Reader, blocks: int, sample_type: SampleType, voxels: int) -> Outliers | None:
    return read_outliers(reader, sample_type, voxels) if blocks & _OUTLIERS_BLOCK else None


def _refuse_out_of_bounds(header: CodesHeader, payload_bytes: int, reader: Reader) -> None:
    """Check bounds that need several fields, before anything is allocated."""
    if (header.kind is Kind.IMAGE or header.stack) and header.sample_type not in _OF_IMAGES:
        raise reader.fail(f"damaged: an image of {header.sample_type.name.lower()}")
    if header.stack and header.kind is Kind.IMAGE:
        raise reader.fail("damaged: an image with the names of a stack")
    dtype = header.sample_type.dtype
    if header.labels and dtype.kind in "iu":
        smallest, largest = _limits(dtype)
        if header.labels[0] < smallest or header.labels[-1] > largest:
            raise reader.fail(f"damaged: labels beyond {dtype}")
    elif header.labels:
        labels = np.array(header.labels)
        if (labels.astype(dtype) != labels).any():
            raise reader.fail(f"damaged: labels that no {dtype} holds exactly")
    _refuse_beside(header, reader)
    if header.coder is Coder.LABELS:
        if not header.labels:
            raise reader.fail("damaged: a file of labels that names none")
        return
    _refuse_grid(header, payload_bytes, reader)
    low, high = header.intensity
    smallest, largest = (0, 2**16 - 1) if header.labels else _limits(dtype)
    if not smallest <= low <= high <= largest or math.isinf(high - low):  # also for NaN
        raise reader.fail(
            f"damaged: grey levels {header.intensity}, expected {smallest} to {largest} in order"
        )
    if header.labels and (low, high) != (0, len(header.labels) - 1):
        raise reader.fail("damaged: a range of pixels that does not fit its labels")


def _refuse_beside(header: CodesHeader, reader: Reader) -> None:
    """Refuse blocks beside the indices that do not fit together."""
    if header.labels and header.has_more:
        raise reader.fail("damaged: labels with a ground, a residue or outliers")
    if header.restoration and (header.residue or not header.ground):
        raise reader.fail("damaged: a restoration beside a residue, or without a ground")
    if header.outliers and header.ground and header.ground.value in header.outliers.values:
        raise reader.fail("damaged: an outlier of the value of the ground")


def _refuse_geometry(header: CodesHeader, volume: VolumeHeader, reader: Reader) -> None:
    """Refuse a header of the original that is invalid, or has another shape or type than ours."""
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


def _refuse_grid(header: CodesHeader, payload_bytes: int, reader: Reader) -> None:
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
