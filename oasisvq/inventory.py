"""Which models there are, and which `.codes` files need them. Never imports torch."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from oasisvq.codec.codes import CodesFile
from oasisvq.codec.container import SUFFIX, read_codes_file
from oasisvq.codec.headers import Coder, CodesHeader
from oasisvq.errors import FileError, OasisVQError
from oasisvq.files import MODEL_FILE
from oasisvq.folders import walk
from oasisvq.model_store import KnownModel, how_far, models_in, store_folder, wanted_by
from oasisvq.models import known_models

_NAMED = 5  # damaged files, at most


def take_stock_here() -> dict[str, Any]:
    """The models found from the working folder, and how many codes in that folder need each."""
    needed = _held(sorted(Path().glob(f"*{SUFFIX}"))).needed
    return {
        "kind": "models that are found from here",
        "store": str(store_folder()),
        "models": [_listed(known, needed) for known in known_models(Path())],
    }


def take_stock(folder: Path) -> dict[str, Any]:
    """The models of a folder, and how many codes below it need each of them, or need missing models.

    The result is empty for a run folder that holds only its model.

    Raises:
        FileError: the folder holds neither models nor codes.
    """
    models = models_in(folder)
    held = _held(file for listing in walk(folder) for file in listing.files if file.suffix == SUFFIX)
    needed = held.needed
    if not models and not needed:
        raise FileError(f"{folder}: neither a prepared dataset, nor models or {SUFFIX} files in it")
    facts: dict[str, Any] = {}
    if not (folder / MODEL_FILE).is_file():
        facts["kind"] = "folder"
    elif len(models) < 2 and not needed:
        return facts
    if needed:
        facts |= {"codes": needed.total(), "slices": held.slices, "bytes": held.file_bytes}
        facts |= {
            "bits_per_voxel": held.bits_per_voxel,
            "qualities": dict(sorted(held.qualities.items())),
        }
        if held.damaged:
            facts["damaged_files"] = held.damaged
    here = {known.fingerprint for known in models}
    if lacking := {name: count for name, count in needed.items() if name and name not in here}:
        facts["models_not_here"] = lacking
    return facts | {"models": [_listed(known, needed) for known in models]}


@dataclass
class _Held:
    """What a set of `.codes` files holds.

    Attributes:
        needed: how many files need the model of each fingerprint; those that need no model, or are
            damaged, count under the empty one.
        qualities: how many have each number of levels, largest error, or labels kept exactly.
        slices: number of slices in all undamaged files.
        voxels: number of their voxels.
        file_bytes: number of their bytes.
        damaged: the first few damaged files.
    """

    needed: Counter[str] = field(default_factory=Counter)
    qualities: Counter[str] = field(default_factory=Counter)
    slices: int = 0
    voxels: int = 0
    file_bytes: int = 0
    damaged: list[str] = field(default_factory=list)

    @property
    def bits_per_voxel(self) -> float | None:
        """Bits per voxel over all undamaged files; None if there are none."""
        return round(8 * self.file_bytes / self.voxels, 6) if self.voxels else None

    def add(self, file: CodesFile) -> None:
        """Count one more file."""
        header = file.header
        self.needed[wanted_by(header)] += 1
        self.qualities[_quality_of(header)] += 1
        self.slices += header.slices
        self.voxels += header.slices * header.shape[0] * header.shape[1]
        self.file_bytes += file.file_bytes


def _quality_of(header: CodesHeader) -> str:
    """In words."""
    if header.coder is Coder.LABELS:
        return "labels, kept exactly"
    if header.residue is None:
        return f"quality {header.levels}"
    bound = header.residue.binning.bound
    return f"largest error {bound:g}" if bound else "nothing lost"


def _held(paths: Iterable[Path]) -> _Held:
    """What files hold; damaged files are counted too."""
    held = _Held()
    for path in paths:
        try:
            held.add(read_codes_file(path))
        except OasisVQError:
            held.needed[""] += 1
            held.qualities["damaged"] += 1
            if len(held.damaged) < _NAMED:
                held.damaged.append(str(path))
    return held


def _listed(known: KnownModel, needed: Counter[str]) -> dict[str, Any]:
    """A model, described by its header."""
    card = known.header.card
    return {
        "model": known.fingerprint,
        "file": str(known.path),
        "training": how_far(card) or "finished",
        "validation_ssim": card.get("validation_ssim") or None,
        "needed_by": needed[known.fingerprint],
    }
