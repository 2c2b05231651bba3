"""The ground of a scan, its one background value (or NaN) <-> payload. Never imports torch.

Shapes: S slices (an image is one), H×W slice.

The support is the set of voxels that are not ground. A model with a support network codes it by
`support.py`, other models as a map of two labels, see `labels.py`: 0 ground, 1 not.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from oasisvq.codec.labels import decode_labels, encode_labels

Booleans = NDArray[np.bool_]
Planes = NDArray[np.generic]

_LEAST_SHARE = 0.02  # of all voxels
_FAINT, _FEW_FAINT = 0.1, 0.1  # shares of range and voxels; the latter: stripped 0.01, heads 0.25
_LEAST_NEIGHBOURS = 0.8  # of ground voxels have ground to their right too, unlike noise


class Ground(NamedTuple):
    """The ground of a scan.

    Attributes:
        value: of each of its voxels; NaN only for float types.
        support: (S, H, W) True for all other voxels.
    """

    value: float
    support: Booleans


def ground_of(planes: Planes) -> Ground | None:
    """The ground of planes (S, H, W); None if they have none.

    It is NaN if NaN occurs. Otherwise it is the most frequent value on the borders of slices, if at
    least 2% of all voxels have it and most of these lie side by side, which noise does not.
    """
    if planes.dtype.kind == "f":
        support = ~np.isnan(planes)
        if not support.all():
            return Ground(math.nan, support)
    sides = [planes[:, ::side, :] for side in (max(1, planes.shape[1] - 1),)]
    sides += [planes[:, :, :: max(1, planes.shape[2] - 1)]]
    values, counts = np.unique(np.concatenate([side.reshape(-1) for side in sides]), return_counts=True)
    value = values[counts.argmax()]
    support = planes != value
    ground = ~support
    count = int(ground.sum())
    beside = int((ground[:, :, 1:] & ground[:, :, :-1]).sum())
    inner = int(ground[:, :, :-1].sum())
    if count < _LEAST_SHARE * ground.size or beside < _LEAST_NEIGHBOURS * inner:
        return None
    return Ground(value.item(), support)


def stands_out(planes: Planes, ground: Ground, farthest: float) -> bool:
    """Whether all but a few voxels of the support lie far from the ground.

    Args:
        planes: (S, H, W) of the scan.
        ground: of the planes; not NaN.
        farthest: the value that lies farthest from the ground.
    """
    voxels = planes[ground.support].astype(np.float64)
    faint = np.abs(voxels - ground.value) < _FAINT * abs(farthest - ground.value)
    return int(np.count_nonzero(faint)) <= _FEW_FAINT * len(voxels)


def encode_support(support: Booleans) -> bytes:
    """Which voxels (S, H, W) are not ground -> a payload."""
    return encode_labels(support.astype(np.uint16), 2)


def decode_support(payload: bytes, shape: tuple[int, int, int]) -> Booleans:
    """The inverse of `encode_support`.

    Raises:
        CodesFileError: the payload is damaged.
    """
    support: Booleans = decode_labels(payload, shape, 2) != 0
    return support


def laid_on(planes: Planes, ground: Ground) -> Planes:
    """Decoded planes with the ground's value outside the support and nowhere else; changed in place."""
    planes[~ground.support] = ground.value
    wrong = ground.support & (planes == ground.value)  # never for NaN
    if wrong.any():
        planes[wrong] = _beside(ground.value, planes.dtype)
    return planes


def _beside(value: float, dtype: np.dtype[np.generic]) -> float:
    """The next value above the ground's; if there is none, the one below."""
    if dtype.kind == "f":
        above, below = (np.nextafter(np.array(value, dtype), end) for end in (math.inf, -math.inf))
        return float(above if math.isfinite(above) else below)
    return value + 1 if value < np.iinfo(dtype.name).max else value - 1
