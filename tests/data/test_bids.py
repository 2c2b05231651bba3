"""BIDS folders -> the files to take."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from trees import bids, draw_head, write_nifti, write_series

from oasisvq.data.bids import read_name
from oasisvq.data.found import Found
from oasisvq.data.layouts import Images
from oasisvq.data.members import find_members
from oasisvq.data.preprocess import look, preprocess
from oasisvq.data.recipe import Recipe, Slices
from oasisvq.errors import DatasetError


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset with derivatives; only looked at."""
    return bids(tmp_path_factory.mktemp("bids") / "study")


def taken(found: Found) -> dict[str, str]:
    return {f"{s.subject} {s.session}".strip(): s.path.name for s in found.members}


def test_bids_t1w_of_each_session_is_taken_and_the_rest_is_counted_by_suffix(tree: Path) -> None:
    found = find_members(tree, Images.SCANS)
    assert found.layout.key == "bids"
    assert taken(found) == {
        "sub-01 a": "sub-01_ses-a_run-1_T1w.nii.gz",
        "sub-01 b": "sub-01_ses-b_run-1_T1w.nii.gz",
        "sub-02 a": "sub-02_ses-a_run-1_T1w.nii.gz",
    }
    assert found.left_out == Counter(
        {
            "further T1w of a session": 3,
            "T2w": 3,
            "magnitude1": 3,
            "bold (series of volumes)": 3,
            ".json files": 4,
            ".tsv files": 1,
            "desc-preproc_T1w of derivatives": 3,
            "space-MNI152Lin_desc-preproc_T1w of derivatives": 3,
            "desc-brain_mask of derivatives (segmentations)": 3,
            "space-MNI152Lin_desc-brain_mask of derivatives (segmentations)": 3,
            "dseg of derivatives (segmentations)": 3,
            "space-MNI152Lin_dseg of derivatives (segmentations)": 3,
            "desc-aparcaseg_dseg of derivatives (segmentations)": 3,
            "probseg of derivatives (probabilities)": 6,
        }
    )
    assert str(found).startswith("BIDS, scans: 3 T1w of 3 sessions of 2 subjects, split 80/10/10")


def test_bids_says_of_each_kind_what_is_taken_and_what_is_not(tree: Path) -> None:
    lines = find_members(tree, Images.SCANS).files_of_each_kind()
    assert lines[0] == "taken: 3 T1w, such as sub-01/ses-a/anat/sub-01_ses-a_run-1_T1w.nii.gz"
    assert "left out: 3 T2w, such as sub-01/ses-a/anat/sub-01_ses-a_T2w.nii.gz" in lines
    assert sum(line.startswith("left out: ") for line in lines) == len(lines) - 1 == 14


def test_bids_other_contrasts_are_taken_where_they_are_asked_for(tree: Path) -> None:
    found = find_members(tree, Images.SCANS, Recipe(variant="T2w"))
    assert set(taken(found).values()) == {
        "sub-01_ses-a_T2w.nii.gz",
        "sub-01_ses-b_T2w.nii.gz",
        "sub-02_ses-a_T2w.nii.gz",
    }
    assert found.left_out["T1w"] == 6
    with pytest.raises(DatasetError, match=r"variant 'FLAIR'; BIDS has .*T1w"):
        find_members(tree, Images.SCANS, Recipe(variant="FLAIR"))
    with pytest.raises(DatasetError, match="bold holds series of volumes; choose another"):
        find_members(tree, Images.SCANS, Recipe(variant="bold"))


def test_bids_derivatives_are_taken_where_they_are_pointed_at(tree: Path) -> None:
    with pytest.raises(
        DatasetError, match=r"no segmentations .*name the folder, such as derivatives/fmriprep"
    ):
        find_members(tree, Images.SEGMENTATIONS)
    made = tree / "derivatives" / "fmriprep"
    scans, labels = find_members(made, Images.SCANS), find_members(made, Images.SEGMENTATIONS)
    assert taken(scans)["sub-02 a"] == "sub-02_ses-a_desc-preproc_T1w.nii.gz"
    assert taken(labels)["sub-02 a"] == "sub-02_ses-a_dseg.nii.gz"
    assert len(taken(scans)) == len(taken(labels)) == 3
    assert [s.guide for s in scans.members] == [s.path for s in labels.members]
    aparc = find_members(made, Images.SEGMENTATIONS, Recipe(variant="desc-aparcaseg_dseg"))
    assert taken(aparc)["sub-01 b"] == "sub-01_ses-b_desc-aparcaseg_dseg.nii.gz"
    assert taken(find_members(tree / "derivatives", Images.SCANS)) == taken(scans)


def test_bids_becomes_a_dataset(tree: Path, tmp_path: Path) -> None:
    recipe = Recipe(slices=Slices(3))
    dataset = preprocess(tree, tmp_path / "scans", size=64, recipe=recipe)
    assert sum(len(split.records) for split in dataset.splits.values()) == 9
    labels = preprocess(
        tree / "derivatives" / "fmriprep",
        tmp_path / "labels",
        images=Images.SEGMENTATIONS,
        size=64,
        recipe=recipe,
    )
    assert [label for label, _ in labels.labels] == [0, 1, 2, 3]


def test_bids_series_named_as_a_scan_is_listed_and_left_out(tmp_path: Path) -> None:
    bids(tmp_path / "raw")
    path = next((tmp_path / "raw").rglob("sub-02*run-1_T1w.nii.gz"))
    write_series(path, np.ones((9, 9, 9, 4), np.int16))
    failures: list[Exception] = []
    preprocess(tmp_path / "raw", tmp_path / "data", size=64, failed=failures.append)
    (failure,) = failures
    assert path.name in str(failure)
    assert "holds 4 volumes, expected one; take one out first" in str(failure)


@pytest.mark.parametrize(
    ("name", "kind", "holds", "by_default"),
    [
        ("sub-01_T1w.nii.gz", "T1w", "scans", True),
        ("sub-01_ses-2_acq-mprage_rec-norm_run-1_T1w.nii", "T1w", "scans", True),
        ("sub-01_FLAIR.nii.gz", "FLAIR", "scans", False),
        ("sub-01_desc-preproc_T1w.nii.gz", "desc-preproc_T1w", "scans", True),
        ("sub-01_desc-smooth_T1w.nii.gz", "desc-smooth_T1w", "scans", False),
        ("sub-01_desc-brain_T1w.nii.gz", "desc-brain_T1w", "skull-stripped", True),
        ("sub-01_part-phase_T1w.nii.gz", "part-phase_T1w", "phase of complex values", False),
        ("sub-01_part-mag_T1w.nii.gz", "part-mag_T1w", "scans", True),
        ("sub-01_dseg.nii.gz", "dseg", "segmentations", True),
        ("sub-01_desc-brain_mask.nii.gz", "desc-brain_mask", "segmentations", True),
        ("sub-01_mod-T1w_defacemask.nii.gz", "defacemask", "segmentations", True),
        ("sub-01_label-L_roi.nii.gz", "label-L_roi", "segmentations", True),
        ("sub-01_T1w_label-lesion_roi.nii.gz", "label-lesion_roi", "segmentations", True),
        ("sub-01_wmh.nii.gz", "wmh", "segmentations", True),
        ("sub-01_groundtruth.nii.gz", "groundtruth", "segmentations", True),
        ("sub-01_space-MNI_label-WM_probseg.nii.gz", "probseg", "probabilities", False),
        ("sub-01_task-rest_bold.nii.gz", "bold", "series of volumes", False),
        ("sub-01_dwi.nii.gz", "dwi", "series of volumes", False),
    ],
)
def test_bids_names(name: str, kind: str, holds: str, by_default: bool) -> None:
    told = read_name(f"sub-01/anat/{name}")
    assert told is not None
    assert (told.kind, told.holds, told.by_default) == (kind, holds, by_default)


@pytest.mark.parametrize(
    "name", ["sub-01.nii.gz", "T1w.nii.gz", "sub-01_T1w.json", "sub-01_ses-2.nii.gz", "xsub-01_T1w.nii"]
)
def test_names_that_are_not_of_bids(name: str) -> None:
    assert read_name(name) is None


def test_lesions_do_not_show_where_the_brain_is() -> None:
    spaces = {
        name: told.space
        for name in ("T1w", "dseg", "desc-brain_mask", "roi", "label-lesion_mask", "label-lesion_dseg")
        if (told := read_name(f"sub-1_{name}.nii.gz"))
    }
    assert {name for name, space in spaces.items() if space} == {"T1w", "dseg", "desc-brain_mask"}


def test_anonymous_files_in_folders_of_bids_are_no_bids(tmp_path: Path) -> None:
    (tmp_path / "sub-01" / "anat").mkdir(parents=True)
    (tmp_path / "sub-01" / "anat" / "scan.nii.gz").touch()
    found = find_members(tmp_path, Images.SCANS)
    assert (found.layout.key, taken(found)) == ("anything", {"sub-01": "scan.nii.gz"})


def test_bids_subject_in_two_given_splits_is_refused(tmp_path: Path) -> None:
    for split, subject in (("train", "01"), ("train", "02"), ("test", "01")):
        path = tmp_path / split / f"sub-{subject}" / "anat" / f"sub-{subject}_T1w.nii.gz"
        path.parent.mkdir(parents=True)
        path.touch()
    with pytest.raises(DatasetError, match="subject sub-01 is in the splits train and test"):
        look(tmp_path)


def test_bids_scan_beside_a_bad_segmentation_is_taken_all_the_same(tmp_path: Path) -> None:
    for subject in ("01", "02"):
        folder = tmp_path / "raw" / f"sub-{subject}" / "anat"
        write_nifti(folder / f"sub-{subject}_T1w.nii.gz", draw_head())
    write_nifti(folder / "sub-02_dseg.nii.gz", np.zeros_like(draw_head()))
    said: list[str] = []
    dataset = preprocess(tmp_path / "raw", tmp_path / "data", size=32, tell=said.append)
    assert {r.subject for s in dataset.splits.values() for r in s.records} == {"sub-01", "sub-02"}
    assert "slices of 1 scan are spread over the whole head" in said[-1]
    assert "sub-02_dseg.nii.gz: every voxel is 0" in said[-1]
