"""What goes to warm workers, and what they say: deals out batches, and takes in reports.

A part of the scheduler, in whose thread all of it runs (`Exchange._send` in others, but for a lone batch), and whose
`PoolState` it writes. Which batch goes to which worker batches.py decides; what a report says messages.py reads; only
`read` and `_send` ask the service.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from ...client.watching import Watch
from ...errors import AuthenticationError, ProminenceError, ServiceError, SignatureError
from ...payload.calls import Payload
from ...run.chunk import Chunk
from ...run.context import RunContext
from ...run.future import held_callbacks
from ...run.registry import ChunkRegistry
from . import batches
from .events import BatchFailed, BatchSent, BatchUnstored, EndsTold, Event
from .lifecycle import InBackground, Lifecycle
from .loads import BY_KEYS, MOST_BY_KEYS, load_of, make_room_for
from .mailboxes import Mailboxes
from .messages import Ended, Parts, Report, batch_message, read_report
from .options import WarmOptions
from .outcomes import OutcomeSettler, Ran
from .places import Places
from .state import PoolState, Worker

_QUICK = 1 << 14  # bytes of a call's records
_UNSIGNED = 5  # times in a row that what a worker says may be damaged


def _called(callbacks: Iterable[Callable[[], None]]) -> Iterator[Event]:
    """Call callbacks of futures, one after the other, in a sender."""
    for callback in callbacks:
        callback()
    yield from ()


class Way(NamedTuple):
    """How a batch goes to its worker, and comes back."""

    place: str | None  # in the object store, for the batch
    result: str | None  # likewise for what comes of it
    extras: dict[str, Any]  # of the message's header


Settlement = tuple[Ran, list[tuple[Chunk, Ended]]]


class Exchange:
    """Batches and reports of one run's workers.

    Args:
        publish: shows the workers to other threads.
        post: tells the scheduler of something, later.
    """

    def __init__(
        self,
        context: RunContext,
        registry: ChunkRegistry,
        state: PoolState,
        mailboxes: Mailboxes,
        outcomes: OutcomeSettler,
        options: WarmOptions,
        *,
        lifecycle: Lifecycle,
        places: Places,
        in_background: InBackground,
        publish: Callable[[], None],
        post: Callable[[Event], None],
    ) -> None:
        self._context = context
        self._registry = registry
        self._state = state
        self._mailboxes = mailboxes
        self._outcomes = outcomes
        self._options = options
        self._lifecycle = lifecycle
        self._places = places
        self._in_background = in_background
        self._publish = publish
        self._post = post
        self._read_at = 0.0  # time.monotonic() when `read` had its last answer

    def dispatch(self) -> bool:
        """Give batches to idle workers; of one for which there is none, remove what it has said and was read.

        Returns whether there was a batch to give.
        """
        state = self._state
        state.stores = self._places.ready  # other threads may have found out since the last round that there are none
        dealt = batches.dispatch_batches(state, time.monotonic())
        for worker, parts in dealt:
            if not self._find_places(worker, [payload for _, payload in parts]):
                continue
            for chunk, _ in parts:
                state.take(chunk)
                chunk.job_id, chunk.status = worker.job_id, "idle"
            worker.take(chunk for chunk, _ in parts)
            state.eventful_at = time.monotonic()
        rate = batches.request_share(state, self._options)
        here = len(dealt) == 1 and state.listening  # the service answers at once: another thread would take longer
        for worker, parts in dealt:
            if worker.chunks:
                forgotten = make_room_for(worker, [payload for _, payload in parts])
                extras = {"forget": forgotten} if forgotten else {}
                known = frozenset(worker.known)
                way = Way(worker.places[0] if worker.places else None, worker.result_place, extras)
                batch = worker.number, worker.nonce, worker.batch, parts, known, rate, way
                if here and way.place is None:
                    self._send_here(*batch)
                else:
                    self._in_background(self._send, *batch)
        for worker in batches.resting(state, time.monotonic()):
            self._lifecycle.clear(worker)
        self._tell_ends()
        return bool(dealt)

    def _send_here(self, *batch: Any) -> None:
        """Put a batch into a worker's mailbox, in the scheduler's thread; where that fails, a sender goes on."""
        try:
            events = self._send(*batch, patient=False)
        except ServiceError:
            self._in_background(self._send, *batch)
            return
        for event in events:
            if isinstance(event, BatchSent | BatchFailed):
                self.sent(event)

    def _send(
        self,
        number: int,
        nonce: str,
        batch: int,
        parts: Parts,
        known: frozenset[str],
        rate: float,
        way: Way,
        *,
        patient: bool = True,
    ) -> list[Event]:
        """Put a batch into a worker's mailbox.

        Raises:
            ServiceError: it may succeed when it is sent again, and the caller is not ``patient``.
        """
        try:
            message = batch_message(parts, known, rate)
            names, body = message.names, message.body
            header = {**message.header, **way.extras}
            if way.result is not None:
                courier, told = self._places.courier
                header["place"] = way.result
                if courier not in known:
                    header["courier"], names = told, names | {courier}
            if len(body) > BY_KEYS and way.place is not None:
                try:
                    header["stored"], body = self._places.put(way.place, body), b""
                except ProminenceError:
                    if len(body) > MOST_BY_KEYS:
                        return [BatchUnstored(number, nonce)]
            self._mailboxes.send(number, nonce, batch, header, body, patient=patient)
        except AuthenticationError as error:
            self._registry.fail(error)
            return []
        except Exception as error:  # whatever happened, no future may hang
            if isinstance(error, ServiceError) and not patient:
                raise
            return [BatchFailed(number, tuple(chunk for chunk, _ in parts), error)]
        return [BatchSent(number, nonce, names)]

    def sent(self, event: BatchSent | BatchFailed) -> None:
        """Note that a batch has reached its worker's mailbox, or has not."""
        self._state.eventful_at = time.monotonic()
        worker = self._state.workers.get(event.number)
        if worker is None:
            return  # it was lost meanwhile, and what it had runs elsewhere
        worker.sending = False
        if isinstance(event, BatchFailed):
            failed = [chunk for chunk in worker.chunks.values() if chunk in event.chunks]
            worker.chunks = {}
            self._lifecycle.fail(failed, event.error)
        elif event.nonce == worker.nonce and worker.missed_batch != worker.batch:  # else it has nothing of it
            worker.known |= event.names

    def _find_places(self, worker: Worker, payloads: list[Payload]) -> bool:
        """Take places in the object store for a batch, as far as it may need them; False: it cannot be sent now."""
        load = sum(load_of(payload, worker.known) for payload in payloads)
        if not self._state.stores:
            self._state.heavy += load if load > BY_KEYS else 0
            return True
        worker.result_place = self._places.take()
        place = self._places.take() if load > BY_KEYS else None
        if place is None and load > MOST_BY_KEYS:
            self._places.release([worker.result_place])
            worker.result_place = None
            return False
        worker.places = [place] if place is not None else []
        return True

    def unsent(self, event: BatchUnstored) -> None:
        """Put back what could not be sent; its worker still waits for the batch of that number."""
        worker = self._state.workers.get(event.number)
        if worker is None:
            return
        worker.sending = False
        if event.nonce != worker.nonce:
            return  # it has been started again: it has no batch, and what it had waits already
        worker.batch -= 1
        chunks, worker.chunks = worker.chunks, {}
        self._lifecycle.leave_places(worker)
        self._lifecycle.requeue(chunks.values())

    def terminate(self, chunk: Chunk) -> None:
        """Have the process ended that runs a chunk; its worker goes on. It is told with the next `dispatch`."""
        for worker in self._state.workers.values():
            worker.ends = worker.ends or chunk in worker.chunks.values()

    def _tell_ends(self) -> None:
        """Tell workers which chunks are to end: of each all together, and in one thread, as the last word counts."""

        def request(number: int, chunks: list[Chunk]) -> list[Event]:
            self._mailboxes.request_end(number, chunks)
            return [EndsTold(number)]

        for worker in self._state.workers.values():
            if worker.ends and not worker.telling:
                worker.ends, worker.telling = False, True
                ending = [chunk for chunk in worker.chunks.values() if chunk.terminated]
                self._in_background(request, worker.number, ending)

    # -- what the workers say --------------------------------------------------------------------------------------

    def read(self) -> bool:
        """Read all that the workers have said: one request. Whether the next word of theirs may be waited for."""
        watch, began = Watch(), time.monotonic()
        said = self._mailboxes.reports(watch)
        self._read_at = time.monotonic()
        self._state.took = self._read_at - began
        return self._take(said) and watch.waits

    def hear(self, said: Mapping[int, str], at: float) -> bool:
        """Take in what has been read of all workers by then; False: it is to be read again.

        That is so, too, if something was read since: it may be older. The scheduler's next round does it, which copes
        with a service that does not answer.
        """
        return at >= self._read_at and self._take(said)

    def silent(self) -> float:
        """Return for how many seconds nothing has been read."""
        return time.monotonic() - max(self._read_at, self._state.eventful_at)

    def _take(self, said: Mapping[int, str]) -> bool:
        """Take in what the workers say. False: something of it was damaged on its way, and is to be read again."""
        settlements, whole = [], True
        for number, text in said.items():
            worker = self._state.workers.get(number)
            if worker is None or text[:60] == worker.heard:
                continue
            try:
                report = read_report(text, self._context.key, number)
            except ValueError as error:
                worker.unsigned += 1
                if worker.unsigned < _UNSIGNED:
                    whole = False
                    continue
                raise SignatureError(f"what worker {number} says is not signed with this run's key: {error}") from None
            worker.heard, worker.unsigned = text[:60], 0
            settlements.append(self._handle_report(worker, report))
        self._publish()
        settlements = [settlement for settlement in settlements if settlement[1]]
        if len(settlements) == 1 and self._is_quick(*settlements[0]):
            self._settle_here(*settlements[0])
            return whole
        for settlement in settlements:
            self._in_background(self._outcomes.settle, *settlement)
        return whole

    def _is_quick(self, ran: Ran, items: list[tuple[Chunk, Ended]]) -> bool:
        """Whether nothing else goes on, and what came of a call is small: to tell another thread would take longer."""
        chunk, ended = items[0]
        return (
            self._state.listening
            and len(items) == chunk.size == 1
            and ended.place is None
            and len(ended.records) < _QUICK
            and not self._state.queue
            and not self._state.is_busy()
        )

    def _settle_here(self, ran: Ran, items: list[tuple[Chunk, Ended]]) -> None:
        """Settle a call in the scheduler's thread; what its user wants called then, a sender calls."""
        with held_callbacks() as callbacks:
            for event in self._outcomes.settle(ran, items):
                self._post(event)
        if callbacks:
            self._in_background(_called, callbacks)

    def _handle_report(self, worker: Worker, report: Report) -> Settlement:
        """Take in what a worker has said; returns what is to be settled."""
        state, now = self._state, time.monotonic()
        if report.nonce != worker.nonce:  # it has just started; or again, on another machine
            self._lifecycle.requeue_lost(worker, None)
            worker.begin(report.nonce, report.left, now)
            self._context.history.worker_spoke(worker.number, worker.job_id)
        worker.seen, worker.unread, worker.requests = now, True, report.requests
        state.failed_starts = 0
        state.eventful_at = now
        ran = Ran(worker.number, worker.job_id, worker.total)
        if not report.on_batch or report.batch != worker.batch:
            worker.idle_since = now
            if report.ending:
                chunks, worker.chunks = worker.chunks, {}  # it has not begun with them
                self._lifecycle.remove(worker)
                self._lifecycle.requeue(chunks.values())
            return ran, []
        items = self._take_ended(worker, report)
        if worker.result_place is not None and any(isinstance(ended.place, dict) for _, ended in items):
            ran = Ran(*ran[:3], place=worker.result_place)  # given back when it has been read, maybe after the batch
            worker.result_place = None
        returned = [worker.chunks.pop(number) for number in report.returned if number in worker.chunks]
        self._lifecycle.requeue(returned)
        if report.untaken:
            worker.missed()
        worker.running = report.running
        if not report.final:
            for chunk in worker.chunks.values():
                chunk.saw("running")
        else:
            worker.idle_since = now
            if report.unreached:
                self._places.fail("a worker could not reach it", [*worker.places, worker.result_place])
            self._lifecycle.leave_places(worker)
            if worker.chunks:  # it has not said what became of them
                self._lifecycle.requeue_lost(worker, None)
        return ran, items

    def _take_ended(self, worker: Worker, report: Report) -> list[tuple[Chunk, Ended]]:
        """Take from a worker the chunks that have ended since its last report."""
        items = []
        for ended in report.ended:
            chunk = worker.chunks.pop(ended.number, None)
            if chunk is not None:
                worker.calls += chunk.size
                items.append((chunk, ended))
                if isinstance(ended.place, list):
                    self._state.heavy += ended.place[1] or MOST_BY_KEYS
        return items
