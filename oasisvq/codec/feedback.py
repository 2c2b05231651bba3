"""The smooth error of an image, fed back into its encoding. Never imports torch.

Codes near in latents, and cheap, may be too bright or too dark over many pixels at once. Such errors are
smooth. So an image is encoded twice: half of the smooth error that its first indices leave is added to
its pixels, and the indices of these are kept. `examples/benchmarks/RESULTS.md` has what it brings.

The error is smoothed by two box filters of `SIDE` × `SIDE` pixels, about a Gaussian of 4.5 pixels. It is
0 beyond the window. All numbers are integers, so every machine finds the same pixels.
"""

import numpy as np
from numpy.typing import NDArray

from oasisvq.codec.networks import DECODED_STEPS, PIXEL_STEPS, Steps

SIDE = 11  # of a box filter, in pixels


def with_feedback(pixels: Steps, decoded: NDArray[np.uint16]) -> Steps:
    """Pixels to encode in place of those that were decoded with an error.

    Args:
        pixels: (1, H, W) in 0..PIXEL_STEPS.
        decoded: what they decode to, (H, W) in 0..DECODED_STEPS.

    Returns:
        (1, H, W) in 0..PIXEL_STEPS; the darkest pixels, which are ground, stay as they are.
    """
    error = pixels[0].astype(np.int64) * DECODED_STEPS - decoded.astype(np.int64) * PIXEL_STEPS
    for _ in range(2):
        error = _sums(_sums(error, 0), 1)
    whole = 2 * SIDE**4 * DECODED_STEPS  # of which `error` is half of the smooth error
    changed = np.clip(pixels + (2 * error + whole) // (2 * whole), 0, PIXEL_STEPS)
    return np.where(pixels == 0, 0, changed).astype(np.int32)


def _sums(numbers: NDArray[np.int64], axis: int) -> NDArray[np.int64]:
    """The sums of the `SIDE` numbers around each, along an axis of (H, W)."""
    before, after = SIDE // 2 + 1, SIDE // 2
    beyond = [(before, after) if each == axis else (0, 0) for each in range(2)]
    sums = np.moveaxis(np.cumsum(np.pad(numbers, beyond), axis), axis, 0)
    return np.moveaxis(sums[SIDE:] - sums[:-SIDE], 0, axis)
