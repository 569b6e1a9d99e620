"""A real HTTP peer on this machine that answers what a test scripts, right or wrong, and keeps what it was asked."""

from __future__ import annotations

import json
import socket
import ssl
import struct
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

TOKEN = "the-secret-token"
HTML_500 = b"<!doctype html>\n<title>500 Internal Server Error</title>\n<h1>Internal Server Error</h1>\n"


@dataclass
class Answer:
    status: int = 200
    body: bytes | Any = b"{}"
    headers: dict[str, str] = field(default_factory=dict)
    length: int | None = None
    """The Content-Length to claim, if not the true one."""
    reset: bool = False
    """Close the connection instead of answering."""
    delay: float = 0.0
    """Seconds before the answer."""
    endless: bool = False
    """The body comes again and again, until the client has seen enough; no length is claimed but ``length``."""


@dataclass
class Asked:
    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: bytes


class Peer:
    """An HTTP server that gives the scripted answers in turn, the last of them for ever, and keeps what it got."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.answers: deque[Answer] = deque()
        self.asked: list[Asked] = []
        peer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def handle_any(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                url = urlsplit(self.path)
                peer.asked.append(Asked(self.command, url.path, parse_qs(url.query), dict(self.headers), body))
                answer = peer.answers.popleft() if len(peer.answers) > 1 else peer.answers[0]
                time.sleep(answer.delay)
                if answer.reset:
                    # A linger time of 0 makes the close a reset.
                    self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    self.close_connection = True
                    return
                content = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
                self.send_response(answer.status)
                if answer.length is not None or not answer.endless:
                    self.send_header("Content-Length", str(len(content) if answer.length is None else answer.length))
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                with suppress(OSError):  # a client that has seen enough
                    self.wfile.write(content)
                    while answer.endless:
                        self.wfile.write(content)
                self.close_connection = answer.endless or answer.length is not None

            do_GET = do_POST = do_PUT = do_DELETE = handle_any

            def log_message(self, *args: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = False
            request_queue_size = 64  # of 5, one that is told of 20 connections at once has some wait for a second

            def server_bind(self) -> None:
                TCPServer.server_bind(self)  # HTTPServer's looks the host's name up, which may take long

            def handle_error(self, *args: object) -> None:
                pass  # clients that go away are part of the plot

        self._server = Server(("127.0.0.1", 0), Handler)
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{self._server.server_address[1]}/prominence/v1"

    def answer(self, *answers: Answer) -> None:
        self.answers = deque(answers)
        self.asked.clear()

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@contextmanager
def a_peer(tls: ssl.SSLContext | None = None) -> Iterator[Peer]:
    peer = Peer(tls)
    try:
        yield peer
    finally:
        peer.stop()


def unused_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
