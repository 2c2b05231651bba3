"""Fixed slices, original and decoded -> panel.png.

Shapes: S slices, H×W window.
"""

import io
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from oasisvq.data.dataset import SliceRecord

SLICES = 4
ERROR_GAIN = 4.0
TILE_WIDTH = 160  # narrower windows are enlarged to about this
GAP, LINE = 6, 14  # pixels
GROUND, INK = 24, 230


class Column(NamedTuple):
    """One column of a panel: a name, pixels (S, H, W) in [0, 1], and a caption below each slice."""

    name: str
    pixels: NDArray[np.float32]
    captions: Sequence[str] = ()


def fixed_slices(records: Sequence[SliceRecord], count: int = SLICES) -> list[int]:
    """Places of the middle slices of some evenly spaced subjects; the same ones every time."""
    places: dict[str, list[int]] = {}
    for place, record in enumerate(records):
        places.setdefault(record.subject, []).append(place)
    subjects = list(places.values())
    chosen = np.linspace(0, len(subjects) - 1, min(count, len(subjects))).round().astype(int)
    middles = []
    for subject in chosen:
        by_height = sorted(subjects[subject], key=lambda place: records[place].slice_number)
        middles.append(by_height[len(by_height) // 2])
    return middles


def error_column(name: str, original: NDArray[np.float32], decoded: NDArray[np.float32]) -> Column:
    """The absolute difference, brightened."""
    error = np.abs(original - decoded)
    captions = [f"mean {each:.4f}" for each in error.mean((1, 2))]
    return Column(f"error x{ERROR_GAIN:g}, {name}", error * ERROR_GAIN, captions)


def draw_panel(title: str, columns: Sequence[Column]) -> bytes:
    """A PNG with a row for each slice, and these columns."""
    count, height, width = columns[0].pixels.shape
    scale = max(1, round(TILE_WIDTH / width))
    tall, wide = height * scale, width * scale
    size = GAP + len(columns) * (wide + GAP), GAP + 2 * LINE + count * (tall + LINE + GAP)
    picture = Image.new("L", size, GROUND)
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default()
    pen.text((GAP, GAP), title, INK, font)
    for across, column in enumerate(columns):
        left = GAP + across * (wide + GAP)
        pen.text((left, GAP + LINE), column.name, INK, font)
        for down, pixels in enumerate(column.pixels):
            top = GAP + 2 * LINE + down * (tall + LINE + GAP)
            tile = np.rint(np.clip(pixels, 0, 1) * 255).astype(np.uint8)
            tile = tile.repeat(scale, 0).repeat(scale, 1)
            picture.paste(Image.fromarray(tile), (left, top))
            if column.captions:
                pen.text((left, top + tall), column.captions[down], INK, font)
    content = io.BytesIO()
    picture.save(content, "PNG")
    return content.getvalue()
