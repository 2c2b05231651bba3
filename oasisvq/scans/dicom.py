"""DICOM file or folder -> volume. Never imports torch; pydicom, the extra `dicom`, only to read files.

A folder is one series: one file per slice, or enhanced files of several frames. Its voxels are the
stored pixel values, before RescaleSlope and RescaleIntercept, which become the scale of a NIfTI-1
geometry. They are (X, Y, Z): columns and rows of the DICOM image, and slices along the normal
(rows × columns).
DICOM counts millimetres to the left, back and top, NIfTI to the right, front and top.

`dicom_file.py` reads single files. What files can express together and a volume cannot (several series,
slices of different sizes, gaps) is refused rather than guessed.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from oasisvq.errors import FileError, ImageError
from oasisvq.scans.dicom_file import CONVERT, DicomSlice, has_magic, read_planes, read_slices
from oasisvq.scans.geometry import Form, Geometry
from oasisvq.scans.images import IMAGE_SUFFIXES
from oasisvq.scans.limits import DEFAULT_MAX_PIXELS, refuse_large_volume
from oasisvq.scans.voxel_streams import Volume

DICOM_SUFFIXES = (".dcm", ".dicom", ".ima", ".dcm.gz")  # many DICOM files have none of them
_ROUNDED = {"orientation": 1e-3, "pixel spacing": 1e-3}  # scanners write these with small differences
_SAME_PLACE = 1e-3  # millimetres
_SHOWN = 4  # volumes in a message
_OFF_GRID = 0.05  # of the distance between slices: rounded positions pass, a missing slice does not


def dicom_suffix(path: Path) -> str | None:
    """The ending by which a name is that of a DICOM file; None for other names."""
    name = path.name.lower()
    return next((suffix for suffix in DICOM_SUFFIXES if name.endswith(suffix)), None)


def is_dicom(path: Path) -> bool:
    """Whether this is a DICOM file by its first bytes, regardless of its name."""
    try:
        return path.is_file() and has_magic(path)
    except OSError:
        return False


def holds_dicom(folder: Path) -> bool:
    """Whether a DICOM image lies directly in a folder; hidden files and DICOMDIR do not count.

    Files named as images (.png) are not opened: there may be thousands.
    """
    try:
        return any(
            is_dicom(path)
            for path in folder.iterdir()
            if not _is_passed_over(path) and path.suffix.lower() not in IMAGE_SUFFIXES
        )
    except OSError:
        return False


def read_dicom(
    path: Path,
    files: Sequence[Path],
    max_pixels: int = DEFAULT_MAX_PIXELS,
    which: int | None = None,
) -> Volume:
    """Read one DICOM file, or the files of one series, or one volume of several.

    Slices are ordered by their positions, regardless of their names. Without positions they are ordered
    by InstanceNumber, and qform and sform have code 0 instead of 1 (scanner).

    Args:
        path: the file or folder, as messages name it.
        files: the file, or those of the series.
        max_pixels: how large the volume may be by its headers, see `limits.py`.
        which: which of several series, echoes or time points to read, from 0.

    Raises:
        FileError: a file is missing or unreadable.
        ImageError: pydicom or a decoder is missing; a file is damaged, too large, or of a kind that
            is not read; the files are not one whole series.
    """
    slices = _chosen(path, _volumes_in(files, max_pixels), which)
    _refuse_unlike(slices)
    refuse_large_volume((*slices[0].size, len(slices)), str(path), max_pixels)
    slices = _in_order(path, slices)
    voxels = _read_voxels(slices)
    try:
        return Volume(voxels, _geometry(slices, voxels))
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from error


def count_in_dicom(files: Sequence[Path], max_pixels: int = DEFAULT_MAX_PIXELS) -> int:
    """How many volumes the files hold: series, and their echoes or time points.

    Raises:
        FileError, ImageError: see `read_dicom`.
    """
    return len(_volumes_in(files, max_pixels))


def _volumes_in(files: Sequence[Path], max_pixels: int) -> list[list[DicomSlice]]:
    """The slices of each volume, in no order."""
    _require_pydicom()
    series: dict[str, list[DicomSlice]] = {}
    for file in files:
        for each in read_slices(file, max_pixels):
            series.setdefault(each.series, []).append(each)
    return [volume for slices in series.values() for volume in _repeats(slices)]


def _repeats(slices: list[DicomSlice]) -> list[list[DicomSlice]]:
    """The echoes or time points of a series that has equally many images at every position.

    At each position they are ordered by their numbers. Any other series is one volume.
    """
    places: dict[tuple[float, ...], list[DicomSlice]] = {}
    for each in slices:
        if each.position is None or not each.number:
            return [slices]
        places.setdefault(tuple(np.round(each.position / _SAME_PLACE)), []).append(each)
    counts = {len(images) for images in places.values()}
    if len(counts) != 1 or counts == {1}:
        return [slices]
    ordered = [sorted(images, key=lambda each: each.number) for images in places.values()]
    return [[images[place] for images in ordered] for place in range(counts.pop())]


def _chosen(path: Path, volumes: list[list[DicomSlice]], which: int | None) -> list[DicomSlice]:
    if which is None and len(volumes) > 1:
        told = [
            f"{place}: {len(slices)} such as {slices[0].label}" for place, slices in enumerate(volumes)
        ]
        found = ", ".join(told[:_SHOWN]) + (", ..." if len(told) > _SHOWN else "")
        raise ImageError(
            f"{path}: images of {len(volumes)} volumes ({found}); expected one; encode one of them with "
            "--volume, or each with --volume all"
        )
    if not 0 <= (which or 0) < len(volumes):
        there = f"volumes 0 to {len(volumes) - 1:,}" if len(volumes) > 1 else "only volume 0"
        raise ImageError(f"{path}: there is no volume {which}; it holds {there}")
    return volumes[which or 0]


def _require_pydicom() -> None:
    try:
        import pydicom.pixels  # noqa: F401 - not in pydicom 2
    except ImportError as error:
        raise ImageError("DICOM files need pydicom 3; pip install 'oasisvq[dicom]'") from error


def _is_passed_over(path: Path) -> bool:
    return path.name.startswith(".") or path.name.upper() == "DICOMDIR"


def dicom_files_in(folder: Path) -> list[Path]:
    """The DICOM files directly in a folder, by name or first bytes; hidden ones and DICOMDIR left out.

    Raises:
        FileError: the folder or a file cannot be read.
        ImageError: there are none.
    """
    try:
        files = [
            path
            for path in sorted(folder.iterdir())
            if not _is_passed_over(path)
            and not path.is_dir()
            and (dicom_suffix(path) is not None or (path.is_file() and has_magic(path)))
        ]
    except OSError as error:
        raise FileError(f"{error.filename}: cannot be read: {error.strerror or error}") from error
    if not files:
        raise ImageError(f"{folder}: no DICOM file directly in this folder; name the folder of a series")
    return files


def _refuse_unlike(slices: list[DicomSlice]) -> None:
    first = slices[0]
    for each in slices[1:]:
        for what, wanted in first.alike.items():
            found, slack = each.alike[what], _ROUNDED.get(what, 0.0)
            if len(found) != len(wanted) or not np.allclose(found, wanted, rtol=0, atol=slack):
                raise ImageError(
                    f"{each.path}: {what} {_listed(found)}, but {_listed(wanted)} in {first.label}; "
                    f"expected slices of one volume; leave out what does not belong to it"
                )


def _listed(numbers: tuple[float, ...]) -> str:
    return "×".join(f"{each:g}" for each in numbers) or "none"


def _in_order(path: Path, slices: list[DicomSlice]) -> list[DicomSlice]:
    """The slices in the order in which they lie, none twice and none missing between two others."""
    positions = [each.position for each in slices if each.position is not None]
    if not positions:
        if len(slices) > 1 and len({each.number for each in slices} - {()}) < len(slices):
            raise ImageError(f"{path}: neither positions nor numbers order its slices; {CONVERT}")
        return sorted(slices, key=lambda each: each.number)
    heights = np.array(positions) @ slices[0].normal
    order = np.argsort(heights, kind="stable")
    slices, places = [slices[place] for place in order], np.array(positions)[order]
    if len(slices) == 1:
        return slices
    distances = np.diff(heights[order])
    nearest, farthest = int(distances.argmin()), int(distances.argmax())
    if distances[nearest] < _SAME_PLACE:
        raise ImageError(
            f"{path}: {slices[nearest].label} and {slices[nearest + 1].label} lie at the same place; "
            "expected one volume; keep one of its copies, echoes or time points"
        )
    usual = np.sort(distances)[(len(distances) - 1) // 2]
    if distances[farthest] > 1.5 * usual:
        raise ImageError(
            f"{path}: a slice is missing between {slices[farthest].label} and "
            f"{slices[farthest + 1].label}, which lie {distances[farthest]:.4g} mm apart, others "
            f"{usual:.4g} mm; get the whole series"
        )
    grid = np.linspace(places[0], places[-1], len(places))
    if np.linalg.norm(places - grid, axis=1).max() > _OFF_GRID * usual:
        raise ImageError(
            f"{path}: its slices do not lie on one line at equal distances (from "
            f"{distances.min():.4g} to {distances.max():.4g} mm); {CONVERT}"
        )
    return slices


def _read_voxels(slices: list[DicomSlice]) -> NDArray[np.generic]:
    (columns, rows), (bits, signed) = slices[0].size, slices[0].alike["bits"]
    dtype = np.dtype(f"{'i' if signed else 'u'}{int(bits) // 8}")
    voxels = np.empty((columns, rows, len(slices)), dtype, order="F")
    for place, plane in enumerate(read_planes(slices)):
        voxels[:, :, place] = plane.T
    return voxels


def _geometry(slices: list[DicomSlice], voxels: NDArray[np.generic]) -> Geometry:
    """The NIfTI-1 geometry of slices in order."""
    from nibabel.nifti1 import Nifti1Header

    first, last = slices[0], slices[-1]
    down, across = first.alike["pixel spacing"] or (1.0, 1.0)
    affine = np.diag([across, down, first.thickness, 1.0])
    if first.position is not None and last.position is not None:
        gaps = len(slices) - 1
        affine[:3, :2] = first.axes * (across, down)
        step = (last.position - first.position) / gaps if gaps else first.normal * first.thickness
        affine[:3, 2] = step
        affine[:3, 3] = first.position
        affine[:2] *= -1  # to the right and front
    header = Nifti1Header(Geometry.of_array(voxels, affine).content)
    if first.position is None:
        header.set_sform(None, code=0)
        header.set_qform(None, code=0)
    header.set_slope_inter(first.alike["slope"][0], first.alike["intercept"][0])
    return Geometry(Form.NIFTI1, header.binaryblock)
