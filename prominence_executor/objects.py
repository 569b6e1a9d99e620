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
LARGE = 1 << 20  # bytes from which on an argument that several calls share is worth an object: a second per job


class Objects:
    """The objects of one run. Its methods may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._uploading: dict[str, threading.Lock] = {}
        self._present: set[str] | None = None  # names of those that the service has; None: not asked yet
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
            if self._present is None:
                stored = {item["name"]: item["size"] for item in client.list_data()}
                self._present = {name for name, blob in self._contents.items() if stored.get(name) == blob.size}
            lock = self._uploading[handle.name]
        with lock:
            if handle.name not in self._present:
                blob = self._contents[handle.name]
                client.upload(handle.name, blob, size=blob.size)
                self._present.add(handle.name)


def purge(client: ProminenceClient, older_than: float) -> list[str]:
    """Delete the executor's objects that are older than so many seconds and that no active job uses; returns their names."""
    used = set()
    for listed in (client.list_jobs(detail=True), *(item["jobs"] for item in client.list_workflows(detail=True))):
        used |= {artifact["url"] for job in listed for artifact in job.get("artifacts") or ()}
    names = [
        item["name"]
        for item in client.list_data()
        if item["name"].startswith(("px-", "pxarray-", "pxcalls-", "pxmods-")) and item["name"] not in used
        and parsedate_to_datetime(item["lastModified"]).timestamp() < time.time() - older_than
    ]
    for name in names:
        client.delete_data(name)
    return names
