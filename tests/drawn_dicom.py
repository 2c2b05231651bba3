"""DICOM files of drawn pixels."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from oasisvq.scans.dicom import dicom_files_in, read_dicom
from oasisvq.scans.voxel_streams import Volume

MR_STORAGE = "1.2.840.10008.5.1.4.1.1.4"
SERIES = "1.2.826.0.1.3680043.8.498.1"
AXIAL = [1, 0, 0, 0, 1, 0]


def drawn(rows: int = 6, columns: int = 5, seed: int = 0, dtype: Any = np.uint16) -> NDArray[Any]:
    limits = np.iinfo(dtype)
    rng = np.random.default_rng(seed)
    return rng.integers(limits.min, limits.max, (rows, columns), dtype, endpoint=True)


def dataset_of(pixels: NDArray[Any], **attributes: Any) -> Dataset:
    """A DICOM data set of (rows, columns) pixels; an attribute of None is left out."""
    bits = pixels.dtype.itemsize * 8
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = MR_STORAGE
    dataset.file_meta.MediaStorageSOPInstanceUID = SERIES + ".1"
    given = {
        "SOPClassUID": MR_STORAGE,
        "SOPInstanceUID": SERIES + ".1",
        "SeriesInstanceUID": SERIES,
        "ImagePositionPatient": [-10, 20, 30],
        "ImageOrientationPatient": AXIAL,
        "PixelSpacing": [1.5, 0.75],  # between rows, between columns
        "SliceThickness": 2.5,
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": pixels.shape[-2],
        "Columns": pixels.shape[-1],
        "BitsAllocated": bits,
        "BitsStored": bits,
        "HighBit": bits - 1,
        "PixelRepresentation": int(pixels.dtype.kind == "i"),
        "PixelData": pixels.tobytes(),
        **attributes,
    }
    for keyword, value in given.items():
        if value is not None:
            setattr(dataset, keyword, value)
    if "PixelData" in dataset:
        dataset["PixelData"].VR = "OW"
    return dataset


def write(path: Path, dataset: Dataset) -> Path:
    dataset.save_as(path, enforce_file_format=True)
    return path


def write_file(path: Path, pixels: NDArray[Any] | None = None, **attributes: Any) -> Path:
    return write(path, dataset_of(drawn() if pixels is None else pixels, **attributes))


def write_series(folder: Path, heights: list[float], **attributes: Any) -> Path:
    """Axial slices at these heights, named against their order."""
    folder.mkdir(exist_ok=True)
    for place, height in enumerate(heights):
        name = f"{len(heights) - place}.dcm"
        pixels, position = drawn(seed=place), [-10, 20, height]
        write_file(folder / name, pixels, ImagePositionPatient=position, **attributes)
    return folder


def patched(path: Path, old: bytes, new: bytes) -> Path:
    content = path.read_bytes()
    assert content.count(old) == 1
    assert len(old) == len(new)
    path.write_bytes(content.replace(old, new))
    return path


def in_patient(affine: NDArray[Any], index: tuple[int, int, int]) -> NDArray[Any]:
    """Where a voxel lies, in DICOM's millimetres to the left, back and top."""
    right, front, top, _ = affine @ (*index, 1)
    return np.array([-right, -front, top])


def read(path: Path) -> Volume:
    """What a file, or the series of a folder, is read to."""
    return read_dicom(path, dicom_files_in(path) if path.is_dir() else [path])
