"""A `Run`: the identity under which an executor's jobs stand at the service, and all that is in flight of it.

It joins dispatcher and tracker, counts what is open, and knows when everything is over. Its threads hold no reference
to the executor, so that a forgotten executor can be collected. Locks are held for bookkeeping only: never across HTTP,
never while a future is settled.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .chunk import Call, Chunk, Options
from .dispatcher import Dispatcher
from .errors import BrokenRunError, JobDeletedError, ProminenceError
from .futures import ProminenceFuture
from .tracker import Tracker

if TYPE_CHECKING:
    from .client import ProminenceClient
    from .modules import ModuleZip
    from .payload import Blob

_GLANCE = 1.0  # seconds: a signal that comes just before a wait begins is only seen when the wait ends
_INTERRUPTED = 30.0  # seconds in which an interrupted program's jobs are deleted


class Run:
    """What is in flight of one executor, and the two threads that look after it."""

    log = logging.getLogger("prominence_executor")

    def __init__(
        self,
        connect: Callable[[], ProminenceClient],
        run_id: str,
        key: bytes,
        *,
        max_workers: int | None,
        poll_interval: tuple[float, float],
        service_timeout: float,
        on_interrupt: str,
        at_end: Callable[[], None],
    ) -> None:
        self.client = connect()
        self.run_id = run_id
        self.key = key
        self.service_timeout = service_timeout
        self.broken: BaseException | None = None
        self.stopping = threading.Event()  # set when nothing more is to be waited for
        self.ended = threading.Event()
        self._max_workers = max_workers
        self.reached = False  # True once the service has answered anything in this run
        self._process = os.getpid()
        self._on_interrupt = on_interrupt
        self._connect = connect
        self._at_end = at_end
        self._changed = threading.Condition()
        self._open: dict[int, Chunk] = {}
        self._sent: set[int] = set()  # indexes of the open chunks that count against max_workers
        self._closing = False
        self._started = False
        self._next_call = 0
        self._next_chunk = 0
        self.dispatcher = Dispatcher(self)
        self.tracker = Tracker(self, poll_interval)

    # -- the executor's side ---------------------------------------------------------------------------------------

    def submit(
        self, function: Blob, arguments: list[Blob], modules: ModuleZip | None, options: Options
    ) -> list[ProminenceFuture[Any]]:
        """Queue the calls as one chunk; returns their futures at once.

        Raises:
            RuntimeError: after shutdown.
            BrokenRunError: the run is broken.
        """
        with self._changed:
            self.check_open()
            calls = []
            for blob in arguments:
                calls.append(Call(self._next_call, blob, ProminenceFuture()))
                self._next_call += 1
            chunk = Chunk(self, self._next_chunk, calls, function, modules, options)
            self._next_chunk += 1
            self._open[chunk.index] = chunk
            if not self._started:
                self._started = True
                self.dispatcher.start()
                self.tracker.start()
        self.dispatcher.put(chunk)
        return [call.future for call in calls]

    def check_open(self) -> None:
        """Raise what `submit` must raise when the run takes no more calls."""
        if self.broken is not None:
            raise BrokenRunError(f"run {self.run_id} is broken: {self.broken}") from self.broken
        if self._closing:
            raise RuntimeError("cannot schedule new futures after shutdown")

    def shutdown(self, *, wait: bool, cancel: bool) -> None:
        """Take no more calls; end when the open ones have ended. Blocks for that if ``wait``."""
        if os.getpid() != self._process:
            return  # a forked child has copies of everything but the threads: nothing here is its own
        with self._changed:
            self._closing = True
            futures = [call.future for chunk in self._open.values() for call in chunk.calls]
            never_used = not self._started
            self._started = True
            self._changed.notify_all()
        if cancel:
            for future in futures:
                future.cancel()
        if never_used:
            self.end()
        self.tracker.look_soon()
        own = self.tracker.threads() | self.dispatcher.threads()
        if wait and threading.current_thread() not in own:  # a callback that waited here would wait for itself
            while not self.ended.wait(_GLANCE):
                pass

    def interrupt(self) -> None:
        """The program was interrupted: delete the jobs that are outstanding, or leave them, and end soon."""
        with self._changed:
            self._closing = True
            chunks = list(self._open.values())
        if not chunks:
            return
        if self._on_interrupt == "leave":
            self.break_off(ProminenceError("the program was interrupted and left its jobs at the service"))
            done = "are left at the service"
        else:
            for chunk in chunks:
                for call in chunk.calls:
                    call.future.cancel()
                if chunk.job_id is not None and not chunk.cancelled():
                    chunk.settle_all(JobDeletedError("the program was interrupted", job_id=chunk.job_id))
                    self._remove(chunk)
            self.ended.wait(_INTERRUPTED)
            done = "have been deleted" if self.ended.is_set() else "are being deleted; the service does not answer"
        sys.stderr.write(f"run {self.run_id} interrupted: its {len(chunks)} outstanding jobs {done}\n")

    def terminate(self, chunk: Chunk) -> bool:
        """Delete a running job in the background; the tracker then tells its futures. False if it is over."""
        with self._changed:
            if chunk.index not in self._open or chunk.removing or chunk.ended:
                return False
        chunk.terminated = True
        self.dispatcher.terminate(chunk)
        return True

    def read_stream(self, job_id: int, name: str) -> bytes:
        """A job's stdout or stderr, now: one request."""
        if not self.ended.is_set():
            return self.client.stdout(job_id) if name == "stdout" else self.client.stderr(job_id)
        with self._connect() as client:
            return client.stdout(job_id) if name == "stdout" else client.stderr(job_id)

    # -- the threads' side -----------------------------------------------------------------------------------------

    def in_flight(self) -> list[Chunk]:
        """The open chunks that have a job and are still wanted."""
        with self._changed:
            return [c for c in self._open.values() if c.job_id is not None and not c.ended and not c.cancelled()]

    def finished_with(self) -> bool:
        """True when the run takes no more calls and none is open."""
        with self._changed:
            return self._closing and not self._open

    def wait_for_room(self, chunk: Chunk) -> bool:
        """Wait until ``max_workers`` allows one more job; False when the chunk is not wanted any more."""
        with self._changed:
            while self._max_workers is not None and len(self._sent) >= self._max_workers and not self.broken:
                self._changed.wait()
            if chunk.index not in self._open:
                return False
            self._sent.add(chunk.index)
            return True

    def discard(self, chunk: Chunk) -> None:
        """All calls of the chunk were cancelled: delete its job, if it has one yet (if not, the sender will see)."""
        if chunk.job_id is not None:
            self._remove(chunk)

    def settled(self, chunk: Chunk) -> None:
        """All calls of the chunk have their outcome: what was uploaded for it alone can go."""
        chunk.ended = True
        if chunk.uploaded:
            self._remove(chunk)
        else:
            self.close(chunk)

    def _remove(self, chunk: Chunk) -> None:
        with self._changed:
            if chunk.index not in self._open or chunk.removing:
                return
            chunk.removing = True
        self.dispatcher.delete(chunk)

    def close(self, chunk: Chunk) -> None:
        """The chunk is over."""
        with self._changed:
            self._open.pop(chunk.index, None)
            self._sent.discard(chunk.index)
            self._changed.notify_all()
            last = self._closing and not self._open
        if last:
            self.tracker.look_soon()

    def break_off(self, error: BaseException) -> None:
        """Nothing can be done any more: every open future gets to know, and so does the next submit."""
        with self._changed:
            if self.broken is None:
                self.broken = error
            self._closing = True
            chunks = list(self._open.values())
            self._open.clear()
            self._sent.clear()
            self._changed.notify_all()
        for chunk in chunks:
            broken = BrokenRunError(f"run {self.run_id} is broken: {error}")
            broken.__cause__ = error
            chunk.settle_all(broken)
        self.tracker.look_soon()

    def end(self) -> None:
        """The last act, in the tracker's thread: everything is settled; let go of threads, sockets and the service."""
        self.stopping.set()
        self.dispatcher.stop()
        self.client.close()
        self._at_end()
        self.ended.set()


def new_run_id(name: str | None) -> str:
    """A name for a run that no other run has: readable, sortable, fit for a label, a job's name and a file name."""
    import secrets

    return f"{name or 'px'}-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}"
