"""What the long run of `load.py` looks at; it is run by hand."""

from pathlib import Path

import pytest
from load import LITTLE, Phase, differing, repeat_slices, run_phase

MEGABYTE = 2**20


def test_a_folder_is_repeated(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    (source / "inner").mkdir(parents=True)
    (source / "a.png").write_bytes(b"a")
    (source / "inner" / "b.PNG").write_bytes(b"b")
    (source / "c.txt").write_bytes(b"c")
    originals = repeat_slices(source, target, 5)
    assert [path.name for path in originals] == ["a.png", "b.PNG"]
    assert [path.read_bytes() for path in sorted(target.rglob("*.*"))] == [b"a", b"b", b"a", b"b", b"a"]
    assert repeat_slices(source, target, 5) == originals
    with pytest.raises(SystemExit, match="no images below it"):
        repeat_slices(tmp_path / "target" / "none", target, 5)


def test_a_file_that_differs_from_the_first_of_its_kind_is_found(tmp_path: Path) -> None:
    for number in range(7):
        (tmp_path / f"{number:07d}.png.codes").write_bytes(bytes((number % 2,)))
    assert list(differing(tmp_path, ".codes", 2)) == []
    spoilt = tmp_path / "0000005.png.codes"
    spoilt.write_bytes(b"other")
    assert list(differing(tmp_path, ".codes", 2)) == [spoilt]


@pytest.mark.parametrize(
    ("seconds", "late", "flat"),
    [
        (600, 300, True),
        (600, 300 + LITTLE // MEGABYTE, True),
        (600, 340, False),
        (10, 340, True),
    ],
)
def test_memory_that_grows_is_seen(seconds: float, late: int, flat: bool) -> None:
    assert Phase("encode", seconds, 300 * MEGABYTE, late * MEGABYTE).flat == flat


def test_a_command_is_run_once_a_shard_and_its_failure_ends_the_run() -> None:
    assert run_phase("version", lambda shard: ["--version"], 2, every=0.05).seconds > 0
    with pytest.raises(SystemExit, match=r"^version: exit codes \[0, 2\]"):
        run_phase("version", lambda shard: ["--version"] if shard == 0 else ["--nothing"], 2, every=0.05)
