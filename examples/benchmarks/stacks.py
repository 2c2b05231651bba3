"""The slices of a subject one by one and as one stack: size and quality of both.

python examples/benchmarks/stacks.py keras_png_slices_validate --cases 402 --levels 1 2
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

import oasisvq
from oasisvq.codec.measure import similarity

SLICES = 32


def quality(originals: NDArray[Any], restored: NDArray[Any]) -> str:
    """SSIM, foreground SSIM and PSNR in dB for a range of 255, means over slices."""
    found = [similarity(*pair, 255.0) for pair in zip(originals, restored, strict=True)]
    fields = [np.mean([getattr(each, name) for each in found]) for name in ("ssim", "foreground_ssim")]
    psnr = np.mean([each.psnr for each in found])
    return f"{fields[0]:.4f} | {fields[1]:.4f} | {psnr:.2f}"


def main() -> None:
    """Print a row of a table for each case and number of levels."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="of UQ PNG slices")
    parser.add_argument("--cases", type=int, nargs="+", default=[402])
    parser.add_argument("--levels", type=int, nargs="+", default=[1, 2])
    arguments = parser.parse_args()
    codec = oasisvq.load()
    for case in arguments.cases:
        names = [f"case_{case:03d}_slice_{number}.nii.png" for number in range(SLICES)]
        images = np.stack([np.asarray(Image.open(arguments.folder / name)) for name in names])
        for levels in arguments.levels:
            alone = [codec.encode(image, levels) for image in images]
            stack = codec.encode_stack(images, names, levels)
            before = sum(map(len, alone))
            singly = quality(images, np.stack(codec.decode_many(alone)))
            print(f"| {case} | {levels} | one by one | {before:,} | | {singly} |")
            change = 100 * (len(stack) / before - 1)
            together = quality(images, codec.decode(stack))
            print(f"| {case} | {levels} | stack | {len(stack):,} | {change:+.1f} % | {together} |")


if __name__ == "__main__":
    main()
