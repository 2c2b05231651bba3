"""A volume, or a stack of images -> slices: orientation, millimetres, grey levels, labels."""

import dataclasses
import gzip
from itertools import permutations, product
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from trees import HIGH_MARK, MARK, at_zooms, draw_head, write_analyze, write_nifti

from oasisvq.data.layouts import Images
from oasisvq.data.recipe import Recipe, Slices, parse_slices
from oasisvq.data.slices import (
    cut_stack,
    cut_volume,
    foreground_level,
    linear,
    nearest,
    read_sliced,
    slice_numbers,
)
from oasisvq.errors import FileError, ImageError
from oasisvq.scans.geometry import PLANES
from oasisvq.scans.scan import read_scan
from oasisvq.scans.source import source_at

EVERY = Recipe(slices=Slices(0, (0, 999)))
ORIENTATIONS = [
    "".join(pick)
    for order in permutations(("RL", "AP", "SI"))
    for pick in product(*order)  # one of each two
]


def field(planes: NDArray[np.uint8], sides: tuple[int, int]) -> NDArray[np.uint8]:
    """The middle of square slices, without what they were padded with."""
    top, left = ((planes.shape[1 + axis] - sides[axis]) // 2 for axis in range(2))
    return planes[:, top : top + sides[0], left : left + sides[1]]


def expected(head: NDArray[np.int16], low: float, high: float) -> NDArray[np.uint8]:
    """Slices from below of (R, A, S) voxels, with a window of intensities."""
    scaled = 255 * (head.astype(float).clip(low, high) - low) / (high - low)
    return np.rint(scaled).astype(np.uint8).transpose(2, 0, 1)


@pytest.mark.parametrize("codes", ORIENTATIONS)
def test_slices_lie_the_same_way_however_the_volume_is_stored(tmp_path: Path, codes: str) -> None:
    cut = cut_volume(write_nifti(tmp_path / "a.nii", draw_head(), codes), Images.SCANS, 256, EVERY)
    assert cut.axis_codes == codes
    assert cut.numbers == list(range(28))
    assert cut.shapes == [(24, 30)] * 28
    assert cut.intensity is not None
    np.testing.assert_array_equal(field(cut.planes, (24, 30)), expected(draw_head(), *cut.intensity))


@pytest.mark.parametrize("codes", ["RAS", "LAS", "PSR", "ILA"])
@pytest.mark.parametrize("axis", PLANES)
def test_slices_along_an_axis_are_those_that_encode_cuts(tmp_path: Path, codes: str, axis: str) -> None:
    path = write_nifti(tmp_path / "a.nii", draw_head(), codes)
    cut = cut_volume(path, Images.SCANS, 256, dataclasses.replace(EVERY, axis=axis))
    planes = read_scan(source_at(path), axis).planes
    assert cut.numbers == list(range(len(planes)))
    assert cut.shapes == [planes.shape[1:]] * len(planes)
    assert cut.intensity is not None
    wanted = expected(planes.transpose(1, 2, 0), *cut.intensity)
    np.testing.assert_array_equal(field(cut.planes, planes.shape[1:]), wanted)


def test_voxels_of_any_size_are_a_millimetre_along_each_axis(tmp_path: Path) -> None:
    zooms = (2.0, 1.0, 1.25)
    path = write_nifti(tmp_path / "a.nii", at_zooms(draw_head(), zooms), "RAS", zooms)
    for axis, count, shape in (("sagittal", 24, (30, 28)), ("coronal", 30, (24, 28))):
        cut = cut_volume(path, Images.SCANS, 64, dataclasses.replace(EVERY, axis=axis))
        assert cut.numbers == list(range(count))
        assert cut.shapes == [shape] * count


def test_the_whole_length_of_a_brain_is_taken_but_not_its_neck(tmp_path: Path) -> None:
    """A head of 200 mm from back to front, and of 200 mm with its neck."""
    head = np.random.default_rng(0).integers(0, 9, (40, 200, 200)).astype(np.int16)
    head[4:36, 10:190, 5:195] = np.random.default_rng(1).integers(500, 900, (32, 180, 190))
    path = write_nifti(tmp_path / "a.nii", head)
    for axis, first, last in (("axial", 70, 194), ("coronal", 10, 189), ("sagittal", 4, 35)):
        numbers = cut_volume(path, Images.SCANS, 64, Recipe(slices=Slices(0), axis=axis)).numbers
        assert (numbers[0], numbers[-1]) == (first, last)


@pytest.mark.parametrize("codes", ["ASL", "LAS"])
@pytest.mark.parametrize("trailing", [0, 1, 2])
def test_the_orientation_of_an_analyze_pair_is_that_of_its_layout(
    tmp_path: Path, codes: str, trailing: int
) -> None:
    path = write_analyze(tmp_path / "a.hdr", draw_head(), codes, trailing=trailing)
    for half in (path, path.with_suffix(".img")):
        cut = cut_volume(half, Images.SCANS, 256, EVERY, axis_codes=codes)
        assert cut.intensity is not None
        np.testing.assert_array_equal(field(cut.planes, (24, 30)), expected(draw_head(), *cut.intensity))
        assert not cut.is_guessed


def test_the_mark_lies_at_the_right_and_front(tmp_path: Path) -> None:
    """Rows run from left to right, columns from back to front, slices from below."""
    cut = cut_volume(write_nifti(tmp_path / "a.nii", draw_head()), Images.SCANS, 256, EVERY)
    planes = field(cut.planes, (24, 30))
    assert (planes[8][MARK] == 255).all()
    assert planes[8][HIGH_MARK[:2]].max() < 250
    assert (planes[20][HIGH_MARK[:2]] == 255).all()


def test_a_nifti_volume_of_a_corrected_layout_is_believed(tmp_path: Path) -> None:
    cut = cut_volume(
        write_nifti(tmp_path / "a.nii.gz", draw_head(), "RAS"),
        Images.SCANS,
        256,
        EVERY,
        axis_codes="ASL",
    )
    assert cut.axis_codes == "RAS"


@pytest.mark.parametrize("zoom", [3, 1e308])
def test_the_affine_says_how_large_voxels_are(tmp_path: Path, zoom: float) -> None:
    """As it says how they lie: a program may have changed it without the zooms."""
    head = at_zooms(draw_head(), (1, 2, 1))
    content = bytearray(nib.Nifti2Image(head, np.diag([1, 2, 1, 1])).to_bytes())
    content[112:136] = np.full(3, zoom).tobytes()  # pixdim
    (tmp_path / "a.nii").write_bytes(content)
    sliced = read_sliced(tmp_path / "a.nii")
    assert (sliced.voxel_size, sliced.spacing) == ((1, 2, 1), (1, 1, 2))


@pytest.mark.parametrize("kind", ["nifti", "analyze"])
def test_a_header_that_leaves_the_sides_open_is_said(tmp_path: Path, kind: str) -> None:
    if kind == "nifti":
        path = write_nifti(tmp_path / "a.nii", draw_head(), "LAS", code=0)
    else:
        path = write_analyze(tmp_path / "a.hdr", draw_head(), "LAS")
    cut = cut_volume(path, Images.SCANS, 256, EVERY)
    assert cut.is_guessed
    assert cut.axis_codes == "LAS"  # the convention of nibabel and SPM
    assert not cut_volume(
        write_nifti(tmp_path / "b.nii", draw_head()), Images.SCANS, 256, EVERY
    ).is_guessed


# millimetres
@pytest.mark.parametrize("zooms", [(1.25, 1, 1), (1, 1, 1.25), (2, 2, 2), (1, 0.5, 1)])
def test_other_voxels_are_brought_to_a_millimetre(
    tmp_path: Path, zooms: tuple[float, float, float]
) -> None:
    head = draw_head()
    path = write_nifti(tmp_path / "a.nii", at_zooms(head, zooms), "PSR", zooms)
    cut = cut_volume(path, Images.SCANS, 256, EVERY)
    assert cut.shapes[0] == (round(round(24 / zooms[0]) * zooms[0]), 30)
    assert len(cut.numbers) == 28
    assert cut.voxel_size == pytest.approx((zooms[1], zooms[2], zooms[0]))
    assert cut.intensity is not None
    wanted = expected(head, *cut.intensity).astype(float)
    found = field(cut.planes, (24, 30)).astype(float)
    assert np.abs(found - wanted).mean() < 12
    assert found[8][MARK].mean() > found[8][::-1][MARK].mean() + 60


def test_linear_is_exact_on_a_plane_of_slope_and_keeps_what_is_a_millimetre() -> None:
    ramp = np.add.outer(np.add.outer(np.arange(8.0), 2 * np.arange(10)), 3 * np.arange(6))
    at = (np.arange(8), np.arange(10), np.arange(6))
    np.testing.assert_allclose(linear(ramp, (1, 1, 1), at, (0, 100)), ramp / 100, atol=1e-6)
    finer = linear(ramp, (2, 2, 2), tuple(np.arange(2, 2 * n - 2) for n in ramp.shape), (0, 100))
    steps = [np.arange(2, 2 * n - 2) / 2 - 0.25 for n in ramp.shape]
    wanted = np.add.outer(np.add.outer(steps[0], 2 * steps[1]), 3 * steps[2])
    np.testing.assert_allclose(finer, wanted / 100, atol=1e-6)


def test_small_voxels_are_averaged_not_skipped() -> None:
    stripes = np.tile(np.array([0.0, 100.0]), 30)[:, None, None] * np.ones((60, 4, 4))
    at = (np.arange(20), np.arange(4), np.arange(4))
    inner = linear(stripes, (1 / 3, 1, 1), at, (0, 100))[2:-2]
    assert np.abs(inner - 0.5).max() < 0.1


def test_labels_are_never_mixed() -> None:
    labels = np.random.default_rng(0).choice([0, 10, 200], (9, 9, 9))
    taken = nearest(labels, (1.7, 0.6, 1), (np.arange(15), np.arange(5), np.arange(9)))
    assert taken.shape == (15, 5, 9)
    assert set(np.unique(taken)) == {0, 10, 200}
    same = nearest(labels, (1, 1, 1), (np.arange(9),) * 3)
    np.testing.assert_array_equal(same, labels)


@pytest.mark.parametrize("size", [80, 128, 256, 300])
def test_a_pixel_is_as_large_in_every_volume(tmp_path: Path, size: int) -> None:
    """Whatever a volume's own field: 256 mm at --size 256 and below, more around it above."""
    heights = []
    for name, head in (("a", draw_head()), ("b", np.pad(draw_head(), ((8, 9), (3, 0), (0, 0))))):
        cut = cut_volume(write_nifti(tmp_path / f"{name}.nii", head), Images.SCANS, size, EVERY)
        assert cut.planes.shape == (28, size, size)
        bright = cut.planes[14].max(axis=1) > 10
        heights.append(int(bright.sum()))
    assert abs(heights[0] - heights[1]) <= 1
    assert heights[0] == pytest.approx(19 * min(size, 256) / 256, abs=1.5)


# which slices
def brain_of(areas: list[int]) -> NDArray[np.bool_]:
    return np.arange(100) < np.array(areas)[:, None, None]


@pytest.mark.parametrize(
    ("slices", "numbers"),
    [
        ("2:5", [2, 3, 4]),
        ("6:99", [6, 7, 8, 9]),
        ("all", [3, 4, 5, 6]),
        ("4", [3, 4, 5, 6]),
        ("32", [3, 4, 5, 6]),
        ("2", [4, 6]),
        ("1", [5]),
    ],
)
def test_slices_are_counted_over_the_part_with_brain(slices: str, numbers: list[int]) -> None:
    brain = brain_of([0, 1, 9, 40, 90, 100, 60, 20, 3, 0])
    assert slice_numbers(brain, 1, parse_slices(slices), Path("a")) == numbers
    twice = slice_numbers(brain, 2, parse_slices("all"), Path("a"))
    if slices == "all":
        assert twice == list(range(6, 14))


def test_the_neck_is_left_out() -> None:
    head = brain_of([50] * 200 + [20, 5, 0])
    numbers = slice_numbers(head, 1, Slices(), Path("a"))
    assert len(numbers) == 32
    assert (numbers[0], numbers[-1]) == (77, 199)
    assert set(np.diff(numbers)) == {3, 4}


def test_a_range_beyond_the_volume_is_refused() -> None:
    with pytest.raises(ImageError, match=r"head.nii: 10 mm of slices, none of them in 10:20"):
        slice_numbers(brain_of([9] * 10), 1, parse_slices("10:20"), Path("head.nii"))


def test_a_guide_decides_where_the_brain_is(tmp_path: Path) -> None:
    scan = write_nifti(tmp_path / "scan.nii", draw_head(), "LIA")
    labels = np.zeros_like(draw_head())
    labels[5:15, 5:15, 10:14] = 2
    guide = write_nifti(tmp_path / "seg.nii", labels, "LIA")
    cut = cut_volume(scan, Images.SCANS, 64, Recipe(), guide=guide)
    assert (
        cut.numbers == cut_volume(guide, Images.SEGMENTATIONS, 64, Recipe()).numbers == [10, 11, 12, 13]
    )
    other = write_nifti(tmp_path / "other.nii", labels[:20], "LIA")  # lies elsewhere
    assert cut_volume(scan, Images.SCANS, 64, Recipe(), guide=other).numbers[0] < 10


# grey levels
def test_one_window_of_intensities_for_all_slices_of_a_volume(tmp_path: Path) -> None:
    """Never a slice by itself: what is as bright is as bright in every slice."""
    head = draw_head()
    head[:, :, 20:] //= 2
    head[:, :, :4] //= 4
    recipe = Recipe(slices=EVERY.slices, percentiles=(2, 90))
    cut = cut_volume(write_nifti(tmp_path / "a.nii", head, "RAS"), Images.SCANS, 256, recipe)
    level = foreground_level(head)
    low, high = np.percentile(head[head > level], (2, 90))
    assert cut.intensity == (low, high)
    np.testing.assert_array_equal(field(cut.planes, (24, 30)), expected(head, low, high))
    assert field(cut.planes, (24, 30))[2].max() < 128


def test_around_a_stripped_brain_the_ground_is_black(tmp_path: Path) -> None:
    head = np.where(draw_head(labels=True) > 0, draw_head() + 300, 0).astype(np.int16)
    head[10:14, 14:17, 12:14] = 150  # fluid, darker than all else
    cut = cut_volume(write_nifti(tmp_path / "a.nii", head, "RAS"), Images.SCANS, 256, EVERY)
    assert cut.intensity is not None
    assert cut.intensity[0] == 0
    np.testing.assert_array_equal(
        field(cut.planes, (24, 30)) == 0, np.isin(head.transpose(2, 0, 1), (0,))[list(cut.numbers)]
    )


def test_air_is_no_foreground_and_fluid_is() -> None:
    head = draw_head()
    assert 12 < foreground_level(head) < 250
    stripped = np.where(draw_head(labels=True) > 0, head, 0)
    assert 0 < foreground_level(stripped) < 250


def test_a_scale_factor_counts(tmp_path: Path) -> None:
    plain = write_nifti(tmp_path / "a.nii", draw_head())
    scaled = tmp_path / "b.nii"
    image = nib.load(plain)
    image.header.set_slope_inter(2, 100)
    nib.Nifti1Image(image.get_fdata() * 2 + 100, image.affine, image.header).to_filename(scaled)
    first, second = (cut_volume(path, Images.SCANS, 64, EVERY) for path in (plain, scaled))
    assert first.intensity is not None
    assert second.intensity == pytest.approx(tuple(2 * end + 100 for end in first.intensity), rel=1e-3)
    assert np.abs(first.planes.astype(int) - second.planes).max() <= 1


@pytest.mark.parametrize(
    "change",
    [
        lambda head: head - 1024,
        lambda head: ((head - 300) / 200).astype(np.float32),
        lambda head: head.astype(np.int32) * 2_000_000,
        lambda head: head * 1e20,
        lambda head: np.where(np.arange(28) == 14, head + 1e12 * (head == head.max()), head),
        lambda head: (head // 4).astype(np.uint8),
    ],
    ids=["negative", "z-scores", "large integers", "large floats", "a few huge", "8 bits"],
)
def test_any_range_of_intensities_gives_a_head(tmp_path: Path, change) -> None:
    path = write_nifti(tmp_path / "a.nii", change(draw_head()))
    cut = cut_volume(path, Images.SCANS, 256, EVERY)
    inside = field(cut.planes, (24, 30))[12]
    assert inside[:3, :3].max() == 0
    assert 60 < inside[8:14, 10:16].mean() < 220


@pytest.mark.parametrize("values", [{0, 1, 2, 3}, {0, 7, 255}])
def test_labels_stay_labels(tmp_path: Path, values: set[int]) -> None:
    names = np.array(sorted(values))
    labels = names[draw_head(labels=True) % len(names)]
    for dtype in (np.uint8, np.int16, np.float32):
        path = write_nifti(tmp_path / "a.nii.gz", labels.astype(dtype), "PIR")
        cut = cut_volume(path, Images.SEGMENTATIONS, 256, EVERY)
        assert cut.labels == tuple(sorted(values))
        assert cut.intensity is None
        np.testing.assert_array_equal(field(cut.planes, (24, 30)), labels.transpose(2, 0, 1))


# bad input
def write_array(path: Path, voxels: NDArray[np.generic]) -> Path:
    nib.Nifti1Image(voxels, np.diag([-1, 1, 1, 1])).to_filename(path)
    return path


def with_a(value: float) -> NDArray[np.float32]:
    head = draw_head().astype(np.float32)
    head[3, 4, 5] = value
    return head


def rgb(path: Path) -> Path:
    return write_array(path, np.zeros((5, 5, 5), [("R", "u1"), ("G", "u1"), ("B", "u1")]))


def without_directions(path: Path) -> Path:
    plain = path.with_name("plain.nii")
    nib.Nifti1Image(draw_head(), np.diag([1, 1, 1, 1])).to_filename(plain)
    content = bytearray(plain.read_bytes())
    content[280:296] = bytes(16)  # srow_x
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def thick(path: Path) -> Path:
    return write_nifti(path, draw_head(), "LAS", (1, 1, 900))


def empty(path: Path) -> Path:
    path.touch()
    return path


BAD = {
    "NaN": (lambda p: write_array(p, with_a(np.nan)), "1 of 20,160 voxels are NaN, infinite"),
    "infinite": (lambda p: write_array(p, with_a(-np.inf)), "1 of 20,160 voxels are NaN, infinite"),
    "huge": (lambda p: write_array(p, with_a(3e38)), "or beyond 1e.30; expected intensities"),
    "constant": (lambda p: write_array(p, np.full((9, 9, 9), 7, np.int16)), "every voxel is 7"),
    "zeros": (lambda p: write_array(p, np.zeros((9, 9, 9))), "every voxel is 0"),
    "RGB": (rgb, "RGB"),
    "5-D": (lambda p: write_array(p, np.ones((4, 4, 4, 1, 3), np.int16)), "holds 3 volumes"),
    "series": (lambda p: write_array(p, np.ones((4, 4, 4, 2), np.int16)), "2 volumes.* take one out"),
    "empty": (empty, "an empty file"),
    "no directions": (without_directions, "does not say which axis is which"),
    "thick": (thick, "28 voxels of 900 mm, expected 1 to 2048 mm"),
}


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("kind", BAD)
def test_a_volume_that_cannot_be_used_is_refused_by_name(tmp_path: Path, name: str, kind: str) -> None:
    write, message = BAD[kind]
    path = write(tmp_path / name)
    with pytest.raises(ImageError, match=message) as caught:
        cut_volume(path, Images.SCANS, 64, Recipe())
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("gone", [".hdr", ".img"])
def test_half_a_pair_is_refused_by_name(tmp_path: Path, gone: str) -> None:
    path = write_analyze(tmp_path / "a.hdr", draw_head(), "LAS")
    path.with_suffix(gone).unlink()
    half = path.with_suffix({".hdr": ".img", ".img": ".hdr"}[gone])
    with pytest.raises(FileError, match=f"half of a pair; .*a{gone}, is not beside it"):
        cut_volume(half, Images.SCANS, 64, Recipe())


@pytest.mark.parametrize(
    ("labels", "found"),
    [
        (draw_head(labels=True) * 400, "from 0 to 1200"),
        (draw_head(labels=True) - 1, "from -1 to 2"),
        (draw_head(labels=True) * 0.5, "from 0 to 1.5"),
    ],
)
def test_labels_that_do_not_fit_are_refused(
    tmp_path: Path, labels: NDArray[np.generic], found: str
) -> None:
    path = write_nifti(tmp_path / "aseg.nii.gz", labels)
    with pytest.raises(ImageError, match=f"values {found}, expected whole labels from 0 to 255"):
        cut_volume(path, Images.SEGMENTATIONS, 64, Recipe())


def test_a_bad_guide_is_named_and_left_out(tmp_path: Path) -> None:
    scan = write_nifti(tmp_path / "scan.nii", draw_head())
    alone = cut_volume(scan, Images.SCANS, 64, Recipe())
    assert not alone.guide_error
    black = write_nifti(tmp_path / "black.nii", np.zeros_like(draw_head()))
    for guide, error in (
        (empty(tmp_path / "seg.nii.gz"), "seg.nii.gz: an empty"),
        (black, "every voxel"),
    ):
        cut = cut_volume(scan, Images.SCANS, 64, Recipe(), guide=guide)
        assert error in cut.guide_error
        assert cut.numbers == alone.numbers


@pytest.mark.parametrize("inside", [1, 500])
def test_nan_in_a_guide_is_outside_the_brain(tmp_path: Path, inside: float) -> None:
    scan = write_nifti(tmp_path / "scan.nii", draw_head())
    brain = np.full(draw_head().shape, np.nan, np.float32)
    brain[5:15, 5:15, 10:14] = inside
    guide = write_nifti(tmp_path / "brain.nii", brain)
    cut = cut_volume(scan, Images.SCANS, 64, Recipe(), guide=guide)
    assert (cut.numbers, cut.guide_error) == ([10, 11, 12, 13], "")


# stacks
def write_stack(folder: Path, dtype: type) -> list[Path]:
    scale = 1 if dtype is np.uint16 else 4
    paths = []
    for number, plane in enumerate((draw_head() // scale).astype(dtype).transpose(2, 0, 1)):
        paths.append(folder / f"slice_{number}.png")
        Image.fromarray(plane).save(paths[-1])
    return paths


def test_a_stack_of_8_bits_stays_as_it_is(tmp_path: Path) -> None:
    paths = write_stack(tmp_path, np.uint8)
    cut = cut_stack(paths, list(range(28)), Images.SCANS, 32, Recipe(), whole=False)
    assert (cut.intensity, cut.places) == (None, list(range(28)))
    wanted = (draw_head() // 4).astype(np.uint8).transpose(2, 0, 1)
    np.testing.assert_array_equal(field(cut.planes, (24, 30)), wanted)


def test_a_stack_of_16_bits_has_one_window_like_a_volume(tmp_path: Path) -> None:
    paths = write_stack(tmp_path, np.uint16)
    cut = cut_stack(paths, list(range(28)), Images.SCANS, 32, Recipe(), whole=False)
    assert cut.intensity is not None
    np.testing.assert_array_equal(field(cut.planes, (24, 30)), expected(draw_head(), *cut.intensity))
    volume = cut_volume(write_nifti(tmp_path / "a.nii", draw_head()), Images.SCANS, 32, EVERY)
    assert volume.intensity is not None
    assert cut.intensity == pytest.approx(volume.intensity, rel=0.15)


def test_black_slices_of_16_bits_stay_black(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((9, 9), np.uint16)).save(tmp_path / "a.png")
    cut = cut_stack([tmp_path / "a.png"], [0], Images.SCANS, 16, Recipe(), whole=False)
    assert not cut.planes.any()


def test_bad_images_of_a_stack_are_left_out_and_said(tmp_path: Path) -> None:
    paths = write_stack(tmp_path, np.uint8)[:4]
    paths[1].write_bytes(paths[1].read_bytes()[:60])
    Image.fromarray(np.full((24, 30), 999, np.uint16)).save(paths[2])
    cut = cut_stack(paths, [0, 1, 2, 3], Images.SCANS, 32, Recipe(), whole=False)
    assert (cut.places, cut.numbers) == ([0, 3], [0, 3])
    assert [str(error).split(":")[0] for error in cut.errors] == [str(paths[1]), str(paths[2])]
    with pytest.raises(ImageError, match=r"slice_1\.png"):
        cut_stack(paths, [0, 1, 2, 3], Images.SCANS, 32, Recipe(), whole=True)
    with pytest.raises(ImageError, match=r"slice_1\.png"):
        cut_stack(paths[1:2], [1], Images.SCANS, 32, Recipe(), whole=False)


def test_labels_of_16_bits_are_refused(tmp_path: Path) -> None:
    paths = write_stack(tmp_path, np.uint16)[:1]
    with pytest.raises(ImageError, match="labels of 16 bits, expected 8"):
        cut_stack(paths, [0], Images.SEGMENTATIONS, 32, Recipe(), whole=False)


def test_real_volumes_have_the_orientation_of_the_png_slices(shared_data: Path) -> None:
    """The lowest slices hold the cerebellum, at the back, where columns begin."""
    path = shared_data / "volumes" / "oasis1_skull_stripped" / "1000_SS.nii.gz"
    axial = read_sliced(path)
    assert (axial.axis_codes, axial.planes.shape) == ("LAS", (167, 162, 214))
    brain = axial.planes > foreground_level(axial.planes)
    low = brain[np.flatnonzero(brain.any(axis=(1, 2)))[8]]
    columns = np.flatnonzero(low.any(axis=0))
    assert columns.mean() < brain.shape[2] / 2
