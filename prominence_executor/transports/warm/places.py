"""`Places`: where large messages between a run and its warm workers lie in the object store.

A courier's job has left them (courier.py): they are read by address, and overwritten with its token. A place belongs to
one batch at a time, for what goes to the worker or for what comes back. Any thread may use it; a lock guards it, which
is not held across requests. What cannot be stored goes another way, which is the callers' business.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from ...client.client import ProminenceClient
from ...client.responses import read_nothing
from ...client.transfers import transferring
from ...errors import ProminenceError, SignatureError
from ...remote.courier import unseal
from ...run.context import RunContext

_WRITE_FRESH = (
    240.0  # seconds for which an address to write to is used; the service's are good for ten minutes at least
)
_READ_FRESH = 2 * 86400.0  # likewise of those to read from, which are good for a week
_PAUSE = (60.0, 3600.0)  # seconds without places after they have failed, doubled each time


class Places:
    """The places of one run."""

    def __init__(self, context: RunContext) -> None:
        self._context = context
        self._lock = threading.Lock()  # guards all below
        self._writer: ProminenceClient | None = None  # speaks with the courier's token
        self._job_id = 0
        self._message = ""  # with that token, sealed
        self._read: dict[str, str] = {}  # addresses by name
        self._read_at = 0.0  # time.monotonic() when they were given
        self._write: dict[str, tuple[str, float]] = {}
        self._free: list[str] = []
        self._written: set[str] = set()
        self._failures = 0
        self._closed_until = 0.0  # time.monotonic()

    # -- which there are -------------------------------------------------------------------------------------------

    @property
    def ready(self) -> bool:
        """Whether there are places now."""
        with self._lock:
            return self._writer is not None

    @property
    def usable(self) -> bool:
        """Whether there are places, or may be soon."""
        with self._lock:
            return self._writer is not None or time.monotonic() >= self._closed_until

    @property
    def courier(self) -> tuple[str, str]:
        """A name for the present courier, and its message, with which workers write to its places."""
        with self._lock:
            return f"courier {self._job_id}", self._message

    def open(self, job_id: int, message: str, addresses: dict[str, str]) -> None:
        """Use the places of a courier's job. ValueError: its message is not signed with the run's key."""
        client = self._context.client
        writer = ProminenceClient(
            client.url, unseal(message, self._context.key), timeout=client.api.timeout, verify=client.api.verify
        )
        with self._lock:
            self._writer, self._job_id, self._message = writer, job_id, message
            self._read, self._read_at, self._write = addresses, time.monotonic(), {}
            self._free = sorted(addresses, reverse=True)

    def fail(self, error: BaseException | str) -> None:
        """Do without places for a while."""
        with self._lock:
            writer, self._writer, self._free = self._writer, None, []
            self._closed_until = time.monotonic() + min(_PAUSE[0] * 2**self._failures, _PAUSE[1])
            self._failures += 1
        if writer is not None:
            writer.close()
        text = "run %s: large messages go without the object store for a while: %s"
        self._context.log.info(text, self._context.run_id, error)

    def take(self) -> str | None:
        """Return a place that is nobody's; None when there is none."""
        with self._lock:
            return self._free.pop() if self._free else None

    def release(self, names: Iterable[str | None]) -> None:
        """Give places back."""
        with self._lock:
            self._free += [name for name in names if name in self._read and name not in self._free]

    # -- what lies there; these block ------------------------------------------------------------------------------

    def put(self, name: str, content: bytes) -> dict[str, Any]:
        """Store content in a place; return what a worker needs to fetch it. ProminenceError: it cannot be."""
        try:
            api = self._context.client.api
            url = self._address(name)

            def once() -> None:
                with transferring():
                    read_nothing(api.call_store("PUT", url, content, {"x-ms-blob-type": "BlockBlob"}))

            api.retry(once, True)
            with self._lock:
                self._failures = 0
            return {"url": self._source(name), "size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        except ProminenceError as error:
            self.fail(error)
            raise

    def fetch(self, stored: dict[str, Any]) -> bytes:
        """Return what a worker has stored in a place.

        Raises:
            SignatureError: it is not what the worker has described.
            ProminenceError: it did not come.
        """
        content = self._context.client.download(self._source(stored["name"]), limit=int(stored["size"]))
        with self._lock:
            self._written.add(stored["name"])
        if hashlib.sha256(content).hexdigest() != stored["sha256"]:
            raise SignatureError("what lies in the object store is not what a worker has put there")
        return content

    def _address(self, name: str) -> str:
        with self._lock:
            writer = self._writer
            self._written.add(name)
            url, since = self._write.get(name, ("", 0.0))
        if writer is None:
            raise ProminenceError("there are no places in the object store now")
        if not url or time.monotonic() > since + _WRITE_FRESH:
            since = time.monotonic()
            url = writer.job_output_url(name)
            with self._lock:
                self._write[name] = url, since
        return url

    def _source(self, name: str) -> str:
        with self._lock:
            job_id, old = self._job_id, time.monotonic() > self._read_at + _READ_FRESH
            url = self._read.get(name)
        if old:
            addresses = addresses_in(self._context.client.describe_job(job_id))
            url = addresses.get(name)
            with self._lock:
                if job_id == self._job_id:
                    self._read, self._read_at = addresses, time.monotonic()
        if not url:
            raise ProminenceError(f"there is no place {name!r} in the object store")
        return url

    def clean(self) -> None:
        """Empty the places that were used; nobody uses them any more."""
        with self._lock:
            names, writer = self._written, self._writer
        if writer is None:
            return
        for name in sorted(names):
            with suppress(ProminenceError), transferring():  # what is left there has no name that anybody knows
                read_nothing(self._context.client.api.call_store("PUT", self._address(name), b""))
        writer.close()


def addresses_in(job: dict[str, Any]) -> dict[str, str]:
    """Find the places in a description of a courier's job: addresses by name."""
    files = [file for file in job.get("outputFiles") or () if str(file.get("name")).startswith(PLACE)]
    return {file["name"]: file["url"] for file in files if file.get("url")}


PLACE = "pxplace"
"""What the names of places begin with."""
