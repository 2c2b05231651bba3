"""The frozen networks of a model file, through which the stages after the codec see slices.

Shapes: B batch, H×W image, h×w grid, D code dimension.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from oasisvq.codec.modelfile import ModelFile
from oasisvq.training.imitation import Integers
from oasisvq.training.networks import channels_last
from oasisvq.training.slices_beside import Networks
from oasisvq.training.weights import build_model


class Exact(nn.Module):
    """The networks of a model file, with the results of `codec/networks.py`, for many slices at once."""

    def __init__(self, file: ModelFile, device: torch.device) -> None:
        super().__init__()
        specs, self.arrays = {}, {}
        for name, array in file.arrays.items():
            if name.endswith((".table", ".scaling")):
                specs[name] = tuple(array.tolist())
            elif name.startswith(("encoder.", "decoder.")):
                self.arrays[name] = torch.from_numpy(array).float().to(device)
        self.integers = Integers(file.config, specs, device, exact=True)

    def encoder(self, pixels: Tensor, context: Tensor | None = None) -> Tensor:
        """(B, 1, H, W) in [0, 1] -> latents (B, D, h, w), multiples of 1/256."""
        with _exactly(pixels):
            return self.integers.encoder(self.arrays, pixels.float(), context)

    def decoder(self, latents: Tensor, context: Tensor | None = None) -> Tensor:
        """Latents (B, D, h, w) -> pixels (B, 1, H, W) in [0, 1]."""
        with _exactly(latents):
            return self.integers.decoder(self.arrays, latents.float(), context).clamp(0, 1)


class Floating(nn.Module):
    """The networks in floating point: nearly the same results as the integers, several times faster."""

    def __init__(self, file: ModelFile, device: torch.device, precision: str) -> None:
        """Build the networks; they run in the precision of a training, see `TrainingConfig`."""
        super().__init__()
        self.model = build_model(file).to(device)
        channels_last(self.model)
        narrow = precision == "bfloat16"
        self.autocast = torch.autocast(device.type, dtype=torch.bfloat16, enabled=narrow)

    def encoder(self, pixels: Tensor, context: Tensor | None = None) -> Tensor:
        """(B, 1, H, W) in [0, 1] -> latents (B, D, h, w)."""
        with self.autocast:
            latents: Tensor = self.model.encoder(pixels, context)
        return latents.float()

    def decoder(self, latents: Tensor, context: Tensor | None = None) -> Tensor:
        """Latents (B, D, h, w) -> pixels (B, 1, H, W) in [0, 1]."""
        with self.autocast:
            pixels: Tensor = self.model.decoder(latents, context)
        return pixels.float().clamp(0, 1)


def networks_for(split: str, file: ModelFile, device: torch.device, precision: str) -> Networks:
    """The networks that code the slices of a split, with previous slices or without.

    Later stages learn from slices of `train`, which are coded in floating point. They are validated on
    slices of other splits, which are coded as in files, by the integers.
    """
    return Floating(file, device, precision) if split == "train" else Exact(file, device)


@contextmanager
def _exactly(numbers: Tensor) -> Iterator[None]:
    """Compute in float32 or wider on the device of a tensor: without autocast and TF32."""
    exact = torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=False)
    with torch.autocast(numbers.device.type, enabled=False), exact:
        yield
