"""What could not be done because this machine is short of something (see state/shortage.py): kept, and done later.

Knows nothing of what it keeps. Has no thread of its own: whoever owns one asks what is due.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Callable
from functools import partial

from ..state.clock import Clock
from ..state.shortage import AGAIN, shortage

log = logging.getLogger("prominence_executor.local")


class Postponed:
    """Every method may be called from any thread; `_lock` guards the list and its time.

    `wake` has the owner of the thread ask again; it is called without the lock.
    """

    def __init__(self, clock: Clock, wake: Callable[[], None]) -> None:
        self._clock, self._wake = clock, wake
        self._lock = threading.Lock()
        self._kept: list[Callable[[], object]] = []
        self._at = 0.0

    def attempt(self, what: Callable[[], object]) -> None:
        """Do something, or keep it when the machine is too short of something for it."""
        try:
            what()
        except (sqlite3.Error, OSError) as error:
            if shortage(error) is None:
                raise
            with self._lock:
                first = not self._kept
                self._kept.append(what)
                if first:
                    self._at = self._clock.monotonic() + AGAIN
            if first:
                log.error("something is stored later: %s", error)
            self._wake()

    def next_time(self) -> float | None:
        """Return when something is to be tried again, by the monotonic clock."""
        with self._lock:
            return self._at if self._kept else None

    def due(self) -> list[Callable[[], object]]:
        """Take out what is to be tried again now; each keeps itself once more if it fails once more."""
        with self._lock:
            if self._clock.monotonic() < self._at:
                return []
            due, self._kept = self._kept, []
        return [partial(self.attempt, what) for what in due]
