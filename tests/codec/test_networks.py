"""Pixels <-> latents in integers."""

from dataclasses import replace

import numpy as np
import pytest
from conftest import TINY, tiny_model
from numpy.typing import NDArray

from oasisvq.codec.config import ModelConfig
from oasisvq.codec.exact import LATENT_UNITS
from oasisvq.codec.modelfile import ModelFile
from oasisvq.codec.networks import DECODED_STEPS, PIXEL_STEPS, network_shapes
from oasisvq.training.weights import file_of, model_arrays

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


@pytest.fixture(scope="module")
def file() -> ModelFile:
    return file_of(tiny_model(), {})


def pixels_of(rng: np.random.Generator, *shape: int) -> NDArray[np.int32]:
    return rng.integers(0, PIXEL_STEPS + 1, shape, np.int32)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
@pytest.mark.parametrize(("batch", "height", "width"), [(1, 1, 1), (2, 5, 6), (3, 1, 7)])
def test_shapes_and_whole_numbers(
    config: ModelConfig, batch: int, height: int, width: int, rng: np.random.Generator
) -> None:
    file = file_of(tiny_model(config), {})
    latents = file.encoder(pixels_of(rng, batch, height * config.stride, width * config.stride))
    assert latents.shape == (batch, height, width, config.code_dim)
    assert latents.dtype == np.float32
    np.testing.assert_array_equal(latents, np.rint(latents))
    pixels = file.decoder(latents)
    assert pixels.shape == (batch, height * config.stride, width * config.stride)
    assert pixels.dtype == np.uint16
    assert len(np.unique(pixels)) > 1 or pixels.size < 100


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
def test_the_arrays_are_those_that_are_documented(config: ModelConfig) -> None:
    arrays = model_arrays(tiny_model(config))
    shapes = {name: (array.shape, array.dtype.type) for name, array in arrays.items()}
    del shapes["quantizer.codebooks"]
    assert shapes == network_shapes(config)


def test_each_image_of_a_batch_passes_by_itself(file: ModelFile, rng: np.random.Generator) -> None:
    pixels = pixels_of(rng, 3, 40, 48)
    together = file.encoder(pixels)
    np.testing.assert_array_equal(
        together, np.concatenate([file.encoder(each[None]) for each in pixels])
    )
    decoded = file.decoder(together)
    np.testing.assert_array_equal(
        decoded, np.concatenate([file.decoder(each[None]) for each in together])
    )
    assert (decoded[0] != decoded[1]).any()


def test_rows_and_columns_stay_where_they_are(file: ModelFile) -> None:
    """A change in one cell's pixels changes the latents around that cell, and no others."""
    dark = np.zeros((1, 160, 240), np.int32)
    spot = dark.copy()
    spot[:, 3 * 8 : 4 * 8, 20 * 8 : 21 * 8] = PIXEL_STEPS  # the cell (3, 20)
    changed = np.argwhere((file.encoder(spot) != file.encoder(dark)).any(3)[0])
    assert np.abs(changed - [3, 20]).max() <= 5
    assert [3, 20] in changed.tolist()


def test_each_latent_vector_has_unit_root_mean_square(file: ModelFile, rng: np.random.Generator) -> None:
    for brightest in (PIXEL_STEPS, PIXEL_STEPS // 10, 1):
        latents = file.encoder(rng.integers(0, brightest + 1, (2, 40, 48), np.int32)) / LATENT_UNITS
        np.testing.assert_allclose(np.square(latents).mean(3), 1, atol=0.01)


def test_a_query_changes_neither_model_nor_image(file: ModelFile, rng: np.random.Generator) -> None:
    pixels = pixels_of(rng, 1, 40, 48)
    asked, arrays = pixels.copy(), {name: array.copy() for name, array in file.arrays.items()}
    latents = file.encoder(pixels)
    given = latents.copy()
    decoded = file.decoder(latents)
    np.testing.assert_array_equal(pixels, asked)
    np.testing.assert_array_equal(latents, given)
    for name, array in file.arrays.items():
        np.testing.assert_array_equal(array, arrays[name])
    np.testing.assert_array_equal(file.encoder(pixels), latents)
    np.testing.assert_array_equal(file.decoder(latents), decoded)


def test_pixels_stay_between_the_darkest_and_the_brightest(
    file: ModelFile, rng: np.random.Generator
) -> None:
    arrays = {name: array.copy() for name, array in file.arrays.items()}
    arrays["decoder.output.bias"][:2] = -(2**21), 2**21
    decoded = ModelFile(file.config, arrays, None, {}).decoder(np.zeros((1, 2, 2, 6), np.float32))
    assert {0, DECODED_STEPS} <= set(decoded.reshape(-1).tolist())
