"""How long a training will take, by trials of its parts before it begins."""

import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch

from oasisvq.codec.codec import Codec
from oasisvq.codec.modelfile import ModelFile
from oasisvq.data.dataset import Dataset
from oasisvq.training.reports import duration

SECONDS_PER_NOTE = 10.0
VALIDATIONS = 10


def seconds_of(work: Callable[[], object], device: torch.device) -> float:
    """Seconds that work takes the second time, since the first may choose kernels and compile."""
    seconds = 0.0
    for _ in range(2):
        began = time.monotonic()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds = time.monotonic() - began
    return seconds


def scored_slices(dataset: Dataset) -> int:
    """Number of slices in the validation split, all of which are scored in the end."""
    split = dataset.splits.get("validation")
    return len(split.records) if split else 0


def seconds_of_scoring(file: ModelFile, dataset: Dataset) -> float:
    """Seconds to score the validation split, by a trial; 0 without such a split."""
    scored = scored_slices(dataset)
    if not scored:
        return 0.0
    codec, plane = Codec(file.with_prior(None, file.card)), np.asarray(dataset.array("validation")[0])
    return scored * seconds_of(lambda: codec.decode(codec.encode(plane)), torch.device("cpu"))


def is_tenth(epoch: int, epochs: int) -> bool:
    """Whether a tenth of a training ends with this epoch, counted from 1: then NumPy may validate it.

    If NumPy did so after every epoch, a GPU would mostly wait.
    """
    return epoch % max(1, epochs // VALIDATIONS) == 0 or epoch == epochs


class Pace(NamedTuple):
    """Seconds that a slice takes.

    Attributes:
        step: to learn from it once.
        coding: to code it by the integers, as in a validation.
    """

    step: float
    coding: float


class StepClock:
    """The mean time of a step of cost 1 in this process.

    Attributes:
        seconds: so far; 0 before the first step.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self._steps = 0
        self._total = self._cost = 0.0

    def count(self, seconds: float, cost: float) -> None:
        """Count a step. The first also chooses kernels and compiles, so the second replaces it."""
        self._steps += 1
        if self._steps == 2:
            self._total = self._cost = 0.0
        self._total += seconds
        self._cost += cost
        self.seconds = self._total / self._cost


class Progress:
    """Reports now and then the progress of a phase without steps: `what`, with counts of `unit`."""

    def __init__(self, tell: Callable[[str], None], what: str, total: int, unit: str) -> None:
        self.tell, self.what, self.total, self.unit = tell, what, total, unit
        self.done = 0
        self.began = self.told = time.monotonic()

    def advance(self, count: int) -> None:
        """Count `count` more units as done."""
        self.done += count
        now = time.monotonic()
        if now - self.told > SECONDS_PER_NOTE and self.done < self.total:
            self.told = now
            left = (now - self.began) / self.done * (self.total - self.done)
            self.tell(f"{self.what}: {self.done:,} of {self.total:,} {self.unit}, {duration(left)} left")
