"""What requests wait for: changes that any thread announces, and that a view awaits without holding a thread.

A view asks for the revision first, looks then, and waits for something after that revision: nothing is missed between
the two. Knows nothing of what it is that changes.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Hashable
from contextlib import suppress


class Changes:
    """How often something of each topic has changed, and who waits for more. Any thread may call."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._revisions: dict[Hashable, int] = {}
        self._waiting: dict[Hashable, dict[asyncio.Future[None], None]] = {}
        self._closed = False

    def revision(self, topic: Hashable) -> int:
        """Return the number of the last change of a topic; 0 before the first."""
        with self._lock:
            return self._revisions.get(topic, 0)

    def announce(self, topic: Hashable) -> None:
        """Say that something of a topic has changed, after it has been stored."""
        with self._lock:
            self._revisions[topic] = self._revisions.get(topic, 0) + 1
            woken = self._waiting.pop(topic, {})
        _wake(woken)

    async def after(self, revision: int, topic: Hashable, seconds: float) -> int:
        """Wait for a change after this revision, for so many seconds at most; return the revision that there is now."""
        with self._lock:
            now = self._revisions.get(topic, 0)
            if now > revision or self._closed:
                return now
            woken = asyncio.get_running_loop().create_future()
            self._waiting.setdefault(topic, {})[woken] = None
        try:
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(woken, seconds)
        finally:
            with self._lock:
                others = self._waiting.get(topic, {})
                others.pop(woken, None)
                if not others:
                    self._waiting.pop(topic, None)
        return self.revision(topic)

    def close(self) -> None:
        """Have all that wait answered, now and from now on."""
        with self._lock:
            self._closed = True
            waiting, self._waiting = self._waiting, {}
        for woken in waiting.values():
            _wake(woken)


def _wake(futures: dict[asyncio.Future[None], None]) -> None:
    def wake() -> None:
        for future in futures:
            if not future.done():
                future.set_result(None)

    for future in futures:
        with suppress(RuntimeError):  # the loop has ended, and with it who waited
            future.get_loop().call_soon_threadsafe(wake)
        return  # all of them wait in the server's one loop
