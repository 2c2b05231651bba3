"""Model <-> the arrays of a model file (see `modelfile.py`)."""

import dataclasses
from pathlib import Path
from typing import Any

import torch
from torch import nn

from oasisvq.codec.modelfile import Arrays, ModelConfig, ModelFile, read_model, write_model
from oasisvq.codec.networks import Decoder, Encoder
from oasisvq.codec.prior import Prior
from oasisvq.codec.quantizer import ResidualQuantizer
from oasisvq.errors import ModelError


class Model(nn.Module):
    """Encoder, residual quantizer and decoder of one config."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.quantizer = ResidualQuantizer(config.levels, config.codebook_size, config.code_dim)
        self.decoder = Decoder(config)


@dataclasses.dataclass(frozen=True)
class LoadedModel:
    """Networks and the file that they came from."""

    model: Model
    file: ModelFile

    @property
    def card(self) -> dict[str, Any]:
        """What the file says of its training."""
        return self.file.card

    @property
    def fingerprint(self) -> bytes:
        """What names the codec in packed files."""
        return self.file.fingerprint


def _stored_type(name: str) -> torch.dtype:
    return torch.float32 if name.startswith("quantizer.") else torch.float16


def model_arrays(model: Model) -> Arrays:
    """The arrays that a file holds of a model; the inverse of `build_model`.

    The networks are stored as float16, which halves the file and changes a reconstruction by far
    less than one grey level; the codebooks stay float32. What is loaded is computed in float32.
    """
    return {
        name: tensor.detach().to("cpu", _stored_type(name)).contiguous().numpy()
        for name, tensor in model.state_dict().items()
    }


def build_model(file: ModelFile, name: str) -> Model:
    """The networks of a model file, on the CPU, in eval mode; `name` is what messages call it.

    Raises:
        ModelError: the arrays do not fit the config.
    """
    found = {key: array.shape for key, array in file.arrays.items()}
    blocks = sum(file.config.encoder_blocks + file.config.decoder_blocks)
    if blocks > len(found):  # said before so many are made
        raise ModelError(f"{name}: damaged model file: {len(found)} tensors, but {blocks} blocks")
    with torch.device("meta"):
        model = Model(file.config)
    expected = {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}
    if expected != found:
        wrong = sorted(
            key for key in expected.keys() | found.keys() if expected.get(key) != found.get(key)
        )
        raise ModelError(
            f"{name}: damaged model file: {len(wrong)} tensors do not fit its config, first {wrong[0]}"
        )
    tensors = {key: torch.from_numpy(array.astype("f4")) for key, array in file.arrays.items()}
    model.load_state_dict(tensors, assign=True)
    model.requires_grad_(False).eval()
    return model


def load_model(path: Path) -> LoadedModel:
    """Read a model file; the model is on the CPU, in eval mode.

    Raises:
        FileError: the file is missing or cannot be read.
        ModelError: it is not a whole model file of ours.
    """
    file = read_model(path)
    return LoadedModel(build_model(file, str(path)), file)


def file_of(model: Model, card: dict[str, Any], prior: Prior | None = None) -> ModelFile:
    """What a file of a model would hold."""
    return ModelFile(model.config, model_arrays(model), prior, card)


def save_model(model: Model, path: Path, card: dict[str, Any], prior: Prior | None = None) -> None:
    """Write the model as one file, whole or not at all; the inverse of `load_model`."""
    write_model(file_of(model, card, prior), path)
