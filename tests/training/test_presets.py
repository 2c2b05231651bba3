"""The named set-ups."""

import dataclasses

from conftest import TINY

from oasisvq.training.presets import PRESETS, VOLUMES_LEVELS, prior_config, volumes_config

OF_THEIR_OWN = {"purpose", "encoder_channels", "decoder_channels", "batch_size"}  # beside epochs


def test_small_and_base_are_one_family() -> None:
    """Alike in all that decides what a model is, but for its width."""
    small, base = (dataclasses.asdict(PRESETS[name]) for name in ("small", "base"))
    different = {name for name in small if small[name] != base[name] and "epochs" not in name}
    assert different == OF_THEIR_OWN
    for name in ("encoder_channels", "decoder_channels"):
        assert [2 * wide for wide in base[name]] == [3 * narrow for narrow in small[name]]


def test_the_codec_of_volumes_is_that_of_images_with_contexts() -> None:
    deep = dataclasses.replace(TINY, levels=8, default_levels=7)
    of_volumes = volumes_config(deep)
    same = dataclasses.replace(deep, levels=VOLUMES_LEVELS, default_levels=VOLUMES_LEVELS, context=1)
    assert of_volumes == same
    assert volumes_config(TINY) == dataclasses.replace(TINY, context=1)
    assert (prior_config(deep).expected, prior_config(of_volumes).expected) == (0, 3)
