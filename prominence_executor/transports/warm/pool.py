"""`WarmPool`: calls on warm workers, jobs that stay and take one batch of calls after the other.

The second way to carry a chunk, beside a job of its own: a call need not wait for a job. The mailboxes are keys of the
service's key-value store (remote/worker.py, the other side, describes them): for each worker one batch at a time, and
one place where it says how that batch stands. One list request reads what all workers say, whatever their number.

A batch is sized to take a fraction of a second; what waits in it behind a call that takes longer comes back. A chunk
whose worker is lost goes to another one, so that its calls may run more than once, but count once.

What stands here runs in threads of users and of the run: it tells the scheduler (scheduler.py), whose thread alone has
the workers, and reads what that has published. It holds no state that is written twice.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Literal

from ...errors import ProminenceError
from ...payload.calls import Payload
from ...run.chunk import Chunk
from ...run.context import RunContext
from ...run.future import ProminenceFuture
from ...run.options import Options
from ...run.registry import ChunkRegistry
from ...run.settle import Settler
from ...run.slots import Slots
from .events import Discarded, RoomChanged, Scaled, Submitted, Terminated
from .loads import MOST_BY_KEYS, MOST_STORED, load_of, most_stored
from .mailboxes import Mailboxes
from .options import WarmOptions
from .outcomes import OutcomeSettler, read_output, release
from .places import Places
from .purge import remove_workers
from .scheduler import Scheduler
from .state import WorkerInfo


class WarmPool:
    """A `Transport`: the workers of one run.

    Args:
        overflow: has a chunk sent by another transport: there is no way to a worker that is wide enough for it.
    """

    def __init__(
        self,
        context: RunContext,
        registry: ChunkRegistry,
        settler: Settler,
        options: WarmOptions,
        slots: Slots,
        overflow: Callable[[Chunk], None],
    ) -> None:
        self._context = context
        self._registry = registry
        self.first_number = 1  # of its workers; those of another program come before
        rate = options.max_requests_per_second / 2  # the other half is the workers'
        context.objects.keep(MOST_STORED)
        self._places = Places(context)
        outcomes = OutcomeSettler(context, registry, settler, self._places)
        mailboxes = Mailboxes(context, rate, options.bounded)
        self._scheduler = Scheduler(context, registry, outcomes, mailboxes, options, slots, self._places, overflow)
        slots.wake = lambda: self._scheduler.post(RoomChanged())

    def start(self) -> None:
        """Start the threads."""
        self._scheduler.start(self.first_number)

    def accepts(self, payload: Payload, options: Options) -> bool:
        """Whether such calls are small enough for their way, and need nothing that only comes with a job."""
        if options.needs_job or payload.results or not self._context.objects.are_here(payload.objects):
            return False
        load = load_of(payload)
        return load <= MOST_BY_KEYS or (self._places.usable and load <= most_stored(options.resources))

    def submit(self, chunk: Chunk) -> None:
        """Queue a chunk; returns at once."""
        self._scheduler.post(Submitted(chunk))

    def discard(self, chunk: Chunk) -> None:
        """Close a chunk all of whose calls were cancelled; a worker that has it may run it, but nobody will know.

        With ``cancel_running``, or where a call was to be terminated, that is not enough: the process is ended.
        """
        if self._context.cancel_running or chunk.terminated:
            chunk.terminated = True
            self._scheduler.post(Terminated(chunk))
        self._context.journal.remove([chunk.name])
        self.release(chunk)

    def release(self, chunk: Chunk) -> None:
        """Close a chunk all of whose calls are settled."""
        release(self._registry, chunk)
        self._scheduler.post(Discarded(chunk))

    def terminate(self, chunk: Chunk) -> bool:
        """Have the process of a running chunk ended; its worker goes on. False if it is over. Returns at once."""
        if chunk.ended or not self._registry.is_open(chunk):
            return False
        chunk.terminated = True
        self._scheduler.post(Terminated(chunk))
        return True

    def output(self, chunk: Chunk, call: ProminenceFuture[Any], stream: Literal["stdout", "stderr"]) -> str:
        """Fetch a call's part of what its worker's job has printed; one request."""
        return read_output(self._context.connection, chunk, call, stream)

    def scale(self, workers: int) -> None:
        """Have so many workers at least, from now on; more are started for calls, and idle ones beyond that end."""
        self._scheduler.post(Scaled(workers))

    def workers(self) -> list[WorkerInfo]:
        """Return the workers as they were a moment ago."""
        now = time.monotonic()
        return [
            WorkerInfo(one.number, one.job_id, one.state, one.calls, now - one.seen if one.seen else None, one.requests)
            for one in self._scheduler.workers()
        ]

    def threads(self) -> set[threading.Thread]:
        """Return those in which callbacks of futures may run."""
        return self._scheduler.threads()

    def close(self, leave: bool) -> None:
        """End the workers and remove the mailboxes, or leave all to who attaches to the run. Every chunk is settled.

        Workers that are left end when they have done what they have: nobody will give them more, and others wait for
        their slots.
        """
        self._scheduler.stop()
        self._context.history.all_workers_ended()
        if not self._scheduler.was_used:
            return
        if leave:
            with suppress(ProminenceError):  # then they end by themselves, later
                self._scheduler.let_end()
            return
        try:
            left = self._scheduler.left()
            if left == [] and not self._context.connection.reached:
                return  # nobody has anything of it
            young = self._scheduler.stop_young()
            remove_workers(self._context.client, self._context.run_id, left, young)
            self._places.clean()
        except ProminenceError as error:
            self._context.log_left("workers of run %s may be left at the service: %s", error)
