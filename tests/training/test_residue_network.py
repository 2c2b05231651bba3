"""The networks of residues as they learn: what they imitate, and what becomes of them."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from oasisvq.codec import residue_networks
from oasisvq.codec.exact import EXACT, largest_sum, symmetric
from oasisvq.codec.residue_config import ResidueConfig, SupportConfig
from oasisvq.training.residue_network import (
    ResidueNetwork,
    StepLinear,
    SupportNetwork,
    mixture_bits,
    support_bits,
)

RESIDUE = ResidueConfig(reach=(3, 2, 2), window=1, slices_before=1, hidden=24, blocks=2, components=3)
SUPPORT = SupportConfig(reach=(3, 2, 2), window=1, slices_before=1, hidden=(16, 12))


def seeded(network: type, config: object, spread: float = 1.0) -> nn.Module:
    """A network with random weights and biases; larger ones saturate what is clipped."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        made: nn.Module = network(config)
        with torch.no_grad():
            for layer in made.modules():
                if isinstance(layer, StepLinear):
                    layer.weight.copy_(torch.randn_like(layer.weight) * spread / 4)
                    layer.bias.normal_(std=spread)
    return made


def inputs_of(rng: np.random.Generator, kind: str, count: int) -> np.ndarray:
    shape = 400, count
    if kind == "drawn":
        return rng.integers(-127, 128, shape).astype(np.float32)
    if kind == "extreme":
        return (rng.integers(0, 2, shape) * 254 - 127).astype(np.float32)
    return np.zeros(shape, np.float32)


@pytest.mark.parametrize("inputs", ["drawn", "extreme", "zero"])
@pytest.mark.parametrize("spread", [0.01, 1.0, 30.0])
def test_the_residue_computes_what_the_integers_will(
    rng: np.random.Generator, inputs: str, spread: float
) -> None:
    network = seeded(ResidueNetwork, RESIDUE, spread)
    assert isinstance(network, ResidueNetwork)
    whole = residue_networks.ResidueNetwork(RESIDUE, network.integers())
    seen = inputs_of(rng, inputs, RESIDUE.inputs)
    with torch.no_grad():
        floating = network(torch.from_numpy(seen)).numpy()
    expected = whole.seeing(np.ones(RESIDUE.inputs, np.bool_))(seen)
    assert inputs == "zero" or expected.std() > 0.1
    np.testing.assert_array_equal(floating, expected)


@pytest.mark.parametrize("inputs", ["drawn", "extreme", "zero"])
@pytest.mark.parametrize("spread", [0.01, 1.0, 30.0])
def test_the_support_computes_what_the_integers_will(
    rng: np.random.Generator, inputs: str, spread: float
) -> None:
    network = seeded(SupportNetwork, SUPPORT, spread)
    assert isinstance(network, SupportNetwork)
    whole = residue_networks.SupportNetwork(SUPPORT, network.integers())
    seen = inputs_of(rng, inputs, SUPPORT.inputs)
    with torch.no_grad():
        floating = network(torch.from_numpy(seen)).numpy()
    np.testing.assert_array_equal(floating, whole(seen))


@pytest.mark.parametrize("kind", ["constant", "alternating", "drawn", "one", "zero", "tiny", "huge"])
def test_weights_fit_8_bits_and_waste_at_most_one(kind: str) -> None:
    layer = StepLinear(300, 2, 1.0, 32, 64)
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
        elif kind == "huge":
            layer.weight.fill_(1e8)
    whole = layer.integers("layer")["layer.weight"]
    exact = (layer.weight.detach().double() * layer.steps().double()).round().numpy()
    np.testing.assert_array_equal(whole, exact)  # none was cut off
    assert largest_sum(whole, symmetric(127)) < EXACT
    if kind not in ("zero", "tiny"):
        assert np.abs(whole).max() >= 63


def test_a_mixture_gives_all_bins_of_a_slice_what_there_is() -> None:
    """Over all bins from the least to the greatest, shares add up to about 1, whatever the mixture."""
    mixture = torch.tensor([[0.0, 16, -16, 40, -100, 5, -30, 0, 20]])
    bins = torch.arange(-3.0, 9.0)
    every = torch.ones_like(bins)
    bits = mixture_bits(
        mixture.expand(len(bins), -1), every * 2, every * 1.5, bins, every * -3, every * 8
    )
    assert float(torch.exp2(-bits).sum()) == pytest.approx(1, abs=3e-3)


def test_a_narrow_mixture_costs_little_at_its_centre_and_much_elsewhere() -> None:
    mixture = torch.tensor([[0.0, 0, 0, 64, 64, 64, -60, -60, -60]]).expand(2, -1)
    ones = torch.ones(2)
    bins = torch.tensor([7.0, 20.0])  # the centre is 5 + 2 · 64/64
    bits = mixture_bits(mixture, ones * 5, ones * 2, bins, ones * 0, ones * 99)
    assert bits[0] < 0.2
    assert 10 < bits[1] < 17


def test_bits_of_the_support_are_those_of_its_logits() -> None:
    logits = torch.tensor([0.0, 256.5, -256.5, 2565.0])
    bits = support_bits(logits, torch.tensor([1.0, 1, 1, 0]))
    odds = math.e
    expected = [1, -math.log2(odds / (1 + odds)), -math.log2(1 / (1 + odds)), math.log2(1 + odds**10)]
    np.testing.assert_allclose(bits.numpy(), expected, rtol=1e-3)


@pytest.mark.parametrize(("network", "config"), [(ResidueNetwork, RESIDUE), (SupportNetwork, SUPPORT)])
def test_gradients_reach_every_parameter(
    rng: np.random.Generator, network: type, config: ResidueConfig | SupportConfig
) -> None:
    learning = seeded(network, config, 0.5)
    seen = torch.from_numpy(inputs_of(rng, "drawn", config.inputs))
    learning(seen).square().mean().backward()
    for name, parameter in learning.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name
