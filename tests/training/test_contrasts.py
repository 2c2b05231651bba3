"""Slices in another contrast: which change, how, and what stays as it is."""

import torch

from oasisvq.training.contrasts import GROUND, Contrasts, draw_contrasts, noise_generator

PIXELS = torch.tensor([0.0, 0.01, 0.03, 0.5, 1.0]).view(1, 1, 1, 5).expand(2, -1, -1, -1)


def contrasts(inverted: bool, gamma: float, noise: float) -> Contrasts:
    """Of two slices, the second one unchanged."""
    return Contrasts(
        torch.tensor([True, False]),
        torch.tensor([inverted, False]),
        torch.tensor([gamma, 1.0]),
        torch.tensor([noise, 0.0]),
    )


def test_dark_and_bright_change_places_and_ground_stays() -> None:
    curved = contrasts(inverted=True, gamma=1, noise=0).curved(PIXELS)
    torch.testing.assert_close(curved[0].flatten(), torch.tensor([0, 0.01, 0.99, 0.52, 0.02]))
    torch.testing.assert_close(curved[1], PIXELS[1])


def test_a_curve_bends_and_keeps_the_ends() -> None:
    curved = contrasts(inverted=False, gamma=2, noise=0).curved(PIXELS)
    torch.testing.assert_close(curved[0].flatten(), torch.tensor([0, 1e-4, 9e-4, 0.25, 1]))
    torch.testing.assert_close(curved[1], PIXELS[1])


def test_noise_leaves_ground_and_other_slices_alone() -> None:
    noise = noise_generator(torch.device("cpu"), 3)
    noisy = contrasts(inverted=False, gamma=1, noise=0.1).noisy(PIXELS, noise)
    is_ground = PIXELS[0] <= GROUND
    torch.testing.assert_close(noisy[0][is_ground], PIXELS[0][is_ground])
    assert (noisy[0] != PIXELS[0])[0, 0, 2:4].all()
    assert noisy.min() >= 0
    assert noisy.max() <= 1
    torch.testing.assert_close(noisy[1], PIXELS[1])


def test_some_slices_are_changed_and_the_others_have_no_curve() -> None:
    drawn = draw_contrasts(2000, torch.Generator().manual_seed(1))
    assert 0.15 < drawn.changed.float().mean() < 0.25
    assert 0.15 < drawn.inverted.sum() / drawn.changed.sum() < 0.35
    assert (drawn.gamma[~drawn.changed] == 1).all()
    assert (drawn.noise[~drawn.changed] == 0).all()
    assert drawn.part(slice(5, 9)).gamma.tolist() == drawn.gamma[5:9].tolist()
