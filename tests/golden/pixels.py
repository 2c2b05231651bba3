"""What the golden files decode to by torch, and how far that is from what was recorded.

Pixels are floats until they are rounded, and may differ in the last place between machines and versions
of torch. How much may not: at most 1 grey level, or the 4,096th part of the range where a grey level is
less than that.

    python tests/golden/pixels.py    # the largest difference on this machine, as one JSON object
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from recorded import FOLDERS, MODEL, golden_files

from oasisvq.codec import container
from oasisvq.codec.codec import Codec
from oasisvq.codec.headers import Coder, CodesHeader

PIXELS = "pixels.npz"
FINEST = 4096


def largest_differences(folder: Path) -> dict[str, float]:
    """Name of each file -> the largest difference of a pixel, in parts of what is allowed."""
    codec = Codec.load(folder / MODEL)
    with np.load(folder / PIXELS) as recorded:
        return {
            path.name: _difference(path.read_bytes(), recorded[path.name], codec)
            for path in golden_files(folder)
        }


def _difference(content: bytes, recorded: NDArray[Any], codec: Codec) -> float:
    header = container.read(content, "golden").header
    decoded = codec.decode(content)
    if (decoded.shape, decoded.dtype) != (recorded.shape, recorded.dtype):
        raise ValueError(f"{decoded.shape} {decoded.dtype}, recorded {recorded.shape} {recorded.dtype}")
    found, expected = (_levels(each, header) for each in (decoded, recorded))
    return float(np.abs(found - expected).max()) / _allowed(header)


def _levels(pixels: NDArray[Any], header: CodesHeader) -> NDArray[np.float64]:
    """Pixels as numbers; of labels, their places in the order."""
    if header.labels:
        pixels = np.searchsorted(np.array(header.labels, pixels.dtype), pixels)
    return pixels.astype(np.float64)


def _allowed(header: CodesHeader) -> float:
    if header.coder is Coder.LABELS:  # come back exactly: the least difference there can be is too much
        return 0.5
    low, high = header.intensity
    finest = (high - low) / FINEST
    is_whole = bool(header.labels) or header.sample_type.dtype.kind in "iu"
    return max(finest, 1.0) if is_whole else finest


if __name__ == "__main__":
    differences = {folder.name: largest_differences(folder) for folder in FOLDERS}
    print(json.dumps({"torch": torch.__version__, "parts of what is allowed": differences}))
