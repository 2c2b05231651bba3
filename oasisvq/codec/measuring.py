"""How near what a codec decodes is to what was given to it. Never imports torch."""

import numpy as np
from numpy.typing import NDArray

from oasisvq.codec.batches import Batches
from oasisvq.codec.measure import Measure, measure
from oasisvq.errors import ImageError
from oasisvq.scans.limits import DEFAULT_MAX_PIXELS
from oasisvq.scans.scan import as_scan


class Measuring(Batches):
    """The part of `Codec` that measures what it keeps."""

    def measure(
        self,
        array: NDArray[np.generic],
        content: bytes,
        *,
        spacing: tuple[float, float, float] | None = None,
        affine: NDArray[np.float64] | None = None,
        axis: str | None = None,
        max_pixels: int = DEFAULT_MAX_PIXELS,
    ) -> Measure:
        """What is left of an array in the bytes of its `.codes` file, as the commands say it.

        Args:
            array: that was encoded: (H, W), or a volume (X, Y, Z).
            content: of the file.
            spacing: that was given with a volume, see `encode`.
            affine: in place of `spacing`.
            axis: that slices follow, in which SSIM is taken; that of the encoding.
            max_pixels: see `decode`.

        Raises:
            ImageError: the array cannot be encoded, or the file is of another shape.
            CodesFileError: see `decode`.
        """
        scan = as_scan(array, spacing, affine, axis)
        restored = self.decode(content, max_pixels)
        if restored.shape != array.shape:
            raise ImageError(f"an array of shape {array.shape}, but its file holds {restored.shape}")
        planes = scan.placement.slicing.planes(restored) if scan.placement else restored[None]
        return measure(scan, planes)
