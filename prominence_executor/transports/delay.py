"""`DelayedChunks`: chunks that are to be sent, but not yet, as the `Retry` of a call that failed wants a pause.

The `Transport` of a chunk while it waits. It has no thread: the run's last one, the tracker's, asks what is due. Its
methods may be called from any thread; a lock guards what waits, and is not held while futures are settled.
"""

from __future__ import annotations

import heapq
import threading
import time
from collections.abc import Callable
from typing import Any, Literal

from ..errors import JobDeletedError
from ..run.chunk import Chunk
from ..run.context import RunContext
from ..run.future import ProminenceFuture, last_failure, settle
from ..run.registry import ChunkRegistry


class DelayedChunks:
    """What waits of one run.

    Args:
        send: has a chunk sent, by another transport.
    """

    def __init__(self, context: RunContext, registry: ChunkRegistry, send: Callable[[Chunk], None]) -> None:
        self._context = context
        self._registry = registry
        self._send = send
        self._lock = threading.Lock()  # guards what follows
        self._times: list[tuple[float, str]] = []  # a heap of time.monotonic() and names; some may wait no more
        self._waiting: dict[str, Chunk] = {}
        self._over = False  # nothing waits any more

    def put(self, chunk: Chunk, seconds: float) -> None:
        """Have a chunk wait whose calls have failed."""
        with self._lock:
            self._waiting[chunk.name] = chunk
            heapq.heappush(self._times, (time.monotonic() + seconds, chunk.name))
            over = self._over
        if over:
            self.give_up()
        elif not chunk.is_wanted():  # it was cancelled before it waited here, where nobody found it
            self.discard(chunk)

    def due(self) -> float | None:
        """Send what has waited for long enough; return the seconds until there is more, None if nothing waits."""
        ripe = []
        with self._lock:
            while self._times and (self._times[0][0] <= time.monotonic() or self._times[0][1] not in self._waiting):
                found = self._waiting.pop(heapq.heappop(self._times)[1], None)
                ripe += [] if found is None else [found]
            pause = self._times[0][0] - time.monotonic() if self._times else None
        for chunk in ripe:
            if chunk.is_wanted() and self._registry.is_open(chunk):
                self._send(chunk)
            else:
                self._close(chunk)
        return pause

    def give_up(self) -> None:
        """Wait no longer, now and from now on: the calls have what their last attempt failed with."""
        with self._lock:
            waiting, self._waiting, self._over = list(self._waiting.values()), {}, True
        for chunk in waiting:
            for call in chunk.calls:
                settle(call, False, last_failure(call))
            self._close(chunk)

    # -- a transport -----------------------------------------------------------------------------------------------

    def submit(self, chunk: Chunk) -> None:
        """Have a chunk sent without a wait."""
        self._send(chunk)

    def discard(self, chunk: Chunk) -> None:
        """Let go of a chunk all of whose calls were cancelled."""
        if self._take(chunk):
            self._close(chunk)

    def terminate(self, chunk: Chunk) -> bool:
        """End the calls of a chunk, none of which runs. False if it is over."""
        if chunk.ended or not self._registry.is_open(chunk):
            return False
        chunk.terminated = True
        chunk.settle_all(JobDeletedError("the call was ended by terminate() before its next job began"))
        if self._take(chunk):  # else its sender will see
            self._close(chunk)
        return True

    def output(self, chunk: Chunk, call: ProminenceFuture[Any], stream: Literal["stdout", "stderr"]) -> str:
        """Return what a call has printed: nothing, in the attempt that is still to come."""
        return ""

    def release(self, chunk: Chunk) -> None:
        """Let go of a chunk all of whose calls are settled."""
        if self._take(chunk):
            self._close(chunk)

    def threads(self) -> set[threading.Thread]:
        """Return those in which callbacks of futures may run: there are none of its own."""
        return set()

    def close(self, leave: bool) -> None:
        """End; every chunk is settled."""

    def _take(self, chunk: Chunk) -> bool:
        with self._lock:
            return self._waiting.pop(chunk.name, None) is not None

    def _close(self, chunk: Chunk) -> None:
        chunk.ended = True
        self._context.journal.remove(self._registry.open_names([chunk]))
        self._registry.close(chunk)
