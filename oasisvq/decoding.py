"""`.codes` files and array files -> scan files: one, or many in the same folder tree; see `bulk.py`."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

from oasisvq.bulk import SKIPPED, Advance, Outcome, Result, refuse_like_names, run_tasks, surviving
from oasisvq.codec.codec import Codec
from oasisvq.codec.codes import Codes, CodesFile
from oasisvq.codec.container import SUFFIX, read_codes_file
from oasisvq.codec.headers import CodesHeader, refuse_large_codes
from oasisvq.errors import FileError, ImageError, OasisVQError
from oasisvq.files import make_folder, remove_temporaries, require_output
from oasisvq.folders import EVERYTHING, WHOLE, Globs, Shard, walk
from oasisvq.models import ModelFinder
from oasisvq.scans.images import STACK_SUFFIXES, WRITABLE_SUFFIXES, read_image
from oasisvq.scans.limits import DEFAULT_MAX_PIXELS
from oasisvq.scans.scan import require_writable, write_scan, write_stack
from oasisvq.scans.volumes import read_volume, volume_suffix, written_files
from oasisvq.tokens import TOKEN_SUFFIXES, Tokens, read_tokens


def decode_target(codes: Path, output: Path | None, folder: Path | None, force: bool) -> Path:
    """The output of a `.codes` file: the named file, x.png in the named folder, or `decoded_name`.

    For a stack it is the folder for its images, unless a volume or TIFF file is named.

    Raises:
        OasisVQError: something is in the way, the ending is wrong, or the header is damaged.
    """
    if output is not None and output.suffix:
        _require_outputs(output, force)
    header = read_codes_file(codes).header
    if folder is not None:
        make_folder(folder)
        output = folder if header.stack else folder / f"{codes.stem}{_ending(header)}"
    written = output or decoded_name(codes, header)
    if _is_folder(written, header):
        _require_images(_images_in(written, header), force)
        return written
    _require_outputs(written, force)
    is_image = volume_suffix(written) is None and written.suffix.lower() not in STACK_SUFFIXES
    if is_image and header.slices > 1:
        raise ImageError(
            f"{written}: an image cannot hold {header.slices} slices; name a .nii.gz, .nii, .img or .tif"
        )
    return written


def decode_file(
    find: ModelFinder,
    codes: Path,
    output: Path,
    force: bool,
    advance: Advance = lambda done, total: None,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    levels: int | None = None,
) -> list[Path]:
    """Decode one `.codes` file to an image or a volume, by the model that `find` gives.

    With `levels`, only so many levels of the indices are decoded. For a stack, `output` may be a folder
    for its images, which is created.

    Returns:
        The files that were written.

    Raises:
        OasisVQError: the input cannot be read or the output cannot be written; no partial output
            remains.
    """
    file = read_codes_file(codes)
    into_folder = _is_folder(output, file.header)
    images = _images_in(output, file.header) if into_folder else []
    require = partial(_require_images, images) if into_folder else partial(_require_outputs, output)
    require(force)
    refuse_large_codes(file.header, str(codes), max_pixels)
    codec = Codec(find(file.header, codes))
    scan = codec.decode_codes(codec.codes_of(file), str(codes), advance, levels)
    require(force)  # another process may have written it in the meantime
    if into_folder:
        write_stack(list(scan.planes), images)
        return images
    write_scan(scan, output)
    return written_files(output)


def _is_folder(output: Path, header: CodesHeader) -> bool:
    """Whether an output is a folder for the images of a stack, and not one file with its slices."""
    names_file = volume_suffix(output) is not None or output.suffix.lower() in WRITABLE_SUFFIXES
    return header.stack is not None and (output.is_dir() or not names_file)


def _images_in(folder: Path, header: CodesHeader) -> list[Path]:
    """Where the images of a stack go."""
    assert header.stack is not None
    return [folder / name for name in header.stack.written_names]


def _require_images(images: Sequence[Path], force: bool) -> None:
    """Require all images of a stack; their folder may be missing, but its parent folder may not."""
    folder = images[0].parent
    if not folder.is_dir():
        require_output(folder, force=False)
        return
    for path in images:
        require_output(path, force)


def _require_outputs(output: Path, force: bool) -> None:
    """Both files of a pair count."""
    require_writable(output)
    for path in written_files(output):
        require_output(path, force)


def decoded_name(codes: Path, header: CodesHeader) -> Path:
    """scan.codes -> scan.decoded.png beside it, so that it never collides with scan.png.

    A volume becomes .nii.gz, or .img and .hdr if it came as such a pair. A stack becomes a folder.
    """
    return codes.with_suffix(f".decoded{_ending(header)}")


def _ending(header: CodesHeader) -> str:
    if header.volume is None or header.stack:
        return "" if header.stack else ".png"
    return ".img" if header.volume.form.is_pair else ".nii.gz"


class _Task(NamedTuple):
    """One scan of a run.

    Attributes:
        file: a `.codes` file, or an array file.
        output: the path of the output, without the ending.
        place: the number of the slice in an array file; None for a `.codes` file.
        first: the first of the named files that has this output.
        is_beside: whether the output may lie beside the original; its name then ends in `.decoded`.
    """

    file: Path
    output: Path
    place: int | None = None
    first: Path | None = None
    is_beside: bool = False

    def written(self, header: CodesHeader) -> list[Path]:
        """The files that codes with this header are decoded to.

        `encode` names a stack after its images. The images of such a stack go directly into the folder
        of the codes, below the output, as before encoding. A stack with another name, or beside codes of
        one of its images, gets a folder of its name.
        """
        if header.stack is None:
            return written_files(self.output.with_name(self.output.name + _ending(header)))
        above = self.output.parent
        is_theirs = not self.is_beside and self.output.name == (
            header.stack.stem or above.resolve().name
        )
        alone = (self.file.with_name(Path(name).stem + SUFFIX) for name in header.stack.names)
        is_theirs = is_theirs and not any(map(Path.exists, alone))
        return _images_in(above if is_theirs else self.output, header)


@dataclass(frozen=True)
class _Decoder:
    """Does the tasks of one run."""

    find: ModelFinder
    arrays: dict[Path, Tokens]
    force: bool
    max_pixels: int
    levels: int | None

    def __call__(self, task: _Task) -> Result:
        name = task.file
        if task.place is not None:
            name /= self.arrays[task.file].names[task.place]
        return surviving(lambda: self._decode(task, str(name)), name)

    def find_first(self, tasks: Iterable[_Task]) -> None:
        """Find the model of the first task, so that it is reported once and each process gets it."""
        for task in tasks:
            with suppress(OasisVQError):
                header = self._read(task).header
                if not self._is_done(header, task):
                    self.find(header, task.file)
                    return

    def _read(self, task: _Task) -> Codes | CodesFile:
        if task.place is None:
            return read_codes_file(task.file)
        return self.arrays[task.file].codes(task.place)

    def _is_done(self, header: CodesHeader, task: _Task) -> bool:
        """Whether the output exists, matches the codes and is not older."""
        return not self.force and self._are_done(task.written(header), header, task.file)

    def _are_done(self, outputs: Sequence[Path], header: CodesHeader, file: Path) -> bool:
        """Whether decoded files exist, whole and not older than their codes."""
        if not all(_is_newer(output, file) for output in outputs):
            return False
        if header.stack is None:
            return _fits(outputs[0], header, self.max_pixels)
        return all(_fits_image(output, header, self.max_pixels) for output in outputs)

    def _decode(self, task: _Task, name: str) -> Result:
        file, first = task.file, task.first
        if first not in (None, file):
            raise FileError(
                f"{file}: its output {task.output} would replace that of {first}; rename one"
            )
        codes = self._read(task)
        header = codes.header
        refuse_large_codes(header, name, self.max_pixels)
        outputs = task.written(header)
        # checked once: another run with this output would write the same bytes from here on
        may_write = self.force or not any(path.exists() for path in outputs)
        if not may_write and self._are_done(outputs, header, file):
            return SKIPPED
        left = list(range(len(outputs)))  # the images of a stack that a killed run has not written
        if header.stack and not may_write:
            left = [place for place in left if not self._are_done([outputs[place]], header, file)]
        make_folder(outputs[0].parent)
        for place in left:
            require_writable(outputs[place])
            require_output(outputs[place], may_write)
        codec = Codec(self.find(header, file))
        if isinstance(codes, CodesFile):
            codes = codec.codes_of(codes)
        scan = codec.decode_codes(codes, name, levels=self.levels)
        if header.stack:
            write_stack([scan.planes[place] for place in left], [outputs[place] for place in left])
        else:
            write_scan(scan, outputs[0])
        return Result(codes.file_bytes, sum(path.stat().st_size for path in outputs))


def decode_many(
    find: ModelFinder,
    inputs: Sequence[Path],
    output: Path | None,
    force: bool,
    shard: Shard = WHOLE,
    advance: Advance = lambda done, total: None,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    jobs: int = 1,
    levels: int | None = None,
    globs: Globs = EVERYTHING,
) -> Outcome:
    """Decode `.codes` files, those below folders and the slices of array files; or one shard of them.

    `find` gives the model of each file, so that one folder may hold files of several models. Outputs are
    placed as in `encode_many`; those of an array file are named by the names in it. An output that
    exists, matches its codes and is not older is skipped. Anything else in the way is a failure unless
    `force`. If `output` is None or the folder itself, x.codes becomes x.decoded.png, so that it never
    replaces the original.

    Raises:
        FileError: there are no `.codes` files, or two folders have one name.
        CodesFileError: an array file is damaged.
    """
    outcome = Outcome()
    refuse_like_names(inputs)
    arrays = {path: read_tokens(path) for path in inputs if path.suffix in TOKEN_SUFFIXES}

    def tasks(outcome: Outcome) -> Iterator[_Task]:
        named: dict[Path, Path] = {}
        for path in inputs:
            if path in arrays:
                assert output is not None
                yield from _tasks_of(arrays[path], path, output, named)
            elif path.is_dir():
                assert output is not None
                below = output / path.resolve().name if len(inputs) > 1 else output
                yield from _tasks_below(path, below, outcome, globs)
            else:
                place = output / path.stem if output else path.with_suffix(".decoded")
                first = named.setdefault(place, path)
                yield _Task(path, place, first=first, is_beside=output is None)

    decoder = _Decoder(find, arrays, force, max_pixels, levels)
    if jobs > 1:
        decoder.find_first(tasks(Outcome()))
    run_tasks(decoder, tasks, outcome, shard, advance, jobs)
    return outcome


def _tasks_of(tokens: Tokens, path: Path, output: Path, named: dict[Path, Path]) -> Iterator[_Task]:
    """The slices of an array file; `named` has the first input of each output."""
    for place, name in enumerate(tokens.names):
        yield _Task(path, output / name, place, named.setdefault(output / name, path))


def _tasks_below(folder: Path, output: Path, outcome: Outcome, globs: Globs) -> Iterator[_Task]:
    """The `.codes` files of a folder and its subfolders that the globs select."""
    beside = ".decoded" if output.resolve() == folder.resolve() else ""
    nothing = True
    for listing in walk(folder, globs):
        remove_temporaries(output / listing.folder.relative_to(folder))
        for file in outcome.passed_over.sift(listing, lambda path: path.suffix == SUFFIX):
            nothing = False
            place = output / file.relative_to(folder)
            yield _Task(file, place.with_name(place.stem + beside), is_beside=bool(beside))
    if nothing:
        raise FileError(f"{folder}: no {SUFFIX} files in it")


def _is_newer(output: Path, file: Path) -> bool:
    return output.is_file() and output.stat().st_mtime_ns >= file.stat().st_mtime_ns


def _fits(output: Path, header: CodesHeader, max_pixels: int) -> bool:
    """Whether a decoded file is whole and of the shape and type that the codes decode to."""
    try:
        if header.volume is None:
            return _fits_image(output, header, max_pixels)
        found, expected = read_volume(output, max_pixels).geometry, header.volume.geometry
        expected = expected.as_pair() if found.form.is_pair else expected.as_single()
    except OasisVQError:
        return False
    return found.content == expected.content


def _fits_image(output: Path, header: CodesHeader, max_pixels: int) -> bool:
    """The same for an image, or for one image of a stack."""
    try:
        plane = read_image(output, max_pixels)
    except OasisVQError:
        return False
    return plane.shape == header.shape and plane.dtype == header.sample_type.dtype
