"""Slices of volumes that are coded given the slice before."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import AFFINE, Run, draw_phantom, draw_volume
from forged import sealed

import oasisvq
from oasisvq.codec import container
from oasisvq.codec.codes import NO_INDEX, Codes
from oasisvq.codec.headers import Coder
from oasisvq.codec.modelfile import ModelFile, read_model, write_model
from oasisvq.codec.networks import DECODED_STEPS, PIXEL_STEPS
from oasisvq.codec.slices import Chain, codes_of
from oasisvq.errors import CodesFileError, ModelError


@pytest.fixture
def codec(volumes_model_file: Path) -> oasisvq.Codec:
    return oasisvq.load(volumes_model_file)


def codes_in(codec: oasisvq.Codec, content: bytes) -> Codes:
    return codec.codes_of(container.read(content, "x"))


@pytest.mark.parametrize("coder", [Coder.PRIOR, Coder.PACKED])
def test_each_slice_is_decoded_given_the_one_before(
    coder: Coder, codec: oasisvq.Codec, rng: np.random.Generator
) -> None:
    voxels = draw_volume(rng)
    content = codec.encode(voxels, coder=coder, affine=AFFINE)
    codes = codes_in(codec, content)
    restored = codec.decode_codes(codes._replace(header=codes.header.of_indices), "x")
    planes = restored.planes
    header = codes.header
    assert header.volume is not None
    chain = Chain(codec.file.coding(is_volume=True), header)
    for place in header.coded_slices:
        steps = chain.pixels(place, codes.indices[place])
        chain.go_on(place, codes.indices[place])
        low, high = header.slice_range(place)
        window = header.window
        plane = planes[place]
        top, left = window.top * 8, window.left * 8
        inside = plane[top : top + window.height * 8, left : left + window.width * 8]
        expected = np.rint(steps / DECODED_STEPS * (high - low) + low)
        np.testing.assert_array_equal(inside, expected[: inside.shape[0], : inside.shape[1]])
    assert (codes.indices[-2:] == NO_INDEX).all()
    assert codec.write_codes(codes) == content
    np.testing.assert_array_equal(codec.decode_indices(codes.indices, codes.header), restored.voxels)


def test_the_slice_before_changes_what_is_decoded(
    codec: oasisvq.Codec, rng: np.random.Generator
) -> None:
    voxels = draw_volume(rng)
    other = voxels.copy()
    other[..., 0] = np.roll(other[..., 0], 9, axis=1)
    ours, theirs = (codec.decode(codec.encode(each, affine=AFFINE)) for each in (voxels, other))
    assert (ours[..., 1] != theirs[..., 1]).any()
    alone = oasisvq.Codec(codec.volumes)  # images are never given a context
    np.testing.assert_array_equal(
        *(alone.decode(alone.encode(each[..., 1].astype(np.uint16))) for each in (voxels, other))
    )


def test_a_context_is_in_the_pixels_of_its_slice(codec: oasisvq.Codec, rng: np.random.Generator) -> None:
    voxels = draw_volume(rng)
    voxels[..., 1] = voxels[..., 1] // 2 + 100
    codes = codes_in(codec, codec.encode(voxels, affine=AFFINE))
    header = codes.header
    chain = Chain(codec.volumes, header)
    assert chain.context(0) is None
    decoded = chain.pixels(0, codes.indices[0])
    chain.go_on(0, codes.indices[0])
    found = chain.context(1)
    (low_before, high_before), (low, high) = header.slice_range(0), header.slice_range(1)
    values = decoded / DECODED_STEPS * (high_before - low_before) + low_before
    expected = np.clip((values - low) / (high - low), 0, 1) * PIXEL_STEPS
    assert found is not None
    assert np.abs(found[0] - expected).max() <= 0.5 + 1e-6
    assert math.isclose(low_before, 0)
    assert low > 50


def test_images_are_coded_as_without_it(codec: oasisvq.Codec, rng: np.random.Generator) -> None:
    plane = draw_phantom(rng)
    alone = oasisvq.Codec(codec.file.with_volumes(None, codec.card))
    ours, theirs = (codes_in(each, each.encode(plane, levels=3)) for each in (codec, alone))
    np.testing.assert_array_equal(ours.indices, theirs.indices)
    assert codec.fingerprint != alone.fingerprint
    assert alone.volumes is alone.file
    assert codec.volume_codebooks.shape == (2, 20, 6)
    volume = codec.encode(draw_volume(rng), affine=AFFINE)
    vectors = codec.embed(codes_in(codec, volume).indices[:4], of_volumes=True)
    assert vectors.shape == (4, 5, 6, 6)


def test_fewer_levels_are_decoded_given_all_levels_of_the_slice_before(
    codec: oasisvq.Codec, rng: np.random.Generator
) -> None:
    content = codec.encode(draw_volume(rng), levels=2, affine=AFFINE)
    codes = codes_in(codec, content)
    chain = Chain(codec.volumes, codes.header)
    chain.go_on(0, codes.indices[0])
    low, high = codes.header.slice_range(1)
    expected = np.rint(chain.pixels(1, codes.indices[1, :1]) / DECODED_STEPS * (high - low) + low)
    of_indices = codes._replace(header=codes.header.of_indices)
    found = codec.decode_codes(of_indices, "x", levels=1).planes[1]
    np.testing.assert_array_equal(found, expected[: found.shape[0], : found.shape[1]])


def test_more_levels_than_volumes_have_are_refused(
    codec: oasisvq.Codec, rng: np.random.Generator
) -> None:
    with pytest.raises(ModelError, match="quality 3, but this model has 1 to 2 for volumes"):
        codec.encode(draw_volume(rng), levels=3, affine=AFFINE)
    codec.encode(draw_phantom(rng), levels=3)


@pytest.mark.parametrize("bound", [0, 5])
def test_a_bound_holds(bound: int, codec: oasisvq.Codec, rng: np.random.Generator) -> None:
    voxels = draw_volume(rng)
    restored = codec.decode(codec.encode(voxels, max_error=bound, affine=AFFINE))
    assert np.abs(restored.astype(int) - voxels).max() <= bound


def test_the_model_file_holds_both(
    codec: oasisvq.Codec, tmp_path: Path, volumes_model_file: Path
) -> None:
    again = read_model(volumes_model_file)
    assert again.volumes is not None
    assert again.volumes.config == replace(again.config, levels=2, context=1)
    assert again.volumes.prior is not None
    assert again.volumes.prior.config.expected == 3
    write_model(again, tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == volumes_model_file.read_bytes()
    assert codec.fingerprint == again.fingerprint
    changed = {name: array.copy() for name, array in again.volumes.arrays.items()}
    changed["decoder.stage1.context.bias"] += 1
    volumes = ModelFile(again.volumes.config, changed, again.volumes.prior, {})
    assert again.with_volumes(volumes, again.card).fingerprint != again.fingerprint


def test_damage_is_seen(codec: oasisvq.Codec, rng: np.random.Generator) -> None:
    file = container.read(codec.encode(draw_volume(rng), levels=1, affine=AFFINE), "x")
    content = container.write(file.header.of_indices, file.payload)
    payload = len(file.payload)
    found = 0
    for place in range(len(content) - 4 - payload, len(content) - 4, 3):
        wrong = bytearray(content[:-4])
        wrong[place] ^= 16
        try:
            codes = codes_of(codec.file, container.read(sealed(bytes(wrong)), "x"))
        except CodesFileError:
            found += 1
        else:  # other indices, of which this is the payload
            assert codec.write_codes(codes)[:-4] == bytes(wrong)
    assert found > 5


def test_commands_know_such_models(run: Run, volumes_model_file: Path) -> None:
    told = run("info", volumes_model_file, "--json")
    assert told.code == 0
    assert '"expected": 3' in told.out


def test_another_card_leaves_the_model_as_it_is(codec: oasisvq.Codec) -> None:
    other = codec.file.with_card({"said": "more"})
    assert (other.fingerprint, other.card) == (codec.fingerprint, {"said": "more"})
    assert other.volumes is codec.file.volumes is not None
