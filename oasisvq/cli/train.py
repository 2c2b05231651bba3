"""`oasisvq train`: a dataset becomes a model."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from oasisvq.cli.chosen import load_codec
from oasisvq.cli.exits import INTERRUPTED, usage_error
from oasisvq.cli.options import (
    Device,
    DeviceOption,
    ForceOption,
    MaxPixelsOption,
    Precision,
    PresetName,
    QuietOption,
)
from oasisvq.cli.printing import is_quiet, note, progress_bar
from oasisvq.cli.score import score_split
from oasisvq.data.layouts import Images
from oasisvq.scans.limits import DEFAULT_MAX_PIXELS

_STAGE_OF = {
    "epochs": "codec",
    "batch_size": "codec",
    "learning_rate": "codec",
    "levels": "codec",
    "codebook_size": "codec",
    "prior_epochs": "prior",
    "prior_batch_size": "prior",
    "volumes_epochs": "volumes",
    "residue_epochs": "residue",
}  # the stage of a training that a setting belongs to


def train(
    data: Annotated[
        list[Path],
        typer.Argument(
            metavar="DATA",
            help="A prepared dataset or a raw OASIS folder; or several, with the same size and kind of "
            "images.",
        ),
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Run folder: model, checkpoint, metrics, pictures.")
    ] = Path("oasisvq-run"),
    preset: Annotated[
        PresetName | None,
        typer.Option(
            "--preset",
            help="seed: the classic 80×80 set-up. small: for a CPU, OASIS in some hours. base: for a "
            "GPU. [default: base on a GPU, else small]",
        ),
    ] = None,
    images: Annotated[
        Images | None,
        typer.Option("--images", help="Which images of a raw folder to take. [default: scans]"),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option("--epochs", min=1, help="Epochs of the codec. [default: the preset's]")
    ] = None,
    prior_epochs: Annotated[
        int | None,
        typer.Option("--prior-epochs", min=1, help="Epochs of the prior. [default: the preset's]"),
    ] = None,
    prior_batch_size: Annotated[
        int | None,
        typer.Option(
            "--prior-batch-size",
            min=1,
            help="Slices per training step of the prior. [default: depends on the amount of data]",
        ),
    ] = None,
    residue_epochs: Annotated[
        int | None,
        typer.Option(
            "--residue-epochs", min=1, help="Epochs of the residue networks. [default: the preset's]"
        ),
    ] = None,
    volumes_epochs: Annotated[
        int | None,
        typer.Option(
            "--volumes-epochs", min=1, help="Epochs of the codec for volumes. [default: the preset's]"
        ),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            "--batch-size", min=1, help="Slices per training step of the codec. [default: the preset's]"
        ),
    ] = None,
    learning_rate: Annotated[
        float | None,
        typer.Option(
            "--learning-rate",
            min=1e-9,
            help="Highest learning rate of the codec. [default: the preset's]",
        ),
    ] = None,
    levels: Annotated[
        int | None,
        typer.Option(
            "--levels",
            min=1,
            max=64,
            help="Residual levels; 1 is the classic VQ-VAE. [default: the preset's]",
        ),
    ] = None,
    codebook_size: Annotated[
        int | None,
        typer.Option(
            "--codebook-size", min=2, max=65_535, help="Codes per level. [default: the preset's]"
        ),
    ] = None,
    start_from: Annotated[
        Path | None,
        typer.Option(
            "--start-from",
            help="Start from the weights of this model file or run folder, not from random ones. With "
            "--prior-only: from the prior of this run folder.",
        ),
    ] = None,
    with_prior: Annotated[
        bool,
        typer.Option("--prior/--no-prior", help="Train the prior after the codec."),
    ] = True,
    prior_only: Annotated[
        bool,
        typer.Option("--prior-only", help="Train only a prior, for the codec that --model names."),
    ] = False,
    with_volumes: Annotated[
        bool,
        typer.Option(
            "--volumes/--no-volumes",
            help="Train a codec for volumes too, which sees the slice before. It needs slices with "
            "neighbours.",
        ),
    ] = True,
    volumes_only: Annotated[
        bool,
        typer.Option(
            "--volumes-only",
            help="Train only the codec of volumes and its prior, for the model that --model names.",
        ),
    ] = False,
    with_residue: Annotated[
        bool,
        typer.Option("--residue/--no-residue", help="Train the residue networks last."),
    ] = True,
    residue_only: Annotated[
        bool,
        typer.Option(
            "--residue-only", help="Train only the residue networks, for the codec that --model names."
        ),
    ] = False,
    model: Annotated[
        Path | None,
        typer.Option(
            "--model",
            help="With --prior-only, --volumes-only or --residue-only: a model file or run folder.",
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            "--seed", min=0, help="Seed of the first weights, the order and all draws. [default: 0]"
        ),
    ] = None,
    precision: Annotated[
        Precision | None,
        typer.Option("--precision", help="auto: bfloat16 if the hardware has it. [default: auto]"),
    ] = None,
    device: DeviceOption = Device.AUTO,
    max_minutes: Annotated[
        float | None,
        typer.Option("--max-minutes", min=0, help="Stop after this time. --resume goes on."),
    ] = None,
    compiled: Annotated[
        bool | None,
        typer.Option(
            "--compile/--no-compile",
            help="Compile the networks with torch.compile first. [default: on GPUs from Ampere on]",
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on from the checkpoint in the run folder, with its settings."),
    ] = False,
    max_pixels: MaxPixelsOption = DEFAULT_MAX_PIXELS,
    force: ForceOption = False,
    _quiet: QuietOption = False,
) -> None:
    """Train a model on prepared datasets or raw OASIS folders.

    Several datasets are joined into one in the run folder. No person may be in different splits of them.

    The run folder gets model.safetensors, which the other commands in this folder then use by
    themselves; a checkpoint every two minutes; metrics.jsonl; and curves.png and panel.png, which are
    redrawn during training. The panel shows some validation slices and their reconstructions.

    Ctrl-C stops after the current step and leaves a usable model. --resume goes on from there. At the
    end the validation split is scored.
    """
    from oasisvq.codec.entropy import has_range_coder
    from oasisvq.training import command
    from oasisvq.training.request import Request

    stages = {
        "prior": (with_prior, prior_only),
        "volumes": (with_volumes, volumes_only),
        "residue": (with_residue, residue_only),
    }
    for name, (is_wanted, is_only) in stages.items():
        if is_only and not is_wanted:
            usage_error(f"--{name}-only and --no-{name} exclude each other")
    only = [f"--{name}-only" for name, (_, is_only) in stages.items() if is_only]
    if len(only) > 1:
        usage_error(f"{only[1]} and {only[0]} exclude each other")
    if residue_only and start_from is not None:
        usage_error("--residue-only starts from random weights; leave out --start-from")
    if volumes_only and start_from is not None:
        usage_error("--volumes-only starts from the codec named by --model; leave out --start-from")
    if bool(only) != (model is not None):
        usage_error(
            "--model names the codec of --prior-only, --volumes-only or --residue-only; give both, or "
            "leave out both"
        )
    numbers = {
        "epochs": epochs,
        "prior_epochs": prior_epochs,
        "prior_batch_size": prior_batch_size,
        "volumes_epochs": volumes_epochs,
        "residue_epochs": residue_epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "levels": levels,
        "codebook_size": codebook_size,
    }
    overrides = {name: given for name, given in numbers.items() if given is not None}
    refuse_unused(overrides, compiled, stages)
    request = Request(
        data=tuple(data),
        run=output,
        preset=preset.value if preset else None,
        images=images,
        overrides=overrides,
        seed=seed,
        precision=precision.value if precision else None,
        device=device.value,
        max_minutes=max_minutes,
        compiled=compiled,
        start_from=start_from,
        with_prior=with_prior,
        prior_only=prior_only,
        with_volumes=with_volumes,
        volumes_only=volumes_only,
        with_residue=with_residue,
        residue_only=residue_only,
        model=model,
        resume=resume,
        force=force,
        max_pixels=max_pixels,
        is_quiet=is_quiet(),
    )
    with progress_bar("reading slices") as advance, stop_on_signals() as should_stop:
        trained = command.train(request, note, should_stop, advance)
        interrupted = trained is not None and not trained.finished and should_stop()
    if trained is None:
        return
    if not trained.finished:
        named = " ".join(map(str, data))
        scored = trained.dataset.folder if len(data) > 1 else named
        score = f"; score it with `oasisvq score {scored} --model {output}`" if interrupted else ""
        note(
            f"stopped at step {trained.step:,} of the {trained.what}; {trained.model} is usable with "
            f"--model {output}{score}; "
            f"continue with `oasisvq train {named} -o {output} --resume`"
        )
    if interrupted:
        raise typer.Exit(INTERRUPTED)
    if trained.has_validation:
        codec = load_codec(trained.model)
        if codec.prior is not None and not has_range_coder():
            note("not scored: prior-coded files need constriction; install it with pip")
            return
        count = len(trained.dataset.splits["validation"].records)
        note(f"scoring {count:,} slices of the validation split")
        score_split(codec, trained.dataset, "validation", [], as_json=False)


def refuse_unused(
    overrides: dict[str, Any], compiled: bool | None, stages: dict[str, tuple[bool, bool]]
) -> None:
    """Refuse settings of stages that are not trained.

    Args:
        overrides: settings by name.
        compiled: whether to compile, if that was said.
        stages: of each stage after the codec, whether it is wanted, and whether it is the only one.
    """
    trained = {"codec"} | {name for name, (is_wanted, _) in stages.items() if is_wanted}
    for name, (_, is_only) in stages.items():
        if is_only:
            trained &= {name, "prior"} if name == "volumes" else {name}
    for name in overrides:
        if _STAGE_OF[name] not in trained:
            option = "--" + name.replace("_", "-")
            usage_error(f"{option} is for the {_STAGE_OF[name]}, which is not trained; leave it out")
    if compiled is not None and not trained & {"codec", "volumes"}:
        usage_error("--compile and --no-compile are for codecs, and none is trained; leave them out")


@contextmanager
def stop_on_signals() -> Iterator[Callable[[], bool]]:
    """Gives a function that returns True once Ctrl-C or SIGTERM has asked for a stop.

    Signals are caught from the first call of the function on, because then there is something to save.
    Before that, and at the second signal, they end the command at once.
    """
    asked = False
    old: dict[int, Any] = {}

    def handle(number: int, frame: object) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        note("stopping after this step; press Ctrl-C again to stop at once")

    def should_stop() -> bool:
        if not old:
            old.update({n: signal.signal(n, handle) for n in (signal.SIGINT, signal.SIGTERM)})
        return asked

    try:
        yield should_stop
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
