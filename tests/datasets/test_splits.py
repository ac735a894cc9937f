import math
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.datasets.annotation_files import HEADER, csv_set, write_set
from vidgru.datasets.annotations import load_dataset
from vidgru.datasets.dataset import Dataset, clips
from vidgru.datasets.recording_checks import check_recordings
from vidgru.datasets.report import report
from vidgru.datasets.splits import assign_splits, folds, groups, in_split, member_folds, only_group, stratify
from vidgru.errors import AnnotationError, SettingsError


def many(folder: Path, per_label: int = 20, labels: str = "abc") -> Dataset:
    rows = [f"{label}{i}.mp4,,,{label},," for label in labels for i in range(per_label)]
    return csv_set(folder, *rows)


def split_of(dataset: Dataset) -> dict[str, str | None]:
    return {note.video: note.split for note in dataset.annotations}


def test_assign_splits_holds_out_a_fifth_per_label(tmp_path: Path) -> None:
    dataset = assign_splits(many(tmp_path))
    for label in range(3):
        held_out = Counter(clip.split for clip in clips(dataset) if label in clip.labels)
        assert held_out == {"train": 16, "val": 4}
    assert dataset.notes == ("no val rows: 12 of 60 train clips held out as val, by video, seed 0",)
    assert dataset.notes[0] in report(dataset).lines


def test_assign_splits_depends_on_seed_only(tmp_path: Path) -> None:
    dataset = many(tmp_path)
    assert split_of(assign_splits(dataset)) == split_of(assign_splits(dataset))
    assert split_of(assign_splits(dataset)) != split_of(assign_splits(dataset, seed=1))


def test_assign_splits_keeps_existing_splits(tmp_path: Path) -> None:
    rows = [f"a{i}.mp4,,,x,,{split}" for i, split in enumerate(["train"] * 8 + ["val"] + ["test"] * 3)]
    dataset = csv_set(tmp_path, *rows)
    assert assign_splits(dataset, test=0.5) is dataset


def test_assign_splits_never_uses_test_as_val(tmp_path: Path) -> None:
    rows = [f"a{i}.mp4,,,x,,{'test' if i >= 10 else ''}" for i in range(30)]
    before = csv_set(tmp_path, *rows)
    after = assign_splits(before)
    assert [c.video for c in clips(after, "test")] == [c.video for c in clips(before, "test")]
    assert len(clips(after, "val")) == 2
    assert assign_splits(csv_set(tmp_path / "only", "a.mp4,,,x,,test")).splits == ("test",)


def test_split_fractions_refer_to_the_whole(tmp_path: Path) -> None:
    sizes = Counter(clip.split for clip in clips(assign_splits(many(tmp_path), val=0.25, test=0.25)))
    assert sizes == {"train": 30, "val": 15, "test": 15}


def test_split_settings_from_yaml(tmp_path: Path) -> None:
    write_set(
        tmp_path,
        "\n".join([HEADER + ",who", *(f"{p}{i}.mp4,,,x,,,{p}" for p in "abcdefgh" for i in range(4))]),
        videos=" ".join(f"{p}{i}.mp4" for p in "abcdefgh" for i in range(4)),
    )
    (tmp_path / "set.yaml").write_text("split: {val: 0.25, by: Who, seed: 3}\n")
    dataset = assign_splits(load_dataset(tmp_path / "set.yaml"))
    people = {clip.video[0] for clip in clips(dataset, "val")}
    assert len(people) == 2
    assert len(clips(dataset, "val")) == 8
    assert dataset.notes == ("no val rows: 8 of 32 train clips held out as val, by Who, seed 3",)
    assert "8 groups by Who" in report(dataset).lines


def test_groups_by_folder_unless_few_or_classes(tmp_path: Path) -> None:
    cameras = csv_set(tmp_path / "1", *(f"cam{c}/{i}.mp4,,,{'xy'[i % 2]},," for c in range(5) for i in range(4)))
    assert groups(cameras) == ({video: video.split("/")[0] for video in cameras.recordings}, "folder")
    assert len({clip.video.split("/")[0] for clip in clips(assign_splits(cameras), "val")}) == 1
    few = csv_set(tmp_path / "2", *(f"cam{c}/{i}.mp4,,,{'xy'[i % 2]},," for c in range(4) for i in range(4)))
    assert groups(few)[1] == "video"
    assert groups(few, "folder")[1] == "folder"
    classes = csv_set(tmp_path / "3", *(f"{c}/{i}.mp4,,,{c},," for c in "abcde" for i in range(4)))
    assert groups(classes)[1] == "video"
    flat = csv_set(tmp_path / "4", *(f"{i}.mp4,,,x,," for i in range(6)))
    assert groups(flat, "folder")[0] == {video: video for video in flat.recordings}


def test_groups_keep_recordings_together(tmp_path: Path) -> None:
    dataset = assign_splits(
        csv_set(tmp_path, *(f"{v}.mp4,{t},{t + 1},{'xy'[t % 2]},," for v in "abcdef" for t in range(9)))
    )
    assert all(len({n.split for n in dataset.annotations if n.video == video}) == 1 for video in dataset.recordings)
    assert len(clips(dataset, "val")) == 9


def test_groups_rejects_bad_columns(tmp_path: Path) -> None:
    header = f"{HEADER},who"
    dataset = csv_set(tmp_path, "a.mp4,1,2,x,,,ann", "a.mp4,3,4,x,,,bob", header=header)
    with pytest.raises(
        AnnotationError, match=r"line 3: who of a.mp4 is 'bob' here and 'ann' above\n  a recording belongs"
    ):
        groups(dataset, "who")
    with pytest.raises(AnnotationError, match=r"no column 'subject' to split by\n  use folder, video"):
        groups(dataset, "subject")


def test_assign_splits_leaves_single_recording_in_train(tmp_path: Path) -> None:
    dataset = csv_set(tmp_path, "a.mp4,1,2,x,,", "a.mp4,3,4,y,,")
    assigned = assign_splits(dataset)
    assert assigned.splits == ("train",)
    assert assigned.notes[-1].startswith("no val rows, and the only train recording cannot be divided")
    with pytest.raises(AnnotationError, match=r"1 group by video cannot make 2 splits\n  add recordings"):
        assign_splits(dataset, test=0.2)
    assert assign_splits(dataset, val=0.0) is dataset
    with pytest.raises(SettingsError, match="val is 1; it must be a share"):
        assign_splits(dataset, val=1)


def test_single_group_is_divided_by_recording(tmp_path: Path) -> None:
    rows = [f"a{i}.mp4,,,{'xy'[i % 2]},,,yard" for i in range(10)]
    dataset = csv_set(tmp_path, *rows, header=f"{HEADER},camera")
    assigned = assign_splits(dataset, by="camera")
    assert assigned.notes == ("no val rows: 2 of 10 train clips held out as val, by video, seed 0",)
    assert set(member_folds(dataset, 5, 0, "camera").values()) == set(range(5))
    assert only_group(dataset, "camera") == "camera 'yard'"
    assert only_group(dataset) is None  # without the column, every recording is a group


def test_folds_test_every_row_once(tmp_path: Path) -> None:
    dataset = many(tmp_path, per_label=9)
    folded = folds(dataset, 3, seed=0)
    tested = [clip.video for fold in folded for clip in clips(fold, "test")]
    assert sorted(tested) == sorted(dataset.recordings)
    for fold in folded:
        assert Counter(next(iter(c.labels)) for c in clips(fold, "test")) == {0: 3, 1: 3, 2: 3}
        assert fold.splits == ("train", "val", "test")
    assert folded[1].notes[0] == "fold 2 of 3 by video, seed 0, is the test split"
    assert [split_of(fold) for fold in folds(dataset, 3, seed=0)] == [split_of(fold) for fold in folded]


def test_folds_keep_groups_whole(tmp_path: Path) -> None:
    rows = [f"{p}{i}.mp4,,,{'xy'[i % 2]},,test,{p}" for p in "abcdefgh" for i in range(4)]
    for fold in folds(csv_set(tmp_path, *rows, header=f"{HEADER},who"), 4, seed=0, by="who"):
        people = [{clip.video[0] for clip in clips(fold, split)} for split in ("train", "val", "test")]
        assert sum(map(len, people)) == 8
        assert len(people[2]) == 2


def test_folds_rejects_bad_k(tmp_path: Path) -> None:
    dataset = many(tmp_path, per_label=1)
    with pytest.raises(SettingsError, match="folds is 1; it must be at least 2"):
        folds(dataset, 1, seed=0)
    with pytest.raises(AnnotationError, match="3 groups by video cannot make 4 splits"):
        folds(dataset, 4, seed=0)


def missed(counts: np.ndarray, part: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """By how many clips each part and label misses its share."""
    got = np.array([counts[part == p].sum(axis=0) for p in range(len(shares))])
    missing: np.ndarray = np.abs(got - shares[:, None] * counts.sum(axis=0))
    return missing


@pytest.mark.parametrize("seed", range(5))
def test_stratify_divides_every_label(seed: int) -> None:
    rng = np.random.default_rng(seed)
    shares = rng.dirichlet(np.full(3, 5.0))
    single = np.eye(5)[rng.integers(5, size=200)]
    assert missed(single, stratify(single, shares, rng), shares).max() < 1
    several = rng.integers(0, 3, (200, 5)) + np.eye(5)[0]
    drawn = rng.choice(3, size=200, p=shares)
    assert missed(several, stratify(several, shares, rng), shares).mean() < 0.5 * missed(several, drawn, shares).mean()


def test_stratify_leaves_no_part_empty() -> None:
    rng = np.random.default_rng(0)
    part = stratify(np.array([[9.0], [1.0]]), np.array([0.99, 0.01]), rng)
    assert part.tolist() == [0, 1]
    assert sorted(stratify(np.eye(5), np.full(5, 0.2), rng).tolist()) == [0, 1, 2, 3, 4]


def test_report(tmp_path: Path) -> None:
    dataset = csv_set(
        tmp_path,
        *(f"a{i}.mp4,1,2.5,fall,,train" for i in range(6)),
        *(f"b{i}.mp4,,,walk,,train" for i in range(2)),
        "c.mp4,,,,,val", "a0.mp4,5,7,fall,,val", "d.mp4,,,,A man,train", "e.mp4,1,2,jump,,test",
    )  # fmt: skip
    folded = report(dataset)
    assert folded.lines[0].endswith(
        "annotations.csv: 8 events and 2 whole clips of 3 labels in 11 recordings "
        "(one label at a time; 1 row with a description only)"
    )
    assert folded.lines[1:] == (
        "                   train     val    test    seconds",
        "  fall                 6       1       0       11.0",
        "  jump                 0       0       1        1.0",
        "  walk                 2       0       0",
        "  (no event)           0       1       0",
        "  all clips            8       2       1",
        "  all recordings       9       2       1",
        "1 sentence on 1 clips and events: 1 in train, 0 in val, 0 in test",
    )
    assert folded.warnings == (
        "fewer than 5 train clips of walk (2)",
        "no clips in train of jump; cannot be learnt",
        "no clips in val of jump, walk; not in that split's macro averages",
        "no clips in test of fall, walk; not in that split's macro averages",
        "1 video group in two splits (first: a0.mp4 in train and val); results will look better than they are",
    )
    assert str(folded).endswith("better than they are")
    assert folded.counts["labels"]["fall"] == {"train": 6, "val": 1, "test": 0, "seconds": 11.0}
    assert folded.counts["labels"]["walk"]["seconds"] is None
    assert folded.counts["groups"] == {"by": "video", "number": 11}


# --- timed events ---------------------------------------------------------------------------------------------------


def recordings(folder: Path, number: int = 20) -> Dataset:
    """Recordings of four people with two to five events, a rare one in every fifth; and half as many without any."""
    rows = []
    for n in range(number):
        who = "abcd"[n % 4]
        labels = ["walk", "fall", *(["sit"] if n % 5 == 0 else []), *["walk"] * (n % 3)]
        rows += [f"v{n}.mp4,{10 * i},{10 * i + 4},{label},,,{who}" for i, label in enumerate(labels)]
    rows += [f"quiet{n}.mp4,,,,,,{'abcd'[n % 4]}" for n in range(number // 2)]
    return csv_set(folder, *rows, header=f"{HEADER},who")


@pytest.mark.parametrize("number", [3, 6, 12])
def test_split_stratifies_clips_and_events_separately(tmp_path: Path, number: int) -> None:
    rows = [f"{label}{i}.mp4,,,{label},," for label in "ab" for i in range(number)]
    rows += [f"t{i}.mp4,{at},{at + 1},{label},," for i in range(number) for at, label in ((1, "a"), (4, "b"))]
    for seed in range(3):
        held_out = clips(assign_splits(csv_set(tmp_path / str(seed), *rows), seed=seed), "val")
        assert {clip.start_s is None for clip in held_out} == {True, False}


def test_split_stratifies_event_free_recordings(tmp_path: Path) -> None:
    dataset = assign_splits(recordings(tmp_path), val=0.2, test=0.2)
    held_out = {split: clips(dataset, split) for split in ("train", "val", "test")}
    count = {split: Counter(next(iter(c.labels), -1) for c in some) for split, some in held_out.items()}
    fall, sit, _ = (dataset.labels.index(label) for label in ("fall", "sit", "walk"))
    assert [count[split][fall] for split in held_out] == pytest.approx([12, 4, 4], abs=1)
    assert [count[split][-1] for split in held_out] == [6, 2, 2]
    assert all(count[split][sit] >= 1 for split in held_out)
    assert re.fullmatch(r"no val rows: \d of 2\d train recordings held out as val, by video, seed 0", dataset.notes[-1])


@pytest.mark.parametrize("by", [None, "video", "who", "group"])
@pytest.mark.parametrize("k", [2, 3, 4])
def test_folds_never_divide_recordings_or_groups(tmp_path: Path, k: int, by: str | None) -> None:
    dataset = recordings(tmp_path)
    group = groups(dataset, by)[0]
    tested: list[str] = []
    for fold in folds(dataset, k, seed=1, by=by):
        splits: dict[str, set[str | None]] = {}
        for note in fold.annotations:
            splits.setdefault(group[note.video], set()).add(note.split)
        assert all(len(own) == 1 for own in splits.values())
        assert fold.splits == ("train", "val", "test")
        tested += sorted({note.video for note in fold.annotations if note.split == "test"})
    assert sorted(tested) == sorted(dataset.recordings)


def test_folds_rejects_more_folds_than_groups(tmp_path: Path) -> None:
    dataset = recordings(tmp_path)
    with pytest.raises(
        AnnotationError, match=r"4 groups by who cannot make 5 splits\n  add recordings, group by another"
    ):
        folds(dataset, 5, seed=0, by="who")
    with pytest.raises(AnnotationError, match=r"no column 'subject' to split by"):
        folds(dataset, 2, seed=0, by="subject")


def test_group_column_is_the_default(tmp_path: Path) -> None:
    rows = [f"cam{n % 6}/{n}.mp4,,,{'xy'[n % 2]},,,{n // 4}" for n in range(24)]
    dataset = csv_set(tmp_path, *rows, header=f"{HEADER},group")
    assert groups(dataset)[1] == "group"
    assert groups(dataset, "folder")[1] == "folder"
    without_tracks = csv_set(tmp_path / "none", *(row.rpartition(",")[0] for row in rows))
    assert groups(without_tracks, "group") == groups(without_tracks)
    assert groups(without_tracks)[1] == "folder"


def test_report_timed_events(tmp_path: Path) -> None:
    dataset = csv_set(
        tmp_path,
        *(f"a{i}.mp4,1,3,fall,,train" for i in range(6)), "a0.mp4,2,6,walk,,train", "a1.mp4,8,9,walk,,train",
        "b.mp4,0,5,fall,,val", "c.mp4,,,,,val", "d.mp4,,,,,test",
    )  # fmt: skip
    folded = report(check_recordings(dataset, dict.fromkeys(dataset.recordings, 10.0), 8))
    assert folded.lines[0].endswith(
        "annotations.csv: 9 events of 2 labels in 9 recordings (events of different labels overlap)"
    )
    assert folded.lines[1:] == (
        "                   train     val    test    seconds",
        "  fall                 6       1       0       17.0",
        "  walk                 2       0       0        5.0",
        "  all events           8       1       0",
        "  all recordings       6       2       1",
        "  without events       0       1       1",
        "  all seconds       60.0    20.0    10.0       90.0",
        "events cover 23.3% of the time (21.0 of 90.0 s)",
    )
    assert folded.warnings == (
        "1 pair of overlapping intervals (first: a0.mp4, line 2 and line 8: fall and walk)",
        "fewer than 5 train events of walk (2)",
        "no events in val of walk; not in that split's macro averages",
        "no events in test of fall, walk; not in that split's macro averages",
    )
    assert folded.counts["overlap"] is True
    assert folded.counts["splits"]["val"] == {
        "clips": 2, "events": 1, "recordings": 2, "without events": 1, "seconds": 20.0,
    }  # fmt: skip


def test_report_of_recordings_watched_in_part(tmp_path: Path) -> None:
    rows = (
        "a.mp4,10,20,fall,,train",
        "a.mp4,20,50,background,,val",
        "b.mp4,0,30,background,,train",
        "c.mp4,1,2,fall,,",
    )
    dataset = csv_set(tmp_path, *rows, "d.mp4,0,60,background,,train")
    measured = report(replace(dataset, durations=dict.fromkeys(dataset.recordings, 60.0)))
    assert measured.lines[-1] == "2 recordings watched in part: 0.8 min are left out"
    assert measured.counts["unwatched_s"] == 50  # of d everything was watched, of c nothing says so
    assert (measured.counts["busy_s"], measured.counts["recorded_s"]) == (11, 190)
    assert report(dataset).lines[-1] == "3 recordings watched in part: the rest is left out"


def test_report_moments_and_unknown_durations(tmp_path: Path) -> None:
    dataset = csv_set(tmp_path, "a.mp4,1,2,fall,,", "a.mp4,2,3,walk,,", "b.mp4,0,1,fall,,")
    folded = report(replace(dataset, half_width_s=0.5, durations={"a.mp4": 4.0, "b.mp4": math.inf}))
    assert "(one label at a time)" in folded.lines[0]
    assert "events cover 50.0% of the time (2.0 of 4.0 s)" in folded.lines
    assert "the file marks moments: events cover 0.5 s before and after them" in folded.lines
    assert not any("their seconds" in line for line in folded.lines)
    assert not any("of the time" in line for line in report(dataset).lines)


def test_folds_of_few_groups(tmp_path: Path) -> None:
    rows = [f"a{i}.mp4,,,x,,,cam{i % 3}" for i in range(9)]
    dataset = csv_set(tmp_path, *rows, header=f"{HEADER},camera")
    of_one_camera = [fold for fold in folds(dataset, 2, seed=0, by="camera") if ", by video, seed 0" in fold.notes[-1]]
    assert len(of_one_camera) == 1
    with pytest.raises(AnnotationError, match="3 groups by camera cannot make 4 splits"):
        folds(dataset, 4, seed=0, by="camera")
    assert len(folds(dataset, 3, seed=0, by="camera")) == 3
    with pytest.raises(
        AnnotationError, match=r"no column 'kamera' .* \(did you mean 'camera'\?\)\n.* of the file: camera"
    ):
        folds(dataset, 2, seed=0, by="kamera")


def test_report_lists_at_most_20_labels(tmp_path: Path) -> None:
    rows = [
        f"{label:03d}_{clip}.mp4,,,label{label:03d},,train" for label in range(30) for clip in range(1 + (label == 29))
    ]
    found = report(csv_set(tmp_path, *rows))
    listed = [line for line in found.lines if line.startswith("  label")]
    assert len(listed) == 20
    assert listed[-1].split() == ["label029", "2"]  # the most frequent are listed, in the order of the labels
    assert "  ... and 10 more labels" in found.lines
    assert len(found.counts["labels"]) == 30
    (rare,) = [warning for warning in found.warnings if warning.startswith("fewer than")]
    assert rare.endswith(" and 10 more")


def test_report_warns_about_clips_of_one_recording(tmp_path: Path) -> None:
    rows = [f"{name}_{n:03d}.mp4,1,2,walk,,{'val' if n == 2 else 'train'}" for name in "abc" for n in range(3)]
    message = (
        "names look as if 3 recordings were cut into clips of two splits (first: a_000.mp4 in train, a_002.mp4 in "
        "val); name the recording of each clip in a column group"
    )
    assert message in report(csv_set(tmp_path / "cut", *rows)).warnings
    numbered = [f"clip_{n:03d}.mp4,1,2,walk,,{'val' if n == 2 else 'train'}" for n in range(9)]
    by_label = [row.replace("a_", "walk_").replace("b_", "run_") for row in rows]
    for name, other in (("numbered", numbered), ("label", by_label)):
        assert not any("were cut" in warning for warning in report(csv_set(tmp_path / name, *other)).warnings)


# --- members ----------------------------------------------------------------------------------------------------------


def test_member_folds_divide_all_recordings_by_label(tmp_path: Path) -> None:
    dataset = many(tmp_path)
    part = member_folds(dataset, 5, 0)
    assert part.keys() == dataset.recordings.keys()
    for label in "abc":
        counts = Counter(number for video, number in part.items() if video.startswith(label))
        assert counts == dict.fromkeys(range(5), 4)
    assert member_folds(dataset, 5, 0) == part
    assert member_folds(dataset, 5, 1) != part


def test_member_folds_keep_groups_whole(tmp_path: Path) -> None:
    dataset = csv_set(tmp_path, *(f"cam{c}/{i}.mp4,,,{'xy'[i % 2]},," for c in range(7) for i in range(4)))
    part = member_folds(dataset, 5, 0)
    by_camera = {camera: {part[f"{camera}/{i}.mp4"] for i in range(4)} for camera in (f"cam{c}" for c in range(7))}
    assert all(len(numbers) == 1 for numbers in by_camera.values())
    assert set(part.values()) == set(range(5))
    by_video = member_folds(dataset, 5, 0, by="video")
    assert any(len({by_video[f"cam{c}/{i}.mp4"] for i in range(4)}) > 1 for c in range(7))


def test_member_folds_begin_with_the_val_split(tmp_path: Path) -> None:
    """Groups that val and train share go with val, and recordings of other splits are in no fold."""
    splits = {0: "val", 1: "test", 2: "holdout"}
    rows = [f"cam{c}/{i}.mp4,,,{'xy'[i % 2]},,{splits.get(c, 'train')}" for c in range(9) for i in range(4)]
    rows[-1] = rows[-1].replace("train", "val")
    part = member_folds(csv_set(tmp_path, *rows), 5, 0)
    assert {video for video, number in part.items() if number == 0} == {
        f"cam{c}/{i}.mp4" for c in (0, 8) for i in range(4)
    }
    assert {video.split("/")[0] for video in part} == {f"cam{c}" for c in (0, 3, 4, 5, 6, 7, 8)}
    assert set(part.values()) == set(range(5))


def test_member_folds_leave_single_groups_to_all_members(tmp_path: Path) -> None:
    """Without it no member would learn the label."""
    rows = [f"cam{c}/{i}.mp4,,,{'xy'[i % 2]},," for c in range(6) for i in range(4)]
    dataset = csv_set(tmp_path, *rows, "cam6/0.mp4,,,z,,", "cam6/1.mp4,,,x,,", "cam6/2.mp4,,,,,")
    part = member_folds(dataset, 3, 0)
    assert {video.split("/")[0] for video in part} == {f"cam{c}" for c in range(6)}
    assert set(part.values()) == {0, 1, 2}


def test_member_folds_of_few_clips(tmp_path: Path) -> None:
    assert member_folds(many(tmp_path / "1", per_label=1), 5, 0) == {}
    two = member_folds(many(tmp_path / "2", per_label=2), 5, 0)
    assert set(two.values()) == set(range(5))
    assert all(two[f"{label}0.mp4"] != two[f"{label}1.mp4"] for label in "abc")  # each is learnt by some members
    assert set(member_folds(many(tmp_path / "3", per_label=3, labels="a"), 5, 0).values()) == {0, 1, 2}
    mixed = csv_set(tmp_path / "4", *(f"{n}.mp4,,,{'a' if n else 'b'},," for n in range(8)))
    assert member_folds(mixed, 4, 0).keys() == {f"{n}.mp4" for n in range(1, 8)}


def test_member_folds_of_val_alone(tmp_path: Path) -> None:
    """Recordings of train that no group can be held out of leave the val split as the only fold."""
    rows = ["a0.mp4,,,a,,train", "a1.mp4,,,a,,val", "b0.mp4,,,b,,train"]
    assert member_folds(csv_set(tmp_path, *rows), 5, 0) == {"a0.mp4": 1, "a1.mp4": 0}
    rows = [*rows[1:], "c0.mp4,,,c,,train", "a2.mp4,,,a,,val"]
    assert member_folds(csv_set(tmp_path / "b", *rows), 5, 0) == {"a1.mp4": 0, "a2.mp4": 0}


def test_in_split_moves_rows_of_train_and_val(tmp_path: Path) -> None:
    dataset = csv_set(tmp_path, "a.mp4,,,x,,train", "b.mp4,,,x,,val", "c.mp4,,,x,,test", "d.mp4,,,x,,train")
    moved = in_split(dataset, ("a.mp4", "b.mp4", "c.mp4"), "held")
    assert split_of(moved) == {"a.mp4": "held", "b.mp4": "held", "c.mp4": "test", "d.mp4": "train"}
    assert split_of(in_split(dataset, dataset.recordings, "x", "test"))["c.mp4"] == "x"
