"""One `.codes` file is decoded, or refused."""

import struct
import zlib
from pathlib import Path

from conftest import Refused, Run, plane, tiny_model, tiny_prior
from PIL import Image

from oasisvq.training.weights import load_model, save_model


def test_decode_writes_tiff_where_the_name_says_so(
    run: Run, model_file: Path, tmp_path: Path, phantom_png: Path
) -> None:
    run("encode", phantom_png, "--model", model_file)
    assert run("decode", "scan.codes", "-o", "scan.tif", "--model", model_file).code == 0
    assert run("decode", "scan.codes", "-o", "scan2.png", "--model", model_file).code == 0
    with Image.open(tmp_path / "scan.tif") as image:
        assert image.format == "TIFF"
    assert (plane(tmp_path / "scan.tif") == plane(tmp_path / "scan2.png")).all()


def with_crc(content: bytes) -> bytes:
    return content + struct.pack("<I", zlib.crc32(content))


def test_decoding_to_a_lossy_format(refused: Refused, codes: Path) -> None:
    assert ".png" in refused("decode", codes, "-o", "scan.jpg", naming="scan.jpg")


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
    for model in (model_file, other):
        for command in (("decode", "scan.codes"), ("export", ".", "-o", "tokens.npz")):
            line = refused(*command, "--model", model, naming="scan.codes")
            assert "was given; pass the right one" in line
            assert "--model" in line
