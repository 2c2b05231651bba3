"""Header and payload <-> `.codes` bytes."""

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from forged import FINGERPRINT, HEADER, INDICES, forge, random_codes, read, volume_codes, write

from oasisvq.codec import container
from oasisvq.codec.entropy import pack
from oasisvq.codec.headers import Coder, CodesHeader, Kind, SampleType
from oasisvq.codec.pixels import Window, cells
from oasisvq.errors import CodesFileError

# The format is frozen: if this test fails, the change needs a new format version.
GOLDEN = (
    "4f565143 01 00 00 00 00"  # magic, version, coder, kind, sample type, blocks
    "14 1e 08 00010203 02 14 05 fa01 08"  # 20×30, stride, window, levels, K, low, high, payload bytes
    "0123456789abcdef"
    "04ce358673008880"  # 5 bits an index
    "d53d2c18"
)


def test_read_is_the_inverse_of_write(rng: np.random.Generator) -> None:
    empty = 0
    for _ in range(300):
        header, indices = random_codes(rng)
        content = write(header, indices)
        codes = read(content, "x.codes")
        assert codes.header == header
        assert codes.file_bytes == len(content)
        assert codes.indices.dtype == np.uint16
        np.testing.assert_array_equal(codes.indices, indices)
        empty += not indices.size
    assert 0 < empty < 200  # both kinds were met


@pytest.mark.parametrize(
    ("shape", "stride", "levels", "codes"),
    [
        ((1, 1), 1, 1, 2),
        ((65_535, 1), 64, 64, 65_535),
        ((1, 65_535), 64, 64, 2),
        ((8192, 8192), 64, 1, 3),
    ],
)
def test_inverse_at_the_limits(
    shape: tuple[int, int], stride: int, levels: int, codes: int, rng: np.random.Generator
) -> None:
    height, width = cells(shape[0], stride), cells(shape[1], stride)
    header = CodesHeader(
        Coder.PACKED,
        Kind.IMAGE,
        SampleType.UINT16,
        shape,
        stride,
        Window(0, 0, height, width),
        levels,
        codes,
        (0, 65_535),
        bytes(8),
    )
    indices = rng.integers(0, codes, (levels, height, width))
    restored = read(write(header, indices), "x.codes")
    assert restored.header == header
    np.testing.assert_array_equal(restored.indices, indices)


def test_the_bytes_are_fixed() -> None:
    assert write(HEADER, INDICES).hex() == bytes.fromhex(GOLDEN).hex()


def test_the_bytes_are_as_specified() -> None:
    assert write(HEADER, INDICES) == forge()


@pytest.mark.parametrize("levels", [1, 2, 4, 8])
def test_the_overhead_of_a_slice(levels: int, rng: np.random.Generator) -> None:
    header = CodesHeader(
        Coder.PACKED,
        Kind.IMAGE,
        SampleType.UINT8,
        (256, 256),
        8,
        Window(5, 3, 22, 26),
        levels,
        1024,
        (0, 255),
        FINGERPRINT,
    )
    indices = rng.integers(0, 1024, (levels, 22, 26))
    overhead = len(write(header, indices)) - levels * 22 * 26 * 10 // 8
    assert overhead == 38  # as the specification says
    assert overhead <= 40


def test_every_flipped_bit_is_an_error() -> None:
    content = write(HEADER, INDICES)
    for position in range(len(content)):
        for bit in range(8):
            damaged = bytearray(content)
            damaged[position] ^= 1 << bit
            with pytest.raises(CodesFileError, match=r"^scan\.codes: "):
                read(bytes(damaged), "scan.codes")


def test_every_other_byte_is_an_error() -> None:
    content = write(HEADER, INDICES)
    for position, byte in enumerate(content):
        for other in {0x00, 0x7F, 0x80, 0xFF} - {byte}:
            damaged = content[:position] + bytes([other]) + content[position + 1 :]
            with pytest.raises(CodesFileError):
                read(damaged, "scan.codes")


def test_every_truncation_is_an_error() -> None:
    content = write(HEADER, INDICES)
    for length in range(len(content)):
        with pytest.raises(CodesFileError, match=r"^scan\.codes: "):
            read(content[:length], "scan.codes")


@pytest.mark.parametrize("byte", range(0, 256, 5))
def test_a_byte_after_the_end_is_an_error(byte: int) -> None:
    content = write(HEADER, INDICES)
    with pytest.raises(CodesFileError, match="1 bytes follow the end"):
        read(content + bytes([byte]), "scan.codes")


def test_a_missing_or_doubled_byte_within_is_an_error() -> None:
    content = write(HEADER, INDICES)
    for position in range(len(content)):
        rest = content[position:]
        for damaged in (content[:position] + rest[1:], content[:position] + rest[:1] + rest):
            with pytest.raises(CodesFileError):
                read(damaged, "scan.codes")


def test_two_files_in_one_are_an_error() -> None:
    content = write(HEADER, INDICES)
    with pytest.raises(CodesFileError, match="follow the end"):
        read(content * 2, "scan.codes")


def test_an_empty_file_is_called_empty() -> None:
    with pytest.raises(CodesFileError, match=r"scan\.codes: an empty file"):
        read(b"", "scan.codes")


def test_another_kind_of_file_is_called_so() -> None:
    with pytest.raises(CodesFileError, match=r"not a \.codes file; expected .*oasisvq encode"):
        read(b"\x89PNG\r\n\x1a\n" + bytes(100), "scan.codes")


@pytest.mark.parametrize("version", [0, 2, 255])
def test_another_version_is_refused_whatever_follows(version: int) -> None:
    message = f"format version {version}, but this version of oasisvq reads version 1; update"
    with pytest.raises(CodesFileError, match=message):
        read(forge(version=version), "scan.codes")
    with pytest.raises(CodesFileError, match=message):
        read(b"OVQC" + bytes([version]) + b"what a later version may have", "scan.codes")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"height": 0}, "height is 0"),
        ({"width": 0}, "width is 0"),
        ({"height": 65_536}, "height is 65536"),
        ({"width": 2**35 - 1}, "width is"),
        ({"height": 8192, "width": 8193}, "more than the limit of 67,108,864"),
        ({"height": 65_535, "width": 65_535}, "more than the limit"),
        ({"stride": 0}, "stride is 0"),
        ({"stride": 65}, "stride is 65"),
        ({"top": 2}, "beyond the grid of 3×4"),
        ({"left": 2}, "beyond the grid"),
        ({"h": 4}, "beyond the grid"),
        ({"w": 4}, "beyond the grid"),
        ({"top": 65_536}, "window top is 65536"),
        ({"h": 0}, "window of 0×3"),
        ({"w": 0}, "window of 2×0"),
        ({"levels": 0}, "levels is 0"),
        ({"levels": 65}, "levels is 65"),
        ({"codes": 0}, "codebook size is 0"),
        ({"codes": 1}, "codebook size is 1"),
        ({"codes": 65_536}, "codebook size is 65536"),
        ({"low": 251}, "grey levels"),
        ({"high": 256}, "grey levels"),
        ({"high": 65_536, "sample_type": 1}, "high is 65536"),
        ({"low": 65_536, "high": 65_536, "sample_type": 1}, "low is 65536"),
        ({"coder": 3}, "coder 3"),
        ({"coder": 1}, "coded with the prior of model 01234567; name that model with --model"),
        ({"kind": 2}, "kind 2"),
        ({"sample_type": 2}, "an image of int8"),
        ({"sample_type": 10}, "sample type 10"),
        ({"blocks": 3}, "blocks 3"),
        ({"blocks": 16}, "step of outliers is "),
        ({"blocks": 64}, "weight of the restoration is "),
        ({"blocks": 128}, "blocks 128"),
        ({"payload_bytes": 7}, "follow the end"),
        ({"payload_bytes": 9}, "truncated or damaged"),
        ({"payload_bytes": 2**30}, "truncated or damaged"),
        ({"payload_bytes": 2**30 + 1}, "payload bytes is"),
        ({"levels": 1}, "payload of 8 bytes, expected 4"),
        ({"codes": 33}, "payload of 8 bytes, expected 9"),
        ({"codes": 19}, "index 19 in the payload, but the codebook has 19"),
        ({"height": b"\x94\x00"}, "height is no number in its shortest form"),
        ({"h": b"\x82\x80\x00"}, "window height is no number"),
        ({"low": b"\x80\x00"}, "low is no number"),
        ({"width": b"\x9e\x80\x80\x80\x80\x00"}, "width is no number"),
        ({"width": b"\x9e\x80\x80\x80\x80\x01"}, "width is no number"),
        ({"payload_bytes": b"\x88\x00"}, "payload bytes is no number"),
    ],
)
def test_a_field_out_of_range_is_refused_though_the_crc_is_right(
    changes: dict[str, int | bytes], message: str
) -> None:
    with pytest.raises(CodesFileError, match=f"^scan.codes: .*{message}"):
        read(forge(**changes), "scan.codes")


@pytest.mark.parametrize("extra", [-1, 1])
def test_a_payload_of_another_length_is_refused_though_the_crc_is_right(extra: int) -> None:
    payload = (pack(INDICES, 20) + b"\0")[: 8 + extra]
    with pytest.raises(CodesFileError, match=f"payload of {8 + extra} bytes, expected 8"):
        read(forge(payload), "scan.codes")


def test_fill_bits_are_refused_though_the_crc_is_right() -> None:
    payload = pack(INDICES, 20)
    with pytest.raises(CodesFileError, match="not filled with zeros"):
        read(forge(payload[:-1] + bytes([payload[-1] | 1])), "scan.codes")


def test_huge_sizes_are_refused_before_anything_is_allocated() -> None:
    content = forge(height=8192, width=8192, stride=1, top=0, left=0, h=8192, w=8192, levels=64)
    tracemalloc.start()
    with pytest.raises(CodesFileError, match="4,294,967,296 indices, more than the limit"):
        read(content, "scan.codes")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**20


def test_more_indices_than_a_prior_coded_payload_can_hold_are_refused_unread() -> None:
    sides = {"height": 8192, "width": 8192, "stride": 1, "top": 0, "left": 0, "h": 8192, "w": 8192}
    content = forge(bytes(20), coder=1, levels=4, codes=256, **sides)
    tracemalloc.start()
    with pytest.raises(CodesFileError, match="268,435,456 indices in a payload of 20 bytes"):
        container.read(content, "scan.codes")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**20


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"intensity": (5.0, 4.0)}, "expected .* in order"),
        ({"intensity": (float("nan"), 4.0)}, "expected .* in order"),
        ({"intensity": (0.0, float("inf"))}, "expected .* in order"),
        ({"intensity": (0.0, 256.0)}, "expected 0 to 255 in order"),
        ({"labels": (0, 1, 300)}, "labels beyond uint8"),
        (
            {"labels": (0, 2**24, 2**24 + 1), "sample_type": SampleType.FLOAT32},
            "labels that no float32 holds exactly",
        ),
        ({"labels": (0, 9)}, "a range of pixels that does not fit its labels"),
        ({"shape": (8192, 8192), "window": Window(0, 0, 0, 0), "slices": 17}, "17 such slices"),
    ],
)
def test_a_volume_out_of_range_is_refused_though_the_crc_is_right(
    changes: dict[str, object], message: str, rng: np.random.Generator
) -> None:
    header, _ = volume_codes(rng)
    assert header.volume is not None
    slices = changes.pop("slices", 1)
    assert isinstance(slices, int)
    volume = replace(header.volume, slices=slices, ranges=((0, 0),) * slices)
    header = replace(header, sample_type=SampleType.UINT8, volume=volume)
    header = replace(header, **changes)  # type: ignore[arg-type]
    with pytest.raises(CodesFileError, match=f"^scan.codes: .*{message}"):
        container.read(container.write(header, b""), "scan.codes")


def test_an_empty_window_and_a_single_grey_level_are_no_errors() -> None:
    codes = read(forge(b"", top=0, left=0, h=0, w=0, low=9, high=9), "scan.codes")
    assert codes.indices.shape == (2, 0, 0)
    assert codes.header.intensity == (9, 9)
