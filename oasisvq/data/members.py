"""A raw folder -> the files to take from it, each with its subject and split.

All that is known of a file here is its name: nothing is opened.
"""

import hashlib
import os
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from oasisvq.data.layouts import (
    ANYTHING,
    LAYOUTS,
    PNG_SLICES,
    SPLIT_NAMES,
    SPLITS,
    Images,
    Layout,
    Variant,
    given_split,
    layout_named,
    recognise,
    slice_of,
    subject_of,
)
from oasisvq.data.recipe import DEFAULT_RECIPE, DEFAULT_SPLIT, Recipe
from oasisvq.data.subjects import read_subjects
from oasisvq.errors import DatasetError, FileError
from oasisvq.scans.volumes import volume_suffix

_FORMATS = (".hdr", ".hdr.gz", ".img", ".img.gz", ".nii.gz", ".nii")  # of copies, the first is taken
_PARENTS_READ = 3  # names above the raw folder that may tell layout and subject


class Member(NamedTuple):
    """One file to take: a volume, or the image of one slice.

    Attributes:
        path: the file; of a pair its header, where that is there.
        name: its path below the raw folder.
        subject: the person.
        session: when the person was scanned, or what else sets the person's files apart.
        variant: which variant of the layout.
        split: where its slices go.
        slice_number: of an image; None for a volume.
        guide: a volume that lies over this one and shows where the brain is.
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
        layout: the layout it has.
        images: the kind that was asked for.
        members: the files to take, by split, subject, session and slice.
        left_out: how many other files of each kind there are.
        splitting: how they are shared out to the splits.
        remarks: what to know about their subjects.
    """

    layout: Layout
    images: Images
    members: list[Member] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    splitting: str = ""
    remarks: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        """One line: layout, files, sessions, subjects, and what is left out."""
        variants = Counter(member.variant.name for member in self.members)
        subjects = {member.subject for member in self.members}
        sessions = {(member.subject, member.session) for member in self.members}
        names = [each.name for each in self.layout.variants if each.name in variants]
        files = ", ".join(f"{variants[name]:,} {name}" for name in names)
        line = f"{self.layout.name}, {self.images.value}: {files}"
        if self.layout.one_a_session:
            line += f" of {_counted(len(sessions), 'session')}"
        line += f" of {_counted(len(subjects), 'subject')}, {self.splitting}"
        if self.left_out:
            ordered = sorted(self.left_out.items(), key=lambda item: (-item[1], item[0]))
            rest = [f"{count:,} {reason}" for reason, count in ordered]
            line += f"; left out: {', '.join(rest)}"
        return line


def _counted(number: int, thing: str) -> str:
    return f"{number:,} {thing}" + ("" if number == 1 else "s")


def list_paths(root: Path) -> list[str]:
    """All files below a folder, and its folders with a slash behind them; links are followed once.

    Hidden files and folders are left out.

    Raises:
        FileError: a folder cannot be listed.
    """

    def refuse(error: OSError) -> None:
        raise FileError(f"{error.filename}: cannot be listed: {error.strerror}") from error

    paths: list[str] = []
    seen: set[tuple[int, int]] = set()
    for folder, inner, files in os.walk(root, onerror=refuse, followlinks=True):
        state = Path(folder).stat()
        if (state.st_dev, state.st_ino) in seen:  # a link to a folder above it
            inner.clear()
            continue
        seen.add((state.st_dev, state.st_ino))
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        below = Path(folder).relative_to(root)
        paths += [(below / name).as_posix() + "/" for name in inner]
        paths += [(below / name).as_posix() for name in sorted(files) if not name.startswith(".")]
    return paths


def find_members(root: Path, images: Images, recipe: Recipe | None = None) -> Found:
    """The files of one kind to take from a raw folder.

    Raises:
        DatasetError: `root` is missing, of no known layout or without such images, a person is in two
            given splits, or the table of subjects is unusable.
        FileError: a folder or the table cannot be read.
    """
    recipe = recipe or DEFAULT_RECIPE
    if not root.is_dir():
        what = "is a file, no folder" if root.exists() else "no such folder"
        raise DatasetError(f"{root}: {what}; expected a folder with OASIS images")
    paths = list_paths(root)
    above = "/".join(root.resolve().parts[1:][-_PARENTS_READ:]) + "/"
    told = [above, *(above + path for path in paths)]
    layout = layout_named(recipe.layout) if recipe.layout else recognise(told)
    if layout is None:
        raise DatasetError(
            f"{root}: no known OASIS layout, and no images or volumes; expected folders named "
            "keras_png_slices_train, ..., or OAS1_0001_MR1, ..., or files such as .png, .nii.gz or .hdr"
        )
    found = Found(layout, images)
    files = [path for path in paths if not path.endswith("/")]
    candidates = _candidates(root, above, files, found)
    if recipe.subjects:
        table = read_subjects(Path(recipe.subjects))
        candidates = [
            each._replace(subject=table.subject(each.name) or each.subject) for each in candidates
        ]
    elif layout is ANYTHING:
        candidates = _with_own_subjects(candidates, found)
    taken = _choose(root, candidates, found, recipe)
    _count_left_out(files, above, candidates, taken, found)
    if not taken:
        raise DatasetError(f"{root}: {_nothing(found, candidates, recipe)}")
    for each in taken:
        if not each.subject:
            raise DatasetError(f"{recipe.subjects}: names no subject for {each.name}; add a line for it")
    taken = _with_guides(taken, candidates)
    taken = _with_splits(root, taken, candidates, found, recipe)
    found.members = sorted(
        taken,
        key=lambda s: (SPLITS.index(s.split), s.subject, s.session, s.slice_number or 0, s.name),
    )
    return found


def _candidates(root: Path, above: str, files: list[str], found: Found) -> list[Member]:
    """Every file of the layout, of any kind; a volume in several files or formats stands once."""
    by_key: dict[str, Member] = {}
    ranks: dict[str, int] = {}
    for name in files:
        path = name if found.layout is ANYTHING else above + name
        told = found.layout.variant_of(path)
        if told is None:
            if found.layout.whole:
                _refuse_misnamed(root / name, path, found.images)
            continue
        variant, match = told
        suffix = volume_suffix(root / name)
        rank = _FORMATS.index(suffix) if suffix else 0
        if rank >= ranks.get(_key(name), len(_FORMATS)):
            continue
        ranks[_key(name)] = rank
        by_key[_key(name)] = _member(root, name, path, variant, match, suffix is not None)
    return list(by_key.values())


def _member(
    root: Path, name: str, path: str, variant: Variant, match: re.Match[str], is_volume: bool
) -> Member:
    groups = match.groupdict()
    number = int(groups["slice"]) if "slice" in groups else slice_of(_stem(name))[1]
    return Member(
        path=root / name,
        name=name,
        subject=subject_of(path) or "",
        session=groups.get("session", ""),
        variant=variant,
        split=SPLIT_NAMES[groups["split"]] if "split" in groups else "",
        slice_number=None if is_volume else number,
        guide=None,
    )


def _refuse_misnamed(file: Path, path: str, images: Images) -> None:
    """Raise for an image among the PNG slices that is named like none of them."""
    assert PNG_SLICES.marker is not None
    marker = PNG_SLICES.marker.search(path)
    prefix = "seg" if images is Images.SEGMENTATIONS else "case"
    if marker and bool(marker["seg"]) == (prefix == "seg") and file.suffix == ".png":
        raise DatasetError(
            f"{file}: not a slice of this layout; expected a name like {prefix}_001_slice_0.nii.png"
        )


def _with_own_subjects(candidates: list[Member], found: Found) -> list[Member]:
    """Give files that name no subject their folder's name as one, or of a single folder their own."""
    nameless = [each for each in candidates if not each.subject]
    folders = {Path(each.name).parent for each in nameless}
    if len(folders) > 1:
        found.remarks.append(
            f"{_counted(len(nameless), 'file')} in {len(folders):,} folders name no subject: each "
            "folder is taken for one; where that is wrong, name the subjects with --subjects TABLE"
        )
    elif nameless:
        found.remarks.append(
            f"{_counted(len(nameless), 'file')} of no named subject: each file is its own subject; "
            "where a person has several, name the subjects with --subjects TABLE"
        )
    named = []
    for each in candidates:
        folder, stem = Path(each.name).parent, slice_of(_stem(each.name))[0]
        own = folder.as_posix() if len(folders) > 1 and folder != Path() else stem
        named.append(each._replace(subject=each.subject or own))
    return named


def _choose(root: Path, candidates: list[Member], found: Found, recipe: Recipe) -> list[Member]:
    """Of the candidates those to take: of the wanted kind, and one a session where one stands for it."""
    layout = found.layout
    if recipe.variant is None:
        fitting = [
            each
            for each in candidates
            if found.images in each.variant.images and each.variant.by_default
        ]
    else:
        fitting = [each for each in candidates if each.variant.name == recipe.variant]
        if not fitting:
            known = ", ".join(variant.name for variant in layout.variants)
            raise DatasetError(
                f"{root}: no files of the variant '{recipe.variant}'; {layout.name} has {known}"
            )
        if all(found.images not in each.variant.images for each in fitting):
            kind = fitting[0].variant.images[0].value
            raise DatasetError(f"{root}: {recipe.variant} holds {kind}; pass --images {kind}")
    if layout is ANYTHING and any(each.slice_number is None for each in fitting):
        return [each for each in fitting if each.slice_number is None]  # images are views of volumes
    if not layout.one_a_session:
        return fitting
    order = {variant.name: place for place, variant in enumerate(layout.variants)}
    first: dict[tuple[str, str], Member] = {}
    for each in sorted(fitting, key=lambda s: (order[s.variant.name], _natural(s.name))):
        first.setdefault((each.subject, each.session), each)
    return list(first.values())


def _natural(name: str) -> list[tuple[int, str]]:
    """A key that sorts run-2 before run-10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def _count_left_out(
    files: list[str], above: str, candidates: list[Member], taken: list[Member], found: Found
) -> None:
    chosen = {each.name for each in taken}
    variants = {each.variant.name for each in taken}
    for each in candidates:
        if each.name in chosen:
            continue
        if each.variant.name in variants:
            found.left_out[f"further {each.variant.name} of a session"] += 1
        else:
            found.left_out[_kind(each.variant, found.images)] += 1
    formats = {_key(each.name): _is_pair(each.name) for each in candidates}
    others = [layout for layout in LAYOUTS if layout not in (found.layout, ANYTHING)]
    for name in files:
        if _key(name) in formats:
            if _is_pair(name) != formats[_key(name)]:
                found.left_out["copies in another format"] += 1
            continue
        theirs = next((layout for layout in others if layout.variant_of(above + name)), None)
        suffix = "".join(Path(name).suffixes[-2:] if name.endswith(".gz") else Path(name).suffixes[-1:])
        found.left_out[f"of {theirs.name}" if theirs else f"{suffix.lower() or 'other'} files"] += 1


def _stem(name: str) -> str:
    """A name without its ending; of both files of a pair the same."""
    suffix = volume_suffix(Path(name)) or Path(name).suffix
    return name[: -len(suffix)] if suffix else name


def _key(name: str) -> str:
    """What the files of one volume share: its name without ending; of an image the whole name."""
    return _stem(name) if volume_suffix(Path(name)) else name


def _is_pair(name: str) -> bool:
    return (volume_suffix(Path(name)) or "").startswith((".hdr", ".img"))


def _kind(variant: Variant, images: Images) -> str:
    if images in variant.images:
        return variant.name
    return f"{variant.name} ({variant.images[0].value})"


def _nothing(found: Found, candidates: list[Member], recipe: Recipe) -> str:
    """Why there is nothing to take, and what there is."""
    kinds = sorted({each.variant.images[0].value for each in candidates})
    here = f"found {', '.join(kinds)}; choose them with --images" if kinds else "found none of its files"
    which = f" of {recipe.variant}" if recipe.variant else ""
    return f"no {found.images.value}{which} in it ({found.layout.name}: {here})" + (
        "" if kinds else f"; expected files such as {found.layout.example}"
    )


def _with_guides(taken: list[Member], candidates: list[Member]) -> list[Member]:
    """Name for each volume the one of its session and space that shows the brain best.

    With the same guide, scans and segmentations of a session are cut at the same places.
    """
    kinds = (Images.SEGMENTATIONS, Images.SKULL_STRIPPED)
    guides: dict[tuple[str, str, str], Member] = {}
    for kind in kinds:
        for each in sorted(candidates, key=lambda s: _natural(s.name)):
            if each.variant.space and kind in each.variant.images:
                guides.setdefault((each.subject, each.session, each.variant.space), each)
    guided = []
    for each in taken:
        guide = guides.get((each.subject, each.session, each.variant.space))
        guided.append(each._replace(guide=guide.path if guide and guide.name != each.name else None))
    return guided


def _with_splits(
    root: Path, taken: list[Member], candidates: list[Member], found: Found, recipe: Recipe
) -> list[Member]:
    """Keep given splits; else share out the subjects.

    Those of scans and of segmentations are shared out together, so that a person's fall in one split.
    """
    given = [each.split for each in taken]
    if found.layout is ANYTHING:
        given = [given_split(each.name) or "" for each in taken]
    if all(given):
        if recipe.split is not None:
            raise DatasetError(f"{root}: its splits are given, and kept; leave out --split")
        found.splitting = "splits as given"
        return [each._replace(split=split) for each, split in zip(taken, given, strict=True)]
    shares = recipe.split or DEFAULT_SPLIT
    found.splitting = f"split {'/'.join(f'{share:g}' for share in shares)} with seed {recipe.seed}"
    known = taken
    if not found.remarks:  # then scans and segmentations name the same subjects
        known = taken + [each for each in candidates if each.variant.by_default]
    split_of = shared_out({each.subject for each in known}, shares, recipe.seed)
    return [each._replace(split=split_of[each.subject]) for each in taken]


def shared_out(subjects: set[str], shares: tuple[float, float, float], seed: int) -> dict[str, str]:
    """Which split each subject goes to.

    The order is that of hashes of seed and subject, the same on every machine. A split with a share
    gets at least one subject where there are enough.
    """

    def place(subject: str) -> bytes:
        told = f"{seed}/{subject}".encode(errors="surrogatepass")  # a folder's name may be no Unicode
        return hashlib.sha256(told).digest()

    order = sorted(subjects, key=place)
    wanted = [len(order) * share / sum(shares) for share in shares]
    counts = [max(int(count), int(share > 0)) for count, share in zip(wanted, shares, strict=True)]
    while sum(counts) > len(order):  # the last splits go without
        counts[max(range(3), key=lambda place: (counts[place], place))] -= 1
    while sum(counts) < len(order):
        counts[max(range(3), key=lambda place: wanted[place] - counts[place])] += 1
    names = [name for name, count in zip(SPLITS, counts, strict=True) for _ in range(count)]
    return dict(zip(order, names, strict=True))
