"""The error of an image, fed back into its encoding. Never imports torch.

Codes near in latents, and cheap, may be too bright or too dark over many pixels at once, and may fade
what is small and unusual, such as a lesion. So an image is encoded twice. To its pixels are added, of
the error that its first indices leave, half of what is smooth, and all of what stands out; the indices
of these pixels are kept. `examples/benchmarks/RESULTS.md` has what it brings.

The error is smoothed by two box filters: of `SMOOTH_SIDE` × `SMOOTH_SIDE` pixels, about a Gaussian of
4.5 pixels, and for what stands out of `FINE_SIDE` × `FINE_SIDE`, about one of 2. The latter, e, counts
as e · e² / (e² + t²), with t as `STANDS_OUT` times its root mean square in the image. The error is 0
beyond the window. All numbers are integers, so every machine finds the same pixels.
"""

import numpy as np
from numpy.typing import NDArray

from oasisvq.codec.networks import DECODED_STEPS, PIXEL_STEPS, Steps

SMOOTH_SIDE, FINE_SIDE = 11, 5  # of box filters, in pixels
STANDS_OUT = 6
_UNITS = 16  # of a smoothed error, to a step of a pixel: its cube and the sum of its squares are exact


def with_feedback(pixels: Steps, decoded: NDArray[np.uint16]) -> Steps:
    """Pixels to encode in place of those that were decoded with an error.

    Args:
        pixels: (1, H, W) in 0..PIXEL_STEPS.
        decoded: what they decode to, (H, W) in 0..DECODED_STEPS.

    Returns:
        (1, H, W) in 0..PIXEL_STEPS; the darkest pixels, which are ground, stay as they are.
    """
    error = pixels[0].astype(np.int64) * DECODED_STEPS - decoded.astype(np.int64) * PIXEL_STEPS
    fine = _smoothed(error, FINE_SIDE)
    squares = np.square(fine)
    usual = int(squares[pixels[0] > 0].sum()) // max(1, int(np.count_nonzero(pixels)))
    added = _smoothed(error, SMOOTH_SIDE) // 2
    added += fine * squares // (squares + STANDS_OUT**2 * usual + 1)
    changed = np.clip(pixels + (added + _UNITS // 2) // _UNITS, 0, PIXEL_STEPS)
    return np.where(pixels == 0, 0, changed).astype(np.int32)


def _smoothed(error: NDArray[np.int64], side: int) -> NDArray[np.int64]:
    """An error (H, W), times DECODED_STEPS, to its mean in the twofold box, in `_UNITS` of a step."""
    for axis in (0, 1, 0, 1):
        before, after = side // 2 + 1, side // 2
        beyond = [(before, after) if each == axis else (0, 0) for each in range(2)]
        sums = np.moveaxis(np.cumsum(np.pad(error, beyond), axis), axis, 0)
        error = np.moveaxis(sums[side:] - sums[:-side], 0, axis)
    return error * _UNITS // (side**4 * DECODED_STEPS)
