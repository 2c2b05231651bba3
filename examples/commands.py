"""Runs the commands of README.md and of the other documents, on drawn data in empty folders.

python examples/commands.py             # a line for each
python examples/commands.py README.md   # those of one document
python examples/commands.py --list      # only those that are not run, and why

Every block of commands runs in a folder of its own, with a drawn scan, volume, label map, raw folder and
whatever else the commands name. Commands that need real scans, a cluster or hours are not run: `NOT_RUN`
lists them with the reasons.
"""

import argparse
import io
import os
import re
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from oasisvq.cli.app import main as oasisvq

ROOT = Path(__file__).parents[1]
FOLDERS = ("oasisvq", "examples", "tests")
FENCED = re.compile(r"^```(sh|console|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

NOT_RUN = {  # part of a command -> why such commands are not run here
    "pip install": "installs packages; .ci/run runs the two commands of README.md",
    "pytest": "the tests, of which this is one",
    ".ci/run": "runs the tests",
    "oasisvq train": "takes minutes to hours; tests/training/test_train_command.py trains tiny models",
    "torchrun": "starts processes; tests/training and tests/test_bulk.py do",
    "srun": "needs a cluster; tests/test_folders.py sets what SLURM sets",
    "dicom-folder/": "needs a DICOM series; tests/scans/test_dicom.py draws some",
    "keras_png_slices": "needs the OASIS slices",
    "VALIDATE": "needs the OASIS slices",
    "_SS.nii.gz": "needs real volumes",
    "chris_PD.nii.gz": "needs a real volume",
    "FLAIR.nii.gz": "needs a real volume",
    "examples/benchmarks/": "measures on real scans",
    "tests/trust/": "runs for hours; the tests beside it run the same on a small budget",
    "--against": "other codecs at every quality take minutes; tests/evaluation/test_baselines.py",
    "--samples": "draws 1,000 slices; tests/evaluation/test_samples.py",
    "--neighbours": "draws 64 slices; tests/evaluation/test_samples.py",
    "-n 100": "draws 100 slices; the command before it draws 16",
}

Grey = NDArray[np.uint8]


class Block(NamedTuple):
    """A fenced block of a document: its commands, or lines of Python."""

    document: str
    is_python: bool
    lines: tuple[str, ...]


def documents() -> list[Path]:
    """All documents of the project."""
    below = (path for folder in FOLDERS for path in (ROOT / folder).rglob("*.md"))
    return sorted([*ROOT.glob("*.md"), *below])


def blocks_of(document: Path) -> Iterator[Block]:
    """The blocks of one document, without comments; of `console` blocks only the lines after a `$`."""
    name = str(document.relative_to(ROOT))
    for language, text in FENCED.findall(document.read_text("utf-8")):
        lines = text.rstrip().split("\n")
        if language == "python":
            yield Block(name, True, tuple(lines))
            continue
        if language == "console":
            lines = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
        commands = (re.sub(r"(^|\s+)#.*", "", line) for line in lines)
        yield Block(name, False, tuple(command for command in commands if command))


def reason_for(command: str) -> str | None:
    """Why a command is not run; None if it is."""
    return next((why for part, why in NOT_RUN.items() if part in command), None)


def draw_volume(depth: int) -> NDArray[np.float64]:
    """A head of two ellipsoids with a little texture: (depth, 96, 80), from 0 to 1."""
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in (depth, 96, 80)), indexing="ij")
    distance = np.sqrt((x / 0.75) ** 2 + (y / 0.85) ** 2 + (z / 1.3) ** 2)
    folds = 0.12 * np.sin(9 * x) * np.cos(11 * y + 4 * z)
    head = np.where(distance < 0.85, 0.6 + folds, 0.95)
    return np.asarray(np.where(distance < 1, head, 0.0))


def draw(folder: Path) -> None:
    """Draw what the commands expect to be there: scans, labels, a folder of slices, raw folders."""
    volume = draw_volume(4)
    voxels = np.rint(1000 * volume.transpose(2, 1, 0)).astype(np.int16)
    nib.save(nib.Nifti1Image(voxels, np.eye(4)), folder / "scan.nii.gz")
    labels = (voxels > 0).astype(np.uint8) + (voxels > 600) + (voxels > 900)
    nib.save(nib.Nifti1Image(labels.astype(np.uint8), np.eye(4)), folder / "seg.nii.gz")
    planes = [np.pad(np.rint(255 * plane).astype(np.uint8), ((80, 80), (88, 88))) for plane in volume]
    Image.fromarray(planes[2]).save(folder / "scan.png")
    for raw in ("RAW", "data"):
        for split, case in (("train", 1), ("validate", 402)):
            (folder / raw / f"keras_png_slices_{split}").mkdir(parents=True)
            for k, plane in enumerate(planes[1:3]):
                name = f"keras_png_slices_{split}/case_{case:03}_slice_{k}.nii.png"
                Image.fromarray(plane).save(folder / raw / name)
    (folder / "slices" / "one").mkdir(parents=True)
    for k, plane in enumerate(planes[1:3]):
        Image.fromarray(plane).save(folder / "slices" / "one" / f"slice_{k}.png")


@contextmanager
def working_in(folder: Path) -> Iterator[None]:
    """Make `folder` the working folder, and its `store` the place where models are kept."""
    before, store = Path.cwd(), os.environ.get("OASISVQ_STORE")
    os.chdir(folder)
    os.environ["OASISVQ_STORE"] = str(folder / "store")
    try:
        yield
    finally:
        os.chdir(before)
        os.environ.pop("OASISVQ_STORE")
        if store is not None:
            os.environ["OASISVQ_STORE"] = store


def run(command: str) -> str | None:
    """Run one `oasisvq` command, or several joined by `&&`; returns the output of a failure, or None."""
    for each in command.split(" && "):
        name, *arguments = shlex.split(each)
        said = io.StringIO()
        if name != "oasisvq":
            return f"no `oasisvq` command, and no reason in NOT_RUN: {each}"
        try:
            with redirect_stdout(said), redirect_stderr(said):
                oasisvq(arguments)
        except SystemExit as ended:
            if ended.code:
                return f"exit code {ended.code}: {said.getvalue().strip()}"
    return None


def run_block(block: Block, given: Path) -> list[tuple[str, str | None]]:
    """Run a block in a folder of its own, a copy of `given`.

    Returns:
        Each command that was run, with its output if it failed, else None.
    """
    text = "\n".join(block.lines)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "here"
        shutil.copytree(given, folder)
        for name in ("scan.codes", "volume.codes", "codes", "data"):  # left out if the block makes it
            made = re.search(rf"-o {re.escape(name)}(/|\s|$)", text)
            if made or (name == "scan.codes" and re.search(r"encode scan\.png *$", text, re.MULTILINE)):
                path = folder / name
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        with working_in(folder):
            if block.is_python:
                exec(compile(text, block.document, "exec"), {})
                return [(block.lines[-1], None)]
            return [(command, run(command)) for command in block.lines if reason_for(command) is None]


def run_all(chosen: list[Path]) -> Iterator[tuple[str, str, str | None]]:
    """Run the commands of documents: yields the document, the command, and its output if it failed."""
    with tempfile.TemporaryDirectory() as temporary:
        given = Path(temporary)
        draw(given)
        with working_in(given):
            for command in (
                "scan.png -o scan.codes",
                "scan.nii.gz -o volume.codes",
                "slices/ -o codes/",
            ):
                failure = run(f"oasisvq encode {command}")
                if failure:
                    yield "examples/commands.py", command, failure
        for document in chosen:
            for block in blocks_of(document):
                yield from ((block.document, *each) for each in run_block(block, given))


def main() -> int:
    """Print a line for each command; returns 1 if one fails, else 0."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("documents", type=Path, nargs="*", help="all of the project, if none is named")
    parser.add_argument("--list", action="store_true", help="only those that are not run, and why")
    arguments = parser.parse_args()
    chosen = [path.absolute() for path in arguments.documents] or documents()
    if arguments.list:
        for document in chosen:
            for block in blocks_of(document):
                for command in () if block.is_python else block.lines:
                    if reason_for(command):
                        print(f"{block.document}: {command}\n    {reason_for(command)}")
        return 0
    failures = 0
    began = time.monotonic()
    for document, command, failure in run_all(chosen):
        print(f"{document}: {command}" + (f"\n    FAILED: {failure}" if failure else ""), flush=True)
        failures += failure is not None
    print(f"{failures} failed, {time.monotonic() - began:.1f} s")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
