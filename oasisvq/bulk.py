"""Runs over many files: what they do, what they pass over, and how they survive a bad one.

`encoding.py` and `decoding.py` are such runs. They skip outputs that are there, go on after a bad file,
and hold one file at a time, so that memory does not grow with their number.
"""

import errno
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from oasisvq.errors import FileError, OasisVQError
from oasisvq.folders import PassedOver, Shard

Advance = Callable[[int, int], None]  # told (files or slices done, in all)
NOTHING_CAN_BE_WRITTEN = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}
Task = TypeVar("Task")


@dataclass
class Outcome:
    """What a run over many files did; `ended_early` if nothing more could be written."""

    done: int = 0
    skipped: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    failures: list[str] = field(default_factory=list)
    passed_over: PassedOver = field(default_factory=PassedOver)
    ended_early: bool = False

    def as_dict(self) -> dict[str, Any]:
        """The outcome as JSON holds it."""
        numbers = {"done": self.done, "skipped": self.skipped, "failed": len(self.failures)}
        sizes = {"bytes_in": self.bytes_in, "bytes_out": self.bytes_out}
        return {
            **numbers,
            **sizes,
            "failures": self.failures,
            "passed_over": self.passed_over.as_dict(),
            "ended_early": self.ended_early,
        }


def refuse_like_names(inputs: Sequence[Path]) -> None:
    """Raise if two folders would go to one place below an output."""
    names: dict[str, Path] = {}
    for path in inputs:
        if path.is_dir():
            first = names.setdefault(path.resolve().name, path)
            if first != path:
                raise FileError(f"{path}: has the name of {first}; name them in runs of their own")


@contextmanager
def surviving(outcome: Outcome, where: Path) -> Iterator[None]:
    """Record an error of one file and let the run go on, unless it is one of the disk."""
    try:
        yield
    except OasisVQError as error:
        outcome.failures.append(str(error))  # not the error, whose traceback holds the image
        cause = error.__cause__
        outcome.ended_early = isinstance(cause, OSError) and cause.errno in NOTHING_CAN_BE_WRITTEN
    except MemoryError as error:
        outcome.failures.append(f"{where}: too large for this machine's memory ({error})")
    except OSError as error:
        outcome.failures.append(f"{error.filename or where}: {error.strerror}")


def tasks_of_shard(
    tasks: Callable[[Outcome], Iterable[Task]], outcome: Outcome, shard: Shard, advance: Advance
) -> Iterator[Task]:
    """The tasks of a shard, until nothing more can be written.

    Tasks are counted first; what is passed over is told to the outcome only when they are done.
    """
    total = sum(shard.takes(place) for place, _ in enumerate(tasks(Outcome())))
    done = 0
    for place, task in enumerate(tasks(outcome)):
        if shard.takes(place):
            yield task
            done += 1
        if outcome.ended_early:
            return
        advance(done, max(total, done))
