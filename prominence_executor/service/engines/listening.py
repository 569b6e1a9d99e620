"""How a batch engine hears of its runs: by what they say in one folder, and from the batch system, of all at once.

Who says nothing and is gone has ended by a cause that the batch system knows. For the engine's thread.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from pathlib import Path

from ..node.outcome import Outcome
from ..node.ticket import BEGAN, ENDED, SIGNALLED, Places, outcome_of
from ..state.shortage import NotNow
from . import ends
from .base import Jobs
from .ledger import BatchRun, Ledger
from .system import BatchSystem, Gone, State, SystemAway

log = logging.getLogger("prominence_executor.local")

_LOOK = (0.05, 1.0)  # seconds between two looks into the folder, while something comes and after a while
_MOST_QUESTIONS = 4  # about single jobs, each time that all are asked about
_LAG = 10.0  # seconds in which what a node has written is seen here: network file systems cache


class Listening:
    """For the engine's thread alone. `look_seconds`: until the next look."""

    def __init__(
        self, system: BatchSystem, jobs: Jobs, ledger: Ledger, places: Places, directory: Path, poll_seconds: float
    ) -> None:
        self._system, self._jobs, self._ledger, self._places = system, jobs, ledger, places
        self._directory, self._poll_seconds = directory, poll_seconds
        self._prefix = ledger.batches.prefix()
        self._polled_at = 0.0
        self._questions = 0  # about single jobs that may still be asked in this turn
        self.look_seconds = _LOOK[0]

    def expect(self) -> None:
        """Look often again: something was submitted."""
        self.look_seconds = _LOOK[0]

    def hear(self) -> None:
        """Look for what runs have said."""
        names = sorted(name for name in os.listdir(self._places.said) if name.endswith((BEGAN, ENDED)))
        news = False
        for name in names:
            ticket, suffix = os.path.splitext(name)
            run = self._ledger.of_ticket(ticket)
            if run is None:
                (self._places.said / name).unlink(missing_ok=True)
            elif suffix == BEGAN and run.began is None:
                news = True
                self._begin(run)
            elif suffix == ENDED:
                news = True
                self._end_said(run)
        self.look_seconds = _LOOK[0] if news else min(self.look_seconds * 1.1, _LOOK[1])

    def ask(self) -> None:
        """Ask for the states of all jobs, when it is time, and end those that are gone and say nothing."""
        now = time.monotonic()
        runs = self._ledger.runs()
        if not runs or now < self._polled_at + self._poll_seconds:
            return
        self._polled_at, self._questions = now, _MOST_QUESTIONS
        try:
            states = self._system.poll(self._prefix)
            for run in runs:
                batch = self._ledger.batch_of(run)
                if batch is not None and batch.id is not None:
                    self._compare(run, states.get(run.place), now)
        except SystemAway as error:
            log.warning("the batch system gives no answer, it is asked again: %s", error)

    def end_cancelled(self) -> bool:
        """Have the batch system end what was cancelled; False when it gave no answer."""
        ledger = self._ledger
        with ledger.condition:
            cancelled, ledger.cancelled = ledger.cancelled, []
        unsent = [run for run in cancelled if self._number(run) is None]
        for run in unsent:
            self._places.ticket(run.ticket).unlink(missing_ok=True)  # should it start, it finds nothing
        numbers = [number for run in cancelled if (number := self._number(run))]
        try:
            if numbers:
                self._system.cancel(numbers)
        except SystemAway:
            with ledger.condition:
                ledger.cancelled += cancelled
            return False
        now = time.monotonic()
        for run in unsent:
            self._ledger.forget(run)
        for run in cancelled:
            run.missed = run.missed or now
        return True

    def conclude(self, run: BatchRun, outcome: Outcome) -> None:
        """Store what became of a run, and forget it."""
        again = False
        if not run.over:
            if run.began is None and outcome.execution:
                self._begin(run)
            run.over = True
            if run.commands:
                outcome.execution["commands"] = list(run.commands)
            spec = self._jobs.spec(run.job)
            again = self._jobs.insist(lambda: self._jobs.ended(spec, outcome))
        self._ledger.forget(run)
        if again:
            self._jobs.submit([run.job])

    def _begin(self, run: BatchRun) -> None:
        began = self._places.heard(run.ticket, BEGAN)
        try:
            if began is None or (not run.over and not self._jobs.begun(run.job) and not self._jobs.is_open(run.job)):
                return
        except NotNow as error:
            log.error("that job %d runs is stored later: %s", run.job, error)
            return
        run.began = began

    def _end_said(self, run: BatchRun) -> None:
        """Take a run's outcome; why it was ended by a signal the batch system says, as soon as it knows."""
        said = self._places.heard(run.ticket, ENDED)
        if said is None:
            return
        outcome = outcome_of(said)
        if outcome.status != SIGNALLED:
            self.conclude(run, outcome)
        elif run.over:
            self._ledger.forget(run)
        elif run.missed is None:
            run.missed = time.monotonic()
            self._polled_at = 0.0

    def _compare(self, run: BatchRun, state: State | None, now: float) -> None:
        """Look at a run as the batch system sees it."""
        if state is not None and not isinstance(state, Gone):
            if not run.over and self._places.heard(run.ticket, ENDED) is None:
                run.missed = None
            return
        run.missed = run.missed or now
        if run.over:
            self._ledger.forget(run)
            return
        said = self._places.heard(run.ticket, ENDED)
        if said is not None and said["status"] != SIGNALLED:
            self.conclude(run, outcome_of(said))
            return
        cause = state.cause if state is not None else ""
        known = cause in (ends.WALLTIME, ends.MEMORY, ends.CANCELLED, ends.NODE, ends.PREEMPTED)
        if not known and now - run.missed < _LAG:
            cause = self._asked_why(run)
            if not cause:
                return
        gone = Gone(cause, state.detail if state is not None else "")
        outcome = ends.outcome_of(gone, str(self._directory), sys.executable)
        if said is not None:
            outcome.execution = said["execution"]
        self.conclude(run, outcome)

    def _asked_why(self, run: BatchRun) -> str:
        """Ask about one job; "" when nobody knows, or enough was asked for now."""
        number = self._number(run)
        if not number or not self._questions:
            return ""
        self._questions -= 1
        return self._system.why_gone(number)

    def _number(self, run: BatchRun) -> str | None:
        batch = self._ledger.batch_of(run)
        if batch is None or batch.id is None:
            return None
        return (
            self._system.numbers(run.place, batch.id, len(batch.tickets)) if batch.id else (run.began or {}).get("id")
        )
