"""Options that several commands have, and the values that options choose from."""

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from oasisvq.cli.printing import set_quiet
from oasisvq.data.layouts import Images


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
        help="Model file, run folder or fingerprint. [default: for a .codes file, the model that made "
        "it; else $OASISVQ_MODEL; else the model that `train` has finished in this folder; else the "
        "bundled one]",
    ),
]
DeviceOption = Annotated[Device, typer.Option("--device", help="Where the networks run.")]
ForceOption = Annotated[bool, typer.Option("-f", "--force", help="Overwrite files that exist.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
QualityOption = Annotated[
    int | None,
    typer.Option(
        "-q",
        "--quality",
        metavar="LEVELS",
        help="Levels to keep; 1 gives the smallest file. [default: the model's, see `info`]",
    ),
]
MaxErrorOption = Annotated[
    float | None,
    typer.Option(
        "--max-error",
        metavar="E",
        help="Guarantee that no voxel is off by more than E, in stored values (before slope and "
        "intercept). The file then also holds a correction, the residue.",
    ),
]
LosslessOption = Annotated[bool, typer.Option("--lossless", help="Lose nothing; same as --max-error 0.")]
MaxPixelsOption = Annotated[
    int,
    typer.Option(
        "--max-pixels",
        metavar="N",
        min=1,
        help="Refuse images of more pixels, and volumes of more than 8 times as many voxels, before "
        "reading them. The default allows 4096×4096 and 512×512×512.",
    ),
]
IncludeOption = Annotated[
    list[str] | None,
    typer.Option(
        "--include",
        metavar="GLOB",
        help="Take only files of a folder that match: by their name, or by the name of a folder above "
        "them. A pattern with a slash is compared with the path below the folder. May be given several "
        "times.",
    ),
]
ExcludeOption = Annotated[
    list[str] | None,
    typer.Option("--exclude", metavar="GLOB", help="In a folder, leave out files that match."),
]
ShardOption = Annotated[
    str | None,
    typer.Option(
        "--shard",
        metavar="I/N",
        help="Of a folder, take every N-th file, beginning with the I-th, counted from 0. [default: the "
        "share that torchrun or SLURM gives this process, else all]",
    ),
]
JobsOption = Annotated[
    int,
    typer.Option("--jobs", metavar="N", min=1, help="Number of processes for a run over many files."),
]
MinSsimOption = Annotated[
    float | None,
    typer.Option(
        "--min-ssim",
        metavar="S",
        help="Keep an SSIM of at least S, such as 0.97, in as few bytes as possible: by as many levels "
        "as that takes, or by a residue.",
    ),
]
MinForegroundOption = Annotated[
    float | None,
    typer.Option(
        "--min-foreground-ssim",
        metavar="S",
        help="The same for foreground SSIM, which ignores the background.",
    ),
]
MinPsnrOption = Annotated[
    float | None, typer.Option("--min-psnr", metavar="DB", help="The same for PSNR in dB, such as 38.")
]
MaxBytesOption = Annotated[
    int | None,
    typer.Option(
        "--max-bytes",
        metavar="N",
        help="Write at most N bytes a file. Without another demand: the best file of that size.",
    ),
]
QuietOption = Annotated[
    bool,
    typer.Option(
        "--quiet",
        callback=set_quiet,
        is_eager=True,
        help="Print only results and errors, no notes and no progress.",
    ),
]
LogOption = Annotated[
    Path | None,
    typer.Option(
        "--log",
        metavar="FILE",
        help="Write a table with a row for each file, its bytes and its quality: .csv, or .jsonl for "
        "JSON lines.",
    ),
]
QuickOption = Annotated[
    bool,
    typer.Option(
        "--quick",
        help="Encode images once, without correcting their errors, and do not measure the "
        "quality. About three times as fast, 0.2 to 0.3 dB worse.",
    ),
]
ImagesOption = Annotated[Images, typer.Option("--images", help="Which images of a raw folder to take.")]
