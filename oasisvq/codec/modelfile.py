"""The file of a model: configs, integer arrays, fingerprint. Never imports torch.

A model file is one safetensors file. It holds the arrays of encoder and decoder (`networks.py`) and of
the codebooks (`quantizer.py`). It may also hold those of further parts: `prior.…`, see `prior.py`;
`residue.…` and `support.…`, see `residue_config.py`; and `volumes.…`, a separate codec and prior for the
slices of volumes, which see the previous slice. One metadata entry (`oasisvq`) holds sorted JSON with
the format version, the config of the codec, that of each part or null, the model card, and the
fingerprint, which is checked when the file is read. Nothing is unpickled. All arrays are integers.
Before anything is computed with them, their names, shapes, types and ranges are checked, and that every
sum is exact.

The fingerprint of a model covers its configs and every array, but neither the card nor the order of
bytes in the file. It is the first 8 bytes of the SHA-256 over the configs as JSON, and over name, shape,
type and little-endian bytes of each array, by name. Adding a part makes another model.
"""

import hashlib
import json
import reprlib
import struct
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as load_safetensors
from safetensors.numpy import save as save_safetensors

from oasisvq.codec.config import (
    ModelConfig,
    Part,
    config_from_dict,
    config_to_dict,
    named,
    part_config_from_dict,
)
from oasisvq.codec.exact import refuse_other_arrays
from oasisvq.codec.headers import FINGERPRINT_BYTES, Coder, CodesHeader
from oasisvq.codec.networks import Decoder, Encoder, network_shapes
from oasisvq.codec.prior import Prior, PriorConfig
from oasisvq.codec.quantizer import CODEBOOKS, Quantizer
from oasisvq.codec.residue_config import ResidueConfig, SupportConfig
from oasisvq.codec.residue_networks import ResidueNetwork, SupportNetwork
from oasisvq.codec.typical import typical_in
from oasisvq.errors import ModelError, OtherModelError
from oasisvq.files import read_bytes, write_atomically
from oasisvq.scans.limits import MAX_TRAINING_SIDE

MODEL_FORMAT = 2
METADATA_KEY = "oasisvq"
MAX_MODEL_BYTES = 2**31
MAX_HEADER_BYTES = 2**24  # of any safetensors file
MAX_MODEL_HEADER_BYTES = 2**20
PARTS = ("prior", "residue", "support")  # that a model may have beside its codec
VOLUMES = "volumes"  # a codec and a prior of their own, for volumes

Arrays = dict[str, NDArray[Any]]


def fingerprint(configs: dict[str, Any], arrays: Arrays) -> bytes:
    """What identifies a model: a hash of its configs, by part, and of all its arrays, by name."""
    digest = hashlib.sha256(json.dumps(configs, sort_keys=True).encode())
    for name in sorted(arrays):
        array = arrays[name]
        little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
        digest.update(f"\0{name}{list(array.shape)}{array.dtype.name}\0".encode())
        digest.update(little.data)
    return digest.digest()[:FINGERPRINT_BYTES]


class ModelFile:
    """What a model file holds, checked and ready for use.

    Attributes:
        config: of the codec.
        arrays: of encoder, decoder and codebooks, by name.
        prior: if the model has one.
        card: what the model says of its training.
        residue: the network for residues, if the model has one.
        support: the network for supports, if the model has one.
        volumes: codec and prior for the slices of volumes, if these have their own.
    """

    def __init__(
        self,
        config: ModelConfig,
        arrays: Arrays,
        prior: Prior | None,
        card: dict[str, Any],
        residue: ResidueNetwork | None = None,
        support: SupportNetwork | None = None,
        volumes: "ModelFile | None" = None,
    ) -> None:
        """Take the arrays that `config` asks for.

        Raises:
            ModelError: the arrays are others, out of range, or so large that a sum could be inexact.
        """
        self.config, self.arrays, self.prior, self.card = config, arrays, prior, card
        self.residue, self.support, self.volumes = residue, support, volumes
        blocks = sum(config.encoder_blocks + config.decoder_blocks)
        if blocks > len(arrays):  # refused before so many names are made
            raise ModelError(f"{len(arrays)} arrays, but {blocks} blocks")
        shape = config.levels, config.codebook_size, config.code_dim
        refuse_other_arrays("codec", arrays, network_shapes(config) | {CODEBOOKS: (shape, np.int16)})
        self.encoder, self.decoder = Encoder(config, arrays), Decoder(config, arrays)
        self.quantizer = Quantizer(arrays[CODEBOOKS])

    @cached_property
    def fingerprint(self) -> bytes:
        """What identifies the model in the files that it makes."""
        return fingerprint(self.configs, self.all_arrays)

    @property
    def _parts(self) -> dict[str, Prior | ResidueNetwork | SupportNetwork]:
        """The parts that the model has, by name."""
        parts = zip(PARTS, (self.prior, self.residue, self.support), strict=True)
        return {name: part for name, part in parts if part}

    @property
    def configs(self) -> dict[str, Any]:
        """Name of the codec or a part -> its config, as JSON holds it."""
        parts = {name: config_to_dict(part.config) for name, part in self._parts.items()}
        volumes = {VOLUMES: self.volumes.configs} if self.volumes else {}
        return {"config": config_to_dict(self.config)} | parts | volumes

    @property
    def all_arrays(self) -> Arrays:
        """The arrays of the codec and of its parts, as the file names them."""
        parts = {name: part.arrays for name, part in self._parts.items()}
        if self.volumes:
            parts[VOLUMES] = self.volumes.all_arrays
        return self.arrays | {
            f"{name}.{inner}": array for name, arrays in parts.items() for inner, array in arrays.items()
        }

    def coding(self, is_volume: bool) -> "ModelFile":
        """The codec and prior for an image, or for a volume."""
        return self.volumes if is_volume and self.volumes else self

    def with_card(self, card: dict[str, Any]) -> "ModelFile":
        """The same model, with the same fingerprint, and another card."""
        parts = self.prior, card, self.residue, self.support, self.volumes
        return ModelFile(self.config, self.arrays, *parts)

    def with_prior(self, prior: Prior | None, card: dict[str, Any]) -> "ModelFile":
        """The same model with another prior, or none, and another card."""
        parts = self.residue, self.support, self.volumes
        return ModelFile(self.config, self.arrays, prior, card, *parts)

    def with_volumes(self, volumes: "ModelFile | None", card: dict[str, Any]) -> "ModelFile":
        """The same model with another codec and prior for volumes, or none, and another card."""
        parts = self.residue, self.support, volumes
        return ModelFile(self.config, self.arrays, self.prior, card, *parts)

    def with_residue(
        self, residue: ResidueNetwork | None, support: SupportNetwork | None, card: dict[str, Any]
    ) -> "ModelFile":
        """The same model with other networks for residue and support, or none, and another card."""
        parts = residue, support, self.volumes
        return ModelFile(self.config, self.arrays, self.prior, card, *parts)

    @property
    def codebooks(self) -> NDArray[np.float32]:
        """(L, K, D) code vectors, integers in 256ths."""
        return self.quantizer.codebooks


class ModelHeader(NamedTuple):
    """What a model file says of itself.

    Attributes:
        config: of the codec.
        prior: config of the prior, if there is one.
        residue: config of the network for residues, if there is one.
        support: config of the network for supports, if there is one.
        card: what it says of its training.
        fingerprint: in hexadecimal.
        volumes: what it says of the codec and prior for volumes, if there are any.
    """

    config: ModelConfig
    prior: PriorConfig | None
    residue: ResidueConfig | None
    support: SupportConfig | None
    card: dict[str, Any]
    fingerprint: object
    volumes: "ModelHeader | None" = None


def parse_safetensors_metadata(
    content: bytes, path: Path, limit: int = MAX_HEADER_BYTES
) -> dict[str, str]:
    """The `__metadata__` of a safetensors file, read without any tensor library.

    Args:
        content: of the file.
        path: what messages call it.
        limit: of the header's length in bytes; parsed, it may take a hundred times as much memory.

    Raises:
        ModelError: this is not a safetensors file.
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
    return _read_configs(header, card, path)


def _read_configs(header: dict[str, Any], card: dict[str, Any], path: Path) -> ModelHeader:
    """The configs of a model, or of its codec and prior for volumes."""
    config = config_from_dict(header.get("config"), str(path))
    with named(f"{path}: damaged model file"):
        typical_in(card, config.levels)
    prior = _part(PriorConfig, "prior", header, path)
    if prior and (prior.levels, prior.codebook_size) != (config.levels, config.codebook_size):
        raise ModelError(
            f"{path}: its prior knows {prior.levels} levels of {prior.codebook_size} codes, its "
            f"codec has {config.levels} of {config.codebook_size}"
        )
    residue = _part(ResidueConfig, "residue", header, path)
    support = _part(SupportConfig, "support", header, path)
    volumes, theirs = None, header.get(VOLUMES)
    if theirs is not None:
        if not isinstance(theirs, dict) or set(theirs) - {"config", "prior"}:
            raise ModelError(f"{path}: damaged model file: its volumes have no config and prior alone")
        volumes = _read_configs(theirs, {}, path)
    return ModelHeader(config, prior, residue, support, card, header.get("fingerprint"), volumes)


def _part(kind: type[Part], name: str, header: dict[str, Any], path: Path) -> Part | None:
    """The config of a part of a model, if its header has one."""
    fields = header.get(name)
    return None if fields is None else part_config_from_dict(kind, name, fields, str(path))


def _refuse_card(card: dict[str, Any], path: Path) -> None:
    """Raise if what a card says of the training slices is unusable."""
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
        ModelError: it is not a whole model file of ours.
    """
    content = read_bytes(path, limit=MAX_MODEL_BYTES)
    header = read_header(content, path)
    try:
        arrays: Arrays = load_safetensors(content)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{path}: damaged model file: {error}") from error
    with named(f"{path}: damaged model file"):
        file = _file_of(header, arrays)
    _refuse_wrong_fingerprint(file, header, path)
    return file


def _file_of(header: ModelHeader, arrays: Arrays) -> ModelFile:
    """The model with this header and these arrays."""
    ours: dict[str, Arrays] = {part: {} for part in (*PARTS, VOLUMES)}
    for name in [name for name in arrays if name.partition(".")[0] in ours]:
        part, _, inner = name.partition(".")
        ours[part][inner] = arrays.pop(name)
    for part, found in ours.items():
        if found and getattr(header, part) is None:
            raise ModelError(f"arrays of a {part}, but no config of one")
    prior = Prior(header.prior, ours["prior"]) if header.prior else None
    residue = ResidueNetwork(header.residue, ours["residue"]) if header.residue else None
    support = SupportNetwork(header.support, ours["support"]) if header.support else None
    volumes = None
    if header.volumes:
        with named(VOLUMES):
            volumes = _file_of(header.volumes, ours[VOLUMES])
    return ModelFile(header.config, arrays, prior, header.card, residue, support, volumes)


def _refuse_wrong_fingerprint(file: ModelFile, header: ModelHeader, path: Path) -> None:
    if header.fingerprint != file.fingerprint.hex():
        raise ModelError(
            f"{path}: damaged model file: its arrays are those of model {file.fingerprint.hex()}, but "
            f"it names itself {reprlib.repr(header.fingerprint)}; get a whole copy of the file"
        )


def write_model(file: ModelFile, path: Path) -> None:
    """Write a model file, whole or not at all; the inverse of `read_model`."""
    header = {
        "format": MODEL_FORMAT,
        "card": file.card,
        "fingerprint": file.fingerprint.hex(),
        **dict.fromkeys((*PARTS, VOLUMES)),
    } | file.configs
    metadata = {METADATA_KEY: json.dumps(header, sort_keys=True)}
    arrays = {name: np.ascontiguousarray(array) for name, array in file.all_arrays.items()}
    write_atomically(path, save_safetensors(arrays, metadata))


def refuse_other_model(file: ModelFile, header: CodesHeader, name: str) -> None:
    """Raise unless the model made a `.codes` file, which messages call `name`.

    Raises:
        OtherModelError: names both fingerprints.
    """
    if header.coder is Coder.LABELS:  # needs no model
        return
    if file.fingerprint != header.fingerprint:
        raise OtherModelError(
            f"{name}: made with model {header.fingerprint.hex()[:8]}, but model "
            f"{file.fingerprint.hex()[:8]} was given; pass the right one with --model"
        )
