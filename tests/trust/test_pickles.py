"""Nothing that a file says is unpickled or run."""

import ast
import io
import pickle
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hostile import Run, assert_shown_safely, token_arrays

import oasisvq

CODE_OR_PICKLES = {
    *("pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"),
    *("yaml", "runpy", "code", "xmlrpc", "imp"),
}
RUNS_ITS_ARGUMENT = {"eval", "exec", "compile", "__import__"}
UNPICKLES = {("torch", "load"), ("torch.jit", "load"), ("torch.package", "PackageImporter")}


def unpickling(source: str) -> list[str]:
    """What in a module's source could run what a file says."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names]
            found += [name for name in names if name.split(".")[0] in CODE_OR_PICKLES]
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        owner, _, name = called.rpartition(".")
        if called in RUNS_ITS_ARGUMENT or (owner, name) in UNPICKLES:
            found.append(called)
        if called in ("np.load", "numpy.load", "np.lib.format.read_array"):
            told = {each.arg: ast.unparse(each.value) for each in node.keywords}
            if told.get("allow_pickle") != "False":
                found.append(f"{called} without allow_pickle=False")
    return found


def test_the_package_unpickles_and_runs_nothing_that_a_file_says() -> None:
    modules = sorted(Path(oasisvq.__file__).parent.rglob("*.py"))
    assert len(modules) > 50
    found = {path.name: unpickling(path.read_text("utf-8")) for path in modules}
    assert not any(found.values()), found


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from pickle import loads",
        "import torch\ntorch.load('m.pt')",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "eval(text)",
        "import yaml\nyaml.load(text)",
    ],
)
def test_what_would_be_found(source: str) -> None:
    assert unpickling(source)


class Canary:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


@pytest.fixture
def canary(tmp_path: Path) -> Iterator[Canary]:
    """It sings where it is asked to, and not in a test."""
    bird = Canary(tmp_path / "canary")
    pickle.loads(pickle.dumps(bird))
    assert bird.path.is_file()
    bird.path.unlink()
    yield bird
    assert not bird.path.exists()


def npy(array: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    return stream.getvalue()


@pytest.mark.parametrize("name", ["x.png", "x.nii", "x.nii.gz", "x.dcm", "x.npy", "x.codes"])
def test_a_pickle_in_place_of_a_scan_or_codes(
    run: Run, canary: Canary, model_file: Path, tmp_path: Path, name: str
) -> None:
    command = "decode" if name.endswith(".codes") else "encode"
    for content in (npy(np.array([canary], object)), pickle.dumps(canary)):
        (tmp_path / name).write_bytes(content)
        result = run(command, name, "-o", "out.codes" if command == "encode" else "out.png")
        assert_shown_safely(result, code=1)


def test_a_pickle_in_place_of_a_model_or_checkpoint(
    run: Run, canary: Canary, raw_folder: Path, phantom_png: Path, tmp_path: Path
) -> None:
    run_folder = tmp_path / "oasisvq-run"
    run_folder.mkdir()
    for write in (torch.save, lambda bird, path: path.write_bytes(pickle.dumps(bird))):
        write(canary, tmp_path / "m.safetensors")
        shutil.copy(tmp_path / "m.safetensors", run_folder / "checkpoint.safetensors")
        for command in (
            ("encode", phantom_png, "--model", "m.safetensors"),
            ("info", "m.safetensors"),
            ("train", raw_folder, "--resume", "--device", "cpu"),
            ("train", raw_folder, "--start-from", "m.safetensors", "-o", "new", "--device", "cpu"),
        ):
            assert_shown_safely(run(*command), code=1)


def test_objects_in_a_dataset_and_in_tokens(
    run: Run, canary: Canary, raw_folder: Path, model_file: Path, tmp_path: Path
) -> None:
    assert run("preprocess", raw_folder, "-o", "data2", "--size", "64").code == 0
    birds = np.full((8, 64, 64), None, object)
    birds[0, 0, 0] = canary
    (tmp_path / "data2" / "validation.npy").write_bytes(npy(birds))
    assert_shown_safely(run("score", "data2", "--model", model_file), code=1)
    assert_shown_safely(run("train", "data2", "--device", "cpu"), code=1)
    for field in ("indices", "names"):
        np.savez(tmp_path / "t.npz", **(token_arrays("a") | {field: np.array([canary], object)}))
        assert_shown_safely(run("decode", "t.npz", "-o", "out", "--model", model_file), code=1)
