"""Slices and places in them -> the inputs of the networks of residues, on the device.

Shapes: B slices, H×W pixels, n places a slice, F slots of known places, W places of a window.

These are the same inputs as those in `codec/residue.py` and `codec/support.py`, for places of a few
slices at once. Each slice gets one random kind of pass and one scale. Its places lie anywhere, since the
networks only see what is around a place.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from oasisvq.codec.residue_config import (
    INPUT_MAX,
    INPUT_UNITS,
    KINDS,
    ResidueConfig,
    Sight,
    SupportConfig,
    known_offsets,
    window_offsets,
)

NEAREST = 4  # known places whose mean is the centre
AROUND = 16  # known places whose mean distance from it is the spread
LEAST_SPREAD = 0.3  # bins
LEAST_NOISE = 0.05  # bins
SCALES = (1, 2, 4, 8)
BRIGHTEST_GUIDE = 16  # units to the range, of which the support network sees a quarter


class Slices(NamedTuple):
    """A batch of slices in whole bins beside their ground, which is 0.

    Attributes:
        bins: (B, H, W).
        decoded: (B, H, W) the decoded image in bins, not rounded; 0 where there is none.
        before: (B, slices before, H, W) bins; 0 where there is none.
        has_decoded: (B,) 1 or 0.
        has_before: (B, slices before) 1 or 0.
    """

    bins: Tensor
    decoded: Tensor
    before: Tensor
    has_decoded: Tensor
    has_before: Tensor


class Passes(NamedTuple):
    """What pass each slice of a batch is in.

    Attributes:
        kinds: (B,) int64.
        scales: (B,) int64.
    """

    kinds: Tensor
    scales: Tensor


class Targets(NamedTuple):
    """Targets of the network of the residue: all (B·n,), except inputs (B·n, I)."""

    inputs: Tensor
    centre: Tensor
    spread: Tensor
    bins: Tensor
    lowest: Tensor
    highest: Tensor


class _Windows(nn.Module):
    """Looks at places of slices."""

    slots: Tensor
    seen: Tensor
    window: Tensor

    def __init__(self, sight: Sight) -> None:
        super().__init__()
        slots = sight.slots
        seen = torch.zeros(KINDS, len(slots))
        for kind in range(KINDS):
            for offset in known_offsets(kind, sight.reach[kind]):
                seen[kind, slots.index(offset)] = 1
        self.margin = max(max(sight.reach) * max(SCALES), sight.window)
        self.slices_before = sight.slices_before
        self.register_buffer("slots", torch.tensor(slots))  # (F, 2)
        self.register_buffer("seen", seen)  # (kinds, F) whether a kind of pass sees a slot
        self.register_buffer("window", torch.tensor(window_offsets(sight.window)))  # (W, 2)

    def places(self, cells: Tensor, width: int) -> Tensor:
        """Cells (B, n) of slices of a width -> flat places among all padded slices, (B, n)."""
        return (cells // width + self.margin) * (width + 2 * self.margin) + cells % width + self.margin

    def known(self, padded: Tensor, places: Tensor, passes: Passes) -> Tensor:
        """(B, H', W') -> (B, n, F), including slots that the kind of pass does not see."""
        steps = self.slots * passes.scales[:, None, None]  # (B, F, 2)
        return _taken(padded, places, steps)

    def around(self, padded: Tensor, places: Tensor) -> Tensor:
        """(B, H', W') -> (B, n, W)."""
        return _taken(padded, places, self.window.expand(len(padded), -1, -1))

    def padded(self, slices: Tensor, ground: float = 0.0) -> Tensor:
        """Slices (..., H, W) with a margin of ground."""
        return F.pad(slices, (self.margin,) * 4, value=ground)


def _taken(padded: Tensor, places: Tensor, steps: Tensor) -> Tensor:
    """Values of (B, H', W') at places (B, n) moved by steps (B, m, 2) -> (B, n, m)."""
    moves = steps[..., 0] * padded.shape[2] + steps[..., 1]  # (B, m)
    index = places[:, :, None] + moves[:, None, :]
    return padded.flatten(1).gather(1, index.flatten(1)).view(index.shape)


class ResidueInputs(nn.Module):
    """What the network of the residue sees."""

    first: Tensor

    def __init__(self, config: ResidueConfig) -> None:
        super().__init__()
        self.windows = _Windows(config)
        seen = self.windows.seen
        nearest = torch.stack([row.nonzero()[:AROUND, 0] for row in seen])
        self.register_buffer("first", nearest)  # (kinds, 16) slots, nearest first

    def forward(self, slices: Slices, passes: Passes, cells: Tensor) -> Targets:
        """Targets at cells (B, n), counted over the pixels of a slice."""
        windows = self.windows
        width = slices.bins.shape[2]
        places = windows.places(cells, width)
        known = windows.known(windows.padded(slices.bins), places, passes)
        first = self.first[passes.kinds][:, None].expand(-1, cells.shape[1], -1)
        near = known.gather(2, first)  # (B, n, 16)
        centre = near[..., :NEAREST].mean(2)
        spread = (near - centre[..., None]).abs().mean(2).clamp_min(LEAST_SPREAD)
        lowest, highest = _ends(slices.bins)
        noise = noise_of(slices.bins)

        def relative(values: Tensor, given: Tensor) -> Tensor:
            return (values - centre[..., None]) / spread[..., None] * given[:, None, None]

        kinds = F.one_hot(passes.kinds, KINDS).float()
        parts = [
            relative(known, torch.ones_like(noise)) * windows.seen[passes.kinds][:, None],
            kinds[:, None].expand(-1, cells.shape[1], -1),
            relative(windows.around(windows.padded(slices.decoded), places), slices.has_decoded),
        ]
        for number in range(windows.slices_before):
            before = windows.padded(slices.before[:, number])
            parts.append(relative(windows.around(before, places), slices.has_before[:, number]))
        parts.append(self._scalars(slices, passes, centre, spread, noise))
        inputs = whole_inputs(torch.cat(parts, 2))
        bins = slices.bins.flatten(1).gather(1, cells)
        return Targets(
            inputs.flatten(0, 1),
            centre.flatten(),
            spread.flatten(),
            bins.flatten(),
            lowest[:, None].expand_as(bins).flatten(),
            highest[:, None].expand_as(bins).flatten(),
        )

    def _scalars(
        self, slices: Slices, passes: Passes, centre: Tensor, spread: Tensor, noise: Tensor
    ) -> Tensor:
        """(B, n, 8), see `codec/residue_config.py`."""
        lowest, highest = _ends(slices.bins)
        has_before = slices.has_before[:, 0] if self.windows.slices_before else torch.zeros_like(noise)
        of_slices = torch.stack([passes.scales.log2() / 2, slices.has_decoded, has_before], 1)
        of_places = [
            spread.log2() / 2,
            (centre - lowest[:, None]) / spread / 4,
            (highest[:, None] - centre) / spread / 4,
        ]
        last = [(spread / noise[:, None]).log2() * 0.7, (noise.log2() / 2)[:, None].expand_as(centre)]
        middle = of_slices[:, None].expand(-1, centre.shape[1], -1)
        return torch.cat([torch.stack(of_places, 2), middle, torch.stack(last, 2)], 2)


class SupportInputs(nn.Module):
    """What the network of the support sees."""

    def __init__(self, config: SupportConfig) -> None:
        super().__init__()
        self.windows = _Windows(config)

    def forward(self, slices: Slices, passes: Passes, cells: Tensor) -> tuple[Tensor, Tensor]:
        """At cells (B, n): inputs (B·n, I), and whether each is not ground, (B·n,) 1 or 0."""
        windows = self.windows
        places = windows.places(cells, slices.bins.shape[2])
        marks = windows.padded(_marks(slices.bins), ground=-1.0)
        size = slices.bins.abs().flatten(1).amax(1).clamp_min(1)[:, None, None]
        decoded = slices.decoded.abs() / size * BRIGHTEST_GUIDE
        ones = torch.ones_like(cells, dtype=torch.float32)[..., None]
        kinds = F.one_hot(passes.kinds, KINDS).float()[:, None]
        parts = [
            windows.known(marks, places, passes) * windows.seen[passes.kinds][:, None],
            kinds * ones,
            windows.around(windows.padded(decoded), places) * slices.has_decoded[:, None, None],
        ]
        for number in range(windows.slices_before):
            before = windows.padded(_marks(slices.before[:, number]), ground=-1.0)
            given = slices.has_before[:, number, None, None]
            parts.append(windows.around(before, places) * given)
        has_before = slices.has_before[:, 0] if windows.slices_before else slices.has_decoded * 0
        scalars = torch.stack([slices.has_decoded, has_before, passes.scales.log2() / 2], 1)
        inputs = whole_inputs(torch.cat([*parts, scalars[:, None] * ones], 2))
        return inputs.flatten(0, 1), (slices.bins != 0).float().flatten(1).gather(1, cells).flatten()


def whole_inputs(inputs: Tensor) -> Tensor:
    """Inputs as the networks get them: whole, from -127 to 127, in 32nds."""
    return (inputs * INPUT_UNITS).round().clamp(-INPUT_MAX, INPUT_MAX)


def noise_of(bins: Tensor) -> Tensor:
    """(B, H, W) -> (B,) mean distance from the mean of both neighbours in a row, in quarter octaves."""
    left, own, right = bins[:, :, :-2], bins[:, :, 1:-1], bins[:, :, 2:]
    counted = ((left != 0) & (own != 0) & (right != 0)).float().flatten(1)
    distance = (own - (left + right) / 2).abs().flatten(1)
    mean = (distance * counted).sum(1) / counted.sum(1).clamp_min(1)
    return torch.exp2((mean.clamp_min(LEAST_NOISE).log2() * 4).round() / 4)


def _ends(bins: Tensor) -> tuple[Tensor, Tensor]:
    """(B, H, W) -> the least and the greatest bin (B,) that is not ground; 1 if there is none."""
    flat = bins.flatten(1)
    is_ground = flat == 0
    lowest = flat.masked_fill(is_ground, torch.inf).amin(1)
    highest = flat.masked_fill(is_ground, -torch.inf).amax(1)
    return lowest.nan_to_num(posinf=1.0), highest.nan_to_num(neginf=1.0)


def _marks(bins: Tensor) -> Tensor:
    """-1 on the ground, 1 elsewhere."""
    return (bins != 0).float() * 2 - 1
