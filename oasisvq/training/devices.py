"""Where a training runs."""

import os

import torch

from oasisvq.errors import ModelError


def choose_device(name: str) -> torch.device:
    """The device named `auto`, `cuda`, `mps` or `cpu`; `auto` takes CUDA if there is one.

    Nobody has trained on MPS yet, so it must be named.

    Raises:
        ModelError: the device is not there, or the name is unknown.
    """
    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = "cuda" if present["cuda"] else "cpu"
    if name not in present:
        raise ModelError(f"device '{name}', expected auto, cuda, mps or cpu")
    if not present[name]:
        raise ModelError(f"no {name} device on this machine; use --device auto or cpu")
    if name == "cuda":  # each of several processes on one machine takes its own
        local = os.environ.get("LOCAL_RANK") or os.environ.get("SLURM_LOCALID") or "0"
        return torch.device("cuda", int(local) % torch.cuda.device_count())
    return torch.device(name)
