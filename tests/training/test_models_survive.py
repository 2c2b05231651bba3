"""No training takes away a model that a file needs: stopped, killed, resumed, replaced, two at once."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import Run, draw_phantom, fingerprint, kept, write_raw_folder
from PIL import Image
from torch import Tensor

from oasisvq import models
from oasisvq.codec.modelfile import read_model
from oasisvq.data.preprocess import preprocess
from oasisvq.training import loop
from oasisvq.training.codec_training import Training

TINY = ("--preset", "seed", "--epochs", "2", "--batch-size", "4", "--codebook-size", "16")
TINY += ("--precision", "float32", "--device", "cpu")
STEPS = 6  # of the 12 training slices


@pytest.fixture(scope="module", autouse=True)
def no_curves() -> Iterator[None]:
    """They take longer than these trainings."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "draw_curves", lambda rows: b"curves")
        yield


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other_model: Path, run: Run) -> Path:
    """A prepared dataset without a validation split, and scan.png; the bundled model is a tiny one."""
    monkeypatch.setattr(models, "BUNDLED_MODEL", other_model)
    raw = write_raw_folder(tmp_path / "raw", {"train": [1, 2, 3]}, size=32)
    preprocess(raw, tmp_path / "data", size=32)
    Image.fromarray(draw_phantom(np.random.default_rng(1))).save(tmp_path / "scan.png")
    return Path("data")


def stop_at(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C in the step after so many."""
    train_step = Training.train_step

    def interrupted(self: Training, order: Tensor) -> None:
        if self.step == step:
            signal.raise_signal(signal.SIGINT)
        train_step(self, order)

    monkeypatch.setattr(Training, "train_step", interrupted)


def decoded_by(run: Run, codes: str) -> str:
    """The model that decoded a file, as its line says it."""
    result = run("decode", codes, "-f")
    assert result.code == 0, result.err
    return result.err


def test_a_training_stopped_resumed_and_replaced_leaves_every_file_decodable(
    run: Run, data: Path, store: Path, other_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = Path("oasisvq-run", "model.safetensors")
    with monkeypatch.context() as patch:
        stop_at(1, patch)
        stopped = run("train", data, *TINY, "--no-prior")
    assert stopped.code == 130
    assert f"{trained} is usable with --model oasisvq-run" in stopped.err
    assert not list(store.iterdir())

    unnamed = run("encode", "scan.png", "-o", "bundled.codes")
    assert unnamed.code == 0
    assert f"{other_model} (the bundled model; the one in oasisvq-run is of a training" in unnamed.err
    named = run("encode", "scan.png", "-o", "stopped.codes", "--model", "oasisvq-run")
    assert "(named, of a training that got to step 2 of 6), kept as " in named.err
    used = store / kept(trained)

    resumed = run("train", data, "--resume", "--device", "cpu")
    assert resumed.code == 0
    finished = store / kept(trained)
    assert f"model finished, kept as {finished}" in resumed.err
    assert finished.samefile(trained)
    assert finished != used
    assert "trained in this folder" in run("encode", "scan.png", "-o", "finished.codes").err

    again = run("train", data, *TINY, "--no-prior", "-f", "--seed", "1")
    assert again.code == 0
    assert run("encode", "scan.png", "-o", "again.codes").code == 0
    assert fingerprint(finished) != fingerprint(trained)

    assert f"{used} (the store, of a training that got to step 2 of 6)" in decoded_by(
        run, "stopped.codes"
    )
    assert f"{finished} (the store)" in decoded_by(run, "finished.codes")
    assert "(the model trained in this folder)" in decoded_by(run, "again.codes")
    assert "(the store)" in decoded_by(run, "bundled.codes")
    shutil.rmtree("oasisvq-run")
    assert f"{finished} (the store)" in decoded_by(run, "finished.codes")
    assert "(the store)" in decoded_by(run, "again.codes")
    card = read_model(finished).card
    assert (card["finished"], card["steps"], card["planned_steps"]) == (True, STEPS, STEPS)


def test_a_model_is_finished_when_its_prior_is(
    run: Run, data: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = Path("oasisvq-run", "model.safetensors")
    with monkeypatch.context() as patch:
        stop_at(STEPS - 1, patch)  # of the codec, which ends by itself; then the prior stops
        assert run("train", data, *TINY, "--prior-epochs", "3").code == 130
    told = run("encode", "scan.png", "-o", "a.codes").err
    assert "the one in oasisvq-run is of a training that got to step 1 of 9 of its prior" in told
    assert run("train", data, "--resume", "--device", "cpu").code == 0
    card = read_model(trained).card
    assert card["finished"] is True
    assert len(card["prior"]["codec"]) == 16
    assert "(the model trained in this folder)" in run("encode", "scan.png", "-o", "b.codes").err
    assert (store / kept(trained)).samefile(trained)


def test_what_cannot_be_kept_is_not_replaced(
    run: Run, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a_file").touch()
    monkeypatch.setenv("OASISVQ_STORE", str(tmp_path / "a_file" / "store"))
    first = run("train", data, *TINY, "--no-prior")
    assert first.code == 0
    assert "model finished, in oasisvq-run/model.safetensors only: " in first.err
    before = Path("oasisvq-run", "model.safetensors").read_bytes()
    second = run("train", data, *TINY, "--no-prior", "-f", "--seed", "1")
    assert second.code == 1
    assert second.err.splitlines()[-1].endswith("the folder cannot be created: Not a directory")
    assert Path("oasisvq-run", "model.safetensors").read_bytes() == before


KILLED = """
import os, signal, sys
from oasisvq.cli.app import main
from oasisvq.training import loop
from oasisvq.training.codec_training import Training

loop.SECONDS_PER_CHECKPOINT = 0
step = Training.train_step
def dying(self, order):
    if self.step == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    step(self, order)

Training.train_step = dying
main(sys.argv[1:])
"""


@pytest.mark.slow
def test_one_of_two_trainings_at_once_is_killed_and_resumed(run: Run, data: Path, store: Path) -> None:
    options = ["train", str(data), *TINY, "--no-prior"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    programs = (["-c", KILLED], "killed"), (["-m", "oasisvq"], "whole"), (["-m", "oasisvq"], "twin")
    processes = [
        subprocess.Popen(
            [sys.executable, *program, *options, "-o", folder],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for program, folder in programs
    ]
    assert [process.wait() for process in processes] == [-signal.SIGKILL, 0, 0]
    folders = [Path(folder, "model.safetensors") for _, folder in programs]
    assert read_model(folders[0]).card["steps"] == 3  # at the end of an epoch
    assert run("encode", "scan.png", "-o", "killed.codes", "--model", "killed").code == 0
    used = kept(folders[0])
    assert run("encode", "scan.png", "-o", "whole.codes", "--model", "whole").code == 0
    assert run("train", data, "--resume", "--device", "cpu", "-o", "killed").code == 0
    assert [fingerprint(path) for path in folders] == [fingerprint(folders[1])] * 3
    whole = kept(folders[1])
    assert {path.name for path in store.iterdir()} == {used, whole}
    for _, folder in programs:
        shutil.rmtree(folder)
    assert used in decoded_by(run, "killed.codes")
    assert f"{whole} (the store)" in decoded_by(run, "whole.codes")
