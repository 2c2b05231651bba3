"""How much indices and pixels depend on threads, kernels, device and version of torch.

Encodes and decodes slices of a prepared dataset in several ways on this machine and counts, against
one thread with oneDNN, the indices that differ and the largest difference of a decoded pixel. The
pixels are decoded from the same indices in all ways.

    python examples/benchmarks/sameness.py data/ --slices 64

Against another machine or version of torch, what one wrote is what the other compares with:

    python examples/benchmarks/sameness.py data/ --record reference.npz
    python examples/benchmarks/sameness.py data/ --against reference.npz
"""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

import oasisvq
from oasisvq.codec import container
from oasisvq.codec.codec import Codec
from oasisvq.data.dataset import open_dataset


class Reference(NamedTuple):
    """What is compared with.

    Attributes:
        name: how it was made.
        contents: `.codes` files.
        pixels: what they decode to, each (H, W).
    """

    name: str
    contents: list[bytes]
    pixels: list[NDArray[Any]]


class Difference(NamedTuple):
    """Between the slices of one way and of the reference."""

    indices: int
    differing_indices: int
    largest: int  # of pixels, in grey levels
    differing_share: float  # of pixels


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


def difference(codec: Codec, contents: list[bytes], reference: Reference) -> Difference:
    """Indices of `contents`, and pixels as this codec decodes those of the reference."""
    total = differing = largest = 0
    shares = []
    for ours, theirs, pixels in zip(contents, reference.contents, reference.pixels, strict=True):
        first, second = (
            codec.codes_of(container.read(content, "codes")).indices for content in (ours, theirs)
        )
        total += first.size
        differing += int((first != second).sum())
        apart = np.abs(codec.decode(theirs).astype(int) - pixels)
        largest = max(largest, int(apart.max()))
        shares.append(float((apart != 0).mean()))
    return Difference(total, differing, largest, float(np.mean(shares)))


def write_reference(path: Path, reference: Reference) -> None:
    """Write what another run will compare with."""
    arrays: dict[str, NDArray[Any]] = {"name": np.array(reference.name)}
    for at, (content, pixels) in enumerate(zip(reference.contents, reference.pixels, strict=True)):
        arrays |= {f"content{at}": np.frombuffer(content, np.uint8), f"pixels{at}": pixels}
    np.savez_compressed(path, **arrays)


def read_reference(path: Path) -> Reference:
    """The inverse of `write_reference`."""
    with np.load(path) as stored:
        places = range((len(stored.files) - 1) // 2)
        contents = [stored[f"content{at}"].tobytes() for at in places]
        return Reference(str(stored["name"]), contents, [stored[f"pixels{at}"] for at in places])


def main() -> None:
    """Print one line a setting."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--slices", type=int, default=64)
    parser.add_argument("--model", type=Path, help="the bundled one where none is named")
    other = parser.add_mutually_exclusive_group()
    other.add_argument("--record", type=Path, help="write what the first setting gives")
    other.add_argument("--against", type=Path, help="compare with what was recorded of as many slices")
    parser.add_argument("--one-setting", action="store_true", help="one thread with oneDNN only")
    arguments = parser.parse_args()
    planes = open_dataset(arguments.data).array("validation")
    chosen = np.linspace(0, len(planes) - 1, arguments.slices).astype(int)
    model = arguments.model or Path(oasisvq.__file__).parent / "pretrained"
    ways = [("cpu", 1, True), ("cpu", 2, True), ("cpu", 3, True), ("cpu", 1, False)]
    if torch.cuda.is_available():
        ways.append(("cuda", 1, True))
    if arguments.one_setting:
        del ways[1:]
    reference = read_reference(arguments.against) if arguments.against else None
    for device, threads, onednn in ways:
        name = f"{device}, {threads} threads, {'with' if onednn else 'without'} oneDNN"
        codec = oasisvq.load(model, device=device)
        with setting(threads, onednn):
            contents = [codec.encode(np.asarray(planes[i]), codec.config.levels) for i in chosen]
            if reference is None:
                pixels = [codec.decode(content) for content in contents]
                reference = Reference(f"torch {torch.__version__}, {name}", contents, pixels)
                if arguments.record:
                    write_reference(arguments.record, reference)
            found = difference(codec, contents, reference)
        print(
            f"torch {torch.__version__}, {name}: {found.differing_indices:,} of {found.indices:,} "
            f"indices differ from those of {reference.name}; pixels by at most {found.largest} grey "
            f"levels ({found.differing_share:.6%} of them at all)",
            flush=True,
        )


if __name__ == "__main__":
    main()
