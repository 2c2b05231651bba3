"""Fuzz the ways in for bytes from outside: coverage-guided, by atheris (`pip install '.[fuzz]'`).

    python tests/trust/fuzz/run.py --all --seconds 8
    python tests/trust/fuzz/run.py --target codes --runs 1000000 --corpus corpus/ --record record.json

Prints a line a target: executions, branches and features that they came by, inputs kept, crashes. A
crash is an exception that is no refusal of ours, a broken promise about what was accepted, a warning, a
second, or 300 MB. It ends its target; its input is written to the folder `--crashes`, and the exit code
is 1. What an input does by itself: `python tests/trust/fuzz/worker.py TARGET FOLDER INPUT`.
"""

import argparse
import contextlib
import hashlib
import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from targets import TARGETS

HANGS_SECONDS = 60  # on the clock, after which libFuzzer ends an input
MEMORY_MB = 2048
ROUND = 100_000  # executions
_STATUS = re.compile(rb"^#(\d+)\s.*?(?:cov: (\d+) )?ft: (\d+) corp: (\d+)", re.MULTILINE)
_EXECUTIONS = re.compile(rb"^stat::number_of_executed_units:\s*(\d+)", re.MULTILINE)


class Outcome(NamedTuple):
    """What came of one run of one target.

    Attributes:
        executions: inputs tried.
        coverage: branches that were reached.
        features: branches together with how often, and comparisons.
        corpus: inputs kept for what they reached.
        seconds: that it took.
        crashes: input files.
        is_whole: whether the fuzzer came to its end.
    """

    executions: int
    coverage: int
    features: int
    corpus: int
    seconds: float
    crashes: list[Path]
    is_whole: bool

    @property
    def is_well(self) -> bool:
        """Whether nothing was found, in a run to the end."""
        return self.is_whole and not self.crashes

    def __str__(self) -> str:
        rate = self.executions / self.seconds
        return (
            f"{self.executions:>9,} executions  {rate:>6,.0f} a second  coverage {self.coverage:,}  "
            f"features {self.features:,}  corpus {self.corpus:,}  crashes {len(self.crashes)}"
        )


def fuzz(name: str, limits: list[str], corpus: Path, crashes: Path) -> Outcome:
    """Run one target in a process of its own.

    Args:
        name: of the target.
        limits: libFuzzer's options that say when it ends.
        corpus: folder of inputs, to which the seeds and what is found are added.
        crashes: folder that crash inputs and the log of such a run are written to.
    """
    crashes.mkdir(parents=True, exist_ok=True)
    corpus.mkdir(parents=True, exist_ok=True)
    for seed in TARGETS[name].seeds():
        (corpus / hashlib.sha1(seed).hexdigest()).write_bytes(seed)
    before = set(crashes.iterdir())
    with tempfile.TemporaryDirectory(dir=_in_memory()) as folder:
        log = Path(folder) / "log"
        started = time.monotonic()
        command = [
            *(sys.executable, str(Path(__file__).with_name("worker.py")), name, folder, *limits),
            *(f"-artifact_prefix={crashes / name}-", f"-timeout={HANGS_SECONDS}"),
            *(f"-rss_limit_mb={MEMORY_MB}", "-print_final_stats=1", str(corpus)),
        ]
        with log.open("wb") as stream:
            code = subprocess.run(command, stdout=stream, stderr=stream, check=False).returncode
        seconds, said = time.monotonic() - started, log.read_bytes()
    found = sorted(set(crashes.iterdir()) - before)
    if code:
        (crashes / f"{name}.log").write_bytes(said[-20_000:])
    elif not any(crashes.iterdir()):
        crashes.rmdir()
    statuses, executions = _STATUS.findall(said), _EXECUTIONS.findall(said)
    _, coverage, features, kept = statuses[-1] if statuses else (0, 0, 0, 0)
    count = int(executions[-1]) if executions else int(statuses[-1][0]) if statuses else 0
    numbers = int(coverage or 0), int(features), int(kept)
    return Outcome(count, *numbers, seconds, found, count > 0 and code == 0)


def _traceback_in(log: Path) -> str:
    """What the log of a crash says of an exception; empty where it says nothing of any."""
    _, mark, said = log.read_text(errors="replace").partition(" === Uncaught Python exception: ===")
    return said.partition("\n==")[0].strip() if mark else ""


def _in_memory() -> str | None:
    """A folder that no disk is behind, where there is one."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def on_record(path: Path | None) -> dict[str, int]:
    """Executions by target so far."""
    record: dict[str, int] = json.loads(path.read_text()) if path and path.exists() else {}
    return record


def add_to_record(path: Path | None, name: str, executions: int) -> int:
    """Add executions of a target to those on record; returns the sum."""
    record = on_record(path)
    record[name] = record.get(name, 0) + executions
    if path:
        path.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")
    return record[name]


def ends_of(given: argparse.Namespace, name: str) -> Iterator[list[str]]:
    """libFuzzer's options of each round: a total is reached in several, so that no kill loses much."""
    if given.total is None:
        yield [
            f"-runs={given.runs}" if given.runs else f"-max_total_time={given.seconds}",
            f"-seed={given.seed}",
        ]
        return
    while (done := on_record(given.record).get(name, 0)) < given.total:
        yield [f"-runs={min(ROUND, given.total - done)}", f"-seed={given.seed + done}"]


def parsed() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--target", choices=list(TARGETS), action="append", help="may be repeated")
    which.add_argument("--all", action="store_true", help="one after the other")
    limit = parser.add_mutually_exclusive_group(required=True)
    limit.add_argument("--runs", type=int, help="executions of each target")
    limit.add_argument("--seconds", type=int, help="of each target")
    limit.add_argument("--total", type=int, help="executions of each target, with those on record")
    parser.add_argument("--seed", type=int, default=1, help="another one tries other inputs")
    parser.add_argument("--corpus", type=Path, help="keep what is found in folders below; go on from it")
    parser.add_argument("--crashes", type=Path, default=Path("crashes"), help="folder for crash inputs")
    parser.add_argument("--record", type=Path, help="JSON file in which executions add up")
    given = parser.parse_args()
    if given.total is not None and given.record is None:
        parser.error("--total needs --record")
    return given


def main() -> int:
    """Fuzz the targets one after the other; 1 if something was found, 2 without atheris."""
    given = parsed()
    if importlib.util.find_spec("atheris") is None:
        print("atheris is not installed; pip install '.[fuzz]' (Linux, Python 3.11 to 3.13)")
        return 2
    is_well = True
    with contextlib.ExitStack() as stack:
        corpus = given.corpus or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for name in TARGETS if given.all else given.target:
            for ends in ends_of(given, name):
                outcome = fuzz(name, ends, corpus / name, given.crashes)
                total = add_to_record(given.record, name, outcome.executions)
                print(
                    f"{name:9} {outcome}" + (f"  {total:,} so far" if given.record else ""), flush=True
                )
                if not outcome.is_well:
                    is_well = False
                    log = given.crashes / f"{name}.log"
                    print(f"  see {log}", *outcome.crashes, _traceback_in(log), sep="\n  ", flush=True)
                    break
    return 0 if is_well else 1


if __name__ == "__main__":
    sys.exit(main())
