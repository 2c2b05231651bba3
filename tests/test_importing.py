"""What is not imported before it is needed, so that a command answers at once."""

import subprocess
import sys
from pathlib import Path

import pytest


def test_help_answers_before_numpy_is_imported() -> None:
    code = "import oasisvq.cli.app, sys; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


COMMANDS = """
import sys
from oasisvq.cli.app import main
for command in (
    "encode scan.png",
    "encode . -o codes",
    "decode scan.codes",
    "decode codes -o back",
    "show scan.codes -o panel.png",
    "verify scan.codes codes --deep",
    "info scan.codes",
    "export codes -o tokens.npz",
    "decode tokens.npz -o of-tokens",
    "sample -n 2 -o brains.png --temperature 0.7",
    "score scan.png",
):
    try:
        main(command.split())
    except SystemExit as end:
        if end.code:
            raise
    if "torch" in sys.modules:
        sys.exit(f"{command} imported torch")
"""


def test_only_training_imports_torch(
    tmp_path: Path, phantom_png: Path, prior_model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OASISVQ_MODEL", str(prior_model_file))
    finished = subprocess.run(
        [sys.executable, "-c", COMMANDS], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stderr
