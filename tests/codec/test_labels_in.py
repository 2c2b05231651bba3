"""What a scan shows: labels of every kind are kept exactly, and no scan is taken for a map of them."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import draw_labels, draw_phantom, draw_volume
from numpy.typing import NDArray
from PIL import Image

from oasisvq.codec import container
from oasisvq.codec.codec import Codec
from oasisvq.codec.content import MOST_TIMES_LARGER, Content, labels_in, what_is_assumed
from oasisvq.codec.headers import Coder
from oasisvq.errors import CodesFileError, ImageError

Array = NDArray[np.generic]


@pytest.fixture(scope="module")
def codec(model_file: Path) -> Codec:
    return Codec.load(model_file)


def tissues(shape: tuple[int, int, int] = (16, 40, 44)) -> NDArray[np.uint16]:
    return draw_labels(np.random.default_rng(0), shape, 5)


def lesions() -> Array:
    """Some small blobs and single voxels."""
    mask = np.zeros((12, 64, 64), np.uint8)
    for place, row, column in np.random.default_rng(0).integers(2, 10, (9, 3)):
        mask[place, 5 * row : 5 * row + 2, 6 * column : 6 * column + 2] = 1
        mask[place, column, row] = 1
    return mask


def contours(levels: int = 1) -> Array:
    """Borders of cells, a pixel wide."""
    cells = tissues((1, 96, 96))[0].astype(int)
    is_border = (np.diff(cells, axis=0, prepend=0) != 0) | (np.diff(cells, axis=1, prepend=0) != 0)
    return (is_border * (1 + cells % levels)).astype(np.uint8)[None]


def thin_along(axis: int) -> Array:
    """Labels that change in every row, column or slice but along one axis."""
    sides = [12, 24, 24]
    sides[axis] = 1
    columns = np.random.default_rng(0).integers(0, 200, sides) * 11
    return np.broadcast_to(columns, (12, 24, 24)).astype(np.int32)


def dots() -> Array:
    """Electrodes: one voxel each, each with a number of its own."""
    grid = np.zeros((20, 40, 40), np.int16)
    for number, place in enumerate(np.random.default_rng(0).integers(0, 20 * 40 * 40, 60)):
        grid.flat[place] = number + 1
    return grid


LABELS: dict[str, Array] = {
    "tissues": tissues(),
    "image": tissues((1, 90, 90)),
    "grey levels": tissues((1, 90, 90)).astype(np.uint8) * 51,
    "sparse lesions": lesions(),
    "one small structure": np.pad(np.full((3, 4, 5), 9, np.float32), 20),
    "contours": contours(),
    "contours in colours": contours(4),
    "thin along slices": thin_along(0),
    "thin along rows": thin_along(1),
    "thin along columns": thin_along(2),
    "dots with numbers": dots(),
    "300 parcels": np.arange(300).reshape(3, 10, 10).repeat(6, 0).repeat(6, 1).repeat(6, 2).astype("i2"),
    "2,000 parcels": np.arange(2000).reshape(20, 10, 10).repeat(4, 0).repeat(4, 1).repeat(4, 2),
    "coarse mask": np.kron(np.random.default_rng(0).integers(0, 2, (3, 8, 8)), np.ones((1, 4, 4), int)),
    "whole floats": tissues().astype(np.float64),
    "multiples of a step": (tissues() * np.float32(0.9882)).astype(np.float32),
    "multiples of a double": tissues() * 0.1,
    "negative": tissues().astype(np.int16) - 1000,
    "beyond 32 bits": tissues().astype(np.int64) * 2**40,
    "no ground": tissues() + np.uint16(1),
}


def noisy(shape: tuple[int, ...], levels: int) -> Array:
    """A bright ellipse with noise, in a few grey levels."""
    axes = np.meshgrid(*(np.linspace(-1.2, 1.2, side) * (side > 1) for side in shape), indexing="ij")
    radius = np.sqrt(sum(np.square(axis) for axis in axes))
    noise = np.random.default_rng(0).normal(0, 0.08, shape)
    bright = np.where(radius < 1, np.clip(1.2 - radius + noise, 0, 1), 0)
    return np.rint(bright * (levels - 1))


SCANS: dict[str, Array] = {
    "phantom": draw_phantom(np.random.default_rng(1))[None],
    "volume": draw_volume(np.random.default_rng(1)).transpose(2, 0, 1),
    "8 bits": noisy((8, 48, 48), 256).astype(np.uint8),
    "12 bits": noisy((8, 48, 48), 4096).astype(np.int16),
    "64 grey levels": noisy((1, 96, 96), 64).astype(np.uint8),
    "whole floats": noisy((8, 48, 48), 1000).astype(np.float32),
    "scaled": (noisy((8, 48, 48), 601) * 0.00494 - 1.5).astype(np.float32),
    "noise": np.random.default_rng(0).integers(0, 16, (8, 32, 32)),
    "ramp": np.arange(8 * 40 * 40).reshape(8, 40, 40),
    "constant": np.full((1, 9, 9), 7, np.uint8),
}


def encoded(codec: Codec, planes: Array, **wish: Any) -> bytes:
    """An image of one plane, a volume of several."""
    if len(planes) == 1:
        return codec.encode(planes[0].astype(np.uint8), **wish)
    return codec.encode(planes, spacing=(1, 1, 1), **wish)


@pytest.mark.parametrize("kind", LABELS)
def test_labels_of_this_kind_are_kept_exactly(codec: Codec, kind: str) -> None:
    planes = LABELS[kind]
    array = planes[0].astype(np.uint8) if len(planes) == 1 else planes
    content = encoded(codec, planes)
    header = container.read(content, "scan.codes").header
    assert header.coder is Coder.LABELS
    assert header.labels == tuple(np.unique(array).tolist())
    restored = codec.decode(content)
    assert restored.dtype == array.dtype
    np.testing.assert_array_equal(restored, array)


@pytest.mark.parametrize("kind", SCANS)
def test_scans_of_this_kind_are_no_labels(kind: str) -> None:
    assert labels_in(SCANS[kind]) is None


@pytest.mark.parametrize("kind", SCANS)
def test_a_scan_that_is_called_labels_is_still_one_if_it_costs_too_much(codec: Codec, kind: str) -> None:
    found = labels_in(SCANS[kind], is_told=True)
    assert found is None or not found.is_plain


def test_names_and_headers_decide_where_it_is_open() -> None:
    open_case = noisy((1, 96, 96), 24).astype(np.uint8)
    asked, told = labels_in(open_case), labels_in(open_case, is_told=True)
    assert told is not None
    assert asked is None or not asked.is_plain
    assert told.most_times_larger > MOST_TIMES_LARGER


def test_what_is_open_is_decided_by_size(codec: Codec) -> None:
    """Contours in many colours are kept as long as that costs no more than four times as much."""
    planes = contours(4)
    found = labels_in(planes)
    assert found is not None
    assert not found.is_plain
    exact = encoded(codec, planes)
    lossy = encoded(codec, planes, content=Content.SCAN)
    assert len(exact) <= MOST_TIMES_LARGER * len(lossy)
    values = np.random.default_rng(0).integers(1, 6, (1, 96, 96)) ** 2  # the least are faint: no mask
    noise = np.where(noisy((1, 96, 96), 2) > 0, values, 0)
    assert labels_in(noise) is not None
    content = encoded(codec, noise)
    assert container.read(content, "scan.codes").header.coder is not Coder.LABELS


def test_what_is_said_decides(codec: Codec) -> None:
    assert labels_in(tissues(), Content.SCAN) is None
    found = labels_in(SCANS["8 bits"], Content.LABELS)
    assert found is not None
    assert found.is_plain
    with pytest.raises(ImageError, match=r"70,000 values .* at most 65,535 values; pass --kind scan"):
        labels_in(np.arange(70_000.0).reshape(7, 100, 100), Content.LABELS)


@pytest.mark.parametrize(
    ("kind", "line"),
    [
        ("tissues", "5 whole values: kept exactly as labels; --kind scan codes them by the model"),
        ("multiples of a step", "5 values: kept exactly as labels; --kind scan codes them by the model"),
    ],
)
def test_what_was_assumed_is_told(codec: Codec, kind: str, line: str) -> None:
    assert what_is_assumed(container.read(encoded(codec, LABELS[kind]), "a").header) == line
    lossy = container.read(encoded(codec, LABELS[kind], lossy=True), "a").header
    assert "coded as labels by the model" in what_is_assumed(lossy)
    scan = container.read(encoded(codec, SCANS["8 bits"]), "a").header
    assert what_is_assumed(scan) == ""


@pytest.mark.parametrize("kind", ["multiples of a step", "multiples of a double", "beyond 32 bits"])
def test_lossy_labels_are_among_the_originals_whatever_they_are(codec: Codec, kind: str) -> None:
    restored = codec.decode(encoded(codec, LABELS[kind], lossy=True))
    assert restored.dtype == LABELS[kind].dtype
    assert np.isin(restored, np.unique(LABELS[kind])).all()


def changed(content: bytes, old: bytes, new: bytes) -> bytes:
    import struct
    import zlib

    assert content.count(old) == 1
    body = content.replace(old, new)[:-4]
    return body + struct.pack("<I", zlib.crc32(body))


@pytest.mark.parametrize(
    "values", [(0.5, 0.25), (0.5, 0.5), (0.5, math.nan), (0.5, math.inf), (1.0, 2.0)], ids=str
)
def test_values_of_labels_that_a_reader_refuses(codec: Codec, values: tuple[float, float]) -> None:
    mask = np.pad(np.full((3, 4, 5), 2.5, np.float64), 6, constant_values=0.5)
    content = codec.encode(mask)
    forged = changed(content, np.array([0.5, 2.5], "<f8").tobytes(), np.array(values, "<f8").tobytes())
    with pytest.raises(CodesFileError, match="labels that do not rise, or are whole"):
        container.read(forged, "scan.codes")


def test_both_ways_to_write_labels_are_refused(codec: Codec) -> None:
    content = bytearray(encoded(codec, LABELS["tissues"]))
    content[8] = 3
    with pytest.raises(CodesFileError, match="blocks 3: not all known"):
        container.read(bytes(content), "scan.codes")


def test_no_real_scan_is_taken_for_labels_and_every_real_map_is(shared_data: Path) -> None:
    folder = shared_data / "oasis" / "keras_png_slices_data"
    for path in sorted((folder / "keras_png_slices_validate").iterdir())[::40]:
        assert labels_in(np.asarray(Image.open(path))[None]) is None
    for path in sorted((folder / "keras_png_slices_seg_validate").iterdir())[::40]:
        found = labels_in(np.asarray(Image.open(path))[None])
        assert found is not None
        assert found.is_plain
