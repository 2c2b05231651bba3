"""`oasisvq decode`: `.codes` files become images and volumes again."""

from pathlib import Path
from typing import Annotated

import typer

from oasisvq.cli.chosen import chosen_shard, load_codec
from oasisvq.cli.exits import finish, usage_error
from oasisvq.cli.options import (
    Device,
    DeviceOption,
    ForceOption,
    MaxPixelsOption,
    ModelOption,
    ShardOption,
)
from oasisvq.cli.printing import print_line, progress_bar
from oasisvq.scans.limits import DEFAULT_MAX_PIXELS


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
