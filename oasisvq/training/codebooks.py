"""How codebooks learn: k-means start, exponential moving averages, revival of dead codes.

Shapes: B batch of this process, N = B·h·w its vectors, D code dimension, K codes, L levels.

This is kept apart from `codec/quantizer.py`, so that a query there cannot change a codebook. Everything
is in float32 with autocast off, without N×K one-hot matrices, and without waiting for the device (as
`bincount` would, which asks for the largest index). Statistics are summed over all processes. Random
vectors are drawn from the global batch by a generator that depends only on seed and step, so any number
of processes learns the same.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from oasisvq.data.devices import send
from oasisvq.training.distributed import World
from oasisvq.training.quantizer import (
    ResidualQuantizer,
    levels_counted,
    nearest,
    to_grid,
    to_vectors,
)

DECAY = 0.99
SMOOTHING = 1e-5
DEAD_SHARE = 0.03  # of even use; a code that is used less is revived
KMEANS_VECTORS_PER_CODE = 32
KMEANS_ITERATIONS = 10


class Quantized(NamedTuple):
    """The results of one training pass through the quantizer."""

    latents: Tensor  # (B, D, h, w), straight-through
    commitment: Tensor  # scalar
    residuals: list[Tensor]  # L times (N, D): the input of each level
    indices: list[Tensor]  # L times (N,)


class CodebookLearner:
    """The learning state beside a `ResidualQuantizer`.

    Attributes:
        counts: (L, K) moving average of how often a code is used in a global batch.
        sums: (L, K, D) moving average of the sum of the vectors given to it.
        usage: (L, K) uses since the last `reset_usage`, for perplexity and active codes.
    """

    def __init__(self, quantizer: ResidualQuantizer, world: World) -> None:
        self.quantizer = quantizer
        self.world = world
        levels, size, dim = quantizer.codebooks.shape
        device = quantizer.codebooks.device
        self.counts = torch.zeros(levels, size, device=device)
        self.sums = torch.zeros(levels, size, dim, device=device)
        self.usage = torch.zeros(levels, size, device=device)

    def tensors(self) -> dict[str, Tensor]:
        """The state that a checkpoint keeps, by name."""
        return {"counts": self.counts, "sums": self.sums, "usage": self.usage}

    def reset_usage(self) -> None:
        """Start a new epoch of usage counts."""
        self.usage.zero_()

    def quantize(self, latents: Tensor, kept: Tensor) -> Quantized:
        """Quantize with gradients passed straight through.

        Args:
            latents: (B, D, h, w).
            kept: (B,) number of levels 1..L of each image that the decoder gets (quantizer dropout),
                so that one model serves every number of levels; on the CPU.
        """
        batch, _, height, width = latents.shape
        vectors = to_vectors(latents)
        counts = levels_counted(kept, len(self.quantizer.codebooks))
        kept = send(kept, vectors.device)
        found = self.quantizer.quantize_vectors(vectors.detach(), counts, kept.argsort())
        kept_of_vector = kept[:, None].expand(-1, height * width).reshape(-1, 1)  # (N, 1)
        residual = vectors.detach()
        chosen = torch.zeros_like(residual)
        commitment = vectors.new_zeros(())
        residuals, indices = [], []
        for level, (codebook, index) in enumerate(zip(self.quantizer.codebooks, found, strict=True)):
            residuals.append(residual)
            indices.append(index)
            residual = residual - codebook[index]
            chosen = chosen + codebook[index] * (kept_of_vector > level)
            commitment = commitment + (vectors - (vectors.detach() - residual)).square().mean()
        straight_through = vectors + (chosen - vectors).detach()
        return Quantized(
            to_grid(straight_through, batch, height, width),
            commitment / len(self.quantizer.codebooks),
            residuals,
            indices,
        )

    @torch.no_grad()
    def update(self, quantized: Quantized, generator: torch.Generator) -> None:
        """One step of the moving averages (van den Oord et al. 2017, appendix A), all levels.

        A code whose count has fallen below `DEAD_SHARE` of an even use takes over a random vector
        of this global batch, with its moving averages.
        """
        levels, size, dim = self.sums.shape
        device = self.sums.device
        local = len(quantized.indices[0])
        picks = torch.randint(local * self.world.size, (levels, size), generator=generator)
        picks = send(picks, device)
        statistics = torch.zeros(levels, size, 1 + 2 * dim, device=device)
        counts, sums, drawn = statistics.split([1, dim, dim], dim=2)
        for level, (residual, index) in enumerate(
            zip(quantized.residuals, quantized.indices, strict=True)
        ):
            counts[level, :, 0].index_add_(0, index, torch.ones_like(residual[:, 0]))
            sums[level].index_add_(0, index, residual)
            drawn[level] = self._own_rows(residual, picks[level])
        self.world.sum_(statistics)
        counts = counts.squeeze(2)
        self.usage += counts
        self.counts.mul_(DECAY).add_(counts, alpha=1 - DECAY)
        self.sums.mul_(DECAY).add_(sums, alpha=1 - DECAY)
        total = self.counts.sum(1, keepdim=True)  # (L, 1)
        smooth = (self.counts + SMOOTHING) / (total + size * SMOOTHING) * total
        codebooks = self.sums / smooth[:, :, None].clamp_min(SMOOTHING)
        even = total / size
        dead = self.counts < DEAD_SHARE * even
        self.quantizer.codebooks.copy_(torch.where(dead[:, :, None], drawn, codebooks))
        self.counts.copy_(torch.where(dead, even.expand_as(dead), self.counts))
        self.sums.copy_(torch.where(dead[:, :, None], drawn * even[:, :, None], self.sums))

    @torch.no_grad()
    def start_with_kmeans(
        self, latents: Tensor, generator: torch.Generator, learned_levels: int = 0
    ) -> None:
        """Set every level by k-means on the residuals that earlier levels leave of a global batch.

        The first `learned_levels` keep their codebooks.
        """
        levels, size, dim = self.sums.shape
        device = self.sums.device
        residual = to_vectors(latents)
        available = len(residual) * self.world.size
        wanted = min(available, KMEANS_VECTORS_PER_CODE * size)
        sample = self._own_rows(
            residual, send(torch.randperm(available, generator=generator)[:wanted], device)
        )
        self.world.sum_(sample)
        for level in range(levels):
            starts = send(torch.randint(wanted, (size,), generator=generator), device)
            learned = level < learned_levels
            codebook = self.quantizer.codebooks[level].clone() if learned else sample[starts] + 0.0
            for _ in range(0 if learned else KMEANS_ITERATIONS):
                index = nearest(sample, codebook)
                counts = torch.zeros(size, device=device).index_add_(
                    0, index, torch.ones_like(sample[:, 0])
                )
                sums = torch.zeros(size, dim, device=device).index_add_(0, index, sample)
                used = (counts > 0)[:, None]
                codebook = torch.where(used, sums / counts.clamp_min(1)[:, None], sample[starts])
            self.world.broadcast_(codebook)  # a GPU adds in no fixed order
            self.quantizer.codebooks[level] = codebook
            even = len(residual) * self.world.size / size
            self.counts[level] = even
            self.sums[level] = codebook * even
            sample = sample - codebook[nearest(sample, codebook)]

    def _own_rows(self, vectors: Tensor, picks: Tensor) -> Tensor:
        """Rows `picks` of the global batch where this process has them, 0 elsewhere.

        The sum over all processes gives the picked rows exactly.
        """
        local = len(vectors)
        own = (picks // local == self.world.rank)[:, None]
        return torch.where(own, vectors[picks % local], torch.zeros((), device=vectors.device))

    def perplexity(self) -> Tensor:
        """(L,) exponential of the entropy of the usage since `reset_usage`, 1..K."""
        shares = self.usage / self.usage.sum(1, keepdim=True).clamp_min(1)
        return torch.exp(-(shares * shares.clamp_min(1e-12).log()).sum(1))

    def active(self) -> Tensor:
        """(L,) codes used at all since `reset_usage`."""
        return (self.usage > 0).sum(1)
