"""The whole loop without a browser: extraction, labels, a model, drafts, and `vidgru train` on the file."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.videos import write_video
from vidgru import cli
from vidgru.config import DetectorSettings, LabelConfig, RuntimeSettings
from vidgru.labeling import background
from vidgru.labeling.background import FeatureExtraction, TrainingLoop
from vidgru.labeling.project import LabelingProject
from vidgru.labeling.proxy import ProxyVideos
from vidgru.labeling.server import make_app
from vidgru.sources import find_recordings

FAST = ("--no-captions", "--members", "2", "--epochs", "2")


def wait_for(client: TestClient, condition: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    state, deadline = client.get("/api/state").json(), time.monotonic() + 300
    while not condition(state):
        assert time.monotonic() < deadline, state
        state = client.get(f"/api/changes?since={state['version']}").json()
    return state


@contextmanager
def serving(folder: Path, config: LabelConfig) -> Iterator[TestClient]:
    project = LabelingProject(find_recordings([folder / "videos"]), Path(config.out))
    proxies = ProxyVideos(folder / "proxies", project.touch)
    features = FeatureExtraction(project, config)
    training = TrainingLoop(project, config, features)
    app = make_app(project, proxies, features, training, "secret", 8000)
    with TestClient(app, base_url="http://127.0.0.1:8000", headers={"X-Token": "secret"}) as client:
        yield client
    for part in (training, features, proxies, project):
        part.close()


@pytest.mark.slow
def test_labels_become_a_model_and_drafts(
    tmp_path: Path,
    tiny_weights: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(background, "TRAIN_FLAGS", FAST)
    for number in range(4):
        write_video(tmp_path / "videos" / f"{number}.mp4", frames=60)
    config = LabelConfig(
        detector=DetectorSettings(weights=str(tiny_weights("yolo26n")), fps=5, imgsz=64),
        runtime=RuntimeSettings(threads=1),
        out=str(tmp_path / "labels.csv"),
        features=str(tmp_path / "features"),
        run=str(tmp_path / "run"),
        train_every=0,
    )
    with serving(tmp_path, config) as client:
        wait_for(client, lambda state: all(item["state"] == "ready" for item in state["recordings"]))
        for number in range(3):
            events = [
                {"op": "put", "id": f"{start}", "start_s": start, "end_s": start + 1, "label": "fall"}
                for start in (1, 3)
            ]
            changes = [*events, {"op": "watched", "start_s": 0, "end_s": 5}]
            assert client.post(f"/api/recordings/r{number}/changes", json={"changes": changes}).status_code == 200
        assert client.post("/api/train", json={}).status_code == 200
        state = wait_for(
            client, lambda state: state["training"]["state"] in ("failed", "idle") and state["training"]["curve"]
        )
        (point,) = state["training"]["curve"]
        assert (point["labels"], point["metric"]) == (6, "event_f1")
        assert point["low"] <= point["value"] <= point["high"]
        suggestions = client.get("/api/suggestions").json()
        assert suggestions
    assert (tmp_path / "run" / "suggestions.jsonl").is_file()
    with serving(tmp_path, config) as client:  # a new session continues, without training or predicting again
        assert client.get("/api/suggestions").json() == suggestions
        state = wait_for(client, lambda state: all(item["state"] == "ready" for item in state["recordings"]))
        training = state["training"]
        assert (training["curve"], training["new_labels"], training["state"]) == ([point], 0, "idle")
    flags = ["--weights", config.detector.weights, "--fps", "5", "--imgsz", "64", "--features", config.features]
    assert cli.run(["train", config.out, *flags, *FAST, "--out", str(tmp_path / "final")]) == 0
    assert "3 recordings watched in part" in capsys.readouterr().out
