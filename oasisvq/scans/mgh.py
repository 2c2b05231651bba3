"""MGH file, FreeSurfer's format <-> voxels with the geometry of NIfTI-1. Never imports torch.

nibabel parses the header. Whatever follows the voxels (scan times, names of the programs and files that
made it) is never read.
"""

import gzip
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np

from oasisvq.errors import ImageError
from oasisvq.files import atomic_writer
from oasisvq.scans.foreign import refuse_no_volume
from oasisvq.scans.geometry import Geometry
from oasisvq.scans.limits import refuse_large_volume
from oasisvq.scans.voxel_streams import Volume, chosen_of, opened_volume, read_to_end, read_voxels, skip

MGH_SUFFIXES = (".mgz", ".mgh", ".mgh.gz")
_HEADER_BYTES, _OFFSET = 90, 284  # bytes of the header that are read, and where voxels begin
_TYPES = ("uint8", "int16", "uint16", "int32", "float32")


def read_mgh(path: Path, max_pixels: int, which: int | None = None) -> Volume:
    """Read one volume; see `read_volume` in `volumes.py`.

    Raises:
        FileError: the file is missing or unreadable.
        ImageError: it is damaged, truncated, too large, or not one volume of real numbers.
    """
    header = _read_header(path, max_pixels)
    *sides, count = (int(side) for side in header["dims"])
    dtype = header.get_data_dtype()
    with _naming(path):
        place = chosen_of(count, which, (*sides, count) if count > 1 else sides)
    with opened_volume(path) as stream:
        skip(stream, _OFFSET + place * math.prod(sides) * dtype.itemsize)
        voxels = read_voxels(stream, sides, dtype, path)
        if isinstance(stream, gzip.GzipFile) and which is None:
            read_to_end(stream, path)
    with _naming(path):
        return Volume(voxels, Geometry.of_array(voxels, np.asarray(header.get_affine(), np.float64)))


def count_in_mgh(path: Path, max_pixels: int) -> int:
    """How many volumes a file holds.

    Raises:
        FileError, ImageError: see `read_mgh`.
    """
    return int(_read_header(path, max_pixels)["dims"][3])


def _read_header(path: Path, max_pixels: int) -> Any:  # noqa: ANN401 - nibabel is hardly typed
    from nibabel.freesurfer.mghformat import MGHHeader

    with opened_volume(path) as stream:
        content = stream.read(_OFFSET)
    with _naming(path):
        if len(content) < _OFFSET or content[:4] != b"\0\0\0\1":
            raise ImageError("not an MGH file, or a damaged one; get a whole copy")
        known = content[:_HEADER_BYTES].ljust(MGHHeader.template_dtype.itemsize, b"\0")
        header = MGHHeader(known, check=False)
        try:
            dims, affine = [int(side) for side in header["dims"]], header.get_affine()
            header.get_data_dtype()
        except (KeyError, ValueError, OverflowError) as error:
            raise ImageError(f"a damaged header ({error}); get a whole copy") from error
        if min(dims) < 1 or not np.isfinite(affine).all():
            raise ImageError(f"a damaged header: shape {tuple(dims)}; get a whole copy")
        refuse_no_volume(dims[:3])
        refuse_large_volume(dims[:3], "", max_pixels)
    return header


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    try:
        yield
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from error


def write_mgh(volume: Volume, path: Path) -> None:
    """Write a volume as MGH, with gzip unless its name ends in `.mgh`; whole or not at all.

    Raises:
        FileError: it cannot be written.
        ImageError: MGH cannot hold such values, or the affine of the volume is unusable.
    """
    from nibabel.freesurfer.mghformat import MGHHeader

    voxels, geometry = volume
    if voxels.dtype.name not in _TYPES or geometry.scaling != (1.0, 0.0):
        what = f"{voxels.dtype} voxels" + (" with a scale" if geometry.scaling != (1.0, 0.0) else "")
        raise ImageError(f"{path}: MGH holds {', '.join(_TYPES)}, but not {what}; name a .nii.gz")
    header = MGHHeader()
    header.set_data_shape(voxels.shape)
    header.set_data_dtype(voxels.dtype)
    affine = geometry.affine
    zooms = np.sqrt(np.square(affine[:3, :3]).sum(0))
    header["delta"], header["Mdc"] = zooms, (affine[:3, :3] / zooms).T
    header["Pxyz_c"] = affine[:3] @ [*(side / 2 for side in voxels.shape), 1]
    header["goodRASFlag"] = 1
    start = header.binaryblock[:_HEADER_BYTES].ljust(_OFFSET, b"\0")

    def write(stream: BinaryIO) -> None:
        stream.write(start)
        for place in range(voxels.shape[2]):
            stream.write(voxels[:, :, place].astype(voxels.dtype.newbyteorder(">")).tobytes(order="F"))

    with atomic_writer(path) as plain:
        if path.name.lower().endswith(".mgh"):
            write(plain)
            return
        with gzip.GzipFile(filename="", fileobj=plain, mode="wb", compresslevel=6, mtime=0) as packed:
            write(cast(BinaryIO, packed))
