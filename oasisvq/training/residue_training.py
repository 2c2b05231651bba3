"""The training of the networks of residues: slices of the training split in, bits per value out.

Shapes: N slices, B batch of this process, n places in a slice, H×W window, L levels.

A step takes a few slices, each changed at random (`residue_drawing.py`). At some of their places the
networks predict the bin of the residue, and whether there is ground. The decoded image beside a slice
comes from the trained codec, with a varying number of levels. For training slices the codec computes in
floating point, for validation slices in its integers.
"""

import copy
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from oasisvq.codec.config import config_to_dict
from oasisvq.codec.modelfile import ModelFile, write_model
from oasisvq.codec.pixels import centred_window
from oasisvq.codec.residue_config import ResidueConfig, SupportConfig
from oasisvq.codec.residue_networks import ResidueNetwork as IntegerResidue
from oasisvq.codec.residue_networks import SupportNetwork as IntegerSupport
from oasisvq.data.batches import SliceBatches, seeded_generator
from oasisvq.data.dataset import Dataset, SliceRecord
from oasisvq.data.devices import send
from oasisvq.files import MODEL_FILE
from oasisvq.training.decoded_slices import decoded_alone, decoded_in_turn, grey_levels
from oasisvq.training.distributed import World
from oasisvq.training.frozen import networks_for
from oasisvq.training.loop import Loop, steps_per_epoch
from oasisvq.training.quantizer import ResidualQuantizer
from oasisvq.training.reports import Reporter
from oasisvq.training.residue_drawing import Drawn, Looks, draw_looks, draw_passes, in_bins, plain_looks
from oasisvq.training.residue_inputs import ResidueInputs, Slices, SupportInputs
from oasisvq.training.residue_network import (
    ResidueNetwork,
    SupportNetwork,
    mixture_bits,
    support_bits,
)
from oasisvq.training.slices_beside import Networks, OwnRanges, neighbours, sequences
from oasisvq.training.timetable import Pace, Progress, is_tenth
from oasisvq.training.weights import quantizer_of

CHECKPOINT_FILE = "residue-checkpoint.safetensors"
PLACES = 512  # in a slice, at which a step predicts the residue
NEAR, FAR = 192, 64  # places for the support: near the border of the ground, and anywhere
DECODED_SLICES = 2048  # at most, from the training split, by each codec: of images, and of volumes
DECODED_IN_TURN = 8  # slices of a volume, the first without a context
AVERAGED = 0.999  # decay of the average of weights over steps, after the first steps
VALIDATION_SLICES = 48
VALIDATION_BOUNDS = (0, 3)


@dataclasses.dataclass(frozen=True)
class ResidueTrainingConfig:
    """One training of the networks of residues.

    Attributes:
        residue: of the network of the residue.
        support: of the network of the support, which is trained beside it.
        epochs: passes over the training split.
        batch_size: slices in a step, over all processes.
        learning_rate: the highest one, after the warm-up.
        seed: of weights, order and every draw.
        precision: `float32`, or `bfloat16` for autocast.
    """

    residue: ResidueConfig
    support: SupportConfig
    epochs: int
    batch_size: int
    learning_rate: float
    seed: int
    precision: str


class ResidueEpoch(NamedTuple):
    """The results of an epoch."""

    epoch: int
    loss: float  # in training: bits per value plus bits of the support per pixel
    bits_of_parts: list[float]  # these two parts
    images_per_second: float
    # bits per value, lossless and at a bound of 3, and of the support per pixel; empty if not validated
    validation_bits: list[float]

    def summary(self) -> str:
        """One line for a person."""
        value, ground = self.bits_of_parts
        training = f"{value:.3f}, ground {ground:.4f}"
        if not self.validation_bits:
            return f"bits a value {training}"
        lossless, bounded, support = self.validation_bits
        return (
            f"bits a value {training}  validation: lossless {lossless:.3f}, "
            f"bound {VALIDATION_BOUNDS[1]} {bounded:.3f}, ground {support:.4f}"
        )


class ResidueNetworks(nn.Module):
    """The networks of the residue and of the support."""

    def __init__(self, residue: ResidueConfig, support: SupportConfig) -> None:
        super().__init__()
        self.residue, self.support = ResidueNetwork(residue), SupportNetwork(support)

    def integers(self) -> tuple[IntegerResidue, IntegerSupport]:
        """The integer networks that a model file gets."""
        residue = IntegerResidue(self.residue.config, self.residue.integers())
        return residue, IntegerSupport(self.support.config, self.support.integers())


def new_networks(residue: ResidueConfig, support: SupportConfig, seed: int) -> ResidueNetworks:
    """ResidueNetworks with weights drawn from `seed` alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return ResidueNetworks(residue, support)


class ResidueStep(nn.Module):
    """Slices -> bits at the places that a step draws."""

    def __init__(self, networks: ResidueNetworks, precision: str) -> None:
        super().__init__()
        self.networks, self.precision = networks, precision
        self.of_residue = ResidueInputs(networks.residue.config)
        self.of_support = SupportInputs(networks.support.config)

    def forward(self, slices: Slices, looks: Looks, draws: Tensor) -> Tensor:
        """(B, places) draws in [0, 1) -> (2,) bits per value, and of the support per pixel."""
        enabled = self.precision == "bfloat16"
        chosen, where = draws.split([draws.shape[1] - NEAR - FAR, NEAR + FAR], 1)
        cells, is_given = cells_of(slices.bins != 0, chosen)
        targets = self.of_residue(slices, looks.passes, cells)
        near, weights = places_of_support(slices.bins, looks.scales, where)
        inputs, wanted = self.of_support(slices, looks.passes, near)
        with torch.autocast(slices.bins.device.type, dtype=torch.bfloat16, enabled=enabled):
            mixture = self.networks.residue(targets.inputs)
            logits = self.networks.support(inputs)
        bits = mixture_bits(mixture, *targets[1:]) * is_given
        value = bits.sum() / is_given.sum().clamp_min(1)
        support = (support_bits(logits, wanted) * weights).sum() / slices.bins.numel()
        return torch.stack([value, support])


def cells_of(mask: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
    """Cells of a mask (B, H, W), all equally likely, by draws (B, n) in [0, 1).

    Returns:
        Cells (B, n), counted over the pixels of a slice; and (B·n,) 1, or 0 where the mask has none.
    """
    so_far = mask.flatten(1).to(torch.int32).cumsum(1, dtype=torch.int32)  # (B, H·W)
    count = so_far[:, -1:]
    number = (draws * count).to(torch.int32).clamp(max=count - 1) + 1
    cells = torch.searchsorted(so_far, number).clamp(max=so_far.shape[1] - 1)
    return cells, (count > 0).float().expand_as(draws).flatten()


def places_of_support(bins: Tensor, scales: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
    """Places at which the support is predicted, most of them near the border of the ground.

    Args:
        bins: (B, H, W), 0 on the ground.
        scales: (B,) of the passes; the larger, the further from the border a place counts as near.
        draws: (B, n) in [0, 1), for `NEAR` and then `FAR` places.

    Returns:
        Cells (B, n); and weights (B·n,), with which a sum over them is one over all pixels, on average.
    """
    marks = (bins != 0).float()[:, None]
    low = -F.max_pool2d(-marks, 3, 1, 1)
    begins = F.max_pool2d(marks, 3, 1, 1) - low  # (B, 1, H, W)
    wide = torch.cat([F.max_pool2d(begins, 2 * reach + 1, 1, reach) for reach in (1, 2, 4)], 1)
    chosen = (scales.clamp(max=4) // 2).clamp(max=2)  # 1, 2, 4, 8 -> 0, 1, 2, 2
    near = wide[torch.arange(len(bins), device=bins.device), chosen] > 0  # (B, H, W)
    pixels = near[0].numel()
    cells, is_given = cells_of(near, draws[:, :NEAR])
    cells = torch.cat([cells, (draws[:, NEAR:] * pixels).long().clamp(max=pixels - 1)], 1)
    count = near.flatten(1).sum(1, keepdim=True).clamp_min(1)
    often = near.flatten(1).gather(1, cells).float() * (NEAR / count) + FAR / pixels
    weights = 1 / often
    weights[:, :NEAR] *= is_given.view(len(bins), -1)
    return cells, weights.flatten()


class _Source:
    """The slices of one split with their neighbours, and some of them decoded by the codecs."""

    def __init__(self, batches: SliceBatches, records: tuple[SliceRecord, ...], before: int) -> None:
        self.batches, self.before = batches, before
        self.neighbours = torch.from_numpy(neighbours(records))
        self.place_of_decoded = torch.full((len(records),), -1)
        self.decoded: Tensor | None = None

    def keep(self, slices: Tensor, decoded: Tensor) -> None:
        """Keep slices (n,) as a codec decoded them: (n, H, W) uint8 grey levels."""
        before = decoded[:0] if self.decoded is None else self.decoded
        self.place_of_decoded[slices] = torch.arange(len(before), len(before) + len(slices))
        self.decoded = torch.cat([before, decoded])

    def draw(self, slices: Tensor, backwards: Tensor) -> Drawn:
        """Slices (B,) with their decoded images and previous slices; next slices where `backwards`."""
        side, wanted, given = backwards.long(), [slices], []
        beside = slices
        for _ in range(self.before):
            following = self.neighbours[beside.clamp_min(0), side]
            beside = torch.where(beside < 0, beside, following)
            wanted.append(beside.clamp_min(0))
            given.append((beside >= 0).float())
        grey = grey_levels(self.batches, torch.cat(wanted))
        grey = grey.unflatten(0, (-1, len(slices))).transpose(0, 1)
        device = grey.device
        has_before = send(torch.stack(given, 1), device) if given else grey.new_zeros(len(slices), 0)
        place = self.place_of_decoded[slices]
        has_decoded = send((place >= 0).float(), device)
        decoded = torch.zeros_like(grey[:, 0])
        if self.decoded is not None:
            decoded = self.decoded[send(place.clamp_min(0), device)].float()
        return Drawn(
            grey[:, 0],
            decoded * has_decoded[:, None, None],
            grey[:, 1:] * has_before[:, :, None, None],
            has_decoded,
            has_before,
        )


class ResidueTraining(Loop):
    """The training of the networks of residues for a trained codec, in one process."""

    what = "residue"
    checkpoint_file = CHECKPOINT_FILE

    def __init__(
        self,
        dataset: Dataset,
        config: ResidueTrainingConfig,
        run: Path,
        world: World,
        reporter: Reporter,
        file: ModelFile,
        tell: Callable[[str], None] = lambda message: None,
    ) -> None:
        slices = len(dataset.splits["train"].records)
        steps_per_epoch(dataset, config, world, slices)
        self.config, self.file = config, file
        self.networks = new_networks(config.residue, config.support, config.seed).to(world.device)
        self.averaged = copy.deepcopy(self.networks).requires_grad_(False)
        parameters = list(self.networks.named_parameters())
        parts = ("values", "ground")
        super().__init__(dataset, config, run, world, reporter, slices, parameters, parts)
        every = torch.arange(slices)
        self.training = self._source("train", _evenly(every, DECODED_SLICES), tell)
        self.validation: tuple[_Source, Tensor] | None = None
        if "validation" in dataset.splits:
            some = _evenly(torch.arange(len(dataset.splits["validation"].records)), VALIDATION_SLICES)
            self.validation = self._source("validation", some, tell), some
        step = ResidueStep(self.networks, config.precision).to(world.device)
        self.step_module = self.distributed(step)

    def _source(self, split: str, decoded: Tensor, tell: Callable[[str], None]) -> _Source:
        dataset, config = self.dataset, self.file.config
        window = centred_window((dataset.size, dataset.size), config.window, config.stride)
        batches = SliceBatches(dataset.array(split), window, config.stride, self.world.device)
        before = max(self.config.residue.slices_before, self.config.support.slices_before)
        source = _Source(batches, dataset.splits[split].records, before)
        in_turn = self._sequences(split)
        count = len(decoded) + sum(map(len, in_turn)) // self.world.size
        progress = Progress(tell, f"decoding {split} slices", count, "slices")
        networks, quantizer = self._codec(self.file, split)
        alone = decoded_alone(networks, quantizer, batches, decoded, self.world, progress.advance)
        source.keep(decoded, alone)
        if in_turn:
            assert self.file.volumes is not None
            ranges = OwnRanges(batches, dataset.array(split))
            networks, quantizer = self._codec(self.file.volumes, split)
            beside = decoded_in_turn(networks, quantizer, ranges, in_turn, self.world, progress.advance)
            source.keep(torch.cat(in_turn), beside)
        return source

    def _codec(self, file: ModelFile, split: str) -> tuple[Networks, ResidualQuantizer]:
        device = self.world.device
        return networks_for(split, file, device, self.config.precision), quantizer_of(file).to(device)

    def _sequences(self, split: str) -> list[Tensor]:
        """Sequences of training slices for the codec of volumes to decode; none without such a codec."""
        if self.file.volumes is None or split != "train":
            return []
        records = self.dataset.splits[split].records
        found = [part for part in sequences(records, DECODED_IN_TURN) if len(part) > 1]
        chosen = _evenly(torch.arange(len(found)), DECODED_SLICES // DECODED_IN_TURN)
        return [found[place] for place in chosen.tolist()]

    # --- one step -----------------------------------------------------------------------------

    def step_generator(self) -> torch.Generator:
        """The generator of this step's draws."""
        return seeded_generator(self.config.seed, 6, self.step)

    def losses(self, batch: Tensor, following: Tensor | None, generator: torch.Generator) -> Tensor:
        """Bits per value plus bits of the support per pixel, then each of them."""
        size, device = self.config.batch_size, self.world.device
        looks = draw_looks(size, generator)
        draws = torch.rand(size, PLACES + NEAR + FAR, generator=generator)
        looks = looks.part(self.share)
        drawn = self.training.draw(self.own(batch), looks.backwards)
        looks = looks.to(device)
        slices = in_bins(drawn, looks)
        bits = self.step_module(slices, looks, send(self.own(draws), device))
        return torch.cat([bits.sum()[None], bits])

    @torch.no_grad()
    def learn(self, generator: torch.Generator) -> None:
        """Update the moving average of the weights."""
        share = min(AVERAGED, (self.step + 1) / (self.step + 10))
        for mean, learnt in zip(self.averaged.parameters(), self.networks.parameters(), strict=True):
            mean.lerp_(learnt, 1 - share)

    # --- the end of an epoch ------------------------------------------------------------------

    def epoch_report(self, means: list[float], images_per_second: float) -> ResidueEpoch:
        """Bits; for validation slices, by the integers that the model file gets."""
        epoch = self.step // self.steps_per_epoch
        validation = self.validate() if self.validates(epoch) else []
        return ResidueEpoch(epoch, means[0], means[1:], images_per_second, validation)

    def validates(self, epoch: int) -> bool:
        """Whether this epoch ends a tenth of the training, and there is a validation split."""
        return self.validation is not None and is_tenth(epoch, self.config.epochs)

    def expect(self, pace: Pace) -> None:
        """Estimate the time of a validation from a trial, so that the time left is known at once."""
        if self.validation is not None:
            self.seconds_between = pace.coding * len(self.validation[1]) / self.world.size

    @torch.no_grad()
    def validate(self) -> list[float]:
        """Bits per value at each of `VALIDATION_BOUNDS`, and of the support per pixel.

        The list is empty without a validation split.
        """
        if self.validation is None:
            return []
        source, slices = self.validation
        own = slices[self.world.rank :: self.world.size]
        sums = torch.zeros(len(VALIDATION_BOUNDS) + 2, dtype=torch.float32, device=self.world.device)
        if len(own):
            sums += self._validated(source, own)
        self.world.sum_(sums)
        return [float(each) / max(1.0, float(sums[-1])) for each in sums[:-1]]

    def _validated(self, source: _Source, slices: Tensor) -> Tensor:
        """The sums over slices (B,) of what `validate` returns, and then their number."""
        residue, support = self.averaged.integers()
        step = ResidueStep(self.averaged, "float32").to(self.world.device)
        drawn = source.draw(slices, torch.zeros(len(slices), dtype=torch.bool))
        generator = seeded_generator(self.config.seed, 7)
        passes = draw_passes(len(slices), generator)
        draws = torch.rand(len(slices), PLACES, generator=generator).to(self.world.device)
        bits = []
        for bound in VALIDATION_BOUNDS:
            looks = plain_looks(passes, bound, with_decoded=True).to(self.world.device)
            in_view = in_bins(drawn, looks)
            cells, is_given = cells_of(in_view.bins != 0, draws)
            targets = step.of_residue(in_view, looks.passes, cells)
            everything = np.ones(targets.inputs.shape[1], np.bool_)
            mixture = residue.seeing(everything)(targets.inputs.cpu().numpy())
            found = mixture_bits(torch.from_numpy(mixture).to(draws.device), *targets[1:]) * is_given
            bits.append(found.sum() / PLACES)
        near, weights = places_of_support(in_view.bins, looks.scales, draws[:, : NEAR + FAR])
        inputs, wanted = step.of_support(in_view, looks.passes, near)
        logits = torch.from_numpy(support(inputs.cpu().numpy()).astype(np.float32)).to(draws.device)
        pixels = in_view.bins[0].numel()
        bits.append((support_bits(logits, wanted) * weights).sum() / pixels)
        return torch.stack([*bits, draws.new_full((), len(slices))])

    # --- state --------------------------------------------------------------------------------

    def extra_tensors(self) -> dict[str, Tensor]:
        """The averaged weights."""
        return {f"averaged.{name}": weight.data for name, weight in self.averaged.named_parameters()}

    def prepare_model(self) -> None:
        """Do nothing: the average is usable at any step."""

    def write_model(self) -> None:
        """Write the file of the codec with both networks added."""
        residue, support = self.averaged.integers()
        card = self.file.card | {"residue": self.card()}
        write_model(self.file.with_residue(residue, support, card), self.run / MODEL_FILE)

    def base(self) -> ModelFile:
        """The model that gets the networks."""
        return self.file

    def own_settings(self) -> dict[str, Any]:
        """The config, and the codec whose decoded images the networks see."""
        fields = dataclasses.asdict(self.config)
        parts = {name: config_to_dict(getattr(self.config, name)) for name in ("residue", "support")}
        return fields | parts | {"codec": self.file.fingerprint.hex()}


def _evenly(slices: Tensor, most: int) -> Tensor:
    """At most `most` of these slices, evenly spaced."""
    places = torch.linspace(0, len(slices) - 1, min(most, len(slices))).long()
    return slices[places]
