"""One DICOM file, drawn here or real where this machine has them: what is read, what is refused."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from oasisvq.errors import FileError, ImageError, OasisVQError
from oasisvq.scans.dicom import is_dicom

pydicom = pytest.importorskip("pydicom")
from drawn_dicom import (  # noqa: E402
    AXIAL,
    dataset_of,
    drawn,
    in_patient,
    patched,
    read,
    write,
    write_file,
)
from pydicom.dataset import Dataset  # noqa: E402
from pydicom.uid import (  # noqa: E402
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)


def test_one_file_of_any_name(tmp_path: Path) -> None:
    pixels = drawn()
    volume = read(write_file(tmp_path / "IM-0001", pixels))
    assert volume.voxels.shape == (5, 6, 1)
    np.testing.assert_array_equal(volume.voxels[:, :, 0], pixels.T)
    assert volume.geometry.form_codes == (1, 1)
    assert volume.geometry.scaling == (1.0, 0.0)
    assert volume.geometry.zooms == (0.75, 1.5, 2.5)
    expected = [[-0.75, 0, 0, 10], [0, -1.5, 0, -20], [0, 0, 2.5, 30], [0, 0, 0, 1]]
    np.testing.assert_allclose(volume.geometry.affine, expected)


@pytest.mark.parametrize("name", ["RLE", "bigendian", "implicit", "jp2klossless", "jpeg_ls_lossless"])
def test_every_transfer_syntax_gives_the_same(shared_data: Path, name: str) -> None:
    if name == "jpeg_ls_lossless":
        pytest.importorskip("jpeg_ls", reason="pyjpegls, of the extra dicom, is not installed")
    folder = shared_data / "dicom" / "variants"
    plain, other = (read(folder / f"MR_small{each}.dcm") for each in ("", f"_{name}"))
    np.testing.assert_array_equal(plain.voxels, other.voxels)
    assert plain.voxels.dtype == other.voxels.dtype
    assert plain.geometry.content == other.geometry.content


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int16, np.uint32, np.int32])
def test_stored_values_keep_their_type(tmp_path: Path, dtype: Any) -> None:
    pixels = drawn(4, 6, dtype=dtype)
    voxels = read(write_file(tmp_path / "a", pixels)).voxels
    assert voxels.dtype == dtype
    np.testing.assert_array_equal(voxels[:, :, 0], pixels.T)


@pytest.mark.parametrize("dtype", [np.uint16, np.int16])
def test_bits_that_are_not_stored_do_not_count(tmp_path: Path, dtype: Any) -> None:
    pixels = drawn(dtype=dtype)
    voxels = read(write_file(tmp_path / "a", pixels, BitsStored=12, HighBit=11)).voxels
    expected = pixels.astype(np.int64) & 0xFFF
    if dtype is np.int16:
        expected = (expected + 0x800 & 0xFFF) - 0x800
    np.testing.assert_array_equal(voxels[:, :, 0], expected.T)


def test_scale_comes_along_and_voxels_stay_stored_values(tmp_path: Path) -> None:
    path = write_file(tmp_path / "a", RescaleSlope="0.25", RescaleIntercept="-1024")
    volume = read(path)
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
    volume = read(write(tmp_path / "enhanced.dcm", enhanced))
    np.testing.assert_array_equal(volume.voxels, frames[::-1].transpose(2, 1, 0))
    assert volume.geometry.zooms == (0.75, 1.5, 2.0)
    assert volume.geometry.scaling == (2.0, 1.0)
    np.testing.assert_allclose(in_patient(volume.geometry.affine, (0, 0, 0)), [-10, 20, 30])


def test_without_a_position_nothing_is_claimed_about_space(tmp_path: Path) -> None:
    volume = read(write_file(tmp_path / "a", ImagePositionPatient=None))
    assert volume.geometry.form_codes == (0, 0)
    assert volume.geometry.zooms == (0.75, 1.5, 2.5)
    bare = read(write_file(tmp_path / "b", PixelSpacing=None, SliceThickness=None))
    assert bare.geometry.form_codes == (0, 0)
    assert bare.geometry.zooms == (1.0, 1.0, 1.0)


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
        read(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", [b"nan\\12.5", b"inf\\12.5", b"a b\\12.5"])
def test_a_spacing_that_is_no_number(tmp_path: Path, text: bytes) -> None:
    path = write_file(tmp_path / "a.dcm", PixelSpacing=["123", "12.5"])
    with pytest.raises(ImageError, match=r"a\.dcm: a damaged"):
        read(patched(path, b"123\\12.5", text))


def test_syntaxes_that_are_not_read(tmp_path: Path) -> None:
    path = write_file(tmp_path / "a.dcm")
    syntax = ExplicitVRLittleEndian.encode() + b"\0"
    other = b"1.2.840.10008.1.2.9\0"
    with pytest.raises(ImageError, match="a transfer syntax that pydicom does not read"):
        read(patched(path, syntax, other))
    dataset = dataset_of(drawn())
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    with pytest.raises(ImageError, match="deflated"):
        read(write(tmp_path / "b.dcm", dataset))


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
        read(write(tmp_path / "a.dcm", dataset))


def test_pixels_of_another_size_are_refused_before_they_are_decoded(
    tmp_path: Path, shared_data: Path
) -> None:
    pytest.importorskip("jpeg_ls", reason="pyjpegls, of the extra dicom, is not installed")
    path = tmp_path / "a.dcm"
    path.write_bytes((shared_data / "dicom" / "variants" / "MR_small_jpeg_ls_lossless.dcm").read_bytes())
    start = b"\xff\xf7\x00\x0b\x10"  # 64×64 becomes 32767×32767, 4 GB to decode
    with pytest.raises(ImageError, match="pixels of another size than 64×64"):
        read(patched(path, start + b"\0\x40\0\x40", start + b"\x7f\xff\x7f\xff"))


def test_a_frame_far_longer_than_its_pixels_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    """Run lengths may stand for 64 times as many bytes."""
    dataset = dataset_of(drawn())
    dataset.compress(RLELossless, generate_instance_uid=False)
    whole = read(write(tmp_path / "a.dcm", dataset)).voxels
    np.testing.assert_array_equal(whole[:, :, 0].T, drawn())
    frame = pydicom.encaps.get_frame(dataset.PixelData, 0, number_of_frames=1)
    dataset.PixelData = pydicom.encaps.encapsulate([frame + b"\x81\x00" * 2**17])
    with pytest.raises(ImageError, match="pixels of another size than 5×6"):
        read(write(tmp_path / "a.dcm", dataset))


def test_a_real_truncated_file(shared_data: Path) -> None:
    with pytest.raises(ImageError, match="8,130 bytes of pixels, expected 8,192"):
        read(shared_data / "dicom" / "variants" / "MR_truncated.dcm")


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
            read(asked)
    assert not is_dicom(path)


def test_damage_is_always_an_error_of_ours(tmp_path: Path, rng: np.random.Generator) -> None:
    content = write_file(tmp_path / "whole", RescaleSlope="2.0", NumberOfFrames=1).read_bytes()
    path = tmp_path / "damaged.dcm"
    refused = 0
    for end in range(0, len(content), 7):
        path.write_bytes(content[:end])
        with pytest.raises(OasisVQError, match=r"damaged\.dcm"):
            read(path)
    for _ in range(400):
        damaged = bytearray(content)
        for place in rng.integers(132, len(content), 2):
            damaged[place] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            read(path)
        except OasisVQError as error:
            refused += 1
            assert str(error).startswith(str(path))
            assert "\n" not in str(error)
    assert refused > 50
