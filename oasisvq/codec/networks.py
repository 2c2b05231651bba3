"""Pixels <-> latents: the encoder and decoder networks.

Shapes: B batch, C channels, H×W image, h×w grid (h = H / stride), D code dimension.

Both networks are plain residual convolutions without normalisation layers. Pixels are folded
into channels before the first convolution and unfolded after the last (space-to-depth), so that
no convolution runs at full resolution and most of the arithmetic is on the small grids.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import BackwardCFunction, FunctionCtx

from oasisvq.codec.modelfile import ModelConfig


class ResidualBlock(nn.Module):
    """x + conv(silu(conv(silu(x)))), (B, C, H, W) -> (B, C, H, W); starts as the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.second.weight)

    def forward(self, features: Tensor) -> Tensor:
        update: Tensor = self.second(F.silu(self.first(F.silu(features))))
        return features + update


class Shuffle(nn.PixelShuffle):
    """PixelShuffle whose result is laid out like its input, (B, C·r², H, W) -> (B, C, H·r, W·r).

    On CUDA it is not: all convolutions after it would be given another layout than their weights.
    """

    def forward(self, features: Tensor) -> Tensor:
        shuffled: Tensor = super().forward(features)
        if features.is_contiguous(memory_format=torch.channels_last):
            return shuffled.contiguous(memory_format=torch.channels_last)
        return shuffled


class Unshuffle(nn.PixelUnshuffle):
    """PixelUnshuffle for a convolution, laid out like its weights, (B, 1, H, W) -> (B, r², H/r, W/r)."""

    def forward(self, pixels: Tensor) -> Tensor:
        unshuffled: Tensor = super().forward(pixels)
        return unshuffled.contiguous(memory_format=torch.channels_last)


def _blocks(channels: int, count: int) -> list[nn.Module]:
    return [ResidualBlock(channels) for _ in range(count)]


class Encoder(nn.Module):
    """Pixels (B, 1, H, W) in [0, 1] -> latents (B, D, h, w). H and W are multiples of the stride.

    Each latent vector is scaled to a root mean square of 1. Left free, latents grow faster than the
    moving averages of the codebooks follow: commitment runs away and most codes die.
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
            layers += [nn.Conv2d(finer, coarser, 2, stride=2), *_blocks(coarser, count)]
        layers += [nn.SiLU(), nn.Conv2d(channels[-1], config.code_dim, 1)]
        self.layers = nn.Sequential(*layers)

    def forward(self, pixels: Tensor) -> Tensor:
        latents: Tensor = self.layers(pixels)
        with torch.autocast(latents.device.type, enabled=False):
            latents = latents.float()
            return latents * torch.rsqrt(latents.square().mean(1, keepdim=True) + 1e-6)


class Decoder(nn.Module):
    """Latents (B, D, h, w) -> pixels (B, 1, H, W), not yet clamped to [0, 1]."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        channels, blocks = config.decoder_channels, config.decoder_blocks
        patch = config.stride // 2 ** (len(channels) - 1)
        layers: list[nn.Module] = [
            nn.Conv2d(config.code_dim, channels[0], 3, padding=1),
            *_blocks(channels[0], blocks[0]),
        ]
        for coarser, finer, count in zip(channels[:-1], channels[1:], blocks[1:], strict=True):
            layers += [nn.Conv2d(coarser, 4 * finer, 1), Shuffle(2), *_blocks(finer, count)]
        layers += [
            nn.SiLU(),
            nn.Conv2d(channels[-1], patch * patch, 3, padding=1),
            nn.PixelShuffle(patch),
        ]
        self.layers = nn.Sequential(*layers)

    def forward(self, latents: Tensor) -> Tensor:
        pixels: Tensor = self.layers(latents)
        return pixels


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
    """Clamp to [0, 1] and pass the gradient, but for what would push a clamped pixel further out.

    Outside a head a slice is exactly 0. With the clamp in the loss the decoder may go below 0
    there and costs nothing; without it, it would have to balance on 0. A gradient that leads
    further out changes nothing that can be seen, and would let the output run away.
    """
    clamped: Tensor = _ClampTowardsRange.apply(pixels)  # type: ignore[no-untyped-call]
    return clamped


def channels_last(module: nn.Module) -> None:
    """Lay the weights of all convolutions out in place as the fast kernels want them."""
    for parameter in module.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)


def parameter_count(module: nn.Module) -> int:
    """Number of learned values."""
    return sum(parameter.numel() for parameter in module.parameters())
