"""The error of an image, fed back into its encoding."""

from pathlib import Path

import numpy as np
import pytest
from conftest import draw_phantom
from scipy.ndimage import uniform_filter

from oasisvq.codec.codec import Codec
from oasisvq.codec.feedback import FINE_SIDE, SMOOTH_SIDE, STANDS_OUT, with_feedback
from oasisvq.codec.networks import DECODED_STEPS, PIXEL_STEPS
from oasisvq.errors import ImageError


def test_half_of_the_smooth_error_and_what_stands_out_are_added(rng: np.random.Generator) -> None:
    pixels = rng.integers(1, PIXEL_STEPS + 1, (1, 48, 40), dtype=np.int32)
    pixels[0, :9] = 0
    decoded = rng.integers(0, DECODED_STEPS + 1, (48, 40), dtype=np.uint16)
    error = pixels[0] - decoded * (PIXEL_STEPS / DECODED_STEPS)
    smooth, fine = error, error
    for _ in range(2):
        smooth = uniform_filter(smooth, SMOOTH_SIDE, mode="constant")
        fine = uniform_filter(fine, FINE_SIDE, mode="constant")
    usual = STANDS_OUT**2 * np.square(fine[pixels[0] > 0]).mean()
    added = smooth / 2 + fine * fine**2 / (fine**2 + usual)
    wanted = np.clip(pixels[0] + added, 0, PIXEL_STEPS)
    found = with_feedback(pixels, decoded)
    assert found.shape == pixels.shape and found.dtype == np.int32
    inside = pixels[0] > 0
    assert np.abs(found[0] - wanted)[inside].max() <= 1


def test_a_small_spot_that_is_lost_is_added_nearly_whole() -> None:
    pixels = np.full((1, 64, 64), 500, np.int32)
    pixels[0, 30:37, 30:37] = 1000
    decoded = np.full((64, 64), 500 * DECODED_STEPS // PIXEL_STEPS, np.uint16)
    found = with_feedback(pixels, decoded)[0]
    assert 1350 < found[33, 33] < 1650
    assert np.abs(found - pixels[0])[:20, :20].max() <= 1


def test_ground_stays_ground_and_nothing_leaves_the_range() -> None:
    pixels = np.zeros((1, 32, 32), np.int32)
    pixels[0, 8:24, 8:24] = PIXEL_STEPS
    dark = with_feedback(pixels, np.zeros((32, 32), np.uint16))
    assert np.array_equal(dark, pixels)
    bright = with_feedback(pixels, np.full((32, 32), DECODED_STEPS, np.uint16))
    assert not bright[pixels == 0].any()
    assert bright.min() >= 0 and (bright < PIXEL_STEPS).any()


def test_what_is_decoded_without_error_is_encoded_as_it_is() -> None:
    pixels = np.full((1, 16, 16), PIXEL_STEPS, np.int32)
    assert np.array_equal(with_feedback(pixels, np.full((16, 16), DECODED_STEPS, np.uint16)), pixels)


def test_images_are_encoded_with_feedback(model_file: Path, rng: np.random.Generator) -> None:
    codec, image = Codec.load(model_file), draw_phantom(rng)
    with_it, without = codec.encode(image, 3), codec.encode(image, 3, feedback=False)
    assert with_it != without
    assert codec.encode_many([image], 3) == [with_it]
    assert codec.encode_many([image], 3, feedback=False) == [without]
    assert codec.decode(with_it).shape == codec.decode(without).shape == image.shape


def test_volumes_and_bounds_have_none(residue_model_file: Path, rng: np.random.Generator) -> None:
    codec = Codec.load(residue_model_file)
    image = draw_phantom(rng)
    volume = np.stack([draw_phantom(rng)[:32, :32] for _ in range(2)], axis=2)
    assert codec.encode(image, max_error=5) == codec.encode(image, max_error=5, feedback=False)
    spacing = (1.0, 1.0, 1.0)
    assert codec.encode(volume, spacing=spacing) == codec.encode(volume, spacing=spacing, feedback=False)


def test_a_demand_is_met_by_what_feedback_gives(model_file: Path, rng: np.random.Generator) -> None:
    codec, image = Codec.load(model_file), draw_phantom(rng)
    sizes = {levels: len(codec.encode(image, levels)) for levels in (1, 2, 3)}
    assert codec.encode(image, max_bytes=sizes[2]) == codec.encode(image, 2)
    with pytest.raises(ImageError, match="its smallest file takes"):
        codec.encode(image, max_bytes=min(sizes.values()) - 1)
