"""Tokens as a torch dataset."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import draw_phantom
from torch.utils.data import DataLoader

import oasisvq
from oasisvq.errors import CodesFileError, DatasetError, FileError
from oasisvq.gathering import gather
from oasisvq.tokens import write_tokens
from oasisvq.torch import TokenDataset, Vocabulary


@pytest.fixture
def folder(tmp_path: Path, model_file: Path, rng: np.random.Generator) -> Path:
    codec = oasisvq.load(model_file)
    for name, levels in (("train/case_001_slice_4", 3), ("val/case_002_slice_0", 1)):
        path = tmp_path / "codes" / f"{name}.codes"
        path.parent.mkdir(parents=True)
        path.write_bytes(codec.encode(draw_phantom(rng), levels))
    (tmp_path / "codes" / "ground.codes").write_bytes(codec.encode(np.full((64, 64), 7, np.uint8)))
    return tmp_path / "codes"


def test_a_slice_is_tokens_of_one_vocabulary(folder: Path) -> None:
    dataset = TokenDataset(folder)
    assert dataset.vocabulary == Vocabulary(3, 20, 60, 61, 62)
    items = {item["name"]: item for item in (dataset[number] for number in range(3))}
    whole, short, ground = (
        items[name] for name in ("train/case_001_slice_4", "val/case_002_slice_0", "ground")
    )
    codes = oasisvq.read_codes(folder / "train/case_001_slice_4.codes")
    np.testing.assert_array_equal(whole["indices"], codes.indices)
    np.testing.assert_array_equal(whole["tokens"], codes.indices + 20 * np.arange(3)[:, None, None])
    assert whole["mask"].all()
    assert (whole["subject"], whole["split"], whole["position"]) == ("OAS1_0001", "train", 4)
    assert short["split"] == "validation"
    assert (short["tokens"][1:] == dataset.vocabulary.pad).all()
    assert not short["mask"][1:].any()
    assert (ground["tokens"][:2] == dataset.vocabulary.empty).all()
    assert not ground["indices"].any()


@pytest.mark.parametrize("suffix", [".npz", ".safetensors", ".tokens"])
def test_an_array_file_gives_what_its_folder_gives(folder: Path, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"tokens{suffix}"
    write_tokens(gather(folder), path)
    for first, second in zip(TokenDataset(folder), TokenDataset(path), strict=True):
        assert first["name"] == second["name"]
        assert torch.equal(first["tokens"], second["tokens"])


def test_batches_of_workers_are_those_of_one_process(folder: Path) -> None:
    dataset = TokenDataset(folder, levels=1, split="train")
    assert len(dataset) == 1
    copy = pickle.loads(pickle.dumps(dataset))  # as to a spawned worker
    (batch,) = DataLoader(copy, batch_size=4, num_workers=1)
    assert torch.equal(batch["tokens"][0], dataset[0]["tokens"])
    assert batch["name"] == ["train/case_001_slice_4"]


def test_what_cannot_be_had_is_said(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="levels 4, but its files keep 1 to 3"):
        TokenDataset(folder, levels=4)
    with pytest.raises(DatasetError, match="split 'val', expected train"):
        TokenDataset(folder, split="val")
    with pytest.raises(DatasetError, match="no slices of split test"):
        TokenDataset(folder, split="test")
    with pytest.raises(FileError, match="no such file"):
        TokenDataset(tmp_path / "none.npz")
    (tmp_path / "half.npz").write_bytes(b"PK")
    with pytest.raises(CodesFileError, match="not a whole file"):
        TokenDataset(tmp_path / "half.npz")
