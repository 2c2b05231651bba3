"""The chain assembled, of a model with a prior: coding and sampling."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY, codec_of, draw_phantom, tiny_model, tiny_prior
from numpy.typing import NDArray

import oasisvq
from oasisvq.codec import container
from oasisvq.codec.codec import Codec
from oasisvq.codec.codes import Codes
from oasisvq.codec.entropy import pack
from oasisvq.codec.frequencies import draw
from oasisvq.codec.headers import Coder
from oasisvq.codec.modelfile import ModelFile, read_model, write_model
from oasisvq.codec.prior import Prior
from oasisvq.errors import CodesFileError, ModelError
from oasisvq.training.weights import file_of

ODD_SHAPES = ((1, 1), (1, 50), (7, 13), (65, 31), (300, 20), (64, 64))


@pytest.fixture(scope="module")
def codec(model_file: Path) -> Codec:
    return Codec.load(model_file)


@pytest.fixture(scope="module")
def prior_codec(prior_model_file: Path) -> Codec:
    return Codec.load(prior_model_file)


def test_a_model_with_a_prior_codes_with_it_unless_asked_not_to(
    prior_codec: Codec, codec: Codec, rng: np.random.Generator
) -> None:
    plane = draw_phantom(rng)
    coded = container.read(prior_codec.encode(plane), "x").header
    assert coded.coder is Coder.PRIOR
    assert coded.fingerprint == prior_codec.fingerprint != codec.fingerprint
    packed = container.read(prior_codec.encode(plane, coder=Coder.PACKED), "x")
    assert packed.header.coder is Coder.PACKED
    assert packed.header.fingerprint == prior_codec.fingerprint  # a model has one name
    assert packed.payload == container.read(codec.encode(plane), "x").payload
    with pytest.raises(ModelError, match="has no prior; encode with --coder packed"):
        codec.encode(plane, coder=Coder.PRIOR)


@pytest.mark.parametrize("shape", ODD_SHAPES)
@pytest.mark.parametrize("levels", [1, 3])
def test_prior_coded_indices_decode_as_the_same_indices_packed(
    prior_codec: Codec, shape: tuple[int, int], levels: int, rng: np.random.Generator
) -> None:
    plane = rng.integers(0, 256, shape, dtype=np.uint8)
    content = prior_codec.encode(plane, levels)
    codes = prior_codec.codes_of(container.read(content, "x"))
    header = replace(codes.header, coder=Coder.PACKED, fingerprint=prior_codec.fingerprint)
    packed = container.write(header, pack(codes.indices, header.codebook_size))
    restored = prior_codec.decode(content)
    assert restored.shape == shape
    np.testing.assert_array_equal(prior_codec.decode(packed), restored)
    again = prior_codec.write_codes(codes)
    np.testing.assert_array_equal(prior_codec.decode(again), restored)


def test_a_prior_that_knows_which_codes_are_used_makes_smaller_files(rng: np.random.Generator) -> None:
    plane, prior = draw_phantom(rng), tiny_prior()
    packed = codec_of(tiny_model()).encode(plane, 3)
    arrays = dict(prior.arrays)
    for level, grid in enumerate(container.read(packed, "x").codes().indices, start=1):
        counts = np.bincount(grid.reshape(-1), minlength=20)
        arrays[f"level{level}.output.scale"] = np.zeros(20, np.int32)
        bias = (16 * np.log2(counts + 0.1)).round().astype(np.int32)
        arrays[f"level{level}.output.bias"] = bias
    learned = Codec(file_of(tiny_model(), {}, Prior(prior.config, arrays)))
    coded = learned.encode(plane, 3)
    assert len(coded) < len(packed) - 5
    assert learned.codes_of(container.read(coded, "x")).indices.shape == (3, 6, 6)


def test_prior_coded_bytes_do_not_depend_on_what_else_is_coded(
    prior_codec: Codec, prior_model_file: Path, rng: np.random.Generator
) -> None:
    plane, other = draw_phantom(rng), draw_phantom(rng, 80, 50)
    content = prior_codec.encode(plane)
    restored = prior_codec.decode(content)
    prior_codec.decode(prior_codec.encode(other, 3))
    prior_codec.sample([1, 2])
    assert prior_codec.encode(plane) == content
    again = Codec.load(prior_model_file)
    assert again.encode(plane) == content
    np.testing.assert_array_equal(again.decode(content), restored)


def test_a_prior_coded_file_needs_its_prior(
    prior_codec: Codec, codec: Codec, rng: np.random.Generator
) -> None:
    content = prior_codec.encode(draw_phantom(rng))
    for other in (codec, Codec(file_of(tiny_model(), {}, tiny_prior(seed=1)))):
        assert other.fingerprint != prior_codec.fingerprint
        with pytest.raises(CodesFileError, match="pass the right one with --model") as caught:
            other.decode(content)
        for each in (prior_codec, other):
            assert each.fingerprint.hex()[:8] in str(caught.value)


@pytest.mark.parametrize("level", [0, 200, 65_535])
def test_a_constant_image_comes_back_exactly_with_a_prior_too(prior_codec: Codec, level: int) -> None:
    plane = np.full((30, 20), level, dtype=np.uint8 if level < 256 else np.uint16)
    content = prior_codec.encode(plane)
    assert not container.read(content, "x").payload
    np.testing.assert_array_equal(prior_codec.decode(content), plane)


def test_a_model_with_a_prior_comes_back_from_its_file(tmp_path: Path, prior_model_file: Path) -> None:
    file, prior = read_model(prior_model_file), tiny_prior()
    assert file.prior is not None
    assert file.prior.config == prior.config
    for name, array in prior.arrays.items():
        np.testing.assert_array_equal(file.prior.arrays[name], array)
        assert file.prior.arrays[name].dtype == array.dtype
    write_model(file, tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == prior_model_file.read_bytes()


def test_the_name_of_a_model_changes_with_any_of_its_arrays() -> None:
    model, prior = tiny_model(), tiny_prior()
    plain = file_of(model, {}, prior)
    seen = {plain.fingerprint, plain.with_prior(None, {}).fingerprint}
    for name, array in prior.arrays.items():
        if array.size and not name.startswith("kinds.frequency"):
            changed = array.copy()
            changed.reshape(-1)[0] ^= 1
            other = Prior(prior.config, {**prior.arrays, name: changed})
            seen.add(plain.with_prior(other, {}).fingerprint)
    for name, array in plain.arrays.items():
        changed = array.copy()
        changed.reshape(-1)[-1] ^= 2 if name.endswith(".table") else 1
        others = plain.arrays | {name: changed}
        seen.add(ModelFile(plain.config, others, prior, {}).fingerprint)
    used = sum(a.size > 0 for n, a in prior.arrays.items() if n != "kinds.frequency")
    assert len(seen) == 2 + used + len(plain.arrays)
    assert plain.with_prior(prior, {"note": "another card"}).fingerprint == plain.fingerprint


def test_prior_coded_files_are_read_without_torch(
    tmp_path: Path, prior_codec: Codec, prior_model_file: Path, rng: np.random.Generator
) -> None:
    content = prior_codec.encode(draw_phantom(rng), 3)
    (tmp_path / "scan.codes").write_bytes(content)
    program = (
        "import sys, oasisvq; codes = oasisvq.read_codes(*sys.argv[1:]); "
        "print(codes.indices.tolist(), 'torch' in sys.modules)"
    )
    expected = prior_codec.codes_of(container.read(content, "x")).indices.tolist()
    finished = subprocess.run(
        [sys.executable, "-c", program, "scan.codes", prior_model_file],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONWARNINGS": "ignore"},
    )
    assert finished.stdout == f"{expected} False\n"


def test_read_codes_refuses_another_model(
    tmp_path: Path, prior_codec: Codec, model_file: Path, rng: np.random.Generator
) -> None:
    path = tmp_path / "scan.codes"
    path.write_bytes(prior_codec.encode(draw_phantom(rng)))
    with pytest.raises(CodesFileError, match=r"scan\.codes: made with model .*pass the right one"):
        oasisvq.read_codes(path, model_file)


# samples


def test_a_seed_decides_its_sample_alone(prior_codec: Codec) -> None:
    alone = prior_codec.sample([5])[0]
    among = prior_codec.sample([3, 5, 4])
    np.testing.assert_array_equal(among[1].indices, alone.indices)
    assert among[1].header == alone.header
    assert any((each.indices != alone.indices).any() for each in (among[0], among[2]))
    assert alone.indices.shape == (TINY.default_levels, 5, 6)
    first = prior_codec.sample([5], levels=1)[0]
    np.testing.assert_array_equal(first.indices, alone.indices[:1])


def test_of_several_drafts_the_one_nearest_to_its_kind_is_kept(prior_codec: Codec) -> None:
    prior = prior_codec.prior
    assert prior is not None
    seeds = range(20)
    plain = prior_codec.sample(seeds, levels=1, drafts=1)
    chosen = prior_codec.sample(seeds, levels=1, drafts=5)
    # the first numbers of a generator draw the kind and the first draft, however many follow
    kinds = draw(prior.kinds_met[None, None], [np.random.default_rng(seed) for seed in seeds], 1.0)[:, 0]

    def distances(drawn: list[Codes]) -> NDArray[np.float64]:
        latents = prior_codec.embed(np.stack([codes.indices for codes in drawn]))
        return prior.distances_to_kinds(latents)[np.arange(len(kinds)), kinds]

    assert (distances(chosen) <= distances(plain)).all()
    assert distances(chosen).mean() < 0.9 * distances(plain).mean()


def test_samples_are_files_like_any_other(prior_codec: Codec) -> None:
    codes = prior_codec.sample([5], levels=3)[0]
    content = prior_codec.write_codes(codes)
    np.testing.assert_array_equal(
        prior_codec.codes_of(container.read(content, "x")).indices, codes.indices
    )
    restored = prior_codec.decode(content)
    assert (restored.shape, restored.dtype) == ((64, 64), np.uint8)


def test_sampling_needs_a_prior_and_levels_that_it_has(codec: Codec, prior_codec: Codec) -> None:
    with pytest.raises(ModelError, match=r"has no prior to draw from; .*--prior-only"):
        codec.sample([1])
    with pytest.raises(ModelError, match="quality 4, but this model has 1 to 3"):
        prior_codec.sample([1], levels=4)


def test_samples_need_sensible_arguments(prior_codec: Codec) -> None:
    assert prior_codec.sample([]) == []
    for seeds, given in (([1], {"temperature": 0.0}), ([1], {"drafts": 0}), ([-1], {})):
        with pytest.raises(ModelError, match="expected a temperature above 0, drafts from 1 and seeds"):
            prior_codec.sample(seeds, **given)  # type: ignore[arg-type]
