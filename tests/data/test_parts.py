"""Many volumes at a time: interrupted, gone on with, and some of them bad."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from trees import draw_head, six_scans, spoil, write_nifti

from oasisvq.data.layouts import Images
from oasisvq.data.preprocess import open_or_prepare, preprocess
from oasisvq.data.recipe import Recipe, Slices
from oasisvq.errors import DatasetError, FileError, ImageError, OasisVQError


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    return six_scans(tmp_path / "scans")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


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
    work = tmp_path / ".data.parts"
    while not (work.is_dir() and len(list(work.glob("*.npz"))) >= 3):
        assert process.poll() is None
        time.sleep(0.005)
    children = children_of(process.pid)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "data").exists()
    while any(is_running(child) for child in children):  # none is left behind
        time.sleep(0.02)
    said: list[str] = []
    preprocess(scans, tmp_path / "data", tell=said.append).verify()
    assert any("were done before" in line for line in said)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "scans"]


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
