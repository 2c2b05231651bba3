"""Names of slices: which of them differ in their number alone, and what they have in common."""

import pytest

from oasisvq.errors import ImageError
from oasisvq.scans.stacks import StackNames, numbered


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("case_402_slice_7.nii.png", ("case_402_slice_", "7", ".nii.png", True)),
        ("OAS1_0028_MR1_mpr-1_100.jpg", ("OAS1_0028_MR1_mpr-1_", "100", ".jpg", False)),
        ("IM-0001-0012.png", ("IM-0001-", "0012", ".png", False)),
        ("Slice (12)_t1.png", ("Slice (", "12", ")_t1.png", True)),
        ("image (3).jpg", ("image (", "3", ").jpg", False)),
        ("007.png", ("", "007", ".png", False)),
        ("a_z003_t2.tif", ("a_z", "003", "_t2.tif", True)),
    ],
)
def test_the_number_of_a_slice(name: str, parts: tuple[str, str, str, bool]) -> None:
    assert numbered(name) == parts


@pytest.mark.parametrize("name", ["scan.png", "a12_t.png", "1234567890.png", "12"])
def test_no_number_of_a_slice(name: str) -> None:
    assert numbered(name) is None


@pytest.mark.parametrize(
    ("names", "stem"),
    [
        (
            ["case_402_slice_0.nii.png", "case_402_slice_9.nii.png", "case_402_slice_10.nii.png"],
            "case_402",
        ),
        (["IM-0001-0009.jpg", "IM-0001-0010.jpg", "IM-0001-1000.jpg"], "IM-0001"),
        (["slice (8).png", "slice (12).png"], ""),
        (["0007.tif"], ""),
        (["sub-1_z1", "sub-1_z2"], "sub-1"),
    ],
)
def test_names_there_and_back(names: list[str], stem: str) -> None:
    stack = StackNames.of(names)
    assert stack.names == names
    assert stack.stem == stem


def test_images_that_cannot_be_written_become_pngs() -> None:
    assert StackNames.of(["a_1.JPG", "a_2.JPG"]).written_names == ["a_1.png", "a_2.png"]
    assert StackNames.of(["a_z1", "a_z2"]).written_names == ["a_z1.png", "a_z2.png"]
    assert StackNames.of(["a_1.TIFF"]).written_names == ["a_1.TIFF"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "no images"),
        (["a.png", "b.png"], "expected a number"),
        (["a_1.png", "b_2.png"], "differ in one number alone"),
        (["a_1.png", "a_2.jpg"], "differ in one number alone"),
        (["a_1.png", "scan.png"], "'scan.png'"),
        (["a_08.png", "a_9.png"], "'a_9.png'"),
        (["a_10.png", "a_9.png"], "do not rise"),
        (["a_1.png", "a_1.png"], "do not rise"),
        (["../a_1.png", "../a_2.png"], "not every system"),
        (["COM1.png", "COM2.png"], "not every system"),
        (["\udcff_1.png"], "not every system"),
        (["a" * 252 + "1.bmp", "a" * 252 + "2.bmp"], "not every system"),
    ],
)
def test_names_that_are_no_stack(names: list[str], message: str) -> None:
    with pytest.raises(ImageError, match=message):
        StackNames.of(names)
