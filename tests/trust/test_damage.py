"""Damage of every kind ends in one error; the long run is `damage.py`."""

from dataclasses import replace
from itertools import islice, pairwise
from pathlib import Path

import damage
import numpy as np
import pytest
from damage import (
    WAYS,
    Counts,
    fields_of,
    files_of_every_kind,
    geometry_lies,
    lies,
    peak_of,
    try_all,
    with_right_crc,
)

from oasisvq.codec import container
from oasisvq.codec.codec import Codec
from oasisvq.codec.headers import Coder, CodesHeader, Kind, SampleType, VolumeHeader
from oasisvq.codec.pixels import NOTHING, Window, cells
from oasisvq.errors import CodesFileError, ImageError
from oasisvq.scans.geometry import Geometry, Slicing

KINDS = (
    *("packed image", "packed volume", "prior-coded image", "prior-coded volume"),
    *("image with outliers", "volume with outliers"),
    *("labels, image", "labels, volume", "lossy labels"),
    *("image with a residue", "volume with a residue", "volume without loss", "volume with a ground"),
)
A_FEW = 25  # places of each way


@pytest.fixture(scope="module")
def codec(residue_model_file: Path) -> Codec:
    return Codec.load(residue_model_file)


@pytest.fixture(scope="module")
def files(codec: Codec) -> dict[str, bytes]:
    return files_of_every_kind(codec, side=32)


def test_there_is_a_file_of_every_kind(files: dict[str, bytes]) -> None:
    assert set(files) == set(KINDS)
    headers = [container.read(content, "x").header for content in files.values()]
    assert {header.coder for header in headers} == set(Coder)
    assert {header.kind for header in headers} == set(Kind)
    assert {bool(header.labels) for header in headers} == {False, True}
    assert sum(bool(header.outliers) for header in headers) == 2


@pytest.mark.parametrize("kind", KINDS)
def test_every_damage_is_refused(codec: Codec, files: dict[str, bytes], kind: str) -> None:
    damage.decode(codec, files[kind])
    for way, broken in WAYS.items():
        counts = try_all(codec, broken(files[kind], A_FEW), may_decode=False)
        assert counts.tried > A_FEW / 2, way
        assert counts.missed == [], way


@pytest.mark.parametrize("kind", KINDS)
def test_a_header_that_lies_is_refused_before_it_costs_anything(
    codec: Codec, files: dict[str, bytes], kind: str
) -> None:
    some = list(lies(files[kind]))[::29]
    counts = try_all(codec, iter(some), may_decode=True)
    assert counts.missed == []
    assert counts.decoded < 0.5 * counts.tried
    assert peak_of(codec, iter(some[::5])) < damage.BYTES


def test_an_original_that_lies_is_refused_or_comes_back(codec: Codec, files: dict[str, bytes]) -> None:
    some = islice(geometry_lies(files["packed volume"]), 0, None, 4)
    counts = try_all(codec, some, may_decode=True)
    assert counts.missed == []
    assert 0 < counts.decoded < counts.tried


def giant(coder: Coder, sides: tuple[int, int, int], labels: tuple[int, ...]) -> bytes:
    """A few bytes that claim a volume of these sides (slices, H, W), all of them agreeing."""
    voxels = np.broadcast_to(np.uint8(0), sides)
    geometry = Geometry.of_array(voxels, np.eye(4))
    ranges = ((0, 9),) * sides[0] if coder is not Coder.LABELS else ()
    volume = VolumeHeader(sides[0], Slicing.of_number(0), geometry.form, geometry.content, ranges)
    header = CodesHeader(
        coder, Kind.VOLUME, SampleType.UINT8, sides[1:], 0, NOTHING, 0, 0, (0, 0), b"", volume, labels
    )
    if coder is not Coder.LABELS:
        window = Window(0, 0, *(cells(side, 8) for side in sides[1:]))
        header = replace(header, stride=8, window=window, levels=2, codebook_size=20)
        header = replace(header, intensity=(0.0, 255.0), fingerprint=bytes(8))
    return container.write(header, bytes(40))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (giant(Coder.LABELS, (512, 512, 512), (0, 1)), r"does not end|voxels in a payload|ends before"),
        (giant(Coder.LABELS, (512, 512, 512), (3,)), "does not end where its labels end"),
        (giant(Coder.LABELS, (1024, 1024, 1024), (0, 1)), r"more than the limit of 134,217,728"),
        (giant(Coder.PACKED, (512, 512, 512), ()), "a payload of 40 bytes, expected 2621440"),
        (giant(Coder.PRIOR, (512, 512, 512), ()), "4,194,304 indices in a payload of 40 bytes"),
        (giant(Coder.PRIOR, (32_767, 181, 181), ()), "indices, more than the limit|in a payload of 40"),
    ],
)
def test_a_giant_in_a_few_bytes_is_refused_at_once(codec: Codec, content: bytes, message: str) -> None:
    with pytest.raises((CodesFileError, ImageError), match=message):
        damage.decode(codec, content)
    assert try_all(codec, iter([content]), may_decode=False) == Counts(1, 0, [])
    assert peak_of(codec, iter([content])) < damage.BYTES


def test_what_is_missed_is_seen(
    codec: Codec, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = files["packed image"]
    assert try_all(codec, iter([whole]), may_decode=False) == Counts(1, 1, ["decoded"])

    def crash(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(damage, "decode", crash)
    assert try_all(codec, iter([whole]), may_decode=True).missed == ["ZeroDivisionError()"]


def test_fields_cover_the_header(files: dict[str, bytes]) -> None:
    for content in files.values():
        fields = fields_of(content)
        assert fields[0].start == 5
        assert all(one.stop == two.start for one, two in pairwise(fields))
        file = container.read(content, "x")
        coded = file.payload, file.beside.support, file.beside.residue
        assert fields[-1].stop == len(content) - sum(map(len, coded)) - 4
        assert with_right_crc(content) == content
