"""Whatever a user or a file gets wrong: one clear line, exit code 1, nothing written, nothing lost."""

import errno
import io
import json
import os
import shutil
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Result, draw_phantom, tiny_model, tiny_prior, write_raw_folder
from PIL import Image
from safetensors.torch import load_file, save_file

from oasisvq.codec.weights import load_model, save_model

Run = Callable[..., Result]
Refused = Callable[..., str]

LONG_NAME = "a" * 300 + ".png"
NOTES = ("dataset ", "model ", "preset ")  # lines on stderr that may stand before the error


def snapshot(root: Path) -> dict[str, object]:
    """Everything below a folder: contents of files, targets of links, and the folders themselves."""
    found: dict[str, object] = {}
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if path.is_symlink():
            found[name] = path.readlink()
        else:
            found[name] = path.read_bytes() if path.is_file() else "folder or pipe"
    return found


@pytest.fixture
def refused(run: Run, model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Refused:
    """Run a command that must fail with one line naming `naming`, and change nothing on disk."""
    monkeypatch.setenv("OASISVQ_MODEL", str(model_file))

    def call(*arguments: str | Path, naming: str, code: int = 1) -> str:
        before = snapshot(tmp_path)
        result = run(*arguments)
        assert result.code == code, result
        assert result.out == ""
        *notes, line = result.err.splitlines()
        assert line.startswith("oasisvq: ")
        assert naming in line
        assert all(note.startswith(NOTES) for note in notes), result.err
        assert snapshot(tmp_path) == before
        return line

    return call


@pytest.fixture
def codes(run: Run, model_file: Path, phantom_png: Path, tmp_path: Path) -> Path:
    """scan.codes, made from scan.png, which is taken away."""
    assert run("encode", phantom_png, "--model", model_file).code == 0
    phantom_png.unlink()
    return tmp_path / "scan.codes"


@pytest.fixture
def prepared(run: Run, tmp_path: Path) -> Path:
    """A prepared dataset of four training and two validation slices, and no raw folder."""
    raw = write_raw_folder(tmp_path / "raw", {"train": [1, 2], "validate": [3]}, slices=2)
    assert run("preprocess", raw, "-o", "prepared", "--size", "64").code == 0
    shutil.rmtree(raw)
    return tmp_path / "prepared"


def with_crc(content: bytes) -> bytes:
    return content + struct.pack("<I", zlib.crc32(content))


# what is not there


@pytest.mark.parametrize(
    "command",
    [
        ("encode", "missing.png"),
        ("decode", "missing.codes"),
        ("info", "missing.codes"),
        ("score", "missing"),
        ("train", "missing"),
        ("preprocess", "missing", "-o", "prepared"),
    ],
    ids=lambda command: command[0],
)
def test_missing_input(refused: Refused, command: tuple[str, ...]) -> None:
    assert "no such f" in refused(*command, naming=command[1])


def test_dangling_link(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "scan.png").symlink_to(tmp_path / "gone.png")
    assert "dangling link" in refused("encode", "scan.png", naming="scan.png")


def test_score_without_arguments_looks_for_data(refused: Refused) -> None:
    refused("score", naming="data: no such folder")


@pytest.mark.parametrize("command", ["encode", "decode", "info", "score", "train", "preprocess"])
def test_name_longer_than_the_system_takes(refused: Refused, command: str) -> None:
    output = ["-o", "prepared"] if command == "preprocess" else []
    refused(command, LONG_NAME, *output, naming=LONG_NAME)


@pytest.mark.parametrize("command", ["encode", "decode", "preprocess"])
def test_output_name_longer_than_the_system_takes(
    refused: Refused, phantom_png: Path, raw_folder: Path, command: str
) -> None:
    source = raw_folder if command == "preprocess" else phantom_png
    refused(command, source, "-o", LONG_NAME, naming=LONG_NAME)


def test_pipe_as_input_does_not_hang(refused: Refused, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    assert "pipe or device" in refused("encode", "pipe.png", naming="pipe.png")


# outputs in the way, and outputs that cannot be written


@pytest.mark.parametrize("force", [(), ("-f",)], ids=["plain", "force"])
def test_output_is_a_folder(
    refused: Refused, phantom_png: Path, codes: Path, tmp_path: Path, force: tuple[str, ...]
) -> None:
    Image.new("L", (32, 32)).save(phantom_png)
    (tmp_path / "folder.png").mkdir()
    for command, source in (("encode", phantom_png), ("decode", codes)):
        line = refused(command, source, "-o", "folder.png", *force, naming="folder.png")
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
    (tmp_path / "link.png").symlink_to(phantom_png)
    refused("encode", "scan.png", "-o", "scan.png", *force, naming="scan.png")
    refused("encode", "link.png", "-o", "scan.png", *force, naming="scan.png")


def test_preprocess_never_overwrites_a_dataset_unasked(
    refused: Refused, raw_folder: Path, prepared: Path
) -> None:
    assert "pass -f" in refused("preprocess", raw_folder, "-o", prepared, naming="prepared")


@pytest.mark.parametrize("force", [(), ("-f",)], ids=["plain", "force"])
def test_preprocess_never_replaces_what_is_no_dataset(
    refused: Refused, raw_folder: Path, tmp_path: Path, force: tuple[str, ...]
) -> None:
    """Not with -f either: a mistyped -o must not delete a home folder."""
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.txt").write_text("precious")
    for output in ("home", "home/thesis.txt", "data"):
        refused("preprocess", raw_folder, "-o", output, *force, naming=output)


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


def test_dataset_below_a_file(refused: Refused, raw_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "a_file").touch()
    refused("preprocess", raw_folder, "-o", "a_file/prepared", naming="a_file")


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


def test_decoding_to_a_lossy_format(refused: Refused, codes: Path) -> None:
    assert ".png" in refused("decode", codes, "-o", "scan.jpg", naming="scan.jpg")


def test_folder_without_images_or_codes(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert ".png" in refused("encode", "empty", "-o", "out", naming="empty")
    assert ".codes files" in refused("decode", "empty", "-o", "out", naming="empty")


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
    assert result.err.count("No space left on device") == 1
    assert "the same command goes on from here" in result.err
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


# images


def png(width: int, height: int, mode_bytes: bytes = b"\x08\x00\x00\x00\x00") -> bytes:
    """A PNG whose header claims a size that its few bytes do not hold."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content))
            + kind
            + content
            + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = chunk(b"IHDR", struct.pack(">II", width, height) + mode_bytes)
    pixels = chunk(b"IDAT", zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + header + pixels + chunk(b"IEND", b"")


def saved(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format="PNG")
    return stream.getvalue()


GREY_PNG = saved(Image.fromarray(draw_phantom(np.random.default_rng(2))))

BAD_IMAGES = {
    "empty": b"",
    "text": b"Subject: your scan\n",
    "truncated": GREY_PNG[: len(GREY_PNG) // 2],
    "header only": GREY_PNG[:33],
    "signature only": GREY_PNG[:8],
    "fewer pixels than its header claims": png(500, 500),
    "no pixels": png(0, 0),
    "damaged": GREY_PNG[:60] + bytes(40) + GREY_PNG[100:],
    "coloured": saved(Image.new("RGB", (32, 32), (200, 10, 10))),
    "transparent": saved(Image.new("LA", (32, 32), (200, 10))),
}


@pytest.mark.parametrize("kind", BAD_IMAGES)
def test_bad_image(refused: Refused, tmp_path: Path, kind: str) -> None:
    (tmp_path / "bad.png").write_bytes(BAD_IMAGES[kind])
    refused("encode", "bad.png", "-o", "bad.codes", naming="bad.png")


@pytest.mark.parametrize("side", [9_000, 20_000, 60_000, 2**31 - 1])
def test_decompression_bomb_is_refused_at_once(refused: Refused, tmp_path: Path, side: int) -> None:
    (tmp_path / "bomb.png").write_bytes(png(side, side))
    began = time.monotonic()
    line = refused("encode", "bomb.png", naming="bomb.png")
    assert "pixels" in line
    assert "shrink" in line
    assert time.monotonic() - began < 1


def test_codes_given_to_encode(refused: Refused, codes: Path) -> None:
    """Also where the default output would be the file itself."""
    for output in (["-o", "other.codes"], ["-f"], []):
        line = refused("encode", codes, *output, naming="scan.codes")
        assert "not an image" in line


# .codes files


def test_image_given_to_decode(refused: Refused, phantom_png: Path) -> None:
    assert "not a .codes file" in refused("decode", phantom_png, naming="scan.png")


def test_truncated_codes(refused: Refused, codes: Path) -> None:
    whole = codes.read_bytes()
    for length in (0, 3, 4, 5, 20, len(whole) - 4, len(whole) - 1):
        codes.write_bytes(whole[:length])
        refused("decode", codes, naming="scan.codes")
        refused("info", codes, naming="scan.codes")


def test_codes_with_one_flipped_bit(refused: Refused, codes: Path) -> None:
    whole = codes.read_bytes()
    for place in range(0, 8 * len(whole), 13):
        flipped = bytearray(whole)
        flipped[place // 8] ^= 1 << place % 8
        codes.write_bytes(flipped)
        refused("decode", codes, naming="scan.codes")


def test_codes_with_bytes_behind(refused: Refused, codes: Path) -> None:
    """Also where their CRC is right: nothing can be hidden in a file."""
    whole = codes.read_bytes()
    for content in (whole + b"\0", with_crc(whole), with_crc(whole[:-4] + b"\0")):
        codes.write_bytes(content)
        refused("decode", codes, naming="scan.codes")


def test_codes_of_a_future_version(refused: Refused, codes: Path) -> None:
    content = bytearray(codes.read_bytes()[:-4])
    content[4] = 200
    codes.write_bytes(with_crc(bytes(content)))
    for command in ("decode", "info"):
        line = refused(command, codes, naming="scan.codes")
        assert "version 200" in line
        assert "update oasisvq" in line


def test_codes_of_another_model(refused: Refused, codes: Path, model_file: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"
    save_model(tiny_model(seed=1), other, {})
    line = refused("decode", codes, "--model", other, naming="scan.codes")
    assert load_model(model_file).fingerprint.hex()[:8] in line
    assert load_model(other).fingerprint.hex()[:8] in line
    assert "--model" in line


def test_codes_of_another_prior_or_of_none(
    refused: Refused, run: Run, phantom_png: Path, model_file: Path, prior_model_file: Path
) -> None:
    assert run("encode", phantom_png, "--model", prior_model_file).code == 0
    other = phantom_png.parent / "other.safetensors"
    save_model(tiny_model(), other, {}, tiny_prior(seed=1))
    for model, says in ((model_file, "has no prior"), (other, "was given; pass the right one")):
        for command in (("decode", "scan.codes"), ("export", ".", "-o", "tokens.npz")):
            line = refused(*command, "--model", model, naming="scan.codes")
            assert says in line
            assert "--model" in line


# models, qualities, devices


def test_file_that_is_no_model(
    refused: Refused, phantom_png: Path, model_file: Path, tmp_path: Path
) -> None:
    model = tmp_path / "broken.safetensors"
    save_file({"weight": torch.zeros(3)}, model)
    other = model.read_bytes()
    whole = model_file.read_bytes()
    for content in (other, b"", b"a text, and no model", whole[:-100], whole[:100]):
        model.write_bytes(content)
        for command in (("encode", phantom_png, "--model", model), ("info", model)):
            refused(*command, naming="broken.safetensors")


def test_prior_that_is_damaged(
    refused: Refused, phantom_png: Path, prior_model_file: Path, tmp_path: Path
) -> None:
    """Also where the safetensors file is whole."""
    content = prior_model_file.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    metadata = json.loads(content[8 : 8 + length])["__metadata__"]
    without = {**json.loads(metadata["oasisvq"]), "prior": None}
    other = json.loads(metadata["oasisvq"])
    other["prior"]["kinds"] = 5
    fewer = json.loads(metadata["oasisvq"])
    fewer["prior"]["codebook_size"] = 21
    for header, naming in (
        (without, "arrays of a prior, but no config"),
        (other, "prior: array kinds.centre"),
        (fewer, "its prior knows 3 levels of 21 codes"),
    ):
        save_file(load_file(prior_model_file), tmp_path / "x", {"oasisvq": json.dumps(header)})
        for command in (
            ("encode", phantom_png, "--model", "x"),
            ("sample", "-o", "a.png", "--model", "x"),
        ):
            assert "x: " in refused(*command, naming=naming)
    tensors = load_file(prior_model_file)
    tensors["prior.level1.first.scale"] = -tensors["prior.level1.first.scale"]
    save_file(tensors, tmp_path / "x", metadata)
    refused("encode", phantom_png, "--model", "x", naming="x: damaged model file: prior: a scale")


def test_coder_that_the_model_lacks(refused: Refused, phantom_png: Path) -> None:
    for command in (("encode", phantom_png), ("encode", phantom_png.parent, "-o", "codes")):
        line = refused(*command, "--coder", "prior", naming="has no prior")
        assert "--coder packed" in line


def test_sampling_without_a_prior(refused: Refused) -> None:
    for options in (
        ("-o", "a.png"),
        ("-o", "folder"),
        ("-o", "folder", "--codes"),
        ("-n1", "-o", "a.codes"),
    ):
        assert "--prior-only" in refused("sample", *options, naming="has no prior to draw from")


def test_samples_never_overwrite_unasked(
    refused: Refused, prior_model_file: Path, tmp_path: Path
) -> None:
    (tmp_path / "a.png").write_bytes(b"precious")
    (tmp_path / "a.codes").write_bytes(b"precious")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "sample-1.png").write_bytes(b"precious")
    for output, count in (("a.png", "2"), ("a.codes", "1"), ("folder", "3")):
        options = ("-n", count, "-o", output, "--model", prior_model_file)
        assert "pass -f" in refused("sample", *options, naming=output)


def test_neighbours_that_are_no_dataset_of_the_models_size(
    refused: Refused, run: Run, prior_model_file: Path, raw_folder: Path, tmp_path: Path
) -> None:
    assert run("preprocess", raw_folder, "-o", "large", "--size", "80").code == 0
    for data, naming in (("missing", "missing"), ("data", "data"), ("large", "slices of 80×80")):
        options = ("-n", "1", "-o", "a.png", "--neighbours", data, "--model", prior_model_file)
        refused("sample", *options, naming=naming)


def test_model_that_is_not_there(
    refused: Refused, phantom_png: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "run").mkdir()
    for model in ("run", "gone.safetensors"):
        refused("encode", phantom_png, "--model", model, naming=model)
    monkeypatch.setenv("OASISVQ_MODEL", "gone.safetensors")
    refused("encode", phantom_png, naming="gone.safetensors")


@pytest.mark.parametrize("quality", ["0", "99", "-1"])
def test_quality_out_of_range(refused: Refused, phantom_png: Path, prepared: Path, quality: str) -> None:
    for command in (
        ("encode", phantom_png),
        ("encode", phantom_png.parent, "-o", "codes"),
        ("score", prepared),
    ):
        line = refused(*command, "-q", quality, naming=f"quality {quality}")
        assert "1 to 3" in line


def test_device_that_is_not_there(
    refused: Refused,
    phantom_png: Path,
    codes: Path,
    prepared: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Image.new("L", (32, 32)).save(phantom_png)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for command in (
        ("encode", phantom_png, "-o", "new.codes"),
        ("decode", codes),
        ("score", prepared),
        ("train", prepared),
    ):
        assert "--device" in refused(*command, "--device", "cuda", naming="no cuda device")


# usage


@pytest.mark.parametrize(
    ("arguments", "naming"),
    [
        (("encode", "scan.png", "--bogus"), "--bogus"),
        (("bogus", "scan.png"), "bogus"),
        (("encode", "scan.png", "-q", "high"), "--quality"),
        (("encode", "scan.png", "--device", "tpu"), "tpu"),
        (("train", "data", "--epochs", "0"), "--epochs"),
        (("train", "data", "--preset", "huge"), "huge"),
        (("train", "data", "--batch-size", "-4"), "--batch-size"),
        (("train", "data", "--prior-only"), "--model"),
        (("train", "data", "--model", "x"), "--prior-only"),
        (("train", "data", "--prior-only", "--no-prior", "--model", "x"), "--no-prior"),
        (("encode", "scan.png", "--coder", "zip"), "zip"),
        (("sample",), "--output"),
        (("sample", "-n", "0", "-o", "a.png"), "--count"),
        (("sample", "-n", "2", "-o", "a.codes"), "-n 1"),
        (("sample", "-o", "a.png", "--codes"), "--codes"),
        (("sample", "-o", "folder", "--neighbours", "data"), "--neighbours"),
        (("sample", "-o", "a.png", "--temperature", "0"), "--temperature"),
        (("sample", "-o", "a.png", "--seed", "-1"), "--seed"),
    ],
    ids=str,
)
def test_usage_error(
    run: Run, phantom_png: Path, tmp_path: Path, arguments: tuple[str, ...], naming: str
) -> None:
    before = snapshot(tmp_path)
    result = run(*arguments)
    assert result.code == 2
    assert result.out == ""
    assert naming in result.err.splitlines()[-1]
    assert "Traceback" not in result.err
    assert snapshot(tmp_path) == before


def test_missing_arguments_are_usage_errors(run: Run) -> None:
    for arguments, wanted in (
        (("encode",), "source"),
        (("preprocess", "data"), "--output"),
        (("info",), "path"),
    ):
        result = run(*arguments)
        assert result.code == 2
        assert wanted in result.err.splitlines()[-1].lower()


@pytest.mark.parametrize("command", ["encode", "decode"])
def test_folder_without_an_output_is_a_usage_error(
    refused: Refused, phantom_png: Path, command: str
) -> None:
    refused(command, phantom_png.parent, naming="-o", code=2)


# names


HOSTILE = "scan\x1b]0;title\x07\x1b[31m\rred"


def test_escape_sequences_in_names_never_reach_the_terminal_by_an_error(
    refused: Refused, tmp_path: Path
) -> None:
    (tmp_path / f"{HOSTILE}.png").write_text("no image")
    line = refused("encode", f"{HOSTILE}.png", naming="\\x1b]0;title\\x07\\x1b[31m\\rred")
    assert line.isprintable()


def test_newline_in_a_name_cannot_forge_a_line(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "scan\noasisvq: all is well.png").write_text("no image")
    refused("encode", "scan\noasisvq: all is well.png", naming="scan\\noasisvq: all is well.png")


def test_escape_sequences_in_names_never_reach_the_terminal_by_a_result(
    run: Run, model_file: Path, phantom_png: Path, tmp_path: Path
) -> None:
    scans = tmp_path / HOSTILE
    scans.mkdir()
    phantom_png.rename(scans / f"{HOSTILE}.png")
    (scans / f"{HOSTILE}2.png").write_text("no image")
    codes = scans / f"{HOSTILE}.codes"
    for command in (
        ("encode", scans / f"{HOSTILE}.png"),
        ("decode", codes),
        ("encode", scans, "-o", f"{HOSTILE}-codes"),
        ("decode", f"{HOSTILE}-codes", "-o", f"{HOSTILE}-images"),
    ):
        result = run(*command, "--model", model_file)
        printed = (result.out + result.err).replace("\n", "")
        assert "red" in printed
        assert printed.isprintable()
    assert codes.is_file()


def test_name_that_is_no_unicode(run: Run, model_file: Path, phantom_png: Path) -> None:
    """Bytes of an older encoding, as archives of old scans have them."""
    name = os.fsdecode(b"M\xfcller.png")
    try:
        phantom_png.rename(phantom_png.with_name(name))
    except OSError:
        pytest.skip("this file system takes only Unicode names")
    encoded = run("encode", name, "--model", model_file)
    assert encoded.code == 0
    assert "ller.codes" in encoded.out
    decoded = run("decode", os.fsdecode(b"M\xfcller.codes"), "--model", model_file)
    assert decoded.code == 0
    assert phantom_png.with_name(os.fsdecode(b"M\xfcller.decoded.png")).is_file()


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


# datasets


def no_images(root: Path) -> str:
    (root / "keras_png_slices_train").mkdir(parents=True)
    return "no scans"


def no_layout(root: Path) -> str:
    (root / "holiday").mkdir(parents=True)
    return "no known OASIS layout"


def shared_subject(root: Path) -> str:
    write_raw_folder(root, {"train": [1, 2], "validate": [2]}, slices=1)
    return "OAS1_0002"


def other_name(root: Path) -> str:
    folder = write_raw_folder(root, {"train": [1]}, slices=1) / "keras_png_slices_train"
    (folder / "case_001_slice_0.nii.png").rename(folder / "patient_1.png")
    return "patient_1.png"


def damaged_slice(root: Path) -> str:
    folder = write_raw_folder(root, {"train": [1]}) / "keras_png_slices_train"
    (folder / "case_001_slice_2.nii.png").write_bytes(GREY_PNG[:50])
    return "case_001_slice_2.nii.png"


def a_file(root: Path) -> str:
    root.write_text("no folder")
    return "raw"


BAD_RAW = [no_images, no_layout, shared_subject, other_name, a_file]


@pytest.mark.parametrize("command", ["preprocess", "train", "score"])
@pytest.mark.parametrize("break_raw", BAD_RAW, ids=lambda each: each.__name__)
def test_bad_raw_folder(
    refused: Refused, tmp_path: Path, command: str, break_raw: Callable[[Path], str]
) -> None:
    naming = break_raw(tmp_path / "raw")
    output = ["-o", "out"] if command == "preprocess" else []
    assert "raw" in refused(command, "raw", *output, naming=naming)


def test_damaged_slice_of_a_raw_folder(refused: Refused, run: Run, tmp_path: Path) -> None:
    naming = damaged_slice(tmp_path / "raw")
    refused("preprocess", "raw", "-o", "out", naming=naming)
    refused("score", "raw", "--split", "train", naming=naming)
    result = run("train", "raw")
    assert result.code == 1
    assert naming in result.err.splitlines()[-1]
    assert not list((tmp_path / "oasisvq-run").rglob("*"))


def test_size_out_of_range(refused: Refused, raw_folder: Path) -> None:
    for size in ("0", "-1", "1000000"):
        refused("preprocess", raw_folder, "-o", "out", "--size", size, naming=size)


def edit_manifest(prepared: Path, edit: Callable[[dict], object]) -> None:
    path = prepared / "manifest.json"
    manifest = json.loads(path.read_bytes())
    edit(manifest)
    path.write_text(json.dumps(manifest))


def manifest_text(prepared: Path) -> None:
    (prepared / "manifest.json").write_text("no JSON")


def manifest_empty(prepared: Path) -> None:
    (prepared / "manifest.json").write_bytes(b"")


def manifest_list(prepared: Path) -> None:
    (prepared / "manifest.json").write_text("[1, 2]")


def manifest_of_future(prepared: Path) -> None:
    edit_manifest(prepared, lambda manifest: manifest.update(format=99))


def manifest_without_key(prepared: Path) -> None:
    edit_manifest(prepared, lambda manifest: manifest.pop("size"))


def manifest_without_images(prepared: Path) -> None:
    edit_manifest(prepared, lambda m: [split.update(slices=[]) for split in m["splits"].values()])


def manifest_with_shared_subject(prepared: Path) -> None:
    edit_manifest(
        prepared,
        lambda m: m["splits"]["validation"]["slices"][0].update(subject="OAS1_0001"),
    )


BAD_MANIFESTS = [
    manifest_text,
    manifest_empty,
    manifest_list,
    manifest_of_future,
    manifest_without_key,
    manifest_without_images,
    manifest_with_shared_subject,
]


@pytest.mark.parametrize("break_prepared", BAD_MANIFESTS, ids=lambda each: each.__name__)
def test_bad_prepared_dataset(
    refused: Refused, prepared: Path, break_prepared: Callable[[Path], None]
) -> None:
    break_prepared(prepared)
    for command in ("train", "score", "info"):
        refused(command, "prepared", naming="prepared")


def test_subject_in_two_splits_is_named_with_both(refused: Refused, prepared: Path) -> None:
    manifest_with_shared_subject(prepared)
    line = refused("score", prepared, naming="OAS1_0001")
    assert "train and validation" in line


def test_prepared_array_that_does_not_fit(refused: Refused, prepared: Path) -> None:
    for name, command in (("train", "train"), ("validation", "score")):
        path = prepared / f"{name}.npy"
        whole = path.read_bytes()
        for content in (b"", b"no array", whole[:-1], whole[: len(whole) // 2]):
            path.write_bytes(content)
            refused(command, prepared, naming=f"{name}.npy")
        np.save(path, np.zeros((2, 32, 32), np.uint8))
        refused(command, prepared, naming=f"{name}.npy")
        np.save(path, np.array([{"a": "pickle"}]), allow_pickle=True)
        refused(command, prepared, naming=f"{name}.npy")
        path.unlink()
        refused(command, prepared, naming=f"{name}.npy")
        path.write_bytes(whole)


def test_split_that_is_not_there(refused: Refused, prepared: Path) -> None:
    line = refused("score", prepared, "--split", "test", naming="test")
    assert "train, validation" in line


def test_split_with_no_slices(refused: Refused, prepared: Path) -> None:
    edit_manifest(prepared, lambda m: m["splits"]["validation"].update(slices=[]))
    np.save(prepared / "validation.npy", np.zeros((0, 64, 64), np.uint8))
    refused("score", prepared, naming="prepared")


# training


def test_training_without_a_training_split(refused: Refused, prepared: Path) -> None:
    edit_manifest(prepared, lambda manifest: manifest["splits"].pop("train"))
    assert "no training split" in refused("train", prepared, naming="prepared")


def test_batch_larger_than_the_set(refused: Refused, prepared: Path) -> None:
    line = refused("train", prepared, "--preset", "seed", "--batch-size", "5", naming="prepared")
    assert "4 training slices" in line
    assert "--batch-size" in line


@pytest.mark.parametrize("taken", ["checkpoint.safetensors", "model.safetensors", "metrics.jsonl"])
def test_run_folder_that_holds_a_training(
    refused: Refused, prepared: Path, tmp_path: Path, taken: str
) -> None:
    (tmp_path / "oasisvq-run").mkdir()
    (tmp_path / "oasisvq-run" / taken).write_bytes(b"precious")
    line = refused("train", prepared, naming="oasisvq-run")
    assert taken in line
    assert "--resume" in line
    assert "-f" in line


@pytest.mark.parametrize("force", [(), ("-f",)], ids=["plain", "force"])
def test_run_folder_that_is_a_file(
    refused: Refused, prepared: Path, tmp_path: Path, force: tuple[str, ...]
) -> None:
    (tmp_path / "run").write_bytes(b"precious")
    for output in ("run", "run/deeper"):
        refused("train", prepared, "-o", output, *force, naming="run")


def test_resuming_without_a_checkpoint(refused: Refused, prepared: Path, tmp_path: Path) -> None:
    refused("train", prepared, "--resume", naming="oasisvq-run")
    (tmp_path / "run").mkdir()
    refused("train", prepared, "-o", "run", "--resume", naming="run: no checkpoint.safetensors")


def test_resuming_from_a_damaged_checkpoint(
    refused: Refused, prepared: Path, model_file: Path, tmp_path: Path
) -> None:
    (tmp_path / "run").mkdir()
    for content in (b"", b"no checkpoint", model_file.read_bytes()):
        (tmp_path / "run" / "checkpoint.safetensors").write_bytes(content)
        refused("train", prepared, "-o", "run", "--resume", naming="run/checkpoint.safetensors")


@pytest.mark.parametrize(
    "option",
    [
        ("--epochs", "3"),
        ("--batch-size", "2"),
        ("--learning-rate", "0.1"),
        ("--levels", "2"),
        ("--codebook-size", "9"),
        ("--preset", "seed"),
        ("--prior-epochs", "3"),
        ("--start-from", "x"),
    ],
    ids=lambda option: option[0],
)
def test_resuming_with_another_set_up(
    refused: Refused, prepared: Path, tmp_path: Path, option: tuple[str, str]
) -> None:
    (tmp_path / "oasisvq-run").mkdir()
    (tmp_path / "oasisvq-run" / "checkpoint.safetensors").write_bytes(b"not looked at")
    refused("train", prepared, "--resume", *option, naming=option[0])
