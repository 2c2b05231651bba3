"""Raw folders and prepared datasets that no command can use."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import Refused, Run, write_raw_folder


def no_images(root: Path) -> str:
    (root / "keras_png_slices_train").mkdir(parents=True)
    return "no scans"


def no_layout(root: Path) -> str:
    (root / "holiday").mkdir(parents=True)
    return "no known OASIS layout"


def shared_subject(root: Path) -> str:
    write_raw_folder(root, {"train": [1, 2], "validate": [2]}, slices=1)
    return "OAS1_0002"


def other_name(root: Path) -> str:
    folder = write_raw_folder(root, {"train": [1]}, slices=1) / "keras_png_slices_train"
    (folder / "case_001_slice_0.nii.png").rename(folder / "patient_1.png")
    return "patient_1.png"


def damaged_slice(root: Path) -> str:
    folder = write_raw_folder(root, {"train": [1]}) / "keras_png_slices_train"
    path = folder / "case_001_slice_2.nii.png"
    path.write_bytes(path.read_bytes()[:50])
    return path.name


def a_file(root: Path) -> str:
    root.write_text("no folder")
    return "raw"


BAD_RAW = [no_images, no_layout, shared_subject, other_name, a_file]


@pytest.mark.parametrize("command", ["preprocess", "train", "score"])
@pytest.mark.parametrize("break_raw", BAD_RAW, ids=lambda each: each.__name__)
def test_bad_raw_folder(
    refused: Refused, tmp_path: Path, command: str, break_raw: Callable[[Path], str]
) -> None:
    naming = break_raw(tmp_path / "raw")
    output = ["-o", "out"] if command == "preprocess" else []
    assert "raw" in refused(command, "raw", *output, naming=naming)


def test_damaged_slice_of_a_raw_folder(refused: Refused, run: Run, tmp_path: Path) -> None:
    naming = damaged_slice(tmp_path / "raw")
    refused("preprocess", "raw", "-o", "out", naming=naming)
    refused("score", "raw", "--split", "train", naming=naming)
    result = run("train", "raw")
    assert result.code == 1
    assert naming in result.err.splitlines()[-1]
    assert not list((tmp_path / "oasisvq-run").rglob("*"))


def edit_manifest(prepared: Path, edit: Callable[[dict], object]) -> None:
    path = prepared / "manifest.json"
    manifest = json.loads(path.read_bytes())
    edit(manifest)
    path.write_text(json.dumps(manifest))


def manifest_text(prepared: Path) -> None:
    (prepared / "manifest.json").write_text("no JSON")


def manifest_empty(prepared: Path) -> None:
    (prepared / "manifest.json").write_bytes(b"")


def manifest_list(prepared: Path) -> None:
    (prepared / "manifest.json").write_text("[1, 2]")


def manifest_of_future(prepared: Path) -> None:
    edit_manifest(prepared, lambda manifest: manifest.update(format=99))


def manifest_without_key(prepared: Path) -> None:
    edit_manifest(prepared, lambda manifest: manifest.pop("size"))


def manifest_without_images(prepared: Path) -> None:
    edit_manifest(prepared, lambda m: [split.update(slices=[]) for split in m["splits"].values()])


def manifest_with_shared_subject(prepared: Path) -> None:
    edit_manifest(
        prepared,
        lambda m: m["splits"]["validation"]["slices"][0].update(subject="OAS1_0001"),
    )


BAD_MANIFESTS = [
    manifest_text,
    manifest_empty,
    manifest_list,
    manifest_of_future,
    manifest_without_key,
    manifest_without_images,
    manifest_with_shared_subject,
]


@pytest.mark.parametrize("break_prepared", BAD_MANIFESTS, ids=lambda each: each.__name__)
def test_bad_prepared_dataset(
    refused: Refused, prepared: Path, break_prepared: Callable[[Path], None]
) -> None:
    break_prepared(prepared)
    for command in ("train", "score", "info"):
        refused(command, "prepared", naming="prepared")


def test_subject_in_two_splits_is_named_with_both(refused: Refused, prepared: Path) -> None:
    manifest_with_shared_subject(prepared)
    line = refused("score", prepared, naming="OAS1_0001")
    assert "train and validation" in line


def test_prepared_array_that_does_not_fit(refused: Refused, prepared: Path) -> None:
    for name, command in (("train", "train"), ("validation", "score")):
        path = prepared / f"{name}.npy"
        whole = path.read_bytes()
        for content in (b"", b"no array", whole[:-1], whole[: len(whole) // 2]):
            path.write_bytes(content)
            refused(command, prepared, naming=f"{name}.npy")
        np.save(path, np.zeros((2, 32, 32), np.uint8))
        refused(command, prepared, naming=f"{name}.npy")
        np.save(path, np.array([{"a": "pickle"}]), allow_pickle=True)
        refused(command, prepared, naming=f"{name}.npy")
        path.unlink()
        refused(command, prepared, naming=f"{name}.npy")
        path.write_bytes(whole)


def test_split_that_is_not_there(refused: Refused, prepared: Path) -> None:
    line = refused("score", prepared, "--split", "test", naming="test")
    assert "train, validation" in line


def test_split_with_no_slices(refused: Refused, prepared: Path) -> None:
    edit_manifest(prepared, lambda m: m["splits"]["validation"].update(slices=[]))
    np.save(prepared / "validation.npy", np.zeros((0, 64, 64), np.uint8))
    refused("score", prepared, naming="prepared")


def test_training_without_a_training_split(refused: Refused, prepared: Path) -> None:
    edit_manifest(prepared, lambda manifest: manifest["splits"].pop("train"))
    assert "no training split" in refused("train", prepared, naming="prepared")
