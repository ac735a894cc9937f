"""Captioned clips as training examples, batches and validation, and the caption threshold."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.datasets.annotation_files import csv_set
from tests.model.networks import make_model
from tests.sequences import NAMES, make_sequence
from vidgru.datasets.dataset import Dataset
from vidgru.model.captioner import CaptionSegment, caption_frames, caption_log_likelihoods, caption_segments
from vidgru.model.checkpoint import EventTask, HeadSpec
from vidgru.model.feature_spec import FeatureSpec
from vidgru.model.features import compute_features
from vidgru.model.tokenizer import Tokenizer
from vidgru.training import validation as module
from vidgru.training.augment import Augmenter
from vidgru.training.batches import _SHIFT, CaptionBatches, EpochBatches, sentence_words
from vidgru.training.data import LoadedFeatures
from vidgru.training.examples import CaptionedClip, caption_examples
from vidgru.training.initial_model import caption_settings
from vidgru.training.thresholds import caption_understanding, fit_caption_threshold
from vidgru.training.validation import _CaptionValidation
from vidgru.types import Features

TASK = EventTask(labels=("fall", "walk"), clip_head=HeadSpec(background=False, multi_label=False))
SEQUENCE = make_sequence(200, seed=3)
LAYOUT = FeatureSpec.from_sequence(SEQUENCE)
FEATURES = compute_features(SEQUENCE)
FALL, WALK = ("He falls.", "그가 넘어진다."), ("She walks.",)
TOKENIZER = Tokenizer.train([*FALL, *WALK])


def clip(
    first: int,
    stop: int,
    label: int | None = 0,
    *,
    video: str = "a.mp4",
    timed: bool = True,
    sentences: tuple[str, ...] = FALL,
) -> CaptionedClip:
    return CaptionedClip(video=video, first=first, stop=stop, timed=timed, label=label, sentences=sentences)


def loaded(**features: Features) -> LoadedFeatures:
    named = {f"{name}.mp4": part for name, part in features.items()} or {"a.mp4": FEATURES}
    return LoadedFeatures(features=named, feature_spec=LAYOUT, names=NAMES, keys={name: name for name in named})


# --- by their frames ------------------------------------------------------------------------------------------------

TIMES = np.arange(80) / 8  # ten seconds


def rows(dataset: Dataset, split: str = "train", times: np.ndarray = TIMES) -> list[tuple[object, ...]]:
    examples = caption_examples(dataset, split, dict.fromkeys(dataset.recordings, times), TASK)
    return [(e.video, e.first, e.stop, e.timed, e.label, e.sentences, len(e)) for e in examples]


def test_caption_examples_by_frames(tmp_path: Path) -> None:
    dataset = csv_set(
        tmp_path,
        "a.mp4,4,6,walk,She walks.,train",
        "a.mp4,4,6,walk,그녀가 걷는다.,train",
        "a.mp4,0,0.5,fall,He falls.,train",
        "b.mp4,,,fall,He falls.,train",
        "c.mp4,,,,Two people meet.,train",
        "d.mp4,1,2,walk,She walks.,val",
    )
    assert rows(dataset) == [
        ("a.mp4", 28, 48, True, 1, ("She walks.", "그녀가 걷는다."), 20),
        ("a.mp4", 0, 4, True, 0, ("He falls.",), 4),
        ("b.mp4", 0, 80, False, 0, ("He falls.",), 80),
        ("c.mp4", 0, 80, False, None, ("Two people meet.",), 80),
    ]
    assert rows(dataset, "val") == [("d.mp4", 4, 16, True, 1, ("She walks.",), 12)]
    assert rows(dataset)[0][1:3] == caption_frames(TIMES, 4.0, 6.0), "as in prediction"


def test_caption_examples_use_labels_of_task(tmp_path: Path) -> None:
    """A dataset may have them in another order than the model that training starts from."""
    dataset = csv_set(tmp_path, "a.mp4,,,walk,She walks.,train", "b.mp4,,,fall,He falls.,train")
    turned = EventTask(labels=("walk", "jump", "fall"), clip_head=TASK.clip_head)
    examples = caption_examples(dataset, "train", dict.fromkeys(dataset.recordings, TIMES), turned)
    assert [example.label for example in examples] == [0, 2]


def test_caption_examples_skip_undecoded_segments(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = csv_set(tmp_path, "cut.mp4,1,2,fall,He falls.,train", "cut.mp4,30,32.5,walk,She walks.,train")
    assert [example[1:3] for example in rows(dataset)] == [(4, 16)]
    assert capsys.readouterr().err == "skipped: cut.mp4 has no frames from 30 s on\n"
    assert rows(dataset, times=TIMES[:0]) == []


def test_caption_settings_of_examples() -> None:
    clips = [clip(0, 9), clip(3, 12, 1, sentences=WALK), clip(0, 9, None, sentences=("그가 넘어진다 그가 넘어진다.",))]
    facts = caption_settings(clips, TASK)
    assert facts.labels == ("fall", "walk")
    assert facts.tokenizer.to_json() == Tokenizer.train([s for example in clips for s in example.sentences]).to_json()
    longest = max(len(facts.tokenizer.encode(s)) for example in clips for s in example.sentences)
    assert facts.longest == round(1.5 * longest) + 1
    assert facts.threshold == 0.0
    assert caption_settings(clips[1:2], TASK).labels == ("walk",)
    assert caption_settings(clips[2:], TASK).labels == ()
    assert caption_settings(clips, TASK, TOKENIZER).tokenizer is TOKENIZER


def test_sentence_words() -> None:
    words = sentence_words(TOKENIZER, FALL[1], 1)
    assert words.dtype == np.int64
    assert words.tolist() == [len(TOKENIZER) + 1, *TOKENIZER.encode(FALL[1]), Tokenizer.END]
    assert sentence_words(TOKENIZER, FALL[1], None)[0] == Tokenizer.START


# --- batches --------------------------------------------------------------------------------------------------------

CLIPS = [clip(8 * n, 8 * n + 12 + n, n % 2, sentences=(FALL, WALK)[n % 2]) for n in range(20)]


def batches(clips: list[CaptionedClip] = CLIPS, *, augment: bool = True, seed: int = 0) -> CaptionBatches:
    changes = Augmenter(LAYOUT, TASK.labels) if augment else None
    return CaptionBatches(clips, loaded(), TOKENIZER, size=6, seed=seed, augment=changes)


def test_caption_epoch_is_function_of_seed_and_number() -> None:
    def epoch(number: int, seed: int = 0) -> list[object]:
        return [
            [batch.objects.tolist(), batch.frame.tolist(), batch.words.tolist(), batch.sources, size]
            for batch, size in EpochBatches(captions=batches(seed=seed), seed=seed)(number)
        ]

    first = epoch(1)
    assert sum(size for *_, size in first) == 4 * len(CLIPS)
    assert epoch(1) == first
    assert epoch(2) != first
    assert epoch(1, seed=1) != first


@pytest.mark.parametrize(("number", "size", "passes"), [(20, 6, 4), (20, 1, 2), (100, 6, 3), (600, 6, 1), (1, 64, 4)])
def test_small_sets_are_passed_over_several_times(number: int, size: int, passes: int) -> None:
    source = CaptionBatches([CLIPS[0]] * number, loaded(), TOKENIZER, size=size, seed=0, augment=None)
    orders = []
    for epoch in (1, 2, 3):
        plan = source.plan(epoch)
        assert max(map(len, plan)) <= size
        orders += np.concatenate(plan).reshape(passes, number).tolist()
    assert all(sorted(order) == list(range(number)) for order in orders)
    assert number == 1 or len(set(map(tuple, orders))) == 3 * passes, "each time in another order"


def test_caption_window_has_clip_and_sentence() -> None:
    plain = batches(augment=False)
    said: set[tuple[int, ...]] = set()
    for number in range(60):
        window = plain.window(4, np.random.default_rng(number))
        expected = FEATURES.frames(CLIPS[4].first, CLIPS[4].stop)
        assert np.array_equal(window.objects, expected.objects)
        assert np.array_equal(window.frame, expected.frame)
        assert window.mask.all()
        assert window.source == "a.mp4, samples 32 to 48"
        assert (window.targets, window.weights, window.labels) == (None, None, None)
        assert window.words is not None
        said.add(tuple(window.words.tolist()))
    label = len(TOKENIZER)  # of fall
    assert said == {
        (first, *TOKENIZER.encode(sentence), Tokenizer.END) for first in (label, Tokenizer.START) for sentence in FALL
    }


def test_some_captions_are_learnt_without_label() -> None:
    plain = batches(augment=False)
    firsts = [int(plain.window(n % 20, np.random.default_rng(n)).words[0]) for n in range(1000)]
    labelled = {len(TOKENIZER) + label for label in (0, 1)}
    assert set(firsts) == labelled | {Tokenizer.START}
    assert 60 <= firsts.count(Tokenizer.START) <= 140
    nameless = batches([clip(0, 20, None)], augment=False)
    assert {int(nameless.window(0, np.random.default_rng(n)).words[0]) for n in range(20)} == {Tokenizer.START}


def marked() -> Features:
    """Features whose frame t holds t in a column that augmentation leaves unchanged."""
    sequence = make_sequence(200, 2, seed=3)
    assert sequence.scene is not None
    sequence.scene[:, 0] = np.arange(200)
    return compute_features(sequence)


def frames_shown(batches: CaptionBatches, index: int, seed: int) -> np.ndarray:
    window = batches.window(index, np.random.default_rng(seed))
    column = LAYOUT.frame_groups()["scene"].start
    return window.frame[:, column].astype(int)


@pytest.mark.parametrize(("first", "stop"), [(0, 20), (60, 100), (90, 91), (180, 200), (0, 200)])
def test_caption_window_edges_are_jittered(first: int, stop: int) -> None:
    changes = Augmenter(LAYOUT, TASK.labels)
    source = CaptionBatches([clip(first, stop)], loaded(a=marked()), TOKENIZER, size=1, seed=0, augment=changes)
    most = _SHIFT * (stop - first) + 0.5
    firsts, lasts = set(), set()
    for seed in range(100):
        frames = frames_shown(source, 0, seed)
        assert (np.diff(frames) >= 0).all()
        assert (np.diff(frames) <= 2).all(), "no frame is skipped in the middle"
        assert abs(frames[0] - first) <= most
        assert abs(frames[-1] - (stop - 1)) <= most + 1  # at another speed the last may be passed over
        firsts.add(int(frames[0]))
        lasts.add(int(frames[-1]))
    if stop - first > 10:
        assert len(firsts) > 1
        assert len(lasts) > 1
        assert min(firsts) == max(round(first - _SHIFT * (stop - first)), 0)


def test_whole_clips_are_not_jittered() -> None:
    changes = Augmenter(LAYOUT, TASK.labels)
    source = CaptionBatches([clip(10, 50, timed=False)], loaded(a=marked()), TOKENIZER, size=1, seed=0, augment=changes)
    for seed in range(50):
        frames = frames_shown(source, 0, seed)
        assert frames[0] == 10
        assert frames[-1] >= 48


def test_caption_windows_are_not_mirrored() -> None:
    """A sentence may name a side in any language. Sideways speed changes its sign in a mirror and in nothing else."""
    sequence = make_sequence(60, 1, seed=3, optional=False)
    boxes = np.tile([0.0, 0.4, 0.1, 0.6], (60, 1)) + np.arange(60)[:, None] / 80 * [1, 0, 1, 0]
    moving = compute_features(
        type(sequence)(**{**vars(sequence), "boxes": boxes.astype(np.float32), "tracks": np.zeros(60, np.int32)})
    )
    feature_spec = FeatureSpec.from_sequence(sequence)
    changes = Augmenter(feature_spec, TASK.labels)
    assert changes.mirror is not None
    features = LoadedFeatures(features={"a.mp4": moving}, feature_spec=feature_spec, names=NAMES, keys={"a.mp4": "a"})
    plain = CaptionBatches([clip(0, 60)], features, TOKENIZER, size=1, seed=0, augment=changes)
    column = feature_spec.object_groups()["speed"].start + 1
    for seed in range(30):
        window = plain.window(0, np.random.default_rng(seed))
        assert (window.objects[:, column] >= 0).all()
        assert window.objects[:, column].max() > 0


# --- validation -----------------------------------------------------------------------------------------------------


def test_caption_validation_metrics_by_hand() -> None:
    model = make_model(SEQUENCE, sentences=[*FALL, *WALK])
    assert model.caption is not None
    tokenizer = model.caption.tokenizer
    validation = _CaptionValidation(CLIPS, loaded(), tokenizer)
    right, losses = [], []
    for example in CLIPS:
        expected = FEATURES.frames(example.first, example.stop)
        counts, frame = torch.from_numpy(np.diff(expected.offsets))[None], torch.from_numpy(expected.frame)[None]
        mask = torch.ones(1, len(expected), dtype=torch.bool)
        for sentence in example.sentences:
            words = torch.from_numpy(sentence_words(tokenizer, sentence, example.label))[None]
            with torch.inference_mode():
                log = model.network.caption_logits(torch.from_numpy(expected.objects), counts, frame, mask, words)[
                    0
                ].log_softmax(1)
            right += (log.argmax(dim=1) == words[0, 1:]).tolist()
            losses += (-log.gather(1, words[0, 1:, None])[:, 0]).tolist()
    next_word, loss = validation.metrics(model)
    assert next_word == pytest.approx(np.mean(right))
    assert loss == pytest.approx(np.mean(losses), rel=1e-4)


@pytest.mark.parametrize("max_segments", [100, 7])
def test_caption_threshold_is_fitted_on_captions(max_segments: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MAX_SEGMENTS", max_segments)
    model = make_model(SEQUENCE, sentences=[*FALL, *WALK])
    clips = CLIPS if max_segments > 20 else [CLIPS[n] for n in (0, 3, 6, 9, 12, 15, 19)]
    segments = [CaptionSegment(features=FEATURES.frames(example.first, example.stop)) for example in clips]
    scores = [example.score for example in caption_segments(model, segments)]
    texts = [example.sentences[0] for example in clips]
    log_likelihoods = caption_log_likelihoods(model, segments, texts)
    understood = caption_understanding(log_likelihoods, texts, [example.label for example in clips])
    assert model.caption is not None
    validation = _CaptionValidation(CLIPS, loaded(), model.caption.tokenizer)
    assert validation.threshold(model) == fit_caption_threshold(scores, understood)


# --- what is worth telling ------------------------------------------------------------------------------------------


def test_understanding_by_hand() -> None:
    likely = np.array([
        [-1.0, -5.0, -4.0, -9.0],
        [-2.0, -6.0, -3.0, -9.5],
        [-4.0, -7.0, -1.0, -9.9],
        [-3.0, -8.0, -2.0, -8.0],
    ])  # fmt: skip
    texts, labels = ["a", "b", "c", "d"], [0, 0, 0, 0]
    fits = likely - likely.mean(axis=0)
    expected = [np.mean([fits[i, i] > fits[i, j] for j in range(4) if j != i]) for i in range(4)]
    assert caption_understanding(likely, texts, labels).tolist() == pytest.approx(expected)
    assert 0 < min(expected) < max(expected)
    # neither the length of a sentence nor the model's confidence in a segment matters
    moved = likely + np.array([0.0, -50.0, 3.0, 8.0]) + np.array([[1.0], [2.0], [-30.0], [4.0]])
    assert caption_understanding(moved, texts, labels).tolist() == pytest.approx(expected)
    assert caption_understanding(np.diag([9.0] * 4), texts, labels).tolist() == [1.0] * 4
    assert caption_understanding(-np.diag([9.0] * 4), texts, labels).tolist() == [0.0] * 4


def test_understanding_compares_same_label() -> None:
    """Those of its label that read otherwise; where there are none, those of other labels."""
    likely = np.zeros((5, 5))
    likely[0, 2] = 9.0  # of another label: does not count
    likely[1, 0] = 9.0  # reads alike: does not count
    likely[3, 0] = 9.0  # the only one of its label
    likely[2, 2] = likely[4, 4] = 5.0
    understood = caption_understanding(likely, ["a", "a", "b", "c", "b"], [0, 0, 0, 1, None])
    fits = likely - likely.mean(axis=0)
    assert understood.tolist() == pytest.approx([
        float(fits[0, 0] > fits[0, 2]),
        float(fits[1, 1] > fits[1, 2]),
        np.mean([fits[2, 2] > fits[2, j] for j in (0, 1)]),
        np.mean([fits[3, 3] > fits[3, j] for j in (0, 1, 2, 4)]),
        np.mean([fits[4, 4] > fits[4, j] for j in (0, 1, 3)]),
    ])  # fmt: skip
    assert caption_understanding(np.zeros((1, 1)), ["a"], [0]).tolist() == [1.0]
    assert caption_understanding(np.eye(3), ["a"] * 3, [0, 1, 2]).tolist() == [1.0] * 3


SCORES = [0.9, 0.8, 0.75, 0.5, 0.4]


@pytest.mark.parametrize(("understanding", "threshold"), [
    ([1.0, 1.0, 1.0, 1.0, 1.0], 0.0),
    ([0.0, 0.0, 0.0, 0.0, 0.0], 1.0),
    ([0.5, 0.5, 0.5, 0.5, 0.5], 1.0),  # guessed
    ([0.75, 0.75, 0.75, 0.75, 0.75], 1.0),  # half guessed
    ([1.0, 1.0, 1.0, 0.5, 0.0], 0.625),
    ([1.0, 0.0, 0.0, 0.0, 0.0], 0.85),
    ([0.8, 1.0, 1.0, 1.0, 0.5], 0.45),  # one that is not understood among the surest costs less than it hides
    ([1.0, 1.0, 1.0, 1.0, 0.9], 0.0),  # of equally good thresholds the lowest
])  # fmt: skip
def test_fit_caption_threshold(understanding: list[float], threshold: float) -> None:
    assert fit_caption_threshold(SCORES, np.array(understanding)) == pytest.approx(threshold)
    turned = fit_caption_threshold(SCORES[::-1], np.array(understanding[::-1]))
    assert turned == pytest.approx(threshold), "the order does not matter"
