"""Scan files -> `.codes` files: one, or many with their tree kept; see `bulk.py`."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from oasisvq.bulk import SKIPPED, Advance, Outcome, Result, refuse_like_names, run_tasks, surviving
from oasisvq.codec import container
from oasisvq.codec.codec import Codec
from oasisvq.codec.codes import CodesFile
from oasisvq.codec.container import SUFFIX, read_codes_file
from oasisvq.codec.headers import Coder
from oasisvq.codec.wish import Content, Wish
from oasisvq.errors import FileError, ImageError, OasisVQError
from oasisvq.files import (
    make_folder,
    refuse_overwrite,
    remove_temporaries,
    require_output,
    write_atomically,
)
from oasisvq.folders import WHOLE, PassedOver, Shard
from oasisvq.scans.limits import DEFAULT_MAX_PIXELS
from oasisvq.scans.scan import read_scan, slicing_of
from oasisvq.scans.source import SCAN_SUFFIXES, Source, source_at, sources_below


def encode_file(
    codec: Codec,
    source: Source,
    codes: Path,
    wish: Wish,
    force: bool,
    advance: Advance = lambda done, total: None,
    max_pixels: int = DEFAULT_MAX_PIXELS,
) -> CodesFile:
    """Encode an image, a volume or a DICOM series; returns what was written.

    Args:
        codec: to encode with.
        source: what to encode.
        codes: the file to write.
        wish: how.
        force: overwrite.
        advance: told (slices done, slices in all).
        max_pixels: how large a scan may be, see `limits.py`.

    Raises:
        OasisVQError: the input cannot be read or changes meanwhile, or the output cannot be written;
            nothing is left.
    """
    before = source.states
    if source.holds(codes):
        raise FileError(f"{codes}: is what is to be encoded; name another output")
    require_output(codes, force)
    scan = read_scan(source, wish.axis, max_pixels)
    try:
        content = codec.encode_scan(scan, wish, advance)
    except ImageError as error:
        raise ImageError(f"{source.path}: {error}") from error
    written = container.read(content, str(codes))
    if source.states_now() != before:
        raise FileError(f"{source.path}: changed while it was encoded; run again when it is whole")
    refuse_overwrite(codes, force)  # another process may have written it meanwhile
    write_atomically(codes, content)
    return written


def source_to_encode(path: Path) -> Source:
    """What a path is that is to be encoded; see `source_at`.

    Raises:
        OasisVQError: it is nothing that can be, or is named like what encoding gives.
    """
    if path.suffix == SUFFIX and not path.is_dir():
        raise ImageError(f"{path}: a {SUFFIX} file, not an image; did you mean `oasisvq decode`?")
    return source_at(path)


def encoded_name(source: Source) -> Path:
    """scan.png or scan.nii.gz -> scan.codes beside it; a series gets its own in its folder."""
    folder = source.path if source.is_series else source.path.parent
    return folder / f"{source.name}{SUFFIX}"


class _Task(NamedTuple):
    """One file of a run: where it comes from, where its output goes, and who has that output."""

    source: Source
    codes: Path
    first: Path


@dataclass(frozen=True)
class _Encoder:
    """Does the tasks of one run."""

    codec: Codec
    wish: Wish
    force: bool
    max_pixels: int

    def __call__(self, task: _Task) -> Result:
        return surviving(lambda: self._encode(task), task.source.path)

    def _encode(self, task: _Task) -> Result:
        source, codes, first = task
        if first != source.path:
            raise FileError(
                f"{source.path}: its output {codes} is also that of {first.name}; rename one"
            )
        if not self.force and _is_valid(codes, source, self.codec, self.wish):
            return SKIPPED
        make_folder(codes.parent)
        try:
            file = encode_file(
                self.codec, source, codes, self.wish, self.force, max_pixels=self.max_pixels
            )
        except FileError:
            if self.force or not _is_valid(codes, source, self.codec, self.wish):
                raise
            return SKIPPED  # another process was faster
        return Result(source.size, file.file_bytes)


def encode_many(
    codec: Codec,
    inputs: Sequence[Path],
    output: Path | None,
    wish: Wish,
    force: bool,
    shard: Shard = WHOLE,
    advance: Advance = lambda done, total: None,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    jobs: int = 1,
) -> Outcome:
    """Encode files, and the images, volumes and DICOM series below folders; or one shard of them.

    Files go to `output`, or beside themselves where that is None. What lies below a folder goes to the
    same place below `output`, and where there are several inputs below the folder's name there. A
    `.codes` file that is there, whole, as this run would make it and no older than its original is
    skipped; any other file in the way is a failure unless `force`. All shards together, and any number
    of jobs, write what one run writes. Two runs that share no work are no harm either: each file is
    written whole. A full disk ends the run.

    Raises:
        FileError: there is nothing to encode, or two folders have one name.
        ModelError: the wish does not fit the model.
    """
    codec.levels_for(wish, False)  # may be none of the model's
    wish = wish._replace(coder=codec.check_coder(wish.coder))
    outcome = Outcome()
    refuse_like_names(inputs)

    def tasks(outcome: Outcome) -> Iterator[_Task]:
        return _tasks(inputs, output, outcome)

    encoder = _Encoder(codec, wish, force, max_pixels)
    run_tasks(encoder, tasks, outcome, shard, advance, jobs)
    return outcome


def _tasks(inputs: Sequence[Path], output: Path | None, outcome: Outcome) -> Iterator[_Task]:
    """Every source of the inputs with its output, in a fixed order."""
    named: dict[Path, Path] = {}  # outputs of the inputs themselves; of what lies below, a folder's
    for path in inputs:
        if path.is_dir():
            assert output is not None
            below = output / path.resolve().name if len(inputs) > 1 else output
            yield from _tasks_below(path, below, outcome)
            continue
        try:
            source = source_to_encode(path)
        except OasisVQError as error:
            outcome.failures.append(str(error))
            continue
        beside = encoded_name(source)
        codes = output / beside.name if output else beside
        yield _Task(source, codes, named.setdefault(codes, path))


def _tasks_below(folder: Path, output: Path, outcome: Outcome) -> Iterator[_Task]:
    passed_over, nothing = PassedOver(), True
    parent: Path | None = None
    taken: dict[Path, Path] = {}
    for source in sources_below(folder, passed_over):
        place = encoded_name(source)
        if place.parent != parent:  # the walk lists one folder after the other
            parent, taken = place.parent, {}
            remove_temporaries(output / parent.relative_to(folder))
        nothing = False
        first = taken.setdefault(place, source.path)
        yield _Task(source, output / place.relative_to(folder), first)
    outcome.passed_over.counts += passed_over.counts
    if nothing:
        told = f"; {passed_over}" if str(passed_over) else ""
        raise FileError(f"{folder}: no images or volumes ({', '.join(SCAN_SUFFIXES)}) in it{told}")


def _is_valid(codes: Path, source: Source, codec: Codec, wish: Wish) -> bool:
    """Whether there are codes already, and encoding the source anew would give the same."""
    if not (codes.exists() and codes.stat().st_mtime_ns >= source.changed_ns):
        return False
    try:
        header = read_codes_file(codes).header
        is_sliced_so = header.volume is None or header.volume.slicing == slicing_of(
            header.volume.geometry, wish.axis
        )
    except OasisVQError:
        return False
    holds = Content.LABELS if header.labels else Content.SCAN
    if not is_sliced_so or wish.content not in (Content.AUTO, holds):
        return False
    if header.labels and (header.coder is Coder.LABELS) == wish.lossy:
        return False
    if header.coder is Coder.LABELS:
        return True
    bound = header.residue.binning.bound if header.residue else None
    kept = header.coder, header.levels, header.fingerprint, bound
    levels = codec.levels_for(wish, header.volume is not None)
    return kept == (wish.coder, levels, codec.fingerprint, wish.bound)
