"""Slices as another machine or another contrast would show them, for some of a batch.

Shapes: B batch, H×W window.

OASIS is T1 alone. A codec that has seen nothing else dims what is brighter than it knows, and is biased
where dark and bright change places, as in T2 and FLAIR.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from oasisvq.data.devices import send
from oasisvq.training.distributed import World

CHANGED_SHARE = 0.2  # of slices
INVERTED_SHARE = 0.25  # of those
NOISY_SHARE, MOST_NOISE = 0.3, 0.04  # of those; deviation, in shares of the range
GAMMA_SPREAD = 1 / 3.5  # deviation of its logarithm
GROUND = 0.02  # pixels up to here are not turned, and get no noise


class Contrasts(NamedTuple):
    """How each slice is changed; all (B,), on the CPU.

    Attributes:
        changed: whether it is.
        inverted: whether dark and bright change places.
        gamma: of the curve; 1 where it stays.
        noise: deviation, in shares of the range.
    """

    changed: Tensor
    inverted: Tensor
    gamma: Tensor
    noise: Tensor

    def part(self, own: slice) -> "Contrasts":
        """Those of one process."""
        return Contrasts(*(each[own] for each in self))

    def curved(self, pixels: Tensor) -> Tensor:
        """Pixels (B, 1, H, W) in [0, 1] in their new contrast."""
        if not self.changed.any():
            return pixels
        inverted, gamma = (_per_slice(each, pixels) for each in (self.inverted, self.gamma))
        turned = torch.where(inverted & (pixels > GROUND), 1 + GROUND - pixels, pixels).clamp_max(1)
        return torch.where(gamma == 1, turned, turned.clamp_min(1e-6) ** gamma)

    def noisy(self, pixels: Tensor, generator: torch.Generator) -> Tensor:
        """Pixels (B, 1, H, W) in [0, 1] with their noise, see `noise_generator`."""
        if not self.noise.any():
            return pixels
        noise = torch.empty_like(pixels).normal_(generator=generator)
        noise *= _per_slice(self.noise, pixels) * (pixels > GROUND)
        return (pixels + noise).clamp(0, 1)


def draw_contrasts(count: int, generator: torch.Generator) -> Contrasts:
    """Those of so many slices."""
    draws = torch.rand(4, count, generator=generator)
    normal = torch.randn(count, generator=generator)
    changed = draws[0] < CHANGED_SHARE
    return Contrasts(
        changed,
        changed & (draws[1] < INVERTED_SHARE),
        torch.where(changed, torch.exp(normal * GAMMA_SPREAD), 1.0),
        torch.where(changed & (draws[2] < NOISY_SHARE), draws[3] * MOST_NOISE, 0.0),
    )


def noise_generator(device: torch.device, seed: int) -> torch.Generator:
    """Of the noise that slices are given, which is drawn where they are."""
    return torch.Generator(device).manual_seed(seed)


def noise_seed(generator: torch.Generator, world: World) -> int:
    """Of the noise of this process in a step."""
    return int(torch.randint(2**31, (), generator=generator)) + world.rank


def _per_slice(each: Tensor, pixels: Tensor) -> Tensor:
    return send(each, pixels.device)[:, None, None, None]
