"""A run folder, which only one training uses at a time."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from oasisvq.errors import FileError, ModelError
from oasisvq.files import METRICS_FILE, claimed, make_folder


@contextmanager
def alone_in(run: Path) -> Iterator[None]:
    """Keep other trainings out of a run folder, by locking its metrics; remove what stays empty.

    Raises:
        FileError: another process trains into it, or it cannot be written to.
    """
    metrics, is_new = run / METRICS_FILE, not run.exists()
    make_folder(run)
    with claimed(metrics, create=True) as free:
        if free is False:
            raise FileError(
                f"{run}: another process trains into it; wait for its end or name another with -o"
            )
        try:
            yield
        finally:
            if metrics.is_file() and not metrics.stat().st_size:
                metrics.unlink()
                if is_new and not any(run.iterdir()):
                    run.rmdir()


@contextmanager
def saying_how_to_start_anew(path: Path) -> Iterator[None]:
    """Turn errors in the settings of a checkpoint into an error of the file.

    Raises:
        ModelError: the settings are incomplete or invalid.
    """
    try:
        yield
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(
            f"{path}: does not say how its training was set up; train anew with -f"
        ) from error
