"""FreeSurfer's MGH files <-> volumes."""

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray

from oasisvq.errors import ImageError
from oasisvq.scans.geometry import Geometry
from oasisvq.scans.scan import read_scan, volumes_in
from oasisvq.scans.source import SourceKind, source_at
from oasisvq.scans.volumes import read_volume, write_volume
from oasisvq.scans.voxel_streams import Volume

# coronal slices from the left, as FreeSurfer conforms them
AFFINE = np.array([[-1.0, 0, 0, 20], [0, 0, 1.5, -18], [0, -1, 0, 25], [0, 0, 0, 1]])
TYPES = ("uint8", "int16", "int32", "float32")


def voxels_of(kind: str, *more: int) -> NDArray[np.generic]:
    return np.random.default_rng(0).integers(0, 200, (9, 7, 5, *more)).astype(kind)


def write_mgh(path: Path, voxels: NDArray[np.generic]) -> Path:
    nib.MGHImage(voxels, AFFINE).to_filename(path)
    return path


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("suffix", [".mgz", ".mgh"])
def test_mgh_is_read_with_its_geometry(tmp_path: Path, kind: str, suffix: str) -> None:
    voxels = voxels_of(kind)
    source = source_at(write_mgh(tmp_path / f"orig{suffix}", voxels))
    assert (source.kind, source.name) == (SourceKind.VOLUME, "orig")
    found = read_volume(source.path)
    assert found.voxels.dtype == voxels.dtype
    np.testing.assert_array_equal(found.voxels, voxels)
    np.testing.assert_allclose(found.geometry.affine, AFFINE, atol=1e-5)
    np.testing.assert_allclose(found.geometry.zooms, (1, 1, 1.5))
    assert found.geometry.axis_codes == "LIA"


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("suffix", [".mgz", ".mgh"])
def test_mgh_is_written_as_nibabel_reads_it(tmp_path: Path, kind: str, suffix: str) -> None:
    voxels = voxels_of(kind)
    write_volume(Volume(voxels, Geometry.of_array(voxels, AFFINE)), tmp_path / f"back{suffix}")
    content = (tmp_path / f"back{suffix}").read_bytes()
    image = nib.MGHImage.from_bytes(gzip.decompress(content) if suffix == ".mgz" else content)
    np.testing.assert_array_equal(np.asarray(image.dataobj), voxels)
    np.testing.assert_allclose(image.affine, AFFINE, atol=1e-5)
    again = read_volume(tmp_path / f"back{suffix}")
    np.testing.assert_array_equal(again.voxels, voxels)


def test_what_mgh_cannot_hold_is_refused_with_a_way_out(tmp_path: Path) -> None:
    voxels = voxels_of("float64")
    volume = Volume(voxels, Geometry.of_array(voxels, AFFINE))
    with pytest.raises(ImageError, match=r"back\.mgz: MGH holds .* not float64 voxels; name a"):
        write_volume(volume, tmp_path / "back.mgz")
    assert not (tmp_path / "back.mgz").exists()


def test_one_of_the_frames_of_an_mgh_file(tmp_path: Path) -> None:
    voxels = voxels_of("int16", 3)
    path = write_mgh(tmp_path / "bold.mgz", voxels)
    assert volumes_in(source_at(path)) == 3
    np.testing.assert_array_equal(read_volume(path, which=2).voxels, voxels[..., 2])
    with pytest.raises(ImageError, match=r"bold\.mgz: shape \(9, 7, 5, 3\), expected one volume"):
        read_scan(source_at(path))
    with pytest.raises(ImageError, match="there is no volume 3; it holds volumes 0 to 2"):
        read_volume(path, which=3)


def test_what_follows_the_voxels_is_not_kept(tmp_path: Path) -> None:
    path = write_mgh(tmp_path / "a.mgh", voxels_of("uint8"))
    path.write_bytes(path.read_bytes() + b"mri_convert /home/anna/subj.nii")
    assert b"anna" not in read_volume(path).geometry.content


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content[:200], "not an MGH file"),
        (lambda content: b"\0\0\0\2" + content[4:], "not an MGH file"),
        (lambda content: content[:-40], "truncated: "),
        (lambda content: content[:4] + b"\xff" * 4 + content[8:], "a damaged header"),
        (lambda content: content[:20] + b"\0\0\0\x09" + content[24:], "a damaged header"),
        (lambda content: content[:4] + b"\0\0\x7f\xff" * 3 + content[16:], "more than the limit"),
        (lambda content: content[:30] + b"\x7f\xc0\0\0" + content[34:], "a damaged header"),
        (lambda content: b"", "an empty file"),
    ],
)
def test_damaged_mgh_is_refused(tmp_path: Path, change, message: str) -> None:
    path = write_mgh(tmp_path / "a.mgh", voxels_of("uint8"))
    content = path.read_bytes()[: 284 + 9 * 7 * 5]  # without the footer
    path.write_bytes(change(content))
    with pytest.raises(ImageError, match=message) as caught:
        read_volume(path)
    assert str(path) in str(caught.value)
    (tmp_path / "a.mgz").write_bytes(gzip.compress(change(content)))
    with pytest.raises(ImageError):
        read_volume(tmp_path / "a.mgz")
