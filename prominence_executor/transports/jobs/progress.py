"""How far the outcomes of jobs have come: which are missed, held, under way, or are to be tried again.

Bookkeeping and rules only, no requests. The tracker's thread and the fetcher's pool use it; its lock guards it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from ...run.chunk import Chunk

ATTEMPTS = 4  # fetches of an outcome before its failure is believed
_LONGEST = 30.0  # seconds between two of them
_LOST_AFTER = 60.0  # seconds without a trace of a job that was accepted
_LOST_MISSES = 5  # answers in a row that do not know it


@dataclass
class _Progress:
    missed_since: float | None = (
        None  # on the clock of the run's patience, when the service first did not know the job any more
    )
    misses: int = 0
    held_since: float | None = None  # likewise, when a list first showed the job held
    absences: int = 0  # looks in a row at which the job was described as held, but not active
    under_way: bool = False
    fetches: int = 0  # that failed
    failing_since: float | None = None  # when the first one did
    again_at: float = 0.0  # time.monotonic() when the next one may be tried
    damaged: bytes | None = None  # digest of an outcome file without an end


class Progress:
    """The chunks whose outcome has not come at once.

    Args:
        clock: measures how long something has been so; see run/awake.py.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._of: dict[Chunk, _Progress] = {}

    def _get(self, chunk: Chunk) -> _Progress:
        return self._of.setdefault(chunk, _Progress())

    def forget(self, chunk: Chunk) -> None:
        """Forget a chunk that is settled."""
        with self._lock:
            self._of.pop(chunk, None)

    # -- before there is an outcome --------------------------------------------------------------------------------

    def seen(self, chunk: Chunk, held: bool) -> float:
        """Note that the job is active; return the seconds for which it has been held, 0 if it is not."""
        now = self._clock()
        with self._lock:
            if not held and chunk not in self._of:
                return 0.0
            progress = self._get(chunk)
            progress.missed_since, progress.misses, progress.absences = None, 0, 0
            since = now if progress.held_since is None else progress.held_since
            progress.held_since = since if held else None
            return now - progress.held_since if progress.held_since is not None else 0.0

    def absent(self, chunk: Chunk) -> int:
        """Note a job that is held but not active; return at how many looks in a row that has been so."""
        with self._lock:
            self._get(chunk).absences += 1
            return self._get(chunk).absences

    def missed(self, chunk: Chunk) -> float | None:
        """Note that the service does not know the job; return for how many seconds if they are too many."""
        now = self._clock()
        with self._lock:
            progress = self._get(chunk)
            progress.missed_since = now if progress.missed_since is None else progress.missed_since
            progress.misses += 1
            seconds = now - progress.missed_since
            return seconds if progress.misses >= _LOST_MISSES and seconds > _LOST_AFTER else None

    # -- fetching it -----------------------------------------------------------------------------------------------

    def under_way(self) -> set[Chunk]:
        """Return those that somebody is about."""
        with self._lock:
            return {chunk for chunk, progress in self._of.items() if progress.under_way}

    def may_begin(self, chunk: Chunk) -> bool:
        """Return whether it did not fail a moment ago."""
        with self._lock:
            return chunk not in self._of or time.monotonic() >= self._of[chunk].again_at

    def begin(self, chunk: Chunk) -> None:
        """Note that somebody fetches it."""
        with self._lock:
            self._get(chunk).under_way = True

    def put_back(self, chunk: Chunk) -> None:
        """Note that nobody fetches it any more."""
        with self._lock:
            self._get(chunk).under_way = False

    def is_first(self, chunk: Chunk) -> bool:
        """Return whether no fetch has failed."""
        with self._lock:
            return not self._get(chunk).fetches

    def failed(self, chunk: Chunk, patience: float) -> bool:
        """Note that a fetch has failed; return whether to try again.

        ``patience``: seconds for which to try beyond the usual attempts.
        """
        now = self._clock()
        with self._lock:
            progress = self._get(chunk)
            progress.fetches += 1
            progress.failing_since = now if progress.failing_since is None else progress.failing_since
            progress.again_at = time.monotonic() + min(0.1 * 2.0**progress.fetches, _LONGEST)
            return progress.fetches < ATTEMPTS or now - progress.failing_since < patience

    def came_twice(self, chunk: Chunk, digest: bytes) -> bool:
        """Return whether an outcome file without an end has come with the same content before."""
        with self._lock:
            before, self._get(chunk).damaged = self._get(chunk).damaged, digest
            return before == digest
