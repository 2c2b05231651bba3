"""Draws `scan.png`: a head that nobody has, in the manner of an OASIS slice.

Rows run left to right and columns back to front; scalp, skull, cerebrospinal fluid, grey and white
matter are level sets of ellipses bent by smooth noise. Air around the head is faint noise, and the
ground outside the field of view is exactly 0.

    python examples/draw_scan.py scan.png
"""

import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter

SIZE = 256
MIDDLE = (SIZE - 1) / 2


def smooth_noise(rng: np.random.Generator, scale: float) -> NDArray[np.float64]:
    """A (SIZE, SIZE) random field with structures of `scale` pixels, standard deviation 1."""
    field = gaussian_filter(rng.normal(size=(SIZE, SIZE)), scale)
    return field / field.std()


def mirrored(field: NDArray[np.float64]) -> NDArray[np.float64]:
    """Nearly symmetric about the middle row, as two hemispheres are."""
    return 0.75 * (field + field[::-1]) / np.sqrt(2) + 0.4 * field


def draw(seed: int = 2026) -> NDArray[np.uint8]:
    """The picture, (256, 256) uint8."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:SIZE, :SIZE] - MIDDLE
    bend = 1 + 0.012 * smooth_noise(rng, 30)
    radius = np.hypot(rows / 79, columns / 98) * bend  # 1 at the outer rim of the head

    folds = mirrored(smooth_noise(rng, 3.2)) + 0.6 * mirrored(smooth_noise(rng, 6))
    depth = (0.86 - radius) * 88  # pixels below the surface of the brain
    fissure = np.exp(-((rows + smooth_noise(rng, 12)) ** 2) / 5) * (np.abs(columns) > 30)
    grey_or_white = depth - 7 - 4.2 * np.abs(folds) * np.exp(-((depth / 26) ** 2)) - 9 * fissure
    sulci = depth - 3.4 * np.clip(folds - 0.7, 0, None) * np.exp(-((depth / 20) ** 2)) * 3 - 6 * fissure
    ventricles = np.minimum(
        np.hypot((np.abs(rows) - 11 - 0.10 * (columns - 18)) / 5.5, (columns - 18) / 15),
        np.hypot((np.abs(rows) - 15 + 0.05 * columns) / 6.5, (columns + 26) / 15),
    ) * (1 + 0.05 * smooth_noise(rng, 5))
    nuclei = np.hypot((np.abs(rows) - 20) / 8, (columns - 2) / 17)

    plane = np.zeros((SIZE, SIZE))
    plane[radius < 1.0] = 205  # scalp
    plane[radius < 0.955] = 45  # skull, outer table
    plane[radius < 0.93] = 120  # marrow
    plane[radius < 0.905] = 30  # inner table and fluid
    plane[(radius < 0.875) & (sulci > 0)] = 92  # grey matter
    plane[(radius < 0.875) & (grey_or_white > 0)] = 132  # white matter
    plane[nuclei < 1] = 104
    plane[ventricles < 1] = 34
    plane = gaussian_filter(plane, 0.8) * (1 + 0.03 * smooth_noise(rng, 40))
    plane += 2.2 * gaussian_filter(rng.normal(size=plane.shape), 0.6)
    plane = np.where(radius < 1.0, plane, np.abs(5 + 2.5 * rng.normal(size=plane.shape)) + plane * 0.9)

    octagon = (np.abs(rows) < 87) & (np.abs(columns) < 103) & (np.abs(rows) + np.abs(columns) < 152)
    plane = np.where(octagon, np.clip(plane, 1, None), 0)
    return np.rint(np.clip(plane / plane.max() * 255, 0, 255)).astype(np.uint8)


if __name__ == "__main__":
    Image.fromarray(draw()).save(Path(sys.argv[1]), optimize=True)
