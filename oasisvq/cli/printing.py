"""What commands print: results on stdout, notes and progress on stderr."""

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

from oasisvq.text import printable

_is_quiet = ContextVar("is_quiet", default=False)


def set_quiet(wanted: bool) -> None:
    """Turn notes and progress off, or on, from here on."""
    _is_quiet.set(wanted)


def is_quiet() -> bool:
    """Whether notes and progress are off."""
    return _is_quiet.get()


def note(message: str) -> None:
    """Print one line for the user on stderr, unless the command is to be quiet."""
    if not _is_quiet.get():
        warn(message)


def warn(message: str) -> None:
    """Print one line about a failure on stderr."""
    print(printable(message), file=sys.stderr, flush=True)


def counted(number: int, thing: str) -> str:
    """1 subject, 2 subjects."""
    return f"{number:,} {thing}" + ("" if number == 1 else "s")


def print_line(message: str) -> None:
    """One line of a result, on stdout."""
    print(printable(message))


def print_lines(lines: Iterable[str]) -> None:
    """Lines of a result, on stdout."""
    for line in lines:
        print_line(line)


def print_json(result: object) -> None:
    """A result as JSON on stdout."""
    print(json.dumps(result, indent=2))


@contextmanager
def progress_bar(description: str) -> Iterator[Callable[[int, int], None]]:
    """Gives a function of (done, total) that shows a progress bar if stderr is a terminal.

    The bar is shown from the first call until all is done, so that other output does not mix with it.
    """
    if _is_quiet.get() or not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import Progress

    # output during that time must not end up on stderr if stdout is a file
    into_terminal = sys.stdout.isatty()
    progress = Progress(console=Console(stderr=True), transient=True, redirect_stdout=into_terminal)
    bar = progress.add_task(escape(printable(description)), total=None)

    def advance(done: int, total: int) -> None:
        progress.start()
        progress.update(bar, completed=done, total=total)
        if done >= total:
            progress.stop()

    try:
        yield advance
    finally:
        progress.stop()


def dice_line(dice: Mapping[int, float] | Mapping[float, float]) -> str:
    """Dice of each label, in one line."""
    return "Dice: " + ", ".join(f"label {label} {value:.4f}" for label, value in dice.items())
