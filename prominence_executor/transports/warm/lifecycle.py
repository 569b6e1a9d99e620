"""How warm workers come and go: starts and ends them, finds the lost ones, and has what they had run again.

A part of the scheduler, in whose thread all of it runs, and whose `PoolState` it writes. It decides nothing itself
(batches.py and workers.compare do), and has the senders do what takes its time; only `watch` asks the service.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from ...client.status import is_held
from ...errors import (
    AuthenticationError,
    InvalidRequestError,
    JobDeletedError,
    JobError,
    JobFailedError,
    ProminenceError,
    ServiceUnavailableError,
    WorkerLostError,
)
from ...run import diagnosis, retry
from ...run.chunk import REFUSED, Chunk
from ...run.context import RunContext
from ...run.parts import put_in_parts
from ...run.registry import ChunkRegistry
from ...run.slots import Claim, Slots
from . import batches
from .batches import Fate
from .events import EndFailed, Event, MailboxCleared, WorkerCreated, WorkersEnded
from .loads import is_too_large_for_keys
from .mailboxes import Mailboxes
from .options import WarmOptions
from .outcomes import OutcomeSettler, release
from .places import Places
from .room import room_for, surplus
from .state import PoolState, Worker
from .workers import WorkerJobs, compare, watch_pause


class InBackground(Protocol):
    """Has a sender do something, and tell the scheduler what came of it."""

    def __call__(self, task: Callable[..., Iterable[Event]], *args: Any) -> None:
        """Return at once."""


class Lifecycle:
    """The coming and going of one run's workers.

    Args:
        read: reads what the workers say: their last words, before they are given up.
        others: adds to what calls with jobs of their own want what a courier does (courier.py).
        count: how many jobs of that one there are.
    """

    def __init__(
        self,
        context: RunContext,
        registry: ChunkRegistry,
        state: PoolState,
        mailboxes: Mailboxes,
        outcomes: OutcomeSettler,
        options: WarmOptions,
        slots: Slots,
        places: Places,
        *,
        in_background: InBackground,
        read: Callable[[], object],
        others: Callable[[Claim], Claim],
        count: Callable[[], int],
    ) -> None:
        self._context = context
        self._registry = registry
        self._state = state
        self._mailboxes = mailboxes
        self._outcomes = outcomes
        self._options = options
        self._slots = slots
        self._places = places
        self._jobs = WorkerJobs(context, options)
        self._in_background = in_background
        self._read = read
        self._others = others
        self._count = count
        self._watched = -math.inf  # time.monotonic() of the last look at the jobs
        self.numbers = range(1, 1)  # of the workers that were started
        self.in_doubt = False  # there may be a worker's job that nobody knows

    # -- starting and ending ---------------------------------------------------------------------------------------

    def plan(self) -> None:
        """Start and end workers as what waits wants it."""
        state = self._state
        self._make_room()
        plan = batches.plan_workers(state, self._options, time.monotonic())
        state.kind = plan.kind
        self._end(plan.end)
        self.publish()
        for _ in range(self._slots.take(plan.start) if plan.start else 0):
            assert plan.kind is not None  # noqa: S101  else none is to be started
            number = self.numbers.stop
            self.numbers = range(self.numbers.start, number + 1)
            worker = state.workers[number] = Worker(number, plan.kind.options, time.monotonic(), plan.kind.modules)
            worker.known = worker.brought
            wire = worker.options.resources.json()
            self._context.history.worker_began(number, wire.get("cpus", 1) * wire.get("nodes", 1))
            self._in_background(self._jobs.create, number, plan.kind, batches.request_share(state, self._options))

    def _make_room(self) -> None:
        """End workers that are in the way of calls that have jobs of their own."""
        state, slots = self._state, self._slots
        claim = self._others(slots.claim(bool(state.workers)))
        state.room = room_for(state, self._options, slots.most, claim) if claim.jobs or claim.waiting else None
        state.yielded = min(state.yielded, state.room.wanting) if state.room else 0
        needed = batches.workers_needed(state, soon=False)
        over = surplus(state, needed, batches.workers_needed(state) - needed)
        state.yielded += sum(bool(worker.nonce) for worker in over)
        self._end(over)

    def publish(self) -> None:
        """Say how many workers there are: jobs of calls have what is left."""
        state = self._state
        head = next(iter(state.queue), None)
        self._slots.publish(len(state.workers) + state.ending + self._count(), head.first if head else None)

    def retire(self) -> None:
        """End workers that have been idle for long."""
        over = batches.retire(self._state, self._options, time.monotonic())
        self._state.shrinks = False
        self._end(over)

    def _end(self, workers: list[Worker]) -> None:
        now = time.monotonic()
        young = [worker for worker in workers if worker.nonce and worker.is_young(now)]
        ids = [worker.job_id for worker in workers if worker.job_id is not None and worker not in young]
        if ids:
            self._state.ending += len(ids)
            self._in_background(self._end_jobs, ids)
        for worker in young:
            self._in_background(self._stop, worker.number, worker.nonce, worker.batch + 1)
        for worker in workers:
            self._state.workers.pop(worker.number)
            self._context.history.worker_ended(worker.number)
            self.clear(worker)

    def _end_jobs(self, ids: list[int]) -> list[Event]:
        return [*self._jobs.end(ids), WorkersEnded(len(ids))]

    def _stop(self, number: int, nonce: str, batch: int) -> list[Event]:
        """Have a young worker end by itself, in a sender."""
        try:
            self._mailboxes.stop(number, nonce, batch)
        except ProminenceError as error:
            self._context.log.info("run %s: worker %d was not told to end: %s", self._context.run_id, number, error)
            return [EndFailed()]
        return []

    def clear(self, worker: Worker) -> None:
        """Remove what an idle worker has said and was read."""

        def clear(number: int) -> list[Event]:
            self._mailboxes.clear(number)
            return [MailboxCleared(number)]

        worker.unread, worker.sending = False, True
        self._in_background(clear, worker.number)

    def remove(self, worker: Worker, why: str = "") -> None:
        """Let go of a worker that is no more."""

        def empty(number: int) -> list[Event]:
            self._mailboxes.empty(number)
            return []

        self._state.workers.pop(worker.number, None)
        self.leave_places(worker)
        self._context.history.worker_ended(worker.number, why)
        self._in_background(empty, worker.number)

    def leave_places(self, worker: Worker) -> None:
        """Give back the places in the object store that a worker's batch had."""
        self._places.release([*worker.places, worker.result_place])
        worker.places, worker.result_place = [], None

    def created(self, event: WorkerCreated) -> None:
        """Note a worker's job."""
        worker = self._state.workers.get(event.number)
        self._state.job_ids.add(event.job_id)
        if worker is None:  # it was ended before its job was known
            self._in_background(self._jobs.end, [event.job_id])
        else:
            worker.job_id, worker.began = event.job_id, event.began

    def not_created(self, number: int, error: BaseException) -> None:
        """Look for a worker's job that may exist; else start another one, or give up."""
        worker = self._state.workers.get(number)
        if worker is None:
            return
        self._state.failed_starts += isinstance(error, ProminenceError) and error.is_server_fault
        if batches.is_doubtful(error, self._state.failed_starts):
            worker.doubted = worker.began = time.monotonic()
            self._watched, self.in_doubt = -math.inf, True
        else:
            self._start_failed(worker, error)

    def _start_failed(self, worker: Worker, error: BaseException) -> None:
        state, health = self._state, self._context.health
        state.workers.pop(worker.number, None)
        self._context.history.worker_ended(worker.number, f"it could not start: {type(error).__name__}")
        if isinstance(error, ServiceUnavailableError) and health.unanswered() < health.timeout:
            return
        if isinstance(error, AuthenticationError):
            self._registry.fail(error)
            return
        state.failed_starts += 1
        if batches.ends_calls(error, state.failed_starts):
            state.failed_starts = 0
            # Calls that want another image, say, may have more luck.
            self.fail([chunk for chunk in state.queue if chunk.options.of_worker == worker.options], error)

    # -- what is lost ----------------------------------------------------------------------------------------------

    def fail(self, chunks: Iterable[Chunk], error: BaseException) -> None:
        """Give chunks an error; the journal keeps them."""
        for chunk in chunks:
            self._state.forget(chunk)
            if isinstance(error, InvalidRequestError):
                chunk.status = REFUSED
            chunk.settle_all(error)
            release(self._registry, chunk)

    def requeue(self, chunks: Iterable[Chunk]) -> None:
        """Put chunks that have left their worker before all others, once more."""
        again = [chunk for chunk in chunks if self._registry.is_open(chunk)]
        for chunk in again:
            chunk.job_id, chunk.status = None, "unsent"
        self._state.requeue(again)
        self._state.large.update(filter(is_too_large_for_keys, again))

    def requeue_lost(self, worker: Worker, job: dict[str, Any] | None) -> None:
        """Have run again, elsewhere, what a worker had that is lost, or has forgotten its batch.

        ``job``: in detail, where it is known to have ended.
        """
        chunks, worker.chunks = worker.chunks, {}
        self.leave_places(worker)
        reason: JobError = WorkerLostError("its warm worker was lost with it", job_id=worker.job_id)
        if job is not None:
            reason = diagnosis.job_error(job)
        again: list[Chunk] = []
        for number, chunk in chunks.items():
            was_running = worker.running in (None, number)
            losses = chunk.losses + was_running
            fate = batches.fate_of(chunk, losses, self._options.max_attempts)
            if was_running and retry.learns_from(chunk.options.retries, reason) and chunk.may_repeat():
                self._in_background(self._outcomes.repeat, chunk, reason, job)
            elif fate is Fate.TERMINATED:
                error = JobDeletedError("the call was ended by terminate()", job_id=worker.job_id)
                self.fail([chunk], error)
            elif fate is Fate.GIVEN_UP:
                self._in_background(self._outcomes.give_up, chunk, losses, worker.job_id, job)
            else:
                if was_running:
                    chunk.lost(reason)
                again += self._split(chunk) if fate is Fate.SPLIT else [chunk]
        self.requeue(again)

    def _split(self, chunk: Chunk) -> list[Chunk]:
        """Divide a chunk into chunks of one open call each, which take its place."""

        def make() -> list[Chunk]:
            return [chunk.part(range(at, at + 1), [at], chunk.attempt, chunk.transport) for at in chunk.unsettled()]

        parts, _ = put_in_parts(self._context.journal, self._registry, chunk, make)  # it may be without the journal
        if parts:  # else the run has broken
            self._state.forget(chunk)
            chunk.release()
        return parts

    # -- the jobs --------------------------------------------------------------------------------------------------

    def watch(self) -> None:
        """Now and then: which workers' jobs are still there?"""
        state, now = self._state, time.monotonic()
        if not state.workers or now < self._watched + watch_pause(state, now):
            return
        compared = compare(state, self._jobs.active(), self._context.run_id, self.numbers, now)
        for number, job_id in compared.found.items():
            state.workers[number].job_id = job_id
            state.job_ids.add(job_id)
        for worker in compared.given_up:
            state.workers.pop(worker.number)  # another one is started in its place
            self._context.history.worker_ended(worker.number, "nobody knows whether its job was created")
        if compared.strays:  # nobody would give them a call
            self._in_background(self._jobs.end, compared.strays)
        self._mind_held(compared.held, self._context.health.now())
        if compared.gone:
            self._reap(compared.gone)
        for worker in compared.silent:
            if worker.chunks and worker.number in state.workers:
                self._context.log.warning("run %s: worker %d is silent", self._context.run_id, worker.number)
                self._places.fail("a worker is silent that was to use it", [*worker.places, worker.result_place])
                self._delete(worker)
                self.remove(worker, "it was silent")
                self.requeue_lost(worker, None)
        self._watched = now

    def _delete(self, worker: Worker) -> None:
        if worker.job_id is not None:
            self._in_background(self._jobs.end, [worker.job_id])

    def _mind_held(self, held: Mapping[int, Mapping[str, Any]], now: float) -> None:
        """Jobs that are held: one that has not started may be released; of the others, the process is no more."""
        state = self._state
        for worker in list(state.workers.values()):
            job = held.get(worker.number)
            if job is None:
                worker.held_since = None
                continue
            worker.held_since = now if worker.held_since is None else worker.held_since
            seconds = now - worker.held_since
            if not worker.nonce and seconds < self._context.health.timeout:
                continue
            if worker.job_id is not None and self._jobs.end([worker.job_id]):
                continue  # it could not be deleted, and may still run what it has: the next look tries again
            if worker.nonce:
                self.remove(worker, "the service held its job")
                self.requeue_lost(worker, dict(job))
            else:
                if not any(other.nonce for other in state.workers.values()):
                    state.failed_starts = batches.STARTS  # its calls have waited for long enough
                text = f"the service has held the job for {seconds:.0f} s, and it has been deleted"
                self._start_failed(worker, JobFailedError(text, job_id=worker.job_id, status=job["status"]))

    def _reap(self, workers: list[Worker]) -> None:
        """Let go of workers whose jobs have left the active list, if they have ended."""
        jobs = self._jobs.ended(workers)
        ended = [(worker, jobs[worker.job_id]) for worker in workers if worker.job_id in jobs]
        if not ended:
            return
        self._read()
        self._state.eventful_at = time.monotonic()
        for worker, job in ended:
            if is_held(job):  # it was, and is not active any more
                self._delete(worker)
            if worker.nonce:
                why = "" if job["status"] == "completed" else f"{job['status']} {job.get('statusReason') or ''}".strip()
                self.remove(worker, why)
                self.requeue_lost(worker, job)
            else:
                self._start_failed(worker, self._jobs.why(worker.number, job))
