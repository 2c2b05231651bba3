"""Tiny networks of residues, with random weights. Never imports torch."""

import numpy as np
from numpy.typing import NDArray

from oasisvq.codec.residue_config import ResidueConfig, Shapes, SupportConfig
from oasisvq.codec.residue_networks import ResidueNetwork, SupportNetwork

TINY_RESIDUE = ResidueConfig((2, 2, 1), 1, 2, 12, 1, 2)
TINY_SUPPORT = SupportConfig((2, 2, 1), 1, 1, (8, 4))


def random_arrays(shapes: Shapes, seed: int) -> dict[str, NDArray[np.integer]]:
    """Weights, scales and biases that let each layer say something."""
    rng = np.random.default_rng(seed)
    arrays: dict[str, NDArray[np.integer]] = {}
    for name, (shape, dtype) in shapes.items():
        if name.endswith(".weight"):
            arrays[name] = rng.integers(-60, 61, shape).astype(dtype)
        elif name.endswith(".scale"):
            arrays[name] = rng.integers(2**18, 2**19, shape).astype(dtype)
        else:
            arrays[name] = rng.integers(-20, 21, shape).astype(dtype)
    return arrays


def tiny_residue(config: ResidueConfig = TINY_RESIDUE, seed: int = 0) -> ResidueNetwork:
    """A network of residues for any model."""
    return ResidueNetwork(config, random_arrays(config.array_shapes(), seed))


def tiny_support(config: SupportConfig = TINY_SUPPORT, seed: int = 0) -> SupportNetwork:
    """A network of supports for any model."""
    return SupportNetwork(config, random_arrays(config.array_shapes(), seed))
