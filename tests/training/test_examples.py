"""The task that annotations define, and their clips and events as training examples."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.datasets.annotation_files import csv_set, folder_set
from vidgru.config import TrainConfig
from vidgru.datasets.annotations import load_dataset
from vidgru.datasets.dataset import Dataset, event_timelines
from vidgru.datasets.splits import assign_splits
from vidgru.errors import AnnotationError
from vidgru.model.checkpoint import EventTask, HeadSpec
from vidgru.training.examples import (
    check_task_labels,
    clip_examples,
    recording_examples,
    split_examples,
    task_from_dataset,
    untimed_clips,
)
from vidgru.training.members import member_count
from vidgru.types import DESCRIBED

TIMES = np.arange(80) / 8  # ten seconds
ONE, SOME, SEVERAL = (
    HeadSpec(background=False, multi_label=False),
    HeadSpec(background=True, multi_label=False),
    HeadSpec(background=False, multi_label=True),
)


def task(tmp_path: Path, *rows: str) -> EventTask:
    return task_from_dataset(csv_set(tmp_path / "set", *rows))


# --- which heads ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rows", "clips", "timed"), [
    (["a.mp4,,,walk,,", "b.mp4,,,fall,,"], ONE, None),
    (["a.mp4,,,walk,,", "b.mp4,,,fall,,", "c.mp4,,,,,"], SOME, None),
    (["a.mp4,,,walk,,", "c.mp4,,,,,"], SOME, None),
    (["a.mp4,,,walk,,", "a.mp4,,,fall,,", "b.mp4,,,fall,,"], SEVERAL, None),
    (["a.mp4,,,walk,,", "a.mp4,,,fall,,", "c.mp4,,,,,"], SEVERAL, None),
    (["a.mp4,1,2,walk,,"], None, SOME),
    (["a.mp4,1,2,walk,,", "b.mp4,3,4,fall,,", "c.mp4,,,,,"], None, SOME),
    (["a.mp4,1,5,walk,,", "a.mp4,3,7,fall,,"], None, SEVERAL),
    (["a.mp4,1,5,walk,,", "a.mp4,1,5,fall,,"], None, SEVERAL),
    (["a.mp4,1,5,walk,,", "a.mp4,3,7,walk,,"], None, SOME),  # of one label: no other happens at once
    (["a.mp4,1,5,walk,,", "a.mp4,4.8,9,fall,,"], None, SOME),  # a slip of the hand at the edge
    (["a.mp4,1,5,walk,,", "a.mp4,2,3,walk,,", "a.mp4,4.8,9,fall,,"], None, SOME),
    (["a.mp4,1,5,walk,,", "b.mp4,1,5,fall,,"], None, SOME),  # at once, but elsewhere
    (["a.mp4,1,2,walk,,", "b.mp4,,,walk,,", "c.mp4,,,fall,,"], ONE, SOME),
    (["a.mp4,1,2,walk,,", "b.mp4,,,walk,,", "c.mp4,,,,,"], SOME, SOME),
])  # fmt: skip
def test_task_heads_from_annotations(
    tmp_path: Path, rows: list[str], clips: HeadSpec | None, timed: HeadSpec | None
) -> None:
    found = task(tmp_path, *rows)
    assert (found.clip_head, found.frame_head) == (clips, timed)
    assert found.labels == tuple(sorted({row.split(",")[3] for row in rows} - {""}))


@pytest.mark.parametrize(("rows", "message"), [
    (["a.mp4,,,,,", "b.mp4,,,,,"], "no row has a label\n  fill in the column label"),
    (["a.mp4,,,walk,,", "b.mp4,,,walk,,"], "every clip has the label 'walk': nothing to distinguish\n  add clips with"),
    (["a.mp4,1,2,walk,,", "b.mp4,,,walk,,"], r"every clip has the label 'walk': (?s:.*)or remove the rows without"),
])  # fmt: skip
def test_task_with_nothing_to_distinguish_is_refused(tmp_path: Path, rows: list[str], message: str) -> None:
    with pytest.raises(AnnotationError, match=message):
        task(tmp_path, *rows)


@pytest.mark.parametrize(("rows", "clips", "timed"), [
    (["a.mp4,,,,He falls,", "b.mp4,,,,He walks,"], None, None),
    (["a.mp4,1,2,,He falls,", "a.mp4,3,4,,He walks,"], None, SOME),
    (["a.mp4,1,2,,He falls,", "b.mp4,,,,He walks,"], None, SOME),
    (["a.mp4,,,,He falls,", "b.mp4,,,,,"], SOME, None),
])  # fmt: skip
def test_task_of_descriptions_alone(
    tmp_path: Path, rows: list[str], clips: HeadSpec | None, timed: HeadSpec | None
) -> None:
    """Heads tell apart what happens and what does not; with nothing to tell apart there is none."""
    assert task(tmp_path, *rows) == EventTask(labels=(DESCRIBED,), clip_head=clips, frame_head=timed)
    dataset = csv_set(tmp_path, *rows)
    with pytest.raises(AnnotationError, match="no row has a label\n  fill in the column label"):
        task_from_dataset(dataset, captions=False)


def test_task_of_single_label_with_descriptions(tmp_path: Path) -> None:
    rows = "a.mp4,,,walk,He walks,", "b.mp4,,,walk,She walks,"
    assert task(tmp_path / "told", *rows) == EventTask(labels=("walk",))
    with pytest.raises(AnnotationError, match="every clip has the label 'walk': nothing to distinguish"):
        task_from_dataset(csv_set(tmp_path / "plain", *rows), captions=False)


def test_task_of_descriptions_without_captions_is_refused(tmp_path: Path) -> None:
    dataset = csv_set(tmp_path / "set", "a.mp4,,,,He walks,", "b.mp4,,,,She walks,")
    assert task_from_dataset(dataset) == EventTask(labels=(DESCRIBED,))
    with pytest.raises(AnnotationError, match="no row has a label\n  fill in the column label, or pass --captions"):
        task_from_dataset(dataset, captions=False)


def test_task_with_unused_labels_is_refused(tmp_path: Path) -> None:
    dataset = replace(csv_set(tmp_path / "set", "a.mp4,,,,He walks,"), labels=("fall", "walk"))
    unlabelled = replace(
        dataset, rows=tuple(replace(r, annotation=replace(r.annotation, label=None)) for r in dataset.rows)
    )
    with pytest.raises(
        AnnotationError,
        match=r"no row of the splits train and val has a label, .* labels fall, walk\n  label",
    ):
        task_from_dataset(unlabelled)


def test_task_outputs_and_names() -> None:
    both = EventTask(labels=("fall", "walk"), clip_head=SEVERAL, frame_head=SOME)
    assert (both.num_outputs(both.clip_head), both.num_outputs(both.frame_head), both.num_outputs(None)) == (2, 3, 0)
    assert both.output_names(SEVERAL) == ("fall", "walk")
    assert both.output_names(SOME) == ("fall", "walk", "(no event)")
    assert both.target_vector(SOME, ["walk"]).tolist() == [0, 1, 0]
    assert both.target_vector(SOME, []).tolist() == [0, 0, 1]
    assert both.target_vector(SEVERAL, ["fall", "walk"]).tolist() == [1, 1]
    assert both.target_vector(SEVERAL, []).tolist() == [0, 0]
    with pytest.raises(ValueError, match="EventTask needs labels"):
        EventTask(labels=(), clip_head=ONE)
    with pytest.raises(ValueError, match="EventTask needs a head for its labels fall, walk"):
        EventTask(labels=("fall", "walk"))
    assert EventTask(labels=(DESCRIBED,)).num_outputs(None) == 0


# --- annotations that a model cannot get right ----------------------------------------------------------------------


def checked(dataset: Dataset, model: EventTask) -> None:
    check_task_labels(model, dataset, untimed_clips(dataset), event_timelines(dataset))


@pytest.mark.parametrize(("rows", "head", "message"), [
    (["a.mp4,,,run,,"], ONE, r"has the label 'run', which the model does not know; it knows fall, walk\n  train a mo"),
    (["a.mp4,1,2,run,,"], ONE, r"a\.mp4 has the label 'run', which the model does not know; it knows fall, walk"),
    (["a.mp4,,,fall,,", "a.mp4,,,walk,,"], ONE, r"a\.mp4 has several labels \(fall, walk\), the model predicts one"),
    (["a.mp4,,,fall,,", "b.mp4,,,,,"], ONE, r"b\.mp4 has no event, but the model was trained without event-free clips"),
])  # fmt: skip
def test_check_labels_refuses_other_task(tmp_path: Path, rows: list[str], head: HeadSpec, message: str) -> None:
    dataset = csv_set(tmp_path / "set", *rows)
    with pytest.raises(AnnotationError, match=message):
        checked(dataset, EventTask(labels=("fall", "walk"), clip_head=head))


@pytest.mark.parametrize(("rows", "head"), [
    (["a.mp4,,,fall,,", "a.mp4,,,walk,,"], SEVERAL),
    (["a.mp4,,,fall,,", "b.mp4,,,,,"], SOME),
    (["a.mp4,,,fall,,", "b.mp4,,,,,"], SEVERAL),
    (["a.mp4,1,2,fall,,", "a.mp4,1,2,walk,,", "b.mp4,,,,,"], ONE),  # events may overlap whatever the model tells
])  # fmt: skip
def test_check_labels_accepts_same_task(tmp_path: Path, rows: list[str], head: HeadSpec) -> None:
    checked(csv_set(tmp_path / "set", *rows), EventTask(labels=("fall", "walk"), clip_head=head))
    checked(csv_set(tmp_path / "set", *rows), EventTask(labels=("fall", "walk"), frame_head=SOME))


# --- as frames ------------------------------------------------------------------------------------------------------


def test_clip_examples_of_whole_recordings(tmp_path: Path) -> None:
    rows = ["a.mp4,,,walk,,train", "b.mp4,,,,,train", "c.mp4,1,2,walk,,train", "d.mp4,,,walk,,val"]
    dataset = csv_set(tmp_path / "set", *rows)
    times = dict.fromkeys(dataset.recordings, TIMES)
    placed = clip_examples(dataset, "train", times, task_from_dataset(dataset))
    assert [(clip.video, clip.frames, clip.labels.tolist()) for clip in placed] == [
        ("a.mp4", 80, [1, 0]),
        ("b.mp4", 80, [0, 1]),
    ]
    empty = {**times, "a.mp4": TIMES[:0]}
    assert clip_examples(dataset, "train", empty, task_from_dataset(dataset))[0].video == "b.mp4"
    assert clip_examples(dataset, "train", times, EventTask(labels=("walk",), frame_head=SOME)) == []


def test_recording_examples_mark_frames_of_events(tmp_path: Path) -> None:
    rows = ["a.mp4,1,2,walk,,train", "a.mp4,4,5.5,fall,,train", "b.mp4,,,,,train"]
    dataset = csv_set(tmp_path / "set", *rows)
    a, b = recording_examples(dataset, "train", dict.fromkeys(dataset.recordings, TIMES), task_from_dataset(dataset))
    truth = np.zeros((80, 3), np.float32)
    truth[:, 2] = 1
    truth[8:16], truth[32:44] = [0, 1, 0], [1, 0, 0]
    assert np.array_equal(a.targets, truth)
    assert a.events.tolist() == [[8, 16, 1], [32, 44, 0]]
    assert a.weights.tolist() == b.weights.tolist() == [1] * 80
    assert b.targets.tolist() == [[0, 0, 1]] * 80
    assert b.events.shape == (0, 3)
    assert len(a) == 80
    assert recording_examples(dataset, "train", {}, EventTask(labels=("fall", "walk"), clip_head=SOME)) == []


def test_recording_examples_multi_label_overlap(tmp_path: Path) -> None:
    dataset = csv_set(tmp_path / "set", "a.mp4,1,3,walk,,train", "a.mp4,2,4,fall,,train")
    (a,) = recording_examples(dataset, "train", {"a.mp4": TIMES}, task_from_dataset(dataset))
    assert a.targets[[4, 8, 16, 24, 32]].tolist() == [[0, 0], [0, 1], [1, 1], [1, 0], [0, 0]]


def test_recording_examples_ignore_other_splits(tmp_path: Path) -> None:
    rows = ["a.mp4,1,2,walk,,train", "a.mp4,4,5,walk,,val", "a.mp4,1.5,1.75,walk,,test"]
    dataset = csv_set(tmp_path / "set", *rows)
    (train,) = recording_examples(dataset, "train", {"a.mp4": TIMES}, task_from_dataset(dataset))
    ignored = np.flatnonzero(train.weights == 0)
    assert ignored.tolist() == list(range(32, 40))  # what is said in train counts, whoever else says something
    assert train.targets[32:40, 1].tolist() == [1] * 8
    (val,) = recording_examples(dataset, "val", {"a.mp4": TIMES}, task_from_dataset(dataset))
    assert np.flatnonzero(val.weights == 0).tolist() == list(range(8, 16))
    each = recording_examples(dataset, None, {"a.mp4": TIMES}, task_from_dataset(dataset))
    assert [example.spans_s.tolist() for example in each] == [[[1, 2]], [[4, 5]], [[1.5, 1.75]]]


def test_recording_examples_ignore_labels(tmp_path: Path) -> None:
    (tmp_path / "set.yaml").write_text("annotations: annotations.csv\nlabels: {unsure: ignore}\n")
    csv_set(tmp_path, "a.mp4,1,2,walk,,train", "a.mp4,1.5,3,unsure,,train", "b.mp4,0,1,unsure,,train")
    dataset = load_dataset(tmp_path / "set.yaml")
    a, b = recording_examples(dataset, "train", dict.fromkeys(dataset.recordings, TIMES), task_from_dataset(dataset))
    assert np.flatnonzero(a.weights == 0).tolist() == list(range(16, 24)), "what is labelled counts"
    assert a.events.tolist() == [[8, 16, 0]]
    assert np.flatnonzero(b.weights == 0).tolist() == list(range(8))
    assert b.targets[:, -1].tolist() == [1] * 80


def test_recording_examples_leave_out_unwatched_frames(tmp_path: Path) -> None:
    rows = ["a.mp4,1,2,walk,,", "a.mp4,2.03,3,background,,", "a.mp4,8,9.9,background,,", "b.mp4,9,9.9,background,,"]
    dataset = csv_set(tmp_path, *rows, "c.mp4,1,2,walk,,")
    task = task_from_dataset(dataset)
    a, b, c = recording_examples(dataset, "train", dict.fromkeys(dataset.recordings, TIMES), task)
    assert np.flatnonzero(a.weights).tolist() == [*range(8, 16), *range(17, 24), *range(64, 80)]
    assert a.events.tolist() == [[8, 16, 0]]
    assert np.flatnonzero(b.weights).tolist() == list(range(72, 80))
    assert c.weights.all()
    early = recording_examples(dataset, "train", dict.fromkeys(dataset.recordings, TIMES[:40]), task)
    assert [example.video for example in early] == ["a.mp4", "c.mp4"]  # of b, nothing that was watched is decoded


def test_whole_background_rows_are_event_free_clips(tmp_path: Path) -> None:
    dataset = csv_set(tmp_path, "a.mp4,,,walk,,", "b.mp4,,,background,,", "c.mp4,,,fall,,")
    task = task_from_dataset(dataset)
    assert task.clip_head == SOME
    examples = clip_examples(dataset, "train", dict.fromkeys(dataset.recordings, TIMES), task)
    assert [example.labels.tolist() for example in examples] == [[0, 1, 0], [0, 0, 1], [1, 0, 0]]


def test_recording_examples_skip_undecoded_events(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = csv_set(tmp_path / "set", "a.mp4,0,1,walk,,train", "a.mp4,8,9,fall,,train")
    truncated = {"a.mp4": TIMES[:32]}  # the file ends after 4 s
    (recording,) = recording_examples(dataset, "train", truncated, task_from_dataset(dataset))
    assert recording.events.tolist() == [[0, 8, 1]]
    assert "skipped: a.mp4 has no frames from 8 s on" in capsys.readouterr().err


# --- members ----------------------------------------------------------------------------------------------------------


def times_of(dataset: Dataset, frames: int = 80) -> dict[str, np.ndarray]:
    return dict.fromkeys(dataset.recordings, np.arange(frames) / 8)


def test_member_count_without_groups_to_hold_out(tmp_path: Path) -> None:
    """All members learn from all recordings, unless the file itself holds some out."""
    rows = [f"{label}.mp4,,,{label},," for label in "abc"]
    dataset = assign_splits(csv_set(tmp_path / "one", *rows))
    assert dataset.splits == ("train", "val")
    assert member_count(dataset, TrainConfig(), {}) == 5
    assert member_count(dataset, TrainConfig(members=1), {}) == 1
    task = task_from_dataset(dataset)
    train, held_out = split_examples(dataset, 5, times_of(dataset), task, TrainConfig())
    assert [(clip.video, clip.fold) for clip in train.clips] == [("a.mp4", -1), ("b.mp4", -1), ("c.mp4", -1)]
    assert {clip.fold for clip in held_out.clips} == {-1}
    own = csv_set(tmp_path / "val", "a.mp4,,,a,,train", "b.mp4,,,b,,train", "c.mp4,,,c,,val")
    assert member_count(own, TrainConfig(), {}) == 1


def test_split_examples_of_single_member(tmp_path: Path) -> None:
    dataset = folder_set(tmp_path, 7, val=2)
    train, val = split_examples(dataset, 1, times_of(dataset), task_from_dataset(dataset), TrainConfig())
    assert {clip.fold for clip in train.clips} == {-1}
    assert {clip.fold for clip in val.clips} == {0}
    assert {clip.video.split("/")[0] for clip in val.clips} == {"cam0", "cam1"}
    assert len(train.clips) == 20


def test_split_examples_of_members(tmp_path: Path) -> None:
    """Every clip of train and val is learnt by all members but one, which it measures."""
    dataset = folder_set(tmp_path, 7, val=2)
    train, held_out = split_examples(dataset, 5, times_of(dataset), task_from_dataset(dataset), TrainConfig())
    assert [clip.video for clip in held_out.clips] == [clip.video for clip in train.clips]
    assert {clip.video for clip in train.clips} == set(dataset.recordings)
    assert {clip.video.split("/")[0] for clip in train.clips if clip.fold == 0} == {"cam0", "cam1"}
    assert {clip.fold for clip in train.clips} == set(range(5))
