"""Tables, subtitles and VIA's projects; where their shapes come from stands beside them in files.py."""

import copy
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests.datasets.annotation_files import check_rejected
from tests.datasets.formats import files
from tests.datasets.formats.files import write
from tests.datasets.formats.test_json_formats import note
from vidgru.config import ConvertConfig
from vidgru.datasets.annotations import load_dataset
from vidgru.datasets.convert import convert
from vidgru.errors import AnnotationError
from vidgru.info import inspect_path
from vidgru.types import DESCRIBED

# --- YouCook2, COIN, QVHighlights, Charades -------------------------------------------------------------------------


def test_youcook2_sentences_are_descriptions(tmp_path: Path) -> None:
    dataset = load_dataset(write(tmp_path, "youcookii.json", files.YOUCOOK2, "xHr8X2Wpmno.mp4"))
    assert dataset.annotations[0] == note("xHr8X2Wpmno.mp4", 41, 54, DESCRIBED, "train", "slice the bread")
    assert dataset.durations == {"xHr8X2Wpmno.mp4": 311.77}


def test_coin_steps_are_labels(tmp_path: Path) -> None:
    dataset = load_dataset(write(tmp_path, "COIN.json", files.COIN, "0wu5Q6xNp0M.mp4"))
    assert dataset.annotations == (note("0wu5Q6xNp0M.mp4", 9.0, 14.0, "remove the bulb", "test"),)


def test_qvhighlights(tmp_path: Path) -> None:
    dataset = load_dataset(write(tmp_path, "train.jsonl", files.QVHIGHLIGHTS, "Rori_360.0_510.0.mp4"))
    assert dataset.annotations == (
        note("Rori_360.0_510.0.mp4", 26, 36, DESCRIBED, text="A man walks outside."),
        note("Rori_360.0_510.0.mp4", 40, 44, DESCRIBED, text="A man walks outside."),
    )
    assert dataset.notes[0] == "1 line without relevant_windows skipped"
    with pytest.raises(AnnotationError, match=r"line 2: not JSON: .*\n  each line must be one JSON object"):
        load_dataset(write(tmp_path, "train.jsonl", files.QVHIGHLIGHTS[:-20]))


def test_charades(tmp_path: Path) -> None:
    path = write(tmp_path, "Charades_v1_train.csv", files.CHARADES, "46GP8.mp4|N11GT.mp4")
    assert load_dataset(path).labels == ("c092", "c147")
    write(tmp_path, "Charades_v1_classes.txt", files.CHARADES_CLASSES)
    assert load_dataset(path).annotations == (
        note("46GP8.mp4", 11.9, 21.2, "Turning on a light"),
        note("46GP8.mp4", 0, 24.83, "Someone is cooking something"),  # ends with the clip
        note("46GP8.mp4", text="A person cooks."),
        note("N11GT.mp4"),
        note("N11GT.mp4", text="A person stands, alone."),
    )


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("11.90 21.20", "11.90", r"line 2: 'c092 11.90' is not a class, start and end\n  an action looks like"),
        (",24.83", ",", r"line 2: length is not a number above 0\n  it is in seconds"),
        (",actions", ",acts", r"missing column actions\n  see docs/annotations.md"),
    ],
)
def test_charades_rejects_bad_rows(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = write(tmp_path, "Charades_v1_train.csv", files.CHARADES.replace(old, new), "46GP8.mp4|N11GT.mp4")
    check_rejected(path, "charades", message)


def test_charades_sentences(tmp_path: Path) -> None:
    path = write(tmp_path, "charades_sta_train.txt", files.CHARADES_STA, "46GP8.mp4|N11GT.mp4")
    assert load_dataset(path).annotations[0] == note(
        "46GP8.mp4", 24.3, 30.4, DESCRIBED, text="a person turns a light on."
    )
    path.write_text(files.CHARADES_STA + "46GP8 24.3##x\n")
    with pytest.raises(AnnotationError, match=r"line 3: '46GP8 24.3##x' is not a clip, start, end and sentence\n"):
        load_dataset(path)


# --- LosslessCut ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["yard.csv", "yard.mp4.csv"])
def test_losslesscut(tmp_path: Path, name: str) -> None:
    assert load_dataset(write(tmp_path, name, files.LOSSLESSCUT, "yard.mp4")).annotations == (
        note("yard.mp4", 0.0, 56.9568, "First segment starting at 0"),
        note("yard.mp4", 70, 842.33, "Another, quoted label"),
    )


def test_losslesscut_rejects_open_and_nameless_segments(tmp_path: Path) -> None:
    write(tmp_path, "yard.csv", files.LOSSLESSCUT + "1234,,Last segment\n4,5,\n", "yard.mp4")
    with pytest.raises(AnnotationError) as raised:
        load_dataset(tmp_path / "yard.csv")
    assert "line 3: no end: the segment goes on to the end of the video" in raised.value.message
    assert "line 4: no label" in raised.value.message


# --- subtitles ------------------------------------------------------------------------------------------------------


def test_subtitles_vtt(tmp_path: Path) -> None:
    assert load_dataset(write(tmp_path, "yard.mp4.vtt", files.VTT, "yard.mp4")).annotations == (
        note("yard.mp4", 11.0, 13.25, "fall & rise", text="A man falls from a chair."),
        note("yard.mp4", 3614.0, 3615.0, "walk"),
    )


def test_subtitles_srt(tmp_path: Path) -> None:
    text = files.SRT.replace("\n", "\r\n")
    assert load_dataset(write(tmp_path, "yard.srt", text, "yard.mp4")).annotations == (
        note("yard.mp4", 11.0, 13.25, "fall", text="A man falls."),
        note("yard.mp4", 14.0, 15.0, "walk"),
    )


def test_subtitles_of_predict(tmp_path: Path) -> None:
    cues = ("00:01.000 --> 00:02.000\nfall 87%\n[fall, a person]\n", "00:03.000 --> 00:04.000\nwalk 100%\nHe walks.\n")
    text = "\n".join(("WEBVTT\n", *cues))
    write(tmp_path / "events/cam1/a.mp4", "events.vtt", text)
    write(tmp_path / "events/cam1/a.mp4", "events.srt", "")
    convert(tmp_path / "events", tmp_path / "out.csv", ConvertConfig())
    assert (tmp_path / "out.csv").read_text() == (
        "video,start,end,label,description,split,score\na.mp4,1.0,2.0,fall,,,0.87\na.mp4,3.0,4.0,walk,He walks.,,1.0\n"
    )


def test_subtitles_without_cues_are_event_free(tmp_path: Path) -> None:
    write(tmp_path, "a.vtt", "WEBVTT\n", "a.mp4")
    assert load_dataset(tmp_path / "a.vtt").annotations == (note("a.mp4"),)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("WEBVTT\n\n00:01 -> 00:02\nx\n", r"a.vtt: no cue\n  a cue begins like 00:00:01.000 --> 00:00:02.500"),
        ("WEBVTT\n\nx --> 00:02.000\nx\n", r"line 3: 'x --> 00:02.000' are not two times\n  a cue begins"),
        ("WEBVTT\n\n00:99:01.000 --> 00:02.000\nx\n", r"line 3: start '00:99:01.000' is not a time"),
        ("WEBVTT\n\n00:01.000 --> 00:02.000\n\n", r"line 3: a cue without text\n  its first line is the label"),
    ],
)
def test_subtitles_reject_bad_cues(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(AnnotationError, match=message):
        load_dataset(write(tmp_path, "a.vtt", text, "a.mp4"))


def test_subtitles_beside_annotations_are_not_read(tmp_path: Path) -> None:
    write(tmp_path, "a.srt", files.SRT, "a.mp4")
    write(tmp_path, *files.FILES["e2e-spot"], "match_1.mp4|match_2.mp4")
    assert list(load_dataset(tmp_path).recordings) == ["match_1.mp4", "match_2.mp4"]


# --- VIA ------------------------------------------------------------------------------------------------------------


def test_via_project(tmp_path: Path) -> None:
    dataset = load_dataset(write(tmp_path, "via.json", files.VIA, "yard.mp4|later.mp4"))
    assert dataset.annotations == (
        note("yard.mp4", 1.5, 3.0, "fall", text="slowly"),
        note("yard.mp4", 4.0, 5.25, "waits"),  # no option is chosen
    )
    assert dataset.notes == (
        "1 moment with drawn regions skipped: vidgru reads segments",
        "1 video without segments skipped (first: later.mp4)",
    )


def test_via_project_on_one_line_is_no_json_lines(tmp_path: Path) -> None:
    project = copy.deepcopy(files.VIA)
    project["attribute"]["1"]["options"]["1"] = "video"
    assert load_dataset(write(tmp_path, "via.json", project, "yard.mp4")).labels == ("video", "waits")


def test_via_table(tmp_path: Path) -> None:
    dataset = load_dataset(write(tmp_path, "via.csv", files.VIA_TABLE, "yard.mp4"))
    assert dataset.annotations == (note("yard.mp4", 1.5, 3.0, "fall"),)


def test_via_attributes_are_selected_by_tiers(tmp_path: Path) -> None:
    write(tmp_path, "via.json", files.VIA, "yard.mp4")
    yaml = write(tmp_path, "set.yaml", "annotations: via.json\ntiers: [action]\n")
    assert load_dataset(yaml).annotations == (note("yard.mp4", 1.5, 3.0, "fall"),)
    with pytest.raises(
        AnnotationError, match=r"no attribute 'actoin' \(did you mean 'action'\?\)\n  its attributes are"
    ):
        load_dataset(write(tmp_path, "set.yaml", "annotations: via.json\ntiers: [actoin]\n"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vid": "7"}, r"metadata.1_a1b2c3d4: view 7 is not in view\n  export the project again"),
        ({"z": [1, 2, 3]}, r"metadata.1_a1b2c3d4: 3 times instead of two\n  draw"),
        ({"av": {}}, r"metadata.1_a1b2c3d4: a segment without a label\n  choose one in VIA"),
    ],
)
def test_via_rejects_bad_segments(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    project = copy.deepcopy(files.VIA)
    project["metadata"]["1_a1b2c3d4"] |= change
    with pytest.raises(AnnotationError, match=message):
        load_dataset(write(tmp_path, "via.json", project, "yard.mp4"))


def test_via_rejects_bad_tables(tmp_path: Path) -> None:
    for text, message in (
        (files.VIA_TABLE.replace(',0,"[1.5,3]"', ""), "line 4: 4 cells instead of 6\n"),
        (files.VIA_TABLE.replace('"[1.5,3]"', '"[1.5"'), "line 4: not JSON: "),
    ):
        with pytest.raises(AnnotationError, match=message):
            load_dataset(write(tmp_path, "via.csv", text, "yard.mp4"))
    project = copy.deepcopy(files.VIA)
    project["view"]["1"]["fid_list"] = []
    with pytest.raises(AnnotationError, match=r"view.1: a view without a file\n(?s:.*)\n  delete it in VIA"):
        load_dataset(write(tmp_path, "via.json", project, "yard.mp4"))


# --- files that are not read ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "a.csv",
            ",Ear_left_1_x,Ear_left_1_y,Ear_left_1_p\n0,1.5,2.5,0.9\n",
            r"a SimBA pose file\n  vidgru reads its anno",
        ),
        (
            "a.csv",
            "scorer,DLC,DLC\nbodyparts,nose,nose\n",
            r"a DeepLabCut pose file\n  import boxes and poses with --det",
        ),
        ("a.csv", "annotation_id,id,lead_time,video,label\n", r"a Label Studio CSV\n  export it as JSON"),
        ("a.mat", "MATLAB 5.0 MAT-file, created\n", r"a MATLAB file\n  write its bouts as video,start,end,label"),
        ("a.parquet", "PAR1", r"a Parquet file\n  save it as CSV"),
        ("a.txt", "0 0.5 0.5 0.1 0.1\n1 0.5 0.5 0.1 0.1\n", r"a YOLO label file \(boxes of one picture\)\n"),
        ("a.txt", "1,1,912,484,97,109,0,7,1\n", r"a MOT track file\n"),
        ("a.csv", "epoch,train/box_loss\n1,0.3\n", r"a training log\n  pass the annotation file"),
        ("a.txt", "[Script Info]\nTitle: x\n", r"ASS subtitles\n  convert them to WebVTT"),
        ("a.TextGrid", 'File type = "ooTextFile"\n', r"a Praat TextGrid\n  import it into ELAN"),
        ("a.xml", '<?xml version="1.0"?>\n<annotation>\n', r"a Pascal VOC file"),
        ("a.json", '{"images": [], "annotations": [], "categories": []}', r"COCO annotations of pictures\n"),
        (
            "a.json",
            '{"_via_settings": {}, "_via_img_metadata": {}}',
            r"a project of VIA 2, the annotator of pictures\n",
        ),
    ],
)
def test_unsupported_files_are_named(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(AnnotationError, match=rf"{name} is {message}"):
        load_dataset(write(tmp_path, name, text))


@pytest.mark.parametrize(
    ("name", "head", "message"),
    [
        ("a.h5", b"\x89HDF\r\n\x1a\n", r"an HDF5 file\n  export poses of DeepLabCut .* SLEAP .* --detections"),
        ("a.pkl", b"\x80\x04\x95", r"a Python pickle\n  export its content as CSV"),
    ],
)
def test_binary_files_are_named(tmp_path: Path, name: str, head: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(head + bytes(600))  # FFmpeg would take it for a video of karaoke graphics
    for command in (load_dataset, inspect_path):
        with pytest.raises(AnnotationError, match=rf"{name} is {message}"):
            command(tmp_path / name)


def test_spreadsheets_are_named(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.xlsx", "w") as archive:
        archive.writestr("[Content_Types].xml", "<Types/>")
    for command in (load_dataset, inspect_path):
        with pytest.raises(
            AnnotationError, match=r'a.xlsx is an Office file\n  save the sheet as "CSV UTF-8", with the'
        ):
            command(tmp_path / "a.xlsx")
