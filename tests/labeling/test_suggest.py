"""What to label next: planted stretches come first, and nothing that is known is suggested."""

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from tests.model.networks import make_model
from tests.prediction.fake_project import FakeProject
from tests.prediction.fake_project import make_model as make_project_model
from tests.sequences import make_sequence
from vidgru import api, cli
from vidgru.config import SuggestConfig
from vidgru.datasets.annotations import load_dataset
from vidgru.errors import SettingsError, SourceError
from vidgru.labeling import suggest as suggesting
from vidgru.labeling.recording_view import RecordingView, view_recording
from vidgru.labeling.suggest import LabelledTime, Suggestion, suggest
from vidgru.labeling.suggest_command import labelled_time
from vidgru.model.checkpoint import EventModel, HeadSpec
from vidgru.model.features import compute_features
from vidgru.model.scoring import encode_features, score_clips, score_frames
from vidgru.training.data import LoadedFeatures

HEAD = HeadSpec(background=True, multi_label=False)
NOTHING = (0.02, 0.02, 0.96)  # fall, walk, no event
Views = Callable[..., LoadedFeatures]


@pytest.fixture(scope="module")
def model() -> EventModel:
    return make_model(clips=False, timed=True, members=2)


@pytest.fixture
def views(monkeypatch: pytest.MonkeyPatch) -> Views:
    """Make recordings that look as given, whatever their features are."""

    def make(*given: RecordingView) -> LoadedFeatures:
        by_name = {view.video: view for view in given}
        monkeypatch.setattr(suggesting, "view_recording", lambda model, recordings, video, features: by_name[video])
        return LoadedFeatures(
            features=dict.fromkeys(by_name, compute_features(make_sequence(1))), feature_spec=None, names=(), keys={}
        )

    return make


def view(video: str, steps: int = 120, *, scored: bool = True, seed: int = 0) -> RecordingView:
    """A recording of half-second steps in which nothing happens."""
    rng = np.random.default_rng(seed)
    return RecordingView(
        video=video,
        edges_s=np.arange(steps + 1) / 2,
        scores=np.tile(np.array(NOTHING, np.float32), (2, steps, 1)) if scored else np.zeros((1, steps, 0)),
        head=HEAD if scored else None,
        states=rng.normal(0, 0.1, (steps, 6)).astype(np.float32),
        motion=rng.uniform(0, 0.1, steps).astype(np.float32),
    )


def overlap(suggestion: Suggestion, start_s: float, end_s: float) -> float:
    return min(suggestion.end_s, end_s) - max(suggestion.start_s, start_s)


def test_planted_stretches_come_first(model: EventModel, views: Views) -> None:
    a, b = view("a.mp4", 240), view("b.mp4", 40, seed=1)
    a.scores[:, 20:26] = np.array([(0.95, 0.01, 0.04), (0.01, 0.01, 0.98)])[:, None]  # one member sees a fall
    a.scores[:, 60:66] = (0.45, 0.1, 0.45)
    a.scores[:, 120:160] = (0.2, 0.2, 0.6)  # a higher entropy, but the margin is larger
    a.states[20:26] += 1
    labelled = {"b.mp4": LabelledTime(known=((0.0, np.inf),))}
    reasons = {suggestion.reason for suggestion in suggest(model, views(a, b), labelled, n=12)}
    assert reasons == {"unlike anything labelled", "unsure", "random"}
    unsure = suggest(model, views(a, b), labelled, n=2, shares={"unsure": 1.0})
    disagreed, tie = sorted(unsure, key=lambda suggestion: suggestion.start_s)
    assert overlap(disagreed, 10, 13) > 2
    assert overlap(tie, 30, 33) > 2
    assert tie.end_s - tie.start_s <= 6, "cut where the scores change"
    a.states[200:206] += 8
    (unlike,) = suggest(model, views(a, b), labelled, n=1, shares={"unlike anything labelled": 1.0})
    assert overlap(unlike, 100, 103) >= 2
    assert unlike.label == ""


def test_rare_labels_come_first(model: EventModel, views: Views) -> None:
    a, b = view("a.mp4", 240), view("b.mp4", 40, seed=1)
    a.scores[:, 100:106] = (0.97, 0.01, 0.02)
    a.scores[:, 180:186] = (0.01, 0.97, 0.02)
    events = (*((float(t), float(t) + 1, "fall") for t in range(9)), (15.0, 16.0, "walk"))
    labelled = {"b.mp4": LabelledTime(known=((0.0, np.inf),), events=events)}
    (suggestion,) = suggest(model, views(a, b), labelled, n=1, shares={"rare label": 1.0})
    assert (suggestion.reason, suggestion.label) == ("rare label", "walk")
    assert overlap(suggestion, 90, 93) > 2
    assert "rare label" in {s.reason for s in suggest(model, views(a, b), labelled, n=12)}


def test_unsure_recordings_are_ranked_by_their_top(model: EventModel, views: Views) -> None:
    spiky, dull = view("spiky.mp4", 480), view("dull.mp4", 480)
    spiky.scores[:, 100:106] = (0.34, 0.33, 0.33)
    dull.scores[:] = (0.1, 0.1, 0.8)  # a higher mean
    suggestions = suggest(model, views(dull, spiky), {}, n=1, shares={"unsure": 1.0})
    assert (suggestions[0].video, suggestions[0].reason) == ("spiky.mp4", "unsure")
    assert overlap(suggestions[0], 50, 53) > 2


@pytest.mark.parametrize("multi_label", [False, True])
def test_margin_of_independent_labels_is_from_yes_to_no(model: EventModel, views: Views, multi_label: bool) -> None:
    a = replace(view("a.mp4"), head=HeadSpec(background=not multi_label, multi_label=multi_label))
    a.scores[:, 20:26] = (0.9, 0.9, 0.02)  # both labels for sure, or a tie
    a.scores[:, 80:86] = (0.5, 0.02, 0.02)
    (suggestion,) = suggest(model, views(a), {}, n=1, shares={"unsure": 1.0})
    assert overlap(suggestion, *((40, 43) if multi_label else (10, 13))) > 2


def test_length_costs_its_square_root(model: EventModel, views: Views) -> None:
    for margin, first in ((0.25, "short.mp4"), (0.4, "long.mp4")):
        a, b = view("long.mp4", 18), view("short.mp4", 8, seed=1)  # 9 and 4 s, cost 12 ** 0.5 and 7 ** 0.5
        a.scores[:] = (0.55, 0.45, 0.0)
        b.scores[:] = (0.5 + margin / 2, 0.5 - margin / 2, 0.0)
        (suggestion,) = suggest(model, views(a, b), {}, n=1, shares={"unsure": 1.0})
        assert suggestion.video == first


def test_without_model_motion_and_variety_come_first(views: Views) -> None:
    a, b = view("a.mp4", scored=False), view("b.mp4", scored=False)
    a.motion[70:76] = 5
    b.states[20:26] += 8
    chosen = [s for s in suggest(None, views(a, b), {}, n=6) if s.reason != "random"]
    assert {suggestion.reason for suggestion in chosen} == {"unlike anything labelled"}
    first = {suggestion.video: suggestion for suggestion in chosen[:2]}
    assert overlap(first["a.mp4"], 35, 38) > 0
    assert overlap(first["b.mp4"], 10, 13) > 0
    assert {suggestion.label for suggestion in chosen} == {""}


@pytest.mark.parametrize("seed", range(4))
def test_known_time_is_never_suggested(model: EventModel, views: Views, seed: int) -> None:
    rng = np.random.default_rng(seed)
    recordings = [view(f"{name}.mp4", int(rng.integers(1, 200)), seed=seed) for name in "abcd"]
    labelled = {}
    for recording in recordings[:3]:
        ends = np.sort(rng.uniform(0, recording.edges_s[-1], (4, 2)), axis=1)
        recording.scores[:] = rng.dirichlet((1, 1, 1), recording.scores.shape[:2])
        known = tuple((float(start_s), float(end_s)) for start_s, end_s in ends[:3])
        labelled[recording.video] = LabelledTime(known=known, events=((*map(float, ends[3]), "fall"),))
    labelled["c.mp4"] = LabelledTime(known=((0.0, np.inf),))
    suggestions = suggest(model, views(*recordings), labelled, n=1000, seed=seed)
    assert suggestions == suggest(model, views(*recordings), labelled, n=1000, seed=seed)
    assert "d.mp4" in {suggestion.video for suggestion in suggestions}
    assert "c.mp4" not in {suggestion.video for suggestion in suggestions}
    taken = {name: [(*span,) for span in time.known] + [event[:2] for event in time.events]
             for name, time in labelled.items()}  # fmt: skip
    for suggestion in suggestions:
        end_s = next(float(r.edges_s[-1]) for r in recordings if r.video == suggestion.video)
        assert 0 <= suggestion.start_s < suggestion.end_s <= end_s
        spans = taken.setdefault(suggestion.video, [])
        assert all(overlap(suggestion, *span) <= 0.002 for span in spans), "known, or suggested twice"
        spans.append((suggestion.start_s, suggestion.end_s))


def test_random_suggestions_depend_on_the_seed(model: EventModel, views: Views) -> None:
    recordings = views(view("a.mp4", 900))
    both = [suggest(model, recordings, {}, n=5, seed=seed, shares={"random": 1.0}) for seed in (0, 1)]
    assert both[0] != both[1]
    assert {suggestion.reason for suggestion in both[0]} == {"random"}


def test_cost_grows_with_the_length_of_recordings(
    model: EventModel, views: Views, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = view("a.mp4", 4000)
    long.scores[:] = np.random.default_rng(0).dirichlet((1, 1, 1), long.scores.shape[:2])
    sorted_values, original = [], suggesting._top
    monkeypatch.setattr(suggesting, "_top", lambda values, n: sorted_values.append(len(values)) or original(values, n))
    suggest(model, views(long), {}, n=1)
    assert sum(sorted_values) < 10 * 4000, "each stretch sorts its own steps, not those of the recording"


def test_nothing_to_suggest(model: EventModel, views: Views) -> None:
    assert suggest(model, views(view("a.mp4")), {"a.mp4": LabelledTime(known=((0.0, 60.0),))}) == []
    assert suggest(model, LoadedFeatures(features={}, feature_spec=None, names=(), keys={}), {}) == []


# --- recordings in steps ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lookahead", "shape"), [(0, {}), (3, {}), (0, {"bidirectional": True}), (0, {"cell": "none"})]
)
def test_steps_average_scores_of_frames(lookahead: int, shape: dict[str, object]) -> None:
    sequence = make_sequence(50)
    model = make_model(sequence, clips=False, timed=True, members=2, lookahead=lookahead, linear=True, **shape)
    features = compute_features(sequence)
    loaded = LoadedFeatures(features={"a.mp4": features}, feature_spec=model.feature_spec, names=(), keys={})
    shown = view_recording(model, loaded, "a.mp4", features)
    assert shown.edges_s.tolist() == pytest.approx((np.arange(13) * 6.25 / 12).tolist())
    (scores,) = score_frames(model, [encode_features(model, [features])])
    first = np.searchsorted(features.time_s, shown.edges_s)
    expected = [scores[a:b].mean(axis=0) for a, b in pairwise(first)]
    np.testing.assert_allclose(shown.scores.mean(axis=0), expected, atol=1e-5)
    assert shown.scores.shape[0] == 2
    assert len(shown.states) == len(shown.motion) == 12


def test_clips_are_scored_in_windows() -> None:
    sequence = make_sequence(70)
    model = make_model(sequence, members=2, linear=True)  # clips of two seconds
    features = compute_features(sequence)
    loaded = LoadedFeatures(features={"a.mp4": features}, feature_spec=model.feature_spec, names=(), keys={})
    shown = view_recording(model, loaded, "a.mp4", features)
    assert shown.edges_s[[0, -1]].tolist() == [0, 70 / 8]
    encoded = encode_features(model, [features])
    edges = [0, *np.searchsorted(features.time_s, shown.edges_s[1:-1]).tolist(), 70]
    clips = [encoded.frames(a, b) for a, b in pairwise(edges)]
    assert len(clips) == 4
    np.testing.assert_allclose(shown.scores.mean(axis=0), score_clips(model, clips), atol=1e-5)


def test_views_of_gaps_and_single_frames() -> None:
    sequence = make_sequence(40)
    late = replace(sequence, time_s=np.concatenate([np.arange(20), np.arange(200, 220)]) / 8)
    model = make_model(sequence, clips=False, timed=True)
    for part in (late, late.frames(0, 1)):
        features = compute_features(part)
        loaded = LoadedFeatures(features={"a.mp4": features}, feature_spec=model.feature_spec, names=(), keys={})
        for used in (model, None):
            shown = view_recording(used, loaded, "a.mp4", features)
            assert len(shown.edges_s) == len(shown.states) + 1 == shown.scores.shape[1] + 1
            assert np.isfinite(shown.states).all()
            assert suggest(used, loaded, {}, n=3)


# --- command ----------------------------------------------------------------------------------------------------------


def test_labelled_time_of_annotations(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text(
        "video,start,end,label,description\na.mp4,1,2,fall,\na.mp4,2,5,background,\nb.mp4,1,2,fall,\nc.mp4,,,walk,\n"
        "d.mp4,,,,\ne.mp4,1,2,,somebody falls\n"
    )
    for name in "abcde":
        (tmp_path / f"{name}.mp4").touch()
    everything = ((0.0, np.inf),)
    assert labelled_time(load_dataset(tmp_path / "labels.csv")) == {
        "a.mp4": LabelledTime(known=((1, 2), (2, 5)), events=((1, 2, "fall"),)),
        "b.mp4": LabelledTime(known=everything, events=((1, 2, "fall"),)),
        "c.mp4": LabelledTime(known=everything, events=((0, np.inf, "walk"),)),
        "d.mp4": LabelledTime(known=everything),
    }


@pytest.fixture
def project(tmp_path: Path) -> FakeProject:
    project = FakeProject(tmp_path)
    for name, frames in (("a.mp4", 200), ("b.mp4", 90)):
        project.record(name, frames=frames)
    make_project_model(project.model, project.feature_settings, weights=str(project.weights), timed=True)
    return project


def test_command_prints_and_writes(project: FakeProject, capsys: pytest.CaptureFixture[str]) -> None:
    labels = project.root / "labels.csv"
    labels.write_text(
        "video,start,end,label\nvideos/a.mp4,2,3,fall\nvideos/a.mp4,3,20,background\nvideos/c.mp4,0,1,fall\n"
    )
    flags = ["--features", str(project.cache.root), "--labelled", str(labels), "--n", "3"]
    assert cli.run(["suggest", str(project.model), str(project.videos), *flags]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["video", "start", "end", "reason", "likely", "label"]
    assert len(lines) == 4
    files = {suffix: project.root / f"next{suffix}" for suffix in (".csv", ".jsonl")}
    for file in files.values():
        assert cli.run(["suggest", str(project.model), str(project.cache.root), *flags, "--out", str(file)]) == 0
    assert f"3 suggestions: {files['.csv']}" in capsys.readouterr().out
    records = [json.loads(line) for line in files[".jsonl"].read_text().splitlines()]
    assert list(records[0]) == ["video", "start", "end", "reason", "likely_label"]
    assert all(r["end"] <= 2 or r["start"] >= 20 for r in records if r["video"] == "a.mp4")
    rows = files[".csv"].read_text().splitlines()
    assert rows[0] == "video,start,end,reason,likely_label"
    assert [row.split(",")[:2] for row in rows[1:]] == [[r["video"], str(r["start"])] for r in records]
    assert [line.split()[:2] for line in lines[1:]] == [[r["video"], str(r["start"])] for r in records]


def damage(project: FakeProject, name: str) -> None:
    entry = project.cache.last_entry(project.videos / name)
    assert entry is not None
    part = project.cache.root / entry.key / entry.parts[0].name
    content = part.read_bytes()
    part.write_bytes(content[:-1] + bytes([content[-1] ^ 255]))


def test_command_names_what_it_skips(project: FakeProject, capsys: pytest.CaptureFixture[str]) -> None:
    (project.root / "other.csv").write_text("video,label\nvideos/b.mp4,fall\n")
    config = SuggestConfig(features=str(project.cache.root), labelled=str(project.root / "other.csv"))
    damage(project, "b.mp4")
    suggestions = api.suggest(project.model, project.cache.root, config)
    assert {suggestion.video for suggestion in suggestions} == {"a.mp4"}
    message = capsys.readouterr().err
    assert "skipped: b.mp4: " in message
    assert "other.csv says nothing about these recordings" in message
    damage(project, "a.mp4")
    with pytest.raises(SourceError, match="none of the recordings has features\n  vidgru info RECORDING says"):
        api.suggest(project.model, project.cache.root, config)


def test_output_needs_a_known_suffix() -> None:
    with pytest.raises(SettingsError, match=r"out is 'next\.txt'; it must be a file with the suffix \.csv or \.jsonl"):
        SuggestConfig(out="next.txt")
