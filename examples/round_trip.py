"""Turns a scan into bytes and back with the Python API, on the CPU, with the bundled model.

python examples/round_trip.py [scan.png]
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

import oasisvq


def main(path: Path) -> None:
    """Encode, decode and compare at each quality; write a file, and read its indices without torch."""
    scan = np.asarray(Image.open(path))
    codec = oasisvq.load()
    for levels in range(1, codec.config.levels + 1):
        content = codec.encode(scan, levels)
        restored = codec.decode(content)
        error = np.abs(restored.astype(int) - scan.astype(int)).mean()
        print(f"{levels} levels: {len(content):,} bytes, mean error {error:.2f} grey levels")

    codes_path = Path("round_trip.codes")
    codes_path.write_bytes(codec.encode(scan))
    codes = oasisvq.read_codes(codes_path)
    print(f"indices {codes.indices.shape} of {codes.header.codebook_size} codes, {codes.indices.dtype}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "scan.png")
