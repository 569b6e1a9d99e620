"""`JobTransport`: calls as jobs of their own, alone or in arrays. It joins the parts of this folder.

sender      its thread and pool: chunks -> jobs and arrays        deleter   the same pool: what nobody wants
tracker     its thread: polls, and knows which jobs have ended    fetcher   its pool: outcomes -> settled futures
table       what is known of the jobs; who writes it holds its lock
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Any, Literal

from ...errors import JobDeletedError
from ...run.breaking import breaking
from ...run.chunk import Chunk
from ...run.context import RunContext
from ...run.future import ProminenceFuture, own_part
from ...run.registry import ChunkRegistry
from ...run.settle import Settler
from ...run.slots import Slots
from ...run.threads import StartedPool, start_thread_pool
from .array import Array
from .delete import Deleter
from .fetcher import Fetcher
from .sender import Sender
from .table import JobTable
from .tracker import Tracker

_SENDERS = 8  # requests under way at once; ten threads made the real service's submissions 2.4 times as fast


class JobTransport:
    """A `Transport`; its tracker's thread is the last of a run to end, and ends the run.

    Args:
        slots: how many jobs may be at the service at once.
        poll_interval: see `Tracker`.
        ended: called in the tracker's thread when the run is finished.
        later: see `Tracker`.
    """

    def __init__(
        self,
        context: RunContext,
        registry: ChunkRegistry,
        settler: Settler,
        *,
        slots: Slots,
        poll_interval: tuple[float, float],
        ended: Callable[[], None],
        later: Callable[[], float | None],
    ) -> None:
        self._context = context
        self._registry = registry
        self._table = JobTable(registry, slots, reads_only=context.attached)
        slots.claim = self._table.claim
        self._started_pool: StartedPool | None = None
        self._sender = Sender(context, registry, self._table, self._pool, self)
        self._deleter = Deleter(context, self._table, self._pool, close=self._close, look_soon=self.look_soon)
        self._fetcher = Fetcher(
            context, settler, guard=self._guard, release=self.release, wake=lambda: self._tracker.wake()
        )
        self._tracker = Tracker(
            context,
            registry,
            self._table,
            self._fetcher,
            settler,
            poll_interval,
            release=self.release,
            discard=self.discard,
            ended=ended,
            later=later,
        )

    def start(self) -> None:
        """Start the threads."""
        self._started_pool = start_thread_pool(_SENDERS, f"prominence-send-{self._context.run_id}", self._guard)
        self._sender.thread.start()
        self._fetcher.start()
        self._tracker.thread.start()

    def _guard(self) -> AbstractContextManager[None]:
        return breaking(self._registry, "transport of jobs")

    def _pool(self) -> StartedPool:
        if self._started_pool is None:
            raise RuntimeError("the threads have not been started")
        return self._started_pool

    def look_soon(self) -> None:
        """Have the tracker look: something has changed."""
        self._tracker.look_soon()

    # -- a transport -----------------------------------------------------------------------------------------------

    def submit(self, chunk: Chunk) -> None:
        """Queue a chunk; return at once."""
        self._table.track(chunk)
        self._sender.put(chunk)

    def adopt(self, chunk: Chunk, array: Array | None, job_ids: Iterable[int]) -> None:
        """Look after a chunk that another program has sent; ``job_ids``: of all jobs of the run."""
        self._table.adopt(chunk, array, job_ids)

    def discard(self, chunk: Chunk) -> None:
        """Delete the chunk's job, if it has one yet: all of its calls were cancelled.

        If not, its sender will see; in an array, the tracker will, unless the whole array can go.
        """
        if self._table.want_no_more(chunk):
            self._deleter.delete(chunk)
            return
        self._context.journal.remove([chunk.name])
        if not self._table.entries([chunk]):  # it was held back: no sender will see it
            self.release(chunk)

    def terminate(self, chunk: Chunk) -> bool:
        """Delete a running job in the background; the tracker then tells its futures. False if it is over."""
        if not self._table.begin_termination(chunk):
            return False
        if chunk.job_id is not None:
            self._deleter.terminate(chunk)
        else:  # a call that is to have another attempt; the sender will see
            chunk.settle_all(JobDeletedError("the call was ended by terminate() before its next job began"))
            if any(entry.array is not None for entry in self._table.entries([chunk])):
                self.discard(chunk)
        return True

    def output(self, chunk: Chunk, call: ProminenceFuture[Any], stream: Literal["stdout", "stderr"]) -> str:
        """Fetch a call's part of what its job has printed; one request."""
        content = self._context.connection.read_stream(chunk.job_id or 0, stream)
        return (own_part(call, stream, content) if chunk.size > 1 else content).decode("utf-8", "replace")

    def release(self, chunk: Chunk) -> None:
        """Let go of a settled chunk, and of what was uploaded for it alone."""
        chunk.ended = True
        if any(entry.uploaded for entry in self._table.entries([chunk])):
            self._deleter.delete(chunk)
        else:
            self._close(chunk)

    def threads(self) -> set[threading.Thread]:
        """Return those in which callbacks of futures may run."""
        own = {self._tracker.thread, self._sender.thread} | self._fetcher.threads()
        return own | (self._started_pool.threads if self._started_pool else set())

    def close(self, leave: bool) -> None:
        """End the threads but the tracker's, which calls this if it runs. Jobs are not deleted: none is open."""
        self._sender.stop()
        self._fetcher.stop()
        if self._started_pool is not None:
            self._started_pool.shutdown(wait=True)

    # -- what its parts say ----------------------------------------------------------------------------------------

    def accepted(self, chunk: Chunk) -> None:
        """Note that the service has taken the chunk's job, or the array that it is in."""
        if not chunk.is_wanted():
            self.discard(chunk)
        elif chunk.terminated:
            self._deleter.terminate(chunk)
        self._tracker.look_soon()

    def delete_object(self, name: str) -> None:
        """Delete an uploaded object in the background."""
        self._deleter.delete_object(name)

    def _close(self, chunk: Chunk) -> None:
        """Close a chunk that is over."""
        self._context.history.ended(chunk, None)  # unless that was told in more detail
        dropped = self._table.drop(chunk)
        self._registry.close(chunk)
        if dropped.bundle and not self._context.health.away:
            self._deleter.delete_object(dropped.bundle)
        for other in dropped.unwanted:
            self._deleter.delete(other)
