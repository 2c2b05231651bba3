"""What fuzzing starts from: small drawn files of every kind. Never imports torch."""

import dataclasses
import gzip
import io
import tempfile
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from nibabel.nifti1 import Nifti1Header, Nifti1PairHeader
from nibabel.nifti2 import Nifti2Header, Nifti2PairHeader
from nibabel.spm2analyze import Spm2AnalyzeHeader
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin
from pydicom.dataset import Dataset as DicomDataset
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
)

from oasisvq.codec import container
from oasisvq.codec.config import ModelConfig
from oasisvq.codec.entropy import GridEncoder, pack
from oasisvq.codec.frequencies import FREQUENCY_BITS, Frequencies, Indices
from oasisvq.codec.headers import (
    FINGERPRINT_BYTES,
    Coder,
    CodesHeader,
    SampleType,
    header_of,
    slice_ranges,
)
from oasisvq.codec.labels import encode_labels
from oasisvq.codec.modelfile import ModelFile, write_model
from oasisvq.codec.networks import network_shapes
from oasisvq.codec.pixels import Box, Window
from oasisvq.codec.prior import Pass, Prior, PriorConfig
from oasisvq.codec.quantizer import CODEBOOKS
from oasisvq.codec.recall import Recall
from oasisvq.codec.residue import BinLimits, SliceWriter
from oasisvq.codec.residue_config import ResidueConfig
from oasisvq.codec.residue_networks import ResidueNetwork
from oasisvq.data.dataset import Dataset, SliceRecord, Split, VolumeRecord, manifest_bytes
from oasisvq.data.layouts import Images
from oasisvq.data.recipe import Recipe, Slices
from oasisvq.scans.scan import Scan, as_scan, scan_of_stack
from oasisvq.scans.stacks import StackNames

CONFIG = ModelConfig(
    window=(8, 8),
    stride=4,
    encoder_channels=(2,),
    encoder_blocks=(1,),
    decoder_channels=(2,),
    decoder_blocks=(1,),
    code_dim=2,
    codebook_size=5,
    levels=2,
    default_levels=1,
)
PRIOR_CONFIG = PriorConfig(
    codebook_size=5,
    grid=(2, 2),
    code_dim=2,
    features=2,
    position_features=1,
    kinds=2,
    kind_features=1,
    hidden=(4, 3),
    blocks=(1, 0),
    reach=(1, 0),
    passes=(2, 1),
)
DICOM_SERIES = "1.2.826.0.1.3680043.8.498.1"
MR_STORAGE = "1.2.840.10008.5.1.4.1.1.4"


@cache
def prior() -> Prior:
    """A prior with random weights."""
    rng, config = np.random.default_rng(5), PRIOR_CONFIG
    shapes = config.kind_shapes() | {
        f"level{level + 1}.{name}": shape
        for level in range(config.levels)
        for name, shape in config.array_shapes(level).items()
    }
    arrays: dict[str, NDArray[Any]] = {}
    for name, (shape, dtype) in shapes.items():
        low, high = (2**21, 2**22) if name.endswith("scale") else (-60, 60)
        arrays[name] = rng.integers(low, high, shape).astype(dtype)
    first = 2**22
    last = 2**FREQUENCY_BITS - config.kinds - first
    return Prior(config, arrays | {"kinds.frequency": np.array([first, last], np.int32)})


@cache
def codec_arrays() -> dict[str, NDArray[Any]]:
    """Of the codec that the prior belongs to: a network with blocks, random weights and codebooks."""
    rng = np.random.default_rng(6)
    arrays: dict[str, NDArray[Any]] = {}
    for name, (shape, dtype) in network_shapes(CONFIG).items():
        low, high = (2**16, 2**18) if name.endswith("scale") else (-60, 60)
        arrays[name] = rng.integers(low, high, shape).astype(dtype)
        if name.endswith(".table"):
            arrays[name] = np.array([-3000, 3000, 1024, 100 * 256], np.int32)
        elif name.endswith(".scaling"):
            arrays[name] = np.array([2**25, 500], np.int32)
    shape = CONFIG.levels, CONFIG.codebook_size, CONFIG.code_dim
    return arrays | {CODEBOOKS: np.rint(256 * rng.normal(0, 1, shape)).astype(np.int16)}


def codebooks() -> NDArray[np.float32]:
    """(L, K, D) of the codec that the prior belongs to."""
    return codec_arrays()[CODEBOOKS].astype(np.float32)


class Case(NamedTuple):
    """A header and payloads that fit it."""

    header: CodesHeader
    payloads: list[bytes]


def _plane(height: int, width: int, dtype: str = "u1") -> NDArray[Any]:
    plane = np.random.default_rng(height * width).integers(1, 200, (height, width)).astype(dtype)
    plane[0] = 0
    return plane


def _voxels(dtype: str = "i2", shape: tuple[int, int, int] = (4, 5, 3)) -> NDArray[Any]:
    voxels = np.random.default_rng(1).integers(1, 100, shape).astype(dtype)
    voxels[:, 0] = 0
    voxels[:, :, 1] = 0  # a slice that has no indices
    return voxels


def _of_model(scan: Scan, coder: Coder, levels: int) -> Case:
    rng = np.random.default_rng(levels)
    header = header_of(
        scan,
        coder,
        stride=CONFIG.stride,
        window=Window(0, 0, 1, 2),
        levels=levels,
        codebook_size=CONFIG.codebook_size,
        intensity=scan.intensity,
        fingerprint=bytes(range(FINGERPRINT_BYTES)),
        ranges=slice_ranges(scan.planes, scan.intensity) if scan.placement else (),
    )
    shape = len(header.coded_slices), *header.grid_shape
    payloads = []
    for indices in (np.zeros(shape, np.uint16), rng.integers(0, 5, shape).astype(np.uint16)):
        if coder is Coder.PACKED:
            payloads.append(pack(indices, CONFIG.codebook_size))
            continue
        encoder = GridEncoder(prior(), header.grid_shape, Recall(codebooks()) if header.volume else None)
        for grid in indices:
            encoder.put(int(rng.integers(2)), _given(grid))
        payloads.append(encoder.finish())
    return Case(header, payloads)


def _given(grid: Indices) -> Any:
    def choose(step: Pass, _: Frequencies) -> Indices:
        chosen: Indices = grid[step.level, step.rows, step.columns]
        return chosen

    return choose


def _of_labels(scan: Scan, labels: tuple[int, ...]) -> Case:
    header = header_of(scan, Coder.LABELS, labels=labels)
    rng = np.random.default_rng(len(labels))
    shape = header.slices, *header.shape
    maps = [np.zeros(shape, np.uint16), rng.integers(0, len(labels), shape).astype(np.uint16)]
    maps.append(np.sort(maps[1], axis=2))
    return Case(header, [encode_labels(each, len(labels)) for each in maps])


@cache
def cases() -> list[Case]:
    """Small images, volumes and label maps in every way that they are coded."""
    image, volume = as_scan(_plane(3, 7)), as_scan(_voxels())
    stack = scan_of_stack(_voxels("u1", (4, 3, 5)), StackNames("c_", ".png", 2, (3, 4, 6, 10)))
    return [
        _of_model(image, Coder.PACKED, 2),
        _of_model(volume, Coder.PACKED, 1),
        _of_model(image, Coder.PRIOR, 1),
        _of_model(image, Coder.PRIOR, 2),
        _of_model(volume, Coder.PRIOR, 2),
        _of_labels(as_scan(_plane(3, 3, "u2")), (0, 85, 170, 300)),
        _of_labels(as_scan(_voxels("i4", (2, 2, 2))), (-5, 0, 1, 2, 70_000)),
        _of_model(stack, Coder.PRIOR, 1),
    ]


GOLDEN = Path(__file__).parents[2] / "golden"


def codes_files() -> list[bytes]:
    """The cases as files, one of labels that a model codes, and the small ones of the golden files."""
    files = [container.write(case.header, payload) for case in cases() for payload in case.payloads]
    lossy = dataclasses.replace(cases()[0].header, labels=(0, 9, 10), intensity=(0, 2))
    files.append(container.write(lossy, cases()[0].payloads[0]))
    wide = dataclasses.replace(cases()[5].header, sample_type=SampleType.UINT8, labels=(7,))
    files.append(container.write(wide, b""))
    golden = sorted(GOLDEN.glob("version*/*.codes"))
    return files + [path.read_bytes() for path in golden if path.stat().st_size < 600]


def payloads() -> list[bytes]:
    """The number of a case, and a payload for it."""
    return [bytes((number,)) + each for number, case in enumerate(cases()) for each in case.payloads]


@cache
def residue() -> ResidueNetwork:
    """A tiny network of residues."""
    config = ResidueConfig((1, 1, 1), 0, 1, 3, 1, 1)
    rng = np.random.default_rng(6)
    arrays: dict[str, NDArray[Any]] = {}
    for name, (shape, dtype) in config.array_shapes().items():
        arrays[name] = rng.integers(-60, 61, shape).astype(dtype)
        if name.endswith(".scale"):
            arrays[name] = np.full(shape, 2**18, dtype)
    return ResidueNetwork(config, arrays)


class ResidueCase(NamedTuple):
    """Slices whose bins are coded: where they have some, and between what limits."""

    supports: list[NDArray[np.bool_]]
    limits: BinLimits

    def payload(self, slices: list[NDArray[np.int64]]) -> bytes:
        """Their bins, coded."""
        writer = SliceWriter(residue(), self.supports[0].shape, self.limits)
        for bins, support in zip(slices, self.supports, strict=True):
            writer.put(bins, support, None)
        return writer.finish()


@cache
def residue_cases() -> list[ResidueCase]:
    """Narrow bins, wide ones, and bins on both sides of the ground."""
    supports = list(np.random.default_rng(8).random((2, 6, 5)) < 0.8)
    limits = BinLimits(1, 9), BinLimits(-(2**30), 2**40), BinLimits(-300, 70_000)
    return [ResidueCase(supports, each) for each in limits]


def bins() -> list[bytes]:
    """The number of a case, and a payload for it."""
    rng, files = np.random.default_rng(9), []
    for number, case in enumerate(residue_cases()):
        drawn = rng.integers(1, case.limits.high + 1, (len(case.supports), 6, 5))
        slices = [each * support for each, support in zip(drawn, case.supports, strict=True)]
        files.append(bytes((number,)) + case.payload(slices))
    return files


def model_files() -> list[bytes]:
    """With and without a prior, a network of residues and a card."""
    files = []
    for prior_of_it, residue_of_it, card in (
        (None, None, {}),
        (prior(), None, {"images": "scans"}),
        (None, residue(), {}),
    ):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "seed.safetensors"
            write_model(ModelFile(CONFIG, codec_arrays(), prior_of_it, card, residue_of_it), path)
            content = path.read_bytes()
        files.append(content)
    return files


def manifests() -> list[bytes]:
    """Of slices, and of slices of volumes; each followed by a 0 and the array of its training split."""
    array = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    stream = io.BytesIO()
    np.save(stream, array)
    records = tuple(SliceRecord("1", f"a/{n}.png", 40, (3, 4), n) for n in range(2))
    other = (SliceRecord("2", "b/0.png", 41, (5, 6), 0),)
    splits = {
        "train": Split(records, "0" * 64, Box(0, 0, 3, 3)),
        "validation": Split(other, "1" * 64, Box(1, 0, 2, 3)),
    }
    plain = Dataset(Path(), "uq", "raw", Images.SCANS, 3, splits)
    volumes = (
        VolumeRecord("a.nii.gz", "s1", "T1w", "LAS", (1.0, 1.25, 1.0), (0.5, 900.0)),
        VolumeRecord("b.nii.gz", "s2", "", "", (), None),
    )
    recipe = Recipe("oasis1", "t88", None, Slices(0, (60, 130)), (0.5, 99.5), (80.0, 10.0, 10.0), 3)
    full = dataclasses.replace(plain, recipe=recipe, volumes=volumes, labels=((0, 0), (3, 255)))
    return [manifest_bytes(each) + b"\0" + stream.getvalue() for each in (plain, full)]


def image_files() -> list[bytes]:
    """Of every format and mode that is read."""
    grey, deep = _plane(5, 6), _plane(5, 6, "u2") * 300
    texts = PngImagePlugin.PngInfo()
    texts.add_text("Comment", "drawn", zip=True)
    kinds: list[tuple[Any, dict[str, Any]]] = [
        (grey, {"format": "PNG"}),
        (grey, {"format": "PNG", "pnginfo": texts, "dpi": (72, 72)}),
        (deep, {"format": "PNG"}),
        (Image.fromarray(grey).convert("RGB"), {"format": "PNG"}),
        (Image.fromarray(grey).convert("P"), {"format": "PNG"}),
        (Image.fromarray(grey > 99), {"format": "PNG"}),
        (Image.fromarray(grey).convert("LA"), {"format": "PNG"}),
        (grey, {"format": "JPEG", "quality": 50}),
        (grey, {"format": "TIFF"}),
        (deep, {"format": "TIFF", "compression": "tiff_lzw"}),
        (grey, {"format": "TIFF", "compression": "tiff_adobe_deflate"}),
        (Image.fromarray(grey).convert("RGB"), {"format": "WEBP", "lossless": True}),
    ]
    files = []
    for source, options in kinds:
        stream = io.BytesIO()
        image = source if isinstance(source, Image.Image) else Image.fromarray(source)
        image.save(stream, **options)
        files.append(stream.getvalue())
    return files


VOLUME_FORMS = (".nii", ".nii.gz", ".hdr")


def volume_files() -> list[bytes]:
    """The place of an ending in `VOLUME_FORMS`, and a file; of a pair the two files in a row."""
    voxels = _voxels(shape=(2, 3, 2))
    files = []
    for kind in (Nifti1Header, Nifti1PairHeader, Nifti2Header, Nifti2PairHeader, Spm2AnalyzeHeader):
        for dtype, order in (("i2", "<"), ("u1", ">"), ("f4", "<"), ("f8", ">")):
            if kind is Spm2AnalyzeHeader and dtype == "f8":
                continue
            header = kind(endianness=order)
            header.set_data_shape(voxels.shape)
            header.set_data_dtype(dtype)
            header.set_zooms((1, 1.5, 2))
            is_single = kind in (Nifti1Header, Nifti2Header)
            if kind is not Spm2AnalyzeHeader:
                header.set_sform(np.diag([-1, 1.5, 2, 1]), code=1)
                header.set_qform(np.diag([-1, 1.5, 2, 1]), code=1)
                header.set_slope_inter(0.5, -3)
            if is_single:
                header["vox_offset"] = len(header.binaryblock) + 4
            body = voxels.astype(np.dtype(dtype).newbyteorder(order)).tobytes(order="F")
            content = header.binaryblock + bytes(4 * is_single) + body
            files.append(bytes((0 if is_single else 2,)) + content)
    return [*files, b"\1" + gzip.compress(files[0][1:], mtime=0)]


def dicom_files() -> list[bytes]:
    """Of every transfer syntax and kind that is read here."""
    grey, deep = _plane(4, 4), _plane(4, 4, "u2")
    files = []
    for syntax in (ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian):
        dataset = _dicom(deep, syntax)
        dataset.PixelData = deep.astype(">u2" if syntax == ExplicitVRBigEndian else "<u2").tobytes()
        files.append(_dicom_bytes(dataset))
    files.append(_dicom_bytes(_dicom(grey, ExplicitVRLittleEndian)))
    for syntax, name in ((JPEGBaseline8Bit, "JPEG"), (JPEG2000Lossless, "JPEG2000")):
        stream = io.BytesIO()
        Image.fromarray(grey).save(stream, name, **({"no_jp2": True} if name == "JPEG2000" else {}))
        dataset = _dicom(grey, syntax)
        dataset.PixelData = encapsulate([stream.getvalue()])
        files.append(_dicom_bytes(dataset))
    for syntax in (RLELossless, JPEGLSLossless):
        dataset = _dicom(deep, ExplicitVRLittleEndian)
        dataset.compress(syntax, generate_instance_uid=False)
        files.append(_dicom_bytes(dataset))
    return [*files, _dicom_bytes(_enhanced(grey))]


def _dicom(pixels: NDArray[Any], syntax: str) -> DicomDataset:
    bits = pixels.dtype.itemsize * 8
    dataset = DicomDataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.file_meta.MediaStorageSOPClassUID = MR_STORAGE
    dataset.file_meta.MediaStorageSOPInstanceUID = DICOM_SERIES + ".1"
    for keyword, value in {
        "SOPClassUID": MR_STORAGE,
        "SOPInstanceUID": DICOM_SERIES + ".1",
        "SeriesInstanceUID": DICOM_SERIES,
        "SliceThickness": "2.5",
        "ImagePositionPatient": ["-10", "20", "30"],
        "ImageOrientationPatient": ["1", "0", "0", "0", "1", "0"],
        "PixelSpacing": ["1.5", "0.75"],
        "RescaleSlope": "2",
        "RescaleIntercept": "-3",
        "InstanceNumber": "1",
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": pixels.shape[-2],
        "Columns": pixels.shape[-1],
        "BitsAllocated": bits,
        "BitsStored": bits,
        "HighBit": bits - 1,
        "PixelRepresentation": 0,
        "PixelData": pixels.tobytes(),
    }.items():
        setattr(dataset, keyword, value)
    dataset["PixelData"].VR = "OB" if bits == 8 else "OW"
    return dataset


def _enhanced(plane: NDArray[Any]) -> DicomDataset:
    dataset = _dicom(plane, ExplicitVRLittleEndian)
    groups = []
    for frame in range(2):
        position, group = DicomDataset(), DicomDataset()
        position.ImagePositionPatient = ["0", "0", str(3 * frame)]
        group.PlanePositionSequence = [position]
        groups.append(group)
    orientation, measures, shared = DicomDataset(), DicomDataset(), DicomDataset()
    orientation.ImageOrientationPatient = dataset.ImageOrientationPatient
    measures.PixelSpacing = dataset.PixelSpacing
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = [orientation], [measures]
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
        del dataset[keyword]
    dataset.NumberOfFrames = "2"
    dataset.PerFrameFunctionalGroupsSequence = groups
    dataset.SharedFunctionalGroupsSequence = [shared]
    dataset.PixelData = plane.tobytes() * 2
    return dataset


def _dicom_bytes(dataset: DicomDataset) -> bytes:
    if dataset.file_meta.TransferSyntaxUID.is_encapsulated:
        dataset["PixelData"].VR = "OB"
        dataset["PixelData"].is_undefined_length = True
    stream = io.BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()
