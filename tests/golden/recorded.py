"""The golden files: `.codes` files of every kind, and what they hold. Never imports torch.

Each format version has two folders, one of them for files with residues: a tiny model, the files that
it made of drawn scans (`*.codes`), and what they say and decode to, down to the last pixel
(`files.json`). A file and what is recorded of it never change. `remake.py` starts the folders of a new
version, or adds files to one.

    python tests/golden/recorded.py    # what this machine decodes, as JSON
"""

import dataclasses
import hashlib
import json
import sys
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oasisvq.codec import container
from oasisvq.codec.codec import Codec
from oasisvq.codec.codes import Codes
from oasisvq.codec.entropy import GridEncoder, pack
from oasisvq.codec.frequencies import Frequencies
from oasisvq.codec.headers import Coder
from oasisvq.codec.labels import encode_labels
from oasisvq.codec.modelfile import ModelFile, read_model
from oasisvq.codec.prior import Pass
from oasisvq.codec.slices import Chain
from oasisvq.models import read_codes

FOLDERS = sorted(path for path in Path(__file__).parent.glob("version*") if path.is_dir())
MODEL, FACTS = "model.safetensors", "files.json"

Facts = dict[str, Any]


def golden_files(folder: Path) -> list[Path]:
    """The `.codes` files of a folder."""
    return sorted(folder.glob("*.codes"))


def recorded_facts(folder: Path) -> dict[str, Facts]:
    """Name of a file -> what must be found in it."""
    facts: dict[str, Facts] = json.loads((folder / FACTS).read_text())
    return facts


def unrestored(content: bytes) -> bytes:
    """A file without its restoration, which hides what the networks gave."""
    file = container.read(content, "golden")
    header = dataclasses.replace(file.header, restoration=None)
    return container.write(header, file.payload, file.beside)


def facts_of(content: bytes, codes: Codes, kinds: list[int], codec: Codec) -> Facts:
    """What is recorded of a file.

    Args:
        content: its bytes.
        codes: what it decodes to.
        kinds: of its slices, where the prior coded them.
        codec: that decodes it.
    """
    return {
        "sha256": hashlib.sha256(content).hexdigest(),
        "header": _plain(codes.header),
        "indices": _digest(codes.indices),
        "labels": None if codes.label_map is None else _digest(codes.label_map),
        "kinds": kinds,
        "pixels": _digest(codec.decode(content)),
        "unrestored": _digest(codec.decode(unrestored(content))),
    }


def code_again(codes: Codes, kinds: list[int], file: ModelFile) -> bytes:
    """Indices or labels to the bytes of a file, with its header."""
    header = codes.header
    if codes.label_map is not None:
        planes = codes.label_map.reshape(header.slices, *header.shape)
        ranks = np.searchsorted(np.array(header.labels), planes).astype(np.uint16)
        return container.write(header, encode_labels(ranks, len(header.labels)))
    grids = (codes.indices if header.volume else codes.indices[None])[header.coded_slices]
    if header.coder is Coder.PACKED:
        return container.write(header, pack(grids, header.codebook_size), codes.beside)
    chain = Chain(file.coding(header.volume is not None), header)
    assert chain.model.prior is not None
    encoder = GridEncoder(chain.model.prior, header.grid_shape, chain.recall)
    for kind, place, grid in zip(kinds, header.coded_slices, grids, strict=True):
        encoder.put(kind, partial(_recorded, grid), chain.expected(place))
        chain.go_on(place, grid)
    return container.write(header, encoder.finish(), codes.beside)


def _recorded(grid: NDArray[np.uint16], step: Pass, _: Frequencies) -> NDArray[np.uint16]:
    indices: NDArray[np.uint16] = grid[step.level, step.rows, step.columns]
    return indices


def _digest(array: NDArray[Any]) -> dict[str, object]:
    little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    digest = hashlib.sha256(little.tobytes()).hexdigest()
    return {"shape": list(array.shape), "dtype": array.dtype.name, "sha256": digest}


def _plain(field: object) -> object:
    """A header or one of its fields, as JSON holds it."""
    if isinstance(field, Enum):
        return field.name
    if isinstance(field, bytes):
        return field.hex() if len(field) <= 8 else hashlib.sha256(field).hexdigest()
    if isinstance(field, tuple):
        return [_plain(part) for part in field]
    if dataclasses.is_dataclass(field):
        parts = {part.name: getattr(field, part.name) for part in dataclasses.fields(field)}
        blocks = ("ground", "residue", "outliers", "stack", "restoration")
        left_out = [name for name in blocks if name in parts and parts[name] is None]
        return {name: _plain(part) for name, part in parts.items() if name not in left_out}
    return field


def found_in(folder: Path) -> dict[str, Any]:
    """What is in the files of a folder, and the hashes of what that is coded to again."""
    file, recorded = read_model(folder / MODEL), recorded_facts(folder)
    codec = Codec(file)
    facts: dict[str, Facts] = {}
    again: dict[str, str] = {}
    for path in golden_files(folder):
        kinds = recorded[path.name]["kinds"]
        codes = read_codes(path, folder / MODEL)
        content = path.read_bytes()
        facts[path.name] = facts_of(content, codes, kinds, codec)
        again[path.name] = hashlib.sha256(code_again(codes, kinds, file)).hexdigest()
    return {"facts": facts, "coded again": again}


if __name__ == "__main__":
    found = {folder.name: found_in(folder) for folder in FOLDERS}
    if "torch" in sys.modules:
        raise SystemExit("torch was imported")
    print(json.dumps(found))
