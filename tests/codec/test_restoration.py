"""Restoration: depths, weights that are found, and what they do to decoded voxels."""

import numpy as np
import pytest
from numpy.typing import NDArray

from oasisvq.codec.restoration import (
    MAX_WEIGHT,
    OFFSET_UNITS,
    WEIGHT_UNITS,
    Restoration,
    Restoring,
    Weights,
    depths_of,
    restore,
)

PLAIN = (Weights(),) * 4


def restored(
    plane: NDArray[np.generic],
    support: NDArray[np.bool_],
    restoration: Restoration,
    intensity: tuple[float, float],
) -> NDArray[np.generic]:
    again = plane.copy()
    restore(again, support, restoration, intensity)
    return again


def disc(side: int = 24) -> NDArray[np.bool_]:
    rows, columns = np.mgrid[:side, :side]
    found: NDArray[np.bool_] = np.hypot(rows - side / 2, columns - side / 2) < side / 2.6
    return found


def test_depths_count_from_the_ground_and_from_the_sides() -> None:
    support = np.ones((9, 10), np.bool_)
    support[4, 9] = False
    depths = depths_of(support)
    assert depths[0].tolist() == [1] * 10
    assert depths[4].tolist() == [1, 2, 3, 4, 4, 4, 3, 2, 1, 0]


def test_weights_that_change_nothing() -> None:
    plane = np.arange(576, dtype=np.int16).reshape(24, 24)
    np.testing.assert_array_equal(restored(plane, disc(), PLAIN, (0, 575)), plane)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
def test_what_a_filter_did_is_undone(dtype: type[np.generic], rng: np.random.Generator) -> None:
    support, low, high = disc(), -20.0 if dtype != np.uint8 else 20.0, 200.0
    wanted = np.where(support, rng.uniform(60, 200, support.shape), low).astype(dtype)
    darker = {1: (0.5, 10), 2: (0.8, -3), 3: (1, 2), 4: (1.1, -9)}
    depths = depths_of(support)
    plane = wanted.astype(np.float64)
    for depth, (gain, shift) in darker.items():
        plane[depths == depth] = (plane[depths == depth] - low) * gain + low + shift
    decoded = np.clip(np.rint(plane), low, high).astype(dtype)
    restoring = Restoring((low, high))
    restoring.put(decoded, support, wanted)
    weights, gain = restoring.weights()
    again = restored(decoded, support, weights, (low, high))

    def error(found: NDArray[np.generic]) -> float:
        away = found[support].astype(np.float64) - wanted[support].astype(np.float64)
        return float(np.square(away).sum())

    assert again.dtype == dtype
    assert gain > 0.9
    assert error(again) < 0.1 * error(decoded)
    np.testing.assert_array_equal(again[~support], decoded[~support])
    bias = again[support].astype(np.float64).mean() - wanted[support].astype(np.float64).mean()
    assert abs(bias) < 0.5


def test_weights_are_sums_of_integers_and_do_not_depend_on_the_order(rng: np.random.Generator) -> None:
    slices = [rng.integers(0, 256, (24, 24)).astype(np.uint8) for _ in range(4)]
    orders = ([0, 1], [2, 3]), ([2, 3], [0, 1])
    found = []
    for order in orders:
        restoring = Restoring((0, 255))
        for plane, wanted in order:
            restoring.put(slices[plane], disc(), slices[wanted])
        found.append(restoring.weights())
    assert found[0] == found[1]


def test_nothing_to_learn_from_changes_nothing() -> None:
    restoring = Restoring((0, 255))
    assert restoring.weights() == (PLAIN, 0.0)
    flat = np.full((24, 24), 7, np.uint8)
    restoring.put(flat, disc(), flat)
    assert restoring.weights() == (PLAIN, 0.0)


def test_what_is_beyond_the_range_is_cut_off() -> None:
    plane = np.full((24, 24), 100, np.uint8)
    bright = (Weights(MAX_WEIGHT, 0, OFFSET_UNITS),) * 4
    dark = (Weights(0, -WEIGHT_UNITS, 0),) * 4
    assert restored(plane, disc(), bright, (0, 150))[disc()].tolist() == [150] * int(disc().sum())
    assert restored(plane, disc(), dark, (50, 150))[disc()].tolist() == [50] * int(disc().sum())
