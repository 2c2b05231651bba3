"""Other codecs that guarantee a largest error, or are lossless, by imagecodecs.

Shapes: S slices, H×W slice.

Only the bytes that they write for the values are counted, and not those that would be needed for a
volume's type and darkest value.
"""

from importlib import import_module
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from oasisvq.errors import ModelError

Planes = NDArray[np.generic]

NEEDS = "imagecodecs: pip install 'oasisvq[peers]'"
_JXL_EFFORTS = (7, 9)
_MOST_NEAR = 255  # of JPEG-LS
_HALF = 0.499  # of a step, which rounding to whole numbers undoes


class BoundedCoder(Protocol):
    """A codec of planes (S, H, W) within a bound."""

    name: str  # of its functions in imagecodecs
    is_of_volumes: bool  # whether it codes the slices together

    def refuses(self, planes: Planes, bound: float) -> str:
        """Why it cannot code these planes; empty if it can."""

    def encode(self, planes: Planes, bound: float) -> list[bytes]:
        """The files of these planes."""

    def decode(self, files: list[bytes], planes: Planes) -> Planes:
        """The decoded planes, of the type of the original `planes`."""


class BoundedPeer(NamedTuple):
    """A coder, and its settings in words."""

    coder: BoundedCoder
    says: str


def _codec(name: str) -> Any:  # noqa: ANN401 - imagecodecs is an extra
    return getattr(import_module("imagecodecs"), name)


class _Greys:
    """One file per slice, of grey levels counted from the darkest value."""

    is_of_volumes = False

    def __init__(self, name: str) -> None:
        self.name = name

    def refuses(self, planes: Planes, bound: float) -> str:
        if planes.dtype.kind not in "iu" or int(planes.max()) - int(planes.min()) >= 2**16:
            return "codes whole numbers of up to 16 bits alone"
        if self.name == "jpegxl" and bound:
            return "has no bound but 0"
        return f"has no bound above {_MOST_NEAR}" if bound > _MOST_NEAR else ""

    def encode(self, planes: Planes, bound: float) -> list[bytes]:
        greys = planes.astype(np.int64) - int(planes.min())
        dtype = np.uint8 if greys.max() < 2**8 else np.uint16
        return [self._file(np.ascontiguousarray(grey, dtype), int(bound)) for grey in greys]

    def _file(self, grey: Planes, bound: int) -> bytes:
        encode = _codec(f"{self.name}_encode")
        if self.name == "jpegls":
            return bytes(encode(grey, level=bound))
        tried = (encode(grey, lossless=True, effort=effort, numthreads=1) for effort in _JXL_EFFORTS)
        return min(map(bytes, tried), key=len)

    def decode(self, files: list[bytes], planes: Planes) -> Planes:
        decode = _codec(f"{self.name}_decode")
        greys = np.stack([decode(file) for file in files]).astype(np.int64)
        restored: Planes = (greys + int(planes.min())).astype(planes.dtype)
        return restored


class _Floats:
    """One file for a volume, as floats; whole numbers are rounded, which undoes half a step of error."""

    is_of_volumes = True

    def __init__(self, name: str) -> None:
        self.name = name

    def refuses(self, planes: Planes, bound: float) -> str:
        if min(planes.shape) < 2:  # SPERR would end the process
            return "codes several slices together"
        if planes.dtype.kind == "f" and np.isnan(planes).any():
            return "does not code NaN"
        return "has no bound of 0 for floats" if planes.dtype.kind == "f" and not bound else ""

    def encode(self, planes: Planes, bound: float) -> list[bytes]:
        floats = np.ascontiguousarray(planes, self._dtype(planes))
        tolerance = bound + (_HALF if planes.dtype.kind in "iu" else 0.0)
        encode = _codec(f"{self.name}_encode")
        if self.name == "sz3":
            return [bytes(encode(floats, mode="abs", abs=tolerance))]
        mode = {"sperr": "pwe", "zfp": "accuracy"}[self.name]
        return [bytes(encode(floats, level=tolerance, mode=mode))]

    def decode(self, files: list[bytes], planes: Planes) -> Planes:
        (file,) = files
        like = {"shape": planes.shape, "dtype": self._dtype(planes)} if self.name == "sz3" else {}
        floats = np.asarray(_codec(f"{self.name}_decode")(file, **like)).reshape(planes.shape)
        if planes.dtype.kind == "f":
            return floats.astype(planes.dtype)
        limits = np.iinfo(str(planes.dtype))
        return np.clip(np.rint(floats.astype(np.float64)), limits.min, limits.max).astype(planes.dtype)

    @staticmethod
    def _dtype(planes: Planes) -> type[np.floating[Any]]:
        """float32 if it holds every value exactly, else float64."""
        is_exact = planes.dtype.itemsize <= 2 or planes.dtype == np.float32
        return np.float32 if is_exact else np.float64


PEERS = {
    "jpegls": BoundedPeer(_Greys("jpegls"), "JPEG-LS, CharLS, a file a slice"),
    "jpegxl": BoundedPeer(_Greys("jpegxl"), "lossless, a file a slice, the smaller of efforts 7 and 9"),
    "sperr": BoundedPeer(_Floats("sperr"), "by its point-wise error"),
    "sz3": BoundedPeer(_Floats("sz3"), "by its absolute error"),
    "zfp": BoundedPeer(_Floats("zfp"), "by its accuracy"),
}


def require_bounded(names: list[str], is_volume: bool) -> list[str]:
    """The peers of these names.

    Raises:
        ModelError: a name is unknown, is that of a codec for volumes while slices are compared, or needs
            something that is not installed.
    """
    fitting = [name for name, peer in PEERS.items() if is_volume or not peer.coder.is_of_volumes]
    chosen = list(dict.fromkeys(names))
    for name in chosen:
        if name not in fitting:
            what = "a volume" if is_volume else "slices"
            raise ModelError(
                f"no codec '{name}' to compare with on {what} within a bound, expected "
                f"{', '.join(fitting)}"
            )
        if not is_installed(name):
            raise ModelError(f"{name}: not installed; it needs {NEEDS}")
    return chosen


def is_installed(name: str) -> bool:
    """Whether imagecodecs is installed and contains the codec of a peer."""
    try:
        return bool(_codec(PEERS[name].coder.name.upper()).available)
    except (ImportError, AttributeError):
        return False
