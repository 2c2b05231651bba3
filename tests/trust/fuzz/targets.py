"""The ways in for bytes from outside, and what has to hold of what is accepted there."""

import json
import math
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import seeds
from harness import Target
from mutators import (
    as_bytes,
    codes_file,
    dicom_file,
    image_file,
    manifest_and_array,
    safetensors_file,
    volume_file,
)
from numpy.typing import NDArray

from oasisvq.codec import container, modelfile
from oasisvq.codec.codes import NO_INDEX, Codes, CodesFile, Slices
from oasisvq.codec.entropy import encode_with_prior, kind_in, pack
from oasisvq.codec.exact import LATENT_UNITS
from oasisvq.codec.headers import MAX_INDICES, Coder, refuse_large_codes
from oasisvq.codec.labels import encode_labels
from oasisvq.codec.modelfile import ModelFile, read_model, write_model
from oasisvq.codec.networks import PIXEL_STEPS
from oasisvq.codec.recall import Recall
from oasisvq.codec.residue import SliceReader
from oasisvq.data.dataset import MANIFEST, Dataset, manifest_bytes, open_dataset
from oasisvq.errors import CodesFileError, DatasetError, FileError, ImageError, ModelError, OasisVQError
from oasisvq.scans.geometry import Geometry
from oasisvq.scans.scan import Scan, read_scan, write_scan
from oasisvq.scans.source import source_at


def may_be_refused(step: Callable[[], Any], *refusals: type[OasisVQError]) -> Any:
    """What a step gives, or None if it raises one of these errors."""
    try:
        return step()
    except refusals:
        return None


# -- `.codes` files up to their payload


def read_codes(content: bytes, folder: Path) -> CodesFile:
    """A file from its magic to its CRC."""
    return container.read(content, "scan.codes")


def hold_codes(file: CodesFile, content: bytes, folder: Path) -> None:
    """It is written to the same bytes, and everything in its header is in range."""
    header = file.header
    assert container.write(header, file.payload, file.beside) == content
    assert file.file_bytes == len(content)
    assert 0 <= header.index_count <= MAX_INDICES
    assert header.coded_slices == sorted(set(header.coded_slices) & set(range(header.slices)))
    window, cells = header.window, [-(-side // max(header.stride, 1)) for side in header.shape]
    assert window.top + window.height <= cells[0] and window.left + window.width <= cells[1]
    if header.coder is not Coder.LABELS:
        for place in range(header.slices):
            low, high = header.slice_range(place)
            assert math.isfinite(low) and math.isfinite(high) and low <= high
    may_be_refused(lambda: refuse_large_codes(header, file.name), ImageError)
    if header.volume and is_looked_at_closely(content):
        hold_geometry(header.volume.geometry)
        slicing, sides = header.volume.slicing, header.volume.geometry.shape[:3]
        voxels = np.broadcast_to(np.zeros(1), (*sides, 1)[:3])
        assert slicing.planes(voxels).shape == (header.slices, *header.shape)


def is_looked_at_closely(content: bytes) -> bool:
    """Whether this is one of the inputs, one in eight, for which what takes long is done."""
    return zlib.crc32(content) % 8 == 0


def hold_geometry(geometry: Geometry) -> None:
    """Whatever is asked of a header has an answer, or is refused as an image."""
    assert Geometry(geometry.form, geometry.content).content == geometry.content
    for name in ("affine", "axis_codes", "scaling", "zooms", "form_codes"):
        may_be_refused(lambda name=name: getattr(geometry, name), ImageError)
    for convert in (geometry.as_single, geometry.as_pair):
        converted = may_be_refused(convert, ImageError)
        if converted:
            assert converted.shape == geometry.shape and converted.dtype == geometry.dtype


# -- payloads


def read_payload(content: bytes, folder: Path) -> Codes:
    """The indices or labels in a payload; the first byte says of what kind it is."""
    number = content[0] if content else 0
    header = seeds.cases()[number % len(seeds.cases())].header
    file = CodesFile(header, content[1:], len(content), "scan.codes")
    return file.codes(seeds.prior(), Slices(Recall(seeds.codebooks()) if header.volume else None))


def hold_payload(codes: Codes, content: bytes, folder: Path) -> None:
    """Indices are in range and as many as the header says, and are coded to the same payload."""
    header, payload = codes.header, content[1:]
    if codes.label_map is not None:
        assert codes.label_map.dtype == header.sample_type.dtype
        planes = codes.label_map.reshape(header.slices, *header.shape)
        ranks = np.searchsorted(np.array(header.labels), planes)
        assert (np.array(header.labels)[ranks] == planes).all()
        assert encode_labels(ranks.astype(np.uint16), len(header.labels)) == payload
        return
    grids = codes.indices if header.volume else codes.indices[None]
    assert grids.shape == (header.slices, *header.grid_shape)
    coded = grids[header.coded_slices]
    assert coded.size == header.index_count and coded.max() < header.codebook_size
    assert (np.delete(grids, header.coded_slices, axis=0) == NO_INDEX).all()
    if header.coder is Coder.PACKED:
        assert pack(coded, header.codebook_size) == payload
    elif not header.volume:  # of a volume, its decoder has compared them
        kind, grid = kind_in(payload, seeds.prior()), codes.indices
        again, _ = encode_with_prior(
            seeds.prior(),
            header.grid_shape,
            kind,
            lambda step, _: grid[step.level, step.rows, step.columns],
        )
        assert again == payload


# -- residues


def read_bins(content: bytes, folder: Path) -> list[NDArray[np.int64]]:
    """The slices in the payload of a residue; the first byte says of what case."""
    case = seeds.residue_cases()[(content[0] if content else 0) % len(seeds.residue_cases())]
    reader = SliceReader(content[1:], seeds.residue(), case.supports[0].shape, case.limits)
    slices = [reader.take(support, None) for support in case.supports]
    reader.finish()
    return slices


def hold_bins(slices: list[NDArray[np.int64]], content: bytes, folder: Path) -> None:
    """They lie in their limits, where the support is, and are coded to the same payload."""
    case = seeds.residue_cases()[content[0] % len(seeds.residue_cases())]
    assert case.payload(slices) == content[1:]
    for bins, support in zip(slices, case.supports, strict=True):
        np.testing.assert_array_equal(bins != 0, support)
        assert case.limits.low <= bins.min() or not support.all()
        assert bins.max() <= max(case.limits.high, 0)


# -- model files


def read_model_file(content: bytes, folder: Path) -> ModelFile:
    """A model file, whatever it is called by itself: that gives every change away."""
    path = folder / "model.safetensors"
    path.write_bytes(content)
    with patch.object(modelfile, "_refuse_wrong_fingerprint", lambda *_: None):
        return read_model(path)


def hold_model(file: ModelFile, content: bytes, folder: Path) -> None:
    """It is written and read again as the same model; its prior gives frequencies to the exact sum."""
    if is_looked_at_closely(content):
        path = folder / "again.safetensors"
        write_model(file, path)
        again = read_model(path)
        assert again.config == file.config
        # as texts: a NaN is not equal to itself
        assert json.dumps(again.card, sort_keys=True) == json.dumps(file.card, sort_keys=True)
        assert again.fingerprint == file.fingerprint
    may_be_refused(lambda: Recall(file.codebooks), ModelError)
    hold_networks(file)
    if file.prior is not None:
        levels, size = file.prior.config.levels, file.prior.config.codebook_size

        def choose(step: Any, frequencies: Any) -> Any:
            assert frequencies.min() >= 0
            assert (frequencies.sum(-1) == 2**24 - size).all()
            return frequencies.argmin(-1)

        file.prior.walk((1, levels, 1, 2), np.array([0]), choose)


def hold_networks(file: ModelFile) -> None:
    """Whatever the integers are, whole numbers in range come out, and the same ones in any order."""
    config, rng = file.config, np.random.default_rng(0)
    pixels = rng.integers(0, PIXEL_STEPS + 1, (2, config.stride, 2 * config.stride), np.int32)
    latents = file.encoder(pixels)
    assert latents.shape == (2, 1, 2, config.code_dim)
    assert (latents == np.rint(latents)).all()
    assert np.square(latents.astype(np.float64)).mean() < (LATENT_UNITS + 1) ** 2
    np.testing.assert_array_equal(file.encoder(pixels[::-1])[::-1], latents)
    indices = file.quantizer.quantize(latents[0], config.levels)
    assert indices.min() >= 0
    assert indices.max() < config.codebook_size
    decoded = file.decoder(file.quantizer.dequantize(indices)[None])
    assert decoded.shape == (1, config.stride, 2 * config.stride)
    assert decoded.dtype == np.uint16


# -- prepared datasets


def read_dataset(content: bytes, folder: Path) -> Dataset:
    """A manifest, and after a 0 the array of its training split."""
    manifest, _, array = content.partition(b"\0")
    (folder / MANIFEST).write_bytes(manifest)
    (folder / "train.npy").write_bytes(array)
    return open_dataset(folder)


def hold_dataset(dataset: Dataset, content: bytes, folder: Path) -> None:
    """It is written to a manifest that says the same; arrays are as it says, or refused."""
    assert any(split.records for split in dataset.splits.values())
    for name, split in dataset.splits.items():
        array = may_be_refused(lambda name=name: dataset.array(name), DatasetError)
        if array is not None:
            assert array.shape == (len(split.records), dataset.size, dataset.size)
            assert array.dtype == np.uint8
    if not is_looked_at_closely(content):
        return
    may_be_refused(dataset.verify, DatasetError)
    written = manifest_bytes(dataset)
    (folder / MANIFEST).write_bytes(written)
    assert manifest_bytes(open_dataset(folder)) == written


# -- images and volumes


def read_image_file(content: bytes, folder: Path) -> Scan:
    """An image."""
    path = folder / "scan.png"  # the name does not matter
    path.write_bytes(content)
    return read_scan(source_at(path))


def hold_image(scan: Scan, content: bytes, folder: Path) -> None:
    """It has one plane of grey levels, which is written and read again as it is."""
    assert scan.placement is None and scan.planes.dtype in (np.uint8, np.uint16)
    assert scan.plane.size
    if is_looked_at_closely(content):
        hold_written(scan, folder / "again.png")


def hold_written(scan: Scan, path: Path) -> None:
    """A scan comes back from a file with all its values and its geometry."""
    write_scan(scan, path)
    axis = None if scan.placement is None else str(scan.placement.slicing.axes[0])
    again = read_scan(source_at(path), axis)
    np.testing.assert_array_equal(again.voxels, scan.voxels)
    if scan.placement and again.placement:
        single = scan.placement.geometry.as_single()
        assert again.placement.geometry.as_single().content == single.content


def read_volume_file(content: bytes, folder: Path) -> Scan:
    """A volume; the first byte says what its file is called, and whether it is a pair."""
    form = seeds.VOLUME_FORMS[(content[0] if content else 0) % len(seeds.VOLUME_FORMS)]
    path, body = folder / f"scan{form}", content[1:]
    if form == ".hdr":
        length = 540 if 540 in (int.from_bytes(body[:4], order) for order in ("little", "big")) else 348
        path.with_suffix(".img").write_bytes(body[length:])
        body = body[:length]
    path.write_bytes(body)
    return read_scan(source_at(path))


def hold_volume(scan: Scan, content: bytes, folder: Path) -> None:
    """Its planes are as its header says; it is written and read again as it is."""
    assert scan.placement is not None
    geometry, slicing = scan.placement
    assert scan.voxels.shape == (*geometry.shape, 1)[:3]
    assert slicing.planes(scan.voxels).shape == scan.planes.shape
    assert not np.isinf(scan.planes).any() and scan.intensity[0] < scan.intensity[1]
    if is_looked_at_closely(content):
        hold_geometry(geometry)
        hold_written(scan, folder / "again.nii")


def read_dicom_file(content: bytes, folder: Path) -> Scan:
    """A DICOM file."""
    path = folder / "scan.dcm"
    path.write_bytes(content)
    return read_scan(source_at(path))


TARGETS = {
    "codes": Target(read_codes, (CodesFileError,), hold_codes, seeds.codes_files, codes_file, 600),
    "payload": Target(read_payload, (CodesFileError,), hold_payload, seeds.payloads, as_bytes, 64),
    "residue": Target(read_bins, (CodesFileError,), hold_bins, seeds.bins, as_bytes, 512),
    "model": Target(
        read_model_file, (ModelError,), hold_model, seeds.model_files, safetensors_file, 10_000
    ),
    "manifest": Target(
        read_dataset, (DatasetError,), hold_dataset, seeds.manifests, manifest_and_array, 4096
    ),
    "image": Target(read_image_file, (ImageError,), hold_image, seeds.image_files, image_file, 1024),
    "volume": Target(
        read_volume_file, (ImageError, FileError), hold_volume, seeds.volume_files, volume_file, 1024
    ),
    "dicom": Target(read_dicom_file, (ImageError,), hold_volume, seeds.dicom_files, dicom_file, 1536),
}
