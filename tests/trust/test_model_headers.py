"""Model files that lie: headers and configs at their extremes end in one error, and cost nothing.

`test_weights.py` has the files that are damaged.
"""

import copy
import json
import struct
import time
import tracemalloc
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from oasisvq.codec import modelfile
from oasisvq.codec.modelfile import METADATA_KEY, read_model
from oasisvq.errors import ModelError

SECONDS, BYTES, LETTERS = 1.0, 50 * 2**20, 2000
TENSOR = "quantizer.codebooks"
NUMBERS = (-(2**63), -1, 0, 2**16, 2**31 - 1, 2**31, 2**63, 10**4000)
LISTS = ([], [0], [-1, -1], [2**31 - 1] * 3, [4096] * 7, [64] * 7, [2**62] * 1000, [[1]], [1.0])
NO_NUMBERS = (None, True, 1.5, 1e308, float("nan"), float("inf"), "a" * 10_000, {}, *LISTS)
NO_LISTS = (None, True, 5, 1e308, float("nan"), "ab", {"a": 1}, *LISTS)

Header = dict[str, Any]


class Parts(NamedTuple):
    """A model file taken apart: the safetensors header, our metadata in it, and the tensors."""

    header: Header
    ours: Header
    tensors: bytes

    def joined(self) -> bytes:
        """The file."""
        header = self.header | {"__metadata__": {METADATA_KEY: json.dumps(self.ours)}}
        return framed(json.dumps(header).encode(), self.tensors)


def framed(header: bytes, tensors: bytes = b"") -> bytes:
    return struct.pack("<Q", len(header)) + header + tensors


def taken_apart(content: bytes) -> Parts:
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    ours = json.loads(header.pop("__metadata__")[METADATA_KEY])
    return Parts(header, ours, content[8 + length :])


@pytest.fixture(autouse=True)
def whatever_it_calls_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fingerprint would give every change away, once all is read."""
    monkeypatch.setattr(modelfile, "_refuse_wrong_fingerprint", lambda *_: None)


@pytest.fixture
def parts(prior_model_file: Path) -> Parts:
    return taken_apart(prior_model_file.read_bytes())


def changed(parts: Parts, change: Callable[[Parts], object]) -> bytes:
    """The file with one thing of its parts changed in place."""
    other = copy.deepcopy(parts)
    change(other)
    return other.joined()


def assert_refused(path: Path, content: bytes, what: object) -> None:
    """By one short line that names the file, before it costs anything."""
    path.write_bytes(content)
    tracemalloc.start()
    start = time.process_time()
    with pytest.raises(ModelError) as caught:
        read_model(path)
    seconds, (_, peak) = time.process_time() - start, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    message = str(caught.value)
    assert message.startswith(f"{path}: "), what
    assert "\n" not in message, what
    assert len(message) < LETTERS, what
    assert seconds < SECONDS, what
    assert peak < BYTES, what


def test_the_parts_are_the_file(parts: Parts, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(parts.joined())
    read_model(path)


def values_for(entry: object) -> tuple[object, ...]:
    return (*NUMBERS, *NO_NUMBERS) if isinstance(entry, int) else NO_LISTS


def test_every_field_of_the_configs_at_its_extremes(parts: Parts, tmp_path: Path) -> None:
    tried = 0
    for config in ("config", "prior"):
        for field, entry in parts.ours[config].items():
            for other in values_for(entry):
                content = changed(parts, lambda p: p.ours[config].update({field: other}))  # noqa: B023
                assert_refused(tmp_path / "x.safetensors", content, (config, field, str(other)[:40]))
                tried += 1
    assert tried > 300


def as_large_as_can_be(parts: Parts) -> None:
    """Terabytes, each number within its bounds."""
    side = {f"{side}_channels": [4096] * 7 for side in ("encoder", "decoder")}
    side |= {f"{side}_blocks": [64] * 7 for side in ("encoder", "decoder")}
    parts.ours["config"].update(side, stride=64, window=[64, 64], code_dim=1024)
    parts.ours["config"].update(codebook_size=65_535, levels=64, default_levels=64)
    if parts.ours["prior"]:
        parts.ours["prior"].update(codebook_size=65_535, grid=[4096, 4096], code_dim=1024, kinds=4096)
        parts.ours["prior"].update(features=256, position_features=256, kind_features=256)
        by_level = {"hidden": 2048, "blocks": 16, "reach": 8, "passes": 16}
        parts.ours["prior"].update({name: [number] * 64 for name, number in by_level.items()})


def without_prior(parts: Parts) -> Parts:
    """The codec alone, its tensors moved together."""
    header, tensors = {}, b""
    for name, entry in sorted(parts.header.items(), key=lambda item: item[1]["data_offsets"]):
        if not name.startswith("prior."):
            start, stop = entry["data_offsets"]
            header[name] = entry | {"data_offsets": [len(tensors), len(tensors) + stop - start]}
            tensors += parts.tensors[start:stop]
    return Parts(header, parts.ours | {"prior": None}, tensors)


def test_a_config_that_asks_for_terabytes(parts: Parts, tmp_path: Path) -> None:
    for each in (parts, without_prior(parts)):
        path = tmp_path / "x.safetensors"
        path.write_bytes(each.joined())
        read_model(path)
        assert_refused(path, changed(each, as_large_as_can_be), len(each.header))


def tensor_entries() -> Iterator[Header]:
    """What a tensor may claim of itself: 3 × 20 × 6 of int16 are true."""
    huge = (2**62, 2**63, 2**64, 10**300)
    shapes = [[side] for side in huge] + [[side, side] for side in huge] + [[0, 2**62], [-1, 360]]
    shapes += [[1] * 70, [], [3, 20, 6, 1], [360], [3, 20, 6.0], [True, 360], ["360"], "360", None, {}]
    yield from ({"shape": shape} for shape in shapes)
    types = ("F64", "F16", "BF16", "F8_E4M3", "F8_E5M2", "C64", "I8", "U64", "BOOL", "f32", "", 3, None)
    yield from ({"dtype": name} for name in types)
    sizes = {"F64": 90, "BF16": 360, "F8_E4M3": 720, "I32": 180, "U8": 720, "BOOL": 720, "C64": 90}
    yield from ({"dtype": name, "shape": [size]} for name, size in sizes.items())
    ends = (-8, 0, 1, 8, 2**31, 2**63, 2**64 - 1, 2**64, 10**300)
    yield from ({"data_offsets": [*each]} for each in product(ends, ends))
    yield from ({"data_offsets": each} for each in ([], [0], [0, 8, 16], [0.0, 720.0], "0", None))


def test_every_claim_of_a_tensor(parts: Parts, tmp_path: Path) -> None:
    assert parts.header[TENSOR]["shape"] == [3, 20, 6]
    entries = list(tensor_entries())
    for entry in entries:
        content = changed(parts, lambda p: p.header[TENSOR].update(entry))  # noqa: B023
        assert_refused(tmp_path / "x.safetensors", content, entry)
    assert len(entries) > 100


@pytest.mark.parametrize(
    "change",
    [
        lambda p: p.header.update(second=p.header[TENSOR]),  # the same bytes twice
        lambda p: p.header.update(empty={"dtype": "I16", "shape": [0, 2**60], "data_offsets": [0, 0]}),
        lambda p: p.header.update(
            {f"t{i}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for i in range(5_000)}
        ),
        lambda p: p.header.update({"t" * 100_000: p.header.pop(TENSOR)}),
        lambda p: p.ours["config"].update({f"k{i}": 1 for i in range(20_000)}),
        lambda p: p.ours.update(format="1" * 100_000),
        lambda p: p.ours.update(format=float("nan")),
        lambda p: p.ours.update(format=[1]),
        lambda p: p.ours.update(prior=0),
        lambda p: p.ours.update(prior=[]),
        lambda p: p.ours.update(card=[]),
        lambda p: p.ours.update(card={"size": 10**4000}),
        lambda p: p.ours.update(card={"size": float("inf")}),
    ],
)
def test_other_lies(change: Callable[[Parts], object], parts: Parts, tmp_path: Path) -> None:
    assert_refused(tmp_path / "x.safetensors", changed(parts, change), "")


@pytest.mark.parametrize(
    "content",
    [
        framed(b"[" * 2**20),
        framed(b'{"a":' * 2**17),
        framed(b"[" + b"[]," * 2**20 + b"[]]"),  # as Python holds it, many times as much
        framed(b'{"a": ' + b"1" * 2**20 + b"}"),
        framed(b'{"a": NaN}'),
        framed(b'{"a": 1e999}'),
        framed(b"\xff" * 100),
        struct.pack("<Q", 2**64 - 1),
        struct.pack("<Q", 2**20) + b"{}",
    ],
)
def test_headers_that_are_none(content: bytes, tmp_path: Path) -> None:
    assert_refused(tmp_path / "x.safetensors", content, content[:40])
