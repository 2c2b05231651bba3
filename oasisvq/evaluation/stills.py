"""Planes of 10 bits <-> one image file each, by imagecodecs: volumes as image coders see them.

Shapes: S slices, H×W slice.
"""

from importlib import import_module
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Planes = NDArray[np.uint16]

BITS = 10


class StillCoder(NamedTuple):
    """An image coder as imagecodecs names it.

    Attributes:
        name: of its functions.
        options: of its encoder, except the quality.
    """

    name: str
    options: dict[str, str | int]

    @property
    def is_installed(self) -> bool:
        """Whether imagecodecs is installed and contains this coder."""
        try:
            return bool(getattr(import_module("imagecodecs"), self.name.upper()).available)
        except (ImportError, AttributeError):
            return False

    def encode(self, planes: Planes, quality: float) -> list[bytes]:
        """One file for each of the planes (S, H, W); imagecodecs calls the `quality` level."""
        encode = getattr(import_module("imagecodecs"), f"{self.name}_encode")
        options = {"bitspersample": BITS, "numthreads": 1} | self.options
        return [bytes(encode(np.ascontiguousarray(plane), quality, **options)) for plane in planes]

    def decode(self, files: list[bytes], shape: tuple[int, ...]) -> Planes:
        """The inverse of `encode`; `shape` is (S, H, W)."""
        decode = getattr(import_module("imagecodecs"), f"{self.name}_decode")
        planes: Planes = np.stack([decode(file) for file in files]).reshape(shape)
        return planes


# not AVIF: imagecodecs codes grey of 10 bits losslessly at every quality
JPEG_XL = StillCoder("jpegxl", {"effort": 7})
JPEG_2000 = StillCoder("jpeg2k", {"reversible": False, "codecformat": "j2k"})
