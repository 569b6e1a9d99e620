"""A peer that answers with the very bytes that a test scripts, and counts its connections."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO

PAUSE = 0.05  # seconds between the pieces of an answer: they do not come together
CLOSE = b"<close>"  # in place of a piece: nothing comes any more
OK = [b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 4\r\n\r\nfine"]


class RawPeer:
    """Answers requests in turn, one piece after the other; without a script, `OK`."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.script: deque[list[bytes]] = deque()
        self.asked: list[bytes] = []
        self.connections = 0
        self._open: list[socket.socket] = []
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/prominence/v1"
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self.connections += 1
                self._open.append(connection)
                self._threads.append(threading.Thread(target=self._serve, args=(connection,), daemon=True))
                self._threads[-1].start()

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError), connection.makefile("rb") as source:
            while head := _head(source):
                length = re.search(rb"(?i)content-length: (\d+)", head)
                self.asked.append(head + source.read(int(length[1]) if length else 0))
                for number, piece in enumerate(self.script.popleft() if self.script else OK):
                    time.sleep(PAUSE if number else 0.0)
                    if piece == CLOSE:
                        connection.shutdown(socket.SHUT_RDWR)
                        return
                    connection.sendall(piece)

    def serving(self) -> int:
        """How many connections are served now."""
        return sum(thread.is_alive() for thread in self._threads[1:])

    def close(self) -> None:
        for each in (self._listener, *self._open):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        for thread in self._threads:
            thread.join()


def _head(source: IO[bytes]) -> bytes:
    """The head of the next request; nothing at the end."""
    head = b""
    while (line := source.readline()) not in (b"", b"\r\n"):
        head += line
    return head


@contextmanager
def a_raw_peer() -> Iterator[RawPeer]:
    peer = RawPeer()
    try:
        yield peer
    finally:
        peer.close()
