"""What `encode` makes of each kind of input, and what it says that it assumed."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from conftest import Refused, Run, draw_labels, draw_phantom, draw_volume
from numpy.typing import NDArray
from PIL import Image

from oasisvq.codec.container import read_codes_file
from oasisvq.codec.headers import Coder


def write_nifti(path: Path, voxels: NDArray[np.generic], intent: int = 0) -> Path:
    image = nib.Nifti1Image(voxels, np.diag([1, 1, 1.5, 1]))
    image.header["intent_code"] = intent
    image.to_filename(path)
    return path


def parcels() -> NDArray[np.int16]:
    """A map that is small and thin enough to be open: many labels, few voxels each."""
    numbers = np.random.default_rng(0).permutation(600).reshape(10, 10, 6)
    return numbers.repeat(2, 0).repeat(2, 1).repeat(2, 2).astype(np.int16)


def header_of(path: str | Path):
    return read_codes_file(Path(path)).header


LINE = "whole values: kept exactly as labels; --kind scan codes them by the model"


def test_one_file_of_labels_is_said(run: Run, model_file: Path, tmp_path: Path, rng) -> None:
    write_nifti(tmp_path / "a.nii.gz", draw_labels(rng, (20, 24, 10), 5).astype(np.uint8))
    result = run("encode", "a.nii.gz", "--model", model_file)
    assert (result.code, header_of("a.codes").coder) == (0, Coder.LABELS)
    assert result.err.splitlines()[-1] == f"5 {LINE}"
    asked = run("encode", "a.nii.gz", "-f", "--kind", "labels", "--model", model_file)
    assert LINE not in asked.err
    scan = run("encode", "a.nii.gz", "-f", "--kind", "scan", "--model", model_file)
    assert LINE not in scan.err
    assert header_of("a.codes").coder is not Coder.LABELS


def test_values_that_are_not_whole_come_back_exactly(run: Run, model_file: Path, rng) -> None:
    classes = (draw_labels(rng, (20, 24, 10), 5) * np.float32(0.9882)).astype(np.float32)
    write_nifti(Path("a.nii.gz"), classes)
    result = run("encode", "a.nii.gz", "--model", model_file)
    assert result.err.splitlines()[-1].startswith("5 values: kept exactly as labels")
    assert run("decode", "a.codes", "-o", "b.nii.gz").code == 0
    np.testing.assert_array_equal(np.asarray(nib.load("b.nii.gz").dataobj), classes)


def test_a_folder_counts_scans_and_label_maps(run: Run, model_file: Path, tmp_path: Path, rng) -> None:
    (tmp_path / "in").mkdir()
    for number in range(2):
        write_nifti(tmp_path / "in" / f"scan{number}.nii", draw_volume(rng))
    write_nifti(tmp_path / "in" / "mask.nii", (draw_volume(rng) > 900).astype(np.uint8))
    result = run("encode", "in", "-o", "out", "--model", model_file)
    assert "2 scans, 1 label map; --kind scan codes them by the model" in result.out.splitlines()
    again = json.loads(run("encode", "in", "-o", "o2", "--model", model_file, "--json").out)
    assert again["assumed"] == {"labels": 1}


@pytest.mark.parametrize(
    ("name", "intent"),
    [("a_dseg.nii.gz", 0), ("sub-01_parc.nii", 0), ("aparc+aseg.nii.gz", 0), ("a.nii.gz", 1002)],
)
def test_a_name_or_an_intent_makes_labels_of_what_is_open(
    run: Run, model_file: Path, tmp_path: Path, name: str, intent: int
) -> None:
    write_nifti(tmp_path / name, parcels(), intent)
    run("encode", name, "-o", "a.codes", "--model", model_file)
    assert header_of("a.codes").coder is Coder.LABELS
    assert len(header_of("a.codes").labels) == 600


def test_the_same_values_without_a_word_are_decided_by_size(
    run: Run, model_file: Path, tmp_path: Path
) -> None:
    write_nifti(tmp_path / "a.nii.gz", parcels())
    run("encode", "a.nii.gz", "--model", model_file)
    assert header_of("a.codes").coder is not Coder.LABELS


def test_a_scan_with_a_word_of_labels_in_its_name_stays_a_scan(
    run: Run, model_file: Path, tmp_path: Path, rng
) -> None:
    write_nifti(tmp_path / "mask_of_T1.nii.gz", draw_volume(rng))
    Image.fromarray(draw_phantom(rng)).save(tmp_path / "seg_input.png")
    for name in ("mask_of_T1.nii.gz", "seg_input.png"):
        result = run("encode", name, "-o", "a.codes", "-f", "--model", model_file)
        assert header_of("a.codes").coder is not Coder.LABELS
        assert LINE not in result.err


def test_palettes_are_kept_by_their_indices(run: Run, model_file: Path, tmp_path: Path, rng) -> None:
    labels = draw_labels(rng, (1, 40, 44), 5)[0].astype(np.uint8)
    image = Image.fromarray(labels)
    image.putpalette(np.random.default_rng(0).integers(0, 256, 15).tolist())
    image.save(tmp_path / "labels.png")
    result = run("encode", "labels.png", "--model", model_file)
    assert result.err.splitlines()[-1] == f"5 {LINE}"
    run("decode", "labels.codes", "-o", "back.png", "--model", model_file)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "back.png")), labels)


# several volumes


@pytest.fixture
def series(tmp_path: Path, rng) -> NDArray[np.int16]:
    voxels = np.stack([draw_volume(rng) for _ in range(3)], axis=-1)
    write_nifti(tmp_path / "bold.nii.gz", voxels)
    return voxels


def test_a_series_names_the_option(run: Run, model_file: Path, series: NDArray[np.int16]) -> None:
    result = run("encode", "bold.nii.gz", "--model", model_file)
    assert result.code == 1
    assert (
        "shape (40, 48, 6, 3), expected one volume; it holds 3: encode one of 0 to 2 with --volume, or "
        "each with --volume all"
    ) in result.err


def test_one_volume_of_a_series(
    run: Run, model_file: Path, tmp_path: Path, series: NDArray[np.int16]
) -> None:
    write_nifti(tmp_path / "alone.nii.gz", series[..., 1])
    run("encode", "alone.nii.gz", "--model", model_file)
    assert run("encode", "bold.nii.gz", "--volume", "1", "--model", model_file).code == 0
    run("decode", "bold_volume001.codes", "-o", "a.nii.gz", "--model", model_file)
    run("decode", "alone.codes", "-o", "b.nii.gz", "--model", model_file)
    first, second = nib.load(tmp_path / "a.nii.gz"), nib.load(tmp_path / "b.nii.gz")
    assert first.shape == second.shape == (40, 48, 6)
    np.testing.assert_array_equal(np.asarray(first.dataobj), np.asarray(second.dataobj))
    np.testing.assert_array_equal(first.affine, second.affine)
    beyond = run("encode", "bold.nii.gz", "--volume", "3", "--model", model_file)
    assert "there is no volume 3; it holds volumes 0 to 2" in beyond.err


def test_each_volume_of_a_series_beside_files_of_one(
    run: Run, model_file: Path, tmp_path: Path, series: NDArray[np.int16], rng
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "bold.nii.gz").rename(tmp_path / "in" / "bold.nii.gz")
    write_nifti(tmp_path / "in" / "T1.nii.gz", draw_volume(rng))
    Image.fromarray(draw_phantom(rng)).save(tmp_path / "in" / "view.png")
    result = run("encode", "in", "-o", "out", "--volume", "all", "--model", model_file)
    assert result.code == 0
    names = sorted(path.name for path in (tmp_path / "out").glob("*.codes"))
    each = [f"bold_volume00{number}.codes" for number in range(3)]
    assert names == ["T1.codes", *each, "view.codes"]
    again = run("encode", "in", "-o", "out", "--volume", "all", "--model", model_file)
    assert "0 encoded, 5 already there" in again.out


def test_a_volume_that_a_file_of_one_does_not_hold(
    run: Run, model_file: Path, phantom_png: Path, refused: Refused
) -> None:
    says = f"{phantom_png.name}: there is no volume 7; leave out --volume"
    refused("encode", phantom_png.name, "--volume", "7", naming=says)
    assert run("encode", "scan.png", "--volume", "0", "--model", model_file).code == 0


def test_a_volume_of_a_series_does_not_take_the_name_of_another_file(
    run: Run, model_file: Path, tmp_path: Path, series: NDArray[np.int16]
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "bold.nii.gz").rename(tmp_path / "in" / "bold.nii.gz")
    write_nifti(tmp_path / "in" / "bold_volume001.nii.gz", series[..., 0])
    result = run("encode", "in", "-o", "out", "--volume", "all", "--model", model_file)
    assert result.code == 1
    assert "would replace that of bold.nii.gz; rename one" in result.err
    assert len(list((tmp_path / "out").glob("bold*.codes"))) == 3


def test_each_volume_of_one_file(run: Run, model_file: Path, series: NDArray[np.int16]) -> None:
    assert run("encode", "bold.nii.gz", "--volume", "all", "--model", model_file).code == 0
    assert all(Path(f"bold_volume00{number}.codes").is_file() for number in range(3))
    wrong = run("encode", "bold.nii.gz", "--volume", "all", "-o", "a.codes", "--model", model_file)
    assert (wrong.code, "holds one volume" in wrong.err) == (2, True)
    for text in ("-1", "x", "1.5"):
        assert run("encode", "bold.nii.gz", f"--volume={text}", "--model", model_file).code == 2


def test_a_broken_file_in_a_run_over_all_volumes_is_listed(
    run: Run, model_file: Path, tmp_path: Path, rng
) -> None:
    (tmp_path / "in").mkdir()
    write_nifti(tmp_path / "in" / "T1.nii.gz", draw_volume(rng))
    (tmp_path / "in" / "a.nii.gz").write_bytes(b"")
    result = run("encode", "in", "-o", "out", "--volume", "all", "--model", model_file)
    assert result.code == 1
    assert "a.nii.gz: an empty file" in result.err
    assert (tmp_path / "out" / "T1.codes").is_file()


# Analyze


def write_analyze(path: Path, voxels: NDArray[np.int16]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.Spm2AnalyzeImage(voxels, None).to_filename(path)
    return path


@pytest.mark.parametrize(
    ("name", "axes"),
    [
        ("OAS1_0001_MR1_mpr-1_anon.hdr", (1, 2, 0)),  # ASL: slices along its second axis
        ("OAS1_0001_MR1_mpr_n4_anon_sbj_111.hdr", (1, 2, 0)),
        ("OAS1_0001_MR1_mpr_n4_anon_111_t88_gfc.hdr", (2, 0, 1)),  # LAS
        ("OAS2_0001_MR1/RAW/mpr-1.nifti.hdr", (1, 2, 0)),
    ],
)
def test_analyze_of_oasis_is_cut_as_its_name_tells(
    run: Run, model_file: Path, tmp_path: Path, name: str, axes: tuple[int, int, int], rng
) -> None:
    write_analyze(tmp_path / name, draw_volume(rng, 30))
    result = run("encode", name, "-o", "a.codes", "--model", model_file)
    assert result.code == 0
    volume = header_of("a.codes").volume
    assert volume is not None
    assert volume.slicing.axes == axes
    assert "does not store the orientation" not in result.err
    again = run("encode", (tmp_path / name).parent, "-o", "out", "--model", model_file)
    assert "does not say" not in again.out
    skipped = run("encode", (tmp_path / name).parent, "-o", "out", "--model", model_file)
    assert "1 already there" in skipped.out


def test_analyze_of_others_says_that_its_planes_are_a_guess(
    run: Run, model_file: Path, tmp_path: Path, rng
) -> None:
    write_analyze(tmp_path / "in" / "scan.hdr", draw_volume(rng, 30))
    result = run("encode", "in/scan.hdr", "-o", "a.codes", "--model", model_file)
    assert (
        "Analyze does not store the orientation: slices follow the third axis; --axis chooses"
        in result.err
    )
    told = run("encode", "in/scan.hdr", "-o", "a.codes", "-f", "--axis", "1", "--model", model_file)
    assert "does not say" not in told.err
    folder = run("encode", "in", "-o", "out", "--model", model_file)
    assert "1 in Analyze, which does not store the orientation" in folder.out


# formats


def test_mgz_is_encoded_and_comes_back_as_either_format(
    run: Run, model_file: Path, tmp_path: Path, rng
) -> None:
    affine = np.array([[-1.0, 0, 0, 20], [0, 0, 1.5, -18], [0, -1, 0, 25], [0, 0, 0, 1]])
    nib.MGHImage(draw_volume(rng), affine).to_filename(tmp_path / "orig.mgz")
    assert run("encode", "orig.mgz", "--model", model_file).code == 0
    assert run("decode", "orig.codes", "--model", model_file).code == 0
    assert run("decode", "orig.codes", "-o", "back.mgz", "--model", model_file).code == 0
    first = nib.load(tmp_path / "orig.decoded.nii.gz")
    second = nib.load(tmp_path / "back.mgz")
    np.testing.assert_allclose(first.affine, affine, atol=1e-4)
    np.testing.assert_allclose(second.affine, affine, atol=1e-4)
    np.testing.assert_array_equal(np.asarray(first.dataobj), np.asarray(second.dataobj))


def test_pages_are_encoded_and_come_back_as_pages(run: Run, model_file: Path, tmp_path: Path) -> None:
    pages = [Image.fromarray(draw_phantom(np.random.default_rng(n))) for n in range(3)]
    pages[0].save(tmp_path / "stack.tif", save_all=True, append_images=pages[1:])
    result = run("encode", "stack.tif", "--model", model_file)
    assert "3 slices" in result.out
    assert run("decode", "stack.codes", "-o", "back.tif", "--model", model_file).code == 0
    with Image.open(tmp_path / "back.tif") as image:
        assert (image.n_frames, image.size) == (3, (64, 64))


def test_each_kind_of_a_tree_is_encoded_or_named(
    run: Run, model_file: Path, tmp_path: Path, rng
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    write_nifti(folder / "T1.nii.gz", draw_volume(rng))
    nib.MGHImage(draw_volume(rng), np.eye(4)).to_filename(folder / "orig.mgz")
    for suffix in (".gif", ".bmp"):
        Image.fromarray(draw_phantom(rng)).save(folder / f"view{suffix[1:]}{suffix}")
    (folder / "a.nrrd").write_bytes(b"NRRD0004\n")
    result = run("encode", "in", "-o", "out", "--model", model_file)
    assert result.out.startswith("out: 4 encoded")
    assert "passed over: 1 .nrrd" in result.out
