"""`Slots`: how ``max_workers`` is shared between the jobs of calls and the warm workers of one run.

The two transports do not know each other: each says here what it has, and asks here what it may have. A worker that
is idle makes room for a job that waits; neither kind keeps the other one out for good. Bookkeeping under the
registry's lock; no requests.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from .registry import ChunkRegistry


class Claim(NamedTuple):
    """What the jobs of calls need of ``max_workers``."""

    jobs: int = 0  # that count against it already
    waiting: int = 0  # chunks that are to have one
    first: int | None = None  # the number of the oldest call that waits so
    idle: int = 0  # jobs that the service has, and that have not begun


class Slots:
    """The share of each kind. Any thread may call; the lock is the registry's.

    Args:
        most: ``max_workers``; None where nothing bounds the jobs of calls: then they do not count.
    """

    def __init__(self, registry: ChunkRegistry, most: int | None) -> None:
        self.most = most
        self.claim: Callable[[bool], Claim] = lambda look: Claim()  # with or without `Claim.idle`, which costs time
        self.wake: Callable[[], None] = lambda: None  # has the workers' scheduler look; returns at once
        self._changed = registry.changed
        self._workers = 0
        self._first: int | None = None  # the number of the oldest call that waits for a worker

    def publish(self, workers: int, first: int | None) -> None:
        """Note how many workers there are, and which call is the next to have one."""
        with self._changed:
            fewer = workers < self._workers or (first is None and self._first is not None)
            self._workers, self._first = workers, first
            if fewer:
                self._changed.notify_all()

    def take(self, wanted: int) -> int:
        """Count so many workers more, or as many as there is room for; return how many."""
        with self._changed:
            if self.most is not None:
                wanted = max(0, min(wanted, self.most - self._workers - self.claim(False).jobs))
            self._workers += wanted
            return wanted

    def allow(self, jobs: int, first: int | None) -> bool:
        """Tell whether there may be one more job of calls than these.

        Args:
            first: the number of the call that it is for; None: of any.
        """
        if self.most is None:
            return True
        with self._changed:
            workers = self._workers
            if not workers and self._first is not None and (self.most > 1 or first is None or self._first < first):
                workers = 1  # else calls that wait for a worker would wait for the end of all others
            return jobs + workers < self.most
