import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from tests.datasets.annotation_files import HEADER, csv_set, write_set
from vidgru.datasets.annotations import load_dataset
from vidgru.datasets.dataset import Clip, Dataset, EventTimeline, clips, described_segments, event_timelines
from vidgru.errors import AnnotationError, SettingsError
from vidgru.types import Annotation

EXAMPLE = f"""{HEADER}
a.mp4,3.4,6.0,fall,"A man falls from a chair",train
b.mp4,,,walk,,val
c.mp4,,,,,test
d.mp4,,,,"Two people meet",train
"""


def clip(video: str, start_s: float | None, end_s: float | None, labels: set[int], split: str = "train") -> Clip:
    return Clip(video=video, start_s=start_s, end_s=end_s, labels=frozenset(labels), split=split)


def test_load_dataset_row_kinds(tmp_path: Path) -> None:
    dataset = load_dataset(write_set(tmp_path, EXAMPLE))
    assert dataset.annotations == (
        Annotation(
            video="a.mp4", start_s=3.4, end_s=6.0, label="fall", description="A man falls from a chair", split="train"
        ),
        Annotation(video="b.mp4", label="walk", split="val"),
        Annotation(video="c.mp4", split="test"),
        Annotation(video="d.mp4", description="Two people meet", split="train"),
    )
    assert dataset.labels == ("fall", "walk")
    assert dataset.splits == ("train", "val", "test")
    assert dataset.recordings["a.mp4"].path == tmp_path / "videos" / "a.mp4"
    assert clips(dataset) == [
        clip("a.mp4", 3.4, 6.0, {0}),
        clip("b.mp4", None, None, {1}, "val"),
        clip("c.mp4", None, None, set(), "test"),
    ]
    assert clips(dataset, "val") == [clip("b.mp4", None, None, {1}, "val")]
    assert dataset.warnings == ()
    assert [row.where for row in dataset.rows] == ["line 2", "line 3", "line 4", "line 5"]


def test_jsonl_equals_csv(tmp_path: Path) -> None:
    from_csv = load_dataset(write_set(tmp_path / "one", EXAMPLE))
    lines = [
        {
            "video": "a.mp4",
            "start": 3.4,
            "end": 6.0,
            "label": "fall",
            "description": "A man falls from a chair",
            "split": "train",
        },
        {"video": "b.mp4", "start": None, "label": "walk", "split": "val"},
        {"video": "c.mp4", "split": "test"},
        {"video": "d.mp4", "description": "Two people meet", "split": "train"},
    ]
    text = "\n\n".join(json.dumps(line) for line in lines)
    from_json = load_dataset(write_set(tmp_path / "two", text, name="annotations.jsonl"))
    assert from_json.annotations == from_csv.annotations
    assert [row.where for row in from_json.rows] == ["line 1", "line 3", "line 5", "line 7"]


def test_edited_events_file_is_an_annotation_file(tmp_path: Path) -> None:
    text = "video,start,end,label,score,description,start_time\na.mp4,1.25,2.5,fall,0.93,,2024-05-01T10:00:00+00:00\n"
    dataset = load_dataset(write_set(tmp_path, text))
    assert dataset.annotations == (Annotation(video="a.mp4", start_s=1.25, end_s=2.5, label="fall"),)
    assert dataset.rows[0].extra["score"] == "0.93"
    event = {"video": "a.mp4", "start": 1.25, "end": 2.5, "label": "fall", "score": 0.93, "objects": [1, 2]}
    (tmp_path / "events.jsonl").write_text(json.dumps(event))
    assert load_dataset(tmp_path / "events.jsonl").annotations == dataset.annotations


def test_template_descriptions_are_not_read(tmp_path: Path) -> None:
    header = "video,start,end,label,description,description_score,description_source,score"
    rows = (
        'a.mp4,1,2,fall,"person: fall, 00:01-00:02",0.31,template,0.93',
        "b.mp4,1,2,fall,A man falls,0.83,model,0.93",
        "c.mp4,1,2,fall,He falls,,,",
        "d.mp4,1,2,fall,,0.2, Template ,0.5",
    )
    dataset = csv_set(tmp_path, *rows, header=header)
    assert [note.description for note in dataset.annotations] == [None, "A man falls", "He falls", None]
    assert {(note.start_s, note.end_s, note.label) for note in dataset.annotations} == {(1.0, 2.0, "fall")}
    assert [dict(row.extra) for row in dataset.rows[:2]] == [
        {"score": "0.93"},
        {"description_score": "0.83", "description_source": "model", "score": "0.93"},
    ]
    assert dataset.notes == (
        "2 template descriptions of vidgru predict skipped (first: line 2); "
        "if you wrote your own, delete the word template",
    )


@pytest.mark.parametrize("where", ["folder", "file", "yaml", "yaml elsewhere"])
def test_load_dataset_accepts_yaml_file_and_folder(tmp_path: Path, where: str) -> None:
    folder = write_set(tmp_path / "set", EXAMPLE)
    path = {"folder": folder, "file": folder / "annotations.csv", "yaml": folder / "set.yaml"}.get(where)
    (folder / "set.yaml").write_text("videos: videos\nannotations: annotations.csv\n")
    if path is None:
        path = tmp_path / "set.yml"
        path.write_text("path: set\nformat: native\n")
    assert load_dataset(str(path)).recordings["b.mp4"].path.samefile(folder / "videos" / "b.mp4")


def test_videos_below_annotation_file_folder(tmp_path: Path) -> None:
    write_set(tmp_path, f"{HEADER}\nvideos/a.mp4,,,fall,,\na.mp4,,,walk,,\n./a.mp4,,,run,,\nvideos\\a.mp4,,,sit,,\n")
    dataset = load_dataset(tmp_path)
    assert list(dataset.recordings) == ["a.mp4"]
    assert clips(dataset) == [clip("a.mp4", None, None, {0, 1, 2, 3})]
    write_set(tmp_path / "flat", f"{HEADER}\nx.mp4,,,fall,,\n", videos="")
    (tmp_path / "flat" / "x.mp4").touch()
    assert list(load_dataset(tmp_path / "flat").recordings) == ["x.mp4"]


def test_several_files_use_videos_of_their_own_folder(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "1.mp4").touch()
        (tmp_path / folder / "labels.csv").write_text(f"video,label\n1.mp4,{folder}\n")
    (tmp_path / "set.yaml").write_text("annotations: [a/labels.csv, b/labels.csv]\n")
    dataset = load_dataset(tmp_path / "set.yaml")
    assert [(note.video, note.label) for note in dataset.annotations] == [("a/1.mp4", "a"), ("b/1.mp4", "b")]
    (tmp_path / "1.mp4").touch()  # the dataset's own folder goes before them
    assert list(load_dataset(tmp_path / "set.yaml").recordings) == ["1.mp4"]


def test_video_outside_roots_has_absolute_name(tmp_path: Path) -> None:
    outside = tmp_path / "outside.mp4"
    outside.touch()
    dataset = load_dataset(write_set(tmp_path / "set", f"{HEADER}\n{outside},,,fall,,\n../../outside.mp4,,,walk,,\n"))
    assert list(dataset.recordings) == [outside.as_posix().lstrip("/")]


def test_rows_with_equal_interval_are_one_clip(tmp_path: Path) -> None:
    dataset = csv_set(
        tmp_path, "a.mp4,1,2,fall,,", "a.mp4,1.0,00:00:02,  shout ,,", "a.mp4,1,3,walk,,", "a.mp4,1,2,,He falls,"
    )
    assert clips(dataset) == [clip("a.mp4", 1.0, 2.0, {0, 1}), clip("a.mp4", 1.0, 3.0, {2})]


def test_background_label_is_no_event(tmp_path: Path) -> None:
    write_set(tmp_path, f"{HEADER}\na.mp4,,,nothing,,\nb.mp4,,,fall,,\n")
    (tmp_path / "set.yaml").write_text("background: nothing\n")
    dataset = load_dataset(tmp_path / "set.yaml")
    assert dataset.labels == ("fall",)
    assert clips(dataset) == [clip("a.mp4", None, None, set()), clip("b.mp4", None, None, {0})]
    assert load_dataset(tmp_path).labels == ("fall", "nothing")


def test_names_set_label_order(tmp_path: Path) -> None:
    write_set(tmp_path, f"{HEADER}\na.mp4,,,walk,,\nb.mp4,,,fall,,\n")
    for names in ("[walk, jump, fall]", "{0: walk, 1: jump, 2: fall}"):
        (tmp_path / "set.yaml").write_text(f"names: {names}\n")
        dataset = load_dataset(tmp_path / "set.yaml")
        assert dataset.labels == ("walk", "jump", "fall")
        assert [sorted(c.labels) for c in clips(dataset)] == [[0], [2]]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0), ("-0", 0.0), ("83.5", 83.5), (".5", 0.5), ("1e1", 10.0), ("0:01:23.5", 83.5), ("01:02:03", 3723.0),
        ("1:23", 83.0), ("00:00:03,400", 3.4), ("123:00:00", 442800.0), ("90:15", 5415.0),
    ],
)  # fmt: skip
def test_times_are_parsed(tmp_path: Path, text: str, seconds: float) -> None:
    dataset = csv_set(tmp_path, f'a.mp4,"{text}",999999,fall,,')
    assert dataset.annotations[0].start_s == pytest.approx(seconds, abs=1e-12)
    assert str(dataset.annotations[0].start_s) != "-0.0"


@pytest.mark.parametrize("text", ["1_0", "nan", "inf", "x", "0:60:00", "1:2:3:4", "٣", "12:75", "1,5"])
def test_invalid_times_are_errors(tmp_path: Path, text: str) -> None:
    with pytest.raises(AnnotationError, match=rf"line 2: start {re.escape(repr(text))} is not a time\n.*HH:MM:SS"):
        csv_set(tmp_path, f'a.mp4,"{text}",999999,fall,,')


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("a.mp4,5,,fall,,", "line 2: start without end\n  give both"),
        ("a.mp4,,5,fall,,", "line 2: end without start\n"),
        ("a.mp4,5,5,fall,,", "line 2: end 5 is not after start 5\n"),
        ("a.mp4,-1,5,fall,,", "line 2: start -1 is before the recording starts\n"),
        (",1,5,fall,,", "line 2: no video\n"),
        ("a.mp4,1,5,fall,a man, falling,train", "line 2: 7 cells, but the header has 6\n.*double quotes"),
        ('a.mp4,1,5,fall,"a man,train', "line 2: not readable as CSV: .*\n.*double quote"),
        ('a.mp4,1,5,"[""a"", ""b""]",,', r'line 2: label is \["a", "b"\]\n  write one row per label'),
    ],
)
def test_bad_rows(tmp_path: Path, row: str, message: str) -> None:
    with pytest.raises(AnnotationError, match=message):
        csv_set(tmp_path, row)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 1: not JSON: .*\n  each line must be one JSON object"),
        ("[1]", "line 1: not a JSON object\n"),
        ('{"label": "x"}', "line 1: no video\n  name a file"),
        ('{"video": "a.mp4", "label": ["x", "y"]}', r'line 1: label is \["x", "y"\]\n'),
        ('{"video": "a.mp4", "start": NaN, "end": 2, "label": "x"}', "line 1: start 'NaN' is not a time"),
        ('{"video": "a.mp4", "start": true, "end": 2, "label": "x"}', "line 1: start 'true' is not a time"),
        (r'{"video": "a.mp4", "label": "\ud83d"}', "line 1: half a character"),
        ('{"video": "a.mp4", "labels": "x"}', "no row has a label or a description; the keys are labels, video\n"),
    ],
)
def test_bad_json_rows(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(AnnotationError, match=message):
        load_dataset(write_set(tmp_path, line, name="annotations.jsonl"))


def test_errors_list_all_bad_lines(tmp_path: Path) -> None:
    bad = [f"a.mp4,{n},1,fall,," for n in range(2, 14)]
    with pytest.raises(AnnotationError) as caught:
        csv_set(tmp_path, "a.mp4,x,1,fall,,", "a.mp4,0,1,fall,,", *bad)
    lines = str(caught.value).splitlines()
    assert lines[0].endswith("annotations.csv: 13 bad entries")
    assert lines[1] == "  line 2: start 'x' is not a time"
    assert lines[2] == "  line 4: end 1 is not after start 2"
    assert lines[11] == "  and 3 more"
    assert len(lines) == 14  # and a remedy for each of the two kinds


def test_line_numbers_with_quoted_line_breaks(tmp_path: Path) -> None:
    with pytest.raises(AnnotationError, match="line 5: end without start"):
        csv_set(tmp_path, 'a.mp4,,,fall,"one\ntwo",', "", "a.mp4,,3,fall,,")


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("file,label", "line 1: missing column video; the header is file,label\n  the columns are video,start"),
        ("video,start,end", "line 1: missing column label"),
        ("video,start,label", "line 1: missing column end"),
        ("video,end,label", "line 1: missing column start"),
        ("video,label,Label ", "line 1: column 'label' occurs twice\n"),
    ],
)
def test_bad_headers(tmp_path: Path, header: str, message: str) -> None:
    with pytest.raises(AnnotationError, match=message):
        csv_set(tmp_path, "a.mp4,1,2", header=header)


def test_spreadsheet_headers(tmp_path: Path) -> None:
    text = "\ufeffVideo;Start;End;Label;Note\r\na.mp4;1;2;fall;x\r\nb.mp4;;;\r\n"
    dataset = load_dataset(write_set(tmp_path, text))
    assert dataset.annotations == (
        Annotation(video="a.mp4", start_s=1.0, end_s=2.0, label="fall"),
        Annotation(video="b.mp4"),
    )


@pytest.mark.parametrize(
    "columns",
    [
        "start_time,end_time", "t_start,t_end", "Start (s),Stop (s)", "begin,finish", "startSec,endSec", "TMIN,TMAX",
        "time_start,time_end", "st_time,ed_time", "from,to", "Begin Time - ss.msec,End Time - ss.msec", "in,out",
    ],
)  # fmt: skip
def test_time_columns_of_other_names(tmp_path: Path, columns: str) -> None:
    dataset = csv_set(tmp_path, "a.mp4,walk,0.5,2", "b.mp4,,,", header=f"video,label,{columns}")
    walk = Annotation(video="a.mp4", start_s=0.5, end_s=2.0, label="walk")
    assert dataset.annotations[0] == walk
    assert f"times are read from the columns {columns} (seconds)" in dataset.notes
    names = columns.split(",")
    line = json.dumps({"video": "a.mp4", "label": "walk", names[0]: 0.5, names[1]: 2})
    assert load_dataset(write_set(tmp_path, line, name="x.jsonl") / "x.jsonl").annotations == (walk,)


def test_onset_and_duration(tmp_path: Path) -> None:
    dataset = load_dataset(write_set(tmp_path, "video;label;onset;duration\na.mp4;walk;0,5;1,25\n"))
    assert (dataset.annotations[0].start_s, dataset.annotations[0].end_s) == (0.5, 1.75)


def test_times_in_seconds_win_over_frames(tmp_path: Path) -> None:
    header = "video,label,start_frame,end_frame,start_time,end_time"
    assert csv_set(tmp_path, "a.mp4,walk,25,50,1.5,2", header=header).annotations[0].start_s == 1.5
    header = "video,label,start,end,start_time"  # event files of vidgru have one
    assert csv_set(tmp_path, "a.mp4,walk,2,3,2024-05-01T10:00:00", header=header).annotations[0].start_s == 2


def test_frame_columns_need_a_rate(tmp_path: Path) -> None:
    write_set(tmp_path, "video,label,start_frame,end_frame\na.mp4,walk,25,50\n", name="x.csv")
    with pytest.raises(
        AnnotationError, match=r"line 2: counts frames, and their rate is unknown: a.mp4 cannot be read\n.*fps: 25"
    ):
        load_dataset(tmp_path / "x.csv")
    (tmp_path / "set.yaml").write_text("annotations: x.csv\nfps: 50\n")
    dataset = load_dataset(tmp_path / "set.yaml")
    assert (dataset.annotations[0].start_s, dataset.annotations[0].end_s) == (0.5, 1.0)
    for end in ("x", "4.5"):
        (tmp_path / "x.csv").write_text(f"video,label,start_frame,end_frame\na.mp4,walk,2,{end}\n")
        with pytest.raises(AnnotationError, match=f"'2' and '{end}' are not frame numbers\n  frames are whole numbers"):
            load_dataset(tmp_path / "set.yaml")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            "tStart_us,tEnd_us",
            r"line 1: times in the columns tStart_us,tEnd_us are not in seconds.*\n  write seconds",
        ),
        ("event_start,event_end,clip_start,clip_end", r"line 1: it is not clear which of the columns event_start,"),
        ("start_time", r"column 'start_time' looks like a time, but is no pair of start and end .*\n  give both as"),
    ],
)
def test_unclear_time_columns(tmp_path: Path, columns: str, message: str) -> None:
    cells = ",".join(str(n) for n in range(1, 2 + columns.count(",")))
    with pytest.raises(AnnotationError, match=message):
        csv_set(tmp_path, f"a.mp4,walk,{cells}", header=f"video,label,{columns}")


def test_warning_for_columns_that_may_be_times(tmp_path: Path) -> None:
    for columns, row, name in (
        ("von,bis", "1,2.5", "von,bis"),
        ("timestamp,who", "3.5,Ann", "timestamp"),
        ("time_ms,duration_ms", "1500,200", "time_ms"),
        ("when,who", "0:05-0:07,Ann", "when"),
        ("when,who", "[5 to 7.5],Ann", "when"),
    ):
        rows = (f"a.mp4,walk,{row}", f"b.mp4,walk,{row}", f"c.mp4,sit,{','.join('?' for _ in row.split(','))}")
        dataset = csv_set(tmp_path, *rows, header=f"video,label,{columns}")
        message = (
            f"no times are read, so every row is about a whole clip; if {name} gives times, write them as start,end"
        )
        assert dataset.warnings[0] == message
    for columns, row in (
        ("start_time,age", "2024-05-01,12-9"),
        ("subject,age", "3,40"),
        ("frame_width,size_px", "3,4"),
    ):
        clips = csv_set(tmp_path, f"a.mp4,walk,{row}", f"b.mp4,walk,{row}", header=f"video,label,{columns}")
        assert clips.warnings == ()


def test_timed_rows_without_a_label(tmp_path: Path) -> None:
    dataset = csv_set(tmp_path, "a.mp4,1,2,walk,,", "b.mp4,1,2,,,", "c.mp4,,,,,", "d.mp4,1,2,,A man walks,")
    assert dataset.warnings == (
        "1 row (first: line 3) with times but no label or description, taken for intervals without events",
    )


@pytest.mark.parametrize(
    ("key", "value"),
    [("segment", [1.5, 3]), ("spans", {"begin": 1.5, "stop": 3}), ("at", [{"start": 1.5, "end": 3}])],
)
def test_jsonl_nested_times_are_errors(tmp_path: Path, key: str, value: object) -> None:
    line = json.dumps({"video": "a.mp4", "label": "walk", key: value})
    message = rf'line 1: {key} {re.escape(json.dumps(value))} is not read\n  write times as {{"start"'
    with pytest.raises(AnnotationError, match=message):
        load_dataset(write_set(tmp_path, line, name="x.jsonl") / "x.jsonl")


def test_duration_without_start_is_that_of_the_video(tmp_path: Path) -> None:
    dataset = csv_set(tmp_path, "a.mp4,walk,80", "b.mp4,sit,0:12", header="video,label,duration")
    assert dataset.durations == {"a.mp4": 80.0, "b.mp4": 12.0}
    assert [a.start_s for a in dataset.annotations] == [None, None]
    timed = csv_set(tmp_path, "a.mp4,walk,1,2,60", header="video,label,start,duration,video_duration")
    assert (timed.durations, timed.annotations[0].end_s) == ({"a.mp4": 60.0}, 3.0)


def test_labels_in_full_width_letters_are_near(tmp_path: Path) -> None:
    dataset = csv_set(tmp_path, "a.mp4,1,2,\uff57alk,,", "b.mp4,1,2,walk,,")
    assert dataset.warnings == ("labels that differ in spelling only: 'walk', '\uff57alk'",)


def test_timecodes_with_frames_are_errors(tmp_path: Path) -> None:
    with pytest.raises(AnnotationError, match="'00:00:01:12' is not a time; its last part seems to count frames\n"):
        csv_set(tmp_path, "a.mp4,00:00:01:12,00:00:02:00,walk,,")


def test_decimal_commas_in_semicolon_files(tmp_path: Path) -> None:
    text = "\ufeffvideo;start;end;label;place\r\na.mp4;1,5;00:00:02,25;walk;yard, left\r\n"
    (row,) = load_dataset(write_set(tmp_path, text)).rows
    assert (row.annotation.start_s, row.annotation.end_s, row.extra["place"]) == (1.5, 2.25, "yard, left")
    with pytest.raises(AnnotationError, match=r"line 2: start '1,500,2' is not a time"):
        load_dataset(write_set(tmp_path, text.replace("1,5", "1,500,2")))
    with pytest.raises(AnnotationError, match=r"line 2: start '1,500' is not a time"):  # or is it fifteen hundred?
        load_dataset(write_set(tmp_path, 'video,start,end,label\na.mp4,"1,500","2,000",walk\n'))


def test_quotes_after_a_space_are_read(tmp_path: Path) -> None:
    (row,) = load_dataset(write_set(tmp_path, 'video, start, end, label\na.mp4, 1, 2, "fall, hard"\n')).rows
    assert row.annotation.label == "fall, hard"


def test_not_utf8(tmp_path: Path) -> None:
    write_set(tmp_path, "")
    for text in ("video,label\na.mp4,fall\na.mp4,Stürz\n".encode("latin-1"), "video,label\n".encode("utf-16")):
        (tmp_path / "annotations.csv").write_bytes(text)
        line = 3 if text[0] < 128 else 1
        with pytest.raises(
            AnnotationError, match=rf"annotations.csv, line {line}: not UTF-8 \(byte 0x..\)\n  save it as"
        ):
            load_dataset(tmp_path)


@pytest.mark.parametrize("text", ["", HEADER, f"{HEADER}\n\n,,,,,\n"])
def test_no_usable_row(tmp_path: Path, text: str) -> None:
    with pytest.raises(
        AnnotationError, match=r"annotations.csv: no usable row\n  add one row .* a header line in a CSV \(video,"
    ):
        load_dataset(write_set(tmp_path, text))


def test_missing_videos(tmp_path: Path) -> None:
    folder = write_set(tmp_path, f"{HEADER}\na.mp4,,,fall,,\nx.mp4,,,jump,,\nx.mp4,,,fall,,\ny.mp4,,,fall,,\n")
    message = r"2 videos missing: x.mp4 \(line 3\), y.mp4 \(line 5\); looked in .*videos and .*\n.*--allow-missing"
    with pytest.raises(AnnotationError, match=message):
        load_dataset(folder)
    dataset = load_dataset(folder, allow_missing=True)
    assert dataset.warnings == ("2 videos missing: x.mp4 (line 3), y.mp4 (line 5); skipped",)
    assert [row.where for row in dataset.rows] == ["line 2"]
    assert dataset.labels == ("fall",)
    (folder / "annotations.csv").write_text(f"{HEADER}\nx.mp4,,,fall,,\n")
    with pytest.raises(AnnotationError, match=r"1 video missing: x\.mp4 \(line 2\); looked in "):
        load_dataset(folder, allow_missing=True)


def test_labels_must_be_in_names(tmp_path: Path) -> None:
    write_set(tmp_path, f"{HEADER}\na.mp4,,,fall,,\nb.mp4,,,wlk,,\n")
    (tmp_path / "set.yaml").write_text("names: [fall, walk]\n")
    with pytest.raises(
        AnnotationError, match=r"line 3: label 'wlk' is not in names \(did you mean 'walk'\?\)\n.*set.yaml"
    ):
        load_dataset(tmp_path / "set.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("videoz: videos", r"set.yaml: unknown key videoz \(did you mean 'videos'\?\)\n  keys are path, videos"),
        ("split: {vall: 0.1}", r"unknown key split.vall \(did you mean 'val'\?\)\n  keys are val, test, by, seed"),
        ("split: 0.2", "split is 0.2; it must hold keys"),
        ("split: {val: 1.5}", "split: val is 1.5; it must be a share"),
        ("split: {test: yes}", "split: test is True; it must be a share"),
        ("split: {val: 0.5, test: 0.5}", "leave nothing to train on"),
        ("split: {seed: -1}", "split: seed is -1; it must be a whole number"),
        ("templates: {fall: }", "templates is .*; it must hold a text for each label\n  write LABEL: "),
        ('templates: {fall: "{who} falls"}', "templates.fall: unknown placeholder {who}\n  placeholders are {label}"),
        ('templates: {fall: "{star} {end}"}', "templates.fall: unknown placeholder {star} .did you mean 'start'"),
        ('templates: {fall: "{objects:>9}"}', "templates.fall: unknown placeholder {objects}"),
        ('templates: {fall: "a { falls"}', "templates.fall: expected .* end of string\n  write {{ and }} for braces"),
        ('templates: {fal: "Ouch"}', "templates: no label 'fal' .did you mean 'fall'.*\n  labels are fall, walk"),
        ("split: {by: 3}", "split: by is 3; it must be folder"),
        ("names: [yes, no]", r"names is \[True, False\]; it must be a list of labels\n  quote words like yes"),
        ("names: fall", "names is 'fall'; it must be a list of labels"),
        ("names: [fall, fall]", "names holds 'fall' twice or empty"),
        ("background: no", "background is False; it must be text\n  put it in quotes"),
        ("format: coco", "format is 'coco'; it must be one of native, folders, list, activitynet, e2e-spot"),
        ("annotations: x.csv", "no such annotation file: .*x.csv"),
        ("videos: x", "no such folder of videos: .*x"),
        ("path: x", "set.yaml: no such folder: .*x"),
        ("[a, b]", "a dataset YAML holds keys and values"),
        ("path: .\na: b: c", "set.yaml, line 2: not a YAML file"),
        ("path: 2024-13-45", "set.yaml: not a YAML file: month must be in"),
    ],
)
def test_bad_yaml(tmp_path: Path, text: str, message: str) -> None:
    write_set(tmp_path, EXAMPLE)
    (tmp_path / "set.yaml").write_text(text)
    with pytest.raises(AnnotationError, match=message):
        load_dataset(tmp_path / "set.yaml")


def test_ambiguous_or_missing_annotation_files(tmp_path: Path) -> None:
    with pytest.raises(AnnotationError, match=r"no such dataset: .*nowhere\n  pass a dataset YAML"):
        load_dataset(tmp_path / "nowhere")
    with pytest.raises(AnnotationError, match=r"no annotations in .*\n  pass the annotation file itself, or write"):
        load_dataset(tmp_path)
    write_set(tmp_path, EXAMPLE)
    (tmp_path / "annotations.jsonl").touch()
    with pytest.raises(AnnotationError, match=r"both annotations.csv and annotations.jsonl in .*\n  pass the file"):
        load_dataset(tmp_path)
    (tmp_path / "labels.txt").write_text("no annotations\n")
    with pytest.raises(AnnotationError, match=r"labels.txt is in no known format\n  known formats: native CSV"):
        load_dataset(tmp_path / "labels.txt")


def test_unreadable_annotation_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, mode: str) -> None:
        raise PermissionError(13, "Permission denied")

    folder = write_set(tmp_path, EXAMPLE)
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(AnnotationError, match=r"cannot read .*annotations.csv: Permission denied"):
        load_dataset(folder)


def test_foreign_split_names(tmp_path: Path) -> None:
    rows = [
        f"a.mp4,{i},{i + 1},x,,{s}" for i, s in enumerate(["", "Training", "VALID", "validation", "Test", "holdout"])
    ]
    dataset = csv_set(tmp_path, *rows)
    assert [note.split for note in dataset.annotations] == [None, "train", "val", "val", "test", "holdout"]
    assert dataset.splits == ("train", "val", "test", "holdout")
    assert dataset.warnings == ("rows of split holdout are used only if that split is named",)


def test_warning_for_similar_labels(tmp_path: Path) -> None:
    dataset = csv_set(tmp_path, "a.mp4,,,Sit down,,", "b.mp4,,,sit_down,,", "c.mp4,,,stand,,")
    assert dataset.warnings == ("labels that differ in spelling only: 'Sit down', 'sit_down'",)


def test_labels_in_two_unicode_forms_are_one(tmp_path: Path) -> None:
    rows = "a.mp4,1,2,Caf\u00e9,,\nb.mp4,1,2,Cafe\u0301,,\n"
    yaml = write_set(tmp_path, f"{HEADER}\n{rows}") / "set.yaml"
    yaml.write_text("names: [Cafe\u0301]\n", encoding="utf-8")
    dataset = load_dataset(yaml)
    assert dataset.labels == ("Caf\u00e9",)
    assert dataset.notes == ("1 label in decomposed Unicode read in composed form (first: 'Caf\u00e9')",)


def test_warning_for_as_many_labels_as_rows(tmp_path: Path) -> None:
    dataset = csv_set(tmp_path, *(f"{n}.mp4,1,2,A man walks to door {n * n},," for n in range(12)))
    assert any(w.startswith("12 rows have as many labels (first: 'A man walks to door 0')") for w in dataset.warnings)


def test_warning_for_no_labels_at_all(tmp_path: Path) -> None:
    message = "no row has a label or a description, so all recordings are event-free: is a column empty?"
    assert csv_set(tmp_path, "a.mp4,,,,,", "b.mp4,,,,,").warnings == (message,)


def test_paths_of_another_machine(tmp_path: Path) -> None:
    write_set(tmp_path, HEADER + "\nD:\\lab\\a.mp4,1,2,walk,,\n/home/ann/b.mp4,1,2,walk,,\n")
    dataset = load_dataset(tmp_path)
    assert [row.annotation.video for row in dataset.rows] == ["a.mp4", "b.mp4"]
    assert dataset.warnings == ("2 videos found by file name alone (first: D:\\lab\\a.mp4 is a.mp4)",)


def test_warning_for_unused_background(tmp_path: Path) -> None:
    write_set(tmp_path, EXAMPLE)
    (tmp_path / "set.yaml").write_text("background: nothing\n")
    assert load_dataset(tmp_path / "set.yaml").warnings == ("background 'nothing' is not the label of any row",)


def test_repeated_rows(tmp_path: Path) -> None:
    dataset = csv_set(tmp_path, "a.mp4,,,sit,,", "b.mp4,,,sit,,", "a.mp4,,,sit,,")
    assert dataset.warnings == ("1 repeated row (line 4 repeats line 2)",)
    assert len(clips(dataset)) == 2


def test_event_free_row_contradicting_events(tmp_path: Path) -> None:
    dataset = csv_set(tmp_path, "a.mp4,1,2,fall,,", "a.mp4,,,,,", "a.mp4,4,5,,,")
    assert dataset.warnings[1:] == (
        "1 row (first: line 3) marking recordings as event-free although other rows have events in them; skipped",
    )
    assert clips(dataset) == [clip("a.mp4", 1.0, 2.0, {0}), clip("a.mp4", 4.0, 5.0, set())]


def test_overlaps(tmp_path: Path) -> None:
    dataset = csv_set(
        tmp_path, "a.mp4,5,9,sit,,", "a.mp4,1,6,walk,,", "a.mp4,9,10,sit,,", "b.mp4,5,9,sit,,", "b.mp4,5,9,talk,,"
    )
    assert dataset.warnings == ("1 pair of overlapping intervals (first: a.mp4, line 3 and line 2: walk and sit)",)


def test_repr(tmp_path: Path) -> None:
    dataset = replace(csv_set(tmp_path, "a.mp4,1,6,walk,,"), source=Path("x.csv"))
    assert repr(dataset) == "Dataset(x.csv, 1 rows, 1 recordings, ['walk'])"


def test_templates_of_captions_are_read(tmp_path: Path) -> None:
    write_set(tmp_path, EXAMPLE)
    (tmp_path / "set.yaml").write_text('templates: {fall: " {objects} fell at {start} "}', encoding="utf-8")
    assert load_dataset(tmp_path / "set.yaml").templates == {"fall": "{objects} fell at {start}"}


def relabelled(folder: Path, labels: str, *rows: str, more: str = "") -> Dataset:
    write_set(folder, "\n".join((HEADER, *rows)))
    (folder / "set.yaml").write_text(f"annotations: annotations.csv\nlabels: {labels}\n{more}")
    return load_dataset(folder / "set.yaml")


def test_labels_merge_ignore_and_drop(tmp_path: Path) -> None:
    dataset = relabelled(
        tmp_path,
        "{runs: moves, jogs: moves, unsure: ignore, other: background, nobody: background}",
        "a.mp4,0,1,runs,,train",
        "a.mp4,2,3,jogs,,train",
        "a.mp4,4,6,unsure,perhaps a fall,train",
        "a.mp4,7,8,other,,train",
        "b.mp4,1,2,unsure,,train",
        "c.mp4,,,unsure,,train",
        "d.mp4,,,nobody,,val",
    )
    assert (dataset.labels, dataset.background) == (("moves",), "other")
    assert event_timelines(dataset) == [
        EventTimeline(video="a.mp4", split="train", events=((0, 1, 0), (2, 3, 0)), ignored=((4, 6),)),
        EventTimeline(video="d.mp4", split="val", events=()),
        EventTimeline(video="b.mp4", split="train", events=(), ignored=((1, 2),)),
    ]
    assert "c.mp4" not in dataset.recordings
    assert described_segments(dataset) == []
    note = "labels: runs is moves, jogs is moves, unsure is ignored, other is no event, nobody is no event"
    assert dataset.notes == (note,)
    assert dataset.warnings == ()


def test_labels_of_whole_clips(tmp_path: Path) -> None:
    rows = ("a.mp4,,,walks,,", "b.mp4,,,strolls,,", "c.mp4,,,unsure,,", "d.mp4,,,nothing,,")
    mapping = "{strolls: walks, unsure: ignore, nothing: background, quarrels: walks}"
    dataset = relabelled(tmp_path, mapping, *rows, more="names: [strolls, walks, unsure]\n")
    assert dataset.labels == ("walks",)
    assert clips(dataset) == [
        clip("a.mp4", None, None, {0}),
        clip("b.mp4", None, None, {0}),
        clip("d.mp4", None, None, set()),
    ]
    assert dataset.warnings == ("labels: no row has the label 'quarrels'",)


def test_watched_rows_leave_other_time_unknown(tmp_path: Path) -> None:
    dataset = csv_set(
        tmp_path,
        "a.mp4,3,5,fall,,",
        "a.mp4,8,20,background,an empty room,",
        "a.mp4,6,9,background,,",
        "b.mp4,0,4,background,,",
        "c.mp4,1,2,fall,,",
        "d.mp4,,,background,,",
        "e.mp4,,,,,",
        "e.mp4,2,3,background,,",
        "f.mp4,2,3,fall,,",
        "f.mp4,5,6,background,,val",
        "f.mp4,8,9,,somebody falls,",
    )
    assert (dataset.labels, dataset.background, dataset.warnings) == (("fall",), None, ())
    inf = float("inf")
    assert {(line.video, line.split): (line.events, line.unwatched) for line in event_timelines(dataset)} == {
        ("a.mp4", "train"): (((3, 5, 0),), ((0, 3), (5, 6), (20, inf))),
        ("b.mp4", "train"): ((), ((4, inf),)),
        ("c.mp4", "train"): (((1, 2, 0),), ()),
        ("d.mp4", "train"): ((), ()),
        ("e.mp4", "train"): ((), ()),
        ("f.mp4", "train"): (((2, 3, 0),), ((0, 2), (3, inf))),
        ("f.mp4", "val"): ((), ((0, 5), (6, inf))),
    }
    assert clips(dataset)[5] == clip("d.mp4", None, None, set())
    sentences = [segment.sentences for segment in described_segments(dataset)]
    assert sentences == [("an empty room",), ("somebody falls",)]
    (line,) = [line for line in event_timelines(dataset) if line.video == "b.mp4"]
    assert [line.unwatched_s(duration_s) for duration_s in (3.0, 4.0, 10.0)] == [0, 0, 6]


def test_watched_row_contradicts_events(tmp_path: Path) -> None:
    dataset = csv_set(tmp_path, "a.mp4,3,5,fall,,", "a.mp4,,,background,empty,", "b.mp4,1,2,fall,,")
    assert "1 row (first: line 3) marking recordings as event-free" in dataset.warnings[0]
    assert [line.unwatched for line in event_timelines(dataset)] == [(), ()]


@pytest.mark.parametrize(
    ("yaml", "labels", "unwatched"),
    [
        ("background: background", ("fall",), ()),
        ("background: nothing", ("background", "fall"), ()),
        ("names: [background, fall]", ("background", "fall"), ()),
        ("labels: {background: street}", ("fall", "street"), ()),
        ("labels: {background: background}", ("fall",), ()),
        ("labels: {background: ignore}", ("fall",), ()),
        ("names: [fall]", ("fall",), ((0, 3), (5, 6), (9, float("inf")))),
        ("labels: {other: background}", ("fall",), ((0, 3), (5, 6), (9, float("inf")))),
    ],
)
def test_watched_rows_yield_to_yaml(
    tmp_path: Path, yaml: str, labels: tuple[str, ...], unwatched: tuple[tuple[float, float], ...]
) -> None:
    write_set(tmp_path, f"{HEADER}\na.mp4,3,5,fall,,train\na.mp4,6,9,background,,train\n")
    (tmp_path / "set.yaml").write_text(f"annotations: annotations.csv\n{yaml}\n")
    dataset = load_dataset(tmp_path / "set.yaml")
    assert dataset.labels == labels
    assert event_timelines(dataset)[0].unwatched == unwatched


def test_background_of_other_formats_is_a_label(tmp_path: Path) -> None:
    write_set(tmp_path, "0,3,fall\n5,9,background\n", name="a.csv")
    dataset = load_dataset(tmp_path / "a.csv")
    assert dataset.labels == ("background", "fall")
    assert event_timelines(dataset)[0].unwatched == ()
    assert "label 'background' is learnt like any other; if it means that nothing happens" in dataset.warnings[-1]


@pytest.mark.parametrize("labels", ["[a, b]", "{a: [b]}", "{yes: b}", "{a: }"])
def test_labels_must_map_labels(tmp_path: Path, labels: str) -> None:
    message = "set.yaml: labels is .*; it must map labels to labels, ignore or background\n  write labels: {jogs: runs"
    with pytest.raises(AnnotationError, match=message):
        relabelled(tmp_path, labels, "a.mp4,0,1,a,,train")


def test_videos_in_another_folder(tmp_path: Path) -> None:
    write_set(tmp_path / "set", f"{HEADER}\nx.mp4,0,1,runs,,train\n", videos="")
    write_set(tmp_path, HEADER, videos="x.mp4")
    with pytest.raises(AnnotationError, match=r"1 video missing: .*\n.*pass --videos or set `videos`"):
        load_dataset(tmp_path / "set")
    dataset = load_dataset(tmp_path / "set", videos=str(tmp_path / "videos"))
    assert dataset.recordings["x.mp4"].path == tmp_path / "videos" / "x.mp4"
    with pytest.raises(SettingsError, match="videos is 'nowhere', which is no folder\n  pass the folder"):
        load_dataset(tmp_path / "set", videos="nowhere")
