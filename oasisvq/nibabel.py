"""Lets nibabel load `.codes` files: `import oasisvq.nibabel`, then `nibabel.load("scan.codes")`.

Never imports torch. What is loaded is the `Nifti1Image` or `Nifti2Image` of `oasisvq.load_volume`.
"""

from pathlib import Path
from typing import Any

from nibabel.imageclasses import all_image_classes
from nibabel.nifti1 import Nifti1Image
from nibabel.spatialimages import SpatialImage

from oasisvq.codec.container import SUFFIX
from oasisvq.errors import ImageError
from oasisvq.loading import load_volume


class CodesImage(SpatialImage):
    """Tells nibabel about `.codes` files: it recognises them by their ending, and can only read them.

    The model is found by the fingerprint in the file. Loading raises the errors of `load_volume`.
    """

    files_types = (("image", SUFFIX),)
    valid_exts = (SUFFIX,)
    makeable = rw = False

    @classmethod
    def from_filename(cls, filename: Any) -> Nifti1Image:  # type: ignore[override]  # noqa: ANN401
        """The volume of a file."""
        return load_volume(Path(filename), None)

    def to_filename(self, filename: Any, **options: Any) -> None:  # noqa: ANN401
        """Not supported: nibabel only reads `.codes` files.

        Raises:
            ImageError: always; it names `oasisvq encode`.
        """
        raise ImageError(f"{filename}: nibabel does not write {SUFFIX} files; use `oasisvq encode`")


if CodesImage not in all_image_classes:
    all_image_classes.append(CodesImage)
