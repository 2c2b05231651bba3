"""The classic image codecs on the same slices: rate-distortion curves and BD-rates.

Each peer is used as its own users would use it for small grey images, at its slowest sensible setting.
"""

import io
import json
import math
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, features

from oasisvq.codec.codec import Codec
from oasisvq.codec.content import Content
from oasisvq.codec.measure import similarity
from oasisvq.data.dataset import Dataset
from oasisvq.errors import DatasetError, ModelError
from oasisvq.evaluation.avif import data_bytes
from oasisvq.evaluation.rates import bd_rate, point_as_dict
from oasisvq.files import read_bytes

DATA_RANGE = 255.0
MAX_COMPARISON_BYTES = 2**24
AVIF_DATA = "avif-data"  # the curve of AVIF without the container's headers
MEASURES = ("ssim", "foreground_ssim", "psnr")


class Peer(NamedTuple):
    """A classic codec.

    Attributes:
        image_format: what Pillow calls it.
        settings: of `Image.save`, smallest file first.
        says: the settings in words.
        needs: what to install if Pillow lacks it.
    """

    image_format: str
    settings: list[dict[str, Any]]
    says: str
    needs: str


PEERS = {
    "avif": Peer(
        "AVIF",
        [{"quality": q, "speed": 2, "subsampling": "4:0:0"} for q in (10, 20, 30, 42, 54, 64)],
        "speed 2, 4:0:0",
        "a Pillow with AVIF (11.3 or newer)",
    ),
    "jpegxl": Peer(
        "JXL",
        [{"quality": q, "effort": 9} for q in (10, 30, 50, 70, 85)],
        "effort 9",
        "pip install pillow-jxl-plugin",
    ),
    "webp": Peer(
        "WEBP",
        [{"quality": q, "method": 6} for q in (0, 5, 20, 50, 80)],
        "method 6",
        "a Pillow with WebP",
    ),
    "jpeg2000": Peer(
        "JPEG2000",
        [
            {"quality_mode": "rates", "quality_layers": [rate], "irreversible": True}
            for rate in (100, 60, 40, 25, 16)
        ],
        "9/7 wavelet",
        "a Pillow with JPEG 2000",
    ),
    "jpeg": Peer(
        "JPEG",
        [{"quality": q, "optimize": True} for q in (3, 10, 20, 40, 60)],
        "optimised tables",
        "a Pillow with JPEG",
    ),
}


def in_words(name: str) -> str:
    """The settings of a curve in words."""
    return "the same without the container's headers" if name == AVIF_DATA else PEERS[name].says


class RatePoint(NamedTuple):
    """One codec at one setting, means over slices."""

    setting: str
    file_bytes: float
    ssim: float
    foreground_ssim: float
    psnr: float
    encode_seconds: float
    decode_seconds: float
    worst_ssim: float


class BDRate(NamedTuple):
    """Mean difference of bytes at equal quality, in per cent; negative if ours are smaller.

    None if the curves share no range of quality.
    """

    ssim: float | None
    foreground_ssim: float | None
    psnr: float | None


class Comparison(NamedTuple):
    """Ours and theirs on the same slices."""

    split: str
    slices: int
    every: int
    data_sha256: str  # of the split
    fingerprint: str
    curves: dict[str, list[RatePoint]]  # "oasisvq", each peer, and `AVIF_DATA` beside AVIF
    bd_rates: dict[str, BDRate]

    def as_dict(self) -> dict[str, Any]:
        """As JSON holds it, with None for NaN; `read_comparison` is the inverse."""
        curves = {name: list(map(point_as_dict, each)) for name, each in self.curves.items()}
        rates = {name: rate._asdict() for name, rate in self.bd_rates.items()}
        return self._asdict() | {"curves": curves, "bd_rates": rates}


def read_comparison(path: Path) -> Comparison:
    """Read what `score --against ... --json` printed, to reuse the curves of the classic codecs.

    Raises:
        FileError: the file is missing or unreadable.
        DatasetError: it holds something else.
    """
    try:
        fields = json.loads(read_bytes(path, MAX_COMPARISON_BYTES))
        curves = {
            name: [_rate_point(point) for point in points] for name, points in fields["curves"].items()
        }
        if not all(curves.values()):
            raise ValueError("a curve of no points")
        rates = {name: BDRate(**rate) for name, rate in fields["bd_rates"].items()}
        return Comparison(**(fields | {"curves": curves, "bd_rates": rates}))
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        raise DatasetError(
            f"{path}: not what `oasisvq score --against ... --json` prints ({error})"
        ) from error


def _rate_point(fields: dict[str, Any]) -> RatePoint:
    setting, *numbers = RatePoint(**fields)
    if type(setting) is not str or any(type(each) not in (int, float, type(None)) for each in numbers):
        raise ValueError("a point of other types")
    point = RatePoint(setting, *(math.nan if each is None else float(each) for each in numbers))
    known = point._replace(foreground_ssim=0.0) if math.isnan(point.foreground_ssim) else point
    if not all(map(math.isfinite, known[1:])) or point.file_bytes <= 0:
        raise ValueError("a point of numbers out of range")
    return point


def require_peers(names: Iterable[str]) -> list[str]:
    """The peers of these names.

    Raises:
        ModelError: a name is unknown, or this Pillow lacks the codec.
    """
    chosen = list(dict.fromkeys(names))
    for name in chosen:
        if name not in PEERS:
            raise ModelError(f"no codec '{name}' to compare with, expected {', '.join(PEERS)}")
        if not _is_available(name):
            raise ModelError(f"{name}: this Pillow cannot write it; install {PEERS[name].needs}")
    return chosen


def _is_available(name: str) -> bool:
    if name == "jpegxl":
        try:
            import pillow_jxl  # noqa: F401 - registers itself with Pillow
        except ImportError:
            return False
        return True
    feature = {"avif": "avif", "webp": "webp", "jpeg2000": "jpg_2000", "jpeg": "jpg"}[name]
    return bool(features.check(feature))


class _Curve:
    """Gathers the results of one codec at one setting."""

    def __init__(self, setting: str) -> None:
        self.setting = setting
        self.rows: list[tuple[float, ...]] = []

    def add(
        self,
        plane: NDArray[np.uint8],
        encode: Callable[[NDArray[np.uint8]], bytes],
        decode: Callable[[bytes], NDArray[np.generic]],
    ) -> bytes:
        """Measure one slice; returns its file."""
        began = time.perf_counter()
        content = encode(plane)
        encoded = time.perf_counter()
        restored = decode(content)
        decoded = time.perf_counter()
        scores = similarity(plane, restored, DATA_RANGE)
        self.rows.append(
            (
                len(content),
                scores.ssim,
                scores.foreground_ssim,
                scores.psnr,
                encoded - began,
                decoded - encoded,
            )
        )
        return content

    def add_resized(self, other: "_Curve", size: int) -> None:
        """Add the last slice of another curve, with another size."""
        self.rows.append((size, *other.rows[-1][1:]))

    def point(self) -> RatePoint:
        rows = np.array(self.rows)
        means = [float(np.mean(known)) if len(known := c[~np.isnan(c)]) else math.nan for c in rows.T]
        size, ssim, foreground_ssim, psnr, encoding, decoding = means
        worst = float(rows[:, 1].min())
        return RatePoint(self.setting, size, ssim, foreground_ssim, psnr, encoding, decoding, worst)


def compare(
    codec: Codec,
    dataset: Dataset,
    split: str,
    names: list[str],
    every: int = 1,
    known: Comparison | None = None,
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> Comparison:
    """Measure our codec at every quality, and the named peers, on every `every`-th slice of a split.

    Curves of peers that `known` holds are taken from it, since they do not depend on the model.

    Raises:
        DatasetError: there is no such split, or `known` was measured on other slices.
        ModelError: a peer is unknown, or this Pillow lacks it.
    """
    wanted = {*names, AVIF_DATA} if "avif" in names else set(names)
    planes = dataset.array(split)[::every]
    sha256 = dataset.splits[split].sha256
    taken: dict[str, list[RatePoint]] = {}
    if known is not None:
        if (known.split, known.every, known.data_sha256) != (split, every, sha256):
            raise DatasetError(
                f"the earlier comparison took one slice in {known.every} of {known.split}, this one "
                f"takes one in {every} of {split}, or other data; leave out --reuse"
            )
        taken = {name: curve for name, curve in known.curves.items() if name in wanted}
    chosen = require_peers(name for name in names if name not in taken)
    ours = {levels: _Curve(f"-q {levels}") for levels in range(1, codec.config.levels + 1)}
    theirs = {name: [_Curve(_words(each)) for each in PEERS[name].settings] for name in chosen}
    bare = [_Curve(_words(each)) for each in PEERS["avif"].settings] if "avif" in chosen else []
    for done, memory_mapped in enumerate(planes, start=1):
        plane = np.asarray(memory_mapped)
        for levels, curve in ours.items():
            curve.add(plane, partial(codec.encode, levels=levels, content=Content.SCAN), codec.decode)
        for name in chosen:
            peer = PEERS[name]
            for place, (settings, curve) in enumerate(zip(peer.settings, theirs[name], strict=True)):
                encode = partial(save, image_format=peer.image_format, settings=settings)
                content = curve.add(plane, encode, load)
                if name == "avif":
                    bare[place].add_resized(curve, data_bytes(content))
        advance(done, len(planes))
    curves = {"oasisvq": [curve.point() for curve in ours.values()]}
    if bare:
        theirs[AVIF_DATA] = bare
    curves |= taken | {name: [curve.point() for curve in each] for name, each in theirs.items()}
    rates = {
        name: BDRate(*(bd_rate(curves["oasisvq"], curves[name], measure) for measure in MEASURES))
        for name in curves
        if name != "oasisvq"
    }
    return Comparison(split, len(planes), every, sha256, codec.fingerprint.hex(), curves, rates)


def save(plane: NDArray[np.uint8], image_format: str, settings: dict[str, Any]) -> bytes:
    """A plane as a file of a classic codec."""
    encoded = io.BytesIO()
    Image.fromarray(plane).save(encoded, format=image_format, **settings)
    return encoded.getvalue()


def load(content: bytes) -> NDArray[np.uint8]:
    """The inverse of `save`."""
    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(image.convert("L"))


def _words(settings: dict[str, Any]) -> str:
    if "quality_layers" in settings:
        return f"rate {settings['quality_layers'][0]}"
    return f"quality {settings['quality']}"
