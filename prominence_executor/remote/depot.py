"""Places in the object store for large messages, as a warm worker uses them: fetched and put by signed addresses.

A courier has left them (courier.py). Addresses to write to are asked for with the courier's token, anew before they
expire. Nothing that comes is given on unless its digest is the announced one. Who calls knows what to do where this
fails: every method may raise OSError, ValueError or HTTPException. It does so in time: a worker says nothing while it
fetches or puts, and the client gives up one that is silent for a minute.
"""

import http.client
import io
import os
import time
from urllib.parse import urlsplit

from .courier import unseal
from .key_value import CONNECT, connection_to
from .lean import Digest, dumps, loads

FRESH = 1800.0  # seconds for which an address to write to is used; the service's are good for two hours
TRIES, AGAIN = 3, 0.5  # times that something is fetched or put, and seconds between two
PIECE = 1 << 18  # bytes that are sent, or read, at once
LONGEST = 40.0  # seconds in which something is fetched or put, all tries together
STALLED = 15.0  # seconds in which a piece of it must come or go
SHORT = 1 << 16  # bytes of an answer of the service's


class Depot:
    """The places of one run. ``tls``: what the client's settings say of certificates."""

    def __init__(self, key, tls=None):
        self.key = key
        self.tls = tls
        self.token = ""
        self.addresses = {}  # type: dict[str, tuple[str, float]]  # by name, with time.monotonic() of the answer
        self.connections = {}  # type: dict[str, http.client.HTTPConnection]  # by scheme and host
        self.until = 0.0  # when what is under way is given up, by time.monotonic()

    def open(self, message):
        """Take in a courier's message: its places are the ones from now on."""
        self.token = unseal(message, self.key)
        self.addresses = {}

    def fetch(self, stored):
        """Return the content that ``stored`` describes: url, size, sha256."""
        return self.attempted(lambda: self.fetch_once(stored))

    def fetch_once(self, stored):
        """Try it."""
        status, content = self.exchange("GET", stored["url"], limit=stored["size"] + 1)
        if status != 200 or len(content) != stored["size"] or Digest(content).hexdigest() != stored["sha256"]:
            raise ValueError("what was stored did not arrive as it was sent (status %d)" % status)
        return content

    def put(self, name, content):
        """Store content in a place; return what describes it."""
        self.attempted(lambda: self.put_once(name, content))
        return {"name": name, "size": len(content), "sha256": Digest(content).hexdigest()}

    def put_once(self, name, content):
        """Try it."""
        status, _ = self.exchange("PUT", self.address(name), content, {"x-ms-blob-type": "BlockBlob"})
        if status // 100 != 2:
            self.addresses.pop(name, None)
            raise ValueError("the object store answers %d" % status)

    def address(self, name):
        """Return where to write to a place."""
        url, since = self.addresses.get(name, ("", 0.0))
        if not url or time.monotonic() > since + FRESH:
            since = time.monotonic()
            headers = {"Authorization": "Bearer " + self.token, "Content-Type": "application/json"}
            base = os.environ["PROMINENCE_URL"].rstrip("/")
            body = dumps({"name": name}).encode("utf-8")
            status, content = self.exchange("POST", base + "/data/output", body, headers)
            if status // 100 != 2:
                raise ValueError("the service gives no address (status %d)" % status)
            url = loads(content.decode("utf-8"))["url"]
            self.addresses[name] = url, since
        return url

    def exchange(self, method, url, body=None, headers=None, limit=SHORT):
        """Return status and content of an answer; a connection that was closed meanwhile is made again."""
        parts = urlsplit(url)
        target = parts.path + ("?" + parts.query if parts.query else "")
        place = "%s://%s" % (parts.scheme, parts.netloc)
        if place not in self.connections:
            self.connections[place] = connection_to(parts, self.tls, CONNECT)
        connection = self.connections[place]
        for is_new in (connection.sock is None, True):
            try:
                return answer_of(connection, method, target, body, headers or {}, limit, self.until)
            except (OSError, http.client.HTTPException):
                connection.close()
                if is_new:
                    raise
        raise AssertionError("unreachable")

    def attempted(self, once):
        """Return what ``once`` returns, tried a few times while there is time."""
        self.until = time.monotonic() + LONGEST
        for _ in range(TRIES - 1):
            try:
                return once()
            except (OSError, ValueError, http.client.HTTPException):
                if time.monotonic() + AGAIN > self.until:
                    raise
                time.sleep(AGAIN)
        return once()

    def close(self):
        """Close the connections."""
        for connection in self.connections.values():
            connection.close()


def answer_of(connection, method, target, body, headers, limit, until):
    """Send a request; return status and content of the answer, no more than ``limit`` bytes of it.

    ``until``: when it must be over, by time.monotonic().
    """
    if connection.sock is None:
        connection.timeout = min(CONNECT, seconds_until(until))
        connection.connect()
    pace = Pace(connection.sock, until)
    pace.keep()
    if body is not None:
        connection.blocksize = PIECE
        headers, body = dict(headers, **{"Content-Length": str(len(body))}), Body(body, pace)
    connection.request(method, target, body=body, headers=headers)
    pace.keep()
    response = connection.getresponse()
    pieces, left = [], limit
    while left > 0 and not response.isclosed():
        pace.keep()
        pieces.append(response.read(min(left, PIECE)))
        left -= len(pieces[-1])
    if not response.isclosed():
        connection.close()  # there is more than anybody wants
    return response.status, b"".join(pieces)


def seconds_until(until):
    """Return the seconds that are left; OSError: none are."""
    left = until - time.monotonic()
    if left <= 0:
        raise OSError("the object store takes too long")
    return left


class Pace:
    """How long a connection may take for its next piece, so that all of them are over in time."""

    def __init__(self, sock, until):
        self.sock = sock
        self.until = until

    def keep(self):
        """Begin with another piece; OSError: it is too late."""
        self.sock.settimeout(min(STALLED, seconds_until(self.until)))


class Body(io.BytesIO):
    """What is sent, piece by piece."""

    def __init__(self, content, pace):
        super().__init__(content)
        self.pace = pace

    def read(self, size=-1):
        """Return the next piece."""
        self.pace.keep()
        return super().read(size)
