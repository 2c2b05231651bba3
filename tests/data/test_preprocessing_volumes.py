"""`oasisvq preprocess` of raw folders of volumes."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import Result
from trees import draw_head, oasis1, oasis3, six_scans, spoil, write_nifti

from oasisvq.data.dataset import open_dataset


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    return six_scans(tmp_path / "scans")


Run = Callable[..., Result]


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
    first, *lines = result.out.splitlines()
    assert first == (
        "dataset raw: OASIS-3, scans: 3 T1w of 3 sessions of 2 subjects, split 50/50/0 with seed 0; "
        "left out: 3 T2w, 1 FLAIR, 1 further T1w of a session"
    )
    places = [line.split(":")[0] for line in lines]
    assert places == ["train", "validation", "taken", "left out", "left out", "left out"]
    assert lines[3].startswith("left out: 3 T2w, such as OAS30001_MR_d0129/anat1/sub-OAS30001_ses-")
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]


def test_files_of_no_subject_are_said(run: Run, scans: Path, tmp_path: Path) -> None:
    for number, path in enumerate(sorted(scans.iterdir())):
        path.rename(scans / f"scan{number}.nii.gz")
    refused = run("preprocess", scans, "-o", "data", "--size", "64")
    assert (refused.code, refused.out) == (1, "")
    assert "6 of 6 files do not tell whose scan they are, first scan0.nii.gz" in refused.err
    assert not (tmp_path / "data").exists()
    guessed = run("preprocess", scans, "-o", "data", "--size", "64", "--guess-subjects")
    assert guessed.code == 0
    assert "guessed 6 subjects" in guessed.err
    (tmp_path / "table.tsv").write_text("file\tsubject\nscan0\ta\nscan1\ta\nscan2\tb\nscan3\tb\n")
    partly = run("preprocess", scans, "-o", "other", "--size", "64", "--subjects", "table.tsv")
    assert (partly.code, partly.out) == (1, "")
    assert partly.err == "oasisvq: table.tsv: names no subject for scan4.nii.gz; add a line for it\n"


def test_headers_that_leave_the_sides_open_are_said(run: Run, tmp_path: Path) -> None:
    oasis3(tmp_path / "raw")
    result = run("preprocess", "raw", "-o", "data", "--size", "64")
    assert "1 with qform and sform code 0, whose left side is guessed by convention" in result.err
    assert "sub-OAS30001_sess-d0757_T1w.nii.gz" in result.err


def test_volumes_wider_than_a_slice_are_said(run: Run, tmp_path: Path) -> None:
    wide = np.pad(draw_head(), ((0, 0), (120, 120), (0, 0)))
    for subject, head in (("sub-1", draw_head()), ("sub-2", wide)):
        write_nifti(tmp_path / "raw" / "train" / f"{subject}.nii.gz", head)
    result = run("preprocess", "raw", "-o", "data", "--size", "64")
    assert result.code == 0
    assert "1 volume wider than 256 mm and shrunk to that" in result.err
    assert "first, train/sub-2.nii.gz" in result.err


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
