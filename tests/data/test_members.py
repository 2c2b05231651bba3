"""A raw folder -> the files to take, for every layout."""

from collections import Counter
from pathlib import Path

import pytest
from conftest import write_raw_folder
from trees import TREES, draw_head, oasis1_session, write_analyze, write_nifti

from oasisvq.data.found import Found
from oasisvq.data.layouts import LAYOUTS, Images
from oasisvq.data.members import find_members, list_paths
from oasisvq.data.recipe import Recipe
from oasisvq.data.sharing import shared_out
from oasisvq.errors import DatasetError, FileError


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder of each layout; only looked at."""
    folder = tmp_path_factory.mktemp("trees")
    return {key: build(folder / key) for key, build in TREES.items()}


def taken(found: Found) -> dict[str, str]:
    """Sessions and the name of the file that stands for each."""
    return {f"{s.subject} {s.session}".strip(): s.path.name for s in found.members}


def splits_of(found: Found) -> dict[str, set[str]]:
    splits: dict[str, set[str]] = {}
    for source in found.members:
        splits.setdefault(source.subject, set()).add(source.split)
    return splits


@pytest.mark.parametrize("key", TREES)
def test_each_layout_is_recognised_by_itself(trees: dict[str, Path], key: str) -> None:
    found = find_members(trees[key], Images.SCANS)
    assert found.layout.key == key
    assert find_members(trees[key], Images.SCANS, Recipe(layout=key)).members == found.members


@pytest.mark.parametrize("key", TREES)
@pytest.mark.parametrize("images", Images)
def test_a_person_is_in_one_split_whatever_is_taken(
    trees: dict[str, Path], key: str, images: Images
) -> None:
    scans = splits_of(find_members(trees[key], Images.SCANS))
    assert all(len(splits) == 1 for splits in scans.values())
    try:
        others = splits_of(find_members(trees[key], images))
    except DatasetError:
        assert images is not Images.SCANS  # the layout has none
        return
    assert all(scans[subject] == splits for subject, splits in others.items())


def test_oasis1_takes_the_atlas_volume_else_the_subjects_else_the_first_raw_one(
    trees: dict[str, Path],
) -> None:
    found = find_members(trees["oasis1"], Images.SCANS)
    assert taken(found) == {
        "OAS1_0001 MR1": "OAS1_0001_MR1_mpr_n4_anon_111_t88_gfc.hdr",
        "OAS1_0001 MR2": "OAS1_0001_MR2_mpr_n3_anon_111_t88_gfc.hdr",
        "OAS1_0002 MR1": "OAS1_0002_MR1_mpr_n6_anon_111_t88_gfc.hdr",
        "OAS1_0042 MR1": "OAS1_0042_MR1_mpr_n4_anon_sbj_111.hdr",
        "OAS1_0043 MR1": "OAS1_0043_MR1_mpr-1_anon.hdr",
    }
    assert found.left_out == Counter(
        {
            "further mpr of a session": 9,
            "further sbj_111 of a session": 3,
            "t88_masked_gfc (skull-stripped)": 3,
            "fseg (segmentations)": 3,
            ".gif files": 8,
        }
    )
    assert str(found) == (
        "OASIS-1, scans: 3 t88_gfc, 1 sbj_111, 1 mpr of 5 sessions of 4 subjects, split 80/10/10 with "
        "seed 0; left out: 9 further mpr of a session, 8 .gif files, 3 fseg (segmentations), 3 further "
        "sbj_111 of a session, 3 t88_masked_gfc (skull-stripped)"
    )


@pytest.mark.parametrize(
    ("images", "ending"),
    [(Images.SKULL_STRIPPED, "t88_masked_gfc.hdr"), (Images.SEGMENTATIONS, "masked_gfc_fseg.hdr")],
)
def test_oasis1_has_stripped_volumes_and_segmentations(
    trees: dict[str, Path], images: Images, ending: str
) -> None:
    names = taken(find_members(trees["oasis1"], images))
    assert sorted(names) == ["OAS1_0001 MR1", "OAS1_0001 MR2", "OAS1_0002 MR1"]
    assert all(name.endswith(ending) for name in names.values())


def test_a_scan_and_its_segmentation_have_one_guide(trees: dict[str, Path]) -> None:
    guides = {
        source.session + source.subject: source.guide
        for source in find_members(trees["oasis1"], Images.SCANS).members
        if source.variant.name == "t88_gfc"
    }
    for source in find_members(trees["oasis1"], Images.SEGMENTATIONS).members:
        assert source.guide is None
        assert guides[source.session + source.subject] == source.path


def test_oasis1_as_one_flat_folder_or_from_within(tmp_path: Path) -> None:
    oasis1_session(tmp_path / "whole", "OAS1_0007_MR1")
    inner = tmp_path / "whole" / "OAS1_0007_MR1" / "RAW"
    found = find_members(inner, Images.SCANS)
    assert (found.layout.key, taken(found)) == (
        "oasis1",
        {"OAS1_0007 MR1": "OAS1_0007_MR1_mpr-1_anon.hdr"},
    )


@pytest.mark.parametrize(
    ("layout", "name"),
    [
        ("oasis1", "OAS1_0001_MR1/RAW/OAS1_0001_MR1_mpr-1_anon.HDR"),
        ("kaggle", "Data/Non Demented/OAS1_0001_MR1_mpr-1_100.JPG"),
        ("bids", "sub-01/anat/sub-01_T1w.NII.GZ"),
    ],
)
def test_endings_may_be_in_upper_case(tmp_path: Path, layout: str, name: str) -> None:
    found = find_members(touch(tmp_path, name), Images.SCANS)
    assert (found.layout.key, [s.name for s in found.members]) == (layout, [name])


def test_oasis2_takes_one_repeat_of_each_visit(trees: dict[str, Path]) -> None:
    found = find_members(trees["oasis2"], Images.SCANS)
    assert taken(found) == {
        "OAS2_0001 MR1": "mpr-1.nifti.hdr",
        "OAS2_0001 MR2": "mpr-1.nifti.hdr",
        "OAS2_0002 MR1": "mpr-1.nifti.hdr",
        "OAS2_0004 MR3": "mpr-2.nii.gz",
    }
    assert found.left_out == Counter({"further mpr of a session": 4})
    inner = trees["oasis2"] / "OAS2_RAW_PART2" / "OAS2_0004_MR3" / "RAW"
    assert taken(find_members(inner, Images.SCANS)) == {"OAS2_0004 MR3": "mpr-2.nii.gz"}


def test_oasis3_takes_the_first_t1w_of_a_session(trees: dict[str, Path]) -> None:
    found = find_members(trees["oasis3"], Images.SCANS)
    assert taken(found) == {
        "OAS30001 d0129": "sub-OAS30001_ses-d0129_run-01_T1w.nii.gz",
        "OAS30001 d0757": "sub-OAS30001_sess-d0757_T1w.nii.gz",
        "OAS30002 d0371": "sub-OAS30002_ses-d0371_T1w.nii.gz",
    }
    assert found.left_out == Counter({"further T1w of a session": 1, "T2w": 3, "FLAIR": 1})


def test_a_variant_can_be_asked_for(trees: dict[str, Path]) -> None:
    found = find_members(trees["oasis3"], Images.SCANS, Recipe(variant="T2w"))
    assert sorted(taken(found)) == ["OAS30001 d0129", "OAS30001 d0757", "OAS30003 d0001"]
    raw = find_members(trees["oasis1"], Images.SCANS, Recipe(variant="mpr"))
    assert {s.path.name[-14:] for s in raw.members} == {"mpr-1_anon.hdr"}
    fine = find_members(trees["neurite"], Images.SEGMENTATIONS, Recipe(variant="seg35"))
    assert {s.path.name for s in fine.members} == {"seg35.nii.gz"}


@pytest.mark.parametrize(
    ("variant", "message"),
    [
        ("t2", "no files of the variant 't2'; neurite-oasis has orig, aligned_orig, norm"),
        ("seg35", "seg35 holds segmentations; pass --images segmentations"),
    ],
)
def test_a_variant_that_is_not_there(trees: dict[str, Path], variant: str, message: str) -> None:
    with pytest.raises(DatasetError, match=message) as caught:
        find_members(trees["neurite"], Images.SCANS, Recipe(variant=variant))
    assert str(trees["neurite"]) in str(caught.value)


@pytest.mark.parametrize(
    ("images", "name"),
    [
        (Images.SCANS, "orig.nii.gz"),
        (Images.SKULL_STRIPPED, "norm.nii.gz"),
        (Images.SEGMENTATIONS, "seg4.nii.gz"),
    ],
)
def test_neurite_takes_what_lies_over_each_other(
    trees: dict[str, Path], images: Images, name: str
) -> None:
    found = find_members(trees["neurite"], images)
    assert set(taken(found)) == {"OAS1_0001 MR1", "OAS1_0002 MR1", "OAS1_0002 MR2"}
    assert set(taken(found).values()) == {name}
    assert found.left_out[".nii.gz files"] == 3  # slices through orig


def test_the_task_layout_leaves_its_test_images_alone(trees: dict[str, Path]) -> None:
    found = find_members(trees["task"], Images.SCANS)
    assert sorted(taken(found)) == ["OASIS_0001", "OASIS_0002", "OASIS_0003"]
    assert found.left_out == Counter({"labelsTr (segmentations)": 3, "imagesTs": 1, ".json files": 1})
    assert len(find_members(trees["task"], Images.SEGMENTATIONS).members) == 3


def test_kaggle_takes_every_slice_and_splits_by_person_not_by_diagnosis(trees: dict[str, Path]) -> None:
    found = find_members(trees["kaggle"], Images.SCANS)
    assert len(found.members) == 24
    assert set(splits_of(found)) == {"OAS1_0001", "OAS1_0003", "OAS1_0028"}
    numbers = [s.slice_number for s in found.members if s.session == "MR1_mpr-2"]
    assert numbers[:3] == [99, 100, 101]


def test_copies_in_another_format_stand_once(tmp_path: Path) -> None:
    oasis1_session(tmp_path, "OAS1_0001_MR1")
    original = next(tmp_path.rglob("*t88_gfc.hdr"))
    write_nifti(original.with_suffix(".nii.gz"), draw_head())
    found = find_members(tmp_path, Images.SCANS)
    assert [s.path for s in found.members] == [original]
    assert found.left_out["copies in another format"] == 1


@pytest.mark.parametrize("gone", [".hdr", ".img"])
def test_half_a_pair_still_stands_for_its_session(tmp_path: Path, gone: str) -> None:
    oasis1_session(tmp_path, "OAS1_0001_MR1")
    next(tmp_path.rglob(f"*t88_gfc{gone}")).unlink()
    (name,) = taken(find_members(tmp_path, Images.SCANS)).values()
    assert name.endswith("t88_gfc" + {".hdr": ".img", ".img": ".hdr"}[gone])


@pytest.mark.parametrize("half", [".hdr", ".img"])
def test_half_a_pair_beside_a_whole_volume_is_left_out(tmp_path: Path, half: str) -> None:
    root = touch(tmp_path, "sub-1.nii.gz", f"sub-1{half}")
    found = find_members(root, Images.SCANS)
    assert [s.name for s in found.members] == ["sub-1.nii.gz"]
    assert found.left_out == Counter({"copies in another format": 1})


def test_another_layout_in_the_same_folder_is_said(trees: dict[str, Path], tmp_path: Path) -> None:
    for key in ("oasis1", "oasis3"):
        (tmp_path / key).symlink_to(trees[key])
    found = find_members(tmp_path, Images.SCANS)
    assert (found.layout.key, found.left_out["of OASIS-3"]) == ("oasis1", 8)
    assert len(find_members(tmp_path, Images.SCANS, Recipe(layout="oasis3")).members) == 3


def test_a_layout_that_is_not_there(trees: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"no scans in it .OASIS-3.*expected files such as OAS30001"):
        find_members(trees["oasis1"], Images.SCANS, Recipe(layout="oasis3"))
    with pytest.raises(DatasetError, match="no layout 'oasis9'; expected one of png-slices, oasis1"):
        Recipe(layout="oasis9")
    (tmp_path / "readme.txt").touch()
    with pytest.raises(DatasetError, match="no known OASIS layout"):
        find_members(tmp_path, Images.SCANS)


def test_images_that_a_layout_has_not_are_pointed_at(trees: dict[str, Path]) -> None:
    with pytest.raises(DatasetError, match=r"no segmentations in it .*found scans; choose"):
        find_members(trees["oasis2"], Images.SEGMENTATIONS)


# anything else


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def subjects(root: Path, recipe: Recipe | None = None) -> dict[str, str]:
    return {s.name: s.subject for s in find_members(root, Images.SCANS, recipe).members}


GUESS = Recipe(guess_subjects=True)


def test_files_that_name_their_subject(tmp_path: Path) -> None:
    root = touch(
        tmp_path / "mixed", "OAS1_0001_MR1.nii.gz", "OAS1_0001_MR2.nii", "sub-07/anat/scan.nii.gz"
    )
    found = find_members(root, Images.SCANS)
    assert not found.remarks
    assert splits_of(found).keys() == {"OAS1_0001", "sub-07"}


def test_bmp_images_are_taken(tmp_path: Path) -> None:
    root = touch(tmp_path, "sub-1/1.bmp", "sub-2/1.BMP")
    assert [s.slice_number for s in find_members(root, Images.SCANS).members] == [1, 1]


def test_volumes_are_taken_before_pictures_of_them(tmp_path: Path) -> None:
    root = touch(tmp_path, "a.nii.gz", "a.png", "b.img", "b.hdr", "b_seg.nii.gz", "b_mask.png")
    found = find_members(root, Images.SCANS, GUESS)
    assert sorted(s.name for s in found.members) == ["a.nii.gz", "b.hdr"]
    labels = find_members(root, Images.SEGMENTATIONS)
    assert [s.name for s in labels.members] == ["b_seg.nii.gz"]


@pytest.mark.parametrize(
    "name",
    [
        "a_dseg.nii.gz",
        "a_desc-aparcaseg.nii.gz",
        "a_roi.nii.gz",
        "a_WMH.nii.gz",
        "a_groundtruth.nii.gz",
        "a_ground_truth.nii",
        "a-lesion.nii.gz",
        "a_gt.nii.gz",
        "aparc+aseg.nii.gz",
        "parcellation.nii.gz",
        "rois/a.nii.gz",
    ],
)
def test_names_of_segmentations(tmp_path: Path, name: str) -> None:
    root = touch(tmp_path, "a_t1.nii.gz", name)
    assert [s.name for s in find_members(root, Images.SCANS).members] == ["a_t1.nii.gz"]
    assert [s.name for s in find_members(root, Images.SEGMENTATIONS).members] == [name]


@pytest.mark.parametrize("name", ["a_probseg.nii.gz", "a_pve_1.nii.gz", "prob.nii.gz"])
def test_maps_of_probability_are_neither(tmp_path: Path, name: str) -> None:
    root = touch(tmp_path, "a_t1.nii.gz", "a_seg.nii.gz", name)
    found = find_members(root, Images.SCANS)
    assert [s.name for s in found.members] == ["a_t1.nii.gz"]
    assert found.left_out["maps of probability (neither scans nor labels)"] == 1
    assert len(find_members(root, Images.SEGMENTATIONS).members) == 1


def test_split_folders_of_anything_are_kept(tmp_path: Path) -> None:
    root = touch(tmp_path, "train/a.png", "train/b.png", "val/c.png", "Test/d.png")
    found = find_members(root, Images.SCANS)
    assert [(s.name, s.split) for s in found.members] == [
        ("train/a.png", "train"),
        ("train/b.png", "train"),
        ("val/c.png", "validation"),
        ("Test/d.png", "test"),
    ]
    assert "splits as given" in str(found)
    with pytest.raises(DatasetError, match="splits are given, and kept; leave out --split"):
        find_members(root, Images.SCANS, Recipe(split=(1, 1, 1)))
    with pytest.raises(DatasetError, match="splits are given, and kept; leave out --seed"):
        find_members(root, Images.SCANS, Recipe(seed=5))


def test_split_folders_with_a_file_outside_are_not_thrown_together(tmp_path: Path) -> None:
    names = [f"{split}/sub-{n}.nii.gz" for n, split in enumerate(("train", "train", "dev", "test"))]
    root = touch(tmp_path, *names)
    splits = [s.split for s in find_members(root, Images.SCANS).members]
    assert splits == ["train", "train", "validation", "test"]
    touch(root, "Testing_set/sub-9.nii.gz")
    with pytest.raises(
        DatasetError, match=r"Testing_set/sub-9\.nii\.gz lies outside its folders of splits.* --split"
    ):
        find_members(root, Images.SCANS)
    assert "split 1/1/1" in str(find_members(root, Images.SCANS, Recipe(split=(1, 1, 1))))


def test_split_folders_of_a_layout_are_kept_where_files_stand_for_sessions(tmp_path: Path) -> None:
    name = "PROCESSED/MPRAGE/T88_111/{0}_mpr_n4_anon_111_t88_gfc.hdr"
    sessions = [("train", "OAS1_0001_MR1"), ("validate", "OAS1_0002_MR1")]
    root = touch(tmp_path, *(f"{split}/{each}/{name.format(each)}" for split, each in sessions))
    found = find_members(root, Images.SCANS)
    assert found.layout.key == "oasis1"
    assert [(s.subject, s.split) for s in found.members] == [
        ("OAS1_0001", "train"),
        ("OAS1_0002", "validation"),
    ]


def test_given_splits_of_the_png_slices_are_not_shared_out_anew(tmp_path: Path) -> None:
    root = write_raw_folder(tmp_path / "data", {"train": [1], "test": [2]}, slices=1)
    with pytest.raises(DatasetError, match="leave out --split"):
        find_members(root, Images.SCANS, Recipe(split=(80, 10, 10)))


def test_hidden_files_and_loops_of_links(tmp_path: Path) -> None:
    root = touch(tmp_path, "a/1.nii.gz", ".hidden/2.nii.gz", "a/._1.nii.gz")
    (root / "a" / "back").symlink_to(root)
    assert [path for path in list_paths(root) if not path.endswith("/")] == ["a/1.nii.gz"]


def test_links_are_followed_as_in_encode(tmp_path: Path) -> None:
    """A link into the tree hides nothing, one to a parent brings nothing in."""
    root = touch(tmp_path / "project" / "raw", "train/sub-1.nii.gz", "test/sub-2.nii.gz")
    touch(tmp_path / "project", "private/sub-3.nii.gz")
    touch(tmp_path, "elsewhere/sub-4.nii.gz")
    (root / "current").symlink_to("train")
    (root / "project").symlink_to(tmp_path / "project")
    (root / "train" / "more").symlink_to(tmp_path / "elsewhere")
    members = find_members(root, Images.SCANS).members
    assert {(s.name, s.split) for s in members} == {
        ("train/sub-1.nii.gz", "train"),
        ("train/more/sub-4.nii.gz", "train"),
        ("test/sub-2.nii.gz", "test"),
    }


def test_a_dangling_link_is_a_file_that_fails_later(tmp_path: Path) -> None:
    (tmp_path / "OAS1_0001_scan.nii.gz").symlink_to(tmp_path / "gone.nii.gz")
    assert len(find_members(tmp_path, Images.SCANS).members) == 1


# tables of subjects


TABLES = {
    "comma": "file,subject\n1018,OAS1_0379\n1038,OAS1_0379\n1000,OAS1_0061\n",
    "no heading": "1018_SS.nii.gz,OAS1_0379\n1038_SS,OAS1_0379\n1000,OAS1_0061\n",
    "other words": "scan,patient\n1018,OAS1_0379\n1038,OAS1_0379\n1000,OAS1_0061\n",
    "one word known": "file,who\n1018,OAS1_0379\n1038,OAS1_0379\n1000,OAS1_0061\n",
    "tab, turned": "participant_id\tfilename\nOAS1_0379\t1018\nOAS1_0379\t1038\nOAS1_0061\t1000\n",
    "semicolon": "\ufefffile;subject\r\n1018;OAS1_0379\r\n1038;OAS1_0379\r\n\r\n1000;OAS1_0061\r\n",
}


@pytest.mark.parametrize("text", TABLES.values(), ids=TABLES)
def test_a_table_names_the_subjects(tmp_path: Path, text: str) -> None:
    root = touch(tmp_path / "raw", "1000_SS.nii.gz", "1018_SS.nii.gz", "1038_SS.nii.gz")
    (tmp_path / "subjects.csv").write_text(text, encoding="utf-8")
    found = find_members(root, Images.SCANS, Recipe(subjects=str(tmp_path / "subjects.csv")))
    assert {s.name[:4]: s.subject for s in found.members} == {
        "1000": "OAS1_0061",
        "1018": "OAS1_0379",
        "1038": "OAS1_0379",
    }
    assert not found.remarks


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,subject\n", "an empty table"),
        ("", "an empty table"),
        ("101,OAS1_0379\n", "names no subject for 1018_SS.nii.gz; add a line"),
        ("1018\n", "no two columns"),
        ("1018,\n", "no two columns"),
        ("1018,a\n1018,b\n", "gives 1018 the subjects a and b"),
        ("\udcff,a", "no UTF-8 text"),
    ],
)
def test_a_table_that_cannot_be_used(tmp_path: Path, text: str, message: str) -> None:
    root, table = touch(tmp_path / "raw", "1018_SS.nii.gz"), tmp_path / "subjects.csv"
    table.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(DatasetError, match=message) as caught:
        find_members(root, Images.SCANS, Recipe(subjects=str(table)))
    assert "subjects.csv" in str(caught.value)


def test_a_table_that_is_not_there(tmp_path: Path) -> None:
    root = touch(tmp_path, "1018_SS.nii.gz")
    with pytest.raises(FileError, match="no such file"):
        find_members(root, Images.SCANS, Recipe(subjects=str(tmp_path / "gone.csv")))


@pytest.mark.parametrize("seed", range(20))
def test_two_volumes_of_one_person_never_part(tmp_path: Path, seed: int) -> None:
    """1018 and 1038 are one person, scanned twice."""
    table = tmp_path / "subjects.csv"
    table.write_text(TABLES["comma"] + "1107,OAS1_0040\n")
    root = touch(tmp_path / "raw", *(f"{name}_SS.nii.gz" for name in (1000, 1018, 1038, 1107)))
    found = find_members(root, Images.SCANS, Recipe(subjects=str(table), split=(1, 1, 1), seed=seed))
    split = {s.name[:4]: s.split for s in found.members}
    assert len(split) == 4
    assert split["1018"] == split["1038"]
    assert len({split["1000"], split["1018"], split["1107"]}) == 3


# sharing out


@pytest.mark.parametrize(
    ("count", "shares", "sizes"),
    [
        (100, (80, 10, 10), [80, 10, 10]),
        (416, (80, 10, 10), [333, 42, 41]),
        (10, (8, 1, 1), [8, 1, 1]),
        (3, (80, 10, 10), [1, 1, 1]),
        (2, (80, 10, 10), [1, 1, 0]),
        (1, (80, 10, 10), [1, 0, 0]),
        (7, (0.5, 0.5, 0), [4, 3, 0]),
        (7, (0, 0, 1), [0, 0, 7]),
        (0, (80, 10, 10), [0, 0, 0]),
    ],
)
def test_shares_are_kept_and_small_splits_get_somebody(
    count: int, shares: tuple[float, float, float], sizes: list[int]
) -> None:
    split = Counter(shared_out({f"OAS1_{n:04d}" for n in range(count)}, shares, 0).values())
    assert [split[name] for name in ("train", "validation", "test")] == sizes


def test_the_seed_alone_decides() -> None:
    people = {f"OAS1_{n:04d}" for n in range(50)}
    first = shared_out(people, (80, 10, 10), 0)
    assert first == shared_out(people, (80, 10, 10), 0)
    assert first != shared_out(people, (80, 10, 10), 1)
    validation = sorted(subject for subject, split in first.items() if split == "validation")
    assert validation == ["OAS1_0020", "OAS1_0027", "OAS1_0033", "OAS1_0038", "OAS1_0039"]  # for ever


def test_examples_of_the_table_are_of_their_layouts() -> None:
    for layout in LAYOUTS:
        assert layout.variant_of(layout.example)
        first = next(each for each in LAYOUTS if each.shows_in([layout.example]))
        assert first is layout or layout.key == "anything"


def test_analyze_pairs_of_no_layout(tmp_path: Path) -> None:
    write_analyze(tmp_path / "a.hdr", draw_head(), "LAS")
    (tmp_path / "a.gif").touch()
    found = find_members(tmp_path, Images.SCANS)
    assert [s.name for s in found.members] == ["a.hdr"]
    assert found.left_out == Counter({".gif files": 1})
