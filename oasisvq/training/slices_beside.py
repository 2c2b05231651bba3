"""The slices of a split as the networks of volumes see them: each in its own range, with neighbours.

Shapes: N slices, B batch, H×W window, L levels, h×w grid, D code dimension.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from oasisvq.data.batches import SliceBatches
from oasisvq.data.dataset import SliceRecord
from oasisvq.data.devices import send
from oasisvq.training.quantizer import ResidualQuantizer

LARGEST_GAP = 4  # between the numbers of two slices that count as neighbours
BLUR_REACH = 6  # pixels
READ_AT_ONCE = 256  # slices


def neighbours(records: tuple[SliceRecord, ...]) -> NDArray[np.int64]:
    """The previous and the next slice of each slice in its volume; -1 if there is none."""
    found = np.full((len(records), 2), -1, np.int64)
    volumes = [(record.subject, record.volume) for record in records]
    for place in range(1, len(records)):
        gap = records[place].slice_number - records[place - 1].slice_number
        if volumes[place] == volumes[place - 1] and 1 <= gap <= LARGEST_GAP:
            found[place, 0], found[place - 1, 1] = place - 1, place
    return found


def sequences(records: tuple[SliceRecord, ...], longest: int | None = None) -> list[Tensor]:
    """The places of slices that follow one another, the longest sequence first.

    Args:
        records: of a split.
        longest: number of slices after which a sequence is cut; None for no cuts.
    """
    ends = np.flatnonzero(neighbours(records)[:, 1] < 0) + 1
    whole = torch.arange(len(records)).tensor_split(torch.from_numpy(ends[:-1]))
    parts = [part for each in whole for part in each.split(longest or max(1, len(each)))]
    return sorted(parts, key=len, reverse=True)


class OwnRanges:
    """The slices of a split, each scaled from its own darkest grey level, 0, to its brightest, 1."""

    def __init__(self, batches: SliceBatches, array: NDArray[np.uint8]) -> None:
        """Take batches of an array (N, H, W), and find the ranges of its slices."""
        ends = np.zeros((len(array), 2), np.float32)
        for start in range(0, len(array), READ_AT_ONCE):
            part = slice(start, start + READ_AT_ONCE)
            ends[part] = np.stack([array[part].min((1, 2)), array[part].max((1, 2))], 1)
        low, high = torch.from_numpy(ends / 255).to(batches.device).unbind(1)
        self.batches, self._low = batches, low  # (N,)
        self._size = torch.where(high > low, high - low, 1.0)  # (N,)

    def draw(self, slices: Tensor, mirrored: Tensor | None = None) -> Tensor:
        """Pixels (B, 1, H, W) in [0, 1] of slices (B,) on the CPU, see `SliceBatches.draw`."""
        low, size = self._ranges(slices)
        return ((self.batches.draw(slices, mirrored) - low) / size).clamp_(0, 1)

    def moved(self, pixels: Tensor, slices: Tensor, others: Tensor) -> Tensor:
        """Pixels (B, 1, H, W) in the ranges of slices (B,) -> those of others, see `Chain.context`."""
        (low, size), (other_low, other_size) = self._ranges(slices), self._ranges(others)
        return ((pixels * size + low - other_low) / other_size).clamp(0, 1)

    def grey(self, pixels: Tensor, slices: Tensor) -> Tensor:
        """Pixels (B, 1, H, W) in the ranges of slices (B,) -> grey levels from 0 to 255."""
        low, size = self._ranges(slices)
        return ((pixels * size + low) * 255).round_()

    def _ranges(self, slices: Tensor) -> tuple[Tensor, Tensor]:
        slices = send(slices, self._low.device)
        return self._low[slices].view(-1, 1, 1, 1), self._size[slices].view(-1, 1, 1, 1)


def blurred(pixels: Tensor, deviations: Tensor) -> Tensor:
    """(B, 1, H, W), each blurred by a Gaussian of its own deviation (B,) in pixels."""
    offsets = torch.arange(-BLUR_REACH, BLUR_REACH + 1, device=pixels.device)
    weights = torch.exp(-(offsets**2) / (2 * deviations[:, None] ** 2))
    weights = (weights / weights.sum(1, keepdim=True))[:, None, None]  # (B, 1, 1, n)
    images = pixels.transpose(0, 1)  # (1, B, H, W): a slice is a channel
    images = F.pad(images, (BLUR_REACH,) * 4, mode="replicate")
    images = F.conv2d(images, weights, groups=len(pixels))
    return F.conv2d(images, weights.transpose(2, 3), groups=len(pixels)).transpose(0, 1)


class Networks(Protocol):
    """Networks that see the previous slice."""

    def encoder(self, pixels: Tensor, context: Tensor | None = None, /) -> Tensor:
        """(B, 1, H, W) -> latents (B, D, h, w)."""

    def decoder(self, latents: Tensor, context: Tensor | None = None, /) -> Tensor:
        """Latents (B, D, h, w) -> pixels (B, 1, H, W)."""


class Coded(NamedTuple):
    """The slices of a few sequences, one from each, as they are coded.

    Attributes:
        places: (B,) of the slices, on the CPU.
        pixels: (B, 1, H, W) in their ranges.
        context: (B, 1, H, W) the previous slices as they were decoded; None for the first slices.
        latents: (B, D, h, w).
        indices: (B, L, h, w).
        decoded: (B, 1, H, W).
    """

    places: Tensor
    pixels: Tensor
    context: Tensor | None
    latents: Tensor
    indices: Tensor
    decoded: Tensor


def coded_in_turn(
    networks: Networks,
    quantizer: ResidualQuantizer,
    source: OwnRanges,
    parts: list[Tensor],
    kept: Tensor,
    mirrored: bool = False,
    autocast: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> Iterator[Coded]:
    """Code sequences slice by slice, all at once, each slice given the previous one as it was decoded.

    Args:
        networks: that code the slices.
        quantizer: of the same codec.
        source: of the slices.
        parts: the places of each sequence, the longest first.
        kept: (sequences,) number of levels from which the slices of each are decoded, on the CPU.
        mirrored: whether all slices are mirrored.
        autocast: in which the networks run.
    """
    decoded: Tensor | None = None
    before = torch.zeros(0, dtype=torch.int64)
    for turn in range(len(parts[0]) if parts else 0):
        places = torch.stack([part[turn] for part in parts if len(part) > turn])
        count = len(places)
        pixels = source.draw(places, torch.full((count,), mirrored))
        context = None
        if decoded is not None:
            context = source.moved(decoded[:count], before[:count], places)
        with autocast():
            latents = networks.encoder(pixels, context).float()
        indices = quantizer.quantize(latents, kept[:count])
        chosen = quantizer.dequantize(indices, kept[:count])
        with autocast():
            decoded = networks.decoder(chosen, context).float().clamp(0, 1)
        yield Coded(places, pixels, context, latents, indices, decoded)
        before = places
