"""How a scan is to be encoded. Never imports torch."""

from enum import Enum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from oasisvq.codec.headers import MAX_LABELS, Coder
from oasisvq.codec.labels import looks_like_labels
from oasisvq.errors import ImageError


class Content(str, Enum):
    """What an image or volume shows; `AUTO` finds out."""

    AUTO = "auto"
    SCAN = "scan"
    LABELS = "labels"


class Wish(NamedTuple):
    """How to encode.

    Attributes:
        levels: to keep; the model's default where None.
        coder: of the indices; by the prior where the model has one, where None.
        content: what the scan shows.
        lossy: code labels by the model; else they are kept exactly.
        axis: of a volume: that slices follow, see `scan_of_volume`.
        bound: the largest error of any voxel; none is guaranteed where None.
    """

    levels: int | None = None
    coder: Coder | None = None
    content: Content = Content.AUTO
    lossy: bool = False
    axis: str | None = None
    bound: float | None = None


def labels_in(planes: NDArray[np.generic], content: Content) -> NDArray[np.generic] | None:
    """The labels that planes hold, in order; None of a scan.

    Raises:
        ImageError: they are said to be labels, and are none.
    """
    looked_at = planes[0] if len(planes) == 1 else planes
    if content is Content.SCAN or (content is Content.AUTO and not looks_like_labels(looked_at)):
        return None
    labels = np.unique(planes)
    is_whole = labels.dtype.kind in "iu" or bool((labels == np.rint(labels)).all())
    if not is_whole or len(labels) > MAX_LABELS or max(-int(labels[0]), int(labels[-1])) >= 2**31:
        raise ImageError(
            f"{len(labels):,} values from {labels[0]} to {labels[-1]}, expected labels: at most "
            f"{MAX_LABELS:,} whole numbers below 2^31; pass --kind scan"
        )
    return labels
