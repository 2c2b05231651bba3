"""Tokens as a torch dataset: `oasisvq.torch.TokenDataset`. Imports torch, as `training/` does.

Shapes: L levels, h×w grid, K codes.

Tokens are numbers of one vocabulary: code c of level l (from 0) is l · K + c. After them come `empty`,
for cells outside the coded window or in a slice without content, and `pad`, for levels that the file of
the slice does not keep. A model over the whole vocabulary has `size` inputs and outputs.
"""

from pathlib import Path
from typing import NamedTuple, TypedDict

import numpy as np
import torch
from torch.utils.data import Dataset

from oasisvq.codec.codes import NO_INDEX
from oasisvq.data.layouts import SPLITS, given_split
from oasisvq.errors import DatasetError
from oasisvq.gathering import gather
from oasisvq.tokens import TOKEN_SUFFIXES, Tokens, read_tokens


class Vocabulary(NamedTuple):
    """The numbering of tokens.

    Attributes:
        levels: L; level l has the tokens l · codebook_size to (l + 1) · codebook_size - 1.
        codebook_size: K.
        empty: the token of a cell without an index.
        pad: the token of a level that was not kept.
        size: number of tokens in the vocabulary, L · K + 2.
    """

    levels: int
    codebook_size: int
    empty: int
    pad: int
    size: int


class TokenItem(TypedDict):
    """One slice; the default collation of a `DataLoader` batches it.

    Keys:
        tokens: (L, h, w) int64, tokens of the vocabulary.
        indices: (L, h, w) int64, 0 to K-1; 0 where `mask` is False.
        mask: (L, h, w) bool, True where there is an index.
        name: path of its file below the folder, without the ending.
        subject: the subject; empty if the path does not tell it.
        split: train, validation or test, if a folder on the path has this name; else empty.
        position: its number in its volume, from 0; for an image the number in its name, else 0.
    """

    tokens: torch.Tensor
    indices: torch.Tensor
    mask: torch.Tensor
    name: str
    subject: str
    split: str
    position: int


class TokenDataset(Dataset[TokenItem]):
    """The indices of many slices, from a folder of `.codes` files or from what `oasisvq export` wrote.

    All slices share one grid, so that a cell means the same place in every slice. Nothing is decoded or
    changed after the start, so workers of a `DataLoader`, forked or spawned, can safely share it.

    Attributes:
        vocabulary: what the tokens mean.
        tokens: the arrays behind it, see `oasisvq.tokens`.
    """

    def __init__(
        self,
        source: Path | str,
        levels: int | None = None,
        split: str | None = None,
        model: Path | str | None = None,
    ) -> None:
        """Read or gather the indices.

        Args:
            source: a folder of `.codes` files of one model, or an array file.
            levels: read only this many levels; if None, all that the files keep.
            split: only slices with `train`, `validation` or `test` on their path; if None, all.
            model: the model that made the files of a folder, as in `read_codes`; an array file needs
                none.

        Raises:
            FileError: missing, or a folder without `.codes` files.
            CodesFileError: damaged, or made with several models.
            DatasetError: there are no such levels, no such split, or no slices in it.
        """
        path = Path(source)
        is_folder = path.is_dir() and path.suffix not in TOKEN_SUFFIXES
        named = None if model is None else Path(model)
        self.tokens: Tokens = gather(path, named) if is_folder else read_tokens(path)
        kept = int(self.tokens.arrays["indices"].shape[1])
        if levels is not None and not 1 <= levels <= kept:
            raise DatasetError(f"{path}: levels {levels}, but its files keep 1 to {kept}")
        if split not in (None, *SPLITS):
            raise DatasetError(f"split {split!r}, expected {', '.join(SPLITS)}")
        count, codebook_size = levels or kept, int(self.tokens.arrays["codebook"][0])
        first = count * codebook_size
        self.vocabulary = Vocabulary(count, codebook_size, first, first + 1, first + 2)
        splits = [given_split(name) or "" for name in self.tokens.names]
        self._splits = splits
        is_wanted = np.array([split in (None, each) for each in splits], np.bool_)
        self._places = np.flatnonzero(is_wanted[self.tokens.arrays["files"]])
        if not len(self._places):
            raise DatasetError(f"{path}: no slices of split {split}; a folder on their path names it")

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, number: int) -> TokenItem:
        if not -len(self) <= number < len(self):
            raise IndexError(number)  # Python ends a loop by it
        place = int(self._places[number])
        file, vocabulary = int(self.tokens.arrays["files"][place]), self.vocabulary
        found = self.tokens.arrays["indices"][place, : vocabulary.levels]
        mask = found != NO_INDEX
        if (found[mask] >= vocabulary.codebook_size).any():
            raise DatasetError(f"{self.tokens.names[file]}: damaged: an index beyond the codebook")
        indices = np.where(mask, found, 0).astype(np.int64)
        offsets = np.arange(vocabulary.levels)[:, None, None] * vocabulary.codebook_size
        tokens = np.where(mask, indices + offsets, vocabulary.empty)
        tokens[int(self.tokens.arrays["levels"][file]) :] = vocabulary.pad
        return {
            "tokens": torch.from_numpy(tokens),
            "indices": torch.from_numpy(indices),
            "mask": torch.from_numpy(mask),
            "name": self.tokens.names[file],
            "subject": self.tokens.subjects[file],
            "split": self._splits[file],
            "position": int(self.tokens.arrays["positions"][place]),
        }
