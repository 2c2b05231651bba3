"""The chain assembled: `Codec.load`, `encode`, `decode`; and which model is used where none is named.

Shapes: L levels, H×W image, h×w grid.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from oasisvq.codec import container
from oasisvq.codec.container import Coder, CodesHeader, Kind, SampleType
from oasisvq.codec.networks import ModelConfig, channels_last
from oasisvq.codec.pixels import Window, choose_window, from_pixels, to_pixels
from oasisvq.codec.scans import Scan, as_scan
from oasisvq.codec.weights import Model, ModelFile, load_model, model_fingerprint
from oasisvq.errors import CodesFileError, ImageError, ModelError
from oasisvq.files import MODEL_FILE

RUN_FOLDER = Path("oasisvq-run")  # where `train` leaves its model unless told otherwise
MODEL_VARIABLE = "OASISVQ_MODEL"
BUNDLED_MODEL = Path(__file__).parent.parent / "pretrained" / MODEL_FILE


class ModelChoice(NamedTuple):
    """A model file and why it is the one."""

    path: Path
    reason: str


def choose_model(named: Path | None, folder: Path) -> ModelChoice:
    """The model file to use: the named one, `$OASISVQ_MODEL`, the last run's, or the bundled one.

    Args:
        named: a model file, a run folder, or None.
        folder: the working folder, where `train` may have left a run.

    Raises:
        ModelError: none is named or trained, and the installation has none.
    """
    if named is None and os.environ.get(MODEL_VARIABLE):
        named, reason = Path(os.environ[MODEL_VARIABLE]), f"${MODEL_VARIABLE}"
    else:
        reason = "named"
    if named is not None:
        return ModelChoice(named / MODEL_FILE if named.is_dir() else named, reason)
    trained = folder / RUN_FOLDER / MODEL_FILE
    if trained.is_file():
        return ModelChoice(trained, "the model trained in this folder")
    if not BUNDLED_MODEL.is_file():
        raise ModelError("this installation has no bundled model; train one or name one with --model")
    return ModelChoice(BUNDLED_MODEL, "the bundled model")


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
        fingerprint: 8 bytes that name the model in every file it makes.
        card: what the model file says of its training.
    """

    def __init__(self, file: ModelFile, device: torch.device) -> None:
        self.config: ModelConfig = file.model.config
        self.fingerprint = file.fingerprint
        self.card = file.card
        self.device = device
        self._model = file.model.to(device).eval()
        channels_last(self._model)

    @classmethod
    def load(cls, path: Path | None = None, device: str = "cpu") -> "Codec":
        """The codec of a model file or run folder, or of the model that `choose_model` finds.

        Raises:
            FileError: no such file.
            ModelError: not a whole model of ours, or no such device.
        """
        return cls(load_model(choose_model(path, Path.cwd()).path), choose_device(device))

    @classmethod
    def of_model(cls, model: Model, device: str = "cpu") -> "Codec":
        """The codec of a model in memory; the model is put to eval mode and moved to the device."""
        return cls(ModelFile(model, {}, model_fingerprint(model)), choose_device(device))

    # --- encode -------------------------------------------------------------------------------

    def encode(self, array: NDArray[np.generic], levels: int | None = None) -> bytes:
        """An (H, W) array of uint8 or uint16 to the bytes of a `.codes` file.

        Args:
            array: grey levels, of any size.
            levels: how many levels to keep, 1 to the model's; its default where None.

        Raises:
            ImageError: the array is none of these.
            ModelError: `levels` is out of range.
        """
        return self.encode_scan(as_scan(array), levels)

    def encode_scan(self, scan: Scan, levels: int | None = None) -> bytes:
        """A scan to the bytes of a `.codes` file; see `encode`."""
        levels = self.check_levels(levels)
        window = choose_window(scan.plane, self.config.window, self.config.stride)
        header = CodesHeader(
            coder=Coder.PACKED,
            kind=Kind.IMAGE,
            sample_type=SampleType.UINT8 if scan.plane.dtype == np.uint8 else SampleType.UINT16,
            shape=(scan.plane.shape[0], scan.plane.shape[1]),
            stride=self.config.stride,
            window=window,
            levels=levels,
            codebook_size=self.config.codebook_size,
            intensity=scan.intensity,
            fingerprint=self.fingerprint,
        )
        return container.write(header, self._indices(scan, window, levels))

    def _indices(self, scan: Scan, window: Window, levels: int) -> NDArray[np.uint16]:
        if not window.height:
            return np.zeros((levels, 0, 0), dtype=np.uint16)
        pixels = to_pixels(scan.plane, scan.intensity, window, self.config.stride)
        with torch.inference_mode(), _refusing_what_does_not_fit():
            batch = torch.from_numpy(pixels)[None, None].to(self.device)  # (1, 1, H, W)
            indices = self._model.quantizer.quantize(self._model.encoder(batch), levels)
        grid: NDArray[np.uint16] = indices[0].cpu().numpy().astype(np.uint16)
        return grid

    # --- decode -------------------------------------------------------------------------------

    def decode(self, content: bytes) -> NDArray[np.generic]:
        """The bytes of a `.codes` file to an (H, W) array of the original's shape and type.

        Raises:
            CodesFileError: the bytes are damaged, or were made with another model.
        """
        return self.decode_codes(container.read(content, "codes"), "codes").plane

    def decode_codes(self, codes: container.Codes, name: str) -> Scan:
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
        if header.fingerprint != self.fingerprint:
            raise CodesFileError(
                f"{name}: made with model {header.fingerprint.hex()[:8]}, but model "
                f"{self.fingerprint.hex()[:8]} was given; pass the right one with --model"
            )

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
