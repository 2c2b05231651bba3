"""Image or volume file <-> scan: planes of values, and how they lie in a volume. Never imports torch."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from oasisvq.errors import ImageError
from oasisvq.scans.dicom import read_dicom
from oasisvq.scans.geometry import PLANES, Geometry, Slicing, slicing_by
from oasisvq.scans.images import (
    WRITABLE_SUFFIXES,
    read_image,
    require_writable_suffix,
    write_image,
)
from oasisvq.scans.limits import (
    DEFAULT_MAX_PIXELS,
    FORMAT_MAX_PIXELS,
    refuse_large_image,
    refuse_large_volume,
)
from oasisvq.scans.source import Source, SourceKind
from oasisvq.scans.volumes import WRITABLE_SUFFIXES as WRITABLE_VOLUMES
from oasisvq.scans.volumes import Volume, read_volume, volume_suffix, write_volume

SAMPLE_TYPES = ("u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f4", "f8")  # of voxels
_NARROWEST = 1e-300  # range of values: float64 still has all its digits in the 65,535th part of it


class Placement(NamedTuple):
    """How the planes of a scan lie in a volume.

    Attributes:
        geometry: of the volume.
        slicing: how the planes were cut out of it.
    """

    geometry: Geometry
    slicing: Slicing


@dataclass(frozen=True)
class Scan:
    """What an image or volume file holds.

    Attributes:
        planes: (slices, H, W) values as they are stored: grey levels of an image, of uint8 or uint16;
            voxels of a volume before its slope and intercept.
        placement: of a volume; None for an image, which has one plane.
    """

    planes: NDArray[np.generic]
    placement: Placement | None = None

    @property
    def plane(self) -> NDArray[np.generic]:
        """(H, W), the only plane."""
        assert len(self.planes) == 1
        plane: NDArray[np.generic] = self.planes[0]
        return plane

    @property
    def intensity(self) -> tuple[float, float]:
        """The darkest and the brightest value, NaN left out."""
        low, high = np.fmin.reduce(self.planes, axis=None), np.fmax.reduce(self.planes, axis=None)
        return (float(low), float(high)) if self.placement else (int(low), int(high))

    @property
    def voxels(self) -> NDArray[np.generic]:
        """The voxels of a volume in the order of its file; the plane of an image."""
        return self.placement.slicing.voxels(self.planes) if self.placement else self.plane


def as_scan(
    array: NDArray[np.generic],
    spacing: tuple[float, float, float] | None = None,
    affine: NDArray[np.float64] | None = None,
    axis: str | None = None,
) -> Scan:
    """An array as a scan: an image, or a volume.

    Args:
        array: (H, W) of uint8 or uint16; or (X, Y, Z) of integers or floats of up to 64 bits.
        spacing: of a volume: millimetres to a voxel along each axis; 1 where None. Its axes then grow
            to right, front and top.
        affine: of a volume, in place of `spacing`: (4, 4), voxel indices to millimetres to the right,
            front and top.
        axis: see `scan_of_volume`.

    Raises:
        ImageError: not such an array, or beyond the limits.
    """
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    if axis not in (None, *PLANES, "0", "1", "2"):
        raise ImageError(f"axis {axis!r}, expected axial, coronal, sagittal, '0', '1' or '2'")
    if array.ndim == 3 and array.size:
        if affine is None:
            affine = np.diag([*(spacing or (1.0, 1.0, 1.0)), 1.0])
        volume = Volume(array, Geometry.of_array(array, np.asarray(affine, np.float64)))
        return scan_of_volume(volume, axis)
    if array.ndim != 2 or array.dtype not in (np.uint8, np.uint16) or not array.size:
        raise ImageError(
            f"an array of shape {array.shape} and type {array.dtype}; expected (H, W) of uint8 or "
            "uint16, or a volume (X, Y, Z), not empty"
        )
    if spacing is not None or affine is not None or axis is not None:
        raise ImageError("an image (H, W) has no spacing, affine or axis; expected a volume (X, Y, Z)")
    refuse_large_image(array.shape[::-1], "array", FORMAT_MAX_PIXELS)
    return Scan(array[None])


def scan_of_volume(volume: Volume, axis: str | None = None, max_pixels: int = FORMAT_MAX_PIXELS) -> Scan:
    """Cut a volume into planes.

    Args:
        volume: of any real type that `.codes` files hold.
        axis: that slices follow: `axial`, `coronal`, `sagittal`, or the number of the array's axis;
            axial where None.
        max_pixels: of a slice, see `limits.py`; without it only the limits of `.codes` files hold.

    Raises:
        ImageError: its affine does not say which axis is which and `axis` is no number, a voxel is no
            number, all voxels are equal, or it or a slice is beyond the limits.
    """
    voxels, geometry = volume
    if voxels.dtype not in [np.dtype(each) for each in SAMPLE_TYPES]:
        raise ImageError(f"voxels of {voxels.dtype}, expected integers or floats of up to 64 bits")
    slicing = slicing_of(geometry, axis)
    planes = slicing.planes(voxels)
    refuse_large_image(planes.shape[:0:-1], "a slice", max_pixels)
    refuse_large_volume(voxels.shape, "", max_pixels)
    if voxels.dtype.kind == "f" and np.isinf(voxels).any():
        wrong = int(np.isinf(voxels).sum())
        raise ImageError(f"{wrong:,} voxels are infinite; replace them first")
    low, high = np.fmin.reduce(voxels, axis=None), np.fmax.reduce(voxels, axis=None)
    if low == high or np.isnan(low):
        raise ImageError(f"every voxel is {low}; expected a scan")
    if not _NARROWEST <= float(high) - float(low) < math.inf:
        raise ImageError(f"values from {low} to {high}, too close or too far apart; scale them first")
    if voxels.dtype.itemsize == 8 and voxels.dtype.kind in "iu" and max(-int(low), int(high)) > 2**53:
        raise ImageError(f"values from {low} to {high}, expected at most 2^53; convert it first")
    return Scan(planes, Placement(geometry, slicing))


def slicing_of(geometry: Geometry, axis: str | None) -> Slicing:
    """How a volume is cut where `axis` is asked for; see `scan_of_volume`.

    Raises:
        ImageError: the affine does not say which axis is which, and `axis` is no number.
    """
    try:
        codes = geometry.axis_codes
    except ImageError:
        if axis is None or not axis.isdigit():
            raise
        codes = "RAS"
    return slicing_by(codes, axis or "axial")


def read_scan(source: Source, axis: str | None = None, max_pixels: int = DEFAULT_MAX_PIXELS) -> Scan:
    """Read an image, a volume, a DICOM file or a DICOM series.

    Args:
        source: what to read.
        axis: of a volume, see `scan_of_volume`.
        max_pixels: how large it may be, see `limits.py`.

    Raises:
        FileError: missing or unreadable.
        ImageError: damaged, or not what can be encoded; names the file.
    """
    if source.kind is SourceKind.IMAGE:
        if axis is not None:
            raise ImageError(
                f"{source.path}: an image has one slice, so --axis has no meaning; leave it out"
            )
        return Scan(read_image(source.path, max_pixels)[None])
    if source.kind is SourceKind.VOLUME:
        volume = read_volume(source.path, max_pixels)
    else:
        volume = read_dicom(source.path, source.files, max_pixels)
    try:
        return scan_of_volume(volume, axis, max_pixels)
    except ImageError as error:
        raise ImageError(f"{source.path}: {error}") from error


def require_writable(path: Path) -> None:
    """Raise unless decoded scans can be written under this name.

    Raises:
        ImageError: the name ends otherwise.
    """
    if volume_suffix(path) not in WRITABLE_VOLUMES and path.suffix.lower() not in WRITABLE_SUFFIXES:
        raise ImageError(
            f"{path}: decoded images are written as {', '.join(WRITABLE_SUFFIXES)}, volumes as "
            f"{', '.join(WRITABLE_VOLUMES)}; rename the output"
        )


def write_scan(scan: Scan, path: Path) -> None:
    """Write a scan: an image as PNG or TIFF, a volume as NIfTI or Analyze; whole or not at all.

    A volume of one slice may become an image, if an image can hold its values; its first axis then
    runs along the rows, as in the DICOM image that it may come from.

    Raises:
        FileError: it cannot be written.
        ImageError: the name's ending is that of something else.
    """
    is_volume = volume_suffix(path) is not None
    if scan.placement is None and not is_volume:
        write_image(scan.plane, path)
    elif scan.placement is None:
        raise ImageError(f"{path}: the codes hold an image, not a volume; name a .png")
    elif is_volume:
        write_volume(Volume(scan.voxels, scan.placement.geometry), path)
    else:
        write_image(_as_image(scan, path), path)


def _as_image(scan: Scan, path: Path) -> NDArray[np.generic]:
    require_writable_suffix(path)
    low, high = int(scan.planes.min()), int(scan.planes.max())
    if len(scan.planes) != 1 or scan.planes.dtype.kind not in "iu" or low < 0 or high > 65_535:
        raise ImageError(
            f"{path}: an image cannot hold {len(scan.planes)} slices of {scan.planes.dtype} from {low} "
            f"to {high}; name a .nii.gz"
        )
    assert scan.placement is not None
    # a DICOM image as a viewer shows it: its columns are the first axis of a volume, its rows the second
    plane = scan.voxels.squeeze(axis=scan.placement.slicing.axes[0]).T
    return plane.astype(np.uint8 if plane.dtype == np.uint8 else np.uint16)
