"""A few voxels far beyond all others come back exactly, and do not rule how the rest is scaled."""

import math
from dataclasses import replace

import numpy as np
import pytest
from conftest import draw_phantom, draw_volume, tiny_model, tiny_prior
from forged import HEADER, INDICES, original, write
from numpy.typing import NDArray
from residue_models import tiny_residue

from oasisvq.codec import container
from oasisvq.codec.codec import Codec
from oasisvq.codec.entropy import pack
from oasisvq.codec.headers import CodesHeader, GroundHeader, Kind, Outliers, SampleType
from oasisvq.codec.outliers import core_of
from oasisvq.errors import CodesFileError
from oasisvq.training.weights import file_of


@pytest.fixture(scope="module")
def codec() -> Codec:
    file = file_of(tiny_model(), {}, tiny_prior())
    return Codec(file.with_residue(tiny_residue(), None, {}))


def hot_image(rng: np.random.Generator) -> NDArray[np.uint16]:
    image = draw_phantom(rng).astype(np.uint16)
    image[30, 31] = 40_000
    return image


def spiked_volume(dtype: str, rng: np.random.Generator) -> NDArray[np.generic]:
    volume = draw_volume(rng).astype(dtype)
    volume[20, 24, 1], volume[21, 24, 1], volume[20, 24, 2] = 32_767, -30_000, 9_999
    return volume


def outliers_in(content: bytes) -> Outliers | None:
    return container.read(content, "x").header.outliers


def test_the_rest_is_scaled_as_if_they_were_not_there(codec: Codec, rng: np.random.Generator) -> None:
    hot = hot_image(rng)
    cold = hot.copy()
    cold[30, 31] = hot[30, 30]
    content, without = codec.encode(hot), codec.encode(cold)
    assert len(content) == len(without) + 6  # its number, two bytes of place, three of value
    restored, expected = codec.decode(content), codec.decode(without)
    assert restored[30, 31] == 40_000
    restored[30, 31] = expected[30, 31]
    np.testing.assert_array_equal(restored, expected)
    assert container.read(content, "x").header.intensity == (0, cold.max())


@pytest.mark.parametrize("dtype", ["int16", "int64", "float32"])
@pytest.mark.parametrize("bound", [None, 0, 4])
def test_those_of_volumes_come_back_exactly(
    codec: Codec, dtype: str, bound: float | None, rng: np.random.Generator
) -> None:
    volume = spiked_volume(dtype, rng)
    content = codec.encode(volume, max_error=bound)
    outliers = outliers_in(content)
    assert outliers is not None
    assert sorted(outliers.values) == [-30_000, 9_999, 32_767]
    for levels in (None, 1):
        restored = codec.decode(content, levels=levels)
        np.testing.assert_array_equal(restored[20:22, 24, 1], (32_767, -30_000))
        assert restored[20, 24, 2] == 9_999
    if bound is not None:
        np.testing.assert_array_equal(restored == 0, volume == 0)
        difference = codec.decode(content).astype(np.float64) - volume.astype(np.float64)
        assert np.abs(difference).max() <= bound


def test_slices_of_few_voxels_go_by_the_whole_volume(rng: np.random.Generator) -> None:
    planes = np.ascontiguousarray(draw_volume(rng).transpose(2, 0, 1))
    planes[4, 3, 5:8] = (900, 30_000, 1000)
    core = core_of(planes)
    assert core.outliers == Outliers((4 * 40 * 48 + 3 * 48 + 6,), (30_000,))
    assert core.planes[4, 3, 6] == 900


@pytest.mark.parametrize("dark", [False, True])
def test_an_ordinary_scan_has_none(dark: bool, rng: np.random.Generator) -> None:
    image = draw_phantom(rng)
    noise = rng.normal(1000, 100, (40, 50, 5)).astype(np.int16)
    few = np.zeros((1, 30, 30), np.uint8)
    few[0, 4, 5:9] = (1, 2, 3, 200)
    for planes in (image[None], 255 - image[None], noise, few, np.full((1, 9, 9), 7, np.uint8)):
        given = planes if not dark else -planes.astype(np.int32)
        core = core_of(given)
        assert core.outliers is None
        np.testing.assert_array_equal(core.planes, given)
        assert core.intensity == (given.min(), given.max())


def test_many_bright_voxels_are_a_part_of_the_scan(rng: np.random.Generator) -> None:
    image = draw_phantom(rng).astype(np.uint16)
    image[30, 26:34] = 40_000
    assert core_of(image[None]).outliers is None


def test_padding_does_not_rule_the_range(codec: Codec, rng: np.random.Generator) -> None:
    volume = draw_volume(rng)
    padded = np.where(volume == 0, np.int16(-32_768), volume)
    padded[20, 24, 1] = 32_767
    content = codec.encode(padded)
    header = container.read(content, "x").header
    assert header.intensity[0] >= volume[volume != 0].min()
    restored = codec.decode(content)
    np.testing.assert_array_equal(restored == -32_768, padded == -32_768)
    assert restored[20, 24, 1] == 32_767
    np.testing.assert_array_equal(codec.decode(codec.encode(padded, max_error=0)), padded)


def test_nan_is_neither_an_outlier_nor_hides_one(codec: Codec, rng: np.random.Generator) -> None:
    volume = spiked_volume("float32", rng)
    volume[volume == 0] = np.nan
    content = codec.encode(volume)
    outliers = outliers_in(content)
    assert outliers is not None
    assert len(outliers.places) == 3
    np.testing.assert_array_equal(np.isnan(codec.decode(content)), np.isnan(volume))


def test_latents_and_other_indices_know_no_outliers(codec: Codec, rng: np.random.Generator) -> None:
    hot = hot_image(rng)
    cold = hot.copy()
    cold[30, 31] = hot[30, 30]
    np.testing.assert_array_equal(codec.latents(hot), codec.latents(cold))
    codes = codec.codes_of(container.read(codec.encode(hot), "x"))
    assert codec.decode_indices(codes.indices, codes.header).max() <= cold.max()


# --- damage ----------------------------------------------------------------------------------------


def forged(rng: np.random.Generator, sample_type: SampleType, outliers: Outliers) -> bytes:
    volume = original(rng, (2, *HEADER.shape), sample_type, ((0, 65_535), (7, 7)))
    header = replace(HEADER, kind=Kind.VOLUME, sample_type=sample_type, intensity=(5.0, 99.0))
    return write(replace(header, volume=volume, outliers=outliers), INDICES[None])


@pytest.mark.parametrize(
    ("sample_type", "places", "values", "message"),
    [
        (SampleType.INT16, (0, 1200), (1, 2), "step of outliers is 1200, expected 1 to 1199"),
        (SampleType.INT16, (1199, 1200), (1, 2), "step of outliers is 1, expected 1 to 0"),
        (SampleType.INT16, (5, 5), (1, 2), "step of outliers is 0"),
        (SampleType.INT16, (), (), "number of outliers is 0"),
        (SampleType.INT16, tuple(range(65_536)), (1,) * 65_536, "number of outliers is 65536"),
        (SampleType.INT16, (3, 4), (1, 32_768), "outliers from 1 to 32768, which are no int16"),
        (SampleType.UINT32, (3,), (-1,), "outliers from -1 to -1, which are no uint32"),
        (SampleType.INT64, (3,), (2**53 + 1,), "outlier is"),
        (SampleType.FLOAT32, (3,), (np.nan,), "outliers that are no numbers"),
        (SampleType.FLOAT64, (3,), (-np.inf,), "outliers that are no numbers"),
    ],
)
def test_forged_outliers_are_refused(
    sample_type: SampleType,
    places: tuple[int, ...],
    values: tuple[float, ...],
    message: str,
    rng: np.random.Generator,
) -> None:
    with pytest.raises(CodesFileError, match=f"^x: damaged: {message}"):
        container.read(forged(rng, sample_type, Outliers(places, values)), "x")


@pytest.mark.parametrize("sample_type", [SampleType.INT16, SampleType.FLOAT32, SampleType.UINT64])
def test_a_block_of_outliers_comes_back(sample_type: SampleType, rng: np.random.Generator) -> None:
    outliers = Outliers((0, 7, 1199), (32_767, 3, 0))
    header = container.read(forged(rng, sample_type, outliers), "x").header
    assert header.outliers == outliers
    assert header.of_indices.outliers is None


def laid_beside(header: CodesHeader) -> bytes:
    return container.write(header, pack(INDICES, 20))


def test_labels_and_ground_are_no_outliers(codec: Codec, rng: np.random.Generator) -> None:
    outliers = Outliers((3,), (200,))
    labels = replace(HEADER, labels=(0, 9), intensity=(0, 1), outliers=outliers)
    with pytest.raises(CodesFileError, match="labels with a ground, a residue or outliers"):
        container.read(laid_beside(labels), "x")
    with pytest.raises(CodesFileError, match="an outlier of the value of the ground"):
        container.read(laid_beside(replace(HEADER, ground=GroundHeader(200, 0), outliers=outliers)), "x")
    volume = spiked_volume("int16", rng)
    file = container.read(codec.encode(volume, max_error=0), "x")
    in_ground = replace(file.header, outliers=Outliers((0,), (200,)))
    with pytest.raises(CodesFileError, match=r"^codes: damaged: an outlier where ground is"):
        codec.decode(container.write(in_ground, file.payload, file.beside))


def test_an_outlier_after_nan_or_padding_does_not_become_it(rng: np.random.Generator) -> None:
    planes = rng.normal(1000, 50, (3, 40, 40))
    for nothing, dtype in ((math.nan, np.float32), (-32000, np.int16)):
        stored = planes.astype(dtype)
        stored[:, :10] = nothing
        darkest, brightest = stored[:, 10:].min(), stored[:, 10:].max()
        stored[1, 10, 0] = 30000
        core = core_of(stored)
        assert core.outliers is not None and core.outliers.values == (30000,)
        assert core.is_padded
        assert darkest <= core.intensity[0] <= core.intensity[1] <= brightest
