"""The chain assembled."""

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY, codec_of, draw_phantom, tiny_model
from numpy.typing import NDArray

import oasisvq
from oasisvq import models
from oasisvq.codec import container
from oasisvq.codec.codec import Codec
from oasisvq.codec.config import ModelConfig
from oasisvq.codec.entropy import pack
from oasisvq.codec.headers import SampleType
from oasisvq.codec.modelfile import ModelFile
from oasisvq.codec.networks import network_shapes
from oasisvq.codec.pixels import Window
from oasisvq.codec.quantizer import CODEBOOKS
from oasisvq.errors import CodesFileError, FileError, ImageError, ModelError
from oasisvq.models import choose_model
from oasisvq.training.weights import load_model, save_model

ODD_SHAPES = ((1, 1), (1, 50), (7, 13), (65, 31), (300, 20), (64, 64))


@pytest.fixture(scope="module")
def codec(model_file: Path) -> Codec:
    return Codec.load(model_file)


@pytest.fixture(scope="module")
def prior_codec(prior_model_file: Path) -> Codec:
    return Codec.load(prior_model_file)


def exact_model() -> Codec:
    """A model that loses nothing of 16 grey levels on its second level, and everything on its first.

    Its layers scale up and shift, to where silu is the identity, and back. The grey level k of 0 to 15
    becomes the latent (k - 7.5, 7.5, 0), scaled to a unit mean square; its code has k once more in the
    third place, small enough that the nearest code stays the same, and there the decoder reads it.
    """
    config = ModelConfig(
        window=(8, 8),
        stride=1,
        encoder_channels=(1,),
        encoder_blocks=(0,),
        decoder_channels=(1,),
        decoder_blocks=(0,),
        code_dim=3,
        codebook_size=16,
        levels=2,
        default_levels=2,
    )
    arrays = {name: np.zeros(*shape) for name, shape in network_shapes(config).items()}

    def layer(name: str, factor: float, bias: float, output: int = 0) -> None:
        weight = arrays[f"{name}.weight"]
        weight[output].reshape(-1)[weight[output].size // 2 if weight.ndim == 4 else 0] = 127
        arrays[f"{name}.scale"][output] = round(factor / 127 * 2**26)
        arrays[f"{name}.bias"][output] = round(bias)

    layer("encoder.input", 15 * 1024 / 2047, 40 * 1024)
    layer("encoder.output", 4 / 7.5, -(40 + 7.5) * 1024 / 7.5)
    arrays["encoder.output.bias"][1] = 1024
    layer("decoder.input", 0, 40 * 1024)
    arrays["decoder.input.weight"][0, 1, 1] = 0, 0, 127
    arrays["decoder.input.scale"][0] = round(1024 / 127 * 2**26)
    arrays["decoder.input.scaling"][:] = 2**26, 1000
    layer("decoder.output", 65_535 / 15 / 256, -40 * 65_535 / 15)
    for network in ("encoder", "decoder"):
        arrays[f"{network}.output.table"][:] = 0, 60_000, 1024, 256 * 256  # values are 256 · x
    greys = np.arange(16.0)
    codes = np.stack([greys - 7.5, np.full(16, 7.5), np.zeros(16)], axis=1)
    codes *= 256 / np.sqrt(np.square(codes).mean(1, keepdims=True))
    codes[:, 2] = greys
    far = np.full((16, 3), 25_600)  # so that the first level always takes code 0
    far[0] = 0
    arrays[CODEBOOKS] = np.rint([far, codes]).astype(np.int16)
    return Codec(ModelFile(config, arrays, None, {}))


@pytest.mark.parametrize("shape", ODD_SHAPES)
def test_a_model_that_loses_nothing_gives_the_original_back(
    shape: tuple[int, int], rng: np.random.Generator
) -> None:
    codec = exact_model()
    greys = rng.integers(0, 16, shape, dtype=np.uint8)
    if greys.size > 1:
        greys.flat[0], greys.flat[-1] = 0, 15
    plane = greys * 17
    content = codec.encode(plane)
    np.testing.assert_array_equal(codec.decode(content), plane)
    header, (first, second), *_ = container.read(content, "x").codes()
    assert not first.any()
    if plane.size > 1:
        top, left, height, width = header.window
        np.testing.assert_array_equal(second, greys[top : top + height, left : left + width])


def test_what_is_left_of_the_level_that_carries_nothing(rng: np.random.Generator) -> None:
    codec = exact_model()
    plane = rng.integers(7, 200, (9, 12), dtype=np.uint8)
    assert (codec.decode(codec.encode(plane, 1)) == plane.min()).all()


def test_16_levels_within_16_bits_lose_nothing_either(rng: np.random.Generator) -> None:
    codec = exact_model()
    plane = rng.integers(0, 16, (9, 12), dtype=np.uint16) * 4001 + 1000
    plane[0, :2] = 1000, 1000 + 15 * 4001
    np.testing.assert_array_equal(codec.decode(codec.encode(plane)), plane)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("shape", ODD_SHAPES)
@pytest.mark.parametrize("levels", [1, 3])
def test_shape_and_type_come_back(
    codec: Codec,
    shape: tuple[int, int],
    dtype: type[np.unsignedinteger],
    levels: int,
    rng: np.random.Generator,
) -> None:
    plane = rng.integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)
    restored = codec.decode(codec.encode(plane, levels))
    assert restored.shape == shape
    assert restored.dtype == dtype


def test_a_scan_keeps_its_own_range_of_grey_levels(codec: Codec, rng: np.random.Generator) -> None:
    plane = draw_phantom(rng).astype(np.uint16) * 8 + 1000
    content = codec.encode(plane)
    header = container.read(content, "x").header
    assert header.intensity == (1000, 1000 + 8 * 255)
    assert header.sample_type is SampleType.UINT16
    restored = codec.decode(content)
    assert restored.min() >= 1000
    assert restored.max() <= 1000 + 8 * 255
    assert len(np.unique(restored)) > 10


def test_the_ground_around_the_window_comes_back_exactly(codec: Codec, rng: np.random.Generator) -> None:
    plane = np.pad(draw_phantom(rng, 40, 40, margin=4), 30) + np.uint8(3)
    plane[plane < 3] = 255
    content = codec.encode(plane)
    window = container.read(content, "x").header.window
    inside = np.zeros(plane.shape, dtype=bool)
    inside[
        window.top * 8 : (window.top + window.height) * 8,
        window.left * 8 : (window.left + window.width) * 8,
    ] = True
    assert 0 < inside.sum() < plane.size
    assert (codec.decode(content)[~inside] == 3).all()


@pytest.mark.parametrize("shape", [(1, 1), (7, 13), (64, 64), (300, 200)])
@pytest.mark.parametrize("level", [0, 77, 255, 65_535])
def test_a_constant_image_comes_back_exactly(codec: Codec, shape: tuple[int, int], level: int) -> None:
    plane = np.full(shape, level, dtype=np.uint8 if level < 256 else np.uint16)
    content = codec.encode(plane)
    assert not container.read(content, "x").codes().indices.size
    assert len(content) <= 40
    restored = codec.decode(content)
    assert restored.dtype == plane.dtype
    np.testing.assert_array_equal(restored, plane)


def test_an_image_with_content_in_the_window_has_the_model_window(
    codec: Codec, rng: np.random.Generator
) -> None:
    codes = container.read(codec.encode(draw_phantom(rng, margin=16)), "x").codes()
    assert codes.header.window == Window(1, 1, 5, 6)
    assert codes.indices.shape == (TINY.default_levels, 5, 6)
    assert codes.header.codebook_size == TINY.codebook_size
    assert codes.header.fingerprint == codec.fingerprint


def test_the_same_bytes_on_every_run(
    codec: Codec, model_file: Path, phantom_png: Path, rng: np.random.Generator
) -> None:
    plane, other = draw_phantom(rng), draw_phantom(rng, 80, 50)
    content = codec.encode(plane)
    restored = codec.decode(content)
    codec.decode(codec.encode(other, 3))  # what came between makes no difference
    assert codec.encode(plane) == content
    again = Codec.load(model_file)
    assert again.encode(plane) == content
    np.testing.assert_array_equal(again.decode(content), restored)


def test_a_view_is_encoded_as_it_looks(codec: Codec, rng: np.random.Generator) -> None:
    plane = draw_phantom(rng, 80, 50)
    assert codec.encode(plane.T) == codec.encode(np.ascontiguousarray(plane.T))
    assert codec.encode(plane.T) != codec.encode(plane)


def test_a_query_changes_neither_model_nor_image(rng: np.random.Generator) -> None:
    model = tiny_model()
    codec = codec_of(model)
    plane = draw_phantom(rng)
    state, original = copy.deepcopy(model.state_dict()), plane.copy()
    codec.decode(codec.encode(plane, 3))
    np.testing.assert_array_equal(plane, original)
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert not any(parameter.grad is not None for parameter in model.parameters())
    assert not model.training


def test_fewer_levels_are_a_smaller_file(codec: Codec, rng: np.random.Generator) -> None:
    plane = draw_phantom(rng)
    contents = [codec.encode(plane, levels) for levels in (1, 2, 3)]
    for levels, content in enumerate(contents, start=1):
        assert len(container.read(content, "x").codes().indices) == levels
    assert len(contents[0]) < len(contents[1]) < len(contents[2])
    assert len({codec.decode(content).tobytes() for content in contents}) == 3


def test_the_default_levels_are_the_model_s(codec: Codec, rng: np.random.Generator) -> None:
    plane = draw_phantom(rng)
    assert codec.encode(plane) == codec.encode(plane, TINY.default_levels)


@pytest.mark.parametrize("levels", [0, -1, 4, 65])
def test_levels_out_of_range_are_refused(codec: Codec, levels: int) -> None:
    with pytest.raises(ModelError, match=f"quality {levels}, but this model has 1 to 3"):
        codec.encode(np.zeros((8, 8), dtype=np.uint8), levels)


@pytest.mark.parametrize(
    "array",
    [np.zeros((8, 8)), np.zeros((8, 8, 1), np.uint8), np.zeros((0, 8), np.uint8)],
    ids=["float", "three axes", "empty"],
)
def test_another_array_is_refused(codec: Codec, array: NDArray[np.generic]) -> None:
    with pytest.raises(ImageError, match="expected"):
        codec.encode(array)


def test_codes_of_another_model_are_refused_by_both_names(
    codec: Codec, rng: np.random.Generator
) -> None:
    other = codec_of(tiny_model(seed=1))
    content = other.encode(draw_phantom(rng))
    assert other.fingerprint != codec.fingerprint
    with pytest.raises(CodesFileError, match="pass the right one with --model") as caught:
        codec.decode(content)
    assert other.fingerprint.hex()[:8] in str(caught.value)
    assert codec.fingerprint.hex()[:8] in str(caught.value)


def test_damaged_codes_are_refused(codec: Codec, rng: np.random.Generator) -> None:
    content = codec.encode(draw_phantom(rng))
    with pytest.raises(CodesFileError):
        codec.decode(content[:-1])
    with pytest.raises(CodesFileError):
        codec.decode(content[:50] + bytes([content[50] ^ 1]) + content[51:])


@pytest.mark.parametrize(
    ("changes", "levels"),
    [({"stride": 4}, 2), ({"codebook_size": 21}, 2), ({"codebook_size": 19}, 2), ({}, 4)],
)
def test_a_grid_that_does_not_fit_the_model_is_refused(
    codec: Codec, changes: dict[str, int], levels: int, rng: np.random.Generator
) -> None:
    header = container.read(codec.encode(draw_phantom(rng)), "x").header
    forged = replace(header.of_indices, levels=levels, window=Window(1, 1, 5, 6), **changes)
    indices = np.zeros((levels, 5, 6), dtype=np.int64)
    content = container.write(forged, pack(indices, forged.codebook_size))
    with pytest.raises(CodesFileError, match="does not fit the model"):
        codec.decode(content)


def test_the_order_in_which_a_model_is_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model_file: Path
) -> None:
    named, chosen, trained = tmp_path / "named", tmp_path / "chosen", tmp_path / "oasisvq-run"
    bundled = tmp_path / "package" / "model.safetensors"
    monkeypatch.setattr(models, "BUNDLED_MODEL", bundled)
    monkeypatch.delenv("OASISVQ_MODEL", raising=False)
    with pytest.raises(ModelError, match="no bundled model; train one or name one with --model"):
        choose_model(None, tmp_path)
    bundled.parent.mkdir()
    bundled.write_bytes(model_file.read_bytes())
    assert choose_model(None, tmp_path) == (bundled, "the bundled model")
    trained.mkdir()
    assert choose_model(None, tmp_path).path == bundled  # a run without a model yet
    (trained / "model.safetensors").write_bytes(model_file.read_bytes())
    choice = choose_model(None, tmp_path)
    assert choice == (trained / "model.safetensors", "the model trained in this folder")
    monkeypatch.setenv("OASISVQ_MODEL", "")
    assert choose_model(None, tmp_path) == choice
    monkeypatch.setenv("OASISVQ_MODEL", str(chosen))
    assert choose_model(None, tmp_path) == (chosen, "$OASISVQ_MODEL")
    assert choose_model(named, tmp_path) == (named, "named")
    for folder in (named, chosen):
        folder.mkdir()
    assert choose_model(None, tmp_path).path == chosen / "model.safetensors"
    assert choose_model(named, tmp_path).path == named / "model.safetensors"


def test_load_takes_a_file_a_run_folder_or_the_chosen_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model_file: Path
) -> None:
    monkeypatch.delenv("OASISVQ_MODEL", raising=False)
    monkeypatch.chdir(tmp_path)
    expected = load_model(model_file).fingerprint
    run = tmp_path / "oasisvq-run"
    run.mkdir()
    (run / "model.safetensors").write_bytes(model_file.read_bytes())
    assert oasisvq.load(model_file).fingerprint == expected
    assert oasisvq.load(str(run)).fingerprint == expected
    assert oasisvq.load().fingerprint == expected
    assert oasisvq.load().card == {"images": "scans", "size": 64}
    assert oasisvq.load().config == TINY


def test_a_named_model_that_is_missing_is_not_replaced_by_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model_file: Path
) -> None:
    with pytest.raises(FileError, match="no such file"):
        Codec.load(tmp_path / "missing.safetensors")
    monkeypatch.setenv("OASISVQ_MODEL", str(tmp_path / "missing.safetensors"))
    with pytest.raises(FileError, match="no such file"):
        oasisvq.load()


def test_a_model_in_memory_encodes_as_its_file(tmp_path: Path, rng: np.random.Generator) -> None:
    model = tiny_model()
    save_model(model, tmp_path / "model.safetensors", {})
    plane = draw_phantom(rng)
    content = codec_of(model).encode(plane)
    assert Codec.load(tmp_path / "model.safetensors").encode(plane) == content
