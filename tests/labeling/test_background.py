"""Training and drafts in the background, with processes that are pretended."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.videos import write_video
from vidgru.config import DetectorSettings, LabelConfig
from vidgru.flags import to_settings
from vidgru.labeling import background, child
from vidgru.labeling.background import TrainingLoop
from vidgru.labeling.project import LabelingProject
from vidgru.prediction.event_files import to_jsonl
from vidgru.sources import find_recordings
from vidgru.types import Event

METRICS = {"event_f1": 0.5, "events": {"events": 7, "event_f1": 0.5, "intervals": {"event_f1": [0.25, 0.75]}}}
DRAFT = Event(video="b.mp4", start_s=1.0, end_s=2.0, label="fall", score=0.7)


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


class FakeCommands:
    """Takes the place of `vidgru train` and `vidgru predict`.

    Attributes:
        calls: Commands in order.
        reason: Why training fails; empty if it does not.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.calls, self.reason = folder, list[str](), ""

    def __call__(self, module: str, *arguments: str) -> str:
        command = "first" if module.endswith("first_suggestions") else arguments[0]
        self.calls.append(command)
        if command == "train" and not self.reason:
            (self.folder / "metrics.json").write_text(json.dumps(METRICS))
        if command == "predict":
            for path in map(Path, (self.folder / "recordings.txt").read_text().splitlines()):
                out = self.folder / "drafts" / path.name
                out.mkdir(parents=True, exist_ok=True)
                (out / "events.jsonl").write_text(to_jsonl([DRAFT] if path.name == DRAFT.video else []))
        if command in ("first", "suggest"):
            rows = [("a.mp4", 0.2, 1.2, "random"), ("b.mp4", 2.0, 3.0, "unsure"), ("b.mp4", 0.0, 1.0, "rare label")]
            names = ("video", "start", "end", "reason", "likely_label")
            lines = [json.dumps(dict(zip(names, (*row, "fall"), strict=True))) + "\n" for row in rows]
            (self.folder / "suggestions.jsonl").write_text("".join(lines))
        return self.reason if command == "train" else ""


@pytest.fixture
def project(tmp_path: Path) -> Iterator[LabelingProject]:
    for name in ("a.mp4", "b.mp4"):
        write_video(tmp_path / name)
    project = LabelingProject(find_recordings([tmp_path]), tmp_path / "labels.csv")
    yield project
    project.close()


class FakeLoop(TrainingLoop):
    """A training loop that calls `commands` instead of processes."""

    def __init__(self, project: LabelingProject, config: LabelConfig) -> None:
        self.commands = FakeCommands(Path(config.run))
        super().__init__(project, config, SimpleNamespace(reason=""))  # type: ignore[arg-type]

    def _run_child(self, module: str, *arguments: str) -> str:
        return self.commands(module, *arguments)


def make_config(folder: Path, detector: DetectorSettings | None = None) -> LabelConfig:
    return LabelConfig(run=str(folder / "run"), train_every=2, detector=detector or DetectorSettings())


@pytest.fixture(autouse=True)
def _poll_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "_POLL_S", 0.01)


@pytest.fixture
def loop(project: LabelingProject, tmp_path: Path) -> Iterator[FakeLoop]:
    loop = FakeLoop(project, make_config(tmp_path))
    yield loop
    loop.close()


def put(project: LabelingProject, number: int, start_s: float) -> dict[str, Any]:
    event = {"op": "put", "id": f"{start_s}", "start_s": start_s, "end_s": start_s + 0.5, "label": "fall"}
    return project.apply(number, [event])


def test_loop_trains_after_a_few_labels(loop: FakeLoop, project: LabelingProject) -> None:
    for number in (0, 1):
        project.set_features(number, "ready", 1.0)
    wait_for(lambda: project.suggestions(9)[0]["reason"] == "random")
    put(project, 0, 0.0)
    assert loop.state()["new_labels"] == 1
    put(project, 0, 2.0)
    wait_for(lambda: loop.state()["curve"] and loop.state()["state"] == "idle")
    assert project.recordings[1].drafts == [DRAFT]
    state = loop.state()
    assert state["curve"] == [
        {"labels": 2, "metric": "event_f1", "value": 0.5, "low": 0.25, "high": 0.75, "measured": 7}
    ]
    assert state["new_labels"] == 0
    assert loop.commands.calls == ["first", "train", "predict", "suggest"]
    draft = {"start_s": 1.0, "end_s": 2.0, "label": "fall", "score": 0.7}
    assert project.details(1)["drafts"] == [draft]
    assert [(row["recording"], row["start_s"], row["reason"]) for row in project.suggestions(9)] == [
        ("r1", 2.0, "unsure"),  # not the first one, which was watched
        ("r1", 0.0, "rare label"),
        ("r1", 1.0, "draft with score 0.70"),
    ]
    assert len(project.suggestions(2)) == 2
    put(project, 1, 1.2)  # a correction of the draft takes its place
    project.apply(1, [{"op": "put", "id": "x", "start_s": 1.0, "end_s": 1.9, "label": "fall"}])
    assert project.details(1)["drafts"] == []


def test_loop_learns_only_from_recordings_with_features(loop: FakeLoop, project: LabelingProject) -> None:
    put(project, 0, 0.0)
    put(project, 0, 2.0)
    put(project, 1, 0.0)
    assert loop.state()["new_labels"] == 0
    loop.request()
    wait_for(lambda: loop.state()["state"] == "failed")
    assert loop.state()["message"] == "no recording with features has labels yet"
    project.set_features(1, "ready", 1.0)
    loop.request()
    wait_for(lambda: loop.state()["curve"])
    rows = (loop.commands.folder / "labels.csv").read_text()
    assert str(project.recordings[1].recording.path) in rows
    assert str(project.recordings[0].recording.path) not in rows


def test_loop_shows_why_training_fails_and_waits_for_labels(loop: FakeLoop, project: LabelingProject) -> None:
    loop.commands.reason = "too few"
    for number in (0, 1):
        project.set_features(number, "ready", 1.0)
    wait_for(lambda: project.suggestions(9)[0]["reason"] == "random")
    put(project, 0, 0.0)
    put(project, 0, 2.0)
    wait_for(lambda: loop.state()["state"] == "failed")
    state = {"state": "failed", "message": "too few", "progress": None, "new_labels": 0, "needed": 2, "curve": []}
    assert loop.state() == state
    assert loop.commands.calls == ["first", "train"]


def reopen(folder: Path) -> LabelingProject:
    return LabelingProject(find_recordings([folder / "a.mp4", folder / "b.mp4"]), folder / "labels.csv")


@pytest.fixture
def finished(loop: FakeLoop, project: LabelingProject, tmp_path: Path) -> tuple[Path, list[Any], list[Any]]:
    """A session that ended with drafts: folder of its project, its suggestions, and its curve."""
    for number in (0, 1):
        project.set_features(number, "ready", 1.0)
    wait_for(lambda: project.suggestions(9)[0]["reason"] == "random")
    put(project, 0, 0.0)
    put(project, 0, 2.0)
    wait_for(lambda: loop.state()["curve"] and loop.state()["state"] == "idle")
    assert loop.close() == ""
    project.close()
    return tmp_path, project.suggestions(9), loop.state()["curve"]


def test_reopened_session_continues(finished: tuple[Path, list[Any], list[Any]]) -> None:
    folder, suggestions, curve = finished
    again = reopen(folder)
    second = FakeLoop(again, make_config(folder))
    assert again.details(1)["drafts"] == [{"start_s": 1.0, "end_s": 2.0, "label": "fall", "score": 0.7}]
    assert again.suggestions(9) == suggestions
    assert (second.state()["curve"], second.state()["new_labels"]) == (curve, 0), "features are not ready yet"
    second.close()
    again.set_features(0, "ready", 1.0)
    put(again, 0, 1.0)
    again.set_features(1, "ready", 1.0)
    assert second.state()["new_labels"] == 1
    second._work()
    assert second.commands.calls == [], "all recordings have drafts, and one label is too few"
    time_of_draft = {"start_s": 1.0, "end_s": 2.0}
    again.apply(1, [{"op": "reject", **time_of_draft, "label": "fall"}, {"op": "watched", **time_of_draft}])
    again.close()

    third = reopen(folder)
    FakeLoop(third, make_config(folder)).close()
    assert third.details(1)["drafts"] == [], "rejected in the session before"
    third.close()


def test_model_of_other_settings_is_not_used(finished: tuple[Path, list[Any], list[Any]]) -> None:
    folder, _, curve = finished
    project = reopen(folder)
    loop = FakeLoop(project, make_config(folder, DetectorSettings(fps=3)))
    loop.close()
    assert project.recordings[1].drafts == []
    project.set_features(1, "ready", 1.0)
    project.set_features(0, "failed", 1.0)
    loop._work()
    assert loop.commands.calls == ["first"], "neither predicts nor suggests with the model of other settings"
    project.set_features(0, "ready", 1.0)
    assert loop.state()["new_labels"] == 2, "no model of these settings has learnt them"
    loop._work()
    assert loop.commands.calls == ["first", "train", "predict", "suggest"]
    assert project.recordings[1].drafts == [DRAFT]
    assert loop.state()["curve"][:1] == curve
    project.close()


@pytest.mark.parametrize(
    "damage",
    [
        None,  # not damaged: continued, so that the checks below can fail
        b"",
        b"[]",
        b"{}",
        pytest.param(b"[" * 100_000, id="nested"),
        {"settings": {}},
        {"labels": {"a": "many"}},
        {"labels": None},
        {"drafts": None},
        {"drafts": {"b": [{"video": "b.mp4"}]}},
        {"drafts": {"b": [{"video": "b.mp4", "start": 2.0, "end": 1.0, "label": "fall", "score": 0.5}]}},
        {"suggestions": [{"recording": "b"}]},
    ],
)
def test_corrupt_session_starts_from_nothing(project: LabelingProject, tmp_path: Path, damage: Any) -> None:
    def with_paths(value: Any) -> Any:
        """Replace the names a and b by the paths of the recordings."""
        paths = {name: str(item.recording.path.absolute()) for name, item in zip("ab", project.recordings, strict=True)}
        if isinstance(value, dict):
            return {paths.get(name, name): with_paths(item) for name, item in value.items()}
        if isinstance(value, list):
            return [with_paths(item) for item in value]
        return paths.get(value, value) if isinstance(value, str) else value

    config = make_config(tmp_path)
    folder = Path(config.run)
    folder.mkdir()
    (folder / "metrics.json").write_text("{}")
    session = {
        "settings": json.loads(json.dumps(to_settings(config.detector))),
        "labels": {"a": 1},
        "drafts": {"b": [{"video": "b.mp4", "start": 1.0, "end": 2.0, "label": "fall", "score": 0.5}]},
        "suggestions": [{"recording": "b", "start": 0.0, "end": 1.0, "reason": "unsure", "likely_label": ""}],
    }
    if isinstance(damage, bytes):
        (folder / "session.json").write_bytes(damage)
    else:
        (folder / "session.json").write_text(json.dumps(with_paths(session | (damage or {}))))
    loop = FakeLoop(project, config)
    loop.close()
    put(project, 0, 0.0)
    project.set_features(0, "ready", 1.0)
    is_continued = damage is None
    assert loop.state()["new_labels"] == (0 if is_continued else 1)
    assert len(project.recordings[1].drafts) == is_continued
    assert ("unsure" in {row["reason"] for row in project.suggestions(9)}) == is_continued


def test_progress_of_training_is_shown(
    loop: FakeLoop, project: LabelingProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    states = []

    def train(self: TrainingLoop, module: str, *arguments: str) -> str:
        for epochs in (0, 6):
            monkeypatch.setattr(background, "finished_epochs", lambda path, epochs=epochs: epochs)
            self._show_progress()
            states.append(self.state())
        return "stopped"

    monkeypatch.setattr(FakeLoop, "_run_child", train)
    put(project, 0, 0.0)
    put(project, 0, 2.0)
    project.set_features(0, "ready", 1.0)
    wait_for(lambda: loop.state()["message"] == "stopped")
    assert [(state["message"], state["progress"]) for state in states[-2:]] == [
        ("training on 2 labels", 0.0),
        ("training on 2 labels: epoch 6 of 40", 0.15),
    ]
    assert loop.state()["progress"] is None


def test_names_with_unicode_line_breaks_are_suggested(loop: FakeLoop, project: LabelingProject, tmp_path: Path) -> None:
    loop.close()
    row = {"video": "a\u2028b.mp4", "start": 0.0, "end": 1.0, "reason": "unsure", "likely_label": ""}
    path = tmp_path / "suggestions.jsonl"
    path.write_text(json.dumps(row, ensure_ascii=False) + "\n", encoding="utf-8")
    loop._show_suggestions(path, {row["video"]: 1})
    assert project.suggestions(1)[0]["recording"] == "r1"
    assert project.suggestions(1)[0]["reason"] == "unsure"


def test_close_says_that_training_was_stopped(project: LabelingProject, tmp_path: Path, monkeypatch: Any) -> None:
    def start(module: str, *arguments: str, output: Any) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", "import sys; sys.stdin.read()"]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=output, stderr=subprocess.STDOUT)

    monkeypatch.setattr(child, "_start", start)
    monkeypatch.setattr(TrainingLoop, "_suggest_first", lambda self, ready: "")
    loop = TrainingLoop(project, make_config(tmp_path), SimpleNamespace(reason=""))  # type: ignore[arg-type]
    project.set_features(0, "ready", 1.0)
    put(project, 0, 0.0)
    put(project, 0, 2.0)
    wait_for(lambda: loop._child.is_running)
    assert loop.close() == "training stopped; the next start trains again"
    assert not (tmp_path / "run" / "session.json").exists()
