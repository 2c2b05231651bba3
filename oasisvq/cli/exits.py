"""How a command ends: what is said of failures, and the exit codes."""

from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import typer

from oasisvq.cli.printing import note, print_line

if TYPE_CHECKING:
    from oasisvq.bulk import Outcome

INTERRUPTED = 130  # exit code, as shells give it for Ctrl-C


def usage_error(message: str) -> NoReturn:
    """Say what is wrong with the call and exit with 2."""
    note(f"oasisvq: {message}")
    raise typer.Exit(2)


def finish(outcome: "Outcome", verb: str, output: Path) -> None:
    """Print what a run over a folder did; exit with 1 if anything failed."""
    ratio = f", {outcome.bytes_in:,} -> {outcome.bytes_out:,} bytes" if outcome.done else ""
    skipped = f", {outcome.skipped:,} already there" if outcome.skipped else ""
    print_line(f"{output}: {outcome.done:,} {verb}{ratio}{skipped}")
    if outcome.failures:
        note(f"{len(outcome.failures):,} failed:")
        for failure in outcome.failures:
            note(f"  {failure}")
        if outcome.ended_early:
            note("nothing more can be written there; once it can, the same command goes on from here")
        raise typer.Exit(1)
