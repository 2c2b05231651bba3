"""The training loss against scikit-image's SSIM."""

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity

from oasisvq.training.losses import RADIUS, reconstruction_losses, ssim
from oasisvq.training.networks import clamp_straight_through


@pytest.mark.parametrize("shape", [(11, 11), (24, 17), (40, 64)])
def test_ssim_is_scikit_images(shape: tuple[int, int], rng: np.random.Generator) -> None:
    first = rng.random((3, 1, *shape), dtype=np.float32)
    second = np.clip(first + 0.2 * rng.standard_normal(first.shape, dtype=np.float32), 0, 1)
    ours = ssim(torch.from_numpy(first), torch.from_numpy(second))
    for index in range(3):
        theirs = structural_similarity(
            first[index, 0].astype(np.float64),
            second[index, 0].astype(np.float64),
            data_range=1.0,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
        assert abs(float(ours[index]) - theirs) < 1e-5


def test_ssim_of_equal_images_is_one_and_the_range_matters(rng: np.random.Generator) -> None:
    first = torch.from_numpy(rng.random((1, 1, 20, 20), dtype=np.float32))
    assert float(ssim(first, first)) == pytest.approx(1, abs=1e-6)
    shifted = (first + 0.1).clamp(0, 1)
    assert float(ssim(first, shifted, 1.0)) != pytest.approx(
        float(ssim(first, shifted, 255.0)), abs=1e-3
    )


def test_the_windows_loss_is_that_of_the_whole_image(rng: np.random.Generator) -> None:
    inside = torch.from_numpy(rng.random((2, 1, 24, 32), dtype=np.float32))
    restored = (inside + 0.1).clamp(0, 1)
    ssim_loss, _, _ = reconstruction_losses(inside, restored)

    def whole(window: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.pad(window, (20, 20, 20, 20))

    # the padded window has a value for each of its pixels, the whole image also for the ground
    rows, columns = 24 + 40 - 2 * RADIUS, 32 + 40 - 2 * RADIUS
    lost_in_whole = (1 - ssim(whole(inside), whole(restored)).mean()) * rows * columns
    # the rim of the ground that sees the window through the Gaussian is all that differs
    ring = (24 + 2 * RADIUS) * (32 + 2 * RADIUS) - 24 * 32
    lost_in_window = float(ssim_loss.mean()) * 24 * 32
    assert lost_in_window <= float(lost_in_whole) <= lost_in_window + ring


def test_loss_is_zero_for_a_perfect_image_and_has_a_gradient_otherwise(rng: np.random.Generator) -> None:
    pixels = torch.from_numpy(rng.random((2, 1, 16, 16), dtype=np.float32))
    for part in reconstruction_losses(pixels, pixels):
        assert part.tolist() == pytest.approx([0, 0], abs=1e-6)
    guess = torch.full_like(pixels, 0.5, requires_grad=True)
    sum(reconstruction_losses(pixels, guess)).sum().backward()
    assert guess.grad is not None
    assert guess.grad.abs().min() > 0


def test_a_clamped_pixel_learns_inwards_but_never_outwards() -> None:
    pixels = torch.tensor([-2.0, -2.0, 0.5, 3.0, 3.0], requires_grad=True)
    clamped = clamp_straight_through(pixels)
    assert clamped.tolist() == [0, 0, 0.5, 1, 1]
    (clamped * torch.tensor([1.0, -1.0, 1.0, 1.0, -1.0])).sum().backward()
    # descent follows minus the gradient: down for the first, up for the last
    assert pixels.grad is not None
    assert pixels.grad.tolist() == [0, -1, 1, 1, 0]
