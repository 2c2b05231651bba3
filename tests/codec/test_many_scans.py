"""Many scans at once, and indices that no file holds."""

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import AFFINE, draw_head, draw_volume
from PIL import Image

import oasisvq
from oasisvq.errors import CodesFileError, ImageError, ModelError, OasisVQError


@pytest.fixture
def codec(model: Path) -> oasisvq.Codec:
    return oasisvq.load(model)


@pytest.mark.parametrize("jobs", [1, 2])
def test_many_are_the_same_bytes_as_one_by_one(
    model_file: Path, tmp_path: Path, rng: np.random.Generator, jobs: int
) -> None:
    codec = oasisvq.load(model_file)
    planes = [draw_head(rng), draw_head(rng, 50, 72)]
    Image.fromarray(planes[1]).save(tmp_path / "a.png")
    contents = codec.encode_many([planes[0], tmp_path / "a.png", str(tmp_path / "a.png")], 3, jobs=jobs)
    assert contents == [codec.encode(planes[0], 3), *[codec.encode(planes[1], 3)] * 2]
    (tmp_path / "b.codes").write_bytes(contents[1])
    decoded = codec.decode_many([contents[0], tmp_path / "b.codes"], jobs=jobs)
    for restored, content in zip(decoded, contents, strict=False):
        np.testing.assert_array_equal(restored, codec.decode(content))


def test_an_array_of_images_is_many(codec: oasisvq.Codec, rng: np.random.Generator) -> None:
    planes = np.stack([draw_head(rng) for _ in range(2)])
    assert codec.encode_many(planes) == [codec.encode(plane) for plane in planes]


@pytest.mark.parametrize(
    ("scans", "message"),
    [
        ([np.zeros((8, 8), np.uint8), [[1, 2], [3]]], r"\[1\].*builtins.list"),
        ([torch.zeros(8, 8)], r"\[0\].*numpy"),
        ([np.zeros((8, 8), complex)], r"\[0\].*complex"),
        ("scan.png", "expected a list"),
        (7, "expected a list"),
    ],
)
def test_what_cannot_be_encoded_is_named(
    codec: oasisvq.Codec, scans: list[object], message: str
) -> None:
    with pytest.raises(ImageError, match=message):
        codec.encode_many(scans)  # type: ignore[arg-type]


def test_many_refuse_what_one_refuses(codec: oasisvq.Codec) -> None:
    with pytest.raises(ModelError, match="quality 9"):
        codec.encode_many([], 9)
    with pytest.raises(OasisVQError, match="jobs 0"):
        codec.encode_many([], jobs=0)
    with pytest.raises(CodesFileError, match=r"\[1\].*truncated|\[1\].*not a"):
        codec.decode_many([codec.encode(np.eye(9, dtype=np.uint8)), b"half"])
    with pytest.raises(CodesFileError, match=r"builtins\.int"):
        codec.decode_many([3])  # type: ignore[list-item]


def test_codebooks_cannot_be_changed(codec: oasisvq.Codec) -> None:
    assert codec.codebooks.shape == (3, 20, 6)
    with pytest.raises(ValueError, match="read-only"):
        codec.codebooks[0, 0, 0] = 1
    assert codec.file.codebooks.flags.writeable  # only the view is closed


def test_latents_of_volumes_and_lists(codec: oasisvq.Codec, rng: np.random.Generator) -> None:
    plane, voxels = draw_head(rng), draw_volume(rng, draw=draw_head)
    volume = codec.latents(voxels, affine=AFFINE)
    assert volume.shape == (6, 5, 6, 6)
    if codec.file.volumes is None:  # else they have other slices before them
        np.testing.assert_array_equal(volume[4], volume[5])  # both empty
    single, other = codec.latents([plane, plane])
    np.testing.assert_array_equal(single, codec.latents(plane))
    np.testing.assert_array_equal(single, other)
    with pytest.raises(ImageError, match=r"\[0\].*list"):
        codec.latents([[1, 2], [3]])  # type: ignore[list-item]


def test_vectors_are_summed_over_levels(
    codec: oasisvq.Codec, tmp_path: Path, rng: np.random.Generator
) -> None:
    indices = rng.integers(0, 20, (2, 3, 5, 6))
    vectors = codec.embed(indices)
    assert vectors.shape == (2, 5, 6, 6)
    expected = sum(codec.codebooks[level][indices[1, level, 4, 5]] for level in range(3))
    np.testing.assert_array_equal(vectors[1, 4, 5], expected)
    indices[:, 1:] = 65_535
    np.testing.assert_array_equal(codec.embed(indices), codec.embed(indices[:, :1]))


def test_indices_decode_as_their_file_does(
    codec: oasisvq.Codec, model: Path, tmp_path: Path, rng: np.random.Generator
) -> None:
    for name, content in (
        ("image", codec.encode(draw_head(rng, 50, 72).astype(np.uint16) * 9, 3)),
        ("volume", codec.encode(draw_volume(rng, draw=draw_head), 2, affine=AFFINE)),
    ):
        (tmp_path / name).write_bytes(content)
        codes = oasisvq.read_codes(tmp_path / name, model)
        expected = codec.decode_codes(codes._replace(header=codes.header.of_indices), name).voxels
        np.testing.assert_array_equal(codec.decode_indices(codes.indices, codes.header), expected)
    codes = oasisvq.read_codes(tmp_path / "image", model)
    one = codec.decode_indices(codes.indices[:1], codes.header)
    assert one.dtype == np.uint16
    assert one.shape == (50, 72)


def test_generated_grids_become_images(codec: oasisvq.Codec, rng: np.random.Generator) -> None:
    grids = rng.integers(0, 20, (4, 2, 5, 6))
    planes = codec.decode_indices(grids, (64, 64))
    assert planes.shape == (4, 64, 64)
    np.testing.assert_array_equal(codec.decode_indices(grids[2], (64, 64)), planes[2])
    assert codec.decode_indices(grids[0][:, :2, :3], (16, 24)).shape == (16, 24)


@pytest.mark.parametrize(
    ("indices", "message"),
    [
        (np.full((2, 5, 6), 20), "from 20 to 20, expected 0 to 19"),
        (np.full((2, 5, 6), -1), "from -1 to -1"),
        (np.full((2, 5, 6), 65_535), "65535"),
        (np.zeros((4, 5, 6), int), "4 levels"),
        (np.zeros((2, 5, 6)), "float64"),
        (np.zeros((5, 6), int), "expected integers"),
        (np.zeros((2, 5, 7), int), "grid of 5×7"),
        (torch.zeros(2, 5, 6, dtype=torch.int64), "torch.Tensor"),
        ([[1], [2, 3]], "builtins.list"),
    ],
)
def test_indices_that_do_not_fit_are_refused(
    codec: oasisvq.Codec, indices: object, message: str
) -> None:
    with pytest.raises(CodesFileError, match=message):
        codec.decode_indices(indices, (64, 64))  # type: ignore[arg-type]
