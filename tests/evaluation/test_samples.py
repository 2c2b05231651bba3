"""Drawn slices: as files and pictures, beside their neighbours, and how far from real ones."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import Result, draw_phantom, write_raw_folder
from PIL import Image

import oasisvq
from oasisvq.codec.codec import Codec
from oasisvq.data.dataset import Dataset
from oasisvq.data.preprocess import preprocess
from oasisvq.errors import DatasetError
from oasisvq.evaluation import samples
from oasisvq.evaluation.samples import (
    Request,
    contact_sheet,
    draw_codes,
    frechet_distance,
    nearest_slices,
    score_samples,
)

Run = Callable[..., Result]


@pytest.fixture
def codec(prior_model_file: Path) -> Codec:
    return oasisvq.load(prior_model_file)


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    raw = write_raw_folder(tmp_path / "raw", {"train": [1, 2, 3], "validate": [4, 5]})
    return preprocess(raw, tmp_path / "prepared", size=64)


@pytest.fixture
def sample(run: Run, prior_model_file: Path) -> Run:
    def call(*arguments: str | Path) -> Result:
        result = run("sample", *arguments, "--model", prior_model_file)
        assert result.code == 0, result
        return result

    return call


def plane(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def test_samples_in_one_picture(sample: Run, tmp_path: Path) -> None:
    assert sample("-n", "3", "-o", "x.png").out == "x.png: 3 samples\n"
    sheet = plane(tmp_path / "x.png")
    assert sheet.shape == (2 * 64 + 4, 2 * 64 + 4)
    assert sheet[:64, :64].any()
    assert not sheet[68:, 68:].any()  # where a fourth would be
    again = (tmp_path / "x.png").read_bytes()
    sample("-n", "3", "-o", "x.png", "-f")
    assert (tmp_path / "x.png").read_bytes() == again
    for number, options in enumerate((("--seed", "1"), ("-q", "1"), ("--temperature", "3"))):
        sample("-n", "3", "-o", f"{number}.png", *options)
        assert (tmp_path / f"{number}.png").read_bytes() != again


def test_samples_as_files_are_those_of_the_picture(
    sample: Run, run: Run, prior_model_file: Path, tmp_path: Path
) -> None:
    sample("-n", "3", "-o", "x.png")
    assert sample("-n", "3", "-o", "images").out == "images: 3 samples\n"
    sample("-n", "11", "-o", "codes", "--codes")
    sample("-n", "1", "-o", "one.codes")
    sheet = plane(tmp_path / "x.png")
    names = [f"sample-{number}.png" for number in range(3)]
    assert sorted(path.name for path in (tmp_path / "images").iterdir()) == names
    np.testing.assert_array_equal(plane(tmp_path / "images" / names[1]), sheet[:64, 68:])
    assert sorted(path.name for path in (tmp_path / "codes").iterdir()) == [
        f"sample-{number:02}.codes" for number in range(11)
    ]
    for codes, image in (("codes/sample-02.codes", names[2]), ("one.codes", names[0])):
        assert run("decode", codes, "-o", "back.png", "-f", "--model", prior_model_file).code == 0
        np.testing.assert_array_equal(plane(tmp_path / "back.png"), plane(tmp_path / "images" / image))


def test_a_sample_is_the_same_however_many_are_drawn(
    codec: Codec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(samples, "SAMPLES_AT_ONCE", 3)
    grids = [codes.indices for codes in draw_codes(codec, Request(7))]
    for count in (1, 2, 4):
        fewer = [codes.indices for codes in draw_codes(codec, Request(count))]
        assert len(fewer) == count
        for ours, theirs in zip(fewer, grids, strict=False):
            np.testing.assert_array_equal(ours, theirs)
    assert len({grid.tobytes() for grid in grids}) == 7


def test_a_low_temperature_takes_the_likeliest(codec: Codec) -> None:
    def distinct(temperature: float) -> float:
        grids = [each.indices for each in draw_codes(codec, Request(12, temperature=temperature))]
        return float(np.mean([len(np.unique(grid)) for grid in grids]))

    assert distinct(0.05) < distinct(1.0) < distinct(10.0)


def test_neighbours_stand_beside_the_samples(sample: Run, dataset: Dataset, tmp_path: Path) -> None:
    result = sample("-n", "2", "-o", "x.png", "--neighbours", dataset.folder)
    assert result.out.splitlines()[0] == "x.png: 2 samples"
    assert "SSIM with the nearest training slice: mean " in result.out
    assert "keras_png_slices_train" in result.out
    sheet = plane(tmp_path / "x.png")
    assert sheet.shape == (64, 4 * 64 + 4)
    training = dataset.array("train")
    beside = sheet[:, 64:128]
    assert any((each == beside).all() or (each[::-1] == beside).all() for each in training)


def test_a_copy_of_a_training_slice_is_found(
    dataset: Dataset, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = dataset.array("train")
    monkeypatch.setattr(samples, "SLICES_AT_ONCE", 5)
    planes = [np.asarray(training[7]), np.ascontiguousarray(training[2][::-1]), draw_phantom(rng)]
    found = nearest_slices(planes, dataset)
    records = dataset.splits["train"].records
    assert [each.source for each in found[:2]] == [records[7].source, records[2].source]
    assert [each.ssim for each in found[:2]] == pytest.approx([1, 1])
    np.testing.assert_array_equal(found[1].plane, planes[1])
    assert found[2].ssim < 0.99
    differences = [
        np.square(planes[2] - each.astype(float)).sum() for each in (*training, *training[:, ::-1])
    ]
    assert np.square(planes[2] - found[2].plane.astype(float)).sum() == min(differences)


def test_planes_of_another_size_are_refused(dataset: Dataset) -> None:
    with pytest.raises(DatasetError, match="slices of 64×64, but the model draws 80×80"):
        nearest_slices([np.zeros((80, 80), np.uint8)], dataset)


@pytest.mark.parametrize(
    ("count", "columns", "shape"), [(1, None, (5, 7)), (5, None, (14, 29)), (4, 4, (5, 40))]
)
def test_a_contact_sheet_has_gaps_of_black(
    count: int, columns: int | None, shape: tuple[int, int]
) -> None:
    sheet = contact_sheet([np.full((5, 7), 9, np.uint8)] * count, columns)
    assert sheet.shape == shape
    assert (sheet > 0).sum() == count * 35


def test_the_distance_of_gaussians_with_diagonal_covariances() -> None:
    def points(across: float, down: float, centre: tuple[float, float]) -> np.ndarray:
        corners = np.array([(1, 1), (1, -1), (-1, 1), (-1, -1)])
        return corners * (across, down) + centre

    first, second = points(3, 1, (0, 0)), points(1, 5, (2, -1))
    # variances of these points are 4/3 of the squared half sides
    expected = 2**2 + 1 + 4 / 3 * ((3 - 1) ** 2 + (1 - 5) ** 2)
    assert frechet_distance(first, second) == pytest.approx(expected)
    assert frechet_distance(first, first) == pytest.approx(0, abs=1e-9)
    turn = np.array([[0.6, 0.8], [-0.8, 0.6]])
    assert frechet_distance(first @ turn, second @ turn) == pytest.approx(expected)


def test_samples_are_scored_beside_as_many_training_slices(
    codec: Codec, dataset: Dataset, run: Run, prior_model_file: Path
) -> None:
    score = score_samples(codec, dataset, "validation", 6)
    assert (score.samples, score.slices) == (6, 8)
    assert score.frechet_samples > score.frechet_training > 0  # the prior has learned nothing
    result = run("score", dataset.folder, "--samples", "6", "--model", prior_model_file)
    assert result.code == 0
    assert f"6 samples {score.frechet_samples:.4f}" in result.out


def test_samples_that_cannot_be_compared_are_refused_at_once(
    codec: Codec, dataset: Dataset, run: Run, prior_model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DatasetError, match="name another than train"):
        score_samples(codec, dataset, "train", 6)
    with pytest.raises(DatasetError, match=r"999 samples, but train has \d+ slices"):
        score_samples(codec, dataset, "validation", 999)
    monkeypatch.setattr(samples, "draw_codes", None)  # would be a TypeError
    ours = ("--model", prior_model_file)
    result = run("score", dataset.folder, "--report", "r.html", "--samples", "999", *ours)
    assert (result.code, "999 samples" in result.err) == (1, True)
