"""The losses that the decoder learns from: 1 - SSIM, L1 and squared error.

Shapes: B batch, H×W image. `codebooks.py`, which sees the latents, adds the commitment loss.
"""

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

SIGMA = 1.5
RADIUS = 5  # int(truncate * SIGMA + 0.5) with scikit-image's truncate = 3.5: an 11×11 window
K1, K2 = 0.01, 0.03


@lru_cache(maxsize=32)
def _gaussian_band(length: int, device: torch.device) -> Tensor:
    """The (length, length - 2·RADIUS) matrix whose columns hold the shifted Gaussian window."""
    with torch.inference_mode(False):  # it is cached, and later used where gradients are needed
        return _new_gaussian_band(length, device)


def _new_gaussian_band(length: int, device: torch.device) -> Tensor:
    offsets = torch.arange(-RADIUS, RADIUS + 1, device=device, dtype=torch.float32)
    window = torch.exp(-offsets.square() / (2 * SIGMA**2))
    distance = (
        torch.arange(length, device=device)[:, None]
        - torch.arange(length - 2 * RADIUS, device=device)[None, :]
        - RADIUS
    )
    inside = distance.abs() <= RADIUS
    return torch.where(inside, (window / window.sum())[distance.clamp(-RADIUS, RADIUS) + RADIUS], 0.0)


def ssim(first: Tensor, second: Tensor, data_range: float = 1.0) -> Tensor:
    """Mean structural similarity of each image, (B, 1, H, W) twice -> (B,), float32.

    Equal to scikit-image's `structural_similarity(gaussian_weights=True, sigma=1.5,
    use_sample_covariance=False)` (Wang et al. 2004), whose mean leaves out the same border.
    The separable Gaussian convolutions are written as two products with banded matrices, which
    is several times faster than one-channel convolutions, forward and backward.
    """
    with torch.autocast(first.device.type, enabled=False):
        first, second = first.float(), second.float()
        height, width = first.shape[-2:]
        moments = torch.cat(
            [first, second, first * first, second * second, first * second], dim=1
        )  # (B, 5, H, W)
        rows = _gaussian_band(height, first.device).t()
        columns = _gaussian_band(width, first.device)
        mean1, mean2, square1, square2, product = (rows @ (moments @ columns)).unbind(1)
        variance1 = square1 - mean1 * mean1
        variance2 = square2 - mean2 * mean2
        covariance = product - mean1 * mean2
        c1, c2 = (K1 * data_range) ** 2, (K2 * data_range) ** 2
        similarity = ((2 * mean1 * mean2 + c1) * (2 * covariance + c2)) / (
            (mean1 * mean1 + mean2 * mean2 + c1) * (variance1 + variance2 + c2)
        )
        return similarity.mean(dim=(1, 2))


def reconstruction_losses(pixels: Tensor, reconstruction: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(1 - SSIM, L1, mean squared error) of each image, (B,) each, of (B, 1, H, W) pixels in [0, 1].

    A window is cut out of a ground that is 0 in both images, so both are padded with 0. Then the border
    of the window counts as in the whole image.
    """
    border = (RADIUS,) * 4
    similarity = ssim(F.pad(pixels, border), F.pad(reconstruction, border))
    error = pixels - reconstruction
    of_image = (1, 2, 3)
    return 1 - similarity, error.abs().mean(of_image), error.square().mean(of_image)
