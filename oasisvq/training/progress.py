"""How a training is shown: a live line in a terminal, plain lines elsewhere."""

import time

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from oasisvq.training.loop import EpochReport, LoopConfig, StepReport

SECONDS_PER_LINE = 30.0


def duration(seconds: float) -> str:
    """1:02:03 or 2:03."""
    whole = round(seconds)
    hours, minutes = whole // 3600, whole // 60 % 60
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"


def step_line(report: StepReport, epochs: int, steps: int) -> str:
    """The latest steps in one line."""
    return (
        f"epoch {report.epoch}/{epochs}  step {report.step:,}/{steps:,}  loss {report.loss:.4f}  "
        f"{report.images_per_second:.1f} images/s  {duration(report.seconds_left)} left"
    )


class ConsoleReporter:
    """Shows a training on stderr; see `loop.Reporter`."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.what = ""
        self.epochs = self.steps = 0
        self.printed = 0.0
        self.progress: Progress | None = None
        self.bar = TaskID(0)

    def started(self, what: str, config: LoopConfig, steps_per_epoch: int, first_step: int) -> None:
        """Open the live display where there is a terminal."""
        self.what, self.epochs = what, config.epochs
        self.steps = steps_per_epoch * config.epochs
        if self.console.is_terminal:
            self.progress = Progress(
                BarColumn(bar_width=24), TextColumn("{task.description}"), console=self.console
            )
            self.progress.start()
            self.bar = self.progress.add_task("first steps", total=self.steps, completed=first_step)

    def step(self, report: StepReport) -> None:
        """Move the bar, or print a line now and then."""
        line = f"{self.what} {step_line(report, self.epochs, self.steps)}"
        if self.progress is not None:
            self.progress.update(self.bar, completed=report.step, description=line)
        elif time.monotonic() - self.printed > SECONDS_PER_LINE:
            self.printed = time.monotonic()
            self.note(line)

    def epoch(self, report: EpochReport) -> None:
        """Print the epoch."""
        line = f"{self.what} epoch {report.epoch}/{self.epochs}  {report.summary()}  "
        self.note(line + f"{report.images_per_second:.1f} images/s")

    def note(self, message: str) -> None:
        """Print one line, above the bar where there is one."""
        self.console.print(message, markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self.progress is not None:
            self.progress.stop()
            self.progress = None
