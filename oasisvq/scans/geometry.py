"""How the voxels of a volume lie in space, and how they are cut into slices. Never imports torch.

The geometry of a volume is the header of its file, byte for byte, but without its texts, which may name
a person. All numbers in a header (shape, zooms, qform and sform with their codes, scale, units, type,
byte order) come back to the last bit.

Axis codes are nibabel's: a letter gives the direction in which an index grows (Right or Left, Anterior
or Posterior, Superior or Inferior).
"""

from enum import IntEnum
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from oasisvq.errors import ImageError

PLANES = ("sagittal", "coronal", "axial")  # slices along right, front and top
_GROWS, _FALLS = "RAS", "LPI"
_ORDERS = ((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0))
SLICINGS = 8 * len(_ORDERS)
_MAX_SCALING = float(np.finfo(np.float32).max)  # that NIfTI-1 can hold
_SAME = 1e-3  # share by which affine and zooms may differ, since both are rounded
_LABEL_INTENTS = (1002, 1005)  # of NIfTI: labels, and names of structures
_SINGLE_OFFSETS = {348: 352, 540: 544}  # header bytes -> where voxels begin without extensions


class Form(IntEnum):
    """The file format of the original volume."""

    NIFTI1 = 0
    NIFTI1_PAIR = 1
    NIFTI2 = 2
    NIFTI2_PAIR = 3
    ANALYZE = 4

    @property
    def is_pair(self) -> bool:
        """Whether header and voxels are two files."""
        return self in (Form.NIFTI1_PAIR, Form.NIFTI2_PAIR, Form.ANALYZE)

    @property
    def header_bytes(self) -> int:
        """Length of the header."""
        return 540 if self in (Form.NIFTI2, Form.NIFTI2_PAIR) else 348


class Slicing(NamedTuple):
    """How planes (slices, H, W) are cut out of voxels (X, Y, Z).

    Attributes:
        axes: axes of the voxel array that slices, rows and columns follow.
        flipped: whether each of them runs against the array's index.
    """

    axes: tuple[int, int, int]
    flipped: tuple[bool, bool, bool]

    def planes(self, voxels: NDArray[np.generic]) -> NDArray[np.generic]:
        """Voxels (X, Y, Z) -> a view (slices, H, W)."""
        return voxels.transpose(self.axes)[self._steps()]

    def voxels(self, planes: NDArray[np.generic]) -> NDArray[np.generic]:
        """The inverse of `planes`."""
        back = np.argsort(self.axes)
        return planes[self._steps()].transpose(tuple(int(axis) for axis in back))

    def _steps(self) -> tuple[slice, slice, slice]:
        first, second, third = (slice(None, None, -1 if flip else 1) for flip in self.flipped)
        return first, second, third

    @property
    def number(self) -> int:
        """This slicing as one number below `SLICINGS`."""
        flips = sum(flip << place for place, flip in enumerate(self.flipped))
        return 8 * _ORDERS.index(self.axes) + flips

    @classmethod
    def of_number(cls, number: int) -> "Slicing":
        """The inverse of `number`."""
        first, second, third = (bool(number >> place & 1) for place in range(3))
        return cls(_ORDERS[number // 8], (first, second, third))


def slicing_by(axis_codes: str, plane: str = "axial") -> Slicing:
    """The slicing of voxels whose axes grow to `axis_codes`, such as LAS.

    Axial slices lie as in the OASIS PNG slices: the first is the lowest, rows run from left to right,
    columns from back to front. Sagittal and coronal slices keep this order of directions.

    Args:
        axis_codes: three letters, one each of R or L, A or P, S or I.
        plane: `axial`, `coronal` or `sagittal`, or the number of an axis of the array: 0, 1 or 2.
    """
    directions = [(_GROWS if code in _GROWS else _FALLS).index(code) for code in axis_codes]
    sliced = directions[int(plane)] if plane.isdigit() else PLANES.index(plane)
    order = [sliced, *(each for each in range(3) if each != sliced)]
    first, second, third = (directions.index(each) for each in order)
    flips = tuple(axis_codes[axis] in _FALLS for axis in (first, second, third))
    return Slicing((first, second, third), (flips[0], flips[1], flips[2]))


class Geometry:
    """The header of a volume file, without its texts.

    Attributes:
        form: the file format.
        content: the header's bytes.
        shape: of the stored array, with any trailing axes of 1.
        dtype: of the stored values, in the file's byte order.
        offset: of the voxels in the file that the header was read from.
        offset_written: of the voxels in a file that is written with this header.
    """

    def __init__(self, form: Form, content: bytes) -> None:
        """Take the bytes of a header; its texts are blanked, and its extensions left out.

        Raises:
            ImageError: they are not a header of this format.
        """
        from nibabel.spatialimages import HeaderDataError
        from nibabel.wrapstruct import WrapStructError

        self.form = form
        try:
            header = _header_class(form)(content, check=False)
            fields = header.structarr
            for name in _texts_of(fields):
                fields[name] = b""
            if form is Form.ANALYZE and not _is_origin(fields):
                fields["origin"] = 0
            self.offset = int(fields["vox_offset"])
            self.offset_written = 0 if form.is_pair else _SINGLE_OFFSETS[form.header_bytes]
            fields["vox_offset"] = self.offset_written
            self._header = header
            self.content: bytes = header.binaryblock
            self.shape = tuple(int(side) for side in header.get_data_shape())
            self.dtype = np.dtype(header.get_data_dtype())
        except LookupError as error:
            raise ImageError(f"a damaged header: unknown data type {error}") from error
        except (HeaderDataError, WrapStructError, ValueError, OverflowError, TypeError) as error:
            raise ImageError(f"a damaged header: {error}") from error

    @classmethod
    def of_array(
        cls, array: NDArray[np.generic], affine: NDArray[np.float64], code: int = 1
    ) -> "Geometry":
        """The NIfTI-1 geometry of voxels in memory.

        Args:
            array: (X, Y, Z) voxels.
            affine: (4, 4), voxel indices to millimetres to the right, front and top.
            code: of qform and sform; 0 if only the zooms of the affine are known.

        Raises:
            ImageError: NIfTI-1 cannot hold such an array.
        """
        from nibabel.nifti1 import Nifti1Header
        from nibabel.spatialimages import HeaderDataError

        header = Nifti1Header()
        try:
            header.set_data_shape(array.shape)
            header.set_data_dtype(array.dtype)
            header.set_zooms(np.sqrt(np.square(affine[:3, :3]).sum(0)))
            header.set_sform(affine if code else None, code=code)
            header.set_qform(affine if code else None, code=code, strip_shears=True)
        except (HeaderDataError, ValueError, np.linalg.LinAlgError) as error:
            raise ImageError(f"an array that NIfTI cannot hold: {error}") from error
        header.set_slope_inter(1.0, 0.0)
        header.set_xyzt_units("mm")
        return cls(Form.NIFTI1, header.binaryblock)

    @cached_property
    def affine(self) -> NDArray[np.float64]:
        """(4, 4): voxel indices to millimetres to the right, front and top, as nibabel computes it.

        Raises:
            ImageError: the header's qform is not a rotation.
        """
        from nibabel.spatialimages import HeaderDataError

        try:
            with np.errstate(over="ignore", invalid="ignore"):  # senseless numbers are not finite
                return np.asarray(self._repaired.get_best_affine(), dtype=np.float64)
        except (HeaderDataError, ValueError) as error:
            raise ImageError(f"a qform that is no rotation ({error}); pass --axis 0, 1 or 2") from error

    @cached_property
    def _repaired(self) -> Any:  # noqa: ANN401 - nibabel is hardly typed
        """The header with the repairs that nibabel makes: zooms above 0, a qfac of 1 or -1."""
        header = self._header.copy()
        pixdim = header.structarr["pixdim"]
        pixdim[1:4] = np.where(pixdim[1:4] == 0, 1, np.abs(pixdim[1:4]))
        if self.form is not Form.ANALYZE and pixdim[0] not in (-1, 1):
            pixdim[0] = 1
        return header

    @property
    def zooms(self) -> tuple[float, float, float]:
        """Millimetres to a voxel along the first three axes of the array."""
        found = (*(float(zoom) for zoom in self._repaired.get_zooms()), 1.0, 1.0, 1.0)
        return found[0], found[1], found[2]

    @property
    def steps(self) -> tuple[float, float, float]:
        """Millimetres to a voxel by the affine, which other programs may have changed without the zooms.

        Those of the zooms if the codes of qform and sform are 0, or both agree.
        """
        if self.form_codes == (0, 0):
            return self.zooms
        with np.errstate(over="ignore", invalid="ignore"):  # senseless numbers are not finite
            found = np.sqrt(np.square(self.affine[:3, :3]).sum(0))
        if np.allclose(found, self.zooms, rtol=_SAME):
            return self.zooms
        return float(found[0]), float(found[1]), float(found[2])

    @property
    def form_codes(self) -> tuple[int, int]:
        """The codes of qform and sform; both 0 for Analyze, which has neither."""
        if self.form is Form.ANALYZE:
            return 0, 0
        return int(self._header["qform_code"]), int(self._header["sform_code"])

    @property
    def scaling(self) -> tuple[float, float]:
        """Slope and intercept by which stored values are scaled; 1 and 0 if no sensible ones are given.

        Raises:
            ImageError: a slope without an intercept.
        """
        from nibabel.spatialimages import HeaderDataError

        try:
            with np.errstate(all="ignore"):  # Analyze derives them from four fields
                slope, intercept = self._header.get_slope_inter()
        except HeaderDataError as error:
            raise ImageError(f"a damaged header: {error}") from error
        found = 1.0 if slope is None else float(slope), 0.0 if intercept is None else float(intercept)
        has_sense = all(abs(each) <= _MAX_SCALING for each in found)  # false for NaN
        return found if has_sense else (1.0, 0.0)

    @property
    def axis_codes(self) -> str:
        """The directions in which the indices of the first three axes grow, such as LAS.

        Raises:
            ImageError: the affine does not tell.
        """
        from nibabel.orientations import aff2axcodes

        with np.errstate(over="ignore", invalid="ignore"):  # of squares; no axis is found then
            codes = aff2axcodes(self.affine) if np.isfinite(self.affine).all() else ()
        if len(codes) != 3 or None in codes:
            raise ImageError("its affine does not say which axis is which; pass --axis 0, 1 or 2")
        return "".join(str(code) for code in codes)

    @property
    def intent(self) -> int:
        """The intent of the voxels, by NIfTI's codes; 0 if there is none."""
        return 0 if self.form is Form.ANALYZE else int(self._header["intent_code"])

    @property
    def says_labels(self) -> bool:
        """Whether the header's intent says that the voxels are labels."""
        return self.intent in _LABEL_INTENTS

    def of_one_volume(self) -> "Geometry":
        """This geometry for one of several volumes."""
        header = self._header.copy()
        header.set_data_shape(self.shape[:3])
        return Geometry(self.form, header.binaryblock)

    def as_single(self) -> "Geometry":
        """This geometry for a single file (.nii); an Analyze geometry becomes NIfTI-1.

        An Analyze header without an origin does not tell the orientation; qform and sform get code 0.
        """
        if not self.form.is_pair:
            return self
        if self.form is Form.ANALYZE:
            return self._as_nifti()
        return self._with_magic(Form.NIFTI1 if self.form is Form.NIFTI1_PAIR else Form.NIFTI2)

    def as_pair(self) -> "Geometry":
        """This geometry for a pair of files (.hdr and .img)."""
        if self.form.is_pair:
            return self
        return self._with_magic(Form.NIFTI1_PAIR if self.form is Form.NIFTI1 else Form.NIFTI2_PAIR)

    def _with_magic(self, form: Form) -> "Geometry":
        header = self._header.copy()
        template = _header_class(form)()
        header.structarr["magic"] = template.structarr["magic"]
        return Geometry(form, header.binaryblock)

    def _as_nifti(self) -> "Geometry":
        from nibabel.nifti1 import Nifti1Header

        header = Nifti1Header(endianness=self._header.endianness)
        header.set_data_shape(self.shape)
        header.set_data_dtype(self.dtype)
        zooms = self._repaired.get_zooms()
        header.set_zooms((*zooms[:3], *(abs(zoom) or 1.0 for zoom in zooms[3:])))
        if self._header["origin"].any():  # only SPM sets it, by its own convention of axes
            header.set_sform(self.affine, code=2)
        header.set_slope_inter(*self.scaling)
        header.set_xyzt_units("mm")
        return Geometry(Form.NIFTI1, header.binaryblock)


def _header_class(form: Form) -> Any:  # noqa: ANN401 - nibabel is hardly typed
    from nibabel.nifti1 import Nifti1Header, Nifti1PairHeader
    from nibabel.nifti2 import Nifti2Header, Nifti2PairHeader
    from nibabel.spm2analyze import Spm2AnalyzeHeader

    return {
        Form.NIFTI1: Nifti1Header,
        Form.NIFTI1_PAIR: Nifti1PairHeader,
        Form.NIFTI2: Nifti2Header,
        Form.NIFTI2_PAIR: Nifti2PairHeader,
        Form.ANALYZE: Spm2AnalyzeHeader,
    }[form]


def _texts_of(fields: NDArray[Any]) -> list[str]:
    """The text fields of a header; single letters and the magic name no one, and are left out."""
    types = {name: fields.dtype[name] for name in fields.dtype.names or ()}
    return [n for n, kind in types.items() if kind.kind == "S" and kind.itemsize > 1 and n != "magic"]


def _is_origin(fields: NDArray[Any]) -> bool:
    """Whether the ten bytes of an Analyze header hold SPM's origin rather than a name."""
    origin, sides = fields["origin"], fields["dim"][1:4]
    return bool((origin[3:] == 0).all() and (origin[:3] >= 0).all() and (origin[:3] <= 2 * sides).all())


def form_of(content: bytes, is_pair: bool) -> Form | None:
    """The format of a header by its first bytes; None if it is none of these."""
    sizes = {int.from_bytes(content[:4], order) for order in ("little", "big")}
    if 540 in sizes:
        return Form.NIFTI2_PAIR if is_pair else Form.NIFTI2
    if 348 not in sizes or len(content) < 348:
        return None
    if content[344:347] in (b"n+1", b"ni1"):
        return Form.NIFTI1_PAIR if is_pair else Form.NIFTI1
    return Form.ANALYZE if is_pair else None
