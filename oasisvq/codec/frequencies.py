"""Frequencies of codes: from logits to frequencies, bits and drawn codes. Never imports torch.

Shapes: B batch, n cells of one pass, K codes.

All arithmetic is in integers; tables are computed once, by integer roots and powers.
"""

import math
from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.uint16]
Frequencies = NDArray[np.int64]

FREQUENCY_BITS = 24
BIT_UNITS = 256  # steps to a bit that a code costs
TABLE_SIZE = 256


def _power_table() -> NDArray[np.int64]:
    """floor(2^(16 - d / 16)) for d from 0, by integer square roots alone."""
    table = []
    for step in range(TABLE_SIZE):
        root = 2 ** (16 * 16 - step)
        for _ in range(4):
            root = math.isqrt(root)
        table.append(root)
    return np.array(table, dtype=np.int64)


POWERS = _power_table()


def frequencies_of(logits: NDArray[np.int64]) -> Frequencies:
    """Logits (..., K) in 1/16 octave -> frequencies (..., K), whose sum is exactly 2^24 - K.

    They are the floors of the exact shares; what is missing from the sum goes to the first of the
    largest. The coder adds 1 to every code, so the sum is 2^24 and no code is impossible.
    """
    below = logits.max(-1, keepdims=True) - logits
    shares = POWERS[np.minimum(below, TABLE_SIZE - 1)]
    size = logits.shape[-1]
    whole = 2**FREQUENCY_BITS - size
    frequencies: Frequencies = shares * whole // shares.sum(-1, keepdims=True)
    largest = frequencies.argmax(-1)[..., None]
    missing = whole - frequencies.sum(-1, keepdims=True)
    np.put_along_axis(frequencies, largest, np.take_along_axis(frequencies, largest, -1) + missing, -1)
    return frequencies


def _bits_table() -> NDArray[np.float32]:
    """256ths of a bit that a code costs, by the first 8 bits of its share after the leading one.

    Place 256 · e + m is for a share of 2^e · (1 + (m + 1/2) / 256) of 2^24. By integers alone: the
    base-2 logarithm of n in 256ths is the bit length of n^256, minus 1.
    """
    places = np.array([((513 + 2 * m) ** BIT_UNITS).bit_length() - 1 for m in range(256)])
    logarithms = np.arange(FREQUENCY_BITS + 1)[:, None] * BIT_UNITS + (places - 9 * BIT_UNITS)
    bits = FREQUENCY_BITS * BIT_UNITS - logarithms.reshape(-1)
    table: NDArray[np.float32] = np.maximum(bits, 0).astype(np.float32)
    return table


_BITS = _bits_table()


def bits_of(frequencies: Frequencies) -> NDArray[np.float32]:
    """What codes of these frequencies cost, in whole 256ths of a bit; the same on every machine."""
    shares = (frequencies + 1).astype(np.float32).view(np.int32)  # exact: 8 of exponent, 23 of mantissa
    bits: NDArray[np.float32] = _BITS[(shares >> 15) - (127 << 8)]
    return bits


@cache
def _roots() -> NDArray[np.int64]:
    """floor(2^(24 + f / 256)) for f from 0 to 255, by integer square roots alone."""
    table = []
    for step in range(BIT_UNITS):
        root = 2 ** (24 * BIT_UNITS + step)
        for _ in range(8):
            root = math.isqrt(root)
        table.append(root)
    return np.array(table, dtype=np.int64)


def _shares_at(frequencies: Frequencies, temperature: float) -> NDArray[np.int64]:
    """Shares (..., K) of codes, raised to 1 / temperature, as integers; their sum is below 2^31."""
    if temperature == 1:
        return frequencies + 1
    bits = bits_of(frequencies).astype(np.float64)
    further = (bits - bits.min(-1, keepdims=True)) / temperature
    below = np.rint(np.minimum(further, 32 * BIT_UNITS)).astype(np.int64)
    octaves = -(-below // BIT_UNITS)
    shares: NDArray[np.int64] = _roots()[octaves * BIT_UNITS - below] >> octaves
    shares >>= max(0, frequencies.shape[-1].bit_length() - 6)
    return shares


def draw(
    frequencies: Frequencies, generators: Sequence[np.random.Generator], temperature: float
) -> Indices:
    """Draw indices (B, n) by frequencies (B or 1, n, K), those of each grid by its own generator.

    By integers, from the upper 32 bits of a generator's raw numbers: the same on every machine.
    """
    summed = _shares_at(frequencies, temperature).cumsum(-1)
    summed = np.broadcast_to(summed, (len(generators), *summed.shape[1:]))
    count = summed.shape[1]
    raw = np.stack([generator.bit_generator.random_raw(count) for generator in generators])
    drawn = (raw >> np.uint64(32)).astype(np.int64)
    below = summed <= (drawn * summed[..., -1] >> 32)[..., None]
    indices: Indices = below.sum(-1).astype(np.uint16)
    return indices


def fewest_bits(codebook_size: int) -> float:
    """The fewest bits that an index costs: one code is as likely as possible, all others as unlikely."""
    largest, whole = int(POWERS[0]), 2**FREQUENCY_BITS - codebook_size
    share = (
        largest * whole // (largest + codebook_size - 1) + codebook_size + 1
    )  # it gets what is missing
    return FREQUENCY_BITS - math.log2(share)
