"""The prior as it learns: what it imitates, and what becomes of it."""

import math

import numpy as np
import pytest
import torch
from conftest import TINY_PRIOR, TINY_PRIOR_OF_VOLUMES, tiny_kinds, tiny_network

from oasisvq.codec.exact import EXACT, largest_sum, symmetric
from oasisvq.codec.frequencies import FREQUENCY_BITS
from oasisvq.codec.prior import as_features, order_of, pooled
from oasisvq.training.prior_network import (
    Kinds,
    LevelNetwork,
    RoundedLinear,
    kinds_of,
    rounded_activations,
    rounded_features,
)
from oasisvq.training.prior_training import PriorStep, _Cells, bits_of_levels, new_network, spread

HALF_A_STEP = 1 / 32  # of a logit, whose step is 1/16 octave


def indices_of(rng: np.random.Generator, batch: int = 6) -> np.ndarray:
    return rng.integers(0, 20, (batch, 3, 5, 6)).astype(np.uint16)


def test_it_computes_what_the_integers_will(rng: np.random.Generator) -> None:
    network = tiny_network()
    prior = network.prior(tiny_kinds())
    indices, kinds = indices_of(rng), rng.integers(0, 4, 6)
    for step in prior.schedule(3, 5, 6):
        level = network.levels[step.level]
        count = step.rows.size
        targets = (
            torch.arange(6).repeat_interleave(count),
            torch.from_numpy(step.rows).repeat(6),
            torch.from_numpy(step.columns).repeat(6),
        )
        known = torch.from_numpy(step.known)[None].expand(6, -1, -1)
        with torch.no_grad():
            floating = level(
                torch.from_numpy(indices.astype(np.int64)), torch.from_numpy(kinds), known, targets
            ).numpy()
        whole = prior.logits(indices, kinds, step) / 16
        difference = np.abs(floating - whole)
        assert whole.std() > 0.3
        assert difference.mean() < HALF_A_STEP
        assert difference.max() < 0.25


def test_expected_latents_say_the_same_to_both(rng: np.random.Generator) -> None:
    network = tiny_network(TINY_PRIOR_OF_VOLUMES)
    prior = network.prior(tiny_kinds(TINY_PRIOR_OF_VOLUMES))
    indices, kinds = indices_of(rng)[:, :2], rng.integers(0, 4, 6)
    latents = rng.integers(-600, 600, (6, 5, 6, 6)).astype(np.float32)
    for step in prior.schedule(2, 5, 6):
        count = step.rows.size
        targets = (
            torch.arange(6).repeat_interleave(count),
            torch.from_numpy(step.rows).repeat(6),
            torch.from_numpy(step.columns).repeat(6),
        )
        known = torch.from_numpy(step.known)[None].expand(6, -1, -1)
        given = torch.from_numpy(indices.astype(np.int64)), torch.from_numpy(kinds), known, targets
        with torch.no_grad():
            floating = network.levels[step.level](*given, torch.from_numpy(as_features(latents))).numpy()
        whole = prior.logits(indices, kinds, step, latents) / 16
        assert np.abs(floating - whole).mean() < HALF_A_STEP
        assert (whole * 16 != prior.logits(indices, kinds, step)).any()


def test_bits_of_a_training_step_are_those_of_the_integers(rng: np.random.Generator) -> None:
    network = tiny_network()
    indices, kinds = indices_of(rng, 32), rng.integers(0, 4, 32)
    step = PriorStep(network, (5, 6), "float32", targets=30)
    draws = torch.rand(32 * 20, 3, 2, generator=torch.Generator().manual_seed(1))
    often = np.tile(indices.astype(np.int64), (20, 1, 1, 1)), np.tile(kinds, 20)
    with torch.no_grad():
        found = step(*map(torch.from_numpy, often), draws)
    expected = bits_of_levels(network.prior(tiny_kinds()), indices, kinds) / (32 * 5 * 6)
    np.testing.assert_allclose(found.numpy(), expected, rtol=0.05)


@pytest.mark.parametrize("passes", [1, 2, 8, 12])
def test_targets_are_cells_of_one_pass_drawn_evenly(passes: int) -> None:
    cells = _Cells((5, 6), passes)
    draws = torch.rand(4000, 3, generator=torch.Generator().manual_seed(2))
    draws[0], draws[1] = 0, 1 - 2**-24
    known, (sample, row, column) = cells(draws)
    order = torch.from_numpy(order_of(5, 6, passes))
    number = order[row, column].reshape(4000, 3)
    assert (number == number[:, :1]).all()
    assert torch.equal(known, order < number[:, :1, None])
    assert torch.equal(sample, torch.arange(4000).repeat_interleave(3))
    counts = np.bincount((row * 6 + column).numpy(), minlength=30)
    assert counts.min() > 0.7 * counts.mean()
    assert counts.max() < 1.3 * counts.mean()


def test_two_draws_become_targets_that_are_each_as_even_as_a_draw() -> None:
    draws = torch.rand(4000, 2, generator=torch.Generator().manual_seed(2))
    places = spread(draws, 7)
    assert places.shape == (4000, 7)
    assert torch.equal(places[:, :2], draws)
    assert (places >= 0).all()
    assert (places < 1).all()
    for place in places.T:
        assert np.histogram(place, 10, (0, 1))[0].min() > 300
    gaps = places[:, 1:].sort(1).values.diff()
    torch.testing.assert_close(gaps, torch.full_like(gaps, 1 / 6))
    assert torch.equal(spread(draws, 1), draws[:, :1])


@pytest.mark.parametrize("inputs", [1, 10, 1040, 1041, 3000, 20_000])
@pytest.mark.parametrize("kind", ["constant", "alternating", "drawn", "one", "zero", "tiny"])
def test_no_sum_of_rounded_weights_reaches_the_limit(inputs: int, kind: str) -> None:
    layer = RoundedLinear(inputs, 2, 1.0)
    with torch.no_grad():
        if kind == "constant":
            layer.weight.fill_(0.37)
        elif kind == "alternating":
            layer.weight.fill_(3.0)[:, ::2] *= -1
        elif kind == "one":
            layer.weight.zero_()[:, -1] = 100.0
        elif kind == "zero":
            layer.weight.zero_()
        elif kind == "tiny":
            layer.weight.fill_(1e-20)
    whole = layer.integers(32, 64)
    units = layer.units().double()
    exact = (layer.weight.detach().double() * units).round()
    np.testing.assert_array_equal(whole["weight"], exact.numpy())  # none was cut off at 8 bits
    assert largest_sum(whole["weight"], symmetric(127)) < EXACT
    assert exact.abs().max() <= 127
    if kind == "one" or (kind in ("constant", "drawn") and inputs <= 1040):
        assert exact.abs().max() >= 126  # and no bit was wasted


def test_gradients_reach_every_parameter(rng: np.random.Generator) -> None:
    network = tiny_network()
    step = PriorStep(network, (5, 6), "float32", targets=30)
    draws = torch.rand(16, 3, 2, generator=torch.Generator().manual_seed(1))
    indices = torch.from_numpy(indices_of(rng, 16).astype(np.int64))
    step(indices, torch.arange(16) % 4, draws).sum().backward()
    for name, parameter in network.named_parameters():
        if parameter.numel():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
            assert parameter.grad.any(), name


def test_a_few_steps_learn_a_pattern() -> None:
    """Columns that repeat: after the first passes every cell is known from its neighbours."""
    network = new_network(TINY_PRIOR, 3)
    step = PriorStep(network, (5, 6), "float32", targets=8)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2)
    generator = torch.Generator().manual_seed(4)
    losses = []
    for _ in range(60):
        column = torch.randint(0, 20, (16, 3, 1, 1), generator=generator)
        indices = column.expand(16, 3, 5, 6)
        draws = torch.rand(16, 3, 2, generator=generator)
        loss = step(indices, torch.zeros(16, dtype=torch.int64), draws).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(math.log2(20), abs=0.6)
    assert np.mean(losses[-5:]) < 0.75 * losses[0]


def test_rounding_stays_in_range_and_passes_gradients() -> None:
    # none at a bound: there torch 2.13 passes the gradient of `clamp`, and 2.15 does not
    values = torch.tensor([-9.0, -0.01, 0.01, 0.04, 3.0, 100.0], requires_grad=True)
    activations = rounded_activations(values)
    assert activations.tolist() == [0, 0, 0, 1 / 16, 3, 127 / 16]
    activations.sum().backward()
    assert values.grad is not None
    assert values.grad.tolist() == [0, 0, 1, 1, 1, 0]
    assert rounded_features(values).tolist() == [-127 / 32, 0, 0, 1 / 32, 3, 127 / 32]


# kinds


def test_kinds_are_clusters() -> None:
    generator = torch.Generator().manual_seed(0)
    centres = torch.eye(4).repeat(1, 14)[:, :54] * 2
    members = torch.arange(80) % 4
    latents = centres[members] + 0.05 * torch.randn(80, 54, generator=generator)
    kinds = min(  # the start is drawn, and may be unlucky
        (kinds_of(latents, 4, torch.Generator().manual_seed(seed)) for seed in range(5)),
        key=lambda found: float(torch.cdist(latents, found.centres).amin(1).sum()),
    )
    assert sorted(kinds.counts.tolist()) == [20] * 4
    nearest = kinds.nearest(latents)
    for kind in range(4):
        assert len(set(nearest[members == kind].tolist())) == 1


def test_there_may_be_fewer_slices_than_kinds() -> None:
    latents = torch.randn(3, 54, generator=torch.Generator().manual_seed(0))
    kinds = kinds_of(latents, 10, torch.Generator().manual_seed(1))
    assert kinds.centres.shape == (10, 54)
    assert kinds.counts.sum() == 3
    assert kinds.centres.isfinite().all()
    whole = kinds.integers()["kinds.frequency"]
    assert whole.sum() == 2**FREQUENCY_BITS - 10
    assert whole.min() > 0  # none is impossible


def test_a_prior_finds_the_kind_that_was_trained_on(rng: np.random.Generator) -> None:
    kinds = tiny_kinds()
    prior = tiny_network().prior(kinds)
    latents = np.rint(256 * rng.normal(size=(20, 5, 6, 6))).astype(np.float32)
    found = kinds.nearest(torch.from_numpy(pooled(latents) / 256))
    assert found.tolist() == [prior.kind_of(each) for each in latents]
    assert len(set(found.tolist())) > 1


def test_shares_of_kinds_follow_their_counts() -> None:
    frequencies = Kinds(torch.zeros(3, 54), torch.tensor([0.0, 5.0, 11.0])).integers()
    shares = frequencies["kinds.frequency"] / 2**FREQUENCY_BITS
    np.testing.assert_allclose(shares, [1 / 19, 6 / 19, 12 / 19], atol=1e-5)


def test_codes_start_with_features_by_their_vectors() -> None:
    network = tiny_network()
    codebooks = torch.randn(3, 20, 6, generator=torch.Generator().manual_seed(0))
    network.start_with_codebooks(codebooks)
    first, second = network.levels[0], network.levels[1]
    assert isinstance(first, LevelNetwork)
    assert isinstance(second, LevelNetwork)
    expected = codebooks[0] / codebooks[0].std() / 2
    torch.testing.assert_close(first.current.detach(), expected)
    torch.testing.assert_close(second.lower[0], first.current)
    assert 0.4 < first.current.std().item() < 0.6
