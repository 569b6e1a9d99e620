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
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from ..errors import BrokenRunError, JobDeletedError, NotFoundError, ProminenceError
from ..images.files import LocalImages
from ..run.chunk import RUN_LABEL, Array, Chunk, Options
from ..run.future import ProminenceFuture
from ..run.names import job_name, parse_job_name
from ..run.objects import Objects
from ..transports.jobs.dispatcher import Dispatcher
from ..transports.jobs.tracker import Tracker
from ..transports.warm.pool import WarmOptions, WarmPool
from .auto_chunks import Held, first_wave

if TYPE_CHECKING:
    from ..client.client import ProminenceClient
    from ..payload.calls import Payload
    from ..run.journal import Journal
    from ..transports.warm.follower import Follower

T = TypeVar("T")

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
        lazy: bool,
        warm: WarmOptions | None = None,
        at_end: Callable[[], None],
        journal: Journal | None = None,
        attached: bool = False,
    ) -> None:
        self.client = connect()
        self.run_id = run_id
        self.key = key
        self.service_timeout = service_timeout
        self.broken: BaseException | None = None
        self.stopping = threading.Event()  # set when nothing more is to be waited for
        self.ended = threading.Event()
        self.max_workers = max_workers
        self.reached = False  # True once the service has answered anything in this run
        self._away_since: float | None = None  # time.monotonic() of the first request without an answer
        self.in_doubt = False  # True once a POST has gone unanswered
        self.lazy = lazy  # large results stay at the service until they are asked for
        self._process = os.getpid()
        self.leaves = on_interrupt == "leave"  # its jobs at the service, when the program is interrupted
        self._connect = connect
        self._at_end = at_end
        self._changed = threading.Condition()
        self._open: dict[str, Chunk] = {}  # by name
        self._sent: set[str] = set()  # names of the open chunks that count against max_workers
        self._held: list[Held] = []
        self._unseen: set[str] = set()  # names of the open chunks in arrays whose job has not been seen
        self._ids: set[int] = set()  # of all jobs that were accepted for this run
        self._had_arrays = False
        self._closing = False
        self._started = False
        self._next_call = 0
        self._journal = journal
        self._attached = attached  # reads and cancels what another program has submitted
        self.objects = Objects()
        self.images = LocalImages()
        self.dispatcher = Dispatcher(self)
        self.tracker = Tracker(self, poll_interval)
        self.pool: WarmPool | None = None
        self.left = False  # an interrupted program has left its jobs and workers at the service
        self._warm = warm
        self._first_worker = 1
        self._follower: Follower | None = None  # of the warm workers of the program that began the run

    # -- the executor's side ---------------------------------------------------------------------------------------

    def submit(self, payload: Payload, options: Options) -> list[ProminenceFuture[Any]]:
        """Queue the calls as one chunk; returns their futures at once (a journal has been written then).

        Raises:
            RuntimeError: after shutdown.
            BrokenRunError: the run is broken.
            OSError: the journal cannot be written.
        """
        with self._changed:
            self.check_open()
            futures: list[ProminenceFuture[Any]] = [
                ProminenceFuture(self._next_call + position) for position in range(len(payload.arguments))
            ]
            chunk = Chunk(self, self._next_call, list(futures), options, payload)
            self._next_call += chunk.size
            self._add(chunk)
        self._queue(chunk)
        return futures

    def submit_held(self, payload: Payload, options: Options, patience: float) -> list[ProminenceFuture[Any]]:
        """Queue the first calls, each as a chunk, and the others when those have told how to divide them.

        ``patience``: seconds after which they are divided anyway. Otherwise as `submit`.
        """
        with self._changed:
            self.check_open()
            count, start = len(payload.arguments), self._next_call
            futures: list[ProminenceFuture[Any]] = [ProminenceFuture(start + n) for n in range(count)]
            wave = first_wave(count, self.max_workers)
            parts = [range(n, n + 1) for n in range(wave)] + ([range(wave, count)] if count > wave else [])
            chunks = [
                Chunk(self, start + part.start, futures[part.start : part.stop], options, payload.part(part, part))
                for part in parts
            ]
            self._next_call += count
            for chunk in chunks:
                self._add(chunk)
            if count > wave:
                held = Held(chunks[:wave], chunks[-1], self.max_workers, time.monotonic() + patience)
                for chunk in chunks:
                    chunk.held = held
                self._held.append(held)
        for chunk in chunks[:wave]:
            self._queue(chunk)
        if count > wave:
            self._keep(chunks[-1])
        return futures

    def release(self) -> float | None:
        """Divide what is held, where it is time; returns the time by which this must be called again."""
        now = time.monotonic()
        for held in [held for held in self._held if held.asks_for_slots(now)]:
            resources: dict[str, Any] = {}
            with suppress(ProminenceError):  # then it goes by what it has seen
                resources = self.client.resources()
            held.hear_of_slots(resources)
        with self._changed:
            sizes = [(held, held.size(now)) for held in self._held]
            self._held = [held for held, size in sizes if size is None]
        for held, size in sizes:
            if size is not None:
                self.log.info("run %s: %d calls go in chunks of %d", self.run_id, held.rest.size, size)
                self._divide(held.rest, size)
        return min((held.until for held in self._held), default=None)

    def _divide(self, chunk: Chunk, size: int) -> None:
        """Queue the calls of a chunk that was held, in chunks of this size."""
        with self._changed:
            if chunk.name not in self._open:
                return
            chunk.held = None
            parts = [chunk]
            if size < chunk.size:
                del self._open[chunk.name]
                parts = []
                for start in range(0, chunk.size, size):
                    positions = range(start, min(start + size, chunk.size))
                    parts.append(self._part(chunk, positions, positions, chunk.attempt))
        for part in parts:
            self._queue(part)
        if parts != [chunk]:
            self.forget(chunk)
            chunk.let_go()

    def _part(self, chunk: Chunk, positions: range, wanted: Iterable[int], attempt: int) -> Chunk:
        """Some of a chunk's calls as a chunk of their own; the lock is held."""
        assert chunk.payload is not None  # noqa: S101  it has not been sent, or may be repeated
        payload = chunk.payload.part(positions, wanted)
        calls = chunk.calls[positions.start : positions.stop]
        part = Chunk(self, chunk.first + positions.start, calls, chunk.options, payload, attempt)
        part.losses, part.needs = chunk.losses, chunk.needs
        self._add(part)
        return part

    def _add(self, chunk: Chunk) -> None:
        """Count the chunk as open; the lock is held."""
        self._open[chunk.name] = chunk
        if not self._started:
            self._started = True
            self.dispatcher.start()
            if self._warm is not None:
                self.pool = WarmPool(self, self._warm, self.dispatcher.packer, self._first_worker)
            self.tracker.start()

    def _queue(self, chunk: Chunk) -> None:
        self._keep(chunk)
        self.resubmit(chunk)

    def resubmit(self, chunk: Chunk) -> None:
        """Have an open chunk sent."""
        if self.pool is not None and self.pool.takes(chunk):
            self.pool.put(chunk)
        else:
            self.dispatcher.put(chunk)

    def _keep(self, chunk: Chunk) -> None:
        """Put the chunk into the journal, if there is one."""
        try:
            if self._journal is not None:
                self._journal.put(chunk)
        except BaseException as error:
            chunk.settle_all(error)
            self.close(chunk)
            raise

    def adopt(
        self, chunks: list[Chunk], job_ids: set[int], next_call: int, follower: Follower | None, first_worker: int
    ) -> None:
        """Look after the chunks of a run that another program has begun; those without a job are to be sent.

        ``follower``: looks after those that warm workers have. ``first_worker``: the number of the next one.
        """
        now = time.monotonic()
        with self._changed:
            self._follower, self._first_worker = follower, first_worker
            self._next_call = next_call
            self._ids |= job_ids
            for chunk in chunks:
                self._add(chunk)
                chunk.accepted_at = now
                if chunk.array is not None and chunk.job_id is None:
                    chunk.accepted(None)
                    self._unseen.add(chunk.name)
                if (chunk.job_id is not None or chunk.array is not None) and not chunk.warm:
                    self._sent.add(chunk.name)
        for chunk in chunks:
            if chunk.job_id is None and chunk.array is None and not chunk.warm:
                self.resubmit(chunk)
        if follower is not None:
            follower.start()
        self.tracker.look_soon()

    @property
    def is_warm(self) -> bool:
        """Whether calls go to warm workers."""
        return self._warm is not None

    def scale(self, workers: int) -> None:
        """Have so many warm workers at least. ValueError, RuntimeError: see `ProminenceExecutor.scale`."""
        if self._warm is None:
            raise RuntimeError("this executor has no warm workers: it was made without workers='warm'")
        if not 0 <= workers <= self._warm.max_workers:
            raise ValueError(f"workers must be 0 to max_workers, {self._warm.max_workers}, not {workers!r}")
        self._warm = replace(self._warm, min_workers=workers)
        if self.pool is not None:
            self.pool.scale(workers)

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
            futures = [call for chunk in self._open.values() for call in chunk.calls]
            never_used = not self._started
            self._started = True
            self._changed.notify_all()
        if cancel:
            for future in futures:
                future.cancel()
        if never_used:
            self.end()
        self.tracker.look_soon()
        own = self.tracker.threads() | self.dispatcher.threads() | (self.pool.threads() if self.pool else set())
        own |= self._follower.threads() if self._follower else set()
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
        said = self._leave(chunks) if self.leaves else self._delete(chunks)
        sys.stderr.write(f"run {self.run_id} interrupted: {said}\n")

    def _leave(self, chunks: list[Chunk]) -> str:
        self.left = True
        jobs = sum(chunk.job_id is not None and not chunk.warm for chunk in chunks)
        unsent = sum(chunk.size for chunk in chunks if chunk.job_id is None)
        with_workers = sum(chunk.size for chunk in chunks if chunk.job_id is not None and chunk.warm)
        self.break_off(ProminenceError("the program was interrupted and left its jobs at the service"))
        said = f"its {jobs} outstanding jobs are left at the service"
        if self._warm is not None:
            said = f"its warm workers are left at the service with {with_workers} calls, and {jobs} other jobs"
        if unsent:
            said += f", {unsent} calls had not been sent" + (" and are in the journal" if self._journal else "")
        return said + f"; ProminenceExecutor.attach({self.run_id!r}) continues it"

    def _delete(self, chunks: list[Chunk]) -> str:
        for chunk in chunks:
            for call in chunk.calls:
                call.cancel()
            if not chunk.cancelled():
                chunk.terminated = True
                chunk.settle_all(JobDeletedError("the program was interrupted", job_id=chunk.job_id))
                if chunk.warm:
                    self.settled(chunk)
                elif chunk.job_id is not None:
                    self._remove(chunk)
        self.ended.wait(_INTERRUPTED)
        done = "have been deleted" if self.ended.is_set() else "are being deleted; the service does not answer"
        return f"its {len(chunks)} outstanding jobs {done}"

    def terminate(self, chunk: Chunk) -> bool:
        """Delete a running job in the background; the tracker then tells its futures. False if it is over."""
        with self._changed:
            if chunk.name not in self._open or chunk.removing or chunk.ended:
                return False
            chunk.terminated = True
            accepted = chunk.job_id is not None
        if chunk.carrier is not None:
            chunk.carrier.terminate(chunk)
        elif accepted:
            self.dispatcher.terminate(chunk)
        else:  # a call that is to have another attempt; the sender will see
            chunk.settle_all(JobDeletedError("the call was ended by terminate() before its next job began"))
            if chunk.array is not None:
                self.discard(chunk)
        return True

    def futures(self) -> list[ProminenceFuture[Any]]:
        """The calls that are open."""
        with self._changed:
            return [call for chunk in self._open.values() for call in chunk.calls if not call.done()]

    def ask(self, question: Callable[[ProminenceClient], T]) -> T:
        """Ask the service something, also after the run has ended."""
        if not self.ended.is_set():
            return question(self.client)
        with self._connect() as client:
            return question(client)

    # -- the threads' side -----------------------------------------------------------------------------------------

    def in_flight(self) -> list[Chunk]:
        """The open chunks that the service has and that are still wanted; and those whose job is still to be seen."""
        with self._changed:
            return [
                chunk
                for chunk in self._open.values()
                if not chunk.ended
                and not chunk.warm
                and (not chunk.cancelled() if chunk.job_id is not None else chunk.name in self._unseen)
            ]

    def image_of(self, chunk: Chunk) -> str | None:
        """The image of a chunk's job; None when another program has chosen it."""
        return None if self._attached and chunk.payload is None else self.images.name_of(chunk.options.image)

    def finished_with(self) -> bool:
        """True when the run takes no more calls and none is open."""
        with self._changed:
            return self._closing and not self._open

    def wait_for_room(self, chunk: Chunk) -> bool:
        """Wait until ``max_workers`` allows one more job; False when the chunk is not wanted any more."""
        with self._changed:
            while self.max_workers is not None and len(self._sent) >= self.max_workers and not self.broken:
                self._changed.wait()
            if chunk.name not in self._open:
                return False
            self._sent.add(chunk.name)
            return True

    def is_full(self) -> bool:
        """True when ``max_workers`` allows no more jobs now."""
        with self._changed:
            return self.max_workers is not None and len(self._sent) >= self.max_workers

    def sending(self, chunks: list[Chunk]) -> None:
        """Their jobs are about to be created: from now on they may exist. BrokenRunError: the run was broken off."""
        with self._changed:
            if not any(chunk.name in self._open for chunk in chunks):
                raise BrokenRunError(f"run {self.run_id} is broken: {self.broken}")
        if self._journal is not None:
            self._journal.sending(chunk.name for chunk in chunks)

    def accepted(self, chunk: Chunk, job_id: int) -> None:
        """The service has taken the job."""
        with self._changed:
            chunk.accepted(job_id)
            self._ids.add(job_id)
        self.forget(chunk)

    def accepted_array(self, array: Array, workflow_id: int) -> None:
        """The service has taken the array; the ids of its jobs show when it has made them."""
        chunks = list(array.left.values())
        with self._changed:
            self._had_arrays = True
            array.workflow_id, array.accepted_at = workflow_id, time.monotonic()
            for chunk in chunks:
                if chunk.name in self._open:
                    chunk.accepted(None)
                    self._unseen.add(chunk.name)
        self.forget(*chunks)

    def meet(self, jobs: list[dict[str, Any]]) -> None:
        """Of these jobs, some may be of arrays and seen for the first time."""
        if not self._unseen:
            return
        unwanted = []
        with self._changed:
            for job in jobs:
                calls = None if job["id"] in self._ids else parse_job_name(self.run_id, str(job.get("name") or ""))
                chunk = self._open.get(job_name(self.run_id, calls)) if calls else None
                if chunk is None or chunk.array is None or chunk.name not in self._unseen:
                    continue
                self._unseen.discard(chunk.name)
                self._ids.add(job["id"])
                chunk.job_id = job["id"]
                chunk.array.seen = max(chunk.array.seen, chunk.array.position(chunk))
                if not chunk.is_wanted():
                    unwanted.append(chunk)
        for chunk in unwanted:
            self.discard(chunk)

    def answered(self) -> None:
        """The service has answered."""
        self.reached, self._away_since = True, None

    def unanswered(self) -> float:
        """A request got no answer; returns the seconds for which that has been so."""
        now = time.monotonic()
        if self._away_since is None:
            self._away_since = now
        return now - self._away_since

    @property
    def away(self) -> bool:
        """True while the service does not answer."""
        return self._away_since is not None

    def is_open(self, chunk: Chunk) -> bool:
        """False once the chunk is over."""
        with self._changed:
            return chunk.name in self._open

    def forget(self, *chunks: Chunk) -> None:
        """The journal need not keep these chunks: they are at the service, or nobody wants them."""
        if self._journal is not None:
            self._journal.remove(chunk.name for chunk in chunks)

    def repeat(self, chunk: Chunk, groups: list[list[int]]) -> None:
        """The chunk's job ended without an outcome of the calls at these positions: send them once more."""
        with self._changed:
            again = [
                self._part(chunk, range(wanted[0], wanted[-1] + 1), wanted, chunk.attempt + 1) for wanted in groups
            ]
        self.log.info("run %s: job %s left no outcome; its calls are sent again", self.run_id, chunk.job_id)
        for new in again:
            self._queue(new)

    def split(self, chunk: Chunk) -> list[Chunk]:
        """The open calls of a chunk as chunks of one call each, which take its place."""
        with self._changed:
            if chunk.name not in self._open:
                return []
            wanted = [position for position, call in enumerate(chunk.calls) if not call.done()]
            parts = [self._part(chunk, range(at, at + 1), [at], chunk.attempt) for at in wanted]
        for part in parts:
            part.carrier = chunk.carrier
            with suppress(OSError):  # the journal's: its call has been told
                self._keep(part)
        self.settled(chunk)
        self.forget(chunk)
        return parts

    def doubles(self, jobs: list[dict[str, Any]]) -> list[int]:
        """Which of these active jobs are second ones of their attempt: the later of two, or of a chunk that is over.

        Of a chunk whose job still waits, an earlier one takes its place.
        """
        doubles = []
        with self._changed:
            for job in jobs:
                job_id, name = job["id"], str(job.get("name") or "")
                calls = parse_job_name(self.run_id, name)
                if self._attached or job_id in self._ids or not calls:
                    continue
                chunk = self._open.get(job_name(self.run_id, calls))
                if chunk is None:
                    doubles.append(job_id)
                elif chunk.job_id is not None:  # else its sender is about to learn of it
                    if job_id < chunk.job_id and chunk.status != "running":
                        job_id, chunk.job_id = chunk.job_id, job_id
                        self._ids.add(chunk.job_id)
                    doubles.append(job_id)
        return doubles

    def delete_arrays(self) -> None:
        """Everything is over: a workflow of this run that is still active came of a POST that was given up."""
        if self._attached or not self._had_arrays:
            return
        for workflow in self.client.list_workflows(constraint=(RUN_LABEL, self.run_id)):
            with suppress(NotFoundError):  # it has ended meanwhile
                self.client.delete_workflow(workflow["id"])

    def discard(self, chunk: Chunk) -> None:
        """All calls of the chunk were cancelled: delete its job, if it has one yet.

        If not, its sender will see; in an array, `meet` will, unless the whole array can go.
        """
        array = chunk.array
        if array is not None:
            array.wanted.discard(array.position(chunk))
        if chunk.carrier is not None:
            chunk.carrier.discard(chunk)
            return
        if chunk.job_id is not None or (array and array.workflow_id is not None and not array.is_wanted()):
            self._remove(chunk)
            return
        self.forget(chunk)
        if chunk.held is not None and chunk is chunk.held.rest:  # no sender will see it
            self.settled(chunk)

    def settled(self, chunk: Chunk) -> None:
        """All calls of the chunk have their outcome: what was uploaded for it alone can go."""
        chunk.ended = True
        if chunk.uploaded:
            self._remove(chunk)
        else:
            self.close(chunk)

    def _remove(self, chunk: Chunk) -> None:
        with self._changed:
            if chunk.name not in self._open or chunk.removing:
                return
            chunk.removing = True
            if chunk.array is not None:
                chunk.array.wanted.discard(chunk.array.position(chunk))
        self.dispatcher.delete(chunk)

    def close(self, chunk: Chunk) -> None:
        """The chunk is over."""
        with self._changed:
            self._open.pop(chunk.name, None)
            self._sent.discard(chunk.name)
            self._unseen.discard(chunk.name)
            array = chunk.array
            was_wanted = array is not None and array.is_wanted()
            if array is not None:
                array.wanted.discard(array.position(chunk))
            over = array is not None and bool(array.left.pop(array.position(chunk), False)) and not array.left
            self._changed.notify_all()
            last = self._closing and not self._open
        chunk.let_go()
        if array is not None and over and array.bundle and not self.away:
            self.dispatcher.discard_object(array.bundle)
        elif array is not None and array.workflow_id is not None and was_wanted and not array.is_wanted():
            for other in list(array.left.values()):
                self._remove(other)
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
            self._unseen.clear()
            self._held.clear()
            self._changed.notify_all()
        for chunk in chunks:
            broken = BrokenRunError(f"run {self.run_id} is broken: {error}")
            broken.__cause__ = error
            chunk.settle_all(broken)
            chunk.let_go()
        self.tracker.look_soon()

    def end(self) -> None:
        """The last act, in the tracker's thread: everything is settled; let go of threads, sockets and the service."""
        self.stopping.set()
        if self.pool is not None:
            self.pool.stop(leave=self.left)
        if self._follower is not None:
            self._follower.stop()
        self.dispatcher.stop()
        self.client.close()
        if self._journal is not None:
            self._journal.close()
        self._at_end()
        self.ended.set()


def new_run_id(name: str | None) -> str:
    """A name for a run that no other run has: readable, sortable, fit for a label, a job's name and a file name."""
    import secrets

    return f"{name or 'px'}-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}"
