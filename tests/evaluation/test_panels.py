"""The panel of a `.codes` file shows what the file holds."""

import json
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
from conftest import Result, draw_phantom
from PIL import Image

import oasisvq
from oasisvq.codec.codec import Codec
from oasisvq.codec.container import read_codes_file
from oasisvq.errors import ImageError
from oasisvq.evaluation import figures
from oasisvq.evaluation.colours import NEUTRAL, code_colours
from oasisvq.evaluation.panels import (
    choose_places,
    code_map,
    describe_slice,
    draw_panel,
    find_original,
    open_view,
    view_slice,
)
from oasisvq.scans.source import source_at

Run = Callable[..., Result]


@pytest.fixture(autouse=True)
def coarse(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "DOTS_PER_INCH", 50)


@pytest.fixture
def codec(model_file: Path) -> Codec:
    return oasisvq.load(model_file)


@pytest.fixture
def codes(run: Run, phantom_png: Path, model_file: Path) -> Path:
    assert run("encode", phantom_png, "-q", "2", "--model", model_file).code == 0
    return phantom_png.with_suffix(".codes")


@pytest.fixture
def volume(run: Run, tmp_path: Path, model_file: Path, rng: np.random.Generator) -> Path:
    planes = np.stack([draw_phantom(rng, 40, 48) for _ in range(5)], axis=2).astype(np.int16) * 3 - 10
    planes[..., 4] = -10  # an empty slice
    nibabel.Nifti1Image(planes, np.diag([1.0, 2.0, 3.0, 1.0])).to_filename(tmp_path / "volume.nii.gz")
    assert run("encode", "volume.nii.gz", "-q", "1", "--model", model_file).code == 0
    return tmp_path / "volume.codes"


def titles(view: object, slices: list, codebooks: np.ndarray) -> list[str]:  # type: ignore[type-arg]
    figure = draw_panel(view, slices, codebooks)  # type: ignore[arg-type]
    return [axes.get_title(loc="left") for axes in figure.axes if axes.get_images()]


def test_a_panel_stands_beside_the_codes(run: Run, codes: Path, model_file: Path) -> None:
    result = run("show", "scan.codes", "--model", model_file)
    assert result.code == 0, result
    assert result.out.startswith("scan.panel.png: image, SSIM 0.")
    assert "original: scan.png" in result.err
    with Image.open(codes.with_name("scan.panel.png")) as picture:
        width, height = picture.size
        assert width > 2 * height > 200
    again = codes.with_name("scan.panel.png").read_bytes()
    refused = run("show", "scan.codes", "--model", model_file)
    assert (refused.code, "pass -f to overwrite" in refused.err) == (1, True)
    assert run("show", "scan.codes", "-f", "--model", model_file).code == 0
    assert codes.with_name("scan.panel.png").read_bytes() == again


@pytest.mark.parametrize(("name", "begins"), [("p.svg", b"<?xml"), ("p.pdf", b"%PDF")])
def test_a_panel_can_be_drawn_in_lines(
    run: Run, codes: Path, model_file: Path, name: str, begins: bytes
) -> None:
    assert run("show", codes, "-o", name, "--model", model_file).code == 0
    assert codes.with_name(name).read_bytes().startswith(begins)


def test_the_tiles_of_a_panel(codec: Codec, codes: Path) -> None:
    view = open_view(codec, codes, find_original(codes))
    shown = view_slice(codec, view, 0)
    names = ["original", "codes, level 1", "codes, level 2", "reconstruction", "error"]
    assert titles(view, [shown], codec.file.codebooks) == names
    figure = draw_panel(view, [shown], codec.file.codebooks)
    pictures = {
        axes.get_title(loc="left"): axes.get_images()[0] for axes in figure.axes if axes.get_images()
    }
    np.testing.assert_array_equal(pictures["original"].get_array(), view.original[0])  # type: ignore[index]
    error = pictures["error"]
    np.testing.assert_array_equal(error.get_array(), shown.restored.astype(float) - view.original[0])  # type: ignore[index]
    low, high = error.get_clim()
    assert low == -high < 0
    assert any("grey levels" in axes.get_ylabel() for axes in figure.axes)


def test_without_an_original_there_is_no_error(codec: Codec, codes: Path, run: Run) -> None:
    codes.with_name("scan.png").unlink()
    assert find_original(codes) is None
    view = open_view(codec, codes, None)
    shown = view_slice(codec, view, 0)
    names = ["codes, level 1", "codes, level 2", "reconstruction"]
    assert titles(view, [shown], codec.file.codebooks) == names
    assert describe_slice(view, shown) == "image"


def test_the_code_map_has_a_colour_for_every_code(codec: Codec, codes: Path) -> None:
    found = codec.codes_of(read_codes_file(codes))
    picture = code_map(found.indices[0], found.header, code_colours(codec.file.codebooks[0]))
    assert picture.shape == (64, 64, 3)
    window, stride = found.header.window, found.header.stride
    inside = picture[window.top * stride :, window.left * stride :]
    inside = inside[: window.height * stride, : window.width * stride]
    distinct = np.unique(np.rint(255 * inside).reshape(-1, 3), axis=0)
    assert len(distinct) == len(np.unique(found.indices[0]))
    cell = inside[:stride, :stride].reshape(-1, 3)
    assert (cell == cell[0]).all()
    outside = picture[: window.top * stride]
    assert outside.size
    assert (outside == NEUTRAL).all()


def test_scores_are_those_of_score(codec: Codec, codes: Path, run: Run, model_file: Path) -> None:
    shown = view_slice(codec, open_view(codec, codes, source_at(codes.with_name("scan.png"))), 0)
    result = run("score", "scan.png", "-q", "2", "--json", "--model", model_file)
    fields = json.loads(result.out)[0]
    assert shown.scores is not None
    assert shown.scores == pytest.approx([fields[key] for key in ("ssim", "foreground_ssim", "psnr")])


def test_slices_of_a_volume(run: Run, volume: Path, model_file: Path, codec: Codec) -> None:
    result = run("show", volume, "--slices", "3", "--model", model_file)
    assert result.code == 0, result
    assert [line.split(": ")[1].split(",")[0] for line in result.out.splitlines()] == [
        "slice 0",
        "slice 2",
        "slice 3",
    ]
    alone = run("show", volume, "--slice", "4", "-o", "empty.png", "--model", model_file)
    assert alone.code == 0, alone  # nothing of it is coded
    refused = run("show", volume, "--slice", "5", "-o", "none.png", "--model", model_file)
    assert (refused.code, "slice 5, expected 0 to 4" in refused.err) == (1, True)
    view = open_view(codec, volume, None)
    assert view.aspect in (0.5, 2)
    whole = codec.decode_codes(view.codes, "volume").planes
    for place in range(5):
        np.testing.assert_array_equal(view_slice(codec, view, place).restored, whole[place])


def test_exact_labels_have_one_map(run: Run, tmp_path: Path, model_file: Path, codec: Codec) -> None:
    labels = np.zeros((32, 40), np.uint8)
    labels[4:20, 6:30] = 85
    labels[8:12, 10:20] = 170
    Image.fromarray(labels).save(tmp_path / "seg.png")
    assert run("encode", "seg.png", "--kind", "labels", "--model", model_file).code == 0
    result = run("show", "seg.codes", "--model", model_file)
    assert result.out == "seg.panel.png: image, labels kept exactly, equal to the original\n"
    view = open_view(codec, tmp_path / "seg.codes", source_at(tmp_path / "seg.png"))
    shown = view_slice(codec, view, 0)
    figure = draw_panel(view, [shown], codec.file.codebooks)
    pictures = [axes.get_images()[0].get_array() for axes in figure.axes if axes.get_images()]
    assert len(np.unique(np.asarray(pictures[1]).reshape(-1, 3), axis=0)) == 3
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["0", "85", "170"]


def test_wrong_calls_are_refused(run: Run, codes: Path, model_file: Path, codec: Codec) -> None:
    assert run("show", codes, "--slice", "0", "--slices", "2").code == 2
    assert run("show", codes, "-o", "panel.gif").code == 2
    other = codes.with_name("other.png")
    Image.fromarray(np.zeros((20, 30), np.uint8)).save(other)
    with pytest.raises(ImageError, match="name its original with --original"):
        open_view(codec, codes, source_at(other))
    assert run("show", codes, "--original", other, "--model", model_file).code == 1


def test_what_lies_beside_by_chance_is_left_out(run: Run, codes: Path, model_file: Path) -> None:
    Image.fromarray(np.zeros((20, 30), np.uint8)).save(codes.with_suffix(".png"))
    result = run("show", codes, "--model", model_file)
    assert (result.code, result.out) == (0, "scan.panel.png: image\n".replace("scan", str(codes)[:-6]))
    assert "drawn without it" in result.err
    codes.with_suffix(".png").unlink()
    codes.with_suffix("").mkdir()
    assert find_original(codes) is None
    (codes.with_suffix("") / "1.dcm").write_bytes(bytes(128) + b"DICM")
    assert find_original(codes) == source_at(codes.with_suffix(""))


def test_evenly_spaced_slices_are_coded_ones(volume: Path, codec: Codec) -> None:
    header = read_codes_file(volume).header
    assert header.coded_slices == [0, 1, 2, 3]
    assert choose_places(header, None, None) == [2]
    assert choose_places(header, None, 9) == [0, 1, 2, 3]
    assert choose_places(header, 4, None) == [4]


def test_slices_of_volumes_are_drawn_as_they_are_decoded(
    run: Run, tmp_path: Path, volumes_model_file: Path, rng: np.random.Generator
) -> None:
    voxels = rng.normal(500, 60, (48, 44, 5)).astype(np.int16)  # without a ground
    nibabel.Nifti1Image(voxels, np.eye(4)).to_filename(tmp_path / "v.nii.gz")
    assert run("encode", "v.nii.gz", "--model", volumes_model_file).code == 0
    codec = oasisvq.load(volumes_model_file)
    view = open_view(codec, tmp_path / "v.codes", None)
    for place, plane in enumerate(codec.decode_codes(view.codes, "v").planes):
        np.testing.assert_array_equal(view_slice(codec, view, place).restored, plane)
    assert run("show", "v.codes", "--model", volumes_model_file).code == 0
