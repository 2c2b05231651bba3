"""The integer arithmetic of a model in torch, for training.

Shapes: B batch, C channels, H×W image, h×w grid, D code dimension.

It is the arithmetic of `codec/networks.py`, number for number: sums of integers in float32, a scale and
a bias, rounding, tables. Gradients pass straight through the rounding. On a CPU in float32 the results
are equal to the last bit. In bfloat16, or on a device that multiplies less exactly, they are close,
which is enough for learning.

The last part of a training imitates the integers, see `TrainingConfig`. Before that, networks learn in
floating point at full speed, and gauges record the ranges that will be needed. Then ranges and steps are
fixed, and weights settle on integers.
"""

from collections.abc import Iterator, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import BackwardCFunction, FunctionCtx

from oasisvq.codec.config import ModelConfig
from oasisvq.codec.exact import GAIN_UNITS, LATENT_UNITS, SCALE_BITS, Table
from oasisvq.codec.networks import DECODED_STEPS, LARGEST_LATENT, PIXEL_STEPS, patch_of, sides_of
from oasisvq.training.distributed import World
from oasisvq.training.integers import Entry, entry_of, free_limit, layer_of, rounded, units_of
from oasisvq.training.networks import Activation, Gauge, shuffled, unshuffled
from oasisvq.training.weights import Model

RANGE_DECAY = 0.99
Spec = tuple[int, ...]


class Integers(nn.Module):
    """Encoder and decoder of one config; it holds only tables, and each call is given the arrays."""

    def __init__(
        self, config: ModelConfig, specs: Mapping[str, Spec], device: torch.device, exact: bool
    ) -> None:
        """Compute the tables of a model.

        Args:
            config: of the model.
            specs: its arrays `table` and `scaling`, by name.
            device: where the tables are put, so that none has to be sent there during a step.
            exact: whether latents are normalised in float64, as in the codec, on every device that has
                it. Otherwise this is done on CPUs only; elsewhere some latents differ by 1/256.
        """
        super().__init__()
        self.config, self.specs, self.exact = config, dict(specs), exact
        self._tables = {
            spec: torch.from_numpy(Table.silu_values(spec, name)).to(device)
            for name, spec in self.specs.items()
            if name.endswith(".table")
        }

    def encoder(
        self, arrays: Mapping[str, Tensor], pixels: Tensor, context: Tensor | None = None
    ) -> Tensor:
        """Pixels (B, 1, H, W) in [0, 1] -> latents (B, D, h, w), multiples of 1/256.

        Args:
            arrays: of the model.
            pixels: of the slices.
            context: (B, 1, H, W) in [0, 1], the previous slice of each; None if there is none.
        """
        channels, blocks = self.config.encoder_channels, self.config.encoder_blocks
        grid = unshuffled(rounded(pixels * PIXEL_STEPS), patch_of(self.config, channels))
        stream = _layer(arrays, "encoder.input", grid)
        for stage, count in enumerate(blocks, start=1):
            name = f"encoder.stage{stage}"
            if stage > 1:
                scaled = self._scaled(f"{name}.down", stream)
                stream = _layer(arrays, f"{name}.down", scaled, stride=2)
            stream = self._with_context(arrays, "encoder", stage, stream, context)
            stream = self._blocks(arrays, name, count, stream)
        latents = _layer(arrays, "encoder.output", self._activated("encoder.output", stream))
        return _normalised(latents, self.exact)

    def decoder(
        self, arrays: Mapping[str, Tensor], latents: Tensor, context: Tensor | None = None
    ) -> Tensor:
        """Latents (B, D, h, w) -> pixels (B, 1, H, W), not yet clamped to [0, 1]; see `encoder`."""
        channels, blocks = self.config.decoder_channels, self.config.decoder_blocks
        scaled = self._scaled("decoder.input", rounded(latents.float() * LATENT_UNITS))
        stream = _layer(arrays, "decoder.input", scaled)
        for stage, count in enumerate(blocks, start=1):
            name = f"decoder.stage{stage}"
            if stage > 1:
                grid = _layer(arrays, f"{name}.up", self._scaled(f"{name}.up", stream))
                # (B, row · column · C, h, w) -> (B, C · row · column, h, w)
                grid = grid.unflatten(1, (4, -1)).transpose(1, 2).flatten(1, 2)
                stream = shuffled(grid, 2)
            stream = self._with_context(arrays, "decoder", stage, stream, context)
            stream = self._blocks(arrays, name, count, stream)
        grid = _layer(arrays, "decoder.output", self._activated("decoder.output", stream))
        return F.pixel_shuffle(grid, patch_of(self.config, channels)) / DECODED_STEPS

    def _with_context(
        self,
        arrays: Mapping[str, Tensor],
        network: str,
        stage: int,
        stream: Tensor,
        context: Tensor | None,
    ) -> Tensor:
        """The stream of a stage plus what the previous slice adds to it."""
        if not self.config.context:
            return stream
        name = f"{network}.stage{stage}.context"
        if context is None:
            return stream + arrays[f"{name}.bias"][:, None, None]
        side = sides_of(self.config, network)[stage - 1]
        return stream + _layer(arrays, name, unshuffled(rounded(context * PIXEL_STEPS), side))

    def _blocks(self, arrays: Mapping[str, Tensor], stage: str, count: int, stream: Tensor) -> Tensor:
        for block in range(1, count + 1):
            first, second = (f"{stage}.block{block}.{half}" for half in ("first", "second"))
            inner = _layer(arrays, first, self._activated(first, stream))
            stream = stream + _layer(arrays, second, self._activated(second, inner))
        return stream

    def _activated(self, name: str, numbers: Tensor) -> Tensor:
        """The values of a table, with the gradient of silu."""
        spec = self.specs[f"{name}.table"]
        activated: Tensor = _LookUp.apply(numbers.float(), self._tables[spec], spec)  # type: ignore[no-untyped-call]
        return activated

    def _scaled(self, name: str, numbers: Tensor) -> Tensor:
        """The scaled numbers."""
        gain, limit = self.specs[f"{name}.scaling"]
        factor = torch.tensor(gain, dtype=torch.float32) * 2.0**-SCALE_BITS
        return rounded(numbers.float() * factor.item()).clamp(-limit, limit)


def _layer(arrays: Mapping[str, Tensor], name: str, numbers: Tensor, stride: int = 1) -> Tensor:
    """(B, C, h, w) integers -> (B, outputs, h, w) integers."""
    weight = arrays[f"{name}.weight"]
    weight = weight[:, None, None] if weight.dim() == 2 else weight
    weight = weight.permute(0, 3, 1, 2)  # (outputs, row, column, C) -> (outputs, C, row, column)
    padding = 1 if weight.shape[2] == 3 else 0
    sums = F.conv2d(numbers, weight, stride=stride, padding=padding)
    scale = arrays[f"{name}.scale"] * 2.0**-SCALE_BITS
    results: Tensor = _Scale.apply(sums, scale, arrays[f"{name}.bias"])  # type: ignore[no-untyped-call]
    return results


class _LookUp(torch.autograd.Function):
    """The values of a table at integers held as floats. The gradient is that of silu, and 0 outside.

    Each direction is a single pass over the numbers: such passes, not products, take most of a step.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, numbers: Tensor, table: Tensor, spec: Spec) -> Tensor:
        low, high, _, _ = ctx.spec = spec  # type: ignore[attr-defined]
        ctx.save_for_backward(numbers)
        # NaN becomes the least integer, which is no place; the loss then says that it is not a number
        return table[numbers.clamp(low, high).sub_(low).int().clamp_min_(0)]

    @staticmethod
    def backward(ctx: BackwardCFunction, gradient: Tensor) -> tuple[Tensor, None, None]:
        (numbers,) = ctx.saved_tensors
        low, high, units, gain = ctx.spec  # type: ignore[attr-defined]
        slope = torch.ops.aten.silu_backward(gradient, numbers / units).mul_(gain / GAIN_UNITS / units)
        return slope.masked_fill_((numbers < low) | (numbers > high), 0), None, None


class _Scale(torch.autograd.Function):
    """Sums (B, C, h, w) · scale (C,) + bias (C,), rounded, with the gradient passed straight through.

    The scale gets no gradient: it follows from the weights, which get their own.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, sums: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(scale)
        ctx.dtype = sums.dtype  # type: ignore[attr-defined]
        return (sums * scale[:, None, None]).add_(bias[:, None, None]).round_()

    @staticmethod
    def backward(ctx: BackwardCFunction, gradient: Tensor) -> tuple[Tensor, None, Tensor]:
        (scale,) = ctx.saved_tensors
        of_sums = (gradient * scale[:, None, None]).to(ctx.dtype)  # type: ignore[attr-defined]
        return of_sums, None, gradient.sum((0, 2, 3))


def _normalised(latents: Tensor, exact: bool) -> Tensor:
    """(B, D, h, w) in any unit -> vectors with a mean square of 1, in multiples of 1/256."""
    device = latents.device.type
    with torch.autocast(device, enabled=False):
        wide = torch.float64 if device == "cpu" or (exact and device != "mps") else torch.float32
        numbers = latents.clamp(-LARGEST_LATENT, LARGEST_LATENT).to(wide)
        size = torch.sqrt(numbers.square().sum(1, keepdim=True) / numbers.shape[1] + 1.0)
        return (rounded(numbers * LATENT_UNITS / size) / LATENT_UNITS).float()


class Imitation(nn.Module):
    """The integers of a model that learns; each pass computes them anew from its weights."""

    def __init__(self, model: Model) -> None:
        """Fix ranges and steps by what the gauges have recorded, and limits that are still open."""
        super().__init__()
        self.parts = model.parts()
        for part in self.parts:
            if part.entry is not None and not part.entry.limit:
                part.entry.limit.fill_(free_limit(part))
        self.entries = {part.name: entry_of(part) for part in self.parts}
        specs = {
            f"{part.name}.{_kind(part.entry)}": tuple(entry.spec.tolist())
            for part, entry in zip(self.parts, self.entries.values(), strict=True)
            if entry.spec is not None
        }
        device = self.parts[0].layer.weight.device
        self.integers = Integers(model.config, specs, device, exact=False)
        self.units = {part.name: units_of(part) for part in self.parts}

    def encoder(self, pixels: Tensor, context: Tensor | None = None) -> Tensor:
        """As `Encoder.forward` of the floating networks."""
        return self.integers.encoder(self._arrays("encoder"), pixels, context)

    def decoder(self, latents: Tensor, context: Tensor | None = None) -> Tensor:
        """As `Decoder.forward` of the floating networks."""
        return self.integers.decoder(self._arrays("decoder"), latents, context)

    def _arrays(self, network: str) -> dict[str, Tensor]:
        arrays: dict[str, Tensor] = {}
        for part in self.parts:
            if part.name.startswith(network):
                entry: Entry = self.entries[part.name]
                layer = layer_of(part, entry, self.units[part.name])
                arrays |= {f"{part.name}.{name}": each for name, each in layer.items()}
        return arrays


def _kind(entry: Gauge | None) -> str:
    return "table" if isinstance(entry, Activation) else "scaling"


@torch.no_grad()
def update_ranges(model: nn.Module, world: World) -> None:
    """Update the range of each gauge by what it has seen since the last time, in all processes."""
    gauges = list(_gauges(model))
    seen = torch.stack([gauge.seen for gauge in gauges])  # (gauges, 3)
    world.sum_(seen)
    ends = seen[:, 1:] / seen[:, :1].clamp_min(1)
    for gauge, end, met in zip(gauges, ends, seen[:, 0] > 0, strict=True):
        share = (1 / (gauge.updates + 1)).clamp_min(1 - RANGE_DECAY) * met
        gauge.range.lerp_(end, share)
        gauge.updates += met
        gauge.seen.zero_()


def _gauges(model: nn.Module) -> Iterator[Gauge]:
    return (module for module in model.modules() if isinstance(module, Gauge))
