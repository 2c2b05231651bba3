"""Outliers, the few voxels far beyond all others: out of a scan, and back. Never imports torch.

Shapes: S slices (an image is one), H×W slice.

A slice is scaled by its darkest and its brightest value, so a single hot pixel would squeeze the rest of
the slice into a few greys. Voxels beyond the *robust range* of a slice are therefore taken out first,
and stored by place and value. The robust range lies between two quantiles, plus a margin. It limits a
side only if the slice reaches far beyond it there, as no ordinary slice does: of 800 slices of whole
heads and 3,600 of volumes, the farthest reached 0.99 of the range beyond the quantile of a thousandth.

A ground far beyond the robust range of all other voxels, such as padding, does not enter the scaling
either: the support stores it, see `ground.py`, as it stores NaN.
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

_LEAST_VOXELS = 500  # of a slice with a robust range of its own; smaller ones use that of all slices
_RULES = ((1000, 1.25), (250, 3.0))  # quantile 1 / n, and how many ranges beyond it a slice reaches
_PADDING = 2.0  # ranges beyond which a ground is padding; in scans of real heads it is 0.22 away
_MARGIN = 0.5  # ranges beyond the quantiles in which voxels are no outliers


class Core(NamedTuple):
    """The part of a scan that the model sees.

    Attributes:
        planes: (S, H, W); the voxels before them replace outliers, the darkest value NaN and padding.
        intensity: the darkest and the brightest value of these planes.
        outliers: what was taken out; None if nothing was.
        ground: of the scan; None if it has none.
        is_padded: whether that ground is padding or NaN.
    """

    planes: Planes
    intensity: tuple[float, float]
    outliers: Outliers | None = None
    ground: Ground | None = None
    is_padded: bool = False

    def left(self) -> Booleans:
        """Which voxels (S, H, W) are neither outliers nor padding."""
        is_left = np.ones(self.planes.shape, np.bool_)
        if self.ground and self.is_padded:
            is_left = self.ground.support.copy()
        if self.outliers:
            np.put(is_left, self.outliers.places, False)
        return is_left


class _Ends(NamedTuple):
    """Values beyond which voxels are outliers; infinite if there are none."""

    low: float = -math.inf
    high: float = math.inf


def core_of(planes: Planes) -> Core:
    """Planes (S, H, W) as they are stored -> the part that the model sees."""
    ground = ground_of(planes)
    support = ground.support if ground else np.ones(planes.shape, np.bool_)
    overall = _ends_of(planes[support])
    beyond = np.zeros(planes.shape, np.bool_)
    for place, (plane, chosen) in enumerate(zip(planes, support, strict=True)):
        voxels = plane[chosen]
        low, high = _ends_of(voxels) if len(voxels) >= _LEAST_VOXELS else overall
        beyond[place] = chosen & ((plane < low) | (plane > high))
    outliers, left = None, support
    if 0 < int(np.count_nonzero(beyond)) <= MAX_OUTLIERS:
        places = np.flatnonzero(beyond)
        outliers = Outliers(tuple(places.tolist()), tuple(planes[beyond].tolist()))
        left = support & ~beyond
    is_padded = ground is not None and _is_padding(ground.value, planes[left])
    if is_padded:
        darkest, _ = extremes_of(planes[left])
        planes = np.where(support, planes, darkest)
    if outliers:  # after the padding, of which the voxels before them may be
        planes = _smoothed(planes, beyond)
    darkest, brightest = extremes_of(planes)
    return Core(planes, (float(darkest), float(brightest)), outliers, ground, is_padded)


def padding_of(planes: Planes) -> Ground | None:
    """The ground of planes (S, H, W) if it is padding other than NaN."""
    ground = ground_of(planes)
    if ground is None or math.isnan(ground.value):
        return None
    return ground if _is_padding(ground.value, planes[ground.support]) else None


def _ends_of(voxels: Planes) -> _Ends:
    """The values beyond which voxels (n,) are outliers."""
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
    """Least value, quantile 1 / `share`, quantile 1 - 1 / `share`, largest value; 0 for a few voxels."""
    if len(voxels) < _LEAST_VOXELS:
        return 0.0, 0.0, 0.0, 0.0
    places = 0, len(voxels) // share or 1, -1 - (len(voxels) // share or 1), -1
    ordered = np.partition(voxels, places)
    least, lower, upper, most = (float(ordered[place]) for place in places)
    return least, lower, upper, most


def _smoothed(planes: Planes, beyond: Booleans) -> Planes:
    """Planes with each voxel in `beyond` replaced by the voxel before it."""
    planes = planes.copy()
    somewhere = planes.reshape(-1)[int(beyond.argmin())]
    for plane, chosen in zip(planes, beyond, strict=True):
        if chosen.any():
            flat = np.append(somewhere, plane)
            before = np.where(np.append(False, chosen), 0, np.arange(len(flat)))
            plane[...] = flat[np.maximum.accumulate(before)[1:]].reshape(plane.shape)
    return planes


class Laid:
    """The outliers of a file, by slice."""

    def __init__(self, header: CodesHeader) -> None:
        """Take the outliers from the header of a file."""
        places, values = header.outliers or Outliers((), ())
        self._places = np.array(places, np.int64)
        self._values = np.array(values, header.sample_type.dtype)
        self._slice = header.shape[0] * header.shape[1]

    def left(self, support: Booleans, place: int) -> Booleans:
        """Which voxels (H, W) of the support of a slice are not outliers.

        Raises:
            CodesFileError: an outlier is not in the support.
        """
        places, _ = self._of(place)
        if not len(places):
            return support
        left = support.copy()
        if not left.reshape(-1)[places].all():
            raise CodesFileError("an outlier where ground is")
        np.put(left, places, False)
        return left

    def on(self, plane: Planes, place: int) -> Planes:
        """The plane (H, W) of a slice with its outliers put back; changed in place."""
        np.put(plane, *self._of(place))
        return plane

    def _of(self, place: int) -> tuple[NDArray[np.int64], Planes]:
        """Places in a slice, and values."""
        ends = np.array([place, place + 1]) * self._slice
        own = slice(*np.searchsorted(self._places, ends).tolist())
        return self._places[own] - ends[0], self._values[own]
