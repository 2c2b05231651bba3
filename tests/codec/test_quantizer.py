"""Latents <-> indices in integers."""

import numpy as np
import pytest
from numpy.typing import NDArray

from oasisvq.codec import quantizer as quantizer_module
from oasisvq.codec.quantizer import Quantizer
from oasisvq.errors import ModelError


def drawn(rng: np.random.Generator, *shape: int, size: int = 256) -> NDArray[np.int16]:
    return np.rint(size * rng.normal(size=shape)).astype(np.int16)


def latents_of(rng: np.random.Generator, *shape: int) -> NDArray[np.float32]:
    return np.rint(256 * rng.normal(size=shape)).astype(np.float32)


def energies(quantizer: Quantizer, latents: NDArray[np.floating], indices: NDArray[np.integer]) -> float:
    left = quantizer.dequantize(indices) - latents
    return float(np.square(left.astype(np.float64)).sum())


@pytest.mark.parametrize("size", [256, 6000], ids=["float32", "float64"])
@pytest.mark.parametrize(
    ("count", "dim", "codes"), [(1, 1, 2), (600, 1, 7), (300, 6, 20), (64, 33, 257)]
)
def test_the_nearest_code_is_that_of_brute_force(
    size: int, count: int, dim: int, codes: int, rng: np.random.Generator
) -> None:
    quantizer = Quantizer(drawn(rng, 1, codes, dim, size=size))
    vectors = latents_of(rng, count, dim)
    books = quantizer.codebooks[0].astype(np.int64)
    distances = np.square(vectors.astype(np.int64)[:, None] - books[None]).sum(2)
    index = quantizer.best(vectors, 0, 1)
    np.testing.assert_array_equal(index, distances.argmin(1))


def test_of_equally_near_codes_the_lower_index_is_taken(rng: np.random.Generator) -> None:
    codes = drawn(rng, 3, 40, 4)
    codes[:, 20:] = codes[:, :20][:, ::-1]  # each code twice
    quantizer = Quantizer(codes)
    indices = quantizer.quantize(latents_of(rng, 9, 9, 4), 3)
    assert indices.max() < 20
    two = Quantizer(np.array([[[30], [-30], [10], [-10]], [[20], [-20], [0], [0]]], np.int16))
    assert two.quantize(np.zeros((1, 1, 1), np.float32), 1)[0, 0, 0] == 2
    # 30 - 20 and 10 + 0 end equally far from 10
    assert two.quantize(np.full((1, 1, 1), 10, np.float32), 2)[:, 0, 0].tolist() == [0, 1]


def test_how_many_are_held_at_once_does_not_matter(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    quantizer, latents = Quantizer(drawn(rng, 3, 20, 6)), latents_of(rng, 11, 13, 6)
    whole = quantizer.quantize(latents, 3)
    monkeypatch.setattr(quantizer_module, "VECTORS_AT_ONCE", 10)
    np.testing.assert_array_equal(quantizer.quantize(latents, 3), whole)


def test_dequantize_is_the_sum_of_the_codes(rng: np.random.Generator) -> None:
    quantizer = Quantizer(drawn(rng, 3, 20, 6))
    indices = rng.integers(0, 20, (3, 4, 5))
    for levels in (1, 2, 3):
        expected = sum(quantizer.codebooks[k, indices[k, 3, 2]] for k in range(levels))
        np.testing.assert_array_equal(quantizer.dequantize(indices[:levels])[3, 2], expected)


def test_sums_of_codes_come_back_where_levels_do_not_overlap() -> None:
    coarse, middle, fine = (np.arange(10)[:, None] * step for step in (100, 10, 1))
    quantizer = Quantizer(np.stack([coarse, middle, fine]).astype(np.int16))
    numbers = np.array([0, 7, 42, 99, 500, 639, 999])
    digits = np.stack([numbers // 100, numbers // 10 % 10, numbers % 10])[:, None]
    latents = quantizer.dequantize(digits)
    np.testing.assert_array_equal(latents[0, :, 0], numbers)
    np.testing.assert_array_equal(quantizer.dequantize(quantizer.quantize(latents, 3)), latents)


def test_a_level_looks_ahead() -> None:
    quantizer = Quantizer(np.array([[[0], [100]], [[-40], [70]]], np.int16))
    latents = np.array([66, 40], np.float32).reshape(1, 2, 1)  # 66 lies nearer to 100, and to 0 + 70
    assert quantizer.quantize(latents, 1)[0, 0].tolist() == [1, 0]
    assert quantizer.quantize(latents, 2)[:, 0].T.tolist() == [[0, 1], [1, 0]]


def test_looking_ahead_comes_nearer_than_the_nearest_codes_do(rng: np.random.Generator) -> None:
    quantizer, latents = Quantizer(drawn(rng, 4, 20, 6)), latents_of(rng, 15, 17, 6)
    for levels in (2, 3, 4):
        left, greedy = latents.reshape(-1, 6), []
        for level in range(levels):
            greedy.append(quantizer.best(left, level, level + 1))
            left = left - quantizer.codebooks[level][greedy[-1]]
        plain = energies(quantizer, latents, np.stack(greedy).reshape(levels, 15, 17))
        assert energies(quantizer, latents, quantizer.quantize(latents, levels)) < 0.95 * plain


def test_costs_are_weighed_against_distances(rng: np.random.Generator) -> None:
    quantizer, vectors = Quantizer(drawn(rng, 2, 20, 6)), latents_of(rng, 50, 6)
    free = quantizer.best(vectors, 0, 2)
    dear = np.zeros((50, 20), np.float32)
    dear[np.arange(50), free] = 1e9
    assert not (quantizer.best(vectors, 0, 2, dear) == free).any()
    np.testing.assert_array_equal(
        quantizer.best(vectors, 0, 2, np.full((50, 20), 4096, np.float32)), free
    )
    only = np.full((50, 20), 1e9, np.float32)
    only[:, 7] = 0
    assert (quantizer.best(vectors, 1, 2, only) == 7).all()


def test_more_levels_lose_less(rng: np.random.Generator) -> None:
    quantizer = Quantizer(np.stack([drawn(rng, 20, 6, size=256 // 2**level) for level in range(5)]))
    latents = latents_of(rng, 9, 9, 6)
    lost = [energies(quantizer, latents, quantizer.quantize(latents, levels)) for levels in range(1, 6)]
    assert lost == sorted(lost, reverse=True)
    assert len(set(lost)) == 5


def test_a_query_changes_nothing(rng: np.random.Generator) -> None:
    quantizer, latents = Quantizer(drawn(rng, 3, 20, 6)), latents_of(rng, 5, 7, 6)
    state, asked = quantizer.codebooks.copy(), latents.copy()
    costs = np.zeros((35, 20), np.float32)
    quantizer.dequantize(quantizer.quantize(latents, 3))
    quantizer.best(latents.reshape(35, 6), 0, 3, costs)
    np.testing.assert_array_equal(latents, asked)
    np.testing.assert_array_equal(quantizer.codebooks, state)
    assert not costs.any()


def test_codebooks_too_large_for_exact_distances_are_refused() -> None:
    with pytest.raises(ModelError, match="too large for exact distances"):
        Quantizer(np.full((64, 2, 70_000), 32_767, np.int16))
