"""Events as files."""

import csv
import io
import json
import re
from pathlib import Path

import pytest

from vidgru.datasets.annotations import load_dataset
from vidgru.prediction import event_files as writers
from vidgru.types import Event


def event(start: float, end: float, label: str = "fall", **more: object) -> Event:
    return Event(**{"video": "a/b.mp4", "start_s": start, "end_s": end, "label": label, "score": 0.5, **more})


SENTENCE = {"description": "빨간 옷 👕", "description_score": 1 / 3, "description_source": "model"}
TEMPLATE = {"description": "person: fall", "description_score": 0.25, "description_source": "template"}
NASTY = 'a --> b & <i>c</i> {\\an8}\r\n\r\nd\0é 日本\u2028, "q"\r'


def test_jsonl_has_sorted_keys_and_utf8() -> None:
    text = writers.to_jsonl([event(1.23456, 2, "Stürz", description="é", start_time="2024-05-01T12:00:01.235+00:00")])
    assert text == (
        '{"description": "é", "end": 2.0, "label": "Stürz", "score": 0.5, "start": 1.234, '
        '"start_time": "2024-05-01T12:00:01.235+00:00", "video": "a/b.mp4"}\n'
    )
    bare = writers.to_jsonl([event(1, 2)])
    assert "start_time" not in bare
    assert "description" not in bare
    assert writers.to_jsonl([event(1, 2, **SENTENCE)]) == (
        '{"description": "빨간 옷 👕", "description_score": 0.333333, "description_source": "model", "end": 2, '
        '"label": "fall", "score": 0.5, "start": 1, "video": "a/b.mp4"}\n'
    ).replace(": 1,", ": 1.0,").replace(": 2,", ": 2.0,")


def test_jsonl_round_trip(tmp_path: Path) -> None:
    events = [
        event(0, 1.5, NASTY, description=NASTY),
        event(3, 4, score=1 / 3),
        event(3600, 7200.001),
        event(5, 6, **TEMPLATE),
        event(6, 7, **{**SENTENCE, "description_score": 0.123456}, start_time="2024-05-01T12:00:01+00:00"),
    ]
    path = tmp_path / "events.jsonl"
    path.write_bytes(writers.to_jsonl(events).encode())
    back = writers.read_jsonl(path)
    assert back[0] == events[0]
    assert back[1].score == 0.333333
    assert back[2:] == events[2:]
    assert writers.to_jsonl(back) == writers.to_jsonl(events)


@pytest.mark.parametrize("line", ['{"video": "a.mp4"}', "[1]", "{", '{"start": 2, "end": 1, "label": "x"}'])
def test_read_jsonl_names_invalid_line(tmp_path: Path, line: str) -> None:
    (tmp_path / "events.jsonl").write_text(line + "\n")
    with pytest.raises(ValueError, match=r"events\.jsonl: not an event: "):
        writers.read_jsonl(tmp_path / "events.jsonl")


@pytest.mark.parametrize(
    ("start", "end", "want"),
    [
        (1.0004, 1.0006, (1000, 1001)),
        (1.0009, 1.0012, (1000, 1001)),
        (2.001, 10.066633, (2001, 10066)),
        (0.001, 4.35, (1, 4350)),
        (0, 1e-9, (0, 1)),
        (2.5, 3.25, (2500, 3250)),
    ],
)
def test_interval_ms_is_never_empty(start: float, end: float, want: tuple[int, int]) -> None:
    assert writers.interval_ms(event(start, end)) == want


def test_rounded_is_idempotent() -> None:
    for ms in range(0, 20_000, 7):
        once = writers.rounded(event(ms / 1000, ms / 1000 + 0.123456))
        assert writers.interval_ms(once)[0] == ms
        assert writers.rounded(once) == once


def test_vtt_text() -> None:
    text = writers.to_vtt([event(3661.5, 360000.001, "later"), event(0, 0.0004, score=0.934, description="A <b> & c")])
    assert text == (
        "WEBVTT\n\n"
        "00:00:00.000 --> 00:00:00.001\nfall 93%\nA &lt;b&gt; &amp; c\n\n"
        "01:01:01.500 --> 100:00:00.001\nlater 50%\n"
    )


def test_srt_text() -> None:
    text = writers.to_srt([event(3661.5, 3662, "later"), event(0, 1, description="A <b> {i}")])
    assert text == (
        "1\n00:00:00,000 --> 00:00:01,000\nfall 50%\nA \u2039b\u203a (i)\n\n"
        "2\n01:01:01,500 --> 01:01:02,000\nlater 50%\n"
    )


def test_subtitles_mark_template_captions() -> None:
    events = [event(0, 1, **TEMPLATE), event(1, 2, **SENTENCE)]
    assert writers.to_vtt(events) == (
        "WEBVTT\n\n"
        "NOTE\nText in square brackets comes from a template of label, objects and time,\n"
        "because the score of the model's own caption was too low.\n\n"
        "00:00:00.000 --> 00:00:01.000\nfall 50%\n[person: fall]\n\n"
        "00:00:01.000 --> 00:00:02.000\nfall 50%\n빨간 옷 👕\n"
    )
    assert "NOTE" not in writers.to_vtt(events[1:])
    assert "\nfall 50%\n[person: fall]\n" in writers.to_srt(events)
    assert "\nfall 50%\n빨간 옷 👕\n" in writers.to_srt(events)


def test_files_without_events_are_valid() -> None:
    assert writers.to_vtt([]) == "WEBVTT\n"
    assert writers.to_srt([]) == ""
    assert writers.to_jsonl([]) == ""
    header = "video,start,end,label,description,description_score,description_source,score,start_time\n"
    assert writers.to_csv([]) == header
    assert json.loads(writers.to_activitynet({}, "x"))["results"] == {}


def test_subtitles_escape_any_text() -> None:
    events = [event(0, 1, NASTY, description=NASTY), event(1, 2, description=" \n ")]
    for text in (writers.to_vtt(events), writers.to_srt(events)):
        assert "\0" not in text
        assert "\r" not in text
        assert text.count("-->") == 2
        blocks = text.removeprefix("WEBVTT\n\n").split("\n\n")
        assert [len(block.splitlines()) for block in (b.replace("\u2028", "") for b in blocks)] in ([3, 2], [4, 3])
        assert re.match(r"(1\n)?00:00:00[.,]000 --> 00:00:01[.,]000\n", blocks[0])


def test_subtitles_are_sorted_by_start() -> None:
    starts = re.findall(r"^(\S+) -->", writers.to_vtt([event(5, 6), event(1, 9), event(3, 4)]), re.MULTILINE)
    assert starts == sorted(starts)
    assert len(starts) == 3


def test_csv_has_annotation_columns_and_event_free_rows() -> None:
    text = writers.to_csv([("a/b.mp4", [event(1, 2.5, description=NASTY)]), ("=c, d.mp4", [])])
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    assert tuple(rows[0]) == writers.CSV_COLUMNS
    assert (rows[0]["start"], rows[0]["end"], rows[0]["score"], rows[0]["start_time"]) == ("1.000", "2.500", "0.5", "")
    assert rows[0]["description"] == NASTY.replace("\r\n", "\n").replace("\r", "\n")
    assert rows[1] == dict.fromkeys(writers.CSV_COLUMNS, "") | {"video": "'=c, d.mp4"}  # no formula
    assert len(rows) == 2
    (row,) = csv.DictReader(io.StringIO(writers.to_csv([("a/b.mp4", [event(1, 2, **TEMPLATE)])]), newline=""))
    assert {name: row[name] for name in TEMPLATE} == {**TEMPLATE, "description_score": "0.25"}


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_csv_templates_are_not_read_as_annotations(tmp_path: Path, suffix: str) -> None:
    """Only the model's own captions, left as they are by the user, are learned by the next model."""
    (tmp_path / "b.mp4").touch()
    events = [event(1, 2.5, **TEMPLATE, video="b.mp4"), event(3, 4, **SENTENCE, video="b.mp4")]
    text = writers.to_csv([("b.mp4", events)]) if suffix == "csv" else writers.to_jsonl(events)
    path = tmp_path / f"events.{suffix}"
    path.write_text(text, encoding="utf-8")
    dataset = load_dataset(path)
    annotations = [(a.start_s, a.end_s, a.label, a.description) for a in dataset.annotations]
    assert annotations == [(1.0, 2.5, "fall", None), (3.0, 4.0, "fall", "빨간 옷 👕")]
    assert "1 template description of vidgru predict skipped" in " ".join(dataset.notes)
    path.write_text(text.replace("template", "").replace("person: fall", "사람이 넘어진다"), encoding="utf-8")
    own = load_dataset(path)
    assert [note.description for note in own.annotations] == ["사람이 넘어진다", "빨간 옷 👕"]
    assert own.notes == ()


def test_activitynet_results() -> None:
    text = writers.to_activitynet({"a/b.mp4": [event(1, 2.5, "Stürz")], "empty.mp4": []}, "vidgru")
    assert json.loads(text) == {
        "version": "VERSION 1.3",
        "results": {"a/b.mp4": [{"label": "Stürz", "score": 0.5, "segment": [1.0, 2.5]}], "empty.mp4": []},
        "external_data": {"used": True, "details": "vidgru"},
    }
    assert "Stürz" in text


def test_activitynet_of_captioned_events() -> None:
    text = writers.to_activitynet({"a/b.mp4": [event(1, 2.5, **TEMPLATE)]}, "vidgru")
    (result,) = json.loads(text)["results"]["a/b.mp4"]
    assert result == {
        "label": "fall", "score": 0.5, "segment": [1.0, 2.5],
        "sentence": "person: fall", "timestamp": [1.0, 2.5],
    }  # fmt: skip
