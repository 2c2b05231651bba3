"""Quality of single scans: an image or a volume, encoded to a real file and decoded."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from oasisvq.codec import container
from oasisvq.codec.codec import Codec
from oasisvq.codec.headers import CodesHeader
from oasisvq.codec.particular import without_nan
from oasisvq.codec.wish import Wish
from oasisvq.evaluation.metrics import overlap, psnr, similarity
from oasisvq.scans.limits import DEFAULT_MAX_PIXELS
from oasisvq.scans.scan import Scan, extremes_of, read_scan
from oasisvq.scans.source import Source

SMALLEST_SIDE = 11  # of a slice that SSIM can be taken of
RANGE_QUANTILE = 0.999  # a few bright voxels do not stretch the range that SSIM and PSNR refer to


class ScanScore(NamedTuple):
    """What a quality gives for one scan; means over slices.

    SSIM and PSNR refer to `data_range`. SSIM and foreground SSIM are nan where no slice is large
    enough, or has a foreground.
    """

    levels: int  # 0: labels kept exactly
    file_bytes: int
    bits_per_voxel: float
    data_range: float
    ssim: float
    foreground_ssim: float
    psnr: float  # dB, over all voxels
    worst_ssim: float
    worst_slice: int  # from 0, in the order that slices are coded
    dice: dict[float, float]  # by label; empty for scans

    def as_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        fields = self._asdict() | {"dice": {str(label): value for label, value in self.dice.items()}}
        return {
            key: None if isinstance(value, float) and math.isnan(value) else value
            for key, value in fields.items()
        }


def dice_of(original: Scan, restored: Scan, header: CodesHeader) -> dict[float, float]:
    """Dice of each label that a header names."""
    return {label: overlap(original.planes, restored.planes, label).dice for label in header.labels}


def range_of(planes: NDArray[np.generic]) -> float:
    """From the darkest value to the `RANGE_QUANTILE` of all, or to the brightest of a small range."""
    low, most = map(float, extremes_of(planes))
    high = float(np.nanquantile(planes.astype(np.float64), RANGE_QUANTILE))
    return high - low if high > low else most - low


def score_scan(
    codec: Codec,
    source: Source,
    wishes: list[Wish],
    advance: Callable[[int, int], None] = lambda done, total: None,
    max_pixels: int = DEFAULT_MAX_PIXELS,
) -> list[ScanScore]:
    """Encode and decode a scan at each wish and measure what was lost.

    Raises:
        ImageError: it cannot be read or encoded.
        ModelError: a wish does not fit the model.
    """
    scores = []
    for done, wish in enumerate(wishes, start=1):
        scan = read_scan(source, wish.axis, max_pixels)
        content = codec.encode_scan(scan, wish)
        file = container.read(content, str(source.path))
        restored = codec.decode_codes(codec.codes_of(file), str(source.path))
        scores.append(_compare(scan, restored, file.header, len(content)))
        advance(done, len(wishes))
    return scores


def _compare(scan: Scan, restored: Scan, header: CodesHeader, file_bytes: int) -> ScanScore:
    (low, _), data_range = scan.intensity, range_of(scan.planes)
    slices: list[tuple[float, float]] = []
    error = 0.0
    for first, second in zip(
        without_nan(scan.planes, low), without_nan(restored.planes, low), strict=True
    ):
        before, after = first.astype(np.float64) - low, second.astype(np.float64) - low
        error += float(np.square(before - after).sum())
        if min(before.shape) >= SMALLEST_SIDE:
            found = similarity(before, after, data_range)
            slices.append((found.ssim, found.foreground_ssim))
        else:
            slices.append((math.nan, math.nan))
    ssim, foreground = np.array(slices).T
    has_foreground, is_measured = np.isfinite(foreground), np.isfinite(ssim)
    worst = int(np.nanargmin(ssim)) if is_measured.any() else 0
    flat = np.sqrt(np.full(1, error / scan.planes.size))
    return ScanScore(
        header.levels,
        file_bytes,
        8 * file_bytes / scan.planes.size,
        data_range,
        float(ssim[is_measured].mean()) if is_measured.any() else math.nan,
        float(foreground[has_foreground].mean()) if has_foreground.any() else math.nan,
        psnr(flat, np.zeros(1), data_range),
        float(ssim[worst]),
        worst,
        dice_of(scan, restored, header),
    )
