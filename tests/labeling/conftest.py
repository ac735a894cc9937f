"""The labelling page in a real browser, with a real server; features and training are what a test sets."""

import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import uvicorn

from tests.prediction.report.browsing import browser_pages
from vidgru.labeling.project import LabelingProject
from vidgru.labeling.proxy import ProxyVideos
from vidgru.labeling.server import _listen, make_app
from vidgru.sources import find_recordings

TOKEN = "secret"


class RunningServer:
    """A labelling server in a thread, which can stop and start again at the same address."""

    def __init__(self, videos: Path, out: Path, labels: tuple[str, ...] = ()) -> None:
        self.videos, self.out, self.labels = videos, out, labels
        self.port = 0
        self.features = SimpleNamespace(reason="", prefer=lambda number: None)
        self.training = {"state": "idle", "message": "", "new_labels": 0, "needed": 5, "curve": []}
        self.requests = 0  # to train
        self.start()

    def start(self) -> None:
        self.project = LabelingProject(find_recordings([self.videos]), self.out, self.labels)
        self.proxies = ProxyVideos(self.out.parent / "proxies", self.project.touch)
        listener = _listen(self.port)
        self.port = listener.getsockname()[1]
        training: Any = SimpleNamespace(state=lambda: self.training, request=self.request_training)
        app = make_app(self.project, self.proxies, self.features, training, TOKEN, self.port)  # type: ignore[arg-type]
        settings = {"log_level": "error", "lifespan": "off", "timeout_graceful_shutdown": 1, "ws": "none"}
        self.server = uvicorn.Server(uvicorn.Config(app, **settings))
        app.state.is_stopping = lambda: self.server.should_exit
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [listener]}, daemon=True)
        self.thread.start()

    def request_training(self) -> None:
        self.requests += 1

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}/?token={TOKEN}"

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join(30)
        self.proxies.close()
        self.project.close()

    def events(self, number: int = 0) -> list[tuple[float, float, str, str]]:
        """Events of a recording, by start."""
        events = self.project.recordings[number].labels.events.values()
        return sorted((event.start_s, event.end_s, event.label, event.description) for event in events)


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., RunningServer]]:
    servers = []

    def start(videos: Path, labels: tuple[str, ...] = ("fall", "sit")) -> RunningServer:
        servers.append(RunningServer(videos, tmp_path / "labels.csv", labels))
        return servers[-1]

    yield start
    for server in servers:
        with suppress(Exception):  # stopped by the test
            server.stop()


@pytest.fixture
def visit(chromium: Any) -> Iterator[Callable[..., Any]]:
    """Opens the page of a server."""
    with browser_pages(chromium) as open_page:

        def open_server(server: RunningServer, *, address: str = "", help_open: bool = False, **options: Any) -> Any:
            page = open_page(server.address + address, **options)
            if not help_open:
                page.wait_for_selector("#help[open]")
                page.keyboard.press("Escape")
            return page

        yield open_server
