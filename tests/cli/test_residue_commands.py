"""encode --max-error and --lossless, decode -q, and what the other commands say of such files."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from conftest import Refused, Run, plane

from oasisvq.codec import container


@pytest.fixture(autouse=True)
def model(residue_model_file: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OASISVQ_MODEL", str(residue_model_file))


def test_lossless_gives_back_every_pixel(run: Run, phantom_png: Path, tmp_path: Path) -> None:
    encoded = run("encode", phantom_png, "--lossless")
    assert encoded.code == 0
    assert encoded.out.endswith("nothing lost\n")
    assert run("decode", "scan.codes").code == 0
    np.testing.assert_array_equal(plane(tmp_path / "scan.decoded.png"), plane(phantom_png))


def test_no_pixel_is_off_by_more_than_the_bound(run: Run, phantom_png: Path, tmp_path: Path) -> None:
    encoded = run("encode", phantom_png, "--max-error", "3")
    assert encoded.out.splitlines()[0].endswith("no voxel off by more than 3")
    assert run("decode", "scan.codes", "-o", "back.png").code == 0
    original = plane(phantom_png).astype(int)
    assert np.abs(plane(tmp_path / "back.png") - original).max() == 3
    facts = json.loads(run("info", "scan.codes", "--json").out)
    assert facts["largest_error"] == 3
    assert run("verify", "--deep", "scan.codes").code == 0
    assert run("show", "scan.codes", "-o", "panel.png").code == 0


def test_some_levels_are_decoded_without_the_residue(
    run: Run, phantom_png: Path, tmp_path: Path
) -> None:
    assert run("encode", phantom_png, "-q", "2", "--max-error", "1").code == 0
    assert run("encode", phantom_png, "-q", "2", "--quick", "-o", "plain.codes").code == 0
    file = container.read((tmp_path / "plain.codes").read_bytes(), "x")  # a residue has no restoration
    header = dataclasses.replace(file.header, restoration=None)
    (tmp_path / "plain.codes").write_bytes(container.write(header, file.payload, file.beside))
    for name, quality in (("scan", "2"), ("plain", "2"), ("scan", "1")):
        assert run("decode", f"{name}.codes", "-q", quality, "-o", f"{name}{quality}.png").code == 0
    ground = plane(phantom_png) == 0
    np.testing.assert_array_equal(plane(tmp_path / "scan1.png") == 0, ground)
    few, plain = plane(tmp_path / "scan2.png"), plane(tmp_path / "plain2.png")
    inside = ~ground & (plain > 1)
    np.testing.assert_array_equal(few[inside], plain[inside])


def test_a_run_over_a_folder_skips_what_holds_the_bound(run: Run, phantom_png: Path) -> None:
    folder = phantom_png.parent
    for bound, line in (("2", "1 encoded"), ("2", "0 encoded, 1 already there"), ("1", "")):
        result = run("encode", folder, "-o", "codes/", "--max-error", bound)
        assert line in result.out + result.err
    assert result.code == 1  # what is there holds another bound


@pytest.mark.parametrize(
    ("arguments", "naming", "code"),
    [
        (["--max-error", "-1"], "--max-error -1: expected a finite number from 0", 2),
        (["--max-error", "nan"], "--max-error nan: expected a finite number from 0", 2),
        (["--max-error", "1.5"], "values need a whole number", 1),
        (["--max-error", "300"], "its values go from 0 to 255", 1),
        (["--lossless", "--max-error", "2"], "--lossless means --max-error 0", 2),
        (["--lossless", "--lossy"], "leave one out", 2),
    ],
)
def test_a_bound_that_is_none_is_one_line(
    run: Run,
    refused: Refused,
    phantom_png: Path,
    residue_model_file: Path,
    arguments: list[str],
    naming: str,
    code: int,
) -> None:
    refused("encode", phantom_png, *arguments, "--model", residue_model_file, naming=naming, code=code)


def test_a_model_without_the_network_is_one_line(refused: Refused, phantom_png: Path) -> None:
    refused("encode", phantom_png, "--lossless", naming="has no network for residues")


def test_a_quality_that_a_file_does_not_hold_is_one_line(
    run: Run, refused: Refused, codes: Path
) -> None:
    refused("decode", codes, "-q", "3", naming="quality 3, but this file has 1 to 2")
