"""Quality over a split of a prepared dataset: real files, encoded and decoded one by one."""

import io
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from oasisvq.codec.codec import Codec
from oasisvq.codec.content import Content
from oasisvq.codec.measure import Similarity, similarity
from oasisvq.data.dataset import Dataset, SliceRecord
from oasisvq.data.layouts import Images
from oasisvq.evaluation.metrics import Overlap, overlap, snap
from oasisvq.jobs import calls

DATA_RANGE = 255.0
BLACK = 0  # the quality of no levels: the all-black image


class Spread(NamedTuple):
    """A mean over slices, and the standard deviation between the means of subjects."""

    mean: float
    deviation: float

    @property
    def words(self) -> str:
        """As tables show it; a dash if no slice has a value."""
        return "–" if math.isnan(self.mean) else f"{self.mean:.4f} ± {self.deviation:.4f}"


class QualityScore(NamedTuple):
    """The results of a number of levels over a split."""

    levels: int  # 0: the all-black image
    file_bytes: float  # mean, whole files
    bits_per_pixel: float
    ratio_to_png: float  # bytes of all slices as PNG over bytes of all files
    ssim: Spread
    foreground_ssim: Spread
    psnr: Spread
    worst_ssim: float
    worst_slice: str
    dice: dict[int, float]  # by label value, mean over subjects; empty for scans


class SplitScore(NamedTuple):
    """Scores of one split with one model."""

    split: str
    slices: int
    subjects: int
    size: int
    fingerprint: str
    qualities: list[QualityScore]
    black: QualityScore

    def as_dict(self) -> dict[str, Any]:
        """As JSON holds it."""

        def plain(entry: object) -> object:
            if isinstance(entry, tuple) and hasattr(entry, "_asdict"):
                return {key: plain(value) for key, value in entry._asdict().items()}
            if isinstance(entry, list):
                return [plain(each) for each in entry]
            if isinstance(entry, dict):
                return {str(key): plain(value) for key, value in entry.items()}
            return None if isinstance(entry, float) and not math.isfinite(entry) else entry

        fields = plain(self)
        assert isinstance(fields, dict)
        return fields


class Scored(NamedTuple):
    """The results of a quality for one slice."""

    restored: NDArray[np.generic]
    content: bytes  # of its file
    similarity: Similarity


class Seen(NamedTuple):
    """One slice at one quality, as `score_split` shows it."""

    place: int  # among the slices that are scored, from 0
    levels: int
    original: NDArray[np.uint8]
    restored: NDArray[np.generic]
    content: bytes  # of its file
    similarity: Similarity


@dataclass(frozen=True)
class _Scorer:
    """Encodes, decodes and measures slices at one quality; at `BLACK` measures the all-black image."""

    codec: Codec
    stacks: bool

    def __call__(self, task: tuple[range, int, NDArray[np.uint8]]) -> list[Scored]:
        _, levels, originals = task
        contents = [b""] * len(originals)
        restored: Sequence[NDArray[np.generic]]
        if levels == BLACK:
            restored = list(np.zeros_like(originals))
        elif self.stacks:  # the file of all slices counts for the first
            contents[0] = self.codec.encode_stack(originals, levels=levels, content=Content.SCAN)
            restored = list(self.codec.decode(contents[0]))
        else:
            contents = [self.codec.encode(each, levels, content=Content.SCAN) for each in originals]
            restored = [self.codec.decode(content) for content in contents]
        return [
            Scored(after, content, similarity(before, after, DATA_RANGE))
            for before, after, content in zip(originals, restored, contents, strict=True)
        ]


class _Collector:
    """Gathers the slices of one quality."""

    def __init__(self, labels: NDArray[np.uint8]) -> None:
        self.labels = labels
        self.names: list[str] = []
        self.subjects: list[str] = []
        self.similarities: list[Similarity] = []
        self.bytes = 0
        self.overlaps: dict[tuple[str, int], Overlap] = {}

    def add(self, record: SliceRecord, original: NDArray[np.uint8], scored: Scored) -> None:
        self.names.append(record.source)
        self.subjects.append(record.subject)
        self.similarities.append(scored.similarity)
        self.bytes += len(scored.content)
        if len(self.labels):
            snapped = snap(scored.restored, self.labels)
            for label in self.labels[1:]:
                key = record.subject, int(label)
                before = self.overlaps.get(key, Overlap(0, 0, 0))
                now = overlap(original, snapped, int(label))
                self.overlaps[key] = Overlap(*(a + b for a, b in zip(before, now, strict=True)))

    def spread(self, field: str) -> Spread:
        values = np.array([getattr(each, field) for each in self.similarities])
        by_subject: dict[str, list[float]] = {}
        for subject, value in zip(self.subjects, values.tolist(), strict=True):
            if math.isfinite(value):
                by_subject.setdefault(subject, []).append(value)
        if not by_subject:
            return Spread(math.nan, math.nan)
        means = [float(np.mean(each)) for each in by_subject.values()]
        return Spread(float(np.nanmean(values)), float(np.std(means)))

    def score(self, levels: int, pixels: int, png_bytes: int) -> QualityScore:
        count = len(self.names)
        worst = int(np.argmin([each.ssim for each in self.similarities]))
        dice = {
            int(label): float(
                np.nanmean([o.dice for (_, its), o in self.overlaps.items() if its == int(label)])
            )
            for label in self.labels[1:]
        }
        return QualityScore(
            levels,
            self.bytes / count,
            8 * self.bytes / (count * pixels),
            png_bytes / self.bytes if self.bytes else math.inf,
            self.spread("ssim"),
            self.spread("foreground_ssim"),
            self.spread("psnr"),
            self.similarities[worst].ssim,
            self.names[worst],
            dice,
        )


def png_bytes(plane: NDArray[np.uint8]) -> int:
    """Size of a plane as an optimised PNG file."""
    encoded = io.BytesIO()
    Image.fromarray(plane).save(encoded, format="PNG", optimize=True)
    return len(encoded.getvalue())


def score_split(
    codec: Codec,
    dataset: Dataset,
    split: str,
    qualities: Iterable[int],
    advance: Callable[[int, int], None] = lambda done, total: None,
    every: int = 1,
    watch: Callable[[Seen], None] = lambda seen: None,
    jobs: int = 1,
    stacks: bool = False,
) -> SplitScore:
    """Encode and decode every `every`-th slice of a split at each quality and measure what was lost.

    Scores are taken at the dataset's resolution, after rounding to grey levels, on a range of 255.
    `watch` is called with every slice at every quality, the qualities of a slice one after the other.
    `jobs` is the number of processes, which does not change the scores. With `stacks`, the slices of a
    volume are one file.

    Raises:
        DatasetError: there is no such split.
        ModelError: a quality is out of the model's range.
    """
    array = dataset.array(split)[::every]
    records = dataset.splits[split].records[::every]
    is_labels = dataset.images is Images.SEGMENTATIONS
    labels = np.unique(array) if is_labels else np.empty(0, np.uint8)
    collectors = {codec.check_levels(quality): _Collector(labels) for quality in qualities}
    collectors[BLACK] = _Collector(labels)
    as_png = 0
    volumes = [(record.subject, record.volume) for record in records]
    groups = _runs(volumes) if stacks else _singly(len(records))
    tasks = (
        (group, levels, np.asarray(array[group.start : group.stop]))
        for group in groups
        for levels in collectors
    )
    for (group, levels, originals), scored in calls(_Scorer(codec, stacks), tasks, jobs):
        for place, original, each in zip(group, originals, scored, strict=True):
            collectors[levels].add(records[place], original, each)
            if levels == BLACK:
                as_png += png_bytes(original)
                advance(place + 1, len(records))
            else:
                watch(Seen(place, levels, original, *each))
    black = collectors.pop(BLACK)
    pixels = dataset.size**2
    return SplitScore(
        split,
        len(records),
        len({record.subject for record in records}),
        dataset.size,
        codec.fingerprint.hex(),
        [each.score(levels, pixels, as_png) for levels, each in collectors.items()],
        black.score(BLACK, pixels, as_png),
    )


def _singly(count: int) -> list[range]:
    return [range(place, place + 1) for place in range(count)]


def _runs(volumes: Sequence[tuple[str, str]]) -> list[range]:
    """Runs of successive slices of one subject and volume, by their places."""
    runs, start = [], 0
    for _, run in groupby(volumes):
        count = sum(1 for _ in run)
        runs.append(range(start, start + count))
        start += count
    return runs
