"""Names of images that are slices of one subject <-> their common parts, and their numbers.

`case_402_slice_0.nii.png` to `case_402_slice_31.nii.png` become `case_402_slice_`, the numbers 0 to 31,
and `.nii.png`. Never imports torch.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import NamedTuple

from oasisvq.errors import ImageError
from oasisvq.scans.images import IMAGE_SUFFIXES, WRITABLE_SUFFIXES
from oasisvq.text import is_safe_name

MAX_DIGITS = 9  # of a slice's number
_NUMBER = rf"(?<!\d)(?P<number>\d{{1,{MAX_DIGITS}}})(?!\d)"
_WORD = r"(?<![A-Za-z])(?:slice|slc|z)"  # that marks the number after it as that of a slice
_AFTER_WORD = re.compile(rf"(?is)(?P<before>.*{_WORD}[-_. (]{{0,2}}){_NUMBER}(?P<after>.*)")
_LAST = re.compile(rf"(?s)(?P<before>.*?){_NUMBER}(?P<after>[)\]]?(?:\.[A-Za-z]+)+)")
_NO_NAME = re.compile(rf"(?i)[-_. (\[]*(?:{_WORD})?[-_. (\[]*$")  # at the end of `before`
_WITHOUT_ENDINGS = re.compile(r"[)\]]?([^.]*)")


class Numbered(NamedTuple):
    """A name in its parts, see `StackNames`.

    Attributes:
        before: the text before the number.
        digits: of the number.
        after: the text after the number.
        is_slice: whether a word before the number marks it as that of a slice.
    """

    before: str
    digits: str
    after: str
    is_slice: bool


def numbered(name: str) -> Numbered | None:
    """The parts of a file's name around the number of its slice; None if it has no number.

    This is the number after `slice`, `slc` or `z`, else the one before the ending.
    """
    found = _AFTER_WORD.fullmatch(name)
    is_slice = found is not None
    found = found or _LAST.fullmatch(name)
    if found is None:
        return None
    return Numbered(found["before"], found["number"], found["after"], is_slice)


@dataclass(frozen=True)
class StackNames:
    """Names of the images of a stack, which differ in one number alone.

    Attributes:
        before: the text before the number.
        after: the text after the number, with the ending.
        width: digits to which a number is padded with zeros; 1 if it is not padded.
        numbers: of the slices, rising, below 10^`MAX_DIGITS`.
    """

    before: str
    after: str
    width: int
    numbers: tuple[int, ...]

    @classmethod
    def of(cls, names: Sequence[str]) -> "StackNames":
        """The stack with these names, in the order of their numbers; the inverse of `names`.

        Raises:
            ImageError: the names differ in more than one number, are in another order, or are not
                allowed on every system.
        """
        parts = [numbered(name) for name in names]
        first = parts[0] if parts else None
        if first is None:
            raise ImageError(
                f"a stack named {names[0]!r}, expected a number before its ending"
                if names
                else "a stack of no images, expected one or more"
            )
        width = max((len(each.digits) for each in parts if each and each.digits[0] == "0"), default=1)
        numbers = tuple(int(each.digits) for each in parts if each)
        stack = cls(first.before, first.after, width, numbers)
        wrong = [name for name, ours in zip(names, stack.names, strict=False) if name != ours]
        if wrong or len(numbers) < len(names):
            wrong = wrong or [name for name, each in zip(names, parts, strict=True) if each is None]
            raise ImageError(
                f"a stack with {names[0]!r} and {wrong[0]!r}, expected names that differ in one number "
                "alone"
            )
        if problem := stack.problem:
            raise ImageError(f"a stack with {names[0]!r}: {problem}")
        return stack

    @property
    def names(self) -> list[str]:
        """The names of the images, in the order of their numbers."""
        return [f"{self.before}{number:0{self.width}d}{self.after}" for number in self.numbers]

    @property
    def written_names(self) -> list[str]:
        """The names under which images are written: those that are not PNG or TIFF end in `.png`."""
        ending = PurePosixPath(self.after).suffix or self.after
        if ending.lower() in WRITABLE_SUFFIXES:
            return self.names
        cut = len(ending) if ending.lower() in IMAGE_SUFFIXES else 0
        return [f"{name[: len(name) - cut]}.png" for name in self.names]

    @property
    def stem(self) -> str:
        """The common name of the images, such as `case_402`; empty if they are only numbered."""
        after = _WITHOUT_ENDINGS.match(self.after)
        return (_NO_NAME.sub("", self.before) + (after[1] if after else "")).lstrip("-_. ")

    @property
    def pattern(self) -> str:
        """The names with a `*` for the number, as messages show them."""
        return f"{self.before}*{self.after}"

    @property
    def problem(self) -> str:
        """Why these cannot be names of files in one folder on every system; empty if they can."""
        if any(after <= before for before, after in zip(self.numbers, self.numbers[1:], strict=False)):
            return "numbers that do not rise"
        first = numbered(self.names[0])
        if first is None or (first.before, first.after) != (self.before, self.after):
            return f"{self.names[0]!r} has the number of its slice elsewhere"
        if not all(0 <= number < 10**MAX_DIGITS for number in self.numbers):
            return f"a number of more than {MAX_DIGITS} digits"
        names = (*self.names, *self.written_names)
        unsafe = next((name for name in names if not (is_safe_name(name) and _is_text(name))), None)
        return "" if unsafe is None else f"a name that not every system can take: {unsafe!r}; rename it"


def _is_text(name: str) -> bool:
    """Whether a name is valid Unicode; on Linux it may consist of any bytes."""
    return not any("\ud800" <= letter <= "\udfff" for letter in name)
