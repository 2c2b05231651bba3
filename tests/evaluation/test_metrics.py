"""How near a restored image is to its original."""

import math

import numpy as np
import pytest
from conftest import draw_phantom
from scipy.ndimage import correlate1d
from skimage.metrics import structural_similarity

from oasisvq.evaluation.metrics import (
    BEST_PSNR,
    Overlap,
    overlap,
    psnr,
    similarity,
    snap,
)


def noisy(plane: np.ndarray, rng: np.random.Generator, deviation: float = 12) -> np.ndarray:
    noise = rng.normal(0, deviation, plane.shape)
    return np.clip(np.rint(plane + noise), 0, 255).astype(np.uint8)


def ssim_by_hand(first: np.ndarray, second: np.ndarray, data_range: float) -> np.ndarray:
    """The map of Wang et al. 2004, eq. 13: an 11×11 Gaussian of 1.5, K1 = 0.01, K2 = 0.03."""
    weights = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    weights /= weights.sum()

    def mean(plane: np.ndarray) -> np.ndarray:
        return correlate1d(correlate1d(plane, weights, axis=0), weights, axis=1)

    x, y = first.astype(float), second.astype(float)
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    covariance = mean(x * y) - mean(x) * mean(y)
    variances = mean(x * x) - mean(x) ** 2 + mean(y * y) - mean(y) ** 2
    return ((2 * mean(x) * mean(y) + c1) * (2 * covariance + c2)) / (
        (mean(x) ** 2 + mean(y) ** 2 + c1) * (variances + c2)
    )


@pytest.mark.parametrize("shape", [(11, 11), (64, 64), (40, 71)])
def test_ssim_is_scikit_image_s_and_the_paper_s(
    shape: tuple[int, int], rng: np.random.Generator
) -> None:
    original = draw_phantom(rng, *shape, margin=2)
    restored = noisy(original, rng)
    scored = similarity(original, restored, 255)
    assert scored.ssim == pytest.approx(
        structural_similarity(
            original,
            restored,
            data_range=255,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        ),
        abs=1e-12,
    )
    inner = slice(5, -5), slice(5, -5)
    by_hand = ssim_by_hand(original, restored, 255)[inner]
    assert scored.ssim == pytest.approx(by_hand.mean(), abs=1e-9)
    foreground = original[inner] > 20
    assert scored.foreground_ssim == pytest.approx(by_hand[foreground].mean(), abs=1e-9)
    assert scored.ssim < 1


def test_an_image_equals_itself(rng: np.random.Generator) -> None:
    plane = draw_phantom(rng)
    assert similarity(plane, plane.copy(), 255) == (1.0, 1.0, BEST_PSNR)


def test_the_scale_of_16_bits_makes_no_difference(rng: np.random.Generator) -> None:
    original = draw_phantom(rng)
    restored = noisy(original, rng)
    deep = similarity(original.astype(np.uint16) * 257, restored.astype(np.uint16) * 257, 65_535)
    assert deep == pytest.approx(similarity(original, restored, 255), rel=1e-9)


def test_foreground_ssim_looks_at_the_foreground_alone() -> None:
    original = np.zeros((80, 80), dtype=np.uint8)
    original[10:30, 10:30] = 200
    beside, within = original.copy(), original.copy()
    beside[60:75, 60:75] = 120  # further from the foreground than a window reaches
    within[15:25, 15:25] = 120
    scored = similarity(original, beside, 255)
    assert scored.foreground_ssim == 1
    assert scored.ssim < 0.97
    assert similarity(original, within, 255).foreground_ssim < 0.9


def test_the_foreground_is_the_original_s_and_above_20_of_255() -> None:
    faint, bright = np.full((2, 20, 20), 20, dtype=np.uint8)
    bright[8:12, 8:12] = 21
    assert math.isnan(similarity(faint, bright, 255).foreground_ssim)
    assert similarity(bright, faint, 255).foreground_ssim > 0.9
    border = np.zeros((20, 20), dtype=np.uint8)
    border[:5] = border[:, -5:] = 200  # where scikit-image does not look either
    assert math.isnan(similarity(border, faint, 255).foreground_ssim)


def test_psnr_by_hand() -> None:
    plane = np.full((4, 5), 100.0)
    assert psnr(plane, plane + 1, 255) == pytest.approx(20 * math.log10(255))
    assert psnr(plane, plane - 10, 100) == pytest.approx(20)
    half = plane.copy()
    half[:2] += 2
    assert psnr(plane, half, 255) == pytest.approx(10 * math.log10(255**2 / 2))
    assert psnr(plane, plane, 255) == BEST_PSNR
    assert psnr(plane, plane + 1e-9, 255) == BEST_PSNR


def test_differences_of_unsigned_levels_do_not_wrap() -> None:
    dark, bright = np.zeros((11, 11), dtype=np.uint8), np.full((11, 11), 255, dtype=np.uint8)
    assert similarity(dark, bright, 255).psnr == similarity(bright, dark, 255).psnr == 0


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_snap_gives_the_nearest_label(dtype: type[np.unsignedinteger]) -> None:
    labels = np.array([0, 85, 170, 255], dtype=np.uint8)
    restored = np.arange(256, dtype=dtype)
    snapped = snap(restored, labels)
    assert snapped.dtype == labels.dtype
    distances = np.abs(restored[:, None].astype(int) - labels[None])
    assert (np.abs(snapped.astype(int) - restored) == distances.min(axis=1)).all()
    np.testing.assert_array_equal(snap(labels.astype(dtype), labels), labels)


def test_snap_keeps_the_shape_and_knows_a_single_label() -> None:
    plane = np.array([[0, 90], [200, 255]], dtype=np.uint8)
    assert snap(plane, np.array([0, 100], dtype=np.uint8)).tolist() == [[0, 100], [100, 100]]
    assert snap(plane, np.array([7], dtype=np.uint8)).tolist() == [[7, 7], [7, 7]]


def test_dice_by_hand() -> None:
    original = np.array([[0, 85, 85], [170, 85, 0]])
    restored = np.array([[0, 85, 170], [170, 85, 85]])
    assert overlap(original, restored, 85) == Overlap(both=2, original=3, restored=3)
    assert overlap(original, restored, 85).dice == pytest.approx(2 / 3)
    assert overlap(original, restored, 170).dice == pytest.approx(2 / 3)
    assert overlap(original, restored, 0).dice == pytest.approx(2 / 3)
    assert overlap(original, original, 85).dice == 1
    assert overlap(original, np.zeros_like(original), 85).dice == 0


def test_dice_of_a_label_that_neither_has_is_no_number() -> None:
    assert math.isnan(overlap(np.zeros((3, 3)), np.zeros((3, 3)), 85).dice)


def test_overlaps_add_up_over_slices(rng: np.random.Generator) -> None:
    original, restored = rng.choice([0, 85, 170], size=(2, 6, 9, 9))
    each = [overlap(first, second, 85) for first, second in zip(original, restored, strict=True)]
    assert Overlap(*np.sum(each, axis=0).tolist()) == overlap(original, restored, 85)
