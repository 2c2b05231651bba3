"""Names are shown escaped, by every command: escape sequences, line ends, markup.

Those in reports are the matter of evaluation/test_report.py.
"""

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import draw_phantom
from hostile import HOSTILE, RAW, Run, assert_shown_safely
from PIL import Image
from rich.console import Console

from oasisvq.cli.printing import progress_bar
from oasisvq.text import printable
from oasisvq.training.display import LiveReporter
from oasisvq.training.progress import LineReporter


def hostile_raw_folder(root: Path, rng: np.random.Generator) -> Path:
    """A folder for each of four subjects, one slice each."""
    for number in range(4):
        folder = root / f"{HOSTILE}{number}"
        folder.mkdir(parents=True)
        Image.fromarray(draw_phantom(rng, 80, 80)).save(folder / f"{HOSTILE}_slice_{number}.png")
    return root


def test_every_command_shows_hostile_names_escaped(
    run: Run, prior_model_file: Path, rng: np.random.Generator, tmp_path: Path
) -> None:
    """And none reaches for the network, see conftest.py."""
    raw = hostile_raw_folder(tmp_path / f"raw {HOSTILE}", rng)
    bad = tmp_path / f"bad {HOSTILE}"
    bad.mkdir()
    for name in (f"{HOSTILE}.png", f"{HOSTILE}.nii", f"{HOSTILE}.dcm", f"{HOSTILE}.codes"):
        (bad / name).write_text("nothing")
    scan = next(raw.rglob("*.png"))
    codes, run_folder, data = (tmp_path / f"{HOSTILE}{each}" for each in (".codes", " run", " data"))
    model = tmp_path / f"{HOSTILE}.safetensors"
    shutil.copy(prior_model_file, model)
    ours = ("--model", model)
    tokens = [tmp_path / f"{HOSTILE}{suffix}" for suffix in (".npz", ".safetensors")]
    out = tmp_path / f"out {HOSTILE}"
    setup = ("--preset", "seed", "--epochs", "1", "--batch-size", "2", "--no-prior", "--device", "cpu")
    for command in (
        ("encode", scan, "-o", codes, *ours),
        ("encode", raw, "-o", f"codes {HOSTILE}", *ours),
        ("decode", codes, *ours),
        ("decode", f"codes {HOSTILE}", "-o", out, *ours),
        ("show", codes, "--original", scan, "-o", f"{HOSTILE}.svg", *ours),
        ("show", codes, "--original", scan, "-o", f"{HOSTILE}.png", *ours),
        ("info", codes),
        ("info", model),
        ("verify", codes, f"codes {HOSTILE}", model, *ours),
        ("export", f"codes {HOSTILE}", "-o", tokens[0], *ours),
        ("preprocess", raw, "--dry-run"),
        ("preprocess", raw, "-o", data, "--size", "80", "--split", "50/50/0"),
        ("info", data),
        ("train", data, "-o", run_folder, *setup),
        ("info", run_folder),
        ("score", data, "--split", "train", "--model", run_folder),
        ("score", data, "--split", "train", "--model", run_folder, "--against", "jpeg"),
        ("score", scan, *ours),
        ("sample", "-n", "2", "-o", f"{HOSTILE} 2.png", *ours),
    ):
        assert_shown_safely(run(*command))
    for path in (codes, model, data):
        result = run("info", path, "--json")
        assert_shown_safely(result)
        json.loads(result.out)
        assert result.out.isascii()
    for command in (
        ("encode", bad, "-o", f"more {HOSTILE}", *ours),
        ("decode", bad, "-o", f"more {HOSTILE}", *ours),
        ("verify", bad),
        ("preprocess", bad, "-o", f"more {HOSTILE}"),
        ("train", bad),
        ("score", bad / f"{HOSTILE}.nii", *ours),
        ("info", f"none {HOSTILE}"),
        ("encode", scan, "--model", f"none {HOSTILE}"),
        ("decode", codes, "-o", f"none {HOSTILE}/x.png", *ours),
        ("show", codes, "--original", bad / f"{HOSTILE}.png", "-o", f"{HOSTILE} 3.png", *ours),
        ("export", bad, "-o", f"{HOSTILE} 2.npz"),
        ("score", data, "--split", HOSTILE, *ours),
    ):
        assert_shown_safely(run(*command), code=1)
    calls = (HOSTILE,), ("info", codes, HOSTILE), ("info", f"--{HOSTILE}"), ("score", "-q", HOSTILE)
    for command in calls:
        result = run(*command)
        assert result.code == 2
        assert not any(each in result.err for each in RAW), result
    picture = next(tmp_path.glob("*.svg")).read_text("utf-8")
    assert "\\x1b[31m" in picture
    assert "<b>" not in picture


def test_printable_text_is_left_alone_and_other_text_escaped() -> None:
    assert printable("Müller × 3 – 脳.png") == "Müller × 3 – 脳.png"
    shown = printable(HOSTILE)
    assert shown.isprintable()
    assert shown == "a\\x1b[31m\\x9b2J\\r\\nb\\u202ec\\u2066[red][link=x]$_^{$<b>&\"'\\udcfc"
    shown.encode("utf-8")


@pytest.mark.parametrize("reporter", [LineReporter, LiveReporter])
def test_notes_of_a_training_are_no_markup(reporter: type[LineReporter | LiveReporter]) -> None:
    stream = io.StringIO()
    reporter(Console(file=stream, force_terminal=True)).note(f"{HOSTILE}[/red] [bold]x[/bold]")
    assert stream.getvalue() == f"{printable(HOSTILE)}[/red] [bold]x[/bold]\n"


def test_the_description_of_a_progress_bar_is_no_markup(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(stream, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    with progress_bar(f"scoring [/red]{HOSTILE}") as advance:
        advance(1, 2)
    shown = stream.getvalue()
    assert "[/red]" in shown
    assert "[red]" in shown
    assert not any(each in shown for each in ("\x9b", "\u202e", "\udcfc", "\x1b[31m\\x9b"))


def test_names_where_the_locale_is_plain_ascii(tmp_path: Path) -> None:
    name = os.fsencode(tmp_path) + b"/M\xfcller \x1b[31m\xe2\x80\xae.codes"
    Path(os.fsdecode(name)).write_text("nothing")
    plain = {"LC_ALL": "C", "LANG": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    result = subprocess.run(
        [os.fsencode(sys.executable), b"-m", b"oasisvq", b"info", name],
        env=os.environ | plain,
        capture_output=True,
        check=False,
    )
    assert result.returncode == 1, result
    assert result.stderr.isascii()
    assert b"\x1b" not in result.stderr
    assert b"ller \\x1b[31m" in result.stderr
    assert b"Traceback" not in result.stderr
