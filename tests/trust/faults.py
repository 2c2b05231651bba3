"""Kill commands, fill the disk, take files away, and see that nothing half done is left.

python tests/trust/faults.py                          # 200 kills of each command, every fault
python tests/trust/faults.py --kills 20 --slices 12 --json

Each of encode, decode, preprocess and train is ended by SIGKILL or SIGINT, at a random moment of its
time or right before one of its changes of the disk, into a new output or over an old one, and started
again until it ends by itself. After each kill every file under a final name must be the old or the new
one, whole; in the end all must equal those of an undisturbed run, and no other file may be left.

Then faults, one by one: full disks, read-only folders, two processes with one output, files that change
or vanish while they are read, and inputs that are pipes, sockets, devices or links to nothing. Each must
end in time, with the right exit code and one line, no traceback, and with old outputs whole. What cannot
be made on a machine (mounting needs root) is skipped, with the reason.
"""

import argparse
import ctypes
import json
import os
import random
import resource
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import attempts
from attempts import TRAIN, Bench, contents, place
from kills import WORKS, Work, survive, wrong_at_the_end

MOUNT_PRIVATE = 1 << 18 | 1 << 14  # of mount(2): MS_PRIVATE, MS_REC
NEW_MOUNTS = 0x00020000  # of unshare(2): CLONE_NEWNS


SHOWN = 20  # of what went wrong
SMALL = 1500  # bytes, more than some lines and less than most outputs
LARGE_OUTPUTS = {"preprocess", "train", "export", "show"}
READ_ONLY = "cannot be written", "cannot be created", "Read-only"


class Skipped(Exception):  # noqa: N818 - it is none
    """This machine cannot make the fault; says why."""


class Try(NamedTuple):
    """A command that cannot succeed.

    Attributes:
        arguments: the command.
        says: what its line must hold, one of these.
        output: the folder in which nothing may change.
    """

    arguments: list[str]
    says: tuple[str, ...]
    output: str = "disk"


def _refused(bench: Bench, each: Try, before: Callable[[], None] = lambda: None) -> Iterator[str]:
    """What is wrong with how a command was refused."""
    output = bench.folder / each.output
    was = contents(output)
    ended = bench.run(each.arguments, before=before)
    where = " ".join(map(str, each.arguments))
    lines = ended.err.splitlines()
    if ended.code != 1:
        yield f"{where}: exit code {ended.code}, expected 1: {ended.err[-300:]}"
    if "Traceback" in ended.err or not any(text in line for line in lines for text in each.says):
        yield f"{where}: expected a line with {each.says!r}: {ended.err[-500:]}"
    if contents(output) != was:
        yield f"{where}: left {sorted(contents(output).keys() ^ was.keys()) or 'a changed file'}"


def _writers(*says: str) -> list[Try]:
    """Commands that write into `disk`, where old outputs lie."""
    commands = [
        ["encode", "slices/0/0.png", "-f", "-o", "disk/old.codes"],
        ["encode", "slices", "-o", "disk"],
        ["decode", "codes/0/0.codes", "-f", "-o", "disk/old.png"],
        ["decode", "volume.codes", "-f", "-o", "disk/old.img"],
        ["decode", "codes", "-o", "disk"],
        ["preprocess", "raw", "--size", "64", "-o", "disk/data"],
        ["preprocess", "raw", "--size", "64", "-f", "-o", "disk/data-old"],
        ["train", "data", *TRAIN, "-o", "disk/run"],
        ["export", "codes", "-o", "disk/tokens.npz"],
        ["sample", "-n", "2", "-o", "disk/samples.png"],
        ["show", "codes/0/0.codes", "-o", "disk/panel.png"],
    ]
    return [Try(command, says) for command in commands]


def _old_outputs(bench: Bench) -> None:
    """Outputs of before in `disk`."""
    disk = bench.folder / "disk"
    disk.mkdir(exist_ok=True)
    (disk / "old.codes").write_bytes((bench.reference("codes-old") / "0" / "0.codes").read_bytes())
    (disk / "old.png").write_bytes((bench.reference("images-old") / "0" / "0.png").read_bytes())
    bench.good("decode", "volume-old.codes", "-f", "-o", "disk/old.img")
    place(bench.reference("data-old"), disk / "data-old")


@contextmanager
def _mounted(*arguments: str) -> Iterator[None]:
    """Mount something, for this process and its children only."""
    libc = ctypes.CDLL(None, use_errno=True)
    if not sys.platform.startswith("linux") or libc.unshare(NEW_MOUNTS):
        raise Skipped("mounting needs root on Linux")
    libc.mount(b"none", b"/", None, MOUNT_PRIVATE, None)
    if subprocess.run(["mount", *arguments], capture_output=True, check=False).returncode:
        raise Skipped(f"cannot mount: {' '.join(arguments)}")
    try:
        yield
    finally:
        subprocess.run(["umount", arguments[-1]], check=True)


def full_disk(bench: Bench) -> Iterator[list[str]]:
    """A file system that has room for the old outputs and no more; and then goes on."""
    disk = bench.folder / "disk"
    disk.mkdir(exist_ok=True)
    with _mounted("-t", "tmpfs", "-o", "size=256k", "none", str(disk)):
        _old_outputs(bench)
        filler = disk / "filler"
        with filler.open("wb", 0) as stream:
            try:
                while True:
                    stream.write(bytes(1024))
            except OSError:
                pass
        for each in _writers("No space left on device"):
            yield list(_refused(bench, each))
        filler.unlink()
        ended = bench.run(["encode", "slices", "-o", "disk/codes"])
        same = contents(disk / "codes") == contents(bench.reference("codes"))
        yield [] if ended.code == 0 and same else [f"does not go on when there is room: {ended.err}"]


def small_files_only(bench: Bench) -> Iterator[list[str]]:
    """A limit on the size of files, as quotas set it."""
    _old_outputs(bench)

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (SMALL, SMALL))  # also of what is printed

    for each in _writers("File too large"):
        if "volume.codes" in each.arguments or each.arguments[0] in LARGE_OUTPUTS:
            yield list(_refused(bench, each, limit))


def read_only(bench: Bench) -> Iterator[list[str]]:
    """A folder that cannot be written to."""
    _old_outputs(bench)
    disk = bench.folder / "disk"
    if os.getuid():
        disk.chmod(0o555)
        try:
            yield from (list(_refused(bench, each)) for each in _writers(*READ_ONLY))
        finally:
            disk.chmod(0o755)
        return
    with _mounted("--bind", str(disk), str(disk)):
        subprocess.run(["mount", "-o", "remount,ro,bind", str(disk)], check=True)
        yield from (list(_refused(bench, each)) for each in _writers(*READ_ONLY))


def two_at_once(bench: Bench, works: list[Work], rng: random.Random) -> Iterator[list[str]]:
    """Two processes with one output: both succeed with the same bytes, or one says why it does not."""
    target = bench.folder / "target"
    for work in works:
        for force in ([], ["-f"]):
            place(bench.reference(f"{work.output}-old") if force else None, target)
            command = [*work.arguments, *force, "-o", "target"]
            logs = [bench.folder / "log-0", bench.folder / "log-1"]
            first = bench.start(command, logs[0])
            time.sleep(rng.uniform(0, 0.1))
            second = bench.start(command, logs[1])
            ends = [attempts.end(first, logs[0]), attempts.end(second, logs[1])]
            wrong = list(wrong_at_the_end(work, target, contents(bench.reference(work.output))))
            for ended in ends:
                refused = "another process" in ended.err or "exists" in ended.err or "holds" in ended.err
                sharing = work.name in ("encode", "decode")
                if ended.code != 0 and (sharing or ended.code != 1 or not refused):
                    wrong.append(f"{work.name} {force}: {ended.code}: {ended.err[-500:]}")
            if all(ended.code for ended in ends):
                wrong.append(f"{work.name} {force}: both failed")
            yield wrong
    place(None, target)


def changing(bench: Bench) -> Iterator[list[str]]:
    """Files that change or vanish when they are opened, alone and in folders."""
    disk = bench.folder / "disk"
    bench.reference("codes")
    whole = {"slice.png": "slices/0/0.png", "volume.nii": "volume.nii", "x.codes": "codes/0/0.codes"}
    for name, source in whole.items():
        for how in (_append, _cut, Path.unlink):
            place(bench.folder / "slices" / "1", disk / "in")
            path = disk / "in" / name
            path.write_bytes((bench.folder / source).read_bytes())
            command = "decode" if name.endswith(".codes") else "encode"
            output = "out.png" if command == "decode" else "out.codes"
            place(None, disk / "out")
            (disk / "out").mkdir()
            alone = Try(
                [command, f"disk/in/{name}", "-o", f"disk/out/{output}"], f"{name}: ", "disk/out"
            )
            before = _when_opened(path, how)
            yield list(_refused(bench, alone, before))
            path.write_bytes((bench.folder / source).read_bytes())
            if command == "encode":
                ended = bench.run(["encode", "disk/in", "-o", "disk/out"], before=before)
                others = len(list((bench.folder / "slices" / "1").iterdir()))
                good = ended.code == 1 and "1 failed" in ended.err and f"in/{name}: " in ended.err
                good = good and len(contents(disk / "out")) == others
                yield [] if good else [f"{name} in a folder: {ended.code}, {ended.err[-500:]}"]


def _append(path: Path) -> None:
    with path.open("ab") as stream:
        stream.write(b"x")


def _cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _when_opened(path: Path, change: Callable[[Path], None]) -> Callable[[], None]:
    """For a fork: change a file when it is opened to be read, once."""

    def watch() -> None:
        is_changed = False

        def hook(event: str, arguments: tuple[object, ...]) -> None:
            nonlocal is_changed
            if event == "open" and not is_changed and str(arguments[0]).endswith(path.name):
                is_changed = True
                change(path)

        sys.addaudithook(hook)

    return watch


def odd_inputs(bench: Bench) -> Iterator[list[str]]:
    """Pipes, sockets, devices and links to nothing, alone and in folders."""
    disk, data = bench.folder / "disk", contents(bench.reference("codes"))
    for suffix, command in ((".png", "encode"), (".nii.gz", "encode"), (".codes", "decode")):
        place(bench.folder / ("slices/1" if command == "encode" else "codes/1"), disk / "in")
        (disk / "out").mkdir(exist_ok=True)
        odd = _make_odd(disk / "in", suffix)
        for path in odd:
            for each in (command, "info", "verify") if suffix == ".codes" else (command, "score"):
                named = str(path.relative_to(bench.folder))
                ended = bench.run([each, named])
                wrong = (
                    ended.code != 1 or "Traceback" in ended.err or path.name not in ended.err + ended.out
                )
                yield [f"{each} {named}: {ended.code} {ended.err[-300:]}"] if wrong else []
        place(None, disk / "out")
        ended = bench.run([command, "disk/in", "-o", "disk/out"])
        kept = sum(name.startswith("1/") for name in data)
        wrong = ended.code != 1 or f"{len(odd)} failed" not in ended.err or "Traceback" in ended.err
        wrong = wrong or len(contents(disk / "out")) != kept
        yield [f"{command} of a folder with {suffix}: {ended.code} {ended.err[-800:]}"] if wrong else []
    place(bench.folder / "raw", disk / "raw")
    odd = _make_odd(disk / "raw" / "keras_png_slices_train", ".png", "case_007_slice_{}.nii")
    ended = bench.run(["preprocess", "disk/raw", "--size", "32", "-o", "disk/data"])
    wrong = ended.code != 1 or "Traceback" in ended.err or not any(p.name in ended.err for p in odd)
    yield [f"preprocess: {ended.code} {ended.err[-800:]}"] if wrong else []
    for path in _make_odd(disk, ""):
        for command in ("preprocess", "train"):
            named = str(path.relative_to(bench.folder))
            ended = bench.run([command, named, "-o", "disk/made"])
            wrong = ended.code != 1 or "Traceback" in ended.err or path.name not in ended.err
            wrong = wrong or (disk / "made").exists()
            yield [f"{command} {named}: {ended.code} {ended.err[-300:]}"] if wrong else []


def _make_odd(folder: Path, suffix: str, pattern: str = "odd{}") -> list[Path]:
    """One of each thing that is no file, named like one."""
    names = iter(folder / (pattern.format(90 + number) + suffix) for number in range(5))
    paths = [next(names) for _ in range(5)]
    for path in paths:
        path.unlink(missing_ok=True)
    pipe, listener, device, dangling, circle = paths
    os.mkfifo(pipe)
    with socket.socket(socket.AF_UNIX) as made:
        here = Path.cwd()
        os.chdir(folder)  # a socket's name is short
        made.bind(listener.name)
        os.chdir(here)
    device.symlink_to("/dev/zero")
    dangling.symlink_to("nothing")
    circle.symlink_to(circle.name)
    return paths


def one_in_a_hundred(bench: Bench) -> Iterator[list[str]]:
    """A folder with 1 % of bad files loses only those, and lists them."""
    disk = bench.folder / "disk"
    place(None, disk / "many")
    (disk / "many").mkdir()
    content = (bench.folder / "slices/0/0.png").read_bytes()
    for number in range(200):
        (disk / "many" / f"{number}.png").write_bytes(content)
    (disk / "many" / "7.png").write_bytes(content[:100])
    (disk / "many" / "93.png").write_bytes(b"no image")
    place(None, disk / "out")
    ended = bench.run(["encode", "disk/many", "-o", "disk/out"])
    good = (
        ended.code == 1
        and "2 failed" in ended.err
        and "7.png: " in ended.err
        and "93.png: " in ended.err
    )
    yield [] if good and len(contents(disk / "out")) == 198 else [f"{ended.code}: {ended.err[-500:]}"]


def faults(
    bench: Bench, kinds: list[str], works: list[Work], rng: random.Random
) -> tuple[dict[str, int], dict[str, str], list[str]]:
    """How many faults were tried of each kind, what was skipped and why, and what went wrong."""
    tried, skipped, wrong = dict[str, int](), dict[str, str](), list[str]()
    for kind in kinds:
        place(None, bench.folder / "disk")
        (bench.folder / "disk").mkdir()
        tried[kind] = 0
        try:
            for found in two_at_once(bench, works, rng) if kind == TWO else FAULTS[kind](bench):
                tried[kind] += 1
                wrong += [f"{kind}: {each}" for each in found]
        except Skipped as reason:
            skipped[kind] = str(reason)
    return tried, skipped, wrong


TWO = "two"
FAULTS: dict[str, Callable[[Bench], Iterator[list[str]]]] = {
    "full-disk": full_disk,
    "file-size": small_files_only,
    "read-only": read_only,
    "changing": changing,
    "odd-inputs": odd_inputs,
    "bad-files": one_in_a_hundred,
}


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names, kinds = [work.name for work in WORKS], [*FAULTS, TWO]
    parser.add_argument("--kills", type=int, default=200, help="of each command")
    parser.add_argument("--slices", type=int, default=30, help="in the folder that is encoded")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--commands", nargs="*", choices=names, default=names, help="to kill")
    parser.add_argument("--faults", nargs="*", choices=kinds, default=kinds, help="to try")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    rng, works = random.Random(given.seed), [work for work in WORKS if work.name in given.commands]
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder).resolve() / "bench", given.slices)
        survived = {work.name: survive(bench, work, given.kills, rng) for work in works if given.kills}
        tried, skipped, wrong = faults(bench, given.faults, works, rng)
        os.chdir("/")
    wrong += [each for kills in survived.values() for each in kills.wrong]
    report = {name: {**kills.kills, "finished": kills.finished} for name, kills in survived.items()}
    if given.json:
        print(
            json.dumps({"kills": report, "faults": tried, "skipped": skipped, "wrong": wrong}, indent=1)
        )
    else:
        for name, numbers in report.items():
            print(
                f"{name:<12}" + ", ".join(f"{count} {what}" for what, count in sorted(numbers.items()))
            )
        for kind, count in tried.items():
            print(f"{kind:<12}{skipped.get(kind, f'{count} tried')}")
        print(f"{len(wrong)} wrong", *wrong[:SHOWN], sep="\n")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
