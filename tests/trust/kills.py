"""Commands that are killed and started again until they end: see `faults.py`, which runs this."""

import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from attempts import TRAIN, Bench, Ended, contents, place, random_moment

from oasisvq.codec.modelfile import read_model
from oasisvq.errors import OasisVQError
from oasisvq.training.checkpoint import load_checkpoint


class Work(NamedTuple):
    """A command that is killed.

    Attributes:
        name: the command.
        arguments: without output.
        output: what an undisturbed run made; with `-old`, what may lie there before.
    """

    name: str
    arguments: list[str]
    output: str


WORKS = (
    Work("encode", ["encode", "slices"], "codes"),
    Work("decode", ["decode", "codes"], "images"),
    Work("preprocess", ["preprocess", "raw", "--size", "32", "--jobs", "1"], "data"),
    Work("train", ["train", "data", *TRAIN], "run"),
)


class Kills(NamedTuple):
    """What became of a command under kills."""

    kills: Counter[str]
    finished: int
    wrong: list[str]


def survive(bench: Bench, work: Work, kills: int, rng: random.Random) -> Kills:
    """Kill a command so many times, and let it end by itself now and then."""
    counts, finished, wrong = Counter[str](), 0, list[str]()
    new = contents(bench.reference(work.output))
    old = contents(bench.reference(f"{work.output}-old"))
    target = bench.folder / "target"
    began = time.monotonic()
    whole = bench.good(*work.arguments, "-o", "target")
    seconds = time.monotonic() - began
    while counts.total() < kills:
        over_old = rng.random() < 0.5
        place(bench.reference(f"{work.output}-old") if over_old else None, target)
        before = old if over_old else {}
        while True:
            moment = random_moment(rng, seconds, whole.steps)
            if counts.total() >= kills or rng.random() < 0.2:
                moment = None
            ended = bench.run([*_arguments(work, target, over_old), "-o", "target"], moment)
            # killed when its dataset was in place, it finds that there is nothing more to do
            is_there = work.name == "preprocess" and "exists; pass -f" in ended.err
            if ended.code == 0 or (is_there and ended.code == 1):
                wrong += wrong_at_the_end(work, target, new)
                finished += 1
                break
            number = moment.number if moment else 0
            wrong += [f"{work.name}, {moment}: {each}" for each in _wrong_end(ended, number)]
            wrong += [
                f"{work.name}, {moment}: {each}" for each in _wrong_after(work, target, before, new)
            ]
            if moment is None:
                break
            if ended.code in (-number, 128 + number):
                counts[signal.Signals(number).name] += 1
            else:
                break
    place(None, target)
    return Kills(counts, finished, wrong)


def _arguments(work: Work, target: Path, over_old: bool) -> list[str]:
    """How a person would start it again."""
    if work.name == "train" and (target / "checkpoint.safetensors").exists():
        seed = load_checkpoint(target / "checkpoint.safetensors").progress["settings"]["seed"]
        return ["train", "data", "--resume"] if seed == 0 else [*work.arguments, "-f"]
    return [*work.arguments, *(["-f"] if over_old else [])]


def _wrong_end(ended: Ended, number: int) -> Iterator[str]:
    expected = {signal.SIGKILL: -signal.SIGKILL, signal.SIGINT: 130}.get(number, 0)
    if ended.code != expected:
        yield f"exit code {ended.code}, expected {expected}: {ended.err[-500:]}"
    if "Traceback" in ended.err:
        yield f"a traceback: {ended.err[-500:]}"


def _wrong_after(
    work: Work, target: Path, before: dict[str, bytes], new: dict[str, bytes]
) -> Iterator[str]:
    """What is wrong with an output after a kill."""
    found = contents(target) if target.exists() else {}
    if work.name == "train":
        for name, read in (("model", read_model), ("checkpoint", load_checkpoint)):
            path = target / f"{name}.safetensors"
            try:
                if path.exists():
                    read(path)
            except OasisVQError as error:
                yield str(error)
        if before and not (target / "checkpoint.safetensors").exists():
            yield "the old training is gone, and there is no new one"
    elif work.name == "preprocess":
        kept = contents(target.with_name(f".{target.name}.parts") / "old")
        if found not in (before, new) and not (not found and kept == before):
            yield f"half a dataset: {sorted(found)}"
    else:
        for name, content in found.items():
            if content not in (before.get(name), new.get(name)) and not Path(name).name.startswith("."):
                yield f"{name}: half a file"
        if lost := before.keys() - found.keys():
            yield f"{sorted(lost)}: gone"


def wrong_at_the_end(work: Work, target: Path, new: dict[str, bytes]) -> Iterator[str]:
    """What is wrong with an output when the command has ended by itself."""
    found = contents(target)
    if work.name == "train":  # pictures and times differ
        new = new | {name: found.get(name, b"") for name in new if name != "model.safetensors"}
    if found != new:
        different = sorted(
            name for name in found.keys() | new.keys() if found.get(name) != new.get(name)
        )
        yield f"{work.name}: differs from an undisturbed run: {different}"
    if target.with_name(f".{target.name}.parts").exists():
        yield f"{work.name}: its work folder is left"
