"""Image or volume file <-> scan: planes of values, and how they lie in a volume. Never imports torch."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from oasisvq.errors import ImageError
from oasisvq.files import move_into_place, temporary_folder
from oasisvq.scans.dicom import count_in_dicom, read_dicom
from oasisvq.scans.foreign import refuse_foreign
from oasisvq.scans.geometry import PLANES, Form, Geometry, Slicing, slicing_by
from oasisvq.scans.images import (
    STACK_SUFFIXES,
    WRITABLE_SUFFIXES,
    read_picture,
    require_writable_suffix,
    write_image,
    write_pages,
)
from oasisvq.scans.limits import (
    DEFAULT_MAX_PIXELS,
    FORMAT_MAX_PIXELS,
    refuse_large_image,
    refuse_large_volume,
)
from oasisvq.scans.source import Source, SourceKind
from oasisvq.scans.stacks import StackNames
from oasisvq.scans.volumes import WRITABLE_SUFFIXES as WRITABLE_VOLUMES
from oasisvq.scans.volumes import count_volumes, read_volume, volume_suffix, write_volume
from oasisvq.scans.voxel_streams import Volume
from oasisvq.scans.words import axes_of_oasis, names_labels

SAMPLE_TYPES = ("u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f4", "f8")  # of voxels
_STACKED = slicing_by("LAS")  # for a stack, whose geometry says nothing about its axes
_CHANNELS, _SMALLEST_COLOURED = (3, 4), 8  # of a colour image; its least height and width
_NARROWEST = 1e-300  # range of values whose 65,535th part still has all digits of float64


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
        planes: (slices, H, W) values as they are stored: grey levels of an image, uint8 or uint16;
            voxels of a volume, before slope and intercept.
        placement: of a volume; None for an image, which has one plane.
        says_labels: whether the name or the header of its file says that it holds labels.
        stack: names of the images, if the planes are a stack of them; else None.
    """

    planes: NDArray[np.generic]
    placement: Placement | None = None
    says_labels: bool = False
    stack: StackNames | None = None

    @property
    def plane(self) -> NDArray[np.generic]:
        """(H, W), the only plane."""
        assert len(self.planes) == 1
        plane: NDArray[np.generic] = self.planes[0]
        return plane

    @property
    def intensity(self) -> tuple[float, float]:
        """The darkest and the brightest value, NaN left out."""
        low, high = extremes_of(self.planes)
        return (float(low), float(high)) if self.placement else (int(low), int(high))

    @property
    def voxels(self) -> NDArray[np.generic]:
        """The voxels of a volume, in the order of its file; the plane of an image."""
        return self.placement.slicing.voxels(self.planes) if self.placement else self.plane

    @property
    def array(self) -> NDArray[np.generic]:
        """The scan as an array: (N, H, W) images of a stack, else `voxels`."""
        return self.planes if self.stack else self.voxels


def as_scan(
    array: NDArray[np.generic],
    spacing: tuple[float, float, float] | None = None,
    affine: NDArray[np.float64] | None = None,
    axis: str | None = None,
) -> Scan:
    """An array as a scan: an image, or a volume.

    Args:
        array: (H, W) of uint8 or uint16; or (X, Y, Z) of integers or floats of up to 64 bits.
        spacing: of a volume, voxel size in millimetres along each axis; 1 if None. Its axes then grow to
            the right, front and top.
        affine: of a volume, in place of `spacing`: (4, 4), voxel indices to millimetres to the right,
            front and top.
        axis: see `scan_of_volume`.

    Raises:
        ImageError: this is not such an array, or beyond the limits; or it could be a colour image or a
            batch of images, and nothing says that it is a volume.
    """
    if not isinstance(array, np.ndarray):
        raise ImageError(
            f"a {type(array).__module__}.{type(array).__name__}, expected a NumPy array; pass "
            "numpy.asarray of it, or .cpu().numpy() of a tensor"
        )
    array = np.asarray(array)  # of a matrix, too
    if array.ndim == 3 and array.size and spacing is None and affine is None and axis is None:
        _refuse_ambiguous(array.shape)
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    if axis not in (None, *PLANES, "0", "1", "2"):
        raise ImageError(f"axis {axis!r}, expected axial, coronal, sagittal, '0', '1' or '2'")
    if array.ndim == 3 and array.size:
        volume = Volume(array, Geometry.of_array(array, _affine_of(spacing, affine)))
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


def _affine_of(
    spacing: tuple[float, float, float] | None, affine: NDArray[np.float64] | None
) -> NDArray[np.float64]:
    """The given affine (4, 4), or that of a spacing."""
    if affine is not None:
        return _numbers(affine, "affine", (4, 4))
    if spacing is None:
        return np.eye(4)
    steps = _numbers(spacing, "spacing", (3,))
    if steps.min() <= 0:
        raise ImageError(f"spacing {steps.tolist()}, expected three numbers above 0")
    return np.diag([*steps, 1.0])


def _numbers(given: object, what: str, shape: tuple[int, ...]) -> NDArray[np.float64]:
    try:
        numbers = np.asarray(given, np.float64)
    except (ValueError, TypeError) as error:
        raise ImageError(f"{what}: expected numbers of shape {shape} ({error})") from error
    if numbers.shape != shape or not np.isfinite(numbers).all():
        raise ImageError(f"{what} of shape {numbers.shape}, expected finite numbers of shape {shape}")
    return numbers


def _refuse_ambiguous(shape: tuple[int, ...]) -> None:
    """Raise for a shape that colour images or batches have, and volumes hardly ever."""
    first, second, third = shape
    if third in _CHANNELS and min(first, second) >= _SMALLEST_COLOURED:
        what, wanted = "an image in colours", "one grey channel (H, W)"
    elif 2 * first <= second == third:
        what, wanted = "a batch of images", "one image (H, W)"
    else:
        return
    raise ImageError(
        f"an array of shape {shape} looks like {what}; expected {wanted}, or for a volume (X, Y, Z) its "
        "spacing or affine too"
    )


def scan_of_stack(planes: NDArray[np.generic], stack: StackNames) -> Scan:
    """Images (N, H, W) of uint8 or uint16 that are neighbouring slices, as a scan.

    They are placed as axial slices of 1 mm, whose orientation in space is unknown.

    Raises:
        ImageError: they are not such images, or beyond the limits of a volume.
    """
    if planes.dtype not in (np.uint8, np.uint16) or planes.ndim != 3 or not planes.size:
        raise ImageError(
            f"a stack of shape {planes.shape} and type {planes.dtype}; expected images (N, H, W) of "
            "uint8 or uint16"
        )
    if len(planes) != len(stack.numbers):
        raise ImageError(f"a stack of {len(planes)} images, but {len(stack.numbers)} names")
    refuse_large_image(planes.shape[:0:-1], "an image of the stack", FORMAT_MAX_PIXELS)
    refuse_large_volume(planes.shape, "a stack", FORMAT_MAX_PIXELS)
    voxels = _STACKED.voxels(planes)
    return Scan(planes, Placement(Geometry.of_array(voxels, np.eye(4), code=0), _STACKED), stack=stack)


def scan_of_volume(
    volume: Volume,
    axis: str | None = None,
    max_pixels: int = FORMAT_MAX_PIXELS,
    path: Path | None = None,
) -> Scan:
    """Cut a volume into planes.

    Args:
        volume: of any real type that `.codes` files hold.
        axis: that slices follow: `axial`, `coronal`, `sagittal`, or the number of an axis of the array;
            axial if None.
        max_pixels: of a slice, see `limits.py`; by default only the limits of `.codes` files apply.
        path: of its file, see `slicing_of`.

    Raises:
        ImageError: the affine does not tell the axes apart and `axis` is not a number; a voxel is
            infinite; all voxels are equal; values are too close, too far apart or too large; or the
            volume or a slice is beyond the limits.
    """
    voxels, geometry = volume
    if voxels.dtype not in [np.dtype(each) for each in SAMPLE_TYPES]:
        raise ImageError(f"voxels of {voxels.dtype}, expected integers or floats of up to 64 bits")
    slicing = slicing_of(geometry, axis, path)
    planes = slicing.planes(voxels)
    refuse_large_image(planes.shape[:0:-1], "a slice", max_pixels)
    refuse_large_volume(voxels.shape, "", max_pixels)
    if voxels.dtype.kind == "f" and np.isinf(voxels).any():
        wrong = int(np.isinf(voxels).sum())
        raise ImageError(f"{wrong:,} voxels are infinite; replace them first")
    low, high = extremes_of(voxels)
    if low == high or np.isnan(low):
        raise ImageError(f"every voxel is {low}; expected a scan")
    if not _NARROWEST <= float(high) - float(low) < math.inf:
        raise ImageError(f"values from {low} to {high}, too close or too far apart; scale them first")
    if voxels.dtype.itemsize == 8 and voxels.dtype.kind in "iu" and max(-int(low), int(high)) > 2**53:
        raise ImageError(f"values from {low} to {high}, expected at most 2^53; convert it first")
    return Scan(planes, Placement(geometry, slicing))


def extremes_of(values: NDArray[np.generic]) -> tuple[np.generic, np.generic]:
    """The smallest and the largest value, NaN left out; NaN twice if all are NaN.

    Not by `np.fmin`, which forgets the values before a signalling NaN.
    """
    if values.dtype.kind == "f":
        numbers = values[~np.isnan(values)]
        values = numbers if numbers.size else values
    return values.min(), values.max()


def without_nan(planes: NDArray[np.generic], low: float) -> NDArray[np.generic]:
    """Planes with the darkest value in place of NaN."""
    if planes.dtype.kind != "f" or not np.isnan(planes).any():
        return planes
    return np.where(np.isnan(planes), planes.dtype.type(low), planes)


def slicing_of(geometry: Geometry, axis: str | None, path: Path | None = None) -> Slicing:
    """How a volume is cut along `axis`; see `scan_of_volume`.

    Args:
        geometry: of the volume.
        axis: that slices follow.
        path: of its file: the orientation of OASIS's Analyze volumes is known by their names alone.

    Raises:
        ImageError: the affine does not tell the axes apart, and `axis` is not a number.
    """
    try:
        codes = geometry.axis_codes
    except ImageError:
        if axis is None or not axis.isdigit():
            raise
        codes = "RAS"
    if path is not None and geometry.form is Form.ANALYZE:
        codes = axes_of_oasis(path.absolute().as_posix()) or codes
    return slicing_by(codes, axis or "axial")


def read_scan(source: Source, axis: str | None = None, max_pixels: int = DEFAULT_MAX_PIXELS) -> Scan:
    """Read an image, a volume, a DICOM file or a DICOM series.

    Args:
        source: what to read.
        axis: of a volume, see `scan_of_volume`.
        max_pixels: how large it may be, see `limits.py`.

    Raises:
        FileError: a file is missing or unreadable.
        ImageError: a file is damaged, or cannot be encoded; names it.
    """
    says_labels = names_labels(source.path.name)
    if source.volume and source.kind not in (SourceKind.VOLUME, SourceKind.DICOM):
        raise ImageError(f"{source.path}: there is no volume {source.volume}; leave out --volume")
    if source.kind is SourceKind.IMAGE:
        refuse_foreign(source.path)
        picture = read_picture(source.path, max_pixels)
        if len(picture.planes) == 1:
            _refuse_for_image(source, axis)
            return Scan(picture.planes, says_labels=says_labels or picture.are_indices)
        volume = _volume_of_pages(picture.planes)
    elif source.stack is not None:
        _refuse_for_image(source, axis)
        return _read_stack(source, source.stack, max_pixels)
    elif source.kind is SourceKind.VOLUME:
        volume = read_volume(source.path, max_pixels, source.volume)
    else:
        volume = read_dicom(source.path, source.files, max_pixels, source.volume)
    try:
        scan = scan_of_volume(volume, axis, max_pixels, source.path)
    except ImageError as error:
        raise ImageError(f"{source.path}: {error}") from error
    return replace(scan, says_labels=says_labels or volume.geometry.says_labels)


def _read_stack(source: Source, stack: StackNames, max_pixels: int) -> Scan:
    planes: list[NDArray[np.generic]] = []
    are_indices = False
    for path in source.files:
        refuse_foreign(path)
        picture = read_picture(path, max_pixels)
        plane = picture.planes[0]
        if len(picture.planes) > 1:
            raise ImageError(f"{path}: holds several images, expected one slice of a stack")
        if planes and (plane.shape, plane.dtype) != (planes[0].shape, planes[0].dtype):
            raise ImageError(
                f"{path}: {plane.shape} pixels of {plane.dtype}, but {source.files[0].name} has "
                f"{planes[0].shape} of {planes[0].dtype}; expected slices of one size and type"
            )
        refuse_large_volume((*plane.shape, len(planes) + 1), str(path), max_pixels)
        planes.append(plane)
        are_indices |= picture.are_indices
    scan = scan_of_stack(np.stack(planes), stack)
    return replace(scan, says_labels=are_indices or names_labels(source.path.name))


def _refuse_for_image(source: Source, axis: str | None) -> None:
    if axis is not None:
        raise ImageError(
            f"{source.path}: an image has one slice, so --axis has no meaning; leave it out"
        )


def _volume_of_pages(pages: NDArray[np.generic]) -> Volume:
    """Pages (N, H, W) as a volume (W, H, N) of 1 mm voxels, whose orientation in space is unknown."""
    voxels = pages.transpose(2, 1, 0)
    return Volume(voxels, Geometry.of_array(voxels, np.eye(4), code=0))


def volumes_in(source: Source, max_pixels: int = DEFAULT_MAX_PIXELS) -> int:
    """How many volumes a source holds, by its headers; 1 for an image.

    Raises:
        FileError, ImageError: see `read_scan`.
    """
    if source.kind is SourceKind.VOLUME:
        return count_volumes(source.path, max_pixels)
    if source.kind is SourceKind.DICOM:
        return count_in_dicom(source.files, max_pixels)
    return 1


def require_writable(path: Path) -> None:
    """Raise unless decoded scans can be written under this name.

    Raises:
        ImageError: the name has another ending.
    """
    if volume_suffix(path) not in WRITABLE_VOLUMES and path.suffix.lower() not in WRITABLE_SUFFIXES:
        raise ImageError(
            f"{path}: decoded images are written as {', '.join(WRITABLE_SUFFIXES)}, volumes as "
            f"{', '.join(WRITABLE_VOLUMES)}; rename the output"
        )


def write_scan(scan: Scan, path: Path) -> None:
    """Write a scan: an image as PNG or TIFF, a volume as NIfTI, Analyze or MGH; whole or not at all.

    If an image can hold its values, a volume of one slice can be written as an image, and any volume as
    the pages of a TIFF file. Its first axis then runs along the rows and its third from page to page, as
    in the DICOM image or the pages that it may come from.

    Raises:
        FileError: it cannot be written.
        ImageError: the name has the ending of something else, or an image cannot hold the scan.
    """
    is_volume = volume_suffix(path) is not None
    if scan.placement is None and not is_volume:
        write_image(scan.plane, path)
    elif scan.placement is None:
        raise ImageError(f"{path}: the codes hold an image, not a volume; name a .png")
    elif is_volume:
        write_volume(Volume(scan.voxels, scan.placement.geometry), path)
    elif path.suffix.lower() in STACK_SUFFIXES and len(scan.planes) > 1:
        _refuse_values(scan, path)
        write_pages(scan.planes if scan.stack else _as_grey(scan.voxels.transpose(2, 1, 0)), path)
    else:
        write_image(_as_image(scan, path), path)


def write_stack(planes: Sequence[NDArray[np.generic]], paths: Sequence[Path]) -> None:
    """Write images (H, W) of a stack as PNG or TIFF into one folder; they appear once all are written.

    The folder may be missing, but not the one that it lies in.

    Raises:
        FileError: they cannot be written.
    """
    folder = paths[0].parent
    with temporary_folder(folder if folder.is_dir() else folder.parent) as unfinished:
        for plane, path in zip(planes, paths, strict=True):
            write_image(plane, unfinished / path.name)
        move_into_place(unfinished, folder)


def _as_image(scan: Scan, path: Path) -> NDArray[np.generic]:
    require_writable_suffix(path)
    _refuse_values(scan, path)
    if len(scan.planes) != 1:
        raise ImageError(f"{path}: an image cannot hold {len(scan.planes)} slices; name a .nii.gz")
    if scan.stack:
        return scan.plane
    assert scan.placement is not None
    # a DICOM image as a viewer shows it: its columns are the first axis of a volume, its rows the second
    plane = scan.voxels.squeeze(axis=scan.placement.slicing.axes[0]).T
    return _as_grey(plane)


def _refuse_values(scan: Scan, path: Path) -> None:
    """Raise unless an image can hold the values."""
    low, high = scan.planes.min(), scan.planes.max()
    if scan.planes.dtype.kind not in "iu" or low < 0 or high > 65_535:
        raise ImageError(
            f"{path}: an image cannot hold {scan.planes.dtype} from {low} to {high}; name a .nii.gz"
        )


def _as_grey(values: NDArray[np.generic]) -> NDArray[np.generic]:
    return values.astype(np.uint8 if values.dtype == np.uint8 else np.uint16)
