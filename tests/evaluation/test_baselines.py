"""Rate-distortion curves, BD-rates, and the classic codecs beside ours."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import Result, draw_phantom, write_raw_folder
from PIL import features

from oasisvq.data.preprocess import preprocess
from oasisvq.errors import ModelError
from oasisvq.evaluation.baselines import (
    MEASURES,
    PEERS,
    BDRate,
    Comparison,
    RatePoint,
    _Curve,
    load,
    read_comparison,
    require_peers,
    save,
)
from oasisvq.evaluation.rates import bd_rate


def curve(*points: tuple[float, float, float]) -> list[RatePoint]:
    """Points of (bytes, SSIM, PSNR)."""
    return [RatePoint("", size, ssim, ssim, psnr, 0, 0, ssim) for size, ssim, psnr in points]


SOME = curve((500, 0.90, 30), (1000, 0.95, 33), (2000, 0.97, 36), (4000, 0.985, 39))


def test_the_bd_rate_of_a_curve_with_half_the_bytes_is_minus_50() -> None:
    halved = [point._replace(file_bytes=point.file_bytes / 2) for point in SOME]
    for measure in MEASURES:
        assert bd_rate(SOME, SOME, measure) == pytest.approx(0)
        assert bd_rate(halved, SOME, measure) == pytest.approx(-50)
        assert bd_rate(SOME, halved, measure) == pytest.approx(100)


def test_the_bd_rate_does_not_depend_on_the_order_of_points_nor_on_what_is_not_common() -> None:
    halved = [point._replace(file_bytes=point.file_bytes / 2) for point in SOME]
    assert bd_rate(halved[::-1], SOME, "ssim") == pytest.approx(-50)
    beyond = [*SOME, *curve((9000, 0.999, 50))]
    assert bd_rate(halved, beyond, "psnr") == pytest.approx(-50, abs=1)  # the ends bend otherwise


def test_the_bd_rate_of_published_curves() -> None:
    avif = curve(
        (760, 0.858, 29.2),
        (957, 0.900, 31.3),
        (1189, 0.926, 32.9),
        (1491, 0.947, 34.6),
        (1966, 0.963, 36.5),
        (2690, 0.976, 38.7),
        (3641, 0.984, 41.0),
    )
    prototype = curve((438, 0.924, 30.0), (986, 0.957, 33.1), (1569, 0.969, 34.8), (2180, 0.974, 35.8))
    assert bd_rate(prototype, avif, "ssim") == pytest.approx(-45, abs=0.5)
    assert bd_rate(prototype, avif, "psnr") == pytest.approx(-21, abs=0.5)


def test_curves_without_a_common_range_have_no_bd_rate() -> None:
    worse = curve((500, 0.5, 10), (1000, 0.6, 20))
    assert bd_rate(SOME, worse, "psnr") is None


@pytest.mark.parametrize("name", ["avif", "webp", "jpeg2000", "jpeg"])
def test_a_peer_grows_and_improves_with_its_settings(name: str, rng: np.random.Generator) -> None:
    plane = draw_phantom(rng)
    peer = PEERS[require_peers([name])[0]]
    first, last = (save(plane, peer.image_format, peer.settings[place]) for place in (0, -1))
    errors = [np.abs(load(content).astype(int) - plane).mean() for content in (first, last)]
    assert len(first) < len(last)
    assert errors[0] > errors[1]
    assert load(first).shape == plane.shape


def test_an_unknown_peer_is_refused() -> None:
    with pytest.raises(ModelError, match="no codec 'gif' to compare with, expected avif, "):
        require_peers(["gif"])


@pytest.fixture
def data(tmp_path: Path) -> Path:
    raw = write_raw_folder(tmp_path / "raw", {"train": [1], "validate": [2, 3]}, slices=3)
    return preprocess(raw, tmp_path / "data", size=64).folder


def test_score_against_prints_curves_and_bd_rates(
    run: Callable[..., Result], data: Path, model_file: Path
) -> None:
    result = run("score", data, "--against", "jpeg", "--model", model_file)
    assert result.code == 0
    assert "validation: 6 slices" in result.out
    assert "  -q 3 " in result.out
    assert "  quality 60 " in result.out
    assert "BD-rate against jpeg: ssim " in result.out


def test_score_against_reuses_what_an_earlier_run_measured(
    run: Callable[..., Result], data: Path, model_file: Path, tmp_path: Path
) -> None:
    common = ("score", data, "--model", model_file, "--every", "2", "--json")
    first = run(*common, "--against", "jpeg,webp")
    assert first.code == 0
    earlier = tmp_path / "earlier.json"
    earlier.write_text(first.out)
    again = json.loads(run(*common, "--against", "jpeg,jpeg2000", "--reuse", earlier).out)
    known = json.loads(first.out)
    assert again["slices"] == 3
    assert again["curves"]["jpeg"] == known["curves"]["jpeg"]  # its times as well
    assert set(again["curves"]) == {"oasisvq", "jpeg", "jpeg2000"}
    other = run("score", data, "--model", model_file, "--against", "jpeg", "--reuse", earlier)
    assert other.code == 1
    assert "the earlier comparison took one slice in 2 of validation" in other.err
    point = known["curves"]["jpeg"][0]
    for spoilt in (
        [],
        [point | {"ssim": "0.9"}],
        [point | {"setting": 5}],
        [point | {"psnr": 10**400}],
        [point | {"psnr": float("nan")}],
        [point | {"file_bytes": 0}],
        [point | {"more": 1}],
        None,
    ):
        curves = {"curves": known["curves"] | {"jpeg": spoilt}} if spoilt is not None else {}
        earlier.write_text(json.dumps(known | curves if curves else {}))
        refused = run(*common, "--against", "jpeg", "--reuse", earlier)
        assert refused.code == 1
        assert f"{earlier}: not what `oasisvq score --against ... --json` prints" in refused.err


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF")
def test_avif_is_measured_with_and_without_its_headers(
    run: Callable[..., Result], data: Path, model_file: Path, tmp_path: Path
) -> None:
    common = ("score", data, "--model", model_file, "--every", "6")
    printed = run(*common, "--against", "avif", "--json")
    assert printed.code == 0
    found = json.loads(printed.out)
    files, bare = found["curves"]["avif"], found["curves"]["avif-data"]
    heads = {
        with_.pop("file_bytes") - without.pop("file_bytes")
        for with_, without in zip(files, bare, strict=True)
    }
    assert files == bare
    assert all(100 < head < 500 for head in heads)
    assert set(found["bd_rates"]) == {"avif", "avif-data"}
    (tmp_path / "earlier.json").write_text(printed.out)
    again = run(*common, "--against", "avif,jpeg", "--reuse", tmp_path / "earlier.json")
    assert "avif-data (the same without the container's headers)" in again.out
    assert "BD-rate against avif-data: ssim " in again.out


def test_a_comparison_without_any_foreground_can_be_read_again(tmp_path: Path) -> None:
    point = RatePoint("q 1", 100.0, 0.9, math.nan, 30.0, 0.1, 0.1, 0.8)
    rates = {"avif": BDRate(-1.0, None, 2.0)}
    comparison = Comparison("test", 4, 1, "00", "11", {"oasisvq": [point], "avif": [point]}, rates)
    written = json.dumps(comparison.as_dict(), allow_nan=False)
    (tmp_path / "old.json").write_text(written)
    again = read_comparison(tmp_path / "old.json")
    assert math.isnan(again.curves["avif"][0].foreground_ssim)
    assert json.dumps(again.as_dict(), allow_nan=False) == written


def test_slices_without_foreground_have_none_on_the_curve() -> None:
    curve = _Curve("q 1")
    dim = np.full((32, 32), 5, np.uint8)
    curve.add(dim, lambda plane: bytes(10), lambda content: dim + 1)
    point = curve.point()  # warnings are errors here
    assert point.file_bytes == 10
    assert math.isnan(point.foreground_ssim)
