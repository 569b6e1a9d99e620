"""Bytes to an HTTP server and back, for what no HTTP library would send. Knows nothing of the service."""

from __future__ import annotations

import contextlib
import json
import select
import socket
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

SECONDS = 20.0  # in which an answer comes, also on a machine that has much else to do
_PATIENCE = 0.05  # in which most answers come


@dataclass(frozen=True)
class Answer:
    """The first answer of a connection; status 0 when the server has closed it without one."""

    status: int
    headers: dict[str, str]
    content: bytes

    @property
    def error(self) -> Any:
        """The sentence of an error, or None."""
        try:
            said = json.loads(self.content)
        except ValueError:
            return None
        return said.get("error") if isinstance(said, dict) else None


def request(
    method: str, target: bytes, headers: Iterable[tuple[str, bytes]], body: bytes | None, framing: str = "whole"
) -> bytes:
    """A request as it goes over the wire, after which the connection is closed; nothing is quoted or checked.

    framing: whole, chunked, or what Content-Length says of the body: that it is short(er), or long(er).
    """
    lines = [method.encode("latin-1") + b" " + target + b" HTTP/1.1", b"Host: service", b"Connection: close"]
    lines += [name.encode() + b": " + value for name, value in headers]
    if framing == "chunked":
        lines.append(b"Transfer-Encoding: chunked")
        body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body) if body else b"0\r\n\r\n"
    elif body is not None:
        said = {"whole": len(body), "short": len(body) // 2, "long": len(body) + 1_000}[framing]
        lines.append(b"Content-Length: %d" % said)
    return b"\r\n".join(lines) + b"\r\n\r\n" + (body or b"")


def exchange(port: int, content: bytes, *, cut_off: bool = False) -> Answer:
    """Send bytes, and return what comes; fails when nothing comes and the connection stays open.

    cut_off: say a moment later that there is nothing more to come, as somebody who has gone away.
    """
    deadline = time.monotonic() + SECONDS
    with socket.create_connection(("127.0.0.1", port), timeout=SECONDS) as connection:
        with contextlib.suppress(OSError):  # it may answer, and close, before it has read everything
            connection.sendall(content)
            if cut_off:
                select.select([connection], [], [], _PATIENCE)
                connection.shutdown(socket.SHUT_WR)
        received = b""
        with contextlib.suppress(ConnectionError):
            while piece := connection.recv(1 << 16):
                received += piece
                assert time.monotonic() < deadline, f"no end of the answer to {content[:200]!r}"
    return parsed(received)


def parsed(received: bytes) -> Answer:
    """The first answer among bytes that a server has sent."""
    head, _, content = received.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    words = first.split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return Answer(int(words[1]) if len(words) > 1 and words[1].isdigit() else 0, headers, content)


def form(boundary: bytes, parts: Iterable[tuple[bytes, bytes, bytes]]) -> bytes:
    """A form: of each part the name, more of its header, and what it holds."""
    made = b""
    for name, more, content in parts:
        made += b'--%s\r\nContent-Disposition: form-data; name="%s"%s\r\n\r\n%s\r\n' % (boundary, name, more, content)
    return made + b"--%s--\r\n" % boundary
