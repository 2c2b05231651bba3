"""What options name: the model to use, the place of outputs, and the shard of a folder."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from oasisvq.cli.exits import usage_error
from oasisvq.cli.printing import note

if TYPE_CHECKING:
    from oasisvq.codec.codec import Codec
    from oasisvq.folders import Shard
    from oasisvq.later import LaterCodec


def load_codec(model: Path | None) -> "Codec":
    """The codec to use; says which model it is."""
    from oasisvq.codec.codec import Codec
    from oasisvq.models import choose_model

    choice = choose_model(model, Path.cwd())
    codec = Codec.load(choice.path)
    note(choice.line(codec.file))
    return codec


def load_encoder(model: Path | None, carried_in: Path | None = None) -> "Codec":
    """The codec to write files with. Its model is kept first; a note says which model, and where.

    Args:
        model: see `choose_model`.
        carried_in: the folder that gets a copy of the model beside its files.
    """
    from oasisvq.codec.codec import Codec
    from oasisvq.models import choose_model, keep_used

    choice = choose_model(model, Path.cwd())
    codec = Codec.load(choice.path)
    note(f"{choice.line(codec.file)}, {keep_used(codec.file, choice, carried_in)}")
    return codec


def choose_encoder(model: Path | None, carried_in: Path | None) -> "LaterCodec":
    """`load_encoder` for many files: the model is read only if an output is missing."""
    from oasisvq.later import LaterCodec
    from oasisvq.models import choose_model, keep_used

    choice = choose_model(model, Path.cwd())
    later = LaterCodec(choice.path)
    note(f"{choice.line(later)}, {keep_used(later, choice, carried_in)}")
    return later


def refuse_pipes(*paths: Path | str | None) -> None:
    """Refuse `-`: inputs are read twice, and outputs get their names only when they are complete."""
    if any(str(path) == "-" for path in paths):
        usage_error("-: pipes are neither read nor written; name a file (./- for a file named -)")


def names_folder(output: str) -> bool:
    """Whether an output names a folder: it ends with a slash, or is an existing folder."""
    return output.endswith(("/", os.sep)) or Path(output).is_dir()


def chosen_file(folder: str, beside: Path, makes: bool = True) -> Path:
    """The output of one input in a folder. A missing folder is created if `makes` is set."""
    from oasisvq.files import make_folder

    if makes:
        make_folder(Path(folder))
    return Path(folder) / beside.name


def chosen_shard(text: str | None) -> "Shard":
    """The shard that --shard names, or the one that torchrun or SLURM gave this process."""
    from oasisvq.folders import parse_shard, shard_of_environment

    if text is None:
        part, launcher = shard_of_environment()
        if launcher:
            note(f"shard {part.index}/{part.count}, given by {launcher}")
        return part
    try:
        return parse_shard(text)
    except ValueError:
        usage_error(f"--shard {text}: expected i/n with i from 0 to n-1, such as 0/8")
