"""The results of an epoch of the codec, and whether they deserve a warning."""

from collections.abc import Callable
from typing import NamedTuple

COLLAPSED_SHARE = 0.25  # of a codebook; fewer active codes are too few


class CodecEpoch(NamedTuple):
    """The results of an epoch."""

    epoch: int
    loss: float
    ssim_loss: float
    l1: float
    mse: float
    commitment: float
    images_per_second: float
    validation_ssim: list[float]  # by number of levels kept
    perplexity: list[float]  # of each level
    active: list[int]  # codes used, of each level
    codebook_size: int

    def gains_on(self, before: "CodecEpoch") -> bool:
        """Whether the reconstruction is better than an epoch before."""
        if self.validation_ssim:
            return self.validation_ssim[-1] > before.validation_ssim[-1]
        return self.loss < before.loss

    def summary(self) -> str:
        """One line for a person."""
        ssim_of_levels = "/".join(f"{each:.4f}" for each in self.validation_ssim)
        perplexity = "/".join(f"{each:.0f}" for each in self.perplexity)
        active = "/".join(str(each) for each in self.active)
        return (
            f"loss {self.loss:.4f}  validation window SSIM {ssim_of_levels or 'no validation split'}  "
            f"perplexity {perplexity}  active codes {active}"
        )


class CollapseWarning:
    """Warns once that codebooks collapse, if this continues while the reconstruction no longer improves.

    In the first epochs few codes are active while everything still changes.
    """

    def __init__(self, note: Callable[[str], None]) -> None:
        self._note = note
        self._last: CodecEpoch | None = None
        self._given = False

    def look_at(self, report: CodecEpoch) -> None:
        """Compare an epoch with the previous one."""
        last, self._last = self._last, report
        if last is None or self._given or report.gains_on(last):
            return
        size = report.codebook_size
        collapsing = [
            f"{level} ({active} of {size} codes)"
            for level, (active, before) in enumerate(
                zip(report.active, last.active, strict=True), start=1
            )
            if 0 < active < COLLAPSED_SHARE * size and active <= before
        ]
        if collapsing:
            self._given = True
            self._note(
                "codebooks are collapsing, and the reconstruction no longer gains: level "
                f"{', '.join(collapsing)}; lower the learning rate, or choose a smaller codebook"
            )
