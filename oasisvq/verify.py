"""Checks whether `.codes` files, models and prepared datasets are whole. Never imports torch."""

from collections.abc import Callable, Iterable, Iterator
from enum import Enum
from pathlib import Path
from typing import NamedTuple

from oasisvq.codec.codec import Codec
from oasisvq.codec.container import MAGIC, SUFFIX, read_codes_file
from oasisvq.codec.headers import Coder, CodesHeader, refuse_large_codes
from oasisvq.codec.modelfile import ModelFile, read_model, refuse_other_model
from oasisvq.codec.slices import codes_of
from oasisvq.data.dataset import is_prepared, open_dataset
from oasisvq.errors import (
    CodesFileError,
    DatasetError,
    FileError,
    ModelError,
    OasisVQError,
    OtherModelError,
)
from oasisvq.files import MODEL_FILE, STORE_SUFFIX, is_model_name, read_bytes
from oasisvq.folders import EVERYTHING, WHOLE, Globs, PassedOver, Shard, walk
from oasisvq.jobs import calls
from oasisvq.scans.limits import DEFAULT_MAX_PIXELS, MAX_FILE_BYTES
from oasisvq.tokens import is_export, read_tokens

Advance = Callable[[int, int], None]  # told (done, in all)


class State(str, Enum):
    """The state of a file or dataset; the value is shown to the user, the name goes into JSON."""

    WHOLE = "whole"
    DAMAGED = "damaged"
    OTHER_MODEL = "of another model"
    UNREADABLE = "unreadable"


class Verdict(NamedTuple):
    """The result for one file or dataset.

    Attributes:
        path: the file, or the folder of a dataset.
        state: what was found.
        reason: why it is not whole, with its path; empty if it is whole.
    """

    path: Path
    state: State
    reason: str

    def as_dict(self) -> dict[str, str | None]:
        """The verdict as JSON holds it."""
        return {
            "path": str(self.path),
            "state": self.state.name.lower(),
            "reason": self.reason or None,
        }


class Verifier:
    """Checks one file or dataset after another; a damaged one gives a verdict and no error."""

    def __init__(
        self,
        find: Callable[[CodesHeader, Path], ModelFile],
        deep: bool = False,
        max_pixels: int = DEFAULT_MAX_PIXELS,
    ) -> None:
        """Prepare a check.

        Args:
            find: gives the model of a `.codes` file that needs one, see `models.ModelFinder`.
            deep: decode payloads, and compare the arrays of datasets with their checksums.
            max_pixels: size limit for scans whose payload is decoded, see `limits.py`.
        """
        self._find, self._deep, self._max_pixels = find, deep, max_pixels

    def _model_of(self, header: CodesHeader, path: Path) -> ModelFile:
        try:
            return self._find(header, path)
        except FileError as error:  # errors of the model, not of the checked file
            raise ModelError(str(error)) from error

    def judge(self, path: Path) -> Verdict:
        """Whether a file, or the folder of a dataset, is whole.

        Raises:
            ModelError: the model needed for decoding cannot be used.
        """
        try:
            self._check(path)
        except OtherModelError as error:
            return Verdict(path, State.OTHER_MODEL, str(error))
        except ModelError as error:
            if not _is_model(path):  # a fault of the model needed for decoding, not of this file
                raise
            return Verdict(path, State.DAMAGED, str(error))
        except (CodesFileError, DatasetError) as error:
            return Verdict(path, State.DAMAGED, str(error))
        except OasisVQError as error:
            return Verdict(path, State.UNREADABLE, str(error))
        except MemoryError as error:
            reason = f"{path}: too large for this machine's memory ({error})"
            return Verdict(path, State.UNREADABLE, reason)
        return Verdict(path, State.WHOLE, "")

    def _check(self, path: Path) -> None:
        if path.suffix in (".npz", STORE_SUFFIX):
            read_tokens(path)
        elif path.is_dir():
            self._check_dataset(path)
        elif _is_model(path):
            read_tokens(path) if is_export(path) else read_model(path)
        elif path.suffix == SUFFIX or read_bytes(path, MAX_FILE_BYTES)[: len(MAGIC)] == MAGIC:
            self._check_codes(path)
        else:
            raise FileError(
                f"{path}: not a {SUFFIX} file, a model (.safetensors), an export or a dataset folder"
            )

    def _check_codes(self, path: Path) -> None:
        file = read_codes_file(path)
        needs_prior = file.header.coder is Coder.PRIOR
        if self._deep:
            refuse_large_codes(file.header, str(path), self._max_pixels)
        if self._deep and not needs_prior:
            file.codes()
        if file.header.coder is Coder.LABELS:  # of no model
            return
        model = self._model_of(file.header, path)
        refuse_other_model(model, file.header, str(path))
        if self._deep and file.header.has_more:
            codec = Codec(model)
            codec.decode_codes(codec.codes_of(file), str(path))
        elif self._deep and needs_prior:
            codes_of(model, file)

    def _check_dataset(self, folder: Path) -> None:
        if not is_prepared(folder):
            raise FileError(
                f"{folder}: no {SUFFIX} files, models ({MODEL_FILE}) or prepared datasets in it"
            )
        dataset = open_dataset(folder)
        for split in dataset.splits:
            dataset.array(split)
        if self._deep:
            dataset.verify()


def verify(
    paths: Iterable[Path],
    verifier: Verifier,
    shard: Shard = WHOLE,
    advance: Advance = lambda done, total: None,
    passed_over: PassedOver | None = None,
    jobs: int = 1,
    globs: Globs = EVERYTHING,
) -> Iterator[Verdict]:
    """Check the named files, and all files of oasisvq below the named folders; or one shard of them.

    Verdicts are not kept, so memory does not grow with the number of files.

    Args:
        paths: files and folders.
        verifier: checks each file.
        shard: which of the files, counted over all paths.
        advance: called with (files checked, files in all).
        passed_over: counts what else lies below the folders; complete at the end.
        jobs: number of processes; verdicts and their order are the same with any number.
        globs: which files below folders.

    Raises:
        FileError: a folder cannot be listed.
        ModelError: the model needed for decoding cannot be used.
    """
    paths = list(paths)
    total = sum(shard.takes(place) for place, _ in enumerate(_found(paths, PassedOver(), globs)))
    found = enumerate(_found(paths, passed_over or PassedOver(), globs))
    ours = (path for place, path in found if shard.takes(place))
    for done, (_, verdict) in enumerate(calls(verifier.judge, ours, jobs), start=1):
        yield verdict
        advance(done, max(total, done))


def _found(paths: Iterable[Path], passed_over: PassedOver, globs: Globs) -> Iterator[Path]:
    """The named files and stores; of a folder all files of oasisvq in it, or itself if it has none."""
    for path in paths:
        if not path.is_dir() or path.suffix == STORE_SUFFIX:
            yield path
            continue
        nothing = True
        for listing in walk(path, globs):
            if is_prepared(listing.folder):  # all files in it belong to the dataset
                nothing = False
                yield listing.folder
                continue
            for found in passed_over.sift(listing, _is_ours):
                nothing = False
                yield found
        if nothing:
            yield path


def _is_ours(path: Path) -> bool:
    """Whether the name of a file is one of oasisvq."""
    return path.suffix == SUFFIX or is_model_name(path)


def _is_model(path: Path) -> bool:
    return path.suffix == Path(MODEL_FILE).suffix
