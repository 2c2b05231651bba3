"""`oasisvq decode`: `.codes` files become images and volumes again."""

from pathlib import Path
from typing import Annotated

import typer

from oasisvq.cli.chosen import chosen_shard, names_folder, refuse_pipes
from oasisvq.cli.exits import finish, usage_error
from oasisvq.cli.options import (
    ExcludeOption,
    ForceOption,
    IncludeOption,
    JobsOption,
    JsonOption,
    MaxPixelsOption,
    ModelOption,
    QuietOption,
    ShardOption,
)
from oasisvq.cli.printing import counted, note, print_json, print_line, progress_bar
from oasisvq.scans.limits import DEFAULT_MAX_PIXELS


def decode(
    inputs: Annotated[
        list[Path],
        typer.Argument(
            metavar="INPUT",
            help=".codes files, folders of them, or array files that `export` wrote.",
        ),
    ],
    output: Annotated[
        str | None,
        typer.Option(
            "-o",
            "--output",
            metavar="PATH",
            help="File or folder to write. An image becomes .png or .tif; a volume .nii.gz, .nii, .hdr, "
            ".img, .mgz, .mgh or .tif. The output is a folder if one of this name exists, if the name "
            "ends with a slash, for a folder or several inputs, and for a stack of images. [default: "
            "scan.decoded.png for an image; scan.decoded.nii.gz for a volume, or .img if it came as a "
            "pair; the folder scan.decoded for a stack]",
        ),
    ] = None,
    quality: Annotated[
        int | None,
        typer.Option(
            "-q",
            "--quality",
            metavar="LEVELS",
            help="Decode only the first levels, without the residue. Files that were decoded before are "
            "kept, unless -f is passed. [default: all that the file holds]",
        ),
    ] = None,
    model: ModelOption = None,
    include: IncludeOption = None,
    exclude: ExcludeOption = None,
    shard: ShardOption = None,
    jobs: JobsOption = 1,
    max_pixels: MaxPixelsOption = DEFAULT_MAX_PIXELS,
    force: ForceOption = False,
    as_json: JsonOption = False,
    _quiet: QuietOption = False,
) -> None:
    """Restore the scans of .codes files, folders or exported arrays.

    Decoding needs exactly the model that made the file. It is found by the fingerprint in the file.
    With -q, only the first levels are decoded, without the residue.
    """
    from oasisvq.bulk import Outcome
    from oasisvq.decoding import decode_file, decode_many, decode_target
    from oasisvq.files import require_file
    from oasisvq.folders import Globs
    from oasisvq.models import ModelFinder
    from oasisvq.tokens import TOKEN_SUFFIXES

    refuse_pipes(*inputs, output)
    holds_many = [path.is_dir() or path.suffix in TOKEN_SUFFIXES for path in inputs]
    if len(inputs) > 1 or any(holds_many):
        if output is None and any(holds_many):
            usage_error("name the folder to write with -o")
        folder, part = Path(output) if output else None, chosen_shard(shard)
        find = ModelFinder(model, note)
        with progress_bar("decoding") as advance:
            globs = Globs(tuple(include or ()), tuple(exclude or ()))
            outcome = decode_many(
                find, inputs, folder, force, part, advance, max_pixels, jobs, quality, globs
            )
        finish(outcome, "decoded", folder, as_json)
        return
    require_file(inputs[0])
    folder = Path(output) if output and names_folder(output) else None
    written = decode_target(inputs[0], Path(output) if output and not folder else None, folder, force)
    find = ModelFinder(model, note)
    with progress_bar("decoding") as advance:
        files = decode_file(find, inputs[0], written, force, advance, max_pixels, quality)
    bytes_in, bytes_out = inputs[0].stat().st_size, sum(path.stat().st_size for path in files)
    if as_json:
        print_json(Outcome(done=1, bytes_in=bytes_in, bytes_out=bytes_out).as_dict())
        return
    held = f"{counted(len(files), 'image')} " if written.is_dir() else ""
    print_line(f"{written}: {held}restored, {bytes_out:,} bytes")
