"""A training in a terminal: a display that is redrawn in place, made to be left open.

It shows losses, the validation of every level as a sparkline over the epochs, active codes, images per
second and the time left. Everything fits the current width and height of the terminal.
"""

import math
import sys
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from oasisvq.text import printable
from oasisvq.training.progress import LineReporter
from oasisvq.training.reports import EpochReport, Start, StepReport, duration

WIDEST = 78  # so that resizing a terminal of the usual width or more leaves no trace
LEAST_WANTED = ("perplexity", "change")  # left out first in a narrow terminal
MIN_SPARKS = 6
GAP = 2  # between columns
REFRESHES_PER_SECOND = 1  # 4 ms of Python each
BLOCKS, ASCII_BLOCKS = "▁▂▃▄▅▆▇█", "_.:-=+*#"
LINES_BESIDE_LEVELS = 3  # the table's head, an empty line, and the line where the cursor waits
LOSS_NAMES = {"ssim_loss": "1-SSIM", "l1": "L1", "mse": "MSE"}

Row = dict[str, Any]  # of metrics.jsonl


class Space(NamedTuple):
    """What a table may take: columns, rows below its head, and the blocks of its sparklines."""

    width: int
    rows: int
    blocks: str


def sparkline(series: Sequence[float], width: int, blocks: str = BLOCKS) -> str:
    """The last `width` values as blocks, from the lowest block for the lowest value to the highest."""
    shown = [value for value in series if math.isfinite(value)][-width:]
    low, high = min(shown, default=0.0), max(shown, default=0.0)
    if low == high:
        return blocks[len(blocks) // 2] * len(shown)
    steps = len(blocks) - 1
    return "".join(blocks[round(steps * (value - low) / (high - low))] for value in shown)


class Display:
    """The display of a training, a rich renderable."""

    def __init__(self, start: Start) -> None:
        self.start = start
        self.epochs = list(start.past)
        self.latest: StepReport | None = None
        self.began = self.reported = time.monotonic()
        self.ended: float | None = None

    def step(self, report: StepReport) -> None:
        """Some steps have passed."""
        self.latest, self.reported = report, time.monotonic()

    def epoch(self, row: Row) -> None:
        """An epoch has ended."""
        self.epochs = [*self.epochs, row]  # the refreshing thread may be reading the old list

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = min(options.max_width, WIDEST)
        blocks = ASCII_BLOCKS if options.ascii_only else BLOCKS
        head = [self._place(), self._losses(), self._speed()]
        for number, line in enumerate(head):
            yield line
            if number == 0:
                done = self.latest.step if self.latest else self.start.first_step
                yield ProgressBar(self.start.steps, done, width=width)
                yield Segment.line()
        if not self.epochs:
            yield Text("levels are shown from the end of the first epoch", "dim")
            return
        above = 1 + sum(-(-cell_len(line.plain) // width) for line in head)
        rows = max(1, options.size.height - above - LINES_BESIDE_LEVELS)
        if self.ended is not None:  # the last state may scroll
            rows = sys.maxsize
        yield Text()
        yield TABLES[self.start.what](self.epochs, Space(width, rows, blocks))

    def _place(self) -> Text:
        done = self.latest.step if self.latest else self.start.first_step
        epoch = self.latest.epoch if self.latest else done // self.start.steps_per_epoch + 1
        epoch = min(epoch, self.start.epochs)
        return Text.assemble(
            (f"{self.start.what}  ", "bold"),
            f"epoch {epoch}/{self.start.epochs}  step {done:,}/{self.start.steps:,}  "
            f"{math.floor(100 * done / self.start.steps)} %",
        )

    def _losses(self) -> Text:
        if self.latest is None:
            return Text("first steps", "dim")
        if TABLES[self.start.what] is prior_table:
            parts = "/".join(f"{bits:.2f}" for bits in self.latest.parts.values())
            return _pairs({"bits an index": f"{self.latest.loss:.4f}", "by level": parts})
        losses = {"loss": self.latest.loss} | self.latest.parts
        return _pairs({LOSS_NAMES.get(name, name): f"{each:.4f}" for name, each in losses.items()})

    def _speed(self) -> Text:
        now = time.monotonic() if self.ended is None else self.ended
        gone = f"{duration(now - self.began)} gone"
        if self.latest is None:
            return Text(gone)
        speed = f"{self.latest.images_per_second:,.1f} images/s  {gone}  "
        if self.ended is not None:
            return Text(speed + ("done" if self.latest.step == self.start.steps else "stopped"))
        left = max(0.0, self.latest.seconds_left - (now - self.reported))
        until = time.strftime("%a %H:%M", time.localtime(time.time() + left))
        return Text(f"{speed}{duration(left)} left, until {until}")


def codec_table(epochs: list[Row], space: Space) -> Table:
    """Validation SSIM by levels kept; active codes and perplexity of each level."""
    latest = epochs[-1]
    size = f"/{latest['codebook_size']}" if "codebook_size" in latest else ""
    ssim = _by_level(epochs, "validation_ssim")
    columns = _latest(ssim, "SSIM", ".4f") | {
        "active": [f"{active}{size}" for active in latest["active"]],
        "perplexity": [f"{perplexity:.0f}" for perplexity in latest["perplexity"]],
    }
    return _table("validation SSIM", ssim, columns, space)


def prior_table(epochs: list[Row], space: Space) -> Table:
    """Bits per index of each level."""
    bits = _by_level(epochs, "validation_bits")
    training = [f"{each:.3f}" for each in epochs[-1]["bits_of_levels"]]
    columns = _latest(bits, "bits", ".3f") | {"training": training}
    return _table("validation bits", bits, columns, space)


def residue_table(epochs: list[Row], space: Space) -> Table:
    """Bits per value, lossless and at a bound, and bits of the support per pixel."""
    bits = _by_level(epochs, "validation_bits")
    value, ground = (f"{each:.4f}" for each in epochs[-1]["bits_of_parts"])
    columns = _latest(bits, "bits", ".4f") | {"training": [value, "", ground]}
    return _table("validation bits", bits, columns, space)


TABLES = {
    "codec": codec_table,
    "prior": prior_table,
    "volumes": codec_table,
    "volumes prior": prior_table,
    "residue": residue_table,
}


def _by_level(epochs: list[Row], key: str) -> list[list[float]]:
    """The values of each level over the epochs that have them; empty without a validation split."""
    return [list(values) for values in zip(*(row[key] for row in epochs if row[key]), strict=False)]


def _latest(series: list[list[float]], name: str, form: str) -> dict[str, list[str]]:
    """Two columns: the latest values, and how much they have changed."""
    if not series:
        return {}
    changes = [f"{each[-1] - each[-2]:+{form}}" if len(each) > 1 else "" for each in series]
    return {name: [f"{each[-1]:{form}}" for each in series], "change": changes}


def _table(
    heading: str, series: list[list[float]], columns: dict[str, list[str]], space: Space
) -> Table:
    """A row for each level: its number, its sparkline and the columns, as far as there is space."""
    levels = len(next(iter(columns.values())))

    def left() -> int:
        widths = (max(map(len, (name, *entries))) for name, entries in columns.items())
        return space.width - len("level") - GAP - sum(width + GAP for width in widths)

    for name in LEAST_WANTED:
        if left() < len(heading):
            columns.pop(name, None)
    table = Table.grid(padding=(0, GAP, 0, 0))
    table.add_column(no_wrap=True)
    if series:
        table.add_column(no_wrap=True)
        lines = [sparkline(each, max(MIN_SPARKS, left()), space.blocks) for each in series]
        columns = {heading: lines, **columns}
    for _ in range(len(columns) - bool(series)):
        table.add_column(justify="right", no_wrap=True)
    table.add_row("level", *columns, style="dim")
    for level in _shown(levels, space.rows):
        entries = (column[level] for column in columns.values())
        table.add_row(*("...",) if level < 0 else (str(level + 1), *entries))
    return table


def _shown(levels: int, rows: int) -> list[int]:
    """The levels to show in `rows` rows; -1 stands for levels in between that are left out."""
    if levels <= rows:
        return list(range(levels))
    return [*range(max(0, rows - 2)), *[-1] * (rows > 1), levels - 1]


def _pairs(words: dict[str, str]) -> Text:
    line = Text(no_wrap=True, overflow="crop")
    for number, (name, value) in enumerate(words.items()):
        line.append("  " * bool(number)).append(f"{name} ", "dim").append(value)
    return line


class LiveReporter:
    """Shows a training on a terminal; see `reports.Reporter`."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.display: Display | None = None
        self.live: Live | None = None

    def started(self, start: Start) -> None:
        """Open the display, unless the resumed training had already reached its end."""
        if start.first_step == start.steps:
            return
        self.display = Display(start)
        self.live = Live(
            self.display,
            console=self.console,
            refresh_per_second=REFRESHES_PER_SECOND,
            redirect_stdout=False,
        )
        self.live.start(refresh=True)
        self.console.show_cursor(True)  # Live hides it, and a killed process could not bring it back

    def step(self, report: StepReport) -> None:
        """Show it at the next refresh."""
        if self.display is not None:
            self.display.step(report)

    def epoch(self, report: EpochReport) -> None:
        """Show it at the next refresh."""
        if self.display is not None:
            self.display.epoch(report._asdict())

    def note(self, message: str) -> None:
        """Print one line above the display."""
        self.console.print(printable(message), markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Leave the last state on the terminal, and the terminal as it was."""
        if self.live is not None and self.display is not None:
            self.display.ended = time.monotonic()
            self.live.stop()
            self.live = None


def console_reporter(first: bool) -> LineReporter | LiveReporter:
    """A live display if stderr is a terminal that can show it, else plain lines.

    Args:
        first: whether this process is the one that reports.
    """
    # FORCE_COLOR alone does not make it interactive, although rich then takes a file for a terminal
    interactive = None if sys.stderr.isatty() else False
    console = Console(stderr=True, quiet=not first, force_interactive=interactive)
    return LiveReporter(console) if first and console.is_interactive else LineReporter(console)
