"""What a training will do beyond the stage that runs, and how long that may take."""

import dataclasses

import torch

from oasisvq.codec.config import ModelConfig
from oasisvq.data.dataset import Dataset
from oasisvq.training.codec_step import TrainingConfig
from oasisvq.training.codec_training import VALIDATION_SHARE, Training, seconds_of_steps
from oasisvq.training.distributed import World
from oasisvq.training.loop import steps_per_epoch
from oasisvq.training.presets import prior_config, volumes_config
from oasisvq.training.prior_training import (
    VALIDATION_SLICES,
    PriorTrainingConfig,
    fitting_batch_size,
    rehearse,
)
from oasisvq.training.request import Following
from oasisvq.training.residue_stage import rehearse as rehearse_residue
from oasisvq.training.residue_stage import residue_training_config
from oasisvq.training.residue_training import DECODED_SLICES, ResidueTrainingConfig
from oasisvq.training.residue_training import VALIDATION_SLICES as RESIDUE_VALIDATION_SLICES
from oasisvq.training.timetable import VALIDATIONS, scored_slices
from oasisvq.training.volumes_training import slices_in_volumes

PRIOR_BATCH_SIZE = 32
PRIOR_LEARNING_RATE = 2e-3
VOLUMES_BATCH_SIZE = 16
VOLUMES_LEARNING_RATE = 6e-4
VOLUMES_MSE = 40.0  # given the previous slice, SSIM is high, and mainly large errors remain
VOLUMES_TRIED = 4  # slices, for an estimate
CODED_SHARE = 0.5  # of a step: two passes of the encoder and one of the decoder
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
    """How the prior for a codec is trained; with `batch_size` None, it is chosen to fit the data.

    Raises:
        TrainingError: the batch size does not fit the data or the number of processes.
    """
    slices = len(dataset.splits["train"].records)
    if batch_size is None:
        batch_size = fitting_batch_size(slices, PRIOR_BATCH_SIZE)
        batch_size = max(1, batch_size // world.size) * world.size
    config = PriorTrainingConfig(
        prior_config(codec), epochs, batch_size, PRIOR_LEARNING_RATE, seed, precision
    )
    steps_per_epoch(dataset, config, world, slices, "--prior-batch-size")
    return config


def volumes_training_config(
    codec: ModelConfig, planned: Following, dataset: Dataset, world: World, seed: int, precision: str
) -> TrainingConfig:
    """How the codec of volumes that goes with one of images is trained."""
    slices = len(slices_in_volumes(dataset))
    return TrainingConfig(
        model=volumes_config(codec),
        epochs=planned.volumes_epochs,
        batch_size=max(1, min(VOLUMES_BATCH_SIZE, slices) // world.size) * world.size,
        learning_rate=VOLUMES_LEARNING_RATE,
        seed=seed,
        precision=precision,
        mse=VOLUMES_MSE,
        following=dataclasses.replace(planned, volumes_epochs=0),
    )


def volumes_prior_config(
    volumes: ModelConfig, planned: Following, dataset: Dataset, world: World, seed: int, precision: str
) -> PriorTrainingConfig:
    """How the prior for a codec of volumes is trained."""
    config = prior_training_config(
        volumes, dataset, world, planned.prior_epochs, seed, precision, planned.prior_batch_size
    )
    slices = len(slices_in_volumes(dataset)) // world.size * world.size
    return dataclasses.replace(config, batch_size=min(config.batch_size, slices), following=planned)


def seconds_after_codec(training: Training, planned: Following) -> float:
    """Seconds of everything after the codec's training, by trials: indices, prior, residue, scoring."""
    config, world, dataset = training.config, training.world, training.dataset
    of_slice, scored = training.rehearse(), scored_slices(training.dataset)
    seconds = SCORED * of_slice * scored
    if planned.residue_epochs:
        codecs = 2 if planned.volumes_epochs else 1
        seconds += of_slice * codecs * min(DECODED_SLICES, training.slices) / world.size
    if planned.prior_epochs:
        prior = prior_training_config(
            config.model,
            dataset,
            world,
            planned.prior_epochs,
            config.seed,
            config.precision,
            planned.prior_batch_size,
        )
        seconds += of_slice * 2 * training.slices / world.size
        kept = config.model.default_levels / config.model.levels
        seconds += seconds_of_prior(prior, training.slices, dataset, world, SCORED * scored * kept)
    return seconds + seconds_of_following(
        config.model, planned, dataset, world, config.seed, config.precision
    )


def seconds_of_prior(
    config: PriorTrainingConfig, slices: int, dataset: Dataset, world: World, coded: float = 0.0
) -> float:
    """Seconds to train a prior on `slices` slices and to code `coded` slices, by a trial."""
    pace = rehearse(config, world.device)
    coded += min(VALIDATION_SLICES, scored_slices(dataset)) * min(VALIDATIONS, config.epochs)
    return (pace.step * config.epochs * slices + pace.coding * coded) / world.size


def seconds_of_following(
    codec: ModelConfig, planned: Following, dataset: Dataset, world: World, seed: int, precision: str
) -> float:
    """Seconds of the stages after a codec and its prior, by trials."""
    seconds = 0.0
    if planned.volumes_epochs:
        volumes = volumes_training_config(codec, planned, dataset, world, seed, precision)
        seconds += seconds_of_volumes(volumes, dataset, world)
        seconds += seconds_of_volumes_prior(volumes, planned, dataset, world)
    if planned.residue_epochs:
        epochs = planned.residue_epochs
        residue = residue_training_config(codec, dataset, world, epochs, seed, precision)
        seconds += seconds_of_residue(residue, codec.window, dataset, world)
    return seconds


def seconds_of_volumes(config: TrainingConfig, dataset: Dataset, world: World) -> float:
    """Seconds of the training of a codec of volumes, by a trial."""
    slices = len(slices_in_volumes(dataset))
    pixels = torch.rand(VOLUMES_TRIED, 1, *config.model.window).to(world.device)
    plain, imitating = seconds_of_steps(config, world, pixels, pixels)
    share = config.imitating_from
    of_slice = (share * plain + (1 - share) * imitating) / VOLUMES_TRIED
    return of_slice * slices * config.epochs * (1 + VALIDATION_SHARE) / world.size


def seconds_of_volumes_prior(
    volumes: TrainingConfig, planned: Following, dataset: Dataset, world: World
) -> float:
    """Seconds of the training of the prior of volumes and of the coding before it, by trials."""
    if not planned.prior_epochs:
        return 0.0
    config = volumes_prior_config(
        volumes.model, planned, dataset, world, volumes.seed, volumes.precision
    )
    slices = len(slices_in_volumes(dataset))
    pixels = torch.rand(VOLUMES_TRIED, 1, *volumes.model.window).to(world.device)
    plain, _ = seconds_of_steps(volumes, world, pixels, pixels)
    coding = CODED_SHARE * plain / VOLUMES_TRIED * 2 * slices / world.size
    return coding + seconds_of_prior(config, slices, dataset, world)


def seconds_of_residue(
    config: ResidueTrainingConfig, window: tuple[int, int], dataset: Dataset, world: World
) -> float:
    """Seconds of the training of the networks of residues, by a trial."""
    pace = rehearse_residue(config, window, world.device)
    slices = len(dataset.splits["train"].records)
    validated = min(RESIDUE_VALIDATION_SLICES, scored_slices(dataset))
    coded = validated * min(VALIDATIONS, config.epochs)
    return (pace.step * slices * config.epochs + pace.coding * coded) / world.size


def what_follows(training: Training, planned: Following) -> str:
    """What is about to happen, in one line."""
    config = training.config
    parts = [f"training the codec: {config.epochs} epochs of {training.steps_per_epoch} steps"]
    if training.validated:
        parts.append(f"each validated on {training.validated} slices")
    if planned.prior_epochs:
        parts.append(f"then {planned.prior_epochs} epochs of the prior")
    if planned.volumes_epochs:
        parts.append(f"{planned.volumes_epochs} of the codec of volumes")
    if planned.residue_epochs:
        parts.append(f"{planned.residue_epochs} of the networks of residues")
    if training.validation is not None:
        parts.append("then the scores of the validation split")
    return ", ".join(parts)
