"""A long run: encode, verify and decode very many slices, and see that nothing changes on the way.

python tests/trust/load.py slices/ --slices 100000 --shards 2 --folder load/

The images of a folder are repeated, as hard links, until there are enough. Each command runs once over
all of them, in as many processes at once as there are shards. Asserted is that every command succeeds,
that every `.codes` file and every decoded image equals the first one of the same original, byte for
byte, and that memory stays flat: the largest resident set in the last tenth of a command's time is at
most 5 % above that of its second tenth, where the command takes a minute or longer. Started again on
the same folder, it goes on.
"""

import argparse
import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

SUFFIXES = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp"}
A_FOLDER = 1_000  # copies of slices in one folder
GROWTH = 1.05
LITTLE = 16 * 2**20  # bytes by which memory may grow in any case
SOON = 60.0  # seconds: in a shorter command the start is all there is to see


class Phase(NamedTuple):
    """One command over all slices."""

    name: str
    seconds: float
    early_bytes: int  # largest resident set of a process in the second tenth of the time
    late_bytes: int  # in the last tenth

    @property
    def flat(self) -> bool:
        """Whether memory did not grow, as far as there was time to."""
        return self.seconds < SOON or self.late_bytes <= max(
            GROWTH * self.early_bytes, self.early_bytes + LITTLE
        )


def repeat_slices(source: Path, target: Path, slices: int) -> list[Path]:
    """Fill a tree with so many hard links to the images of a folder; returns the originals."""
    originals = sorted(path for path in source.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not originals:
        raise SystemExit(f"{source}: no images below it")
    for number in range(slices):
        original = originals[number % len(originals)]
        place = target / f"{number // A_FOLDER:04d}" / f"{number:07d}{original.suffix}"
        if not place.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(original, place)
            except OSError:  # on another file system
                shutil.copyfile(original, place)
    return originals


def resident_bytes(process: "subprocess.Popen[bytes]") -> int:
    """Resident set of a process now, 0 if it has ended."""
    try:
        status = Path(f"/proc/{process.pid}/status").read_text()
    except OSError:
        return 0
    fields = (line.split() for line in status.splitlines())
    return next((int(field[1]) * 1024 for field in fields if field[0] == "VmRSS:"), 0)


def run_phase(
    name: str, arguments: Callable[[int], list[str]], shards: int, every: float = 1.0
) -> Phase:
    """Run a command once a shard, all at once, and watch its memory."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"} if shards > 1 else dict(os.environ)
    start = time.monotonic()
    processes = [
        subprocess.Popen([sys.executable, "-m", "oasisvq", *arguments(shard)], env=environment)
        for shard in range(shards)
    ]
    seen: list[tuple[float, int]] = []
    while any(process.poll() is None for process in processes):
        seen.append((time.monotonic() - start, max(map(resident_bytes, processes))))
        time.sleep(every)
    seconds = time.monotonic() - start
    codes = [process.returncode for process in processes]
    if any(codes):
        raise SystemExit(f"{name}: exit codes {codes}")

    def largest(begin: float, end: float) -> int:
        return max((size for at, size in seen if begin * seconds <= at <= end * seconds), default=0)

    return Phase(name, seconds, largest(0.1, 0.2), largest(0.9, 1.0))


def differing(folder: Path, suffix: str, originals: int) -> Iterator[Path]:
    """Files that are not equal to the first one of the same original."""
    first: dict[int, bytes] = {}
    for path in sorted(folder.rglob(f"*{suffix}")):
        kind = int(path.name.split(".")[0]) % originals
        digest = hashlib.sha256(path.read_bytes()).digest()
        if first.setdefault(kind, digest) != digest:
            yield path


def load(
    source: Path, folder: Path, slices: int, shards: int, options: list[str], every: float = 1.0
) -> dict[str, object]:
    """The whole run; returns what was measured. SystemExit names what went wrong."""
    originals = repeat_slices(source, folder / "slices", slices)
    encoded, decoded = folder / "codes", folder / "decoded"

    def sharded(command: str, path: Path, *more: str) -> Callable[[int], list[str]]:
        return lambda shard: [command, str(path), *more, "--shard", f"{shard}/{shards}"]

    phases = [
        run_phase(
            "encode", sharded("encode", folder / "slices", "-o", str(encoded), *options), shards, every
        ),
        run_phase("verify --deep", sharded("verify", encoded, "--deep"), shards, every),
        run_phase("decode", sharded("decode", encoded, "-o", str(decoded)), shards, every),
    ]
    for written, suffix in ((encoded, ".codes"), (decoded, ".png")):
        found = sum(1 for _ in written.rglob(f"*{suffix}"))
        if found != slices:
            raise SystemExit(f"{written}: {found} files, expected {slices}")
        wrong = list(differing(written, suffix, len(originals)))
        if wrong:
            raise SystemExit(f"{len(wrong)} of {slices} differ from the first of their kind: {wrong[0]}")
    grown = [phase.name for phase in phases if not phase.flat]
    if grown:
        raise SystemExit(f"memory grew in {', '.join(grown)}: {phases}")
    return {
        "slices": slices,
        "originals": min(slices, len(originals)),
        "shards": shards,
        "phases": [phase._asdict() for phase in phases],
    }


def main() -> None:
    """Run, and print what was measured as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path, help="a folder of images")
    parser.add_argument("--folder", type=Path, required=True, help="for all that is written")
    parser.add_argument("--slices", type=int, default=100_000)
    parser.add_argument("--shards", type=int, default=1, help="processes at once")
    parser.add_argument("--options", default="", help="for encode, such as '-q 1 --coder packed'")
    given = parser.parse_args()
    options = shlex.split(given.options)
    measured = load(given.source, given.folder, given.slices, given.shards, options)
    print(json.dumps(measured, indent=1))


if __name__ == "__main__":
    main()
