"""What a user can choose about a prepared dataset besides its raw folder, images and size."""

import dataclasses
from dataclasses import dataclass
from typing import Any, NamedTuple

from oasisvq.data.layouts import SPLITS, layout_named
from oasisvq.errors import DatasetError
from oasisvq.scans.geometry import PLANES

DEFAULT_SPLIT = (80.0, 10.0, 10.0)


class Slices(NamedTuple):
    """Which slices of a volume to take.

    Attributes:
        number: how many, spread evenly over the part with brain; 0 for one per millimetre of it.
        span: in place of a number, a range in millimetres from the first slice, its end excluded.
    """

    number: int = 32
    span: tuple[int, int] | None = None

    def __str__(self) -> str:
        if self.span:
            return f"{self.span[0]}:{self.span[1]}"
        return str(self.number) if self.number else "all"


DEFAULT_SLICES = Slices()


@dataclass(frozen=True)
class Recipe:
    """How a raw folder becomes a prepared dataset.

    Attributes:
        layout: key of the layout; if None, it is recognised.
        variant: name of the variant; if None, the layout's first that a session has.
        subjects: path of the table that names the subjects of files whose names do not.
        slices: which slices of a volume to take.
        percentiles: of a volume's foreground, which become black and white.
        split: shares of train, validation and test; if None, the given splits or `DEFAULT_SPLIT`.
        seed: decides which persons go into which split.
        guess_subjects: whether to draw splits even if subjects can only be guessed.
        axis: that slices of a volume follow, one of `PLANES`.
    """

    layout: str | None = None
    variant: str | None = None
    subjects: str | None = None
    slices: Slices = DEFAULT_SLICES
    percentiles: tuple[float, float] = (0.5, 99.5)
    split: tuple[float, float, float] | None = None
    seed: int = 0
    guess_subjects: bool = False
    axis: str = "axial"

    def __post_init__(self) -> None:
        if self.layout is not None:
            layout_named(self.layout)
        if self.axis not in PLANES:
            raise DatasetError(f"axis '{self.axis}', expected {', '.join(PLANES[::-1])}")

    def as_dict(self) -> dict[str, Any]:
        """The fields as the manifest keeps them; the inverse of `recipe_from_dict`."""
        return {
            **dataclasses.asdict(self),
            "slices": str(self.slices),
            "percentiles": list(self.percentiles),
            "split": None if self.split is None else list(self.split),
        }


DEFAULT_RECIPE = Recipe()


def recipe_from_dict(fields: dict[str, Any]) -> Recipe:
    """The recipe in a manifest.

    Raises:
        KeyError, TypeError, ValueError: it is not a whole recipe.
    """
    split = fields["split"]
    if split is not None:
        train, validation, test = (float(share) for share in split)
        split = train, validation, test
    low, high = (float(percentile) for percentile in fields["percentiles"])
    try:
        return Recipe(
            fields["layout"],
            fields["variant"],
            fields["subjects"],
            parse_slices(fields["slices"]),
            (low, high),
            split,
            int(fields["seed"]),
            bool(fields["guess_subjects"]),
            fields.get("axis", "axial"),  # older manifests do not say
        )
    except DatasetError as error:
        raise ValueError(str(error)) from error


def parse_slices(text: str) -> Slices:
    """Parse `32`, `60:130` or `all`.

    Raises:
        DatasetError: the text is none of these.
    """
    try:
        if text == "all":
            return Slices(0)
        if ":" in text:
            first, last = (int(end) for end in text.split(":"))
            if 0 <= first < last:
                return Slices(0, (first, last))
        elif int(text) > 0:
            return Slices(int(text))
    except ValueError:
        pass
    raise DatasetError(f"slices '{text}', expected a count (32), a range of millimetres (60:130) or all")


def parse_percentiles(text: str) -> tuple[float, float]:
    """Parse percentiles such as `0.5:99.5`.

    Raises:
        DatasetError: these are not two rising numbers from 0 to 100.
    """
    try:
        low, high = (float(end) for end in text.split(":"))
    except ValueError:
        low, high = 0.0, 0.0
    if not 0 <= low < high <= 100:
        raise DatasetError(f"percentiles '{text}', expected two rising numbers like 0.5:99.5")
    return low, high


def parse_split(text: str) -> tuple[float, float, float]:
    """Parse shares of train, validation and test such as `80/10/10`.

    Raises:
        DatasetError: these are not three shares of at least 0, or all are 0.
    """
    try:
        train, validation, test = (float(share) for share in text.split("/"))
    except ValueError:
        train = validation = test = 0.0
    shares = train, validation, test
    if not (min(shares) >= 0 and 0 < sum(shares) < float("inf")):
        raise DatasetError(f"split '{text}', expected shares of {', '.join(SPLITS)} like 80/10/10")
    return shares
