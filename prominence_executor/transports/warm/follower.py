"""The warm workers of a run that another program has begun: finds what they have, and follows it to its end.

The workers of a program that was killed go on with what they had been given, and then wait for it in vain for a while.
What they were given stands in their mailboxes, and what has come of it in the standard output of their jobs. This
reads both; it gives workers nothing new, and never empties a mailbox. Its thread alone writes what it knows; other
threads tell it by a queue.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any, Literal

from ...errors import AuthenticationError, JobDeletedError, NotFoundError, ProminenceError, WorkerLostError
from ...run.breaking import breaking
from ...run.chunk import HELD, Chunk
from ...run.context import RunContext
from ...run.future import ProminenceFuture
from ...run.names import CallRange
from ...run.registry import ChunkRegistry
from ...run.settle import Settler
from .mailboxes import Mailboxes
from .outcomes import read_output, release
from .places import empty_places
from .purge import remove_workers
from .traces import MailboxScan, Outcome, Place

_PAUSE = (1.0, 30.0)  # seconds between two looks: standard output is a second behind, and costly to ask for
_RATE = 100.0  # requests to mailboxes per second
_UNSEEN = 3  # looks in a row without a trace of a chunk, after which it is not to be found any more


class WorkerFollower:
    """A `Transport` of the chunks that another program's workers have; its thread ends with the last one.

    Args:
        owns: the other program is no more: what its workers have lost can be sent again, or has an error at once.
        reroute: has a chunk sent anew, by another transport.
    """

    def __init__(
        self,
        context: RunContext,
        registry: ChunkRegistry,
        settler: Settler,
        scan: MailboxScan,
        *,
        owns: bool,
        reroute: Callable[[Chunk], None],
    ) -> None:
        self._context = context
        self._registry = registry
        self._settler = settler
        self._scan = scan  # the thread's alone once that runs
        self._owns = owns
        self._reroute = reroute
        self._mailboxes = Mailboxes(context, _RATE)
        self._to_end: queue.SimpleQueue[Chunk | None] = queue.SimpleQueue()  # None: the thread itself
        self._ending: defaultdict[int, list[Chunk]] = defaultdict(list)  # by worker; the thread's alone
        self._chunks: dict[CallRange, Chunk] = {}  # the thread's alone, too
        self._unseen: dict[CallRange, int] = {}  # likewise
        self._working_at = context.health.now()  # when a worker was last seen active, and not held; likewise
        self._thread = threading.Thread(target=self._loop, name=f"prominence-following-{context.run_id}", daemon=True)

    def follow(self, chunks: Iterable[Chunk]) -> None:
        """Look after these from now on; to be called once."""
        self._chunks = {chunk.numbers: chunk for chunk in chunks}
        self._thread.start()

    def submit(self, chunk: Chunk) -> None:
        """Have a chunk sent by another transport: this one gives workers nothing new."""
        self._reroute(chunk)

    def close(self, leave: bool) -> None:
        """Wait for the thread's end, the run is stopping; and end workers that nobody else will."""
        self._to_end.put(None)
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join()
        if self._owns and not leave:
            try:
                remove_workers(self._context.client, self._context.run_id)
                for job_id in self._scan.couriers:
                    empty_places(self._context.client, self._context.run_id, job_id)
            except ProminenceError as error:
                self._context.log_left("workers of run %s may be left at the service: %s", error)

    def threads(self) -> set[threading.Thread]:
        """Return those in which callbacks of futures may run."""
        return {self._thread}

    def discard(self, chunk: Chunk) -> None:
        """Close a chunk all of whose calls were cancelled: it may still run, but nobody will know; see `WarmPool`."""
        if self._context.cancel_running or chunk.terminated:
            self._to_end.put(chunk)
        self._context.journal.remove([chunk.name])
        self.release(chunk)

    def release(self, chunk: Chunk) -> None:
        """Close a chunk all of whose calls are settled."""
        release(self._registry, chunk)

    def terminate(self, chunk: Chunk) -> bool:
        """Have the process of a running chunk ended. False if it is over. Returns at once."""
        if chunk.ended or not self._registry.is_open(chunk):
            return False
        chunk.terminated = True
        self._to_end.put(chunk)
        return True

    def output(self, chunk: Chunk, call: ProminenceFuture[Any], stream: Literal["stdout", "stderr"]) -> str:
        """Fetch a call's part of what its worker's job has printed; one request."""
        return read_output(self._context.connection, chunk, call, stream)

    # -- its thread ------------------------------------------------------------------------------------------------

    def _loop(self) -> None:
        context = self._context
        began = time.monotonic()
        with breaking(self._registry, "follower of the workers"):
            while True:
                self._settle()
                self._chunks = {calls: chunk for calls, chunk in self._chunks.items() if self._registry.is_open(chunk)}
                if not self._chunks:
                    return
                pause = min(max(_PAUSE[0], (time.monotonic() - began) / 20), _PAUSE[1])
                if not self._wait(time.monotonic() + pause):
                    return
                try:
                    self._scan.look(context.client)
                    context.health.answered()
                except AuthenticationError:
                    raise
                except ProminenceError as error:
                    self._unanswered(error)

    def _wait(self, until: float) -> bool:
        """Wait, and have calls ended that are to end meanwhile; False when there is nothing more to follow."""
        while (left := until - time.monotonic()) > 0:
            try:
                chunk = self._to_end.get(timeout=left)
            except queue.Empty:
                break
            if chunk is None:
                return False
            place = self._scan.held.get(chunk.numbers)
            if place is not None:
                self._ending[place.worker].insert(0, chunk)
                self._mailboxes.request_end(place.worker, self._ending[place.worker])
        return not self._context.stopping.is_set()

    def _settle(self) -> None:
        scan, now = self._scan, self._context.health.now()
        if any(status != HELD for status in scan.active.values()):
            self._working_at = now
        stalled = now - self._working_at >= self._context.health.timeout
        for calls, chunk in list(self._chunks.items()):
            outcome, place = scan.outcomes.get(calls), scan.held.get(calls)
            if outcome is not None:
                self._settle_from(chunk, outcome)
            elif place is not None and scan.active.get(place.job_id, HELD) != HELD:
                chunk.job_id = place.job_id
                self._unseen.pop(calls, None)
                if scan.active.get(place.job_id) == "running":
                    chunk.saw("running")
            elif self._owns or stalled or not scan.active:  # else the other program may give it to another worker
                self._unseen[calls] = self._unseen.get(calls, 0) + 1
                if self._unseen[calls] >= _UNSEEN and (place is None or self._is_gone(place)):
                    self._lost(chunk)
        scan.outcomes.clear()

    def _settle_from(self, chunk: Chunk, outcome: Outcome) -> None:
        self._settler.settle_warm(chunk, outcome.records, outcome.job_id)
        chunk.status = "completed"
        self._context.journal.remove(self._registry.open_names([chunk]))
        self.release(chunk)

    def _is_gone(self, place: Place) -> bool:
        """Whether the worker will run nothing any more. One that is held has lost its process, and is deleted."""
        if not self._owns or place.job_id not in self._scan.active:
            return True
        try:
            self._context.client.delete_job(place.job_id)
        except NotFoundError:
            pass  # it has ended
        except ProminenceError:
            return False  # the next look tries it again
        return True

    def _lost(self, chunk: Chunk) -> None:
        """Its worker has ended without an outcome of it."""
        del self._chunks[chunk.numbers]
        if chunk.payload is not None and not chunk.terminated:  # it was in the journal
            self._context.log.info(
                "run %s: call %d had been lost with its worker, and is sent", self._context.run_id, chunk.first
            )
            chunk.lost(WorkerLostError("its warm worker was lost with it", job_id=chunk.job_id))
            chunk.job_id, chunk.status = None, "unsent"
            self._reroute(chunk)
            return
        lost = "the warm worker that had the call has ended without an outcome of it"
        error: ProminenceError = WorkerLostError(lost, job_id=chunk.job_id)
        if chunk.terminated:
            error = JobDeletedError("the call was ended by terminate()", job_id=chunk.job_id)
        chunk.settle_all(error)
        self.release(chunk)

    def _unanswered(self, error: ProminenceError) -> None:
        """Wait for a service that is away, but not forever."""
        given_up = self._context.health.give_up_after(error)
        if given_up is not None:
            for chunk in self._chunks.values():
                chunk.settle_all(given_up)
                self.release(chunk)
