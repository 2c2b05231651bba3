"""Colours with a meaning: of codes by their vectors, of errors by their sign, of labels, and of series.

Shapes: K codes, D code dimension, N colours; colours are (N, 3) of sRGB in [0, 1].

Distances are those of CIELAB, in which equal steps look about equal.
"""

import numpy as np
from numpy.typing import NDArray
from skimage.color import lab2rgb

Colours = NDArray[np.float64]

# by Okabe and Ito (2008), which all kinds of colour vision tell apart; darkened to be visible on white
SERIES = ("#0072b2", "#d55e00", "#009e73", "#b4589a", "#a07a00", "#3f8fc4", "#7a5bd0", "#8a6d5a")
NEUTRAL = 0.82  # grey level of places without a code: no code is so colourless
_LIGHTNESS = 25.0, 95.0  # of codes, from the least to the greatest first component
_CHROMA = 75.0
_SPREAD = 1.5  # standard deviations of the first component to a unit, before tanh
_HALVINGS = 12
_ERROR_ENDS = (36.0, 12.0, -54.0), (36.0, 54.0, 32.0)  # L*, a*, b* of too dark, too bright
_ERROR_MIDDLE = 97.0, 0.0, 0.0
_RAMP_HUES = 260, 425  # degrees of a*, b*
_GOLDEN_ANGLE = np.pi * (3 - np.sqrt(5))


def code_colours(codebook: NDArray[np.floating]) -> Colours:
    """(K, D) code vectors -> (K, 3): similar vectors get similar colours, no two of which are equal.

    The three strongest principal components become L*, a* and b* on one scale, so that distances between
    colours reflect those along the components. Colours depend on the codebook alone.
    """
    components = principal_components(codebook, 3)
    scale = _SPREAD * max(float(components[:, 0].std()), 1e-12)
    lightness, across, along = np.tanh(components / scale).T  # in [-1, 1]
    # from a square to a disc of hues, so that corners are not more colourful
    hues = np.stack(
        [across * np.sqrt(1 - np.square(along) / 2), along * np.sqrt(1 - np.square(across) / 2)], axis=1
    )
    low, high = _LIGHTNESS
    return _distinct(_displayable(low + (high - low) * (lightness + 1) / 2, _CHROMA * hues))


def _distinct(colours: Colours) -> Colours:
    """The nearest colours of 8 bits per channel of which no two are equal."""
    channels = np.rint(255 * colours).astype(np.int64)
    channels[:, 2] = np.minimum(channels[:, 2], 245)  # so that a few steps stay within blue
    numbers = channels @ (1 << 16, 1 << 8, 1)
    order, steps = numbers.argsort(kind="stable"), np.arange(len(numbers))
    numbers[order] = np.maximum.accumulate(numbers[order] - steps) + steps
    distinct: Colours = (numbers[:, None] >> (16, 8, 0) & 255) / 255
    return distinct


def principal_components(points: NDArray[np.floating], count: int) -> NDArray[np.float64]:
    """(N, D) points -> (N, count) coordinates along their strongest directions, zeros beyond D.

    The sign of a direction is fixed: its largest entry is positive.
    """
    centred = points.astype(np.float64) - points.mean(0)
    _, _, directions = np.linalg.svd(centred, full_matrices=False)
    directions = directions[:count]
    largest = np.abs(directions).argmax(1)[:, None]
    directions = directions * np.where(np.take_along_axis(directions, largest, 1) < 0, -1, 1)
    coordinates: NDArray[np.float64] = centred @ directions.T
    return np.pad(coordinates, ((0, 0), (0, count - coordinates.shape[1])))


def _displayable(lightness: NDArray[np.float64], hues: NDArray[np.float64]) -> Colours:
    """L* (N,) and a*, b* (N, 2) -> sRGB, as colourful as asked for, or as a screen can show."""
    low, high = np.zeros(len(hues)), np.ones(len(hues))
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        fits = _is_shown(lightness, hues * middle[:, None])
        low, high = np.where(fits, middle, low), np.where(fits, high, middle)
    return _to_rgb(np.column_stack([lightness, hues * low[:, None]]))


def _is_shown(lightness: NDArray[np.float64], hues: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether no channel of these colours is clipped."""
    rgb = _to_rgb(np.column_stack([lightness, hues]))
    shown: NDArray[np.bool_] = (rgb.min(1) > 0) & (rgb.max(1) < 1)
    return shown


def _to_rgb(lab: NDArray[np.float64]) -> Colours:
    """CIELAB (N, 3) -> sRGB, clipped to what a screen can show."""
    with np.errstate(invalid="ignore"):
        rgb: Colours = lab2rgb(lab[None])[0]
    return rgb.clip(0, 1)


def error_colours(steps: int = 255) -> Colours:
    """From blue (too dark) through near white (no error) to red (too bright), equally steep in L*."""
    middle = np.array(_ERROR_MIDDLE)
    place = np.linspace(-1, 1, steps)[:, None]
    below, above = (np.array(end) for end in _ERROR_ENDS)
    return _to_rgb(middle + np.where(place < 0, -place * (below - middle), place * (above - middle)))


def label_colours(count: int) -> Colours:
    """Colours of labels in order: the first is black, the others differ in hue and lightness."""
    number = np.arange(1, count)
    angles = number * _GOLDEN_ANGLE
    lightness = 45 + 35 * (number % 3) / 2
    hues = 60 * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return np.concatenate([np.zeros((1, 3)), _displayable(lightness, hues)])


def ramp(count: int) -> Colours:
    """(count, 3) colours in order, from blue through purple to orange, all about equally light."""
    angles = np.radians(np.linspace(*_RAMP_HUES, count))
    hues = 70 * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return _displayable(np.full(count, 55.0), hues)


def level_colour(level: int, levels: int) -> tuple[float, float, float]:
    """From blue through purple to orange, equally light, so that each is visible on white and black."""
    red, green, blue = ramp(levels)[level]
    return float(red), float(green), float(blue)
