"""Indices <-> payload. Never imports torch.

The packed coder writes each index with ceil(log2 K) bits, most significant first, one after the
other in the order of the array, and fills the last byte with zeros.
"""

import numpy as np
from numpy.typing import NDArray

from oasisvq.errors import CodesFileError

_INDICES_AT_ONCE = 2**20  # a multiple of 8, so that every part but the last fills whole bytes


def bits_per_index(codebook_size: int) -> int:
    """ceil(log2 K), for K from 2 to 65,535."""
    return (codebook_size - 1).bit_length()


def packed_bytes(count: int, codebook_size: int) -> int:
    """Bytes that `pack` gives for so many indices."""
    return -(-count * bits_per_index(codebook_size) // 8)


def pack(indices: NDArray[np.integer], codebook_size: int) -> bytes:
    """Indices of any shape, each in 0..K-1, to fixed-width bits."""
    assert 2 <= codebook_size <= 65_535
    flat = indices.reshape(-1)
    assert not flat.size or (flat.min() >= 0 and flat.max() < codebook_size)
    places = np.arange(bits_per_index(codebook_size) - 1, -1, -1)
    parts = []
    for start in range(0, flat.size, _INDICES_AT_ONCE):
        part = flat[start : start + _INDICES_AT_ONCE].astype(np.uint32)
        bits = ((part[:, None] >> places) & 1).astype(np.uint8)  # (indices, bits)
        parts.append(np.packbits(bits).tobytes())
    return b"".join(parts)


def unpack(payload: bytes, codebook_size: int, count: int) -> NDArray[np.uint16]:
    """The inverse of `pack`: a (count,) array.

    Raises:
        CodesFileError: the payload has another length, an index is out of range, or the bits that
            fill the last byte are not zero.
    """
    expected = packed_bytes(count, codebook_size)
    if len(payload) != expected:
        raise CodesFileError(f"a payload of {len(payload)} bytes, expected {expected}")
    width = bits_per_index(codebook_size)
    places = np.arange(width - 1, -1, -1)
    packed = np.frombuffer(payload, dtype=np.uint8)
    indices = np.empty(count, dtype=np.uint16)
    for start in range(0, count, _INDICES_AT_ONCE):
        stop = min(count, start + _INDICES_AT_ONCE)
        part = packed[start * width // 8 : -(-stop * width // 8)]
        bits = np.unpackbits(part)
        used = (stop - start) * width
        if bits[used:].any():
            raise CodesFileError("the payload's last byte is not filled with zeros")
        values = bits[:used].reshape(-1, width).astype(np.uint32) << places.astype(np.uint32)
        values = values.sum(axis=1)
        if values.size and values.max() >= codebook_size:
            raise CodesFileError(
                f"index {int(values.max())} in the payload, but the codebook has {codebook_size} codes"
            )
        indices[start:stop] = values
    return indices
