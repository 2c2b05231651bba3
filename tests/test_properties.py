"""What holds for any input: every arrow is undone by its inverse, and no person is in two splits.

Hypothesis looks for an input for which it does not hold; always the same ones, and few, so that a run
stays short. A hundred times as many:

    OASISVQ_HYPOTHESIS=thorough pytest tests/test_properties.py
"""

import math
import os
import random
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from conftest import TINY_PRIOR, tiny_prior
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from oasisvq.codec import container
from oasisvq.codec.entropy import GridDecoder, GridEncoder, pack, packed_bytes, unpack
from oasisvq.codec.headers import (
    RANGE_UNITS,
    Coder,
    CodesHeader,
    Kind,
    SampleType,
    VolumeHeader,
    slice_ranges,
)
from oasisvq.codec.labels import decode_labels, encode_labels
from oasisvq.codec.pixels import NOTHING, Window, cells, choose_window, from_pixels, to_pixels
from oasisvq.codec.recall import Recall
from oasisvq.data import members
from oasisvq.data.layouts import SPLITS, Images
from oasisvq.data.members import find_members
from oasisvq.data.recipe import Recipe
from oasisvq.data.sharing import shared_out
from oasisvq.errors import CodesFileError
from oasisvq.scans.geometry import SLICINGS, Geometry, Slicing

settings.register_profile("few", derandomize=True, database=None, deadline=None, max_examples=25)
settings.register_profile("thorough", database=None, deadline=None, max_examples=2500)
settings.load_profile(os.environ.get("OASISVQ_HYPOTHESIS", "few"))

PRIOR = tiny_prior()
INTEGERS = [each for each in SampleType if each.dtype.kind in "iu"]
sides = st.integers(1, 24)


# --- indices and their bits ------------------------------------------------------------------------


@given(st.data(), st.integers(2, 65_535))
def test_unpack_is_the_inverse_of_pack(data: st.DataObject, size: int) -> None:
    indices = np.array(data.draw(st.lists(st.integers(0, size - 1), max_size=50)), np.uint16)
    payload = pack(indices, size)
    assert len(payload) == packed_bytes(len(indices), size)
    np.testing.assert_array_equal(unpack(payload, size, len(indices)), indices)
    with pytest.raises(CodesFileError):
        unpack(payload + b"\0", size, len(indices))


@given(st.binary(max_size=40), st.integers(2, 65_535), st.integers(0, 100))
def test_what_unpacks_is_packed_to_the_same_bytes(payload: bytes, size: int, count: int) -> None:
    payload = payload[: packed_bytes(count, size)]
    try:
        indices = unpack(payload, size, count)
    except CodesFileError:
        return
    assert pack(indices, size) == payload


@st.composite
def grids(draw: st.DrawFn) -> list[NDArray[np.uint16]]:
    """One to three grids of one shape (levels, h, w), the later ones much like the one before."""
    shape = draw(st.integers(1, TINY_PRIOR.levels)), draw(st.integers(1, 7)), draw(st.integers(1, 7))
    drawn = [draw(arrays(np.uint16, shape, elements=st.integers(0, TINY_PRIOR.codebook_size - 1)))]
    for _ in range(draw(st.integers(0, 2))):
        other = drawn[-1].copy()
        other[..., :1, :] = draw(st.integers(0, TINY_PRIOR.codebook_size - 1))
        drawn.append(other)
    return drawn


@given(grids(), st.integers(0, TINY_PRIOR.kinds - 1), st.integers(0, 9))
def test_grids_come_back_from_the_prior(drawn: list[NDArray[np.uint16]], kind: int, seed: int) -> None:
    shape = TINY_PRIOR.levels, TINY_PRIOR.codebook_size, TINY_PRIOR.code_dim
    codebooks = np.random.default_rng(seed).normal(0, 1, shape).astype(np.float32)

    def recall() -> Recall | None:
        return Recall(codebooks) if len(drawn) > 1 else None

    encoder = GridEncoder(PRIOR, drawn[0].shape, recall())
    for grid in drawn:
        encoder.put(kind, lambda step, _: grid[step.level, step.rows, step.columns])  # noqa: B023
    payload = encoder.finish()
    decoder = GridDecoder(payload, PRIOR, drawn[0].shape, recall())
    for grid in drawn:
        np.testing.assert_array_equal(decoder.take(), grid)
    decoder.finish()


# --- labels ----------------------------------------------------------------------------------------


@given(st.data(), st.integers(1, 4), st.integers(1, 8), st.integers(1, 8), st.integers(2, 300))
def test_labels_come_back(data: st.DataObject, depth: int, height: int, width: int, count: int) -> None:
    few = st.sampled_from([0, 1, count - 1]) | st.integers(0, count - 1)
    ranks = data.draw(arrays(np.uint16, (depth, height, width), elements=few, fill=st.just(0)))
    payload = encode_labels(ranks, count)
    np.testing.assert_array_equal(decode_labels(payload, ranks.shape, count), ranks)


@given(st.binary(max_size=30), st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9)))
def test_labels_that_decode_are_encoded_to_the_same_bytes(
    payload: bytes, shape: tuple[int, int, int]
) -> None:
    try:
        ranks = decode_labels(payload, shape, 5)
    except CodesFileError:
        return
    assert ranks.max() < 5
    assert encode_labels(ranks, 5) == payload


# --- files -----------------------------------------------------------------------------------------


@st.composite
def windows(draw: st.DrawFn, shape: tuple[int, int], stride: int) -> Window:
    """Any window in the grid of an image, or none."""
    grid = [cells(side, stride) for side in shape]
    top, left = (draw(st.integers(0, side - 1)) for side in grid)
    height, width = draw(st.integers(1, grid[0] - top)), draw(st.integers(1, grid[1] - left))
    return draw(st.sampled_from([NOTHING, Window(top, left, height, width)]))


@st.composite
def label_lists(draw: st.DrawFn, sample_type: SampleType) -> tuple[int, ...]:
    bounds = np.iinfo(sample_type.dtype) if sample_type in INTEGERS else np.iinfo(np.int16)
    low, high = max(int(bounds.min), -(2**31)), min(int(bounds.max), 2**31 - 1)
    return tuple(sorted(draw(st.sets(st.integers(low, high), min_size=1, max_size=9))))


@st.composite
def volumes(draw: st.DrawFn, shape: tuple[int, int], sample_type: SampleType) -> VolumeHeader:
    slices, slicing = draw(st.integers(1, 6)), Slicing.of_number(draw(st.integers(0, SLICINGS - 1)))
    ends = st.integers(0, RANGE_UNITS)
    ranges = [sorted((draw(ends), draw(ends))) for _ in range(slices)]
    zooms = [draw(st.sampled_from([0.5, 1.0, 1.25, 3.0])) for _ in range(3)]
    voxels = slicing.voxels(np.zeros((slices, *shape), sample_type.dtype))
    geometry = Geometry.of_array(voxels, np.diag([*zooms, 1]))
    pairs = tuple((low, high) for low, high in ranges)
    return VolumeHeader(slices, slicing, geometry.form, geometry.content, pairs)


@st.composite
def headers(draw: st.DrawFn) -> CodesHeader:
    """A header of any kind, as `encode` may write it."""
    kind, coder = draw(st.sampled_from(Kind)), draw(st.sampled_from(Coder))
    allowed = [SampleType.UINT8, SampleType.UINT16] if kind is Kind.IMAGE else list(SampleType)
    sample_type = draw(st.sampled_from(allowed))
    shape = draw(sides), draw(sides)
    volume = draw(volumes(shape, sample_type)) if kind is Kind.VOLUME else None
    labels = draw(label_lists(sample_type))
    if coder is Coder.LABELS:
        volume = replace(volume, ranges=()) if volume else None
        nothing = CodesHeader(coder, kind, sample_type, shape, 0, NOTHING, 0, 0, (0, 0), b"")
        return replace(nothing, volume=volume, labels=labels)
    stride = draw(st.integers(1, 64))
    labels = labels if draw(st.booleans()) else ()
    levels = sorted((draw(st.integers(0, 100)), draw(st.integers(0, 100))))
    intensity = (0, len(labels) - 1) if labels else (levels[0], levels[1])
    return CodesHeader(
        coder=coder,
        kind=kind,
        sample_type=sample_type,
        shape=shape,
        stride=stride,
        window=draw(windows(shape, stride)),
        levels=draw(st.integers(1, 8)),
        codebook_size=draw(st.integers(2, 65_535)),
        intensity=intensity,
        fingerprint=draw(st.binary(min_size=8, max_size=8)),
        volume=volume,
        labels=labels,
    )


@given(headers(), st.binary(max_size=20), st.integers(0, 2**31))
def test_read_is_the_inverse_of_write(header: CodesHeader, payload: bytes, place: int) -> None:
    if header.coder is Coder.PACKED:
        payload = bytes(packed_bytes(header.index_count, header.codebook_size))
    elif header.coder is Coder.PRIOR:
        payload = payload.ljust(header.index_count // 2 * 2, b"\1")  # no fewer than so many indices take
    content = container.write(header, payload)
    file = container.read(content, "x.codes")
    assert file.header == header
    assert file.payload == payload
    assert file.file_bytes == len(content)
    changed = bytearray(content)
    changed[place // 8 % len(content)] ^= 1 << place % 8
    with pytest.raises(CodesFileError, match=r"^x\.codes: "):
        container.read(bytes(changed), "x.codes")


# --- pixels ----------------------------------------------------------------------------------------


@given(st.data(), st.sampled_from([np.uint8, np.uint16, np.int16]), sides, sides, st.integers(1, 16))
def test_pixels_come_back_whatever_the_window(
    data: st.DataObject, dtype: type[np.generic], height: int, width: int, stride: int
) -> None:
    """Cut and padded, then laid back on its ground: what lies outside the window is ground."""
    plane = data.draw(arrays(dtype, (height, width), fill=st.just(dtype(3))))
    preferred = data.draw(sides) * stride, data.draw(sides) * stride
    window = choose_window(plane, preferred, stride)
    intensity = float(plane.min()), float(plane.max())
    pixels = to_pixels(plane, intensity, window, stride)
    assert pixels.shape == (window.height * stride, window.width * stride)
    assert not pixels.size or (pixels.min() >= 0 and pixels.max() <= 1)
    restored = from_pixels(pixels, intensity, window, stride, (height, width), plane.dtype)
    np.testing.assert_array_equal(restored, plane)
    assert restored.dtype == dtype


def largest_float(dtype: np.dtype[np.generic]) -> float:
    """The largest float64 that a type holds."""
    _, largest = container._limits(dtype)
    return float(largest) if float(largest) <= largest else float(np.nextafter(float(largest), 0))


@given(
    st.data(),
    st.sampled_from(list(SampleType)),
    arrays(np.float32, (4, 4), elements=st.floats(-2, 3, width=32)),
)
def test_pixels_of_any_value_stay_between_darkest_and_brightest(
    data: st.DataObject, sample_type: SampleType, pixels: NDArray[np.float32]
) -> None:
    dtype = sample_type.dtype
    smallest, largest = container._limits(dtype)
    if dtype.kind == "f":
        within = st.floats(smallest, largest, width=8 * dtype.itemsize)
    else:
        within = st.integers(int(smallest), int(largest)).map(float)
    ends = within | st.sampled_from([float(smallest), largest_float(dtype)])
    low, high = sorted((data.draw(ends), data.draw(ends)))
    assume(smallest <= low <= high <= largest and math.isfinite(high - low))  # as `container` does
    restored = from_pixels(pixels, (low, high), Window(0, 0, 1, 1), 4, (5, 6), dtype)
    assert restored.dtype == dtype
    assert restored.shape == (5, 6)
    assert all(low <= value <= high for value in restored.tolist()[0])
    assert restored[4].tolist() == [low] * 6  # the ground


@given(arrays(np.int16, st.tuples(st.integers(1, 4), st.integers(1, 5), st.integers(1, 5))))
def test_the_range_of_each_slice_holds_its_values(planes: NDArray[np.int16]) -> None:
    low, high = float(planes.min()), float(planes.max())
    assume(low < high)
    step = (high - low) / RANGE_UNITS
    for plane, (darkest, brightest) in zip(planes, slice_ranges(planes, (low, high)), strict=True):
        assert 0 <= darkest <= brightest <= RANGE_UNITS
        assert low + darkest * step <= float(plane.min()) + step / 2
        assert low + brightest * step >= float(plane.max()) - step / 2
        assert (darkest == brightest) == (plane.min() == plane.max())


# --- splits ----------------------------------------------------------------------------------------

shares = st.tuples(*[st.floats(0, 1e6) for _ in SPLITS]).filter(lambda drawn: sum(drawn) > 0)


@example({"", "0", "00"}, (0.0, 6.0, 5e-324), 0, random.Random(0))  # too small to divide
@given(st.sets(st.text(max_size=9), max_size=30), shares, st.integers(0, 2**63), st.randoms())
def test_every_subject_is_in_one_split_whatever_the_order(
    subjects: set[str], drawn: tuple[float, float, float], seed: int, shuffler: random.Random
) -> None:
    split_of = shared_out(subjects, drawn, seed)
    assert split_of.keys() == subjects
    assert set(split_of.values()) <= set(SPLITS)
    others = sorted(subjects)
    shuffler.shuffle(others)
    assert shared_out(dict.fromkeys(others).keys(), drawn, seed) == split_of
    given_any = {split for split, share in zip(SPLITS, drawn, strict=True) if share > 0}
    assert set(split_of.values()) == given_any or len(subjects) < len(SPLITS)


def sessions(subjects: dict[int, int]) -> list[str]:
    """Paths of OASIS-1: subject -> number of sessions."""
    image = "{0}/PROCESSED/MPRAGE/T88_111/{0}_mpr_n4_anon_111_t88_gfc.img"
    names = [f"OAS1_{s:04d}_MR{1 + n}" for s, count in subjects.items() for n in range(count)]
    return [image.format(name) for name in names]


@given(
    st.dictionaries(st.integers(1, 9999), st.integers(1, 4), min_size=1, max_size=20),
    shares,
    st.integers(0, 99),
    st.randoms(),
)
def test_all_sessions_of_a_person_are_in_one_split_whatever_the_order_of_files(
    subjects: dict[int, int], drawn: tuple[float, float, float], seed: int, shuffler: random.Random
) -> None:
    paths, recipe = sessions(subjects), Recipe(split=drawn, seed=seed)
    found = []
    for _ in range(2):
        with patch.object(members, "list_paths", return_value=list(paths)):
            found.append(find_members(Path(__file__).parent, Images.SCANS, recipe).members)
        shuffler.shuffle(paths)
    assert found[0] == found[1]
    assert len(found[0]) == len(paths)
    splits = {source.subject: set[str]() for source in found[0]}
    for source in found[0]:
        splits[source.subject].add(source.split)
    assert len(splits) == len(subjects)
    assert all(len(each) == 1 for each in splits.values())
