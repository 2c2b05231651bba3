"""A raw folder -> a prepared dataset."""

from pathlib import Path

import numpy as np
import pytest
from conftest import draw_phantom, write_raw_folder
from PIL import Image

from oasisvq.codec.pixels import content_box, union
from oasisvq.data.dataset import Dataset, open_dataset
from oasisvq.data.layouts import Images
from oasisvq.data.members import find_members
from oasisvq.data.preprocess import fit_plane, is_prepared_from, open_or_prepare, preprocess
from oasisvq.errors import DatasetError, FileError, ImageError


def snapshot(folder: Path) -> dict[str, bytes | None]:
    """Everything below a folder, hidden files too."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


def first_slice(raw: Path) -> Path:
    return raw / "keras_png_slices_train" / "case_001_slice_0.nii.png"


def last_slice(raw: Path) -> Path:
    return raw / "keras_png_slices_validate" / "case_005_slice_3.nii.png"


def sources(dataset: Dataset, split: str) -> list[str]:
    return [record.source for record in dataset.splits[split].records]


def test_the_arrays_hold_the_images_in_order(raw_folder: Path, tmp_path: Path) -> None:
    dataset = preprocess(raw_folder, tmp_path / "out" / "prepared", size=64)
    assert list(dataset.splits) == ["train", "validation"]
    for split, subjects in (("train", [1, 2, 3]), ("validation", [4, 5])):
        array, records = dataset.array(split), dataset.splits[split].records
        assert array.shape == (len(subjects) * 4, 64, 64)
        assert [record.subject for record in records] == [
            f"OAS1_{subject:04d}" for subject in subjects for _ in range(4)
        ]
        for record, plane in zip(records, array, strict=True):
            path = raw_folder / record.source
            np.testing.assert_array_equal(plane, np.asarray(Image.open(path)))
            assert record.source_shape == (64, 64)
            assert record.source_bytes == path.stat().st_size
        assert [record.slice_number for record in records] == [0, 1, 2, 3] * len(subjects)
    dataset.verify()


def test_the_result_is_what_is_opened(raw_folder: Path, tmp_path: Path) -> None:
    dataset = preprocess(raw_folder, tmp_path / "prepared", size=64)
    assert open_dataset(tmp_path / "prepared") == dataset
    assert (dataset.size, dataset.images, dataset.raw) == (64, Images.SCANS, str(raw_folder))
    names = sorted(path.name for path in dataset.folder.iterdir())
    assert names == ["manifest.json", "train.npy", "validation.npy"]


def test_the_same_folder_gives_the_same_bytes(raw_folder: Path, tmp_path: Path) -> None:
    preprocess(raw_folder, tmp_path / "first", size=40)
    preprocess(raw_folder, tmp_path / "second", size=40)
    assert snapshot(tmp_path / "first") == snapshot(tmp_path / "second")


def test_where_the_content_lies_is_known(raw_folder: Path, tmp_path: Path) -> None:
    dataset = preprocess(raw_folder, tmp_path / "prepared", size=80)
    for split in dataset.splits:
        boxes = [content_box(plane) for plane in dataset.array(split)]
        box = boxes[0]
        for other in boxes[1:]:
            box = union(box, other)
        assert dataset.splits[split].content == box


def test_a_slice_without_ground_has_content_everywhere(raw_folder: Path, tmp_path: Path) -> None:
    Image.new("L", (64, 64), 9).save(first_slice(raw_folder))
    dataset = preprocess(raw_folder, tmp_path / "prepared", size=64)
    assert dataset.splits["train"].content == (0, 0, 64, 64)
    assert dataset.splits["validation"].content != (0, 0, 64, 64)


def test_black_slices_alone_have_content_everywhere(tmp_path: Path) -> None:
    raw = write_raw_folder(tmp_path / "data", {"train": [1]}, slices=1)
    Image.new("L", (64, 64)).save(first_slice(raw))
    dataset = preprocess(raw, tmp_path / "prepared", size=64)
    assert dataset.splits["train"].content == (0, 0, 64, 64)


def test_progress_is_told(raw_folder: Path, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    preprocess(
        raw_folder,
        tmp_path / "prepared",
        size=16,
        advance=lambda done, total: told.append((done, total)),
    )
    assert told == [(done, 20) for done in range(4, 21, 4)]  # the slices of a subject at a time


def test_segmentations_of_another_size_keep_their_labels(tmp_path: Path) -> None:
    raw = write_raw_folder(tmp_path / "data", {"train": [1], "test": [2]}, kind="seg", size=150)
    dataset = preprocess(raw, tmp_path / "prepared", images=Images.SEGMENTATIONS, size=80)
    assert dataset.images is Images.SEGMENTATIONS
    for split in ("train", "test"):
        array = dataset.array(split)
        assert array.shape == (4, 80, 80)
        for plane in array:
            assert set(np.unique(plane).tolist()) <= {0, 85, 170, 255}
            assert len(np.unique(plane)) > 2
    record = dataset.splits["test"].records[0]
    original = np.asarray(Image.open(raw / record.source))
    share = (original > 0).mean(), (dataset.array("test")[0] > 0).mean()
    assert share[0] == pytest.approx(share[1], abs=0.02)


@pytest.mark.parametrize("images", Images)
@pytest.mark.parametrize("shape", [(5, 7), (20, 20), (1, 20), (19, 6)])
def test_a_smaller_plane_is_padded_around_the_middle(
    images: Images, shape: tuple[int, int], rng: np.random.Generator
) -> None:
    plane = rng.integers(1, 256, shape, dtype=np.uint8)
    square = fit_plane(plane, 20, images)
    assert square.shape == (20, 20)
    assert square.dtype == np.uint8
    top, left = (20 - shape[0]) // 2, (20 - shape[1]) // 2
    np.testing.assert_array_equal(square[top : top + shape[0], left : left + shape[1]], plane)
    assert np.count_nonzero(square) == plane.size


def test_a_larger_scan_is_averaged(rng: np.random.Generator) -> None:
    plane = rng.integers(0, 256, (60, 60), dtype=np.uint8)
    expected = plane.reshape(20, 3, 20, 3).mean(axis=(1, 3))
    assert np.abs(fit_plane(plane, 20, Images.SCANS) - expected).max() <= 1  # rounded twice


def test_a_larger_segmentation_keeps_one_label_of_each_area(rng: np.random.Generator) -> None:
    plane = rng.choice(np.array([0, 85, 170, 255], dtype=np.uint8), (60, 60))
    areas = plane.reshape(20, 3, 20, 3).swapaxes(1, 2).reshape(20, 20, 9)
    small = fit_plane(plane, 20, Images.SEGMENTATIONS)
    assert (areas == small[..., None]).any(axis=2).all()


@pytest.mark.parametrize("shape", [(60, 20), (20, 60)])
def test_the_sides_keep_their_proportion(shape: tuple[int, int]) -> None:
    small = fit_plane(np.full(shape, 200, dtype=np.uint8), 30, Images.SCANS)
    assert small.shape == (30, 30)
    box = content_box(small)
    assert (box.bottom - box.top, box.right - box.left) == (shape[0] // 2, shape[1] // 2)


@pytest.mark.parametrize("size", [0, -1, 15, 4097])
def test_a_size_out_of_range_is_refused(raw_folder: Path, tmp_path: Path, size: int) -> None:
    with pytest.raises(DatasetError, match=f"size {size}, expected 16 to 4096"):
        preprocess(raw_folder, tmp_path / "prepared", size=size)
    assert not (tmp_path / "prepared").exists()


def test_a_subject_in_two_splits_is_refused(tmp_path: Path) -> None:
    raw = write_raw_folder(tmp_path / "data", {"train": [1, 2], "validate": [3, 2]}, slices=1)
    before = snapshot(tmp_path)
    with pytest.raises(DatasetError, match="OAS1_0002 is in the splits train and validation"):
        preprocess(raw, tmp_path / "prepared")
    assert snapshot(tmp_path) == before


def test_a_16_bit_slice_is_refused(raw_folder: Path, tmp_path: Path) -> None:
    Image.fromarray(np.full((64, 64), 3000, dtype=np.uint16)).save(last_slice(raw_folder))
    with pytest.raises(DatasetError, match="a 16-bit slice, expected 8 bits") as caught:
        preprocess(raw_folder, tmp_path / "prepared")
    assert last_slice(raw_folder).name in str(caught.value)


def test_a_failure_midway_leaves_nothing(raw_folder: Path, tmp_path: Path) -> None:
    content = last_slice(raw_folder).read_bytes()
    last_slice(raw_folder).write_bytes(content[: len(content) // 2])
    before = snapshot(tmp_path)
    told: list[int] = []
    with pytest.raises(ImageError, match=last_slice(raw_folder).name):
        preprocess(raw_folder, tmp_path / "prepared", size=32, advance=lambda done, _: told.append(done))
    assert told[-1] == 16  # all but the last subject were done by then
    assert snapshot(tmp_path) == before


def test_an_interrupted_run_goes_on_where_it_was(raw_folder: Path, tmp_path: Path) -> None:
    straight = preprocess(raw_folder, tmp_path / "straight" / "prepared", size=32)

    def interrupt(done: int, total: int) -> None:
        if done == 12:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        preprocess(raw_folder, tmp_path / "prepared", size=32, advance=interrupt)
    assert not (tmp_path / "prepared").exists()
    told: list[int] = []
    said: list[str] = []
    preprocess(
        raw_folder,
        tmp_path / "prepared",
        size=32,
        advance=lambda done, _: told.append(done),
        tell=said.append,
    )
    assert told == [12, 16, 20]
    assert said == ["dataset: goes on, 12 of 20 files were done before"]
    assert snapshot(tmp_path / "prepared") == snapshot(straight.folder)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "prepared", "straight"]


def test_a_failure_midway_leaves_the_old_dataset(raw_folder: Path, tmp_path: Path) -> None:
    preprocess(raw_folder, tmp_path / "prepared", size=32)
    last_slice(raw_folder).write_bytes(b"no image")
    before = snapshot(tmp_path)
    with pytest.raises(ImageError):
        preprocess(raw_folder, tmp_path / "prepared", size=48, force=True)
    assert snapshot(tmp_path) == before
    open_dataset(tmp_path / "prepared").verify()


def test_an_existing_dataset_is_left_without_force(raw_folder: Path, tmp_path: Path) -> None:
    preprocess(raw_folder, tmp_path / "prepared", size=32)
    before = snapshot(tmp_path)
    with pytest.raises(FileError, match="exists; pass -f to replace it"):
        preprocess(raw_folder, tmp_path / "prepared", size=48)
    assert snapshot(tmp_path) == before


def test_an_existing_dataset_is_replaced_with_force(raw_folder: Path, tmp_path: Path) -> None:
    preprocess(raw_folder, tmp_path / "prepared", size=32)
    first_slice(raw_folder).unlink()
    dataset = preprocess(raw_folder, tmp_path / "prepared", size=48, force=True)
    assert dataset.array("train").shape == (11, 48, 48)
    dataset.verify()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "prepared"]


def test_an_empty_folder_is_filled(raw_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "prepared").mkdir()
    preprocess(raw_folder, tmp_path / "prepared", size=32).verify()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "prepared"]


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize(
    "name",
    ["thesis.txt", ".hidden", "train.npy", "manifest.json"],  # many programs have a manifest.json
)
def test_a_folder_that_is_no_dataset_is_never_replaced(
    raw_folder: Path, tmp_path: Path, force: bool, name: str
) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / name).write_text('{"name": "my web page", "years of work": 3}')
    (tmp_path / "work" / "figures").mkdir()
    before = snapshot(tmp_path)
    with pytest.raises((FileError, DatasetError)):
        preprocess(raw_folder, tmp_path / "work", size=32, force=force)
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("force", [False, True])
def test_a_file_is_never_replaced(raw_folder: Path, tmp_path: Path, force: bool) -> None:
    (tmp_path / "prepared").write_text("mine")
    with pytest.raises(FileError, match="exists and is no prepared dataset"):
        preprocess(raw_folder, tmp_path / "prepared", force=force)
    assert (tmp_path / "prepared").read_text() == "mine"


@pytest.mark.parametrize("force", [False, True])
def test_the_raw_folder_is_never_replaced(raw_folder: Path, force: bool) -> None:
    before = snapshot(raw_folder)
    with pytest.raises(FileError):
        preprocess(raw_folder, raw_folder, size=32, force=force)
    assert snapshot(raw_folder) == before


def test_an_output_that_cannot_be_made(raw_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(FileError, match="cannot be created"):
        preprocess(raw_folder, tmp_path / "file" / "prepared", size=32)


def test_a_cache_is_used_again(raw_folder: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    first = open_or_prepare(raw_folder, cache, images=Images.SCANS, size=32)
    assert first.folder == cache
    before = (cache / "train.npy").stat()
    told: list[int] = []
    again = open_or_prepare(
        raw_folder, cache, images=Images.SCANS, size=32, advance=lambda done, _: told.append(done)
    )
    assert again == first
    assert not told
    assert (cache / "train.npy").stat() == before


def test_a_prepared_dataset_is_opened_and_not_cached(raw_folder: Path, tmp_path: Path) -> None:
    prepared = preprocess(raw_folder, tmp_path / "prepared", size=32)
    cache = tmp_path / "cache"
    dataset = open_or_prepare(tmp_path / "prepared", cache, images=Images.SCANS, size=99)
    assert dataset == prepared
    assert not cache.exists()


def add_slice(raw: Path) -> None:
    path = raw / "keras_png_slices_train" / "case_003_slice_4.nii.png"
    Image.fromarray(draw_phantom(np.random.default_rng(1))).save(path)


def remove_slice(raw: Path) -> None:
    last_slice(raw).unlink()


def change_slice(raw: Path) -> None:
    Image.fromarray(draw_phantom(np.random.default_rng(1), margin=2)).save(first_slice(raw))


def rename_subject(raw: Path) -> None:
    for path in sorted((raw / "keras_png_slices_train").glob("case_003_*")):
        path.rename(path.with_name(path.name.replace("003", "009")))


def move_subject(raw: Path) -> None:
    for path in sorted((raw / "keras_png_slices_train").glob("case_003_*")):
        path.rename(raw / "keras_png_slices_validate" / path.name)


@pytest.mark.parametrize(
    "change",
    [add_slice, remove_slice, change_slice, rename_subject, move_subject],
    ids=lambda f: f.__name__,
)
def test_a_changed_raw_folder_is_noticed(raw_folder: Path, tmp_path: Path, change) -> None:
    cache = tmp_path / "cache"
    open_or_prepare(raw_folder, cache, images=Images.SCANS, size=64)
    assert is_prepared_from(cache, raw_folder, Images.SCANS, 64)
    change(raw_folder)
    assert not is_prepared_from(cache, raw_folder, Images.SCANS, 64)
    dataset = open_or_prepare(raw_folder, cache, images=Images.SCANS, size=64)
    found = [s for s in find_members(raw_folder, Images.SCANS).members if s.split == "train"]
    assert sources(dataset, "train") == [s.path.relative_to(raw_folder).as_posix() for s in found]
    np.testing.assert_array_equal(
        dataset.array("train")[0], np.asarray(Image.open(first_slice(raw_folder)))
    )


def test_other_settings_or_another_folder_are_noticed(raw_folder: Path, tmp_path: Path) -> None:
    write_raw_folder(raw_folder, {"train": [1]}, kind="seg")
    other = write_raw_folder(tmp_path / "other", {"train": [1, 2, 3], "validate": [4, 5]})
    cache = tmp_path / "cache"
    open_or_prepare(raw_folder, cache, images=Images.SCANS, size=32)
    assert is_prepared_from(cache, raw_folder, Images.SCANS, 32)
    assert not is_prepared_from(cache, raw_folder, Images.SCANS, 48)
    assert not is_prepared_from(cache, raw_folder, Images.SEGMENTATIONS, 32)
    assert not is_prepared_from(cache, other, Images.SCANS, 32)
    assert not is_prepared_from(tmp_path / "missing", raw_folder, Images.SCANS, 32)
    dataset = open_or_prepare(raw_folder, cache, images=Images.SEGMENTATIONS, size=48)
    assert (dataset.images, dataset.size) == (Images.SEGMENTATIONS, 48)


def test_a_cache_folder_with_something_else_is_left(raw_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "notes.txt").write_text("mine")
    with pytest.raises(FileError, match="is no prepared dataset"):
        open_or_prepare(raw_folder, tmp_path / "cache", images=Images.SCANS, size=32)
    assert (tmp_path / "cache" / "notes.txt").read_text() == "mine"
