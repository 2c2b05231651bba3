"""What a training is asked for, and what it leaves."""

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

from oasisvq.data.dataset import Dataset
from oasisvq.data.layouts import Images
from oasisvq.scans.limits import DEFAULT_MAX_PIXELS


@dataclasses.dataclass(frozen=True)
class Request:
    """What the command line asked for."""

    data: Path
    run: Path
    preset: str | None
    images: Images | None
    overrides: dict[str, Any]  # preset fields by name
    seed: int | None
    precision: str | None  # auto, float32 or bfloat16
    device: str
    max_minutes: float | None
    resume: bool
    force: bool
    compiled: bool | None = None  # None: where it pays
    start_from: Path | None = None  # a model file or run folder; of a prior alone, a run folder
    with_prior: bool = True
    prior_only: bool = False
    with_residue: bool = True
    residue_only: bool = False
    model: Path | None = None  # the codec to give a prior, or networks of residues
    max_pixels: int = DEFAULT_MAX_PIXELS  # of an image of a raw folder


class Trained(NamedTuple):
    """What a training left."""

    model: Path
    dataset: Dataset
    what: str  # the stage that it ended in
    step: int
    finished: bool
    metrics_bytes: int

    @property
    def has_validation(self) -> bool:
        """Whether there is a validation split to score."""
        return "validation" in self.dataset.splits
