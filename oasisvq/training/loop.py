"""The training loop: steps, reports, checkpoints, resuming. Subclasses define what is trained.

All randomness depends on (seed, step) alone, and a checkpoint holds every tensor that learns. So a
training that was killed and resumed follows the same trajectory as one that was not.
"""

import abc
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from oasisvq.codec.modelfile import ModelFile, write_model
from oasisvq.data.batches import epoch_order
from oasisvq.data.dataset import Dataset
from oasisvq.errors import ModelError, TrainingError
from oasisvq.files import MODEL_FILE, make_folder, remove_temporaries
from oasisvq.training.checkpoint import Checkpoint, save_checkpoint
from oasisvq.training.curves import draw_curves
from oasisvq.training.distributed import World
from oasisvq.training.hardware import FUSED_ON
from oasisvq.training.metrics_file import MetricsFile
from oasisvq.training.pictures import CURVES_FILE, Drawings, Pictures
from oasisvq.training.rate import LoopConfig, learning_rate
from oasisvq.training.reports import EpochReport, Reporter, Start, StepReport
from oasisvq.training.timetable import StepClock

STEPS_PER_REPORT = 20
SECONDS_PER_TICK = 10.0  # a slow machine reports its progress this often
SECONDS_PER_CHECKPOINT = 120.0
GRADIENT_NORM = 1.0
WEIGHT_DECAY = 0.01


class Loop(abc.ABC):
    """One training in one process: state, steps, checkpoints.

    Attributes:
        what: what is trained, in a word; the kind of its rows in the metrics.
        checkpoint_file: name of its checkpoint in the run folder.
        step: steps done.
        steps: steps of the whole training.
        metrics: the rows of its reports.
        is_last: whether no other codec or prior follows, so that the model counts as finished at its
            end; networks of residues may follow.
        pictures: draws the pictures of the run folder; None for no pictures.
        seconds_between: time between two epochs, from a trial or the last time.
        seconds_after: time for everything after this training, from trials.
    """

    what: ClassVar[str]
    checkpoint_file: ClassVar[str]

    def __init__(
        self,
        dataset: Dataset,
        config: LoopConfig,
        run: Path,
        world: World,
        reporter: Reporter,
        slices: int,
        parameters: list[tuple[str, nn.Parameter]],
        loss_parts: tuple[str, ...],
    ) -> None:
        self.dataset, self.run = dataset, run
        self.world, self.reporter = world, reporter
        self.loop_config, self.slices = config, slices
        self.is_last = True
        self.parameters, self.loss_parts = parameters, loss_parts
        self.steps_per_epoch = steps_per_epoch(dataset, config, world, slices)
        self.steps = self.steps_per_epoch * config.epochs
        self.optimizer = torch.optim.AdamW(
            [parameter for _, parameter in parameters],
            lr=config.learning_rate,
            weight_decay=WEIGHT_DECAY,
            fused=world.device.type in FUSED_ON,
        )
        self.step = 0
        self.metrics = MetricsFile(run)
        self.pictures: Pictures | None = None
        self.sums = torch.zeros(1 + len(loss_parts), device=world.device)  # of the epoch so far
        self.bad_step = torch.full((), float("inf"), device=world.device)
        self.seconds = 0.0  # of the epoch so far
        self.seconds_between = self.seconds_after = 0.0
        self._clock = StepClock()

    # --- what a subclass defines --------------------------------------------------------------

    @abc.abstractmethod
    def losses(self, batch: Tensor, following: Tensor | None, generator: torch.Generator) -> Tensor:
        """Forward pass of one step.

        Args:
            batch: (global batch,) slices of this step.
            following: slices of the next step of the epoch, to be read ahead.
            generator: of this step's draws, the same in every process.

        Returns:
            (1 + parts,) losses of this process, the total first.
        """

    @abc.abstractmethod
    def learn(self, generator: torch.Generator) -> None:
        """Update what does not learn by gradients, after the optimizer's step."""

    @abc.abstractmethod
    def epoch_report(self, means: list[float], images_per_second: float) -> EpochReport:
        """Validate; called in every process."""

    @abc.abstractmethod
    def extra_tensors(self) -> dict[str, Tensor]:
        """Tensors of a checkpoint besides the parameters, filled in place on resuming."""

    @abc.abstractmethod
    def own_settings(self) -> dict[str, Any]:
        """What must be equal besides the data for a training to be resumed, as JSON holds it."""

    @abc.abstractmethod
    def prepare_model(self) -> None:
        """Make the model usable; called in every process before `write_model`."""

    @abc.abstractmethod
    def write_model(self) -> None:
        """Write the model file; called in the first process."""

    def base(self) -> ModelFile | None:
        """The model that this training adds a part to; None if it makes a model of its own."""
        return None

    @abc.abstractmethod
    def step_generator(self) -> torch.Generator:
        """The generator of this step's draws."""

    def drawings(self) -> Drawings:
        """The pictures of this training in the run folder, drawn in the first process."""
        return {CURVES_FILE: lambda: draw_curves(self.metrics.rows())}

    def settings(self) -> dict[str, Any]:
        """What must be equal for a training to be resumed, as JSON holds it."""
        return self.own_settings() | {
            "images": self.dataset.images.value,
            "size": self.dataset.size,
            "training data": self.dataset.splits["train"].sha256,
        }

    def card(self) -> dict[str, Any]:
        """What a model file says of this training."""
        return {
            "training_slices": self.slices,
            "training_data": self.dataset.splits["train"].sha256,
            "steps": self.step,
            "planned_steps": self.steps,
            "finished": self.is_last and self.step == self.steps,
            "epochs": round(self.step / self.steps_per_epoch, 3),
            "batch_size": self.loop_config.batch_size,
            "learning_rate": self.loop_config.learning_rate,
            "seed": self.loop_config.seed,
            "precision": self.loop_config.precision,
            "torch": torch.__version__,
        }

    # --- one step -----------------------------------------------------------------------------

    @property
    def share(self) -> slice:
        """The places of this process's share in a global batch."""
        local = self.loop_config.batch_size // self.world.size
        return slice(self.world.rank * local, (self.world.rank + 1) * local)

    def own(self, batch: Tensor) -> Tensor:
        """This process's share of a global batch."""
        return batch[self.share]

    def distributed(self, module: nn.Module) -> nn.Module:
        """The module, with gradients averaged over all processes if there are several."""
        if self.world.size > 1:
            return DistributedDataParallel(module, broadcast_buffers=False)
        return module

    def rate(self) -> float:
        """The learning rate of this step."""
        return learning_rate(self.loop_config, self.step, self.steps)

    def train_step(self, order: Tensor) -> None:
        """One step on this process's share of the global batch."""
        generator = self.step_generator()
        place = self.step % self.steps_per_epoch
        batches = order.split(self.loop_config.batch_size)
        following = batches[place + 1] if place + 1 < self.steps_per_epoch else None
        losses = self.losses(batches[place], following, generator)
        self.optimizer.zero_grad(set_to_none=True)
        losses[0].backward()
        norm = nn.utils.clip_grad_norm_((p for _, p in self.parameters), GRADIENT_NORM)
        rate = self.rate()
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.learn(generator)
        self.sums += losses.detach()
        here = torch.full_like(self.bad_step, self.step)
        first_bad = torch.minimum(self.bad_step, here)
        is_good = losses[0].detach().isfinite() & norm.isfinite()
        self.bad_step = torch.where(is_good, self.bad_step, first_bad)
        self.step += 1

    # --- the whole ----------------------------------------------------------------------------

    def go(self, should_stop: Callable[[], bool], deadline: float = math.inf) -> bool:
        """Train to the end, or until asked to stop; True if it reached the end.

        Args:
            should_stop: asked after every step.
            deadline: when to stop, on the clock of `time.monotonic`.

        Raises:
            TrainingError: the loss is no longer a number.
            FileError: a checkpoint cannot be written.
        """
        self._report_start()
        saved = ticked = time.monotonic()
        seed = self.loop_config.seed
        order = epoch_order(self.slices, seed, self.step // self.steps_per_epoch)
        if self.step == self.steps:
            self.save()  # its model file may hold parts of later stages, which are left out now
        while self.step < self.steps:
            mark = time.monotonic()
            if self.step % self.steps_per_epoch == 0:
                order = epoch_order(self.slices, seed, self.step // self.steps_per_epoch)
            self.train_step(order)
            epoch_ends = self.step % self.steps_per_epoch == 0
            report_due = epoch_ends or self.step % STEPS_PER_REPORT == 0
            tick = self.world.size == 1 and time.monotonic() - ticked > SECONDS_PER_TICK
            if report_due or tick:
                self._refuse_non_finite()  # waits for the device, so that the time below is correct
            seconds = time.monotonic() - mark
            self.seconds += seconds
            self._clock.count(seconds, self.cost_of(self.step - 1))
            if report_due or tick:
                ticked = time.monotonic()
                self._report_step(lasting=report_due)
            if epoch_ends:
                mark = time.monotonic()
                self._end_epoch()
                if self.validates(self.step // self.steps_per_epoch):
                    self.seconds_between = time.monotonic() - mark
            if self.step == self.steps:
                self.save()
                break
            may_stop = self.world.size == 1 or report_due
            if may_stop and self.world.any(should_stop() or time.monotonic() > deadline):
                self._refuse_non_finite()
                self.save()
                self._draw_pictures(epoch_ends=False)
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
                f"{self.run / self.checkpoint_file} holds the last good state; "
                "lower the learning rate (--learning-rate) or train in --precision float32"
            )

    def _report_start(self) -> None:
        epochs, past = self.loop_config.epochs, self.past_epochs()
        self.reporter.started(Start(self.what, epochs, self.steps_per_epoch, self.step, past))

    def past_epochs(self) -> list[dict[str, Any]]:
        """The rows of this training's epochs in the metrics."""
        kind = self.what, "epoch"
        return [row for row in self.metrics.rows() if (row.get("what"), row.get("kind")) == kind]

    def seconds_left(self) -> float:
        """Seconds left of all phases; steps count by their mean so far, for a steady estimate."""
        steps = sum(map(self.cost_of, range(self.step, self.steps))) * self._clock.seconds
        begun = -(-self.step // self.steps_per_epoch)  # epochs, including the one that is running
        ends = sum(map(self.validates, range(max(1, begun), self.loop_config.epochs + 1)))
        return steps + ends * self.seconds_between + self.seconds_after

    def cost_of(self, step: int) -> float:
        """The time of a step relative to the first ones."""
        return 1.0

    def validates(self, epoch: int) -> bool:
        """Whether an epoch, counted from 1, ends with a validation."""
        return True

    def _report_step(self, lasting: bool) -> None:
        """Report the progress; with `lasting` in the metrics too."""
        done = self.step % self.steps_per_epoch or self.steps_per_epoch
        batch_size = self.loop_config.batch_size
        sums = self.sums.clone()
        self.world.sum_(sums)
        loss, *parts = (each / (done * self.world.size) for each in sums.tolist())
        named = dict(zip(self.loss_parts, parts, strict=True))
        rate = done * batch_size / max(self.seconds, 1e-9)
        epoch = (self.step - 1) // self.steps_per_epoch + 1
        report = StepReport(epoch, self.step, loss, named, rate, self.seconds_left())
        if self.world.first:
            self.reporter.step(report)
        if self.world.first and lasting:
            self.metrics.write({"what": self.what, "kind": "step", **report._asdict()})

    def _end_epoch(self) -> None:
        sums = self.sums / (self.steps_per_epoch * self.world.size)
        self.world.sum_(sums)
        rate = self.steps_per_epoch * self.loop_config.batch_size / max(self.seconds, 1e-9)
        report = self.epoch_report(sums.tolist(), rate)
        if self.world.first:
            self.reporter.epoch(report)
            row = {"what": self.what, "kind": "epoch", "step": self.step, **report._asdict()}
            self.metrics.write(row)
        self.sums.zero_()
        self.seconds = 0.0
        self._draw_pictures(epoch_ends=True)

    def _draw_pictures(self, epoch_ends: bool) -> None:
        """Draw at the end of an epoch; when the training stops, draw what the last epoch left out."""
        if self.pictures is None or not self.world.first:
            return
        if epoch_ends or self.pictures.due:
            last = not epoch_ends or self.step == self.steps
            self.pictures.draw(self.drawings(), at_once=last)

    # --- state --------------------------------------------------------------------------------

    def save(self) -> None:
        """Write checkpoint and model in the first process, while the others wait."""
        self._refuse_non_finite()
        self.prepare_model()
        self.world.sum_(self.sums)
        if self.world.first:
            # the model first: a kill between the two leaves a checkpoint from which it is made again
            self.write_model()
            self._save_checkpoint()
        else:
            self.sums.zero_()  # the first process holds those of all, here as after resuming
        self.world.wait()

    def _state(self) -> dict[str, Tensor]:
        """Every tensor that is restored in place."""
        return self.weights() | {"sums": self.sums}

    def weights(self) -> dict[str, Tensor]:
        """Everything learned, by its name in a checkpoint."""
        parameters = {f"parameter.{name}": parameter.data for name, parameter in self.parameters}
        return parameters | self.extra_tensors()

    def _save_checkpoint(self) -> None:
        tensors = self._state()
        names = {id(parameter): name for name, parameter in self.parameters}
        for parameter, state in self.optimizer.state.items():
            for key, tensor in state.items():
                tensors[f"optimizer.{names[id(parameter)]}.{key}"] = tensor
        progress = {
            "step": self.step,
            "seconds": self.seconds,
            "metrics_bytes": self.metrics.length,
            "settings": self.settings(),
        }
        save_checkpoint(self.run / self.checkpoint_file, Checkpoint(tensors, progress))

    def resume(self, checkpoint: Checkpoint) -> None:
        """Continue from the run folder's checkpoint.

        Raises:
            ModelError: the checkpoint does not hold this model's state.
            TrainingError: it belongs to another training.
        """
        progress, tensors = checkpoint.progress, checkpoint.tensors
        ours = self.settings()
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
            self.metrics.length = int(progress["metrics_bytes"])
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise ModelError(
                f"{self.run / self.checkpoint_file}: not the state of this model; train anew with -f"
            ) from error

    def _restore(self, tensors: dict[str, Tensor]) -> None:
        for name, tensor in self._state().items():
            if tensors[name].shape != tensor.shape:
                raise ValueError(name)
            tensor.copy_(tensors[name])
        if not self.world.first:
            self.sums.zero_()
        for name, parameter in self.parameters:
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

    def start_run(self) -> None:
        """Take over the run folder, and remove temporary files, and metrics beyond the checkpoint.

        Raises:
            FileError: it cannot be written to; a training that `-f` replaces then still is whole.
        """
        if self.world.first:
            make_folder(self.run)
            remove_temporaries(self.run)
            if self.step == 0:
                if base := self.base():  # to resume a training that is killed before its first save
                    write_model(base.with_card(base.card | {"finished": False}), self.run / MODEL_FILE)
                self._save_checkpoint()  # so --resume never finds that of a training that -f replaced
            self.metrics.cut()
        self.world.wait()


def card_without(card: dict[str, Any], part: str) -> dict[str, Any]:
    """A model's card, without what it says of a part."""
    return {key: entry for key, entry in card.items() if key != part}


def is_whole(card: dict[str, Any]) -> bool:
    """Whether the codecs and priors in a model's card have been trained to their ends."""
    steps = card.get("steps")
    parts = [part for name in ("prior", "volumes") if isinstance(part := card.get(name), dict)]
    return steps == card.get("planned_steps", steps) and all(map(is_whole, parts))


def steps_per_epoch(
    dataset: Dataset, config: LoopConfig, world: World, slices: int, option: str = "--batch-size"
) -> int:
    """Whole batches in the training split; `option` sets their size.

    Raises:
        TrainingError: there are none, or batches do not divide among the processes.
    """
    if config.batch_size % world.size:
        raise TrainingError(
            f"a batch of {config.batch_size} does not divide among {world.size} processes; "
            f"choose {option} accordingly"
        )
    steps = slices // config.batch_size
    if not steps:
        raise TrainingError(
            f"{dataset.folder}: {slices} training slices, fewer than a batch of "
            f"{config.batch_size}; choose a smaller {option}"
        )
    return steps
