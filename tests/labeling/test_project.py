"""Changes of a project: applied in order, saved at once, and kept when the disk is full."""

import json
import os
import shutil
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.videos import write_video
from vidgru.errors import OutputError
from vidgru.labeling import project as project_module
from vidgru.labeling.project import ChangeNotSavedError, InvalidChangeError, LabelingProject
from vidgru.sources import find_recordings
from vidgru.storage import write_atomic
from vidgru.types import Event


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("videos") / "a.mp4", frames=100)


def open_project(video: Path, tmp_path: Path) -> LabelingProject:
    return LabelingProject(find_recordings([video]), tmp_path / "labels.csv")


@pytest.fixture
def project(video: Path, tmp_path: Path) -> Iterator[LabelingProject]:
    project = open_project(video, tmp_path)
    yield project
    project.close()


def put(event_id: str, start_s: float, end_s: float, label: str = "fall") -> dict[str, Any]:
    return {"op": "put", "id": event_id, "start_s": start_s, "end_s": end_s, "label": label}


def written(project: LabelingProject) -> list[str]:
    return project.path.read_text().splitlines()[1:]


def test_two_windows_lose_nothing(project: LabelingProject) -> None:
    def work(window: int) -> None:
        for number in range(20):
            project.apply(0, [put(f"{window}-{number}", number / 10, number / 10 + 1)])

    threads = [threading.Thread(target=work, args=(window,)) for window in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(project.details(0)["annotations"]) == 60
    assert sum(",fall," in row for row in written(project)) == 60


def test_changes_apply_in_order_and_can_be_undone(project: LabelingProject) -> None:
    project.apply(0, [put("x", 1, 2)])
    before = project.path.read_bytes()
    project.apply(0, [put("x", 1, 3, "  sit\n down "), {"op": "watched", "start_s": 4, "end_s": 99}])
    answer = project.details(0)
    assert [(event["end_s"], event["label"]) for event in answer["annotations"]] == [(3, "sit down")]
    assert answer["watched"] == [[4, 10]]
    project.apply(0, [{"op": "unwatched", "start_s": 4, "end_s": 99}, put("x", 1, 2)])
    assert project.path.read_bytes() == before
    project.apply(0, [{"op": "delete", "id": "x"}, {"op": "delete", "id": "x"}])
    assert written(project) == []


def test_empty_recording_becomes_watched_with_its_first_event(project: LabelingProject) -> None:
    assert project.apply(0, [{"op": "empty", "value": True}])["is_empty"]
    assert len(written(project)) == 1
    assert project.label_counts([0])[0] == 1
    answer = project.apply(0, [put("x", 1, 2)])
    assert (answer["is_empty"], answer["watched"]) == (False, [[0, 10]])
    with pytest.raises(InvalidChangeError, match="the recording has events; delete them before you mark it as empty"):
        project.apply(0, [{"op": "empty", "value": True}])


def test_recording_watched_without_events_counts_as_a_label(project: LabelingProject) -> None:
    project.apply(0, [{"op": "watched", "start_s": 0, "end_s": 9}])
    assert project.label_counts([0])[0] == 0
    project.apply(0, [{"op": "watched", "start_s": 9, "end_s": 10}])
    assert project.label_counts([0])[0] == 1
    assert [row.split(",")[1:4] for row in written(project)] == [["", "", ""]]
    project.apply(0, [put("x", 1, 2), put("y", 3, 4)])
    assert project.label_counts([0])[0] == 2
    project.apply(0, [{**put("z", 5, 6, ""), "description": "a cat"}])
    assert project.label_counts([0])[0] == 2, "descriptions alone are not trained on"


def test_rejected_draft_is_watched_where_it_was_seen(project: LabelingProject) -> None:
    draft = Event(video="a.mp4", start_s=4.0, end_s=6.0, label="fall", score=0.5)
    project.set_drafts({0: [draft]})
    reject = {"op": "reject", "start_s": 4, "end_s": 6, "label": "fall"}
    project.apply(0, [reject])
    assert project.details(0)["drafts"] == []
    assert spans(project) == []
    project.apply(0, [{"op": "watched", "start_s": 4, "end_s": 5}])
    assert spans(project) == [["4.0", "5.0", "background"]]
    project.set_drafts({0: [draft]})
    assert project.details(0)["drafts"] == []
    project.apply(0, [{**reject, "op": "restore"}])
    project.set_drafts({0: [draft]})
    assert len(project.details(0)["drafts"]) == 1


def spans(project: LabelingProject) -> list[list[str]]:
    return [row.split(",")[1:4] for row in written(project)]


def test_pending_draft_is_never_watched(project: LabelingProject) -> None:
    draft = Event(video="a.mp4", start_s=4.0, end_s=6.0, label="fall", score=0.9)
    play = {"op": "watched", "start_s": 0, "end_s": 10}
    holes = [["0.0", "4.0", "background"], ["6.0", "10.0", "background"]]
    project.set_drafts({0: [draft]})
    answer = project.apply(0, [play])
    assert answer["watched"] == [[0, 4], [6, 10]]
    assert len(answer["drafts"]) == 1
    assert answer == project.details(0)
    assert spans(project) == holes
    assert project.label_counts([0])[0] == 0
    accept = put("x", 4, 6)
    project.apply(0, [accept, play])
    assert spans(project) == [["4.0", "6.0", "fall"]]
    project.apply(0, [{"op": "delete", "id": "x"}])  # undone: the draft is open again
    assert spans(project) == holes
    project.apply(0, [put("y", 2, 3.8)])  # half a second after it would be watched
    assert ["3.8", "4.0", "background"] in spans(project)
    project.apply(0, [{"op": "delete", "id": "y"}])
    project.set_drafts({0: []})  # the next model does not see it: played past is not watched
    project.apply(0, [put("z", 1, 2)])
    assert spans(project) == [
        ["1.0", "2.0", "fall"],
        ["0.0", "1.0", "background"],
        ["2.0", "4.0", "background"],
        holes[1],
    ]


def test_short_pending_draft_survives_closed_gaps(project: LabelingProject) -> None:
    draft = Event(video="a.mp4", start_s=4.0, end_s=4.3, label="fall", score=0.9)
    project.set_drafts({0: [draft]})
    project.apply(0, [{"op": "watched", "start_s": 0, "end_s": 10}])
    assert spans(project) == [["0.0", "4.0", "background"], ["4.3", "10.0", "background"]]


def test_watched_time_and_rejection_in_one_request(project: LabelingProject) -> None:
    draft = Event(video="a.mp4", start_s=4.0, end_s=6.0, label="fall", score=0.9)
    project.set_drafts({0: [draft]})
    reject = {"op": "reject", "start_s": 4, "end_s": 6, "label": "fall"}
    project.apply(0, [{"op": "watched", "start_s": 3, "end_s": 7}, reject])
    assert spans(project) == [["3.0", "7.0", "background"]]
    project.apply(0, [{**reject, "op": "restore"}])
    assert spans(project) == [["3.0", "4.0", "background"], ["6.0", "7.0", "background"]]


def test_draft_over_watched_time_leaves_it_watched(project: LabelingProject) -> None:
    project.apply(0, [{"op": "watched", "start_s": 0, "end_s": 5}])
    draft = Event(video="a.mp4", start_s=4.0, end_s=6.0, label="fall", score=0.9)
    project.set_drafts({0: [draft]})
    assert len(project.details(0)["drafts"]) == 1
    project.apply(0, [{"op": "watched", "start_s": 3, "end_s": 10}])
    assert spans(project) == [["0.0", "5.0", "background"], ["6.0", "10.0", "background"]]
    project.apply(0, [{"op": "unwatched", "start_s": 0, "end_s": 10}])
    project.apply(0, [{"op": "watched", "start_s": 0, "end_s": 10}])
    assert spans(project) == [["0.0", "4.0", "background"], ["6.0", "10.0", "background"]]


def test_draft_stays_pending_when_reopened(video: Path, tmp_path: Path) -> None:
    draft = Event(video="a.mp4", start_s=4.0, end_s=4.3, label="fall", score=0.9)
    play = {"op": "watched", "start_s": 0, "end_s": 10}
    project = open_project(video, tmp_path)
    project.set_drafts({0: [draft]})
    project.apply(0, [play])
    before = project.path.read_bytes()
    project.close()
    again = open_project(video, tmp_path)
    again.set_drafts({0: [draft]})
    assert len(again.details(0)["drafts"]) == 1
    again.apply(0, [play])
    assert again.path.read_bytes() == before
    again.close()


def test_empty_recording_shows_no_drafts(project: LabelingProject) -> None:
    project.set_drafts({0: [Event(video="a.mp4", start_s=4.0, end_s=6.0, label="fall", score=0.9)]})
    project.apply(0, [{"op": "empty", "value": True}])
    assert (project.details(0)["drafts"], spans(project)) == ([], [["", "", ""]])
    project.apply(0, [{"op": "empty", "value": False}])
    assert len(project.details(0)["drafts"]) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"op": "put", "id": "x", "start_s": 2, "end_s": 2, "label": "fall"}, "the end, 2 s, is not after the start"),
        (
            {"op": "put", "id": "x", "start_s": "1", "end_s": 2, "label": "fall"},
            "start_s and end_s are '1' and 2",
        ),
        ({"op": "put", "id": "x", "start_s": 1, "end_s": float("nan"), "label": "fall"}, "they must be seconds"),
        ({"op": "put", "id": "x", "start_s": 1, "end_s": 2, "label": " "}, "an event needs an id, and a label or"),
        ({"op": "put", "id": "", "start_s": 1, "end_s": 2, "label": "fall"}, "an event needs an id"),
        ({"op": "put", "id": "x", "start_s": 1, "end_s": 2, "label": "\ud800"}, "label holds half a character"),
        (
            {"op": "put", "id": "x", "start_s": 1, "end_s": 2, "label": "background"},
            "background is the label of",
        ),
        ({"op": "put", "id": 5, "start_s": 1, "end_s": 2, "label": "fall"}, "id is 5; it must be text of up to 64"),
        ({"op": "empty", "value": "yes"}, "empty needs a value, true or false"),
        ({"op": "drop"}, "unknown operation 'drop'"),
    ],
)
def test_malformed_change_is_refused(project: LabelingProject, change: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidChangeError, match=message):
        project.apply(0, [put("y", 1, 2), change])
    assert project.details(0)["annotations"] == []


def test_full_disk_keeps_changes_and_writes_later(project: LabelingProject, monkeypatch: pytest.MonkeyPatch) -> None:
    project.apply(0, [put("x", 1, 2)])
    before = project.path.read_bytes()

    def fail(path: Path, data: bytes) -> None:
        raise OutputError(f"cannot write {path}: No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(project_module, "write_atomic", fail)
        with pytest.raises(ChangeNotSavedError, match=r"labels\.csv: No space left on device"):
            project.apply(0, [put("y", 3, 4)])
        assert "No space left" in project.disk_error
        assert len(project.details(0)["annotations"]) == 2
        assert project.path.read_bytes() == before
    version = project.version
    project._retry_write()
    assert (project.disk_error, project.version > version) == ("", True)
    assert sum(",fall," in row for row in written(project)) == 2


def test_file_is_open_in_one_process(project: LabelingProject, video: Path, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"labels\.csv is open in another vidgru label") as error:
        open_project(video, tmp_path)
    assert error.value.remedy == "use that window, or pass another --out"


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_name_that_is_not_unicode_is_shown_as_failed(video: Path, tmp_path: Path) -> None:
    shutil.copy(video, os.fsencode(tmp_path) + b"/\xff.mp4")
    project = LabelingProject(find_recordings([tmp_path]), tmp_path / "labels.csv")
    (item,) = project.summaries()
    assert (item["name"], item["state"]) == ("?.mp4", "failed")
    assert item["reason"] == "has a name that is not UTF-8, which annotation files cannot hold; rename it"
    json.dumps(item, ensure_ascii=False).encode()
    project.close()


def test_version_of_another_program_is_kept(project: LabelingProject) -> None:
    project.apply(0, [put("x", 1, 2)])
    project.path.write_text("video,label\nz.mp4,mine\n")
    project.apply(0, [put("y", 3, 4)])
    assert sum(",fall," in row for row in written(project)) == 2
    other = project.path.with_name("labels-other.csv")
    assert other.read_text() == "video,label\nz.mp4,mine\n"
    assert project.notes[-1] == f"another program changed {project.path}; its version is kept as {other}"
    project.apply(0, [put("z", 5, 6)])
    assert len(project.notes) == 1


def test_version_of_another_program_is_kept_once(project: LabelingProject, monkeypatch: pytest.MonkeyPatch) -> None:
    project.apply(0, [put("x", 1, 2)])
    project.path.write_text("video,label\nz.mp4,mine\n")

    def fail(path: Path, data: bytes) -> None:
        if path == project.path:
            raise OutputError(f"cannot write {path}: No space left on device")
        write_atomic(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(project_module, "write_atomic", fail)
        with pytest.raises(ChangeNotSavedError):
            project.apply(0, [put("y", 3, 4)])
        project._retry_write()
    project._retry_write()
    assert (project.disk_error, len(project.notes)) == ("", 1)
    assert [path.name for path in sorted(project.path.parent.glob("labels*"))] == ["labels-other.csv", "labels.csv"]
    assert sum(",fall," in row for row in written(project)) == 2


def test_file_that_became_unreadable_is_an_error(project: LabelingProject) -> None:
    project.apply(0, [put("x", 1, 2)])
    project.path.unlink()
    project.path.mkdir()
    with pytest.raises(ChangeNotSavedError, match=r"cannot read .*labels\.csv, which another program changed: "):
        project.apply(0, [put("y", 3, 4)])
    project._retry_write()
    assert "labels.csv" in project.disk_error
    project.path.rmdir()
    project._retry_write()
    assert project.disk_error == ""
    assert sum(",fall," in row for row in written(project)) == 2


def test_reopened_project_continues(video: Path, tmp_path: Path) -> None:
    project = open_project(video, tmp_path)
    project.apply(0, [put("x", 1, 2), {"op": "watched", "start_s": 0, "end_s": 5}])
    before = project.path.read_bytes()
    project.close()
    again = open_project(video, tmp_path)
    assert again.labels == ["fall"]
    again.apply(0, [{"op": "watched", "start_s": 0, "end_s": 5}])
    assert again.path.read_bytes() == before
    again.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["labels.csv"]
