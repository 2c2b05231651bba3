"""What of an AVIF file is data, against files that are drawn and those that Pillow writes."""

import io
import struct

import numpy as np
import pytest
from conftest import draw_phantom
from PIL import Image, features

from oasisvq.errors import ImageError
from oasisvq.evaluation.avif import data_bytes


def box(name: bytes, content: bytes, long: bool = False) -> bytes:
    if long:
        return struct.pack(">I4sQ", 1, name, 16 + len(content)) + content
    return struct.pack(">I4s", 8 + len(content), name) + content


def drawn(iloc: bytes, item: bytes = b"\0\1", version: int = 0, long: bool = False) -> bytes:
    meta = bytes(4) + box(b"pitm", bytes([version, 0, 0, 0]) + item) + box(b"iloc", iloc)
    return box(b"ftyp", b"avif", long) + box(b"meta", meta) + box(b"mdat", bytes(500), long)


def located(version: int) -> bytes:
    """Items 2 and 1, of 11 bytes in one part, and of 300 and 70 in two."""
    item = ">I" if version == 2 else ">H"
    method, index = (bytes(2), bytes(4)) if version else (b"", b"")

    def part(length: int) -> bytes:
        return index + struct.pack(">IH", 99, length)

    sizes = struct.pack(">H", 4 << 12 | 2 << 8 | 8 << 4 | (4 if version else 0))
    content = bytes([version, 0, 0, 0]) + sizes + struct.pack(item, 2)
    for number, lengths in ((2, [11]), (1, [300, 70])):
        content += struct.pack(item, number) + method + bytes(2 + 8) + struct.pack(">H", len(lengths))
        content += b"".join(map(part, lengths))
    return content


@pytest.mark.parametrize("version", [0, 1, 2])
def test_the_parts_of_the_picture_are_added(version: int) -> None:
    assert data_bytes(drawn(located(version))) == 370
    assert data_bytes(drawn(located(version), long=True)) == 370
    assert data_bytes(drawn(located(version), item=bytes(3) + b"\2", version=1)) == 11


def test_other_files_are_refused() -> None:
    for content in (
        b"",
        b"\x89PNG\r\n\x1a\n" + bytes(50),
        drawn(located(0), item=b"\0\3"),
        drawn(located(0)[:-3]),
    ):
        with pytest.raises(ImageError, match="not an AVIF file that says where its data lies"):
            data_bytes(content)


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF")
def test_the_data_of_a_file_is_all_but_a_few_hundred_bytes_and_begins_as_av1_does(
    rng: np.random.Generator,
) -> None:
    heads = set()
    for quality in (10, 50, 90):
        content = io.BytesIO()
        Image.fromarray(draw_phantom(rng, 90, 70)).save(content, "AVIF", quality=quality)
        file = content.getvalue()
        size = data_bytes(file)
        assert file[-size:][:1] == b"\x12"  # a temporal delimiter or sequence header (OBU)
        heads.add(len(file) - size)
    assert len(heads) == 1
    assert 100 < heads.pop() < 500
