"""The few voxels far beyond all others: out of a scan before it is scaled, and back. No torch here.

Shapes: S slices (an image is one), H×W slice.

A slice is scaled by its darkest and its brightest value, so one hot pixel would leave the model the rest
of the slice in a few greys. Voxels beyond the *robust range* of a slice are taken out before, and kept
by their places and values. That range lies between two quantiles, and a little beyond them. It counts on
a side only where the slice reaches far beyond it, as no ordinary slice does: of 800 slices of whole
heads and 3,600 of volumes, the farthest reached 0.99 of the range beyond the quantile of a thousandth.

A ground far beyond the robust range of all other voxels, as padding is, does not enter the range either:
it is kept by the support, see `ground.py`, as NaN is.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from oasisvq.codec.ground import Ground, ground_of
from oasisvq.codec.headers import MAX_OUTLIERS, CodesHeader, Outliers
from oasisvq.errors import CodesFileError
from oasisvq.scans.scan import extremes_of

Planes = NDArray[np.generic]
Booleans = NDArray[np.bool_]

_LEAST_VOXELS = 500  # of a slice that has a robust range of its own; others have that of all slices
_RULES = ((1000, 1.25), (250, 3.0))  # where one of so many voxels lies so many ranges beyond
_PADDING = 2.0  # ranges beyond which a ground is padding; in scans of real heads it is 0.22 away
_MARGIN = 0.5  # ranges beyond the quantiles that are kept


class Typical(NamedTuple):
    """What of a scan the model sees.

    Attributes:
        planes: (S, H, W); in place of outliers the voxels before them, of NaN and padding the darkest.
        intensity: their darkest and brightest value.
        outliers: what was taken out; None if nothing was.
        ground: of the scan; None where it has none.
    """

    planes: Planes
    intensity: tuple[float, float]
    outliers: Outliers | None = None
    ground: Ground | None = None


class _Ends(NamedTuple):
    """Values beyond which voxels are outliers; infinite where none are."""

    low: float = -math.inf
    high: float = math.inf


def typical_of(planes: Planes) -> Typical:
    """Planes (S, H, W) as they are stored -> what the model sees of them."""
    ground = ground_of(planes)
    support = ground.support if ground else np.ones(planes.shape, np.bool_)
    overall = _ends_of(planes[support])
    beyond = np.zeros(planes.shape, np.bool_)
    for place, (plane, chosen) in enumerate(zip(planes, support, strict=True)):
        voxels = plane[chosen]
        low, high = _ends_of(voxels) if len(voxels) >= _LEAST_VOXELS else overall
        beyond[place] = chosen & ((plane < low) | (plane > high))
    outliers = None
    if 0 < int(np.count_nonzero(beyond)) <= MAX_OUTLIERS:
        places = np.flatnonzero(beyond)
        outliers = Outliers(tuple(places.tolist()), tuple(planes[beyond].tolist()))
        planes = _smoothed(planes, beyond)
    if ground and _is_padding(ground.value, planes[support]):
        darkest, _ = extremes_of(planes[support])
        planes = np.where(support, planes, darkest)
    darkest, brightest = extremes_of(planes)
    return Typical(planes, (float(darkest), float(brightest)), outliers, ground)


def _ends_of(voxels: Planes) -> _Ends:
    """Beyond which of voxels (n,) outliers lie."""
    ends = _Ends()
    for share, times in _RULES:
        least, lower, upper, most = _quantiles(voxels, share)
        reach, margin = times * (upper - lower), _MARGIN * (upper - lower)
        if math.isinf(ends.high) and most > upper + reach > upper:
            ends = ends._replace(high=upper + margin)
        if math.isinf(ends.low) and least < lower - reach < lower:
            ends = ends._replace(low=lower - margin)
    return ends


def _is_padding(value: float, voxels: Planes) -> bool:
    """Whether a ground lies far beyond all other voxels (n,), or is NaN."""
    _, lower, upper, _ = _quantiles(voxels, _RULES[0][0])
    reach = _PADDING * (upper - lower)
    return math.isnan(value) or value < lower - reach < lower or value > upper + reach > upper


def _quantiles(voxels: Planes, share: int) -> tuple[float, float, float, float]:
    """The least, one of `share` from it, one of `share` from the most, the most; 0 of a few voxels."""
    if len(voxels) < _LEAST_VOXELS:
        return 0.0, 0.0, 0.0, 0.0
    places = 0, len(voxels) // share or 1, -1 - (len(voxels) // share or 1), -1
    ordered = np.partition(voxels, places)
    least, lower, upper, most = (float(ordered[place]) for place in places)
    return least, lower, upper, most


def _smoothed(planes: Planes, beyond: Booleans) -> Planes:
    """Planes with the voxel before in place of each of those beyond."""
    planes = planes.copy()
    somewhere = planes.reshape(-1)[int(beyond.argmin())]
    for plane, chosen in zip(planes, beyond, strict=True):
        if chosen.any():
            flat = np.append(somewhere, plane)
            before = np.where(np.append(False, chosen), 0, np.arange(len(flat)))
            plane[...] = flat[np.maximum.accumulate(before)[1:]].reshape(plane.shape)
    return planes


def left_of(support: Booleans, outliers: Outliers | None) -> Booleans:
    """Which voxels (S, H, W) of the support are no outliers.

    Raises:
        CodesFileError: an outlier is not in the support.
    """
    if outliers is None:
        return support
    left = support.copy()
    flat, places = left.reshape(-1), np.array(outliers.places, np.int64)
    if not flat[places].all():
        raise CodesFileError("an outlier where ground is")
    flat[places] = False
    return left


class Laid:
    """The outliers of a file, by slices."""

    def __init__(self, header: CodesHeader) -> None:
        """Take those of a file."""
        places, values = header.outliers or Outliers((), ())
        self._places = np.array(places, np.int64)
        self._values = np.array(values, header.sample_type.dtype)
        self._slice = header.shape[0] * header.shape[1]

    def on(self, plane: Planes, place: int) -> Planes:
        """The plane (H, W) of a slice with its outliers; changed in place."""
        first, past = np.searchsorted(self._places, (place * self._slice, (place + 1) * self._slice))
        np.put(plane, self._places[first:past] - place * self._slice, self._values[first:past])
        return plane
