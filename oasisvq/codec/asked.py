"""A wish -> the levels and the coder to use, by a model's config alone. Never imports torch."""

import math

import numpy as np

from oasisvq.codec.config import ModelConfig
from oasisvq.codec.demand import wrong_with
from oasisvq.codec.headers import Coder
from oasisvq.codec.wish import Wish
from oasisvq.errors import ImageError, ModelError

# Beside a residue, further levels cost more than they save, as measured on the validation slices; in
# volumes the previous slices already tell what further levels would.
LEVELS_OF_A_RESIDUE, LEVELS_OF_A_VOLUME = 2, 1


def checked_levels(config: ModelConfig, levels: int | None, is_volume: bool = False) -> int:
    """The number of levels to keep: the one asked for, or the model's default.

    Args:
        config: of the codec for images, or for volumes.
        levels: the number asked for.
        is_volume: whether messages say that it is for volumes.

    Raises:
        ModelError: the number is out of the model's range.
    """
    if levels is None:
        return config.default_levels
    is_number = isinstance(levels, int | np.integer) and not isinstance(levels, bool)
    if not is_number or not 1 <= levels <= config.levels:
        of_volumes = " for volumes" if is_volume else ""
        raise ModelError(f"quality {levels}, but this model has 1 to {config.levels}{of_volumes}")
    return levels


def refuse_demands(wish: Wish) -> None:
    """Raise for demands that cannot be made.

    Raises:
        ImageError: one is out of range, or contradicts the rest of the wish.
    """
    if wish.bound is not None and not 0 <= wish.bound < math.inf:
        raise ImageError(f"a largest error of {wish.bound:g}, expected a finite number from 0")
    if wrong := wrong_with(wish.demands, wish.levels, wish.lossy):
        raise ImageError(wrong)


def levels_for(config: ModelConfig, wish: Wish, is_volume: bool) -> int:
    """The number of levels that a wish amounts to; beside a residue, few levels give the smallest file.

    Raises:
        ModelError: the number is out of the model's range.
    """
    if wish.levels is not None or wish.bound is None:
        return checked_levels(config, wish.levels, is_volume and bool(config.context))
    return min(LEVELS_OF_A_VOLUME if is_volume else LEVELS_OF_A_RESIDUE, config.levels)


def checked_coder(has_prior: bool, fingerprint: bytes, coder: Coder | None) -> Coder:
    """The coder to use: the one asked for, else the prior if the model has one.

    Raises:
        ModelError: the coder needs a prior, and the model has none; or it is that of labels.
    """
    if coder is Coder.LABELS:
        raise ModelError("coder labels is chosen by what a scan holds; pass content=Content.LABELS")
    if coder is None:
        return Coder.PRIOR if has_prior else Coder.PACKED
    if coder is Coder.PRIOR and not has_prior:
        raise ModelError(
            f"model {fingerprint.hex()[:8]} has no prior; encode with --coder packed, or give "
            "it one with `oasisvq train data/ --prior-only --model ...`"
        )
    return coder
