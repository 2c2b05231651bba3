"""Commands as forks of one process, killed at chosen moments, and the small files that they work on.

A fork is a process of its own, with real signals and limits, but Python and torch are imported already,
so that hundreds of kills take minutes. It runs what the command line runs.
"""

import importlib
import os
import pkgutil
import random
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

sys.path.append(str(Path(__file__).parents[1]))  # for the tests' conftest, outside pytest

import nibabel
import numpy as np
from conftest import draw_phantom, tiny_model, tiny_prior, write_raw_folder
from PIL import Image

import oasisvq
from oasisvq.cli.app import main
from oasisvq.training.weights import save_model

TIMEOUT = 300.0  # also for a busy machine
CHANGES = {
    "os.rename",
    "os.remove",
    "os.mkdir",
    "os.rmdir",
    "os.chmod",
    "tempfile.mkstemp",
    "fcntl.flock",
}
WRITES = os.O_WRONLY | os.O_RDWR


class Ended(NamedTuple):
    """How a command ended: exit code, minus the signal that killed it, or None where it hung."""

    code: int | None
    out: str
    err: str
    steps: int


class Moment(NamedTuple):
    """When a signal comes: after some seconds, or just before a step that changes a file or folder."""

    number: int
    seconds: float = 0.0
    step: int = 0


def import_all() -> None:
    """Import the whole package, once for all forks."""
    for module in pkgutil.walk_packages(oasisvq.__path__, "oasisvq."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)


def _count_steps(folder: Path, moment: Moment | None) -> None:
    """Count this process's changes of the disk in a file, and send it a signal before one of them."""
    counter = os.open(folder / "steps", os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    steps, sync = 0, os.fsync

    def step() -> None:
        nonlocal steps
        steps += 1
        os.pwrite(counter, b"%d" % steps, 0)
        if moment is not None and steps == moment.step:
            os.kill(os.getpid(), moment.number)

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        is_write = event == "open" and isinstance(arguments[2], int) and bool(arguments[2] & WRITES)
        if is_write or event in CHANGES:
            step()

    def counted_sync(descriptor: int) -> None:
        step()
        sync(descriptor)

    sys.addaudithook(hook)
    os.fsync = counted_sync


def start(
    arguments: Sequence[str],
    folder: Path,
    moment: Moment | None = None,
    before: Callable[[], None] = lambda: None,
) -> int:
    """Start a command in a fork, what it prints going to files of `folder`; returns its process id."""
    folder.mkdir(exist_ok=True)
    child = os.fork()
    if child:
        return child
    code = 70
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for name, target in (("out", 1), ("err", 2)):
            os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), target)
        before()
        _count_steps(folder, moment)
        main(list(arguments))
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 70
    except KeyboardInterrupt:  # before or after the command
        code = 130
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def end(child: int, folder: Path, moment: Moment | None = None) -> Ended:
    """Wait for a fork, sending it a signal when it is time; what hangs is killed."""
    began = time.monotonic()
    is_due = moment is not None and not moment.step
    is_over = False
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            break
        passed = time.monotonic() - began
        if moment is not None and is_due and passed >= moment.seconds:
            os.kill(child, moment.number)
            is_due = False
        if passed > TIMEOUT and not is_over:
            os.kill(child, signal.SIGKILL)
            is_over = True
        time.sleep(0.001)
    code = None if is_over else os.waitstatus_to_exitcode(status)
    texts = [path.read_text() if (path := folder / name).exists() else "" for name in ("out", "err")]
    counted = (folder / "steps").read_text() if (folder / "steps").exists() else ""
    return Ended(code, *texts, int(counted or 0))


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, hidden ones too, by its name."""
    files = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def place(old: Path | None, target: Path) -> None:
    """Make a folder as another one is, or remove it."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.rmtree(target.with_name(f".{target.name}.parts"), ignore_errors=True)
    if old is not None:
        shutil.copytree(old, target)


class Bench:
    """Drawn files, a tiny model with a prior, and what undisturbed commands make of them.

    Attributes:
        folder: where everything lies; commands run in it.
        log: for what commands print.
    """

    def __init__(self, folder: Path, slices: int) -> None:
        import_all()
        self.folder, self.log = folder, folder / "log"
        folder.mkdir(parents=True, exist_ok=True)
        os.chdir(folder)
        self.log.mkdir(exist_ok=True)
        model = folder / "model" / "model.safetensors"
        model.parent.mkdir(exist_ok=True)
        save_model(tiny_model(), model, {"images": "scans", "size": 64}, tiny_prior())
        os.environ["OASISVQ_MODEL"] = str(model)
        rng = np.random.default_rng(1)
        for number in range(slices):
            path = folder / "slices" / f"{number % 3}" / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(draw_phantom(rng)).save(path)
        voxels = np.stack([draw_phantom(rng) for _ in range(4)], axis=2)
        for suffix in (".nii", ".img"):
            kind = nibabel.Nifti1Image if suffix == ".nii" else nibabel.Nifti1Pair
            kind(voxels, np.eye(4)).to_filename(folder / f"volume{suffix}")
        write_raw_folder(folder / "raw", {"train": [1, 2, 3], "validate": [4]}, size=32)

    def reference(self, name: str) -> Path:
        """What an undisturbed command makes, made when it is first asked for."""
        path = self.folder / name
        if not path.exists():
            self.good(*REFERENCES[name], "-o", name)
        return path

    def good(self, *arguments: str) -> Ended:
        """A command that must succeed."""
        ended = self.run(arguments)
        if ended.code:
            raise SystemExit(f"oasisvq {' '.join(arguments)}: exit code {ended.code}\n{ended.err}")
        return ended

    def start(
        self,
        arguments: Sequence[str],
        log: Path,
        moment: Moment | None = None,
        before: Callable[[], None] = lambda: None,
    ) -> int:
        """Start a command, when what it works on has been made; returns its process id."""
        for argument in arguments:
            if argument.partition("/")[0] in REFERENCES.keys() - {arguments[-1]}:
                self.reference(argument.partition("/")[0])
        return start(arguments, log, moment, before)

    def run(
        self,
        arguments: Sequence[str],
        moment: Moment | None = None,
        before: Callable[[], None] = lambda: None,
    ) -> Ended:
        """A command from start to end."""
        return end(self.start(arguments, self.log, moment, before), self.log, moment)


TRAIN = (
    *("--preset", "seed", "--epochs", "2", "--batch-size", "4", "--codebook-size", "16"),
    *("--learning-rate", "1e-3", "--prior-epochs", "1", "--device", "cpu", "--precision", "float32"),
)


REFERENCES = {
    "codes": ["encode", "slices"],
    "codes-old": ["encode", "slices", "-q", "1"],
    "images": ["decode", "codes"],
    "images-old": ["decode", "codes-old"],
    "data": ["preprocess", "raw", "--size", "32"],
    "data-old": ["preprocess", "raw", "--size", "16"],
    "run": ["train", "data", *TRAIN],
    "run-old": ["train", "data", *TRAIN, "--seed", "9"],
    "volume.codes": ["encode", "volume.img"],
    "volume-old.codes": ["encode", "volume.img", "-q", "1"],
}


def random_moment(rng: random.Random, seconds: float, steps: int) -> Moment:
    """SIGKILL or SIGINT, at a moment of a command's time or before one of its changes of the disk."""
    number = rng.choice((signal.SIGKILL, signal.SIGINT))
    if rng.random() < 0.5:
        return Moment(number, seconds=rng.uniform(0, seconds))
    return Moment(number, step=rng.randint(1, max(1, steps)))
