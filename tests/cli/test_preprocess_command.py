"""What `preprocess` prints and writes."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from conftest import AFFINE, Refused, Run, draw_volume, files_below, plane, write_raw_folder

from oasisvq.data.dataset import open_dataset


def test_preprocess_prints_the_splits_and_keeps_them(run: Run, raw_folder: Path, tmp_path: Path) -> None:
    result = run("preprocess", raw_folder, "-o", "prepared", "--size", "80")
    assert result.code == 0
    assert result.err == ""
    assert result.out.splitlines() == [
        "train: 12 slices of 3 subjects",
        "validation: 8 slices of 2 subjects",
        "prepared: UQ PNG slices, scans, 80×80",
    ]
    assert np.load(tmp_path / "prepared" / "train.npy").shape == (12, 80, 80)
    slice_in_the_middle = np.load(tmp_path / "prepared" / "validation.npy")[0, 8:-8, 8:-8]
    first = raw_folder / "keras_png_slices_validate" / "case_004_slice_0.nii.png"
    assert (slice_in_the_middle == plane(first)).all()


def test_preprocess_writes_the_same_bytes_again_with_force(
    run: Run, raw_folder: Path, tmp_path: Path
) -> None:
    run("preprocess", raw_folder, "-o", "prepared", "--size", "64")
    before = files_below(tmp_path)
    assert run("preprocess", raw_folder, "-o", "prepared", "--size", "64", "-f").code == 0
    assert files_below(tmp_path) == before


def test_preprocess_takes_the_segmentations_where_asked(run: Run, tmp_path: Path) -> None:
    raw = write_raw_folder(tmp_path / "raw", {"train": [1], "validate": [2]})
    write_raw_folder(raw, {"train": [1, 3], "validate": [2]}, slices=2, kind="seg")
    result = run("preprocess", raw, "-o", "labels", "--images", "segmentations", "--size", "64")
    assert result.code == 0
    assert "train: 4 slices of 2 subjects" in result.out
    assert "labels: UQ PNG slices, segmentations" in result.out
    assert set(np.unique(np.load(tmp_path / "labels" / "train.npy"))) <= {0, 85, 170, 255}


def test_preprocess_cuts_volumes_along_an_axis(
    run: Run, tmp_path: Path, rng: np.random.Generator
) -> None:
    (tmp_path / "raw" / "train").mkdir(parents=True)
    image = nib.Nifti1Image(draw_volume(rng), AFFINE)
    image.to_filename(tmp_path / "raw" / "train" / "OAS1_0001.nii.gz")
    for axis in ("axial", "sagittal"):
        assert run("preprocess", "raw", "-o", axis, "--size", "64", "--axis", axis).code == 0
    axial, sagittal = (open_dataset(Path(axis)) for axis in ("axial", "sagittal"))
    assert (axial.recipe.axis, axial.volumes[0].axis) == ("axial", "axial")
    assert (sagittal.recipe.axis, sagittal.volumes[0].axis) == ("sagittal", "sagittal")
    shapes = [each.splits["train"].records[0].source_shape for each in (axial, sagittal)]
    assert shapes == [(40, 48), (48, 8)]


def test_only_volumes_have_other_axes(refused: Refused, raw_folder: Path) -> None:
    line = refused("preprocess", raw_folder, "-o", "out", "--axis", "coronal", naming="data: keras_png")
    assert "leave out --axis" in line
    refused("preprocess", raw_folder, "--dry-run", "--axis", "coronal", naming="--axis")
    refused("preprocess", raw_folder, "-o", "out", "--axis", "x", naming="axis 'x', expected", code=2)


def test_options_without_effect_are_refused(refused: Refused, raw_folder: Path, tmp_path: Path) -> None:
    for option in (("--slices", "2"), ("--percentiles", "10:90"), ("--seed", "3")):
        assert f"leave out {option[0]}" in refused(
            "preprocess", raw_folder, "-o", "out", *option, naming="data: "
        )
    raw = write_raw_folder(tmp_path / "labels", {"train": [1]}, kind="seg")
    options = ("--images", "segmentations", "--percentiles", "10:90")
    refused("preprocess", raw, "-o", "out", *options, naming="labels have no grey scale")


def test_preprocess_never_overwrites_a_dataset_unasked(
    refused: Refused, raw_folder: Path, prepared: Path
) -> None:
    assert "pass -f" in refused("preprocess", raw_folder, "-o", prepared, naming="prepared")


@pytest.mark.parametrize("force", [(), ("-f",)], ids=["plain", "force"])
def test_preprocess_never_replaces_what_is_no_dataset(
    refused: Refused, raw_folder: Path, tmp_path: Path, force: tuple[str, ...]
) -> None:
    """Not with -f either: a mistyped -o must not delete a home folder."""
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.txt").write_text("precious")
    for output in ("home", "home/thesis.txt", "data"):
        refused("preprocess", raw_folder, "-o", output, *force, naming=output)


def test_dataset_below_a_file(refused: Refused, raw_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "a_file").touch()
    refused("preprocess", raw_folder, "-o", "a_file/prepared", naming="a_file")


def test_size_out_of_range(refused: Refused, raw_folder: Path) -> None:
    for size in ("0", "-1", "1000000"):
        refused("preprocess", raw_folder, "-o", "out", "--size", size, naming=size)
