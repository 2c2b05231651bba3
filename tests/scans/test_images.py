"""Image file <-> scan."""

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from oasisvq.errors import FileError, ImageError
from oasisvq.scans.images import read_image, write_image
from oasisvq.scans.limits import MAX_PIXELS
from oasisvq.scans.scan import Scan, as_scan

PLANE = np.arange(0, 240, 2, dtype=np.uint8).reshape(10, 12)
DEEP = PLANE.astype(np.uint16) * 270 + 300  # most levels above 8 bits
BLOCKS = np.kron(PLANE[:2, ::4], np.ones((8, 8), dtype=np.uint8))  # what JPEG keeps exactly

GREY = Image.fromarray(PLANE)
OPAQUE = Image.new("L", GREY.size, 255)
VEILED = Image.fromarray(np.where(PLANE == 100, 254, 255).astype(np.uint8))
NEGATIVE = Image.fromarray(255 - PLANE)


def png_chunk(kind: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def png(width: int, height: int, depth: int, colour: int, rows: bytes) -> bytes:
    """A PNG file written by hand, for kinds that Pillow does not write."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    chunks = (b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks)


def palette(grey: bool) -> Image.Image:
    """PLANE as indices into a palette that inverts it, or shows it in colours."""
    image = GREY.copy()
    image.putpalette(bytes(255 - level if grey or c else 0 for level in range(256) for c in range(3)))
    assert image.mode == "P"
    return image


READABLE: dict[str, tuple[Callable[[Path], object], NDArray[np.generic]]] = {
    "grey.png": (GREY.save, PLANE),
    "grey.PNG": (lambda path: GREY.save(path, "PNG", interlace=1), PLANE),
    "grey.jpg": (lambda path: Image.fromarray(BLOCKS).save(path, quality=100), BLOCKS),
    "grey.jpeg": (lambda path: Image.fromarray(BLOCKS).convert("RGB").save(path, quality=100), BLOCKS),
    "grey.tif": (GREY.save, PLANE),
    "lzw.tiff": (lambda path: GREY.save(path, compression="tiff_lzw"), PLANE),
    "white-is-zero.tif": (lambda path: GREY.save(path, tiffinfo={262: 0}), PLANE),
    "grey.webp": (lambda path: GREY.save(path, lossless=True), PLANE),
    "16-bit.png": (Image.fromarray(DEEP).save, DEEP),
    "16-bit.tif": (Image.fromarray(DEEP).save, DEEP),
    "16-bit-lzw.tif": (lambda path: Image.fromarray(DEEP).save(path, compression="tiff_lzw"), DEEP),
    "16-bit-big-endian.tif": (
        lambda path: Image.frombytes("I;16B", GREY.size, DEEP.astype(">u2").tobytes()).save(path),
        DEEP,
    ),
    "32-bit.tif": (Image.fromarray(DEEP.astype(np.int32)).save, DEEP),
    "palette.png": (palette(grey=True).save, 255 - PLANE),
    "rgb.png": (Image.merge("RGB", [GREY] * 3).save, PLANE),
    "rgb.tif": (Image.merge("RGB", [GREY] * 3).save, PLANE),
    "rgba.png": (Image.merge("RGBA", [GREY, GREY, GREY, OPAQUE]).save, PLANE),
    "la.png": (Image.merge("LA", [GREY, OPAQUE]).save, PLANE),
    "1-bit.png": (Image.fromarray(PLANE > 99).save, (PLANE > 99).astype(np.uint8) * np.uint8(255)),
    "1-bit.tif": (Image.fromarray(PLANE > 99).save, (PLANE > 99).astype(np.uint8) * np.uint8(255)),
    "4-bit.png": (
        lambda path: path.write_bytes(png(3, 1, 4, 0, b"\0\x0f\x80")),
        np.array([[0, 255, 8 * 17]], dtype=np.uint8),
    ),
    "one-pixel.png": (GREY.crop((3, 2, 4, 3)).save, PLANE[2:3, 3:4]),
    "really-a.png": (lambda path: GREY.save(path, "TIFF"), PLANE),  # the content counts
}

REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "coloured.png": (Image.merge("RGB", [GREY, GREY, NEGATIVE]).save, "coloured"),
    "red.png": (Image.merge("RGB", [NEGATIVE, GREY, GREY]).save, "coloured"),
    "coloured.jpg": (Image.new("RGB", (9, 9), (200, 10, 10)).save, "coloured"),
    "coloured-palette.png": (palette(grey=False).save, "coloured"),
    "transparent-rgba.png": (Image.merge("RGBA", [GREY, GREY, GREY, VEILED]).save, "transparent"),
    "transparent-la.png": (Image.merge("LA", [GREY, VEILED]).save, "transparent"),
    "transparent-palette.png": (
        lambda path: palette(grey=True).save(path, transparency=100),
        "transparent",
    ),
    "transparent-rgb-level.png": (
        lambda path: Image.merge("RGB", [GREY] * 3).save(path, transparency=(100, 100, 100)),
        "transparent",
    ),
    "transparent-grey-level.png": (lambda path: GREY.save(path, transparency=100), "transparent"),
    "transparent-16-bit-level.png": (
        lambda path: Image.fromarray(DEEP).save(path, transparency=int(DEEP[0, 0])),
        "transparent",
    ),
    "16-bit-rgb.png": (
        lambda path: path.write_bytes(png(2, 1, 16, 2, b"\0" + bytes(range(12)))),
        "16-bit colour",
    ),
    "16-bit-grey-rgb.png": (
        lambda path: path.write_bytes(png(1, 1, 16, 2, b"\0" + b"ab" * 3)),
        "16-bit",
    ),
    "16-bit-la.png": (lambda path: path.write_bytes(png(1, 1, 16, 4, b"\0ab\xff\xff")), "16-bit"),
    "16-bit-rgba.png": (lambda path: path.write_bytes(png(1, 1, 16, 6, b"\0" + b"\xff" * 8)), "16-bit"),
    "cmyk.jpg": (GREY.convert("CMYK").save, "mode CMYK"),
    "cmyk.tif": (GREY.convert("CMYK").save, "mode CMYK"),
    "float.tif": (Image.fromarray(PLANE.astype(np.float32)).save, "mode F"),
    "negative.tif": (Image.fromarray(DEEP.astype(np.int32) - 400).save, "grey levels from -100"),
    "too-bright.tif": (Image.fromarray(DEEP.astype(np.int32) + 9999).save, "expected 0 to 65535"),
    "signed.tif": (lambda path: GREY.save(path, tiffinfo={339: 2}), "signed 8 bits; expected"),
    "pages.tif": (
        lambda path: GREY.save(path, save_all=True, append_images=[NEGATIVE]),
        "several images",
    ),
    "animated.gif": (
        lambda path: GREY.save(path, save_all=True, append_images=[NEGATIVE]),
        "several images",
    ),
    "animated.png": (
        lambda path: GREY.save(path, save_all=True, append_images=[NEGATIVE]),
        "several images",
    ),
    "animated.webp": (
        lambda path: GREY.save(path, save_all=True, append_images=[NEGATIVE]),
        "several images",
    ),
    "pictures.jpg": (
        lambda path: GREY.save(path, "MPO", save_all=True, append_images=[NEGATIVE]),
        "several images",
    ),
    "really-a-pcx.png": (lambda path: GREY.save(path, "PCX"), "not an image that can be read"),
    "empty.png": (lambda path: path.write_bytes(b""), "an empty file"),
    "text.png": (lambda path: path.write_text("no image\n"), "not an image that can be read"),
    "codes.png": (lambda path: path.write_bytes(b"OVQC\x01" + bytes(60)), "not an image"),
    "signature-only.png": (lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n"), "image"),
    "no-pixels.png": (
        lambda path: path.write_bytes(png(12, 10, 8, 0, b"")[:33] + png_chunk(b"IEND", b"")),
        "damaged or truncated",
    ),
    "no-rows.png": (lambda path: path.write_bytes(png(12, 10, 8, 0, b"")), "damaged or truncated"),
    "huge.png": (lambda path: path.write_bytes(png(50_000, 50_000, 8, 0, b"")), "cut or shrink"),
    "large.png": (
        lambda path: path.write_bytes(png(8192, 8193, 8, 0, b"")),
        f"8192×8193 pixels, more than the limit of {MAX_PIXELS:,}",
    ),
    "wide.png": (lambda path: path.write_bytes(png(65_536, 1, 8, 0, b"")), "65536×1 pixels"),
}


@pytest.mark.parametrize("name", READABLE)
def test_a_grey_image_gives_its_plane(name: str, tmp_path: Path) -> None:
    write, expected = READABLE[name]
    write(tmp_path / name)
    plane = read_image(tmp_path / name)
    assert plane.dtype == expected.dtype
    np.testing.assert_array_equal(plane, expected)


@pytest.mark.parametrize("name", REFUSED)
def test_another_image_is_refused_by_name(name: str, tmp_path: Path) -> None:
    write, reason = REFUSED[name]
    write(tmp_path / name)
    with pytest.raises(ImageError, match=reason) as caught:
        read_image(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)


@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "TIFF", "WEBP"])
@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_a_truncated_image_is_refused(
    image_format: str, share: float, tmp_path: Path, rng: np.random.Generator
) -> None:
    encoded = io.BytesIO()
    noise = rng.integers(0, 256, (40, 30), dtype=np.uint8)
    Image.fromarray(noise).save(encoded, image_format)
    content = encoded.getvalue()
    path = tmp_path / "cut"
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ImageError) as caught:
        read_image(path)
    assert str(path) in str(caught.value)


def test_a_flipped_bit_of_a_png_never_gives_another_image(tmp_path: Path) -> None:
    ramp = np.add.outer(np.arange(64), np.arange(64)).astype(np.uint8)
    encoded = io.BytesIO()
    Image.fromarray(ramp).save(encoded, "PNG")
    content = encoded.getvalue()
    path = tmp_path / "damaged.png"
    changed = []
    for position in range(len(content)):
        for bit in range(8):
            damaged = bytearray(content)
            damaged[position] ^= 1 << bit
            path.write_bytes(damaged)
            try:
                plane = read_image(path)
            except ImageError:
                continue
            if not np.array_equal(plane, ramp):
                changed.append((position, bit))
    assert not changed


@pytest.mark.parametrize("image_format", ["PNG", "TIFF"])
def test_a_damaged_image_is_never_a_crash(image_format: str, tmp_path: Path) -> None:
    encoded = io.BytesIO()
    GREY.crop((0, 0, 5, 4)).save(encoded, image_format)
    content = encoded.getvalue()
    path = tmp_path / "damaged"
    crashes = []
    for position in range(len(content)):
        for other in {2, 255, content[position] ^ 0x40} - {content[position]}:
            path.write_bytes(content[:position] + bytes([other]) + content[position + 1 :])
            try:
                read_image(path)
            except ImageError:
                pass
            except Exception as error:
                crashes.append(f"byte {position} = {other}: {error!r}")
    assert not crashes


def test_the_pixel_limit(tmp_path: Path) -> None:
    GREY.save(tmp_path / "scan.png")
    assert read_image(tmp_path / "scan.png", PLANE.size).size == PLANE.size
    message = "12×10 pixels, more than the limit of 119; .* pass --max-pixels 120"
    with pytest.raises(ImageError, match=message):
        read_image(tmp_path / "scan.png", PLANE.size - 1)


def test_what_is_no_file_is_a_file_error(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="no such file"):
        read_image(tmp_path / "missing.png")
    with pytest.raises(FileError, match="is a folder"):
        read_image(tmp_path)


@pytest.mark.parametrize("name", ["x.png", "x.PNG", "x.tif", "x.TIFF"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("shape", [(1, 1), (7, 13), (33, 8)])
def test_read_is_the_inverse_of_write(
    name: str,
    dtype: type[np.unsignedinteger],
    shape: tuple[int, int],
    tmp_path: Path,
    rng: np.random.Generator,
) -> None:
    plane = rng.integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)
    write_image(plane, tmp_path / name)
    restored = read_image(tmp_path / name)
    assert restored.dtype == dtype
    np.testing.assert_array_equal(restored, plane)


@pytest.mark.parametrize("plane", [DEEP.T, DEEP[::-2, 1::3]], ids=["transposed", "strided"])
def test_a_view_is_written_as_it_looks(plane: NDArray[np.generic], tmp_path: Path) -> None:
    write_image(plane, tmp_path / "x.png")
    np.testing.assert_array_equal(read_image(tmp_path / "x.png"), plane)


@pytest.mark.parametrize("name", ["x.jpg", "x.webp", "x", "x.codes"])
def test_only_kinds_without_loss_are_written(name: str, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"\.png, \.tif, \.tiff; rename the output"):
        write_image(PLANE, tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_a_scan_knows_its_darkest_and_brightest_level() -> None:
    assert Scan(DEEP[None]).intensity == (300, 300 + 270 * 238)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_an_array_is_a_scan(dtype: type[np.unsignedinteger]) -> None:
    array = PLANE.astype(dtype)
    assert np.shares_memory(as_scan(array).plane, array)


@pytest.mark.parametrize(
    "array",
    [
        PLANE.astype(np.float32),
        PLANE.astype(np.int16),
        PLANE > 9,
        PLANE[None, None],
        PLANE[0],
        PLANE[:0],
        PLANE[:, :0],
        np.uint8(3) * np.ones((), dtype=np.uint8),
    ],
    ids=lambda array: f"{array.dtype}{array.shape}",
)
def test_another_array_is_no_scan(array: NDArray[np.generic]) -> None:
    with pytest.raises(ImageError, match="expected"):
        as_scan(array)


@pytest.mark.parametrize("shape", [(8193, 8192), (1, 65_536)])
def test_an_array_beyond_the_limits_is_no_scan(shape: tuple[int, int]) -> None:
    with pytest.raises(ImageError, match="more than the limit"):
        as_scan(np.broadcast_to(np.uint8(1), shape))
