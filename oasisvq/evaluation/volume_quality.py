"""How near a restored volume is to its original, slice by slice and over all voxels.

Shapes: S slices, H×W slice.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from oasisvq.evaluation.metrics import BEST_PSNR, FOREGROUND_LEVEL, similarity
from oasisvq.evaluation.scan_score import SMALLEST_SIDE


class VolumeQuality(NamedTuple):
    """One volume against its original.

    SSIM is the mean over slices, PSNR (in dB) is taken over all voxels at once; both also in the
    foreground. nan where no slice is large enough, or none has a foreground.
    """

    ssim: float
    foreground_ssim: float
    psnr: float
    foreground_psnr: float


def volume_quality(original: NDArray[np.float64], restored: NDArray[np.float64]) -> VolumeQuality:
    """Measure planes (S, H, W) of a range from 0 to 1, on that range.

    The foreground is where the original is above `FOREGROUND_LEVEL`.
    """
    slices = [
        similarity(first, second, 1.0)[:2]
        for first, second in zip(original, restored, strict=True)
        if min(first.shape) >= SMALLEST_SIDE
    ]
    ssim, foreground_ssim = (_mean(each) for each in np.array(slices).reshape(-1, 2).T)
    errors = np.square(original - restored)
    foreground = errors[original > FOREGROUND_LEVEL]
    return VolumeQuality(ssim, foreground_ssim, _psnr(errors), _psnr(foreground))


def _mean(values: NDArray[np.float64]) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if finite.size else math.nan


def _psnr(errors: NDArray[np.float64]) -> float:
    if not errors.size:
        return math.nan
    mean = float(errors.mean())
    return BEST_PSNR if mean == 0 else min(BEST_PSNR, -10 * math.log10(mean))
