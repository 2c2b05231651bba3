"""Indices <-> payload."""

import numpy as np
import pytest

from oasisvq.codec import entropy
from oasisvq.codec.entropy import bits_per_index, pack, packed_bytes, unpack
from oasisvq.errors import CodesFileError

LARGEST = 65_535


def test_unpack_is_the_inverse_of_pack_for_every_codebook_size(rng: np.random.Generator) -> None:
    shares = rng.random(7)
    for size in range(2, LARGEST + 1):
        indices = (shares * size).astype(np.uint16)
        indices[2], indices[5] = size - 1, 0
        payload = pack(indices, size)
        assert len(payload) == -(-7 * (size - 1).bit_length() // 8), size
        assert unpack(payload, size, 7).tobytes() == indices.tobytes(), size


@pytest.mark.parametrize("size", [2, 3, 20, 255, 256, 257, 1000, 1024, 32_769, LARGEST])
@pytest.mark.parametrize("shape", [(0,), (1,), (7,), (8,), (9,), (3, 0, 0), (1, 1, 1), (3, 5, 7)])
def test_inverse_on_random_grids(size: int, shape: tuple[int, ...], rng: np.random.Generator) -> None:
    indices = rng.integers(0, size, shape)
    payload = pack(indices, size)
    assert len(payload) == packed_bytes(indices.size, size)
    restored = unpack(payload, size, indices.size)
    assert restored.dtype == np.uint16
    np.testing.assert_array_equal(restored, indices.reshape(-1))


@pytest.mark.parametrize("count", [15, 16, 17, 47, 48, 49, 100])
def test_parts_make_no_difference(
    count: int, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    indices = rng.integers(0, 1000, count)
    whole = pack(indices, 1000)
    monkeypatch.setattr(entropy, "_INDICES_AT_ONCE", 16)
    assert pack(indices, 1000) == whole
    np.testing.assert_array_equal(unpack(whole, 1000, count), indices)


def test_more_indices_than_are_held_at_once(rng: np.random.Generator) -> None:
    indices = rng.integers(0, 5, entropy._INDICES_AT_ONCE + 3)
    np.testing.assert_array_equal(unpack(pack(indices, 5), 5, indices.size), indices)


@pytest.mark.parametrize(
    ("size", "bits"),
    [(2, 1), (3, 2), (4, 2), (5, 3), (1024, 10), (1025, 11), (32_768, 15), (LARGEST, 16)],
)
def test_bits_are_the_logarithm_rounded_up(size: int, bits: int) -> None:
    assert bits_per_index(size) == bits


@pytest.mark.parametrize(
    ("indices", "size", "payload"),
    [
        ([1, 0, 1, 1], 2, "b0"),
        ([1, 2, 3], 5, "29 80"),  # 001 010 011 + zeros
        ([19, 0, 7], 20, "98 0e"),  # 10011 00000 00111 + 0
        ([0x123, 0x3FF], 1024, "48 ff f0"),
        ([65_534, 1], LARGEST, "ff fe 00 01"),
    ],
)
def test_the_bits_are_fixed(indices: list[int], size: int, payload: str) -> None:
    assert pack(np.array(indices), size) == bytes.fromhex(payload)


@pytest.mark.parametrize("length", [0, 1, 3, 400])
def test_a_payload_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(CodesFileError, match=f"payload of {length} bytes, expected 2"):
        unpack(bytes(length), 20, 3)


def test_no_indices_have_no_payload() -> None:
    with pytest.raises(CodesFileError, match="payload of 1 bytes, expected 0"):
        unpack(b"\0", 20, 0)


@pytest.mark.parametrize("index", [20, 21, 31])
@pytest.mark.parametrize("place", [0, 5, 7])
def test_an_index_out_of_range_is_refused(index: int, place: int) -> None:
    indices = np.full(8, 19)
    indices[place] = index
    payload = pack(indices, 32)  # as many bits an index as for 20 codes
    with pytest.raises(CodesFileError, match=f"index {index} in the payload.* 20 codes"):
        unpack(payload, 20, 8)


@pytest.mark.parametrize("bit", range(4))
def test_the_last_byte_must_be_filled_with_zeros(bit: int) -> None:
    payload = bytearray(pack(np.full(12, 19), 20))  # 60 bits, so 4 fill the last byte
    payload[-1] |= 1 << bit
    with pytest.raises(CodesFileError, match="not filled with zeros"):
        unpack(bytes(payload), 20, 12)
