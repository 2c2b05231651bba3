"""The training of the prior after that of the codec: by the call behind the command."""

import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Killed, Result, write_raw_folder
from safetensors.torch import load_file

import oasisvq
from oasisvq.codec.container import read
from oasisvq.codec.headers import Coder
from oasisvq.codec.modelfile import ModelFile, read_model
from oasisvq.data.dataset import open_dataset
from oasisvq.data.layouts import Images
from oasisvq.data.preprocess import preprocess
from oasisvq.errors import OasisVQError, TrainingError
from oasisvq.training import command, loop, plan
from oasisvq.training.checkpoint import load_checkpoint
from oasisvq.training.prior_training import weights_of_levels

Run = Callable[..., Result]

NETWORK = {
    "encoder_channels": (8, 16),
    "encoder_blocks": (1, 1),
    "decoder_channels": (16, 8),
    "decoder_blocks": (1, 1),
    "code_dim": 8,
    "codebook_size": 20,
    "levels": 2,
}
CODEC_STEPS, PRIOR_STEPS = 3, 6
CHECKPOINTS = ("checkpoint.safetensors", "prior-checkpoint.safetensors")


@pytest.fixture(scope="module", autouse=True)
def no_curves() -> Iterator[None]:
    """They take longer than these trainings; see test_pictures.py."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "draw_curves", lambda rows: b"curves")
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    raw = write_raw_folder(root / "raw", {"train": [1, 2, 3], "validate": [4]})
    return preprocess(raw, root / "prepared", size=64).folder


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that an epoch of the prior has several steps."""
    monkeypatch.setattr(plan, "PRIOR_BATCH_SIZE", 4)


def train(
    data: Path, run_folder: Path, stop_in: str = "", stop_after: int = 0, **changes: Any
) -> command.Trained:
    """Train; with `stop_in`, until so many steps of a stage are done."""
    plain = command.Request(
        data=(data,),
        run=run_folder,
        preset="seed",
        images=Images.SCANS,
        overrides=NETWORK | {"epochs": 1, "batch_size": 4, "prior_epochs": 2},
        seed=5,
        precision="float32",
        device="cpu",
        max_minutes=None,
        resume=False,
        force=False,
        with_residue=False,
    )
    if changes.get("resume"):  # all settings come from the checkpoint
        plain = dataclasses.replace(
            plain, preset=None, images=None, overrides={}, seed=None, precision=None
        )
    asked = 0

    def should_stop() -> bool:
        nonlocal asked
        asked += 1
        has_codec = stop_in == "prior" and not request.prior_only
        before = CODEC_STEPS - 1 if has_codec else 0  # not asked after the last step
        return bool(stop_in) and asked == before + stop_after

    request = dataclasses.replace(plain, **changes)
    trained = command.train(request, lambda message: None, should_stop, lambda done, total: None)
    assert trained is not None
    return trained


def rows(run_folder: Path) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl without what depends on the clock; there is no file without rows."""
    clock = ("images_per_second", "seconds_left")
    path = run_folder / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [{k: v for k, v in json.loads(line).items() if k not in clock} for line in lines]


def model(run_folder: Path) -> ModelFile:
    return read_model(run_folder / "model.safetensors")


def same_prior(first: Path, second: Path) -> bool:
    ours, theirs = model(first).prior, model(second).prior
    assert ours is not None
    assert theirs is not None
    return all(np.array_equal(array, theirs.arrays[name]) for name, array in ours.arrays.items())


@pytest.fixture(scope="module")
def straight(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a training that nothing interrupted."""
    folder = tmp_path_factory.mktemp("straight") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "PRIOR_BATCH_SIZE", 4)
        trained = train(data, folder)
    assert (trained.finished, trained.what, trained.step) == (True, "prior", PRIOR_STEPS)
    return folder


def test_what_cannot_be_resumed_leaves_nothing_out(data: Path, tmp_path: Path) -> None:
    run_folder = tmp_path / "run"
    train(data, run_folder, "prior", 2)
    (run_folder / "checkpoint.safetensors").write_bytes(b"cut off")
    before = {path.name: path.read_bytes() for path in run_folder.iterdir() if path.is_file()}
    with pytest.raises(OasisVQError, match=r"checkpoint\.safetensors"):
        train(data, run_folder, resume=True, with_prior=False)
    assert {path.name: path.read_bytes() for path in run_folder.iterdir() if path.is_file()} == before


def test_a_prior_that_is_no_longer_wanted_is_left_out(data: Path, tmp_path: Path) -> None:
    run_folder, plain = tmp_path / "run", tmp_path / "plain"
    assert train(data, run_folder, "prior", 2).what == "prior"
    resumed = train(data, run_folder, resume=True, with_prior=False)
    assert (resumed.what, resumed.finished) == ("codec", True)
    assert not (run_folder / "prior-checkpoint.safetensors").exists()
    train(data, plain, with_prior=False)
    assert (run_folder / "model.safetensors").read_bytes() == (plain / "model.safetensors").read_bytes()


def test_killed_before_its_first_save_it_goes_on(
    data: Path, straight: Path, tmp_path: Path, killed: Killed
) -> None:
    run_folder = tmp_path / "run"
    killed(lambda: train(data, run_folder, prior_only=True, model=straight, images=None))
    assert train(data, run_folder, resume=True).finished
    assert read_model(run_folder / "model.safetensors").prior is not None


def test_a_batch_that_does_not_fit_is_refused_before_the_codec_is_trained(
    data: Path, tmp_path: Path
) -> None:
    overrides = NETWORK | {"epochs": 1, "batch_size": 4, "prior_epochs": 2, "prior_batch_size": 99}
    with pytest.raises(TrainingError, match=r"a batch of 99; choose a smaller --prior-batch-size"):
        train(data, tmp_path / "run", overrides=overrides)
    assert not (tmp_path / "run" / "model.safetensors").exists()


def test_a_prior_needs_training_slices(data: Path, straight: Path, tmp_path: Path) -> None:
    raw = write_raw_folder(tmp_path / "raw", {"validate": [4], "test": [5]})
    others = preprocess(raw, tmp_path / "prepared", size=64).folder
    with pytest.raises(TrainingError, match="no training split, only"):
        train(others, tmp_path / "run", prior_only=True, model=straight, images=None)


def test_a_training_leaves_a_model_with_a_prior(straight: Path, data: Path) -> None:
    assert {path.name for path in straight.iterdir()} == {
        "model.safetensors",
        "metrics.jsonl",
        "curves.png",
        "panel.png",
        *CHECKPOINTS,
    }
    file = model(straight)
    assert file.prior is not None
    assert file.prior.config.levels == 2
    assert file.card["steps"] == CODEC_STEPS
    assert file.card["prior"]["steps"] == PRIOR_STEPS
    codec = oasisvq.load(straight)
    plane = np.asarray(open_dataset(data).array("validation")[0])
    content = codec.encode(plane)
    assert read(content, "x").header.coder is Coder.PRIOR
    assert codec.decode(content).shape == plane.shape
    assert codec.decode(codec.write_codes(codec.sample([1])[0])).shape == (64, 64)


def test_the_metrics_have_rows_of_codec_and_prior(straight: Path) -> None:
    kinds = [(row["what"], row["kind"], row["step"]) for row in rows(straight)]
    assert kinds == [
        ("codec", "step", 3),
        ("codec", "epoch", 3),
        ("prior", "step", 3),
        ("prior", "epoch", 3),
        ("prior", "step", 6),
        ("prior", "epoch", 6),
    ]
    last = rows(straight)[-1]
    assert len(last["bits_of_levels"]) == len(last["validation_bits"]) == 2
    assert all(0 < bits < 6 for bits in last["validation_bits"])


def test_a_prior_learns(data: Path, straight: Path, tmp_path: Path) -> None:
    codec = straight / "model.safetensors"
    trained = train(
        data,
        tmp_path / "run",
        prior_only=True,
        model=codec,
        overrides={"prior_epochs": 8},
    )
    assert trained.finished
    epochs = [row for row in rows(tmp_path / "run") if row["kind"] == "epoch"]
    assert len(epochs) == 8
    assert epochs[-1]["loss"] < 0.8 * epochs[0]["loss"]
    assert sum(epochs[-1]["validation_bits"]) < sum(epochs[0]["validation_bits"])


def test_without_a_prior(data: Path, tmp_path: Path) -> None:
    trained = train(data, tmp_path / "run", with_prior=False)
    assert (trained.finished, trained.what) == (True, "codec")
    assert model(tmp_path / "run").prior is None
    assert {row["what"] for row in rows(tmp_path / "run")} == {"codec"}
    assert not (tmp_path / "run" / CHECKPOINTS[1]).exists()
    assert train(data, tmp_path / "run", resume=True).what == "codec"  # nor when resumed
    assert model(tmp_path / "run").prior is None


def test_a_prior_for_a_codec_that_is_there(data: Path, straight: Path, tmp_path: Path) -> None:
    train(data, tmp_path / "codec", with_prior=False)
    codec = tmp_path / "codec" / "model.safetensors"
    before = codec.read_bytes()
    overrides = {"prior_epochs": 2}
    train(data, tmp_path / "run", prior_only=True, model=codec.parent, overrides=overrides)
    assert codec.read_bytes() == before
    assert model(tmp_path / "run").fingerprint == model(straight).fingerprint
    assert same_prior(tmp_path / "run", straight)
    # and one that has a prior gets another
    with_prior = straight / "model.safetensors"
    train(data, tmp_path / "again", prior_only=True, model=with_prior, overrides=overrides)
    assert same_prior(tmp_path / "again", straight)
    assert model(tmp_path / "again").fingerprint == model(straight).fingerprint


@pytest.mark.parametrize(
    ("stop_in", "stop_after"), [("codec", 2), ("prior", 1), ("prior", 3), ("prior", 5)]
)
def test_a_resumed_training_equals_an_uninterrupted_one(
    data: Path, straight: Path, tmp_path: Path, stop_in: str, stop_after: int
) -> None:
    """To the bit: before the prior, within an epoch of it and between two."""
    folder = tmp_path / "run"
    stopped = train(data, folder, stop_in, stop_after)
    assert (stopped.finished, stopped.what, stopped.step) == (False, stop_in, stop_after)
    file = model(folder)
    assert (file.prior is not None) == (stop_in == "prior")
    assert oasisvq.load(folder).encode(np.eye(64, dtype=np.uint8))  # usable
    resumed = train(data, folder, resume=True)
    assert (resumed.finished, resumed.what, resumed.step) == (True, "prior", PRIOR_STEPS)
    ours, theirs = folder / "model.safetensors", straight / "model.safetensors"
    assert ours.read_bytes() == theirs.read_bytes()
    first, second = load_file(folder / CHECKPOINTS[1]), load_file(straight / CHECKPOINTS[1])
    assert first.keys() == second.keys()
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())
    assert rows(folder) == rows(straight)


def test_a_finished_training_stays_as_it_is(data: Path, straight: Path) -> None:
    before = {path: path.read_bytes() for path in straight.iterdir()}
    assert train(data, straight, resume=True).finished
    assert {path: path.read_bytes() for path in straight.iterdir()} == before


@pytest.mark.parametrize("stop_after", [0, 2])
def test_a_training_in_place_of_another_forgets_its_prior(
    data: Path, tmp_path: Path, stop_after: int
) -> None:
    folder = tmp_path / "run"
    train(data, folder)
    with pytest.raises(OasisVQError, match="holds a training already"):
        train(data, folder)
    stop_in = "codec" if stop_after else ""
    train(data, folder, stop_in, stop_after, force=True, seed=6, with_prior=False)
    assert not (folder / CHECKPOINTS[1]).exists()
    assert model(folder).prior is None
    metrics = folder / "metrics.jsonl"  # none were due when it stopped, and an empty file is not left
    assert not metrics.exists() if stop_after else {row["what"] for row in rows(folder)} == {"codec"}
    resumed = train(data, folder, resume=True)
    assert (resumed.what, resumed.step) == ("codec", CODEC_STEPS)


def test_starting_from_another_model(data: Path, straight: Path, tmp_path: Path) -> None:
    grown = NETWORK | {"levels": 3, "encoder_blocks": (1, 2), "decoder_blocks": (2, 1)}
    overrides = grown | {"epochs": 1, "batch_size": 4, "learning_rate": 1e-7}
    folder = tmp_path / "run"
    trained = train(data, folder, start_from=straight, overrides=overrides, with_prior=False)
    assert trained.finished
    file, source = model(folder), model(straight)
    assert file.config.levels == 3
    assert file.card["started_from"] == source.fingerprint.hex()
    name = "encoder.input.weight"  # the first convolution, which no added block moves
    np.testing.assert_allclose(file.arrays[name], source.arrays[name], atol=1)
    first = next(row for row in rows(folder) if row["kind"] == "epoch")
    last = [row for row in rows(straight) if (row["what"], row["kind"]) == ("codec", "epoch")][-1]
    assert first["loss"] < 1.2 * last["loss"]  # as good as what it started from


def test_a_resumed_training_that_started_from_another_equals_an_uninterrupted_one(
    data: Path, straight: Path, tmp_path: Path
) -> None:
    overrides = NETWORK | {"levels": 3, "epochs": 1, "batch_size": 4}
    given: dict[str, Any] = {"overrides": overrides, "with_prior": False, "start_from": straight}
    train(data, tmp_path / "whole", **given)
    train(data, tmp_path / "stopped", "codec", 1, **given)
    train(data, tmp_path / "stopped", resume=True)
    ours, theirs = (tmp_path / name / "model.safetensors" for name in ("whole", "stopped"))
    assert ours.read_bytes() == theirs.read_bytes()


def test_starting_from_a_model_of_another_kind(
    run: Run, data: Path, straight: Path, tmp_path: Path
) -> None:
    for model_path, says in ((straight, "has stride 2"), (tmp_path / "gone", "no such file")):
        options = ("--preset", "small", "--device", "cpu", "--batch-size", "4")
        result = run("train", data, "-o", "run", *options, "--start-from", model_path)
        assert result.code == 1
        assert says in result.err.splitlines()[-1]
        assert not (tmp_path / "run" / "model.safetensors").exists()


def test_a_prior_starts_from_another(data: Path, straight: Path, tmp_path: Path) -> None:
    """With its kinds: what it has learned is not lost, and a resumed training equals a whole one."""
    given: dict[str, Any] = {"prior_only": True, "model": straight, "start_from": straight}
    given["overrides"] = {"prior_epochs": 2}
    train(data, tmp_path / "whole", **given)
    before, after = (
        [sum(row["validation_bits"]) for row in rows(folder) if row.get("validation_bits")]
        for folder in (straight, tmp_path / "whole")
    )
    assert max(after) < min(before)
    train(data, tmp_path / "stopped", "prior", 1, **given)
    train(data, tmp_path / "stopped", resume=True)
    ours, theirs = (tmp_path / name / "model.safetensors" for name in ("whole", "stopped"))
    assert ours.read_bytes() == theirs.read_bytes()
    settings = load_checkpoint(tmp_path / "whole" / CHECKPOINTS[1]).progress["settings"]
    assert settings["started_from"] == model(straight).with_prior(None, {}).fingerprint.hex()


def test_levels_that_files_would_not_hold_weigh_nothing() -> None:
    kept = torch.tensor([1, 2, 2, 3], dtype=torch.uint8)
    found = weights_of_levels(kept, 4)
    torch.testing.assert_close(found.mean(0), torch.tensor([1.0, 1, 1, 0]))
    torch.testing.assert_close(found[:, 1], torch.tensor([0, 4 / 3, 4 / 3, 4 / 3]))


def test_a_prior_does_not_start_from_what_is_none(
    run: Run, data: Path, straight: Path, tmp_path: Path
) -> None:
    grown = NETWORK | {"levels": 3, "epochs": 1, "batch_size": 4}
    train(data, tmp_path / "three", overrides=grown, with_prior=False)
    train(data, tmp_path / "both", overrides=grown | {"prior_epochs": 1})
    options = ("--prior-only", "--model", straight, "--prior-epochs", "1", "--device", "cpu")
    for source, says in (
        (tmp_path / "three", "prior-checkpoint.safetensors: no such file"),
        (tmp_path / "both", "both: its prior has "),
        (straight / "model.safetensors", "expected a run folder"),
    ):
        result = run("train", data, "-o", "run", *options, "--start-from", source)
        assert result.code == 1
        assert says in result.err.splitlines()[-1]
        assert not (tmp_path / "run" / "model.safetensors").exists()


def test_the_command_trains_a_prior(run: Run, data: Path, straight: Path, tmp_path: Path) -> None:
    options = ("--prior-only", "--model", straight, "--prior-epochs", "1", "--device", "cpu")
    result = run("train", data, "-o", "run", *options)
    assert result.code == 0, result
    assert "prior epoch 1/1  bits an index " in result.err
    silent = run("train", data, "-o", "again", *options, "--quiet")
    assert (silent.code, silent.err) == (0, "")
    assert result.out.startswith("validation: 4 slices")
    assert run("sample", "-n", "1", "-o", "a.png", "--model", "run").code == 0
