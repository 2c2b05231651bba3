"""Help, version, start, and calls that are wrong."""

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Refused, Run, snapshot

import oasisvq
from oasisvq.cli.app import app

MAIN_OPTION = {
    "preprocess": "--output",
    "train": "--preset",
    "encode": "--quality",
    "decode": "--output",
    "export": "--output",
    "score": "--split",
    "sample": "--temperature",
    "info": "--json",
}


COMMANDS = [
    command.name or command.callback.__name__ for command in app.registered_commands if command.callback
]


def test_version(run: Run) -> None:
    result = run("--version")
    assert (result.code, result.out, result.err) == (0, f"oasisvq {oasisvq.__version__}\n", "")


def test_help_names_every_command(run: Run) -> None:
    for flag in ("--help", "-h"):
        result = run(flag)
        assert result.code == 0
        assert result.err == ""
        assert all(f"\n  {command} " in result.out for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_every_command(run: Run, command: str) -> None:
    for flag in ("--help", "-h"):
        result = run(command, flag)
        assert result.code == 0
        assert result.out.startswith(f"Usage: oasisvq {command} ")
        assert MAIN_OPTION.get(command, "--help") in result.out
        assert "\x1b" not in result.out


def test_what_needs_no_torch_does_not_import_it(
    run: Run, model_file: Path, phantom_png: Path, tmp_path: Path
) -> None:
    run("encode", phantom_png, "--model", model_file)
    for arguments in (["--help"], ["encode", "--help"], ["--version"], ["info", "scan.codes"]):
        process = subprocess.run(
            [sys.executable, "-X", "importtime", "-m", "oasisvq", *arguments],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
        )
        imported = {line.rsplit("|", 1)[-1].strip() for line in process.stderr.splitlines()}
        assert "oasisvq.cli.app" in imported
        assert not imported & {"torch", "skimage", "safetensors", "constriction"}
        assert process.stdout


# usage


@pytest.mark.parametrize(
    ("arguments", "naming"),
    [
        (("encode", "scan.png", "--bogus"), "--bogus"),
        (("bogus", "scan.png"), "bogus"),
        (("encode", "scan.png", "-q", "high"), "--quality"),
        (("train", "data", "--device", "tpu"), "tpu"),
        (("encode", "scan.png", "--device", "cpu"), "--device"),
        (("train", "data", "--epochs", "0"), "--epochs"),
        (("train", "data", "--preset", "huge"), "huge"),
        (("train", "data", "--batch-size", "-4"), "--batch-size"),
        (("train", "data", "--prior-only"), "--model"),
        (("train", "data", "--model", "x"), "--prior-only"),
        (("train", "data", "--prior-only", "--no-prior", "--model", "x"), "--no-prior"),
        (
            ("train", "data", "--prior-only", "--model", "x", "--epochs", "2"),
            "--epochs is for the codec",
        ),
        (("train", "data", "--residue-only", "--model", "x", "--levels", "2"), "--levels"),
        (("train", "data", "--volumes-only", "--model", "x", "--residue-epochs", "1"), "residue"),
        (("train", "data", "--no-prior", "--prior-batch-size", "2"), "--prior-batch-size is for"),
        (("train", "data", "--prior-only", "--model", "x", "--compile"), "--compile"),
        (("encode", "scan.png", "--coder", "zip"), "zip"),
        (("sample",), "--output"),
        (("sample", "-n", "0", "-o", "a.png"), "--count"),
        (("sample", "-n", "2", "-o", "a.codes"), "-n 1"),
        (("sample", "-o", "a.png", "--codes"), "--codes"),
        (("sample", "-o", "folder", "--neighbours", "data"), "--neighbours"),
        (("sample", "-o", "a.png", "--temperature", "0"), "--temperature"),
        (("sample", "-o", "a.png", "--seed", "-1"), "--seed"),
    ],
    ids=str,
)
def test_usage_error(
    run: Run, phantom_png: Path, tmp_path: Path, arguments: tuple[str, ...], naming: str
) -> None:
    before = snapshot(tmp_path)
    result = run(*arguments)
    assert result.code == 2
    assert result.out == ""
    assert naming in result.err.splitlines()[-1]
    assert "Traceback" not in result.err
    assert snapshot(tmp_path) == before


def test_missing_arguments_are_usage_errors(run: Run) -> None:
    for arguments, wanted in (
        (("encode",), "input"),
        (("preprocess", "data"), "--output"),
        (("show",), "source"),
    ):
        result = run(*arguments)
        assert result.code == 2
        assert wanted in result.err.splitlines()[-1].lower()


@pytest.mark.parametrize("command", ["encode", "decode"])
def test_folder_without_an_output_is_a_usage_error(
    refused: Refused, phantom_png: Path, command: str
) -> None:
    refused(command, phantom_png.parent, naming="-o", code=2)
