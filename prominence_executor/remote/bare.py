"""A request and its answer over a connection that stands, with next to nothing around them: the way of warm calls.

Here a request goes out in one piece, and an answer is taken as it came, if it is an ordinary one that is here as a
whole. Any other (in chunks, compressed, without a length, an interim one, one that is still coming) http.client reads,
from its first byte. It knows nothing of tokens, of what is asked, and of what a status means. It opens, repeats,
follows and closes nothing: that is the business of whoever has the connection. The client and warm workers use it.
"""

import http.client
import io

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping  # noqa: F401  in comments
    from typing import Any  # noqa: F401  likewise

PIECE = 1 << 16  # bytes that are taken from a connection at once
LONGEST_HEAD = 1 << 16  # bytes


class Answer:
    """An answer: its status, reason and headers, by names in small letters, and its body.

    ``content``: the body, or None when it is not here as a whole; then it is to be read from ``rest``.
    """

    def __init__(self, status, reason, headers, content, stays, rest=None):
        self.status = status
        self.reason = reason
        self.headers = headers  # type: dict[str, str]
        self.content = content  # type: bytes | None
        self.rest = rest  # type: http.client.HTTPResponse | None
        self.stays = stays  # the connection can be used again, when the body has been read

    def read(self):
        """Return the body, which is read to its end if it is not here."""
        if self.content is not None:
            return self.content
        with self.rest:  # type: ignore[union-attr]
            return self.rest.read()  # type: ignore[union-attr]


def host_of(host, port, default):
    # type: (str, int, int) -> str
    """Return what a request says of the host: with the port, unless it is the default one."""
    name = "[%s]" % host if ":" in host else host if host.isascii() else host.encode("idna").decode("ascii")
    return name if port == default else "%s:%d" % (name, port)


def request(method, target, host, headers, body=None):
    # type: (str, str, str, Mapping[str, str], bytes | None) -> bytes
    """Return a request in bytes. ValueError: something in its head would end a line of it.

    ``target``: path and query, quoted. ``headers``: a dict; what the body's length says of it is added.
    """
    lines = ["%s %s HTTP/1.1" % (method, target), "Host: " + host]
    lines += ["%s: %s" % header for header in headers.items()]
    if body is not None:
        lines.append("Content-Length: %d" % len(body))
    elif method in ("POST", "PUT"):
        lines.append("Content-Length: 0")
    head = "\r\n".join(lines)
    if head.count("\r") != len(lines) - 1 or head.count("\n") != len(lines) - 1 or " " in target:
        raise ValueError("there is a line break or a blank where a request cannot have one")
    return head.encode("latin-1") + b"\r\n\r\n" + (body or b"")


def answer(connection, method):
    # type: (Any, str) -> Answer
    """Return the answer to a request that was sent; blocks. Raises OSError, or what http.client raises.

    ``connection``: a socket, or what TLS makes of one.
    """
    data = connection.recv(PIECE)  # type: bytes
    end = data.find(b"\r\n\r\n")
    while end < 0 and data and len(data) < LONGEST_HEAD:
        more = connection.recv(PIECE)
        if not more:
            break
        data += more
        end = data.find(b"\r\n\r\n")
    plain = ordinary(data[:end].decode("latin-1")) if end >= 0 else None
    if plain is not None:
        status, reason, headers, length = plain
        begin, end = end + 4, end + 4 + length
        if len(data) >= end:  # what comes behind it belongs to nothing
            stays = len(data) == end and "close" not in headers.get("connection", "").lower()
            return Answer(status, reason, headers, data[begin:end], stays)
    return unusual(data, connection, method)


def ordinary(head):
    # type: (str) -> tuple[int, str, dict[str, str], int] | None
    """Return status, reason, headers, and the length of the body; None for what http.client is to make sense of."""
    lines = head.split("\r\n")
    version, _, rest = lines[0].partition(" ")
    code, _, reason = rest.partition(" ")
    if version != "HTTP/1.1" or len(code) != 3 or not code.isdecimal() or code < "200" or code in ("204", "304"):
        return None
    headers = {}  # type: dict[str, str]
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip() or "\n" in line or "\r" in line:
            return None
        name, value = name.lower(), value.strip(" \t")
        headers[name] = "%s, %s" % (headers[name], value) if name in headers else value
    length = headers.get("content-length", "")
    if not length.isdecimal() or len(length) > 18 or "transfer-encoding" in headers or "content-encoding" in headers:
        return None
    return int(code), reason, headers, int(length)


def unusual(begun, connection, method):
    # type: (bytes, Any, str) -> Answer
    """Return an answer of which ``begun`` has come, as http.client reads it."""
    response = http.client.HTTPResponse(Begun(begun, connection), method=method)  # type: ignore[arg-type]
    try:
        response.begin()
    except BaseException:
        response.close()  # else Python 3.13 prints what its garbage collection meets in it
        raise
    headers = {}  # type: dict[str, str]
    for name, value in response.headers.items():
        name = name.lower()
        headers[name] = "%s, %s" % (headers[name], value) if name in headers else value
    return Answer(response.status, response.reason, headers, None, not response.will_close, response)


class Begun(io.RawIOBase):
    """A socket of which some bytes have been read already."""

    def __init__(self, begun, connection):
        self.begun = memoryview(begun)
        self.connection = connection

    def readable(self):
        """Return True."""
        return True

    def readinto(self, buffer):
        """Read what was read before, or what comes."""
        if not self.begun:
            return self.connection.recv_into(buffer)
        size = min(len(self.begun), len(buffer))
        buffer[:size], self.begun = self.begun[:size], self.begun[size:]
        return size

    def makefile(self, mode):
        """Return what is read from, as a socket does."""
        return io.BufferedReader(self)
