"""What a file only claims is never allocated, and what it unpacks to has limits."""

import gzip
import shutil
import struct
import time
import tracemalloc
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from conftest import tiny_model, tiny_prior
from hostile import Run, assert_shown_safely
from PIL import Image, PngImagePlugin

import oasisvq
from oasisvq.codec import container
from oasisvq.codec.headers import Coder, CodesHeader, Kind, SampleType
from oasisvq.codec.pixels import NOTHING
from oasisvq.errors import ImageError
from oasisvq.scans.limits import DEFAULT_MAX_PIXELS, VOXELS_A_PIXEL
from oasisvq.scans.scan import read_scan
from oasisvq.scans.source import source_at
from oasisvq.scans.volumes import read_volume
from oasisvq.training.weights import save_model


@contextmanager
def within(seconds: float, megabytes: float) -> Iterator[None]:
    """Nothing of what a file only claims may be allocated; seconds are of computing, not of waiting."""
    tracemalloc.start()
    began = time.process_time()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < megabytes * 1e6
    finally:
        tracemalloc.stop()
    assert time.process_time() - began < seconds


def png(width: int, height: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """An 8-bit grey PNG of a few bytes, with chunks before its pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + checksum

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(bytes((width + 1) * height if width < 99 else 99)))
    middle = b"".join(chunk(*each) for each in chunks)
    return b"\x89PNG\r\n\x1a\n" + header + middle + pixels + chunk(b"IEND", b"")


def tiff_of_many_images(count: int) -> bytes:
    """A TIFF whose directories each claim one more image."""
    entries = ((256, 9), (257, 9), (258, 8), (259, 1), (262, 1), (273, 0), (277, 1), (278, 9), (279, 81))
    directory = struct.pack("<H", len(entries))
    directory += b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    size = len(directory) + 4
    places = [8 + size * (place + 1) for place in range(count - 1)] + [0]
    return b"II*\0\x08\0\0\0" + b"".join(directory + struct.pack("<I", place) for place in places)


def nifti(*shape: int, dtype: str = "u1", offset: float = 352, voxels: bytes = b"") -> bytes:
    """A NIfTI-1 file whose header claims a shape."""
    header = nib.Nifti1Header()
    header.set_data_dtype(np.dtype(dtype))
    header["dim"][: len(shape) + 1] = len(shape), *shape
    header["pixdim"][1:4] = 1
    header["vox_offset"] = offset
    header["magic"] = b"n+1"
    return bytes(header.binaryblock) + bytes(4) + voxels


MEGABYTE = bytes(2**20)
# a file's name, its content, and what is said of it
TOO_LARGE = {
    "claims.png": (png(5000, 5000), "more than the limit of 16,777,216"),
    "claims-more.png": (png(60_000, 60_000), "more than the limit of 67,108,864"),
    "claims-most.png": (png(2**31 - 1, 2**31 - 1), "more than the limit of 67,108,864"),
    "text.png": (png(8, 8, (b"zTXt", b"a\0\0" + zlib.compress(MEGABYTE * 99))), "damaged"),
    "itxt.png": (png(8, 8, (b"iTXt", b"a\0\1\0\0\0" + zlib.compress(MEGABYTE * 99))), "damaged"),
    "many.tif": (tiff_of_many_images(20_000), "more than 1,024 images"),
    "terabytes.nii": (nifti(32_767, 32_767, 1000, dtype="f8"), "more than the limit of 1,073,741,824"),
    "large.nii": (nifti(513, 512, 512), "more than the limit of 134,217,728"),
    "overflows.nii": (nifti(32_767, 32_767, 32_767, 32_767), "more than the limit of 1,073,741,824"),
    "negative.nii": (nifti(-5, 512, 512), "expected three sides"),
    "whole.nii": (nifti(512, 512, 512), "truncated"),  # within the limit, and its voxels are missing
    "far.nii": (nifti(9, 9, 9, offset=1e18), "a damaged header"),
    "bomb.nii.gz": (gzip.compress(nifti(9, 9, 9) + bytes(729) + MEGABYTE * 200), "goes on after"),
    "far.nii.gz": (gzip.compress(nifti(9, 9, 9, offset=3e8) + MEGABYTE * 300), "a damaged header"),
}


@pytest.mark.parametrize("name", TOO_LARGE)
def test_a_file_that_claims_or_unpacks_to_much(tmp_path: Path, name: str) -> None:
    content, says = TOO_LARGE[name]
    (tmp_path / name).write_bytes(content)
    with within(seconds=2, megabytes=20), pytest.raises(ImageError, match=says) as raised:
        read_scan(source_at(tmp_path / name))
    assert name in str(raised.value)


def test_what_an_image_shows_of_itself_is_no_matter(tmp_path: Path) -> None:
    """Text of an honest size is passed over."""
    texts = PngImagePlugin.PngInfo()
    texts.add_text("Comment", "x" * 9999, zip=True)
    Image.fromarray(np.eye(9, dtype=np.uint8)).save(tmp_path / "a.png", pnginfo=texts)
    assert read_scan(source_at(tmp_path / "a.png")).plane.shape == (9, 9)


def test_gzip_may_hold_a_little_more_than_its_voxels(tmp_path: Path) -> None:
    """As files padded to blocks do."""
    voxels = np.arange(27, dtype=np.uint8).tobytes()
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(nifti(3, 3, 3, voxels=voxels) + bytes(512)))
    assert read_volume(tmp_path / "a.nii.gz").voxels.max() == 26


def test_the_limit_is_raised_by_an_option(
    run: Run, model_file: Path, phantom_png: Path, tmp_path: Path
) -> None:
    """For reading as for restoring, of one file and of a folder."""
    ours = ("--model", model_file)
    enough, small = ("--max-pixels", "4096"), ("--max-pixels", "4095")
    assert run("encode", phantom_png, *ours, *enough).code == 0
    (tmp_path / "codes").mkdir()
    shutil.copy("scan.codes", "codes")
    (tmp_path / "images").mkdir()
    shutil.copy(phantom_png, "images")
    for command in (
        ("encode", phantom_png, "-f", *ours),
        ("encode", "images", "-o", "out1", *ours),
        ("decode", "scan.codes", *ours),
        ("decode", "codes", "-o", "out2", *ours),
        ("show", "scan.codes", *ours),
        ("score", phantom_png, *ours),
        ("preprocess", "images", "-o", "out3", "--size", "64"),
    ):
        refused = run(*command, *small)
        assert_shown_safely(refused, code=1)
        assert "64×64 pixels, more than the limit of 4,095" in refused.err
        assert "pass --max-pixels 4096" in refused.err
        assert run(*command, *enough).code == 0


@pytest.mark.parametrize(
    "card",
    [{"size": 65_535}, {"size": 10**30}, {"size": 0}, {"size": 1.5}, {"size": "x"}, {"images": [1]}],
)
def test_a_model_whose_card_asks_for_too_much(run: Run, tmp_path: Path, card: dict[str, object]) -> None:
    """Samples and slices of raw folders are made at the size that it names."""
    save_model(tiny_model(), tmp_path / "m.safetensors", card, tiny_prior())
    result = run("sample", "-n", "1", "-o", "s.png", "--model", "m.safetensors")
    assert_shown_safely(result, code=1)
    assert "expected 1 to 4,096" in result.err


def test_the_limit_of_a_volume(tmp_path: Path) -> None:
    """512×512×512 voxels by default, and eight times what an image may have by option."""
    assert DEFAULT_MAX_PIXELS * VOXELS_A_PIXEL == 512**3
    voxels = np.arange(4 * 5 * 6, dtype=np.uint8).tobytes()
    (tmp_path / "a.nii").write_bytes(nifti(4, 5, 6, voxels=voxels))
    with pytest.raises(ImageError, match=r"4×5×6 voxels, more than the limit of 112; .* 15"):
        read_scan(source_at(tmp_path / "a.nii"), max_pixels=14)
    with pytest.raises(ImageError, match="a slice: 5×4 pixels, more than the limit of 15"):
        read_scan(source_at(tmp_path / "a.nii"), max_pixels=15)
    assert read_scan(source_at(tmp_path / "a.nii"), max_pixels=20).voxels.size == 120


def test_codes_that_would_unpack_to_much(run: Run, model_file: Path, tmp_path: Path) -> None:
    """Sixty bytes of a constant image say 67 million pixels."""
    codec = oasisvq.load(model_file)
    header = CodesHeader(
        coder=Coder.PACKED,
        kind=Kind.IMAGE,
        sample_type=SampleType.UINT16,
        shape=(8192, 8192),
        stride=8,
        window=NOTHING,
        levels=1,
        codebook_size=20,
        intensity=(7, 7),
        fingerprint=codec.fingerprint,
    )
    content = container.write(header, b"")
    (tmp_path / "a.codes").write_bytes(content)
    message = "8192×8192 pixels, more than the limit of 16,777,216"
    with within(seconds=5, megabytes=20):
        result = run("decode", "a.codes", "--model", model_file)
        with pytest.raises(ImageError, match=message):
            codec.decode(content)
    assert_shown_safely(result, code=1)
    assert message in result.err
    decoded = codec.decode(content, max_pixels=2**26)
    assert decoded.shape == (8192, 8192)
    assert (decoded == 7).all()
