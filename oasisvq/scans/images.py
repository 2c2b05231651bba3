"""Image file <-> the grey levels of its planes: PNG, JPEG, TIFF, WebP, BMP, GIF."""

import io
import struct
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from oasisvq.errors import ImageError
from oasisvq.files import atomic_writer, read_bytes
from oasisvq.scans.limits import (
    DEFAULT_MAX_PIXELS,
    MAX_FILE_BYTES,
    MAX_PIXELS,
    refuse_large_image,
    refuse_large_volume,
)

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp", ".gif")
WRITABLE_SUFFIXES = (".png", ".tif", ".tiff")  # lossless at 8 and 16 bits
_ORIENTATION = 274  # an EXIF tag
_SAMPLE_FORMAT, _SIGNED = 339, 2  # a TIFF tag; Pillow reads 8 bits as unsigned
_PHOTOMETRIC, _WHITE_IS_ZERO = 262, 0  # a TIFF tag; Pillow inverts only 8 bits by it
_FORMATS = ("PNG", "JPEG", "TIFF", "WEBP", "BMP", "GIF")
_MAX_PAGES = 1024
STACK_SUFFIXES = (".tif", ".tiff")  # of files that can hold several pages
_UNREADABLE = (SyntaxError, ValueError, TypeError, LookupError, EOFError, struct.error)  # of Pillow
_STACKS = ("TIFF",)  # formats in which several images are slices rather than an animation


class Picture(NamedTuple):
    """What an image file holds.

    Attributes:
        planes: (N, H, W) of uint8 or uint16: the pages of a TIFF file; one for other files.
        are_indices: whether they are indices into a palette of colours, which is not kept.
    """

    planes: NDArray[np.generic]
    are_indices: bool


def read_image(path: Path, max_pixels: int = DEFAULT_MAX_PIXELS) -> NDArray[np.generic]:
    """Read a grey image of 8 or 16 bits; also palette or RGB, if all colours are grey.

    Args:
        path: the file; the ending of its name does not matter.
        max_pixels: more are refused before any is decoded.

    Returns:
        (H, W) of uint8 or uint16.

    Raises:
        FileError: the file is missing or unreadable.
        ImageError: it is not such an image, or is damaged, coloured, transparent, too large, or of
            several pages.
    """
    picture = read_picture(path, max_pixels)
    if len(picture.planes) > 1:
        raise ImageError(f"{path}: holds several images, expected one; split it first")
    if picture.are_indices:
        raise ImageError(f"{path}: a coloured image; expected a grey one; convert it first")
    plane: NDArray[np.generic] = picture.planes[0]
    return plane


def read_picture(path: Path, max_pixels: int = DEFAULT_MAX_PIXELS) -> Picture:
    """Read a grey image, the pages of a TIFF file, or the indices of an image with a palette of colours.

    Args:
        path: the file; the ending of its name does not matter.
        max_pixels: of a page; more are refused before any is decoded. See `limits.py` for all pages.

    Raises:
        FileError: the file is missing or unreadable.
        ImageError: it is not such an image, or is damaged, coloured, transparent or too large; or its
            pages have several sizes or types.
    """
    content = read_bytes(path, MAX_FILE_BYTES)
    if not content:
        raise ImageError(f"{path}: an empty file, expected an image")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's bomb warning; we have a limit of our own
            with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
                refuse_large_image(image.size, str(path), max_pixels)
                image.verify()  # checksums, which decoding does not verify
            with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
                return _pages(image, path, max_pixels)
    except UnidentifiedImageError:
        raise ImageError(
            f"{path}: not an image that can be read; expected PNG, JPEG, TIFF, WebP, BMP or GIF"
        ) from None
    except Image.DecompressionBombError as error:
        raise ImageError(
            f"{path}: more than the limit of {MAX_PIXELS:,} pixels that a .codes file holds; cut or "
            "shrink it first"
        ) from error
    except (OSError, *_UNREADABLE) as error:
        raise ImageError(f"{path}: a damaged or truncated image ({error})") from error


def look_at(path: Path) -> tuple[tuple[int, int], bool] | None:
    """Width and height of an image of one page, and whether it has more than 8 bits, from its header.

    None if the header does not tell; `read_image` then says why.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with path.open("rb") as stream, Image.open(stream, formats=_FORMATS) as image:
                is_alone = not _seek(image, 1)
                return (image.size, image.mode.startswith("I")) if is_alone else None
    except (OSError, Image.DecompressionBombError, *_UNREADABLE):
        return None


def _pages(image: Image.Image, path: Path, max_pixels: int) -> Picture:
    if _seek(image, 1):
        if image.format not in _STACKS:
            raise ImageError(f"{path}: holds several images, expected one; split it first")
        if _seek(image, _MAX_PAGES):  # checked before any is decoded
            raise ImageError(f"{path}: holds more than {_MAX_PAGES:,} images, the limit; split it first")
        image.seek(0)
    first = _grey_levels(image, path)
    are_indices = image.mode == "P" and not _is_grey(image)
    planes = [first]
    while _seek(image, len(planes)):
        refuse_large_image(image.size, str(path), max_pixels)
        refuse_large_volume((*image.size, len(planes) + 1), str(path), max_pixels)
        page = _grey_levels(image, path)
        if page.shape != first.shape or page.dtype != first.dtype or image.mode == "P":
            raise ImageError(
                f"{path}: its pages are of several sizes or types, expected the slices of one volume; "
                "split it first"
            )
        planes.append(page)
    return Picture(np.stack(planes), are_indices)


def _seek(image: Image.Image, page: int) -> bool:
    try:
        image.seek(page)  # `n_frames` would walk through everything that a TIFF file claims to hold
    except EOFError:
        return False
    return True


def _is_grey(image: Image.Image) -> bool:
    """Whether all colours that an image uses are grey."""
    red, green, blue = np.moveaxis(np.asarray(image.convert("RGB")), -1, 0)
    return bool((red == green).all() and (red == blue).all())


def _grey_levels(image: Image.Image, path: Path) -> NDArray[np.generic]:
    tiles = getattr(image, "tile", [])  # how the file stores its channels: (codec, box, offset, mode)
    rawmode = tiles[0][3] if tiles else ""
    if "16" in str(rawmode) and image.mode in ("RGB", "RGBA", "LA"):
        raise ImageError(
            f"{path}: 16-bit colour or alpha channels; expected one grey channel; convert it first"
        )
    if image.getexif().get(_ORIENTATION, 1) != 1:
        raise ImageError(
            f"{path}: is shown turned or mirrored (EXIF orientation); save it upright first"
        )
    is_grey = image.mode in ("L", "1") or image.mode.startswith("I")
    if is_grey and "transparency" in image.info:
        raise ImageError(f"{path}: a transparent image; expected an opaque grey one")
    tags = getattr(image, "tag_v2", {})
    if image.mode.startswith("I") and tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        raise ImageError(f"{path}: a 16-bit TIFF whose 0 is white; expected black; convert it first")
    if image.mode == "L" and _SIGNED in np.ravel(tags.get(_SAMPLE_FORMAT, ())):
        raise ImageError(
            f"{path}: a TIFF of signed 8 bits; expected grey levels from 0; convert it first"
        )
    if image.mode in ("L", "1"):
        return np.asarray(image.convert("L"))
    if image.mode.startswith("I"):
        levels = np.asarray(image)
        if levels.min() < 0 or levels.max() > 65_535:
            raise ImageError(
                f"{path}: grey levels from {levels.min()} to {levels.max()}, expected 0 to 65535"
            )
        return levels.astype(np.uint16)
    if image.mode in ("P", "PA", "RGB", "RGBA", "LA"):
        channels = np.asarray(image.convert("RGBA"))
        if (channels[..., 3] != 255).any():
            raise ImageError(f"{path}: a transparent image; expected an opaque grey one")
        red, green, blue = channels[..., 0], channels[..., 1], channels[..., 2]
        is_coloured = bool((red != green).any() or (red != blue).any())
        if is_coloured and image.mode == "P":
            return np.asarray(image)
        if is_coloured:
            raise ImageError(f"{path}: a coloured image; expected a grey one; convert it first")
        return np.ascontiguousarray(red)
    raise ImageError(f"{path}: an image of mode {image.mode}, expected grey of 8 or 16 bits")


def write_image(plane: NDArray[np.generic], path: Path) -> None:
    """Write grey levels (H, W) losslessly as PNG or TIFF; the inverse of `read_image`.

    Raises:
        FileError: it cannot be written.
        ImageError: the name has another ending.
    """
    require_writable_suffix(path)
    image_format = "PNG" if path.suffix.lower() == ".png" else "TIFF"
    encoded = io.BytesIO()
    Image.fromarray(plane).save(encoded, format=image_format)
    with atomic_writer(path) as stream:
        stream.write(encoded.getvalue())


def write_pages(planes: NDArray[np.generic], path: Path) -> None:
    """Write grey levels (N, H, W) as the pages of a TIFF file; the inverse of `read_picture`.

    Raises:
        FileError: it cannot be written.
    """
    first, *others = (Image.fromarray(np.ascontiguousarray(plane)) for plane in planes)
    encoded = io.BytesIO()
    first.save(encoded, format="TIFF", save_all=True, append_images=others, compression="tiff_lzw")
    with atomic_writer(path) as stream:
        stream.write(encoded.getvalue())


def require_writable_suffix(path: Path) -> None:
    """Raise unless decoded images can be written under this name.

    Raises:
        ImageError: the name does not end in one of `WRITABLE_SUFFIXES`.
    """
    if path.suffix.lower() not in WRITABLE_SUFFIXES:
        raise ImageError(
            f"{path}: decoded images are written as {', '.join(WRITABLE_SUFFIXES)}; rename the output"
        )
