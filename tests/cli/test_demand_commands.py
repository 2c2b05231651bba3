"""What is demanded of files on the command line, and what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import Refused, Run, draw_phantom, files_below
from PIL import Image


@pytest.fixture(autouse=True)
def model(residue_model_file: Path, monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    monkeypatch.setenv("OASISVQ_MODEL", str(residue_model_file))


@pytest.fixture
def folder(tmp_path: Path, rng: np.random.Generator) -> Path:
    path = tmp_path / "in"
    path.mkdir()
    for name in ("a", "b"):
        Image.fromarray(draw_phantom(rng)).save(path / f"{name}.png")
    return path


def test_a_quality_is_kept_and_said(run: Run, phantom_png: Path) -> None:
    result = run("encode", "scan.png", "--min-ssim", "0.97", "--json")
    assert json.loads(result.out)["kept"]["ssim"] >= 0.97
    text = run("encode", "scan.png", "--min-ssim", "0.97", "-f").out
    assert ", quality 2, no voxel off by more than " in text.splitlines()[0]
    assert text.splitlines()[1].startswith("kept: SSIM 0.9")


def test_every_file_of_a_folder_meets_what_is_demanded(run: Run, folder: Path, tmp_path: Path) -> None:
    call = ("encode", "in", "-o", "out", "--min-psnr", "40", "--log", "log.jsonl", "-f")
    assert run(*call).code == 0
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [row["file"] for row in rows] == ["in/a.png", "in/b.png"]
    assert all(row["psnr"] >= 40 and row["max_error"] > 0 for row in rows)


def test_what_is_there_is_skipped_where_the_demands_give_the_same(
    run: Run, folder: Path, tmp_path: Path
) -> None:
    assert run("encode", "in", "-o", "out", "--min-psnr", "40").code == 0
    before = files_below(tmp_path / "out")
    assert run("encode", "in", "-o", "out", "--min-psnr", "40").out.startswith(
        "out: 0 encoded, 2 already there"
    )
    other = run("encode", "in", "-o", "out", "--min-psnr", "50")
    assert other.code == 1 and "a.codes: exists; pass -f" in other.err
    # a dry run says the same
    assert "0 to encode" in run("encode", "in", "-o", "out", "--min-psnr", "40", "--dry-run").out
    dry = run("encode", "in", "-o", "out", "--min-psnr", "50", "--dry-run")
    assert "a.codes: exists; pass -f" in dry.out + dry.err
    assert files_below(tmp_path / "out") == before


def test_a_file_that_cannot_meet_them_fails_and_the_others_go_on(
    run: Run, folder: Path, tmp_path: Path, rng: np.random.Generator
) -> None:
    noise = rng.integers(0, 255, (64, 64)).astype(np.uint8)
    Image.fromarray(noise).save(folder / "noise.png")
    result = run("encode", "in", "-o", "out", "--min-ssim", "0.97", "--max-bytes", "2500")
    assert result.code == 1
    assert result.out.startswith("out: 2 encoded")
    assert "in/noise.png: SSIM 0.97 takes" in result.err
    assert not (tmp_path / "out" / "noise.codes").exists()


@pytest.mark.parametrize(
    ("options", "naming"),
    [
        (("--min-ssim", "1.2"), "--min-ssim 1.2: expected more than 0 and at most 1"),
        (("--min-psnr", "-3"), "--min-psnr -3: expected"),
        (("--min-foreground-ssim", "0"), "--min-foreground-ssim 0: expected"),
        (("--max-bytes", "10"), "--max-bytes 10: no file is so small"),
        (("--min-ssim", "0.9", "-q", "2"), "leave one out"),
        (("--max-bytes", "900", "--lossy"), "--lossy"),
    ],
)
def test_what_cannot_be_demanded_is_a_usage_error(
    refused: Refused, phantom_png: Path, options: tuple[str, ...], naming: str
) -> None:
    refused("encode", "scan.png", *options, naming=naming, code=2)


def test_what_no_file_satisfies_names_the_nearest(
    refused: Refused, phantom_png: Path, residue_model_file: Path
) -> None:
    refused("encode", "scan.png", "--max-bytes", "40", naming="its smallest file takes")
    line = refused(
        "encode", "scan.png", "--min-ssim", "0.99", naming="scan.png: SSIM 0.99 cannot be kept"
    )
    assert "all 3 levels, for this model has no network for residues" in line
    line = refused(
        *("encode", "scan.png", "--model", residue_model_file, "--min-ssim", "0.99"),
        *("--max-bytes", "400"),
        naming="SSIM 0.99 takes",
    )
    assert "more than --max-bytes 400; the nearest that fits keeps SSIM" in line
