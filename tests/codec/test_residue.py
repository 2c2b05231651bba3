"""Bins of slices, written and read again by the network."""

import contextlib

import numpy as np
import pytest
from residue_models import TINY_RESIDUE, tiny_residue

from oasisvq.codec.lattice import Lattice
from oasisvq.codec.residue import BinLimits, Bins, SliceReader, SliceWriter, noise_of
from oasisvq.codec.residue_config import ResidueConfig, known_offsets
from oasisvq.errors import CodesFileError, ModelError

SHAPES = [(1, 1), (1, 40), (7, 3), (17, 33), (40, 50)]


def slices_of(
    rng: np.random.Generator, shape: tuple[int, int], low: int, high: int, count: int = 2
) -> list[Bins]:
    drawn = [rng.integers(low, high + 1, shape) for _ in range(count)]
    return [np.where((rng.random(shape) < 0.2) & (shape != (1, 1)), 0, each) for each in drawn]


def coded(
    slices: list[Bins], limits: BinLimits, guides: list[np.ndarray | None], config: ResidueConfig
) -> tuple[bytes, list[Bins]]:
    shape = slices[0].shape
    writer = SliceWriter(tiny_residue(config), shape, limits)
    for bins, guide in zip(slices, guides, strict=True):
        writer.put(bins, bins != 0, guide)
    payload = writer.finish()
    reader = SliceReader(payload, tiny_residue(config), shape, limits)
    restored = [reader.take(bins != 0, guide) for bins, guide in zip(slices, guides, strict=True)]
    reader.finish()
    return payload, restored


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("low", "high"), [(1, 1), (1, 255), (-9, 7), (-40_000, 65_535), (1, 2**32), (-(2**55), 2**55)]
)
def test_slices_come_back_whatever_their_bins(
    rng: np.random.Generator, shape: tuple[int, int], low: int, high: int
) -> None:
    slices = slices_of(rng, shape, low, high)
    guides = [None, slices[1] + rng.normal(0, 1, shape)]
    _, restored = coded(slices, BinLimits(low, high), guides, TINY_RESIDUE)
    for bins, again in zip(slices, restored, strict=True):
        np.testing.assert_array_equal(again, bins)


def test_outliers_far_from_all_others_come_back(rng: np.random.Generator) -> None:
    bins = rng.integers(1, 5, (40, 40))
    bins[3, 4], bins[20, 20], bins[39, 39] = 60_000, -60_000, 2**16
    _, (again,) = coded([bins], BinLimits(-60_000, 2**16), [None], TINY_RESIDUE)
    np.testing.assert_array_equal(again, bins)


def test_a_slice_of_ground_alone_takes_no_bytes() -> None:
    nothing = np.zeros((9, 9), np.int64)
    payload, (again,) = coded([nothing], BinLimits(1, 255), [None], TINY_RESIDUE)
    assert payload == b""
    assert not again.any()


def test_bins_of_one_value_cost_next_to_nothing() -> None:
    payload, _ = coded([np.ones((60, 60), np.int64)], BinLimits(1, 1), [None], TINY_RESIDUE)
    assert len(payload) < 20


@pytest.mark.parametrize("slices_before", [0, 1, 2])
def test_any_number_of_slices_before_may_be_seen(rng: np.random.Generator, slices_before: int) -> None:
    config = ResidueConfig((3, 2, 1), 0, slices_before, 8, 0, 1)
    slices = slices_of(rng, (20, 21), 1, 99, 4)
    _, restored = coded(slices, BinLimits(1, 99), [None] * 4, config)
    np.testing.assert_array_equal(restored, slices)


@pytest.mark.parametrize("damage", ["shorter", "longer", "changed", "empty"])
def test_a_damaged_payload_is_refused(rng: np.random.Generator, damage: str) -> None:
    (bins,) = slices_of(rng, (24, 24), 1, 200, 1)
    limits = BinLimits(1, 200)
    payload, _ = coded([bins], limits, [None], TINY_RESIDUE)
    changed = bytes([payload[0] ^ 0xFF, *payload[1:]])
    damaged = {"shorter": payload[:-9], "longer": payload + b"\1", "changed": changed, "empty": b""}
    reader = SliceReader(damaged[damage], tiny_residue(), bins.shape, limits)

    def read() -> Bins:
        found = reader.take(bins != 0, None)
        reader.finish()
        return found

    if damage == "changed":  # it may be the payload of other bins, never of these
        with contextlib.suppress(CodesFileError):
            assert (read() != bins).any()
        return
    with pytest.raises(CodesFileError):
        read()


def test_every_chosen_place_is_coded_once_and_sees_what_came_before(rng: np.random.Generator) -> None:
    lattice = Lattice(TINY_RESIDUE, (37, 45))
    chosen = rng.random((37, 45)) < 0.7
    plane = lattice.zeros()
    margin_known = np.ones_like(plane)
    lattice.inner(margin_known)[...] = ~chosen
    for places in lattice.first(chosen):
        plane[places] += 1
        margin_known[places] = 1
    for part in lattice.parts(chosen):
        on_the_lattice = lattice.known(margin_known, part)
        assert on_the_lattice.all()
        plane[part.places] += 1
        margin_known[part.places] = 1
    np.testing.assert_array_equal(lattice.inner(plane), chosen)


def test_offsets_begin_with_four_neighbours() -> None:
    assert set(known_offsets(0, 2)[:4]) == {(-1, -1), (-1, 1), (1, -1), (1, 1)}
    for kind in (1, 2):
        assert set(known_offsets(kind, 2)[:4]) == {(-1, 0), (0, -1), (0, 1), (1, 0)}


def test_noise_is_in_quarters_of_octaves(rng: np.random.Generator) -> None:
    everywhere = np.ones((40, 40), np.bool_)
    flat = np.full((40, 40), 7)
    assert noise_of(flat, everywhere) == -17
    steps = np.tile([0, 8], (40, 20))
    assert noise_of(steps, everywhere) == 12
    assert noise_of(rng.integers(0, 9, (40, 40)), ~everywhere) == -17


@pytest.mark.parametrize(
    "change",
    [{"reach": (2, 2)}, {"reach": (0, 1, 1)}, {"window": 9}, {"slices_before": 3}, {"hidden": 0}],
)
def test_a_config_out_of_range_is_refused(change: dict[str, object]) -> None:
    fields = {"reach": (2, 2, 1), "window": 1, "slices_before": 1, "hidden": 8, "blocks": 1}
    with pytest.raises(ModelError, match=f"residue config: {next(iter(change))} is"):
        ResidueConfig(**{**fields, "components": 2, **change})  # type: ignore[arg-type]
