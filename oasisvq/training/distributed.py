"""What a training needs to know about its processes, whether there are one or many.

Under `torchrun` each process trains on its share of every batch (DistributedDataParallel; NCCL on CUDA,
gloo otherwise). With a single process, every operation here is the identity.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from oasisvq.errors import TrainingError

PATIENCE = timedelta(hours=6)  # the others wait while the first process prepares a large raw folder


@dataclass(frozen=True)
class World:
    """This process among all: number `rank` (from 0) of `size`, which computes on `device`."""

    rank: int
    size: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and reports."""
        return self.rank == 0

    def sum_(self, tensor: Tensor) -> None:
        """Replace `tensor` in place by its sum over all processes."""
        if self.size > 1:
            dist.all_reduce(tensor)

    def broadcast_(self, tensor: Tensor) -> None:
        """Replace `tensor` in place by that of the first process."""
        if self.size > 1:
            dist.broadcast(tensor, 0)

    def any(self, flag: bool) -> bool:
        """Whether `flag` is set in any process; every process must call this."""
        if self.size == 1:
            return flag
        votes = torch.tensor([float(flag)], device=self.device)
        dist.all_reduce(votes)
        return bool(votes.item() > 0)

    def wait(self) -> None:
        """Wait until all processes have called this."""
        if self.size > 1:
            dist.barrier()


def launched_by_torchrun() -> bool:
    """Whether the environment says that there is more than one process."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


@contextmanager
def joined_world(device: torch.device) -> Iterator[World]:
    """Join the processes that torchrun started, or be a world of one.

    Raises:
        TrainingError: another process has ended.
    """
    if not launched_by_torchrun():
        yield World(0, 1, device)
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    on_cuda = device.type == "cuda"
    dist.init_process_group(
        "nccl" if on_cuda else "gloo", timeout=PATIENCE, device_id=device if on_cuda else None
    )
    try:
        yield World(dist.get_rank(), dist.get_world_size(), device)
    except RuntimeError as error:  # gloo and NCCL raise it if another process is gone
        if not isinstance(error, dist.DistError) and "gloo" not in str(error):
            raise
        raise TrainingError(
            "another process of this training has ended; start all of them again with --resume"
        ) from error
    finally:
        dist.destroy_process_group()
