"""Which model encodes, which one made a file, and where models are kept."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import carried, draw_phantom, fingerprint, kept, renamed, tiny_model

import oasisvq
from oasisvq import model_store, models
from oasisvq.codec.codes import Codes
from oasisvq.codec.container import read_codes_file
from oasisvq.codec.modelfile import ModelFile, read_model
from oasisvq.codec.slices import codes_of
from oasisvq.errors import FileError, ModelError, OtherModelError
from oasisvq.model_store import how_far, keep, keep_file, models_in, store_folder
from oasisvq.models import ModelFinder, choose_model
from oasisvq.training.weights import save_model

STOPPED = {"finished": False, "steps": 3, "planned_steps": 6}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other_model: Path) -> Path:
    """An empty working folder, where the bundled model is another one."""
    monkeypatch.setattr(models, "BUNDLED_MODEL", other_model)
    monkeypatch.delenv("OASISVQ_MODEL", raising=False)
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def codes(here: Path, prior_model_file: Path, rng: np.random.Generator) -> Path:
    """here/tree/deep/scan.codes, whose model lies nowhere."""
    path = here / "tree" / "deep" / "scan.codes"
    path.parent.mkdir(parents=True)
    path.write_bytes(oasisvq.load(prior_model_file).encode(draw_phantom(rng)))
    return path


def put(model: Path, place: Path) -> Path:
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(model, place)
    return place


def find(codes: Path, named: Path | None = None) -> tuple[Codes, str]:
    """What a file holds, and what is told of its model."""
    told: list[str] = []
    file = read_codes_file(codes)
    model = ModelFinder(named, told.append)(file.header, codes)
    return codes_of(model, file), "".join(told)


# --- the model that made a file ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("oasisvq-run/model.safetensors", "the model trained in this folder"),
        ("oasisvq-run/older.safetensors", "the model trained in this folder"),
        ("STORE/KEPT", "the store"),
        ("STORE/any name.safetensors", "the store"),
        ("tree/deep/CARRIED", "beside the codes"),
        ("tree/deep/any name.safetensors", "beside the codes"),
        ("tree/CARRIED", "beside the codes"),
        ("CARRIED", "beside the codes"),
        ("more/a.safetensors", "$OASISVQ_MODELS"),
        ("more2/KEPT", "$OASISVQ_MODELS"),
        ("env/model.safetensors", "$OASISVQ_MODEL"),
        ("package/model.safetensors", "the bundled model"),
    ],
)
def test_the_model_of_a_file_is_found_wherever_it_lies(
    codes: Path,
    prior_model_file: Path,
    store: Path,
    monkeypatch: pytest.MonkeyPatch,
    place: str,
    reason: str,
) -> None:
    with pytest.raises(OtherModelError):
        find(codes)
    monkeypatch.setenv("OASISVQ_MODELS", f"more{os.pathsep}more2")
    name = place.replace("STORE", str(store)).replace("KEPT", kept(prior_model_file))
    path = put(prior_model_file, Path(name.replace("CARRIED", carried(prior_model_file))))
    if reason == "$OASISVQ_MODEL":
        monkeypatch.setenv("OASISVQ_MODEL", "env")
    if place.startswith("package"):
        monkeypatch.setattr(models, "BUNDLED_MODEL", path.absolute())
    found, told = find(codes)
    assert found.indices.any()
    assert told.startswith("model ")
    assert told.endswith(f"{path.name} ({reason})")
    assert (oasisvq.read_codes(codes).indices == found.indices).all()


def test_no_other_model_is_read_to_find_the_right_one(
    codes: Path, prior_model_file: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in range(2, 6):
        save_model(tiny_model(seed=seed), store / f"{seed}.safetensors", {})
    put(store / "2.safetensors", Path("oasisvq-run") / "model.safetensors")
    (store / "z.safetensors").write_bytes(b"no model")
    put(prior_model_file, store / "last.safetensors")
    read: list[str] = []

    def reading(path: Path) -> ModelFile:
        read.append(path.name)
        return read_model(path)

    monkeypatch.setattr(models, "read_model", reading)
    finder = ModelFinder(None)
    for _ in range(3):
        finder(read_codes_file(codes).header, codes)
    assert read == ["last.safetensors"]


def test_a_model_that_is_nowhere_is_named_with_where_it_was_looked_for(
    codes: Path, store: Path, other_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OASISVQ_MODELS", "more")
    wanted = read_codes_file(codes).header.fingerprint.hex()
    with pytest.raises(OtherModelError) as error:
        find(codes)
    line = str(error.value)
    assert line.startswith(f"{codes}: made with model {wanted[:8]}, which is not in ")
    for place in ("oasisvq-run", str(store), str(codes.parent), "more", "the package"):
        assert f"{place}," in line or f"{place};" in line
    assert "--model" in line
    assert "$OASISVQ_MODELS" in line
    save_model(tiny_model(seed=3), store / "next.safetensors", {"started_from": wanted})
    with pytest.raises(
        OtherModelError, match=r"the training of model [0-9a-f]{8}, .*next.saf.* from it"
    ):
        find(codes)
    prior = {"prior": {"codec": wanted}}
    save_model(tiny_model(seed=3), store / "next.safetensors", prior)
    with pytest.raises(OtherModelError, match=r"its training went on to model [0-9a-f]{8}, .*next.saf"):
        find(codes)


@pytest.mark.parametrize("damage", ["no model", "other model", "damaged arrays"])
def test_a_model_of_the_right_name_and_other_content(
    codes: Path, prior_model_file: Path, other_model: Path, store: Path, damage: str
) -> None:
    path = store / kept(prior_model_file)
    content = {"no model": b"nothing", "other model": other_model.read_bytes()}
    whole = prior_model_file.read_bytes()
    path.write_bytes(content.get(damage, whole[:-1] + bytes([whole[-1] ^ 1])))
    says = "damaged model file" if damage == "damaged arrays" else "has its name, but other content"
    with pytest.raises(OtherModelError, match=f"{path.name}:? {says}"):
        find(codes)
    put(prior_model_file, codes.parent / "model.safetensors")
    assert find(codes)[1].endswith("(beside the codes)")


def test_a_named_model_is_that_or_none(
    codes: Path, prior_model_file: Path, other_model: Path, store: Path
) -> None:
    put(prior_model_file, store / kept(prior_model_file))
    for named in (other_model, other_model.parent):
        with pytest.raises(OtherModelError, match="was given"):
            find(codes, named)
    many = Path("many")
    put(other_model, many / "a.safetensors")
    put(put(other_model, many / "b.safetensors"), many / "c.safetensors")
    with pytest.raises(OtherModelError, match="is not in many"):
        find(codes, many)
    put(prior_model_file, many / "d.safetensors")
    assert find(codes, many)[1].endswith("many/d.safetensors (named)")
    assert find(codes, Path(kept(prior_model_file)[:6]))[1].endswith(f"{kept(prior_model_file)} (named)")
    with pytest.raises(FileError, match="no such file"):
        find(codes, Path("missing"))


# --- the model that encodes -------------------------------------------------------------------------


def test_a_training_that_has_not_finished_is_used_only_where_it_is_named(
    here: Path, other_model: Path
) -> None:
    run = here / "oasisvq-run"
    save_model(tiny_model(), run.parent / "m", STOPPED)
    put(here / "m", run / "model.safetensors")
    choice = choose_model(None, here)
    assert choice.path == other_model
    assert choice.reason == (
        "the bundled model; the one in oasisvq-run is of a training that got to step 3 of 6; "
        "--model oasisvq-run uses it"
    )
    named = choose_model(Path("oasisvq-run"), here)
    line = named.line(read_model(named.path))
    assert line.endswith("oasisvq-run/model.safetensors (named, of a training that got to step 3 of 6)")
    save_model(tiny_model(), run / "model.safetensors", STOPPED | {"finished": True, "steps": 6})
    assert choose_model(None, here).reason == "the model trained in this folder"


@pytest.mark.parametrize(
    ("card", "says"),
    [
        ({}, ""),
        ({"finished": True, "steps": 1, "planned_steps": 6}, ""),
        (STOPPED | {"steps": 6}, "of a training that has not got to its prior"),
        (STOPPED | {"prior": STOPPED}, "of a training that got to step 3 of 6 of its prior"),
        (
            STOPPED | {"prior": STOPPED | {"steps": 6}},
            "of a training that has not got to its codec of volumes",
        ),
        (
            STOPPED | {"prior": {}, "volumes": STOPPED},
            "of a training that got to step 3 of 6 of its volumes",
        ),
        (STOPPED | {"steps": "\x1b[2J"}, "of a training that has not finished"),
    ],
)
def test_how_far_a_training_got(card: dict[str, object], says: str) -> None:
    assert how_far(card) == says


def test_a_model_may_be_named_by_its_fingerprint(
    here: Path, model_file: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = put(model_file, store / kept(model_file))
    ours = fingerprint(model_file)
    for digits in (4, 8, 16):
        assert choose_model(Path(ours[:digits]), here) == (path, "named")
    other = ours[:8] + "0" * 8
    renamed(model_file, store / "b.safetensors", other)
    with pytest.raises(ModelError) as error:
        choose_model(Path(ours[:8]), here)
    for found in (f"{path} (model {ours})", f"b.safetensors (model {other})", "give more digits"):
        assert found in str(error.value)
    assert choose_model(Path(ours), here).path == path
    assert choose_model(Path("abcdef"), here).path == Path("abcdef")  # which there is not


def test_a_folder_of_one_model_names_it_and_one_of_several_does_not(
    here: Path, model_file: Path
) -> None:
    path = put(model_file, here / "some" / "a.safetensors")
    assert choose_model(Path("some"), here).path == Path("some") / path.name
    put(model_file, here / "some" / "b.safetensors")
    with pytest.raises(ModelError, match=r"some: holds some/a.safetensors .* name one of them"):
        choose_model(Path("some"), here)


# --- the store --------------------------------------------------------------------------------------


def test_where_the_store_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OASISVQ_STORE", "named")
    assert store_folder() == Path("named")
    monkeypatch.delenv("OASISVQ_STORE")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_DATA_HOME", "relative")
    assert store_folder() == tmp_path / ".local" / "share" / "oasisvq" / "models"
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    assert store_folder() == Path("/data/oasisvq/models")


def test_a_run_folders_model_is_linked_and_any_other_is_copied(
    tmp_path: Path, model_file: Path, other_model: Path, store: Path
) -> None:
    trained = put(model_file, tmp_path / "run" / "model.safetensors")
    (tmp_path / "run" / "metrics.jsonl").touch()
    path = keep_file(trained)
    assert path == store / kept(model_file)
    assert path.samefile(trained)
    copy = keep_file(other_model)
    assert not copy.samefile(other_model)
    assert fingerprint(copy) == fingerprint(other_model)
    assert sorted(store.iterdir()) == sorted([path, copy])


def test_what_is_kept_is_what_was_read_though_the_file_has_changed(
    tmp_path: Path, model_file: Path, other_model: Path
) -> None:
    trained = put(other_model, tmp_path / "run" / "model.safetensors")
    (tmp_path / "run" / "metrics.jsonl").touch()
    assert fingerprint(keep(read_model(model_file), trained)) == fingerprint(model_file)


def test_where_there_are_no_links_there_is_a_copy(
    tmp_path: Path, model_file: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(source: Path, target: Path) -> None:
        raise PermissionError

    trained = put(model_file, tmp_path / "run" / "model.safetensors")
    (tmp_path / "run" / "metrics.jsonl").touch()
    monkeypatch.setattr(os, "link", refused)
    path = keep_file(trained)
    assert not path.samefile(trained)
    assert list(store.iterdir()) == [path]


def test_a_model_that_is_kept_is_not_read_again(
    model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = keep_file(model_file)
    before = path.stat().st_mtime_ns
    monkeypatch.setattr(model_store, "read_model", pytest.fail)
    assert keep_file(model_file) == path
    assert path.stat().st_mtime_ns == before


def test_a_kept_model_that_was_cut_short_is_made_whole(model_file: Path) -> None:
    path = keep_file(model_file)
    path.write_bytes(path.read_bytes()[:-1])
    assert keep(read_model(model_file), model_file) == path
    assert fingerprint(path) == fingerprint(model_file)


def test_another_model_of_the_same_name_is_never_replaced(model_file: Path, store: Path) -> None:
    path = store / kept(model_file)
    other = fingerprint(model_file)[:8] + "0" * 8
    renamed(model_file, path, other)
    before = path.read_bytes()
    with pytest.raises(
        FileError, match=f"{path}: has the name of model .* but holds model {other}; move"
    ):
        keep_file(model_file)
    assert path.read_bytes() == before
    path.write_bytes(b"nothing")
    with pytest.raises(FileError, match="but holds no model"):
        keep_file(model_file)
    path.rename(store / "elsewhere")
    assert keep_file(model_file) == path


def test_many_processes_keep_one_model_at_once(tmp_path: Path, model_file: Path, store: Path) -> None:
    trained = put(model_file, tmp_path / "run" / "model.safetensors")
    (tmp_path / "run" / "metrics.jsonl").touch()
    program = (
        "import sys; from pathlib import Path; from oasisvq.model_store import carry, keep, read_model\n"
        "file = read_model(Path(sys.argv[1]))\n"
        "sys.stdin.read()\n"
        "keep(file, Path(sys.argv[1])), carry(file, Path('codes'), False)"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, path], stdin=subprocess.PIPE, cwd=tmp_path, text=True
        )
        for path in (trained, trained, model_file, model_file)
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.close()
    assert [process.wait() for process in processes] == [0, 0, 0, 0]
    for folder, name in ((store, kept(model_file)), (tmp_path / "codes", carried(model_file))):
        assert [path.name for path in folder.iterdir()] == [name]
        assert fingerprint(folder / name) == fingerprint(model_file)


def test_models_of_a_folder_are_told_from_what_else_lies_there(
    tmp_path: Path, model_file: Path, other_model: Path
) -> None:
    put(model_file, tmp_path / "models" / "a.safetensors")
    put(other_model, tmp_path / "models" / "b.safetensors")
    (tmp_path / "models" / "checkpoint.safetensors").write_bytes(b"\xff" * 20)
    (tmp_path / "models" / "c.safetensors").mkdir()
    found = models_in(tmp_path / "models")
    assert [known.path.name for known in found] == ["a.safetensors", "b.safetensors"]
    assert [known.fingerprint for known in found] == [
        fingerprint(model_file),
        fingerprint(other_model),
    ]
    assert models_in(tmp_path / "none") == []
