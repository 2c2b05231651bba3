"""`oasisvq encode`: an image, a volume or a folder of them becomes `.codes` files."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from oasisvq.cli.chosen import (
    choose_encoder,
    chosen_file,
    chosen_shard,
    load_encoder,
    names_folder,
    refuse_pipes,
)
from oasisvq.cli.dry_run import plan_many, plan_one
from oasisvq.cli.exits import finish, usage_error
from oasisvq.cli.options import (
    CoderName,
    ContentName,
    ExcludeOption,
    ForceOption,
    IncludeOption,
    JobsOption,
    JsonOption,
    LogOption,
    LosslessOption,
    MaxBytesOption,
    MaxErrorOption,
    MaxPixelsOption,
    MinForegroundOption,
    MinPsnrOption,
    MinSsimOption,
    ModelOption,
    QuickOption,
    QuietOption,
    ShardOption,
)
from oasisvq.cli.printing import counted, dice_line, note, print_json, print_line, progress_bar
from oasisvq.errors import OasisVQError
from oasisvq.scans.limits import DEFAULT_MAX_PIXELS

if TYPE_CHECKING:
    from oasisvq.codec.codes import CodesFile
    from oasisvq.codec.wish import Wish
    from oasisvq.scans.source import Source
    from oasisvq.stacks import Taken


def encode(
    inputs: Annotated[
        list[Path],
        typer.Argument(
            metavar="INPUT",
            help="Grey images (PNG, JPEG, TIFF, WebP, BMP, GIF), volumes (NIfTI, Analyze, MGH, MINC, a "
            "TIFF of several pages), DICOM files, or folders of them.",
        ),
    ],
    output: Annotated[
        str | None,
        typer.Option(
            "-o",
            "--output",
            metavar="PATH",
            help="File to write. It is a folder if it exists as one, if it ends with a slash, or if the "
            "input is a folder or several files. [default: beside the input, with .codes for its "
            "ending]",
        ),
    ] = None,
    quality: Annotated[
        int | None,
        typer.Option(
            "-q",
            "--quality",
            metavar="LEVELS",
            help="Levels to keep, 1 to 8 (volumes: 6), the same for every file. With the bundled model "
            "a typical slice has: 1: 340 bytes, SSIM 0.93; 2: 710 bytes, SSIM 0.96; 4: 1,720 bytes, "
            "SSIM 0.98; 8: 3,790 bytes, SSIM 0.99. To be sure of a quality, ask for it with --min-ssim. "
            "[default: the model's; the bundled one has 2]",
        ),
    ] = None,
    min_ssim: MinSsimOption = None,
    min_foreground_ssim: MinForegroundOption = None,
    min_psnr: MinPsnrOption = None,
    max_bytes: MaxBytesOption = None,
    max_error: MaxErrorOption = None,
    lossless: LosslessOption = False,
    axis: Annotated[
        str | None,
        typer.Option(
            "--axis",
            metavar="AXIS",
            help="Cut a volume into axial, coronal or sagittal slices, or along axis 0, 1 or 2 of its "
            "array. [default: axial, by the affine]",
        ),
    ] = None,
    kind: Annotated[
        ContentName,
        typer.Option(
            "--kind",
            help="What the input shows: a scan, or labels such as a segmentation. Labels come back "
            "exactly.",
        ),
    ] = ContentName.AUTO,
    volume: Annotated[
        str | None,
        typer.Option(
            "--volume",
            metavar="N|all",
            help="If a file or DICOM folder has several volumes (time points, echoes, series), take "
            "number N, counted from 0; or all, each to its own .codes file.",
        ),
    ] = None,
    stacks: Annotated[
        bool,
        typer.Option(
            "--stacks",
            help="Code all slices of one subject in one file, found by names such as "
            "case_001_slice_0.png and by sizes. Mostly smaller than single files of equal quality. "
            "`decode` gives the images back.",
        ),
    ] = False,
    lossy: Annotated[
        bool, typer.Option("--lossy", help="Code labels with the model too, and say the Dice score.")
    ] = False,
    coder: Annotated[
        CoderName | None,
        typer.Option(
            "--coder",
            help="prior: small files, whose indices can be read only with the model; packed: "
            "fixed-width bits. [default: prior if the model has one]",
        ),
    ] = None,
    model: ModelOption = None,
    no_model: Annotated[
        bool,
        typer.Option(
            "--no-model",
            help="Do not copy the model into the output folder. With the copy, `decode` needs nothing "
            "else.",
        ),
    ] = False,
    include: IncludeOption = None,
    exclude: ExcludeOption = None,
    shard: ShardOption = None,
    jobs: JobsOption = 1,
    max_pixels: MaxPixelsOption = DEFAULT_MAX_PIXELS,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Write nothing. Say what would be done, with sizes estimated from a few files.",
        ),
    ] = False,
    log: LogOption = None,
    quick: QuickOption = False,
    force: ForceOption = False,
    as_json: JsonOption = False,
    _quiet: QuietOption = False,
) -> None:
    """Compress images and volumes to .codes files.

    Any size works. Images and volumes come back in their own type and range, volumes with their
    geometry. A folder keeps its tree. A folder that holds one DICOM series is one volume: name a .codes
    file with -o. A run over many files skips outputs that are newer than their originals and have the
    same settings. A bad file does not stop the run.

    A demand such as --min-ssim or --max-bytes holds for each file. A volume is one file.

    At the end it prints the quality of the decoded files: SSIM (scikit-image's, with a Gaussian of 1.5),
    foreground SSIM, PSNR, and the largest error of any voxel. It names the intensity range on which SSIM
    and PSNR are measured.
    """
    from oasisvq.codec.container import SUFFIX
    from oasisvq.codec.content import Content
    from oasisvq.codec.demand import Demands, wrong_with
    from oasisvq.codec.headers import Coder
    from oasisvq.codec.wish import Wish
    from oasisvq.encoding import ALL, encode_many
    from oasisvq.folders import Globs
    from oasisvq.kept import log_to
    from oasisvq.stacks import Taken

    refuse_pipes(*inputs, output)
    if axis not in (None, "axial", "coronal", "sagittal", "0", "1", "2"):
        usage_error(f"--axis {axis}: expected axial, coronal, sagittal, 0, 1 or 2")
    if lossy and kind is ContentName.SCAN:
        usage_error("--lossy is for labels; leave out --kind scan")
    chosen = chosen_volume(volume)
    bound = chosen_bound(max_error, lossless)
    if lossy and bound is not None:
        usage_error("--lossy codes labels by the model, without a largest error; leave one out")
    if dry_run and log:
        usage_error("--dry-run writes nothing, so it writes no --log either; leave one out")
    demands = Demands(min_ssim, min_foreground_ssim, min_psnr, max_bytes)
    if wrong := wrong_with(demands, quality, lossy):
        usage_error(wrong)
    how = Coder[coder.name] if coder else None
    wish = Wish(quality, how, Content(kind.value), lossy, axis, bound, demands, feedback=not quick)
    names_codes = output is not None and not names_folder(output) and Path(output).suffix == SUFFIX
    if len(inputs) > 1 and names_codes:
        usage_error(f"{output}: a {SUFFIX} file holds one scan; name a folder for several inputs")
    is_one = len(inputs) == 1 and chosen != ALL and (names_codes or not inputs[0].is_dir())
    if is_one and output is not None and not names_codes and not names_folder(output):
        usage_error(
            f"{output}: encode writes {SUFFIX} files; end the name with {SUFFIX}, or with / for a folder"
        )
    if chosen == ALL and names_codes:
        usage_error(f"{output}: a {SUFFIX} file holds one volume; name a folder for all of them")
    if stacks and len(inputs) == 1 and not inputs[0].is_dir():
        usage_error("--stacks takes a folder, or several images")
    taken = Taken(Globs(tuple(include or ()), tuple(exclude or ())), stacks)
    if is_one:
        encode_one(
            inputs[0],
            output,
            wish,
            chosen,
            model,
            max_pixels,
            force,
            as_json,
            log,
            not quick,
            dry_run,
            taken,
        )
        return
    if output is None and any(path.is_dir() for path in inputs):
        usage_error(
            "a folder needs an output: name a folder with -o, or a .codes file if it is one DICOM series"
        )
    folder, part = Path(output) if output else None, chosen_shard(shard)
    if dry_run:
        plan_many(inputs, folder, wish, force, part, model, max_pixels, chosen, taken, as_json)
        return
    carries_model = folder is not None and not no_model
    codec = choose_encoder(model, folder if carries_model else None)
    with log_to(log, force) as told, progress_bar("encoding") as advance:
        outcome = encode_many(
            codec,
            inputs,
            folder,
            wish,
            force,
            part,
            advance,
            max_pixels,
            jobs,
            carries_model,
            chosen,
            measures=not quick,
            log=told,
            taken=taken,
        )
    finish(outcome, "encoded", folder, as_json)


def chosen_volume(text: str | None) -> int | None:
    """The number of a volume, or all of them; anything else is a usage error."""
    from oasisvq.encoding import ALL

    if text is None or text == "all":
        return None if text is None else ALL
    if not (text.isascii() and text.isdigit()):
        usage_error(f"--volume {text}: expected a number from 0, or all")
    return int(text)


def chosen_bound(max_error: float | None, lossless: bool) -> float | None:
    """The largest error that `--max-error` and `--lossless` ask for."""
    if lossless and max_error:
        usage_error(
            f"--lossless means --max-error 0; leave out either --lossless or --max-error {max_error:g}"
        )
    if lossless:
        return 0.0
    if max_error is not None and not 0 <= max_error < math.inf:
        usage_error(f"--max-error {max_error:g}: expected a finite number from 0")
    return max_error


def one_source(path: Path, taken: "Taken", max_pixels: int) -> "Source":
    """What a path holds: an image, a volume, a DICOM series or, if stacks are taken, a stack."""
    from oasisvq.encoding import source_to_encode
    from oasisvq.folders import EVERYTHING
    from oasisvq.stacks import only_stack

    if taken.stacks:
        return only_stack(path, max_pixels, taken.globs)
    if path.is_dir() and taken.globs != EVERYTHING:
        usage_error(
            "--include and --exclude choose the files of a folder; a DICOM series is coded whole"
        )
    return source_to_encode(path)


def encode_one(
    path: Path,
    output: str | None,
    wish: "Wish",
    volume: int | None,
    model: Path | None,
    max_pixels: int,
    force: bool,
    as_json: bool,
    log: Path | None,
    measures: bool,
    is_dry: bool,
    taken: "Taken",
) -> None:
    """Encode one scan and print the result; with --dry-run, print what would be done."""
    from oasisvq.bulk import Outcome, Result
    from oasisvq.codec.content import what_is_assumed
    from oasisvq.encoding import assumptions_of, encode_file, encoded_name, one_or_all
    from oasisvq.files import require_output
    from oasisvq.kept import log_row, log_to

    (source,) = one_or_all(one_source(path, taken, max_pixels), volume, max_pixels)
    codes = encoded_name(source)
    if output:
        codes = chosen_file(output, codes, makes=not is_dry) if names_folder(output) else Path(output)
    if is_dry:
        if codes.parent.is_dir() or not names_folder(output or ""):
            require_output(codes, force)
        plan_one(source, codes, wish, model, max_pixels, as_json)
        return
    require_output(codes, force)
    codec = load_encoder(model)
    with log_to(log, force) as told:
        try:
            with progress_bar("encoding") as advance:
                file, kept = encode_file(
                    codec, source, codes, wish, force, advance, max_pixels, measures=measures
                )
        except OasisVQError as error:
            told(log_row(source.path, codes, "failed", None, str(error)))
            raise
        told(log_row(source.path, codes, "encoded", kept))
    assumed = assumptions_of(source, file.header, wish)
    if as_json:
        outcome = Outcome()
        name = str(source.path)
        outcome.add(Result(source.size, file.file_bytes, tuple(assumed), name=name, kept=kept))
        print_json(outcome.as_dict())
        return
    print_line(encoded_line(source, codes, file, says_levels=wish.demands.are_any))
    if kept.measure and kept.bound != 0:
        print_line(f"kept: {kept.measure.words}")
    if kept.unlike and not wish.demands.of_quality.are_any:
        from oasisvq.kept import WAY_OUT

        note(f"{kept.unlike}: {WAY_OUT}")
    if "labels" in assumed:
        note(what_is_assumed(file.header))
    if "unplaced" in assumed:
        note(
            f"{source.path}: Analyze does not store the orientation: slices follow the third axis; "
            "--axis chooses another"
        )
    if wish.lossy and file.header.labels:
        from oasisvq.evaluation.scan_score import dice_of
        from oasisvq.scans.scan import read_scan

        restored = codec.decode_codes(codec.codes_of(file), str(codes))
        print_line(dice_line(dice_of(read_scan(source, wish.axis, max_pixels), restored, file.header)))


def encoded_line(source: "Source", codes: Path, file: "CodesFile", says_levels: bool = False) -> str:
    """One line about an encoded scan: its file, the size of the file, and what the file holds."""
    from oasisvq.codec.headers import Coder

    header = file.header
    held = f", {counted(header.slices, 'slice')}" if header.volume else ""
    original = source.path.name if source.stack else source.path.resolve().name
    labels = f", {counted(len(header.labels), 'label')}" if header.labels else ""
    how = ", kept exactly" if header.coder is Coder.LABELS else ""
    if says_levels and header.levels:
        held += f", quality {header.levels}"
    if header.residue:
        bound = header.residue.binning.bound
        how = f", no voxel off by more than {bound:g}" if bound else ", nothing lost"
    return (
        f"{codes}: {file.file_bytes:,} bytes ({source.size / file.file_bytes:.1f} times smaller than "
        f"{original}){held}{labels}{how}"
    )
