"""Encode or decode one file, or every file of a folder: trees kept, bad files survived.

A run over a folder skips outputs that are there, goes on after a bad file, and returns what
failed; it holds one file at a time, so memory does not grow with the folder.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from oasisvq.codec.codec import Codec
from oasisvq.codec.container import SUFFIX, Coder, Codes, CodesFile, CodesHeader, read_codes_file
from oasisvq.codec.scans import (
    IMAGE_SUFFIXES,
    read_image,
    require_writable_suffix,
    write_image,
)
from oasisvq.errors import CodesFileError, FileError, ImageError, OasisVQError
from oasisvq.files import (
    WHOLE,
    Shard,
    make_folder,
    refuse_overwrite,
    require_file,
    walk,
    write_atomically,
)
from oasisvq.tokens import read_tokens

Advance = Callable[[int, int], None]  # told (files done, files in all)


@dataclass
class Outcome:
    """What a run over a folder did."""

    done: int = 0
    skipped: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    failures: list[str] = field(default_factory=list)


def encode_file(
    codec: Codec,
    image: Path,
    codes: Path,
    levels: int | None,
    force: bool,
    coder: Coder | None = None,
) -> int:
    """Encode one image file; returns the bytes written.

    Raises:
        OasisVQError: the input cannot be read or the output cannot be written; nothing is left.
    """
    if codes.exists() and codes.samefile(image):
        raise FileError(f"{codes}: is the image to encode; name another output")
    refuse_overwrite(codes, force)
    content = codec.encode_scan(read_image(image), levels, coder)
    write_atomically(codes, content)
    return len(content)


def decode_file(codec: Codec, codes: Path, image: Path, force: bool) -> None:
    """Decode one `.codes` file to a PNG or TIFF.

    Raises:
        OasisVQError: the input cannot be read or the output cannot be written; nothing is left.
    """
    require_writable_suffix(image)
    refuse_overwrite(image, force)
    file = read_codes_file(codes)
    write_image(codec.decode_codes(codec.codes_of(file), str(codes)), image)


def refuse_codes(image: Path) -> None:
    """Raise if the image to encode is named like what encoding gives.

    Raises:
        ImageError: it is.
    """
    if image.suffix == SUFFIX:
        raise ImageError(f"{image}: a {SUFFIX} file, not an image; did you mean `oasisvq decode`?")


def encoded_name(image: Path) -> Path:
    """scan.png -> scan.codes, beside it."""
    return image.with_suffix(SUFFIX)


def decoded_name(codes: Path) -> Path:
    """scan.codes -> scan.decoded.png, beside it, so that it never collides with scan.png."""
    return codes.with_suffix(".decoded.png")


def is_image(path: Path) -> bool:
    """Whether a file is named like an image that can be read."""
    return path.suffix.lower() in IMAGE_SUFFIXES


def is_codes(path: Path) -> bool:
    """Whether a file is named like a `.codes` file."""
    return path.suffix == SUFFIX


def encode_folder(
    codec: Codec,
    folder: Path,
    output: Path,
    levels: int | None,
    force: bool,
    shard: Shard = WHOLE,
    advance: Advance = lambda done, total: None,
    coder: Coder | None = None,
) -> Outcome:
    """Encode the images below `folder`, or one shard of them, to the same places below `output`.

    A `.codes` file that is there, whole, of this model, quality and coder and no older than its image is
    skipped; any other file in the way is a failure unless `force`. All shards together write what
    one run writes.

    Raises:
        FileError: there are no images.
        ModelError: `levels` is out of range, or the model lacks the prior that `coder` needs.
    """
    kept, coder = codec.check_levels(levels), codec.check_coder(coder)
    outcome = Outcome()
    taken: dict[str, Path] = {}
    parent: Path | None = None
    for image, is_ours in _shard_of(
        folder, is_image, f"images ({', '.join(IMAGE_SUFFIXES)})", shard, advance
    ):
        if image.parent != parent:  # the walk lists one folder after the other
            parent, taken = image.parent, {}
        first = taken.setdefault(image.stem, image)
        if not is_ours:
            continue
        codes = output / encoded_name(image.relative_to(folder))
        with _surviving(outcome):
            if first != image:
                raise FileError(f"{image}: its output {codes} is also that of {first.name}; rename one")
            if not force and codes.exists() and _is_valid(codes, image, codec, kept, coder):
                outcome.skipped += 1
                continue
            make_folder(codes.parent)
            outcome.bytes_out += encode_file(codec, image, codes, kept, force, coder)
            outcome.bytes_in += image.stat().st_size
            outcome.done += 1
    return outcome


def decode_folder(
    codec: Codec,
    folder: Path,
    output: Path,
    force: bool,
    shard: Shard = WHOLE,
    advance: Advance = lambda done, total: None,
) -> Outcome:
    """Decode the `.codes` files below `folder`, or one shard, to PNGs at the same places.

    An image that is there, fits its codes and is no older is skipped; anything else in the way is
    a failure unless `force`. Where `output` is `folder` itself, x.codes becomes x.decoded.png, so
    that it never meets the original.

    Raises:
        FileError: there are no `.codes` files.
    """
    outcome = Outcome()
    beside = output.resolve() == folder.resolve()
    for codes, is_ours in _shard_of(folder, is_codes, f"{SUFFIX} files", shard, advance):
        if is_ours:
            name = codes.relative_to(folder)
            image = output / (decoded_name(name) if beside else name.with_suffix(".png"))
            with _surviving(outcome):
                _decode_to(codec, partial(read_codes_file, codes), codes, codes, image, force, outcome)
    return outcome


def decode_tokens(
    codec: Codec,
    tokens_file: Path,
    output: Path,
    force: bool,
    shard: Shard = WHOLE,
    advance: Advance = lambda done, total: None,
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
            with _surviving(outcome):
                read = partial(tokens.codes, place)
                _decode_to(codec, read, tokens_file, tokens_file / name, image, force, outcome)
        advance(place + 1, len(tokens))
    return outcome


def _decode_to(
    codec: Codec,
    read: Callable[[], Codes | CodesFile],
    file: Path,
    source: Path,
    image: Path,
    force: bool,
    outcome: Outcome,
) -> None:
    """Decode one slice of `file`, unless its image is there; `source` names it in messages."""
    codes = read()
    codec.refuse_other_model(codes.header, str(source))
    is_newer = image.is_file() and image.stat().st_mtime_ns >= file.stat().st_mtime_ns
    if not force and is_newer and _fits(image, codes.header):
        outcome.skipped += 1
        return
    refuse_overwrite(image, force)
    make_folder(image.parent)
    if isinstance(codes, CodesFile):
        codes = codec.codes_of(codes)
    write_image(codec.decode_codes(codes, str(source)), image)
    outcome.bytes_in += codes.file_bytes
    outcome.bytes_out += image.stat().st_size
    outcome.done += 1


@contextmanager
def _surviving(outcome: Outcome) -> Iterator[None]:
    """Record an error of one file and let the run go on."""
    try:
        yield
    except OasisVQError as error:
        outcome.failures.append(str(error))  # not the error, whose traceback holds the image
    except OSError as error:
        outcome.failures.append(f"{error.filename}: {error.strerror}")


def _shard_of(
    folder: Path, wanted: Callable[[Path], bool], kinds: str, shard: Shard, advance: Advance
) -> Iterator[tuple[Path, bool]]:
    """Every wanted file in the order of the walk, and whether the shard takes it.

    Raises:
        FileError: there is none.
    """
    total = sum(shard.takes(place) for place, _ in enumerate(walk(folder, wanted)))
    done = seen = 0
    for place, path in enumerate(walk(folder, wanted)):
        is_ours = shard.takes(place)
        yield path, is_ours
        seen += 1
        done += is_ours
        advance(done, max(total, done))
    if not seen:
        raise FileError(f"{folder}: no {kinds} in it")


def _fits(image: Path, header: CodesHeader) -> bool:
    """Whether an image is whole and of the size and type that the codes decode to."""
    try:
        plane = read_image(image).plane
    except OasisVQError:
        return False
    return plane.shape == header.shape and plane.dtype == header.sample_type.dtype


def _is_valid(codes: Path, image: Path, codec: Codec, levels: int, coder: Coder) -> bool:
    """Whether encoding the image anew would give what is there."""
    if codes.stat().st_mtime_ns < image.stat().st_mtime_ns:
        return False
    try:
        header = read_codes_file(codes).header
    except (CodesFileError, FileError):
        return False
    ours = codec.file.fingerprint_for(coder)
    return header.coder is coder and header.fingerprint == ours and header.levels == levels


def require_source(source: Path) -> bool:
    """Whether the source is a folder rather than a file.

    Raises:
        FileError: it is neither.
    """
    if source.is_dir():
        return True
    require_file(source)
    return False
