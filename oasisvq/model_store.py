"""Models under their fingerprints, so that none that made a file is lost. Never imports torch.

Training replaces the model in its run folder, and an update replaces the one in the package. So each
model that made a `.codes` file, and each that a training finished, is also kept in the *store*. This is
one folder per user: `$OASISVQ_STORE`, else `$XDG_DATA_HOME/oasisvq/models`, else
`~/.local/share/oasisvq/models`. In the store, 79af09ae.safetensors is the model whose fingerprint begins
with 79af09ae. In a folder of `.codes` files, the same model is called model-79af09ae.safetensors. The
name is only a hint. The header names the model; it is checked against the arrays when they are read.
"""

import os
import re
import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from oasisvq.codec.headers import CodesHeader
from oasisvq.codec.modelfile import (
    MAX_MODEL_HEADER_BYTES,
    ModelFile,
    ModelHeader,
    read_header,
    read_model,
    write_model,
)
from oasisvq.errors import FileError, ModelError
from oasisvq.files import METRICS_FILE, MODEL_FILE, link_atomically, make_folder, require_file

STORE_VARIABLE = "OASISVQ_STORE"
SHORT = 8  # hexadecimal digits of a fingerprint in names and messages
_FINGERPRINT = re.compile(r"[0-9a-f]{16}")
_ENDING = Path(MODEL_FILE).suffix


# --- the fingerprint that a file names ------------------------------------------------------------


def wanted_by(header: CodesHeader) -> str:
    """The fingerprint of the model that a `.codes` file needs; empty if it needs none."""
    return header.fingerprint.hex()


def fingerprint_of(file: ModelFile) -> str:
    """The fingerprint of a model."""
    return file.fingerprint.hex()


class KnownModel(NamedTuple):
    """A model file by its header; its arrays have not been read.

    Attributes:
        path: the file.
        header: the content of its header.
        array_bytes: number of bytes after the header.
    """

    path: Path
    header: ModelHeader
    array_bytes: int

    @property
    def fingerprint(self) -> str:
        """The fingerprint in the header; empty if it could not be part of a file name."""
        named = self.header.fingerprint
        return named if isinstance(named, str) and _FINGERPRINT.fullmatch(named) else ""


# --- what lies in a folder ------------------------------------------------------------------------


def look_at(path: Path) -> KnownModel:
    """A model file by its header.

    Raises:
        FileError: missing or unreadable.
        ModelError: not a model of oasisvq.
    """
    require_file(path)
    try:
        with path.open("rb") as stream:
            start = stream.read(8)
            length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
            content = start + stream.read(min(length, MAX_MODEL_HEADER_BYTES))
            size = os.fstat(stream.fileno()).st_size
    except OSError as error:
        raise FileError(f"{path}: cannot be read: {error.strerror or error}") from error
    return KnownModel(path, read_header(content, path), size - len(content))


def models_in(folder: Path) -> list[KnownModel]:
    """The models of a folder by name; none if the folder does not exist."""
    return list(_models_in(folder))


def _models_in(folder: Path) -> Iterator[KnownModel]:
    try:
        paths = sorted(path for path in folder.iterdir() if path.suffix == _ENDING)
    except OSError:
        return
    # other files are a checkpoint, tokens, or a model that `verify` reports as damaged
    yield from filter(None, map(_known, paths))


# --- how far its training got ---------------------------------------------------------------------


def how_far(card: dict[str, Any]) -> str:
    """Where the training of a model stopped, by its card; empty if it finished or is not recorded."""
    if card.get("finished", True) is not False:
        return ""
    stage, whose, then = card, "", "prior"
    for name, following in (("prior", "codec of volumes"), ("volumes", "prior of volumes")):
        if isinstance(part := card.get(name), dict):
            stage, whose, then = part, f" of its {name}", following
    step, steps = stage.get("steps"), stage.get("planned_steps")
    if type(step) is not int or type(steps) is not int:
        return "of a training that has not finished"
    if step == steps:
        return f"of a training that has not got to its {then}"
    return f"of a training that got to step {step:,} of {steps:,}{whose}"


# --- keeping --------------------------------------------------------------------------------------


def store_folder() -> Path:
    """Where the models of this user are kept.

    Raises:
        FileError: no variable names a store, and the user has no home folder.
    """
    if named := os.environ.get(STORE_VARIABLE):
        return Path(named)
    data = Path(os.environ.get("XDG_DATA_HOME", ""))
    if not data.is_absolute():  # the XDG specification ignores relative paths
        try:
            data = Path.home() / ".local" / "share"
        except RuntimeError as error:
            raise FileError(
                f"no home folder to keep models in; name one in ${STORE_VARIABLE}"
            ) from error
    return data / "oasisvq" / "models"


def kept_name(fingerprint: str) -> str:
    """The name of a model in the store."""
    return fingerprint[:SHORT] + _ENDING


def carried_name(fingerprint: str) -> str:
    """The name of a model beside the files that it made."""
    return f"model-{fingerprint[:SHORT]}{_ENDING}"


def keep(file: ModelFile, source: Path) -> Path:
    """Make sure that a model is in the store; `source` is the file that it was read from.

    Raises:
        FileError: the store cannot be written to, or holds another model by that name.
    """
    return _put(file, _linkable(source), store_folder() / kept_name(fingerprint_of(file)))


def keep_file(path: Path) -> Path:
    """`keep` for a model that has not been read; it is read only if it is not in the store yet.

    Raises:
        FileError: see `keep`; or there is no such file.
        ModelError: not a whole model.
    """
    fingerprint = look_at(path).fingerprint
    kept = store_folder() / kept_name(fingerprint)
    if fingerprint and _is_model(kept, fingerprint):
        return kept
    return keep(read_model(path), path)


def keep_finished(path: Path) -> None:
    """`keep_file` for a run folder's model, if there is one and its training finished.

    Raises:
        FileError: it cannot be kept.
    """
    with suppress(ModelError):  # a damaged model made no files
        if path.is_file() and not how_far(look_at(path).header.card):
            keep_file(path)


def carry(file: ModelFile, folder: Path, force: bool) -> Path:
    """Make sure that a folder of `.codes` files has a copy of the model, also with several processes.

    Args:
        file: the model.
        folder: where the files are.
        force: overwrite a file that has the name of the copy, unless it is another model.

    Raises:
        FileError: the folder cannot be written to, or something else is in the way.
    """
    return _put(file, None, folder / carried_name(fingerprint_of(file)), force)


def _put(file: ModelFile, source: Path | None, target: Path, force: bool = False) -> Path:
    """Make `target` the model: a hard link to `source` if possible, else a copy."""
    fingerprint = fingerprint_of(file)
    if os.path.lexists(target):
        found = _known(target)
        if found is not None and found.fingerprint == fingerprint:
            if found.array_bytes == sum(array.nbytes for array in file.all_arrays.values()):
                return target  # else the copy was cut short, and is written again
        elif found is not None or not force:
            content = f"model {found.fingerprint}" if found else "no model"
            raise FileError(
                f"{target}: has the name of model {fingerprint}, but holds {content}; move it to "
                "another name and run again"
            )
    make_folder(target.parent)
    is_linked = source is not None and link_atomically(
        source, target, lambda link: _is_model(link, fingerprint)
    )
    if not is_linked:
        write_model(file, target)
    return target


def _linkable(path: Path) -> Path | None:
    """The file if it is the model of a run folder, else None: only such a file may be linked.

    `train` always replaces that file and never writes into it. A program that writes into an existing
    file, such as `cp`, would change its hard links too.
    """
    is_ours = (path.parent / METRICS_FILE).is_file() and not path.is_symlink()
    return path if is_ours else None


def _known(path: Path) -> KnownModel | None:
    try:
        return look_at(path)
    except (FileError, ModelError):
        return None


def _is_model(path: Path, fingerprint: str) -> bool:
    """Whether a file claims to be a model."""
    known = _known(path)
    return known is not None and known.fingerprint == fingerprint
