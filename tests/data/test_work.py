"""The folder in which a dataset is made: one process at a time, and what a kill leaves is undone."""

import os
from pathlib import Path

import pytest
from conftest import write_raw_folder

from oasisvq.data.preprocess import preprocess
from oasisvq.data.work import Work, working_on
from oasisvq.errors import FileError, ImageError


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    return write_raw_folder(tmp_path / "raw", {"train": [1], "validate": [2]}, slices=2, size=32)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_only_one_process_makes_an_output(raw: Path, tmp_path: Path) -> None:
    with (
        working_on(tmp_path / "data", force=False) as work,
        pytest.raises(FileError, match="data: another process is making it; wait for its end"),
    ):
        preprocess(raw, tmp_path / "data", size=32)
    assert not work.folder.exists()
    preprocess(raw, tmp_path / "data", size=32).verify()


def test_a_dataset_that_was_renamed_away_when_a_run_was_killed_comes_back(
    raw: Path, tmp_path: Path
) -> None:
    preprocess(raw, tmp_path / "data", size=32)
    before = contents(tmp_path / "data")
    work = Work(tmp_path / "data")
    work.folder.mkdir()
    (tmp_path / "data").rename(work.old)
    work.new.mkdir()
    with pytest.raises(FileError, match="exists; pass -f"):
        preprocess(raw, tmp_path / "data", size=48)
    assert contents(tmp_path / "data") == before
    assert not work.folder.exists()


def test_an_output_that_cannot_be_put_in_place_leaves_the_old_one(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    preprocess(raw, tmp_path / "data", size=32)
    before, replace = contents(tmp_path / "data"), Path.replace

    def failing(self: Path, target: Path) -> Path:
        if self.name == "new":
            raise OSError(5, os.strerror(5))
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", failing)
    with pytest.raises(FileError, match="data: cannot be written: Input/output error"):
        preprocess(raw, tmp_path / "data", size=48, force=True)
    assert contents(tmp_path / "data") == before
    assert {path.name for path in tmp_path.iterdir()} == {"data", "raw"}


def test_an_empty_folder_in_which_somebody_is_stays_the_same_folder(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path / "data")
    preprocess(raw, Path(), size=32).verify()
    assert Path.cwd() == tmp_path / "data"
    assert {path.name for path in Path().iterdir()} == {"manifest.json", "train.npy", "validation.npy"}
    with pytest.raises(FileError, match="you are in this folder, which is replaced; go elsewhere first"):
        preprocess(raw, Path(), size=48, force=True)
    assert {path.name for path in tmp_path.iterdir()} == {"data", "raw"}


def test_what_an_interrupted_run_had_done_outlives_a_refusal(raw: Path, tmp_path: Path) -> None:
    preprocess(raw, tmp_path / "data", size=32)

    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        preprocess(raw, tmp_path / "data", size=48, force=True, advance=interrupt)
    with pytest.raises(FileError, match="exists; pass -f"):
        preprocess(raw, tmp_path / "data", size=48)
    said: list[str] = []
    preprocess(raw, tmp_path / "data", size=48, force=True, tell=said.append)
    assert said[-1] == "dataset: goes on, 2 of 4 files were done before"


def test_links_are_followed_and_circles_refused(raw: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    preprocess(raw, tmp_path / "link", size=32).verify()
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "elsewhere" / "manifest.json").is_file()
    (tmp_path / "circle").symlink_to("circle")
    with pytest.raises(FileError, match="a link that leads in a circle"):
        preprocess(raw, tmp_path / "circle", size=32)
    assert {path.name for path in tmp_path.iterdir()} == {"raw", "link", "elsewhere", "circle"}


def test_a_file_that_changes_while_it_is_read_is_refused(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from oasisvq.data import parts

    path, cut_stack = raw / "keras_png_slices_train" / "case_001_slice_1.nii.png", parts.cut_stack

    def changing(*arguments, **options):
        cut = cut_stack(*arguments, **options)
        path.write_bytes(path.read_bytes() + b"x")
        return cut

    monkeypatch.setattr(parts, "cut_stack", changing)
    with pytest.raises(ImageError, match=r"slice_1\.nii\.png: changed while it was read; run again"):
        preprocess(raw, tmp_path / "data", size=32)
    assert {path.name for path in tmp_path.iterdir()} == {"raw"}
