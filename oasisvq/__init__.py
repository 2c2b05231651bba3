"""oasisvq: a VQ-VAE codec for brain MRI, trained on OASIS.

    codec = oasisvq.load()
    content = codec.encode(array)            # (H, W) uint8 or uint16 -> bytes of a .codes file
    content = codec.encode(voxels, spacing=(1, 1, 1.25))  # or a volume (X, Y, Z), or a label map
    restored = codec.decode(content)         # -> an array of the same shape and type
    codes = oasisvq.read_codes("scan.codes")  # .indices (levels, h, w), .header; without torch
    codes.header.volume.geometry             # for a volume; its indices are (slices, levels, h, w)
    codes.label_map                          # for labels, which come back exactly

    content = codec.encode_stack(images, names)  # slices of a subject: one file, half as large
    contents = codec.encode_many(arrays_or_paths, jobs=2)   # and decode_many
    codec.latents(array), codec.codebooks    # (h, w, D), (levels, K, D)
    codec.embed(codes.indices)               # (h, w, D), vectors summed over levels
    codec.decode_indices(changed, codes.header)   # pixels of changed or generated indices
    oasisvq.load_volume("scan.codes")        # a nibabel image
    oasisvq.load_image("slice.codes")        # a Pillow image

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
    from nibabel.nifti1 import Nifti1Image
    from PIL.Image import Image

    from oasisvq.codec.codec import Codec
    from oasisvq.codec.codes import Codes
    from oasisvq.codec.content import Content
    from oasisvq.codec.headers import Coder, CodesHeader

__version__ = "0.1.0"

__all__ = [
    "Codec",
    "Coder",
    "Codes",
    "CodesFileError",
    "CodesHeader",
    "Content",
    "DatasetError",
    "FileError",
    "ImageError",
    "ModelError",
    "OasisVQError",
    "OtherModelError",
    "TrainingError",
    "__version__",
    "load",
    "load_image",
    "load_volume",
    "read_codes",
]

_NAMED_IN = {  # the module of each class, imported when it is asked for
    "Codec": "oasisvq.codec.codec",
    "Coder": "oasisvq.codec.headers",
    "Codes": "oasisvq.codec.codes",
    "CodesHeader": "oasisvq.codec.headers",
    "Content": "oasisvq.codec.content",
}


def __getattr__(name: str) -> object:
    if name not in _NAMED_IN:
        raise AttributeError(f"module 'oasisvq' has no attribute {name!r}")
    from importlib import import_module

    found: object = getattr(import_module(_NAMED_IN[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def load(path: Path | str | None = None) -> Codec:
    """The codec of a model file or run folder; see `oasisvq.codec.codec.Codec.load`.

    If `path` is None: `$OASISVQ_MODEL`, else the model of a finished `oasisvq train` in the working
    folder, else the bundled model.
    """
    from oasisvq.codec.codec import Codec
    from oasisvq.models import choose_model

    return Codec.load(choose_model(None if path is None else Path(path), Path.cwd()).path)


def read_codes(
    path: Path | str, model: Path | str | None = None, max_pixels: int | None = None
) -> Codes:
    """Header and indices of a `.codes` file, or its labels, without torch; see `Codes`.

    Packed files and files of labels need no model. A file coded with a prior needs the model that made
    it, which is found by its fingerprint. Files beyond `max_pixels` (as in the commands) are refused.
    """
    from oasisvq.models import read_codes as read
    from oasisvq.scans.limits import DEFAULT_MAX_PIXELS

    return read(Path(path), None if model is None else Path(model), max_pixels or DEFAULT_MAX_PIXELS)


def load_volume(
    path: Path | str, model: Path | str | None = None, max_pixels: int | None = None
) -> Nifti1Image:
    """The volume of a `.codes` file as a nibabel image, decoded into memory.

    Args:
        path: the file.
        model: the model that made the file; if None, it is found by the fingerprint in the file.
        max_pixels: the limit of a slice, as in the commands.

    Returns:
        The image that `nibabel.load` gives for the `.nii` written by `oasisvq decode`: the same voxels,
        header and affine; a `Nifti2Image` for a NIfTI-2 file.

    Raises:
        FileError: missing or unreadable.
        CodesFileError: damaged, or made with a model that is not found.
        ImageError: it holds an image, or more than `max_pixels`.
    """
    from oasisvq.loading import load_volume as load_it
    from oasisvq.scans.limits import DEFAULT_MAX_PIXELS

    return load_it(Path(path), None if model is None else Path(model), max_pixels or DEFAULT_MAX_PIXELS)


def load_image(
    path: Path | str,
    model: Path | str | None = None,
    place: int | None = None,
    max_pixels: int | None = None,
) -> Image:
    """The image of a `.codes` file, or one slice of its volume, as a Pillow image.

    Args:
        path: the file.
        model: the model that made the file; if None, it is found by the fingerprint in the file.
        place: which slice of a volume to take, from 0.
        max_pixels: the limit of a slice, as in the commands.

    Returns:
        An image of mode `L` or `I;16`. Images keep their grey levels. So do slices of volumes whose
        values are whole numbers from 0 to 65,535; other slices are scaled to that range.

    Raises:
        FileError: missing or unreadable.
        CodesFileError: damaged, or made with a model that is not found.
        ImageError: there are several slices but no `place`, there is no such slice, or it has more than
            `max_pixels`.
    """
    from oasisvq.loading import load_image as load_it
    from oasisvq.scans.limits import DEFAULT_MAX_PIXELS

    named = None if model is None else Path(model)
    return load_it(Path(path), named, place, max_pixels or DEFAULT_MAX_PIXELS)
