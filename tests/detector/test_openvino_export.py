"""OpenVINO graphs in the user's cache folder."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from tests.detector.test_yolo import Weights
from tests.videos import draw_counter
from vidgru.detector import openvino_export as graphs
from vidgru.detector.backends import OpenVinoBackend
from vidgru.storage import sha256_file

pytestmark = pytest.mark.skipif(find_spec("openvino") is None, reason="openvino is not installed")


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder."""
    monkeypatch.setenv("VIDGRU_CACHE", str(tmp_path / "kept"))
    return tmp_path / "kept" / "graphs"


def logits(weights: Path, sha256: str = "") -> bytes:
    backend = OpenVinoBackend(weights, sha256 or sha256_file(weights), "cpu", "fp32")
    values = backend(torch.from_numpy(draw_counter(3, 96, 64))[None]).logits.numpy()
    return values.tobytes() + repr(backend.spec).encode()


@pytest.fixture(scope="module")
def truth(tiny_weights: Weights, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes, bytes]:
    """A graph's file, its bytes, and what the network puts out."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VIDGRU_CACHE", str(folder := tmp_path_factory.mktemp("truth")))
        found = logits(tiny_weights("yolov8n"))
    (file,) = (folder / "graphs").iterdir()
    return file, file.read_bytes(), found


def test_a_graph_is_made_once(
    tiny_weights: Weights, kept: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    weights = tiny_weights("yolov8n-pose")
    monkeypatch.setattr(sys, "argv", ["vidgru", "extract", "--verbose"])  # which OpenVINO would take for its own
    capfd.readouterr()
    new = logits(weights)
    assert capfd.readouterr() == ("", "")
    (file,) = kept.iterdir()
    when = file.stat().st_mtime_ns

    def load(path: Path) -> None:
        raise AssertionError("the weights are read again")

    monkeypatch.setattr(graphs, "load_network", load)
    assert logits(weights) == new
    assert [file.stat().st_mtime_ns for file in kept.iterdir()] == [when]
    with pytest.raises(AssertionError, match="read again"):
        logits(weights, "0" * 64)  # other weights


@pytest.mark.parametrize("name", ["schema", "openvino", "torch", "ultralytics"])
def test_a_graph_of_other_versions_is_not_used(
    tiny_weights: Weights, kept: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    made: list[Path] = []
    monkeypatch.setattr(graphs, "_export", lambda weights: made.append(weights) or b"")
    weights, core = tiny_weights("yolo26n"), graphs.open_core()

    def open_it() -> None:
        with pytest.raises(Exception, match="header"):  # what was "exported" is no graph
            graphs.open_graph(weights, "0" * 64, core)

    open_it()
    version = graphs.version
    monkeypatch.setattr(graphs, "_SCHEMA", graphs._SCHEMA + (name == "schema"))
    monkeypatch.setattr(graphs, "version", lambda package: version(package) + ("1" if package == name else ""))
    open_it()
    assert len(list(kept.iterdir())) == len(made) == 2


@pytest.mark.parametrize("damage", ["half", "empty", "flipped", "other", "folder"])
def test_a_spoilt_graph_is_made_again(
    tiny_weights: Weights, kept: Path, truth: tuple[Path, bytes, bytes], monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    weights, data = tiny_weights("yolov8n"), truth[1]
    made: list[Path] = []
    monkeypatch.setattr(graphs, "_export", lambda weights: made.append(weights) or data)
    file = kept / truth[0].name
    kept.mkdir(parents=True)
    if damage == "folder":
        file.mkdir()
    else:
        flipped = data[:-1000] + bytes([data[-1000] ^ 16]) + data[-999:]
        bad = {"half": data[: len(data) // 2], "empty": b"", "flipped": flipped, "other": b"not a graph at all"}
        file.write_bytes(bad[damage])
    assert logits(weights) == truth[2]
    assert made == [weights]
    assert damage == "folder" or graphs._unpack(file.read_bytes(), graphs.open_core())
    assert list(kept.iterdir()) == [file], "nothing is left lying about"


def test_a_folder_that_cannot_be_written_is_done_without(
    tiny_weights: Weights, truth: tuple[Path, bytes, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("VIDGRU_CACHE", str(tmp_path / "file"))
    assert logits(tiny_weights("yolov8n")) == truth[2]
    monkeypatch.setattr(graphs, "_cache_folder", lambda: Path(os.devnull) / ".cache")  # a user without a home
    assert logits(tiny_weights("yolov8n")) == truth[2]


def test_where_graphs_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIDGRU_CACHE", str(tmp_path))
    assert graphs._cache_folder() == tmp_path
    monkeypatch.delenv("VIDGRU_CACHE")
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert graphs._cache_folder() == tmp_path / "xdg" / "vidgru"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert graphs._cache_folder() == tmp_path / ".cache" / "vidgru"
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "local"))
    assert graphs._cache_folder() == tmp_path / "local" / "vidgru" / "cache"

    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(Path, "home", homeless)
    assert graphs._cache_folder() == Path(os.devnull) / ".cache" / "vidgru"


_PROGRAM = """
import os, sys
sys.addaudithook(lambda event, arguments: event in ("socket.connect", "socket.getaddrinfo") and os._exit(3))
from pathlib import Path
from vidgru.detector.backends import OpenVinoBackend
from vidgru.storage import sha256_file
weights = Path(sys.argv[1])
OpenVinoBackend(weights, sha256_file(weights), "cpu", "fp32")
assert not any(name.startswith("openvino_telemetry") for name in sys.modules)
"""


@pytest.mark.slow
def test_processes_at_the_same_time_report_to_nobody(tiny_weights: Weights, tmp_path: Path) -> None:
    """Both make the graph, one file is left, and OpenVINO's telemetry has neither run nor left its files."""
    home = tmp_path / "home"
    home.mkdir()
    environment = os.environ | {"HOME": str(home), "USERPROFILE": str(home), "VIDGRU_CACHE": str(tmp_path / "kept")}
    command = [sys.executable, "-c", _PROGRAM, str(tiny_weights("yolov8n"))]
    running = [subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    for process in running:
        _, said = process.communicate(timeout=120)
        assert process.returncode == 0, said
        assert "Warning" not in said
    assert len(list((tmp_path / "kept" / "graphs").iterdir())) == 1
    assert not (home / "intel").exists()
