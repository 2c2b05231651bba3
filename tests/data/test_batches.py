"""Batches of a memory-mapped split, resident or not."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from oasisvq.codec.pixels import Window
from oasisvq.data import batches
from oasisvq.data.batches import SliceBatches, epoch_order

WINDOW = Window(1, 0, 2, 3)  # cells of 8 pixels: rows 8 to 24, columns 0 to 24
CPU = torch.device("cpu")


@pytest.fixture
def array(tmp_path: Path, rng: np.random.Generator) -> NDArray[np.uint8]:
    path = tmp_path / "train.npy"
    np.save(path, rng.integers(0, 256, (10, 30, 30), dtype=np.uint8))
    mapped: NDArray[np.uint8] = np.load(path, mmap_mode="r")
    return mapped


def test_a_batch_is_the_window_of_its_slices(array: NDArray[np.uint8]) -> None:
    chosen = torch.tensor([7, 0, 7])
    pixels = SliceBatches(array, WINDOW, 8, CPU).draw(chosen)
    assert pixels.shape == (3, 1, 16, 24)
    expected = array[[7, 0, 7], 8:24, 0:24].astype(np.float32) / 255
    np.testing.assert_allclose(pixels[:, 0].numpy(), expected, atol=1e-7)


def test_mirroring_turns_rows_and_nothing_else(array: NDArray[np.uint8]) -> None:
    source = SliceBatches(array, WINDOW, 8, CPU)
    chosen = torch.tensor([1, 2])
    plain, mirrored = source.draw(chosen), source.draw(chosen, torch.tensor([False, True]))
    assert torch.equal(mirrored[0], plain[0])
    assert torch.equal(mirrored[1], plain[1].flip(1))


def test_slices_too_large_for_memory_stay_in_their_file_and_give_the_same_batches(
    array: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    resident = SliceBatches(array, WINDOW, 8, CPU)
    monkeypatch.setattr(batches, "free_memory", lambda device: 1000)
    mapped = SliceBatches(array, WINDOW, 8, CPU)
    assert "on cpu" in resident.where
    assert "memory-mapped" in mapped.where
    for chosen in (torch.tensor([3, 1]), torch.tensor([9, 9]), torch.tensor([4, 5])):
        mapped.prefetch(chosen if chosen[0] != 9 else torch.tensor([0, 0]))  # also a wrong guess
        assert torch.equal(mapped.draw(chosen), resident.draw(chosen))


def test_a_window_beyond_the_image_repeats_its_edge(array: NDArray[np.uint8]) -> None:
    pixels = SliceBatches(array, Window(2, 2, 2, 2), 8, CPU).draw(torch.tensor([5]))
    assert pixels.shape == (1, 1, 16, 16)
    assert torch.equal(pixels[0, 0, 14:], pixels[0, 0, 13:14].expand(2, -1))


def test_the_order_of_an_epoch_depends_on_seed_and_epoch_alone() -> None:
    first = epoch_order(50, seed=1, epoch=2)
    assert sorted(first.tolist()) == list(range(50))
    assert torch.equal(first, epoch_order(50, seed=1, epoch=2))
    assert not torch.equal(first, epoch_order(50, seed=1, epoch=3))
    assert not torch.equal(first, epoch_order(50, seed=2, epoch=2))
