"""Which layout a folder has, and which subject and split each file belongs to."""

from pathlib import Path

import pytest
from conftest import write_raw_folder

from oasisvq.data.found import Member
from oasisvq.data.layouts import Images
from oasisvq.data.members import find_members
from oasisvq.data.persons import subject_of
from oasisvq.errors import DatasetError

SUBJECTS = {"train": [1, 2], "validate": [402], "test": [441]}
KINDS = (Images.SCANS, Images.SEGMENTATIONS)


def find_slices(root: Path, images: Images) -> list[Member]:
    return find_members(root, images).members


@pytest.fixture
def slices_folder(tmp_path: Path) -> Path:
    """Scans and segmentations in `<tmp>/home/downloads/keras_png_slices_data`."""
    root = tmp_path / "home" / "downloads" / "keras_png_slices_data"
    write_raw_folder(root, SUBJECTS, slices=2, size=20)
    return write_raw_folder(root, SUBJECTS, slices=2, size=20, kind="seg")


@pytest.mark.parametrize("levels_up", [0, 1, 2, 3])
@pytest.mark.parametrize("images", KINDS)
def test_the_folder_or_a_parent_gives_the_same(
    slices_folder: Path, levels_up: int, images: Images
) -> None:
    root = [slices_folder, *slices_folder.parents][levels_up]
    slices = find_slices(root, images)
    assert len(slices) == 8
    assert [s.path for s in slices] == [s.path for s in find_slices(slices_folder, images)]
    assert {(s.split, s.subject) for s in slices} == {
        ("train", "OAS1_0001"),
        ("train", "OAS1_0002"),
        ("validation", "OAS1_0402"),
        ("test", "OAS1_0441"),
    }


@pytest.mark.parametrize(
    ("name", "split", "images"),
    [
        ("keras_png_slices_train", "train", Images.SCANS),
        ("keras_png_slices_validate", "validation", Images.SCANS),
        ("keras_png_slices_seg_test", "test", Images.SEGMENTATIONS),
    ],
)
def test_one_split_is_taken_alone(slices_folder: Path, name: str, split: str, images: Images) -> None:
    slices = find_slices(slices_folder / name, images)
    assert {s.split for s in slices} == {split}
    assert {s.path.parent.name for s in slices} == {name}


def test_the_working_folder_can_be_a_split(slices_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(slices_folder / "keras_png_slices_validate")
    slices = find_slices(Path(), Images.SCANS)
    assert [(s.split, s.subject, s.slice_number) for s in slices] == [
        ("validation", "OAS1_0402", 0),
        ("validation", "OAS1_0402", 1),
    ]


@pytest.mark.parametrize("link_whole", [True, False])
def test_links_to_folders_are_followed(slices_folder: Path, tmp_path: Path, link_whole: bool) -> None:
    (tmp_path / "disk").mkdir()
    if link_whole:
        root = tmp_path / "data"
        root.symlink_to(slices_folder)
    else:
        root = tmp_path / "disk"
        target = slices_folder / "keras_png_slices_train"
        target.rename(tmp_path / "scans-of-training")
        (root / "keras_png_slices_train").symlink_to(tmp_path / "scans-of-training")
    slices = find_slices(root, Images.SCANS)
    assert {s.subject for s in slices if s.split == "train"} == {"OAS1_0001", "OAS1_0002"}


def test_a_link_named_otherwise_to_a_split(slices_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "data").symlink_to(slices_folder / "keras_png_slices_validate")
    assert {s.split for s in find_slices(tmp_path / "data", Images.SCANS)} == {"validation"}


def test_slices_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    root = write_raw_folder(tmp_path / "data", {"validate": [5], "train": [12, 3]}, slices=12, size=16)
    found = [(s.split, s.subject, s.slice_number) for s in find_slices(root, Images.SCANS)]
    assert found == [
        (split, subject, number)
        for split, subject in (
            ("train", "OAS1_0003"),
            ("train", "OAS1_0012"),
            ("validation", "OAS1_0005"),
        )
        for number in range(12)
    ]


def test_each_kind_of_image_is_found_by_itself(slices_folder: Path) -> None:
    scans = find_slices(slices_folder, Images.SCANS)
    segmentations = find_slices(slices_folder, Images.SEGMENTATIONS)
    assert all(s.path.name.startswith("case_") for s in scans)
    assert all(s.path.name.startswith("seg_") for s in segmentations)
    assert [(s.split, s.subject, s.slice_number) for s in scans] == [
        (s.split, s.subject, s.slice_number) for s in segmentations
    ]


@pytest.mark.parametrize(
    ("kind", "wanted"), [("case", Images.SEGMENTATIONS), ("seg", Images.SCANS)], ids=["scans", "seg"]
)
def test_the_other_kind_is_pointed_at(tmp_path: Path, kind: str, wanted: Images) -> None:
    root = write_raw_folder(tmp_path / "data", {"train": [1]}, slices=1, size=16, kind=kind)
    with pytest.raises(DatasetError, match=f"no {wanted.value} in it .*--images"):
        find_slices(root, wanted)


@pytest.mark.parametrize("name", [".DS_Store", "._case_001_slice_0.nii.png", "notes.txt", "a.nii.gz"])
def test_hidden_files_and_other_kinds_are_left_out(slices_folder: Path, name: str) -> None:
    (slices_folder / "keras_png_slices_train" / name).write_bytes(b"?")
    assert len(find_slices(slices_folder, Images.SCANS)) == 8


def test_names_without_nii_and_with_four_digits_are_known(slices_folder: Path) -> None:
    folder = slices_folder / "keras_png_slices_train"
    (folder / "case_0077_slice_3.png").write_bytes(b"?")
    last = find_slices(slices_folder, Images.SCANS)[4]
    assert (last.subject, last.slice_number) == ("OAS1_0077", 3)


@pytest.mark.parametrize(
    "name", ["scan.png", "case_1_slice_0.nii.png", "case_001_slice_x.png", "seg_001_slice_0.nii.png"]
)
def test_a_slice_of_another_name_is_refused_by_name(slices_folder: Path, name: str) -> None:
    path = slices_folder / "keras_png_slices_train" / name
    path.write_bytes(b"?")
    with pytest.raises(
        DatasetError, match="not a slice of this layout; expected a name like case_"
    ) as e:
        find_slices(slices_folder, Images.SCANS)
    assert str(path) in str(e.value)


def test_no_folder_and_no_layout(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no such folder"):
        find_slices(tmp_path / "missing", Images.SCANS)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DatasetError, match="is a file, no folder"):
        find_slices(tmp_path / "file", Images.SCANS)
    (tmp_path / "keras_png_slices_other").mkdir()
    with pytest.raises(DatasetError, match="no known OASIS layout, and no images or volumes; expected"):
        find_slices(tmp_path, Images.SCANS)


@pytest.mark.parametrize("name", ["1.dcm", "IM0001"])
def test_a_folder_of_dicom_is_no_folder_of_volumes(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(bytes(128) + b"DICM")
    with pytest.raises(DatasetError, match=f"holds DICOM, such as {name}; convert it to NIfTI first"):
        find_slices(tmp_path, Images.SCANS)


def test_a_split_without_images(tmp_path: Path) -> None:
    (tmp_path / "keras_png_slices_train").mkdir()
    with pytest.raises(DatasetError, match="no scans in it"):
        find_slices(tmp_path, Images.SCANS)


@pytest.mark.parametrize(
    ("name", "subject"),
    [
        ("case_001_slice_0.nii.png", "OAS1_0001"),
        ("seg_441_slice_31.nii.png", "OAS1_0441"),
        ("OAS1_0042_MR2_mpr-1_100.jpg", "OAS1_0042"),
        ("disc1/OAS1_0042_MR1/RAW/OAS1_0042_MR1_mpr-1_anon.img", "OAS1_0042"),
        ("OAS2_0007_MR3/RAW/mpr-1.nii.gz", "OAS2_0007"),
        ("sub-OAS30001_ses-d0129_T1w.nii.gz", "OAS30001"),
        ("OASIS_OAS1_0001_MR1/orig.nii.gz", "OAS1_0001"),
        ("imagesTr/OASIS_0007_0000.nii.gz", "OASIS_0007"),
        ("bids/sub-07/anat/sub-07_T1w.nii.gz", "sub-07"),
        ("OAS1_0001_MR1/OAS1_0002_MR1.nii.gz", "OAS1_0002"),  # the file knows best
        ("scan.png", None),
        ("OAS1_00421.png", None),
        ("XOAS1_0042.png", None),
    ],
)
def test_the_subject_of_a_name(name: str, subject: str | None) -> None:
    assert subject_of(name) == subject


def test_real_scans_are_found(shared_data: Path) -> None:
    slices = find_slices(shared_data, Images.SCANS)
    assert len(slices) == 5760 + 1120
    assert len({s.subject for s in slices if s.split == "validation"}) == 35
    assert [s.slice_number for s in slices[:32]] == list(range(32))
