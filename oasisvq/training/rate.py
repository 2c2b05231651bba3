"""The settings that all trainings share, and the learning rate that follows from them."""

import math
from typing import Protocol

FINAL_RATE = 0.01  # share of the learning rate where the cosine ends


class LoopConfig(Protocol):
    """The settings that all trainings share."""

    @property
    def epochs(self) -> int:
        """Passes over the training split."""

    @property
    def batch_size(self) -> int:
        """Slices a step, over all processes."""

    @property
    def learning_rate(self) -> float:
        """The highest one, after the warm-up."""

    @property
    def seed(self) -> int:
        """The seed of weights, order and every draw."""

    @property
    def precision(self) -> str:
        """`float32`, or `bfloat16` for autocast."""


def learning_rate(config: LoopConfig, step: int, steps: int) -> float:
    """Linear warm-up over the first 3 % (at most 500 steps), then half a cosine."""
    warm_up = warm_up_steps(steps)
    if step < warm_up:
        return config.learning_rate * (step + 1) / warm_up
    progress = (step - warm_up) / max(1, steps - warm_up)
    share = FINAL_RATE + (1 - FINAL_RATE) * 0.5 * (1 + math.cos(math.pi * progress))
    return config.learning_rate * share


def warm_up_steps(steps: int) -> int:
    """Number of steps with a rising learning rate."""
    return max(1, min(500, steps * 3 // 100))
