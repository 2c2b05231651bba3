"""What a training asks of the machine: precision, compilation, memory.

No GPU has run this yet; statements about CUDA follow torch's documentation.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from oasisvq.codec.config import ModelConfig
from oasisvq.errors import TrainingError
from oasisvq.training.networks import Decoder, Encoder

FUSED_ON = {"cpu", "cuda"}  # devices with an optimizer that takes all parameters at once
AMPERE = (8, 0)  # the first compute capability that multiplies in bfloat16


def choose_precision(name: str, device: torch.device) -> str:
    """The precision; `auto` becomes bfloat16 if the hardware multiplies in it, else float32."""
    if name != "auto":
        return name
    if device.type == "cuda":
        # older ones (T4, V100) emulate it, slower than float32
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        return "bfloat16" if native else "float32"
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    native = bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
    return "bfloat16" if device.type == "cpu" and native else "float32"


def choose_compiling(asked: bool | None, device: torch.device) -> bool:
    """Whether to compile the networks: as asked, else if it pays off, from Ampere on."""
    if asked is not None:
        return asked
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= AMPERE


@contextmanager
def true_float32() -> Iterator[None]:
    """Compute without TF32, which silently rounds float32 to 10 bits, and with the fastest convolutions.

    Pixels, indices and SSIM are computed in float32, and `--precision float32` means just that.
    """
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, matmul.allow_tf32, cudnn.benchmark
    cudnn.allow_tf32, matmul.allow_tf32, cudnn.benchmark = False, False, True
    try:
        yield
    finally:
        cudnn.allow_tf32, matmul.allow_tf32, cudnn.benchmark = before


def activation_bytes(config: ModelConfig, batch: int) -> int:
    """Bytes that a step of the codec keeps for its backward pass on (batch, 1, H, W) images in float32.

    They are counted on networks on torch's meta device, which allocates nothing.
    """
    kept: dict[tuple[int, torch.Size, tuple[int, ...]], int] = {}

    def count(tensor: Tensor) -> Tensor:
        kept[id(tensor.untyped_storage()), tensor.shape, tensor.stride()] = (
            tensor.numel() * tensor.element_size()
        )
        holding.append(tensor)
        return tensor

    holding: list[Tensor] = []  # so that no id is given twice
    with (
        torch.device("meta"),
        torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor),
    ):
        latents = Encoder(config).layers(torch.empty(1, 1, *config.window))
        Decoder(config).layers(latents)
    return sum(kept.values()) * batch


@contextmanager
def naming_the_batch(batch_size: int, way_out: str, device: torch.device) -> Iterator[None]:
    """Turn a lack of memory into an error that names the batch size and a way out.

    Raises:
        TrainingError: in place of torch's errors.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not (
            isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "allocate memory" in str(error)
        ):
            raise
        raise TrainingError(
            f"{device.type}: no memory left with batches of {batch_size}; {way_out}"
        ) from error
