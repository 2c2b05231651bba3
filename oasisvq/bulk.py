"""Runs over many files: what they do, what they pass over, and how they survive a bad file.

`encoding.py` and `decoding.py` use it. A run skips outputs that exist, continues after a bad file, and
holds one file at a time in each process, so that memory does not grow with the number of files.
"""

import errno
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from oasisvq.errors import FileError, OasisVQError
from oasisvq.folders import WHOLE, PassedOver, Shard
from oasisvq.jobs import calls
from oasisvq.kept import Kept, KeptSum

Advance = Callable[[int, int], None]  # told (files or slices done, in all)
NOTHING_CAN_BE_WRITTEN = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}
Task = TypeVar("Task")


class Result(NamedTuple):
    """The result of one task: it was done, it was skipped, or it failed.

    Attributes:
        bytes_in: number of bytes that were read.
        bytes_out: number of bytes that were written.
        assumed: assumptions about the scan, see `encoding.py`.
        is_skipped: whether the output existed already.
        failure: the line that says why the task failed.
        ends_run: whether nothing more can be written.
        name: name of the scan that was encoded.
        kept: the quality of the encoded scan, from `encoding.py`.
    """

    bytes_in: int = 0
    bytes_out: int = 0
    assumed: tuple[str, ...] = ()
    is_skipped: bool = False
    failure: str = ""
    ends_run: bool = False
    name: str = ""
    kept: Kept | None = None


SKIPPED = Result(is_skipped=True)


@dataclass
class Outcome:
    """What a run over many files did; `ended_early` if nothing more could be written."""

    done: int = 0
    skipped: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    assumed: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    passed_over: PassedOver = field(default_factory=PassedOver)
    ended_early: bool = False
    kept: KeptSum = field(default_factory=KeptSum)
    seconds: float = 0.0

    def add(self, result: Result) -> None:
        """Count what became of one more task."""
        if result.failure:
            self.failures.append(result.failure)
        elif result.is_skipped:
            self.skipped += 1
        else:
            self.done += 1
            self.bytes_in += result.bytes_in
            self.bytes_out += result.bytes_out
            self.assumed.update(result.assumed)
            if result.kept:
                self.kept.add(result.name, result.kept)
        self.ended_early |= result.ends_run

    def as_dict(self) -> dict[str, Any]:
        """The outcome as JSON holds it."""
        numbers = {"done": self.done, "skipped": self.skipped, "failed": len(self.failures)}
        sizes = {"bytes_in": self.bytes_in, "bytes_out": self.bytes_out}
        return {
            **numbers,
            **sizes,
            "assumed": dict(self.assumed),
            "failures": self.failures,
            "passed_over": self.passed_over.as_dict(),
            "ended_early": self.ended_early,
        } | ({"kept": self.kept.as_dict()} if self.kept.scans else {})


def refuse_like_names(inputs: Sequence[Path]) -> None:
    """Raise if two folders would go to the same place below an output."""
    names: dict[str, Path] = {}
    for path in inputs:
        if path.is_dir():
            first = names.setdefault(path.resolve().name, path)
            if first != path:
                raise FileError(
                    f"{path}: has the same name as {first}; run the command on each of them separately"
                )


def run_tasks(
    do: Callable[[Task], Result],
    tasks: Callable[[Outcome], Iterable[Task]],
    outcome: Outcome,
    shard: Shard = WHOLE,
    advance: Advance = lambda done, total: None,
    jobs: int = 1,
    tell: Callable[[Task, Result], None] = lambda task, result: None,
) -> None:
    """Do the tasks of a shard, until nothing more can be written.

    Args:
        do: does one task; see `surviving`.
        tasks: gives the tasks, and tells an outcome what was passed over. Tasks are counted first.
        outcome: collects the results.
        shard: which of the tasks.
        advance: called with (tasks done, tasks in all).
        jobs: number of processes; the outcome and its order are the same with any number.
        tell: called with each task and its result.
    """
    total = sum(shard.takes(place) for place, _ in enumerate(tasks(Outcome())))

    def ours() -> Iterator[Task]:
        for place, task in enumerate(tasks(outcome)):
            if outcome.ended_early:
                return
            if shard.takes(place):
                yield task

    started = time.monotonic()
    for done, (task, result) in enumerate(calls(do, ours(), jobs), start=1):
        outcome.add(result)
        outcome.seconds = time.monotonic() - started
        tell(task, result)
        advance(done, max(total, done))


def surviving(do: Callable[[], Result], where: Path) -> Result:
    """The result of `do`; an error of one file is a result too, so that the run continues after it."""
    try:
        return do()
    except OasisVQError as error:
        cause = error.__cause__
        ends = isinstance(cause, OSError) and cause.errno in NOTHING_CAN_BE_WRITTEN
        # only the message: the error itself holds the image
        return Result(failure=str(error), ends_run=ends)
    except MemoryError as error:
        return Result(failure=f"{where}: too large for this machine's memory ({error})")
    except OSError as error:
        ends = error.errno in NOTHING_CAN_BE_WRITTEN
        return Result(failure=f"{error.filename or where}: {error.strerror or error}", ends_run=ends)
