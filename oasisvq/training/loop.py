"""The training loop: batches in, a model file, metrics and checkpoints out.

Shapes: B batch of this process, H×W window, L levels.

Whatever is random depends on (seed, step) alone, and a checkpoint holds every tensor that learns,
so a training that was killed and resumed follows the same trajectory as one that was not.
"""

import dataclasses
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from oasisvq.codec.networks import ModelConfig, channels_last, clamp_straight_through
from oasisvq.codec.pixels import centred_window
from oasisvq.codec.weights import Model, config_to_dict, save_model
from oasisvq.data.batches import SliceBatches, epoch_order, seeded_generator
from oasisvq.data.dataset import Dataset
from oasisvq.errors import FileError, ModelError, TrainingError
from oasisvq.files import MODEL_FILE, make_folder, remove_temporaries
from oasisvq.training.checkpoint import Checkpoint, save_checkpoint
from oasisvq.training.codebooks import CodebookLearner, Quantized
from oasisvq.training.distributed import World
from oasisvq.training.losses import reconstruction_losses, ssim

CHECKPOINT_FILE = "checkpoint.safetensors"
METRICS_FILE = "metrics.jsonl"
STEPS_PER_REPORT = 20
SECONDS_PER_CHECKPOINT = 600.0
VALIDATION_SLICES = 128
GRADIENT_NORM = 1.0
WEIGHT_DECAY = 0.01
FINAL_RATE = 0.01  # share of the learning rate where the cosine ends
COLLAPSED_SHARE = 0.25  # fewer active codes than this share of a codebook are worth a warning


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
    """One training.

    Attributes:
        model: what is trained.
        epochs: passes over the training split.
        batch_size: images a step, over all processes.
        learning_rate: the highest one, after the warm-up.
        commitment: weight of the commitment loss.
        seed: of weights, order and every draw.
        precision: `float32`, or `bfloat16` for autocast of the networks (the quantizer and the
            losses stay in float32).
    """

    model: ModelConfig
    epochs: int
    batch_size: int
    learning_rate: float
    seed: int
    precision: str
    commitment: float = 0.25


class EpochReport(NamedTuple):
    """What an epoch ends with."""

    epoch: int
    loss: float
    ssim_loss: float
    l1: float
    commitment: float
    images_per_second: float
    validation_ssim: list[float]  # by number of levels kept
    perplexity: list[float]  # of each level
    active: list[int]  # codes used, of each level


class StepReport(NamedTuple):
    """How far a training is."""

    epoch: int
    step: int
    loss: float
    images_per_second: float
    seconds_left: float


class Reporter(Protocol):
    """Who is told how a training goes."""

    def started(self, config: TrainingConfig, steps_per_epoch: int, first_step: int) -> None:
        """The first step is about to run."""

    def step(self, report: StepReport) -> None:
        """Some steps have passed."""

    def epoch(self, report: EpochReport) -> None:
        """An epoch has ended."""

    def note(self, message: str) -> None:
        """Something a person should know."""


class StepLosses(NamedTuple):
    """The parts of one step's loss, scalars."""

    total: Tensor
    ssim_loss: Tensor
    l1: Tensor
    commitment: Tensor


class TrainingStep(nn.Module):
    """Pixels -> losses: one pass through the whole model."""

    def __init__(self, model: Model, learner: CodebookLearner, config: TrainingConfig) -> None:
        super().__init__()
        self.model = model
        self.learner = learner
        self.config = config

    def forward(
        self, pixels: Tensor, kept: Tensor, quantizing: bool
    ) -> tuple[StepLosses, Tensor, Quantized | None]:
        """(B, 1, H, W) pixels and (B,) levels kept -> losses, latents, what was quantized."""
        with self.autocast():
            latents = self.model.encoder(pixels)
        latents = latents.float()
        quantized = self.learner.quantize(latents, kept) if quantizing else None
        commitment = quantized.commitment if quantized else latents.new_zeros(())
        with self.autocast():
            decoded = self.model.decoder(quantized.latents if quantized else latents)
        reconstruction = clamp_straight_through(decoded.float())
        ssim_loss, l1 = reconstruction_losses(pixels, reconstruction)
        total = ssim_loss + l1 + self.config.commitment * commitment
        return StepLosses(total, ssim_loss, l1, commitment), latents.detach(), quantized

    def autocast(self) -> torch.autocast:
        """The precision of the networks."""
        device = self.learner.world.device.type
        return torch.autocast(device, dtype=torch.bfloat16, enabled=self.config.precision == "bfloat16")


def new_model(config: ModelConfig, seed: int) -> Model:
    """A model with weights drawn from `seed` alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Model(config)


def learning_rate(config: TrainingConfig, step: int, steps: int) -> float:
    """Linear warm-up over the first 3 % (at most 500 steps), then half a cosine."""
    warm_up = warm_up_steps(steps)
    if step < warm_up:
        return config.learning_rate * (step + 1) / warm_up
    progress = (step - warm_up) / max(1, steps - warm_up)
    share = FINAL_RATE + (1 - FINAL_RATE) * 0.5 * (1 + math.cos(math.pi * progress))
    return config.learning_rate * share


def warm_up_steps(steps: int) -> int:
    """Steps of rising learning rate."""
    return max(1, min(500, steps * 3 // 100))


class Training:
    """One training in one process: state, steps, checkpoints."""

    def __init__(
        self,
        dataset: Dataset,
        config: TrainingConfig,
        run: Path,
        world: World,
        reporter: Reporter,
        compiled: bool = False,
    ) -> None:
        if config.batch_size % world.size:
            raise TrainingError(
                f"a batch of {config.batch_size} does not divide among {world.size} processes; "
                "choose --batch-size accordingly"
            )
        self.dataset, self.config, self.run = dataset, config, run
        self.world, self.reporter = world, reporter
        window = centred_window((dataset.size, dataset.size), config.model.window, config.model.stride)
        self.batches = SliceBatches(dataset.array("train"), window, config.model.stride, world.device)
        self.validation: SliceBatches | None = None
        if "validation" in dataset.splits:
            self.validation = SliceBatches(
                dataset.array("validation"), window, config.model.stride, world.device
            )
        self.steps_per_epoch = len(self.batches) // config.batch_size
        if not self.steps_per_epoch:
            raise TrainingError(
                f"{dataset.folder}: {len(self.batches)} training slices, fewer than a batch of "
                f"{config.batch_size}; choose a smaller --batch-size"
            )
        self.steps = self.steps_per_epoch * config.epochs
        # before, the networks train without a quantizer; the first epoch must end with one
        self.quantizing_from = min(warm_up_steps(self.steps), self.steps_per_epoch // 2)
        self.model = new_model(config.model, config.seed).to(world.device)
        channels_last(self.model)
        self.learner = CodebookLearner(self.model.quantizer, world)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(),
            lr=config.learning_rate,
            weight_decay=WEIGHT_DECAY,
            fused=world.device.type in ("cpu", "cuda"),
        )
        step_module = TrainingStep(self.model, self.learner, config)
        self.autocast = step_module.autocast
        self.step_module: nn.Module = step_module
        if compiled:  # the networks, in place; the rest is a few large operations already
            self.model.encoder.compile()
            self.model.decoder.compile()
        if world.size > 1:
            self.step_module = DistributedDataParallel(step_module, broadcast_buffers=False)
        self.step = 0
        self.metrics_bytes = 0
        # of the epoch so far: sums of total, SSIM loss, L1 and commitment; seconds
        self.sums = torch.zeros(4, device=world.device)
        self.bad_step = torch.full((), float("inf"), device=world.device)
        self.seconds = 0.0

    # --- one step -----------------------------------------------------------------------------

    def train_step(self, order: Tensor) -> None:
        """One step on this process's share of the global batch."""
        config, world = self.config, self.world
        generator = seeded_generator(config.seed, 2, self.step)
        kept = torch.randint(1, config.model.levels + 1, (config.batch_size,), generator=generator)
        mirrored = torch.rand(config.batch_size, generator=generator) < 0.5
        local = config.batch_size // world.size
        own = slice(world.rank * local, (world.rank + 1) * local)
        step_of_epoch = self.step % self.steps_per_epoch
        batches = order.split(config.batch_size)
        pixels = self.batches.draw(batches[step_of_epoch][own], mirrored[own])
        if step_of_epoch + 1 < self.steps_per_epoch:
            self.batches.prefetch(batches[step_of_epoch + 1][own])
        if self.step == self.quantizing_from:
            self._start_codebooks(pixels, generator)
        losses, _, quantized = self.step_module(
            pixels,
            kept[own].to(world.device, non_blocking=True),
            self.step >= self.quantizing_from,
        )
        self.optimizer.zero_grad(set_to_none=True)
        losses.total.backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), GRADIENT_NORM)
        rate = learning_rate(config, self.step, self.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        if quantized is not None:
            self.learner.update(quantized, generator)
        self.sums += torch.stack(list(losses)).detach()
        here = torch.full_like(self.bad_step, self.step)
        first_bad = torch.minimum(self.bad_step, here)
        is_good = losses.total.detach().isfinite() & norm.isfinite()
        self.bad_step = torch.where(is_good, self.bad_step, first_bad)
        self.step += 1

    def _start_codebooks(self, pixels: Tensor, generator: torch.Generator) -> None:
        with torch.no_grad(), self.autocast():
            latents = self.model.encoder(pixels)
        self.learner.start_with_kmeans(latents, generator)

    # --- the whole ----------------------------------------------------------------------------

    def go(self, should_stop: Callable[[], bool], max_minutes: float | None) -> bool:
        """Train to the end, or until asked to stop; True if it reached the end.

        Raises:
            TrainingError: the loss is no longer a number.
            FileError: a checkpoint cannot be written.
        """
        if self.step == 0 and self.world.first:
            self._save_checkpoint()  # so that --resume never finds that of a training replaced by -f
        self.reporter.started(self.config, self.steps_per_epoch, self.step)
        began = saved = time.monotonic()
        order = epoch_order(len(self.batches), self.config.seed, self.step // self.steps_per_epoch)
        while self.step < self.steps:
            mark = time.monotonic()
            if self.step % self.steps_per_epoch == 0:
                epoch = self.step // self.steps_per_epoch
                order = epoch_order(len(self.batches), self.config.seed, epoch)
            self.train_step(order)
            epoch_ends = self.step % self.steps_per_epoch == 0
            report_due = epoch_ends or self.step % STEPS_PER_REPORT == 0
            if report_due:
                self._refuse_non_finite()  # waits for the device, so that the time below is true
            self.seconds += time.monotonic() - mark
            if report_due:
                self._report_step()
            if epoch_ends:
                self._end_epoch()
                self.save()
                saved = time.monotonic()
            if self.step == self.steps:
                break
            if self.world.size == 1 or report_due:
                late = max_minutes is not None and time.monotonic() - began > 60 * max_minutes
                if self.world.any(should_stop() or late):
                    self._refuse_non_finite()
                    self.save()
                    return False
            if report_due and self.world.any(time.monotonic() - saved > SECONDS_PER_CHECKPOINT):
                self.save()
                saved = time.monotonic()
        return True

    def _refuse_non_finite(self) -> None:
        bad = self.bad_step.item()
        if self.world.any(math.isfinite(bad)):
            raise TrainingError(
                f"the loss is not a number since step {int(bad) if math.isfinite(bad) else self.step}; "
                f"{self.run / CHECKPOINT_FILE} holds the last good state; "
                "lower the learning rate (--learning-rate) or train in --precision float32"
            )

    def _report_step(self) -> None:
        done = self.step % self.steps_per_epoch or self.steps_per_epoch
        total = self.sums[:1].clone()
        self.world.sum_(total)
        loss = float(total.item()) / (done * self.world.size)
        rate = done * self.config.batch_size / max(self.seconds, 1e-9)
        left = (self.steps - self.step) * self.config.batch_size / rate
        epoch = (self.step - 1) // self.steps_per_epoch + 1
        report = StepReport(epoch, self.step, loss, rate, left)
        if self.world.first:
            self.reporter.step(report)
            self._write_metrics({"kind": "step", **report._asdict()})

    def _end_epoch(self) -> None:
        sums = self.sums / (self.steps_per_epoch * self.world.size)
        self.world.sum_(sums)
        total, ssim_loss, l1, commitment = (float(part) for part in sums)
        report = EpochReport(
            self.step // self.steps_per_epoch,
            total,
            ssim_loss,
            l1,
            commitment,
            self.steps_per_epoch * self.config.batch_size / max(self.seconds, 1e-9),
            self.validate(),
            self.learner.perplexity().tolist(),
            self.learner.active().tolist(),
        )
        if self.world.first:
            self.reporter.epoch(report)
            self._write_metrics({"kind": "epoch", "step": self.step, **report._asdict()})
            size = self.config.model.codebook_size
            for level, active in enumerate(report.active, start=1):
                if 0 < active < COLLAPSED_SHARE * size:
                    self.reporter.note(
                        f"level {level} uses only {active} of {size} codes: the codebook is "
                        "collapsing; lower the learning rate, or choose a smaller codebook"
                    )
        self.learner.reset_usage()
        self.sums.zero_()
        self.seconds = 0.0

    @torch.no_grad()
    def validate(self) -> list[float]:
        """Mean SSIM over evenly spaced validation slices, by number of levels kept."""
        if self.validation is None:
            return []
        count = min(VALIDATION_SLICES, len(self.validation))
        chosen = torch.linspace(0, len(self.validation) - 1, count).long()
        own = chosen[self.world.rank :: self.world.size]
        levels = self.config.model.levels
        sums = torch.zeros(levels, device=self.world.device)
        for part in own.split(16):
            pixels = self.validation.draw(part)
            with self.autocast():
                latents = self.model.encoder(pixels)
            indices = self.model.quantizer.quantize(latents, levels)
            for kept in range(1, levels + 1):
                with self.autocast():
                    decoded = self.model.decoder(self.model.quantizer.dequantize(indices[:, :kept]))
                border = nn.functional.pad
                similarity = ssim(
                    border(pixels, (5,) * 4), border(decoded.float().clamp(0, 1), (5,) * 4)
                )
                sums[kept - 1] += similarity.sum()
        self.world.sum_(sums)
        return [float(each) / count for each in sums]

    # --- state --------------------------------------------------------------------------------

    def _tensors(self) -> dict[str, Tensor]:
        tensors = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        tensors |= {f"learner.{name}": tensor for name, tensor in self.learner.tensors().items()}
        tensors["sums"] = self.sums
        names = {id(parameter): name for name, parameter in self.model.named_parameters()}
        for parameter, state in self.optimizer.state.items():
            for key, tensor in state.items():
                tensors[f"optimizer.{names[id(parameter)]}.{key}"] = tensor
        return tensors

    def save(self) -> None:
        """Write checkpoint and model; the one process that writes, while the others wait."""
        self._refuse_non_finite()
        if self.step <= self.quantizing_from:
            # no codebook has learned yet: this one makes the model usable, and that step sets it anew
            local = self.config.batch_size // self.world.size
            first = torch.arange(self.world.rank * local, (self.world.rank + 1) * local)
            self._start_codebooks(self.batches.draw(first), seeded_generator(self.config.seed, 3))
        if self.world.first:
            # the model first: a kill between the two leaves a checkpoint from which it is made again
            save_model(self.model, self.run / MODEL_FILE, self.card())
            self._save_checkpoint()
        self.world.wait()

    def _save_checkpoint(self) -> None:
        progress = {
            "step": self.step,
            "seconds": self.seconds,
            "metrics_bytes": self.metrics_bytes,
            "settings": settings(self.config, self.dataset),
        }
        save_checkpoint(self.run / CHECKPOINT_FILE, Checkpoint(self._tensors(), progress))

    def resume(self, checkpoint: Checkpoint) -> None:
        """Continue from the run folder's checkpoint.

        Raises:
            ModelError: the checkpoint does not hold this model's state.
            TrainingError: it belongs to another training.
        """
        progress, tensors = checkpoint.progress, checkpoint.tensors
        ours = settings(self.config, self.dataset)
        theirs = progress.get("settings", {})
        different = sorted(key for key in ours if ours[key] != theirs.get(key))
        if different:
            key = different[0]
            raise TrainingError(
                f"{self.run}: its training has {key} = {theirs.get(key)!r}, this one {ours[key]!r}; "
                "resume with the same options, or train into another folder with -o"
            )
        try:
            self._restore(tensors)
            self.step = int(progress["step"])
            self.seconds = float(progress["seconds"])
            self.metrics_bytes = int(progress["metrics_bytes"])
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise ModelError(
                f"{self.run / CHECKPOINT_FILE}: not the state of this model; train anew with -f"
            ) from error

    def _restore(self, tensors: dict[str, Tensor]) -> None:
        self.model.load_state_dict(
            {k.removeprefix("model."): t for k, t in tensors.items() if k.startswith("model.")}
        )
        for name, tensor in self.learner.tensors().items():
            tensor.copy_(tensors[f"learner.{name}"])
        self.sums.copy_(tensors["sums"])
        for name, parameter in self.model.named_parameters():
            prefix = f"optimizer.{name}."
            state = {k.removeprefix(prefix): t for k, t in tensors.items() if k.startswith(prefix)}
            if state:
                # laid out in memory like the parameter and on its device: the fused optimizer walks
                # raw memory, and moments in another layout would meet the wrong weights
                self.optimizer.state[parameter] = {
                    key: torch.empty_like(parameter).copy_(tensor)
                    if tensor.dim()
                    else tensor.to(self.world.device)
                    for key, tensor in state.items()
                }

    def card(self) -> dict[str, Any]:
        """What a model file says of its training."""
        return {
            "images": self.dataset.images.value,
            "size": self.dataset.size,
            "training_slices": len(self.batches),
            "training_subjects": len({r.subject for r in self.dataset.splits["train"].records}),
            "steps": self.step,
            "epochs": round(self.step / self.steps_per_epoch, 3),
            "batch_size": self.config.batch_size,
            "learning_rate": self.config.learning_rate,
            "seed": self.config.seed,
            "precision": self.config.precision,
            "torch": torch.__version__,
        }

    def start_metrics(self) -> None:
        """Clear what a killed training left: temporary files, and metrics beyond the checkpoint."""
        if self.world.first:
            path = self.run / METRICS_FILE
            make_folder(self.run)
            remove_temporaries(self.run)
            try:
                with path.open("ab") as stream:
                    self.metrics_bytes = min(self.metrics_bytes, stream.tell())
                    stream.truncate(self.metrics_bytes)
            except OSError as error:
                raise FileError(f"{path}: cannot be written: {error.strerror}") from error
        self.world.wait()

    def _write_metrics(self, row: dict[str, Any]) -> None:
        line = (json.dumps(row) + "\n").encode()
        path = self.run / METRICS_FILE
        try:
            with path.open("ab") as stream:
                stream.write(line)
        except OSError as error:
            raise FileError(f"{path}: cannot be written: {error.strerror}") from error
        self.metrics_bytes += len(line)


def settings(config: TrainingConfig, dataset: Dataset) -> dict[str, Any]:
    """What must be equal for a training to be resumed, as JSON holds it."""
    fields = dataclasses.asdict(config) | {"model": config_to_dict(config.model)}
    return fields | {
        "images": dataset.images.value,
        "size": dataset.size,
        "training data": dataset.splits["train"].sha256,
    }
