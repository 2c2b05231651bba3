"""How near a restored image is to its original.

SSIM is scikit-image's with `gaussian_weights=True, sigma=1.5, use_sample_covariance=False`
(Wang et al. 2004) on a stated range; an all-black image already scores about 0.45 against an
OASIS slice, so the foreground SSIM always stands beside it.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from skimage.metrics import structural_similarity

FOREGROUND_LEVEL = 20 / 255  # share of the range; what is fainter is air and background noise
_BORDER = 5  # scikit-image's mean leaves out as much on each side
BEST_PSNR = 100.0  # what two equal images count as, so that a mean stays finite


class Similarity(NamedTuple):
    """One image against its original."""

    ssim: float
    foreground_ssim: float  # nan where there is no foreground
    psnr: float  # dB


def similarity(
    original: NDArray[np.generic], restored: NDArray[np.generic], data_range: float
) -> Similarity:
    """SSIM, foreground SSIM and PSNR of two (H, W) arrays of grey levels, H and W at least 11.

    The foreground is where the original is above `FOREGROUND_LEVEL` of the range.
    """
    first, second = original.astype(np.float64), restored.astype(np.float64)
    mean, ssim_map = structural_similarity(
        first,
        second,
        data_range=data_range,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        full=True,
    )
    inner = (slice(_BORDER, -_BORDER),) * 2
    foreground = first[inner] > FOREGROUND_LEVEL * data_range
    in_foreground = float(ssim_map[inner][foreground].mean()) if foreground.any() else math.nan
    return Similarity(float(mean), in_foreground, psnr(first, second, data_range))


def psnr(first: NDArray[np.float64], second: NDArray[np.float64], data_range: float) -> float:
    """10·log10(range² / mean squared error) in dB, at most `BEST_PSNR`."""
    error = float(np.mean((first - second) ** 2))
    if error == 0:
        return BEST_PSNR
    return min(BEST_PSNR, 10 * math.log10(data_range**2 / error))


def snap(restored: NDArray[np.generic], labels: NDArray[np.generic]) -> NDArray[np.generic]:
    """Each grey level replaced by the nearest of the sorted label values."""
    values = labels.astype(np.float64)
    middles = (values[1:] + values[:-1]) / 2
    nearest: NDArray[np.generic] = labels[np.digitize(restored.astype(np.float64), middles)]
    return nearest


class Overlap(NamedTuple):
    """Pixel counts of one label, from which Dice follows; they add up over slices."""

    both: int
    original: int
    restored: int

    @property
    def dice(self) -> float:
        """2·|A∩B| / (|A| + |B|) (Dice 1945); nan where neither has the label."""
        total = self.original + self.restored
        return 2 * self.both / total if total else math.nan


def overlap(original: NDArray[np.generic], restored: NDArray[np.generic], label: float) -> Overlap:
    """Where two label images agree on `label`."""
    first, second = original == label, restored == label
    return Overlap(int((first & second).sum()), int(first.sum()), int(second.sum()))
