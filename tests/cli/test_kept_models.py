"""Files stay decodable: what commands keep of the models that they write files by, and where."""

import errno
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import Run, carried, draw_head, files_below, fingerprint, kept
from PIL import Image

from oasisvq import models
from oasisvq.codec.modelfile import read_model
from oasisvq.model_store import fingerprint_of

TISSUES = (np.mgrid[:40, :50][0] // 10 * 40).astype(np.uint8)  # labels in stripes


@pytest.fixture
def scans(tmp_path: Path, rng: np.random.Generator) -> Path:
    """scans/a.png and scans/deep/b.png."""
    (tmp_path / "scans" / "deep").mkdir(parents=True)
    for name in ("a.png", "deep/b.png"):
        Image.fromarray(draw_head(rng)).save(tmp_path / "scans" / name)
    return tmp_path / "scans"


def disk_fills_up(descriptor: int) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


# --- what a folder carries --------------------------------------------------------------------------


def test_a_folder_of_codes_needs_nothing_else_wherever_it_is_moved(
    run: Run,
    scans: Path,
    model: Path,
    tmp_path: Path,
    other_model: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(models, "BUNDLED_MODEL", other_model)
    assert run("encode", scans, "-o", "codes", "--model", model).code == 0
    away = tmp_path / "away"
    away.mkdir()
    shutil.move("codes", away / "moved")
    monkeypatch.chdir(away)
    monkeypatch.setenv("OASISVQ_STORE", str(away / "store"))
    decoded = run("decode", "moved", "-o", "back")
    assert (decoded.code, decoded.out.split(",")[0]) == (0, "back: 2 decoded"), decoded.err
    assert decoded.err.rstrip().endswith(f"{carried(model)} (beside the codes)")
    assert len(decoded.err.splitlines()) == 1
    assert run("decode", "moved/deep/b.codes", "-o", "b.png").code == 0
    assert Path("b.png").read_bytes() == Path("back/deep/b.png").read_bytes()
    verified = run("verify", "moved", "--deep")
    assert verified.out == "3 checked: 3 whole\n"
    assert run("show", "moved/deep/b.codes", "-o", "b.panel.png").code == 0
    assert run("export", "moved", "-o", "tokens.npz").code == 0
    assert run("decode", "tokens.npz", "-o", "again", "--model", "moved").code == 0
    assert files_below(Path("again")) == files_below(Path("back"))
    assert not (away / "store").exists()


def test_no_model_leaves_it_out_and_it_is_kept_in_the_store(
    run: Run,
    scans: Path,
    prior_model_file: Path,
    store: Path,
    other_model: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(models, "BUNDLED_MODEL", other_model)
    given = ("--no-model", "--model", prior_model_file)
    assert run("encode", scans, "-o", "codes", *given).code == 0
    assert set(files_below(Path("codes"))) == {"a.codes", "deep/b.codes"}
    assert run("decode", "codes", "-o", "back").code == 0
    monkeypatch.setenv("OASISVQ_STORE", str(store / "none"))
    result = run("decode", "codes", "-o", "again")
    assert (result.code, result.out) == (1, "again: 0 decoded\n")
    wanted = fingerprint_of(read_model(prior_model_file))[:8]
    assert result.err.count(f"made with model {wanted}, which is not in ") == 2
    verified = run("verify", "codes")
    assert verified.out.splitlines()[-1] == "2 checked: 0 whole, 2 of another model"
    monkeypatch.setenv("OASISVQ_MODELS", str(store))
    assert run("decode", "codes", "-o", "again").code == 0


def test_shards_and_runs_that_go_on_carry_one_model(
    run: Run, scans: Path, model_file: Path, other_model: Path
) -> None:
    for shard in ("0/2", "1/2"):
        run("encode", scans, "-o", "shards", "--shard", shard, "--model", model_file)
    run("encode", scans, "-o", "whole", "--model", model_file)
    assert files_below(Path("shards")) == files_below(Path("whole"))
    again = run("encode", scans, "-o", "scans", "--model", model_file)
    assert again.out.startswith("scans: 2 encoded")
    again = run("encode", scans, "-o", "scans", "--model", model_file)
    assert again.out == "scans: 0 encoded, 2 already there\npassed over: 2 .codes\n"
    for missing in ((carried(model_file), "a.codes"), (carried(model_file),)):
        for name in missing:
            Path("whole", name).unlink()
        assert run("encode", scans, "-o", "whole", "--model", model_file).code == 0
        assert files_below(Path("shards")) == files_below(Path("whole"))


def test_files_of_several_models_in_one_folder(
    run: Run, scans: Path, model_file: Path, other_model: Path
) -> None:
    run("encode", scans / "deep", "-o", "codes", "--model", model_file)
    run("encode", scans / "a.png", "-o", "codes/a.codes", "--model", other_model)
    for jobs, told in (("1", 2), ("2", 1)):  # of one process is told, and of what it found first
        decoded = run("decode", "codes", "-o", f"back{jobs}", "--jobs", jobs)
        assert (decoded.code, decoded.out.split(",")[0]) == (0, f"back{jobs}: 2 decoded")
        assert decoded.err.count("model ") == told
    assert files_below(Path("back1")) == files_below(Path("back2"))


def test_labels_kept_exactly_need_no_model(run: Run, tmp_path: Path, model_file: Path) -> None:
    (tmp_path / "labels").mkdir()
    Image.fromarray(TISSUES).save(tmp_path / "labels" / "a.png")
    assert run("encode", "labels", "-o", "codes", "--model", model_file).code == 0
    assert set(files_below(Path("codes"))) == {"a.codes"}


# --- where one file's model is kept -----------------------------------------------------------------


def test_one_file_says_where_its_model_is_kept(
    run: Run, phantom_png: Path, prior_model_file: Path, store: Path
) -> None:
    path = store / kept(prior_model_file)
    for command in (
        ("encode", phantom_png),
        ("encode", phantom_png, phantom_png.parent / "none.png", "-f"),
        ("sample", "-n", "1", "-o", "s.codes"),
        ("sample", "-n", "2", "-o", "samples/", "--codes"),
    ):
        shutil.rmtree(store)
        result = run(*command, "--model", prior_model_file)
        assert result.err.splitlines()[0].endswith(f"(named), kept as {path}")
        assert fingerprint(path) == fingerprint(prior_model_file)
    shutil.rmtree(store)
    for command in (("sample", "-n", "1", "-o", "s.png"), ("decode", "s.codes")):
        assert run(*command, "--model", prior_model_file).code == 0
    assert not store.exists()


def test_an_update_of_the_package_leaves_old_files_decodable(
    run: Run,
    phantom_png: Path,
    model_file: Path,
    other_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bundled = tmp_path / "package.safetensors"
    monkeypatch.setattr(models, "BUNDLED_MODEL", bundled)
    shutil.copy(model_file, bundled)
    assert "(the bundled model), kept as " in run("encode", phantom_png).err
    shutil.copyfile(other_model, bundled)  # into the same file
    decoded = run("decode", "scan.codes")
    assert decoded.code == 0
    assert "(the store)" in decoded.err


@pytest.mark.parametrize("fault", ["no folder", "full", "other content"])
def test_a_file_is_not_written_where_its_model_cannot_be_kept(
    run: Run,
    scans: Path,
    model_file: Path,
    tmp_path: Path,
    store: Path,
    fault: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    says = {
        "no folder": "the folder cannot be created: Not a directory",
        "full": "cannot be written: No space left on device",
        "other content": "but holds no model; move it to another name",
    }[fault]
    if fault == "no folder":
        (tmp_path / "a_file").touch()
        monkeypatch.setenv("OASISVQ_STORE", str(tmp_path / "a_file" / "store"))
    elif fault == "full":
        monkeypatch.setattr(os, "fsync", disk_fills_up)
    else:
        (store / kept(model_file)).write_bytes(b"nothing")
    for output in (("-o", "a.codes"), ()):
        result = run("encode", scans / "a.png", *output, "--model", model_file)
        assert (result.code, result.out) == (1, "")
        (line,) = result.err.splitlines()
        assert line.startswith("oasisvq: ")
        assert says in line
        assert "another store in $OASISVQ_STORE" in line
    assert not list(tmp_path.rglob("*.codes"))
    if fault == "full":
        return
    result = run("encode", scans, "-o", "codes", "--model", model_file)
    assert result.code == 0
    assert f", kept as codes/{carried(model_file)} only: " in result.err
    assert says in result.err
    monkeypatch.setattr(models, "BUNDLED_MODEL", model_file)
    result = run("encode", scans / "a.png", "-o", "a.codes")
    assert result.code == 0
    assert f", kept as {model_file} only: " in result.err


def test_what_has_the_name_of_a_carried_model_is_in_the_way(
    run: Run, scans: Path, model_file: Path
) -> None:
    Path("codes").mkdir()
    Path("codes", carried(model_file)).write_bytes(b"nothing")
    given = ("-o", "codes", "--model", model_file)
    result = run("encode", scans, *given)
    assert (result.code, result.out) == (1, "codes: 0 encoded\n")
    assert result.err.count(f"codes/{carried(model_file)}: has the name of model ") == 2
    assert not list(Path("codes").rglob("*.codes"))
    assert run("encode", scans, *given, "-f").code == 0
    assert run("verify", "codes").out == "3 checked: 3 whole\n"


# --- what info says ---------------------------------------------------------------------------------


def test_info_lists_models_and_the_codes_that_need_them(
    run: Run, scans: Path, model_file: Path, other_model: Path, store: Path
) -> None:
    run("encode", scans, "-o", "codes", "--model", model_file)
    run("encode", scans / "a.png", "-o", "codes/other.codes", "--model", other_model)
    facts = json.loads(run("info", "codes", "--json").out)
    assert facts["codes"] == 3
    assert facts["models"] == [
        {
            "model": fingerprint(model_file),
            "file": f"codes/{carried(model_file)}",
            "training": "finished",
            "validation_ssim": None,
            "needed_by": 2,
        }
    ]
    assert facts["models_not_here"] == {fingerprint(other_model): 1}
    lines = run("info", "codes").out.splitlines()
    assert lines[-1] == (
        f"model {fingerprint(model_file)}: codes/{carried(model_file)}, finished, needed by 2 .codes "
        "files here"
    )
    of_store = json.loads(run("info", store, "--json").out)
    assert [each["needed_by"] for each in of_store["models"]] == [0, 0]
    assert json.loads(run("info", model_file, "--json").out)["store"] == str(store)


def test_info_without_a_path_says_what_is_found_from_here(
    run: Run, phantom_png: Path, model_file: Path, store: Path
) -> None:
    run("encode", phantom_png, "--model", model_file)
    facts = json.loads(run("info", "--json").out)
    assert facts["store"] == str(store)
    assert [(each["file"], each["needed_by"]) for each in facts["models"]] == [
        (str(store / kept(model_file)), 1),
        (str(models.BUNDLED_MODEL), 0),
    ]
    assert str(store) in run("info").out
