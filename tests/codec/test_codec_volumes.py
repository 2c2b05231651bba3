"""Volumes in Python: encode and decode arrays."""

from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
from conftest import AFFINE, draw_head, draw_volume

import oasisvq
from oasisvq.codec import container
from oasisvq.codec.codec import Codec
from oasisvq.codec.codes import NO_INDEX
from oasisvq.codec.content import Content
from oasisvq.codec.wish import Wish
from oasisvq.errors import ImageError
from oasisvq.scans.scan import read_scan
from oasisvq.scans.source import source_at


def test_a_volume_is_smaller_than_its_slices(rng: np.random.Generator, prior_model_file: Path) -> None:
    codec = oasisvq.load(prior_model_file)
    voxels = draw_volume(rng, 12)
    whole = codec.encode(voxels, affine=AFFINE)
    low, high = voxels.min(), voxels.max()
    single = 0
    for place in range(12):
        plane = np.rint((voxels[..., place] - low) * (255 / (high - low))).astype(np.uint8)
        single += len(codec.encode(plane, content=Content.SCAN))
    assert len(whole) < single


def test_indices_and_geometry_in_python(tmp_path: Path, rng: np.random.Generator, model: Path) -> None:
    codec = oasisvq.load(model)
    voxels = draw_volume(rng).astype(np.float32)
    content = codec.encode(voxels, spacing=(1.0, 1.0, 1.25), content=Content.SCAN)
    (tmp_path / "a.codes").write_bytes(content)
    codes = oasisvq.read_codes(tmp_path / "a.codes", model)
    header = codes.header
    assert codes.indices.shape == (6, *header.grid_shape)
    assert (codes.indices[-2:] == NO_INDEX).all()
    assert (codes.indices[:4] < header.codebook_size).all()
    assert header.volume is not None
    assert header.volume.geometry.zooms == (1.0, 1.0, 1.25)
    restored = codec.decode(content)
    assert (restored.shape, restored.dtype) == (voxels.shape, np.float32)
    assert codec.decode(codec.write_codes(codes)).tolist() == restored.tolist()


def test_each_slice_comes_back_in_its_own_range(rng: np.random.Generator, model_file: Path) -> None:
    codec = oasisvq.load(model_file)
    voxels = draw_volume(rng)
    voxels[..., 2] = 77
    voxels[..., 3] //= 50
    restored = codec.decode(codec.encode(voxels, affine=AFFINE))
    assert (restored[..., 2] == 77).all()
    for place in range(6):
        assert voxels[..., place].min() - 1 <= restored[..., place].min()
        assert restored[..., place].max() <= voxels[..., place].max() + 1


def test_negative_and_huge_values_are_no_errors(rng: np.random.Generator, model_file: Path) -> None:
    codec = oasisvq.load(model_file)
    for low, scale in ((-1e6, 1.0), (-1e30, 1e28), (1e-30, 1e-32)):
        voxels = (low + scale * draw_volume(rng)).astype(np.float64)
        restored = codec.decode(codec.encode(voxels, affine=AFFINE, content=Content.SCAN))
        assert np.isfinite(restored).all()
        assert voxels.min() <= restored.min() <= restored.max() <= voxels.max()


def test_an_axis_is_one_of_the_known(rng: np.random.Generator, model_file: Path) -> None:
    codec = oasisvq.load(model_file)
    for axis in (0, 1, "7", "foo"):
        with pytest.raises(ImageError, match="axis"):
            codec.encode(draw_volume(rng), axis=axis)  # type: ignore[arg-type]


def test_arrays_in_another_byte_order_are_taken(rng: np.random.Generator, model_file: Path) -> None:
    codec = oasisvq.load(model_file)
    voxels = draw_volume(rng)
    content = codec.encode(voxels.astype(">i2"), affine=AFFINE)
    np.testing.assert_array_equal(
        codec.decode(content), codec.decode(codec.encode(voxels, affine=AFFINE))
    )


def damaged_headers(content: bytes, codec: Codec) -> list[bytes]:
    """The file with other header bytes and a right CRC."""
    file = container.read(content, "x")
    volume = file.header.volume
    assert volume is not None
    damaged = []
    for place in range(40, 80, 3):
        header = bytearray(volume.content)
        header[place] ^= 0x41
        changed = replace(file.header, volume=replace(volume, content=bytes(header)))
        damaged.append(container.write(changed, file.payload, file.beside))
    return damaged


def test_a_geometry_that_does_not_fit_is_refused(rng: np.random.Generator, model_file: Path) -> None:
    codec = oasisvq.load(model_file)
    refused = 0
    for content in damaged_headers(codec.encode(draw_volume(rng, draw=draw_head), affine=AFFINE), codec):
        try:
            assert codec.decode(content).shape == (40, 48, 6)
        except oasisvq.CodesFileError as error:
            assert "damaged" in str(error)
            refused += 1
    assert refused >= 4


def test_real_volumes_keep_their_geometry(shared_data: Path, model_file: Path, tmp_path: Path) -> None:
    from oasisvq.scans.scan import write_scan

    codec = oasisvq.load(model_file)
    names = ("oasis1_skull_stripped/1018_SS.nii.gz", "analyze/single_subj_T1.img", "nifti_pair/ras.hdr")
    for name in names:
        path = shared_data / "volumes" / name
        scan = read_scan(source_at(path))
        file = container.read(codec.encode_scan(scan, Wish(content=Content.SCAN)), name)
        restored = codec.decode_codes(codec.codes_of(file), name)
        suffix = ".nii.gz" if name.endswith(".nii.gz") else ".img"
        write_scan(restored, tmp_path / f"x{suffix}")
        before, after = nibabel.load(path), nibabel.load(tmp_path / f"x{suffix}")
        np.testing.assert_array_equal(after.affine, before.affine)
        assert (after.shape, after.get_data_dtype()) == (before.shape, before.get_data_dtype())
        assert (after.dataobj.slope, after.dataobj.inter) == (before.dataobj.slope, before.dataobj.inter)


def test_an_array_of_another_kind_is_refused(model_file: Path) -> None:
    codec = oasisvq.load(model_file)
    for array in (np.zeros((2, 3, 4, 5)), np.zeros((4, 4, 4), complex), np.zeros((0, 4, 4))):
        with pytest.raises(ImageError, match="expected"):
            codec.encode(array)
    with pytest.raises(ImageError, match="no spacing"):
        codec.encode(np.zeros((9, 9), np.uint8), spacing=(1, 1, 1))
