"""What `oasisvq train` does: open or prepare the data, choose the set-up, train, and write a model."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import NamedTuple

from oasisvq.codec.modelfile import ModelFile, read_model, write_model
from oasisvq.errors import FileError, TrainingError
from oasisvq.files import METRICS_FILE, MODEL_FILE
from oasisvq.model_store import keep_finished
from oasisvq.training import codec_stage, prior_stage, residue_stage, volumes_stage
from oasisvq.training.checkpoint import Checkpoint, load_checkpoint
from oasisvq.training.codec_training import CHECKPOINT_FILE
from oasisvq.training.devices import choose_device
from oasisvq.training.display import console_reporter
from oasisvq.training.distributed import joined_world
from oasisvq.training.ending import end
from oasisvq.training.hardware import true_float32
from oasisvq.training.pictures import Pictures
from oasisvq.training.prior_training import CHECKPOINT_FILE as PRIOR_CHECKPOINT_FILE
from oasisvq.training.request import Request, Trained
from oasisvq.training.residue_training import CHECKPOINT_FILE as RESIDUE_CHECKPOINT_FILE
from oasisvq.training.run_folder import alone_in
from oasisvq.training.session import PICTURES, Ran, Session
from oasisvq.training.volumes_prior import CHECKPOINT_FILE as VOLUMES_PRIOR_CHECKPOINT_FILE
from oasisvq.training.volumes_training import CHECKPOINT_FILE as VOLUMES_CHECKPOINT_FILE


class _Stage(NamedTuple):
    """One stage of a training.

    Attributes:
        checkpoint: name of its file in the run folder.
        start: begins a training with it; None if no training can.
        follow: runs it after another stage; None if no stage comes before it.
        resume: runs the rest of it.
        without: the model without what this stage gives it; None if nothing is left.
        is_wanted: whether a request includes it.
        is_first: whether a request begins with it.
    """

    checkpoint: str
    start: Callable[[Session], Ran] | None
    follow: Callable[[Session, Ran], Ran | None] | None
    resume: Callable[[Session, Checkpoint], Ran]
    without: Callable[[ModelFile], ModelFile] | None
    is_wanted: Callable[[Request], bool]
    is_first: Callable[[Request], bool]


STAGES = (
    _Stage(
        CHECKPOINT_FILE,
        codec_stage.start,
        None,
        codec_stage.resume,
        None,
        lambda request: True,
        lambda request: True,
    ),
    _Stage(
        PRIOR_CHECKPOINT_FILE,
        prior_stage.start,
        prior_stage.follow,
        prior_stage.resume,
        prior_stage.without,
        lambda request: request.with_prior,
        lambda request: request.prior_only,
    ),
    _Stage(
        VOLUMES_CHECKPOINT_FILE,
        volumes_stage.start,
        volumes_stage.follow,
        volumes_stage.resume,
        volumes_stage.without,
        lambda request: request.with_volumes,
        lambda request: request.volumes_only,
    ),
    _Stage(
        VOLUMES_PRIOR_CHECKPOINT_FILE,
        None,
        prior_stage.follow_volumes,
        prior_stage.resume_volumes,
        prior_stage.without_volumes_prior,
        lambda request: request.with_volumes and request.with_prior,
        lambda request: False,
    ),
    _Stage(
        RESIDUE_CHECKPOINT_FILE,
        residue_stage.start,
        residue_stage.follow,
        residue_stage.resume,
        residue_stage.without,
        lambda request: request.with_residue,
        lambda request: request.residue_only,
    ),
)
CHECKPOINTS = tuple(stage.checkpoint for stage in STAGES)


def train(
    request: Request,
    note: Callable[[str], None],
    should_stop: Callable[[], bool],
    advance: Callable[[int, int], None],
) -> Trained | None:
    """Train as asked; returns None in all processes of a torchrun but the first.

    Raises:
        OasisVQError: the data are bad, a run folder is in the way, there is nothing to resume, or a loss
            is not a number.
    """
    minutes = math.inf if request.max_minutes is None else request.max_minutes
    deadline = time.monotonic() + 60 * minutes
    device = choose_device(request.device)
    with joined_world(device) as world, true_float32():
        tell = note if world.first else lambda message: None
        _check_run_folder(request)
        reporter = console_reporter(world.first and not request.is_quiet)
        pictures = Pictures(request.run, reporter.note)
        session = Session(request, world, tell, reporter, pictures, should_stop, deadline, advance)
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


def _train(session: Session) -> Trained:
    """Run all stages, or the rest of them."""
    place, ran = _first(session)
    for stage in STAGES[place + 1 :]:
        if ran.trained.finished and stage.follow:
            ran = stage.follow(session, ran) or ran
    return ran.trained


def _first(session: Session) -> tuple[int, Ran]:
    """Run the first stage of this command: the one asked for, or the last that left a checkpoint.

    Returns:
        Its place among the stages, and its results.
    """
    request = session.request
    for place, stage in reversed(tuple(enumerate(STAGES))):
        checkpoint = request.run / stage.checkpoint
        if not request.resume and stage.start and stage.is_first(request):
            return place, stage.start(session)
        if request.resume and stage.is_wanted(request) and checkpoint.exists():
            state = load_checkpoint(checkpoint)
            with _leaving_out(session, STAGES[place + 1 :]):
                return place, stage.resume(session, state)
    return 0, STAGES[0].resume(session, load_checkpoint(request.run / CHECKPOINT_FILE))


@contextmanager
def _leaving_out(session: Session, stages: tuple[_Stage, ...]) -> Iterator[None]:
    """Leave out stages that have begun and are no longer wanted: their parts of the model, and state.

    Their checkpoints are deleted last: if the stage before cannot be resumed, they make the parts again.
    """
    run = session.request.run
    begun = [stage for stage in stages if (run / stage.checkpoint).exists()]
    session.world.wait()  # until all processes have looked
    if begun and session.world.first:
        file = read_model(run / MODEL_FILE)
        for stage in begun:
            file = stage.without(file) if stage.without else file
        write_model(file, run / MODEL_FILE)
    session.world.wait()
    yield
    for stage in begun if session.world.first else ():
        (run / stage.checkpoint).unlink(missing_ok=True)


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
    # a training that was killed before its first step leaves an empty file
    taken = [name for name in ours if (run / name).exists() and (run / name).stat().st_size]
    if taken and not request.force:
        raise FileError(
            f"{run}: holds a training already ({', '.join(taken)}); pass --resume to go on with it, "
            "-f to replace it, or name another folder with -o"
        )
