"""One DICOM file -> its slices: where they lie, then their pixels. Never imports torch.

pydicom, the extra `dicom`, is imported only when a file is read. Only the attributes in `_HEADER` and
the pixels are ever read, so no name, date or UID can reach a volume; the UID of the series only serves
to tell series apart. What the format can express and a volume cannot (colours, 0 for white, mosaics) is
refused rather than guessed.
"""

import gzip
import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from oasisvq.errors import FileError, ImageError
from oasisvq.files import require_file
from oasisvq.scans.limits import MAX_FILE_BYTES, MAX_VOXELS, refuse_large_image, refuse_large_volume

if TYPE_CHECKING:
    from pydicom import Dataset

CONVERT = "convert it first (such as with `dcm2niix`)"
_DEFLATED = "1.2.840.10008.1.2.1.99"
_FIRST_GROUPS = (b"\2\0", b"\x08\0")
_TYPES = (b"UL", b"CS", b"UI", b"OB", b"SH", b"LO", b"DA")  # of attributes that files begin with
_SHORTEST, _LONGEST_FIRST = 16, 256  # least bytes of a file, most bytes of its first attribute
_GROUPS = ("PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence")
_MACROS = (
    "PlanePositionSequence",
    "PlaneOrientationSequence",
    "PixelMeasuresSequence",
    "PixelValueTransformationSequence",
)
_PIXEL_FORMAT = (
    *("Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"),
)
_HEADER = (
    *("ImageType", "SeriesInstanceUID", "InstanceNumber", "SliceThickness", "SpacingBetweenSlices"),
    *("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"),
    *("RescaleSlope", "RescaleIntercept"),
    *_PIXEL_FORMAT,
    *_GROUPS,
)
_LARGEST, _SMALLEST = 1e9, 1e-9  # of numbers that stay apart from 0 in float32, which NIfTI stores
_MAX_FRAME_SHARE = 2  # bytes of a compressed image per byte unpacked, without its headers
_MAX_FRAME_HEADERS = 2**16
_FRAME_HEADERS = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}  # JPEG and JPEG-LS: SOF0.., SOF55


@dataclass(frozen=True)
class DicomSlice:
    """Where one image lies, before its pixels are read.

    Attributes:
        path: its file.
        frame: its place in the file.
        series: the UID of its series.
        number: its InstanceNumber.
        position: (3,) of its first pixel's centre, in millimetres to the left, back and top.
        thickness: millimetres to the next slice, for use if there is no next slice to measure.
        alike: what all slices of a volume have in common, by name.
    """

    path: Path
    frame: int
    series: str
    number: tuple[float, ...]
    position: NDArray[np.float64] | None
    thickness: float
    alike: dict[str, tuple[float, ...]]

    @property
    def size(self) -> tuple[int, int]:
        """Columns and rows."""
        columns, rows = self.alike["size"]
        return int(columns), int(rows)

    @property
    def axes(self) -> NDArray[np.float64]:
        """(3, 2) directions in which columns and rows are counted."""
        return np.array(self.alike["orientation"]).reshape(2, 3).T

    @property
    def normal(self) -> NDArray[np.float64]:
        """(3,) direction in which slices are counted."""
        return np.cross(self.axes[:, 0], self.axes[:, 1])

    @property
    def label(self) -> str:
        """Its file, and which of several images in it."""
        return f"{self.path.name} frame {self.frame + 1}" if self.frame else self.path.name


def has_magic(path: Path) -> bool:
    """Whether this is a DICOM file by its first bytes; raises an OSError if it cannot be opened.

    Files without the preamble, as old scanners write them, begin with an attribute of the lowest groups,
    in little-endian, that has a type or a short length.
    """
    with path.open("rb") as stream:
        start = stream.read(132)
    return start[128:] == b"DICM" or _is_bare(start)


def _is_bare(start: bytes) -> bool:
    """Whether bytes begin with an attribute of group 2 or 8 rather than with a preamble."""
    if len(start) < _SHORTEST or start[:2] not in _FIRST_GROUPS:
        return False
    has_type = start[4:6] in _TYPES
    return has_type or int.from_bytes(start[4:8], "little") <= _LONGEST_FIRST


def _content(path: Path) -> "Path | io.BytesIO":
    """A file as pydicom takes it: unpacked, if it is gzip.

    Raises:
        ImageError: it unpacks to more than the limit.
    """
    with path.open("rb") as stream:
        if stream.read(2) != b"\x1f\x8b":
            return path
    with gzip.open(path) as packed:
        content = packed.read(MAX_FILE_BYTES + 1)
    if len(content) > MAX_FILE_BYTES:
        raise ImageError(f"unpacks to more than {MAX_FILE_BYTES:,} bytes, the limit for such a file")
    return io.BytesIO(content)


def read_slices(path: Path, max_pixels: int) -> list[DicomSlice]:
    """The slices of a file by its headers.

    Raises:
        FileError: the file is missing or unreadable.
        ImageError: it is damaged, too large, or of a kind that is not read.
    """
    require_file(path)
    size = path.stat().st_size
    if size == 0:
        raise ImageError(f"{path}: an empty file, expected DICOM")
    if size > MAX_FILE_BYTES:
        raise ImageError(f"{path}: has more than {MAX_FILE_BYTES:,} bytes, the limit for such a file")
    with _reading(path):
        dataset = _read_dataset(path, _HEADER)
        _refuse_unusable(dataset, max_pixels)
        _require_decoder(dataset)
        frames = int(_one(dataset, "NumberOfFrames", 1))
        if frames != 1 and len(dataset.get(_GROUPS[0]) or ()) != frames:
            raise ImageError(f"{frames} frames without positions of their own; {CONVERT}")
        return [_slice(path, dataset, frame) for frame in range(frames)]


def read_planes(slices: Sequence[DicomSlice]) -> Iterator[NDArray[np.generic]]:
    """The pixels (rows, columns) of each slice; a file is opened once for successive slices in it.

    Raises:
        FileError: a file is unreadable.
        ImageError: pixels are damaged, or their size is not what the headers said.
    """
    dataset, opened = None, None
    for each in slices:
        with _reading(each.path):
            if dataset is None or each.path != opened:
                dataset, opened = _read_dataset(each.path, (*_PIXEL_FORMAT, "PixelData")), each.path
            plane = _plane(dataset, each)
        yield plane


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Name the file in errors of ours and of pydicom, whose warnings concern what is not read."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except ImageError as error:
            raise ImageError(f"{path}: {error}") from error
        # pydicom parses values lazily, and hands pixels to decoders of other packages: for bytes that
        # make no sense they raise exceptions of any kind, listed nowhere. Their messages may quote the
        # file, so they are not shown.
        except Exception as error:
            if isinstance(error, OSError) and error.errno:
                raise FileError(f"{path}: cannot be read: {error.strerror}") from error
            kind = type(error).__name__
            raise ImageError(
                f"{path}: a damaged or truncated DICOM file ({kind}); get a whole copy"
            ) from error


def _read_dataset(path: Path, keywords: Sequence[str]) -> "Dataset":
    """These attributes of a file."""
    from pydicom import dcmread

    content = _content(path)
    start = _start(content)
    is_bare = _is_bare(start)
    if start[128:] != b"DICM" and not is_bare:
        raise ImageError("no DICOM file: its bytes 128 to 131 are not DICM")
    if not is_bare:
        syntax = _syntax_of(content)
        if not syntax:
            raise ImageError("a damaged DICOM file: TransferSyntaxUID is missing")
        if syntax == _DEFLATED:  # pydicom would inflate all of it, however large it is
            raise ImageError(f"a deflated DICOM file, which is not read; {CONVERT}")
    if not isinstance(content, Path):
        content.seek(0)
    without_pixels = "PixelData" not in keywords
    dataset = dcmread(
        content, force=is_bare, specific_tags=list(keywords), stop_before_pixels=without_pixels
    )
    if is_bare:
        _complete(dataset)
    return dataset


def _syntax_of(content: "Path | io.BytesIO") -> str | None:
    """The transfer syntax that the preamble's group names."""
    from pydicom.filereader import read_partial

    if isinstance(content, Path):
        with content.open("rb") as stream:
            found = read_partial(stream, stop_when=lambda tag, *_: tag.group > 2)
    else:
        found = read_partial(content, stop_when=lambda tag, *_: tag.group > 2)
    syntax: str | None = found.file_meta.get("TransferSyntaxUID")
    return syntax


def _start(content: "Path | io.BytesIO") -> bytes:
    if isinstance(content, Path):
        with content.open("rb") as stream:
            return stream.read(132)
    return content.getvalue()[:132]


def _complete(dataset: "Dataset") -> None:
    """Give a file without a preamble the transfer syntax that its first attributes show."""
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

    meta = getattr(dataset, "file_meta", None)
    dataset.file_meta = meta if meta is not None else FileMetaDataset()
    if "TransferSyntaxUID" in dataset.file_meta:
        if dataset.file_meta.TransferSyntaxUID == _DEFLATED:
            raise ImageError(f"a deflated DICOM file, which is not read; {CONVERT}")
        return
    is_implicit = dataset.original_encoding[0]
    dataset.file_meta.TransferSyntaxUID = (
        ImplicitVRLittleEndian if is_implicit else ExplicitVRLittleEndian
    )


def _slice(path: Path, dataset: "Dataset", frame: int) -> DicomSlice:
    # an enhanced file has one group of attributes for each frame, and one for all frames
    groups = [
        sequence[frame if keyword == _GROUPS[0] else 0]
        for keyword in _GROUPS
        if (sequence := dataset.get(keyword))
    ]
    places = [*(group[macro][0] for group in groups for macro in _MACROS if group.get(macro)), dataset]
    position = _numbers(places, "ImagePositionPatient", 3)
    orientation = _numbers(places, "ImageOrientationPatient", 6)
    spacing = _numbers(places, "PixelSpacing", 2)
    thickness = _numbers(places, "SpacingBetweenSlices", 1) or _numbers(places, "SliceThickness", 1)
    slope = _numbers(places, "RescaleSlope", 1) or (1.0,)
    is_placed = bool(position and orientation and spacing)
    axes = np.array(orientation).reshape(-1, 3)
    if is_placed and not np.allclose(axes @ axes.T, np.eye(2), rtol=0, atol=0.01):
        raise ImageError("a damaged DICOM file: ImageOrientationPatient is no pair of right-angled axes")
    if any(each < _SMALLEST for each in (*spacing, abs(slope[0]))):
        raise ImageError("a damaged DICOM file: a PixelSpacing or RescaleSlope of 0")
    return DicomSlice(
        path=path,
        frame=frame,
        series=str(dataset.get("SeriesInstanceUID")),
        number=_numbers(places, "InstanceNumber", 1),
        position=np.array(position) if is_placed else None,
        thickness=abs(thickness[0]) if thickness and abs(thickness[0]) > _SMALLEST else 1.0,
        alike={
            "size": (_one(dataset, "Columns"), _one(dataset, "Rows")),
            "bits": (_one(dataset, "BitsAllocated"), _one(dataset, "PixelRepresentation")),
            "orientation": orientation if is_placed else (),
            "pixel spacing": spacing,
            "slope": slope,
            "intercept": _numbers(places, "RescaleIntercept", 1) or (0.0,),
        },
    )


def _numbers(places: Sequence["Dataset"], keyword: str, count: int) -> tuple[float, ...]:
    """The numbers of an attribute, from the first place that has it; empty if no place does."""
    found: Any = next((value for place in places if (value := place.get(keyword)) not in (None, "")), ())
    numbers = tuple(float(each) for each in (found if isinstance(found, Sequence) else (found,)))
    if numbers and (len(numbers) != count or not all(abs(each) < _LARGEST for each in numbers)):
        raise ImageError(f"a damaged DICOM file: {keyword} is not {count} finite numbers")
    return numbers


def _one(dataset: "Dataset", keyword: str, default: float | None = None) -> float:
    numbers = _numbers([dataset], keyword, 1)
    if not numbers and default is None:
        raise ImageError(
            f"a DICOM file with no image, or not all of it: {keyword} is missing; leave it out, or "
            f"{CONVERT}"
        )
    return numbers[0] if numbers or default is None else default


def _refuse_unusable(dataset: "Dataset", max_pixels: int) -> None:
    """Raise unless the file holds grey levels whose 0 is black, within the limits."""
    rows, columns = int(_one(dataset, "Rows")), int(_one(dataset, "Columns"))
    frames = _one(dataset, "NumberOfFrames", 1)
    if min(rows, columns) < 1 or not 1 <= frames <= MAX_VOXELS:
        raise ImageError("a damaged DICOM file: an image of no pixels")
    refuse_large_image((columns, rows), "its image", max_pixels)
    refuse_large_volume((columns, rows, int(frames)), "its images", max_pixels)
    kind = dataset.get("PhotometricInterpretation")
    if kind == "MONOCHROME1":
        raise ImageError("an image whose 0 is white (MONOCHROME1); expected black; convert it first")
    if _one(dataset, "SamplesPerPixel", 1) != 1 or kind != "MONOCHROME2":
        raise ImageError("a coloured image; expected a grey one (MONOCHROME2); convert it first")
    if "MOSAIC" in (dataset.get("ImageType") or ()):
        raise ImageError(f"a mosaic of several slices; {CONVERT}")
    allocated, stored = _one(dataset, "BitsAllocated"), _one(dataset, "BitsStored")
    if allocated not in (8, 16, 32) or not 1 <= stored <= allocated:
        raise ImageError(f"{stored:g} of {allocated:g} bits a pixel; expected up to 8, 16 or 32")
    if _one(dataset, "HighBit", stored - 1) != stored - 1:
        raise ImageError(f"pixels that do not begin at the lowest bit; {CONVERT}")


def _require_decoder(dataset: "Dataset") -> None:
    """Raise unless the pixels can be decompressed here."""
    from pydicom.pixels.decoders.base import get_decoder

    syntax = dataset.file_meta.TransferSyntaxUID
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:  # what pydicom raises for a syntax that it does not know
        raise ImageError(f"a transfer syntax that pydicom does not read; {CONVERT}") from None
    if not decoder.is_available:
        lacking = "; ".join(decoder.missing_dependencies)
        remedy = f"{CONVERT}, or install a decoder ({lacking})"
        if "pyjpegls" in lacking:  # which the extra brings
            remedy = "pip install 'oasisvq[dicom]'"
        raise ImageError(f"compressed as {syntax.name}, and no decoder for it is installed; {remedy}")


def _plane(dataset: "Dataset", wanted: DicomSlice) -> NDArray[np.generic]:
    """The pixels (rows, columns) of one frame."""
    from pydicom.encaps import get_frame
    from pydicom.pixels.utils import pixel_array

    columns, rows = wanted.size
    frames = int(_one(dataset, "NumberOfFrames", 1))
    if "PixelData" not in dataset:
        raise ImageError("truncated, or without pixels of integers: PixelData is missing")
    syntax = dataset.file_meta.TransferSyntaxUID
    count = columns * rows * int(_one(dataset, "BitsAllocated")) // 8
    if syntax.is_encapsulated:
        frame = get_frame(dataset.PixelData, wanted.frame, number_of_frames=frames)
        too_long = len(frame) > _MAX_FRAME_SHARE * count + _MAX_FRAME_HEADERS
        if too_long or _coded_size(frame) not in (None, wanted.size):
            raise ImageError(f"a damaged DICOM file: pixels of another size than {columns}×{rows}")
    else:
        found, expected = len(dataset.PixelData), count * frames
        if not expected <= found < expected + max(count, 2):  # padding may follow, but no further image
            raise ImageError(
                f"truncated or damaged: {found:,} bytes of pixels, expected {expected:,}; "
                "get a whole copy"
            )
    try:
        plane: NDArray[np.generic] = pixel_array(dataset, index=wanted.frame, raw=True)
    except RuntimeError as error:  # what pydicom raises when every decoder failed
        raise ImageError(
            f"pixels that cannot be decoded as {syntax.name}: damaged, or of a kind that the installed "
            f"decoders do not know; get a whole copy, or {CONVERT}"
        ) from error
    if plane.shape != (rows, columns):
        raise ImageError("a damaged DICOM file: its pixels changed while it was read")
    return plane


def _coded_size(frame: bytes) -> tuple[int, int] | None:
    """Columns and rows that a JPEG, JPEG-LS or JPEG 2000 image claims to have; None for other bytes.

    Decoders allocate memory by these numbers, which may differ from those of the DICOM file.
    """
    if frame.startswith(b"\xff\x4f\xff\x51"):
        right, bottom, left, top = (int.from_bytes(frame[at : at + 4], "big") for at in range(8, 24, 4))
        return right - left, bottom - top
    if not frame.startswith(b"\xff\xd8"):
        return None
    at = 2
    while frame[at + 1] not in _FRAME_HEADERS:
        if frame[at] != 0xFF:
            raise ImageError("a damaged DICOM file: pixels that are no JPEG")
        at += 2 + int.from_bytes(frame[at + 2 : at + 4], "big")
    return int.from_bytes(frame[at + 7 : at + 9], "big"), int.from_bytes(frame[at + 5 : at + 7], "big")
