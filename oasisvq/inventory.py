"""Which models there are, and which `.codes` files need them. Never imports torch."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from oasisvq.codec.container import SUFFIX, read_codes_file
from oasisvq.errors import FileError, OasisVQError
from oasisvq.files import MODEL_FILE
from oasisvq.folders import walk
from oasisvq.model_store import KnownModel, how_far, models_in, store_folder, wanted_by
from oasisvq.models import known_models


def take_stock_here() -> dict[str, Any]:
    """The models that are found from the working folder, and how many codes in it need each."""
    needed = _needed(sorted(Path().glob(f"*{SUFFIX}")))
    return {
        "kind": "models that are found from here",
        "store": str(store_folder()),
        "models": [_listed(known, needed) for known in known_models(Path())],
    }


def take_stock(folder: Path) -> dict[str, Any]:
    """The models of a folder, and how many codes in it and below need each, or models that it lacks.

    Nothing of a run folder with its model alone.

    Raises:
        FileError: it holds neither.
    """
    models = models_in(folder)
    needed = _needed(file for listing in walk(folder) for file in listing.files if file.suffix == SUFFIX)
    if not models and not needed:
        raise FileError(f"{folder}: neither a prepared dataset, nor models or {SUFFIX} files in it")
    facts: dict[str, Any] = {}
    if not (folder / MODEL_FILE).is_file():
        facts["kind"] = "folder"
    elif len(models) < 2 and not needed:
        return facts
    if needed:
        facts["codes"] = needed.total()
    here = {known.fingerprint for known in models}
    if lacking := {name: count for name, count in needed.items() if name and name not in here}:
        facts["models_not_here"] = lacking
    return facts | {"models": [_listed(known, needed) for known in models]}


def _needed(paths: Iterable[Path]) -> Counter[str]:
    """How many files need each fingerprint; empty for those that need none, or are damaged."""
    needed: Counter[str] = Counter()
    for path in paths:
        try:
            needed[wanted_by(read_codes_file(path).header)] += 1
        except OasisVQError:
            needed[""] += 1
    return needed


def _listed(known: KnownModel, needed: Counter[str]) -> dict[str, Any]:
    """A model by its header."""
    card = known.header.card
    return {
        "model": known.fingerprint,
        "file": str(known.path),
        "training": how_far(card) or "finished",
        "validation_ssim": card.get("validation_ssim") or None,
        "needed_by": needed[known.fingerprint],
    }
