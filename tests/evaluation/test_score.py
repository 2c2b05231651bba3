"""Scores over a split, against the same numbers taken by hand."""

import io
import json
import math
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY, codec_of, tiny_model, write_raw_folder
from PIL import Image

from oasisvq.codec.codec import Codec
from oasisvq.codec.measure import similarity
from oasisvq.data.dataset import Dataset
from oasisvq.data.layouts import Images
from oasisvq.data.preprocess import preprocess
from oasisvq.errors import DatasetError, ModelError
from oasisvq.evaluation.score import score_split


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    raw = write_raw_folder(tmp_path / "raw", {"train": [1], "validate": [4, 5]}, slices=3)
    return preprocess(raw, tmp_path / "data", size=64)


def test_several_jobs_give_the_same_scores(dataset: Dataset) -> None:
    codec = codec_of(tiny_model())
    one, two = (score_split(codec, dataset, "validation", [1, 2], jobs=jobs) for jobs in (1, 2))
    assert one == two


def test_every_slice_counts_as_its_real_file(dataset: Dataset) -> None:
    codec = codec_of(tiny_model())
    result = score_split(codec, dataset, "validation", [1, 3])
    assert (result.slices, result.subjects, result.size) == (6, 2, 64)
    assert [each.levels for each in result.qualities] == [1, 3]
    planes = dataset.array("validation")
    contents = [codec.encode(np.asarray(plane), 3) for plane in planes]
    scores = [
        similarity(plane, codec.decode(content), 255)
        for plane, content in zip(planes, contents, strict=True)
    ]
    row = result.qualities[1]
    mean_bytes = np.mean([len(content) for content in contents])
    assert row.file_bytes == pytest.approx(mean_bytes)
    assert row.bits_per_pixel == pytest.approx(8 * mean_bytes / 64**2)
    assert row.ssim.mean == pytest.approx(np.mean([each.ssim for each in scores]))
    assert row.foreground_ssim.mean == pytest.approx(np.mean([each.foreground_ssim for each in scores]))
    assert row.psnr.mean == pytest.approx(np.mean([each.psnr for each in scores]))
    by_subject = [np.mean([s.ssim for s in scores[:3]]), np.mean([s.ssim for s in scores[3:]])]
    assert row.ssim.deviation == pytest.approx(np.std(by_subject))
    worst = int(np.argmin([each.ssim for each in scores]))
    assert row.worst_slice == dataset.splits["validation"].records[worst].source
    assert row.worst_ssim == pytest.approx(scores[worst].ssim)
    pngs = 0
    for plane in planes:
        encoded = io.BytesIO()
        Image.fromarray(np.asarray(plane)).save(encoded, format="PNG", optimize=True)
        pngs += len(encoded.getvalue())
    assert row.ratio_to_png == pytest.approx(pngs / (6 * mean_bytes))


def test_an_all_black_image_is_scored_beside_it(dataset: Dataset) -> None:
    black = score_split(codec_of(tiny_model()), dataset, "validation", [1]).black
    planes = [np.asarray(plane) for plane in dataset.array("validation")]
    by_hand = np.mean([similarity(plane, np.zeros_like(plane), 255).ssim for plane in planes])
    assert black.ssim.mean == pytest.approx(by_hand)
    assert 0 < black.ssim.mean < 1


class Perfect(Codec):
    """A codec that forgets nothing."""

    def encode(self, array: np.ndarray, *_: object, **__: object) -> bytes:  # type: ignore[type-arg,override]
        return array.tobytes()

    def decode(self, content: bytes) -> np.ndarray:  # type: ignore[type-arg]
        return np.frombuffer(content, np.uint8).reshape(64, 64)


def test_segmentations_get_dice_of_each_tissue(tmp_path: Path) -> None:
    raw = write_raw_folder(tmp_path / "raw", {"validate": [4, 5]}, slices=2, kind="seg")
    data = preprocess(raw, tmp_path / "data", images=Images.SEGMENTATIONS, size=64)
    codec = codec_of(tiny_model())
    labels = np.unique(data.array("validation"))
    dice = score_split(codec, data, "validation", [1]).qualities[0].dice
    assert list(dice) == [int(label) for label in labels[1:]]
    assert all(0 <= each <= 1 or math.isnan(each) for each in dice.values())
    codec.__class__ = Perfect
    perfect = score_split(codec, data, "validation", [1]).qualities[0]
    assert perfect.dice == dict.fromkeys(perfect.dice, 1.0)
    assert perfect.ssim.mean == pytest.approx(1)


def test_a_score_is_valid_json_without_nan(dataset: Dataset) -> None:
    fields = score_split(codec_of(tiny_model()), dataset, "train", [2]).as_dict()
    assert json.loads(json.dumps(fields, allow_nan=False)) == fields
    assert fields["qualities"][0]["ssim"].keys() == {"mean", "deviation"}


def test_an_unknown_split_or_quality_is_refused(dataset: Dataset) -> None:
    codec = codec_of(tiny_model())
    with pytest.raises(DatasetError, match="no split 'test'"):
        score_split(codec, dataset, "test", [1])
    with pytest.raises(ModelError, match=f"1 to {TINY.levels}"):
        score_split(codec, dataset, "validation", [9])
