"""What encoding would do, without writing anything. Never imports torch."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from oasisvq.bulk import Outcome
from oasisvq.codec.codec import Codec
from oasisvq.codec.wish import Wish
from oasisvq.encoding import Found, found_of
from oasisvq.errors import OasisVQError
from oasisvq.folders import WHOLE, Shard
from oasisvq.scans.limits import DEFAULT_MAX_PIXELS
from oasisvq.scans.scan import read_scan
from oasisvq.scans.source import Source
from oasisvq.stacks import ALL_OF_THEM, Taken

TRIED = 4  # files of a run that are encoded, to estimate the sizes of the others


class Planned(NamedTuple):
    """What encoding would do with one scan.

    Attributes:
        source: the scan.
        codes: the file that would be written.
        status: `to encode`, `already there` or `fails`.
        bytes_in: size of the source.
        bytes_out: size of the `.codes` file; None if it would not be written.
        is_tried: whether this size was found by encoding the scan, and is no estimate.
        message: why it fails.
    """

    source: Path
    codes: Path
    status: str
    bytes_in: int = 0
    bytes_out: int | None = None
    is_tried: bool = False
    message: str = ""

    @property
    def words(self) -> str:
        """One line for the user."""
        if self.bytes_out is None:
            return self.message or f"{self.source} -> {self.codes}: {self.status}"
        about = "" if self.is_tried else "about "
        return f"{self.source} -> {self.codes}: {about}{self.bytes_out:,} bytes"

    def as_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return self._asdict() | {"source": str(self.source), "codes": str(self.codes)}


@dataclass
class Plan:
    """What a run would do."""

    files: list[Planned]
    outcome: Outcome = field(default_factory=Outcome)

    def count(self, status: str) -> int:
        """How many files have a status."""
        return sum(each.status == status for each in self.files)

    @property
    def words(self) -> str:
        """A summary in one line."""
        todo = [each for each in self.files if each.bytes_out is not None]
        bytes_in, bytes_out = sum(e.bytes_in for e in todo), sum(e.bytes_out or 0 for e in todo)
        tried = sum(each.is_tried for each in todo)
        size = ""
        if bytes_out:
            by = f", estimated from {tried:,} of them" if tried < len(todo) else ""
            about = "about " if by else ""
            size = f", {about}{bytes_out:,} bytes, {bytes_in / bytes_out:.1f} times smaller{by}"
        parts = [f"{len(todo):,} to encode{size}"]
        parts += [
            f"{self.count(status):,} {told}"
            for status, told in (("already there", "already there"), ("fails", "would fail"))
            if self.count(status)
        ]
        return "; ".join([*parts, "nothing was written"])

    def as_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {
            "files": [each.as_dict() for each in self.files],
            "passed_over": self.outcome.passed_over.as_dict(),
        }


def plan_many(
    codec: Codec,
    inputs: Sequence[Path],
    output: Path | None,
    wish: Wish,
    force: bool,
    shard: Shard = WHOLE,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    volume: int | None = None,
    taken: Taken = ALL_OF_THEM,
) -> Plan:
    """What `encode_many` would do.

    Raises:
        FileError: there is nothing to encode, or two folders have one name.
        ModelError: the wish does not fit the model.
    """
    outcome = Outcome()
    found = list(found_of(codec, inputs, output, wish, force, shard, max_pixels, volume, outcome, taken))
    files = [Planned(Path(), Path(), "fails", message=each) for each in outcome.failures]
    return Plan(files + estimated(codec, found, wish, max_pixels), outcome)


def estimated(
    codec: Codec, found: Sequence[Found], wish: Wish, max_pixels: int = DEFAULT_MAX_PIXELS
) -> list[Planned]:
    """What would happen to each scan. Some are encoded, and the sizes of the others follow from them."""
    todo = [place for place, each in enumerate(found) if each.is_to_do]
    wanted = {todo[(2 * k + 1) * len(todo) // (2 * TRIED)] for k in range(TRIED)} if todo else set()
    sizes: dict[int, int] = {}
    failures: dict[int, str] = {}
    for place in sorted(wanted):
        source = found[place].source
        try:
            sizes[place] = _size_of(codec, source, wish, max_pixels)
        except OasisVQError as error:
            told = str(error)
            failures[place] = told if str(source.path) in told else f"{source.path}: {told}"
    tried_in = sum(found[place].source.size for place in sizes)
    share = sum(sizes.values()) / tried_in if tried_in else 0.0
    planned = []
    for place, (source, codes, known, is_there) in enumerate(found):
        if failure := known or failures.get(place, ""):
            planned.append(Planned(source.path, codes, "fails", message=failure))
        elif is_there:
            planned.append(Planned(source.path, codes, "already there", source.size))
        else:
            size = sizes.get(place, round(share * source.size))
            planned.append(
                Planned(source.path, codes, "to encode", source.size, size, is_tried=place in sizes)
            )
    return planned


def _size_of(codec: Codec, source: Source, wish: Wish, max_pixels: int) -> int:
    return len(codec.encode_scan(read_scan(source, wish.axis, max_pixels), wish))
