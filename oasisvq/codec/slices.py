"""The slices of one file in their order, each decoded before the next one is coded. Never imports torch.

Shapes: H×W window, L levels, h×w grid, D code dimension.

In a volume the previous slice is known when a slice is coded. The entropy coder knows its indices
(`recall.py`). If the model has contexts, the decoded slice is known too: both networks see it as their
context, and the prior sees the latents that it would have as the slice at hand. Decoding is exact, so
nothing drifts.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from oasisvq.codec.codes import Codes, CodesFile, Slices
from oasisvq.codec.exact import Numbers
from oasisvq.codec.headers import Coder, CodesHeader
from oasisvq.codec.modelfile import ModelFile
from oasisvq.codec.networks import DECODED_STEPS, PIXEL_STEPS, Steps
from oasisvq.codec.recall import Recall
from oasisvq.errors import CodesFileError, ImageError


@contextmanager
def refusing_what_does_not_fit() -> Iterator[None]:
    """Turn a lack of memory into an ImageError: the image is too large for this machine."""
    try:
        yield
    except MemoryError as error:
        raise ImageError("an image too large for this machine's memory; cut or shrink it") from error


class Chain(Slices):
    """Codes the slices of an image or a volume one after the other.

    Attributes:
        model: codec and prior for such files, see `ModelFile.coding`.
    """

    def __init__(self, model: ModelFile, header: CodesHeader) -> None:
        """Begin before the first slice, with the model that codes such files."""
        super().__init__(Recall(model.codebooks) if header.volume else None)
        self.model, self._header = model, header
        self._has_context = bool(model.config.context) and header.volume is not None
        self._before: tuple[int, NDArray[np.uint16]] | None = None

    def context(self, place: int) -> Steps | None:
        """The previous slice (1, H, W), scaled as pixels of slice `place`; None if there is none."""
        if self._before is None:
            return None
        assert self._header.volume is not None
        before, decoded = self._before
        ranges = self._header.volume.ranges
        (low_before, high_before), (low, high) = ranges[before], ranges[place]
        # in steps of 1 / (DECODED_STEPS · RANGE_UNITS) of the volume's range: whole numbers below 2^33
        values = decoded.astype(np.int64) * (high_before - low_before)
        values += (low_before - low) * DECODED_STEPS
        whole = (high - low) * DECODED_STEPS
        steps = np.clip((2 * PIXEL_STEPS * values + whole) // (2 * whole), 0, PIXEL_STEPS)
        return steps.astype(np.int32)[None]

    def expected(self, place: int) -> Numbers | None:
        """The latents of a slice that looks exactly as the previous one."""
        prior, context = self.model.prior, self.context(place)
        if context is None or prior is None or not prior.config.expected:
            return None
        return self.latents(place, context)

    def latents(self, place: int, pixels: Steps) -> Numbers:
        """Pixels (1, H, W) in 0..PIXEL_STEPS of the next slice -> latents (h, w, D) in 256ths."""
        with refusing_what_does_not_fit():
            latents: Numbers = self.model.encoder(pixels, self.context(place))[0]
        return latents

    def pixels(self, place: int, indices: NDArray[np.uint16]) -> NDArray[np.uint16]:
        """Indices (L, h, w) of the next slice, of any number of levels -> (H, W) in 0..DECODED_STEPS."""
        with refusing_what_does_not_fit():
            latents = self.model.quantizer.dequantize(indices)[None]
            pixels: NDArray[np.uint16] = self.model.decoder(latents, self.context(place))[0]
        return pixels

    def go_on(self, place: int, indices: NDArray[np.uint16]) -> None:
        if self._has_context:
            self.go_on_with(place, self.pixels(place, indices))

    def go_on_with(self, place: int, decoded: NDArray[np.uint16]) -> None:
        """As `go_on`, given what the next slice decodes to, (H, W) in 0..DECODED_STEPS."""
        if self._has_context:
            self.windows.append(decoded)
            self._before = place, decoded


def steps_of(pixels: NDArray[np.float64]) -> Steps:
    """Pixels (H, W) in [0, 1] -> (1, H, W) in 0..PIXEL_STEPS, as networks see them."""
    steps: Steps = np.rint(pixels * PIXEL_STEPS).astype(np.int32)[None]
    return steps


def codes_of(model: ModelFile, file: CodesFile) -> Codes:
    """Header and indices of a `.codes` file that the model made; the caller has checked that it did.

    Raises:
        CodesFileError: the file is damaged.
    """
    header = file.header
    if header.coder is Coder.LABELS:
        return file.codes()
    coding = model.coding(header.volume is not None)
    if header.levels > coding.config.levels:
        raise CodesFileError(f"{file.name}: damaged: its grid does not fit the model that it names")
    return file.codes(coding.prior, Chain(coding, header))
