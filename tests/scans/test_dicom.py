"""A DICOM file or the folder of a series -> volume; drawn here, and real where this machine has them."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from oasisvq.errors import FileError, ImageError
from oasisvq.scans.dicom import holds_dicom, is_dicom
from oasisvq.scans.volumes import read_volume, write_volume

pydicom = pytest.importorskip("pydicom")
from drawn_dicom import MR_STORAGE, SERIES, drawn, in_patient, read, write_file, write_series  # noqa: E402

# rows 3-4-5 in the plane of left and back, columns 5-12-13 against the top
OBLIQUE = [0.6, 0.8, 0.0, -0.8 * 5 / 13, 0.6 * 5 / 13, -12 / 13]
SECRETS = {
    "PatientName": "Secret^Name",
    "PatientID": "PID-98765",
    "PatientBirthDate": "19391231",
    "StudyDate": "20011122",
    "InstitutionName": "Hidden Hospital",
    "StudyInstanceUID": "1.2.826.0.1.3680043.8.498.777777",
    "SeriesDescription": "told nobody",
    "ImageComments": "not for you",
}


def test_slices_follow_their_positions(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "series", [30, 33, 36, 39])
    volume = read(folder)
    for place in range(4):
        np.testing.assert_array_equal(volume.voxels[:, :, place], drawn(seed=place).T)
    assert volume.geometry.zooms == (0.75, 1.5, 3.0)


def test_affine_of_an_oblique_series(tmp_path: Path) -> None:
    across, down = np.array(OBLIQUE[:3]), np.array(OBLIQUE[3:])
    # by hand: (3/5, 4/5, 0) × (-4/13, 3/13, -12/13)
    normal = np.array([-48 / 65, 36 / 65, 25 / 65])
    corner = np.array([12.0, -7.0, 3.0])
    for place in range(3):
        position = [f"{each:.10g}" for each in corner + 2 * place * normal]
        orientation = [f"{each:.10g}" for each in OBLIQUE]
        write_file(
            tmp_path / f"{9 - place}.dcm",
            drawn(seed=place),
            ImagePositionPatient=position,
            ImageOrientationPatient=orientation,
        )
    volume = read(tmp_path)
    np.testing.assert_array_equal(volume.voxels[:, :, 2], drawn(seed=2).T)
    column, row, place = 4, 5, 2
    expected = corner + column * 0.75 * across + row * 1.5 * down + place * 2 * normal
    found = in_patient(volume.geometry.affine, (column, row, place))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.linalg.det(volume.geometry.affine[:3, :3]) > 0


def test_a_sheared_series_keeps_its_shear(tmp_path: Path) -> None:
    for place in range(3):
        write_file(tmp_path / f"{place}", drawn(), ImagePositionPatient=[0, 0.5 * place, 2 * place])
    affine = read(tmp_path).geometry.affine
    np.testing.assert_allclose(in_patient(affine, (0, 0, 2)), [0, 1, 4])


def test_affine_as_nibabel_finds_it(shared_data: Path) -> None:
    nicom = pytest.importorskip("nibabel.nicom.dicomwrappers")
    path = shared_data / "dicom" / "series" / "N2D_0183.dcm"
    theirs = nicom.wrapper_from_file(path).affine  # of indices (row, column, slice)
    ours = read(path).geometry.affine
    for index in [(0, 0, 0), (200, 17, 0), (3, 300, 0)]:
        expected = theirs @ (index[1], index[0], index[2], 1)
        np.testing.assert_allclose(in_patient(ours, index), expected[:3], atol=1e-4)


def test_a_real_series(shared_data: Path) -> None:
    folder = shared_data / "dicom" / "series"
    volume = read(folder)
    assert volume.voxels.shape == (274, 384, 8)
    assert volume.voxels.dtype == np.int16
    for place, path in enumerate(sorted(folder.glob("*.dcm"))):
        dataset = pydicom.dcmread(path)
        stored = np.frombuffer(dataset.PixelData, "<i2").reshape(384, 274)
        np.testing.assert_array_equal(volume.voxels[:, :, place], stored.T)
        found = in_patient(volume.geometry.affine, (0, 0, place))
        np.testing.assert_allclose(found, dataset.ImagePositionPatient, atol=1e-4)


def test_without_positions_slices_follow_their_numbers(tmp_path: Path) -> None:
    for number in (10, 9, 2):
        pixels = drawn(seed=number)
        write_file(tmp_path / f"{number}", pixels, ImagePositionPatient=None, InstanceNumber=number)
    volume = read(tmp_path)
    for place, number in enumerate((2, 9, 10)):
        np.testing.assert_array_equal(volume.voxels[:, :, place], drawn(seed=number).T)
    write_file(tmp_path / "again", ImagePositionPatient=None, InstanceNumber=2)
    with pytest.raises(ImageError, match="neither positions nor numbers"):
        read(tmp_path)


def test_what_is_no_dicom_is_passed_over(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "series", [1, 2])
    (folder / "README").write_text("eight slices")
    (folder / ".hidden.dcm").write_bytes(b"")
    write_file(folder / "DICOMDIR", PixelData=None, Rows=None)
    (folder / "inner").mkdir()
    write_file(folder / "inner" / "other.dcm")
    assert read(folder).voxels.shape == (5, 6, 2)


def test_volumes_go_to_nifti_and_back(tmp_path: Path) -> None:
    volume = read(write_series(tmp_path / "series", [1, 2, 3], RescaleSlope="0.5"))
    write_volume(volume, tmp_path / "volume.nii.gz")
    back = read_volume(tmp_path / "volume.nii.gz")
    np.testing.assert_array_equal(back.voxels, volume.voxels)
    assert back.geometry.content == volume.geometry.content


def test_what_is_dicom(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "series", [1])
    (tmp_path / "note.dcm").write_text("no")
    assert is_dicom(folder / "1.dcm")
    assert not any(is_dicom(path) for path in (tmp_path / "note.dcm", folder, tmp_path / "none"))
    assert holds_dicom(folder)
    assert not holds_dicom(tmp_path)
    assert not holds_dicom(tmp_path / "none")
    write_file(tmp_path / "DICOMDIR", PixelData=None, Rows=None)
    assert not holds_dicom(tmp_path)


def test_nothing_but_geometry_scale_and_pixels_comes_through(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "series", [1, 2], **SECRETS)
    stored = b"".join(path.read_bytes() for path in folder.iterdir())
    volume = read(folder)
    written = []
    for name in ("volume.nii", "volume.hdr"):
        write_volume(volume, tmp_path / name)
    written = [path.read_bytes() for path in tmp_path.iterdir() if path.is_file()]
    assert len(written) == 3
    for secret in (*SECRETS.values(), SERIES, MR_STORAGE):
        assert secret.encode() in stored
        assert not any(secret.encode() in content for content in (volume.geometry.content, *written))
    header = volume.geometry.content
    read_series = read(write_series(tmp_path / "series", [1, 2]))
    assert header == read_series.geometry.content


UNLIKE: dict[str, tuple[dict[str, Any], str]] = {
    "series": ({"SeriesInstanceUID": SERIES + ".9"}, "images of 2 volumes .*1.dcm.*other.dcm"),
    "size": ({"Rows": 5, "Columns": 6}, "other.dcm: size 6×5, but 5×6 in 1.dcm"),
    "type": ({"PixelRepresentation": 1}, "other.dcm: bits 16×1, but 16×0"),
    "orientation": ({"ImageOrientationPatient": [0, 1, 0, -1, 0, 0]}, "other.dcm: orientation"),
    "spacing": ({"PixelSpacing": [1.5, 0.76]}, "other.dcm: pixel spacing 1.5×0.76"),
    "slope": ({"RescaleSlope": 0.5}, "other.dcm: slope 0.5, but 1 in"),
    "intercept": ({"RescaleIntercept": 5}, "other.dcm: intercept 5, but 0 in"),
    "no position": ({"ImagePositionPatient": None}, "other.dcm: orientation none"),
    "same place": ({"ImagePositionPatient": [-10, 20, 2]}, "1.dcm and other.dcm lie at the same place"),
    "a gap": (
        {"ImagePositionPatient": [-10, 20, 4]},
        "missing between 1.dcm and other.dcm, .* 2 mm",
    ),
    "uneven": ({"ImagePositionPatient": [-10, 20, 3.4]}, "equal distances .from 1 to 1.4 mm"),
    "beside": ({"ImagePositionPatient": [-10, 21, 3]}, "do not lie on one line"),
}


@pytest.mark.parametrize(("attributes", "message"), UNLIKE.values(), ids=UNLIKE)
def test_a_folder_is_one_series(tmp_path: Path, attributes: dict[str, Any], message: str) -> None:
    folder = write_series(tmp_path / "series", [0, 1, 2])
    write_file(folder / "other.dcm", **({"ImagePositionPatient": [-10, 20, 3]} | attributes))
    with pytest.raises(ImageError, match=message) as caught:
        read(folder)
    assert SERIES not in str(caught.value)


def test_rounded_positions_pass(tmp_path: Path) -> None:
    volume = read(write_series(tmp_path / "series", [0, 0.67, 1.33, 2, 2.67]))
    np.testing.assert_allclose(volume.geometry.zooms[2], 2.67 / 4, rtol=1e-6)


def test_files_that_claim_to_be_dicom(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "series", [1, 2])
    (folder / "3.dcm").write_text("no DICOM" * 40)
    with pytest.raises(ImageError, match=r"3\.dcm: no DICOM file"):
        read(folder)
    (folder / "3.dcm").write_bytes(b"")
    with pytest.raises(ImageError, match=r"3\.dcm: an empty file"):
        read(folder)
    (folder / "3.dcm").unlink()
    (folder / "3.dcm").symlink_to(tmp_path / "none")
    with pytest.raises(FileError, match=r"3\.dcm: no such file"):
        read(folder)


def test_folders_without_dicom(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="no DICOM file directly in this folder"):
        read(tmp_path)
    with pytest.raises(FileError, match="no such file"):
        read(tmp_path / "none")


def test_without_pydicom_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_file(tmp_path / "a")
    monkeypatch.setitem(sys.modules, "pydicom.pixels", None)
    with pytest.raises(ImageError, match=r"pip install 'oasisvq\[dicom\]'"):
        read(path)
    assert is_dicom(path)


def test_importing_costs_neither_pydicom_nor_torch() -> None:
    script = "import sys, oasisvq.scans.dicom; sys.exit(bool({'torch', 'pydicom'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
