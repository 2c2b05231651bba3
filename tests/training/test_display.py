"""What a training shows: a display in a terminal, plain lines elsewhere."""

import io
import sys
from typing import Any

import pytest
from rich.console import Console

from oasisvq.training.codec_epoch import CodecEpoch
from oasisvq.training.display import (
    ASCII_BLOCKS,
    Display,
    LiveReporter,
    console_reporter,
    sparkline,
)
from oasisvq.training.prior_training import PriorEpoch
from oasisvq.training.progress import LineReporter
from oasisvq.training.reports import Start, StepReport

PARTS = {"ssim_loss": 0.1723, "l1": 0.0183, "mse": 0.0012, "commitment": 0.0948}
STEP = StepReport(3, 812, 0.2143, PARTS, 16.44, 1622.0)
CODEC = Start("codec", 7, 360, 0, [])
PRIOR = Start("prior", 10, 180, 0, [])


def codec_epoch(number: int, levels: int = 3, validation: bool = True) -> CodecEpoch:
    ssim = [0.8 + 0.01 * number + 0.02 * level for level in range(levels)]
    active = [200 + number + level for level in range(levels)]
    perplexity = [150.0 + level for level in range(levels)]
    return CodecEpoch(
        number, 0.21, 0.17, 0.02, 0.001, 0.09, 16.4, ssim if validation else [], perplexity, active, 256
    )


def prior_epoch(number: int) -> PriorEpoch:
    return PriorEpoch(number, 4.4, [4.25, 4.55], 75.0, [4.3 - 0.1 * number, 4.6 - 0.1 * number])


def display(start: Start = CODEC, epochs: int = 2, **given: Any) -> Display:
    shown = Display(start)
    for number in range(1, epochs + 1):
        report = prior_epoch(number) if start.what == "prior" else codec_epoch(number, **given)
        shown.epoch(report._asdict())
    shown.step(STEP)
    return shown


def screen(shown: Display, width: int = 80, height: int = 24) -> list[str]:
    console = Console(file=io.StringIO(), width=width, height=height, force_terminal=True, record=True)
    console.print(shown)
    lines = console.export_text().splitlines()
    assert max(map(len, lines)) <= width
    return lines


def row(lines: list[str], first: str) -> list[str]:
    return next(line.split() for line in lines if line.split()[:1] == [first])


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_display_of_a_codec(width: int) -> None:
    lines = screen(display(), width)
    assert lines[0].split() == ["codec", "epoch", "3/7", "step", "812/2,520", "32", "%"]
    losses = lines[2].split()
    shown = 4 if width == 60 else 5  # the rest is cut off
    assert losses[: 2 * shown : 2] == ["loss", "1-SSIM", "L1", "MSE", "commitment"][:shown]
    assert losses[1 : 2 * shown : 2] == ["0.2143", "0.1723", "0.0183", "0.0012", "0.0948"][:shown]
    assert "16.4 images/s" in lines[3]
    assert "27:0" in lines[3]
    assert " left, until " in lines[3]
    assert row(lines, "1") == ["1", "▁█", "0.8200", "+0.0100", "202/256", "150"]
    assert row(lines, "3") == ["3", "▁█", "0.8600", "+0.0100", "204/256", "152"]


def test_the_display_of_a_prior() -> None:
    shown = display(PRIOR)
    shown.step(StepReport(3, 400, 4.4, {"level 1": 4.25, "level 2": 4.55}, 75.0, 60.0))
    lines = screen(shown)
    assert lines[2].split() == ["bits", "an", "index", "4.4000", "by", "level", "4.25/4.55"]
    assert row(lines, "2") == ["2", "█▁", "4.400", "-0.100", "4.550"]


def test_a_narrow_terminal_leaves_columns_out() -> None:
    lines = screen(display(), 40)
    assert row(lines, "3") == ["3", "▁█", "0.8600", "204/256"]
    screen(display(), 20)


def test_a_low_terminal_leaves_levels_out() -> None:
    shown = display(levels=8)
    lines = screen(shown, height=13)
    assert len(lines) < 13
    assert [line.split()[0] for line in lines[6:]] == ["1", "2", "3", "4", "...", "8"]
    assert len(screen(shown, height=4)) == 7  # one level at least
    shown.ended = shown.began + 5
    assert [line.split()[0] for line in screen(shown, height=13)[6:]] == list("12345678")


def test_before_the_first_report_and_without_a_validation_split() -> None:
    fresh = screen(Display(CODEC._replace(first_step=720)))
    assert fresh[0].split() == ["codec", "epoch", "3/7", "step", "720/2,520", "28", "%"]
    assert "first steps" in fresh[2]
    lines = screen(display(validation=False))
    assert row(lines, "2") == ["2", "203/256", "151"]


def test_a_resumed_training_shows_the_epochs_before() -> None:
    past = [codec_epoch(number)._asdict() for number in (1, 2)]
    shown = Display(CODEC._replace(past=past, first_step=720))
    shown.epoch(codec_epoch(3)._asdict())
    assert row(screen(shown), "1")[1] == "▁▅█"


def test_the_last_state_says_how_it_ended() -> None:
    shown = display()
    shown.ended = shown.began + 65
    assert screen(shown)[3].endswith("1:05 gone  stopped")
    shown.step(STEP._replace(step=2520))
    assert screen(shown)[3].endswith("1:05 gone  done")


def test_a_sparkline_has_the_last_values_from_lowest_to_highest() -> None:
    assert sparkline([9.0, 0.0, 0.5, 1.0], 3) == "▁▅█"
    assert sparkline([1.0, 0.0], 8, ASCII_BLOCKS) == "#_"
    assert sparkline([2.0, 2.0], 8) == "▅▅"
    assert sparkline([float("nan"), 1.0, 2.0], 8) == "▁█"
    assert sparkline([], 8) == ""


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def live(stream: io.StringIO, **given: Any) -> LiveReporter:
    return LiveReporter(Console(file=stream, force_terminal=True, width=80, height=24, **given))


def test_the_live_display_leaves_the_terminal_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    reporter = live(terminal)
    reporter.started(CODEC)
    try:
        assert terminal.getvalue().rindex("\x1b[?25h") > terminal.getvalue().rindex("\x1b[?25l")
        reporter.step(STEP)
        reporter.epoch(codec_epoch(1))
        reporter.note("a [note] of a file")
        print("a warning of a library", file=sys.stderr)
        raise KeyboardInterrupt
    except KeyboardInterrupt:
        reporter.close()
        reporter.close()
    shown = terminal.getvalue()
    assert sys.stderr is terminal
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l")  # the cursor is seen
    assert shown.index("a [note] of a file") < shown.index("a warning of a library")
    assert shown.index("a warning of a library") < shown.rindex("stopped") < shown.rindex("202/256") + 99
    assert shown.rpartition("\x1b")[0].endswith("\n")


def test_nothing_is_shown_of_a_training_that_had_reached_its_end() -> None:
    terminal = Terminal()
    reporter = live(terminal)
    reporter.started(CODEC._replace(first_step=CODEC.steps))
    reporter.close()
    assert terminal.getvalue() == ""


def test_no_color_is_honoured() -> None:
    terminal = Terminal()
    for no_color in (False, True):
        reporter = live(terminal, no_color=no_color, color_system="standard")
        reporter.started(CODEC)
        reporter.step(STEP)
        reporter.close()
        colored = any(f"\x1b[{code}m" in terminal.getvalue() for code in ("91", "35", "90"))
        assert colored is not no_color
        terminal.truncate(0)


@pytest.mark.parametrize(
    ("is_terminal", "term", "first", "kind"),
    [
        (True, "xterm-256color", True, LiveReporter),
        (True, "dumb", True, LineReporter),
        (True, "xterm-256color", False, LineReporter),
        (False, "xterm-256color", True, LineReporter),
    ],
)
def test_lines_where_there_is_no_terminal(
    monkeypatch: pytest.MonkeyPatch, is_terminal: bool, term: str, first: bool, kind: type
) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal() if is_terminal else io.StringIO())
    monkeypatch.setenv("TERM", term)
    monkeypatch.delenv("TTY_INTERACTIVE", raising=False)
    monkeypatch.setenv("FORCE_COLOR", "1")  # which is no terminal
    assert type(console_reporter(first)) is kind


def test_the_plain_lines() -> None:
    stream = io.StringIO()
    reporter = LineReporter(Console(file=stream))
    reporter.started(CODEC)
    reporter.step(STEP)
    reporter.step(STEP)  # too soon after the first
    reporter.epoch(codec_epoch(1))
    reporter.close()
    assert stream.getvalue().splitlines() == [
        "codec epoch 3/7  step 812/2,520  loss 0.2143  16.4 images/s  27:02 left",
        "codec epoch 1/7  loss 0.2100  validation window SSIM 0.8100/0.8300/0.8500  "
        "perplexity 150/151/152  active codes 201/202/203  16.4 images/s",
    ]
