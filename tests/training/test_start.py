"""A training that starts from another model computes what that model does."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from conftest import TINY, tiny_model

from oasisvq.errors import TrainingError
from oasisvq.training.codec_training import new_model
from oasisvq.training.start import copy_weights
from oasisvq.training.weights import Model

PIXELS = torch.rand(2, 1, 40, 48, generator=torch.Generator().manual_seed(0))
KEPT = torch.tensor([3, 2])  # levels of each
LATENTS = torch.randn(2, 6, 5, 6, generator=torch.Generator().manual_seed(1))


def grown(source: Model, **changes: Any) -> Model:
    target = new_model(replace(source.config, **changes), 9)
    copy_weights(source, target)
    return target.eval()


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"encoder_blocks": (2, 3), "decoder_blocks": (3, 2, 0)},
        {"encoder_blocks": (2, 1), "decoder_blocks": (1, 1, 2)},
        {"levels": 5},
        {"window": (48, 56), "default_levels": 1},
    ],
    ids=str,
)
@torch.inference_mode()
def test_what_is_added_changes_nothing(changes: dict[str, Any]) -> None:
    source = tiny_model()
    target = grown(source, **changes)
    assert torch.equal(target.encoder(PIXELS), source.encoder(PIXELS))
    assert torch.equal(target.decoder(LATENTS), source.decoder(LATENTS))
    assert torch.equal(target.quantizer.codebooks[:3], source.quantizer.codebooks)
    indices = source.quantizer.quantize(LATENTS, KEPT)
    assert torch.equal(target.quantizer.quantize(LATENTS, KEPT)[:, :3], indices)


@torch.inference_mode()
def test_blocks_are_added_to_stages_that_had_none() -> None:
    source = tiny_model(replace(TINY, encoder_blocks=(0, 1), decoder_blocks=(1, 0, 0)))
    target = grown(source, encoder_blocks=(1, 1), decoder_blocks=(1, 1, 1))
    assert torch.equal(target.encoder(PIXELS), source.encoder(PIXELS))
    assert torch.equal(target.decoder(LATENTS), source.decoder(LATENTS))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"codebook_size": 21}, "has codebook_size 20, this training 21"),
        ({"code_dim": 7}, "has code_dim 6, this training 7"),
        ({"stride": 4}, "has stride 8, this training 4"),
        ({"encoder_channels": (8, 13)}, "has encoder_channels"),
        ({"decoder_channels": (12, 8, 5)}, "has decoder_channels"),
        ({"encoder_blocks": (1, 0)}, "has encoder_blocks .*, more than the"),
        ({"decoder_blocks": (2, 0, 0)}, "has decoder_blocks .*, more than the"),
        ({"levels": 2}, "has levels 3, more than the 2 of this training"),
        (
            {"decoder_channels": (12, 8), "decoder_blocks": (1, 1)},
            "has decoder_channels",
        ),
    ],
    ids=str,
)
def test_a_model_of_another_kind_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(TrainingError, match=f"the model to start from {message}"):
        grown(tiny_model(), **changes)
