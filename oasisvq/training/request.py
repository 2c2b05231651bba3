"""The request for a training, and its results."""

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

from oasisvq.data.dataset import Dataset
from oasisvq.data.layouts import Images
from oasisvq.scans.limits import DEFAULT_MAX_PIXELS


@dataclasses.dataclass(frozen=True)
class Request:
    """What the command line asked for."""

    data: tuple[Path, ...]  # prepared datasets or raw folders
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
    compiled: bool | None = None  # if None, where it pays off
    start_from: Path | None = None  # a model file or run folder; for a prior alone, a run folder
    with_prior: bool = True
    prior_only: bool = False
    with_volumes: bool = True
    volumes_only: bool = False
    with_residue: bool = True
    residue_only: bool = False
    model: Path | None = None  # the codec to give a prior, one for volumes, or networks of residues
    max_pixels: int = DEFAULT_MAX_PIXELS  # of an image of a raw folder
    is_quiet: bool = False  # whether no progress is shown

    @property
    def named(self) -> str:
        """The data as messages call them."""
        return ", ".join(map(str, self.data))

    def of(self, planned: "Following") -> "Following":
        """The planned stages that this request wants."""
        return Following(
            planned.prior_epochs if self.with_prior else 0,
            planned.prior_batch_size,
            planned.volumes_epochs if self.with_volumes else 0,
            planned.residue_epochs if self.with_residue else 0,
        )


@dataclasses.dataclass(frozen=True)
class Following:
    """The stages that follow a stage; one that does not follow has 0 epochs.

    Attributes:
        prior_epochs: of the prior; after the codec of volumes, of the prior of volumes.
        prior_batch_size: slices in a step of the prior; if None, chosen to fit the data.
        volumes_epochs: of the codec of volumes.
        residue_epochs: of the networks of residues.
    """

    prior_epochs: int = 0
    prior_batch_size: int | None = None
    volumes_epochs: int = 0
    residue_epochs: int = 0


NOTHING_FOLLOWS = Following()


class Trained(NamedTuple):
    """The results of a training."""

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
