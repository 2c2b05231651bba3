"""Correction of decoded voxels near a known ground, by a Wiener filter in the file. Never imports torch.

Shapes: H×W slice, D depths.

The decoder draws the edge of a stripped scan too dark, blurred into the ground. If the file stores
exactly where the ground is, this can be undone. The depth of a voxel in the support is found by erosion:
voxels that have ground next to them in their row or column, or lie on the border of the slice, have
depth 1 and are removed; then come those of depths 2 and 3; all that is left has depth 4. For each depth
the file holds three weights: own and around in 256ths, offset in 1024ths. A voxel x becomes

    ((own / 256) · x + (around / 256) · m) + (offset / 1024) · range

where x and m are measured from `low`, and range is `high` - `low` of the file. The mean m is over the
decoded voxels of the support in the 3×3 neighbourhood, x included. Its sum adds up each column from the
top, and then the three columns from left to right. All operations are in float64, in the order written.
The result is clipped to 0 and the range, `low` is added, and for integer types it is rounded to the
nearest whole number, ties to even. This happens before ground is laid on.

The encoder chooses the weights that leave the least squared error (Wiener 1949). It computes them from
integer sums, so it finds the same ones on every machine.
"""

from fractions import Fraction
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.generic]
Booleans = NDArray[np.bool_]
Doubles = NDArray[np.float64]

DEPTHS = 4
WEIGHT_UNITS, OFFSET_UNITS = 256, 1024
MAX_WEIGHT = 4 * WEIGHT_UNITS
_STEPS = 4096  # to the range, in which the encoder counts


class Weights(NamedTuple):
    """The weights of one depth, see the module's docstring; the defaults change nothing."""

    own: int = WEIGHT_UNITS
    around: int = 0
    offset: int = 0


Restoration = tuple[Weights, ...]  # one for each depth


def depths_of(support: Booleans) -> NDArray[np.int8]:
    """Support (H, W) -> the depth of each voxel in it, 1 to `DEPTHS`; 0 for ground."""
    depths = support.astype(np.int8)
    inner = support
    for _ in range(DEPTHS - 1):
        padded = np.pad(inner, 1)
        inner = inner & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
        depths += inner
    return depths


def restore(
    plane: Plane, support: Booleans, restoration: Restoration, intensity: tuple[float, float]
) -> None:
    """Correct a decoded slice (H, W) inside its support (H, W) by the file's weights, in place."""
    low, high = intensity
    own, around, offset = (np.array([0, *each], np.float64) for each in zip(*restoration, strict=True))
    depths = depths_of(support)
    values = plane.astype(np.float64) - low
    found = (own / WEIGHT_UNITS)[depths] * values
    found += (around / WEIGHT_UNITS)[depths] * _mean_around(values, support)
    found += (offset / OFFSET_UNITS)[depths] * (high - low)
    found = np.clip(found, 0, high - low) + low
    if plane.dtype.kind in "iu":
        np.rint(found, out=found)
    plane[support] = found[support].astype(plane.dtype)


def _mean_around(values: Doubles, support: Booleans) -> Doubles:
    """Mean of the support's values in the 3×3 neighbourhood of each voxel (H, W)."""
    total = _summed_around(np.where(support, values, 0.0))
    return total / np.maximum(_summed_around(support.astype(np.float64)), 1.0)


def _summed_around(values: Doubles) -> Doubles:
    padded = np.pad(values, 1)
    columns = (padded[:-2] + padded[1:-1]) + padded[2:]
    total: Doubles = (columns[:, :-2] + columns[:, 1:-1]) + columns[:, 2:]
    return total


class Restoring:
    """Finds the weights for a scan, slice by slice."""

    def __init__(self, intensity: tuple[float, float]) -> None:
        self._low, high = intensity
        self._range = high - self._low or 1.0
        # for each depth, sums of products of own, around, 1 and the wanted value, in steps
        self._products = np.zeros((DEPTHS, 4, 4), np.int64).astype(object)

    def put(self, plane: Plane, support: Booleans, wanted: Plane) -> None:
        """Add a slice (H, W): what it decodes to, its support, and its original values."""
        values = plane.astype(np.float64) - self._low
        mean = _mean_around(values, support)
        depths = depths_of(support)
        target = wanted.astype(np.float64) - self._low
        for depth in range(1, DEPTHS + 1):
            chosen = depths == depth
            steps = [np.rint(each[chosen] * (_STEPS / self._range)) for each in (values, mean, target)]
            own, around, aim = (each.astype(np.int64) for each in steps)
            rows = np.stack([own, around, np.full_like(own, _STEPS), aim])
            self._products[depth - 1] += (rows @ rows.T).astype(object)

    def weights(self) -> tuple[Restoration, float]:
        """The weights, and the share of the squared error that they remove."""
        restoration = tuple(_weights_of(products) for products in self._products)
        before = sum(_error(products, Weights()) for products in self._products)
        after = sum(
            _error(products, weights)
            for products, weights in zip(self._products, restoration, strict=True)
        )
        return restoration, float(1 - after / before) if before else 0.0


def _weights_of(products: NDArray[np.object_]) -> Weights:
    """The best weights of a depth, rounded as in a file; the neutral ones if they are no better."""
    matrix = [[int(each) for each in row] for row in products]
    found = _solved([row[:3] for row in matrix[:3]], [row[3] for row in matrix[:3]])
    if found is None:
        return Weights()
    own, around = (round(each * WEIGHT_UNITS) for each in found[:2])
    # the best offset given the rounded weights
    left = Fraction(matrix[2][3]) - Fraction(own * matrix[2][0] + around * matrix[2][1], WEIGHT_UNITS)
    offset = round(left * OFFSET_UNITS / matrix[2][2])
    weights = Weights(own, around, offset)
    is_better = _error(products, weights) < _error(products, Weights())
    return weights if is_better and max(map(abs, weights)) <= MAX_WEIGHT else Weights()


def _solved(matrix: list[list[int]], wanted: list[int]) -> list[Fraction] | None:
    """The solution by Cramer's rule; None for a singular matrix."""
    whole = _determinant(matrix)
    if not whole:
        return None
    swapped = (
        [[*row[:place], value, *row[place + 1 :]] for row, value in zip(matrix, wanted, strict=True)]
        for place in range(3)
    )
    return [Fraction(_determinant(each), whole) for each in swapped]


def _determinant(matrix: list[list[int]]) -> int:
    (a, b, c), (d, e, f), (g, h, i) = matrix
    return a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)


def _error(products: NDArray[np.object_], weights: Weights) -> Fraction:
    """The squared error that weights leave."""
    factors = [
        Fraction(weights.own, WEIGHT_UNITS),
        Fraction(weights.around, WEIGHT_UNITS),
        Fraction(weights.offset, OFFSET_UNITS),
        Fraction(-1),
    ]
    return sum(
        (
            first * second * int(products[row, column])
            for row, first in enumerate(factors)
            for column, second in enumerate(factors)
        ),
        Fraction(0),
    )
