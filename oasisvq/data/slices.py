"""A volume, or a stack of images -> slices of grey levels.

Shapes: N slices, H×W slice, 1 mm a pixel. In axial slices rows run left–right, columns back–front, and
the first slice is the lowest; slices along other axes lie as `slicing_by` cuts them.

A volume gets one scale of intensities: percentiles of its foreground become black and white, so that
grey levels are comparable between its slices. The foreground begins well below the middle between air
and head, since fluid in the head is dark too: on the PNG slices at 20 of 255, as in `score`.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from oasisvq.codec.content import labels_in
from oasisvq.codec.ground import ground_of, stands_out
from oasisvq.data.layouts import Images
from oasisvq.data.recipe import Recipe, Slices
from oasisvq.errors import DatasetError, ImageError, OasisVQError
from oasisvq.scans.geometry import Form, Geometry, slicing_by
from oasisvq.scans.images import read_image
from oasisvq.scans.limits import DEFAULT_MAX_PIXELS
from oasisvq.scans.volumes import count_volumes, read_volume

FIELD = 256  # side of a slice in millimetres at --size 256, as in the PNG slices
BRAIN_SHARE = 0.25  # of the largest foreground of a slice; above such slices is little but scalp
BRAIN_HEIGHT = 125  # millimetres from the top of a head down to neck and jaw
MAX_VALUE = 1e30
MAX_SPAN = 2048  # side of a volume in millimetres
FOREGROUND_SHARE = 1 / 3  # of the way from black to the middle between air and head
_SAME = 0.01  # millimetres by which a voxel may differ from 1 mm and stay as it is


class Sliced(NamedTuple):
    """A volume as slices along one axis, still in its own voxels.

    Attributes:
        planes: (N, H, W) scaled values, never NaN or infinite.
        spacing: millimetres from slice to slice, row to row and column to column.
        axis_codes: of the array.
        voxel_size: millimetres along the axes of the array.
        is_guessed: whether the header leaves open which side is left.
    """

    planes: NDArray[Any]
    spacing: tuple[float, float, float]
    axis_codes: str
    voxel_size: tuple[float, float, float]
    is_guessed: bool


class Cut(NamedTuple):
    """Slices of one volume or stack.

    Attributes:
        planes: (N, size, size) uint8; labels for a label volume.
        numbers: of each slice, millimetres from the first, or the number in the name of its image.
        shapes: of each slice before it was brought to size.
        places: which of the files of a stack each slice is from.
        intensity: the values that became black and white; None if no values were changed.
        labels: all labels of a label volume; empty otherwise.
        axis_codes: of the volume; empty for images.
        voxel_size: of the volume in millimetres; empty for images.
        is_guessed: whether the volume's header leaves open which side is left.
        errors: messages on the images of a stack that could not be used.
        guide_error: why the guide of the volume could not be used; empty if it was, or there is none.
    """

    planes: NDArray[np.uint8]
    numbers: list[int]
    shapes: list[tuple[int, int]]
    places: list[int]
    intensity: tuple[float, float] | None = None
    labels: tuple[int, ...] = ()
    axis_codes: str = ""
    voxel_size: tuple[float, ...] = ()
    is_guessed: bool = False
    errors: tuple[str, ...] = ()
    guide_error: str = ""


def cut_volume(
    path: Path,
    images: Images,
    size: int,
    recipe: Recipe,
    axis_codes: str | None = None,
    guide: Path | None = None,
    max_pixels: int = DEFAULT_MAX_PIXELS,
) -> Cut:
    """Cut a volume into slices.

    Args:
        path: the volume; of a pair either file.
        images: what it holds.
        size: side of a slice in pixels.
        recipe: along which axis, which slices, and which percentiles become black and white.
        axis_codes: of the volume if it is Analyze; if None, those of its header.
        guide: a volume that matches it voxel by voxel and shows where the brain is; if it cannot be
            used, the foreground of the volume itself does.
        max_pixels: how large both may be, see `limits.py`.

    Raises:
        FileError: the volume is missing or unreadable.
        ImageError: it is damaged, constant, not of finite numbers, or not what `images` says.
    """
    sliced = read_sliced(path, recipe.axis, axis_codes, max_pixels)
    is_labels = images is Images.SEGMENTATIONS
    if not is_labels:
        _refuse_labels(sliced.planes, path)
    labels = labels_of(sliced.planes, path) if is_labels else ()
    level = 0.0 if is_labels else foreground_level(sliced.planes)
    brain, guide_error = sliced.planes > level, ""
    if guide is not None:
        try:
            other = read_sliced(guide, recipe.axis, axis_codes, max_pixels, nan_is_outside=True)
            if other.planes.shape == sliced.planes.shape:
                brain = other.planes > other.planes.min()
        except OasisVQError as error:
            guide_error = str(error)
    reach = BRAIN_HEIGHT if recipe.axis == "axial" else MAX_SPAN
    numbers = slice_numbers(brain, sliced.spacing[0], recipe.slices, path, reach)
    del brain
    rows, columns = (
        np.arange(_millimetres(side, step))
        for side, step in zip(sliced.planes.shape[1:], sliced.spacing[1:], strict=True)
    )
    at = (np.array(numbers), rows, columns)
    intensity = None
    if is_labels:
        planes = np.rint(nearest(sliced.planes, sliced.spacing, at)).astype(np.uint8)
    else:
        intensity = intensity_of(sliced.planes, level, recipe.percentiles)
        planes = np.rint(255 * linear(sliced.planes, sliced.spacing, at, intensity)).astype(np.uint8)
    fitted = np.stack([fit_plane(fit_plane(p, max(size, FIELD), images), size, images) for p in planes])
    shapes = [(len(rows), len(columns))] * len(numbers)
    return Cut(
        fitted,
        numbers,
        shapes,
        [0] * len(numbers),
        intensity,
        labels,
        sliced.axis_codes,
        sliced.voxel_size,
        sliced.is_guessed,
        guide_error=guide_error,
    )


def _refuse_labels(planes: NDArray[np.generic], path: Path) -> None:
    """Raise for a volume that encoding would clearly take for a map of labels."""
    found = labels_in(planes)
    if found is not None and found.is_plain:
        raise ImageError(
            f"{path}: holds {len(found.values):,} values in the shapes of labels, expected a scan; "
            "leave it out, or take such files with --images segmentations"
        )


def read_sliced(
    path: Path,
    axis: str = "axial",
    axis_codes: str | None = None,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    nan_is_outside: bool = False,
) -> Sliced:
    """Read a volume as slices.

    Args:
        path: the volume.
        axis: that slices follow, one of `PLANES`.
        axis_codes: see `cut_volume`.
        max_pixels: see `cut_volume`.
        nan_is_outside: give NaN a value below all others, rather than refuse it.

    Raises:
        FileError, ImageError: see `cut_volume`.
    """
    count = count_volumes(path, max_pixels)
    if count > 1:
        raise ImageError(
            f"{path}: holds {count:,} volumes, expected one; take one out first, such as with fslroi"
        )
    volume = read_volume(path, max_pixels)
    geometry = volume.geometry
    is_corrected = axis_codes is not None and geometry.form is Form.ANALYZE
    try:
        codes = axis_codes if is_corrected and axis_codes else geometry.axis_codes
    except ImageError as error:
        raise ImageError(f"{path}: its affine does not say which axis is which; repair it") from error
    slicing = slicing_by(codes, axis)
    values = _values(volume.voxels, geometry, path, nan_is_outside)
    voxel_size = geometry.steps
    first, second, third = (voxel_size[axis] for axis in slicing.axes)
    spacing = tuple(1.0 if abs(step - 1) < _SAME else step for step in (first, second, third))
    planes = slicing.planes(values)
    for side, step in zip(planes.shape, spacing, strict=True):
        if not 0.5 < side * step < MAX_SPAN + 0.5:  # false for NaN
            raise ImageError(
                f"{path}: {side} voxels of {step:g} mm, expected 1 to {MAX_SPAN} mm to a side; "
                "repair its header"
            )
    is_guessed = not is_corrected and geometry.form_codes == (0, 0)
    return Sliced(planes, (spacing[0], spacing[1], spacing[2]), codes, voxel_size, is_guessed)


def _values(
    voxels: NDArray[np.generic], geometry: Geometry, path: Path, nan_is_outside: bool
) -> NDArray[Any]:
    """Stored voxels -> the values that they stand for.

    Raises:
        ImageError: some values are NaN, infinite or too large, or all are the same.
    """
    slope, intercept = geometry.scaling
    values: NDArray[Any] = voxels
    if (slope, intercept) != (1.0, 0.0):
        values = voxels.astype(np.float32 if voxels.dtype.itemsize < 4 else np.float64)
        with np.errstate(over="ignore", invalid="ignore"):  # overflows are refused below
            values *= slope
            values += intercept
    if nan_is_outside and values.dtype.kind == "f":
        values = np.where(np.isnan(values), np.fmin.reduce(values, axis=None) - 1, values)
    if values.dtype.kind == "f":
        wrong = values.size - int(np.count_nonzero(np.abs(values) <= MAX_VALUE))
        if wrong:
            raise ImageError(
                f"{path}: {wrong:,} of {values.size:,} voxels are NaN, infinite or beyond "
                f"{MAX_VALUE:g}; expected intensities"
            )
    if values.min() == values.max():
        raise ImageError(f"{path}: every voxel is {values.flat[0]:g}, expected an image")
    return values


def _millimetres(side: int, step: float) -> int:
    return max(1, round(side * step))


def labels_of(planes: NDArray[Any], path: Path) -> tuple[int, ...]:
    """The labels of a label volume, in rising order.

    Raises:
        ImageError: values are not whole, or not from 0 to 255.
    """
    low, high = planes.min(), planes.max()
    is_broken = planes.dtype.kind == "f" and bool((np.abs(planes - np.rint(planes)) > 1e-3).any())
    if low < 0 or high > 255 or is_broken:
        raise ImageError(
            f"{path}: values from {low:g} to {high:g}, expected whole labels from 0 to 255; "
            "number the labels anew, or pass --images scans"
        )
    return tuple(np.flatnonzero(np.bincount(np.rint(planes).astype(np.uint8).ravel())).tolist())


def foreground_level(planes: NDArray[Any]) -> float:
    """The value above which a voxel is head or brain rather than air."""
    sample = planes[::2, ::2, ::2] if planes.size > 2**20 else planes
    low, high = (float(end) for end in np.percentile(sample, (0.1, 99.9)))
    if not low < high:
        return float(planes.min())
    counts, edges = np.histogram(sample.clip(low, high), 256, (low, high))
    return _level_of(counts, (edges[1:] + edges[:-1]) / 2)


def _level_of(counts: NDArray[np.integer[Any]], centres: NDArray[Any]) -> float:
    """A third of the way from black to the middle between air and head, told apart by Otsu's method."""
    from skimage.filters import threshold_otsu

    is_air = centres <= threshold_otsu(hist=(counts, centres))
    air, head = (np.average(centres[part], weights=counts[part]) for part in (is_air, ~is_air))
    return float(centres[0] + FOREGROUND_SHARE * ((air + head) / 2 - centres[0]))


def intensity_of(
    values: NDArray[Any], level: float, percentiles: tuple[float, float]
) -> tuple[float, float]:
    """The values that become black and white: percentiles of the values above `level`.

    Around a skull-stripped brain the ground becomes black, as in encoding: dark voxels in the brain are
    fluid, not air.
    """
    low, high = (float(end) for end in np.percentile(values[values > level], percentiles))
    ground = ground_of(values)
    if ground is not None and ground.value < low and stands_out(values, ground, high):
        low = ground.value
    return (low, high) if low < high else (level, high)


def slice_numbers(
    brain: NDArray[np.bool_], spacing: float, slices: Slices, path: Path, reach: int = BRAIN_HEIGHT
) -> list[int]:
    """Which slices to take, in millimetres from the first one.

    The part with brain reaches from the first to the last broad slice of `brain` (N, H, W).

    Args:
        brain: where the brain is, or the head.
        spacing: millimetres from slice to slice.
        slices: which slices are asked for.
        path: of the volume, for messages.
        reach: the largest extent of that part in millimetres from the top: below a head lies its neck.

    Raises:
        ImageError: the range that is asked for lies outside the volume.
    """
    height = _millimetres(len(brain), spacing)
    if slices.span:
        first, last = slices.span[0], min(slices.span[1], height)
        if first >= last:
            raise ImageError(f"{path}: {height} mm of slices, none of them in {slices}; choose others")
        return list(range(first, last))
    areas = np.count_nonzero(brain, axis=(1, 2))
    solid = np.flatnonzero(areas >= max(1, BRAIN_SHARE * areas.max()))
    top = min(height, round((solid[-1] + 1) * spacing))
    bottom = max(round(solid[0] * spacing), top - reach, 0)
    top = max(top, bottom + 1)
    count = min(slices.number or top - bottom, top - bottom)
    centres = bottom + (np.arange(count) + 0.5) * (top - bottom) / count
    return [int(centre) for centre in centres]


def _positions(at: NDArray[Any], step: float) -> NDArray[np.float64]:
    """Millimetres -> positions among voxels: both count from the edge, and refer to their middle."""
    return (at + 0.5) / step - 0.5


def nearest(
    planes: NDArray[Any], spacing: tuple[float, float, float], at: tuple[NDArray[Any], ...]
) -> NDArray[Any]:
    """Values of the nearest voxels, at millimetres along each of the three axes."""
    for axis, (places, step) in enumerate(zip(at, spacing, strict=True)):
        chosen = np.rint(_positions(places, step)).astype(int).clip(0, planes.shape[axis] - 1)
        planes = planes.take(chosen, axis=axis)
    return planes


def linear(
    planes: NDArray[Any],
    spacing: tuple[float, float, float],
    at: tuple[NDArray[Any], ...],
    intensity: tuple[float, float],
) -> NDArray[np.float32]:
    """Trilinear values at millimetres along each of the three axes; `intensity` becomes 0 and 1.

    Voxels smaller than a millimetre are averaged with a triangle that is a millimetre wide on each side.
    """
    operators = []
    for places, step, side in zip(at, spacing, planes.shape, strict=True):
        distance = np.abs(_positions(places, step)[:, None] - np.arange(side))
        weights = np.maximum(0, 1 - distance / max(1, 1 / step))
        operators.append((weights / weights.sum(axis=1, keepdims=True)).astype(np.float32))
    used = operators[0].any(axis=0)
    low, high = intensity
    shares = np.stack([_shares(plane, low, high) for plane in planes[used]])
    # slices, then rows, then columns: each a product with a few weights per place
    taken = np.tensordot(operators[0][:, used], shares, axes=1)
    resampled: NDArray[np.float32] = np.clip(operators[1] @ taken @ operators[2].T, 0, 1)
    return resampled


def _shares(plane: NDArray[Any], low: float, high: float) -> NDArray[np.float32]:
    """Scale `low` to 0 and `high` to 1, and clip everything beyond."""
    return ((plane.astype(np.float64).clip(low, high) - low) / (high - low)).astype(np.float32)


def cut_stack(
    paths: list[Path],
    numbers: list[int],
    images: Images,
    size: int,
    recipe: Recipe,
    whole: bool,
    max_pixels: int = DEFAULT_MAX_PIXELS,
) -> Cut:
    """Bring the images of one subject's slices to size; an unusable one is left out and reported.

    Grey levels of 8 bits stay as they are. Those of 16 bits are scaled as those of a volume: by
    percentiles of the foreground of all slices of the stack.

    Args:
        paths: the images.
        numbers: of the slices.
        images: what they hold.
        size: side of a slice in pixels.
        recipe: which percentiles become black and white.
        whole: whether an unusable image, or one of 16 bits, is an error.
        max_pixels: how large an image may be.

    Raises:
        OasisVQError: no image is usable; or with `whole`, one is not.
    """
    errors: list[OasisVQError] = []
    planes, shapes, places = [], [], []
    intensity, depth = None, None
    for place, path in enumerate(paths):
        try:
            plane = read_image(path, max_pixels)
            is_deep = plane.dtype != np.uint8
            if is_deep:
                _refuse_deep(path, images, whole)
            if images is not Images.SEGMENTATIONS and not whole:
                _refuse_labels(plane[None], path)
            if depth not in (None, plane.dtype):
                raise ImageError(f"{path}: {plane.dtype} beside slices of {depth}; convert it first")
            depth = plane.dtype
            if is_deep:
                intensity = intensity or _intensity_of_stack(paths, recipe.percentiles, max_pixels)
                plane = np.rint(255 * _shares(plane, *intensity))
        except OasisVQError as error:
            if whole:
                raise
            errors.append(error)
            continue
        planes.append(fit_plane(plane.astype(np.uint8), size, images))
        shapes.append((plane.shape[0], plane.shape[1]))
        places.append(place)
    if not planes:
        raise errors[0]
    told = [numbers[place] for place in places]
    problems = tuple(str(error) for error in errors)
    return Cut(np.stack(planes), told, shapes, places, intensity, errors=problems)


def _refuse_deep(path: Path, images: Images, whole: bool) -> None:
    if whole:
        raise DatasetError(f"{path}: a 16-bit slice, expected 8 bits in this layout")
    if images is Images.SEGMENTATIONS:
        raise ImageError(f"{path}: labels of 16 bits, expected 8; number them anew from 0 to 255")


def _intensity_of_stack(
    paths: list[Path], percentiles: tuple[float, float], max_pixels: int
) -> tuple[float, float]:
    """The grey levels of 16-bit slices that become black and white, from their common histogram."""
    counts = np.zeros(2**16, np.int64)
    for path in paths:
        try:
            plane = read_image(path, max_pixels)
        except OasisVQError:
            continue  # reported when it is read again
        if plane.dtype == np.uint16:
            counts += np.bincount(plane.ravel(), minlength=2**16)
    low, high = _of_histogram(counts, (0.1, 99.9))
    inside = np.arange(int(low), int(high) + 1)
    level = _level_of(counts[inside], inside) if low < high else low
    above = counts.copy()
    above[: int(level) + 1] = 0
    if not above.any():
        return low, low + 1
    black, white = _of_histogram(above, percentiles)
    return (black, white) if black < white else (level, white)


def _of_histogram(counts: NDArray[np.int64], percentiles: tuple[float, float]) -> tuple[float, float]:
    shares = np.cumsum(counts) / counts.sum()
    low, high = (int(np.searchsorted(shares, percentile / 100)) for percentile in percentiles)
    return float(min(low, len(counts) - 1)), float(min(high, len(counts) - 1))


def fit_plane(plane: NDArray[np.uint8], size: int, images: Images) -> NDArray[np.uint8]:
    """Bring an (H, W) plane to (size, size): pad with 0 around it, and shrink it if it is larger.

    Scans are averaged over the area of each new pixel; segmentations keep the nearest label.
    """
    height, width = plane.shape
    side = max(height, width, size)
    top, left = (side - height) // 2, (side - width) // 2
    square = np.pad(plane, ((top, side - height - top), (left, side - width - left)))
    if side == size:
        return square
    is_labels = images is Images.SEGMENTATIONS
    method = Image.Resampling.NEAREST if is_labels else Image.Resampling.BOX
    return np.asarray(Image.fromarray(square).resize((size, size), method))
