"""One file is encoded, and comes back; images that cannot be."""

import io
import json
import os
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from conftest import Refused, Run, draw_phantom, files_below, fingerprint, plane
from PIL import Image

import oasisvq
from oasisvq.codec.container import read_codes_file


def test_encode_and_decode_restore_shape_type_and_ground(
    run: Run, model_file: Path, tmp_path: Path
) -> None:
    original = draw_phantom(np.random.default_rng(5), 61, 75).astype(np.uint16) * 100 + 7
    Image.fromarray(original).save(tmp_path / "scan.png")
    encoded = run("encode", "scan.png", "-o", "scan.codes", "--model", model_file)
    assert encoded.code == 0
    size = (tmp_path / "scan.codes").stat().st_size
    assert encoded.out.startswith(f"scan.codes: {size:,} bytes")
    decoded = run("decode", "scan.codes", "-o", "back.png", "--model", model_file)
    assert decoded.code == 0
    assert decoded.out.startswith("back.png: ")
    restored = plane(tmp_path / "back.png")
    assert restored.shape == original.shape
    assert restored.dtype == np.uint16
    assert restored.min() == original.min() == 7
    assert (restored[:8, :8] == 7).all()


def test_default_names_lie_beside_the_input_and_spare_the_original(
    run: Run, model_file: Path, tmp_path: Path, phantom_png: Path
) -> None:
    (tmp_path / "deep").mkdir()
    phantom_png.rename(tmp_path / "deep" / "scan.png")
    before = (tmp_path / "deep" / "scan.png").read_bytes()
    assert run("encode", "deep/scan.png", "--model", model_file).code == 0
    assert run("decode", "deep/scan.codes", "--model", model_file).code == 0
    assert set(files_below(tmp_path)) == {
        "deep/scan.png",
        "deep/scan.codes",
        "deep/scan.decoded.png",
    }
    assert (tmp_path / "deep" / "scan.png").read_bytes() == before


def test_results_go_to_stdout_and_notes_to_stderr(
    run: Run, model_file: Path, phantom_png: Path, store: Path
) -> None:
    kept = f", kept as {store / (fingerprint(model_file)[:8] + '.safetensors')}"
    for command, more in ((("encode", "scan.png"), kept), (("decode", "scan.codes"), "")):
        result = run(*command, "--model", model_file)
        assert len(result.out.splitlines()) == (2 if command[0] == "encode" else 1)
        assert result.err == f"model {fingerprint(model_file)[:8]}: {model_file} (named){more}\n"


def test_force_overwrites(run: Run, model_file: Path, tmp_path: Path, phantom_png: Path) -> None:
    for name in ("scan.codes", "scan.decoded.png"):
        (tmp_path / name).write_text("old")
    assert run("encode", phantom_png, "--model", model_file, "-f").code == 0
    assert run("decode", "scan.codes", "--model", model_file, "--force").code == 0
    assert (tmp_path / "scan.codes").read_bytes().startswith(b"OVQC")
    assert plane(tmp_path / "scan.decoded.png").shape == (64, 64)


@pytest.mark.parametrize("quality", [1, 2, 3])
def test_quality_is_the_number_of_levels_kept(
    run: Run, model_file: Path, tmp_path: Path, phantom_png: Path, quality: int
) -> None:
    assert run("encode", phantom_png, "-q", str(quality), "--model", model_file).code == 0
    codes = oasisvq.read_codes(tmp_path / "scan.codes")
    assert codes.header.levels == quality
    assert codes.indices.shape[0] == quality


def test_lower_quality_is_a_smaller_file(
    run: Run, model_file: Path, tmp_path: Path, phantom_png: Path
) -> None:
    for quality in ("1", "3"):
        arguments = ("-o", f"{quality}.codes", "--quality", quality, "--model", model_file)
        assert run("encode", phantom_png, *arguments).code == 0
    low, high = (oasisvq.read_codes(tmp_path / f"{quality}.codes") for quality in "13")
    assert len(low.indices) < len(high.indices)
    assert low.file_bytes < high.file_bytes


def test_quality_defaults_to_the_models(
    run: Run, model_file: Path, tmp_path: Path, phantom_png: Path
) -> None:
    run("encode", phantom_png, "--model", model_file)
    assert oasisvq.read_codes(tmp_path / "scan.codes").header.levels == 2


def test_another_process_writes_the_same_bytes(
    run: Run, model_file: Path, tmp_path: Path, phantom_png: Path
) -> None:
    run("encode", phantom_png, "-o", "here.codes", "--model", model_file)
    run("encode", phantom_png, "-o", "again.codes", "--model", model_file)
    command = [sys.executable, "-m", "oasisvq", "encode", "scan.png", "-o", "there.codes"]
    environment = {**os.environ, "PYTHONHASHSEED": "99", "OASISVQ_MODEL": str(model_file)}
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True)
    here = (tmp_path / "here.codes").read_bytes()
    assert (tmp_path / "again.codes").read_bytes() == here
    assert (tmp_path / "there.codes").read_bytes() == here


@pytest.mark.parametrize("name", ["my scan.png", "Gehirn größe 脑.png", "-scan.png", "scan.v2.png"])
def test_unusual_names_work(
    run: Run, model_file: Path, tmp_path: Path, phantom_png: Path, name: str
) -> None:
    (tmp_path / "scan.png").rename(tmp_path / name)
    stem = name.removesuffix(".png")
    encoded = run("encode", "--model", model_file, "--", name)
    assert encoded.code == 0
    assert f"{stem}.codes" in encoded.out
    assert run("decode", "--model", model_file, "--", f"{stem}.codes").code == 0
    assert (tmp_path / f"{stem}.decoded.png").is_file()


def test_the_coder_is_the_prior_where_the_model_has_one(
    run: Run, model_file: Path, prior_model_file: Path, tmp_path: Path, phantom_png: Path
) -> None:
    coded = run("encode", phantom_png, "--model", prior_model_file)
    assert coded.code == 0
    ours = fingerprint(prior_model_file)
    assert coded.err.startswith(f"model {ours[:8]}: ")
    facts = json.loads(run("info", "scan.codes", "--json").out)
    assert (facts["coder"], facts["model"]) == ("prior", ours)
    assert run("decode", "scan.codes", "--model", prior_model_file).code == 0
    options = ("--coder", "packed", "--model", prior_model_file)
    assert run("encode", phantom_png, "-o", "packed.codes", *options).code == 0
    assert run("encode", phantom_png, "-o", "plain.codes", "--model", model_file).code == 0
    packed, plain = (read_codes_file(tmp_path / f"{name}.codes") for name in ("packed", "plain"))
    assert packed.payload == plain.payload
    assert json.loads(run("info", "packed.codes", "--json").out)["coder"] == "packed"
    assert run("decode", "packed.codes", "-o", "a.png", "--model", prior_model_file).code == 0


def test_coder_that_the_model_lacks(refused: Refused, phantom_png: Path) -> None:
    for command in (("encode", phantom_png), ("encode", phantom_png.parent, "-o", "codes")):
        line = refused(*command, "--coder", "prior", naming="has no prior")
        assert "--coder packed" in line


# bad images


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
    began = time.process_time()
    line = refused("encode", "bomb.png", naming="bomb.png")
    assert "pixels" in line
    assert "shrink" in line
    assert time.process_time() - began < 1  # of computing, however busy the machine is


def test_codes_given_to_encode(refused: Refused, codes: Path) -> None:
    """Also where the default output would be the file itself."""
    for output in (["-o", "other.codes"], ["-f"], []):
        line = refused("encode", codes, *output, naming="scan.codes")
        assert "not an image" in line
