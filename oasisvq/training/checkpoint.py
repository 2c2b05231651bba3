"""The state of a training <-> one safetensors file, so that nothing is ever unpickled."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor

from oasisvq.codec.modelfile import parse_safetensors_metadata
from oasisvq.errors import ModelError
from oasisvq.files import read_bytes, write_atomically

CHECKPOINT_FORMAT = 1
METADATA_KEY = "oasisvq-checkpoint"
MAX_CHECKPOINT_BYTES = 2**35


class Checkpoint(NamedTuple):
    """Everything that a training needs to continue as if it had not stopped.

    Random numbers need no state: each is drawn from a generator of (seed, step).
    """

    tensors: dict[str, Tensor]
    progress: dict[str, Any]  # plain JSON: step, settings, length of metrics.jsonl


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint, whole or not at all; the old one stays until the new one is on disk."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in checkpoint.tensors.items()}
    header = json.dumps({"format": CHECKPOINT_FORMAT, **checkpoint.progress}, sort_keys=True)
    write_atomically(path, save_safetensors(tensors, {METADATA_KEY: header}))


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint.

    Raises:
        FileError: the file is missing or unreadable.
        ModelError: it is not a checkpoint of ours, or has another format.
    """
    content = read_bytes(path, MAX_CHECKPOINT_BYTES)
    metadata = parse_safetensors_metadata(content, path)
    try:
        progress = json.loads(metadata[METADATA_KEY])
        tensors = load_safetensors(content)
        version = progress.pop("format", None)
    except (KeyError, ValueError, AttributeError, RecursionError, SafetensorError) as error:
        raise ModelError(f"{path}: not a whole checkpoint of oasisvq; train anew with -f") from error
    if version != CHECKPOINT_FORMAT:
        raise ModelError(f"{path}: a checkpoint of another version of oasisvq; train anew with -f")
    return Checkpoint(tensors, progress)
