"""Damage real `.codes` files of every kind in every small way, and see that none is decoded.

python tests/trust/damage.py                    # files of drawn phantoms, by the bundled model
python tests/trust/damage.py scan.codes ...     # files of your own, of the bundled model

Of each file every single-bit flip, every truncation, every byte deleted, each of 256 bytes inserted
and every two neighbours swapped, at every place, or at 10,000 places of a larger file. Each must end in
a `CodesFileError` that names the file, within 1 s of computing and 100 MB. The same flips, and extreme
values of every field of the header, one by one and in pairs, and of the header of a volume's original,
are tried with the CRC made right: then a file may be decoded, all the way to its scan, if that is within
the bounds of its header, but nothing else than that error may come out of it either.
"""

import argparse
import json
import random
import resource
import struct
import sys
import time
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import combinations, product
from pathlib import Path
from typing import NamedTuple

import numpy as np

import oasisvq
from oasisvq.codec import container, fields
from oasisvq.codec.codec import Codec
from oasisvq.codec.codes import NO_INDEX, Codes
from oasisvq.codec.content import Content
from oasisvq.codec.headers import Coder, refuse_large_codes
from oasisvq.codec.wish import Wish
from oasisvq.errors import CodesFileError, ImageError
from oasisvq.scans.scan import Scan, as_scan

NAME = "damaged.codes"
LARGE = 10_000  # places tried of a file that has more
SECONDS, BYTES = 1.0, 100 * 2**20
NUMBERS = (0, 1, 2, 64, 65, 255, 256, 8_192, 65_534, 65_535, 65_536, 2**26, 2**28, 2**30, 2**32 - 1)
PAIRED = (0, 1, 65_535, 2**28)
FLOATS = (float("nan"), float("inf"), float("-inf"), 1.7e308, -1.7e308, 5e-324, -0.0)


class Counts(NamedTuple):
    """What became of so many tries.

    Attributes:
        tried: how many.
        decoded: of those with a right CRC, that were decoded within their bounds.
        missed: what came out of those that went wrong.
    """

    tried: int
    decoded: int
    missed: list[str]


# --- files of every kind ---------------------------------------------------------------------------


def phantom(side: int, seed: int) -> np.ndarray:
    """A drawn head (side, side) uint8 on black, with some texture."""
    rows, columns = (np.mgrid[0:side, 0:side] - side / 2) / (side / 2)
    noise = np.random.default_rng(seed).normal(0, 6, (side, side))
    head = np.hypot(rows, 1.2 * columns)
    grey = np.where(head < 0.9, 180, 0) - np.where(head < 0.75, 70, 0) + np.where(head < 0.3, 90, 0)
    return np.clip(grey + noise * (head < 0.9), 0, 255).astype(np.uint8)


def files_of_every_kind(codec: Codec, side: int = 64) -> dict[str, bytes]:
    """A small file of each kind, with every optional block."""
    plane, labels = phantom(side, 1), (phantom(side, 2) // 90).astype(np.uint8)
    volume = np.stack([phantom(side, seed) for seed in range(3)], axis=2).astype(np.float32) / 3
    maps = np.stack([(phantom(side, seed) // 90).astype(np.int16) - 1 for seed in range(3)], axis=2)
    spacing = (1.0, 1.25, 2.0)
    as_labels = Wish(content=Content.LABELS)
    files = {
        "packed image": codec.encode(plane, coder=Coder.PACKED),
        "packed volume": codec.encode(volume, coder=Coder.PACKED, spacing=spacing),
        "labels, image": codec.encode_scan(as_scan(labels), as_labels),
        "labels, volume": codec.encode_scan(as_scan(maps, spacing), as_labels),
        "lossy labels": codec.encode_scan(as_scan(labels), as_labels._replace(lossy=True)),
    }
    spiked, spikes = plane.astype(np.uint16), volume.copy()
    spiked[side // 2, side // 2], spikes[side // 2, side // 2, :2] = 60_000, (1e30, -9e3)
    files |= {
        "image with outliers": codec.encode(spiked),
        "volume with outliers": codec.encode(spikes, spacing=spacing),
    }
    if codec.prior is not None:
        files |= {
            "prior-coded image": codec.encode(plane.astype(np.uint16) * 3),
            "prior-coded volume": codec.encode(volume, spacing=spacing),
        }
    if codec.file.residue is not None:
        with_nan = np.where(volume > 0, volume, np.float32(np.nan))
        files |= {
            "image with a residue": codec.encode(plane, max_error=4),
            "volume with a residue": codec.encode(volume, spacing=spacing, max_error=2.5),
            "volume without loss": codec.encode(np.rint(volume), spacing=spacing, max_error=0),
            "volume with a ground": codec.encode(with_nan, spacing=spacing),
        }
    return files


# --- damage ----------------------------------------------------------------------------------------


def places_of(count: int, most: int, seed: int) -> list[int]:
    """All places 0..count-1, or a seeded choice of `most` of them."""
    if count <= most:
        return list(range(count))
    return sorted(random.Random(seed).sample(range(count), most))


def flips(content: bytes, most: int = LARGE) -> Iterator[bytes]:
    """One bit changed."""
    for place in places_of(8 * len(content), 8 * most, 1):
        changed = bytearray(content)
        changed[place // 8] ^= 1 << place % 8
        yield bytes(changed)


def truncations(content: bytes, most: int = LARGE) -> Iterator[bytes]:
    """The end missing."""
    for place in places_of(len(content), most, 2):
        yield content[:place]


def deletions(content: bytes, most: int = LARGE) -> Iterator[bytes]:
    """One byte missing."""
    for place in places_of(len(content), most, 3):
        yield content[:place] + content[place + 1 :]


def insertions(content: bytes, most: int = LARGE) -> Iterator[bytes]:
    """One byte more, each of 256."""
    for place in places_of(len(content) + 1, most, 4):
        for byte in range(256):
            yield content[:place] + bytes((byte,)) + content[place:]


def swaps(content: bytes, most: int = LARGE) -> Iterator[bytes]:
    """Two different neighbours changed round."""
    for place in places_of(len(content) - 1, most, 5):
        first, second = content[place : place + 1], content[place + 1 : place + 2]
        if first != second:
            yield content[:place] + second + first + content[place + 2 :]


WAYS: dict[str, Callable[[bytes, int], Iterator[bytes]]] = {
    "flips": flips,
    "truncations": truncations,
    "deletions": deletions,
    "insertions": insertions,
    "swaps": swaps,
}


# --- lies with a right CRC -------------------------------------------------------------------------


def with_right_crc(content: bytes) -> bytes:
    """The same with the checksum that fits."""
    return content[:-4] + struct.pack("<I", zlib.crc32(content[:-4]))


class Field(NamedTuple):
    """Bytes of the header that are read together."""

    start: int
    stop: int
    is_number: bool


class FieldFinder(fields.Reader):
    """A reader that remembers where each field lies."""

    def __init__(self, content: bytes) -> None:
        super().__init__(content, NAME)
        self.fields: list[Field] = []
        self._within = False

    def take(self, count: int) -> bytes:
        start = self.position
        taken = super().take(count)
        if count and not self._within:
            self.fields.append(Field(start, self.position, False))
        return taken

    def varint(self, field: str, low: int, high: int, longest: int = fields.VARINT_BYTES) -> int:
        start, self._within = self.position, True
        number = super().varint(field, low, high, longest)
        self._within = False
        self.fields.append(Field(start, self.position, True))
        return number


def fields_of(content: bytes) -> list[Field]:
    """Where the fields behind magic and version lie."""
    finder = FieldFinder(content)
    finder.position = 5
    container._read_header(finder)
    return finder.fields


def extremes_of(field: Field, content: bytes) -> Iterator[bytes]:
    """Other bytes for one field."""
    old = content[field.start : field.stop]
    if field.is_number:
        yield from map(fields.varint, NUMBERS)
        yield from (b"\x80" * 4 + b"\x00", b"\xff" * 5, b"\xff" * 9)
        return
    for place, byte in product(range(min(len(old), 64)), (0, 1, 127, 128, 255)):
        yield old[:place] + bytes((byte,)) + old[place + 1 :]
    for place, number in product(range(0, len(old) - 7, 8), FLOATS):
        yield old[:place] + struct.pack("<d", number) + old[place + 8 :]


def lies(content: bytes) -> Iterator[bytes]:
    """Every field at its extremes, one by one; then numbers in pairs."""
    found = fields_of(content)
    for field in found:
        for other in extremes_of(field, content):
            yield with_right_crc(content[: field.start] + other + content[field.stop :])
    numbers = [field for field in found if field.is_number][:14]
    for (one, two), (low, high) in product(combinations(numbers, 2), product(PAIRED, PAIRED)):
        first, second = fields.varint(low), fields.varint(high)
        parts = content[: one.start], first, content[one.stop : two.start], second, content[two.stop :]
        yield with_right_crc(b"".join(parts))


def geometry_lies(content: bytes) -> Iterator[bytes]:
    """Every number in the header of a volume's original at its extremes."""
    file = container.read(content, NAME)
    volume = file.header.volume
    if volume is None:
        return
    original = volume.geometry._header.structarr
    for name in original.dtype.names or ():
        kind = original[name].dtype
        if kind.kind not in "iuf":
            continue
        ends = (np.iinfo(kind).min, np.iinfo(kind).max, 0, 1, 2) if kind.kind != "f" else FLOATS
        for place, number in product(range(original[name].size), ends):
            other = original.copy()
            with np.errstate(over="ignore"):  # 1.7e308 in a float32
                other[name].reshape(-1)[place] = number
            changed = replace(file.header, volume=replace(volume, content=other.tobytes()))
            yield container.write(changed, file.payload, file.beside)


def flips_with_a_right_crc(content: bytes, most: int = LARGE) -> Iterator[bytes]:
    """One bit of the header or the payload changed, and the checksum with it."""
    for changed in flips(content[:-4], most):
        yield with_right_crc(changed + content[-4:])


# --- tries -----------------------------------------------------------------------------------------


def decode(codec: Codec, content: bytes) -> tuple[Codes, Scan]:
    """Bytes to codes and to what they show, as the commands do it."""
    file = container.read(content, NAME)
    refuse_large_codes(file.header, NAME)
    codes = codec.codes_of(file)
    return codes, codec.decode_codes(codes, NAME)


def fault_of(codes: Codes, scan: Scan) -> str | None:
    """What is out of the bounds of the header."""
    header, indices = codes.header, codes.indices
    if scan.planes.shape != (header.slices, *header.shape):
        return f"a scan of {scan.planes.shape}"
    is_nan = header.ground is not None and np.isnan(header.ground.value)
    is_number = ~np.isinf(scan.planes) if is_nan else np.isfinite(scan.planes)
    if scan.planes.dtype != header.sample_type.dtype or not is_number.all():
        return f"a scan of {scan.planes.dtype}, or of what is no number"
    if codes.label_map is not None:
        found = np.unique(codes.label_map)
        return None if set(found.tolist()) <= set(header.labels) else "labels that it does not name"
    coded = indices[header.coded_slices] if header.volume else indices
    if coded.size and coded.max() >= header.codebook_size:
        return "an index beyond the codebook"
    shape = (header.slices, *header.grid_shape) if header.volume else header.grid_shape
    left = np.delete(indices, header.coded_slices, axis=0) if header.volume else indices[:0]
    return None if indices.shape == shape and (left == NO_INDEX).all() else "another shape"


def try_all(codec: Codec, contents: Iterator[bytes], may_decode: bool) -> Counts:
    """Decode each; count what was refused, decoded and missed."""
    tried, decoded, missed = 0, 0, []
    for content in contents:
        tried += 1
        start, held, wrong, refused = time.process_time(), most_held(), None, True
        try:
            codes, scan = decode(codec, content)
            refused, decoded = False, decoded + 1
            wrong = fault_of(codes, scan) if may_decode else "decoded"
        except CodesFileError as error:
            if not str(error).startswith(f"{NAME}: ") or "\n" in str(error):
                wrong = f"a message that names no file: {error}"
        except ImageError as error:  # the limit on sizes
            wrong = None if "more than the limit" in str(error) else repr(error)
        except Exception as error:
            wrong = repr(error)
        seconds, grown = time.process_time() - start, most_held() - held
        if refused and (seconds > SECONDS or grown > BYTES):
            wrong = f"refused after {seconds:.1f} s and {grown / 2**20:.0f} MB"
        if wrong:
            missed.append(wrong)
    return Counts(tried, decoded, missed)


def most_held() -> int:
    """Most bytes of memory that this process has ever held."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else 1024 * most


def peak_of(codec: Codec, contents: Iterator[bytes]) -> int:
    """Most bytes that Python and NumPy held at once while so many were refused."""
    most = 0
    tracemalloc.start()
    for content in contents:
        tracemalloc.reset_peak()
        try:
            decode(codec, content)
        except (CodesFileError, ImageError):
            most = max(most, tracemalloc.get_traced_memory()[1])
    tracemalloc.stop()
    return most


def try_file(codec: Codec, content: bytes, most: int = LARGE) -> dict[str, Counts]:
    """Every way to damage a file, and to lie with a right CRC."""
    decode(codec, content)  # whole, it is decoded
    counts = {way: try_all(codec, damage(content, most), False) for way, damage in WAYS.items()}
    counts["flips, right CRC"] = try_all(codec, flips_with_a_right_crc(content, most), True)
    counts["lies, right CRC"] = try_all(codec, lies(content), True)
    counts["geometry, right CRC"] = try_all(codec, geometry_lies(content), True)
    return counts


def main() -> int:
    """Print a table; 1 if anything was missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", type=Path, nargs="*", help=".codes files of the bundled model")
    parser.add_argument("--places", type=int, default=LARGE, help="tried of a larger file")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    codec = oasisvq.load()
    files = {str(path): path.read_bytes() for path in given.files} or files_of_every_kind(codec)
    before = most_held()
    results = {name: try_file(codec, content, given.places) for name, content in files.items()}
    grown = most_held() - before
    if given.json:
        found = {name: {way: c._asdict() for way, c in each.items()} for name, each in results.items()}
        print(json.dumps({"files": found, "grown_bytes": grown}, indent=1))
    else:
        for name, each in results.items():
            print(f"{name}, {len(files[name]):,} bytes")
            for way, counts in each.items():
                print(
                    f"  {way:20} {counts.tried:>9,} tried  {counts.decoded:>7,} decoded"
                    f"  {len(counts.missed):>3} missed  {'; '.join(counts.missed[:3])}"
                )
        tried = sum(counts.tried for each in results.values() for counts in each.values())
        print(f"{tried:,} tried; memory grew by {grown / 2**20:.0f} MB at most")
    return any(counts.missed for each in results.values() for counts in each.values())


if __name__ == "__main__":
    sys.exit(main())
