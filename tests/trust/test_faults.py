"""A few kills and faults of each kind; `faults.py` by itself tries many."""

import json
import os
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parent / "faults.py"


def test_kills_and_faults_leave_nothing_half_done() -> None:
    """Trainings are killed in training/test_survival.py."""
    options = ["--kills", "2", "--slices", "2", "--commands", "encode", "preprocess"]
    result = subprocess.run(
        [sys.executable, SCRIPT, *options, "--faults", "two", "--json"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.stdout, result.stderr
    found = json.loads(result.stdout)
    assert found["wrong"] == []
    assert result.returncode == 0
    for numbers in found["kills"].values():
        assert numbers.get("SIGKILL", 0) + numbers.get("SIGINT", 0) == 2
        assert numbers["finished"] >= 1
    assert found["faults"] == {"two": 4}
