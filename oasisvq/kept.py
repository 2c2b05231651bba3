"""The quality that encoding kept: a row for each file, a summary, the log. Never imports torch."""

import csv
import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from oasisvq.codec.codec import Codec
from oasisvq.codec.encoded import Encoded
from oasisvq.codec.measure import Measure
from oasisvq.errors import FileError
from oasisvq.files import require_output

WAY_OUT = "not like what this model was trained on; --min-ssim or --max-error keep more"
LOG_SUFFIXES = (".csv", ".jsonl")


class Kept(NamedTuple):
    """One scan that was encoded.

    Attributes:
        bytes_in: size of its file or files.
        bytes_out: size of the `.codes` file.
        slices: number of slices.
        voxels: number of voxels in all slices.
        levels: number of levels that were kept; 0 for labels kept exactly.
        bound: the largest error that was asked for; None without one.
        measure: the quality; None if it was not measured, and for labels kept exactly.
        unlike: the sign that the scan is unlike the training data of the model; empty without one.
    """

    bytes_in: int
    bytes_out: int
    slices: int
    voxels: int
    levels: int
    bound: float | None
    measure: Measure | None
    unlike: str = ""

    def as_row(self) -> dict[str, Any]:
        """Plain values for a log; None for missing ones."""
        found = self.measure.as_dict() if self.measure else {}
        return {
            "bytes_in": self.bytes_in,
            "bytes": self.bytes_out,
            "ratio": round(self.bytes_in / self.bytes_out, 4),
            "bits_per_voxel": round(8 * self.bytes_out / self.voxels, 6),
            "slices": self.slices,
            "levels": self.levels,
            "max_error": self.bound,
            **{name: found.get(name) for name in Measure._fields},
            "unlike": self.unlike or None,
        }


def kept_of(codec: Codec, encoded: Encoded, bytes_in: int, measures: bool) -> Kept:
    """The quality kept of a scan whose files have this many bytes."""
    header = encoded.header
    found = encoded.measure() if measures and not header.labels else None
    return Kept(
        bytes_in,
        len(encoded.content),
        header.slices,
        encoded.scan.planes.size,
        header.levels,
        header.residue.binning.bound if header.residue else None,
        found,
        codec.unlike(encoded._replace(measured=found)) if found else "",
    )


class Worst(NamedTuple):
    """The scan with the lowest SSIM."""

    name: str
    ssim: float


@dataclass
class KeptSum:
    """The quality kept of many scans; means are over the measured scans, with equal weights."""

    scans: int = 0
    slices: int = 0
    voxels: int = 0
    measures: int = 0
    worst: Worst | None = None
    largest_error: float = 0.0
    unlike: list[str] = field(default_factory=list)
    _sums: dict[str, tuple[int, float]] = field(default_factory=dict)

    def add(self, name: str, kept: Kept) -> None:
        """Count one more scan, called `name`."""
        self.scans, self.slices = self.scans + 1, self.slices + kept.slices
        self.voxels += kept.voxels
        found = kept.measure
        if found is None:
            return
        self.measures += 1
        if kept.unlike:
            self.unlike.append(f"{name}: {kept.unlike}")
        self.largest_error = max(self.largest_error, found.largest_error)
        for key in ("ssim", "foreground_ssim", "psnr"):
            value = getattr(found, key)
            if not math.isnan(value):
                count, total = self._sums.get(key, (0, 0.0))
                self._sums[key] = count + 1, total + value
        if not math.isnan(found.ssim) and (self.worst is None or found.ssim < self.worst.ssim):
            self.worst = Worst(name, found.ssim)

    def mean(self, key: str) -> float:
        """The mean of `ssim`, `foreground_ssim` or `psnr`; nan if no scan has a value."""
        count, total = self._sums.get(key, (0, math.nan))
        return total / count if count else math.nan

    @property
    def unlike_words(self) -> str:
        """One line about the scans that the model does not suit; empty if there are none."""
        if len(self.unlike) < 2:
            return "".join(f"{each}: {WAY_OUT}" for each in self.unlike)
        return f"{len(self.unlike):,} scans are {WAY_OUT}; the first: {self.unlike[0]}"

    @property
    def words(self) -> str:
        """A summary in one line; empty if nothing was measured."""
        if not self.measures:
            return ""
        ssim, foreground = self.mean("ssim"), self.mean("foreground_ssim")
        parts = [] if math.isnan(ssim) else [f"SSIM {ssim:.4f}"]
        if parts and not math.isnan(foreground):
            parts[0] += f" (foreground {foreground:.4f})"
        parts.append(f"PSNR {self.mean('psnr'):.2f} dB")
        worst = f"; worst: {self.worst.name}, SSIM {self.worst.ssim:.4f}" if self.worst else ""
        return f"kept, mean of {self.measures:,}: {', '.join(parts)}{worst}"

    def as_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        means = {key: self.mean(key) for key in ("ssim", "foreground_ssim", "psnr")}
        return {
            "scans": self.scans,
            "slices": self.slices,
            "voxels": self.voxels,
            "measured": self.measures,
            **{key: None if math.isnan(value) else value for key, value in means.items()},
            "largest_error": self.largest_error if self.measures else None,
            "worst": self.worst._asdict() if self.worst else None,
            "unlike": self.unlike,
        }


_NOTHING = dict.fromkeys(Kept(1, 1, 1, 1, 0, None, None).as_row())


def log_row(
    source: Path, codes: Path, status: str, kept: Kept | None, message: str = ""
) -> dict[str, Any]:
    """A line of a log: every line has the same entries, None if a value is missing."""
    named = {"file": str(source), "codes": str(codes), "status": status}
    return named | (kept.as_row() if kept else _NOTHING) | {"message": message}


@contextmanager
def log_to(path: Path | None, force: bool) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Gives a function that appends rows to a new log, in CSV or JSON lines by its name.

    With None, the function does nothing. Each row is written at once, so that an interrupted run leaves
    the rows of its finished files.

    Raises:
        FileError: the name has another ending, or the log exists or cannot be written.
    """
    if path is None:
        yield lambda row: None
        return
    if path.suffix.lower() not in LOG_SUFFIXES:
        raise FileError(f"{path}: expected a log named {' or '.join(LOG_SUFFIXES)}")
    if path.exists() and not force:
        raise FileError(f"{path}: exists; name another log, since -f would encode all files again")
    require_output(path, force)
    with path.open("w", encoding="utf-8", errors="surrogateescape", newline="") as stream:
        table = csv.writer(stream) if path.suffix.lower() == ".csv" else None
        if table:
            table.writerow(log_row(path, path, "", None))

        def write(row: dict[str, Any]) -> None:
            if table:
                table.writerow(row.values())
            else:
                stream.write(json.dumps(row) + "\n")
            stream.flush()

        yield write
