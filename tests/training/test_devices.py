"""Where a training runs."""

import pytest
import torch

from oasisvq.errors import ModelError
from oasisvq.training.devices import choose_device


def test_a_device_that_is_not_there_is_refused() -> None:
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device("auto").type in {"cpu", "cuda"}  # nobody has trained on MPS yet
    with pytest.raises(ModelError, match="device 'tpu', expected auto, cuda, mps or cpu"):
        choose_device("tpu")
    for name, is_present in (
        ("cuda", torch.cuda.is_available()),
        ("mps", torch.backends.mps.is_available()),
    ):
        if is_present:
            assert choose_device(name).type == name
        else:
            with pytest.raises(ModelError, match=f"no {name} device on this machine"):
                choose_device(name)
