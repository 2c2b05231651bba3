"""Names of files as they are printed."""

import os
from pathlib import Path

import pytest
from conftest import Refused, Run

HOSTILE = "scan\x1b]0;title\x07\x1b[31m\rred"


def test_escape_sequences_in_names_never_reach_the_terminal_by_an_error(
    refused: Refused, tmp_path: Path
) -> None:
    (tmp_path / f"{HOSTILE}.png").write_text("no image")
    line = refused("encode", f"{HOSTILE}.png", naming="\\x1b]0;title\\x07\\x1b[31m\\rred")
    assert line.isprintable()


def test_newline_in_a_name_cannot_forge_a_line(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "scan\noasisvq: all is well.png").write_text("no image")
    refused("encode", "scan\noasisvq: all is well.png", naming="scan\\noasisvq: all is well.png")


def test_escape_sequences_in_names_never_reach_the_terminal_by_a_result(
    run: Run, model_file: Path, phantom_png: Path, tmp_path: Path
) -> None:
    scans = tmp_path / HOSTILE
    scans.mkdir()
    phantom_png.rename(scans / f"{HOSTILE}.png")
    (scans / f"{HOSTILE}2.png").write_text("no image")
    codes = scans / f"{HOSTILE}.codes"
    for command in (
        ("encode", scans / f"{HOSTILE}.png"),
        ("decode", codes),
        ("encode", scans, "-o", f"{HOSTILE}-codes"),
        ("decode", f"{HOSTILE}-codes", "-o", f"{HOSTILE}-images"),
    ):
        result = run(*command, "--model", model_file)
        printed = (result.out + result.err).replace("\n", "")
        assert "red" in printed
        assert printed.isprintable()
    assert codes.is_file()


def test_name_that_is_no_unicode(run: Run, model_file: Path, phantom_png: Path) -> None:
    """Bytes of an older encoding, as archives of old scans have them."""
    name = os.fsdecode(b"M\xfcller.png")
    try:
        phantom_png.rename(phantom_png.with_name(name))
    except OSError:
        pytest.skip("this file system takes only Unicode names")
    encoded = run("encode", name, "--model", model_file)
    assert encoded.code == 0
    assert "ller.codes" in encoded.out
    decoded = run("decode", os.fsdecode(b"M\xfcller.codes"), "--model", model_file)
    assert decoded.code == 0
    assert phantom_png.with_name(os.fsdecode(b"M\xfcller.decoded.png")).is_file()
