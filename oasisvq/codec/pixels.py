"""Scan slice <-> pixels: normalise, choose the window, cut and pad <-> crop.

Shapes: H×W image, h×w grid of cells, stride² pixels to a cell.

Pixels are float64 in [0, 1]: 0 is the darkest grey level of the image, 1 the brightest. They are
computed and turned back by single operations that IEEE 754 rounds, so they are the same on every
machine. MRI slices lie on a ground of exactly the darkest level. Only a window of whole cells around
everything brighter is coded, and the ground around the window comes back exactly.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Window(NamedTuple):
    """A rectangle of grid cells; the cell (0, 0) starts at the image's first pixel."""

    top: int
    left: int
    height: int
    width: int


NOTHING = Window(0, 0, 0, 0)


class Box(NamedTuple):
    """A rectangle of pixels, `bottom` and `right` excluded."""

    top: int
    left: int
    bottom: int
    right: int


def cells(pixels: int, stride: int) -> int:
    """How many cells cover a side of `pixels` pixels."""
    return -(-pixels // stride)


def content_box(planes: NDArray[np.generic]) -> Box:
    """The smallest box that holds every value above the smallest one, in any plane of (..., H, W).

    A constant array gives an empty box at its first pixel.
    """
    low, bright = planes.min(), np.zeros(planes.shape[-2:], np.bool_)
    for plane in planes[None] if planes.ndim == 2 else planes:
        bright |= plane > low
    rows, columns = np.flatnonzero(bright.any(axis=1)), np.flatnonzero(bright.any(axis=0))
    if not len(rows):
        return Box(0, 0, 0, 0)
    return Box(int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1)


def union(first: Box, second: Box) -> Box:
    """The smallest box that holds both."""
    return Box(
        min(first.top, second.top),
        min(first.left, second.left),
        max(first.bottom, second.bottom),
        max(first.right, second.right),
    )


def centred_window(shape: tuple[int, int], size: tuple[int, int], stride: int) -> Window:
    """The window of `size` pixels in the middle of an image of `shape`, or all of a smaller one."""
    grid = cells(shape[0], stride), cells(shape[1], stride)
    height, width = min(size[0] // stride, grid[0]), min(size[1] // stride, grid[1])
    return Window((grid[0] - height) // 2, (grid[1] - width) // 2, height, width)


def _holds(window: Window, box: Box, stride: int) -> bool:
    return (
        window.top * stride <= box.top
        and window.left * stride <= box.left
        and (window.top + window.height) * stride >= box.bottom
        and (window.left + window.width) * stride >= box.right
    )


def choose_window(planes: NDArray[np.generic], preferred: tuple[int, int], stride: int) -> Window:
    """The window to code of an image (H, W), or of all slices of a volume (slices, H, W).

    It is the centred window of the `preferred` size (pixels) if that holds all content, so that slices
    of one kind share a grid; else the cells that the content touches; empty for a constant image.
    """
    box = content_box(planes)
    if box.bottom == 0:
        return NOTHING
    window = centred_window((planes.shape[-2], planes.shape[-1]), preferred, stride)
    if _holds(window, box, stride):
        return window
    top, left = box.top // stride, box.left // stride
    return Window(top, left, cells(box.bottom, stride) - top, cells(box.right, stride) - left)


def smallest_centred_window(shape: tuple[int, int], box: Box, stride: int) -> tuple[int, int]:
    """Height and width in pixels of the smallest centred window that holds `box`."""
    sides = []
    for length, low, high in ((shape[0], box.top, box.bottom), (shape[1], box.left, box.right)):
        grid = cells(length, stride)
        side = 1
        while side < grid:
            start = (grid - side) // 2
            if start * stride <= low and (start + side) * stride >= high:
                break
            side += 1
        sides.append(side * stride)
    return sides[0], sides[1]


def to_pixels(
    plane: NDArray[np.generic], intensity: tuple[float, float], window: Window, stride: int
) -> NDArray[np.float64]:
    """Cut the window out of an (H, W) plane and scale `intensity` (low, high) to [0, 1].

    Cells that reach beyond the image repeat its last row and column.

    Returns:
        (height·stride, width·stride) float64.
    """
    low, high = intensity
    top, left = window.top * stride, window.left * stride
    height, width = window.height * stride, window.width * stride
    cut = plane[top : top + height, left : left + width]
    scaled = (cut.astype(np.float64) - low) / (high - low if high > low else 1.0)
    beyond = ((0, height - cut.shape[0]), (0, width - cut.shape[1]))
    return np.pad(scaled, beyond, mode="edge")


def from_pixels(
    pixels: NDArray[np.float64],
    intensity: tuple[float, float],
    window: Window,
    stride: int,
    shape: tuple[int, int],
    dtype: np.dtype[np.generic],
) -> NDArray[np.generic]:
    """The inverse of `to_pixels`: scale back, round for integer types, lay on the darkest value.

    Returns:
        An array of `shape` and the integer or float type `dtype`.
    """
    low, high = intensity
    is_whole = dtype.kind in "iu"
    plane = np.full(shape, round(low) if is_whole else low, dtype=dtype)
    top, left = window.top * stride, window.left * stride
    inside = plane[top : top + window.height * stride, left : left + window.width * stride]
    values = np.clip(pixels.astype(np.float64), 0, 1) * (high - low) + low
    values = np.clip(values, low, high)  # with large numbers, the sum may be rounded beyond these
    values = values[: inside.shape[0], : inside.shape[1]]
    inside[...] = np.rint(values) if is_whole else values
    return plane
