"""Scan files -> `.codes` files: one, or many in the same folder tree; see `bulk.py`."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from oasisvq.bulk import SKIPPED, Advance, Outcome, Result, refuse_like_names, run_tasks, surviving
from oasisvq.codec import container
from oasisvq.codec.codec import Codec
from oasisvq.codec.codes import CodesFile
from oasisvq.codec.container import SUFFIX, read_codes_file
from oasisvq.codec.content import Content
from oasisvq.codec.headers import Coder, CodesHeader
from oasisvq.codec.wish import Wish
from oasisvq.errors import FileError, ImageError, ModelError, OasisVQError
from oasisvq.files import (
    make_folder,
    read_bytes,
    refuse_overwrite,
    remove_temporaries,
    require_output,
    write_atomically,
)
from oasisvq.folders import WHOLE, PassedOver, Shard
from oasisvq.kept import Kept, kept_of, log_row
from oasisvq.later import LaterCodec
from oasisvq.model_store import carried_name, carry
from oasisvq.scans.geometry import Form
from oasisvq.scans.limits import DEFAULT_MAX_PIXELS, MAX_FILE_BYTES
from oasisvq.scans.scan import read_scan, slicing_of, volumes_in
from oasisvq.scans.source import SCAN_SUFFIXES, Source, SourceKind, source_at
from oasisvq.scans.words import axes_of_oasis
from oasisvq.stacks import ALL_OF_THEM, Taken

ALL = -1  # all volumes of a source
ALONE = "alone"  # assumption about an image in a run over stacks: it is not a slice of a stack
TO_DO = Result()  # for a task that is to be encoded, or at least tried


class Written(NamedTuple):
    """A `.codes` file that was written, and what it kept."""

    file: CodesFile
    kept: Kept


def encode_file(
    codec: Codec,
    source: Source,
    codes: Path,
    wish: Wish,
    force: bool,
    advance: Advance = lambda done, total: None,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    before_write: Callable[[CodesHeader], None] = lambda header: None,
    measures: bool = True,
) -> Written:
    """Encode an image, a volume or a DICOM series; returns what was written.

    Args:
        codec: to encode with.
        source: what to encode.
        codes: the file to write.
        wish: how to encode.
        force: overwrite an existing file.
        advance: called with (slices done, slices in all).
        max_pixels: how large a scan may be, see `limits.py`.
        before_write: called before the file is written, to make sure that its model is kept.
        measures: whether to measure the quality, for which the file is decoded.

    Raises:
        OasisVQError: the input cannot be read, or changes during encoding, or the output cannot be
            written; no partial output remains.
    """
    before = source.states
    if source.holds(codes):
        raise FileError(f"{codes}: is the input itself; name another output")
    require_output(codes, force)
    scan = read_scan(source, wish.axis, max_pixels)
    try:
        encoded = codec.encode_seen(scan, wish, advance)
    except (ImageError, ModelError) as error:
        raise type(error)(f"{source.path}: {error}") from error
    written = container.read(encoded.content, str(codes))
    if source.states_now() != before:
        raise FileError(f"{source.path}: changed while it was encoded; run again when it is complete")
    refuse_overwrite(codes, force)  # another process may have written it in the meantime
    before_write(written.header)
    write_atomically(codes, encoded.content)
    return Written(written, kept_of(codec, encoded, source.size, measures))


def source_to_encode(path: Path) -> Source:
    """The source at a path that is to be encoded; see `source_at`.

    Raises:
        OasisVQError: it cannot be encoded, or has the name of a `.codes` file.
    """
    if path.suffix == SUFFIX and not path.is_dir():
        raise ImageError(f"{path}: a {SUFFIX} file, not an image; did you mean `oasisvq decode`?")
    return source_at(path)


def one_or_all(source: Source, volume: int | None, max_pixels: int) -> list[Source]:
    """The chosen volumes of a source, each as a source.

    Args:
        source: a file or series of one volume or several.
        volume: the number of one volume, from 0; `ALL`; or None if there is only one.
        max_pixels: how large a volume may be.

    Raises:
        OasisVQError: its headers cannot be read.
    """
    count = 1 if volume is None else volumes_in(source, max_pixels)
    if volume is None or (count == 1 and volume in (0, ALL)):
        return [source]
    chosen = range(count) if volume == ALL else [volume]
    return [replace(source, volume=each) for each in chosen]


class Assumption(str, Enum):
    """What encoding may assume about a scan without being told."""

    LABELS = "labels"
    UNPLACED = "unplaced"


def assumptions_of(source: Source, header: CodesHeader, wish: Wish) -> list[str]:
    """What was assumed about a source: that it holds labels, or its orientation."""
    found = []
    if wish.content is Content.AUTO and header.labels:
        found.append(Assumption.LABELS.value)
    is_analyze = header.volume is not None and header.volume.form is Form.ANALYZE
    if is_analyze and wish.axis is None and not axes_of_oasis(source.path.absolute().as_posix()):
        found.append(Assumption.UNPLACED.value)
    return found


def encoded_name(source: Source) -> Path:
    """scan.png or scan.nii.gz -> scan.codes beside it; for a DICOM series, a file in its folder."""
    folder = source.path if source.is_series else source.path.parent
    return folder / f"{source.name}{SUFFIX}"


class _Task(NamedTuple):
    """One file of a run: its source, its output, and which source has claimed that output."""

    source: Source
    codes: Path
    first: Path


def _by_volume(source: Source, volume: int | None, max_pixels: int) -> list[Source]:
    """Each chosen volume of a source; an unreadable source stays one, which fails later."""
    try:
        return one_or_all(source, volume, max_pixels)
    except OasisVQError:
        return [source]


@dataclass(frozen=True)
class _Encoder:
    """Does the tasks of one run; the model is read for the first output that does not exist yet."""

    codec: Codec | LaterCodec
    wish: Wish
    force: bool
    max_pixels: int
    carried_in: Path | None
    measures: bool
    stacks: bool

    def __call__(self, task: _Task) -> Result:
        found = self.look(task)
        if found is not TO_DO:
            return found
        codec = self._read()  # a model that cannot be read ends the run
        return surviving(lambda: self._encode(task, codec), task.source.path)

    def look(self, task: _Task) -> Result:
        """`TO_DO`, or the result of a task that needs no encoding."""
        return surviving(lambda: self._found(task), task.source.path)

    def compare(self, task: _Task, codec: Codec) -> Result:
        """`SKIPPED` if the existing output is what encoding gives, else `TO_DO`."""

        def found() -> Result:
            return SKIPPED if self._is_there(task.source, task.codes, codec) else TO_DO

        return surviving(found, task.source.path)

    def _read(self) -> Codec:
        return self.codec.codec if isinstance(self.codec, LaterCodec) else self.codec

    def _found(self, task: _Task) -> Result:
        """`SKIPPED` if the output exists and is up to date, else `TO_DO`.

        Raises:
            FileError: the output is that of another source too.
        """
        source, codes, first = task
        if first != source.path:
            raise FileError(
                f"{source.path}: its output {codes} would replace that of {first.name}; rename one"
            )
        may_skip = not self.force and not self.wish.demands.are_any
        if may_skip and (header := _valid_header(codes, source, self.codec, self.wish)):
            self._carry_model(header)  # someone may have removed the copy
            return SKIPPED
        return TO_DO

    def _encode(self, task: _Task, codec: Codec) -> Result:
        source, codes, _ = task
        make_folder(codes.parent)
        try:
            file, kept = encode_file(
                codec,
                source,
                codes,
                self.wish,
                self.force,
                max_pixels=self.max_pixels,
                before_write=self._carry_model,
                measures=self.measures,
            )
        except FileError:
            if self.force or not self._is_there(source, codes, codec):
                raise
            return SKIPPED  # another process was faster, or the demands gave the same file
        assumed = assumptions_of(source, file.header, self.wish)
        if self.stacks and source.kind is SourceKind.IMAGE:
            assumed.append(ALONE)
        name = str(source.path)
        return Result(source.size, file.file_bytes, tuple(assumed), name=name, kept=kept)

    def _is_there(self, source: Source, codes: Path, codec: Codec) -> bool:
        """Whether the existing file is what encoding gives; with demands, only encoding can tell."""
        if not self.wish.demands.are_any:
            return _valid_header(codes, source, codec, self.wish) is not None
        try:
            written = read_bytes(codes, MAX_FILE_BYTES)
        except OasisVQError:
            return False
        scan = read_scan(source, self.wish.axis, self.max_pixels)
        return codec.encode_scan(scan, self.wish) == written

    def _carry_model(self, header: CodesHeader) -> None:
        if self.carried_in is None or header.coder is Coder.LABELS:
            return
        carried = self.carried_in / carried_name(self.codec.fingerprint.hex())
        if not (isinstance(self.codec, LaterCodec) and self.codec.lies_at(carried)):
            carry(self._read().file, self.carried_in, self.force)


def encode_many(
    codec: Codec | LaterCodec,
    inputs: Sequence[Path],
    output: Path | None,
    wish: Wish,
    force: bool,
    shard: Shard = WHOLE,
    advance: Advance = lambda done, total: None,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    jobs: int = 1,
    carries_model: bool = False,
    volume: int | None = None,
    measures: bool = True,
    log: Callable[[dict[str, Any]], None] = lambda row: None,
    taken: Taken = ALL_OF_THEM,
) -> Outcome:
    """Encode files, and the images, volumes and DICOM series below folders; or one shard of them.

    `volume` chooses from files with several volumes, see `one_or_all`; each chosen volume gets its own
    `.codes` file. `taken` says which files of a folder are encoded, and whether the slices of a subject
    become one file.

    Outputs of files go to `output`, or beside the files if it is None. What lies below a folder goes to
    the same place below `output`; with several inputs, below a folder with the name of the input. A
    `.codes` file is skipped if it is whole, keeps the wished levels or bound, and is not older than its
    original; the voxels are not compared. Any other file in the way is a failure unless `force`. All
    shards together write the same files as a single run, with any number of jobs. Two runs at once do no
    harm: each file is written as a whole. A full disk ends the run. With `carries_model`, the model is
    copied into `output`, once. `log` gets a row for every file, see `log_row`. Quality is measured
    unless `measures` is False.

    Raises:
        FileError: there is nothing to encode, or two folders have one name.
        ModelError: the wish does not fit the model.
    """
    codec.levels_for(wish, False)  # raises if the model has no such levels
    codec.check_coder(wish.coder)
    outcome = Outcome()
    refuse_like_names(inputs)

    def tasks(outcome: Outcome) -> Iterator[_Task]:
        return _tasks(inputs, output, outcome, taken, max_pixels, volume)

    carried_in = output if carries_model else None
    encoder = _Encoder(codec, wish, force, max_pixels, carried_in, measures, taken.stacks)

    def tell(task: _Task, result: Result) -> None:
        status = "failed" if result.failure else "already there" if result.is_skipped else "encoded"
        log(log_row(task.source.path, task.codes, status, result.kept, result.failure))

    run_tasks(encoder, tasks, outcome, shard, advance, jobs, tell)
    return outcome


class Found(NamedTuple):
    """A scan that a run would take.

    Attributes:
        source: the source of the scan.
        codes: the file that would be written.
        failure: why it would fail, if that is known in advance; else empty.
        is_there: whether the output exists already and is up to date.
    """

    source: Source
    codes: Path
    failure: str = ""
    is_there: bool = False

    @property
    def is_to_do(self) -> bool:
        """Whether it would be encoded."""
        return not self.failure and not self.is_there


def found_of(
    codec: Codec,
    inputs: Sequence[Path],
    output: Path | None,
    wish: Wish,
    force: bool,
    shard: Shard,
    max_pixels: int,
    volume: int | None,
    outcome: Outcome,
    taken: Taken = ALL_OF_THEM,
) -> Iterator[Found]:
    """The scans that `encode_many` would take, in its order; `outcome` counts what is passed over."""
    codec.levels_for(wish, False)
    codec.check_coder(wish.coder)
    refuse_like_names(inputs)
    encoder = _Encoder(codec, wish, force, max_pixels, None, measures=False, stacks=taken.stacks)
    tasks = _tasks(inputs, output, outcome, taken, max_pixels, volume)
    for task in (task for place, task in enumerate(tasks) if shard.takes(place)):
        result = encoder.look(task)
        is_in_the_way = result is TO_DO and task.codes.exists() and not force
        if is_in_the_way and wish.demands.are_any:  # only encoding can tell whether it gives this file
            result = encoder.compare(task, codec)
        failure = result.failure
        if is_in_the_way and result is TO_DO:
            failure = f"{task.codes}: exists; pass -f to overwrite it or name another output"
        yield Found(task.source, task.codes, failure, result.is_skipped)


def _tasks(
    inputs: Sequence[Path],
    output: Path | None,
    outcome: Outcome,
    taken: Taken,
    max_pixels: int,
    volume: int | None,
) -> Iterator[_Task]:
    """Every source of the inputs, or each chosen volume of it, with its output, in a fixed order."""
    named: dict[Path, Path] = {}  # outputs of the inputs themselves; for a folder, of what lies below it
    for is_folder, paths in groupby(inputs, Path.is_dir):
        if is_folder:
            assert output is not None
            for path in paths:
                below = output / path.resolve().name if len(inputs) > 1 else output
                yield from _tasks_below(path, below, outcome, taken, max_pixels, volume)
            continue
        for whole in taken.of_named(_sources_named(paths, outcome), max_pixels):
            for source in _by_volume(whole, volume, max_pixels):
                beside = encoded_name(source)
                codes = output / beside.name if output else beside
                yield _Task(source, codes, named.setdefault(codes, source.path))


def _sources_named(paths: Iterable[Path], outcome: Outcome) -> Iterator[Source]:
    for path in paths:
        try:
            yield source_to_encode(path)
        except OasisVQError as error:
            outcome.failures.append(str(error))


def _tasks_below(
    folder: Path,
    output: Path,
    outcome: Outcome,
    taken: Taken,
    max_pixels: int,
    volume: int | None,
) -> Iterator[_Task]:
    passed_over, nothing = PassedOver(), True
    parent: Path | None = None
    outputs: dict[Path, Path] = {}
    for whole in taken.below(folder, passed_over, max_pixels):
        nothing = False
        for source in _by_volume(whole, volume, max_pixels):
            place = encoded_name(source)
            if place.parent != parent:  # the walk lists the folders one after another
                parent, outputs = place.parent, {}
                remove_temporaries(output / parent.relative_to(folder))
            first = outputs.setdefault(place, source.path)
            yield _Task(source, output / place.relative_to(folder), first)
    outcome.passed_over.counts += passed_over.counts
    if nothing:
        told = f"; {passed_over}" if str(passed_over) else ""
        raise FileError(f"{folder}: no images or volumes ({', '.join(SCAN_SUFFIXES)}) in it{told}")


def _valid_header(
    codes: Path, source: Source, codec: Codec | LaterCodec, wish: Wish
) -> CodesHeader | None:
    """The header of existing codes, if they keep what the wish asks for.

    Whether they were encoded with feedback, or labels as a scan, is not looked at.
    """
    if not (codes.exists() and codes.stat().st_mtime_ns >= source.changed_ns):
        return None
    try:
        header = read_codes_file(codes).header
        is_alike = header.stack == source.stack
        is_sliced_so = header.volume is None or header.volume.slicing == slicing_of(
            header.volume.geometry, wish.axis, source.path
        )
    except OasisVQError:
        return None
    holds = Content.LABELS if header.labels else Content.SCAN
    if not (is_alike and is_sliced_so) or wish.content not in (Content.AUTO, holds):
        return None
    if header.labels and (header.coder is Coder.LABELS) == wish.lossy:
        return None
    if header.coder is Coder.LABELS:
        return header
    bound = header.residue.binning.bound if header.residue else None
    kept = header.coder, header.levels, header.fingerprint, bound
    is_volume = header.volume is not None
    levels, coder = codec.levels_for(wish, is_volume), codec.check_coder(wish.coder, is_volume)
    return header if kept == (coder, levels, codec.fingerprint, wish.bound) else None
