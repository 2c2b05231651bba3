"""`.codes` files that were drawn, and such as no encoder writes."""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from prior_driver import drawn_prior

from oasisvq.codec import container
from oasisvq.codec.codes import Codes
from oasisvq.codec.entropy import encode_with_prior, pack
from oasisvq.codec.frequencies import Frequencies
from oasisvq.codec.headers import Coder, CodesHeader, Kind, SampleType, VolumeHeader
from oasisvq.codec.labels import encode_labels
from oasisvq.codec.pixels import Window, cells
from oasisvq.codec.prior import Pass
from oasisvq.scans.geometry import SLICINGS, Geometry, Slicing

FINGERPRINT = bytes.fromhex("0123456789abcdef")
INDICES = np.array([[[0, 19, 7], [3, 11, 1]], [[19, 19, 0], [2, 4, 8]]])
HEADER = CodesHeader(
    coder=Coder.PACKED,
    kind=Kind.IMAGE,
    sample_type=SampleType.UINT8,
    shape=(20, 30),
    stride=8,
    window=Window(0, 1, 2, 3),
    levels=2,
    codebook_size=20,
    intensity=(5, 250),
    fingerprint=FINGERPRINT,
)


def write(header: CodesHeader, indices: NDArray[np.integer]) -> bytes:
    return container.write(header, pack(indices, header.codebook_size))


def read(content: bytes, name: str) -> Codes:
    return container.read(content, name).codes()


def varint(number: int) -> bytes:
    groups = [number & 0x7F]
    while number := number >> 7:
        groups.append(number & 0x7F)
    return bytes(group | 0x80 for group in groups[:-1]) + bytes(groups[-1:])


def forge(payload: bytes = pack(INDICES, 20), **changes: int | bytes) -> bytes:
    """A file as the specification has it, with some fields changed and a right CRC.

    A number is written as a varint (or one byte, before the sizes); bytes are taken as they are.
    """
    short = {"magic": b"OVQC", "version": 1, "coder": 0, "kind": 0, "sample_type": 0, "blocks": 0}
    long = {"height": 20, "width": 30, "stride": 8, "top": 0, "left": 1, "h": 2, "w": 3}
    long |= {"levels": 2, "codes": 20, "low": 5, "high": 250, "payload_bytes": len(payload)}
    assert set(changes) <= {*short, *long}
    content = b""
    for name, number in short.items():
        field = changes.get(name, number)
        content += field if isinstance(field, bytes) else bytes([field])
    for name, number in long.items():
        field = changes.get(name, number)
        content += field if isinstance(field, bytes) else varint(field)
    return sealed(content + FINGERPRINT + payload)


def sealed(content: bytes) -> bytes:
    return content + struct.pack("<I", zlib.crc32(content))


def random_codes(rng: np.random.Generator) -> tuple[CodesHeader, NDArray[np.int64]]:
    stride = int(rng.integers(1, 65))
    shape = int(rng.integers(1, 300)), int(rng.integers(1, 300))
    grid = cells(shape[0], stride), cells(shape[1], stride)
    height, width = int(rng.integers(0, grid[0] + 1)), int(rng.integers(0, grid[1] + 1))
    if not height * width or height * width > 5000:
        height = width = 0
    top, left = int(rng.integers(0, grid[0] - height + 1)), int(rng.integers(0, grid[1] - width + 1))
    sample_type = SampleType(int(rng.integers(0, 2)))
    low, high = sorted(int(level) for level in rng.integers(0, 256 ** (sample_type + 1), size=2))
    levels, codes = int(rng.integers(1, 9)), int(rng.integers(2, 65_536))
    header = CodesHeader(
        Coder.PACKED,
        Kind.IMAGE,
        sample_type,
        shape,
        stride,
        Window(top, left, height, width),
        levels,
        codes,
        (low, high),
        rng.bytes(8),
    )
    return header, rng.integers(0, codes, (levels, height, width))


def prior_coded(indices: NDArray[np.integer] = INDICES) -> bytes:
    def given(step: Pass, _: Frequencies) -> NDArray[np.uint16]:
        return indices[step.level, step.rows, step.columns].astype(np.uint16)

    payload, _ = encode_with_prior(drawn_prior(), indices.shape, 2, given)
    return container.write(replace(HEADER, coder=Coder.PRIOR), payload)


def original(
    rng: np.random.Generator,
    shape: tuple[int, ...],
    sample_type: SampleType,
    ranges: tuple[tuple[int, int], ...] = (),
) -> VolumeHeader:
    """What a drawn volume of planes (slices, H, W) came in."""
    slicing = Slicing.of_number(int(rng.integers(SLICINGS)))
    voxels = slicing.voxels(np.zeros(shape, sample_type.dtype))
    geometry = Geometry.of_array(voxels, np.diag([*rng.uniform(0.5, 2, 3), 1]))
    geometry = geometry.as_pair() if rng.random() < 0.5 else geometry
    return VolumeHeader(shape[0], slicing, geometry.form, geometry.content, ranges)


def volume_codes(rng: np.random.Generator) -> tuple[CodesHeader, NDArray[np.int64]]:
    """The header of a drawn volume, and indices of its coded slices."""
    slices = int(rng.integers(1, 9))
    ranges = tuple((low, high) for low, high in np.sort(rng.integers(0, 65_536, (slices, 2))).tolist())
    ranges = (*ranges[:-1], (7, 7))
    sample_type = SampleType(int(rng.integers(10)))
    volume = original(rng, (slices, *HEADER.shape), sample_type, ranges)
    header = replace(
        HEADER,
        kind=Kind.VOLUME,
        sample_type=sample_type,
        intensity=(0.0, float(rng.integers(1, 100))),
        volume=volume,
    )
    shape = len(header.coded_slices), *header.grid_shape
    return header, rng.integers(0, header.codebook_size, shape)


def label_file(rng: np.random.Generator, labels: tuple[int, ...]) -> tuple[bytes, NDArray[np.int64]]:
    ranks = rng.integers(0, len(labels), (3, 7, 5)).astype(np.uint16)
    header = CodesHeader(
        Coder.LABELS,
        Kind.VOLUME,
        SampleType.INT32,
        (7, 5),
        0,
        Window(0, 0, 0, 0),
        0,
        0,
        (0, 0),
        b"",
        original(rng, ranks.shape, SampleType.INT32),
        labels,
    )
    return container.write(header, encode_labels(ranks, len(labels))), np.array(labels)[ranks]


def damaged_copies(content: bytes) -> Iterator[bytes]:
    """Cut short, with more behind, and with each of its bits turned."""
    yield from (content[:length] for length in range(len(content)))
    yield from (content + b"\0", content + content)
    for place in range(8 * len(content)):
        flipped = bytearray(content)
        flipped[place // 8] ^= 1 << place % 8
        yield bytes(flipped)
