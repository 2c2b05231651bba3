"""Latents <-> indices: the residual vector quantizer.

Shapes: B batch, N = B·h·w vectors, D code dimension, K codes, L levels, h×w grid.

Level 1 is the codebook of van den Oord et al. 2017 (nearest vector by Euclidean distance); each
further level quantizes what the levels before it left over. What counts is the sum over all levels. So a
level takes the code with which it and the following levels come nearest, which need not be the nearest
code. A query never changes a codebook: how codebooks learn is in `training/codebooks.py`.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

CANDIDATES = 4  # nearest codes of a level that are tried with the following levels
VECTORS_AT_ONCE = 65_536  # bounds the N×K distances in memory
VECTORS_IN_CACHE = 2_048  # the same on a CPU, which is several times faster while they fit its cache


def nearest(vectors: Tensor, codebook: Tensor) -> Tensor:
    """Index of the nearest code of each vector, (N, D) and (K, D) -> (N,) int64, in float32.

    |v - c|² = |v|² - 2 v·c + |c|², and |v|² does not change which code is nearest.
    """
    return torch.cat([_least(_distances(part, codebook)) for part in _parts(vectors)])


def best(vectors: Tensor, codebooks: Tensor, costs: Tensor | None = None) -> Tensor:
    """Index of the code of the first level with which all levels together come nearest to each vector.

    Each of the `CANDIDATES` nearest codes is followed by the nearest code of each further level. The
    candidate whose sum ends nearest is taken.

    Args:
        vectors: (N, D).
        codebooks: (l, K, D) of this level and the following ones, at least one.
        costs: (N, K) cost of each code, which is added to its squared distance.

    Returns:
        (N,) int64.
    """
    parts = _parts(vectors)
    costs_of_parts = [None] * len(parts) if costs is None else _parts(costs)
    return torch.cat(
        [_best(part, codebooks, cost) for part, cost in zip(parts, costs_of_parts, strict=True)]
    )


def _best(vectors: Tensor, codebooks: Tensor, costs: Tensor | None) -> Tensor:
    first, after = codebooks[0], codebooks[1:]
    distances = _distances(vectors, first)
    if costs is not None:
        distances = distances + costs
    if not len(after):
        return _least(distances)
    candidates = distances.topk(min(CANDIDATES, len(first)), largest=False).indices  # (N, c)
    left = (vectors[:, None] - first[candidates]).flatten(0, 1)
    for codebook in after:
        left = left - codebook[_least(_distances(left, codebook))]
    totals = left.square().sum(1).view_as(candidates)
    if costs is not None:
        totals = totals + costs.gather(1, candidates)
    return candidates.gather(1, totals.argmin(1, keepdim=True)).squeeze(1)


def _distances(vectors: Tensor, codebook: Tensor) -> Tensor:
    """(N, D) and (K, D) -> (N, K) squared distances minus |vector|², in float32."""
    with torch.autocast(vectors.device.type, enabled=False):
        codebook = codebook.float()
        return torch.addmm(codebook.square().sum(1), vectors.float(), codebook.t(), alpha=-2)


def _least(distances: Tensor) -> Tensor:
    """(N, K) -> (N,) place of the smallest in each row; `argmin` takes twice as long on a CPU."""
    return distances.min(1).indices


def _parts(vectors: Tensor) -> tuple[Tensor, ...]:
    at_once = VECTORS_IN_CACHE if vectors.device.type == "cpu" else VECTORS_AT_ONCE
    parts: tuple[Tensor, ...] = vectors.split(at_once)
    return parts


def to_vectors(latents: Tensor) -> Tensor:
    """(B, D, h, w) -> (B·h·w, D), float32."""
    return latents.float().permute(0, 2, 3, 1).reshape(-1, latents.shape[1])


def to_grid(vectors: Tensor, batch: int, height: int, width: int) -> Tensor:
    """(B·h·w, D) -> (B, D, h, w); the inverse of `to_vectors`."""
    return vectors.reshape(batch, height, width, -1).permute(0, 3, 1, 2)


def levels_counted(kept: Tensor, levels: int) -> list[int]:
    """(B,) numbers of levels, 1..L, that images keep, on the CPU -> how many images keep 1, 2, .. L."""
    counts: list[int] = kept.bincount(minlength=levels + 1)[1:].tolist()
    return counts


class ResidualQuantizer(nn.Module):
    """Codebooks (L, K, D), queried in both directions: `quantize` and `dequantize`."""

    codebooks: Tensor

    def __init__(self, levels: int, codebook_size: int, code_dim: int) -> None:
        super().__init__()
        self.register_buffer("codebooks", torch.zeros(levels, codebook_size, code_dim))

    def quantize(self, latents: Tensor, kept: Tensor) -> Tensor:
        """Latents (B, D, h, w) -> indices (B, L, h, w) int64 in 0..K-1.

        Args:
            latents: of B images.
            kept: (B,) number of levels, 1..L, of each image that will be dequantized. Each of them looks
                ahead to the others; further levels take the code nearest to what is left over. This
                tensor lies on the CPU, since it decides what is computed.
        """
        batch, _, height, width = latents.shape
        counts = levels_counted(kept, len(self.codebooks))
        order = kept.argsort().to(latents.device)
        grids = self.quantize_vectors(to_vectors(latents), counts, order)
        return grids.reshape(-1, batch, height, width).transpose(0, 1)

    def quantize_vectors(self, vectors: Tensor, counts: Sequence[int], order: Tensor) -> Tensor:
        """Vectors (N, D) of B images -> indices (L, N); see `quantize`.

        What is computed depends on `counts` alone, not on any value on the device.

        Args:
            vectors: of whole images, one after the other.
            counts: how many images keep 1, 2, .. L levels.
            order: (B,) the images, those that keep the fewest levels first; on the vectors' device.
        """
        levels, batch = len(self.codebooks), len(order)
        cells = len(vectors) // batch
        residual = vectors.reshape(batch, cells, -1)[order].flatten(0, 1)
        indices = []
        for level, codebook in enumerate(self.codebooks):
            # images that keep no level beyond this one come first, and do not look ahead
            images = [sum(counts[: level + 1]), *counts[level + 1 :]]
            parts = residual.split([count * cells for count in images])
            index = torch.cat(
                [
                    best(part, self.codebooks[level:end])
                    for end, part in enumerate(parts, start=level + 1)
                    if len(part)
                ]
            )
            indices.append(index)
            residual = residual - codebook[index]
        in_order = torch.stack(indices).reshape(levels, batch, cells)
        return in_order[:, order.argsort()].flatten(1)

    def dequantize(self, indices: Tensor, kept: Tensor | None = None) -> Tensor:
        """Indices (B, l, h, w), l <= L -> latents (B, D, h, w) float32: the sum of their codes.

        Args:
            indices: of B images.
            kept: (B,) number of levels that are summed for each image; all if None.
        """
        batch, levels, height, width = indices.shape
        vectors = torch.zeros(
            batch * height * width, self.codebooks.shape[2], device=self.codebooks.device
        )
        for level in range(levels):
            codes = self.codebooks[level][indices[:, level].reshape(-1)]
            if kept is not None:
                is_kept = (kept > level).to(codes.device, codes.dtype)
                codes = codes * is_kept.repeat_interleave(height * width)[:, None]
            vectors = vectors + codes
        return to_grid(vectors, batch, height, width)
