"""The slice before, in the entropy coder."""

import hashlib
import math

import numpy as np
import pytest
from numpy.typing import NDArray
from prior_driver import drawn_prior

from oasisvq.codec.entropy import GridDecoder, GridEncoder
from oasisvq.codec.frequencies import FREQUENCY_BITS, Frequencies, fewest_bits, frequencies_of
from oasisvq.codec.prior import Pass
from oasisvq.codec.recall import Recall
from oasisvq.errors import CodesFileError, ModelError

SHAPE = (3, 5, 6)
# The format is frozen: if this test fails, the change needs a new format version.
GOLDEN = "647e360c5fa045e0"


def codebooks(seed: int = 0) -> NDArray[np.float32]:
    return np.rint(1024 * np.random.default_rng(seed).normal(size=(3, 20, 6))).astype(np.float32)


def coded(grids: NDArray[np.integer], recall: Recall | None) -> bytes:
    encoder = GridEncoder(drawn_prior(), SHAPE, recall)
    for grid in grids:

        def given(step: Pass, _: Frequencies, grid: NDArray[np.integer] = grid) -> NDArray[np.uint16]:
            return grid[step.level, step.rows, step.columns].astype(np.uint16)

        np.testing.assert_array_equal(encoder.put(1, given), grid)
    return encoder.finish()


def decoded(payload: bytes, count: int) -> NDArray[np.uint16]:
    decoder = GridDecoder(payload, drawn_prior(), SHAPE, Recall(codebooks()))
    grids = np.array([decoder.take() for _ in range(count)])
    decoder.finish()
    return grids


def test_inverse_over_several_slices(rng: np.random.Generator) -> None:
    for count in (1, 2, 7):
        grids = rng.integers(0, 20, (count, *SHAPE))
        np.testing.assert_array_equal(decoded(coded(grids, Recall(codebooks())), count), grids)


def test_one_slice_is_coded_as_an_image(rng: np.random.Generator) -> None:
    grids = rng.integers(0, 20, (1, *SHAPE))
    assert coded(grids, Recall(codebooks())) == coded(grids, None)


def test_slices_that_stay_alike_become_cheap(rng: np.random.Generator) -> None:
    still = rng.integers(0, 20, SHAPE)[None].repeat(30, axis=0)
    changing = rng.integers(0, 20, (30, *SHAPE))
    alone = len(coded(still, None))
    assert len(coded(still, Recall(codebooks()))) < alone / 2
    assert len(coded(changing, Recall(codebooks()))) < 1.1 * len(coded(changing, None))


def test_the_bytes_are_fixed() -> None:
    grids = np.random.default_rng(2).integers(0, 20, (4, *SHAPE))
    grids[2:, :, :3] = grids[1, :, :3]
    payload = coded(grids, Recall(codebooks()))
    assert hashlib.sha256(payload).hexdigest()[:16] == GOLDEN


def test_frequencies_stay_whole_and_within_the_bound(rng: np.random.Generator) -> None:
    recall, prior = Recall(codebooks()), drawn_prior()
    grid = rng.integers(0, 20, SHAPE).astype(np.uint16)
    least = math.inf
    for _ in range(40):
        recall.begin(5, 6)
        for step in prior.schedule(*SHAPE):
            logits = rng.integers(-300, 1, (step.rows.size, 20))
            frequencies = recall.weigh(step, frequencies_of(logits))
            assert (frequencies >= 0).all()
            assert (frequencies.sum(1) == 2**FREQUENCY_BITS - 20).all()
            least = min(least, FREQUENCY_BITS - math.log2(int(frequencies.max()) + 1))
            recall.learn(step, grid[step.level, step.rows, step.columns])
    assert fewest_bits(20) <= least < 0.1


def test_a_change_of_the_grid_forgets_the_slice_before(rng: np.random.Generator) -> None:
    recall, prior = Recall(codebooks()), drawn_prior()
    for height, width in ((5, 6), (6, 5)):
        recall.begin(height, width)
        for step in prior.schedule(1, height, width):
            frequencies = frequencies_of(rng.integers(-300, 1, (step.rows.size, 20)))
            assert recall.weigh(step, frequencies) is frequencies
            recall.learn(step, rng.integers(0, 20, step.rows.size).astype(np.uint16))


def test_codebooks_too_large_to_be_summed_exactly_are_refused() -> None:
    with pytest.raises(ModelError, match="too large"):
        Recall(codebooks() * 1e5)


def test_every_damage_to_a_payload_is_found(rng: np.random.Generator) -> None:
    """A damaged payload is refused, or it is the one that other indices are coded to."""
    grids = rng.integers(0, 20, (3, *SHAPE))
    whole = coded(grids, Recall(codebooks()))
    damaged = [whole[:-1], whole + b"\0", b"", bytes(8)]
    for place in range(0, 8 * len(whole), 7):
        flipped = bytearray(whole)
        flipped[place // 8] ^= 1 << place % 8
        damaged.append(bytes(flipped))
    for payload in damaged:
        try:
            restored = decoded(payload, 3)
        except CodesFileError:
            continue
        assert (restored != grids).any()
