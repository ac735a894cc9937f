from pathlib import Path

import pytest

from vidgru.datasets.rows import AnnotationRow
from vidgru.datasets.videos import Videos, locate
from vidgru.types import Annotation

THERE = ("cam1/a.mp4", "cam2/a.mp4", "cam2/b.mkv", "top.mp4", "v_id1.webm", "twice/x.mp4", "twice/x.avi")


@pytest.fixture
def videos(tmp_path: Path) -> Videos:
    for name in THERE:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return Videos((tmp_path,))


@pytest.mark.parametrize(
    ("spelling", "found"),
    [
        ("cam1/a.mp4", "cam1/a.mp4"),
        ("cam1\\a.mp4", "cam1/a.mp4"),
        ("/mnt/disk/cam1/a.mp4", "cam1/a.mp4"),
        ("../media/cam2/b.mkv", "cam2/b.mkv"),
        ("2024/cam2/b", "cam2/b.mkv"),
        ("b", "cam2/b.mkv"),
        ("b.mkv", "cam2/b.mkv"),
        ("/elsewhere/top.mp4", "top.mp4"),
        ("a.mp4", None),  # which camera's?
        ("cam3/a.mp4", None),
        ("cam3/b.mkv", None),
        ("x", None),  # which of the two?
        ("b.mp4", "cam2/b.mkv"),  # the only one with another suffix, or in other letter case
        ("CAM1\\A.MP4", "cam1/a.mp4"),
        ("cam3/b.mp4", None),
        ("", None),
        ("n" * 5000, None),
    ],
)
def test_find_by_foreign_names(videos: Videos, spelling: str, found: str | None) -> None:
    recording = videos.find(spelling)
    assert (recording.name if recording else None) == found


def test_find_tries_spellings_in_order(videos: Videos) -> None:
    recording = videos.find("id1", ("v_id1",))
    assert recording is not None
    assert recording.name == "v_id1.webm"
    found = videos.find("/mnt/cam1/a.mp4", ("top.mp4",))
    assert found is not None
    assert found.name == "top.mp4"  # a path that is there goes before one that is like it


def test_find_exact_matches_paths_and_their_ends(videos: Videos) -> None:
    for spelling in ("cam2/b.mkv", "b.mkv"):
        recording = videos.find(spelling, exact=True)
        assert recording is not None
        assert recording.name == "cam2/b.mkv"
    for spelling in ("a.mp4", "b", "2.mkv", "cam3/b.mkv", "other/top.mp4"):
        assert videos.find(spelling, exact=True) is None, spelling
    foreign = videos.find(r"C:\Users\ann\cam2\b.mkv", exact=True)
    assert foreign is not None
    assert foreign.name == "cam2/b.mkv"
    assert videos.find(r"C:\Users\ann\cam9\b.mkv", exact=True) is None
    assert videos.guessed == {"b.mkv": "cam2/b.mkv", r"C:\Users\ann\cam2\b.mkv": "cam2/b.mkv"}


@pytest.mark.parametrize(
    ("spelling", "hint"),
    [
        ("TOP.MP4", " (did you mean top.mp4?)"),
        ("top.avi", " (did you mean top.mp4?)"),
        ("top", " (did you mean top.mp4?)"),
        ("x.mkv", " (did you mean twice/x.avi or twice/x.mp4?)"),
        ("topp.mp4", " (did you mean top.mp4?)"),
        ("other.mp4", ""),
    ],
)
def test_missing_videos_name_similar_files(videos: Videos, spelling: str, hint: str) -> None:
    row = AnnotationRow(annotation=Annotation(video=spelling), where="line 2")
    _, _, missing = locate([row], videos, {}, exact=True)
    assert list(missing) == [f"{spelling}{hint}"]


@pytest.mark.parametrize("exact", [True, False])
def test_find_ignores_unicode_normal_form(tmp_path: Path, exact: bool) -> None:
    composed, decomposed = "K\u00fcche.mp4", "Ku\u0308che.mp4"
    (tmp_path / decomposed).touch()
    recording = Videos((tmp_path,)).find(composed, exact=exact)
    assert recording is not None
    assert recording.path.name == decomposed


def test_find_prefers_names_over_upload_names(tmp_path: Path) -> None:
    for name in ("in/a b.mp4", "in/a_b.mp4", "in/c d.mp4", "in/c(d).mp4", "in/ef.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    videos = Videos((tmp_path,))
    found = {name: recording.name for name in ("a_b.mp4", "c_d", "cd.mp4") if (recording := videos.find(name))}
    assert found == {"a_b.mp4": "in/a_b.mp4", "c_d": "in/c d.mp4", "cd.mp4": "in/c(d).mp4"}


def test_ambiguous_name_lists_candidates(videos: Videos) -> None:
    row = AnnotationRow(annotation=Annotation(video="x"), where="line 2")
    _, _, missing = locate([row], videos, {}, exact=False)
    assert list(missing) == ["x, which may be twice/x.avi or twice/x.mp4"]
    _, _, missing = locate([row], videos, {}, exact=True)
    assert list(missing) == ["x (did you mean twice/x.avi or twice/x.mp4?)"]
