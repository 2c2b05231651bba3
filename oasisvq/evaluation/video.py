"""Planes of 10 bits <-> the bitstream of a video coder, by PyAV: volumes as video coders see them.

Shapes: S slices, H×W slice. Only luma is used; if a coder has no grey format, chroma is constant.
"""

import os
from collections.abc import Iterator
from fractions import Fraction
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Planes = NDArray[np.uint16]

BITS = 10
_SMALLEST_SIDE = 64  # that SVT-AV1 accepts
_GREY = 1 << (BITS - 1)  # of chroma
_FULL_RANGE = 2  # AVCOL_RANGE_JPEG: 0 is black, 1,023 white
_ONE_KEY_FRAME = "9999"  # frames between two


class VideoCoder(NamedTuple):
    """A video coder as FFmpeg names its parts.

    Attributes:
        encoder: name of the encoder.
        decoder: name of the decoder.
        pixel_format: 10 bits, grey if the coder supports it.
        options: of the encoder, except the rate factor.
    """

    encoder: str
    decoder: str
    pixel_format: str
    options: dict[str, str]

    @property
    def is_installed(self) -> bool:
        """Whether PyAV is installed and contains this coder."""
        try:
            codec = import_module("av.codec").Codec
            codec(self.encoder, "w")
            codec(self.decoder, "r")
        except (ImportError, ValueError):  # an unknown codec is a ValueError
            return False
        return True

    def encode(self, planes: Planes, rate_factor: float) -> list[bytes]:
        """The bitstream of planes (S, H, W), packet by packet; `rate_factor` is FFmpeg's crf."""
        av = import_module("av")
        padded = _padded(planes)
        context = av.codec.CodecContext.create(self.encoder, "w")
        context.height, context.width = padded.shape[1:]
        context.pix_fmt, context.color_range = self.pixel_format, _FULL_RANGE
        context.time_base, context.framerate = Fraction(1, 25), Fraction(25)
        context.options = self.options | {"crf": f"{rate_factor:g}", "g": _ONE_KEY_FRAME}
        frames = (self._frame(av, plane, place) for place, plane in enumerate(padded))
        return [bytes(packet) for frame in (*frames, None) for packet in context.encode(frame)]

    def decode(self, packets: list[bytes], shape: tuple[int, ...]) -> Planes:
        """The inverse of `encode`; `shape` is (S, H, W)."""
        av = import_module("av")
        context = av.codec.CodecContext.create(self.decoder, "r")
        given: Iterator[Any] = (av.Packet(packet) for packet in packets)
        decoded = [frame for packet in (*given, None) for frame in context.decode(packet)]
        assert len(decoded) == shape[0]
        return np.stack([_luma(frame)[: shape[1], : shape[2]] for frame in decoded])

    def _frame(self, av: Any, plane: Planes, place: int) -> Any:  # noqa: ANN401 - PyAV is an extra
        frame = av.VideoFrame(plane.shape[1], plane.shape[0], self.pixel_format)
        for component in frame.planes:
            np.frombuffer(component, np.uint16)[:] = _GREY
        _luma(frame)[:] = plane
        frame.pts, frame.color_range = place, _FULL_RANGE
        return frame


def _padded(planes: Planes) -> Planes:
    """Planes padded to even sides that a coder accepts, by repeating their edges."""
    beyond = [(0, max(_SMALLEST_SIDE, side + side % 2) - side) for side in planes.shape[1:]]
    return np.pad(planes, [(0, 0), *beyond], mode="edge")


def _luma(frame: Any) -> Planes:  # noqa: ANN401
    """The first plane (H, W) of a frame, as a view of its memory."""
    rows: Planes = np.frombuffer(frame.planes[0], np.uint16).reshape(frame.planes[0].height, -1)
    return rows[:, : frame.planes[0].width]


os.environ.setdefault("SVT_LOG", "1")  # errors only; else it writes to stderr for each file
AV1 = VideoCoder("libaom-av1", "libdav1d", "gray10le", {"cpu-used": "3"})
SVT_AV1 = VideoCoder("libsvtav1", "libdav1d", "yuv420p10le", {"preset": "3"})
HEVC = VideoCoder(
    "libx265", "hevc", "gray10le", {"preset": "slow", "x265-params": "log-level=error:info=0"}
)
