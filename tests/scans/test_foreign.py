"""Formats of the field that are not read are named, with what people convert them with."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from oasisvq.errors import ImageError
from oasisvq.scans.scan import read_scan
from oasisvq.scans.source import source_at

FOREIGN = {
    "a.nrrd": "NRRD.*c3d",
    "a.nhdr": "NRRD.*c3d",
    "a.mha": "MetaImage.*c3d",
    "a.MHD": "MetaImage.*c3d",
    "a+orig.BRIK": "BRIK and HEAD.*3dAFNItoNIFTI",
    "a+orig.BRIK.gz": "BRIK and HEAD.*3dAFNItoNIFTI",
    "a+orig.HEAD": "BRIK and HEAD.*3dAFNItoNIFTI",
    "a.PAR": "PAR and REC.*dcm2niix",
    "a.rec": "PAR and REC.*dcm2niix",
    "lh.surf.gii": "GIFTI.*no voxels",
    "lh.pial": "a surface.*no voxels",
    "rh.thickness": "values on a surface.*no voxels",
}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_foreign_format_is_named_with_its_converter(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"NRRD0004\n" + bytes(400))
    with pytest.raises(ImageError, match=FOREIGN[name]) as caught:
        read_scan(source_at(tmp_path / name))
    assert str(caught.value).startswith(f"{tmp_path / name}: ")


def test_cifti_is_named_by_its_intent(tmp_path: Path) -> None:
    image = nib.Nifti2Image(np.zeros((1, 1, 1, 1, 3, 91), np.float32), np.eye(4))
    image.header["intent_code"] = 3006
    image.to_filename(tmp_path / "scalars.nii")
    with pytest.raises(ImageError, match=r"CIFTI.*wb_command -cifti-separate"):
        read_scan(source_at(tmp_path / "scalars.nii"))


def test_cifti_is_named_by_its_name(tmp_path: Path) -> None:
    nib.Nifti2Image(np.zeros((1, 1, 3, 91), np.float32), np.eye(4)).to_filename(
        tmp_path / "a.dscalar.nii"
    )
    with pytest.raises(ImageError, match="CIFTI"):
        read_scan(source_at(tmp_path / "a.dscalar.nii"))


@pytest.mark.parametrize("name", ["lh.thickness.mgh", "stat.nii.gz"])
def test_values_on_a_surface_are_no_volume_that_is_too_large(tmp_path: Path, name: str) -> None:
    values = np.random.default_rng(0).normal(size=(163_842, 1, 1)).astype(np.float32)
    kind = nib.MGHImage if name.endswith("mgh") else nib.Nifti2Image
    kind(values, np.eye(4)).to_filename(tmp_path / name)
    with pytest.raises(ImageError, match="163,842 values in a row, such as statistics on a surface"):
        read_scan(source_at(tmp_path / name))
