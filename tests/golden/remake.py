"""Start the golden files of a format version, or add files to them.

    PYTHONPATH=tests python tests/golden/remake.py tests/golden/version1
    PYTHONPATH=tests python tests/golden/remake.py tests/golden/version1-residues

Where the folder has no model, one is made. Scans that have no file yet are drawn, encoded and recorded;
files that are there, and what is recorded of them, stay as they are: other bytes for the same input are
another version of the format, and go to a folder of their own.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from conftest import draw_phantom, tiny_model, tiny_prior
from nibabel.nifti1 import Nifti1Header, Nifti1PairHeader
from nibabel.nifti2 import Nifti2Header, Nifti2PairHeader
from nibabel.spm2analyze import Spm2AnalyzeHeader
from numpy.typing import NDArray
from recorded import FACTS, MODEL, code_again, facts_of, recorded_facts
from residue_models import tiny_residue, tiny_support

from oasisvq.codec import container
from oasisvq.codec.codec import Codec
from oasisvq.codec.codes import Codes
from oasisvq.codec.content import Content
from oasisvq.codec.headers import Coder
from oasisvq.codec.modelfile import read_model, write_model
from oasisvq.codec.outliers import core_of
from oasisvq.codec.pixels import to_pixels
from oasisvq.codec.slices import Chain, steps_of
from oasisvq.codec.wish import Wish
from oasisvq.scans.geometry import Form, Geometry
from oasisvq.scans.scan import Scan, as_scan, scan_of_stack, scan_of_volume
from oasisvq.scans.stacks import StackNames
from oasisvq.scans.voxel_streams import Volume
from oasisvq.training.weights import save_model

SHAPES = ((1, 1), (1, 50), (7, 13), (65, 31), (300, 20))
LABELS = np.array([0, 85, 170, 255])
AFFINE = np.array([[-1.0, 0, 0.1, 9], [0, 1.25, 0, -8], [0.1, 0, 1.5, -7], [0, 0, 0, 1]])


class Drawn(NamedTuple):
    """A drawn scan and how to encode it."""

    name: str
    scan: Scan
    wish: Wish


class VolumeSpec(NamedTuple):
    """A volume to draw: its file format, type, byte order, what its slices follow, its values."""

    form: Form
    dtype: str
    order: str
    axis: str
    low: float
    high: float


VOLUMES = (
    VolumeSpec(Form.NIFTI1, "int16", "<", "axial", -20, 3000),
    VolumeSpec(Form.NIFTI1_PAIR, "uint8", ">", "coronal", 0, 255),
    VolumeSpec(Form.NIFTI2, "float32", "<", "sagittal", -1.5, 1000),
    VolumeSpec(Form.NIFTI2_PAIR, "int32", ">", "2", -70_000, 70_000),
    VolumeSpec(Form.ANALYZE, "int16", ">", "axial", 0, 4095),
    VolumeSpec(Form.NIFTI1, "int8", "<", "axial", -128, 127),
    VolumeSpec(Form.NIFTI1, "uint16", ">", "axial", 7, 65_535),
    VolumeSpec(Form.NIFTI1, "uint32", "<", "axial", 0, 2**32 - 1),
    VolumeSpec(Form.NIFTI1, "float64", ">", "axial", -1e-9, 1e-9),
    VolumeSpec(Form.NIFTI1, "int64", "<", "axial", -(2**53), 2**53),
    VolumeSpec(Form.NIFTI1, "uint64", "<", "axial", 0, 2**53),
)


def drawn_scans() -> Iterator[Drawn]:
    """All scans; each has a generator of its own, so that more of them change none."""
    coders = (Coder.PACKED, Coder.PRIOR)
    for coder in coders:
        for name, plane, levels in _images():
            wish = Wish(levels, coder, Content.SCAN)
            yield Drawn(f"image-{name}-{coder.name.lower()}", as_scan(plane), wish)
        for spec in VOLUMES:
            name = f"volume-{spec.form.name.lower()}-{spec.dtype}-{coder.name.lower()}"
            yield Drawn(name, _volume(spec), Wish(3, coder, Content.SCAN, axis=spec.axis))
        for name, scan in _scans_with_outliers():
            yield Drawn(f"outliers-{name}-{coder.name.lower()}", scan, Wish(2, coder, Content.SCAN))
    for name, scan in _label_scans():
        yield Drawn(f"labels-{name}", scan, Wish(content=Content.LABELS))
        if name in ("image", "volume"):
            for coder in coders:
                wish = Wish(3, coder, Content.LABELS, lossy=True)
                yield Drawn(f"labels-{name}-lossy-{coder.name.lower()}", scan, wish)
    for name, scan in _stacks():
        for coder in coders:
            wish = Wish(2, coder, Content.SCAN)
            yield Drawn(f"stack-{name}-{coder.name.lower()}", scan, wish)


def scans_with_residues() -> Iterator[Drawn]:
    """Scans of every rule of bins, with ground and without, and of NaN."""
    rng = np.random.default_rng(4)
    phantom = draw_phantom(rng, 40, 33, margin=4)
    noise = rng.integers(0, 65_536, (23, 17), np.uint16)
    for name, plane in (("phantom", phantom), ("noise", noise), ("constant", phantom * 0 + 7)):
        for bound in (0, 3):
            wish = Wish(2, content=Content.SCAN, bound=bound)
            yield Drawn(f"image-{name}-{bound}", as_scan(plane), wish)
    for name, scan in _stacks():
        yield Drawn(f"stack-{name}-0", scan, Wish(1, content=Content.SCAN, bound=0))
    packed = Wish(1, Coder.PACKED, Content.SCAN, bound=0)
    yield Drawn("image-phantom-packed", as_scan(phantom), packed)
    for number, low, high, dtype, bound in (
        (0, -20, 3000, "int16", 0),
        (1, -70_000_000, 70_000_000, "int32", 0),
        (2, 0, 4_000_000_000, "uint32", 100),
        (3, 0, 900, "float32", 0),
        (4, -1.5, 1000, "float32", 0.7),
        (5, -1e-9, 1e-9, "float64", 1e-11),
    ):
        shares = _head((14, 11, 5), seed=20 + number)
        voxels = low + shares * (high - low)
        is_whole = dtype[0] != "f" or not bound
        voxels = (np.rint(voxels) if is_whole else voxels).astype(dtype)
        scan = scan_of_volume(Volume(voxels, Geometry.of_array(voxels, AFFINE)))
        yield Drawn(f"volume-{dtype}-{bound:g}", scan, Wish(1, content=Content.SCAN, bound=bound))
    outside = np.where(shares > 0, voxels, np.nan)
    scan = scan_of_volume(Volume(outside, Geometry.of_array(outside, AFFINE)))
    for name, bound_or_none in (("lossy", None), ("bound", 1e-10)):
        yield Drawn(f"volume-nan-{name}", scan, Wish(1, content=Content.SCAN, bound=bound_or_none))
    for name, scan in _scans_with_outliers():
        yield Drawn(f"outliers-{name}-0", scan, Wish(1, content=Content.SCAN, bound=0))


def _images() -> Iterator[tuple[str, NDArray[Any], int]]:
    """Name, image (H, W) and levels to keep."""
    rng = np.random.default_rng(1)
    phantom = draw_phantom(rng)
    for levels in (1, 2, 3):
        yield f"uint8-{levels}", phantom, levels
    yield "uint16", draw_phantom(rng).astype(np.uint16) * 257, 3
    yield "narrow", 40 + draw_phantom(rng) // 4, 3
    yield "beyond-the-window", draw_phantom(rng, 90, 101, margin=5), 3
    yield "off-centre", np.pad(draw_phantom(rng, 41, 30, margin=2), ((50, 1), (0, 60))), 3
    yield "constant", np.full((30, 20), 7, np.uint8), 3
    for height, width in SHAPES:
        yield f"{height}x{width}", rng.integers(0, 256, (height, width), np.uint8), 3


def _stacks() -> Iterator[tuple[str, Scan]]:
    """Neighbouring slices, of which one is constant."""
    rng = np.random.default_rng(5)
    phantom = draw_phantom(rng, 40, 33, margin=4)
    planes = np.stack([phantom, phantom // 2 + 3, phantom * 0 + 7, phantom[::-1]])
    yield "uint8", scan_of_stack(planes, StackNames("case_402_slice_", ".nii.png", 1, (0, 1, 2, 10)))
    deep = planes[:2].astype(np.uint16) * 257
    yield "uint16", scan_of_stack(deep, StackNames("é-", ".tif", 4, (7, 1009)))


def _scans_with_outliers() -> Iterator[tuple[str, Scan]]:
    """An image and volumes with voxels far beyond all others, and one whose ground is padding."""
    phantom = draw_phantom(np.random.default_rng(5)).astype(np.uint16)
    phantom[20, 30] = 40_000
    yield "image", as_scan(phantom)
    shares = _head((20, 16, 7), seed=30)
    for dtype in ("int16", "float32"):
        voxels = np.rint(shares * 1000).astype(dtype)
        voxels[10, 8, 3], voxels[9, 8, 3], voxels[7, 7, 2] = 32_767, -9000, 5000
        yield dtype, scan_of_volume(Volume(voxels, Geometry.of_array(voxels, AFFINE)))
    padded = np.where(shares > 0, voxels, voxels.dtype.type(-1e6))
    yield "padding", scan_of_volume(Volume(padded, Geometry.of_array(padded, AFFINE)))


def _volume(spec: VolumeSpec) -> Scan:
    shape = (26, 33, 10) if spec is VOLUMES[0] else (10, 13, 7)
    shares = _head(shape, seed=VOLUMES.index(spec))
    voxels = spec.low + shares * (spec.high - spec.low)
    dtype = np.dtype(spec.dtype)
    voxels = (np.rint(voxels) if dtype.kind in "iu" else voxels).astype(dtype)
    return scan_of_volume(Volume(voxels, _geometry(spec, shape)), spec.axis)


def _head(shape: tuple[int, int, int], seed: int) -> NDArray[np.float64]:
    """An ellipsoid with a hole, of values up to 1, on a ground of 0 that is all of the outer slices."""
    rng = np.random.default_rng([2, seed])
    grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, side) for side in shape), indexing="ij"), axis=-1)
    distance = np.linalg.norm(grid, axis=-1)
    head = (distance < 0.9) * np.clip(0.7 + rng.normal(0, 0.05, shape), 0, 1)
    head[distance < 0.3] = 0.25
    head[tuple(side // 2 for side in shape)] = 1
    return head


def _geometry(spec: VolumeSpec, shape: tuple[int, int, int]) -> Geometry:
    classes = (Nifti1Header, Nifti1PairHeader, Nifti2Header, Nifti2PairHeader, Spm2AnalyzeHeader)
    header = classes[spec.form](endianness=spec.order)
    header.set_data_shape(shape)
    header.set_data_dtype(np.dtype(spec.dtype))
    header.set_zooms((1, 1.25, 1.5))
    if spec.form is Form.ANALYZE:
        header.set_origin_from_affine(np.diag([-1, 1.25, 1.5, 1]) + np.eye(4, k=3) * 5)
    else:
        header.set_sform(AFFINE, code=2)
        header.set_qform(AFFINE, code=1, strip_shears=True)
        header.set_slope_inter(0.5, -3)
        header.set_xyzt_units("mm")
    return Geometry(spec.form, header.binaryblock)


def _label_scans() -> Iterator[tuple[str, Scan]]:
    rng = np.random.default_rng(3)
    plane = LABELS[np.digitize(draw_phantom(rng), [1, 90, 180])].astype(np.uint8)
    yield "image", as_scan(plane)
    yield "image-one", as_scan(np.full((9, 5), 3, np.uint16))
    yield "image-noise", as_scan(rng.integers(0, 300, (33, 29)).astype(np.uint16))
    tissue = np.digitize(_head((21, 25, 12), seed=99), [0.1, 0.5, 0.75])
    for name, values, dtype in (
        ("volume", [0, 3, 4, 200], np.int16),
        ("volume-negative", [-1000, -1, 0, 7], np.int32),
        ("volume-float", [0, 1, 2, 3], np.float32),
    ):
        voxels = np.array(values, dtype)[tissue]
        yield name, scan_of_volume(Volume(voxels, Geometry.of_array(voxels, AFFINE)))


def make_model(path: Path) -> None:
    """A model with random weights, whose pixels fill the range as those of a trained one do."""
    model = tiny_model()
    last = model.decoder.layers[-2]
    with torch.no_grad():
        last.weight *= 2.5
        last.bias.fill_(0.4)
    save_model(model, path, {"note": "random weights, for the golden files"}, tiny_prior())


def kinds_of(codes: Codes, scan: Scan, codec: Codec) -> list[int]:
    """The kind of every slice of a scan that the prior codes."""
    header = codes.header
    if header.coder is not Coder.PRIOR:
        return []
    planes = core_of(scan.planes).planes
    if header.labels:
        planes = np.searchsorted(np.array(header.labels), scan.planes).astype(np.uint16)
    chain, kinds = Chain(codec.file.coding(header.volume is not None), header), []
    assert chain.model.prior is not None
    grids = codes.indices if header.volume else codes.indices[None]
    for place in header.coded_slices:
        pixels = to_pixels(planes[place], header.slice_range(place), header.window, header.stride)
        kinds.append(chain.model.prior.kind_of(chain.latents(place, steps_of(pixels))))
        chain.go_on(place, grids[place])
    return kinds


def main() -> None:
    """Write what is missing."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help=f"of version {container.VERSION}")
    folder: Path = parser.parse_args().folder
    version, _, of_residues = folder.name.partition("-")
    if version != f"version{container.VERSION}" or of_residues not in ("", "residues"):
        raise SystemExit(f"{folder}: this oasisvq writes version {container.VERSION}")
    folder.mkdir(exist_ok=True)
    if not (folder / MODEL).exists():
        make_model(folder / MODEL)
        if of_residues:
            file = read_model(folder / MODEL)
            write_model(file.with_residue(tiny_residue(), tiny_support(), file.card), folder / MODEL)
    codec = Codec.load(folder / MODEL)
    facts = recorded_facts(folder) if (folder / FACTS).exists() else {}
    for name, scan, wish in scans_with_residues() if of_residues else drawn_scans():
        path = folder / f"{name}.codes"
        if path.exists():
            continue
        content = codec.encode_scan(scan, wish)
        codes = codec.codes_of(container.read(content, name))
        kinds = kinds_of(codes, scan, codec)
        assert code_again(codes, kinds, codec.file) == content
        path.write_bytes(content)
        facts[path.name] = facts_of(content, codes, kinds, codec)
        print(f"{path.name}: {len(content)} bytes")
    lines = (f"{json.dumps(name)}: {json.dumps(facts[name])}" for name in sorted(facts))
    (folder / FACTS).write_text("{\n" + ",\n".join(lines) + "\n}\n")  # a line a file


if __name__ == "__main__":
    main()
