"""A volume by our codec and by video and image coders over its slices: curves and BD-rates.

Shapes: S slices, H×W slice.

All are measured in the same way: on the scale that `score` uses for the scan, with values beyond it
clipped. Peers are given this range in 10 bits. A peer's bytes are its whole bitstream without the
container.
"""

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from oasisvq.codec import container
from oasisvq.codec.codec import Codec
from oasisvq.codec.content import Content
from oasisvq.codec.measure import scale_of
from oasisvq.codec.wish import Wish
from oasisvq.errors import DatasetError, ModelError
from oasisvq.evaluation import stills, video
from oasisvq.evaluation.rates import bd_rate, point_as_dict
from oasisvq.evaluation.volume_quality import VolumeQuality, volume_quality
from oasisvq.files import read_bytes
from oasisvq.scans.limits import DEFAULT_MAX_PIXELS
from oasisvq.scans.scan import Scan, read_scan, without_nan
from oasisvq.scans.source import Source

MAX_COMPARISON_BYTES = 2**24
WHITE = 2**video.BITS - 1
PEERS_EXTRA = "pip install 'oasisvq[peers]'"


class VolumePeer(NamedTuple):
    """A coder of slices.

    Attributes:
        coder: that codes them.
        settings: of the coder, smallest file first.
        word: what a setting is called.
        says: the other settings in words.
        needs: what to install if it is missing.
    """

    coder: video.VideoCoder | stills.StillCoder
    settings: tuple[float, ...]
    word: str
    says: str
    needs: str


PEERS = {
    "av1": VolumePeer(
        video.AV1,
        (60, 52, 44, 36, 28, 20),
        "crf",
        "libaom, cpu-used 3, 10 bit",
        f"PyAV below 17, which has libaom: {PEERS_EXTRA}",
    ),
    "svt-av1": VolumePeer(
        video.SVT_AV1,
        (62, 54, 46, 38, 30, 20),
        "crf",
        "SVT-AV1, preset 3, 10 bit",
        f"PyAV: {PEERS_EXTRA}",
    ),
    "hevc": VolumePeer(
        video.HEVC, (40, 35, 30, 25, 20, 15), "crf", "x265, preset slow, 10 bit", f"PyAV: {PEERS_EXTRA}"
    ),
    "jpegxl": VolumePeer(
        stills.JPEG_XL,
        (10, 30, 50, 70, 85),
        "quality",
        "a file a slice, effort 7, 10 bit",
        f"imagecodecs: {PEERS_EXTRA}",
    ),
    "jpeg2000": VolumePeer(
        stills.JPEG_2000,
        (25, 30, 35, 40, 45),
        "dB",
        "a codestream a slice, 9/7 wavelet, 10 bit",
        f"imagecodecs: {PEERS_EXTRA}",
    ),
}


class VolumePoint(NamedTuple):
    """One coder at one setting; see `VolumeQuality`."""

    setting: str
    file_bytes: float
    ssim: float
    foreground_ssim: float
    psnr: float
    foreground_psnr: float
    encode_seconds: float
    decode_seconds: float


class VolumeComparison(NamedTuple):
    """Ours and theirs on one volume.

    Attributes:
        scan: name of its file.
        shape: (S, H, W).
        data_range: on which quality is measured.
        sha256: of the planes that peers were given.
        fingerprint: of the model.
        curves: of "oasisvq" and of each peer.
        bd_rates: of ours against each peer by each measure of `VolumeQuality`, in per cent of bytes.
    """

    scan: str
    shape: tuple[int, ...]
    data_range: float
    sha256: str
    fingerprint: str
    curves: dict[str, list[VolumePoint]]
    bd_rates: dict[str, dict[str, float | None]]

    def as_dict(self) -> dict[str, Any]:
        """As JSON holds it; `known_curves` reads it."""
        curves = {name: [point_as_dict(point) for point in each] for name, each in self.curves.items()}
        return self._asdict() | {"curves": curves}


def known_curves(path: Path, sha256: str) -> dict[str, list[VolumePoint]]:
    """The peers' curves that `score FILE --against ... --json` printed before.

    Raises:
        FileError: the file is missing or unreadable.
        DatasetError: it holds something else, or was measured on another volume.
    """
    try:
        fields = json.loads(read_bytes(path, MAX_COMPARISON_BYTES))
        measured_on = fields["sha256"]
        curves = {
            name: [_point(point) for point in points]
            for name, points in fields["curves"].items()
            if name in PEERS
        }
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        raise DatasetError(
            f"{path}: not what `oasisvq score FILE --against ... --json` prints ({error})"
        ) from error
    if measured_on != sha256:
        raise DatasetError(f"{path}: was measured on another volume; leave out --reuse")
    return curves


def _point(fields: dict[str, Any]) -> VolumePoint:
    setting, *numbers = VolumePoint(**fields)
    if type(setting) is not str or any(type(each) not in (int, float, type(None)) for each in numbers):
        raise ValueError("a point of other types")
    point = VolumePoint(setting, *(math.nan if each is None else float(each) for each in numbers))
    if any(map(math.isinf, point[1:])) or not point.file_bytes > 0:
        raise ValueError("a point of numbers out of range")
    return point


def require_peers(names: Iterable[str]) -> list[str]:
    """The peers of these names.

    Raises:
        ModelError: a name is unknown, or a peer is not installed.
    """
    chosen = list(dict.fromkeys(names))
    for name in chosen:
        if name not in PEERS:
            raise ModelError(f"no codec '{name}' to compare with on a scan, expected {', '.join(PEERS)}")
        if not PEERS[name].coder.is_installed:
            raise ModelError(f"{name}: not installed; it needs {PEERS[name].needs}")
    return chosen


class _Measured:
    """A scan, scaled to the range on which it is measured."""

    def __init__(self, scan: Scan) -> None:
        self.darkest, self.scale = scan.intensity[0], scale_of(scan)
        self.shares = self.shares_of(scan.planes)
        self.planes = np.rint(self.shares * WHITE).astype(np.uint16)

    def shares_of(self, planes: NDArray[np.generic]) -> NDArray[np.float64]:
        values = without_nan(planes, self.darkest).astype(np.float64)
        return np.clip((values - self.scale.low) / self.scale.range, 0, 1)

    def point(
        self, setting: str, size: int, shares: NDArray[np.float64], times: list[float]
    ) -> VolumePoint:
        quality: VolumeQuality = volume_quality(self.shares, shares)
        encoding, decoding = np.diff(times).tolist()
        return VolumePoint(setting, size, *quality, encoding, decoding)

    def of_peer(self, peer: VolumePeer, setting: float) -> VolumePoint:
        times = [time.perf_counter()]
        chunks = peer.coder.encode(self.planes, setting)
        times.append(time.perf_counter())
        decoded = peer.coder.decode(chunks, self.planes.shape)
        times.append(time.perf_counter())
        return self.point(f"{peer.word} {setting:g}", sum(map(len, chunks)), decoded / WHITE, times)

    def of_ours(self, codec: Codec, scan: Scan, levels: int) -> VolumePoint:
        times = [time.perf_counter()]
        content = codec.encode_scan(scan, Wish(levels, content=Content.SCAN))
        times.append(time.perf_counter())
        restored = codec.decode_codes(codec.codes_of(container.read(content, "scan")), "scan")
        times.append(time.perf_counter())
        return self.point(f"-q {levels}", len(content), self.shares_of(restored.planes), times)


def compare_volume(
    codec: Codec,
    source: Source,
    names: list[str],
    reuse: Path | None = None,
    advance: Callable[[int, int], None] = lambda done, total: None,
    max_pixels: int = DEFAULT_MAX_PIXELS,
) -> VolumeComparison:
    """Measure our codec at every quality, and the named peers.

    Curves of peers that the file `reuse` holds are taken from it.

    Raises:
        ImageError: the scan cannot be read or encoded.
        FileError, DatasetError: see `known_curves`.
        ModelError: see `require_peers`.
    """
    scan = read_scan(source, None, max_pixels)
    measured = _Measured(scan)
    sha256 = hashlib.sha256(measured.planes.tobytes()).hexdigest()
    known = known_curves(reuse, sha256) if reuse else {}
    chosen = require_peers(name for name in names if name not in known)
    levels = range(1, codec.volumes.config.levels + 1)
    total = len(levels) + sum(len(PEERS[name].settings) for name in chosen)
    curves: dict[str, list[VolumePoint]] = {"oasisvq": []}
    curves |= {name: curve for name, curve in known.items() if name in names}
    done = 0
    for count in levels:
        curves["oasisvq"].append(measured.of_ours(codec, scan, count))
        advance(done := done + 1, total)
    for name in chosen:
        curves[name] = []
        for setting in PEERS[name].settings:
            curves[name].append(measured.of_peer(PEERS[name], setting))
            advance(done := done + 1, total)
    rates = {
        name: {measure: bd_rate(curves["oasisvq"], curve, measure) for measure in VolumeQuality._fields}
        for name, curve in curves.items()
        if name != "oasisvq"
    }
    return VolumeComparison(
        source.path.name,
        measured.planes.shape,
        measured.scale.range,
        sha256,
        codec.fingerprint.hex(),
        curves,
        rates,
    )
