"""How much of the contrast of small spots is kept: drawn into slices, encoded, decoded.

python examples/benchmarks/spots.py SLICES --labels LABELS --every 80

Spots are Gaussians with deviations of 1, 2 and 4 pixels, 60 grey levels brighter or darker than the
tissue that they are drawn into. This is grey or white matter, the two highest labels in the label map of
the slice. A slice gets four spots of one size, far from each other. What is kept of a spot is the
decoded difference between the slices with and without spots, projected on the difference before
encoding. Beside each of our settings is AVIF (Pillow) at the same size, interpolated between the nearest
two of its qualities.
"""

import argparse
import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, features

import oasisvq
from oasisvq.codec.codec import Codec
from oasisvq.codec.content import Content
from oasisvq.codec.wish import Wish
from oasisvq.scans.scan import Scan

Plane = NDArray[np.uint8]
DEVIATIONS = (1, 2, 4)  # pixels
HEIGHT = 60  # grey levels
APART = 28  # least distance of two spots in pixels
KINDS = tuple((tissue, sign) for tissue in ("white", "grey") for sign in (1, -1))
AVIF_QUALITIES = (5, 10, 15, 20, 25, 30, 35, 40, 45, 50, 55, 60, 65, 70, 75, 80, 85, 90, 95)


class Spotted(NamedTuple):
    """A slice without and with spots.

    Attributes:
        plane: without spots.
        spots: by deviation, the slice with one spot of each kind.
        places: by kind, the row and column of the spot's centre.
    """

    plane: Plane
    spots: dict[int, Plane]
    places: dict[tuple[str, int], tuple[int, int]]


def number_of(path: Path) -> list[int]:
    """The numbers in a file's name: slice 10 comes after slice 2."""
    return [int(number) for number in re.findall(r"\d+", path.name)]


def spotted(plane: Plane, labels: Plane, rng: np.random.Generator) -> Spotted | None:
    """Draw a spot of each kind at random places; None if there is no room for all."""
    grey, white = np.unique(labels)[-2:]
    places: dict[tuple[str, int], tuple[int, int]] = {}
    for tissue, sign in KINDS:
        rows, columns = np.nonzero(labels == (white if tissue == "white" else grey))
        away = [np.hypot(rows - row, columns - column) for row, column in places.values()]
        chosen = np.flatnonzero(np.min([np.full(len(rows), np.inf), *away], axis=0) >= APART)
        if not len(chosen):
            return None
        place = rng.choice(chosen)
        places[tissue, sign] = int(rows[place]), int(columns[place])
    spots = {}
    for deviation in DEVIATIONS:
        drawn = plane.astype(np.float64)
        for (_, sign), (row, column) in places.items():
            drawn += sign * HEIGHT * profile(plane.shape, row, column, deviation)
        kept = np.clip(np.rint(drawn), 1, 255)
        spots[deviation] = np.where(plane > 0, kept, 0).astype(np.uint8)
    return Spotted(plane, spots, places)


def profile(shape: tuple[int, ...], row: int, column: int, deviation: int) -> NDArray[np.float64]:
    """A Gaussian spot of height 1, cut off at three deviations."""
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    squares = ((rows - row) ** 2 + (columns - column) ** 2) / deviation**2
    spot: NDArray[np.float64] = np.exp(-squares / 2) * (squares <= 9)
    return spot


class Kept(NamedTuple):
    """The results at one setting.

    Attributes:
        bytes: mean size of the slices with spots.
        contrast: (deviations, kinds) shares of the contrast that are kept, medians over slices.
    """

    bytes: float
    contrast: NDArray[np.float64]


def kept_by(
    slices: list[Spotted], encode: Callable[[Plane], bytes], decode: Callable[[bytes], Plane]
) -> Kept:
    """Encode and decode all slices, with and without spots, and measure."""
    sizes, shares = [], np.zeros((len(slices), len(DEVIATIONS), len(KINDS)))
    for number, each in enumerate(slices):
        plain = decode(encode(each.plane)).astype(np.float64)
        for size, deviation in enumerate(DEVIATIONS):
            content = encode(each.spots[deviation])
            sizes.append(len(content))
            found = decode(content).astype(np.float64) - plain
            drawn = each.spots[deviation].astype(np.float64) - each.plane
            for kind, place in enumerate(KINDS):
                spot = profile(drawn.shape, *each.places[place], deviation) > 0
                shares[number, size, kind] = (found * drawn)[spot].sum() / (drawn[spot] ** 2).sum()
    return Kept(float(np.mean(sizes)), np.median(shares, axis=0))


def avif(quality: int) -> Callable[[Plane], bytes]:
    """An encoder of AVIF files of a quality."""

    def encode(plane: Plane) -> bytes:
        content = io.BytesIO()
        Image.fromarray(plane).save(content, "AVIF", quality=quality, speed=2, subsampling="4:0:0")
        return content.getvalue()

    return encode


def opened(content: bytes) -> Plane:
    """The pixels of an image file."""
    return np.asarray(Image.open(io.BytesIO(content)).convert("L"))


def at_bytes(size: float, curve: list[Kept]) -> NDArray[np.float64] | None:
    """Shares kept at a size in bytes, interpolated between points of a curve; None outside the curve."""
    sizes = np.array([each.bytes for each in curve])
    if not sizes.min() <= size <= sizes.max():
        return None
    after = int(np.clip(np.searchsorted(sizes, size), 1, len(curve) - 1))
    share = np.log(size / sizes[after - 1]) / np.log(sizes[after] / sizes[after - 1])
    contrast: NDArray[np.float64] = (1 - share) * curve[after - 1].contrast
    return contrast + share * curve[after].contrast


def row(name: str, size: float, contrast: NDArray[np.float64] | None) -> None:
    """Print one row of the table."""
    cells = ["–"] * (len(DEVIATIONS) * len(KINDS))
    if contrast is not None:
        cells = [f"{100 * share:.0f}" for share in contrast.reshape(-1)]
    print(f"| {name} | {size:,.0f} | " + " | ".join(cells) + " |", flush=True)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("slices", type=Path)
    parser.add_argument("--labels", type=Path, required=True)
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--bounds", type=int, nargs="*", default=[9, 4, 2, 1, 0])
    parser.add_argument("--model", type=Path)
    arguments = parser.parse_args()
    codec = Codec.load(arguments.model) if arguments.model else oasisvq.load()
    rng = np.random.default_rng(0)
    paths = sorted(arguments.slices.glob("*.png"), key=number_of)[:: arguments.every]
    labels = {tuple(number_of(path)): path for path in arguments.labels.glob("*.png")}
    slices = []
    for path in paths:
        plane, map_ = (
            np.asarray(Image.open(each).convert("L")) for each in (path, labels[tuple(number_of(path))])
        )
        drawn = spotted(plane, map_, rng)
        if drawn is not None:
            slices.append(drawn)
    print(f"model {codec.fingerprint.hex()[:8]}, {len(slices)} slices; per cent of the contrast kept")
    named = [
        f"σ {deviation} {'bright' if sign > 0 else 'dark'} in {tissue}"
        for deviation in DEVIATIONS
        for tissue, sign in KINDS
    ]
    print("| | bytes | " + " | ".join(named) + " |")
    print("|---" * (2 + len(named)) + "|")
    curve: list[Kept] = []
    if features.check("avif"):
        curve = [kept_by(slices, avif(quality), opened) for quality in AVIF_QUALITIES]
    else:
        print("this Pillow has no AVIF")
    wishes = {
        f"-q {levels}": Wish(levels, content=Content.SCAN)
        for levels in range(1, codec.config.levels + 1)
    }
    wishes |= {f"bound {bound}": Wish(content=Content.SCAN, bound=bound) for bound in arguments.bounds}
    for name, wish in wishes.items():

        def encode(plane: Plane, wish: Wish = wish) -> bytes:
            return codec.encode_scan(Scan(plane[None]), wish)

        ours = kept_by(slices, encode, codec.decode)
        row(name, ours.bytes, ours.contrast)
        if curve:
            row(f"AVIF beside {name}", ours.bytes, at_bytes(ours.bytes, curve))


if __name__ == "__main__":
    main()
