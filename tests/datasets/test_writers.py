"""Files that `vidgru convert` writes for other tools, and that reading them back gives the same annotations."""

import csv
import json
import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from tests.datasets.formats.files import write
from tests.datasets.test_convert import rows
from tests.videos import write_video
from vidgru.config import ConvertConfig, OutputFormat
from vidgru.datasets.convert import convert
from vidgru.errors import AnnotationError

HEADER = "video,start,end,label,description,split,score\n"
# What every format holds: times in whole frames of 25 fps, overlaps of one label and of two, a recording without events
EVENTS = HEADER + (
    "a.mp4,0.0,2.48,fall,,,\na.mp4,1.0,3.0,fall,,,\na.mp4,3.0,4.0,fall,,,\na.mp4,2.0,12.0,walk & <run>,,,\n"
    "b.mp4,5.0,5.04,walk & <run>,,,\nc.mp4,,,,,,\n"
)
OUTPUTS: dict[OutputFormat, str] = {
    "csv": "x.csv", "jsonl": "x.jsonl", "activitynet": "gt.json", "vtt": "subtitles", "boris": "x.boris",
    "cvat": "tasks", "label-studio": "tasks.json", "fiftyone": "labels.json",
}  # fmt: skip


def plain(path: Path, fps: float = 25) -> list[Any]:
    """The annotations of a file, with times rounded to microseconds."""
    notes = rows(path, ConvertConfig(fps=fps))
    times = [tuple(None if time is None else round(time, 6) for time in (note.start_s, note.end_s)) for note in notes]
    return [(n.video, *time, n.label, n.description, n.split) for n, time in zip(notes, times, strict=True)]


def without_suffix(path: Path) -> list[Any]:
    """The annotations of a file, with videos named as FiftyOne does."""
    return [(video.removesuffix(".mp4"), *rest) for video, *rest in plain(path)]


@pytest.mark.parametrize("first", OUTPUTS)
def test_convert_round_trips(tmp_path: Path, first: OutputFormat) -> None:
    source = write(tmp_path, "source.csv", EVENTS)
    between = tmp_path / "between" / OUTPUTS[first]
    convert(source, between, ConvertConfig(to=first, fps=25))
    expected = without_suffix(source)
    assert without_suffix(between) == expected
    for second, name in OUTPUTS.items():
        convert(between, tmp_path / second / name, ConvertConfig(to=second, fps=25))
        assert without_suffix(tmp_path / second / name) == expected, second


def test_csv_cells_are_no_formulas_and_read_back_unchanged(tmp_path: Path) -> None:
    texts = ["=1+1", "+a", "-2+3", "@cmd", "'=1", "''-x", "'a", "-5", "a=b"]
    lines = [json.dumps({"video": f"{text}.mp4", "label": text, "description": text}) for text in texts]
    source = write(tmp_path, "source.jsonl", "\n".join(lines) + "\n")
    convert(source, tmp_path / "out.csv", ConvertConfig())
    assert plain(tmp_path / "out.csv") == plain(source)
    cells = [cell for row in csv.reader((tmp_path / "out.csv").read_text().splitlines()) for cell in row]
    assert not [cell for cell in cells if cell[:1] in tuple("=+-@\t\r") and cell != "-5"]


def test_convert_keeps_what_the_tools_can_hold(tmp_path: Path) -> None:
    text = HEADER + 'a.mp4,1.0,2.0,fall,"He falls, slowly",val,0.9\nb.mp4,,,walk,,val,\n'
    source = write(tmp_path, "source.csv", text)
    convert(source, tmp_path / "x.boris", ConvertConfig())
    assert plain(tmp_path / "x.boris") == [("a.mp4", 1.0, 2.0, "fall", "He falls, slowly", "train")]
    messages = convert(source, tmp_path / "tasks.json", ConvertConfig(to="label-studio", fps=25))
    assert '<Choices name="choices" toName="video"><Choice value="walk"/></Choices><Video' in messages[-1]
    assert plain(tmp_path / "tasks.json") == [
        ("a.mp4", 1.0, 2.0, "fall", None, "train"),
        ("b.mp4", None, None, "walk", None, "train"),
    ]
    convert(source, tmp_path / "tasks", ConvertConfig(to="cvat", fps=25))
    assert plain(tmp_path / "tasks") == [("a.mp4", 1.0, 2.0, "fall", None, "val")]


def test_convert_predictions_for_correction(tmp_path: Path) -> None:
    event = {"video": "cam 1/a#1.mp4", "start": 1.25, "end": 2.5, "label": "fall", "score": 0.75}
    source = write(tmp_path, "events.jsonl", json.dumps(event) + "\n")
    messages = convert(source, tmp_path / "tasks.json", ConvertConfig(to="label-studio"))
    assert messages[1:] == [
        "columns that Label Studio does not have, skipped: score",
        'labelling configuration: <View><TimelineLabels name="timelineLabels" toName="video"><Label value="fall"/>'
        '</TimelineLabels><Video name="video" value="$video" frameRate="$fps"/></View>',
    ]
    (task,) = json.loads((tmp_path / "tasks.json").read_text())
    assert task["data"] == {"video": "cam%201/a%231.mp4", "fps": 24.0}
    assert task["annotations"][0]["result"][0]["value"] == {
        "ranges": [{"start": 31, "end": 60}],
        "timelinelabels": ["fall"],
    }
    assert plain(tmp_path / "tasks.json", fps=0) == [("cam 1/a#1.mp4", 1.25, 2.5, "fall", None, "train")]


def test_convert_fiftyone(tmp_path: Path) -> None:
    text = HEADER + "cam1/a.mp4,1.5,3.0,walk,slowly,train,0.5\ncam1/a.mp4,4,5,fall,,,\nc,,,,,,\n"
    messages = convert(write(tmp_path, "x.csv", text), tmp_path / "labels.json", ConvertConfig(to="fiftyone"))
    assert messages[1:] == ["splits skipped: FiftyOne has none"]
    assert json.loads((tmp_path / "labels.json").read_text()) == {
        "classes": ["fall", "walk"],
        "labels": {
            "cam1/a": [
                {"label": 1, "timestamps": [1.5, 3.0], "confidence": 0.5, "attributes": {"description": "slowly"}},
                {"label": 0, "timestamps": [4.0, 5.0]},
            ],
            "c": [],
        },
    }
    two = write(tmp_path, "y.csv", HEADER + "a.mp4,1,2,x,,,\na.avi,1,2,x,,,\n")
    with pytest.raises(AnnotationError, match=r"two videos are called a, and FiftyOne ignores suffixes\n  rename one"):
        convert(two, tmp_path / "labels.json", ConvertConfig(to="fiftyone"))


def test_convert_boris_project(tmp_path: Path) -> None:
    convert(write(tmp_path, "source.csv", EVENTS), tmp_path / "x.boris", ConvertConfig())
    project = json.loads((tmp_path / "x.boris").read_text())
    assert [behavior["code"] for behavior in project["behaviors_conf"].values()] == ["fall", "walk & <run>"]
    assert [subject["name"] for subject in project["subjects_conf"].values()] == ["2"]
    assert project["observations"]["a.mp4"]["file"]["1"] == ["a.mp4"]
    assert project["observations"]["a.mp4"]["events"][:4] == [
        [0.0, "", "fall", "", ""],
        [1.0, "2", "fall", "", ""],  # overlaps the first
        [2.0, "", "walk & <run>", "", ""],
        [2.48, "", "fall", "", ""],
    ]
    assert project["observations"]["c.mp4"]["events"] == []


@pytest.mark.parametrize("to", ["boris", "cvat", "fiftyone", "label-studio"])
def test_convert_never_makes_rows_event_free(tmp_path: Path, to: OutputFormat) -> None:
    text = HEADER + "a.mp4,1.0,2.0,fall,,,\nb.mp4,3,4,,A man walks.,,\n"
    out = tmp_path / ("out" if to == "cvat" else "out.json")
    messages = convert(write(tmp_path, "x.csv", text), out, ConvertConfig(to=to, fps=25))
    assert any(message.startswith("1 row without a label skipped: ") for message in messages)
    written = "".join(path.read_text() for path in ([out] if out.is_file() else out.iterdir()))
    assert "a.mp4" in written or '"a"' in written
    assert "b.mp4" not in written
    assert '"b"' not in written


@pytest.mark.parametrize("to", ["boris", "cvat", "fiftyone", "label-studio"])
def test_convert_reports_what_tools_cannot_hold(tmp_path: Path, to: OutputFormat) -> None:
    config, out = ConvertConfig(to=to, fps=25), tmp_path / "out.xml"
    text_only = write(tmp_path, "x.csv", HEADER + "b.mp4,3,4,,A man walks.,,\n")
    with pytest.raises(
        AnnotationError, match=r"x.csv: no row has a label, which .* requires\n  write .csv, .jsonl or .v"
    ):
        convert(text_only, out, config)
    if to != "label-studio":
        whole = write(tmp_path, "y.csv", HEADER + "b.mp4,,,walk,,,\n")
        with pytest.raises(
            AnnotationError, match=r"y.csv: no row has times, which .* requires\n  write .csv or .jsonl"
        ):
            convert(whole, out, config)


def test_convert_cvat_needs_a_frame_rate(tmp_path: Path) -> None:
    source = write(tmp_path, "x.csv", HEADER + "a.mp4,1.0,2.0,fall,,,\n")
    with pytest.raises(AnnotationError, match=r"x.csv: CVAT counts frames, and a.mp4 is not .*\n  give .* --fps 25"):
        convert(source, tmp_path / "x.xml", ConvertConfig())


def test_convert_cvat_counts_the_frames_of_the_video(tmp_path: Path) -> None:
    stamps = [*range(10), *range(20, 50, 3)]  # 10 frames at 10 fps, then 10 at a third of it
    write_video(tmp_path / "a.mp4", 20, tick=Fraction(1, 10), ticks=stamps)
    text = HEADER + "a.mp4,0.2,0.5,walk,,,\na.mp4,2.0,3.2,fall,,,\na.mp4,2.9,5.0,run,,,\n"
    convert(write(tmp_path, "x.csv", text), tmp_path / "x.xml", ConvertConfig())
    boxes = re.findall(r'box frame="(\d+)" keyframe="1" outside="(\d)"', (tmp_path / "x.xml").read_text())
    assert boxes == [("2", "0"), ("5", "1"), ("10", "0"), ("14", "1"), ("13", "0"), ("19", "0")]
    convert(tmp_path / "x.xml", tmp_path / "back.csv", ConvertConfig(fps=10))
    assert plain(tmp_path / "back.csv") == [
        ("a.mp4", 0.2, 0.5, "walk", None, "train"),
        ("a.mp4", 2.0, 3.2, "fall", None, "train"),
        ("a.mp4", 2.9, pytest.approx(5.0, abs=0.3), "run", None, "train"),
    ]


def test_convert_covers_whole_videos_of_known_duration(tmp_path: Path) -> None:
    source = write(
        tmp_path,
        "gt.json",
        {"database": {"a.mp4": {"subset": "training", "duration": 8.0, "annotations": [{"label": "walk"}]}}},
    )
    convert(source, tmp_path / "x.boris", ConvertConfig())
    assert plain(tmp_path / "x.boris") == [("a.mp4", 0.0, 8.0, "walk", None, "train")]
