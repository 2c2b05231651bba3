"""Integer layers, of which all networks here are made. Never imports torch.

Shapes: B maps, C channels of a cell, h×w cells of a map, n rows of a product, p cells of a flat map.

**No float decides anything.** Weights are integers of 8 bits, activations are integers, and float32
holds both. A layer sums products, scales and rounds:

    y = round(float32(float32(sum · scale · 2^-26) + bias))

The sum is exact: a layer whose sums could reach 2^24 is refused when it is made. So every partial sum is
an integer that float32 holds, and no order of summation, number of threads, vector width or machine can
change it. All other operations act on single numbers and are rounded correctly by IEEE 754 (+, ·, round
half to even), so they have one result too. The inputs of a layer come from a `Table` (a function of one
number, silu in our networks) or from a `Scaling`; both are bounded.

Maps lie flat, one cell after the other, with a margin of zeros, see `Maps`. A convolution over them is
three matrix products over shifted views, so nothing is gathered for single outputs.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from oasisvq.errors import ModelError

Numbers = NDArray[np.float32]  # integers, as float32 holds them
Arrays = Mapping[str, NDArray[Any]]
Put = Callable[[slice, Numbers], None]  # takes the results for some rows

EXACT = 2**24  # float32 holds every integer below it
EXACT_DOUBLE = 2**53  # float64 holds every integer below it
LATENT_UNITS = 256  # steps to 1 of latents and codes
SCALE_BITS = 26  # a scale of 2^26 multiplies by one
LARGEST_BIAS = 2**22
LARGEST_ACTIVATION = 2**15 - 1
LARGEST_UNITS = 2**24
LARGEST_TABLE = 2**16
GAIN_UNITS = 256  # steps to 1 of the gain of a table
_BYTES_AT_ONCE = 2**19  # that a product reads, so that they fit the cache of one core
_LOOKED_UP_AT_ONCE = 2**15
_SIGMOID_HALVINGS = 8
_TAYLOR_TERMS = 12


class Range(NamedTuple):
    """The least and the greatest number that enters a layer."""

    low: int
    high: int


def symmetric(limit: int) -> Range:
    """From -limit to limit."""
    return Range(-limit, limit)


def largest_sum(weight: NDArray[np.integer], numbers: Range) -> int:
    """The largest sum, of either sign, that a row of integer weights (rows, ...) can reach."""
    if not weight.size:
        return 0
    rows = weight.reshape(len(weight), -1)
    total = rows.sum(1, dtype=np.int64)
    size = np.abs(rows, dtype=np.int16).sum(1, dtype=np.int64)
    above, below = (size + total) // 2, (size - total) // 2  # of the positive and negative weights
    high, low = max(numbers.high, 0), max(-numbers.low, 0)
    return int(np.maximum(above * high + below * low, above * low + below * high).max())


def refuse_other_arrays(
    what: str, arrays: Arrays, expected: Mapping[str, tuple[tuple[int, ...], type]]
) -> None:
    """Raise unless the arrays have exactly the expected names, shapes and types; `what` is for messages.

    Raises:
        ModelError: an array is missing, unknown, or of another shape or type.
    """
    if set(expected) != set(arrays):
        wrong = sorted(set(expected) ^ set(arrays))
        raise ModelError(f"{what}: {len(wrong)} arrays missing or unknown, first {wrong[0]}")
    for name, (shape, dtype) in expected.items():
        found = arrays[name]
        if found.shape != shape or found.dtype != dtype:
            raise ModelError(
                f"{what}: array {name} is {found.dtype} {found.shape}, expected "
                f"{np.dtype(dtype)} {shape}"
            )


def layer_shapes(name: str, shape: tuple[int, ...]) -> dict[str, tuple[tuple[int, ...], type]]:
    """Name -> shape and type of the arrays of one layer, whose weight has `shape` (outputs, ...)."""
    return {
        f"{name}.weight": (shape, np.int8),
        f"{name}.scale": (shape[:1], np.int32),
        f"{name}.bias": (shape[:1], np.int32),
    }


@dataclass(frozen=True)
class Layer:
    """Scaled, rounded products of cells, or of 3×3 cells.

    Attributes:
        weight: (parts, inputs, outputs) integers. One part is a dense layer. Three parts are a
            convolution: weights of (left, own, right) × C for the row above, the own row and the one
            below.
        scale: (outputs,), already multiplied by 2^-26.
        bias: (outputs,) integers.
    """

    weight: Numbers
    scale: Numbers
    bias: Numbers

    @classmethod
    def of(cls, arrays: Arrays, name: str, numbers: Range) -> "Layer":
        """The layer `name` from arrays, see `layer_shapes`, for inputs in a range.

        A weight (outputs, 3, 3, inputs) is a convolution; any other is dense, (outputs, inputs).

        Raises:
            ModelError: a sum could exceed what float32 holds exactly; a scale or bias is out of range.
        """
        weight, scale, bias = (arrays[f"{name}.{part}"] for part in ("weight", "scale", "bias"))
        if largest_sum(weight, numbers) >= EXACT:
            raise ModelError(f"the weights {name} are too large to be summed exactly")
        if scale.size and scale.min() < 0:
            raise ModelError(f"a scale in {name} is negative")
        if bias.size and max(-int(bias.min()), int(bias.max())) > LARGEST_BIAS:
            raise ModelError(f"a bias in {name} is beyond {LARGEST_BIAS}")
        outputs = weight.shape[0]
        parts = 3 if weight.ndim == 4 and weight.shape[1:3] == (3, 3) else 1
        prepared = weight.reshape(outputs, parts, -1).transpose(1, 2, 0)
        return cls(
            np.ascontiguousarray(prepared, dtype=np.float32),
            scale.astype(np.float32) * np.float32(2.0**-SCALE_BITS),
            bias.astype(np.float32),
        )

    @property
    def outputs(self) -> int:
        """Number of outputs."""
        return int(self.weight.shape[2])

    def dense(self, inputs: Numbers, put: Put) -> None:
        """Rows (n, inputs) -> rows (n, outputs), given to `put` in parts that fit the cache."""
        weight = self.weight[0]
        step = _rows_at_once(weight.shape[0])
        sums = np.empty((min(step, len(inputs)), self.outputs), np.float32)
        for start in range(0, len(inputs), step):
            stop = min(start + step, len(inputs))
            part = sums[: stop - start]
            np.matmul(inputs[start:stop], weight, out=part)
            put(slice(start, stop), self._rounded(part))

    def __call__(self, inputs: Numbers) -> Numbers:
        """Rows (n, inputs) -> rows (n, outputs)."""
        results = np.empty((len(inputs), self.outputs), np.float32)

        def keep(rows: slice, numbers: Numbers) -> None:
            results[rows] = numbers

        self.dense(inputs, keep)
        return results

    def convolve(self, maps: "Maps", cells: Numbers, put: Put) -> None:
        """Flat cells (p, C) of some maps -> (p, outputs) of the same cells, given to `put` in parts.

        The margin must be 0. The results for the margin between cells have no meaning.
        """
        width, channels = maps.width, cells.shape[1]
        stride = cells.strides[0]
        # row i holds the cells i, i + 1 and i + 2: an overlapping view of cells side by side in memory
        triples = as_strided(cells, (len(cells) - 2, 3 * channels), (stride, cells.itemsize))
        step = _rows_at_once(3 * channels)
        count = maps.stop - maps.start
        seen = np.empty((min(step, count) + 2 * width, 3 * channels), np.float32)
        sums = np.empty((min(step, count), self.outputs), np.float32)
        more = np.empty_like(sums)
        for start in range(maps.start, maps.stop, step):
            stop = min(start + step, maps.stop)
            rows = stop - start
            seen[: rows + 2 * width] = triples[start - width - 1 : stop + width - 1]
            part, further = sums[:rows], more[:rows]
            np.matmul(seen[:rows], self.weight[0], out=part)
            for line in (1, 2):
                above = line * width
                np.matmul(seen[above : above + rows], self.weight[line], out=further)
                part += further
            put(slice(start, stop), self._rounded(part))

    def _rounded(self, sums: Numbers) -> Numbers:
        """Exact sums -> outputs of the layer, in place."""
        sums *= self.scale
        sums += self.bias
        return np.rint(sums, out=sums)


def _rows_at_once(columns: int) -> int:
    return max(64, _BYTES_AT_ONCE // (4 * columns))


@dataclass(frozen=True)
class Maps:
    """How B maps of h×w cells lie flat: each row ends with a cell of margin, each map with a row of it.

    One margin serves both sides: the cell to the left of a row is the one that ends the row before. A
    row of margin and one more cell come before the first map.
    """

    count: int
    rows: int
    columns: int

    @property
    def width(self) -> int:
        """Number of cells from one cell to the one below it."""
        return self.columns + 1

    @property
    def start(self) -> int:
        """Place of the first cell."""
        return 1 + self.width

    @property
    def stop(self) -> int:
        """One past the last cell."""
        return self.length - self.width - 1

    @property
    def length(self) -> int:
        """Number of cells p, margin included."""
        return 1 + (self.count * (self.rows + 1) + 1) * self.width

    def zeros(self, channels: int) -> Numbers:
        """Flat cells (p, channels), all 0."""
        return np.zeros((self.length, channels), np.float32)

    def grid(self, cells: Numbers) -> Numbers:
        """Flat cells (p, C) -> a view (B, h, w, C) without the margin."""
        return self._with_margin(cells)[:, : self.rows, : self.columns]

    def flat(self, grid: NDArray[np.generic]) -> Numbers:
        """(B, h, w, C) -> flat cells (p, C) with a margin of 0; the inverse of `grid`."""
        cells = self.zeros(grid.shape[3])
        self.grid(cells)[...] = grid
        return cells

    def clear_margin(self, cells: Numbers) -> None:
        """Set the margin to 0 after results were written into it."""
        whole = self._with_margin(cells)
        whole[:, self.rows] = 0
        whole[:, :, self.columns] = 0

    def _with_margin(self, cells: Numbers) -> Numbers:
        shape = self.count, self.rows + 1, self.width, cells.shape[1]
        return cells[self.start :].reshape(shape)


class Table:
    """A bounded function of one integer, as a table; beyond its ends it keeps the outermost values.

    Attributes:
        range: of the values.
    """

    def __init__(self, low: int, values: NDArray[np.generic]) -> None:
        """Take the values at low, low + 1, ...; low <= 0, and the last of these places >= 0."""
        self._low, self._high = np.float32(low), np.float32(low + len(values) - 1)
        self._values = values.astype(np.float32)
        self.range = Range(int(values.min()), int(values.max()))

    @classmethod
    def silu(cls, spec: NDArray[np.integer], name: str) -> "Table":
        """The function x · sigmoid(x) by (low, high, units, gain), which a model file holds as int32.

        Raises:
            ModelError: one of the four is out of range, or the values are.
        """
        low, high, units, gain = (int(entry) for entry in spec)
        return cls(low, cls.silu_values((low, high, units, gain), name))

    @staticmethod
    def silu_values(spec: tuple[int, ...], name: str) -> Numbers:
        """Values silu(x) · gain / 256, rounded, at the numbers x · units from low to high.

        Raises:
            ModelError: one of the four is out of range, or the values are.
        """
        low, high, units, gain = spec
        if not (low <= 0 <= high and high - low < LARGEST_TABLE):
            raise ModelError(f"table {name} from {low} to {high}, expected at most 65,536 around 0")
        if not (1 <= units <= LARGEST_UNITS and 1 <= gain <= LARGEST_UNITS):
            raise ModelError(f"table {name} with units {units} and gain {gain}, expected 1 to 2^24")
        values = np.rint(silu(np.arange(low, high + 1) / units) * (gain / GAIN_UNITS))
        if np.abs(values).max() > LARGEST_ACTIVATION:
            raise ModelError(f"table {name} has values beyond {LARGEST_ACTIVATION}")
        return values.astype(np.float32)

    def look_up(self, numbers: Numbers, out: Numbers) -> None:
        """Write the value at each number of contiguous rows to `out`; `numbers` is overwritten."""
        numbers.clip(self._low, self._high, out=numbers)
        numbers -= self._low
        places, values = numbers.reshape(-1), out.reshape(-1)
        for start in range(0, len(places), _LOOKED_UP_AT_ONCE):
            part = slice(start, start + _LOOKED_UP_AT_ONCE)
            # float -> int32 -> intp is faster than in one step, and no place is out of bounds
            index = places[part].astype(np.int32).astype(np.intp)
            self._values.take(index, out=values[part], mode="wrap")


def silu(numbers: NDArray[np.float64]) -> NDArray[np.float64]:
    """The function x · sigmoid(x) to about 1e-12, by operations that IEEE 754 rounds, unlike `exp`."""
    power = _exponential(-np.minimum(np.abs(numbers), 700.0))
    result: NDArray[np.float64] = numbers * np.where(numbers < 0, power, 1.0) / (1.0 + power)
    return result


def sigmoid(numbers: NDArray[np.float64]) -> NDArray[np.float64]:
    """The function 1 / (1 + e^-x), computed as in `silu`."""
    power = _exponential(-np.minimum(np.abs(numbers), 700.0))
    result: NDArray[np.float64] = np.where(numbers < 0, power, 1.0) / (1.0 + power)
    return result


def _exponential(numbers: NDArray[np.float64]) -> NDArray[np.float64]:
    """e^x for numbers from -700 to 0."""
    part, power = numbers / 2.0**_SIGMOID_HALVINGS, np.ones_like(numbers)
    for term in range(_TAYLOR_TERMS, 0, -1):  # exp(part), by Horner's rule
        power = power * part / term + 1.0
    for _ in range(_SIGMOID_HALVINGS):
        power = power * power
    return power


def octaves(numbers: Numbers) -> NDArray[np.int32]:
    """Base-2 logarithms of positive numbers in 256ths, by the first 8 bits of the mantissa.

    By integers alone: the logarithm of n in 256ths is the bit length of n^256, minus 1.
    """
    places = numbers.view(np.int32) >> 15  # 8 of the exponent, 8 of the mantissa
    logarithms: NDArray[np.int32] = _MANTISSAS[places & 255] + (((places >> 8) - 127) << 8)
    return logarithms


_MANTISSAS = np.array(
    [((513 + 2 * place) ** 256).bit_length() - 1 - 9 * 256 for place in range(256)], np.int32
)


class Scaling:
    """Integers of one unit -> integers of another, clipped to -limit..limit.

    Attributes:
        range: of the results.
    """

    def __init__(self, spec: NDArray[np.integer], name: str) -> None:
        """Take (gain, limit), which a model file holds as int32; a gain of 2^26 multiplies by one.

        Raises:
            ModelError: one of them is out of range.
        """
        gain, limit = (int(entry) for entry in spec)
        if not (gain >= 1 and 1 <= limit <= LARGEST_ACTIVATION):
            raise ModelError(
                f"scaling {name} with gain {gain} and limit {limit}, expected at least 1, and at most "
                f"{LARGEST_ACTIVATION} as the limit"
            )
        self._gain = np.float32(gain) * np.float32(2.0**-SCALE_BITS)
        self.range = symmetric(limit)

    def __call__(self, numbers: Numbers) -> Numbers:
        """The scaled numbers."""
        scaled = numbers * self._gain
        np.rint(scaled, out=scaled)
        return np.clip(scaled, *self.range, out=scaled)
