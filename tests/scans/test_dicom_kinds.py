"""DICOM files without a preamble, packed, and folders of several volumes; drawn here."""

import gzip
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pydicom.pixels", reason="needs pydicom 3, the extra dicom")
from drawn_dicom import SERIES, dataset_of, drawn, write_file, write_series
from pydicom.uid import ImplicitVRLittleEndian

from oasisvq.errors import ImageError
from oasisvq.folders import PassedOver
from oasisvq.scans.dicom import is_dicom, read_dicom
from oasisvq.scans.scan import read_scan, volumes_in
from oasisvq.scans.source import Source, SourceKind, source_at, sources_below


def voxels_of(path: Path, volume: int | None = None) -> np.ndarray:
    source = source_at(path)
    return read_scan(Source(path, source.kind, source.files, source.is_series, volume)).voxels


@pytest.mark.parametrize("name", ["a.dcm", "IM0001"])
@pytest.mark.parametrize("kind", ["meta", "explicit", "implicit"])
def test_dicom_without_a_preamble_is_read(tmp_path: Path, name: str, kind: str) -> None:
    path, pixels = tmp_path / name, drawn()
    if kind == "meta":
        path.write_bytes(write_file(path).read_bytes()[132:])
    else:
        dataset = dataset_of(pixels)
        if kind == "implicit":
            dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
        del dataset.file_meta
        dataset.save_as(path, implicit_vr=kind == "implicit", little_endian=True)
    assert path.read_bytes()[128:132] != b"DICM"
    assert is_dicom(path)
    assert source_at(path).kind is SourceKind.DICOM
    np.testing.assert_array_equal(voxels_of(path)[..., 0], pixels.T)


def test_a_folder_of_files_without_preamble_or_ending_is_a_series(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "in", [0, 3, 6])
    for path in list(folder.iterdir()):
        path.with_suffix("").write_bytes(path.read_bytes()[132:])
        path.unlink()
    (source,) = sources_below(tmp_path, PassedOver())
    assert (source.path, len(source.files), source.is_series) == (folder, 3, True)
    assert read_scan(source).voxels.shape == (5, 6, 3)


def test_packed_dicom_is_read(tmp_path: Path) -> None:
    plain = write_file(tmp_path / "a.dcm")
    (tmp_path / "b.dcm.gz").write_bytes(gzip.compress(plain.read_bytes()))
    source = source_at(tmp_path / "b.dcm.gz")
    assert (source.kind, source.name) == (SourceKind.DICOM, "b")
    np.testing.assert_array_equal(voxels_of(source.path), voxels_of(plain))


@pytest.mark.parametrize(
    "content", [b"\x1f\x8bno gzip", gzip.compress(b"no DICOM" * 40)], ids=["gzip", "dicom"]
)
def test_packed_bytes_that_are_no_dicom(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "b.dcm.gz").write_bytes(content)
    with pytest.raises(ImageError, match=r"b\.dcm\.gz: (?:a damaged or truncated|no) DICOM file"):
        read_dicom(tmp_path / "b.dcm.gz", [tmp_path / "b.dcm.gz"])


@pytest.mark.parametrize("start", [b"\x08\0\x05\0PK\3\4" + bytes(200), b"\2\0\1\0\xff\xff\xff\xff" * 30])
def test_other_bytes_are_not_taken_for_dicom(tmp_path: Path, start: bytes) -> None:
    (tmp_path / "data").write_bytes(start)
    assert not is_dicom(tmp_path / "data")


def test_a_file_without_an_image_says_so_with_a_way_out(tmp_path: Path) -> None:
    (tmp_path / "x.dcm").write_bytes(b"\x08\0\x05\0CS\x0a\0ISO_IR 100" + bytes(200))
    with pytest.raises(ImageError, match=r"a DICOM file with no image.*leave it out, or convert"):
        read_scan(source_at(tmp_path / "x.dcm"))


def several_series(folder: Path) -> Path:
    write_series(folder, [0, 3, 6])
    for place in range(2):
        position = [-10, 20, 3 * place]
        write_file(
            folder / f"other{place}.dcm",
            drawn(seed=10 + place),
            ImagePositionPatient=position,
            SeriesInstanceUID=SERIES + ".9",
        )
    return folder


def time_points(folder: Path) -> Path:
    folder.mkdir()
    for number in range(6):  # three places, two times
        write_file(
            folder / f"{number}.dcm",
            drawn(seed=number),
            ImagePositionPatient=[-10, 20, 3 * (number % 3)],
            InstanceNumber=number + 1,
        )
    return folder


def test_several_series_of_a_folder_are_listed_and_each_can_be_read(tmp_path: Path) -> None:
    folder = several_series(tmp_path / "in")
    assert volumes_in(source_at(folder)) == 2
    with pytest.raises(
        ImageError, match=r"2 volumes \(0: 3 such as 1\.dcm, 1: 2 such as other0\.dcm\).*--volume all"
    ):
        voxels_of(folder)
    assert voxels_of(folder, 0).shape == (5, 6, 3)
    np.testing.assert_array_equal(voxels_of(folder, 1)[..., 1], drawn(seed=11).T)
    with pytest.raises(ImageError, match="there is no volume 2; it holds volumes 0 to 1"):
        voxels_of(folder, 2)


def test_time_points_of_a_series_are_listed_and_each_can_be_read(tmp_path: Path) -> None:
    folder = time_points(tmp_path / "in")
    assert volumes_in(source_at(folder)) == 2
    for time in range(2):
        found = voxels_of(folder, time)
        for place in range(3):
            np.testing.assert_array_equal(found[..., place], drawn(seed=3 * time + place).T)


def test_a_series_with_one_slice_twice_is_still_refused(tmp_path: Path) -> None:
    folder = time_points(tmp_path / "in")
    (folder / "5.dcm").unlink()
    with pytest.raises(ImageError, match="lie at the same place"):
        voxels_of(folder)
