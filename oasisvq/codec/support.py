"""Where the ground is, given the decoded image <-> payload. Never imports torch.

Shapes: S slices (an image is one), H×W slice, n places asked about at once, I inputs.

The support is the set of voxels that are not ground. Slices are coded one after the other by yes-or-no
questions, see `questions.py`, each given the previous slice, which the first does not have.

**The guide** tells how far each voxel of the decoded image lies from the ground; if the ground is not
between the slice's darkest and brightest value, from the darkest value. It is in 512ths of the larger
distance of these two values from there, rounded, at most 127. A slice without indices has no guide.

**A slice** begins with two questions, by counts: has it any support? If so, has it ground too? Their
context is the question, and whether the previous slice is missing, all ground, or not. Only a slice with
both goes on, in the order of `lattice.py`, with all its places chosen; "yes" means support.

1. The places before all passes: the logit is `_BY_OCTAVE` at the bit length of the guide, or 0 without a
   guide; plus `_AS_BEFORE` if the previous slice has support there, minus it if it has ground.
2. In a pass at a scale below 8, the places around which all agree: the four nearest known places and the
   3×3 neighbourhood in the previous slice are all ground or all support, and the guide's 3×3
   neighbourhood is at most `_DARK` for ground, or above it for support. The logit is 3072 in favour,
   which costs next to nothing.
3. Then the other places of the pass, by the logit of the network.

**Inputs** are those of `residue_config.py`. Known places and previous slices are -32 for ground and 32
for support; the decoded image is the guide. The scalars are 32 if there is a guide, 32 if there is a
previous slice, and 16 times the base-2 logarithm of the scale. Beyond its borders a slice is ground, and
its guide 0.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from oasisvq.codec.exact import Numbers
from oasisvq.codec.lattice import SCALES, Flat, Lattice, Part
from oasisvq.codec.questions import (
    Booleans,
    Counts,
    Integers,
    QuestionReader,
    Questions,
    QuestionWriter,
)
from oasisvq.codec.residue_config import INPUT_MAX, INPUT_UNITS, KINDS
from oasisvq.codec.residue_networks import SupportNetwork
from oasisvq.errors import CodesFileError

Guide = NDArray[np.float64]

GUIDE_UNITS = 512
_SURE = 3072
_BY_OCTAVE = np.array([-1530, -700, -180, 180, 700, 1600, 1800, 2600])
_AS_BEFORE = 700
_DARK = 8
_NEAREST = 4
_MARK = np.float32(INPUT_UNITS)


def guide_of(plane: NDArray[np.generic], ground: float, ends: tuple[float, float]) -> Guide:
    """A decoded slice (H, W) -> how far its voxels lie from the ground, as shares of its range.

    Args:
        plane: of a slice with indices, before anything is laid on it.
        ground: value of the ground.
        ends: what pixels 0 and 1 of the slice stand for.
    """
    low, high = ends
    start = ground if low <= ground <= high else low  # also for NaN
    distance: Guide = np.abs(plane.astype(np.float64) - start)
    return distance / (max(start - low, high - start) or 1.0)


class SupportWriter:
    """Supports of slices -> a payload."""

    def __init__(self, network: SupportNetwork, shape: tuple[int, int]) -> None:
        self._questions = QuestionWriter()
        self._walk = _Walk(network, shape, self._questions)

    def put(self, support: Booleans, guide: Guide | None) -> None:
        """Append the support (H, W) of a slice; see `guide_of`."""
        self._walk.slice(support, guide)

    def finish(self) -> bytes:
        """The payload."""
        return self._questions.finish()


class SupportReader:
    """A payload -> supports of slices; the inverse of `SupportWriter`."""

    def __init__(self, payload: bytes, network: SupportNetwork, shape: tuple[int, int]) -> None:
        self._questions, self._shape = QuestionReader(payload), shape
        self._walk = _Walk(network, shape, self._questions)

    def take(self, guide: Guide | None) -> Booleans:
        """The support (H, W) of the next slice.

        Raises:
            CodesFileError: the payload is damaged.
        """
        return self._walk.slice(np.zeros(self._shape, np.bool_), guide)

    def finish(self) -> None:
        """Raise unless the payload ends here.

        Raises:
            CodesFileError: it goes on, or is not what the encoder writes.
        """
        self._questions.finish()


class _Known(NamedTuple):
    """What is known of a slice before its support is coded: flat planes with their margin."""

    guide: Numbers | None
    before: list[Numbers]  # the nearest slice first
    is_dark: Booleans  # around each place of the slice
    is_bright: Booleans
    was_ground: Booleans
    was_support: Booleans


class _Walk:
    """Codes the supports of slices in both directions."""

    def __init__(self, network: SupportNetwork, shape: tuple[int, int], questions: Questions) -> None:
        self._network, self._questions = network, questions
        self._lattice = Lattice(network.config, shape)
        self._flags = Counts(6)
        self._before: list[Numbers] = []
        self._asked = 0

    def slice(self, support: Booleans, guide: Guide | None) -> Booleans:
        """Code a slice and return its support (H, W); when it is written, this is the given one."""
        plane = self._lattice.zeros() - _MARK
        inner = self._lattice.inner(plane)
        has_support = self._flag(0, bool(support.any()))
        if has_support and self._flag(1, not support.all()):
            self._refuse_more_than_fit(support.size)
            self._both(plane, support, self._known(guide))
            if inner.min() == inner.max():
                raise CodesFileError("a slice that has support and ground has but one of them")
        elif has_support:
            inner[...] = _MARK
        self._before = [plane, *self._before][: max(1, self._network.config.slices_before)]
        found: Booleans = inner > 0
        return found

    def _flag(self, question: int, answer: bool) -> bool:
        before = [self._lattice.inner(plane).max() > 0 for plane in self._before]
        state = 1 + before[0] if before else 0
        asked = np.array([3 * question + state])
        return bool(self._flags.ask(self._questions, asked, np.array([answer]))[0])

    def _refuse_more_than_fit(self, voxels: int) -> None:
        self._asked += voxels
        if isinstance(self._questions, QuestionReader):
            self._questions.refuse_more_than_fit(self._asked)

    def _known(self, guide: Guide | None) -> _Known:
        everything = np.ones_like(self._lattice.zeros(), np.bool_)
        steps, is_dark, is_bright = None, everything, everything
        if guide is not None:
            steps = self._lattice.padded(np.minimum(np.rint(guide * GUIDE_UNITS), INPUT_MAX))
            is_dark = self._around(steps <= _DARK)
            is_bright = self._around(steps > _DARK)
        was_ground, was_support = everything, everything
        if self._before:
            nearest = self._before[0]
            was_ground, was_support = self._around(nearest < 0), self._around(nearest > 0)
        return _Known(steps, self._before, is_dark, is_bright, was_ground, was_support)

    def _around(self, plane: Booleans) -> Booleans:
        """Whether a plane is true in the whole 3×3 neighbourhood of each place."""
        rows = self._lattice.rows(plane)
        across = rows.copy()
        across[:, 1:-1] &= rows[:, :-2] & rows[:, 2:]
        found = across.copy()
        found[1:-1] &= across[:-2] & across[2:]
        return found.reshape(-1)

    def _both(self, plane: Numbers, support: Booleans, known: _Known) -> None:
        """Code a slice that has ground and support."""
        wanted = self._lattice.padded(support) > 0
        everything = np.ones(support.shape, np.bool_)
        for places in self._lattice.first(everything):
            self._put(plane, places, wanted, _first_logits(places, known))
        for part in self._lattice.parts(everything):
            mark, is_sure = self._sure(plane, part, known)
            places = part.places[is_sure]
            self._put(plane, places, wanted, np.where(mark[is_sure] > 0, _SURE, -_SURE))
            rest = Part(part.kind, part.scale, part.places[~is_sure])
            if rest.places.size:
                inputs = self._inputs(plane, rest, known)
                self._put(plane, rest.places, wanted, self._network(inputs))

    def _put(self, plane: Numbers, places: Flat, wanted: Booleans, logits: Integers) -> None:
        answers = self._questions.ask(wanted[places], logits)
        plane[places] = np.where(answers, _MARK, -_MARK)

    def _sure(self, plane: Numbers, part: Part, known: _Known) -> tuple[Numbers, Booleans]:
        """The mark nearest to each place (n,) of a part, and whether all around agree with it."""
        nearest = self._lattice.known(plane, part, _NEAREST)
        mark: Numbers = nearest[:, 0]
        places, is_support = part.places, mark > 0
        is_sure: Booleans = (nearest == mark[:, None]).all(1)
        is_sure &= np.where(is_support, known.is_bright[places], known.is_dark[places])
        is_sure &= np.where(is_support, known.was_support[places], known.was_ground[places])
        return mark, is_sure & (part.scale < SCALES[0])

    def _inputs(self, plane: Numbers, part: Part, known: _Known) -> Numbers:
        """(n, I), see `residue_config.py`."""
        config, lattice = self._network.config, self._lattice
        inputs = np.zeros((len(part.places), config.inputs), np.float32)
        inputs[:, lattice.slots_of(part.kind)] = lattice.known(plane, part)
        start = len(config.slots)
        inputs[:, start + part.kind] = _MARK
        start += KINDS
        for window in (known.guide, *known.before[: config.slices_before]):
            if window is not None:
                inputs[:, start : start + config.window_size] = lattice.window(window, part.places)
            start += config.window_size
        inputs[:, -3] = _MARK * (known.guide is not None)
        inputs[:, -2] = _MARK * bool(known.before)
        inputs[:, -1] = _MARK / 2 * (part.scale.bit_length() - 1)
        return inputs


def _first_logits(places: Flat, known: _Known) -> Integers:
    logits = np.zeros(len(places), np.int64)
    if known.guide is not None:
        logits += _BY_OCTAVE[np.frexp(known.guide[places])[1]]
    if known.before:
        logits += np.where(known.before[0][places] > 0, _AS_BEFORE, -_AS_BEFORE)
    return logits
