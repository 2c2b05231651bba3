"""Sizes of volumes as one file and as a file for each slice; and the time to encode and decode them.

python examples/benchmarks/volumes.py scan.nii.gz ...
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch

import oasisvq
from oasisvq.codec import container
from oasisvq.codec.codec import Codec
from oasisvq.codec.content import Content
from oasisvq.codec.wish import Wish
from oasisvq.scans.scan import Scan, read_scan
from oasisvq.scans.source import source_at


def slice_bytes(codec: Codec, scan: Scan, wish: Wish) -> int:
    """Bytes of all slices as image files, each slice stretched to the whole range of 16 bits."""
    total = 0
    for plane in scan.planes:
        low, high = float(plane.min()), float(plane.max())
        grey = np.rint((plane - low) * (65_535 / max(high - low, 1e-9))).astype(np.uint16)
        total += len(codec.encode_scan(Scan(grey[None]), wish))
    return total


def main() -> None:
    """Print one row for each volume."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("volumes", type=Path, nargs="+")
    parser.add_argument("-q", "--quality", type=int)
    arguments = parser.parse_args()
    codec = oasisvq.load()
    wish = Wish(arguments.quality, content=Content.SCAN)
    print(f"{torch.get_num_threads()} threads, quality {codec.check_levels(wish.levels)}")
    print("volume                slices  original     bytes  as slices  smaller  encode s  decode s")
    for path in arguments.volumes:
        scan = read_scan(source_at(path))
        started = time.perf_counter()
        content = codec.encode_scan(scan, wish)
        encoded = time.perf_counter()
        file = container.read(content, str(path))
        codec.decode_codes(codec.codes_of(file), str(path))
        decoded = time.perf_counter()
        single = slice_bytes(codec, scan, wish)
        print(
            f"{path.name:<20} {len(scan.planes):7} {path.stat().st_size:9,} {len(content):9,} "
            f"{single:10,} {1 - len(content) / single:8.1%} {encoded - started:9.1f} "
            f"{decoded - encoded:9.1f}"
        )


if __name__ == "__main__":
    main()
