"""The config of a model, which rebuilds it with its arrays, as JSON holds it."""

import dataclasses
import reprlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeGuard, TypeVar, get_type_hints

from oasisvq.codec.headers import MAX_CODEBOOK_SIZE, MAX_LEVELS, MAX_STRIDE
from oasisvq.codec.prior import PriorConfig
from oasisvq.codec.residue_config import ResidueConfig, SupportConfig
from oasisvq.errors import ModelError

MAX_NUMBER = 2**31 - 1  # in a config; a list has at most MAX_LEVELS numbers
MAX_CHANNELS = 4096
MAX_BLOCKS = 64
MAX_CODE_DIM = 1024


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Everything that rebuilds a model; stored as JSON in its safetensors file.

    Attributes:
        window: height and width in pixels of the field of view that the model was trained on;
            multiples of `stride`. If the content of an image lies in the centred window of this size,
            only that window is coded.
        stride: side of one grid cell in pixels, a power of two.
        encoder_channels: channels of each encoder stage, finest first; each further stage
            halves the resolution, and the last one works on the grid.
        encoder_blocks: residual blocks of each encoder stage.
        decoder_channels: channels of each decoder stage, starting on the grid.
        decoder_blocks: residual blocks of each decoder stage.
        code_dim: dimension D of a code vector.
        codebook_size: codes K of each level.
        levels: residual levels L.
        default_levels: levels kept if no quality is named.
        context: how many previous slices the networks see, 0 or 1; see `networks.py`.
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
    context: int = 0

    def __post_init__(self) -> None:
        for name, low, high in (
            ("code_dim", 1, MAX_CODE_DIM),
            ("codebook_size", 2, MAX_CODEBOOK_SIZE),
            ("levels", 1, MAX_LEVELS),
            ("default_levels", 1, self.levels),
            ("context", 0, 1),
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


PartConfig = PriorConfig | ResidueConfig | SupportConfig  # of parts that a model may have
Part = TypeVar("Part", PriorConfig, ResidueConfig, SupportConfig)


def config_to_dict(config: ModelConfig | PartConfig) -> dict[str, Any]:
    """A config as JSON holds it; fields with their default value are left out."""
    defaults = _defaults(type(config))
    return {
        key: list(entry) if isinstance(entry, tuple) else entry
        for key, entry in dataclasses.asdict(config).items()
        if key not in defaults or entry != defaults[key]
    }


def _defaults(kind: type[ModelConfig | PartConfig]) -> dict[str, Any]:
    """The fields that a config may leave out, with their values."""
    fields = dataclasses.fields(kind)
    return {each.name: each.default for each in fields if each.default is not dataclasses.MISSING}


def config_from_dict(fields: object, where: str) -> ModelConfig:
    """The inverse of `config_to_dict` for a model.

    Raises:
        ModelError: a key is unknown or missing, or a value has another type or is out of range.
    """
    known = _fields(fields, ModelConfig, f"{where}: model config")
    with named(where):
        return ModelConfig(**known)


def part_config_from_dict(kind: type[Part], name: str, fields: object, where: str) -> Part:
    """The inverse of `config_to_dict` for a part of a model, which messages call `name`.

    Raises:
        ModelError: a key is unknown or missing, or a value has another type or is out of range.
    """
    known = _fields(fields, kind, f"{where}: {name} config")
    with named(where):
        return kind(**known)


@contextmanager
def named(what: str) -> Iterator[None]:
    """Put a name before the message of a ModelError."""
    try:
        yield
    except ModelError as error:
        raise ModelError(f"{what}: {error}") from error


def _fields(fields: object, kind: type[ModelConfig | PartConfig], what: str) -> dict[str, Any]:
    if not isinstance(fields, dict):
        raise ModelError(f"{what}: no JSON object")
    hints, fields = get_type_hints(kind), _defaults(kind) | fields
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
