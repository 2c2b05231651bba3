"""Files of every kind and format version decode to what was recorded, wherever these tests run.

If one of them fails, files that people keep would be read as something else, or written otherwise: the
change needs a new format version, which reads these too.
"""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recorded import FOLDERS, MODEL, golden_files, recorded_facts
from remake import drawn_scans

import oasisvq
from oasisvq.codec.codec import Codec
from oasisvq.codec.container import VERSION
from oasisvq.codec.headers import Coder, Kind, SampleType
from oasisvq.scans.geometry import Form

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


def test_drawn_scans_are_encoded_to_the_same_bytes() -> None:
    """What encoding chooses is golden too, by the newest format."""
    folder = FOLDERS[-1]
    codec = Codec.load(folder / MODEL)
    encoded = {f"{name}.codes": codec.encode_scan(scan, wish) for name, scan, wish in drawn_scans()}
    assert encoded == {path.name: path.read_bytes() for path in golden_files(folder)}


def test_every_version_has_files_of_every_kind() -> None:
    assert [folder.name for folder in FOLDERS] == [f"version{number + 1}" for number in range(VERSION)]
    headers = [facts["header"] for facts in recorded_facts(FOLDERS[-1]).values()]
    kinds = {(header["coder"], header["kind"]) for header in headers}
    assert kinds == {(coder.name, kind.name) for coder in Coder for kind in Kind}
    volumes = [header["volume"] for header in headers if header["volume"]]
    assert {volume["form"] for volume in volumes} == {form.name for form in Form}
    of_scans = {header["sample_type"] for header in headers if not header["labels"]}
    assert of_scans == {sample_type.name for sample_type in SampleType}


@each_folder
def test_the_pixels_are_of_pictures(folder: Path) -> None:
    """The decoder's values are spread over the range, so that a wrong one is seen."""
    codec = oasisvq.load(folder / MODEL)
    plane = codec.decode((folder / "image-beyond-the-window-prior.codes").read_bytes())
    assert plane.std() > 30
    assert len(np.unique(plane)) > 100
    assert codec.prior is not None
