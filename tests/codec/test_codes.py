"""Files that were read -> indices and labels: by the prior, of volumes, of labels."""

import os
import subprocess
import sys
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from forged import (
    HEADER,
    INDICES,
    damaged_copies,
    forge,
    label_file,
    original,
    prior_coded,
    read,
    volume_codes,
    write,
)
from prior_driver import drawn_prior

from oasisvq.codec import container
from oasisvq.codec.codes import NO_INDEX
from oasisvq.codec.headers import Kind, SampleType
from oasisvq.codec.pixels import Window
from oasisvq.errors import CodesFileError, FileError
from oasisvq.models import read_codes


@pytest.mark.parametrize("changes", [{"codes": 21}, {"levels": 4}])
def test_a_grid_that_does_not_fit_the_prior_is_refused(changes: dict[str, int]) -> None:
    content = forge(bytes(6), coder=1, **changes)
    with pytest.raises(CodesFileError, match=r"^scan\.codes: damaged: its grid does not fit the prior"):
        container.read(content, "scan.codes").codes(drawn_prior())


def test_every_damage_to_a_prior_coded_file_is_an_error() -> None:
    content = prior_coded()
    codes = container.read(content, "scan.codes").codes(drawn_prior())
    np.testing.assert_array_equal(codes.indices, INDICES)
    for other in damaged_copies(content):
        with pytest.raises(CodesFileError, match=r"^scan\.codes: "):
            container.read(other, "scan.codes").codes(drawn_prior())


def test_zeros_behind_a_prior_coded_payload_are_refused_though_the_crc_is_right() -> None:
    payload = container.read(prior_coded(), "scan.codes").payload
    with pytest.raises(CodesFileError, match=r"^scan\.codes: damaged: .*does not end where"):
        container.read(forge(payload + b"\0", coder=1), "scan.codes").codes(drawn_prior())


def test_inverse_for_volumes(rng: np.random.Generator) -> None:
    for _ in range(100):
        header, indices = volume_codes(rng)
        codes = read(write(header, indices), "x.codes")
        assert codes.header == header
        assert codes.indices.shape == (header.slices, *header.grid_shape)
        np.testing.assert_array_equal(codes.indices[header.coded_slices], indices)
        assert (codes.indices[-1] == NO_INDEX).all()


def test_slices_that_hold_no_indices_take_no_memory(rng: np.random.Generator) -> None:
    """A file of a few bytes may say that it has thousands of them."""
    volume = original(rng, (100, 2000, 2000), SampleType.UINT8, ((7, 7),) * 100)
    header = replace(
        HEADER,
        kind=Kind.VOLUME,
        shape=(2000, 2000),
        window=Window(0, 0, 250, 250),
        levels=8,
        intensity=(0.0, 9.0),
        volume=volume,
    )
    content = container.write(header, b"")
    tracemalloc.start()
    codes = read(content, "x.codes")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**20
    assert codes.indices.shape == (100, 8, 250, 250)
    assert codes.indices[57, 3, 2, 1] == NO_INDEX


@pytest.mark.parametrize("labels", [(3,), (0, 1), (-5, 0, 7), (0, 85, 170, 255), (-(2**31), 2**31 - 1)])
def test_inverse_for_labels(labels: tuple[int, ...], rng: np.random.Generator) -> None:
    content, expected = label_file(rng, labels)
    codes = container.read(content, "x.codes").codes()
    assert codes.header.labels == labels
    assert codes.label_map is not None
    assert codes.label_map.dtype == np.int32
    np.testing.assert_array_equal(codes.label_map, expected)


def test_every_damage_to_a_volume_or_to_labels_is_an_error(rng: np.random.Generator) -> None:
    header, indices = volume_codes(rng)
    for content in (write(header, indices), label_file(rng, (-5, 0, 7))[0]):
        container.read(content, "scan.codes").codes()
        for other in damaged_copies(content):
            with pytest.raises(CodesFileError, match=r"^scan\.codes: "):
                container.read(other, "scan.codes").codes()


def test_read_codes_reads_a_file(tmp_path: Path) -> None:
    path = tmp_path / "scan.codes"
    path.write_bytes(write(HEADER, INDICES))
    codes = read_codes(path)
    assert codes.header == HEADER
    np.testing.assert_array_equal(codes.indices, INDICES)


def test_read_codes_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "scan.codes"
    path.write_bytes(write(HEADER, INDICES)[:-1])
    with pytest.raises(CodesFileError) as caught:
        read_codes(path)
    assert str(path) in str(caught.value)


def test_read_codes_of_what_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="no such file"):
        read_codes(tmp_path / "missing.codes")
    with pytest.raises(FileError, match="is a folder"):
        read_codes(tmp_path)


def test_read_codes_has_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "scan.codes"
    path.write_bytes(write(HEADER, INDICES))
    monkeypatch.setattr(container, "MAX_FILE_BYTES", 40)
    with pytest.raises(FileError, match="more than 40 bytes"):
        read_codes(path)


def test_codes_are_read_without_torch(tmp_path: Path) -> None:
    path = tmp_path / "scan.codes"
    path.write_bytes(write(HEADER, INDICES))
    program = (
        "import sys, oasisvq; codes = oasisvq.read_codes(sys.argv[1]); "
        "print(codes.indices.tolist(), 'torch' in sys.modules)"
    )
    finished = subprocess.run(
        [sys.executable, "-c", program, path], capture_output=True, text=True, check=True, env=os.environ
    )
    assert finished.stdout == f"{INDICES.tolist()} False\n"
