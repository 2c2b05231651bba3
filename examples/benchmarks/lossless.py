"""The size of AVIF files at the PSNR that our files within bounds have, and AVIF's largest errors.

python examples/benchmarks/lossless.py FOLDER --every 40

This is for 8-bit images. Codecs that guarantee a bound are compared on images by
`oasisvq score data/ --against jpegls,jpegxl --lossless --max-error 1`, and on volumes by
`oasisvq score scan.nii.gz --against sperr,sz3,zfp --max-error 1%`.
"""

import argparse
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

import oasisvq
from oasisvq.codec.codec import Codec
from oasisvq.codec.content import Content
from oasisvq.codec.measure import psnr
from oasisvq.codec.wish import Wish
from oasisvq.evaluation.baselines import load, require_peers, save
from oasisvq.scans.scan import Scan

Plane = NDArray[np.uint8]
BOUNDS = (1, 2, 3, 4)
AVIF_QUALITIES = (60, 65, 70, 75, 80, 85, 90)


class Row(NamedTuple):
    """Means over slices, and the largest error of any pixel."""

    bytes: float
    psnr: float
    error: float


def number_of(path: Path) -> list[int]:
    """The numbers in a file's name: slice 10 comes after slice 2."""
    return [int(number) for number in re.findall(r"\d+", path.name)]


def measured(
    planes: list[Plane], encode: Callable[[Plane], bytes], decode: Callable[[bytes], NDArray[np.generic]]
) -> Row:
    """Encode and decode each slice, and measure."""
    rows = []
    for plane in planes:
        content = encode(plane)
        before, after = plane.astype(np.float64), decode(content).astype(np.float64)
        rows.append((len(content), psnr(before, after, 255.0), np.abs(before - after).max()))
    size, decibels, _ = np.mean(rows, axis=0).tolist()
    return Row(size, decibels, max(row[2] for row in rows))


def at_psnr(decibels: float, rows: list[Row]) -> float:
    """Bytes at a PSNR, interpolated between the nearest points of a curve; nan outside the curve."""
    ordered = sorted(rows, key=lambda row: row.psnr)
    known = [row.psnr for row in ordered]
    sizes = np.log([row.bytes for row in ordered])
    return float(np.exp(np.interp(decibels, known, sizes, left=np.nan, right=np.nan)))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("slices", type=Path)
    parser.add_argument("--every", type=int, default=1, help="take every so many of them")
    parser.add_argument("--model", type=Path)
    arguments = parser.parse_args()
    require_peers(["avif"])
    codec = Codec.load(arguments.model) if arguments.model else oasisvq.load()
    paths = sorted(arguments.slices.glob("*.png"), key=number_of)[:: arguments.every]
    planes = [np.asarray(Image.open(path).convert("L")) for path in paths]
    print(f"model {codec.fingerprint.hex()[:8]}, {len(planes)} slices")
    curve = []
    for quality in AVIF_QUALITIES:
        settings = {"quality": quality, "speed": 2, "subsampling": "4:0:0"}
        row = measured(planes, partial(save, image_format="AVIF", settings=settings), load)
        curve.append(row)
        print(f"AVIF quality {quality}: {row.bytes:,.0f} bytes, {row.psnr:.2f} dB, off by {row.error:g}")
    ours = []
    for bound in BOUNDS:

        def encode(plane: Plane, bound: int = bound) -> bytes:
            return codec.encode_scan(Scan(plane[None]), Wish(content=Content.SCAN, bound=bound))

        row = measured(planes, encode, codec.decode)
        ours.append(row)
        size = at_psnr(row.psnr, curve)
        print(
            f"bound {bound}: {row.bytes:,.0f} bytes at {row.psnr:.2f} dB, AVIF {size:,.0f}", flush=True
        )
    decibels = curve[AVIF_QUALITIES.index(75)].psnr
    size, theirs = at_psnr(decibels, ours), at_psnr(decibels, curve)
    print(f"at {decibels:.2f} dB: ours {size:,.0f}, AVIF quality 75 {theirs:,.0f}")


if __name__ == "__main__":
    main()
