"""What a model typically keeps stands in its card, and tells scans that it does not suit."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from conftest import Run, draw_phantom
from PIL import Image

import oasisvq
from oasisvq.codec.codec import Codec
from oasisvq.codec.content import Content
from oasisvq.codec.measure import Measure
from oasisvq.codec.modelfile import read_model, write_model
from oasisvq.codec.typical import KEY, Range, Typical, typical_in, typical_of, unlike
from oasisvq.data.dataset import open_dataset
from oasisvq.errors import ModelError
from oasisvq.training.ending import end
from oasisvq.training.request import Trained


def measured(ssim: float, foreground: float = math.nan) -> Measure:
    return Measure(ssim, foreground, 30.0, 9, 255, ssim, 0)


@pytest.fixture
def demanding_model(residue_model_file: Path, tmp_path: Path) -> Path:
    """A model that says it keeps nearly all, so that no scan is like its own."""
    file = read_model(residue_model_file)
    row = {"bytes": 100.0, "ssim": [0.96, 0.97], "foreground_ssim": [0.9, 0.95]}
    said = {"slices": 4, "levels": [row] * file.config.levels}
    path = tmp_path / "demanding.safetensors"
    write_model(file.with_card(file.card | {KEY: said}), path)
    return path


def test_what_is_typical_is_a_range_that_most_slices_lie_in() -> None:
    measures = [measured(ssim, 2 * ssim - 1) for ssim in np.linspace(0.90, 1.0, 101)]
    found = typical_of(measures, [300] * 100 + [401])
    assert found.ssim == pytest.approx((0.905, 0.995))
    assert found.foreground_ssim == pytest.approx((0.81, 0.99))
    assert found.file_bytes == pytest.approx(301)
    assert typical_of([measured(0.9)], [1]).foreground_ssim is None


def test_a_scan_far_below_the_range_is_unlike_and_one_just_below_is_not() -> None:
    typical = Typical(700, Range(0.94, 0.97), Range(0.88, 0.94))
    assert unlike(measured(0.92, 0.86), typical) == ""
    assert unlike(measured(0.82, 0.86), typical) == "SSIM 0.82 (typical 0.94 to 0.97 at this quality)"
    assert unlike(measured(0.95, 0.71), typical).startswith("foreground SSIM 0.71 (typical 0.88 to 0.94")
    assert unlike(measured(math.nan), typical) == ""
    assert unlike(measured(0.95), typical._replace(foreground_ssim=None)) == ""


def test_the_card_says_it_for_each_quality_and_the_model_stays_the_same(
    model_file: Path, tmp_path: Path, rng: np.random.Generator
) -> None:
    codec = oasisvq.load(model_file)
    assert codec.typical == []
    planes = [draw_phantom(rng) for _ in range(3)]
    told: list[tuple[int, int]] = []
    card = codec.card_with_typical(planes, lambda done, total: told.append((done, total)))
    write_model(codec.file.with_card(card), tmp_path / "m.safetensors")
    again = oasisvq.load(tmp_path / "m.safetensors")
    assert again.fingerprint == codec.fingerprint
    assert told[-1] == (9, 9)
    assert len(again.typical) == codec.config.levels
    for levels, each in enumerate(again.typical, start=1):
        contents = [codec.encode(plane, levels, content=Content.SCAN) for plane in planes]
        ssim = [codec.measure(plane, c).ssim for plane, c in zip(planes, contents, strict=True)]
        assert each.ssim == pytest.approx(np.quantile(ssim, (0.05, 0.95)), abs=1e-4)
        assert each.file_bytes == pytest.approx(np.mean([len(c) for c in contents]), abs=0.1)


@pytest.mark.parametrize(
    "said",
    [
        [],
        {"levels": []},
        {"levels": [{}] * 3},
        {"levels": [{"bytes": "many", "ssim": [0, 1], "foreground_ssim": None}] * 3},
        {"levels": [{"bytes": 1, "ssim": [0, math.nan], "foreground_ssim": None}] * 3},
        {"levels": [{"bytes": 1, "ssim": [0], "foreground_ssim": None}] * 3},
        {"levels": [{"bytes": 1, "ssim": [0, 1], "foreground_ssim": None}] * 2},
    ],
)
def test_a_card_that_says_something_else_is_an_error(
    model_file: Path, tmp_path: Path, said: object
) -> None:
    with pytest.raises(ModelError, match="expected a row for each of 3 levels"):
        typical_in({KEY: said}, 3)
    file = read_model(model_file)
    write_model(file.with_card({KEY: said}), tmp_path / "m.safetensors")
    with pytest.raises(ModelError, match=r"m\.safetensors: damaged model file: its card says"):
        read_model(tmp_path / "m.safetensors")


def test_encode_says_that_a_scan_is_unlike_with_a_way_out(
    run: Run, demanding_model: Path, phantom_png: Path, tmp_path: Path
) -> None:
    ours = ("--model", demanding_model)
    result = run("encode", "scan.png", *ours)
    assert result.code == 0
    line = result.err.splitlines()[-1]
    assert line.startswith("SSIM 0.") and "(typical 0.96 to 0.97 at this quality): not like what" in line
    assert line.endswith("--min-ssim or --max-error keep more")
    for better in (("--min-ssim", "0.99"), ("--max-error", "2"), ("--quick",)):
        assert "not like" not in run("encode", "scan.png", "-f", *better, *ours).err


def test_a_folder_counts_the_scans_that_are_unlike(
    run: Run, demanding_model: Path, tmp_path: Path, rng: np.random.Generator
) -> None:
    (tmp_path / "in").mkdir()
    for name in ("a", "b"):
        Image.fromarray(draw_phantom(rng)).save(tmp_path / "in" / f"{name}.png")
    result = run("encode", "in", "-o", "out", "--log", "log.jsonl", "--model", demanding_model)
    line = result.err.splitlines()[-1]
    assert line.startswith("2 scans are not like what this model was trained on; ")
    assert "the first: in/a.png: SSIM 0." in line
    rows = [json.loads(each) for each in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert all(row["unlike"].startswith("SSIM 0.") for row in rows)


def test_a_model_without_such_a_card_says_nothing(run: Run, model_file: Path, phantom_png: Path) -> None:
    assert "not like" not in run("encode", "scan.png", "--model", model_file).err


def test_a_finished_training_adds_it_to_its_model(
    prepared: Path, model_file: Path, tmp_path: Path
) -> None:
    model = tmp_path / "model.safetensors"
    model.write_bytes(model_file.read_bytes())
    told: list[str] = []
    end(Trained(model, open_dataset(prepared), "codec", 1, finished=True, metrics_bytes=0), told.append)
    assert told[0] == "measuring what each quality keeps of 2 validation slices"
    assert len(Codec.load(model).typical) == 3
    assert Codec.load(model).fingerprint == Codec.load(model_file).fingerprint


def test_the_bundled_model_and_its_help_say_the_same(run: Run) -> None:
    typical = oasisvq.load().typical
    text = " ".join(run("encode", "--help").out.replace("│", " ").split())
    for levels in (1, 2, 4, 8):
        each = typical[levels - 1]
        middle = (each.ssim.low + each.ssim.high) / 2
        assert f"{levels}: {round(each.file_bytes, -1):,.0f} bytes, SSIM {middle:.2f}" in text


def test_another_card_leaves_all_parts_of_a_model(volumes_model_file: Path) -> None:
    file = read_model(volumes_model_file)
    other = file.with_card({"size": 64})
    assert other.fingerprint == file.fingerprint and other.card == {"size": 64}
    assert other.volumes is not None and other.residue is not None
