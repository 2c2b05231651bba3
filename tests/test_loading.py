"""`.codes` files as nibabel and Pillow images, and the names of the package."""

import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
from conftest import AFFINE, Result, draw_phantom, draw_volume

import oasisvq
from oasisvq.errors import FileError, ImageError


@pytest.fixture
def volume(tmp_path: Path, model_file: Path, rng: np.random.Generator) -> Path:
    path = tmp_path / "volume.codes"
    path.write_bytes(oasisvq.load(model_file).encode(draw_volume(rng) - 5, affine=AFFINE))
    return path


def test_a_volume_is_the_image_that_decode_writes(run, volume: Path, model_file: Path) -> None:  # type: ignore[no-untyped-def]
    result: Result = run("decode", volume, "-o", "decoded.nii", "--model", model_file)
    assert result.code == 0
    written = nibabel.load("decoded.nii")
    loaded = oasisvq.load_volume(volume, model_file)
    np.testing.assert_array_equal(loaded.get_fdata(), written.get_fdata())  # type: ignore[attr-defined]
    np.testing.assert_array_equal(loaded.affine, AFFINE)
    assert loaded.header == written.header


def test_an_image_has_its_own_grey_levels(
    tmp_path: Path, model_file: Path, rng: np.random.Generator
) -> None:
    codec = oasisvq.load(model_file)
    for plane in (draw_phantom(rng), draw_phantom(rng).astype(np.uint16) * 200):
        content = codec.encode(plane)
        (tmp_path / "a.codes").write_bytes(content)
        image = oasisvq.load_image(tmp_path / "a.codes", model_file)
        np.testing.assert_array_equal(np.asarray(image), codec.decode(content))


def test_a_slice_of_a_volume_is_an_image(volume: Path, model_file: Path) -> None:
    image = oasisvq.load_image(volume, model_file, place=2)
    grey = np.asarray(image).astype(float)
    voxels = np.asarray(oasisvq.load_volume(volume, model_file).dataobj)
    scaled = (voxels - voxels.min()) / (voxels.max() - voxels.min()) * 65_535
    assert sorted(grey.ravel()) == sorted(np.rint(scaled[..., 2]).ravel())
    for place, message in ((None, "6 slices"), (6, "slice 6, expected 0 to 5")):
        with pytest.raises(ImageError, match=message):
            oasisvq.load_image(volume, model_file, place=place)


def test_what_is_not_there_or_of_another_kind_is_said(tmp_path: Path, model_file: Path) -> None:
    with pytest.raises(FileError, match="no such file"):
        oasisvq.load_volume(tmp_path / "none.codes")
    (tmp_path / "a.codes").write_bytes(oasisvq.load(model_file).encode(np.eye(9, dtype=np.uint8)))
    with pytest.raises(ImageError, match="load_image"):
        oasisvq.load_volume(tmp_path / "a.codes", model_file)


def test_every_public_name_is_found_by_tab_and_explained_by_help() -> None:
    code = (
        "import oasisvq, sys; assert 'numpy' not in sys.modules; assert set(oasisvq.__all__) <= set(dir("
        "oasisvq)); assert all(getattr(oasisvq, n).__doc__ for n in oasisvq.__all__); "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = oasisvq.nothing  # type: ignore[attr-defined]
