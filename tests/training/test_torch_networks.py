"""Pixels <-> latents."""

from dataclasses import replace

import pytest
import torch
from conftest import TINY, tiny_model

from oasisvq.training.networks import (
    Decoder,
    Encoder,
    ModelConfig,
    ResidualBlock,
    channels_last,
    clamp_straight_through,
)

PATCHES = replace(  # one stage: all of the stride is folded into channels
    TINY,
    stride=4,
    encoder_channels=(5,),
    encoder_blocks=(0,),
    decoder_channels=(3,),
    decoder_blocks=(2,),
)
PIXELWISE = replace(PATCHES, stride=1, window=(7, 5))
STEPWISE = replace(  # as many stages as the stride allows: nothing is folded
    TINY,
    encoder_channels=(3, 4, 5, 6),
    encoder_blocks=(0, 1, 0, 2),
    decoder_channels=(6, 5, 4, 3),
    decoder_blocks=(0, 0, 0, 0),
)
CONFIGS = {"tiny": TINY, "patches": PATCHES, "pixelwise": PIXELWISE, "stepwise": STEPWISE}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
@pytest.mark.parametrize(("batch", "height", "width"), [(1, 1, 1), (2, 5, 6), (3, 1, 7)])
def test_shapes(config: ModelConfig, batch: int, height: int, width: int) -> None:
    pixels = torch.rand(batch, 1, height * config.stride, width * config.stride)
    latents = Encoder(config)(pixels)
    assert latents.shape == (batch, config.code_dim, height, width)
    assert latents.dtype == torch.float32
    assert Decoder(config)(latents).shape == pixels.shape


def test_each_image_of_a_batch_passes_by_itself() -> None:
    model = tiny_model()
    pixels = torch.rand(3, 1, 40, 48, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        together = model.decoder(model.encoder(pixels))
        alone = torch.cat([model.decoder(model.encoder(image[None])) for image in pixels])
    torch.testing.assert_close(together, alone)
    assert not torch.allclose(together[0], together[1])


def test_rows_and_columns_stay_where_they_are() -> None:
    """A change in one cell's pixels changes the latents around that cell, and no others."""
    model = tiny_model()
    dark = torch.zeros(1, 1, 160, 240)
    spot = dark.clone()
    spot[..., 3 * 8 : 4 * 8, 20 * 8 : 21 * 8] = 1  # the cell (3, 20)
    with torch.inference_mode():
        changed = (model.encoder(spot) != model.encoder(dark)).any(1)[0].nonzero()
    assert (changed - torch.tensor([3, 20])).abs().max() <= 5
    assert [3, 20] in changed.tolist()


def test_a_residual_block_starts_as_the_identity_and_learns() -> None:
    block = ResidualBlock(4)
    with torch.no_grad():
        block.second.bias.zero_()
    features = torch.randn(2, 4, 5, 6)
    torch.testing.assert_close(block(features), features)
    block(features).square().sum().backward()
    assert block.second.weight.grad is not None
    assert block.second.weight.grad.any()


def test_each_latent_vector_has_unit_root_mean_square() -> None:
    pixels = torch.rand(2, 1, 40, 48, generator=torch.Generator().manual_seed(1))
    for brightness in (1, 0.1, 100):
        latents = tiny_model().encoder(brightness * pixels)
        torch.testing.assert_close(latents.square().mean(1), torch.ones(2, 5, 6), atol=1e-3, rtol=0)


def test_latents_are_float32_under_autocast() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        latents = tiny_model().encoder(torch.rand(1, 1, 8, 8))
    assert latents.dtype == torch.float32


@pytest.mark.parametrize("sign", [1, -1])
def test_a_clamped_pixel_learns_but_not_further_outwards(sign: int) -> None:
    pixels = torch.tensor([-1.0, 0.0, 0.25, 1.0, 3.0], requires_grad=True)
    clamped = clamp_straight_through(pixels)
    assert clamped.tolist() == [0, 0, 0.25, 1, 1]
    (clamped * torch.arange(1, 6) * sign).sum().backward()
    assert pixels.grad is not None
    assert pixels.grad.tolist() == ([0, 2, 3, 4, 5] if sign > 0 else [-1, -2, -3, -4, 0])


def test_the_layout_of_weights_changes_no_value() -> None:
    model, other = tiny_model(), tiny_model()
    channels_last(other)
    assert other.encoder.layers[1].weight.is_contiguous(memory_format=torch.channels_last)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), name
    pixels = torch.rand(1, 1, 40, 48, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        torch.testing.assert_close(model.encoder(pixels), other.encoder(pixels))
