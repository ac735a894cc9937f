"""`vidgru explain`: selection of recordings and events, text, errors."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.model.networks import make_model as make_random_model
from tests.prediction.fake_project import FakeProject, make_model
from tests.prediction.report.pages import data_of, unpacked
from tests.sequences import make_sequence
from vidgru import cli
from vidgru.config import DetectorSettings, ExplainConfig
from vidgru.errors import RecordingError, SettingsError, SettingsMismatchError, SourceError, WeightsError
from vidgru.extraction.pipeline import feature_settings_for
from vidgru.flags import from_settings
from vidgru.model.attribution import AttendedObject, Explanation, GatePeak
from vidgru.model.checkpoint import load_model
from vidgru.prediction.batch import predict
from vidgru.prediction.explain import _format, explain_recording
from vidgru.storage import bundled_file
from vidgru.types import Event


def explain_text(project: FakeProject, path: Path, **settings: object) -> str:
    return explain_recording(
        project.model, path, from_settings(ExplainConfig, **{"features": str(project.cache.root), **settings})
    )


def timed(project: FakeProject, **scores: float) -> None:
    make_model(project.model, project.feature_settings, weights=str(project.weights), timed=True, **scores)


def test_explain_lists_every_event(project: FakeProject) -> None:
    text = explain_text(project, project.record("a.mp4"))
    assert re.findall(r"^\w.*$", text, re.MULTILINE) == [
        "fall  0.0-5.0 s  score 0.90  (event 1 of 2 in a.mp4)",
        "walk  0.0-5.0 s  score 0.60  (event 2 of 2 in a.mp4)",
    ]
    assert len(re.findall(r"^  scene_motion +0\.90  \+0\.00$", text, re.MULTILINE)) == 1  # it says so whatever it sees
    assert "kept most" in text


@pytest.mark.parametrize("settings", [{"event": 2}, {"at": 0.0}, {"at": 4.99}])
def test_explain_selects_events(project: FakeProject, settings: dict[str, float]) -> None:
    heads = re.findall(
        r"^(\w+) .* \(event (\d) of 2", explain_text(project, project.record("a.mp4"), **settings), re.MULTILINE
    )
    assert heads == ([("walk", "2")] if "event" in settings else [("fall", "1"), ("walk", "2")])


@pytest.mark.parametrize("kind", ["clips", "timed"])
def test_explain_accepts_cache_entry(project: FakeProject, kind: str) -> None:
    if kind == "timed":
        timed(project)
    path = project.record("cam/a.mp4")
    entry = project.cache.lookup(path, project.feature_settings)
    assert entry is not None
    assert explain_text(project, project.cache.root / entry.key, features="elsewhere") == explain_text(project, path)


def test_explain_text_is_aligned_and_sorted() -> None:
    why = Explanation(
        event=Event(video="a.mp4", start_s=62.04, end_s=65.5, label="meet", score=0.8),
        score=0.8,
        baseline=0.7,
        score_without={"time": 0.7004, "motion": 0.0, "speed": 0.35, "relations": 0.9, "scene": 0.6996},
        objects=(
            *(AttendedObject(track=n, label="person", share=0.5 / (n + 1)) for n in (0, 1)),
            *(AttendedObject(track=-1, label=name, share=0.02) for name in "abcdefghi"),
        ),
        keep_peaks=(GatePeak(time_s=61.04, update=0.8, reset=0.7),),
        forget_peaks=(GatePeak(time_s=63.0, update=0.5, reset=0.2), GatePeak(time_s=65.0, update=0.6, reset=0.3)),
    )
    assert _format(why, "event 3 of 7 in a.mp4").splitlines() == [
        "meet  62.0-65.5 s  score 0.80  (event 3 of 7 in a.mp4)",
        "",
        "  object       attention",
        "  person 0      0.50          ##########",
        "  person 1      0.25          #####",
        *(f"  {name}, no track   0.02" for name in "abcdef"),
        "  3 more        0.06          #",
        "",
        "  without      score  change",
        "  motion        0.00  -0.70   --------------------",
        "  speed         0.35  -0.35   ----------",
        "  scene         0.70  +0.00",
        "  time          0.70  +0.00",
        "  relations     0.90  +0.20   ++++++",
        "  (nothing)     0.70",
        "  (computed from 30 s before the event, and at most 120 s of it: score 0.70 instead of 0.80)",
        "",
        "  kept most   at 61.0 s (update 0.80, reset 0.70)",
        "  forgot most at 63.0 s (update 0.50, reset 0.20), 65.0 s (update 0.60, reset 0.30)",
    ]
    bare = replace(why, objects=(), keep_peaks=(), forget_peaks=(), baseline=0.8)
    assert "  no object was detected" in _format(bare, "")
    assert "computed from" not in _format(bare, "")
    assert "kept" not in _format(bare, "")
    untold = _format(replace(why, score_without={}), "")  # the model scores nothing
    assert "without" not in untold
    assert "(nothing)" not in untold
    assert "\n\n\n" not in untold


def test_explain_text_shows_caption() -> None:
    event = Event(
        video="a.mp4", start_s=62.0, end_s=65.5, label="meet", score=0.8,
        description="두 사람이\n만난다", description_score=0.834, description_source="model",
    )  # fmt: skip
    why = Explanation(
        event=event, score=0.8, baseline=0.8, score_without={}, objects=(), keep_peaks=(), forget_peaks=()
    )
    assert _format(why, "it").splitlines()[:3] == [
        "meet  62.0-65.5 s  score 0.80  (it)",
        "  두 사람이 만난다  (caption score 0.83)",
        "",
    ]
    why = replace(why, event=replace(event, description="person: meet", description_source="template"))
    assert _format(why, "it").splitlines()[1] == (
        "  [person: meet]  (template: the model's own caption scored only 0.83)"
    )


def test_explain_captions_events(project: FakeProject, monkeypatch: pytest.MonkeyPatch) -> None:
    def tell(model: object, parts: object, events: list[Event]) -> list[Event]:
        caption = {"description_score": 0.9, "description_source": "model"}
        return [replace(event, description=f"A {event.label}", **caption) for event in events]

    monkeypatch.setattr("vidgru.prediction.explain.caption_events", tell)
    text = explain_text(project, project.record("a.mp4"), event=2)
    assert text.splitlines()[1] == "  A walk  (caption score 0.90)"


# --- a moment -------------------------------------------------------------------------------------------------------


def test_explain_moment_without_event(project: FakeProject) -> None:
    path = project.record("a.mp4")
    timed(project, fall=0.41, walk=0.2)
    lines = explain_text(project, path, at=2.0).splitlines()
    assert lines[:5] == [
        "fall at 2.0 s: score 0.41; an event starts at 0.50 and ends below 0.50",
        "  other labels: walk 0.20",
        "",
        "      time  score",
        "     0.0 s   0.41  ########  |",
    ]
    assert "     2.0 s   0.41  ########  |  <" in lines
    (candidate,) = (line for line in lines if "candidate" in line)
    assert candidate == (
        "  nearest candidate: fall at 0.0-5.0 s, peak 0.41; --threshold fall=0.4 would find it "
        "(fall events in this recording: 0 -> 1)"
    )
    assert "fall  1.5-2.5 s  score 0.41  (mean around 2 s, no event)" in lines
    assert any(re.match(r"  scene_motion +0\.41  \+0\.00$", line) for line in lines)
    other = explain_text(project, path, at=2.0, label="walk")
    assert other.startswith("walk at 2.0 s: score 0.20; an event starts at 0.50")
    assert "fall events" not in other


@pytest.mark.slow
def test_report_page_explains_moments_as_the_command(project: FakeProject) -> None:
    path = project.record("a.mp4", frames=160)
    sequence = make_sequence(160, seed=160)
    random = make_random_model(sequence, clips=False, timed=True, multi_label=True, lookahead=3, linear=True)
    decode = replace(random.decode, high=(0.9, 0.9), smooth_s=0.5, event_scale=2.0, event_bias=1.0)
    with torch.no_grad():
        random.network.frame_head[-1].weight.mul_(5)
    settings = {"feature_settings": project.feature_settings, "weights": str(project.weights)}
    replace(random, decode=decode, **settings).save(project.model)
    (result,) = predict(project.model, [project.videos], project.config(report=True))
    assert result.status == "done"
    data = data_of(project.out / "a.mp4/report.html")
    moments = data["moments"]
    scores = unpacked(moments["scores"], "<u2").reshape(len(moments["time"]), -1, 2) / 65535
    during = [(start / 1000, end / 1000, column) for start, end, column, *_ in data["events"]]
    compared = 0
    for number, at_s in list(enumerate(moments["time"]))[::7]:
        for column, label in enumerate(data["labels"]):
            if any(start_s <= at_s < end_s and column == other for start_s, end_s, other in during):
                continue
            text = explain_text(project, path, at=at_s, label=label)
            printed = dict(re.findall(r"^  ([\w()]+) +(\d\.\d\d)(?:  |$)", text.split("without")[1], re.MULTILINE))
            expected = dict(zip(["(nothing)", *moments["groups"]], scores[number, :, column], strict=True))
            assert {name: float(score) for name, score in printed.items()} == pytest.approx(expected, abs=0.0051)
            compared += 1
    assert compared >= 3
    assert np.abs(np.diff(scores, axis=1)).max() > 0.05


def test_explain_moment_with_event(project: FakeProject) -> None:
    text = explain_text(project, project.record("a.mp4"), at=1.0, label="fall", threshold=0.55)
    assert text.startswith("fall at 1.0 s: score 0.90; an event starts at 0.55 and ends below 0.55\n")
    assert "  0.90  ###########|#######  <" in text
    assert "fall  0.0-5.0 s  score 0.90  (event 1 of 2 in a.mp4)" in text
    assert "candidate" not in text
    assert "walk  " not in text


def test_explain_moment_without_candidate(project: FakeProject) -> None:
    timed(project, fall=0.01)
    text = explain_text(project, project.record("a.mp4"), at=1.0)
    assert "no candidate: the score stays low throughout" in text


def test_explain_moment_of_too_short_candidate(project: FakeProject) -> None:
    model = make_model(
        project.model, project.feature_settings, weights=str(project.weights), timed=True, fall=0.6, walk=0.8
    )
    replace(model, decode=replace(model.decode, high=(0.5, 0.9), low=(0.5, 0.9), exclusive=True)).save(project.model)
    text = explain_text(project, project.record("a.mp4"), at=1.0, label="fall")
    assert "peak 0.60; no event at any threshold: too short, or another label scores higher there" in text


# --- errors ---------------------------------------------------------------------------------------------------------


def test_explain_without_event_names_best_candidate(project: FakeProject) -> None:
    path = project.record("quiet.mp4")
    timed(project, fall=0.41, walk=0.2)
    with pytest.raises(SourceError) as error:
        explain_text(project, path)
    assert error.value.message == (
        "the model finds no event in quiet.mp4: its best candidate is fall at 0.0-5.0 s with a peak score of 0.41, "
        "below the threshold of 0.50"
    )
    assert error.value.remedy == "--at 0.0 explains that moment"


def test_explain_names_candidate_before_trimming(project: FakeProject) -> None:
    path = project.record("quiet.mp4")
    timed(project, fall=0.41, walk=0.2)
    model = load_model(project.model)
    replace(model, decode=replace(model.decode, start_trim_s=(1, 0), end_trim_s=(3, 0))).save(project.model)
    with pytest.raises(SourceError, match=r"best candidate is fall at 0\.0-5\.0 s with a peak score of 0\.41"):
        explain_text(project, path)
    decode = replace(model.decode, high=(0.3, 0.5), low=(0.3, 0.5), start_trim_s=(0, 0), end_trim_s=(3, 0))
    replace(model, decode=decode).save(project.model)
    text = explain_text(project, path)
    assert "fall  0.0-2.0 s" in text
    assert "instead of" not in text, "the score without each feature group is of all of the event, as its score"


def test_explain_without_event_or_candidate(project: FakeProject) -> None:
    timed(project, fall=0.01, walk=0.02)
    with pytest.raises(SourceError, match=r"highest score is 0\.02 for walk at 0\.0 s, below the threshold of 0\.50"):
        explain_text(project, project.record("quiet.mp4"))


def test_explain_names_candidate_beaten_by_other_label(project: FakeProject) -> None:
    model = make_model(
        project.model, project.feature_settings, weights=str(project.weights), timed=True, fall=0.6, walk=0.8
    )
    # walk scores higher throughout, and not high enough for an event
    replace(model, decode=replace(model.decode, high=(0.5, 0.9), low=(0.5, 0.9), exclusive=True)).save(project.model)
    with pytest.raises(SourceError, match=r"fall at 0\.0-5\.0 s with a peak score of 0\.60, but .* another label"):
        explain_text(project, project.record("a.mp4"))


def test_explain_after_the_end(project: FakeProject) -> None:
    with pytest.raises(SourceError, match=r"5 s is after the end of a\.mp4 \(5 s\)\n  give an earlier time"):
        explain_text(project, project.record("a.mp4"), at=5.0)


def test_explain_unknown_label(project: FakeProject) -> None:
    with pytest.raises(SettingsError, match=r"label holds 'x', .*\n  its labels are fall, run, walk"):
        explain_text(project, project.record("a.mp4"), label="x")


def test_explain_event_number_too_large(project: FakeProject) -> None:
    with pytest.raises(SettingsError, match=r"event is 3, but a\.mp4 has 2") as error:
        explain_text(project, project.record("a.mp4"), event=3)
    assert "2: walk at 0.0-5.0 s" in error.value.remedy


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"event": 0}, "event is 0; it must be the number of an event, from 1"),
        ({"at": -1.0}, r"at is -1\.0; it must be a second of the recording"),
        ({"at": float("nan")}, r"at is nan; it must be a second of the recording"),
        ({"at": 1.0, "event": 1}, r"at is 1\.0; it must be left out with event"),
    ],
)
def test_explain_config_rejects_invalid_values(settings: dict[str, float], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        from_settings(ExplainConfig, **settings)


def test_explain_missing_recording(project: FakeProject) -> None:
    with pytest.raises(SourceError, match=r"no such file or folder: .*gone\.mp4"):
        explain_text(project, project.videos / "gone.mp4")


def test_explain_folder_that_is_no_entry(project: FakeProject) -> None:
    project.record("a.mp4")
    for folder in (project.videos, project.cache.root, project.cache.root / ("0" * 64)):
        folder.mkdir(exist_ok=True)
        with pytest.raises(SourceError, match="is neither a recording nor a valid cache entry"):
            explain_text(project, folder)


def test_explain_features_of_other_settings(project: FakeProject) -> None:
    path = project.record("a.mp4")
    entry = project.cache.lookup(path, project.feature_settings)
    assert entry is not None
    make_model(project.model, {**project.feature_settings, "imgsz": 320}, weights=str(project.root / "gone.pt"))
    for recording in (project.cache.root / entry.key, path):
        with pytest.raises(SettingsMismatchError, match="imgsz is 640, the model's is 320"):
            explain_text(project, recording)


def test_explain_wrong_detector(project: FakeProject) -> None:
    path = project.record("a.mp4")
    other = project.root / "other.pt"
    other.write_bytes(b"another detector")
    with pytest.raises(SettingsMismatchError, match=r"other\.pt is not the detector that the model was trained on"):
        explain_text(project, path, weights=str(other))


def test_explain_without_features_and_detector(project: FakeProject) -> None:
    path = project.videos / "new.mp4"
    path.write_text("never seen")
    make_model(project.model, project.feature_settings, weights=str(project.root / "gone.pt"))
    with pytest.raises(WeightsError, match=r"the model names the detector .*gone\.pt, which has made no features in"):
        explain_text(project, path)


def test_explain_file_that_is_no_recording(project: FakeProject) -> None:
    detector = bundled_file("demo.pt")
    assert detector is not None
    settings = DetectorSettings(weights=str(detector), imgsz=64)
    make_model(project.model, feature_settings_for(settings), weights=str(detector))
    path = project.videos / "new.mp4"
    path.write_text("not a video")
    with pytest.raises(RecordingError, match=r"new\.mp4: "):
        explain_text(project, path, weights=str(detector))


def test_explain_command(project: FakeProject, capsys: pytest.CaptureFixture[str]) -> None:
    path, features = project.record("a.mp4"), str(project.cache.root)
    for at in ("1", "0:01.0"):
        assert cli.run(["explain", str(project.model), str(path), "--features", features, "--at", at]) == 0
        assert "\nfall  0.0-5.0 s  score 0.90  (event 1 of 2 in a.mp4)\n" in capsys.readouterr().out
    assert cli.run(["explain", str(project.model), str(path), "--features", features, "--event", "7"]) == 2
    assert "vidgru: error: event is 7, but a.mp4 has 2" in capsys.readouterr().err
