"""Model <-> one safetensors file with its config; the fingerprint.

The file holds the tensors of the encoder, the decoder and the codebooks, and one metadata entry
(`oasisvq`): sorted JSON with the format version, the config and the model card. Nothing is
unpickled. The fingerprint identifies what a `.codes` file needs: it covers the config and every
tensor, not the card and not the order of bytes in the file.
"""

import dataclasses
import hashlib
import json
import struct
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor, nn

from oasisvq.codec.container import FINGERPRINT_BYTES
from oasisvq.codec.networks import Decoder, Encoder, ModelConfig
from oasisvq.codec.quantizer import ResidualQuantizer
from oasisvq.errors import ModelError
from oasisvq.files import read_bytes, write_atomically

MODEL_FORMAT = 1
METADATA_KEY = "oasisvq"
MAX_MODEL_BYTES = 2**31
MAX_HEADER_BYTES = 2**24


class Model(nn.Module):
    """Encoder, residual quantizer and decoder of one config."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.quantizer = ResidualQuantizer(config.levels, config.codebook_size, config.code_dim)
        self.decoder = Decoder(config)


def config_to_dict(config: ModelConfig) -> dict[str, Any]:
    """A config as JSON holds it."""
    return {
        key: list(entry) if isinstance(entry, tuple) else entry
        for key, entry in dataclasses.asdict(config).items()
    }


def config_from_dict(fields: object, where: str) -> ModelConfig:
    """The inverse of `config_to_dict`.

    Raises:
        ModelError: a key is unknown or missing, or a value has another type or is out of range.
    """
    if not isinstance(fields, dict):
        raise ModelError(f"{where}: the model config is no JSON object")
    hints = get_type_hints(ModelConfig)
    unknown, missing = sorted(set(fields) - set(hints)), sorted(set(hints) - set(fields))
    if unknown or missing:
        raise ModelError(
            f"{where}: model config with unknown keys {unknown} and missing keys {missing}; "
            "it was made by another version of oasisvq"
        )
    converted: dict[str, Any] = {}
    for key, hint in hints.items():
        entry = fields[key]
        if hint is int and type(entry) is int:
            converted[key] = entry
        elif hint is not int and isinstance(entry, list) and all(type(e) is int for e in entry):
            converted[key] = tuple(entry)
        else:
            raise ModelError(f"{where}: model config has {key} = {entry!r}, expected {hint}")
    return ModelConfig(**converted)


def fingerprint(config: ModelConfig, tensors: dict[str, Tensor]) -> bytes:
    """First 8 bytes of the SHA-256 over the canonical config and every tensor by name."""
    digest = hashlib.sha256(json.dumps(config_to_dict(config), sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().float().contiguous()
        digest.update(f"\0{name}{list(tensor.shape)}\0".encode())
        digest.update(tensor.numpy().astype("<f4").tobytes())
    return digest.digest()[:FINGERPRINT_BYTES]


def model_fingerprint(model: Model) -> bytes:
    """The fingerprint of a model in memory."""
    return fingerprint(model.config, dict(model.state_dict()))


def _stored_type(name: str) -> torch.dtype:
    return torch.float32 if name.startswith("quantizer.") else torch.float16


def save_model(model: Model, path: Path, card: dict[str, Any]) -> None:
    """Write the model as one file, whole or not at all; the inverse of `load_model`.

    The networks are stored as float16, which halves the file and changes a reconstruction by far
    less than one grey level; the codebooks stay float32. What is loaded is computed in float32.
    """
    header = {"format": MODEL_FORMAT, "config": config_to_dict(model.config), "card": card}
    tensors = {
        name: tensor.detach().to("cpu", _stored_type(name)).contiguous()
        for name, tensor in model.state_dict().items()
    }
    metadata = {METADATA_KEY: json.dumps(header, sort_keys=True)}
    write_atomically(path, save_safetensors(tensors, metadata))


@dataclasses.dataclass(frozen=True)
class ModelHeader:
    """What a model file says of itself."""

    config: ModelConfig
    card: dict[str, Any]


def parse_safetensors_metadata(content: bytes, path: Path) -> dict[str, str]:
    """The `__metadata__` of a safetensors file, read without any tensor library.

    Raises:
        ModelError: this is no safetensors file.
    """
    not_ours = f"{path}: not a safetensors file; expected a model that `oasisvq train` wrote"
    if len(content) < 8:
        raise ModelError(not_ours)
    (length,) = struct.unpack("<Q", content[:8])
    if length > min(len(content) - 8, MAX_HEADER_BYTES):
        raise ModelError(not_ours)
    try:
        header = json.loads(content[8 : 8 + length])
    except (ValueError, RecursionError) as error:
        raise ModelError(not_ours) from error
    metadata = header.get("__metadata__", {}) if isinstance(header, dict) else None
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise ModelError(not_ours)
    return metadata


def read_header(content: bytes, path: Path) -> ModelHeader:
    """Config and card of a model file.

    Raises:
        ModelError: not a safetensors file, not one of ours, or of another format version.
    """
    metadata = parse_safetensors_metadata(content, path)
    if METADATA_KEY not in metadata:
        raise ModelError(
            f"{path}: a safetensors file, but not a model of oasisvq (no '{METADATA_KEY}' metadata)"
        )
    try:
        header = json.loads(metadata[METADATA_KEY])
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path}: the model's metadata is not JSON") from error
    if not isinstance(header, dict) or header.get("format") != MODEL_FORMAT:
        found = header.get("format") if isinstance(header, dict) else header
        raise ModelError(
            f"{path}: model format {found!r}, but this version of oasisvq reads format "
            f"{MODEL_FORMAT}; update oasisvq or train the model anew"
        )
    card = header.get("card", {})
    return ModelHeader(
        config_from_dict(header.get("config"), str(path)), card if isinstance(card, dict) else {}
    )


@dataclasses.dataclass(frozen=True)
class ModelFile:
    """A model with what its file says of it."""

    model: Model
    card: dict[str, Any]
    fingerprint: bytes


def load_model(path: Path) -> ModelFile:
    """Read a model file; the model is on the CPU, in eval mode.

    Raises:
        FileError: the file is missing or cannot be read.
        ModelError: it is not a whole model file of ours.
    """
    content = read_bytes(path, limit=MAX_MODEL_BYTES)
    header = read_header(content, path)
    try:
        tensors = load_safetensors(content)
    except (SafetensorError, ValueError, KeyError) as error:
        raise ModelError(f"{path}: damaged model file: {error}") from error
    with torch.device("meta"):
        model = Model(header.config)
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if expected != found:
        wrong = sorted(
            name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name)
        )
        raise ModelError(
            f"{path}: damaged model file: {len(wrong)} tensors do not fit its config, first {wrong[0]}"
        )
    # NumPy looks for what is not finite without starting torch's threads, which a cold start feels
    if not all(
        tensor.is_floating_point() and np.isfinite(tensor.float().numpy()).all()
        for tensor in tensors.values()
    ):
        raise ModelError(f"{path}: damaged model file: a tensor holds values that are no numbers")
    tensors = {name: tensor.float() for name, tensor in tensors.items()}
    model.load_state_dict(tensors, assign=True)
    model.requires_grad_(False).eval()
    return ModelFile(model, header.card, fingerprint(header.config, tensors))
