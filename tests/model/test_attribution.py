"""Why an event: attention, gates, and what it would score without each group of features."""

import itertools
from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.model.networks import make_model
from tests.sequences import make_sequence
from vidgru.model import attribution as module
from vidgru.model.attribution import Explanation, event_frames, explain_events, explain_moments
from vidgru.model.checkpoint import EventModel
from vidgru.model.event_decoder import smooth_scores
from vidgru.model.gru_gates import GRUGates
from vidgru.model.scoring import encode_recording, score_frames
from vidgru.model.stream import ScoredRecording, score_recording
from vidgru.types import Event, FrameSequence

SEQUENCE = make_sequence(1200, seed=2)  # 150 s
SHAPES = [
    {"clips": False, "timed": True, "lookahead": 3},
    {"clips": False, "timed": True, "lookahead": 3, "layers": 2, "members": 2, "linear": True},
    {"clips": False, "timed": True, "bidirectional": True},
    {"clips": False, "timed": True, "cell": "lstm", "lookahead": 2},
    {"linear": True},
]


def model_of(smooth_s: float = 0.5, only: str = "", **shape: object) -> EventModel:
    """A model with pronounced scores, which listens to one group of features alone if that is given."""
    model = make_model(SEQUENCE, **shape)
    network = model.network
    with torch.no_grad():
        head = network.frame_head if network.frame_head is not None else network.clip_head
        head[-1].weight.mul_(5)
        for name, layer in network.encoder.project.items():
            if only and name != only:
                for weight in layer.parameters():
                    weight.zero_()
        if only and only != "class":
            network.encoder.classes.zero_()
    if only and model.linear:
        linear = model.linear
        for name in network.encoder.groups:
            linear = linear if name == only else linear.without(model.feature_spec, name)
        model = replace(model, linear=linear)
    return replace(model, decode=replace(model.decode, smooth_s=smooth_s))


def score_sequence(model: EventModel, sequence: FrameSequence = SEQUENCE) -> ScoredRecording:
    return score_recording(model, [sequence], video="a.mp4", duration_s=len(sequence) / 8, gates=True)


def event_at(model: EventModel, scored: ScoredRecording, start_s: float, end_s: float) -> Event:
    """An event of these times with the score that its frames have."""
    event = Event(video="a.mp4", start_s=start_s, end_s=end_s, label="walk", score=0)
    smoothed = smooth_scores(scored.time_s, scored.scores, model.decode.smooth_s)
    return replace(event, score=float(smoothed[event_frames(scored.time_s, event.start_s, event.end_s), 1].mean()))


def explain_at(model: EventModel, start_s: float = 60.0, end_s: float = 64.0, *, parts: int = 1) -> Explanation:
    scored = score_sequence(model)
    edges = np.linspace(0, len(SEQUENCE), parts + 1).astype(int)
    chunks = [SEQUENCE.frames(a, b) for a, b in itertools.pairwise(edges.tolist())]
    (explanation,) = explain_events(model, chunks, scored, [event_at(model, scored, start_s, end_s)])
    return explanation


@pytest.mark.parametrize(
    ("start_s", "end_s", "frames"),
    [(0.0, 1.0, (0, 8)), (0.125, 0.25, (1, 2)), (1.1249, 2.0006, (9, 16)), (9.875, 10, (79, 80)), (9.99, 12, (79, 80))],
)  # fmt: skip
def test_event_frames(start_s: float, end_s: float, frames: tuple[int, int]) -> None:
    assert event_frames(np.arange(80) / 8, start_s, end_s) == slice(*frames)


def test_explain_events_lookahead_counts_frames() -> None:
    model = model_of(clips=False, timed=True, lookahead=8)
    sparse = replace(SEQUENCE.frames(0, 400), time_s=SEQUENCE.time_s[:400] * 3.0)  # as where frames were passed over
    scored = score_sequence(model, sparse)
    event = event_at(model, scored, 60.0, 66.0)
    (explanation,) = explain_events(model, [sparse], scored, [event])
    assert explanation.baseline == pytest.approx(event.score, abs=1e-4)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("start_s", "end_s"), [(0.0, 2.0), (0.0, 0.5), (60.0, 64.0), (61.125, 61.25), (147.0, 150.0)])
def test_baseline_equals_event_score(shape: dict[str, object], start_s: float, end_s: float) -> None:
    """Thirty seconds before it are all that these models remember; windows lie as they do in the whole recording."""
    explanation = explain_at(model_of(**shape), start_s, end_s)
    assert explanation.score == explanation.event.score
    assert explanation.baseline == pytest.approx(explanation.score, abs=1e-4)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("group", ["motion", "class", "scene"])
def test_score_without_unused_groups_equals_baseline(shape: dict[str, object], group: str) -> None:
    model = model_of(only=group, **shape)
    explanation = explain_at(model)
    assert explanation.score_without.keys() == set(model.network.encoder.groups)
    for name, score in explanation.score_without.items():
        assert (score == pytest.approx(explanation.baseline, abs=1e-6)) == (name != group), name


def test_score_without_masks_all_context_frames() -> None:
    model = model_of(clips=False, timed=True, lookahead=3)
    explanation = explain_at(model, 20.0, 24.0)  # all that comes before is read again
    for name in ("speed", "appearance", "scene_motion"):
        masked = make_model(SEQUENCE, clips=False, timed=True, lookahead=3)
        masked.network.load_state_dict(model.network.state_dict())
        with torch.no_grad():
            for weight in masked.network.encoder.project[name].parameters():
                weight.zero_()
        masked = replace(masked, decode=model.decode)
        whole = score_frames(masked, [encode_recording(masked, [SEQUENCE])])[0]
        expected = smooth_scores(SEQUENCE.time_s, whole, model.decode.smooth_s)[160:192, 1].mean()
        assert explanation.score_without[name] == pytest.approx(expected, abs=1e-5)


def test_score_without_masks_linear_path_and_network() -> None:
    shape = {"clips": False, "timed": True, "lookahead": 3, "linear": True}
    model = model_of(masked_groups=("colour",), **shape)
    explanation = explain_at(model, 20.0, 24.0)
    masked = replace(
        model, masked_groups=("colour", "motion"), linear=model.linear.without(model.feature_spec, "motion")
    )
    assert explanation.score_without["motion"] == pytest.approx(explain_at(masked, 20.0, 24.0).baseline, abs=1e-5)
    for part in ({"linear": model.linear}, {"masked_groups": ("colour",)}):
        partial = explain_at(replace(masked, **part), 20.0, 24.0).baseline
        assert abs(explanation.score_without["motion"] - partial) > 1e-4


@pytest.mark.parametrize("parts", [2, 7, pytest.param(1200, marks=pytest.mark.slow)])
def test_explain_events_is_independent_of_parts(parts: int) -> None:
    model = model_of(clips=False, timed=True, lookahead=3)
    whole, chunks = explain_at(model), explain_at(model, parts=parts)
    assert chunks.baseline == pytest.approx(whole.baseline, abs=1e-5)
    assert chunks.score_without == pytest.approx(whole.score_without, abs=1e-5)
    assert [(item.track, item.label) for item in chunks.objects] == [(item.track, item.label) for item in whole.objects]
    assert [item.share for item in chunks.objects] == pytest.approx([item.share for item in whole.objects])


def test_baseline_of_long_event_reads_its_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of(smooth_s=0.0, clips=False, timed=True, lookahead=3)
    monkeypatch.setattr(module, "LONGEST_S", 2.0)
    explanation = explain_at(model, 64.0, 104.0)
    smoothed = score_sequence(model).scores[:, 1]
    assert explanation.score == pytest.approx(smoothed[512:832].mean())
    assert explanation.baseline == pytest.approx(smoothed[512:528].mean(), abs=1e-4)
    assert abs(explanation.score - explanation.baseline) > 1e-3


def test_objects_are_ranked_by_mean_attention() -> None:
    model = model_of(clips=False, timed=True, lookahead=3)
    sequence = replace(SEQUENCE, tracks=np.where(SEQUENCE.tracks == 3, -1, SEQUENCE.tracks).astype(np.int32))
    scored = score_sequence(model, sequence)
    (explanation,) = explain_events(model, [sequence], scored, [event_at(model, scored, 60.0, 64.0)])
    expected: dict[tuple[int, str], float] = defaultdict(float)
    for frame in range(480, 512):
        for row in range(sequence.offsets[frame], sequence.offsets[frame + 1]):
            name = sequence.names[sequence.classes[row]]
            expected[int(sequence.tracks[row]), name] += float(scored.attention[row]) / 32
    shares_by_object = {(item.track, item.label): item.share for item in explanation.objects}
    assert shares_by_object == pytest.approx(expected)
    assert -1 in {track for track, _ in shares_by_object}
    shares = [item.share for item in explanation.objects]
    assert shares == sorted(shares, reverse=True)
    with_objects = (np.diff(sequence.offsets[480:513]) > 0).mean()
    assert sum(shares) == pytest.approx(with_objects, rel=1e-4)


def test_explain_events_without_objects() -> None:
    model = model_of(clips=False, timed=True)
    empty = make_sequence(200, 0)
    scored = score_sequence(model, empty)
    (explanation,) = explain_events(model, [empty], scored, [event_at(model, scored, 5.0, 7.0)])
    assert explanation.objects == ()
    assert explanation.score_without["motion"] == pytest.approx(explanation.baseline, abs=1e-6)


def test_gate_peaks() -> None:
    model = model_of(clips=False, timed=True)
    update, reset = np.full(1200, 0.5, np.float32), np.full(1200, 0.5, np.float32)
    update[[484, 485, 500]] = 0.9, 0.8, 0.7  # the second is too near to the first to tell anything new
    update[[490, 508]], reset[[490, 508]] = (0.1, 0.2), (0.2, 0.1)
    update[[400, 700]] = 1.0, 0.0  # too far from the event
    reset[[400, 700]] = 0.0
    scored = replace(score_sequence(model), gates=GRUGates(update=update, reset=reset))
    (explanation,) = explain_events(model, [SEQUENCE], scored, [event_at(model, scored, 60.0, 64.0)])
    assert [(item.time_s, item.update) for item in explanation.keep_peaks] == [
        (484 / 8, pytest.approx(0.9)),
        (500 / 8, pytest.approx(0.7)),
    ]
    assert {item.time_s for item in explanation.forget_peaks} == {490 / 8, 508 / 8}
    assert explanation.forget_peaks[0].reset == pytest.approx(0.2)


def test_gate_peaks_are_empty_without_gates() -> None:
    explanation = explain_at(model_of(clips=False, timed=True, cell="rnn"))
    assert (explanation.keep_peaks, explanation.forget_peaks) == ((), ())


def test_explain_events_returns_one_explanation_per_event() -> None:
    model = model_of(clips=False, timed=True, lookahead=3)
    scored = score_sequence(model)
    events = [event_at(model, scored, start, start + 2) for start in (3.0, 50.0, 140.0)]
    assert [explanation.event for explanation in explain_events(model, [SEQUENCE], scored, events)] == events
    assert explain_events(model, [SEQUENCE], scored, []) == []


@pytest.mark.parametrize("shape", [SHAPES[0], *(pytest.param(shape, marks=pytest.mark.slow) for shape in SHAPES[1:])])
def test_explain_moments_equals_events_of_a_second(shape: dict[str, object]) -> None:
    """Moments that share a pass, read at once, against one event after the other."""
    model = model_of(**shape)
    model = replace(model, decode=replace(model.decode, event_scale=1.0, event_bias=0.0))
    sequence = SEQUENCE.frames(0, 400)
    scored = score_sequence(model, sequence)
    times = [0.2, 40.0, 49.9]
    moments = explain_moments(model, [sequence], scored.time_s, times)
    assert moments is not None
    assert moments.time_s.tolist() == times
    assert moments.scores.shape == (3, 1 + len(moments.groups), 2)
    for number, at_s in enumerate(times):
        event = event_at(model, scored, max(at_s - 0.5, 0.0), at_s + 0.5)
        (explanation,) = explain_events(model, [sequence], scored, [event])
        without = [explanation.score_without[group] for group in moments.groups]
        assert moments.scores[number, :, 1] == pytest.approx([explanation.baseline, *without], abs=1e-4)
        smoothed = smooth_scores(scored.time_s, scored.scores, model.decode.smooth_s)
        mean = smoothed[event_frames(scored.time_s, event.start_s, event.end_s)].mean(axis=0)
        assert moments.scores[number, 0] == pytest.approx(mean, abs=1e-4)


def test_explain_moments_without_scores_or_frames() -> None:
    captions_only = make_model(SEQUENCE, clips=False)
    assert explain_moments(captions_only, [SEQUENCE], SEQUENCE.time_s, [1.0]) is None
    assert explain_moments(make_model(SEQUENCE), [], np.zeros(0), []) is None


def test_shared_contexts() -> None:
    time_s = np.arange(4000) / 8
    contexts = [slice(400, 700), slice(0, 300), slice(200, 500), slice(600, 3000), slice(2900, 3100), slice(3100, 3200)]
    assert module._shared_contexts(time_s, contexts) == [
        (slice(0, 700), [1, 2, 0]),
        (slice(600, 3000), [3]),  # too long together
        (slice(2900, 3100), [4]),
        (slice(3100, 3200), [5]),  # no overlap
    ]
    assert module._shared_contexts(time_s, []) == []
