"""A bar of calls: how many have ended, and what the others do. It knows futures, and is told of each as it ends."""

from __future__ import annotations

import concurrent.futures
import threading
import time
from collections.abc import Iterable, Mapping
from typing import Any

from ..progress import ProgressBar
from ..run.future import ProminenceFuture, failure_of

LOOK = 0.2  # seconds between two looks at the bar
_ENDED = ("done", "failed", "cancelled")


class WatchedCalls:
    """Counts calls by what has become of them. Any thread may tell; its lock guards the numbers."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts = dict.fromkeys(_ENDED, 0)
        self._total = 0

    def add(self, futures: Iterable[ProminenceFuture[Any]]) -> None:
        """Count these, too."""
        for future in futures:
            with self._lock:
                self._total += 1
            future.add_done_callback(self._ended)

    def _ended(self, future: concurrent.futures.Future[Any]) -> None:
        if future.cancelled():
            word = "cancelled"
        else:
            failed = isinstance(future, ProminenceFuture) and failure_of(future) is not None
            word = "failed" if failed else "done"
        with self._lock:
            self._counts[word] += 1

    def counts(self) -> Mapping[str, int]:
        """Return how many have ended, by how."""
        with self._lock:
            return dict(self._counts)

    def total(self) -> int:
        """Return how many there are."""
        with self._lock:
            return self._total

    def bar(self, what: str, wanted: bool | None) -> ProgressBar:
        """Make the bar that shows them. ImportError: it is wanted, but tqdm is not installed."""
        return ProgressBar(what, self.total(), self.counts, _ENDED, wanted)

    def wait(self, bar: ProgressBar, future: ProminenceFuture[Any], until: float | None) -> None:
        """Wait until a call has ended, or until a time of `time.monotonic`, and show the bar meanwhile."""
        while not future.done():
            bar.look(total=self.total())
            left = LOOK if until is None else min(LOOK, until - time.monotonic())
            if left <= 0:
                return
            concurrent.futures.wait([future], left)


def watch(what: str, futures: Iterable[ProminenceFuture[Any]], wanted: bool | None) -> None:
    """Show a bar until these calls have ended."""
    calls, waiting = WatchedCalls(), list(futures)
    calls.add(waiting)
    with calls.bar(what, wanted) as bar:
        for future in waiting:
            calls.wait(bar, future, None)
