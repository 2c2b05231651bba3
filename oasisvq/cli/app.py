"""The commands in the order of the help, and the single place where errors are caught."""

import io
import os
import sys
from contextlib import suppress
from typing import Annotated, Any, NoReturn, cast

import typer

import oasisvq
from oasisvq.cli.decode import decode
from oasisvq.cli.encode import encode
from oasisvq.cli.exits import INTERRUPTED
from oasisvq.cli.export import export
from oasisvq.cli.info import info
from oasisvq.cli.preprocess import preprocess
from oasisvq.cli.printing import set_quiet, warn
from oasisvq.cli.sample import sample
from oasisvq.cli.score import score
from oasisvq.cli.show import show
from oasisvq.cli.train import train
from oasisvq.cli.verify import verify
from oasisvq.errors import OasisVQError
from oasisvq.text import printable

app = typer.Typer(
    name="oasisvq",
    help="A VQ-VAE codec for brain MRI, trained on OASIS: scans become small files of discrete codes.",
    epilog="Start with: oasisvq encode scan.png -o scan.codes && oasisvq decode scan.codes",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (preprocess, train, encode, decode, show, export, score, sample, info, verify):
    app.command()(command)

# typer brings its own click, or uses the installed one
UsageError = cast(type[Exception], typer.BadParameter.__base__)


def show_version(wanted: bool) -> None:
    """Print the version and exit."""
    if wanted:
        print(f"oasisvq {oasisvq.__version__}")
        raise typer.Exit


@app.callback()
def options(
    _: Annotated[
        bool,
        typer.Option("--version", callback=show_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Options of all commands."""


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command line; an error caused by a user or a file becomes one line and exit code 1."""
    # One thread per process: the matrix products of the networks are small, so threads of NumPy's BLAS
    # cost more than they gain. On a busy machine they also wait for each other, or compete with those
    # of torch. NumPy reads this variable when it is imported, which only happens inside commands.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # not every terminal has a ×
    given = sys.argv[1:] if arguments is None else arguments
    set_quiet(False)
    try:
        try:
            code = app(args=given, prog_name="oasisvq", standalone_mode=False)
        finally:
            sys.stdout.flush()
    except UsageError as error:
        _show_usage_error(error, given)
        sys.exit(2)
    except (typer.Abort, KeyboardInterrupt):
        sys.exit(INTERRUPTED)
    except OasisVQError as error:
        warn(f"oasisvq: {error}")
    except MemoryError as error:
        warn(f"oasisvq: too large for this machine's memory ({error})")
    except BrokenPipeError:
        _abandon_stdout()
    except OSError as error:
        where = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, (str, bytes)) else ""
        warn(f"oasisvq: {where}{error.strerror or error}")
        _abandon_stdout()
    else:
        sys.exit(code or 0)
    sys.exit(1)


def _show_usage_error(error: Any, given: list[str]) -> None:  # noqa: ANN401 - see `UsageError`
    """Print typer's message about a wrong call, with file names that it quotes made safe to show."""
    message = error.format_message()
    if not "".join(given).isprintable():
        error.format_message = lambda: printable(message)
    error.show()


def _abandon_stdout() -> None:
    """Discard output that could not be written, so that Python does not try again when it ends."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
