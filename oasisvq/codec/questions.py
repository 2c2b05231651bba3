"""Yes-or-no questions <-> payload: how likely answers are, and how that is learned. Never imports torch.

Shapes: n questions asked at once, m inputs.

"Yes" takes s + 1 of 2^24 shares, "no" the others; the range coder of `entropy.py` writes the answers.
`_tables` gives s for a logit. Logits are integers: one step multiplies the odds by 257/256, and those
beyond ±3072 count as ±3072. Divisions round down. All n questions are asked before anything is learned
from their answers.

**Counts.** The logit of a context is log(yes) - log(no), by the logarithm of `_tables`. Unless stated
otherwise, counts begin at 0 and their sum is at most 255: each answer adds 1, and then both counts of a
context are halved until their sum is within the limit. A context of several numbers a, b, c .. is the
upper 18 bits of aM + bM² + cM³ .. modulo 2^32, where M = 0x9E3779B1.

**Mixing.** The logit is a weighted sum of inputs, divided by 2^16. The inputs are 256 for each fact that
holds and 0 for each that does not; the logit of the counts; and 128. The weights are those of one of
several sets. They begin at 2^12 times the given int8 values. Let e = ((yes: 2^24 - 2, no: 0) - s) / 2^8,
and for each input let g be the sum of e times the input over the c questions that used a set. Then the
input's weight in this set grows by (g * 64 / max(c, 64) + 2^16) / 2^17, and is clipped to ±2^20.
"""

import math
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from oasisvq.codec.entropy import RangeDecoder, RangeEncoder
from oasisvq.errors import CodesFileError

Integers = NDArray[np.int64]
Booleans = NDArray[np.bool_]

_SHARES_OF_BOTH = 2**24 - 2
_UNIT = 256  # odds grow by 1/256 with each step of a logit
_STEPS = 3072  # the largest logit that counts
_HOLDS, _CONSTANT = 256, 128  # inputs of the mixing: 1 and 1/2 in natural logarithms
_WEIGHT_SHIFT = 16
_LARGEST_WEIGHT = 2**20
_RATE_SHIFT = 17
_ENOUGH = 64  # up to so many questions move weights by their sum; more, by 64 times their mean
HASH_BITS = 18
_MULTIPLIERS = np.array([pow(0x9E3779B1, power, 2**32) for power in range(1, 13)], np.uint32)


class Questions(Protocol):
    """Gets answers: a writer is given them and returns them, a reader finds them in the payload."""

    def ask(self, answers: Booleans, logits: Integers) -> Booleans:
        """The answers (n,) to questions with these logits (n,); a reader ignores the given answers.

        Raises:
            CodesFileError: the payload has no answers to them.
        """
        ...


class QuestionWriter:
    """Writes the answers that it is given."""

    def __init__(self) -> None:
        self._encoder = RangeEncoder()

    def ask(self, answers: Booleans, logits: Integers) -> Booleans:
        self._encoder.put(answers.astype(np.uint8), _frequencies(logits))
        return answers

    def finish(self) -> bytes:
        """The payload."""
        return self._encoder.finish()


class QuestionReader:
    """Encodes again what it decodes, to check that the encoder writes this very payload."""

    def __init__(self, payload: bytes) -> None:
        self._encoder, self._decoder = RangeEncoder(), RangeDecoder(payload)
        self._payload = payload

    def refuse_more_than_fit(self, voxels: int) -> None:
        """Refuse more voxels than the payload can hold: each takes at least one question.

        Raises:
            CodesFileError: there are more.
        """
        if voxels * _FEWEST_BITS > 8 * (len(self._payload) + _AHEAD_BYTES):
            raise CodesFileError(f"{voxels:,} voxels in a payload of {len(self._payload)} bytes")

    def ask(self, answers: Booleans, logits: Integers) -> Booleans:
        frequencies = _frequencies(logits)
        try:
            taken = self._decoder.take(frequencies)
        except (AssertionError, ValueError) as error:  # how constriction refuses impossible words
            raise CodesFileError(f"the payload is not one of the range coder ({error})") from error
        self._encoder.put(taken, frequencies)
        if self._encoder.sealed_bytes > len(self._payload):  # the rest would be read from beyond its end
            raise CodesFileError("the payload ends before its labels do")
        found: Booleans = taken != 0
        return found

    def finish(self) -> None:
        """Check that the payload ends with the last answer.

        Raises:
            CodesFileError: it goes on, or is not what the encoder writes.
        """
        if self._encoder.finish() != self._payload:
            raise CodesFileError("the payload does not end where its labels end")


def _tables() -> tuple[Integers, Integers]:
    """Shares of yes for logits -3072..3072, and the logarithm of each count.

    Everything is in whole numbers: no machine's `exp` or `log` decides a bit.

    Odds are in 2^32ths: o(0) = 2^32, o(i + 1) = o(i) + o(i) / 256. The shares are (2^24 - 2) o(i) /
    (o(i) + 2^32) for logit i, and for -i what this leaves of 2^24 - 2. The logarithm of a count c is
    the last i up to 3072 with o(i) <= (5c + 2) 2^31: that of (c + 0.4) / 0.4.
    """
    odds = [2**32]
    for _ in range(_STEPS):
        odds.append(odds[-1] + odds[-1] // _UNIT)
    likely = [_SHARES_OF_BOTH * each // (each + 2**32) for each in odds]
    unlikely = [_SHARES_OF_BOTH - each for each in likely[:0:-1]]
    thresholds = (5 * np.arange(2**16, dtype=np.int64) + 2) << 31
    logarithms = np.searchsorted(np.array(odds, np.int64), thresholds, side="right") - 1
    return np.array(unlikely + likely, np.int64), logarithms.astype(np.int64)


_SHARES, _LOGARITHMS = _tables()
_FEWEST_BITS = 24 - math.log2(int(_SHARES[-1]) + 1)  # that a question costs
_AHEAD_BYTES = 8  # that the range coder may leave out at the end of a payload


def _shares(logits: Integers) -> Integers:
    shares: Integers = _SHARES.take(logits + _STEPS, mode="clip")
    return shares


def _frequencies(logits: Integers) -> Integers:
    """Frequencies of no and yes, (n, 2)."""
    frequencies = np.empty((len(logits), 2), np.int64)
    frequencies[:, 1] = _shares(logits)
    np.subtract(_SHARES_OF_BOTH, frequencies[:, 1], out=frequencies[:, 0])
    return frequencies


def hashed(numbers: NDArray[np.uint32]) -> Integers:
    """Contexts of several numbers each: (n, numbers) -> (n,)."""
    products = numbers * _MULTIPLIERS[: numbers.shape[1]]
    hashes: NDArray[np.uint32] = products.sum(axis=1, dtype=np.uint32) >> np.uint32(32 - HASH_BITS)
    return hashes.astype(np.int64)


class Counts:
    """How often no and yes were the answers in each context.

    Args:
        contexts: how many there are.
        most: the largest sum of both counts of a context.
        start: no and yes from which each context begins.
    """

    def __init__(self, contexts: int, most: int = 255, start: tuple[int, int] = (0, 0)) -> None:
        self._counts = np.zeros((contexts, 2), np.int64)
        if any(start):  # if all are 0, pages that no context touches are never allocated
            self._counts[:] = start
        self._most = most

    def logits(self, contexts: Integers) -> Integers:
        """Logits (n,) of yes, by what was learned so far."""
        logarithms = _LOGARITHMS[self._counts[contexts]]
        logits: Integers = logarithms[:, 1] - logarithms[:, 0]
        return logits

    def learn(self, contexts: Integers, answers: Booleans) -> None:
        """Count answers (n,), each in its context (n,)."""
        np.add.at(self._counts.reshape(-1), 2 * contexts + answers, 1)
        full = contexts
        while (full := full[self._counts[full].sum(axis=1) > self._most]).size:
            self._counts[full] >>= 1  # once for a context, however often it is in `full`

    def ask(self, questions: Questions, contexts: Integers, answers: Booleans) -> Booleans:
        """The answers (n,), asked by the logits of their contexts and then learned.

        Raises:
            CodesFileError: as `Questions.ask` does.
        """
        answers = questions.ask(answers, self.logits(contexts))
        self.learn(contexts, answers)
        return answers


class Mixing:
    """Answers by a weighted sum of what each fact and the counts say.

    Args:
        start: (sets, m) int8 from which the weights begin, in the order of the inputs.
    """

    def __init__(self, start: NDArray[np.int8]) -> None:
        self._weights = start.astype(np.int64) << 12
        self._every_set = np.arange(len(start), dtype=np.int64)[:, None]
        self._counts = Counts(2**HASH_BITS)

    def ask(
        self,
        questions: Questions,
        facts: Booleans,
        sets: Integers,
        contexts: Integers,
        answers: Booleans,
    ) -> Booleans:
        """The answers (n,), which are then learned.

        Args:
            questions: where they are asked.
            facts: (n, m - 2) which facts hold.
            sets: (n,) set of weights of each question.
            contexts: (n,) contexts of the counts, below 2^18.
            answers: (n,) for a writer.

        Raises:
            CodesFileError: as `Questions.ask` does.
        """
        inputs = np.empty((len(facts), facts.shape[1] + 2), np.int64)
        np.multiply(facts, _HOLDS, out=inputs[:, :-2])
        inputs[:, -2] = self._counts.logits(contexts)
        inputs[:, -1] = _CONSTANT
        logits = np.einsum("nm,nm->n", self._weights[sets], inputs) >> _WEIGHT_SHIFT
        answers = questions.ask(answers, logits)
        self._counts.learn(contexts, answers)

        errors = (answers * _SHARES_OF_BOTH - _shares(logits)) >> 8
        members = (sets == self._every_set).astype(np.float64)  # (sets, n)
        # float64 holds these sums of whole numbers exactly, in any order of summation
        gradients = (members @ (errors[:, None] * inputs).astype(np.float64)).astype(np.int64)
        users = np.maximum(members.sum(axis=1), _ENOUGH).astype(np.int64)[:, None]
        self._weights += (gradients * _ENOUGH // users + 2 ** (_RATE_SHIFT - 1)) >> _RATE_SHIFT
        np.minimum(self._weights, _LARGEST_WEIGHT, out=self._weights)
        np.maximum(self._weights, -_LARGEST_WEIGHT, out=self._weights)
        return answers
