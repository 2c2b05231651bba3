"""What is specific to one scan: ground, restoration, residue and outliers. Never imports torch.

Shapes: S slices, H×W slice.

The indices of a file say what its scan has in common with others. Beside them a file may store exactly
where the ground is (`ground.py`) and correct the voxels near it (`restoration.py`), hold all other
voxels to within a bound (`bins.py`, `residue.py`), and keep those far beyond all others (`outliers.py`).
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from oasisvq.codec.bins import Binning, binning_of
from oasisvq.codec.blocks import restoration_bytes
from oasisvq.codec.codes import Beside, Codes
from oasisvq.codec.ground import Ground, decode_support, encode_support, laid_on, stands_out
from oasisvq.codec.headers import CodesHeader, GroundHeader, ResidueHeader
from oasisvq.codec.modelfile import ModelFile
from oasisvq.codec.outliers import Core, Laid, core_of
from oasisvq.codec.residue import SliceReader, SliceWriter
from oasisvq.codec.residue_networks import ResidueNetwork
from oasisvq.codec.restoration import Restoring, restore
from oasisvq.codec.support import SupportReader, SupportWriter, guide_of
from oasisvq.errors import CodesFileError, ImageError, ModelError

Plane = NDArray[np.generic]
Planes = NDArray[np.generic]

_LARGEST_SHARE = 0.06  # of a file without a residue, for its support
_OUTLINE_TO_A_BYTE = 8  # changes between ground and support along rows that one byte codes, at most


def encode_beside(
    planes: Planes,
    core: Core,
    header: CodesHeader,
    decoded: Iterable[Plane],
    file: ModelFile,
    bound: float | None,
    payload_bytes: int,
) -> tuple[CodesHeader, Beside]:
    """Encode what a file holds beside the indices of planes (S, H, W).

    Args:
        planes: as they are stored, with NaN.
        core: of the planes.
        header: of the file so far, with the outliers.
        decoded: (H, W) what the indices of each slice decode to.
        file: the model.
        bound: the largest error of a voxel; None for no residue.
        payload_bytes: size of the coded indices.

    Returns:
        The header, completed, and the payloads that follow the indices.

    Raises:
        ImageError: the bound cannot be held.
        ModelError: there is a bound, and the model has no network for residues.
    """
    if bound is not None and file.residue is None:
        raise ModelError(
            f"model {header.fingerprint.hex()[:8]} has no network for residues, so it cannot hold a "
            "largest error; encode without --max-error and --lossless, or name another --model"
        )
    ground = core.ground
    has_ground = ground is not None and (
        bound is not None or _may_be_worth(planes, ground, header, payload_bytes)
    )
    supports = _Supports(header, file, ground) if ground and has_ground else None
    residue = _Residue(planes, core, header, file.residue, bound) if bound is not None else None
    restoring = Restoring(header.intensity) if supports and not residue else None
    for place, plane in enumerate(decoded if supports or residue else ()):
        if supports:
            supports.put(place, plane)
        if residue:
            residue.put(place, plane)
        if restoring and ground:
            restoring.put(plane, ground.support[place], core.planes[place])
    beside = Beside(supports.finish() if supports else b"", residue.finish() if residue else b"")
    if (
        ground
        and supports
        and (residue or _is_worth(planes, ground, header, len(beside.support), payload_bytes))
    ):
        header = replace(header, ground=GroundHeader(ground.value, len(beside.support)))
        if restoring:
            beside = beside._replace(known_support=ground.support)
            restoration, gain = restoring.weights()
            size = len(restoration_bytes(restoration))
            if gain * (payload_bytes + len(beside.support)) > size:
                header = replace(header, restoration=restoration)
    else:
        beside = beside._replace(support=b"")
    if residue:
        header = replace(header, residue=ResidueHeader(residue.binning, len(beside.residue)))
    return header, beside


class _Supports:
    """Writes the supports of slices: by the model's network, or as labels if it has none."""

    def __init__(self, header: CodesHeader, file: ModelFile, ground: Ground) -> None:
        self._header, self._ground, self._coded = header, ground, set(header.coded_slices)
        self._writer = SupportWriter(file.support, header.shape) if file.support else None

    def put(self, place: int, plane: Plane) -> None:
        """Append a slice, given what its indices decode to (H, W)."""
        if self._writer is None:
            return
        ends = self._header.slice_range(place)
        guide = guide_of(plane, self._ground.value, ends) if place in self._coded else None
        self._writer.put(self._ground.support[place], guide)

    def finish(self) -> bytes:
        """The payload."""
        return self._writer.finish() if self._writer else encode_support(self._ground.support)


class _Residue:
    """Writes the residue."""

    def __init__(
        self,
        planes: Planes,
        core: Core,
        header: CodesHeader,
        network: ResidueNetwork | None,
        bound: float,
    ) -> None:
        assert network is not None
        self._planes, self._coded = planes, set(header.coded_slices)
        self._left, self.binning = _divided(planes, core, bound)
        self._writer = SliceWriter(network, header.shape, self.binning.limits)

    def put(self, place: int, plane: Plane) -> None:
        """Append a slice, given what its indices decode to (H, W)."""
        left = self._left[place]
        guide = self.binning.guide(plane) if place in self._coded else None
        self._writer.put(self.binning.bins(self._planes[place], left), left, guide)

    def finish(self) -> bytes:
        """The payload."""
        return self._writer.finish()


def _is_worth(
    planes: Planes, ground: Ground, header: CodesHeader, support_bytes: int, payload_bytes: int
) -> bool:
    """Whether a file without a residue should store exactly where the ground is.

    It should if the ground is NaN, or not the darkest value, as in z-scored scans: nothing else keeps it
    there. It should if all else stands out from the ground, as in skull-stripped scans, where the ground
    is a mask. Otherwise, as around a whole head in noise, it should if the support takes a small share
    of the file.
    """
    low, high = header.intensity
    if ground.value != low or stands_out(planes, ground, high):  # also for NaN
        return True
    return support_bytes <= _LARGEST_SHARE * (payload_bytes + support_bytes)


def _may_be_worth(planes: Planes, ground: Ground, header: CodesHeader, payload_bytes: int) -> bool:
    """`_is_worth` before the support is coded: its outline gives the least bytes that it takes."""
    if not ground.support.any():  # a scan of ground alone has no indices, and comes back exactly
        return False
    outline = int(np.count_nonzero(ground.support[:, :, 1:] != ground.support[:, :, :-1]))
    return _is_worth(planes, ground, header, outline // _OUTLINE_TO_A_BYTE, payload_bytes)


def lay_beside(
    decoded: Iterable[Plane],
    guides: Iterable[Plane] | None,
    codes: Codes,
    file: ModelFile,
    name: str,
) -> Iterator[Plane]:
    """Decoded slices (H, W) -> the slices with everything that is stored beside the indices.

    Args:
        decoded: what the indices of each slice decode to, one slice after the other.
        guides: what the indices of all levels decode to; None where `decoded` is that.
        codes: with what is stored beside the indices.
        file: the model.
        name: what messages call the file.

    Raises:
        CodesFileError: the file is damaged.
    """
    header = codes.header
    if not header.has_more:
        yield from decoded
        return
    if header.residue and file.residue is None:
        raise CodesFileError(f"{name}: damaged: a residue, but its model has no network for residues")
    pairs = zip(decoded, guides, strict=True) if guides else ((each, each) for each in decoded)
    try:
        yield from _laid(pairs, header, codes.beside, file)
    except CodesFileError as error:
        raise CodesFileError(f"{name}: damaged: {error}") from error


def _laid(
    pairs: Iterable[tuple[Plane, Plane]], header: CodesHeader, beside: Beside, file: ModelFile
) -> Iterator[Plane]:
    """The slices with everything that the header lists beside the indices."""
    outliers, coded, everything = Laid(header), set(header.coded_slices), np.ones(header.shape, np.bool_)
    ground, residue, network = header.ground, header.residue, file.support
    maps, supports = beside.known_support if ground else None, None
    if ground and maps is None and network:
        supports = SupportReader(beside.support, network, header.shape)
    elif ground and maps is None:
        maps = decode_support(beside.support, (header.slices, *header.shape))
    bins = None
    if residue and file.residue:
        bins = SliceReader(beside.residue, file.residue, header.shape, residue.binning.limits)
    for place, (plane, guide) in enumerate(pairs):
        support = everything if maps is None else maps[place]
        if supports and ground:
            ends = header.slice_range(place)
            support = supports.take(guide_of(guide, ground.value, ends) if place in coded else None)
        left = outliers.left(support, place)
        if bins and residue:
            found = bins.take(left, residue.binning.guide(plane) if place in coded else None)
            plane[left] = residue.binning.voxels(found[left], plane.dtype)
        if header.restoration:
            restore(plane, support, header.restoration, header.intensity)
        if ground:
            laid_on(plane, Ground(ground.value, support))
        yield outliers.on(plane, place)
    for reader in (supports, bins):
        if reader:
            reader.finish()


def can_hold(planes: Planes, bound: float) -> bool:
    """Whether voxels of planes (S, H, W) can be held to a bound at all."""
    try:
        _divided(planes, core_of(planes), bound)
    except ImageError:
        return False
    return True


def held_to(planes: Planes, bound: float) -> Iterator[Plane]:
    """What a residue to a bound would restore of planes (S, H, W), without coding it.

    Raises:
        ImageError: the bound cannot be held.
    """
    left, binning = _divided(planes, core_of(planes), bound)
    for plane, support in zip(planes, left, strict=True):
        again = plane.copy()
        again[support] = binning.voxels(binning.bins(plane, support)[support], plane.dtype)
        yield again


def _divided(planes: Planes, core: Core, bound: float) -> tuple[NDArray[np.bool_], Binning]:
    """Which voxels (S, H, W) have bins, and how they are divided into bins."""
    ground = core.ground
    left = ground.support if ground else np.ones(planes.shape, np.bool_)
    if core.outliers:
        left = left.copy()
        np.put(left, core.outliers.places, False)
    # far away, it would say that such floats cannot be told apart within the bound
    is_far = core.is_padded and planes.dtype.kind == "f" and bound > 0
    value = ground.value if ground and not is_far else math.nan
    return left, binning_of(planes, left, value, bound)


def refuse_beyond(planes: Planes, restored: Planes, bound: float) -> None:
    """Raise if a restored voxel is farther than the bound from its original; NaN must restore as NaN.

    Raises:
        ImageError: says how many are.
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
    """Raise if a file does not hold as many levels as are asked for.

    Raises:
        CodesFileError: says how many it holds.
    """
    if levels is not None and header.labels and not header.levels:
        raise CodesFileError(f"{name}: holds labels, kept exactly, and no levels; leave out --quality")
    if levels is not None and not 1 <= levels <= header.levels:
        raise CodesFileError(f"{name}: quality {levels}, but this file has 1 to {header.levels}")
