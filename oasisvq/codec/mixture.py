"""Outputs of the residue network -> frequencies of symbols. Never imports torch.

Shapes: n places, J components, E edges.

A bin is a whole number. All numbers here are relative to a whole number near it, so that float32 holds
them precisely enough. A mixture of logistic distributions gives the probability, in 2^24ths and by a
table, that a bin lies below an edge. A bin is coded first by its class: one of 32 adjacent classes
around the mean, each 2^k bins wide, or one of the two tails. Then follows its cell in the class, one of
16 or of as many as the class has bins; then the remaining bits. Sums in float32 have a fixed order.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from oasisvq.codec.exact import Numbers, sigmoid
from oasisvq.codec.frequencies import POWERS
from oasisvq.codec.residue_config import CENTRE_UNITS, OCTAVE_UNITS

HALF = 16  # classes on either side of the mean
CELLS = 16
MAX_WIDTH_BITS = 20
TAIL_BITS = 20  # most bits of a bin's distance in a tail
SHARES = 512  # that the components share
_WHOLE = 2**24
_LEAST = 48  # shares of a symbol, beside the 1 that each has
_SLOPE_UNITS = 64
_FARTHEST = 12 * _SLOPE_UNITS  # from a centre, in scales
_FARTHEST_CENTRE = 64 * CENTRE_UNITS
_SMALLEST_SCALE, _LARGEST_SCALE = -120, 64  # 16ths of octaves
_STEEPEST = 20.0  # 1 / scale
_WIDTH = 0.7  # of a class, in mean scales


def _logistic_table() -> Numbers:
    places = np.arange(-_FARTHEST, _FARTHEST + 1) / _SLOPE_UNITS
    return np.rint(_WHOLE // SHARES * sigmoid(places)).astype(np.float32)


def _scale_table() -> Numbers:
    """2^(-t / 16) for t from the smallest to the largest scale, from integer square roots alone."""
    table = []
    for step in range(_SMALLEST_SCALE, _LARGEST_SCALE + 1):
        octaves, part = divmod(step, OCTAVE_UNITS)
        root = 2 ** (24 * OCTAVE_UNITS - part)
        for _ in range(4):
            root = math.isqrt(root)
        table.append(root * 2.0 ** (-24 - octaves))
    return np.array(table, np.float32)


_LOGISTIC, _STEEPNESS = _logistic_table(), _scale_table()
_ONE_HALF = np.float32(0.5)


def tail_frequencies() -> NDArray[np.int64]:
    """Frequencies of a number's bit length minus 1, from 0: each half as likely as the one before."""
    frequencies = 1 << np.arange(23, 23 - TAIL_BITS, -1, dtype=np.int64)
    frequencies[0] += _WHOLE - TAIL_BITS - frequencies.sum()
    return frequencies


class Limits(NamedTuple):
    """The smallest and the largest bin that may occur, (n,), relative like all numbers here."""

    low: NDArray[np.int64]
    high: NDArray[np.int64]


class Mixture(NamedTuple):
    """The mixtures of n places.

    Attributes:
        shares: (J, n) of the components, out of 512.
        centres: (J, n).
        steepness: (J, n) 1 / scale, times 64.
    """

    shares: Numbers
    centres: Numbers
    steepness: Numbers

    def only(self, places: NDArray[np.intp]) -> "Mixture":
        """The mixtures of some of the places."""
        return Mixture(*(each[:, places] for each in self))

    def below(self, edges: Numbers) -> Numbers:
        """The probability that a bin lies below each edge (n, E), as whole numbers up to 2^24."""
        total = np.zeros_like(edges)
        for share, centre, steepness in zip(*self, strict=True):
            numbers = edges - centre[:, None]
            numbers *= steepness[:, None]
            np.clip(numbers, -_FARTHEST, _FARTHEST, out=numbers)
            np.rint(numbers, out=numbers)
            numbers += np.float32(_FARTHEST)
            likely = _LOGISTIC.take(numbers.astype(np.int32).astype(np.intp), mode="wrap")
            likely *= share[:, None]
            total += likely
        return total

    def frequencies(self, edges: Numbers, limits: Limits) -> Numbers:
        """Frequencies (n, E - 1) of the intervals between edges, whose sum is 2^24 - (E - 1)."""
        low = limits.low.astype(np.float32)[:, None] - _ONE_HALF
        high = limits.high.astype(np.float32)[:, None] + _ONE_HALF
        edges = np.clip(edges, low, high)
        likely = np.diff(self.below(edges), axis=1).astype(np.float64)
        likely += np.diff(edges, axis=1) > 0
        count = likely.shape[1]
        whole = _WHOLE - count - _LEAST * count
        total = np.maximum(likely.sum(1, keepdims=True), 1.0)  # of whole numbers, so exact
        frequencies = likely
        frequencies *= whole
        frequencies /= total  # below 2^24, from products below 2^48: never rounded up to a whole number
        np.floor(frequencies, out=frequencies)
        frequencies += _LEAST
        largest = frequencies.argmax(1)
        frequencies[np.arange(len(frequencies)), largest] += _WHOLE - count - frequencies.sum(1)
        return frequencies.astype(np.float32)


class Classes(NamedTuple):
    """How bins of n places are divided.

    Attributes:
        first: (n,) the first bin of the first class that is not a tail.
        width_bits: (n,) k, where a class is 2^k bins wide.
    """

    first: NDArray[np.int64]
    width_bits: NDArray[np.int64]

    def edges(self, limits: Limits) -> Numbers:
        """(n, 2 · HALF + 3) edges of all classes and tails."""
        steps = np.arange(2 * HALF + 1, dtype=np.int64)
        inner = self.first[:, None] + (steps << self.width_bits[:, None])
        low, high = limits.low[:, None], limits.high[:, None] + 1
        edges: Numbers = np.concatenate([low, inner, high], axis=1).astype(np.float32)
        edges -= _ONE_HALF
        return edges


def mixture_of(said: Numbers, centre: Numbers, spread: Numbers) -> Mixture:
    """Outputs of the network (n, 3J) -> mixtures, given the centre and the spread (n,) of each place."""
    weights, centres, scales = np.ascontiguousarray(said.T).reshape(3, -1, len(said))
    below = np.minimum(weights.max(0) - weights, len(POWERS) - 1).astype(np.intp)
    powers = POWERS[below]
    shares = powers * SHARES // powers.sum(0)
    largest = shares.argmax(0)
    shares[largest, np.arange(len(said))] += SHARES - shares.sum(0)
    np.clip(centres, -_FARTHEST_CENTRE, _FARTHEST_CENTRE, out=centres)
    centres *= np.float32(1 / CENTRE_UNITS)
    centres *= spread
    centres += centre
    scales = np.clip(scales, _SMALLEST_SCALE, _LARGEST_SCALE) - np.float32(_SMALLEST_SCALE)
    steepness = _STEEPNESS.take(scales.astype(np.intp))
    steepness /= spread
    np.minimum(steepness, np.float32(_STEEPEST), out=steepness)
    steepness *= np.float32(_SLOPE_UNITS)
    return Mixture(shares.astype(np.float32), centres, steepness)


def classes_of(mixture: Mixture) -> Classes:
    """Classes around the mean, of a width in proportion to the mean scale."""
    mean = np.zeros(mixture.shares.shape[1], np.float32)
    scale = np.zeros_like(mean)
    for share, centre, steepness in zip(*mixture, strict=True):
        mean += share * centre
        scale += share / steepness
    mean *= np.float32(1 / SHARES)
    scale *= np.float32(_WIDTH * _SLOPE_UNITS / SHARES)
    part, exponent = np.frexp(scale)
    width_bits = exponent.astype(np.int64) - (part == _ONE_HALF)  # the logarithm, rounded up
    np.clip(width_bits, 0, MAX_WIDTH_BITS, out=width_bits)
    first = np.floor(mean).astype(np.int64) - (HALF << width_bits)
    return Classes(first, width_bits)
