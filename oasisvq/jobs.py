"""Calls a function for many arguments in several processes; results keep the order of the arguments."""

import os
import signal
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from threading import Thread
from typing import Any, TypeVar

from oasisvq.errors import OasisVQError

Argument = TypeVar("Argument")
Result = TypeVar("Result")
_AHEAD = 3  # arguments that are taken ahead, for each process
_held: list[Callable[[Any], Any]] = []  # in a process of `calls`: the function that it calls


def processors() -> int:
    """Processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def calls(
    call: Callable[[Argument], Result], arguments: Iterable[Argument], jobs: int
) -> Generator[tuple[Argument, Result], None, None]:
    """Each argument with the result of `call`, in order, while the next calls are already running.

    Args:
        call: the function. With several jobs, it is sent once to each process, and arguments and
            results are sent for each call, so all of them must be picklable.
        arguments: are taken a few ahead of the results.
        jobs: number of processes; with 1, everything is done in this process.

    Raises:
        OasisVQError: a process was killed from outside.
    """
    if jobs <= 1:
        for argument in arguments:
            yield argument, call(argument)
        return
    # spawned, not forked: threads and their locks do not survive a fork
    pool = ProcessPoolExecutor(jobs, get_context("spawn"), _begin, (call,))
    running: deque[tuple[Argument, Future[Result]]] = deque()
    try:
        for argument in arguments:
            with _interrupts_waiting():  # a submission may start a process
                running.append((argument, pool.submit(_call_held, argument)))
            if len(running) >= jobs * _AHEAD:
                first, future = running.popleft()
                yield first, future.result()
        while running:
            first, future = running.popleft()
            yield first, future.result()
    except BrokenProcessPool as error:
        raise OasisVQError(
            "a process was killed from outside, perhaps because memory ran out; run again with fewer "
            f"than --jobs {jobs}"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _call_held(argument: Any) -> Any:  # noqa: ANN401 - whatever the held call takes and gives
    return _held[0](argument)


@contextmanager
def _interrupts_waiting() -> Iterator[None]:
    """Delay Ctrl-C; processes started in this block never get it, not even while they start."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin(call: Callable[[Any], Any]) -> None:
    """Store the function; leave Ctrl-C to the parent, and end when the parent ends or is killed."""
    _held.append(call)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = parent_process()
    assert parent is not None

    def end_with_it() -> None:
        parent.join()
        os._exit(1)

    Thread(target=end_with_it, daemon=True).start()
