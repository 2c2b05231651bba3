"""A raw OASIS folder -> a prepared dataset."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from oasisvq.codec.pixels import Box, content_box, union
from oasisvq.codec.scans import read_image
from oasisvq.data.dataset import (
    MANIFEST,
    Dataset,
    SliceRecord,
    Split,
    is_prepared,
    manifest_bytes,
    open_dataset,
    refuse_shared_subjects,
)
from oasisvq.data.layouts import SPLITS, Images, SliceFile, find_slices
from oasisvq.errors import DatasetError, FileError
from oasisvq.files import make_folder

LAYOUT = "UQ PNG slices"
MIN_SIZE, MAX_SIZE = 16, 4096


def fit_plane(plane: NDArray[np.uint8], size: int, images: Images) -> NDArray[np.uint8]:
    """Bring an (H, W) plane to (size, size): pad with 0 around the middle, shrink what is larger.

    Scans are averaged over the area of each new pixel; segmentations keep the nearest label.
    """
    height, width = plane.shape
    side = max(height, width, size)
    top, left = (side - height) // 2, (side - width) // 2
    square = np.pad(plane, ((top, side - height - top), (left, side - width - left)))
    if side == size:
        return square
    method = Image.Resampling.BOX if images is Images.SCANS else Image.Resampling.NEAREST
    return np.asarray(Image.fromarray(square).resize((size, size), method))


def preprocess(
    raw: Path,
    output: Path,
    *,
    images: Images = Images.SCANS,
    size: int = 256,
    force: bool = False,
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> Dataset:
    """Write the prepared dataset of a raw folder; `output` appears when it is whole.

    Args:
        raw: a folder in a known layout.
        output: the folder to make; an existing prepared dataset is replaced only with `force`.
        images: scans or segmentations.
        size: pixels to a side.
        force: replace an existing prepared dataset.
        advance: told (slices done, slices in all).

    Raises:
        DatasetError: no known layout, no images, or a subject in two splits.
        ImageError: a slice cannot be read, or is no 8-bit image.
        FileError: `output` is in the way or cannot be written.
    """
    if not MIN_SIZE <= size <= MAX_SIZE:
        raise DatasetError(f"size {size}, expected {MIN_SIZE} to {MAX_SIZE} pixels")
    slices = find_slices(raw, images)
    refuse_shared_subjects(
        {split: {s.subject for s in slices if s.split == split} for split in SPLITS}, raw
    )
    _refuse_replacing(output, force)
    make_folder(output.parent)
    try:
        temporary = Path(tempfile.mkdtemp(prefix=".oasisvq-", dir=output.parent))
    except OSError as error:
        raise FileError(f"{output}: cannot be written: {error.strerror}") from error
    try:
        _write(raw, temporary, slices, images, size, advance)
        _replace_folder(temporary, output)
    except OSError as error:
        raise FileError(f"{output}: cannot be written: {error.strerror}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return open_dataset(output)


def _refuse_replacing(output: Path, force: bool) -> None:
    """Only a prepared dataset is ever replaced, and only with `force`; an empty folder is filled."""
    if is_prepared(output):
        if not force:
            raise FileError(f"{output}: exists; pass -f to replace it or name another output")
        ours = {MANIFEST, *(f"{split}.npy" for split in SPLITS)}
        others = sorted(path.name for path in output.iterdir() if path.name not in ours)
        if others:
            raise FileError(
                f"{output}: holds {others[0]} beside a prepared dataset; move it away or name "
                "another output"
            )
    elif output.exists() and not (output.is_dir() and not any(output.iterdir())):
        raise FileError(f"{output}: exists and is no prepared dataset; name another output")


def _write(
    raw: Path,
    folder: Path,
    slices: list[SliceFile],
    images: Images,
    size: int,
    advance: Callable[[int, int], None],
) -> None:
    splits: dict[str, Split] = {}
    done = 0
    for split in SPLITS:
        members = [s for s in slices if s.split == split]
        if not members:
            continue
        records: list[SliceRecord] = []
        content: Box | None = None
        digest = hashlib.sha256()
        with (folder / f"{split}.npy").open("wb") as stream:
            header = {"descr": "|u1", "fortran_order": False, "shape": (len(members), size, size)}
            np.lib.format.write_array_header_1_0(stream, header)
            for member in members:
                scan = read_image(member.path)
                if scan.plane.dtype != np.uint8:
                    raise DatasetError(f"{member.path}: a 16-bit slice, expected 8 bits in this layout")
                plane = fit_plane(scan.plane.astype(np.uint8), size, images)
                box = content_box(plane) if plane.min() == 0 else Box(0, 0, size, size)
                if box.bottom > box.top:
                    content = union(content, box) if content else box
                stream.write(plane.tobytes())
                digest.update(plane.tobytes())
                records.append(
                    SliceRecord(
                        member.subject,
                        member.path.relative_to(raw).as_posix(),
                        member.path.stat().st_size,
                        (scan.plane.shape[0], scan.plane.shape[1]),
                        member.slice_number,
                    )
                )
                done += 1
                advance(done, len(slices))
            stream.flush()
            os.fsync(stream.fileno())
        splits[split] = Split(tuple(records), digest.hexdigest(), content or Box(0, 0, size, size))
    dataset = Dataset(folder, LAYOUT, str(raw.resolve()), images, size, splits)
    with (folder / MANIFEST).open("wb") as stream:  # the whole folder is what appears at once
        stream.write(manifest_bytes(dataset))
        stream.flush()
        os.fsync(stream.fileno())


def _replace_folder(new: Path, final: Path) -> None:
    """Rename `new` to `final`; a folder there is first renamed away and then deleted."""
    new.chmod(0o755)
    if final.exists():
        old = Path(tempfile.mkdtemp(prefix=".oasisvq-", dir=final.parent))
        final.replace(old)
        new.replace(final)
        shutil.rmtree(old, ignore_errors=True)
    else:
        new.replace(final)


def is_prepared_from(folder: Path, raw: Path, images: Images, size: int) -> bool:
    """Whether `folder` is the prepared dataset of what `raw` holds now, with these settings."""
    if not is_prepared(folder):
        return False
    dataset = open_dataset(folder)
    if (dataset.raw, dataset.images, dataset.size) != (str(raw.resolve()), images, size):
        return False
    known = {
        (name, record.source, record.source_bytes)
        for name, split in dataset.splits.items()
        for record in split.records
    }
    found = {
        (s.split, s.path.relative_to(raw).as_posix(), s.path.stat().st_size)
        for s in find_slices(raw, images)
    }
    return known == found


def open_or_prepare(
    data: Path,
    cache: Path,
    *,
    images: Images,
    size: int,
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> Dataset:
    """Open `data` if it is a prepared dataset; else prepare it, as a raw folder, into `cache`.

    What `cache` holds is used again if it was made from the same files with the same settings.

    Raises:
        DatasetError, ImageError, FileError: see `preprocess`.
    """
    if is_prepared(data):
        return open_dataset(data)
    if is_prepared_from(cache, data, images, size):
        return open_dataset(cache)
    return preprocess(data, cache, images=images, size=size, force=True, advance=advance)
