"""Volume file <-> voxels with their geometry: NIfTI, Analyze, MGH, MINC. Never imports torch.

nibabel parses the headers. Voxels are the stored values, before any slope and intercept, so that they
come back as they were stored. Volumes from MGH or MINC get the geometry of NIfTI-1.
"""

import gzip
import math
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from oasisvq.errors import FileError, ImageError
from oasisvq.files import atomic_writer, atomic_writers, require_file
from oasisvq.scans.foreign import refuse_no_volume
from oasisvq.scans.geometry import Form, Geometry, form_of
from oasisvq.scans.limits import DEFAULT_MAX_PIXELS, refuse_large_volume
from oasisvq.scans.mgh import MGH_SUFFIXES, count_in_mgh, read_mgh, write_mgh
from oasisvq.scans.minc import MINC_SUFFIXES, read_minc
from oasisvq.scans.voxel_streams import (
    Volume,
    chosen_of,
    opened_volume,
    read_to_end,
    read_voxels,
    skip,
)

_PAIR_SUFFIXES = (".hdr", ".img", ".hdr.gz", ".img.gz")
VOLUME_SUFFIXES = (".nii.gz", ".nii", *_PAIR_SUFFIXES, *MGH_SUFFIXES, *MINC_SUFFIXES)
WRITABLE_SUFFIXES = (".nii.gz", ".nii", ".hdr", ".img", ".mgz", ".mgh")
MAX_OFFSET = 2**28  # of the first voxel: header extensions come before it
_SAMPLE_KINDS = "iuf"


def volume_suffix(path: Path) -> str | None:
    """The ending by which a name is that of a volume, such as `.nii.gz`; None for other names."""
    name = path.name.lower()
    return next((suffix for suffix in VOLUME_SUFFIXES if name.endswith(suffix)), None)


def partner(path: Path) -> Path:
    """The other file of a pair: scan.hdr <-> scan.img, in upper or lower case, whichever exists."""
    suffix = volume_suffix(path)
    assert suffix is not None and suffix.startswith((".hdr", ".img"))
    stem, wanted = path.name[: -len(suffix)], ".img" if suffix.startswith(".hdr") else ".hdr"
    endings = [wanted, wanted + ".gz", wanted.upper()]
    if suffix.endswith(".gz"):
        endings = [wanted + ".gz", wanted]
    choices = [path.with_name(stem + ending) for ending in endings]
    return next((choice for choice in choices if choice.is_file()), choices[0])


def files_of(path: Path) -> list[Path]:
    """The file of this name, with its partner if it is one of a pair."""
    return [path, partner(path)] if volume_suffix(path) in _PAIR_SUFFIXES else [path]


def written_files(path: Path) -> list[Path]:
    """The files that `write_volume` writes under a name: of a pair both, whatever else lies there."""
    suffix = volume_suffix(path)
    if suffix not in (".hdr", ".img"):
        return [path]
    other = ".img" if suffix == ".hdr" else ".hdr"
    return [path, path.with_suffix(other.upper() if path.suffix.isupper() else other)]


def read_volume(path: Path, max_pixels: int = DEFAULT_MAX_PIXELS, which: int | None = None) -> Volume:
    """Read a NIfTI, Analyze, MGH or MINC volume; of a pair, either file may be named.

    Axes of length 1 after the third are left out of the voxels and kept in the geometry. From a gzip
    file, hardly more is unpacked than the header promises.

    Args:
        path: the file.
        max_pixels: how large it may be, see `limits.py`.
        which: which volume to read from a file of several, from 0.

    Raises:
        FileError: the file, or the other one of a pair, is missing or unreadable.
        ImageError: it is damaged, truncated, too large, or not one volume of real numbers.
    """
    suffix = volume_suffix(path)
    if suffix is None:
        raise ImageError(f"{path}: expected a volume, named {', '.join(VOLUME_SUFFIXES)}")
    if suffix in MGH_SUFFIXES:
        return read_mgh(path, max_pixels, which)
    if suffix in MINC_SUFFIXES:
        return read_minc(path, max_pixels, which)
    header, image = _header_and_image(path)
    geometry = _read_geometry(header, header != image, max_pixels)
    try:
        place = chosen_of(math.prod(geometry.shape[3:]), which, geometry.shape)
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from error
    shape = (*geometry.shape, 1)[:3]
    with opened_volume(image) as stream:
        skip(stream, geometry.offset + place * math.prod(shape) * geometry.dtype.itemsize)
        voxels = read_voxels(stream, shape, geometry.dtype, image)
        if isinstance(stream, gzip.GzipFile) and which is None:
            read_to_end(stream, image)
    return Volume(voxels, geometry if which is None else geometry.of_one_volume())


def count_volumes(path: Path, max_pixels: int = DEFAULT_MAX_PIXELS) -> int:
    """How many volumes a file holds, by its header.

    Raises:
        FileError, ImageError: see `read_volume`.
    """
    suffix = volume_suffix(path)
    if suffix in MGH_SUFFIXES:
        return count_in_mgh(path, max_pixels)
    if suffix in MINC_SUFFIXES:
        return 1
    header, image = _header_and_image(path)
    return math.prod(_read_geometry(header, header != image, max_pixels).shape[3:])


def _header_and_image(path: Path) -> tuple[Path, Path]:
    """The two files of a pair, whichever of them is named; or a single file twice."""
    suffix = volume_suffix(path)
    if suffix not in _PAIR_SUFFIXES:
        return path, path
    header, image = (path, partner(path)) if suffix.startswith(".hdr") else (partner(path), path)
    for half, what in ((header, "header"), (image, "voxels")):
        if half != path and not half.is_file():
            require_file(path)
            raise FileError(f"{path}: half of a pair; its {what}, {half.name}, is not beside it")
    return header, image


def _read_geometry(path: Path, is_pair: bool, max_pixels: int) -> Geometry:
    with opened_volume(path) as stream:
        start = stream.read(max(form.header_bytes for form in Form))
    form = form_of(start, is_pair)
    if form is None or len(start) < form.header_bytes:
        raise ImageError(f"{path}: not a NIfTI or Analyze file, or a damaged one; get a whole copy")
    try:
        geometry = Geometry(form, start[: form.header_bytes])
        _refuse_unusable(geometry, max_pixels, path.name)
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from error
    return geometry


def _refuse_unusable(geometry: Geometry, max_pixels: int, name: str) -> None:
    """Raise unless the header describes one volume of real numbers within the limits."""
    shape, dtype = geometry.shape, geometry.dtype
    refuse_no_volume(shape, geometry.intent, name)
    if not 2 <= len(shape) <= 7 or min(shape) < 1:
        raise ImageError(f"shape {shape}, expected three sides of at least one voxel")
    if dtype.kind not in _SAMPLE_KINDS or dtype.itemsize > 8:
        kind = "colours (RGB)" if dtype.names else str(dtype)
        raise ImageError(f"voxels of {kind}, expected integers or floats of up to 64 bits")
    refuse_large_volume(shape[:3], "", max_pixels)
    smallest = 0 if geometry.form.is_pair else geometry.form.header_bytes
    if not smallest <= geometry.offset <= MAX_OFFSET:
        raise ImageError(f"a damaged header: voxels from byte {geometry.offset}")


def write_volume(volume: Volume, path: Path) -> None:
    """Write a volume, whole or not at all; the inverse of `read_volume`.

    `.nii` and `.nii.gz` are single files; for `.hdr` or `.img` the whole pair is written. `.mgz` and
    `.mgh` keep only the affine of the geometry.

    Raises:
        FileError: it cannot be written.
        ImageError: the name has another ending.
    """
    suffix = volume_suffix(path)
    if suffix not in WRITABLE_SUFFIXES:
        raise ImageError(f"{path}: volumes are written as {', '.join(WRITABLE_SUFFIXES)}; rename it")
    if suffix in MGH_SUFFIXES:
        write_mgh(volume, path)
        return
    if suffix in (".hdr", ".img"):
        geometry = volume.geometry.as_pair()
        header, image = written_files(path) if suffix == ".hdr" else reversed(written_files(path))
        with atomic_writers(image, header) as (voxels, text):
            _write_voxels(volume.voxels, geometry.dtype, voxels)
            text.write(geometry.content)
        return
    geometry = volume.geometry.as_single()
    gap = bytes(geometry.offset_written - len(geometry.content))  # no extensions
    with atomic_writer(path) as plain:
        if suffix == ".nii":
            plain.write(geometry.content + gap)
            _write_voxels(volume.voxels, geometry.dtype, plain)
            return
        with gzip.GzipFile(filename="", fileobj=plain, mode="wb", compresslevel=6, mtime=0) as packed:
            packed.write(geometry.content + gap)
            _write_voxels(volume.voxels, geometry.dtype, cast(BinaryIO, packed))


def _write_voxels(voxels: NDArray[np.generic], dtype: np.dtype[np.generic], stream: BinaryIO) -> None:
    for start in range(voxels.shape[2]):  # one plane at a time: no second copy of the volume
        stream.write(voxels[:, :, start].astype(dtype, copy=False).tobytes(order="F"))
