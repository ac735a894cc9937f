"""The labelling server: its answers, and the requests that it refuses."""

import io
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import httpx
import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from tests.videos import read_counter, write_video
from vidgru.labeling.project import LabelingProject
from vidgru.labeling.proxy import ProxyVideos
from vidgru.labeling.server import make_app
from vidgru.sources import find_recordings

TOKEN, PORT = "secret", 8123
CHANGES = "/api/recordings/r0/changes"
PUT = {"op": "put", "id": "a", "start_s": 0.5, "end_s": 1.25, "label": "fall", "description": "down"}


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    write_video(folder / "a.mp4")
    write_video(folder / "b.avi", codec="mpeg4")
    (folder / "c.mp4").write_bytes(b"broken")
    return folder


@pytest.fixture
def project(videos: Path, tmp_path: Path) -> Iterator[LabelingProject]:
    project = LabelingProject(find_recordings([videos]), tmp_path / "labels.csv", ("sit",))
    yield project
    project.close()


@pytest.fixture
def preferred() -> list[int]:
    """Recordings that extraction was asked to read next."""
    return []


@pytest.fixture
def client(project: LabelingProject, preferred: list[int], tmp_path: Path) -> Iterator[TestClient]:
    proxies = ProxyVideos(tmp_path / "proxies", project.touch)
    features = SimpleNamespace(reason="no detector", prefer=preferred.append)
    training = SimpleNamespace(state=lambda: {"state": "idle"}, request=lambda: None)
    app = make_app(project, proxies, features, training, TOKEN, PORT)
    with TestClient(app, base_url=f"http://127.0.0.1:{PORT}", headers={"X-Token": TOKEN}) as client:
        yield client
    proxies.close()


def apply(client: TestClient, *changes: dict[str, object]) -> httpx.Response:
    return client.post(CHANGES, json={"changes": changes})


def test_state_lists_recordings(client: TestClient) -> None:
    state = client.get("/api/state").json()
    a, b, c = state["recordings"]
    assert (a["id"], a["name"], a["duration_s"], a["fps"], a["size"]) == ("r0", "a.mp4", 3.0, 10.0, [160, 96])
    assert [item["playable"] for item in (a, b, c)] == [True, False, False]
    assert (c["state"], c["duration_s"]) == ("failed", None)
    assert "is not a readable video" in c["reason"]
    assert (state["labels"], state["disk_error"]) == (["sit"], None)


def test_open_recording_is_extracted_next(client: TestClient, preferred: list[int]) -> None:
    assert client.get("/api/recordings/r1").status_code == 200
    assert preferred == [1]


def test_change_is_on_disk_when_answered(client: TestClient, project: LabelingProject) -> None:
    before = client.get("/api/state").json()["version"]
    answer = apply(client, PUT, {"op": "watched", "start_s": 0, "end_s": 2}).json()
    assert answer["annotations"] == [{k: v for k, v in PUT.items() if k != "op"}]
    assert answer["watched"] == [[0, 2]]
    assert answer["version"] > before
    rows = project.path.read_text().splitlines()
    assert f"{project.recordings[0].recording.path},0.5,1.25,fall,down," in rows
    assert client.get("/api/state").json()["labels"] == ["sit", "fall"]


def test_malformed_change_applies_none_of_its_batch(client: TestClient, project: LabelingProject) -> None:
    answer = apply(client, PUT, {"op": "put", "id": "b", "start_s": 2, "end_s": 1, "label": "fall"})
    assert answer.status_code == 400
    assert answer.json()["error"] == "the end, 1 s, is not after the start, 2 s"
    assert not project.path.exists()


def test_video_is_served_by_range(client: TestClient, videos: Path) -> None:
    content = (videos / "a.mp4").read_bytes()
    part = client.get("/api/recordings/r0/video", headers={"Range": "bytes=100-199"})
    assert (part.status_code, part.content) == (206, content[100:200])
    assert part.headers["content-range"] == f"bytes 100-199/{len(content)}"
    assert client.get(f"/api/recordings/r0/video?token={TOKEN}", headers={"X-Token": ""}).content == content
    assert client.get("/api/recordings/r1/video").status_code == 409


@pytest.mark.parametrize(("recording", "ms", "number"), [("r0", 0, 0), ("r0", 1149, 11), ("r1", 2900, 29)])
def test_frame_is_the_one_on_the_screen(client: TestClient, recording: str, ms: int, number: int) -> None:
    answer = client.get(f"/api/recordings/{recording}/frame?ms={ms}")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/jpeg")
    assert read_counter(np.asarray(Image.open(io.BytesIO(answer.content)))) == number


@pytest.mark.parametrize(
    ("request_path", "status", "reason"),
    [
        ("r0/frame?ms=3001", 404, "a.mp4 has no frame at 3.001 s"),
        ("r0/frame?ms=-1", 400, "ms is '-1'; it must be a whole number"),
        ("r2/frame?ms=0", 404, "is not a readable video"),
    ],
)
def test_frame_that_does_not_exist(client: TestClient, request_path: str, status: int, reason: str) -> None:
    answer = client.get(f"/api/recordings/{request_path}")
    assert answer.status_code == status
    assert reason in answer.json()["error"]


def test_changes_answers_when_the_version_is_newer(client: TestClient) -> None:
    version = client.get("/api/state").json()["version"]
    apply(client, PUT)
    assert client.get(f"/api/changes?since={version}").json()["recordings"][0]["events"] == 1


def test_training_without_features_says_why(client: TestClient) -> None:
    assert client.get("/api/state").json()["features"] == {"enabled": False, "reason": "no detector"}
    answer = client.post("/api/train", json={})
    assert answer.status_code == 409
    assert answer.json()["error"] == "there are no features to train on: no detector"


def test_training_needs_one_recording_with_features(client: TestClient, project: LabelingProject) -> None:
    project.set_features(0, "ready", 1.0)  # before extraction failed
    assert client.post("/api/train", json={}).status_code == 200


@pytest.mark.parametrize(
    ("headers", "query"),
    [
        ({"X-Token": "wrong"}, ""),
        ({"X-Token": ""}, ""),
        ({"X-Token": ""}, "?token=wrong"),
        ({"Host": f"attacker.example:{PORT}"}, ""),
        ({"Host": "127.0.0.1:80"}, ""),
        ({"Origin": "http://attacker.example"}, ""),
        ({"Origin": "null"}, ""),
        ({"Content-Type": "text/plain"}, ""),
    ],
)
def test_foreign_request_is_refused(client: TestClient, headers: dict[str, str], query: str) -> None:
    answer = client.post(
        CHANGES + query, content='{"changes": []}', headers={"Content-Type": "application/json"} | headers
    )
    assert answer.status_code == 403
    assert answer.json()["error"]


def test_own_origin_is_served(client: TestClient) -> None:
    for host in (f"127.0.0.1:{PORT}", f"localhost:{PORT}"):
        headers = {"Host": host, "Origin": f"http://{host}"}
        assert client.post(CHANGES, json={"changes": []}, headers=headers).status_code == 200


@pytest.mark.parametrize(
    "name",
    ["r3", "r", "r-1", "r\u0660", "a.mp4", "..%2f..%2fetc%2fpasswd", "%2fetc%2fpasswd", "r0%2f..%2f..", "r00000000000"],
)
def test_only_ids_of_recordings_are_served(client: TestClient, name: str) -> None:
    assert client.get(f"/api/recordings/{name}/video").status_code == 404


def test_answers_are_kept_from_other_sites(client: TestClient) -> None:
    for path in ("/", "/api/state", "/nowhere"):
        headers = client.get(path).headers
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert headers["cache-control"] == "no-store"
        assert "access-control-allow-origin" not in headers
