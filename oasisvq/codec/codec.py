"""The chain assembled: `Codec.load`, `encode`, `decode`.

Shapes: L levels, H×W image, h×w grid.
"""

import math
from collections.abc import Callable, Iterable, Iterator
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
from oasisvq.codec.feedback import with_feedback
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
from oasisvq.codec.networks import DECODED_STEPS
from oasisvq.codec.outliers import Core, core_of
from oasisvq.codec.pixels import NOTHING, choose_window, from_pixels, to_pixels
from oasisvq.codec.prior import Pass
from oasisvq.codec.slices import Chain, codes_of, steps_of
from oasisvq.codec.stacking import Stacking
from oasisvq.codec.wish import Wish
from oasisvq.errors import CodesFileError, ImageError, ModelError
from oasisvq.scans.limits import DEFAULT_MAX_PIXELS
from oasisvq.scans.scan import Scan, as_scan

# What a bit counts as, in shares of the energy of the last level's codes: measured on the validation
# split, see examples/benchmarks/RESULTS.md. It counts half if one level is kept: coarse codes bear less.
RATE_WEIGHT_PER_LEVEL = 0.0375
LARGEST_RATE_WEIGHT = 0.075
RATE_SHARE_WITH_CONTEXT = 0.4  # of those weights, if later slices build on what a slice keeps


Advance = Callable[[int, int], None]


class Codec(Drawing, Measuring, Stacking):
    """A model that encodes scans to `.codes` bytes and decodes them.

    Each image passes through the networks alone, so its bytes do not depend on what else is encoded.

    Attributes:
        config: the model's config.
        prior: of the model, if it has one.
        volumes: codec and prior for volumes; those for images if the model has no others.
        fingerprint: 8 bytes that identify the model in the files that it makes.
        card: what the model file says of its training.
    """

    def __init__(self, file: ModelFile) -> None:
        self.file = file
        self.config, self.prior, self.card = file.config, file.prior, file.card
        self.volumes = file.coding(True)
        self.fingerprint = file.fingerprint

    @classmethod
    def load(cls, path: Path) -> "Codec":
        """The codec of a model file; `models.py` chooses one if none is named.

        Raises:
            FileError: there is no such file.
            ModelError: it is not a whole model file of ours.
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
        feedback: bool = True,
    ) -> bytes:
        """An image or a volume to the bytes of a `.codes` file.

        Args:
            array: (H, W) of uint8 or uint16, or a volume (X, Y, Z) of integers or floats.
            levels: how many levels to keep, from 1 to the model's; its default if None.
            coder: how indices are coded; if None, by the prior if the model has one.
            spacing: of a volume, voxel size in millimetres along each axis.
            affine: of a volume, in place of `spacing`; see `as_scan`.
            axis: of a volume, the axis that slices follow; see `scan_of_volume`.
            content: whether the array is a scan or labels.
            lossy: code labels by the model too; otherwise they come back exactly.
            max_error: the largest error of any voxel; 0 loses nothing.
            min_ssim: the least SSIM of the decoded file, see `Measure`; the smallest such file is made.
            min_foreground_ssim: likewise for the foreground SSIM.
            min_psnr: likewise for the PSNR, in dB.
            max_bytes: the largest size of the file; as the only demand it gives the best such file.
            feedback: whether an image is encoded twice, to correct its error, see `feedback.py`;
                without, it takes less than half of the time.

        Raises:
            ImageError: the array is not one of these, or no file satisfies what is asked for.
            ModelError: `levels` is out of range, or the model lacks what is asked for.
        """
        demands = Demands(min_ssim, min_foreground_ssim, min_psnr, max_bytes)
        wish = Wish(levels, coder, content, lossy, bound=max_error, demands=demands, feedback=feedback)
        return self.encode_scan(as_scan(array, spacing, affine, axis), wish)

    def encode_scan(
        self, scan: Scan, wish: Wish | None = None, advance: Advance = lambda done, total: None
    ) -> bytes:
        """A scan to the bytes of a `.codes` file; `advance` is called with (slices done, all slices).

        Raises:
            ImageError: the scan is said to be labels and is not, or no file satisfies the wish.
            ModelError: the wish does not fit the model.
        """
        return self.encode_seen(scan, wish, advance).content

    def encode_seen(
        self, scan: Scan, wish: Wish | None = None, advance: Advance = lambda done, total: None
    ) -> Encoded:
        """`encode_scan`, with what the file will decode to."""
        wish = wish or Wish()
        refuse_demands(wish)
        is_volume = bool(scan.placement)  # an impossible wish is refused for labels too
        self.levels_for(wish, is_volume), self.check_coder(wish.coder, is_volume)
        labels = labels_in(scan.planes, wish.content, scan.says_labels)
        if labels is None:
            return self._encode_core(scan, core_of(scan.planes), wish, (), advance)
        names, ranks = labels.names, labels.ranks(scan.planes)
        if wish.lossy and wish.bound is not None:
            raise ImageError("labels that are coded by the model have no largest error; leave one out")
        if wish.lossy:
            return self._encode_core(scan, Core(ranks, (0, len(names) - 1)), wish, names, advance)
        header = header_of(scan, Coder.LABELS, labels=names)
        content = container.write(header, encode_labels(ranks, len(names)))
        exact = Encoded(content, header, scan, lambda: scan)
        if labels.is_plain:
            refuse_large_labels(len(content), wish.demands)
            return exact
        try:
            lossy = self._encode_core(scan, core_of(scan.planes), wish, (), advance)
        except (ImageError, ModelError):  # by the model the wish cannot be kept
            if len(content) <= (wish.demands.max_bytes or math.inf):
                return exact
            raise
        most = min(labels.most_times_larger * len(lossy.content), wish.demands.max_bytes or math.inf)
        return exact if len(content) <= most else lossy

    def _encode_core(
        self, scan: Scan, core: Core, wish: Wish, labels: tuple[float, ...], advance: Advance
    ) -> Encoded:
        """Code the core of a scan, or the ranks of its labels, by the model."""
        is_volume = bool(scan.placement)
        levels, coder = self.levels_for(wish, is_volume), self.check_coder(wish.coder, is_volume)
        coding = self.file.coding(is_volume)
        planes, intensity = core.planes, core.intensity
        header = header_of(
            scan,
            coder,
            labels=labels,
            stride=coding.config.stride,
            window=choose_window(planes, coding.config.window, coding.config.stride),
            levels=levels,
            codebook_size=coding.config.codebook_size,
            intensity=intensity,
            fingerprint=self.fingerprint,
            ranges=slice_ranges(planes, intensity) if scan.placement else (),
            outliers=core.outliers,
        )
        if not wish.demands.are_any:
            return self._code(scan, core, header, wish, None, advance)
        known: dict[int, Numbers] = {}  # for all attempts

        def code(levels: int, bound: float | None) -> Encoded:
            tried = wish._replace(bound=bound)
            return self._code(scan, core, replace(header, levels=levels), tried, known, advance)

        levels = self.levels_for(wish._replace(bound=0.0), is_volume)
        has_residues = self.file.residue is not None
        likely = None if is_volume else self.likely_levels(wish.demands)
        ways = Ways(code, coding.config.levels, levels, has_residues, wish.bound, likely)
        return smallest(scan, wish.demands, ways)

    def _code(
        self,
        scan: Scan,
        core: Core,
        header: CodesHeader,
        wish: Wish,
        known: dict[int, Numbers] | None,
        advance: Advance,
    ) -> Encoded:
        """Planes (slices, H, W) to a file, with everything beside their indices; see `_payload`."""
        bound = wish.bound
        chain = Chain(self.file.coding(header.volume is not None), header)
        is_plain = header.volume is None and not header.labels and bound is None
        payload, grids = self._payload(
            chain, header, core.planes, is_plain and wish.feedback, known, advance
        )
        windows = chain.windows if header.volume is None else chain.windows or None
        beside = NOTHING_BESIDE
        if not header.labels:
            decoded = self._decoded(header, grids, windows=windows)
            header, beside = particular.encode_beside(
                scan.planes, core, header, decoded, self.file, bound, len(payload)
            )
        content = container.write(header, payload, beside)
        indices = indices_of(header, grids)
        codes = Codes(header, indices, len(content), beside=beside, windows=windows)
        if bound is None:
            return Encoded(content, header, scan, lambda: self.decode_codes(codes, "codes"))
        restored = self.decode_codes(self.codes_of(container.read(content, "codes")), "codes")
        particular.refuse_beyond(scan.planes, restored.planes, bound)
        return Encoded(content, header, scan, lambda: restored)

    def _payload(
        self,
        chain: Chain,
        header: CodesHeader,
        planes: NDArray[np.generic],
        feeds_back: bool,
        known: dict[int, Numbers] | None,
        advance: Advance,
    ) -> tuple[bytes, list[NDArray[np.uint16]]]:
        """Planes (slices, H, W) to a payload, and the indices (L, h, w) of each coded one.

        Args:
            chain: at its start.
            header: of the file.
            planes: without NaN.
            feeds_back: whether the planes, of an image, are encoded twice, see `feedback.py`.
            known: latents by slice, from earlier attempts; this one adds its own if they do not depend
                on the previous slice. None if this is the only attempt.
            advance: called with (slices done, all slices).
        """
        model, grids = chain.model, []

        def grid_encoder() -> GridEncoder | None:
            if header.coder is not Coder.PRIOR or not header.coded_slices:
                return None
            assert model.prior is not None
            return GridEncoder(model.prior, header.grid_shape, chain.recall)

        encoder = grid_encoder()
        for place in header.coded_slices:
            cut = to_pixels(planes[place], header.slice_range(place), header.window, header.stride)
            pixels, latents = steps_of(cut), known.get(place) if known else None
            if latents is None:
                latents = chain.latents(place, pixels)
            if known is not None and not model.config.context:
                known[place] = latents
            if feeds_back:
                first = _indices(model, latents, header.levels, grid_encoder())
                latents = chain.latents(place, with_feedback(pixels, chain.pixels(place, first)))
            grid = _indices(model, latents, header.levels, encoder, chain.expected(place))
            chain.go_on(place, grid)
            grids.append(grid)
            advance(place + 1, header.slices)
        if header.coder is Coder.PACKED:
            return pack(np.array(grids, np.int64), header.codebook_size), grids
        return encoder.finish() if encoder else b"", grids

    # --- write codes that this model made ----------------------------------------------------------

    def write_codes(self, codes: Codes) -> bytes:
        """Codes that this model made -> the bytes of a `.codes` file."""
        header = codes.header
        self.refuse_other_model(header, "codes")
        refuse_indices(codes, "codes")
        grids = codes.indices if header.volume else codes.indices[None]
        grids = grids[header.coded_slices]
        if header.coder is Coder.PACKED or not grids.size:
            return container.write(header, pack(grids, header.codebook_size), codes.beside)
        model = self.file.coding(header.volume is not None)
        assert model.prior is not None
        chain = Chain(model, header)
        encoder = GridEncoder(model.prior, header.grid_shape, chain.recall)
        for place, grid in zip(header.coded_slices, grids, strict=True):
            kind = model.prior.kind_of(model.quantizer.dequantize(grid))
            encoder.put(kind, partial(_given, grid), chain.expected(place))
            chain.go_on(place, grid)
        return container.write(header, encoder.finish(), codes.beside)

    # --- decode -------------------------------------------------------------------------------

    def decode(
        self, content: bytes, max_pixels: int = DEFAULT_MAX_PIXELS, levels: int | None = None
    ) -> NDArray[np.generic]:
        """The bytes of a `.codes` file to an array of the original's shape and type.

        This is (H, W) for an image; (X, Y, Z) for a volume, in the order of its file; (N, H, W) for a
        stack, in the order of `codes.header.stack.names`.

        Args:
            content: of the file.
            max_pixels: see `refuse_large_codes`.
            levels: how many levels to decode, without residue; if None, everything that the file has.

        Raises:
            CodesFileError: the bytes are damaged, were made with another model, or lack these levels.
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
        return codes_of(self.file, file)

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
            advance: called with (slices done, all slices).
            levels: how many levels to decode, without residue; if None, everything that the file has.

        Raises:
            CodesFileError: the codes do not fit this model, or lack these levels.
        """
        header = codes.header
        self.refuse_other_model(header, name)
        placement = placement_of(header)
        particular.refuse_other_levels(header, levels, name)
        if codes.label_map is not None:
            labels = codes.label_map.reshape(header.slices, *header.shape)
            return Scan(labels, placement, stack=header.stack)
        config = self.file.coding(header.volume is not None).config
        ours = (config.stride, config.codebook_size)
        if (header.stride, header.codebook_size) != ours or header.levels > config.levels:
            raise CodesFileError(f"{name}: damaged: its grid does not fit the model that it names")
        refuse_indices(codes, name)
        grids = codes.indices if header.volume else codes.indices[None]
        coded = [grids[place] for place in header.coded_slices]
        decoded, guides = self._decoded(header, coded, levels, codes.windows), None
        if levels is not None:
            codes = codes._replace(header=replace(header, residue=None))
            guides = self._decoded(header, coded, None, codes.windows) if header.ground else None
        planes = np.empty((header.slices, *header.shape), header.decoded_dtype)
        for place, plane in enumerate(particular.lay_beside(decoded, guides, codes, self.file, name)):
            planes[place] = plane
            advance(place + 1, header.slices)
        if header.labels:
            planes = header.label_values[planes]
        return Scan(planes, placement, stack=header.stack)

    def _decoded(
        self,
        header: CodesHeader,
        grids: Iterable[NDArray[np.uint16]],
        levels: int | None = None,
        windows: list[NDArray[np.uint16]] | None = None,
    ) -> Iterator[NDArray[np.generic]]:
        """The indices (L, h, w) of the coded slices to planes (H, W) of all slices.

        Args:
            header: of the file.
            grids: with all levels of the file, since later slices build on all of them.
            levels: how many to decode; all if None.
            windows: what the first grids decode to with all levels; what the others do is added. None
                keeps nothing.
        """
        chain = Chain(self.file.coding(header.volume is not None), header)
        left = enumerate(grids)
        is_coded, dtype = set(header.coded_slices), header.decoded_dtype
        for place in range(header.slices):
            pixels, window = np.zeros((0, 0)), NOTHING
            if place in is_coded:
                (number, grid), window = next(left), header.window
                if windows is None:
                    steps = chain.pixels(place, grid)
                else:
                    if number == len(windows):
                        windows.append(chain.pixels(place, grid))
                    steps = windows[number]
                shown = steps
                if levels is not None and levels < header.levels:
                    shown = chain.pixels(place, grid[:levels])
                chain.go_on_with(place, steps)
                pixels = shown / np.float64(DECODED_STEPS)
            darkest_and_brightest = header.slice_range(place)
            yield from_pixels(pixels, darkest_and_brightest, window, header.stride, header.shape, dtype)

    def refuse_other_model(self, header: CodesHeader, name: str) -> None:
        """See `refuse_other_model` in `modelfile.py`."""
        refuse_other_model(self.file, header, name)

    def levels_for(self, wish: Wish, is_volume: bool) -> int:
        """The number of levels that a wish amounts to, for an image or a volume.

        Raises:
            ModelError: out of the model's range.
        """
        return levels_for(self.file.coding(is_volume).config, wish, is_volume)

    def check_levels(self, levels: int | None) -> int:
        """The number of levels to keep.

        Raises:
            ModelError: out of the model's range.
        """
        return checked_levels(self.config, levels)

    def check_coder(self, coder: Coder | None, is_volume: bool = False) -> Coder:
        """The coder to use for an image or a volume.

        Raises:
            ModelError: the coder needs a prior, and the model has none.
        """
        has_prior = self.file.coding(is_volume).prior is not None
        return checked_coder(has_prior, self.fingerprint, coder)


def _given(indices: NDArray[np.uint16], step: Pass, _: Frequencies) -> NDArray[np.uint16]:
    """The indices (levels, h, w) of a pass."""
    chosen: NDArray[np.uint16] = indices[step.level, step.rows, step.columns]
    return chosen


def _indices(
    model: ModelFile,
    latents: Numbers,
    levels: int,
    encoder: GridEncoder | None,
    expected: Numbers | None = None,
) -> NDArray[np.uint16]:
    """Latents (h, w, D) to indices (levels, h, w), which the encoder puts into its payload, if any."""
    if encoder is None:
        return model.quantizer.quantize(latents, levels).astype(np.uint16)
    assert model.prior is not None
    kind, choose = model.prior.kind_of(latents), _chooser(model, latents, levels)
    return encoder.put(kind, choose, expected).astype(np.uint16)


def _chooser(
    model: ModelFile, latents: Numbers, levels: int
) -> Callable[[Pass, Frequencies], NDArray[np.uint16]]:
    """Gives the indices of each pass over latents (h, w, D).

    For each residual it takes the code with the least squared distance after all levels, plus
    weight · bits: one that is near, and cheap under the prior.
    """
    residual = latents.copy()
    quantizer = model.quantizer
    weight = min(RATE_WEIGHT_PER_LEVEL * levels, LARGEST_RATE_WEIGHT)
    if model.config.context:
        weight *= RATE_SHARE_WITH_CONTEXT
    weight *= quantizer.energies[levels - 1] / (2 * BIT_UNITS)  # distances are halved

    def choose(step: Pass, frequencies: Frequencies) -> NDArray[np.uint16]:
        vectors = residual[step.rows, step.columns]  # (n, D)
        costs = np.rint(bits_of(frequencies) * weight).astype(np.float32)
        chosen = quantizer.best(vectors, step.level, levels, costs)
        residual[step.rows, step.columns] = vectors - quantizer.codebooks[step.level][chosen]
        return chosen.astype(np.uint16)

    return choose
