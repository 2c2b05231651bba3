"""Which subject each member is of, and which split it goes to: all files of a person to the same one.

If subjects can only be guessed, and splits would have to be drawn, the folder is refused: no figure on
such splits would be worth anything.
"""

import hashlib
from pathlib import Path

from oasisvq.data.found import Found, Member, counted
from oasisvq.data.layouts import ANYTHING, SPLIT_NAMES, SPLITS, given_split, slice_of
from oasisvq.data.persons import guessed_person, level_of_persons, spelled_alike
from oasisvq.data.recipe import DEFAULT_RECIPE, DEFAULT_SPLIT, Recipe
from oasisvq.errors import DatasetError
from oasisvq.scans.volumes import volume_suffix

_SHOWN = 3  # names of persons in a message


def stem_of(name: str) -> str:
    """A name without its ending; the same for both files of a pair."""
    suffix = volume_suffix(Path(name)) or Path(name).suffix
    return name[: -len(suffix)] if suffix else name


def with_subjects(
    root: Path, taken: list[Member], candidates: list[Member], found: Found, recipe: Recipe
) -> tuple[list[Member], list[Member]]:
    """The members, completed with the subjects that their names leave open.

    Raises:
        DatasetError: subjects could only be guessed, splits would have to be drawn, and guessing was not
            asked for.
    """
    nameless = [each for each in taken if not each.subject]
    if not nameless:
        return taken, candidates
    level = level_of_persons(_folders(each) for each in nameless)

    def named(member: Member) -> Member:
        folders = _folders(member)
        if member.subject or (level is not None and level >= len(folders)):
            return member
        if level is not None:
            return member._replace(subject=folders[level])
        split = given_split(member.name)  # the same guess in another split may be another person
        person = guessed_person(folders, slice_of(stem_of(Path(member.name).name))[0])
        return member._replace(subject=f"{split}/{person}" if split else person)

    of_nameless = sorted({named(each).subject for each in nameless})
    some = ", ".join(of_nameless[:_SHOWN]) + (", ..." if len(of_nameless) > _SHOWN else "")
    number = f"{len(nameless):,} of {counted(len(taken), 'file')}"
    persons = counted(len(of_nameless), "subject")
    taken, candidates = [named(each) for each in taken], [named(each) for each in candidates]
    if level is not None:
        found.remarks.append(f"{number} lie in folders of their subjects: {persons}: {some}")
        return taken, candidates
    if len({each.subject for each in taken}) == 1:
        return taken, candidates
    found.is_guessed = True
    if _are_drawn(taken, recipe) and not recipe.guess_subjects:
        raise DatasetError(
            f"{root}: {number} do not tell whose scan they are, first {nameless[0].name}, and nobody "
            "may be in two splits; name the subjects with preprocess --subjects TABLE, or pass "
            f"--guess-subjects to it, which takes them for {persons}: {some}"
        )
    found.remarks.append(
        f"{number} name no subject: guessed {persons}: {some}; where that is wrong, name them with "
        "--subjects TABLE"
    )
    return taken, candidates


def with_one_spelling(
    taken: list[Member], candidates: list[Member], found: Found
) -> tuple[list[Member], list[Member]]:
    """The members, with one name for a subject that is spelled in several ways."""
    same = spelled_alike({each.subject for each in taken + candidates if each.subject})
    others = {other: first for other, first in same.items() if other != first}
    if others:
        some = ", ".join(f"{other} as {first}" for other, first in list(others.items())[:_SHOWN])
        found.remarks.append(
            f"{counted(len(others), 'subject')} taken for another that is spelled differently: {some}"
        )
    renamed = [
        [each._replace(subject=same.get(each.subject, each.subject)) for each in members]
        for members in (taken, candidates)
    ]
    return renamed[0], renamed[1]


def _folders(member: Member) -> tuple[str, ...]:
    """The folders above a member, except those that name a split."""
    return tuple(part for part in member.name.split("/")[:-1] if part.lower() not in SPLIT_NAMES)


def _are_drawn(taken: list[Member], recipe: Recipe) -> bool:
    """Whether persons are drawn into more than one split."""
    is_given = all(each.split for each in taken)
    return not is_given and sum(share > 0 for share in recipe.split or DEFAULT_SPLIT) > 1


def with_given_splits(root: Path, taken: list[Member], found: Found, recipe: Recipe) -> list[Member]:
    """The members with the splits that the folder gives: all of them, or none.

    Raises:
        DatasetError: splits are given, and others are asked for; or they are given for some files only.
    """
    given = [each.split for each in taken]
    if found.layout is ANYTHING or found.layout.one_a_session:
        given = [given_split(each.name) or "" for each in taken]
    if all(given):
        unused = "--split" if recipe.split is not None else "--seed"
        if recipe.split is not None or recipe.seed != DEFAULT_RECIPE.seed:
            raise DatasetError(f"{root}: its splits are given, and kept; leave out {unused}")
    elif any(given) and recipe.split is None:
        outside = taken[given.index("")].name
        raise DatasetError(
            f"{root}: {outside} lies outside its folders of splits, such as train, validation and test; "
            "move it into one of them or away, or draw all splits anew with preprocess --split"
        )
    else:
        given = [""] * len(taken)
    return [each._replace(split=split) for each, split in zip(taken, given, strict=True)]


def with_splits(
    taken: list[Member], candidates: list[Member], found: Found, recipe: Recipe
) -> list[Member]:
    """Keep given splits; else distribute the subjects over the splits.

    Subjects of scans and of segmentations are distributed together, so that all files of a person are in
    one split.
    """
    if all(each.split for each in taken):
        found.splitting = "splits as given"
        return taken
    shares = recipe.split or DEFAULT_SPLIT
    found.splitting = f"split {'/'.join(f'{share:g}' for share in shares)} with seed {recipe.seed}"
    known = taken
    if not found.is_guessed:  # scans and segmentations name the same subjects
        known = taken + [each for each in candidates if each.variant.by_default and each.subject]
    split_of = shared_out({each.subject for each in known}, shares, recipe.seed)
    return [each._replace(split=split_of[each.subject]) for each in taken]


def shared_out(subjects: set[str], shares: tuple[float, float, float], seed: int) -> dict[str, str]:
    """Which split each subject goes to.

    Subjects are ordered by a hash of seed and subject, the same on every machine. A split with a share
    gets at least one subject if there are enough.
    """

    def place(subject: str) -> bytes:
        told = f"{seed}/{subject}".encode(errors="surrogatepass")  # a folder's name may not be Unicode
        return hashlib.sha256(told).digest()

    order = sorted(subjects, key=place)
    wanted = [len(order) * share / sum(shares) for share in shares]
    counts = [max(int(count), int(share > 0)) for count, share in zip(wanted, shares, strict=True)]
    while sum(counts) > len(order):  # if subjects are few, the last splits go without
        counts[max(range(3), key=lambda place: (counts[place], place))] -= 1
    while sum(counts) < len(order):
        counts[max(range(3), key=lambda place: wanted[place] - counts[place])] += 1
    names = [name for name, count in zip(SPLITS, counts, strict=True) for _ in range(count)]
    return dict(zip(order, names, strict=True))
