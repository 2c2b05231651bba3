"""Labels <-> payload."""

import hashlib
import math
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from conftest import draw_labels
from forged import damaged_copies
from numpy.typing import NDArray
from PIL import Image

from oasisvq.codec.content import labels_in
from oasisvq.codec.entropy import RangeEncoder
from oasisvq.codec.labels import decode_labels, encode_labels
from oasisvq.errors import CodesFileError


def assert_inverse(ranks: NDArray[np.uint16], count: int) -> bytes:
    payload = encode_labels(ranks, count)
    restored = decode_labels(payload, ranks.shape, count)
    assert restored.dtype == np.uint16
    np.testing.assert_array_equal(restored, ranks)
    return payload


SHAPES = [
    (1, 1, 1),
    (1, 1, 9),
    (1, 9, 1),
    (1, 7, 11),
    (2, 1, 1),
    (9, 1, 1),
    (3, 4, 5),
    (2, 9, 1),
    (5, 1, 6),
]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("count", [1, 2, 3, 4, 300, 65_535])
def test_inverse_on_random_ranks(
    shape: tuple[int, int, int], count: int, rng: np.random.Generator
) -> None:
    assert_inverse(rng.integers(0, count, shape).astype(np.uint16), count)


@pytest.mark.parametrize("shape", SHAPES)
def test_inverse_where_all_ranks_are_the_same(shape: tuple[int, int, int]) -> None:
    for rank in (0, 1, 4):
        assert_inverse(np.full(shape, rank, np.uint16), 5)


@pytest.mark.parametrize("shape", [(1, 61, 47), (1, 40, 64), (7, 23, 19)])
@pytest.mark.parametrize("count", [2, 3, 4, 40, 300])
def test_inverse_on_cells(shape: tuple[int, int, int], count: int, rng: np.random.Generator) -> None:
    ranks = draw_labels(rng, shape, count)
    assert len(assert_inverse(ranks, count)) < math.log2(count) * ranks.size / 8 / 2


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32, np.uint64])
def test_any_unsigned_type_and_memory_order(dtype: type, rng: np.random.Generator) -> None:
    ranks = draw_labels(rng, (4, 12, 10), 9)
    payload = encode_labels(ranks, 9)
    assert encode_labels(np.asfortranarray(ranks).astype(dtype, order="K"), 9) == payload
    assert encode_labels(ranks[::-1, :, ::-1][::-1, :, ::-1].astype(dtype), 9) == payload


def test_the_ranks_given_are_left_as_they_are(rng: np.random.Generator) -> None:
    ranks = draw_labels(rng, (3, 12, 10), 9)
    ranks.flags.writeable = False
    encode_labels(ranks, 9)


def test_one_label_takes_no_bytes() -> None:
    ranks = np.zeros((3, 4, 5), np.uint16)
    assert encode_labels(ranks, 1) == b""
    np.testing.assert_array_equal(decode_labels(b"", (3, 4, 5), 1), ranks)
    with pytest.raises(CodesFileError, match="does not end"):
        decode_labels(b"\0", (3, 4, 5), 1)


def test_isolated_voxels_and_every_label_once() -> None:
    ranks = np.zeros((1, 30, 30), np.uint16)
    ranks[0, ::3, ::4] = np.arange(1, 81).reshape(10, 8)
    assert_inverse(ranks, 81)
    assert_inverse(np.arange(400, dtype=np.uint16).reshape(1, 20, 20), 400)
    assert_inverse((np.indices((20, 20)).sum(axis=0) % 2)[None].astype(np.uint16), 2)


def test_golden_bytes() -> None:
    """Other bytes for the same labels would be another format."""
    y, x = np.indices((40, 50))
    image = ((x - 25) ** 2 + (y - 20) ** 2 < 300).astype(np.uint16)
    image += (x - 20) ** 2 + 2 * (y - 18) ** 2 < 90
    image[(3 * x + 5 * y) % 97 == 0] = 6
    z, y, x = np.indices((9, 20, 24))
    volume = ((x - 12) ** 2 + (y - 10) ** 2 + 4 * (z - 4) ** 2 < 80).astype(np.uint16)
    volume[(x * y * z) % 101 == 7] = 150
    payloads = [encode_labels(image[None], 7), encode_labels(volume, 151)]
    digests = [hashlib.sha256(payload).hexdigest()[:16] for payload in payloads]
    assert [len(payload) for payload in payloads] == [68, 136]
    assert digests == ["3e4b7651e1dd4c1a", "4bd1871fb2a2c318"]


@pytest.mark.parametrize(("shape", "count"), [((1, 9, 8), 4), ((2, 5, 6), 2), ((1, 6, 6), 300)])
def test_damage_is_found_or_makes_the_payload_of_other_labels(
    shape: tuple[int, int, int], count: int, rng: np.random.Generator
) -> None:
    """No code without redundancy can do more: telling such payloads apart is for the container's CRC."""
    ranks = draw_labels(rng, shape, count, seeds=6)
    payload = encode_labels(ranks, count)
    damaged = list(damaged_copies(payload))
    damaged += [rng.bytes(length) for length in range(1, 20)]
    damaged += [b"\xff" * length for length in (1, 4, 8, 40)]
    refused = 0
    for content in damaged:
        try:
            restored = decode_labels(content, shape, count)
        except CodesFileError:
            refused += 1
            continue
        assert (restored != ranks).any()
        assert restored.max() < count
        assert encode_labels(restored, count) == content
    assert refused > 0.8 * len(damaged)


@pytest.mark.parametrize("end", [b"\0", b"\1", b"\x80", b"\xff", bytes(3), bytes(8), bytes(400)])
def test_bytes_behind_a_payload_are_refused(end: bytes, rng: np.random.Generator) -> None:
    payload = encode_labels(draw_labels(rng, (1, 14, 12), 4), 4)
    with pytest.raises(CodesFileError, match="does not end where its labels end"):
        decode_labels(payload + end, (1, 14, 12), 4)


@pytest.mark.parametrize(
    "other", [((1, 12, 14), 4), ((1, 14, 12), 5), ((1, 13, 12), 4), ((2, 14, 6), 4)]
)
def test_another_shape_or_count_does_not_give_these_labels(
    other: tuple[tuple[int, int, int], int], rng: np.random.Generator
) -> None:
    payload = encode_labels(draw_labels(rng, (1, 14, 12), 4), 4)
    with pytest.raises(CodesFileError):
        decode_labels(payload, *other)


def box_payload(*box: tuple[int, int, int]) -> bytes:
    """What begins a payload: first and past the last of each axis, and the length of its side."""
    encoder = RangeEncoder()
    for first, past, side in box:
        width = side.bit_length()
        bits = [end >> place & 1 for end in (first, past) for place in range(width - 1, -1, -1)]
        encoder.put(np.array(bits), np.full((2 * width, 2), 2**23 - 1))
    return encoder.finish()


@pytest.mark.parametrize(
    ("box", "message"),
    [
        (((0, 9, 9), (0, 8, 8), (0, 7, 7)), "ends before its labels do|denies a voxel|larger than"),
        (((0, 512, 512), (0, 512, 512), (0, 512, 512)), r"134,217,728 voxels in a payload of \d+ bytes"),
        (((0, 65_535, 65_535), (0, 2048, 2048), (0, 1, 1)), "134,215,680 voxels in a payload"),
        (((0, 1, 1), (0, 65_535, 65_535), (0, 200, 200)), "13,107,000 voxels in a payload"),
        (((0, 1, 1), (0, 4096, 4096), (0, 1024, 1024)), "ends before|denies a voxel"),
        (((0, 9, 9), (5, 5, 8), (0, 7, 7)), "from 5 to 5, of a side of 8"),
        (((0, 9, 9), (6, 5, 8), (0, 7, 7)), "from 6 to 5, of a side of 8"),
        (((0, 9, 9), (0, 9, 8), (0, 7, 7)), "from 0 to 9, of a side of 8"),
        (((0, 9, 9), (0, 0, 8), (0, 7, 7)), "larger than what it holds"),
    ],
)
def test_a_box_that_the_payload_does_not_fill_is_refused_at_once(
    box: tuple[tuple[int, int, int], ...], message: str
) -> None:
    payload, shape = box_payload(*box), tuple(side for _, _, side in box)
    tracemalloc.start()
    before = time.process_time()
    with pytest.raises(CodesFileError, match=message):
        decode_labels(payload, shape, 2)
    seconds, (_, peak) = time.process_time() - before, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert seconds < 1
    assert peak < 30 * 2**20


def test_a_volume_takes_less_than_its_slices(rng: np.random.Generator) -> None:
    volume = draw_labels(rng, (16, 32, 32), 5, seeds=12)
    slices = sum(len(encode_labels(plane[None], 5)) for plane in volume)
    assert len(encode_labels(volume, 5)) < 0.8 * slices


def test_many_labels_take_little_more_than_few(rng: np.random.Generator) -> None:
    """The shapes are what costs: a label is spelled out once or twice for each cell."""
    few = draw_labels(np.random.default_rng(1), (1, 96, 96), 2**14, seeds=20)
    values, ranks = np.unique(few, return_inverse=True)
    ranks = ranks.reshape(few.shape).astype(np.uint16)
    assert len(encode_labels(few, 2**14)) < len(encode_labels(ranks, len(values))) + 250


def test_real_tissue_maps(shared_data: Path) -> None:
    folder = shared_data / "oasis" / "keras_png_slices_data"
    sizes = []
    for subject, index in [(402, 4), (421, 20), (440, 31)]:
        map_name, scan_name = (f"{kind}_{subject}_slice_{index}.nii.png" for kind in ("seg", "case"))
        tissues = np.asarray(Image.open(folder / "keras_png_slices_seg_validate" / map_name))
        scan = np.asarray(Image.open(folder / "keras_png_slices_validate" / scan_name))
        assert labels_in(tissues[None]) is not None
        assert labels_in(scan[None]) is None
        sizes.append(len(assert_inverse((tissues // 85).astype(np.uint16)[None], 4)))
    assert np.mean(sizes) < 850
