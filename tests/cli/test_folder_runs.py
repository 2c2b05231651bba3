"""Runs over a folder: trees kept, bad files survived, what is there skipped."""

import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
from conftest import (
    AFFINE,
    Refused,
    Result,
    Run,
    carried,
    draw_phantom,
    draw_volume,
    files_below,
    fingerprint,
)
from PIL import Image


@pytest.fixture
def folder(tmp_path: Path, rng: np.random.Generator) -> Path:
    """A tree of three images beside a file that is no image: scans/first.png, scans/deep/..."""
    root = tmp_path / "scans"
    (root / "deep" / "er").mkdir(parents=True)
    for name in ("first.png", "deep/second.png", "deep/er/third.tif"):
        Image.fromarray(draw_phantom(rng)).save(root / name)
    (root / "notes.txt").write_text("no image")
    return root


def test_a_folder_keeps_its_tree_both_ways(
    run: Run, model_file: Path, tmp_path: Path, folder: Path
) -> None:
    encoded = run("encode", folder, "-o", "codes", "--model", model_file)
    assert encoded.code == 0
    assert encoded.out.startswith("codes: 3 encoded, ")
    below = files_below(tmp_path / "codes")
    assert fingerprint(tmp_path / "codes" / carried(model_file)) == fingerprint(model_file)
    del below[carried(model_file)]
    assert set(below) == {"first.codes", "deep/second.codes", "deep/er/third.codes"}
    total = sum(
        (folder / n).stat().st_size for n in ("first.png", "deep/second.png", "deep/er/third.tif")
    )
    assert f"{total:,} -> {sum(len(content) for content in below.values()):,} bytes" in encoded.out
    decoded = run("decode", "codes", "-o", "back", "--model", model_file)
    assert decoded.code == 0
    assert decoded.out.startswith("back: 3 decoded, ")
    assert set(files_below(tmp_path / "back")) == {"first.png", "deep/second.png", "deep/er/third.png"}


def test_a_folder_gives_the_same_files_as_one_by_one(
    run: Run, model_file: Path, tmp_path: Path, folder: Path
) -> None:
    run("encode", folder, "-o", "codes", "--model", model_file)
    run("encode", folder / "deep" / "second.png", "-o", "alone.codes", "--model", model_file)
    alone = tmp_path / "alone.codes"
    assert (tmp_path / "codes" / "deep" / "second.codes").read_bytes() == alone.read_bytes()
    run("decode", "codes", "-o", "back", "--model", model_file)
    run("decode", alone, "-o", "alone.png", "--model", model_file)
    assert (tmp_path / "back/deep/second.png").read_bytes() == (tmp_path / "alone.png").read_bytes()


@pytest.mark.parametrize("command", ["encode", "decode"])
def test_a_second_run_skips_what_is_there(
    run: Run, model_file: Path, tmp_path: Path, folder: Path, command: str
) -> None:
    source = folder
    if command == "decode":
        run("encode", folder, "-o", "codes", "--model", model_file)
        source = tmp_path / "codes"
    assert run(command, source, "-o", "out", "--model", model_file).code == 0
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.*")}
    assert len(times) == 3 + (command == "encode")  # and the model
    again = run(command, source, "-o", "out", "--model", model_file)
    assert again.code == 0
    passed_over = "passed over: 1 .txt\n" if command == "encode" else ""
    assert again.out == f"out: 0 {command}d, 3 already there\n{passed_over}"
    assert {path: path.stat().st_mtime_ns for path in times} == times


@pytest.mark.parametrize("command", ["encode", "decode"])
def test_force_does_a_folder_again(
    run: Run, model_file: Path, tmp_path: Path, folder: Path, command: str
) -> None:
    source = folder
    if command == "decode":
        run("encode", folder, "-o", "codes", "--model", model_file)
        source = tmp_path / "codes"
    run(command, source, "-o", "out", "--model", model_file)
    before = files_below(tmp_path / "out")
    for name in before:
        (tmp_path / "out" / name).write_bytes(b"stale")
    again = run(command, source, "-o", "out", "--model", model_file, "-f")
    assert again.code == 0
    assert f"3 {command}d" in again.out
    assert files_below(tmp_path / "out") == before


def test_only_the_missing_file_is_made(run: Run, model_file: Path, tmp_path: Path, folder: Path) -> None:
    run("encode", folder, "-o", "codes", "--model", model_file)
    (tmp_path / "codes" / "first.codes").unlink()
    again = run("encode", folder, "-o", "codes", "--model", model_file)
    assert again.code == 0
    assert "1 encoded" in again.out
    assert "2 already there" in again.out
    assert (tmp_path / "codes" / "first.codes").is_file()


@pytest.mark.parametrize("stale", ["truncated", "other quality", "other model"])
def test_an_output_that_is_not_valid_is_a_failure_and_not_skipped(
    run: Run, model_file: Path, other_model: Path, tmp_path: Path, folder: Path, stale: str
) -> None:
    run("encode", folder, "-o", "codes", "--model", model_file)
    first = tmp_path / "codes" / "first.codes"
    if stale == "truncated":
        first.write_bytes(first.read_bytes()[:-1])
    else:
        given = ("-q", "1", "--model", model_file) if "quality" in stale else ("--model", other_model)
        assert run("encode", folder / "first.png", "-o", first, *given, "-f").code == 0
    in_the_way = first.read_bytes()
    again = run("encode", folder, "-o", "codes", "--model", model_file)
    assert again.code == 1
    assert "0 encoded, 2 already there" in again.out
    assert "codes/first.codes: exists; pass -f" in again.err
    assert first.read_bytes() == in_the_way
    forced = run("encode", folder, "-o", "codes", "--model", model_file, "-f")
    assert forced.code == 0
    assert first.read_bytes() != in_the_way


def test_encoding_a_folder_goes_on_after_a_bad_file(
    run: Run, model_file: Path, tmp_path: Path, folder: Path
) -> None:
    (folder / "a_text.png").write_text("no image")
    (folder / "deep" / "an_empty.png").touch()
    result = run("encode", folder, "-o", "codes", "--model", model_file)
    assert result.code == 1
    assert result.out.startswith("codes: 3 encoded, ")
    assert result.out.splitlines()[2:] == ["passed over: 1 .txt"]
    _, speed, failed, *failures = result.err.splitlines()
    assert speed.startswith("3 slices in ")
    assert failed == "2 failed:"
    assert len(failures) == 2
    assert "deep/an_empty.png: an empty file" in result.err
    assert "a_text.png: not an image" in result.err
    below = set(files_below(tmp_path / "codes"))
    assert below == {"first.codes", "deep/second.codes", "deep/er/third.codes", carried(model_file)}


def test_decoding_a_folder_goes_on_after_a_bad_file(
    run: Run, model_file: Path, tmp_path: Path, folder: Path
) -> None:
    run("encode", folder, "-o", "codes", "--model", model_file)
    damaged = tmp_path / "codes" / "deep" / "second.codes"
    damaged.write_bytes(damaged.read_bytes()[:-7])
    result = run("decode", "codes", "-o", "back", "--model", model_file)
    assert result.code == 1
    assert result.out.startswith("back: 2 decoded, ")
    assert "1 failed:" in result.err
    assert "codes/deep/second.codes: truncated" in result.err
    assert set(files_below(tmp_path / "back")) == {"first.png", "deep/er/third.png"}


def test_two_images_with_one_output_are_a_failure_of_the_second(
    run: Run, model_file: Path, tmp_path: Path, rng: np.random.Generator
) -> None:
    scans = tmp_path / "scans"
    scans.mkdir()
    for name in ("scan.png", "scan.tif"):
        Image.fromarray(draw_phantom(rng)).save(scans / name)
    run("encode", scans / "scan.png", "-o", "alone.codes", "--model", model_file)
    for options in ((), (), ("-f",)):
        result = run("encode", scans, "-o", "codes", "--model", model_file, *options)
        assert result.code == 1
        assert "1 failed:" in result.err
        assert "scans/scan.tif: its output codes/scan.codes would replace that of scan.png" in result.err
        first = (tmp_path / "codes" / "scan.codes").read_bytes()
        assert first == (tmp_path / "alone.codes").read_bytes()


def test_hidden_files_are_left_out(
    run: Run, model_file: Path, folder: Path, phantom_png: Path, tmp_path: Path
) -> None:
    (folder / "._first.png").write_text("what a Mac leaves")
    (folder / ".cache").mkdir()
    phantom_png.rename(folder / ".cache" / "thumbnail.png")
    result = run("encode", folder, "-o", "codes", "--model", model_file)
    assert result.code == 0
    assert "3 encoded" in result.out


def test_folder_without_images_or_codes(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert ".png" in refused("encode", "empty", "-o", "out", naming="empty")
    assert ".codes files" in refused("decode", "empty", "-o", "out", naming="empty")


# the prior


def test_a_folder_run_skips_only_what_the_same_coder_made(
    run: Run, prior_model_file: Path, tmp_path: Path, folder: Path
) -> None:
    def encode(*options: str) -> Result:
        return run("encode", folder, "-o", "codes", "--model", prior_model_file, *options)

    assert encode().code == 0
    before = files_below(tmp_path / "codes")
    for options in ((), ("--coder", "prior")):
        assert "0 encoded, 3 already there" in encode(*options).out
    other = encode("--coder", "packed")
    assert other.code == 1
    assert other.err.count("exists; pass -f") == 3
    assert files_below(tmp_path / "codes") == before
    assert encode("--coder", "packed", "-f").code == 0
    assert "0 encoded, 3 already there" in encode("--coder", "packed").out


def test_a_folder_of_prior_coded_files_decodes_as_one_by_one(
    run: Run, prior_model_file: Path, tmp_path: Path, folder: Path
) -> None:
    given = ("--model", prior_model_file)
    assert run("encode", folder, "-o", "codes", *given).code == 0
    assert run("encode", folder / "first.png", "-o", "alone.codes", *given).code == 0
    alone = (tmp_path / "alone.codes").read_bytes()
    assert (tmp_path / "codes" / "first.codes").read_bytes() == alone
    assert run("decode", "codes", "-o", "back", *given).code == 0
    assert run("decode", "alone.codes", "-o", "alone.png", *given).code == 0
    assert (tmp_path / "back" / "first.png").read_bytes() == (tmp_path / "alone.png").read_bytes()


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_a_second_run_over_finished_files_reads_no_model(
    run: Run, tmp_path: Path, raw_folder: Path, model_file: Path, jobs: str
) -> None:
    """Only its header: arrays that are no more there are not missed."""
    model = tmp_path / "m.safetensors"
    shutil.copy(model_file, model)
    encode = ("encode", raw_folder, "-o", "codes", "--model", model, "--jobs", jobs)
    decode = ("decode", "codes", "-o", "out", "--model", model, "--jobs", jobs)
    assert run(*encode).code == 0
    assert run(*decode).code == 0
    spoilt = bytearray(model.read_bytes())
    spoilt[-64:] = bytes(64)
    model.write_bytes(spoilt)
    for command in (encode, decode):
        again = run(*command)
        assert again.code == 0, again.err
        assert "20 already there" in again.out
    next((tmp_path / "codes").rglob("*.codes")).unlink()
    assert "damaged model file" in run(*encode).err


def test_a_failure_names_its_file_where_it_is_the_model_that_does_not_fit(
    run: Run, folder: Path, volumes_model_file: Path, rng: np.random.Generator
) -> None:
    nibabel.save(nibabel.Nifti1Image(draw_volume(rng), AFFINE), folder / "deep" / "volume.nii.gz")
    result = run("encode", "scans", "-o", "codes", "-q", "3", "--model", volumes_model_file)
    assert result.code == 1
    assert "scans/deep/volume.nii.gz: quality 3, but this model has 1 to 2 for volumes" in result.err
    assert "3 encoded" in result.out
