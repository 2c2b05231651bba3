"""Networks that learned in floating point -> the integers of `codec/networks.py`, and back.

Shapes: C channels, D code dimension, K codes, L levels.

Weights are rounded to steps, of one size for each output channel; the inputs of a layer are rounded to
steps of one size. The sizes follow from the ranges that the gauges have recorded, and from how large an
input may be if all sums are to be exact. Everything is differentiable, with gradients passed straight
through the rounding (Jacob et al. 2018), so `imitation.py` can train what the integers compute.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from oasisvq.codec.exact import (
    EXACT,
    GAIN_UNITS,
    LARGEST_BIAS,
    LARGEST_TABLE,
    LARGEST_UNITS,
    LATENT_UNITS,
    SCALE_BITS,
)
from oasisvq.codec.networks import DECODED_STEPS, PIXEL_STEPS, STREAM_UNITS
from oasisvq.training.networks import Activation, Decoder, Encoder, Gauge, ResidualBlock

WEIGHT_MAX = 127
LEAST_LIMIT = 255  # inputs may always be this large, 8 bits and a sign, whatever the weights are
MARGIN = 1.2  # ranges are averages, so they are widened by this factor
TABLE_ENTRIES = 2**14
LEAST_SILU, LOWEST_AT = -0.278465, -1.278465  # the minimum of silu, and where it is
_FURTHEST = 24.0  # below -24, silu is practically 0
_LAST = 2**31 - 128  # the largest int32 that float32 holds


class Part(NamedTuple):
    """A layer of a network, and what comes before and after it.

    Attributes:
        name: of its arrays, see `codec/networks.py`.
        layer: the convolution.
        entry: the gauge that its inputs pass; None if they are pixels.
        units_out: steps to 1 of its outputs; None if a table follows, which sets the steps.
        after: the gauge of this table; None if no table follows.
        fold: side in cells of the block that the channels of one cell are unfolded to; 1 for none.
    """

    name: str
    layer: nn.Conv2d
    entry: Gauge | None
    units_out: int | None
    after: Gauge | None = None
    fold: int = 1


def parts_of(network: nn.Module, name: str) -> Iterator[Part]:
    """The layers of an encoder or decoder: those for contexts first, then the others in order."""
    assert isinstance(network, Encoder | Decoder)
    layers = network.layers
    for stage, context in enumerate(network.contexts.layers, start=1):
        assert isinstance(context, nn.Conv2d)
        yield Part(f"{name}.stage{stage}.context", context, None, STREAM_UNITS)
    stage, block, entry = 1, 0, None
    convolutions = [each for each in layers if isinstance(each, nn.Conv2d)]
    for module in layers:
        if isinstance(module, ResidualBlock):
            block += 1
            prefix = f"{name}.stage{stage}.block{block}"
            inner = module.before_second
            yield Part(f"{prefix}.first", module.first, module.before_first, None, inner)
            yield Part(f"{prefix}.second", module.second, inner, STREAM_UNITS)
        elif isinstance(module, Gauge):
            entry = module
        elif isinstance(module, nn.Conv2d):
            if module is convolutions[0]:
                yield Part(f"{name}.input", module, entry, STREAM_UNITS)
            elif module is convolutions[-1]:
                units = STREAM_UNITS if name == "encoder" else DECODED_STEPS
                yield Part(f"{name}.output", module, entry, units)
            else:
                stage, block = stage + 1, 0
                way = "down" if name == "encoder" else "up"
                fold = 1 if name == "encoder" else 2
                yield Part(f"{name}.stage{stage}.{way}", module, entry, STREAM_UNITS, fold=fold)


def rounded(numbers: Tensor) -> Tensor:
    """Rounded, with the gradient passed straight through."""
    return numbers + (numbers.round() - numbers).detach()


def units_of(part: Part) -> float:
    """Steps to 1 of the outputs of a part."""
    if part.units_out is not None:
        return part.units_out
    assert part.after is not None
    return _inner_units(part.after)


def _inner_units(gauge: Gauge) -> int:
    """Steps to 1 of the numbers between the two layers of a block, before they are looked up."""
    low, high = _bounds(gauge)
    return max(1, min(int((TABLE_ENTRIES - 3) / (high - low)), LARGEST_UNITS))


def _bounds(gauge: Gauge) -> tuple[float, float]:
    """The range of a gauge with a margin; it contains 0 and begins at -24 or above."""
    low, high = (float(end) * MARGIN for end in gauge.range)
    return max(-_FURTHEST, min(low, -1e-3)), max(1e-3, high)


def _largest_output(gauge: Gauge) -> tuple[float, float]:
    """The least and the greatest number that leaves a gauge; without silu, they differ in sign only."""
    low, high = _bounds(gauge)
    if isinstance(gauge, Activation):
        return LEAST_SILU if low < LOWEST_AT else _silu(low), _silu(high)
    size = max(-low, high)
    return -size, size


def _silu(number: float) -> float:
    return number / (1 + math.exp(-number))


@torch.no_grad()
def free_limit(part: Part) -> int:
    """The largest input, from 255 to 4095, with which the weights of a part can use their full 8 bits.

    The lower end takes precedence: at 255, some weights may have to use fewer.
    """
    assert part.entry is not None
    low, high = _largest_output(part.entry)
    size = max(-low, high)
    rows = part.layer.weight.detach().flatten(1).cpu().double()  # not every device has float64
    rows = rows / rows.abs().amax(1, keepdim=True).clamp_min(1e-12) * WEIGHT_MAX
    above, below = rows.clamp_min(0).sum(1), (-rows).clamp_min(0).sum(1)
    sums = torch.maximum(above * high - below * low, below * high - above * low) / size
    slack = rows.shape[1] / 2  # rounding adds at most half a step to each weight
    most = int((EXACT - 1) / (float(sums.max()) + slack))
    return max(LEAST_LIMIT, min(most, 4095))


class Entry(NamedTuple):
    """The inputs of a layer, in integers.

    Attributes:
        spec: the array `table` or `scaling`; None for pixels.
        units: steps to 1.
        low: the least integer.
        high: the greatest integer.
    """

    spec: Tensor | None
    units: float
    low: int
    high: int


def entry_of(part: Part) -> Entry:
    """The inputs of a layer, by the range of its gauge and the largest integer that they may become.

    The gauge holds this limit once it is fixed; until then `free_limit` gives it.
    """
    if part.entry is None:
        return Entry(None, PIXEL_STEPS, 0, PIXEL_STEPS)
    limit = int(part.entry.limit) or free_limit(part)
    low, high = _bounds(part.entry)
    least, greatest = _largest_output(part.entry)
    size = max(-least, greatest)
    if isinstance(part.entry, Activation):
        inner = part.name.endswith(".second")
        units = _inner_units(part.entry) if inner else STREAM_UNITS
        first = max(math.floor(low * units), -LARGEST_TABLE // 4)
        last = min(math.ceil(high * units), LARGEST_TABLE // 2)
        gain = max(1, min(int(limit / size * GAIN_UNITS), LARGEST_UNITS))
        spec = torch.tensor([first, last, units, gain], dtype=torch.int32)
        steps = gain / GAIN_UNITS
        greatest = _silu(last / units) * steps
        return Entry(spec, steps, math.floor(least * steps) - 1, math.ceil(greatest))
    before = LATENT_UNITS if part.name == "decoder.input" else STREAM_UNITS
    gain = max(1, min(int(limit / size / before * 2**SCALE_BITS), _LAST))
    spec = torch.tensor([gain, limit], dtype=torch.int32)
    return Entry(spec, before * gain / 2**SCALE_BITS, -limit, limit)


def layer_of(part: Part, entry: Entry, units: float) -> dict[str, Tensor]:
    """Weight, scale and bias of a part: float tensors of integers, in the layout of the model file.

    Args:
        part: the layer.
        entry: its inputs.
        units: its `units_of`. The caller may keep it: computing it reads a range, which waits for a GPU.
    """
    weight, bias = _laid_out(part)
    rows = weight.flatten(1)
    size = rows.detach().abs()
    signed = rows.detach()
    above, below = signed.clamp_min(0).sum(1), (-signed).clamp_min(0).sum(1)
    high, low = max(entry.high, 0), max(-entry.low, 0)
    sums = torch.maximum(above * high + below * low, above * low + below * high)
    # rounding adds at most half a step to each weight; the sums here are off by a few parts in a million
    room = (EXACT - 1) * (1 - 1e-5) - rows.shape[1] / 2 * max(high, low)
    step = torch.maximum(size.amax(1) / WEIGHT_MAX, sums / max(room, 1.0)).clamp_min(1e-12)
    shape = -1, *(1,) * (weight.dim() - 1)
    # the largest weight of a row lies at the bound: it must learn on whichever side rounding puts it
    steps = weight / step.view(shape)
    whole = steps + (steps.round().clamp(-WEIGHT_MAX, WEIGHT_MAX) - steps).detach()
    scale = (step * (units / entry.units * 2**SCALE_BITS)).round().clamp(0, _LAST)
    return {
        "weight": whole,
        "scale": scale,
        "bias": rounded((bias * units).clamp(-LARGEST_BIAS, LARGEST_BIAS)),
    }


def _laid_out(part: Part) -> tuple[Tensor, Tensor]:
    """Weight (outputs, rows, columns, inputs) and bias of a layer, in the order of the model file.

    A dense layer has a weight (outputs, inputs). Torch unfolds cells from channels in the order C, row,
    column; the file has row, column, C.
    """
    weight, bias = part.layer.weight.float().permute(0, 2, 3, 1), part.layer.bias
    assert bias is not None
    bias = bias.float()
    if part.fold > 1:
        cells = part.fold**2
        weight = weight.reshape(-1, cells, *weight.shape[1:]).transpose(0, 1).flatten(0, 1)
        bias = bias.reshape(-1, cells).t().flatten()
    if weight.shape[1:3] == (1, 1):
        weight = weight.flatten(1)
    return weight, bias


@torch.no_grad()
def floats_into(part: Part, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Set a layer, and the range of its gauge if it has one, from the integers of a model file."""
    weight, scale, bias = (
        torch.from_numpy(arrays[f"{part.name}.{each}"]).double() for each in ("weight", "scale", "bias")
    )
    entry_units = float(PIXEL_STEPS)
    if part.entry is not None and isinstance(part.entry, Activation):
        low, high, units, gain = arrays[f"{part.name}.table"].tolist()
        part.entry.range.copy_(torch.tensor([low, high]) / units / MARGIN)
        entry_units = gain / GAIN_UNITS
    elif part.entry is not None:
        gain, limit = arrays[f"{part.name}.scaling"].tolist()
        before = LATENT_UNITS if part.name == "decoder.input" else STREAM_UNITS
        entry_units = before * gain / 2**SCALE_BITS
        size = limit / entry_units / MARGIN
        part.entry.range.copy_(torch.tensor([-size, size]))
    units_out = part.units_out
    if units_out is None:  # those of the table that follows
        units_out = int(arrays[part.name.removesuffix("first") + "second.table"][2])
    step = scale / 2**SCALE_BITS * entry_units / units_out
    weight = weight * step.view(-1, *(1,) * (weight.dim() - 1))
    bias = bias / units_out
    if part.fold > 1:
        cells = part.fold**2
        weight = weight.reshape(cells, -1, *weight.shape[1:]).transpose(0, 1).flatten(0, 1)
        bias = bias.reshape(cells, -1).t().flatten()
    if weight.dim() == 2:
        weight = weight[:, None, None]
    part.layer.weight.copy_(weight.permute(0, 3, 1, 2))
    assert part.layer.bias is not None
    part.layer.bias.copy_(bias)
