"""A `.codes` file that was read: payload -> the indices or labels of its scan. Never imports torch.

Shapes: h×w coded window, H×W image.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from oasisvq.codec.entropy import GridDecoder, unpack
from oasisvq.codec.exact import Numbers
from oasisvq.codec.headers import Coder, CodesHeader
from oasisvq.codec.labels import decode_labels
from oasisvq.codec.prior import Prior
from oasisvq.codec.recall import Recall
from oasisvq.errors import CodesFileError

NO_INDEX = 65_535  # in the indices of a volume, where a slice has none; K is at most 65,535


class Beside(NamedTuple):
    """Payloads of a `.codes` file beside its indices; empty if it has none.

    Attributes:
        support: which voxels are not ground, see `ground.py`.
        residue: bins of these voxels, see `residue.py`.
        known_support: (S, H, W) what `support` decodes to, if that is already known.
    """

    support: bytes = b""
    residue: bytes = b""
    known_support: NDArray[np.bool_] | None = None


NOTHING_BESIDE = Beside()


class Codes(NamedTuple):
    """A `.codes` file: its header and its indices.

    Attributes:
        header: what the file says of itself.
        indices: (levels, h, w) uint16, each in 0..K-1; for a volume (slices, levels, h, w), with
            `NO_INDEX` in slices that have none; empty for labels coded without loss.
        file_bytes: size of the whole file.
        label_map: labels coded without loss, (H, W) or (slices, H, W) of the original's type.
        beside: the payloads that follow that of the indices, not decoded.
        windows: what each coded slice decodes to, as far as that is known already.
    """

    header: CodesHeader
    indices: NDArray[np.uint16]
    file_bytes: int
    label_map: NDArray[np.generic] | None = None
    beside: Beside = NOTHING_BESIDE
    windows: list[NDArray[np.uint16]] | None = None


class Slices:
    """What is known of the slices of a file while they are decoded; in this class, only their indices.

    Attributes:
        recall: what the indices of one slice tell about the next; None for an image.
        windows: (H, W) what each slice decodes to, if the next one depends on it.
    """

    def __init__(self, recall: Recall | None) -> None:
        self.recall = recall
        self.windows: list[NDArray[np.uint16]] = []

    def expected(self, place: int) -> Numbers | None:
        """Latents (h, w, D) that a slice is expected to be near to; None if nothing is expected."""
        return None

    def go_on(self, place: int, indices: NDArray[np.uint16]) -> None:
        """Add the indices (L, h, w) of the next slice, all levels of them."""


def indices_of(header: CodesHeader, grids: list[NDArray[np.uint16]]) -> NDArray[np.uint16]:
    """Grids (levels, h, w) of the coded slices -> the indices of a file, see `Codes`."""
    if header.volume is None:
        return grids[0] if grids else np.zeros(header.grid_shape, np.uint16)
    shape = header.slices, *header.grid_shape
    if not grids:  # a few bytes may claim many slices: one element in memory, read-only
        return np.broadcast_to(np.uint16(NO_INDEX), shape)
    indices = np.full(shape, NO_INDEX, np.uint16)
    for place, grid in zip(header.coded_slices, grids, strict=True):
        indices[place] = grid
    return indices


def refuse_indices(codes: Codes, name: str) -> None:
    """Raise for indices that do not fit their header.

    Args:
        codes: of a scan that was coded by the model.
        name: what messages call them.

    Raises:
        CodesFileError: they have another shape, or are beyond the codebook.
    """
    header, indices = codes.header, codes.indices
    expected = (header.slices, *header.grid_shape) if header.volume else header.grid_shape
    if indices.shape != expected:
        raise CodesFileError(f"{name}: indices of shape {indices.shape}, expected {expected}")
    grids = indices if header.volume else indices[None]
    for grid in (grids[place] for place in header.coded_slices):
        if grid.min() < 0 or grid.max() >= header.codebook_size:
            raise CodesFileError(
                f"{name}: indices from {grid.min()} to {grid.max()}, expected 0 to "
                f"{header.codebook_size - 1}"
            )


class CodesFile(NamedTuple):
    """A `.codes` file before its payload is decoded.

    Attributes:
        header: what the file says of itself.
        payload: the coded indices.
        file_bytes: size of the whole file.
        name: what messages call it.
        beside: what follows the payload.
    """

    header: CodesHeader
    payload: bytes
    file_bytes: int
    name: str
    beside: Beside = NOTHING_BESIDE

    def codes(self, prior: Prior | None = None, slices: Slices | None = None) -> Codes:
        """Decode the payload.

        Args:
            prior: of the model whose fingerprint the file names, which the caller has compared.
            slices: of the file, for that model; the prior needs them for volumes.

        Raises:
            CodesFileError: the payload is damaged, or it needs a prior and none is given.
        """
        header = self.header
        if header.coder is Coder.PRIOR and prior is None:
            raise CodesFileError(
                f"{self.name}: coded with the prior of model {header.fingerprint.hex()[:8]}; name that "
                "model with --model"
            )
        try:
            if header.coder is Coder.LABELS:
                return Codes(header, np.zeros((0, 0, 0), np.uint16), self.file_bytes, self._label_map())
            if prior is None or header.coder is Coder.PACKED:
                flat = unpack(self.payload, header.codebook_size, header.index_count)
                grids = list(flat.reshape(len(header.coded_slices), *header.grid_shape))
            else:
                grids = self._grids(prior, slices)
        except CodesFileError as error:
            raise CodesFileError(f"{self.name}: damaged: {error}") from error
        windows = slices.windows if slices and slices.windows else None
        indices = indices_of(header, grids)
        return Codes(header, indices, self.file_bytes, beside=self.beside, windows=windows)

    def _grids(self, prior: Prior, slices: Slices | None) -> list[NDArray[np.uint16]]:
        header, known = self.header, prior.config
        if known.codebook_size != header.codebook_size or known.levels < header.levels:
            raise CodesFileError("its grid does not fit the prior of the model that it names")
        assert header.volume is None or slices is not None
        decoder = GridDecoder(self.payload, prior, header.grid_shape, slices.recall if slices else None)
        grids = []
        for place in header.coded_slices:
            grids.append(decoder.take(slices.expected(place) if slices else None))
            if slices:
                slices.go_on(place, grids[-1])
        decoder.finish()
        return grids

    def _label_map(self) -> NDArray[np.generic]:
        header = self.header
        ranks = decode_labels(self.payload, (header.slices, *header.shape), len(header.labels))
        label_map: NDArray[np.generic] = header.label_values[ranks]
        return label_map if header.volume else label_map[0]
