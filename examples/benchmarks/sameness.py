"""Whether bytes and pixels are the same on every machine.

Encodes and decodes scans, and takes a SHA-256 of the `.codes` bytes and of the decoded values of each.
The first image is also coded within two bounds, and at every quality, with 8 bits and with 16.

    python examples/benchmarks/sameness.py scans/ volume.nii.gz labels.nii.gz --record here.json
    python examples/benchmarks/sameness.py scans/ volume.nii.gz labels.nii.gz --against here.json

With `--ways` this machine computes them in several ways, each in a process of its own: with 1, 2 and 4
threads, and with the kernels of OpenBLAS for other processors, including generic ones.

    python examples/benchmarks/sameness.py scans/ volume.nii.gz labels.nii.gz --ways
"""

import argparse
import hashlib
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import oasisvq
from oasisvq.codec.codec import Codec
from oasisvq.scans.scan import read_scan
from oasisvq.scans.source import source_at

WAYS: list[dict[str, str]] = [
    *({"OPENBLAS_NUM_THREADS": threads} for threads in ("1", "2", "4")),
    *(
        {"OPENBLAS_NUM_THREADS": "1", "OPENBLAS_CORETYPE": kernel}
        for kernel in ("Prescott", "Nehalem", "Sandybridge", "Haswell", "Zen", "SkylakeX", "Cooperlake")
    ),
]


def digests(content: bytes, decoded: NDArray[Any]) -> list[str]:
    """SHA-256 of a file and of its decoded values, little-endian."""
    values = np.ascontiguousarray(decoded, decoded.dtype.newbyteorder("<")).tobytes()
    return [hashlib.sha256(part).hexdigest() for part in (content, values)]


def coded(codec: Codec, paths: list[Path]) -> Iterator[tuple[str, list[str]]]:
    """Name and digests of each scan."""
    is_first = True
    for path in paths:
        scan = read_scan(source_at(path))
        content = codec.encode_scan(scan)
        yield path.name, digests(content, codec.decode(content))
        if scan.placement is None and is_first:
            is_first = False
            deep = scan.plane.astype(np.uint16) * 251 + 7
            for bound in (0, 3):
                content = codec.encode(scan.plane, max_error=bound)
                yield f"{path.name}, bound {bound}", digests(content, codec.decode(content))
            for levels in range(1, codec.config.levels + 1):
                for kind, array in (("8 bits", scan.plane), ("16 bits", deep)):
                    content = codec.encode(array, levels)
                    name = f"{path.name}, {kind}, quality {levels}"
                    yield name, digests(content, codec.decode(content))


def chosen(sources: list[Path], count: int) -> list[Path]:
    """The named files, and at most `count` images of each folder, evenly spaced."""
    paths: list[Path] = []
    for source in sources:
        found = sorted(source.glob("*.png")) if source.is_dir() else [source]
        places = np.linspace(0, len(found) - 1, min(count, len(found))).astype(int)
        paths += [found[place] for place in places]
    return paths


def in_every_way(arguments: list[str]) -> int:
    """Run this program in each of the ways; returns 1 if one fails or differs from the first, else 0."""
    outputs: list[str] = []
    for way in WAYS:
        command = [sys.executable, __file__, *arguments]
        done = subprocess.run(command, env=os.environ | way, capture_output=True, text=True, check=False)
        if done.returncode:
            print(f"{way}: {done.stderr.strip()[-300:]}", file=sys.stderr)
            return 1
        outputs.append(done.stdout)
        same = "the same" if done.stdout == outputs[0] else "OTHER BYTES OR PIXELS"
        print(f"{' threads, '.join(way.values())}: {same}", flush=True)
    print(outputs[0].strip())
    return int(len(set(outputs)) > 1)


def main() -> int:
    """Print the digest of all files; record or compare the digests; returns 1 if any differ, else 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("scans", type=Path, nargs="+", help="files, and folders of images")
    parser.add_argument("--slices", type=int, default=64, help="images taken of a folder")
    parser.add_argument("--model", type=Path, help="the bundled one where none is named")
    other = parser.add_mutually_exclusive_group()
    other.add_argument("--record", type=Path, help="write the digests")
    other.add_argument("--against", type=Path, help="compare with what was recorded")
    other.add_argument("--ways", action="store_true", help="compare the ways of this machine")
    arguments = parser.parse_args()
    if arguments.ways:
        return in_every_way([each for each in sys.argv[1:] if each != "--ways"])
    codec = oasisvq.load(arguments.model or Path(oasisvq.__file__).parent / "pretrained")
    found = dict(coded(codec, chosen(arguments.scans, arguments.slices)))
    total = hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()
    print(f"{len(found)} files: {total}")
    if arguments.record:
        arguments.record.write_text(json.dumps(found, indent=0))
    if arguments.against:
        recorded = json.loads(arguments.against.read_text())
        names = found.keys() | recorded.keys()
        wrong = sorted(name for name in names if found.get(name) != recorded.get(name))
        versions = f"Python {platform.python_version()}, NumPy {np.__version__}"
        print(f"{versions}: {len(wrong)} of {len(recorded)} differ {wrong[:3]}")
        return int(bool(wrong))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
