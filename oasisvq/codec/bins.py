"""Voxels <-> bins: whole numbers that hold each voxel to within a bound. Never imports torch.

Bin 0 is the ground's, or stays unused. All other bins lie beside it, so that ground stays ground and
nothing else becomes ground. A file names one of these rules:

| rule | a bin b stands for |
|---|---|
| whole | origin + sign(b) · (abs(b) · width - half) |
| multiples | (origin + b) · step, the product in float64 |
| within | origin + sign(b) · (abs(b) - 1/2) · step, each operation in float64 |

In the rule `whole`, half is step · floor(bound / step) and width is step + 2 · half, and all voxels lie
a whole number of steps from the origin; a value beyond the sample type becomes the nearest that it has.
In the other rules the result is rounded to the sample type.
"""

import math
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from oasisvq.codec.residue import MAX_BIN_BITS, BinLimits, Bins, Booleans
from oasisvq.errors import CodesFileError, ImageError

Planes = NDArray[np.generic]
Guide = NDArray[np.float64]

_LOOKED_AT = 2**16  # voxels from which a step is guessed
_MOST_STEPS = 2**40  # from 0 to a value
_FARTHEST_GUIDE = 2.0**60
_FRACTIONS = 64  # halvings of 1 that are tried


class Rule(IntEnum):
    """What bins stand for."""

    WHOLE = 0
    MULTIPLES = 1
    WITHIN = 2


@dataclass(frozen=True)
class Binning:
    """What a file says of its bins.

    Attributes:
        rule: what they stand for.
        step: see the rules; a whole number by the rule `WHOLE`.
        bound: the largest error; 0 by the rule `MULTIPLES`, a whole number by the rule `WHOLE`.
        origin: see the rules; a whole number except by the rule `WITHIN`.
        limits: the smallest and the largest bin.
    """

    rule: Rule
    step: float
    bound: float
    origin: float
    limits: BinLimits

    @property
    def _half(self) -> int:
        """Half the extent of a bin by the rule `WHOLE`: from its middle to its outermost value."""
        return int(self.step) * (int(self.bound) // int(self.step))

    def bins(self, plane: Planes, support: Booleans) -> Bins:
        """Voxels (H, W) -> bins (H, W), 0 outside the support."""
        result = np.zeros(plane.shape, np.int64)
        result[support] = self._bins(plane[support])
        return result

    def _bins(self, voxels: Planes) -> Bins:
        if self.rule is Rule.WHOLE:
            distance = voxels.astype(np.int64) - int(self.origin)
            width = int(self.step) + 2 * self._half
            found: Bins = np.sign(distance) * -(-np.abs(distance) // width)
            return found
        if self.rule is Rule.MULTIPLES:
            return np.rint(voxels.astype(np.float64) / self.step).astype(np.int64) - int(self.origin)
        away = voxels.astype(np.float64) - self.origin
        return (np.sign(away) * np.ceil(np.abs(away) / self.step)).astype(np.int64)

    def voxels(self, bins: Bins, dtype: np.dtype[np.generic]) -> Planes:
        """The inverse of `bins` to within the bound, for all voxels that are not ground.

        Raises:
            CodesFileError: a bin stands for a number beyond the sample type.
        """
        with np.errstate(over="ignore"):
            voxels = self._voxels(bins, dtype)
        if dtype.kind == "f" and not np.isfinite(voxels).all():
            raise CodesFileError(f"bins of numbers that {dtype} does not have")
        return voxels

    def _voxels(self, bins: Bins, dtype: np.dtype[np.generic]) -> Planes:
        sign = np.sign(bins)
        if self.rule is Rule.WHOLE:
            width = int(self.step) + 2 * self._half
            whole = int(self.origin) + sign * (np.abs(bins) * width - self._half)
            limits = np.iinfo(dtype.name)
            result: Planes = np.clip(whole, limits.min, min(limits.max, 2**63 - 1)).astype(dtype)
        elif self.rule is Rule.MULTIPLES:
            result = ((int(self.origin) + bins) * np.float64(self.step)).astype(dtype)
        else:
            result = (self.origin + sign * (np.abs(bins) - 0.5) * np.float64(self.step)).astype(dtype)
        return result

    def guide(self, plane: Planes) -> Guide:
        """Decoded voxels (H, W) -> their bins with fractions, within ±2^60."""
        with np.errstate(over="ignore"):  # where a damaged file has a tiny step
            guide: Guide = np.clip(self._guide(plane), -_FARTHEST_GUIDE, _FARTHEST_GUIDE)
        return guide

    def _guide(self, plane: Planes) -> Guide:
        if self.rule is Rule.MULTIPLES:
            return plane.astype(np.float64) / self.step - int(self.origin)
        away = plane.astype(np.float64) - self.origin
        sign = np.where(away < 0, -1.0, 1.0)
        if self.rule is Rule.WHOLE:
            away += sign * self._half
            return away / np.float64(int(self.step) + 2 * self._half)
        found: Guide = away / self.step + sign * 0.5
        return found


def binning_of(planes: Planes, supports: NDArray[np.bool_], ground: float, bound: float) -> Binning:
    """How voxels are divided into bins.

    Args:
        planes: (slices, H, W).
        supports: (slices, H, W) which voxels are not ground.
        ground: the value of all others; ignored if it is NaN or there are none.
        bound: the largest error allowed, from 0.

    Raises:
        ImageError: the bound does not suit these voxels, or it is 0 and they have no common step.
    """
    ends = [
        (chosen.min(), chosen.max())
        for chosen in (plane[support] for plane, support in zip(planes, supports, strict=True))
        if chosen.size
    ]
    low, high = (min(end[0] for end in ends), max(end[1] for end in ends)) if ends else (ground, ground)
    has_ground = not supports.all() and not math.isnan(ground)
    everything = (*((ground,) if has_ground else ()), low, high)
    extent = float(max(everything)) - float(min(everything))
    is_whole = planes.dtype.kind in "iu"
    # a folder may hold slices whose few grey levels are closer together than its bound
    most = max(extent, float(np.iinfo(planes.dtype.str).max)) if is_whole else extent
    if bound < 0 or (bound > most and extent):
        raise ImageError(
            f"a largest error of {bound:g}, but its values go from {min(everything)} to "
            f"{max(everything)}; expected 0 to {most:g}"
        )
    if is_whole and bound != int(bound):
        raise ImageError(f"a largest error of {bound:g}: {planes.dtype} values need a whole number")
    if is_whole:
        bound = min(bound, most)  # a constant image holds any
        start = int(ground) if has_ground else int(low)
        step = _greatest_step(planes, supports, start)
        origin: float = start if has_ground else start - step
        binning = Binning(Rule.WHOLE, step, int(bound), origin, BinLimits(0, 0))
    elif bound == 0:
        float_step = _float_step(planes, supports, float(ground) if has_ground else None)
        first = round((float(ground) if has_ground else float(low)) / float_step)
        origin = first if has_ground else first - 1
        binning = Binning(Rule.MULTIPLES, float_step, 0.0, origin, BinLimits(0, 0))
    else:
        largest = np.array(max(abs(float(end)) for end in everything), planes.dtype)
        slack = 2 * float(np.spacing(largest))
        if bound <= 2 * slack:
            raise ImageError(
                f"a largest error of {bound:g}, less than {planes.dtype} can tell apart at "
                f"{largest:g}; expected more than {2 * slack:g}"
            )
        width = 2 * (bound - slack)
        origin = float(ground) if has_ground else float(low) - width / 2
        binning = Binning(Rule.WITHIN, width, float(bound), origin, BinLimits(0, 0))
    if not ends:
        return binning
    first_bin, last_bin = (int(each) for each in binning._bins(np.array([low, high], planes.dtype)))
    if max(-first_bin, last_bin).bit_length() > MAX_BIN_BITS:
        raise ImageError(
            f"values from {low} to {high} in steps of {binning.step:g}, too many; name a larger "
            "error with --max-error"
        )
    return Binning(binning.rule, binning.step, binning.bound, origin, BinLimits(first_bin, last_bin))


def _greatest_step(planes: Planes, supports: NDArray[np.bool_], start: int) -> int:
    """The greatest common divisor of all distances from `start`."""
    step = 0
    for plane, support in zip(planes, supports, strict=True):
        distances = np.abs(plane[support].astype(np.int64) - start)
        step = math.gcd(step, int(np.gcd.reduce(distances[:_LOOKED_AT]))) if distances.size else step
        if step == 1:
            return 1
        step = math.gcd(step, int(np.gcd.reduce(distances))) if distances.size else step
    return step or 1


def _float_step(planes: Planes, supports: NDArray[np.bool_], ground: float | None) -> float:
    """A step whose whole multiples are all the values, rounded to their type.

    Raises:
        ImageError: there is no such step.
    """
    looked_at = planes[supports]
    looked_at = looked_at[:: max(1, looked_at.size // _LOOKED_AT)]
    if ground is not None:
        looked_at = np.append(looked_at, planes.dtype.type(ground))
    sample = np.unique(looked_at)
    with np.errstate(over="ignore", invalid="ignore"):  # numbers beyond 1e300 are no such multiples
        for step in _steps_of(sample.astype(np.float64)):
            if _are_multiples(sample, step) and all(
                _are_multiples(plane[support], step)
                for plane, support in zip(planes, supports, strict=True)
            ):
                return step
    raise ImageError(
        f"values of {planes.dtype} that are no whole multiples of one step cannot be kept without "
        "loss; name a largest error with --max-error"
    )


def _steps_of(sample: Guide) -> list[float]:
    """Steps that sorted values may have, the likeliest first."""
    steps = [2.0**-place for place in range(_FRACTIONS)]
    steps = [step for step in steps if (sample / step == np.rint(sample / step)).all()][:1]
    between = np.diff(sample)
    if between.size:
        smallest = float(between.min())
        farthest = float(sample[np.abs(sample).argmax()])
        # among rounded values, the farthest from 0 gives the step most precisely
        for parts in (1, 2, 3):
            count = round(farthest / (smallest / parts))
            if 0 < abs(count) < _MOST_STEPS:
                near = farthest / count
                steps += [near, float(np.float32(near)), smallest / parts]
    return steps


def _are_multiples(values: Planes, step: float) -> bool:
    count = np.rint(values.astype(np.float64) / step)
    is_near = bool((np.abs(count) < _MOST_STEPS).all()) if count.size else True
    return is_near and bool(((count * step).astype(values.dtype) == values).all())
