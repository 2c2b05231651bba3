"""Slices as another machine would show them: which change, how, and what stays as it is."""

import torch
from torch import Tensor

from oasisvq.training.contrasts import CHANGED_SHARE, GROUND, Contrasts, draw_contrasts

PIXELS = torch.tensor([0.0, 0.01, 0.1, 0.5, 1.0]).view(1, 1, 1, 5).expand(2, -1, -1, -1)
STAYING = torch.tensor([[1.0, 0, 0], [0, 1, 0]])


def contrasts(
    inverted: bool = False,
    gamma: float = 1,
    noise: float = 0,
    noisy_ground: bool = False,
    moved: Tensor = STAYING,
    bias: tuple[float, float, float] = (0, 0, 0),
    spot: tuple[float, float, float, float] = (0, 0, 0, 0),
) -> Contrasts:
    """Of two slices, the second one unchanged."""
    return Contrasts(
        torch.tensor([True, False]),
        torch.tensor([inverted, False]),
        torch.tensor([gamma, 1.0]),
        torch.tensor([noise, 0.0]),
        torch.tensor([noisy_ground, False]),
        torch.stack([moved, STAYING]),
        torch.tensor([bias, (0, 0, 0)], dtype=torch.float32),
        torch.tensor([[spot], [(0, 0, 0, 0)]], dtype=torch.float32),
        torch.tensor([3, 4]),
    )


def test_dark_and_bright_change_places_and_ground_stays() -> None:
    shown = contrasts(inverted=True).shown(PIXELS)
    torch.testing.assert_close(shown[0].flatten(), torch.tensor([0, 0.01, 0.9, 0.5, 0]))
    torch.testing.assert_close(shown[1], PIXELS[1])


def test_a_curve_bends_and_keeps_the_ends() -> None:
    shown = contrasts(gamma=2).shown(PIXELS)
    torch.testing.assert_close(shown[0].flatten(), torch.tensor([0, 1e-4, 0.01, 0.25, 1]))
    torch.testing.assert_close(shown[1], PIXELS[1])


def test_a_field_darkens_towards_one_side() -> None:
    shown = contrasts(bias=(0, 0.2, 0)).shown(torch.ones(2, 1, 3, 5))
    assert shown.max() == 1
    torch.testing.assert_close(shown[0, 0, 0, 0], torch.exp(torch.tensor(-0.4)))
    assert (shown[0, 0].diff(dim=1) > 0).all()
    assert (shown[1] == 1).all()


def test_slices_move_and_what_comes_in_is_dark() -> None:
    pixels = torch.zeros(2, 1, 8, 8)
    pixels[:, :, 2, 3] = 1
    two_rows_up = torch.tensor([[1.0, 0, 0], [0, 1, 0.5]])
    shown = contrasts(moved=two_rows_up).shown(pixels)
    assert shown[0, 0, 0, 3] == 1
    assert shown[0].sum() == 1
    torch.testing.assert_close(shown[1], pixels[1])


def test_a_spot_is_drawn_where_there_is_no_ground() -> None:
    pixels = torch.full((2, 1, 20, 20), 0.5)
    pixels[:, :, :, :10] = 0
    shown = contrasts(spot=(0.5, 0.5, 2.0, 0.3)).shown(pixels)
    assert (shown[0, 0, :, :10] == 0).all()
    torch.testing.assert_close(shown[0, 0, 10, 10], torch.tensor(0.8))
    assert shown[0, 0, 0, 19] < 0.501
    torch.testing.assert_close(shown[1], pixels[1])


def test_noise_leaves_ground_and_other_slices_alone() -> None:
    noisy = contrasts(noise=0.1).noisy(PIXELS)
    is_ground = PIXELS[0] <= GROUND[0]
    torch.testing.assert_close(noisy[0][is_ground], PIXELS[0][is_ground])
    assert (noisy[0] != PIXELS[0])[0, 0, 2:4].all()
    assert noisy.min() >= 0
    assert noisy.max() <= 1
    torch.testing.assert_close(noisy[1], PIXELS[1])


def test_noise_of_the_ground_too() -> None:
    noisy = contrasts(noise=0.1, noisy_ground=True).noisy(PIXELS)
    assert (noisy[0] != PIXELS[0])[0, 0, :4].all()
    assert noisy.min() >= 0
    torch.testing.assert_close(noisy[1], PIXELS[1])


def test_only_a_share_of_slices_changes() -> None:
    drawn = draw_contrasts(2000, torch.Generator().manual_seed(1))
    share = drawn.changed.float().mean()
    assert abs(share - CHANGED_SHARE) < 0.04
    stays = ~drawn.changed
    assert (drawn.gamma[stays] == 1).all()
    assert (drawn.noise[stays] == 0).all()
    assert not (drawn.inverted | drawn.noisy_ground)[stays].any()
    assert (drawn.moved[stays] == STAYING).all()
    assert (drawn.bias[stays] == 0).all()
    assert (drawn.spots[stays][..., 3] == 0).all()
    pixels = torch.rand(2000, 1, 4, 4)
    shown = drawn.shown(pixels)
    assert (shown[stays] == pixels[stays]).all()
    assert shown.min() >= 0
    assert shown.max() <= 1
