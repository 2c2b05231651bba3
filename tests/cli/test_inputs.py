"""Inputs that are not there."""

import os
from pathlib import Path

import pytest
from conftest import Refused

LONG_NAME = "a" * 300 + ".png"


@pytest.mark.parametrize(
    "command",
    [
        ("encode", "missing.png"),
        ("decode", "missing.codes"),
        ("info", "missing.codes"),
        ("score", "missing"),
        ("train", "missing"),
        ("preprocess", "missing", "-o", "prepared"),
    ],
    ids=lambda command: command[0],
)
def test_missing_input(refused: Refused, command: tuple[str, ...]) -> None:
    assert "no such f" in refused(*command, naming=command[1])


def test_dangling_link(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "scan.png").symlink_to(tmp_path / "gone.png")
    assert "dangling link" in refused("encode", "scan.png", naming="scan.png")


def test_score_without_arguments_looks_for_data(refused: Refused) -> None:
    refused("score", naming="data: no such folder")


@pytest.mark.parametrize("command", ["encode", "decode", "info", "score", "train", "preprocess"])
def test_name_longer_than_the_system_takes(refused: Refused, command: str) -> None:
    output = ["-o", "prepared"] if command == "preprocess" else []
    refused(command, LONG_NAME, *output, naming=LONG_NAME)


@pytest.mark.parametrize("command", ["encode", "decode", "preprocess"])
def test_output_name_longer_than_the_system_takes(
    refused: Refused, phantom_png: Path, raw_folder: Path, command: str
) -> None:
    source = raw_folder if command == "preprocess" else phantom_png
    refused(command, source, "-o", LONG_NAME, naming=LONG_NAME)


def test_pipe_as_input_does_not_hang(refused: Refused, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    assert "pipe or device" in refused("encode", "pipe.png", naming="pipe.png")
