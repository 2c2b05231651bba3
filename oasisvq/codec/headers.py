"""The header of a `.codes` file, and scan <-> header. Never imports torch.

The fields of a header and their limits are those of the specification in `container.py`, which also
turns headers into bytes and back.
"""

import math
from dataclasses import dataclass, replace
from enum import IntEnum
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from oasisvq.codec.bins import Binning
from oasisvq.codec.pixels import NOTHING, Window
from oasisvq.codec.restoration import Restoration
from oasisvq.scans.geometry import Form, Geometry, Slicing
from oasisvq.scans.limits import DEFAULT_MAX_PIXELS, refuse_large_image, refuse_large_volume
from oasisvq.scans.scan import Placement, Scan
from oasisvq.scans.stacks import StackNames

FINGERPRINT_BYTES = 8
MAX_SLICES = 65_535
MAX_STRIDE = 64
MAX_LEVELS = 64
MAX_CODEBOOK_SIZE = 65_535
MAX_INDICES = 2**28
MAX_LABELS = 65_535
MAX_OUTLIERS = 65_535
RANGE_UNITS = 65_535  # steps from the darkest to the brightest value of a volume


class Coder(IntEnum):
    """What a payload is, and how it was coded."""

    PACKED = 0
    PRIOR = 1
    LABELS = 2


class Kind(IntEnum):
    """What a file holds."""

    IMAGE = 0
    VOLUME = 1


class SampleType(IntEnum):
    """Type of the original's values."""

    UINT8 = 0
    UINT16 = 1
    INT8 = 2
    INT16 = 3
    UINT32 = 4
    INT32 = 5
    FLOAT32 = 6
    FLOAT64 = 7
    INT64 = 8
    UINT64 = 9

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """The NumPy type."""
        return np.dtype(self.name.lower())


@dataclass(frozen=True)
class VolumeHeader:
    """What a `.codes` file says of a volume.

    Attributes:
        slices: number of slices.
        slicing: how they were cut.
        form: the file format of the original.
        content: the original's header.
        ranges: darkest and brightest value of each slice, from 0 to `RANGE_UNITS`; empty for labels.
    """

    slices: int
    slicing: Slicing
    form: Form
    content: bytes
    ranges: tuple[tuple[int, int], ...] = ()

    @cached_property
    def geometry(self) -> Geometry:
        """The original's header, parsed.

        Raises:
            ImageError: it is damaged.
        """
        return Geometry(self.form, self.content)


@dataclass(frozen=True)
class GroundHeader:
    """What a `.codes` file says of the ground.

    Attributes:
        value: of each of its voxels; NaN only for float types.
        payload_bytes: size of the support's payload.
    """

    value: float
    payload_bytes: int


class Outliers(NamedTuple):
    """Voxels of a scan far beyond all others.

    Attributes:
        places: in all slices laid flat, in rising order.
        values: of these voxels, of the original's type.
    """

    places: tuple[int, ...]
    values: tuple[float, ...]


@dataclass(frozen=True)
class ResidueHeader:
    """What a `.codes` file says of its residue.

    Attributes:
        binning: what its bins stand for.
        payload_bytes: size of its payload.
    """

    binning: Binning
    payload_bytes: int


@dataclass(frozen=True)
class CodesHeader:
    """What a `.codes` file says of itself, see the table in `container.py`.

    With coder `LABELS`, the fields that only a model needs (`stride` to `codebook_size`, `fingerprint`)
    are 0 or empty. `volume` is None for an image. `labels` are empty for a scan, and integers if all of
    them are whole. `ground`, `residue`, `outliers` and `restoration` are None if the file has none;
    `stack` is None unless the slices were images.
    """

    coder: Coder
    kind: Kind
    sample_type: SampleType
    shape: tuple[int, int]
    stride: int
    window: Window
    levels: int
    codebook_size: int
    intensity: tuple[float, float]
    fingerprint: bytes
    volume: VolumeHeader | None = None
    labels: tuple[float, ...] = ()
    ground: GroundHeader | None = None
    residue: ResidueHeader | None = None
    outliers: Outliers | None = None
    stack: StackNames | None = None
    restoration: Restoration | None = None

    @property
    def of_indices(self) -> "CodesHeader":
        """The header of the same file without anything beside its indices."""
        return replace(self, ground=None, residue=None, outliers=None, restoration=None)

    @property
    def has_more(self) -> bool:
        """Whether the file has anything beside its indices."""
        return self.of_indices != self

    @property
    def label_values(self) -> NDArray[np.generic]:
        """The labels in the original's type."""
        return np.array(self.labels, self.sample_type.dtype)

    @property
    def decoded_dtype(self) -> np.dtype[np.generic]:
        """The type that indices decode to: that of ranks of labels, or that of the original."""
        return np.dtype(np.uint16) if self.labels else self.sample_type.dtype

    @property
    def grid_shape(self) -> tuple[int, int, int]:
        """Levels, height and width of the index grid of a slice."""
        return self.levels, self.window.height, self.window.width

    @property
    def slices(self) -> int:
        """Number of slices; 1 for an image."""
        return self.volume.slices if self.volume else 1

    @property
    def coded_slices(self) -> list[int]:
        """The slices that have indices."""
        if self.coder is Coder.LABELS or not self.window.height:
            return []
        if self.volume is None:
            return [0]
        return [place for place, (low, high) in enumerate(self.volume.ranges) if low < high]

    @property
    def index_count(self) -> int:
        """Number of indices in the payload."""
        return len(self.coded_slices) * self.levels * self.window.height * self.window.width

    def slice_range(self, place: int) -> tuple[float, float]:
        """What pixels 0 and 1 of a slice stand for."""
        low, high = self.intensity
        if self.volume is None:
            return low, high
        darkest, brightest = (
            min(low + (high - low) * (each / RANGE_UNITS), high) for each in self.volume.ranges[place]
        )
        return darkest, brightest


def header_of(
    scan: Scan,
    coder: Coder,
    *,
    labels: tuple[float, ...] = (),
    stride: int = 0,
    window: Window = NOTHING,
    levels: int = 0,
    codebook_size: int = 0,
    intensity: tuple[float, float] = (0, 0),
    fingerprint: bytes = b"",
    ranges: tuple[tuple[int, int], ...] = (),
    outliers: Outliers | None = None,
) -> CodesHeader:
    """The header of a scan's file; for labels, what only a model needs is left out."""
    placed, slices = scan.placement, len(scan.planes)
    volume = None
    if placed is not None:
        geometry = placed.geometry
        volume = VolumeHeader(slices, placed.slicing, geometry.form, geometry.content, ranges)
    return CodesHeader(
        coder=coder,
        kind=Kind.IMAGE if placed is None else Kind.VOLUME,
        sample_type=SampleType[scan.planes.dtype.name.upper()],
        shape=(scan.planes.shape[1], scan.planes.shape[2]),
        stride=stride,
        window=window,
        levels=levels,
        codebook_size=codebook_size,
        intensity=intensity,
        fingerprint=fingerprint,
        volume=volume,
        labels=labels,
        outliers=outliers,
        stack=scan.stack,
    )


def slice_ranges(
    planes: NDArray[np.generic], intensity: tuple[float, float]
) -> tuple[tuple[int, int], ...]:
    """Darkest and brightest value of each plane, outwards to `RANGE_UNITS`; equal if it is constant."""
    low, high = intensity
    step = (high - low) / RANGE_UNITS or 1.0  # in a stack all values may be equal
    ranges = []
    for plane in planes:
        darkest, brightest = ((float(end) - low) / step for end in (plane.min(), plane.max()))
        if darkest == brightest:
            ranges.append((round(darkest), round(darkest)))
        else:
            ranges.append((math.floor(darkest), min(math.ceil(brightest), RANGE_UNITS)))
    return tuple(ranges)


def placement_of(header: CodesHeader) -> Placement | None:
    """How the planes of a volume lie; None for an image."""
    volume = header.volume
    return Placement(volume.geometry, volume.slicing) if volume else None


def refuse_large_codes(header: CodesHeader, name: str, max_pixels: int = DEFAULT_MAX_PIXELS) -> None:
    """Raise for a `.codes` file that would decode to more than the limit.

    Args:
        header: of the file.
        name: what messages call the file.
        max_pixels: the limit for an image or a slice, see `refuse_large_volume` in `scans/limits.py`.

    Raises:
        ImageError: its image, its slices or its volume are beyond the limit.
    """
    width_and_height = header.shape[::-1]
    refuse_large_image(width_and_height, name, max_pixels)
    refuse_large_volume((*width_and_height, header.slices), name, max_pixels)
