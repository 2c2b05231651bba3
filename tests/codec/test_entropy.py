"""Indices <-> payload."""

import math
from dataclasses import replace

import constriction
import numpy as np
import pytest
from forged import damaged_copies
from numpy.typing import NDArray
from prior_driver import SMALL, drawn_arrays, drawn_prior

from oasisvq.codec import entropy
from oasisvq.codec import prior as prior_module
from oasisvq.codec.entropy import (
    bits_per_index,
    decode_with_prior,
    encode_with_prior,
    kind_in,
    most_indices,
    pack,
    packed_bytes,
    unpack,
)
from oasisvq.codec.frequencies import Frequencies, draw, fewest_bits, frequencies_of
from oasisvq.codec.prior import Pass, Prior
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


# by the prior


class Coded:
    """Indices (L, h, w) of a kind, coded by a prior, and the bits that its frequencies give them."""

    def __init__(self, prior: Prior, indices: NDArray[np.integer], kind: int = 1) -> None:
        self.bits = 24 - math.log2(int(prior.kind_frequencies[kind]) + 1)
        self.indices = indices

        def given(step: Pass, frequencies: Frequencies) -> NDArray[np.uint16]:
            chosen = indices[step.level, step.rows, step.columns]
            shares = frequencies[np.arange(len(chosen)), chosen] + 1
            self.bits += float((24 - np.log2(shares)).sum())
            return chosen.astype(np.uint16)

        self.payload, returned = encode_with_prior(prior, indices.shape, kind, given)
        np.testing.assert_array_equal(returned, indices)


def likely(prior: Prior, shape: tuple[int, int, int], seed: int) -> NDArray[np.uint16]:
    """Indices as the prior expects them."""
    generators = [np.random.default_rng(seed)]

    def choose(_: Pass, frequencies: Frequencies) -> NDArray[np.uint16]:
        return draw(frequencies, generators, 1.0)

    grids: NDArray[np.uint16] = prior.walk((1, *shape), np.array([1]), choose)[0]
    return grids


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 3, 1), (3, 5, 6), (3, 9, 11), (1, 2, 40)])
@pytest.mark.parametrize("kind", [0, 3])
def test_inverse_with_a_prior(shape: tuple[int, int, int], kind: int, rng: np.random.Generator) -> None:
    prior = drawn_prior()
    for indices in (rng.integers(0, 20, shape), likely(prior, shape, 3), np.full(shape, 19)):
        coded = Coded(prior, indices, kind)
        restored = decode_with_prior(coded.payload, prior, shape)
        assert restored.dtype == np.uint16
        np.testing.assert_array_equal(restored, indices)
        assert kind_in(coded.payload, prior) == kind


def test_the_payload_is_as_short_as_the_prior_is_right(rng: np.random.Generator) -> None:
    prior = drawn_prior()
    for seed in range(20):
        shape = 3, int(rng.integers(1, 7)), int(rng.integers(1, 8))
        for indices in (likely(prior, shape, seed), rng.integers(0, 20, shape)):
            coded = Coded(prior, indices)
            assert coded.bits / 8 - 1 < len(coded.payload) <= coded.bits / 8 + 2
    shape = 3, 9, 11
    assert len(Coded(prior, likely(prior, shape, 0)).payload) < packed_bytes(3 * 9 * 11, 20)


# The format is frozen: if this test fails, the change needs a new format version.
GOLDEN_PAYLOAD = "e40a0bc0cdc8702fad5acbba1f4b909a4bee021be6706a0ba5789f92aa573bb36c48bcef29e6c5b553565a"


def test_the_bytes_of_a_prior_coded_payload_are_fixed() -> None:
    indices = np.random.default_rng(2).integers(0, 20, (2, 4, 5))
    assert Coded(drawn_prior(), indices).payload.hex() == GOLDEN_PAYLOAD


def test_passes_in_parts_give_the_same_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    indices = np.random.default_rng(2).integers(0, 20, (3, 9, 11))
    prior = drawn_prior()
    whole = Coded(prior, indices).payload
    monkeypatch.setattr(prior_module, "CELLS_AT_ONCE", 4)
    assert max(step.rows.size for step in prior.schedule(3, 9, 11)) == 4
    assert Coded(prior, indices).payload == whole
    np.testing.assert_array_equal(decode_with_prior(whole, prior, (3, 9, 11)), indices)


def test_a_code_takes_exactly_its_share(rng: np.random.Generator) -> None:
    """As the module's docstring says: f + 1 of 2^24, in the order of the codes."""
    model = constriction.stream.model.Categorical(perfect=False)
    unit = (2**64 - 1) >> 24
    for size in (2, 3, 256, 1000):
        for _ in range(60):
            frequencies = frequencies_of(rng.integers(-300, 1, (1, size)))
            code = int(rng.integers(size))
            coder = constriction.stream.queue.RangeEncoder()
            coder.encode(np.array([code], np.int32), model, frequencies.astype(np.float32))
            words, (low, extent) = coder.pos()
            share = unit * (int(frequencies[0, code]) + 1)
            below = unit * (int(frequencies[0, :code].sum()) + code)
            assert (words, low, extent) == (0, below, share)


def test_no_other_payload_gives_the_same_indices(rng: np.random.Generator) -> None:
    """A damaged payload is refused, or it is the one that other indices are coded to."""
    prior, shape = drawn_prior(), (2, 4, 5)
    coded = Coded(prior, likely(prior, shape, 1))
    whole = coded.payload
    damaged = list(damaged_copies(whole))
    damaged += [whole + bytes([byte]) for byte in range(5, 256, 5)] + [whole + bytes(4)]
    damaged += [rng.bytes(int(length)) for length in rng.integers(0, 30, 40)]
    damaged += [b"\xff" * length for length in (1, 4, 8, 40)]
    refused = 0
    for payload in damaged:
        try:
            restored = decode_with_prior(payload, prior, shape)
        except CodesFileError:
            refused += 1
            continue
        assert (restored != coded.indices).any()
        assert Coded(prior, restored, kind_in(payload, prior)).payload == payload
    assert refused > len(damaged) // 2


@pytest.mark.parametrize("end", [b"\0", bytes(3), bytes(8), bytes(400)])
def test_zeros_behind_a_payload_are_refused(end: bytes) -> None:
    prior = drawn_prior()
    coded = Coded(prior, likely(prior, (2, 4, 5), 1))
    with pytest.raises(CodesFileError, match="does not end where its indices end"):
        decode_with_prior(coded.payload + end, prior, (2, 4, 5))


def test_an_empty_grid_has_no_payload() -> None:
    prior = drawn_prior()
    assert decode_with_prior(b"", prior, (2, 0, 0)).shape == (2, 0, 0)
    with pytest.raises(CodesFileError):
        decode_with_prior(b"\0", prior, (2, 0, 0))


@pytest.mark.parametrize("size", [2, 20])
def test_the_bound_on_indices_holds_for_the_likeliest_of_all(size: int) -> None:
    config = replace(SMALL, codebook_size=size)
    arrays = drawn_arrays(config, np.random.default_rng(0))
    for level in (1, 2, 3):
        bias = np.full(size, -(2**31))
        bias[1] = 2**31 - 1
        arrays[f"level{level}.output.bias"] = bias.astype(np.int32)
    coded = Coded(Prior(config, arrays), np.ones((3, 30, 40), np.uint16))
    assert len(coded.payload) < 4
    assert most_indices(len(coded.payload), size) >= 3 * 30 * 40
    assert fewest_bits(size) * 3 * 30 * 40 < coded.bits < fewest_bits(size) * 3 * 30 * 40 + 24
    assert most_indices(100, 256) < 8 * 116 / fewest_bits(256) + 2
