"""Several prepared datasets as one."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from conftest import write_raw_folder
from trees import draw_head, write_nifti

from oasisvq.data.dataset import Dataset, VolumeRecord, open_dataset
from oasisvq.data.joined import is_joined_from, join
from oasisvq.data.layouts import Images
from oasisvq.data.preprocess import preprocess
from oasisvq.data.recipe import Recipe, Slices
from oasisvq.errors import DatasetError
from oasisvq.training.slices_beside import neighbours


def write_volumes(folder: Path, subjects: dict[str, list[int]], labels: bool = False) -> Path:
    """Drawn heads in folders of their splits: {"train": [1]} -> folder/train/OAS1_0001.nii.gz."""
    for split, numbers in subjects.items():
        for number in numbers:
            name = f"OAS1_{number:04d}{'_seg' * labels}.nii.gz"
            write_nifti(folder / split / name, draw_head(labels, seed=number))
    return folder


@pytest.fixture
def slices(tmp_path: Path) -> Dataset:
    raw = write_raw_folder(tmp_path / "pngs", {"train": [1, 2], "validate": [3]}, slices=3, size=32)
    return preprocess(raw, tmp_path / "slices", size=32)


@pytest.fixture
def raw_volumes(tmp_path: Path) -> Path:
    return write_volumes(tmp_path / "heads", {"train": [2], "test": [4]})


@pytest.fixture
def volumes(raw_volumes: Path, tmp_path: Path) -> Dataset:
    recipe = Recipe(slices=Slices(0, (10, 14)), axis="coronal")
    return preprocess(raw_volumes, tmp_path / "volumes", size=32, recipe=recipe)


def test_joined_are_all_slices_one_dataset_after_the_other(
    slices: Dataset, volumes: Dataset, tmp_path: Path
) -> None:
    joined = join([slices, volumes], tmp_path / "joined")
    joined.verify()
    assert open_dataset(tmp_path / "joined") == joined
    assert list(joined.splits) == ["train", "validation", "test"]
    expected = np.concatenate([slices.array("train"), volumes.array("train")])
    np.testing.assert_array_equal(joined.array("train"), expected)
    np.testing.assert_array_equal(joined.array("validation"), slices.array("validation"))
    np.testing.assert_array_equal(joined.array("test"), volumes.array("test"))
    assert (joined.layout, joined.images) == ("UQ PNG slices, images or volumes", Images.SCANS)
    assert joined.raw == f"{slices.raw}, {volumes.raw}"
    records = joined.splits["train"].records
    assert [record.subject for record in records] == ["OAS1_0001"] * 3 + ["OAS1_0002"] * 7
    assert records[0].source == f"dataset-1/{slices.splits['train'].records[0].source}"
    assert records[6].source == "dataset-2/train/OAS1_0002.nii.gz"
    described = dataclasses.replace(volumes.volumes[0], source=records[6].source)
    assert isinstance(described, VolumeRecord)
    assert joined.volumes[0] == described
    assert (described.axis, len(joined.volumes)) == ("coronal", 2)
    ours, theirs = (each.splits["train"].content for each in (slices, volumes))
    content = joined.splits["train"].content
    assert content.top == min(ours.top, theirs.top)
    assert content.right == max(ours.right, theirs.right)


def test_many_slices_are_written_in_pieces(tmp_path: Path, slices: Dataset) -> None:
    raw = write_raw_folder(tmp_path / "many", {"train": [7]}, slices=150, size=32)
    many = preprocess(raw, tmp_path / "prepared", size=32)
    joined = join([many, slices], tmp_path / "joined")
    np.testing.assert_array_equal(joined.array("train")[:150], many.array("train"))
    joined.verify()


def test_one_volume_along_several_axes_is_no_row_of_neighbours(
    raw_volumes: Path, tmp_path: Path
) -> None:
    """Here the numbers would go on where the next dataset begins."""
    parts = [
        preprocess(
            raw_volumes,
            tmp_path / axis,
            size=32,
            recipe=Recipe(slices=Slices(0, (first, first + 3)), axis=axis),
        )
        for axis, first in (("axial", 5), ("coronal", 8), ("sagittal", 11))
    ]
    records = join(parts, tmp_path / "joined").splits["train"].records
    assert [record.slice_number for record in records] == list(range(5, 14))
    assert {record.subject for record in records} == {"OAS1_0002"}
    assert neighbours(records)[:, 0].tolist() == [-1, 0, 1, -1, 3, 4, -1, 6, 7]


def test_it_is_known_from_what_a_dataset_was_joined(
    slices: Dataset, volumes: Dataset, tmp_path: Path
) -> None:
    folder = tmp_path / "joined"
    assert not is_joined_from(folder, [slices, volumes])
    join([slices, volumes], folder)
    assert is_joined_from(folder, [slices, volumes])
    assert not is_joined_from(folder, [volumes, slices])
    assert not is_joined_from(folder, [slices])
    assert not is_joined_from(slices.folder, [slices])
    write_raw_folder(tmp_path / "more", {"train": [1, 2]}, slices=2, size=32)
    other = preprocess(tmp_path / "more", slices.folder, size=32, force=True)
    assert not is_joined_from(folder, [other, volumes])
    assert is_joined_from(join([other, volumes], folder).folder, [other, volumes])


# what does not go together


def refused(parts: list[Dataset], tmp_path: Path) -> str:
    with pytest.raises(DatasetError) as caught:
        join(parts, tmp_path / "joined")
    assert not (tmp_path / "joined").exists()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_sizes_and_kinds_must_be_the_same(
    slices: Dataset, raw_volumes: Path, volumes: Dataset, tmp_path: Path
) -> None:
    larger = preprocess(raw_volumes, tmp_path / "larger", size=48)
    line = refused([slices, larger], tmp_path)
    assert line.startswith(
        f"{larger.folder}: scans of 48×48 pixels, but {slices.folder} has scans of 32"
    )
    write_volumes(raw_volumes, {"train": [2], "test": [4]}, labels=True)
    labels = preprocess(raw_volumes, tmp_path / "labels", images=Images.SEGMENTATIONS, size=32)
    line = refused([slices, volumes, labels], tmp_path)
    assert f"{labels.folder}: segmentations of 32×32" in line
    assert f"{slices.folder}" in line


def test_labels_must_be_the_same(tmp_path: Path) -> None:
    raw = write_volumes(tmp_path / "raw", {"train": [1]}, labels=True)
    first = preprocess(raw, tmp_path / "first", images=Images.SEGMENTATIONS, size=32)
    write_nifti(raw / "train" / "OAS1_0001_seg.nii.gz", draw_head(labels=True) * 2)
    second = preprocess(raw, tmp_path / "second", images=Images.SEGMENTATIONS, size=32)
    assert join([first, first], tmp_path / "same").labels == first.labels
    line = refused([first, second], tmp_path)
    assert f"{second.folder}: other labels" in line
    assert f"{first.folder}" in line


def test_a_person_in_other_splits_is_refused(slices: Dataset, tmp_path: Path) -> None:
    raw = write_volumes(tmp_path / "heads", {"train": [3], "test": [4]})
    volumes = preprocess(raw, tmp_path / "volumes", size=32)
    named = dataclasses.replace(volumes, named=Path("heads"))
    line = refused([slices, named], tmp_path)
    assert line.startswith("heads: subject OAS1_0003 is in its split train, but in validation of ")
    assert f"{slices.folder}" in line


def test_a_damaged_part_is_refused(slices: Dataset, volumes: Dataset, tmp_path: Path) -> None:
    array = np.load(volumes.folder / "test.npy", mmap_mode="r+")
    array[0, 0, 0] ^= 1
    array.flush()
    assert "test.npy: differs from its checksum" in refused([slices, volumes], tmp_path)
