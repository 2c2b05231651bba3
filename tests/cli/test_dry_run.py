"""What `encode --dry-run` says, what it leaves alone; `--quiet`; pipes."""

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import Refused, Run, draw_phantom, snapshot
from PIL import Image


@pytest.fixture(autouse=True)
def model(model_file: Path, monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    monkeypatch.setenv("OASISVQ_MODEL", str(model_file))


@pytest.fixture
def folder(tmp_path: Path, rng: np.random.Generator) -> Path:
    path = tmp_path / "in"
    path.mkdir()
    for place in range(6):
        Image.fromarray(draw_phantom(rng)).save(path / f"{place}.png")
    return path


def test_a_dry_run_of_one_file_knows_its_size_and_writes_nothing(
    run: Run, phantom_png: Path, tmp_path: Path, store: Path
) -> None:
    before = snapshot(tmp_path)
    dry = run("encode", "scan.png", "-q", "1", "-o", "out/", "--dry-run")
    assert dry.code == 0
    assert snapshot(tmp_path) == before and not any(store.iterdir())
    assert run("encode", "scan.png", "-q", "1", "-o", "out/").code == 0
    size = (tmp_path / "out" / "scan.codes").stat().st_size
    first, second = dry.out.splitlines()
    assert first == f"scan.png -> out/scan.codes: {size:,} bytes"
    assert second.startswith(f"1 to encode, {size:,} bytes, ") and second.endswith("nothing was written")


def test_a_dry_run_of_a_folder_estimates_by_some_files(run: Run, folder: Path, tmp_path: Path) -> None:
    before = snapshot(tmp_path)
    dry = run("encode", "in", "-o", "out", "--dry-run", "--json")
    assert dry.code == 0
    assert snapshot(tmp_path) == before
    files = json.loads(dry.out)["files"]
    assert [each["source"] for each in files] == [f"in/{place}.png" for place in range(6)]
    assert sum(each["is_tried"] for each in files) == 4
    done = json.loads(run("encode", "in", "-o", "out", "--json").out)
    assert sum(each["bytes_out"] for each in files) == pytest.approx(done["bytes_out"], rel=0.2)
    for each in files:
        if each["is_tried"]:
            assert each["bytes_out"] == Path(each["codes"]).stat().st_size


def test_a_dry_run_names_what_is_there_what_is_in_the_way_and_what_fails(
    run: Run, folder: Path, tmp_path: Path
) -> None:
    assert run("encode", "in", "-o", "out").code == 0
    (tmp_path / "out" / "0.codes").write_text("in the way")
    (tmp_path / "out" / "1.codes").unlink()
    (folder / "bad.png").write_text("no image")
    (folder / "notes.txt").write_text("")
    result = run("encode", "in", "-o", "out", "--dry-run")
    assert result.code == 1
    lines = result.out.splitlines()
    assert "out/0.codes: exists; pass -f to overwrite it or name another output" in lines
    assert "in/2.png -> out/2.codes: already there" in lines
    assert any(line.startswith("in/bad.png: ") for line in lines)
    assert any(line.startswith("in/1.png -> out/1.codes: ") for line in lines)
    assert "1 to encode" in lines[-2] and "4 already there; 2 would fail" in lines[-2]
    assert lines[-1] == "passed over: 1 .txt"
    forced = json.loads(run("encode", "in", "-o", "out", "-f", "--dry-run", "--json").out)
    assert [each["status"] for each in forced["files"]].count("to encode") == 6


def test_a_dry_run_of_what_is_in_the_way_is_refused_and_so_is_a_log(
    refused: Refused, phantom_png: Path, tmp_path: Path
) -> None:
    (tmp_path / "scan.codes").write_text("in the way")
    refused("encode", "scan.png", "--dry-run", naming="scan.codes: exists")
    refused("encode", "scan.png", "--dry-run", "--log", "x.csv", naming="--dry-run", code=2)


def test_quiet_prints_results_and_errors_alone(run: Run, folder: Path, tmp_path: Path) -> None:
    (folder / "bad.png").write_text("no image")
    one = run("encode", "in/0.png", "-o", "x.codes", "--quiet")
    assert one.code == 0 and one.err == "" and one.out.startswith("x.codes: ")
    assert run("decode", "x.codes", "--quiet").err == ""
    many = run("encode", "in", "-o", "out", "--quiet")
    assert many.code == 1
    assert many.err.splitlines()[0] == "1 failed:" and len(many.err.splitlines()) == 2
    assert run("encode", "no.png", "--quiet").err.startswith("oasisvq: no.png: no such file")
    assert run("encode", "in/0.png", "-o", "y.codes").err.startswith("model ")  # of the next command


@pytest.mark.parametrize(
    "call",
    [
        ("encode", "-", "-o", "x.codes"),
        ("encode", "in/0.png", "-o", "-"),
        ("decode", "-"),
        ("decode", "x.codes", "-o", "-"),
    ],
)
def test_pipes_are_refused_clearly(refused: Refused, folder: Path, call: tuple[str, ...]) -> None:
    refused(*call, naming="-: pipes are neither read nor written; name a file", code=2)
