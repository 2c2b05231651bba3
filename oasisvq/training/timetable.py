"""How long a training will take, from trials of what it is made of before it begins."""

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
    """Seconds that something takes the second time: the first may choose kernels and compile."""
    seconds = 0.0
    for _ in range(2):
        began = time.monotonic()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds = time.monotonic() - began
    return seconds


def scored_slices(dataset: Dataset) -> int:
    """Slices of the validation split, all of which are scored in the end."""
    split = dataset.splits.get("validation")
    return len(split.records) if split else 0


def seconds_of_scoring(file: ModelFile, dataset: Dataset) -> float:
    """Seconds of the scores of the validation split, by a trial; none without a split."""
    scored = scored_slices(dataset)
    if not scored:
        return 0.0
    codec, plane = Codec(file.with_prior(None, file.card)), np.asarray(dataset.array("validation")[0])
    return scored * seconds_of(lambda: codec.decode(codec.encode(plane)), torch.device("cpu"))


def is_tenth(epoch: int, epochs: int) -> bool:
    """Whether a tenth of a training ends with an epoch, counted from 1: then NumPy may validate it.

    At every epoch a GPU would wait for that most of the time.
    """
    return epoch % max(1, epochs // VALIDATIONS) == 0 or epoch == epochs


class Pace(NamedTuple):
    """Seconds that a slice takes.

    Attributes:
        step: to be learnt from once.
        coding: to be coded by the integers, as in a validation.
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
        """One more step. The first also chooses kernels and compiles: it stands alone until the next."""
        self._steps += 1
        if self._steps == 2:
            self._total = self._cost = 0.0
        self._total += seconds
        self._cost += cost
        self.seconds = self._total / self._cost


class Progress:
    """Says now and then how far a phase is that has no steps: `what` with counts of `unit`."""

    def __init__(self, tell: Callable[[str], None], what: str, total: int, unit: str) -> None:
        self.tell, self.what, self.total, self.unit = tell, what, total, unit
        self.done = 0
        self.began = self.told = time.monotonic()

    def advance(self, count: int) -> None:
        """So many more are done."""
        self.done += count
        now = time.monotonic()
        if now - self.told > SECONDS_PER_NOTE and self.done < self.total:
            self.told = now
            left = (now - self.began) / self.done * (self.total - self.done)
            self.tell(f"{self.what}: {self.done:,} of {self.total:,} {self.unit}, {duration(left)} left")
