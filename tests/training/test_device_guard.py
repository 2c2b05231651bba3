"""Training on a device that is no CPU, without one: nothing mixes devices, nothing waits in a step.

The device is pretended, see pretended.py. It shows what a program asks of a device; how fast a real one
is, and whether its kernels are right, it does not.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from torch.utils import backend_registration

HERE = Path(__file__).parent

pytestmark = pytest.mark.skipif(
    not hasattr(backend_registration, "_setup_privateuseone_for_python_backend"),
    reason="this torch has no backends in Python",
)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What device_driver.py prints."""
    paths = [str(HERE), str(HERE.parent), os.environ.get("PYTHONPATH", "")]
    driver = subprocess.run(
        [sys.executable, str(HERE / "device_driver.py")],
        cwd=tmp_path_factory.mktemp("device"),
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert driver.returncode == 0, driver.stderr
    result: dict[str, Any] = json.loads(driver.stdout)
    return result


def test_the_device_has_nothing_to_object_to(found: dict[str, Any]) -> None:
    """Codec, prior and residue, stopped and resumed, and a codec that starts from another."""
    assert found["cases"]["chain"] == []
    assert found["operations"] > 5000


def test_nor_at_the_sizes_of_the_preset_for_a_gpu(found: dict[str, Any]) -> None:
    assert found["cases"]["large"] == []


def test_it_trains_what_the_cpu_trains(found: dict[str, Any]) -> None:
    names = {name.partition(":")[0] for name in found["differences"]}
    assert names == {
        "run/checkpoint.safetensors",
        "run/prior-checkpoint.safetensors",
        "run/residue-checkpoint.safetensors",
        "grown/checkpoint.safetensors",
    }
    assert {name: apart for name, apart in found["differences"].items() if apart > 1e-4} == {}


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("left_on_the_cpu", "tensors on the device and on the CPU"),
        ("item", "_local_scalar_dense waits for the device"),
        ("tolist", "tolist waits for the device"),
        ("float64", "makes torch.float64 on the device"),
        ("large_copy", "sends 300,000 bytes from pageable memory"),
        ("blocking_copy", "_to_copy to the device waits"),
        ("copy_back", "to the CPU waits for the device"),
        ("cpu_index", "by an index on the CPU"),
        ("mask", "by a mask waits for the device"),
        ("layout", "in another layout than its weights"),
    ],
)
def test_it_objects_to_a_fault(found: dict[str, Any], fault: str, says: str) -> None:
    assert any(says in objection for objection in found["cases"][fault])
