"""How near a volume is to its original, on a range from 0 to 1.

Shapes: S slices, H×W slice.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from oasisvq.codec.measure import FOREGROUND_LEVEL, Scale, measure, psnr
from oasisvq.scans.scan import Scan


class VolumeQuality(NamedTuple):
    """One volume against its original; see `Measure`.

    PSNR (in dB) is taken over all voxels at once, and also over those of the foreground alone, where it
    is nan if there is no foreground.
    """

    ssim: float
    foreground_ssim: float
    psnr: float
    foreground_psnr: float


def volume_quality(original: NDArray[np.float64], restored: NDArray[np.float64]) -> VolumeQuality:
    """Measure planes (S, H, W) with values from 0 to 1, on that range.

    The foreground is where the original is above `FOREGROUND_LEVEL`.
    """
    found = measure(Scan(original), restored, Scale(0.0, 1.0))
    inside = original > FOREGROUND_LEVEL
    foreground_psnr = psnr(original[inside], restored[inside], 1.0) if inside.any() else math.nan
    return VolumeQuality(found.ssim, found.foreground_ssim, found.psnr, foreground_psnr)
