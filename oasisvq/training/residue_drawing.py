"""Augmentation: slices as another scanner might have made them, in bins of some bound.

Shapes: B slices, H×W pixels.

A network that has seen only slices of 8 bits from one scanner would know little else. So gain, contrast,
noise, depth, sign, direction and bound are drawn for each slice in each step.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from oasisvq.data.devices import send
from oasisvq.training.contrasts import noise_generator
from oasisvq.training.residue_inputs import SCALES, Passes, Slices

KINDS = 3
SCALE_SHARES = (0.74, 0.17, 0.06, 0.03)  # approximate share of pixels coded at each scale
BOUNDS = (0, 0, 0, 0, 1, 2, 3, 4, 6, 9)  # of slices of 8 bits
LARGEST_STEP = 130  # values to a bin, of deeper slices
DEEP_SHARE, DEEPEST_GAIN = 0.35, 40.0
CHANGED_SHARE = 0.4
NOISE = 0.003, 0.06  # deviation, in shares of the brightest value
NEGATED_SHARE = 0.1
WITH_DECODED, WITH_BEFORE, WITH_SECOND = 0.88, 0.4, 0.9  # where there are any
_UNIFORM, _NORMAL = 16, 2  # draws a slice


class Drawn(NamedTuple):
    """Slices as the dataset has them, in grey levels from 0 to 255.

    Attributes:
        values: (B, H, W).
        decoded: (B, H, W); 0 if there is none.
        before: (B, slices before, H, W); 0 if there is none.
        has_decoded: (B,) 1 or 0.
        has_before: (B, slices before) 1 or 0.
    """

    values: Tensor
    decoded: Tensor
    before: Tensor
    has_decoded: Tensor
    has_before: Tensor


class Looks(NamedTuple):
    """How each slice is changed, and which pass it is in; all (B,).

    The seeds of the noise stay on the CPU. A slice has the same noise in any process.
    """

    kinds: Tensor
    scales: Tensor
    step: Tensor  # values to a bin, 2 · bound + 1
    gain: Tensor
    gamma: Tensor
    inverted: Tensor
    noise: Tensor  # deviation, in shares of the brightest value
    sign: Tensor
    mirrored: Tensor
    turned: Tensor
    backwards: Tensor  # whether the next slice counts as the previous one
    with_decoded: Tensor
    with_before: Tensor
    with_second: Tensor
    seeds: Tensor

    @property
    def passes(self) -> Passes:
        """The pass of each slice."""
        return Passes(self.kinds, self.scales)

    def to(self, device: torch.device) -> "Looks":
        """The same on a device."""
        return Looks(*(send(each, device) for each in self))._replace(seeds=self.seeds)

    def part(self, places: slice) -> "Looks":
        """The looks of some of the slices."""
        return Looks(*(each[places] for each in self))


def draw_passes(count: int, generator: torch.Generator) -> Passes:
    """Draw kinds and scales of passes, as often as pixels are coded in them."""
    kinds = torch.randint(KINDS, (count,), generator=generator)
    shares = torch.tensor(SCALE_SHARES)
    chosen = torch.multinomial(shares, count, replacement=True, generator=generator)
    return Passes(kinds, torch.tensor(SCALES)[chosen])


def draw_looks(count: int, generator: torch.Generator) -> Looks:
    """Draw the looks of `count` slices."""
    passes = draw_passes(count, generator)
    draws = torch.rand(_UNIFORM, count, generator=generator).double()
    normal = torch.randn(_NORMAL, count, generator=generator).double()
    shares = iter(draws)

    def chance(share: float) -> Tensor:
        below: Tensor = next(shares) < share
        return below

    def between(low: float, high: float) -> Tensor:  # evenly over the logarithm
        return torch.exp(math.log(low) + next(shares) * math.log(high / low))

    is_deep, is_changed = chance(DEEP_SHARE), chance(CHANGED_SHARE)
    deep_gain = between(2.0, DEEPEST_GAIN)
    gain = torch.where(is_deep, deep_gain, 1.0) * torch.where(is_changed, torch.exp(normal[0] / 2), 1.0)
    gamma = torch.where(is_changed & chance(0.5), torch.exp(normal[1] / 5), 1.0)
    inverted = is_changed & chance(0.2)
    noise = torch.where(is_changed & chance(0.5), between(*NOISE), 0.0)
    is_bounded = chance(0.6)
    deep_step = torch.where(is_bounded, 2 * between(1.0, LARGEST_STEP).floor() - 1, 1.0)
    bounds = torch.tensor(BOUNDS)[torch.randint(len(BOUNDS), (count,), generator=generator)]
    return Looks(
        passes.kinds,
        passes.scales,
        torch.where(is_deep, deep_step, 2.0 * bounds + 1).float(),
        gain.float(),
        gamma.float(),
        inverted,
        noise.float(),
        torch.where(chance(NEGATED_SHARE), -1.0, 1.0).float(),
        chance(0.5),
        chance(0.5),
        chance(0.5),
        chance(WITH_DECODED).float(),
        chance(WITH_BEFORE).float(),
        chance(WITH_SECOND).float(),
        torch.randint(2**31, (count,), generator=generator),
    )


def plain_looks(passes: Passes, bound: int, with_decoded: bool) -> Looks:
    """Slices as they are, at a bound."""
    ones = torch.ones(len(passes.kinds), device=passes.kinds.device)
    no = torch.zeros_like(ones, dtype=torch.bool)
    decoded = ones * with_decoded
    return Looks(
        passes.kinds, passes.scales, ones * (2 * bound + 1), ones, ones, no, ones * 0, ones,
        no, no, no, decoded, ones, ones, torch.zeros(len(ones), dtype=torch.int64),
    )  # fmt: skip


def in_bins(drawn: Drawn, looks: Looks) -> Slices:
    """The slices with these looks, in bins."""
    per_slice = (slice(None), None, None)
    brightest = drawn.values.flatten(1).amax(1).clamp_min(1)[per_slice]
    values = torch.cat([drawn.values[:, None], drawn.before], 1)
    is_some = values > 0
    values = _noisy(_changed(values, brightest, looks), brightest, looks) * is_some
    decoded = _changed(drawn.decoded[:, None], brightest, looks) * (drawn.decoded > 0)[:, None]
    step, sign = looks.step[per_slice][:, None], looks.sign[per_slice][:, None]
    has_decoded = drawn.has_decoded * looks.with_decoded
    decoded = (decoded + (step - 1) / 2) / step * has_decoded[per_slice][:, None]
    bins = _directed((values / step).ceil() * sign, looks)
    has_before = drawn.has_before * looks.with_before[:, None]
    has_before = torch.cat([has_before[:, :1], has_before[:, 1:] * looks.with_second[:, None]], 1)
    return Slices(
        bins[:, 0],
        _directed(decoded * sign, looks)[:, 0],
        bins[:, 1:] * has_before[:, :, None, None],
        has_decoded,
        has_before,
    )


def _changed(values: Tensor, brightest: Tensor, looks: Looks) -> Tensor:
    """Values (B, parts, H, W) that are not ground, in another contrast and gain."""
    brightest = brightest[:, None]
    inverted, gamma, gain = (
        each[:, None, None, None] for each in (looks.inverted, looks.gamma, looks.gain)
    )
    values = torch.where(inverted, brightest + 1 - values, values)
    shares = values.clamp_min(0) / brightest
    return brightest * gain * torch.where(gamma == 1, shares, shares**gamma)


def _noisy(values: Tensor, brightest: Tensor, looks: Looks) -> Tensor:
    """Values with noise, and with grey levels between those of 8 bits, as in a deeper slice."""
    normal, uniform = torch.empty_like(values), torch.empty_like(values)
    for place, seed in enumerate(looks.seeds.tolist()):
        generator = noise_generator(values.device, seed)
        normal[place].normal_(generator=generator)
        uniform[place].uniform_(generator=generator)
    noise = (looks.noise * looks.gain)[:, None, None, None] * brightest[:, None]
    fill = ((looks.gain > 1) * looks.gain)[:, None, None, None]
    values = (values + noise * normal).abs() + fill * (uniform - 0.5)
    return values.round().clamp_min(1)


def _directed(slices: Tensor, looks: Looks) -> Tensor:
    """(B, parts, H, W) mirrored along either side."""
    mirrored, turned = (each[:, None, None, None] for each in (looks.mirrored, looks.turned))
    slices = torch.where(mirrored, slices.flip(2), slices)
    return torch.where(turned, slices.flip(3), slices)
