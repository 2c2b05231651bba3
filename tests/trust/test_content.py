"""Files that mean harm by what they say: objects to unpickle, paths, escape sequences, sizes.

That nothing reaches for the network is held for all tests by conftest.py. Names in reports are the
matter of evaluation/test_report.py.
"""

import ast
import gzip
import io
import json
import os
import pickle
import runpy
import shutil
import struct
import subprocess
import sys
import time
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from conftest import Result, draw_phantom, network_attempts, tiny_model, tiny_prior
from PIL import Image, PngImagePlugin
from rich.console import Console

import oasisvq
from oasisvq.cli import progress_bar
from oasisvq.codec import container
from oasisvq.codec.headers import Coder, CodesHeader, Kind, SampleType
from oasisvq.codec.pixels import NOTHING
from oasisvq.codec.weights import save_model
from oasisvq.errors import CodesFileError, ImageError
from oasisvq.scans.limits import DEFAULT_MAX_PIXELS, VOXELS_A_PIXEL
from oasisvq.scans.scan import read_scan
from oasisvq.scans.volumes import read_volume
from oasisvq.text import printable
from oasisvq.tokens import Tokens, read_tokens, write_tokens
from oasisvq.training.display import LiveReporter
from oasisvq.training.progress import LineReporter

Run = Callable[..., Result]

# what stands in a name: an escape sequence, one of a single byte, line ends, a turn of direction, a
# byte of no Unicode, markup of rich, mathtext and HTML
HOSTILE = "a\x1b[31m\x9b2J\r\nb\u202ec\u2066[red][link=x]$_^{$<b>&\"'" + os.fsdecode(b"\xfc")
RAW = ("\x1b", "\x9b", "\r", "\u202e", "\u2066", "\udcfc", "a\nb")


def assert_shown_safely(result: Result, code: int = 0) -> None:
    assert result.code == code, result
    for line in (result.out + result.err).split("\n"):
        assert line.isprintable(), result
    assert "Traceback" not in result.err


# nothing is unpickled, nothing is run


CODE_OR_PICKLES = {
    *("pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"),
    *("yaml", "runpy", "code", "xmlrpc", "imp"),
}
RUNS_ITS_ARGUMENT = {"eval", "exec", "compile", "__import__"}
UNPICKLES = {("torch", "load"), ("torch.jit", "load"), ("torch.package", "PackageImporter")}


def unpickling(source: str) -> list[str]:
    """What in a module's source could run what a file says."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names]
            found += [name for name in names if name.split(".")[0] in CODE_OR_PICKLES]
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        owner, _, name = called.rpartition(".")
        if called in RUNS_ITS_ARGUMENT or (owner, name) in UNPICKLES:
            found.append(called)
        if called in ("np.load", "numpy.load", "np.lib.format.read_array"):
            told = {each.arg: ast.unparse(each.value) for each in node.keywords}
            if told.get("allow_pickle") != "False":
                found.append(f"{called} without allow_pickle=False")
    return found


def test_the_package_unpickles_and_runs_nothing_that_a_file_says() -> None:
    modules = sorted(Path(oasisvq.__file__).parent.rglob("*.py"))
    assert len(modules) > 50
    found = {path.name: unpickling(path.read_text("utf-8")) for path in modules}
    assert not any(found.values()), found


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from pickle import loads",
        "import torch\ntorch.load('m.pt')",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "eval(text)",
        "import yaml\nyaml.load(text)",
    ],
)
def test_what_would_be_found(source: str) -> None:
    assert unpickling(source)


class Canary:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


@pytest.fixture
def canary(tmp_path: Path) -> Iterator[Canary]:
    """It sings where it is asked to, and not in a test."""
    bird = Canary(tmp_path / "canary")
    pickle.loads(pickle.dumps(bird))
    assert bird.path.is_file()
    bird.path.unlink()
    yield bird
    assert not bird.path.exists()


def npy(array: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    return stream.getvalue()


@pytest.mark.parametrize("name", ["x.png", "x.nii", "x.nii.gz", "x.dcm", "x.npy", "x.codes"])
def test_a_pickle_in_place_of_a_scan_or_codes(
    run: Run, canary: Canary, model_file: Path, tmp_path: Path, name: str
) -> None:
    command = "decode" if name.endswith(".codes") else "encode"
    for content in (npy(np.array([canary], object)), pickle.dumps(canary)):
        (tmp_path / name).write_bytes(content)
        result = run(command, name, "-o", "out.codes" if command == "encode" else "out.png")
        assert_shown_safely(result, code=1)


def test_a_pickle_in_place_of_a_model_or_checkpoint(
    run: Run, canary: Canary, raw_folder: Path, phantom_png: Path, tmp_path: Path
) -> None:
    run_folder = tmp_path / "oasisvq-run"
    run_folder.mkdir()
    for write in (torch.save, lambda bird, path: path.write_bytes(pickle.dumps(bird))):
        write(canary, tmp_path / "m.safetensors")
        shutil.copy(tmp_path / "m.safetensors", run_folder / "checkpoint.safetensors")
        for command in (
            ("encode", phantom_png, "--model", "m.safetensors"),
            ("info", "m.safetensors"),
            ("train", raw_folder, "--resume", "--device", "cpu"),
            ("train", raw_folder, "--start-from", "m.safetensors", "-o", "new", "--device", "cpu"),
        ):
            assert_shown_safely(run(*command), code=1)


def test_objects_in_a_dataset_and_in_tokens(
    run: Run, canary: Canary, raw_folder: Path, model_file: Path, tmp_path: Path
) -> None:
    assert run("preprocess", raw_folder, "-o", "data2", "--size", "64").code == 0
    birds = np.full((8, 64, 64), None, object)
    birds[0, 0, 0] = canary
    (tmp_path / "data2" / "validation.npy").write_bytes(npy(birds))
    assert_shown_safely(run("score", "data2", "--model", model_file), code=1)
    assert_shown_safely(run("train", "data2", "--device", "cpu"), code=1)
    for field in ("indices", "names"):
        np.savez(tmp_path / "t.npz", **(_arrays("a") | {field: np.array([canary], object)}))
        assert_shown_safely(run("decode", "t.npz", "-o", "out", "--model", model_file), code=1)


# names in archives are no paths out of their folder


def _arrays(*names: str) -> dict[str, Any]:
    """An array file of constant images."""
    count = len(names)
    return {
        "indices": np.full((count, 1, 1, 1), 65_535, np.uint16),
        "windows": np.zeros((count, 4), np.int32),
        "shapes": np.full((count, 2), 9, np.int32),
        "intensities": np.full((count, 2), 7, np.int32),
        "sample_types": np.zeros(count, np.uint8),
        "levels": np.ones(count, np.uint8),
        "origin": np.zeros(2, np.int32),
        "codebook": np.array([20, 8], np.int32),
        "fingerprint": np.zeros(8, np.uint8),
        "names": np.array(names),
        "subjects": np.array(["" for _ in names]),
    }


OUTSIDE = [
    *("../evil", "a/../../evil", "/tmp/evil", "..", "", ".", "a//../..", "a/./b"),
    *("..\\evil", "a\\..\\..\\evil", "C:\\evil", "C:evil", "\\\\server\\share\\evil"),
    *("NUL", "a/con", "com1.png", "LPT9", "aux.b.c", "CONIN$"),
    *("a\0b", "\ud800", "a./b", "a /b", ".. /evil", "/", "a/", "/a"),
    "x" * 252,
    "é" * 126,
]


@pytest.mark.parametrize("name", OUTSIDE, ids=lambda name: ascii(name[:20]))
@pytest.mark.parametrize("ending", [".npz", ".safetensors"])
def test_names_in_an_array_file_lead_to_no_path_outside(tmp_path: Path, name: str, ending: str) -> None:
    path = tmp_path / f"t{ending}"
    arrays = _arrays("a", "b")
    arrays.pop("names"), arrays.pop("subjects")
    if ending == ".npz" and "\0" in name:
        pytest.skip("NumPy's strings end there")
    write_tokens(Tokens(arrays, ["a", name], ["", ""]), path)
    with pytest.raises(CodesFileError, match="name"):
        read_tokens(path)


def test_other_names_are_kept(tmp_path: Path) -> None:
    names = ["a", "A", "b/a", "b c/.d", "12:30", "null", "x" * 251, f"a{HOSTILE}", "..a", "comet"]
    names = [name.replace("\\", "") for name in names]
    np.savez(tmp_path / "t.npz", **_arrays(*names))
    assert read_tokens(tmp_path / "t.npz").names == names


def test_a_name_is_refused_before_it_is_exported(
    run: Run, model_file: Path, phantom_png: Path, tmp_path: Path
) -> None:
    """What `export` writes, `decode` takes back."""
    assert run("encode", phantom_png, "-o", "aux.codes", "--model", model_file).code == 0
    result = run("export", ".", "-o", "t.npz")
    assert_shown_safely(result, code=1)
    assert "cannot be a path below the output folder: 'aux'; rename it" in result.err


def test_two_slices_of_one_name_are_refused(tmp_path: Path) -> None:
    """The second would take the place of the first."""
    np.savez(tmp_path / "t.npz", **_arrays("a", "a"))
    with pytest.raises(CodesFileError, match="two slices named a"):
        read_tokens(tmp_path / "t.npz")


def test_paths_in_a_manifest_are_never_opened(
    run: Run, raw_folder: Path, model_file: Path, tmp_path: Path
) -> None:
    assert run("preprocess", raw_folder, "-o", "data2", "--size", "64").code == 0
    manifest = tmp_path / "data2" / "manifest.json"
    told = json.loads(manifest.read_text())
    (tmp_path / "pipe").mkdir()
    os.mkfifo(tmp_path / "pipe" / "x")  # who opens it waits for ever
    told["raw"] = str(tmp_path / "pipe")
    for split in told["splits"].values():
        for place, record in enumerate(split["slices"]):
            record["source"] = ["../pipe/x", str(tmp_path / "pipe" / "x")][place % 2]
    manifest.write_text(json.dumps(told))
    for command in (("info", "data2"), ("score", "data2", "--model", model_file)):
        assert_shown_safely(run(*command))
    told["splits"]["../data/train"] = told["splits"]["train"]
    manifest.write_text(json.dumps(told))
    refused = run("info", "data2")
    assert refused.code == 1
    assert "unknown splits" in refused.err


# what is shown


def hostile_raw_folder(root: Path, rng: np.random.Generator) -> Path:
    """A folder for each of four subjects, one slice each."""
    for number in range(4):
        folder = root / f"{HOSTILE}{number}"
        folder.mkdir(parents=True)
        Image.fromarray(draw_phantom(rng, 80, 80)).save(folder / f"{HOSTILE}_slice_{number}.png")
    return root


def test_every_command_shows_hostile_names_escaped(
    run: Run, prior_model_file: Path, rng: np.random.Generator, tmp_path: Path
) -> None:
    """And none reaches for the network, see conftest.py."""
    raw = hostile_raw_folder(tmp_path / f"raw {HOSTILE}", rng)
    bad = tmp_path / f"bad {HOSTILE}"
    bad.mkdir()
    for name in (f"{HOSTILE}.png", f"{HOSTILE}.nii", f"{HOSTILE}.dcm", f"{HOSTILE}.codes"):
        (bad / name).write_text("nothing")
    scan = next(raw.rglob("*.png"))
    codes, run_folder, data = (tmp_path / f"{HOSTILE}{each}" for each in (".codes", " run", " data"))
    model = tmp_path / f"{HOSTILE}.safetensors"
    shutil.copy(prior_model_file, model)
    ours = ("--model", model)
    tokens = [tmp_path / f"{HOSTILE}{suffix}" for suffix in (".npz", ".safetensors")]
    out = tmp_path / f"out {HOSTILE}"
    setup = ("--preset", "seed", "--epochs", "1", "--batch-size", "2", "--no-prior", "--device", "cpu")
    for command in (
        ("encode", scan, "-o", codes, *ours),
        ("encode", raw, "-o", f"codes {HOSTILE}", *ours),
        ("decode", codes, *ours),
        ("decode", f"codes {HOSTILE}", "-o", out, *ours),
        ("show", codes, "--original", scan, "-o", f"{HOSTILE}.svg", *ours),
        ("show", codes, "--original", scan, "-o", f"{HOSTILE}.png", *ours),
        ("info", codes),
        ("info", model),
        ("verify", codes, f"codes {HOSTILE}", model, *ours),
        ("export", f"codes {HOSTILE}", "-o", tokens[0], *ours),
        ("preprocess", raw, "--dry-run"),
        ("preprocess", raw, "-o", data, "--size", "80", "--split", "50/50/0"),
        ("info", data),
        ("train", data, "-o", run_folder, *setup),
        ("info", run_folder),
        ("score", data, "--split", "train", "--model", run_folder),
        ("score", data, "--split", "train", "--model", run_folder, "--against", "jpeg"),
        ("score", scan, *ours),
        ("sample", "-n", "2", "-o", f"{HOSTILE} 2.png", *ours),
    ):
        assert_shown_safely(run(*command))
    for path in (codes, model, data):
        result = run("info", path, "--json")
        assert_shown_safely(result)
        json.loads(result.out)
        assert result.out.isascii()
    for command in (
        ("encode", bad, "-o", f"more {HOSTILE}", *ours),
        ("decode", bad, "-o", f"more {HOSTILE}", *ours),
        ("verify", bad),
        ("preprocess", bad, "-o", f"more {HOSTILE}"),
        ("train", bad),
        ("score", bad / f"{HOSTILE}.nii", *ours),
        ("info", f"none {HOSTILE}"),
        ("encode", scan, "--model", f"none {HOSTILE}"),
        ("decode", codes, "-o", f"none {HOSTILE}/x.png", *ours),
        ("show", codes, "--original", bad / f"{HOSTILE}.png", "-o", f"{HOSTILE} 3.png", *ours),
        ("export", bad, "-o", f"{HOSTILE} 2.npz"),
        ("score", data, "--split", HOSTILE, *ours),
    ):
        assert_shown_safely(run(*command), code=1)
    calls = (HOSTILE,), ("info", codes, HOSTILE), ("info", f"--{HOSTILE}"), ("score", "-q", HOSTILE)
    for command in calls:
        result = run(*command)
        assert result.code == 2
        assert not any(each in result.err for each in RAW), result
    picture = next(tmp_path.glob("*.svg")).read_text("utf-8")
    assert "\\x1b[31m" in picture
    assert "<b>" not in picture


def test_printable_text_is_left_alone_and_other_text_escaped() -> None:
    assert printable("Müller × 3 – 脳.png") == "Müller × 3 – 脳.png"
    shown = printable(HOSTILE)
    assert shown.isprintable()
    assert shown == "a\\x1b[31m\\x9b2J\\r\\nb\\u202ec\\u2066[red][link=x]$_^{$<b>&\"'\\udcfc"
    shown.encode("utf-8")


@pytest.mark.parametrize("reporter", [LineReporter, LiveReporter])
def test_notes_of_a_training_are_no_markup(reporter: type[LineReporter | LiveReporter]) -> None:
    stream = io.StringIO()
    reporter(Console(file=stream, force_terminal=True)).note(f"{HOSTILE}[/red] [bold]x[/bold]")
    assert stream.getvalue() == f"{printable(HOSTILE)}[/red] [bold]x[/bold]\n"


def test_the_description_of_a_progress_bar_is_no_markup(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(stream, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    with progress_bar(f"scoring [/red]{HOSTILE}") as advance:
        advance(1, 2)
    shown = stream.getvalue()
    assert "[/red]" in shown
    assert "[red]" in shown
    assert not any(each in shown for each in ("\x9b", "\u202e", "\udcfc", "\x1b[31m\\x9b"))


def test_names_where_the_locale_is_plain_ascii(tmp_path: Path) -> None:
    name = os.fsencode(tmp_path) + b"/M\xfcller \x1b[31m\xe2\x80\xae.codes"
    Path(os.fsdecode(name)).write_text("nothing")
    plain = {"LC_ALL": "C", "LANG": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    result = subprocess.run(
        [os.fsencode(sys.executable), b"-m", b"oasisvq", b"info", name],
        env=os.environ | plain,
        capture_output=True,
        check=False,
    )
    assert result.returncode == 1, result
    assert result.stderr.isascii()
    assert b"\x1b" not in result.stderr
    assert b"ller \\x1b[31m" in result.stderr
    assert b"Traceback" not in result.stderr


def test_help_answers_before_numpy_is_imported() -> None:
    code = "import oasisvq.cli, sys; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# sizes


@contextmanager
def within(seconds: float, megabytes: float) -> Iterator[None]:
    """Nothing of what a file only claims may be allocated."""
    tracemalloc.start()
    began = time.monotonic()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < megabytes * 1e6
    finally:
        tracemalloc.stop()
    assert time.monotonic() - began < seconds


def png(width: int, height: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """An 8-bit grey PNG of a few bytes, with chunks before its pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + checksum

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(bytes((width + 1) * height if width < 99 else 99)))
    middle = b"".join(chunk(*each) for each in chunks)
    return b"\x89PNG\r\n\x1a\n" + header + middle + pixels + chunk(b"IEND", b"")


def tiff_of_many_images(count: int) -> bytes:
    """A TIFF whose directories each claim one more image."""
    entries = ((256, 9), (257, 9), (258, 8), (259, 1), (262, 1), (273, 0), (277, 1), (278, 9), (279, 81))
    directory = struct.pack("<H", len(entries))
    directory += b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    size = len(directory) + 4
    places = [8 + size * (place + 1) for place in range(count - 1)] + [0]
    return b"II*\0\x08\0\0\0" + b"".join(directory + struct.pack("<I", place) for place in places)


def nifti(*shape: int, dtype: str = "u1", offset: float = 352, voxels: bytes = b"") -> bytes:
    """A NIfTI-1 file whose header claims a shape."""
    header = nib.Nifti1Header()
    header.set_data_dtype(np.dtype(dtype))
    header["dim"][: len(shape) + 1] = len(shape), *shape
    header["pixdim"][1:4] = 1
    header["vox_offset"] = offset
    header["magic"] = b"n+1"
    return bytes(header.binaryblock) + bytes(4) + voxels


MEGABYTE = bytes(2**20)
# a file's name, its content, and what is said of it
TOO_LARGE = {
    "claims.png": (png(5000, 5000), "more than the limit of 16,777,216"),
    "claims-more.png": (png(60_000, 60_000), "more than the limit of 67,108,864"),
    "claims-most.png": (png(2**31 - 1, 2**31 - 1), "more than the limit of 67,108,864"),
    "text.png": (png(8, 8, (b"zTXt", b"a\0\0" + zlib.compress(MEGABYTE * 99))), "damaged"),
    "itxt.png": (png(8, 8, (b"iTXt", b"a\0\1\0\0\0" + zlib.compress(MEGABYTE * 99))), "damaged"),
    "many.tif": (tiff_of_many_images(20_000), "several images"),
    "terabytes.nii": (nifti(32_767, 32_767, 1000, dtype="f8"), "more than the limit of 1,073,741,824"),
    "large.nii": (nifti(513, 512, 512), "more than the limit of 134,217,728"),
    "overflows.nii": (nifti(32_767, 32_767, 32_767, 32_767), "expected one volume"),
    "negative.nii": (nifti(-5, 512, 512), "expected three sides"),
    "whole.nii": (nifti(512, 512, 512), "truncated"),  # within the limit, and its voxels are missing
    "far.nii": (nifti(9, 9, 9, offset=1e18), "a damaged header"),
    "bomb.nii.gz": (gzip.compress(nifti(9, 9, 9) + bytes(729) + MEGABYTE * 200), "goes on after"),
    "far.nii.gz": (gzip.compress(nifti(9, 9, 9, offset=3e8) + MEGABYTE * 300), "a damaged header"),
}


@pytest.mark.parametrize("name", TOO_LARGE)
def test_a_file_that_claims_or_unpacks_to_much(tmp_path: Path, name: str) -> None:
    content, says = TOO_LARGE[name]
    (tmp_path / name).write_bytes(content)
    with within(seconds=2, megabytes=20), pytest.raises(ImageError, match=says) as raised:
        read_scan(tmp_path / name)
    assert name in str(raised.value)


def test_what_an_image_shows_of_itself_is_no_matter(tmp_path: Path) -> None:
    """Text of an honest size is passed over."""
    texts = PngImagePlugin.PngInfo()
    texts.add_text("Comment", "x" * 9999, zip=True)
    Image.fromarray(np.eye(9, dtype=np.uint8)).save(tmp_path / "a.png", pnginfo=texts)
    assert read_scan(tmp_path / "a.png").plane.shape == (9, 9)


def test_gzip_may_hold_a_little_more_than_its_voxels(tmp_path: Path) -> None:
    """As files padded to blocks do."""
    voxels = np.arange(27, dtype=np.uint8).tobytes()
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(nifti(3, 3, 3, voxels=voxels) + bytes(512)))
    assert read_volume(tmp_path / "a.nii.gz").voxels.max() == 26


def test_the_limit_is_raised_by_an_option(
    run: Run, model_file: Path, phantom_png: Path, tmp_path: Path
) -> None:
    """For reading as for restoring, of one file and of a folder."""
    ours = ("--model", model_file)
    enough, small = ("--max-pixels", "4096"), ("--max-pixels", "4095")
    assert run("encode", phantom_png, *ours, *enough).code == 0
    (tmp_path / "codes").mkdir()
    shutil.copy("scan.codes", "codes")
    (tmp_path / "images").mkdir()
    shutil.copy(phantom_png, "images")
    for command in (
        ("encode", phantom_png, "-f", *ours),
        ("encode", "images", "-o", "out1", *ours),
        ("decode", "scan.codes", *ours),
        ("decode", "codes", "-o", "out2", *ours),
        ("show", "scan.codes", *ours),
        ("score", phantom_png, *ours),
        ("preprocess", "images", "-o", "out3", "--size", "64"),
    ):
        refused = run(*command, *small)
        assert_shown_safely(refused, code=1)
        assert "64×64 pixels, more than the limit of 4,095" in refused.err
        assert "pass --max-pixels 4096" in refused.err
        assert run(*command, *enough).code == 0


@pytest.mark.parametrize(
    "card",
    [{"size": 65_535}, {"size": 10**30}, {"size": 0}, {"size": 1.5}, {"size": "x"}, {"images": [1]}],
)
def test_a_model_whose_card_asks_for_too_much(run: Run, tmp_path: Path, card: dict[str, object]) -> None:
    """Samples and slices of raw folders are made at the size that it names."""
    save_model(tiny_model(), tmp_path / "m.safetensors", card, tiny_prior())
    result = run("sample", "-n", "1", "-o", "s.png", "--model", "m.safetensors")
    assert_shown_safely(result, code=1)
    assert "expected 1 to 4,096" in result.err


def test_the_limit_of_a_volume(tmp_path: Path) -> None:
    """512×512×512 voxels by default, and eight times what an image may have by option."""
    assert DEFAULT_MAX_PIXELS * VOXELS_A_PIXEL == 512**3
    voxels = np.arange(4 * 5 * 6, dtype=np.uint8).tobytes()
    (tmp_path / "a.nii").write_bytes(nifti(4, 5, 6, voxels=voxels))
    with pytest.raises(ImageError, match=r"4×5×6 voxels, more than the limit of 112; .* 15"):
        read_scan(tmp_path / "a.nii", max_pixels=14)
    with pytest.raises(ImageError, match="a slice: 5×4 pixels, more than the limit of 15"):
        read_scan(tmp_path / "a.nii", max_pixels=15)
    assert read_scan(tmp_path / "a.nii", max_pixels=20).voxels.size == 120


def test_codes_that_would_unpack_to_much(run: Run, model_file: Path, tmp_path: Path) -> None:
    """Sixty bytes of a constant image say 67 million pixels."""
    codec = oasisvq.load(model_file)
    header = CodesHeader(
        coder=Coder.PACKED,
        kind=Kind.IMAGE,
        sample_type=SampleType.UINT16,
        shape=(8192, 8192),
        stride=8,
        window=NOTHING,
        levels=1,
        codebook_size=20,
        intensity=(7, 7),
        fingerprint=codec.fingerprint,
    )
    content = container.write(header, b"")
    (tmp_path / "a.codes").write_bytes(content)
    message = "8192×8192 pixels, more than the limit of 16,777,216"
    with within(seconds=5, megabytes=20):
        result = run("decode", "a.codes", "--model", model_file)
        with pytest.raises(ImageError, match=message):
            codec.decode(content)
    assert_shown_safely(result, code=1)
    assert message in result.err
    decoded = codec.decode(content, max_pixels=2**26)
    assert decoded.shape == (8192, 8192)
    assert (decoded == 7).all()


# the network


def test_the_network_is_out_of_reach() -> None:
    """A test of the block in conftest.py, which holds for all tests."""
    import socket

    with pytest.raises(PermissionError), socket.socket() as one:
        one.connect(("127.0.0.1", 9))
    with pytest.raises(PermissionError):
        socket.getaddrinfo("example.org", 443)
    assert len(network_attempts) == 2
    network_attempts.clear()


# dependencies


AUDIT = Path(__file__).parents[2] / ".ci" / "audit.py"


@pytest.mark.skipif(not AUDIT.is_file(), reason="the checks are not part of an sdist")
def test_what_the_audit_makes_of_a_report() -> None:
    """As `pip-audit --format json` prints it."""
    verdict = runpy.run_path(str(AUDIT))["verdict"]
    unknown = {"name": "ours", "skip_reason": "Dependency not found on PyPI"}
    good = {"name": "numpy", "version": "2.0", "vulns": []}
    found = {"id": "PYSEC-1", "fix_versions": ["11.4"], "aliases": ["CVE-1"], "description": "..."}
    bad = {"name": "pillow", "version": "11.3", "vulns": [found]}
    assert verdict([unknown, unknown]) == (True, ["audit: skipped, PyPI tells of none of 2 packages"])
    assert verdict([good, unknown]) == (
        True,
        ["audit: no known vulnerability in 1 packages; not known there: ours"],
    )
    assert verdict([good, bad, unknown]) == (
        False,
        ["audit: pillow 11.3: PYSEC-1, fixed in 11.4"],
    )
