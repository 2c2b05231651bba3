"""Latents <-> indices: the residual vector quantizer, in integers. Never imports torch.

Shapes: n vectors, D code dimension, K codes, L levels, h×w grid.

Level 1 is the codebook of van den Oord et al. 2017 (nearest vector by Euclidean distance). Each further
level quantizes the residual of the levels before it. Only the sum of all levels counts, so a level takes
the code from which the later levels come nearest, which need not be the nearest code itself.

Latents v and codes c are integers, in 256ths. |v - c|² = |v|² + 2 · (|c|²/2 - v·c), and |v|² does not
change which code is nearest, so only |c|²/2 - v·c is compared. Its sums are exact: products are in
float32 if no sum can exceed what that holds, else in float64. Sums over levels and costs are added one
by one, each rounded by IEEE 754. Among equals the code with the lower index is taken.
"""

import math

import numpy as np
from numpy.typing import NDArray

from oasisvq.codec.exact import EXACT, EXACT_DOUBLE, LATENT_UNITS, Numbers
from oasisvq.errors import ModelError

CODEBOOKS = "quantizer.codebooks"
CANDIDATES = 4  # nearest codes of a level that are followed through the later levels
VECTORS_AT_ONCE = 512  # whose distances fit the cache

Indices = NDArray[np.int64]


class Quantizer:
    """Codebooks (L, K, D) with their two inverse queries.

    Attributes:
        codebooks: (L, K, D) float32, integers in 256ths.
    """

    def __init__(self, codebooks: NDArray[np.int16]) -> None:
        """Take the codebooks of a model file.

        Raises:
            ModelError: their values are so large that distances would not be exact.
        """
        dimension = codebooks.shape[2]
        squares = np.square(codebooks.astype(np.int64)).sum(2)  # (L, K)
        lengths = [math.isqrt(int(level.max())) + 1 for level in squares]
        longest = LATENT_UNITS * (math.isqrt(dimension) + 1) + dimension  # of a latent vector
        largest = 0  # of |c|²/2 - v·c, in halves
        for length in lengths:
            largest = max(largest, (2 * longest + length) * length)
            longest += length  # of the residual after the level
        if largest >= EXACT_DOUBLE:
            raise ModelError("codebooks with values too large for exact distances")
        kind = np.float32 if largest < EXACT else np.float64
        self.codebooks: Numbers = codebooks.astype(np.float32)
        self._transposed = [np.ascontiguousarray(book.T, dtype=kind) for book in codebooks]  # (D, K)
        self._halves = (squares / 2).astype(kind)  # (L, K)
        self.energies = [float(level.sum()) / len(level) for level in squares]

    def quantize(self, latents: Numbers, levels: int) -> Indices:
        """The indices (levels, h, w) of latents (h, w, D), regardless of their cost in bits."""
        height, width, _ = latents.shape
        left = latents.reshape(height * width, -1)
        indices = np.empty((levels, height * width), np.int64)
        for level in range(levels):
            indices[level] = self.best(left, level, levels)
            left = left - self.codebooks[level][indices[level]]
        return indices.reshape(levels, height, width)

    def dequantize(self, indices: NDArray[np.integer]) -> Numbers:
        """Indices (levels, h, w) -> latents (h, w, D): the sum of their codes."""
        latents = np.zeros((*indices.shape[1:], self.codebooks.shape[2]), np.float32)
        for codebook, chosen in zip(self.codebooks, indices, strict=False):
            latents += codebook[chosen]
        return latents

    def best(self, vectors: Numbers, level: int, levels: int, costs: Numbers | None = None) -> Indices:
        """Index of the code of a level with which all levels together come nearest.

        Each of the `CANDIDATES` nearest codes is completed by the nearest codes of the later levels,
        and the one that ends nearest is taken.

        Args:
            vectors: (n, D) residuals of the levels before.
            level: from 0.
            levels: how many levels are kept.
            costs: (n, K) added for using a code, in halves of a squared distance.

        Returns:
            (n,).
        """
        chosen = np.empty(len(vectors), np.int64)
        for start in range(0, len(vectors), VECTORS_AT_ONCE):
            part = slice(start, start + VECTORS_AT_ONCE)
            cost = None if costs is None else costs[part]
            chosen[part] = self._best(vectors[part], level, levels, cost)
        return chosen

    def _best(self, vectors: Numbers, level: int, levels: int, costs: Numbers | None) -> Indices:
        distances = self._distances(vectors, level)
        if costs is not None:
            distances += costs
        nearest: Indices = distances.argmin(1)
        if level + 1 == levels:
            return nearest
        rows = np.arange(len(vectors))
        candidates, totals = [], []
        for _ in range(min(CANDIDATES, distances.shape[1])):
            candidates.append(nearest)
            totals.append(distances[rows, nearest])
            distances[rows, nearest] = np.inf
            nearest = distances.argmin(1)
        ordered = np.sort(np.stack(candidates), axis=0)  # (c, n): the lower index of equals comes first
        order = np.argsort(np.stack(candidates), axis=0)
        total = np.take_along_axis(np.stack(totals), order, axis=0).reshape(-1)
        left = (vectors[None] - self.codebooks[level][ordered]).reshape(-1, vectors.shape[1])
        for after in range(level + 1, levels):
            distances = self._distances(left, after)
            nearest = distances.argmin(1)
            total = total + distances[np.arange(len(left)), nearest]
            if after + 1 < levels:
                left = left - self.codebooks[after][nearest]
        winner = total.reshape(ordered.shape).argmin(0)
        best: Indices = ordered[winner, rows]
        return best

    def _distances(self, vectors: Numbers, level: int) -> NDArray[np.floating]:
        """|c|²/2 - v·c, (n, K)."""
        transposed = self._transposed[level]
        distances: NDArray[np.floating] = vectors.astype(transposed.dtype, copy=False) @ transposed
        np.subtract(self._halves[level], distances, out=distances)
        return distances
