"""Latents <-> indices."""

import copy

import pytest
import torch
from torch import Tensor

from oasisvq.codec import quantizer as quantizer_module
from oasisvq.codec.quantizer import ResidualQuantizer, nearest, to_grid, to_vectors


def seeded(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def quantizer_of(codebooks: Tensor) -> ResidualQuantizer:
    quantizer = ResidualQuantizer(*codebooks.shape)
    quantizer.codebooks.copy_(codebooks)
    return quantizer


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
    monkeypatch.setattr(quantizer_module, "VECTORS_AT_ONCE", 10)
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
    indices = quantizer.quantize(seeded(batch, 6, height, width, seed=1), levels)
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
    assert torch.equal(quantizer.quantize(latents, 1), indices)
    assert torch.equal(quantizer.dequantize(quantizer.quantize(latents, 1)), latents)


def test_sums_of_codes_come_back_where_levels_do_not_overlap() -> None:
    coarse, middle, fine = (torch.arange(10)[:, None] * step for step in (100.0, 10.0, 1.0))
    quantizer = quantizer_of(torch.stack([coarse + 45, middle - 45, fine - 4.5]))  # digits
    numbers = torch.tensor([0, 7, 42, 99, 500, 639, 999])
    latents = (numbers + 0.0 - 4.5)[None, None, None]  # (1, 1, 1, 7)
    digits = torch.stack([numbers // 100, numbers // 10 % 10, numbers % 10])
    assert torch.equal(quantizer.quantize(latents, 3)[0, :, 0], digits)
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


def test_fewer_levels_are_a_prefix_of_more() -> None:
    quantizer = quantizer_of(seeded(4, 20, 6))
    latents = seeded(2, 6, 5, 7, seed=1)
    most = quantizer.quantize(latents, 4)
    for levels in (1, 2, 3):
        assert torch.equal(quantizer.quantize(latents, levels), most[:, :levels])


def test_more_levels_never_lose_more_where_each_codebook_has_a_zero() -> None:
    codebooks = seeded(5, 20, 6)
    codebooks[:, 3] = 0
    quantizer = quantizer_of(codebooks)
    latents = 2 * seeded(2, 6, 9, 9, seed=1)
    errors = torch.stack(
        [
            (quantizer.dequantize(quantizer.quantize(latents, levels)) - latents).square().sum(1)
            for levels in range(1, 6)
        ]
    )
    assert (errors[1:] <= errors[:-1] + 1e-5).all()
    assert errors[-1].mean() < errors[0].mean()


@pytest.mark.parametrize("training", [False, True])
def test_a_query_changes_nothing(training: bool) -> None:
    quantizer = quantizer_of(seeded(3, 20, 6)).train(training)
    latents = seeded(2, 6, 5, 7, seed=1)
    state, asked = copy.deepcopy(quantizer.state_dict()), latents.clone()
    indices = quantizer.quantize(latents, 3)
    given = indices.clone()
    quantizer.dequantize(indices)
    assert torch.equal(latents, asked)
    assert torch.equal(indices, given)
    assert quantizer.state_dict().keys() == state.keys()
    assert all(torch.equal(quantizer.state_dict()[name], state[name]) for name in state)
