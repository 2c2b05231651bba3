"""How a codec handles many scans at once, and indices that are not in a file. Never imports torch.

Shapes: N slices, L levels, H×W image, h×w grid, K codes, D code dimension.

Indices are integers from 0 to K-1, or `NO_INDEX` where a slice has none. Latents and code vectors are
whole numbers, in 256ths.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from oasisvq.codec.asked import refuse_demands
from oasisvq.codec.codes import NO_INDEX, Codes
from oasisvq.codec.config import ModelConfig
from oasisvq.codec.content import Content
from oasisvq.codec.demand import Demands
from oasisvq.codec.exact import Numbers
from oasisvq.codec.headers import Coder, CodesHeader, Kind, SampleType, header_of, slice_ranges
from oasisvq.codec.modelfile import ModelFile
from oasisvq.codec.outliers import core_of
from oasisvq.codec.pixels import Window, cells, centred_window, to_pixels
from oasisvq.codec.slices import refusing_what_does_not_fit, steps_of
from oasisvq.codec.wish import Wish
from oasisvq.errors import CodesFileError, ImageError, OasisVQError
from oasisvq.files import read_bytes
from oasisvq.jobs import calls
from oasisvq.scans.limits import DEFAULT_MAX_PIXELS, MAX_FILE_BYTES
from oasisvq.scans.scan import Scan, as_scan, read_scan
from oasisvq.scans.source import source_at

Given = TypeVar("Given")
Made = TypeVar("Made")


class Batches(ABC):
    """The part of `Codec` that takes many scans, or indices.

    Attributes:
        file: the model.
        config: of the model.
        fingerprint: of the model.
    """

    file: ModelFile
    config: ModelConfig
    fingerprint: bytes

    @abstractmethod
    def encode_scan(self, scan: Scan, wish: Wish) -> bytes: ...

    @abstractmethod
    def decode(self, content: bytes, max_pixels: int = DEFAULT_MAX_PIXELS) -> NDArray[np.generic]: ...

    @abstractmethod
    def decode_codes(self, codes: Codes, name: str) -> Scan: ...

    @abstractmethod
    def levels_for(self, wish: Wish, is_volume: bool) -> int: ...

    @abstractmethod
    def check_coder(self, coder: Coder | None, is_volume: bool = False) -> Coder: ...

    # --- many ---------------------------------------------------------------------------------

    def encode_many(
        self,
        scans: Iterable[NDArray[np.generic] | Path | str],
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
        max_pixels: int = DEFAULT_MAX_PIXELS,
        jobs: int = 1,
    ) -> list[bytes]:
        """Encode arrays and files, in their order; the bytes are the same as if encoded one by one.

        Args:
            scans: arrays as `encode` takes them, including one array (N, H, W) of N images; and paths of
                images, volumes or folders of DICOM, as the command takes them.
            levels: for all scans, as are all settings up to `feedback`; see `encode`.
            coder: of their indices.
            spacing: of the arrays; files have their own.
            affine: of the arrays, in place of `spacing`.
            axis: of volumes, the axis that slices follow.
            content: whether they are scans or labels.
            lossy: code labels by the model too.
            max_error: the largest error of any voxel.
            min_ssim: of each scan, as are the next two.
            min_foreground_ssim: of each scan.
            min_psnr: of each scan, in dB.
            max_bytes: of each file.
            feedback: of images.
            max_pixels: how large the scan in a file may be, as in the commands.
            jobs: number of processes. With several, a script needs `if __name__ == "__main__":`, as
                always with `multiprocessing`; a notebook does not. They pay off from a few dozen slices.

        Raises:
            OasisVQError: the first scan that cannot be encoded, which it names; nothing is returned.
            ModelError: the model does not have these `levels` or this `coder`.
        """
        demands = Demands(min_ssim, min_foreground_ssim, min_psnr, max_bytes)
        wish = Wish(levels, coder, content, lossy, axis, max_error, demands, feedback)
        self.levels_for(wish, False), self.check_coder(coder)
        refuse_demands(wish)
        return _each(_EncodeOne(self, wish, spacing, affine, max_pixels), scans, jobs)

    def decode_many(
        self,
        codes: Iterable[bytes | Path | str],
        *,
        max_pixels: int = DEFAULT_MAX_PIXELS,
        jobs: int = 1,
    ) -> list[NDArray[np.generic]]:
        """Decode the bytes or paths of `.codes` files of this model, in their order; see `decode`.

        Args:
            codes: bytes, paths, or both.
            max_pixels: how large each may be.
            jobs: number of processes, see `encode_many`.

        Raises:
            OasisVQError: the first file that cannot be decoded, which it names; nothing is returned.
        """
        return _each(_DecodeOne(self, max_pixels), codes, jobs)

    # --- latents and indices ------------------------------------------------------------------

    @property
    def codebooks(self) -> NDArray[np.float32]:
        """(L, K, D) code vectors of all levels for images, whole numbers in 256ths; read-only.

        For volumes see `volume_codebooks`.
        """
        return _closed(self.file.codebooks)

    @property
    def volume_codebooks(self) -> NDArray[np.float32]:
        """(L, K, D) code vectors of all levels for volumes; see `codebooks`."""
        return _closed(self.file.coding(is_volume=True).codebooks)

    @overload
    def latents(
        self,
        array: NDArray[np.generic],
        *,
        spacing: tuple[float, float, float] | None = None,
        affine: NDArray[np.float64] | None = None,
        axis: str | None = None,
    ) -> Numbers: ...

    @overload
    def latents(
        self,
        array: Sequence[NDArray[np.generic]],
        *,
        spacing: tuple[float, float, float] | None = None,
        affine: NDArray[np.float64] | None = None,
        axis: str | None = None,
    ) -> list[Numbers]: ...

    def latents(
        self,
        array: NDArray[np.generic] | Sequence[NDArray[np.generic]],
        *,
        spacing: tuple[float, float, float] | None = None,
        affine: NDArray[np.float64] | None = None,
        axis: str | None = None,
    ) -> Numbers | list[Numbers]:
        """The encoder's output for a scan before quantization, over the model's centred window.

        In a volume the encoder sees the previous slice of the scan itself, not the decoded one. Of an
        image, `encode` quantizes latents that are corrected, see `feedback.py`.

        Args:
            array: an image (H, W) or a volume (X, Y, Z), as `encode` takes them; or a list of these.
            spacing: of volumes, see `encode`.
            affine: of volumes, in place of `spacing`.
            axis: of volumes, the axis that slices follow.

        Returns:
            (h, w, D) float32 in 256ths for an image; (slices, h, w, D) for a volume, with each slice
            normalised as in `encode`; for a list one array for each.

        Raises:
            ImageError: an array cannot be encoded.
        """
        if isinstance(array, (list, tuple)):
            return [
                self.latents(each, spacing=spacing, affine=affine, axis=axis) for each in each_of(array)
            ]
        scan = as_scan(array, spacing, affine, axis)  # type: ignore[arg-type]  # it says what else it is
        height, width = scan.planes.shape[1:]
        model = self.file.coding(bool(scan.placement))
        stride = model.config.stride
        window = centred_window((height, width), model.config.window, stride)
        planes, intensity, *_ = core_of(scan.planes)
        header = header_of(
            scan,
            Coder.PACKED,
            intensity=intensity,
            ranges=slice_ranges(planes, intensity) if scan.placement else (),
        )
        latents = []
        for place, plane in enumerate(planes):
            low, high = header.slice_range(place)
            if low == high:  # a slice of ground
                low = high = float(plane.flat[0])
            context = None
            if model.config.context and place and scan.placement:
                before = to_pixels(planes[place - 1], (low, high), window, stride)
                context = steps_of(before.clip(0, 1))
            pixels = steps_of(to_pixels(plane, (low, high), window, stride))
            with refusing_what_does_not_fit():
                latents.append(model.encoder(pixels, context)[0])
        return np.stack(latents) if scan.placement else latents[0]

    def embed(
        self, indices: NDArray[np.integer[Any]], *, of_volumes: bool = False
    ) -> NDArray[np.float32]:
        """Indices to vectors: the sum over levels of the codes that they name.

        Args:
            indices: (..., L, h, w) integers from 0 to K-1, of the first L levels; where a level has
                `NO_INDEX` (65,535), it adds nothing.
            of_volumes: whether they belong to volumes, which may have their own codebooks.

        Returns:
            (..., h, w, D), whole numbers in 256ths: quantized latents.

        Raises:
            CodesFileError: this is not such an array, or an index is out of range.
        """
        model = self.file.coding(of_volumes)
        _refuse_odd_indices(indices, model.config, least=3)
        shape = *indices.shape[:-3], *indices.shape[-2:], model.config.code_dim
        vectors = np.zeros(shape, np.float32)
        for level in range(indices.shape[-3]):
            chosen = indices[..., level, :, :]
            has_index = chosen != NO_INDEX
            codes = model.codebooks[level][np.where(has_index, chosen, 0)]
            vectors += codes * has_index[..., None]
        return vectors

    def decode_indices(
        self, indices: NDArray[np.integer[Any]], like: CodesHeader | tuple[int, int]
    ) -> NDArray[np.generic]:
        """Changed or generated indices to pixels.

        Args:
            indices: (L, h, w) of an image, (slices, L, h, w) of a volume, each from 0 to K-1; L may be
                less or more than the header's, up to the model's. With a shape also (N, L, h, w).
            like: the header of a `.codes` file, which gives shape, type, range and geometry; or the
                height and width of a uint8 image, whose grid covers the model's centred window, or all
                of the image.

        Returns:
            With a header, what `decode` gives for a file that has nothing beside its indices (no exact
            ground, no residue, no outliers); with a shape, (H, W) uint8, or (N, H, W).

        Raises:
            CodesFileError: this is not such an array, out of range, or on another grid than that of
                `like`.
            OtherModelError: the header names another model.
        """
        is_volume = isinstance(like, CodesHeader) and like.volume is not None
        _refuse_odd_indices(indices, self.file.coding(is_volume).config, least=3)
        if isinstance(like, CodesHeader):
            if like.coder is Coder.LABELS:
                raise CodesFileError("indices: the header is of labels kept exactly, which have none")
            if like.volume is None and indices.ndim != 3:
                raise CodesFileError(f"indices of shape {indices.shape}, expected (levels, h, w)")
            header = replace(like.of_indices, levels=indices.shape[-3])
            codes = Codes(header, indices.astype(np.uint16, copy=False), 0)
            return self.decode_codes(codes, "indices").array
        header = self._header_for(indices.shape[-3:], like)
        grids = indices.astype(np.uint16, copy=False).reshape(-1, *header.grid_shape)
        planes = [self.decode_codes(Codes(header, grid, 0), "indices").plane for grid in grids]
        return np.array(planes, np.uint8).reshape(*indices.shape[:-3], *header.shape)

    def _header_for(self, grid: tuple[int, ...], shape: tuple[int, int]) -> CodesHeader:
        """The header of a uint8 image of this shape with a grid (levels, h, w)."""
        given = shape if isinstance(shape, tuple | list) else ()
        sides = [side for side in given if type(side) is int and side > 0]
        if len(given) != 2 or len(sides) != 2:
            raise CodesFileError(f"shape {shape!r}, expected the height and width of an image in pixels")
        height, width = sides
        stride = self.config.stride
        centred = centred_window((height, width), self.config.window, stride)
        whole = Window(0, 0, cells(height, stride), cells(width, stride))
        fitting = [each for each in (centred, whole) if (each.height, each.width) == grid[1:]]
        if not fitting:
            raise CodesFileError(
                f"indices on a grid of {grid[1]}×{grid[2]}, but an image of {height}×{width} has "
                f"{centred.height}×{centred.width} cells in the model's window, and "
                f"{whole.height}×{whole.width} in all; pass the header of the file they are of"
            )
        return CodesHeader(
            coder=Coder.PACKED,
            kind=Kind.IMAGE,
            sample_type=SampleType.UINT8,
            shape=(height, width),
            stride=stride,
            window=fitting[0],
            levels=grid[0],
            codebook_size=self.config.codebook_size,
            intensity=(0, 255),
            fingerprint=self.fingerprint,
        )


@dataclass(frozen=True)
class _EncodeOne:
    """Encodes one array or file, in any process."""

    codec: Batches
    wish: Wish
    spacing: tuple[float, float, float] | None
    affine: NDArray[np.float64] | None
    max_pixels: int

    def __call__(self, given: NDArray[np.generic] | Path | str) -> bytes:
        if isinstance(given, (str, Path)):
            scan = read_scan(source_at(Path(given)), self.wish.axis, self.max_pixels)
            try:
                return self.codec.encode_scan(scan, self.wish)
            except ImageError as error:
                raise ImageError(f"{given}: {error}") from error
        scan = as_scan(given, self.spacing, self.affine, self.wish.axis)
        return self.codec.encode_scan(scan, self.wish)


@dataclass(frozen=True)
class _DecodeOne:
    """Decodes the bytes of a file or the file at a path, in any process."""

    codec: Batches
    max_pixels: int

    def __call__(self, given: bytes | Path | str) -> NDArray[np.generic]:
        if isinstance(given, (str, Path)):
            content = read_bytes(Path(given), MAX_FILE_BYTES)
        elif isinstance(given, bytes):
            content = given
        else:
            raise CodesFileError(f"{_kind_of(given)}, expected the bytes of a .codes file, or its path")
        try:
            return self.codec.decode(content, self.max_pixels)
        except OasisVQError as error:
            if isinstance(given, bytes):
                raise
            raise type(error)(f"{given}: {error}") from error


def _each(call: Callable[[Given], Made], given: Iterable[Given], jobs: int) -> list[Made]:
    """The results of a call for each item; errors name the item's place in the list."""
    if isinstance(given, (str, Path, bytes)):
        raise ImageError(f"{_kind_of(given)}, expected a list of several; pass a list of one")
    if type(jobs) is not int or jobs < 1:
        raise OasisVQError(f"jobs {jobs!r}, expected a number of processes from 1")
    try:
        numbered = enumerate(given)
    except TypeError:
        raise ImageError(f"{_kind_of(given)}, expected a list of arrays or paths") from None
    return [made for _, made in calls(_Numbered(call), numbered, jobs)]


@dataclass(frozen=True)
class _Numbered:
    """A call whose errors name the item's place in the list."""

    call: Callable[[Any], Any]

    def __call__(self, numbered: tuple[int, Any]) -> Any:  # noqa: ANN401 - what the call gives
        place, given = numbered
        try:
            return self.call(given)
        except OasisVQError as error:
            raise type(error)(f"[{place}]: {error}") from error


def each_of(arrays: Iterable[object]) -> list[Any]:
    """The arrays as a list; lists of numbers are refused, since they were not made into arrays.

    Raises:
        ImageError: an item is not an array.
    """
    if not isinstance(arrays, Iterable):
        raise ImageError(f"{_kind_of(arrays)}, expected arrays")
    arrays = list(arrays)
    for place, each in enumerate(arrays):
        if not isinstance(each, np.ndarray):
            raise ImageError(f"[{place}]: {_kind_of(each)}, expected a NumPy array")
    return arrays


def _closed(codebooks: NDArray[np.float32]) -> NDArray[np.float32]:
    """A read-only view of the same numbers."""
    view = codebooks.view()
    view.flags.writeable = False
    return view


def _kind_of(given: object) -> str:
    return f"a {type(given).__module__}.{type(given).__name__}"


def _refuse_odd_indices(indices: object, config: ModelConfig, least: int) -> None:
    """Raise unless these are indices of at least `least` axes within the model's codebooks.

    `NO_INDEX` passes: the caller decides whether a grid may have it.

    Raises:
        CodesFileError: says what they are.
    """
    if not isinstance(indices, np.ndarray):
        raise CodesFileError(
            f"indices: {_kind_of(indices)}, expected a NumPy array of integers; pass .cpu().numpy() of "
            "a tensor"
        )
    if indices.dtype.kind not in "iu" or indices.ndim < least:
        raise CodesFileError(
            f"indices: {indices.dtype} of shape {indices.shape}, expected integers (levels, h, w) or "
            "(slices, levels, h, w)"
        )
    if not 1 <= indices.shape[-3] <= config.levels:
        raise CodesFileError(f"indices of {indices.shape[-3]} levels, but the model has {config.levels}")
    known = indices[indices != NO_INDEX]
    if known.size and (known.min() < 0 or known.max() >= config.codebook_size):
        raise CodesFileError(
            f"indices from {known.min()} to {known.max()}, expected 0 to {config.codebook_size - 1}"
        )
