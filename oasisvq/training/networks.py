"""Pixels <-> latents in training: the networks of `codec/networks.py` in floating point.

Shapes: B batch, C channels, H×W image, h×w grid (h = H / stride), D code dimension.

`imitation.py` turns them into integers, and computes with these in training. For this purpose a `Gauge`
records the range of numbers at each place where they will be rounded to few bits.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import BackwardCFunction, FunctionCtx

from oasisvq.codec.config import ModelConfig
from oasisvq.codec.networks import sides_of

FIRST_RANGE = 8.0  # to either side, until a gauge has seen something


class Gauge(nn.Module):
    """Passes the inputs of a layer on unchanged, and records their range in training.

    Attributes:
        range: (2,) the least and the greatest number of an image, on average.
        updates: () how often `range` was set.
        limit: () the largest integer that the inputs become; 0 if it is still open.
        seen: (3,) images since `range` was last set, and the sums of their least and greatest numbers.
    """

    range: Tensor
    updates: Tensor
    limit: Tensor
    seen: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("range", torch.tensor([-FIRST_RANGE, FIRST_RANGE]))
        self.register_buffer("updates", torch.zeros(()))
        self.register_buffer("limit", torch.zeros(()))
        self.register_buffer("seen", torch.zeros(3), persistent=False)

    def forward(self, numbers: Tensor) -> Tensor:
        if self.training and torch.is_grad_enabled():  # not in validation or for pictures
            self.look_at(numbers)
        return numbers

    @torch.no_grad()
    def look_at(self, numbers: Tensor) -> None:
        """Record the range of numbers (B, C, H, W)."""
        # image by image, as they lie in memory: over a dimension it is ten times slower on a CPU
        images = numbers.detach().permute(0, 2, 3, 1)
        ends = [torch.stack(image.aminmax()) for image in images]
        least, greatest = torch.stack(ends, 1)
        count = self.seen.new_full((), len(numbers))
        self.seen += torch.stack([count, least.float().sum(), greatest.float().sum()])


class Activation(Gauge):
    """Silu, with a gauge of its inputs."""

    def forward(self, numbers: Tensor) -> Tensor:
        return F.silu(super().forward(numbers))


class ResidualBlock(nn.Module):
    """x + conv(silu(conv(silu(x)))), (B, C, H, W) -> (B, C, H, W); starts as the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.before_first = Activation()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.before_second = Activation()
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.second.weight)

    def forward(self, features: Tensor) -> Tensor:
        inner = self.first(self.before_first(features))
        update: Tensor = self.second(self.before_second(inner))
        return features + update


def shuffled(features: Tensor, factor: int) -> Tensor:
    """PixelShuffle, (B, C·r², H, W) -> (B, C, H·r, W·r), in the memory layout of convolution weights.

    Otherwise all later convolutions would get inputs in another layout than their weights on CUDA.
    """
    return F.pixel_shuffle(features, factor).contiguous(memory_format=torch.channels_last)


def unshuffled(pixels: Tensor, factor: int) -> Tensor:
    """PixelUnshuffle, the inverse of `shuffled`, in the same layout."""
    return F.pixel_unshuffle(pixels, factor).contiguous(memory_format=torch.channels_last)


class Shuffle(nn.PixelShuffle):
    """`shuffled` as a module."""

    def forward(self, features: Tensor) -> Tensor:
        return shuffled(features, self.upscale_factor)


class Unshuffle(nn.PixelUnshuffle):
    """`unshuffled` as a module."""

    def forward(self, pixels: Tensor) -> Tensor:
        return unshuffled(pixels, self.downscale_factor)


class Contexts(nn.Module):
    """What the previous slice adds to each stage of a network; at first it adds nothing.

    Attributes:
        sides: side of a cell in pixels in each stage; empty without contexts.
        layers: a convolution for each stage.
    """

    def __init__(self, config: ModelConfig, network: str) -> None:
        """Build the layers of the `encoder` or the `decoder`."""
        super().__init__()
        channels = config.encoder_channels if network == "encoder" else config.decoder_channels
        self.sides = sides_of(config, network) if config.context else []
        self.layers = nn.ModuleList(
            nn.Conv2d(side * side, width, 3, padding=1)
            for side, width in zip(self.sides, channels, strict=False)
        )
        for layer in self.layers:
            assert isinstance(layer, nn.Conv2d) and layer.bias is not None
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def add_to(self, stream: Tensor, stage: int, context: Tensor | None) -> Tensor:
        """The stream of a stage, from 0, plus what a context (B, 1, H, W) in [0, 1] adds; None is 0."""
        if not self.sides:
            return stream
        layer = self.layers[stage]
        if context is None:
            assert isinstance(layer.bias, Tensor)
            return stream + layer.bias[:, None, None]
        added: Tensor = layer(unshuffled(context, self.sides[stage]))
        return stream + added


class _Conditional(nn.Module):
    """Layers in order; where a stage begins, the previous slice is added."""

    layers: nn.Sequential
    contexts: Contexts

    def run(self, numbers: Tensor, context: Tensor | None) -> Tensor:
        """Run all layers."""
        stage = 0
        for layer in self.layers:
            numbers = layer(numbers)
            if begins_stage(layer) and stage < len(self.contexts.sides):
                numbers = self.contexts.add_to(numbers, stage, context)
                stage += 1
        return numbers


def begins_stage(layer: nn.Module) -> bool:
    """Whether a stage begins with this layer: the first convolution, or a change of resolution."""
    return (isinstance(layer, nn.Conv2d) and layer.kernel_size != (1, 1)) or isinstance(layer, Shuffle)


def _blocks(channels: int, count: int) -> list[nn.Module]:
    return [ResidualBlock(channels) for _ in range(count)]


class Encoder(_Conditional):
    """Pixels (B, 1, H, W) in [0, 1] -> latents (B, D, h, w). H and W are multiples of the stride.

    Each latent vector is scaled to a root mean square of 1. If their size were free, latents would grow
    faster than the moving averages of the codebooks follow: the commitment loss would run away, and most
    codes would die.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        channels, blocks = config.encoder_channels, config.encoder_blocks
        patch = config.stride // 2 ** (len(channels) - 1)
        layers: list[nn.Module] = [
            Unshuffle(patch),
            nn.Conv2d(patch * patch, channels[0], 3, padding=1),
            *_blocks(channels[0], blocks[0]),
        ]
        for finer, coarser, count in zip(channels[:-1], channels[1:], blocks[1:], strict=True):
            layers += [Gauge(), nn.Conv2d(finer, coarser, 2, stride=2), *_blocks(coarser, count)]
        layers += [Activation(), nn.Conv2d(channels[-1], config.code_dim, 1)]
        self.layers = nn.Sequential(*layers)
        self.contexts = Contexts(config, "encoder")

    def forward(self, pixels: Tensor, context: Tensor | None = None) -> Tensor:
        """The context is the previous slice, (B, 1, H, W) in [0, 1], if the config has contexts."""
        latents = self.run(pixels, context)
        with torch.autocast(latents.device.type, enabled=False):
            latents = latents.float()
            return latents * torch.rsqrt(latents.square().mean(1, keepdim=True) + 1e-6)


class Decoder(_Conditional):
    """Latents (B, D, h, w) -> pixels (B, 1, H, W), not yet clamped to [0, 1]."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        channels, blocks = config.decoder_channels, config.decoder_blocks
        patch = config.stride // 2 ** (len(channels) - 1)
        layers: list[nn.Module] = [
            Gauge(),
            nn.Conv2d(config.code_dim, channels[0], 3, padding=1),
            *_blocks(channels[0], blocks[0]),
        ]
        for coarser, finer, count in zip(channels[:-1], channels[1:], blocks[1:], strict=True):
            layers += [Gauge(), nn.Conv2d(coarser, 4 * finer, 1), Shuffle(2)]
            layers += _blocks(finer, count)
        layers += [
            Activation(),
            nn.Conv2d(channels[-1], patch * patch, 3, padding=1),
            nn.PixelShuffle(patch),
        ]
        self.layers = nn.Sequential(*layers)
        self.contexts = Contexts(config, "decoder")

    def forward(self, latents: Tensor, context: Tensor | None = None) -> Tensor:
        """The context is the previous slice, (B, 1, H, W) in [0, 1], if the config has contexts."""
        return self.run(latents, context)


class _ClampTowardsRange(torch.autograd.Function):
    """Clamp to [0, 1]; see `clamp_straight_through`."""

    @staticmethod
    def forward(ctx: FunctionCtx, pixels: Tensor) -> Tensor:
        ctx.save_for_backward(pixels)
        return pixels.clamp(0, 1)

    @staticmethod
    def backward(ctx: BackwardCFunction, gradient: Tensor) -> Tensor:
        (pixels,) = ctx.saved_tensors
        outward = ((pixels < 0) & (gradient > 0)) | ((pixels > 1) & (gradient < 0))
        return gradient.masked_fill(outward, 0)


def clamp_straight_through(pixels: Tensor) -> Tensor:
    """Clamp to [0, 1] and pass the gradient, except where it would push a clamped pixel further out.

    Outside a head a slice is exactly 0. With the clamp in the loss, the decoder may go below 0 there at
    no cost; without it, it would have to balance on 0. A gradient that leads further out has no visible
    effect, and would let the output run away.
    """
    clamped: Tensor = _ClampTowardsRange.apply(pixels)  # type: ignore[no-untyped-call]
    return clamped


def channels_last(module: nn.Module) -> None:
    """Change the memory layout of all convolution weights in place to that of the fast kernels."""
    for parameter in module.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)


def parameter_count(module: nn.Module) -> int:
    """Number of learned values."""
    return sum(parameter.numel() for parameter in module.parameters())
