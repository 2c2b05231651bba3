"""Shows a training in plain lines, where there is no terminal; for terminals see display.py."""

import time

from rich.console import Console

from oasisvq.text import printable
from oasisvq.training.reports import EpochReport, Start, StepReport, duration

SECONDS_PER_LINE = 30.0


def step_line(report: StepReport, epochs: int, steps: int) -> str:
    """How far the training is, in one line."""
    return (
        f"epoch {report.epoch}/{epochs}  step {report.step:,}/{steps:,}  loss {report.loss:.4f}  "
        f"{report.images_per_second:.1f} images/s  {duration(report.seconds_left)} left"
    )


class LineReporter:
    """Prints a line now and then, and one for each epoch; see `reports.Reporter`."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.what = ""
        self.epochs = self.steps = 0
        self.printed = 0.0

    def started(self, start: Start) -> None:
        """Keep what later lines show; print nothing yet."""
        self.what, self.epochs, self.steps = start.what, start.epochs, start.steps

    def step(self, report: StepReport) -> None:
        """Print a line, unless the last one for steps is less than 30 seconds old."""
        if time.monotonic() - self.printed > SECONDS_PER_LINE:
            self.printed = time.monotonic()
            self.note(f"{self.what} {step_line(report, self.epochs, self.steps)}")

    def epoch(self, report: EpochReport) -> None:
        """Print the results of an epoch."""
        line = f"{self.what} epoch {report.epoch}/{self.epochs}  {report.summary()}  "
        self.note(line + f"{report.images_per_second:.1f} images/s")

    def note(self, message: str) -> None:
        """Print one line."""
        self.console.print(printable(message), markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Do nothing: the terminal is unchanged."""
