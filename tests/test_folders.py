"""Walking a tree, what is passed over, shards."""

import os
from pathlib import Path

import pytest

from oasisvq.errors import FileError
from oasisvq.folders import (
    WHOLE,
    Globs,
    PassedOver,
    Shard,
    ending_of,
    parse_shard,
    shard_of_environment,
    walk,
)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("b.txt", "a.txt", "B.txt", "b/1.txt", "b/10.txt", "b/2.txt", "a/z/deep.txt", "c.png"):
        path = tmp_path / "tree" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return tmp_path / "tree"


def names(root: Path, suffix: str = ".txt") -> list[str]:
    found = [path for listing in walk(root) for path in listing.files if path.suffix == suffix]
    return [path.relative_to(root).as_posix() for path in found]


def test_a_walk_has_a_fixed_order_files_first(tree: Path) -> None:
    expected = ["B.txt", "a.txt", "b.txt", "a/z/deep.txt", "b/1.txt", "b/10.txt", "b/2.txt"]
    assert names(tree) == expected
    assert names(tree, ".png") == ["c.png"]
    assert names(tree, ".jpg") == []


@pytest.mark.parametrize("hidden", [".hidden.txt", ".git/x.txt", "b/.cache/x.txt", "b/.x.txt"])
def test_hidden_files_and_folders_are_left_out(tree: Path, hidden: str) -> None:
    before = names(tree)
    (tree / hidden).parent.mkdir(exist_ok=True)
    (tree / hidden).write_text("hidden")
    assert names(tree) == before


def test_a_walk_ends_though_links_lead_in_circles(tree: Path) -> None:
    before = names(tree)
    (tree / "b" / "up").symlink_to(tree)
    assert names(tree) == before


def test_links_to_files_are_found(tree: Path) -> None:
    (tree / "b" / "3.txt").symlink_to(tree / "a.txt")
    assert "b/3.txt" in names(tree)


def test_what_cannot_be_listed_is_a_file_error(tree: Path) -> None:
    for path, says in ((tree / "missing", "no such folder"), (tree / "a.txt", "is a file, expected")):
        with pytest.raises(FileError, match=f"{path}: {says}"):
            list(walk(path))


@pytest.mark.parametrize("count", [1, 2, 3, 8, 30])
def test_shards_share_all_places_evenly(count: int) -> None:
    taken = [[place for place in range(20) if Shard(i, count).takes(place)] for i in range(count)]
    assert sorted(place for places in taken for place in places) == list(range(20))
    assert max(map(len, taken)) - min(map(len, taken)) <= 1


@pytest.mark.parametrize(("text", "shard"), [("0/1", WHOLE), ("0/8", Shard(0, 8)), ("7/8", Shard(7, 8))])
def test_a_shard_is_written_as_a_fraction(text: str, shard: Shard) -> None:
    assert parse_shard(text) == shard


@pytest.mark.parametrize("text", ["", "1", "1/", "/2", "8/8", "-1/8", "0/0", "1/2/3", "a/b", "0.5/2"])
def test_another_text_is_no_shard(text: str) -> None:
    with pytest.raises(ValueError):
        parse_shard(text)


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, (WHOLE, "")),
        ({"RANK": "2", "WORLD_SIZE": "8"}, (Shard(2, 8), "torchrun")),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "4"}, (Shard(0, 4), "SLURM")),
        (
            {"RANK": "1", "WORLD_SIZE": "2", "SLURM_PROCID": "3", "SLURM_NTASKS": "4"},
            (Shard(1, 2), "torchrun"),
        ),
        ({"RANK": "0", "WORLD_SIZE": "1"}, (WHOLE, "")),
        (
            {"RANK": "0", "WORLD_SIZE": "1", "SLURM_PROCID": "3", "SLURM_NTASKS": "4"},
            (Shard(3, 4), "SLURM"),
        ),
        ({"RANK": "8", "WORLD_SIZE": "8"}, (WHOLE, "")),
        ({"RANK": "-1", "WORLD_SIZE": "8"}, (WHOLE, "")),
        ({"RANK": "one", "WORLD_SIZE": "8"}, (WHOLE, "")),
        ({"RANK": "1"}, (WHOLE, "")),
    ],
)
def test_the_shard_that_a_launcher_gave(
    variables: dict[str, str], expected: tuple[Shard, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RANK", "WORLD_SIZE", "SLURM_PROCID", "SLURM_NTASKS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert shard_of_environment() == expected


def test_a_linked_folder_is_walked_once(tree: Path, tmp_path: Path) -> None:
    before = names(tree)
    (tmp_path / "elsewhere" / "in").mkdir(parents=True)
    (tmp_path / "elsewhere" / "in" / "x.txt").write_text("x")
    (tree / "c").symlink_to(tmp_path / "elsewhere")
    (tree / "e").symlink_to(tmp_path / "elsewhere")
    assert names(tree) == [*before, "c/in/x.txt"]
    assert sum(listing.passed_links for listing in walk(tree)) == 1


def test_a_link_within_the_tree_gives_nothing_twice(tree: Path) -> None:
    before = names(tree)
    (tree / "0").symlink_to(tree / "b")
    assert names(tree) == before
    assert next(iter(walk(tree))).passed_links == 1


def test_a_link_to_a_hidden_folder_of_the_tree_is_followed(tree: Path) -> None:
    (tree / ".store").mkdir()
    (tree / ".store" / "x.txt").write_text("x")
    (tree / "z").symlink_to(tree / ".store")
    assert "z/x.txt" in names(tree)


def test_what_is_passed_over_is_told_by_its_ending(tree: Path) -> None:
    (tree / "x.tar.GZ").write_bytes(b"")
    (tree / "README").write_bytes(b"")
    (tree / "gone").symlink_to(tree / "nowhere")
    (tree / "gone.json").symlink_to(tree / "nowhere.json")
    (tree / "up").symlink_to(tree.parent)
    passed_over = PassedOver()
    wanted = [
        path for each in walk(tree) for path in passed_over.sift(each, lambda p: p.suffix == ".png")
    ]
    assert [path.name for path in wanted] == ["c.png"]
    assert str(passed_over) == (
        "passed over: 7 .txt, 1 .tar.gz, 2 links that point nowhere, "
        "1 file without an ending, 1 link to a folder that is taken elsewhere"
    )
    assert passed_over.as_dict()[".txt"] == 7
    assert str(PassedOver()) == ""


@pytest.mark.parametrize(
    ("name", "ending"),
    [("a.JSON", ".json"), ("a.tar.gz", ".tar.gz"), ("a.gz", ".gz"), ("IM0001", ""), ("1.2.840", ".840")],
)
def test_what_a_name_ends_in(name: str, ending: str) -> None:
    assert ending_of(Path(name)) == ending


@pytest.mark.parametrize(
    ("include", "exclude", "expected"),
    [
        (["b*"], [], ["b.txt", "b/1.txt", "b/10.txt", "b/2.txt"]),
        (["b/"], [], ["b/1.txt", "b/10.txt", "b/2.txt"]),
        (["b/1*.txt", "deep.*"], [], ["a/z/deep.txt", "b/1.txt", "b/10.txt"]),
        ([], ["z"], ["B.txt", "a.txt", "b.txt", "b/1.txt", "b/10.txt", "b/2.txt"]),
        ([], ["a/*", "b/?.txt"], ["B.txt", "a.txt", "b.txt", "b/10.txt"]),
        (["*.txt"], ["*"], []),
        (["[ab].txt"], ["b.*"], ["a.txt"]),
    ],
)
def test_globs_choose_files(
    include: list[str], exclude: list[str], expected: list[str], tree: Path
) -> None:
    globs, passed_over = Globs(tuple(include), tuple(exclude)), PassedOver()
    found = [
        path.relative_to(tree).as_posix()
        for listing in walk(tree, globs)
        for path in passed_over.sift(listing, lambda path: path.suffix == ".txt")
    ]
    assert found == expected
    left_out = 8 - len(found) - passed_over.counts[".png"]
    assert f"{left_out} file{'s' * (left_out > 1)} left out by --include" in str(passed_over)


def test_a_folder_that_lists_but_cannot_be_searched(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: path != tree / "b")  # root may search any
    with pytest.raises(FileError, match="b: cannot be searched: no permission; see chmod"):
        names(tree)
