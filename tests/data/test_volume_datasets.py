"""Raw folders of volumes -> prepared datasets, and the command that makes them."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import Result
from trees import HIGH_MARK, MARK, SIDES, TREES, draw_head, oasis1, oasis3, write_analyze, write_nifti

from oasisvq.data import parts
from oasisvq.data.dataset import Dataset, manifest_bytes, open_dataset
from oasisvq.data.layouts import Images
from oasisvq.data.preprocess import is_prepared_from, open_or_prepare, preprocess
from oasisvq.data.recipe import Recipe, Slices
from oasisvq.errors import DatasetError, FileError, ImageError, OasisVQError

Run = Callable[..., Result]
EVERY = Recipe(slices=Slices(0, (0, 999)))


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """Six volumes of six persons."""
    for number in range(1, 7):
        path = tmp_path / "scans" / f"OAS1_{number:04d}_MR1_scan.nii.gz"
        write_nifti(path, draw_head(seed=number), ("LAS", "PSR")[number % 2])
    return tmp_path / "scans"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


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
    if key in ("oasis2", "oasis3", "kaggle"):
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


# many at a time, and interrupted


def test_the_number_of_jobs_changes_no_byte(scans: Path, tmp_path: Path) -> None:
    first = preprocess(scans, tmp_path / "one", size=64)
    second = preprocess(scans, tmp_path / "two", size=64, jobs=2)
    assert contents(first.folder) == contents(second.folder)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "scans", "two"]


def interrupted_after(count: int) -> Callable[[int, int], None]:
    def advance(done: int, total: int) -> None:
        if done == count:
            raise KeyboardInterrupt

    return advance


@pytest.mark.parametrize("jobs", [1, 2])
def test_what_is_done_and_unchanged_is_skipped(scans: Path, tmp_path: Path, jobs: int) -> None:
    straight = preprocess(scans, tmp_path / "straight", size=64)
    with pytest.raises(KeyboardInterrupt):
        preprocess(scans, tmp_path / "data", size=64, jobs=jobs, advance=interrupted_after(3))
    made: list[int] = []
    said: list[str] = []
    preprocess(
        scans,
        tmp_path / "data",
        size=64,
        advance=lambda done, _: made.append(done),
        tell=said.append,
    )
    assert made[0] >= 3
    assert said[-1] == f"dataset: goes on, {made[0]} of 6 files were done before"
    assert contents(tmp_path / "data") == contents(straight.folder)


def change_content(scans: Path) -> Recipe:
    for path in scans.iterdir():
        write_nifti(path, draw_head(seed=99))
    return Recipe()


def change_dates(scans: Path) -> Recipe:
    for path in scans.iterdir():
        os.utime(path, (1, 1))
    return Recipe()


def change_recipe(scans: Path) -> Recipe:
    return Recipe(slices=Slices(7))


@pytest.mark.parametrize("change", [change_content, change_dates, change_recipe])
def test_what_has_changed_is_made_again(
    scans: Path, tmp_path: Path, change: Callable[[Path], Recipe]
) -> None:
    with pytest.raises(KeyboardInterrupt):
        preprocess(scans, tmp_path / "data", size=64, advance=interrupted_after(3))
    recipe = change(scans)
    made: list[int] = []
    preprocess(
        scans, tmp_path / "data", size=64, recipe=recipe, advance=lambda done, _: made.append(done)
    )
    assert made == [1, 2, 3, 4, 5, 6]
    preprocess(scans, tmp_path / "fresh", size=64, recipe=recipe)
    assert contents(tmp_path / "data") == contents(tmp_path / "fresh")


@pytest.mark.parametrize("keep", [0, 100, -1])
def test_a_damaged_part_is_made_again(scans: Path, tmp_path: Path, keep: int) -> None:
    with pytest.raises(KeyboardInterrupt):
        preprocess(scans, tmp_path / "data", size=64, advance=interrupted_after(3))
    for part in (tmp_path / ".data.parts").iterdir():
        part.write_bytes(part.read_bytes()[:keep])
    preprocess(scans, tmp_path / "data", size=64)
    preprocess(scans, tmp_path / "fresh", size=64)
    assert contents(tmp_path / "data") == contents(tmp_path / "fresh")


def children_of(process: int) -> list[int]:
    listing = Path(f"/proc/{process}/task/{process}/children")
    return [int(child) for child in listing.read_text().split()] if listing.is_file() else []


def is_running(process: int) -> bool:
    status = Path(f"/proc/{process}/stat")
    try:
        return status.read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_a_killed_run_goes_on(scans: Path, tmp_path: Path) -> None:
    for number in range(7, 40):
        shutil.copy(scans / "OAS1_0001_MR1_scan.nii.gz", scans / f"OAS1_{number:04d}_MR1_scan.nii.gz")
    command = [
        sys.executable,
        "-m",
        "oasisvq",
        "preprocess",
        scans,
        "-o",
        tmp_path / "data",
        "--jobs",
        "1",
    ]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    work = tmp_path / ".data.parts"
    while not (work.is_dir() and len(list(work.glob("*.npz"))) >= 3):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.005)
    children = children_of(process.pid)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "data").exists()
    while any(is_running(child) for child in children):  # none is left behind
        assert time.monotonic() < deadline
        time.sleep(0.02)
    said: list[str] = []
    preprocess(scans, tmp_path / "data", tell=said.append).verify()
    assert any("were done before" in line for line in said)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "scans"]


def end_at_once(maker: object, part: object) -> None:
    os._exit(1)


def test_a_process_that_is_ended_from_outside_is_said(
    scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    monkeypatch.setattr(parts.Maker, "make", end_at_once)
    monkeypatch.setattr(
        parts,
        "ProcessPoolExecutor",
        lambda jobs, _, start: ProcessPoolExecutor(jobs, get_context("fork")),
    )
    with pytest.raises(DatasetError, match=r"was ended from outside.* fewer than --jobs 2"):
        preprocess(scans, tmp_path / "data", size=64, jobs=2)


# bad files


def spoil(scans: Path) -> dict[str, str]:
    """Make four of the six unusable; gives their names and what is wrong."""
    nan = draw_head().astype(np.float32)
    nan[5, 5, 5] = np.nan
    write_nifti(scans / "OAS1_0001_MR1_scan.nii.gz", nan)
    (scans / "OAS1_0002_MR1_scan.nii.gz").write_bytes(b"")
    content = (scans / "OAS1_0003_MR1_scan.nii.gz").read_bytes()
    (scans / "OAS1_0003_MR1_scan.nii.gz").write_bytes(content[:-2000])
    (scans / "OAS1_0004_MR1_scan.nii.gz").unlink()
    write_analyze(scans / "OAS1_0004_MR1_scan.hdr", draw_head(), "LAS").with_suffix(".img").unlink()
    return {
        "OAS1_0001_MR1_scan.nii.gz": "NaN",
        "OAS1_0002_MR1_scan.nii.gz": "an empty file",
        "OAS1_0003_MR1_scan.nii.gz": "truncated",
        "OAS1_0004_MR1_scan.hdr": "half of a pair",
    }


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_bulk_run_goes_on_after_bad_files_and_names_them(
    scans: Path, tmp_path: Path, jobs: int
) -> None:
    bad = spoil(scans)
    failures: list[OasisVQError] = []
    dataset = preprocess(scans, tmp_path / "data", size=64, jobs=jobs, failed=failures.append)
    assert len(failures) == 4
    for name, reason in bad.items():
        assert any(name in str(error) and reason in str(error) for error in failures)
    kept = {r.subject for split in dataset.splits.values() for r in split.records}
    assert kept == {"OAS1_0005", "OAS1_0006"}


def test_without_somebody_to_tell_the_first_bad_file_stops_the_run(scans: Path, tmp_path: Path) -> None:
    spoil(scans)
    with pytest.raises((ImageError, FileError), match="OAS1_000"):
        preprocess(scans, tmp_path / "data", size=64)
    with pytest.raises((ImageError, FileError), match="OAS1_000"):
        open_or_prepare(scans, tmp_path / "data", images=Images.SCANS, size=64)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scans"]


def test_bad_files_alone_make_no_dataset(scans: Path, tmp_path: Path) -> None:
    for path in scans.iterdir():
        path.write_bytes(b"?")
    with pytest.raises(DatasetError, match=r"scans: none of its 6 files can be used; first, .*OAS1_000"):
        preprocess(scans, tmp_path / "data", size=64, failed=lambda error: None)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scans"]


# the command


def test_the_command_says_what_it_found_and_made(run: Run, tmp_path: Path) -> None:
    oasis1(tmp_path / "raw")
    result = run("preprocess", "raw", "-o", "data", "--size", "64", "--slices", "4")
    assert result.code == 0
    assert result.err.splitlines() == [
        "dataset raw: OASIS-1, scans: 3 t88_gfc, 1 sbj_111, 1 mpr of 5 sessions of 4 subjects, split "
        "80/10/10 with seed 0; left out: 9 further mpr of a session, 8 .gif files, 3 fseg "
        "(segmentations), 3 further sbj_111 of a session, 3 t88_masked_gfc (skull-stripped)"
    ]
    lines = result.out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["train", "validation", "test", "data"]
    assert lines[-1] == "data: OASIS-1, scans, 64×64"
    assert sum(int(line.split()[1]) for line in lines[:3]) == 20
    info = json.loads(run("info", "data", "--json").out)
    assert info["layout"] == "OASIS-1"


def test_a_dry_run_writes_nothing(run: Run, tmp_path: Path) -> None:
    oasis3(tmp_path / "raw")
    result = run("preprocess", "raw", "--dry-run", "--split", "50/50/0")
    assert (result.code, result.err) == (0, "")
    first, *splits = result.out.splitlines()
    assert first == (
        "dataset raw: OASIS-3, scans: 3 T1w of 3 sessions of 2 subjects, split 50/50/0 with seed 0; "
        "left out: 3 T2w, 1 FLAIR, 1 further T1w of a session"
    )
    assert [line.split(":")[0] for line in splits] == ["train", "validation"]
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]


def test_files_of_no_subject_are_said(run: Run, scans: Path, tmp_path: Path) -> None:
    for number, path in enumerate(sorted(scans.iterdir())):
        path.rename(scans / f"scan{number}.nii.gz")
    result = run("preprocess", scans, "-o", "data", "--size", "64")
    assert result.code == 0
    assert "each file is its own subject" in result.err
    assert "--subjects" in result.err
    (tmp_path / "table.tsv").write_text("file\tsubject\nscan0\ta\nscan1\ta\nscan2\tb\nscan3\tb\n")
    partly = run("preprocess", scans, "-o", "other", "--size", "64", "--subjects", "table.tsv")
    assert (partly.code, partly.out) == (1, "")
    assert partly.err == "oasisvq: table.tsv: names no subject for scan4.nii.gz; add a line for it\n"


def test_headers_that_leave_the_sides_open_are_said(run: Run, tmp_path: Path) -> None:
    oasis3(tmp_path / "raw")
    result = run("preprocess", "raw", "-o", "data", "--size", "64")
    assert "1 of qform and sform code 0: which side is left is a guess by convention" in result.err
    assert "sub-OAS30001_sess-d0757_T1w.nii.gz" in result.err


def test_bad_files_are_listed_and_the_rest_is_written(run: Run, scans: Path, tmp_path: Path) -> None:
    bad = spoil(scans)
    result = run("preprocess", "scans", "-o", "data", "--size", "64")
    assert result.code == 1
    assert "data: images or volumes, scans, 64×64" in result.out
    lines = result.err.splitlines()
    start = lines.index("4 failed, and data was written without them:")
    assert len(lines) == start + 5
    for name in bad:
        assert sum(name in line for line in lines[start + 1 :]) == 1
    open_dataset(tmp_path / "data").verify()


def test_bad_files_alone_are_one_error(run: Run, scans: Path, tmp_path: Path) -> None:
    for path in scans.iterdir():
        path.write_bytes(b"")
    result = run("preprocess", "scans", "-o", "data")
    assert (result.code, result.out) == (1, "")
    assert result.err.splitlines()[-1].startswith("oasisvq: scans: none of its 6 files can be used")
    assert [path.name for path in tmp_path.iterdir()] == ["scans"]


@pytest.mark.parametrize(
    ("option", "naming"),
    [
        (("--slices", "none"), "slices 'none', expected a count (32)"),
        (("--percentiles", "9"), "percentiles '9'"),
        (("--split", "80"), "split '80'"),
        (("--layout", "oasis9"), "no layout 'oasis9'; expected one of png-slices, oasis1, oasis2"),
        (("--jobs", "0"), "--jobs"),
        (("--seed", "-1"), "--seed"),
    ],
)
def test_a_wrong_option_is_a_usage_error(
    run: Run, scans: Path, tmp_path: Path, option: tuple[str, str], naming: str
) -> None:
    result = run("preprocess", scans, "-o", "data", *option)
    assert (result.code, result.out) == (2, "")
    assert naming in result.err.splitlines()[-1]
    assert not (tmp_path / "data").exists()


def test_score_takes_a_raw_folder_of_volumes(run: Run, model_file: Path, tmp_path: Path) -> None:
    for number in (1, 2, 3):
        path = tmp_path / "raw" / f"OAS3000{number}_MR_d0001" / "anat1" / "a_T1w.nii.gz"
        write_nifti(path, draw_head()[:, :, 12:14])
    result = run("score", "raw", "--model", model_file, "--size", "64", "--json")
    assert result.code == 0
    assert json.loads(result.out)["subjects"] == 1
