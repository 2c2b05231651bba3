"""A raw OASIS folder -> a prepared dataset.

Find the files to take (`members.py`). Cut each volume into slices (`slices.py`), several volumes at a
time, and keep these until the end (`parts.py`). Then write them one after another into one array per
split.
"""

import dataclasses
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from itertools import groupby
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from oasisvq.codec.pixels import Box, content_box, union
from oasisvq.data.dataset import (
    Dataset,
    SliceRecord,
    Split,
    VolumeRecord,
    is_prepared,
    open_dataset,
    refuse_shared_subjects,
)
from oasisvq.data.found import Found, Member, counted
from oasisvq.data.layouts import SPLITS, Images
from oasisvq.data.members import find_members
from oasisvq.data.parts import Maker, Part, bytes_of, read_cut, sensible_jobs
from oasisvq.data.recipe import DEFAULT_RECIPE, Recipe
from oasisvq.data.slices import FIELD, Cut, fit_plane
from oasisvq.data.work import Work, working_on, write_slices
from oasisvq.errors import DatasetError, FileError, ImageError, OasisVQError
from oasisvq.jobs import calls
from oasisvq.scans.images import look_at
from oasisvq.scans.limits import DEFAULT_MAX_PIXELS, MAX_TRAINING_SIDE

__all__ = ["fit_plane", "is_prepared_from", "look", "open_or_prepare", "opened_for_now", "preprocess"]

MIN_SIZE, MAX_SIZE = 16, MAX_TRAINING_SIDE
Advance = Callable[[int, int], None]  # called with (files done, all files)
Tell = Callable[[str], None]  # called with one line for a person


def look(raw: Path, images: Images = Images.SCANS, recipe: Recipe | None = None) -> Found:
    """What `preprocess` would take from a raw folder; nothing is opened.

    Raises:
        DatasetError, FileError: see `find_members`; or a person is in two splits, or a choice that is
            asked for has no effect on these files.
    """
    found = find_members(raw, images, recipe)
    image = next((each.name for each in found.members if each.slice_number is not None), None)
    for option in ("axis", "slices"):
        if image and recipe and getattr(recipe, option) != getattr(DEFAULT_RECIPE, option):
            raise DatasetError(
                f"{raw}: {image} is one slice, and only volumes are cut; leave out --{option}"
            )
    if images is Images.SEGMENTATIONS and recipe and recipe.percentiles != DEFAULT_RECIPE.percentiles:
        raise DatasetError(f"{raw}: labels have no grey scale; leave out --percentiles")
    subjects = {name: {s.subject for s in found.members if s.split == name} for name in SPLITS}
    refuse_shared_subjects(subjects, raw)
    return found


def preprocess(
    raw: Path,
    output: Path,
    *,
    images: Images = Images.SCANS,
    size: int = 256,
    recipe: Recipe | None = None,
    force: bool = False,
    jobs: int | None = 1,
    advance: Advance = lambda done, total: None,
    tell: Tell = lambda message: None,
    failed: Callable[[OasisVQError], None] | None = None,
    max_pixels: int = DEFAULT_MAX_PIXELS,
) -> Dataset:
    """Write the prepared dataset of a raw folder; `output` appears when it is complete.

    An interrupted run leaves its work in a hidden folder beside `output`, and the same call continues
    from there. Only one process at a time makes `output`.

    Args:
        raw: a folder in a known layout, or any folder of images or volumes.
        output: the folder to make; an existing prepared dataset is replaced only with `force`.
        images: which images to take.
        size: side of a slice in pixels.
        recipe: all other choices.
        force: replace an existing prepared dataset.
        jobs: processes that cut volumes; None for as many as pay off. With more than one, the calling
            program must be importable, as Python's multiprocessing requires.
        advance: called with (files done, all files).
        tell: called with lines on what was found.
        failed: called with the error of each file that cannot be used; without it the first one raises.
        max_pixels: how large the image or volume in a file may be, see `limits.py`.

    Raises:
        DatasetError: there is no known layout, no image, no usable one, or a subject is in two splits.
        ImageError: without `failed`, a file is damaged or unusable.
        FileError: `output` is in the way, cannot be written, or is being made by another process.
    """
    if not MIN_SIZE <= size <= MAX_SIZE:
        raise DatasetError(f"size {size}, expected {MIN_SIZE} to {MAX_SIZE} pixels")
    recipe = recipe or DEFAULT_RECIPE
    found = look(raw, images, recipe)
    if recipe.percentiles != DEFAULT_RECIPE.percentiles:
        _refuse_8_bits(raw, found.members)
    for line in what_was_found(raw, found):
        tell(line)
    maker = Maker(images, size, recipe, found.layout.whole, max_pixels)
    with working_on(output, force) as work:
        parts = [maker.part(members, work.folder) for members in _units(found.members)]
        errors = _make_missing(maker, parts, work, jobs, advance, tell, stop=failed is None)
        assembly = _Assembly(parts, images, size)
        _report(raw, assembly, errors, tell, failed)
        layout, source = found.layout.name, str(raw.resolve())
        _write(assembly, Dataset(output, layout, source, images, size, {}, recipe), work)
    return open_dataset(output)


def _refuse_8_bits(raw: Path, members: list[Member]) -> None:
    """Raise if all members are images whose grey levels stay as they are.

    Raises:
        DatasetError: names the first one.
    """
    looks = (each.slice_number is not None and look_at(each.path) for each in members)
    if all(seen and not seen[1] for seen in looks):
        raise DatasetError(
            f"{raw}: {members[0].name} and all others have 8 bits, which stay as they are; leave out "
            "--percentiles"
        )


def what_was_found(raw: Path, found: Found) -> list[str]:
    """What to tell before the work; nothing for a published set of slices that is taken as it is."""
    if found.layout.whole and not found.left_out:
        return []
    return [f"dataset {raw}: {line}" for line in (str(found), *found.remarks)]


def _units(members: list[Member]) -> list[tuple[Member, ...]]:
    """Members that are cut together: a volume alone, or the images of a session in one folder."""

    def unit(member: Member) -> tuple[str, ...]:
        alone = member.name if member.slice_number is None else ""
        folder = Path(member.name).parent.as_posix()
        return member.split, member.subject, member.session, folder, alone

    return [tuple(members) for _, members in groupby(sorted(members, key=unit), key=unit)]


def _make_missing(
    maker: Maker,
    parts: list[Part],
    work: Work,
    jobs: int | None,
    advance: Advance,
    tell: Tell,
    stop: bool,
) -> list[OasisVQError]:
    """Make the parts that are not there yet; returns the errors of those that could not be made.

    Raises:
        OasisVQError: the first such error, if a bad file is to `stop` the run.
    """
    wanted = {work.lock, *(part.path for part in parts)}
    for path in work.folder.iterdir():
        if path not in wanted:
            path.unlink()  # it is out of date, or half written
    missing = [part for part in parts if read_cut(part.path, with_planes=False) is None]
    total = sum(len(part.members) for part in parts)
    done = total - sum(len(part.members) for part in missing)
    if done:
        tell(f"dataset: goes on, {done:,} of {total:,} files were done before")
        advance(done, total)
    if jobs is None:
        jobs = sensible_jobs(member for part in missing for member in part.members)
    errors = []
    with closing(calls(maker.make, missing, min(jobs, len(missing)))) as made:
        for part, error in made:
            if error is not None and (stop or maker.whole):
                raise error
            if error is not None:
                errors.append(error)
            done += len(part.members)
            advance(done, total)
    return errors


class _Assembly:
    """The parts that were made, with facts about their slices, which are read only to be written."""

    def __init__(self, parts: list[Part], images: Images, size: int) -> None:
        self.size = size
        known = ((part, read_cut(part.path, with_planes=False)) for part in parts)
        self.cuts = [(part, cut) for part, cut in known if cut is not None]
        labels = sorted({label for _, cut in self.cuts for label in cut.labels})
        self.labels = spread(labels) if images is Images.SEGMENTATIONS else ()
        self._grey_levels = np.arange(256, dtype=np.uint8)
        for label, level in self.labels:
            self._grey_levels[label] = level

    def of_split(self, split: str) -> list[tuple[Part, Cut]]:
        """The parts of a split, in order."""
        return [(part, cut) for part, cut in self.cuts if part.members[0].split == split]

    def planes(self, part: Part) -> NDArray[np.uint8]:
        """The slices of a part as they are stored, (N, size, size)."""
        cut = read_cut(part.path, with_planes=True)
        if cut is None:
            raise FileError(f"{part.path}: cannot be read any more; run again")
        return self._grey_levels[cut.planes] if self.labels else cut.planes


def spread(labels: list[int]) -> tuple[tuple[int, int], ...]:
    """Labels with their grey levels, evenly from 0 to 255 as in the PNG slices."""
    steps = max(1, len(labels) - 1)
    return tuple((label, round(rank * 255 / steps)) for rank, label in enumerate(labels))


def _report(
    raw: Path,
    assembly: _Assembly,
    errors: list[OasisVQError],
    tell: Tell,
    failed: Callable[[OasisVQError], None] | None,
) -> None:
    """Tell which files are left out, and what is uncertain about the others.

    Raises:
        OasisVQError: no file is usable, or one is unusable and `failed` is None.
    """
    errors = errors + [ImageError(text) for _, cut in assembly.cuts for text in cut.errors]
    if errors and not assembly.cuts and len(errors) > 1:
        raise DatasetError(f"{raw}: none of its {len(errors):,} files can be used; first, {errors[0]}")
    if errors and not (assembly.cuts and failed):
        raise errors[0]
    for error in errors:
        if failed:
            failed(error)
    guessed = [part.members[0].name for part, cut in assembly.cuts if cut.is_guessed]
    if guessed:
        some = ", ".join(guessed[:3]) + (", ..." if len(guessed) > 3 else "")
        tell(
            f"dataset {raw}: {len(guessed):,} with qform and sform code 0, whose left side is guessed "
            f"by convention: {some}"
        )
    field = max(assembly.size, FIELD)
    wide = [
        p.members[0].name for p, cut in assembly.cuts if cut.axis_codes and max(cut.shapes[0]) > field
    ]
    if wide:
        tell(
            f"dataset {raw}: {counted(len(wide), 'volume')} wider than {field} mm and shrunk to that: a "
            f"pixel is larger than in other volumes; first, {wide[0]}"
        )
    unguided = [cut.guide_error for _, cut in assembly.cuts if cut.guide_error]
    if unguided:
        tell(
            f"dataset {raw}: slices of {counted(len(unguided), 'scan')} are spread over the whole head, "
            f"since the file that shows the brain cannot be used; first, {unguided[0]}"
        )


def _write(assembly: _Assembly, dataset: Dataset, work: Work) -> None:
    """Write the arrays and the manifest into a new folder, and move it to the dataset's place."""
    work.new.mkdir()
    splits, volumes = {}, []
    for name in SPLITS:
        members = assembly.of_split(name)
        if members:
            splits[name] = _write_split(assembly, members, work.new / f"{name}.npy")
            volumes += [
                record for each in members if (record := _volume_record(*each, dataset.recipe.axis))
            ]
    work.put_in_place(
        dataclasses.replace(dataset, splits=splits, volumes=tuple(volumes), labels=assembly.labels)
    )


def _write_split(assembly: _Assembly, members: list[tuple[Part, Cut]], path: Path) -> Split:
    """Write the array of a split; each part is deleted once written, so the disk holds slices once."""
    size, count = assembly.size, sum(len(cut.numbers) for _, cut in members)
    records: list[SliceRecord] = []
    content: Box | None = None

    def pieces() -> Iterator[NDArray[np.uint8]]:
        nonlocal content
        for part, cut in members:
            planes = assembly.planes(part)
            for plane in planes:
                box = content_box(plane) if plane.min() == 0 else Box(0, 0, size, size)
                if box.bottom > box.top:
                    content = union(content, box) if content else box
            records.extend(_slice_records(part, cut))
            yield planes
            part.path.unlink()

    checksum = write_slices(path, (count, size, size), pieces())
    return Split(tuple(records), checksum, content or Box(0, 0, size, size))


def _slice_records(part: Part, cut: Cut) -> list[SliceRecord]:
    members = [part.members[place] for place in cut.places]
    sizes = {member.path: bytes_of(member.path) for member in members}
    return [
        SliceRecord(member.subject, member.name, sizes[member.path], shape, number)
        for member, shape, number in zip(members, cut.shapes, cut.numbers, strict=True)
    ]


def _volume_record(part: Part, cut: Cut, axis: str) -> VolumeRecord | None:
    """What the manifest says of a volume or a stack of 16-bit images; None for one of 8-bit images."""
    member = part.members[0]
    if not cut.axis_codes and cut.intensity is None:
        return None
    return VolumeRecord(
        member.name,
        member.session,
        member.variant.name,
        cut.axis_codes,
        cut.voxel_size,
        cut.intensity,
        cut.is_guessed,
        axis,
    )


def is_prepared_from(folder: Path, raw: Path, images: Images, size: int) -> bool:
    """Whether `folder` is the prepared dataset of the present files in `raw`, with these settings."""
    if not is_prepared(folder):
        return False
    dataset = open_dataset(folder)
    wanted = str(raw.resolve()), images, size, DEFAULT_RECIPE
    if (dataset.raw, dataset.images, dataset.size, dataset.recipe) != wanted:
        return False
    known = {
        (name, record.subject, record.source, record.source_bytes)
        for name, split in dataset.splits.items()
        for record in split.records
    }
    found = {(s.split, s.subject, s.name, bytes_of(s.path)) for s in find_members(raw, images).members}
    return known == found


def open_or_prepare(
    data: Path,
    cache: Path,
    *,
    images: Images,
    size: int,
    advance: Advance = lambda done, total: None,
    tell: Tell = lambda message: None,
    max_pixels: int = DEFAULT_MAX_PIXELS,
) -> Dataset:
    """Open `data` if it is a prepared dataset; else prepare it, as a raw folder, into `cache`.

    The dataset in `cache` is reused if it was made from the same files with the same settings.

    Raises:
        DatasetError, ImageError, FileError: see `preprocess`; the first bad file raises.
    """
    if is_prepared(data):
        return open_dataset(data)
    if is_prepared_from(cache, data, images, size):
        return open_dataset(cache)
    return preprocess(
        data,
        cache,
        images=images,
        size=size,
        force=True,
        jobs=None,
        advance=advance,
        tell=tell,
        max_pixels=max_pixels,
    )


@contextmanager
def opened_for_now(
    data: Path,
    cache: Path,
    *,
    images: Images,
    size: int,
    advance: Advance = lambda done, total: None,
    tell: Tell = lambda message: None,
    max_pixels: int = DEFAULT_MAX_PIXELS,
) -> Iterator[Dataset]:
    """Like `open_or_prepare`, but a newly prepared dataset is deleted when the block ends.

    Raises:
        DatasetError, ImageError, FileError: see `preprocess`; the first bad file raises.
    """
    if is_prepared(data):
        yield open_dataset(data)
    elif is_prepared_from(cache, data, images, size):
        yield dataclasses.replace(open_dataset(cache), named=data)
    else:
        with tempfile.TemporaryDirectory(prefix="oasisvq-") as folder:
            prepared = preprocess(
                data,
                Path(folder) / "dataset",
                images=images,
                size=size,
                jobs=None,
                advance=advance,
                tell=tell,
                max_pixels=max_pixels,
            )
            yield dataclasses.replace(prepared, named=data)
