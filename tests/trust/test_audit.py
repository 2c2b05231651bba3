"""The audit of the dependencies in .ci/."""

import runpy
from pathlib import Path

import pytest

AUDIT = Path(__file__).parents[2] / ".ci" / "audit.py"


@pytest.mark.skipif(not AUDIT.is_file(), reason="the checks are not part of an sdist")
def test_what_the_audit_makes_of_a_report() -> None:
    """As `pip-audit --format json` prints it."""
    verdict = runpy.run_path(str(AUDIT))["verdict"]
    unknown = {"name": "ours", "skip_reason": "Dependency not found on PyPI"}
    good = {"name": "numpy", "version": "2.0", "vulns": []}
    found = {"id": "PYSEC-1", "fix_versions": ["11.4"], "aliases": ["CVE-1"], "description": "..."}
    bad = {"name": "pillow", "version": "11.3", "vulns": [found]}
    assert verdict([unknown, unknown]) == (True, ["audit: skipped, PyPI tells of none of 2 packages"])
    assert verdict([good, unknown]) == (
        True,
        ["audit: no known vulnerability in 1 packages; not known there: ours"],
    )
    assert verdict([good, bad, unknown]) == (
        False,
        ["audit: pillow 11.3: PYSEC-1, fixed in 11.4"],
    )
