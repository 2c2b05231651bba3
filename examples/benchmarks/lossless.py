"""Files with a bound, and without loss, beside those of other codecs with bounds: bytes a slice.

python examples/benchmarks/lossless.py --slices FOLDER --every 40 --volumes a.nii.gz b.nii.gz

Slices are 8-bit images: JPEG-LS and JPEG XL (imagecodecs), and AVIF (Pillow) at equal PSNR. Volumes are
of whole numbers: JPEG XL of their slices, SZ3, SPERR and zfp (imagecodecs), and .nii.gz. What is not
installed is said and left out.
"""

import argparse
import io
import re
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, features

import oasisvq
from oasisvq.codec import container
from oasisvq.codec.codec import Codec
from oasisvq.codec.content import Content
from oasisvq.codec.wish import Wish
from oasisvq.scans.scan import Scan, read_scan
from oasisvq.scans.source import source_at

Plane = NDArray[Any]
BOUNDS = (0, 1, 2, 3, 4)  # of slices
SHARES = (0.002, 0.01, 0.05)  # of a volume's 99.9 % quantile: bounds of volumes
AVIF_QUALITIES = (60, 65, 70, 75, 80, 85, 90)
LARGEST = 255.0


class Row(NamedTuple):
    """Means over slices or volumes."""

    bytes: float
    psnr: float
    error: float  # the largest
    encoding: float = 0.0  # seconds a slice
    decoding: float = 0.0


def imagecodecs() -> ModuleType | None:
    """The module, or None where it is not installed."""
    try:
        import imagecodecs as module
    except ImportError:
        print("imagecodecs is not installed: no JPEG-LS, JPEG XL, SZ3, SPERR and zfp")
        return None
    return module


def number_of(path: Path) -> list[int]:
    """The numbers in a file's name: slice 10 comes after slice 2."""
    return [int(number) for number in re.findall(r"\d+", path.name)]


def measured(
    arrays: list[Plane], encode: Callable[[Plane], bytes], decode: Callable[[bytes], Any], largest: float
) -> Row:
    """Encode and decode each array."""
    rows = []
    for array in arrays:
        began = time.process_time()
        content = encode(array)
        encoded = time.process_time()
        restored = np.asarray(decode(content)).reshape(array.shape).astype(np.float64)
        decoded = time.process_time()
        away = np.abs(restored - array.astype(np.float64))
        psnr = 10 * np.log10(largest**2 / max(float((away**2).mean()), 1e-9))
        slices = len(array) if array.ndim == 3 else 1
        seconds = (encoded - began) / slices, (decoded - encoded) / slices
        rows.append(Row(len(content) / slices, psnr, float(away.max()), *seconds))
    means = np.mean([(row.bytes, row.psnr, row.encoding, row.decoding) for row in rows], axis=0)
    size, psnr, encoding, decoding = (float(mean) for mean in means)
    return Row(size, psnr, max(row.error for row in rows), encoding, decoding)


def printed(name: str, bound: float, row: Row) -> None:
    """One line of a table."""
    quality = "lossless" if row.error == 0 else f"{row.psnr:.2f} dB"
    print(
        f"{name:<22} {bound:7g} {row.bytes:9,.0f} {quality:>10} {row.error:9.4g} "
        f"{row.encoding:8.2f} {row.decoding:8.2f}",
        flush=True,
    )


def head(what: str) -> None:
    """The head of a table."""
    print(f"\n{what}\n{'':<22}   bound   bytes/slice  PSNR  largest error  encode s  decode s a slice")


def of_slices(codec: Codec, planes: list[Plane], levels: list[int]) -> None:
    """The table of slices."""
    head(f"{len(planes)} slices")
    peers = imagecodecs()
    ours: dict[int, Row] = {}
    for bound in BOUNDS:
        for count in levels:

            def encode(plane: Plane, bound: int = bound, count: int = count) -> bytes:
                wish = Wish(count, content=Content.SCAN, bound=bound)
                return codec.encode_scan(Scan(plane[None]), wish)

            row = measured(planes, encode, codec.decode, LARGEST)
            printed(f"oasisvq -q {count}", bound, row)
            if bound not in ours or row.bytes < ours[bound].bytes:
                ours[bound] = row
        if peers is not None:
            row = measured(
                planes,
                lambda plane, bound=bound: peers.jpegls_encode(plane, level=bound),
                peers.jpegls_decode,
                LARGEST,
            )
            printed("JPEG-LS", bound, row)
            print(f"{'':<22} ours is {ours[bound].bytes / row.bytes:.3f} of it")
    if peers is not None:
        best = [
            min(len(peers.jpegxl_encode(plane, lossless=True, effort=effort)) for effort in (7, 9))
            for plane in planes
        ]
        size = float(np.mean(best))
        print(f"JPEG XL, best of efforts 7 and 9: {size:,.0f}; ours is {ours[0].bytes / size:.3f} of it")
    if not features.check("avif"):
        print("this Pillow has no AVIF")
        return
    curve = [measured(planes, avif(quality), opened, LARGEST) for quality in AVIF_QUALITIES]
    for quality, row in zip(AVIF_QUALITIES, curve, strict=True):
        printed(f"AVIF quality {quality}", float("nan"), row)
    for bound, row in ours.items():
        if row.error and curve[0].psnr <= row.psnr <= curve[-1].psnr:
            size = at_psnr(row.psnr, curve)
            print(f"bound {bound}: {row.bytes:,.0f} bytes at {row.psnr:.2f} dB, AVIF {size:,.0f}")
    psnr = curve[AVIF_QUALITIES.index(75)].psnr
    size = at_psnr(psnr, [row for row in ours.values() if row.error])
    print(f"at {psnr:.2f} dB: ours {size:,.0f}, AVIF quality 75 {at_psnr(psnr, curve):,.0f}")


def avif(quality: int) -> Callable[[Plane], bytes]:
    """What writes AVIF files of a quality."""

    def encode(plane: Plane) -> bytes:
        content = io.BytesIO()
        Image.fromarray(plane).save(content, "AVIF", quality=quality, speed=2, subsampling="4:0:0")
        return content.getvalue()

    return encode


def opened(content: bytes) -> Plane:
    """The pixels of an image file."""
    return np.asarray(Image.open(io.BytesIO(content)).convert("L"))


def at_psnr(psnr: float, rows: list[Row]) -> float:
    """Bytes at a PSNR, between the nearest points of a curve."""
    ordered = sorted(rows, key=lambda row: row.psnr)
    sizes = np.log([row.bytes for row in ordered])
    return float(np.exp(np.interp(psnr, [row.psnr for row in ordered], sizes)))


def of_volumes(codec: Codec, paths: list[Path], levels: list[int]) -> None:
    """The tables of volumes, and the ratios over all of them."""
    peers = imagecodecs()
    ratios: dict[str, list[float]] = {}
    for path in paths:
        scan = read_scan(source_at(path))
        planes = scan.planes
        largest = float(np.quantile(planes, 0.999))
        head(f"{path.name}: {planes.dtype} {planes.shape}, 99.9 % below {largest:g}")
        for share in (0.0, *SHARES):
            bound = max(1, int(largest * share)) if share else 0
            ours = [of_volume(codec, scan, bound, count, largest) for count in levels]
            for count, row in zip(levels, ours, strict=True):
                printed(f"oasisvq -q {count}", bound, row)
            smallest = min(row.bytes for row in ours)
            theirs = others(peers, path, planes, bound, largest)
            for name, row in theirs.items():
                printed(name, bound, row)
                ratios.setdefault(f"bound {share:.1%}: {name}", []).append(smallest / row.bytes)
            if theirs:
                best = smallest / min(row.bytes for row in theirs.values())
                ratios.setdefault(f"bound {share:.1%}: best of them", []).append(best)
    print("\nours, in shares of each, means over volumes")
    for name, each in ratios.items():
        print(f"{name:<36} {np.mean(each):.3f}")


def of_volume(codec: Codec, scan: Scan, bound: int, levels: int, largest: float) -> Row:
    """Ours."""

    def encode(planes: Plane) -> bytes:
        return codec.encode_scan(scan, Wish(levels, content=Content.SCAN, bound=bound))

    def decode(content: bytes) -> Plane:
        return codec.decode_codes(codec.codes_of(container.read(content, "volume")), "volume").planes

    return measured([scan.planes], encode, decode, largest)


def others(
    peers: ModuleType | None, path: Path, planes: Plane, bound: int, largest: float
) -> dict[str, Row]:
    """Theirs, at the same bound."""
    rows = {}
    if path.name.endswith(".gz") and not bound:
        rows[".nii.gz"] = Row(path.stat().st_size / len(planes), np.inf, 0)
    if peers is None:
        return rows
    if not bound:
        grey = planes - planes.min()
        if grey.max() < 2**16:
            slices = [np.ascontiguousarray(plane).astype(np.uint16) for plane in grey]
            each = [len(peers.jpegxl_encode(plane, lossless=True, effort=7)) for plane in slices]
            rows["JPEG XL, effort 7"] = Row(float(np.mean(each)), np.inf, 0)
        return rows
    floats = np.ascontiguousarray(planes, dtype=np.float32)
    shape = {"shape": floats.shape, "dtype": floats.dtype}
    for name, encode, decode in (
        ("SZ3", lambda each: peers.sz3_encode(each, mode="abs", abs=bound), peers.sz3_decode),
        ("SPERR", lambda each: peers.sperr_encode(each, level=bound, mode="pwe"), peers.sperr_decode),
        ("zfp", lambda each: peers.zfp_encode(each, level=bound, mode="accuracy"), peers.zfp_decode),
    ):

        def restored(content: bytes, decode: Callable[..., Any] = decode) -> Plane:
            planes: Plane
            try:
                planes = decode(content)
            except TypeError:  # zfp's files say their shape, those of the others do not
                planes = decode(content, **shape)
            return planes

        rows[name] = measured([floats], encode, restored, largest)
    return rows


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slices", type=Path, help="folder of 8-bit images")
    parser.add_argument("--every", type=int, default=1, help="take every so many of them")
    parser.add_argument("--volumes", type=Path, nargs="*", default=[])
    parser.add_argument("-q", "--quality", type=int, nargs="*", help="levels, for each a row")
    parser.add_argument("--model", type=Path)
    arguments = parser.parse_args()
    codec = Codec.load(arguments.model) if arguments.model else oasisvq.load()
    levels = arguments.quality or [codec.check_levels(None)]
    print(f"model {codec.fingerprint.hex()[:8]}")
    if arguments.slices:
        paths = sorted(arguments.slices.glob("*.png"), key=number_of)[:: arguments.every]
        of_slices(codec, [np.asarray(Image.open(path).convert("L")) for path in paths], levels)
    if arguments.volumes:
        of_volumes(codec, arguments.volumes, levels)


if __name__ == "__main__":
    main()
