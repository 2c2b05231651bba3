"""A `.codes` file -> a nibabel image or a Pillow image. Never imports torch."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from oasisvq.codec.codec import Codec
from oasisvq.codec.codes import CodesFile
from oasisvq.codec.container import read_codes_file
from oasisvq.codec.headers import Coder, refuse_large_codes
from oasisvq.errors import ImageError
from oasisvq.models import ModelFinder
from oasisvq.scans.limits import DEFAULT_MAX_PIXELS
from oasisvq.scans.scan import Scan

if TYPE_CHECKING:
    from nibabel.nifti1 import Nifti1Image

_BRIGHTEST = 65_535  # of a grey image with 16 bits


def decode_read(file: CodesFile, path: Path, model: Path | None, max_pixels: int) -> Scan:
    """Decode the scan of a `.codes` file, with the model that its fingerprint names."""
    refuse_large_codes(file.header, str(path), max_pixels)
    codec = Codec(ModelFinder(model)(file.header, path))
    codes = file.codes() if file.header.coder is Coder.LABELS else codec.codes_of(file)
    return codec.decode_codes(codes, str(path))


def load_volume(path: Path, model: Path | None, max_pixels: int = DEFAULT_MAX_PIXELS) -> "Nifti1Image":
    """See `oasisvq.load_volume`."""
    file = read_codes_file(path)
    if file.header.volume is None:
        raise ImageError(f"{path}: holds an image, expected a volume; use oasisvq.load_image")
    return nifti_of(decode_read(file, path, model, max_pixels))


def nifti_of(scan: Scan) -> "Nifti1Image":
    """The voxels of a volume with its geometry, as the `.nii` file that `decode` writes would load."""
    from nibabel.nifti1 import Nifti1Image
    from nibabel.nifti2 import Nifti2Image

    from oasisvq.scans.geometry import Form

    assert scan.placement is not None
    geometry = scan.placement.geometry.as_single()
    gap = bytes(geometry.offset_written - len(geometry.content))  # no extensions
    voxels = scan.voxels.astype(geometry.dtype, copy=False).tobytes(order="F")
    kind = Nifti2Image if geometry.form is Form.NIFTI2 else Nifti1Image
    image: Nifti1Image = kind.from_bytes(geometry.content + gap + voxels)
    return image


def load_image(
    path: Path, model: Path | None, place: int | None, max_pixels: int = DEFAULT_MAX_PIXELS
) -> Image.Image:
    """See `oasisvq.load_image`."""
    file = read_codes_file(path)
    slices = file.header.slices
    if place is None and slices > 1:
        raise ImageError(
            f"{path}: holds {slices} slices, expected an image; choose one with `place`, or use "
            "oasisvq.load_volume"
        )
    place = place or 0
    if not 0 <= place < slices:
        raise ImageError(f"{path}: slice {place}, expected 0 to {slices - 1}")
    return Image.fromarray(grey_planes(decode_read(file, path, model, max_pixels))[place])


def grey_planes(scan: Scan) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """Planes (slices, H, W) as grey levels of 8 or 16 bits.

    Whole values from 0 to 65,535 stay as they are. Other values are scaled, so that the darkest value of
    the scan is 0 and the brightest is 65,535.
    """
    planes = scan.planes
    if planes.dtype == np.uint8:
        return planes.astype(np.uint8, copy=False)
    low, high = float(planes.min()), float(planes.max())
    if planes.dtype.kind in "iu" and low >= 0 and high <= _BRIGHTEST:
        return planes.astype(np.uint16)
    scaled = (planes.astype(np.float64) - low) * (_BRIGHTEST / ((high - low) or 1.0))
    return np.rint(scaled).astype(np.uint16)
