"""Other versions of Python, torch and the rest."""

import sys
from pathlib import Path

import pytest
from matrix import oldest_versions, round_trip, run


def test_the_oldest_versions_are_read_off_the_project(tmp_path: Path) -> None:
    project = tmp_path / "pyproject.toml"
    listed = '    "torch>=2.6,<3",\n    "scikit-image>=0.24.1,<1",\n'
    project.write_text(f'[project]\nname = "x"\ndependencies = [\n{listed}]\n[other]\n')
    assert oldest_versions(project) == {"torch": "2.6", "scikit-image": "0.24.1"}
    assert {"torch", "numpy", "safetensors"} <= set(oldest_versions())


def test_the_round_trip_that_every_environment_makes(tmp_path: Path) -> None:
    round_trip(sys.executable, tmp_path)


def test_a_command_that_fails_ends_the_run() -> None:
    with pytest.raises(SystemExit, match="exit code 3"):
        run([sys.executable, "-c", "raise SystemExit(3)"])
