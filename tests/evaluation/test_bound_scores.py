"""Files within bounds beside other codecs that guarantee as much."""

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
from conftest import AFFINE, Run, draw_phantom, draw_volume
from numpy.typing import NDArray

from oasisvq.codec.measure import Scale
from oasisvq.errors import ImageError, ModelError
from oasisvq.evaluation import bounded
from oasisvq.evaluation.bound_scores import bound_of
from oasisvq.evaluation.bounded import PEERS, is_installed, require_bounded

OF_SLICES = ("jpegls", "jpegxl")


@pytest.fixture(autouse=True)
def _installed() -> None:
    for name in PEERS:
        if not is_installed(name):
            pytest.skip(f"{name} needs {bounded.NEEDS}")


@pytest.fixture
def volume(tmp_path: Path, rng: np.random.Generator) -> Path:
    path = tmp_path / "brain.nii.gz"
    nibabel.save(nibabel.Nifti1Image(draw_volume(rng, slices=5), AFFINE), path)
    return path


def volumes(rng: np.random.Generator) -> dict[str, NDArray[np.generic]]:
    """(S, H, W) of several types."""
    planes = np.ascontiguousarray(draw_volume(rng, slices=4).transpose(2, 0, 1))
    return {
        "uint8": draw_phantom(rng)[None],
        "int16": planes - 700,
        "uint16": (planes * 20).astype(np.uint16),
        "int32": planes.astype(np.int32) * 1000,
        "float32": (planes / 7).astype(np.float32),
        "float64": planes / 7,
    }


@pytest.mark.parametrize("name", PEERS)
@pytest.mark.parametrize("bound", [0, 1, 5])
def test_no_voxel_is_beyond_the_bound(name: str, bound: int, rng: np.random.Generator) -> None:
    coder, coded = PEERS[name].coder, []
    for kind, planes in volumes(rng).items():
        if coder.refuses(planes, bound):
            continue
        restored = coder.decode(coder.encode(planes, bound), planes)
        assert (restored.dtype, restored.shape) == (planes.dtype, planes.shape)
        away = np.abs(restored.astype(np.float64) - planes.astype(np.float64))
        assert away.max() <= bound + 1e-5, kind
        coded.append(kind)
    if name in OF_SLICES:
        assert coded == ([] if name == "jpegxl" and bound else ["uint8", "int16", "uint16"])
    else:
        assert coded == ["int16", "uint16", "int32", *(["float32", "float64"] if bound else [])]


def test_a_coder_says_why_it_cannot(rng: np.random.Generator) -> None:
    kinds = volumes(rng)
    assert PEERS["jpegls"].coder.refuses(kinds["uint16"], 256) == "has no bound above 255"
    assert PEERS["jpegls"].coder.refuses(kinds["int32"], 0) == (
        "codes whole numbers of up to 16 bits alone"
    )
    assert PEERS["sperr"].coder.refuses(kinds["uint8"], 1) == "codes several slices together"
    kinds["float32"][0, 0, 0] = np.nan
    assert PEERS["sz3"].coder.refuses(kinds["float32"], 1) == "does not code NaN"


def test_bounds_are_numbers_or_shares_of_the_range() -> None:
    scale = Scale(0.0, 1653.0)
    assert [bound_of(each, scale, is_whole=True) for each in ("0", "3", "0.2%", "5%")] == [0, 3, 3, 82]
    assert bound_of("0.01%", scale, is_whole=True) == 1
    assert bound_of("0.5%", Scale(-1.0, 3.0), is_whole=False) == pytest.approx(0.015)
    for wrong in ("-1", "much", "nan", "inf", "%"):
        with pytest.raises(ImageError, match=f"--max-error {wrong}, expected a number from 0 on"):
            bound_of(wrong, scale, is_whole=True)
    with pytest.raises(ImageError, match="give a whole number"):
        bound_of("0.5", scale, is_whole=True)


def test_peers_are_asked_for_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    assert require_bounded(["sz3", "jpegls", "sz3"], is_volume=True) == ["sz3", "jpegls"]
    with pytest.raises(ModelError, match="no codec 'sz3' to compare with on slices within a bound"):
        require_bounded(["sz3"], is_volume=False)
    monkeypatch.setattr(bounded, "is_installed", lambda name: False)
    with pytest.raises(ModelError, match=r"sz3: not installed; it needs imagecodecs: pip install"):
        require_bounded(["sz3"], is_volume=True)


def test_score_of_a_volume_within_bounds(run: Run, volume: Path, residue_model_file: Path) -> None:
    options = ("--max-error", "1%", "--lossless", "--model", residue_model_file)
    result = run("score", volume, "--against", ",".join(PEERS), *options, "--json")
    assert result.code == 0, result.err
    found = json.loads(result.out)
    assert [(each["codec"], each["bound"]) for each in found["points"]] == [
        *(("oasisvq", 16), ("jpegls", 16), ("sperr", 16), ("sz3", 16), ("zfp", 16)),
        *(("oasisvq", 0), ("jpegls", 0), ("jpegxl", 0), ("sperr", 0), ("sz3", 0), ("zfp", 0)),
    ]
    sizes = {(each["codec"], each["bound"]): each["file_bytes"] for each in found["points"]}
    for each in found["points"]:
        assert each["largest_error"] <= each["bound"]
        assert each["psnr"] == 100 or each["bound"]
        if each["codec"] != "oasisvq":
            ratio = found["ratios"][f"{each['bound']:g}"][each["codec"]]
            assert ratio == sizes["oasisvq", each["bound"]] / each["file_bytes"]
    assert found["left_out"] == {"16": {"jpegxl": "has no bound but 0"}}


def test_score_of_a_split_within_bounds(run: Run, prepared: Path, residue_model_file: Path) -> None:
    options = ("--max-error", "2", "--max-error", "0", "-q", "1", "--model", residue_model_file)
    result = run("score", prepared, "--against", "jpegls,jpegxl", *options)
    assert result.code == 0, result.err
    head, _, *rows = result.out.splitlines()
    assert head.startswith("validation: model ")
    assert head.endswith("PSNR on a range of 255; means over 2 slices")
    assert [row.split()[:2] for row in rows[:5]] == [
        *(["2", "oasisvq"], ["2", "jpegls"]),
        *(["0", "oasisvq"], ["0", "jpegls"], ["0", "jpegxl"]),
    ]
    assert "jpegls: JPEG-LS, CharLS, a file a slice" in rows
    assert rows[-1] == "bound 2: no jpegxl, which has no bound but 0"


def test_bounds_without_peers_or_with_a_report_are_usage_errors(
    run: Run, prepared: Path, model_file: Path
) -> None:
    for options in (
        ("--lossless",),
        ("--max-error", "1"),
        ("--lossless", "--against", "jpegls", "--report", "page.html"),
    ):
        result = run("score", prepared, *options, "--model", model_file)
        assert (result.code, result.out) == (2, "")
        assert result.err.startswith("oasisvq: --max-error and --lossless go with --against")
    two = ("--lossless", "--against", "jpegls", "-q", "1", "-q", "2")
    assert run("score", prepared, *two, "--model", model_file).code == 2
