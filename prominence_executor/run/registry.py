"""`ChunkRegistry`: the open chunks of a run, and whether it takes more.

Its one lock guards that; the table of the jobs' transport (transports/jobs/table.py) uses the same. It is held for
bookkeeping only: never across HTTP, and never while a future is settled, whose callbacks are the user's.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ..errors import AuthenticationError, BrokenRunError
from .chunk import Chunk
from .future import ProminenceFuture


class ChunkRegistry:
    """The open chunks by name, the number of the next call, and what has broken the run."""

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        self._lock = threading.RLock()  # guards all below
        self.changed = threading.Condition(self._lock)
        self.on_change: Callable[[], None] = lambda: None  # called when there may be nothing more to do
        self._open: dict[str, Chunk] = {}
        self._closing = False
        self._next_call = 0
        self._broken: BaseException | None = None

    @property
    def broken(self) -> BaseException | None:
        """What has broken the run, if anything has."""
        with self._lock:
            return self._broken

    def check_open(self) -> None:
        """Raise what ``submit`` must raise when the run takes no more calls."""
        with self._lock:
            if self._broken is not None:
                raise BrokenRunError(f"run {self.run_id} is broken: {self._broken}") from self._broken
            if self._closing:
                raise RuntimeError("cannot schedule new futures after shutdown")

    def admit(self, calls: int, make: Callable[[int], list[Chunk]]) -> list[Chunk]:
        """Take new calls, in the chunks that ``make`` makes of them when it is given the number of the first.

        Raises:
            RuntimeError: after shutdown.
            BrokenRunError: the run is broken.
        """
        with self._lock:
            self.check_open()
            chunks = make(self._next_call)
            self._next_call += calls
            self._open.update((chunk.name, chunk) for chunk in chunks)
            return chunks

    def adopt(self, chunks: Iterable[Chunk], next_call: int) -> None:
        """Take the chunks of a run that another program has begun."""
        with self._lock:
            self._next_call = next_call
            self._open.update((chunk.name, chunk) for chunk in chunks)

    def add(self, make: Callable[[], list[Chunk]]) -> list[Chunk]:
        """Open more chunks of calls that are open already: another attempt, say; nothing if the run has broken."""
        with self._lock:
            if self._broken is not None:
                return []
            chunks = make()
            self._open.update((chunk.name, chunk) for chunk in chunks)
            return chunks

    def replace(self, chunk: Chunk, make: Callable[[], list[Chunk]]) -> list[Chunk]:
        """Open other chunks in the place of one, which is closed; nothing if that is not open any more."""
        with self._lock:
            if self._open.pop(chunk.name, None) is None:
                return []
            return self.add(make)

    def merge(self, chunks: Sequence[Chunk], make: Callable[[], Chunk]) -> Chunk | None:
        """Open one chunk in the place of several, which are closed; None if one of these is not open any more."""
        with self._lock:
            if not all(self._open.get(chunk.name) is chunk for chunk in chunks):
                return None
            for chunk in chunks:
                del self._open[chunk.name]
            return self.add(lambda: [make()])[0]

    def close(self, chunk: Chunk) -> None:
        """Close a chunk that is over; it lets go of its calls."""
        with self._lock:
            self._open.pop(chunk.name, None)
            self.changed.notify_all()
            last = self._closing and not self._open
        chunk.release()
        if last:
            self.on_change()

    def stop_admitting(self) -> None:
        """Take no more calls."""
        with self._lock:
            self._closing = True
            self.changed.notify_all()
        self.on_change()

    def fail(self, error: BaseException) -> None:
        """Give up: every open future gets to know, and so does the next submit."""
        with self._lock:
            if self._broken is None:
                self._broken = error
            self._closing = True
            chunks = list(self._open.values())
            self._open.clear()
            self.changed.notify_all()
        left = isinstance(error, AuthenticationError) and any(chunk.sent_at or chunk.job_id for chunk in chunks)
        goes_on = f"; with a new one ProminenceExecutor.attach({self.run_id!r}) finds its jobs, which go on"
        for chunk in chunks:
            broken = BrokenRunError(f"run {self.run_id} is broken: {error}{goes_on if left else ''}")
            broken.__cause__ = error
            chunk.settle_all(broken)
            chunk.release()
        self.on_change()

    def is_open(self, chunk: Chunk) -> bool:
        """Return whether the chunk is not over."""
        with self._lock:
            return chunk.name in self._open

    def open_names(self, chunks: Iterable[Chunk]) -> list[str]:
        """Return the names of those that are not over: what of them a journal may drop.

        None of a run that has broken, or was left: its calls are settled, and who attaches is to find them.
        """
        with self._lock:
            return [chunk.name for chunk in chunks if chunk.name in self._open]

    def closed_names(self, chunks: Iterable[Chunk]) -> list[str]:
        """Return the names of those that are over; none of a run that has broken, as `open_names`."""
        with self._lock:
            return [] if self._broken else [chunk.name for chunk in chunks if chunk.name not in self._open]

    def get(self, name: str) -> Chunk | None:
        """Return the open chunk of this name, if there is one."""
        with self._lock:
            return self._open.get(name)

    def chunks(self) -> list[Chunk]:
        """Return the open chunks, in the order in which they were opened."""
        with self._lock:
            return list(self._open.values())

    def finished(self) -> bool:
        """Return whether the run takes no more calls and none is open."""
        with self._lock:
            return self._closing and not self._open

    def futures(self) -> list[ProminenceFuture[Any]]:
        """Return the calls that are open."""
        with self._lock:
            return [call for chunk in self._open.values() for call in chunk.calls if not call.done()]
