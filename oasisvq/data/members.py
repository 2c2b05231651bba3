"""A raw folder -> the files to take from it, each with its subject and split.

Only names are looked at here; no file is opened.
"""

import re
from collections import Counter
from pathlib import Path

from oasisvq.data.found import Found, Member
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
)
from oasisvq.data.persons import subject_of
from oasisvq.data.recipe import DEFAULT_RECIPE, Recipe
from oasisvq.data.sharing import (
    stem_of,
    with_given_splits,
    with_one_spelling,
    with_splits,
    with_subjects,
)
from oasisvq.data.subjects import read_subjects
from oasisvq.errors import DatasetError
from oasisvq.folders import walk
from oasisvq.scans.dicom import dicom_suffix, is_dicom
from oasisvq.scans.volumes import VOLUME_SUFFIXES, volume_suffix

_PAIRS_FIRST = (".hdr", ".hdr.gz", ".img", ".img.gz")
_FORMATS = tuple(dict.fromkeys((*_PAIRS_FIRST, *VOLUME_SUFFIXES)))  # of copies, the first is taken
_PARENTS_READ = 3  # folders, from the raw one upwards, whose names may tell layout and subject


def list_paths(root: Path) -> list[str]:
    """All files below a folder, and its folders with a trailing slash, as `walk` finds them.

    Raises:
        FileError: a folder cannot be listed.
    """
    paths: list[str] = []
    for listing in walk(root):
        if listing.folder != root:
            paths.append(listing.folder.relative_to(root).as_posix() + "/")
        paths += [file.relative_to(root).as_posix() for file in listing.files]
    return paths


def find_members(root: Path, images: Images, recipe: Recipe | None = None) -> Found:
    """The files of one kind to take from a raw folder.

    Raises:
        DatasetError: `root` is missing, has no known layout or no such images, its subjects can only be
            guessed, or the splits or the table of subjects are unusable.
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
        dicom = next((path for path in paths if dicom_suffix(Path(path)) or is_dicom(root / path)), None)
        if dicom:
            raise DatasetError(
                f"{root}: holds DICOM, such as {dicom}; convert it to NIfTI first, such as with dcm2niix"
            )
        raise DatasetError(
            f"{root}: no known OASIS layout, and no images or volumes; expected folders named "
            "keras_png_slices_train, ..., or OAS1_0001_MR1, ..., or files such as .png, .nii.gz or .hdr"
        )
    found = Found(layout, images)
    files = [path for path in paths if not path.endswith("/")]
    everything = _candidates(root, above, files, found)
    apart, candidates = _parted(everything, layout)
    if recipe.subjects:
        table = read_subjects(Path(recipe.subjects))
        candidates = [
            each._replace(subject=table.subject(each.name) or each.subject) for each in candidates
        ]
    taken = _choose(root, candidates, found, recipe)
    _count_left_out(files, above, everything, taken, found)
    if not taken:
        raise DatasetError(f"{root}: {_nothing(found, candidates, apart, recipe)}")
    for each in taken:
        if recipe.subjects and not each.subject:
            raise DatasetError(f"{recipe.subjects}: names no subject for {each.name}; add a line for it")
    taken = with_given_splits(root, taken, found, recipe)
    taken, candidates = with_subjects(root, taken, candidates, found, recipe)
    taken, candidates = with_one_spelling(taken, candidates, found)
    taken = _with_guides(taken, candidates)
    taken = with_splits(taken, candidates, found, recipe)
    found.members = sorted(
        taken,
        key=lambda s: (SPLITS.index(s.split), s.subject, s.session, s.slice_number or 0, s.name),
    )
    return found


def _parted(everything: list[Member], layout: Layout) -> tuple[list[Member], list[Member]]:
    """The files in folders that the layout sets apart, and the others."""
    is_apart = [bool(layout.apart and layout.apart.search(each.name)) for each in everything]
    apart = [each for each, away in zip(everything, is_apart, strict=True) if away]
    return apart, [each for each, away in zip(everything, is_apart, strict=True) if not away]


def _candidates(root: Path, above: str, files: list[str], found: Found) -> list[Member]:
    """Every file of the layout, of any kind; a volume in several files or formats is listed once."""
    by_key: dict[str, Member] = {}
    ranks: dict[str, int] = {}
    halves = Counter(_key(name) for name in files if _is_pair(name))
    for name in files:
        path = name if found.layout is ANYTHING else above + name
        told = found.layout.variant_of(path)
        if told is None:
            if found.layout.whole:
                _refuse_misnamed(root / name, path, found.images)
            continue
        variant, says = told
        suffix = volume_suffix(root / name)
        rank = _FORMATS.index(suffix) if suffix else 0
        if _is_pair(name) and halves[_key(name)] == 1:
            rank += len(_FORMATS)  # half a pair comes after every whole volume
        if _key(name) in ranks and rank >= ranks[_key(name)]:
            continue
        ranks[_key(name)] = rank
        by_key[_key(name)] = _member(root, name, path, variant, says, suffix is not None)
    return list(by_key.values())


def _member(
    root: Path, name: str, path: str, variant: Variant, says: dict[str, str], is_volume: bool
) -> Member:
    number = int(says["slice"]) if "slice" in says else slice_of(stem_of(name))[1]
    return Member(
        path=root / name,
        name=name,
        subject=subject_of(path) or "",
        session=says.get("session", ""),
        variant=variant,
        split=SPLIT_NAMES[says["split"]] if "split" in says else "",
        slice_number=None if is_volume else number,
        guide=None,
    )


def _refuse_misnamed(file: Path, path: str, images: Images) -> None:
    """Raise for an image among the PNG slices whose name is not that of a slice."""
    assert PNG_SLICES.marker is not None
    marker = PNG_SLICES.marker.search(path)
    prefix = "seg" if images is Images.SEGMENTATIONS else "case"
    if marker and bool(marker["seg"]) == (prefix == "seg") and file.suffix == ".png":
        raise DatasetError(
            f"{file}: not a slice of this layout; expected a name like {prefix}_001_slice_0.nii.png"
        )


def _choose(root: Path, candidates: list[Member], found: Found, recipe: Recipe) -> list[Member]:
    """The candidates to take: those of the wanted kind, and one per session if the layout says so."""
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
            names = [*layout.variants, *(each.variant for each in candidates)]
            known = ", ".join(dict.fromkeys(variant.name for variant in names)) or "none"
            raise DatasetError(
                f"{root}: no files of the variant '{recipe.variant}'; {layout.name} has {known}"
            )
        if all(found.images not in each.variant.images for each in fitting):
            variant = fitting[0].variant
            way = f"pass --images {variant.what}" if variant.images else "choose another"
            raise DatasetError(f"{root}: {recipe.variant} holds {variant.what}; {way}")
    if layout is ANYTHING and any(each.slice_number is None for each in fitting):
        return [each for each in fitting if each.slice_number is None]  # images are views of volumes
    if not layout.one_a_session:
        return fitting
    order = {variant.name: place for place, variant in enumerate(layout.variants)}
    first: dict[tuple[str | None, str, str], Member] = {}
    for each in sorted(
        fitting, key=lambda s: (order.get(s.variant.name, 0), s.variant.place, _natural(s.name))
    ):
        # a subject in two given splits is not thinned here, but refused later
        first.setdefault((given_split(each.name), each.subject, each.session), each)
    return list(first.values())


def _natural(name: str) -> list[tuple[int, str]]:
    """A key that sorts run-2 before run-10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def _count_left_out(
    files: list[str], above: str, everything: list[Member], taken: list[Member], found: Found
) -> None:
    chosen = {each.name for each in taken}
    variants = {each.variant.name for each in taken}
    for each in everything:
        if each.name in chosen:
            continue
        apart = found.layout.apart and found.layout.apart.search(each.name)
        if each.variant.name in variants and not apart:
            reason = f"further {each.variant.name} of a session"
        else:
            reason = _kind(each.variant, found.images, f" of {apart[1]}" if apart else "")
        found.leave_out(reason, each.name)
    formats = {_key(each.name): _is_pair(each.name) for each in everything}
    others = [layout for layout in LAYOUTS if layout not in (found.layout, ANYTHING)]
    for name in files:
        if _key(name) in formats:
            if _is_pair(name) != formats[_key(name)]:
                found.leave_out("copies in another format", name)
            continue
        theirs = next((layout for layout in others if layout.variant_of(above + name)), None)
        suffix = "".join(Path(name).suffixes[-2:] if name.endswith(".gz") else Path(name).suffixes[-1:])
        found.leave_out(f"of {theirs.name}" if theirs else f"{suffix.lower() or 'other'} files", name)


def _key(name: str) -> str:
    """What the files of one volume share: its name without the ending; for an image the whole name."""
    return stem_of(name) if volume_suffix(Path(name)) else name


def _is_pair(name: str) -> bool:
    return (volume_suffix(Path(name)) or "").startswith((".hdr", ".img"))


def _kind(variant: Variant, images: Images, where: str = "") -> str:
    if images in variant.images:
        return variant.name + where
    return f"{variant.name}{where} ({variant.what})"


def _nothing(found: Found, candidates: list[Member], apart: list[Member], recipe: Recipe) -> str:
    """Why there is nothing to take, and what there is instead."""
    which = f" of {recipe.variant}" if recipe.variant else ""
    start = f"no {found.images.value}{which} in it ({found.layout.name}: "
    not_asked = sorted({s.variant.name for s in candidates if found.images in s.variant.images})
    if not_asked:
        return f"{start}found {', '.join(not_asked)}); choose one with --variant"
    elsewhere = [s.name for s in apart if found.images in s.variant.images]
    if elsewhere:
        assert found.layout.apart is not None
        match = found.layout.apart.search(elsewhere[0])
        folder = elsewhere[0][: match.end() if match else 0]
        pipeline = elsewhere[0][len(folder) :].split("/")[0]
        return (
            f"{start}found {len(elsewhere):,} in {folder}); name the folder, such as {folder}{pipeline}"
        )
    kinds = sorted({s.variant.what for s in candidates if s.variant.images})
    if kinds:
        return f"{start}found {', '.join(kinds)}; choose them with --images)"
    return f"{start}found none of its files); expected files such as {found.layout.example}"


def _with_guides(taken: list[Member], candidates: list[Member]) -> list[Member]:
    """Give each volume the one of its session and space that shows the brain best as its guide.

    With a common guide, scans and segmentations of a session are cut at the same places.
    """
    kinds = (Images.SEGMENTATIONS, Images.SKULL_STRIPPED)
    guides: dict[tuple[str, str, str], Member] = {}
    for kind in kinds:
        for each in sorted(candidates, key=lambda s: (s.variant.place, _natural(s.name))):
            if each.variant.space and kind in each.variant.images:
                guides.setdefault((each.subject, each.session, each.variant.space), each)
    guided = []
    for each in taken:
        guide = guides.get((each.subject, each.session, each.variant.space))
        guided.append(each._replace(guide=guide.path if guide and guide.name != each.name else None))
    return guided
