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
    template_caption,
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
    caption_scores = sorted(item.description_score or 0.0 for item in caption_events(model, [SEQUENCE], detect(model)))
    middle = len(caption_scores) // 2
    assert model.caption is not None
    return replace(
        model, caption=replace(model.caption, threshold=(caption_scores[middle - 1] + caption_scores[middle]) / 2)
    )


def detect(model: EventModel, frames: int = 300) -> list[Event]:
    part = SEQUENCE.frames(0, frames)
    return score_recording(model, [part], video="a.mp4", duration_s=frames / 8).events


def is_useful(model: EventModel) -> bool:
    """Whether there is something to test: several events, long ones too, and different sentences, told and not told."""
    actual = detect(model, 160)
    captioned = caption_events(model, [SEQUENCE], detect(model))
    return (
        len(actual) > 3
        and max(item.end_s - item.start_s for item in actual) * 8 > 12
        and {item.description_source for item in captioned} == {"model", "template"}
        and len({item.description for item in caption_events(with_threshold(model, 0.0), [SEQUENCE], EVENTS)}) > 4
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


def assert_same_events(actual: Sequence[Event], expected: Sequence[Event]) -> None:
    assert len(actual) == len(expected)
    for item, other in zip(actual, expected, strict=True):
        assert item.description_score == pytest.approx(other.description_score, abs=1e-5)
        assert replace(item, description_score=None) == replace(other, description_score=None)


def by_start(events: Sequence[Event]) -> list[Event]:
    return sorted(events, key=lambda item: (item.start_s, item.end_s, item.label))


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
def test_caption_frames(start_s: float, end_s: float, frames: tuple[int, int]) -> None:
    assert caption_frames(SEQUENCE.time_s, start_s, end_s) == frames


def test_caption_frames_of_long_event() -> None:
    assert caption_frames(np.arange(5000) / 8, 10.0, 400.0) == (3200 - 1024, 3200)


def test_caption_frames_ignore_rounding_to_milliseconds() -> None:
    time_s = np.arange(120) / 29.97
    for first, stop in itertools.combinations(range(0, 120, 3), 2):
        start_s, end_s = float(time_s[first]), float(time_s[stop])
        cut = (math.floor(start_s * 1000) / 1000, math.floor(end_s * 1000) / 1000)
        assert caption_frames(time_s, *cut) == caption_frames(time_s, start_s, end_s)
        assert caption_frames(time_s, start_s, end_s)[1] == stop
        assert caption_frames(time_s, start_s, end_s + 0.0009)[1] == stop, "nor does one more"


def test_caption_frames_differ_between_events() -> None:
    spans = [caption_frames(SEQUENCE.time_s, start_s, end_s) for start_s, end_s in SPANS]
    assert len(set(spans)) == len(SPANS)


def assert_equal(item: Features, other: Features) -> None:
    for name in ("objects", "offsets", "frame", "time_s"):
        assert np.array_equal(getattr(item, name), getattr(other, name)), name


def tracked(gap_s: float = 0.0) -> FrameSequence:
    """Objects that are lost for up to a second, whose speeds reach back over that; the recording may have a gap."""
    sequence = make_sequence(300, seed=2)
    rng = np.random.default_rng(0)
    time_s = sequence.time_s + (np.arange(300) >= 150) * gap_s
    return replace(sequence, tracks=rng.permutation(len(sequence.boxes)).astype(np.int32) % 23, time_s=time_s)


@pytest.mark.parametrize("gap_s", [0.0, 1.0, 60.0])
@pytest.mark.parametrize("edges", [[0, 300], EDGES, list(range(301))], ids=["whole", "parts", "frames"])
def test_caption_features_equal_whole_recording(edges: list[int], gap_s: float) -> None:
    sequence = tracked(gap_s)
    whole = compute_features(sequence)
    parts = [sequence.frames(a, b) for a, b in itertools.pairwise(edges)]
    starts = range(0, 300, 1 if len(edges) < 300 else 29)
    spans = [(float(sequence.time_s[t]), float(sequence.time_s[t]) + 1.7) for t in starts]
    for span, segments in zip(spans, caption_features(parts, MODEL.feature_spec, spans), strict=True):
        assert_equal(segments, whole.frames(*caption_frames(sequence.time_s, *span)))


# --- sentences ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_caption_events_is_independent_of_parts(kind: str) -> None:
    model = KINDS[kind]
    labelled = [replace(item, label=DESCRIBED) for item in EVENTS] if kind == "text" else EVENTS
    expected = caption_events(model, [SEQUENCE], labelled)
    assert_same_events(caption_events(model, PARTS, labelled), expected)
    assert_same_events(
        caption_events(model, [SEQUENCE.frames(t, t + 1) for t in range(300)], labelled[:6]), expected[:6]
    )
    assert_same_events(caption_events_from_features(model, FEATURES, labelled), expected)
    for item, other in zip(labelled[::3], expected[::3], strict=True):
        assert_same_events(caption_events(model, PARTS, [item]), [other])
    assert [replace(item, description=None, description_score=None, description_source=None) for item in expected] == (
        labelled
    )


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "whole"])
@pytest.mark.parametrize("longest", [1024, 12])
def test_event_stream_captions_equal_prediction(kind: str, longest: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of events that are longer than what is read, of which the stream has forgotten the beginning."""
    monkeypatch.setattr(module, "_MAX_FRAMES", longest)
    model, sequence = KINDS[kind], SEQUENCE.frames(0, 160)
    expected = by_start(caption_events(model, PARTS, detect(model, 160)))
    for edges in (range(161), [0, 1, 57, 57, 120, 160]):
        stream = EventStream(model, video="a.mp4", beam=4)
        steps = [stream.push(sequence.frames(a, b)) for a, b in itertools.pairwise(edges)]
        closed = by_start([item for step in [*steps, stream.finish(20.0)] for item in step.closed])
        for item, other in zip(closed, expected, strict=True):
            assert item.score == pytest.approx(other.score, abs=1e-5)
        assert_same_events(
            [replace(item, score=other.score) for item, other in zip(closed, expected, strict=True)], expected
        )
        assert stream._recent is not None
        assert sum(map(len, stream._recent._parts)) <= 2 * longest + stream.lookahead_s * 8 + 2 * max(np.diff(edges))


@pytest.mark.parametrize(("settings", "has_captions"), [({}, True), ({"beam": 0}, False)])
def test_event_stream_captions_by_default(settings: dict[str, int], has_captions: bool) -> None:
    stream = EventStream(MODEL, video="a.mp4", **settings)
    closed = stream.push(SEQUENCE).closed + stream.finish(DURATION_S).closed
    assert closed
    assert all((item.description is not None) == has_captions for item in closed)


def test_recent_features_skip_old_events(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MAX_FRAMES", 10)
    recent = RecentFeatures(0)
    for t in range(300):
        recent.push(FEATURES.frames(t, t + 1))
    old, new = event(1.0, 2.0), event(36.0, 37.0)
    captioned = recent.caption_events(MODEL, [old, new, old])
    assert captioned[::2] == [old, old]
    assert_same_events(captioned[1:2], caption_events(MODEL, PARTS, [new]))


@pytest.mark.parametrize("kind", KINDS)
def test_caption_events_without_captions_is_identity(kind: str) -> None:
    model = replace(KINDS[kind], caption=None)
    assert caption_events(model, PARTS, EVENTS) == EVENTS
    assert caption_events_from_features(model, FEATURES, EVENTS) == EVENTS
    stream = EventStream(model, video="a.mp4", beam=4)
    assert all(item.description is None for item in stream.push(SEQUENCE).closed + stream.finish(DURATION_S).closed)
    with pytest.raises(ValueError, match="the model writes no captions"):
        caption_segments(model, [CaptionSegment(features=FEATURES)])


def test_caption_events_without_events() -> None:
    assert caption_events(MODEL, [], []) == []
    assert caption_events_from_features(MODEL, FEATURES, []) == []
    assert caption_segments(MODEL, []) == []


@pytest.mark.parametrize("sequence", [make_sequence(40, 0), make_sequence(1, 3), make_sequence(1, 0)])
def test_caption_events_of_short_recordings(sequence: FrameSequence) -> None:
    (captioned,) = caption_events(with_threshold(MODEL, 1.1), [sequence], [event(0.0, 0.125)])
    assert captioned.description_score is not None
    assert 0 < captioned.description_score <= 1
    names = detected_class_names(compute_features(sequence.frames(0, 1)), MODEL)
    assert captioned.description == template_caption(event(0.0, 0.125), names)


# --- whose sentence -------------------------------------------------------------------------------------------------


def test_caption_events_fall_back_to_template() -> None:
    always = caption_events(with_threshold(MODEL, 0.0), PARTS, EVENTS)
    never = caption_events(with_threshold(MODEL, 1.1), PARTS, EVENTS)
    assert {item.description_source for item in never} == {"template"}
    assert [item.description_score for item in never] == [item.description_score for item in always]
    caption_scores = [item.description_score or 0.0 for item in always if item.description_source == "model"]
    assert len(caption_scores) > len(EVENTS) / 2
    for least in (
        round(item, 6) for item in (min(caption_scores), float(np.median(caption_scores)), max(caption_scores))
    ):
        for item, plain, put_together in zip(
            caption_events(with_threshold(MODEL, least), PARTS, EVENTS), always, never, strict=True
        ):
            assert item.description_score is not None
            captioned = plain if round(item.description_score, 6) >= least else put_together
            assert item == captioned
    objects = [*SEQUENCE.names]
    assert all(name in (put_together.description or "").lower() for name in objects for put_together in never[6:8])
    assert (never[6].description or "").endswith(": fall (00:04\N{EN DASH}00:09)")
    unsure = with_threshold(MODEL, 1.1)
    assert unsure.caption is not None
    unsure = replace(unsure, caption=replace(unsure.caption, templates={EVENTS[6].label: "Ouch at {start}"}))
    assert caption_events(unsure, PARTS, EVENTS[6:7])[0].description == "Ouch at 00:04"


def test_caption_events_replace_empty_captions() -> None:
    network = MODEL.network
    assert network.caption_head is not None
    bias = network.caption_head.bias.detach().clone()
    try:
        with torch.no_grad():
            network.caption_head.bias[Tokenizer.END] = 100.0
        (captioned,) = caption_events(with_threshold(MODEL, 0.0), PARTS, EVENTS[:1])
    finally:
        with torch.no_grad():
            network.caption_head.bias.copy_(bias)
    assert captioned.description_source == "template"
    assert captioned.description_score == pytest.approx(1.0)


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


def test_caption_segments_start_with_label() -> None:
    """The model here has sentences of training for falls, and none for walks."""
    assert MODEL.caption is not None
    assert MODEL.caption.labels == ("fall",)
    words = len(MODEL.caption.tokenizer)
    segments = [FEATURES.frames(first, first + 12) for first in range(0, 280, 20)]
    firsts = {"fall": words, "walk": Tokenizer.START, "something else": Tokenizer.START}
    captioned = {
        label: caption_segments(MODEL, [CaptionSegment(features=item, label=label) for item in segments])
        for label in firsts
    }
    for label, first in firsts.items():
        for item, actual in zip(segments, captioned[label], strict=True):
            text, score = by_hand(MODEL, item, first)
            assert actual.text == text
            assert actual.score == pytest.approx(score, abs=1e-4)
    assert [item.text for item in captioned["fall"]] != [item.text for item in captioned["walk"]]


@pytest.mark.parametrize("heads", [{"clips": True, "timed": True}, {"clips": False, "timed": True}, {"clips": True}])
@pytest.mark.parametrize("label", ["fall", "walk"])
def test_caption_segments_take_label_from_heads(heads: dict[str, bool], label: str) -> None:
    """That for clips where there is one, else that for frames."""
    model = make_model(SEQUENCE, sentences=SENTENCES, lookahead=2 if "timed" in heads else 0, seed=7, **heads)
    for number, head in enumerate([model.network.frame_head, model.network.clip_head]):
        if head is not None:
            wins = model.labels.index(label) if number or not model.task.clip_head else 1 - model.labels.index(label)
            with torch.no_grad():
                head[-1].bias[:, wins] += 50.0
                head[-1].bias[:, 2] += 80.0  # that nothing happens is no label
    segments = [FEATURES.frames(first, first + 12) for first in range(0, 280, 40)]
    captioned = {
        name: caption_segments(model, [CaptionSegment(features=item, label=name) for item in segments])
        for name in model.labels
    }
    assert captioned["fall"] != captioned["walk"]
    assert [item.text for item in caption_segments(model, [CaptionSegment(features=item) for item in segments])] == [
        item.text for item in captioned[label]
    ]


def test_caption_log_likelihoods() -> None:
    segments = [
        CaptionSegment(features=FEATURES.frames(0, 12), label="fall"),
        CaptionSegment(features=FEATURES.frames(40, 45), label="walk"),
        CaptionSegment(features=FEATURES.frames(100, 180)),
    ]
    texts = ["A man falls.", "He", "남 왼 walks man left", "He"]
    actual = caption_log_likelihoods(MODEL, segments, texts)
    assert actual.shape == (3, 4)
    assert actual.dtype == np.float64
    assert MODEL.caption is not None
    tokenizer = MODEL.caption.tokenizer
    firsts = {"fall": len(tokenizer), "walk": Tokenizer.START}
    for row, segment in enumerate(segments):
        features = segment.features
        first = firsts[segment.label or module._best_label(MODEL, features)]
        counts, frame = torch.from_numpy(np.diff(features.offsets))[None], torch.from_numpy(features.frame)[None]
        mask = torch.ones(1, len(features), dtype=torch.bool)
        for column, text in enumerate(texts):
            words = torch.tensor([[first, *tokenizer.encode(text), Tokenizer.END]])
            with torch.inference_mode():
                logits = MODEL.network.caption_logits(torch.from_numpy(features.objects), counts, frame, mask, words)
            expected = float(logits.log_softmax(dim=2).gather(2, words[:, 1:, None]).sum())
            assert actual[row, column] == pytest.approx(expected, rel=1e-4)


def test_caption_segments_are_independent_of_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    segments = [
        CaptionSegment(features=FEATURES.frames(a, a + n), label="fall") for a in range(0, 250, 31) for n in (1, 8, 50)
    ]
    together = caption_segments(MODEL, segments)
    monkeypatch.setattr(module, "_FRAMES_PER_PASS", 60)
    for item, other in zip(together, caption_segments(MODEL, segments), strict=True):
        assert item.text == other.text
        assert item.score == pytest.approx(other.score, abs=1e-5)
    assert [caption_segments(MODEL, [item])[0].text for item in segments] == [item.text for item in together]
    greedy = caption_segments(MODEL, segments, beam=1)
    assert [item.text for item in greedy] != [item.text for item in together]
    assert greedy[0].text == by_hand(MODEL, segments[0].features, len(MODEL.caption.tokenizer), beam=1)[0]


def test_caption_intervals() -> None:
    captioned = caption_intervals(
        MODEL, [(PARTS, None, None), (PARTS, 4.0, 6.0), ([SEQUENCE.frames(0, 100)], 4.0, 6.0)]
    )
    features = [
        CaptionSegment(features=FEATURES),
        *(CaptionSegment(features=FEATURES.frames(28, 48)) for _ in range(2)),
    ]
    assert [item.text for item in captioned] == [item.text for item in caption_segments(MODEL, features)]


def test_detected_class_names() -> None:
    classes, counts = np.unique(SEQUENCE.frames(10, 40).classes, return_counts=True)
    order = sorted(zip(-counts, classes, strict=True))
    assert detected_class_names(FEATURES.frames(10, 40), MODEL) == [SEQUENCE.names[index] for _, index in order]
    assert detected_class_names(compute_features(make_sequence(9, 0)), MODEL) == []
