"""Headers of volumes, and how voxels are cut into slices."""

import nibabel
import numpy as np
import pytest
from numpy.typing import NDArray

from oasisvq.errors import ImageError
from oasisvq.scans.geometry import SLICINGS, Form, Geometry, Slicing, form_of, slicing_by

OBLIQUE = np.array(
    [[0.9, 0.1, 0.0, -80.5], [-0.1, 0.9, 0.2, -70.25], [0.0, -0.2, 1.2, 33.0], [0, 0, 0, 1]]
)


def test_a_slicing_has_an_inverse(rng: np.random.Generator) -> None:
    voxels = rng.integers(0, 100, (3, 4, 5))
    seen = set()
    for number in range(SLICINGS):
        slicing = Slicing.of_number(number)
        assert slicing.number == number
        planes = slicing.planes(voxels)
        np.testing.assert_array_equal(slicing.voxels(planes), voxels)
        seen.add(planes.shape + tuple(planes[0, 0]))
    assert len(seen) > 40


@pytest.mark.parametrize("codes", ["RAS", "LAS", "ASL", "PSR", "LIA", "IPR"])
@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
def test_planes_lie_as_in_oasis_however_the_voxels_are_stored(codes: str, plane: str) -> None:
    """Values that say where a voxel lies: hundreds to the right, tens to the front, ones upwards."""
    places = np.indices((3, 4, 5))
    canonical = 100 * places[0] + 10 * places[1] + places[2]  # (R, A, S)
    order = ["RLAPSI".index(code) // 2 for code in codes]
    stored = canonical.transpose(order)
    for axis, code in enumerate(codes):
        if code in "LPI":
            stored = np.flip(stored, axis)
    planes = slicing_by(codes, plane).planes(stored)
    axes = {"axial": (2, 0, 1), "coronal": (1, 0, 2), "sagittal": (0, 1, 2)}[plane]
    np.testing.assert_array_equal(planes, canonical.transpose(axes))


def test_an_axis_may_be_named_by_its_number() -> None:
    assert slicing_by("LAS", "2") == slicing_by("LAS", "axial")
    assert slicing_by("ASL", "2") == slicing_by("ASL", "sagittal")
    assert slicing_by("ASL", "0") == slicing_by("ASL", "coronal")


def header(**fields: object) -> nibabel.Nifti1Header:
    made = nibabel.Nifti1Header()
    made.set_data_shape((3, 4, 5))
    made.set_data_dtype(np.int16)
    made.set_sform(OBLIQUE, code=1)
    for name, value in fields.items():
        made[name] = value
    return made


def test_texts_are_blanked_and_numbers_are_kept() -> None:
    texts = {"descrip": b"DOE^JOHN", "aux_file": b"patient.txt", "intent_name": b"x", "db_name": b"y"}
    numbers = {"cal_max": 12.5, "toffset": 3.25, "intent_code": 1002, "slice_code": 2, "scl_slope": 2.0}
    geometry = Geometry(Form.NIFTI1, header(**texts, **numbers).binaryblock)
    assert geometry.content == header(**numbers, vox_offset=352).binaryblock
    assert geometry.scaling == (2.0, 0.0)
    assert geometry.form_codes == (0, 1)
    np.testing.assert_allclose(geometry.affine, OBLIQUE, atol=1e-6)


def test_a_name_in_an_analyze_origin_is_blanked_and_an_origin_is_kept() -> None:
    made = nibabel.Spm2AnalyzeHeader()
    made.set_data_shape((91, 109, 91))
    made["origin"] = [46, 64, 37, 0, 0]
    made["patient_id"] = b"0815"
    kept = Geometry(Form.ANALYZE, made.binaryblock)
    assert kept.affine[:3, 3].tolist() == [45.0, -63.0, -36.0]
    assert b"0815" not in kept.content
    named = made.binaryblock[:253] + b"DOE JOHN  " + made.binaryblock[263:]
    assert b"DOE" not in Geometry(Form.ANALYZE, named).content


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", [nibabel.Nifti1Header, nibabel.Nifti2Header])
def test_the_byte_order_is_kept(kind: type[nibabel.Nifti1Header], order: str) -> None:
    made = kind(endianness=order)
    made.set_data_shape((3, 4, 5))
    made.set_data_dtype(np.float32)
    form = form_of(made.binaryblock, is_pair=False)
    assert form is (Form.NIFTI1 if kind is nibabel.Nifti1Header else Form.NIFTI2)
    geometry = Geometry(form, made.binaryblock)
    assert geometry.dtype == np.dtype(f"{order}f4")
    assert geometry.as_pair().as_single().content == geometry.content
    assert geometry.as_pair().content != geometry.content


def affine_of(content: bytes) -> NDArray[np.float64]:
    return np.asarray(nibabel.Nifti1Header(content).get_best_affine())


def test_an_analyze_geometry_becomes_nifti() -> None:
    made = nibabel.Spm2AnalyzeHeader(endianness=">")
    made.set_data_shape((5, 6, 7, 1))
    made.set_data_dtype(np.int16)
    made.set_zooms((1, 1.25, 2, 1))
    made["scl_slope"] = 0.5
    analyze = Geometry(Form.ANALYZE, made.binaryblock)
    single = analyze.as_single()
    assert single.form is Form.NIFTI1
    assert single.scaling == (0.5, 0.0)
    assert single.shape == (5, 6, 7, 1)
    np.testing.assert_array_equal(affine_of(single.content), analyze.affine)
    assert analyze.as_pair() is analyze
    assert single.form_codes == (0, 0)
    np.testing.assert_allclose(single.zooms, (1, 1.25, 2))
    made["origin"][:3] = 2, 3, 4  # as SPM writes it: the axes then are those of its convention
    origin = Geometry(Form.ANALYZE, made.binaryblock)
    assert origin.as_single().form_codes == (0, 2)
    np.testing.assert_array_equal(affine_of(origin.as_single().content), origin.affine)


def test_further_steps_of_an_analyze_header_may_be_negative() -> None:
    made = nibabel.Spm2AnalyzeHeader()
    made.set_data_shape((5, 6, 7, 1))
    made["pixdim"][1:5] = 1, 1.25, 2, -3
    single = Geometry(Form.ANALYZE, made.binaryblock).as_single()
    assert np.frombuffer(single.content[76:96], "<f4").tolist() == [1, 1, 1.25, 2, 3]


@pytest.mark.parametrize("content", [b"", b"short", bytes(348), b"\x5c\x01\0\0" + b"\xff" * 344])
def test_what_is_no_header_is_refused_or_unusable(content: bytes) -> None:
    assert form_of(content, is_pair=False) is None
    with pytest.raises(ImageError, match="damaged header"):
        geometry = Geometry(Form.NIFTI1, content)
        if min(geometry.shape, default=0) < 1 or geometry.dtype.itemsize < 1:
            raise ImageError("a damaged header")


def test_what_nibabel_repairs_is_understood_and_kept_as_it_was() -> None:
    made = header(qform_code=1, sform_code=0)
    made["pixdim"][:4] = [0, -1, 1.5, 0]
    geometry = Geometry(Form.NIFTI1, made.binaryblock)
    assert geometry.zooms == (1.0, 1.5, 1.0)
    assert geometry.axis_codes == "RAS"
    assert np.frombuffer(geometry.content[76:92], "<f4").tolist() == [0, -1, 1.5, 0]


def test_a_rotation_that_is_none_is_an_error() -> None:
    made = header(qform_code=1, sform_code=0, quatern_b=1, quatern_c=1)
    with pytest.raises(ImageError, match="no rotation"):
        _ = Geometry(Form.NIFTI1, made.binaryblock).affine


def test_no_word_of_a_nifti2_header_stays() -> None:
    made = nibabel.Nifti2Header()
    made.set_data_shape((3, 4, 5))
    made["unused_str"] = b"DOE^JOHN"
    assert b"DOE" not in Geometry(Form.NIFTI2, made.binaryblock).content


def test_an_affine_that_says_nothing_is_an_error() -> None:
    made = header(srow_x=[0, 0, 0, 0])
    with pytest.raises(ImageError, match="--axis"):
        _ = Geometry(Form.NIFTI1, made.binaryblock).axis_codes


def test_an_affine_beyond_all_sense_is_an_error_without_a_warning() -> None:
    squares = nibabel.Nifti2Header()
    squares.set_data_shape((3, 4, 5))
    squares.set_sform(np.diag([1e200, 1e200, 1e200, 1]), code=1)
    infinite = header(qform_code=1, sform_code=0, quatern_b=1, pixdim=[1, 1, np.inf, 1, 0, 0, 0, 0])
    for form, made in ((Form.NIFTI2, squares), (Form.NIFTI1, infinite)):
        with pytest.raises(ImageError, match="--axis"):
            _ = Geometry(form, made.binaryblock).axis_codes


@pytest.mark.parametrize("brightest", [np.inf, np.nan, 3e38])
def test_an_analyze_scaling_that_is_no_number_counts_as_none(brightest: float) -> None:
    """Without a slope it is derived from the grey levels; found by fuzzing, as a warning."""
    made = nibabel.Spm2AnalyzeHeader()
    made.set_data_shape((5, 6, 7))
    for name, number in (("glmax", 10), ("cal_max", brightest), ("cal_min", -brightest)):
        made[name] = number
    analyze = Geometry(Form.ANALYZE, made.binaryblock)
    assert analyze.scaling == (1.0, 0.0)
    assert analyze.as_single().scaling == (1.0, 0.0)


def test_an_analyze_scaling_beyond_nifti_counts_as_none() -> None:
    made = nibabel.Spm2AnalyzeHeader()
    made.set_data_shape((5, 6, 7))
    for name, number in (("glmax", 2**31 - 1), ("glmin", 2**31 - 2), ("cal_max", 1e38)):
        made[name] = number
    analyze = Geometry(Form.ANALYZE, made.binaryblock)
    assert analyze.scaling == (1.0, 0.0)
    assert analyze.as_single().scaling == (1.0, 0.0)
