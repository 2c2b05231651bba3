"""The chain assembled: `Codec.load`, `encode`, `decode`.

Shapes: L levels, H×W image, h×w grid.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from oasisvq.codec import container, particular
from oasisvq.codec.asked import checked_coder, checked_levels, levels_for
from oasisvq.codec.batches import Batches
from oasisvq.codec.codes import Codes, CodesFile, refuse_indices
from oasisvq.codec.content import Content, labels_in
from oasisvq.codec.entropy import GridEncoder, pack
from oasisvq.codec.exact import Numbers
from oasisvq.codec.frequencies import BIT_UNITS, Frequencies, bits_of, draw
from oasisvq.codec.headers import (
    Coder,
    CodesHeader,
    Kind,
    SampleType,
    header_of,
    placement_of,
    refuse_large_codes,
    slice_ranges,
)
from oasisvq.codec.labels import encode_labels
from oasisvq.codec.modelfile import ModelFile, read_model, refuse_other_model
from oasisvq.codec.networks import DECODED_STEPS
from oasisvq.codec.pixels import NOTHING, centred_window, choose_window, from_pixels, to_pixels
from oasisvq.codec.prior import Pass
from oasisvq.codec.slices import Chain, codes_of, steps_of
from oasisvq.codec.wish import Wish
from oasisvq.errors import CodesFileError, ImageError, ModelError
from oasisvq.scans.limits import DEFAULT_MAX_PIXELS
from oasisvq.scans.scan import Scan, as_scan

# What a bit counts as, in shares of the energy of the last level's codes: measured on the validation
# split, see examples/benchmarks/RESULTS.md. Coarse levels bear less, for the later ones build on them.
RATE_WEIGHT_PER_LEVEL = 0.0375
LARGEST_RATE_WEIGHT = 0.075


Advance = Callable[[int, int], None]


class Codec(Batches):
    """A model that encodes scans to `.codes` bytes and decodes them.

    Each image passes the networks by itself, so its bytes do not depend on what else is encoded.

    Attributes:
        config: the model's config.
        prior: of the model, where it has one.
        volumes: codec and prior of volumes, those of images where the model has no others.
        fingerprint: 8 bytes that name the model in the files that it makes.
        card: what the model file says of its training.
    """

    def __init__(self, file: ModelFile) -> None:
        self.file = file
        self.config, self.prior, self.card = file.config, file.prior, file.card
        self.volumes = file.coding(True)
        self.fingerprint = file.fingerprint

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

        Raises:
            ImageError: the array is none of these, or `max_error` cannot be held.
            ModelError: `levels` is out of range, or the model lacks what is asked for.
        """
        wish = Wish(levels, coder, content, lossy, bound=max_error)
        return self.encode_scan(as_scan(array, spacing, affine, axis), wish)

    def encode_read(
        self, scan: Scan, levels: int | None, coder: Coder | None, content: Content, lossy: bool
    ) -> bytes:
        """`encode_scan`, with its wish in parts."""
        return self.encode_scan(scan, Wish(levels, coder, content, lossy))

    def encode_scan(
        self, scan: Scan, wish: Wish | None = None, advance: Advance = lambda done, total: None
    ) -> bytes:
        """A scan to the bytes of a `.codes` file; `advance` is told (slices done, slices in all).

        Raises:
            ImageError: labels are wished for, and these are none.
            ModelError: the wish does not fit the model.
        """
        wish = wish or Wish()
        is_volume = bool(scan.placement)  # what is asked for in vain is so even of labels
        self.levels_for(wish, is_volume), self.check_coder(wish.coder, is_volume)
        labels = labels_in(scan.planes, wish.content, scan.says_labels)
        if labels is None:
            return self._encode_planes(scan, scan.planes, scan.intensity, wish, (), advance)
        names, ranks = labels.names, labels.ranks(scan.planes)
        if wish.lossy and wish.bound is not None:
            raise ImageError("labels that are coded by the model have no largest error; leave one out")
        if wish.lossy:
            return self._encode_planes(scan, ranks, (0, len(names) - 1), wish, names, advance)
        header = header_of(scan, Coder.LABELS, labels=names)
        exact = container.write(header, encode_labels(ranks, len(names)))
        if labels.is_plain:
            return exact
        lossy = self._encode_planes(scan, scan.planes, scan.intensity, wish, (), advance)
        return exact if len(exact) <= labels.most_times_larger * len(lossy) else lossy

    def _encode_planes(
        self,
        scan: Scan,
        planes: NDArray[np.generic],
        intensity: tuple[float, float],
        wish: Wish,
        labels: tuple[float, ...],
        advance: Advance,
    ) -> bytes:
        """Code planes (slices, H, W), those of the scan or the ranks of its labels, by the model."""
        is_volume = bool(scan.placement)
        levels, coder = self.levels_for(wish, is_volume), self.check_coder(wish.coder, is_volume)
        coding = self.file.coding(is_volume)
        stored, planes = planes, particular.without_nan(planes, intensity[0])
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
        )
        chain = Chain(coding, header)
        payload, grids = self._payload(chain, header, planes, advance)
        if labels:
            return container.write(header, payload)
        decoded = self._decoded(header, grids, windows=chain.windows or None)
        header, beside = particular.encode_beside(
            stored, header, decoded, self.file.residue, wish.bound, len(payload)
        )
        content = container.write(header, payload, beside)
        if wish.bound is not None:
            restored = self.decode_codes(self.codes_of(container.read(content, "codes")), "codes")
            particular.refuse_beyond(stored, restored.planes, wish.bound)
        return content

    def _payload(
        self,
        chain: Chain,
        header: CodesHeader,
        planes: NDArray[np.generic],
        advance: Advance = lambda done, total: None,
    ) -> tuple[bytes, list[NDArray[np.uint16]]]:
        """Planes (slices, H, W) to a payload, and the indices (L, h, w) of each coded one."""
        model, grids = chain.model, []
        encoder = None
        if header.coder is Coder.PRIOR and header.coded_slices:
            assert model.prior is not None
            encoder = GridEncoder(model.prior, header.grid_shape, chain.recall)
        for place in header.coded_slices:
            pixels = to_pixels(planes[place], header.slice_range(place), header.window, header.stride)
            latents = chain.latents(place, steps_of(pixels))
            if encoder is None:
                grid = model.quantizer.quantize(latents, header.levels).astype(np.uint16)
            else:
                assert model.prior is not None
                kind, choose = model.prior.kind_of(latents), _chooser(model, latents, header.levels)
                grid = encoder.put(kind, choose, chain.expected(place))
            chain.go_on(place, grid)
            grids.append(grid)
            advance(place + 1, header.slices)
        if header.coder is Coder.PACKED:
            return pack(np.array(grids, np.int64), header.codebook_size), grids
        return encoder.finish() if encoder else b"", grids

    # --- sample -------------------------------------------------------------------------------

    def sample(
        self, seeds: Sequence[int], levels: int | None = None, temperature: float = 1.0
    ) -> list[Codes]:
        """Draw new slices from the prior, one by each seed, as codes of square uint8 images.

        Args:
            seeds: each decides its slice alone, whatever else is drawn.
            levels: how many levels to draw, 1 to the model's; its default where None.
            temperature: shares of codes are raised to 1 / temperature: below 1 nearer the most likely
                brain, above 1 wilder. The kind of the slice is always drawn as it is met.

        Raises:
            ModelError: the model has no prior, or `levels` is out of range.
        """
        levels = self.check_levels(levels)
        if self.prior is None:
            raise ModelError(
                f"model {self.fingerprint.hex()[:8]} has no prior to draw from; give it one with "
                "`oasisvq train data/ --prior-only --model ...`"
            )
        trained_on = self.card.get("size")
        side = trained_on if type(trained_on) is int and trained_on > 0 else max(self.config.window)
        window = centred_window((side, side), self.config.window, self.config.stride)
        generators = [np.random.default_rng(seed) for seed in seeds]
        kinds = draw(self.prior.kind_frequencies[None, None], generators, 1.0)[:, 0]

        def choose(_: Pass, frequencies: Frequencies) -> NDArray[np.uint16]:
            return draw(frequencies, generators, temperature)

        shape = len(seeds), levels, window.height, window.width
        header = CodesHeader(
            coder=Coder.PRIOR,
            kind=Kind.IMAGE,
            sample_type=SampleType.UINT8,
            shape=(side, side),
            stride=self.config.stride,
            window=window,
            levels=levels,
            codebook_size=self.config.codebook_size,
            intensity=(0, 255),
            fingerprint=self.fingerprint,
        )
        return [Codes(header, grid, 0) for grid in self.prior.walk(shape, kinds, choose)]

    def write_codes(self, codes: Codes) -> bytes:
        """Codes that this model made to the bytes of a `.codes` file."""
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

        (H, W) of an image; (X, Y, Z) of a volume, in the order that its file had.

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
        return self.decode_codes(self.codes_of(file), "codes", levels=levels).voxels

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
            return Scan(codes.label_map.reshape(header.slices, *header.shape), placement)
        config = self.file.coding(header.volume is not None).config
        ours = (config.stride, config.codebook_size)
        if (header.stride, header.codebook_size) != ours or header.levels > config.levels:
            raise CodesFileError(f"{name}: damaged: its grid does not fit the model that it names")
        refuse_indices(codes, name)
        grids = codes.indices if header.volume else codes.indices[None]
        coded = (grids[place] for place in header.coded_slices)
        decoded = self._decoded(header, coded, levels, codes.windows)
        planes = np.empty((header.slices, *header.shape), header.decoded_dtype)
        for place, plane in enumerate(
            particular.lay_beside(decoded, codes, self.file.residue, levels, name)
        ):
            planes[place] = plane
            advance(place + 1, header.slices)
        if header.labels:
            planes = header.label_values[planes]
        return Scan(planes, placement)

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
            grids: with all its levels, which the slices after them build on.
            levels: to decode; all where None.
            windows: what the grids decode to with all levels, where that is known.
        """
        chain = Chain(self.file.coding(header.volume is not None), header)
        left, known = iter(grids), iter(windows or ())
        is_coded, dtype = set(header.coded_slices), header.decoded_dtype
        for place in range(header.slices):
            pixels, window = np.zeros((0, 0)), NOTHING
            if place in is_coded:
                grid, window = next(left), header.window
                steps = next(known) if windows else chain.pixels(place, grid)
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
        """The number of levels that a wish comes to, of an image or a volume.

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
        """The coder to use, of an image or a volume.

        Raises:
            ModelError: it needs a prior, and the model has none.
        """
        has_prior = self.file.coding(is_volume).prior is not None
        return checked_coder(has_prior, self.fingerprint, coder)


def _given(indices: NDArray[np.uint16], step: Pass, _: Frequencies) -> NDArray[np.uint16]:
    """The indices (levels, h, w) of a pass."""
    chosen: NDArray[np.uint16] = indices[step.level, step.rows, step.columns]
    return chosen


def _chooser(
    model: ModelFile, latents: Numbers, levels: int
) -> Callable[[Pass, Frequencies], NDArray[np.uint16]]:
    """Gives the indices of each pass over latents (h, w, D).

    Of each residual the code is taken with the least squared distance, all levels completed, plus
    weight · bits: near, and cheap under the prior.
    """
    residual = latents.copy()
    quantizer = model.quantizer
    weight = min(RATE_WEIGHT_PER_LEVEL * levels, LARGEST_RATE_WEIGHT)
    weight *= quantizer.energies[levels - 1] / (2 * BIT_UNITS)  # distances are halved

    def choose(step: Pass, frequencies: Frequencies) -> NDArray[np.uint16]:
        vectors = residual[step.rows, step.columns]  # (n, D)
        costs = np.rint(bits_of(frequencies) * weight).astype(np.float32)
        chosen = quantizer.best(vectors, step.level, levels, costs)
        residual[step.rows, step.columns] = vectors - quantizer.codebooks[step.level][chosen]
        return chosen.astype(np.uint16)

    return choose
