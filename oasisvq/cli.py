"""Every command: parse, one call, print.

Results go to stdout, notes and progress to stderr. torch is imported inside the commands that
need it, so that help, version and `info` of a `.codes` file answer at once.
"""

import io
import json
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, cast

import typer

import oasisvq
from oasisvq.data.layouts import LAYOUTS, SPLITS, Images
from oasisvq.errors import DatasetError, ImageError, OasisVQError
from oasisvq.scans.limits import DEFAULT_MAX_PIXELS
from oasisvq.text import printable

if TYPE_CHECKING:
    from oasisvq.bulk import Outcome
    from oasisvq.codec.codec import Codec
    from oasisvq.codec.modelfile import ModelFile
    from oasisvq.data.dataset import Dataset
    from oasisvq.data.recipe import Recipe
    from oasisvq.evaluation.baselines import Comparison
    from oasisvq.evaluation.report import Report
    from oasisvq.evaluation.samples import SampleScore
    from oasisvq.evaluation.score import QualityScore, SplitScore
    from oasisvq.files import Shard
    from oasisvq.models import ModelChoice
    from oasisvq.verify import Verdict

app = typer.Typer(
    name="oasisvq",
    help="A VQ-VAE codec for brain MRI, trained on OASIS: scans become small files of discrete codes.",
    epilog="Start with: oasisvq encode scan.png -o scan.codes && oasisvq decode scan.codes",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


INTERRUPTED = 130  # exit code, as shells give it for Ctrl-C

# typer brings its own click, or uses the installed one
UsageError = cast(type[Exception], typer.BadParameter.__base__)


class Device(str, Enum):
    """Where the networks run."""

    AUTO = "auto"
    CUDA = "cuda"
    MPS = "mps"
    CPU = "cpu"


class PresetName(str, Enum):
    """A named set-up, see `training/presets.py`."""

    SEED = "seed"
    SMALL = "small"
    BASE = "base"


class Precision(str, Enum):
    """Arithmetic of the networks in training."""

    AUTO = "auto"
    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


class CoderName(str, Enum):
    """How indices are coded, see `codec/entropy.py`."""

    PRIOR = "prior"
    PACKED = "packed"


class ContentName(str, Enum):
    """What a scan shows, see `Content` in `codec/codec.py`."""

    AUTO = "auto"
    SCAN = "scan"
    LABELS = "labels"


ModelOption = Annotated[
    Path | None,
    typer.Option(
        "--model",
        metavar="PATH",
        help="Model file or run folder. Otherwise $OASISVQ_MODEL, else the model that `train` left "
        "in this folder, else the bundled one.",
    ),
]
DeviceOption = Annotated[Device, typer.Option("--device", help="Where the networks run.")]
ForceOption = Annotated[bool, typer.Option("-f", "--force", help="Overwrite what is there.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
QualityOption = Annotated[
    int | None,
    typer.Option(
        "-q",
        "--quality",
        metavar="LEVELS",
        help="Levels to keep: 1 is the smallest file. [default: the model's, see `info`]",
    ),
]
MaxPixelsOption = Annotated[
    int,
    typer.Option(
        "--max-pixels",
        metavar="N",
        min=1,
        help="Refuse larger images, and volumes of more than 8 times as many voxels, before they are "
        "read; the default is 4096×4096 and 512×512×512.",
    ),
]
ShardOption = Annotated[
    str | None,
    typer.Option(
        "--shard",
        metavar="I/N",
        help="Of a folder, only every N-th file from the I-th on, I from 0. [default: by torchrun or "
        "SLURM, else all]",
    ),
]
ImagesOption = Annotated[Images, typer.Option("--images", help="Which images of a raw folder to take.")]


def note(message: str) -> None:
    """One line for a person, on stderr."""
    print(printable(message), file=sys.stderr, flush=True)


def counted(number: int, thing: str) -> str:
    """1 subject, 2 subjects."""
    return f"{number:,} {thing}" + ("" if number == 1 else "s")


def print_line(message: str) -> None:
    """One line of a result, on stdout."""
    print(printable(message))


def print_json(result: object) -> None:
    """A result as JSON on stdout."""
    print(json.dumps(result, indent=2))


def show_version(wanted: bool) -> None:
    """Print the version and leave."""
    if wanted:
        print(f"oasisvq {oasisvq.__version__}")
        raise typer.Exit


@app.callback()
def options(
    _: Annotated[
        bool,
        typer.Option("--version", callback=show_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Options of all commands."""


@contextmanager
def progress_bar(description: str) -> Iterator[Callable[[int, int], None]]:
    """Gives a function of (done, total) that shows a bar on stderr where that is a terminal.

    The bar is there from the first call until all is done, so that nothing else meets it.
    """
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import Progress

    # what is printed meanwhile must not end up on stderr where stdout is a file
    into_terminal = sys.stdout.isatty()
    progress = Progress(console=Console(stderr=True), transient=True, redirect_stdout=into_terminal)
    bar = progress.add_task(escape(printable(description)), total=None)

    def advance(done: int, total: int) -> None:
        progress.start()
        progress.update(bar, completed=done, total=total)
        if done >= total:
            progress.stop()

    try:
        yield advance
    finally:
        progress.stop()


def load_codec(model: Path | None, device: Device) -> "Codec":
    """The codec to use; says which model it is."""
    from oasisvq.codec.codec import Codec
    from oasisvq.models import choose_model

    choice = choose_model(model, Path.cwd())
    codec = Codec.load(choice.path, device.value)
    note(f"{model_line(codec.file, choice)}, on {codec.device}")
    return codec


def model_line(file: "ModelFile", choice: "ModelChoice") -> str:
    """Which model is used, and why."""
    ours, prior = file.fingerprint.hex()[:8], file.prior_fingerprint
    with_prior = f", with its prior {prior.hex()[:8]}" if prior else ""
    return f"model {ours}{with_prior}: {choice.path} ({choice.reason})"


def finish(outcome: "Outcome", verb: str, output: Path) -> None:
    """Print what a run over a folder did; exit with 1 if anything failed."""
    ratio = f", {outcome.bytes_in:,} -> {outcome.bytes_out:,} bytes" if outcome.done else ""
    skipped = f", {outcome.skipped:,} already there" if outcome.skipped else ""
    print_line(f"{output}: {outcome.done:,} {verb}{ratio}{skipped}")
    if outcome.failures:
        note(f"{len(outcome.failures):,} failed:")
        for failure in outcome.failures:
            note(f"  {failure}")
        if outcome.ended_early:
            note("nothing more can be written there; once it can, the same command goes on from here")
        raise typer.Exit(1)


@app.command()
def preprocess(
    raw: Annotated[
        Path,
        typer.Argument(
            help="A folder with OASIS as it was downloaded (OASIS-1, 2 or 3, neurite-oasis, PNG or JPEG "
            "slices), or any folder of images or volumes."
        ),
    ],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Folder to write; not with --dry-run.")
    ] = None,
    images: ImagesOption = Images.SCANS,
    size: Annotated[
        int,
        typer.Option("--size", help="Pixels to a side, of 1 mm at 256; 80 for the classic set-up."),
    ] = 256,
    slices: Annotated[
        str,
        typer.Option(
            "--slices",
            metavar="N|FIRST:LAST|all",
            help="Axial slices of a volume: so many, evenly over the part with brain; those from FIRST "
            "to before LAST, in mm above the lowest; or every mm of the brain.",
        ),
    ] = "32",
    percentiles: Annotated[
        str,
        typer.Option(
            "--percentiles",
            metavar="LOW:HIGH",
            help="Of the foreground of a volume: what becomes black, and what white.",
        ),
    ] = "0.5:99.5",
    split: Annotated[
        str | None,
        typer.Option(
            "--split",
            metavar="TRAIN/VALIDATION/TEST",
            help="Shares of the subjects, where no splits are given. [default: 80/10/10]",
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Another seed, another split.")] = 0,
    layout: Annotated[
        str | None,
        typer.Option(
            "--layout",
            metavar="NAME",
            help=f"One of {', '.join(each.key for each in LAYOUTS)}. [default: recognised]",
        ),
    ] = None,
    variant: Annotated[
        str | None,
        typer.Option(
            "--variant",
            metavar="NAME",
            help="Of several files of a session the one to take, such as sbj_111, T2w or seg35; "
            "--dry-run lists them.",
        ),
    ] = None,
    subjects: Annotated[
        Path | None,
        typer.Option(
            "--subjects",
            metavar="TABLE",
            help="CSV or TSV with a file (or the beginning of its name) and its subject on each line, "
            "where names do not tell whose scan it is.",
        ),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option("--jobs", min=1, help="Volumes at a time. [default: one a processor]"),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be taken, and write nothing.")
    ] = False,
    max_pixels: MaxPixelsOption = DEFAULT_MAX_PIXELS,
    force: ForceOption = False,
) -> None:
    """Turn a raw OASIS folder into a prepared dataset: one array a split and a manifest.

    The layout of the folder is recognised. Slices are axial, 1 mm a pixel, rows from left to right and
    columns from back to front; a volume's grey levels have one scale. All scans of a person are in one
    split, and given splits are kept. A bad file is left out and said. What was interrupted goes on
    when it is run again.
    """
    from oasisvq.data.preprocess import preprocess as run

    recipe = chosen_recipe(layout, variant, subjects, slices, percentiles, split, seed)
    if dry_run:
        print_plan(raw, images, recipe)
        return
    folder = output or usage_error("name the folder to write with --output, or pass --dry-run")
    failures: list[OasisVQError] = []
    try:
        with progress_bar("reading files") as advance:
            dataset = run(
                raw,
                folder,
                images=images,
                size=size,
                recipe=recipe,
                force=force,
                jobs=jobs,
                advance=advance,
                tell=note,
                failed=failures.append,
                max_pixels=max_pixels,
            )
    except KeyboardInterrupt:
        note("stopped; the same command goes on from here")
        raise
    for name, part in dataset.splits.items():
        people = len({record.subject for record in part.records})
        print(f"{name}: {len(part.records):,} slices of {counted(people, 'subject')}")
    print_line(f"{folder}: {dataset.layout}, {images.value}, {size}×{size}")
    if failures:
        note(f"{len(failures):,} failed, and {folder} was written without them:")
        for failure in failures:
            note(f"  {failure}")
        raise typer.Exit(1)


def chosen_recipe(
    layout: str | None,
    variant: str | None,
    subjects: Path | None,
    slices: str,
    percentiles: str,
    split: str | None,
    seed: int,
) -> "Recipe":
    """The options of `preprocess` as a recipe; a wrong one is a usage error."""
    from oasisvq.data.recipe import Recipe, parse_percentiles, parse_slices, parse_split

    try:
        return Recipe(
            layout,
            variant,
            str(subjects) if subjects else None,
            parse_slices(slices),
            parse_percentiles(percentiles),
            parse_split(split) if split else None,
            seed,
        )
    except DatasetError as error:
        usage_error(str(error))


def print_plan(raw: Path, images: Images, recipe: "Recipe") -> None:
    """Print what `preprocess` would take: layout, splits, and the first and last file of each."""
    from oasisvq.data.preprocess import look

    found = look(raw, images, recipe)
    for line in (str(found), *found.remarks):
        print_line(f"dataset {raw}: {line}")
    for split in SPLITS:
        members = [member for member in found.members if member.split == split]
        if members:
            people = counted(len({member.subject for member in members}), "subject")
            ends = " ... ".join(dict.fromkeys((members[0].name, members[-1].name)))
            print_line(f"{split}: {counted(len(members), 'file')} of {people}: {ends}")


@app.command()
def train(
    data: Annotated[Path, typer.Argument(help="A prepared dataset, or a raw OASIS folder.")],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Run folder: model, checkpoint, metrics, pictures.")
    ] = Path("oasisvq-run"),
    preset: Annotated[
        PresetName | None,
        typer.Option(
            "--preset",
            help="seed: the classic 80×80 set-up; small: two CPU cores, about an hour; base: a GPU. "
            "[default: base on a GPU, else small]",
        ),
    ] = None,
    images: Annotated[
        Images | None,
        typer.Option("--images", help="Which images of a raw folder to take. [default: scans]"),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option("--epochs", min=1, help="[default: the preset's]")
    ] = None,
    prior_epochs: Annotated[
        int | None,
        typer.Option("--prior-epochs", min=1, help="Of the prior. [default: the preset's]"),
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option("--batch-size", min=1, help="Images a step. [default: the preset's]")
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option("--learning-rate", min=1e-9, help="[default: the preset's]")
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
            "--codebook-size", min=2, max=65_535, help="Codes of each level. [default: the preset's]"
        ),
    ] = None,
    start_from: Annotated[
        Path | None,
        typer.Option(
            "--start-from",
            help="Model file or run folder whose weights to start from, in place of random ones; "
            "with --prior-only a run folder, whose prior it is.",
        ),
    ] = None,
    with_prior: Annotated[
        bool,
        typer.Option("--prior/--no-prior", help="Train the prior after the codec."),
    ] = True,
    prior_only: Annotated[
        bool,
        typer.Option("--prior-only", help="Give the codec named by --model a prior."),
    ] = False,
    model: Annotated[
        Path | None,
        typer.Option("--model", help="With --prior-only: a model file or run folder."),
    ] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", min=0, help="Of weights, order and draws. [default: 0]")
    ] = None,
    precision: Annotated[
        Precision | None,
        typer.Option(
            "--precision", help="auto: bfloat16 where the hardware computes in it. [default: auto]"
        ),
    ] = None,
    device: DeviceOption = Device.AUTO,
    max_minutes: Annotated[
        float | None,
        typer.Option("--max-minutes", min=0, help="Stop after so long; --resume goes on."),
    ] = None,
    compiled: Annotated[
        bool, typer.Option("--compile", help="Compile the networks first, with torch.compile.")
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the run folder's checkpoint, as it was set up.")
    ] = False,
    max_pixels: MaxPixelsOption = DEFAULT_MAX_PIXELS,
    force: ForceOption = False,
) -> None:
    """Train a model on a prepared dataset or a raw OASIS folder.

    The run folder gets model.safetensors, which the other commands then use by themselves,
    a checkpoint every epoch, metrics.jsonl, and as it goes curves.png and panel.png: some fixed
    validation slices and what is left of them. Ctrl-C stops after the current step and leaves a
    usable model; --resume goes on from there. It ends with the scores of the validation split.
    """
    from oasisvq.codec.entropy import has_range_coder
    from oasisvq.training import command

    if prior_only and not with_prior:
        usage_error("--prior-only and --no-prior exclude each other")
    if prior_only != (model is not None):
        usage_error("--prior-only goes with --model, which names the codec to give a prior")
    overrides = {
        "epochs": epochs,
        "prior_epochs": prior_epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "levels": levels,
        "codebook_size": codebook_size,
    }
    request = command.Request(
        data=data,
        run=output,
        preset=preset.value if preset else None,
        images=images,
        overrides={name: given for name, given in overrides.items() if given is not None},
        seed=seed,
        precision=precision.value if precision else None,
        device=device.value,
        max_minutes=max_minutes,
        compiled=compiled,
        start_from=start_from,
        with_prior=with_prior,
        prior_only=prior_only,
        model=model,
        resume=resume,
        force=force,
        max_pixels=max_pixels,
    )
    with progress_bar("reading slices") as advance, stop_on_signals() as should_stop:
        trained = command.train(request, note, should_stop, advance)
        interrupted = trained is not None and not trained.finished and should_stop()
    if trained is None:
        return
    if not trained.finished:
        score = f"; `oasisvq score {data} --model {output}` scores it" if interrupted else ""
        note(
            f"stopped at step {trained.step:,} of the {trained.what}; {trained.model} is usable{score}; "
            f"`oasisvq train {data} -o {output} --resume` goes on"
        )
    if interrupted:
        raise typer.Exit(INTERRUPTED)
    if trained.has_validation:
        codec = load_codec(trained.model, device)
        if codec.prior is not None and not has_range_coder():
            note("not scored: prior-coded files need constriction; `pip install constriction` does it")
            return
        print_score(codec, trained.dataset, "validation", [], as_json=False)


@contextmanager
def stop_on_signals() -> Iterator[Callable[[], bool]]:
    """Gives a question that turns true when Ctrl-C or SIGTERM asks for a stop.

    Signals are caught from the first time it is asked, when there is something to save; before, and
    the second time, they end the command at once.
    """
    asked = False
    old: dict[int, Any] = {}

    def handle(number: int, frame: object) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        note("stopping after this step; once more to stop at once")

    def should_stop() -> bool:
        if not old:
            old.update({n: signal.signal(n, handle) for n in (signal.SIGINT, signal.SIGTERM)})
        return asked

    try:
        yield should_stop
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


@app.command()
def encode(
    source: Annotated[
        Path,
        typer.Argument(
            help="A grey image (PNG, JPEG, TIFF, WebP), a volume (NIfTI, Analyze), a DICOM file, or a "
            "folder of them."
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="File or, for a folder, folder. [default: scan.codes]"),
    ] = None,
    quality: QualityOption = None,
    axis: Annotated[
        str | None,
        typer.Option(
            "--axis",
            metavar="AXIS",
            help="Of a volume, what its slices follow: axial, coronal, sagittal, or the number of an "
            "axis of the array, 0 to 2. [default: axial, by the affine]",
        ),
    ] = None,
    kind: Annotated[
        ContentName,
        typer.Option(
            "--kind",
            help="Whether it shows a scan or labels, such as a segmentation; labels come back exactly.",
        ),
    ] = ContentName.AUTO,
    lossy: Annotated[
        bool, typer.Option("--lossy", help="Code labels by the model too; says their Dice.")
    ] = False,
    coder: Annotated[
        CoderName | None,
        typer.Option(
            "--coder",
            help="prior: small, needs the model to read the indices; packed: fixed-width bits. "
            "[default: prior where the model has one]",
        ),
    ] = None,
    model: ModelOption = None,
    device: DeviceOption = Device.CPU,
    shard: ShardOption = None,
    max_pixels: MaxPixelsOption = DEFAULT_MAX_PIXELS,
    force: ForceOption = False,
) -> None:
    """Compress an image or a volume to a .codes file, or a folder of them to a folder of .codes files.

    Any size works. A volume comes back with its geometry, an image or volume in its own type and
    range. A folder that holds one DICOM series is one volume: name a .codes file with -o. Of other
    folders the tree is kept; outputs that are there, newer than their originals and as this run would
    make them are skipped, and a bad file does not stop the others.
    """
    from oasisvq import bulk
    from oasisvq.codec.codec import Content, Wish
    from oasisvq.codec.container import SUFFIX
    from oasisvq.codec.headers import Coder
    from oasisvq.files import require_output

    if axis not in (None, "axial", "coronal", "sagittal", "0", "1", "2"):
        usage_error(f"--axis {axis}: expected axial, coronal, sagittal, 0, 1 or 2")
    if lossy and kind is ContentName.SCAN:
        usage_error("--lossy is for labels; leave out --kind scan")
    wish = Wish(quality, Coder[coder.name] if coder else None, Content(kind.value), lossy, axis)
    if bulk.require_source(source) and not (output and output.suffix == SUFFIX):
        folder = output or usage_error(
            "name the folder to write with -o; or a .codes file, if the folder is one DICOM series"
        )
        part = chosen_shard(shard)
        codec = load_codec(model, device)
        with progress_bar("encoding") as advance:
            outcome = bulk.encode_folder(codec, source, folder, wish, force, part, advance, max_pixels)
        finish(outcome, "encoded", folder)
        return
    bulk.refuse_codes(source)
    codes = output or bulk.encoded_name(source)
    require_output(codes, force)
    before = bulk.bytes_of(source)
    codec = load_codec(model, device)
    with progress_bar("encoding") as advance:
        file = bulk.encode_file(codec, source, codes, wish, force, advance, max_pixels)
    held = f", {counted(file.header.slices, 'slice')}" if file.header.volume else ""
    labels = f", {counted(len(file.header.labels), 'label')}" if file.header.labels else ""
    how = ", kept exactly" if file.header.coder is Coder.LABELS else ""
    print_line(
        f"{codes}: {file.file_bytes:,} bytes ({before / file.file_bytes:.1f} times smaller than "
        f"{source.resolve().name}){held}{labels}{how}"
    )
    if lossy and labels:
        from oasisvq.evaluation.scan_score import dice_of
        from oasisvq.scans.scan import read_scan

        restored = codec.decode_codes(codec.codes_of(file), str(codes))
        print_line(dice_line(dice_of(read_scan(source, axis, max_pixels), restored, file.header)))


def dice_line(dice: dict[int, float]) -> str:
    """Dice of each label, in one line."""
    return "Dice: " + ", ".join(f"label {label} {value:.4f}" for label, value in dice.items())


@app.command()
def decode(
    source: Annotated[
        Path,
        typer.Argument(help="A .codes file, a folder of them, or an array file that `export` wrote."),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            help="PNG or TIFF file, of a volume .nii.gz, .nii, .hdr or .img; for many, folder. "
            "[default: scan.decoded.png, .nii.gz, or .img where a pair was encoded]",
        ),
    ] = None,
    model: ModelOption = None,
    device: DeviceOption = Device.CPU,
    shard: ShardOption = None,
    max_pixels: MaxPixelsOption = DEFAULT_MAX_PIXELS,
    force: ForceOption = False,
) -> None:
    """Restore the scan of a .codes file, or all scans of a folder or of an exported array file.

    It needs the model that made the file, and refuses any other.
    """
    from oasisvq import bulk
    from oasisvq.tokens import TOKEN_SUFFIXES

    is_folder = bulk.require_source(source)
    if is_folder or source.suffix in TOKEN_SUFFIXES:
        folder = output or usage_error("name the folder to write with -o")
        part = chosen_shard(shard)
        codec = load_codec(model, device)
        decode_many = bulk.decode_folder if is_folder else bulk.decode_tokens
        with progress_bar("decoding") as advance:
            outcome = decode_many(codec, source, folder, force, part, advance, max_pixels)
        finish(outcome, "decoded", folder)
        return
    written = bulk.decode_target(source, output, force)
    codec = load_codec(model, device)
    with progress_bar("decoding") as advance:
        bulk.decode_file(codec, source, written, force, advance, max_pixels)
    print_line(f"{written}: restored, {bulk.bytes_of(written):,} bytes")


def chosen_shard(text: str | None) -> "Shard":
    """The shard that --shard names, or the one that torchrun or SLURM gave this process."""
    from oasisvq.files import parse_shard, shard_of_environment

    if text is None:
        part, launcher = shard_of_environment()
        if launcher:
            note(f"shard {part.index}/{part.count}, given by {launcher}")
        return part
    try:
        return parse_shard(text)
    except ValueError:
        usage_error(f"--shard {text}: expected i/n with i from 0 to n-1, such as 0/8")


@app.command()
def show(
    source: Annotated[Path, typer.Argument(help="A .codes file.")],
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", help="Picture to write: .png, .svg or .pdf. [default: scan.panel.png]"
        ),
    ] = None,
    original: Annotated[
        Path | None,
        typer.Option(
            "--original",
            help="What was encoded. [default: the image or volume of the same name beside it]",
        ),
    ] = None,
    slice_number: Annotated[
        int | None,
        typer.Option(
            "--slice",
            metavar="N",
            help="Of a volume, from 0 in the order that slices are coded. [default: the middle one]",
        ),
    ] = None,
    slice_count: Annotated[
        int | None,
        typer.Option("--slices", metavar="K", min=1, help="Of a volume, so many, evenly spaced."),
    ] = None,
    model: ModelOption = None,
    device: DeviceOption = Device.CPU,
    max_pixels: MaxPixelsOption = DEFAULT_MAX_PIXELS,
    force: ForceOption = False,
) -> None:
    """Picture a .codes file: original | code map of each level | reconstruction | signed error.

    Codes with similar vectors have similar colours; where nothing is coded, the map is grey. SSIM and
    PSNR are those of `score FILE`, of the slice that is shown. Labels kept exactly have one map.
    """
    from oasisvq.codec.container import read_codes_file
    from oasisvq.evaluation import figures, panels
    from oasisvq.files import require_output

    if slice_number is not None and slice_count is not None:
        usage_error("--slice and --slices exclude each other")
    picture = output or source.with_suffix(".panel.png")
    if picture.suffix.lower() not in figures.SUFFIXES:
        usage_error(f"{picture}: expected a .png, .svg or .pdf")
    require_output(picture, force)
    read_codes_file(source)  # what is wrong with it is said before anything is looked for
    codec = load_codec(model, device)
    found = original or panels.find_original(source)
    note(f"original: {found}" if found else "no original beside it; name it with --original")
    try:
        view = panels.open_view(codec, source, found, max_pixels)
    except ImageError as error:
        if original:
            raise
        note(f"{error}; shown without it")
        view = panels.open_view(codec, source, None, max_pixels)
    places = panels.choose_places(view.codes.header, slice_number, slice_count)
    slices = [panels.view_slice(codec, view, place) for place in places]
    figures.write_figure(panels.draw_panel(view, slices, codec.file.codebooks), picture)
    for each in slices:
        print_line(f"{picture}: {panels.describe_slice(view, each)}")


@app.command()
def export(
    source: Annotated[Path, typer.Argument(help="A folder of .codes files, all of one model.")],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Array file to write: .npz or .safetensors.")
    ],
    model: ModelOption = None,
    force: ForceOption = False,
) -> None:
    """Gather the indices of many .codes files as one array, for those who train on the tokens.

    The file holds `indices` (slices, levels, h, w) with `names` and `subjects`; all slices lie on
    one grid, and 65535 marks where one has no index. `decode` takes it back to images.
    """
    from oasisvq.files import require_output
    from oasisvq.tokens import gather, write_tokens

    require_output(output, force)
    tokens = gather(source, model)
    write_tokens(tokens, output)
    shape = " × ".join(f"{side:,}" for side in tokens.arrays["indices"].shape)
    subjects = len(set(tokens.subjects) - {""})
    print_line(f"{output}: {shape} indices (slices, levels, h, w) of {subjects:,} known subjects")


@app.command()
def score(
    data: Annotated[
        Path,
        typer.Argument(
            help="A prepared dataset, a raw OASIS folder, or a single image, volume or DICOM file."
        ),
    ] = Path("data"),
    split: Annotated[str, typer.Option("--split", help=" | ".join(SPLITS))] = "validation",
    quality: Annotated[
        list[int] | None,
        typer.Option(
            "-q",
            "--quality",
            metavar="LEVELS",
            help="Levels to keep; give it several times for several. [default: the model's]",
        ),
    ] = None,
    images: Annotated[
        Images | None,
        typer.Option("--images", help="Of a raw folder. [default: what the model was trained on]"),
    ] = None,
    size: Annotated[
        int | None,
        typer.Option("--size", help="Of a raw folder. [default: what the model was trained on]"),
    ] = None,
    model: ModelOption = None,
    device: DeviceOption = Device.CPU,
    sample_count: Annotated[
        int | None,
        typer.Option(
            "--samples",
            min=2,
            help="Instead: the Fréchet distance of so many samples of the prior to the split, and of as "
            "many training slices.",
        ),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            "--against",
            metavar="CODECS",
            help="Instead: every quality beside avif,jpegxl,webp,jpeg2000,jpeg on the same slices, with "
            "BD-rates.",
        ),
    ] = None,
    every: Annotated[int, typer.Option("--every", min=1, help="Only every N-th slice.")] = 1,
    reuse: Annotated[
        Path | None,
        typer.Option(
            "--reuse",
            metavar="FILE",
            help="With --against: take the classic codecs from what an earlier run printed with --json.",
        ),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(
            "--report",
            metavar="FILE",
            help="Also write one HTML page of all of it, --against and --samples included, that needs "
            "no network.",
        ),
    ] = None,
    figures: Annotated[
        Path | None,
        typer.Option(
            "--figures", metavar="DIR", help="Also write its charts as PNG and SVG, for a paper."
        ),
    ] = None,
    as_json: JsonOption = False,
    max_pixels: MaxPixelsOption = DEFAULT_MAX_PIXELS,
    force: ForceOption = False,
) -> None:
    """Measure size and quality over a split: each slice is encoded to a real file and decoded.

    Bytes are whole files. SSIM is scikit-image's with gaussian_weights=True, sigma=1.5,
    use_sample_covariance=False on a range of 255; foreground SSIM is the mean of its map where the
    original is above 20. An all-black image is scored beside it, since it does not score 0. A report
    holds pictures of scans.
    """
    from oasisvq.models import RUN_FOLDER

    if (report or figures) and data.is_file():
        usage_error("--report and --figures are of a split; name a dataset")
    refuse_to_replace(report, figures, force)
    codec = load_codec(model, device)
    if data.is_file():
        print_scan_score(codec, data, quality or [], as_json, max_pixels)
        return
    trained_on, trained_size = codec.card.get("images"), codec.card.get("size")
    wanted = images or (Images(trained_on) if trained_on in set(Images) else Images.SCANS)
    side = size or (trained_size if type(trained_size) is int else 256)
    with opened_dataset(data, RUN_FOLDER / "dataset", wanted, side, max_pixels) as dataset:
        if images not in (None, dataset.images) or size not in (None, dataset.size):
            raise DatasetError(
                f"{data}: was prepared from {dataset.images.value} at {dataset.size} pixels; leave out "
                "--images and --size"
            )
        if report or figures:
            peers = against.split(",") if against else []
            measured = measure_report(
                codec, model, dataset, split, quality or [], every, peers, reuse, sample_count
            )
            print_report(measured, report, figures, as_json)
            return
        if sample_count is not None:
            print_sample_score(codec, dataset, split, sample_count, as_json)
            return
        if against is not None:
            print_comparison(codec, dataset, split, against.split(","), every, reuse, as_json)
            return
        print_score(codec, dataset, split, quality or [], as_json, every)


def refuse_to_replace(report: Path | None, figures: Path | None, force: bool) -> None:
    """Before anything is measured, raise if something is in the way of a report or its figures."""
    from oasisvq.errors import FileError
    from oasisvq.files import require_output

    if report:
        require_output(report, force)
    if figures and not force and figures.exists() and (figures.is_file() or any(figures.iterdir())):
        raise FileError(f"{figures}: exists and is not empty; pass -f to write into it")


def measure_report(
    codec: "Codec",
    model: Path | None,
    dataset: "Dataset",
    split: str,
    qualities: list[int],
    every: int,
    peers: list[str],
    reuse: Path | None,
    sample_count: int | None,
) -> "Report":
    """Everything that a report tells, each part with its own progress."""
    from oasisvq.evaluation.baselines import compare, read_comparison, require_peers
    from oasisvq.evaluation.observations import observe
    from oasisvq.evaluation.report import SAMPLES, Report
    from oasisvq.evaluation.samples import Request, draw_beside, score_samples
    from oasisvq.models import choose_model

    known = read_comparison(reuse) if reuse else None
    require_peers(name for name in peers if known is None or name not in known.curves)
    comparison = sample_score = drawn = None
    if codec.prior is not None or sample_count is not None:  # first, for it may be refused
        with progress_bar("drawing") as advance:
            drawn = draw_beside(codec, Request(SAMPLES), dataset, advance)
    with progress_bar(f"scoring {split}") as advance:
        seen = observe(codec, dataset, split, qualities, every, advance)
    if peers:
        with progress_bar("comparing") as advance:
            comparison = compare(codec, dataset, split, peers, every, known, advance)
    if sample_count is not None:
        with progress_bar("drawing") as advance:
            sample_score = score_samples(codec, dataset, split, sample_count, advance=advance)
    path = choose_model(model, Path.cwd()).path
    return Report(codec, path, dataset, every, seen, comparison, drawn, sample_score)


def print_report(report: "Report", page: Path | None, figures: Path | None, as_json: bool) -> None:
    """Write a report and its figures, and print its scores."""
    from oasisvq.evaluation.report import write_figures, write_report

    score, comparison, samples = report.seen.score, report.comparison, report.sample_score
    if as_json:
        more = {"comparison": comparison.as_dict()} if comparison else {}
        print_json(score.as_dict() | more | ({"samples": samples._asdict()} if samples else {}))
    else:
        for line in score_table(score):
            print_line(line)
        if comparison:
            print_curves(comparison)
        if samples:
            print_distance(samples, score.split)
    if page:
        write_report(report, page)
        note(f"{page}: {page.stat().st_size:,} bytes; it holds pictures of scans")
    if figures:
        note(f"{figures}: {counted(write_figures(report, figures), 'figure')}, each as PNG and SVG")


def print_scan_score(
    codec: "Codec", path: Path, qualities: list[int], as_json: bool, max_pixels: int
) -> None:
    """Score a codec on one image or volume and print the table or JSON."""
    from oasisvq.codec.codec import Wish
    from oasisvq.evaluation.scan_score import RANGE_QUANTILE, score_scan

    wishes = [Wish(levels) for levels in qualities or [codec.config.default_levels]]
    with progress_bar("scoring") as advance:
        scores = score_scan(codec, path, wishes, advance, max_pixels)
    if as_json:
        print_json([each.as_dict() for each in scores])
        return
    print_line("quality       bytes  bits/voxel  SSIM    foreground SSIM  PSNR dB  worst SSIM (slice)")
    for each in scores:
        name = str(each.levels) if each.levels else "exact"
        print_line(
            f"{name:>7} {each.file_bytes:11,}  {each.bits_per_voxel:10.4f}  {each.ssim:.4f}  "
            f"{each.foreground_ssim:15.4f}  {each.psnr:7.2f}  {each.worst_ssim:.4f} ({each.worst_slice})"
        )
        if each.dice:
            print_line(dice_line(each.dice))
    print_line(
        f"SSIM and PSNR on a range of {scores[0].data_range:g}: from the darkest value to the "
        f"{RANGE_QUANTILE:.1%} quantile"
    )


def print_comparison(
    codec: "Codec",
    dataset: "Dataset",
    split: str,
    peers: list[str],
    every: int,
    reuse: Path | None,
    as_json: bool,
) -> None:
    """Compare a codec with classic ones on an open dataset and print the tables or JSON."""
    from oasisvq.evaluation.baselines import compare, read_comparison

    known = read_comparison(reuse) if reuse else None
    with progress_bar(f"comparing on {split}") as advance:
        result = compare(codec, dataset, split, peers, every, known, advance)
    if as_json:
        print_json(result.as_dict())
        return
    print_line(f"{result.split}: {result.slices:,} slices, model {result.fingerprint[:8]}; means")
    print_curves(result)


def print_curves(result: "Comparison") -> None:
    """Print a comparison as tables."""
    from oasisvq.evaluation.baselines import PEERS

    for name, points in result.curves.items():
        says = f" ({PEERS[name].says})" if name in PEERS else ""
        print_line(f"{name}{says}")
        print_line("  setting        bytes    SSIM  foreground  PSNR dB  worst SSIM  encode s  decode s")
        for point in points:
            print_line(
                f"  {point.setting:<12} {point.file_bytes:7,.0f}  {point.ssim:.4f}      "
                f"{point.foreground_ssim:.4f}    {point.psnr:5.2f}      {point.worst_ssim:.4f}    "
                f"{point.encode_seconds:.4f}    {point.decode_seconds:.4f}"
            )
    for name, rate in result.bd_rates.items():
        shown = ", ".join(
            f"{measure.replace('_', ' ')} " + ("no common range" if value is None else f"{value:+.1f} %")
            for measure, value in rate._asdict().items()
        )
        print_line(f"BD-rate against {name}: {shown}")


def print_sample_score(
    codec: "Codec", dataset: "Dataset", split: str, count: int, as_json: bool
) -> None:
    """Score samples of a codec's prior against an open dataset and print the result."""
    from oasisvq.evaluation.samples import score_samples

    with progress_bar("drawing") as advance:
        result = score_samples(codec, dataset, split, count, advance=advance)
    if as_json:
        print_json(result._asdict())
        return
    print_distance(result, split)


def print_distance(result: "SampleScore", split: str) -> None:
    """Print how far samples are from a split."""
    ratio = result.frechet_samples / result.frechet_training
    print_line(
        f"Fréchet distance to {result.slices:,} slices of {split}, in latents averaged over quarters: "
        f"{result.samples:,} samples {result.frechet_samples:.4f}, as many training slices "
        f"{result.frechet_training:.4f}, ratio {ratio:.2f}"
    )


@contextmanager
def opened_dataset(
    data: Path, prepared: Path, images: Images, size: int, max_pixels: int
) -> Iterator["Dataset"]:
    """A prepared dataset, or a raw folder: as the last run prepared it, else prepared for now."""
    import tempfile

    from oasisvq.data.dataset import is_prepared, open_dataset
    from oasisvq.data.preprocess import is_prepared_from
    from oasisvq.data.preprocess import preprocess as prepare

    if is_prepared(data):
        yield open_dataset(data)
    elif is_prepared_from(prepared, data, images, size):
        yield open_dataset(prepared)
    else:
        with tempfile.TemporaryDirectory(prefix="oasisvq-") as folder:
            with progress_bar("reading slices") as advance:
                dataset = prepare(
                    data,
                    Path(folder) / "dataset",
                    images=images,
                    size=size,
                    jobs=None,
                    advance=advance,
                    tell=note,
                    max_pixels=max_pixels,
                )
            yield dataset


def print_score(
    codec: "Codec",
    dataset: "Dataset",
    split: str,
    qualities: list[int],
    as_json: bool,
    every: int = 1,
) -> None:
    """Score a codec on an open dataset and print the table or JSON."""
    from oasisvq.evaluation.score import score_split

    with progress_bar(f"scoring {split}") as advance:
        wanted = qualities or [codec.config.default_levels]
        result = score_split(codec, dataset, split, wanted, advance, every)
    if as_json:
        print_json(result.as_dict())
        return
    for line in score_table(result):
        print_line(line)


def score_table(result: "SplitScore") -> list[str]:
    """Scores as lines of text."""
    head = "quality    bytes  bits/px  vs PNG  SSIM             foreground SSIM  PSNR dB"
    lines = [
        f"{result.split}: {result.slices:,} slices of {counted(result.subjects, 'subject')}, "
        f"{result.size}×{result.size}, model {result.fingerprint[:8]}; mean ± deviation of subjects",
        head,
    ]
    lines += [_score_line(str(each.levels), each) for each in result.qualities]
    lines.append(_score_line("black", result.black))
    for each in result.qualities:
        lines.append(f"worst at quality {each.levels}: {each.worst_slice}, SSIM {each.worst_ssim:.4f}")
        if each.dice:
            dice = ", ".join(f"label {label} {value:.4f}" for label, value in each.dice.items())
            lines.append(f"Dice at quality {each.levels}: {dice}")
    return lines


def _score_line(name: str, row: "QualityScore") -> str:
    size = (
        f"{row.file_bytes:8,.0f} {row.bits_per_pixel:8.4f} {row.ratio_to_png:6.1f}×"
        if row.levels
        else f"{'-':>8} {'-':>8} {'-':>7}"
    )
    spreads = "  ".join(
        f"{spread.mean:.4f} ± {spread.deviation:.4f}" for spread in (row.ssim, row.foreground_ssim)
    )
    return f"{name:>7} {size}  {spreads}  {row.psnr.mean:.2f}"


@app.command()
def sample(
    output: Annotated[
        Path,
        typer.Option(
            "-o",
            "--output",
            help="A .png for all in one picture, a .codes for one, or a folder for single files.",
        ),
    ],
    count: Annotated[int, typer.Option("-n", "--count", min=1, help="How many.")] = 16,
    quality: QualityOption = None,
    temperature: Annotated[
        float,
        typer.Option(
            "--temperature",
            min=0.05,
            max=10,
            help="Below 1: nearer the likeliest brain; above: wilder.",
        ),
    ] = 0.75,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Another seed, other brains.")] = 0,
    as_codes: Annotated[
        bool, typer.Option("--codes", help="Into a folder: .codes files in place of PNGs.")
    ] = False,
    neighbours: Annotated[
        Path | None,
        typer.Option(
            "--neighbours",
            metavar="DATA",
            help="Prepared dataset: show beside each sample the training slice nearest to it.",
        ),
    ] = None,
    model: ModelOption = None,
    device: DeviceOption = Device.CPU,
    force: ForceOption = False,
) -> None:
    """Draw new synthetic brains from the model's prior.

    They belong to no person. At temperature 1 a seed gives the same codes on every machine.
    """
    from oasisvq.evaluation import samples

    is_picture = output.suffix.lower() == ".png"
    if not is_picture and output.suffix not in ("", ".codes") and not output.is_dir():
        usage_error(f"{output}: expected a .png, a .codes or a folder")
    if output.suffix == ".codes" and count != 1:
        usage_error(f"{output}: a .codes file holds one slice; pass -n 1, or name a folder")
    if neighbours is not None and not is_picture:
        usage_error("--neighbours makes a picture; name a .png with -o")
    if as_codes and is_picture:
        usage_error(f"{output}: --codes writes .codes files; name a folder with -o")
    codec = load_codec(model, device)
    request = samples.Request(count, seed, quality, temperature)
    with progress_bar("drawing") as advance:
        if not is_picture:
            written = samples.write_files(codec, request, output, as_codes, force, advance)
            print_line(f"{output}: {counted(written, 'sample')}")
            return
        found = samples.write_picture(codec, request, output, neighbours, force, advance)
    print_line(f"{output}: {counted(count, 'sample')}")
    if found:
        closest = max(found, key=lambda each: each.ssim)
        mean = sum(each.ssim for each in found) / len(found)
        print_line(
            f"SSIM with the nearest training slice: mean {mean:.4f}, closest {closest.ssim:.4f} "
            f"({closest.source})"
        )


@app.command()
def info(
    path: Annotated[Path, typer.Argument(help="A .codes file, a model or run folder, or a dataset.")],
    as_json: JsonOption = False,
) -> None:
    """Say what a .codes file, a model or a prepared dataset is."""
    from oasisvq import describe

    facts = describe.describe(path)
    if as_json:
        print_json(facts)
        return
    width = max(len(key) for key in facts)
    for key, fact in facts.items():
        shown = json.dumps(fact) if isinstance(fact, (dict, list)) else str(fact)
        print_line(f"{key:<{width}}  {shown}")


@app.command()
def verify(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="PATH",
            help="Files and folders. Below a folder all .codes files, model.safetensors and prepared "
            "datasets count.",
        ),
    ],
    deep: Annotated[
        bool,
        typer.Option(
            "--deep",
            help="Decode the payloads too, build the networks of models, and compare the arrays of "
            "datasets with their checksums.",
        ),
    ] = False,
    model: ModelOption = None,
    shard: ShardOption = None,
    max_pixels: MaxPixelsOption = DEFAULT_MAX_PIXELS,
    as_json: JsonOption = False,
) -> None:
    """Check that .codes files, models and prepared datasets are whole, and the codes of this model.

    Each that is not gets a line with the reason, and the exit code is 1. A .codes file is read to its
    checksum and its model compared with the one that would decode it; no networks are needed.
    """
    from oasisvq import verify as verification
    from oasisvq.codec.modelfile import read_model
    from oasisvq.models import choose_model

    def choose() -> "ModelFile":
        choice = choose_model(model, Path.cwd())
        file = read_model(choice.path)
        note(model_line(file, choice))
        return file

    verifier = verification.Verifier(choose, deep, max_pixels)
    with progress_bar("verifying") as advance:
        verdicts = verification.verify(paths, verifier, chosen_shard(shard), advance)
        all_whole = (print_verdicts_as_json if as_json else print_verdicts)(verdicts)
    if not all_whole:
        raise typer.Exit(1)


def print_verdicts(verdicts: Iterable["Verdict"]) -> bool:
    """Print a line for each that is not whole, as it comes, and their numbers; whether all are whole."""
    from oasisvq.verify import State

    totals = dict.fromkeys(State, 0)
    for verdict in verdicts:
        totals[verdict.state] += 1
        if verdict.reason:
            print_line(verdict.reason)
    checked, whole = sum(totals.values()), totals.pop(State.WHOLE)
    others = "".join(f", {count:,} {state.value}" for state, count in totals.items() if count)
    print_line(f"{checked:,} checked: {whole:,} whole{others}")
    return not others


def print_verdicts_as_json(verdicts: Iterable["Verdict"]) -> bool:
    """Print one JSON object with all verdicts, each as it comes; whether all are whole."""
    from oasisvq.verify import State

    totals = dict.fromkeys((state.name.lower() for state in State), 0)
    before = '{"files": [\n  '
    for verdict in verdicts:
        totals[verdict.state.name.lower()] += 1
        print(before + json.dumps(verdict.as_dict()), end="")
        before = ",\n  "
    checked = sum(totals.values())
    print("\n]" if checked else '{"files": []', end="")
    print(f', "totals": {json.dumps({"checked": checked, **totals})}}}')
    return checked == totals["whole"]


def usage_error(message: str) -> NoReturn:
    """Say what is wrong with the call and exit with 2."""
    note(f"oasisvq: {message}")
    raise typer.Exit(2)


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command line; every error of a user or a file becomes one line and exit code 1."""
    # The prior's products are small: threads of NumPy's BLAS cost more than they give, and they would
    # fight with those of torch. It is read when NumPy is imported, which only commands do.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # not every terminal has a ×
    given = sys.argv[1:] if arguments is None else arguments
    try:
        try:
            code = app(args=given, prog_name="oasisvq", standalone_mode=False)
        finally:
            sys.stdout.flush()
    except UsageError as error:
        _show_usage_error(error, given)
        sys.exit(2)
    except (typer.Abort, KeyboardInterrupt):
        sys.exit(INTERRUPTED)
    except OasisVQError as error:
        note(f"oasisvq: {error}")
    except MemoryError as error:
        note(f"oasisvq: too large for this machine's memory ({error})")
    except BrokenPipeError:
        _abandon_stdout()
    except OSError as error:
        where = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, (str, bytes)) else ""
        note(f"oasisvq: {where}{error.strerror or error}")
        _abandon_stdout()
    else:
        sys.exit(code or 0)
    sys.exit(1)


def _show_usage_error(error: Any, given: list[str]) -> None:  # noqa: ANN401 - see `UsageError`
    """Print what typer says of a wrong call; it quotes arguments, which may be names of files."""
    message = error.format_message()
    if not "".join(given).isprintable():
        error.format_message = lambda: printable(message)
    error.show()


def _abandon_stdout() -> None:
    """What could not be written must not be tried again when Python ends."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
