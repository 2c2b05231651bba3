"""What fuzzing of supports starts from. Never imports torch."""

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oasisvq.codec.residue_config import SupportConfig
from oasisvq.codec.residue_networks import SupportNetwork
from oasisvq.codec.support import SupportReader, SupportWriter

Supports = list[NDArray[np.bool_]]
SHAPE = 19, 18
GUIDES = [np.random.default_rng(1).random(SHAPE), None, np.zeros(SHAPE)]


@cache
def network() -> SupportNetwork:
    """A tiny network of supports."""
    config = SupportConfig((1, 1, 1), 1, 1, (3, 2))
    rng = np.random.default_rng(6)
    arrays: dict[str, NDArray[Any]] = {}
    for name, (shape, dtype) in config.array_shapes().items():
        arrays[name] = rng.integers(-60, 61, shape).astype(dtype)
        if name.endswith(".scale"):
            arrays[name] = np.full(shape, 2**18, dtype)
    return SupportNetwork(config, arrays)


def payload_of(supports: Supports) -> bytes:
    """Three slices, coded."""
    writer = SupportWriter(network(), SHAPE)
    for support, guide in zip(supports, GUIDES, strict=True):
        writer.put(support, guide)
    return writer.finish()


def supports_in(payload: bytes) -> Supports:
    """The inverse."""
    reader = SupportReader(payload, network(), SHAPE)
    found = [reader.take(guide) for guide in GUIDES]
    reader.finish()
    return found


def supports() -> list[bytes]:
    """Payloads of slices of noise, of a square, of nothing and of everything."""
    noise = np.random.default_rng(2).random(SHAPE) < 0.5
    square, nothing = np.zeros(SHAPE, np.bool_), np.zeros(SHAPE, np.bool_)
    square[5:12, 4:13] = True
    kinds = ([noise, square, ~noise], [square, square, square], [nothing, ~nothing, nothing])
    return [payload_of(each) for each in kinds]
