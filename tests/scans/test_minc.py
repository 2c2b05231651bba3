"""MINC files -> volumes."""

import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.io import netcdf_file

from oasisvq.errors import ImageError
from oasisvq.scans.source import SourceKind, source_at
from oasisvq.scans.volumes import read_volume

STEPS = {"zspace": 2.0, "yspace": 1.0, "xspace": -1.5}
STARTS = {"zspace": -9.0, "yspace": 4.0, "xspace": 7.0}


def write_minc(path: Path, stored: NDArray[np.int16], slopes: NDArray[np.float64]) -> Path:
    """(Z, Y, X) stored values, with a scale for each slice, as minctools write MINC 1."""
    with netcdf_file(path, "w") as file:
        for name, side in zip(STEPS, stored.shape, strict=True):
            file.createDimension(name, side)
            variable = file.createVariable(name, "i", ())
            variable.spacing, variable.step, variable.start = b"regular__", STEPS[name], STARTS[name]
        image = file.createVariable("image", "h", tuple(STEPS))
        image.signtype, image.valid_range = b"signed__", np.array([0.0, 1000.0])
        image[:] = stored
        for name, values in (("image-max", 1000 * slopes), ("image-min", 0 * slopes)):
            file.createVariable(name, "d", ("zspace",))[:] = values
    return path


@pytest.fixture
def stored() -> NDArray[np.int16]:
    return np.random.default_rng(0).integers(0, 1000, (5, 6, 7)).astype(np.int16)


def test_minc_is_read_with_its_geometry_and_scale(tmp_path: Path, stored: NDArray[np.int16]) -> None:
    slopes = np.array([0.5, 0.7, 1, 1.3, 2])
    source = source_at(write_minc(tmp_path / "brain.mnc", stored, slopes))
    assert (source.kind, source.name) == (SourceKind.VOLUME, "brain")
    found = read_volume(source.path)
    assert found.voxels.dtype == np.float32
    np.testing.assert_allclose(found.voxels, stored * slopes[:, None, None], rtol=1e-6)
    expected = np.array([[0, 0, -1.5, 7], [0, 1, 0, 4], [2, 0, 0, -9], [0, 0, 0, 1.0]])
    np.testing.assert_allclose(found.geometry.affine, expected)


def test_labels_in_minc_stay_whole(tmp_path: Path) -> None:
    labels = np.random.default_rng(0).integers(0, 4, (5, 6, 7)).astype(np.int16) * 300
    found = read_volume(write_minc(tmp_path / "labels.mnc", labels, np.full(5, 1 / 300)))
    assert found.voxels.dtype == np.uint8
    np.testing.assert_array_equal(found.voxels, labels // 300)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "an empty file"),
        (b"no MINC file", "12 bytes that are no MINC file"),
        (b"CDF\1" + bytes(40), "a damaged or truncated MINC file"),
    ],
)
def test_damaged_minc_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.mnc").write_bytes(content)
    with pytest.raises(ImageError, match=message):
        read_volume(tmp_path / "a.mnc")


def test_truncated_minc_is_refused(tmp_path: Path, stored: NDArray[np.int16]) -> None:
    path = write_minc(tmp_path / "a.mnc", stored, np.ones(5))
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(ImageError, match="a damaged or truncated MINC file"):
        read_volume(path)


def test_minc_2_without_its_package_is_told_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.mnc").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ImageError, match="MINC 2 files need h5py; pip install h5py, or convert"):
        read_volume(tmp_path / "a.mnc")
