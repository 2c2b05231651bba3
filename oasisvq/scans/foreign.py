"""Formats of the field that are not read: what they are, and how to convert them.

Never imports torch.
"""

from collections.abc import Sequence
from pathlib import Path

from oasisvq.errors import ImageError

_C3D = "convert it to NIfTI first (such as with `c3d in -o out.nii.gz`)"
_AFNI = "convert it to NIfTI first (such as with `3dAFNItoNIFTI`)"
_PHILIPS = "convert it to NIfTI first (such as with `dcm2niix` or `parrec2nii`)"
_CIFTI = "take its volume out first (such as with `wb_command -cifti-separate`)"
_NO_VOXELS = "it holds no voxels; name the volume that it was made from"

# Ending -> what the format is called, and what to do.
_FOREIGN = {
    **dict.fromkeys((".nrrd", ".nhdr"), ("NRRD", _C3D)),
    **dict.fromkeys((".mha", ".mhd"), ("MetaImage", _C3D)),
    **dict.fromkeys((".brik", ".brik.gz", ".head"), ("AFNI's BRIK and HEAD", _AFNI)),
    **dict.fromkeys((".par", ".rec"), ("Philips PAR and REC", _PHILIPS)),
    **dict.fromkeys((".gii", ".gii.gz"), ("GIFTI, a surface or values on one", _NO_VOXELS)),
    **dict.fromkeys(
        (".pial", ".white", ".inflated", ".sphere", ".orig", ".smoothwm"),
        ("a surface of FreeSurfer", _NO_VOXELS),
    ),
    **dict.fromkeys(
        (".annot", ".curv", ".sulc", ".thickness", ".area", ".avg_curv"),
        ("values on a surface of FreeSurfer", _NO_VOXELS),
    ),
}
_CIFTI_WORDS = tuple(f".{kind}.nii" for kind in ("dscalar", "dtseries", "dlabel", "dconn", "pconn"))
_CIFTI_INTENTS = range(3000, 3100)
_LONGEST_ROW = 4096  # voxels in a row, one wide and one high, that may be a volume


def refuse_foreign(path: Path) -> None:
    """Raise for a file whose name is that of a format which is not read.

    Raises:
        ImageError: names the format and what to do.
    """
    name = path.name.lower()
    found = next((told for ending, told in _FOREIGN.items() if name.endswith(ending)), None)
    if found:
        raise ImageError(f"{path}: {found[0]}, which is not read; {found[1]}")


def refuse_no_volume(shape: Sequence[int], intent: int = 0, name: str = "") -> None:
    """Raise for the header of a volume file that holds no volume: CIFTI, or values in a row.

    Args:
        shape: of the stored array.
        intent: NIfTI's intent code.
        name: of the file.

    Raises:
        ImageError: says what it is.
    """
    if intent in _CIFTI_INTENTS or name.lower().endswith(_CIFTI_WORDS):
        raise ImageError(f"CIFTI, values on surfaces and in structures, which is not read; {_CIFTI}")
    first, second, third = sorted((*shape, 1, 1, 1)[:3])
    if first == second == 1 and third > _LONGEST_ROW:
        raise ImageError(
            f"{third:,} values in a row, such as statistics on a surface, and no volume; {_NO_VOXELS}"
        )
