"""Arrays in Python: what is no image and no volume is refused by an error of ours."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import draw_phantom, draw_volume

from oasisvq.codec import container
from oasisvq.codec.codec import Codec
from oasisvq.errors import CodesFileError, ImageError, OasisVQError
from oasisvq.scans.scan import as_scan

GREY = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((256, 256, 3), np.uint8), "looks like an image in colours; expected one grey channel"),
        (np.zeros((256, 256, 4), np.uint8), "looks like an image in colours"),
        (np.zeros((4, 64, 64), np.uint8), "looks like a batch of images; expected one image"),
        (np.zeros((4, 1, 64, 64), np.uint8), r"shape \(4, 1, 64, 64\)"),
        (torch.zeros(64, 64), r"a torch\.Tensor, expected a NumPy array; pass .*\.cpu\(\)\.numpy\(\)"),
        ([[1, 2], [3, 4]], r"a builtins\.list, expected a NumPy array"),
        (GREY.astype(object), "type object"),
        (np.array("text"), "expected"),
    ],
    ids=["rgb", "rgba", "batch", "batch of torch", "tensor", "list", "objects", "text"],
)
def test_what_is_no_scan_is_refused(array: Any, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        as_scan(array)


@pytest.mark.parametrize("shape", [(40, 50, 3), (4, 20, 20)])
def test_with_a_spacing_or_an_affine_such_shapes_are_volumes(shape: tuple[int, int, int]) -> None:
    voxels = np.random.default_rng(0).integers(0, 99, shape)
    assert as_scan(voxels, spacing=(1, 1, 2)).voxels.shape == shape
    assert as_scan(voxels, affine=np.eye(4)).voxels.shape == shape
    assert as_scan(np.random.default_rng(0).integers(0, 99, (20, 20, 12))).voxels.shape == (20, 20, 12)


@pytest.mark.parametrize(
    "given",
    [
        {"spacing": (1, 1)},
        {"spacing": (1, 1, 0)},
        {"spacing": (1, 1, float("nan"))},
        {"spacing": ("a", 1, 1)},
        {"affine": np.eye(3)},
        {"affine": [[1, 2], [3]]},
        {"affine": np.full((4, 4), np.inf)},
        {"axis": 5},
        {"axis": "3"},
    ],
    ids=str,
)
def test_geometry_that_makes_no_sense_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ImageError, match="expected"):
        as_scan(draw_volume(np.random.default_rng(0)), **given)


@pytest.mark.parametrize("change", [300, -300])
@pytest.mark.parametrize("way", ["decode", "write"])
@pytest.mark.parametrize("kind", ["image", "volume"])
def test_indices_out_of_range_are_refused(model_file: Path, change: int, way: str, kind: str) -> None:
    codec, rng = Codec.load(model_file), np.random.default_rng(0)
    array = draw_phantom(rng) if kind == "image" else draw_volume(rng)
    codes = codec.codes_of(container.read(codec.encode(array), "a"))
    wrong = codes._replace(indices=codes.indices.astype(np.int64) + change)
    with pytest.raises(CodesFileError, match=r"indices from .* expected 0 to "):
        codec.decode_codes(wrong, "a") if way == "decode" else codec.write_codes(wrong)
    with pytest.raises(OasisVQError, match=r"indices of shape .* expected"):
        codec.decode_codes(codes._replace(indices=codes.indices[..., :-1]), "a")


def test_a_signalling_nan_does_not_hide_the_values_before_it() -> None:
    voxels = np.array([87, 25, 0, 4, 0, 0, 0, 0], np.float32).reshape(2, 2, 2)
    voxels.reshape(-1).view(np.uint32)[4] = 0xFF958140  # signalling: the first bit of its digits is 0
    scan = as_scan(voxels, spacing=(1, 1, 1))
    assert np.isnan(scan.voxels).sum() == 1
    assert scan.intensity == (0, 87)
