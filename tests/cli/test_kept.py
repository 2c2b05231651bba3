"""What encoding kept is said: the same numbers by every command, a row for every file of a log."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from conftest import Refused, Run, draw_phantom, draw_volume, plane
from PIL import Image

import oasisvq
from oasisvq.codec.measure import similarity


@pytest.fixture
def scans(tmp_path: Path, rng: np.random.Generator) -> Path:
    """A folder of three images, the last of them no image."""
    folder = tmp_path / "scans"
    (folder / "deep").mkdir(parents=True)
    Image.fromarray(draw_phantom(rng)).save(folder / "a.png")
    Image.fromarray(draw_phantom(rng)).save(folder / "deep" / "b.png")
    (folder / "z.png").write_text("no image")
    return folder


def test_every_command_gives_the_same_numbers_of_a_file(
    run: Run, model_file: Path, phantom_png: Path, tmp_path: Path
) -> None:
    ours = ("--model", model_file)
    line = run("encode", "scan.png", "-q", "2", *ours).out.splitlines()[1]
    assert run("decode", "scan.codes", *ours).code == 0
    original, restored = plane(phantom_png), plane(tmp_path / "scan.decoded.png")
    found = similarity(original, restored, 255)
    largest = np.abs(original.astype(int) - restored).max()
    ssim = f"SSIM {found.ssim:.4f} (foreground {found.foreground_ssim:.4f})"
    assert line == f"kept: {ssim}, PSNR {found.psnr:.2f} dB, largest error {largest}, on a range of 255"
    assert ssim in run("show", "scan.codes", *ours).out
    (scored,) = json.loads(run("score", "scan.png", "-q", "2", "--json", *ours).out)
    assert scored["ssim"] == pytest.approx(found.ssim, abs=1e-12)
    assert scored["foreground_ssim"] == pytest.approx(found.foreground_ssim, abs=1e-12)
    assert scored["psnr"] == pytest.approx(found.psnr, abs=1e-9)
    assert (scored["largest_error"], scored["data_range"]) == (largest, 255)
    codec = oasisvq.load(model_file)
    assert codec.measure(original, codec.encode(original, 2)).ssim == scored["ssim"]


def test_a_volume_says_its_range_and_is_measured_as_score_does(
    run: Run, model_file: Path, tmp_path: Path, rng: np.random.Generator
) -> None:
    import nibabel

    nibabel.Nifti1Image(draw_volume(rng), np.eye(4)).to_filename(tmp_path / "v.nii.gz")
    result = run("encode", "v.nii.gz", "--json", "--model", model_file)
    kept = json.loads(result.out)["kept"]
    (scored,) = json.loads(run("score", "v.nii.gz", "--json", "--model", model_file).out)
    assert kept["ssim"] == pytest.approx(scored["ssim"], abs=1e-12)
    assert kept["largest_error"] == scored["largest_error"]
    text = run("encode", "v.nii.gz", "-f", "--model", model_file).out.splitlines()[1]
    assert text.endswith(f"on a range of {scored['data_range']:.6g}")


def test_labels_and_nothing_lost_need_no_measure(
    run: Run, residue_model_file: Path, tmp_path: Path, rng: np.random.Generator
) -> None:
    labels = (np.digitize(draw_phantom(rng), [1, 90]) * 100).astype(np.uint8)
    Image.fromarray(labels).save(tmp_path / "seg.png")
    Image.fromarray(draw_phantom(rng)).save(tmp_path / "scan.png")
    assert len(run("encode", "seg.png", "--model", residue_model_file).out.splitlines()) == 1
    exact = run("encode", "scan.png", "--lossless", "--model", residue_model_file).out
    assert exact.endswith(", nothing lost\n")


def test_quick_measures_nothing(run: Run, model_file: Path, scans: Path) -> None:
    one = run("encode", "scans/a.png", "-o", "a.codes", "--quick", "--model", model_file)
    assert len(one.out.splitlines()) == 1
    many = run("encode", "scans", "-o", "out", "--quick", "--json", "--model", model_file)
    kept = json.loads(many.out)["kept"]
    assert (kept["scans"], kept["measured"], kept["ssim"], kept["worst"]) == (2, 0, None, None)


def test_a_folder_says_the_mean_the_worst_and_the_rate(
    run: Run, model_file: Path, scans: Path, tmp_path: Path
) -> None:
    result = run("encode", "scans", "-o", "out", "--log", "log.jsonl", "--model", model_file)
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    done = [row for row in rows if row["status"] == "encoded"]
    worst = min(done, key=lambda row: row["ssim"])
    first, second, *_ = result.out.splitlines()
    bits = 8 * sum(row["bytes"] for row in done) / (2 * 64 * 64)
    assert f"{bits:.4f} bits a voxel" in first
    assert f"mean of 2: SSIM {np.mean([row['ssim'] for row in done]):.4f}" in second
    assert second.endswith(f"worst: {worst['file']}, SSIM {worst['ssim']:.4f}")
    assert "2 slices in" in result.err and "a second" in result.err


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_a_log_has_a_row_for_every_file(
    run: Run, model_file: Path, scans: Path, tmp_path: Path, jobs: str
) -> None:
    ours = ("--jobs", jobs, "--model", model_file)
    assert run("encode", "scans", "-o", "out", "--log", "log.csv", *ours).code == 1
    assert run("encode", "scans", "-o", "out", "--log", "again.jsonl", *ours).code == 1
    with (tmp_path / "log.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    again = [json.loads(line) for line in (tmp_path / "again.jsonl").read_text().splitlines()]
    files = ["scans/a.png", "scans/z.png", "scans/deep/b.png"]
    assert [row["file"] for row in rows] == [row["file"] for row in again] == files
    assert [row["status"] for row in rows] == ["encoded", "failed", "encoded"]
    assert [row["status"] for row in again] == ["already there", "failed", "already there"]
    assert rows[1]["message"].startswith("scans/z.png: ") and rows[1]["ssim"] == ""
    assert all(row.keys() == again[0].keys() for row in rows)
    for row in (rows[0], rows[2]):
        assert int(row["bytes"]) == (tmp_path / row["codes"]).stat().st_size
        assert float(row["data_range"]) == 255 and 0 < float(row["ssim"]) < 1


def test_a_log_of_one_file(run: Run, model_file: Path, phantom_png: Path, tmp_path: Path) -> None:
    assert run("encode", "scan.png", "--log", "log.jsonl", "--model", model_file).code == 0
    row = json.loads((tmp_path / "log.jsonl").read_text())
    assert (row["file"], row["codes"], row["levels"]) == ("scan.png", "scan.codes", 2)
    assert row["ratio"] == pytest.approx(row["bytes_in"] / row["bytes"], abs=1e-4)
    (tmp_path / "none.png").write_text("no image")
    assert run("encode", "none.png", "--log", "none.jsonl", "--model", model_file).code == 1
    row = json.loads((tmp_path / "none.jsonl").read_text())
    assert (row["file"], row["status"], row["ssim"]) == ("none.png", "failed", None)
    assert "none.png: " in row["message"]


def test_a_log_of_another_ending_or_in_the_way_is_refused(
    refused: Refused, phantom_png: Path, tmp_path: Path
) -> None:
    refused("encode", "scan.png", "--log", "log.txt", naming="log.txt: expected")
    (tmp_path / "log.csv").write_text("mine")
    refused("encode", "scan.png", "--log", "log.csv", naming="log.csv: exists; name another log")
    refused("encode", "scan.png", "--log", "no/log.csv", naming="the folder no does not exist")
