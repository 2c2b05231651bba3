"""Atomic writes, overwrite policy, reading with a limit."""

import errno
import fcntl
import gc
import io
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from oasisvq.errors import FileError
from oasisvq.files import (
    atomic_writer,
    atomic_writers,
    claimed,
    make_folder,
    move_into_place,
    read_bytes,
    refuse_overwrite,
    remove_temporaries,
    require_file,
    require_output,
    temporary_folder,
    write_arrays,
    write_atomically,
)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("b.txt", "a.txt", "B.txt", "b/1.txt", "b/10.txt", "b/2.txt", "a/z/deep.txt", "c.png"):
        path = tmp_path / "tree" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return tmp_path / "tree"


def test_a_file_appears_whole(tmp_path: Path) -> None:
    path = tmp_path / "x"
    with atomic_writer(path) as stream:
        stream.write(b"first ")
        stream.flush()
        assert not path.exists()
        stream.write(b"second")
    assert path.read_bytes() == b"first second"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_is_replaced_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"old, and longer")
    with atomic_writer(path) as stream:
        stream.write(b"new")
        stream.flush()
        assert path.read_bytes() == b"old, and longer"
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize("error", [ValueError("bad"), KeyboardInterrupt(), SystemExit(3)], ids=repr)
@pytest.mark.parametrize("old", [b"old", None])
def test_a_failed_block_leaves_the_old_file_or_none(
    tmp_path: Path, error: BaseException, old: bytes | None
) -> None:
    path = tmp_path / "x"
    if old is not None:
        path.write_bytes(old)
    with pytest.raises(type(error)), atomic_writer(path) as stream:
        stream.write(b"half")
        raise error
    assert [p.read_bytes() for p in tmp_path.iterdir()] == ([] if old is None else [old])


def test_a_full_disk_is_a_file_error_and_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"old")
    with pytest.raises(FileError, match="x: cannot be written: No space left"), atomic_writer(path):
        raise OSError(28, "No space left on device")
    assert [p.read_bytes() for p in tmp_path.iterdir()] == [b"old"]


def test_a_missing_folder_is_a_file_error(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="cannot be written: No such file or directory"):
        write_atomically(tmp_path / "missing" / "x", b"content")
    (tmp_path / "file").write_bytes(b"mine")
    with pytest.raises(FileError, match="cannot be written: Not a directory"):
        write_atomically(tmp_path / "file" / "x", b"content")


def test_a_folder_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    with pytest.raises(FileError, match="cannot be written"):
        write_atomically(tmp_path / "x", b"content")
    assert list(tmp_path.iterdir()) == [tmp_path / "x"]


def test_what_killed_writers_left_is_removed_and_nothing_else(tree: Path) -> None:
    for name in (
        ".oasisvq-notes",
        ".oasisvq-abcdefgh",
        "b/.oasisvq-abcdefgh.tmp",
        "x.oasisvq-abcdefgh.tmp",
    ):
        (tree / name).write_bytes(b"mine")
    (tree / ".oasisvq-link0000.tmp").symlink_to(tree / "a.txt")
    before = sorted(tree.rglob("*"))
    (tree / ".oasisvq-k1ll_d00.tmp").write_bytes(b"half")
    (tree / ".oasisvq-k1ll_d01.tmp").write_bytes(b"")
    (tree / ".oasisvq-folder00.tmp").mkdir()
    (tree / ".oasisvq-folder00.tmp" / "part.png").write_bytes(b"half")
    with atomic_writer(tree / "x") as stream:
        stream.write(b"content")
        remove_temporaries(tree)  # as another process would
        assert len(sorted(tree.rglob("*"))) == len(before) + 1  # what is being written stays
    assert (tree / "x").read_bytes() == b"content"
    assert sorted(tree.rglob("*")) == sorted([*before, tree / "x"])


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o000])
def test_an_output_has_the_permissions_of_any_new_file(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        write_atomically(tmp_path / "x", b"content")
        assert os.umask(umask) == umask  # and the process keeps its mask
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == 0o666 & ~umask


def test_overwriting_needs_force(tmp_path: Path) -> None:
    path = tmp_path / "x"
    refuse_overwrite(path, force=False)
    path.write_bytes(b"old")
    with pytest.raises(FileError, match="x: exists; pass -f to overwrite it"):
        refuse_overwrite(path, force=False)
    refuse_overwrite(path, force=True)
    assert path.read_bytes() == b"old"


@pytest.mark.parametrize("force", [False, True])
def test_a_folder_is_in_the_way_even_with_force(tmp_path: Path, force: bool) -> None:
    with pytest.raises(FileError, match="is a folder, expected the name of a file"):
        refuse_overwrite(tmp_path, force)


@pytest.mark.parametrize("size", [0, 1, 99, 100])
def test_a_file_up_to_the_limit_is_read(tmp_path: Path, size: int) -> None:
    content = bytes(range(size))
    (tmp_path / "x").write_bytes(content)
    assert read_bytes(tmp_path / "x", 100) == content


def test_a_file_beyond_the_limit_is_refused_unread(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(bytes(101))
    with pytest.raises(FileError, match="x: has more than 100 bytes"):
        read_bytes(tmp_path / "x", 100)
    with (tmp_path / "sparse").open("wb") as stream:
        stream.truncate(2**40)  # more than memory, but no disk
    with pytest.raises(FileError, match="has more than 1,000 bytes"):
        read_bytes(tmp_path / "sparse", 1000)


def test_a_link_is_read_as_its_file(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"content")
    (tmp_path / "link").symlink_to(tmp_path / "x")
    assert read_bytes(tmp_path / "link", 100) == b"content"


def test_what_is_no_regular_file_is_refused_by_kind(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")  # opening it would wait forever
    (tmp_path / "dangling").symlink_to(tmp_path / "missing")
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    (tmp_path / "file").write_bytes(b"")
    for path, message in (
        (tmp_path / "missing", "no such file; check the name"),
        (tmp_path / "dangling", r"no such file \(a dangling link\)"),
        (tmp_path / "circle", "cannot be read"),
        (tmp_path / "pipe", "is a pipe or device"),
        (Path(os.devnull), "is a pipe or device"),
        (tmp_path, "is a folder"),
        (tmp_path / "file" / "x", "cannot be read: Not a directory"),
        (tmp_path / ("a" * 300), "cannot be read: File name too long"),
    ):
        with pytest.raises(FileError, match=message):
            read_bytes(path, 100)
        with pytest.raises(FileError, match=message):
            require_file(path)


def test_a_folder_is_made_with_its_parents(tmp_path: Path) -> None:
    make_folder(tmp_path / "a" / "b")
    make_folder(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()
    (tmp_path / "file").write_bytes(b"")
    for path in (tmp_path / "file", tmp_path / "file" / "x"):
        with pytest.raises(FileError, match="the folder cannot be created"):
            make_folder(path)


def test_a_write_removes_what_a_killed_one_left(tmp_path: Path) -> None:
    (tmp_path / ".oasisvq-k1ll_d00.tmp").write_bytes(b"half")
    write_atomically(tmp_path / "x", b"content")
    assert list(tmp_path.iterdir()) == [tmp_path / "x"]


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    with temporary_folder(tmp_path) as unfinished:
        (unfinished / "a").write_bytes(b"first")
        remove_temporaries(tmp_path)  # as another process would
        (unfinished / "b").write_bytes(b"second")
        assert list(tmp_path.iterdir()) == [unfinished]
        move_into_place(unfinished, tmp_path / "new")
    with temporary_folder(tmp_path / "new") as unfinished:
        (unfinished / "b").write_bytes(b"other")
        move_into_place(unfinished, tmp_path / "new")
    found = {path.name: path.read_bytes() for path in (tmp_path / "new").iterdir()}
    assert found == {"a": b"first", "b": b"other"}
    with pytest.raises(ZeroDivisionError), temporary_folder(tmp_path) as unfinished:
        (unfinished / "c").write_bytes(b"never")
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == [tmp_path / "new"]
    with pytest.raises(FileError, match="none: cannot be written"), temporary_folder(tmp_path / "none"):
        raise AssertionError


def test_without_locks_nothing_is_taken_for_dead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    (tmp_path / ".oasisvq-k1ll_d00.tmp").write_bytes(b"perhaps another machine's")
    monkeypatch.setattr(fcntl, "flock", no_locks)
    write_atomically(tmp_path / "x", b"content")
    assert {path.name for path in tmp_path.iterdir()} == {"x", ".oasisvq-k1ll_d00.tmp"}
    with claimed(tmp_path / "x") as free:
        assert free is None


def test_a_file_has_one_claim_at_a_time(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="lock: cannot be written: No such file"):
        claimed(tmp_path / "lock").__enter__()
    with claimed(tmp_path / "lock", create=True) as first:
        with claimed(tmp_path / "lock") as second:
            assert (first, second) == (True, False)
        (tmp_path / "lock").unlink()
        with claimed(tmp_path / "lock", create=True) as other:  # a lock of the new file, not the old
            assert other is True
    with claimed(tmp_path / "lock") as again:
        assert again is True


def test_a_pair_is_never_half_old_and_half_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever moment a kill takes, there are both old files, both new ones, or no header."""
    names = ("x.img", "x.hdr")
    for name in names:
        (tmp_path / name).write_bytes(b"old")
    seen = []

    def look(function: Callable[..., Any]) -> Callable[..., Any]:
        def looking(*arguments: Any, **options: Any) -> Any:
            result = function(*arguments, **options)
            seen.append(tuple((tmp_path / n).read_bytes() for n in names if (tmp_path / n).exists()))
            return result

        return looking

    for name in ("replace", "unlink"):
        monkeypatch.setattr(Path, name, look(getattr(Path, name)))
    with atomic_writers(*(tmp_path / name for name in names)) as streams:
        for stream in streams:
            stream.write(b"new")
    assert seen == [(b"old",), (b"new",), (b"new", b"new")]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)


@pytest.mark.parametrize("force", [False, True])
def test_pipes_and_devices_are_never_replaced(tmp_path: Path, force: bool) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path(os.devnull)):
        with pytest.raises(FileError, match="is a pipe or device, expected the name of a file"):
            refuse_overwrite(path, force)


def test_a_link_to_nothing_is_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "missing")
    with pytest.raises(FileError, match="link: exists; pass -f"):
        refuse_overwrite(tmp_path / "link", force=False)
    refuse_overwrite(tmp_path / "link", force=True)


def test_an_output_needs_a_folder(tmp_path: Path) -> None:
    require_output(tmp_path / "x", force=False)
    (tmp_path / "file").write_bytes(b"mine")
    with pytest.raises(FileError, match=r"the folder .*missing does not exist; make it"):
        require_output(tmp_path / "missing" / "x", force=False)
    with pytest.raises(FileError, match=r"the folder .*file is a file"):
        require_output(tmp_path / "file" / "x", force=False)


def test_an_output_needs_a_folder_that_can_be_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write anywhere
    with pytest.raises(FileError, match="cannot be written to; name another output"):
        require_output(tmp_path / "x", force=True)


def test_arrays_are_written_as_numpy_writes_them() -> None:
    arrays = {"grid": np.arange(12).reshape(3, 4), "names": np.array(["a", "bc"])}
    ours, theirs = io.BytesIO(), io.BytesIO()
    write_arrays(ours, arrays)
    np.savez(theirs, **arrays)
    assert ours.getvalue() == theirs.getvalue()


class FullDisk(io.BytesIO):
    def write(self, content: Any) -> int:
        if self.tell() + len(content) > 1000:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(content)


def test_arrays_that_do_not_fit_leave_no_archive_open() -> None:
    with pytest.raises(OSError, match="No space left"), FullDisk() as stream:
        write_arrays(stream, {"grid": np.zeros(10_000)})
    gc.collect()  # an open archive would now be closed, and pytest make an error of its complaint
