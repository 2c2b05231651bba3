"""Slices as the codecs of a model decode them, beside which residues and supports are coded.

Shapes: n slices, H×W window.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from oasisvq.data.batches import SliceBatches
from oasisvq.data.devices import send
from oasisvq.training.distributed import World
from oasisvq.training.quantizer import ResidualQuantizer
from oasisvq.training.slices_beside import Networks, OwnRanges, coded_in_turn

DECODED_AT_ONCE = 16
# numbers of levels, in turn; half are the default beside a residue, 2 for images and 1 for volumes,
# since the network learns from them how far decoded slices can be trusted
LEVELS_ALONE = 2, 1, 2, 4, 2, 8
LEVELS_IN_TURN = 1, 2, 1, 4, 1, 6


def grey_levels(batches: SliceBatches, slices: Tensor) -> Tensor:
    """Slices (n,) -> grey levels (n, H, W) from 0 to 255."""
    return (batches.draw(slices)[:, 0] * 255).round_()


@torch.no_grad()
def decoded_alone(
    networks: Networks,
    quantizer: ResidualQuantizer,
    batches: SliceBatches,
    slices: Tensor,
    world: World,
    advance: Callable[[int], None],
) -> Tensor:
    """Slices (n,) decoded by the codec of images, with varying numbers of levels; processes share them.

    Returns:
        (n, H, W) uint8 grey levels.
    """
    levels = [min(each, len(quantizer.codebooks)) for each in LEVELS_ALONE]
    decoded = torch.zeros(len(slices), *_window(batches), device=world.device)
    for number, places in enumerate(torch.arange(len(slices)).split(DECODED_AT_ONCE)):
        advance(len(places))
        if number % world.size != world.rank:
            continue
        grey = grey_levels(batches, slices[places])
        brightest = grey.flatten(1).amax(1).clamp_min(1)[:, None, None]
        kept = levels[number % len(levels)]
        latents = networks.encoder((grey / brightest)[:, None])
        indices = quantizer.quantize(latents, torch.full((len(places),), kept))
        image = networks.decoder(quantizer.dequantize(indices[:, :kept]))[:, 0]
        decoded[places] = (image * brightest).round()
    world.sum_(decoded)
    return decoded.to(torch.uint8)


@torch.no_grad()
def decoded_in_turn(
    networks: Networks,
    quantizer: ResidualQuantizer,
    source: OwnRanges,
    parts: list[Tensor],
    world: World,
    advance: Callable[[int], None],
) -> Tensor:
    """Sequences decoded by the codec of volumes, with varying numbers of levels; processes share them.

    Returns:
        (n, H, W) uint8 grey levels, of one sequence after the other.
    """
    slices = torch.cat(parts)
    row_of = torch.zeros(int(slices.max()) + 1, dtype=torch.int64)
    row_of[slices] = torch.arange(len(slices))
    decoded = torch.zeros(len(slices), *_window(source.batches), device=world.device)
    own = list(range(world.rank, len(parts), world.size))
    for group in (own[start : start + DECODED_AT_ONCE] for start in range(0, len(own), DECODED_AT_ONCE)):
        group.sort(key=lambda number: -len(parts[number]))
        cycle = torch.tensor(LEVELS_IN_TURN).clamp_max(len(quantizer.codebooks))
        kept = cycle[torch.tensor(group) % len(cycle)]
        for coded in coded_in_turn(networks, quantizer, source, [parts[each] for each in group], kept):
            advance(len(coded.places))
            grey = source.grey(coded.decoded, coded.places)[:, 0]
            decoded[send(row_of[coded.places], decoded.device)] = grey
    world.sum_(decoded)
    return decoded.to(torch.uint8)


def _window(batches: SliceBatches) -> torch.Size:
    return batches.draw(torch.zeros(1, dtype=torch.int64)).shape[2:]
