"""The prior in training: the integer network of `codec/prior.py`, imitated in floating point.

Shapes: B batch, n targets, L levels, h×w grid, K codes, F features, H hidden.

Weights and activations are rounded to the integers that the prior will have, with gradients passed
straight through the rounding (Jacob et al. 2018). So little is lost when they become integers.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from oasisvq.codec.exact import EXACT
from oasisvq.codec.frequencies import FREQUENCY_BITS
from oasisvq.codec.prior import (
    ACTIVATION_MAX,
    ACTIVATION_UNITS,
    FEATURE_UNITS,
    OCTAVE_UNITS,
    SHIFT,
    STREAM_UNITS,
    Prior,
    PriorConfig,
)

KMEANS_ITERATIONS = 20
FEATURE_DEVIATION = 0.5  # of the initial features of codes


def rounded(values: Tensor, units: float | Tensor) -> Tensor:
    """Rounded to multiples of 1 / units, with the gradient passed straight through."""
    return values + ((values * units).round() / units - values).detach()


def rounded_activations(stream: Tensor) -> Tensor:
    """Rectified and rounded to 0..127 steps of 1/16; see `rounded`."""
    return rounded(stream.clamp(0, ACTIVATION_MAX / ACTIVATION_UNITS), ACTIVATION_UNITS)


def rounded_features(features: Tensor) -> Tensor:
    """Rounded to -127..127 steps of 1/32; see `rounded`."""
    limit = ACTIVATION_MAX / FEATURE_UNITS
    return rounded(features.clamp(-limit, limit), FEATURE_UNITS)


class RoundedLinear(nn.Module):
    """A linear layer whose weights are rounded to 8 bits, in steps of one size for each row."""

    def __init__(self, inputs: int, outputs: int, gain: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) * gain / math.sqrt(inputs))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def units(self) -> Tensor:
        """(outputs, 1) steps to a weight of 1, so that all weights fit 8 bits and all sums are exact."""
        size = self.weight.detach().abs()
        inputs = size.shape[1]
        # rounding adds at most half a step to each weight
        largest_sum = EXACT / ACTIVATION_MAX - 1 - inputs / 2
        step = torch.maximum(size.amax(1) / ACTIVATION_MAX, size.sum(1) / largest_sum)
        return 1 / step.clamp_min(1e-8)[:, None]

    def forward(self, inputs: Tensor) -> Tensor:
        """(n, inputs) -> (n, outputs)."""
        return F.linear(inputs, rounded(self.weight, self.units()), self.bias)

    def integers(self, units_in: int, units_out: int) -> dict[str, NDArray[np.generic]]:
        """Weight, scale and bias, for inputs and outputs with these steps to 1."""
        # on the CPU, since not every device has float64
        units = self.units().cpu().double()
        weight = (self.weight.detach().cpu().double() * units).round()
        scale = (units_out / units_in / units[:, 0] * 2**SHIFT).round()
        bias = (self.bias.detach().cpu().double() * units_out).round()
        limit = 2**31 - 1
        return {
            "weight": weight.numpy().astype(np.int8),
            "scale": scale.clamp(0, limit).numpy().astype(np.int32),
            "bias": bias.clamp(-limit, limit).numpy().astype(np.int32),
        }


class LevelNetwork(nn.Module):
    """Predicts the indices of one level."""

    def __init__(self, config: PriorConfig, level: int) -> None:
        super().__init__()
        self.config, self.level = config, level
        size, features = config.codebook_size, config.features
        hidden = config.hidden[level]
        # an empty table gets no gradient, for which several processes would wait
        self.lower = nn.Parameter(
            torch.randn(level, size, features) * FEATURE_DEVIATION, requires_grad=level > 0
        )
        self.has_current = config.passes[level] > 1
        self.current = nn.Parameter(
            torch.randn(size if self.has_current else 0, features) * FEATURE_DEVIATION,
            requires_grad=self.has_current,
        )
        self.position = nn.Parameter(torch.randn(*config.grid, config.position_features) * 0.1)
        self.kind = nn.Parameter(torch.randn(config.kinds, config.kind_features) * FEATURE_DEVIATION)
        self.input = RoundedLinear(config.inputs(level), hidden, 1.4)
        blocks = range(config.blocks[level])
        self.first = nn.ModuleList(RoundedLinear(hidden, hidden, 1.4) for _ in blocks)
        self.second = nn.ModuleList(RoundedLinear(hidden, hidden, 0.5) for _ in blocks)
        self.output = RoundedLinear(hidden, size, 0.5)

    def forward(
        self,
        indices: Tensor,
        kinds: Tensor,
        known: Tensor,
        targets: tuple[Tensor, Tensor, Tensor],
        expected: Tensor | None = None,
    ) -> Tensor:
        """Logits (n, K) in octaves.

        Args:
            indices: (B, L, h, w) int64.
            kinds: (B,) int64.
            known: (B, h, w) bool, whether a cell of this level counts as known.
            targets: slice, row and column of each cell to predict, (n,) each.
            expected: (B, h, w, D) steps of features, see `as_features`; needed if the config says so.
        """
        batch, row, column = targets
        reach = self.config.reach[self.level]
        cells = F.pad(self._cells(indices, known), (0, 0, reach, reach, reach, reach))
        _, height, width, features = cells.shape
        side = torch.arange(2 * reach + 1, device=cells.device)
        offsets = (side[:, None] * width + side[None, :]).reshape(-1)
        corner = (batch * height + row) * width + column
        seen = F.embedding(corner[:, None] + offsets, cells.reshape(-1, features))
        place = rounded_features(self.position[row, column])
        kind = rounded_features(self.kind)[kinds[batch]]
        inputs = [seen.reshape(len(corner), -1), place, kind]
        if self.config.expected:
            assert expected is not None
            inputs.append(self._expected(expected, targets))
        stream = self.input(torch.cat(inputs, 1))
        for first, second in zip(self.first, self.second, strict=True):
            inner = rounded_activations(first(rounded_activations(stream)))
            stream = stream + second(inner)
        logits: Tensor = self.output(rounded_activations(stream))
        return logits

    def _expected(self, expected: Tensor, targets: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """(n, side² · D); see `Prior._expected`."""
        batch, row, column = targets
        side = self.config.expected
        reach = side // 2
        padded = F.pad(expected.float(), (0, 0, reach, reach, reach, reach))
        _, height, width, dimension = padded.shape
        steps = torch.arange(side, device=row.device)
        offsets = (steps[:, None] * width + steps[None, :]).reshape(-1)
        corner = (batch * height + row) * width + column
        seen = F.embedding(corner[:, None] + offsets, padded.reshape(-1, dimension))
        return seen.reshape(len(corner), -1) / FEATURE_UNITS

    def _cells(self, indices: Tensor, known: Tensor) -> Tensor:
        """(B, h, w, features of a cell); see `Prior._cells`."""
        parts = []
        if self.level:
            lower = [
                F.embedding(indices[:, below], rounded_features(self.lower[below]))
                for below in range(self.level)
            ]
            limit = ACTIVATION_MAX / FEATURE_UNITS
            parts.append(torch.stack(lower).sum(0).clamp(-limit, limit))
        mark = torch.ones_like(known, dtype=torch.float32)[..., None]
        if self.has_current:
            seen = known[..., None]
            current = F.embedding(indices[:, self.level], rounded_features(self.current))
            parts += [current * seen, mark * seen]
        return torch.cat([*parts, mark], 3)

    def integers(self) -> dict[str, NDArray[np.generic]]:
        """The arrays of this level, see `PriorConfig.array_shapes`."""

        def features(table: Tensor) -> NDArray[np.generic]:
            whole = (rounded_features(table.detach()) * FEATURE_UNITS).round()
            return whole.cpu().numpy().astype(np.int8)

        arrays = {
            "lower": features(self.lower),
            "current": features(self.current),
            "position": features(self.position),
            "kind": features(self.kind),
        }
        for name, units_in, units_out in (
            ("input", FEATURE_UNITS, STREAM_UNITS),
            ("first", ACTIVATION_UNITS, ACTIVATION_UNITS),
            ("second", ACTIVATION_UNITS, STREAM_UNITS),
            ("output", ACTIVATION_UNITS, OCTAVE_UNITS),
        ):
            layer = getattr(self, name)
            if isinstance(layer, RoundedLinear):
                parts = layer.integers(units_in, units_out)
            else:
                blocks = [block.integers(units_in, units_out) for block in layer]
                shapes = self.config.array_shapes(self.level)
                parts = {
                    part: np.stack([block[part] for block in blocks])
                    if blocks
                    else np.zeros(*shapes[f"{name}.{part}"])
                    for part in ("weight", "scale", "bias")
                }
            arrays |= {f"{name}.{part}": array for part, array in parts.items()}
        return arrays


class Kinds(NamedTuple):
    """The kinds of slices that a training split holds.

    Attributes:
        centres: (kinds, 9·D) pooled latents.
        counts: (kinds,) number of slices of each; those of a training leave out changed slices.
    """

    centres: Tensor
    counts: Tensor

    def nearest(self, pooled_latents: Tensor) -> Tensor:
        """(N, 9·D) -> (N,) int64 kind of each slice, as `Prior.kind_of` finds it."""
        centres = rounded_features(self.centres).cpu().double()
        squares = centres.square().sum(1)
        nearest = [
            (squares - 2 * part.cpu().double() @ centres.t()).argmin(1)
            for part in pooled_latents.split(1024)
        ]
        return torch.cat(nearest).to(pooled_latents.device)

    def counted(self, pooled_latents: Tensor) -> "Kinds":
        """The same kinds, as often as they are among the slices of (N, 9·D)."""
        return self._replace(counts=_counts_of(self.nearest(pooled_latents), len(self.counts)))

    def integers(self) -> dict[str, NDArray[np.generic]]:
        """The arrays of `PriorConfig.kind_shapes`."""
        centres = (rounded_features(self.centres) * FEATURE_UNITS).round()
        return {
            "kinds.centre": centres.cpu().numpy().astype(np.int8),
            "kinds.frequency": kind_frequencies([int(count) for count in self.counts.tolist()]),
        }


def kind_frequencies(counts: list[int]) -> NDArray[np.int32]:
    """Number of slices of each kind -> its frequency, as in `Prior.kind_frequencies`."""
    shares = [count + 1 for count in counts]  # so that no kind is impossible
    whole = 2**FREQUENCY_BITS - len(shares)
    frequencies = np.array([share * whole // sum(shares) for share in shares], dtype=np.int64)
    frequencies[frequencies.argmax()] += whole - frequencies.sum()
    return frequencies.astype(np.int32)


def _counts_of(kinds: Tensor, count: int) -> Tensor:
    """How many of the slices (N,) are of each kind, without waiting for the device."""
    ones = torch.ones(len(kinds), device=kinds.device)
    return torch.zeros(count, device=kinds.device).index_add_(0, kinds, ones)


def kinds_of(pooled_latents: Tensor, count: int, generator: torch.Generator) -> Kinds:
    """Find kinds by k-means over (N, 9·D) pooled latents; a kind without slices keeps its centre."""
    starts = torch.randperm(len(pooled_latents), generator=generator)
    chosen = starts.repeat(-(-count // len(starts)))[:count].to(pooled_latents.device)
    kinds = Kinds(pooled_latents[chosen], torch.zeros(count, device=pooled_latents.device))
    for _ in range(KMEANS_ITERATIONS):
        nearest = kinds.nearest(pooled_latents)
        counts = _counts_of(nearest, count)
        sums = torch.zeros_like(kinds.centres).index_add_(0, nearest, pooled_latents)
        means = sums / counts.clamp_min(1)[:, None]
        kinds = Kinds(torch.where(counts[:, None] > 0, means, kinds.centres), counts)
    return kinds.counted(pooled_latents)


class PriorNetwork(nn.Module):
    """The networks of all levels."""

    def __init__(self, config: PriorConfig) -> None:
        super().__init__()
        self.config = config
        self.levels = nn.ModuleList(LevelNetwork(config, level) for level in range(config.levels))

    @torch.no_grad()
    def start_with_codebooks(self, codebooks: Tensor) -> None:
        """Start the features of codes from their vectors (L, K, D), so that near codes are alike.

        With fewer features than dimensions, all features stay random; with more, the further ones do.
        """
        dimensions = codebooks.shape[2]
        if dimensions > self.config.features:
            return
        scaled = codebooks / codebooks.std((1, 2), keepdim=True) * FEATURE_DEVIATION
        for level, network in enumerate(self.levels):
            assert isinstance(network, LevelNetwork)
            network.lower[:, :, :dimensions] = scaled[:level]
            if network.has_current:
                network.current[:, :dimensions] = scaled[level]

    def prior(self, kinds: Kinds) -> Prior:
        """The prior that a model file gets: the integers that were imitated."""
        arrays: dict[str, NDArray[np.generic]] = kinds.integers()
        for level, network in enumerate(self.levels, start=1):
            assert isinstance(network, LevelNetwork)
            arrays |= {f"level{level}.{name}": part for name, part in network.integers().items()}
        return Prior(self.config, arrays)
