"""What an option names: the model to use, and the shard of a folder."""

from pathlib import Path
from typing import TYPE_CHECKING

from oasisvq.cli.exits import usage_error
from oasisvq.cli.options import Device
from oasisvq.cli.printing import note

if TYPE_CHECKING:
    from oasisvq.codec.codec import Codec
    from oasisvq.codec.modelfile import ModelFile
    from oasisvq.files import Shard


def load_codec(model: Path | None, device: Device) -> "Codec":
    """The codec to use; says which model it is."""
    from oasisvq.codec.codec import Codec
    from oasisvq.models import choose_model

    choice = choose_model(model, Path.cwd())
    codec = Codec.load(choice.path, device.value)
    note(f"{choice.line(codec.file)}, on {codec.device}")
    return codec


def load_model(model: Path | None) -> "ModelFile":
    """The model to use, without its networks; says which it is."""
    from oasisvq.codec.modelfile import read_model
    from oasisvq.models import choose_model

    choice = choose_model(model, Path.cwd())
    file = read_model(choice.path)
    note(choice.line(file))
    return file


def chosen_shard(text: str | None) -> "Shard":
    """The shard that --shard names, or the one that torchrun or SLURM gave this process."""
    from oasisvq.files import parse_shard, shard_of_environment

    if text is None:
        part, launcher = shard_of_environment()
        if launcher:
            note(f"shard {part.index}/{part.count}, given by {launcher}")
        return part
    try:
        return parse_shard(text)
    except ValueError:
        usage_error(f"--shard {text}: expected i/n with i from 0 to n-1, such as 0/8")
