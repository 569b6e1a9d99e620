"""`UploadCache`: which objects the service has, so that each is uploaded once, whatever threads need it.

It makes one request of its own, the list of what is there, when it is first asked; uploading is its callers' business.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from ..client.client import ProminenceClient


class UploadCache:
    """The stored objects of a user, by name and size, as far as one run knows.

    Any thread may use it; a lock guards it, which is not held while something is uploaded.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._listing = threading.Lock()
        self._sizes: dict[str, int] | None = None  # None: the service has not been asked yet
        self._uploading: dict[str, threading.Lock] = {}

    def knows(self, name: str) -> bool:
        """Return whether the service is known to have an object of this name; asks nobody."""
        with self._lock:
            return name in (self._sizes or ())

    def has(self, client: ProminenceClient, name: str, size: int) -> bool:
        """Tell whether the service has an object of this name and size; blocks for the list when it is asked first."""
        with self._listing:
            if self._sizes is None:
                sizes = {item["name"]: item["size"] for item in client.list_data()}
                with self._lock:
                    self._sizes = sizes
        with self._lock:
            return (self._sizes or {}).get(name) == size

    def ensure(self, client: ProminenceClient, name: str, size: int, upload: Callable[[], None]) -> bool:
        """See that the service has an object; blocks for ``upload`` where it does not, or for another thread's.

        Returns:
            True where it was uploaded now.

        Raises:
            Exception: what ``upload`` raises.
        """
        with self._lock:
            uploading = self._uploading.setdefault(name, threading.Lock())
        with uploading:
            if self.has(client, name, size):
                return False
            upload()
            with self._lock:
                if self._sizes is not None:
                    self._sizes[name] = size
            return True

    def forget(self, name: str) -> bool:
        """Note that the service has an object no longer; return whether it was thought to have it."""
        with self._lock:
            return (self._sizes or {}).pop(name, None) is not None
