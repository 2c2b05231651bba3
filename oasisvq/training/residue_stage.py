"""The stage of a training that gives a codec the networks of residues: how it is set up, and its run."""

import dataclasses
from pathlib import Path
from typing import Protocol

from oasisvq.codec.config import ModelConfig, part_config_from_dict
from oasisvq.codec.modelfile import ModelFile
from oasisvq.codec.residue_config import ResidueConfig, SupportConfig
from oasisvq.data.dataset import Dataset
from oasisvq.data.layouts import Images
from oasisvq.training.checkpoint import Checkpoint
from oasisvq.training.distributed import World
from oasisvq.training.loop import Loop
from oasisvq.training.reports import Reporter
from oasisvq.training.residue_training import ResidueTraining, ResidueTrainingConfig

BATCH_SIZE = 16
LEARNING_RATE = 1.5e-3
REACH = (5, 4, 4)  # by kind of pass
WINDOW = 2


class Session(Protocol):
    """What a stage needs of the training that it belongs to."""

    @property
    def world(self) -> World:
        """The processes."""

    @property
    def reporter(self) -> Reporter:
        """Who is told how it goes."""

    def tell(self, message: str, /) -> None:
        """Say something to a person."""

    def run(self, loop: Loop, checkpoint: Checkpoint | None) -> bool:
        """One stage to its end; False where it was stopped."""


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
    """The network of the support for a codec."""
    hidden = 2 * config.code_dim, config.code_dim
    return SupportConfig(reach=REACH, window=WINDOW, slices_before=1, hidden=hidden)


def residue_training_config(
    file: ModelFile, dataset: Dataset, world: World, epochs: int, seed: int, precision: str
) -> ResidueTrainingConfig:
    """How the networks of residues are trained for a codec."""
    slices = len(dataset.splits["train"].records) if "train" in dataset.splits else 0
    batch_size = max(1, min(BATCH_SIZE, slices) // world.size) * world.size
    residue, support = residue_config(file.config), support_config(file.config)
    return ResidueTrainingConfig(residue, support, epochs, batch_size, LEARNING_RATE, seed, precision)


def residue_settings(checkpoint: Checkpoint, run: Path) -> tuple[ResidueTrainingConfig, Images, int]:
    """How the training of a checkpoint was set up: its config, and what its dataset holds.

    Raises:
        KeyError, TypeError, ValueError: it does not say so.
        ModelError: a network's config is out of range.
    """
    settings = checkpoint.progress["settings"]
    fields = {f.name for f in dataclasses.fields(ResidueTrainingConfig)} - {"residue", "support"}
    config = ResidueTrainingConfig(
        residue=part_config_from_dict(ResidueConfig, "residue", settings["residue"], str(run)),
        support=part_config_from_dict(SupportConfig, "support", settings["support"], str(run)),
        **{name: settings[name] for name in fields},
    )
    return config, Images(settings["images"]), int(settings["size"])


def run_residue(
    session: Session,
    run: Path,
    dataset: Dataset,
    file: ModelFile,
    config: ResidueTrainingConfig,
    checkpoint: Checkpoint | None = None,
    metrics_bytes: int = 0,
) -> tuple[ResidueTraining, bool]:
    """Train them, after `metrics_bytes` of the metrics that the stages before left in the run folder.

    Returns:
        The training, and whether it reached its end.
    """
    card = {key: entry for key, entry in file.card.items() if key != "residue"}
    codec = file.with_residue(None, None, card)
    session.tell("decoding training slices, to learn what they are beside their images")
    training = ResidueTraining(dataset, config, run, session.world, session.reporter, codec)
    training.metrics.length = metrics_bytes
    return training, session.run(training, checkpoint)
