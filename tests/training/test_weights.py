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
from conftest import TINY, draw_phantom, tiny_model
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from oasisvq.codec import modelfile
from oasisvq.codec.config import ModelConfig, config_from_dict, config_to_dict
from oasisvq.codec.modelfile import METADATA_KEY, read_header
from oasisvq.errors import FileError, ModelError
from oasisvq.training.weights import Model, file_of, load_model, save_model

CARD = {"images": "scans", "size": 64, "note": "Grauwert ±½"}
# It names the model in every `.codes` file: if it changes, all of them lose their model.
GOLDEN_FINGERPRINT = "fcd958852353a0ec"


def ramp_tensors(config: ModelConfig = TINY) -> dict[str, Tensor]:
    """Tensors of a model's shapes, with exact values that no random generator drew."""
    state = Model(config).state_dict()
    return {
        name: (torch.arange(tensor.numel()) % 509 / 512 - 0.5).reshape(tensor.shape)
        for name, tensor in state.items()
    }


def fingerprint(config: ModelConfig, tensors: dict[str, Tensor]) -> bytes:
    return modelfile.fingerprint(config, {name: tensor.numpy() for name, tensor in tensors.items()})


def rewrite(
    path: Path,
    source: Path,
    *,
    tensors: Callable[[dict[str, Tensor]], object] = lambda tensors: None,
    header: Callable[[dict[str, Any]], object] = lambda header: None,
) -> Path:
    """A copy of a model file, with its tensors and its header changed in place."""
    content = source.read_bytes()
    stored, described = load_tensors(content), header_of(content)
    del described["fingerprints"]  # which would give every change away
    tensors(stored)
    header(described)
    path.write_bytes(save_tensors(stored, {METADATA_KEY: json.dumps(described)}))
    return path


def header_of(content: bytes) -> dict[str, Any]:
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(json.loads(content[8 : 8 + length])["__metadata__"][METADATA_KEY])
    assert isinstance(header, dict)
    return header


def test_load_is_the_inverse_of_save(tmp_path: Path) -> None:
    model = tiny_model()
    save_model(model, tmp_path / "model.safetensors", CARD)
    file = load_model(tmp_path / "model.safetensors")
    assert file.card == CARD
    assert file.model.config == TINY
    assert not file.model.training
    assert not any(parameter.requires_grad for parameter in file.model.parameters())
    restored = file.model.state_dict()
    assert restored.keys() == model.state_dict().keys()
    for name, tensor in model.state_dict().items():
        assert restored[name].dtype == torch.float32
        stored = tensor if name == "quantizer.codebooks" else tensor.half().float()
        assert torch.equal(restored[name], stored), name


def test_what_is_loaded_computes_as_what_was_saved(tmp_path: Path, rng: np.random.Generator) -> None:
    model = tiny_model()
    save_model(model, tmp_path / "model.safetensors", {})
    loaded = load_model(tmp_path / "model.safetensors").model
    pixels = torch.from_numpy(draw_phantom(rng, 40, 48)).float()[None, None] / 255
    with torch.inference_mode():
        latents = model.encoder(pixels)
        torch.testing.assert_close(loaded.encoder(pixels), latents, atol=1e-3, rtol=1e-3)
        torch.testing.assert_close(
            loaded.decoder(latents), model.decoder(latents), atol=1 / 255 / 4, rtol=0
        )


def test_saving_a_loaded_model_gives_the_same_file(tmp_path: Path, model_file: Path) -> None:
    file = load_model(model_file)
    save_model(file.model, tmp_path / "again.safetensors", file.card)
    assert (tmp_path / "again.safetensors").read_bytes() == model_file.read_bytes()


def test_the_fingerprint_is_fixed() -> None:
    assert fingerprint(TINY, ramp_tensors()).hex() == GOLDEN_FINGERPRINT


def test_the_fingerprint_survives_saving(tmp_path: Path, model_file: Path) -> None:
    file = load_model(model_file)
    assert file_of(file.model, {}).fingerprint == file.fingerprint
    assert len(file.fingerprint) == 8
    save_model(file.model, tmp_path / "again.safetensors", file.card)
    assert load_model(tmp_path / "again.safetensors").fingerprint == file.fingerprint


def test_the_fingerprint_does_not_depend_on_the_card(tmp_path: Path, model_file: Path) -> None:
    path = rewrite(tmp_path / "x", model_file, header=lambda header: header.update(card={"other": 1}))
    assert load_model(path).card == {"other": 1}
    assert load_model(path).fingerprint == load_model(model_file).fingerprint


def test_the_fingerprint_does_not_depend_on_order_layout_or_stored_type() -> None:
    tensors = ramp_tensors()  # all are exact in half precision
    expected = fingerprint(TINY, tensors)
    assert fingerprint(TINY, dict(reversed(tensors.items()))) == expected
    assert fingerprint(TINY, {name: tensor.half() for name, tensor in tensors.items()}) == expected
    strided = {
        name: tensor.contiguous(memory_format=torch.channels_last) if tensor.dim() == 4 else tensor
        for name, tensor in tensors.items()
    }
    assert fingerprint(TINY, strided) == expected


def test_the_fingerprint_changes_with_any_tensor() -> None:
    tensors = ramp_tensors()
    seen = {fingerprint(TINY, tensors)}
    for name, tensor in tensors.items():
        for place in (0, -1):
            changed = tensor.clone()
            changed.view(-1)[place] += 1 / 512
            seen.add(fingerprint(TINY, {**tensors, name: changed}))
    weight, other, codebooks = (
        "encoder.layers.1.weight",
        "decoder.layers.0.weight",
        "quantizer.codebooks",
    )
    seen.add(fingerprint(TINY, {**tensors, codebooks: tensors[codebooks].reshape(-1)}))
    swapped = {weight: tensors[other], other: tensors[weight]}
    seen.add(fingerprint(TINY, {**tensors, **swapped}))
    assert len(seen) == 2 * len(tensors) + 3


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
    tensors = ramp_tensors()
    assert fingerprint(replace(TINY, **changes), tensors) != fingerprint(TINY, tensors)


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
        (replace_config("decoder_blocks", [64] * 3), r"\d+ tensors, but 194 blocks"),
        (replace_config("stride", 0), "stride is 0"),
        (replace_config("code_dim", 7), "tensors do not fit its config"),
        (replace_config("decoder_blocks", [1, 1, 1]), "tensors do not fit its config"),
        (lambda header: header.update(format=2), "model format 2, .* reads format 1; update"),
        (lambda header: header.update(format="1"), "model format '1'"),
        (lambda header: header.pop("format"), "model format None"),
    ],
)
def test_another_header_is_refused(
    change: Callable[[dict[str, Any]], object], message: str, tmp_path: Path, model_file: Path
) -> None:
    path = rewrite(tmp_path / "x.safetensors", model_file, header=change)
    with pytest.raises(ModelError, match=message) as caught:
        load_model(path)
    assert str(path) in str(caught.value)


def with_value(name: str, value: float) -> Callable[[dict[str, Tensor]], object]:
    def change(tensors: dict[str, Tensor]) -> None:
        tensors[name].view(-1)[-1] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors: tensors.pop("quantizer.codebooks"), "first quantizer.codebooks"),
        (lambda tensors: tensors.update(extra=torch.zeros(3)), "1 tensors do not fit .* first extra"),
        (
            lambda tensors: tensors.update({"quantizer.codebooks": torch.zeros(3, 20, 5)}),
            "first quantizer.codebooks",
        ),
        (
            lambda tensors: tensors.update({"quantizer.codebooks": torch.zeros(3 * 20 * 6)}),
            "first quantizer.codebooks",
        ),
        (
            lambda tensors: tensors.update({"quantizer.codebooks": torch.ones(3, 20, 6).int()}),
            "no numbers",
        ),
        (
            lambda tensors: tensors.update(
                {"quantizer.codebooks": torch.ones(3, 20, 6).double() * 1e300}
            ),
            "no numbers",
        ),
        (lambda tensors: tensors.clear(), "0 tensors, but 4 blocks"),
        (with_value("quantizer.codebooks", float("nan")), "no numbers"),
        (with_value("quantizer.codebooks", float("inf")), "no numbers"),
        (with_value("encoder.layers.1.weight", float("nan")), "no numbers"),
        (with_value("decoder.layers.0.bias", float("-inf")), "no numbers"),
    ],
)
def test_other_tensors_are_refused(
    change: Callable[[dict[str, Tensor]], object], message: str, tmp_path: Path, model_file: Path
) -> None:
    path = rewrite(tmp_path / "x.safetensors", model_file, tensors=change)
    with pytest.raises(ModelError, match=message) as caught:
        load_model(path)
    assert str(path) in str(caught.value)


def test_every_kind_of_truncation_is_refused(tmp_path: Path, model_file: Path) -> None:
    content = model_file.read_bytes()
    path = tmp_path / "x.safetensors"
    (header_length,) = struct.unpack("<Q", content[:8])
    lengths = {*range(12), header_length, header_length + 7, header_length + 8, len(content) - 1}
    for length in sorted(lengths | set(range(0, len(content), 997))):
        path.write_bytes(content[:length])
        with pytest.raises(ModelError, match=r"x\.safetensors: "):
            load_model(path)


def test_bytes_after_the_end_are_refused(tmp_path: Path, model_file: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(model_file.read_bytes() + b"\0")
    with pytest.raises(ModelError, match="damaged model file"):
        load_model(path)


def test_a_damaged_header_is_refused(tmp_path: Path, model_file: Path) -> None:
    content = model_file.read_bytes()
    path = tmp_path / "x.safetensors"
    for position in range(0, 8 + struct.unpack("<Q", content[:8])[0], 7):
        path.write_bytes(content[:position] + b"\xff" + content[position + 1 :])
        with pytest.raises(ModelError):
            load_model(path)


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
        (lambda _: save_tensors({"weight": torch.zeros(3)}), "not a model of oasisvq"),
        (lambda _: save_tensors({}, {"format": "pt"}), "not a model of oasisvq"),
        (lambda _: save_tensors({}, {METADATA_KEY: "no JSON"}), "metadata is not JSON"),
        (lambda _: save_tensors({}, {METADATA_KEY: "[" * 100_000}), "metadata is not JSON"),
        (lambda _: save_tensors({}, {METADATA_KEY: "[1]"}), "model format"),
    ],
)
def test_what_is_no_model_of_ours_is_refused(
    content: Callable[[Path], bytes], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(content(tmp_path))
    with pytest.raises(ModelError, match=message) as caught:
        load_model(path)
    assert str(path) in str(caught.value)


def test_what_is_no_file_is_a_file_error(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="no such file"):
        load_model(tmp_path / "missing.safetensors")
    with pytest.raises(FileError, match="is a folder"):
        load_model(tmp_path)


def test_a_file_beyond_the_limit_is_a_file_error(
    model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(modelfile, "MAX_MODEL_BYTES", 1000)
    with pytest.raises(FileError, match="more than 1,000 bytes"):
        load_model(model_file)


def test_a_failed_save_leaves_the_old_model(tmp_path: Path, model_file: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(model_file.read_bytes())
    with pytest.raises(TypeError):
        save_model(tiny_model(), path, {"card": object()})
    assert path.read_bytes() == model_file.read_bytes()
    assert list(tmp_path.iterdir()) == [path]


def test_every_field_of_the_config_is_stored(model_file: Path) -> None:
    stored = header_of(model_file.read_bytes())
    assert stored["format"] == 1
    assert stored["config"].keys() == {field.name for field in fields(ModelConfig)}
