"""`Places`: where large messages between a run and its warm workers lie in the object store.

A courier's job has left them (courier.py): they are read by address, and overwritten with its token. A place belongs to
one batch at a time, for what goes to the worker or for what comes back. Any thread may use them; a lock guards what is
known, and is not held across requests. What cannot be stored goes another way, which is the callers' business.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Collection, Iterable
from contextlib import suppress
from typing import Any

from ...client.client import ProminenceClient
from ...client.responses import read_nothing
from ...client.transfers import Stream, transferring
from ...errors import ProminenceError, SignatureError
from ...remote.courier import unseal
from ...remote.depot import FRESH
from ...run.context import RunContext
from ...run.keys import key_in

PLACE = "pxplace"
"""What the names of places begin with."""
LONGEST_MESSAGE = 1 << 16  # bytes of a courier's
_READ_FRESH = 2 * 86400.0  # seconds for which an address to read from is used; the service's are good for a week
_TRIES, _AGAIN = 3, 0.5  # times that something is stored, and seconds between two
_PAUSE = (60.0, 3600.0)  # seconds without places after they have failed, doubled each time


class _Courier:
    """The places of one courier; guarded by the lock of `Places`."""

    def __init__(self, job_id: int, message: str, writer: ProminenceClient, addresses: dict[str, str]) -> None:
        self.job_id = job_id
        self.message = message  # with its token, sealed
        self.writer = writer  # speaks with that token
        self.sources = addresses  # to read from, by name
        self.sources_at = time.monotonic()  # when they were given
        self.targets: dict[str, tuple[str, float]] = {}  # to write to, likewise, with the time of each
        names = sorted(addresses)
        self.free = names[:0:-1]  # all but the first one, which holds the message
        self.used = {names[0]}  # in which there may be something


class Places:
    """The places of one run."""

    def __init__(self, context: RunContext) -> None:
        self._context = context
        self._lock = threading.Lock()  # guards all below
        self._couriers: list[_Courier] = []  # of the run, the last one last
        self._present: _Courier | None = None
        self._failures = 0  # in a row
        self._closed_until = 0.0  # time.monotonic()

    # -- which there are -------------------------------------------------------------------------------------------

    @property
    def ready(self) -> bool:
        """Whether there are places now."""
        return self._present is not None

    @property
    def usable(self) -> bool:
        """Whether there are places, or may be soon."""
        return self._present is not None or time.monotonic() >= self._closed_until

    @property
    def courier(self) -> tuple[str, str]:
        """A name for the last courier, and its message, with which workers write to its places."""
        with self._lock:
            return f"courier {self._couriers[-1].job_id}", self._couriers[-1].message

    def open(self, job_id: int, message: str, addresses: dict[str, str]) -> None:
        """Use the places of a courier's job. ValueError: its message is not signed with the run's key."""
        writer = _writer(self._context.client, message, self._context.key)
        with self._lock:
            self._present = _Courier(job_id, message, writer, addresses)
            self._couriers.append(self._present)

    def fail(self, error: BaseException | str, names: Collection[str | None] | None = None) -> None:
        """Do without places for a while.

        Args:
            names: of places that have failed: of several at once only the first one counts, and none of a courier
                that is not the present one. None: there have come to be none.
        """
        with self._lock:
            if names is not None and not self._has_any(names):
                return
            self._present = None
            self._closed_until = time.monotonic() + min(_PAUSE[0] * 2**self._failures, _PAUSE[1])
            self._failures += 1
        text = "run %s: large messages go without the object store for a while: %s"
        self._context.log.info(text, self._context.run_id, error)

    def _has_any(self, names: Iterable[str | None]) -> bool:
        """Return whether any of these places is the present courier's; within the lock."""
        return self._present is not None and any(name in self._present.sources for name in names)

    def take(self) -> str | None:
        """Return a place that is nobody's; None when there is none."""
        with self._lock:
            if self._present is None or not self._present.free:
                return None
            name = self._present.free.pop()
            self._present.used.add(name)
            return name

    def release(self, names: Iterable[str | None]) -> None:
        """Give places back; those of a courier that is not the present one are let go of."""
        with self._lock:
            if self._present is not None:
                free, known = self._present.free, self._present.sources
                free += [name for name in names if name in known and name not in free]

    # -- what lies there; these block ------------------------------------------------------------------------------

    def put(self, name: str, content: bytes) -> dict[str, Any]:
        """Store content in a place; return what a worker needs to fetch it. ProminenceError: it cannot be."""
        try:
            for left in reversed(range(_TRIES)):
                try:
                    _store(self._context.client, self._target(name), content)
                    break
                except ProminenceError:
                    self._of(name).targets.pop(name, None)  # it may have expired while the machine was asleep
                    if not left or self._context.stopping.wait(_AGAIN):
                        raise
            with self._lock:
                self._failures = 0 if self._has_any([name]) else self._failures
            return {"url": self._source(name), "size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        except ProminenceError as error:
            self.fail(error, [name])
            raise

    def fetch(self, stored: dict[str, Any]) -> bytes:
        """Return what a worker has stored in a place.

        Raises:
            SignatureError: it is not what the worker has described.
            ProminenceError: it did not come.
        """
        try:
            content = self._context.client.download(self._source(stored["name"]), limit=int(stored["size"]))
            if hashlib.sha256(content).hexdigest() != stored["sha256"]:
                raise SignatureError("what lies in the object store is not what a worker has put there")
            return content
        except ProminenceError as error:
            self.fail(error, [stored["name"]])
            raise

    def _of(self, name: str) -> _Courier:
        with self._lock:
            for courier in reversed(self._couriers):
                if name in courier.sources:
                    return courier
        raise ProminenceError(f"there is no place {name!r} in the object store")

    def _target(self, name: str) -> str:
        """Return where to write to a place."""
        courier = self._of(name)
        url, since = courier.targets.get(name, ("", 0.0))
        if not url or time.monotonic() > since + FRESH:
            since = time.monotonic()
            url = courier.writer.job_output_url(name)
            with self._lock:
                courier.targets[name] = url, since
        return url

    def _source(self, name: str) -> str:
        """Return where to read a place."""
        courier = self._of(name)
        if time.monotonic() > courier.sources_at + _READ_FRESH:
            addresses = addresses_in(self._context.client.describe_job(courier.job_id))
            with self._lock:
                courier.sources.update(addresses)
                courier.sources_at = time.monotonic()
        return courier.sources[name]

    def clean(self) -> None:
        """Empty the places that were used; nobody uses them any more."""
        for courier in self._couriers:
            _empty(courier.writer, courier.used)


def addresses_in(job: dict[str, Any]) -> dict[str, str]:
    """Find the places in a description of a courier's job: addresses by name."""
    files = [file for file in job.get("outputFiles") or () if str(file.get("name")).startswith(PLACE)]
    return {file["name"]: file["url"] for file in files if file.get("url")}


def empty_places(client: ProminenceClient, run_id: str, job_id: int) -> None:
    """Empty what the courier of a run has left whose program is no more; nothing happens where that was done before.

    It blocks; what cannot be emptied is left: the object store keeps it as it keeps outputs of jobs.
    """
    with suppress(ProminenceError, ValueError):
        job = client.describe_job(job_id)
        key, addresses = key_in(job, run_id), addresses_in(job)
        if key is None or not addresses:
            return
        message = client.download(addresses[min(addresses)], limit=LONGEST_MESSAGE).decode("ascii")
        if message:
            _empty(_writer(client, message, key), addresses)


def _writer(client: ProminenceClient, message: str, key: bytes) -> ProminenceClient:
    """Make the client that speaks with a courier's token. ValueError: its message is not signed with this key."""
    writer = ProminenceClient(client.url, unseal(message, key), timeout=client.api.timeout, verify=client.api.verify)
    if client.api.known is not None:
        writer.api.known_by(client.api.known)
    return writer


def _store(client: ProminenceClient, url: str, content: bytes) -> None:
    with transferring():
        data = Stream(content, None) if content else b""
        read_nothing(client.api.call_store("PUT", url, data, {"x-ms-blob-type": "BlockBlob"}))


def _empty(writer: ProminenceClient, names: Iterable[str]) -> None:
    """Empty places, that with the token last, as far as the service answers; close the client."""
    with suppress(ProminenceError):
        for name in sorted(names, reverse=True):
            _store(writer, writer.job_output_url(name), b"")
    writer.close()
