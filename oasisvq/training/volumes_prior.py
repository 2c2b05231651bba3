"""The training of the prior of volumes, which sees the latents expected from the previous slice."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from oasisvq.codec.modelfile import ModelFile, write_model
from oasisvq.codec.pixels import centred_window
from oasisvq.data.batches import SliceBatches, seeded_generator
from oasisvq.data.dataset import Dataset
from oasisvq.files import MODEL_FILE
from oasisvq.training.distributed import World
from oasisvq.training.loop import is_whole
from oasisvq.training.prior_grids import Grids, grids_in_turn, joined
from oasisvq.training.prior_training import VALIDATION_SLICES, PriorTraining, PriorTrainingConfig
from oasisvq.training.quantizer import ResidualQuantizer
from oasisvq.training.reports import Reporter
from oasisvq.training.slices_beside import OwnRanges, sequences
from oasisvq.training.timetable import Progress
from oasisvq.training.volumes_training import slices_in_volumes, validation_sequences

CHECKPOINT_FILE = "volumes-prior-checkpoint.safetensors"


class VolumesPriorTraining(PriorTraining):
    """The training of a prior for a model's codec of volumes, in one process."""

    what = "volumes prior"
    checkpoint_file = CHECKPOINT_FILE

    def __init__(
        self,
        dataset: Dataset,
        config: PriorTrainingConfig,
        run: Path,
        world: World,
        reporter: Reporter,
        file: ModelFile,
        tell: Callable[[str], None] = lambda message: None,
    ) -> None:
        """Set up the training for a model that has a codec of volumes."""
        assert file.volumes is not None
        self.file = file
        codec = file.volumes.with_prior(None, {})
        slices = len(slices_in_volumes(dataset))
        super().__init__(dataset, config, run, world, reporter, codec, tell, slices)

    def grids(
        self, quantizer: ResidualQuantizer, tell: Callable[[str], None]
    ) -> tuple[Grids, Grids | None]:
        """The grids of training slices with a neighbour, plain and then mirrored; validation grids.

        The latter are of some slices, in short sequences; they are None without a validation split.
        """
        dataset, config = self.dataset, self.codec.config
        own = -(-2 * self.slices // self.world.size)
        progress = Progress(tell, "coding volumes", own, "slices")
        window = centred_window((dataset.size, dataset.size), config.window, config.stride)

        def grids_of(split: str, parts: list[Tensor], mirrored: bool) -> Grids:
            array = dataset.array(split)
            batches = SliceBatches(array, window, config.stride, self.world.device)
            source, advance = OwnRanges(batches, array), progress.advance
            kept = torch.full((len(parts),), config.levels)
            if split == "train":  # the number of levels varies from sequence to sequence
                kept = (torch.arange(len(parts)) + mirrored) % config.levels + 1
            networks = self.networks(split)
            return grids_in_turn(
                networks, quantizer, source, parts, kept, window, self.world, mirrored, advance
            )

        parts = [part for part in sequences(dataset.splits["train"].records) if len(part) > 1]
        training = joined([grids_of("train", parts, mirrored) for mirrored in (False, True)])
        if "validation" not in dataset.splits:
            return training, None
        return training, grids_of("validation", validation_sequences(dataset, VALIDATION_SLICES), False)

    def step_generator(self) -> torch.Generator:
        """The generator of this step's draws."""
        return seeded_generator(self.config.seed, 9, self.step)

    def write_model(self) -> None:
        """Write the model with the prior added to its codec of volumes."""
        volumes = self.codec.with_prior(self.network.prior(self.kinds), {})
        card = self.file.card | {"volumes": self.file.card.get("volumes", {}) | {"prior": self.card()}}
        card["finished"] = self.is_last and is_whole(card)
        write_model(self.file.with_volumes(volumes, card), self.run / MODEL_FILE)

    def base(self) -> ModelFile:
        """The model."""
        return self.file

    def own_settings(self) -> dict[str, Any]:
        """The config, and the model whose codec of volumes the prior is for."""
        base = self.file.with_volumes(self.codec, {})
        return super().own_settings() | {"model": base.fingerprint.hex()}
