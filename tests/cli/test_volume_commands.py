"""Volumes, label maps and DICOM on the command line: encode, decode, score."""

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
from conftest import AFFINE, Run, draw_volume
from numpy.typing import NDArray
from PIL import Image

import oasisvq
from oasisvq.codec import container
from oasisvq.codec.headers import Coder
from oasisvq.scans.scan import read_scan
from oasisvq.scans.source import source_at


def labels_of(voxels: NDArray[np.int16]) -> NDArray[np.int16]:
    smooth = np.digitize(voxels // 7, [1, 90, 150])
    return np.array([0, 3, 11, 300], np.int16)[smooth]


@pytest.fixture
def volume(tmp_path: Path, rng: np.random.Generator) -> Path:
    image = nibabel.Nifti1Image(draw_volume(rng), AFFINE)
    image.header.set_slope_inter(0.5, 2.0)
    image.header["descrip"] = b"DOE^JOHN"
    nibabel.save(image, tmp_path / "scan.nii.gz")
    return tmp_path / "scan.nii.gz"


@pytest.fixture
def segmentation(tmp_path: Path, rng: np.random.Generator) -> Path:
    nibabel.save(nibabel.Nifti1Image(labels_of(draw_volume(rng)), AFFINE), tmp_path / "seg.nii.gz")
    return tmp_path / "seg.nii.gz"


def test_a_volume_there_and_back(run: Run, volume: Path, model: Path) -> None:
    encoded = run("encode", volume, "--model", model)
    assert encoded.code == 0
    assert encoded.out.startswith(str(volume.with_name("scan.codes")))
    assert "6 slices" in encoded.out
    decoded = run("decode", "scan.codes", "--model", model)
    assert decoded.code == 0
    before, after = nibabel.load(volume), nibabel.load("scan.decoded.nii.gz")
    before.header["descrip"] = b""
    fields = ("dim", "pixdim", "datatype", "qform_code", "sform_code", "srow_x", "srow_y", "srow_z")
    for field in (*fields, "quatern_b", "xyzt_units", "descrip", "cal_max"):
        np.testing.assert_array_equal(after.header[field], before.header[field], field)
    np.testing.assert_array_equal(after.affine, before.affine)
    assert (after.dataobj.slope, after.dataobj.inter) == (0.5, 2.0)
    stored = np.asanyarray(after.dataobj.get_unscaled())
    assert stored.dtype == np.int16
    assert 0 <= stored.min() <= stored.max() <= np.asanyarray(before.dataobj.get_unscaled()).max()
    assert not stored[..., -2:].any()
    assert b"DOE" not in Path("scan.codes").read_bytes()


@pytest.mark.parametrize("axis", ["axial", "coronal", "sagittal", "0", "1", "2"])
def test_slices_follow_the_axis_that_is_named(
    axis: str, run: Run, volume: Path, prior_model_file: Path
) -> None:
    assert run("encode", volume, "--axis", axis, "--model", prior_model_file).code == 0
    slices = {"axial": 6, "coronal": 48, "sagittal": 40, "0": 40, "1": 48, "2": 6}[axis]
    header = container.read_codes_file(Path("scan.codes")).header
    assert header.slices == slices
    assert run("decode", "scan.codes", "-o", "back.nii", "--model", prior_model_file).code == 0
    assert nibabel.load("back.nii").shape == (40, 48, 6)


def test_a_pair_comes_back_as_a_pair_or_as_what_is_named(
    run: Run, tmp_path: Path, rng: np.random.Generator, prior_model_file: Path
) -> None:
    header = nibabel.Spm2AnalyzeHeader(endianness=">")
    header.set_data_dtype(np.int16)
    pair = nibabel.Spm2AnalyzeImage(draw_volume(rng)[..., None], None, header)
    nibabel.save(pair, tmp_path / "pair.img")
    for half in ("pair.hdr", "pair.img"):
        assert run("encode", half, "-f", "--model", prior_model_file).code == 0
    assert run("decode", "pair.codes", "--model", prior_model_file).code == 0
    again = nibabel.load("pair.decoded.img")
    assert again.shape == (40, 48, 6, 1)
    assert again.header.endianness == ">"
    np.testing.assert_array_equal(again.affine, nibabel.load("pair.img").affine)
    failed = run("decode", "pair.codes", "--model", prior_model_file)
    assert failed.code == 1
    assert "pair.decoded.img: exists" in failed.err
    Path("pair.decoded.img").unlink()
    assert "pair.decoded.hdr: exists" in run("decode", "pair.codes", "--model", prior_model_file).err
    assert run("decode", "pair.codes", "-o", "x.nii.gz", "--model", prior_model_file).code == 0
    np.testing.assert_array_equal(nibabel.load("x.nii.gz").affine, again.affine)
    assert Path("x.nii.gz").exists()


@pytest.mark.parametrize("name", ["x.png", "x.nii.gz"])
def test_the_output_must_be_able_to_hold_it(
    name: str, run: Run, volume: Path, phantom_png: Path, model_file: Path
) -> None:
    source = volume if name == "x.png" else phantom_png
    assert run("encode", source, "-o", "a.codes", "--model", model_file).code == 0
    failed = run("decode", "a.codes", "-o", name, "--model", model_file)
    assert failed.code == 1
    assert f"{name}: " in failed.err
    assert not Path(name).exists()


def test_labels_come_back_exactly(run: Run, segmentation: Path, model_file: Path) -> None:
    encoded = run("encode", segmentation, "--model", model_file)
    assert encoded.code == 0
    assert "4 labels, kept exactly" in encoded.out
    assert run("decode", "seg.codes", "--model", model_file).code == 0
    before, after = nibabel.load(segmentation), nibabel.load("seg.decoded.nii.gz")
    np.testing.assert_array_equal(np.asanyarray(after.dataobj), np.asanyarray(before.dataobj))
    assert after.get_data_dtype() == np.int16
    np.testing.assert_array_equal(after.affine, before.affine)
    label_map = oasisvq.read_codes("seg.codes").label_map
    assert label_map is not None
    assert label_map.shape == (6, 40, 48)


def test_a_label_image_is_smaller_than_its_png(
    run: Run, tmp_path: Path, rng: np.random.Generator, model_file: Path
) -> None:
    plane = labels_of(draw_volume(rng))[..., 0]
    Image.fromarray((plane > 3).astype(np.uint8) * 85).save(tmp_path / "seg.png", optimize=True)
    assert run("encode", "seg.png", "--model", model_file).code == 0
    assert Path("seg.codes").stat().st_size < Path("seg.png").stat().st_size
    assert run("decode", "seg.codes", "--model", model_file).code == 0
    assert Image.open("seg.decoded.png").tobytes() == Image.open("seg.png").tobytes()


def test_lossy_labels_are_among_the_original_ones(run: Run, segmentation: Path, model: Path) -> None:
    encoded = run("encode", segmentation, "--lossy", "--model", model)
    assert encoded.code == 0
    assert "Dice: label 0 " in encoded.out
    assert run("decode", "seg.codes", "--model", model).code == 0
    assert set(np.unique(np.asanyarray(nibabel.load("seg.decoded.nii.gz").dataobj))) <= {0, 3, 11, 300}
    assert container.read_codes_file(Path("seg.codes")).header.labels == (0, 3, 11, 300)


def test_the_kind_may_be_said(run: Run, segmentation: Path, volume: Path, model_file: Path) -> None:
    assert run("encode", segmentation, "--kind", "scan", "--model", model_file).code == 0
    assert container.read_codes_file(Path("seg.codes")).header.coder is Coder.PACKED
    assert run("encode", volume, "--kind", "labels", "--model", model_file).code == 0
    assert container.read_codes_file(Path("scan.codes")).header.coder is Coder.LABELS
    assert run("decode", "scan.codes", "--model", model_file).code == 0
    before, after = (nibabel.load(name) for name in ("scan.nii.gz", "scan.decoded.nii.gz"))
    np.testing.assert_array_equal(np.asanyarray(after.dataobj), np.asanyarray(before.dataobj))


def bad_volumes(folder: Path) -> dict[str, str]:
    """Broken volumes, by name: what the message says of each."""

    def save(name: str, voxels: NDArray[np.generic]) -> None:
        nibabel.save(nibabel.Nifti1Image(voxels, AFFINE), folder / name)

    ramp = np.arange(4 * 5 * 6).reshape(4, 5, 6)
    save("infinite.nii", np.where(ramp == 7, np.inf, ramp).astype(np.float32))
    save("constant.nii", np.full((4, 5, 6), 9, np.int16))
    save("series.nii", np.stack([ramp, ramp], axis=3).astype(np.int16))
    save("five.nii", ramp.reshape(4, 5, 1, 2, 3).astype(np.int16))
    colours = np.zeros((4, 4, 4), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    nibabel.save(nibabel.Nifti1Image(colours, AFFINE), folder / "rgb.nii")
    (folder / "empty.nii.gz").write_bytes(b"")
    nibabel.save(nibabel.Nifti1Pair(ramp.astype(np.int16), AFFINE), folder / "half.img")
    (folder / "half.hdr").unlink()
    return {
        "infinite.nii": "1 voxels are infinite",
        "constant.nii": "every voxel is 9",
        "series.nii": "expected one volume",
        "five.nii": "expected one volume",
        "rgb.nii": "colours",
        "empty.nii.gz": "an empty file",
        "half.img": "half of a pair",
    }


def test_a_bad_volume_is_one_clear_line(run: Run, tmp_path: Path, model_file: Path) -> None:
    for name, message in bad_volumes(tmp_path).items():
        failed = run("encode", name, "-o", "x.codes", "--model", model_file)
        assert failed.code == 1
        assert failed.err.splitlines()[-1].startswith(f"oasisvq: {name}: ")
        assert message in failed.err.splitlines()[-1]
        assert not Path("x.codes").exists()


def test_voxels_that_are_no_numbers_come_back_so(run: Run, tmp_path: Path, model_file: Path) -> None:
    voxels = np.arange(4 * 5 * 6, dtype=np.float32).reshape(4, 5, 6)
    voxels[0, 1, 1] = np.nan
    nibabel.save(nibabel.Nifti1Image(voxels, AFFINE), tmp_path / "nan.nii.gz")
    assert run("encode", "nan.nii.gz", "--model", model_file).code == 0
    assert run("decode", "nan.codes", "--model", model_file).code == 0
    restored = np.asanyarray(nibabel.load(tmp_path / "nan.decoded.nii.gz").dataobj)
    np.testing.assert_array_equal(np.isnan(restored), np.isnan(voxels))


def test_a_folder_of_everything(
    run: Run, tmp_path: Path, volume: Path, segmentation: Path, phantom_png: Path, model_file: Path
) -> None:
    folder = tmp_path / "in"
    (folder / "deep").mkdir(parents=True)
    for source, name in (
        (volume, "deep/scan.nii.gz"),
        (segmentation, "seg.nii.gz"),
        (phantom_png, "a.png"),
    ):
        source.rename(folder / name)
    bad = bad_volumes(folder)
    done = run("encode", "in", "-o", "codes", "--model", model_file)
    assert done.code == 1
    assert "3 encoded" in done.out
    assert f"{len(bad)} failed:" in done.err
    for name in bad:
        assert sum(name in line for line in done.err.splitlines()) == 1
    found = sorted(path.relative_to("codes").as_posix() for path in Path("codes").rglob("*.codes"))
    assert found == ["a.codes", "deep/scan.codes", "seg.codes"]
    assert "3 already there" in run("encode", "in", "-o", "codes", "--model", model_file).out
    again = run("encode", "in", "-o", "codes", "--axis", "coronal", "--model", model_file)
    assert "codes/deep/scan.codes: exists" in again.err
    back = run("decode", "codes", "-o", "out", "--model", model_file)
    assert back.code == 0
    names = sorted(path.relative_to("out").as_posix() for path in Path("out").rglob("*.*"))
    assert names == ["a.png", "deep/scan.nii.gz", "seg.nii.gz"]
    assert "3 already there" in run("decode", "codes", "-o", "out", "--model", model_file).out


def write_dicom(folder: Path, count: int = 3) -> None:
    """A series drawn here, of 16×12 pixels."""
    pydicom = pytest.importorskip("pydicom")
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    folder.mkdir(parents=True)
    series = generate_uid()
    for number in range(count):
        dataset = pydicom.Dataset()
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.SOPClassUID, dataset.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.4", generate_uid()
        dataset.SeriesInstanceUID, dataset.InstanceNumber = series, number
        dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = 16, 12, 1
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 15
        dataset.PixelRepresentation, dataset.PhotometricInterpretation = 0, "MONOCHROME2"
        dataset.ImagePositionPatient = [0, 0, float(number)]
        dataset.ImageOrientationPatient, dataset.PixelSpacing = [1, 0, 0, 0, 1, 0], [1, 1]
        pixels = np.arange(192, dtype=np.uint16).reshape(16, 12) * (number + 5)
        dataset.PixelData = pixels.tobytes()
        dataset.save_as(folder / f"{number}.dcm", enforce_file_format=True)


def test_a_series_in_a_tree_meets_no_other_file(run: Run, volume: Path, model_file: Path) -> None:
    write_dicom(Path("in/scan"))
    volume.rename("in/scan.nii.gz")
    done = run("encode", "in", "-o", "codes", "--model", model_file)
    assert done.code == 0
    assert "2 encoded" in done.out
    assert container.read_codes_file(Path("codes/scan/scan.codes")).header.slices == 3
    assert container.read_codes_file(Path("codes/scan.codes")).header.slices == 6
    assert "2 already there" in run("encode", "in", "-o", "codes", "--model", model_file).out
    Path("in/scan/2.dcm").touch()
    assert (
        "codes/scan/scan.codes: exists" in run("encode", "in", "-o", "codes", "--model", model_file).err
    )


def test_one_dicom_file_becomes_the_png_that_a_viewer_shows(run: Run, model_file: Path) -> None:
    write_dicom(Path("one"), 1)
    wish = ("--kind", "labels", "--model", model_file)  # exactly, so that places can be compared
    assert run("encode", "one/0.dcm", "-o", "a.codes", *wish).code == 0
    assert run("decode", "a.codes", "-o", "a.png", "--model", model_file).code == 0
    expected = np.arange(192).reshape(16, 12) * 5
    np.testing.assert_array_equal(read_scan(source_at(Path("a.png"))).plane, expected)


def test_the_other_half_of_a_pair_is_not_written_over(
    run: Run, tmp_path: Path, rng: np.random.Generator, model_file: Path
) -> None:
    nibabel.save(nibabel.Nifti1Pair(draw_volume(rng), AFFINE), tmp_path / "a.img")
    before = Path("a.img").read_bytes()
    Path("own.codes").symlink_to("a.img")
    failed = run("encode", "a.hdr", "-o", "own.codes", "-f", "--model", model_file)
    assert failed.code == 1
    assert Path("a.img").read_bytes() == before


def test_a_header_that_cannot_be_understood_stops_no_folder(
    run: Run, tmp_path: Path, volume: Path, model_file: Path
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    volume.rename(folder / "good.nii.gz")
    image = nibabel.Nifti1Image(np.arange(60, dtype=np.int16).reshape(3, 4, 5), None)
    image.header.set_qform(np.eye(4), code=1)
    content = bytearray(image.to_bytes())
    content[256:264] = np.array([1, 1], "<f4").tobytes()  # quatern_b and c
    (folder / "bad.nii").write_bytes(content)
    done = run("encode", "in", "-o", "codes", "--model", model_file)
    assert done.code == 1
    assert "1 encoded" in done.out
    assert "bad.nii: a qform that is no rotation" in done.err


def test_score_of_one_volume(run: Run, volume: Path, segmentation: Path, model_file: Path) -> None:
    scored = run("score", volume, "-q", 1, "-q", 2, "--json", "--model", model_file)
    assert scored.code == 0
    rows = json.loads(scored.out)
    assert [row["levels"] for row in rows] == [1, 2]
    assert rows[0]["file_bytes"] < rows[1]["file_bytes"]
    assert 0 < rows[0]["foreground_ssim"] < 1
    exact = run("score", segmentation, "--model", model_file)
    assert exact.code == 0
    assert "exact" in exact.out
    assert "label 300 1.0000" in exact.out


def test_a_volume_too_small_for_ssim_has_none(run: Run, tmp_path: Path, model_file: Path) -> None:
    voxels = np.random.default_rng(0).integers(0, 2000, (5, 6, 7)).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(voxels, AFFINE), tmp_path / "tiny.nii")
    scored = run("score", "tiny.nii", "--json", "--model", model_file)
    assert scored.code == 0
    assert json.loads(scored.out)[0]["ssim"] is None


def test_real_dicom_becomes_nifti_and_names_no_one(
    run: Run, shared_data: Path, tmp_path: Path, model_file: Path
) -> None:
    pydicom = pytest.importorskip("pydicom")
    folder = shared_data / "dicom"
    variants = [path for path in sorted((folder / "variants").iterdir()) if "truncated" not in path.name]
    for number, source in enumerate([folder / "series", *variants]):
        codes = tmp_path / f"{number}.codes"
        assert run("encode", source, "-o", codes, "--model", model_file).code == 0
        assert run("decode", codes, "--model", model_file).code == 0
        restored = nibabel.load(tmp_path / f"{number}.decoded.nii.gz")
        placement = read_scan(source_at(source)).placement
        assert placement is not None
        np.testing.assert_array_equal(restored.affine, placement.geometry.affine)
        first = min(source.iterdir()) if source.is_dir() else source
        dataset = pydicom.dcmread(first, stop_before_pixels=True)
        for keyword in (
            "PatientName",
            "PatientID",
            "StudyInstanceUID",
            "SeriesInstanceUID",
            "StudyDate",
        ):
            value = str(dataset.get(keyword, "")).encode()
            assert len(value) < 4 or value not in codes.read_bytes()
    truncated = folder / "variants" / "MR_truncated.dcm"
    failed = run("encode", truncated, "-o", "t.codes", "--model", model_file)
    assert failed.code == 1
    assert "MR_truncated.dcm: truncated" in failed.err
    one = run("decode", tmp_path / "1.codes", "-o", "one.png", "--model", model_file)
    assert one.code == 0
    assert read_scan(source_at(Path("one.png"))).plane.shape == (64, 64)
