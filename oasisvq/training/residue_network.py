"""The networks of residues in training: the integers of `codec/residue_networks.py`.

Shapes: n targets, H hidden, C components of a mixture.

Everything between layers is an integer in float32, and gradients pass straight through the rounding
(Jacob et al. 2018). Weights are rounded to 8 bits, with a power of two as the steps of a row. So scales
are powers of two, and float32 computes here to the last bit what the codec will. In bfloat16 the inputs
of a product are still exact, and its sums are rounded to 8 bits, which is enough for learning.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from oasisvq.codec.exact import LARGEST_BIAS, SCALE_BITS
from oasisvq.codec.residue_config import (
    ACTIVATION_MAX,
    ACTIVATION_UNITS,
    CENTRE_UNITS,
    INPUT_UNITS,
    OCTAVE_UNITS,
    STREAM_UNITS,
    ResidueConfig,
    SupportConfig,
)
from oasisvq.training.integers import rounded

Arrays = dict[str, NDArray[np.generic]]

WEIGHT_MAX = 127
LEAST_WEIGHT = 1e-7  # a row of smaller weights has the steps of this weight
SUPPORT_LOGIT_UNITS = 1 / math.log(257 / 256)  # steps to a logit of 1, see `codec/questions.py`
LEAST_SCALE, LARGEST_SCALE = -7.5, 4.0  # octaves, of a component by the spread
NARROWEST = 20.0  # a component's scale in bins is at least 1 / 20
FLOOR, SHARE_OF_FLOOR = 1.5e-5, 2e-3  # no bin is impossible: the least that frequency tables give


class StepLinear(nn.Module):
    """A layer of integers whose weights learn; a row's steps to a weight of 1 are a power of two.

    Args:
        inputs: how many.
        outputs: how many.
        gain: of the initial weights.
        units_in: steps to 1 of the inputs.
        units_out: steps to 1 of the outputs, for all rows or for each.
    """

    units_out: Tensor

    def __init__(
        self, inputs: int, outputs: int, gain: float, units_in: int, units_out: float | Sequence[float]
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) * gain / math.sqrt(inputs))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.units_in = units_in
        # float64 stays on the CPU: not every device has it, and no step waits for it
        self._exact_units = torch.tensor(units_out, dtype=torch.float64).expand(outputs).clone()
        self.register_buffer("units_out", self._exact_units.float(), persistent=False)

    def steps(self) -> Tensor:
        """(outputs, 1) powers of two: steps to a weight of 1, so that all of a row fit 8 bits."""
        largest = self.weight.detach().abs().amax(1, keepdim=True).clamp_min(LEAST_WEIGHT)
        return torch.exp2(torch.floor(torch.log2(WEIGHT_MAX / largest)))

    def scale(self, steps: Tensor) -> Tensor:
        """(outputs,) whole in 2^-26: what a sum of whole products is multiplied by.

        In float64 for `steps` on the CPU, in float32 elsewhere.
        """
        is_exact = steps.device.type == "cpu"
        units = self._exact_units if is_exact else self.units_out
        scale = units / self.units_in / steps[:, 0].to(units.dtype)
        limit = 2.0 ** (31 - SCALE_BITS) - 2.0**-SCALE_BITS
        whole: Tensor = (scale * 2.0**SCALE_BITS).round() * 2.0**-SCALE_BITS
        return whole.clamp(max=limit)

    def forward(self, numbers: Tensor) -> Tensor:
        """Integers (n, inputs) -> integers (n, outputs)."""
        steps = self.steps()
        weight = rounded(self.weight * steps)
        sums = F.linear(numbers, weight).float()
        return rounded(sums * self.scale(steps).float() + rounded(self.bias * self.units_out))

    @torch.no_grad()
    def integers(self, name: str) -> Arrays:
        """The arrays of the layer, see `layer_shapes`."""
        steps = self.steps().cpu()
        weight = (self.weight.cpu().double() * steps.double()).round()
        bias = (self.bias * self.units_out).round().clamp(-LARGEST_BIAS, LARGEST_BIAS)
        scale = (self.scale(steps) * 2.0**SCALE_BITS).round()
        return {
            f"{name}.weight": weight.numpy().astype(np.int8),
            f"{name}.scale": scale.numpy().astype(np.int32),
            f"{name}.bias": bias.cpu().numpy().astype(np.int32),
        }


def activations(stream: Tensor) -> Tensor:
    """The activations of a stream in 64ths: 0 to 127, in 16ths."""
    return rounded(stream * (ACTIVATION_UNITS / STREAM_UNITS)).clamp(0, ACTIVATION_MAX)


class ResidueNetwork(nn.Module):
    """Predicts the bins of a residue."""

    def __init__(self, config: ResidueConfig) -> None:
        super().__init__()
        self.config = config
        hidden, inputs, components = config.hidden, config.inputs, config.components
        self.input = StepLinear(inputs, hidden, 1.4, INPUT_UNITS, STREAM_UNITS)
        blocks = range(config.blocks)
        self.first = nn.ModuleList(
            StepLinear(hidden, hidden, 1.4, ACTIVATION_UNITS, ACTIVATION_UNITS) for _ in blocks
        )
        self.second = nn.ModuleList(
            StepLinear(hidden, hidden, 0.5, ACTIVATION_UNITS, STREAM_UNITS) for _ in blocks
        )
        units = [
            each for unit in (OCTAVE_UNITS, CENTRE_UNITS, OCTAVE_UNITS) for each in [unit] * components
        ]
        # inputs enter it beside the activations, as if they were in 16ths too
        self.output = StepLinear(hidden + inputs, 3 * components, 0.3, ACTIVATION_UNITS, units)
        with torch.no_grad():
            self.output.weight[:, :hidden] *= math.sqrt((hidden + inputs) / hidden)
            self.output.weight[:, hidden:] = 0
            centres = torch.linspace(-0.3, 0.3, components)
            scales = torch.linspace(-1.5, 0.5, components)
            self.output.bias.copy_(torch.cat([torch.zeros(components), centres, scales]))

    def forward(self, inputs: Tensor) -> Tensor:
        """(n, inputs) integers -> (n, 3·C) integers: weights, centres and scales of the components."""
        stream = self.input(inputs)
        for first, second in zip(self.first, self.second, strict=True):
            inner = first(activations(stream)).clamp(0, ACTIVATION_MAX)
            stream = stream + second(inner)
        mixture: Tensor = self.output(torch.cat([activations(stream), inputs], 1))
        return mixture

    def integers(self) -> Arrays:
        """The arrays of `ResidueConfig.array_shapes`."""
        arrays = self.input.integers("input") | self.output.integers("output")
        for half in ("first", "second"):
            for number, layer in enumerate(getattr(self, half), start=1):
                arrays |= layer.integers(f"block{number}.{half}")
        return arrays


class SupportNetwork(nn.Module):
    """Predicts whether a voxel is not ground."""

    def __init__(self, config: SupportConfig) -> None:
        super().__init__()
        self.config = config
        first, second = config.hidden
        self.input = StepLinear(config.inputs, first, 1.4, INPUT_UNITS, ACTIVATION_UNITS)
        self.hidden = StepLinear(first, second, 1.4, ACTIVATION_UNITS, ACTIVATION_UNITS)
        self.output = StepLinear(second, 1, 1.0, ACTIVATION_UNITS, SUPPORT_LOGIT_UNITS)

    def forward(self, inputs: Tensor) -> Tensor:
        """(n, inputs) integers -> (n,) logits in the steps of `codec/questions.py`."""
        first = self.input(inputs).clamp(0, ACTIVATION_MAX)
        second = self.hidden(first).clamp(0, ACTIVATION_MAX)
        logits: Tensor = self.output(second)[:, 0]
        return logits

    def integers(self) -> Arrays:
        """The arrays of `SupportConfig.array_shapes`."""
        layers = ("input", "hidden", "output")
        return {
            name: array for each in layers for name, array in getattr(self, each).integers(each).items()
        }


def mixture_bits(
    mixture: Tensor, centre: Tensor, spread: Tensor, bins: Tensor, lowest: Tensor, highest: Tensor
) -> Tensor:
    """The cost of bins by a mixture of logistic distributions, truncated to the range of bins.

    Args:
        mixture: (n, 3·C) integers, see `ResidueNetwork`.
        centre: (n,) of the known bins nearby.
        spread: (n,) of these bins around the centre.
        bins: (n,) that are coded.
        lowest: (n,) the smallest bin of the slice.
        highest: (n,) the largest bin of the slice.

    Returns:
        (n,) bits.
    """
    weights, centres, scales = mixture.float().chunk(3, 1)
    shares = torch.softmax(weights * (math.log(2) / OCTAVE_UNITS), 1)
    octaves = (scales / OCTAVE_UNITS).clamp(LEAST_SCALE, LARGEST_SCALE)
    inverse = (torch.exp2(-octaves) / spread[:, None]).clamp(max=NARROWEST)
    edges = torch.stack([bins - 0.5, bins + 0.5, lowest - 0.5, highest + 0.5])  # (4, n)
    middle = spread[:, None] * (centres / CENTRE_UNITS)
    places = ((edges - centre)[:, :, None] - middle) * inverse  # (4, n, C)
    below = (torch.sigmoid(places) * shares).sum(2)
    share = (below[1] - below[0]) / (below[3] - below[2]).clamp_min(1e-4)
    return -torch.log2(share * (1 - SHARE_OF_FLOOR) + FLOOR)


def support_bits(logits: Tensor, wanted: Tensor) -> Tensor:
    """The cost of answers: (n,) logits in steps, (n,) 1 if a voxel is not ground -> (n,) bits."""
    nats = F.binary_cross_entropy_with_logits(
        logits.float() / SUPPORT_LOGIT_UNITS, wanted, reduction="none"
    )
    return nats / math.log(2)
