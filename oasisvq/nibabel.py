"""`.codes` files in whatever loads volumes by nibabel: `import oasisvq.nibabel`, then `nibabel.load`.

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
    """How nibabel knows `.codes` files: by their ending; it only reads them.

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
        """Not this way.

        Raises:
            ImageError: says how.
        """
        raise ImageError(f"{filename}: nibabel does not write {SUFFIX} files; use `oasisvq encode`")


if CodesImage not in all_image_classes:
    all_image_classes.append(CodesImage)
