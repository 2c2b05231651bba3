"""Blocks of a `.codes` file <-> bytes, see `container.py`.

Never imports torch.
"""

import math
import struct
from itertools import groupby, pairwise

import numpy as np
from numpy.typing import NDArray

from oasisvq.codec.bins import Binning, Rule
from oasisvq.codec.fields import LONG_BYTES, Reader, signed, varint
from oasisvq.codec.headers import (
    MAX_LABELS,
    MAX_OUTLIERS,
    RANGE_UNITS,
    GroundHeader,
    Outliers,
    ResidueHeader,
    SampleType,
    VolumeHeader,
)
from oasisvq.codec.residue import MAX_BIN_BITS, BinLimits
from oasisvq.codec.restoration import DEPTHS, MAX_WEIGHT, Restoration, Weights
from oasisvq.scans.geometry import SLICINGS, Form, Slicing
from oasisvq.scans.limits import MAX_FILE_BYTES
from oasisvq.scans.stacks import MAX_DIGITS, StackNames
from oasisvq.text import MAX_NAME_BYTES

_MAX_WHOLE = 2**31  # magnitude of labels that are written as whole numbers, exclusive
_LARGEST = 2**53  # magnitude of integer values
_MOST_BINS = 2**MAX_BIN_BITS - 1


def volume_bytes(volume: VolumeHeader) -> bytes:
    """The block of a volume."""
    content = np.frombuffer(volume.content, np.uint8)
    assert len(content) == volume.form.header_bytes
    present = content != 0
    ranges = b"".join(varint(side) for pair in volume.ranges for side in pair)
    return b"".join(
        (
            bytes((volume.form, volume.slicing.number)),
            np.packbits(present).tobytes(),
            content[present].tobytes(),
            ranges,
        )
    )


def are_whole(labels: tuple[float, ...]) -> bool:
    """Whether all labels are integers that the shorter of the two label blocks can hold."""
    return all(isinstance(each, int) and -_MAX_WHOLE < each < _MAX_WHOLE for each in labels)


def labels_bytes(labels: tuple[float, ...]) -> bytes:
    """Whole labels, as their number, the first one and the steps between them."""
    whole = [int(label) for label in labels]
    steps = (after - before for before, after in pairwise(whole))
    return varint(len(whole)) + signed(whole[0]) + b"".join(varint(step) for step in steps)


def values_bytes(values: NDArray[np.generic]) -> bytes:
    """Labels that are not all whole, as values of the original's type."""
    return varint(len(values)) + values.astype(values.dtype.newbyteorder("<")).tobytes()


def read_volume(reader: Reader, slices: int, has_ranges: bool) -> VolumeHeader:
    """The inverse of `volume_bytes`.

    Raises:
        CodesFileError: any deviation from the specification.
    """
    form, slicing = reader.take(2)
    if form not in set(Form) or slicing >= SLICINGS:
        raise reader.fail(
            f"volume format {form}, slicing {slicing}: not known to this version of oasisvq; update "
            "oasisvq, or get a whole copy if the file is damaged"
        )
    length = Form(form).header_bytes
    bitmap = np.frombuffer(reader.take(-(-length // 8)), np.uint8)
    present = np.unpackbits(bitmap)
    if present[length:].any():
        raise reader.fail("damaged: the bitmap of its header is not filled with 0; get a whole copy")
    content = np.zeros(length, np.uint8)
    content[present[:length] == 1] = np.frombuffer(reader.take(int(present.sum())), np.uint8)
    if np.count_nonzero(content) != present.sum():
        raise reader.fail("damaged: a byte of its header is marked but 0; get a whole copy")
    ranges = []
    for _ in range(slices if has_ranges else 0):
        low = reader.varint("darkest value of a slice", 0, RANGE_UNITS)
        ranges.append((low, reader.varint("brightest value of a slice", low, RANGE_UNITS)))
    return VolumeHeader(slices, Slicing.of_number(slicing), Form(form), content.tobytes(), tuple(ranges))


def read_labels(reader: Reader) -> tuple[int, ...]:
    """The inverse of `labels_bytes`."""
    count = reader.varint("number of labels", 1, MAX_LABELS)
    first = reader.varint("label", 0, 2**32 - 1)
    labels = [first // 2 if first % 2 == 0 else -(first + 1) // 2]
    for _ in range(count - 1):
        labels.append(labels[-1] + reader.varint("step of labels", 1, 2**32 - 1))
    return tuple(labels)


def read_values(reader: Reader, dtype: np.dtype[np.generic]) -> tuple[float, ...]:
    """The inverse of `values_bytes`."""
    count = reader.varint("number of labels", 1, MAX_LABELS)
    values = np.frombuffer(reader.take(count * dtype.itemsize), dtype.newbyteorder("<"))
    is_rising = bool((values[1:] > values[:-1]).all())  # also false for NaN
    found: tuple[float, ...] = tuple(values.tolist())
    shortest = tuple(int(each) if each == int(each) else each for each in found if math.isfinite(each))
    if not (is_rising and np.isfinite(values).all()) or are_whole(shortest):
        raise reader.fail("damaged: labels that do not rise, or are whole and not written so")
    return found


def ground_bytes(ground: GroundHeader, sample_type: SampleType) -> bytes:
    """The block of a ground."""
    is_float = sample_type.dtype.kind == "f"
    value = struct.pack("<d", ground.value) if is_float else signed(int(ground.value))
    return value + varint(ground.payload_bytes)


def read_ground(reader: Reader, sample_type: SampleType) -> GroundHeader:
    """The inverse of `ground_bytes`.

    Raises:
        CodesFileError: any deviation from the specification.
    """
    dtype = sample_type.dtype
    if dtype.kind == "f":
        value = reader.float64()
        with np.errstate(over="ignore"):
            is_held = math.isnan(value) or dtype.type(value) == value
        if math.isinf(value) or not is_held:
            raise reader.fail(f"damaged: a ground of {value}, which is no {dtype}; get a whole copy")
    else:
        value = reader.signed("ground", _LARGEST)
        limits = np.iinfo(dtype.name)
        if not limits.min <= value <= limits.max:
            raise reader.fail(f"damaged: a ground of {value}, which is no {dtype}; get a whole copy")
    return GroundHeader(value, reader.varint("bytes of the support", 0, MAX_FILE_BYTES))


def residue_bytes(residue: ResidueHeader) -> bytes:
    """The block of a residue."""
    rule, step, bound, origin, limits = (
        getattr(residue.binning, field) for field in ("rule", "step", "bound", "origin", "limits")
    )
    if rule is Rule.WHOLE:
        numbers = varint(int(step)), varint(int(bound)), signed(int(origin))
    elif rule is Rule.MULTIPLES:
        numbers = struct.pack("<d", step), b"", signed(int(origin))
    else:
        numbers = (struct.pack("<3d", step, bound, origin), b"", b"")
    ends = signed(limits.low), signed(limits.high)
    return b"".join((bytes((rule,)), *numbers, *ends, varint(residue.payload_bytes)))


def read_residue(reader: Reader, sample_type: SampleType) -> ResidueHeader:
    """The inverse of `residue_bytes`.

    Raises:
        CodesFileError: any deviation from the specification.
    """
    number = reader.take(1)[0]
    if number not in set(Rule) or (number == Rule.WHOLE) != (sample_type.dtype.kind in "iu"):
        raise reader.fail(
            f"rule {number} of bins of {sample_type.name.lower()}: not known to this version of "
            "oasisvq; update oasisvq, or get a whole copy if the file is damaged"
        )
    rule, bound = Rule(number), 0.0
    step: float
    origin: float
    if rule is Rule.WHOLE:
        step = reader.varint("step", 1, 2 * _LARGEST, LONG_BYTES)
        bound = reader.varint("bound", 0, 2 * _LARGEST, LONG_BYTES)
        origin = reader.signed("origin", 4 * _LARGEST)
    elif rule is Rule.MULTIPLES:
        step = reader.float64()
        origin = reader.signed("origin", 4 * _LARGEST)
    else:
        step, bound, origin = (reader.float64() for _ in range(3))
    if not (0 < step < math.inf and 0 <= bound < math.inf and math.isfinite(origin)):
        raise reader.fail(f"damaged: bins of {step} within {bound} from {origin}; get a whole copy")
    low, high = (reader.signed(f"{end} bin", _MOST_BINS) for end in ("smallest", "largest"))
    if low > high:
        raise reader.fail(f"damaged: bins from {low} to {high}; get a whole copy")
    binning = Binning(rule, step, bound, origin, BinLimits(low, high))
    return ResidueHeader(binning, reader.varint("bytes of the residue", 0, MAX_FILE_BYTES))


def outliers_bytes(outliers: Outliers, sample_type: SampleType) -> bytes:
    """The block of outliers."""
    dtype, values = sample_type.dtype, outliers.values
    steps = (after - before for before, after in pairwise((-1, *outliers.places)))
    places = b"".join(varint(step) for step in steps)
    if dtype.kind == "f":
        written = np.array(values, dtype.newbyteorder("<")).tobytes()
    else:
        written = b"".join(signed(int(value)) for value in values)
    return varint(len(values)) + places + written


def read_outliers(reader: Reader, sample_type: SampleType, voxels: int) -> Outliers:
    """The inverse of `outliers_bytes`, for a scan of `voxels` voxels.

    Raises:
        CodesFileError: any deviation from the specification.
    """
    count = reader.varint("number of outliers", 1, MAX_OUTLIERS)
    places, last = [], -1
    for _ in range(count):
        last += reader.varint("step of outliers", 1, voxels - 1 - last)
        places.append(last)
    dtype = sample_type.dtype
    if dtype.kind == "f":
        floats = np.frombuffer(reader.take(count * dtype.itemsize), dtype.newbyteorder("<"))
        if not np.isfinite(floats).all():
            raise reader.fail("damaged: outliers that are no numbers; get a whole copy")
        return Outliers(tuple(places), tuple(floats.tolist()))
    values = [reader.signed("outlier", _LARGEST) for _ in range(count)]
    limits = np.iinfo(dtype.name)
    if min(values) < limits.min or max(values) > limits.max:
        raise reader.fail(f"damaged: outliers from {min(values)} to {max(values)}, which are no {dtype}")
    return Outliers(tuple(places), tuple(values))


def restoration_bytes(restoration: Restoration) -> bytes:
    """The block of a restoration: each weight minus its neutral value, which changes nothing."""
    plain = Weights()
    return b"".join(
        signed(weight - none)
        for weights in restoration
        for weight, none in zip(weights, plain, strict=True)
    )


def read_restoration(reader: Reader) -> Restoration:
    """The inverse of `restoration_bytes`.

    Raises:
        CodesFileError: any deviation from the specification.
    """
    return tuple(
        Weights(*(none + reader.signed("weight of the restoration", MAX_WEIGHT) for none in Weights()))
        for _ in range(DEPTHS)
    )


def stack_bytes(stack: StackNames) -> bytes:
    """The block of a stack."""
    texts = [text.encode() for text in (stack.before, stack.after)]
    parts = [varint(len(text)) + text for text in texts]
    parts += [varint(stack.width), varint(stack.numbers[0])]
    for step, run in groupby(after - before for before, after in pairwise(stack.numbers)):
        parts += [varint(step), varint(sum(1 for _ in run))]
    return b"".join(parts)


def read_stack(reader: Reader, slices: int) -> StackNames:
    """The inverse of `stack_bytes`.

    Raises:
        CodesFileError: any deviation from the specification.
    """
    before, after = (_read_text(reader) for _ in range(2))
    width = reader.varint("digits of a name", 1, MAX_DIGITS)
    largest = 10**MAX_DIGITS - 1
    numbers = [reader.varint("number of a slice", 0, largest)]
    last_step = 0
    while len(numbers) < slices:
        step = reader.varint("step of slices", 1, largest)
        count = reader.varint("slices with one step", 1, slices - len(numbers))
        if step == last_step or numbers[-1] + step * count > largest:
            raise reader.fail("damaged: numbers of slices that are not written so; get a whole copy")
        numbers += range(numbers[-1] + step, numbers[-1] + step * count + 1, step)
        last_step = step
    stack = StackNames(before, after, width, tuple(numbers))
    if problem := stack.problem:
        raise reader.fail(f"damaged: {problem}")
    return stack


def _read_text(reader: Reader) -> str:
    content = reader.take(reader.varint("bytes of a name", 0, MAX_NAME_BYTES))
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise reader.fail("damaged: a name that is no UTF-8; get a whole copy") from error
