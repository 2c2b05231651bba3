"""Which model is meant: the one named, trained in this folder, or bundled. Never imports torch."""

import os
from pathlib import Path
from typing import NamedTuple

from oasisvq.codec.codes import Codes
from oasisvq.codec.container import read_codes_file
from oasisvq.codec.headers import Coder, refuse_large_codes
from oasisvq.codec.modelfile import ModelFile, read_model, refuse_other_model
from oasisvq.errors import ModelError
from oasisvq.files import MODEL_FILE
from oasisvq.scans.limits import DEFAULT_MAX_PIXELS

RUN_FOLDER = Path("oasisvq-run")  # where `train` leaves its model unless told otherwise
MODEL_VARIABLE = "OASISVQ_MODEL"
BUNDLED_MODEL = Path(__file__).parent / "pretrained" / MODEL_FILE


class ModelChoice(NamedTuple):
    """A model file and why it is the one."""

    path: Path
    reason: str

    def line(self, file: ModelFile) -> str:
        """Which model is used, and why; `file` is what `path` holds."""
        return f"model {file.fingerprint.hex()[:8]}: {self.path} ({self.reason})"


def choose_model(named: Path | None, folder: Path) -> ModelChoice:
    """The model file to use: the named one, `$OASISVQ_MODEL`, the last run's, or the bundled one.

    Args:
        named: a model file, a run folder, or None.
        folder: the working folder, where `train` may have left a run.

    Raises:
        ModelError: none is named or trained, and the installation has none.
    """
    if named is None and os.environ.get(MODEL_VARIABLE):
        named, reason = Path(os.environ[MODEL_VARIABLE]), f"${MODEL_VARIABLE}"
    else:
        reason = "named"
    if named is not None:
        return ModelChoice(named / MODEL_FILE if named.is_dir() else named, reason)
    trained = folder / RUN_FOLDER / MODEL_FILE
    if trained.is_file():
        return ModelChoice(trained, "the model trained in this folder")
    if not BUNDLED_MODEL.is_file():
        raise ModelError("this installation has no bundled model; train one or name one with --model")
    return ModelChoice(BUNDLED_MODEL, "the bundled model")


def read_codes(path: Path, model: Path | None = None, max_pixels: int = DEFAULT_MAX_PIXELS) -> Codes:
    """Read a `.codes` file: header and indices, or labels, without torch.

    A packed file and one of labels need no model. One coded with a prior needs that of the model that
    made it: the named one, or the one that `choose_model` finds.

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
    file = read_model(choose_model(model, Path.cwd()).path)
    refuse_other_model(file, codes_file.header, str(path))
    return codes_file.codes(file.prior, file.codebooks)
