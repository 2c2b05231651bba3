"""Several inputs, outputs that name a folder, links, and what a run passes over."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from conftest import AFFINE, Run, carried, draw_phantom, draw_volume, files_below
from PIL import Image

from oasisvq.scans.geometry import Geometry
from oasisvq.scans.volumes import write_volume
from oasisvq.scans.voxel_streams import Volume

pydicom = pytest.importorskip("pydicom")
from drawn_dicom import write_series  # noqa: E402


@pytest.fixture
def two(tmp_path: Path, rng: np.random.Generator) -> list[Path]:
    """A volume and an image."""
    voxels = draw_volume(rng)
    write_volume(Volume(voxels, Geometry.of_array(voxels, AFFINE)), tmp_path / "a.nii.gz")
    Image.fromarray(draw_phantom(rng)).save(tmp_path / "b.png")
    return [tmp_path / "a.nii.gz", tmp_path / "b.png"]


def test_several_files_go_to_a_folder_and_back(run: Run, two: list[Path], model_file: Path) -> None:
    one_by_one = [Path("a.codes"), Path("b.codes")]
    for source, codes in zip(two, one_by_one, strict=True):
        assert run("encode", source, "-o", codes, "--model", model_file).code == 0
    result = run("encode", *two, "-o", "out/", "--model", model_file)
    assert (result.code, result.out.startswith("out: 2 encoded, ")) == (0, True)
    for codes in one_by_one:
        assert (Path("out") / codes).read_bytes() == codes.read_bytes()
    assert run("decode", "out/a.codes", "out/b.codes", "-o", "back", "--model", model_file).code == 0
    assert set(files_below(Path("back"))) == {"a.nii.gz", "b.png"}
    again = run("decode", "out/a.codes", "out/b.codes", "-o", "back", "--model", model_file)
    assert again.out == "back: 0 decoded, 2 already there\n"


def test_without_an_output_each_lies_beside_its_input(
    run: Run, two: list[Path], model_file: Path
) -> None:
    assert run("encode", *two, "--model", model_file).out.startswith("2 encoded, ")
    assert run("decode", "a.codes", "b.codes", "--model", model_file).out.startswith("2 decoded, ")
    assert Path("a.decoded.nii.gz").is_file()
    assert Path("b.decoded.png").is_file()


@pytest.mark.parametrize("exists", [True, False], ids=["a folder", "a slash"])
def test_one_input_goes_into_a_folder(run: Run, two: list[Path], model_file: Path, exists: bool) -> None:
    output = "out" if exists else "out/"
    if exists:
        Path("out").mkdir()
    assert run("encode", two[1], "-o", output, "--model", model_file).code == 0
    assert run("decode", "out/b.codes", "-o", output, "--model", model_file).code == 0
    assert set(files_below(Path("out"))) == {"b.codes", "b.png"}


def test_folders_among_several_inputs_keep_their_names(
    run: Run, two: list[Path], model_file: Path
) -> None:
    for folder in ("s1/anat", "s2/anat"):
        Path(folder).mkdir(parents=True)
        Path(folder, "b.png").write_bytes(two[1].read_bytes())
    assert run("encode", "s1", "s2", two[1], "-o", "out", "--model", model_file).code == 0
    assert set(files_below(Path("out"))) == {
        *("b.codes", "s1/anat/b.codes", "s2/anat/b.codes"),
        carried(model_file),
    }
    alike = run("encode", "s1/anat", "s2/anat", "-o", "out", "--model", model_file)
    assert (alike.code, "s2/anat: has the same name as s1/anat" in alike.err) == (1, True)


def test_two_inputs_with_one_output_are_a_failure_of_the_second(
    run: Run, two: list[Path], model_file: Path
) -> None:
    Path("inner").mkdir()
    Path("inner", "b.png").write_bytes(two[1].read_bytes())
    assert run("encode", "b.png", "inner/b.png", "--model", model_file).code == 0
    for command, ending in (("encode", "png"), ("decode", "codes")):
        names = f"b.{ending}", f"inner/b.{ending}"
        result = run(command, *names, "-o", "out", "-f", "--model", model_file)
        assert (result.code, result.out.split(",")[0]) == (1, f"out: 1 {command}d")
        assert f"{names[1]}: its output" in result.err


def test_a_missing_input_stops_no_other(run: Run, two: list[Path], model_file: Path) -> None:
    result = run("encode", "none.png", *two, "-o", "out", "--model", model_file)
    assert (result.code, "none.png: no such file" in result.err) == (1, True)
    assert set(files_below(Path("out"))) == {"a.codes", "b.codes", carried(model_file)}


def test_several_inputs_do_not_fit_one_file(run: Run, two: list[Path], model_file: Path) -> None:
    result = run("encode", *two, "-o", "x.codes", "--model", model_file)
    assert (result.code, "holds one scan" in result.err) == (2, True)
    assert run("encode", ".", two[0], "--model", model_file).code == 2  # where should its tree go?


def test_every_scan_of_a_tree_is_encoded_or_named(
    run: Run, two: list[Path], model_file: Path, tmp_path: Path
) -> None:
    """A linked folder and DICOM files without an ending are found; the rest is counted."""
    Path("elsewhere").mkdir()
    Path("elsewhere", "c.png").write_bytes(two[1].read_bytes())
    Path("in").mkdir()
    Path("in", "linked").symlink_to(tmp_path / "elsewhere")
    Path("in", "gone").symlink_to(tmp_path / "nowhere")
    for name in ("x.json", "y.json", "view.gifx"):
        Path("in", name).write_text("{}")
    series = write_series(Path("in", "MR"), [1, 2, 3])
    for place, path in enumerate(sorted(series.iterdir())):
        path.rename(series / f"IM{place:05}")
    told = "passed over: 2 .json, 1 .gifx, 1 link that points nowhere"
    result = run("encode", "in", "-o", "out", "--model", model_file)
    assert result.code == 0, result.err
    assert result.out.splitlines()[2] == told
    assert set(files_below(Path("out"))) == {"linked/c.codes", "MR/MR.codes", carried(model_file)}
    again = json.loads(run("encode", "in", "-o", "out", "--model", model_file, "--json").out)
    assert (again["done"], again["skipped"], again["failed"]) == (0, 2, 0)
    assert again["passed_over"] == {".json": 2, ".gifx": 1, "link that points nowhere": 1}


def test_other_runs_over_folders_tell_what_they_passed_over_too(
    run: Run, two: list[Path], model_file: Path
) -> None:
    run("encode", two[1], "-o", "in/", "--coder", "packed", "--model", model_file)
    Path("in", "notes.txt").write_text("x")
    told = "passed over: 1 .txt"
    for command in (
        ("decode", "in", "-o", "back"),
        ("verify", "in"),
        ("export", "in", "-o", "tokens.npz"),
    ):
        result = run(*command, "--model", model_file)
        assert (result.code, result.out.splitlines()[-1]) == (0, told), command
    verdicts = json.loads(run("verify", "in", "--json", "--model", model_file).out)
    assert verdicts["passed_over"] == {".txt": 1}


def test_several_jobs_write_and_print_what_one_does(run: Run, two: list[Path], model_file: Path) -> None:
    for place in range(5):
        Path("in", str(place)).mkdir(parents=True)
        Path("in", str(place), "b.png").write_bytes(two[1].read_bytes())
    Path("in", "bad.png").write_text("no image")
    Path("in", "worse.png").touch()
    for command, source in (("encode", "in"), ("decode", "one-encode")):
        results = []
        for name, jobs in (("one", "1"), ("two", "2")):
            folder = f"{name}-{command}"
            result = run(command, source, "-o", folder, "--jobs", jobs, "--model", model_file)
            err = re.sub(r"in \S+ s, \S+ a second", "in time", result.err)
            results.append((result.code, result.out.replace(folder, ""), err))
        assert results[0] == results[1]
        one, other = (files_below(Path(f"{name}-{command}")) for name in ("one", "two"))
        assert one == other
        assert len(one) == 5 + (command == "encode")  # and the model


def test_score_takes_the_folder_of_a_series(run: Run, model_file: Path) -> None:
    write_series(Path("MR"), [1, 2, 3])
    result = run("score", "MR", "--model", model_file)
    assert (result.code, result.out.splitlines()[0].split()[0]) == (0, "quality"), result.err
