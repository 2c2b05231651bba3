"""The distance between two curves of quality over bytes."""

import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from scipy.interpolate import PchipInterpolator


class Point(Protocol):
    """A codec at one setting: its size, and further attributes with the names of measures."""

    @property
    def file_bytes(self) -> float: ...

    def _asdict(self) -> dict[str, str | float]: ...


def point_as_dict(point: Point) -> dict[str, str | float | None]:
    """A point as JSON holds it: None for NaN, such as a foreground SSIM where there is no foreground."""
    return {
        key: None if isinstance(value, float) and math.isnan(value) else value
        for key, value in point._asdict().items()
    }


def bd_rate(ours: Sequence[Point], theirs: Sequence[Point], measure: str) -> float | None:
    """Mean difference of log bytes over the common range of quality, as a percentage of bytes.

    Bjøntegaard (2001), with piecewise cubics (PCHIP) in place of one polynomial; a similarity counts
    as -10·log10(1 - similarity).

    Returns:
        Below zero if ours are smaller; None if the curves share no range of quality.
    """
    curves = []
    for points in (ours, theirs):
        quality = np.array([_decibels(getattr(point, measure), measure) for point in points])
        rate = np.log([point.file_bytes for point in points])
        order = np.argsort(quality)
        quality, rate = quality[order], rate[order]
        rising = np.concatenate([[True], np.diff(quality) > 1e-9])
        curves.append((quality[rising], rate[rising]))
    low = max(quality[0] for quality, _ in curves)
    high = min(quality[-1] for quality, _ in curves)
    if not high > low or any(len(quality) < 2 for quality, _ in curves):
        return None
    means = [
        float(PchipInterpolator(quality, rate).integrate(low, high)) / (high - low)
        for quality, rate in curves
    ]
    return 100 * (float(np.exp(means[0] - means[1])) - 1)


def _decibels(score: float, measure: str) -> float:
    return score if measure.endswith("psnr") else float(-10 * np.log10(max(1 - score, 1e-9)))
