"""MINC file -> voxels with the geometry of NIfTI-1. Never imports torch.

nibabel reads MINC 1 (NetCDF), and MINC 2 (HDF5) if h5py is installed. Stored values have a scale for
each slice, as in no other format, so they become the numbers that they stand for. Floats keep their
type; integers become whole numbers if all are whole, such as labels, else float32.
"""

import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oasisvq.errors import ImageError
from oasisvq.scans.geometry import Geometry
from oasisvq.scans.limits import refuse_large_volume
from oasisvq.scans.voxel_streams import Volume, chosen_of, opened_volume

MINC_SUFFIXES = (".mnc", ".mnc.gz")
_HDF5 = b"\x89HDF"
_NETCDF = b"CDF"
_MAX_UNPACKED = 2**31
_NEARLY = 1e-4  # by which scaled whole numbers may differ from whole ones


def read_minc(path: Path, max_pixels: int, which: int | None = None) -> Volume:
    """Read a volume; see `read_volume` in `volumes.py`.

    Raises:
        FileError: the file is missing or unreadable.
        ImageError: it is damaged, too large, not one volume of real numbers, or MINC 2 without h5py.
    """
    with opened_volume(path) as stream:
        content = stream.read(_MAX_UNPACKED + 1)
    if len(content) > _MAX_UNPACKED:
        raise ImageError(
            f"{path}: more than {_MAX_UNPACKED:,} bytes, the limit for MINC; convert it first"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            voxels, affine = _read(content, max_pixels)
        chosen_of(1, which, voxels.shape)
        return Volume(voxels, Geometry.of_array(voxels, affine))
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from error
    # nibabel parses lazily, and raises exceptions of any kind for bytes that make no sense
    except Exception as error:
        kind = type(error).__name__
        raise ImageError(
            f"{path}: a damaged or truncated MINC file ({kind}); get a whole copy"
        ) from error


def _read(content: bytes, max_pixels: int) -> tuple[NDArray[np.generic], NDArray[np.float64]]:
    """(X, Y, Z) values and their affine."""
    file = _opened(content)
    shape = tuple(int(side) for side in file.get_data_shape())
    if len(shape) != 3 or min(shape) < 1:
        raise ImageError(f"shape {shape}, expected one volume; convert it first (with `mnc2nii`)")
    refuse_large_volume(shape, "", max_pixels)
    affine = np.asarray(file.get_affine(), np.float64)
    scaled = np.ascontiguousarray(file.get_scaled_data(), np.float64)
    dtype = np.dtype(file.get_data_dtype()).newbyteorder("=")
    if dtype.kind == "f":
        return scaled.astype(dtype), affine
    whole = np.rint(scaled)
    if (np.abs(scaled - whole) <= _NEARLY).all():
        return whole.astype(_smallest_type(whole)), affine
    return scaled.astype(np.float32), affine


def _opened(content: bytes) -> Any:  # noqa: ANN401 - nibabel is hardly typed
    if content[:3] == _NETCDF:
        from nibabel.externals.netcdf import netcdf_file
        from nibabel.minc1 import Minc1File

        return Minc1File(netcdf_file(io.BytesIO(content), mmap=False))
    if content[:4] == _HDF5:
        try:
            import h5py
        except ImportError as error:
            raise ImageError(
                "MINC 2 files need h5py; pip install h5py, or convert it first (with `mnc2nii`)"
            ) from error
        from nibabel.minc2 import Minc2File

        return Minc2File(h5py.File(io.BytesIO(content), "r"))
    raise ImageError(f"{len(content):,} bytes that are no MINC file; get a whole copy")


def _smallest_type(whole: NDArray[np.float64]) -> np.dtype[np.generic]:
    low, high = float(whole.min()), float(whole.max())
    for name in ("uint8", "int16", "uint16", "int32"):
        bounds = np.iinfo(name)
        if bounds.min <= low and high <= bounds.max:
            return np.dtype(name)
    return np.dtype(np.float64)
