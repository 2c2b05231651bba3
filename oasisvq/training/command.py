"""What `oasisvq train` does: open or prepare the data, choose the set-up, train, leave a model."""

import dataclasses
import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple

from oasisvq.codec.config import config_from_dict, part_config_from_dict
from oasisvq.codec.modelfile import ModelFile, read_model
from oasisvq.codec.prior import PriorConfig
from oasisvq.data.dataset import Dataset, is_prepared, open_dataset
from oasisvq.data.layouts import Images
from oasisvq.data.preprocess import is_prepared_from, open_or_prepare
from oasisvq.errors import DatasetError, FileError, TrainingError
from oasisvq.files import METRICS_FILE, MODEL_FILE, remove_temporaries
from oasisvq.model_store import keep_finished
from oasisvq.models import choose_model
from oasisvq.training.checkpoint import Checkpoint, load_checkpoint
from oasisvq.training.codec_step import TrainingConfig
from oasisvq.training.codec_training import CHECKPOINT_FILE, Training
from oasisvq.training.devices import choose_device
from oasisvq.training.display import LiveReporter, console_reporter
from oasisvq.training.distributed import World, joined_world
from oasisvq.training.ending import end
from oasisvq.training.hardware import (
    choose_compiling,
    choose_precision,
    naming_the_batch,
    true_float32,
)
from oasisvq.training.loop import Loop
from oasisvq.training.pictures import CURVES_FILE, PANEL_FILE, Pictures
from oasisvq.training.plan import (
    prior_training_config,
    seconds_after_codec,
    seconds_of_residue,
    seconds_of_scoring,
    what_follows,
)
from oasisvq.training.presets import PRESETS, Preset, model_config
from oasisvq.training.prior_training import CHECKPOINT_FILE as PRIOR_CHECKPOINT_FILE
from oasisvq.training.prior_training import (
    PriorTraining,
    PriorTrainingConfig,
    rehearse,
    starting_from,
)
from oasisvq.training.progress import LineReporter
from oasisvq.training.request import Request, Trained
from oasisvq.training.residue_stage import residue_settings, residue_training_config, run_residue
from oasisvq.training.residue_training import CHECKPOINT_FILE as RESIDUE_CHECKPOINT_FILE
from oasisvq.training.residue_training import ResidueTrainingConfig
from oasisvq.training.run_folder import alone_in, saying_how_to_start_anew
from oasisvq.training.weights import build_model

PICTURES = (CURVES_FILE, PANEL_FILE)
CHECKPOINTS = (CHECKPOINT_FILE, PRIOR_CHECKPOINT_FILE, RESIDUE_CHECKPOINT_FILE)


def train(
    request: Request,
    note: Callable[[str], None],
    should_stop: Callable[[], bool],
    advance: Callable[[int, int], None],
) -> Trained | None:
    """Train as asked; None in processes of a torchrun that are not the first.

    Raises:
        OasisVQError: bad data, a run folder in the way, nothing to resume, or a loss that is no
            number.
    """
    minutes = math.inf if request.max_minutes is None else request.max_minutes
    deadline = time.monotonic() + 60 * minutes
    device = choose_device(request.device)
    with joined_world(device) as world, true_float32():
        tell = note if world.first else lambda message: None
        _check_run_folder(request)
        reporter = console_reporter(world.first)
        pictures = Pictures(request.run, reporter.note)
        session = _Session(request, world, tell, reporter, pictures, should_stop, deadline, advance)
        with alone_in(request.run) if world.first else nullcontext():
            try:
                if world.first:
                    keep_finished(request.run / MODEL_FILE)  # before another one replaces it
                trained = _train(session)
                if world.first and trained.finished:
                    end(trained, tell)
            finally:
                session.reporter.close()
        return trained if world.first else None


class _Session(NamedTuple):
    """What every stage of a training needs."""

    request: Request
    world: World
    tell: Callable[[str], None]
    reporter: LineReporter | LiveReporter
    pictures: Pictures
    should_stop: Callable[[], bool]
    deadline: float  # on the clock of time.monotonic
    advance: Callable[[int, int], None]  # while slices are read

    def run(self, loop: Loop, checkpoint: Checkpoint | None) -> bool:
        """One stage to its end; False where it was stopped."""
        if checkpoint is not None:
            loop.resume(checkpoint)
            self.tell(f"resuming the {loop.what} at step {loop.step:,} of {loop.steps:,}")
        loop.start_run()
        loop.pictures = self.pictures
        finished = loop.go(self.should_stop, self.deadline)
        self.reporter.close()
        return finished


def _train(session: _Session) -> Trained:
    """The codec and the prior, then the residue; or what is left of them."""
    request = session.request
    checkpoint = request.run / RESIDUE_CHECKPOINT_FILE
    if request.resume and request.with_residue and checkpoint.exists():
        return _resume_residue(session, load_checkpoint(checkpoint))
    if request.residue_only and not request.resume:
        return _start_residue(session)
    trained, config = _train_codec_and_prior(session)
    epochs = config.residue_epochs if trained.finished and request.with_residue else 0
    if not epochs:
        return trained
    file, dataset = read_model(trained.model), trained.dataset
    residue = residue_training_config(
        file.config, dataset, session.world, epochs, config.seed, config.precision
    )
    return _train_residue(session, dataset, file, residue, None, trained.metrics_bytes)


def _train_codec_and_prior(
    session: _Session,
) -> tuple[Trained, TrainingConfig | PriorTrainingConfig]:
    """The codec, then the prior; or what is left of them; and how the last of both was set up."""
    request = session.request
    prior_checkpoint = request.run / PRIOR_CHECKPOINT_FILE
    if request.resume and request.with_prior and prior_checkpoint.exists():
        return _resume_prior(session, load_checkpoint(prior_checkpoint))
    if request.prior_only and not request.resume:
        return _start_prior(session)
    trained, config = _train_codec(session)
    if not (trained.finished and config.prior_epochs and request.with_prior):
        return trained, config
    codec = read_model(trained.model)
    prior = prior_training_config(
        codec.config,
        trained.dataset,
        session.world,
        config.prior_epochs,
        config.seed,
        config.precision,
        config.prior_batch_size,
    )
    prior = dataclasses.replace(prior, residue_epochs=config.residue_epochs)
    return _train_prior(session, trained.dataset, codec, prior, None, trained.metrics_bytes), prior


def _train_codec(session: _Session) -> tuple[Trained, TrainingConfig]:
    request, world, tell = session.request, session.world, session.tell
    checkpoint: Checkpoint | None = None
    source: ModelFile | None = None
    if request.resume:
        checkpoint = load_checkpoint(request.run / CHECKPOINT_FILE)
        config, images, size = _settings_of(checkpoint, request.run)
        dataset = _open(session, images, size)
    else:
        if request.start_from:
            source = read_model(choose_model(request.start_from, Path.cwd()).path)
        preset = _preset(session)
        dataset = _open(session, request.images or Images.SCANS, preset.size)
        if dataset.size != preset.size:
            side, expected = dataset.size, preset.size
            tell(f"dataset {request.data}: prepared at {side}×{side}, not {expected}×{expected}")
        levels = request.overrides.get("levels", preset.levels)
        default_levels = min(preset.default_levels, levels)
        preset = dataclasses.replace(preset, default_levels=default_levels, **request.overrides)
        config = TrainingConfig(
            model=model_config(preset, dataset),
            epochs=preset.epochs,
            batch_size=preset.batch_size,
            learning_rate=preset.learning_rate,
            seed=request.seed or 0,
            precision=choose_precision(request.precision or "auto", world.device),
            started_from=source.fingerprint.hex() if source else None,
            prior_epochs=preset.prior_epochs if request.with_prior else 0,
            prior_batch_size=preset.prior_batch_size,
            residue_epochs=preset.residue_epochs if _has_residue(request, dataset) else 0,
        )
    compiled = choose_compiling(request.compiled, world.device)
    with naming_the_batch(config.batch_size, "--batch-size", world.device):
        training = Training(dataset, config, request.run, world, session.reporter)
        tell(f"training slices: {training.batches.where}; networks in {config.precision}")
        if compiled:
            training.compile(tell, required=bool(request.compiled))
        training.seconds_after = seconds_after_codec(training)
        tell(what_follows(training))
    if source is not None:
        training.start_from(build_model(source))
        tell(f"starting from model {source.fingerprint.hex()[:8]}, {request.start_from}")
    if not request.resume:
        _forget(session, PRIOR_CHECKPOINT_FILE, RESIDUE_CHECKPOINT_FILE, *PICTURES)
    training.is_last = not (config.prior_epochs and request.with_prior)
    with naming_the_batch(config.batch_size, "--batch-size", world.device):
        finished = session.run(training, checkpoint)
    model = request.run / MODEL_FILE
    metrics_bytes = training.metrics.length
    return Trained(model, dataset, training.what, training.step, finished, metrics_bytes), config


def _start_prior(session: _Session) -> tuple[Trained, PriorTrainingConfig]:
    """A prior for a codec that is there."""
    request, world = session.request, session.world
    codec, dataset = _given_codec(session)
    preset = dataclasses.replace(_preset(session), **request.overrides)
    precision = choose_precision(request.precision or "auto", world.device)
    config = prior_training_config(
        codec.config,
        dataset,
        world,
        preset.prior_epochs,
        request.seed or 0,
        precision,
        preset.prior_batch_size,
    )
    source: Checkpoint | None = None
    if request.start_from:
        if request.start_from.is_file():  # a model file has integers in place of its prior's weights
            raise TrainingError(f"{request.start_from}: a file; expected a run folder with a prior")
        source = load_checkpoint(request.start_from / PRIOR_CHECKPOINT_FILE)
        config = starting_from(config, source, str(request.start_from))
    _forget(session, RESIDUE_CHECKPOINT_FILE, *PICTURES)
    return _train_prior(session, dataset, codec, config, None, source=source), config


def _has_residue(request: Request, dataset: Dataset) -> bool:
    """Whether networks of residues follow: labels are kept exactly by other means."""
    return request.with_residue and dataset.images is not Images.SEGMENTATIONS


def _given_codec(session: _Session) -> tuple[ModelFile, Dataset]:
    """The codec that --model names, and the data as it was trained on them."""
    request = session.request
    assert request.model is not None
    codec = read_model(choose_model(request.model, Path.cwd()).path)
    trained_on, side = codec.card.get("images"), codec.card.get("size")
    images = Images(trained_on) if trained_on in set(Images) else Images.SCANS
    return codec, _open(session, request.images or images, side if type(side) is int else 256)


def _start_residue(session: _Session) -> Trained:
    """Networks of residues for a codec that is there."""
    request, world = session.request, session.world
    codec, dataset = _given_codec(session)
    epochs = dataclasses.replace(_preset(session), **request.overrides).residue_epochs
    precision = choose_precision(request.precision or "auto", world.device)
    config = residue_training_config(codec.config, dataset, world, epochs, request.seed or 0, precision)
    _forget(session, *PICTURES)
    return _train_residue(session, dataset, codec, config, None)


def _resume_residue(session: _Session, checkpoint: Checkpoint) -> Trained:
    run = session.request.run
    with saying_how_to_start_anew(run / RESIDUE_CHECKPOINT_FILE):
        config, images, size = residue_settings(checkpoint, run)
    file = read_model(run / MODEL_FILE)
    return _train_residue(session, _open(session, images, size), file, config, checkpoint)


def _train_residue(
    session: _Session,
    dataset: Dataset,
    file: ModelFile,
    config: ResidueTrainingConfig,
    checkpoint: Checkpoint | None,
    metrics_bytes: int = 0,
) -> Trained:
    run = session.request.run
    after = seconds_of_scoring(file, dataset)
    training, finished = run_residue(
        session, run, dataset, file, config, checkpoint, metrics_bytes, after
    )
    length = training.metrics.length
    return Trained(run / MODEL_FILE, dataset, training.what, training.step, finished, length)


def _forget(session: _Session, *names: str) -> None:
    """Delete what the training that -f replaces has left."""
    for name in names if session.world.first else ():
        (session.request.run / name).unlink(missing_ok=True)


def _resume_prior(session: _Session, checkpoint: Checkpoint) -> tuple[Trained, PriorTrainingConfig]:
    run = session.request.run
    fields = {f.name for f in dataclasses.fields(PriorTrainingConfig)} - {"prior"}
    with saying_how_to_start_anew(run / PRIOR_CHECKPOINT_FILE):
        settings = checkpoint.progress["settings"]
        config = PriorTrainingConfig(
            prior=part_config_from_dict(PriorConfig, "prior", settings["prior"], str(run)),
            **{name: settings[name] for name in fields},
        )
        images, size = Images(settings["images"]), int(settings["size"])
    dataset, file = _open(session, images, size), read_model(run / MODEL_FILE)
    return _train_prior(session, dataset, file, config, checkpoint), config


def _train_prior(
    session: _Session,
    dataset: Dataset,
    file: ModelFile,
    config: PriorTrainingConfig,
    checkpoint: Checkpoint | None,
    metrics_bytes: int = 0,
    source: Checkpoint | None = None,
) -> Trained:
    """Train a prior, after `metrics_bytes` of the metrics that its codec left in the run folder.

    It goes on from `checkpoint`, or starts from the weights in `source`, or from random ones.
    """
    run, world = session.request.run, session.world
    card = {key: entry for key, entry in file.card.items() if key != "prior"}
    codec = file.with_prior(None, card)
    session.tell("finding the indices of all training slices, plain and mirrored")
    with naming_the_batch(config.batch_size, "--prior-batch-size", world.device):
        training = PriorTraining(dataset, config, run, world, session.reporter, codec, session.tell)
        pace = rehearse(config, world.device)
    training.expect(pace)
    training.seconds_after = seconds_of_scoring(file, dataset)
    if config.residue_epochs and session.request.with_residue:
        residue = residue_training_config(
            file.config, dataset, world, config.residue_epochs, config.seed, config.precision
        )
        training.seconds_after += seconds_of_residue(residue, file.config.window, dataset, world)
    training.metrics.length = metrics_bytes
    if source is not None:
        training.start_from(source, str(session.request.start_from))
        session.tell(f"starting from the prior of {session.request.start_from}")
    epochs, steps = training.loop_config.epochs, training.steps_per_epoch
    session.tell(f"training the prior: {epochs} epochs of {steps} steps")
    with naming_the_batch(config.batch_size, "--prior-batch-size", world.device):
        finished = session.run(training, checkpoint)
    return Trained(
        run / MODEL_FILE, dataset, training.what, training.step, finished, training.metrics.length
    )


def _preset(session: _Session) -> Preset:
    request, device = session.request, session.world.device.type
    name = request.preset or ("base" if device == "cuda" else "small")
    reason = "" if request.preset else f" (the default on {device})"
    session.tell(f"preset {name}{reason}: {PRESETS[name].purpose}; training on {device}")
    return PRESETS[name]


def _check_run_folder(request: Request) -> None:
    run = request.run
    if request.resume:
        names = ("preset", "images", "seed", "precision", "start_from", "model")
        fixed = {name: getattr(request, name) for name in names}
        given = [*(name for name, setting in fixed.items() if setting is not None), *request.overrides]
        if given:
            raise TrainingError(
                f"--resume goes on as the training in {run} was set up; leave out "
                + ", ".join("--" + name.replace("_", "-") for name in given)
            )
        if not any((run / name).is_file() for name in CHECKPOINTS):
            raise FileError(f"{run}: no {CHECKPOINT_FILE} to resume from; train without --resume")
        return
    if run.exists() and not run.is_dir():
        raise FileError(f"{run}: is a file, expected a folder to write; name another one with -o")
    ours = (*CHECKPOINTS, MODEL_FILE, METRICS_FILE, *PICTURES)
    # an empty file is what a training leaves that was killed before its first step
    taken = [name for name in ours if (run / name).exists() and (run / name).stat().st_size]
    if taken and not request.force:
        raise FileError(
            f"{run}: holds a training already ({', '.join(taken)}); pass --resume to go on with it, "
            "-f to replace it, or name another folder with -o"
        )


def _open(session: _Session, images: Images, size: int) -> Dataset:
    """The dataset; of many processes the first one prepares a raw folder and checks the whole."""
    request, world, advance = session.request, session.world, session.advance
    prepared = request.data if is_prepared(request.data) else request.run / "dataset"
    if world.first:
        if request.run.is_dir():
            remove_temporaries(request.run)
        if prepared == request.data:
            dataset = open_dataset(prepared)
        elif request.resume:
            if not is_prepared_from(prepared, request.data, images, size):
                raise TrainingError(
                    f"{request.run}: its training had other data than {request.data} holds now; resume "
                    "with the same folder, or train into another one with -o"
                )
            dataset = open_dataset(prepared)
        else:
            dataset = open_or_prepare(
                request.data,
                prepared,
                images=images,
                size=size,
                advance=advance,
                tell=session.tell,
                max_pixels=request.max_pixels,
            )
        dataset.verify()
    world.wait()
    dataset = dataset if world.first else open_dataset(prepared)
    if request.images not in (None, dataset.images):
        raise DatasetError(
            f"{request.data}: was prepared from {dataset.images.value}; leave out --images"
        )
    return dataset


def _settings_of(checkpoint: Checkpoint, run: Path) -> tuple[TrainingConfig, Images, int]:
    """How the training of a checkpoint was set up: its config, and what its dataset holds."""
    fields = {f.name for f in dataclasses.fields(TrainingConfig)} - {"model"}
    with saying_how_to_start_anew(run / CHECKPOINT_FILE):
        settings = checkpoint.progress["settings"]
        config = TrainingConfig(
            model=config_from_dict(settings["model"], str(run)),
            **{name: settings[name] for name in fields},
        )
        return config, Images(settings["images"]), int(settings["size"])
