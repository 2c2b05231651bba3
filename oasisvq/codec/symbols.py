"""Symbols <-> payload, where one walk both writes and reads. Never imports torch.

The walk asks a writer or a reader for each group of symbols. A writer is given the symbols and returns
them; a reader finds them in the payload and ignores what it is given. So the walk is its own inverse.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from oasisvq.codec.entropy import RangeDecoder, RangeEncoder
from oasisvq.errors import CodesFileError

Integers = NDArray[np.int64]
_RAW_BITS = 16  # at once


class Symbols(Protocol):
    """Writes or reads symbols."""

    def coded(self, symbols: Integers, frequencies: NDArray[Any]) -> Integers:
        """Symbols (n,), by frequencies (n, K) whose sums are 2^24 - K, as in `entropy.py`.

        Raises:
            CodesFileError: the payload does not hold so many.
        """
        ...

    def uniform(self, numbers: Integers, size: int) -> Integers:
        """Numbers (n,) from 0 to size - 1, all equally likely; size is at most 2^23.

        Raises:
            CodesFileError: the payload does not hold so many.
        """
        ...


class SymbolWriter:
    """Writes the symbols that it is given."""

    def __init__(self) -> None:
        self._encoder = RangeEncoder()

    def coded(self, symbols: Integers, frequencies: NDArray[Any]) -> Integers:
        if len(symbols):
            self._encoder.put(symbols, frequencies)
        return symbols

    def uniform(self, numbers: Integers, size: int) -> Integers:
        if len(numbers) and size > 1:
            self._encoder.put_uniform(numbers, size)
        return numbers

    def finish(self) -> bytes:
        """The payload."""
        return self._encoder.finish()


class SymbolReader:
    """Reads a payload."""

    def __init__(self, payload: bytes) -> None:
        self._payload = payload
        self._decoder, self._encoder = RangeDecoder(payload), RangeEncoder()

    def coded(self, symbols: Integers, frequencies: NDArray[Any]) -> Integers:
        if not len(symbols):
            return symbols
        with _refusing_impossible_words():
            taken = self._decoder.take(frequencies).astype(np.int64)
        self._encoder.put(taken, frequencies)
        self._refuse_beyond()
        return taken

    def uniform(self, numbers: Integers, size: int) -> Integers:
        if not len(numbers):
            return numbers
        if size == 1:
            return np.zeros(len(numbers), np.int64)
        with _refusing_impossible_words():
            taken = self._decoder.take_uniform(len(numbers), size)
        self._encoder.put_uniform(taken, size)
        self._refuse_beyond()
        return taken

    def _refuse_beyond(self) -> None:
        if self._encoder.sealed_bytes > len(self._payload):
            raise CodesFileError("the payload ends before its symbols do")

    def finish(self) -> None:
        """Raise unless the payload ends here.

        Raises:
            CodesFileError: it is not what a writer gives for these symbols.
        """
        if self._encoder.finish() != self._payload:
            raise CodesFileError("the payload does not end where its symbols do")


@contextmanager
def _refusing_impossible_words() -> Iterator[None]:
    try:
        yield
    except (AssertionError, ValueError) as error:  # how constriction refuses impossible words
        raise CodesFileError(f"the payload is not one of the range coder ({error})") from error


def code_bits(symbols: Symbols, numbers: Integers, bits: int) -> Integers:
    """Numbers (n,) of `bits` bits, all equally likely; the highest bits come first."""
    result = np.zeros(len(numbers), np.int64)
    while bits:
        count = min(bits, _RAW_BITS)
        bits -= count
        result |= symbols.uniform(numbers >> bits & (1 << count) - 1, 1 << count) << bits
    return result
