"""What a model config may say."""

from dataclasses import replace

import pytest
from conftest import TINY

from oasisvq.errors import ModelError


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"code_dim": 0}, "code_dim is 0"),
        ({"code_dim": 1025}, "code_dim is 1025"),
        ({"codebook_size": 1}, "codebook_size is 1"),
        ({"codebook_size": 65_536}, "codebook_size is 65536"),
        ({"levels": 0, "default_levels": 0}, "levels is 0"),
        ({"levels": 65}, "levels is 65"),
        ({"default_levels": 0}, "default_levels is 0"),
        ({"default_levels": 4}, "default_levels is 4, expected 1 to 3"),
        ({"stride": 0}, "stride is 0"),
        ({"stride": -8}, "stride is -8"),
        ({"stride": 128, "window": (128, 128)}, "stride is 128"),
        ({"stride": 12, "window": (24, 24)}, "power of two"),
        ({"window": (40, 44)}, "two multiples of 8"),
        ({"window": (0, 48)}, "two multiples of 8"),
        ({"window": (-8, 48)}, "two multiples of 8"),
        ({"window": (40,)}, "two multiples of 8"),
        ({"window": (40, 48, 8)}, "two multiples of 8"),
        ({"window": (40, 65_544)}, "two multiples of 8"),
        ({"encoder_channels": (), "encoder_blocks": ()}, "encoder has channels"),
        ({"encoder_channels": (8,)}, "encoder has channels"),
        ({"decoder_blocks": (1, 1, 0, 0)}, "decoder has channels"),
        ({"encoder_channels": (1,) * 5, "encoder_blocks": (0,) * 5}, "no more stages"),
        ({"encoder_channels": (8, 0)}, "out of range"),
        ({"decoder_channels": (12, 4097, 4)}, "out of range"),
        ({"encoder_blocks": (1, -1)}, "out of range"),
        ({"decoder_blocks": (65, 0, 0)}, "out of range"),
    ],
)
def test_a_config_out_of_range_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        replace(TINY, **changes)
