"""A `Run`: the identity that an executor's jobs have at the service, and the parts that look after them.

It puts the parts together, routes each chunk to the transport that is to carry it, and knows when everything is over.
Its threads hold no reference to the executor, so that a forgotten executor can be collected. It makes no requests. It
is longer than others: each way in which calls come to a run (submitted, held back, sent again, adopted) begins here.
"""

from __future__ import annotations

import math
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from ..errors import ProminenceError
from ..payload.calls import Payload
from ..run.awake import AwakeClock
from ..run.breaking import break_down, breaking
from ..run.chunk import Chunk, Transport
from ..run.context import new_context
from ..run.future import ProminenceFuture, settle
from ..run.journal import Journal
from ..run.options import Options
from ..run.parts import put_in_parts
from ..run.registry import ChunkRegistry
from ..run.retry import Again
from ..run.settle import Settler
from ..run.slots import Slots
from ..transports.delay import DelayedChunks
from ..transports.jobs.transport import JobTransport
from ..transports.warm.follower import WorkerFollower
from ..transports.warm.pool import WarmPool
from ..transports.warm.state import WorkerInfo
from .adoption import AdoptedChunk, AdoptionPlan, RunSnapshot, make_chunks
from .auto_chunks import AutoChunks, first_wave
from .dependents import Dependents
from .interrupt import await_end, delete, report_left
from .settings import RunSettings, Service

Announce = Callable[[Sequence[ProminenceFuture[Any]]], None]

_MOMENT = 5.0  # seconds until a program that has ended says what it waits for
_GLANCE = 1.0  # seconds: a signal that comes just before a wait begins is only seen when the wait ends


class Run:
    """What is in flight of one executor. Its methods may be called from any thread."""

    def __init__(
        self,
        service: Service,
        run_id: str,
        key: bytes,
        settings: RunSettings,
        journal: Journal | None = None,
        *,
        attached: bool = False,
    ) -> None:
        self._clock = AwakeClock(run_id, settings.service_timeout)
        self.context = new_context(
            service.connect,
            run_id,
            key,
            settings.service_timeout,
            settings.lazy,
            journal,
            attached=attached,
            clock=self._clock.now,
            lasts=service.lasts,
            cancel_running=settings.cancel_running,
            name=settings.name,
            revive=service.revive,
            patient=attached or settings.patient or settings.warm is not None,
        )
        self.settings = settings
        self.connect = service.connect
        self.leaves_jobs = settings.on_interrupt == "leave"
        self._how_to_go_on = ""  # what the message about them ends with
        self.registry = ChunkRegistry(run_id)
        self._stop_service = service.stop
        self._settler = Settler(self.context, self._resend)
        slots = Slots(self.registry, settings.max_workers)
        self._jobs = JobTransport(
            self.context,
            self.registry,
            self._settler,
            slots=slots,
            poll_interval=settings.poll_interval,
            ended=self._end,
            later=self._send_delayed,
        )
        self._delayed = DelayedChunks(self.context, self.registry, self.reroute)
        self.registry.on_change = self._jobs.look_soon
        self._pool = None
        if settings.warm is not None:
            self._pool = WarmPool(self.context, self.registry, self._settler, settings.warm, slots, self._overflow)
        self._held_back = AutoChunks(
            self.context, divide=self._divide, is_open=self.registry.is_open, failed=self._division_failed
        )
        self._dependents = Dependents(self.context, self.registry, self._forward)
        self._process = os.getpid()
        self._ended = threading.Event()
        self._starting = threading.Lock()  # guards what follows
        self._started = False
        self._follower: WorkerFollower | None = None  # of the warm workers of the program that began the run
        self._left = False  # an interrupted program has left its jobs and workers at the service
        service.on_death(self._lost_service)

    # -- calls -----------------------------------------------------------------------------------------------------

    def submit(
        self, payloads: Sequence[Payload], options: Options, before: Announce = lambda calls: None
    ) -> list[ProminenceFuture[Any]]:
        """Queue the calls, each payload as a chunk; return their futures at once (a journal has been written then).

        ``before``: called with them before anything is queued; what it raises is raised, and nothing is.

        Raises:
            RuntimeError: after shutdown.
            BrokenRunError: the run is broken.
            OSError: the journal cannot be written.
        """
        run_id = self.context.run_id
        routed = [(payload, self._route(payload, options)) for payload in payloads]

        chunks: list[Chunk] = []

        def make(first: int) -> list[Chunk]:
            for payload, transport in routed:
                calls = self._futures(first, len(payload.arguments))
                chunks.append(Chunk(run_id, first, calls, options, payload, transport))
                first += len(calls)
            return chunks

        self._start()
        try:
            self.registry.admit(sum(len(payload.arguments) for payload in payloads), make)
            futures = [call for chunk in chunks for call in chunk.calls]
            before(futures)
            for chunk in chunks:
                self._keep(chunk)
        except BaseException as error:
            self._take_back(chunks, error)
            raise
        self._hand_over(chunks)
        return futures

    def _hand_over(self, chunks: Sequence[Chunk]) -> None:
        """Give chunks to those that carry them, all of them even if this is interrupted: the run waits for each."""
        left = iter(chunks)
        chunk = None
        try:
            for chunk in left:
                chunk.transport.submit(chunk)
        except BaseException:
            for again in [*([] if chunk is None else [chunk]), *left]:  # one that comes twice is known
                again.transport.submit(again)
            raise

    def _take_back(self, chunks: Sequence[Chunk], error: BaseException) -> None:
        """End chunks with what went wrong before they were queued."""
        self.context.journal.remove([chunk.name for chunk in chunks])
        for chunk in chunks:
            chunk.settle_all(error)
            self.registry.close(chunk)

    def submit_held(
        self, payload: Payload, options: Options, patience: float, before: Announce = lambda calls: None
    ) -> list[ProminenceFuture[Any]]:
        """Queue the first calls, each as a chunk, and the others when those have told how to divide them.

        ``patience``: seconds after which they are divided anyway. Otherwise as `submit`.
        """
        count, most = len(payload.arguments), self.settings.max_workers
        wave = first_wave(count, most)
        spans = [range(n, n + 1) for n in range(wave)] + ([range(wave, count)] if count > wave else [])
        run_id, jobs = self.context.run_id, self._jobs

        chunks: list[Chunk] = []

        def make(first: int) -> list[Chunk]:
            chunks.extend(
                Chunk(
                    run_id, first + s.start, self._futures(first + s.start, len(s)), options, payload.part(s, s), jobs
                )
                for s in spans
            )
            return chunks

        self._start()
        try:
            self.registry.admit(count, make)
            futures = [call for chunk in chunks for call in chunk.calls]
            before(futures)
            for chunk in chunks:
                self._keep(chunk)
            if count > wave:
                self._held_back.hold(chunks[:wave], chunks[-1], most, patience)
        except BaseException as error:
            self._take_back(chunks, error)
            raise
        self._hand_over(chunks[:wave])
        return futures

    def _divide(self, chunk: Chunk, size: int) -> None:
        """Queue the calls of a chunk that was held back, in chunks of this size."""
        if size >= chunk.size:
            chunk.transport.submit(chunk)
            return

        def make() -> list[Chunk]:
            spans = [range(start, min(start + size, chunk.size)) for start in range(0, chunk.size, size)]
            return [chunk.part(span, span, chunk.attempt, chunk.transport) for span in spans]

        parts, failed = put_in_parts(self.context.journal, self.registry, chunk, make)
        for part in parts:
            if failed is None:
                part.transport.submit(part)
            else:
                part.settle_all(failed)
                self.registry.close(part)
        if parts:  # else the run has broken
            chunk.release()

    def _futures(self, first: int, count: int) -> list[ProminenceFuture[Any]]:
        return [ProminenceFuture(first + at, self.settings.cancel_running) for at in range(count)]

    def _division_failed(self, error: BaseException) -> None:
        break_down(self.registry, "division of calls", error)

    def _resend(self, chunk: Chunk, again: list[Again]) -> None:
        """Have calls of a chunk sent once more, now or later."""
        payload, run_id = chunk.payload, self.context.run_id
        if payload is None:
            return  # it may be repeated, but the run has just broken

        def make() -> list[Chunk]:
            transport: Transport = self._route(payload, chunk.options)
            return [
                chunk.part(
                    range(group.positions[0], group.positions[-1] + 1),
                    group.positions,
                    chunk.attempt + 1,
                    self._delayed if group.delay else transport,
                    group.resources,
                )
                for group in again
            ]

        parts = self.registry.add(make)
        self.context.log.info("run %s: job %s left no outcome; its calls are sent again", run_id, chunk.job_id)
        for part, group in zip(parts, again, strict=bool(parts)):  # none: the run has broken
            if not self.registry.is_open(part):
                continue  # it was cancelled meanwhile
            try:
                self._keep(part)
            except OSError:  # the journal's: its calls have been told, the others go on
                continue
            if group.delay:
                self._delayed.put(part, group.delay)
                self._jobs.look_soon()
            else:
                part.transport.submit(part)

    def _route(self, payload: Payload, options: Options) -> Transport:
        """Choose what is to carry such calls."""
        if payload.waits is not None:
            return self._dependents
        return self._pool if self._pool is not None and self._pool.accepts(payload, options) else self._jobs

    def reroute(self, chunk: Chunk) -> None:
        """Have an open chunk sent that has lost what carried it."""
        if chunk.payload is None:
            return  # the run has just broken
        chunk.transport = self._route(chunk.payload, chunk.options)
        chunk.transport.submit(chunk)

    def _overflow(self, chunk: Chunk) -> None:
        """Have a chunk sent as a job that no warm worker can be given."""
        chunk.transport = self._jobs
        chunk.transport.submit(chunk)
        if chunk.calls and chunk.cancelled():  # on the way
            self._jobs.discard(chunk)

    def _send_delayed(self) -> float | None:
        """Send what has waited for long enough; return the seconds until there is more to do, None if nothing waits."""
        return self._delayed.due()

    def _forward(self, chunk: Chunk) -> None:
        """Send a call that has waited for others."""
        if chunk.payload is None or not self.registry.is_open(chunk):
            return
        transport = self._route(chunk.payload, chunk.options)
        chunk.began = time.time()  # it has waited for calls, not for the service
        transport.submit(chunk)
        chunk.transport = transport
        if chunk.calls and chunk.cancelled():  # while nothing carried it
            transport.discard(chunk)

    def _keep(self, chunk: Chunk) -> None:
        """Put the chunk into the journal, if there is one."""
        if chunk.payload is None:
            return  # it was cancelled meanwhile
        try:
            self.context.journal.put(chunk)
        except BaseException as error:
            chunk.settle_all(error)
            self.registry.close(chunk)
            raise

    def adopt(
        self, snapshot: RunSnapshot, plan: AdoptionPlan, options: Options, *, owns: bool
    ) -> list[ProminenceFuture[Any]]:
        """Look after the calls of a run that another program has begun; return the futures of all, in their order.

        Args:
            options: of calls whose own the journal does not have.
            owns: that program has ended: what its workers have lost can be sent again.
        """
        futures = self._futures(0, plan.count)
        for index, error in plan.missing.items():
            settle(futures[index], False, error)
        self.context.journal.remove(plan.obsolete)
        if snapshot.scan is not None:
            self._follower = WorkerFollower(
                self.context, self.registry, self._settler, snapshot.scan, owns=owns, reroute=self.reroute
            )
        if self._pool is not None:
            self._pool.first_number = snapshot.next_worker
        self._start()
        made = make_chunks(plan, futures, options, self._carrier)
        self.registry.adopt([chunk for _, chunk in made], plan.count)
        arrays = snapshot.in_arrays()
        for item, chunk in made:
            if not item.is_unsent:
                chunk.began = None  # nobody here knows
            if item.is_unsent:
                chunk.transport.submit(chunk)
            elif not item.is_with_worker:
                array = arrays.get(item.calls)
                if array is not None:
                    array.add(chunk)
                self._jobs.adopt(chunk, array, snapshot.job_ids)
        if self._follower is not None:
            self._follower.follow([chunk for item, chunk in made if item.is_with_worker])
        self._jobs.look_soon()
        return futures

    def _carrier(self, item: AdoptedChunk, payload: Payload | None, options: Options) -> Transport:
        """Choose what is to carry a chunk that another program has sent, or was to send."""
        if item.is_with_worker and self._follower is not None:
            return self._follower
        return self._jobs if payload is None or not item.is_unsent else self._route(payload, options)

    # -- warm workers ----------------------------------------------------------------------------------------------

    @property
    def is_warm(self) -> bool:
        """Whether calls go to warm workers."""
        return self._pool is not None

    def scale(self, workers: int) -> None:
        """Have so many warm workers at least. ValueError, RuntimeError: see `ProminenceExecutor.scale`."""
        if self._pool is None or self.settings.warm is None:
            raise RuntimeError("this executor has no warm workers: it was made without workers='warm'")
        if not 0 <= workers <= self.settings.warm.max_workers:
            most = self.settings.warm.max_workers
            raise ValueError(f"workers must be 0 to max_workers, {most}, not {workers!r}")
        self._pool.scale(workers)

    def workers(self) -> list[WorkerInfo]:
        """List the warm workers."""
        return self._pool.workers() if self._pool is not None else []

    # -- the end ---------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        """Start the threads, unless they run, or no more calls are taken: RuntimeError or BrokenRunError then."""
        with self._starting:
            if self._started:
                return  # whether calls are taken, `admit` says
            self.registry.check_open()
        # In a thread of its own, to which no signal comes: an interrupt between them would leave half of them.
        starter = threading.Thread(target=self._start_threads, name=f"prominence-start-{self.context.run_id}")
        starter.start()
        starter.join()

    def _start_threads(self) -> None:
        with self._starting, breaking(self.registry, "start"):
            if self._started:
                return  # another thread was quicker, or the run is over
            self._started = True
            self._clock.start()
            if self._pool is not None:
                self._pool.start()
            self._jobs.start()

    def shutdown(self, *, wait: bool, cancel: bool, at_exit: bool = False) -> None:
        """Take no more calls; end when the open ones have ended. Blocks for that if ``wait``.

        ``at_exit``: the program has ended, perhaps by an error, and after a moment it is said what it still waits for.
        """
        if os.getpid() != self._process:
            return  # a forked child has copies of everything but the threads: nothing here is its own
        with self._starting:
            self.registry.stop_admitting()
            never_used, self._started = not self._started, True
        if cancel:
            for future in self.registry.futures():
                future.cancel()
            self._delayed.give_up()
        if never_used:
            self._end()
        self._jobs.look_soon()
        # A callback that waited here would wait for itself.
        if wait and threading.current_thread() not in self._threads():
            say_at = time.monotonic() + _MOMENT if at_exit else math.inf
            while not self._ended.wait(_GLANCE):
                if time.monotonic() > say_at:
                    say_at = math.inf
                    self._say_what_is_awaited()

    def _say_what_is_awaited(self) -> None:
        if calls := sum(chunk.size for chunk in self.registry.chunks()):
            text = "the program's end waits for %d calls of run %s; Ctrl-C ends that, and %s their jobs"
            what = "leaves" if self.leaves_jobs else "deletes"
            self.context.log.warning(text, calls, self.context.run_id, what)

    @property
    def has_ended(self) -> bool:
        """Whether nothing is left of it in this program."""
        return self._ended.is_set()

    def _threads(self) -> set[threading.Thread]:
        transports: list[Transport | None] = [self._jobs, self._pool, self._follower, self._dependents]
        own = [transport.threads() for transport in transports if transport is not None]
        return self._held_back.threads().union(*own)

    def leave_on_interrupt(self, how_to_go_on: str) -> None:
        """Leave what is outstanding when the program is interrupted, unless its user, or its service's end, says no."""
        self._how_to_go_on = how_to_go_on
        self.leaves_jobs = self.leaves_jobs or (self.settings.on_interrupt is None and self.context.lasts)

    def interrupt(self) -> None:
        """Delete the jobs that are outstanding, or leave them, and end soon: the program was interrupted."""
        if os.getpid() != self._process:
            return  # as in `shutdown`: the jobs are the parent's, and the threads that would delete them are not here
        self.registry.stop_admitting()
        chunks = self.registry.chunks()
        if not chunks:
            return
        if self.leaves_jobs:
            self._left = True
            said = report_left(self.context, chunks, self._jobs, self.is_warm, self._how_to_go_on)
            self.registry.fail(ProminenceError("the program was interrupted and left its jobs at the service"))
            self.context.connection.stop_repeating()  # nobody waits for anything that a service away would answer
        else:
            if not self.context.connection.reached:
                self.context.connection.stop_repeating()  # nobody has anything that could be deleted
            said = delete(self.context, self.registry.chunks, self._ended)
        sys.stderr.write(f"run {self.context.run_id} interrupted: {said}\n")
        if self._left:
            await_end(self.context, self._ended)

    def _lost_service(self, error: ProminenceError) -> None:
        """Give up: there is no service any more, nor what it had."""
        self.registry.fail(error)
        self.context.stopping.set()
        self.context.connection.close()  # what still repeats a request ends
        self._jobs.look_soon()

    def _end(self) -> None:
        """Let go of threads, sockets and the service, in the tracker's thread: everything is settled."""
        self.context.stopping.set()
        parts: list[Transport | None] = [self._dependents, self._pool, self._follower, self._jobs]
        transports = [transport for transport in parts if transport is not None]
        closing: list[Callable[[], None]] = [self.context.deferred.fetch, self._held_back.close]
        closing += [partial(transport.close, self._left) for transport in transports]
        closing += [self._clock.stop, self.context.connection.close, self.context.journal.close, self._stop_service]
        try:
            for close in closing:
                with breaking(self.registry, "end"):  # all that follows is closed all the same
                    close()
        finally:
            self._ended.set()
