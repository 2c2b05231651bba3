"""Whether files, models and datasets are whole, and of the model that would decode them."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Result, draw_head, tiny_model, write_raw_folder
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

import oasisvq
from oasisvq.codec import container
from oasisvq.codec.headers import Coder
from oasisvq.codec.modelfile import parse_safetensors_metadata, read_model
from oasisvq.data.preprocess import preprocess
from oasisvq.folders import Shard
from oasisvq.models import ModelFinder
from oasisvq.training.weights import save_model
from oasisvq.verify import State, Verdict, Verifier, verify

Run = Callable[..., Result]

TISSUES = (np.mgrid[:40, :50][0] // 10 * 40).astype(np.uint8)  # labels in stripes


@pytest.fixture(scope="module")
def codes_once(tmp_path_factory: pytest.TempPathFactory, prior_model_file: Path) -> Path:
    """A tree with one file of each coder, and a volume."""
    folder = tmp_path_factory.mktemp("verify") / "codes"
    (folder / "inner").mkdir(parents=True)
    codec, plane = oasisvq.load(prior_model_file), draw_head(np.random.default_rng(1))
    (folder / "prior.codes").write_bytes(codec.encode(plane))
    (folder / "packed.codes").write_bytes(codec.encode(plane, coder=Coder.PACKED))
    (folder / "labels.codes").write_bytes(codec.encode(TISSUES))
    voxels = np.stack([plane, plane[::-1], plane.T], axis=-1)
    (folder / "inner" / "volume.codes").write_bytes(codec.encode(voxels, spacing=(1, 1, 2)))
    return folder


@pytest.fixture
def codes(codes_once: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(codes_once, tmp_path / "codes"))


@pytest.fixture(scope="module")
def prepared_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("verify-data")
    raw = write_raw_folder(folder / "raw", {"train": [1, 2], "validate": [3]}, slices=2)
    return preprocess(raw, folder / "prepared", size=32).folder


@pytest.fixture
def prepared(prepared_once: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(prepared_once, tmp_path / "prepared"))


def states(verdicts: Iterator[Verdict]) -> dict[str, State]:
    return {verdict.path.name: verdict.state for verdict in verdicts}


def test_whole_files_are_whole(run: Run, codes: Path, prior_model_file: Path, prepared: Path) -> None:
    for options in ((), ("--deep",)):
        result = run("verify", codes, prior_model_file, prepared, "--model", prior_model_file, *options)
        assert result.code == 0
        assert result.out == "6 checked: 6 whole\n"


def test_a_bad_file_is_named_with_its_reason_and_the_others_are_checked(
    run: Run, codes: Path, prior_model_file: Path
) -> None:
    (codes / "packed.codes").write_bytes((codes / "packed.codes").read_bytes()[:-1])
    (codes / "inner" / "dangling.codes").symlink_to(codes / "nothing")
    result = run("verify", "codes", "missing.codes", "--model", prior_model_file)
    assert result.code == 1
    lines = result.out.splitlines()
    assert lines[0].startswith("codes/packed.codes: truncated or damaged: ")
    assert lines[1].startswith("codes/inner/dangling.codes: no such file (a dangling link)")
    assert lines[2] == "missing.codes: no such file; check the name"
    assert lines[3:] == ["6 checked: 3 whole, 1 damaged, 2 unreadable"]
    assert result.err.startswith("model ")
    assert len(result.err.splitlines()) == 1


def test_json_holds_all_verdicts_and_totals(run: Run, codes: Path, prior_model_file: Path) -> None:
    (codes / "inner" / "volume.codes").write_bytes(b"OVQC")
    result = run("verify", "codes", "--json", "--model", prior_model_file)
    assert result.code == 1
    found = json.loads(result.out)
    assert [each["path"] for each in found["files"]] == [
        "codes/labels.codes",
        "codes/packed.codes",
        "codes/prior.codes",
        "codes/inner/volume.codes",
    ]
    assert found["files"][0] == {"path": "codes/labels.codes", "state": "whole", "reason": None}
    assert found["files"][3]["state"] == "damaged"
    assert found["files"][3]["reason"].startswith("codes/inner/volume.codes: truncated")
    assert found["totals"] == {
        "checked": 4,
        "whole": 3,
        "damaged": 1,
        "other_model": 0,
        "unreadable": 0,
    }


def test_shards_share_the_files_and_an_empty_one_is_valid_json(
    run: Run, codes: Path, prior_model_file: Path
) -> None:
    seen: list[str] = []
    for index in range(5):
        result = run("verify", codes, "--json", "--shard", f"{index}/5", "--model", prior_model_file)
        assert result.code == 0
        found = json.loads(result.out)
        assert found["totals"]["checked"] == len(found["files"]) == (index < 4)
        seen += [Path(each["path"]).name for each in found["files"]]
    assert sorted(seen) == ["labels.codes", "packed.codes", "prior.codes", "volume.codes"]


@pytest.mark.parametrize("deep", [False, True])
def test_a_file_of_another_model_is_told_from_a_damaged_one(
    codes: Path, tmp_path: Path, deep: bool
) -> None:
    other = tmp_path / "other.safetensors"
    save_model(tiny_model(seed=1), other, {})
    (codes / "prior.codes").write_bytes((codes / "prior.codes").read_bytes()[:-1])
    found = states(verify([codes], Verifier(lambda *_: read_model(other), deep)))
    assert found == {
        "labels.codes": State.WHOLE,
        "packed.codes": State.OTHER_MODEL,
        "prior.codes": State.DAMAGED,
        "volume.codes": State.OTHER_MODEL,
    }


@pytest.mark.parametrize("name", ["prior.codes", "labels.codes", "inner/volume.codes"])
def test_only_a_deep_look_finds_a_payload_that_is_not_used_up(
    codes: Path, prior_model_file: Path, name: str
) -> None:
    """The payload is longer by a byte, and the header and the CRC know it."""
    file = container.read_codes_file(codes / name)
    longer = container.write(file.header, file.payload + b"\1")
    (codes / name).write_bytes(longer)
    for deep, state in ((False, State.WHOLE), (True, State.DAMAGED)):
        verifier = Verifier(lambda *_: read_model(prior_model_file), deep)
        assert verifier.judge(codes / name).state is state


def test_a_deep_look_finds_an_index_beyond_the_codebook(codes: Path, prior_model_file: Path) -> None:
    file = container.read_codes_file(codes / "packed.codes")
    (codes / "packed.codes").write_bytes(container.write(file.header, b"\xff" * len(file.payload)))
    deep = Verifier(lambda *_: read_model(prior_model_file), deep=True).judge(codes / "packed.codes")
    assert deep.state is State.DAMAGED
    assert "the codebook has 20 codes" in deep.reason


def test_a_deep_look_keeps_to_the_limit_of_pixels(run: Run, codes: Path, prior_model_file: Path) -> None:
    options = ("--max-pixels", 1000, "--model", prior_model_file)
    assert run("verify", codes, *options).code == 0
    result = run("verify", codes, "--deep", *options)
    assert result.code == 1
    assert result.out.splitlines()[-1] == "4 checked: 0 whole, 4 unreadable"
    assert "--max-pixels" in result.out


# models


def test_a_model_with_one_other_bit_is_damaged(run: Run, prior_model_file: Path, tmp_path: Path) -> None:
    """In the codec as in the prior: the file names its fingerprint."""
    whole = prior_model_file.read_bytes()
    arrays, metadata = load_arrays(whole), parse_safetensors_metadata(whole, prior_model_file)
    (tmp_path / "run").mkdir()
    for name in ("decoder.input.bias", "quantizer.codebooks", "prior.level1.output.bias"):
        array = arrays[name].copy()
        array.view(np.uint8).reshape(-1)[0] ^= 1
        changed = save_arrays({**arrays, name: array}, metadata)
        (tmp_path / "run" / "model.safetensors").write_bytes(changed)
        result = run("verify", "run")
        assert result.code == 1
        first, last = result.out.splitlines()
        assert first.startswith("run/model.safetensors: damaged model file: its arrays are those of ")
        assert last == "1 checked: 0 whole, 1 damaged"


def test_a_model_that_does_not_name_itself_is_damaged(prior_model_file: Path, tmp_path: Path) -> None:
    whole = prior_model_file.read_bytes()
    header = json.loads(parse_safetensors_metadata(whole, prior_model_file)["oasisvq"])
    assert header.pop("fingerprint") == read_model(prior_model_file).fingerprint.hex()
    path = tmp_path / "model.safetensors"
    path.write_bytes(save_arrays(load_arrays(whole), {"oasisvq": json.dumps(header)}))
    judged = Verifier(pytest.fail).judge(path)
    assert judged.state is State.DAMAGED
    assert "names itself None" in judged.reason


def test_a_model_that_lacks_an_array_is_damaged(prior_model_file: Path, tmp_path: Path) -> None:
    whole = prior_model_file.read_bytes()
    arrays = load_arrays(whole)
    del arrays["decoder.input.bias"]
    path = tmp_path / "model.safetensors"
    path.write_bytes(save_arrays(arrays, parse_safetensors_metadata(whole, prior_model_file)))
    judged = Verifier(pytest.fail).judge(path)
    assert judged.state is State.DAMAGED
    assert "1 arrays missing or unknown, first decoder.input.bias" in judged.reason


def test_a_model_that_cannot_be_used_ends_the_run(run: Run, codes: Path, tmp_path: Path) -> None:
    """It is no fault of the files."""
    (tmp_path / "broken.safetensors").write_bytes(b"nothing")
    for name, says in (("missing", "no such file"), ("broken.safetensors", "not a safetensors file")):
        result = run("verify", codes / "prior.codes", codes / "packed.codes", "--model", name)
        assert result.code == 1
        assert result.out == ""
        assert result.err.startswith(f"oasisvq: {name}: {says}")
        assert len(result.err.splitlines()) == 1


def test_labels_and_datasets_need_no_model(codes: Path, prepared: Path) -> None:
    found = states(verify([codes / "labels.codes", prepared], Verifier(pytest.fail, deep=True)))
    assert found == {"labels.codes": State.WHOLE, "prepared": State.WHOLE}


# datasets


def edit(prepared: Path, change: Callable[[dict[str, Any]], object]) -> None:
    fields = json.loads((prepared / "manifest.json").read_bytes())
    change(fields)
    (prepared / "manifest.json").write_text(json.dumps(fields))


def share_a_subject(prepared: Path) -> None:
    def change(fields: dict[str, Any]) -> None:
        splits = fields["splits"]
        splits["validation"]["slices"][0]["subject"] = splits["train"]["slices"][0]["subject"]

    edit(prepared, change)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (share_a_subject, "is in the splits train and validation"),
        (lambda folder: (folder / "train.npy").unlink(), "train.npy: missing or damaged"),
        (lambda folder: np.save(folder / "train.npy", np.zeros((4, 32, 31), np.uint8)), "not the array"),
        (lambda folder: edit(folder, lambda fields: fields.pop("size")), "damaged manifest"),
    ],
)
def test_a_damaged_dataset(damage: Callable[[Path], object], says: str, prepared: Path) -> None:
    damage(prepared)
    verdicts = list(verify([prepared.parent / "prepared"], Verifier(pytest.fail)))
    assert [verdict.state for verdict in verdicts] == [State.DAMAGED]
    assert says in verdicts[0].reason


def test_only_a_deep_look_finds_another_pixel(prepared: Path) -> None:
    array = np.load(prepared / "validation.npy")
    array[1, 5, 5] ^= 1
    np.save(prepared / "validation.npy", array)
    assert Verifier(pytest.fail).judge(prepared).state is State.WHOLE
    deep = Verifier(pytest.fail, deep=True).judge(prepared)
    assert deep.state is State.DAMAGED
    assert "validation.npy: differs from its checksum" in deep.reason


# what is looked at


def test_below_a_folder_all_that_is_ours_counts_and_nothing_else(
    run: Run, codes: Path, prepared: Path, prior_model_file: Path, tmp_path: Path
) -> None:
    tree = tmp_path / "tree"
    shutil.move(codes, tree / "codes")
    shutil.move(prepared, tree / "data")
    (tree / "run").mkdir()
    shutil.copy(prior_model_file, tree / "run" / "model.safetensors")
    (tree / "run" / "checkpoint.safetensors").write_bytes(b"none of these")
    (tree / "manifest.json").write_text('{"of": "another program"}')
    (tree / "notes.txt").write_text("nor this")
    result = run("verify", tree, "--model", tree / "run")
    assert result.out == "6 checked: 6 whole\npassed over: 1 .json, 1 .safetensors, 1 .txt\n"


def test_what_is_not_ours_is_said(run: Run, phantom_png: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    result = run("verify", "scan.png", "empty")
    assert result.code == 1
    assert result.out.splitlines() == [
        "scan.png: not a .codes file, a model (.safetensors), an export or a dataset folder",
        "empty: no .codes files, models (model.safetensors) or prepared datasets in it",
        "2 checked: 0 whole, 2 unreadable",
    ]


def test_a_codes_file_of_another_name_is_known_by_its_content(
    run: Run, codes: Path, tmp_path: Path
) -> None:
    shutil.copy(codes / "labels.codes", tmp_path / "labels")
    assert run("verify", "labels").out == "1 checked: 1 whole\n"


def test_a_call_without_paths_is_a_usage_error(run: Run) -> None:
    assert run("verify").code == 2
    assert run("verify", ".", "--shard", "3/3").code == 2


def test_names_cannot_move_the_terminals_cursor(run: Run, tmp_path: Path) -> None:
    (tmp_path / "codes").mkdir()
    (tmp_path / "codes" / "\x1b[2J.codes").write_bytes(b"")
    result = run("verify", "codes")
    assert "\x1b" not in result.out
    assert json.loads(run("verify", "codes", "--json").out)["totals"]["damaged"] == 1


def test_verdicts_come_one_by_one(codes: Path, prior_model_file: Path) -> None:
    """Nothing is looked at before it is asked for, so nothing has to be kept."""
    verdicts = verify([codes], Verifier(lambda *_: read_model(prior_model_file)))
    assert next(verdicts).path == codes / "labels.codes"
    (codes / "packed.codes").write_bytes(b"")
    assert next(verdicts).state is State.DAMAGED


def test_results_stay_on_stdout_where_a_bar_is_shown(
    run: Run, codes: Path, prior_model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    (codes / "prior.codes").write_bytes(b"")
    result = run("verify", "codes", "--model", prior_model_file)
    assert "verifying" in result.err
    assert result.out.splitlines() == [
        "codes/prior.codes: an empty file; expected a file that `oasisvq encode` wrote",
        "4 checked: 3 whole, 1 damaged",
    ]


def test_progress_counts_the_shard(codes: Path, prior_model_file: Path) -> None:
    told: list[tuple[int, int]] = []
    verifier = Verifier(lambda *_: read_model(prior_model_file))
    list(verify([codes], verifier, Shard(0, 3), lambda done, total: told.append((done, total))))
    assert told == [(1, 2), (2, 2)]


def test_codes_and_datasets_are_verified_without_torch(
    codes: Path, prepared: Path, prior_model_file: Path
) -> None:
    program = (
        "import sys; from oasisvq.cli.app import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit as end: sys.exit(end.code or 3 * ('torch' in sys.modules))"
    )
    arguments = ["verify", codes, prepared, "--deep", "--model", prior_model_file]
    result = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stdout) == (0, "5 checked: 5 whole\n"), result.stderr


def test_several_processes_judge_as_one_does(codes: Path, prior_model_file: Path) -> None:
    (codes / "half.codes").write_bytes((codes / "prior.codes").read_bytes()[:30])
    verifier = Verifier(ModelFinder(prior_model_file))
    assert list(verify([codes], verifier, jobs=2)) == list(verify([codes], verifier))


@pytest.mark.parametrize("name", ["a.npz", "a.safetensors", "a.tokens"])
def test_exports_are_checked(run: Run, codes: Path, prior_model_file: Path, name: str) -> None:
    (codes / "labels.codes").unlink()
    ours = ("--model", prior_model_file)
    assert run("export", codes, "-o", name, *ours).code == 0
    assert run("verify", name).out == "1 checked: 1 whole\n"
    damaged = Path(name) / "files.npy" if name.endswith(".tokens") else Path(name)
    damaged.write_bytes(damaged.read_bytes()[:-9])
    result = run("verify", name)
    assert result.code == 1
    assert "1 checked: 0 whole, 1 damaged" in result.out


def test_slices_of_two_exports_with_one_name_do_not_replace_each_other(
    run: Run, codes: Path, prior_model_file: Path
) -> None:
    ours = ("--model", prior_model_file)
    for number in (1, 2):
        export = ("export", codes, "-o", f"{number}.npz", "--include", "packed.codes", *ours)
        assert run(*export).code == 0
    result = run("decode", "1.npz", "2.npz", "-o", "both", *ours)
    assert result.code == 1
    assert "would replace that of 1.npz; rename one" in result.err
