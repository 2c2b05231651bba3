"""How near a restored scan is to its original: the one measure of all commands. Never imports torch.

Shapes: S slices, H×W slice.

SSIM agrees to the last digits with that of scikit-image with `gaussian_weights=True, sigma=1.5,
use_sample_covariance=False` (Wang et al. 2004). It is computed without SciPy, whose import takes longer
than encoding. An all-black image already scores about 0.45 against an OASIS slice, so the foreground
SSIM always stands beside it. Everything is measured on the values that a file stores, by a scale that
depends on the original alone and is always stated: 0 to 255 for an image of 8 bits, else from the
darkest value to the `RANGE_QUANTILE` of all values.
"""

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from oasisvq.codec.outliers import padding_of
from oasisvq.scans.scan import Scan, extremes_of

FOREGROUND_LEVEL = 20 / 255  # share of the range; anything fainter is air and background noise
RANGE_QUANTILE = 0.999  # so that a few bright voxels do not stretch the range
BEST_PSNR = 100.0  # of two equal images, so that a mean stays finite
SMALLEST_SIDE = 11  # of a slice for which SSIM is defined
_BORDER = 5  # pixels on each side that scikit-image's mean leaves out
_WEIGHTS = np.exp(-(np.arange(-_BORDER, _BORDER + 1) ** 2) / (2 * 1.5**2))
_WEIGHTS /= _WEIGHTS.sum()

Doubles = NDArray[np.float64]


class Similarity(NamedTuple):
    """One image against its original."""

    ssim: float
    foreground_ssim: float  # nan if there is no foreground
    psnr: float  # dB


class Scale(NamedTuple):
    """The range of values that SSIM and PSNR refer to: where it begins, and how wide it is.

    Padding, a ground far beyond all other values, does not stretch it (see `outliers.py`). Like NaN it
    counts as the darkest value.
    """

    low: float
    range: float
    padding: float = math.nan

    def plain(self, plane: NDArray[np.generic]) -> Doubles:
        """The values of a plane, with NaN and padding as the darkest value."""
        values = plane.astype(np.float64)
        return np.where(np.isnan(values) | (values == self.padding), self.low, values)

    @property
    def words(self) -> str:
        """Such as `a range of 255`."""
        return f"a range of {self.range:.6g}"


class Measure(NamedTuple):
    """How much of a scan its decoded file keeps.

    SSIM and foreground SSIM are means over slices; nan if no slice is large enough, or has a foreground.
    """

    ssim: float
    foreground_ssim: float
    psnr: float  # dB, over all voxels
    largest_error: float  # of any voxel, in its stored units
    data_range: float  # that SSIM and PSNR refer to
    worst_ssim: float
    worst_slice: int  # from 0, in the order in which slices are coded

    @property
    def words(self) -> str:
        """One line for a person to read."""
        if self.largest_error == 0:
            return "equal to the original"
        ssim = "" if math.isnan(self.ssim) else f"SSIM {self.ssim:.4f}"
        if not math.isnan(self.foreground_ssim):
            ssim += f" (foreground {self.foreground_ssim:.4f})"
        parts = [ssim] if ssim else []
        parts += [f"PSNR {self.psnr:.2f} dB", f"largest error {self.largest_error:g}"]
        return f"{', '.join(parts)}, on a range of {self.data_range:.6g}"

    def as_dict(self) -> dict[str, Any]:
        """The measure as JSON holds it."""
        return {key: None if math.isnan(value) else value for key, value in self._asdict().items()}


def scale_of(scan: Scan) -> Scale:
    """The scale of a scan, by its values alone."""
    planes = scan.planes
    if scan.placement is None and planes.dtype == np.uint8:
        return Scale(0.0, 255.0)
    padding = padding_of(planes)
    values = planes if padding is None else planes[padding.support]
    low, most = map(float, extremes_of(values))
    high = float(np.nanquantile(values.astype(np.float64), RANGE_QUANTILE))
    width = (high - low if high > low else most - low) or 1.0
    return Scale(low, width) if padding is None else Scale(low, width, padding.value)


def measure(scan: Scan, restored: Iterable[NDArray[np.generic]], scale: Scale | None = None) -> Measure:
    """Measure what a file decodes to against its scan.

    Args:
        scan: the original.
        restored: (H, W) of each slice, of the scan's type.
        scale: of the scan, if it is known.
    """
    scale = scale or scale_of(scan)
    # the squares of very large or small values would not be numbers
    unit = 1.0 if 1e-100 < scale.range < 1e100 else scale.range
    slices: list[tuple[float, float]] = []
    squares, largest = 0.0, 0.0
    for first, second in zip(scan.planes, restored, strict=True):
        before, after = scale.plain(first), scale.plain(second)
        away = np.abs(before - after)
        squares += float(np.square(away / unit).sum())
        largest = max(largest, float(away.max()))
        above = (before - scale.low) / unit, (after - scale.low) / unit
        found = similarity(*above, scale.range / unit)
        slices.append((found.ssim, found.foreground_ssim))
    ssim, foreground = np.array(slices).T
    has_foreground, is_measured = np.isfinite(foreground), np.isfinite(ssim)
    worst = int(np.nanargmin(ssim)) if is_measured.any() else 0
    return Measure(
        float(ssim[is_measured].mean()) if is_measured.any() else math.nan,
        float(foreground[has_foreground].mean()) if has_foreground.any() else math.nan,
        _psnr(squares / scan.planes.size, scale.range / unit),
        largest,
        scale.range,
        float(ssim[worst]),
        worst,
    )


def similarity(
    original: NDArray[np.generic], restored: NDArray[np.generic], data_range: float
) -> Similarity:
    """SSIM, foreground SSIM and PSNR of two (H, W) arrays of grey levels.

    The foreground is where the original is above `FOREGROUND_LEVEL` of the range. SSIM is NaN if a side
    is below 11 pixels.
    """
    first, second = original.astype(np.float64), restored.astype(np.float64)
    if min(first.shape) < SMALLEST_SIDE:
        return Similarity(math.nan, math.nan, psnr(first, second, data_range))
    inner = (slice(_BORDER, -_BORDER),) * 2
    found = _ssim_map(first, second, data_range)
    foreground = first[inner] > FOREGROUND_LEVEL * data_range
    in_foreground = float(found[foreground].mean()) if foreground.any() else math.nan
    return Similarity(float(found.mean()), in_foreground, psnr(first, second, data_range))


def _ssim_map(first: Doubles, second: Doubles, data_range: float) -> Doubles:
    """(H - 10, W - 10) SSIM around each pixel that is at least `_BORDER` from each side.

    It is 1 where no pixel of the window differs, so it is computed only around the pixels that do.
    """
    result = np.ones((first.shape[0] - 2 * _BORDER, first.shape[1] - 2 * _BORDER))
    differs = first != second
    if not differs.any():
        return result
    ends = []
    for axis in (0, 1):
        places = np.flatnonzero(differs.any(1 - axis))
        low, high = places[0] - 2 * _BORDER, places[-1] + 1  # of the result
        ends.append((max(0, int(low)), min(result.shape[axis], int(high))))
    (top, bottom), (left, right) = ends
    if top >= bottom or left >= right:
        return result
    box = slice(top, bottom + 2 * _BORDER), slice(left, right + 2 * _BORDER)
    x, y = first[box], second[box]
    mean_x, mean_y = _blurred(x), _blurred(y)
    product, squares = mean_x * mean_y, mean_x * mean_x + mean_y * mean_y
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    found = (2 * product + c1) * (2 * (_blurred(x * y) - product) + c2)
    found /= (squares + c1) * (_blurred(x * x + y * y) - squares + c2)
    result[top:bottom, left:right] = found
    return result


def _blurred(plane: Doubles) -> Doubles:
    """The Gaussian-weighted mean around each pixel that has a whole window.

    Single operations in a fixed order give the same result on every machine.
    """
    for _ in range(2):  # down, then across
        rows = len(plane) - 2 * _BORDER
        mean = plane[_BORDER : _BORDER + rows] * _WEIGHTS[_BORDER]
        pair = np.empty_like(mean)
        for away in range(1, _BORDER + 1):
            start, end = _BORDER - away, _BORDER + away
            np.add(plane[start : start + rows], plane[end : end + rows], out=pair)
            pair *= _WEIGHTS[start]
            mean += pair
        plane = mean.T
    return plane


def psnr(first: Doubles, second: Doubles, data_range: float) -> float:
    """10·log10(range² / mean squared error) in dB, at most `BEST_PSNR`."""
    return _psnr(float(np.mean((first - second) ** 2)), data_range)


def _psnr(squared_error: float, data_range: float) -> float:
    if squared_error == 0:
        return BEST_PSNR
    return min(BEST_PSNR, 10 * math.log10(data_range**2 / squared_error))
