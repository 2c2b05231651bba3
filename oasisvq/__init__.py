"""oasisvq: a VQ-VAE codec for brain MRI, trained on OASIS.

    codec = oasisvq.load()
    content = codec.encode(array)            # (H, W) uint8 or uint16 -> bytes of a .codes file
    content = codec.encode(voxels, spacing=(1, 1, 1.25))  # or a volume (X, Y, Z), or a label map
    restored = codec.decode(content)         # -> an array of the same shape and type
    codes = oasisvq.read_codes("scan.codes")  # .indices (levels, h, w), .header; without torch
    codes.header.volume.geometry             # of a volume, whose indices are (slices, levels, h, w)
    codes.label_map                          # of labels, which come back exactly

Importing the package is instant; none of this imports torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from oasisvq.errors import (
    CodesFileError,
    DatasetError,
    FileError,
    ImageError,
    ModelError,
    OasisVQError,
    OtherModelError,
    TrainingError,
)

if TYPE_CHECKING:
    from oasisvq.codec.codec import Codec
    from oasisvq.codec.codes import Codes

__version__ = "0.1.0"

__all__ = [
    "CodesFileError",
    "DatasetError",
    "FileError",
    "ImageError",
    "ModelError",
    "OasisVQError",
    "OtherModelError",
    "TrainingError",
    "__version__",
    "load",
    "read_codes",
]


def load(path: Path | str | None = None) -> Codec:
    """The codec of a model file or run folder; see `oasisvq.codec.codec.Codec.load`.

    Where `path` is None: `$OASISVQ_MODEL`, else the model that a finished `oasisvq train` left in the
    working folder, else the bundled one.
    """
    from oasisvq.codec.codec import Codec
    from oasisvq.models import choose_model

    return Codec.load(choose_model(None if path is None else Path(path), Path.cwd()).path)


def read_codes(
    path: Path | str, model: Path | str | None = None, max_pixels: int | None = None
) -> Codes:
    """Header and indices of a `.codes` file, or its labels, without torch; see `Codes`.

    A packed file, and one of labels, needs no model; one coded with a prior needs that of the model that
    made it, which is found by its fingerprint. Beyond `max_pixels`, as of the commands, it is refused.
    """
    from oasisvq.models import read_codes as read
    from oasisvq.scans.limits import DEFAULT_MAX_PIXELS

    return read(Path(path), None if model is None else Path(model), max_pixels or DEFAULT_MAX_PIXELS)
