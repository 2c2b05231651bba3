"""How much of a scan a codec keeps. Never imports torch."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oasisvq.codec.batches import Batches
from oasisvq.codec.content import Content
from oasisvq.codec.demand import Demands
from oasisvq.codec.encoded import Encoded
from oasisvq.codec.measure import Measure, measure
from oasisvq.codec.typical import KEY, Typical, typical_in, typical_of, unlike
from oasisvq.codec.wish import Wish
from oasisvq.errors import ImageError
from oasisvq.scans.limits import DEFAULT_MAX_PIXELS
from oasisvq.scans.scan import Scan, as_scan


class Measuring(Batches):
    """The part of `Codec` that measures what it keeps.

    Attributes:
        card: what the model file says of its training.
    """

    card: dict[str, Any]

    @abstractmethod
    def encode_seen(self, scan: Scan, wish: Wish | None = None) -> Encoded: ...

    @property
    def typical(self) -> list[Typical]:
        """What each number of levels keeps of typical slices; empty if the card says nothing."""
        return typical_in(self.card, self.config.levels)

    def unlike(self, encoded: Encoded) -> str:
        """How a scan shows that it is unlike those the model was trained on; empty if it does not.

        Only a scan that was measured, and coded without a residue, can show it.
        """
        header, typical = encoded.header, self.typical
        if encoded.measured is None or header.residue or header.labels or header.levels > len(typical):
            return ""  # for volumes a model may have more levels
        return unlike(encoded.measured, typical[header.levels - 1])

    def likely_levels(self, demands: Demands) -> int | None:
        """How many levels typically keep the demanded SSIM; None if the card does not say."""
        for levels, each in enumerate(self.typical, start=1):
            pairs = (demands.ssim, each.ssim), (demands.foreground_ssim, each.foreground_ssim)
            asked = [(least, usual.middle) for least, usual in pairs if least is not None and usual]
            if not asked:
                return None
            if all(least <= middle for least, middle in asked):
                return levels
        return None

    def card_with_typical(
        self,
        planes: Sequence[NDArray[np.uint8]],
        advance: Callable[[int, int], None] = lambda done, total: None,
    ) -> dict[str, Any]:
        """The card, with what each number of levels typically keeps of slices (H, W)."""
        total, rows = len(planes) * self.config.levels, []
        for levels in range(1, self.config.levels + 1):
            wish = Wish(levels, content=Content.SCAN)
            measures, sizes = [], []
            for plane in planes:
                encoded = self.encode_seen(Scan(np.asarray(plane)[None]), wish)
                measures.append(encoded.measure())
                sizes.append(len(encoded.content))
                advance((levels - 1) * len(planes) + len(sizes), total)
            rows.append(typical_of(measures, sizes).as_dict())
        return self.card | {KEY: {"slices": len(planes), "levels": rows}}

    def measure(
        self,
        array: NDArray[np.generic],
        content: bytes,
        *,
        spacing: tuple[float, float, float] | None = None,
        affine: NDArray[np.float64] | None = None,
        axis: str | None = None,
        max_pixels: int = DEFAULT_MAX_PIXELS,
    ) -> Measure:
        """How much of an array its `.codes` file keeps, as the commands report it.

        Args:
            array: the original: (H, W), or a volume (X, Y, Z).
            content: of the file.
            spacing: that was given with a volume, see `encode`.
            affine: in place of `spacing`.
            axis: that slices follow, as in encoding; SSIM is taken of these slices.
            max_pixels: see `decode`.

        Raises:
            ImageError: the array cannot be encoded, or the file is of another shape.
            CodesFileError: see `decode`.
        """
        scan = as_scan(array, spacing, affine, axis)
        restored = self.decode(content, max_pixels)
        if restored.shape != array.shape:
            raise ImageError(f"an array of shape {array.shape}, but its file holds {restored.shape}")
        planes = scan.placement.slicing.planes(restored) if scan.placement else restored[None]
        return measure(scan, planes)
