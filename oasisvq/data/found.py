"""The files to take from a raw folder, and how they are described."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from oasisvq.data.layouts import Images, Layout, Variant


class Member(NamedTuple):
    """One file to take: a volume, or the image of one slice.

    Attributes:
        path: the file; of a pair its header, if that is there.
        name: its path below the raw folder.
        subject: the person.
        session: when the person was scanned, or what else tells the person's files apart.
        variant: its variant of the layout.
        split: where its slices go.
        slice_number: of an image; None for a volume.
        guide: a volume that matches this one voxel by voxel and shows where the brain is.
    """

    path: Path
    name: str
    subject: str
    session: str
    variant: Variant
    split: str
    slice_number: int | None
    guide: Path | None


@dataclass
class Found:
    """What there is to take from a raw folder.

    Attributes:
        layout: of the folder.
        images: the kind that was asked for.
        members: the files to take, by split, subject, session and slice.
        left_out: how many other files of each kind there are.
        examples: the first file of each kind that is left out.
        splitting: how the members are distributed over the splits.
        remarks: what to know about their subjects.
        is_guessed: whether the subjects of some members are guessed.
    """

    layout: Layout
    images: Images
    members: list[Member] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    splitting: str = ""
    remarks: list[str] = field(default_factory=list)
    is_guessed: bool = False

    def __str__(self) -> str:
        """One line: layout, files, sessions, subjects, and what is left out."""
        variants = Counter(member.variant.name for member in self.members)
        subjects = {member.subject for member in self.members}
        sessions = {(member.subject, member.session) for member in self.members}
        known = [each.name for each in self.layout.variants] + sorted(variants)
        files = ", ".join(
            f"{variants[name]:,} {name}" for name in dict.fromkeys(known) if variants[name]
        )
        line = f"{self.layout.name}, {self.images.value}: {files}"
        if self.layout.one_a_session:
            line += f" of {counted(len(sessions), 'session')}"
        line += f" of {counted(len(subjects), 'subject')}, {self.splitting}"
        if self.left_out:
            rest = [f"{count:,} {reason}" for reason, count in self._reasons()]
            line += f"; left out: {', '.join(rest)}"
        return line

    def leave_out(self, reason: str, name: str) -> None:
        """Count a file that is not taken."""
        self.left_out[reason] += 1
        self.examples.setdefault(reason, name)

    def files_of_each_kind(self) -> list[str]:
        """A line for each kind of file: how many are taken or left out, and one of them."""
        lines = []
        for variant in dict.fromkeys(member.variant.name for member in self.members):
            names = [member.name for member in self.members if member.variant.name == variant]
            lines.append(f"taken: {len(names):,} {variant}, such as {names[0]}")
        for reason, count in self._reasons():
            lines.append(f"left out: {count:,} {reason}, such as {self.examples[reason]}")
        return lines

    def _reasons(self) -> list[tuple[str, int]]:
        """Why files are left out, the most frequent reason first."""
        return sorted(self.left_out.items(), key=lambda item: (-item[1], item[0]))


def counted(number: int, thing: str) -> str:
    """Such as `1 file` or `1,200 files`."""
    return f"{number:,} {thing}" + ("" if number == 1 else "s")
