"""What jobs and workflows have in common: they are created at the service, looked at until they have ended, or deleted.

It knows neither's description, only by which verbs of the client each is handled. Nothing here runs in the background:
each call asks the service when it is called.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from ..errors import InvalidRequestError
from ..shown import facts
from .client import ProminenceClient
from .status import has_ended, is_held
from .validation import wrong

__all__ = ["Submitted", "Verbs", "default_client", "known_id", "last_seen", "poll_interval", "remember"]

_FRESH = 1.0  # seconds for which ``status`` repeats what it said last
_jitter = random.SystemRandom()  # it has no state: neither the program's own, nor one that a fork would copy


@dataclass(frozen=True)
class Verbs:
    """The client's verbs for one kind of thing."""

    create: Callable[[ProminenceClient, Mapping[str, Any]], int]
    describe: Callable[[ProminenceClient, int], dict[str, Any]]
    delete: Callable[[ProminenceClient, int], None]
    active: Callable[[ProminenceClient], list[dict[str, Any]]]  # those of the user that have not ended


class Submitted:
    """What is sent to the service by ``create()`` and ends there some time: a job or a workflow."""

    name: str | None

    def __init__(self, id: int | None, client: ProminenceClient | None, verbs: Verbs) -> None:
        self._id = id
        self._given_client = client
        self._verbs = verbs
        self._seen: dict[str, Any] = {}
        self._seen_at = float("-inf")
        self._left = False  # it is not active any more, though its status does not say so

    @property
    def id(self) -> int | None:
        """The service's number; None before ``create()``."""
        return self._id

    @property
    def client(self) -> ProminenceClient:
        """The client that it was given, or else the one that the environment describes."""
        if self._given_client is None:
            self._given_client = default_client()
        return self._given_client

    def json(self) -> dict[str, Any]:
        """Return the JSON that creates it, checked as a whole; nothing is sent."""
        raise NotImplementedError

    def to_dict(self) -> dict[str, Any]:
        """Return what ``json()`` returns; it is upstream's name."""
        return self.json()

    def create(self) -> None:
        """Send it to the service, once; from then on it has an id. Blocks until the service has answered.

        Raises:
            ValueError: see ``json()``; nothing was sent.
            ServiceUnavailableError: no answer. If its ``may_have_arrived`` is True, it may have come to be all the
                same: look for it by name or label before trying again.
        """
        if self._id is not None:
            raise InvalidRequestError(f"this {type(self).__name__} was created already: it is number {self._id}")
        self._id = self._verbs.create(self.client, self.json())

    def wait(self, timeout: float = 0) -> None:
        """Block until it has ended, or ``timeout`` seconds are over: then ``done()`` is still False.

        0 waits forever. Asks often at first and then less and less often, but at least every 30 s.

        Raises:
            ValueError: ``timeout`` is negative.
            ServiceUnavailableError: the service has not answered for the client's ``retry_for`` seconds.
        """
        if timeout < 0:
            raise wrong("timeout", "0 (forever) or a number of seconds", timeout)
        began = time.monotonic()
        while True:
            self.refresh()
            elapsed = time.monotonic() - began
            if self.done() or 0 < timeout <= elapsed:
                return
            pause = poll_interval(elapsed)
            time.sleep(min(pause, timeout - elapsed) if timeout else pause)

    def done(self) -> bool:
        """Tell whether it has ended, in whatever way. Does not ask when it was asked within the last second.

        One that the service holds, with the status ``failed``, has not: it may be released, and run.
        """
        return self.status is not None and self._is_over()

    @property
    def status(self) -> str | None:
        """The service's word (idle, running, completed, ...); at most a second old. None before ``create()``."""
        if self._id is None:
            return None
        if not self._is_over() and time.monotonic() - self._seen_at >= _FRESH:
            self.refresh()
        status: str | None = self._seen.get("status")
        return status

    @property
    def status_reason(self) -> str | None:
        """The service's explanation of the status, if it has one."""
        reason: str | None = last_seen(self, "statusReason")
        return reason

    @property
    def events(self) -> dict[str, int]:
        """``createTime``, ``startTime``, ``endTime`` in seconds since the epoch, as far as they have happened."""
        return dict(last_seen(self, "events", {}))

    def refresh(self) -> None:
        """Ask the service for the status now.

        Raises:
            NotFoundError: there is no such thing, or it is somebody else's.
        """
        number = known_id(self)
        remember(self, self._verbs.describe(self.client, number))
        if is_held(self._seen) and all(item["id"] != number for item in self._verbs.active(self.client)):
            # It may have been released, and have ended, in between.
            remember(self, self._verbs.describe(self.client, number))
            self._left = is_held(self._seen)

    def _is_over(self) -> bool:
        """Return whether it had ended when it was last asked."""
        return self._left or has_ended(self._seen)

    def delete(self) -> None:
        """End it at the service; a workflow with all of its jobs.

        Raises:
            NotFoundError: it has ended already.
        """
        self._verbs.delete(self.client, known_id(self))
        self._seen_at = float("-inf")

    def __repr__(self) -> str:
        number = "not created" if self._id is None else str(self._id)
        name = repr(self.name) if self.name else None
        return f"<{' '.join(filter(None, [type(self).__name__, number, name, self._seen.get('status')]))}>"

    def _repr_html_(self) -> str:
        return facts(
            f"{type(self).__name__} {self._id if self._id is not None else '(not created)'}", self._facts(self._seen)
        )

    def _facts(self, seen: Mapping[str, Any]) -> list[tuple[str, object]]:
        """Return what a notebook shows; ``seen``: what the service has said, which is not asked now."""
        events = seen.get("events") or {}
        times = [
            (word, time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(events[name])))
            for word, name in (("created", "createTime"), ("started", "startTime"), ("ended", "endTime"))
            if events.get(name) is not None
        ]
        return [("name", self.name), ("status", seen.get("status")), ("reason", seen.get("statusReason")), *times]

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"a {type(self).__name__} cannot be pickled: it belongs to a client; pass its id")


def known_id(submitted: Submitted) -> int:
    """Return its id, or raise InvalidRequestError when it was not created yet."""
    if submitted.id is None:
        raise InvalidRequestError(f"this {type(submitted).__name__} has no id yet: create() it first")
    return submitted.id


def last_seen(submitted: Submitted, key: str, default: Any = None) -> Any:
    """Return a field of what the service says of it, as fresh as its status; the default before ``create()``."""
    value = submitted._seen.get(key) if submitted.status else None
    return default if value is None else value


def remember(submitted: Submitted, description: Mapping[str, Any]) -> None:
    """Keep what the service has just said of it."""
    submitted._seen, submitted._seen_at, submitted._left = dict(description), time.monotonic(), False
    if submitted.name is None:
        submitted.name = description.get("name") or None


_clients: dict[tuple[object, ...], ProminenceClient] = {}
_clients_lock = threading.Lock()


def default_client() -> ProminenceClient:
    """Return the client that the environment describes: one for all jobs, made when the first of them needs it."""
    values = [os.environ.get(f"PROMINENCE_{name}") for name in ("URL", "TOKEN", "SSL_VERIFY", "PROFILE", "CONFIG")]
    key = (values[0], hash(values[1]), *values[2:])
    with _clients_lock:
        if key not in _clients or _clients[key].api.closed:
            _clients[key] = ProminenceClient()
        return _clients[key]


def poll_interval(elapsed: float) -> float:
    """Return the seconds to wait before asking again after so many: a tenth of them, from 0.2 up to 30, and jitter."""
    return min(30.0, max(0.2, elapsed / 10)) * _jitter.uniform(0.8, 1.0)
