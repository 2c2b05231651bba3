"""Which images of a folder are the slices of one subject."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from conftest import Run, draw_phantom
from PIL import Image

from oasisvq.errors import ImageError
from oasisvq.folders import Globs, PassedOver
from oasisvq.scans.limits import DEFAULT_MAX_PIXELS
from oasisvq.scans.source import sources_below
from oasisvq.stacks import in_stacks, only_stack


def draw(root: Path, names: Iterable[str], shape: tuple[int, int] = (12, 9), dtype: str = "u1") -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.arange(shape[0] * shape[1], dtype=dtype).reshape(shape)).save(path)


def found(root: Path, max_pixels: int = DEFAULT_MAX_PIXELS) -> list[str]:
    sources = in_stacks(sources_below(root, PassedOver()), root, max_pixels)
    return [
        f"{source.path.relative_to(root).as_posix()}: {','.join(map(str, source.stack.numbers))}"
        if source.stack
        else source.path.relative_to(root).as_posix()
        for source in sources
    ]


@pytest.mark.parametrize(
    ("names", "stacks"),
    [
        (
            [f"case_{case}_slice_{number}.nii.png" for case in (401, 402) for number in (0, 2, 10)],
            ["case_401_slice_*.nii.png: 0,2,10", "case_402_slice_*.nii.png: 0,2,10"],
        ),
        (  # two scans of one person, as Kaggle has them
            [f"OAS1_0028_MR1_mpr-{scan}_{number}.jpg" for scan in (1, 2) for number in (100, 101)],
            ["OAS1_0028_MR1_mpr-1_*.jpg: 100,101", "OAS1_0028_MR1_mpr-2_*.jpg: 100,101"],
        ),
        (["IM-0001-0009.png", "IM-0001-0010.png"], ["IM-0001-*.png: 9,10"]),
        (["patient07/1018.png", "patient07/1019.png"], ["patient07/*.png: 1018,1019"]),
        (["sub-1/brain_9.png", "sub-1/brain_10.png"], ["sub-1/brain_*.png: 9,10"]),
        (
            ["slice_1_t1.png", "slice_1_t2.png", "slice_2_t1.png"],
            ["slice_*_t1.png: 1,2", "slice_1_t2.png"],
        ),
        # of whom these are nobody says
        (["1018.png", "1019.png"], ["1018.png", "1019.png"]),
        (["Te-gl_0010.jpg", "Te-gl_0011.jpg"], ["Te-gl_0010.jpg", "Te-gl_0011.jpg"]),
        (["nonDem1.jpg", "nonDem2.jpg"], ["nonDem1.jpg", "nonDem2.jpg"]),
        # a person each
        (["sub-01.png", "sub-02.png"], ["sub-01.png", "sub-02.png"]),
        (["OAS1_0001.png", "OAS1_0002.png"], ["OAS1_0001.png", "OAS1_0002.png"]),
        # of one number written in two ways, only one can be the slice
        (["a_slice_02.png", "a_slice_1.png", "a_slice_03.png"], ["a_slice_*.png: 2,3", "a_slice_1.png"]),
        (["a_slice_1.png"], ["a_slice_1.png"]),
        (["one/a_slice_1.png", "two/a_slice_2.png"], ["one/a_slice_1.png", "two/a_slice_2.png"]),
    ],
)
def test_stacks_by_names(names: list[str], stacks: list[str], tmp_path: Path) -> None:
    draw(tmp_path / "scans", names)
    assert sorted(found(tmp_path / "scans")) == sorted(stacks)


def test_images_of_another_size_type_or_of_several_pages_stay_alone(tmp_path: Path) -> None:
    draw(tmp_path, [f"z{number}.tif" for number in (1, 2, 3)])
    draw(tmp_path, ["z4.tif"], shape=(9, 12))
    draw(tmp_path, ["z5.tif"], dtype="u2")
    (tmp_path / "z6.tif").write_bytes(b"no image")
    pages = [Image.fromarray(np.zeros((12, 9), np.uint8))] * 2
    pages[0].save(tmp_path / "z7.tif", save_all=True, append_images=pages[1:])
    assert found(tmp_path) == ["z*.tif: 1,2,3", "z4.tif", "z5.tif", "z6.tif", "z7.tif"]


def test_what_is_too_large_for_a_volume_stays_alone(tmp_path: Path) -> None:
    names = [f"z{number}.png" for number in range(9)]
    draw(tmp_path, names, shape=(10, 10))
    assert found(tmp_path, 112) == names  # 900 pixels are more than 8 × 112
    assert found(tmp_path, 113) == ["z*.png: 0,1,2,3,4,5,6,7,8"]
    assert found(tmp_path, 99) == names


def test_a_folder_that_is_one_stack(tmp_path: Path) -> None:
    draw(tmp_path, ["a_slice_1.png", "a_slice_2.png"])
    assert only_stack(tmp_path, DEFAULT_MAX_PIXELS).name == "a"
    draw(tmp_path, ["other.png"])
    with pytest.raises(ImageError, match=r"other.png is no slice of the stack, .* with --exclude"):
        only_stack(tmp_path, DEFAULT_MAX_PIXELS)
    assert only_stack(tmp_path, DEFAULT_MAX_PIXELS, Globs(exclude=("other.png",))).name == "a"
    draw(tmp_path, ["slice_1.png", "slice_2.png"])
    with pytest.raises(ImageError, match="2 stacks"):
        only_stack(tmp_path, DEFAULT_MAX_PIXELS)


def test_a_stack_beside_codes_of_its_images_is_decoded_into_a_folder(
    run: Run, tmp_path: Path, volumes_model_file: Path, rng: np.random.Generator
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(3):
        Image.fromarray(draw_phantom(rng)).save(folder / f"case_1_slice_{number}.png")
    ours = ("--model", volumes_model_file)
    assert run("encode", "in", "-o", "codes", *ours).code == 0
    assert run("encode", "in", "-o", "codes", "--stacks", *ours).code == 0
    result = run("decode", "codes", "-o", "out", *ours)
    assert "4 decoded" in result.out
    assert len(list((tmp_path / "out").glob("*.png"))) == 3
    assert len(list((tmp_path / "out").glob("*/*.png"))) == 3
