"""Volume files, both ways."""

import gzip
import itertools
from pathlib import Path

import nibabel
import numpy as np
import pytest
from numpy.typing import NDArray

from oasisvq.errors import FileError, ImageError
from oasisvq.scans.volumes import read_volume, volume_suffix, write_volume, written_files
from oasisvq.scans.voxel_streams import Volume

AFFINE = np.array([[-1.0, 0.1, 0, 90], [0.1, 1.0, 0, -126], [0, 0, 1.25, -72], [0, 0, 0, 1]])


def save(path: Path, voxels: NDArray[np.generic], slope: float = 1.0) -> Path:
    image = nibabel.Nifti1Image(voxels, AFFINE)
    image.header.set_slope_inter(slope, 0.0)
    nibabel.save(image, path)
    return path


def voxels_of(dtype: str, shape: tuple[int, ...] = (5, 6, 7)) -> NDArray[np.generic]:
    return np.random.default_rng(0).uniform(0, 120, shape).astype(dtype)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".img", ".hdr"])
@pytest.mark.parametrize("dtype", ["u1", "i2", ">i2", "f4", "f8", "u2", "i8"])
def test_a_volume_comes_back_to_the_last_bit(suffix: str, dtype: str, tmp_path: Path) -> None:
    voxels = voxels_of(dtype)
    single = suffix.startswith(".nii")
    kind = nibabel.Nifti1Image if single else nibabel.Nifti1Pair
    made = kind(voxels, AFFINE, kind.header_class(endianness=">" if dtype[0] == ">" else "<"))
    made.header.set_data_dtype(dtype)
    source, written = tmp_path / f"in{suffix}", tmp_path / f"out{suffix}"
    nibabel.save(made, source)
    volume = read_volume(source)
    np.testing.assert_array_equal(volume.voxels, voxels)
    write_volume(volume, written)
    before, after = nibabel.load(source), nibabel.load(written)
    assert after.header.binaryblock == before.header.binaryblock
    np.testing.assert_array_equal(np.asanyarray(after.dataobj), np.asanyarray(before.dataobj))


def test_either_file_of_a_pair_may_be_named(tmp_path: Path) -> None:
    nibabel.save(nibabel.Nifti1Pair(voxels_of("i2"), AFFINE), tmp_path / "in.img")
    first, second = (read_volume(tmp_path / name) for name in ("in.img", "in.hdr"))
    np.testing.assert_array_equal(first.voxels, second.voxels)
    assert first.geometry.content == second.geometry.content


@pytest.mark.parametrize("named", ["in.img", "in.hdr"])
def test_half_of_a_pair_is_said_to_be_one(named: str, tmp_path: Path) -> None:
    nibabel.save(nibabel.Nifti1Pair(voxels_of("i2"), AFFINE), tmp_path / "in.img")
    other = {"in.img": "in.hdr", "in.hdr": "in.img"}[named]
    (tmp_path / other).unlink()
    with pytest.raises(FileError, match=rf"{named}: half of a pair; .*{other}"):
        read_volume(tmp_path / named)


def test_analyze_with_a_trailing_axis(tmp_path: Path) -> None:
    header = nibabel.Spm2AnalyzeHeader(endianness=">")
    voxels = voxels_of(">i2", (5, 6, 7, 1))
    header.set_data_dtype(">i2")
    nibabel.save(nibabel.Spm2AnalyzeImage(voxels, None, header), tmp_path / "in.img")
    volume = read_volume(tmp_path / "in.hdr")
    assert volume.voxels.shape == (5, 6, 7)
    assert volume.voxels.dtype == np.int16
    assert volume.geometry.shape == (5, 6, 7, 1)
    np.testing.assert_array_equal(volume.voxels, voxels[..., 0])
    write_volume(volume, tmp_path / "out.img")
    again = read_volume(tmp_path / "out.hdr")
    assert again.geometry.content == volume.geometry.content
    np.testing.assert_array_equal(again.voxels, volume.voxels)


def test_stored_values_are_kept_beside_their_scale(tmp_path: Path) -> None:
    save(tmp_path / "in.nii.gz", voxels_of("i2"), slope=0.25)
    volume = read_volume(tmp_path / "in.nii.gz")
    assert volume.geometry.scaling == (0.25, 0.0)
    assert volume.voxels.dtype == np.int16


def rgb(path: Path) -> None:
    colours = np.zeros((4, 4, 4), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    nibabel.save(nibabel.Nifti1Image(colours, AFFINE), path)


def test_what_is_no_single_volume_of_numbers_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "in.nii.gz"
    for shape in ((4, 4, 4, 3), (4, 4, 4, 1, 2)):
        save(path, voxels_of("i2", shape))
        with pytest.raises(ImageError, match=r"in\.nii\.gz: shape .*expected one volume"):
            read_volume(path)
    rgb(path)
    with pytest.raises(ImageError, match=r"in\.nii\.gz: voxels of colours"):
        read_volume(path)
    save(path, voxels_of("c8"))
    with pytest.raises(ImageError, match=r"in\.nii\.gz: voxels of complex64"):
        read_volume(path)


def test_damaged_files_are_errors(tmp_path: Path) -> None:
    whole = gzip.decompress(save(tmp_path / "a.nii.gz", voxels_of("i2")).read_bytes())
    packed = (tmp_path / "a.nii.gz").read_bytes()
    bad = tmp_path / "bad.nii.gz"
    for content, message in (
        (b"", "an empty file"),
        (gzip.compress(b""), "not a NIfTI or Analyze file"),
        (packed[:60], "gzip"),
        (packed[:-20], "gzip|truncated"),
        (b"\x1f\x8b" + bytes(50), "gzip"),
        (whole[:200], "not a NIfTI or Analyze file"),
        (whole[:-1], r"truncated: 419 bytes of voxels, expected 420"),
        (b"hello" * 200, "not a NIfTI or Analyze file"),
    ):
        bad.write_bytes(content)
        with pytest.raises(ImageError, match=rf"bad\.nii\.gz: .*({message})"):
            read_volume(bad)


def test_a_flip_anywhere_in_a_gzip_file_is_found(tmp_path: Path) -> None:
    whole = save(tmp_path / "a.nii.gz", voxels_of("i2")).read_bytes()
    voxels, path = read_volume(tmp_path / "a.nii.gz").voxels, tmp_path / "b.nii.gz"
    damaged = [whole[:-4], whole[:-8], whole + b"junk"]
    for place in range(8 * 12, 8 * len(whole), 37):  # after gzip's own header, which has no checksum
        content = bytearray(whole)
        content[place // 8] ^= 1 << place % 8
        damaged.append(bytes(content))
    refused = 0
    for content in damaged:
        path.write_bytes(content)
        try:
            np.testing.assert_array_equal(read_volume(path).voxels, voxels)
        except ImageError:
            refused += 1
    assert refused > len(damaged) - 10


@pytest.mark.parametrize("name", ["x.IMG", "x.HDR", "x.img"])
def test_both_files_of_a_pair_are_named_alike(name: str, tmp_path: Path) -> None:
    volume = read_volume(save(tmp_path / "a.nii", voxels_of("i2")))
    write_volume(volume, tmp_path / name)
    np.testing.assert_array_equal(read_volume(tmp_path / name).voxels, volume.voxels)


def test_a_packed_pair_of_the_same_name_is_left_alone(tmp_path: Path) -> None:
    volume = read_volume(save(tmp_path / "a.nii", voxels_of("i2")))
    for name in ("x.hdr.gz", "x.img.gz"):
        (tmp_path / name).write_bytes(b"packed")
    for name in ("x.img", "x.hdr"):
        write_volume(volume, tmp_path / name)
        np.testing.assert_array_equal(read_volume(tmp_path / name).voxels, volume.voxels)
    assert written_files(tmp_path / "x.img") == [tmp_path / "x.img", tmp_path / "x.hdr"]
    assert (tmp_path / "x.hdr.gz").read_bytes() == (tmp_path / "x.img.gz").read_bytes() == b"packed"


def test_every_flipped_bit_of_a_header_is_read_or_refused(tmp_path: Path) -> None:
    whole = save(tmp_path / "a.nii", voxels_of("u1", (3, 4, 2))).read_bytes()
    path = tmp_path / "b.nii"
    read = 0
    for place in itertools.chain(range(0, 8 * 80), range(8 * 80, 8 * 348, 5)):
        content = bytearray(whole)
        content[place // 8] ^= 1 << place % 8
        path.write_bytes(content)
        try:
            volume = read_volume(path)
        except ImageError:
            continue
        assert volume.voxels.size
        read += 1
    assert read > 100


def test_a_header_that_promises_too_much_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii", voxels_of("u1", (3, 4, 2)))
    content = bytearray(path.read_bytes())
    content[42:48] = np.array([2000, 2000, 2000], "<i2").tobytes()
    path.write_bytes(content)
    with pytest.raises(ImageError, match="more than the limit of 1,073,741,824"):
        read_volume(path)


def test_endings() -> None:
    assert volume_suffix(Path("A.NII.GZ")) == ".nii.gz"
    assert volume_suffix(Path("a.nii.png")) is None
    with pytest.raises(ImageError, match=r"volumes are written as"):
        write_volume(Volume(voxels_of("u1"), None), Path("a.hdr.gz"))  # type: ignore[arg-type]
