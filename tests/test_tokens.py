"""Many `.codes` files <-> one array file."""

import json
import os
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import AFFINE, Result, draw_head, draw_labels, draw_volume, files_below
from PIL import Image

import oasisvq
from oasisvq.codec import container
from oasisvq.codec.codes import NO_INDEX
from oasisvq.codec.content import Content
from oasisvq.codec.headers import CodesHeader
from oasisvq.errors import CodesFileError, FileError
from oasisvq.folders import WHOLE, Shard, shard_of_environment
from oasisvq.gathering import Gathering, gather
from oasisvq.tokens import read_tokens, write_tokens

Run = Callable[..., Result]


@pytest.fixture
def codes_folder(tmp_path: Path, model_file: Path, rng: np.random.Generator) -> Path:
    """Files of two qualities, sizes and types, one of a constant image, in a tree."""
    codec = oasisvq.load(model_file)
    folder = tmp_path / "codes"
    (folder / "inner").mkdir(parents=True)
    planes = {
        "case_004_slice_0.nii": draw_head(rng),
        "inner/OAS1_0007_MR1": draw_head(rng, 72, 60, margin=2),
        "sixteen": draw_head(rng).astype(np.uint16) * 200,
        "constant": np.full((30, 40), 9, dtype=np.uint8),
    }
    for number, (name, plane) in enumerate(planes.items()):
        (folder / f"{name}.codes").write_bytes(codec.encode(plane, 1 + number % 3))
    return folder


@pytest.mark.parametrize("suffix", [".npz", ".safetensors", ".tokens"])
def test_every_slice_comes_back_as_its_file_held_it(codes_folder: Path, suffix: str) -> None:
    path = codes_folder.parent / f"tokens{suffix}"
    write_tokens(gather(codes_folder), path)
    tokens = read_tokens(path)
    assert tokens.names == ["case_004_slice_0.nii", "constant", "sixteen", "inner/OAS1_0007_MR1"]
    assert tokens.subjects == ["OAS1_0004", "", "", "OAS1_0007"]
    for position, name in enumerate(tokens.names):
        original = oasisvq.read_codes(codes_folder / f"{name}.codes")
        restored = tokens.codes(position)
        np.testing.assert_array_equal(restored.indices, original.indices)
        if original.indices.size:
            assert restored.header == original.header
        assert restored.header.shape == original.header.shape


def test_one_cell_of_the_array_is_one_place_in_every_image(codes_folder: Path) -> None:
    tokens = gather(codes_folder)
    position = tokens.names.index("inner/OAS1_0007_MR1")
    indices, origin = tokens.arrays["indices"], tokens.arrays["origins"][position]
    codes = oasisvq.read_codes(codes_folder / "inner/OAS1_0007_MR1.codes")
    window = codes.header.window
    row, column = window.top - origin[0], window.left - origin[1]
    assert indices[position, 0, row, column] == codes.indices[0, 0, 0]
    missing_levels = indices[position, codes.header.levels :]
    assert (missing_levels == NO_INDEX).all()
    assert (indices[tokens.names.index("constant")] == NO_INDEX).all()


def test_decode_takes_an_exported_file_back_to_images(
    run: Run, codes_folder: Path, model_file: Path, tmp_path: Path
) -> None:
    assert run("export", codes_folder, "-o", "tokens.npz").code == 0
    assert run("decode", "tokens.npz", "-o", "a", "--model", model_file).code == 0
    assert run("decode", codes_folder, "-o", "b", "--model", model_file).code == 0
    names = sorted(path.relative_to(tmp_path / "b") for path in (tmp_path / "b").rglob("*.png"))
    assert len(names) == 4
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@pytest.fixture
def volumes_folder(tmp_path: Path, prior_model_file: Path, rng: np.random.Generator) -> Path:
    """Volumes of several types and sizes, one of labels by the model, and an image, in a tree."""
    codec = oasisvq.load(prior_model_file)
    folder = tmp_path / "codes"
    (folder / "inner").mkdir(parents=True)
    labels = draw_labels(rng, (24, 24, 4), 5).astype(np.int16) * 3 - 6
    for name, content in (
        ("sub-1", codec.encode(draw_volume(rng, draw=draw_head), affine=AFFINE)),
        ("inner/sub-2", codec.encode(draw_volume(rng, 4, draw_head) / np.float32(7), 3, affine=AFFINE)),
        ("labels", codec.encode(labels, affine=AFFINE, content=Content.LABELS, lossy=True)),
        ("slice_7", codec.encode(draw_head(rng), 1)),
    ):
        (folder / f"{name}.codes").write_bytes(content)
    return folder


def test_what_lies_beside_the_indices_is_left_out(
    tmp_path: Path, residue_model_file: Path, rng: np.random.Generator
) -> None:
    codec = oasisvq.load(residue_model_file)
    volume = draw_volume(rng, draw=draw_head).astype(np.float32)
    volume[volume == 0] = np.nan
    volume[20, 24, 1] = 1e9
    (tmp_path / "scan.codes").write_bytes(codec.encode(volume, max_error=5))
    tokens = gather(tmp_path, residue_model_file)
    restored = codec.decode_codes(tokens.codes(0), "scan").voxels
    assert restored.shape == volume.shape
    assert np.isfinite(restored).all()
    assert restored.max() < 1e6


def test_an_export_says_that_it_leaves_residues_out(
    run: Run, tmp_path: Path, residue_model_file: Path, rng: np.random.Generator
) -> None:
    codec, phantom = oasisvq.load(residue_model_file), draw_head(rng)
    (tmp_path / "codes").mkdir()
    (tmp_path / "codes" / "plain.codes").write_bytes(codec.encode(phantom, levels=1))
    exported = "export", "codes", "-o", "t.npz", "--model", residue_model_file
    assert "residues" not in run(*exported).out
    (tmp_path / "codes" / "exact.codes").write_bytes(codec.encode(phantom, max_error=0))
    assert "of 1 file only the indices are exported; residues," in run(*exported, "-f").out


@pytest.mark.parametrize("suffix", [".npz", ".safetensors", ".tokens"])
def test_volumes_come_back_with_their_geometry(
    run: Run, volumes_folder: Path, prior_model_file: Path, tmp_path: Path, suffix: str
) -> None:
    path, given = tmp_path / f"tokens{suffix}", ("--model", prior_model_file)
    exported = run("export", volumes_folder, "-o", path, "--jobs", "2", *given)
    assert exported.code == 0, exported.err
    assert "15 × 3 ×" in exported.out
    tokens = read_tokens(path)
    assert tokens.names == ["labels", "slice_7", "sub-1", "inner/sub-2"]
    assert tokens.arrays["files"].tolist() == [0] * 4 + [1] + [2] * 6 + [3] * 4
    assert tokens.arrays["positions"].tolist() == [*range(4), 7, *range(6), *range(4)]
    assert (tokens.arrays["indices"][9:11] == NO_INDEX).all()  # empty slices of sub-1
    assert run("decode", path, "-o", "a", *given).code == 0
    assert run("decode", volumes_folder, "-o", "b", *given).code == 0
    assert files_below(tmp_path / "a") == files_below(tmp_path / "b")
    assert len(files_below(tmp_path / "a")) == 4
    again = run("export", volumes_folder, "-o", path, *given)
    assert again.code == 1
    assert "exists; pass -f" in again.err
    assert run("export", volumes_folder, "-o", path, "-f", *given).code == 0


def test_shards_of_an_export_have_one_grid(
    run: Run, volumes_folder: Path, prior_model_file: Path, tmp_path: Path
) -> None:
    whole = gather(volumes_folder, prior_model_file)
    parts = []
    for index in range(2):
        options = ("--shard", f"{index}/2", "--model", prior_model_file)
        assert run("export", volumes_folder, "-o", f"{index}.npz", *options).code == 0
        parts.append(read_tokens(tmp_path / f"{index}.npz"))
    assert sorted(parts[0].names + parts[1].names) == sorted(whole.names)
    for part in parts:
        for position, name in enumerate(part.names):
            mine = part.arrays["indices"][part.arrays["files"] == position]
            there = whole.arrays["files"] == whole.names.index(name)
            np.testing.assert_array_equal(mine, whole.arrays["indices"][there])
    many = ("--shard", "7/9", "--model", prior_model_file)
    assert "too few for so many shards" in run("export", volumes_folder, "-o", "7.npz", *many).err


def test_a_store_is_mapped_and_a_half_written_one_is_refused(
    volumes_folder: Path, prior_model_file: Path, tmp_path: Path
) -> None:
    store = tmp_path / "all.tokens"
    Gathering(volumes_folder, prior_model_file).write(store)
    tokens = read_tokens(store)
    assert isinstance(tokens.arrays["indices"], np.memmap)
    sent = pickle.dumps(tokens)
    assert len(sent) < 500  # the path alone
    np.testing.assert_array_equal(pickle.loads(sent).arrays["indices"], tokens.arrays["indices"])
    cut = store / "indices.npy"
    cut.write_bytes(cut.read_bytes()[:-2])
    with pytest.raises(CodesFileError, match="not a whole file"):
        read_tokens(store)
    (store / "tokens.json").unlink()
    with pytest.raises(CodesFileError, match="half written"):
        read_tokens(store)


@pytest.mark.parametrize("suffix", [".npz", ".safetensors", ".tokens"])
def test_a_bad_file_leaves_no_export(codes_folder: Path, model_file: Path, suffix: str) -> None:
    path = codes_folder / "inner" / "OAS1_0007_MR1.codes"
    file = container.read(path.read_bytes(), path.name)
    payload = bytes([255]) * len(file.payload)  # of K = 20, no index is 31
    path.write_bytes(container.write(file.header, payload))
    output = codes_folder.parent / "out" / f"tokens{suffix}"
    output.parent.mkdir()
    with pytest.raises(CodesFileError, match="OAS1_0007"):
        Gathering(codes_folder, model_file).write(output)
    assert not list(output.parent.iterdir())


def test_prior_coded_files_are_exported_beside_packed_ones(
    run: Run, codes_folder: Path, prior_model_file: Path, tmp_path: Path, rng: np.random.Generator
) -> None:
    """One model made them all; only how their indices were coded differs."""
    codec = oasisvq.load(prior_model_file)
    for path in codes_folder.rglob("*.codes"):
        file = container.read(path.read_bytes(), path.name)
        renamed = replace(file.header, fingerprint=codec.fingerprint)
        path.write_bytes(container.write(renamed, file.payload))
    (codes_folder / "coded.codes").write_bytes(codec.encode(draw_head(rng), 3))
    (codes_folder / "flat.codes").write_bytes(codec.encode(np.full((30, 40), 9, dtype=np.uint8)))
    given = ("--model", prior_model_file)
    assert run("export", codes_folder, "-o", "tokens.npz", *given).code == 0
    tokens = read_tokens(tmp_path / "tokens.npz")
    original = oasisvq.read_codes(codes_folder / "coded.codes", prior_model_file)
    restored = tokens.codes(tokens.names.index("coded"))
    np.testing.assert_array_equal(restored.indices, original.indices)
    assert restored.header.fingerprint == codec.fingerprint
    assert run("decode", "tokens.npz", "-o", "a", *given).code == 0
    assert run("decode", codes_folder, "-o", "b", *given).code == 0
    names = sorted(path.relative_to(tmp_path / "b") for path in (tmp_path / "b").rglob("*.png"))
    assert len(names) == 6
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_files_of_two_models_are_refused(codes_folder: Path) -> None:
    header = oasisvq.read_codes(codes_folder / "constant.codes").header
    other = CodesHeader(**{**header.__dict__, "fingerprint": b"otherone"})
    (codes_folder / "constant.codes").write_bytes(container.write(other, b""))
    with pytest.raises(CodesFileError, match="constant"):
        gather(codes_folder)


def test_an_empty_folder_and_an_unknown_ending_are_refused(tmp_path: Path, codes_folder: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileError, match="empty"):
        gather(tmp_path / "empty")
    with pytest.raises(FileError, match="rename the output"):
        write_tokens(gather(codes_folder), tmp_path / "tokens.txt")


def changed(path: Path, **arrays: object) -> None:
    with np.load(path) as archive:
        fields = {name: archive[name] for name in archive.files}
    np.savez(path, **{**fields, **arrays})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["../evil", "/evil", "a/../../evil", "", "a\0b", "..\\evil"])
def test_a_name_cannot_lead_out_of_the_output_folder(codes_folder: Path, name: str) -> None:
    path = codes_folder.parent / "tokens.safetensors"
    tokens = gather(codes_folder)
    tokens.names[0] = name
    write_tokens(tokens, path)
    with pytest.raises(CodesFileError, match="cannot be a path below"):
        read_tokens(path)


def test_damaged_array_files_are_refused(codes_folder: Path) -> None:
    path = codes_folder.parent / "tokens.npz"
    write_tokens(gather(codes_folder), path)
    whole = path.read_bytes()
    for content in (b"", b"text", whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(CodesFileError, match=r"tokens\.npz"):
            read_tokens(path)
    for damage in (
        {"indices": np.zeros((4, 3), np.uint16)},
        {"indices": np.zeros((3, 3, 5, 6), np.uint16)},
        {"windows": np.zeros((4, 3), np.int32)},
        {"codebook": np.array([1, 8], np.int32)},
        {"codebook": np.array([20, 65], np.int32)},
        {"sample_types": np.full(4, 10, np.uint8)},
        {"names": np.array([json.dumps(3)], dtype=object)},
        {"fingerprint": np.zeros(4, np.uint8)},
        {"files": np.array([0, 1, 1, 3], np.int32)},
        {"files": np.array([1, 0, 2, 3], np.int32)},
        {"header_ends": np.array([0, 0, 0, 9], np.int64)},
    ):
        path.write_bytes(whole)
        changed(path, **damage)
        with pytest.raises(CodesFileError, match=r"tokens\.npz"):
            read_tokens(path)


def test_no_flipped_bit_of_a_safetensors_file_is_read(
    codes_folder: Path, rng: np.random.Generator
) -> None:
    path = codes_folder.parent / "tokens.safetensors"
    write_tokens(gather(codes_folder), path)
    whole = path.read_bytes()
    for bit in rng.choice(8 * len(whole), 300, replace=False).tolist():
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        with pytest.raises(CodesFileError, match=r"tokens\.safetensors"):
            read_tokens(path)


def test_compressed_members_are_refused(codes_folder: Path) -> None:
    path = codes_folder.parent / "tokens.npz"
    tokens = gather(codes_folder)
    strings = {"names": np.array(tokens.names), "subjects": np.array(tokens.subjects)}
    np.savez_compressed(path, **tokens.arrays, **strings)
    with pytest.raises(CodesFileError, match="compressed"):
        read_tokens(path)


def test_one_huge_image_does_not_widen_the_array_for_all(codes_folder: Path, model_file: Path) -> None:
    codec = oasisvq.load(model_file)
    plane = np.zeros((600, 900), np.uint8)
    plane[-9:, -9:] = 200
    before = gather(codes_folder).arrays["indices"].shape
    (codes_folder / "far.codes").write_bytes(codec.encode(plane, 1, content=Content.SCAN))
    tokens = gather(codes_folder)
    assert np.prod(tokens.arrays["indices"].shape[1:]) <= 2 * np.prod(before[1:])
    far = tokens.names.index("far")
    np.testing.assert_array_equal(tokens.arrays["origins"][far], tokens.arrays["windows"][far][:2])
    for position, name in enumerate(tokens.names):
        original = oasisvq.read_codes(codes_folder / f"{name}.codes")
        np.testing.assert_array_equal(tokens.codes(position).indices, original.indices)


def test_a_stale_image_is_not_taken_for_the_restored_one(
    run: Run, tmp_path: Path, model_file: Path, rng: np.random.Generator
) -> None:
    (tmp_path / "slices").mkdir()
    Image.fromarray(draw_head(rng)).save(tmp_path / "slices" / "a.png")

    def call(command: str, source: str, output: str, *options: str) -> Result:
        return run(command, source, "-o", output, "--model", model_file, *options)

    assert call("encode", "slices", "codes", "-q", "1").code == 0
    assert call("decode", "codes", "out").code == 0
    assert "1 already there" in call("decode", "codes", "out").out
    assert call("encode", "slices", "codes", "-q", "3", "-f").code == 0
    os.utime(tmp_path / "out" / "a.png", (1, 1))  # whatever the clock's resolution
    stale = call("decode", "codes", "out")
    assert stale.code == 1
    assert "exists; pass -f" in stale.err
    assert call("decode", "codes", "out", "-f").code == 0
    # beside the originals, a restored image gets a name of its own
    assert call("encode", "slices", "slices").code == 0
    assert call("decode", "slices", "slices").code == 0
    assert (tmp_path / "slices" / "a.decoded.png").is_file()


def test_a_slice_whose_window_or_index_is_out_of_range_is_an_error(codes_folder: Path) -> None:
    tokens = gather(codes_folder)
    tokens.arrays["indices"][0, 0] = 20  # K is 20
    with pytest.raises(CodesFileError, match="out of range"):
        tokens.codes(0)
    tokens = gather(codes_folder)
    tokens.arrays["windows"][0] = (-1, 0, 5, 6)
    with pytest.raises(CodesFileError, match="out of range"):
        tokens.codes(0)
    tokens = gather(codes_folder)
    tokens.arrays["shapes"][0] = (8, 8)  # smaller than its window
    with pytest.raises(CodesFileError, match="window"):
        tokens.codes(0)


def test_the_batch_script_of_a_slurm_job_is_no_task_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("SLURM_PROCID", "0"), ("SLURM_NTASKS", "8"), ("SLURM_JOB_ID", "5")):
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("SLURM_STEP_ID", raising=False)
    monkeypatch.delenv("RANK", raising=False)
    assert shard_of_environment() == (WHOLE, "")
    monkeypatch.setenv("SLURM_STEP_ID", "0")
    assert shard_of_environment() == (Shard(0, 8), "SLURM")


def test_a_bad_slice_is_listed_and_the_others_are_decoded(
    run: Run, codes_folder: Path, model_file: Path, tmp_path: Path
) -> None:
    tokens = gather(codes_folder)
    tokens.arrays["shapes"][0] = (8, 8)
    write_tokens(tokens, tmp_path / "tokens.npz")
    result = run("decode", "tokens.npz", "-o", "out", "--model", model_file)
    assert result.code == 1
    assert "case_004" in result.err
    assert len(list((tmp_path / "out").rglob("*.png"))) == 3


def test_shards_together_are_one_run_and_a_shard_finishes_what_it_left(
    run: Run, tmp_path: Path, model_file: Path, rng: np.random.Generator
) -> None:
    slices = tmp_path / "slices"
    (slices / "inner").mkdir(parents=True)
    for number in range(5):
        folder = slices if number % 2 else slices / "inner"
        Image.fromarray(draw_head(rng)).save(folder / f"{number}.png")
    Image.fromarray(draw_head(rng)).save(slices / "1.tif")  # its output is that of 1.png

    def encode(output: str, *options: str) -> Result:
        return run("encode", "slices", "-o", output, "--model", model_file, *options)

    assert encode("whole").code == 1
    codes = [encode("parts", "--shard", f"{index}/3").code for index in range(3)]
    assert sorted(codes) == [0, 0, 1]  # the same file fails, in whichever shard has it

    def contents(folder: str) -> dict[str, bytes]:
        root = tmp_path / folder
        return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*.codes")}

    assert contents("parts") == contents("whole")
    assert len(contents("whole")) == 5
    (tmp_path / "parts" / "inner" / "2.codes").unlink()
    (tmp_path / "parts" / "3.codes").write_bytes(b"half")
    for index in range(3):
        encode("parts", "--shard", f"{index}/3")
    assert contents("parts")["inner/2.codes"] == contents("whole")["inner/2.codes"]
    assert contents("parts")["3.codes"] == b"half"  # not ours to overwrite without -f
    encode("parts", "-f")
    assert contents("parts") == contents("whole")


@pytest.mark.parametrize("shard", ["3/3", "-1/3", "1", "a/b", "1/0", ""])
def test_a_wrong_shard_is_a_usage_error(
    run: Run, raw_folder: Path, model_file: Path, shard: str
) -> None:
    result = run("encode", raw_folder, "-o", "out", "--model", model_file, f"--shard={shard}")
    assert result.code == 2
    assert "expected i/n" in result.err


@pytest.mark.parametrize(("rank", "size"), [("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_NTASKS")])
def test_torchrun_and_slurm_give_the_shard(
    run: Run,
    raw_folder: Path,
    model_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    rank: str,
    size: str,
) -> None:
    monkeypatch.setenv(rank, "1")
    monkeypatch.setenv(size, "4")
    result = run("encode", raw_folder, "-o", "out", "--model", model_file)
    assert result.code == 0
    assert "shard 1/4" in result.err
    assert "5 encoded" in result.out  # of 20
