"""The configs that rebuild the networks of residues with their arrays, and what these networks see.

Shapes: F slots of known places, W places of a window, H hidden.

Two networks look at the places of a slice, pass by pass, see `lattice.py`. That of the residue
(`residue.py`) predicts a bin, that of the support (`support.py`) whether a voxel is ground. Their inputs
are integers from -127 to 127, in this order:

| inputs | how many |
|---|---|
| known places around: all that any kind of pass sees, nearest first; 0 where this kind does not | F |
| kind of the pass, one of three | 3 |
| the decoded image around the place, 0 if the slice has no indices | W |
| the previous slice around the place, then the one before it; 0 if there is none | W · slices_before |
| scalars | `SCALARS`, `SUPPORT_SCALARS` |

Arrays are named and typed by `layer_shapes`. Activations are clipped to 0 to 127, in 16ths.

| residue. | shape of the weight | from | to |
|---|---|---|---|
| input | (H, inputs) | the inputs | the stream, in 64ths |
| block1.first .. | (H, H) | activations of the stream | activations |
| block1.second .. | (H, H) | these activations | what is added to the stream, in 64ths |
| output | (3 · components, H + inputs) | activations of the stream, and the inputs | see below |

The output holds the weights of all components in 16ths of an octave; then their centres in 64ths of the
spread; then the base-2 logarithms of their scales relative to the spread, in 16ths.

| support. | shape of the weight | gives |
|---|---|---|
| input | (first H, inputs) | activations |
| hidden | (second H, first H) | activations |
| output | (1, second H) | the logit of not being ground, in steps of `questions.py` |
"""

from dataclasses import dataclass
from functools import cache

from oasisvq.codec.exact import layer_shapes
from oasisvq.errors import ModelError

INPUT_MAX = 127
INPUT_UNITS = 32  # steps of an input to a spread, a mark or an octave
ACTIVATION_MAX = 127
ACTIVATION_UNITS = 16
STREAM_UNITS = 64
OCTAVE_UNITS = 16  # of weights and scales of components
CENTRE_UNITS = 64  # to a spread, of centres of components
SCALARS = 8
SUPPORT_SCALARS = 3
KINDS = 3  # of passes: the middle of four places, the middle of two in a row, of two in a column
MAX_REACH = 8
MAX_WINDOW = 4
MAX_SLICES_BEFORE = 2
MAX_HIDDEN = 1024
MAX_BLOCKS = 8
MAX_COMPONENTS = 8

Offset = tuple[int, int]  # rows and columns from a place
Shapes = dict[str, tuple[tuple[int, ...], type]]


@cache
def known_offsets(kind: int, reach: int) -> tuple[Offset, ...]:
    """Offsets of known places in a pass of a kind (0, 1, 2), up to `reach` at scale 1, nearest first.

    For the middles of four places (0) these are the offsets with an odd row and an odd column. For the
    middles of two in a row (1) they are those of odd sum: the places before and the middles of four.
    For the middles of two in a column (2) they are all of these.
    """
    side = range(-reach, reach + 1)
    found = []
    for row in side:
        for column in side:
            both, odd = row % 2 == 1 and column % 2 == 1, (row + column) % 2 == 1
            if both if kind == 0 else odd or (kind == 2 and both):
                found.append((row, column))
    return tuple(sorted(found, key=_distance))


def window_offsets(reach: int) -> list[Offset]:
    """Places of a window around a place, nearest first."""
    side = range(-reach, reach + 1)
    return sorted(((row, column) for row in side for column in side), key=_distance)


def _distance(offset: Offset) -> tuple[int, Offset]:
    return offset[0] ** 2 + offset[1] ** 2, offset


@dataclass(frozen=True)
class Sight:
    """What a network sees of a slice; the base of both configs.

    Attributes:
        reach: by kind of pass, how far known places are seen, in units of the scale.
        window: how far the decoded image and the previous slices are seen, in pixels.
        slices_before: how many previous slices are seen.
    """

    what = ""  # what messages call the network
    scalars = 0  # number of scalar inputs
    reach: tuple[int, ...]
    window: int
    slices_before: int

    def __post_init__(self) -> None:
        if len(self.reach) != KINDS or not all(1 <= reach <= MAX_REACH for reach in self.reach):
            raise ModelError(
                f"{self.what} config: reach is {self.reach}, expected {KINDS} of 1 to {MAX_REACH}"
            )
        self._refuse("window", 0, MAX_WINDOW)
        self._refuse("slices_before", 0, MAX_SLICES_BEFORE)

    def _refuse(self, name: str, low: int, high: int) -> None:
        if not low <= getattr(self, name) <= high:
            raise ModelError(
                f"{self.what} config: {name} is {getattr(self, name)}, expected {low} to {high}"
            )

    @property
    def slots(self) -> list[Offset]:
        """The known places that have an input, at scale 1, nearest first; F of them."""
        union = {each for kind in range(KINDS) for each in known_offsets(kind, self.reach[kind])}
        return sorted(union, key=_distance)

    @property
    def window_size(self) -> int:
        """Places W of a window."""
        return (2 * self.window + 1) ** 2

    @property
    def inputs(self) -> int:
        """The number of all inputs."""
        windows = self.window_size * (1 + self.slices_before)
        return len(self.slots) + KINDS + windows + self.scalars


@dataclass(frozen=True)
class ResidueConfig(Sight):
    """Everything that rebuilds the network of the residue except its arrays.

    Attributes:
        hidden: width H of the layers.
        blocks: residual blocks.
        components: of the mixture.
    """

    what = "residue"
    scalars = SCALARS
    hidden: int
    blocks: int
    components: int

    def __post_init__(self) -> None:
        super().__post_init__()
        self._refuse("hidden", 1, MAX_HIDDEN)
        self._refuse("blocks", 0, MAX_BLOCKS)
        self._refuse("components", 1, MAX_COMPONENTS)

    def array_shapes(self) -> Shapes:
        """Name -> shape and type of the arrays."""
        shapes = layer_shapes("input", (self.hidden, self.inputs))
        for block in range(1, self.blocks + 1):
            for half in ("first", "second"):
                shapes |= layer_shapes(f"block{block}.{half}", (self.hidden, self.hidden))
        return shapes | layer_shapes("output", (3 * self.components, self.hidden + self.inputs))


@dataclass(frozen=True)
class SupportConfig(Sight):
    """Everything that rebuilds the network of the support except its arrays.

    Attributes:
        hidden: width of the first and of the second hidden layer.
    """

    what = "support"
    scalars = SUPPORT_SCALARS
    hidden: tuple[int, ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.hidden) != 2 or not all(1 <= width <= MAX_HIDDEN for width in self.hidden):
            raise ModelError(
                f"support config: hidden is {self.hidden}, expected two of 1 to {MAX_HIDDEN}"
            )

    def array_shapes(self) -> Shapes:
        """Name -> shape and type of the arrays."""
        first, second = self.hidden
        shapes = layer_shapes("input", (first, self.inputs))
        shapes |= layer_shapes("hidden", (second, first))
        return shapes | layer_shapes("output", (1, second))
