"""A split of a prepared dataset -> batches of pixels on the device.

Shapes: N slices, B batch, H×W window.

The slices stay uint8. Batches are drawn, converted to float and mirrored on the device, so there is no
loader. A split larger than `RESIDENT_SHARE` of the device's free memory stays in main memory or in its
memory-mapped file, and a thread reads one batch ahead into pinned memory.
"""

from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from oasisvq.codec.pixels import Window
from oasisvq.data.devices import free_memory, main_memory, send

RESIDENT_SHARE = 0.5


def seeded_generator(*seeds: int) -> torch.Generator:
    """A generator on the CPU that depends on `seeds` alone, so its state need not be saved."""
    state = np.random.SeedSequence(seeds).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state) & (2**63 - 1))


def room_beside(reserved: int, device: torch.device) -> int:
    """Bytes of the device that slices may take if `reserved` bytes are needed for computing."""
    return max(0, int(RESIDENT_SHARE * (free_memory(device) - reserved)))


class SliceBatches:
    """Batches from an (N, size, size) uint8 array.

    Attributes:
        where: where the slices are kept, in words: on the device, in main memory, or in the
            memory-mapped file.
        bytes_on_device: how many bytes they take on the device.
    """

    def __init__(
        self,
        array: NDArray[np.uint8],
        window: Window,
        stride: int,
        device: torch.device,
        room: int | None = None,
    ) -> None:
        """Load the slices to where they fit.

        Args:
            array: the slices.
            window: that is cut out of them, in cells of `stride` pixels.
            stride: side of a cell in pixels.
            device: where batches are wanted.
            room: bytes of the device that slices may take; if None, a share of the free memory.
        """
        self.device = device
        self._array = array
        top, left = window.top * stride, window.left * stride
        self._rows = slice(top, top + window.height * stride)
        self._columns = slice(left, left + window.width * stride)
        self._beyond = (
            max(0, self._rows.stop - array.shape[1]),
            max(0, self._columns.stop - array.shape[2]),
        )
        needed = len(array) * window.height * window.width * stride * stride
        megabytes = f"{needed / 1e6:,.0f} MB"
        self._resident: Tensor | None = None
        self._pending: tuple[Tensor, Future[Tensor]] | None = None
        self._reader = ThreadPoolExecutor(1)
        self.bytes_on_device = 0
        if needed <= (room_beside(0, device) if room is None else room):
            self.bytes_on_device = needed
            self._resident = torch.from_numpy(self._cut(slice(None))).to(device)
            self.where = f"{megabytes} on {device.type}"
        elif device.type == "cuda" and needed <= RESIDENT_SHARE * main_memory():
            self._resident = torch.from_numpy(self._cut(slice(None)))
            self.where = f"{megabytes} in main memory, too large for the device"
        else:
            self.where = f"{megabytes} stay in the memory-mapped file, too large for memory"

    def __len__(self) -> int:
        return len(self._array)

    def _cut(self, slices: NDArray[np.int64] | slice) -> NDArray[np.uint8]:
        """The window of some slices, (B, H, W) uint8, padded where it reaches beyond the image."""
        cut = self._array[slices, self._rows, self._columns]
        return np.pad(cut, ((0, 0), (0, self._beyond[0]), (0, self._beyond[1])), mode="edge")

    def _read(self, slices: Tensor) -> Tensor:
        """Some slices (B, H, W) uint8, in main memory unless they are on the device."""
        if self._resident is not None and self._resident.device.type == self.device.type:
            return self._resident[send(slices, self.device)]
        if self._resident is not None:
            batch = self._resident[slices]
        else:
            batch = torch.from_numpy(self._cut(slices.numpy()))
        return batch.pin_memory() if self.device.type == "cuda" else batch

    def prefetch(self, slices: Tensor) -> None:
        """Start to read the slices of the next `draw`, unless they are on the device anyway."""
        if self._resident is None or self._resident.device.type != self.device.type:
            self._pending = slices, self._reader.submit(self._read, slices)

    def draw(self, slices: Tensor, mirrored: Tensor | None = None) -> Tensor:
        """Pixels (B, 1, H, W) float32 in [0, 1] of the slices (B,) int64.

        Args:
            slices: which slices, on the CPU.
            mirrored: (B,) bool, which of them to mirror left to right (along the axis of rows).
        """
        pending, self._pending = self._pending, None
        if pending is not None and torch.equal(pending[0], slices):
            batch = pending[1].result()
        else:
            batch = self._read(slices)
        pixels = send(batch, self.device).unsqueeze(1).float().div_(255)
        if mirrored is not None:
            turned = send(mirrored, self.device)[:, None, None, None]
            pixels = torch.where(turned, pixels.flip(2), pixels)
        return pixels


def epoch_order(count: int, seed: int, epoch: int) -> Tensor:
    """A permutation of 0..count-1 that depends on seed and epoch only."""
    return torch.randperm(count, generator=seeded_generator(seed, 1, epoch))
