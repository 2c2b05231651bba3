"""The orientation of a slice in a picture: L, R and the nose at its edges, if it is known.

It is known for volumes whose affine tells it, for volumes of OASIS by their names, and for the UQ PNG
slices, which are axial: rows run from left to right, columns from back to front. Nothing else is marked.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, NamedTuple

from matplotlib.axes import Axes

from oasisvq.codec.headers import CodesHeader, placement_of
from oasisvq.data.dataset import Dataset, SliceRecord
from oasisvq.data.layouts import PNG_SLICES
from oasisvq.errors import ImageError
from oasisvq.evaluation.figures import INK
from oasisvq.scans.geometry import Form
from oasisvq.scans.scan import Placement
from oasisvq.scans.words import axes_of_oasis

NOSE = "nose"
MARGIN = 0.07  # share of a picture's longer side for each mark beside it
_OPPOSITE = dict(zip("RLAPSI", "LRPAIS", strict=True))
_MARKED = {"L": "L", "R": "R", "A": NOSE}
_UQ_NAME, _UQ_SHAPE = re.compile(r"(?:case|seg)_\d{3,4}_slice_\d{1,4}(?:\.nii)?\."), (256, 256)
_TRIANGLES = {"top": "^", "bottom": "v", "left": "<", "right": ">"}

Edge = Literal["top", "bottom", "left", "right"]


class Marks(NamedTuple):
    """The mark at each edge of a picture: `L`, `R`, `NOSE`, or empty."""

    top: str = ""
    bottom: str = ""
    left: str = ""
    right: str = ""

    def edges(self) -> dict[Edge, str]:
        """The edges that have a mark."""
        sides: dict[Edge, str] = {
            "top": self.top,
            "bottom": self.bottom,
            "left": self.left,
            "right": self.right,
        }
        return {edge: mark for edge, mark in sides.items() if mark}

    @property
    def says(self) -> str:
        """The marks in words."""
        names = {"L": "left", "R": "right", NOSE: "nose"}
        return ", ".join(f"{names[mark]} at the {edge}" for edge, mark in self.edges().items())


UNKNOWN = Marks()


def marks_along(rows: str, columns: str) -> Marks:
    """The marks of a picture whose rows and columns grow to these axis codes, such as R and A."""
    ends = _OPPOSITE[rows], rows, _OPPOSITE[columns], columns
    return Marks(*(_MARKED.get(letter, "") for letter in ends))


AXIAL = marks_along("R", "A")  # see `slicing_by`
MARKS = {"axial": AXIAL, "coronal": marks_along("R", "S"), "sagittal": marks_along("A", "S")}


def marks_of_codes(header: CodesHeader, path: Path) -> Marks:
    """The marks of the slices of a `.codes` file.

    Args:
        header: of the file.
        path: of the file; volumes of OASIS and UQ PNG slices are recognised by its name.
    """
    placement = placement_of(header)
    if placement is None or header.stack:
        name = header.stack.names[0] if header.stack else path.name
        is_uq = _UQ_NAME.match(name) and header.shape == _UQ_SHAPE
        return AXIAL if is_uq else UNKNOWN
    codes = _axis_codes(placement, path)
    if codes is None:
        return UNKNOWN
    _, rows, columns = (
        _OPPOSITE[codes[axis]] if flipped else codes[axis]
        for axis, flipped in zip(placement.slicing.axes, placement.slicing.flipped, strict=True)
    )
    return marks_along(rows, columns)


def _axis_codes(placement: Placement, path: Path) -> str | None:
    """The axis codes of a volume; None if its header leaves them open."""
    geometry = placement.geometry
    if geometry.form is Form.ANALYZE:
        return axes_of_oasis(path.absolute().with_suffix(".img").as_posix())
    if geometry.form_codes == (0, 0):
        return None
    try:
        return geometry.axis_codes
    except ImageError:
        return None


def marks_of_records(dataset: Dataset, records: Iterable[SliceRecord]) -> list[Marks]:
    """The marks of slices of a prepared dataset."""
    if dataset.layout == PNG_SLICES.name:
        return [AXIAL for _ in records]
    told = (each for each in dataset.volumes if each.axis_codes and not each.is_guessed)
    known = {each.source: MARKS[each.axis] for each in told}
    return [known.get(record.source, UNKNOWN) for record in records]


def shared(marks: list[Marks]) -> Marks:
    """The marks that all slices share; no marks if they differ."""
    return marks[0] if len(set(marks)) == 1 else UNKNOWN


def draw_marks(axes: Axes, marks: Marks) -> None:
    """Put marks beside a drawn picture: its view grows, so that nothing is covered."""
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    margin = MARGIN * max(abs(right - left), abs(bottom - top))
    edges = marks.edges()
    along, across = (left + right) / 2, (bottom + top) / 2
    down = 1 if bottom > top else -1  # rows of a picture grow downwards
    at = {
        "top": (along, top - down * margin / 2),
        "bottom": (along, bottom + down * margin / 2),
        "left": (left - margin / 2, across),
        "right": (right + margin / 2, across),
    }
    for edge, mark in edges.items():
        if mark == NOSE:
            axes.plot(*at[edge], _TRIANGLES[edge], color=INK, markersize=3.5, clip_on=False)
        else:
            axes.text(*at[edge], mark, ha="center", va="center", color=INK, clip_on=False)
    axes.set_xlim(left - margin * ("left" in edges), right + margin * ("right" in edges))
    axes.set_ylim(bottom + down * margin * ("bottom" in edges), top - down * margin * ("top" in edges))
