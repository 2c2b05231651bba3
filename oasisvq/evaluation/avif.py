"""How much of an AVIF file is the data of the picture, as opposed to the container.

An AVIF file is a sequence of boxes (ISO/IEC 14496-12), each of which has its size, a name of four bytes
and its content. `iloc` in `meta` says where the AV1 data of each item lies, `pitm` which item is the
picture.
"""

from collections.abc import Iterator

from oasisvq.errors import ImageError

_FULL = 4  # bytes of version and flags that some boxes begin with
_LONG = 8  # bytes of a size that 32 bits do not hold


def data_bytes(content: bytes) -> int:
    """Bytes of the AV1 data of the picture that an AVIF file holds.

    Raises:
        ImageError: it is not such a file.
    """
    try:
        meta = _box(content, b"meta")[_FULL:]
        return _located(_box(meta, b"iloc"), _primary(_box(meta, b"pitm")))
    except (KeyError, IndexError) as error:
        raise ImageError("not an AVIF file that says where its data lies") from error


def _box(content: bytes, name: bytes) -> bytes:
    """The content of the first box with a name."""
    for found, inside in _boxes(content):
        if found == name:
            return inside
    raise KeyError(name)


def _boxes(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    start = 0
    while start + 8 <= len(content):
        size, name, head = (
            int.from_bytes(content[start : start + 4], "big"),
            content[start + 4 : start + 8],
            8,
        )
        if size == 1:
            size, head = int.from_bytes(content[start + 8 : start + 16], "big"), 8 + _LONG
        elif size == 0:  # the last box
            size = len(content) - start
        if size < head:
            return
        yield name, content[start + head : start + size]
        start += size


class _Reader:
    """Takes numbers from bytes, most significant byte first."""

    def __init__(self, content: bytes) -> None:
        self.content, self.place = content, 0

    def number(self, size: int) -> int:
        if self.place + size > len(self.content):
            raise IndexError("it ends early")
        self.place += size
        return int.from_bytes(self.content[self.place - size : self.place], "big")


def _primary(pitm: bytes) -> int:
    reader = _Reader(pitm)
    version = reader.number(_FULL) >> 24
    return reader.number(4 if version else 2)


def _located(iloc: bytes, item: int) -> int:
    """The total length of an item's parts."""
    reader = _Reader(iloc)
    version = reader.number(_FULL) >> 24
    sizes = reader.number(2)
    offset, length, base, index = (sizes >> shift & 15 for shift in (12, 8, 4, 0))
    wide = 4 if version == 2 else 2
    for _ in range(reader.number(wide)):
        found = reader.number(wide)
        reader.number((2 if version else 0) + 2 + base)  # method, file, base
        total = 0
        for _ in range(reader.number(2)):
            reader.number((index if version else 0) + offset)
            total += reader.number(length)
        if found == item:
            return total
    raise KeyError(item)
