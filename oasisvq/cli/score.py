"""`oasisvq score`: size and quality over a split, or of one scan."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from oasisvq.cli.chosen import load_codec
from oasisvq.cli.exits import usage_error
from oasisvq.cli.options import (
    ForceOption,
    JobsOption,
    JsonOption,
    LosslessOption,
    MaxPixelsOption,
    ModelOption,
    QuietOption,
)
from oasisvq.cli.printing import note, print_json, print_line, print_lines, progress_bar
from oasisvq.cli.score_against import Bounded, score_scan_against, score_split_against
from oasisvq.cli.score_report import measure_report, print_report, refuse_to_replace
from oasisvq.cli.score_tables import distance_line, scan_table, split_table
from oasisvq.data.layouts import SPLITS, Images
from oasisvq.errors import DatasetError
from oasisvq.scans.limits import DEFAULT_MAX_PIXELS

if TYPE_CHECKING:
    from oasisvq.codec.codec import Codec
    from oasisvq.data.dataset import Dataset
    from oasisvq.scans.source import Source


def score(
    data: Annotated[
        Path,
        typer.Argument(
            help="A prepared dataset, a raw OASIS folder, or one image, volume, DICOM file or series."
        ),
    ] = Path("data"),
    split: Annotated[str, typer.Option("--split", help=" | ".join(SPLITS))] = "validation",
    quality: Annotated[
        list[int] | None,
        typer.Option(
            "-q",
            "--quality",
            metavar="LEVELS",
            help="Levels to keep; may be given several times. [default: the model's]",
        ),
    ] = None,
    images: Annotated[
        Images | None,
        typer.Option(
            "--images",
            help="Which images of a raw folder to take. [default: those that the model was trained on]",
        ),
    ] = None,
    size: Annotated[
        int | None,
        typer.Option(
            "--size", help="Pixels per side, for a raw folder. [default: as the model was trained]"
        ),
    ] = None,
    model: ModelOption = None,
    jobs: JobsOption = 1,
    sample_count: Annotated[
        int | None,
        typer.Option(
            "--samples",
            min=2,
            help="Instead, draw N samples of the prior and measure their Fréchet distance to the "
            "split, beside that of as many training slices.",
        ),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            "--against",
            metavar="CODECS",
            help="Instead, compare every quality with other codecs on the same slices, with BD-rates. "
            "CODECS is a list, from avif,jpegxl,webp,jpeg2000,jpeg; for a volume, from "
            "av1,svt-av1,hevc,jpegxl,jpeg2000.",
        ),
    ] = None,
    max_error: Annotated[
        list[str] | None,
        typer.Option(
            "--max-error",
            metavar="E",
            help="With --against: compare files that keep every voxel within E. E may be a share of the "
            "range, such as 1%. Codecs are jpegls,jpegxl; for a volume also sperr,sz3,zfp. May be given "
            "several times.",
        ),
    ] = None,
    lossless: LosslessOption = False,
    stacks: Annotated[
        bool,
        typer.Option(
            "--stacks",
            help="Code the slices of each subject of a split as one file, as `encode --stacks` does. Or "
            "score a folder of images that is one stack.",
        ),
    ] = False,
    every: Annotated[int, typer.Option("--every", min=1, help="Only every N-th slice.")] = 1,
    reuse: Annotated[
        Path | None,
        typer.Option(
            "--reuse",
            metavar="FILE",
            help="With --against: take the results of other codecs from the --json output of an earlier "
            "run.",
        ),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(
            "--report",
            metavar="FILE",
            help="Also write all results as one HTML page that works offline, with those of --against "
            "and --samples.",
        ),
    ] = None,
    figures: Annotated[
        Path | None,
        typer.Option(
            "--figures", metavar="DIR", help="Also write the charts as PNG and SVG, for a paper."
        ),
    ] = None,
    as_json: JsonOption = False,
    max_pixels: MaxPixelsOption = DEFAULT_MAX_PIXELS,
    force: ForceOption = False,
    _quiet: QuietOption = False,
) -> None:
    """Measure size and quality over a split, or of one scan.

    Each slice is encoded to a real file and decoded from it; bytes are whole files. SSIM is
    scikit-image's with gaussian_weights=True, sigma=1.5, use_sample_covariance=False. Its range is 255
    for slices of 8 bits; for other scans it is printed. Foreground SSIM is the mean of its map where the
    original is above 20 of 255. An all-black image is scored too: even that does not score 0. A report
    holds pictures of scans.
    """
    from oasisvq.data.preprocess import opened_for_now
    from oasisvq.models import RUN_FOLDER

    source = scan_to_score(data, stacks, max_pixels)
    bounds = [*(max_error or []), *(["0"] if lossless else [])]
    in_report = bool(report or figures)
    others = against or quality or every > 1
    for is_asked, wrong in (
        (
            stacks and not source and (in_report or against or sample_count),
            "--stacks is for the scores of a split, or of one stack",
        ),
        (
            source and (in_report or every > 1 or sample_count),
            "--report, --figures, --every and --samples are for a split; name a dataset",
        ),
        (
            source and (images or size),
            "--images and --size are for a folder of a dataset; leave them out",
        ),
        (
            jobs > 1 and (source or in_report or against or sample_count),
            "--jobs is only for the scores of a split",
        ),
        (
            bounds and (not against or in_report or reuse),
            "--max-error and --lossless go with --against, without --report, --figures and --reuse",
        ),
        (
            len(quality or []) > 1 and bounds,
            "--max-error and --lossless take one -q at most",
        ),
        (
            reuse and not against,
            "--reuse is for --against; leave it out, or name the codecs with --against",
        ),
        (
            sample_count and others and not in_report,
            "--samples goes with --against, -q and --every only in a --report",
        ),
        (
            against and quality and not (bounds or in_report),
            "--against compares every quality; leave out -q",
        ),
    ):
        if is_asked:
            usage_error(wrong)
    refuse_to_replace(report, figures, force)
    codec = load_codec(model)
    qualities = quality or []
    bounded = Bounded(bounds, qualities[0] if qualities else None) if bounds else None
    if source and against:
        score_scan_against(codec, source, against.split(","), bounded, reuse, as_json, max_pixels)
        return
    if source:
        score_scan(codec, source, qualities, as_json, max_pixels)
        return
    trained_on, trained_size = codec.card.get("images"), codec.card.get("size")
    wanted = images or (Images(trained_on) if trained_on in set(Images) else Images.SCANS)
    side = size or (trained_size if type(trained_size) is int else 256)
    with (
        progress_bar("reading slices") as advance,
        opened_for_now(
            data,
            RUN_FOLDER / "dataset",
            images=wanted,
            size=side,
            advance=advance,
            tell=note,
            max_pixels=max_pixels,
        ) as dataset,
    ):
        if images not in (None, dataset.images) or size not in (None, dataset.size):
            raise DatasetError(
                f"{data}: was prepared from {dataset.images.value} at {dataset.size} pixels; leave out "
                "--images and --size"
            )
        if in_report:
            peers = against.split(",") if against else []
            measured = measure_report(
                codec, model, dataset, split, qualities, every, peers, reuse, sample_count
            )
            print_report(measured, report, figures, as_json)
        elif sample_count is not None:
            score_samples(codec, dataset, split, sample_count, as_json)
        elif against is not None:
            peers = against.split(",")
            score_split_against(codec, dataset, split, peers, bounded, every, reuse, as_json)
        else:
            score_split(codec, dataset, split, qualities, as_json, every, jobs, stacks)


def scan_to_score(data: Path, stacks: bool, max_pixels: int) -> "Source | None":
    """The scan at a path: a file, or a folder of a DICOM series or a stack; None for a dataset."""
    from oasisvq.data.dataset import is_prepared
    from oasisvq.scans.dicom import holds_dicom
    from oasisvq.scans.source import source_at
    from oasisvq.stacks import stack_if_one

    if data.is_file() or (not is_prepared(data) and holds_dicom(data)):
        return source_at(data)
    if stacks and data.is_dir() and not is_prepared(data):
        return stack_if_one(data, max_pixels)
    return None


def score_scan(
    codec: "Codec", source: "Source", qualities: list[int], as_json: bool, max_pixels: int
) -> None:
    """Score a codec on one image or volume and print the table or JSON."""
    from oasisvq.codec.wish import Wish
    from oasisvq.evaluation.scan_score import score_scan as measure

    wishes = [Wish(levels) for levels in qualities or [codec.config.default_levels]]
    with progress_bar("scoring") as advance:
        scores = measure(codec, source, wishes, advance, max_pixels)
    if as_json:
        print_json([each.as_dict() for each in scores])
    else:
        print_lines(scan_table(scores))


def score_split(
    codec: "Codec",
    dataset: "Dataset",
    split: str,
    qualities: list[int],
    as_json: bool,
    every: int = 1,
    jobs: int = 1,
    stacks: bool = False,
) -> None:
    """Score a codec on an open dataset and print the table or JSON."""
    from oasisvq.evaluation.score import score_split as measure

    with progress_bar(f"scoring {split}") as advance:
        wanted = qualities or [codec.config.default_levels]
        result = measure(codec, dataset, split, wanted, advance, every, jobs=jobs, stacks=stacks)
    if as_json:
        print_json(result.as_dict())
    else:
        print_lines(split_table(result))


def score_samples(codec: "Codec", dataset: "Dataset", split: str, count: int, as_json: bool) -> None:
    """Score samples of a codec's prior against an open dataset and print the result."""
    from oasisvq.evaluation.samples import score_samples as measure

    with progress_bar("drawing") as advance:
        result = measure(codec, dataset, split, count, advance=advance)
    if as_json:
        print_json(result._asdict())
    else:
        print_line(distance_line(result, split))
