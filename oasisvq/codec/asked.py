"""What is asked of a model -> what it does, by its config alone. Never imports torch."""

from oasisvq.codec.config import ModelConfig
from oasisvq.codec.demand import wrong_with
from oasisvq.codec.headers import Coder
from oasisvq.codec.wish import Wish
from oasisvq.errors import ImageError, ModelError

# With a residue, further levels cost more than they save, by the validation slices; of volumes, slices
# before say what levels would.
LEVELS_OF_A_RESIDUE, LEVELS_OF_A_VOLUME = 2, 1


def checked_levels(config: ModelConfig, levels: int | None, is_volume: bool = False) -> int:
    """The number of levels to keep: the asked one, or the model's default.

    Args:
        config: of what codes images, or volumes.
        levels: the asked one.
        is_volume: which of the two, for messages.

    Raises:
        ModelError: out of the model's range.
    """
    if levels is None:
        return config.default_levels
    if not 1 <= levels <= config.levels:
        of_volumes = " for volumes" if is_volume else ""
        raise ModelError(f"quality {levels}, but this model has 1 to {config.levels}{of_volumes}")
    return levels


def refuse_demands(wish: Wish) -> None:
    """Raise for what cannot be demanded.

    Raises:
        ImageError: it is out of range, or contradicts the rest of the wish.
    """
    if wrong := wrong_with(wish.demands, wish.levels, wish.lossy):
        raise ImageError(wrong)


def levels_for(config: ModelConfig, wish: Wish, is_volume: bool) -> int:
    """The number of levels that a wish comes to: beside a residue fewer are the smallest file.

    Raises:
        ModelError: out of the model's range.
    """
    if wish.levels is not None or wish.bound is None:
        return checked_levels(config, wish.levels, is_volume and bool(config.context))
    return min(LEVELS_OF_A_VOLUME if is_volume else LEVELS_OF_A_RESIDUE, config.levels)


def checked_coder(has_prior: bool, fingerprint: bytes, coder: Coder | None) -> Coder:
    """The coder to use: the asked one, or the prior where the model has one.

    Raises:
        ModelError: it needs a prior, and the model has none.
    """
    if coder is None:
        return Coder.PRIOR if has_prior else Coder.PACKED
    if coder is Coder.PRIOR and not has_prior:
        raise ModelError(
            f"model {fingerprint.hex()[:8]} has no prior; encode with --coder packed, or give "
            "it one with `oasisvq train data/ --prior-only --model ...`"
        )
    return coder
