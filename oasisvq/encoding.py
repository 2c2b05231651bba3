"""Scan files -> `.codes` files: one, or many with their tree kept; see `bulk.py`."""

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
from oasisvq.errors import FileError, ImageError, OasisVQError
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

ALL = -1  # volumes of a source
ALONE = "alone"  # assumed of an image in a run over stacks: that it is no slice of one
TO_DO = Result()  # of a task whose output is not there


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
        wish: how.
        force: overwrite.
        advance: told (slices done, slices in all).
        max_pixels: how large a scan may be, see `limits.py`.
        before_write: called with what will be written, to see that its model is kept.
        measures: whether to say what was kept, which takes decoding it.

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
        encoded = codec.encode_seen(scan, wish, advance)
    except ImageError as error:
        raise ImageError(f"{source.path}: {error}") from error
    written = container.read(encoded.content, str(codes))
    if source.states_now() != before:
        raise FileError(f"{source.path}: changed while it was encoded; run again when it is whole")
    refuse_overwrite(codes, force)  # another process may have written it meanwhile
    before_write(written.header)
    write_atomically(codes, encoded.content)
    return Written(written, kept_of(codec, encoded, source.size, measures))


def source_to_encode(path: Path) -> Source:
    """What a path is that is to be encoded; see `source_at`.

    Raises:
        OasisVQError: it is nothing that can be, or is named like what encoding gives.
    """
    if path.suffix == SUFFIX and not path.is_dir():
        raise ImageError(f"{path}: a {SUFFIX} file, not an image; did you mean `oasisvq decode`?")
    return source_at(path)


def one_or_all(source: Source, volume: int | None, max_pixels: int) -> list[Source]:
    """The volumes of a source that are meant, each as a source.

    Args:
        source: a file or series of one volume or several.
        volume: the number of one from 0, `ALL`, or None: it has but one.
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
    """What encoding assumes of a scan that nobody has said."""

    LABELS = "labels"
    UNPLACED = "unplaced"


def assumptions_of(source: Source, header: CodesHeader, wish: Wish) -> list[str]:
    """What was assumed of a source: that it holds labels, or how it lies in space."""
    found = []
    if wish.content is Content.AUTO and header.labels:
        found.append(Assumption.LABELS.value)
    is_analyze = header.volume is not None and header.volume.form is Form.ANALYZE
    if is_analyze and wish.axis is None and not axes_of_oasis(source.path.absolute().as_posix()):
        found.append(Assumption.UNPLACED.value)
    return found


def encoded_name(source: Source) -> Path:
    """scan.png or scan.nii.gz -> scan.codes beside it; a series gets its own in its folder."""
    folder = source.path if source.is_series else source.path.parent
    return folder / f"{source.name}{SUFFIX}"


class _Task(NamedTuple):
    """One file of a run: where it comes from, where its output goes, and who has that output."""

    source: Source
    codes: Path
    first: Path


def _by_volume(task: _Task, volume: int | None, max_pixels: int) -> list[_Task]:
    """The tasks of each volume that is meant; one that cannot be read stays whole, and fails later."""
    try:
        sources = one_or_all(task.source, volume, max_pixels)
    except OasisVQError:
        return [task]
    names = [task.codes.with_name(encoded_name(source).name) for source in sources]
    if len(sources) == 1 and sources[0].volume is None:
        names = [task.codes]
    return [_Task(source, codes, task.first) for source, codes in zip(sources, names, strict=True)]


@dataclass(frozen=True)
class _Encoder:
    """Does the tasks of one run; the model is read for the first that is not there yet."""

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
        codec = self._read()  # one that cannot be read ends the run
        return surviving(lambda: self._encode(task, codec), task.source.path)

    def look(self, task: _Task) -> Result:
        """`TO_DO`, or what became of it without encoding it."""
        return surviving(lambda: self._found(task), task.source.path)

    def _read(self) -> Codec:
        return self.codec.codec if isinstance(self.codec, LaterCodec) else self.codec

    def _found(self, task: _Task) -> Result:
        """`SKIPPED` where the output is there already, else `TO_DO`."""
        source, codes, first = task
        if first != source.path:
            raise FileError(
                f"{source.path}: its output {codes} is also that of {first.name}; rename one"
            )
        found = not self.force and not self.wish.demands.are_any
        if found and (header := _valid_header(codes, source, self.codec, self.wish)):
            self._carry_model(header)  # which someone may have taken away
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
            return SKIPPED  # another process was faster, or what is demanded gives the same
        assumed = assumptions_of(source, file.header, self.wish)
        if self.stacks and source.kind is SourceKind.IMAGE:
            assumed.append(ALONE)
        name = str(source.path)
        return Result(source.size, file.file_bytes, tuple(assumed), name=name, kept=kept)

    def _is_there(self, source: Source, codes: Path, codec: Codec) -> bool:
        """Whether what is in the way is what encoding gives; with demands, only that tells."""
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

    Of files with several volumes `volume` names one, see `one_or_all`; each gets a `.codes` file of
    its own. Which files of a folder `taken` says, and whether slices of one subject get one file.

    Files go to `output`, or beside themselves where that is None. What lies below a folder goes to the
    same place below `output`, and where there are several inputs below the folder's name there. A
    `.codes` file that is there, whole, as this run would make it and no older than its original is
    skipped; any other file in the way is a failure unless `force`. All shards together, and any number
    of jobs, write what one run writes. Two runs that share no work are no harm either: each file is
    written whole. A full disk ends the run. With `carries_model` the model is put into `output`, once.
    `log` is told of every file, see `log_row`; what was kept is measured unless `measures` is False.

    Raises:
        FileError: there is nothing to encode, or two folders have one name.
        ModelError: the wish does not fit the model.
    """
    codec.levels_for(wish, False)  # may be none of the model's
    codec.check_coder(wish.coder)
    outcome = Outcome()
    refuse_like_names(inputs)

    def tasks(outcome: Outcome) -> Iterator[_Task]:
        for task in _tasks(inputs, output, outcome, taken, max_pixels):
            yield from _by_volume(task, volume, max_pixels)

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
        source: of it.
        codes: where it would be encoded to.
        failure: why it would fail, as far as is known before; else empty.
        is_there: whether what a run would make is there already.
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
    """What `encode_many` would take, in its order; `outcome` is told what it passes over."""
    codec.levels_for(wish, False)
    wish = wish._replace(coder=codec.check_coder(wish.coder))
    refuse_like_names(inputs)
    encoder = _Encoder(codec, wish, force, max_pixels, None, measures=False, stacks=taken.stacks)
    ones = _tasks(inputs, output, outcome, taken, max_pixels)
    each = (task for one in ones for task in _by_volume(one, volume, max_pixels))
    for task in (task for place, task in enumerate(each) if shard.takes(place)):
        result = encoder.look(task)
        failure = result.failure
        if result is TO_DO and task.codes.exists() and not (force or wish.demands.are_any):
            failure = f"{task.codes}: exists; pass -f to overwrite it or name another output"
        yield Found(task.source, task.codes, failure, result.is_skipped)


def _tasks(
    inputs: Sequence[Path], output: Path | None, outcome: Outcome, taken: Taken, max_pixels: int
) -> Iterator[_Task]:
    """Every source of the inputs with its output, in a fixed order."""
    named: dict[Path, Path] = {}  # outputs of the inputs themselves; of what lies below, a folder's
    for is_folder, paths in groupby(inputs, Path.is_dir):
        if is_folder:
            assert output is not None
            for path in paths:
                below = output / path.resolve().name if len(inputs) > 1 else output
                yield from _tasks_below(path, below, outcome, taken, max_pixels)
            continue
        for source in taken.of_named(_sources_named(paths, outcome), max_pixels):
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
    folder: Path, output: Path, outcome: Outcome, taken: Taken, max_pixels: int
) -> Iterator[_Task]:
    passed_over, nothing = PassedOver(), True
    parent: Path | None = None
    outputs: dict[Path, Path] = {}
    for source in taken.below(folder, passed_over, max_pixels):
        place = encoded_name(source)
        if place.parent != parent:  # the walk lists one folder after the other
            parent, outputs = place.parent, {}
            remove_temporaries(output / parent.relative_to(folder))
        nothing = False
        first = outputs.setdefault(place, source.path)
        yield _Task(source, output / place.relative_to(folder), first)
    outcome.passed_over.counts += passed_over.counts
    if nothing:
        told = f"; {passed_over}" if str(passed_over) else ""
        raise FileError(f"{folder}: no images or volumes ({', '.join(SCAN_SUFFIXES)}) in it{told}")


def _valid_header(
    codes: Path, source: Source, codec: Codec | LaterCodec, wish: Wish
) -> CodesHeader | None:
    """That of codes which are there already, if encoding the source anew would give the same."""
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
