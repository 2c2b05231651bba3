"""Encode or decode one scan, or every one of a folder: trees kept, bad files survived.

A run over a folder skips outputs that are there, goes on after a bad file, and returns what
failed; it holds one file at a time, so memory does not grow with the folder.
"""

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice
from pathlib import Path

from oasisvq.codec import container
from oasisvq.codec.codec import Codec, Content, Wish
from oasisvq.codec.codes import Codes, CodesFile
from oasisvq.codec.container import SUFFIX, read_codes_file
from oasisvq.codec.headers import Coder, CodesHeader, refuse_large_codes
from oasisvq.errors import FileError, ImageError, OasisVQError
from oasisvq.files import (
    WHOLE,
    Shard,
    make_folder,
    refuse_overwrite,
    remove_temporaries,
    require_file,
    require_output,
    walk,
    walk_folder,
    write_atomically,
)
from oasisvq.scans.dicom import DICOM_SUFFIXES, holds_dicom
from oasisvq.scans.images import IMAGE_SUFFIXES, read_image
from oasisvq.scans.limits import DEFAULT_MAX_PIXELS
from oasisvq.scans.scan import files_of, read_scan, require_writable, slicing_of, write_scan
from oasisvq.scans.volumes import VOLUME_SUFFIXES, partner, read_volume, volume_suffix
from oasisvq.tokens import read_tokens

Advance = Callable[[int, int], None]  # told (files or slices done, in all)
NOTHING_CAN_BE_WRITTEN = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}


@dataclass
class Outcome:
    """What a run over a folder did; `ended_early` if nothing more could be written."""

    done: int = 0
    skipped: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    failures: list[str] = field(default_factory=list)
    ended_early: bool = False


def encode_file(
    codec: Codec,
    source: Path,
    codes: Path,
    wish: Wish,
    force: bool,
    advance: Advance = lambda done, total: None,
    max_pixels: int = DEFAULT_MAX_PIXELS,
) -> CodesFile:
    """Encode an image, a volume or a DICOM series; returns what was written.

    Args:
        codec: to encode with.
        source: a file, or the folder of a series.
        codes: the file to write.
        wish: how.
        force: overwrite.
        advance: told (slices done, slices in all).
        max_pixels: how large a scan may be, see `limits.py`.

    Raises:
        OasisVQError: the input cannot be read or changes meanwhile, or the output cannot be written;
            nothing is left.
    """
    require_source(source)
    if codes.exists() and any(codes.samefile(part) for part in files_of(source) if part.exists()):
        raise FileError(f"{codes}: is what is to be encoded; name another output")
    require_output(codes, force)
    state = _state(source)
    scan = read_scan(source, wish.axis, max_pixels)
    try:
        content = codec.encode_scan(scan, wish, advance)
    except ImageError as error:
        raise ImageError(f"{source}: {error}") from error
    written = container.read(content, str(codes))
    if _state(source) != state:
        raise FileError(f"{source}: changed while it was encoded; run again when it is whole")
    refuse_overwrite(codes, force)  # another process may have written it meanwhile
    write_atomically(codes, content)
    return written


def _state(source: Path) -> list[tuple[Path, int, int, int]]:
    """What tells the files of a scan from changed ones."""
    states = [(path, path.stat()) for path in _parts_of(source)]
    return [(path, state.st_ino, state.st_size, state.st_mtime_ns) for path, state in states]


def decode_target(codes: Path, output: Path | None, force: bool) -> Path:
    """The file that a `.codes` file is decoded to: the one named, or `decoded_name`.

    Raises:
        OasisVQError: something is in the way, the name ends otherwise, or the header is damaged.
    """
    if output is not None:
        _require_outputs(output, force)
    header = read_codes_file(codes).header
    written = output or decoded_name(codes, header)
    _require_outputs(written, force)
    if (volume_suffix(written) is None) != (header.volume is None) and header.slices > 1:
        raise ImageError(
            f"{written}: an image cannot hold {header.slices} slices; name a .nii.gz, .nii or .img"
        )
    return written


def decode_file(
    codec: Codec,
    codes: Path,
    output: Path,
    force: bool,
    advance: Advance = lambda done, total: None,
    max_pixels: int = DEFAULT_MAX_PIXELS,
) -> None:
    """Decode one `.codes` file to an image or a volume.

    Raises:
        OasisVQError: the input cannot be read or the output cannot be written; nothing is left.
    """
    _require_outputs(output, force)
    file = read_codes_file(codes)
    refuse_large_codes(file.header, str(codes), max_pixels)
    scan = codec.decode_codes(codec.codes_of(file), str(codes), advance)
    _require_outputs(output, force)  # another process may have written it meanwhile
    write_scan(scan, output)


def _require_outputs(output: Path, force: bool) -> None:
    """Both files of a pair count."""
    require_writable(output)
    for path in files_of(output):
        require_output(path, force)


def refuse_codes(source: Path) -> None:
    """Raise if the scan to encode is named like what encoding gives.

    Raises:
        ImageError: it is.
    """
    if source.suffix == SUFFIX:
        raise ImageError(f"{source}: a {SUFFIX} file, not an image; did you mean `oasisvq decode`?")


def encoded_name(source: Path) -> Path:
    """scan.png or scan.nii.gz -> scan.codes, beside it."""
    suffix = volume_suffix(source) or source.suffix
    return source.with_name(source.name[: len(source.name) - len(suffix)] + SUFFIX)


def decoded_name(codes: Path, header: CodesHeader) -> Path:
    """scan.codes -> scan.decoded.png, beside it, so that it never collides with scan.png.

    A volume becomes .nii.gz, or a pair .img and .hdr where it came as one.
    """
    return codes.with_suffix(f".decoded{_ending(header)}")


def _ending(header: CodesHeader) -> str:
    if header.volume is None:
        return ".png"
    return ".img" if header.volume.form.is_pair else ".nii.gz"


def is_source(path: Path) -> bool:
    """Whether a file is named like one that can be encoded; of a pair or series only one file is."""
    suffix = volume_suffix(path)
    if suffix is not None:
        return not suffix.startswith(".img") or not partner(path).is_file()
    if path.suffix.lower() in DICOM_SUFFIXES:
        return path == _first_dicom(path.parent, path.parent.stat().st_mtime_ns)
    return path.suffix.lower() in IMAGE_SUFFIXES


def _dicom_files(folder: Path) -> Iterator[Path]:
    return walk_folder(folder, lambda path: path.suffix.lower() in DICOM_SUFFIXES)


@lru_cache(maxsize=1)  # the walk asks for one folder after the other
def _first_dicom(folder: Path, _mtime_ns: int) -> Path:
    return next(_dicom_files(folder))


def _scan_at(path: Path) -> Path:
    """The file, or the folder of the DICOM series that it belongs to."""
    is_series = (
        path.suffix.lower() in DICOM_SUFFIXES and len(list(islice(_dicom_files(path.parent), 2))) > 1
    )
    return path.parent if is_series else path


def is_codes(path: Path) -> bool:
    """Whether a file is named like a `.codes` file."""
    return path.suffix == SUFFIX


def encode_folder(
    codec: Codec,
    folder: Path,
    output: Path,
    wish: Wish,
    force: bool,
    shard: Shard = WHOLE,
    advance: Advance = lambda done, total: None,
    max_pixels: int = DEFAULT_MAX_PIXELS,
) -> Outcome:
    """Encode the images, volumes and DICOM series below `folder`, or one shard of them.

    They go to the same places below `output`. A `.codes` file that is there, whole, as this run would
    make it and no older than its original is skipped; any other file in the way is a failure unless
    `force`. All shards together write what one run writes. Two runs that share no work are no harm
    either: each file is written whole. A full disk ends the run.

    Raises:
        FileError: there is nothing to encode.
        ModelError: the wish does not fit the model.
    """
    wish = wish._replace(levels=codec.check_levels(wish.levels), coder=codec.check_coder(wish.coder))
    outcome = Outcome()
    taken: dict[Path, Path] = {}
    parent: Path | None = None
    kinds = "images or volumes (" + ", ".join((*IMAGE_SUFFIXES, *VOLUME_SUFFIXES, *DICOM_SUFFIXES)) + ")"
    for path, is_ours in _shard_of(folder, is_source, kinds, shard, advance, output):
        if path.parent != parent:  # the walk lists one folder after the other
            parent, taken = path.parent, {}
        source = _scan_at(path)
        # the codes of a series lie in its folder, beside those of the other files there
        place = source / f"{source.resolve().name}{SUFFIX}" if source.is_dir() else encoded_name(source)
        first = taken.setdefault(place, source)
        if not is_ours:
            continue
        codes = output / place.relative_to(folder)
        with _surviving(outcome, source):
            if first != source:
                raise FileError(f"{path}: its output {codes} is also that of {first.name}; rename one")
            if not force and _is_valid(codes, source, codec, wish):
                outcome.skipped += 1
                continue
            make_folder(codes.parent)
            bytes_in = bytes_of(source)
            try:
                file = encode_file(codec, source, codes, wish, force, max_pixels=max_pixels)
            except FileError:
                if force or not _is_valid(codes, source, codec, wish):
                    raise
                outcome.skipped += 1  # another process was faster
                continue
            outcome.bytes_in += bytes_in
            outcome.bytes_out += file.file_bytes
            outcome.done += 1
        if outcome.ended_early:
            break
    return outcome


def _parts_of(source: Path) -> list[Path]:
    """The files of an image, of a volume with both of a pair, or of a series."""
    if not source.is_dir():
        return [path for path in files_of(source) if path.is_file()]
    return list(walk_folder(source, lambda path: path.is_file() and not is_codes(path)))


def bytes_of(source: Path) -> int:
    """Bytes on disk of an image, a volume with both files of a pair, or a series."""
    return sum(path.stat().st_size for path in _parts_of(source))


def decode_folder(
    codec: Codec,
    folder: Path,
    output: Path,
    force: bool,
    shard: Shard = WHOLE,
    advance: Advance = lambda done, total: None,
    max_pixels: int = DEFAULT_MAX_PIXELS,
) -> Outcome:
    """Decode the `.codes` files below `folder`, or one shard, to the same places.

    What is there, fits its codes and is no older is skipped; anything else in the way is a failure
    unless `force`. Where `output` is `folder` itself, x.codes becomes x.decoded.png, so that it never
    meets the original.

    Raises:
        FileError: there are no `.codes` files.
    """
    outcome = Outcome()
    beside = output.resolve() == folder.resolve()
    for codes, is_ours in _shard_of(folder, is_codes, f"{SUFFIX} files", shard, advance, output):
        if is_ours:
            with _surviving(outcome, codes):
                file = read_codes_file(codes)
                name = codes.relative_to(folder)
                named = (
                    decoded_name(name, file.header) if beside else name.with_suffix(_ending(file.header))
                )
                refuse_large_codes(file.header, str(codes), max_pixels)
                _decode_to(codec, file, codes, codes, output / named, force, outcome, max_pixels)
        if outcome.ended_early:
            break
    return outcome


def decode_tokens(
    codec: Codec,
    tokens_file: Path,
    output: Path,
    force: bool,
    shard: Shard = WHOLE,
    advance: Advance = lambda done, total: None,
    max_pixels: int = DEFAULT_MAX_PIXELS,
) -> Outcome:
    """Decode the slices of an array file that `export` wrote to PNGs below `output`, by their names.

    Raises:
        CodesFileError: the array file is damaged.
    """
    tokens = read_tokens(tokens_file)
    outcome = Outcome()
    for place, name in enumerate(tokens.names):
        if shard.takes(place):
            image = output / f"{name}.png"
            with _surviving(outcome, image):
                codes = tokens.codes(place)
                refuse_large_codes(codes.header, str(tokens_file / name), max_pixels)
                _decode_to(
                    codec, codes, tokens_file, tokens_file / name, image, force, outcome, max_pixels
                )
        if outcome.ended_early:
            break
        advance(place + 1, len(tokens))
    return outcome


def _decode_to(
    codec: Codec,
    codes: Codes | CodesFile,
    file: Path,
    source: Path,
    output: Path,
    force: bool,
    outcome: Outcome,
    max_pixels: int,
) -> None:
    """Decode codes of `file`, unless their output is there; `source` names them in messages."""
    codec.refuse_other_model(codes.header, str(source))
    # looked for once: what another run with this output writes from here on are the same bytes
    may_write = force or not any(path.exists() for path in files_of(output))
    if not may_write and _is_newer(output, file) and _fits(output, codes.header, max_pixels):
        outcome.skipped += 1
        return
    make_folder(output.parent)
    _require_outputs(output, may_write)
    if isinstance(codes, CodesFile):
        codes = codec.codes_of(codes)
    write_scan(codec.decode_codes(codes, str(source)), output)
    outcome.bytes_in += codes.file_bytes
    outcome.bytes_out += bytes_of(output)
    outcome.done += 1


def _is_newer(output: Path, file: Path) -> bool:
    return output.is_file() and output.stat().st_mtime_ns >= file.stat().st_mtime_ns


@contextmanager
def _surviving(outcome: Outcome, where: Path) -> Iterator[None]:
    """Record an error of one file and let the run go on, unless it is one of the disk."""
    try:
        yield
    except OasisVQError as error:
        outcome.failures.append(str(error))  # not the error, whose traceback holds the image
        cause = error.__cause__
        outcome.ended_early = isinstance(cause, OSError) and cause.errno in NOTHING_CAN_BE_WRITTEN
    except MemoryError as error:
        outcome.failures.append(f"{where}: too large for this machine's memory ({error})")
    except OSError as error:
        outcome.failures.append(f"{error.filename or where}: {error.strerror}")


def _shard_of(
    folder: Path,
    wanted: Callable[[Path], bool],
    kinds: str,
    shard: Shard,
    advance: Advance,
    output: Path,
) -> Iterator[tuple[Path, bool]]:
    """Every wanted file in the order of the walk, and whether the shard takes it.

    What killed runs left in `output` is removed, a folder when the walk comes to it.

    Raises:
        FileError: there is none.
    """
    total = sum(shard.takes(place) for place, _ in enumerate(walk(folder, wanted)))
    done = seen = 0
    parent: Path | None = None
    for place, path in enumerate(walk(folder, wanted)):
        if path.parent != parent:
            parent = path.parent
            remove_temporaries(output / parent.relative_to(folder))
        is_ours = shard.takes(place)
        yield path, is_ours
        seen += 1
        done += is_ours
        advance(done, max(total, done))
    if not seen:
        series = "; if it is one DICOM series, name a .codes file with -o" if holds_dicom(folder) else ""
        raise FileError(f"{folder}: no {kinds} in it{series}")


def _fits(output: Path, header: CodesHeader, max_pixels: int) -> bool:
    """Whether a decoded file is whole and of the shape and type that the codes decode to."""
    try:
        if header.volume is None:
            plane = read_image(output, max_pixels)
            return plane.shape == header.shape and plane.dtype == header.sample_type.dtype
        found, expected = read_volume(output, max_pixels).geometry, header.volume.geometry
        expected = expected.as_pair() if found.form.is_pair else expected.as_single()
    except OasisVQError:
        return False
    return found.content == expected.content


def _is_valid(codes: Path, source: Path, codec: Codec, wish: Wish) -> bool:
    """Whether there are codes already, and encoding the source anew would give the same."""
    dates = [path.stat().st_mtime_ns for path in _parts_of(source)]
    if not (dates and codes.exists() and codes.stat().st_mtime_ns >= max(dates)):
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
    ours = codec.file.fingerprint_for(header.coder)
    kept = header.coder, header.levels, header.fingerprint
    return kept == (wish.coder, wish.levels, ours)


def require_source(source: Path) -> bool:
    """Whether the source is a folder rather than a file.

    Raises:
        FileError: it is neither.
    """
    if source.is_dir():
        return True
    require_file(source)
    return False
