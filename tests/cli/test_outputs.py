"""Outputs in the way, full disks, and places where results cannot be printed."""

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import Refused, Run, draw_phantom, snapshot
from PIL import Image


@pytest.mark.parametrize("force", [(), ("-f",)], ids=["plain", "force"])
def test_a_folder_is_never_written_over(
    refused: Refused, phantom_png: Path, codes: Path, tmp_path: Path, force: tuple[str, ...]
) -> None:
    Image.new("L", (32, 32)).save(phantom_png)
    (tmp_path / "out" / "scan.codes").mkdir(parents=True)
    (tmp_path / "out" / "scan.png").mkdir()
    for command, source, inside in (
        ("encode", phantom_png, "scan.codes"),
        ("decode", codes, "scan.png"),
    ):
        line = refused(command, source, "-o", "out", *force, naming=f"out/{inside}")
        assert "is a folder" in line


@pytest.mark.parametrize("output", [(), ("-o", "scan.codes")], ids=["default", "named"])
def test_encode_never_overwrites_unasked(
    refused: Refused, phantom_png: Path, tmp_path: Path, output: tuple[str, ...]
) -> None:
    (tmp_path / "scan.codes").write_bytes(b"precious")
    assert "pass -f" in refused("encode", phantom_png, *output, naming="scan.codes")


@pytest.mark.parametrize("output", [(), ("-o", "scan.decoded.png")], ids=["default", "named"])
def test_decode_never_overwrites_unasked(
    refused: Refused, codes: Path, tmp_path: Path, output: tuple[str, ...]
) -> None:
    (tmp_path / "scan.decoded.png").write_bytes(b"precious")
    assert "pass -f" in refused("decode", codes, *output, naming="scan.decoded.png")


@pytest.mark.parametrize("force", [(), ("-f",)], ids=["plain", "force"])
def test_encode_never_writes_over_its_own_input(
    refused: Refused, phantom_png: Path, tmp_path: Path, force: tuple[str, ...]
) -> None:
    """Not with -f either: the codes do not hold the scan."""
    (tmp_path / "own.codes").symlink_to(phantom_png)
    refused("encode", "scan.png", "-o", "own.codes", *force, naming="own.codes")


@pytest.mark.parametrize("output", ["scan.png", "out.nii.gz", "out.zip", "out"])
def test_encode_writes_no_codes_under_another_ending(
    run: Run, phantom_png: Path, tmp_path: Path, output: str
) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    result = run("encode", phantom_png, "-o", output, "-f")
    assert result.code == 2
    assert f"{output}: encode writes .codes files" in result.err
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("place", ["missing/out", "a_file/out", "/proc/out"])
def test_output_in_a_folder_that_takes_no_file(
    refused: Refused, phantom_png: Path, tmp_path: Path, place: str
) -> None:
    if place.startswith("/proc") and not Path("/proc/self").exists():
        pytest.skip("no /proc on this system")
    (tmp_path / "a_file").touch()
    refused("encode", phantom_png, "-o", f"{place}.codes", naming=f"{place}.codes")


@pytest.mark.parametrize("place", ["missing/out.png", "a_file/out.png"])
def test_decoded_output_in_a_folder_that_takes_no_file(
    refused: Refused, codes: Path, tmp_path: Path, place: str
) -> None:
    (tmp_path / "a_file").touch()
    refused("decode", codes, "-o", place, naming=place)


def test_folder_output_that_is_a_file(
    run: Run, model_file: Path, phantom_png: Path, tmp_path: Path
) -> None:
    (tmp_path / "scans").mkdir()
    phantom_png.rename(tmp_path / "scans" / "scan.png")
    (tmp_path / "a_file").write_text("precious")
    before = snapshot(tmp_path)
    result = run("encode", "scans", "-o", "a_file", "--model", model_file, "-f")
    assert result.code == 1
    assert "a_file" in result.err.splitlines()[-1]
    assert snapshot(tmp_path) == before


# a full disk


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with a file on it and room for no other."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=32k", "none", str(disk)]
    if (
        shutil.which("mount") is None
        or subprocess.run(mount, check=False, capture_output=True).returncode
    ):
        pytest.skip("a file system cannot be mounted here")
    try:
        (disk / "old").write_bytes(b"precious")
        with pytest.raises(OSError, match="No space left"), (disk / "filler").open("wb", 0) as stream:
            while True:
                stream.write(bytes(1024))
        yield disk
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_encoding_to_a_full_disk(refused: Refused, phantom_png: Path, full_disk: Path) -> None:
    (full_disk / "old").rename(full_disk / "old.codes")
    for output, force in (("disk/old.codes", ["-f"]), ("disk/new.codes", [])):
        assert "No space left" in refused("encode", phantom_png, "-o", output, *force, naming=output)


def test_decoding_to_a_full_disk(refused: Refused, codes: Path, full_disk: Path) -> None:
    (full_disk / "old").rename(full_disk / "old.png")
    for output, force in (("disk/old.png", ["-f"]), ("disk/new.png", [])):
        assert "No space left" in refused("decode", codes, "-o", output, *force, naming=output)


def test_preprocessing_to_a_full_disk(refused: Refused, raw_folder: Path, full_disk: Path) -> None:
    line = refused("preprocess", raw_folder, "-o", "disk/prepared", naming="disk/prepared")
    assert "No space left" in line


def test_training_on_a_full_disk(run: Run, prepared: Path, full_disk: Path) -> None:
    options = ("--preset", "seed", "--batch-size", "4", "--epochs", "1", "--device", "cpu")
    result = run("train", prepared, "-o", "disk/run", *options)
    assert result.code == 1
    error = result.err.splitlines()[-1]
    assert error.startswith("oasisvq: disk/run")
    assert "No space left" in error
    assert (full_disk / "old").read_bytes() == b"precious"
    assert not (full_disk / "run").exists()


def disk_fills_up(descriptor: int) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_disk_that_fills_up_at_the_last_moment_leaves_the_old_output(
    refused: Refused,
    raw_folder: Path,
    prepared: Path,
    codes: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    image = tmp_path / "scan.decoded.png"
    Image.fromarray(draw_phantom(np.random.default_rng(1))).save(image)
    monkeypatch.setattr(os, "fsync", disk_fills_up)
    for command in (
        ("encode", image, "-o", "scan.codes"),
        ("decode", codes, "-o", "scan.decoded.png"),
        ("preprocess", raw_folder, "-o", "prepared"),
    ):
        line = refused(*command, "-f", naming=str(command[-1]))
        assert "No space left on device" in line


def test_folder_to_a_full_disk_ends_at_the_first_file(
    run: Run, model_file: Path, raw_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", disk_fills_up)
    validation = raw_folder / "keras_png_slices_validate"
    result = run("encode", validation, "-o", "codes", "--model", model_file)
    assert result.code == 1
    assert "1 failed:" in result.err
    assert result.err.count("No space left on device") == 2  # also where the model would be kept
    assert "run the same command to continue" in result.err
    assert not [path for path in (tmp_path / "codes").rglob("*") if path.is_file()]


def test_interrupted_write_leaves_the_old_output(
    run: Run, model_file: Path, phantom_png: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(descriptor: int) -> None:
        raise KeyboardInterrupt

    (tmp_path / "scan.codes").write_bytes(b"precious")
    before = snapshot(tmp_path)
    monkeypatch.setattr(os, "fsync", interrupted)
    result = run("encode", phantom_png, "-f", "--model", model_file)
    assert result.code in (1, 130)
    assert "Traceback" not in result.err
    assert snapshot(tmp_path) == before


# where results are printed


def info_in_a_process(codes: Path, **options: object) -> "subprocess.CompletedProcess[bytes]":
    command = [sys.executable, "-m", "oasisvq", "info", str(codes)]
    return subprocess.run(command, stderr=subprocess.PIPE, check=False, **options)


def test_results_print_where_only_ascii_does(codes: Path) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    result = info_in_a_process(codes, env=environment, stdout=subprocess.PIPE)
    assert result.returncode == 0
    assert result.stderr == b""
    assert b"64" in result.stdout


def test_results_to_a_full_disk(codes: Path, full_disk: Path) -> None:
    """As in `oasisvq score --json > scores.json`."""
    with (full_disk / "result").open("wb") as stdout:
        result = info_in_a_process(codes, stdout=stdout)
    assert result.returncode == 1
    lines = result.stderr.decode().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("oasisvq: ")
    assert "No space left" in lines[0]


def test_results_to_a_closed_pipe(codes: Path) -> None:
    """As in `oasisvq info scan.codes | head -0`."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        result = info_in_a_process(codes, stdout=writer)
    finally:
        os.close(writer)
    assert result.returncode == 1
    assert result.stderr == b""
