"""Demands on a file: a quality, a size, or both. Never imports torch."""

import math
from typing import NamedTuple

from oasisvq.codec.measure import BEST_PSNR, Measure
from oasisvq.errors import ImageError

LEAST_FILE_BYTES = 18  # no `.codes` file is smaller than its header
_DIGITS = 9  # to round to, so that the last digits of a sum decide nothing


class Demands(NamedTuple):
    """What a file must satisfy; None for what is not demanded.

    Attributes:
        ssim: the least mean SSIM over its slices, above 0 and at most 1.
        foreground_ssim: likewise; a scan without foreground always satisfies it.
        psnr: the least PSNR in dB, above 0 and at most `BEST_PSNR`.
        max_bytes: the largest size of the whole file.
    """

    ssim: float | None = None
    foreground_ssim: float | None = None
    psnr: float | None = None
    max_bytes: int | None = None

    @property
    def are_any(self) -> bool:
        """Whether anything is demanded."""
        return self != NO_DEMANDS

    @property
    def of_quality(self) -> "Demands":
        """The demands on quality alone."""
        return self._replace(max_bytes=None)

    @property
    def words(self) -> str:
        """The demands on quality, such as `SSIM 0.97 and PSNR 38 dB`."""
        parts = []
        if self.ssim is not None:
            parts.append(f"SSIM {self.ssim:g}")
        if self.foreground_ssim is not None:
            parts.append(f"foreground SSIM {self.foreground_ssim:g}")
        if self.psnr is not None:
            parts.append(f"PSNR {self.psnr:g} dB")
        return " and ".join(parts)

    def are_met(self, found: Measure) -> bool:
        """Whether a measure satisfies the demands on quality."""
        if self.foreground_ssim is not None and math.isnan(found.foreground_ssim):
            found = found._replace(foreground_ssim=1.0)
        pairs = (
            (self.ssim, found.ssim),
            (self.foreground_ssim, found.foreground_ssim),
            (self.psnr, found.psnr),
        )
        return all(least is None or round(value, _DIGITS) >= least for least, value in pairs)


NO_DEMANDS = Demands()


def wrong_with(demands: Demands, levels: int | None = None, lossy: bool = False) -> str:
    """Why demands cannot be made, in words; empty if they can.

    Args:
        demands: to check.
        levels: number of levels that is asked for beside them.
        lossy: whether labels are to be coded by the model.
    """
    if not demands.are_any:
        return ""
    for option, value, most in (
        ("--min-ssim", demands.ssim, 1),
        ("--min-foreground-ssim", demands.foreground_ssim, 1),
        ("--min-psnr", demands.psnr, BEST_PSNR),
    ):
        if value is not None and not 0 < value <= most:
            unit = " dB" if option == "--min-psnr" else ""
            return f"{option} {value:g}: expected more than 0 and at most {most:g}{unit}"
    size = demands.max_bytes
    if size is not None and size < LEAST_FILE_BYTES:
        return f"--max-bytes {size}: no file is so small; expected {LEAST_FILE_BYTES} or more"
    if levels is not None:
        return "-q and demands such as --min-ssim or --max-bytes both choose the quality; leave one out"
    if lossy:
        return "--lossy labels have a Dice score, and no SSIM or PSNR; leave out what is demanded"
    return ""


def refuse_large_labels(file_bytes: int, demands: Demands) -> None:
    """Raise if labels, kept exactly, take more bytes than are allowed.

    Raises:
        ImageError: says how many they take.
    """
    if demands.max_bytes is not None and file_bytes > demands.max_bytes:
        raise ImageError(
            f"labels, kept exactly, take {file_bytes:,} bytes, more than --max-bytes "
            f"{demands.max_bytes}; --kind scan codes them by the model"
        )
