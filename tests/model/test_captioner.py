"""Sentences on events: what is read of a recording for one, and whose sentence is told."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.model.networks import make_model
from tests.sequences import make_sequence
from vidgru.model import captioner as module
from vidgru.model.captioner import (
    CaptionSegment,
    RecentFeatures,
    caption_events,
    caption_events_from_features,
    caption_features,
    caption_frames,
    caption_intervals,
    caption_log_likelihoods,
    caption_segments,
    detected_class_names,
)
from vidgru.model.checkpoint import EventModel
from vidgru.model.features import compute_features
from vidgru.model.stream import EventStream, score_recording
from vidgru.model.tokenizer import Tokenizer
from vidgru.types import DESCRIBED, Event, Features, FrameSequence

SENTENCES = ("A man falls.", "He walks left.", "남 왼", "A man walks.")
SEQUENCE = make_sequence(300, seed=2)
FEATURES = compute_features(SEQUENCE)
DURATION_S = 37.5
EDGES = [0, 1, 57, 57, 120, 203, 300]
PARTS = [SEQUENCE.frames(a, b) for a, b in itertools.pairwise(EDGES)]


def random_model(seed: int, **shape: object) -> EventModel:
    """A model that finds events and describes them: its thresholds lie amid its scores."""
    model = make_model(SEQUENCE, sentences=SENTENCES, seed=seed, **shape)
    head = model.network.frame_head or model.network.clip_head
    if head is not None:
        with torch.no_grad():
            head[-1].weight.mul_(40)
        scores = score_recording(model, [SEQUENCE], video="a.mp4", duration_s=DURATION_S).scores
        high, low = (tuple(map(float, np.quantile(scores, q, axis=0))) for q in (0.8, 0.6))
        decode = replace(model.decode, high=high, low=low, min_s=0.2, merge_s=0.3, smooth_s=0.5)
        model = replace(model, decode=decode)
    sure = sorted(one.description_score or 0.0 for one in caption_events(model, [SEQUENCE], found_by(model)))
    middle = len(sure) // 2
    assert model.caption is not None
    return replace(model, caption=replace(model.caption, threshold=(sure[middle - 1] + sure[middle]) / 2))


def found_by(model: EventModel, frames: int = 300) -> list[Event]:
    part = SEQUENCE.frames(0, frames)
    return score_recording(model, [part], video="a.mp4", duration_s=frames / 8).events


def is_useful(model: EventModel) -> bool:
    """Whether there is something to test: several events, long ones too, and different sentences, told and not told."""
    found = found_by(model, 160)
    told = caption_events(model, [SEQUENCE], found_by(model))
    return (
        len(found) > 3
        and max(one.end_s - one.start_s for one in found) * 8 > 12
        and {one.description_source for one in told} == {"model", "template"}
        and len({one.description for one in caption_events(with_threshold(model, 0.0), [SEQUENCE], EVENTS)}) > 4
    )


def talkative(**shape: object) -> EventModel:
    return next(model for seed in range(100) if is_useful(model := random_model(seed, **shape)))


def with_threshold(model: EventModel, threshold: float) -> EventModel:
    assert model.caption is not None
    return replace(model, caption=replace(model.caption, threshold=threshold))


def event(start_s: float, end_s: float, label: str = "fall") -> Event:
    return Event(video="a.mp4", start_s=start_s, end_s=end_s, label=label, score=0.5)


SPANS = [(0.0, 0.125), (0.0, 2.0), (3.0, 3.125), (4.1, 9.73), (12.0, 30.0), (37.375, 37.5), (30.0, 37.5)]
EVENTS = [event(*span, label) for span in SPANS for label in ("fall", "walk")]
KINDS = {
    "timed": talkative(timed=True, lookahead=3),
    "clips": talkative(),
    "lstm": talkative(timed=True, lookahead=8, cell="lstm", layers=2, clips=False),
    "text": talkative(clips=False),
    "whole": talkative(timed=True, bidirectional=True),
}
MODEL = KINDS["timed"]


def same(found: Sequence[Event], expected: Sequence[Event]) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one.description_score == pytest.approx(other.description_score, abs=1e-5)
        assert replace(one, description_score=None) == replace(other, description_score=None)


def by_start(events: Sequence[Event]) -> list[Event]:
    return sorted(events, key=lambda one: (one.start_s, one.end_s, one.label))


# --- which frames ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("start_s", "end_s", "frames"), [
    (4.0, 6.0, (28, 48)),  # from half a second before it
    (0.0, 1.0, (0, 8)),
    (0.25, 1.0, (0, 8)),
    (5.0, 5.125, (36, 41)),
    (5.01, 5.05, (37, 41)),
    (0.0, 0.01, (0, 1)),
    (37.4, 37.5, (296, 300)),
    (50.0, 60.0, (299, 300)),  # nothing was decoded there
    (0.0, math.inf, (0, 300)),
])  # fmt: skip
def test_what_is_read_of_an_event(start_s: float, end_s: float, frames: tuple[int, int]) -> None:
    assert caption_frames(SEQUENCE.time_s, start_s, end_s) == frames


def test_of_a_long_event_the_last_frames_are_read() -> None:
    assert caption_frames(np.arange(5000) / 8, 10.0, 400.0) == (3200 - 1024, 3200)


def test_times_cut_to_milliseconds_change_nothing() -> None:
    time_s = np.arange(120) / 29.97
    for first, stop in itertools.combinations(range(0, 120, 3), 2):
        start_s, end_s = float(time_s[first]), float(time_s[stop])
        cut = (math.floor(start_s * 1000) / 1000, math.floor(end_s * 1000) / 1000)
        assert caption_frames(time_s, *cut) == caption_frames(time_s, start_s, end_s)
        assert caption_frames(time_s, start_s, end_s)[1] == stop
        assert caption_frames(time_s, start_s, end_s + 0.0009)[1] == stop, "nor does one more"


def test_events_at_other_times_are_read_elsewhere() -> None:
    spans = [caption_frames(SEQUENCE.time_s, start_s, end_s) for start_s, end_s in SPANS]
    assert len(set(spans)) == len(SPANS)


def assert_equal(one: Features, other: Features) -> None:
    for name in ("objects", "offsets", "frame", "time_s"):
        assert np.array_equal(getattr(one, name), getattr(other, name)), name


def tracked(gap_s: float = 0.0) -> FrameSequence:
    """Objects that are lost for up to a second, whose speeds reach back over that; the recording may have a gap."""
    sequence = make_sequence(300, seed=2)
    rng = np.random.default_rng(0)
    time_s = sequence.time_s + (np.arange(300) >= 150) * gap_s
    return replace(sequence, tracks=rng.permutation(len(sequence.boxes)).astype(np.int32) % 23, time_s=time_s)


@pytest.mark.parametrize("gap_s", [0.0, 1.0, 60.0])
@pytest.mark.parametrize("edges", [[0, 300], EDGES, list(range(301))], ids=["whole", "parts", "frames"])
def test_cut_features_are_those_of_the_whole_recording(edges: list[int], gap_s: float) -> None:
    sequence = tracked(gap_s)
    whole = compute_features(sequence)
    parts = [sequence.frames(a, b) for a, b in itertools.pairwise(edges)]
    starts = range(0, 300, 1 if len(edges) < 300 else 29)
    spans = [(float(sequence.time_s[t]), float(sequence.time_s[t]) + 1.7) for t in starts]
    for span, some in zip(spans, caption_features(parts, MODEL.feature_spec, spans), strict=True):
        assert_equal(some, whole.frames(*caption_frames(sequence.time_s, *span)))


# --- sentences ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_however_a_recording_is_cut_up_its_events_are_told_alike(kind: str) -> None:
    model = KINDS[kind]
    labelled = [replace(one, label=DESCRIBED) for one in EVENTS] if kind == "text" else EVENTS
    expected = caption_events(model, [SEQUENCE], labelled)
    same(caption_events(model, PARTS, labelled), expected)
    same(caption_events(model, [SEQUENCE.frames(t, t + 1) for t in range(300)], labelled[:6]), expected[:6])
    same(caption_events_from_features(model, FEATURES, labelled), expected)
    for one, other in zip(labelled[::3], expected[::3], strict=True):
        same(caption_events(model, PARTS, [one]), [other])
    assert [replace(one, description=None, description_score=None, description_source=None) for one in expected] == (
        labelled
    )


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "whole"])
@pytest.mark.parametrize("longest", [1024, 12])
def test_a_live_stream_tells_what_prediction_tells(kind: str, longest: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of events that are longer than what is read, of which the stream has forgotten the beginning."""
    monkeypatch.setattr(module, "_MAX_FRAMES", longest)
    model, sequence = KINDS[kind], SEQUENCE.frames(0, 160)
    expected = by_start(caption_events(model, PARTS, found_by(model, 160)))
    for edges in (range(161), [0, 1, 57, 57, 120, 160]):
        stream = EventStream(model, video="a.mp4", beam=4)
        steps = [stream.push(sequence.frames(a, b)) for a, b in itertools.pairwise(edges)]
        closed = by_start([one for step in [*steps, stream.finish(20.0)] for one in step.closed])
        for one, other in zip(closed, expected, strict=True):
            assert one.score == pytest.approx(other.score, abs=1e-5)
        same([replace(one, score=other.score) for one, other in zip(closed, expected, strict=True)], expected)
        assert stream._recent is not None
        assert sum(map(len, stream._recent._parts)) <= 2 * longest + stream.lookahead_s * 8 + 2 * max(np.diff(edges))


def test_a_stream_that_is_not_asked_to_does_not_describe() -> None:
    stream = EventStream(MODEL, video="a.mp4")
    closed = stream.push(SEQUENCE).closed + stream.finish(DURATION_S).closed
    assert closed
    assert all(one.description is None for one in closed)


def test_an_event_that_ended_too_long_ago_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MAX_FRAMES", 10)
    recent = RecentFeatures(0)
    for t in range(300):
        recent.push(FEATURES.frames(t, t + 1))
    old, new = event(1.0, 2.0), event(36.0, 37.0)
    told = recent.caption_events(MODEL, [old, new, old])
    assert told[::2] == [old, old]
    same(told[1:2], caption_events(MODEL, PARTS, [new]))


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_without_captions_leaves_events_as_they_are(kind: str) -> None:
    model = replace(KINDS[kind], caption=None)
    assert caption_events(model, PARTS, EVENTS) == EVENTS
    assert caption_events_from_features(model, FEATURES, EVENTS) == EVENTS
    stream = EventStream(model, video="a.mp4", beam=4)
    assert all(one.description is None for one in stream.push(SEQUENCE).closed + stream.finish(DURATION_S).closed)
    with pytest.raises(ValueError, match="the model writes no captions"):
        caption_segments(model, [CaptionSegment(features=FEATURES)])


def test_no_events() -> None:
    assert caption_events(MODEL, [], []) == []
    assert caption_events_from_features(MODEL, FEATURES, []) == []
    assert caption_segments(MODEL, []) == []


@pytest.mark.parametrize("sequence", [make_sequence(40, 0), make_sequence(1, 3), make_sequence(1, 0)])
def test_recordings_with_little_to_see(sequence: FrameSequence) -> None:
    (told,) = caption_events(with_threshold(MODEL, 1.1), [sequence], [event(0.0, 0.125)])
    assert told.description_score is not None
    assert 0 < told.description_score <= 1
    names = ", ".join(detected_class_names(compute_features(sequence.frames(0, 1)), MODEL))
    assert told.description == f"{names}: fall, 00:00\N{EN DASH}00:00".removeprefix(": ")


# --- whose sentence -------------------------------------------------------------------------------------------------


def test_below_the_threshold_what_was_found_is_put_together() -> None:
    always = caption_events(with_threshold(MODEL, 0.0), PARTS, EVENTS)
    never = caption_events(with_threshold(MODEL, 1.1), PARTS, EVENTS)
    assert {one.description_source for one in never} == {"template"}
    assert [one.description_score for one in never] == [one.description_score for one in always]
    sure = [one.description_score or 0.0 for one in always if one.description_source == "model"]
    assert len(sure) > len(EVENTS) / 2
    for least in (round(one, 6) for one in (min(sure), float(np.median(sure)), max(sure))):
        for one, plain, put_together in zip(
            caption_events(with_threshold(MODEL, least), PARTS, EVENTS), always, never, strict=True
        ):
            assert one.description_score is not None
            told = plain if round(one.description_score, 6) >= least else put_together
            assert one == told
    objects = [*SEQUENCE.names]
    assert all(name in (put_together.description or "") for name in objects for put_together in never[6:8])
    assert (never[6].description or "").endswith(": fall, 00:04\N{EN DASH}00:09")


def test_a_sentence_without_a_word_is_not_told() -> None:
    network = MODEL.network
    assert network.caption_head is not None
    bias = network.caption_head.bias.detach().clone()
    try:
        with torch.no_grad():
            network.caption_head.bias[Tokenizer.END] = 100.0
        (told,) = caption_events(with_threshold(MODEL, 0.0), PARTS, EVENTS[:1])
    finally:
        with torch.no_grad():
            network.caption_head.bias.copy_(bias)
    assert told.description_source == "template"
    assert told.description_score == pytest.approx(1.0)


def by_hand(model: EventModel, features: Features, first: int, beam: int = 4) -> tuple[str, float]:
    """A sentence that begins with a certain word, of the head itself."""
    head, facts = model.network.caption_head, model.caption
    assert head is not None
    assert facts is not None
    counts = torch.from_numpy(np.diff(features.offsets))[None]
    frame = torch.from_numpy(features.frame)[None]
    with torch.inference_mode():
        memory = model.network.caption_memory(
            torch.from_numpy(features.objects), counts, frame, torch.ones(1, len(features), dtype=torch.bool)
        )
        (words,), mean = head.write(memory, torch.tensor([first]), beam=beam, most=facts.longest)
    return facts.tokenizer.decode(words).strip(), math.exp(float(mean))


def test_sentences_begin_with_the_label_or_that_none_is_known() -> None:
    """The model here has sentences of training for falls, and none for walks."""
    assert MODEL.caption is not None
    assert MODEL.caption.labels == ("fall",)
    words = len(MODEL.caption.tokenizer)
    some = [FEATURES.frames(first, first + 12) for first in range(0, 280, 20)]
    firsts = {"fall": words, "walk": Tokenizer.START, "something else": Tokenizer.START}
    told = {
        label: caption_segments(MODEL, [CaptionSegment(features=one, label=label) for one in some]) for label in firsts
    }
    for label, first in firsts.items():
        for one, found in zip(some, told[label], strict=True):
            text, score = by_hand(MODEL, one, first)
            assert found.text == text
            assert found.score == pytest.approx(score, abs=1e-4)
    assert [one.text for one in told["fall"]] != [one.text for one in told["walk"]]


@pytest.mark.parametrize("heads", [{"clips": True, "timed": True}, {"clips": False, "timed": True}, {"clips": True}])
@pytest.mark.parametrize("label", ["fall", "walk"])
def test_without_a_label_the_other_heads_tell_it(heads: dict[str, bool], label: str) -> None:
    """That for clips where there is one, else that for frames."""
    model = make_model(SEQUENCE, sentences=SENTENCES, lookahead=2 if "timed" in heads else 0, seed=7, **heads)
    for number, head in enumerate([model.network.frame_head, model.network.clip_head]):
        if head is not None:
            wins = model.labels.index(label) if number or not model.task.clip_head else 1 - model.labels.index(label)
            with torch.no_grad():
                head[-1].bias[wins] += 50.0
                head[-1].bias[2] += 80.0  # that nothing happens is no label
    some = [FEATURES.frames(first, first + 12) for first in range(0, 280, 40)]
    told = {
        name: caption_segments(model, [CaptionSegment(features=one, label=name) for one in some])
        for name in model.labels
    }
    assert told["fall"] != told["walk"]
    assert [one.text for one in caption_segments(model, [CaptionSegment(features=one) for one in some])] == [
        one.text for one in told[label]
    ]


def test_how_likely_a_sentence_is() -> None:
    some = [
        CaptionSegment(features=FEATURES.frames(0, 12), label="fall"),
        CaptionSegment(features=FEATURES.frames(40, 45), label="walk"),
        CaptionSegment(features=FEATURES.frames(100, 180)),
    ]
    texts = ["A man falls.", "He", "남 왼 walks man left", "He"]
    found = caption_log_likelihoods(MODEL, some, texts)
    assert found.shape == (3, 4)
    assert found.dtype == np.float64
    assert MODEL.caption is not None
    tokenizer = MODEL.caption.tokenizer
    firsts = {"fall": len(tokenizer), "walk": Tokenizer.START}
    for row, stretch in enumerate(some):
        own = stretch.features
        first = firsts[stretch.label or module._best_label(MODEL, own)]
        counts, frame = torch.from_numpy(np.diff(own.offsets))[None], torch.from_numpy(own.frame)[None]
        mask = torch.ones(1, len(own), dtype=torch.bool)
        for column, text in enumerate(texts):
            words = torch.tensor([[first, *tokenizer.encode(text), Tokenizer.END]])
            with torch.inference_mode():
                logits = MODEL.network.caption_logits(torch.from_numpy(own.objects), counts, frame, mask, words)
            expected = float(logits.log_softmax(dim=2).gather(2, words[:, 1:, None]).sum())
            assert found[row, column] == pytest.approx(expected, rel=1e-4)


def test_many_stretches_are_told_as_each_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    some = [
        CaptionSegment(features=FEATURES.frames(a, a + n), label="fall") for a in range(0, 250, 31) for n in (1, 8, 50)
    ]
    together = caption_segments(MODEL, some)
    monkeypatch.setattr(module, "_FRAMES_PER_PASS", 60)
    for one, other in zip(together, caption_segments(MODEL, some), strict=True):
        assert one.text == other.text
        assert one.score == pytest.approx(other.score, abs=1e-5)
    assert [caption_segments(MODEL, [one])[0].text for one in some] == [one.text for one in together]
    greedy = caption_segments(MODEL, some, beam=1)
    assert [one.text for one in greedy] != [one.text for one in together]
    assert greedy[0].text == by_hand(MODEL, some[0].features, len(MODEL.caption.tokenizer), beam=1)[0]


def test_stretches_of_recordings_and_whole_ones() -> None:
    told = caption_intervals(MODEL, [(PARTS, None, None), (PARTS, 4.0, 6.0), ([SEQUENCE.frames(0, 100)], 4.0, 6.0)])
    own = [CaptionSegment(features=FEATURES), *(CaptionSegment(features=FEATURES.frames(28, 48)) for _ in range(2))]
    assert [one.text for one in told] == [one.text for one in caption_segments(MODEL, own)]


def test_what_was_seen_is_named_the_most_seen_first() -> None:
    classes, counts = np.unique(SEQUENCE.frames(10, 40).classes, return_counts=True)
    order = sorted(zip(-counts, classes, strict=True))
    assert detected_class_names(FEATURES.frames(10, 40), MODEL) == [SEQUENCE.names[index] for _, index in order]
    assert detected_class_names(compute_features(make_sequence(9, 0)), MODEL) == []
