"""Differences between devices when tensors are sent to them."""

import os

import torch
from torch import Tensor

# Devices to which copies may be made asynchronously: CUDA reads the tensor before the call returns, or
# its memory is pinned. MPS may read pageable memory later, when it already holds something else.
QUEUEING = {"cuda"}


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """Send a tensor from the CPU to the device, without waiting for the device if that is safe."""
    return tensor.to(device, non_blocking=device.type in QUEUEING)


def free_memory(device: torch.device) -> int:
    """Free bytes of the device (or of main memory)."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return main_memory()


def main_memory() -> int:
    """Free bytes of main memory."""
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):  # macOS only tells the total
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
