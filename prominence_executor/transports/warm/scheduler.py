"""The thread that has the warm workers of a run: it alone writes what is known of them, and of the chunks that wait.

    threads of users, senders     -- events -->     scheduler     -- tasks -->     senders

Others tell it what has happened by `post`, and read what it has published by `workers`. lifecycle.py has how workers
come and go, exchange.py what goes to them and what they say; what is to be decided, pure functions decide (batches.py,
workers.compare). What takes its time (sending, settling, creating and deleting jobs) is done by the senders, a few
threads, whose answers are events again; its own requests are which of their jobs are there, a lone batch to a service
that lets requests wait, and what all workers say, unless that is heard by the listener (listener.py), whose events are
more of the same.
No other thread may touch a `PoolState` or a `Worker`.
"""

from __future__ import annotations

import math
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, suppress
from functools import partial
from typing import Any, NamedTuple

from ...errors import AuthenticationError, JobDeletedError, ProminenceError, SignatureError, WalltimeExceededError
from ...run.breaking import breaking
from ...run.chunk import Chunk
from ...run.context import RunContext
from ...run.registry import ChunkRegistry
from ...run.slots import Slots
from ...run.threads import StartedPool, start_thread_pool
from . import batches
from .courier import Courier
from .events import (
    BatchFailed,
    BatchSent,
    BatchUnstored,
    ChunkReturned,
    ChunkSettled,
    ChunkUnread,
    CourierCreated,
    CourierLooked,
    Deaf,
    Discarded,
    EndFailed,
    EndsTold,
    Event,
    Heard,
    MailboxCleared,
    RoomChanged,
    Scaled,
    Stopped,
    Submitted,
    Terminated,
    WorkerCreated,
    WorkerNotCreated,
    WorkersEnded,
)
from .exchange import Exchange
from .lifecycle import Lifecycle
from .listener import Listener
from .loads import is_too_large_for_keys
from .mailboxes import Mailboxes
from .options import WarmOptions
from .outcomes import OutcomeSettler
from .places import Places
from .state import PoolState, Worker

_SENDERS = 4
_HEAVY = 1 << 20  # bytes that went other ways for lack of places in the object store, after which there are to be some
_SILENT = 5.0  # seconds in which no worker that has calls was heard, after which one looks all the same
_SENDING = 1.0  # seconds for which nobody looks for what comes of a batch whose request has not been answered
_PLAN = 0.1  # seconds for which nothing is decided about workers while no call waits for one
_ASLEEP = 5.0  # seconds for which the machine must have been asleep, or this program stopped, to matter


_OF_CALLS = (Submitted, Heard, BatchSent, ChunkSettled, Discarded)  # what says nothing of workers, as a rule


class Published(NamedTuple):
    """A worker as other threads see it."""

    number: int
    job_id: int | None
    state: str
    calls: int
    seen: float  # time.monotonic(); 0.0 before it has said something
    requests: int


class Scheduler:
    """The one writing thread; it ends after `Stopped`."""

    def __init__(
        self,
        context: RunContext,
        registry: ChunkRegistry,
        outcomes: OutcomeSettler,
        mailboxes: Mailboxes,
        options: WarmOptions,
        slots: Slots,
        places: Places,
        overflow: Callable[[Chunk], None],
    ) -> None:
        self._context = context
        self._registry = registry
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._quiet: deque[Event] = deque()  # what decides nothing, and rouses nobody; taken in with the next event
        self._hears = False  # other events, or a look, come soon
        self._senders: StartedPool | None = None
        self._published: tuple[Published, ...] = ()
        self.thread = threading.Thread(target=self._loop, name=f"prominence-workers-{context.run_id}", daemon=True)
        # Of the thread alone:
        self._state = state = PoolState(options.min_workers)
        self._courier = Courier(context, places, slots, options.max_workers, self._in_background)
        self._places = places
        self._overflow = overflow
        parts = (context, registry, state, mailboxes, outcomes, options)
        self._lifecycle = Lifecycle(
            *parts,
            slots,
            places,
            in_background=self._in_background,
            read=lambda: self._exchange.read(),
            others=self._courier.add_to,
            count=lambda: self._courier.counts,
        )
        self._exchange = Exchange(
            *parts,
            lifecycle=self._lifecycle,
            places=places,
            in_background=self._in_background,
            publish=self._publish,
            post=self.post,
        )
        self._listener = Listener(context.run_id, mailboxes, self.post, self._guard)
        self._stopping = False
        self._planned = -math.inf  # time.monotonic() when it was last decided about workers
        self._plan_at: float | None = None  # when that is to be done again, though nothing happens
        self._born: set[int] = set()  # jobs that the service has taken since the thread ended
        self._asleep = time.monotonic() - context.health.now()  # seconds, from an arbitrary beginning
        self._mailboxes = mailboxes

    def start(self, first_number: int) -> None:
        """Start the threads; the workers are numbered from ``first_number`` on."""
        self._lifecycle.numbers = range(first_number, first_number)
        self._senders = start_thread_pool(_SENDERS, f"prominence-warm-{self._context.run_id}", self._guard)
        self._listener.start()
        self.thread.start()

    # -- from other threads ----------------------------------------------------------------------------------------

    def post(self, event: Event) -> None:
        """Tell the thread of something; returns at once."""
        if isinstance(event, ChunkSettled) and self._hears:
            self._quiet.append(event)
        else:
            self._events.put(event)

    def workers(self) -> tuple[Published, ...]:
        """Return the workers as they were a moment ago."""
        return self._published

    def threads(self) -> set[threading.Thread]:
        """Return those in which futures are settled."""
        return {self.thread, *(self._senders.threads if self._senders else ())}

    def stop(self) -> None:
        """End the threads; every chunk is settled. Blocks for what they are about."""
        self.post(Stopped())
        self._listener.stop()
        if self._senders is not None:
            if self.thread.is_alive() and threading.current_thread() is not self.thread:
                self.thread.join()
            self._senders.shutdown(wait=True)

    def left(self) -> list[int] | None:
        """Find the ids of the workers' jobs that are left after `stop`; None: only the service knows them all."""
        ids = [worker.job_id for worker in self._state.workers.values() if worker.job_id is not None]
        ids += [self._courier.job_id] if self._courier.job_id is not None else []
        in_doubt = self._lifecycle.in_doubt
        with suppress(queue.Empty):
            while True:  # what the senders have said since the thread ended
                match self._events.get_nowait():
                    case WorkerCreated(_, job_id) | CourierCreated(job_id):
                        ids.append(job_id)
                        self._born.add(job_id)
                    case EndFailed() | WorkerNotCreated():
                        in_doubt = True
        return None if in_doubt else ids

    def let_end(self) -> None:
        """Have workers end when they have done what they have, after `stop`. Blocks for a request for each.

        Raises:
            ProminenceError: one could not be told.
        """
        for worker in self._state.workers.values():
            if worker.nonce:
                self._mailboxes.stop(worker.number, worker.nonce, worker.batch + 1)

    def stop_young(self) -> set[int]:
        """Have workers end by themselves that are too young to be deleted, after `left`; return their jobs' ids."""
        now, fresh = time.monotonic(), set(self._born)
        if self._courier.job_id is not None:
            fresh.add(self._courier.job_id)  # while it runs: it ends as soon as it has left its places
        for worker in self._state.workers.values():
            if worker.is_young(now) and worker.job_id is not None:
                fresh.add(worker.job_id)
                if worker.nonce:
                    with suppress(ProminenceError):  # it is deleted a moment later
                        self._mailboxes.stop(worker.number, worker.nonce, worker.batch + 1)
        return fresh

    @property
    def was_used(self) -> bool:
        """Whether any worker was started; to be asked after `stop`."""
        return bool(self._lifecycle.numbers)

    # -- the thread ------------------------------------------------------------------------------------------------

    def _loop(self) -> None:
        with self._guard():
            while not self._stopping:
                try:
                    self._round()
                except AuthenticationError:
                    raise
                except ProminenceError as error:
                    self._unanswered(error)
                self._publish()
                self._wait()

    def _guard(self) -> AbstractContextManager[None]:
        return breaking(self._registry, "scheduler of warm workers")

    def _round(self) -> None:
        workers = self._state.workers
        asleep = time.monotonic() - self._context.health.now()
        if asleep > self._asleep + _ASLEEP:  # no worker was silent: nobody here has listened
            self._asleep, self._state.eventful_at = asleep, time.monotonic()
        self._mind_large()
        if self._state.listening:  # a call does not wait for what is to be decided about workers
            self._dispatch()
            if self._has_time():
                self._plan_at = self._planned + _PLAN
                return
        self._planned, self._plan_at = time.monotonic(), None
        self._lifecycle.plan()
        if not self._state.listening:
            self._dispatch()
        looks = not self._state.listening or self._exchange.silent() > _SILENT  # what came damaged changes no more
        if looks and any(map(self._may_say_more, workers.values())):
            self._publish()
            self._listen(self._exchange.read())
            self._dispatch()
        self._lifecycle.watch()
        self._lifecycle.retire()
        if not workers:
            self._listen(False)
        elif not self._state.listening:
            self._context.health.answered()

    def _may_say_more(self, worker: Worker) -> bool:
        """Return whether a look could bring something: of a batch that is on its way only when that takes long."""
        on_its_way = worker.sending and self._exchange.silent() < _SENDING
        return not worker.nonce or bool(worker.chunks and not on_its_way)

    def _mind_large(self) -> None:
        """Come by places in the object store when they are needed, and have other jobs for what cannot do without."""
        state = self._state
        state.stores = self._places.ready
        if state.stores:
            state.heavy = 0
            return
        self._courier.wanted = bool(state.large) or state.heavy > _HEAVY
        if self._places.usable:
            first = next(iter(state.queue), None)
            options = first.options.of_worker if first else state.kind.options if state.kind else None
            self._courier.plan(options)
            state.coming = self._courier.job_id is not None
            return
        for chunk in list(state.large):
            state.forget(chunk)
            if chunk.terminated:
                with suppress(OSError):  # the journal's: what stays in it could at worst run again
                    self._context.journal.remove([chunk.name])
                self._lifecycle.fail([chunk], JobDeletedError("the call was ended by terminate() before it began"))
            elif self._registry.is_open(chunk):  # else it is over: an event that says so is on its way
                self._overflow(chunk)

    def _listen(self, hears: bool) -> None:
        """Have workers heard by the thread that does that, if the service allows it; else looks are needed."""
        if hears:
            self._listener.listen()
        elif self._state.listening:
            self._listener.rest()
        self._state.listening = hears

    def _dispatch(self) -> None:
        self._handle_waiting()  # what has been submitted since
        if self._exchange.dispatch():
            self._listener.go_on()

    def _wait(self) -> None:
        """Wait for an event, or until it is time to look again."""
        with suppress(queue.Empty):
            while True:
                event = self._events.get(timeout=self._pause(time.monotonic()))
                self._handle(event)
                if not (isinstance(event, Heard) and self._has_time()):
                    break
        self._handle_waiting()

    def _pause(self, now: float) -> float | None:
        """Return the seconds until it is time to look again, None if only an event can bring something to do."""
        planned = None if self._plan_at is None else max(0.0, self._plan_at - now)
        pauses = batches.pause(self._state, now), self._courier.pause(), planned
        return min((pause for pause in pauses if pause is not None), default=None)

    def _has_time(self) -> bool:
        """Return whether what is to be decided about workers can wait: no call does."""
        return self._state.listening and not self._state.queue and time.monotonic() < self._planned + _PLAN

    def _handle_waiting(self) -> None:
        with suppress(IndexError):
            while True:
                self._handle(self._quiet.popleft())
        with suppress(queue.Empty):
            while True:
                self._handle(self._events.get_nowait())

    def _publish(self) -> None:
        """Show the workers to other threads: before this one waits, and before others learn what it has found out."""
        self._hears = self._state.listening
        self._published = tuple(
            Published(worker.number, worker.job_id, worker.state, worker.calls, worker.seen, worker.requests)
            for worker in self._state.workers.values()
        )
        self._lifecycle.publish()

    def _in_background(self, task: Callable[..., Iterable[Event]], *args: Any) -> None:
        """Have a sender do something, and tell what came of it."""
        assert self._senders is not None  # noqa: S101  they are started before the thread
        self._senders.submit(self._do, partial(task, *args))

    def _do(self, task: Callable[[], Iterable[Event]]) -> None:
        """Do it, in a sender."""
        for event in task():
            self.post(event)

    def _unanswered(self, error: ProminenceError) -> None:
        """Wait for a service that is away, but not forever."""
        if isinstance(error, SignatureError):
            raise error
        given_up = self._context.health.give_up_after(error)
        if given_up is None:
            return
        chunks = list(self._state.queue)
        for worker in self._state.workers.values():
            chunks += worker.chunks.values()
            worker.chunks = {}
        self._lifecycle.fail(chunks, given_up)

    # -- what it is told -------------------------------------------------------------------------------------------

    def _handle(self, event: Event) -> None:  # noqa: C901, PLR0915  a table: one line or three for each kind of event
        state = self._state
        if not isinstance(event, _OF_CALLS):
            self._planned = -math.inf
        match event:
            case Submitted(chunk):
                if not chunk.ended:
                    state.queue[chunk] = None
                    state.large.update([chunk] if is_too_large_for_keys(chunk) else ())
            case ChunkSettled(chunk, seconds):
                state.learn(seconds)
                state.forget(chunk)
            case Discarded(chunk):
                state.forget(chunk)
            case Terminated(chunk):
                self._exchange.terminate(chunk)
            case Heard(said, at):
                if not self._exchange.hear(said, at):
                    self._listen(False)
                if state.is_busy():
                    self._listener.go_on()
                self._context.health.answered()
            case Deaf():
                state.listening = False
            case Scaled(workers):
                state.target, state.shrinks = workers, True
            case Stopped():
                self._stopping = True
            case WorkerCreated():
                self._lifecycle.created(event)
            case WorkerNotCreated(number, error):
                self._lifecycle.not_created(number, error)
            case BatchUnstored():
                self._exchange.unsent(event)
            case CourierCreated():
                self._courier.created(event)
            case CourierLooked():
                self._courier.looked(event)
            case BatchSent() | BatchFailed():
                self._exchange.sent(event)
            case MailboxCleared(number):
                if number in state.workers:
                    state.workers[number].sending = False
            case EndsTold(number):
                if number in state.workers:
                    state.workers[number].telling = False
            case EndFailed():
                self._lifecycle.in_doubt = True
            case RoomChanged():
                pass  # the next round looks
            case WorkersEnded(count):
                state.ending -= count
            case ChunkUnread(chunk, error):
                chunk.lost(error)
                self._lifecycle.requeue([chunk])
            case ChunkReturned(chunk, needed, seconds):
                state.learn(seconds)
                state.needs[chunk] = needed
                chunk.lost(WalltimeExceededError("the walltime of its warm worker was over", job_id=chunk.job_id))
                self._lifecycle.requeue([chunk])
