"""Volume file <-> voxels with their geometry: NIfTI and Analyze. Never imports torch.

nibabel understands the headers. Voxels are the stored values, before any slope and intercept, so
that they come back as they were stored.
"""

import gzip
import math
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from oasisvq.errors import FileError, ImageError
from oasisvq.files import atomic_writer, atomic_writers, require_file
from oasisvq.scans.geometry import Form, Geometry, form_of
from oasisvq.scans.limits import DEFAULT_MAX_PIXELS, refuse_large_volume

VOLUME_SUFFIXES = (".nii.gz", ".nii", ".hdr", ".img", ".hdr.gz", ".img.gz")
WRITABLE_SUFFIXES = (".nii.gz", ".nii", ".hdr", ".img")
MAX_VOLUME_BYTES = 2**33
MAX_OFFSET = 2**28  # of the first voxel: header extensions come before it
_MAX_TRAILING_BYTES = 2**20  # that a gzip file may hold after its voxels
_SAMPLE_KINDS = "iuf"
_PART_BYTES = 2**24


class Volume(NamedTuple):
    """What a volume file holds.

    Attributes:
        voxels: (X, Y, Z) stored values, in this machine's byte order.
        geometry: how they lie in space.
    """

    voxels: NDArray[np.generic]
    geometry: Geometry


def volume_suffix(path: Path) -> str | None:
    """The ending that makes a name one of a volume, such as `.nii.gz`; None for other names."""
    name = path.name.lower()
    return next((suffix for suffix in VOLUME_SUFFIXES if name.endswith(suffix)), None)


def partner(path: Path) -> Path:
    """The other file of a pair: scan.hdr <-> scan.img, in the case of letters that is there."""
    suffix = volume_suffix(path)
    assert suffix is not None and suffix.startswith((".hdr", ".img"))
    stem, wanted = path.name[: -len(suffix)], ".img" if suffix.startswith(".hdr") else ".hdr"
    endings = [wanted, wanted + ".gz", wanted.upper()]
    if suffix.endswith(".gz"):
        endings = [wanted + ".gz", wanted]
    choices = [path.with_name(stem + ending) for ending in endings]
    return next((choice for choice in choices if choice.is_file()), choices[0])


def files_of(path: Path) -> list[Path]:
    """The file of this name, with its partner where it is one of a pair."""
    suffix = volume_suffix(path)
    return [path, partner(path)] if suffix and not suffix.startswith(".nii") else [path]


def read_volume(path: Path, max_pixels: int = DEFAULT_MAX_PIXELS) -> Volume:
    """Read a NIfTI or Analyze volume; of a pair, either file may be named.

    Axes of one element after the third are left out of the voxels and kept in the geometry. Of gzip
    no more is unpacked than the header promises.

    Args:
        path: the file.
        max_pixels: how large it may be, see `limits.py`.

    Raises:
        FileError: a file, or one of a pair, is missing or unreadable.
        ImageError: damaged, truncated, too large, or not one volume of real numbers.
    """
    suffix = volume_suffix(path)
    if suffix is None:
        raise ImageError(f"{path}: expected a volume, named {', '.join(VOLUME_SUFFIXES)}")
    if suffix.startswith(".nii"):
        header = image = path
    else:
        header, image = (path, partner(path)) if suffix.startswith(".hdr") else (partner(path), path)
        for half, what in ((header, "header"), (image, "voxels")):
            if half != path and not half.is_file():
                require_file(path)
                raise FileError(f"{path}: half of a pair; its {what}, {half.name}, is not beside it")
    geometry = _read_geometry(header, header != image, max_pixels)
    with _opened(image) as stream:
        _skip(stream, geometry.offset)
        voxels = _read_voxels(stream, geometry, image)
        if isinstance(stream, gzip.GzipFile):
            _read_to_end(stream, image)
    return Volume(voxels, geometry)


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """The content of a file, unpacked if it is gzip; every way to fail becomes an error of ours."""
    require_file(path)
    size = path.stat().st_size
    if size == 0:
        raise ImageError(f"{path}: an empty file, expected a volume")
    if size > MAX_VOLUME_BYTES:
        raise ImageError(f"{path}: has more than {MAX_VOLUME_BYTES:,} bytes, the limit for a volume")
    try:
        with path.open("rb") as plain:
            is_gzip = plain.read(2) == b"\x1f\x8b"
            plain.seek(0)
            if is_gzip:
                with gzip.GzipFile(fileobj=plain) as stream:
                    yield cast(BinaryIO, stream)
            else:
                yield plain
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ImageError(f"{path}: damaged or truncated gzip ({error}); get a whole copy") from error
    except OSError as error:
        raise FileError(f"{path}: cannot be read: {error.strerror or error}") from error


def _read_geometry(path: Path, is_pair: bool, max_pixels: int) -> Geometry:
    with _opened(path) as stream:
        start = stream.read(max(form.header_bytes for form in Form))
    form = form_of(start, is_pair)
    if form is None or len(start) < form.header_bytes:
        raise ImageError(
            f"{path}: {len(start)} bytes that are no header of NIfTI or Analyze; get a whole copy"
        )
    try:
        geometry = Geometry(form, start[: form.header_bytes])
        _refuse_unusable(geometry, max_pixels)
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from error
    return geometry


def _refuse_unusable(geometry: Geometry, max_pixels: int) -> None:
    """Raise unless the header describes one volume of real numbers within the limits."""
    shape, dtype = geometry.shape, geometry.dtype
    if not 2 <= len(shape) <= 7 or min(shape) < 1:
        raise ImageError(f"shape {shape}, expected three sides of at least one voxel")
    if any(side != 1 for side in shape[3:]):
        raise ImageError(
            f"shape {shape}, expected one volume; split the series first (such as with `fslsplit`)"
        )
    if dtype.kind not in _SAMPLE_KINDS or dtype.itemsize > 8:
        kind = "colours (RGB)" if dtype.names else str(dtype)
        raise ImageError(f"voxels of {kind}, expected integers or floats of up to 64 bits")
    refuse_large_volume(shape[:3], "", max_pixels)
    smallest = 0 if geometry.form.is_pair else geometry.form.header_bytes
    if not smallest <= geometry.offset <= MAX_OFFSET:
        raise ImageError(f"a damaged header: voxels from byte {geometry.offset}")


def _skip(stream: BinaryIO, count: int) -> None:
    while count > 0:
        skipped = len(stream.read(min(count, _PART_BYTES)))
        if not skipped:
            return  # what follows is missing, and said to be
        count -= skipped


def _read_to_end(stream: gzip.GzipFile, path: Path) -> None:
    """Raise unless a gzip file ends after its voxels, where its checksum is compared."""
    trailing = 0
    while part := stream.read(_MAX_TRAILING_BYTES):
        trailing += len(part)
        if trailing > _MAX_TRAILING_BYTES:
            raise ImageError(f"{path}: damaged: goes on after its voxels; get a whole copy")


def _read_voxels(stream: BinaryIO, geometry: Geometry, path: Path) -> NDArray[np.generic]:
    shape = (*geometry.shape, 1)[:3]
    wanted = math.prod(shape) * geometry.dtype.itemsize
    content = bytearray()  # grows with what is there: a header may promise more
    while len(content) < wanted:
        part = stream.read(min(_PART_BYTES, wanted - len(content)))
        if not part:
            raise ImageError(
                f"{path}: truncated: {len(content):,} bytes of voxels, expected {wanted:,}; "
                "get a whole copy"
            )
        content += part
    voxels = np.frombuffer(content, geometry.dtype).reshape(shape, order="F")
    return voxels.astype(geometry.dtype.newbyteorder("="), order="F", copy=False)


def write_volume(volume: Volume, path: Path) -> None:
    """Write a volume, whole or not at all; the inverse of `read_volume`.

    `.nii` and `.nii.gz` are single files; for `.hdr` or `.img` the other of the pair is written too.

    Raises:
        FileError: it cannot be written.
        ImageError: the name has another ending.
    """
    suffix = volume_suffix(path)
    if suffix not in WRITABLE_SUFFIXES:
        raise ImageError(f"{path}: volumes are written as {', '.join(WRITABLE_SUFFIXES)}; rename it")
    if suffix in (".hdr", ".img"):
        geometry = volume.geometry.as_pair()
        header, image = (path, partner(path)) if suffix == ".hdr" else (partner(path), path)
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
