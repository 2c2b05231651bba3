"""Labels <-> payload, without loss: tissue maps and other segmentations. Never imports torch.

Shapes: S slices (an image is one), H×W image, n voxels asked about at once.

A map of L labels is coded as ranks 0..L-1 in the sorted list of labels. If L is 1, the payload is empty.
Everything is coded as yes-or-no questions; `questions.py` says how they are written, and how counts and
mixing learn from the answers.

**The box.** For slices, rows and columns in turn: the first that holds a rank other than 0, and one past
the last (both 0 if all ranks are 0). Each of these six numbers has as many bits as the length of its
axis, most significant first; all bits of an axis are asked at once, at logit 0. Only the box is coded
further; outside it all ranks are 0.

**The order.** In the box, the voxels at slice z, row y and column x with equal x + 3y + 7z form a
wavefront. Wavefronts are coded in rising order of this sum, and the voxels of one in the order of z,
then y. So all neighbours listed in `_IMAGE` (in `_VOLUME` where S > 1) are known before a wavefront
begins; outside the box they have rank 0. Each step asks its question of all its voxels and learns from
all the answers before the next step begins.

1. Voxels whose neighbours all have one rank: "is it that rank?". Coded by counts whose context is that
   rank; they begin at 1 no and 500 yes, and their sum is at most 65,535. After a no, step 3 follows.
2. All other voxels, in up to four turns: "is it the candidate?". The candidate is the rank of the first
   among the first four neighbours whose rank is not denied yet. After a no, the next turn follows or,
   once the ranks of all four are denied, step 3. Coded by mixing. Each neighbour gives one fact: that it
   is equal to the candidate. The context of the counts is the ranks of the first 4 neighbours (10 where
   S > 1), the candidate and the turn. There are 16 sets of weights; the number of a set is 1 if the
   second neighbour is equal to the candidate, plus 2 if the third is, plus 4 if the fourth is, plus 8
   from the second turn on. The weights begin at `_Design.start`, set by set, in the encoding of Python's
   `b85encode`.
3. The voxels left over, those of step 1 first, then those of each turn: the bits of the rank, as many
   as L-1 takes, most significant first. "Is it 1?" is asked of one bit of all these voxels before the
   next bit. Coded by counts whose context is a 1 followed by the bits so far, and the ranks of the first
   two neighbours. A bit is not asked if one of its answers leaves no rank that is below L and differs
   from the ranks of the first four neighbours.
"""

import base64
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from oasisvq.codec.questions import (
    HASH_BITS,
    Booleans,
    Counts,
    Integers,
    Mixing,
    QuestionReader,
    Questions,
    QuestionWriter,
    hashed,
)
from oasisvq.errors import CodesFileError

Ranks = NDArray[np.uint16]
Box = list[tuple[int, int]]  # first and one past the last, by axis
_NO_BOX: Box = [(0, 0)] * 3

_SETS = 16
_SET_BITS = np.array([1, 2, 4], np.int64)
_CANDIDATES = 4

Neighbours = tuple[tuple[int, int, int], ...]  # offsets in slices, rows and columns from the voxel
_IMAGE: Neighbours = (
    *((0, 0, -1), (0, -1, 0), (0, -1, 1), (0, -1, -1), (0, 0, -2), (0, -2, 0), (0, -1, 2)),
    *((0, -2, 1), (0, -2, -1), (0, -1, -2), (0, -2, -2), (0, -2, 2), (0, 0, -3), (0, -3, 0)),
    *((0, -1, -3), (0, -3, -1), (0, -3, 1), (0, -2, 3), (0, -2, -3)),
)
_VOLUME: Neighbours = (
    *((0, 0, -1), (0, -1, 0), (-1, 0, 0), (0, -1, 1), (0, -1, -1), (-1, 0, 1), (-1, 1, 0)),
    *((-1, 0, -1), (-1, -1, 0), (-1, 1, 1), (-1, 1, -1), (-1, -1, 1), (-1, -1, -1), (-1, 0, 2)),
    *((-1, 2, 0), (-2, 0, 0), *_IMAGE[4:]),
)
_LAGS = (7, 3, 1)  # of slices, rows, columns: the smallest with which every neighbour comes earlier


class _Design(NamedTuple):
    """What differs between images and volumes.

    `start` holds weights that were learned from the training segmentations of OASIS (1,600 slices; 80
    stacks of 32). These were coded one after the other without resetting the weights, which were then
    averaged over the later half. Other maps gain from them too: only which neighbours are equal enters,
    not their labels.
    """

    neighbours: Neighbours
    margins: tuple[tuple[int, int], ...]  # how far neighbours reach beyond the box
    in_context: int
    start: str


_FOR_IMAGES = _Design(
    _IMAGE,
    ((0, 0), (3, 0), (3, 3)),
    4,
    "4*&oF_4pj|1@rFi0|NXC0RQ|22M7oN0RR00>;eG*@&pG11Nr~~3IrAa76AJ066^x*`uYI;`v~>{{ssvP3kv}903ZhU`2Fz!{"
    "sH<2`~e051^@sC_2>xy^9}O&{rm{{2m%BI0}~Sf6ZYN)^alO`^ZEJy2loa81PKWM2?+!42JiF+`TG9=1pN2{0R#mQ5D*ab0U"
    "!7O`Tgkq0Q~^~`2_|D0000000000000000000000008000*N00962^alX{{Q>|11^55~2nzrJ5&!`95CQ%H0rmp<1N{E{0}l"
    "lN4-WtV^#la_0`~p~^$Gs_{Q?pM0000Q`S1n!{s092_w@St^#lG94FD4W6Z-uE?Fjn+`S|+z|M39(4+#JO1qA{D1OfvC0|Np"
    "A0|NpB0|^2E2?+`P1PlQL`Stq&{s8{_{r?aF",
)
_FOR_VOLUMES = _Design(
    _VOLUME,
    ((2, 0), (3, 2), (3, 3)),
    10,
    "1ONa47zYIe2m|~4@&E_t_U#J$`uF(u0RH~{1p)yK0tE#C02K!V1O)yQ{q6z@=l1LY`U3y~^Zon)1o{L63IYWH1ppcc1`!4Y{"
    "P*(-0r2+f2mbr}_V@k#0Q&|2{|f^O3JL%U4GIPZ1OV&_`w8y&>H_}(`~UI!`~C#_1OW*J4*&oU3I+}R1qS!+`uqp+`|}F)`1"
    "btz{r>#{`v3q32nq@S3I_-W1PlTM^6vx!<?sRy{{a90@%#V(00R313Iz@T4h{(l2?hZJ1^e^>{P_Ft2=4du`}+O={sQ>{00#"
    "#P3kwSb2MYrQ1^@X20t4&#015#9{QdU&{{H>|`2-3E0000000000000000000000000000000000000008000dD00#^T0{sj"
    "H1p5dL{Qdm_^9B6=`~3a<0r&v^5C#AM8UPRl1qK8I`S1Ju{Pz3$2>|{80Q~#<{QUm@{u2!V3JL%R3JU}S4gdKE0}1{B{s8#}"
    "00I60|NjE{{{RaG0000E0t5*J1Ox^B0|E&E0sII4{{aF10{sI1{Qm+K2LK2F2p0$r4g3oV^Y;r6^8oq+0{{O0{RR2}`~Lj_7"
    "6bqQ3kv}Q1qcWJ3<ClG0sH{~1Oov90saC30s#U30uBWL4h{|v{|5&C00sd1`Umm>{Q(030s;O6`U3s@{R0vQ",
)


def _design_for(shape: tuple[int, ...]) -> _Design:
    return _FOR_VOLUMES if shape[0] > 1 else _FOR_IMAGES


def encode_labels(ranks: NDArray[np.unsignedinteger[Any]], count: int) -> bytes:
    """Ranks (S, H, W), each in 0..count-1 with count from 1 to 65,535, to a payload."""
    assert 1 <= count <= 65_535
    assert not ranks.size or ranks.max() < count
    writer = QuestionWriter()
    if count > 1 and ranks.size:
        box, design = _code_box(_box(ranks), ranks.shape, writer), _design_for(ranks.shape)
        known = np.pad(ranks[_inside(box)].astype(np.uint16), design.margins)
        _walk(known, design, count, writer)
    return writer.finish()


def decode_labels(payload: bytes, shape: tuple[int, int, int], count: int) -> Ranks:
    """The inverse of `encode_labels`: an array of that shape (S, H, W).

    Raises:
        CodesFileError: the payload is damaged, or not what the encoder writes for these ranks.
    """
    reader = QuestionReader(payload)
    box, inner = _NO_BOX, np.zeros((0, 0, 0), np.uint16)
    if count > 1 and 0 not in shape:
        box = _code_box(_NO_BOX, shape, reader)
        sides = tuple(past - first for first, past in box)
        inner = _decode_inner(sides, _design_for(shape), count, reader)
    reader.finish()
    ranks = np.zeros(shape, np.uint16)
    ranks[_inside(box)] = inner
    return ranks


def _decode_inner(sides: tuple[int, ...], design: _Design, count: int, reader: QuestionReader) -> Ranks:
    """The ranks of a box with these sides."""
    reader.refuse_more_than_fit(math.prod(sides))
    ends = [(before, before + side) for side, (before, _) in zip(sides, design.margins, strict=True)]
    padded = [past + after for (_, past), (_, after) in zip(ends, design.margins, strict=True)]
    known = np.zeros(padded, np.uint16)
    _walk(known, design, count, reader)
    inner: Ranks = known[_inside(ends)]
    if _box(inner) != [(0, side) for side in sides]:
        raise CodesFileError("the payload's box is larger than what it holds")
    return inner


class _Voxels(NamedTuple):
    """Voxels of a wavefront, and the ranks (n, neighbours) around each."""

    at: Integers
    around: Ranks

    def only(self, chosen: Booleans) -> "_Voxels":
        return _Voxels(self.at[chosen], self.around[chosen])


class _Walk:
    """The three steps, over the ranks known so far. A writer knows all of them."""

    def __init__(self, known: Ranks, design: _Design, count: int, questions: Questions) -> None:
        self._known, self._questions, self._count = known, questions, count
        start = np.frombuffer(base64.b85decode(design.start), np.int8).reshape(_SETS, -1)
        self._mixing, self._in_context = Mixing(start), design.in_context
        self._uniform = Counts(count, 2**16 - 1, (1, 500))
        self._bits = Counts(2**HASH_BITS)

    def uniform(self, voxels: _Voxels) -> _Voxels:
        """Step 1; returns the voxels that are left for step 3."""
        ranks = voxels.around[:, 0]
        is_it = self._known[voxels.at] == ranks
        is_it = self._uniform.ask(self._questions, ranks.astype(np.int64), is_it)
        self._known[voxels.at[is_it]] = ranks[is_it]
        return voxels.only(~is_it)

    def mixed(self, voxels: _Voxels) -> list[_Voxels]:
        """Step 2; returns the voxels that are left for step 3, by turn."""
        left = []
        open_ = np.ones((len(voxels.at), _CANDIDATES), np.bool_)  # not denied yet
        turn = 0
        while voxels.at.size:
            candidates = voxels.around[np.arange(len(open_)), open_.argmax(axis=1)]
            is_it = self._mixed_turn(voxels, candidates, turn)
            if is_it.all():
                break
            missed = ~is_it
            open_ = (open_ & (voxels.around[:, :_CANDIDATES] != candidates[:, None]))[missed]
            voxels = voxels.only(missed)
            has_candidate = open_.any(axis=1)
            left.append(voxels.only(~has_candidate))
            voxels, open_ = voxels.only(has_candidate), open_[has_candidate]
            turn += 1
        return left

    def _mixed_turn(self, voxels: _Voxels, candidates: Ranks, turn: int) -> Booleans:
        equal = voxels.around == candidates[:, None]
        sets = equal[:, 1:4] @ _SET_BITS + 8 * (turn > 0)
        numbers = np.empty((len(equal), self._in_context + 2), np.uint32)
        numbers[:, :-2] = voxels.around[:, : self._in_context]
        numbers[:, -2], numbers[:, -1] = candidates, turn
        is_it = self._known[voxels.at] == candidates
        is_it = self._mixing.ask(self._questions, equal, sets, hashed(numbers), is_it)
        self._known[voxels.at[is_it]] = candidates[is_it]
        return is_it

    def others(self, voxels: _Voxels) -> None:
        """Step 3."""
        known = self._known[voxels.at].astype(np.int64)
        denied = np.sort(voxels.around[:, :_CANDIDATES].astype(np.int64), axis=1)
        denied[:, 1:][denied[:, 1:] == denied[:, :-1]] = -1  # so that each counts once
        ranks = np.zeros(len(known), np.int64)  # the smallest with the bits so far
        width = (self._count - 1).bit_length()
        for place in range(width - 1, -1, -1):
            half = 1 << place
            zero = (denied >= ranks[:, None]) & (denied < ranks[:, None] + half)
            one = (denied >= ranks[:, None] + half) & (denied < ranks[:, None] + 2 * half)
            can_be_zero = zero.sum(axis=1) < np.minimum(half, self._count - ranks)
            can_be_one = one.sum(axis=1) < np.minimum(half, self._count - ranks - half)
            if not (can_be_zero | can_be_one).all():
                raise CodesFileError("the payload denies a voxel every label")
            is_one = ~can_be_zero
            asked = can_be_zero & can_be_one
            if asked.any():
                numbers = np.empty((np.count_nonzero(asked), 3), np.uint32)
                numbers[:, 0] = (ranks[asked] + 2**width) >> (place + 1)  # a 1 and the bits so far
                numbers[:, 1:] = voxels.around[asked, :2]
                answers = (known[asked] & half) != 0
                is_one[asked] = self._bits.ask(self._questions, hashed(numbers), answers)
            ranks += is_one * half
        self._known[voxels.at] = ranks


def _walk(known: Ranks, design: _Design, count: int, questions: Questions) -> None:
    """Code the ranks of a box with its margins: a writer passes the ranks, a reader zeros to fill in."""
    strides = known.shape[1] * known.shape[2], known.shape[2], 1
    reach = np.array(design.neighbours, np.int64) @ np.array(strides, np.int64)
    flat = known.reshape(-1)
    walk = _Walk(flat, design, count, questions)
    for at in _wavefronts(known.shape, design.margins, strides):
        voxels = _Voxels(at, flat[at[:, None] + reach])
        is_uniform = (voxels.around == voxels.around[:, :1]).all(axis=1)
        left = []
        if is_uniform.any():
            left.append(walk.uniform(voxels.only(is_uniform)))
        if not is_uniform.all():
            left += walk.mixed(voxels.only(~is_uniform))
        if any(each.at.size for each in left):
            walk.others(_Voxels(*(np.concatenate(arrays) for arrays in zip(*left, strict=True))))


def _wavefronts(
    padded: tuple[int, ...], margins: tuple[tuple[int, int], ...], strides: tuple[int, ...]
) -> Iterator[Integers]:
    """Where the voxels of each wavefront of a box lie in the padded array, laid flat.

    The cost of a wavefront is proportional to its own voxels and slices, however large the box is.
    """
    slices, rows, columns = (
        length - before - after for length, (before, after) in zip(padded, margins, strict=True)
    )
    if 0 in (slices, rows, columns):
        return
    by_slice, by_row, _ = _LAGS
    start = sum(stride * before for stride, (before, _) in zip(strides, margins, strict=True))
    row_step = strides[1] - by_row
    longest = by_row * (rows - 1) + columns - 1  # x + 3y of the last voxel of a slice
    for front in range(by_slice * (slices - 1) + longest + 1):
        z = np.arange(max(0, -(-(front - longest) // by_slice)), min(slices - 1, front // by_slice) + 1)
        lag = front - by_slice * z  # x + 3y
        first = np.maximum(0, -((columns - 1 - lag) // by_row))
        numbers = np.minimum(rows - 1, lag // by_row) + 1 - first  # of rows
        before = numbers.cumsum() - numbers
        in_first = start + z * strides[0] + lag + (first - before) * row_step
        at = np.repeat(in_first, numbers) + np.arange(int(numbers.sum())) * row_step
        if at.size:
            yield at


def _inside(box: Box) -> tuple[slice, ...]:
    return tuple(slice(first, past) for first, past in box)


def _box(ranks: Ranks) -> Box:
    """The box of the ranks that are not 0; zeros if there are none."""
    ends = []
    for axis in range(3):
        filled = np.flatnonzero(ranks.any(axis=tuple({0, 1, 2} - {axis})))
        ends.append((int(filled[0]), int(filled[-1]) + 1) if filled.size else (0, 0))
    return ends


def _code_box(box: Box, shape: tuple[int, ...], questions: Questions) -> Box:
    coded = []
    for ends, side in zip(box, shape, strict=True):
        width = side.bit_length()
        bits = np.array([end >> place & 1 for end in ends for place in range(width - 1, -1, -1)])
        bits = questions.ask(bits != 0, np.zeros(2 * width, np.int64)).reshape(2, width)
        first, past = (int("".join("01"[bit] for bit in row.tolist()), 2) for row in bits)
        if not (first < past <= side or first == past == 0):
            raise CodesFileError(f"the payload's box goes from {first} to {past}, of a side of {side}")
        coded.append((first, past))
    return coded
