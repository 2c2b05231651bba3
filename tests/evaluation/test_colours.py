"""Colours follow vectors, signs and order."""

import numpy as np
import pytest
from skimage.color import rgb2lab

from oasisvq.evaluation.colours import (
    SERIES,
    code_colours,
    error_colours,
    label_colours,
    principal_components,
    ramp,
)


def far(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """How different colours look."""
    return np.linalg.norm(rgb2lab(first) - rgb2lab(second), axis=-1)


def test_similar_codes_have_similar_colours(rng: np.random.Generator) -> None:
    centres = rng.normal(size=(6, 8)) * 5
    codebook = np.repeat(centres, 10, axis=0) + rng.normal(size=(60, 8)) * 0.05
    order = rng.permutation(60)
    colours = code_colours(codebook[order].astype(np.float32))[np.argsort(order)]
    groups = colours.reshape(6, 10, 3)
    within = max(float(far(group, group[:1]).max()) for group in groups)
    between = min(float(far(groups[a], groups[b]).min()) for a in range(6) for b in range(a))
    assert 3 * within < between


def test_colours_depend_on_the_codebook_alone(rng: np.random.Generator) -> None:
    codebook = rng.normal(size=(256, 32)).astype(np.float32)
    colours = code_colours(codebook)
    assert colours.shape == (256, 3)
    assert colours.min() >= 0
    assert colours.max() <= 1
    assert len(np.unique(np.rint(255 * colours), axis=0)) == 256
    np.testing.assert_array_equal(code_colours(codebook.copy()), colours)
    order = rng.permutation(256)
    np.testing.assert_allclose(code_colours(codebook[order]), colours[order], atol=1e-3)


@pytest.mark.parametrize("shape", [(2, 1), (3, 2), (5, 1)])
def test_small_codebooks_have_colours_too(shape: tuple[int, int], rng: np.random.Generator) -> None:
    colours = code_colours(rng.normal(size=shape))
    assert len(np.unique(np.rint(255 * colours), axis=0)) == shape[0]
    assert np.isfinite(code_colours(np.zeros(shape))).all()


def test_principal_components_have_one_sign(rng: np.random.Generator) -> None:
    points = rng.normal(size=(50, 4)) * (5, 2, 1, 0.1)
    first = principal_components(points, 2)
    assert np.corrcoef(first[:, 0], points[:, 0])[0, 1] > 0.99
    np.testing.assert_allclose(principal_components(points + 7, 2), first, atol=1e-9)


def test_errors_are_blue_below_and_red_above_and_equally_dark() -> None:
    colours = error_colours(5)
    assert colours[0, 2] > colours[0, 0]
    assert colours[-1, 0] > colours[-1, 2]
    assert np.ptp(colours[2]) < 0.02
    lightness = rgb2lab(colours)[:, 0]
    np.testing.assert_allclose(lightness, lightness[::-1], atol=3)
    assert lightness[2] > lightness[1] > lightness[0]


def test_labels_differ_and_the_first_is_black() -> None:
    colours = label_colours(8)
    assert not colours[0].any()
    assert min(far(colours[a], colours[b]) for a in range(8) for b in range(a)) > 15


def test_lines_stand_on_white_and_on_black() -> None:
    assert len(set(SERIES)) == len(SERIES)
    lightness = rgb2lab(ramp(8))[:, 0]
    assert lightness.min() > 45
    assert lightness.max() < 65
