"""`oasisvq train` as a user meets it: what it leaves, how it stops, how it goes on."""

import errno
import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Result, write_raw_folder
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from oasisvq.data.dataset import open_dataset
from oasisvq.data.layouts import Images
from oasisvq.data.preprocess import preprocess
from oasisvq.files import claimed
from oasisvq.training import command, loop
from oasisvq.training.codec_training import Training
from oasisvq.training.weights import load_model

Run = Callable[..., Result]

CPU = ("--device", "cpu")
SEED = ("--preset", "seed", "--epochs", "2", "--batch-size", "4", "--precision", "float32", *CPU)
SEED += ("--no-prior", "--no-residue")  # see test_prior_training.py, test_residue_training.py
STEPS_PER_EPOCH, STEPS = 3, 6  # of the 12 training slices of `raw_folder`


@pytest.fixture(scope="module", autouse=True)
def no_curves() -> Iterator[None]:
    """They take longer than these trainings; see test_pictures.py."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "draw_curves", lambda rows: b"curves")
        yield


def rows(run_folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run_folder / "metrics.jsonl").read_text().splitlines()]


def lasting(run_folder: Path) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl without what depends on the clock."""
    clock = ("images_per_second", "seconds_left")
    return [{key: row[key] for key in row if key not in clock} for row in rows(run_folder)]


def same_tensors(first: Path, second: Path) -> bool:
    ours, theirs = load_file(first), load_file(second)
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def fingerprint(run_folder: Path) -> str:
    return load_model(run_folder / "model.safetensors").fingerprint.hex()[:8]


# what a training leaves


def test_training_leaves_model_checkpoint_and_metrics(
    run: Run, raw_folder: Path, tmp_path: Path
) -> None:
    result = run("train", raw_folder, *SEED)
    assert result.code == 0
    folder = tmp_path / "oasisvq-run"
    assert {path.name for path in folder.iterdir()} == {
        "model.safetensors",
        "checkpoint.safetensors",
        "metrics.jsonl",
        "curves.png",
        "panel.png",
        "dataset",
    }
    assert {row["what"] for row in rows(folder)} == {"codec"}
    assert [(row["kind"], row["epoch"], row["step"]) for row in rows(folder)] == [
        ("step", 1, 3),
        ("epoch", 1, 3),
        ("step", 2, 6),
        ("epoch", 2, 6),
    ]
    assert all(np.isfinite(row["loss"]) and row["images_per_second"] > 0 for row in rows(folder))
    for row in rows(folder)[1::2]:
        assert len(row["validation_ssim"]) == len(row["perplexity"]) == len(row["active"]) == 1
        assert 1 <= row["perplexity"][0] <= row["active"][0] <= 512
    card = load_model(folder / "model.safetensors").card
    assert (card["images"], card["size"]) == ("scans", 80)
    assert (card["training_slices"], card["training_subjects"], card["steps"]) == (12, 3, STEPS)
    assert card["training_data"] == open_dataset(folder / "dataset").splits["train"].sha256

    assert "preset seed: " in result.err
    assert "epoch 1/2" in result.err
    assert "epoch 2/2" in result.err
    assert "\x1b" not in result.err
    first, head, quality, black, _ = result.out.splitlines()
    assert first.startswith(f"validation: 8 slices of 2 subjects, 80×80, model {fingerprint(folder)}")
    assert "foreground SSIM" in head
    assert quality.split()[0] == "1"
    assert black.split()[0] == "black"


def test_the_four_commands_one_after_the_other(
    run: Run, raw_folder: Path, phantom_png: Path, tmp_path: Path
) -> None:
    """In a folder that holds only data/ and scan.png, each with the model just trained."""
    assert {path.name for path in tmp_path.iterdir()} == {"data", "scan.png"}
    original = phantom_png.read_bytes()
    trained = run("train", "data/", *SEED)
    assert trained.code == 0
    encoded = run("encode", "scan.png", "-o", "scan.codes")
    decoded = run("decode", "scan.codes")
    scored = run("score", "--split", "validation")
    model = f"model {fingerprint(tmp_path / 'oasisvq-run')}: "
    for result in (encoded, decoded, scored):
        assert result.code == 0
        assert result.err.startswith(model)
        assert "(the model trained in this folder)" in result.err
    assert {path.name for path in tmp_path.iterdir()} == {
        "data",
        "scan.png",
        "oasisvq-run",
        "scan.codes",
        "scan.decoded.png",
    }
    assert phantom_png.read_bytes() == original
    with Image.open(tmp_path / "scan.decoded.png") as image:
        assert (image.size, image.mode) == ((64, 64), "L")
    assert scored.out == trained.out


def test_a_prepared_dataset_trains_the_same_model_as_its_raw_folder(
    run: Run, raw_folder: Path, tmp_path: Path
) -> None:
    run("train", raw_folder, "-o", "of-raw", *SEED)
    run("preprocess", raw_folder, "-o", "prepared", "--size", "80")
    shutil.rmtree(raw_folder)
    assert run("train", "prepared", "-o", "of-prepared", *SEED).code == 0
    assert not (tmp_path / "of-prepared" / "dataset").exists()
    models = (tmp_path / name / "model.safetensors" for name in ("of-raw", "of-prepared"))
    assert same_tensors(*models)


def test_training_without_a_validation_split(run: Run, tmp_path: Path) -> None:
    write_raw_folder(tmp_path / "data", {"train": [1, 2, 3]})
    result = run("train", "data", *SEED)
    assert result.code == 0
    assert result.out == ""
    assert "no validation split" in result.err
    assert load_model(tmp_path / "oasisvq-run" / "model.safetensors").card["steps"] == STEPS


# a folder that was trained in before


def test_no_second_training_without_force(run: Run, raw_folder: Path, tmp_path: Path) -> None:
    run("train", raw_folder, *SEED)
    folder = tmp_path / "oasisvq-run"
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    refused = run("train", raw_folder, *SEED)
    assert refused.code == 1
    assert refused.err.splitlines()[-1].startswith("oasisvq: oasisvq-run: holds a training already")
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before

    shutil.copytree(folder, tmp_path / "first")
    assert run("train", raw_folder, *SEED, "-f").code == 0
    assert same_tensors(folder / "model.safetensors", tmp_path / "first" / "model.safetensors")
    assert lasting(folder) == lasting(tmp_path / "first")
    assert run("train", raw_folder, *SEED, "-f", "--seed", "1").code == 0
    assert not same_tensors(folder / "model.safetensors", tmp_path / "first" / "model.safetensors")


def test_a_disk_that_fills_up_leaves_the_last_training_whole(
    run: Run, raw_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("preprocess", raw_folder, "-o", "prepared", "--size", "80")
    run("train", "prepared", *SEED)
    folder = tmp_path / "oasisvq-run"
    names = ("model.safetensors", "checkpoint.safetensors")
    before = [(folder / name).read_bytes() for name in names]

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    result = run("train", "prepared", *SEED, "-f", "--seed", "1")
    assert result.code == 1
    assert result.err.splitlines()[-1].endswith("No space left on device")
    assert [(folder / name).read_bytes() for name in names] == before
    assert {path.name for path in folder.iterdir()} == {*names, "metrics.jsonl"}


def test_a_loss_that_is_no_number_ends_the_training(run: Run, raw_folder: Path, tmp_path: Path) -> None:
    result = run("train", raw_folder, *SEED, "--learning-rate", "1e30")
    assert result.code == 1
    error = result.err.splitlines()[-1]
    assert error.startswith("oasisvq: ")
    assert "not a number" in error
    assert "--learning-rate" in error
    folder = tmp_path / "oasisvq-run"
    assert not (folder / "model.safetensors").exists()
    promised = "checkpoint.safetensors" in error
    assert promised == (folder / "checkpoint.safetensors").exists()


# stopping and going on


def test_a_training_out_of_time_is_usable_and_resumes(
    run: Run, raw_folder: Path, phantom_png: Path, tmp_path: Path
) -> None:
    stopped = run("train", raw_folder, *SEED, "--max-minutes", "0")
    assert stopped.code == 0
    assert "stopped at step 1 of the codec; " in stopped.err
    assert "--resume" in stopped.err
    assert "black" in stopped.out
    folder = tmp_path / "oasisvq-run"
    assert load_model(folder / "model.safetensors").card["steps"] == 1
    assert run("encode", phantom_png).code == 0
    assert run("decode", "scan.codes").code == 0

    resumed = run("train", raw_folder, "--resume", *CPU)
    assert resumed.code == 0
    assert "resuming the codec at step 1 of 6" in resumed.err
    assert "stopped" not in resumed.err
    assert load_model(folder / "model.safetensors").card["steps"] == STEPS
    assert [row["step"] for row in rows(folder) if row["kind"] == "epoch"] == [3, 6]
    assert f"model {fingerprint(folder)}" in resumed.out

    finished = (folder / "model.safetensors").read_bytes()
    again = run("train", raw_folder, "--resume", *CPU)
    assert again.code == 0
    assert again.out == resumed.out
    assert (folder / "model.safetensors").read_bytes() == finished


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_after_the_step(
    run: Run,
    raw_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: signal.Signals,
) -> None:
    train_step = Training.train_step

    def interrupted(self: Training, order: Tensor) -> None:
        if self.step == 1:
            signal.raise_signal(number)
        train_step(self, order)

    monkeypatch.setattr(Training, "train_step", interrupted)
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    result = run("train", raw_folder, *SEED)
    assert (result.code, result.out) == (130, "")  # nothing is scored
    line = result.err.splitlines()[-1]
    assert line.startswith("stopped at step 2 of the codec; ")
    assert f"score it with `oasisvq score {raw_folder} --model oasisvq-run`" in line
    assert f"continue with `oasisvq train {raw_folder} -o oasisvq-run --resume`" in line
    assert run("score", raw_folder, "--model", "oasisvq-run").code == 0
    assert load_model(tmp_path / "oasisvq-run" / "model.safetensors").card["steps"] == 2
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers


def test_only_one_process_trains_into_a_folder(run: Run, raw_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "oasisvq-run"
    folder.mkdir()
    with claimed(folder / "metrics.jsonl", create=True):
        result = run("train", raw_folder, *SEED)
    assert result.code == 1
    assert "oasisvq-run: another process trains into it; wait for its end" in result.err
    assert [path.name for path in folder.iterdir()] == ["metrics.jsonl"]
    assert run("train", raw_folder, *SEED).code == 0


def test_a_training_that_does_not_begin_leaves_no_folder(run: Run, tmp_path: Path) -> None:
    assert run("train", "missing", *SEED).code == 1
    assert not (tmp_path / "oasisvq-run").exists()


class Bench:
    """Trains a tiny model of two levels on a prepared dataset, by the call behind the command."""

    def __init__(self, data: Path) -> None:
        self.data = data

    def train(
        self,
        run_folder: Path,
        resume: bool = False,
        stop_after: int | None = None,
    ) -> command.Trained:
        steps = 0

        def should_stop() -> bool:
            nonlocal steps
            steps += 1
            return steps == stop_after

        network = {
            "encoder_channels": (8, 16),
            "encoder_blocks": (1, 1),
            "decoder_channels": (16, 8),
            "decoder_blocks": (1, 1),
            "code_dim": 8,
            "codebook_size": 20,
            "levels": 2,
            "epochs": 2,
            "batch_size": 4,
        }
        trained = command.train(
            command.Request(
                data=(self.data,),
                run=run_folder,
                preset=None if resume else "seed",
                images=None if resume else Images.SCANS,
                overrides={} if resume else network,
                seed=None if resume else 5,
                precision=None if resume else "float32",
                device="cpu",
                max_minutes=None,
                resume=resume,
                force=False,
                with_prior=False,
                with_residue=False,
            ),
            lambda message: None,
            should_stop,
            lambda done, total: None,
        )
        assert trained is not None
        return trained


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    root = tmp_path_factory.mktemp("bench")
    raw = write_raw_folder(root / "raw", {"train": [1, 2, 3], "validate": [4]})
    return Bench(preprocess(raw, root / "prepared", size=64).folder)


@pytest.fixture(scope="module")
def straight(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a training that nothing interrupted."""
    folder = tmp_path_factory.mktemp("straight") / "run"
    assert bench.train(folder).finished
    return folder


@pytest.mark.parametrize("stop_after", range(1, STEPS))
def test_a_resumed_training_equals_an_uninterrupted_one(
    bench: Bench, straight: Path, tmp_path: Path, stop_after: int
) -> None:
    """To the bit: before and after the k-means start, within an epoch and between two."""
    folder = tmp_path / "run"
    stopped = bench.train(folder, stop_after=stop_after)
    assert (stopped.finished, stopped.step) == (False, stop_after)
    resumed = bench.train(folder, resume=True)
    assert (resumed.finished, resumed.step) == (True, STEPS)
    assert same_tensors(folder / "model.safetensors", straight / "model.safetensors")
    assert same_tensors(folder / "checkpoint.safetensors", straight / "checkpoint.safetensors")
    assert lasting(folder) == lasting(straight)


def test_a_training_may_be_stopped_after_every_step(
    bench: Bench, straight: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    bench.train(folder, stop_after=1)
    while not bench.train(folder, resume=True, stop_after=1).finished:
        pass
    assert same_tensors(folder / "checkpoint.safetensors", straight / "checkpoint.safetensors")
    assert lasting(folder) == lasting(straight)


def test_steps_lost_in_a_crash_stand_once_in_the_metrics(
    bench: Bench, straight: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process killed before its second checkpoint has written rows that the first knows not."""
    save = Training.save

    def killed(self: Training) -> None:
        if self.step == STEPS:
            raise RuntimeError("killed")
        save(self)

    folder = tmp_path / "run"
    monkeypatch.setattr(loop, "SECONDS_PER_CHECKPOINT", 0.0)
    monkeypatch.setattr(Training, "save", killed)
    with pytest.raises(RuntimeError, match="killed"):
        bench.train(folder)
    assert rows(folder)[-1]["step"] == STEPS
    monkeypatch.undo()
    assert bench.train(folder, resume=True).finished
    assert lasting(folder) == lasting(straight)
    assert same_tensors(folder / "model.safetensors", straight / "model.safetensors")


def test_resuming_without_its_metrics_writes_whole_rows(bench: Bench, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    bench.train(folder, stop_after=STEPS_PER_EPOCH + 1)
    (folder / "metrics.jsonl").unlink()
    bench.train(folder, resume=True)
    assert [row["step"] for row in rows(folder)] == [STEPS, STEPS]


def test_resuming_on_other_data_is_refused(
    run: Run, bench: Bench, raw_folder: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    bench.train(folder, stop_after=1)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    edited = raw_folder / "keras_png_slices_train" / "case_001_slice_0.nii.png"
    with Image.open(edited) as image:
        image.transpose(Image.Transpose.FLIP_TOP_BOTTOM).save(edited)
    run("preprocess", raw_folder, "-o", "edited", "--size", "64")
    write_raw_folder(tmp_path / "more", {"train": [1, 2, 3, 4]})
    for data in ("edited", "more"):
        result = run("train", data, "-o", folder, "--resume", *CPU)
        assert result.code == 1
        error = result.err.splitlines()[-1]
        assert error.startswith("oasisvq: ")
        assert "resume" in error
        assert {path: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before
