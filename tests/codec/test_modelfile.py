"""Model <-> safetensors file; the fingerprint."""

import json
import struct
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import TINY, tiny_model
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

from oasisvq.codec import modelfile
from oasisvq.codec.config import ModelConfig, config_from_dict, config_to_dict
from oasisvq.codec.modelfile import (
    METADATA_KEY,
    Arrays,
    read_header,
    read_model,
    write_model,
)
from oasisvq.codec.networks import network_shapes
from oasisvq.errors import FileError, ModelError
from oasisvq.training.weights import file_of

CARD = {"images": "scans", "size": 64, "note": "Grauwert ±½"}
# It names the model in every `.codes` file: if it changes, all of them lose their model.
GOLDEN_FINGERPRINT = "8437ad4492be7ba7"


def ramp_arrays(config: ModelConfig = TINY) -> Arrays:
    """Arrays of a model's shapes, with values that no random generator drew."""
    shapes = network_shapes(config) | {"quantizer.codebooks": ((3, 20, 6), np.int16)}
    arrays: Arrays = {}
    for name, (shape, kind) in shapes.items():
        size = int(np.prod(shape))
        arrays[name] = (np.arange(size) % 251 - 125).reshape(shape).astype(kind)
    return arrays


def fingerprint(config: ModelConfig, arrays: Arrays) -> bytes:
    return modelfile.fingerprint({"config": config_to_dict(config)}, arrays)


def rewrite(
    path: Path,
    source: Path,
    *,
    arrays: Callable[[Arrays], object] = lambda arrays: None,
    header: Callable[[dict[str, Any]], object] = lambda header: None,
) -> Path:
    """A copy of a model file, with its arrays and its header changed in place, and named accordingly."""
    content = source.read_bytes()
    stored, described = load_arrays(content), header_of(content)
    arrays(stored)
    header(described)
    configs = {name: described[name] for name in ("config", "prior") if described.get(name)}
    described["fingerprint"] = modelfile.fingerprint(configs, stored).hex()
    path.write_bytes(save_arrays(stored, {METADATA_KEY: json.dumps(described)}))
    return path


def header_of(content: bytes) -> dict[str, Any]:
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(json.loads(content[8 : 8 + length])["__metadata__"][METADATA_KEY])
    assert isinstance(header, dict)
    return header


def test_read_is_the_inverse_of_write(tmp_path: Path) -> None:
    file = file_of(tiny_model(), CARD)
    write_model(file, tmp_path / "model.safetensors")
    again = read_model(tmp_path / "model.safetensors")
    assert (again.card, again.config, again.prior) == (CARD, TINY, None)
    assert again.fingerprint == file.fingerprint
    assert again.arrays.keys() == file.arrays.keys()
    for name, array in file.arrays.items():
        assert again.arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(again.arrays[name], array)
    write_model(again, tmp_path / "again.safetensors")
    written = (tmp_path / "model.safetensors").read_bytes()
    assert (tmp_path / "again.safetensors").read_bytes() == written


def test_the_fingerprint_is_fixed() -> None:
    assert fingerprint(TINY, ramp_arrays()).hex() == GOLDEN_FINGERPRINT


def test_the_fingerprint_does_not_depend_on_the_card(tmp_path: Path, model_file: Path) -> None:
    path = rewrite(tmp_path / "x", model_file, header=lambda header: header.update(card={"other": 1}))
    assert read_model(path).card == {"other": 1}
    assert read_model(path).fingerprint == read_model(model_file).fingerprint


def test_the_fingerprint_does_not_depend_on_order_or_layout() -> None:
    arrays = ramp_arrays()
    expected = fingerprint(TINY, arrays)
    assert fingerprint(TINY, dict(reversed(arrays.items()))) == expected
    assert fingerprint(TINY, {n: np.asfortranarray(array) for n, array in arrays.items()}) == expected
    swapped = {n: array.astype(array.dtype.newbyteorder(">")) for n, array in arrays.items()}
    assert fingerprint(TINY, swapped) == expected


def test_the_fingerprint_changes_with_any_array() -> None:
    arrays = ramp_arrays()
    seen = {fingerprint(TINY, arrays)}
    for name, array in arrays.items():
        for place in (0, -1):
            changed = array.copy()
            changed.reshape(-1)[place] += 1
            seen.add(fingerprint(TINY, {**arrays, name: changed}))
    weight, other, codebooks = "encoder.input.weight", "decoder.input.weight", "quantizer.codebooks"
    seen.add(fingerprint(TINY, {**arrays, codebooks: arrays[codebooks].reshape(-1)}))
    seen.add(fingerprint(TINY, {**arrays, codebooks: arrays[codebooks].astype(np.int32)}))
    seen.add(fingerprint(TINY, {**arrays, weight: arrays[other], other: arrays[weight]}))
    assert len(seen) == 2 * len(arrays) + 4


@pytest.mark.parametrize(
    "changes",
    [
        {"window": (48, 40)},
        {"stride": 4},
        {"encoder_channels": (12, 8)},
        {"encoder_blocks": (0, 1)},
        {"decoder_channels": (12, 8, 5)},
        {"decoder_blocks": (1, 0, 1)},
        {"code_dim": 7},
        {"codebook_size": 21},
        {"levels": 4},
        {"default_levels": 1},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_the_fingerprint_changes_with_any_field_of_the_config(changes: dict[str, Any]) -> None:
    arrays = ramp_arrays()
    assert fingerprint(replace(TINY, **changes), arrays) != fingerprint(TINY, arrays)


def test_a_config_comes_back_from_json() -> None:
    encoded = json.dumps(config_to_dict(TINY))
    assert config_from_dict(json.loads(encoded), "x") == TINY


def test_the_file_describes_itself_without_its_tensors(model_file: Path) -> None:
    header = read_header(model_file.read_bytes(), model_file)
    assert header.config == TINY
    assert header.card == {"images": "scans", "size": 64}


def replace_config(key: str, entry: object) -> Callable[[dict[str, Any]], object]:
    return lambda header: header["config"].update({key: entry})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (replace_config("dropout", 1), r"unknown keys \['dropout'\]"),
        (lambda header: header["config"].pop("stride"), r"missing keys \['stride'\]"),
        (lambda header: header.pop("config"), "model config: no JSON object"),
        (lambda header: header.update(config=[1]), "model config: no JSON object"),
        (replace_config("code_dim", "6"), "code_dim = '6'"),
        (replace_config("code_dim", 6.0), "code_dim = 6.0"),
        (replace_config("code_dim", True), "code_dim = True"),
        (replace_config("code_dim", None), "code_dim = None"),
        (replace_config("window", 40), "window = 40"),
        (replace_config("window", [40, 48.0]), "window ="),
        (replace_config("window", [40, 48, 56]), "window is"),
        (replace_config("encoder_channels", "ab"), "encoder_channels = 'ab'"),
        (
            replace_config("codebook_size", 10**30),
            r"codebook_size = 10+, expected a whole number",
        ),
        (replace_config("codebook_size", 2**31 - 1), "codebook_size is 2147483647, expected 2 to 65535"),
        (
            replace_config("encoder_channels", [2**31]),
            r"encoder_channels = \[2147483648\], expected up to",
        ),
        (replace_config("encoder_channels", [8] * 65), r"encoder_channels = \[8, .* expected up to 64"),
        (replace_config("decoder_blocks", [64] * 3), r"\d+ arrays, but 194 blocks"),
        (replace_config("stride", 0), "stride is 0"),
        (replace_config("code_dim", 7), "array encoder.output.weight is int8"),
        (
            replace_config("decoder_blocks", [1, 1, 1]),
            "8 arrays missing.* decoder.stage3",
        ),
        (lambda header: header.update(format=1), "model format 1, .* reads format 2; update"),
        (lambda header: header.update(format="1"), "model format '1'"),
        (lambda header: header.pop("format"), "model format None"),
    ],
)
def test_another_header_is_refused(
    change: Callable[[dict[str, Any]], object], message: str, tmp_path: Path, model_file: Path
) -> None:
    path = rewrite(tmp_path / "x.safetensors", model_file, header=change)
    with pytest.raises(ModelError, match=message) as caught:
        read_model(path)
    assert str(path) in str(caught.value)


def put(name: str, value: int, place: int = -1) -> Callable[[Arrays], object]:
    def change(arrays: Arrays) -> None:
        arrays[name] = arrays[name].copy()
        arrays[name].reshape(-1)[place] = value

    return change


BLOCK = "encoder.stage1.block1"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda arrays: arrays.pop("quantizer.codebooks"), "first quantizer.codebooks"),
        (lambda arrays: arrays.update(extra=np.zeros(3)), "1 arrays missing or unknown, first extra"),
        (
            lambda arrays: arrays.update({"quantizer.codebooks": np.zeros((3, 20, 5), np.int16)}),
            r"quantizer.codebooks is int16 \(3, 20, 5\), expected int16 \(3, 20, 6\)",
        ),
        (
            lambda arrays: arrays.update({"quantizer.codebooks": np.zeros((3, 20, 6), np.float32)}),
            "quantizer.codebooks is float32",
        ),
        (
            lambda arrays: arrays.update({"encoder.input.weight": np.zeros((8, 3, 3, 16), np.int16)}),
            "encoder.input.weight is int16",
        ),
        (lambda arrays: arrays.clear(), "0 arrays, but 4 blocks"),
        (put("encoder.input.scale", -1), "a scale in encoder.input is negative"),
        (put("decoder.output.scale", -(2**31)), "a scale in decoder.output is negative"),
        (put("decoder.input.bias", 2**31 - 1), "a bias in decoder.input is beyond"),
        (put(f"{BLOCK}.second.bias", -(2**31)), f"a bias in {BLOCK}.second is beyond"),
        (put(f"{BLOCK}.first.table", 1, 0), f"table {BLOCK}.first from 1 to"),
        (put(f"{BLOCK}.first.table", -1, 1), f"table {BLOCK}.first from .* to -1"),
        (put(f"{BLOCK}.first.table", 2**31 - 1, 1), f"table {BLOCK}.first from"),
        (put(f"{BLOCK}.first.table", 1000, 2), "units 1000, expected 1024"),
        (put(f"{BLOCK}.second.table", 0, 2), f"table {BLOCK}.second with units 0"),
        (put(f"{BLOCK}.second.table", -5, 3), f"table {BLOCK}.second with units .* gain -5"),
        (put(f"{BLOCK}.second.table", 2**24, 3), f"table {BLOCK}.second has values beyond 32767"),
        (put("encoder.output.table", 0, 3), "table encoder.output with units 1024 and gain 0"),
        (put("encoder.stage2.down.scaling", 0, 0), "scaling encoder.stage2.down with gain 0"),
        (put("decoder.stage2.up.scaling", 2**15, 1), "scaling decoder.stage2.up .* limit 32768"),
        (put("decoder.input.scaling", 0, 1), "scaling decoder.input .* limit 0"),
    ],
)
def test_other_arrays_are_refused(
    change: Callable[[Arrays], object], message: str, tmp_path: Path, model_file: Path
) -> None:
    path = rewrite(tmp_path / "x.safetensors", model_file, arrays=change)
    with pytest.raises(ModelError, match=f"damaged model file: .*{message}") as caught:
        read_model(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("name", ["encoder.input", f"{BLOCK}.first", "decoder.input", "decoder.output"])
def test_weights_that_cannot_be_summed_exactly_are_refused(
    name: str, tmp_path: Path, model_file: Path
) -> None:
    """Of inputs as large as they can be; of few inputs even the largest weights can be summed."""

    def change(arrays: Arrays) -> None:
        arrays[f"{name}.weight"] = np.full_like(arrays[f"{name}.weight"], 127)
        if f"{name}.table" in arrays:
            arrays[f"{name}.table"] = np.array([0, 50_000, 1024, 600 * 256], np.int32)
        elif f"{name}.scaling" in arrays:
            arrays[f"{name}.scaling"] = np.array([2**26, 32_767], np.int32)

    path = rewrite(tmp_path / "x.safetensors", model_file, arrays=change)
    inputs = int(np.prod(load_arrays(path.read_bytes())[f"{name}.weight"].shape[1:]))
    largest = {"encoder.input": 2047, "decoder.input": 32_767}.get(name, 600 * 50_000 // 1024)
    assert inputs * 127 * largest >= 2**24
    with pytest.raises(ModelError, match=f"the weights {name} are too large to be summed exactly"):
        read_model(path)


def test_another_name_than_its_own_is_refused(tmp_path: Path, model_file: Path) -> None:
    content = model_file.read_bytes()
    for wrong in ("0" * 16, None, 5, ["0" * 16], "x" * 100_000):
        header = header_of(content) | {"fingerprint": wrong}
        path = tmp_path / "x.safetensors"
        path.write_bytes(save_arrays(load_arrays(content), {METADATA_KEY: json.dumps(header)}))
        with pytest.raises(ModelError, match=r"it names itself .*; get a whole copy") as caught:
            read_model(path)
        assert len(str(caught.value)) < 500


def test_every_kind_of_truncation_is_refused(tmp_path: Path, model_file: Path) -> None:
    content = model_file.read_bytes()
    path = tmp_path / "x.safetensors"
    (header_length,) = struct.unpack("<Q", content[:8])
    lengths = {*range(12), header_length, header_length + 7, header_length + 8, len(content) - 1}
    for length in sorted(lengths | set(range(0, len(content), 997))):
        path.write_bytes(content[:length])
        with pytest.raises(ModelError, match=r"x\.safetensors: "):
            read_model(path)


def test_bytes_after_the_end_are_refused(tmp_path: Path, model_file: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(model_file.read_bytes() + b"\0")
    with pytest.raises(ModelError, match="damaged model file"):
        read_model(path)


def test_a_damaged_header_is_refused(tmp_path: Path, model_file: Path) -> None:
    content = model_file.read_bytes()
    path = tmp_path / "x.safetensors"
    for position in range(0, 8 + struct.unpack("<Q", content[:8])[0], 7):
        path.write_bytes(content[:position] + b"\xff" + content[position + 1 :])
        with pytest.raises(ModelError):
            read_model(path)


def safetensors_bytes(header: bytes, body: bytes = b"") -> bytes:
    return struct.pack("<Q", len(header)) + header + body


def pickled(tmp_path: Path) -> bytes:
    torch.save({"weight": torch.zeros(3)}, tmp_path / "pickle.pt")
    return (tmp_path / "pickle.pt").read_bytes()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda _: b"", "not a safetensors file"),
        (lambda _: b"hello, this is text", "not a safetensors file"),
        (pickled, "not a safetensors file"),
        (lambda _: struct.pack("<Q", 2**63) + b"{}", "not a safetensors file"),
        (lambda _: safetensors_bytes(b"[]"), "not a safetensors file"),
        (lambda _: safetensors_bytes(b"\xff\xfe"), "not a safetensors file"),
        (lambda _: safetensors_bytes(b"[" * 100_000), "not a safetensors file"),
        (lambda _: safetensors_bytes(b'{"__metadata__": 3}'), "not a safetensors file"),
        (lambda _: safetensors_bytes(b'{"__metadata__": {"oasisvq": 3}}'), "not a safetensors file"),
        (lambda _: save_arrays({"weight": np.zeros(3)}), "not a model of oasisvq"),
        (lambda _: save_arrays({}, {"format": "pt"}), "not a model of oasisvq"),
        (lambda _: save_arrays({}, {METADATA_KEY: "no JSON"}), "metadata is not JSON"),
        (lambda _: save_arrays({}, {METADATA_KEY: "[" * 100_000}), "metadata is not JSON"),
        (lambda _: save_arrays({}, {METADATA_KEY: "[1]"}), "model format"),
    ],
)
def test_what_is_no_model_of_ours_is_refused(
    content: Callable[[Path], bytes], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(content(tmp_path))
    with pytest.raises(ModelError, match=message) as caught:
        read_model(path)
    assert str(path) in str(caught.value)


def test_what_is_no_file_is_a_file_error(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="no such file"):
        read_model(tmp_path / "missing.safetensors")
    with pytest.raises(FileError, match="is a folder"):
        read_model(tmp_path)


def test_a_file_beyond_the_limit_is_a_file_error(
    model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(modelfile, "MAX_MODEL_BYTES", 1000)
    with pytest.raises(FileError, match="more than 1,000 bytes"):
        read_model(model_file)


def test_a_failed_save_leaves_the_old_model(tmp_path: Path, model_file: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(model_file.read_bytes())
    with pytest.raises(TypeError):
        write_model(file_of(tiny_model(), {"card": object()}), path)
    assert path.read_bytes() == model_file.read_bytes()
    assert list(tmp_path.iterdir()) == [path]


def test_every_field_of_the_config_is_stored(model_file: Path) -> None:
    stored = header_of(model_file.read_bytes())
    assert stored["format"] == 2
    assert stored["config"].keys() | {"context"} == {field.name for field in fields(ModelConfig)}
    assert config_to_dict(replace(TINY, context=1))["context"] == 1  # named where it is not the default
