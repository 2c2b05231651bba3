"""A prior of arrays drawn with NumPy alone, and a hash of what it computes.

Started by `test_prior.py` in processes with other numbers of threads; prints one line.
"""

import hashlib

import numpy as np
from numpy.typing import NDArray

from oasisvq.codec.frequencies import FREQUENCY_BITS, frequencies_of
from oasisvq.codec.prior import Prior, PriorConfig

SMALL = PriorConfig(
    codebook_size=20,
    grid=(5, 6),
    code_dim=6,
    features=6,
    position_features=3,
    kinds=4,
    kind_features=2,
    hidden=(16, 12, 8),
    blocks=(1, 1, 0),
    reach=(2, 1, 0),
    passes=(8, 2, 1),
)
# large enough that libraries share a product among threads
WIDE = PriorConfig(
    codebook_size=64,
    grid=(16, 16),
    code_dim=4,
    features=8,
    position_features=4,
    kinds=4,
    kind_features=4,
    hidden=(160,),
    blocks=(2,),
    reach=(2,),
    passes=(2,),
)


def drawn_arrays(config: PriorConfig, rng: np.random.Generator) -> dict[str, NDArray[np.generic]]:
    """Arrays for logits that differ by some octaves."""
    arrays: dict[str, NDArray[np.generic]] = {}
    for level in range(config.levels):
        for name, (shape, dtype) in config.array_shapes(level).items():
            if name.endswith(".scale"):
                drawn = rng.integers(2**12, 2**17, shape)
            elif name.endswith(".bias"):
                drawn = rng.integers(-50, 51, shape)
            else:
                drawn = rng.integers(-127, 128, shape)
            arrays[f"level{level + 1}.{name}"] = drawn.astype(dtype)
    shape, _ = config.kind_shapes()["kinds.centre"]
    arrays["kinds.centre"] = rng.integers(-127, 128, shape).astype(np.int8)
    frequencies = rng.integers(1000, 2**20, config.kinds)
    frequencies[0] += 2**FREQUENCY_BITS - config.kinds - frequencies.sum()
    arrays["kinds.frequency"] = frequencies.astype(np.int32)
    return arrays


def drawn_prior(config: PriorConfig = SMALL, seed: int = 0) -> Prior:
    """A prior that no library but NumPy's generator decides."""
    return Prior(config, drawn_arrays(config, np.random.default_rng(seed)))


def hash_of_wide() -> str:
    """Of the logits and frequencies of a larger prior over a batch of grids."""
    prior, rng = drawn_prior(WIDE), np.random.default_rng(1)
    indices = rng.integers(0, WIDE.codebook_size, (6, 1, 20, 16)).astype(np.uint16)
    kinds = rng.integers(0, WIDE.kinds, 6)
    digest = hashlib.sha256()
    for step in prior.schedule(1, 20, 16):
        logits = prior.logits(indices, kinds, step)
        digest.update(logits.astype("<i8").tobytes())
        digest.update(frequencies_of(logits).astype("<i8").tobytes())
    return digest.hexdigest()


if __name__ == "__main__":
    print(hash_of_wide())
