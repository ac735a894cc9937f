import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.datasets.formats.files import CVAT, FILES, MSR_VTT, NATIVE, write
from tests.videos import write_video
from vidgru import cli
from vidgru.config import ConvertConfig, OutputFormat
from vidgru.datasets.annotations import load_dataset, read_annotations
from vidgru.datasets.convert import convert
from vidgru.datasets.spec import find_dataset
from vidgru.errors import AnnotationError, OutputError, SettingsError
from vidgru.types import Annotation

PLAIN = ConvertConfig(fps=25.0)


def rows(path: Path, config: ConvertConfig = PLAIN) -> list[Annotation]:
    """The annotations of a file, sorted, whether their videos are there or not; train where it tells no split."""
    notes = [row.annotation for row in read_annotations(find_dataset(path).with_overrides(config)).rows]
    return sorted(
        (replace(note, split=note.split or "train") for note in notes),
        key=lambda note: (note.video, note.start_s or 0, note.label or "", note.description or ""),
    )


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
@pytest.mark.parametrize("kind", FILES)
def test_convert_any_format_to_native(tmp_path: Path, kind: str, suffix: str) -> None:
    source, out = write(tmp_path, *FILES[kind]), tmp_path / f"out/labels{suffix}"
    said = convert(source, out, PLAIN)
    assert said[0].startswith(f"{out}: ")
    before, after = rows(source), rows(out)
    assert len(before) == len(after) > 0
    for one, other in zip(before, after, strict=True):
        assert (one.video, one.label, one.description, one.split) == (
            other.video, other.label, other.description, other.split,
        )  # fmt: skip
        assert other.start_s == (None if one.start_s is None else round(one.start_s, 6))
        assert other.end_s == (None if one.end_s is None else round(one.end_s, 6))
    again = tmp_path / f"again{suffix}"
    convert(out, again, ConvertConfig())
    assert again.read_bytes() == out.read_bytes()


@pytest.mark.parametrize("kind", ["native", "e2e-spot", "label-studio", "elan", "cvat", "kinetics", "list"])
def test_convert_activitynet_round_trip(tmp_path: Path, kind: str) -> None:
    native, other, back = (tmp_path / name for name in ("a.csv", "b.json", "c.csv"))
    convert(write(tmp_path / "in", *FILES[kind]), native, PLAIN)
    convert(native, other, ConvertConfig())
    convert(other, back, ConvertConfig())
    assert rows(back) == rows(native)


def test_convert_activitynet_matches_evaluator(tmp_path: Path) -> None:
    convert(write(tmp_path, "labels.csv", NATIVE), tmp_path / "gt.json", ConvertConfig())
    whole = json.loads((tmp_path / "gt.json").read_text())
    assert whole == {
        "version": "VERSION 1.3",
        "database": {
            "a.mp4": {
                "subset": "training",
                "annotations": [
                    {"label": "fall", "segment": [3.4, 6.0], "description": "A man falls from a chair"},
                    {"label": "get up", "segment": [7.125, 8.5]},
                ],
            },
            "b.mp4": {"subset": "validation", "annotations": [{"label": "walk"}]},
            "c.mp4": {"subset": "testing", "annotations": []},
        },
    }


def test_convert_reports_what_activitynet_lacks(tmp_path: Path) -> None:
    header = "video,start,end,label,description,split\n"
    source = write(tmp_path, "labels.csv", f"{header}a.mp4,1,2,x,,train\na.mp4,3,4,y,,test\na.mp4,,,,text,train\n")
    said = convert(source, tmp_path / "gt.json", ConvertConfig())
    assert said[1:] == [
        "1 row without a label skipped: ActivityNet detection requires labels",
        "1 row in another split than the first of their video: ActivityNet has one per video",
    ]
    with pytest.raises(AnnotationError, match=r"msr.json: no row has a label, which .*\n  write .csv, .jsonl or .vtt"):
        convert(write(tmp_path, "msr.json", MSR_VTT), tmp_path / "gt.json", ConvertConfig())


def test_convert_keeps_extra_columns(tmp_path: Path) -> None:
    source = write(tmp_path, "labels.csv", "video,label,who\na.mp4,fall,ann\nb.mp4,walk,\n")
    convert(source, tmp_path / "out.csv", ConvertConfig())
    with open(tmp_path / "out.csv", newline="") as file:
        assert [row["who"] for row in csv.DictReader(file)] == ["ann", ""]


def test_convert_subtitles(tmp_path: Path) -> None:
    text = "video,start,end,label,description\n" + (
        'cam1/a.mp4,3723.5,3725,fall & <rise>,"One line\n\nanother -->"\n../b.mp4,2,3,y,\ncam1/a.mp4,1,2,x,\n'
        "cam1/a.mp4,,,whole,\n"
    )
    source = write(tmp_path, "labels.csv", text)
    said = convert(source, tmp_path / "subtitles", ConvertConfig())
    assert said[1:] == ["1 row without times skipped: subtitles need them"]
    assert (tmp_path / "subtitles/cam1/a.mp4.vtt").read_text() == (
        "WEBVTT\n\nNOTE video: cam1/a.mp4\n\n00:00:01.000 --> 00:00:02.000\nx\n\n"
        "01:02:03.500 --> 01:02:05.000\nfall &amp; &lt;rise&gt;\nOne line\nanother --&gt;\n"
    )
    assert (tmp_path / "subtitles/b.mp4.vtt").is_file()  # not beside the folder
    with pytest.raises(AnnotationError, match=r"labels.csv annotates 2 videos\n  a .vtt holds one: give a folder"):
        convert(source, tmp_path / "one.vtt", ConvertConfig())
    one = write(tmp_path, "one.csv", "video,start,end,label\na.mp4,1,2,x\n")
    convert(one, tmp_path / "one.vtt", ConvertConfig())
    text = (tmp_path / "one.vtt").read_text()
    assert text == "WEBVTT\n\nNOTE video: a.mp4\n\n00:00:01.000 --> 00:00:02.000\nx\n"
    whole = write(tmp_path, "whole.csv", "video,label\na.mp4,x\n")
    with pytest.raises(AnnotationError, match=r"whole.csv: no row has times, which subtitles need\n  write .csv"):
        convert(whole, tmp_path / "one.vtt", ConvertConfig())


def test_convert_names_existing_videos(tmp_path: Path) -> None:
    source = write(tmp_path, *FILES["label-studio"], "yard.mp4")
    convert(source, tmp_path / "out.csv", ConvertConfig(fps=12))
    assert [note.video for note in rows(tmp_path / "out.csv")] == ["set/gate two.mp4", "yard.mp4"]


def test_convert_settings_override_yaml(tmp_path: Path) -> None:
    write(tmp_path, "cvat.xml", CVAT)
    yaml = write(tmp_path, "set.yaml", "annotations: cvat.xml\nfps: 10\ntiers: [label]\n")
    convert(yaml, tmp_path / "out.csv", ConvertConfig())
    assert [(n.label, n.start_s) for n in rows(tmp_path / "out.csv")] == [("person", 1.0), ("person", 9.8)]
    convert(yaml, tmp_path / "out.csv", ConvertConfig(fps=5, tiers=("carries",)))
    assert [(n.label, n.start_s) for n in rows(tmp_path / "out.csv")] == [("carries", 6.0)]
    spot = write(tmp_path, *FILES["e2e-spot"])
    convert(spot, tmp_path / "spot.csv", ConvertConfig(half_width=0.04, format="e2e-spot"))
    assert [n.start_s for n in rows(tmp_path / "spot.csv")] == [0.16, 20.96, None]


@pytest.mark.parametrize(
    ("to", "name"),
    [("label-studio", "a.label-studio.json"), ("boris", "a.boris"), ("jsonl", "a.jsonl"), ("vtt", "a-vtt/b.mp4.vtt")],
)
def test_convert_without_an_output(tmp_path: Path, to: OutputFormat, name: str) -> None:
    (tmp_path / "a.csv").write_text("video,start,end,label\nb.mp4,1,2,walk\n")
    summary = convert(tmp_path / "a.csv", None, ConvertConfig(to=to))[0]
    assert (tmp_path / name).is_file()
    assert summary.startswith(str(tmp_path / name.partition("/")[0]))
    with pytest.raises(SettingsError, match="no output is given\n  name a file or folder, or the format with --to"):
        convert(tmp_path / "a.csv", None, ConvertConfig())
    with pytest.raises(SettingsError, match=r"the output would be .*a.csv itself\n  name another file"):
        convert(tmp_path / "a.csv", None, ConvertConfig(to="csv"))


def test_convert_compares_durations_and_lengths(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", 10, fps=10)
    (tmp_path / "x.csv").write_text("video,start,end,label,video_duration\na.mp4,0.00001,0.00002,walk,12\n")
    messages = convert(tmp_path / "x.csv", tmp_path / "y.csv", ConvertConfig())
    assert messages[1].startswith("1 recording of another duration than annotated (first: a.mp4 has 1.0 s")
    assert messages[2].startswith("1 event shorter than 0.004 s (first: line 2): if the times come from Excel")


def test_convert_rejects_unknown_outputs(tmp_path: Path) -> None:
    source = write(tmp_path, "labels.csv", NATIVE)
    with pytest.raises(SettingsError, match=r"cannot write .*out.txt: unknown format .txt\n  use .csv or .jsonl"):
        convert(source, tmp_path / "out.txt", ConvertConfig())
    with pytest.raises(SettingsError, match=r"cannot write .*: boris is a file\n  name it, with a suffix"):
        convert(source, tmp_path, ConvertConfig(to="boris"))
    with pytest.raises(OutputError, match=r"cannot write .*labels.csv/out.csv: "):
        convert(source, source / "out.csv", ConvertConfig())
    with pytest.raises(AnnotationError, match=r"empty.csv: no usable row\n  there is nothing to convert"):
        convert(write(tmp_path, "empty.csv", "video,label\n"), tmp_path / "out.csv", ConvertConfig())


@pytest.mark.parametrize(("flag", "value"), [("fps", -1), ("half_width", -0.5)])
def test_convert_rejects_bad_settings(flag: str, value: float) -> None:
    with pytest.raises(SettingsError, match=rf"{flag} is {value}; it must be from 0 to "):
        ConvertConfig(**{flag: value})  # type: ignore[arg-type]


def test_convert_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = write(tmp_path, "cvat.xml", CVAT), tmp_path / "out.csv"
    assert (
        cli.run(["convert", str(source), str(out), "--fps", "10", "--tiers", "action,carries", "--format", "cvat"]) == 0
    )
    said = capsys.readouterr()
    assert said.out == f"{out}: 4 rows of 1 video from {source}\n"
    assert cli.run(["convert", str(source), str(out), "--fps", "10"]) == 0
    assert "labels come from label, action, carries; select some with `tiers`" in capsys.readouterr().err
    assert cli.run(["convert", str(source), str(out)]) == 2
    assert "vidgru convert --fps 25" in capsys.readouterr().err


def test_convert_video_outside_roots(tmp_path: Path) -> None:
    write(tmp_path / "far", "x", "", "a.mp4")
    video = str(tmp_path / "far" / "a.mp4")
    source = write(tmp_path / "set", "labels.csv", f"video,label\n{video},walk\n../far/a.mp4,run\n")
    for name in ("out.csv", "out.json"):
        convert(source, tmp_path / "set" / name, ConvertConfig())
        (recording,) = load_dataset(tmp_path / "set" / name).recordings.values()
        assert recording.path.samefile(video)


def test_convert_reports_dropped_columns(tmp_path: Path) -> None:
    said = convert(write(tmp_path, *FILES["kinetics"]), tmp_path / "out.json", PLAIN)
    assert "columns that ActivityNet does not have, skipped: group" in said


def test_convert_applies_labels_of_the_yaml(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("video,start,end,label\na.mp4,0,1,jogs\na.mp4,2,3,unsure\n")
    (tmp_path / "set.yaml").write_text("annotations: labels.csv\nlabels: {jogs: runs, unsure: ignore}\n")
    notes = convert(tmp_path / "set.yaml", tmp_path / "out.csv", ConvertConfig())
    assert [row.label for row in rows(tmp_path / "out.csv")] == ["runs"]
    assert notes[1:3] == ["labels: jogs is runs, unsure is ignored", "1 ignored row left out"]


WATCHED = "video,start,end,label,description,split\na.mp4,1.0,2.0,fall,,\na.mp4,3.0,4.0,background,an empty room,\n"


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_convert_keeps_watched_rows(tmp_path: Path, suffix: str) -> None:
    source = write(tmp_path, "labels.csv", f"{WATCHED}b.mp4,,,background,,\n")
    messages = convert(source, tmp_path / f"out{suffix}", ConvertConfig())
    assert len(messages) == 1
    result = read_annotations(find_dataset(tmp_path / f"out{suffix}"))
    assert [row.watched for row in result.rows] == [False, True, True]
    convert(tmp_path / f"out{suffix}", tmp_path / "back.csv", ConvertConfig())
    assert (tmp_path / "back.csv").read_text() == f"{WATCHED}b.mp4,,,background,,\n"


@pytest.mark.parametrize("kind", ["activitynet", "label-studio", "fiftyone", "boris", "cvat", "vtt"])
def test_convert_names_watched_rows_in_other_formats(tmp_path: Path, kind: OutputFormat) -> None:
    source = write(tmp_path, "labels.csv", WATCHED)
    out = tmp_path / "out" if kind in ("cvat", "vtt") else tmp_path / "out.json"
    messages = convert(source, out, ConvertConfig(to=kind, fps=25.0))
    assert "1 row of label 'background', which in that format is a label like any other" in messages
    messages = convert(out, tmp_path / "back.csv", ConvertConfig(fps=25.0))
    assert "1 row of label 'background', which in vidgru's own format marks time in which nothing happens" in messages
    assert [row.watched for row in read_annotations(find_dataset(tmp_path / "back.csv")).rows] == [False, True]
