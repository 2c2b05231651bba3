"""The training of the codec of volumes, whose networks see the previous slice as it was decoded.

Shapes: N slices, B batch, H×W window, L levels.

It starts from the codec of images. The context of a slice is the latest reconstruction of a neighbour by
this model, from some number of levels. For this purpose the reconstructions of all slices are kept (of
very many, only some), and each step renews those of its slices. A neighbour without one is blurred. Some
slices get another contrast, together with their contexts (`contrasts.py`).
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from oasisvq.codec.modelfile import ModelFile, write_model
from oasisvq.data.batches import seeded_generator
from oasisvq.data.dataset import Dataset
from oasisvq.data.devices import send
from oasisvq.files import MODEL_FILE
from oasisvq.training.codec_step import TrainingConfig, levels_to_keep
from oasisvq.training.codec_training import Training, padded_ssim
from oasisvq.training.contrasts import Contrasts, draw_contrasts
from oasisvq.training.distributed import World
from oasisvq.training.loop import Loop, is_whole
from oasisvq.training.pictures import Drawings
from oasisvq.training.reports import Reporter
from oasisvq.training.slices_beside import (
    OwnRanges,
    blurred,
    coded_in_turn,
    neighbours,
    sequences,
)
from oasisvq.training.start import copy_images_codec
from oasisvq.training.timetable import seconds_of
from oasisvq.training.weights import build_model, model_arrays

CHECKPOINT_FILE = "volumes-checkpoint.safetensors"
MOST_KEPT = 16_384  # reconstructions; with more slices, only some slices have one
ALONE_SHARE = 0.07  # of slices that are given no context
FAR_SHARE, FURTHEST = 0.15, 4  # of slices whose context is 2 or more slices away; 4 at most
FOLLOWING_SHARE = 0.75  # of slices that keep as many levels as their context did
BLUR = 0.7, 2.0  # smallest and largest deviation in pixels
RISING_STEPS = 60  # during which the learning rate rises further, in a long training
VALIDATED_IN_TURN = 8  # slices, the first without a context


def slices_in_volumes(dataset: Dataset) -> Tensor:
    """The places of training slices that have a neighbour."""
    found = neighbours(dataset.splits["train"].records)
    return torch.from_numpy(np.flatnonzero((found >= 0).any(1)))


def validation_sequences(dataset: Dataset, wanted: int) -> list[Tensor]:
    """Evenly spaced sequences of validation slices, with about `wanted` slices in total."""
    parts = sequences(dataset.splits["validation"].records, VALIDATED_IN_TURN)
    parts = [part for part in parts if len(part) == len(parts[0])]
    count = min(len(parts), max(1, wanted // len(parts[0])))
    return [parts[place] for place in torch.linspace(0, len(parts) - 1, count).long()]


class Looks(NamedTuple):
    """How a step sees its slices; all (B,) but the contrasts, on the CPU, drawn alike in every process.

    Attributes:
        slices: their places.
        before: the places of their contexts; -1 for none.
        mirrored: whether a slice is mirrored, with its context.
        kept: number of levels kept.
        deviations: of the blur in pixels, for contexts without a reconstruction.
        contrasts: of slices and contexts.
    """

    slices: Tensor
    before: Tensor
    mirrored: Tensor
    kept: Tensor
    deviations: Tensor
    contrasts: Contrasts

    def part(self, own: slice) -> "Looks":
        """The looks of the slices of one process."""
        return Looks(
            self.slices[own],
            self.before[own],
            self.mirrored[own],
            self.kept[own],
            self.deviations[own],
            self.contrasts.part(own),
        )


class Reconstructions:
    """The model's latest reconstructions of slices.

    Attributes:
        pixels: (n, H, W) uint8, in the ranges of the slices, of every `every`-th slice.
        levels: (n,) uint8 number of levels that each was decoded from; 0 if there is none yet.
        every: 1 unless there are more than 16,384 slices.
    """

    def __init__(self, slices: int, window: tuple[int, int], device: torch.device) -> None:
        self.every = -(-slices // MOST_KEPT)
        kept = -(-slices // self.every)
        self.pixels = torch.zeros(kept, *window, dtype=torch.uint8, device=device)
        self.levels = torch.zeros(kept, dtype=torch.uint8)  # on the CPU, where levels are drawn

    def levels_of(self, slices: Tensor) -> Tensor:
        """Slices (B,) -> numbers of levels (B,) int64; 0 for slices not kept, and for places below 0."""
        is_kept = (slices >= 0) & (slices % self.every == 0)
        return torch.where(is_kept, self.levels[slices // self.every].long(), 0)

    def of(self, slices: Tensor) -> Tensor:
        """Slices (B,) -> (B, 1, H, W) in [0, 1]; without meaning if `levels_of` is 0."""
        found = self.pixels[send(slices // self.every, self.pixels.device)]
        return found[:, None].float() / 255

    def renew(self, slices: Tensor, kept: Tensor, pixels: Tensor) -> None:
        """Store pixels (B, H, W) uint8 of slices (B,), decoded from `kept` (B,) levels."""
        chosen = (slices % self.every == 0).nonzero()[:, 0]
        places, device = slices[chosen] // self.every, self.pixels.device
        self.pixels[send(places, device)] = pixels[send(chosen, device)]
        self.levels[places] = kept[chosen].to(torch.uint8)


class VolumesTraining(Training):
    """The training of a codec of volumes, in one process."""

    what = "volumes"
    checkpoint_file = CHECKPOINT_FILE

    def __init__(
        self,
        dataset: Dataset,
        config: TrainingConfig,
        run: Path,
        world: World,
        reporter: Reporter,
        file: ModelFile,
    ) -> None:
        """Set up the training for a model, from whose codec of images it starts."""
        self.places = slices_in_volumes(dataset)
        super().__init__(dataset, config, run, world, reporter, len(self.places))
        self.file = file
        records = dataset.splits["train"].records
        self.neighbours = torch.from_numpy(neighbours(records))  # (N, 2)
        self.source = OwnRanges(self.batches, dataset.array("train"))
        self.made = Reconstructions(len(records), config.model.window, world.device)
        self._looks: Looks | None = None
        self._reconstruction: Tensor | None = None
        self._validated_in_turn: list[Tensor] = []
        self._validation_source: OwnRanges | None = None
        if self.validation is not None:
            self._validated_in_turn = validation_sequences(dataset, self.validated)
            self.validated = sum(map(len, self._validated_in_turn))
            self._validation_source = OwnRanges(self.validation, dataset.array("validation"))
        copy_images_codec(build_model(file), self.model)
        self.quantizing_from = -1
        self.start_codebooks(config.model.levels)

    # --- one step -----------------------------------------------------------------------------

    def step_generator(self) -> torch.Generator:
        """The generator of this step's draws."""
        return seeded_generator(self.config.seed, 8, self.step)

    def rate(self) -> float:
        """As in `Loop`, but rising for longer: early full steps would undo what the codec knows."""
        return super().rate() * min(1.0, (self.step + 1) / max(1, min(RISING_STEPS, self.steps // 4)))

    def losses(self, batch: Tensor, following: Tensor | None, generator: torch.Generator) -> Tensor:
        """Reconstruct slices, given their contexts."""
        looks = self._looks = self.draw_looks(self.places[batch], generator)
        own = looks.part(self.share)
        pixels, context = self.inputs(own)
        passed = self.step_module(pixels, own.kept, True, context)
        self.quantized, self._reconstruction = passed.quantized, passed.reconstruction
        return torch.stack(list(passed.losses))

    def draw_looks(self, slices: Tensor, generator: torch.Generator) -> Looks:
        """Draw how slices (B,) are seen."""
        count = len(slices)
        draws = torch.rand(count, 6, generator=generator)
        away = torch.randint(2, FURTHEST + 1, (count,), generator=generator)
        away = torch.where(draws[:, 0] < FAR_SHARE, away, 1)
        side = (draws[:, 1] < 0.5).long()
        before = slices
        for number in range(FURTHEST):
            further = self.neighbours[before.clamp_min(0), side]
            before = torch.where((number < away) & (before >= 0), further, before)
        before = torch.where(draws[:, 2] < ALONE_SHARE, -1, before)
        kept = levels_to_keep(count, self.config.model.levels, generator)
        theirs = self.made.levels_of(before)
        kept = torch.where((theirs > 0) & (draws[:, 3] < FOLLOWING_SHARE), theirs, kept)
        deviations = BLUR[0] + (BLUR[1] - BLUR[0]) * draws[:, 4]
        contrasts = draw_contrasts(count, generator)
        return Looks(slices, before, draws[:, 5] < 0.5, kept, deviations, contrasts)

    @torch.no_grad()
    def inputs(self, looks: Looks) -> tuple[Tensor, Tensor]:
        """Pixels and contexts (B, 1, H, W) of slices, both in the ranges of the slices."""
        device = self.world.device
        has, levels = looks.before >= 0, self.made.levels_of(looks.before)
        beside = torch.where(has, looks.before, looks.slices)
        both = self.source.draw(torch.cat([looks.slices, beside]))
        pixels, originals = both.split(len(beside))
        context = blurred(originals, send(looks.deviations, device))
        context = torch.where(_for_images(levels > 0, device), self.made.of(beside), context)
        context = self.source.moved(context, beside, looks.slices)
        pixels = looks.contrasts.noisy(looks.contrasts.shown(pixels))
        context = looks.contrasts.shown(context) * _for_images(has, device)
        turned = _for_images(looks.mirrored, device)
        pixels, context = (torch.where(turned, each.flip(2), each) for each in (pixels, context))
        return pixels, context

    def learn(self, generator: torch.Generator) -> None:
        """Also keep the reconstructions of these slices, except those in another contrast."""
        super().learn(generator)
        assert self._looks is not None and self._reconstruction is not None
        decoded, looks = self._reconstruction[:, 0], self._looks
        every = torch.zeros(
            len(looks.slices), *decoded.shape[1:], dtype=torch.uint8, device=decoded.device
        )
        every[self.share] = (decoded * 255).round().to(torch.uint8)
        self.world.sum_(every)
        turned = _for_images(looks.mirrored, decoded.device)[:, 0]
        every = torch.where(turned, every.flip(1), every)
        own = (~looks.contrasts.changed).nonzero()[:, 0]
        self.made.renew(looks.slices[own], looks.kept[own], every[send(own, every.device)])
        self._looks = self._reconstruction = None

    def example(self, slices: Tensor) -> tuple[Tensor, Tensor | None]:
        """Slices that have a neighbour, each with itself as context, for trials."""
        pixels = self.source.draw(self.places[slices])
        return pixels, pixels.clone()

    # --- the end of an epoch ------------------------------------------------------------------

    def rehearse(self) -> float:
        """As `Training.rehearse`; returns the seconds to encode and decode one slice."""
        self.imitation_cost = self.rehearse_imitation()
        pixels, context = self.example(self.first_slices()[:1])
        networks, quantizer = self.plain_step.networks, self.model.quantizer
        kept = torch.full((1,), self.config.model.default_levels)

        @torch.no_grad()
        def code() -> None:
            with self.autocast():
                latents = networks.encoder(pixels, context)
            chosen = quantizer.dequantize(quantizer.quantize(latents.float(), kept))
            with self.autocast():
                networks.decoder(chosen, context)

        of_slice = seconds_of(code, self.world.device)
        self.seconds_between = of_slice * self.validated * self.config.model.levels / self.world.size
        return of_slice

    @torch.no_grad()
    def validate(self) -> list[float]:
        """Mean SSIM over validation slices, coded in turn, by number of levels kept."""
        if self._validation_source is None:
            return []
        own = self._validated_in_turn[self.world.rank :: self.world.size]
        levels = self.config.model.levels
        sums = torch.zeros(levels + 1, device=self.world.device)
        for kept in range(1, levels + 1):
            for coded in coded_in_turn(
                self.plain_step.networks,
                self.model.quantizer,
                self._validation_source,
                own,
                torch.full((len(own),), kept),
                autocast=self.autocast,
            ):
                sums[kept] += padded_ssim(coded.pixels, coded.decoded).sum()
                sums[0] += len(coded.places)
        self.world.sum_(sums)
        return [float(each * levels / sums[0]) for each in sums[1:]]

    def drawings(self) -> Drawings:
        """The curves; the panel of the codec of images stays."""
        return Loop.drawings(self)

    # --- state --------------------------------------------------------------------------------

    def extra_tensors(self) -> dict[str, Tensor]:
        """Also the reconstructions."""
        made = {"made.pixels": self.made.pixels, "made.levels": self.made.levels}
        return super().extra_tensors() | made

    def write_model(self) -> None:
        """Write the model with this codec of volumes, which has no prior yet."""
        volumes = ModelFile(self.config.model, model_arrays(self.model), None, {})
        card = self.file.card | {"volumes": self.card()}
        card["finished"] = self.is_last and is_whole(card)
        write_model(self.file.with_volumes(volumes, card), self.run / MODEL_FILE)

    def base(self) -> ModelFile:
        """The model that gets the codec of volumes."""
        return self.file

    def own_settings(self) -> dict[str, Any]:
        """The config, and the model that the training starts from."""
        return super().own_settings() | {"codec": self.file.fingerprint.hex()}


def _for_images(flags: Tensor, device: torch.device) -> Tensor:
    """(B,) bool -> (B, 1, 1, 1) on the device."""
    return send(flags, device)[:, None, None, None]
