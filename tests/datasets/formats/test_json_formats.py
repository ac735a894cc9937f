"""JSON files of other tools; where their shapes come from stands beside them in files.py."""

import copy
from pathlib import Path
from typing import Any

import pytest

from tests.datasets.formats import files
from tests.datasets.formats.files import write
from vidgru.datasets.annotations import load_dataset
from vidgru.errors import AnnotationError
from vidgru.types import DESCRIBED, Annotation


def note(video: str, start_s: float | None = None, end_s: float | None = None, label: str | None = None, split: str | None = None, text: str | None = None) -> Annotation:  # fmt: skip  # noqa: E501
    return Annotation(video=video, start_s=start_s, end_s=end_s, label=label, split=split, description=text)


# --- ActivityNet ----------------------------------------------------------------------------------------------------


def test_activitynet(tmp_path: Path) -> None:
    path = write(tmp_path, "gt.json", files.ACTIVITYNET, "v_abc_-012345.mp4|sub/quiet000000.mkv")
    dataset = load_dataset(path)
    assert dataset.annotations == (
        note("v_abc_-012345.mp4", 0.01, 81.58, "Mopping", "train"),
        note("v_abc_-012345.mp4", 12.5, 20.0, "Singing", "train"),
        note("sub/quiet000000.mkv", split="val"),
    )
    assert dataset.rows[1].where == "database.abc_-012345.annotations[1]"
    assert dataset.durations == {"v_abc_-012345.mp4": 82.73, "sub/quiet000000.mkv": 10.0}
    assert dataset.notes == ("1 testing video skipped: annotations withheld",)


def test_activitynet_annotated_testing_subset(tmp_path: Path) -> None:
    root = copy.deepcopy(files.ACTIVITYNET)
    root["database"]["abc_-012345"]["subset"] = "testing"
    dataset = load_dataset(write(tmp_path, "gt.json", root, "abc_-012345.mp4|quiet000000.mp4|hidden00000.mp4"))
    assert dataset.annotations[-1] == note("hidden00000.mp4", split="test")


def test_activitynet_results(tmp_path: Path) -> None:
    dataset = load_dataset(write(tmp_path, "out.json", files.ACTIVITYNET_RESULTS, "abc_-012345.mp4"))
    assert dataset.annotations == (note("abc_-012345.mp4", 1.25, 2.5, "Mopping"),)
    assert dataset.rows[0].extra == {"score": "0.64"}


def test_activitynet_of_mmaction2(tmp_path: Path) -> None:
    dataset = load_dataset(write(tmp_path, "anet.json", files.MMACTION_ACTIVITYNET, "video1.mp4"))
    assert dataset.annotations == (note("video1.mp4", 30.02, 205.23, "Climbing"),)
    assert dataset.durations == {"video1.mp4": 211.53}


def test_activitynet_captions_are_descriptions(tmp_path: Path) -> None:
    dataset = load_dataset(write(tmp_path, "train.json", files.CAPTIONS, "v_abc_-012345.mp4"))
    assert dataset.annotations == (
        note("v_abc_-012345.mp4", 0.83, 19.86, DESCRIBED, text="A woman fills a bucket."),
        note("v_abc_-012345.mp4", 17.37, 60.81, DESCRIBED, text="She mops the floor of a hall."),
    )
    assert dataset.rows[1].where == "v_abc_-012345.sentences[1]"


def test_activitynet_caption_ids_without_prefix(tmp_path: Path) -> None:
    dataset = load_dataset(write(tmp_path, "train.json", files.CAPTIONS, "abc_-012345.mp4"))
    assert list(dataset.recordings) == ["abc_-012345.mp4"]


def test_zero_length_intervals_are_skipped(tmp_path: Path) -> None:
    root = copy.deepcopy(files.ACTIVITYNET)
    root["database"]["abc_-012345"]["annotations"][0]["segment"] = [3, 3]
    dataset = load_dataset(write(tmp_path, "gt.json", root, "abc_-012345.mp4|quiet000000.mp4"))
    assert [a.label for a in dataset.annotations] == ["Singing", None]
    assert dataset.warnings == ("1 interval of zero length skipped (first: database.abc_-012345.annotations[0])",)


@pytest.mark.parametrize(
    ("segment", "message"),
    [
        ([5, 3], r"annotations\[0\]: end 3 is not after start 5\n"),
        ([-1, 3], r"annotations\[0\]: start -1 is before the recording starts\n"),
        ([1, float("nan")], r"annotations\[0\].segment\[1\]: NaN is not a number\n"),
        ([1], r"annotations\[0\].segment: \[1\] is not two numbers, start and end\n"),
        ("1-3", r"annotations\[0\].segment: \"1-3\" is not a list\n"),
        ([1, 1e300], r"annotations\[0\].segment\[1\]: 1e\+300 is not a number\n"),
        ([1, 1e12], r"annotations\[0\]: start 1 or end 1e\+12 is not a time\n"),
        ([1, 10**400], r"annotations\[0\].segment\[1\]: 1000000000.* is not a number\n"),
    ],
)
def test_activitynet_errors_name_the_path(tmp_path: Path, segment: Any, message: str) -> None:
    root = copy.deepcopy(files.ACTIVITYNET)
    root["database"]["abc_-012345"]["annotations"][0]["segment"] = segment
    with pytest.raises(AnnotationError, match=r"gt.json, database.abc_-012345." + message):
        load_dataset(write(tmp_path, "gt.json", root))


def test_activitynet_captions_without_times(tmp_path: Path) -> None:
    root = copy.deepcopy(files.CAPTIONS)
    root["v_abc_-012345"]["timestamps"].pop()
    with pytest.raises(AnnotationError, match=r"v_abc_-012345: 1 timestamps for 2 sentences\n  give one"):
        load_dataset(write(tmp_path, "train.json", root))


def test_missing_ids_are_errors(tmp_path: Path) -> None:
    path = write(tmp_path, "gt.json", files.ACTIVITYNET, "v_abc_-012345.mp4")
    message = r"1 video missing: quiet000000 \(database.quiet000000.annotations\); looked in .*\n.*--allow-missing"
    with pytest.raises(AnnotationError, match=message):
        load_dataset(path)


# --- moments --------------------------------------------------------------------------------------------------------


def test_e2e_spot(tmp_path: Path) -> None:
    path = write(tmp_path, "train.json", files.SPOT, "match_1.mp4|match_2.mp4")
    dataset = load_dataset(path)
    assert dataset.annotations == (
        note("match_1.mp4", 20.5, 21.5, "far_court_serve"),
        note("match_1.mp4", 0.0, 0.7, "near_court_swing"),  # cut at the start
        note("match_2.mp4"),
    )
    assert dataset.half_width_s == 0.5
    assert dataset.durations == {"match_1.mp4": 173.0, "match_2.mp4": 2.0}


def test_spotting_half_width(tmp_path: Path) -> None:
    write(tmp_path, "train.json", files.SPOT, "match_1.mp4|match_2.mp4")
    yaml = write(tmp_path, "set.yaml", "annotations: train.json\nhalf_width: 2\nfps: 50\n")
    dataset = load_dataset(yaml)
    assert dataset.half_width_s == 2.0
    assert dataset.annotations[0] == note("match_1.mp4", 8.5, 12.5, "far_court_serve")


def test_split_from_file_names(tmp_path: Path) -> None:
    write(tmp_path, "train.json", files.SPOT[:1], "match_1.mp4|match_2.mp4")
    write(tmp_path, "val.json", files.SPOT[1:])
    dataset = load_dataset(tmp_path)
    assert [a.split for a in dataset.annotations] == ["train", "train", "val"]
    assert dataset.rows[2].where == "val.json, [0]"


def test_soccernet(tmp_path: Path) -> None:
    game = "england_epl/2014-2015/2015-02-21 - 18-00 Chelsea 1 - 1 Burnley"
    other = "england_epl/2014-2015/2015-05-17 - 18-00 Manchester United 1 - 1 Arsenal"
    videos = f"{game}/1_720p.mkv|{game}/2_224p.mkv|{other}/1_720p.mkv|{other}/2_720p.mkv"
    write(tmp_path / game, "Labels-v2.json", files.SOCCERNET)
    write(tmp_path, "readme.md", "", videos)
    dataset = load_dataset(tmp_path)
    assert dataset.annotations == (
        note(f"{game}/1_720p.mkv", 20.98, 21.98, "Kick-off"),
        note(f"{game}/2_224p.mkv", 61.5, 62.5, "Goal"),
    )
    beside = load_dataset(tmp_path / game / "Labels-v2.json")
    assert sorted(beside.recordings) == ["1_720p.mkv", "2_224p.mkv"]


def test_soccernet_missing_game(tmp_path: Path) -> None:
    videos = "england_epl/2014-2015/2015-05-17 - 18-00 Manchester United 1 - 1 Arsenal/1_720p.mkv"
    path = write(tmp_path, "Labels-v2.json", files.SOCCERNET, videos)
    with pytest.raises(AnnotationError, match=r"2 videos missing: england_epl/.*Burnley/1 \(annotations\[0\]\)"):
        load_dataset(path)


def test_soccernet_game_in_one_video(tmp_path: Path) -> None:
    root = copy.deepcopy(files.SOCCERNET)
    root["UrlLocal"] = "2019-10-01 - Blackburn Rovers - Nottingham Forest"
    del root["annotations"][1], root["annotations"][0]["position"]
    dataset = load_dataset(write(tmp_path, "Labels-ball.json", root, "224p.mp4"))
    assert dataset.annotations == (note("224p.mp4", 20.5, 21.5, "Kick-off"),)


def test_soccernet_rejects_bad_game_time(tmp_path: Path) -> None:
    root = copy.deepcopy(files.SOCCERNET)
    root["annotations"][0]["gameTime"] = "first half"
    with pytest.raises(AnnotationError, match=r'annotations\[0\].gameTime: "first half" is not half and time, as in'):
        load_dataset(write(tmp_path, "Labels-v2.json", root))


# --- Label Studio ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("video", ["yard.mp4", "0a1b2c3d-yard.mp4"])
def test_label_studio(tmp_path: Path, video: str) -> None:
    path = write(tmp_path, "project-3.json", files.LABEL_STUDIO, f"{video}|gate two.mp4")
    dataset = load_dataset(path)
    # frames 25 to 48 at 24 a second, from 1, both included: the second second
    assert dataset.annotations == (note(video, 1.0, 2.0, "Moving"), note("gate two.mp4"))
    assert dataset.rows[0].where == "[0].annotations[0].result[0].value.ranges[0]"
    assert dataset.notes == ("1 task without annotation skipped",)
    (warning,) = dataset.warnings
    assert warning.startswith("assuming 24 frames per second, Label Studio's default; if the labelling config")


@pytest.mark.parametrize("where", ["yaml", "task"])
def test_label_studio_frame_rate(tmp_path: Path, where: str) -> None:
    root = copy.deepcopy(files.LABEL_STUDIO)
    if where == "task":
        root[0]["data"]["fps"] = 12.0
    write(tmp_path, "project-3.json", root, "yard.mp4|gate two.mp4")
    yaml = write(tmp_path, "set.yaml", "annotations: project-3.json\n" + ("fps: 12\n" if where == "yaml" else ""))
    dataset = load_dataset(yaml)
    assert dataset.annotations[0] == note("yard.mp4", 2.0, 4.0, "Moving")
    assert dataset.warnings == ()


def test_label_studio_single_frame_range(tmp_path: Path) -> None:
    root = copy.deepcopy(files.LABEL_STUDIO_MIN)
    root[0]["timelineLabels"][0]["ranges"] = [{"start": 1, "end": 1}]
    dataset = load_dataset(write(tmp_path, "min.json", root, "yard.mp4"))
    assert dataset.annotations == (note("yard.mp4", 0.0, 1 / 24, "Moving"),)


def test_label_studio_json_min_equals_json(tmp_path: Path) -> None:
    dataset = load_dataset(write(tmp_path, "min.json", files.LABEL_STUDIO_MIN, "yard.mp4"))
    assert dataset.annotations == (note("yard.mp4", 1.0, 2.0, "Moving"),)


def test_label_studio_uses_one_annotation_per_task(tmp_path: Path) -> None:
    root = copy.deepcopy(files.LABEL_STUDIO)
    (first,) = root[0]["annotations"]
    cancelled, truth = copy.deepcopy(first), copy.deepcopy(first)
    cancelled["was_cancelled"] = truth["ground_truth"] = True
    cancelled["result"][0]["value"]["timelinelabels"] = ["Cancelled"]
    truth["result"][0]["value"]["timelinelabels"] = ["True"]
    for notes, label in (([cancelled, first], "Moving"), ([first, truth], "True")):
        root[0]["annotations"] = notes
        dataset = load_dataset(write(tmp_path, "project-3.json", root, "yard.mp4|gate two.mp4"))
        assert dataset.annotations[0].label == label
    assert "1 task annotated more than once; using one annotation of each" in dataset.notes


def test_label_studio_choices_label_clips(tmp_path: Path) -> None:
    root = copy.deepcopy(files.LABEL_STUDIO[:1])
    root[0]["annotations"][0]["result"] = [{"type": "choices", "value": {"choices": ["Night", "Rain"]}}]
    dataset = load_dataset(write(tmp_path, "project-3.json", root, "yard.mp4"))
    assert dataset.annotations == (note("yard.mp4", label="Night"), note("yard.mp4", label="Rain"))


def test_label_studio_labels_of_audio_are_seconds(tmp_path: Path) -> None:
    root = copy.deepcopy(files.LABEL_STUDIO[:1])
    root[0]["annotations"][0]["result"] = [files.LABEL_STUDIO_AUDIO]
    events = (note("yard.mp4", 0.75, 4.5, "Serve"), note("yard.mp4", 0.75, 4.5, "Rally"))
    dataset = load_dataset(write(tmp_path, "project-3.json", root, "yard.mp4"))
    assert dataset.annotations == events
    assert dataset.warnings == ()
    minimal = [{"id": 1, "video": root[0]["data"]["video"], "tricks": [files.LABEL_STUDIO_AUDIO["value"]]}]
    assert load_dataset(write(tmp_path, "min.json", minimal)).annotations == events


def test_label_studio_choices_of_a_region(tmp_path: Path) -> None:
    root = copy.deepcopy(files.LABEL_STUDIO[:1])
    region = {"ranges": [{"start": 25, "end": 48}], "choices": ["Fast"]}
    audio = {"start": 0.5, "end": 1.5, "channel": 0, "choices": ["Slow"]}
    root[0]["annotations"][0]["result"] = [{"type": "choices", "value": value} for value in (region, audio)]
    dataset = load_dataset(write(tmp_path, "project-3.json", root, "yard.mp4"))
    assert dataset.annotations == (note("yard.mp4", 1.0, 2.0, "Fast"), note("yard.mp4", 0.5, 1.5, "Slow"))


def test_label_studio_unread_results_are_no_events(tmp_path: Path) -> None:
    box = {"type": "rectanglelabels", "value": {"x": 1, "y": 1, "width": 5, "height": 5, "rectanglelabels": ["Man"]}}
    letters = {"type": "labels", "value": {"start": 0, "end": 4, "text": "Walk", "labels": ["Word"]}}
    read, unread = copy.deepcopy(files.LABEL_STUDIO[:1]) * 2
    unread = {**copy.deepcopy(unread), "id": 9, "data": {"video": "/data/upload/3/00000000-gate.mp4"}}
    unread["annotations"][0]["result"] = [box, letters]
    path = write(tmp_path, "project-3.json", [unread], "yard.mp4|gate.mp4")
    with pytest.raises(AnnotationError, match="types that are not read: rectanglelabels, labels\n  vidgru reads"):
        load_dataset(path)
    dataset = load_dataset(write(tmp_path, "project-3.json", [read, unread]))
    assert {row.annotation.video for row in dataset.rows} == {"yard.mp4"}
    message = "results of types that are not read: rectanglelabels (in 1 task), labels (in 1 task); 1 task with nothing"
    assert any(warning.startswith(message) and "00000000-gate.mp4" in warning for warning in dataset.warnings)


def test_label_studio_without_annotations(tmp_path: Path) -> None:
    task = {"data": {"video": "/data/yard.mp4"}, "annotations": [], "predictions": [{"result": [{"type": "choices"}]}]}
    path = write(tmp_path, "project-4.json", [task, task], "yard.mp4")
    with pytest.raises(AnnotationError, match=r"none of its 2 tasks is annotated\n  submit .*predictions are not read"):
        load_dataset(path)


def test_label_studio_duration_of_audio(tmp_path: Path) -> None:
    value = {"start": 1.5, "end": 3, "channel": 0, "labels": ["walk"]}
    result = [{"type": "labels", "original_length": 12.5, "value": value}]
    task = {"data": {"video": "/data/yard.mp4"}, "annotations": [{"result": result}]}
    assert load_dataset(write(tmp_path, "project-5.json", [task], "yard.mp4")).durations == {"yard.mp4": 12.5}


def test_label_studio_frames_count_from_1(tmp_path: Path) -> None:
    root = copy.deepcopy(files.LABEL_STUDIO_MIN)
    root[0]["timelineLabels"][0]["ranges"] = [{"start": 0, "end": 5}]
    with pytest.raises(AnnotationError, match=r"ranges\[0\]: frames 0 to 5 are not a range\n  frames count from 1"):
        load_dataset(write(tmp_path, "min.json", root))


def test_label_studio_json_min_entries_per_annotator(tmp_path: Path) -> None:
    (first,) = copy.deepcopy(files.LABEL_STUDIO_MIN)
    second = {**copy.deepcopy(first), "annotator": 2, "annotation_id": 12}
    second["timelineLabels"][0]["timelinelabels"] = ["Still"]
    empty = {"video": "/data/upload/3/00000000-gate.mp4", "id": 6, "annotator": 1, "annotation_id": 10}
    dataset = load_dataset(write(tmp_path, "min.json", [empty, first, second], "yard.mp4|gate.mp4"))
    assert dataset.annotations == (note("gate.mp4"), note("yard.mp4", 1.0, 2.0, "Moving"))
    assert dataset.notes == ("1 task annotated more than once; using one annotation of each",)


def test_label_studio_json_min_without_timelines(tmp_path: Path) -> None:
    root = [{"video": "yard.mp4", "id": 1, "choice": "Night", "annotator": 1, "annotation_id": 2}]
    write(tmp_path, "min.json", root, "yard.mp4")
    yaml = write(tmp_path, "set.yaml", "annotations: min.json\nformat: label-studio\n")
    with pytest.raises(AnnotationError, match=r"min.json: no timeline labels, and JSON-MIN .*\n  export it"):
        load_dataset(yaml)


def test_label_studio_signed_urls(tmp_path: Path) -> None:
    root = copy.deepcopy(files.LABEL_STUDIO[:1])
    root[0]["data"] = {"clip": "https://bucket.s3.amazonaws.com/in/yard.mp4?X-Amz-Date=1&X-Amz-Signature=a%2Fb"}
    assert list(load_dataset(write(tmp_path, "project-3.json", root, "in/yard.mp4")).recordings) == ["in/yard.mp4"]


def test_label_studio_upload_names(tmp_path: Path) -> None:
    root = copy.deepcopy(files.LABEL_STUDIO[:1])
    root[0]["data"]["video"] = "/data/upload/3/0a1b2c3d-gate_two_1.mp4"
    path = write(tmp_path, "project-3.json", root, "cam/gate two (1).mp4")
    assert list(load_dataset(path).recordings) == ["cam/gate two (1).mp4"]


# --- MSR-VTT --------------------------------------------------------------------------------------------------------


def test_msr_vtt(tmp_path: Path) -> None:
    dataset = load_dataset(write(tmp_path, "videodatainfo.json", files.MSR_VTT, "video0.mp4|all/video7.mp4"))
    assert dataset.annotations == (
        note("video0.mp4", label=DESCRIBED, text="a car is shown", split="train"),
        note("video0.mp4", label=DESCRIBED, text="somebody shows a car", split="train"),
        note("all/video7.mp4", label=DESCRIBED, text="people dance", split="val"),
    )
    root = {**files.MSR_VTT, "videos": files.MSR_VTT["videos"][:1]}
    with pytest.raises(AnnotationError, match=r"sentences\[2\]: video video7 is not in videos\n"):
        load_dataset(write(tmp_path, "videodatainfo.json", root))


# --- any of them ----------------------------------------------------------------------------------------------------


def test_broken_json_names_its_line(tmp_path: Path) -> None:
    text = files.FILES["label-studio"][1]
    with pytest.raises(AnnotationError, match=r"project-3.json, line \d\d: not JSON: .*\n  the file may be incomplete"):
        load_dataset(write(tmp_path, "project-3.json", text[: len(text) // 2]))
    with pytest.raises(AnnotationError, match=r"deep.json: unreadable JSON: nested too deeply"):
        load_dataset(write(tmp_path, "deep.json", "[" * 200_000))


@pytest.mark.parametrize("content", ["[]", "{}", "[1, 2]", '{"a": 1}', "null"])
def test_unknown_json(tmp_path: Path, content: str) -> None:
    with pytest.raises(AnnotationError, match=r"x.json is in no known format\n  known formats: .*ActivityNet"):
        load_dataset(write(tmp_path, "x.json", content))


def test_empty_file(tmp_path: Path) -> None:
    with pytest.raises(AnnotationError, match=r"x.json is empty\n  export it again"):
        load_dataset(write(tmp_path, "x.json", " \n"))


def test_text_in_utf_16(tmp_path: Path) -> None:
    path = write(tmp_path, "x.txt", "")
    path.write_bytes("video\tlabel\na.mp4\twalk\n".encode("utf-16"))
    with pytest.raises(AnnotationError, match=r"x.txt is UTF-16\n  save it as UTF-8 \(in Excel"):
        load_dataset(path)


def test_soccernet_uses_one_label_file(tmp_path: Path) -> None:
    for name in ("Labels-v2.json", "Labels-cameras.json"):
        write(tmp_path / "game", name, files.SOCCERNET)
    with pytest.raises(AnnotationError, match=r"2 videos missing: .* \(annotations\[0\]\)"):
        load_dataset(tmp_path)


def test_label_studio_video_under_any_key(tmp_path: Path) -> None:
    root = copy.deepcopy(files.LABEL_STUDIO[:1])
    root[0]["data"] = {"place": "yard", "clip": "s3://bucket/in/yard.MP4"}
    dataset = load_dataset(write(tmp_path, "project-3.json", root, "in/yard.MP4"))
    assert list(dataset.recordings) == ["in/yard.MP4"]
    root[0]["data"] = {"place": "yard"}
    with pytest.raises(AnnotationError, match=r"\[0\]: no video\n  the data of each task must name one"):
        load_dataset(write(tmp_path, "project-3.json", root))
