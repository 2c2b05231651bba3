"""What encoding kept of a scan: a row for each file, the sum of many, the log. Never imports torch."""

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
        bytes_in: of its file or files.
        bytes_out: of the `.codes` file.
        slices: that it has.
        voxels: that it has, in all slices.
        levels: that were kept; 0 of labels kept exactly.
        bound: the largest error that was asked for; None without one.
        measure: what is left of it; None where that was not measured, or of labels kept exactly.
        unlike: what tells that it is not like what the model was trained on; empty where nothing does.
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
        """For a log: plain values, None where there is none."""
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
    """What was kept of a scan of so many bytes."""
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
    """The scan with the least SSIM."""

    name: str
    ssim: float


@dataclass
class KeptSum:
    """What was kept of many scans; means are over those that were measured, each as one."""

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
        """Of `ssim`, `foreground_ssim` or `psnr`; nan where no scan has one."""
        count, total = self._sums.get(key, (0, math.nan))
        return total / count if count else math.nan

    @property
    def unlike_words(self) -> str:
        """Of what the model does not suit, in one line; empty where there is none."""
        if len(self.unlike) < 2:
            return "".join(f"{each}: {WAY_OUT}" for each in self.unlike)
        return f"{len(self.unlike):,} scans are {WAY_OUT}; the first: {self.unlike[0]}"

    @property
    def words(self) -> str:
        """For a person, in one line; empty where nothing was measured."""
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
    """A line of a log: every line has the same entries, None where there is none."""
    named = {"file": str(source), "codes": str(codes), "status": status}
    return named | (kept.as_row() if kept else _NOTHING) | {"message": message}


@contextmanager
def log_to(path: Path | None, force: bool) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Gives a function that appends a row to a new log, CSV or JSON lines by its name; None takes none.

    Rows are there as soon as they are written, so that a run that is ended leaves those of its files.

    Raises:
        FileError: the name has another ending, or the log is there or cannot be written.
    """
    if path is None:
        yield lambda row: None
        return
    if path.suffix.lower() not in LOG_SUFFIXES:
        raise FileError(f"{path}: expected a log named {' or '.join(LOG_SUFFIXES)}")
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
