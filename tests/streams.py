"""Streams on loopback: an HTTP server that serves files as they are, or bytes without an end that is announced."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

Answer = Callable[[BaseHTTPRequestHandler], None]


def as_file(path: Path) -> Answer:
    """Serve a file whole, its length announced."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        data = path.read_bytes()
        request.send_response(200)
        request.send_header("Content-Length", str(len(data)))
        request.end_headers()
        request.wfile.write(data)

    return answer


def as_stream(path: Path, wait: Callable[[], object] = lambda: None) -> Answer:
    """Serve a file as a live stream: its length is not known. The connection is held until `wait` returns."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.end_headers()
        request.wfile.write(path.read_bytes())
        request.wfile.flush()
        wait()

    return answer


def refusal(status: int) -> Answer:
    """Answer with an error."""
    return lambda request: request.send_error(status)


@contextmanager
def serving(*answers: Answer, then: Callable[[], object] = lambda: None) -> Iterator[str]:
    """Serve each connection in turn with the next answer. Yields the URL.

    Args:
        answers: one a connection.
        then: called at every connection after the last answer, which gets an error.
    """
    left = list(answers)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if left:
                left.pop(0)(self)
            else:
                then()
                self.send_error(503)

        def handle(self) -> None:
            try:
                super().handle()
            except ConnectionError:  # whoever read has seen enough
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
