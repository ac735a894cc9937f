"""OpenVINO graphs: export, caching, no telemetry and no output."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from tests.detectors import Weights
from tests.videos import draw_counter
from vidgru.detector import openvino_export
from vidgru.detector.backends import OpenVinoBackend
from vidgru.storage import sha256_file

pytestmark = pytest.mark.skipif(find_spec("openvino") is None, reason="openvino is not installed")


@pytest.fixture
def graph_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Use an empty cache folder; return its folder of graphs."""
    monkeypatch.setenv("VIDGRU_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "graphs"


def logits(weights: Path, sha256: str = "") -> bytes:
    backend = OpenVinoBackend(weights, sha256 or sha256_file(weights), "cpu", "fp32")
    values = backend(torch.from_numpy(draw_counter(3, 96, 64))[None]).logits.numpy()
    return values.tobytes() + repr(backend.spec).encode()


@pytest.fixture(scope="module")
def exported_graph(tiny_weights: Weights, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes, bytes]:
    """Export a graph; return its file, its bytes and the network's output."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VIDGRU_CACHE", str(folder := tmp_path_factory.mktemp("export")))
        output = logits(tiny_weights("yolov8n"))
    (file,) = (folder / "graphs").iterdir()
    return file, file.read_bytes(), output


def test_graph_is_exported_once_and_silently(
    tiny_weights: Weights, graph_folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["vidgru", "extract", "--verbose"])  # OpenVINO looks for it too
    weights = tiny_weights("yolov8n-pose")
    capfd.readouterr()
    first = logits(weights)
    assert capfd.readouterr() == ("", "")
    (file,) = graph_folder.iterdir()
    mtime_ns = file.stat().st_mtime_ns

    def load(path: Path, *, trusted: bool) -> None:
        raise AssertionError("the weights were read again")

    monkeypatch.setattr(openvino_export, "load_network", load)
    assert logits(weights) == first
    assert [file.stat().st_mtime_ns for file in graph_folder.iterdir()] == [mtime_ns]
    with pytest.raises(AssertionError, match="were read again"):
        logits(weights, "0" * 64)  # other weights


@pytest.mark.parametrize("name", ["schema", "openvino", "torch", "ultralytics"])
def test_graph_of_other_version_is_not_used(
    tiny_weights: Weights, graph_folder: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    exported: list[Path] = []
    monkeypatch.setattr(openvino_export, "_export", lambda weights, trusted: exported.append(weights) or b"")
    weights, core = tiny_weights("yolo26n"), openvino_export.open_core()

    def open_graph() -> None:
        with pytest.raises(Exception, match="header"):  # the fake export is no graph
            openvino_export.open_graph(weights, "0" * 64, core)

    open_graph()
    version = openvino_export.version
    monkeypatch.setattr(openvino_export, "_SCHEMA", openvino_export._SCHEMA + (name == "schema"))
    monkeypatch.setattr(openvino_export, "version", lambda package: version(package) + ("1" if package == name else ""))
    open_graph()
    assert len(list(graph_folder.iterdir())) == len(exported) == 2


@pytest.mark.parametrize("damage", ["half", "empty", "flipped", "other", "folder"])
def test_corrupt_graph_is_exported_again(
    tiny_weights: Weights,
    graph_folder: Path,
    exported_graph: tuple[Path, bytes, bytes],
    monkeypatch: pytest.MonkeyPatch,
    damage: str,
) -> None:
    weights, data = tiny_weights("yolov8n"), exported_graph[1]
    exported: list[Path] = []
    monkeypatch.setattr(openvino_export, "_export", lambda weights, trusted: exported.append(weights) or data)
    file = graph_folder / exported_graph[0].name
    graph_folder.mkdir(parents=True)
    if damage == "folder":
        file.mkdir()
    else:
        flipped = data[:-1000] + bytes([data[-1000] ^ 16]) + data[-999:]
        bad = {"half": data[: len(data) // 2], "empty": b"", "flipped": flipped, "other": b"not a graph at all"}
        file.write_bytes(bad[damage])
    assert logits(weights) == exported_graph[2]
    assert exported == [weights]
    assert damage == "folder" or openvino_export._unpack(file.read_bytes(), openvino_export.open_core())
    assert list(graph_folder.iterdir()) == [file], "no temporary file is left"


def test_unwritable_cache_folder_is_ignored(
    tiny_weights: Weights, exported_graph: tuple[Path, bytes, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exported: list[Path] = []
    data = exported_graph[1]
    monkeypatch.setattr(openvino_export, "_export", lambda weights, trusted: exported.append(weights) or data)
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("VIDGRU_CACHE", str(tmp_path / "file"))
    assert logits(tiny_weights("yolov8n")) == exported_graph[2]
    monkeypatch.setattr(openvino_export, "_cache_folder", lambda: Path(os.devnull) / ".cache")  # a user without a home
    assert logits(tiny_weights("yolov8n")) == exported_graph[2]
    assert len(exported) == 2


def test_cache_folder_by_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIDGRU_CACHE", str(tmp_path))
    assert openvino_export._cache_folder() == tmp_path
    monkeypatch.delenv("VIDGRU_CACHE")
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert openvino_export._cache_folder() == tmp_path / "xdg" / "vidgru"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert openvino_export._cache_folder() == tmp_path / ".cache" / "vidgru"
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "local"))
    assert openvino_export._cache_folder() == tmp_path / "local" / "vidgru" / "cache"

    def home_is_unknown() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(Path, "home", home_is_unknown)
    assert openvino_export._cache_folder() == Path(os.devnull) / ".cache" / "vidgru"


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


_SIGNAL_AFTER_USE = """
import os, signal, threading
from vidgru.detector.openvino_export import open_core
signal.signal(signal.SIGINT, lambda *_: print("handled"))
cores = [open_core()]
cores[0].get_property("CPU", "OPTIMIZATION_CAPABILITIES")  # loads the plugin
thread = threading.Thread(target=cores.clear)
thread.start()
thread.join()
os.kill(os.getpid(), signal.SIGINT)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signal stacks are of POSIX")
def test_signals_are_handled_after_openvino_was_used() -> None:
    """A core that is released in another thread leaves the first one with a signal stack that is unmapped."""
    done = subprocess.run([sys.executable, "-c", _SIGNAL_AFTER_USE], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "handled\n"), done.stderr


@pytest.mark.slow
def test_concurrent_exports_send_no_telemetry(tiny_weights: Weights, tmp_path: Path) -> None:
    """Both export the graph, one file is left, and OpenVINO's telemetry has neither run nor left files."""
    home = tmp_path / "home"
    home.mkdir()
    environment = os.environ | {"HOME": str(home), "USERPROFILE": str(home), "VIDGRU_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, "-c", _PROGRAM, str(tiny_weights("yolov8n"))]
    running = [subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    for process in running:
        _, stderr = process.communicate(timeout=120)
        assert process.returncode == 0, stderr
        assert "Warning" not in stderr
    assert len(list((tmp_path / "cache" / "graphs").iterdir())) == 1
    assert not (home / "intel").exists()
