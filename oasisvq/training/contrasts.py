"""Augmentation: some slices of a batch as another scanner or another contrast would show them.

Shapes: B batch, H×W window, n spots of a slice.

OASIS has only T1, from one scanner. A codec that has seen nothing else dims unusually bright voxels, is
biased where dark and bright change places, as in T2 and FLAIR, and draws brains of one size only.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from oasisvq.data.devices import send

CHANGED_SHARE = 0.3  # of all slices; the shares below are of these
INVERTED_SHARE = 0.25
NOISY_SHARE, MOST_NOISE = 0.3, 0.04  # the largest deviation, in shares of the range
NOISY_GROUND_SHARE = 0.3  # of the noisy ones
GAMMA_SPREAD = 1 / 3.5  # deviation of its logarithm
BIAS_SPREAD = 0.15  # of the logarithm of the field, from the middle to a side
MOVED_SHARE = 0.5
ZOOM, TURN, SHIFT = 1.35, 0.25, 0.08  # at most: a factor, radians, and a share of half a side
SPOTS, SPOTTED_SHARE = 3, 0.25
SPOT_SIZES, SPOT_CONTRASTS = (1.0, 4.0), (0.1, 0.6)  # deviations in pixels; in shares of the range
GROUND = 0.02, 0.07  # pixels up to here are not inverted and get no spots; from here on fully


class Contrasts(NamedTuple):
    """How each slice is changed; all (B, ..), on the CPU.

    Attributes:
        changed: (B,) whether the slice is changed.
        inverted: (B,) whether dark and bright change places.
        gamma: (B,) of the curve; 1 for no change.
        noise: (B,) deviation, in shares of the range.
        noisy_ground: (B,) whether the ground is noisy too.
        moved: (B, 2, 3) where pixels come from, see `affine_grid`.
        bias: (B, 3) logarithm of the bias field: along rows, along columns, and along both.
        spots: (B, n, 4) row and column in shares of the sides, deviation in pixels, and added value.
        seeds: (B,) of the noise, so that a slice has the same noise in any process.
    """

    changed: Tensor
    inverted: Tensor
    gamma: Tensor
    noise: Tensor
    noisy_ground: Tensor
    moved: Tensor
    bias: Tensor
    spots: Tensor
    seeds: Tensor

    def part(self, own: slice) -> "Contrasts":
        """The changes for the slices of one process."""
        return Contrasts(*(each[own] for each in self))

    def shown(self, pixels: Tensor) -> Tensor:
        """Change pixels (B, 1, H, W) in [0, 1] of slices, or of their previous slices, without noise."""
        chosen = self.changed.nonzero()[:, 0]
        if not len(chosen):
            return pixels
        device = pixels.device
        inverted, gamma, moved, bias, spots = (
            send(each[chosen], device)
            for each in (self.inverted, self.gamma, self.moved, self.bias, self.spots)
        )
        chosen = send(chosen, device)
        changed = _moved(pixels[chosen], moved)
        signal = ((changed - GROUND[0]) / (GROUND[1] - GROUND[0])).clamp(0, 1)
        changed = torch.where(_per_slice(inverted), torch.lerp(changed, 1 - changed, signal), changed)
        changed = (changed + _drawn(spots, *changed.shape[2:]) * signal).clamp(0, 1)
        changed = changed ** _per_slice(gamma) * _field(bias, *changed.shape[2:])
        return pixels.index_copy(0, chosen, changed)

    def noisy(self, pixels: Tensor) -> Tensor:
        """Add noise to pixels (B, 1, H, W) in [0, 1]; it is drawn on their device."""
        chosen = self.noise.nonzero()[:, 0].tolist()
        if not chosen:
            return pixels
        pixels = pixels.clone()
        for place in chosen:
            generator = noise_generator(pixels.device, int(self.seeds[place]))
            noise = torch.empty_like(pixels[place]).normal_(generator=generator)
            noise *= float(self.noise[place])
            if not self.noisy_ground[place]:
                noise *= pixels[place] > GROUND[0]
            pixels[place] = (pixels[place] + noise).abs().clamp_max(1)
        return pixels


def draw_contrasts(count: int, generator: torch.Generator) -> Contrasts:
    """Draw the changes for `count` slices."""
    draws = torch.rand(11, count, generator=generator)
    normal = torch.randn(4, count, generator=generator)
    spots = torch.rand(count, SPOTS, 5, generator=generator)
    changed = draws[0] < CHANGED_SHARE
    is_noisy = changed & (draws[2] < NOISY_SHARE)
    return Contrasts(
        changed,
        changed & (draws[1] < INVERTED_SHARE),
        torch.where(changed, torch.exp(normal[0] * GAMMA_SPREAD), 1.0),
        torch.where(is_noisy, draws[3] * MOST_NOISE, 0.0),
        is_noisy & (draws[4] < NOISY_GROUND_SHARE),
        _draw_moves(changed & (draws[5] < MOVED_SHARE), draws[6:10]),
        (normal[1:] * BIAS_SPREAD).t() * changed[:, None],
        _draw_spots(spots) * (changed & (draws[10] < SPOTTED_SHARE))[:, None, None],
        torch.randint(2**31, (count,), generator=generator),
    )


def _draw_moves(moved: Tensor, draws: Tensor) -> Tensor:
    """(B,) whether slices move, (4, B) in [0, 1) -> (B, 2, 3)."""
    zoom, turn, rows, columns = (2 * draws - 1) * moved
    zoom, turn, rows, columns = ZOOM**zoom, TURN * turn, SHIFT * rows, SHIFT * columns
    first = torch.stack([zoom * turn.cos(), -zoom * turn.sin(), columns], 1)
    second = torch.stack([zoom * turn.sin(), zoom * turn.cos(), rows], 1)
    return torch.stack([first, second], 1)


def _draw_spots(draws: Tensor) -> Tensor:
    """(B, n, 5) in [0, 1) -> (B, n, 4)."""
    (least, most), (faint, strong) = SPOT_SIZES, SPOT_CONTRASTS
    size = least * (most / least) ** draws[..., 2]
    contrast = faint * (strong / faint) ** draws[..., 3]
    added = torch.where(draws[..., 4] < 0.5, -contrast, contrast)
    return torch.stack([draws[..., 0], draws[..., 1], size, added], -1)


def _moved(pixels: Tensor, moved: Tensor) -> Tensor:
    grid = F.affine_grid(moved, list(pixels.shape), align_corners=False)
    return F.grid_sample(pixels, grid, align_corners=False).clamp(0, 1)


def _field(bias: Tensor, height: int, width: int) -> Tensor:
    """(B, 3) -> (B, 1, H, W), at most 1."""
    row = torch.linspace(-1, 1, height, device=bias.device)[:, None].expand(height, width)
    column = torch.linspace(-1, 1, width, device=bias.device).expand(height, width)
    logarithm = torch.einsum("bk,khw->bhw", bias, torch.stack([row, column, row * column]))
    return torch.exp(logarithm - logarithm.amax((1, 2), keepdim=True))[:, None]


def _drawn(spots: Tensor, height: int, width: int) -> Tensor:
    """(B, n, 4) -> what they add, (B, 1, H, W)."""
    middle_row, middle_column, size, added = spots.unbind(-1)
    size = size.clamp_min(SPOT_SIZES[0])

    def profile(middle: Tensor, side: int) -> Tensor:
        away = torch.arange(side, device=spots.device) - middle[..., None] * side
        return torch.exp(-((away / size[..., None]) ** 2) / 2)  # (B, n, side)

    rows = profile(middle_row, height) * added[..., None]
    return torch.einsum("bnh,bnw->bhw", rows, profile(middle_column, width))[:, None]


def noise_generator(device: torch.device, seed: int) -> torch.Generator:
    """The generator of the noise of a slice, on its device."""
    return torch.Generator(device).manual_seed(seed)


def _per_slice(each: Tensor) -> Tensor:
    return each[:, None, None, None]
