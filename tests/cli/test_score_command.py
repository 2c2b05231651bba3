"""What `score` prints of a split."""

import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
from conftest import Run, files_below, fingerprint, write_raw_folder


@pytest.fixture
def prepared(run: Run, raw_folder: Path, tmp_path: Path) -> Path:
    assert run("preprocess", raw_folder, "-o", "prepared", "--size", "64").code == 0
    return tmp_path / "prepared"


def test_score_as_json_has_every_field(run: Run, model_file: Path, prepared: Path) -> None:
    result = run("score", prepared, "--json", "-q", "1", "-q", "3", "--model", model_file)
    assert result.code == 0
    scores = json.loads(result.out)
    assert scores["split"] == "validation"
    assert (scores["slices"], scores["subjects"], scores["size"]) == (8, 2, 64)
    assert scores["fingerprint"] == fingerprint(model_file)
    assert [quality["levels"] for quality in scores["qualities"]] == [1, 3]
    for row in [*scores["qualities"], scores["black"]]:
        for metric in ("ssim", "foreground_ssim", "psnr"):
            assert set(row[metric]) == {"mean", "deviation"}
            assert np.isfinite(row[metric]["mean"])
        assert row["worst_ssim"] <= row["ssim"]["mean"]
        assert row["worst_slice"].startswith("keras_png_slices_validate/case_00")
    low, high = scores["qualities"]
    assert low["file_bytes"] < high["file_bytes"]
    assert low["bits_per_pixel"] == pytest.approx(8 * low["file_bytes"] / 64**2)
    assert low["ratio_to_png"] > high["ratio_to_png"]
    assert scores["black"]["file_bytes"] == 0


def test_scored_bytes_are_those_of_whole_files(
    run: Run, model_file: Path, prepared: Path, raw_folder: Path, tmp_path: Path
) -> None:
    scores = json.loads(run("score", prepared, "--json", "--model", model_file).out)
    run("encode", raw_folder / "keras_png_slices_validate", "-o", "codes", "--model", model_file)
    sizes = [path.stat().st_size for path in (tmp_path / "codes").glob("*.codes")]
    assert len(sizes) == 8
    assert scores["qualities"][0]["file_bytes"] == pytest.approx(np.mean(sizes))


def test_score_prints_a_table_with_the_black_image(run: Run, model_file: Path, prepared: Path) -> None:
    result = run("score", prepared, "--split", "train", "--model", model_file)
    assert result.code == 0
    first, head, row, black, worst = result.out.splitlines()
    assert first.startswith("train: 12 slices of 3 subjects, 64×64, model ")
    assert fingerprint(model_file)[:8] in first
    assert "foreground SSIM" in head
    assert "PSNR" in head
    assert row.split()[0] == "2"
    assert black.split()[:4] == ["black", "-", "-", "-"]
    assert worst.startswith("worst at quality 2: keras_png_slices_train/case_00")
    assert result.err.splitlines() == [f"model {fingerprint(model_file)[:8]}: {model_file} (named)"]


def test_score_takes_a_raw_folder_and_leaves_nothing_behind(
    run: Run,
    model_file: Path,
    prepared: Path,
    raw_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A raw folder is prepared as the model was trained: its card says scans of 64 pixels."""
    of_prepared = json.loads(run("score", prepared, "--json", "--model", model_file).out)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    before = files_below(tmp_path)
    result = run("score", raw_folder, "--json", "--model", model_file)
    assert result.code == 0
    assert json.loads(result.out) == of_prepared
    assert files_below(tmp_path) == before
    assert not list(temporary.iterdir())


def test_score_of_labels_has_dice(run: Run, model_file: Path, tmp_path: Path) -> None:
    raw = write_raw_folder(tmp_path / "labels", {"validate": [1, 2]}, slices=1, kind="seg")
    options = ("--images", "segmentations", "--size", "64", "--model", model_file)
    scores = json.loads(run("score", raw, "--json", *options).out)
    assert set(scores["qualities"][0]["dice"]) == {"85", "170", "255"}
    assert "Dice at quality 2: label 85 " in run("score", raw, *options).out


@pytest.mark.parametrize("option", [("--every", "2"), ("--samples", "8")])
def test_one_scan_has_no_split(
    run: Run, model_file: Path, phantom_png: Path, option: tuple[str, str]
) -> None:
    result = run("score", phantom_png, "--model", model_file, *option)
    assert result.code == 2
    assert "--every and --samples are for a split; name a dataset" in result.err


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (("data", "--samples", "4", "-q", "1"), "--samples goes with --against, -q and --every only in"),
        (("data", "--against", "avif", "-q", "1"), "--against compares every quality; leave out -q"),
        (("data", "--reuse", "old.json"), "--reuse is for --against"),
        (("scan.png", "--size", "64"), "--images and --size are for a folder of a dataset"),
    ],
)
def test_options_without_effect_are_refused(
    run: Run, phantom_png: Path, tmp_path: Path, given: tuple[str, ...], says: str
) -> None:
    (tmp_path / "data").mkdir()
    result = run("score", *given)
    assert result.code == 2
    assert says in result.err
