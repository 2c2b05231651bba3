"""Our codec within bounds, and without loss, beside other codecs with the same guarantee.

Shapes: S slices, H×W slice.
"""

import math
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from oasisvq.codec import container
from oasisvq.codec.codec import Codec
from oasisvq.codec.content import Content
from oasisvq.codec.measure import Scale, psnr, scale_of
from oasisvq.codec.wish import Wish
from oasisvq.data.dataset import Dataset
from oasisvq.errors import ImageError
from oasisvq.evaluation.bounded import PEERS, require_bounded
from oasisvq.scans.limits import DEFAULT_MAX_PIXELS
from oasisvq.scans.scan import Scan, read_scan
from oasisvq.scans.source import Source

DATA_RANGE = 255.0


class BoundPoint(NamedTuple):
    """One codec at one bound, means over scans.

    Attributes:
        codec: "oasisvq" or a peer.
        bound: that was asked for.
        file_bytes: of a scan.
        psnr: in dB.
        largest_error: of any voxel.
        encode_seconds: of a scan; ours include the check of every voxel.
        decode_seconds: of a scan.
    """

    codec: str
    bound: float
    file_bytes: float
    psnr: float
    largest_error: float
    encode_seconds: float
    decode_seconds: float


class BoundComparison(NamedTuple):
    """Ours and theirs at the same bounds.

    Attributes:
        name: of a split, or of a scan's file.
        scans: how many were measured.
        data_range: that PSNR refers to.
        fingerprint: of the model.
        points: bound by bound, ours first.
        ratios: by bound, our bytes divided by those of each peer.
        left_out: by bound, why a peer is missing.
    """

    name: str
    scans: int
    data_range: float
    fingerprint: str
    points: list[BoundPoint]
    ratios: dict[str, dict[str, float]]
    left_out: dict[str, dict[str, str]]

    def as_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return self._asdict() | {"points": [point._asdict() for point in self.points]}


def bound_of(words: str, scale: Scale, is_whole: bool) -> float:
    """What `--max-error` asks for: a number, or a share such as `1%` of a scale's range.

    For whole numbers, a share of the range is rounded down to a whole number of at least 1.

    Raises:
        ImageError: it is neither, is below 0, or is not a whole number for whole numbers.
    """
    try:
        bound = float(words.removesuffix("%"))
    except ValueError:
        bound = math.nan
    if not 0 <= bound < math.inf:
        raise ImageError(f"--max-error {words}, expected a number from 0 on, or such as 1%")
    if words.endswith("%"):
        share = bound / 100 * scale.range
        return max(1.0, math.floor(share)) if is_whole and share else share
    if is_whole and bound != int(bound):
        raise ImageError(f"--max-error {words}, but the values are whole numbers; give a whole number")
    return bound


def bounds_on_split(
    codec: Codec,
    dataset: Dataset,
    split: str,
    names: list[str],
    bounds: list[str],
    every: int = 1,
    levels: int | None = None,
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> BoundComparison:
    """Measure every `every`-th slice of a split within each bound.

    Raises:
        DatasetError: there is no such split.
        ImageError: see `bound_of`.
        ModelError: see `require_bounded`; or the model has no network for residues.
    """
    scans = [Scan(np.asarray(plane)[None]) for plane in dataset.array(split)[::every]]
    asked = [bound_of(each, Scale(0.0, DATA_RANGE), is_whole=True) for each in bounds]
    chosen = require_bounded(names, is_volume=False)
    return _compare(codec, split, scans, DATA_RANGE, chosen, asked, levels, advance)


def bounds_on_scan(
    codec: Codec,
    source: Source,
    names: list[str],
    bounds: list[str],
    levels: int | None = None,
    advance: Callable[[int, int], None] = lambda done, total: None,
    max_pixels: int = DEFAULT_MAX_PIXELS,
) -> BoundComparison:
    """Measure an image or a volume within each bound.

    Raises:
        FileError, ImageError: the scan cannot be read or encoded; see also `bound_of`.
        ModelError: see `require_bounded`; or the model has no network for residues.
    """
    scan = read_scan(source, None, max_pixels)
    scale = scale_of(scan)
    asked = [bound_of(each, scale, scan.planes.dtype.kind in "iu") for each in bounds]
    chosen = require_bounded(names, is_volume=scan.placement is not None)
    return _compare(codec, source.path.name, [scan], scale.range, chosen, asked, levels, advance)


def _compare(
    codec: Codec,
    name: str,
    scans: list[Scan],
    data_range: float,
    names: list[str],
    bounds: list[float],
    levels: int | None,
    advance: Callable[[int, int], None],
) -> BoundComparison:
    points: list[BoundPoint] = []
    ratios: dict[str, dict[str, float]] = {}
    left_out: dict[str, dict[str, str]] = {}
    bounds = list(dict.fromkeys(bounds))
    steps, done = len(bounds) * (1 + len(names)), 0
    for bound in bounds:
        wish, key = Wish(levels, content=Content.SCAN, bound=bound), f"{bound:g}"
        ours = _mean("oasisvq", bound, (_ours(codec, scan, wish, data_range) for scan in scans))
        points.append(ours)
        advance(done := done + 1, steps)
        for peer in names:
            refusal = next(filter(None, (PEERS[peer].coder.refuses(s.planes, bound) for s in scans)), "")
            if refusal:
                left_out.setdefault(key, {})[peer] = refusal
            else:
                theirs = (_theirs(peer, scan.planes, bound, data_range) for scan in scans)
                points.append(_mean(peer, bound, theirs))
                ratios.setdefault(key, {})[peer] = ours.file_bytes / points[-1].file_bytes
            advance(done := done + 1, steps)
    fingerprint = codec.fingerprint.hex()
    return BoundComparison(name, len(scans), data_range, fingerprint, points, ratios, left_out)


class _Measured(NamedTuple):
    """Results for one scan, in the order of `BoundPoint`."""

    file_bytes: float
    psnr: float
    largest_error: float
    encode_seconds: float
    decode_seconds: float


def _ours(codec: Codec, scan: Scan, wish: Wish, data_range: float) -> _Measured:
    began = time.perf_counter()
    content = codec.encode_scan(scan, wish)
    encoded = time.perf_counter()
    restored = codec.decode_codes(codec.codes_of(container.read(content, "scan")), "scan").planes
    times = encoded - began, time.perf_counter() - encoded
    return _measured(scan.planes, restored, len(content), data_range, times)


def _theirs(peer: str, planes: NDArray[np.generic], bound: float, data_range: float) -> _Measured:
    coder = PEERS[peer].coder
    began = time.perf_counter()
    files = coder.encode(planes, bound)
    encoded = time.perf_counter()
    restored = coder.decode(files, planes)
    times = encoded - began, time.perf_counter() - encoded
    return _measured(planes, restored, sum(map(len, files)), data_range, times)


def _measured(
    planes: NDArray[np.generic],
    restored: NDArray[np.generic],
    size: int,
    data_range: float,
    times: tuple[float, float],
) -> _Measured:
    first, second = (np.nan_to_num(each.astype(np.float64)) for each in (planes, restored))
    largest = float(np.abs(first - second).max())
    return _Measured(size, psnr(first, second, data_range), largest, *times)


def _mean(codec: str, bound: float, each: Iterable[_Measured]) -> BoundPoint:
    rows = list(each)
    size, psnr_db, _, encoding, decoding = np.mean(rows, axis=0).tolist()
    largest = max(row.largest_error for row in rows)
    return BoundPoint(codec, bound, size, psnr_db, largest, encoding, decoding)
