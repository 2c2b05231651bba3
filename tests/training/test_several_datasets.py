"""`oasisvq train` on several datasets at once."""

import json
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from conftest import AFFINE, Refused, Result, draw_volume, write_raw_folder
from torch import Tensor

from oasisvq.codec.modelfile import read_model
from oasisvq.data.dataset import open_dataset
from oasisvq.training import loop
from oasisvq.training.codec_training import Training

Run = Callable[..., Result]

CPU = ("--device", "cpu")
TINY = ("--preset", "seed", "--epochs", "1", "--batch-size", "4", "--codebook-size", "16", *CPU)
TINY += ("--no-prior", "--no-residue", "--volumes-epochs", "1")
DATA = ("slices", "heads", "planes")  # raw images, raw volumes, and volumes prepared along another axis


@pytest.fixture(scope="module", autouse=True)
def no_curves() -> Iterator[None]:
    """They take longer than these trainings; see test_pictures.py."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "draw_curves", lambda rows: b"curves")
        yield


@pytest.fixture(autouse=True)
def data(run: Run, tmp_path: Path, rng: np.random.Generator) -> None:
    """What `DATA` names."""
    write_raw_folder(tmp_path / "slices", {"train": [1, 2], "validate": [3]}, slices=3, size=32)
    for split, number in (("train", 2), ("validation", 3)):
        (tmp_path / "heads" / split).mkdir(parents=True)
        image = nib.Nifti1Image(draw_volume(rng), AFFINE)
        image.to_filename(tmp_path / "heads" / split / f"OAS1_{number:04d}.nii.gz")
    options = ("--size", "32", "--axis", "coronal", "--slices", "10:14")
    assert run("preprocess", "heads", "-o", "planes", *options).code == 0


def test_a_training_learns_from_all_of_them(run: Run, tmp_path: Path) -> None:
    result = run("train", *DATA, *TINY)
    assert result.code == 0, result.err
    folder = tmp_path / "oasisvq-run"
    assert {path.name for path in folder.glob("dataset*")} == {"dataset", "dataset-1", "dataset-2"}
    joined = open_dataset(folder / "dataset")
    parts = [open_dataset(folder / "dataset-1"), open_dataset(folder / "dataset-2")]
    parts.append(open_dataset(tmp_path / "planes"))
    assert {part.size for part in parts} == {32}  # raw folders as what is prepared already
    for split in ("train", "validation"):
        slices = [len(part.splits[split].records) for part in parts]
        assert min(slices) >= 3
        assert len(joined.splits[split].records) == sum(slices)
    card = read_model(folder / "model.safetensors").card
    assert card["training_slices"] == len(joined.splits["train"].records)
    assert (card["training_subjects"], card["finished"]) == (2, True)
    assert "volumes" in card
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    assert {json.loads(line)["what"] for line in lines} == {"codec", "volumes"}
    assert "dataset oasisvq-run/dataset: joining slices, heads, planes" in result.err
    assert result.out.startswith(f"validation: {sum(slices)} slices of 1 subject, 32×32")


def test_a_stopped_training_says_how_to_go_on_and_does(run: Run, tmp_path: Path) -> None:
    stopped = run("train", *DATA, *TINY, "--max-minutes", "0")
    assert "continue with `oasisvq train slices heads planes -o oasisvq-run --resume`" in stopped.err
    written = (tmp_path / "oasisvq-run" / "dataset" / "train.npy").stat()
    resumed = run("train", *DATA, *CPU, "--resume", "--no-prior", "--no-residue")
    assert resumed.code == 0, resumed.err
    assert "resuming the codec at step 1" in resumed.err
    assert run("train", *DATA, *TINY, "--max-minutes", "0", "-f").code == 0
    assert (tmp_path / "oasisvq-run" / "dataset" / "train.npy").stat() == written


def test_other_data_are_not_resumed_on(run: Run, tmp_path: Path) -> None:
    run("train", *DATA, *TINY, "--max-minutes", "0")
    for others in (DATA[::-1], DATA[:2], DATA[:1], ("slices", "heads", "slices")):
        result = run("train", *others, *CPU, "--resume")
        assert result.code == 1
        line = result.err.splitlines()[-1]
        assert line.startswith("oasisvq: oasisvq-run: its training had other data than are in ")
    run("preprocess", "heads", "-o", "planes", "-f", "--size", "32", "--axis", "sagittal")
    line = run("train", *DATA, *CPU, "--resume").err.splitlines()[-1]
    assert "other data than are in slices, heads, planes now; resume with the same" in line
    first = tmp_path / "slices" / "keras_png_slices_train" / "case_001_slice_0.nii.png"
    shutil.copy(first, first.with_name("case_001_slice_9.nii.png"))
    line = run("train", *DATA, *CPU, "--resume").err.splitlines()[-1]
    assert "other data than are in slices now; resume with the same" in line


def test_a_signal_stops_it_with_what_to_score(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    train_step = Training.train_step

    def interrupted(self: Training, order: Tensor) -> None:
        if self.step == 1:
            signal.raise_signal(signal.SIGINT)
        train_step(self, order)

    monkeypatch.setattr(Training, "train_step", interrupted)
    line = run("train", *DATA, *TINY).err.splitlines()[-1]
    assert "score it with `oasisvq score oasisvq-run/dataset --model oasisvq-run`" in line
    assert run("score", "oasisvq-run/dataset", "--model", "oasisvq-run").code == 0


def test_what_does_not_go_together_is_refused_before_a_run_folder(
    run: Run, refused: Refused, tmp_path: Path
) -> None:
    run("preprocess", "slices", "-o", "larger", "--size", "48")
    line = refused("train", "planes", "larger", *TINY, naming="larger: scans of 48×48")
    assert "planes has scans of 32×32" in line
    (tmp_path / "heads" / "validation").rename(tmp_path / "heads" / "test")
    run("preprocess", "heads", "-o", "tests", "--size", "48")
    line = refused("train", "larger", "tests", *TINY, naming="tests: subject OAS1_0003")
    assert "in its split test, but in validation of larger" in line
    labels = ("--images", "segmentations")
    refused("train", "larger", "tests", *labels, *TINY, naming="larger: was prepared from scans")
    assert run("train", *TINY).code == 2


def test_a_training_does_not_write_over_what_it_reads(run: Run, refused: Refused) -> None:
    run("train", *DATA, *TINY, "--max-minutes", "0")
    for own in ("oasisvq-run/dataset", "oasisvq-run/dataset-1"):
        refused("train", "planes", own, "-f", *TINY, naming=f"{own}: is made by this training")
