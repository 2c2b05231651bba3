"""Other versions of Python, torch and the rest: install there, and see that all is as here.

python tests/trust/matrix.py --python python3.10 --torch 2.13.0
python tests/trust/matrix.py --python python3.11 --oldest
python tests/trust/matrix.py --python python3.13 --suite

Builds an environment in a temporary folder with pip (its settings and variables hold; the index's builds
of torch for Linux take 6 GB of disk), runs the golden tests and the README's round trip in it, and
prints one JSON object with the versions. The golden tests compare bytes and pixels to the last one.
`--suite` runs all tests; `--scans` and `--against` compare the hashes that
`examples/benchmarks/sameness.py` recorded of scans, with the bundled model. Exit code 1 if anything
fails; its output is on stderr.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
VERSIONS = """
import importlib.metadata, json, platform, sys
versions = {name: importlib.metadata.version(name) for name in sys.argv[1:]}
print(json.dumps({"python": platform.python_version(), **versions}))
"""

DISTANCE = """
import sys
import numpy
from PIL import Image
first, second = (numpy.asarray(Image.open(path)).astype(int) for path in sys.argv[1:])
assert first.shape == second.shape
print(numpy.abs(first - second).mean())
"""
LARGEST_DISTANCE = 5.0  # grey levels, on the average of all pixels


def oldest_versions(project: Path = ROOT / "pyproject.toml") -> dict[str, str]:
    """Each dependency of a project, and the oldest version that it allows."""
    listed = project.read_text().split("\ndependencies = [", 1)[1].split("]", 1)[0]
    entries = re.findall(r'"([^"]+)"', listed)
    matches = [re.fullmatch(r"([\w-]+)>=([\w.]+),<[\w.]+", entry) for entry in entries]
    assert all(matches), entries
    return {match[1]: match[2] for match in matches if match}


def run(command: list[str | Path], folder: Path = ROOT) -> str:
    """Standard output of a command that must succeed; all else that it says goes to stderr."""
    variables = {name: text for name, text in os.environ.items() if name != "OASISVQ_MODEL"}
    done = subprocess.run(
        command, cwd=folder, env=variables, stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode:
        named = " ".join(str(part) for part in command)
        raise SystemExit(f"{done.stdout}\n{named}: exit code {done.returncode}")
    return done.stdout


def build(python: str, wanted: dict[str, str], folder: Path) -> Path:
    """The interpreter of a new environment with the project and its tests.

    Args:
        python: that the environment is of.
        wanted: name -> version of packages that must be those.
        folder: for the environment.
    """
    run([python, "-m", "venv", folder])
    constraints = folder / "constraints.txt"
    constraints.write_text("".join(f"{name}=={version}\n" for name, version in wanted.items()))
    ours = next(path for path in (folder / "bin/python", folder / "Scripts/python.exe") if path.exists())
    run([ours, "-m", "pip", "install", "--quiet", "-c", constraints, f"{ROOT}[test]"])
    return ours


def round_trip(python: Path | str, folder: Path) -> None:
    """The example's scan through the command line with the bundled model; it comes back much alike."""
    scan, codes, decoded = ROOT / "examples/scan.png", folder / "scan.codes", folder / "scan.decoded.png"
    run([python, "-m", "oasisvq", "encode", scan, "-o", codes], folder)
    run([python, "-m", "oasisvq", "decode", codes, "-o", decoded], folder)
    distance = float(run([python, "-c", DISTANCE, scan, decoded]))
    if distance > LARGEST_DISTANCE:
        raise SystemExit(f"{decoded}: {distance} grey levels from the original")


def check(python: Path, given: argparse.Namespace, folder: Path) -> dict[str, object]:
    """What was found in an environment; SystemExit if anything fails."""
    pytest = [python.with_name("pytest"), "-q", "-p", "no:cacheprovider"]  # sees what is installed
    print(run([*pytest, "tests/golden"]), file=sys.stderr)
    round_trip(python, folder)
    if given.suite:
        print(run(pytest), file=sys.stderr)
    found = json.loads(run([python, "-c", VERSIONS, *oldest_versions()]))
    if given.scans:
        script = ROOT / "examples/benchmarks/sameness.py"
        scans = [path.resolve() for path in given.scans]
        found["scans"] = run([python, script, *scans, "--against", given.against.resolve()]).strip()
    return found


def main() -> None:
    """Build, check, and print what was found."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--python", default=sys.executable, help="this one where none is named")
    parser.add_argument("--torch", help="its version; the newest that is allowed where none is named")
    parser.add_argument("--oldest", action="store_true", help="every dependency as old as is allowed")
    parser.add_argument("--suite", action="store_true", help="run all tests")
    parser.add_argument("--scans", type=Path, nargs="+", help="files and folders to compare")
    parser.add_argument("--against", type=Path, help="what sameness.py recorded of it")
    given = parser.parse_args()
    if (given.scans is None) != (given.against is None):
        parser.error("--scans and --against go together")
    wanted = oldest_versions() if given.oldest else {}
    if given.torch:
        wanted["torch"] = given.torch
    with tempfile.TemporaryDirectory() as temporary:
        python = build(given.python, wanted, Path(temporary) / "environment")
        print(json.dumps(check(python, given, Path(temporary)), indent=1))


if __name__ == "__main__":
    main()
