"""Indices <-> payload, packed or by the prior. Never imports torch.

The packed coder writes each index with ceil(log2 K) bits, most significant first, in the order of the
array, and pads the last byte with zeros.

The prior coder writes the slice's kind and then the indices, in the order of the prior's passes (within
a pass by row, then column). It uses the range coder of the library constriction
(`stream.queue.RangeEncoder`, words of 32 bits, state of 64 bits, precision 24). Index k takes f_k + 1 of
2^24 shares, where f are the prior's frequencies, whose sum is 2^24 - K. The payload is the coder's
words, each most significant byte first. It ends with the fewest bytes that, followed by zeros, lie in
the coder's last interval. The slices of a volume follow each other in one payload; from the second slice
on, `recall.py` weights their frequencies.
"""

import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oasisvq.codec.exact import Numbers
from oasisvq.codec.frequencies import Frequencies, Indices, fewest_bits
from oasisvq.codec.prior import Pass, Prior
from oasisvq.codec.recall import Recall
from oasisvq.errors import CodesFileError, ModelError

_WORD_BYTES = 4

_INDICES_AT_ONCE = 2**20  # a multiple of 8, so that every part but the last fills whole bytes


def bits_per_index(codebook_size: int) -> int:
    """ceil(log2 K), for K from 2 to 65,535."""
    return (codebook_size - 1).bit_length()


def packed_bytes(count: int, codebook_size: int) -> int:
    """Number of bytes that `pack` gives for `count` indices."""
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
            pad the last byte are not zero.
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


def has_range_coder() -> bool:
    """Whether the library of the range coder is installed."""
    return importlib.util.find_spec("constriction") is not None


def _constriction_stream() -> Any:  # noqa: ANN401 - the library has no types
    """The library of the range coder, which training does without.

    Raises:
        ModelError: it is not installed.
    """
    try:
        import constriction
    except ImportError as error:
        raise ModelError(
            "files coded with a prior need the library constriction; install it with "
            "`pip install constriction`, or encode with --coder packed"
        ) from error
    return constriction.stream


class RangeEncoder:
    """Indices and their frequencies -> bytes."""

    def __init__(self) -> None:
        stream = _constriction_stream()
        self._coder = stream.queue.RangeEncoder()
        self._model = stream.model.Categorical(perfect=False)
        self._uniform = stream.model.Uniform
        self._is_empty = True

    def put(self, indices: NDArray[np.integer], frequencies: Frequencies) -> None:
        """Append (n,) indices with (n, K) frequencies, which float32 holds exactly."""
        self._coder.encode(indices.astype(np.int32), self._model, frequencies.astype(np.float32))
        self._is_empty = False

    def put_uniform(self, numbers: NDArray[np.integer], size: int) -> None:
        """Append (n,) numbers from 0 to size - 1, all equally likely."""
        self._coder.encode(numbers.astype(np.int32), self._uniform(size))
        self._is_empty = False

    @property
    def sealed_bytes(self) -> int:
        """How many bytes can no longer change: a lower bound on the length that `finish` gives."""
        start: int = self._coder.pos()[0]
        return max(0, start - 1) * _WORD_BYTES  # the coder may hold back a word for a carry

    def finish(self) -> bytes:
        """The bytes of everything that was put."""
        if self._is_empty:
            return b""
        words: NDArray[np.uint32] = self._coder.get_compressed()
        sealed: bytes = words.astype(">u4").tobytes()
        start, (low, extent) = self._coder.pos()
        start *= _WORD_BYTES
        tail = int.from_bytes(sealed[start:].ljust(8, b"\0"), "big")
        if not low <= tail < low + extent:  # the coder holds back words that a carry may still change
            return sealed
        for count in range(9):
            step = 1 << (64 - 8 * count)
            shortest = -(-low // step) * step
            if shortest < min(low + extent, 1 << 64):
                end: bytes = int(shortest).to_bytes(8, "big")
                return sealed[:start] + end[:count]
        raise AssertionError("the interval is empty")


class RangeDecoder:
    """The inverse of `RangeEncoder`."""

    def __init__(self, payload: bytes) -> None:
        stream = _constriction_stream()
        padded = payload.ljust(-(-len(payload) // _WORD_BYTES) * _WORD_BYTES, b"\0")
        words = np.frombuffer(padded, dtype=">u4").astype(np.uint32)
        # constriction's decoder reads zeros past the end only where it has two words to start with
        words = np.concatenate([words, np.zeros(max(0, 2 - len(words)), np.uint32)])
        self._coder = stream.queue.RangeDecoder(words)
        self._model = stream.model.Categorical(perfect=False)
        self._uniform = stream.model.Uniform

    def take(self, frequencies: Frequencies) -> Indices:
        """The next n indices, by (n, K) frequencies."""
        taken = self._coder.decode(self._model, frequencies.astype(np.float32))
        return np.asarray(taken).astype(np.uint16)

    def take_uniform(self, count: int, size: int) -> NDArray[np.int64]:
        """The next `count` numbers from 0 to size - 1."""
        taken = self._coder.decode(self._uniform(size), count)
        return np.asarray(taken).astype(np.int64)


class GridEncoder:
    """Index grids of one shape, one after the other -> a payload."""

    def __init__(self, prior: Prior, shape: tuple[int, int, int], recall: Recall | None = None) -> None:
        """Start a payload.

        Args:
            prior: gives the frequencies.
            shape: (levels, h, w) of each grid.
            recall: for the slices of a volume; None if the grids are not neighbours.
        """
        self._prior, self._shape, self._recall = prior, shape, recall
        self._coder = RangeEncoder()

    def put(
        self,
        kind: int,
        choose: Callable[[Pass, Frequencies], Indices],
        expected: Numbers | None = None,
    ) -> Indices:
        """Append one grid.

        Args:
            kind: of the slice, see `Prior.kind_of`.
            choose: given a pass and its frequencies (n, K), returns the indices (n,) to code.
            expected: latents (h, w, D), see `Prior.walk`.

        Returns:
            The indices (levels, h, w) that were coded.
        """
        kinds = np.array([kind])
        self._coder.put(kinds, self._prior.kind_frequencies[None])

        def code(step: Pass, frequencies: Frequencies) -> Indices:
            chosen = choose(step, frequencies)
            self._coder.put(chosen, frequencies)
            return chosen

        return _walk(self._prior, self._shape, kinds, code, self._recall, expected)

    def finish(self) -> bytes:
        """The payload."""
        return self._coder.finish()


class GridDecoder:
    """The inverse of `GridEncoder`."""

    def __init__(
        self,
        payload: bytes,
        prior: Prior,
        shape: tuple[int, int, int],
        recall: Recall | None = None,
    ) -> None:
        self._payload, self._prior, self._shape, self._recall = payload, prior, shape, recall
        self._decoder, self._encoder = RangeDecoder(payload), RangeEncoder()

    def take(self, expected: Numbers | None = None) -> Indices:
        """The next grid (levels, h, w); its latents are expected to be near `expected` (h, w, D).

        Raises:
            CodesFileError: the payload is damaged.
        """

        def code(_: Pass, frequencies: Frequencies) -> Indices:
            taken = self._decoder.take(frequencies)
            self._encoder.put(taken, frequencies)
            if self._encoder.sealed_bytes > len(self._payload):
                raise CodesFileError("the payload ends before its indices do")
            return taken

        try:
            kinds = self._decoder.take(self._prior.kind_frequencies[None])
            self._encoder.put(kinds, self._prior.kind_frequencies[None])
            return _walk(self._prior, self._shape, kinds, code, self._recall, expected)
        except (AssertionError, ValueError) as error:  # how constriction refuses impossible words
            raise CodesFileError(f"the payload is not one of the range coder ({error})") from error

    def finish(self) -> None:
        """Check that the payload is exactly the one that encodes the indices taken.

        Raises:
            CodesFileError: it is not: it ends early, goes on after them, or belongs to another grid or
                prior.
        """
        if self._encoder.finish() != self._payload:
            raise CodesFileError("the payload does not end where its indices end")


def _walk(
    prior: Prior,
    shape: tuple[int, int, int],
    kinds: NDArray[np.integer],
    code: Callable[[Pass, Frequencies], Indices],
    recall: Recall | None,
    expected: Numbers | None,
) -> Indices:
    """Fill one grid pass by pass, by the frequencies of the prior and of the previous slice."""
    if recall is not None:
        recall.begin(shape[1], shape[2])

    def choose(step: Pass, frequencies: Frequencies) -> Indices:
        if recall is None:
            return code(step, frequencies[0])[None]
        chosen = code(step, recall.weigh(step, frequencies[0]))
        recall.learn(step, chosen)
        return chosen[None]

    near = None if expected is None else expected[None]
    indices: Indices = prior.walk((1, *shape), kinds, choose, near)[0]
    return indices


def encode_with_prior(
    prior: Prior,
    shape: tuple[int, int, int],
    kind: int,
    choose: Callable[[Pass, Frequencies], Indices],
) -> tuple[bytes, Indices]:
    """One grid (levels, h, w) to a payload, and the indices that it holds; see `GridEncoder`."""
    encoder = GridEncoder(prior, shape)
    indices = encoder.put(kind, choose)
    return encoder.finish(), indices


def decode_with_prior(payload: bytes, prior: Prior, shape: tuple[int, int, int]) -> Indices:
    """The inverse of `encode_with_prior`.

    Raises:
        CodesFileError: see `GridDecoder`.
    """
    decoder = GridDecoder(payload, prior, shape)
    indices = decoder.take()
    decoder.finish()
    return indices


def kind_in(payload: bytes, prior: Prior) -> int:
    """The kind of slice that a prior-coded payload begins with."""
    return int(RangeDecoder(payload).take(prior.kind_frequencies[None])[0])


def most_indices(payload_bytes: int, codebook_size: int) -> int:
    """An upper bound on the indices that a prior-coded payload of `payload_bytes` can hold."""
    return int(8 * (payload_bytes + 2 * _WORD_BYTES) / fewest_bits(codebook_size)) + 1
