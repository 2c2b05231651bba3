"""`oasisvq show`: a picture of a `.codes` file."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from oasisvq.cli.exits import usage_error
from oasisvq.cli.options import ForceOption, MaxPixelsOption, ModelOption, QuietOption
from oasisvq.cli.printing import note, print_line
from oasisvq.errors import ImageError
from oasisvq.scans.limits import DEFAULT_MAX_PIXELS

if TYPE_CHECKING:
    from oasisvq.scans.source import Source


def show(
    source: Annotated[Path, typer.Argument(help="A .codes file.")],
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            help="Picture to write: .png, .svg or .pdf. "
            "[default: beside the file, ending with .panel.png]",
        ),
    ] = None,
    original: Annotated[
        Path | None,
        typer.Option(
            "--original",
            help="The file that was encoded; for a stack, the folder of its images. [default: the image "
            "or volume of the same name, or the images, beside the .codes file]",
        ),
    ] = None,
    slice_number: Annotated[
        int | None,
        typer.Option(
            "--slice",
            metavar="N",
            help="Slice of a volume, counted from 0 in coding order. [default: the middle one]",
        ),
    ] = None,
    slice_count: Annotated[
        int | None,
        typer.Option("--slices", metavar="K", min=1, help="K slices of a volume, evenly spaced."),
    ] = None,
    model: ModelOption = None,
    max_pixels: MaxPixelsOption = DEFAULT_MAX_PIXELS,
    force: ForceOption = False,
    _quiet: QuietOption = False,
) -> None:
    """Draw what a .codes file holds, beside its original.

    Side by side: original, code map of each level, reconstruction, signed error. Codes with similar
    vectors have similar colours. Where nothing is coded, the map is grey. Labels that are kept exactly
    have one map. SSIM and PSNR are computed as by `score FILE`, for the slice shown. If the file tells
    how the head lies, L, R and a triangle to the nose stand beside the pictures.
    """
    from oasisvq.codec.codec import Codec
    from oasisvq.codec.container import read_codes_file
    from oasisvq.evaluation import figures, panels
    from oasisvq.files import require_output
    from oasisvq.models import ModelFinder
    from oasisvq.scans.source import source_at, stack_at

    if slice_number is not None and slice_count is not None:
        usage_error("--slice and --slices exclude each other")
    picture = output or source.with_suffix(".panel.png")
    if picture.suffix.lower() not in figures.SUFFIXES:
        usage_error(f"{picture}: expected a .png, .svg or .pdf")
    require_output(picture, force)
    header = read_codes_file(source).header
    codec = Codec(ModelFinder(model, note)(header, source))
    if original and header.stack:
        found: Source | None = stack_at(original, header.stack)
    else:
        found = source_at(original) if original else panels.find_original(source)
    note(f"original: {found.path}" if found else "no original beside it; use --original to name one")
    try:
        view = panels.open_view(codec, source, found, max_pixels)
    except ImageError as error:
        if original:
            raise
        note(f"{error}; drawn without it")
        view = panels.open_view(codec, source, None, max_pixels)
    places = panels.choose_places(view.codes.header, slice_number, slice_count)
    slices = [panels.view_slice(codec, view, place) for place in places]
    codebooks = codec.file.coding(view.codes.header.volume is not None).codebooks
    figures.write_figure(panels.draw_panel(view, slices, codebooks), picture)
    for each in slices:
        print_line(f"{picture}: {panels.describe_slice(view, each)}")
