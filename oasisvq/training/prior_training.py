"""The training of the prior: index grids of the training split in, bits per index out.

Shapes: N slices, B batch of this process, n targets, L levels, h×w grid, K codes.
"""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from oasisvq.codec.config import config_to_dict
from oasisvq.codec.exact import LATENT_UNITS
from oasisvq.codec.frequencies import FREQUENCY_BITS, Frequencies
from oasisvq.codec.modelfile import ModelFile, write_model
from oasisvq.codec.pixels import centred_window
from oasisvq.codec.prior import FEATURE_UNITS, PARTS, Pass, Prior, PriorConfig, order_of
from oasisvq.data.batches import SliceBatches, seeded_generator
from oasisvq.data.dataset import Dataset
from oasisvq.data.devices import send
from oasisvq.errors import ModelError, TrainingError
from oasisvq.files import MODEL_FILE
from oasisvq.training.checkpoint import Checkpoint
from oasisvq.training.distributed import World
from oasisvq.training.frozen import networks_for
from oasisvq.training.loop import Loop, is_whole, steps_per_epoch
from oasisvq.training.prior_grids import Grids, index_grids, joined
from oasisvq.training.prior_network import Kinds, PriorNetwork, kinds_of
from oasisvq.training.quantizer import ResidualQuantizer
from oasisvq.training.reports import Reporter
from oasisvq.training.request import NOTHING_FOLLOWS, Following
from oasisvq.training.slices_beside import Networks
from oasisvq.training.timetable import Pace, Progress, is_tenth, seconds_of
from oasisvq.training.weights import quantizer_of

CHECKPOINT_FILE = "prior-checkpoint.safetensors"
CELLS_PER_TARGET = 4  # in a step, at most one cell in this many is a target on the first two levels
HALVED_FROM = 2  # levels from this one on, counted from 0, have half as many: there is less to learn
VALIDATION_SLICES = 32  # each takes as long as a few steps
FEWEST_STEPS = 12  # in an epoch, unless batches become too small


@dataclasses.dataclass(frozen=True)
class PriorTrainingConfig:
    """One training of a prior.

    Attributes:
        prior: what is trained.
        epochs: passes over the training split.
        batch_size: slices in a step, over all processes.
        learning_rate: the highest one, after the warm-up.
        seed: of weights, order and every draw.
        precision: `float32`, or `bfloat16` for autocast.
        started_from: fingerprint in hexadecimal of the codec whose prior gave the initial weights; None
            for random weights.
        following: the stages after it.
    """

    prior: PriorConfig
    epochs: int
    batch_size: int
    learning_rate: float
    seed: int
    precision: str
    started_from: str | None = None
    following: Following = NOTHING_FOLLOWS


def starting_from(config: PriorTrainingConfig, checkpoint: Checkpoint, name: str) -> PriorTrainingConfig:
    """The config of a training that starts from the prior in a checkpoint; `name` is for messages.

    Raises:
        TrainingError: that prior has another config.
    """
    settings = checkpoint.progress.get("settings")
    settings = settings if isinstance(settings, dict) else {}
    ours, theirs = config_to_dict(config.prior), settings.get("prior")
    theirs = theirs if isinstance(theirs, dict) else {}
    for key, own in ours.items():
        if own != theirs.get(key):
            raise TrainingError(
                f"{name}: its prior has {key} {theirs.get(key)}, this training {own}; name the run "
                "folder of a prior of the same shape, or leave out --start-from"
            )
    return dataclasses.replace(config, started_from=settings.get("codec"))


class PriorEpoch(NamedTuple):
    """The results of an epoch."""

    epoch: int
    loss: float  # bits per index in training, with imitated integers; the mean over levels
    bits_of_levels: list[float]  # the same for each level
    images_per_second: float
    validation_bits: list[float]  # bits per index of each level, by the integers; empty if not validated

    def summary(self) -> str:
        """One line for a person."""
        training = "/".join(f"{each:.3f}" for each in self.bits_of_levels)
        validation = "/".join(f"{each:.3f}" for each in self.validation_bits)
        return f"bits an index {training}" + (f"  validation {validation}" if validation else "")


def spread(draws: Tensor, count: int) -> Tensor:
    """(B, 2) draws in [0, 1) -> (B, n): the first, and n - 1 evenly spaced from the second on, modulo 1.

    Each of them is distributed as if it were drawn itself. But only two numbers are sent to the device,
    and fewer targets fall on the same cell.
    """
    places = torch.arange(count - 1, device=draws.device) / max(1, count - 1)
    return torch.cat([draws[:, :1], (draws[:, 1:] + places).frac()], 1)


class _Cells(nn.Module):
    """Draws the targets of one level: for each slice, cells of one pass.

    A larger pass is drawn more often, so that all cells are equally likely.

    Attributes:
        largest: number of cells of the largest pass; with more targets, some would be the same.
    """

    order: Tensor
    by_pass: Tensor
    sizes: Tensor
    starts: Tensor

    def __init__(self, grid: tuple[int, int], passes: int) -> None:
        super().__init__()
        order = torch.from_numpy(order_of(*grid, passes))  # (h, w)
        sizes = torch.bincount(order.reshape(-1), minlength=passes)
        self.largest = int(sizes.max())
        self.register_buffer("order", order)
        self.register_buffer("by_pass", torch.argsort(order.reshape(-1), stable=True))
        self.register_buffer("sizes", sizes)
        self.register_buffer("starts", sizes.cumsum(0) - sizes)

    def forward(self, draws: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
        """(B, n) draws in [0, 1) -> known cells (B, h, w), and (B·n,) slice, row, column of targets."""
        batch, count = draws.shape
        cells = self.order.numel()
        number = self.order.reshape(-1)[(draws[:, 0] * cells).long()]  # (B,) pass of each slice
        # the first draw has chosen the pass; what it has left of its randomness chooses a cell in it
        within = torch.cat([(draws[:, :1] * cells).frac(), draws[:, 1:]], 1)
        places = (within * self.sizes[number, None]).long() + self.starts[number, None]
        chosen = self.by_pass[places].reshape(-1)
        sample = torch.arange(batch, device=draws.device).repeat_interleave(count)
        width = self.order.shape[1]
        return self.order < number[:, None, None], (sample, chosen // width, chosen % width)


class PriorStep(nn.Module):
    """Index grids -> bits per index of each level."""

    def __init__(
        self, network: PriorNetwork, grid: tuple[int, int], precision: str, targets: int
    ) -> None:
        """Take the network that learns; `targets` is the largest number of them in a slice and level."""
        super().__init__()
        self.network, self.targets = network, targets
        self.precision = precision
        self.cells = nn.ModuleList(_Cells(grid, passes) for passes in network.config.passes)

    def forward(
        self,
        indices: Tensor,
        kinds: Tensor,
        draws: Tensor,
        expected: Tensor | None = None,
        weights: Tensor | None = None,
    ) -> Tensor:
        """Bits per index of each level, (L,).

        Args:
            indices: (B, L, h, w).
            kinds: (B,).
            draws: (B, L, 2) in [0, 1).
            expected: (B, h, w, D) steps of features, if the config has expected latents.
            weights: (B, L) of the levels of each slice; all alike if None.
        """
        bits = []
        for level, (cells, network) in enumerate(zip(self.cells, self.network.levels, strict=True)):
            assert isinstance(cells, _Cells)
            count = self.targets // (2 if level >= HALVED_FROM else 1)
            count = max(1, min(count, cells.largest))
            known, targets = cells(spread(draws[:, level], count))
            enabled = self.precision == "bfloat16"
            with torch.autocast(indices.device.type, dtype=torch.bfloat16, enabled=enabled):
                logits = network(indices, kinds, known, targets, expected)
            sample, row, column = targets
            wanted = indices[sample, level, row, column]
            losses = F.cross_entropy(logits.float() * math.log(2), wanted, reduction="none")
            losses = losses.view(len(indices), -1).mean(1) / math.log(2)  # (B,)
            bits.append((losses if weights is None else losses * weights[:, level]).mean())
        return torch.stack(bits)


def weights_of_levels(kept: Tensor, levels: int) -> Tensor:
    """(N,) numbers of levels kept -> (N, L) weights: 0 beyond them, and 1 on average on each level."""
    keeps = (kept[:, None] > torch.arange(levels, device=kept.device)).float()
    return keeps / keeps.mean(0).clamp_min(1 / len(keeps))


def fitting_batch_size(slices: int, most: int) -> int:
    """Slices in a step: at most `most`, but fewer if an epoch would have only a few steps."""
    return max(1, min(most, slices, max(4, slices // FEWEST_STEPS)))


def rehearse(config: "PriorTrainingConfig", device: torch.device) -> Pace:
    """Time a step and the coding of one slice, with a throwaway network."""
    prior, (height, width) = config.prior, config.prior.grid
    network = new_network(prior, config.seed).to(device)
    step = PriorStep(network, prior.grid, config.precision, targets_of(prior.grid)).to(device)
    indices = torch.zeros(1, prior.levels, height, width, dtype=torch.int64, device=device)
    kinds = torch.zeros(1, dtype=torch.int64, device=device)
    draws = torch.zeros(1, prior.levels, 2, device=device)
    shape = 1, height, width, prior.code_dim
    expected = torch.zeros(shape, dtype=torch.int8, device=device) if prior.expected else None
    learning = seconds_of(lambda: step(indices, kinds, draws, expected).sum().backward(), device)
    centres = torch.zeros(prior.kinds, PARTS * PARTS * prior.code_dim)
    integers = network.prior(Kinds(centres, torch.ones(prior.kinds)))
    grids, kind = np.zeros(indices.shape, np.uint16), np.zeros(1, np.int64)
    return Pace(learning, seconds_of(lambda: bits_of_levels(integers, grids, kind), device))


def targets_of(grid: tuple[int, int]) -> int:
    """Number of targets in a slice of the first level."""
    return max(1, grid[0] * grid[1] // CELLS_PER_TARGET)


def new_network(config: PriorConfig, seed: int) -> PriorNetwork:
    """A network with weights drawn from `seed` alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return PriorNetwork(config)


class PriorTraining(Loop):
    """The training of a prior for a trained codec, in one process."""

    what = "prior"
    checkpoint_file = CHECKPOINT_FILE

    def __init__(
        self,
        dataset: Dataset,
        config: PriorTrainingConfig,
        run: Path,
        world: World,
        reporter: Reporter,
        codec: ModelFile,
        tell: Callable[[str], None] = lambda message: None,
        slices: int | None = None,
    ) -> None:
        """Set up a training on `slices` slices of the training split; on all if None.

        Raises:
            TrainingError: no batch fits the slices, or batches do not divide among the processes.
        """
        slices = len(dataset.splits["train"].records) if slices is None else slices
        steps_per_epoch(dataset, config, world, slices, "--prior-batch-size")
        self.config, self.codec = config, codec
        self.network = new_network(config.prior, config.seed).to(world.device)
        parameters = list(self.network.named_parameters())
        levels = tuple(f"level {level}" for level in range(1, config.prior.levels + 1))
        super().__init__(dataset, config, run, world, reporter, slices, parameters, levels)
        quantizer = quantizer_of(codec).to(world.device)
        self.network.start_with_codebooks(quantizer.codebooks)
        training, self.validation = self.grids(quantizer, tell)
        self.indices, self.expected = training.indices, training.expected
        kept, count = training.kept, config.prior.levels
        self.level_weights = None if kept is None else weights_of_levels(kept, count)
        kinds = kinds_of(training.pooled, config.prior.kinds, seeded_generator(config.seed, 5))
        self.pooled = training.pooled
        self.kinds = self.counted(kinds)
        world.broadcast_(self.kinds.centres)
        world.broadcast_(self.kinds.counts)
        self.kind_of_slice = self.kinds.nearest(self.pooled)
        height, width = self.indices.shape[2:]
        targets = targets_of((height, width))
        step = PriorStep(self.network, (height, width), config.precision, targets)
        step = step.to(world.device)
        self.step_module = self.distributed(step)

    def grids(
        self, quantizer: ResidualQuantizer, tell: Callable[[str], None]
    ) -> tuple[Grids, Grids | None]:
        """The grids of all training slices, plain and then mirrored, and of some validation slices.

        The latter are None without a validation split.
        """
        dataset, config = self.dataset, self.codec.config
        own = -(-2 * self.slices // self.world.size)
        progress = Progress(tell, "finding indices", own, "slices")
        window = centred_window((dataset.size, dataset.size), config.window, config.stride)

        def grids_of(split: str, chosen: Tensor, mirrored: bool) -> Grids:
            batches = SliceBatches(dataset.array(split), window, config.stride, self.world.device)
            networks, grid = self.networks(split), (window.height, window.width)
            return index_grids(
                networks,
                quantizer,
                batches,
                chosen,
                grid,
                self.world,
                self.config.seed,
                mirrored,
                progress.advance,
            )

        every = torch.arange(self.slices)
        training = joined([grids_of("train", every, mirrored) for mirrored in (False, True)])
        if "validation" not in dataset.splits:
            return training, None
        count = len(dataset.splits["validation"].records)
        some = torch.linspace(0, count - 1, min(VALIDATION_SLICES, count)).long()
        return training, grids_of("validation", some, False)

    def networks(self, split: str) -> Networks:
        """The networks that code a split."""
        return networks_for(split, self.codec, self.world.device, self.config.precision)

    def counted(self, kinds: Kinds) -> Kinds:
        """The kinds, as often as they are among plain slices: samples shall look like these."""
        return kinds.counted(self.pooled[: len(self.pooled) // 2])

    # --- one step -----------------------------------------------------------------------------

    def step_generator(self) -> torch.Generator:
        """The generator of this step's draws."""
        return seeded_generator(self.config.seed, 4, self.step)

    def losses(self, batch: Tensor, following: Tensor | None, generator: torch.Generator) -> Tensor:
        """Bits per index: the mean over the levels, then each level."""
        size, levels = self.config.batch_size, self.config.prior.levels
        mirrored = torch.rand(size, generator=generator) < 0.5
        draws = torch.rand(size, levels, 2, generator=generator)
        chosen = send(self.own(batch + self.slices * mirrored), self.world.device)
        bits = self.step_module(
            self.indices[chosen].long(),
            self.kind_of_slice[chosen],
            send(self.own(draws), self.world.device),
            None if self.expected is None else self.expected[chosen],
            None if self.level_weights is None else self.level_weights[chosen],
        )
        return torch.cat([bits.mean()[None], bits])

    def learn(self, generator: torch.Generator) -> None:
        """Do nothing: everything learns by gradients."""

    # --- the end of an epoch ------------------------------------------------------------------

    def epoch_report(self, means: list[float], images_per_second: float) -> PriorEpoch:
        """Bits per index; for validation slices, by the integers that the model file gets."""
        epoch = self.step // self.steps_per_epoch
        validation = self.validate() if self.validates(epoch) else []
        return PriorEpoch(epoch, means[0], means[1:], images_per_second, validation)

    def validates(self, epoch: int) -> bool:
        """Whether this epoch ends a tenth of the training, and there is a validation split."""
        return self.validation is not None and is_tenth(epoch, self.config.epochs)

    def expect(self, pace: Pace) -> None:
        """Estimate the time of a validation from a trial, so that the time left is known at once."""
        if self.validation is not None:
            self.seconds_between = pace.coding * len(self.validation.indices) / self.world.size

    def validate(self) -> list[float]:
        """Bits per index of each level, over evenly spaced validation slices."""
        assert self.validation is not None
        own = slice(self.world.rank, None, self.world.size)
        kinds = self.kinds.nearest(self.validation.pooled)[own].cpu().numpy()
        indices = self.validation.indices[own].cpu().numpy().astype(np.uint16)
        given = self.validation.expected
        expected = None if given is None else given[own].cpu().numpy()
        bits = bits_of_levels(self.network.prior(self.kinds), indices, kinds, expected)
        sums = torch.from_numpy(bits).float().to(self.world.device)
        self.world.sum_(sums)
        count = self.validation.indices[:, 0].numel()
        return [float(each) / count for each in sums]

    # --- state --------------------------------------------------------------------------------

    def extra_tensors(self) -> dict[str, Tensor]:
        """The kinds of slices."""
        return {"kinds.centres": self.kinds.centres, "kinds.counts": self.kinds.counts}

    def start_from(self, checkpoint: Checkpoint, name: str) -> None:
        """Take over the weights and the kinds of another training's prior; `name` is for messages.

        Raises:
            ModelError: the checkpoint does not hold the state of such a prior.
        """
        try:
            with torch.no_grad():
                for key, tensor in self.weights().items():
                    tensor.copy_(checkpoint.tensors[key])
        except (KeyError, RuntimeError) as error:
            raise ModelError(
                f"{name}: not the state of a prior of this shape; name the run folder of another prior, "
                "or leave out --start-from"
            ) from error
        self.kinds = self.counted(self.kinds)
        self.kind_of_slice = self.kinds.nearest(self.pooled)

    def resume(self, checkpoint: Checkpoint) -> None:
        """Continue from the run folder's checkpoint, see `Loop.resume`."""
        super().resume(checkpoint)
        self.kind_of_slice = self.kinds.nearest(self.pooled)

    def prepare_model(self) -> None:
        """Do nothing: the network is usable at any step."""

    def write_model(self) -> None:
        """Write the file of the codec with the prior added."""
        prior = self.network.prior(self.kinds)
        card = self.codec.card | {"prior": self.card() | {"codec": self.codec.fingerprint.hex()}}
        card["finished"] = self.is_last and is_whole(card)
        write_model(self.codec.with_prior(prior, card), self.run / MODEL_FILE)

    def base(self) -> ModelFile:
        """The codec."""
        return self.codec

    def own_settings(self) -> dict[str, Any]:
        """The config, and the codec whose indices the prior learns."""
        fields = dataclasses.asdict(self.config) | {"prior": config_to_dict(self.config.prior)}
        return fields | {"codec": self.codec.fingerprint.hex()}


def bits_of_levels(
    prior: Prior,
    grids: NDArray[np.uint16],
    kinds: NDArray[np.integer],
    expected: NDArray[np.integer] | None = None,
) -> NDArray[np.float64]:
    """The cost in bits of each level of indices (n, L, h, w), by a prior: (L,).

    Args:
        prior: that predicts them.
        grids: the indices.
        kinds: (n,) kind of each slice.
        expected: (n, h, w, D) expected latents in steps of features, for a prior that sees them.
    """
    bits = np.zeros(grids.shape[1])

    def given(step: Pass, frequencies: Frequencies) -> NDArray[np.uint16]:
        chosen = grids[part, step.level][:, step.rows, step.columns]
        shares = np.take_along_axis(frequencies, chosen[..., None].astype(np.int64), -1) + 1
        bits[step.level] += (FREQUENCY_BITS - np.log2(shares)).sum()
        return chosen

    for start in range(0, len(grids), 16):
        part = slice(start, start + 16)
        latents = None if expected is None else expected[part] * (LATENT_UNITS / FEATURE_UNITS)
        prior.walk((len(grids[part]), *grids.shape[1:]), kinds[part], given, latents)
    return bits
