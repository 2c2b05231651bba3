"""The stage of a training that gives a codec its prior."""

import dataclasses

from oasisvq.codec.config import part_config_from_dict
from oasisvq.codec.modelfile import ModelFile, read_model
from oasisvq.codec.prior import PriorConfig
from oasisvq.data.dataset import Dataset
from oasisvq.data.layouts import Images
from oasisvq.errors import TrainingError
from oasisvq.files import MODEL_FILE
from oasisvq.training.checkpoint import Checkpoint, load_checkpoint
from oasisvq.training.hardware import naming_the_batch
from oasisvq.training.loop import card_without
from oasisvq.training.plan import prior_training_config, seconds_of_following, volumes_prior_config
from oasisvq.training.prior_training import (
    CHECKPOINT_FILE,
    PriorTraining,
    PriorTrainingConfig,
    rehearse,
    starting_from,
)
from oasisvq.training.request import Following
from oasisvq.training.residue_training import CHECKPOINT_FILE as RESIDUE_CHECKPOINT_FILE
from oasisvq.training.run_folder import saying_how_to_start_anew
from oasisvq.training.session import Ran, Session
from oasisvq.training.timetable import seconds_of_scoring
from oasisvq.training.volumes_prior import CHECKPOINT_FILE as VOLUMES_PRIOR_CHECKPOINT_FILE
from oasisvq.training.volumes_prior import VolumesPriorTraining
from oasisvq.training.volumes_training import CHECKPOINT_FILE as VOLUMES_CHECKPOINT_FILE
from oasisvq.training.volumes_training import VolumesTraining


def start(session: Session) -> Ran:
    """Train a prior for an existing codec."""
    request = session.request
    codec, dataset = session.given_codec()
    preset = session.asked()
    config = prior_training_config(
        codec.config,
        dataset,
        session.world,
        preset.prior_epochs,
        request.seed or 0,
        session.precision,
        preset.prior_batch_size,
    )
    source: Checkpoint | None = None
    if request.start_from:
        if request.start_from.is_file():  # a model file holds a prior's integers, not its weights
            raise TrainingError(f"{request.start_from}: a file; expected a run folder with a prior")
        source = load_checkpoint(request.start_from / CHECKPOINT_FILE)
        config = starting_from(config, source, str(request.start_from))
    session.forget(VOLUMES_CHECKPOINT_FILE, VOLUMES_PRIOR_CHECKPOINT_FILE, RESIDUE_CHECKPOINT_FILE)
    return _train(session, dataset, codec, config, None, source=source)


def follow(session: Session, ran: Ran) -> Ran | None:
    """Train the prior after its codec, if it is asked for."""
    planned = ran.planned
    if not planned.prior_epochs:
        return None
    file, dataset = read_model(ran.trained.model), ran.trained.dataset
    config = prior_training_config(
        file.config,
        dataset,
        session.world,
        planned.prior_epochs,
        ran.seed,
        ran.precision,
        planned.prior_batch_size,
    )
    config = dataclasses.replace(config, following=planned)
    return _train(session, dataset, file, config, None, ran.trained.metrics_bytes)


def follow_volumes(session: Session, ran: Ran) -> Ran | None:
    """Train the prior of volumes after the codec of volumes, if it is asked for."""
    planned = ran.planned
    if ran.trained.what != VolumesTraining.what or not planned.prior_epochs:
        return None
    file, dataset = read_model(ran.trained.model), ran.trained.dataset
    assert file.volumes is not None
    config = volumes_prior_config(
        file.volumes.config, planned, dataset, session.world, ran.seed, ran.precision
    )
    return _train(
        session, dataset, file, config, None, ran.trained.metrics_bytes, of=VolumesPriorTraining
    )


def resume(session: Session, checkpoint: Checkpoint) -> Ran:
    """Train the rest of a prior."""
    return _resume(session, checkpoint, PriorTraining)


def resume_volumes(session: Session, checkpoint: Checkpoint) -> Ran:
    """Train the rest of a prior of volumes."""
    return _resume(session, checkpoint, VolumesPriorTraining)


def _resume(session: Session, checkpoint: Checkpoint, of: type[PriorTraining]) -> Ran:
    run = session.request.run
    fields = {f.name for f in dataclasses.fields(PriorTrainingConfig)} - {"prior", "following"}
    with saying_how_to_start_anew(run / of.checkpoint_file):
        settings = checkpoint.progress["settings"]
        config = PriorTrainingConfig(
            prior=part_config_from_dict(PriorConfig, "prior", settings["prior"], str(run)),
            following=Following(**settings["following"]),
            **{name: settings[name] for name in fields},
        )
        images, size = Images(settings["images"]), int(settings["size"])
    dataset = session.open(images, size)
    return _train(session, dataset, read_model(run / MODEL_FILE), config, checkpoint, of=of)


def _train(
    session: Session,
    dataset: Dataset,
    file: ModelFile,
    config: PriorTrainingConfig,
    checkpoint: Checkpoint | None,
    metrics_bytes: int = 0,
    source: Checkpoint | None = None,
    of: type[PriorTraining] = PriorTraining,
) -> Ran:
    """Train a prior: resume `checkpoint`, or start from the weights in `source`, or from random ones.

    Earlier stages have left `metrics_bytes` bytes of metrics in the run folder, which are kept.
    """
    request, world = session.request, session.world
    codec = without(file) if of is PriorTraining else file
    session.tell("finding the indices of all training slices, plain and mirrored")
    with naming_the_batch(config.batch_size, "choose a smaller --prior-batch-size", world.device):
        training = of(dataset, config, request.run, world, session.reporter, codec, session.tell)
        pace = rehearse(config, world.device)
    training.expect(pace)
    planned = request.of(config.following)
    training.seconds_after = seconds_of_scoring(file, dataset)
    training.seconds_after += seconds_of_following(
        file.config, planned, dataset, world, config.seed, config.precision
    )
    training.metrics.length = metrics_bytes
    training.is_last = not planned.volumes_epochs
    if source is not None:
        training.start_from(source, str(request.start_from))
        session.tell(f"starting from the prior of {request.start_from}")
    epochs, steps = training.loop_config.epochs, training.steps_per_epoch
    session.tell(f"training the {training.what}: {epochs} epochs of {steps} steps")
    with naming_the_batch(config.batch_size, "choose a smaller --prior-batch-size", world.device):
        finished = session.run(training, checkpoint)
    return Ran(session.trained(training, finished), planned, config.seed, config.precision)


def without(file: ModelFile) -> ModelFile:
    """The model without its prior."""
    return file.with_prior(None, card_without(file.card, "prior"))


def without_volumes_prior(file: ModelFile) -> ModelFile:
    """The model without the prior of its codec of volumes."""
    if file.volumes is None:
        return file
    card = file.card | {"volumes": card_without(file.card.get("volumes", {}), "prior")}
    return file.with_volumes(file.volumes.with_prior(None, {}), card)
