"""The ground of a scan: one value, or NaN, around or in what it shows <-> payload. Never imports torch.

Shapes: S slices (an image is one), H×W slice.

Which voxels are not ground is the support. A model with a network of supports codes it as `support.py`
says; one without as a map of two labels, see `labels.py`: 0 ground, 1 not.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from oasisvq.codec.labels import decode_labels, encode_labels

Booleans = NDArray[np.bool_]
Planes = NDArray[np.generic]

_LEAST_SHARE = 0.02  # of all voxels
_FAINT, _FEW_FAINT = 0.1, 0.1  # a share of the range, and of voxels; stripped scans: 0.01, heads: 0.25
_LEAST_NEIGHBOURS = 0.8  # of voxels of the ground have it to their right too: noise has not


class Ground(NamedTuple):
    """Of a scan.

    Attributes:
        value: of each of its voxels; NaN only of floats.
        support: (S, H, W) all other voxels.
    """

    value: float
    support: Booleans


def ground_of(planes: Planes) -> Ground | None:
    """The ground of planes (S, H, W); None where they have none.

    It is NaN where that occurs. Else it is the value that most voxels at the sides of slices have, if
    they have it largely beside each other, as noise has not.
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
    """Whether all else but a few voxels of planes (S, H, W) lie far from their ground.

    Args:
        planes: they.
        ground: theirs, no NaN.
        farthest: the value that lies farthest from it.
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
    """Decoded planes, with ground where it is and nowhere else; changed in place."""
    planes[~ground.support] = ground.value
    wrong = ground.support & (planes == ground.value)  # never of NaN
    if wrong.any():
        planes[wrong] = _beside(ground.value, planes.dtype)
    return planes


def _beside(value: float, dtype: np.dtype[np.generic]) -> float:
    """The next number to that of the ground, above it where there is one."""
    if dtype.kind == "f":
        above: float = np.nextafter(np.array(value, dtype), np.array(math.inf, dtype)).item()
        return above if math.isfinite(above) else -value
    return value + 1 if value < np.iinfo(dtype.name).max else value - 1
