"""Finds the model to encode with, and the model that made a file. Never imports torch.

The model to encode with is named by the user, trained in this folder, or bundled: `choose_model`. The
model that made a `.codes` file is found by the fingerprint in the file, wherever it is: `ModelFinder`.
`model_store.py` keeps models so that they can be found.
"""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from oasisvq.codec.codes import Codes
from oasisvq.codec.container import read_codes_file
from oasisvq.codec.headers import Coder, CodesHeader, refuse_large_codes
from oasisvq.codec.modelfile import ModelFile, read_model, refuse_other_model
from oasisvq.codec.slices import codes_of
from oasisvq.errors import FileError, ModelError, OtherModelError
from oasisvq.files import MODEL_FILE
from oasisvq.model_store import (
    SHORT,
    STORE_VARIABLE,
    KnownModel,
    carried_name,
    fingerprint_of,
    how_far,
    keep,
    keep_file,
    kept_name,
    look_at,
    models_in,
    store_folder,
    wanted_by,
)
from oasisvq.scans.limits import DEFAULT_MAX_PIXELS

RUN_FOLDER = Path("oasisvq-run")  # where `train` leaves its model unless told otherwise
MODEL_VARIABLE = "OASISVQ_MODEL"
FOLDERS_VARIABLE = "OASISVQ_MODELS"
BUNDLED_MODEL = Path(__file__).parent / "pretrained" / MODEL_FILE
MOST_HELD = 4  # models that a finder keeps in memory
_BESIDE = "beside the codes"
_FINGERPRINT = re.compile(r"[0-9a-f]{4,16}")  # or its first digits


class NamedModel(Protocol):
    """The fingerprint of a model, and what it says about its training."""

    @property
    def fingerprint(self) -> bytes: ...

    @property
    def card(self) -> dict[str, Any]: ...


class ModelChoice(NamedTuple):
    """A model file, and the reason why it was chosen."""

    path: Path
    reason: str

    def line(self, file: "NamedModel") -> str:
        """One line about which model is used, and why; `file` is the content of `path`."""
        stopped = f", {how_far(file.card)}" if how_far(file.card) else ""
        return f"model {file.fingerprint.hex()[:SHORT]}: {self.path} ({self.reason}{stopped})"


# --- the model that encodes -----------------------------------------------------------------------


def choose_model(named: Path | None, folder: Path) -> ModelChoice:
    """The model file to use: the named one, `$OASISVQ_MODEL`, the last run's, or the bundled one.

    The model of an unfinished training is used only if the user names it.

    Args:
        named: a model file, a folder with a model, the first digits of a fingerprint, or None.
        folder: the working folder, where `train` may have left a run.

    Raises:
        ModelError: none is named or trained, and none is bundled; or several models match.
    """
    if named is None and os.environ.get(MODEL_VARIABLE):
        named, reason = Path(os.environ[MODEL_VARIABLE]), f"${MODEL_VARIABLE}"
    else:
        reason = "named"
    if named is not None:
        return ModelChoice(_named_file(named, folder), reason)
    trained, passed_by = folder / RUN_FOLDER / MODEL_FILE, ""
    if trained.is_file():
        stopped = _how_far(trained)
        if not stopped:
            return ModelChoice(trained, "the model trained in this folder")
        passed_by = f"; the one in {RUN_FOLDER} is {stopped}; --model {RUN_FOLDER} uses it"
    if not BUNDLED_MODEL.is_file():
        raise ModelError("this installation has no bundled model; train one or name one with --model")
    return ModelChoice(BUNDLED_MODEL, f"the bundled model{passed_by}")


def _how_far(path: Path) -> str:
    try:
        return how_far(look_at(path).header.card)
    except (FileError, ModelError):
        return ""  # reading the whole model will report the problem


def _named_file(named: Path, folder: Path) -> Path:
    if named.is_dir():
        found = [] if (named / MODEL_FILE).is_file() else models_in(named)
        if len(found) > 1:
            raise ModelError(f"{named}: holds {_listed(found)}; name one of them")
        return found[0].path if found else named / MODEL_FILE
    if os.path.lexists(named) or not _FINGERPRINT.fullmatch(str(named)):
        return named
    by_fingerprint: dict[str, KnownModel] = {}
    for known in known_models(folder):
        if known.fingerprint.startswith(str(named)):
            by_fingerprint.setdefault(known.fingerprint, known)
    if len(by_fingerprint) > 1:
        found = list(by_fingerprint.values())
        raise ModelError(
            f"--model {named}: matches the fingerprints of {_listed(found)}; give more digits, or a file"
        )
    return next((known.path for known in by_fingerprint.values()), named)


def known_models(folder: Path) -> list[KnownModel]:
    """The models found from a working folder: in its run folder, in the store, in the package, ..."""
    return [known for place in _places(folder, None, "") for known in _models_at(place.path)]


def _listed(models: list[KnownModel]) -> str:
    return ", ".join(f"{known.path} (model {known.fingerprint})" for known in models)


def keep_used(file: NamedModel, choice: ModelChoice, carried_in: Path | None = None) -> str:
    """Make sure that a model is kept before it encodes a file; says where.

    Args:
        file: the model; if it has not been read, it is read only if it is not in the store yet.
        choice: where it comes from.
        carried_in: the folder that will get a copy of it beside its files, see `model_store.carry`.

    Raises:
        FileError: the store cannot be written to, and the model would be kept nowhere else.
    """
    try:
        if isinstance(file, ModelFile):
            return f"kept as {keep(file, choice.path)}"
        return f"kept as {keep_file(choice.path)}"
    except FileError as error:
        elsewhere = choice.path if choice.path == BUNDLED_MODEL else None
        if carried_in is not None:
            elsewhere = carried_in / carried_name(file.fingerprint.hex())
        if elsewhere is None:
            raise FileError(
                f"{error}; nothing was encoded, because its model could not be kept: name another store "
                f"in ${STORE_VARIABLE}, or encode a whole folder, whose output gets a copy of the model"
            ) from error
        return f"kept as {elsewhere} only: {error}"


# --- the model that made a file -------------------------------------------------------------------


def _be_silent(line: str) -> None:
    pass


class ModelFinder:
    """Finds the model that each `.codes` file names, and reads each model once.

    The search order is: `$OASISVQ_MODEL`, the run folder, the store, beside the codes, the folders in
    `$OASISVQ_MODELS`, the bundled model. The search looks at names and headers. Only the right model is
    read completely, and its arrays are compared with its fingerprint. If the user names a model, no
    other one is used.
    """

    def __init__(self, named: Path | None, tell: Callable[[str], None] = _be_silent) -> None:
        """Prepare a search.

        Args:
            named: a model file or run folder, a folder of models, or the first digits of a fingerprint.
            tell: called with a line about which model is used, and why.
        """
        self._named, self._tell, self._folder = named, tell, Path.cwd()
        self._held: dict[str, ModelFile] = {}
        self._listed: dict[Path, list[KnownModel]] = {}
        self._damaged: dict[Path, str] = {}  # models that cannot be read, and why

    def __call__(self, header: CodesHeader, codes: Path) -> ModelFile:
        """The model that a file needs; if it needs none, the model that would encode.

        Args:
            header: the header of the file.
            codes: the file.

        Raises:
            FileError, ModelError: the named model is missing or damaged.
            OtherModelError: the right model is not found, or the user named a different one.
        """
        wanted = wanted_by(header)
        if not wanted or (self._named is not None and not self._named.is_dir()):
            refuse_other_model(self._chosen, header, str(codes))
            return self._chosen
        if wanted not in self._held:
            file = self._find(wanted, codes)
            if file is None:  # not found in the named folder
                refuse_other_model(self._chosen, header, str(codes))
                file = self._chosen
            if len(self._held) == MOST_HELD:
                del self._held[next(iter(self._held))]
            self._held[wanted] = file
        return self._held[wanted]

    def __getstate__(self) -> dict[str, Any]:
        """A finder in another process prints nothing."""
        return self.__dict__ | {"_tell": _be_silent}

    @cached_property
    def _chosen(self) -> ModelFile:
        choice = choose_model(self._named, self._folder)
        file = read_model(choice.path)
        self._tell(choice.line(file))
        return file

    def _find(self, wanted: str, codes: Path) -> ModelFile | None:
        """The model of a fingerprint; None if the named run folder has a different one."""
        wrong: list[str] = []
        for choice in self._candidates(wanted, codes, wrong):
            file = self._read(choice.path)
            if file is None:
                wrong.append(self._damaged[choice.path])
            elif wanted == fingerprint_of(file):  # it may have been replaced since
                self._tell(choice.line(file))
                return file
        if self._named is not None and not wrong and (self._named / MODEL_FILE).is_file():
            return None
        places = (each.path for each in self._places(wanted, codes))
        told = dict.fromkeys("the package" if each == BUNDLED_MODEL else str(each) for each in places)
        raise OtherModelError(
            f"{codes}: made with model {wanted[:SHORT]}, which is not in {', '.join(told)}; name it "
            f"with --model, or its folder in ${FOLDERS_VARIABLE}{self._descendant(wanted, codes)}"
            + "".join(f"; {reason}" for reason in wrong)
        )

    def _read(self, path: Path) -> ModelFile | None:
        """A model; None if it cannot be read. Each is tried only once."""
        if path not in self._damaged:
            try:
                return read_model(path)
            except (FileError, ModelError) as error:
                self._damaged[path] = str(error)
        return None

    def _places(self, wanted: str, codes: Path) -> list[ModelChoice]:
        if self._named is not None:
            return [ModelChoice(self._named, "named")]
        return list(_places(self._folder, codes, wanted))

    def _candidates(self, wanted: str, codes: Path, wrong: list[str]) -> Iterator[ModelChoice]:
        """Files whose header names the model, those with its name first; misnamed ones go to `wrong`."""
        seen = set()
        places = self._places(wanted, codes)
        for place in places:
            for path in _files_called(wanted, place.path):
                if path in seen or not path.is_file():
                    continue
                seen.add(path)
                if any(wanted == known.fingerprint for known in _models_at(path)):
                    yield ModelChoice(path, place.reason)
                elif path.name in (kept_name(wanted), carried_name(wanted)):
                    wrong.append(f"{path} has its name, but other content")
        for place in places:
            for known in self._models_at(place.path):
                if known.path not in seen and wanted == known.fingerprint:
                    seen.add(known.path)
                    yield ModelChoice(known.path, place.reason)

    def _models_at(self, place: Path) -> list[KnownModel]:
        if place not in self._listed:
            self._listed[place] = _models_at(place)
        return self._listed[place]

    def _descendant(self, wanted: str, codes: Path) -> str:
        """How a known model descends from the wanted one, if its training started from it."""
        for place in self._places(wanted, codes):
            for known in self._models_at(place.path):
                card = known.header.card
                prior = card.get("prior")
                codec = prior.get("codec") if isinstance(prior, dict) else None
                ours = known.fingerprint[:SHORT]
                if wanted == codec:
                    return f" (its training went on to model {ours}, {known.path})"
                if wanted == card.get("started_from"):
                    return f" (the training of model {ours}, {known.path}, started from it)"
        return ""


def _places(folder: Path, codes: Path | None, wanted: str) -> Iterator[ModelChoice]:
    """Files and folders where a model may be, and the words for a model that is found there."""
    if named := os.environ.get(MODEL_VARIABLE):
        yield ModelChoice(Path(named), f"${MODEL_VARIABLE}")
    yield ModelChoice(folder / RUN_FOLDER, "the model trained in this folder")
    with suppress(FileError):  # no home, no store
        yield ModelChoice(store_folder(), "the store")
    if codes is not None:
        yield ModelChoice(codes.parent, _BESIDE)
        for above in codes.absolute().parent.parents:  # at the top of a tree that was encoded
            if (above / carried_name(wanted)).is_file():
                yield ModelChoice(above / carried_name(wanted), _BESIDE)
    for each in filter(None, os.environ.get(FOLDERS_VARIABLE, "").split(os.pathsep)):
        yield ModelChoice(Path(each), f"${FOLDERS_VARIABLE}")
    yield ModelChoice(BUNDLED_MODEL, "the bundled model")


def _models_at(place: Path) -> list[KnownModel]:
    """The models in a folder, or the model in a file."""
    if place.is_dir():
        return models_in(place)
    try:
        return [look_at(place)]
    except (FileError, ModelError):
        return []


def _files_called(wanted: str, place: Path) -> list[Path]:
    """Files whose names match the model of a fingerprint."""
    if not place.is_dir():
        return [place]
    return [place / name for name in (MODEL_FILE, kept_name(wanted), carried_name(wanted))]


def read_codes(path: Path, model: Path | None = None, max_pixels: int = DEFAULT_MAX_PIXELS) -> Codes:
    """Read a `.codes` file: header and indices, or labels, without torch.

    Packed files and files of labels need no model. A file coded with a prior needs the model that made
    it: the named one, or the one that a `ModelFinder` finds.

    Raises:
        FileError: missing or unreadable.
        ImageError: it holds more pixels than the limit, see `refuse_large_codes`.
        CodesFileError: not a whole `.codes` file of a known version, or made with another model.
        ModelError: no whole model.
    """
    codes_file = read_codes_file(path)
    refuse_large_codes(codes_file.header, str(path), max_pixels)
    if codes_file.header.coder is not Coder.PRIOR:
        return codes_file.codes()
    return codes_of(ModelFinder(model)(codes_file.header, path), codes_file)
