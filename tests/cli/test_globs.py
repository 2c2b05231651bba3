"""`--include` and `--exclude` of runs over folders."""

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import Refused, Run, draw_phantom, files_below
from PIL import Image

from oasisvq.tokens import read_tokens


@pytest.fixture
def codes(run: Run, model_file: Path, tmp_path: Path, rng: np.random.Generator) -> Path:
    """Of three images, one of them excluded."""
    for name in ("a.png", "masks/a.png", "sub-1/b.png", "sub-2/b.png"):
        path = tmp_path / "scans" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw_phantom(rng)).save(path)
    arguments = "encode", "scans", "-o", "codes", "--exclude", "masks", "--model", model_file
    result = run(*arguments, "--dry-run")
    assert "3 to encode" in result.out
    result = run(*arguments, "--no-model")
    assert "codes: 3 encoded" in result.out
    assert "passed over: 1 file left out by --include or --exclude" in result.out
    return tmp_path / "codes"


def test_each_command_takes_what_is_chosen(run: Run, codes: Path, tmp_path: Path) -> None:
    assert set(files_below(codes)) == {"a.codes", "sub-1/b.codes", "sub-2/b.codes"}
    assert "2 decoded" in run("decode", codes, "-o", "back", "--include", "sub-*").out
    assert set(files_below(tmp_path / "back")) == {"sub-1/b.png", "sub-2/b.png"}
    chosen = "--include", "*/b.codes", "--include", "a.*", "--exclude", "sub-2/"
    assert run("export", codes, "-o", "all.npz", *chosen).code == 0
    assert read_tokens(tmp_path / "all.npz").names == ["a", "sub-1/b"]
    verified = json.loads(run("verify", codes, *chosen, "--json").out)
    assert verified["totals"]["checked"] == 2
    assert verified["passed_over"] == {"file left out by --include or --exclude": 1}


def test_nothing_is_left(refused: Refused, codes: Path, tmp_path: Path) -> None:
    told = "passed over: 4 files left out by --include or --exclude"
    refused("encode", "scans", "-o", "none", "--include", "*.nii", naming=told)
    refused("export", codes, "-o", "none.npz", "--exclude", "*", naming="3 files left out")
