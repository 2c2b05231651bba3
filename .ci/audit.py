"""Known vulnerabilities of what is installed beside oasisvq: `python .ci/audit.py`, by .ci/run.

pip-audit asks PyPI for them. It is installed for the moment, beside nothing else. Where it cannot be
had, or PyPI does not answer, that is said in one line and is no failure; a vulnerability is one.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

PIP_AUDIT = "pip-audit>=2.9,<3"
SECONDS = 30  # for all of it


def verdict(dependencies: list[dict[str, Any]]) -> tuple[bool, list[str]]:
    """Whether all is well with what pip-audit reports, and what to say of it."""
    found = [
        f"audit: {each['name']} {each['version']}: {vulnerability['id']}, fixed in "
        f"{', '.join(vulnerability['fix_versions']) or 'no version yet'}"
        for each in dependencies
        for vulnerability in each.get("vulns", [])
    ]
    unknown = [each["name"] for each in dependencies if "skip_reason" in each]
    asked = len(dependencies) - len(unknown)
    if not asked:
        return True, [f"audit: skipped, PyPI tells of none of {len(dependencies)} packages"]
    if found:
        return False, found
    rest = f"; not known there: {', '.join(unknown)}" if unknown else ""
    return True, [f"audit: no known vulnerability in {asked} packages{rest}"]


def audit(folder: Path) -> list[dict[str, Any]]:
    """What pip-audit reports of the packages of this Python.

    Raises:
        OSError, subprocess.SubprocessError, ValueError: it cannot be installed, or cannot ask.
    """
    deadline = time.monotonic() + SECONDS

    def run(*command: str | Path) -> "subprocess.CompletedProcess[str]":
        left = deadline - time.monotonic()
        return subprocess.run(command, capture_output=True, text=True, timeout=left, check=False)

    pip = sys.executable, "-m", "pip"
    packages, environment = folder / "packages", folder / "venv"
    packages.write_text(run(*pip, "freeze", "--exclude", "oasisvq").stdout, "utf-8")
    run(sys.executable, "-m", "venv", "--without-pip", environment).check_returncode()
    run(*pip, "--python", environment, "install", "-q", "--retries", "0", PIP_AUDIT).check_returncode()
    pinned = "--requirement", packages, "--no-deps", "--disable-pip"
    told = run(environment / "bin" / "pip-audit", *pinned, "--progress-spinner", "off", "-f", "json")
    dependencies: list[dict[str, Any]] = json.loads(told.stdout)["dependencies"]
    return dependencies


def main() -> int:
    """Print the verdict; 1 if there is a vulnerability."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            dependencies = audit(Path(folder))
        except (OSError, subprocess.SubprocessError, ValueError, KeyError) as error:
            print(f"audit: skipped, pip-audit cannot be had or cannot ask ({type(error).__name__})")
            return 0
    is_well, lines = verdict(dependencies)
    print("\n".join(lines))
    return 0 if is_well else 1


if __name__ == "__main__":
    sys.exit(main())
