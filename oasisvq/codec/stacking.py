"""How a codec encodes images that are slices of one subject. Never imports torch.

Shapes: N images, H×W image.
"""

from abc import abstractmethod
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from oasisvq.codec.batches import Batches, each_of
from oasisvq.codec.content import Content
from oasisvq.codec.headers import Coder
from oasisvq.codec.wish import Wish
from oasisvq.errors import ImageError
from oasisvq.scans.scan import Scan, as_scan, scan_of_stack
from oasisvq.scans.stacks import StackNames


class Stacking(Batches):
    """The part of `Codec` that takes stacks."""

    @abstractmethod
    def encode_scan(self, scan: Scan, wish: Wish | None = None) -> bytes: ...

    def encode_stack(
        self,
        images: NDArray[np.generic] | Sequence[NDArray[np.generic]],
        names: Sequence[str] | None = None,
        levels: int | None = None,
        coder: Coder | None = None,
        *,
        content: Content = Content.AUTO,
        lossy: bool = False,
        max_error: float | None = None,
    ) -> bytes:
        """Images that are neighbouring slices of one subject to the bytes of one `.codes` file.

        Args:
            images: (N, H, W), or a list of (H, W), of uint8 or uint16, in the order of their slices.
            names: of their files, such as `case_402_slice_0.nii.png`, which differ only in a rising
                number; `slice_0.png` and so on if None.
            levels: for all images, as are the other settings; see `encode`.
            coder: of their indices.
            content: whether they are scans or labels.
            lossy: code labels by the model too.
            max_error: the largest error of a pixel.

        Raises:
            ImageError: they are not such images, differ in size or type, or have other names.
            ModelError: see `encode`.
        """
        planes = [as_scan(image).plane for image in each_of(images)]
        if len({(plane.shape, plane.dtype) for plane in planes}) > 1:
            raise ImageError("a stack of images of several sizes or types, expected one; stack each")
        if names is None:
            names = [f"slice_{place}.png" for place in range(len(planes))]
        stack = StackNames.of(names)
        wish = Wish(levels, coder, content, lossy, bound=max_error)
        return self.encode_scan(scan_of_stack(np.stack(planes), stack), wish)
