"""Scan <-> the header of its file: shape, type, range and geometry. Never imports torch."""

import math

import numpy as np
from numpy.typing import NDArray

from oasisvq.codec.container import RANGE_UNITS, Coder, CodesHeader, Kind, SampleType, VolumeHeader
from oasisvq.codec.pixels import NOTHING, Window
from oasisvq.scans.limits import DEFAULT_MAX_PIXELS, refuse_large_image, refuse_large_volume
from oasisvq.scans.scan import Placement, Scan


def header_of(
    scan: Scan,
    coder: Coder,
    *,
    labels: tuple[int, ...] = (),
    stride: int = 0,
    window: Window = NOTHING,
    levels: int = 0,
    codebook_size: int = 0,
    intensity: tuple[float, float] = (0, 0),
    fingerprint: bytes = b"",
    ranges: tuple[tuple[int, int], ...] = (),
) -> CodesHeader:
    """The header of a scan's file; what only a model needs is left out for labels."""
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
    )


def slice_ranges(
    planes: NDArray[np.generic], intensity: tuple[float, float]
) -> tuple[tuple[int, int], ...]:
    """Darkest and brightest value of each plane, outwards to `RANGE_UNITS`; equal if it is constant."""
    low, high = intensity
    step = (high - low) / RANGE_UNITS
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
    """Raise for a `.codes` file that would be decoded to more than the limit.

    Args:
        header: of the file.
        name: what messages call the file.
        max_pixels: the limit of an image and of a slice, see `refuse_large_volume` in `scans/limits.py`.

    Raises:
        ImageError: its image, its slices or its volume are beyond the limit.
    """
    width_and_height = header.shape[::-1]
    refuse_large_image(width_and_height, name, max_pixels)
    refuse_large_volume((*width_and_height, header.slices), name, max_pixels)
