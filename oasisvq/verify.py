"""Whether `.codes` files, models and prepared datasets are whole: one verdict after the other.

Never imports torch.
"""

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
from oasisvq.files import MODEL_FILE, is_model_name, read_bytes
from oasisvq.folders import EVERYTHING, WHOLE, Globs, PassedOver, Shard, walk
from oasisvq.jobs import calls
from oasisvq.scans.limits import DEFAULT_MAX_PIXELS, MAX_FILE_BYTES

Advance = Callable[[int, int], None]  # told (done, in all)


class State(str, Enum):
    """What was found of a file or dataset; the value is for a person, the name for JSON."""

    WHOLE = "whole"
    DAMAGED = "damaged"
    OTHER_MODEL = "of another model"
    UNREADABLE = "unreadable"


class Verdict(NamedTuple):
    """One file or dataset.

    Attributes:
        path: of a dataset its folder.
        state: what was found.
        reason: why it is not whole, with its path; empty where it is.
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
    """Judges one file or dataset after the other; what is wrong with one is no error."""

    def __init__(
        self,
        find: Callable[[CodesHeader, Path], ModelFile],
        deep: bool = False,
        max_pixels: int = DEFAULT_MAX_PIXELS,
    ) -> None:
        """Look at nothing yet.

        Args:
            find: gives the model of a `.codes` file that needs one, see `models.ModelFinder`.
            deep: decode payloads, build networks and compare arrays with their checksums.
            max_pixels: how large a scan may be whose payload is decoded, see `limits.py`.
        """
        self._find, self._deep, self._max_pixels = find, deep, max_pixels

    def _model_of(self, header: CodesHeader, path: Path) -> ModelFile:
        try:
            return self._find(header, path)
        except FileError as error:  # of the model, not of the file that is judged
            raise ModelError(str(error)) from error

    def judge(self, path: Path) -> Verdict:
        """Whether a file, or a dataset's folder, is whole.

        Raises:
            ModelError: the model that would decode cannot be used.
        """
        try:
            self._check(path)
        except OtherModelError as error:
            return Verdict(path, State.OTHER_MODEL, str(error))
        except ModelError as error:
            if not _is_model(path):  # the fault of the model that would decode, not of this file
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
        if path.is_dir():
            self._check_dataset(path)
        elif _is_model(path):
            self._check_model(path)
        elif path.suffix == SUFFIX or read_bytes(path, MAX_FILE_BYTES)[: len(MAGIC)] == MAGIC:
            self._check_codes(path)
        else:
            raise FileError(f"{path}: not a {SUFFIX} file, a model (.safetensors) or a dataset folder")

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

    def _check_model(self, path: Path) -> None:
        read_model(path)

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
    """Judge files as they are named, and what is ours below folders; or one shard of all that.

    Nothing is kept, so memory does not grow with the number of files.

    Args:
        paths: files and folders.
        verifier: judges each.
        shard: which of them, counted over all paths.
        advance: told (judged, of how many).
        passed_over: told of what else lies below the folders, by the end.
        jobs: processes; verdicts and their order are the same with any number.
        globs: which files below folders.

    Raises:
        FileError: a folder cannot be listed.
        ModelError: the model that would decode cannot be used.
    """
    paths = list(paths)
    total = sum(shard.takes(place) for place, _ in enumerate(_found(paths, PassedOver(), globs)))
    found = enumerate(_found(paths, passed_over or PassedOver(), globs))
    ours = (path for place, path in found if shard.takes(place))
    for done, (_, verdict) in enumerate(calls(verifier.judge, ours, jobs), start=1):
        yield verdict
        advance(done, max(total, done))


def _found(paths: Iterable[Path], passed_over: PassedOver, globs: Globs) -> Iterator[Path]:
    """Files as named; below a folder all of ours, or the folder itself where there is nothing."""
    for path in paths:
        if not path.is_dir():
            yield path
            continue
        nothing = True
        for listing in walk(path, globs):
            if is_prepared(listing.folder):  # all files there belong to it
                nothing = False
                yield listing.folder
                continue
            for found in passed_over.sift(listing, _is_ours):
                nothing = False
                yield found
        if nothing:
            yield path


def _is_ours(path: Path) -> bool:
    """By its name."""
    return path.suffix == SUFFIX or is_model_name(path)


def _is_model(path: Path) -> bool:
    return path.suffix == Path(MODEL_FILE).suffix
