"""A tiny real training, and what can go wrong in one."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY, write_raw_folder

import oasisvq
from oasisvq.data.dataset import Dataset
from oasisvq.data.preprocess import preprocess
from oasisvq.errors import TrainingError
from oasisvq.evaluation.metrics import similarity
from oasisvq.training.codec_training import CodecEpoch, Training, TrainingConfig
from oasisvq.training.distributed import World
from oasisvq.training.loop import learning_rate, warm_up_steps
from oasisvq.training.presets import PRESETS, model_config
from oasisvq.training.reports import Start, StepReport
from oasisvq.training.weights import load_model

ALONE = World(0, 1, torch.device("cpu"))


class Recorder:
    """A reporter that remembers."""

    def __init__(self) -> None:
        self.steps: list[StepReport] = []
        self.epochs: list[CodecEpoch] = []
        self.notes: list[str] = []

    def started(self, start: Start) -> None:
        self.start = start

    def step(self, report: StepReport) -> None:
        self.steps.append(report)

    def epoch(self, report: CodecEpoch) -> None:
        self.epochs.append(report)

    def note(self, message: str) -> None:
        self.notes.append(message)


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    raw = write_raw_folder(tmp_path / "raw", {"train": [1, 2, 3, 4], "validate": [5]}, slices=8)
    return preprocess(raw, tmp_path / "data", size=64)


def config(**changes: object) -> TrainingConfig:
    plain = TrainingConfig(
        TINY, epochs=30, batch_size=8, learning_rate=4e-3, seed=1, precision="float32"
    )
    return dataclasses.replace(plain, **changes)  # type: ignore[arg-type]


def training(dataset: Dataset, reporter: Recorder, **changes: object) -> Training:
    made = Training(dataset, config(**changes), dataset.folder.parent / "run", ALONE, reporter)
    made.start_run()
    return made


def test_a_training_learns(dataset: Dataset) -> None:
    reporter = Recorder()
    one = training(dataset, reporter)
    assert one.go(lambda: False)
    assert len(reporter.epochs) == 30
    first, last = reporter.epochs[0], reporter.epochs[-1]
    assert last.ssim_loss < 0.6 * first.ssim_loss
    assert last.validation_ssim[2] > 0.5 > first.validation_ssim[2]
    assert all(1 < each <= TINY.codebook_size for each in last.perplexity)
    codec = oasisvq.load(one.run)
    original = np.asarray(dataset.array("validation")[0])
    scores = [similarity(original, codec.decode(codec.encode(original, k)), 255) for k in (1, 3)]
    black = similarity(original, np.zeros_like(original), 255)
    assert scores[1].ssim > scores[0].ssim > black.ssim
    assert scores[1].psnr > 18


@torch.no_grad()
def test_slices_that_keep_more_levels_weigh_more(dataset: Dataset) -> None:
    """By level_weight, with a mean of 1 over the levels; without a quantizer all weigh the same."""
    pixels = torch.from_numpy(np.asarray(dataset.array("train")[:1, :40, :48], np.float32))[None] / 255
    parts = {}
    for power in (0.0, 0.75):
        step = training(dataset, Recorder(), level_weight=power).step_module
        losses = [step(pixels, torch.tensor([kept]), True)[0] for kept in (1, 2, 3)]
        losses.append(step(pixels, torch.tensor([3]), False)[0])
        parts[power] = torch.tensor([[each.ssim_loss, each.l1, each.mse] for each in losses])
    powers = torch.tensor([1.0, 2.0, 3.0]) ** 0.75
    expected = torch.cat([powers / powers.mean(), torch.ones(1)])[:, None].expand(4, 3)
    torch.testing.assert_close(parts[0.75] / parts[0.0], expected, rtol=1e-4, atol=0)


def test_the_loss_is_finite_or_the_training_stops_and_keeps_the_last_good_state(
    dataset: Dataset,
) -> None:
    reporter = Recorder()
    one = training(dataset, reporter, epochs=3)
    assert not one.go(lambda: one.step == 4)
    checkpoint = (one.run / "checkpoint.safetensors").read_bytes()
    with torch.no_grad():
        next(one.model.decoder.parameters()).fill_(float("nan"))
    with pytest.raises(TrainingError, match=r"since step 4; .*checkpoint.* holds the last good state"):
        one.go(lambda: False)
    assert (one.run / "checkpoint.safetensors").read_bytes() == checkpoint


def test_a_model_stopped_before_its_codebooks_learned_is_usable(dataset: Dataset) -> None:
    straight = training(dataset, Recorder(), epochs=20)
    assert straight.quantizing_from > 1
    straight.go(lambda: straight.step == 40)
    stopped = Training(dataset, config(epochs=20), dataset.folder.parent / "stopped", ALONE, Recorder())
    stopped.start_run()
    assert not stopped.go(lambda: stopped.step == 1)
    codes = oasisvq.load(stopped.run)
    planes = [np.asarray(plane) for plane in dataset.array("validation")]
    used = {content[-60:] for content in (codes.encode(plane) for plane in planes)}
    assert len(used) == len(planes)  # not one grid for all
    assert load_model(stopped.run / "model.safetensors").model.quantizer.codebooks.any()
    stopped.go(lambda: stopped.step == 40)  # and the trajectory is that of one not stopped
    for ours, theirs in zip(stopped.model.parameters(), straight.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_a_collapsing_codebook_is_said(dataset: Dataset) -> None:
    reporter = Recorder()
    one = training(dataset, reporter, epochs=1)
    one.learner.usage[:, 0] = 5
    one.step = one.steps_per_epoch
    one._end_epoch()
    assert len(reporter.notes) == TINY.levels
    assert "level 1 uses only 1 of 20 codes" in reporter.notes[0]


def test_the_time_left_counts_what_lies_between_epochs(dataset: Dataset) -> None:
    reporter = Recorder()
    one = training(dataset, reporter, epochs=3)
    one.seconds_between = 1000.0
    one.go(lambda: False)
    assert 3000 < reporter.steps[0].seconds_left < 4000
    assert reporter.steps[1].seconds_left < 1000  # it was measured


def test_too_small_a_set_and_an_odd_world_are_refused(dataset: Dataset) -> None:
    with pytest.raises(TrainingError, match="32 training slices, fewer than a batch of 64"):
        training(dataset, Recorder(), batch_size=64)
    with pytest.raises(TrainingError, match="does not divide among 3 processes"):
        Training(dataset, config(), dataset.folder, World(0, 3, torch.device("cpu")), Recorder())


def test_the_rate_rises_then_falls() -> None:
    plain = config()
    rates = [learning_rate(plain, step, 1000) for step in range(1000)]
    top = warm_up_steps(1000)
    assert rates[0] < rates[top - 1] == pytest.approx(plain.learning_rate)
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert rates[-1] == pytest.approx(0.01 * plain.learning_rate, rel=0.01)


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_every_preset_fits_a_dataset_of_its_size(dataset: Dataset, name: str) -> None:
    preset = PRESETS[name]
    sized = dataclasses.replace(dataset, size=preset.size)
    made = model_config(preset, sized)
    box = dataset.splits["train"].content
    assert made.window[0] >= box.bottom - box.top
    assert made.window[1] >= box.right - box.left
