"""What this scan alone has: its ground, and its residue. Never imports torch.

Shapes: S slices, H×W slice.

The indices of a file say what its scan has in common with others. Beside them a file may say exactly
where ground is (`ground.py`), hold all other voxels to within a bound (`bins.py`, `residue.py`), and
keep those that lie far beyond all others (`outliers.py`).
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from oasisvq.codec.bins import Binning, binning_of
from oasisvq.codec.codes import NOTHING_BESIDE, Beside, Codes
from oasisvq.codec.ground import Ground, decode_support, encode_support, laid_on
from oasisvq.codec.headers import CodesHeader, GroundHeader, ResidueHeader
from oasisvq.codec.outliers import Laid, Typical, left_of, typical_of
from oasisvq.codec.residue import SliceReader, SliceWriter
from oasisvq.codec.residue_networks import ResidueNetwork
from oasisvq.errors import CodesFileError, ImageError, ModelError

Plane = NDArray[np.generic]
Planes = NDArray[np.generic]

_LARGEST_SHARE = 0.06  # of a file without a residue, that the support takes
_OUTLINE_TO_A_BYTE = 8  # changes from ground to not along rows


def without_nan(planes: Planes, low: float) -> Planes:
    """Planes with the darkest value in place of NaN."""
    if planes.dtype.kind != "f" or not np.isnan(planes).any():
        return planes
    return np.where(np.isnan(planes), planes.dtype.type(low), planes)


def encode_beside(
    planes: Planes,
    typical: Typical,
    header: CodesHeader,
    decoded: Iterable[Plane],
    network: ResidueNetwork | None,
    bound: float | None,
    payload_bytes: int,
) -> tuple[CodesHeader, Beside]:
    """What follows the indices of planes (S, H, W), and the header that says so.

    Args:
        planes: as they are stored, with NaN.
        typical: of them.
        header: of the file without it, with the outliers.
        decoded: (H, W) what the indices of each slice decode to.
        network: of the model.
        bound: the largest error of a voxel; None without a residue.
        payload_bytes: that the indices take.

    Raises:
        ImageError: the bound cannot be held.
        ModelError: it is asked for, and the model has no network for residues.
    """
    if bound is not None and network is None:
        raise ModelError(
            f"model {header.fingerprint.hex()[:8]} has no network for residues, so it cannot hold a "
            "largest error; encode without --max-error and --lossless, or name another --model"
        )
    ground = typical.ground
    if bound is None and not (ground and _may_be_worth(ground, header, payload_bytes)):
        return header, NOTHING_BESIDE
    support = b""
    if ground is not None:
        support = encode_support(ground.support)
        if bound is None and not _is_worth(ground, header, len(support), payload_bytes):
            return header, NOTHING_BESIDE
        header = replace(header, ground=GroundHeader(ground.value, len(support)))
    if bound is None or network is None:
        return header, Beside(support, known_support=ground.support if ground else None)
    left, binning = _divided(planes, typical, bound)
    writer = SliceWriter(network, header.shape, binning.limits)
    coded = set(header.coded_slices)
    for place, (plane, chosen, guide) in enumerate(zip(planes, left, decoded, strict=True)):
        writer.put(binning.bins(plane, chosen), chosen, binning.guide(guide) if place in coded else None)
    residue = writer.finish()
    header = replace(header, residue=ResidueHeader(binning, len(residue)))
    return header, Beside(support, residue)


def _is_worth(ground: Ground, header: CodesHeader, support_bytes: int, payload_bytes: int) -> bool:
    """Whether a file without a residue says exactly where ground is.

    It does where the ground is NaN, or not the darkest value, as in scans that were z-scored: nothing
    else keeps it there. Else it does where that takes a small share of the file.
    """
    if math.isnan(ground.value) or ground.value != header.intensity[0]:
        return True
    return support_bytes <= _LARGEST_SHARE * (payload_bytes + support_bytes)


def _may_be_worth(ground: Ground, header: CodesHeader, payload_bytes: int) -> bool:
    """The same, before it is known what that takes: at least so much for the length of its outline."""
    if not ground.support.any():  # nothing but ground has no indices, and comes back exactly
        return False
    outline = int(np.count_nonzero(ground.support[:, :, 1:] != ground.support[:, :, :-1]))
    return _is_worth(ground, header, outline // _OUTLINE_TO_A_BYTE, payload_bytes)


def lay_beside(
    decoded: Iterable[Plane],
    codes: Codes,
    network: ResidueNetwork | None,
    levels: int | None,
    name: str,
) -> Iterator[Plane]:
    """What indices decode to, (H, W) of each slice -> the slices with all that is beside the indices.

    Args:
        decoded: of one slice after the other.
        codes: with what is beside the indices.
        network: of the model.
        levels: that were decoded; None of all, with the residue.
        name: what messages call the file.

    Raises:
        CodesFileError: it is damaged.
    """
    header = codes.header
    if levels is not None:
        header = replace(header, residue=None)
    if not header.has_more:
        yield from decoded
        return
    if header.residue and network is None:
        raise CodesFileError(f"{name}: damaged: a residue, but its model has no network for residues")
    shape = header.slices, *header.shape
    laid = Laid(header)
    try:
        support = codes.beside.known_support
        if header.ground and support is None:
            support = decode_support(codes.beside.support, shape)
        left = left_of(np.ones(shape, np.bool_) if support is None else support, header.outliers)
        if header.residue and network:
            decoded = _within_bound(decoded, codes, left, network)
        for place, plane in enumerate(decoded):
            if header.ground and support is not None:
                laid_on(plane, Ground(header.ground.value, support[place]))
            yield laid.on(plane, place)
    except CodesFileError as error:
        raise CodesFileError(f"{name}: damaged: {error}") from error


def _within_bound(
    decoded: Iterable[Plane], codes: Codes, left: NDArray[np.bool_], network: ResidueNetwork
) -> Iterator[Plane]:
    """Slices (H, W) with the voxels that are `left` (S, H, W) put right by the residue.

    Raises:
        CodesFileError: it is damaged.
    """
    header = codes.header
    assert header.residue is not None
    binning, coded = header.residue.binning, set(header.coded_slices)
    reader = SliceReader(codes.beside.residue, network, header.shape, binning.limits)
    for place, (plane, support) in enumerate(zip(decoded, left, strict=True)):
        bins = reader.take(support, binning.guide(plane) if place in coded else None)
        plane[support] = binning.voxels(bins[support], plane.dtype)
        yield plane
    reader.finish()


def can_hold(planes: Planes, bound: float) -> bool:
    """Whether voxels of planes (S, H, W) can be held to a bound at all."""
    try:
        _divided(planes, typical_of(planes), bound)
    except ImageError:
        return False
    return True


def held_to(planes: Planes, bound: float) -> Iterator[Plane]:
    """What planes (S, H, W) come back as from a residue to a bound, without coding it.

    Raises:
        ImageError: the bound cannot be held.
    """
    left, binning = _divided(planes, typical_of(planes), bound)
    for plane, support in zip(planes, left, strict=True):
        again = plane.copy()
        again[support] = binning.voxels(binning.bins(plane, support)[support], plane.dtype)
        yield again


def _divided(planes: Planes, typical: Typical, bound: float) -> tuple[NDArray[np.bool_], Binning]:
    """Which voxels (S, H, W) have bins, and how they are divided into them."""
    ground = typical.ground
    support = ground.support if ground else np.ones(planes.shape, np.bool_)
    left = left_of(support, typical.outliers)
    return left, binning_of(planes, left, ground.value if ground else math.nan, bound)


def refuse_beyond(planes: Planes, restored: Planes, bound: float) -> None:
    """Raise where a voxel that was coded came back farther than the bound; NaN comes back as NaN.

    Raises:
        ImageError: says how many.
    """
    wrong = 0
    is_float = planes.dtype.kind == "f"
    for plane, again in zip(planes, restored, strict=True):
        if is_float:
            is_none = np.isnan(plane)
            away = np.abs(again.astype(np.float64) - plane.astype(np.float64))
            near = (away <= bound) & ~is_none | (is_none & np.isnan(again))
        else:
            near = np.abs(again.astype(np.int64) - plane.astype(np.int64)) <= bound
        wrong += int(np.count_nonzero(~near))
    if wrong:
        raise ImageError(
            f"{wrong:,} voxels would come back farther than {bound:g} from their value; name a larger "
            "error with --max-error"
        )


def refuse_other_levels(header: CodesHeader, levels: int | None, name: str) -> None:
    """Raise where a file does not hold so many levels.

    Raises:
        CodesFileError: says how many it holds.
    """
    if levels is not None and header.labels and not header.levels:
        raise CodesFileError(f"{name}: holds labels, kept exactly, and no levels; leave out --quality")
    if levels is not None and not 1 <= levels <= header.levels:
        raise CodesFileError(f"{name}: quality {levels}, but it holds 1 to {header.levels} levels")
