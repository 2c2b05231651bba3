"""The order in which places of a slice are coded, coarse to fine, and what is seen around them.

Shapes: H×W slice, n places coded at once, F slots, W places of a window.

Places whose row and column are multiples of 16 come first. Then the grid is halved four times, with a
scale s from 8 to 1. Each time there are three passes: the middles of four known places (row and column
are s modulo 2s), the middles of two in a row (row 0, column s modulo 2s), and the middles of two in a
column (row s, column 0 modulo 2s). A pass goes row by row and comes in parts of at most `PLACES_AT_ONCE`
places, so that memory stays bounded. Only chosen places are coded; at all others, and beyond the borders
of the slice, the value is known and 0.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from oasisvq.codec.exact import Numbers
from oasisvq.codec.residue_config import KINDS, Offset, Sight, known_offsets, window_offsets

COARSEST = 16
SCALES = (8, 4, 2, 1)
PLACES_AT_ONCE = 8192

Flat = NDArray[np.intp]  # (n,) places in a plane with its margin


class Part(NamedTuple):
    """Some places of a pass, which are coded together.

    Attributes:
        kind: of the pass: 0 the middle of four places, 1 of two in a row, 2 of two in a column.
        scale: half the distance between known places.
        places: (n,) in a plane with its margin.
    """

    kind: int
    scale: int
    places: Flat


class Lattice:
    """The places of a slice (H, W) and of what is around it.

    Attributes:
        sight: what is seen.
        shape: H and W.
    """

    def __init__(self, sight: Sight, shape: tuple[int, int]) -> None:
        self.sight, self.shape = sight, shape
        self._margin = max(max(sight.reach) * SCALES[0], sight.window)
        self._width = shape[1] + 2 * self._margin
        self._window = self._flat(window_offsets(sight.window), 1)

    def zeros(self) -> Numbers:
        """A plane with its margin, flat."""
        return np.zeros((self.shape[0] + 2 * self._margin) * self._width, np.float32)

    def rows(self, plane: NDArray[Any]) -> NDArray[Any]:
        """A flat plane as rows, margin included, as a view."""
        return plane.reshape(-1, self._width)

    def inner(self, plane: Numbers) -> Numbers:
        """The slice (H, W) inside a flat plane, as a view."""
        margin = self._margin
        rows = self.rows(plane)[margin : margin + self.shape[0]]
        return rows[:, margin : margin + self.shape[1]]

    def padded(self, numbers: NDArray[np.generic]) -> Numbers:
        """A slice (H, W) as a flat plane with its margin; the inverse of `inner`."""
        plane = self.zeros()
        self.inner(plane)[...] = numbers
        return plane

    def first(self, chosen: NDArray[np.bool_]) -> Iterator[Flat]:
        """The places before all passes that are chosen (H, W), in parts."""
        yield from self._parts(chosen, 0, 0, COARSEST)

    def parts(self, chosen: NDArray[np.bool_]) -> Iterator[Part]:
        """The passes over the other places that are chosen (H, W), in parts."""
        for scale in SCALES:
            for kind, (row, column) in enumerate(((scale, scale), (0, scale), (scale, 0))):
                for places in self._parts(chosen, row, column, 2 * scale):
                    yield Part(kind, scale, places)

    def _parts(self, chosen: NDArray[np.bool_], row: int, column: int, step: int) -> Iterator[Flat]:
        rows, columns = np.nonzero(chosen[row::step, column::step])
        places = (rows * step + row + self._margin) * self._width
        places += columns * step + column + self._margin
        for start in range(0, len(places), PLACES_AT_ONCE):
            yield places[start : start + PLACES_AT_ONCE]

    def slots_of(self, kind: int) -> list[int]:
        """Which slots a kind of pass sees, nearest first."""
        slots = self.sight.slots
        return [slots.index(each) for each in known_offsets(kind, self.sight.reach[kind])]

    def known(self, plane: Numbers, part: Part, most: int | None = None) -> Numbers:
        """(n, slots): a plane's values at the known places that a kind sees, or the `most` nearest."""
        offsets = known_offsets(part.kind, self.sight.reach[part.kind])[:most]
        return self._seen(plane, part.places, self._flat(offsets, part.scale))

    def window(self, plane: Numbers, places: Flat) -> Numbers:
        """(n, W): a plane's values in the window around each place."""
        return self._seen(plane, places, self._window)

    def _flat(self, offsets: Sequence[Offset], scale: int) -> Flat:
        return np.array([(row * self._width + column) * scale for row, column in offsets], np.intp)

    @staticmethod
    def _seen(plane: Numbers, places: Flat, offsets: Flat) -> Numbers:
        return plane.take(places[:, None] + offsets, mode="wrap")


def kind_marks(kind: int, mark: int) -> list[int]:
    """Inputs that tell the kind of pass."""
    return [mark * (each == kind) for each in range(KINDS)]
