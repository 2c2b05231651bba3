"""The smallest file that satisfies what is demanded of it."""

import math
from pathlib import Path

import numpy as np
import pytest
from conftest import draw_labels, draw_phantom, draw_volume

import oasisvq
from oasisvq.codec import container
from oasisvq.codec.attempts import Ways, first_of, smallest
from oasisvq.codec.codec import Codec
from oasisvq.codec.content import Content, labels_in
from oasisvq.codec.demand import LEAST_FILE_BYTES, Demands, wrong_with
from oasisvq.codec.encoded import Encoded
from oasisvq.codec.measure import Measure
from oasisvq.codec.wish import Wish
from oasisvq.errors import ImageError
from oasisvq.scans.scan import Scan, as_scan


@pytest.fixture
def codec(residue_model_file: Path) -> Codec:
    return oasisvq.load(residue_model_file)


@pytest.fixture
def plane(rng: np.random.Generator) -> np.ndarray:
    return draw_phantom(rng)


def measured(**values: float) -> Measure:
    known = {"ssim": 1.0, "foreground_ssim": 1.0, "psnr": 100.0}
    return Measure(**(known | values), largest_error=1, data_range=255, worst_ssim=1, worst_slice=0)


def pretended(qualities: list[float], sizes: list[int]) -> tuple[Ways, list[int]]:
    """Ways to encode that keep and take what is given by level; and what was tried."""
    tried: list[int] = []

    def code(levels: int, bound: float | None) -> Encoded:
        tried.append(levels)
        scan = Scan(np.zeros((1, 20, 20), np.uint8))
        header = container.read(LEVELS[levels], "x").header
        found = measured(ssim=qualities[levels - 1])
        return Encoded(bytes(sizes[levels - 1]), header, scan, lambda: scan, found)

    return Ways(code, len(qualities), 2, False, None), tried


LEVELS: dict[int, bytes] = {}


@pytest.fixture(autouse=True)
def headers(model_file: Path) -> None:
    plane = draw_phantom(np.random.default_rng(0))
    LEVELS.update({k: oasisvq.load(model_file).encode(plane, min(k, 3)) for k in range(1, 9)})


SCAN = Scan(draw_phantom(np.random.default_rng(0))[None])
QUALITIES = [0.90, 0.95, 0.96, 0.97, 0.975, 0.98, 0.985, 0.99]
SIZES = [100, 200, 300, 400, 500, 600, 700, 800]


@pytest.mark.parametrize("wanted", [0.5, 0.95, 0.951, 0.97, 0.99])
def test_the_fewest_levels_that_keep_a_quality_are_found_in_a_few_attempts(wanted: float) -> None:
    ways, tried = pretended(QUALITIES, SIZES)
    found = smallest(SCAN, Demands(ssim=wanted), ways)
    expected = 1 + next(place for place, each in enumerate(QUALITIES) if each >= wanted)
    assert len(found.content) == 100 * expected
    assert found.measured == measured(ssim=QUALITIES[expected - 1])
    assert len(tried) <= 4 and len(set(tried)) == len(tried)


@pytest.mark.parametrize(("most", "expected"), [(100, 100), (399, 300), (400, 400), (9_999, 800)])
def test_the_best_file_within_a_size_is_found(most: int, expected: int) -> None:
    ways, tried = pretended(QUALITIES, SIZES)
    assert len(smallest(SCAN, Demands(max_bytes=most), ways).content) == expected
    assert len(tried) <= 4


def test_what_cannot_be_names_the_nearest_that_can() -> None:
    ways, _ = pretended(QUALITIES, SIZES)
    with pytest.raises(ImageError, match=r"SSIM 0.995 cannot be kept.*SSIM 0.9900.*800 bytes.*all 8"):
        smallest(SCAN, Demands(ssim=0.995), ways)
    with pytest.raises(
        ImageError, match=r"SSIM 0.97 takes 400 bytes.*--max-bytes 250.*0.9500.*200 bytes"
    ):
        smallest(SCAN, Demands(ssim=0.97, max_bytes=250), ways)
    with pytest.raises(ImageError, match="its smallest file takes 100 bytes"):
        smallest(SCAN, Demands(max_bytes=50), ways)


def test_the_first_that_suffices() -> None:
    for count in range(6):
        for first in range(count + 1):
            choices = list(range(count))
            for likely in (None, *choices):
                found = first_of(choices, lambda each, first=first: each >= first, likely)
                assert found == (first if first < count else None)


def test_a_likely_number_of_levels_saves_attempts() -> None:
    for likely, attempts in ((3, 2), (4, 2), (5, 3)):  # 4 suffice
        ways, tried = pretended(QUALITIES, SIZES)
        found = smallest(SCAN, Demands(ssim=0.97), ways._replace(likely=likely))
        assert (len(found.content), len(tried)) == (400, attempts)


def test_what_is_typical_says_how_many_levels_are_likely(codec: Codec) -> None:
    assert codec.likely_levels(Demands(ssim=0.9)) is None
    rows = [
        {"bytes": 1.0, "ssim": [low, low + 0.02], "foreground_ssim": [low - 0.1, low]}
        for low in (0.92, 0.95, 0.96)
    ]
    codec.card = {"typical": {"slices": 1, "levels": rows}}
    assert codec.likely_levels(Demands(ssim=0.93)) == 1
    assert codec.likely_levels(Demands(ssim=0.94)) == 2
    assert codec.likely_levels(Demands(ssim=0.9, foreground_ssim=0.905)) == 3
    assert codec.likely_levels(Demands(ssim=0.99)) is codec.likely_levels(Demands(psnr=30)) is None


def test_demands_together_are_met_one_by_one() -> None:
    demands = Demands(ssim=0.9, foreground_ssim=0.8, psnr=30)
    assert demands.are_met(measured(ssim=0.9, foreground_ssim=0.8, psnr=30))
    for short in ({"ssim": 0.89}, {"foreground_ssim": 0.79}, {"psnr": 29.9}):
        assert not demands.are_met(measured(**short))
    assert demands.are_met(measured(foreground_ssim=math.nan))  # nothing there to lose
    assert not demands.are_met(measured(ssim=math.nan))
    assert demands.words == "SSIM 0.9 and foreground SSIM 0.8 and PSNR 30 dB"


@pytest.mark.parametrize(
    ("demands", "levels", "lossy", "says"),
    [
        (Demands(ssim=0), None, False, "--min-ssim 0: expected"),
        (Demands(ssim=1.01), None, False, "--min-ssim 1.01"),
        (Demands(ssim=math.nan), None, False, "--min-ssim nan"),
        (Demands(foreground_ssim=-1), None, False, "--min-foreground-ssim -1"),
        (Demands(psnr=101), None, False, "--min-psnr 101: expected more than 0 and at most 100 dB"),
        (Demands(max_bytes=LEAST_FILE_BYTES - 1), None, False, "--max-bytes 17: no file is so small"),
        (Demands(ssim=0.9), 2, False, "leave one out"),
        (Demands(max_bytes=900), None, True, "--lossy"),
        (Demands(ssim=0.9, max_bytes=900), None, False, ""),
        (Demands(), 2, True, ""),
    ],
)
def test_what_cannot_be_demanded_is_said(
    demands: Demands, levels: int | None, lossy: bool, says: str
) -> None:
    assert says in wrong_with(demands, levels, lossy)
    assert bool(says) == bool(wrong_with(demands, levels, lossy))


def test_no_file_of_ours_is_smaller_than_the_least_that_may_be_demanded(codec: Codec) -> None:
    assert len(codec.encode(np.zeros((1, 1), np.uint8))) >= LEAST_FILE_BYTES
    assert len(codec.encode(np.zeros((1, 1), np.uint8), content=Content.LABELS)) >= LEAST_FILE_BYTES


@pytest.mark.parametrize(
    "demand", [{"min_ssim": 0.97}, {"min_foreground_ssim": 0.95}, {"min_psnr": 44}, {"min_ssim": 1.0}]
)
def test_where_levels_do_not_suffice_the_widest_bound_that_does_is_taken(
    codec: Codec, plane: np.ndarray, demand: dict[str, float]
) -> None:
    content = codec.encode(plane, **demand)
    demands = Demands(*(demand.get(f"min_{name}") for name in ("ssim", "foreground_ssim", "psnr")))
    assert demands.are_met(codec.measure(plane, content))
    residue = container.read(content, "x").header.residue
    assert residue is not None
    bound = residue.binning.bound
    wider = codec.encode(plane, max_error=bound + 1)
    assert not demands.are_met(codec.measure(plane, wider))
    assert codec.encode(plane, max_error=bound) == content


def test_a_volume_of_floats_meets_what_is_demanded_of_all_of_it(
    codec: Codec, rng: np.random.Generator
) -> None:
    voxels = draw_volume(rng).astype(np.float32) / 7 + rng.normal(0, 1e-4, (40, 48, 6)).astype("f4")
    spacing = (1.0, 1.0, 2.0)
    content = codec.encode(voxels, spacing=spacing, min_ssim=0.9, min_psnr=35)
    found = codec.measure(voxels, content, spacing=spacing)
    assert found.ssim >= 0.9 and found.psnr >= 35
    assert len(content) < len(codec.encode(voxels, spacing=spacing, max_error=found.largest_error / 4))
    with pytest.raises(ImageError, match="cannot be kept; the nearest is"):
        codec.encode(voxels, spacing=spacing, min_ssim=1.0)


def test_a_largest_error_and_a_quality_both_hold(codec: Codec, plane: np.ndarray) -> None:
    loose = codec.measure(plane, codec.encode(plane, max_error=20))
    both = codec.measure(plane, codec.encode(plane, max_error=20, min_ssim=0.99))
    assert loose.ssim < 0.99 <= both.ssim and both.largest_error <= 20
    easy = codec.encode(plane, max_error=2, min_ssim=0.5)
    assert easy == codec.encode(plane, max_error=2)


def test_many_bytes_are_used_for_a_residue(codec: Codec, plane: np.ndarray) -> None:
    sizes = {bound: len(codec.encode(plane, max_error=bound)) for bound in (0, 1, 4)}
    assert codec.encode(plane, max_bytes=sizes[0]) == codec.encode(plane, max_error=0)
    found = codec.encode(plane, max_bytes=sizes[1])
    assert len(found) <= sizes[1] and codec.measure(plane, found).largest_error <= 1
    with pytest.raises(ImageError, match=f"takes {sizes[0]:,} bytes"):
        codec.encode(plane, max_error=0, max_bytes=sizes[0] - 1)


def test_labels_kept_exactly_meet_any_quality_but_not_any_size(codec: Codec, plane: np.ndarray) -> None:
    labels = (np.digitize(plane, [1, 90]) * 100).astype(np.uint8)
    exact = codec.encode(labels, min_ssim=1.0)
    assert exact == codec.encode(labels)
    with pytest.raises(ImageError, match=f"labels, kept exactly, take {len(exact):,} bytes"):
        codec.encode(labels, max_bytes=len(exact) - 1)


def test_slices_too_small_for_ssim_are_named(codec: Codec, rng: np.random.Generator) -> None:
    plane = rng.integers(0, 255, (10, 30)).astype(np.uint8)
    with pytest.raises(ImageError, match="slices of 10×30 pixels, too small for SSIM"):
        codec.encode(plane, min_ssim=0.9, content=Content.SCAN)
    content = codec.encode(plane, min_psnr=40, content=Content.SCAN)
    assert codec.measure(plane, content).psnr >= 40


def test_many_scans_meet_what_is_demanded_of_each(codec: Codec, rng: np.random.Generator) -> None:
    planes = [draw_phantom(rng) for _ in range(2)]
    contents = codec.encode_many(planes, min_psnr=40)
    assert contents == [codec.encode(plane, min_psnr=40) for plane in planes]
    with pytest.raises(ImageError, match="leave one out"):
        codec.encode_many(planes, 2, min_psnr=40)


def test_what_a_residue_keeps_is_known_before_it_is_coded(
    codec: Codec, plane: np.ndarray, rng: np.random.Generator
) -> None:
    from oasisvq.codec.particular import held_to

    volume = as_scan(draw_volume(rng).astype(np.float32) * np.float32(0.3), (1, 1, 1))
    for scan, bound in ((Scan(plane[None]), 7), (volume, 3.5)):
        held = np.stack(list(held_to(scan.planes, bound)))
        content = codec.encode_scan(scan, WISH._replace(bound=float(bound)))
        restored = codec.decode_codes(codec.codes_of(container.read(content, "x")), "x").planes
        np.testing.assert_array_equal(held, restored)


WISH = Wish(content=Content.SCAN)


# scans with outliers and padding


def noisy(rng: np.random.Generator, mean: float, deviation: float) -> np.ndarray:
    return rng.normal(mean, deviation, (24, 26, 6)).astype(np.float32)


def test_a_hot_voxel_does_not_set_the_bounds_that_are_tried(
    codec: Codec, rng: np.random.Generator
) -> None:
    voxels = noisy(rng, 1, 0.1)
    voxels[12, 13, 3] = 1000
    content = codec.encode(voxels, min_psnr=45)
    assert codec.measure(voxels, content).psnr >= 45
    assert codec.decode(content)[12, 13, 3] == 1000


def test_padding_does_not_stretch_what_a_demand_is_measured_on(
    codec: Codec, rng: np.random.Generator
) -> None:
    voxels = noisy(rng, 0.5, 0.1)
    voxels[:8] = -9999
    content = codec.encode(voxels, min_ssim=0.99)
    restored = codec.decode(content)
    np.testing.assert_array_equal(restored[:8], voxels[:8])
    assert np.corrcoef(restored[8:].ravel(), voxels[8:].ravel())[0, 1] > 0.95
    assert codec.measure(voxels, content).data_range < 1.2


def test_padding_does_not_widen_the_narrowest_bound(codec: Codec, rng: np.random.Generator) -> None:
    voxels = noisy(rng, 0.5, 0.1)
    voxels[:8] = -9999
    restored = codec.decode(codec.encode(voxels, max_error=0.001))
    assert np.abs(restored.astype(np.float64) - voxels).max() <= 0.001
    whole = (voxels * 1000).clip(-32768).astype(np.int16)
    for bound in (0, 2):
        restored = codec.decode(codec.encode(whole, max_error=bound))
        assert np.abs(restored.astype(int) - whole).max() <= bound
        assert (restored[:8] == whole[:8]).all()


def test_a_foreground_ssim_is_refused_where_none_can_be_measured(
    codec: Codec, rng: np.random.Generator
) -> None:
    small = rng.integers(0, 256, (10, 60), dtype=np.uint8)
    with pytest.raises(ImageError, match="leave out --min-foreground-ssim or name --min-psnr"):
        codec.encode(small, min_foreground_ssim=0.999)


def test_labels_are_kept_where_the_model_cannot_do_what_is_wished(
    codec: Codec, rng: np.random.Generator
) -> None:
    values = np.sort(rng.random(41)) * 7.3
    voxels = values[draw_labels(rng, (40, 44, 12), 41, seeds=20)]  # no whole multiples of one step
    labels = labels_in(as_scan(voxels).planes)
    assert labels is not None and not labels.is_plain
    restored = codec.decode(codec.encode(voxels, max_error=0))
    np.testing.assert_array_equal(restored, voxels)


@pytest.mark.parametrize("scale", [1e200, 1e-160, 1e-170])
def test_quality_is_a_number_for_values_of_any_size(
    codec: Codec, rng: np.random.Generator, scale: float
) -> None:
    voxels = noisy(rng, 1, 0.1).astype(np.float64)
    ordinary, extreme = (
        codec.measure(each, codec.encode(each, content=Content.SCAN))
        for each in (voxels, voxels * scale)
    )
    assert extreme.ssim == pytest.approx(ordinary.ssim, abs=0.01)
    assert extreme.psnr == pytest.approx(ordinary.psnr, abs=0.1)


@pytest.mark.parametrize("bound", [math.nan, math.inf, -1])
def test_a_bound_that_is_none_is_refused(codec: Codec, plane: np.ndarray, bound: float) -> None:
    with pytest.raises(ImageError, match="expected a finite number from 0"):
        codec.encode(plane, max_error=bound)


def test_a_constant_image_may_have_any_bound(codec: Codec) -> None:
    plane = np.full((30, 30), 7, np.uint8)
    np.testing.assert_array_equal(codec.decode(codec.encode(plane, max_error=1e30)), plane)
