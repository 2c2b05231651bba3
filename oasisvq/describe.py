"""What a `.codes` file, a model or a prepared dataset is, as plain facts.

All of it is found without torch.
"""

from pathlib import Path
from typing import Any

from oasisvq.codec import container
from oasisvq.codec.container import MAGIC, MAX_FILE_BYTES
from oasisvq.data.dataset import is_prepared, open_dataset
from oasisvq.errors import FileError
from oasisvq.files import MODEL_FILE, read_bytes


def describe(path: Path) -> dict[str, Any]:
    """Facts about a file or folder of ours, by what is in it rather than by its name.

    Raises:
        FileError: missing, or none of ours.
        CodesFileError, ModelError, DatasetError: it is damaged.
    """
    if path.is_dir():
        if is_prepared(path):
            return _dataset(path)
        if (path / MODEL_FILE).is_file():
            return _model(path / MODEL_FILE)
        raise FileError(f"{path}: neither a prepared dataset nor a run folder with a {MODEL_FILE}")
    content = read_bytes(path, MAX_FILE_BYTES)
    if content[: len(MAGIC)] == MAGIC:
        return _codes(content, path)
    if path.suffix == ".safetensors":
        return _model(path)
    raise FileError(f"{path}: not a .codes file, a model (.safetensors) or a dataset folder")


def _codes(content: bytes, path: Path) -> dict[str, Any]:
    header = container.read(content, str(path)).header
    height, width = header.shape
    return {
        "kind": f".codes file, version {container.VERSION}",
        "holds": header.kind.name.lower(),
        "original": f"{height}×{width}, {header.sample_type.name.lower()}, "
        f"grey levels {header.intensity[0]} to {header.intensity[1]}",
        "indices": f"{header.levels} levels × {header.window.height} × {header.window.width} "
        f"of {header.codebook_size} codes",
        "window": f"from cell ({header.window.top}, {header.window.left}), "
        f"{header.stride}×{header.stride} pixels a cell",
        "coder": header.coder.name.lower(),
        "model": header.fingerprint.hex(),
        "bytes": len(content),
        "bits_per_pixel": round(8 * len(content) / (height * width), 4),
    }


def _model(path: Path) -> dict[str, Any]:
    from oasisvq.codec.modelfile import config_to_dict, read_model  # and safetensors with it

    file = read_model(path)
    prior = file.prior
    return {
        "kind": "model",
        "fingerprint": file.fingerprint.hex(),
        "prior_fingerprint": file.prior_fingerprint.hex() if file.prior_fingerprint else None,
        "bytes": path.stat().st_size,
        "parameters": sum(
            array.size for name, array in file.arrays.items() if not name.startswith("quantizer.")
        ),
        "prior_bytes": sum(array.nbytes for array in prior.arrays.values()) if prior else 0,
        "default_quality": file.config.default_levels,
        "config": config_to_dict(file.config),
        "prior": config_to_dict(prior.config) if prior else None,
        "training": file.card,
    }


def _dataset(path: Path) -> dict[str, Any]:
    dataset = open_dataset(path)
    return {
        "kind": "prepared dataset",
        "layout": dataset.layout,
        "images": dataset.images.value,
        "size": f"{dataset.size}×{dataset.size}",
        "made_from": dataset.raw,
        "splits": {
            name: {
                "slices": len(split.records),
                "subjects": len({record.subject for record in split.records}),
            }
            for name, split in dataset.splits.items()
        },
    }
