"""L, R and the nose stand where they are, and nowhere where that is not known."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
from conftest import Result, draw_phantom, write_raw_folder
from PIL import Image

import oasisvq
from oasisvq.codec.codec import Codec
from oasisvq.codec.container import read_codes_file
from oasisvq.data.dataset import open_dataset
from oasisvq.data.layouts import Images
from oasisvq.data.preprocess import preprocess
from oasisvq.data.recipe import Recipe
from oasisvq.evaluation.marks import (
    AXIAL,
    NOSE,
    UNKNOWN,
    Marks,
    marks_along,
    marks_of_codes,
    marks_of_records,
    shared,
)
from oasisvq.evaluation.panels import draw_panel, open_view, view_slice

Run = Callable[..., Result]
HEAD = np.zeros((24, 24, 24), np.int16)
HEAD[4:20, 4:20, 4:20] = 500
HEAD[16:, 10:14, 10:14] = 900  # towards the end of the first axis
HEAD += np.random.default_rng(0).integers(0, 50, HEAD.shape, np.int16)


def written(path: Path, affine: np.ndarray | None, voxels: np.ndarray = HEAD) -> Path:  # type: ignore[type-arg]
    image = nibabel.Nifti1Image(voxels, affine)
    if affine is None:
        image.header.set_qform(None, code=0)
        image.header.set_sform(None, code=0)
    image.to_filename(path)
    return path


def shown(run: Run, path: Path, model: Path, *options: str) -> Marks:
    assert run("encode", path, "-q", "1", "--model", model, *options).code == 0
    codes = path.with_name(path.name.split(".")[0] + ".codes")
    return marks_of_codes(read_codes_file(codes).header, codes)


def test_edges_have_the_ends_of_their_axes() -> None:
    assert marks_along("R", "A") == AXIAL == Marks("L", "R", "", NOSE)
    assert marks_along("L", "P") == Marks("R", "L", NOSE, "")
    assert marks_along("A", "S") == Marks("", NOSE, "", "")  # of a sagittal slice
    assert UNKNOWN.says == ""
    assert AXIAL.says == "left at the top, right at the bottom, nose at the right"


@pytest.mark.parametrize("codes", ["RAS", "LAS", "ASL", "PIR"])
def test_a_volume_is_marked_by_its_affine(
    run: Run, tmp_path: Path, model_file: Path, codes: str
) -> None:
    """What lies to the right of the head is at the edge that R marks, however the voxels are stored."""
    turned = nibabel.orientations.axcodes2ornt(tuple(codes))
    native = nibabel.Nifti1Image(HEAD, np.diag([1, 1, 1, 1]))  # its first axis grows to the right
    back = nibabel.orientations.ornt_transform(nibabel.orientations.axcodes2ornt("RAS"), turned)
    path = tmp_path / f"{codes}.nii.gz"
    native.as_reoriented(back).to_filename(path)
    for plane, expected in {
        "axial": Marks("L", "R", "", NOSE),
        "coronal": Marks("L", "R", "", ""),
        "sagittal": Marks("", NOSE, "", ""),
    }.items():
        assert shown(run, path, model_file, "--axis", plane, "-f") == expected
    assert shown(run, path, model_file, "-f") == AXIAL
    view = open_view(oasisvq.load(model_file), path.with_name(f"{codes}.codes"), None)
    middle = oasisvq.load(model_file).decode_codes(view.codes, "view").planes[12]
    assert middle[-8:, 10:14].mean() > middle[:8, 10:14].mean()  # the bright end is below, at R


def test_nothing_is_marked_where_a_header_leaves_it_open(
    run: Run, tmp_path: Path, model_file: Path
) -> None:
    assert shown(run, written(tmp_path / "open.nii.gz", None), model_file) == UNKNOWN
    pair = nibabel.analyze.AnalyzeImage(HEAD, np.eye(4))
    pair.to_filename(tmp_path / "any.img")
    assert shown(run, tmp_path / "any.img", model_file) == UNKNOWN
    pair.to_filename(tmp_path / "OAS1_0001_MR1_mpr_n4_anon_111_t88_gfc.img")
    assert shown(run, tmp_path / "OAS1_0001_MR1_mpr_n4_anon_111_t88_gfc.img", model_file) == AXIAL


def test_uq_slices_are_known_by_name_and_size(
    run: Run, tmp_path: Path, model_file: Path, rng: np.random.Generator
) -> None:
    for name, side, marks in (
        ("case_001_slice_3.nii.png", 256, AXIAL),
        ("case_002_slice_3.nii.png", 64, UNKNOWN),
        ("mary.png", 256, UNKNOWN),
    ):
        Image.fromarray(draw_phantom(rng, side, side)).save(tmp_path / name)
        assert run("encode", name, "-q", "1", "--model", model_file).code == 0
        codes = (tmp_path / name).with_suffix(".codes")
        assert marks_of_codes(read_codes_file(codes).header, codes) == marks, name


def test_marks_stand_beside_every_picture(run: Run, tmp_path: Path, model_file: Path) -> None:
    codec = Codec.load(model_file)
    shown(run, written(tmp_path / "head.nii.gz", np.eye(4)), model_file)
    view = open_view(codec, tmp_path / "head.codes", None)
    figure = draw_panel(view, [view_slice(codec, view, 12)], codec.file.codebooks)
    pictures = [axes for axes in figure.axes if axes.get_images()]
    assert len(pictures) == 2  # codes of a level, reconstruction
    for axes in pictures:
        left, right, low, high = axes.get_images()[0].get_extent()
        assert [text.get_text() for text in axes.texts] == ["L", "R"]
        above, below = (text.get_position()[1] for text in axes.texts)
        assert above < high < low < below  # rows grow downwards; nothing is covered
        assert axes.lines[0].get_xdata()[0] > right > left
        assert axes.get_xlim()[1] > axes.lines[0].get_xdata()[0]
    plain = draw_panel(view._replace(marks=UNKNOWN), [view_slice(codec, view, 12)], codec.file.codebooks)
    assert not any(axes.texts or axes.lines for axes in plain.axes if axes.get_images())


def test_slices_of_a_dataset(tmp_path: Path) -> None:
    raw = write_raw_folder(tmp_path / "uq", {"train": [1], "validate": [2]}, slices=2)
    uq = preprocess(raw, tmp_path / "prepared", size=64)
    records = uq.splits["validation"].records
    assert marks_of_records(uq, records) == [AXIAL, AXIAL]
    assert marks_of_records(replace(uq, layout="images or volumes"), records) == [UNKNOWN, UNKNOWN]
    assert (shared([AXIAL, AXIAL]), shared([AXIAL, UNKNOWN])) == (AXIAL, UNKNOWN)


@pytest.mark.parametrize(
    ("axis", "marks"), [("coronal", Marks("L", "R")), ("sagittal", Marks(bottom=NOSE))]
)
def test_slices_along_other_axes_in_a_dataset(tmp_path: Path, axis: str, marks: Marks) -> None:
    (tmp_path / "raw").mkdir()
    written(tmp_path / "raw" / "OAS1_0001.nii.gz", np.eye(4))
    dataset = preprocess(tmp_path / "raw", tmp_path / "prepared", size=64, recipe=Recipe(axis=axis))
    assert set(marks_of_records(dataset, dataset.splits["train"].records)) == {marks}


def test_slices_of_volumes_in_a_dataset(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    for number, affine in ((1, np.eye(4)), (2, None), (3, np.eye(4))):
        written(tmp_path / "raw" / f"OAS1_000{number}.nii.gz", affine)
    preprocess(tmp_path / "raw", tmp_path / "prepared", images=Images.SCANS, size=64)
    dataset = open_dataset(tmp_path / "prepared")
    records = [record for split in dataset.splits.values() for record in split.records]
    marks = marks_of_records(dataset, records)
    found = {record.subject: each for record, each in zip(records, marks, strict=True)}
    assert sorted(found.items()) == [
        ("OAS1_0001", AXIAL),
        ("OAS1_0002", UNKNOWN),
        ("OAS1_0003", AXIAL),
    ]
