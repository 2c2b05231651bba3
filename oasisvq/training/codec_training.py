"""The training of the codec: encoder, codebooks and decoder.

Shapes: B batch of this process, H×W window, L levels.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from oasisvq.codec.config import ModelConfig, config_to_dict
from oasisvq.codec.pixels import centred_window
from oasisvq.data.batches import SliceBatches, room_beside, seeded_generator
from oasisvq.data.dataset import Dataset
from oasisvq.errors import TrainingError
from oasisvq.files import MODEL_FILE
from oasisvq.training.codebooks import CodebookLearner, Quantized
from oasisvq.training.codec_epoch import CodecEpoch, CollapseWarning
from oasisvq.training.codec_step import (
    Compiler,
    StepLosses,
    TrainingConfig,
    TrainingStep,
    levels_to_keep,
)
from oasisvq.training.contrasts import draw_contrasts
from oasisvq.training.distributed import World
from oasisvq.training.hardware import activation_bytes
from oasisvq.training.imitation import Imitation, update_ranges
from oasisvq.training.loop import Loop, steps_per_epoch
from oasisvq.training.losses import RADIUS, ssim
from oasisvq.training.networks import channels_last
from oasisvq.training.panel import Column, draw_panel, error_column, fixed_slices
from oasisvq.training.pictures import PANEL_FILE, Drawings
from oasisvq.training.rate import warm_up_steps
from oasisvq.training.reports import Reporter
from oasisvq.training.start import copy_weights
from oasisvq.training.timetable import seconds_of
from oasisvq.training.weights import Model, save_model

CHECKPOINT_FILE = "checkpoint.safetensors"
VALIDATION_SLICES = 128
FEWEST_VALIDATION_SLICES = 8
VALIDATION_SHARE = 0.2  # of the time of an epoch, approximately
FORWARD_SHARE = 1 / 3  # of the time of a step; the rest is the backward pass


def validation_slices(available: int, training: int, levels: int) -> int:
    """How many slices are validated per epoch: few, to save time, but enough for a reliable mean.

    Each is decoded once for every number of levels.
    """
    affordable = int(VALIDATION_SHARE * training / (FORWARD_SHARE * levels))
    return min(VALIDATION_SLICES, available, max(FEWEST_VALIDATION_SLICES, affordable))


def padded_ssim(pixels: Tensor, decoded: Tensor) -> Tensor:
    """SSIM (B,) of windows as in whole images, in which both lie on a ground of 0."""
    border = (RADIUS,) * 4
    return ssim(nn.functional.pad(pixels, border), nn.functional.pad(decoded, border))


def new_model(config: ModelConfig, seed: int) -> Model:
    """A model with weights drawn from `seed` alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Model(config)


def seconds_of_steps(
    config: TrainingConfig, world: World, pixels: Tensor, context: Tensor | None
) -> tuple[float, float]:
    """Seconds of a plain step, and of one that imitates the integers, with a throwaway model."""
    model = new_model(config.model, config.seed).to(world.device)
    channels_last(model)
    step = TrainingStep(model, CodebookLearner(model.quantizer, world), config)
    kept = torch.full((len(pixels),), config.model.levels)

    def learn() -> None:
        step(pixels, kept, True, context).losses.total.backward()

    plain = seconds_of(learn, world.device)
    step.imitation.append(Imitation(model))
    return plain, seconds_of(learn, world.device)


class Training(Loop):
    """The training of a codec in one process."""

    what = "codec"
    checkpoint_file = CHECKPOINT_FILE

    def __init__(
        self,
        dataset: Dataset,
        config: TrainingConfig,
        run: Path,
        world: World,
        reporter: Reporter,
        slices: int | None = None,
    ) -> None:
        """Set up a training on `slices` slices of the training split; on all if None."""
        slices = len(dataset.splits["train"].records) if slices is None else slices
        steps_per_epoch(dataset, config, world, slices)
        self.config = config
        window = centred_window((dataset.size, dataset.size), config.model.window, config.model.stride)
        stride = config.model.stride
        needed = activation_bytes(config.model, config.batch_size // world.size)
        room = room_beside(needed, world.device)
        self.batches = SliceBatches(dataset.array("train"), window, stride, world.device, room)
        self.validation: SliceBatches | None = None
        if "validation" in dataset.splits:
            room -= self.batches.bytes_on_device
            validation = dataset.array("validation")
            self.validation = SliceBatches(validation, window, stride, world.device, room)
        self.model = new_model(config.model, config.seed).to(world.device)
        channels_last(self.model)
        parameters = list(self.model.named_parameters())
        super().__init__(
            dataset,
            config,
            run,
            world,
            reporter,
            slices,
            parameters,
            StepLosses._fields[1:],
        )
        # before this step the networks train without a quantizer; the first epoch must end with one
        self.quantizing_from = min(warm_up_steps(self.steps), self.steps_per_epoch // 2)
        if config.started_from:  # its codebooks are set before the first step
            self.quantizing_from = -1
        self.learner = CodebookLearner(self.model.quantizer, world)
        # the integers are imitated from this step on, even in the shortest training in the last step
        self.imitating_from = min(int(self.steps * config.imitating_from), self.steps - 1)
        step_module = self.plain_step = TrainingStep(self.model, self.learner, config)
        self.autocast = step_module.autocast
        self.step_module = self.distributed(step_module)
        self.quantized: Quantized | None = None
        self.validated = 0  # slices at the end of an epoch
        if self.validation is not None:
            available = len(self.validation)
            self.validated = validation_slices(available, self.slices, config.model.levels)
        self._collapse = CollapseWarning(reporter.note)
        self.imitation_cost = 1.0

    def compile(
        self, tell: Callable[[str], None], required: bool, backend: Compiler = "inductor"
    ) -> None:
        """Compile the networks; if that fails and is not required, go on without.

        Raises:
            TrainingError: it fails and is required.
        """
        tell("compiling the networks")
        wrong = self.plain_step.compile_networks(*self.example(self.first_slices()), backend)
        if wrong and required:
            raise TrainingError(f"the networks cannot be compiled here: {wrong}; leave out --compile")
        if wrong:
            tell(f"not compiled, the training is slower for it: {wrong}")

    # --- one step -----------------------------------------------------------------------------

    def step_generator(self) -> torch.Generator:
        """The generator of this step's draws."""
        return seeded_generator(self.config.seed, 2, self.step)

    def train_step(self, order: Tensor) -> None:
        """One step; before the first that imitates, ranges are read, which waits for the device."""
        if self.step >= self.imitating_from and not self.plain_step.imitation:
            self._refuse_non_finite()
            self.plain_step.imitation.append(Imitation(self.model))
        super().train_step(order)

    def losses(self, batch: Tensor, following: Tensor | None, generator: torch.Generator) -> Tensor:
        """Reconstruct slices, some mirrored or in another contrast, from a random number of levels."""
        config = self.config
        kept = levels_to_keep(config.batch_size, config.model.levels, generator)
        mirrored = torch.rand(config.batch_size, generator=generator) < 0.5
        contrasts = draw_contrasts(config.batch_size, generator)
        pixels = self.batches.draw(self.own(batch), self.own(mirrored))
        if following is not None:
            self.batches.prefetch(self.own(following))
        own = contrasts.part(self.share)
        pixels = own.noisy(own.shown(pixels))
        if self.step == self.quantizing_from:
            self._start_codebooks(pixels, None, generator)
        passed = self.step_module(pixels, self.own(kept), self.step >= self.quantizing_from)
        self.quantized = passed.quantized
        return torch.stack(list(passed.losses))

    def learn(self, generator: torch.Generator) -> None:
        """One step of the codebooks, and of the ranges that the integers will have."""
        if not self.plain_step.imitation:
            update_ranges(self.model, self.world)
        if self.quantized is not None:
            self.learner.update(self.quantized, generator)
            self.quantized = None

    def start_from(self, source: Model) -> None:
        """Take over the weights of another model; levels that it lacks start with k-means.

        Raises:
            TrainingError: the other model is of another kind.
        """
        copy_weights(source, self.model)
        self.start_codebooks(source.config.levels)

    def start_codebooks(self, learned_levels: int = 0) -> None:
        """Set the codebooks by the first slices, except those of levels that have already learned."""
        pixels, context = self.example(self.first_slices())
        generator = seeded_generator(self.config.seed, 3)
        self._start_codebooks(pixels, context, generator, learned_levels)

    def example(self, slices: Tensor) -> tuple[Tensor, Tensor | None]:
        """Pixels (B, 1, H, W) of some slices, and contexts in place of theirs, for trials."""
        return self.batches.draw(slices), None

    def first_slices(self) -> Tensor:
        """This process's share of the first batch of the split."""
        return self.own(torch.arange(self.config.batch_size))

    def _start_codebooks(
        self,
        pixels: Tensor,
        context: Tensor | None,
        generator: torch.Generator,
        learned_levels: int = 0,
    ) -> None:
        with torch.no_grad(), self.autocast():
            latents = self.plain_step.networks.encoder(pixels, context)
        self.learner.start_with_kmeans(latents, generator, learned_levels)

    # --- the end of an epoch ------------------------------------------------------------------

    def epoch_report(self, means: list[float], images_per_second: float) -> CodecEpoch:
        """Losses, validation SSIM and the health of the codebooks."""
        loss, ssim_loss, l1, mse, commitment = means
        report = CodecEpoch(
            self.step // self.steps_per_epoch,
            loss,
            ssim_loss,
            l1,
            mse,
            commitment,
            images_per_second,
            self.validate(),
            self.learner.perplexity().tolist(),
            self.learner.active().tolist(),
            self.config.model.codebook_size,
        )
        if self.world.first:
            self._collapse.look_at(report)
        self.learner.reset_usage()
        return report

    def rehearse(self) -> float:
        """Try a validation of one slice, so that the time left is known from the start.

        Returns:
            Seconds to encode and decode a slice at the default number of levels.
        """
        batches = self.validation or self.batches
        device = self.world.device
        if self.validation is not None:
            of_slice = seconds_of(lambda: self._mean_ssim(self.world.size), device)
            self.seconds_between = of_slice * self.validated / self.world.size
        self.imitation_cost = self.rehearse_imitation()
        pixels = batches.draw(torch.zeros(1, dtype=torch.int64))
        levels = [self.config.model.default_levels]
        with torch.no_grad():
            return seconds_of(lambda: list(self._decoded(pixels, levels)), device)

    def rehearse_imitation(self) -> float:
        """How many times longer a step takes that imitates the integers."""
        plain, imitating = seconds_of_steps(
            self.config, self.world, *self.example(self.first_slices()[:4])
        )
        return imitating / max(plain, 1e-9)

    def cost_of(self, step: int) -> float:
        """The relative cost of a step: higher if it imitates the integers."""
        return self.imitation_cost if step >= self.imitating_from else 1.0

    def validate(self) -> list[float]:
        """Mean SSIM over validation slices, by number of levels kept; empty without such a split."""
        return self._mean_ssim(self.validated) if self.validation is not None else []

    @torch.no_grad()
    def _mean_ssim(self, count: int) -> list[float]:
        """Mean SSIM over so many evenly spaced validation slices, by number of levels kept."""
        assert self.validation is not None
        chosen = torch.linspace(0, len(self.validation) - 1, count).long()
        own = chosen[self.world.rank :: self.world.size]
        levels = self.config.model.levels
        sums = torch.zeros(levels, device=self.world.device)
        for part in own.split(16) if len(own) else ():
            pixels = self.validation.draw(part)
            for level, decoded in enumerate(self._decoded(pixels, range(1, levels + 1))):
                sums[level] += padded_ssim(pixels, decoded).sum()
        self.world.sum_(sums)
        return [float(each) / count for each in sums]

    def _decoded(self, pixels: Tensor, kept_levels: Sequence[int]) -> Iterator[Tensor]:
        """Pixels (B, 1, H, W) decoded from each of these numbers of levels."""
        networks = self.plain_step.networks
        with self.autocast():
            latents = networks.encoder(pixels)
        for kept in kept_levels:
            indices = self.model.quantizer.quantize(latents, torch.full((len(latents),), kept))
            with self.autocast():
                decoded = networks.decoder(self.model.quantizer.dequantize(indices[:, :kept]))
            yield decoded.float().clamp(0, 1)

    def drawings(self) -> Drawings:
        """The curves, and the panel of fixed slices."""
        return super().drawings() | {PANEL_FILE: self.panel}

    @torch.no_grad()
    def panel(self) -> bytes:
        """Fixed slices: original, decoded from some numbers of levels, and the error at the default."""
        split, batches, source = "validation", self.validation, "validation slices"
        if batches is None:
            split, batches, source = "train", self.batches, "training slices: no validation split"
        pixels = batches.draw(torch.tensor(fixed_slices(self.dataset.splits[split].records)))
        config = self.config.model
        original = pixels[:, 0].cpu().numpy()
        columns, error = [Column("original", original)], []
        kept_levels = sorted({1, config.default_levels, config.levels})
        for kept, decoded in zip(kept_levels, self._decoded(pixels, kept_levels), strict=True):
            name = "1 level" if kept == 1 else f"{kept} levels"
            captions = [f"SSIM {each:.4f}" for each in padded_ssim(pixels, decoded).tolist()]
            plane = decoded[:, 0].cpu().numpy()
            columns.append(Column(name, plane, captions))
            if kept == config.default_levels:
                error.append(error_column(name, original, plane))
        return draw_panel(f"step {self.step:,} of {self.steps:,}, {source}", [*columns, *error])

    # --- state --------------------------------------------------------------------------------

    def extra_tensors(self) -> dict[str, Tensor]:
        """Codebooks and what they learn by."""
        buffers = {f"buffer.{name}": buffer for name, buffer in self.model.named_buffers()}
        return buffers | {f"learner.{n}": tensor for n, tensor in self.learner.tensors().items()}

    def prepare_model(self) -> None:
        """Set codebooks that have not learned yet; the step that begins to quantize sets them again."""
        if self.step <= self.quantizing_from:
            self.start_codebooks()

    def write_model(self) -> None:
        """Write the model without a prior, since one for other codebooks would not fit."""
        save_model(self.model, self.run / MODEL_FILE, self.card())

    def card(self) -> dict[str, Any]:
        """What a model file says of its training; the SSIM is that of the last epoch, by levels kept."""
        last = self.past_epochs()[-1:]
        return super().card() | {
            "validation_ssim": [round(each, 4) for row in last for each in row["validation_ssim"]],
            "images": self.dataset.images.value,
            "size": self.dataset.size,
            "training_subjects": len({r.subject for r in self.dataset.splits["train"].records}),
            "started_from": self.config.started_from,
        }

    def own_settings(self) -> dict[str, Any]:
        """The config."""
        return dataclasses.asdict(self.config) | {"model": config_to_dict(self.config.model)}
