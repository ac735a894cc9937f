from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.sequences import make_sequence
from vidgru.datasets.windows import Batch
from vidgru.model.checkpoint import EventTask, HeadSpec
from vidgru.model.feature_spec import FeatureSpec
from vidgru.model.features import compute_features
from vidgru.training import batches as batching
from vidgru.training.augment import Augmenter
from vidgru.training.batches import ClipBatches, EpochBatches, WindowBatches, typical_clip_steps, window_steps
from vidgru.training.data import LoadedFeatures
from vidgru.training.examples import LabelledClip, TimedRecording, frame_class_weights

HEAD = HeadSpec(background=True, multi_label=False)
TASK = EventTask(labels=("fall", "walk"), clip_head=HEAD, frame_head=HEAD)
SEQUENCE = make_sequence(400, 1, optional=False)
FEATURES = compute_features(SEQUENCE)
FEATURES.frame[:, 0] = np.arange(400)  # marks each frame
LOADED = LoadedFeatures(
    features=dict.fromkeys(("a.mp4", "b.mp4", "c.mp4"), FEATURES),
    feature_spec=FeatureSpec.from_sequence(SEQUENCE),
    names=SEQUENCE.names,
    keys=dict.fromkeys(("a.mp4", "b.mp4", "c.mp4"), "0" * 64),
)


def clip(frames: int, *labels: str) -> LabelledClip:
    return LabelledClip(video="a.mp4", frames=frames, labels=TASK.target_vector(HEAD, labels))


def clip_batches(clips: list[LabelledClip], **changes: object) -> ClipBatches:
    settings = {"size": 4, "seed": 0, "balance": False, "augment": None}
    return ClipBatches(clips, LOADED, len(TASK.labels), **{**settings, **changes})


def epoch_of(source: ClipBatches | WindowBatches, epoch: int = 1) -> list[Batch]:
    kind = "clips" if isinstance(source, ClipBatches) else "windows"
    return [batch for batch, _ in EpochBatches(**{kind: source}, seed=0)(epoch) if batch]


def drawn(clips: list[LabelledClip], epochs: int = 1, **changes: object) -> np.ndarray:
    """How many clips of each class."""
    source = clip_batches(clips, **changes)
    return sum(batch.labels.sum(0).numpy() for epoch in range(epochs) for batch in epoch_of(source, epoch))


def same(one: Batch, two: Batch) -> bool:
    names = ("objects", "counts", "frame", "mask", "targets", "weights", "labels")
    pairs = [(getattr(one, name), getattr(two, name)) for name in names]
    return one.sources == two.sources and all(
        (a is None and b is None) or (a.shape == b.shape and torch.equal(a, b)) for a, b in pairs
    )


# --- clips ----------------------------------------------------------------------------------------------------------


def test_durations_count_frames_at_their_rate() -> None:
    assert LOADED.durations(8.0) == dict.fromkeys(LOADED.features, 50.0)


def test_small_set_is_passed_over_several_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "_MIN_CLIP_BATCHES", 16)
    clips = [clip(5 + t, "fall" if t % 2 else "walk") for t in range(10)]
    assert drawn(clips).tolist() == [30, 30, 0]  # six times three batches of at most four
    lengths = [int(steps) for batch in epoch_of(clip_batches(clips)) for steps in batch.mask.sum(dim=1)]
    assert np.bincount(lengths).tolist() == [0] * 5 + [6] * 10
    assert drawn(clips * 10).tolist() == [50, 50, 0]
    assert drawn(clips, size=1).tolist() == [10, 10, 0]
    monkeypatch.setattr(batching, "_REPEATED_STEPS", 300)  # eight batches of four clips of 9.5 steps
    assert drawn(clips).tolist() == [15, 15, 0]
    monkeypatch.setattr(batching, "_REPEATED_STEPS", 1)
    assert drawn(clips).tolist() == [10, 10, 0]


def test_clip_batches_show_every_clip_once() -> None:
    clips = [clip(5 + t, "fall" if t % 2 else "walk") for t in range(10)]
    assert drawn(clips).tolist() == [5, 5, 0]
    assert len(epoch_of(clip_batches(clips))) == 3


def test_clip_batches_balance_rare_labels() -> None:
    clips = [clip(5, "fall") for t in range(8)] + [clip(5, "walk") for t in range(32)]
    assert drawn(clips).tolist() == [8, 32, 0]
    fall, walk, _ = drawn(clips, epochs=5, balance=True)
    assert fall == pytest.approx(walk, rel=0.1)


def test_clip_batches_cut_long_event_free_clips() -> None:
    clips = [clip(8, "fall"), clip(10, "fall"), clip(9, "walk"), clip(100)]
    source = clip_batches(clips, size=1)
    assert typical_clip_steps(clips, len(TASK.labels)) == 9
    starts = set()
    for epoch in range(5):
        (quiet,) = [batch for batch in epoch_of(source, epoch) if batch.labels[0, 2]]
        assert quiet.mask.shape == (1, 9)
        starts.add(float(quiet.frame[0, 0, 0]))
        assert quiet.sources == (f"a.mp4, samples {int(quiet.frame[0, 0, 0])} to {int(quiet.frame[0, 0, 0]) + 9}",)
    assert len(starts) > 1


# --- windows --------------------------------------------------------------------------------------------------------


def recording(video: str, *events: tuple[int, int, int], frames: int = 400) -> TimedRecording:
    targets = np.tile(TASK.target_vector(HEAD, ()), (frames, 1))
    for first, stop, label in events:
        targets[first:stop] = TASK.target_vector(HEAD, [TASK.labels[label]])
    table = np.array(events, np.int64).reshape(-1, 3)
    weights = np.ones(frames, np.float32)
    return TimedRecording(video=video, targets=targets, weights=weights, events=table, spans_s=table[:, :2] / 8)


SOME = [recording("a.mp4", (50, 60, 0), (300, 304, 1)), recording("b.mp4", (100, 110, 0), (200, 210, 0)),
        recording("c.mp4")]  # fmt: skip


def window_batches(recordings: list[TimedRecording] = SOME, **changes: object) -> WindowBatches:
    settings = {"size": 4, "seed": 0, "balance": True, "augment": None, "length": 40, "lookahead": 4}
    return WindowBatches(recordings, LOADED, **{**settings, **changes})


def test_window_steps_are_frames_of_recording() -> None:
    for batch in epoch_of(window_batches()):
        assert batch.targets.shape == (4, 44, 3)
        assert batch.labels is None
        for row, source in enumerate(batch.sources):
            video, _, place = source.partition(", samples ")
            first, stop = (int(n) for n in place.split(" to "))
            assert stop - first == 40
            assert first >= 0
            own = {"a.mp4": 0, "b.mp4": 1, "c.mp4": 2}[video]
            have = min(44, 400 - first)
            assert batch.frame[row, :have, 0].tolist() == list(range(first, first + have))
            assert np.array_equal(batch.targets[row, :have], SOME[own].targets[first : first + have])
            assert not batch.mask[row, have:].any()
            # ten steps of warm-up, unless it begins with the recording; nothing behind what the lag lets be scored
            counts = torch.zeros(44)
            counts[0 if first == 0 else 10 : min(40, have)] = 1 / 40
            torch.testing.assert_close(batch.weights[row], counts)


def starts(part: WindowBatches, epochs: int = 3) -> list[tuple[int, int]]:
    return [
        (int(index), int(start)) for epoch in range(epochs) for chosen in part.plan(epoch) for index, start in chosen
    ]


def test_windows_start_within_recordings() -> None:
    windows = starts(window_batches())
    assert all(0 <= start < 400 - 10 for _, start in windows)
    assert any(start == 0 for _, start in windows)
    assert {index for index, _ in windows} == {0, 1, 2}


def test_windows_cover_labels_and_event_free_recordings() -> None:
    windows = starts(window_batches(), epochs=20)

    def sees(index: int, start: int, label: int) -> bool:
        own = SOME[index].events
        return any(a < start + 40 and b > (start + 10 if start else 0) for a, b, kind in own if kind == label)

    walk = sum(sees(*place, 1) for place in windows) / len(windows)
    assert walk > 0.22  # a quarter is laid over it; chance is less than a tenth
    assert sum(index == 2 for index, _ in windows) / len(windows) > 0.25  # a fifth, and its share of what is anywhere
    plain = starts(window_batches(balance=False), epochs=20)
    assert sum(sees(*place, 1) for place in plain) / len(plain) < 0.1


@pytest.mark.parametrize("event", [(0, 3, 0), (397, 400, 0), (0, 400, 0), (200, 201, 0)])
def test_windows_reach_events_anywhere(event: tuple[int, int, int]) -> None:
    source = window_batches([recording("a.mp4", event)])
    hit = 0
    for batch in epoch_of(source):
        hit += int(((batch.targets[..., 0] * batch.weights).sum(dim=1) > 0).sum())
    assert hit >= 0.4 * 4 * len(source.plan(0))


def test_windows_lie_over_known_frames() -> None:
    partly = recording("a.mp4", frames=400)
    weights = np.zeros(400, np.float32)
    weights[200:206] = 1
    source = window_batches([replace(partly, weights=weights)])
    seen = np.zeros(400)
    for batch in epoch_of(source):
        for row in range(len(batch)):
            known = batch.weights[row] > 0
            assert known.any()
            seen[batch.frame[row, known, 0].int().tolist()] += 1
    assert np.flatnonzero(seen).tolist() == list(range(200, 206))
    assert seen[200:206].min() > 0.7 * seen.max()


@pytest.mark.parametrize("frames", [1, 5, 10, 11, 39])
def test_windows_of_short_recordings(frames: int) -> None:
    features = compute_features(SEQUENCE.frames(0, frames))
    short = replace(LOADED, features={"a.mp4": features})
    events = [(frames // 2, frames // 2 + 1, 0)]
    source = WindowBatches(
        [recording("a.mp4", *events, frames=frames)],
        short, size=4, seed=0, balance=True, augment=Augmenter(LOADED.feature_spec, ()), length=40, lookahead=4,
    )  # fmt: skip
    batches = epoch_of(source)
    assert len(batches) == len(source.plan(1)) == 16
    assert all(batch.mask.any(dim=1).all() for batch in batches)
    assert sum(float((batch.targets[..., 0] * batch.weights).sum()) for batch in batches) > 0


@pytest.mark.parametrize(("events", "steps"), [
    ([], 64), ([(0, 8, 0)], 64), ([(0, 80, 0)], 240), ([(0, 390, 0)], 480), ([(0, 80, 0)] * 19 + [(0, 390, 0)], 240),
])  # fmt: skip
def test_window_length_follows_events(events: list[tuple[int, int, int]], steps: int) -> None:
    assert window_steps([recording("a.mp4", *events)], 0.0, 8.0) == steps
    assert window_steps([recording("a.mp4", *events)], 3.0, 8.0) == 24


def test_long_clips_make_small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "_MAX_CLIP_STEPS", 700)
    sizes = [tuple(batch.mask.shape) for batch in epoch_of(clip_batches([clip(400, "fall"), *[clip(300, "walk")] * 6]))]
    assert sorted(sizes) == [(1, 300), (1, 300), (1, 400), (2, 300), (2, 300)]


def test_epoch_covers_recordings() -> None:
    source = WindowBatches(
        [recording("a.mp4", (5, 9, 0))] * 30, LOADED,
        size=4, seed=0, balance=True, augment=None, length=40, lookahead=0,
    )  # fmt: skip
    assert len(source.plan(1)) == 30 * 400 / 30 / 4  # windows of which thirty steps count
    assert all(len(chosen) == 4 for chosen in source.plan(1))


def test_class_weights_favour_rare_classes() -> None:
    weights = frame_class_weights(SOME, TASK)
    share = np.array([30, 4, 1200 - 34]) / 1200
    assert (weights * share).sum() == pytest.approx(1)
    assert weights[0] / weights[2] == pytest.approx(np.sqrt(share[2] / share[0]), rel=1e-4)
    assert weights[1] > weights[0]
    assert frame_class_weights([recording("a.mp4", (50, 60, 0))], TASK)[1] == 0
    assert frame_class_weights([], TASK).tolist() == [1, 1, 1]


# --- both -----------------------------------------------------------------------------------------------------------

CLIPS = [clip(20 + t, "fall" if t % 3 else "walk") for t in range(11)]


def both(seed: int = 0, rank: int = 0, size: int = 1) -> EpochBatches:
    augment = Augmenter(LOADED.feature_spec, TASK.labels)
    clips, windows = clip_batches(CLIPS, seed=seed, augment=augment), window_batches(seed=seed, augment=augment)
    return EpochBatches(clips=clips, windows=windows, seed=seed, rank=rank, size=size)


def test_epoch_is_function_of_seed_and_number() -> None:
    one, again = list(both()(1)), list(both()(1))
    assert len(one) == 3 + 16
    assert all(same(a, b) and m == n for (a, m), (b, n) in zip(one, again, strict=True))
    for other in (both()(2), both(seed=1)(1)):
        assert not any(same(a, b) for (a, _), (b, _) in zip(one, other, strict=True))


def test_clips_and_windows_are_mixed() -> None:
    kinds = [batch.labels is None for batch, _ in both()(1)]
    assert 0 < sum(kinds) < len(kinds)
    assert sorted(kinds) != kinds


@pytest.mark.parametrize("processes", [2, 3, 5])
def test_process_shares_make_up_batch(processes: int) -> None:
    """Also if a batch has fewer windows than there are processes: those without one still take the step."""
    shares = [list(both(rank=rank, size=processes)(1)) for rank in range(processes)]
    whole = list(both()(1))
    assert [size for _, size in whole] == [size for _, size in shares[0]]
    assert any(part is None for part, _ in shares[-1]) == (processes > 3)
    for number, (batch, size) in enumerate(whole):
        assert batch is not None
        parts = [share[number][0] for share in shares]
        assert sum(len(part) for part in parts if part) == size == len(batch)
        for row in range(size):
            part, own = parts[row % processes], row // processes
            assert part is not None
            assert part.sources[own] == batch.sources[row]
            steps = int(batch.mask[row].sum())
            assert torch.equal(part.frame[own, :steps], batch.frame[row, :steps])
            assert not part.mask[own, steps:].any()
            if batch.weights is not None:
                assert torch.equal(part.weights[own, :steps], batch.weights[row, :steps])
