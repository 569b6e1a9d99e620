"""What of a sweep is under way: sends calls, and writes down what comes back.

Futures are settled by the executor's threads, whose callbacks only put them aside; a thread that lives while there is
something to write keeps them in the records, many in one transaction, and then wakes whoever waits. So what a user has
seen is on disk, and a slow disk holds up no executor. It knows nothing of parameters, tables or files.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import BrokenExecutor, Future, TimeoutError  # not the builtin one before Python 3.11
from functools import partial
from typing import Any

from .calling import Measured
from .carriers import Calls, Carrier
from .endings import Endings
from .records import DONE, ENDED, FAILED, PENDING, SENT, Identity, Outcome, Records, State

LOST = "lost"  # ended in this program, but without an outcome

_AT_ONCE = 500  # calls that are noted and sent together
_GLANCE = 1.0  # seconds: a signal that comes just before a wait begins is only seen when the wait ends

_log = logging.getLogger("prominence_executor")


class Course:
    """The calls of one sweep in this program. Its methods may be called from any thread.

    Args:
        code: the digest of the function's code.
        arguments: makes the keyword arguments of a call.
    """

    def __init__(
        self, carrier: Carrier, records: Records, code: str, arguments: Callable[[Identity], Mapping[str, Any]]
    ) -> None:
        self._carrier = carrier
        self._records = records
        self._code = code
        self._endings = Endings(code)
        self._arguments = arguments
        self._changed = threading.Condition()  # guards what follows
        self._status: dict[Identity, str] = {}
        self._finished: list[Identity | None] = []  # in their order; None: it has been sent again since
        self._open = 0  # calls that have not finished
        self._futures: dict[Identity, Future[Any]] = {}
        self._found: set[Identity] = set()  # that an earlier program has sent
        self._lost: dict[Identity, BaseException] = {}
        self._arrived: deque[tuple[Identity, Future[Measured]]] = deque()
        self._is_writing = False
        self._broken: BaseException | None = None

    # -- calls begin -------------------------------------------------------------------------------------------------

    def begin(self, states: Mapping[Identity, State]) -> None:
        """Take these calls in this order: what has ended is finished, what is on its way is awaited, the rest is sent.

        Blocks for some requests for each unfinished run.
        """
        with self._changed:
            for identity, state in states.items():
                self._status[identity] = state.status
                if state.status in ENDED:
                    self._finished.append(identity)
                else:
                    self._open += 1
            self._changed.notify_all()
        on_the_way = {identity: state for identity, state in states.items() if state.status == SENT}
        followed = self._follow_earlier(on_the_way)
        self._send(
            [identity for identity, state in states.items() if state.status not in ENDED and identity not in followed]
        )

    def again(self, identities: Sequence[Identity]) -> None:
        """Send calls again that have finished."""
        self._records.forget(identities)
        sent = set(identities)
        with self._changed:
            self._finished = [None if identity in sent else identity for identity in self._finished]
            for identity in identities:
                self._status[identity] = PENDING
                self._lost.pop(identity, None)
                self._open += 1
        self._send(identities)

    def _follow_earlier(self, calls: Mapping[Identity, State]) -> set[Identity]:
        """Await what earlier programs have sent; return what has been found."""
        by_run: dict[str | None, list[Identity]] = {}
        for identity, state in calls.items():
            by_run.setdefault(state.run_id, []).append(identity)
        followed: set[Identity] = set()
        for run_id, identities in by_run.items():
            found = self._carrier.find(run_id) if run_id else None
            if found is None and run_id:
                _log.warning("run %s is not at this service: its %d calls are sent again", run_id, len(identities))
            for identity in identities:
                number = calls[identity].call
                future = None if found is None or number is None else found.get(number)
                if future is not None:
                    followed.add(identity)
                    self._found.add(identity)
                    self._follow(identity, future)
        return followed

    def _send(self, identities: Sequence[Identity]) -> None:
        for start in range(0, len(identities), _AT_ONCE):
            batch = identities[start : start + _AT_ONCE]
            calls: Calls = [(identity, self._arguments(identity)) for identity in batch]
            try:
                futures = self._carrier.send(calls, self._note)
            except BaseException as error:
                self._lose(dict.fromkeys(identities[start:], error))  # else a loop would wait for them
                raise
            for identity, future in zip(batch, futures, strict=True):
                self._follow(identity, future)

    def _note(self, numbered: Sequence[tuple[Identity, int | None]]) -> None:
        self._records.sending(self._carrier.run_id, self._code, numbered)

    def _follow(self, identity: Identity, future: Future[Measured]) -> None:
        with self._changed:
            self._status[identity] = SENT
            self._futures[identity] = future
        future.add_done_callback(partial(self._arrive, identity))

    # -- outcomes come -----------------------------------------------------------------------------------------------

    def _arrive(self, identity: Identity, future: Future[Measured]) -> None:
        """Take note that a call has ended; in whatever thread that happens."""
        with self._changed:
            self._arrived.append((identity, future))
            if self._is_writing:
                return
            self._is_writing = True
        try:
            threading.Thread(target=self._write, name="prominence-sweep").start()
        except RuntimeError:  # the interpreter is ending
            self._write()

    def _write(self) -> None:
        while True:
            with self._changed:
                batch = list(self._arrived)
                self._arrived.clear()
                if not batch:
                    self._is_writing = False
                    self._changed.notify_all()
                    return
            try:
                self._keep(batch)
            except BaseException as error:  # noqa: BLE001  whatever happened, nobody may wait for ever
                with self._changed:
                    self._broken = self._broken or error
                    self._changed.notify_all()

    def _keep(self, batch: Sequence[tuple[Identity, Future[Measured]]]) -> None:
        outcomes: list[Outcome] = []
        lost: dict[Identity, BaseException] = {}
        repeated: list[Identity] = []
        for identity, future in batch:
            ending = self._endings.of(identity, future, is_found=identity in self._found)
            if isinstance(ending, Outcome):
                outcomes.append(ending)
            elif ending is None:
                repeated.append(identity)
            else:
                lost[identity] = ending
        kept = self._records.ended(outcomes) if outcomes else []
        with self._changed:
            self._status.update({outcome.identity: outcome.status for outcome in kept})
            self._finished += [outcome.identity for outcome in kept]
            self._open -= len(kept)
            self._found.difference_update(repeated)
            self._lose(lost)
        if repeated:
            _log.warning(
                "%d calls of an earlier run are not at the service any more: they are sent again", len(repeated)
            )
            self._send(repeated)

    def _lose(self, lost: Mapping[Identity, BaseException]) -> None:
        """Note calls that have no outcome, and will have none in this program."""
        with self._changed:
            self._status.update(dict.fromkeys(lost, LOST))
            self._lost.update(lost)
            self._finished += lost
            self._open -= len(lost)
            for error in lost.values():
                if isinstance(error, BrokenExecutor):
                    self._broken = self._broken or error
            self._changed.notify_all()

    # -- for users ---------------------------------------------------------------------------------------------------

    def arrivals(self, look: Callable[[], None] = lambda: None) -> Iterator[Identity]:
        """Yield the calls as they finish, those first that have; blocks between them, and ends when none is open.

        ``look``: called in between, about once a second while nothing comes.

        Raises:
            BrokenExecutor, StoreError: nothing more will come, or can be kept.
        """
        at = 0
        while True:
            look()
            with self._changed:
                if at >= len(self._finished):
                    if self._broken is not None:
                        raise self._broken
                    if not self._open:
                        return
                    self._changed.wait(_GLANCE)
                came = self._finished[at : at + 1]  # one alone: while it is looked at, others may be sent again
            at += len(came)
            yield from filter(None, came)

    def status_of(self, identity: Identity) -> str:
        """Return where a call stands: pending, sent, running, done, failed, lost."""
        with self._changed:
            status, future = self._status[identity], self._futures.get(identity)
        return "running" if status == SENT and future is not None and future.running() else status

    def counts(self) -> dict[str, int]:
        """Return how many calls stand where."""
        with self._changed:
            identities = list(self._status)
        counts = dict.fromkeys((PENDING, SENT, "running", DONE, FAILED, LOST), 0)
        for identity in identities:
            counts[self.status_of(identity)] += 1
        return counts

    def future_of(self, identity: Identity) -> Future[Any] | None:
        """Return the executor's future of a call, if this program has one."""
        with self._changed:
            return self._futures.get(identity)

    def outcome_of(self, identity: Identity, timeout: float | None) -> Outcome:
        """Wait for a call and return what has become of it; TimeoutError if it does not end in time."""
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._changed:
            while self._status[identity] not in (*ENDED, LOST):
                if self._broken is not None:
                    raise self._broken
                left = _GLANCE if deadline is None else min(_GLANCE, deadline - time.monotonic())
                if left <= 0:
                    raise TimeoutError("the point has not ended in time")
                self._changed.wait(left)
            if (error := self._lost.get(identity)) is not None:
                return Outcome(identity, LOST, error=error, code=self._code)
        return self._records.outcome(identity)

    def with_status(self, *statuses: str) -> list[Identity]:
        """Return the calls that stand there, in the order in which they were entered."""
        with self._changed:
            return [identity for identity, status in self._status.items() if status in statuses]

    @property
    def is_idle(self) -> bool:
        """Whether nothing is on its way or being written."""
        with self._changed:
            return not self._is_writing and all(future.done() for future in self._futures.values())
