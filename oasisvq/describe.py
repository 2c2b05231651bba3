"""Facts about a `.codes` file, a model, an export, a dataset or a folder, found without torch."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from oasisvq.codec import container
from oasisvq.codec.container import MAGIC
from oasisvq.codec.headers import Coder, CodesHeader, VolumeHeader
from oasisvq.data.dataset import is_prepared, open_dataset
from oasisvq.errors import FileError
from oasisvq.files import MODEL_FILE, STORE_SUFFIX, read_bytes
from oasisvq.scans.limits import MAX_FILE_BYTES

if TYPE_CHECKING:
    from oasisvq.codec.modelfile import ModelFile


def describe(path: Path) -> dict[str, Any]:
    """Facts about a file or folder of oasisvq, by its content; exports and models by their ending.

    Raises:
        FileError: missing, or not a file of oasisvq.
        CodesFileError, ModelError, DatasetError: it is damaged.
    """
    if path.suffix in (".npz", STORE_SUFFIX):
        return _tokens(path)
    if path.is_dir():
        if is_prepared(path):
            return _dataset(path)
        return _folder(path)
    content = read_bytes(path, MAX_FILE_BYTES)
    if content[: len(MAGIC)] == MAGIC:
        return _codes(content, path)
    if path.suffix == ".safetensors":
        from oasisvq.tokens import is_export  # and safetensors with it

        return _tokens(path) if is_export(path) else _model(path)
    raise FileError(
        f"{path}: not a .codes file, a model (.safetensors), an export (.npz) or a dataset folder"
    )


def _tokens(path: Path) -> dict[str, Any]:
    from oasisvq.tokens import read_tokens  # and safetensors with it

    tokens = read_tokens(path)
    arrays, indices = tokens.arrays, tokens.arrays["indices"]
    sides = " × ".join(f"{side:,}" for side in indices.shape)
    return {
        "kind": "array file of `oasisvq export`",
        "files": len(tokens),
        "subjects": len(set(tokens.subjects) - {""}),
        "indices": f"{sides} (slices, levels, h, w) of {int(arrays['codebook'][0])} codes",
        "model": arrays["fingerprint"].tobytes().hex(),
        "bytes": sum(each.stat().st_size for each in (path.iterdir() if path.is_dir() else [path])),
    }


def _folder(path: Path) -> dict[str, Any]:
    from oasisvq.inventory import take_stock  # and safetensors with it

    run = _model(path / MODEL_FILE) if (path / MODEL_FILE).is_file() else {}
    return run | take_stock(path)


def _codes(content: bytes, path: Path) -> dict[str, Any]:
    header = container.read(content, str(path)).header
    pixels = header.slices * header.shape[0] * header.shape[1]
    facts: dict[str, Any] = {
        "kind": f".codes file, version {container.VERSION}",
        "holds": f"{'labels' if header.labels else 'scan'}, "
        + ("stack of images" if header.stack else header.kind.name.lower()),
        "original": _original(header),
    }
    if header.stack:
        names = header.stack.names
        facts["images"] = f"{len(names)}, {names[0]} to {names[-1]}"
    elif header.volume:
        facts |= _geometry(header.volume)
    if header.labels:
        facts["labels"] = list(header.labels)
    if header.coder is Coder.LABELS:
        facts["coder"] = "labels, kept exactly; no model needed"
    else:
        facts |= {
            "indices": f"{header.levels} levels × {header.window.height} × {header.window.width} "
            f"of {header.codebook_size} codes"
            + (f", in {len(header.coded_slices)} slices" if header.volume else ""),
            "window": f"from cell ({header.window.top}, {header.window.left}), "
            f"{header.stride}×{header.stride} pixels a cell",
            "coder": header.coder.name.lower(),
            "model": header.fingerprint.hex(),
        }
    if header.ground:
        ground = header.ground
        facts["ground"] = f"value {ground.value:g}, kept exactly in {ground.payload_bytes:,} bytes"
    if header.restoration:
        facts["restoration"] = "voxels are corrected by how near the ground they lie"
    if header.outliers:
        values = header.outliers.values
        facts["outliers"] = f"{len(values):,} kept exactly, {min(values):g} to {max(values):g}"
    if header.residue:
        bound = header.residue.binning.bound
        facts["largest_error"] = bound
        facts["residue"] = f"{header.residue.payload_bytes:,} bytes" + (
            "" if bound else ", nothing lost"
        )
    facts |= {"bytes": len(content), "bits_per_pixel": round(8 * len(content) / pixels, 4)}
    return facts


def _original(header: CodesHeader) -> str:
    size = f"{header.shape[0]}×{header.shape[1]}, {header.sample_type.name.lower()}"
    if header.volume:
        size = f"{header.slices} slices of {size}"
    if header.labels:
        return size
    low, high = header.intensity
    return f"{size}, grey levels {low:g} to {high:g}"


def _geometry(volume: VolumeHeader) -> dict[str, Any]:
    """What the header of a volume says."""
    geometry = volume.geometry
    zooms = " × ".join(f"{zoom:g}" for zoom in geometry.zooms)
    sides = " × ".join(str(side) for side in geometry.shape)
    return {
        "format": f"{geometry.form.name.lower()}, {sides} voxels of {zooms} mm",
        "affine": [[float(f"{value:.6g}") for value in row] for row in geometry.affine.tolist()],
    }


def _model(path: Path) -> dict[str, Any]:
    from oasisvq.codec.config import config_to_dict
    from oasisvq.codec.modelfile import read_model  # and safetensors with it
    from oasisvq.codec.typical import KEY
    from oasisvq.model_store import store_folder

    file = read_model(path)
    prior = file.prior
    return {
        "kind": "model",
        "fingerprint": file.fingerprint.hex(),
        "bytes": path.stat().st_size,
        "parameters": sum(
            array.size for name, array in file.arrays.items() if not name.startswith("quantizer.")
        ),
        "prior_bytes": sum(array.nbytes for array in prior.arrays.values()) if prior else 0,
        "holds_largest_errors": file.residue is not None,
        "default_quality": file.config.default_levels,
        "config": config_to_dict(file.config),
        "prior": config_to_dict(prior.config) if prior else None,
        "residue": config_to_dict(file.residue.config) if file.residue else None,
        "support": config_to_dict(file.support.config) if file.support else None,
        "volumes": _coding(file.volumes) if file.volumes else None,
        "typical": {f"-q {place}": each for place, each in enumerate(file.card[KEY]["levels"], start=1)}
        if KEY in file.card
        else None,
        "training": {key: entry for key, entry in file.card.items() if key != KEY},
        "store": str(store_folder()),
    }


def _coding(volumes: "ModelFile") -> dict[str, Any]:
    """The codec and prior for volumes of a model."""
    from oasisvq.codec.config import config_to_dict

    prior = volumes.prior
    return {
        "default_quality": volumes.config.default_levels,
        "config": config_to_dict(volumes.config),
        "prior": config_to_dict(prior.config) if prior else None,
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
