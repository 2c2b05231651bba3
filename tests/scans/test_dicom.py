"""DICOM files drawn here, and real ones where this machine has them."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from oasisvq.errors import FileError, ImageError, OasisVQError
from oasisvq.scans.dicom import holds_dicom, is_dicom, read_dicom
from oasisvq.scans.volumes import read_volume, write_volume

pydicom = pytest.importorskip("pydicom")
from pydicom.dataset import Dataset, FileMetaDataset  # noqa: E402
from pydicom.uid import (  # noqa: E402
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

MR_STORAGE = "1.2.840.10008.5.1.4.1.1.4"
SERIES = "1.2.826.0.1.3680043.8.498.1"
AXIAL = [1, 0, 0, 0, 1, 0]
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


def drawn(rows: int = 6, columns: int = 5, seed: int = 0, dtype: Any = np.uint16) -> NDArray[Any]:
    limits = np.iinfo(dtype)
    rng = np.random.default_rng(seed)
    return rng.integers(limits.min, limits.max, (rows, columns), dtype, endpoint=True)


def dataset_of(pixels: NDArray[Any], **attributes: Any) -> Dataset:
    """A DICOM data set of (rows, columns) pixels; an attribute of None is left out."""
    bits = pixels.dtype.itemsize * 8
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = MR_STORAGE
    dataset.file_meta.MediaStorageSOPInstanceUID = SERIES + ".1"
    given = {
        "SOPClassUID": MR_STORAGE,
        "SOPInstanceUID": SERIES + ".1",
        "SeriesInstanceUID": SERIES,
        "ImagePositionPatient": [-10, 20, 30],
        "ImageOrientationPatient": AXIAL,
        "PixelSpacing": [1.5, 0.75],  # between rows, between columns
        "SliceThickness": 2.5,
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": pixels.shape[-2],
        "Columns": pixels.shape[-1],
        "BitsAllocated": bits,
        "BitsStored": bits,
        "HighBit": bits - 1,
        "PixelRepresentation": int(pixels.dtype.kind == "i"),
        "PixelData": pixels.tobytes(),
        **attributes,
    }
    for keyword, value in given.items():
        if value is not None:
            setattr(dataset, keyword, value)
    if "PixelData" in dataset:
        dataset["PixelData"].VR = "OW"
    return dataset


def write(path: Path, dataset: Dataset) -> Path:
    dataset.save_as(path, enforce_file_format=True)
    return path


def write_file(path: Path, pixels: NDArray[Any] | None = None, **attributes: Any) -> Path:
    return write(path, dataset_of(drawn() if pixels is None else pixels, **attributes))


def write_series(folder: Path, heights: list[float], **attributes: Any) -> Path:
    """Axial slices at these heights, named against their order."""
    folder.mkdir(exist_ok=True)
    for place, height in enumerate(heights):
        name = f"{len(heights) - place}.dcm"
        pixels, position = drawn(seed=place), [-10, 20, height]
        write_file(folder / name, pixels, ImagePositionPatient=position, **attributes)
    return folder


def patched(path: Path, old: bytes, new: bytes) -> Path:
    content = path.read_bytes()
    assert content.count(old) == 1
    assert len(old) == len(new)
    path.write_bytes(content.replace(old, new))
    return path


def in_patient(affine: NDArray[Any], index: tuple[int, int, int]) -> NDArray[Any]:
    """Where a voxel lies, in DICOM's millimetres to the left, back and top."""
    right, front, top, _ = affine @ (*index, 1)
    return np.array([-right, -front, top])


# -- what is read


def test_one_file_of_any_name(tmp_path: Path) -> None:
    pixels = drawn()
    volume = read_dicom(write_file(tmp_path / "IM-0001", pixels))
    assert volume.voxels.shape == (5, 6, 1)
    np.testing.assert_array_equal(volume.voxels[:, :, 0], pixels.T)
    assert volume.geometry.form_codes == (1, 1)
    assert volume.geometry.scaling == (1.0, 0.0)
    assert volume.geometry.zooms == (0.75, 1.5, 2.5)
    expected = [[-0.75, 0, 0, 10], [0, -1.5, 0, -20], [0, 0, 2.5, 30], [0, 0, 0, 1]]
    np.testing.assert_allclose(volume.geometry.affine, expected)


def test_slices_follow_their_positions(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "series", [30, 33, 36, 39])
    volume = read_dicom(folder)
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
    volume = read_dicom(tmp_path)
    np.testing.assert_array_equal(volume.voxels[:, :, 2], drawn(seed=2).T)
    column, row, place = 4, 5, 2
    expected = corner + column * 0.75 * across + row * 1.5 * down + place * 2 * normal
    found = in_patient(volume.geometry.affine, (column, row, place))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.linalg.det(volume.geometry.affine[:3, :3]) > 0


def test_a_sheared_series_keeps_its_shear(tmp_path: Path) -> None:
    for place in range(3):
        write_file(tmp_path / f"{place}", drawn(), ImagePositionPatient=[0, 0.5 * place, 2 * place])
    affine = read_dicom(tmp_path).geometry.affine
    np.testing.assert_allclose(in_patient(affine, (0, 0, 2)), [0, 1, 4])


def test_affine_as_nibabel_finds_it(shared_data: Path) -> None:
    nicom = pytest.importorskip("nibabel.nicom.dicomwrappers")
    path = shared_data / "dicom" / "series" / "N2D_0183.dcm"
    theirs = nicom.wrapper_from_file(path).affine  # of indices (row, column, slice)
    ours = read_dicom(path).geometry.affine
    for index in [(0, 0, 0), (200, 17, 0), (3, 300, 0)]:
        expected = theirs @ (index[1], index[0], index[2], 1)
        np.testing.assert_allclose(in_patient(ours, index), expected[:3], atol=1e-4)


def test_a_real_series(shared_data: Path) -> None:
    folder = shared_data / "dicom" / "series"
    volume = read_dicom(folder)
    assert volume.voxels.shape == (274, 384, 8)
    assert volume.voxels.dtype == np.int16
    for place, path in enumerate(sorted(folder.glob("*.dcm"))):
        dataset = pydicom.dcmread(path)
        stored = np.frombuffer(dataset.PixelData, "<i2").reshape(384, 274)
        np.testing.assert_array_equal(volume.voxels[:, :, place], stored.T)
        found = in_patient(volume.geometry.affine, (0, 0, place))
        np.testing.assert_allclose(found, dataset.ImagePositionPatient, atol=1e-4)


@pytest.mark.parametrize("name", ["RLE", "bigendian", "implicit", "jp2klossless", "jpeg_ls_lossless"])
def test_every_transfer_syntax_gives_the_same(shared_data: Path, name: str) -> None:
    if name == "jpeg_ls_lossless":
        pytest.importorskip("jpeg_ls", reason="pyjpegls, of the extra dicom, is not installed")
    folder = shared_data / "dicom" / "variants"
    plain, other = (read_dicom(folder / f"MR_small{each}.dcm") for each in ("", f"_{name}"))
    np.testing.assert_array_equal(plain.voxels, other.voxels)
    assert plain.voxels.dtype == other.voxels.dtype
    assert plain.geometry.content == other.geometry.content


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int16, np.uint32, np.int32])
def test_stored_values_keep_their_type(tmp_path: Path, dtype: Any) -> None:
    pixels = drawn(4, 6, dtype=dtype)
    voxels = read_dicom(write_file(tmp_path / "a", pixels)).voxels
    assert voxels.dtype == dtype
    np.testing.assert_array_equal(voxels[:, :, 0], pixels.T)


@pytest.mark.parametrize("dtype", [np.uint16, np.int16])
def test_bits_that_are_not_stored_do_not_count(tmp_path: Path, dtype: Any) -> None:
    pixels = drawn(dtype=dtype)
    voxels = read_dicom(write_file(tmp_path / "a", pixels, BitsStored=12, HighBit=11)).voxels
    expected = pixels.astype(np.int64) & 0xFFF
    if dtype is np.int16:
        expected = (expected + 0x800 & 0xFFF) - 0x800
    np.testing.assert_array_equal(voxels[:, :, 0], expected.T)


def test_scale_comes_along_and_voxels_stay_stored_values(tmp_path: Path) -> None:
    path = write_file(tmp_path / "a", RescaleSlope="0.25", RescaleIntercept="-1024")
    volume = read_dicom(path)
    np.testing.assert_array_equal(volume.voxels[:, :, 0], drawn().T)
    assert volume.geometry.scaling == (0.25, -1024.0)


def test_an_enhanced_file_of_several_frames(tmp_path: Path) -> None:
    frames = np.stack([drawn(seed=seed) for seed in range(3)])
    enhanced = dataset_of(
        frames,
        NumberOfFrames=3,
        ImagePositionPatient=None,
        ImageOrientationPatient=None,
        PixelSpacing=None,
        SliceThickness=None,
    )
    shared, orientation, measures, values = Dataset(), Dataset(), Dataset(), Dataset()
    orientation.ImageOrientationPatient = AXIAL
    measures.PixelSpacing = [1.5, 0.75]
    values.RescaleSlope, values.RescaleIntercept = 2, 1
    shared.PlaneOrientationSequence = [orientation]
    shared.PixelMeasuresSequence = [measures]
    shared.PixelValueTransformationSequence = [values]
    enhanced.SharedFunctionalGroupsSequence = [shared]
    enhanced.PerFrameFunctionalGroupsSequence = []
    for height in (34, 32, 30):
        frame, place = Dataset(), Dataset()
        place.ImagePositionPatient = [-10, 20, height]
        frame.PlanePositionSequence = [place]
        enhanced.PerFrameFunctionalGroupsSequence.append(frame)
    volume = read_dicom(write(tmp_path / "enhanced.dcm", enhanced))
    np.testing.assert_array_equal(volume.voxels, frames[::-1].transpose(2, 1, 0))
    assert volume.geometry.zooms == (0.75, 1.5, 2.0)
    assert volume.geometry.scaling == (2.0, 1.0)
    np.testing.assert_allclose(in_patient(volume.geometry.affine, (0, 0, 0)), [-10, 20, 30])


def test_without_a_position_nothing_is_claimed_about_space(tmp_path: Path) -> None:
    volume = read_dicom(write_file(tmp_path / "a", ImagePositionPatient=None))
    assert volume.geometry.form_codes == (0, 0)
    assert volume.geometry.zooms == (0.75, 1.5, 2.5)
    bare = read_dicom(write_file(tmp_path / "b", PixelSpacing=None, SliceThickness=None))
    assert bare.geometry.form_codes == (0, 0)
    assert bare.geometry.zooms == (1.0, 1.0, 1.0)


def test_without_positions_slices_follow_their_numbers(tmp_path: Path) -> None:
    for number in (10, 9, 2):
        pixels = drawn(seed=number)
        write_file(tmp_path / f"{number}", pixels, ImagePositionPatient=None, InstanceNumber=number)
    volume = read_dicom(tmp_path)
    for place, number in enumerate((2, 9, 10)):
        np.testing.assert_array_equal(volume.voxels[:, :, place], drawn(seed=number).T)
    write_file(tmp_path / "again", ImagePositionPatient=None, InstanceNumber=2)
    with pytest.raises(ImageError, match="neither positions nor numbers"):
        read_dicom(tmp_path)


def test_what_is_no_dicom_is_passed_over(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "series", [1, 2])
    (folder / "README").write_text("eight slices")
    (folder / ".hidden.dcm").write_bytes(b"")
    write_file(folder / "DICOMDIR", PixelData=None, Rows=None)
    (folder / "inner").mkdir()
    write_file(folder / "inner" / "other.dcm")
    assert read_dicom(folder).voxels.shape == (5, 6, 2)


def test_volumes_go_to_nifti_and_back(tmp_path: Path) -> None:
    volume = read_dicom(write_series(tmp_path / "series", [1, 2, 3], RescaleSlope="0.5"))
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


# -- privacy


def test_nothing_but_geometry_scale_and_pixels_comes_through(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "series", [1, 2], **SECRETS)
    stored = b"".join(path.read_bytes() for path in folder.iterdir())
    volume = read_dicom(folder)
    written = []
    for name in ("volume.nii", "volume.hdr"):
        write_volume(volume, tmp_path / name)
    written = [path.read_bytes() for path in tmp_path.iterdir() if path.is_file()]
    assert len(written) == 3
    for secret in (*SECRETS.values(), SERIES, MR_STORAGE):
        assert secret.encode() in stored
        assert not any(secret.encode() in content for content in (volume.geometry.content, *written))
    header = volume.geometry.content
    read_series = read_dicom(write_series(tmp_path / "series", [1, 2]))
    assert header == read_series.geometry.content


# -- what is refused


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "colour": ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, "coloured"),
    "palette": ({"PhotometricInterpretation": "PALETTE COLOR"}, "coloured"),
    "0 is white": ({"PhotometricInterpretation": "MONOCHROME1"}, "0 is white"),
    "mosaic": ({"ImageType": ["ORIGINAL", "PRIMARY", "M", "MOSAIC"]}, "mosaic"),
    "one bit": ({"BitsAllocated": 1, "BitsStored": 1, "HighBit": 0}, "1 of 1 bits"),
    "64 bits": ({"BitsAllocated": 64, "BitsStored": 64, "HighBit": 63}, "64 of 64 bits"),
    "more bits than there are": ({"BitsStored": 17, "HighBit": 16}, "17 of 16 bits"),
    "high bits": ({"BitsStored": 12}, "lowest bit"),
    "several frames": ({"NumberOfFrames": 3}, "3 frames without positions"),
    "no frames": ({"NumberOfFrames": 0}, "no pixels"),
    "no rows": ({"Rows": 0}, "no pixels"),
    "huge": ({"Rows": 65535, "Columns": 65535}, "65535×65535 pixels, more than the limit"),
    "large": ({"Rows": 5000, "Columns": 5000}, "5000×5000 pixels, more than the limit of 16,777,216"),
    "too many frames": ({"NumberOfFrames": 10_000_000}, "5×6×10000000 voxels, more than the limit"),
    "more rows": ({"Rows": 7}, "truncated or damaged: 60 bytes of pixels, expected 70"),
    "fewer rows": ({"Rows": 3}, "truncated or damaged: 60 bytes of pixels, expected 30"),
    "no image": ({"Rows": None}, "Rows is missing"),
    "no pixels": ({"PixelData": None}, "PixelData is missing"),
    "float pixels": (
        {"PixelData": None, "FloatPixelData": bytes(120), "BitsAllocated": 32, "BitsStored": 32}
        | {"HighBit": 31},
        "without pixels of integers",
    ),
    "skewed": ({"ImageOrientationPatient": [1, 0, 0, 0.5, 0.5, 0]}, "no pair of right-angled axes"),
    "flat": ({"PixelSpacing": [0, 1]}, "a PixelSpacing or RescaleSlope of 0"),
    "mirrored": ({"PixelSpacing": [-1, 1]}, "a PixelSpacing or RescaleSlope of 0"),
    "no slope": ({"RescaleSlope": 0}, "a PixelSpacing or RescaleSlope of 0"),
    "far away": ({"ImagePositionPatient": [1e300, 0, 0]}, "ImagePositionPatient is not 3 finite"),
    "two numbers": ({"ImagePositionPatient": [1, 0]}, "ImagePositionPatient is not 3 finite"),
}


@pytest.mark.parametrize(("attributes", "message"), REFUSED.values(), ids=REFUSED)
def test_what_a_volume_cannot_say_is_refused(
    tmp_path: Path, attributes: dict[str, Any], message: str
) -> None:
    path = write_file(tmp_path / "a.dcm", drawn(dtype=np.uint16), **attributes)
    with pytest.raises(ImageError, match=f"^{path}: .*{message}") as caught:
        read_dicom(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", [b"nan\\12.5", b"inf\\12.5", b"a b\\12.5"])
def test_a_spacing_that_is_no_number(tmp_path: Path, text: bytes) -> None:
    path = write_file(tmp_path / "a.dcm", PixelSpacing=["123", "12.5"])
    with pytest.raises(ImageError, match=r"a\.dcm: a damaged"):
        read_dicom(patched(path, b"123\\12.5", text))


UNLIKE: dict[str, tuple[dict[str, Any], str]] = {
    "series": ({"SeriesInstanceUID": SERIES + ".9"}, "images of 2 series .*1.dcm.*other.dcm"),
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
        read_dicom(folder)
    assert SERIES not in str(caught.value)


def test_rounded_positions_pass(tmp_path: Path) -> None:
    volume = read_dicom(write_series(tmp_path / "series", [0, 0.67, 1.33, 2, 2.67]))
    np.testing.assert_allclose(volume.geometry.zooms[2], 2.67 / 4, rtol=1e-6)


def test_files_that_claim_to_be_dicom(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "series", [1, 2])
    (folder / "3.dcm").write_text("no DICOM" * 40)
    with pytest.raises(ImageError, match=r"3\.dcm: no DICOM file"):
        read_dicom(folder)
    (folder / "3.dcm").write_bytes(b"")
    with pytest.raises(ImageError, match=r"3\.dcm: an empty file"):
        read_dicom(folder)
    (folder / "3.dcm").unlink()
    (folder / "3.dcm").symlink_to(tmp_path / "none")
    with pytest.raises(FileError, match=r"3\.dcm: no such file"):
        read_dicom(folder)


def test_folders_without_dicom(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="no DICOM file directly in this folder"):
        read_dicom(tmp_path)
    with pytest.raises(FileError, match="no such file"):
        read_dicom(tmp_path / "none")


def test_syntaxes_that_are_not_read(tmp_path: Path) -> None:
    path = write_file(tmp_path / "a.dcm")
    syntax = ExplicitVRLittleEndian.encode() + b"\0"
    other = b"1.2.840.10008.1.2.9\0"
    with pytest.raises(ImageError, match="a transfer syntax that pydicom does not read"):
        read_dicom(patched(path, syntax, other))
    dataset = dataset_of(drawn())
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    with pytest.raises(ImageError, match="deflated"):
        read_dicom(write(tmp_path / "b.dcm", dataset))


@pytest.mark.parametrize(
    ("syntax", "remedy"),
    [(JPEGLSLossless, r"pip install 'oasisvq\[dicom\]'"), (JPEGLosslessSV1, "pylibjpeg-libjpeg")],
)
def test_a_missing_decoder_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, syntax: Any, remedy: str
) -> None:
    decoder = pydicom.pixels.get_decoder(syntax)
    needs = {"gdcm": ("gdcm",), "pylibjpeg": ("pylibjpeg", "pylibjpeg-libjpeg")}
    if syntax == JPEGLSLossless:
        needs["pyjpegls"] = ("numpy", "pyjpegls")
    monkeypatch.setattr(decoder, "_available", {})
    monkeypatch.setattr(decoder, "_unavailable", needs)
    dataset = dataset_of(drawn(), PixelData=pydicom.encaps.encapsulate([b"\xff\xd8\xff\xd9"]))
    dataset.file_meta.TransferSyntaxUID = syntax
    with pytest.raises(ImageError, match=f"compressed as JPEG.*no decoder.*{remedy}"):
        read_dicom(write(tmp_path / "a.dcm", dataset))


def test_pixels_of_another_size_are_refused_before_they_are_decoded(
    tmp_path: Path, shared_data: Path
) -> None:
    pytest.importorskip("jpeg_ls", reason="pyjpegls, of the extra dicom, is not installed")
    path = tmp_path / "a.dcm"
    path.write_bytes((shared_data / "dicom" / "variants" / "MR_small_jpeg_ls_lossless.dcm").read_bytes())
    start = b"\xff\xf7\x00\x0b\x10"  # 64×64 becomes 32767×32767, 4 GB to decode
    with pytest.raises(ImageError, match="pixels of another size than 64×64"):
        read_dicom(patched(path, start + b"\0\x40\0\x40", start + b"\x7f\xff\x7f\xff"))


def test_a_frame_far_longer_than_its_pixels_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    """Run lengths may stand for 64 times as many bytes."""
    dataset = dataset_of(drawn())
    dataset.compress(RLELossless, generate_instance_uid=False)
    whole = read_dicom(write(tmp_path / "a.dcm", dataset)).voxels
    np.testing.assert_array_equal(whole[:, :, 0].T, drawn())
    frame = pydicom.encaps.get_frame(dataset.PixelData, 0, number_of_frames=1)
    dataset.PixelData = pydicom.encaps.encapsulate([frame + b"\x81\x00" * 2**17])
    with pytest.raises(ImageError, match="pixels of another size than 5×6"):
        read_dicom(write(tmp_path / "a.dcm", dataset))


def test_a_real_truncated_file(shared_data: Path) -> None:
    with pytest.raises(ImageError, match="8,130 bytes of pixels, expected 8,192"):
        read_dicom(shared_data / "dicom" / "variants" / "MR_truncated.dcm")


def test_a_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_file(tmp_path / "a")
    opened: Callable[..., Any] = Path.open

    def refuse(self: Path, *arguments: Any, **options: Any) -> Any:
        if self == path:
            raise PermissionError(13, os.strerror(13), str(self))
        return opened(self, *arguments, **options)

    monkeypatch.setattr(Path, "open", refuse)
    for asked in (path, tmp_path):
        with pytest.raises(FileError, match="a: cannot be read: Permission denied"):
            read_dicom(asked)
    assert not is_dicom(path)


def test_damage_is_always_an_error_of_ours(tmp_path: Path, rng: np.random.Generator) -> None:
    content = write_file(tmp_path / "whole", RescaleSlope="2.0", NumberOfFrames=1).read_bytes()
    path = tmp_path / "damaged.dcm"
    refused = 0
    for end in range(0, len(content), 7):
        path.write_bytes(content[:end])
        with pytest.raises(OasisVQError, match=r"damaged\.dcm"):
            read_dicom(path)
    for _ in range(400):
        damaged = bytearray(content)
        for place in rng.integers(132, len(content), 2):
            damaged[place] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            read_dicom(path)
        except OasisVQError as error:
            refused += 1
            assert str(error).startswith(str(path))
            assert "\n" not in str(error)
    assert refused > 50


def test_without_pydicom_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_file(tmp_path / "a")
    monkeypatch.setitem(sys.modules, "pydicom.pixels", None)
    with pytest.raises(ImageError, match=r"pip install 'oasisvq\[dicom\]'"):
        read_dicom(path)
    assert is_dicom(path)


def test_importing_costs_neither_pydicom_nor_torch() -> None:
    script = "import sys, oasisvq.scans.dicom; sys.exit(bool({'torch', 'pydicom'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
