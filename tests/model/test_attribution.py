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
from vidgru.model.attribution import Explanation, event_frames, explain_events
from vidgru.model.checkpoint import EventModel
from vidgru.model.event_decoder import smooth_scores
from vidgru.model.gru_gates import GRUGates
from vidgru.model.scoring import encode_recording, score_frames
from vidgru.model.stream import ScoredRecording, score_recording
from vidgru.types import Event, FrameSequence

SEQUENCE = make_sequence(1200, seed=2)  # 150 s
SHAPES = [
    {"clips": False, "timed": True, "lookahead": 3},
    {"clips": False, "timed": True, "lookahead": 3, "layers": 2},
    {"clips": False, "timed": True, "bidirectional": True},
    {"clips": False, "timed": True, "cell": "lstm", "lookahead": 2},
    {},
]


def model_of(smooth_s: float = 0.5, only: str = "", **shape: object) -> EventModel:
    """A model with pronounced scores, which listens to one group of features alone if that is given."""
    model = make_model(SEQUENCE, **shape)
    network = model.network
    with torch.no_grad():
        head = network.frame_head if network.frame_head is not None else network.clip_head
        head[-1].weight.mul_(5)
        for name, layer in {**network.encoder.project, "class": network.encoder.classes}.items():
            if only and name != only:
                for weight in layer.parameters():
                    weight.zero_()
    return replace(model, decode=replace(model.decode, smooth_s=smooth_s))


def scored_by(model: EventModel, sequence: FrameSequence = SEQUENCE) -> ScoredRecording:
    return score_recording(model, [sequence], video="a.mp4", duration_s=len(sequence) / 8, gates=True)


def event_at(model: EventModel, scored: ScoredRecording, start_s: float, end_s: float) -> Event:
    """An event of these times with the score that its frames have."""
    event = Event(video="a.mp4", start_s=start_s, end_s=end_s, label="walk", score=0)
    smoothed = smooth_scores(scored.time_s, scored.scores, model.decode.smooth_s)
    return replace(event, score=float(smoothed[event_frames(scored.time_s, event), 1].mean()))


def why_of(model: EventModel, start_s: float = 60.0, end_s: float = 64.0, *, parts: int = 1) -> Explanation:
    scored = scored_by(model)
    edges = np.linspace(0, len(SEQUENCE), parts + 1).astype(int)
    cut = [SEQUENCE.frames(a, b) for a, b in itertools.pairwise(edges.tolist())]
    (why,) = explain_events(model, cut, scored, [event_at(model, scored, start_s, end_s)])
    return why


@pytest.mark.parametrize(
    ("start_s", "end_s", "frames"),
    [(0.0, 1.0, (0, 8)), (0.125, 0.25, (1, 2)), (1.1249, 2.0006, (9, 16)), (9.875, 10, (79, 80)), (9.99, 12, (79, 80))],
)  # fmt: skip
def test_frames_of_an_event(start_s: float, end_s: float, frames: tuple[int, int]) -> None:
    event = Event(video="a.mp4", start_s=start_s, end_s=end_s, label="walk", score=0.5)
    assert event_frames(np.arange(80) / 8, event) == slice(*frames)


def test_frames_far_apart_are_read_as_far_ahead_as_the_lag_counts() -> None:
    model = model_of(clips=False, timed=True, lookahead=8)
    sparse = replace(SEQUENCE.frames(0, 400), time_s=SEQUENCE.time_s[:400] * 3.0)  # as where frames were passed over
    scored = scored_by(model, sparse)
    event = event_at(model, scored, 60.0, 66.0)
    (why,) = explain_events(model, [sparse], scored, [event])
    assert why.baseline == pytest.approx(event.score, abs=1e-4)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("start_s", "end_s"), [(0.0, 2.0), (60.0, 64.0), (61.125, 61.25), (147.0, 150.0)])
def test_the_stretch_around_an_event_gives_its_score(shape: dict[str, object], start_s: float, end_s: float) -> None:
    """Thirty seconds before it are all that these models remember; windows lie as they do in the whole recording."""
    why = why_of(model_of(**shape), start_s, end_s)
    assert why.score == why.event.score
    assert why.baseline == pytest.approx(why.score, abs=1e-4)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("group", ["motion", "class", "scene"])
def test_what_a_model_does_not_listen_to_can_be_removed(shape: dict[str, object], group: str) -> None:
    model = model_of(only=group, **shape)
    why = why_of(model)
    assert why.score_without.keys() == set(model.network.encoder.groups)
    for name, score in why.score_without.items():
        assert (score == pytest.approx(why.baseline, abs=1e-6)) == (name != group), name


def test_a_removed_group_is_removed_from_the_whole_stretch() -> None:
    model = model_of(clips=False, timed=True, lookahead=3)
    why = why_of(model, 20.0, 24.0)  # all that comes before is read again
    for name in ("speed", "appearance", "scene_motion"):
        deaf = make_model(SEQUENCE, clips=False, timed=True, lookahead=3)
        deaf.network.load_state_dict(model.network.state_dict())
        with torch.no_grad():
            for weight in deaf.network.encoder.project[name].parameters():
                weight.zero_()
        deaf = replace(deaf, decode=model.decode)
        whole = score_frames(deaf, [encode_recording(deaf, [SEQUENCE]).vectors])[0]
        expected = smooth_scores(SEQUENCE.time_s, whole, model.decode.smooth_s)[160:192, 1].mean()
        assert why.score_without[name] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("parts", [2, 7, pytest.param(1200, marks=pytest.mark.slow)])
def test_parts_do_not_matter(parts: int) -> None:
    model = model_of(clips=False, timed=True, lookahead=3)
    whole, cut = why_of(model), why_of(model, parts=parts)
    assert cut.baseline == pytest.approx(whole.baseline, abs=1e-5)
    assert cut.score_without == pytest.approx(whole.score_without, abs=1e-5)
    assert [(one.track, one.label) for one in cut.objects] == [(one.track, one.label) for one in whole.objects]
    assert [one.share for one in cut.objects] == pytest.approx([one.share for one in whole.objects])


def test_of_a_long_event_the_beginning_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of(smooth_s=0.0, clips=False, timed=True, lookahead=3)
    monkeypatch.setattr(module, "LONGEST_S", 2.0)
    why = why_of(model, 60.0, 100.0)
    smoothed = scored_by(model).scores[:, 1]
    assert why.score == pytest.approx(smoothed[480:800].mean())
    assert why.baseline == pytest.approx(smoothed[480:496].mean(), abs=1e-4)
    assert abs(why.score - why.baseline) > 1e-3


def test_objects_by_their_mean_attention_over_the_frames_of_the_event() -> None:
    model = model_of(clips=False, timed=True, lookahead=3)
    sequence = replace(SEQUENCE, tracks=np.where(SEQUENCE.tracks == 3, -1, SEQUENCE.tracks).astype(np.int32))
    scored = scored_by(model, sequence)
    (why,) = explain_events(model, [sequence], scored, [event_at(model, scored, 60.0, 64.0)])
    expected: dict[tuple[int, str], float] = defaultdict(float)
    for frame in range(480, 512):
        for row in range(sequence.offsets[frame], sequence.offsets[frame + 1]):
            name = sequence.names[sequence.classes[row]]
            expected[int(sequence.tracks[row]), name] += float(scored.attention[row]) / 32
    found = {(one.track, one.label): one.share for one in why.objects}
    assert found == pytest.approx(expected)
    assert -1 in {track for track, _ in found}
    shares = [one.share for one in why.objects]
    assert shares == sorted(shares, reverse=True)
    with_objects = (np.diff(sequence.offsets[480:513]) > 0).mean()
    assert sum(shares) == pytest.approx(with_objects, rel=1e-4)


def test_an_event_without_any_object() -> None:
    model = model_of(clips=False, timed=True)
    empty = make_sequence(200, 0)
    scored = scored_by(model, empty)
    (why,) = explain_events(model, [empty], scored, [event_at(model, scored, 5.0, 7.0)])
    assert why.objects == ()
    assert why.score_without["motion"] == pytest.approx(why.baseline, abs=1e-6)


def test_moments_at_which_the_gates_stand_out() -> None:
    model = model_of(clips=False, timed=True)
    update, reset = np.full(1200, 0.5, np.float32), np.full(1200, 0.5, np.float32)
    update[[484, 485, 500]] = 0.9, 0.8, 0.7  # the second is too near to the first to tell anything new
    update[[490, 508]], reset[[490, 508]] = (0.1, 0.2), (0.2, 0.1)
    update[[400, 700]] = 1.0, 0.0  # too far from the event
    reset[[400, 700]] = 0.0
    scored = replace(scored_by(model), gates=GRUGates(update=update, reset=reset))
    (why,) = explain_events(model, [SEQUENCE], scored, [event_at(model, scored, 60.0, 64.0)])
    assert [(one.time_s, one.update) for one in why.keep_peaks] == [
        (484 / 8, pytest.approx(0.9)),
        (500 / 8, pytest.approx(0.7)),
    ]
    assert {one.time_s for one in why.forget_peaks} == {490 / 8, 508 / 8}
    assert why.forget_peaks[0].reset == pytest.approx(0.2)


def test_a_cell_without_gates_has_no_such_moments() -> None:
    why = why_of(model_of(clips=False, timed=True, cell="rnn"))
    assert (why.keep_peaks, why.forget_peaks) == ((), ())


def test_every_event_has_its_reasons() -> None:
    model = model_of(clips=False, timed=True, lookahead=3)
    scored = scored_by(model)
    events = [event_at(model, scored, start, start + 2) for start in (3.0, 50.0, 140.0)]
    assert [why.event for why in explain_events(model, [SEQUENCE], scored, events)] == events
    assert explain_events(model, [SEQUENCE], scored, []) == []
