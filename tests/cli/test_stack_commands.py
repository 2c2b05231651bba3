"""`--stacks` on the command line: encode, decode, and what else takes such files."""

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
from conftest import Refused, Run, draw_phantom, files_below, plane, write_raw_folder
from PIL import Image

import oasisvq
from oasisvq.codec.container import read_codes_file
from oasisvq.tokens import read_tokens

NUMBERS = (0, 1, 2, 10)
NAMES = [f"case_402_slice_{number}.nii.png" for number in NUMBERS]


@pytest.fixture
def folder(tmp_path: Path, rng: np.random.Generator) -> Path:
    """Four slices of a subject, two in a subject's own folder, and one image alone."""
    root = tmp_path / "scans"
    (root / "patient7").mkdir(parents=True)
    phantom = draw_phantom(rng, 40, 33, margin=4)
    for number, name in zip(NUMBERS, NAMES, strict=True):
        Image.fromarray(np.where(phantom, phantom // 2 + number, 0).astype(np.uint8)).save(root / name)
    for name in ("07.jpg", "08.jpg"):
        Image.fromarray(phantom).save(root / "patient7" / name)
    Image.fromarray(draw_phantom(rng)).save(root / "alone.png")
    return root


@pytest.fixture
def encoded(run: Run, prior_model_file: Path, folder: Path, tmp_path: Path) -> Path:
    result = run("encode", folder, "-o", "codes", "--stacks", "--model", prior_model_file)
    assert result.code == 0, result
    assert "codes: 3 encoded" in result.out
    assert "1 image coded one by one" in result.out
    return tmp_path / "codes"


def test_a_folder_there_and_back(run: Run, encoded: Path, folder: Path, tmp_path: Path) -> None:
    codes = {name for name in files_below(encoded) if name.endswith(".codes")}
    assert codes == {"case_402.codes", "patient7/patient7.codes", "alone.codes"}
    decoded = run("decode", encoded, "-o", "back")
    assert decoded.code == 0
    assert "back: 3 decoded" in decoded.out
    back = files_below(tmp_path / "back")
    assert set(back) == {*NAMES, "patient7/07.png", "patient7/08.png", "alone.png"}
    for name in NAMES:
        before, after = plane(folder / name), plane(tmp_path / "back" / name)
        assert (after.shape, after.dtype) == (before.shape, before.dtype)
        assert before.min() <= after.min() <= after.max() <= before.max()


@pytest.mark.parametrize("command", ["encode", "decode"])
def test_a_second_run_skips_what_is_there(
    command: str, run: Run, encoded: Path, folder: Path, prior_model_file: Path, tmp_path: Path
) -> None:
    arguments = ["encode", folder, "-o", "codes", "--stacks", "--model", prior_model_file]
    if command == "decode":
        arguments = ["decode", encoded, "-o", "back"]
        run(*arguments)
        (tmp_path / "back" / NAMES[2]).unlink()  # as a kill may leave it
        assert "1 decoded" in run(*arguments).out
    before = files_below(tmp_path)
    again = run(*arguments)
    assert f"0 {command}d, 3 already there" in again.out
    assert files_below(tmp_path) == before
    if command == "encode":
        (folder / NAMES[1]).unlink()
        assert "case_402.codes: exists; pass -f" in run(*arguments).err  # it holds other slices


def test_one_stack_as_one_file(run: Run, folder: Path, residue_model_file: Path, tmp_path: Path) -> None:
    images = [folder / name for name in NAMES]
    result = run(
        "encode", *images, "-o", "one/", "--stacks", "--lossless", "--model", residue_model_file
    )
    assert "one: 1 encoded" in result.out
    assert "one by one" not in result.out
    codes = tmp_path / "one" / "case_402.codes"
    decoded = run("decode", codes)
    assert decoded.out.startswith(f"{codes.with_suffix('.decoded')}: 4 images restored")
    for name in NAMES:
        np.testing.assert_array_equal(plane(codes.with_suffix(".decoded") / name), plane(folder / name))
    assert "exists; pass -f" in run("decode", codes).err
    assert run("decode", codes, "-f").code == 0
    assert run("decode", codes, "-o", "volume.nii").code == 0
    assert nibabel.load(tmp_path / "volume.nii").shape == (40, 33, 4)
    assert run("decode", codes, "-o", "pages.tif").code == 0
    np.testing.assert_array_equal(plane(tmp_path / "pages.tif"), plane(folder / NAMES[0]))
    for name in ("alone.png", "patient7/07.jpg", "patient7/08.jpg"):
        (folder / name).unlink()
    whole = run(
        "encode", folder, "-o", "whole.codes", "--stacks", "--lossless", "--model", residue_model_file
    )
    assert "case_402_slice_*.nii.png), 4 slices, nothing lost" in whole.out
    assert (tmp_path / "whole.codes").read_bytes() == codes.read_bytes()
    decoded = run("decode", "whole.codes", "-o", "named")
    assert sorted(files_below(tmp_path / "named")) == sorted(NAMES)


def test_a_stack_that_is_called_otherwise_gets_a_folder_of_its_own(
    run: Run, encoded: Path, tmp_path: Path
) -> None:
    """So that two of them never meet."""
    (encoded / "other.codes").write_bytes((encoded / "case_402.codes").read_bytes())
    assert run("decode", encoded, "-o", "back").code == 0
    assert {f"other/{name}" for name in NAMES} | set(NAMES) < set(files_below(tmp_path / "back"))
    assert run("decode", encoded, "-o", encoded).code == 0
    assert (encoded / "case_402.decoded" / NAMES[3]).is_file()


def test_what_cannot_be_read_fails_alone(
    run: Run, folder: Path, prior_model_file: Path, tmp_path: Path
) -> None:
    content = (folder / NAMES[1]).read_bytes()
    (folder / NAMES[1]).write_bytes(content[:-30])
    result = run("encode", folder, "-o", "codes", "--stacks", "--model", prior_model_file)
    assert result.code == 1
    assert "2 encoded" in result.out
    assert f"{NAMES[1]}: a damaged or truncated image" in result.err
    assert not (tmp_path / "codes" / "case_402.codes").exists()


def test_usage(refused: Refused, folder: Path) -> None:
    refused("encode", folder / NAMES[0], "--stacks", naming="--stacks takes a folder", code=2)
    refused("encode", folder, "-o", "x.codes", "--stacks", naming="2 stacks of images, expected one")


def test_info_show_verify_and_score(
    run: Run, encoded: Path, folder: Path, prior_model_file: Path, tmp_path: Path
) -> None:
    facts = json.loads(run("info", encoded / "case_402.codes", "--json").out)
    assert facts["holds"] == "scan, stack of images"
    assert facts["images"] == f"4, {NAMES[0]} to {NAMES[3]}"
    assert run("verify", encoded, "--deep").code == 0
    shown = run(
        "show", encoded / "case_402.codes", "--original", folder, "--slice", "3", "-o", "panel.png"
    )
    assert shown.code == 0, shown
    assert f"slice 3 ({NAMES[3]}), SSIM" in shown.out
    assert "no original beside it" in run("show", encoded / "case_402.codes").err
    (folder / "case_402.codes").write_bytes((encoded / "case_402.codes").read_bytes())
    assert "case_402_slice_*.nii.png" in run("show", folder / "case_402.codes").err


def test_exports_hold_stacks(run: Run, encoded: Path, tmp_path: Path) -> None:
    assert run("export", encoded, "-o", "all.npz").code == 0
    tokens = read_tokens(tmp_path / "all.npz")
    assert tokens.names == ["alone", "case_402", "patient7/patient7"]
    assert tokens.subjects == ["", "OAS1_0402", "patient7"]
    assert tokens.arrays["positions"].tolist() == [0, *NUMBERS, 7, 8]
    assert run("decode", "all.npz", "-o", "back").code == 0
    assert run("decode", encoded, "-o", "whole").code == 0
    back, whole = files_below(tmp_path / "back"), files_below(tmp_path / "whole")
    assert set(back) == set(whole)
    for name in ("case_402_slice_1.nii.png", "patient7/07.png"):
        assert plane(tmp_path / "back" / name).shape == plane(tmp_path / "whole" / name).shape


def test_stacks_in_python(encoded: Path, prior_model_file: Path, folder: Path) -> None:
    codec = oasisvq.load(prior_model_file)
    images = [plane(folder / name) for name in NAMES]
    content = codec.encode_stack(images, NAMES)
    assert content == (encoded / "case_402.codes").read_bytes()
    codes = oasisvq.read_codes(encoded / "case_402.codes")
    assert codes.header.stack is not None
    assert codes.header.stack.names == NAMES
    image = oasisvq.load_image(encoded / "case_402.codes", place=3)
    np.testing.assert_array_equal(np.asarray(image), codec.decode(content)[3])
    assert read_codes_file(encoded / "alone.codes").header.stack is None


def test_scores_of_stacks(run: Run, folder: Path, prior_model_file: Path, tmp_path: Path) -> None:
    for name in ("alone.png", "patient7/07.jpg", "patient7/08.jpg"):
        (folder / name).unlink()
    given = "--model", prior_model_file, "--json"
    (score,) = json.loads(run("score", folder, "--stacks", *given).out)
    images = [plane(folder / name) for name in NAMES]
    content = oasisvq.load(prior_model_file).encode_stack(images, NAMES)
    assert score["file_bytes"] == len(content)
    raw = write_raw_folder(tmp_path / "raw", {"train": [1], "validate": [3, 4]}, slices=3)
    assert run("preprocess", raw, "-o", "data", "--size", "64").code == 0
    alone = json.loads(run("score", "data", *given).out)
    stacked = json.loads(run("score", "data", "--stacks", *given).out)
    codec, array = oasisvq.load(prior_model_file), np.load(tmp_path / "data" / "validation.npy")
    sizes = [
        len(codec.encode_stack(each, content=oasisvq.Content.SCAN)) for each in (array[:3], array[3:])
    ]
    assert stacked["qualities"][0]["file_bytes"] == pytest.approx(sum(sizes) / 6)
    assert (stacked["slices"], stacked["black"]) == (alone["slices"], alone["black"])
    refused = run("score", "data", "--stacks", "--against", "jpeg", *given)
    assert (refused.code, "--stacks is for" in refused.err) == (2, True)
