"""The first stage of a training: the codec."""

import dataclasses
from pathlib import Path

from oasisvq.codec.config import config_from_dict
from oasisvq.codec.modelfile import ModelFile, read_model
from oasisvq.data.dataset import Dataset
from oasisvq.data.layouts import Images
from oasisvq.models import choose_model
from oasisvq.training.checkpoint import Checkpoint
from oasisvq.training.codec_step import TrainingConfig
from oasisvq.training.codec_training import CHECKPOINT_FILE, Training
from oasisvq.training.hardware import choose_compiling, naming_the_batch
from oasisvq.training.plan import seconds_after_codec, what_follows
from oasisvq.training.presets import Preset, model_config
from oasisvq.training.prior_training import CHECKPOINT_FILE as PRIOR_CHECKPOINT_FILE
from oasisvq.training.request import Following
from oasisvq.training.residue_training import CHECKPOINT_FILE as RESIDUE_CHECKPOINT_FILE
from oasisvq.training.run_folder import saying_how_to_start_anew
from oasisvq.training.session import Ran, Session
from oasisvq.training.volumes_prior import CHECKPOINT_FILE as VOLUMES_PRIOR_CHECKPOINT_FILE
from oasisvq.training.volumes_training import CHECKPOINT_FILE as VOLUMES_CHECKPOINT_FILE
from oasisvq.training.volumes_training import slices_in_volumes
from oasisvq.training.weights import build_model

LATER_CHECKPOINTS = (
    PRIOR_CHECKPOINT_FILE,
    VOLUMES_CHECKPOINT_FILE,
    VOLUMES_PRIOR_CHECKPOINT_FILE,
    RESIDUE_CHECKPOINT_FILE,
)


def start(session: Session) -> Ran:
    """Train a codec from random weights, or from those of another model."""
    request, source = session.request, None
    if request.start_from:
        source = read_model(choose_model(request.start_from, Path.cwd()).path)
    preset = session.preset()
    dataset = session.open(request.images or Images.SCANS, preset.size)
    if dataset.size != preset.size:
        side, expected = dataset.size, preset.size
        session.tell(f"dataset {request.named}: prepared at {side}×{side}, not {expected}×{expected}")
    levels = request.overrides.get("levels", preset.levels)
    default_levels = min(preset.default_levels, levels)
    preset = dataclasses.replace(preset, default_levels=default_levels, **request.overrides)
    config = TrainingConfig(
        model=model_config(preset, dataset),
        epochs=preset.epochs,
        batch_size=preset.batch_size,
        learning_rate=preset.learning_rate,
        seed=request.seed or 0,
        precision=session.precision,
        started_from=source.fingerprint.hex() if source else None,
        following=following(session, preset, dataset),
    )
    return _train(session, dataset, config, None, source)


def following(session: Session, preset: Preset, dataset: Dataset) -> Following:
    """The stages after the codec; segmentations need no residues, since labels are coded exactly."""
    request = session.request
    has_residue = dataset.images is not Images.SEGMENTATIONS
    volumes_epochs = preset.volumes_epochs if request.with_volumes else 0
    if volumes_epochs and not len(slices_in_volumes(dataset)):
        session.tell("no training slice has a neighbour in its volume: no codec of volumes")
        volumes_epochs = 0
    residue_epochs = preset.residue_epochs if has_residue else 0
    planned = Following(preset.prior_epochs, preset.prior_batch_size, volumes_epochs, residue_epochs)
    return request.of(planned)


def resume(session: Session, checkpoint: Checkpoint) -> Ran:
    """Train the rest of a codec."""
    config, images, size = training_settings(checkpoint, session.request.run / CHECKPOINT_FILE)
    return _train(session, session.open(images, size), config, checkpoint, None)


def training_settings(checkpoint: Checkpoint, path: Path) -> tuple[TrainingConfig, Images, int]:
    """How the training of a codec was set up: its config, and the images and size of its dataset.

    Raises:
        ModelError: the checkpoint does not tell.
    """
    fields = {f.name for f in dataclasses.fields(TrainingConfig)} - {"model", "following"}
    with saying_how_to_start_anew(path):
        settings = checkpoint.progress["settings"]
        config = TrainingConfig(
            model=config_from_dict(settings["model"], str(path.parent)),
            following=Following(**settings["following"]),
            **{name: settings[name] for name in fields},
        )
        return config, Images(settings["images"]), int(settings["size"])


def _train(
    session: Session,
    dataset: Dataset,
    config: TrainingConfig,
    checkpoint: Checkpoint | None,
    source: ModelFile | None,
) -> Ran:
    request, world, tell = session.request, session.world, session.tell
    planned = request.of(config.following)
    compiled = choose_compiling(request.compiled, world.device)
    with naming_the_batch(config.batch_size, "choose a smaller --batch-size", world.device):
        training = Training(dataset, config, request.run, world, session.reporter)
        tell(f"training slices: {training.batches.where}; networks in {config.precision}")
        if compiled:
            training.compile(tell, required=bool(request.compiled))
        training.seconds_after = seconds_after_codec(training, planned)
        tell(what_follows(training, planned))
    if source is not None:
        training.start_from(build_model(source))
        tell(f"starting from model {source.fingerprint.hex()[:8]}, {request.start_from}")
    if checkpoint is None:
        session.forget(*LATER_CHECKPOINTS)
    training.is_last = not (planned.prior_epochs or planned.volumes_epochs)
    with naming_the_batch(config.batch_size, "choose a smaller --batch-size", world.device):
        finished = session.run(training, checkpoint)
    return Ran(session.trained(training, finished), planned, config.seed, config.precision)
