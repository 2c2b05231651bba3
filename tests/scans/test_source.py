"""What a path is, and what lies below a folder."""

from pathlib import Path

import pytest

from oasisvq.errors import FileError, ImageError
from oasisvq.folders import PassedOver
from oasisvq.scans.source import Source, SourceKind, source_at, sources_below, stem

DICOM = bytes(128) + b"DICM" + bytes(16)  # by its first bytes


def touch(root: Path, *names: str, content: bytes = b"x") -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def below(root: Path) -> tuple[dict[str, Source], str]:
    passed_over = PassedOver()
    found = {each.path.relative_to(root).as_posix(): each for each in sources_below(root, passed_over)}
    return found, str(passed_over)


@pytest.mark.parametrize(
    ("name", "kind", "called"),
    [
        ("a.png", SourceKind.IMAGE, "a"),
        ("case_001.nii.png", SourceKind.IMAGE, "case_001.nii"),
        ("a.NII.GZ", SourceKind.VOLUME, "a"),
        ("a.b.nii", SourceKind.VOLUME, "a.b"),
        ("a.dcm", SourceKind.DICOM, "a"),
        ("a.unknown", SourceKind.IMAGE, "a"),
    ],
)
def test_the_name_of_a_file_tells_its_kind(
    tmp_path: Path, name: str, kind: SourceKind, called: str
) -> None:
    path = touch(tmp_path, name) / name
    assert source_at(path) == Source(path, kind, (path,))
    assert source_at(path).name == called == stem(path)


@pytest.mark.parametrize("name", ["IM00001", "1.2.840.113.7"])
def test_dicom_without_an_ending_is_told_by_its_first_bytes(tmp_path: Path, name: str) -> None:
    path = touch(tmp_path, name, content=DICOM) / name
    assert source_at(path).kind is SourceKind.DICOM


@pytest.mark.parametrize("name", ["a.hdr", "a.img"])
def test_both_files_of_a_pair_belong_together(tmp_path: Path, name: str) -> None:
    touch(tmp_path, "a.hdr", "a.img", "b.hdr")
    source = source_at(tmp_path / name)
    assert sorted(path.name for path in source.files) == ["a.hdr", "a.img"]
    assert source.size == 2
    assert source.holds(tmp_path / "a.img")
    assert not source.holds(tmp_path / "b.hdr")
    assert not source.holds(tmp_path / "none")


def test_a_folder_of_dicom_files_is_a_series_called_as_its_folder(tmp_path: Path) -> None:
    folder = touch(tmp_path / "T1", "2", "1", "DICOMDIR", content=DICOM)
    touch(folder, "note.txt", ".hidden")
    source = source_at(folder)
    assert (source.kind, source.is_series, source.name) == (SourceKind.DICOM, True, "T1")
    assert [path.name for path in source.files] == ["1", "2"]


def test_a_change_of_any_file_is_seen(tmp_path: Path) -> None:
    touch(tmp_path, "a.hdr", "a.img")
    source = source_at(tmp_path / "a.hdr")
    assert source.states_now() == source.states
    (tmp_path / "a.img").write_bytes(b"longer")
    assert source.states_now() != source.states
    (tmp_path / "a.img").unlink()
    with pytest.raises(FileError, match="no such file"):
        source.states_now()


def test_what_is_not_there_or_no_series_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="no such file; check the name"):
        source_at(tmp_path / "none.png")
    (tmp_path / "gone.png").symlink_to(tmp_path / "none.png")
    with pytest.raises(FileError, match=r"no such file \(a dangling link\)"):
        source_at(tmp_path / "gone.png")
    with pytest.raises(ImageError, match="no DICOM file directly in this folder"):
        source_at(touch(tmp_path / "folder", "a.png"))


def test_a_tree_gives_every_scan_once_and_counts_the_rest(tmp_path: Path) -> None:
    root = touch(
        tmp_path / "tree", "b.png", "a.nii.gz", "p.hdr", "p.img", "half.img", "x.json", "y.json"
    )
    touch(root, "series/IM2", "series/IM1", "one/IM1", content=DICOM)
    touch(root, "series/notes", "series/thumb.png")
    touch(tmp_path / "elsewhere", "s.nii")
    (root / "linked").symlink_to(tmp_path / "elsewhere")
    (root / "gone").symlink_to(tmp_path / "nowhere")
    (root / "gone.nii").symlink_to(tmp_path / "nowhere.nii")
    found, passed_over = below(root)
    assert list(found) == [
        *("a.nii.gz", "b.png", "gone.nii", "half.img", "p.hdr"),
        *("linked/s.nii", "one/IM1", "series/thumb.png", "series"),
    ]
    assert [path.name for path in found["series"].files] == ["IM1", "IM2"]
    assert not found["one/IM1"].is_series
    assert [path.name for path in found["p.hdr"].files] == ["p.hdr", "p.img"]
    assert passed_over == "passed over: 2 .json, 1 file without an ending, 1 link that points nowhere"
