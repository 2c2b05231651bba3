"""Latents <-> indices: the residual vector quantizer.

Shapes: B batch, N = B·h·w vectors, D code dimension, K codes, L levels, h×w grid.

Level 1 is the codebook of van den Oord et al. 2017 (nearest vector by Euclidean distance); each
further level quantizes what the levels before it left over. A query never changes a codebook:
how codebooks learn is in `training/codebooks.py`.
"""

import torch
from torch import Tensor, nn

VECTORS_AT_ONCE = 65_536  # bounds the N×K distances held at a time


def nearest(vectors: Tensor, codebook: Tensor) -> Tensor:
    """Index of the nearest code of each vector, (N, D) and (K, D) -> (N,) int64, in float32.

    |v - c|² = |v|² - 2 v·c + |c|², and |v|² does not change which code is nearest.
    """
    with torch.autocast(vectors.device.type, enabled=False):
        codebook = codebook.float()
        offsets = codebook.square().sum(1)
        return torch.cat(
            [
                torch.addmm(offsets, part.float(), codebook.t(), alpha=-2).argmin(1)
                for part in vectors.split(VECTORS_AT_ONCE)
            ]
        )


def to_vectors(latents: Tensor) -> Tensor:
    """(B, D, h, w) -> (B·h·w, D), float32."""
    return latents.float().permute(0, 2, 3, 1).reshape(-1, latents.shape[1])


def to_grid(vectors: Tensor, batch: int, height: int, width: int) -> Tensor:
    """(B·h·w, D) -> (B, D, h, w); the inverse of `to_vectors`."""
    return vectors.reshape(batch, height, width, -1).permute(0, 3, 1, 2)


class ResidualQuantizer(nn.Module):
    """Codebooks (L, K, D) with their two inverse queries."""

    codebooks: Tensor

    def __init__(self, levels: int, codebook_size: int, code_dim: int) -> None:
        super().__init__()
        self.register_buffer("codebooks", torch.zeros(levels, codebook_size, code_dim))

    def quantize(self, latents: Tensor, levels: int) -> Tensor:
        """Latents (B, D, h, w) -> indices (B, levels, h, w) int64 in 0..K-1."""
        batch, _, height, width = latents.shape
        residual = to_vectors(latents)
        indices = []
        for codebook in self.codebooks[:levels]:
            index = nearest(residual, codebook)
            residual = residual - codebook[index]
            indices.append(index.reshape(batch, height, width))
        return torch.stack(indices, dim=1)

    def dequantize(self, indices: Tensor) -> Tensor:
        """Indices (B, l, h, w), l <= L -> latents (B, D, h, w) float32: the sum of their codes."""
        batch, levels, height, width = indices.shape
        vectors = torch.zeros(
            batch * height * width, self.codebooks.shape[2], device=self.codebooks.device
        )
        for level in range(levels):
            vectors = vectors + self.codebooks[level][indices[:, level].reshape(-1)]
        return to_grid(vectors, batch, height, width)
