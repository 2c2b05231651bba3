"""The model of index grids: gives integer frequencies; drives entropy coding AND sampling.

Shapes: B batch, n cells of one pass, L levels, h×w grid, K codes, F features of a code, H hidden.

One small network per level predicts each index from the indices around it, those of the levels below,
its place in the head, and the kind of the slice. The kind is the nearest of a few centres of pooled
latents; it is coded first, so that distant parts agree. A level is coded in a few passes over evenly
spread groups of cells (in the order of a 4×4 Bayer matrix). Within a pass all cells are predicted at
once, from what earlier passes and levels have fixed. The order is the same for coding and sampling.

**No float decides a frequency.** Weights and activations are integers of 8 bits. The only floating-point
operation is the product of integer matrices in float32. `Prior` refuses weights for which any sum could
reach 2^24, so every partial sum is an integer that float32 holds exactly: no order of summation, number
of threads, vector width or machine can change it. All else is in int64, and frequencies come from a
table of integers. NumPy computes them on the CPU of every machine; torch and its devices are not
involved.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from oasisvq.codec.exact import EXACT, LATENT_UNITS, largest_sum, refuse_other_arrays, symmetric
from oasisvq.codec.frequencies import FREQUENCY_BITS, Frequencies, Indices, frequencies_of
from oasisvq.errors import ModelError

ACTIVATION_MAX = 127
FEATURE_UNITS = 32  # integer steps to one unit of a feature
POOLED_UNITS = 8  # 256ths of pooled latents to a step of a centre
ACTIVATION_UNITS = 16  # steps to 1 of what enters a matrix product in the hidden layers
STREAM_UNITS = 64  # steps to 1 of the stream that the blocks add to
OCTAVE_UNITS = 16  # steps of a logit to an octave, a factor of two
SHIFT = 24  # a scale of 2^24 multiplies by one
CELLS_AT_ONCE = 8192
USED_SHARE = 0.75  # of the inputs; if more are used, leaving out the others costs more than it saves
PARTS = 3  # to a side of a grid, which is pooled to find its kind
MAX_KINDS = 4096
MAX_REACH = 8
MAX_FEATURES = 256
MAX_HIDDEN = 2048
MAX_BLOCKS = 16
_STREAM_MAX = 2**15 - 1
# a cell's place in the order, by its row and column modulo 4
_BAYER = np.array([[0, 8, 2, 10], [12, 4, 14, 6], [3, 11, 1, 9], [15, 7, 13, 5]])
# number of passes -> how many of the 16 places each takes; where little is known, passes are small
PASS_SIZES = {1: (16,), 2: (8, 8), 4: (4,) * 4, 8: (2,) * 8, 12: (1,) * 8 + (2,) * 4, 16: (1,) * 16}


@dataclass(frozen=True)
class PriorConfig:
    """Everything that rebuilds a prior except its arrays.

    Attributes:
        codebook_size: codes K of each level.
        grid: height and width of the grid that positions are learned on.
        code_dim: dimension D of a code vector.
        features: number of features of a code.
        position_features: number of features of a position.
        kinds: number of kinds of slices.
        kind_features: number of features of a kind.
        hidden: by level, width of the hidden layers.
        blocks: by level, number of residual blocks.
        reach: by level, how many cells are seen in each direction.
        passes: by level, number of passes: 1, 2, 4, 8, 12 or 16.
        expected: side in cells, an odd number, of the window in which expected latents are seen; 0 for a
            prior that sees none.
    """

    codebook_size: int
    grid: tuple[int, int]
    code_dim: int
    features: int
    position_features: int
    kinds: int
    kind_features: int
    hidden: tuple[int, ...]
    blocks: tuple[int, ...]
    reach: tuple[int, ...]
    passes: tuple[int, ...]
    expected: int = 0

    def __post_init__(self) -> None:
        limits = {
            "codebook_size": (2, 65_535),
            "features": (1, MAX_FEATURES),
            "position_features": (1, MAX_FEATURES),
            "kinds": (2, MAX_KINDS),
            "kind_features": (1, MAX_FEATURES),
            "code_dim": (1, 1024),
        }
        for name, (low, high) in limits.items():
            if not low <= getattr(self, name) <= high:
                raise ModelError(
                    f"prior config: {name} is {getattr(self, name)}, expected {low} to {high}"
                )
        by_level = {
            "hidden": (self.hidden, range(1, MAX_HIDDEN + 1)),
            "blocks": (self.blocks, range(MAX_BLOCKS + 1)),
            "reach": (self.reach, range(MAX_REACH + 1)),
            "passes": (self.passes, tuple(PASS_SIZES)),
        }
        for name, (values, allowed) in by_level.items():
            if not values or len(values) != self.levels or not set(values) <= set(allowed):
                raise ModelError(
                    f"prior config: {name} is {values}, expected {self.levels} of {allowed}"
                )
        if self.expected and self.expected not in range(1, 2 * MAX_REACH + 2, 2):
            raise ModelError(
                f"prior config: expected is {self.expected}, expected 0 or an odd number to "
                f"{2 * MAX_REACH + 1}"
            )
        if len(self.grid) != 2 or not all(1 <= side <= 4096 for side in self.grid):
            raise ModelError(f"prior config: grid {self.grid}, expected two sides of 1 to 4096")

    @property
    def levels(self) -> int:
        """Number of levels L that the prior predicts."""
        return len(self.reach)

    def cell_features(self, level: int) -> int:
        """Features of one cell, as the network of a level (from 0) sees it.

        These are the features of the levels below; if the level has several passes, those of its own
        code and a mark that it is known; and a mark that the cell lies in the grid.
        """
        return (level > 0) * self.features + (self.passes[level] > 1) * (self.features + 1) + 1

    def inputs(self, level: int) -> int:
        """Number of inputs of the network of a level."""
        cells = (2 * self.reach[level] + 1) ** 2 * self.cell_features(level)
        expected = self.expected**2 * self.code_dim
        return cells + self.position_features + self.kind_features + expected

    def kind_shapes(self) -> dict[str, tuple[tuple[int, ...], type]]:
        """Name -> shape and type of the arrays that say which kinds there are."""
        return {
            "kinds.centre": ((self.kinds, PARTS * PARTS * self.code_dim), np.int8),
            "kinds.frequency": ((self.kinds,), np.int32),
        }

    def array_shapes(self, level: int) -> dict[str, tuple[tuple[int, ...], type]]:
        """Name -> shape and type of the arrays of one level."""
        size, hidden, blocks = self.codebook_size, self.hidden[level], self.blocks[level]
        shapes: dict[str, tuple[tuple[int, ...], type]] = {
            "lower": ((level, size, self.features), np.int8),
            "current": ((size if self.passes[level] > 1 else 0, self.features), np.int8),
            "position": ((*self.grid, self.position_features), np.int8),
            "kind": ((self.kinds, self.kind_features), np.int8),
        }
        layers: dict[str, tuple[int, ...]] = {
            "input": (hidden, self.inputs(level)),
            "first": (blocks, hidden, hidden),
            "second": (blocks, hidden, hidden),
            "output": (size, hidden),
        }
        for name, shape in layers.items():
            shapes |= {
                f"{name}.weight": (shape, np.int8),
                f"{name}.scale": (shape[:-1], np.int32),
                f"{name}.bias": (shape[:-1], np.int32),
            }
        return shapes


def pooled(latents: NDArray[np.floating]) -> NDArray[np.float64]:
    """Latents (..., h, w, D) in 256ths -> (..., 9·D): means over the parts of the grid, rounded.

    In float64 the sums are exact, and divisions are rounded correctly.
    """
    height, width, _ = latents.shape[-3:]
    means = []
    for top, bottom in _parts(height):
        for left, right in _parts(width):
            part = latents[..., top:bottom, left:right, :]
            total = part.sum((-3, -2), dtype=np.float64)
            means.append(np.rint(total / ((bottom - top) * (right - left))))
    return np.concatenate(means, axis=-1)


def _parts(side: int) -> list[tuple[int, int]]:
    """PARTS ranges of at least one cell that cover a side."""
    starts = [min(part * side // PARTS, side - 1) for part in range(PARTS)]
    ends = [(part + 1) * side // PARTS for part in range(PARTS)]
    return [(start, max(end, start + 1)) for start, end in zip(starts, ends, strict=True)]


def as_features(latents: NDArray[np.floating]) -> NDArray[np.float32]:
    """Latents in 256ths -> steps of features, from -127 to 127."""
    steps = np.rint(latents.astype(np.float32) * np.float32(FEATURE_UNITS / LATENT_UNITS))
    clipped: NDArray[np.float32] = np.clip(steps, -ACTIVATION_MAX, ACTIVATION_MAX)
    return clipped


class Pass(NamedTuple):
    """One step of the schedule: cells of one level that are predicted together."""

    level: int  # from 0
    rows: NDArray[np.intp]  # (n,)
    columns: NDArray[np.intp]  # (n,)
    known: NDArray[np.bool_]  # (h, w): cells of this level that earlier passes have fixed


def order_of(height: int, width: int, passes: int) -> NDArray[np.int64]:
    """(h, w) number of the pass, from 0, in which each cell is predicted."""
    sizes = PASS_SIZES[passes]
    number = np.repeat(np.arange(passes), sizes)[_BAYER]
    order: NDArray[np.int64] = number[np.arange(height)[:, None] % 4, np.arange(width)[None, :] % 4]
    return order


class _Layer(NamedTuple):
    """Integers in, integers out: (inputs · weightᵀ · scale) / 2^24 + bias, rounded."""

    weight: NDArray[np.float32]  # (inputs, outputs), integers
    scale: NDArray[np.int64]
    bias: NDArray[np.int64]

    def __call__(self, inputs: NDArray[np.float32]) -> NDArray[np.int64]:
        return self._scaled(inputs @ self.weight)

    def of_sparse(self, inputs: NDArray[np.float32]) -> NDArray[np.int64]:
        """The same for inputs (n, inputs) of which some are 0 in all rows, as unknown cells are."""
        used = np.flatnonzero(inputs.any(0))
        if len(used) > USED_SHARE * inputs.shape[1]:
            return self(inputs)
        return self._scaled(inputs[:, used] @ self.weight[used])

    def _scaled(self, sums: NDArray[np.float32]) -> NDArray[np.int64]:
        numbers = sums.astype(np.int64)
        numbers *= self.scale
        numbers += 1 << (SHIFT - 1)
        numbers >>= SHIFT
        numbers += self.bias
        return numbers


class Prior:
    """The integer network of every level.

    Attributes:
        config: its config.
        arrays: name -> array, as the model file holds them.
    """

    def __init__(self, config: PriorConfig, arrays: dict[str, NDArray[np.generic]]) -> None:
        """Take the arrays that `config` asks for, named `level<number from 1>.<name>`.

        Raises:
            ModelError: an array is missing, unknown, of another shape or type, or out of range, or a sum
                could exceed what float32 holds exactly.
        """
        self.config, self.arrays = config, arrays
        expected = config.kind_shapes() | {
            f"level{level + 1}.{name}": shape
            for level in range(config.levels)
            for name, shape in config.array_shapes(level).items()
        }
        refuse_other_arrays("prior", arrays, expected)
        for name, found in arrays.items():
            numbers = symmetric(ACTIVATION_MAX)
            if name.endswith(".weight"):
                rows = found.reshape(-1, found.shape[-1])
                if largest_sum(rows.astype(np.int8), numbers) >= EXACT:
                    raise ModelError(f"prior: the weights {name} are too large to be summed exactly")
            if name.endswith(".scale") and found.size and found.min() < 0:
                raise ModelError(f"prior: a scale in {name} is negative")
        self.kind_frequencies: Frequencies = arrays["kinds.frequency"].astype(np.int64)
        total = 2**FREQUENCY_BITS - config.kinds
        if self.kind_frequencies.min() < 0 or self.kind_frequencies.sum() != total:
            raise ModelError(f"prior: the frequencies of kinds do not sum up to {total}")
        self._layers = [self._level_layers(level) for level in range(config.levels)]

    @property
    def kinds_met(self) -> Frequencies:
        """How often each kind was met, (kinds,).

        In `kind_frequencies` every kind has one slice more than was counted, so that each can be coded;
        the smallest of them is that slice. Kinds that are alike, but for what was rounded, are all met.
        """
        met = self.kind_frequencies - self.kind_frequencies.min()
        return met if met.sum() > len(met) else self.kind_frequencies

    def _level_layers(self, level: int) -> dict[str, list[_Layer]]:
        def layer(name: str, block: int | None) -> _Layer:
            parts = (self._array(level, f"{name}.{part}") for part in ("weight", "scale", "bias"))
            weight, scale, bias = (part if block is None else part[block] for part in parts)
            return _Layer(
                np.ascontiguousarray(weight.T, dtype=np.float32),
                scale.astype(np.int64),
                bias.astype(np.int64),
            )

        blocks = range(self.config.blocks[level])
        return {
            "input": [layer("input", None)],
            "first": [layer("first", block) for block in blocks],
            "second": [layer("second", block) for block in blocks],
            "output": [layer("output", None)],
        }

    def _array(self, level: int, name: str) -> NDArray[np.generic]:
        return self.arrays[f"level{level + 1}.{name}"]

    def kind_of(self, latents: NDArray[np.floating]) -> int:
        """The kind of a grid of latents (h, w, D) in 256ths: that of the nearest centre.

        Among equally near ones it is the first.
        """
        return int(self.distances_to_kinds(latents).argmin())

    def distances_to_kinds(self, latents: NDArray[np.floating]) -> NDArray[np.float64]:
        """Squared distances of latents (..., h, w, D) in 256ths to the centres of kinds: (..., kinds).

        They are integers that float64 sums exactly.
        """
        centres = self.arrays["kinds.centre"].astype(np.float64) * POOLED_UNITS
        squares: NDArray[np.float64] = np.square(centres - pooled(latents)[..., None, :]).sum(-1)
        return squares

    def schedule(self, levels: int, height: int, width: int) -> Iterator[Pass]:
        """The passes over the first `levels` levels of a grid, in their order.

        A pass over many cells comes in several parts, so that memory stays bounded. The later parts know
        no more cells than the first.
        """
        for level in range(levels):
            order = order_of(height, width, self.config.passes[level])
            for number in range(self.config.passes[level]):
                rows, columns = np.nonzero(order == number)
                known = order < number
                for start in range(0, rows.size, CELLS_AT_ONCE):
                    part = slice(start, start + CELLS_AT_ONCE)
                    yield Pass(level, rows[part], columns[part], known)

    def walk(
        self,
        shape: tuple[int, int, int, int],
        kinds: NDArray[np.integer],
        choose: Callable[[Pass, Frequencies], Indices],
        expected: NDArray[np.floating] | None = None,
    ) -> Indices:
        """Fill grids of (B, levels, h, w), pass by pass.

        Args:
            shape: of the grids.
            kinds: (B,) kind of each grid.
            choose: given a pass and frequencies (B, n, K), returns the indices (B, n): those to
                encode, those that a payload holds, or drawn ones.
            expected: (B, h, w, D) latents in 256ths that the grids are expected to be near to; only a
                prior whose config asks for them sees them. None is seen as 0, which no latent is.

        Raises:
            ModelError: the prior predicts fewer levels.
        """
        batch, levels, height, width = shape
        if levels > self.config.levels:
            raise ModelError(f"{levels} levels, but the prior knows {self.config.levels}")
        indices = np.zeros(shape, dtype=np.uint16)
        for step in self.schedule(levels, height, width):
            logits = self.logits(indices, kinds, step, expected)
            chosen = choose(step, frequencies_of(logits).reshape(batch, step.rows.size, -1))
            indices[:, step.level, step.rows, step.columns] = chosen
        return indices

    def logits(
        self,
        indices: Indices,
        kinds: NDArray[np.integer],
        step: Pass,
        expected: NDArray[np.floating] | None = None,
    ) -> NDArray[np.int64]:
        """(B·n, K) in 1/16 octave, for the cells of a pass; of its level only known cells are used."""
        layers = self._layers[step.level]
        seen = self._inputs(indices, kinds, step)
        if self.config.expected:
            seen = np.concatenate([seen, self._expected(expected, step, len(indices))], axis=1)
        stream = layers["input"][0].of_sparse(seen)
        stream = np.clip(stream, -_STREAM_MAX, _STREAM_MAX)
        for first, second in zip(layers["first"], layers["second"], strict=True):
            inner = np.clip(first(_activations(stream)), 0, ACTIVATION_MAX).astype(np.float32)
            stream = np.clip(stream + second(inner), -_STREAM_MAX, _STREAM_MAX)
        return layers["output"][0](_activations(stream))

    def _inputs(self, indices: Indices, kinds: NDArray[np.integer], step: Pass) -> NDArray[np.float32]:
        """What the network sees of each cell of a pass: (B·n, inputs), integers from -127 to 127."""
        batch, _, height, width = indices.shape
        reach = self.config.reach[step.level]
        top = max(0, int(step.rows.min()) - reach)  # rows that no cell sees are left out
        bottom = min(height, int(step.rows.max()) + reach + 1)
        seen = self._cells(indices[:, :, top:bottom], step._replace(known=step.known[top:bottom]))
        rows, columns = bottom - top + 2 * reach, width + 2 * reach
        padded = np.zeros((batch, rows, columns, seen.shape[3]), np.float32)
        padded[:, reach : rows - reach, reach : reach + width] = seen
        side = np.arange(2 * reach + 1)
        offsets = (side[:, None] * columns + side[None, :]).reshape(-1)
        corners = (step.rows - top) * columns + step.columns  # of each window, in the padded grid
        cells = padded.reshape(batch, rows * columns, -1)[:, corners[:, None] + offsets]
        count = batch * corners.size
        places = np.tile(self._places(step, height, width), (batch, 1))
        kind = _symmetric(self._array(step.level, "kind")[kinds]).repeat(corners.size, axis=0)
        return np.concatenate([cells.reshape(count, -1), places, kind], axis=1)

    def _expected(
        self, expected: NDArray[np.floating] | None, step: Pass, batch: int
    ) -> NDArray[np.float32]:
        """Expected latents around each cell of a pass: (B·n, side² · D), integers from -127 to 127."""
        reach, dimension = self.config.expected // 2, self.config.code_dim
        side = np.arange(-reach, reach + 1)
        if expected is None:
            return np.zeros((batch * step.rows.size, side.size**2 * dimension), np.float32)
        steps = as_features(expected)
        padded = np.pad(steps, ((0, 0), (reach, reach), (reach, reach), (0, 0)))
        rows = step.rows[:, None, None] + side[:, None] + reach
        columns = step.columns[:, None, None] + side + reach
        return padded[:, rows, columns].reshape(batch * step.rows.size, -1)

    def _cells(self, indices: Indices, step: Pass) -> NDArray[np.float32]:
        """Features of every cell, (B, h, w, cell features)."""
        level = step.level
        parts = []
        if level:
            lower = self._array(level, "lower")
            summed = sum(lower[below][indices[:, below]].astype(np.int32) for below in range(level))
            parts.append(np.clip(summed, -ACTIVATION_MAX, ACTIVATION_MAX))
        mark = np.full((*indices[:, 0].shape, 1), FEATURE_UNITS)
        if self.config.passes[level] > 1:
            known = step.known[None, :, :, None]
            current = _symmetric(self._array(level, "current")[indices[:, level]])
            parts += [current * known, mark * known]
        parts.append(mark)
        cells: NDArray[np.float32] = np.concatenate(parts, axis=3).astype(np.float32)
        return cells

    def _places(self, step: Pass, height: int, width: int) -> NDArray[np.float32]:
        """(n, position features); a grid of another size is centred over that of the positions."""
        position = self._array(step.level, "position")
        above, left = (height - position.shape[0]) // 2, (width - position.shape[1]) // 2
        rows = np.clip(step.rows - above, 0, position.shape[0] - 1)
        columns = np.clip(step.columns - left, 0, position.shape[1] - 1)
        return _symmetric(position[rows, columns])


def _symmetric(features: NDArray[np.generic]) -> NDArray[np.float32]:
    """Features without -128, for which no bound on sums is computed."""
    return np.maximum(features.astype(np.float32), -ACTIVATION_MAX)


def _activations(stream: NDArray[np.int64]) -> NDArray[np.float32]:
    """Rectified, in steps of 1/16 from 0 to 127."""
    step = STREAM_UNITS // ACTIVATION_UNITS
    return np.clip((stream + step // 2) // step, 0, ACTIVATION_MAX).astype(np.float32)
