"""Which model, quality and device a command takes, and those it cannot."""

import json
import struct
from pathlib import Path

import pytest
import torch
from conftest import Refused, Run, fingerprint
from safetensors.torch import load_file, save_file

import oasisvq


def test_the_environment_names_the_model(
    run: Run,
    model_file: Path,
    tmp_path: Path,
    phantom_png: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OASISVQ_MODEL", str(model_file))
    result = run("encode", phantom_png)
    assert result.code == 0
    assert f"{model_file} ($OASISVQ_MODEL)" in result.err
    header = oasisvq.read_codes(tmp_path / "scan.codes").header
    assert header.fingerprint.hex() == fingerprint(model_file)


def test_models_are_looked_for_in_a_fixed_order(
    run: Run,
    model_file: Path,
    other_model: Path,
    tmp_path: Path,
    phantom_png: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """--model, then $OASISVQ_MODEL, then the run folder of this folder."""
    (tmp_path / "oasisvq-run").mkdir()
    (tmp_path / "oasisvq-run" / "model.safetensors").write_bytes(model_file.read_bytes())
    trained = run("encode", phantom_png, "-f")
    assert "(the model trained in this folder)" in trained.err
    assert fingerprint(model_file)[:8] in trained.err
    monkeypatch.setenv("OASISVQ_MODEL", str(other_model))
    assert fingerprint(other_model)[:8] in run("encode", phantom_png, "-f").err
    named = run("encode", phantom_png, "-f", "--model", model_file)
    assert fingerprint(model_file)[:8] in named.err


def test_model_takes_a_run_folder(run: Run, other_model: Path, phantom_png: Path) -> None:
    result = run("encode", phantom_png, "--model", other_model.parent)
    assert result.code == 0
    assert f"model {fingerprint(other_model)[:8]}: {other_model} (named)" in result.err


def test_model_that_is_not_there(
    refused: Refused, phantom_png: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "run").mkdir()
    for model in ("run", "gone.safetensors"):
        refused("encode", phantom_png, "--model", model, naming=model)
    monkeypatch.setenv("OASISVQ_MODEL", "gone.safetensors")
    refused("encode", phantom_png, naming="gone.safetensors")


def test_file_that_is_no_model(
    refused: Refused, phantom_png: Path, model_file: Path, tmp_path: Path
) -> None:
    model = tmp_path / "broken.safetensors"
    save_file({"weight": torch.zeros(3)}, model)
    other = model.read_bytes()
    whole = model_file.read_bytes()
    for content in (other, b"", b"a text, and no model", whole[:-100], whole[:100]):
        model.write_bytes(content)
        for command in (("encode", phantom_png, "--model", model), ("info", model)):
            refused(*command, naming="broken.safetensors")


def test_prior_that_is_damaged(
    refused: Refused, phantom_png: Path, prior_model_file: Path, tmp_path: Path
) -> None:
    """Also where the safetensors file is whole."""
    content = prior_model_file.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    metadata = json.loads(content[8 : 8 + length])["__metadata__"]
    without = {**json.loads(metadata["oasisvq"]), "prior": None}
    other = json.loads(metadata["oasisvq"])
    other["prior"]["kinds"] = 5
    fewer = json.loads(metadata["oasisvq"])
    fewer["prior"]["codebook_size"] = 21
    for header, naming in (
        (without, "arrays of a prior, but no config"),
        (other, "prior: array kinds.centre"),
        (fewer, "its prior knows 3 levels of 21 codes"),
    ):
        save_file(load_file(prior_model_file), tmp_path / "x", {"oasisvq": json.dumps(header)})
        for command in (
            ("encode", phantom_png, "--model", "x"),
            ("sample", "-o", "a.png", "--model", "x"),
        ):
            assert "x: " in refused(*command, naming=naming)
    tensors = load_file(prior_model_file)
    tensors["prior.level1.first.scale"] = -tensors["prior.level1.first.scale"]
    save_file(tensors, tmp_path / "x", metadata)
    refused("encode", phantom_png, "--model", "x", naming="x: damaged model file: prior: a scale")


@pytest.mark.parametrize("quality", ["0", "99", "-1"])
def test_quality_out_of_range(refused: Refused, phantom_png: Path, prepared: Path, quality: str) -> None:
    for command in (
        ("encode", phantom_png),
        ("encode", phantom_png.parent, "-o", "codes"),
        ("score", prepared),
    ):
        line = refused(*command, "-q", quality, naming=f"quality {quality}")
        assert "1 to 3" in line


def test_device_that_is_not_there(
    refused: Refused, prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    line = refused("train", prepared, "--device", "cuda", naming="no cuda device on this machine")
    assert "--device auto" in line
