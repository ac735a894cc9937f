"""Serve files over HTTP on the loopback interface, with their length or as a live stream of unknown length."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

Answer = Callable[[BaseHTTPRequestHandler], None]


def as_file(path: Path) -> Answer:
    """Serve a file with its length, as a recording."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        data = path.read_bytes()
        request.send_response(200)
        request.send_header("Content-Length", str(len(data)))
        request.end_headers()
        request.wfile.write(data)

    return answer


def as_stream(path: Path, wait: Callable[[], object] = lambda: None) -> Answer:
    """Serve a file without its length, as a live stream. The connection stays open until `wait` returns."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.end_headers()
        request.wfile.write(path.read_bytes())
        request.wfile.flush()
        wait()

    return answer


def in_ranges(path: Path) -> Answer:
    """Serve a file from the byte that the client asks for, as servers that support ranges do."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        data = path.read_bytes()
        first = int(request.headers["Range"].removeprefix("bytes=").partition("-")[0])
        request.send_response(206)
        request.send_header("Content-Range", f"bytes {first}-{len(data) - 1}/{len(data)}")
        request.send_header("Content-Length", str(len(data) - first))
        request.end_headers()
        request.wfile.write(data[first:])

    return answer


def refusal(status: int) -> Answer:
    """Answer with an HTTP error."""
    return lambda request: request.send_error(status)


@contextmanager
def serving(*answers: Answer, then: Callable[[], object] = lambda: None) -> Iterator[str]:
    """Serve each connection in turn with the next answer. Yields the URL.

    Args:
        answers: One per connection.
        then: Called for each connection after the last answer, before it gets an error.
    """
    remaining = list(answers)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if remaining:
                remaining.pop(0)(self)
            else:
                then()
                self.send_error(503)

        def handle(self) -> None:
            try:
                super().handle()
            except ConnectionError:  # the client has closed the connection
                self.close_connection = True

        def log_message(self, format: str, *values: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/live"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
