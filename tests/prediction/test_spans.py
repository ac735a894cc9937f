"""Time ranges: only a part of a recording is read, and its events are those of the whole recording."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.detectors import Weights
from tests.prediction.fake_project import FakeProject, make_model
from tests.still_videos import FPS, draw_still, write_still
from vidgru.cache import SequenceCache
from vidgru.config import DetectorSettings, PredictConfig, RuntimeSettings
from vidgru.extraction.pipeline import extract_recordings, feature_settings_for
from vidgru.extraction.sharding import RecordingSpan
from vidgru.model.stream import score_recording
from vidgru.prediction.batch import _in_time_range, predict
from vidgru.prediction.inputs import CachedRecording
from vidgru.prediction.predictor import Predictor, TimeRange
from vidgru.prediction.results import PredictionResult, summary_table
from vidgru.types import Event, Recording, Span

STARTS_AT = "2024-05-06T08:00:00+00:00"
RANGE = {"since": "2024-05-06T08:04:50+00:00", "until": "2024-05-06T08:06:20+00:00"}
LENGTH_S = 600.0


def draw_walks(number: int, width: int, height: int) -> np.ndarray:
    """Draw somebody who crosses the scene within 8 s, every 23 s."""
    image, time_s = draw_still(number, width, height), number / FPS % 23
    if time_s < 8:
        x = int(time_s * (width - 12) / 8)
        image[height // 4 : height // 4 + 24, x : x + 10] = (200, 40, 40)
    return image


def between_scores(scores: np.ndarray, first: float, last: float) -> float:
    """Return a threshold between two quantiles that no score is near, so that rounding does not decide."""
    values = np.sort(scores, axis=None)
    values = values[int(first * len(values)) : int(last * len(values))]
    widest = int(np.diff(values).argmax())
    return float(values[widest : widest + 2].mean())


class SpanProject:
    """A recording of ten minutes, the features of all of it, and a model that finds events in it."""

    def __init__(self, root: Path, weights: Path, *, adaptive: bool) -> None:
        self.root, self.video = root, write_still(root / "videos/a.mp4", LENGTH_S, draw_walks)
        self.cache = SequenceCache(root / "whole")
        detect = DetectorSettings(weights=str(weights), imgsz=64, fps=2, conf=0.2, max_objects=6, adaptive=adaptive)
        recording = Recording(path=self.video, name="a.mp4")
        (outcome,) = extract_recordings([recording], self.cache, detect, RuntimeSettings(threads=1), progress=False)
        assert outcome.key is not None
        self.model, parts = root / "model.safetensors", list(self.cache.parts(outcome.key))
        model = make_model(
            self.model, feature_settings_for(detect), weights=str(weights), sequence=parts[0], timed=True, walk=0.5
        )
        assert model.network.frame_head is not None
        with torch.no_grad():  # it is not trained, but its scores change with what happens
            model.network.frame_head[-1].weight.normal_(generator=torch.Generator().manual_seed(1))
        scores = score_recording(model, parts, video="a.mp4", duration_s=LENGTH_S).scores
        high, low = between_scores(scores, 0.85, 0.95), between_scores(scores, 0.75, 0.85)
        decode = replace(model.decode, high=(high,), low=(low,))
        replace(model, decode=decode).save(self.model)

    def predict(self, features: str, **settings: Any) -> PredictionResult:
        """Predict with this folder of features."""
        config = PredictConfig(
            out=str(self.root / f"events_{features}"),
            features=str(self.root / features),
            weights=settings.pop("weights", ""),
            runtime=RuntimeSettings(threads=1, start_time=STARTS_AT),
            **settings,
        )
        (result,) = predict(self.model, [self.video], config, progress=False)
        return result


def in_range(events: tuple[Event, ...]) -> list[Event]:
    time_range = TimeRange(**RANGE)
    return [event for event in events if time_range.overlaps(STARTS_AT, event.start_s, event.end_s)]


@pytest.mark.slow
@pytest.mark.parametrize("adaptive", [False, True])
def test_events_of_a_time_range_are_those_of_the_whole_recording(
    tmp_path: Path, tiny_weights: Weights, adaptive: bool
) -> None:
    weights = tiny_weights("yolo26n")
    project = SpanProject(tmp_path, weights, adaptive=adaptive)
    whole = project.predict("whole", report=False)
    assert len(whole.events) > 10
    result = project.predict("part", weights=str(weights), **RANGE)
    assert (result.status, result.span) == ("done", (120, 480))
    expected = in_range(whole.events)
    assert 2 <= len(expected) < len(whole.events)
    assert len(result.events) == len(expected)
    for event, other in zip(result.events, expected, strict=True):
        assert event.label == other.label
        assert event.start_s == pytest.approx(other.start_s, abs=0.5)
        assert event.end_s == pytest.approx(other.end_s, abs=0.5)
        assert event.score == pytest.approx(other.score, abs=0.01)
    assert "0:02:00-0:08:00 of the recording was read" in (tmp_path / "events_part/a.mp4/report.html").read_text()
    assert "0.10 of 0.17 hours of video" in summary_table([result])
    again = project.predict("part", weights=str(weights), **RANGE)
    assert (again.status, again.span, again.events) == ("reused", result.span, result.events)
    cached = project.predict("whole", **RANGE)
    assert (cached.span, list(cached.events)) == (None, expected)
    scores = result.scores
    assert (scores.time_s[0], scores.time_s[-1]) == (120.0, 479.5)


@pytest.mark.parametrize(
    ("timed", "save_video", "span", "notice"),
    [
        (True, False, (120, 480), []),
        (True, True, None, ["recordings are read completely, not only the time range: --save-video is given"]),
        (
            False,
            False,
            None,
            ["recordings are read completely, not only the time range: this model does not score parts of recordings"],
        ),
    ],
)
def test_part_to_read_of_a_recording(
    project: FakeProject,
    monkeypatch: pytest.MonkeyPatch,
    timed: bool,
    save_video: bool,
    span: Span | None,
    notice: list[str],
) -> None:
    make_model(project.model, project.feature_settings, timed=timed)
    recording = Recording(path=project.videos / "a.mp4", name="a.mp4")
    monkeypatch.setattr(
        "vidgru.prediction.batch.read_spans", lambda *args: iter([(recording, RecordingSpan(STARTS_AT, LENGTH_S))])
    )
    said: list[str] = []
    with Predictor(project.model, project.config(save_video=save_video, **RANGE), said.append) as predictor:
        selected, without_time = _in_time_range(predictor, [recording])
    assert ([item.span for item in selected], without_time, said) == ([span], {}, notice)


def span_item(project: FakeProject) -> CachedRecording:
    """A recording of which the second minute is cached."""
    project.feature_settings = {**project.feature_settings, "span": [60, 120]}
    path = project.record("a.mp4")
    sha256 = project.cache.sha256(path)
    entry = project.cache.entry(project.cache.key(sha256, project.feature_settings))
    assert entry is not None
    recording = Recording(path=path, name="a.mp4", span=(60, 120))
    return CachedRecording(recording=recording, cache=project.cache, entry=entry, sha256=sha256)


def test_events_at_the_edge_of_a_span_are_named(project: FakeProject) -> None:
    item = span_item(project)
    said: list[str] = []
    with Predictor(project.model, project.config(labels=("fall",)), said.append) as predictor:
        ((result,), _) = predictor.process([item])
        assert predictor.existing_result(item.recording) is not None
    assert said == ["fall at 0.0 s in a.mp4 may be longer: only 0:01:00-0:02:00 was read"]
    assert (result.status, result.span) == ("done", (60, 120))


def test_trimmed_events_at_the_edge_of_a_span_are_named(project: FakeProject) -> None:
    item = span_item(project)
    times = {"fall": [(60.4, 70.0), (60.9, 119.4)], "run": [(60.4, 119.4)], "walk": [(80.0, 119.4)]}
    events = [
        Event(video="a.mp4", label=label, start_s=start_s, end_s=end_s, score=0.9)
        for label, spans in times.items()
        for start_s, end_s in spans
    ]
    said: list[str] = []
    with Predictor(project.model, project.config(), said.append) as predictor:
        decode = replace(predictor.model.decode, start_trim_s=(0.4, 0.0, 0.0), end_trim_s=(0.0, 0.0, 0.5))
        predictor.model = replace(predictor.model, decode=decode)
        predictor._say_cut(item, np.arange(60, 120, 0.125), events)
    assert [line.split(" in ")[0] for line in said] == ["fall at 60.4 s", "walk at 80.0 s"]
