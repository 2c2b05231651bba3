"""Encode or decode one file, or every file of a folder: trees kept, bad files survived.

A run over a folder skips outputs that are there, goes on after a bad file, and returns what
failed; it holds one file at a time, so memory does not grow with the folder.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from oasisvq.codec.codec import Codec
from oasisvq.codec.container import SUFFIX, read_codes
from oasisvq.codec.scans import (
    IMAGE_SUFFIXES,
    read_image,
    require_writable_suffix,
    write_image,
)
from oasisvq.errors import CodesFileError, FileError, OasisVQError
from oasisvq.files import make_folder, refuse_overwrite, require_file, walk, write_atomically


@dataclass
class Outcome:
    """What a run over a folder did."""

    done: int = 0
    skipped: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    failures: list[OasisVQError] = field(default_factory=list)


def encode_file(codec: Codec, image: Path, codes: Path, levels: int | None, force: bool) -> int:
    """Encode one image file; returns the bytes written.

    Raises:
        OasisVQError: the input cannot be read or the output cannot be written; nothing is left.
    """
    refuse_overwrite(codes, force)
    content = codec.encode_scan(read_image(image), levels)
    write_atomically(codes, content)
    return len(content)


def decode_file(codec: Codec, codes: Path, image: Path, force: bool) -> None:
    """Decode one `.codes` file to a PNG or TIFF.

    Raises:
        OasisVQError: the input cannot be read or the output cannot be written; nothing is left.
    """
    require_writable_suffix(image)
    refuse_overwrite(image, force)
    write_image(codec.decode_codes(read_codes(codes), str(codes)), image)


def encoded_name(image: Path) -> Path:
    """scan.png -> scan.codes, beside it."""
    return image.with_suffix(SUFFIX)


def decoded_name(codes: Path) -> Path:
    """scan.codes -> scan.decoded.png, beside it, so that it never collides with scan.png."""
    return codes.with_suffix(".decoded.png")


def images_below(folder: Path) -> list[Path]:
    """The image files of a folder tree, in a fixed order."""
    return list(walk(folder, lambda path: path.suffix.lower() in IMAGE_SUFFIXES))


def codes_below(folder: Path) -> list[Path]:
    """The `.codes` files of a folder tree, in a fixed order."""
    return list(walk(folder, lambda path: path.suffix == SUFFIX))


def encode_folder(
    codec: Codec,
    folder: Path,
    output: Path,
    levels: int | None,
    force: bool,
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> Outcome:
    """Encode every image below `folder` to the same place below `output`.

    A `.codes` file that is there, whole and of this model and quality is skipped; any other file
    in the way is a failure unless `force`.

    Raises:
        FileError: there are no images.
        ModelError: `levels` is out of range.
    """
    kept = codec.check_levels(levels)
    images = images_below(folder)
    if not images:
        raise FileError(f"{folder}: no images in it; expected {', '.join(IMAGE_SUFFIXES)}")
    outcome = Outcome()
    taken: dict[Path, Path] = {}
    for image in _each(images, advance):
        codes = output / encoded_name(image.relative_to(folder))
        with _Surviving(outcome):
            if codes in taken:
                raise FileError(
                    f"{image}: its output {codes} is also that of {taken[codes].name}; rename one"
                )
            taken[codes] = image
            if not force and codes.exists() and _is_valid(codes, codec, kept):
                outcome.skipped += 1
                continue
            make_folder(codes.parent)
            outcome.bytes_out += encode_file(codec, image, codes, kept, force)
            outcome.bytes_in += image.stat().st_size
            outcome.done += 1
    return outcome


def decode_folder(
    codec: Codec,
    folder: Path,
    output: Path,
    force: bool,
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> Outcome:
    """Decode every `.codes` file below `folder` to a PNG at the same place below `output`.

    An image that is there is skipped unless `force`.

    Raises:
        FileError: there are no `.codes` files.
    """
    sources = codes_below(folder)
    if not sources:
        raise FileError(f"{folder}: no {SUFFIX} files in it")
    outcome = Outcome()
    for codes in _each(sources, advance):
        image = output / codes.relative_to(folder).with_suffix(".png")
        with _Surviving(outcome):
            if not force and image.is_file():
                outcome.skipped += 1
                continue
            make_folder(image.parent)
            decode_file(codec, codes, image, force)
            outcome.bytes_in += codes.stat().st_size
            outcome.bytes_out += image.stat().st_size
            outcome.done += 1
    return outcome


class _Surviving:
    """Records an error of one file and lets the run go on."""

    def __init__(self, outcome: Outcome) -> None:
        self.outcome = outcome

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if isinstance(error, OSError):
            error = FileError(f"{error.filename}: {error.strerror}")
        if isinstance(error, OasisVQError):
            self.outcome.failures.append(error)
            return True
        return False


def _each(paths: list[Path], advance: Callable[[int, int], None]) -> Iterator[Path]:
    for done, path in enumerate(paths, start=1):
        yield path
        advance(done, len(paths))


def _is_valid(codes: Path, codec: Codec, levels: int) -> bool:
    try:
        header = read_codes(codes).header
    except (CodesFileError, FileError):
        return False
    return header.fingerprint == codec.fingerprint and header.levels == levels


def require_source(source: Path) -> bool:
    """Whether the source is a folder rather than a file.

    Raises:
        FileError: it is neither.
    """
    if source.is_dir():
        return True
    require_file(source)
    return False
