"""Stacks: neighbouring slices as one file, and the block of their names."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import draw_phantom
from forged import damaged_copies, sealed
from numpy.typing import NDArray

from oasisvq.codec import container
from oasisvq.codec.codec import Codec
from oasisvq.codec.content import Content
from oasisvq.codec.headers import Coder, Kind, SampleType
from oasisvq.errors import CodesFileError, ImageError, OasisVQError
from oasisvq.loading import nifti_of
from oasisvq.scans.stacks import StackNames

NAMES = [f"case_402_slice_{number}.nii.png" for number in (2, 3, 4, 10)]
BEFORE, AFTER = b"\x0fcase_402_slice_", b"\x08.nii.png"
BLOCK = BEFORE + AFTER + bytes((1, 2, 1, 2, 6, 1))  # the numbers 2, 3, 4, 10


@pytest.fixture
def images(rng: np.random.Generator) -> NDArray[np.uint8]:
    """Of several ranges; one is constant."""
    plane = draw_phantom(rng, 40, 33, margin=4)
    return np.stack([plane, plane // 2 + 9, plane * 0 + 200, plane[::-1]])


@pytest.fixture
def stack(images: NDArray[np.uint8], prior_model_file: Path) -> bytes:
    return Codec.load(prior_model_file).encode_stack(images, NAMES, 2, content=Content.SCAN)


def test_images_come_back_under_their_names(
    stack: bytes, images: NDArray[np.uint8], model: Path, prior_model_file: Path
) -> None:
    codec = Codec.load(prior_model_file)
    header = container.read(stack, "x").header
    assert header.stack is not None
    assert header.stack.names == NAMES
    assert BLOCK in stack
    restored = codec.decode(stack)
    assert (restored.shape, restored.dtype) == (images.shape, np.uint8)
    assert (restored[2] == 200).all()
    for plane, original in zip(restored, images, strict=True):  # each with its own range
        assert original.min() <= plane.min() <= plane.max() <= original.max()
    packed = Codec.load(model).encode_stack(list(images), NAMES, 2, Coder.PACKED, content=Content.SCAN)
    assert Codec.load(model).decode(packed).shape == images.shape


def test_what_is_asked_of_a_scan_is_asked_of_a_stack(
    images: NDArray[np.uint8], residue_model_file: Path
) -> None:
    codec = Codec.load(residue_model_file)
    exact = codec.encode_stack(images, max_error=0, content=Content.SCAN)
    np.testing.assert_array_equal(codec.decode(exact), images)
    header = container.read(exact, "x").header
    assert header.stack == StackNames("slice_", ".png", 1, (0, 1, 2, 3))
    near = codec.decode(codec.encode_stack(images, max_error=2, content=Content.SCAN))
    assert np.abs(near.astype(int) - images).max() <= 2
    labels = np.digitize(images, [50, 120]).astype(np.uint16) * 7
    kept = codec.encode_stack(labels, content=Content.LABELS)
    assert container.read(kept, "x").header.coder is Coder.LABELS
    np.testing.assert_array_equal(codec.decode(kept), labels)


def test_images_that_are_all_of_one_value(model_file: Path) -> None:
    codec = Codec.load(model_file)
    blank = np.full((3, 20, 30), 7, np.uint16)
    content = codec.encode_stack(blank, content=Content.SCAN)
    np.testing.assert_array_equal(codec.decode(content), blank)


def test_a_stack_is_a_volume_too(stack: bytes, prior_model_file: Path) -> None:
    codec = Codec.load(prior_model_file)
    scan = codec.decode_codes(codec.codes_of(container.read(stack, "x")), "x")
    voxels = np.asanyarray(nifti_of(scan).dataobj)
    np.testing.assert_array_equal(voxels[::-1].transpose(2, 0, 1), scan.planes)


@pytest.mark.parametrize(
    ("images", "names", "message"),
    [
        ([np.zeros((4, 5), np.uint8), np.zeros((4, 6), np.uint8)], None, "several sizes"),
        ([np.zeros((4, 5), np.uint8), np.zeros((4, 5), np.uint16)], None, "several sizes"),
        ([np.zeros((4, 5), np.float32)], None, "expected"),
        ([np.zeros((4, 5), np.uint8)], ["a_1.png", "a_2.png"], "1 images, but 2 names"),
        ([], None, "no images"),
        (7, None, "expected arrays"),
        ([[1, 2]], None, "expected a NumPy array"),
    ],
)
def test_what_is_no_stack(
    images: list[NDArray[np.generic]], names: list[str] | None, message: str, model_file: Path
) -> None:
    with pytest.raises(ImageError, match=message):
        Codec.load(model_file).encode_stack(images, names)


@pytest.mark.parametrize(
    ("block", "message"),
    [
        (BEFORE + AFTER + bytes((0, 2, 1, 2, 6, 1)), "digits of a name is 0"),
        (BEFORE + AFTER + bytes((10, 2, 1, 2, 6, 1)), "digits of a name is 10"),
        (BEFORE + AFTER + bytes((1, 2, 0, 2, 6, 1)), "step of slices is 0"),
        (BEFORE + AFTER + bytes((1, 2, 1, 0, 6, 3)), "slices with one step is 0"),
        (BEFORE + AFTER + bytes((1, 2, 1, 2, 6, 2)), "slices with one step is 2"),
        (BEFORE + AFTER + bytes((1, 2, 1, 2, 1, 1)), "not written so"),
        (BEFORE + AFTER + bytes((1, 2, 1, 2, 0x80 | 6, 0, 1)), "shortest form"),
        (BEFORE + AFTER + b"\1\xff\x93\xeb\xdc\x03\1\3", "not written so"),  # from 999,999,999 on
        (BEFORE + AFTER + b"\1\x80\x94\xeb\xdc\x03\1\3", "number of a slice is 1000000000"),
        (b"\x0fcase_402/slice_" + AFTER + BLOCK[-6:], "not every system"),
        (b"\x0f../c_402\\slice_" + AFTER + BLOCK[-6:], "not every system"),
        (b"\x03COM" + b"\x04.png" + BLOCK[-6:], "not every system"),
        (b"\x0fcase_402_slice\0" + AFTER + BLOCK[-6:], "not every system"),
        (b"\x0fcase_402_slice\xff" + AFTER + BLOCK[-6:], "no UTF-8"),
        (b"\xff\x01" + b"a" * 255 + AFTER + BLOCK[-6:], "not every system"),
        (b"\x80\x02" + b"a" * 256 + AFTER + BLOCK[-6:], "bytes of a name is 256"),
    ],
)
def test_forged_names_are_refused(stack: bytes, block: bytes, message: str) -> None:
    forged = sealed(stack[:-4].replace(BLOCK, block))
    with pytest.raises(CodesFileError, match=message):
        container.read(forged, "x")


def test_names_stand_for_images_alone(stack: bytes) -> None:
    file = container.read(stack, "x")
    other = replace(file.header, kind=Kind.IMAGE, volume=None, stack=StackNames("a", ".png", 1, (1,)))
    other = replace(other, intensity=(0, 255))
    with pytest.raises(CodesFileError, match="an image with the names of a stack"):
        container.read(container.write(other, b"", file.beside), "x")
    typed = replace(file.header, sample_type=SampleType.INT16)
    with pytest.raises(CodesFileError, match="an image of int16"):
        container.read(container.write(typed, file.payload, file.beside), "x")


def test_damage_is_seen(images: NDArray[np.uint8], model_file: Path) -> None:
    content = Codec.load(model_file).encode_stack(images[:2, ::4, ::4], content=Content.SCAN)
    for damaged in damaged_copies(content):
        with pytest.raises(OasisVQError):
            container.read(damaged, "x")
