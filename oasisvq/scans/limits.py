"""How large a scan may be before it is read: one limit for every kind of file. Imports no NumPy.

A few bytes of a file can claim any size, so the size is compared with the limit before any pixels are
decoded. A volume passes through the networks slice by slice, an image as a whole. So a volume may have
`VOXELS_A_PIXEL` times as many voxels as an image may have pixels: by default 512×512×512 and 4096×4096.
"""

import math
from collections.abc import Sequence

from oasisvq.errors import ImageError

MAX_FILE_BYTES = 2**30  # of an image, a DICOM file or a `.codes` file
MAX_SIDE, MAX_PIXELS, MAX_VOXELS = 65_535, 2**26, 2**30  # of a `.codes` file; pixels per slice
DEFAULT_MAX_PIXELS = 2**24
VOXELS_A_PIXEL = 8
MAX_TRAINING_SIDE = 4096  # side in pixels of a dataset's slices, and of its model's samples
FORMAT_MAX_PIXELS = MAX_VOXELS // VOXELS_A_PIXEL  # with this, only the limits of `.codes` files apply


def refuse_large_image(sides: Sequence[int], what: str, max_pixels: int = DEFAULT_MAX_PIXELS) -> None:
    """Raise for an image, or a slice of a volume, beyond a limit.

    Args:
        sides: width and height.
        what: what messages begin with.
        max_pixels: the limit.

    Raises:
        ImageError: it has more pixels than the limit, or than a `.codes` file holds.
    """
    _refuse(sides, what, "pixels", max_pixels, MAX_PIXELS)


def refuse_large_volume(sides: Sequence[int], what: str, max_pixels: int = DEFAULT_MAX_PIXELS) -> None:
    """Raise for a volume beyond a limit.

    Args:
        sides: in voxels, in any order.
        what: what messages begin with; empty if the caller names it.
        max_pixels: the limit of an image; a volume may have `VOXELS_A_PIXEL` times as many voxels.

    Raises:
        ImageError: it has more voxels than the limit, or than a `.codes` file holds.
    """
    _refuse(sides, what, "voxels", max_pixels, MAX_VOXELS, VOXELS_A_PIXEL)


def _refuse(
    sides: Sequence[int], what: str, unit: str, max_pixels: int, most: int, share: int = 1
) -> None:
    count, shown = math.prod(sides), "×".join(str(side) for side in sides)
    found = f"{what}: {shown} {unit}" if what else f"{shown} {unit}"
    if count > most or max(sides) > MAX_SIDE:
        raise ImageError(
            f"{found}, more than the limit of {most:,} that a .codes file holds (sides up to "
            f"{MAX_SIDE:,}); cut or shrink it first"
        )
    if count > share * max_pixels:
        raise ImageError(
            f"{found}, more than the limit of {share * max_pixels:,}; cut or shrink it first, or if you "
            f"trust it pass --max-pixels {math.ceil(count / share)}"
        )
