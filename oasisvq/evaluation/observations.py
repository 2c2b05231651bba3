"""What the pass over a split gathers besides scores, for the charts of a report.

Shapes: N slices, L levels, K codes, D code dimension, h×w coded window, rows×columns whole grid.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from oasisvq.codec import container
from oasisvq.codec.codec import Codec
from oasisvq.codec.codes import Codes
from oasisvq.codec.content import Content
from oasisvq.codec.exact import LATENT_UNITS
from oasisvq.codec.frequencies import FREQUENCY_BITS, Frequencies, Indices
from oasisvq.codec.measure import Similarity, similarity
from oasisvq.codec.pixels import cells
from oasisvq.codec.prior import Pass, Prior, pooled
from oasisvq.data.dataset import Dataset, SliceRecord
from oasisvq.evaluation.marks import Marks, marks_of_records, shared
from oasisvq.evaluation.score import DATA_RANGE, QualityScore, Seen, SplitScore, score_split

Advance = Callable[[int, int], None]  # called with (done, total)
THUMBNAIL = 56  # side in pixels
CASES = 3  # each of the best, of the median and of the worst slices


class QualityRows(NamedTuple):
    """The scores of one quality, slice by slice."""

    ssim: NDArray[np.float64]  # (N,)
    foreground_ssim: NDArray[np.float64]  # (N,), nan if there is no foreground
    psnr: NDArray[np.float64]  # (N,), dB
    file_bytes: NDArray[np.float64]  # (N,)


class Case(NamedTuple):
    """One slice to look at."""

    kind: str  # best, median or worst
    record: SliceRecord
    original: NDArray[np.uint8]  # (H, W)
    restored: NDArray[np.uint8]  # (H, W)
    codes: Codes
    scores: Similarity
    marks: Marks

    @property
    def error(self) -> NDArray[np.float64]:
        """(H, W) signed: reconstruction - original, in grey levels."""
        return self.restored.astype(np.float64) - self.original


class Observations(NamedTuple):
    """A split as one model codes it.

    Attributes:
        score: means over the split.
        records: (N,) where the slices come from.
        rows: by quality.
        main: the quality at which pictures, bits and cases are taken.
        usage: (L, K) how often each code is the nearest one, over the model's field of view.
        stride: side of a cell in pixels.
        bits: (main, rows, columns) mean bits of each cell by the prior; None without a prior.
        pooled: (N, 9·D) latents averaged over the parts of the grid.
        thumbnails: (N, t, t) uint8.
        mean_plane: (H, W) mean of the slices.
        mean_error: (H, W) mean of the absolute errors, in grey levels.
        cases: best, median and worst slices by foreground SSIM, each of another subject.
        marks: that all slices share.
    """

    score: SplitScore
    records: list[SliceRecord]
    rows: dict[int, QualityRows]
    main: int
    usage: NDArray[np.int64]
    stride: int
    bits: NDArray[np.float64] | None
    pooled: NDArray[np.float32]
    thumbnails: NDArray[np.uint8]
    mean_plane: NDArray[np.float64]
    mean_error: NDArray[np.float64]
    cases: list[Case]
    marks: Marks

    @property
    def main_score(self) -> QualityScore:
        """The scores of the main quality."""
        return next(each for each in self.score.qualities if each.levels == self.main)


class TallyPrior(Prior):
    """A prior that remembers what each index of its last walk cost.

    Attributes:
        bits: (levels, h, w) cost of the first grid, by the frequencies that the range coder used.
    """

    bits: NDArray[np.float64]

    def walk(
        self,
        shape: tuple[int, int, int, int],
        kinds: NDArray[np.integer],
        choose: Callable[[Pass, Frequencies], Indices],
        expected: NDArray[np.floating] | None = None,
    ) -> Indices:
        self.bits = np.zeros(shape[1:])

        def noted(step: Pass, frequencies: Frequencies) -> Indices:
            chosen = choose(step, frequencies)
            shares = frequencies[0, np.arange(step.rows.size), chosen[0]] + 1
            self.bits[step.level, step.rows, step.columns] = FREQUENCY_BITS - np.log2(shares)
            return chosen

        return super().walk(shape, kinds, noted, expected)


class _Observer:
    """Gathers what `score_split` shows."""

    def __init__(self, codec: Codec, prior: TallyPrior | None, main: int, count: int, size: int) -> None:
        self.codec, self.prior, self.main = codec, prior, main
        grid = cells(size, codec.config.stride)
        self.rows: dict[int, list[tuple[float, ...]]] = {}
        self.bits = np.zeros((main, grid, grid))
        self.usage = np.zeros((codec.config.levels, codec.config.codebook_size), np.int64)
        self.pooled: list[NDArray[np.float32]] = []
        self.thumbnails = np.zeros((count, THUMBNAIL, THUMBNAIL), np.uint8)
        self.summed, self.errors = np.zeros((size, size)), np.zeros((size, size))

    def see(self, seen: Seen) -> None:
        """Take one slice at one quality."""
        row = (*seen.similarity, float(len(seen.content)))
        self.rows.setdefault(seen.levels, []).append(row)
        if seen.levels != self.main:
            return
        plane = seen.original
        self.summed += plane
        self.errors += np.abs(seen.restored.astype(np.float64) - plane)
        self.thumbnails[seen.place] = np.asarray(
            Image.fromarray(plane).resize((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
        )
        latents = self.codec.latents(plane)
        self.pooled.append((pooled(latents) / LATENT_UNITS).astype(np.float32))
        self._count(latents.reshape(-1, latents.shape[2]))
        window = container.read(seen.content, "slice").header.window
        if self.prior is not None and window.height:
            inside = self.bits[:, window.top :, window.left :]
            inside[:, : window.height, : window.width] += self.prior.bits

    def _count(self, residual: NDArray[np.float32]) -> None:
        """Count the nearest codes of latents (N, D) on every level."""
        for level, codebook in enumerate(self.codec.file.codebooks):
            nearest = (np.square(codebook).sum(1) - 2 * (residual @ codebook.T)).argmin(1)
            self.usage[level] += np.bincount(nearest, minlength=len(codebook))
            residual = residual - codebook[nearest]


def observe(
    codec: Codec,
    dataset: Dataset,
    split: str,
    qualities: list[int],
    every: int = 1,
    advance: Advance = lambda done, total: None,
) -> Observations:
    """Score a split as `score_split` does, and gather what a report shows in the same pass.

    Raises:
        DatasetError: there is no such split.
        ModelError: a quality is out of the model's range.
    """
    wanted = [codec.check_levels(quality) for quality in qualities] or [codec.config.default_levels]
    main = codec.config.default_levels if codec.config.default_levels in wanted else wanted[0]
    prior = TallyPrior(codec.prior.config, codec.prior.arrays) if codec.prior else None
    tallied = Codec(codec.file.with_prior(prior, codec.card))
    records = list(dataset.splits[split].records[::every]) if split in dataset.splits else []
    observer = _Observer(tallied, prior, main, len(records), dataset.size)
    score = score_split(tallied, dataset, split, wanted, advance, every, observer.see)
    rows = {levels: QualityRows(*np.array(each).T) for levels, each in observer.rows.items()}
    chosen = choose_cases(rows[main], [record.subject for record in records])
    planes, marks = dataset.array(split)[::every], marks_of_records(dataset, records)
    return Observations(
        score,
        records,
        rows,
        main,
        observer.usage,
        codec.config.stride,
        observer.bits / len(records) if prior else None,
        np.stack(observer.pooled),
        observer.thumbnails,
        observer.summed / len(records),
        observer.errors / len(records),
        [
            _case(codec, kind, records[place], np.asarray(planes[place]), main, marks[place])
            for kind, place in chosen
        ],
        shared(marks),
    )


def choose_cases(rows: QualityRows, subjects: list[str]) -> list[tuple[str, int]]:
    """Places of the best, the median and the worst slices, in each kind the most extreme first.

    Slices are ranked by foreground SSIM, or by SSIM if there is no foreground. The slices of a kind are
    from different subjects.
    """
    merit = np.where(np.isnan(rows.foreground_ssim), rows.ssim, rows.foreground_ssim)
    order = [int(place) for place in merit.argsort(kind="stable")]
    middle = sorted(order, key=lambda place: abs(merit[place] - float(np.median(merit))))
    taken: set[int] = set()
    chosen: dict[str, list[int]] = {}
    for kind, candidates in (("worst", order), ("best", order[::-1]), ("median", middle)):
        left = [place for place in candidates if place not in taken]
        first = {subjects[place]: place for place in reversed(left)}  # for each subject
        chosen[kind] = [place for place in left if first[subjects[place]] == place][:CASES]
        taken.update(chosen[kind])
    return [(kind, place) for kind in ("best", "median", "worst") for place in chosen[kind]]


def _case(
    codec: Codec, kind: str, record: SliceRecord, plane: NDArray[np.uint8], levels: int, marks: Marks
) -> Case:
    file = container.read(codec.encode(plane, levels, content=Content.SCAN), record.source)
    codes = codec.codes_of(file)
    restored = codec.decode_codes(codes, record.source).plane.astype(np.uint8)
    scores = similarity(plane, restored, DATA_RANGE)
    return Case(kind, record, plane, restored, codes, scores, marks)


def by_subject(seen: Observations) -> dict[str, NDArray[np.float64]]:
    """SSIM of each subject's slices, the subject with the lowest mean first."""
    ssim = seen.rows[seen.main].ssim
    members: dict[str, list[int]] = {}
    for place, record in enumerate(seen.records):
        members.setdefault(record.subject, []).append(place)
    values = {subject: ssim[places] for subject, places in members.items()}
    return dict(sorted(values.items(), key=lambda each: float(each[1].mean())))


class LevelUsage(NamedTuple):
    """How the codes of one level are used."""

    used: int  # codes that occurred at least once
    perplexity: float  # number of equally frequent codes that would be as hard to guess
    indices: int  # that were counted


def level_usage(counts: NDArray[np.int64]) -> LevelUsage:
    """The usage of a level by the counts (K,) of its codes."""
    total = int(counts.sum())
    shares = counts[counts > 0] / max(1, total)
    return LevelUsage(len(shares), math.exp(float(-(shares * np.log(shares)).sum())), total)
