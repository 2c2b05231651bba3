"""What a fuzz target is, and what counts as a crash of one. Imports neither torch nor atheris."""

import random
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from oasisvq.errors import OasisVQError

SECONDS = 1.0  # of processor time for one input
BYTES = 300 * 2**20  # by which memory may grow over all inputs


class Mutator(Protocol):
    """Changes an input; `change_bytes` does so without knowing what the bytes are."""

    def __call__(
        self, content: bytes, rng: random.Random, change_bytes: Callable[[bytes], bytes]
    ) -> bytes: ...


class Target(NamedTuple):
    """One way in for bytes from outside.

    Attributes:
        read: (content, folder) -> what the project makes of it; files go into that folder.
        refusals: the errors that `read` may raise. Every other exception is a crash.
        hold: (what was read, content, folder); raises if it is not what it should be. Whatever it
            raises is a crash, errors of ours too.
        seeds: inputs to start from; all of them are accepted.
        mutate: the structure-aware mutator.
        most_bytes: of an input.
    """

    read: Callable[[bytes, Path], Any]
    refusals: tuple[type[OasisVQError], ...]
    hold: Callable[[Any, bytes, Path], None]
    seeds: Callable[[], list[bytes]]
    mutate: Mutator
    most_bytes: int


class LimitError(Exception):
    """An input took too long or too much memory."""


def peak_bytes() -> int:
    """The largest resident set that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class Examiner:
    """Gives inputs to a target; raises whatever counts as a crash."""

    def __init__(
        self, target: Target, folder: Path, seconds: float = SECONDS, grown_bytes: int = BYTES
    ) -> None:
        self._target, self._folder = target, folder
        self._seconds, self._most_bytes = seconds, peak_bytes() + grown_bytes

    def __call__(self, content: bytes) -> bool:
        """Whether the input was accepted.

        Raises:
            LimitError: it was refused or accepted, but too slowly or with too much memory.
            Exception: any other crash.
        """
        started = time.thread_time()
        accepted = self._examine(content)
        taken = time.thread_time() - started
        if taken > self._seconds:
            raise LimitError(f"{taken:.2f} s, expected at most {self._seconds:g} s")
        if (peak := peak_bytes()) > self._most_bytes:
            raise LimitError(f"{peak:,} bytes of memory, expected at most {self._most_bytes:,}")
        return accepted

    def _examine(self, content: bytes) -> bool:
        target = self._target
        try:
            found = target.read(content, self._folder)
        except target.refusals:
            return False
        target.hold(found, content, self._folder)
        return True
