"""How a scan is to be encoded. Never imports torch."""

from typing import NamedTuple

from oasisvq.codec.content import Content
from oasisvq.codec.demand import NO_DEMANDS, Demands
from oasisvq.codec.headers import Coder


class Wish(NamedTuple):
    """How to encode.

    Attributes:
        levels: to keep; the model's default where None.
        coder: of the indices; by the prior where the model has one, where None.
        content: what the scan shows.
        lossy: code labels by the model; else they are kept exactly.
        axis: of a volume: that slices follow, see `scan_of_volume`.
        bound: the largest error of any voxel; none is guaranteed where None.
        demands: what the file must satisfy; they find the levels.
    """

    levels: int | None = None
    coder: Coder | None = None
    content: Content = Content.AUTO
    lossy: bool = False
    axis: str | None = None
    bound: float | None = None
    demands: Demands = NO_DEMANDS
