"""What `oasisvq train` does: open or prepare the data, choose the set-up, train, leave a model."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.console import Console

from oasisvq.codec.codec import choose_device
from oasisvq.codec.weights import config_from_dict
from oasisvq.data.dataset import Dataset, is_prepared, open_dataset
from oasisvq.data.layouts import Images
from oasisvq.data.preprocess import is_prepared_from, open_or_prepare
from oasisvq.errors import DatasetError, FileError, ModelError, TrainingError
from oasisvq.files import MODEL_FILE, remove_temporaries
from oasisvq.training.checkpoint import Checkpoint, load_checkpoint
from oasisvq.training.distributed import World, joined_world
from oasisvq.training.loop import (
    CHECKPOINT_FILE,
    METRICS_FILE,
    Training,
    TrainingConfig,
)
from oasisvq.training.presets import PRESETS, model_config
from oasisvq.training.progress import ConsoleReporter


@dataclasses.dataclass(frozen=True)
class Request:
    """What the command line asked for."""

    data: Path
    run: Path
    preset: str | None
    images: Images | None
    overrides: dict[str, Any]  # preset fields by name
    seed: int | None
    precision: str | None  # auto, float32 or bfloat16
    device: str
    max_minutes: float | None
    resume: bool
    force: bool
    compiled: bool = False


class Trained(NamedTuple):
    """What a training left."""

    model: Path
    dataset: Dataset
    step: int
    finished: bool

    @property
    def has_validation(self) -> bool:
        """Whether there is a validation split to score."""
        return "validation" in self.dataset.splits


def choose_precision(name: str, device: torch.device) -> str:
    """`auto` to bfloat16 where the hardware multiplies in it, else float32."""
    if name != "auto":
        return name
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported() else "float32"
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    native = capabilities.get("avx512_bf16") or capabilities.get("amx_bf16")
    return "bfloat16" if device.type == "cpu" and native else "float32"


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
    device = choose_device(request.device)
    with joined_world(device) as world:
        tell = note if world.first else lambda message: None
        _check_run_folder(request)
        config: TrainingConfig | None = None
        checkpoint: Checkpoint | None = None
        if request.resume:
            checkpoint = load_checkpoint(request.run / CHECKPOINT_FILE)
            config, images, size = _settings_of(checkpoint, request.run)
        else:
            name = request.preset or ("base" if device.type == "cuda" else "small")
            preset = PRESETS[name]
            reason = "" if request.preset else f" (the default on {device.type})"
            tell(f"preset {name}{reason}: {preset.purpose}; training on {device.type}")
            images, size = request.images or Images.SCANS, preset.size
        dataset = _open(request, world, images, size, advance)
        if request.images not in (None, dataset.images):
            raise DatasetError(
                f"{request.data}: was prepared from {dataset.images.value}; leave out --images"
            )
        if dataset.size != size and not request.resume:
            tell(f"dataset {request.data}: prepared at {dataset.size}×{dataset.size}, not {size}×{size}")
        if config is None:
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
            )
        return _train(request, checkpoint, dataset, config, world, tell, should_stop)


def _train(
    request: Request,
    checkpoint: Checkpoint | None,
    dataset: Dataset,
    config: TrainingConfig,
    world: World,
    tell: Callable[[str], None],
    should_stop: Callable[[], bool],
) -> Trained | None:
    console = Console(stderr=True, quiet=not world.first)
    reporter = ConsoleReporter(console)
    training = Training(dataset, config, request.run, world, reporter, request.compiled)
    tell(f"training slices: {training.batches.where}; networks in {config.precision}")
    if checkpoint is not None:
        training.resume(checkpoint)
        tell(f"resuming at step {training.step:,} of {training.steps:,}")
    training.start_metrics()
    try:
        finished = training.go(should_stop, request.max_minutes)
    finally:
        reporter.close()
    if not world.first:
        return None
    return Trained(request.run / MODEL_FILE, dataset, training.step, finished)


def _check_run_folder(request: Request) -> None:
    run = request.run
    if request.resume:
        fixed = {name: getattr(request, name) for name in ("preset", "images", "seed", "precision")}
        given = [*(name for name, setting in fixed.items() if setting is not None), *request.overrides]
        if given:
            raise TrainingError(
                f"--resume goes on as the training in {run} was set up; leave out "
                + ", ".join("--" + name.replace("_", "-") for name in given)
            )
        if not (run / CHECKPOINT_FILE).is_file():
            raise FileError(f"{run}: no {CHECKPOINT_FILE} to resume from; train without --resume")
        return
    if run.exists() and not run.is_dir():
        raise FileError(f"{run}: is a file, expected a folder to write; name another one with -o")
    taken = [n for n in (CHECKPOINT_FILE, MODEL_FILE, METRICS_FILE) if (run / n).exists()]
    if taken and not request.force:
        raise FileError(
            f"{run}: holds a training already ({', '.join(taken)}); pass --resume to go on with it, "
            "-f to replace it, or name another folder with -o"
        )


def _open(
    request: Request,
    world: World,
    images: Images,
    size: int,
    advance: Callable[[int, int], None],
) -> Dataset:
    """The dataset; of many processes the first one prepares a raw folder and checks the whole."""
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
            dataset = open_or_prepare(request.data, prepared, images=images, size=size, advance=advance)
        dataset.verify()
    world.wait()
    return dataset if world.first else open_dataset(prepared)


def _settings_of(checkpoint: Checkpoint, run: Path) -> tuple[TrainingConfig, Images, int]:
    """How the training of a checkpoint was set up: its config, and what its dataset holds."""
    fields = {f.name for f in dataclasses.fields(TrainingConfig)} - {"model"}
    try:
        settings = checkpoint.progress["settings"]
        config = TrainingConfig(
            model=config_from_dict(settings["model"], str(run)),
            **{name: settings[name] for name in fields},
        )
        return config, Images(settings["images"]), int(settings["size"])
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(
            f"{run / CHECKPOINT_FILE}: does not say how its training was set up; train anew with -f"
        ) from error
