"""How near a restored scan is to its original."""

import math
from pathlib import Path

import numpy as np
import pytest
from conftest import draw_phantom, draw_volume
from scipy.ndimage import correlate1d
from skimage.metrics import structural_similarity

import oasisvq
from oasisvq.codec import container, particular
from oasisvq.codec.content import Content
from oasisvq.codec.measure import BEST_PSNR, Measure, measure, psnr, scale_of, similarity
from oasisvq.codec.wish import Wish
from oasisvq.scans.scan import Scan, as_scan


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


@pytest.mark.parametrize("side", [11, 12, 33])
def test_a_single_pixel_that_differs_anywhere_counts(side: int, rng: np.random.Generator) -> None:
    plane = rng.integers(0, 255, (side, side)).astype(np.uint8)
    for place in ((0, 0), (5, 5), (side - 1, 3), (side // 2, side - 6)):
        other = plane.copy()
        other[place] ^= 64
        expected = ssim_by_hand(plane, other, 255)[5:-5, 5:-5].mean()
        assert similarity(plane, other, 255).ssim == pytest.approx(expected, abs=1e-12)


def test_an_image_of_8_bits_is_measured_on_255_and_other_scans_on_their_own_range(
    rng: np.random.Generator,
) -> None:
    plane = draw_phantom(rng) // 2
    assert scale_of(Scan(plane[None]))[:2] == (0, 255)
    deep = plane.astype(np.uint16) * 10 + 3
    deep[0, 0] = 60_000  # one bright pixel does not stretch it
    low, wide, _ = scale_of(Scan(deep[None]))
    assert (low, wide) == (3, pytest.approx(np.quantile(deep, 0.999) - 3))
    assert scale_of(Scan(np.full((1, 20, 20), 7, np.uint16)))[:2] == (7, 1)


def test_a_volume_is_measured_slice_by_slice_and_nan_is_the_darkest(rng: np.random.Generator) -> None:
    voxels = draw_volume(rng).astype(np.float32)
    voxels[:3] = np.nan
    scan = as_scan(voxels, spacing=(1, 1, 1))
    restored = scan.planes + np.float32(2)
    restored[2] += rng.normal(0, 60, restored[2].shape).astype(np.float32)
    found = measure(scan, restored)
    scale = scale_of(scan)
    known = np.nan_to_num(scan.planes, nan=scan.intensity[0])
    again = np.nan_to_num(restored, nan=scan.intensity[0])
    each = [
        similarity(first - scale.low, second - scale.low, scale.range)
        for first, second in zip(known, again, strict=True)
    ]
    assert found.ssim == pytest.approx(np.mean([one.ssim for one in each]), abs=1e-6)
    assert found.worst_slice == int(np.argmin([one.ssim for one in each])) == 2
    assert found.largest_error == pytest.approx(np.abs(known - again).max())
    assert found.data_range == scale.range
    assert "largest error" in found.words and f"range of {scale.range:.6g}" in found.words


def test_slices_too_small_for_ssim_still_have_a_psnr() -> None:
    scan = Scan(np.arange(80, dtype=np.uint8).reshape(1, 8, 10))
    found = measure(scan, scan.planes + np.uint8(1))
    assert math.isnan(found.ssim) and math.isnan(found.worst_ssim)
    assert found.psnr == pytest.approx(20 * math.log10(255))
    assert found.words == "PSNR 48.13 dB, largest error 1, on a range of 255"
    assert found.as_dict()["ssim"] is None
    assert measure(scan, scan.planes).words == "equal to the original"
    assert isinstance(found, Measure)


def test_measuring_decodes_no_ground_that_is_known(
    residue_model_file: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    codec = oasisvq.load(residue_model_file)
    plane = draw_phantom(rng).astype(np.int16)[..., None] - 7
    plane[0, 0] = -50  # so that ground is not the darkest
    scan = as_scan(plane, (1, 1, 1))
    encoded = codec.encode_seen(scan, Wish(content=Content.SCAN))
    assert encoded.header.ground
    expected = codec.decode_codes(codec.codes_of(container.read(encoded.content, "x")), "x").planes
    monkeypatch.setattr(particular, "decode_support", lambda payload, shape: 1 / 0)
    np.testing.assert_array_equal(encoded.restore().planes, expected)
