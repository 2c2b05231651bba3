"""Lets Pillow open `.codes` files: `import oasisvq.pillow`, then `Image.open("scan.codes")`.

Never imports torch. Volumes are images with many frames, like a GIF; `seek` chooses the slice.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from oasisvq.codec import container
from oasisvq.codec.codes import CodesFile
from oasisvq.codec.container import MAGIC, SUFFIX
from oasisvq.codec.headers import SampleType, refuse_large_codes
from oasisvq.loading import decode_read, grey_planes
from oasisvq.scans.limits import DEFAULT_MAX_PIXELS, MAX_FILE_BYTES

FORMAT = "OASISVQ"


class CodesImageFile(ImageFile.ImageFile):
    """A `.codes` file as Pillow opens it: the header is read at once, pixels are decoded on demand.

    The mode is `L` for uint8 and `I;16` otherwise, with grey levels as in `oasisvq.load_image`. The
    model is found by the fingerprint in the file. Opening or loading raises the errors of `load_image`.
    """

    format = FORMAT
    format_description = "oasisvq codes"

    def _open(self) -> None:
        assert self.fp is not None
        name = self.filename or "codes"
        self._path = Path(name.decode() if isinstance(name, bytes) else name)
        self._file: CodesFile = container.read(self.fp.read(MAX_FILE_BYTES + 1), str(self._path))
        header = self._file.header
        refuse_large_codes(header, str(self._path))
        self._size = header.shape[1], header.shape[0]
        self._mode = "L" if header.sample_type is SampleType.UINT8 else "I;16"
        self.n_frames, self.is_animated = header.slices, header.slices > 1
        self._frame = 0
        self._planes: NDArray[np.uint8] | NDArray[np.uint16] | None = None

    def tell(self) -> int:
        return self._frame

    def seek(self, frame: int) -> None:
        if not 0 <= frame < self.n_frames:
            raise EOFError(f"slice {frame}, expected 0 to {self.n_frames - 1}")  # as of all formats
        self._frame = frame
        if self._planes is not None:
            self._show()

    def load(self) -> Any:  # noqa: ANN401 - Pillow's
        if self._planes is None:
            scan = decode_read(self._file, self._path, None, DEFAULT_MAX_PIXELS)
            self._planes = grey_planes(scan)
            self._show()
        return Image.Image.load(self)

    def _show(self) -> None:
        assert self._planes is not None
        self.im = Image.fromarray(self._planes[self._frame]).im


def _is_ours(prefix: bytes) -> bool:
    return prefix.startswith(MAGIC)


Image.register_open(FORMAT, CodesImageFile, _is_ours)
Image.register_extension(FORMAT, SUFFIX)
