"""What `info` says of codes, models and datasets."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from conftest import Run, draw_phantom, fingerprint
from PIL import Image

import oasisvq


def test_info_describes_codes(run: Run, model_file: Path, phantom_png: Path, tmp_path: Path) -> None:
    run("encode", phantom_png, "-q", "3", "--model", model_file)
    result = run("info", "scan.codes")
    assert result.code == 0
    assert result.err == ""
    facts = json.loads(run("info", "scan.codes", "--json").out)
    assert facts["model"] == fingerprint(model_file)
    assert facts["bytes"] == (tmp_path / "scan.codes").stat().st_size
    assert facts["bits_per_pixel"] == pytest.approx(8 * facts["bytes"] / 64**2, abs=1e-4)
    _, height, width = oasisvq.read_codes(tmp_path / "scan.codes").indices.shape
    assert facts["indices"] == f"3 levels × {height} × {width} of 20 codes"
    assert "64×64, uint8" in facts["original"]
    rows = dict(re.split(r"\s{2,}", line, maxsplit=1) for line in result.out.splitlines())
    assert rows == {key: str(fact) for key, fact in facts.items()}


def test_info_goes_by_content_and_not_by_name(
    run: Run, model_file: Path, phantom_png: Path, tmp_path: Path
) -> None:
    run("encode", phantom_png, "--model", model_file)
    (tmp_path / "scan.codes").rename(tmp_path / "renamed.png")
    assert ".codes file, version 1" in run("info", "renamed.png").out


def test_info_describes_a_model_and_a_run_folder_alike(run: Run, model_file: Path) -> None:
    of_file = run("info", model_file, "--json")
    of_folder = run("info", model_file.parent, "--json")
    assert of_file.code == of_folder.code == 0
    facts = json.loads(of_file.out)
    assert facts == json.loads(of_folder.out)
    assert facts["kind"] == "model"
    assert facts["fingerprint"] == fingerprint(model_file)
    assert facts["default_quality"] == 2
    assert facts["config"]["codebook_size"] == 20
    assert facts["training"] == {"images": "scans", "size": 64}
    assert facts["fingerprint"] in run("info", model_file).out


def test_info_describes_a_prior(run: Run, model_file: Path, prior_model_file: Path) -> None:
    facts = json.loads(run("info", prior_model_file, "--json").out)
    assert facts["fingerprint"] == fingerprint(prior_model_file) != fingerprint(model_file)
    assert facts["prior"]["passes"] == [8, 2, 1]
    assert facts["prior_bytes"] > 0
    without = json.loads(run("info", model_file, "--json").out)
    assert (without["prior"], without["prior_bytes"]) == (None, 0)


def test_info_describes_a_dataset(run: Run, raw_folder: Path) -> None:
    run("preprocess", raw_folder, "-o", "prepared", "--size", "64")
    facts = json.loads(run("info", "prepared", "--json").out)
    assert facts["kind"] == "prepared dataset"
    assert facts["size"] == "64×64"
    assert facts["made_from"] == str(raw_folder)
    assert facts["splits"] == {
        "train": {"slices": 12, "subjects": 3},
        "validation": {"slices": 8, "subjects": 2},
    }
    assert '"slices": 12' in run("info", "prepared").out


def test_info_of_a_folder_counts_its_codes(
    run: Run, model_file: Path, residue_model_file: Path, tmp_path: Path, rng: np.random.Generator
) -> None:
    (tmp_path / "in").mkdir()
    for name in ("a", "b"):
        Image.fromarray(draw_phantom(rng)).save(tmp_path / "in" / f"{name}.png")
    assert run("encode", "in", "-o", "codes", "-q", "2", "--model", model_file).code == 0
    exact = ("encode", "in/a.png", "-o", "codes/exact.codes", "--lossless")
    assert run(*exact, "--model", residue_model_file).code == 0
    (tmp_path / "codes" / "broken.codes").write_text("no codes")
    facts = json.loads(run("info", "codes", "--json").out)
    whole = [tmp_path / "codes" / f"{name}.codes" for name in ("a", "b", "exact")]
    assert (facts["codes"], facts["slices"]) == (4, 3)
    assert facts["bytes"] == sum(path.stat().st_size for path in whole)
    assert facts["bits_per_voxel"] == pytest.approx(8 * facts["bytes"] / (3 * 64 * 64), abs=1e-6)
    assert facts["qualities"] == {"damaged": 1, "nothing lost": 1, "quality 2": 2}
    assert facts["damaged_files"] == ["codes/broken.codes"]
    assert facts["models_not_here"] == {fingerprint(residue_model_file): 1}
    (known,) = facts["models"]
    assert (known["model"], known["needed_by"]) == (fingerprint(model_file), 2)
    assert "qualities" in run("info", "codes").out


@pytest.mark.parametrize("suffix", [".npz", ".safetensors", ".tokens"])
def test_info_describes_an_export(run: Run, model_file: Path, phantom_png: Path, suffix: str) -> None:
    assert run("encode", phantom_png, "-o", "codes/", "-q", "2", "--model", model_file).code == 0
    assert run("export", "codes", "-o", f"all{suffix}").code == 0
    facts = json.loads(run("info", f"all{suffix}", "--json").out)
    assert facts["kind"] == "array file of `oasisvq export`"
    assert (facts["files"], facts["subjects"]) == (1, 0)
    assert facts["indices"].startswith("1 × 2 × ")
    assert facts["model"] == fingerprint(model_file)
