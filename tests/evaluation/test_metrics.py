"""How well labels survive."""

import math

import numpy as np
import pytest

from oasisvq.evaluation.metrics import Overlap, overlap, snap


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_snap_gives_the_nearest_label(dtype: type[np.unsignedinteger]) -> None:
    labels = np.array([0, 85, 170, 255], dtype=np.uint8)
    restored = np.arange(256, dtype=dtype)
    snapped = snap(restored, labels)
    assert snapped.dtype == labels.dtype
    distances = np.abs(restored[:, None].astype(int) - labels[None])
    assert (np.abs(snapped.astype(int) - restored) == distances.min(axis=1)).all()
    np.testing.assert_array_equal(snap(labels.astype(dtype), labels), labels)


def test_snap_keeps_the_shape_and_knows_a_single_label() -> None:
    plane = np.array([[0, 90], [200, 255]], dtype=np.uint8)
    assert snap(plane, np.array([0, 100], dtype=np.uint8)).tolist() == [[0, 100], [100, 100]]
    assert snap(plane, np.array([7], dtype=np.uint8)).tolist() == [[7, 7], [7, 7]]


def test_dice_by_hand() -> None:
    original = np.array([[0, 85, 85], [170, 85, 0]])
    restored = np.array([[0, 85, 170], [170, 85, 85]])
    assert overlap(original, restored, 85) == Overlap(both=2, original=3, restored=3)
    assert overlap(original, restored, 85).dice == pytest.approx(2 / 3)
    assert overlap(original, restored, 170).dice == pytest.approx(2 / 3)
    assert overlap(original, restored, 0).dice == pytest.approx(2 / 3)
    assert overlap(original, original, 85).dice == 1
    assert overlap(original, np.zeros_like(original), 85).dice == 0


def test_dice_of_a_label_that_neither_has_is_no_number() -> None:
    assert math.isnan(overlap(np.zeros((3, 3)), np.zeros((3, 3)), 85).dice)


def test_overlaps_add_up_over_slices(rng: np.random.Generator) -> None:
    original, restored = rng.choice([0, 85, 170], size=(2, 6, 9, 9))
    each = [overlap(first, second, 85) for first, second in zip(original, restored, strict=True)]
    assert Overlap(*np.sum(each, axis=0).tolist()) == overlap(original, restored, 85)
