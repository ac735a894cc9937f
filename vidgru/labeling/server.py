"""The labelling server: a page for a browser on this machine, and the HTTP API that it uses.

Every request needs the token that the address printed at the start contains: as `?token=` or as header `X-Token`. The
`Host` must be 127.0.0.1 or localhost with the server's port, a POST must have the content type application/json, and an
`Origin`, if it is sent, must be the server's own. Anything else is answered with 403. Recordings are addressed by id,
never by path. Errors are `{"error": TEXT}`.

- `GET /`: the page.
- `GET /api/state`: `{version, file, notes: [..], labels: [..], features: {enabled, reason}, recordings: [..],
  training: {state, message, progress, new_labels, needed, curve: [..]}, disk_error}`. `version` increases with each
  change of anything in it. `disk_error` is null, or why the file cannot be written now.
  - A recording is `{id, name, duration_s, fps, size: [width, height], state, progress, reason, playable, events,
    watched_s, is_empty, drafts, version}`; `state` is queued, extracting, ready or failed, `playable` says whether
    browsers play the file itself, `events` and `drafts` are counts, and `version` is that of the last change of its
    annotations or drafts. A recording whose video cannot be read has null for duration, rate and size.
  - `training.state` is idle, running or failed; `progress` is the share of finished epochs, 0 to 1, or null if no
    training is running. A model is trained when `new_labels` reaches `needed`, unless that is
    0. A point of the curve is `{labels, metric, value, low, high, measured}`; `low` and `high`
    may be null, `measured` is the number of held-out events or clips.
  - `features.enabled` is false if features cannot be extracted, for the reason given.
- `GET /api/changes?since=VERSION`: the state, as soon as its version is newer, at the latest after 20 s.
- `GET /api/recordings/ID`: `{id, version, annotations: [{id, start_s, end_s, label, description}], watched: [[start_s,
  end_s]], watched_with_events: [[start_s, end_s]], is_empty, drafts: [{start_s, end_s, label, score}], fps,
  frame_times_s}`. `watched_with_events` is all that counts as watched, as in the file. `frame_times_s` is null if
  frame k is at k / fps, or if the times are unknown.
- `POST /api/recordings/ID/changes` with `{changes: [..]}`: apply them in order, write the file, and return
  the same as `GET`, without `fps` and `frame_times_s`. If one is malformed none is applied, and the answer is 400. If
  the disk is full the answer is 507, with the same fields and `error`; the changes are kept, and written as soon as
  they can be.
  - `{op: "put", id, start_s, end_s, label, description}` adds or replaces an event; ids are made by the client.
  - `{op: "delete", id}`
  - `{op: "watched", start_s, end_s}` and `{op: "unwatched", start_s, end_s}`. Drafts that are neither accepted nor
    rejected after the last change of the request do not become watched; what was watched before they came stays so.
  - `{op: "empty", value}`: nothing happens in the whole recording. It needs a recording without events; adding one
    ends it, and leaves the recording watched. It rejects all drafts while it lasts.
  - `{op: "reject", start_s, end_s, label}` and, to undo it, `{op: "restore", start_s, end_s, label}`: a draft is wrong.
    None of its time becomes watched by that. Accepting one is to `put` it.
- `GET /api/recordings/ID/video`: the proxy if there is one, else the file, with range requests.
- `GET /api/recordings/ID/frame?ms=TIME`: the frame that is on the screen at that time, as JPEG.
- `POST /api/recordings/ID/proxy` starts to make a proxy; `GET` of it returns `{state, progress, reason}`; `state` is
  none, queued, running, ready or failed.
- `POST /api/train` with `{}`: train now. 409 if features cannot be extracted and no recording has any.
- `GET /api/suggestions?n=20`: `[{recording, start_s, end_s, reason, label}]`, most useful first; `label` may be null.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import socket
import sys
import time
import webbrowser
from collections.abc import Mapping
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, QueryParams
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vidgru.config import LabelConfig
from vidgru.datasets.rows import BACKGROUND
from vidgru.errors import RecordingError, SettingsError
from vidgru.flags import require
from vidgru.labeling.background import FeatureExtraction, TrainingLoop
from vidgru.labeling.page import label_page
from vidgru.labeling.project import ChangeNotSavedError, InvalidChangeError, LabelingProject, ProjectRecording
from vidgru.labeling.proxy import ProxyVideos, is_evenly_spaced, read_frame_jpeg, read_frame_times
from vidgru.sources import find_recordings
from vidgru.storage import parse_json, user_path

HOST = "127.0.0.1"
_LONG_POLL_S = 20.0
_POLL_S = 0.05
_MAX_BODY = 10_000_000
_HEADERS = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Frame-Options": "DENY",
}


def label_recordings(sources: list[str | Path], config: LabelConfig) -> Path:
    """Serve the labelling page until Ctrl-C, and return the annotation file.

    Raises:
        SourceError: A source does not exist, or holds no recordings.
        AnnotationError, OutputError: The annotation file cannot be read or written, or is open elsewhere.
        SettingsError: The port is taken, or a label is reserved.
    """
    hint = f"other labels: {BACKGROUND} marks watched time in which nothing happens"
    require(BACKGROUND not in config.labels, "labels", config.labels, hint)
    recordings = find_recordings(sources)
    listener = _listen(config.port)
    port = listener.getsockname()[1]
    project = LabelingProject(recordings, user_path(config.out), config.labels)
    proxies = ProxyVideos(user_path(config.run) / "proxies", project.touch)
    features = FeatureExtraction(project, config)
    training = TrainingLoop(project, config, features)
    token = secrets.token_urlsafe(24)
    address = f"http://{HOST}:{port}/?token={token}"
    try:
        app = make_app(project, proxies, features, training, token, port)
        server = uvicorn.Server(
            uvicorn.Config(app, log_level="warning", access_log=False, lifespan="off", timeout_graceful_shutdown=1)
        )
        app.state.is_stopping = lambda: server.should_exit
        for note in project.notes:
            print(note, file=sys.stderr)
        print(f"labels: {project.path}\nopen {address}\nCtrl-C ends; everything is saved", flush=True)
        if config.browser:
            webbrowser.open(address)
        with suppress(KeyboardInterrupt):
            server.run(sockets=[listener])
    finally:
        if message := training.close():
            print(message, file=sys.stderr)
        features.close()
        proxies.close()
        project.close()
    return project.path


def _listen(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        if sys.platform != "win32":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((HOST, port))
        listener.listen()  # a browser may connect as soon as the address is printed
    except OSError as error:
        listener.close()
        raise SettingsError(
            f"port is {port}, which cannot be used: {error.strerror}", "leave --port out to use a free one"
        ) from None
    return listener


def make_app(
    project: LabelingProject,
    proxies: ProxyVideos,
    features: FeatureExtraction,
    training: TrainingLoop,
    token: str,
    port: int,
) -> Starlette:
    """Return the server as an ASGI application.

    Args:
        project: What is labelled.
        proxies: Proxies of its videos.
        features: Extraction of its features.
        training: Training on its labels.
        token: What every request has to bring.
        port: Port of the server, which the `Host` of every request has to name.
    """
    handlers = _Handlers(project, proxies, features, training, token)
    recording = "/api/recordings/{id}"
    app = Starlette(
        routes=[
            Route("/", handlers.page),
            Route("/api/state", handlers.state),
            Route("/api/changes", handlers.changes),
            Route(recording, handlers.recording),
            Route(f"{recording}/changes", handlers.apply, methods=["POST"]),
            Route(f"{recording}/video", handlers.video),
            Route(f"{recording}/frame", handlers.frame),
            Route(f"{recording}/proxy", handlers.start_proxy, methods=["POST"]),
            Route(f"{recording}/proxy", handlers.proxy),
            Route("/api/train", handlers.train, methods=["POST"]),
            Route("/api/suggestions", handlers.suggestions),
        ],
        exception_handlers={HTTPException: _error_response},
    )
    app.state.is_stopping = lambda: False
    app.add_middleware(_Guard, token=token, hosts=(f"{HOST}:{port}", f"localhost:{port}"))
    return app


def _error_response(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code)


class _Guard:
    """Refuse requests of other sites and programs, and add headers that keep answers from them.

    Args:
        app: The application.
        token: What every request has to bring.
        hosts: Allowed values of the `Host` header: a site whose name was bound to this machine's address (DNS
            rebinding) sends its own name.
    """

    def __init__(self, app: ASGIApp, token: str, hosts: tuple[str, ...]) -> None:
        self._app, self._token, self._hosts = app, token, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":  # there are no web sockets
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [(name.lower().encode(), value.encode()) for name, value in _HEADERS.items()]
                message = {**message, "headers": [*message["headers"], *headers]}
            await send(message)

        if reason := self._refusal(scope):
            await JSONResponse({"error": reason}, 403)(scope, receive, send_with_headers)
        else:
            await self._app(scope, receive, send_with_headers)

    def _refusal(self, scope: Scope) -> str:
        """Return why a request is refused; empty if it is not."""
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if headers.getlist("host") != [host] or host not in self._hosts:
            return "this host is not served"
        token = headers.get("x-token") or QueryParams(scope["query_string"]).get("token", "")
        if not secrets.compare_digest(token.encode(), self._token.encode()):
            return "the token is missing or wrong: open the address that vidgru label printed"
        if "origin" in headers and headers["origin"] != f"http://{host}":
            return "requests of other sites are refused"
        if scope["method"] not in ("GET", "HEAD"):
            kind = headers.get("content-type", "").partition(";")[0].strip().lower()
            if kind != "application/json":
                return "send JSON, with the content type application/json"
        return ""


class _Handlers:
    """The answers to requests."""

    def __init__(
        self,
        project: LabelingProject,
        proxies: ProxyVideos,
        features: FeatureExtraction,
        training: TrainingLoop,
        token: str,
    ) -> None:
        self._project, self._proxies, self._features, self._training = project, proxies, features, training
        self._token = token
        self._frame_times: dict[int, list[float] | None] = {}

    async def page(self, request: Request) -> Response:
        return HTMLResponse(label_page(self._token))

    async def state(self, request: Request) -> Response:
        return JSONResponse(await run_in_threadpool(self._state))

    async def changes(self, request: Request) -> Response:
        since = _number(request, "since", 0)
        deadline = time.monotonic() + _LONG_POLL_S
        while self._project.version <= since and time.monotonic() < deadline and not request.app.state.is_stopping():
            await asyncio.sleep(_POLL_S)
        return await self.state(request)

    def _state(self) -> dict[str, Any]:
        project = self._project
        return {
            "version": project.version,  # read first: what changes meanwhile is sent again
            "file": str(project.path).encode(errors="replace").decode(),
            "notes": list(project.notes),
            "labels": project.labels,
            "features": {"enabled": not self._features.reason, "reason": self._features.reason},
            "recordings": project.summaries(),
            "training": self._training.state(),
            "disk_error": project.disk_error or None,
        }

    async def recording(self, request: Request) -> Response:
        number, item = self._find(request)
        self._features.prefer(number)  # it is open in a window
        times = await run_in_threadpool(self._times, number, item)
        details = await run_in_threadpool(self._project.details, number)
        return JSONResponse({**details, "fps": item.media.fps if item.media else None, "frame_times_s": times})

    def _times(self, number: int, item: ProjectRecording) -> list[float] | None:
        """Return the times of a recording's frames; None if they are even or unknown."""
        if number not in self._frame_times and item.media is not None:
            times = read_frame_times(item.recording.path)
            is_uneven = times is not None and not is_evenly_spaced(times, item.media.fps)
            self._frame_times[number] = times.round(6).tolist() if times is not None and is_uneven else None
        return self._frame_times.get(number)

    async def apply(self, request: Request) -> Response:
        number, _ = self._find(request)
        changes = (await _body(request)).get("changes")
        if not isinstance(changes, list) or not all(isinstance(change, dict) for change in changes):
            raise HTTPException(400, "changes must be a list of operations")
        try:
            return JSONResponse(await run_in_threadpool(self._project.apply, number, changes))
        except InvalidChangeError as error:
            raise HTTPException(400, str(error)) from None
        except ChangeNotSavedError as error:
            details = await run_in_threadpool(self._project.details, number)
            return JSONResponse({**details, "error": str(error)}, 507)

    async def video(self, request: Request) -> Response:
        _, item = self._find(request)
        proxy = self._proxies.find(item.recording.path)
        if proxy is None and not (item.media is not None and item.media.is_playable):
            raise HTTPException(409, "browsers cannot play this file: make a proxy first")
        path = proxy or item.recording.path
        if not path.is_file():
            raise HTTPException(404, f"{item.recording.name} is gone")
        return FileResponse(path, media_type="video/webm" if path.suffix.lower() == ".webm" else "video/mp4")

    async def frame(self, request: Request) -> Response:
        _, item = self._find(request)
        time = Fraction(_number(request, "ms", 0), 1000)
        try:
            jpeg = await run_in_threadpool(read_frame_jpeg, item.recording.path, time)
        except RecordingError as error:
            raise HTTPException(404, f"{item.recording.name} {error.message}") from None
        return Response(jpeg, media_type="image/jpeg")

    async def start_proxy(self, request: Request) -> Response:
        _, item = self._find(request)
        if item.media is None:
            raise HTTPException(409, f"{item.recording.name} cannot be read: {item.reason}")
        self._proxies.start(item.recording.path)
        return await self.proxy(request)

    async def proxy(self, request: Request) -> Response:
        _, item = self._find(request)
        return JSONResponse(self._proxies.status(item.recording.path))

    async def train(self, request: Request) -> Response:
        await _body(request)
        is_any_ready = any(item.features == "ready" for item in self._project.recordings)
        if self._features.reason and not is_any_ready:
            raise HTTPException(409, f"there are no features to train on: {self._features.reason}")
        self._training.request()
        return JSONResponse({})

    async def suggestions(self, request: Request) -> Response:
        number = _number(request, "n", 20)
        return JSONResponse(await run_in_threadpool(self._project.suggestions, number))

    def _find(self, request: Request) -> tuple[int, ProjectRecording]:
        text = request.path_params["id"]
        recordings = self._project.recordings
        match = re.fullmatch(r"r([0-9]{1,8})", text)
        if match is None or int(match[1]) >= len(recordings):
            raise HTTPException(404, f"no recording {text!r:.50}")
        return int(match[1]), recordings[int(match[1])]


async def _body(request: Request) -> Mapping[str, Any]:
    """Return the JSON object that a request carries."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MAX_BODY:
            raise HTTPException(413, f"more than {_MAX_BODY:,} bytes")
    try:
        value = parse_json(body)
    except ValueError:
        raise HTTPException(400, "not JSON") from None
    if not isinstance(value, dict):
        raise HTTPException(400, "not a JSON object")
    return value


def _number(request: Request, name: str, default: int) -> int:
    text = request.query_params.get(name, str(default))
    if not (text.isascii() and text.isdecimal() and len(text) < 16):
        raise HTTPException(400, f"{name} is {text!r:.50}; it must be a whole number")
    return int(text)
