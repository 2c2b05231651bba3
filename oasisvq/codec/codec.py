"""The chain assembled: `Codec.load`, `encode`, `decode`.

Shapes: L levels, H×W image, h×w grid.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from oasisvq.codec import container, particular
from oasisvq.codec.asked import checked_coder, checked_levels, levels_for, refuse_demands
from oasisvq.codec.attempts import Ways, smallest
from oasisvq.codec.codes import NOTHING_BESIDE, Codes, CodesFile, indices_of, refuse_indices
from oasisvq.codec.content import Content, labels_in
from oasisvq.codec.demand import Demands, refuse_large_labels
from oasisvq.codec.drawing import Drawing
from oasisvq.codec.encoded import Encoded
from oasisvq.codec.entropy import GridEncoder, pack
from oasisvq.codec.exact import Numbers
from oasisvq.codec.frequencies import BIT_UNITS, Frequencies, bits_of
from oasisvq.codec.headers import (
    Coder,
    CodesHeader,
    header_of,
    placement_of,
    refuse_large_codes,
    slice_ranges,
)
from oasisvq.codec.labels import encode_labels
from oasisvq.codec.measuring import Measuring
from oasisvq.codec.modelfile import ModelFile, read_model, refuse_other_model
from oasisvq.codec.networks import DECODED_STEPS, PIXEL_STEPS
from oasisvq.codec.outliers import Typical, typical_of
from oasisvq.codec.pixels import NOTHING, choose_window, from_pixels, to_pixels
from oasisvq.codec.prior import Pass
from oasisvq.codec.recall import Recall
from oasisvq.codec.stacking import Stacking
from oasisvq.codec.wish import Wish
from oasisvq.errors import CodesFileError, ImageError
from oasisvq.scans.limits import DEFAULT_MAX_PIXELS
from oasisvq.scans.scan import Scan, as_scan

# What a bit counts as, in shares of the energy of the last level's codes: measured on the validation
# split, see examples/benchmarks/RESULTS.md. Coarse levels bear less, for the later ones build on them.
RATE_WEIGHT_PER_LEVEL = 0.0375
LARGEST_RATE_WEIGHT = 0.075


Advance = Callable[[int, int], None]


@contextmanager
def _refusing_what_does_not_fit() -> Iterator[None]:
    """An image too large for this machine's memory is an error of the image, not a crash."""
    try:
        yield
    except MemoryError as error:
        raise ImageError("an image too large for this machine's memory; cut or shrink it") from error


class Codec(Drawing, Measuring, Stacking):
    """A model that encodes scans to `.codes` bytes and decodes them.

    Each image passes the networks by itself, so its bytes do not depend on what else is encoded.

    Attributes:
        config: the model's config.
        prior: of the model, where it has one.
        fingerprint: 8 bytes that name the model in the files that it makes.
        card: what the model file says of its training.
    """

    def __init__(self, file: ModelFile) -> None:
        self.file = file
        self.config, self.prior, self.card = file.config, file.prior, file.card
        self.fingerprint = file.fingerprint
        self._quantizer = file.quantizer

    @classmethod
    def load(cls, path: Path) -> "Codec":
        """The codec of a model file; which one is meant where none is named says `models.py`.

        Raises:
            FileError: no such file.
            ModelError: not a whole model of ours.
        """
        return cls(read_model(path))

    # --- encode -------------------------------------------------------------------------------

    def encode(
        self,
        array: NDArray[np.generic],
        levels: int | None = None,
        coder: Coder | None = None,
        *,
        spacing: tuple[float, float, float] | None = None,
        affine: NDArray[np.float64] | None = None,
        axis: str | None = None,
        content: Content = Content.AUTO,
        lossy: bool = False,
        max_error: float | None = None,
        min_ssim: float | None = None,
        min_foreground_ssim: float | None = None,
        min_psnr: float | None = None,
        max_bytes: int | None = None,
    ) -> bytes:
        """An image or a volume to the bytes of a `.codes` file.

        Args:
            array: (H, W) of uint8 or uint16, or a volume (X, Y, Z) of integers or floats.
            levels: how many levels to keep, 1 to the model's; its default where None.
            coder: how indices are coded; by the prior where the model has one, where None.
            spacing: of a volume, millimetres to a voxel along each axis.
            affine: of a volume, in place of `spacing`; see `as_scan`.
            axis: of a volume: that slices follow; see `scan_of_volume`.
            content: whether it is a scan or labels.
            lossy: code labels by the model too; else they come back exactly.
            max_error: no voxel comes back farther than this from the one given; 0 loses nothing.
            min_ssim: the file keeps at least so much, see `Measure`; it is the smallest that does.
            min_foreground_ssim: likewise.
            min_psnr: likewise, in dB.
            max_bytes: the file has at most so many; alone, it is the best that has.

        Raises:
            ImageError: the array is none of these, or no file satisfies what is asked for.
            ModelError: `levels` is out of range, or the model lacks what is asked for.
        """
        demands = Demands(min_ssim, min_foreground_ssim, min_psnr, max_bytes)
        wish = Wish(levels, coder, content, lossy, bound=max_error, demands=demands)
        return self.encode_scan(as_scan(array, spacing, affine, axis), wish)

    def encode_scan(
        self, scan: Scan, wish: Wish | None = None, advance: Advance = lambda done, total: None
    ) -> bytes:
        """A scan to the bytes of a `.codes` file; `advance` is told (slices done, slices in all).

        Raises:
            ImageError: labels are wished for, and these are none.
            ModelError: the wish does not fit the model.
        """
        return self.encode_seen(scan, wish, advance).content

    def encode_seen(
        self, scan: Scan, wish: Wish | None = None, advance: Advance = lambda done, total: None
    ) -> Encoded:
        """`encode_scan`, with what the file will decode to."""
        wish = wish or Wish()
        refuse_demands(wish)
        self.levels_for(wish, False), self.check_coder(wish.coder)  # asked for in vain even of labels
        labels = labels_in(scan.planes, wish.content, scan.says_labels)
        if labels is None:
            return self._encode_typical(scan, typical_of(scan.planes), wish, (), advance)
        names, ranks = labels.names, labels.ranks(scan.planes)
        if wish.lossy and wish.bound is not None:
            raise ImageError("labels that are coded by the model have no largest error; leave one out")
        if wish.lossy:
            return self._encode_typical(scan, Typical(ranks, (0, len(names) - 1)), wish, names, advance)
        header = header_of(scan, Coder.LABELS, labels=names)
        content = container.write(header, encode_labels(ranks, len(names)))
        exact = Encoded(content, header, scan, lambda: scan)
        if labels.is_plain:
            refuse_large_labels(len(content), wish.demands)
            return exact
        lossy = self._encode_typical(scan, typical_of(scan.planes), wish, (), advance)
        most = min(labels.most_times_larger * len(lossy.content), wish.demands.max_bytes or math.inf)
        return exact if len(content) <= most else lossy

    def _encode_typical(
        self, scan: Scan, typical: Typical, wish: Wish, labels: tuple[float, ...], advance: Advance
    ) -> Encoded:
        """Code what is typical of a scan, or the ranks of its labels, by the model."""
        levels, coder = self.levels_for(wish, bool(scan.placement)), self.check_coder(wish.coder)
        planes, intensity = typical.planes, typical.intensity
        header = header_of(
            scan,
            coder,
            labels=labels,
            stride=self.config.stride,
            window=choose_window(planes, self.config.window, self.config.stride),
            levels=levels,
            codebook_size=self.config.codebook_size,
            intensity=intensity,
            fingerprint=self.fingerprint,
            ranges=slice_ranges(planes, intensity) if scan.placement else (),
            outliers=typical.outliers,
        )
        latents: Iterable[Numbers] = self._latents_of(planes, header, advance)
        if not wish.demands.are_any:
            return self._code(scan, typical, header, latents, wish.bound)
        known = list(latents)  # for all attempts

        def code(levels: int, bound: float | None) -> Encoded:
            return self._code(scan, typical, replace(header, levels=levels), known, bound)

        levels = self.levels_for(wish._replace(bound=0.0), bool(scan.placement))
        has_residues = self.file.residue is not None
        ways = Ways(code, self.config.levels, levels, has_residues, wish.bound)
        return smallest(scan, wish.demands, ways)

    def _code(
        self,
        scan: Scan,
        typical: Typical,
        header: CodesHeader,
        latents: Iterable[Numbers],
        bound: float | None,
    ) -> Encoded:
        """Latents (h, w, D) of the coded slices, and what is beside them, to a file."""
        payload, grids = self._payload(header, latents)
        beside = NOTHING_BESIDE
        if not header.labels:
            decoded = self._decoded(header, grids)
            header, beside = particular.encode_beside(
                scan.planes, typical, header, decoded, self.file.residue, bound, len(payload)
            )
        content = container.write(header, payload, beside)
        codes = Codes(header, indices_of(header, grids), len(content), beside=beside)
        if bound is None:
            return Encoded(content, header, scan, lambda: self.decode_codes(codes, "codes"))
        restored = self.decode_codes(self.codes_of(container.read(content, "codes")), "codes")
        particular.refuse_beyond(scan.planes, restored.planes, bound)
        return Encoded(content, header, scan, lambda: restored)

    def _latents_of(
        self, planes: NDArray[np.generic], header: CodesHeader, advance: Advance
    ) -> Iterator[Numbers]:
        """Latents (h, w, D) of one coded plane after the other."""
        for place in header.coded_slices:
            pixels = to_pixels(planes[place], header.slice_range(place), header.window, header.stride)
            yield self._encoded(pixels)
            advance(place + 1, header.slices)

    def _encoded(self, pixels: NDArray[np.float64]) -> Numbers:
        """Pixels (H, W) -> latents (h, w, D) in 256ths."""
        with _refusing_what_does_not_fit():
            steps = np.rint(pixels * PIXEL_STEPS).astype(np.int32)
            latents: Numbers = self.file.encoder(steps[None])[0]
        return latents

    def _payload(
        self, header: CodesHeader, latents: Iterable[Numbers]
    ) -> tuple[bytes, list[NDArray[np.uint16]]]:
        """Latents (h, w, D) of one slice after the other to a payload, and the indices of each."""
        if header.coder is Coder.PACKED:
            packed = [self._quantizer.quantize(each, header.levels) for each in latents]
            content = pack(np.array(packed, np.int64), header.codebook_size)
            return content, [grid.astype(np.uint16) for grid in packed]
        assert self.prior is not None
        if not header.coded_slices:
            return b"", []
        encoder = GridEncoder(self.prior, header.grid_shape, self._recall(header))
        grids = [
            encoder.put(self.prior.kind_of(each), self._chooser(each, header.levels)) for each in latents
        ]
        return encoder.finish(), grids

    def _recall(self, header: CodesHeader) -> Recall | None:
        return Recall(self.file.codebooks) if header.volume else None

    def _chooser(
        self, latents: Numbers, levels: int
    ) -> Callable[[Pass, Frequencies], NDArray[np.uint16]]:
        """Gives the indices of each pass over latents (h, w, D).

        Of each residual the code is taken with the least squared distance, all levels completed, plus
        weight · bits: near, and cheap under the prior.
        """
        residual = latents.copy()
        quantizer = self._quantizer
        weight = min(RATE_WEIGHT_PER_LEVEL * levels, LARGEST_RATE_WEIGHT)
        weight *= quantizer.energies[levels - 1] / (2 * BIT_UNITS)  # distances are halved

        def choose(step: Pass, frequencies: Frequencies) -> NDArray[np.uint16]:
            vectors = residual[step.rows, step.columns]  # (n, D)
            costs = np.rint(bits_of(frequencies) * weight).astype(np.float32)
            chosen = quantizer.best(vectors, step.level, levels, costs)
            residual[step.rows, step.columns] = vectors - quantizer.codebooks[step.level][chosen]
            return chosen.astype(np.uint16)

        return choose

    # --- write codes of a model's own --------------------------------------------------------------

    def write_codes(self, codes: Codes) -> bytes:
        """Codes that this model made to the bytes of a `.codes` file."""
        header = codes.header
        self.refuse_other_model(header, "codes")
        refuse_indices(codes, "codes")
        grids = codes.indices if header.volume else codes.indices[None]
        grids = grids[header.coded_slices]
        if header.coder is Coder.PACKED or not grids.size:
            return container.write(header, pack(grids, header.codebook_size), codes.beside)
        assert self.prior is not None
        encoder = GridEncoder(self.prior, header.grid_shape, self._recall(header))
        for grid in grids:
            encoder.put(self.prior.kind_of(self._quantizer.dequantize(grid)), partial(_given, grid))
        return container.write(header, encoder.finish(), codes.beside)

    # --- decode -------------------------------------------------------------------------------

    def decode(
        self, content: bytes, max_pixels: int = DEFAULT_MAX_PIXELS, levels: int | None = None
    ) -> NDArray[np.generic]:
        """The bytes of a `.codes` file to an array of the original's shape and type.

        (H, W) of an image; (X, Y, Z) of a volume, in the order that its file had; (N, H, W) of a stack,
        in the order of `codes.header.stack.names`.

        Args:
            content: of the file.
            max_pixels: see `refuse_large_codes`.
            levels: to decode without residue; all that the file has where None.

        Raises:
            CodesFileError: the bytes are damaged, were made with another model, or lack such levels.
            ImageError: they hold more pixels than the limit, see `refuse_large_codes`.
        """
        file = container.read(content, "codes")
        refuse_large_codes(file.header, "codes", max_pixels)
        return self.decode_codes(self.codes_of(file), "codes", levels=levels).array

    def codes_of(self, file: CodesFile) -> Codes:
        """Header and indices of a `.codes` file that this model made.

        Raises:
            CodesFileError: it is damaged, or another model made it.
        """
        self.refuse_other_model(file.header, file.name)
        return file.codes(self.prior, self.file.codebooks)

    def decode_codes(
        self,
        codes: Codes,
        name: str,
        advance: Advance = lambda done, total: None,
        levels: int | None = None,
    ) -> Scan:
        """Codes to a scan.

        Args:
            codes: header and indices, or labels.
            name: what messages call the file.
            advance: told (slices done, slices in all).
            levels: to decode without residue; all that the file has where None.

        Raises:
            CodesFileError: they do not fit this model, or have no such levels.
        """
        header = codes.header
        self.refuse_other_model(header, name)
        placement = placement_of(header)
        particular.refuse_other_levels(header, levels, name)
        if codes.label_map is not None:
            labels = codes.label_map.reshape(header.slices, *header.shape)
            return Scan(labels, placement, stack=header.stack)
        ours = (self.config.stride, self.config.codebook_size)
        if (header.stride, header.codebook_size) != ours or header.levels > self.config.levels:
            raise CodesFileError(f"{name}: damaged: its grid does not fit the model that it names")
        refuse_indices(codes, name)
        grids = codes.indices if header.volume else codes.indices[None]
        coded = (grids[place][:levels] for place in header.coded_slices)
        decoded = self._decoded(header, coded)
        planes = np.empty((header.slices, *header.shape), header.decoded_dtype)
        for place, plane in enumerate(
            particular.lay_beside(decoded, codes, self.file.residue, levels, name)
        ):
            planes[place] = plane
            advance(place + 1, header.slices)
        if header.labels:
            planes = header.label_values[planes]
        return Scan(planes, placement, stack=header.stack)

    def _decoded(
        self, header: CodesHeader, grids: Iterable[NDArray[np.uint16]]
    ) -> Iterator[NDArray[np.generic]]:
        """The indices (levels, h, w) of the coded slices to planes (H, W) of all slices."""
        left, is_coded, dtype = iter(grids), set(header.coded_slices), header.decoded_dtype
        for place in range(header.slices):
            pixels, window = np.zeros((0, 0)), NOTHING
            if place in is_coded:
                pixels, window = self._pixels(next(left)), header.window
            darkest_and_brightest = header.slice_range(place)
            yield from_pixels(pixels, darkest_and_brightest, window, header.stride, header.shape, dtype)

    def refuse_other_model(self, header: CodesHeader, name: str) -> None:
        """See `refuse_other_model` in `modelfile.py`."""
        refuse_other_model(self.file, header, name)

    def _pixels(self, indices: NDArray[np.uint16]) -> NDArray[np.float64]:
        """Indices (levels, h, w) -> pixels (H, W)."""
        if not indices.size:
            return np.zeros((0, 0))
        with _refusing_what_does_not_fit():
            steps = self.file.decoder(self._quantizer.dequantize(indices)[None])[0]
        pixels: NDArray[np.float64] = steps / np.float64(DECODED_STEPS)
        return pixels

    def levels_for(self, wish: Wish, is_volume: bool) -> int:
        """The number of levels that a wish comes to, of an image or a volume.

        Raises:
            ModelError: out of the model's range.
        """
        return levels_for(self.config, wish, is_volume)

    def check_levels(self, levels: int | None) -> int:
        """The number of levels to keep.

        Raises:
            ModelError: out of the model's range.
        """
        return checked_levels(self.config, levels)

    def check_coder(self, coder: Coder | None) -> Coder:
        """The coder to use.

        Raises:
            ModelError: it needs a prior, and the model has none.
        """
        return checked_coder(self.prior is not None, self.fingerprint, coder)


def _given(indices: NDArray[np.uint16], step: Pass, _: Frequencies) -> NDArray[np.uint16]:
    """The indices (levels, h, w) of a pass."""
    chosen: NDArray[np.uint16] = indices[step.level, step.rows, step.columns]
    return chosen
