"""Whose scan a file is, and that nobody is in two splits."""

from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Result

from oasisvq.data.layouts import Images
from oasisvq.data.members import find_members
from oasisvq.data.persons import level_of_persons, spelled_alike
from oasisvq.data.recipe import Recipe
from oasisvq.errors import DatasetError

Run = Callable[..., Result]
GUESS = Recipe(guess_subjects=True)


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def subjects(root: Path, recipe: Recipe | None = None) -> dict[str, str]:
    return {s.name: s.subject for s in find_members(root, Images.SCANS, recipe).members}


THREE, TWO = (1, 2, 3), (1, 2)
HBN = ("NDARAA075AMK", "NDARAB123XYZ", "NDARAC904DMU")
NAMED = {
    "adni": (
        {"002_S_0001", "002_S_0002", "002_S_0003"},
        [f"002_S_{n:04d}/MPRAGE/200{v}/S{v}/ADNI_002_S_{n:04d}_MR_{v}.nii" for n in THREE for v in TWO],
    ),
    "ixi": (
        {"IXI001", "IXI002", "IXI003"},
        [f"IXI{n:03d}-Guys-{n:04d}-T{v}.nii.gz" for n in THREE for v in TWO],
    ),
    "subj": ({"subj01", "subj02", "subj03"}, [f"subj{n:02d}_{v}.nii.gz" for n in THREE for v in TWO]),
    "letter": ({"P001", "P002", "P003"}, [f"P{n:03d}/MR{v}/scan.nii.gz" for n in THREE for v in TWO]),
    "words": (
        {"patient_1", "patient_2", "patient_3"},
        [f"site{n % 2}/patient_{n}/visit{v}/a.nii.gz" for n in THREE for v in TWO],
    ),
    "visits in names": (
        {"BraTS-GLI-00001", "BraTS-GLI-00002", "BraTS-GLI-00003"},
        [f"BraTS-GLI-{n:05d}-00{v}/BraTS-GLI-{n:05d}-00{v}-t1n.nii.gz" for n in THREE for v in TWO],
    ),
    "sub-": ({"sub-1", "sub-2", "sub-3"}, [f"sub-{n}/x/run{v}.nii.gz" for n in THREE for v in TWO]),
    "numbers": (
        {"100307", "200307", "300307"},
        [f"{n}00307/T1w/T1w_{v}.nii.gz" for n in THREE for v in TWO],
    ),
    "prefixes": (
        {"NC_001", "NC_002", "NC_003"},
        [f"NC_{n:03d}/ses-{v}/a.nii.gz" for n in THREE for v in TWO],
    ),
    "letters and digits": (set(HBN), [f"{name}/anat/{v}.nii.gz" for name in HBN for v in TWO]),
    "groups above": (
        {"0001", "0002", "0003"},
        [f"{'AD' if n == 1 else 'CN'}/{n:04d}/scan{v}.nii.gz" for n in THREE for v in TWO],
    ),
    "modalities above": (
        {"0001", "0002", "0003"},
        [f"T{v}/{n:04d}/a.nii.gz" for n in THREE for v in TWO],
    ),
}


@pytest.mark.parametrize("kind", NAMED)
def test_a_person_of_these_trees_is_in_one_split(tmp_path: Path, kind: str) -> None:
    persons, names = NAMED[kind]
    root = touch(tmp_path / "raw", *names)
    members = find_members(root, Images.SCANS, Recipe(split=(1, 1, 1))).members
    assert len(members) == len(names)
    splits = {(member.subject, member.split) for member in members}
    assert {subject for subject, _ in splits} == persons
    assert len(splits) == 3
    for member in members:
        assert member.subject in member.name


UNTOLD = {
    "names": ["anna/1.nii.gz", "anna/2.nii.gz", "ben/1.nii.gz", "ben/deeper/9.nii.gz"],
    "visits below names": ["anna/001/a.nii.gz", "anna/002/a.nii.gz", "ben/001/a.nii.gz"],
    "one folder": ["1000_SS.nii.gz", "1018_SS.nii.gz", "1038_SS.nii.gz"],
    "years": ["2006/a.nii.gz", "2007/a.nii.gz", "2008/b.nii.gz"],
    "classes": ["0/a.nii.gz", "0/b.nii.gz", "1/c.nii.gz"],
    "diagnoses": ["AD/a.nii.gz", "CN/b.nii.gz", "CN/c.nii.gz"],
    "modalities": ["T1/anna.nii.gz", "T2/anna.nii.gz", "T1/ben.nii.gz"],
    "visits": ["ses-1/a.nii.gz", "ses-2/a.nii.gz", "ses-2/b.nii.gz"],
    "series": ["scans/301/a.nii.gz", "scans/401/a.nii.gz"],
    "number and visit": ["C_001_1/a.nii.gz", "C_001_2/a.nii.gz", "C_002_1/a.nii.gz"],
    "visits as words": [f"HC{n:03d}_{v}/a.nii.gz" for n in THREE for v in ("base", "year")],
    "visits as letters": [f"PAT{n:04d}{v}/a.nii.gz" for n in THREE for v in "AB"],
    "visits in front": [f"HC{v}{n:03d}/a.nii.gz" for n in THREE for v in ("pre", "pos")],
    "one without": ["sub-01/a.nii.gz", "sub-02/a.nii.gz", "extra/a.nii.gz"],
    "one above": ["0001/a.nii.gz", "0002/a.nii.gz", "a.nii.gz"],
    "slices": ["a/1.png", "b/1.png"],
}


@pytest.mark.parametrize("kind", UNTOLD)
def test_trees_that_do_not_tell_are_not_split(tmp_path: Path, kind: str) -> None:
    root = touch(tmp_path / "raw", *UNTOLD[kind])
    with pytest.raises(
        DatasetError, match=r"do not tell whose scan .* --subjects TABLE, or pass --guess-subjects"
    ) as caught:
        find_members(root, Images.SCANS)
    assert str(root) in str(caught.value)
    found = find_members(root, Images.SCANS, GUESS)
    assert len(found.members) == len(UNTOLD[kind])


def test_a_guess_takes_the_upper_folder_that_is_no_group_or_visit(tmp_path: Path) -> None:
    root = touch(tmp_path / "names", *UNTOLD["names"])
    assert set(subjects(root, GUESS).values()) == {"anna", "ben"}
    (remark,) = find_members(root, Images.SCANS, GUESS).remarks
    assert remark.startswith("4 of 4 files name no subject: guessed 2 subjects: anna, ben; where")
    root = touch(tmp_path / "modalities", *UNTOLD["modalities"])
    assert set(subjects(root, GUESS).values()) == {"anna", "ben"}
    root = touch(tmp_path / "slices", "a.png", "c_slice_01.png", "c_slice_10.png", "c_slice_2.png")
    assert set(subjects(root, GUESS).values()) == {"a", "c"}
    members = find_members(root, Images.SCANS, GUESS).members
    assert [s.slice_number for s in members if s.subject == "c"] == [1, 2, 10]


def test_the_message_counts_only_files_that_are_taken(tmp_path: Path) -> None:
    root = touch(tmp_path, "a.nii.gz", "b.nii.gz", "c_mask.nii.gz", "figure.png", "sub-01.nii.gz")
    with pytest.raises(DatasetError, match=r"2 of 3 files do not tell whose .* first a\.nii\.gz"):
        find_members(root, Images.SCANS)


def test_nothing_needs_to_be_told_where_nobody_can_be_in_two_splits(tmp_path: Path) -> None:
    alone = touch(tmp_path / "alone", "a.nii.gz")
    assert subjects(alone) == {"a.nii.gz": "a"}
    stack = touch(tmp_path / "stack", *(f"c_slice_{n}.png" for n in range(5)))
    assert set(subjects(stack).values()) == {"c"}
    one_split = touch(tmp_path / "one", "a.nii.gz", "b.nii.gz")
    assert len(subjects(one_split, Recipe(split=(1, 0, 0)))) == 2
    given = touch(tmp_path / "given", "train/a.png", "val/a.png")
    assert subjects(given) == {"train/a.png": "train/a", "val/a.png": "validation/a"}


def test_a_level_that_all_share_is_passed() -> None:
    assert level_of_persons([("project", "0001"), ("project", "0002")]) == 1
    assert level_of_persons([("project", "0001"), ()]) is None
    assert level_of_persons([]) is None


SPELLINGS = (
    ("Subj01_v{0}.nii.gz", "subj01_v{0}.nii.gz", "subj-1_v{0}.nii.gz"),
    ("P001/{0}.nii.gz", "p001/{0}.nii.gz", "p0001/{0}.nii.gz"),
    ("sub-01/{0}.nii.gz", "sub_01/{0}.nii.gz", "sub 1/{0}.nii.gz"),
)


@pytest.mark.parametrize("names", SPELLINGS)
def test_a_person_spelled_in_several_ways_is_one(tmp_path: Path, names: tuple[str, ...]) -> None:
    spelled = {name.format(place) for place, name in enumerate(names)}
    root = touch(tmp_path / "raw", *spelled, "sub-02/scan.nii.gz", "sub-03/scan.nii.gz")
    found = find_members(root, Images.SCANS)
    assert len({s.subject for s in found.members if s.name in spelled}) == 1
    assert len({s.subject for s in found.members}) == 3
    (remark,) = found.remarks
    assert remark.startswith("2 subjects taken for another that is spelled differently: ")


def test_other_names_are_other_persons() -> None:
    names = {"C_1_11", "C_11_1", "sub-01A", "sub-01", "sub-10", "sub01B", "+", "-"}
    assert spelled_alike(names) == {name: name for name in names}


def test_training_refuses_a_folder_that_does_not_tell(run: Run, tmp_path: Path) -> None:
    touch(tmp_path / "raw", "a.png", "b.png")
    result = run("train", "raw", "--preset", "seed", "--epochs", "1")
    assert result.code == 1
    assert "do not tell whose scan they are" in result.err
