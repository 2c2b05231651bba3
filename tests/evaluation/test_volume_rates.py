"""A volume against video and image coders over its slices."""

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
from conftest import AFFINE, Refused, Run, draw_volume, fingerprint
from numpy.typing import NDArray
from skimage.metrics import structural_similarity

from oasisvq.evaluation.rates import bd_rate
from oasisvq.evaluation.stills import StillCoder
from oasisvq.evaluation.video import SVT_AV1, VideoCoder
from oasisvq.evaluation.volume_quality import volume_quality
from oasisvq.evaluation.volume_rates import PEERS, VolumePoint


def installed(name: str) -> VideoCoder | StillCoder:
    """The coder of a peer, if this environment has it."""
    coder = PEERS[name].coder
    if not coder.is_installed:
        pytest.skip(f"{name} needs {PEERS[name].needs}")
    return coder


@pytest.fixture
def drawn(rng: np.random.Generator) -> NDArray[np.uint16]:
    """(5, 70, 83): slices that differ, of the whole range, smooth enough to be coded well."""
    rows, columns = np.mgrid[:70, :83]
    planes = [511.5 + 511.5 * np.sin((rows * (1 + place) + columns) / 25) for place in range(5)]
    return np.rint(planes).astype(np.uint16)


@pytest.fixture
def volume(tmp_path: Path, rng: np.random.Generator) -> Path:
    path = tmp_path / "brain.nii.gz"
    nibabel.save(nibabel.Nifti1Image(draw_volume(rng, slices=5), AFFINE), path)
    return path


@pytest.mark.parametrize("name", PEERS)
def test_coders_give_the_slices_back_in_order_at_their_size(
    name: str, drawn: NDArray[np.uint16]
) -> None:
    coder = installed(name)
    finest, coarsest = PEERS[name].settings[-1], PEERS[name].settings[0]
    chunks = coder.encode(drawn, finest)
    restored = coder.decode(chunks, drawn.shape)
    assert restored.shape == drawn.shape
    errors = np.abs(restored.astype(int) - drawn).mean(axis=(1, 2))
    assert (errors < 25).all(), errors  # of 1,023; two slices differ by 200 and more
    assert sum(map(len, coder.encode(drawn, coarsest))) < sum(map(len, chunks))


@pytest.mark.parametrize("name", ["av1", "svt-av1", "hevc"])
def test_bitstreams_hold_no_text_of_their_encoder(name: str, drawn: NDArray[np.uint16]) -> None:
    """x265 alone would write two kilobytes of its settings."""
    stream = b"".join(installed(name).encode(drawn, PEERS[name].settings[0])).lower()
    assert not any(word in stream for word in (b"x265", b"options", b"lavc", b"svt", b"aom"))


def test_slices_smaller_than_a_coder_takes_come_back_at_their_size(drawn: NDArray[np.uint16]) -> None:
    coder = installed("svt-av1")
    assert coder is SVT_AV1
    small = drawn[:1, :21, :40]
    restored = coder.decode(coder.encode(small, 20), small.shape)
    assert np.abs(restored.astype(int) - small).mean() < 25


def test_quality_is_of_slices_by_ssim_and_of_all_voxels_by_psnr(rng: np.random.Generator) -> None:
    original = np.zeros((3, 20, 24))
    original[:2, 4:16, 4:20] = rng.uniform(0.3, 1, (2, 12, 16))
    restored = np.clip(original + rng.normal(0, 0.03, original.shape), 0, 1)
    found = volume_quality(original, restored)
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    by_slice = [
        structural_similarity(first, second, data_range=1, **options)
        for first, second in zip(original, restored, strict=True)
    ]
    assert found.ssim == pytest.approx(np.mean(by_slice))
    errors = (original - restored) ** 2
    assert found.psnr == pytest.approx(-10 * np.log10(errors.mean()))
    assert found.foreground_psnr == pytest.approx(-10 * np.log10(errors[original > 0].mean()))
    assert 0 < found.foreground_ssim < 1
    assert volume_quality(original, original) == (1, 1, 100, 100)


def test_slices_too_small_for_ssim_and_scans_without_foreground_are_no_numbers() -> None:
    found = volume_quality(np.zeros((2, 9, 30)), np.full((2, 9, 30), 0.1))
    assert np.isnan([found.ssim, found.foreground_ssim, found.foreground_psnr]).all()
    assert found.psnr == pytest.approx(20)


def point(size: float, psnr: float) -> VolumePoint:
    return VolumePoint("", size, np.nan, np.nan, psnr, psnr, 0, 0)


def test_bd_rates_take_psnr_of_the_foreground_as_decibels() -> None:
    theirs = [point(1000 * 2**step, 30 + 3 * step) for step in range(4)]
    ours = [each._replace(file_bytes=each.file_bytes / 2) for each in theirs]
    assert bd_rate(ours, theirs, "foreground_psnr") == pytest.approx(-50)
    assert bd_rate(ours, theirs, "ssim") is None


def test_score_of_a_volume_against_peers(run: Run, volume: Path, model_file: Path) -> None:
    installed("hevc")
    result = run("score", volume, "--against", "hevc", "--model", model_file)
    assert result.code == 0, result.err
    assert result.out.startswith("brain.nii.gz: 5×40×48, model ")
    assert "  -q 3 " in result.out
    assert "hevc (x265, preset slow, 10 bit)" in result.out
    assert "  crf 15 " in result.out
    assert "BD-rate against hevc: ssim " in result.out


def test_curves_of_an_earlier_run_are_taken_for_the_same_volume_only(
    run: Run, refused: Refused, volume: Path, model_file: Path, tmp_path: Path, rng: np.random.Generator
) -> None:
    installed("hevc")
    installed("jpegxl")
    common = ("score", volume, "--model", model_file, "--json")
    first = run(*common, "--against", "hevc")
    known = json.loads(first.out)
    assert (known["scan"], known["shape"]) == ("brain.nii.gz", [5, 40, 48])
    assert known["fingerprint"] == fingerprint(model_file)
    assert len(known["curves"]["oasisvq"]) == 3
    sizes = [each["file_bytes"] for each in known["curves"]["hevc"]]
    assert sizes == sorted(sizes)
    assert set(known["bd_rates"]["hevc"]) == {"ssim", "foreground_ssim", "psnr", "foreground_psnr"}
    earlier = tmp_path / "earlier.json"
    earlier.write_text(first.out)
    again = json.loads(run(*common, "--against", "hevc,jpegxl", "--reuse", earlier).out)
    assert set(again["curves"]) == {"oasisvq", "hevc", "jpegxl"}
    assert again["curves"]["hevc"] == known["curves"]["hevc"]  # its times as well
    other = tmp_path / "other.nii.gz"
    nibabel.save(nibabel.Nifti1Image(draw_volume(rng, slices=4), AFFINE), other)
    options = ("--against", "hevc", "--reuse", earlier)
    refused("score", other, *options, naming="was measured on another volume")
    spoilt = known["curves"]["hevc"][0]
    for change in ({"psnr": "30"}, {"file_bytes": 0}, {"more": 1}, {"psnr": float("inf")}):
        curves = {"hevc": [spoilt | change]}
        earlier.write_text(json.dumps(known | {"curves": curves}))
        refused("score", volume, *options, naming=f"{earlier}: not what `oasisvq score FILE --against")


def test_unknown_and_missing_peers_are_one_line_each(
    refused: Refused, volume: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused("score", volume, "--against", "webp", naming="no codec 'webp' to compare with on a scan")
    monkeypatch.setattr(VideoCoder, "is_installed", False)
    monkeypatch.setattr(StillCoder, "is_installed", False)
    for name in PEERS:
        refused("score", volume, "--against", name, naming=f"{name}: not installed; it needs ")
