"""Trainings that cannot start or go on."""

from pathlib import Path

import pytest
from conftest import Refused


def test_batch_larger_than_the_set(refused: Refused, prepared: Path) -> None:
    line = refused("train", prepared, "--preset", "seed", "--batch-size", "5", naming="prepared")
    assert "4 training slices" in line
    assert "--batch-size" in line


@pytest.mark.parametrize("taken", ["checkpoint.safetensors", "model.safetensors", "metrics.jsonl"])
def test_run_folder_that_holds_a_training(
    refused: Refused, prepared: Path, tmp_path: Path, taken: str
) -> None:
    (tmp_path / "oasisvq-run").mkdir()
    (tmp_path / "oasisvq-run" / taken).write_bytes(b"precious")
    line = refused("train", prepared, naming="oasisvq-run")
    assert taken in line
    assert "--resume" in line
    assert "-f" in line


@pytest.mark.parametrize("force", [(), ("-f",)], ids=["plain", "force"])
def test_run_folder_that_is_a_file(
    refused: Refused, prepared: Path, tmp_path: Path, force: tuple[str, ...]
) -> None:
    (tmp_path / "run").write_bytes(b"precious")
    for output in ("run", "run/deeper"):
        refused("train", prepared, "-o", output, *force, naming="run")


def test_resuming_without_a_checkpoint(refused: Refused, prepared: Path, tmp_path: Path) -> None:
    refused("train", prepared, "--resume", naming="oasisvq-run")
    (tmp_path / "run").mkdir()
    refused("train", prepared, "-o", "run", "--resume", naming="run: no checkpoint.safetensors")


def test_resuming_from_a_damaged_checkpoint(
    refused: Refused, prepared: Path, model_file: Path, tmp_path: Path
) -> None:
    (tmp_path / "run").mkdir()
    for content in (b"", b"no checkpoint", model_file.read_bytes()):
        (tmp_path / "run" / "checkpoint.safetensors").write_bytes(content)
        refused("train", prepared, "-o", "run", "--resume", naming="run/checkpoint.safetensors")


@pytest.mark.parametrize(
    "option",
    [
        ("--epochs", "3"),
        ("--batch-size", "2"),
        ("--learning-rate", "0.1"),
        ("--levels", "2"),
        ("--codebook-size", "9"),
        ("--preset", "seed"),
        ("--prior-epochs", "3"),
        ("--start-from", "x"),
    ],
    ids=lambda option: option[0],
)
def test_resuming_with_another_set_up(
    refused: Refused, prepared: Path, tmp_path: Path, option: tuple[str, str]
) -> None:
    (tmp_path / "oasisvq-run").mkdir()
    (tmp_path / "oasisvq-run" / "checkpoint.safetensors").write_bytes(b"not looked at")
    refused("train", prepared, "--resume", *option, naming=option[0])
