"""What a scan shows: a brain, for the model, or labels, which are kept exactly. Never imports torch.

Shapes: S slices (an image is one), H×W image.

Labels that go through the model come back as values that never existed, and nothing says so; a scan
that is kept exactly is merely large. So all that may well be labels is tried: what it would cost
without loss is estimated from *surprises*, voxels that equal none of the three neighbours before
them (in the row, in the column, in the slice before). Tissue maps have 0.03 surprises per voxel that
is not ground, contours in colours 0.7 with few labels, real scans 0.6 and more with a hundred values
and more.
"""

import math
from enum import Enum
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from oasisvq.codec.headers import MAX_LABELS, CodesHeader
from oasisvq.errors import ImageError

MOST_TIMES_LARGER = 4  # than by the model, that labels may be without loss; else they are a scan
MOST_TIMES_LARGER_IF_TOLD = 8  # where the file's name or header says that it holds labels

_LOOKED_AT_FIRST = 8  # slices of a volume: most scans are seen to be some by these
_DOUBTFUL = 1.5  # times the limit, in those slices, at which all are looked at
_FEW = 2  # values; no scan has so few, but noise above black may have three
_BITS_PER_VOXEL = 1.0  # that is not ground: an estimate above this is no map of labels
_BITS_IF_PLAIN = 0.1  # and one below this is nothing else
_BITS_PER_GROUND_VOXEL = 0.02  # so that a few scattered labels pass, whatever they cost
_BITS = 32
_IF_TOLD = 3  # times these limits where it is told


class Content(str, Enum):
    """What a scan shows."""

    AUTO = "auto"
    SCAN = "scan"
    LABELS = "labels"


class LabelValues(NamedTuple):
    """The values of a map of labels.

    Attributes:
        values: in order, of the planes' type.
        is_plain: whether nothing else looks so; else it depends on what it costs to keep them.
        most_times_larger: than by the model, that keeping them may be.
    """

    values: NDArray[np.generic]
    is_plain: bool
    most_times_larger: float

    @property
    def names(self) -> tuple[float, ...]:
        """The values as a header keeps them: integers where all are whole."""
        values: list[float] = self.values.tolist()
        return tuple(int(value) for value in values) if are_whole(self.values) else tuple(values)

    def ranks(self, planes: NDArray[np.generic]) -> NDArray[np.uint16]:
        """(S, H, W): the place of each voxel's value in their order."""
        return np.searchsorted(self.values, planes).astype(np.uint16)


def labels_in(
    planes: NDArray[np.generic], content: Content = Content.AUTO, is_told: bool = False
) -> LabelValues | None:
    """The labels that planes (S, H, W) hold; None of a scan.

    Args:
        planes: finite values, or NaN, which no label is.
        content: what is known of them.
        is_told: whether the file's name or header says that it holds labels.

    Raises:
        ImageError: they are said to be labels, and are none.
    """
    if content is Content.SCAN:
        return None
    if planes.dtype.kind == "f" and np.isnan(planes).any():
        if content is Content.AUTO:
            return None
        raise ImageError("voxels that are no numbers (NaN), expected labels; pass --kind scan")
    if content is Content.LABELS:
        values = np.unique(planes)
        if len(values) > MAX_LABELS:
            raise ImageError(
                f"{len(values):,} values from {values[0]} to {values[-1]}, expected labels: at most "
                f"{MAX_LABELS:,} values; pass --kind scan"
            )
        return LabelValues(values, True, math.inf)
    share = _IF_TOLD if is_told else 1
    first = _look(planes, _spread(len(planes)))
    if first is None or first.bits > _DOUBTFUL * share * first.limit:
        return None
    seen = first if len(planes) <= _LOOKED_AT_FIRST else _look(planes, range(len(planes)))
    if seen is None or len(seen.values) < 2 or seen.bits > share * seen.limit:
        return None
    is_plain = len(seen.values) <= _FEW or seen.bits <= (seen.limit if is_told else seen.plain_limit)
    return LabelValues(
        seen.values, is_plain, MOST_TIMES_LARGER_IF_TOLD if is_told else MOST_TIMES_LARGER
    )


def what_is_assumed(header: CodesHeader) -> str:
    """What encoding made of a map of labels that nobody had called one; empty of a scan."""
    if not header.labels:
        return ""
    whole = "whole " if all(isinstance(label, int) for label in header.labels) else ""
    how = "coded as labels by the model" if header.levels else "kept exactly as labels"
    return f"{len(header.labels):,} {whole}values: {how}; --kind scan codes them by the model"


def are_whole(values: NDArray[np.generic]) -> bool:
    """Whether all are whole numbers that a header keeps as such."""
    if values.dtype.kind == "f" and bool((values != np.rint(values)).any()):
        return False
    return max(-int(values.min()), int(values.max())) < 2**31


class _Seen(NamedTuple):
    """What some slices hold: their values, about what they cost as labels, and limits for that."""

    values: NDArray[np.generic]
    bits: float
    limit: float
    plain_limit: float


def _spread(slices: int) -> range:
    """A few places, evenly over all slices."""
    step = max(1, slices // _LOOKED_AT_FIRST)
    return range(step // 2, slices, step)


def _look(planes: NDArray[np.generic], places: range) -> _Seen | None:
    """Values and surprises of some slices; None where there are more values than a map may have."""
    counts: dict[Any, int] = {}
    surprises = voxels = 0
    for place in places:
        plane = planes[place]
        values, numbers = np.unique(plane, return_counts=True)
        for value, number in zip(values.tolist(), numbers.tolist(), strict=True):
            counts[value] = counts.get(value, 0) + number
        if len(counts) > MAX_LABELS:
            return None
        surprises += _surprises(plane, planes[place - 1] if place else None)
        voxels += plane.size
    coloured = voxels - max(counts.values())
    floor = _BITS + _BITS_PER_GROUND_VOXEL * voxels
    values = np.array(sorted(counts), planes.dtype)
    bits = surprises * math.log2(len(values)) / 2 + (0 if are_whole(values) else 8 * values.nbytes)
    return _Seen(values, bits, _BITS_PER_VOXEL * coloured + floor, _BITS_IF_PLAIN * coloured + _BITS)


def _surprises(plane: NDArray[np.generic], before: NDArray[np.generic] | None) -> int:
    """Voxels of a plane (H, W) that equal no neighbour before them."""
    is_known = np.zeros(plane.shape, np.bool_)
    is_known[:, 1:] = plane[:, 1:] == plane[:, :-1]
    is_known[1:] |= plane[1:] == plane[:-1]
    if before is not None:
        is_known |= plane == before
    return plane.size - int(np.count_nonzero(is_known))
