"""`vidgru label` as a process: its output, its end, and kills."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from tests.videos import write_video
from vidgru import cli

ADDRESS = re.compile(r"open (http://127\.0\.0\.1:\d+)/\?token=(\S+)")


@contextmanager
def serving(folder: Path, *flags: str) -> Iterator[tuple[subprocess.Popen[str], httpx.Client]]:
    """Run `vidgru label` on the videos of a folder, without a detector."""
    command = [sys.executable, "-m", "vidgru", "label", "videos", "--no-browser", "--weights", "missing.pt", *flags]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if match := ADDRESS.search(line):
                break
        else:
            raise AssertionError("".join(lines))
        with httpx.Client(base_url=match[1], headers={"X-Token": match[2]}, timeout=60) as client:
            yield process, client
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_video(tmp_path / "videos" / "a.mp4", frames=100)
    return tmp_path


def put(client: httpx.Client, number: int) -> httpx.Response:
    event = {"op": "put", "id": str(number), "start_s": number / 20, "end_s": number / 20 + 1, "label": "fall"}
    return client.post("/api/recordings/r0/changes", json={"changes": [event]})


@pytest.mark.slow
def test_killed_server_loses_nothing(folder: Path) -> None:
    acknowledged: list[int] = []
    with serving(folder) as (process, client):

        def work() -> None:
            with suppress(httpx.HTTPError):
                for number in range(170):
                    assert put(client, number).status_code == 200
                    acknowledged.append(number)

        thread = threading.Thread(target=work)
        thread.start()
        deadline = time.monotonic() + 60
        while len(acknowledged) < 20:
            assert time.monotonic() < deadline
        process.send_signal(signal.SIGKILL)
        thread.join()
    rows = (folder / "labels.csv").read_text().splitlines()
    written = {float(row.split(",")[1]) for row in rows if ",fall," in row}
    assert {number / 20 for number in acknowledged} <= written
    with serving(folder) as (_, client):  # the killed server's lock is taken over
        state = client.get("/api/state").json()
        assert state["recordings"][0]["events"] == len(written)
        assert state["labels"] == ["fall"]
        assert put(client, 180).status_code == 200
        leftovers = [path.name for path in folder.iterdir() if path.name.endswith(".tmp")]
        assert leftovers == []


@pytest.mark.slow
def test_ctrl_c_ends_cleanly_and_labels_without_detector(folder: Path) -> None:
    with serving(folder, "--out", "mine.csv") as (process, client):
        assert put(client, 1).status_code == 200
        deadline = time.monotonic() + 60
        while client.get("/api/state").json()["features"]["enabled"]:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert "no such weights file: missing.pt" in client.get("/api/state").json()["features"]["reason"]
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 0
        assert output.endswith("labels: mine.csv\n")
        assert "Traceback" not in output
    assert sorted(path.name for path in folder.iterdir()) == ["mine.csv", "videos"]


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="limits of file sizes are POSIX's")
def test_full_disk_is_shown_and_changes_are_written_later(folder: Path) -> None:
    import resource

    with serving(folder) as (process, client):
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))
        answer = put(client, 1)
        assert answer.status_code == 507
        assert "labels.csv" in answer.json()["error"]
        assert len(answer.json()["annotations"]) == 1
        assert client.get("/api/state").json()["disk_error"]
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        deadline = time.monotonic() + 60
        while client.get("/api/state").json()["disk_error"]:
            assert time.monotonic() < deadline
            time.sleep(0.1)
    assert ",fall," in (folder / "labels.csv").read_text()


def test_server_starts_without_pytorch() -> None:
    code = "import sys, vidgru.labeling.server; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--port", "70000"], "port is 70000; it must be from 0 to 65535"),
        (["--train-every", "-1"], "train_every is -1; it must be 0 or more"),
        (["--labels", "fall,background"], "it must be other labels: background marks watched time"),
    ],
)
def test_bad_settings_are_refused(
    folder: Path, capsys: pytest.CaptureFixture[str], flags: list[str], message: str
) -> None:
    assert cli.run(["label", str(folder / "videos"), "--no-browser", *flags]) == 2
    assert message in capsys.readouterr().err


def test_port_in_use_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert cli.run(["label", str(folder / "videos"), "--no-browser", "--port", str(port)]) == 2
    error = capsys.readouterr().err
    assert f"port is {port}, which cannot be used" in error
    assert "leave --port out to use a free one" in error
