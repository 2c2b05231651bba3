"""Files with an exact ground and with a bound for every voxel."""

import dataclasses
import math

import numpy as np
import pytest
from conftest import draw_phantom, draw_volume, tiny_model, tiny_prior
from numpy.typing import NDArray
from residue_models import tiny_residue, tiny_support

from oasisvq.codec import container
from oasisvq.codec.codec import Codec
from oasisvq.codec.content import Content
from oasisvq.codec.ground import ground_of, stands_out
from oasisvq.codec.headers import Coder
from oasisvq.errors import CodesFileError, ImageError, ModelError
from oasisvq.training.weights import file_of


@pytest.fixture(scope="module")
def codec() -> Codec:
    file = file_of(tiny_model(), {}, tiny_prior())
    return Codec(file.with_residue(tiny_residue(), tiny_support(), {}))


def images(rng: np.random.Generator) -> dict[str, NDArray[np.generic]]:
    phantom = draw_phantom(rng)
    spiked = phantom.astype(np.uint16)
    spiked[10, 60] = 65_535
    return {
        "phantom": phantom,
        "uint16": phantom.astype(np.uint16) * 257,
        "noise": rng.integers(0, 256, (33, 47), np.uint8),
        "constant": np.full((20, 30), 7, np.uint8),
        "one pixel": np.full((1, 1), 9, np.uint8),
        "one row": rng.integers(0, 65_536, (1, 50), np.uint16),
        "two values": (rng.random((40, 40)) < 0.5).astype(np.uint8) * 255,
        "bright ground": 255 - phantom,
        "a spike": spiked,
    }


NAMES = sorted(images(np.random.default_rng(7)))


def farthest(first: NDArray[np.generic], second: NDArray[np.generic]) -> float:
    assert first.dtype == second.dtype
    assert first.shape == second.shape
    return float(np.abs(first.astype(np.float64) - second.astype(np.float64)).max())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("bound", [0, 1, 4])
def test_images_come_back_within_the_bound(codec: Codec, name: str, bound: int) -> None:
    image = images(np.random.default_rng(7))[name]
    content = codec.encode(image, max_error=bound)
    assert farthest(codec.decode(content), image) <= bound
    assert content == codec.encode(image, max_error=bound)


VOLUMES = ["uint8", "int8", "uint16", "int16", "uint32", "int32", "int64", "float32", "float64"]


def volume_of(dtype: str, rng: np.random.Generator) -> NDArray[np.generic]:
    volume = draw_volume(rng).astype(np.int64)
    scale = {"uint8": 1 / 16, "int8": 1 / 32, "uint32": 2.0**20, "int32": 2.0**18, "int64": 2.0**35}
    voxels = volume * scale.get(dtype, 1.0)
    if dtype in ("uint32", "int32"):
        voxels = voxels + rng.integers(0, 2**16, volume.shape) * (volume != 0)
    return np.rint(voxels).astype(dtype)


@pytest.mark.parametrize("dtype", VOLUMES)
def test_volumes_of_any_type_come_back_exactly(
    codec: Codec, dtype: str, rng: np.random.Generator
) -> None:
    volume = volume_of(dtype, rng)
    content = codec.encode(volume, max_error=0)
    np.testing.assert_array_equal(codec.decode(content), volume)
    header = container.read(content, "x").header
    assert header.residue is not None
    assert header.residue.binning.bound == 0


@pytest.mark.parametrize("step", [1.0, 0.25, 0.0123, 1e-7])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_floats_of_one_step_come_back_exactly(
    codec: Codec, step: float, dtype: type, rng: np.random.Generator
) -> None:
    volume = ((draw_volume(rng).astype(np.int64) - 300) * step).astype(dtype)
    np.testing.assert_array_equal(codec.decode(codec.encode(volume, max_error=0)), volume)


def test_floats_without_a_step_are_told_to_name_a_bound(codec: Codec, rng: np.random.Generator) -> None:
    volume = draw_volume(rng) + rng.normal(0, 1, (40, 48, 6))
    with pytest.raises(ImageError, match=r"no whole multiples of one step.*--max-error"):
        codec.encode(volume, max_error=0)


@pytest.mark.parametrize("bound", [0.01, 0.5, 33.3])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_floats_come_back_within_the_bound(
    codec: Codec, bound: float, dtype: type, rng: np.random.Generator
) -> None:
    volume = draw_volume(rng).astype(dtype)
    volume[volume != 0] += rng.normal(0, 1, int((volume != 0).sum())).astype(dtype)
    restored = codec.decode(codec.encode(volume, max_error=bound))
    assert farthest(restored, volume) <= bound
    np.testing.assert_array_equal(restored == 0, volume == 0)


def test_nan_comes_back_as_nan_in_every_mode(codec: Codec, rng: np.random.Generator) -> None:
    volume = draw_volume(rng).astype(np.float32)
    volume[volume == 0] = math.nan
    for bound in (None, 0, 5):
        restored = codec.decode(codec.encode(volume, max_error=bound))
        np.testing.assert_array_equal(np.isnan(restored), np.isnan(volume))
        if bound is not None:
            assert np.nanmax(np.abs(restored - volume)) <= bound
    few = codec.decode(codec.encode(volume, max_error=0), levels=1)
    np.testing.assert_array_equal(np.isnan(few), np.isnan(volume))


def stripped(rng: np.random.Generator) -> NDArray[np.int16]:
    volume = draw_volume(rng)
    volume[volume != 0] += rng.integers(500, 1000, int((volume != 0).sum()), np.int16)
    return volume


@pytest.mark.parametrize("has_network", [True, False])
def test_what_stands_out_from_its_ground_keeps_it_in_every_mode(
    codec: Codec, has_network: bool, rng: np.random.Generator
) -> None:
    if not has_network:
        codec = Codec(codec.file.with_residue(None, None, {}))
    volume = stripped(rng)
    content = codec.encode(volume, 3)
    header = container.read(content, "x").header
    assert header.ground is not None
    assert header.ground.value == 0
    for levels in (None, 3, 1):  # the support was coded beside the image of all of them
        restored = codec.decode(content, levels=levels)
        np.testing.assert_array_equal(restored == 0, volume == 0)
    np.testing.assert_array_equal(codec.decode(codec.encode(volume, 1, Coder.PACKED)) == 0, volume == 0)


def test_the_edge_of_what_stands_out_is_restored(codec: Codec, rng: np.random.Generator) -> None:
    volume = stripped(rng)
    content = codec.encode(volume, 1)
    file = container.read(content, "x")
    assert file.header.restoration is not None
    header = dataclasses.replace(file.header, restoration=None)
    plain = container.write(header, file.payload, file.beside)
    assert len(content) - len(plain) < 30
    support = volume > 0

    def error(decoded: NDArray[np.generic]) -> float:
        return float(np.square(decoded[support].astype(float) - volume[support]).mean())

    assert error(codec.decode(content)) < error(codec.decode(plain))
    np.testing.assert_array_equal(codec.decode(content) > 0, support)
    without_ground = dataclasses.replace(file.header, ground=None)
    damaged = container.write(without_ground, file.payload)
    with pytest.raises(CodesFileError, match="a restoration beside a residue, or without a ground"):
        container.read(damaged, "x")
    bounded = container.read(codec.encode(volume, max_error=3), "x")
    assert bounded.header.restoration is None


def test_a_head_in_noise_keeps_its_ground_where_that_is_cheap(rng: np.random.Generator) -> None:
    phantom = draw_phantom(rng)
    ground = ground_of(phantom[None])
    assert ground is not None
    assert stands_out(phantom[None], ground, 255)
    noisy = phantom + (rng.random(phantom.shape) < 0.1) * rng.integers(1, 9, phantom.shape)
    noisy = noisy.clip(0, 255).astype(np.uint8)
    ground = ground_of(noisy[None])
    assert ground is not None
    assert not stands_out(noisy[None], ground, 255)


def test_ground_is_one_value_that_lies_together(rng: np.random.Generator) -> None:
    phantom = draw_phantom(rng)[None]
    found = ground_of(phantom)
    assert found is not None
    assert found.value == 0
    np.testing.assert_array_equal(found.support, phantom != 0)
    assert ground_of(rng.integers(0, 3, (1, 64, 64))) is None  # noise
    assert ground_of(np.arange(64 * 64).reshape(1, 64, 64)) is None


def test_ground_stays_ground_at_any_bound(codec: Codec, rng: np.random.Generator) -> None:
    phantom = draw_phantom(rng)
    restored = codec.decode(codec.encode(phantom, max_error=100))
    np.testing.assert_array_equal(restored == 0, phantom == 0)


@pytest.mark.parametrize("coder", [Coder.PACKED, Coder.PRIOR])
def test_some_levels_are_those_of_a_file_without_residue(
    codec: Codec, coder: Coder, rng: np.random.Generator
) -> None:
    image = images(rng)["noise"]
    plain = codec.encode(image, 3, coder, feedback=False)  # as within a bound
    kept = codec.encode(image, 3, coder, max_error=2)
    np.testing.assert_array_equal(codec.decode(kept, levels=3), codec.decode(plain))
    np.testing.assert_array_equal(
        codec.codes_of(container.read(kept, "x")).indices,
        codec.codes_of(container.read(plain, "x")).indices,
    )
    for levels in (0, 4):
        with pytest.raises(CodesFileError, match=f"quality {levels}, but this file has 1 to 3"):
            codec.decode(kept, levels=levels)


@pytest.mark.parametrize(
    ("bound", "message"),
    [(-1, "expected a finite number from 0"), (70_000, "expected 0 to 65535"), (1.5, "a whole number")],
)
def test_a_bound_that_is_none_is_refused(codec: Codec, bound: float, message: str) -> None:
    image = np.arange(0, 65_536, 16).astype(np.uint16).reshape(64, 64)
    image[-1, -1] = 65_535
    with pytest.raises(ImageError, match=message):
        codec.encode(image, max_error=bound)


def test_a_bound_wider_than_the_grey_levels_is_held(codec: Codec) -> None:
    image = np.zeros((64, 64), np.uint8)
    image[20:30, 20:40] = np.arange(200).reshape(10, 20) % 3
    restored = codec.decode(codec.encode(image, max_error=3, content=Content.SCAN))
    assert np.abs(restored.astype(int) - image).max() <= 3


def test_a_bound_finer_than_the_type_is_refused(codec: Codec, rng: np.random.Generator) -> None:
    volume = (draw_volume(rng) + rng.normal(0, 1, (40, 48, 6))).astype(np.float32)
    with pytest.raises(ImageError, match="less than float32 can tell apart"):
        codec.encode(volume, max_error=1e-6)


def test_a_model_without_the_network_says_so(rng: np.random.Generator) -> None:
    plain = Codec(file_of(tiny_model(), {}))
    with pytest.raises(ModelError, match="no network for residues"):
        plain.encode(draw_phantom(rng), max_error=2)


def test_a_changed_payload_is_refused(codec: Codec, rng: np.random.Generator) -> None:
    content = codec.encode(draw_phantom(rng), max_error=0)
    file = container.read(content, "x")
    for field in ("support", "residue"):
        payload = getattr(file.beside, field)
        beside = file.beside._replace(**{field: payload[:-1] + bytes([payload[-1] ^ 1, 7])})
        key = "ground" if field == "support" else "residue"
        block = dataclasses.replace(getattr(file.header, key), payload_bytes=len(payload) + 1)
        header = dataclasses.replace(file.header, **{key: block})
        with pytest.raises(CodesFileError, match=r"^codes: damaged: "):
            codec.decode(container.write(header, file.payload, beside))
