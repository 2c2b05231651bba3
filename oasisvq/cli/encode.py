"""`oasisvq encode`: an image, a volume or a folder of them becomes `.codes` files."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from oasisvq.cli.chosen import chosen_shard, load_codec
from oasisvq.cli.exits import finish, usage_error
from oasisvq.cli.options import (
    CoderName,
    ContentName,
    Device,
    DeviceOption,
    ForceOption,
    MaxPixelsOption,
    ModelOption,
    QualityOption,
    ShardOption,
)
from oasisvq.cli.printing import counted, dice_line, print_line, progress_bar
from oasisvq.scans.limits import DEFAULT_MAX_PIXELS

if TYPE_CHECKING:
    from oasisvq.codec.codes import CodesFile


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
    print_line(encoded_line(source, before, codes, file))
    if lossy and file.header.labels:
        from oasisvq.evaluation.scan_score import dice_of
        from oasisvq.scans.scan import read_scan

        restored = codec.decode_codes(codec.codes_of(file), str(codes))
        print_line(dice_line(dice_of(read_scan(source, axis, max_pixels), restored, file.header)))


def encoded_line(source: Path, bytes_before: int, codes: Path, file: "CodesFile") -> str:
    """What became of one scan: its file, how large it is, and what it holds."""
    from oasisvq.codec.headers import Coder

    header = file.header
    held = f", {counted(header.slices, 'slice')}" if header.volume else ""
    labels = f", {counted(len(header.labels), 'label')}" if header.labels else ""
    how = ", kept exactly" if header.coder is Coder.LABELS else ""
    return (
        f"{codes}: {file.file_bytes:,} bytes ({bytes_before / file.file_bytes:.1f} times smaller than "
        f"{source.resolve().name}){held}{labels}{how}"
    )
