"""Raw folders of volumes -> prepared datasets."""

import json
from pathlib import Path

import numpy as np
import pytest
from trees import (
    HIGH_MARK,
    MARK,
    SIDES,
    TREES,
    draw_head,
    oasis1,
    oasis3,
    six_scans,
    write_analyze,
    write_nifti,
)

from oasisvq.data.dataset import Dataset, manifest_bytes, open_dataset
from oasisvq.data.layouts import Images
from oasisvq.data.preprocess import is_prepared_from, open_or_prepare, preprocess
from oasisvq.data.recipe import Recipe, Slices
from oasisvq.errors import DatasetError


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    return six_scans(tmp_path / "scans")


EVERY = Recipe(slices=Slices(0, (0, 999)))


def slices_of(dataset: Dataset) -> dict[str, dict[int, np.ndarray]]:
    """Slices without their padding, by source and number."""
    found: dict[str, dict[int, np.ndarray]] = {}
    for split in dataset.splits:
        for record, plane in zip(dataset.splits[split].records, dataset.array(split), strict=True):
            top, left = ((dataset.size - side) // 2 for side in record.source_shape)
            inner = plane[top : top + record.source_shape[0], left : left + record.source_shape[1]]
            found.setdefault(record.source, {})[record.slice_number] = inner
    return found


# every layout
@pytest.mark.parametrize("key", [key for key in TREES if key != "kaggle"])
def test_the_mark_lies_on_the_same_side_for_each_layout(tmp_path: Path, key: str) -> None:
    dataset = preprocess(TREES[key](tmp_path / "raw"), tmp_path / "prepared", recipe=EVERY)
    slices = slices_of(dataset)
    assert len(slices) >= 3
    for source, planes in slices.items():
        assert sorted(planes) == list(range(SIDES[2])), source
        for number in (8, 14):
            assert planes[number].shape[1] == SIDES[1]
            right, left = planes[number][MARK], planes[number][::-1][MARK]
            assert right.mean() > left.mean() + 60, (source, number)
        high, low = (planes[number][HIGH_MARK[:2]].mean() for number in (21, 8))
        assert high > low + 60, source


def test_kaggle_slices_stay_as_they_are(tmp_path: Path) -> None:
    dataset = preprocess(TREES["kaggle"](tmp_path / "raw"), tmp_path / "prepared", size=64)
    records = [record for split in dataset.splits.values() for record in split.records]
    assert len(records) == 24
    assert {record.subject for record in records} == {"OAS1_0001", "OAS1_0003", "OAS1_0028"}
    for split in dataset.splits.values():
        numbers = [record.slice_number for record in split.records]
        assert numbers == [99, 100, 101] * (len(numbers) // 3)
    assert not dataset.volumes


@pytest.mark.parametrize("key", TREES)
@pytest.mark.parametrize("images", [Images.SKULL_STRIPPED, Images.SEGMENTATIONS])
def test_stripped_volumes_and_segmentations_of_each_layout(
    tmp_path: Path, key: str, images: Images
) -> None:
    raw = TREES[key](tmp_path / "raw")
    if key in ("oasis2", "oasis3", "kaggle", "bids"):
        with pytest.raises(DatasetError, match=f"no {images.value} in it"):
            preprocess(raw, tmp_path / "prepared", images=images)
        return
    dataset = preprocess(raw, tmp_path / "prepared", images=images, size=64)
    assert dataset.images is images
    if images is Images.SEGMENTATIONS:
        assert dataset.labels == ((0, 0), (1, 85), (2, 170), (3, 255))
        levels = {int(level) for split in dataset.splits for level in np.unique(dataset.array(split))}
        assert levels == {0, 85, 170, 255}


@pytest.mark.parametrize("key", TREES)
def test_a_raw_folder_of_each_layout_can_be_trained_on(tmp_path: Path, key: str) -> None:
    raw, cache = TREES[key](tmp_path / "raw"), tmp_path / "run" / "dataset"
    cache.parent.mkdir()
    dataset = open_or_prepare(raw, cache, images=Images.SCANS, size=64)
    dataset.verify()
    assert set(dataset.splits) >= {"train", "validation"}
    assert is_prepared_from(cache, raw, Images.SCANS, 64)
    before = (cache / "train.npy").stat()
    assert open_or_prepare(raw, cache, images=Images.SCANS, size=64) == dataset
    assert (cache / "train.npy").stat() == before


def test_scans_and_segmentations_are_cut_at_the_same_places(tmp_path: Path) -> None:
    raw = oasis1(tmp_path / "raw")
    recipe = Recipe(slices=Slices(5))
    scans, labels = (
        preprocess(raw, tmp_path / images.value, images=images, size=64, recipe=recipe)
        for images in (Images.SCANS, Images.SEGMENTATIONS)
    )
    places = {(r.subject, r.slice_number, s) for s in scans.splits for r in scans.splits[s].records}
    for split in labels.splits:
        assert {(r.subject, r.slice_number, split) for r in labels.splits[split].records} <= places


# the manifest
def test_the_manifest_tells_how_each_volume_was_made(tmp_path: Path) -> None:
    dataset = preprocess(oasis3(tmp_path / "raw"), tmp_path / "prepared", recipe=Recipe(seed=5), size=64)
    assert open_dataset(dataset.folder) == dataset
    assert manifest_bytes(dataset) == (dataset.folder / "manifest.json").read_bytes()
    assert dataset.layout == "OASIS-3"
    assert dataset.recipe == Recipe(seed=5)
    volumes = {volume.source.split("/")[-1]: volume for volume in dataset.volumes}
    first = volumes["sub-OAS30001_ses-d0129_run-01_T1w.nii.gz"]
    assert (first.session, first.variant, first.axis_codes) == ("d0129", "T1w", "PSR")
    assert first.voxel_size == (1, 1, 1)
    assert first.intensity is not None
    assert 100 < first.intensity[0] < first.intensity[1] == 900
    sources = {r.source for split in dataset.splits.values() for r in split.records}
    assert {volume.source for volume in dataset.volumes} == sources


def test_a_manifest_of_before_there_were_volumes_opens(scans: Path, tmp_path: Path) -> None:
    dataset = preprocess(scans, tmp_path / "prepared", size=64)
    path = dataset.folder / "manifest.json"
    fields = json.loads(path.read_bytes())
    for key in ("recipe", "labels", "volumes"):
        del fields[key]
    path.write_text(json.dumps(fields))
    old = open_dataset(dataset.folder)
    assert (old.splits, old.recipe, old.volumes) == (dataset.splits, Recipe(), ())


@pytest.mark.parametrize(
    "change",
    [
        {"recipe": None},
        {"recipe": {}},
        {"recipe": {**Recipe().as_dict(), "slices": "none"}},
        {"recipe": {**Recipe().as_dict(), "layout": "oasis9"}},
        {"recipe": {**Recipe().as_dict(), "percentiles": [1]}},
        {"labels": [[1, 2, 3]]},
        {"labels": [["a", 2]]},
        {"volumes": [{}]},
        {"volumes": [3]},
    ],
    ids=str,
)
def test_a_damaged_manifest_of_volumes_is_refused(
    scans: Path, tmp_path: Path, change: dict[str, object]
) -> None:
    dataset = preprocess(scans, tmp_path / "prepared", size=64)
    path = dataset.folder / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_bytes()), **change}))
    with pytest.raises(DatasetError, match="damaged manifest"):
        open_dataset(dataset.folder)


def test_many_labels_have_a_grey_level_each(tmp_path: Path) -> None:
    labels = np.arange(24 * 30 * 28).reshape(24, 30, 28) % 36
    write_nifti(tmp_path / "raw" / "OAS1_0001_seg35.nii.gz", labels.astype(np.uint8))
    dataset = preprocess(
        tmp_path / "raw", tmp_path / "prepared", images=Images.SEGMENTATIONS, recipe=EVERY
    )
    assert [label for label, _ in dataset.labels] == list(range(36))
    levels = [level for _, level in dataset.labels]
    assert (levels[0], levels[-1]) == (0, 255)
    assert set(np.diff(levels)) == {7, 8}
    back = {level: label for label, level in dataset.labels}
    (planes,) = slices_of(dataset).values()
    np.testing.assert_array_equal(np.vectorize(back.get)(planes[5]), labels[:, :, 5])


def test_files_that_change_are_noticed(tmp_path: Path) -> None:
    """The voxels of a pair, too, although its header is what is named."""
    raw, cache = tmp_path / "raw", tmp_path / "cache"
    path = write_analyze(raw / "OAS1_0001_MR1_mpr-1_anon.hdr", draw_head(), "ASL")
    open_or_prepare(raw, cache, images=Images.SCANS, size=64)
    assert is_prepared_from(cache, raw, Images.SCANS, 64)
    path.with_suffix(".img").write_bytes(path.with_suffix(".img").read_bytes() + b"more")
    assert not is_prepared_from(cache, raw, Images.SCANS, 64)


def test_other_choices_are_noticed(scans: Path, tmp_path: Path) -> None:
    preprocess(scans, tmp_path / "cache", size=64, recipe=Recipe(slices=Slices(3)))
    assert not is_prepared_from(tmp_path / "cache", scans, Images.SCANS, 64)
