"""Damage of every kind ends in one error; the long run is `damage.py`."""

from itertools import pairwise
from pathlib import Path

import damage
import pytest
from damage import WAYS, Counts, fields_of, files_of_every_kind, lies, peak_of, try_all, with_right_crc

from oasisvq.codec import container
from oasisvq.codec.codec import Codec

KINDS = (
    *("packed image", "packed volume", "prior-coded image", "prior-coded volume"),
    *("labels, image", "labels, volume", "lossy labels"),
)
A_FEW = 25  # places of each way


@pytest.fixture(scope="module")
def codec(prior_model_file: Path) -> Codec:
    return Codec.load(prior_model_file)


@pytest.fixture(scope="module")
def files(codec: Codec) -> dict[str, bytes]:
    return files_of_every_kind(codec, side=32)


def test_there_is_a_file_of_every_kind(files: dict[str, bytes]) -> None:
    assert set(files) == set(KINDS)
    headers = [container.read(content, "x").header for content in files.values()]
    assert {header.coder for header in headers} == set(container.Coder)
    assert {header.kind for header in headers} == set(container.Kind)
    assert {bool(header.labels) for header in headers} == {False, True}


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
    some = list(lies(files[kind]))[::15]
    counts = try_all(codec, iter(some), may_decode=True)
    assert counts.missed == []
    assert counts.decoded < 0.5 * counts.tried
    assert peak_of(codec, iter(some[::5])) < damage.BYTES


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
        payload = container.read(content, "x").payload
        assert fields[-1].stop == len(content) - len(payload) - 4
        assert with_right_crc(content) == content
