"""A `Dispatcher`: brings each chunk of a run to the transport that is to carry it, from wherever its calls come.

They are submitted, held back until it is known how to divide them, wait for other calls, are sent again, or are adopted
from another program. It makes no requests, and decides nothing about the run's end.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

from ..payload.calls import Payload
from ..run.breaking import break_down
from ..run.chunk import Chunk, Transport
from ..run.context import RunContext
from ..run.future import ProminenceFuture, settle
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
from .adoption import AdoptedChunk, AdoptionPlan, RunSnapshot, make_chunks
from .auto_chunks import AutoChunks, first_wave
from .dependents import Dependents
from .settings import RunSettings

Announce = Callable[[Sequence[ProminenceFuture[Any]]], None]


class Dispatcher:
    """Its methods may be called from any thread.

    Args:
        begin: has the run begin, unless it has; raises when it takes no more calls. Called before any are taken.
        ended: called when nothing is left to do, once no more calls are taken.

    Attributes:
        jobs: carries what no other transport does.
        pool: the warm workers, if there are any.
    """

    def __init__(
        self,
        context: RunContext,
        registry: ChunkRegistry,
        settings: RunSettings,
        begin: Callable[[], None],
        ended: Callable[[], None],
    ) -> None:
        self._context = context
        self._registry = registry
        self._settings = settings
        self._begin = begin
        self._settler = Settler(context, self._resend)
        slots = Slots(registry, settings.max_workers)
        self._delayed = DelayedChunks(context, registry, self.reroute)
        self.jobs = JobTransport(
            context,
            registry,
            self._settler,
            slots=slots,
            poll_interval=settings.poll_interval,
            ended=ended,
            later=self._delayed.due,
        )
        registry.on_change = self.jobs.look_soon
        self.pool: WarmPool | None = None
        if settings.warm is not None:
            self.pool = WarmPool(context, registry, self._settler, settings.warm, slots, self._overflow)
        self._held_back = AutoChunks(
            context, divide=self._divide, is_open=registry.is_open, failed=self._division_failed
        )
        self._dependents = Dependents(context, registry, self._forward)
        self._follower: WorkerFollower | None = None  # of the warm workers of the program that began the run

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
        run_id = self._context.run_id
        routed = [(payload, self._route(payload, options)) for payload in payloads]

        def make(first: int) -> Iterator[Chunk]:
            for payload, transport in routed:
                calls = self._futures(first, len(payload.arguments))
                yield Chunk(run_id, first, calls, options, payload, transport)
                first += len(calls)

        return self._admit(sum(len(payload.arguments) for payload in payloads), make, before)

    def submit_held(
        self, payload: Payload, options: Options, patience: float, before: Announce = lambda calls: None
    ) -> list[ProminenceFuture[Any]]:
        """Queue the first calls, each as a chunk, and the others when those have told how to divide them.

        ``patience``: seconds after which they are divided anyway. Otherwise as `submit`.
        """
        count, most = len(payload.arguments), self._settings.max_workers
        wave = first_wave(count, most)
        spans = [range(n, n + 1) for n in range(wave)] + ([range(wave, count)] if count > wave else [])
        run_id = self._context.run_id

        def make(first: int) -> Iterator[Chunk]:
            for span in spans:
                calls = self._futures(first + span.start, len(span))
                yield Chunk(run_id, first + span.start, calls, options, payload.part(span, span), self.jobs)

        def hold(chunks: list[Chunk]) -> list[Chunk]:
            if count > wave:
                self._held_back.hold(chunks[:wave], chunks[-1], most, patience)
            return chunks[:wave]

        return self._admit(count, make, before, hold)

    def _admit(
        self,
        count: int,
        make: Callable[[int], Iterable[Chunk]],
        before: Announce,
        hold: Callable[[list[Chunk]], list[Chunk]] = lambda chunks: chunks,
    ) -> list[ProminenceFuture[Any]]:
        """Take calls, all of them or none, and queue the chunks that ``hold`` lets go.

        ``make``: makes the chunks of so many calls, which are numbered from its argument.
        """
        chunks: list[Chunk] = []

        def noted(first: int) -> list[Chunk]:
            chunks.extend(make(first))
            return chunks

        self._begin()
        try:
            self._registry.admit(count, noted)
            futures = [call for chunk in chunks for call in chunk.calls]
            before(futures)
            for chunk in chunks:
                self._keep(chunk)
            let_go = hold(chunks)
        except BaseException as error:
            self._take_back(chunks, error)
            raise
        self._hand_over(let_go)
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
        self._context.journal.remove([chunk.name for chunk in chunks])
        for chunk in chunks:
            chunk.settle_all(error)
            self._registry.close(chunk)

    def _divide(self, chunk: Chunk, size: int) -> None:
        """Queue the calls of a chunk that was held back, in chunks of this size."""
        if size >= chunk.size:
            chunk.transport.submit(chunk)
            return

        def make() -> list[Chunk]:
            spans = [range(start, min(start + size, chunk.size)) for start in range(0, chunk.size, size)]
            return [chunk.part(span, span, chunk.attempt, chunk.transport) for span in spans]

        parts, failed = put_in_parts(self._context.journal, self._registry, chunk, make)
        for part in parts:
            if failed is None:
                part.transport.submit(part)
            else:
                part.settle_all(failed)
                self._registry.close(part)
        if parts:  # else the run has broken
            chunk.release()

    def _futures(self, first: int, count: int) -> list[ProminenceFuture[Any]]:
        return [ProminenceFuture(first + at, self._settings.cancel_running) for at in range(count)]

    def _division_failed(self, error: BaseException) -> None:
        break_down(self._registry, "division of calls", error)

    def _resend(self, chunk: Chunk, again: list[Again]) -> None:
        """Have calls of a chunk sent once more, now or later."""
        payload, run_id = chunk.payload, self._context.run_id
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

        parts = self._registry.add(make)
        self._context.log.info("run %s: job %s left no outcome; its calls are sent again", run_id, chunk.job_id)
        for part, group in zip(parts, again, strict=bool(parts)):  # none: the run has broken
            if not self._registry.is_open(part):
                continue  # it was cancelled meanwhile
            try:
                self._keep(part)
            except OSError:  # the journal's: its calls have been told, the others go on
                continue
            if group.delay:
                self._delayed.put(part, group.delay)
                self.jobs.look_soon()
            else:
                part.transport.submit(part)

    def _route(self, payload: Payload, options: Options) -> Transport:
        """Choose what is to carry such calls."""
        if payload.waits is not None:
            return self._dependents
        return self.pool if self.pool is not None and self.pool.accepts(payload, options) else self.jobs

    def reroute(self, chunk: Chunk) -> None:
        """Have an open chunk sent that has lost what carried it."""
        if chunk.payload is None:
            return  # the run has just broken
        chunk.transport = self._route(chunk.payload, chunk.options)
        chunk.transport.submit(chunk)

    def _overflow(self, chunk: Chunk) -> None:
        """Have a chunk sent as a job that no warm worker can be given."""
        chunk.transport = self.jobs
        chunk.transport.submit(chunk)
        if chunk.calls and chunk.cancelled():  # on the way
            self.jobs.discard(chunk)

    def _forward(self, chunk: Chunk) -> None:
        """Send a call that has waited for others."""
        if chunk.payload is None or not self._registry.is_open(chunk):
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
            self._context.journal.put(chunk)
        except BaseException as error:
            chunk.settle_all(error)
            self._registry.close(chunk)
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
        self._context.journal.remove(plan.obsolete)
        if snapshot.scan is not None:
            self._follower = WorkerFollower(
                self._context, self._registry, self._settler, snapshot.scan, owns=owns, reroute=self.reroute
            )
        if self.pool is not None:
            self.pool.first_number = snapshot.next_worker
        self._begin()
        made = make_chunks(plan, futures, options, self._carrier)
        self._registry.adopt([chunk for _, chunk in made], plan.count)
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
                self.jobs.adopt(chunk, array, snapshot.job_ids)
        if self._follower is not None:
            self._follower.follow([chunk for item, chunk in made if item.is_with_worker])
        self.jobs.look_soon()
        return futures

    def _carrier(self, item: AdoptedChunk, payload: Payload | None, options: Options) -> Transport:
        """Choose what is to carry a chunk that another program has sent, or was to send."""
        if item.is_with_worker and self._follower is not None:
            return self._follower
        return self.jobs if payload is None or not item.is_unsent else self._route(payload, options)

    def start(self) -> None:
        """Start the threads that carry calls."""
        if self.pool is not None:
            self.pool.start()
        self.jobs.start()

    def cancel(self) -> None:
        """Cancel what can be, and give up what was to be sent again."""
        for future in self._registry.futures():
            future.cancel()
        self._delayed.give_up()

    def _transports(self) -> list[Transport]:
        """List those that there are, in the order in which they end."""
        parts: list[Transport | None] = [self._dependents, self.pool, self._follower, self.jobs]
        return [transport for transport in parts if transport is not None]

    def threads(self) -> set[threading.Thread]:
        """Return its threads, which call callbacks of futures."""
        return self._held_back.threads().union(*(transport.threads() for transport in self._transports()))

    def closing(self, left: bool) -> list[Callable[[], None]]:
        """Return what closes its parts, each to be called whatever becomes of the others.

        ``left``: what the service has of the run stays there.
        """
        return [self._held_back.close, *(partial(transport.close, left) for transport in self._transports())]
