"""Annotation files of labelling projects: what is written, and what is read back."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.videos import write_video
from vidgru.datasets.annotations import load_dataset
from vidgru.datasets.dataset import event_timelines
from vidgru.errors import AnnotationError, OutputError
from vidgru.labeling.intervals import TimeRange, merge_ranges, overlap_s, subtract_ranges, total_s
from vidgru.labeling.label_file import LabelFile, LabelledEvent, RecordingLabels, open_label_file
from vidgru.labeling.suggest import LabelledTime
from vidgru.labeling.suggest_command import labelled_time
from vidgru.sources import find_recordings

HEADER = "video,start,end,label,description,split"
DURATION_S = 10.0


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dataset") / "videos"
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        write_video(folder / name, frames=2)
    return folder


def open_file(videos: Path, path: Path) -> LabelFile:
    return open_label_file(path, find_recordings([videos]), [DURATION_S] * 3)


def rows(labels: RecordingLabels) -> list[tuple[float | None, float | None, str | None]]:
    notes = [row.annotation for row in labels.rows("a.mp4", DURATION_S)]
    return [(note.start_s, note.end_s, note.label) for note in notes]


def test_ranges_merge_subtract_and_overlap() -> None:
    assert merge_ranges([(4, 5), (0, 1), (1, 2), (2.4, 3)]) == [(0, 2), (2.4, 3), (4, 5)]
    assert merge_ranges([(0, 2), (2.4, 3), (4, 5)], 0.5) == [(0, 3), (4, 5)]
    assert subtract_ranges([(0, 5), (6, 8)], [(1, 2), (4, 7)]) == [(0, 1), (2, 4), (7, 8)]
    assert subtract_ranges([(1, 2)], [(0, 3)]) == []
    assert total_s([(0, 2), (1, 3)]) == 3
    assert overlap_s([(0, 2), (4, 6)], 1, 5) == 2


def test_rows_of_a_recording_watched_in_part() -> None:
    labels = RecordingLabels(events={"x": LabelledEvent(start_s=2, end_s=3, label="fall")}, watched=[(1, 5)])
    assert rows(labels) == [(2, 3, "fall"), (1, 2, "background"), (3, 5, "background")]


def test_rows_of_an_event_hold_time_beside_it() -> None:
    """Without a background row all of the recording would count as watched."""
    labels = RecordingLabels(events={"x": LabelledEvent(start_s=2, end_s=3, label="fall")})
    assert rows(labels) == [(2, 3, "fall"), (1.5, 2, "background"), (3, 3.5, "background")]


def test_rows_of_a_recording_watched_wholly() -> None:
    labels = RecordingLabels(events={"x": LabelledEvent(start_s=2, end_s=3, label="fall")}, watched=[(0.3, 9.8)])
    assert rows(labels) == [(2, 3, "fall")]
    labels.events.clear()
    assert rows(labels) == [(None, None, None)]
    assert rows(RecordingLabels(is_empty=True)) == [(None, None, None)]
    assert rows(RecordingLabels(rejected=[(1, 4, "fall")])) == [], "nobody may have seen all of it"
    assert rows(RecordingLabels()) == []


def test_file_is_read_back_as_it_was_written(videos: Path, tmp_path: Path) -> None:
    first = open_file(videos, tmp_path / "labels.csv")
    a, b, _ = first.labels
    a.events["x"] = LabelledEvent(start_s=2.0, end_s=3.0, label="fall", description="down, slowly")
    a.events["y"] = LabelledEvent(start_s=2.5, end_s=3.5, label="", description="a cat")
    a.watched = [(1.0, 5.0)]
    b.is_empty = True
    content = first.content([DURATION_S] * 3)
    first.path.write_bytes(content)
    again = open_file(videos, first.path)
    events = sorted(again.labels[0].events.values(), key=lambda event: event.start_s)
    assert [(e.start_s, e.end_s, e.label, e.description) for e in events] == [
        (2, 3, "fall", "down, slowly"),
        (2.5, 3.5, "", "a cat"),
    ]
    assert again.labels[0].watched_with_events(DURATION_S) == [(1, 5)]
    assert [labels.is_empty for labels in again.labels] == [False, True, False]
    assert again.content([DURATION_S] * 3) == content
    timeline = next(line for line in event_timelines(load_dataset(first.path)) if line.video.endswith("a.mp4"))
    assert timeline.unwatched == ((0, 1), (5, float("inf")))


def test_complete_annotations_stay_complete(videos: Path, tmp_path: Path) -> None:
    path = videos.parent / "complete.csv"
    text = f"{HEADER},group\na.mp4,2.0,3.0,fall,,test,cam1\nb.mp4,,,,,,cam2\ngone.mp4,1.0,2.0,background,,,cam3\n"
    path.write_text(text)
    file = open_file(videos, path)
    assert file.labels[0].watched == [(0, DURATION_S)]
    assert file.labels[1].is_empty
    order = "gone.mp4,1.0,2.0,background,,,cam3\na.mp4,2.0,3.0,fall,,test,cam1\nb.mp4,,,,,,cam2\n"
    assert file.content([DURATION_S] * 3).decode() == f"{HEADER},group\n{order}"
    added = LabelledEvent(start_s=5.0, end_s=6.0, label="sit")
    file.labels[0] = replace(file.labels[0], events={**file.labels[0].events, "new": added})
    assert "a.mp4,5.0,6.0,sit,,test,cam1\n" in file.content([DURATION_S] * 3).decode()
    assert "videos/c.mp4" in file.names  # as the new rows of this file will be found


@pytest.mark.parametrize(
    ("text", "known"),
    [
        ("a.mp4,2,3,fall,\na.mp4,1,2,background,\na.mp4,3,4,background,\na.mp4,7,8,,a cat\n", [(1, 4)]),
        ("a.mp4,1,4,background,an empty room\na.mp4,3,6,,a cat\n", [(1, 4)]),
        ("a.mp4,2,3,fall,\na.mp4,7,8,,a cat\n", [(0, DURATION_S)]),
        ("a.mp4,2,3,fall,\na.mp4,1,2,background,\na.mp4,3,4,background,\na.mp4,,,,\n", [(1, 4)]),
        ("a.mp4,,,,\na.mp4,7,8,,a cat\n", [(0, DURATION_S)]),
        ("a.mp4,7,8,,a cat\n", []),
        ("a.mp4,,,background,an empty room\n", [(0, DURATION_S)]),
        ("a.mp4,,,background,an empty room\na.mp4,7,8,,a cat\n", [(0, DURATION_S)]),
        ("a.mp4,,,background,an empty room\na.mp4,2,3,fall,\n", [(0, DURATION_S)]),
        ("a.mp4,,,,\na.mp4,,,,an empty room\n", [(0, DURATION_S)]),
        ("a.mp4,,,,a room\n", []),
    ],
)
def test_known_time_agrees_with_training_and_suggestions(videos: Path, text: str, known: list[TimeRange]) -> None:
    path = videos.parent / "known.csv"
    path.write_text(f"video,start,end,label,description\n{text}b.mp4,1,2,fall,\n")
    file = open_file(videos, path)
    assert file.labels[0].watched_with_events(DURATION_S) == known
    for _ in range(2):
        dataset = load_dataset(path)
        suggested = labelled_time(dataset).get("a.mp4", LabelledTime())
        assert merge_ranges((start_s, min(end_s, DURATION_S)) for start_s, end_s in suggested.known) == known
        timelines = [line for line in event_timelines(dataset) if line.video == "a.mp4"]
        trained = [subtract_ranges([(0, DURATION_S)], line.unwatched) for line in timelines]
        assert trained == ([known] if known else [])
        path.write_bytes(file.content([DURATION_S] * 3))


def test_background_of_a_yaml_leaves_annotations_complete(videos: Path) -> None:
    (videos.parent / "set.csv").write_text(f"{HEADER}\na.mp4,2,3,fall,,\na.mp4,3,5,idle,,\n")
    path = videos.parent / "set.yaml"
    path.write_text("annotations: set.csv\nbackground: idle\n")
    (timeline,) = event_timelines(load_dataset(path))
    file = open_file(videos, path)
    assert (timeline.unwatched, file.labels[0].watched) == ((), [(0, DURATION_S)])
    file.path.unlink(missing_ok=True)


def test_labels_of_whole_clips_are_kept(videos: Path) -> None:
    path = videos.parent / "clips.csv"
    path.write_text(f"{HEADER}\na.mp4,,,fall,,\n")
    file = open_file(videos, path)
    assert file.content([DURATION_S] * 3).decode() == f"{HEADER}\na.mp4,,,fall,,\n"
    assert file.notes == ["1 row without times kept, but not shown: the page shows events with times"]


def test_description_of_an_empty_recording_is_kept(videos: Path) -> None:
    path = videos.parent / "empty.csv"
    row = "a.mp4,,,{},an empty room,\n"
    path.write_text(f"{HEADER}\n{row.format('background')}")
    file = open_file(videos, path)
    assert file.labels[0].is_empty
    assert file.content([DURATION_S] * 3).decode() == f"{HEADER}\n{row.format('background')}"
    events = {"x": LabelledEvent(start_s=2.0, end_s=3.0, label="fall")}
    file.labels[0] = replace(file.labels[0], is_empty=False, watched=[(0.0, DURATION_S)], events=events)
    assert file.content([DURATION_S] * 3).decode() == f"{HEADER}\n{row.format('')}a.mp4,2.0,3.0,fall,,\n"


def test_file_of_another_tool_is_continued_beside_it(videos: Path) -> None:
    path = videos.parent / "a.srt"
    path.write_text("1\n00:00:01,000 --> 00:00:02,000\nfall\n")
    file = open_file(videos, path)
    assert file.path == videos.parent / "labels.csv"
    assert file.notes[0] == f"{path} is left as it is; labels are written to {file.path}"
    assert file.content([DURATION_S] * 3).decode() == f"{HEADER}\nvideos/a.mp4,1.0,2.0,fall,,\n"
    file.path.write_text("")
    with pytest.raises(OutputError, match=r"a\.srt is read, but not written, and .*labels\.csv exists") as error:
        open_file(videos, path)
    assert error.value.remedy == f"pass --out {file.path} to continue that, or move it away"
    file.path.unlink()


def test_jsonl_is_continued_as_jsonl(videos: Path, tmp_path: Path) -> None:
    path = tmp_path / "labels.jsonl"
    path.write_text(f'{{"video": "{videos}/a.mp4", "start": 1.0, "end": 2.0, "label": "fall"}}\n')
    assert open_file(videos, path).content([DURATION_S] * 3) == path.read_bytes()


def test_broken_file_is_refused(videos: Path, tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text(f"{HEADER}\na.mp4,3,2,fall,,\n")
    with pytest.raises(AnnotationError, match=r"labels\.csv, line 2: end 2 is not after start 3"):
        open_file(videos, tmp_path / "labels.csv")
