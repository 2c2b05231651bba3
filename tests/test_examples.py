"""The short examples run as they are printed, on drawn data."""

import runpy
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from conftest import AFFINE, draw_phantom, draw_volume
from PIL import Image

import oasisvq

EXAMPLES = Path(__file__).parents[1] / "examples"
MOST_LINES = 30


@pytest.fixture
def folder(
    tmp_path: Path, prior_model_file: Path, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> Path:
    """The working folder, with a few slices of two subjects."""
    monkeypatch.setenv("OASISVQ_MODEL", str(prior_model_file))
    monkeypatch.chdir(tmp_path)
    for name in ("case_001_slice_0.png", "case_001_slice_1.png", "case_002_slice_0.png"):
        Image.fromarray(draw_phantom(rng)).save(tmp_path / name)
    return tmp_path


def run_example(name: str, monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    path = EXAMPLES / name
    assert len(path.read_text().splitlines()) <= MOST_LINES
    monkeypatch.setattr(sys, "argv", [str(path), *map(str, arguments)])
    runpy.run_path(str(path), run_name="__main__")


def test_many_slices(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_example("many_slices.py", monkeypatch, *sorted(folder.glob("*.png")))
    printed = capsys.readouterr().out
    assert "3 slices" in printed
    assert "latents (5, 6, 6), vectors (6, 6, 6)" in printed
    assert "(64, 64)" in printed


def test_a_folder_of_scans_is_coded_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    run_example("folder_of_scans.py", monkeypatch, ".", "codes/", "case_002*")
    names = sorted(path.name for path in (folder / "codes").glob("*.codes") if "slice" in path.name)
    assert names == ["case_001_slice_0.codes", "case_001_slice_1.codes"]
    said = "".join(capfd.readouterr())
    assert "2 encoded" in said
    assert "2 already there" in said


def test_a_transformer_learns_from_tokens(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    codec = oasisvq.load()
    (folder / "codes").mkdir()
    paths = sorted(folder.glob("*.png"))
    for path, content in zip(paths, codec.encode_many(paths), strict=True):
        (folder / "codes" / f"{path.stem}.codes").write_bytes(content)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        run_example("token_transformer.py", monkeypatch, "codes", 41)
    bits = [float(line.split()[2]) for line in capsys.readouterr().out.splitlines()]
    assert bits[-1] < bits[0] / 2


def test_pillow_opens_codes(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    rng: np.random.Generator,
) -> None:
    codec = oasisvq.load()
    (folder / "a.codes").write_bytes(codec.encode(draw_phantom(rng)))
    (folder / "v.codes").write_bytes(codec.encode(draw_volume(rng), affine=AFFINE))
    run_example("open_in_pillow.py", monkeypatch, "a.codes", "v.codes")
    assert capsys.readouterr().out == "OASISVQ (64, 64) L\n(40, 48, 6)\n"
    middle = np.asarray(oasisvq.load_image("v.codes", place=3))
    np.testing.assert_array_equal(np.asarray(Image.open("middle.png")), middle)
    with Image.open("v.codes") as image, pytest.raises(EOFError, match="expected 0 to 5"):
        image.seek(6)
    (folder / "a.codes").write_bytes((folder / "a.codes").read_bytes()[:-1])
    with pytest.raises(oasisvq.CodesFileError, match=r"a\.codes"):
        Image.open("a.codes")


def test_an_export_of_volumes_is_trained_on(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    rng: np.random.Generator,
) -> None:
    (folder / "codes").mkdir()
    content = oasisvq.load().encode(draw_volume(rng), affine=AFFINE)
    (folder / "codes" / "sub-1.codes").write_bytes(content)
    run_example("export_volumes.py", monkeypatch, "codes", "all.tokens")
    printed = capsys.readouterr().out
    assert "6 slices of 1 file" in printed
    assert "sub-1, slice 0" in printed


def test_nibabel_loads_codes(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    rng: np.random.Generator,
) -> None:
    codec = oasisvq.load()
    (folder / "v.codes").write_bytes(codec.encode(draw_volume(rng), affine=AFFINE))
    (folder / "a.codes").write_bytes(codec.encode(draw_phantom(rng)))
    run_example("open_in_nibabel.py", monkeypatch, "v.codes")
    printed = capsys.readouterr().out
    assert "Nifti1Image (40, 48, 6)" in printed
    assert "axes to LAS" in printed
    image = nibabel.load("v.codes")
    np.testing.assert_array_equal(image.get_fdata(), oasisvq.load_volume("v.codes").get_fdata())
    with pytest.raises(oasisvq.ImageError, match="holds an image, expected a volume"):
        nibabel.load("a.codes")
    with pytest.raises(oasisvq.ImageError, match="use `oasisvq encode`"):
        nibabel.save(image, "other.codes")
    assert not Path("other.codes").exists()


def test_a_stack_of_slices(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_example("stack_of_slices.py", monkeypatch, *sorted(folder.glob("case_001_*.png")))
    printed = capsys.readouterr().out
    assert printed.startswith("2 slices: ")
    assert "case_001_slice_1.png (64, 64) uint8" in printed


def test_every_public_name_is_found_by_tab_completion() -> None:
    assert set(oasisvq.__all__) <= set(dir(oasisvq))
    for name in oasisvq.__all__:
        assert getattr(oasisvq, name) is not None
        assert name.startswith("__") or getattr(oasisvq, name).__doc__
