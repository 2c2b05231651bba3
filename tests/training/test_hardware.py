"""What a training asks of a machine, on machines that are not here."""

from datetime import timedelta
from typing import Any

import pytest
import torch
from conftest import TINY

from oasisvq.errors import TrainingError
from oasisvq.training import distributed
from oasisvq.training.distributed import joined_world
from oasisvq.training.hardware import (
    activation_bytes,
    choose_compiling,
    choose_precision,
    naming_the_batch,
    true_float32,
)
from oasisvq.training.weights import Model

CPU, CUDA, MPS = torch.device("cpu"), torch.device("cuda", 0), torch.device("mps")


@pytest.mark.parametrize(
    ("capability", "precision", "compiled"),
    [((7, 0), "float32", False), ((7, 5), "float32", False), ((8, 0), "bfloat16", True)],
)
def test_only_from_ampere_on_a_gpu_multiplies_in_bfloat16(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], precision: str, compiled: bool
) -> None:
    def supported(including_emulation: bool = True) -> bool:
        return including_emulation or capability >= (8, 0)

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert choose_precision("auto", CUDA) == precision
    assert choose_precision("bfloat16", CUDA) == "bfloat16"
    assert choose_compiling(None, CUDA) is compiled
    assert choose_compiling(not compiled, CUDA) is not compiled


def test_elsewhere_nothing_is_compiled_unless_asked_for() -> None:
    assert not choose_compiling(None, CPU)
    assert choose_compiling(True, CPU)
    assert choose_precision("auto", MPS) == "float32"


def test_float32_is_no_tf32_while_training() -> None:
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, matmul.allow_tf32, cudnn.benchmark
    with true_float32():
        assert (cudnn.allow_tf32, matmul.allow_tf32, cudnn.benchmark) == (False, False, True)
    assert (cudnn.allow_tf32, matmul.allow_tf32, cudnn.benchmark) == before


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
        MemoryError(),
    ],
)
def test_memory_that_runs_out_names_the_batch(error: Exception) -> None:
    says = "cpu: no memory left with batches of 64; choose a smaller --batch-size"
    with (
        pytest.raises(TrainingError, match=says),
        naming_the_batch(64, "choose a smaller --batch-size", CPU),
    ):
        raise error
    with (
        pytest.raises(RuntimeError, match="ours"),
        naming_the_batch(64, "choose a smaller --batch-size", CPU),
    ):
        raise RuntimeError("ours")


def test_activations_are_counted_for_each_image() -> None:
    kept = 0

    def count(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal kept
        kept += tensor.numel() * tensor.element_size()
        return tensor

    model = Model(TINY)
    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        model.decoder(model.encoder(torch.rand(1, 1, *TINY.window)))
    one = activation_bytes(TINY, 1)
    assert activation_bytes(TINY, 3) == 3 * one
    assert 0.5 * kept < one <= kept  # some tensors are kept twice, and counted once


@pytest.mark.parametrize(("device", "backend"), [(CPU, "gloo"), (CUDA, "nccl")])
def test_processes_wait_for_one_that_prepares_the_data(
    monkeypatch: pytest.MonkeyPatch, device: torch.device, backend: str
) -> None:
    given: dict[str, Any] = {}
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    monkeypatch.setattr(
        distributed.dist, "init_process_group", lambda name, **options: given.update(options, name=name)
    )
    for name, found in (("get_rank", 1), ("get_world_size", 2), ("destroy_process_group", None)):
        monkeypatch.setattr(distributed.dist, name, lambda found=found: found)
    with joined_world(device) as world:
        assert (world.rank, world.size) == (1, 2)
    assert given["name"] == backend
    assert given["timeout"] >= timedelta(hours=6)
    assert given["device_id"] == (CUDA if device == CUDA else None)
