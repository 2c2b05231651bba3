"""Demands -> the smallest file that satisfies them. Never imports torch.

The quality and the size of a number of levels are known only after it is tried: the indices are chosen,
coded and decoded again, from latents that are computed once. Both grow with the levels, so bisection
finds the fewest in log₂ of their number. If all levels do not suffice, a residue is added. The quality
of a bound is known without coding, since the bound alone divides the voxels into bins (`bins.py`). So
only one residue is coded, that of the largest bound that suffices.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, TypeVar

import numpy as np

from oasisvq.codec.demand import Demands
from oasisvq.codec.encoded import Encoded
from oasisvq.codec.measure import SMALLEST_SIDE, Measure, Scale, measure, scale_of
from oasisvq.codec.outliers import core_of
from oasisvq.codec.particular import can_hold, held_to
from oasisvq.errors import ImageError
from oasisvq.scans.scan import Scan, extremes_of

Code = Callable[[int, float | None], Encoded]  # from levels, and a bound or None
Choice = TypeVar("Choice")

_BOUNDS_ALL_TRIED = 32  # whole numbers up to it; larger bounds, and floats, in quarter octaves
_WIDEST_BOUND, _NARROWEST_BOUND = 2.0**-2, 2.0**-16  # shares of the range


class Ways(NamedTuple):
    """How a scan can be encoded.

    Attributes:
        code: encodes it, from latents that are computed once.
        most_levels: of the model.
        residue_levels: how many levels are kept beside a residue.
        has_residues: whether the model has a network for residues.
        bound: the largest error that is asked for beside the demands; None if there is none.
        likely: how many levels typically suffice; None if unknown.
    """

    code: Code
    most_levels: int
    residue_levels: int
    has_residues: bool
    bound: float | None
    likely: int | None = None


def smallest(scan: Scan, demands: Demands, ways: Ways) -> Encoded:
    """The smallest file that satisfies the demands; if only a size is demanded, the best that fits it.

    Raises:
        ImageError: no file does; it names the nearest one.
    """
    search = _Search(scan, demands, ways)
    found = search.by_quality() if demands.of_quality.are_any else search.by_size()
    return found.encoded._replace(measured=found.measure)


@dataclass(frozen=True)
class _Attempt:
    """One way to encode a scan, tried."""

    encoded: Encoded
    scale: Scale

    @cached_property
    def measure(self) -> Measure:
        """The quality that it keeps."""
        return self.encoded.measure(self.scale)

    @property
    def file_bytes(self) -> int:
        """Size of the file."""
        return len(self.encoded.content)

    @property
    def words(self) -> str:
        """The quality that it keeps, and its size, in words."""
        return f"{self.measure.words}, in {self.file_bytes:,} bytes"


class _Search:
    """The attempts to encode one scan."""

    def __init__(self, scan: Scan, demands: Demands, ways: Ways) -> None:
        self._scan, self._demands, self._ways = scan, demands, ways
        self._tried: dict[tuple[int, float | None], _Attempt] = {}
        self._scale = scale_of(scan)
        option = "--min-foreground-ssim" if demands.ssim is None else "--min-ssim"
        asks = demands.ssim is not None or demands.foreground_ssim is not None
        if asks and min(scan.planes.shape[1:]) < SMALLEST_SIDE:
            raise ImageError(
                f"slices of {scan.planes.shape[1]}×{scan.planes.shape[2]} pixels, too small for SSIM, "
                f"which takes {SMALLEST_SIDE}; leave out {option} or name --min-psnr"
            )

    def code(self, levels: int, bound: float | None = None) -> _Attempt:
        """The file with `levels` levels, and with a residue to a bound; each is tried once."""
        key = levels, bound
        if key not in self._tried:
            self._tried[key] = _Attempt(self._ways.code(levels, bound), self._scale)
        return self._tried[key]

    def _is_met(self, attempt: _Attempt) -> bool:
        return self._demands.are_met(attempt.measure)

    def _fits(self, attempt: _Attempt) -> bool:
        most = self._demands.max_bytes
        return most is None or attempt.file_bytes <= most

    # --- a quality ----------------------------------------------------------------------------

    def by_quality(self) -> _Attempt:
        """The smallest file that keeps the quality."""
        ways = self._ways
        found = None
        if ways.bound is None:
            every = range(1, ways.most_levels + 1)
            likely = None if ways.likely is None else ways.likely - 1
            levels = first_of(every, lambda levels: self._is_met(self.code(levels)), likely)
            found = self.code(levels) if levels else None
        found = found or self._by_residue()
        if found is None:
            raise ImageError(self._falls_short())
        if not self._fits(found):
            raise ImageError(self._too_large(found))
        return found

    def _by_residue(self) -> _Attempt | None:
        """The file with a residue to the widest bound that keeps the quality; None if there is none."""
        if not self._ways.has_residues:
            return None
        bounds = self._bounds()
        wanted = first_of(bounds, lambda bound: self._demands.are_met(self._held(bound)))
        if wanted is None:
            return None
        for bound in bounds[bounds.index(wanted) :]:  # only the file itself is decisive
            attempt = self.code(self._ways.residue_levels, bound)
            if self._is_met(attempt):
                return attempt
        return None

    def _bounds(self) -> list[float]:
        """Bounds to try, from the widest down to 0, or to the narrowest that these voxels can have."""
        whole = self._scan.planes.dtype.kind in "iu"
        left = core_of(self._scan.planes).left()
        low, high = map(float, extremes_of(self._scan.planes[left]))
        quarters = range(int(4 * np.log2(_WIDEST_BOUND)), int(4 * np.log2(_NARROWEST_BOUND)) - 1, -1)
        shares = [(high - low) * 2.0 ** (quarter / 4) for quarter in quarters]
        bounds = set(shares)
        if whole:
            few = range(min(_BOUNDS_ALL_TRIED, int(shares[0])) + 1)
            bounds = {float(round(share)) for share in shares if share > _BOUNDS_ALL_TRIED} | set(few)
        bounds |= {0.0}
        if self._ways.bound is not None:
            bounds = {bound for bound in bounds if bound < self._ways.bound} | {self._ways.bound}
        ordered = sorted(bounds, reverse=True)
        while len(ordered) > 1 and not can_hold(self._scan.planes, ordered[-1]):
            ordered.pop()
        return ordered

    def _held(self, bound: float) -> Measure:
        """The quality that a residue to a bound keeps, without coding it."""
        return measure(self._scan, held_to(self._scan.planes, bound), self._scale)

    # --- a size -------------------------------------------------------------------------------

    def by_size(self) -> _Attempt:
        """The best file that fits the demanded size."""
        ways = self._ways
        if ways.bound is not None:
            found = self.code(ways.residue_levels, ways.bound)
            if not self._fits(found):
                raise ImageError(
                    f"a largest error of {ways.bound:g} takes {found.file_bytes:,} bytes, more than "
                    f"--max-bytes {self._demands.max_bytes}; allow a larger one, or more bytes"
                )
            return found
        found = self._best_levels()
        if found.encoded.header.levels < ways.most_levels or not ways.has_residues:
            return found
        return self._residue_within(found) or found

    def _best_levels(self) -> _Attempt:
        """The file with the most levels that fits."""
        every = range(self._ways.most_levels, 0, -1)
        levels = first_of(every, lambda levels: self._fits(self.code(levels)))
        if levels is None:
            raise ImageError(
                f"its smallest file takes {self.code(1).file_bytes:,} bytes, more than "
                f"--max-bytes {self._demands.max_bytes}"
            )
        return self.code(levels)

    def _residue_within(self, best: _Attempt) -> _Attempt | None:
        """The file with the narrowest bound that fits, among those that keep more than `best` does."""
        kept = best.measure
        beyond = Demands(ssim=None if np.isnan(kept.ssim) else kept.ssim, psnr=kept.psnr)
        bounds = self._bounds()
        widest = first_of(bounds, lambda bound: beyond.are_met(self._held(bound)))
        if widest is None or not self._fits(self.code(self._ways.residue_levels, widest)):
            return None
        left = bounds[bounds.index(widest) :][::-1]
        levels = self._ways.residue_levels
        narrowest = first_of(left, lambda bound: self._fits(self.code(levels, bound)))
        return None if narrowest is None else self.code(levels, narrowest)

    # --- what to say --------------------------------------------------------------------------

    def _falls_short(self) -> str:
        ways = self._ways
        if ways.has_residues:
            narrowest = self._bounds()[-1]
            nearest, how = self.code(ways.residue_levels, narrowest), f"a largest error of {narrowest:g}"
        else:
            nearest = self.code(ways.most_levels)
            how = f"all {ways.most_levels} levels, for this model has no network for residues"
        return f"{self._demands.words} cannot be kept; the nearest is {nearest.words}, with {how}"

    def _too_large(self, found: _Attempt) -> str:
        most = self._demands.max_bytes
        takes = f"{self._demands.words} takes {found.file_bytes:,} bytes, more than --max-bytes {most}"
        if self._ways.bound is not None:
            return f"{takes}; demand less, or allow more bytes"
        return f"{takes}; the nearest that fits keeps {self._best_levels().words}"


def first_of(
    choices: Sequence[Choice], suffices: Callable[[Choice], bool], likely: int | None = None
) -> Choice | None:
    """The first choice that suffices, given that all after it do too; None if the last does not.

    By bisection; if a place is likely, step by step from there.
    """
    if likely is not None:
        if not suffices(choices[likely]):
            return next((each for each in choices[likely + 1 :] if suffices(each)), None)
        while likely > 0 and suffices(choices[likely - 1]):
            likely -= 1
        return choices[likely]
    low, high = 0, len(choices)
    while low < high:
        middle = (low + high) // 2
        if suffices(choices[middle]):
            high = middle
        else:
            low = middle + 1
    return choices[low] if low < len(choices) else None
