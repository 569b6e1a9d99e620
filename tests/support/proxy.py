"""A proxy that stands between the client and the real service, and does what networks do.

    with FaultProxy(service.url, seed=1) as proxy:
        proxy.inject(dropped(), method="POST", path=r"^/jobs$", every=3)
        ProminenceExecutor(proxy.url, service.token)

It forwards HTTP/1.1 with keep-alive and streams bodies both ways. The service's signed URLs name the service's own
address; in JSON answers they are rewritten to the proxy's, so that uploads and downloads pass through it, too (their
signatures cover method, key and expiry only). It knows nothing of the executor and changes nothing unless a rule says
so; the faults are those of network_faults.py, which can be imported from here, too. It is made of the standard
library's two halves of HTTP, since the libraries for this frame every message for their user: none would send a
Content-Length that lies, or reset a connection in the middle of an answer.
"""

from __future__ import annotations

import itertools
import random
import re
import select
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException, HTTPResponse
from http.server import BaseHTTPRequestHandler
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

from network_faults import (
    ODD_PAUSES,
    ODD_SHAPES,
    Answer,
    Fault,
    away,
    bomb,
    corrupted,
    dripped,
    dropped,
    edited,
    endless,
    hang,
    held,
    html,
    late,
    misshapen,
    naming_twice,
    omitting,
    refused_token,
    relisted,
    reset_after,
    reset_before,
    rewritten,
    shortened,
    slow,
    status,
    told_to_wait,
    too_deep,
    truncated,
    unknown_status,
)

__all__ = [
    "Answer",
    "Exchange",
    "Fault",
    "FaultProxy",
    "ODD_PAUSES",
    "ODD_SHAPES",
    "Rule",
    "away",
    "bomb",
    "corrupted",
    "dripped",
    "dropped",
    "edited",
    "endless",
    "hang",
    "held",
    "html",
    "late",
    "misshapen",
    "naming_twice",
    "omitting",
    "refused_token",
    "relisted",
    "reset_after",
    "reset_before",
    "rewritten",
    "shortened",
    "slow",
    "status",
    "told_to_wait",
    "too_deep",
    "truncated",
    "unknown_status",
]

_PIECE = 1 << 16  # bytes that are held of a stream
_LOOK = 0.02  # seconds between two looks of the accepting thread at what it should do
_LINGER = struct.pack("ii", 1, 0)  # closing a socket with this resets the connection
_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length"}  # of this connection, not of the message


@dataclass(eq=False)
class Rule:
    """When a fault is injected: at requests of this method and path that the counters and dice choose."""

    fault: Fault
    method: str | None = None
    path: str | None = None  # searched in the path below the API's base, with the query; see `Exchange.target`
    every: int = 1  # the n-th, 2n-th, ... request that matches
    probability: float = 1.0
    times: int | None = None  # at most so often
    times_each: int | None = None  # at most so often for one path, whatever the query
    matched: int = 0
    injected: int = 0
    injected_at: Counter[str] = field(default_factory=Counter)  # by path, without the query

    def chooses(self, exchange: Exchange, dice: random.Random) -> bool:
        if self.method not in (None, exchange.method) or not re.search(self.path or "", exchange.target):
            return False
        self.matched += 1
        chosen = self.matched % self.every == 0 and (self.probability >= 1 or dice.random() < self.probability)
        if not chosen or (self.times is not None and self.injected >= self.times):
            return False
        place = exchange.target.partition("?")[0]
        if self.times_each is not None and self.injected_at[place] >= self.times_each:
            return False
        self.injected += 1
        self.injected_at[place] += 1
        return True


class FaultProxy:
    """Listens on a free port of 127.0.0.1 and forwards to one service, from ``with`` to its end.

    Rules are asked in the order in which they were made, and the first that chooses a request has it. Dice are thrown
    in the order in which requests come, so a seed repeats a run as far as threads and clocks do.
    """

    def __init__(self, target_url: str, *, seed: int = 0) -> None:
        parts = urlsplit(target_url)
        self._target = (parts.hostname or "", parts.port or 80)
        self.base = parts.path.rstrip("/")
        self.injected: Counter[str] = Counter()  # by the fault's name
        self.forwarded: Counter[str] = Counter()  # requests that the service answered, as "POST /jobs"
        self.bytes_sent = self.bytes_received = 0  # bodies only, by the client, of requests that were passed on
        self.errors: list[BaseException] = []  # of the proxy itself: there should be none
        self._dice = random.Random(seed)
        self._rules: list[Rule] = []
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._connections: dict[socket.socket, threading.Thread] = {}
        self._refuse_until = 0.0
        self._refusing = False
        self.stopped = threading.Event()
        self._listener = _bound(0)
        self._listener.listen(128)
        self._address: tuple[str, int] = self._listener.getsockname()
        self._thread = threading.Thread(target=self._accept, name="fault-proxy", daemon=True)

    @property
    def url(self) -> str:
        """The service's base URL as it is seen through the proxy."""
        return f"http://127.0.0.1:{self._address[1]}{self.base}"

    def __enter__(self) -> FaultProxy:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        if kind is None and self.errors:
            raise self.errors[0]

    def stop(self) -> None:
        """Cut all connections; returns when no socket and no thread is left."""
        self.stopped.set()
        self._thread.join()
        self._cut()
        for thread in list(self._connections.values()):
            thread.join()
        self._listener.close()

    # -- what goes wrong -------------------------------------------------------------------------------------------

    def inject(
        self,
        fault: Fault,
        *,
        method: str | None = None,
        path: str | None = None,
        every: int = 1,
        probability: float = 1.0,
        times: int | None = None,
        times_each: int | None = None,
    ) -> Rule:
        """Inject a fault from now on; returns the rule, which counts."""
        rule = Rule(fault, method, path, every, probability, times, times_each)
        with self._lock:
            self._rules.append(rule)
        return rule

    def heal(self, *rules: Rule) -> None:
        """Forget these rules, or all; listen again."""
        with self._changed:
            self._rules = [rule for rule in self._rules if rules and rule not in rules]
            self._refuse_until = 0.0
            self._changed.wait_for(lambda: not self._refusing or self.stopped.is_set())

    def refuse(self, seconds: float = 3600.0) -> None:
        """Reset all connections and refuse new ones for some seconds; returns when that has begun."""
        with self._changed:
            self._refuse_until = max(self._refuse_until, time.monotonic() + seconds)
            self._changed.wait_for(lambda: self._refusing or self.stopped.is_set())

    @contextmanager
    def refusing(self) -> Iterator[None]:
        """Refuse connections inside the block."""
        self.refuse()
        try:
            yield
        finally:
            with self._changed:
                self._refuse_until = 0.0
                self._changed.wait_for(lambda: not self._refusing or self.stopped.is_set())

    # -- what the exchanges ask ------------------------------------------------------------------------------------

    def choose(self, exchange: Exchange) -> Fault | None:
        with self._lock:
            for rule in self._rules:
                if rule.chooses(exchange, self._dice):
                    self.injected[rule.fault.name] += 1
                    return rule.fault
        return None

    def count(self, exchange: Exchange) -> None:
        kind = re.sub(r"/\d+", "/id", exchange.target.partition("?")[0])
        with self._lock:
            self.forwarded[f"{exchange.method} {kind}"] += 1

    def count_bytes(self, *, sent: int = 0, received: int = 0) -> None:
        with self._lock:
            self.bytes_sent += sent
            self.bytes_received += received

    def some_of(self, places: range, number: int) -> list[int]:
        with self._lock:
            return self._dice.sample(places, min(number, len(places)))

    def connect(self) -> HTTPConnection:
        return HTTPConnection(*self._target)

    def ours(self, body: bytes) -> bytes:
        """JSON in which the service's address is the proxy's."""
        host, port = self._target
        return body.replace(f"//{host}:{port}/".encode(), f"//127.0.0.1:{self._address[1]}/".encode())

    # -- the accepting thread --------------------------------------------------------------------------------------

    def _accept(self) -> None:
        numbers = itertools.count(1)
        while not self.stopped.is_set():
            self._listen_or_refuse()
            if self._refusing:
                self.stopped.wait(_LOOK)
            elif select.select([self._listener], [], [], _LOOK)[0]:
                connection, address = self._listener.accept()
                thread = threading.Thread(
                    target=self._serve, args=(connection, address), name=f"fault-proxy-{next(numbers)}", daemon=True
                )
                with self._lock:
                    self._connections[connection] = thread
                thread.start()
        with self._changed:
            self._changed.notify_all()

    def _listen_or_refuse(self) -> None:
        """A port that is bound and not listened at refuses, and nobody else can take it meanwhile."""
        wanted = time.monotonic() < self._refuse_until
        if wanted == self._refusing:
            return
        if wanted:
            # A child that is being started holds a copy for a moment: closing alone would leave the port taken.
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = _bound(self._address[1])
            self._cut()
        else:
            self._listener.listen(128)
        with self._changed:
            self._refusing = wanted
            self._changed.notify_all()

    def _cut(self) -> None:
        with self._lock:
            connections = list(self._connections)
        for connection in connections:
            with suppress(OSError):  # closed meanwhile
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER)
                connection.shutdown(socket.SHUT_RDWR)  # its thread wakes and closes it

    def _serve(self, connection: socket.socket, address: tuple[str, int]) -> None:
        try:
            Exchange(connection, address, self)
        except (OSError, HTTPException):
            pass  # one of the two peers has left
        except BaseException as error:  # noqa: BLE001  a fault that fails must fail the test
            self.errors.append(error)
        finally:
            connection.close()
            with self._lock:
                self._connections.pop(connection, None)


class Exchange(BaseHTTPRequestHandler):
    """The requests of one connection, one after the other; what faults act upon."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def __init__(self, connection: socket.socket, address: tuple[str, int], proxy: FaultProxy) -> None:
        self.proxy = proxy
        self._body: bytes | None = None
        self._gone = False  # the client's connection
        super().__init__(connection, address, proxy)  # type: ignore[arg-type]  # it only keeps what stands for the server

    @property
    def method(self) -> str:
        return self.command

    @property
    def target(self) -> str:
        """Path and query, below the base of the API; those of the object store as they are."""
        return self.path.removeprefix(self.proxy.base)

    def read(self) -> bytes:
        """The whole body of the request."""
        if self._body is None:
            self._body = b"".join(self._pieces())
        return self._body

    def forward(self) -> Answer:
        """Have the request carried out, and hold the whole answer."""
        body = self.read()
        with self._carried_out([body] if body else []) as response:
            return self._whole(response)

    def answer(self, answer: Answer, announced: int | None = None) -> None:
        """Send an answer, announcing its length or another."""
        self._head(answer.status, answer.headers, len(answer.body) if announced is None else announced)
        self.write(answer.body)

    def answer_without_end(self, answer: Answer) -> None:
        """Send an answer in chunks, again and again; returns when the client has seen enough."""
        self._head(answer.status, answer.headers, None)
        piece = answer.body or b" "
        piece *= 1 + _PIECE // len(piece)
        while self.pause(0):
            self.write(b"%x\r\n%s\r\n" % (len(piece), piece))

    def write(self, data: bytes) -> None:
        if data:
            self.wfile.write(data)
            self.proxy.count_bytes(received=len(data))

    def reset(self) -> None:
        """Reset the connection now."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER)
        self.close()

    def close(self) -> None:
        """End the connection now, reset if there is something unread."""
        self._gone = self.close_connection = True
        self.rfile.close()
        self.connection.close()

    def pause(self, seconds: float | None) -> bool:
        """Wait; False when the proxy stops."""
        return not self.proxy.stopped.wait(seconds)

    def some_of(self, places: range, number: int) -> list[int]:
        return self.proxy.some_of(places, number)

    # -- the parts -------------------------------------------------------------------------------------------------

    def _exchange(self) -> None:
        self._body = None
        fault = self.proxy.choose(self)
        try:
            if fault is not None:
                fault.act(self)
            else:
                self._pass_on()
        except (OSError, HTTPException):
            self.close_connection = True  # one of the two peers has left in the middle
            if not self._gone:
                self.reset()

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = _exchange  # the names that the base class looks for

    def finish(self) -> None:
        if not self._gone:
            with suppress(OSError):
                super().finish()

    def log_message(self, format: str, *args: Any) -> None:  # the base class's name
        """Counters are enough."""

    def _pass_on(self) -> None:
        with self._carried_out(self._pieces()) as response:
            if response.headers.get_content_type() == "application/json":
                self.answer(self._whole(response))
                return
            self._head(response.status, response.getheaders(), response.length)
            chunked = response.length is None
            while piece := response.read(_PIECE):
                self.write(b"%x\r\n%s\r\n" % (len(piece), piece) if chunked else piece)
            if chunked:
                self.write(b"0\r\n\r\n")

    @contextmanager
    def _carried_out(self, body: Iterable[bytes]) -> Iterator[HTTPResponse]:
        """Send the request to the service on a connection of its own, so that none is stale after a restart."""
        chunked = "chunked" in self.headers.get("Transfer-Encoding", "") and self._body is None
        headers = {name: value for name, value in self.headers.items() if name.lower() not in _HOP}
        if chunked:
            headers["Transfer-Encoding"] = "chunked"
        elif self._body is not None:
            headers["Content-Length"] = str(len(self._body))
        elif "Content-Length" in self.headers:
            headers["Content-Length"] = self.headers["Content-Length"]
        connection = self.proxy.connect()
        try:
            connection.request(
                self.command,
                self.path,
                body=body,
                headers={**headers, "Connection": "close"},
                encode_chunked=chunked,
            )
            with connection.getresponse() as response:
                self.proxy.count(self)
                yield response
        finally:
            connection.close()

    def _whole(self, response: HTTPResponse) -> Answer:
        headers = [(name, value) for name, value in response.getheaders() if name.lower() not in _HOP]
        body = response.read()
        if response.headers.get_content_type() == "application/json":
            body = self.proxy.ours(body)
        return Answer(response.status, headers, body)

    def _head(self, code: int, headers: Iterable[tuple[str, str]], length: int | None) -> None:
        self.send_response_only(code)
        for name, value in headers:
            if name.lower() not in _HOP:
                self.send_header(name, value)
        if length is None:
            self.send_header("Transfer-Encoding", "chunked")
        elif code != 204:
            self.send_header("Content-Length", str(length))
        self.end_headers()

    def _pieces(self) -> Iterator[bytes]:
        """The request's body as it comes."""
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            while size := int(self.rfile.readline().partition(b";")[0], 16):
                self.proxy.count_bytes(sent=size)
                yield self.rfile.read(size)
                self.rfile.readline()
            while self.rfile.readline().strip():
                pass
            return
        left = int(self.headers.get("Content-Length") or 0)
        while left:
            piece = self.rfile.read(min(left, _PIECE))
            if not piece:
                raise ConnectionResetError("the client left in the middle of its request")
            left -= len(piece)
            self.proxy.count_bytes(sent=len(piece))
            yield piece


def _bound(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    return listener
