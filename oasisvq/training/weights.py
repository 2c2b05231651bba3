"""The networks and codebooks of a training <-> the integer arrays of a model file."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from oasisvq.codec.config import ModelConfig
from oasisvq.codec.exact import LATENT_UNITS
from oasisvq.codec.modelfile import ModelFile, read_model, write_model
from oasisvq.codec.prior import Prior
from oasisvq.codec.quantizer import CODEBOOKS
from oasisvq.training.integers import Part, entry_of, floats_into, layer_of, parts_of, units_of
from oasisvq.training.networks import Activation, Decoder, Encoder
from oasisvq.training.quantizer import ResidualQuantizer

_LARGEST_CODE = 2**15 - 1


class Model(nn.Module):
    """Encoder, residual quantizer and decoder of one config."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.quantizer = ResidualQuantizer(config.levels, config.codebook_size, config.code_dim)
        self.decoder = Decoder(config)

    def parts(self) -> list[Part]:
        """All layers of both networks."""
        return [*parts_of(self.encoder, "encoder"), *parts_of(self.decoder, "decoder")]


@dataclasses.dataclass(frozen=True)
class LoadedModel:
    """Networks, and the file that they were read from."""

    model: Model
    file: ModelFile

    @property
    def card(self) -> dict[str, Any]:
        """What the file says about its training."""
        return self.file.card

    @property
    def fingerprint(self) -> bytes:
        """The fingerprint of the model, as in the codes that it makes."""
        return self.file.fingerprint


def integer_tensors(model: Model) -> dict[str, Tensor]:
    """The arrays of both networks by name; see `Part`.

    Weights, scales and biases are float tensors of integers, with gradients to the weights and biases.
    """
    tensors: dict[str, Tensor] = {}
    for part in model.parts():
        entry = entry_of(part)
        layer = layer_of(part, entry, units_of(part))
        tensors |= {f"{part.name}.{name}": each for name, each in layer.items()}
        if entry.spec is not None:
            kind = "table" if isinstance(part.entry, Activation) else "scaling"
            tensors[f"{part.name}.{kind}"] = entry.spec
    return tensors


@torch.no_grad()
def model_arrays(model: Model) -> dict[str, NDArray[Any]]:
    """The arrays that a model file holds."""
    arrays: dict[str, NDArray[Any]] = {}
    for name, tensor in integer_tensors(model).items():
        kind = np.int8 if name.endswith(".weight") else np.int32
        arrays[name] = np.ascontiguousarray(tensor.detach().cpu().double().numpy()).astype(kind)
    codes = (model.quantizer.codebooks.detach().cpu().double() * LATENT_UNITS).round()
    arrays[CODEBOOKS] = codes.clamp(-_LARGEST_CODE, _LARGEST_CODE).numpy().astype(np.int16)
    return arrays


def quantizer_of(file: ModelFile) -> ResidualQuantizer:
    """The codebooks of a model file, on the CPU, as multiples of 1/256."""
    quantizer = ResidualQuantizer(*file.arrays[CODEBOOKS].shape)
    quantizer.codebooks.copy_(torch.from_numpy(file.arrays[CODEBOOKS].astype(np.float32)))
    quantizer.codebooks.div_(LATENT_UNITS)
    return quantizer


@torch.no_grad()
def build_model(file: ModelFile) -> Model:
    """Networks that compute the same as the integers of a file, except for rounding.

    They are on the CPU, in eval mode. This inverts `model_arrays` only approximately: arrays made from
    these networks again may differ from those of the file.
    """
    model = Model(file.config)
    for part in model.parts():
        floats_into(part, file.arrays)
    model.quantizer = quantizer_of(file)
    model.requires_grad_(False).eval()
    return model


def load_model(path: Path) -> LoadedModel:
    """Read a model file; the model is on the CPU, in eval mode.

    Raises:
        FileError: the file is missing or cannot be read.
        ModelError: it is not a complete oasisvq model file.
    """
    file = read_model(path)
    return LoadedModel(build_model(file), file)


def file_of(model: Model, card: dict[str, Any], prior: Prior | None = None) -> ModelFile:
    """The model file that `save_model` writes."""
    return ModelFile(model.config, model_arrays(model), prior, card)


def save_model(model: Model, path: Path, card: dict[str, Any], prior: Prior | None = None) -> None:
    """Write the model as one file, completely or not at all; `load_model` reads it."""
    write_model(file_of(model, card, prior), path)
