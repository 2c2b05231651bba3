"""What a scan shows: a brain, for the model, or labels, which are kept exactly. Never imports torch.

Shapes: S slices (an image is one), H×W image.

Labels that are coded by the model come back as values that never existed, and nothing tells; a scan that
is kept exactly is merely large. So everything that may well be labels is tried as such. Its cost without
loss is estimated from *surprises*: voxels that equal none of the three neighbours before them (in the
row, in the column, in the previous slice). Tissue maps have 0.03 surprises per voxel that is not ground;
coloured contours have 0.7, with few labels; real scans have 0.6 or more, with a hundred values or more.
"""

import math
from enum import Enum
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from oasisvq.codec.headers import MAX_LABELS, CodesHeader
from oasisvq.errors import ImageError

MOST_TIMES_LARGER = 4  # lossless labels may be so much larger than by the model; else it is a scan
MOST_TIMES_LARGER_IF_TOLD = 8  # the same if the file's name or header says that it holds labels

_LOOKED_AT_FIRST = 8  # slices of a volume, which suffice to recognise most scans
_DOUBTFUL = 1.5  # times the limit: up to this in those slices, all slices are looked at
_FEW = 2  # values; no scan has so few, but noise above black may have three
_BITS_PER_VOXEL = 1.0  # that is not ground: above this estimate it is no map of labels
_BITS_IF_PLAIN = 0.1  # per such voxel: below this estimate it is nothing else
_BITS_PER_GROUND_VOXEL = 0.02  # so that a few scattered labels pass, whatever they cost
_BITS = 32
_IF_TOLD = 3  # times these limits if the name or the header says that it holds labels


class Content(str, Enum):
    """What a scan shows."""

    AUTO = "auto"
    SCAN = "scan"
    LABELS = "labels"


class LabelValues(NamedTuple):
    """The values of a map of labels.

    Attributes:
        values: in order, of the planes' type.
        is_plain: whether this can be nothing else; if not, it depends on the cost of keeping them.
        most_times_larger: how many times larger than by the model a file that keeps them may be.
    """

    values: NDArray[np.generic]
    is_plain: bool
    most_times_larger: float

    @property
    def names(self) -> tuple[float, ...]:
        """The values as a header holds them: integers if all are whole."""
        values: list[float] = self.values.tolist()
        return tuple(int(value) for value in values) if are_whole(self.values) else tuple(values)

    def ranks(self, planes: NDArray[np.generic]) -> NDArray[np.uint16]:
        """(S, H, W): the rank of each voxel's value among the labels."""
        return np.searchsorted(self.values, planes).astype(np.uint16)


def labels_in(
    planes: NDArray[np.generic], content: Content = Content.AUTO, is_told: bool = False
) -> LabelValues | None:
    """The labels that planes (S, H, W) hold; None for a scan.

    Args:
        planes: finite values, or NaN, which is never a label.
        content: what is known of them.
        is_told: whether the file's name or header says that it holds labels.

    Raises:
        ImageError: `content` says that they are labels, and they are not.
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
    """How a map of labels was encoded that nobody had declared as one; empty for a scan."""
    if not header.labels:
        return ""
    whole = "whole " if all(isinstance(label, int) for label in header.labels) else ""
    how = "coded as labels by the model" if header.levels else "kept exactly as labels"
    return f"{len(header.labels):,} {whole}values: {how}; --kind scan codes them by the model"


def are_whole(values: NDArray[np.generic]) -> bool:
    """Whether all values are whole numbers that a header can hold as such."""
    if values.dtype.kind == "f" and bool((values != np.rint(values)).any()):
        return False
    return max(-int(values.min()), int(values.max())) < 2**31


class _Seen(NamedTuple):
    """What some slices hold: their values, about how many bits they cost as labels, and the limits."""

    values: NDArray[np.generic]
    bits: float
    limit: float
    plain_limit: float


def _spread(slices: int) -> range:
    """A few slices, spread evenly over all."""
    step = max(1, slices // _LOOKED_AT_FIRST)
    return range(step // 2, slices, step)


def _look(planes: NDArray[np.generic], places: range) -> _Seen | None:
    """Values and surprises of some slices; None if there are more values than a map may have."""
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
