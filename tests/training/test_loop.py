"""A tiny real training, and what can go wrong in one."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY, write_raw_folder
from torch._dynamo.testing import CompileCounterWithBackend

import oasisvq
from oasisvq.codec import container
from oasisvq.codec.measure import similarity
from oasisvq.data import batches
from oasisvq.data.dataset import Dataset
from oasisvq.data.preprocess import preprocess
from oasisvq.errors import TrainingError
from oasisvq.training import loop
from oasisvq.training.checkpoint import load_checkpoint
from oasisvq.training.codec_epoch import CodecEpoch
from oasisvq.training.codec_step import TrainingConfig, levels_to_keep
from oasisvq.training.codec_training import Training, validation_slices
from oasisvq.training.distributed import World
from oasisvq.training.hardware import activation_bytes
from oasisvq.training.presets import PRESETS, model_config
from oasisvq.training.rate import learning_rate, warm_up_steps
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
    found = [codec.codes_of(container.read(codec.encode(original, k), "x")) for k in (1, 3)]
    plain = [codec.decode_indices(codes.indices, codes.header.of_indices) for codes in found]
    scores = [similarity(original, each, 255) for each in plain]  # of the indices alone
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


def test_sums_over_processes_are_resumed_by_one_of_them(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = training(dataset, Recorder(), epochs=3)
    assert not first.go(lambda: first.step == 3)
    assert first.sums.all()
    resumed = {}
    monkeypatch.setattr(Training, "distributed", lambda self, module: module)
    for rank in (0, 1):
        world = World(rank, 2, torch.device("cpu"))
        other = Training(dataset, config(epochs=3), first.run, world, Recorder())
        other.resume(load_checkpoint(first.run / "checkpoint.safetensors"))
        resumed[rank] = other.sums
    torch.testing.assert_close(resumed[0], first.sums)
    assert not resumed[1].any()


def test_a_loss_that_is_not_finite_before_imitation_is_one_clear_error(dataset: Dataset) -> None:
    one = training(dataset, Recorder(), epochs=3)
    with torch.no_grad():
        next(one.model.encoder.parameters()).fill_(float("nan"))
    one.imitating_from = 1
    with pytest.raises(TrainingError, match="the loss is not a number since step 0"):
        one.go(lambda: False)


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


def end_epochs(one: Training, active: list[int], ssim: list[float]) -> None:
    """Ends of epochs that found so many codes active, and a validation of that quality."""
    for codes, found in zip(active, ssim, strict=True):
        one.learner.usage[0, :codes] = 5
        one.learner.usage[1:] = 5
        one.validate = lambda slices=0, found=found: [found] * 3  # type: ignore[method-assign]
        one.step += one.steps_per_epoch
        one._end_epoch()


def test_a_collapsing_codebook_is_said_once_and_where_something_can_be_done(dataset: Dataset) -> None:
    reporter = Recorder()
    one = training(dataset, reporter, epochs=9)
    end_epochs(one, active=[3, 3, 2], ssim=[0.2, 0.3, 0.4])  # few codes, but all gains
    end_epochs(one, active=[4, 20], ssim=[0.3, 0.2])  # it worsens, but codes come back
    assert reporter.notes == []
    end_epochs(one, active=[3, 3, 3], ssim=[0.2, 0.2, 0.1])
    [note] = reporter.notes
    assert note.startswith(
        "codebooks are collapsing, and the reconstruction no longer gains: level 1 (3"
    )
    assert "lower the learning rate" in note


def test_a_validation_takes_a_share_of_an_epoch_that_does_not_depend_on_its_length() -> None:
    assert validation_slices(available=64, training=96, levels=8) == 8
    assert validation_slices(available=5, training=96, levels=8) == 5
    assert validation_slices(available=1120, training=1120, levels=8) == 84
    assert validation_slices(available=1120, training=5760, levels=8) == 128


class Clock:
    """Takes the place of `time`: the first step takes 100 seconds, an epoch's end 50."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, step_seconds: float) -> None:
        self.now = 0.0
        self.steps = 0
        monkeypatch.setattr(loop, "time", self)
        train_step, end_epoch = Training.train_step, Training._end_epoch

        def step(one: Training, order: torch.Tensor) -> None:
            train_step(one, order)
            self.now += step_seconds if self.steps else 100
            self.steps += 1

        def end(one: Training) -> None:
            end_epoch(one)
            self.now += 50

        monkeypatch.setattr(Training, "train_step", step)
        monkeypatch.setattr(Training, "_end_epoch", end)

    def monotonic(self) -> float:
        return self.now


def test_the_time_left_counts_all_phases_and_is_steady(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    Clock(monkeypatch, step_seconds=20)
    reporter = Recorder()
    one = training(dataset, reporter, epochs=3)  # of 4 steps
    one.seconds_between, one.seconds_after = 60.0, 1000.0  # as a trial said
    one.go(lambda: False)
    found = {report.step: report.seconds_left for report in reporter.steps}
    assert found[1] == 11 * 100 + 3 * 60 + 1000  # it is all that is known of a step
    assert found[2] == 10 * 20 + 3 * 60 + 1000  # the first has left the mean
    assert found[5] == 7 * 20 + 2 * 50 + 1000  # an end was measured
    assert found[12] == 50 + 1000
    assert sorted(found) == list(range(1, 13))  # a slow machine says every step how far it is
    lasting = [row["step"] for row in one.metrics.rows() if row["kind"] == "step"]
    assert lasting == [4, 8, 12]  # but what is kept does not depend on the clock


def test_checkpoints_are_saved_by_time_and_at_the_end(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    Clock(monkeypatch, step_seconds=10)
    saved = []
    save = Training.save
    monkeypatch.setattr(Training, "save", lambda self: (saved.append(self.step), save(self)))
    training(dataset, Recorder(), epochs=6).go(lambda: False)  # 90 seconds an epoch
    assert saved == [4, 12, 20, 24]


@pytest.mark.parametrize(("batch", "levels"), [(16, 8), (8, 8), (64, 4), (6, 4), (4, 8), (5, 3)])
def test_levels_to_keep_are_stratified(batch: int, levels: int) -> None:
    """In each process's share too, and none is left out where the batch is smaller."""
    seen = torch.zeros(levels)
    for seed in range(200):
        kept = levels_to_keep(batch, levels, torch.Generator().manual_seed(seed))
        for size in (1, 2):
            if batch % size == 0:
                for share in kept.split(batch // size):
                    counts = share.bincount(minlength=levels + 1)[1:]
                    assert len(counts) == levels
                    assert counts.max() - counts.min() <= 1
        seen += kept.bincount(minlength=levels + 1)[1:]
    assert seen.min() > 0.7 * seen.mean()


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # torch's own
def test_compiled_networks_have_one_shape_and_compute_the_same(dataset: Dataset) -> None:
    """Whatever levels are drawn nothing is compiled again; what a trial saw is forgotten."""
    torch._dynamo.reset()
    plain, compiled = training(dataset, Recorder(), epochs=3), training(dataset, Recorder(), epochs=3)
    graphs = CompileCounterWithBackend("aot_eager")
    before = [each.clone() for each in compiled.model.buffers()]
    compiled.compile(lambda message: None, required=True, backend=graphs)
    for old, new in zip(before, compiled.model.buffers(), strict=True):
        assert torch.equal(old, new)
    assert graphs.frame_count == 2  # encoder and decoder, each whole
    assert plain.go(lambda: False)
    assert compiled.go(lambda: False)
    assert graphs.frame_count == 2
    for ours, theirs in zip(compiled.model.parameters(), plain.model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
def test_networks_that_cannot_be_compiled_stay_as_they_are(dataset: Dataset) -> None:
    def broken(graph: object, inputs: object) -> object:
        raise RuntimeError("no compiler found")

    torch._dynamo.reset()
    one = training(dataset, Recorder(), epochs=1)
    with pytest.raises(TrainingError, match=r"cannot be compiled here: .*no compiler found; leave out"):
        one.compile(lambda message: None, required=True, backend=broken)
    said: list[str] = []
    one.compile(said.append, required=False, backend=broken)
    assert said[0] == "compiling the networks"
    assert "not compiled, the training is slower for it: " in said[1]
    assert one.go(lambda: False)


def test_memory_for_computing_is_kept_before_slices_take_the_rest(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = activation_bytes(TINY, 8)
    slices = 40 * 48
    monkeypatch.setattr(batches, "free_memory", lambda device: needed + 2 * 36 * slices)
    one = training(dataset, Recorder())
    assert one.validation is not None
    assert one.batches.bytes_on_device == 32 * slices
    assert one.validation.bytes_on_device == 0  # there is room for 36 together
    monkeypatch.setattr(batches, "free_memory", lambda device: needed + 2 * 40 * slices)
    both = training(dataset, Recorder())
    assert both.validation is not None
    assert both.validation.bytes_on_device == 8 * slices


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
