"""What is not imported before it is needed, so that a command answers at once."""

import subprocess
import sys


def test_help_answers_before_numpy_is_imported() -> None:
    code = "import oasisvq.cli.app, sys; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
