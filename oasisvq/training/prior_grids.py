"""What the prior learns from: the index grids that a trained codec finds in a split.

Shapes: n slices, B batch, L levels, h×w grid, K codes, D code dimension.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from oasisvq.codec.exact import LATENT_UNITS
from oasisvq.codec.pixels import Window
from oasisvq.codec.prior import ACTIVATION_MAX, FEATURE_UNITS, PARTS, pooled
from oasisvq.data.batches import SliceBatches, seeded_generator
from oasisvq.data.devices import send
from oasisvq.training.contrasts import draw_contrasts
from oasisvq.training.distributed import World
from oasisvq.training.quantizer import ResidualQuantizer
from oasisvq.training.slices_beside import Networks, OwnRanges, coded_in_turn

ENCODED_AT_ONCE = 32  # slices, or sequences of them
SUMMED_AT_ONCE = 4096  # slices


class Grids(NamedTuple):
    """Index grids of slices.

    Attributes:
        indices: (n, L, h, w) in the smallest type that holds them, since they stay on the device.
        pooled: (n, 9·D) pooled latents, which decide the kinds of slices.
        expected: (n, h, w, D) int8, steps of the features of expected latents; None for images.
        kept: (n,) uint8 number of levels from which each slice and the slices before it were decoded. A
            file would not hold the indices of further levels. None for images, whose levels all count.
    """

    indices: Tensor
    pooled: Tensor
    expected: Tensor | None = None
    kept: Tensor | None = None

    def put(self, places: Tensor, indices: Tensor, latents: Tensor) -> None:
        """Store indices (B, L, h, w), and pool and store latents (B, D, h, w), at places (B,)."""
        plain = latents.permute(0, 2, 3, 1).cpu().numpy() * LATENT_UNITS
        self.indices[places] = indices.to(self.indices.dtype)
        found = torch.from_numpy(pooled(plain) / LATENT_UNITS).float()
        self.pooled[places] = found.to(self.pooled.device)

    def sum_over(self, world: World) -> None:
        """Combine the grids of all processes, each of which has found its own share."""
        if world.size > 1:
            found = [each for each in (self.indices, self.expected, self.kept) if each is not None]
            for part in (part for each in found for part in each.split(SUMMED_AT_ONCE)):
                wide = part.int()  # not every type can be summed over processes
                world.sum_(wide)
                part.copy_(wide)
        world.sum_(self.pooled)


def joined(parts: list[Grids]) -> Grids:
    """Grids concatenated in their order."""
    expected = [each.expected for each in parts if each.expected is not None]
    kept = [each.kept for each in parts if each.kept is not None]
    return Grids(
        torch.cat([each.indices for each in parts]),
        torch.cat([each.pooled for each in parts]),
        torch.cat(expected) if expected else None,
        torch.cat(kept) if kept else None,
    )


def no_grids(
    count: int, grid: tuple[int, int], quantizer: ResidualQuantizer, device: torch.device
) -> Grids:
    """Grids of zeros for `count` images, to be filled."""
    levels, size, dimension = quantizer.codebooks.shape
    indices = torch.zeros(count, levels, *grid, dtype=narrowest(size), device=device)
    return Grids(indices, torch.zeros(count, PARTS * PARTS * dimension, device=device))


def narrowest(codebook_size: int) -> torch.dtype:
    """The smallest type of indices 0..K-1 that all devices can compute with."""
    if codebook_size <= 2**8:
        return torch.uint8
    return torch.int16 if codebook_size <= 2**15 else torch.int32


@torch.no_grad()
def index_grids(
    networks: Networks,
    quantizer: ResidualQuantizer,
    batches: SliceBatches,
    slices: Tensor,
    grid: tuple[int, int],
    world: World,
    seed: int,
    mirrored: bool = False,
    advance: Callable[[int], None] = lambda slices: None,
) -> Grids:
    """Index grids of the given slices (n,); every process finds a share of them.

    The choice of codes depends on how many levels a file keeps, so this number varies from slice to
    slice. Some of the mirrored slices look as another scanner would show them, drawn by `seed`; see
    `contrasts.py`.
    """
    grids = no_grids(len(slices), grid, quantizer, world.device)
    levels = len(quantizer.codebooks)
    for number, places in enumerate(torch.arange(len(slices)).split(ENCODED_AT_ONCE)):
        if number % world.size == world.rank:
            pixels = batches.draw(slices[places], torch.full((len(places),), mirrored))
            if mirrored:
                contrasts = draw_contrasts(len(pixels), seeded_generator(seed, 10, number))
                pixels = contrasts.noisy(contrasts.shown(pixels))
            latents = networks.encoder(pixels)
            kept = (places + mirrored) % levels + 1
            grids.put(send(places, world.device), quantizer.quantize(latents, kept), latents)
            advance(len(places))
    grids.sum_over(world)
    return grids


@torch.no_grad()
def grids_in_turn(
    networks: Networks,
    quantizer: ResidualQuantizer,
    source: OwnRanges,
    parts: list[Tensor],
    kept: Tensor,
    window: Window,
    world: World,
    mirrored: bool = False,
    advance: Callable[[int], None] = lambda slices: None,
) -> Grids:
    """Index grids of slices that are coded in turn, each given the previous one; processes share them.

    Mirrored sequences are coded from the last slice to the first.

    Args:
        networks: of a codec of volumes.
        quantizer: of this codec.
        source: of the slices.
        parts: the places of each sequence, the longest first.
        kept: (sequences,) number of levels from which the slices of each are decoded.
        window: the cells that the grids cover.
        world: the processes.
        mirrored: whether all slices are mirrored.
        advance: called with the number of slices done.

    Returns:
        Grids in rising order of the places of all slices.
    """
    every = torch.cat(parts).sort().values
    grid = window.height, window.width
    dimension = quantizer.codebooks.shape[2]
    expected = torch.zeros(len(every), *grid, dimension, dtype=torch.int8, device=world.device)
    levels = torch.zeros(len(every), dtype=torch.uint8, device=world.device)
    grids = no_grids(len(every), grid, quantizer, world.device)
    grids = grids._replace(expected=expected, kept=levels)
    for some in torch.arange(len(parts))[world.rank :: world.size].split(ENCODED_AT_ONCE):
        chosen = [parts[number].flip(0) if mirrored else parts[number] for number in some]
        for coded in coded_in_turn(networks, quantizer, source, chosen, kept[some], mirrored):
            places = send(torch.searchsorted(every, coded.places), world.device)
            grids.put(places, coded.indices, coded.latents)
            levels[places] = send(kept[some][: len(places)].to(torch.uint8), world.device)
            if coded.context is not None:
                expected[places] = as_features(networks.encoder(coded.context, coded.context))
            advance(len(places))
    grids.sum_over(world)
    return grids


def as_features(latents: Tensor) -> Tensor:
    """Latents (B, D, h, w) -> (B, h, w, D) int8 steps of features, as `codec.prior.as_features`."""
    steps = (latents.permute(0, 2, 3, 1) * FEATURE_UNITS).round()
    return steps.clamp(-ACTIVATION_MAX, ACTIVATION_MAX).to(torch.int8)
