"""What demanding a quality costs and gains, on slices of a folder; prints the tables of RESULTS.md.

python examples/benchmarks/demands.py keras_png_slices_validate --every 40

Every demanded quality is checked on the decoded file. Beside it stands the lowest `-q` that keeps this
quality on all slices but the worst 5 %. The last table compares the time of measuring with that of
encoding.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from oasisvq.codec.codec import Codec
from oasisvq.codec.content import Content
from oasisvq.codec.demand import Demands
from oasisvq.codec.measure import Measure
from oasisvq.codec.wish import Wish
from oasisvq.models import choose_model
from oasisvq.scans.images import read_image
from oasisvq.scans.scan import Scan

Plane = NDArray[np.generic]
Made = TypeVar("Made")
SHARE = 0.95  # of slices on which a fixed `-q` has to suffice
DEMANDS = (
    Demands(ssim=0.97),
    Demands(foreground_ssim=0.95),
    Demands(psnr=36),
    Demands(ssim=0.99),
)
SIZES = (800, 1500)


class Row(NamedTuple):
    """One slice at one setting."""

    file_bytes: int
    found: Measure


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="of images")
    parser.add_argument("--every", type=int, default=40)
    parser.add_argument("--model", type=Path)
    arguments = parser.parse_args()
    codec = Codec.load(choose_model(arguments.model, Path.cwd()).path)
    paths = sorted(arguments.folder.glob("*.png"))[:: arguments.every]
    planes = [read_image(path) for path in paths]
    print(f"{len(planes)} slices, model {codec.fingerprint.hex()[:8]}")
    by_level = [
        [row_of(codec, plane, Wish(levels, content=Content.SCAN)) for plane in planes]
        for levels in range(1, codec.config.levels + 1)
    ]
    print("| demanded | met by | bytes | the one -q | its bytes | fewer bytes | met by |")
    print("|---|---|---|---|---|---|---|")
    for demands in DEMANDS:
        rows = [row_of(codec, plane, Wish(content=Content.SCAN, demands=demands)) for plane in planes]
        print(demand_line(demands, rows, by_level), flush=True)
    print("| --max-bytes | met by | bytes | SSIM |")
    print("|---|---|---|---|")
    for most in SIZES:
        wish = Wish(content=Content.SCAN, demands=Demands(max_bytes=most))
        rows = [row_of(codec, plane, wish) for plane in planes]
        met = sum(row.file_bytes <= most for row in rows)
        ssim = np.mean([row.found.ssim for row in rows])
        print(f"| {most:,} | {met} of {len(rows)} | {mean_bytes(rows):,.0f} | {ssim:.4f} |", flush=True)
    print("| setting | encode, ms | measure, ms | ratio |")
    print("|---|---|---|---|")
    for name, wish in (
        ("default", Wish()),
        ("-q 8", Wish(levels=codec.config.levels)),
        ("--max-error 3", Wish(bound=3.0)),
        ("--min-ssim 0.97", Wish(demands=Demands(ssim=0.97))),
    ):
        print(cost_line(codec, planes[:: max(1, len(planes) // 8)], name, wish), flush=True)


def row_of(codec: Codec, plane: Plane, wish: Wish) -> Row:
    """Encode a slice, decode the file and measure."""
    content = codec.encode_scan(Scan(plane[None]), wish)
    return Row(len(content), codec.measure(plane, content))


def mean_bytes(rows: list[Row]) -> float:
    """Mean size of the files in bytes."""
    return float(np.mean([row.file_bytes for row in rows]))


def demand_line(demands: Demands, rows: list[Row], by_level: list[list[Row]]) -> str:
    """A row of the table: a demanded quality beside a fixed number of levels."""
    met = sum(demands.are_met(row.found) for row in rows)
    line = f"| {demands.words} | {met} of {len(rows)} | {mean_bytes(rows):,.0f} |"
    for levels, each in enumerate(by_level, start=1):
        held = sum(demands.are_met(row.found) for row in each)
        if held >= SHARE * len(each):
            fewer = 100 * (1 - mean_bytes(rows) / mean_bytes(each))
            return f"{line} {levels} | {mean_bytes(each):,.0f} | {fewer:.1f} % | {held} of {len(each)} |"
    return f"{line} none | | | |"


def cost_line(codec: Codec, planes: list[Plane], name: str, wish: Wish) -> str:
    """A row of the table: CPU time of encoding, and of measuring the result."""
    spent = [0.0, 0.0]
    for plane in planes:
        scan = Scan(plane[None])
        encoded = timed(spent, 0, lambda scan=scan: codec.encode_seen(scan, wish))
        timed(spent, 1, encoded.measure)
    encode, measure = (1000 * seconds / len(planes) for seconds in spent)
    return f"| {name} | {encode:.0f} | {measure:.0f} | {100 * measure / encode:.0f} % |"


def timed(spent: list[float], place: int, call: Callable[[], Made]) -> Made:
    """The result of a call, whose CPU time in seconds is added to `spent[place]`."""
    started = time.process_time()
    made = call()
    spent[place] += time.process_time() - started
    return made


if __name__ == "__main__":
    main()
