"""`oasisvq preprocess`: a raw folder becomes a prepared dataset."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from oasisvq.cli.exits import usage_error
from oasisvq.cli.options import ForceOption, ImagesOption, MaxPixelsOption, QuietOption
from oasisvq.cli.printing import counted, note, print_line, progress_bar, warn
from oasisvq.data.layouts import LAYOUTS, SPLITS, Images
from oasisvq.errors import DatasetError, OasisVQError
from oasisvq.scans.limits import DEFAULT_MAX_PIXELS

if TYPE_CHECKING:
    from oasisvq.data.recipe import Recipe


def preprocess(
    raw: Annotated[
        Path,
        typer.Argument(
            help="OASIS as downloaded (OASIS-1, 2 or 3, neurite-oasis, PNG or JPEG slices), a folder in "
            "BIDS, or any folder of images or volumes."
        ),
    ],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Folder to write; not with --dry-run.")
    ] = None,
    images: ImagesOption = Images.SCANS,
    size: Annotated[
        int,
        typer.Option(
            "--size", help="Pixels per side. At 256, a pixel is 1 mm; 80 is the classic set-up."
        ),
    ] = 256,
    axis: Annotated[
        str,
        typer.Option(
            "--axis",
            metavar="axial|coronal|sagittal",
            help="The axis that slices of a volume follow.",
        ),
    ] = "axial",
    slices: Annotated[
        str,
        typer.Option(
            "--slices",
            metavar="N|FIRST:LAST|all",
            help="Which slices of a volume. N: N slices, evenly spaced over the brain. FIRST:LAST: from "
            "FIRST to LAST mm (exclusive) above the lowest slice. all: every mm of the brain. "
            "Coronal slices are counted from the back, sagittal ones from the left.",
        ),
    ] = "32",
    percentiles: Annotated[
        str,
        typer.Option(
            "--percentiles",
            metavar="LOW:HIGH",
            help="The percentiles of a volume's foreground that become black and white.",
        ),
    ] = "0.5:99.5",
    split: Annotated[
        str | None,
        typer.Option(
            "--split",
            metavar="TRAIN/VALIDATION/TEST",
            help="Shares of the subjects, if the folder has no splits. [default: 80/10/10]",
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Another seed gives another split.")] = 0,
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
            help="Which file to take if a session has several, such as sbj_111, T2w or seg35; "
            "--dry-run lists them.",
        ),
    ] = None,
    subjects: Annotated[
        Path | None,
        typer.Option(
            "--subjects",
            metavar="TABLE",
            help="CSV or TSV with the subject of each file, for files whose names do not tell it. Each "
            "line has a file, or the beginning of its name, and its subject.",
        ),
    ] = None,
    guess_subjects: Annotated[
        bool,
        typer.Option(
            "--guess-subjects",
            help="If nothing tells the subject of a scan, guess it: the uppermost folder, or the file's "
            "own name if it is in no folder. A wrong guess can put one person into two splits.",
        ),
    ] = False,
    jobs: Annotated[
        int | None,
        typer.Option("--jobs", min=1, help="Processes that read volumes. [default: one per processor]"),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Print which kinds of files would be taken and which not; write nothing."
        ),
    ] = False,
    max_pixels: MaxPixelsOption = DEFAULT_MAX_PIXELS,
    force: ForceOption = False,
    _quiet: QuietOption = False,
) -> None:
    """Turn a raw OASIS folder into a prepared dataset.

    The dataset is a folder with one array for each split and a manifest. The layout of the raw folder
    is recognised. A pixel is 1 mm. In axial slices rows run from left to right, columns from back to
    front; other slices lie as `encode --axis` cuts them. All slices of a volume share one grey scale.

    All scans of a person are in one split. Splits in the folder are kept. If neither names nor folders
    tell whose a scan is, pass --subjects or --guess-subjects. Bad files are left out and listed. After
    an interruption, the same command goes on.
    """
    from oasisvq.data.preprocess import preprocess as run

    recipe = chosen_recipe(
        layout, variant, subjects, guess_subjects, axis, slices, percentiles, split, seed
    )
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
        note("stopped; run the same command again to continue")
        raise
    for name, part in dataset.splits.items():
        people = len({record.subject for record in part.records})
        print(f"{name}: {len(part.records):,} slices of {counted(people, 'subject')}")
    print_line(f"{folder}: {dataset.layout}, {images.value}, {size}×{size}")
    if failures:
        warn(f"{len(failures):,} failed, and {folder} was written without them:")
        for failure in failures:
            warn(f"  {failure}")
        raise typer.Exit(1)


def chosen_recipe(
    layout: str | None,
    variant: str | None,
    subjects: Path | None,
    guess_subjects: bool,
    axis: str,
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
            guess_subjects,
            axis,
        )
    except DatasetError as error:
        usage_error(str(error))


def print_plan(raw: Path, images: Images, recipe: "Recipe") -> None:
    """Print what `preprocess` would take: layout, first and last of each split, each kind of file."""
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
    for line in found.files_of_each_kind():
        print_line(line)
