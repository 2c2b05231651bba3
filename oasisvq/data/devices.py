"""What differs between devices when tensors are sent to them."""

import os

import torch
from torch import Tensor

# Devices that may be handed a copy to make later: CUDA takes what it is given before it returns, or the
# memory is pinned. MPS reads pageable memory later, when it may hold something else by then.
QUEUEING = {"cuda"}


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the CPU on the device, without waiting for the device where that is safe."""
    return tensor.to(device, non_blocking=device.type in QUEUEING)


def free_memory(device: torch.device) -> int:
    """Bytes free on the device (or in main memory)."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return main_memory()


def main_memory() -> int:
    """Bytes of main memory that are free."""
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):  # macOS names only the whole of it
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
