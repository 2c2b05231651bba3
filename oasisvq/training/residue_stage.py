"""The stage of a training that gives a codec the networks of residues: how it is set up, and its run."""

import dataclasses
from pathlib import Path

import numpy as np
import torch

from oasisvq.codec.config import ModelConfig, part_config_from_dict
from oasisvq.codec.modelfile import ModelFile, read_model
from oasisvq.codec.residue_config import ResidueConfig, SupportConfig
from oasisvq.data.dataset import Dataset
from oasisvq.data.layouts import Images
from oasisvq.files import MODEL_FILE
from oasisvq.training.checkpoint import Checkpoint
from oasisvq.training.distributed import World
from oasisvq.training.hardware import naming_the_batch
from oasisvq.training.loop import card_without
from oasisvq.training.request import NOTHING_FOLLOWS
from oasisvq.training.residue_drawing import Drawn, draw_looks, in_bins
from oasisvq.training.residue_training import (
    CHECKPOINT_FILE,
    FAR,
    NEAR,
    PLACES,
    VALIDATION_BOUNDS,
    ResidueStep,
    ResidueTraining,
    ResidueTrainingConfig,
    new_networks,
)
from oasisvq.training.run_folder import saying_how_to_start_anew
from oasisvq.training.session import Ran, Session
from oasisvq.training.timetable import Pace, seconds_of, seconds_of_scoring

BATCH_SIZE = 16
LEARNING_RATE = 1.5e-3
REACH = (5, 4, 4)  # by kind of pass
WINDOW = 2
TRIED = 4  # slices, for an estimate
WAY_OUT = "the model in the run folder is whole without residues; train these on another device"


def residue_config(config: ModelConfig) -> ResidueConfig:
    """The network of the residue for a codec: small codecs get a small one."""
    return ResidueConfig(
        reach=REACH,
        window=WINDOW,
        slices_before=2,
        hidden=4 * config.code_dim,
        blocks=2,
        components=3,
    )


def support_config(config: ModelConfig) -> SupportConfig:
    """The network of the support for a codec: it runs at few places only, so it may be large."""
    hidden = 4 * config.code_dim, 2 * config.code_dim
    return SupportConfig(reach=REACH, window=WINDOW, slices_before=2, hidden=hidden)


def residue_training_config(
    codec: ModelConfig, dataset: Dataset, world: World, epochs: int, seed: int, precision: str
) -> ResidueTrainingConfig:
    """How the networks of residues are trained for a codec."""
    slices = len(dataset.splits["train"].records)
    batch_size = max(1, min(BATCH_SIZE, slices) // world.size) * world.size
    residue, support = residue_config(codec), support_config(codec)
    return ResidueTrainingConfig(residue, support, epochs, batch_size, LEARNING_RATE, seed, precision)


def residue_settings(checkpoint: Checkpoint, run: Path) -> tuple[ResidueTrainingConfig, Images, int]:
    """How the training of a checkpoint was set up: its config, and the images and size of its dataset.

    Raises:
        ModelError: the checkpoint does not tell, or a network's config is out of range.
    """
    fields = {f.name for f in dataclasses.fields(ResidueTrainingConfig)} - {"residue", "support"}
    with saying_how_to_start_anew(run / CHECKPOINT_FILE):
        settings = checkpoint.progress["settings"]
        config = ResidueTrainingConfig(
            residue=part_config_from_dict(ResidueConfig, "residue", settings["residue"], str(run)),
            support=part_config_from_dict(SupportConfig, "support", settings["support"], str(run)),
            **{name: settings[name] for name in fields},
        )
        return config, Images(settings["images"]), int(settings["size"])


def start(session: Session) -> Ran:
    """Train networks of residues for an existing codec."""
    codec, dataset = session.given_codec()
    config = residue_training_config(
        codec.config,
        dataset,
        session.world,
        session.asked().residue_epochs,
        session.request.seed or 0,
        session.precision,
    )
    session.forget()
    return _train(session, dataset, codec, config, None)


def follow(session: Session, ran: Ran) -> Ran | None:
    """Train networks of residues after everything else, if they are asked for."""
    epochs = ran.planned.residue_epochs
    if not epochs:
        return None
    file, dataset = read_model(ran.trained.model), ran.trained.dataset
    config = residue_training_config(
        file.config, dataset, session.world, epochs, ran.seed, ran.precision
    )
    return _train(session, dataset, file, config, None, ran.trained.metrics_bytes)


def resume(session: Session, checkpoint: Checkpoint) -> Ran:
    """Train the rest of networks of residues."""
    run = session.request.run
    config, images, size = residue_settings(checkpoint, run)
    dataset = session.open(images, size)
    return _train(session, dataset, read_model(run / MODEL_FILE), config, checkpoint)


def _train(
    session: Session,
    dataset: Dataset,
    file: ModelFile,
    config: ResidueTrainingConfig,
    checkpoint: Checkpoint | None,
    metrics_bytes: int = 0,
) -> Ran:
    """Train them, after `metrics_bytes` of the metrics that the stages before left in the run folder."""
    codec = without(file)
    session.tell("decoding some training slices, beside which residues are learned")
    device = session.world.device
    with naming_the_batch(config.batch_size, WAY_OUT, device):
        training = ResidueTraining(
            dataset, config, session.request.run, session.world, session.reporter, codec, session.tell
        )
        training.expect(rehearse(config, file.config.window, device))
    training.metrics.length = metrics_bytes
    training.seconds_after = seconds_of_scoring(file, dataset)
    session.tell(
        f"training the networks of residues: {config.epochs} epochs of {training.steps_per_epoch} steps"
    )
    with naming_the_batch(config.batch_size, WAY_OUT, device):
        finished = session.run(training, checkpoint)
    return Ran(session.trained(training, finished), NOTHING_FOLLOWS, config.seed, config.precision)


def without(file: ModelFile) -> ModelFile:
    """The model without the networks."""
    return file.with_residue(None, None, card_without(file.card, "residue"))


def rehearse(config: ResidueTrainingConfig, window: tuple[int, int], device: torch.device) -> Pace:
    """Try a step and a validation on drawn slices, with networks that are thrown away."""
    networks = new_networks(config.residue, config.support, config.seed).to(device)
    step = ResidueStep(networks, config.precision).to(device)
    generator = torch.Generator().manual_seed(config.seed)
    grey = torch.randint(256, (TRIED, *window), generator=generator).float().to(device)
    before = max(config.residue.slices_before, config.support.slices_before)
    ones = torch.ones(TRIED, before, device=device)
    drawn = Drawn(grey, grey, grey[:, None].expand(-1, before, -1, -1), ones[:, 0], ones)

    def learn() -> None:
        looks = draw_looks(TRIED, generator).to(device)
        slices = in_bins(drawn, looks)
        draws = torch.rand(TRIED, PLACES + NEAR + FAR, generator=generator).to(device)
        step(slices, looks, draws).sum().backward()

    residue, support = networks.integers()
    seen = np.zeros((PLACES, config.residue.inputs), np.float32)
    ground = np.zeros((NEAR + FAR, config.support.inputs), np.float32)

    def code() -> None:
        for _ in VALIDATION_BOUNDS:
            residue.seeing(np.ones(seen.shape[1], np.bool_))(seen)
        support(ground)

    return Pace(seconds_of(learn, device) / TRIED, seconds_of(code, device))
