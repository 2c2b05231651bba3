"""`oasisvq sample`: new synthetic brains from the model's prior."""

from pathlib import Path
from typing import Annotated

import typer

from oasisvq.cli.chosen import load_codec, load_encoder
from oasisvq.cli.exits import usage_error
from oasisvq.cli.options import ForceOption, ModelOption, QualityOption, QuietOption
from oasisvq.cli.printing import counted, print_line, progress_bar


def sample(
    output: Annotated[
        Path,
        typer.Option(
            "-o",
            "--output",
            help="A .png file gets all samples in one picture, a folder one file each, a .codes file "
            "one sample.",
        ),
    ],
    count: Annotated[int, typer.Option("-n", "--count", min=1, help="Number of samples.")] = 16,
    quality: QualityOption = None,
    temperature: Annotated[
        float,
        typer.Option(
            "--temperature",
            min=0.05,
            max=10,
            help="Below 1, samples are closer to the likeliest brain; above 1, more varied.",
        ),
    ] = 0.75,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Another seed gives other brains.")] = 0,
    as_codes: Annotated[
        bool, typer.Option("--codes", help="In a folder: write .codes files, not PNGs.")
    ] = False,
    neighbours: Annotated[
        Path | None,
        typer.Option(
            "--neighbours",
            metavar="DATA",
            help="Show next to each sample the nearest training slice of this prepared dataset.",
        ),
    ] = None,
    model: ModelOption = None,
    force: ForceOption = False,
    _quiet: QuietOption = False,
) -> None:
    """Draw new synthetic brains from the model's prior.

    They show no real person, and are not anatomically sound. At temperature 1, a seed gives the same
    codes on every machine.
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
    writes_codes = as_codes or output.suffix == ".codes"
    codec = (load_encoder if writes_codes else load_codec)(model)
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
