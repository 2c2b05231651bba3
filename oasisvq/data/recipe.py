"""What a user can choose about a prepared dataset, beside its raw folder, images and size."""

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
        number: so many, evenly over the part with brain; 0 for every millimetre of it.
        span: in place of a number, millimetres from the first slice, the second one excluded.
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
        layout: key of the layout; None: the one that is recognised.
        variant: name of the variant; None: the layout's first that a session has.
        subjects: the table that names the subjects of files whose names do not.
        slices: which slices of a volume.
        percentiles: of a volume's foreground, that become black and white.
        split: shares of train, validation and test; None: as given, else `DEFAULT_SPLIT`.
        seed: which persons go where.
        guess_subjects: whether to draw splits where only a guess tells whose a scan is.
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
        KeyError, TypeError, ValueError: it is no whole recipe.
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
            fields.get("axis", "axial"),  # manifests of before do not say
        )
    except DatasetError as error:
        raise ValueError(str(error)) from error


def parse_slices(text: str) -> Slices:
    """`32`, `60:130` or `all`.

    Raises:
        DatasetError: none of these.
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
    """`0.5:99.5`.

    Raises:
        DatasetError: no two rising numbers from 0 to 100.
    """
    try:
        low, high = (float(end) for end in text.split(":"))
    except ValueError:
        low, high = 0.0, 0.0
    if not 0 <= low < high <= 100:
        raise DatasetError(f"percentiles '{text}', expected two rising numbers like 0.5:99.5")
    return low, high


def parse_split(text: str) -> tuple[float, float, float]:
    """`80/10/10`: shares of train, validation and test.

    Raises:
        DatasetError: no three shares of at least 0, or all of them 0.
    """
    try:
        train, validation, test = (float(share) for share in text.split("/"))
    except ValueError:
        train = validation = test = 0.0
    shares = train, validation, test
    if not (min(shares) >= 0 and 0 < sum(shares) < float("inf")):
        raise DatasetError(f"split '{text}', expected shares of {', '.join(SPLITS)} like 80/10/10")
    return shares
