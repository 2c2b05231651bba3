"""How a scan is to be encoded. Never imports torch."""

from typing import NamedTuple

from oasisvq.codec.content import Content
from oasisvq.codec.demand import NO_DEMANDS, Demands
from oasisvq.codec.headers import Coder


class Wish(NamedTuple):
    """How to encode.

    Attributes:
        levels: how many to keep; the model's default if None.
        coder: of the indices; if None, by the prior if the model has one.
        content: what the scan shows.
        lossy: code labels by the model; otherwise they are kept exactly.
        axis: of a volume, the axis that slices follow, see `scan_of_volume`.
        bound: the largest error of any voxel; None guarantees none.
        demands: what the file must satisfy; they determine the levels.
        feedback: whether an image is encoded twice, to correct its error, see `feedback.py`.
            Volumes, labels and files within a bound are encoded once in any case.
    """

    levels: int | None = None
    coder: Coder | None = None
    content: Content = Content.AUTO
    lossy: bool = False
    axis: str | None = None
    bound: float | None = None
    demands: Demands = NO_DEMANDS
    feedback: bool = True
