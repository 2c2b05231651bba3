"""Training on a device that is no CPU, without one: nothing mixes devices, nothing waits in a step.

The device is pretended, see pretended.py. It shows what a program asks of a device; how fast a real one
is, and whether its kernels are right, it does not.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from torch.utils import backend_registration

HERE = Path(__file__).parent

pytestmark = pytest.mark.skipif(
    not hasattr(backend_registration, "_setup_privateuseone_for_python_backend"),
    reason="this torch has no backends in Python",
)


FAULTS = {
    "left_on_the_cpu": "tensors on the device and on the CPU",
    "item": "_local_scalar_dense waits for the device",
    "tolist": "tolist waits for the device",
    "float64": "makes torch.float64 on the device",
    "large_copy": "sends 300,000 bytes from pageable memory",
    "blocking_copy": "_to_copy to the device waits",
    "copy_back": "to the CPU waits for the device",
    "cpu_index": "by an index on the CPU",
    "mask": "by a mask waits for the device",
    "layout": "in another layout than its weights",
}


def test_training_gives_a_device_nothing_to_object_to(tmp_path: Path) -> None:
    """One test, for it takes a process of its own; what it finds is below, one thing after the other."""
    paths = [str(HERE), str(HERE.parent), os.environ.get("PYTHONPATH", "")]
    driver = subprocess.run(
        [sys.executable, str(HERE / "device_driver.py")],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert driver.returncode == 0, driver.stderr
    found = json.loads(driver.stdout)
    cases = found["cases"]

    # codec, prior and residue, stopped and resumed, and a codec that starts from another
    assert cases.pop("chain") == []
    assert found["operations"] > 5000
    # the codec at the sizes of the preset for a GPU
    assert cases.pop("large") == []

    # it trains what the CPU trains
    assert {name.partition(":")[0] for name in found["differences"]} == {
        "run/checkpoint.safetensors",
        "run/prior-checkpoint.safetensors",
        "run/volumes-checkpoint.safetensors",
        "run/volumes-prior-checkpoint.safetensors",
        "run/residue-checkpoint.safetensors",
        "grown/checkpoint.safetensors",
    }
    assert {name: apart for name, apart in found["differences"].items() if apart > 1e-4} == {}

    # and it does object to each fault that is put into a step
    assert cases.keys() == FAULTS.keys()
    for fault, says in FAULTS.items():
        assert any(says in objection for objection in cases[fault]), (fault, cases[fault])
