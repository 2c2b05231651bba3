"""A prepared dataset on disk."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import write_raw_folder

from oasisvq.data.dataset import (
    Dataset,
    array_checksum,
    is_prepared,
    manifest_bytes,
    open_dataset,
    refuse_shared_subjects,
)
from oasisvq.data.preprocess import preprocess
from oasisvq.errors import DatasetError, FileError


@pytest.fixture(scope="module")
def prepared_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dataset")
    raw = write_raw_folder(folder / "data", {"train": [1, 2], "validate": [3], "test": [4]}, slices=3)
    return preprocess(raw, folder / "prepared", size=32).folder


@pytest.fixture
def prepared(prepared_once: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(prepared_once, tmp_path / "prepared"))


def edit(prepared: Path, change: Callable[[dict[str, Any]], object]) -> None:
    fields = json.loads((prepared / "manifest.json").read_bytes())
    change(fields)
    (prepared / "manifest.json").write_text(json.dumps(fields))


def assign(entry: object, *keys: str | int) -> Callable[[dict[str, Any]], object]:
    """A change that puts `entry` at a path of keys."""

    def change(fields: dict[str, Any]) -> None:
        place: Any = fields
        for key in keys[:-1]:
            place = place[key]
        place[keys[-1]] = entry

    return change


def test_open_is_the_inverse_of_the_manifest(prepared: Path) -> None:
    dataset = open_dataset(prepared)
    assert manifest_bytes(dataset) == (prepared / "manifest.json").read_bytes()
    assert [len(split.records) for split in dataset.splits.values()] == [6, 3, 3]
    assert {type(split.records) for split in dataset.splits.values()} == {tuple}


def test_a_dataset_can_be_moved(prepared: Path, tmp_path: Path) -> None:
    expected = np.array(open_dataset(prepared).array("train"))
    prepared.rename(tmp_path / "elsewhere")
    dataset = open_dataset(tmp_path / "elsewhere")
    dataset.verify()
    np.testing.assert_array_equal(dataset.array("train"), expected)


def test_an_array_is_memory_mapped_and_cannot_be_changed(prepared: Path) -> None:
    array = open_dataset(prepared).array("train")
    assert isinstance(array, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 0


def test_a_split_that_is_not_there_is_refused(prepared: Path) -> None:
    edit(prepared, lambda fields: fields["splits"].pop("test"))
    with pytest.raises(DatasetError, match="no split 'test'; it has train, validation"):
        open_dataset(prepared).array("test")


def test_an_empty_split_is_refused(prepared: Path) -> None:
    edit(prepared, assign([], "splits", "test", "slices"))
    dataset = open_dataset(prepared)
    assert len(dataset.array("train")) == 6
    with pytest.raises(DatasetError, match="the split 'test' has no slices"):
        dataset.array("test")


@pytest.mark.parametrize("split", ["train", "validation", "test"])
@pytest.mark.parametrize("place", [0, 1500, -1])
def test_verify_detects_a_changed_byte(prepared: Path, split: str, place: int) -> None:
    dataset = open_dataset(prepared)
    dataset.verify()
    array = np.load(prepared / f"{split}.npy", mmap_mode="r+")
    array.reshape(-1)[place] ^= 1
    array.flush()
    with pytest.raises(DatasetError, match=rf"{split}\.npy: differs from its checksum"):
        dataset.verify()


def test_verify_detects_swapped_slices(prepared: Path) -> None:
    array = np.load(prepared / "train.npy")
    np.save(prepared / "train.npy", array[[1, 0, 2, 3, 4, 5]])
    with pytest.raises(DatasetError, match="differs from its checksum"):
        open_dataset(prepared).verify()


def test_verify_detects_a_missing_file(prepared: Path) -> None:
    (prepared / "test.npy").unlink()
    with pytest.raises(DatasetError, match=r"test\.npy: missing or damaged"):
        open_dataset(prepared).verify()


def test_the_checksum_is_of_all_slices(rng: np.random.Generator) -> None:
    array = rng.integers(0, 256, (130, 3, 3), dtype=np.uint8)  # more than are read at a time
    checksum = array_checksum(array)
    for place in (0, 63, 64, 129):
        changed = array.copy()
        changed[place, 2, 2] ^= 1
        assert array_checksum(changed) != checksum


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((5, 32, 32), dtype=np.uint8),
        np.zeros((7, 32, 32), dtype=np.uint8),
        np.zeros((6, 32, 31), dtype=np.uint8),
        np.zeros((6, 32 * 32), dtype=np.uint8),
        np.zeros((6, 32, 32), dtype=np.int8),
        np.zeros((6, 32, 32), dtype=np.float64),
        np.array(3, dtype=np.uint8),
    ],
    ids=lambda array: f"{array.dtype}{array.shape}",
)
def test_an_array_that_does_not_fit_the_manifest_is_refused(prepared: Path, array: Any) -> None:
    np.save(prepared / "train.npy", array)
    with pytest.raises(DatasetError, match=r"train\.npy: .*expected \(6, 32, 32\) of uint8"):
        open_dataset(prepared).array("train")


def test_a_pickled_array_is_refused(prepared: Path) -> None:
    np.save(prepared / "train.npy", np.array([{"a": 1}] * 6), allow_pickle=True)
    with pytest.raises(DatasetError, match=r"train\.npy: missing or damaged"):
        open_dataset(prepared).array("train")


def test_a_truncated_array_is_refused(prepared: Path) -> None:
    content = (prepared / "train.npy").read_bytes()
    for length in (0, 3, 9, 60, 128, 129, len(content) - 1):
        (prepared / "train.npy").write_bytes(content[:length])
        with pytest.raises(DatasetError, match=r"train\.npy: "):
            open_dataset(prepared).array("train")


def test_a_damaged_array_header_is_refused_or_harmless(prepared: Path) -> None:
    content = (prepared / "train.npy").read_bytes()
    dataset = open_dataset(prepared)
    expected = np.array(dataset.array("train"))
    crashes = []
    for position in range(0, 72, 2):
        for other in {0, ord("'")} - {content[position]}:
            damaged = content[:position] + bytes([other]) + content[position + 1 :]
            (prepared / "train.npy").write_bytes(damaged)
            try:
                np.testing.assert_array_equal(dataset.array("train"), expected)
            except DatasetError:
                pass
            except Exception as error:
                crashes.append(f"byte {position} = {other}: {error!r}")
    assert not crashes


def test_no_folder_no_manifest(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"no such folder; make it with `oasisvq preprocess RAW"):
        open_dataset(tmp_path / "missing")
    with pytest.raises(FileError, match="no such file"):
        open_dataset(tmp_path)
    assert not is_prepared(tmp_path)


@pytest.mark.parametrize("format_version", [0, 2, "1", None])
def test_another_format_is_refused_by_name(prepared: Path, format_version: object) -> None:
    edit(prepared, assign(format_version, "format"))
    with pytest.raises(DatasetError, match=f"format {format_version!r}, this version .* reads 1"):
        open_dataset(prepared)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no JSON",
        b"\xff\xfe{}",
        b"{}",
        b"[]",
        b"3",
        b"null",
        b'{"format": 1}',
        b'{"format": 1, "splits": {}}',
        b"[" * 100_000,
    ],
    ids=lambda content: repr(content[:20]),
)
def test_a_damaged_manifest_is_refused(prepared: Path, content: bytes) -> None:
    (prepared / "manifest.json").write_bytes(content)
    with pytest.raises(DatasetError, match=r"manifest\.json: damaged manifest; prepare .* anew"):
        open_dataset(prepared)


def test_a_truncated_manifest_is_refused(prepared: Path) -> None:
    content = (prepared / "manifest.json").read_bytes()
    for length in range(0, len(content), 101):
        (prepared / "manifest.json").write_bytes(content[:length])
        with pytest.raises(DatasetError, match="damaged manifest"):
            open_dataset(prepared)


RECORD = ("splits", "train", "slices", 0)


@pytest.mark.parametrize(
    "change",
    [
        *(
            lambda fields, key=key: fields.pop(key)
            for key in ("layout", "raw", "images", "size", "splits")
        ),
        assign("photos", "images"),
        assign(None, "size"),
        assign("big", "size"),
        assign(float("inf"), "size"),
        assign([], "splits"),
        assign(None, "splits", "train"),
        assign(3, "splits", "train", "slices"),
        assign([1, 2, 3], "splits", "train", "content"),
        assign([1, 2, 3, 4, 5], "splits", "train", "content"),
        assign("abcd", "splits", "train", "content"),
        assign(["x"], "splits", "train", "slices"),
        assign("?", *RECORD, "slice_number"),
        assign(float("inf"), *RECORD, "slice_number"),
        assign(float("nan"), *RECORD, "source_bytes"),
        assign([64], *RECORD, "source_shape"),
        assign(64, *RECORD, "source_shape"),
    ],
)
def test_a_manifest_with_a_wrong_field_is_refused(
    prepared: Path, change: Callable[[dict[str, Any]], object]
) -> None:
    edit(prepared, change)
    with pytest.raises(DatasetError, match="damaged manifest"):
        open_dataset(prepared)


@pytest.mark.parametrize("key", ["subject", "source", "source_bytes", "source_shape", "slice_number"])
def test_a_record_without_a_field_is_refused(prepared: Path, key: str) -> None:
    edit(prepared, lambda fields: fields["splits"]["validation"]["slices"][-1].pop(key))
    with pytest.raises(DatasetError, match="damaged manifest"):
        open_dataset(prepared)


@pytest.mark.parametrize("name", ["holdout", "../train", "train "])
def test_an_unknown_split_is_refused(prepared: Path, name: str) -> None:
    edit(prepared, lambda fields: fields["splits"].update({name: fields["splits"].pop("test")}))
    with pytest.raises(DatasetError, match=r"unknown splits .*expected train, validation, test"):
        open_dataset(prepared)


def test_no_images_are_refused(prepared: Path) -> None:
    edit(prepared, assign({}, "splits"))
    with pytest.raises(DatasetError, match="a dataset with no images"):
        open_dataset(prepared)


def test_splits_without_slices_are_refused(prepared: Path) -> None:
    def empty(fields: dict[str, Any]) -> None:
        for split in fields["splits"].values():
            split["slices"] = []

    edit(prepared, empty)
    with pytest.raises(DatasetError, match="a dataset with no images"):
        open_dataset(prepared)


def test_a_subject_in_two_splits_of_a_manifest_is_refused(prepared: Path) -> None:
    edit(prepared, assign("OAS1_0002", "splits", "test", "slices", 1, "subject"))
    message = "OAS1_0002 is in the splits train and test; all slices of a person must be in one"
    with pytest.raises(DatasetError, match=message):
        open_dataset(prepared)


def test_shared_subjects() -> None:
    refuse_shared_subjects({"train": {"a", "b"}, "validation": {"c"}, "test": set()}, Path("x"))
    with pytest.raises(DatasetError, match="x: subject a is in the splits train and test"):
        refuse_shared_subjects({"train": {"b", "a"}, "test": {"a", "b"}}, Path("x"))


def test_is_prepared(prepared: Path) -> None:
    assert is_prepared(prepared)
    assert isinstance(open_dataset(prepared), Dataset)
    (prepared / "manifest.json").unlink()
    assert not is_prepared(prepared)
