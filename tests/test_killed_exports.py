"""Exports that are killed, or replace another one: all of it or nothing."""

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import draw_phantom

import oasisvq
from oasisvq import files
from oasisvq.gathering import Gathering
from oasisvq.tokens import read_tokens

KILLED = """
import os, signal, sys
from pathlib import Path
from oasisvq.gathering import Gathering

class Killed(Gathering):
    def blocks(self):
        yield next(super().blocks())
        os.kill(os.getpid(), signal.SIGKILL)

Killed(Path(sys.argv[1])).write(Path(sys.argv[2]))
"""


@pytest.fixture
def folder(tmp_path: Path, model_file: Path, rng: np.random.Generator) -> Path:
    """Two `.codes` files that need no model to be read."""
    codec = oasisvq.load(model_file)
    (tmp_path / "codes").mkdir()
    for name in ("a", "b"):
        (tmp_path / "codes" / f"{name}.codes").write_bytes(codec.encode(draw_phantom(rng)))
    (tmp_path / "out").mkdir()
    return tmp_path / "codes"


@pytest.mark.parametrize("suffix", [".npz", ".safetensors", ".tokens"])
@pytest.mark.parametrize("has_old", [False, True])
def test_a_killed_export_leaves_the_old_one_or_none(
    suffix: str, has_old: bool, folder: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out" / f"all{suffix}"
    if has_old:
        (folder / "b.codes").rename(tmp_path / "b.codes")
        Gathering(folder).write(output)
        (tmp_path / "b.codes").rename(folder / "b.codes")
    command = [sys.executable, "-c", KILLED, folder, output]
    ended = subprocess.run(command, capture_output=True, check=False)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert output.exists() == has_old
    if has_old:
        assert read_tokens(output).names == ["a"]
    files._clear_once.cache_clear()  # as in another process
    Gathering(folder).write(output)  # which removes what the killed one left
    assert read_tokens(output).names == ["a", "b"]
    assert list(output.parent.iterdir()) == [output]
