"""Objects that many calls use: pickled once, uploaded once, named by their content, fetched by each job that needs one.

`Objects` is a run's; it makes `Scattered` handles, which travel in place of their values, and uploads what the service
does not have yet. The names begin with `PREFIX`, so that `purge` can tell them. An object stays at the service beyond
its run, for the next one to use; only `purge` removes it.
"""

from __future__ import annotations

import threading
import time
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from .payload import Blob, Pickled, Scattered, dumps

if TYPE_CHECKING:
    from .client import ProminenceClient

PREFIX = "px-"
PREFIXES = (PREFIX, "pxarray-", "pxcalls-", "pxmods-")  # of everything that executors upload
LARGE = 1 << 20  # bytes from which on an argument that several calls share is worth an object: a second per job


class Objects:
    """The objects of one run. Its methods may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._uploading: dict[str, threading.Lock] = {}
        self._stored: dict[str, int] | None = None  # size by name of what the service has; None: not asked yet
        self._contents: dict[str, Blob] = {}  # of those that have not been uploaded

    def __bool__(self) -> bool:
        return bool(self._uploading)

    def scatter(self, value: Any) -> Scattered:
        """Pickle a value and make a handle of it; nothing is sent."""
        return self.add(dumps(value))

    def add(self, pickled: Pickled) -> Scattered:
        """Make a handle of a pickle."""
        digest = pickled.blob.sha256()
        handle = Scattered(f"{PREFIX}{digest[:40]}", digest, pickled.blob.size, pickled.modules, pickled.code)
        with self._lock:
            if handle.name not in self._uploading:
                self._uploading[handle.name] = threading.Lock()
                self._contents[handle.name] = pickled.blob
        return handle

    def ensure(self, client: ProminenceClient, handle: Scattered) -> None:
        """Upload an object unless the service has it; blocks for that."""
        with self._lock:
            if self._stored is None:
                self._stored = {item["name"]: item["size"] for item in client.list_data()}
            stored, lock = self._stored, self._uploading[handle.name]
        with lock:
            if stored.get(handle.name) != handle.size:
                blob = self._contents[handle.name]
                client.upload(handle.name, blob, size=blob.size)
                stored[handle.name] = handle.size
            self._contents.pop(handle.name, None)


def purge(client: ProminenceClient, older_than: float) -> list[str]:
    """Delete what executors have uploaded, where it is older than so many seconds and no active job uses it.

    Returns the names of what was deleted.
    """
    used = set()
    for jobs in (client.list_jobs(detail=True), *(item["jobs"] for item in client.list_workflows(detail=True))):
        used |= {artifact["url"] for job in jobs for artifact in job.get("artifacts") or ()}
    before = time.time() - older_than
    names = [
        item["name"]
        for item in client.list_data()
        if item["name"].startswith(PREFIXES)
        and item["name"] not in used
        and parsedate_to_datetime(item["lastModified"]).timestamp() < before
    ]
    for name in names:
        client.delete_data(name)
    return names
