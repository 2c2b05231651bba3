"""Calls in several processes."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from oasisvq.errors import OasisVQError
from oasisvq.jobs import calls


def square(number: int) -> int:
    return number * number


def slow_first(number: int) -> tuple[int, int]:
    time.sleep(0.2 if number == 0 else 0.02)
    return number, os.getpid()


def end_itself(number: int) -> int:
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


@pytest.mark.parametrize("jobs", [1, 2])
def test_results_come_in_the_order_of_arguments(jobs: int) -> None:
    assert list(calls(square, range(20), jobs)) == [(n, n * n) for n in range(20)]
    assert list(calls(square, [], jobs)) == []


def test_several_processes_work_and_one_job_is_this_process() -> None:
    results = list(calls(slow_first, range(40), 2))
    assert [number for _, (number, _) in results] == list(range(40))
    assert os.getpid() not in {process for _, (_, process) in results}
    assert {process for _, (_, process) in calls(slow_first, range(3), 1)} == {os.getpid()}


def test_arguments_are_taken_a_few_ahead_only() -> None:
    taken = []

    def arguments() -> Iterator[int]:
        for number in range(100):
            taken.append(number)
            yield number

    assert next(calls(square, arguments(), 2)) == (0, 0)
    assert len(taken) <= 6


def test_a_process_that_is_ended_from_outside_is_one_clear_line() -> None:
    with pytest.raises(OasisVQError, match=r"killed from outside.*fewer than --jobs 2"):
        list(calls(end_itself, range(9), 2))


def test_what_a_call_raises_is_raised(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        list(calls(os.stat, [str(tmp_path / "none")], 2))
