import numpy as np
import pytest

from tests.sequences import make_sequence
from vidgru.datasets.windows import Window, slice_window
from vidgru.model.features import compute_features
from vidgru.model.layout import FeatureLayout, mirror_columns
from vidgru.train.augment import Augmenter, mirrored
from vidgru.train.batches import ClipBatches
from vidgru.train.data import LabelledClip, Loaded, Task

TASK = Task(labels=("fall", "walk"), background=True, multi_label=False)
SEQUENCE = make_sequence(100, keypoints=17, optional=False)
FEATURES = compute_features(SEQUENCE)
LOADED = Loaded(
    features={"a.mp4": FEATURES}, layout=FeatureLayout.of(SEQUENCE), names=SEQUENCE.names, keys={"a.mp4": "0" * 64}
)


def clip(first: int, stop: int, *labels: str) -> LabelledClip:
    return LabelledClip(video="a.mp4", first=first, stop=stop, labels=TASK.vector(labels))


def batches(clips: list[LabelledClip], **changes: object) -> ClipBatches:
    settings = {"size": 4, "seed": 0, "balance": False, "augment": False}
    return ClipBatches(clips, LOADED, TASK, **{**settings, **changes})


def drawn(clips: list[LabelledClip], epochs: int = 1, **changes: object) -> np.ndarray:
    """How many clips of each class."""
    made = batches(clips, **changes)
    return sum(batch.labels.sum(0).numpy() for epoch in range(epochs) for batch in made(epoch))


def window(length: int = 40) -> Window:
    return slice_window(FEATURES, 5, length, labels=TASK.vector(["walk"]))


def test_every_clip_comes_once_an_epoch() -> None:
    clips = [clip(t, t + 5 + t, "fall" if t % 2 else "walk") for t in range(10)]
    assert drawn(clips).tolist() == [5, 5, 0]
    assert batches(clips).count == len(list(batches(clips)(1))) == 3


def test_an_epoch_is_a_function_of_seed_and_number() -> None:
    clips = [clip(t, t + 20, "fall") for t in range(10)]

    def first(seed: int, epoch: int) -> np.ndarray:
        return next(iter(batches(clips, seed=seed, augment=True)(epoch))).frame.numpy()

    assert np.array_equal(first(0, 1), first(0, 1))
    assert not np.array_equal(first(0, 1), first(0, 2))
    assert not np.array_equal(first(0, 1), first(1, 1))


def test_rare_labels_are_drawn_more_often_if_asked() -> None:
    clips = [clip(t, t + 5, "fall") for t in range(8)] + [clip(t, t + 5, "walk") for t in range(32)]
    assert drawn(clips).tolist() == [8, 32, 0]
    fall, walk, _ = drawn(clips, epochs=5, balance=True)
    assert fall == pytest.approx(walk, rel=0.1)


def test_of_long_eventless_clips_stretches_are_shown() -> None:
    clips = [clip(0, 8, "fall"), clip(0, 10, "fall"), clip(0, 9, "walk"), clip(0, 100)]
    made = batches(clips, size=1)
    assert made.steps == 9
    starts = set()
    for epoch in range(5):
        (quiet,) = [batch for batch in made(epoch) if batch.labels[0, 2]]
        assert quiet.mask.shape == (1, 9)
        starts.add(float(quiet.frame[0, 0].sum()))
    assert len(starts) > 1


def test_changes_keep_labels_and_leave_something() -> None:
    augment, rng = Augmenter(LOADED.layout, TASK.labels), np.random.default_rng(0)
    lengths = []
    for _ in range(200):
        changed = augment(window(), rng)
        assert changed.labels is not None
        assert changed.labels.tolist() == [0, 1, 0]
        assert changed.offsets[-1] == len(changed.objects)
        assert changed.mask.all()
        lengths.append(len(changed))
        assert len(augment(window(1), rng)) >= 1
    assert min(lengths) >= 40 * 0.7 / 1.25 - 1
    assert max(lengths) <= 40 / 0.8 + 1
    assert len(set(lengths)) > 10


def test_changes_take_whole_frames_in_order() -> None:
    augment, rng = Augmenter(LOADED.layout, ["turn_left"]), np.random.default_rng(0)  # no mirror
    plain = window()
    marks = np.arange(40, dtype=np.float32)
    plain.frame[:, 0] = marks
    plain.objects[:, 0] = np.repeat(marks, np.diff(plain.offsets))
    for _ in range(50):
        changed = augment(plain, rng)
        steps = changed.frame[:, 0]
        assert (np.diff(steps) >= 0).all()
        assert np.array_equal(changed.objects[:, 0], np.repeat(steps, np.diff(changed.offsets)))


def test_mirrored_twice_is_as_it_was() -> None:
    columns = mirror_columns(LOADED.layout)
    assert columns is not None
    once = mirrored(window(), columns)
    twice = mirrored(once, columns)
    assert not np.array_equal(once.objects, window().objects)
    assert np.array_equal(twice.objects, window().objects)
    assert np.array_equal(twice.frame, window().frame)


@pytest.mark.parametrize(
    ("labels", "sided"),
    [
        (("turn_left", "turn_right"), True),
        (("Left turn",), True),
        (("turnLeft",), True),
        (("leftward",), True),
        (("walk",), False),
        (("bright", "leftover"), False),
    ],
)
def test_labels_that_name_a_side_are_not_mirrored(labels: tuple[str, ...], sided: bool) -> None:
    assert (Augmenter(LOADED.layout, labels).mirror is None) == sided
