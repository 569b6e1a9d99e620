"""`Watch`: what of something a caller has seen, so that the service can answer when there is more to see.

A service that lets requests wait says so in its answer, and from which change on the next one is to wait; the real one
ignores that it is asked to, and answers at once. It makes no requests itself.
"""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from ..public import public

_present = threading.local()  # the watch of the request that this thread makes


@public
class Watch:
    """How far somebody has seen a value, a list of keys, or a list of jobs; one request at a time goes on from there.

    Only `interrupt` may be called from another thread than the one that makes the requests.

    Attributes:
        revision: the last change that was seen; None before the first answer, or when the service does not count them.
        waits: whether the last answer came from a service that lets requests wait.
    """

    def __init__(self) -> None:
        self.revision: int | None = None
        self.waits = False
        self._lock = threading.Lock()  # of what follows
        self._waiting = False  # the present request, or the last one, was to wait
        self._interrupted = False
        self._is_cut = False
        self._socket: socket.socket | None = None

    def interrupt(self) -> None:
        """Have the present request end at once if it waits, which fails then; or else the next one not wait."""
        with self._lock:
            self._interrupted = True
            if self._socket is not None and self._waiting:
                _cut(self._socket)


def preference(watch: Watch, seconds: float) -> dict[str, str]:
    """Return what a request says that wants to wait for so many seconds."""
    with watch._lock:
        interrupted, watch._interrupted = watch._interrupted, False
        wait = 0 if interrupted else max(0, int(seconds))
        watch._waiting = wait > 0
    return {"Prefer": f"wait={wait}"}


def seen(watch: Watch) -> dict[str, str]:
    """Return what the query of a request says of what has been seen."""
    return {} if watch.revision is None else {"since": str(watch.revision)}


def take(watch: Watch, headers: Mapping[str, str]) -> None:
    """Note what an answer says, also one that is an error."""
    applied = headers.get("Preference-Applied", "")
    watch.waits = any(part.partition("=")[0].strip().lower() == "wait" for part in applied.split(","))
    revision = headers.get("X-Revision", "")
    watch.revision = int(revision) if watch.waits and re.fullmatch("[0-9]{1,18}", revision) else None


@contextmanager
def asking(watch: Watch) -> Iterator[None]:
    """Within this, the thread makes a request that the watch's `interrupt` ends."""
    _present.watch = watch
    try:
        yield
    finally:
        _present.watch = None


class Cuts:
    """The requests of a session that are on their way; any thread may cut them all. A lock guards it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._under_way: set[Watch] = set()

    @contextmanager
    def reaching(self, watch: Watch | None) -> Iterator[None]:
        """Within this, the thread makes a request that `cut` ends; so does the watch's `interrupt`, if it has one."""
        watch = watch or Watch()
        with self._lock:
            self._under_way.add(watch)
        try:
            with asking(watch):
                yield
        finally:
            with self._lock:
                self._under_way.discard(watch)

    def cut(self) -> None:
        """Have all requests fail that wait for an answer."""
        with self._lock:
            watches = list(self._under_way)
        for watch in watches:
            with watch._lock:
                watch._is_cut = True
                if watch._socket is not None:
                    _cut(watch._socket)


def interruptible(connection: Any, get: Callable[[], Any]) -> Any:
    """Get an answer from an HTTP connection; it is cut if the thread asks for a watch that is interrupted."""
    watch: Watch | None = getattr(_present, "watch", None)
    found = getattr(connection, "sock", None)
    if watch is None or found is None:
        return get()
    with watch._lock:
        watch._socket = found
        if watch._is_cut or (watch._interrupted and watch._waiting):
            _cut(found)
    try:
        return get()
    finally:
        with watch._lock:
            watch._socket = None
            watch._interrupted = watch._interrupted and not watch._waiting


def _cut(connection: socket.socket) -> None:
    """End a connection beneath a thread that reads from it, which finds the end there; TLS is not asked."""
    with suppress(OSError, TypeError):  # it is closed already, or none of the system's (TLS in TLS): it ends in time
        socket.socket.shutdown(connection, socket.SHUT_RDWR)
