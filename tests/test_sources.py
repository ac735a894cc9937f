import os
from pathlib import Path

import pytest

from vidgru.cache import SequenceCache
from vidgru.errors import SourceError
from vidgru.sources import find_recordings, is_live_source


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("b.mp4", "a.MKV", "deep/er/c.avi", "notes.md", ".hidden.mp4", ".git/d.mp4", "deep/odd"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    return tmp_path


def names(*sources: object) -> list[str]:
    return [recording.name for recording in find_recordings([str(source) for source in sources])]


def test_folder_is_searched_and_sorted(tree: Path) -> None:
    assert names(tree) == ["a.MKV", "b.mp4", "deep/er/c.avi"]


def test_file_may_have_any_suffix(tree: Path) -> None:
    assert names(tree / "deep" / "odd") == ["odd"]


def test_glob_names_start_at_the_first_wildcard(tree: Path) -> None:
    assert names(tree / "**" / "*.avi") == ["deep/er/c.avi"]
    assert names(tree / "deep" / "*" / "c.avi") == ["er/c.avi"]


def test_text_list_with_comments(tree: Path) -> None:
    (tree / "list.txt").write_text("# comment\n\ndeep/er/c.avi\nb.mp4\n")
    assert names(tree / "list.txt") == ["deep/er/c.avi", "b.mp4"]


def test_text_list_of_another_folder(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    file = tmp_path_factory.mktemp("lists") / "list.txt"
    file.write_text(f"{tree}/deep/er/c.avi\n{os.path.relpath(tree, file.parent)}/b.mp4\n")
    assert names(file) == ["deep/er/c.avi", "b.mp4"]


def test_duplicate_files_are_dropped(tree: Path) -> None:
    (tree / "again.mp4").symlink_to(tree / "b.mp4")
    assert names(tree / "b.mp4", tree) == ["b.mp4", "a.MKV", "deep/er/c.avi"]


def test_linked_folders_do_not_loop(tree: Path) -> None:
    (tree / "deep" / "loop").symlink_to(tree)
    assert names(tree) == ["a.MKV", "b.mp4", "deep/er/c.avi"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
def test_what_is_no_file_is_listed_and_hashing_it_fails(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "loop.mp4").symlink_to("loop.mp4")
    (tmp_path / "gone.mp4").symlink_to("nowhere")
    (tmp_path / "zero.mp4").symlink_to(os.devnull)
    (tmp_path / "empty.mp4").mkdir()
    (tmp_path / "clips.mp4").mkdir()
    (tmp_path / "clips.mp4" / "a.mp4").write_bytes(b"")
    listed = ["clips.mp4/a.mp4", "empty.mp4", "gone.mp4", "loop.mp4", "pipe.mp4", "zero.mp4"]
    assert names(tmp_path) == listed
    assert names(tmp_path / "*.mp4") == listed[1:]
    for name in listed[1:]:
        assert names(tmp_path / name) == [name]
        with pytest.raises(OSError, match=r"not a regular file|No such file|symbolic links"):
            SequenceCache(tmp_path / "features").sha256(tmp_path / name)


def test_file_name_with_glob_characters(tmp_path: Path) -> None:
    (tmp_path / "cam[1].mp4").write_bytes(b"")
    assert names(tmp_path / "cam[1].mp4") == ["cam[1].mp4"]


def test_missing_source(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"no such file or folder: .*nope"):
        names(tmp_path / "nope")


def test_folder_without_recordings(tmp_path: Path) -> None:
    (tmp_path / "notes.md").write_text("")
    with pytest.raises(SourceError, match=r"no recordings in .*\n.*\.mp4"):
        names(tmp_path)


def test_glob_without_matches(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no recordings in"):
        names(tmp_path / "*.mp4")


def test_text_list_with_missing_file(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("\nnope.mp4\n")
    with pytest.raises(SourceError, match=r"list\.txt, line 2: no such file: nope\.mp4"):
        names(tmp_path / "list.txt")


def test_text_list_that_is_not_utf8(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_bytes(b"caf\xe9.mp4\n")
    with pytest.raises(SourceError, match=r"list\.txt is not a list of paths in UTF-8"):
        names(tmp_path / "list.txt")


@pytest.mark.parametrize("source", ["rtsp://cam/1", "RTSPS://cam/1", "http://cam/a.mp4", "tcp://1.2.3.4:5", "0", "12"])
def test_is_live_source_accepts_urls_and_cameras(source: str) -> None:
    assert is_live_source(source)


@pytest.mark.parametrize("source", ["a.mp4", "videos", "videos/*.mp4", "C:/videos", "list.txt", "-1", "1.5", "", "²"])
def test_is_live_source_rejects_recordings(source: str) -> None:
    assert not is_live_source(source)


def test_file_takes_precedence_over_camera(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert is_live_source("0")
    (tmp_path / "0").mkdir()
    assert not is_live_source("0")
