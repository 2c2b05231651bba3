"""How well labels survive; for grey levels see `codec/measure.py`."""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


def snap(restored: NDArray[np.generic], labels: NDArray[np.generic]) -> NDArray[np.generic]:
    """Each grey level replaced by the nearest of the sorted label values."""
    values = labels.astype(np.float64)
    middles = (values[1:] + values[:-1]) / 2
    nearest: NDArray[np.generic] = labels[np.digitize(restored.astype(np.float64), middles)]
    return nearest


class Overlap(NamedTuple):
    """Pixel counts of one label, from which Dice follows; they add up over slices."""

    both: int
    original: int
    restored: int

    @property
    def dice(self) -> float:
        """2·|A∩B| / (|A| + |B|) (Dice 1945); nan if neither has the label."""
        total = self.original + self.restored
        return 2 * self.both / total if total else math.nan


def overlap(original: NDArray[np.generic], restored: NDArray[np.generic], label: float) -> Overlap:
    """Where two label images agree on `label`."""
    first, second = original == label, restored == label
    return Overlap(int((first & second).sum()), int(first.sum()), int(second.sum()))
