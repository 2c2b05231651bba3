"""What the commands do when all is well, and what a run over a folder does when it is not."""

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import Result, draw_phantom, tiny_model, write_raw_folder
from PIL import Image

import oasisvq
from oasisvq.cli.app import app
from oasisvq.codec.weights import load_model, save_model

Run = Callable[..., Result]

MAIN_OPTION = {
    "preprocess": "--output",
    "train": "--preset",
    "encode": "--quality",
    "decode": "--output",
    "export": "--output",
    "score": "--split",
    "sample": "--temperature",
    "info": "--json",
}
COMMANDS = [
    command.name or command.callback.__name__ for command in app.registered_commands if command.callback
]


@pytest.fixture
def folder(tmp_path: Path, rng: np.random.Generator) -> Path:
    """A tree of three images beside a file that is no image: scans/first.png, scans/deep/..."""
    root = tmp_path / "scans"
    (root / "deep" / "er").mkdir(parents=True)
    for name in ("first.png", "deep/second.png", "deep/er/third.tif"):
        Image.fromarray(draw_phantom(rng)).save(root / name)
    (root / "notes.txt").write_text("no image")
    return root


@pytest.fixture
def other_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("other") / "model.safetensors"
    save_model(tiny_model(seed=1), path, {})
    return path


def files_below(root: Path) -> dict[str, bytes]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def fingerprint(model: Path) -> str:
    return load_model(model).fingerprint.hex()


def plane(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


# one file


def test_encode_and_decode_restore_shape_type_and_ground(
    run: Run, model_file: Path, tmp_path: Path
) -> None:
    original = draw_phantom(np.random.default_rng(5), 61, 75).astype(np.uint16) * 100 + 7
    Image.fromarray(original).save(tmp_path / "scan.png")
    encoded = run("encode", "scan.png", "-o", "scan.codes", "--model", model_file)
    assert encoded.code == 0
    size = (tmp_path / "scan.codes").stat().st_size
    assert encoded.out.startswith(f"scan.codes: {size:,} bytes")
    decoded = run("decode", "scan.codes", "-o", "back.png", "--model", model_file)
    assert decoded.code == 0
    assert decoded.out.startswith("back.png: ")
    restored = plane(tmp_path / "back.png")
    assert restored.shape == original.shape
    assert restored.dtype == np.uint16
    assert restored.min() == original.min() == 7
    assert (restored[:8, :8] == 7).all()


def test_default_names_lie_beside_the_input_and_spare_the_original(
    run: Run, model_file: Path, tmp_path: Path, phantom_png: Path
) -> None:
    (tmp_path / "deep").mkdir()
    phantom_png.rename(tmp_path / "deep" / "scan.png")
    before = (tmp_path / "deep" / "scan.png").read_bytes()
    assert run("encode", "deep/scan.png", "--model", model_file).code == 0
    assert run("decode", "deep/scan.codes", "--model", model_file).code == 0
    assert set(files_below(tmp_path)) == {
        "deep/scan.png",
        "deep/scan.codes",
        "deep/scan.decoded.png",
    }
    assert (tmp_path / "deep" / "scan.png").read_bytes() == before


def test_decode_writes_tiff_where_the_name_says_so(
    run: Run, model_file: Path, tmp_path: Path, phantom_png: Path
) -> None:
    run("encode", phantom_png, "--model", model_file)
    assert run("decode", "scan.codes", "-o", "scan.tif", "--model", model_file).code == 0
    assert run("decode", "scan.codes", "-o", "scan2.png", "--model", model_file).code == 0
    with Image.open(tmp_path / "scan.tif") as image:
        assert image.format == "TIFF"
    assert (plane(tmp_path / "scan.tif") == plane(tmp_path / "scan2.png")).all()


def test_results_go_to_stdout_and_notes_to_stderr(run: Run, model_file: Path, phantom_png: Path) -> None:
    for command in (("encode", "scan.png"), ("decode", "scan.codes")):
        result = run(*command, "--model", model_file)
        assert len(result.out.splitlines()) == 1
        assert result.err == f"model {fingerprint(model_file)[:8]}: {model_file} (named), on cpu\n"


def test_force_overwrites(run: Run, model_file: Path, tmp_path: Path, phantom_png: Path) -> None:
    for name in ("scan.codes", "scan.decoded.png"):
        (tmp_path / name).write_text("old")
    assert run("encode", phantom_png, "--model", model_file, "-f").code == 0
    assert run("decode", "scan.codes", "--model", model_file, "--force").code == 0
    assert (tmp_path / "scan.codes").read_bytes().startswith(b"OVQC")
    assert plane(tmp_path / "scan.decoded.png").shape == (64, 64)


@pytest.mark.parametrize("quality", [1, 2, 3])
def test_quality_is_the_number_of_levels_kept(
    run: Run, model_file: Path, tmp_path: Path, phantom_png: Path, quality: int
) -> None:
    assert run("encode", phantom_png, "-q", str(quality), "--model", model_file).code == 0
    codes = oasisvq.read_codes(tmp_path / "scan.codes")
    assert codes.header.levels == quality
    assert codes.indices.shape[0] == quality


def test_lower_quality_is_a_smaller_file(
    run: Run, model_file: Path, tmp_path: Path, phantom_png: Path
) -> None:
    for quality in ("1", "3"):
        arguments = ("-o", f"{quality}.codes", "--quality", quality, "--model", model_file)
        assert run("encode", phantom_png, *arguments).code == 0
    low, high = (oasisvq.read_codes(tmp_path / f"{quality}.codes") for quality in "13")
    assert len(low.indices) < len(high.indices)
    assert low.file_bytes < high.file_bytes


def test_quality_defaults_to_the_models(
    run: Run, model_file: Path, tmp_path: Path, phantom_png: Path
) -> None:
    run("encode", phantom_png, "--model", model_file)
    assert oasisvq.read_codes(tmp_path / "scan.codes").header.levels == 2


def test_another_process_writes_the_same_bytes(
    run: Run, model_file: Path, tmp_path: Path, phantom_png: Path
) -> None:
    run("encode", phantom_png, "-o", "here.codes", "--model", model_file)
    run("encode", phantom_png, "-o", "again.codes", "--model", model_file)
    command = [sys.executable, "-m", "oasisvq", "encode", "scan.png", "-o", "there.codes"]
    environment = {**os.environ, "PYTHONHASHSEED": "99", "OASISVQ_MODEL": str(model_file)}
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True)
    here = (tmp_path / "here.codes").read_bytes()
    assert (tmp_path / "again.codes").read_bytes() == here
    assert (tmp_path / "there.codes").read_bytes() == here


@pytest.mark.parametrize("name", ["my scan.png", "Gehirn größe 脑.png", "-scan.png", "scan.v2.png"])
def test_unusual_names_work(
    run: Run, model_file: Path, tmp_path: Path, phantom_png: Path, name: str
) -> None:
    (tmp_path / "scan.png").rename(tmp_path / name)
    stem = name.removesuffix(".png")
    encoded = run("encode", "--model", model_file, "--", name)
    assert encoded.code == 0
    assert f"{stem}.codes" in encoded.out
    assert run("decode", "--model", model_file, "--", f"{stem}.codes").code == 0
    assert (tmp_path / f"{stem}.decoded.png").is_file()


# which model


def test_the_environment_names_the_model(
    run: Run,
    model_file: Path,
    tmp_path: Path,
    phantom_png: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OASISVQ_MODEL", str(model_file))
    result = run("encode", phantom_png)
    assert result.code == 0
    assert f"{model_file} ($OASISVQ_MODEL)" in result.err
    header = oasisvq.read_codes(tmp_path / "scan.codes").header
    assert header.fingerprint.hex() == fingerprint(model_file)


def test_models_are_looked_for_in_a_fixed_order(
    run: Run,
    model_file: Path,
    other_model: Path,
    tmp_path: Path,
    phantom_png: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """--model, then $OASISVQ_MODEL, then the run folder of this folder."""
    (tmp_path / "oasisvq-run").mkdir()
    (tmp_path / "oasisvq-run" / "model.safetensors").write_bytes(model_file.read_bytes())
    trained = run("encode", phantom_png, "-f")
    assert "(the model trained in this folder)" in trained.err
    assert fingerprint(model_file)[:8] in trained.err
    monkeypatch.setenv("OASISVQ_MODEL", str(other_model))
    assert fingerprint(other_model)[:8] in run("encode", phantom_png, "-f").err
    named = run("encode", phantom_png, "-f", "--model", model_file)
    assert fingerprint(model_file)[:8] in named.err


def test_model_takes_a_run_folder(run: Run, other_model: Path, phantom_png: Path) -> None:
    result = run("encode", phantom_png, "--model", other_model.parent)
    assert result.code == 0
    assert f"model {fingerprint(other_model)[:8]}: {other_model} (named)" in result.err


# folders


def test_a_folder_keeps_its_tree_both_ways(
    run: Run, model_file: Path, tmp_path: Path, folder: Path
) -> None:
    encoded = run("encode", folder, "-o", "codes", "--model", model_file)
    assert encoded.code == 0
    assert encoded.out.startswith("codes: 3 encoded, ")
    below = files_below(tmp_path / "codes")
    assert set(below) == {"first.codes", "deep/second.codes", "deep/er/third.codes"}
    total = sum(
        (folder / n).stat().st_size for n in ("first.png", "deep/second.png", "deep/er/third.tif")
    )
    assert f"{total:,} -> {sum(len(content) for content in below.values()):,} bytes" in encoded.out
    decoded = run("decode", "codes", "-o", "back", "--model", model_file)
    assert decoded.code == 0
    assert decoded.out.startswith("back: 3 decoded, ")
    assert set(files_below(tmp_path / "back")) == {"first.png", "deep/second.png", "deep/er/third.png"}


def test_a_folder_gives_the_same_files_as_one_by_one(
    run: Run, model_file: Path, tmp_path: Path, folder: Path
) -> None:
    run("encode", folder, "-o", "codes", "--model", model_file)
    run("encode", folder / "deep" / "second.png", "-o", "alone.codes", "--model", model_file)
    alone = tmp_path / "alone.codes"
    assert (tmp_path / "codes" / "deep" / "second.codes").read_bytes() == alone.read_bytes()
    run("decode", "codes", "-o", "back", "--model", model_file)
    run("decode", alone, "-o", "alone.png", "--model", model_file)
    assert (tmp_path / "back/deep/second.png").read_bytes() == (tmp_path / "alone.png").read_bytes()


@pytest.mark.parametrize("command", ["encode", "decode"])
def test_a_second_run_skips_what_is_there(
    run: Run, model_file: Path, tmp_path: Path, folder: Path, command: str
) -> None:
    source = folder
    if command == "decode":
        run("encode", folder, "-o", "codes", "--model", model_file)
        source = tmp_path / "codes"
    assert run(command, source, "-o", "out", "--model", model_file).code == 0
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.*")}
    assert len(times) == 3
    again = run(command, source, "-o", "out", "--model", model_file)
    assert again.code == 0
    assert again.out == f"out: 0 {command}d, 3 already there\n"
    assert {path: path.stat().st_mtime_ns for path in times} == times


@pytest.mark.parametrize("command", ["encode", "decode"])
def test_force_does_a_folder_again(
    run: Run, model_file: Path, tmp_path: Path, folder: Path, command: str
) -> None:
    source = folder
    if command == "decode":
        run("encode", folder, "-o", "codes", "--model", model_file)
        source = tmp_path / "codes"
    run(command, source, "-o", "out", "--model", model_file)
    before = files_below(tmp_path / "out")
    for name in before:
        (tmp_path / "out" / name).write_bytes(b"stale")
    again = run(command, source, "-o", "out", "--model", model_file, "-f")
    assert again.code == 0
    assert f"3 {command}d" in again.out
    assert files_below(tmp_path / "out") == before


def test_only_the_missing_file_is_made(run: Run, model_file: Path, tmp_path: Path, folder: Path) -> None:
    run("encode", folder, "-o", "codes", "--model", model_file)
    (tmp_path / "codes" / "first.codes").unlink()
    again = run("encode", folder, "-o", "codes", "--model", model_file)
    assert again.code == 0
    assert "1 encoded" in again.out
    assert "2 already there" in again.out
    assert (tmp_path / "codes" / "first.codes").is_file()


@pytest.mark.parametrize("stale", ["truncated", "other quality", "other model"])
def test_an_output_that_is_not_valid_is_a_failure_and_not_skipped(
    run: Run, model_file: Path, other_model: Path, tmp_path: Path, folder: Path, stale: str
) -> None:
    run("encode", folder, "-o", "codes", "--model", model_file)
    first = tmp_path / "codes" / "first.codes"
    if stale == "truncated":
        first.write_bytes(first.read_bytes()[:-1])
    else:
        given = ("-q", "1", "--model", model_file) if "quality" in stale else ("--model", other_model)
        assert run("encode", folder / "first.png", "-o", first, *given, "-f").code == 0
    in_the_way = first.read_bytes()
    again = run("encode", folder, "-o", "codes", "--model", model_file)
    assert again.code == 1
    assert "0 encoded, 2 already there" in again.out
    assert "codes/first.codes: exists; pass -f" in again.err
    assert first.read_bytes() == in_the_way
    forced = run("encode", folder, "-o", "codes", "--model", model_file, "-f")
    assert forced.code == 0
    assert first.read_bytes() != in_the_way


def test_encoding_a_folder_goes_on_after_a_bad_file(
    run: Run, model_file: Path, tmp_path: Path, folder: Path
) -> None:
    (folder / "a_text.png").write_text("no image")
    (folder / "deep" / "an_empty.png").touch()
    result = run("encode", folder, "-o", "codes", "--model", model_file)
    assert result.code == 1
    assert result.out.startswith("codes: 3 encoded, ")
    assert len(result.out.splitlines()) == 1
    _, failed, *failures = result.err.splitlines()
    assert failed == "2 failed:"
    assert len(failures) == 2
    assert "deep/an_empty.png: an empty file" in result.err
    assert "a_text.png: not an image" in result.err
    below = set(files_below(tmp_path / "codes"))
    assert below == {"first.codes", "deep/second.codes", "deep/er/third.codes"}


def test_decoding_a_folder_goes_on_after_a_bad_file(
    run: Run, model_file: Path, tmp_path: Path, folder: Path
) -> None:
    run("encode", folder, "-o", "codes", "--model", model_file)
    damaged = tmp_path / "codes" / "deep" / "second.codes"
    damaged.write_bytes(damaged.read_bytes()[:-7])
    result = run("decode", "codes", "-o", "back", "--model", model_file)
    assert result.code == 1
    assert result.out.startswith("back: 2 decoded, ")
    assert "1 failed:" in result.err
    assert "codes/deep/second.codes: truncated" in result.err
    assert set(files_below(tmp_path / "back")) == {"first.png", "deep/er/third.png"}


def test_two_images_with_one_output_are_a_failure_of_the_second(
    run: Run, model_file: Path, tmp_path: Path, rng: np.random.Generator
) -> None:
    scans = tmp_path / "scans"
    scans.mkdir()
    for name in ("scan.png", "scan.tif"):
        Image.fromarray(draw_phantom(rng)).save(scans / name)
    run("encode", scans / "scan.png", "-o", "alone.codes", "--model", model_file)
    for options in ((), (), ("-f",)):
        result = run("encode", scans, "-o", "codes", "--model", model_file, *options)
        assert result.code == 1
        assert "1 failed:" in result.err
        assert "scans/scan.tif: its output codes/scan.codes is also that of scan.png" in result.err
        first = (tmp_path / "codes" / "scan.codes").read_bytes()
        assert first == (tmp_path / "alone.codes").read_bytes()


def test_hidden_files_are_left_out(
    run: Run, model_file: Path, folder: Path, phantom_png: Path, tmp_path: Path
) -> None:
    (folder / "._first.png").write_text("what a Mac leaves")
    (folder / ".cache").mkdir()
    phantom_png.rename(folder / ".cache" / "thumbnail.png")
    result = run("encode", folder, "-o", "codes", "--model", model_file)
    assert result.code == 0
    assert "3 encoded" in result.out


# the prior


def test_the_coder_is_the_prior_where_the_model_has_one(
    run: Run, model_file: Path, prior_model_file: Path, tmp_path: Path, phantom_png: Path
) -> None:
    coded = run("encode", phantom_png, "--model", prior_model_file)
    assert coded.code == 0
    prior = load_model(prior_model_file).file.prior_fingerprint
    assert prior is not None
    ours = fingerprint(prior_model_file)[:8]
    assert coded.err.startswith(f"model {ours}, with its prior {prior.hex()[:8]}: ")
    facts = json.loads(run("info", "scan.codes", "--json").out)
    assert (facts["coder"], facts["model"]) == ("prior", prior.hex())
    assert run("decode", "scan.codes", "--model", prior_model_file).code == 0
    options = ("--coder", "packed", "--model", prior_model_file)
    assert run("encode", phantom_png, "-o", "packed.codes", *options).code == 0
    assert run("encode", phantom_png, "-o", "plain.codes", "--model", model_file).code == 0
    packed = (tmp_path / "packed.codes").read_bytes()
    assert packed == (tmp_path / "plain.codes").read_bytes()
    assert json.loads(run("info", "packed.codes", "--json").out)["coder"] == "packed"
    assert run("decode", "packed.codes", "-o", "a.png", "--model", model_file).code == 0


def test_info_describes_a_prior(run: Run, model_file: Path, prior_model_file: Path) -> None:
    facts = json.loads(run("info", prior_model_file, "--json").out)
    assert facts["fingerprint"] == fingerprint(model_file)
    assert facts["prior"]["passes"] == [8, 2, 1]
    assert facts["prior_bytes"] > 0
    assert len(facts["prior_fingerprint"]) == 16
    without = json.loads(run("info", model_file, "--json").out)
    assert (without["prior"], without["prior_fingerprint"], without["prior_bytes"]) == (None, None, 0)


def test_a_folder_run_skips_only_what_the_same_coder_made(
    run: Run, prior_model_file: Path, tmp_path: Path, folder: Path
) -> None:
    def encode(*options: str) -> Result:
        return run("encode", folder, "-o", "codes", "--model", prior_model_file, *options)

    assert encode().code == 0
    before = files_below(tmp_path / "codes")
    for options in ((), ("--coder", "prior")):
        assert "0 encoded, 3 already there" in encode(*options).out
    other = encode("--coder", "packed")
    assert other.code == 1
    assert other.err.count("exists; pass -f") == 3
    assert files_below(tmp_path / "codes") == before
    assert encode("--coder", "packed", "-f").code == 0
    assert "0 encoded, 3 already there" in encode("--coder", "packed").out


def test_a_folder_of_prior_coded_files_decodes_as_one_by_one(
    run: Run, prior_model_file: Path, tmp_path: Path, folder: Path
) -> None:
    given = ("--model", prior_model_file)
    assert run("encode", folder, "-o", "codes", *given).code == 0
    assert run("encode", folder / "first.png", "-o", "alone.codes", *given).code == 0
    alone = (tmp_path / "alone.codes").read_bytes()
    assert (tmp_path / "codes" / "first.codes").read_bytes() == alone
    assert run("decode", "codes", "-o", "back", *given).code == 0
    assert run("decode", "alone.codes", "-o", "alone.png", *given).code == 0
    assert (tmp_path / "back" / "first.png").read_bytes() == (tmp_path / "alone.png").read_bytes()


# info


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


# preprocess


def test_preprocess_prints_the_splits_and_keeps_them(run: Run, raw_folder: Path, tmp_path: Path) -> None:
    result = run("preprocess", raw_folder, "-o", "prepared", "--size", "80")
    assert result.code == 0
    assert result.err == ""
    assert result.out.splitlines() == [
        "train: 12 slices of 3 subjects",
        "validation: 8 slices of 2 subjects",
        "prepared: UQ PNG slices, scans, 80×80",
    ]
    assert np.load(tmp_path / "prepared" / "train.npy").shape == (12, 80, 80)
    slice_in_the_middle = np.load(tmp_path / "prepared" / "validation.npy")[0, 8:-8, 8:-8]
    first = raw_folder / "keras_png_slices_validate" / "case_004_slice_0.nii.png"
    assert (slice_in_the_middle == plane(first)).all()


def test_preprocess_writes_the_same_bytes_again_with_force(
    run: Run, raw_folder: Path, tmp_path: Path
) -> None:
    run("preprocess", raw_folder, "-o", "prepared", "--size", "64")
    before = files_below(tmp_path)
    assert run("preprocess", raw_folder, "-o", "prepared", "--size", "64", "-f").code == 0
    assert files_below(tmp_path) == before


def test_preprocess_takes_the_segmentations_where_asked(run: Run, tmp_path: Path) -> None:
    raw = write_raw_folder(tmp_path / "raw", {"train": [1], "validate": [2]})
    write_raw_folder(raw, {"train": [1, 3], "validate": [2]}, slices=2, kind="seg")
    result = run("preprocess", raw, "-o", "labels", "--images", "segmentations", "--size", "64")
    assert result.code == 0
    assert "train: 4 slices of 2 subjects" in result.out
    assert "labels: UQ PNG slices, segmentations" in result.out
    assert set(np.unique(np.load(tmp_path / "labels" / "train.npy"))) <= {0, 85, 170, 255}


# score


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
    sizes = [path.stat().st_size for path in (tmp_path / "codes").iterdir()]
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
    assert result.err.splitlines() == [
        f"model {fingerprint(model_file)[:8]}: {model_file} (named), on cpu"
    ]


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


# help, version, start


def test_version(run: Run) -> None:
    result = run("--version")
    assert (result.code, result.out, result.err) == (0, f"oasisvq {oasisvq.__version__}\n", "")


def test_help_names_every_command(run: Run) -> None:
    for flag in ("--help", "-h"):
        result = run(flag)
        assert result.code == 0
        assert result.err == ""
        assert all(f"\n  {command} " in result.out for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_every_command(run: Run, command: str) -> None:
    for flag in ("--help", "-h"):
        result = run(command, flag)
        assert result.code == 0
        assert result.out.startswith(f"Usage: oasisvq {command} ")
        assert MAIN_OPTION.get(command, "--help") in result.out
        assert "\x1b" not in result.out


def test_what_needs_no_torch_does_not_import_it(
    run: Run, model_file: Path, phantom_png: Path, tmp_path: Path
) -> None:
    run("encode", phantom_png, "--model", model_file)
    for arguments in (["--help"], ["encode", "--help"], ["--version"], ["info", "scan.codes"]):
        process = subprocess.run(
            [sys.executable, "-X", "importtime", "-m", "oasisvq", *arguments],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
        )
        imported = {line.rsplit("|", 1)[-1].strip() for line in process.stderr.splitlines()}
        assert "oasisvq.cli.app" in imported
        assert not imported & {"torch", "skimage", "safetensors", "constriction"}
        assert process.stdout
