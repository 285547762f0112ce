"""A web server over a folder that can be told to misbehave, for tests of what reads a store."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

#: Answers a request for a range in its own way; the bytes are what a healthy server would give.
Trouble = Callable[["Handler", bytes], None]


class FaultyServer(ThreadingHTTPServer):
    """Serves ranges of a folder's files; the next `left` reads of payloads meet `trouble`. over: ends what hangs."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder, self.trouble, self.left, self.served = folder, None, 0, 0
        self.over, self.lock = threading.Event(), threading.Lock()
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    trouble: Trouble | None
    left: float

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def misbehave(self, trouble: Trouble | None, times: float = float("inf")) -> None:
        with self.lock:
            self.trouble, self.left = trouble, times

    def stop(self) -> None:
        self.over.set()
        self.shutdown()
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has gone is none of the test's business."""


class Handler(BaseHTTPRequestHandler):
    server: FaultyServer
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.server.folder / self.path.lstrip("/")
        if not path.is_file():
            self.say(404)
            return
        body = path.read_bytes()
        start, end = 0, len(body)
        if asked := self.headers.get("Range"):
            first, _, last = asked.removeprefix("bytes=").partition("-")
            start, end = int(first), int(last) + 1 if last else end
        self.total, self.start = len(body), start
        with self.server.lock:
            trouble = self.server.trouble if path.suffix == ".bin" and self.server.left > 0 else None
            if trouble is not None:
                self.server.left -= 1
            self.server.served += path.suffix == ".bin"
        (trouble or healthy)(self, body[start:end])

    def say(self, status: int, body: bytes = b"", length: int | None = None, **headers: str) -> None:
        """Send an answer, of which `length` tells the client how much to wait for."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
            self.wfile.flush()


def healthy(handler: Handler, body: bytes) -> None:
    span = f"bytes {handler.start}-{handler.start + len(body) - 1}/{handler.total}"
    handler.say(206, body, Content_Range=span)


def throttles(handler: Handler, body: bytes) -> None:
    handler.say(503, b"SlowDown", Retry_After="0")


def forgets_credentials(handler: Handler, body: bytes) -> None:
    handler.say(403, b"ExpiredToken")


def stalls(handler: Handler, body: bytes) -> None:
    handler.server.over.wait()


def crawls(handler: Handler, body: bytes) -> None:
    """Send a kilobyte a second."""
    handler.say(206, b"", len(body))
    for at in range(0, len(body), 100):
        handler.wfile.write(body[at : at + 100])
        if handler.server.over.wait(0.1):
            return


def cuts_short(handler: Handler, body: bytes) -> None:
    healthy(handler, body[: len(body) // 2])


def resets(handler: Handler, body: bytes) -> None:
    handler.say(206, body[: len(body) // 2], len(body))
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.close_connection = True
    handler.connection.close()


def lies(handler: Handler, body: bytes) -> None:
    """Give the right number of wrong bytes."""
    healthy(handler, bytes([body[0] ^ 1]) + body[1:])
