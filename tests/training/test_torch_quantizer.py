"""Latents <-> indices."""

import copy

import pytest
import torch
from torch import Tensor

from oasisvq.training import quantizer as quantizer_module
from oasisvq.training.quantizer import ResidualQuantizer, best, nearest, to_grid, to_vectors


def seeded(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def quantizer_of(codebooks: Tensor) -> ResidualQuantizer:
    quantizer = ResidualQuantizer(*codebooks.shape)
    quantizer.codebooks.copy_(codebooks)
    return quantizer


def quantize(quantizer: ResidualQuantizer, latents: Tensor, levels: int) -> Tensor:
    return quantizer.quantize(latents, torch.full((len(latents),), levels))[:, :levels]


@pytest.mark.parametrize(
    ("count", "dim", "codes"), [(1, 1, 2), (500, 1, 7), (300, 6, 20), (64, 33, 257)]
)
def test_nearest_is_what_brute_force_finds(count: int, dim: int, codes: int) -> None:
    vectors, codebook = seeded(count, dim), seeded(codes, dim, seed=1)
    distances = (vectors.double()[:, None] - codebook.double()[None]).square().sum(2)  # (N, K)
    index = nearest(vectors, codebook)
    assert index.dtype == torch.int64
    assert torch.equal(index, distances.argmin(1))


def test_nearest_does_not_depend_on_how_many_are_held_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, codebook = seeded(101, 6), seeded(20, 6, seed=1)
    whole = nearest(vectors, codebook)
    monkeypatch.setattr(quantizer_module, "VECTORS_IN_CACHE", 10)
    assert torch.equal(nearest(vectors, codebook), whole)


def test_nearest_computes_in_float32_under_autocast() -> None:
    codebook = torch.linspace(1, 1.2, 50)[:, None]  # bfloat16 has steps of 1/128 here
    vectors = codebook.flip(0).contiguous()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        index = nearest(vectors, codebook)
    assert torch.equal(codebook[index], vectors)


def test_vectors_and_grid_are_inverses() -> None:
    latents = seeded(2, 6, 3, 5)
    vectors = to_vectors(latents)
    assert torch.equal(vectors[2 * 5 + 4], latents[0, :, 2, 4])
    assert torch.equal(vectors[3 * 5 + 1], latents[1, :, 0, 1])
    assert torch.equal(to_grid(vectors, 2, 3, 5), latents)


@pytest.mark.parametrize("levels", [1, 2, 3])
@pytest.mark.parametrize(("batch", "height", "width"), [(1, 1, 1), (2, 5, 7)])
def test_shapes_and_range(levels: int, batch: int, height: int, width: int) -> None:
    quantizer = quantizer_of(seeded(3, 20, 6))
    indices = quantize(quantizer, seeded(batch, 6, height, width, seed=1), levels)
    assert indices.shape == (batch, levels, height, width)
    assert indices.dtype == torch.int64
    assert indices.min() >= 0
    assert indices.max() < 20
    latents = quantizer.dequantize(indices)
    assert latents.shape == (batch, 6, height, width)
    assert latents.dtype == torch.float32


def test_exact_code_vectors_come_back_as_their_own_index() -> None:
    quantizer = quantizer_of(seeded(1, 20, 6))
    indices = torch.arange(20).reshape(1, 1, 4, 5)
    latents = quantizer.dequantize(indices)
    assert torch.equal(latents[0, :, 2, 3], quantizer.codebooks[0, 13])
    assert torch.equal(quantize(quantizer, latents, 1), indices)
    assert torch.equal(quantizer.dequantize(quantize(quantizer, latents, 1)), latents)


def test_sums_of_codes_come_back_where_levels_do_not_overlap() -> None:
    coarse, middle, fine = (torch.arange(10)[:, None] * step for step in (100.0, 10.0, 1.0))
    quantizer = quantizer_of(torch.stack([coarse + 45, middle - 45, fine - 4.5]))  # digits
    numbers = torch.tensor([0, 7, 42, 99, 500, 639, 999])
    latents = (numbers + 0.0 - 4.5)[None, None, None]  # (1, 1, 1, 7)
    digits = torch.stack([numbers // 100, numbers // 10 % 10, numbers % 10])
    assert torch.equal(quantize(quantizer, latents, 3)[0, :, 0], digits)
    assert torch.equal(quantizer.dequantize(digits[None, :, None]), latents)


def test_dequantize_is_the_sum_of_the_codes() -> None:
    quantizer = quantizer_of(seeded(3, 20, 6))
    indices = torch.randint(20, (2, 3, 4, 5), generator=torch.Generator().manual_seed(2))
    latents = quantizer.dequantize(indices)
    for level_count in (1, 2, 3):
        kept = quantizer.dequantize(indices[:, :level_count])
        expected = sum(quantizer.codebooks[k, indices[1, k, 3, 2]] for k in range(level_count))
        torch.testing.assert_close(kept[1, :, 3, 2], expected)
    assert not torch.equal(latents, kept * 0)


def greedy(quantizer: ResidualQuantizer, latents: Tensor, levels: int) -> Tensor:
    residual, indices = to_vectors(latents), []
    for codebook in quantizer.codebooks[:levels]:
        indices.append(nearest(residual, codebook))
        residual = residual - codebook[indices[-1]]
    batch, _, height, width = latents.shape
    return torch.stack(indices).reshape(levels, batch, height, width).transpose(0, 1)


def test_a_level_looks_ahead() -> None:
    codebooks = torch.tensor([[[0.0], [10.0]], [[-4.0], [7.0]]])  # 6.6 lies nearer to 10, and to 0 + 7
    quantizer = quantizer_of(codebooks)
    latents = torch.tensor([6.6, 4.0])[None, None, None]
    assert quantize(quantizer, latents, 1)[0, 0, 0].tolist() == [1, 0]
    assert quantize(quantizer, latents, 2)[0, :, 0].T.tolist() == [[0, 1], [1, 0]]


def test_looking_ahead_comes_nearer_than_the_nearest_codes_do() -> None:
    quantizer = quantizer_of(seeded(4, 20, 6))
    latents = seeded(2, 6, 15, 17, seed=1)
    for levels in (2, 3, 4):
        ahead, plain = (
            (quantizer.dequantize(indices) - latents).square().sum(1)
            for indices in (quantize(quantizer, latents, levels), greedy(quantizer, latents, levels))
        )
        assert ahead.mean() < 0.95 * plain.mean()
    assert torch.equal(quantize(quantizer, latents, 1), greedy(quantizer, latents, 1))


def test_each_image_is_quantized_for_the_levels_kept_of_it() -> None:
    quantizer = quantizer_of(seeded(4, 20, 6))
    latents = seeded(4, 6, 5, 7, seed=1)
    kept = [3, 1, 4, 1]
    together = quantizer.quantize(latents, torch.tensor(kept))
    assert together.shape == (4, 4, 5, 7)
    for image, levels in enumerate(kept):
        alone = quantize(quantizer, latents[image : image + 1], levels)
        assert torch.equal(together[image, :levels], alone[0])
        left = latents[image : image + 1] - quantizer.dequantize(alone)
        if levels < 4:
            above = nearest(to_vectors(left), quantizer.codebooks[levels])
            assert torch.equal(together[image, levels].reshape(-1), above)


def test_costs_are_weighed_against_distances() -> None:
    codebooks = seeded(2, 20, 6)
    vectors = seeded(50, 6, seed=1)
    free = best(vectors, codebooks)
    dear = torch.zeros(50, 20).scatter_(1, free[:, None], 1e6)
    assert not (best(vectors, codebooks, dear) == free).any()
    assert torch.equal(best(vectors, codebooks, torch.full((50, 20), 3.0)), free)
    only = torch.full((50, 20), 1e6)
    only[:, 7] = 0
    assert (best(vectors, codebooks[1:], only) == 7).all()


def test_more_levels_lose_less() -> None:
    quantizer = quantizer_of(torch.stack([seeded(20, 6, seed=level) / 2**level for level in range(5)]))
    latents = 2 * seeded(2, 6, 9, 9, seed=9)
    errors = [
        (quantizer.dequantize(quantize(quantizer, latents, levels)) - latents).square().mean().item()
        for levels in range(1, 6)
    ]
    assert errors == sorted(errors, reverse=True)
    assert len(set(errors)) == 5


@pytest.mark.parametrize("training", [False, True])
def test_a_query_changes_nothing(training: bool) -> None:
    quantizer = quantizer_of(seeded(3, 20, 6)).train(training)
    latents = seeded(2, 6, 5, 7, seed=1)
    state, asked = copy.deepcopy(quantizer.state_dict()), latents.clone()
    indices = quantize(quantizer, latents, 3)
    given = indices.clone()
    quantizer.dequantize(indices)
    assert torch.equal(latents, asked)
    assert torch.equal(indices, given)
    assert quantizer.state_dict().keys() == state.keys()
    assert all(torch.equal(quantizer.state_dict()[name], state[name]) for name in state)
