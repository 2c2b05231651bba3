"""The file of a model: config, arrays, prior, fingerprints. Never imports torch.

A model file is one safetensors file: the tensors of the encoder, the decoder and the codebooks, the
integer arrays of the prior where there is one (`prior.…`), and one metadata entry (`oasisvq`):
sorted JSON with the format version, the config, that of the prior, the model card, and the
fingerprints, with which the tensors are compared when the file is read. Nothing is unpickled. How
the arrays become networks is in `weights.py`.

The fingerprint of a model covers its config and every tensor, not the card and not the order of
bytes in the file. What packed codes need is the codec alone, what prior-coded ones need is the prior
as well, so there are two of them.
"""

import dataclasses
import hashlib
import json
import reprlib
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard, get_type_hints

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as load_safetensors
from safetensors.numpy import save as save_safetensors

from oasisvq.codec.headers import (
    FINGERPRINT_BYTES,
    MAX_CODEBOOK_SIZE,
    MAX_LEVELS,
    MAX_STRIDE,
    Coder,
    CodesHeader,
)
from oasisvq.codec.prior import Prior, PriorConfig
from oasisvq.errors import ModelError, OtherModelError
from oasisvq.files import read_bytes, write_atomically
from oasisvq.scans.limits import MAX_TRAINING_SIDE

MODEL_FORMAT = 1
METADATA_KEY = "oasisvq"
MAX_MODEL_BYTES = 2**31
MAX_HEADER_BYTES = 2**24  # of any safetensors file
MAX_MODEL_HEADER_BYTES = 2**20
MAX_NUMBER = 2**31 - 1  # in a config; and at most MAX_LEVELS of them in a list
MAX_CHANNELS = 4096
MAX_BLOCKS = 64
MAX_CODE_DIM = 1024
PRIOR_PREFIX = "prior."
CODEBOOKS = "quantizer.codebooks"

Arrays = dict[str, NDArray[Any]]
_STORED_TYPES = (np.dtype(np.float16), np.dtype(np.float32))


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Everything that rebuilds a model; stored as JSON in its safetensors file.

    Attributes:
        window: height and width in pixels of the field of view that the model was trained on;
            multiples of `stride`. An image whose content lies in the centred window of this size
            is coded by that window alone.
        stride: pixels to a side of one grid cell, a power of two.
        encoder_channels: channels of each encoder stage, finest first; each further stage
            halves the resolution and the last one works on the grid.
        encoder_blocks: residual blocks of each encoder stage.
        decoder_channels: channels of each decoder stage, starting on the grid.
        decoder_blocks: residual blocks of each decoder stage.
        code_dim: dimension D of a code vector.
        codebook_size: codes K of each level.
        levels: residual levels L.
        default_levels: levels kept where no quality is named.
    """

    window: tuple[int, int]
    stride: int
    encoder_channels: tuple[int, ...]
    encoder_blocks: tuple[int, ...]
    decoder_channels: tuple[int, ...]
    decoder_blocks: tuple[int, ...]
    code_dim: int
    codebook_size: int
    levels: int
    default_levels: int

    def __post_init__(self) -> None:
        for name, low, high in (
            ("code_dim", 1, MAX_CODE_DIM),
            ("codebook_size", 2, MAX_CODEBOOK_SIZE),
            ("levels", 1, MAX_LEVELS),
            ("default_levels", 1, self.levels),
            ("stride", 1, MAX_STRIDE),
        ):
            if not low <= getattr(self, name) <= high:
                raise ModelError(
                    f"model config: {name} is {getattr(self, name)}, expected {low} to {high}"
                )
        if self.stride & (self.stride - 1):
            raise ModelError(f"model config: stride is {self.stride}, expected a power of two")
        if len(self.window) != 2 or any(
            side < self.stride or side % self.stride or side > 65_536 for side in self.window
        ):
            raise ModelError(
                f"model config: window is {self.window}, expected two multiples of {self.stride}"
            )
        for side in ("encoder", "decoder"):
            channels: tuple[int, ...] = getattr(self, f"{side}_channels")
            blocks: tuple[int, ...] = getattr(self, f"{side}_blocks")
            if not channels or len(channels) != len(blocks) or 2 ** (len(channels) - 1) > self.stride:
                raise ModelError(
                    f"model config: {side} has channels {channels} and blocks {blocks}, expected "
                    f"as many of each, and no more stages than a stride of {self.stride} allows"
                )
            if not all(1 <= c <= MAX_CHANNELS for c in channels) or not all(
                0 <= b <= MAX_BLOCKS for b in blocks
            ):
                raise ModelError(f"model config: {side} has stages out of range: {channels}, {blocks}")


def config_to_dict(config: ModelConfig | PriorConfig) -> dict[str, Any]:
    """A config as JSON holds it."""
    return {
        key: list(entry) if isinstance(entry, tuple) else entry
        for key, entry in dataclasses.asdict(config).items()
    }


def config_from_dict(fields: object, where: str) -> ModelConfig:
    """The inverse of `config_to_dict` for a model.

    Raises:
        ModelError: a key is unknown or missing, or a value has another type or is out of range.
    """
    known = _fields(fields, get_type_hints(ModelConfig), f"{where}: model config")
    with _named(where):
        return ModelConfig(**known)


def prior_config_from_dict(fields: object, where: str) -> PriorConfig:
    """The inverse of `config_to_dict` for a prior.

    Raises:
        ModelError: a key is unknown or missing, or a value has another type or is out of range.
    """
    known = _fields(fields, get_type_hints(PriorConfig), f"{where}: prior config")
    with _named(where):
        return PriorConfig(**known)


@contextmanager
def _named(what: str) -> Iterator[None]:
    """Put a name before the message of a ModelError."""
    try:
        yield
    except ModelError as error:
        raise ModelError(f"{what}: {error}") from error


def _fields(fields: object, hints: dict[str, Any], what: str) -> dict[str, Any]:
    if not isinstance(fields, dict):
        raise ModelError(f"{what}: no JSON object")
    unknown, missing = sorted(set(fields) - set(hints)), sorted(set(hints) - set(fields))
    if unknown or missing:
        raise ModelError(
            f"{what} with unknown keys {reprlib.repr(unknown)} and missing keys {missing}; "
            "it was made by another version of oasisvq"
        )
    converted: dict[str, Any] = {}
    for key, hint in hints.items():
        entry = fields[key]
        if hint is int and _is_number(entry):
            converted[key] = entry
        elif hint is not int and _is_list(entry):
            converted[key] = tuple(entry)
        else:
            expected = "a whole number" if hint is int else f"up to {MAX_LEVELS} whole numbers"
            raise ModelError(f"{what} has {key} = {reprlib.repr(entry)}, expected {expected}")
    return converted


def _is_number(entry: object) -> bool:
    return type(entry) is int and abs(entry) <= MAX_NUMBER


def _is_list(entry: object) -> TypeGuard[list[int]]:
    return isinstance(entry, list) and len(entry) <= MAX_LEVELS and all(map(_is_number, entry))


def fingerprint(config: ModelConfig, arrays: Arrays) -> bytes:
    """First 8 bytes of the SHA-256 over the canonical config and every floating array by name."""
    digest = hashlib.sha256(_canonical(config))
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name], dtype="<f4")
        digest.update(f"\0{name}{list(array.shape)}\0".encode())
        digest.update(array.tobytes())
    return digest.digest()[:FINGERPRINT_BYTES]


def _canonical(config: ModelConfig | PriorConfig) -> bytes:
    return json.dumps(config_to_dict(config), sort_keys=True).encode()


@dataclasses.dataclass(frozen=True)
class ModelFile:
    """What a model file holds.

    Attributes:
        config: of the codec.
        arrays: its tensors by name, in float16 and float32 as they are stored.
        prior: where it has one.
        card: what it says of its training.
    """

    config: ModelConfig
    arrays: Arrays
    prior: Prior | None
    card: dict[str, Any]

    @cached_property
    def fingerprint(self) -> bytes:
        """What names the codec in packed files."""
        return fingerprint(self.config, self.arrays)

    @cached_property
    def prior_fingerprint(self) -> bytes | None:
        """What names codec and prior in prior-coded files."""
        if self.prior is None:
            return None
        digest = hashlib.sha256(self.fingerprint + _canonical(self.prior.config))
        for name in sorted(self.prior.arrays):
            array = self.prior.arrays[name]
            little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
            digest.update(f"\0{name}{list(array.shape)}{array.dtype}\0".encode())
            digest.update(little.tobytes())
        return digest.digest()[:FINGERPRINT_BYTES]

    @property
    def fingerprints(self) -> list[str]:
        """That of the codec and, where there is one, that of codec and prior, as the file names them."""
        both = self.fingerprint, self.prior_fingerprint
        return [each.hex() for each in both if each is not None]

    def fingerprint_for(self, coder: Coder) -> bytes | None:
        """What names this model in files of a coder; None where it cannot make or read them."""
        if coder is Coder.LABELS:  # which needs no model
            return b""
        return self.fingerprint if coder is Coder.PACKED else self.prior_fingerprint

    @property
    def codebooks(self) -> NDArray[np.float32]:
        """(L, K, D) code vectors.

        Raises:
            ModelError: the file holds none that fit its config.
        """
        config = self.config
        codebooks = self.arrays.get(CODEBOOKS)
        shape = config.levels, config.codebook_size, config.code_dim
        if codebooks is None or codebooks.shape != shape:
            raise ModelError(f"damaged model: no codebooks of {shape}")
        return codebooks.astype(np.float32)


class ModelHeader(NamedTuple):
    """What a model file says of itself.

    Attributes:
        config: of the codec.
        prior: its config, where it has one.
        card: of its training.
        fingerprints: see `ModelFile.fingerprints`; None in files of before they were stored.
    """

    config: ModelConfig
    prior: PriorConfig | None
    card: dict[str, Any]
    fingerprints: list[str] | None


def parse_safetensors_metadata(
    content: bytes, path: Path, limit: int = MAX_HEADER_BYTES
) -> dict[str, str]:
    """The `__metadata__` of a safetensors file, read without any tensor library.

    Args:
        content: of the file.
        path: what messages call it.
        limit: of the header's length; as Python holds it, it may take a hundred times as much.

    Raises:
        ModelError: this is no safetensors file.
    """
    not_ours = f"{path}: not a safetensors file; expected one that oasisvq wrote"
    if len(content) < 8:
        raise ModelError(not_ours)
    (length,) = struct.unpack("<Q", content[:8])
    if length > min(len(content) - 8, limit):
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
    metadata = parse_safetensors_metadata(content, path, MAX_MODEL_HEADER_BYTES)
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
            f"{path}: model format {reprlib.repr(found)}, but this version of oasisvq reads format "
            f"{MODEL_FORMAT}; update oasisvq or train the model anew"
        )
    card = header.get("card")
    if not isinstance(card, dict):
        raise ModelError(f"{path}: damaged model file: its card is no JSON object")
    _refuse_card(card, path)
    config = config_from_dict(header.get("config"), str(path))
    prior: PriorConfig | None = None
    if header.get("prior") is not None:
        prior = prior_config_from_dict(header["prior"], str(path))
        if (prior.levels, prior.codebook_size) != (config.levels, config.codebook_size):
            raise ModelError(
                f"{path}: its prior knows {prior.levels} levels of {prior.codebook_size} codes, its "
                f"codec has {config.levels} of {config.codebook_size}"
            )
    return ModelHeader(config, prior, card, header.get("fingerprints"))


def _refuse_card(card: dict[str, Any], path: Path) -> None:
    """Raise unless what a card says of the training slices, where it does, can be acted upon."""
    size, images = card.get("size", 1), card.get("images", "")
    if type(size) is not int or not 1 <= size <= MAX_TRAINING_SIDE or type(images) is not str:
        raise ModelError(
            f"{path}: damaged model file: trained on {images!r:.40} of {size!r:.40} pixels to a side "
            f"by its card, expected 1 to {MAX_TRAINING_SIDE:,}; get a whole copy"
        )


def read_model(path: Path) -> ModelFile:
    """Read a model file.

    Raises:
        FileError: the file is missing or cannot be read.
        ModelError: it is not a whole model file of ours. Whether the codec's tensors fit its config
            is seen when networks are made of them.
    """
    content = read_bytes(path, limit=MAX_MODEL_BYTES)
    header = read_header(content, path)
    try:
        arrays: Arrays = load_safetensors(content)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{path}: damaged model file: {error}") from error
    ours = {n.removeprefix(PRIOR_PREFIX): a for n, a in arrays.items() if n.startswith(PRIOR_PREFIX)}
    arrays = {name: array for name, array in arrays.items() if not name.startswith(PRIOR_PREFIX)}
    if not all(array.dtype in _STORED_TYPES and np.isfinite(array).all() for array in arrays.values()):
        raise ModelError(f"{path}: damaged model file: a tensor holds values that are no numbers")
    prior: Prior | None = None
    if header.prior is not None:
        with _named(f"{path}: damaged model file"):
            prior = Prior(header.prior, ours)
    elif ours:
        raise ModelError(f"{path}: damaged model file: arrays of a prior, but no config of one")
    file = ModelFile(header.config, arrays, prior, header.card)
    if header.fingerprints not in (None, file.fingerprints):
        raise ModelError(
            f"{path}: damaged model file: its tensors are those of model {file.fingerprints}, but it "
            f"names itself {reprlib.repr(header.fingerprints)}; get a whole copy of the file"
        )
    return file


def write_model(file: ModelFile, path: Path) -> None:
    """Write a model file, whole or not at all; the inverse of `read_model`."""
    prior = file.prior
    header = {
        "format": MODEL_FORMAT,
        "config": config_to_dict(file.config),
        "card": file.card,
        "prior": config_to_dict(prior.config) if prior else None,
        "fingerprints": file.fingerprints,
    }
    ours = {f"{PRIOR_PREFIX}{n}": array for n, array in prior.arrays.items()} if prior else {}
    metadata = {METADATA_KEY: json.dumps(header, sort_keys=True)}
    arrays = {n: np.ascontiguousarray(array) for n, array in (file.arrays | ours).items()}
    write_atomically(path, save_safetensors(arrays, metadata))


def refuse_other_model(file: ModelFile, header: CodesHeader, name: str) -> None:
    """Raise unless the model made a `.codes` file; `name` is what messages call that.

    Raises:
        OtherModelError: names both fingerprints.
    """
    ours, theirs = file.fingerprint_for(header.coder), header.fingerprint.hex()[:8]
    if ours is None:
        raise OtherModelError(
            f"{name}: coded with the prior of model {theirs}, but model "
            f"{file.fingerprint.hex()[:8]} was given, which has no prior; pass the right one with "
            "--model"
        )
    if ours != header.fingerprint:
        raise OtherModelError(
            f"{name}: made with model {theirs}, but model {ours.hex()[:8]} was given; pass the right "
            "one with --model"
        )
