"""Scan slice <-> pixels."""

import numpy as np
import pytest
from conftest import draw_phantom
from numpy.typing import NDArray

from oasisvq.codec.pixels import (
    Box,
    Window,
    cells,
    centred_window,
    choose_window,
    content_box,
    from_pixels,
    smallest_centred_window,
    to_pixels,
    union,
)

STRIDES = (1, 2, 4, 8, 16)
SHAPES = ((1, 1), (1, 9), (7, 13), (16, 16), (33, 8), (65, 31), (40, 50))


def random_plane(
    rng: np.random.Generator, shape: tuple[int, int], dtype: type[np.unsignedinteger]
) -> NDArray[np.generic]:
    """A random box of noise on a ground of one level, at times at the borders, at times empty."""
    largest = int(np.iinfo(dtype).max)
    ground = int(rng.choice([0, 3, largest // 2, largest]))
    plane = np.full(shape, ground, dtype=dtype)
    top, bottom = np.sort(rng.integers(0, shape[0] + 1, size=2))
    left, right = np.sort(rng.integers(0, shape[1] + 1, size=2))
    inside = plane[top:bottom, left:right]
    inside[...] = rng.integers(ground, largest, inside.shape, endpoint=True)
    return plane


def extremes(plane: NDArray[np.generic]) -> tuple[int, int]:
    return int(plane.min()), int(plane.max())


def outside(window: Window, stride: int, shape: tuple[int, int]) -> NDArray[np.bool_]:
    beyond = np.ones(shape, dtype=bool)
    beyond[
        window.top * stride : (window.top + window.height) * stride,
        window.left * stride : (window.left + window.width) * stride,
    ] = False
    return beyond


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("stride", STRIDES)
def test_exact_grey_levels_come_back(
    shape: tuple[int, int], stride: int, dtype: type[np.unsignedinteger], rng: np.random.Generator
) -> None:
    for _ in range(8):
        plane = random_plane(rng, shape, dtype)
        preferred = stride * int(rng.integers(1, 5)), stride * int(rng.integers(1, 5))
        window = choose_window(plane, preferred, stride)
        pixels = to_pixels(plane, extremes(plane), window, stride)
        assert pixels.dtype == np.float64
        assert pixels.shape == (window.height * stride, window.width * stride)
        assert not pixels.size or (pixels.min() >= 0 and pixels.max() <= 1)
        restored = from_pixels(pixels, extremes(plane), window, stride, shape, plane.dtype)
        assert restored.dtype == dtype
        np.testing.assert_array_equal(restored, plane)


def test_every_grey_level_of_16_bits_comes_back() -> None:
    plane = np.arange(65_536, dtype=np.uint16).reshape(256, 256)
    window = Window(0, 0, 32, 32)
    for low, high in ((0, 65_535), (0, 65_534), (1, 65_535)):
        clipped = np.clip(plane, low, high)
        pixels = to_pixels(clipped, (low, high), window, 8)
        np.testing.assert_array_equal(
            from_pixels(pixels, (low, high), window, 8, (256, 256), plane.dtype), clipped
        )


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("shape", SHAPES)
def test_all_content_is_in_the_window_and_the_window_in_the_grid(
    shape: tuple[int, int], dtype: type[np.unsignedinteger], rng: np.random.Generator
) -> None:
    for stride in STRIDES:
        for preferred in ((stride, stride), (2 * stride, 5 * stride), (64, 64)):
            plane = random_plane(rng, shape, dtype)
            window = choose_window(plane, preferred, stride)
            assert (plane[outside(window, stride, shape)] == plane.min()).all()
            assert min(window) >= 0
            assert window.top + window.height <= cells(shape[0], stride)
            assert window.left + window.width <= cells(shape[1], stride)


def test_the_ground_comes_back_exactly_whatever_the_pixels(rng: np.random.Generator) -> None:
    plane = draw_phantom(rng) + np.uint8(4)
    plane[plane < 4] = 255
    window = choose_window(plane, (40, 48), 8)
    noise = rng.uniform(-1, 2, (window.height * 8, window.width * 8)).astype(np.float32)
    restored = from_pixels(noise, (4, 255), window, 8, plane.shape, plane.dtype)
    ground = outside(window, 8, plane.shape)
    assert ground.any()
    np.testing.assert_array_equal(restored[ground], plane[ground])
    assert restored[~ground].min() == 4  # pixels beyond [0, 1] are clipped, and do not wrap
    assert restored[~ground].max() == 255


def test_cells_beyond_the_image_repeat_its_border() -> None:
    plane = np.array([[0, 10], [20, 30], [40, 100]], dtype=np.uint8)
    pixels = to_pixels(plane, (0, 100), Window(0, 0, 1, 1), 4)
    expected = [[0, 10, 10, 10], [20, 30, 30, 30], [40, 100, 100, 100], [40, 100, 100, 100]]
    np.testing.assert_allclose(pixels, np.array(expected) / 100, rtol=1e-6)


def test_pixels_are_rounded_to_the_nearest_grey_level() -> None:
    pixels = np.array([[0.0, 0.4, 0.6, 1.0]], dtype=np.float32) / np.float32(100)
    restored = from_pixels(pixels, (50, 150), Window(0, 0, 1, 4), 1, (1, 4), np.dtype(np.uint8))
    assert restored.tolist() == [[50, 50, 51, 51]]


@pytest.mark.parametrize("level", [0, 9, 255])
@pytest.mark.parametrize("shape", [(1, 1), (5, 7), (64, 64), (100, 90)])
def test_a_constant_plane_comes_back(shape: tuple[int, int], level: int) -> None:
    plane = np.full(shape, level, dtype=np.uint8)
    assert content_box(plane) == Box(0, 0, 0, 0)
    nothing = choose_window(plane, (40, 48), 8)
    assert nothing == Window(0, 0, 0, 0)
    for window in (nothing, centred_window(shape, (40, 48), 8)):
        pixels = to_pixels(plane, (level, level), window, 8)
        assert not pixels.any()
        noise = np.ones_like(pixels)
        np.testing.assert_array_equal(
            from_pixels(noise, (level, level), window, 8, shape, plane.dtype), plane
        )


def test_the_content_box_is_the_smallest(rng: np.random.Generator) -> None:
    for _ in range(100):
        plane = random_plane(rng, (9, 14), np.uint8)
        box = content_box(plane)
        bright = np.argwhere(plane > plane.min())
        if not len(bright):
            assert box == (0, 0, 0, 0)
            continue
        assert (box.top, box.left) == tuple(bright.min(axis=0))
        assert (box.bottom, box.right) == tuple(bright.max(axis=0) + 1)


def test_the_preferred_window_is_taken_where_it_holds_the_content() -> None:
    plane = np.zeros((64, 64), dtype=np.uint8)
    plane[30, 30] = 9
    centred = Window(2, 1, 4, 6)  # 32×48 pixels in the middle of 8×8 cells
    assert centred_window((64, 64), (32, 48), 8) == centred
    assert choose_window(plane, (32, 48), 8) == centred
    for row, column in ((16, 30), (47, 30), (30, 8), (30, 55)):  # the window's borders
        touching = plane.copy()
        touching[row, column] = 9
        assert choose_window(touching, (32, 48), 8) == centred


@pytest.mark.parametrize(
    ("row", "column", "expected"),
    [
        (15, 30, Window(1, 3, 3, 1)),
        (48, 30, Window(3, 3, 4, 1)),
        (30, 7, Window(3, 0, 1, 4)),
        (30, 56, Window(3, 3, 1, 5)),
        (0, 0, Window(0, 0, 4, 4)),
        (63, 63, Window(3, 3, 5, 5)),
    ],
)
def test_else_the_cells_that_the_content_touches(row: int, column: int, expected: Window) -> None:
    plane = np.zeros((64, 64), dtype=np.uint8)
    plane[30, 30] = plane[row, column] = 9
    assert choose_window(plane, (32, 48), 8) == expected


def test_a_smaller_image_is_coded_whole() -> None:
    assert centred_window((9, 70), (32, 48), 8) == Window(0, 1, 2, 6)
    assert centred_window((3, 3), (32, 48), 8) == Window(0, 0, 1, 1)


@pytest.mark.parametrize("stride", [1, 2, 8])
def test_the_smallest_centred_window_holds_the_box_and_none_smaller_does(
    stride: int, rng: np.random.Generator
) -> None:
    shape = 37, 50

    def holds(size: tuple[int, int], box: Box) -> tuple[bool, bool]:
        window = centred_window(shape, size, stride)
        return (
            window.top * stride <= box.top and (window.top + window.height) * stride >= box.bottom,
            window.left * stride <= box.left and (window.left + window.width) * stride >= box.right,
        )

    for _ in range(60):
        top, bottom = (int(row) for row in np.sort(rng.choice(shape[0] + 1, size=2, replace=False)))
        left, right = (int(side) for side in np.sort(rng.choice(shape[1] + 1, size=2, replace=False)))
        box = Box(top, left, bottom, right)
        height, width = smallest_centred_window(shape, box, stride)
        assert holds((height, width), box) == (True, True)
        assert not any(holds((h, width), box)[0] for h in range(stride, height, stride))
        assert not any(holds((height, w), box)[1] for w in range(stride, width, stride))


def test_a_union_holds_both_boxes() -> None:
    assert union(Box(1, 5, 3, 9), Box(2, 4, 8, 6)) == Box(1, 4, 8, 9)


def test_cells_cover_a_side() -> None:
    assert [cells(pixels, 8) for pixels in (1, 7, 8, 9, 256, 257)] == [1, 1, 1, 2, 32, 33]
