"""The order in which places of a slice are coded, coarse to fine, and what is seen around them.

Shapes: H×W slice, n places coded at once, F slots, W places of a window.

Places whose row and column are multiples of 16 come first. Then the grid is halved four times, from a
scale s of 8 to 1, each time in three passes: the middles of four known places (rows and columns that
are s modulo 2s), the middles of two in a row (row 0, column s modulo 2s), and those of two in a column
(row s, column 0). In a pass places are in the order of rows, then columns, and come in parts of at most
`PLACES_AT_ONCE`, so that memory stays bounded. Only chosen places are coded; what a slice has at the
others, and beyond its sides, is known and 0.
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
        kind: of the pass: 0 the middle of four, 1 of two in a row, 2 of two in a column.
        scale: half of the distance of known places.
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
        """A flat plane by its rows, margin and all, as a view."""
        return plane.reshape(-1, self._width)

    def inner(self, plane: Numbers) -> Numbers:
        """The slice (H, W) in a flat plane, as a view."""
        margin = self._margin
        rows = self.rows(plane)[margin : margin + self.shape[0]]
        return rows[:, margin : margin + self.shape[1]]

    def padded(self, numbers: NDArray[np.generic]) -> Numbers:
        """A slice (H, W) as a flat plane with its margin; the inverse of `inner`."""
        plane = self.zeros()
        self.inner(plane)[...] = numbers
        return plane

    def first(self, chosen: NDArray[np.bool_]) -> Iterator[Flat]:
        """The chosen of the places that come before all passes, (H, W), in parts."""
        yield from self._parts(chosen, 0, 0, COARSEST)

    def parts(self, chosen: NDArray[np.bool_]) -> Iterator[Part]:
        """The passes over the other chosen places of (H, W)."""
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
        """(n, slots): what a plane has at the known places that a kind sees, or at `most` of them."""
        offsets = known_offsets(part.kind, self.sight.reach[part.kind])[:most]
        return self._seen(plane, part.places, self._flat(offsets, part.scale))

    def window(self, plane: Numbers, places: Flat) -> Numbers:
        """(n, W): what a plane has around places."""
        return self._seen(plane, places, self._window)

    def _flat(self, offsets: Sequence[Offset], scale: int) -> Flat:
        return np.array([(row * self._width + column) * scale for row, column in offsets], np.intp)

    @staticmethod
    def _seen(plane: Numbers, places: Flat, offsets: Flat) -> Numbers:
        return plane.take(places[:, None] + offsets, mode="wrap")


def kind_marks(kind: int, mark: int) -> list[int]:
    """Inputs that say which kind of pass it is."""
    return [mark * (each == kind) for each in range(KINDS)]
