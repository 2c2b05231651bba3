"""The chain assembled: `Codec.load`, `encode`, `decode`.

Shapes: L levels, H×W image, h×w grid.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from oasisvq.codec import container
from oasisvq.codec.container import Coder, Codes, CodesFile, CodesHeader, Kind, SampleType
from oasisvq.codec.entropy import encode_with_prior, pack
from oasisvq.codec.modelfile import ModelFile, choose_model, read_model, refuse_other_model
from oasisvq.codec.networks import channels_last
from oasisvq.codec.pixels import Window, centred_window, choose_window, from_pixels, to_pixels
from oasisvq.codec.prior import FREQUENCY_BITS, Frequencies, Pass, draw
from oasisvq.codec.scans import Scan, as_scan
from oasisvq.codec.weights import Model, build_model, file_of
from oasisvq.errors import CodesFileError, ImageError, ModelError

# What a bit counts as, in shares of the energy of the last level's codes: measured on the validation
# split, see examples/benchmarks/RESULTS.md. Coarse levels bear less, for the later ones build on them.
RATE_WEIGHT_PER_LEVEL = 0.02
LARGEST_RATE_WEIGHT = 0.1


def choose_device(name: str) -> torch.device:
    """`auto`, `cuda`, `mps` or `cpu` to a device; `auto` takes the first of them that is there.

    Raises:
        ModelError: the device is not there, or the name is another.
    """
    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(kind for kind, is_present in present.items() if is_present)
    if name not in present:
        raise ModelError(f"device '{name}', expected auto, cuda, mps or cpu")
    if not present[name]:
        raise ModelError(f"no {name} device on this machine; use --device auto or cpu")
    if name == "cuda":  # of several processes on one machine each takes its own
        local = os.environ.get("LOCAL_RANK") or os.environ.get("SLURM_LOCALID") or "0"
        return torch.device("cuda", int(local) % torch.cuda.device_count())
    return torch.device(name)


@contextmanager
def _refusing_what_does_not_fit() -> Iterator[None]:
    """An image too large for the device's memory is an error of the image, not a crash."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "allocate memory" in str(error):
            raise ImageError("an image too large for this machine's memory; cut or shrink it") from error
        raise


class Codec:
    """A model that encodes scans to `.codes` bytes and decodes them.

    Each image passes the networks by itself, so its bytes do not depend on what else is encoded.

    Attributes:
        config: the model's config.
        prior: of the model, where it has one.
        fingerprint: 8 bytes that name the codec in packed files.
        card: what the model file says of its training.
    """

    def __init__(self, file: ModelFile, device: torch.device, name: str = "model") -> None:
        """Build the networks of a model file; `name` is what messages call it."""
        self.file, self.device = file, device
        self.config, self.prior, self.card = file.config, file.prior, file.card
        self.fingerprint = file.fingerprint
        self._model = build_model(file, name).to(device)
        channels_last(self._model)
        self._codebooks = self._model.quantizer.codebooks.cpu().numpy()

    @classmethod
    def load(cls, path: Path | None = None, device: str = "cpu") -> "Codec":
        """The codec of a model file or run folder, or of the model that `choose_model` finds.

        Raises:
            FileError: no such file.
            ModelError: not a whole model of ours, or no such device.
        """
        chosen = choose_model(path, Path.cwd()).path
        return cls(read_model(chosen), choose_device(device), str(chosen))

    @classmethod
    def of_model(cls, model: Model, device: str = "cpu") -> "Codec":
        """The codec of a model in memory, as it would be in a file."""
        return cls(file_of(model, {}), choose_device(device))

    # --- encode -------------------------------------------------------------------------------

    def encode(
        self, array: NDArray[np.generic], levels: int | None = None, coder: Coder | None = None
    ) -> bytes:
        """An (H, W) array of uint8 or uint16 to the bytes of a `.codes` file.

        Args:
            array: grey levels, of any size.
            levels: how many levels to keep, 1 to the model's; its default where None.
            coder: how indices are coded; by the prior where the model has one, where None.

        Raises:
            ImageError: the array is none of these.
            ModelError: `levels` is out of range, or the model has no prior and one is asked for.
        """
        return self.encode_scan(as_scan(array), levels, coder)

    def encode_scan(self, scan: Scan, levels: int | None = None, coder: Coder | None = None) -> bytes:
        """A scan to the bytes of a `.codes` file; see `encode`."""
        levels, coder = self.check_levels(levels), self.check_coder(coder)
        window = choose_window(scan.plane, self.config.window, self.config.stride)
        fingerprint = self.file.fingerprint_for(coder)
        assert fingerprint is not None
        header = CodesHeader(
            coder=coder,
            kind=Kind.IMAGE,
            sample_type=SampleType.UINT8 if scan.plane.dtype == np.uint8 else SampleType.UINT16,
            shape=(scan.plane.shape[0], scan.plane.shape[1]),
            stride=self.config.stride,
            window=window,
            levels=levels,
            codebook_size=self.config.codebook_size,
            intensity=scan.intensity,
            fingerprint=fingerprint,
        )
        payload = b"" if not window.height else self._payload(scan, window, levels, coder)
        return container.write(header, payload)

    def _payload(self, scan: Scan, window: Window, levels: int, coder: Coder) -> bytes:
        pixels = to_pixels(scan.plane, scan.intensity, window, self.config.stride)
        with torch.inference_mode(), _refusing_what_does_not_fit():
            batch = torch.from_numpy(pixels)[None, None].to(self.device)  # (1, 1, H, W)
            latents = self._model.encoder(batch)
            if coder is Coder.PACKED:
                indices = self._model.quantizer.quantize(latents, levels)[0].cpu().numpy()
                return pack(indices, self.config.codebook_size)
        return self._code_with_prior(latents[0].permute(1, 2, 0).cpu().numpy(), levels)

    def latents(self, array: NDArray[np.generic]) -> NDArray[np.float32]:
        """Latents (h, w, D) of an (H, W) array, over the centred window of the model.

        Raises:
            ImageError: the array is not one that can be encoded.
        """
        plane = as_scan(array).plane
        window = centred_window((plane.shape[0], plane.shape[1]), self.config.window, self.config.stride)
        pixels = to_pixels(plane, as_scan(array).intensity, window, self.config.stride)
        with torch.inference_mode(), _refusing_what_does_not_fit():
            latents = self._model.encoder(torch.from_numpy(pixels)[None, None].to(self.device))
        grid: NDArray[np.float32] = latents[0].permute(1, 2, 0).cpu().numpy()
        return grid

    def _code_with_prior(self, latents: NDArray[np.float32], levels: int) -> bytes:
        """Latents (h, w, D) to a payload.

        Of each residual the code with the least |residual - code|² + weight · bits is taken: near, and
        cheap under the prior.
        """
        assert self.prior is not None
        residual = latents.copy()
        energy = float(np.square(self._codebooks[levels - 1]).sum(1).mean())
        weight = min(RATE_WEIGHT_PER_LEVEL * levels, LARGEST_RATE_WEIGHT) * energy

        def choose(step: Pass, frequencies: Frequencies) -> NDArray[np.uint16]:
            codebook = self._codebooks[step.level]
            vectors = residual[step.rows, step.columns]  # (n, D)
            cost = np.square(codebook).sum(1) - 2 * (vectors @ codebook.T)
            cost += weight * (FREQUENCY_BITS - np.log2(frequencies + 1))
            chosen = cost.argmin(1)
            residual[step.rows, step.columns] = vectors - codebook[chosen]
            indices: NDArray[np.uint16] = chosen.astype(np.uint16)
            return indices

        shape = levels, residual.shape[0], residual.shape[1]
        kind = self.prior.kind_of(latents)
        payload, _ = encode_with_prior(self.prior, shape, kind, choose)
        return payload

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
        fingerprint = self.file.fingerprint_for(Coder.PRIOR)
        assert fingerprint is not None
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
            fingerprint=fingerprint,
        )
        return [Codes(header, grid, 0) for grid in self.prior.walk(shape, kinds, choose)]

    def write_codes(self, codes: Codes) -> bytes:
        """Codes that this model made to the bytes of a `.codes` file."""
        header, indices = codes.header, codes.indices
        self.refuse_other_model(header, "codes")
        if header.coder is Coder.PACKED or not indices.size:
            return container.write(header, pack(indices, header.codebook_size))
        assert self.prior is not None
        latents = self._model.quantizer.dequantize(
            torch.from_numpy(indices.astype(np.int64))[None].to(self.device)
        )
        kind = self.prior.kind_of(latents[0].permute(1, 2, 0).cpu().numpy())

        def given(step: Pass, _: Frequencies) -> NDArray[np.uint16]:
            chosen: NDArray[np.uint16] = indices[step.level, step.rows, step.columns]
            return chosen

        height, width = header.window.height, header.window.width
        shape = header.levels, height, width
        return container.write(header, encode_with_prior(self.prior, shape, kind, given)[0])

    # --- decode -------------------------------------------------------------------------------

    def decode(self, content: bytes) -> NDArray[np.generic]:
        """The bytes of a `.codes` file to an (H, W) array of the original's shape and type.

        Raises:
            CodesFileError: the bytes are damaged, or were made with another model.
        """
        return self.decode_codes(self.codes_of(container.read(content, "codes")), "codes").plane

    def codes_of(self, file: CodesFile) -> Codes:
        """Header and indices of a `.codes` file that this model made.

        Raises:
            CodesFileError: it is damaged, or another model made it.
        """
        self.refuse_other_model(file.header, file.name)
        return file.codes(self.prior)

    def decode_codes(self, codes: Codes, name: str) -> Scan:
        """Codes to a scan; `name` is what messages call the file."""
        header = codes.header
        self.refuse_other_model(header, name)
        ours = (self.config.stride, self.config.codebook_size)
        if (header.stride, header.codebook_size) != ours or header.levels > self.config.levels:
            raise CodesFileError(f"{name}: damaged: its grid does not fit the model that it names")
        pixels = self._pixels(codes.indices)
        plane = from_pixels(
            pixels,
            header.intensity,
            header.window,
            header.stride,
            header.shape,
            header.sample_type.dtype,
        )
        return Scan(plane)

    def refuse_other_model(self, header: CodesHeader, name: str) -> None:
        """Raise unless this model made the file.

        Raises:
            CodesFileError: names both fingerprints.
        """
        refuse_other_model(self.file, header, name)

    def _pixels(self, indices: NDArray[np.uint16]) -> NDArray[np.float32]:
        if not indices.size:
            return np.zeros((0, 0), dtype=np.float32)
        with torch.inference_mode(), _refusing_what_does_not_fit():
            batch = torch.from_numpy(indices.astype(np.int64))[None].to(self.device)  # (1, L, h, w)
            pixels = self._model.decoder(self._model.quantizer.dequantize(batch))
        plane: NDArray[np.float32] = pixels[0, 0].float().cpu().numpy()
        return plane

    def check_levels(self, levels: int | None) -> int:
        """The number of levels to keep.

        Raises:
            ModelError: out of the model's range.
        """
        if levels is None:
            return self.config.default_levels
        if not 1 <= levels <= self.config.levels:
            raise ModelError(f"quality {levels}, but this model has 1 to {self.config.levels}")
        return levels

    def check_coder(self, coder: Coder | None) -> Coder:
        """The coder to use.

        Raises:
            ModelError: it needs a prior, and the model has none.
        """
        if coder is None:
            return Coder.PACKED if self.prior is None else Coder.PRIOR
        if coder is Coder.PRIOR and self.prior is None:
            raise ModelError(
                f"model {self.fingerprint.hex()[:8]} has no prior; encode with --coder packed, or give "
                "it one with `oasisvq train data/ --prior-only --model ...`"
            )
        return coder
