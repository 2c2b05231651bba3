"""What a training will do beyond the stage that runs, and how long that may take."""

import numpy as np
import torch

from oasisvq.codec.codec import Codec
from oasisvq.codec.config import ModelConfig
from oasisvq.codec.modelfile import ModelFile
from oasisvq.data.dataset import Dataset
from oasisvq.training.codec_training import Training
from oasisvq.training.distributed import World
from oasisvq.training.presets import prior_config
from oasisvq.training.prior_training import (
    VALIDATION_SLICES,
    PriorTrainingConfig,
    fitting_batch_size,
    rehearse,
)
from oasisvq.training.residue_stage import rehearse as rehearse_residue
from oasisvq.training.residue_stage import residue_training_config
from oasisvq.training.residue_training import DECODED_SLICES, ResidueTrainingConfig
from oasisvq.training.residue_training import VALIDATION_SLICES as RESIDUE_VALIDATION_SLICES
from oasisvq.training.timetable import VALIDATIONS, seconds_of

PRIOR_BATCH_SIZE = 32
PRIOR_LEARNING_RATE = 2e-3
SCORED = 2  # a slice that is scored is encoded and decoded


def prior_training_config(
    codec: ModelConfig,
    dataset: Dataset,
    world: World,
    epochs: int,
    seed: int,
    precision: str,
    batch_size: int | None,
) -> PriorTrainingConfig:
    """How the prior for a codec is trained; `batch_size` None is what fits the data."""
    slices = len(dataset.splits["train"].records) if "train" in dataset.splits else 0
    if batch_size is None:
        batch_size = fitting_batch_size(slices, PRIOR_BATCH_SIZE)
        batch_size = max(1, batch_size // world.size) * world.size
    return PriorTrainingConfig(
        prior_config(codec), epochs, batch_size, PRIOR_LEARNING_RATE, seed, precision
    )


def scored_slices(dataset: Dataset) -> int:
    """Slices of the validation split, all of which are scored in the end."""
    split = dataset.splits.get("validation")
    return len(split.records) if split else 0


def seconds_of_scoring(file: ModelFile, dataset: Dataset) -> float:
    """Seconds of the scores of the validation split, by a trial; none without a split."""
    scored = scored_slices(dataset)
    if not scored:
        return 0.0
    codec, plane = Codec(file.with_prior(None, file.card)), np.asarray(dataset.array("validation")[0])
    return scored * seconds_of(lambda: codec.decode(codec.encode(plane)), torch.device("cpu"))


def seconds_after_codec(training: Training) -> float:
    """Seconds of what follows the codec's training, by trials: indices, prior, residue, scoring."""
    config, world, dataset = training.config, training.world, training.dataset
    of_slice = training.rehearse()
    scored = scored_slices(dataset)
    seconds = SCORED * of_slice * scored
    if config.residue_epochs:
        residue = residue_training_config(
            config.model, dataset, world, config.residue_epochs, config.seed, config.precision
        )
        seconds += seconds_of_residue(residue, config.model.window, dataset, world)
        seconds += of_slice * min(DECODED_SLICES, training.slices) / world.size
    if not config.prior_epochs:
        return seconds
    prior = prior_training_config(
        config.model,
        dataset,
        world,
        config.prior_epochs,
        config.seed,
        config.precision,
        config.prior_batch_size,
    )
    pace = rehearse(prior, world.device)
    slices = training.slices
    coded: float = min(VALIDATION_SLICES, scored) * min(VALIDATIONS, prior.epochs)
    coded += SCORED * scored * config.model.default_levels / config.model.levels
    return (
        seconds
        + (of_slice * 2 * slices + pace.step * prior.epochs * slices + pace.coding * coded) / world.size
    )


def seconds_of_residue(
    config: ResidueTrainingConfig, window: tuple[int, int], dataset: Dataset, world: World
) -> float:
    """Seconds of the training of the networks of residues, by a trial."""
    pace = rehearse_residue(config, window, world.device)
    slices = len(dataset.splits["train"].records)
    validated = min(RESIDUE_VALIDATION_SLICES, scored_slices(dataset))
    coded = validated * min(VALIDATIONS, config.epochs)
    return (pace.step * slices * config.epochs + pace.coding * coded) / world.size


def what_follows(training: Training) -> str:
    """What is about to happen, in a line."""
    config = training.config
    parts = [f"training the codec: {config.epochs} epochs of {training.steps_per_epoch} steps"]
    if training.validated:
        parts.append(f"each validated on {training.validated} slices")
    if config.prior_epochs:
        parts.append(f"then {config.prior_epochs} epochs of the prior")
    if config.residue_epochs:
        parts.append(f"{config.residue_epochs} of the networks of residues")
    if training.validation is not None:
        parts.append("then the scores of the validation split")
    return ", ".join(parts)
