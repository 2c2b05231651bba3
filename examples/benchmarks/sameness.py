"""How much indices and pixels depend on threads, kernels and device.

Encodes and decodes slices of a prepared dataset in several ways on this machine and counts, against
one thread with oneDNN, the indices that differ and the largest difference of a decoded pixel. The
pixels are decoded from the same indices in all ways.

    python examples/benchmarks/sameness.py data/ --slices 64
"""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

import oasisvq
from oasisvq.codec import container
from oasisvq.data.dataset import open_dataset


@contextmanager
def setting(threads: int, onednn: bool) -> Iterator[None]:
    """Compute with so many threads, with or without oneDNN's kernels."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.backends.mkldnn.flags(enabled=onednn):
            yield
    finally:
        torch.set_num_threads(before)


def main() -> None:
    """Print one line a setting."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--slices", type=int, default=64)
    arguments = parser.parse_args()
    planes = open_dataset(arguments.data).array("validation")
    chosen = np.linspace(0, len(planes) - 1, arguments.slices).astype(int)
    ways = [("cpu", 1, True), ("cpu", 2, True), ("cpu", 3, True), ("cpu", 1, False)]
    if torch.cuda.is_available():
        ways.append(("cuda", 1, True))
    reference: list[bytes] = []
    pixels: list[np.ndarray] = []
    for device, threads, onednn in ways:
        codec = oasisvq.load(device=device)
        with setting(threads, onednn):
            contents = [codec.encode(np.asarray(planes[i]), codec.config.levels) for i in chosen]
            reference = reference or contents
            restored = [codec.decode(content).astype(int) for content in reference]
        pixels = pixels or restored
        total = differing = 0
        for ours, theirs in zip(contents, reference, strict=True):
            first, second = (
                codec.codes_of(container.read(content, "codes")).indices for content in (ours, theirs)
            )
            total += first.size
            differing += int((first != second).sum())
        pairs = list(zip(pixels, restored, strict=True))
        largest = max(int(np.abs(first - second).max()) for first, second in pairs)
        share = np.mean([(first != second).mean() for first, second in pairs])
        print(
            f"{device}, {threads} threads, {'with' if onednn else 'without'} oneDNN: "
            f"{differing:,} of {total:,} indices differ; pixels by at most {largest} grey levels "
            f"({share:.6%} of them at all)"
        )


if __name__ == "__main__":
    main()
