"""The stage of a training that gives a model a codec of volumes."""

from oasisvq.codec.modelfile import ModelFile, read_model
from oasisvq.data.dataset import Dataset
from oasisvq.errors import TrainingError
from oasisvq.files import MODEL_FILE
from oasisvq.training.checkpoint import Checkpoint
from oasisvq.training.codec_stage import training_settings
from oasisvq.training.codec_step import TrainingConfig
from oasisvq.training.hardware import choose_compiling, naming_the_batch
from oasisvq.training.loop import card_without
from oasisvq.training.plan import (
    seconds_of_following,
    seconds_of_volumes_prior,
    volumes_training_config,
)
from oasisvq.training.request import Following
from oasisvq.training.residue_training import CHECKPOINT_FILE as RESIDUE_CHECKPOINT_FILE
from oasisvq.training.session import Ran, Session
from oasisvq.training.timetable import seconds_of_scoring
from oasisvq.training.volumes_prior import CHECKPOINT_FILE as PRIOR_CHECKPOINT_FILE
from oasisvq.training.volumes_training import CHECKPOINT_FILE, VolumesTraining, slices_in_volumes

WAY_OUT = "train with --no-volumes, or on another device"


def start(session: Session) -> Ran:
    """Train a codec of volumes for an existing model.

    Raises:
        TrainingError: no training slice has a neighbour, or the preset has no codec of volumes.
    """
    request = session.request
    file, dataset = session.given_codec()
    if not len(slices_in_volumes(dataset)):
        raise TrainingError(
            f"{dataset.folder}: no training slice has a neighbour in its volume; expected slices that "
            "follow one another"
        )
    preset = session.asked()
    planned = request.of(Following(preset.prior_epochs, preset.prior_batch_size, preset.volumes_epochs))
    if not planned.volumes_epochs:
        raise TrainingError("this preset has no codec of volumes; pass --volumes-epochs")
    config = volumes_training_config(
        file.config, planned, dataset, session.world, request.seed or 0, session.precision
    )
    session.forget(PRIOR_CHECKPOINT_FILE, RESIDUE_CHECKPOINT_FILE)
    return _train(session, dataset, file, config, None)


def follow(session: Session, ran: Ran) -> Ran | None:
    """Train a codec of volumes after the codec of images and its prior, if it is asked for."""
    if not ran.planned.volumes_epochs:
        return None
    file, dataset = read_model(ran.trained.model), ran.trained.dataset
    config = volumes_training_config(
        file.config, ran.planned, dataset, session.world, ran.seed, ran.precision
    )
    return _train(session, dataset, file, config, None, ran.trained.metrics_bytes)


def resume(session: Session, checkpoint: Checkpoint) -> Ran:
    """Train the rest of a codec of volumes."""
    run = session.request.run
    config, images, size = training_settings(checkpoint, run / CHECKPOINT_FILE)
    dataset = session.open(images, size)
    return _train(session, dataset, read_model(run / MODEL_FILE), config, checkpoint)


def _train(
    session: Session,
    dataset: Dataset,
    file: ModelFile,
    config: TrainingConfig,
    checkpoint: Checkpoint | None,
    metrics_bytes: int = 0,
) -> Ran:
    """Train a codec of volumes, or resume from `checkpoint`.

    Earlier stages have left `metrics_bytes` bytes of metrics in the run folder, which are kept.
    """
    request, world = session.request, session.world
    base = without(file)
    planned = request.of(config.following)
    with naming_the_batch(config.batch_size, WAY_OUT, world.device):
        training = VolumesTraining(dataset, config, request.run, world, session.reporter, base)
        if choose_compiling(request.compiled, world.device):
            training.compile(session.tell, required=bool(request.compiled))
        training.rehearse()
    training.seconds_after = seconds_of_scoring(file, dataset)
    training.seconds_after += seconds_of_following(
        file.config, planned, dataset, world, config.seed, config.precision
    )
    training.seconds_after += seconds_of_volumes_prior(config, planned, dataset, world)
    training.metrics.length = metrics_bytes
    training.is_last = not planned.prior_epochs
    session.tell(
        f"training the codec of volumes: {config.epochs} epochs of {training.steps_per_epoch} steps, on "
        f"{training.slices:,} slices that have a neighbour"
    )
    with naming_the_batch(config.batch_size, WAY_OUT, world.device):
        finished = session.run(training, checkpoint)
    return Ran(session.trained(training, finished), planned, config.seed, config.precision)


def without(file: ModelFile) -> ModelFile:
    """The model without its codec of volumes."""
    return file.with_volumes(None, card_without(file.card, "volumes"))
