"""Voxels in files: one after the other, with gzip or without, of one volume or several.

Never imports torch.
"""

import gzip
import math
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from oasisvq.errors import FileError, ImageError
from oasisvq.files import require_file
from oasisvq.scans.geometry import Geometry

MAX_VOLUME_BYTES = 2**33
_MAX_TRAILING_BYTES = 2**20  # that a gzip file may hold after its voxels
_PART_BYTES = 2**24


class Volume(NamedTuple):
    """What a volume file holds.

    Attributes:
        voxels: (X, Y, Z) stored values, in this machine's byte order.
        geometry: how they lie in space.
    """

    voxels: NDArray[np.generic]
    geometry: Geometry


def chosen_of(count: int, which: int | None, shape: Sequence[int]) -> int:
    """Which of several volumes is meant, from 0.

    Args:
        count: how many there are.
        which: the one that is asked for; None for the only one.
        shape: of all of them together, for the message.

    Raises:
        ImageError: there are several and none is asked for, or there is no such volume.
    """
    if which is None and count > 1:
        raise ImageError(
            f"shape {tuple(shape)}, expected one volume; it holds {count:,}: encode one of 0 to "
            f"{count - 1} with --volume, or each with --volume all"
        )
    if not 0 <= (which or 0) < count:
        there = f"volumes 0 to {count - 1:,}" if count > 1 else "only volume 0"
        raise ImageError(f"there is no volume {which}; it holds {there}")
    return which or 0


@contextmanager
def opened_volume(path: Path) -> Iterator[BinaryIO]:
    """The content of a file, unpacked if it is gzip; every failure becomes an error of ours."""
    require_file(path)
    size = path.stat().st_size
    if size == 0:
        raise ImageError(f"{path}: an empty file, expected a volume")
    if size > MAX_VOLUME_BYTES:
        raise ImageError(f"{path}: has more than {MAX_VOLUME_BYTES:,} bytes, the limit for a volume")
    try:
        with path.open("rb") as plain:
            is_gzip = plain.read(2) == b"\x1f\x8b"
            plain.seek(0)
            if is_gzip:
                with gzip.GzipFile(fileobj=plain) as stream:
                    yield cast(BinaryIO, stream)
            else:
                yield plain
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ImageError(f"{path}: damaged or truncated gzip ({error}); get a whole copy") from error
    except OSError as error:
        raise FileError(f"{path}: cannot be read: {error.strerror or error}") from error


def skip(stream: BinaryIO, count: int) -> None:
    """Skip `count` bytes."""
    while count > 0:
        skipped = len(stream.read(min(count, _PART_BYTES)))
        if not skipped:
            return  # the rest is missing; whoever reads it says so
        count -= skipped


def read_to_end(stream: gzip.GzipFile, path: Path) -> None:
    """Read a gzip file to its end, where its checksum is compared; raise if much follows the voxels."""
    trailing = 0
    while part := stream.read(_MAX_TRAILING_BYTES):
        trailing += len(part)
        if trailing > _MAX_TRAILING_BYTES:
            raise ImageError(f"{path}: damaged: goes on after its voxels; get a whole copy")


def read_voxels(
    stream: BinaryIO, shape: Sequence[int], dtype: np.dtype[np.generic], path: Path
) -> NDArray[np.generic]:
    """The next voxels of a stream, first axis fastest.

    Raises:
        ImageError: the stream ends before.
    """
    wanted = math.prod(shape) * dtype.itemsize
    content = bytearray()  # grows with what is read, since a header may promise more
    while len(content) < wanted:
        part = stream.read(min(_PART_BYTES, wanted - len(content)))
        if not part:
            raise ImageError(
                f"{path}: truncated: {len(content):,} bytes of voxels, expected {wanted:,}; "
                "get a whole copy"
            )
        content += part
    voxels = np.frombuffer(content, dtype).reshape(shape, order="F")
    return voxels.astype(dtype.newbyteorder("="), order="F", copy=False)
