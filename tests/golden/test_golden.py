"""Files of every kind and format version decode to what was recorded, wherever these tests run.

If one of them fails, files that people keep would be read as something else, or written otherwise: the
change needs a new format version, which reads these too.
"""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recorded import FOLDERS, MODEL, golden_files, recorded_facts, unrestored
from remake import Drawn, drawn_scans, scans_with_residues

import oasisvq
from oasisvq.codec.bins import Rule
from oasisvq.codec.codec import Codec
from oasisvq.codec.container import VERSION
from oasisvq.codec.headers import Coder, Kind, SampleType
from oasisvq.scans.geometry import Form

PLAIN = [folder for folder in FOLDERS if "-" not in folder.name]
WITH_RESIDUES = [folder for folder in FOLDERS if folder.name.endswith("-residues")]
each_folder = pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)


@pytest.fixture(scope="module", params=[1, 4], ids=["one thread", "four threads"])
def found(request: pytest.FixtureRequest) -> dict[str, Any]:
    """What the files decode to in a process without torch."""
    threads = {f"{library}_NUM_THREADS": str(request.param) for library in ("OMP", "OPENBLAS", "MKL")}
    driver = Path(__file__).with_name("recorded.py")
    done = subprocess.run(
        [sys.executable, driver], env=os.environ | threads, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    printed: dict[str, Any] = json.loads(done.stdout)
    return printed


@each_folder
def test_the_files_hold_what_was_recorded(folder: Path, found: dict[str, Any]) -> None:
    assert found[folder.name]["facts"] == recorded_facts(folder)


@each_folder
def test_what_they_hold_is_coded_to_the_same_bytes(folder: Path, found: dict[str, Any]) -> None:
    contents = {path.name: path.read_bytes() for path in golden_files(folder)}
    expected = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    assert found[folder.name]["coded again"] == expected


@pytest.mark.parametrize(
    ("folder", "scans"), [(PLAIN[-1], drawn_scans), (WITH_RESIDUES[-1], scans_with_residues)]
)
def test_drawn_scans_are_encoded_to_the_same_bytes(
    folder: Path, scans: Callable[[], Iterator[Drawn]]
) -> None:
    """What encoding chooses is golden too, by the newest format."""
    codec = Codec.load(folder / MODEL)
    encoded = {f"{name}.codes": codec.encode_scan(scan, wish) for name, scan, wish in scans()}
    assert encoded == {path.name: path.read_bytes() for path in golden_files(folder)}


def test_every_version_has_files_of_every_kind() -> None:
    versions = [f"version{number + 1}" for number in range(VERSION)]
    assert [folder.name for folder in PLAIN] == versions
    assert [folder.name for folder in WITH_RESIDUES] == [f"{version}-residues" for version in versions]
    headers = [facts["header"] for facts in recorded_facts(WITH_RESIDUES[-1]).values()]
    binnings = [header["residue"]["binning"] for header in headers if "residue" in header]
    assert {binning["rule"] for binning in binnings} == {rule.name for rule in Rule}
    for block in ("ground", "restoration"):
        assert {block in header for header in headers} == {False, True}
    headers = [facts["header"] for facts in recorded_facts(PLAIN[-1]).values()]
    kept = {(header["kind"], header["sample_type"]) for header in headers if "outliers" in header}
    assert kept == {("IMAGE", "UINT16"), ("VOLUME", "INT16"), ("VOLUME", "FLOAT32")}
    kinds = {(header["coder"], header["kind"]) for header in headers}
    assert kinds == {(coder.name, kind.name) for coder in Coder for kind in Kind}
    volumes = [header["volume"] for header in headers if header["volume"]]
    assert {volume["form"] for volume in volumes} == {form.name for form in Form}
    assert {header["stack"]["width"] for header in headers if "stack" in header} == {1, 4}
    of_scans = {header["sample_type"] for header in headers if not header["labels"]}
    assert of_scans == {sample_type.name for sample_type in SampleType}


@pytest.mark.parametrize("folder", PLAIN, ids=lambda folder: folder.name)
def test_the_pixels_are_of_pictures(folder: Path) -> None:
    """The decoder's values are spread over the range, so that a wrong one is seen."""
    codec = oasisvq.load(folder / MODEL)
    content = (folder / "image-beyond-the-window-prior.codes").read_bytes()
    plane = codec.decode(unrestored(content))
    assert plane.std() > 30
    assert len(np.unique(plane)) > 100
    assert codec.prior is not None
