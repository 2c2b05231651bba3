"""What the previous slice of a volume tells about the indices of a slice. Never imports torch.

Shapes: n cells of one pass, L levels, h×w grid, K codes, D code dimension, W weights.

The prior knows one slice alone. In a volume the previous slice, usually a millimetre away, looks nearly
the same. So a code that brings a cell near to the previous slice's latent there is likelier than the
prior says. Each code is put into a class by its distance from that latent; the nearest code has classes
of its own. Every class has a weight by which the prior's frequencies are multiplied: how often its codes
occurred, relative to how often they were expected. Weights start at one and are learned during coding,
by encoder and decoder alike, so nothing has to be trained or stored.

The code of this module is the specification of these weights: other weights make another format.

Integers only, as in `prior.py`: codes are in 256ths, float64 holds their squares and products exactly,
and logarithms are taken by `frexp`.
"""

import numpy as np
from numpy.typing import NDArray

from oasisvq.codec.exact import EXACT_DOUBLE
from oasisvq.codec.frequencies import FREQUENCY_BITS, Frequencies, Indices
from oasisvq.codec.prior import Pass
from oasisvq.errors import ModelError

ONE = 2**12  # a weight of one
LARGEST = 2**22
CLASSES = 36  # by distance, four to an octave; the mean square of a level's codes is class 28
MEAN_CLASS = 28
NEAREST_CLASSES = 4  # of the nearest code, by how likely it is to the prior
CONTEXTS = 3  # of a cell: it has no level below; there another code, or the nearest, occurred
COUNT_AT_START = 1
LARGEST_COUNT = 2**12
RAREST = 16  # no code gets less than 2^-16 of the likeliest, as in the table of `frequencies.py`


class Recall:
    """Weights the frequencies of one slice after the other.

    For each slice: `begin`, then for each pass `weigh` and `learn`.
    """

    def __init__(self, codebooks: NDArray[np.float32]) -> None:
        """Start with codebooks (L, K, D), whole numbers.

        Raises:
            ModelError: their values are too large to be summed exactly.
        """
        rounded = codebooks.astype(np.float64)
        levels, _, dimension = rounded.shape
        if dimension * (2 * levels * np.abs(rounded).max()) ** 2 >= EXACT_DOUBLE:
            raise ModelError("codebooks with values too large for volumes")
        self._codebooks = rounded
        self._squares = np.square(rounded).sum(2)  # (L, K)
        means = self._squares.sum(1) // self._squares.shape[1]
        self._first_octaves = _quarter_octaves(means) - MEAN_CLASS
        shape = levels, CONTEXTS, CLASSES + NEAREST_CLASSES
        self._weights = np.full(shape, ONE, np.int64)
        self._counts = np.full(shape, COUNT_AT_START, np.int64)
        self._before: NDArray[np.float64] | None = None
        self._now: NDArray[np.float64] | None = None

    def begin(self, height: int, width: int) -> None:
        """Begin the next slice, on a grid of h×w."""
        is_alike = self._now is not None and self._now.shape[:2] == (height, width)
        self._before = self._now if is_alike else None
        self._now = np.zeros((height, width, self._codebooks.shape[2]))
        self._agreed = np.zeros((height, width), np.int64)

    def weigh(self, step: Pass, frequencies: Frequencies) -> Frequencies:
        """Frequencies (n, K) of the prior -> frequencies weighted by the previous slice."""
        if self._before is None:
            return frequencies
        assert self._now is not None
        wanted = (self._before - self._now)[step.rows, step.columns]  # (n, D)
        codebook = self._codebooks[step.level]
        distances = self._squares[step.level] - 2 * (wanted @ codebook.T)
        distances += np.square(wanted).sum(1, keepdims=True)
        classes = _quarter_octaves(distances) - self._first_octaves[step.level]
        np.clip(classes, 0, CLASSES - 1, out=classes)
        self._nearest = distances.argmin(1)
        cells = np.arange(len(wanted))
        octaves_below = FREQUENCY_BITS + 1 - np.frexp(frequencies[cells, self._nearest] + 1.0)[1]
        classes[cells, self._nearest] = CLASSES + np.minimum(octaves_below // 2, NEAREST_CLASSES - 1)
        context = self._agreed[step.rows, step.columns]
        self._classes = classes + context[:, None] * (CLASSES + NEAREST_CLASSES)
        weights = self._weights[step.level].reshape(-1)[self._classes]
        self._frequencies = _normalised((frequencies + 1) * weights)
        return self._frequencies

    def learn(self, step: Pass, chosen: Indices) -> None:
        """Learn from the indices (n,) that a pass has fixed."""
        assert self._now is not None
        self._now[step.rows, step.columns] += self._codebooks[step.level][chosen]
        if self._before is None:
            return
        self._agreed[step.rows, step.columns] = 1 + (chosen == self._nearest)
        weights = self._weights[step.level].reshape(-1)
        counts = self._counts[step.level].reshape(-1)
        came = np.bincount(self._classes[np.arange(chosen.size), chosen], minlength=weights.size)
        shares = (self._frequencies + 1).reshape(-1)
        expected = np.bincount(self._classes.reshape(-1), shares, weights.size).astype(np.int64)
        one = 1 << FREQUENCY_BITS
        weights[:] = weights * ((counts + came) * one) // (counts * one + expected)
        np.clip(weights, 1, LARGEST, out=weights)
        np.minimum(counts + came, LARGEST_COUNT, out=counts)


def _quarter_octaves(numbers: NDArray[np.float64]) -> NDArray[np.int64]:
    """Whole numbers -> their logarithms in quarter octaves, interpolated linearly within an octave."""
    mantissa, exponent = np.frexp(np.maximum(numbers, 1))
    quarters: NDArray[np.int64] = 4 * exponent.astype(np.int64) + (mantissa * 8).astype(np.int64) - 4
    return quarters


def _normalised(shares: NDArray[np.int64]) -> Frequencies:
    """Positive shares (n, K) below 2^47 -> frequencies, whose sum is exactly 2^24 - K."""
    whole = 2**FREQUENCY_BITS - shares.shape[1]
    largest = shares.max(1, keepdims=True)
    excess = np.maximum(np.frexp(largest.astype(np.float64))[1] - 30, 0)
    shares = np.maximum(shares, largest >> RAREST) >> excess
    frequencies: Frequencies = shares * whole // shares.sum(1, keepdims=True)
    largest = frequencies.argmax(1)[:, None]
    missing = whole - frequencies.sum(1, keepdims=True)
    np.put_along_axis(frequencies, largest, np.take_along_axis(frequencies, largest, 1) + missing, 1)
    return frequencies
