"""What the indices do not say <-> payload: the bins of voxels, one slice after the other.

Shapes: H×W slice, n places coded together, I inputs that are used, F slots, W places of a window.

A bin is a whole number, and only ground has bin 0; `bins.py` turns voxels into bins and back. Where the
ground is, is known to the reader. The bins of all other voxels are coded coarse to fine, in the order of
`lattice.py`. Those of the coarsest grid are coded as equally likely, the others by the network. Its
inputs (`residue_config.py`) are the known bins nearby, and those of the decoded image and of previous
slices. Each is given as its distance from a centre, in units of a spread: the centre is the mean of the
four nearest known bins, the spread the mean distance of the sixteen nearest from that centre. So the
network sees no grey levels, only how they lie relative to each other. Its outputs become frequencies in
`mixture.py`. Never imports torch.

**Units.** Planes hold 16ths of a bin, which are exact in float32. If a file needs more than 17 bits and
a sign for a bin, bins are split: the network predicts b >> shift, and the lower bits follow.

**A slice** that is not all ground begins with its noise and its largest bin. The noise is the mean
distance of a bin from the mean of its left and right neighbours, where none of the three is ground. It
is coded in quarter octaves from `NOISE_LOW`, with all `NOISES` values equally likely. Then come the
bins and, last, their lower bits, row by row. A reader MUST refuse a slice whose noise or largest bin is
not what it begins with.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from oasisvq.codec.exact import Numbers, octaves
from oasisvq.codec.lattice import Flat, Lattice, Part
from oasisvq.codec.mixture import (
    CELLS,
    HALF,
    Limits,
    Mixture,
    classes_of,
    mixture_of,
    tail_frequencies,
)
from oasisvq.codec.residue_config import INPUT_MAX, INPUT_UNITS, KINDS
from oasisvq.codec.residue_networks import ResidueNetwork, Seeing
from oasisvq.codec.symbols import Integers, SymbolReader, Symbols, SymbolWriter, code_bits
from oasisvq.errors import CodesFileError

Bins = NDArray[np.int64]
Booleans = NDArray[np.bool_]

MAX_BIN_BITS = 56  # of a bin without its sign
BIN_UNITS = 16  # steps of a plane to a bin
NOISES, NOISE_LOW = 128, -18
_PREDICTED_BITS = 17
_SPREAD_OF = 16
_LEAST_SPREAD = np.float32(0.3)
_LEAST_NOISE = np.float32(0.05)
_FARTHEST_END = np.float32(3.9 * INPUT_UNITS)
_LOG_UNITS = 256  # of `octaves`
_TAIL = tail_frequencies()


class BinLimits(NamedTuple):
    """The smallest and the largest bin of a file, without ground."""

    low: int
    high: int

    @property
    def shift(self) -> int:
        """Low bits of a bin that are not predicted."""
        return max(0, max(abs(self.low), abs(self.high)).bit_length() - _PREDICTED_BITS)


class SliceWriter:
    """Slices -> a payload."""

    def __init__(self, network: ResidueNetwork, shape: tuple[int, int], limits: BinLimits) -> None:
        self._symbols = SymbolWriter()
        self._walk = _Walk(network, shape, limits, self._symbols)

    def put(self, bins: Bins, support: Booleans, guide: NDArray[np.float64] | None) -> None:
        """Append a slice.

        Args:
            bins: (H, W), 0 outside the support, never 0 inside it.
            support: (H, W) which voxels have bins; known to the reader.
            guide: (H, W) bins of the decoded image, with fractions; None if the slice has no indices.
        """
        self._walk.slice(bins, support, guide)

    def finish(self) -> bytes:
        """The payload."""
        return self._symbols.finish()


class SliceReader:
    """A payload -> slices; the inverse of `SliceWriter`."""

    def __init__(
        self, payload: bytes, network: ResidueNetwork, shape: tuple[int, int], limits: BinLimits
    ) -> None:
        self._symbols = SymbolReader(payload)
        self._walk = _Walk(network, shape, limits, self._symbols)

    def take(self, support: Booleans, guide: NDArray[np.float64] | None) -> Bins:
        """The bins (H, W) of the next slice.

        Raises:
            CodesFileError: the payload is damaged.
        """
        return self._walk.slice(np.zeros(support.shape, np.int64), support, guide)

    def finish(self) -> None:
        """Raise unless the payload ends here.

        Raises:
            CodesFileError: it goes on, or is not what the encoder writes.
        """
        self._symbols.finish()


class _Slice(NamedTuple):
    """What is known of a slice before its bins; planes are flat, with their margin, in 16ths."""

    guide: Numbers | None
    before: list[Numbers]
    top: int  # the largest predicted number
    noise: int  # in quarters of octaves


class _Walk:
    """Codes slices in both directions, see `symbols.py`."""

    def __init__(
        self, network: ResidueNetwork, shape: tuple[int, int], limits: BinLimits, symbols: Symbols
    ) -> None:
        assert max(abs(limits.low), abs(limits.high)).bit_length() <= MAX_BIN_BITS
        self._network, self._symbols, self._limits = network, symbols, limits
        self._shift = limits.shift
        self._low, self._high = limits.low >> self._shift, limits.high >> self._shift
        self._lattice = Lattice(network.config, shape)
        self._before: list[Numbers] = []  # the nearest slice first
        self._seers: dict[tuple[int, bool, int], Seeing] = {}

    def slice(self, bins: Bins, support: Booleans, guide: NDArray[np.float64] | None) -> Bins:
        """Code a slice and return its bins; when it is written, these are the given ones."""
        plane, coarse = self._lattice.zeros(), self._lattice.zeros()
        result = np.zeros(bins.shape, np.int64)
        if support.any():
            numbers = bins >> self._shift
            self._lattice.inner(coarse)[...] = numbers * support
            known = self._begin(numbers, support, guide)
            for places in self._lattice.first(support):
                self._put(plane, places, self._uniform(coarse, places, known))
            for part in self._lattice.parts(support):
                found = self._predicted(plane, part, coarse[part.places].astype(np.int64), known)
                self._put(plane, part.places, found)
            result[support] = self._finish(plane, bins[support], support)
            found = result >> self._shift
            if (noise_of(found, support), found[support].max()) != (known.noise, known.top):
                raise CodesFileError("a slice whose noise or largest bin is not what it begins with")
        self._before = [plane, *self._before][: self._network.config.slices_before]
        return result

    def _begin(self, numbers: Bins, support: Booleans, guide: NDArray[np.float64] | None) -> _Slice:
        """Code what a slice begins with."""
        noise = np.array([noise_of(numbers, support) - NOISE_LOW])
        noise = self._symbols.uniform(noise, NOISES)
        top = np.array([numbers[support].max() - self._low])
        top = self._symbols.uniform(top, self._high - self._low + 1)
        plane = None
        if guide is not None:
            plane = self._lattice.padded(np.rint(guide * (BIN_UNITS / 2.0**self._shift)))
        return _Slice(plane, self._before, int(top[0]) + self._low, int(noise[0]) + NOISE_LOW)

    def _uniform(self, coarse: Numbers, places: Flat, known: _Slice) -> Integers:
        wanted = coarse[places].astype(np.int64) - self._low
        return self._symbols.uniform(wanted, known.top - self._low + 1) + self._low

    @staticmethod
    def _put(plane: Numbers, places: Flat, numbers: Integers) -> None:
        plane[places] = numbers * BIN_UNITS

    def _finish(self, plane: Numbers, wanted: Integers, support: Booleans) -> Integers:
        """Predicted numbers -> bins (n,), with the low bits, which are not predicted."""
        found: Integers = self._lattice.inner(plane)[support].astype(np.int64)
        found = found // BIN_UNITS << self._shift
        if self._shift:
            found |= code_bits(self._symbols, wanted & (1 << self._shift) - 1, self._shift)
        low, high = self._limits
        if (found == 0).any() or found.min() < low or found.max() > high:
            raise CodesFileError(f"bins beyond {low} to {high}, or ground where there is none")
        return found

    # --- what the network sees and says ---------------------------------------------------------

    def _predicted(self, plane: Numbers, part: Part, wanted: Integers, known: _Slice) -> Integers:
        """The numbers (n,) at the places of a part."""
        around = self._lattice.known(plane, part)
        centre = ((around[:, 0] + around[:, 1]) + (around[:, 2] + around[:, 3])) * np.float32(0.25)
        around -= centre[:, None]
        count = min(_SPREAD_OF, around.shape[1])
        spread: Numbers = np.abs(around[:, :count]).sum(1)  # exact
        spread /= np.float32(BIN_UNITS * count)
        np.maximum(spread, _LEAST_SPREAD, out=spread)
        said = self._seer(part.kind, known)(self._inputs(part, around, centre, spread, known))
        base = np.floor(centre * np.float32(1 / BIN_UNITS))
        nearest = base.astype(np.int64)
        fraction = centre * np.float32(1 / BIN_UNITS) - base
        mixture = mixture_of(said, fraction, spread)
        limits = Limits(self._low - nearest, known.top - nearest)
        found: Integers = nearest + code_by(self._symbols, mixture, limits, wanted - nearest)
        if found.min() < self._low or found.max() > known.top:
            raise CodesFileError(f"numbers beyond {self._low} to {known.top}")
        return found

    def _seer(self, kind: int, known: _Slice) -> Seeing:
        """The network for the inputs that are used in a pass of this kind."""
        key = kind, known.guide is not None, len(known.before)
        if key not in self._seers:
            sight = self._network.config
            slots = np.zeros(len(sight.slots), np.bool_)
            slots[self._lattice.slots_of(kind)] = True
            windows = [key[1], *(place < key[2] for place in range(sight.slices_before))]
            used = [
                slots,
                np.arange(KINDS) == kind,
                np.repeat(windows, sight.window_size),
                np.ones(sight.scalars, np.bool_),
            ]
            self._seers[key] = self._network.seeing(np.concatenate(used))
        return self._seers[key]

    def _inputs(
        self, part: Part, around: Numbers, centre: Numbers, spread: Numbers, known: _Slice
    ) -> Numbers:
        """(n, I) inputs; `around` holds distances from the centre, in 16ths like the centre."""
        gain = np.float32(INPUT_UNITS / BIN_UNITS) / spread
        windows = [known.guide] if known.guide is not None else []
        windows += known.before
        size = self._lattice.sight.window_size
        scalars = self._scalars(part, centre, spread, known)
        start = around.shape[1]
        inputs = np.empty((len(spread), start + 1 + size * len(windows) + len(scalars)), np.float32)
        np.multiply(around, gain[:, None], out=inputs[:, :start])
        inputs[:, start] = INPUT_UNITS
        start += 1
        for window in windows:
            seen = self._lattice.window(window, part.places)
            seen -= centre[:, None]
            np.multiply(seen, gain[:, None], out=inputs[:, start : start + size])
            start += size
        for place, scalar in enumerate(scalars, start):
            inputs[:, place] = scalar
        np.rint(inputs, out=inputs)
        return np.clip(inputs, -INPUT_MAX, INPUT_MAX, out=inputs)

    def _scalars(
        self, part: Part, centre: Numbers, spread: Numbers, known: _Slice
    ) -> list[Numbers | float]:
        """The scalar inputs, in steps of 1 / `INPUT_UNITS`, not yet rounded."""
        quarter = np.float32(INPUT_UNITS / BIN_UNITS / 4) / spread
        to_low = (centre - np.float32(self._low * BIN_UNITS)) * quarter
        to_high = (np.float32(known.top * BIN_UNITS) - centre) * quarter
        spread_log = octaves(spread).astype(np.float32)
        noise_log = np.float32(known.noise * _LOG_UNITS // 4)
        unit = INPUT_UNITS / _LOG_UNITS
        return [
            spread_log * np.float32(0.5 * unit),
            np.minimum(to_low, _FARTHEST_END),
            np.minimum(to_high, _FARTHEST_END),
            0.5 * INPUT_UNITS * (part.scale.bit_length() - 1),
            float(INPUT_UNITS * (known.guide is not None)),
            float(INPUT_UNITS * bool(known.before)),
            (spread_log - noise_log) * np.float32(0.7 * unit),
            float(noise_log * np.float32(0.5 * unit)),
        ]


def noise_of(bins: Bins, support: Booleans) -> int:
    """The noise of a slice in quarter octaves: one of `NOISES` values from `NOISE_LOW`."""
    own, left, right = bins[:, 1:-1], bins[:, :-2], bins[:, 2:]
    counted = support[:, 1:-1] & support[:, :-2] & support[:, 2:]
    count = int(counted.sum())
    total = int(np.abs(2 * own - left - right)[counted].sum())
    mean = max(np.float32(total / (2 * count)) if count else _LEAST_NOISE, _LEAST_NOISE)
    quarter = _LOG_UNITS // 4
    quarters = (int(octaves(np.array([mean]))[0]) + quarter // 2) // quarter
    return min(max(quarters, NOISE_LOW), NOISE_LOW + NOISES - 1)


def code_by(symbols: Symbols, mixture: Mixture, limits: Limits, wanted: Integers) -> Integers:
    """Code numbers (n,) by a mixture: their classes, then distances in tails, then places in classes."""
    classes = classes_of(mixture)
    first, width_bits = classes
    last = 2 * HALF + 1
    class_ = np.clip(((wanted - first) >> width_bits) + 1, 0, last)
    class_ = symbols.coded(class_, mixture.frequencies(classes.edges(limits), limits))
    found = first + ((class_ - 1) << width_bits)
    for tail, step in ((0, -1), (last, 1)):
        places = np.flatnonzero(class_ == tail)
        # the nearest bin of the tail; in the lower tail it lies just below the first class
        nearest = found[places] + ((1 << width_bits[places]) - 1 if tail == 0 else 0)
        distance = _code_distance(symbols, (wanted[places] - nearest) * step)
        found[places] = nearest + distance * step
    is_inner = (class_ > 0) & (class_ < last) & (width_bits > 0)
    for bits in np.unique(width_bits[is_inner]).tolist():
        places = np.flatnonzero(is_inner & (width_bits == bits))
        start = found[places]
        found[places] += _code_within(
            symbols,
            mixture.only(places),
            Limits(*(each[places] for each in limits)),
            start,
            wanted[places] - start,
            bits,
        )
    return found


def _code_distance(symbols: Symbols, distance: Integers) -> Integers:
    """Code whole numbers d from 0: the bit length of d + 1, then its bits below the leading one."""
    places = np.frexp(np.maximum(distance + 1, 1).astype(np.float64))[1].astype(np.int64)
    places = symbols.coded(places - 1, np.broadcast_to(_TAIL, (len(distance), len(_TAIL))))
    found = 1 << places
    for count in np.unique(places).tolist():
        chosen = np.flatnonzero(places == count)
        found[chosen] |= code_bits(symbols, (distance[chosen] + 1) & (1 << count) - 1, count)
    result: Integers = found - 1
    return result


def _code_within(
    symbols: Symbols, mixture: Mixture, limits: Limits, start: Integers, wanted: Integers, bits: int
) -> Integers:
    """Code where numbers lie in their classes of 2^bits bins, which begin at `start`."""
    cells = min(1 << bits, CELLS)
    cell_bits = bits - (cells.bit_length() - 1)
    steps = np.arange(cells + 1, dtype=np.int64) << cell_bits
    edges = (start[:, None] + steps).astype(np.float32) - np.float32(0.5)
    frequencies = mixture.frequencies(edges, limits)
    found = symbols.coded(np.clip(wanted >> cell_bits, 0, cells - 1), frequencies) << cell_bits
    return found | code_bits(symbols, wanted & (1 << cell_bits) - 1, cell_bits)
