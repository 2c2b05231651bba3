"""Supports of slices <-> payload, beside a decoded image and without."""

import tracemalloc

import numpy as np
import pytest
from conftest import draw_phantom
from numpy.typing import NDArray
from residue_models import TINY_SUPPORT, tiny_support

import oasisvq
from oasisvq.codec.ground import encode_support
from oasisvq.codec.residue_config import SupportConfig
from oasisvq.codec.support import SupportReader, SupportWriter, guide_of
from oasisvq.errors import CodesFileError

Booleans = NDArray[np.bool_]
Guides = list[NDArray[np.float64] | None]
SHAPES = [(1, 1), (1, 40), (16, 16), (33, 47), (70, 20)]


def coded(supports: list[Booleans], guides: Guides, config: SupportConfig = TINY_SUPPORT) -> bytes:
    writer = SupportWriter(tiny_support(config), supports[0].shape)
    for support, guide in zip(supports, guides, strict=True):
        writer.put(support, guide)
    return writer.finish()


def read(
    payload: bytes, shape: tuple[int, int], guides: Guides, config: SupportConfig = TINY_SUPPORT
) -> list[Booleans]:
    reader = SupportReader(payload, tiny_support(config), shape)
    supports = [reader.take(guide) for guide in guides]
    reader.finish()
    return supports


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("slices_before", [0, 1, 2])
def test_supports_come_back(
    shape: tuple[int, int], slices_before: int, rng: np.random.Generator
) -> None:
    config = SupportConfig((2, 2, 1), 1, slices_before, (8, 4))
    noise, other = rng.random((2, *shape)) < 0.5
    blob = np.hypot(*(np.indices(shape) - np.array(shape).reshape(2, 1, 1) / 2)) < 9
    nothing, everything = np.zeros(shape, np.bool_), np.ones(shape, np.bool_)
    supports = [noise, other, nothing, blob, blob, everything, blob & noise]
    guides: Guides = [None, *rng.random((5, *shape)), None]
    payload = coded(supports, guides, config)
    np.testing.assert_array_equal(read(payload, shape, guides, config), supports)
    assert payload == coded(supports, guides, config)


def test_the_bundled_network_makes_use_of_the_decoded_image(rng: np.random.Generator) -> None:
    phantom = draw_phantom(rng)
    support, network = phantom > 0, oasisvq.load().file.support
    assert network is not None
    lengths = []
    for guide in (guide_of(phantom, 0, (0, 255)), None):
        writer = SupportWriter(network, support.shape)
        writer.put(support, guide)
        lengths.append(len(writer.finish()))
    assert lengths[0] < 0.5 * min(lengths[1], len(encode_support(support[None])))


def test_slices_of_ground_alone_cost_next_to_nothing() -> None:
    assert len(coded([np.zeros((64, 64), np.bool_)] * 50, [None] * 50)) <= 16


@pytest.mark.parametrize(
    ("ground", "ends", "expected"),
    [
        (10, (10, 210), [0, 0.05, 1]),
        (110, (10, 210), [1, 0.9, 1]),  # the larger distance counts as 1
        (np.nan, (10, 210), [0, 0.05, 1]),
        (-1000, (10, 210), [0, 0.05, 1]),
        (10, (10, 10), [0, 10, 200]),
    ],
)
def test_the_guide_is_how_far_voxels_lie_from_the_ground(
    ground: float, ends: tuple[float, float], expected: list[float]
) -> None:
    plane = np.array([[10, 20, 210]], np.uint8)
    np.testing.assert_allclose(guide_of(plane, ground, ends), [expected])


def test_damage_is_refused_or_is_what_a_writer_writes(rng: np.random.Generator) -> None:
    shape = (33, 47)
    supports = list(rng.random((2, *shape)) < 0.5)
    guides: Guides = [rng.random(shape), None]
    payload = coded(supports, guides)
    with pytest.raises(CodesFileError, match="does not end"):
        read(payload + bytes(4), shape, guides)
    refused = 0
    for place in rng.integers(0, len(payload), 9).tolist():
        flipped = bytearray(payload)
        flipped[place] ^= 1 << int(rng.integers(8))
        for damaged in (bytes(flipped), payload[:place]):
            try:
                found = read(damaged, shape, guides)
            except CodesFileError:
                refused += 1
                continue
            assert coded(found, guides) == damaged
    assert refused


def test_more_slices_than_a_payload_can_hold_are_refused() -> None:
    shape = (8192, 8192)
    payload = coded([np.eye(8, dtype=np.bool_)], [None])[:4]
    network = tiny_support()
    tracemalloc.start()
    reader = SupportReader(payload, network, shape)
    with pytest.raises(CodesFileError):
        for _ in range(3):
            reader.take(None)
    tracemalloc.stop()
