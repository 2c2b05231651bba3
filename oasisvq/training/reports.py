"""The reports of a training, which the loop makes, and progress.py and display.py show."""

from typing import Any, NamedTuple, Protocol


class Start(NamedTuple):
    """A training whose first step is about to run.

    Attributes:
        what: what is trained, in a word: the kind of its rows in the metrics.
        epochs: of the whole training.
        steps_per_epoch: steps of each epoch.
        first_step: steps already done by the training that it resumes.
        past: the rows of the metrics for epochs already done.
    """

    what: str
    epochs: int
    steps_per_epoch: int
    first_step: int
    past: list[dict[str, Any]]

    @property
    def steps(self) -> int:
        """Steps of the whole training."""
        return self.epochs * self.steps_per_epoch


class StepReport(NamedTuple):
    """How far a training is; losses are means over the epoch so far."""

    epoch: int
    step: int
    loss: float
    parts: dict[str, float]  # of the loss, by name
    images_per_second: float
    seconds_left: float


class EpochReport(Protocol):
    """The results of an epoch."""

    @property
    def epoch(self) -> int:
        """Number from 1."""

    @property
    def images_per_second(self) -> float:
        """Speed of the training in slices per second."""

    def _asdict(self) -> dict[str, Any]: ...

    def summary(self) -> str:
        """One line for a person."""


class Reporter(Protocol):
    """Receives the reports of a training."""

    def started(self, start: Start) -> None:
        """The first step is about to run."""

    def step(self, report: StepReport) -> None:
        """Some steps have passed."""

    def epoch(self, report: EpochReport) -> None:
        """An epoch has ended."""

    def note(self, message: str) -> None:
        """Something a person should know."""


def duration(seconds: float) -> str:
    """Seconds as 1:02:03 or 2:03."""
    whole = round(seconds)
    hours, minutes = whole // 3600, whole // 60 % 60
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"
