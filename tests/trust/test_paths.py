"""Names in files are no paths: none leads out of a folder, none is opened."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from hostile import HOSTILE, Run, assert_shown_safely, token_arrays

from oasisvq.errors import CodesFileError
from oasisvq.tokens import Tokens, read_tokens, write_tokens

OUTSIDE = [
    *("../evil", "a/../../evil", "/tmp/evil", "..", "", ".", "a//../..", "a/./b"),
    *("..\\evil", "a\\..\\..\\evil", "C:\\evil", "C:evil", "\\\\server\\share\\evil"),
    *("NUL", "a/con", "com1.png", "LPT9", "aux.b.c", "CONIN$"),
    *("a\0b", "\ud800", "a./b", "a /b", ".. /evil", "/", "a/", "/a"),
    "x" * 252,
    "é" * 126,
]


@pytest.mark.parametrize("name", OUTSIDE, ids=lambda name: ascii(name[:20]))
@pytest.mark.parametrize("ending", [".npz", ".safetensors"])
def test_names_in_an_array_file_lead_to_no_path_outside(tmp_path: Path, name: str, ending: str) -> None:
    path = tmp_path / f"t{ending}"
    arrays = token_arrays("a", "b")
    arrays.pop("names"), arrays.pop("subjects")
    if ending == ".npz" and "\0" in name:
        pytest.skip("NumPy's strings end there")
    write_tokens(Tokens(arrays, ["a", name], ["", ""]), path)
    with pytest.raises(CodesFileError, match="name"):
        read_tokens(path)


def test_other_names_are_kept(tmp_path: Path) -> None:
    names = ["a", "A", "b/a", "b c/.d", "12:30", "null", "x" * 251, f"a{HOSTILE}", "..a", "comet"]
    names = [name.replace("\\", "") for name in names]
    np.savez(tmp_path / "t.npz", **token_arrays(*names))
    assert read_tokens(tmp_path / "t.npz").names == names


def test_a_name_is_refused_before_it_is_exported(
    run: Run, model_file: Path, phantom_png: Path, tmp_path: Path
) -> None:
    """What `export` writes, `decode` takes back."""
    assert run("encode", phantom_png, "-o", "aux.codes", "--model", model_file).code == 0
    result = run("export", ".", "-o", "t.npz")
    assert_shown_safely(result, code=1)
    assert "the name 'aux' cannot be a path below the output folder; rename the file" in result.err


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    """The second would take the place of the first."""
    np.savez(tmp_path / "t.npz", **token_arrays("a", "a"))
    with pytest.raises(CodesFileError, match="two files named a"):
        read_tokens(tmp_path / "t.npz")


def test_paths_in_a_manifest_are_never_opened(
    run: Run, raw_folder: Path, model_file: Path, tmp_path: Path
) -> None:
    assert run("preprocess", raw_folder, "-o", "data2", "--size", "64").code == 0
    manifest = tmp_path / "data2" / "manifest.json"
    told = json.loads(manifest.read_text())
    (tmp_path / "pipe").mkdir()
    os.mkfifo(tmp_path / "pipe" / "x")  # who opens it waits for ever
    told["raw"] = str(tmp_path / "pipe")
    for split in told["splits"].values():
        for place, record in enumerate(split["slices"]):
            record["source"] = ["../pipe/x", str(tmp_path / "pipe" / "x")][place % 2]
    manifest.write_text(json.dumps(told))
    for command in (("info", "data2"), ("score", "data2", "--model", model_file)):
        assert_shown_safely(run(*command))
    told["splits"]["../data/train"] = told["splits"]["train"]
    manifest.write_text(json.dumps(told))
    refused = run("info", "data2")
    assert refused.code == 1
    assert "unknown splits" in refused.err
