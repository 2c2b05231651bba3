"""Drawn slices: as pictures, beside their nearest training slices, and their distance from real ones.

Shapes: N images, H×W image, D features of an image.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from oasisvq.codec.codec import Codec
from oasisvq.codec.codes import Codes
from oasisvq.codec.container import SUFFIX
from oasisvq.codec.exact import LATENT_UNITS
from oasisvq.codec.measure import similarity
from oasisvq.data.dataset import Dataset, open_dataset
from oasisvq.errors import DatasetError
from oasisvq.files import make_folder, refuse_overwrite, require_output, write_atomically
from oasisvq.scans.images import write_image

DATA_RANGE = 255.0
Advance = Callable[[int, int], None]  # called with (done, total)
DEFAULT_TEMPERATURE = 0.75  # with the least Fréchet distance to the validation slices, see RESULTS.md
GAP = 4  # pixels between pictures of a pair and between rows
SLICES_AT_ONCE = 256
SAMPLES_AT_ONCE = 16


@dataclass(frozen=True)
class Request:
    """Which samples to draw: how many, with which seed, how many levels and which temperature."""

    count: int
    seed: int = 0
    levels: int | None = None
    temperature: float = DEFAULT_TEMPERATURE


class Neighbour(NamedTuple):
    """The training slice nearest to a sample."""

    source: str
    plane: NDArray[np.uint8]  # as it is, or mirrored if that is nearer
    ssim: float  # between it and the sample


class Training(str, Enum):
    """How the training slices of a dataset relate to a model."""

    ITS_OWN = "its own"  # the model was trained on them
    UNKNOWN = "unknown"  # the model does not say on what it was trained
    OTHERS = "others"  # it was trained on others
    NONE = "none"  # there are none of the size that it draws


class Drawn(NamedTuple):
    """A sample as an image, and its nearest training slice, if that was searched for."""

    plane: NDArray[np.uint8]
    neighbour: Neighbour | None


def draw_codes(
    codec: Codec, request: Request, advance: Advance = lambda done, total: None
) -> Iterator[Codes]:
    """Samples one after the other; sample i of a seed is the same, however many are drawn.

    Raises:
        ModelError: the model has no prior, or the levels are out of range.
    """
    for start in range(0, request.count, SAMPLES_AT_ONCE):
        numbers = range(start, min(request.count, start + SAMPLES_AT_ONCE))
        seeds = [seed_of(request.seed, number) for number in numbers]
        drawn = codec.sample(seeds, request.levels, request.temperature)
        for number, codes in zip(numbers, drawn, strict=True):
            yield codes
            advance(number + 1, request.count)


def to_plane(codec: Codec, codes: Codes) -> NDArray[np.uint8]:
    """A sample as an image."""
    return codec.decode_codes(codes, "sample").plane.astype(np.uint8)


def write_files(
    codec: Codec,
    request: Request,
    output: Path,
    as_codes: bool,
    force: bool,
    advance: Advance = lambda done, total: None,
) -> int:
    """Write samples as single files: as `output` if that names a `.codes` file, else in this folder.

    Returns:
        How many were written.

    Raises:
        FileError: a file is in the way, or cannot be written.
        ModelError: see `draw_codes`.
    """
    is_one = output.suffix == SUFFIX
    ending = SUFFIX if as_codes or is_one else ".png"
    digits = len(str(request.count - 1))
    names = [
        output if is_one else output / f"sample-{number:0{digits}}{ending}"
        for number in range(request.count)
    ]
    for name in names:
        refuse_overwrite(name, force)
    for name, codes in zip(names, draw_codes(codec, request, advance), strict=True):
        make_folder(name.parent)
        if ending == SUFFIX:
            write_atomically(name, codec.write_codes(codes))
        else:
            write_image(to_plane(codec, codes), name)
    return len(names)


def write_picture(
    codec: Codec,
    request: Request,
    output: Path,
    neighbours: Path | None,
    force: bool,
    advance: Advance = lambda done, total: None,
) -> list[Neighbour]:
    """Write samples as one picture, each beside its nearest training slice if a dataset is named.

    Raises:
        FileError: a file is in the way, or cannot be written.
        DatasetError: there is no prepared dataset of this size with a training split.
        ModelError: see `draw_codes`.
    """
    require_output(output, force)
    dataset = None if neighbours is None else open_dataset(neighbours)
    if dataset is not None:
        _training_like(dataset, (codec.drawn_side, codec.drawn_side))
    planes = [to_plane(codec, codes) for codes in draw_codes(codec, request, advance)]
    if dataset is None:
        write_image(contact_sheet(planes), output)
        return []
    found = nearest_slices(planes, dataset)
    pairs = zip(planes, found, strict=True)
    pictures = [np.concatenate([plane, near.plane], axis=1) for plane, near in pairs]
    write_image(contact_sheet(pictures), output)
    return found


def training_of(codec: Codec, dataset: Dataset) -> Training:
    """How a dataset's training slices relate to a model, whose samples might be copies of them."""
    card = codec.card
    if "train" not in dataset.splits or not dataset.splits["train"].records:
        return Training.NONE
    if card.get("images") not in (None, dataset.images.value):
        return Training.OTHERS
    prior = card.get("prior")
    data = (prior if isinstance(prior, dict) else {}).get("training_data", card.get("training_data"))
    if data is None:
        return Training.UNKNOWN
    return Training.ITS_OWN if data == dataset.splits["train"].sha256 else Training.OTHERS


def draw_beside(
    codec: Codec,
    request: Request,
    dataset: Dataset,
    advance: Advance = lambda done, total: None,
) -> list[Drawn]:
    """Samples with their nearest training slices, unless the model was trained on others.

    Raises:
        ModelError: see `draw_codes`.
    """
    planes = [to_plane(codec, codes) for codes in draw_codes(codec, request, advance)]
    fits = planes[0].shape == (dataset.size, dataset.size)
    if not fits or training_of(codec, dataset) in (Training.OTHERS, Training.NONE):
        return [Drawn(plane, None) for plane in planes]
    return [Drawn(*pair) for pair in zip(planes, nearest_slices(planes, dataset), strict=True)]


def seed_of(seed: int, number: int) -> int:
    """The seed of one sample."""
    return int(np.random.SeedSequence((seed, number)).generate_state(1, np.uint64)[0])


def contact_sheet(pictures: list[NDArray[np.uint8]], columns: int | None = None) -> NDArray[np.uint8]:
    """Pictures of one size, side by side in rows, on black."""
    across = columns or math.ceil(math.sqrt(len(pictures)))
    down = math.ceil(len(pictures) / across)
    height, width = pictures[0].shape
    sheet = np.zeros((down * (height + GAP) - GAP, across * (width + GAP) - GAP), np.uint8)
    for place, picture in enumerate(pictures):
        top, left = place // across * (height + GAP), place % across * (width + GAP)
        sheet[top : top + height, left : left + width] = picture
    return sheet


def nearest_slices(planes: list[NDArray[np.uint8]], dataset: Dataset) -> list[Neighbour]:
    """The training slice nearest to each plane, plain or mirrored, by mean squared difference.

    Raises:
        DatasetError: the dataset has no training split, or slices of another size.
    """
    training = _training_like(dataset, planes[0].shape)
    records = dataset.splits["train"].records
    ours = np.stack([plane.reshape(-1) for plane in planes]).astype(np.float32)
    best = np.full(len(planes), np.inf)
    which: list[tuple[int, bool]] = [(0, False)] * len(planes)
    for start in range(0, len(training), SLICES_AT_ONCE):
        block = np.asarray(training[start : start + SLICES_AT_ONCE])
        for mirrored in (False, True):
            theirs = (block[:, ::-1] if mirrored else block).reshape(len(block), -1)
            theirs = theirs.astype(np.float32)
            # |a - b|² without |a|², which is the same for all
            distance = np.square(theirs).sum(1) - 2 * ours @ theirs.T
            for place in np.flatnonzero(distance.min(1) < best):
                nearest = int(distance[place].argmin())
                best[place] = distance[place, nearest]
                which[place] = start + nearest, mirrored
    neighbours = []
    for plane, (position, mirrored) in zip(planes, which, strict=True):
        found = np.asarray(training[position])
        theirs = np.ascontiguousarray(found[::-1] if mirrored else found)
        ssim = similarity(theirs, plane, DATA_RANGE).ssim
        neighbours.append(Neighbour(records[position].source, theirs, ssim))
    return neighbours


def _training_like(dataset: Dataset, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Training slices (N, H, W) of a shape.

    Raises:
        DatasetError: the dataset has none, or has slices of another size.
    """
    training = dataset.array("train")
    if training.shape[1:] != shape:
        raise DatasetError(
            f"{dataset.shown}: slices of {training.shape[1]}×{training.shape[2]}, but the model draws "
            f"{shape[0]}×{shape[1]}"
        )
    return training


class SampleScore(NamedTuple):
    """How far samples are from a split, and how far as many training slices are."""

    samples: int
    slices: int
    frechet_samples: float
    frechet_training: float


def frechet_distance(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """|μ₁ − μ₂|² + tr(Σ₁ + Σ₂ − 2 (Σ₁ Σ₂)^½) of features (N, D) and (M, D).

    This is the distance of Dowson and Landau (1982) between the Gaussians of both, as in the FID of
    Heusel et al. (2017), but with other features.
    """
    difference = first.mean(0) - second.mean(0)
    one, two = np.cov(first, rowvar=False), np.cov(second, rowvar=False)
    values, vectors = np.linalg.eigh(one)
    root = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    # the eigenvalues of root·Σ₂·root are those of Σ₁Σ₂, and it is symmetric
    cross = np.sqrt(np.linalg.eigvalsh(root @ two @ root).clip(0)).sum()
    distance = float(difference @ difference + np.trace(one) + np.trace(two) - 2 * cross)
    return max(0.0, distance)  # of equal sets, rounding leaves a little of either sign


def require_comparable(dataset: Dataset, split: str, count: int) -> None:
    """Refuse what `score_samples` cannot compare.

    Raises:
        DatasetError: there is no such split, or no other training split, or one has too few slices.
    """
    if split == "train":
        raise DatasetError(
            f"{dataset.shown}: samples are compared with a split and with train; name another than train"
        )
    training = len(dataset.array("train"))
    if min(len(dataset.array(split)), training) < 2:
        raise DatasetError(
            f"{dataset.shown}: a Fréchet distance needs at least 2 slices in train and in {split}"
        )
    if count > training:
        raise DatasetError(
            f"{dataset.shown}: {count:,} samples, but train has {training:,} slices to compare "
            "with; ask for no more samples"
        )


def score_samples(
    codec: Codec,
    dataset: Dataset,
    split: str,
    count: int,
    seed: int = 0,
    levels: int | None = None,
    advance: Advance = lambda done, total: None,
) -> SampleScore:
    """Fréchet distance of `count` samples, and of as many training slices, to a split.

    Samples are drawn at the default temperature. The features of an image are its latents, averaged
    over the quarters of the grid (4·D).

    Raises:
        DatasetError: see `require_comparable`.
        ModelError: the model has no prior.
    """
    require_comparable(dataset, split, count)
    training = dataset.array("train")
    real = features(codec, (np.asarray(plane) for plane in dataset.array(split)))
    chosen = np.random.default_rng(seed).permutation(len(training))[:count]
    trained_on = features(codec, (np.asarray(training[place]) for place in chosen))
    drawn_codes = draw_codes(codec, Request(count, seed, levels), advance)
    drawn = features(codec, (to_plane(codec, codes) for codes in drawn_codes))
    return SampleScore(
        count, len(real), frechet_distance(drawn, real), frechet_distance(trained_on, real)
    )


def features(codec: Codec, planes: Iterable[NDArray[np.generic]]) -> NDArray[np.float64]:
    """(N, 4·D) latents of planes, averaged over the quarters of the grid."""
    rows = []
    for plane in planes:
        latents = codec.latents(plane) / LATENT_UNITS  # (h, w, D)
        half_height, half_width = latents.shape[0] // 2, latents.shape[1] // 2
        quarters = [
            latents[above, beside].mean((0, 1))
            for above in (slice(half_height), slice(half_height, None))
            for beside in (slice(half_width), slice(half_width, None))
        ]
        rows.append(np.concatenate(quarters))
    return np.stack(rows).astype(np.float64)
