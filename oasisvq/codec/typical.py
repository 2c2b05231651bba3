"""The quality that a model typically keeps at each number of levels, by its card. Never imports torch.

The card of a model file, which its fingerprint does not cover, holds it under the key `typical`: the
number of validation slices that were measured; and for each number of levels from 1 the mean size of a
file in bytes and the ranges of SSIM and foreground SSIM, from the `QUANTILES` of the slices.
"""

import math
import reprlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from oasisvq.codec.measure import Measure
from oasisvq.errors import ModelError

KEY = "typical"
SLICES = 48  # of the validation split that a training measures
QUANTILES = (0.05, 0.95)
_FARTHEST = 1.5  # widths of a range; a scan farther below the range is unlike the others
_NARROWEST = 0.01  # width that a range has at least


class Range(NamedTuple):
    """The range in which most slices lie."""

    low: float
    high: float

    @property
    def middle(self) -> float:
        """The middle of the range."""
        return (self.low + self.high) / 2

    def is_far_above(self, value: float) -> bool:
        """Whether the range is far above a value: so far that it belongs to something else."""
        return value < self.low - _FARTHEST * max(self.high - self.low, _NARROWEST)


class Typical(NamedTuple):
    """What a number of levels keeps of a slice like those that a model was trained on."""

    file_bytes: float  # mean
    ssim: Range
    foreground_ssim: Range | None  # None if slices have no foreground

    def as_dict(self) -> dict[str, Any]:
        """The entry as a card holds it."""
        foreground = self.foreground_ssim
        return {
            "bytes": round(self.file_bytes, 1),
            "ssim": [round(end, 4) for end in self.ssim],
            "foreground_ssim": [round(end, 4) for end in foreground] if foreground else None,
        }


def typical_of(measures: Sequence[Measure], sizes: Sequence[int]) -> Typical:
    """What is typical of slices with these measures and these file sizes."""
    ranges = []
    for values in ([each.ssim for each in measures], [each.foreground_ssim for each in measures]):
        known = [value for value in values if not math.isnan(value)]
        ranges.append(Range(*np.quantile(known, QUANTILES).tolist()) if known else None)
    ssim, foreground = ranges
    return Typical(float(np.mean(sizes)), ssim or Range(0.0, 1.0), foreground)


def typical_in(card: dict[str, Any], levels: int) -> list[Typical]:
    """What a card says is typical, by number of levels from 1; empty if it says nothing.

    Raises:
        ModelError: the entry is invalid, or for another number of levels.
    """
    if KEY not in card:
        return []
    said = card[KEY]
    try:
        rows = [
            Typical(
                float(row["bytes"]),
                Range(*map(float, row["ssim"])),
                Range(*map(float, row["foreground_ssim"])) if row["foreground_ssim"] else None,
            )
            for row in said["levels"]
        ]
        numbers = [number for row in rows for number in (row.file_bytes, *row.ssim)]
        if len(rows) != levels or not all(map(math.isfinite, numbers)):
            raise ValueError
    except (KeyError, TypeError, ValueError, OverflowError):
        raise ModelError(
            f"its card says what is typical as {reprlib.repr(said)}, expected a row for each of "
            f"{levels} levels"
        ) from None
    return rows


def unlike(found: Measure, typical: Typical) -> str:
    """How a scan shows that it is unlike those that a model was trained on; empty if it does not."""
    for name, value, usual in (
        ("SSIM", found.ssim, typical.ssim),
        ("foreground SSIM", found.foreground_ssim, typical.foreground_ssim),
    ):
        if usual is not None and usual.is_far_above(value):  # nan is not
            return f"{name} {value:.2f} (typical {usual.low:.2f} to {usual.high:.2f} at this quality)"
    return ""
