"""How a batch engine hears of its runs: by what they say in one folder, and from the batch system, of all at once.

Who says nothing and is gone has ended by a cause that the batch system knows. For the engine's thread.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from ..node import program
from ..node.outcome import WAITS, Outcome
from ..node.ticket import BEGAN, ENDED, SIGNALLED, Places, outcome_of
from ..sandbox.removal import remove_tree
from ..state.directory import file_system_of
from ..state.shortage import NotNow
from . import ends
from .base import Jobs
from .ledger import BatchRun, Ledger
from .system import BatchSystem, Gone, State, SystemAway, Waiting

log = logging.getLogger("prominence_executor.local")

_GATHER, _LONGEST_GATHER = 0.05, 2.0  # seconds without a further cancellation, and at most, before they are told
_LOOK = 0.05  # seconds between two looks into the folder, while something comes
_TIMES = (
    10.0  # as long as the last question about all jobs took, until the next: it is the more work the more there are
)
_MOST_IN_VAIN = 15  # questions in a row to which a job waits in vain, before it is believed
_MOST_QUESTIONS = 4  # about single jobs, each time that all are asked about
# Seconds after which what a node has written is surely seen here. NFS and the like may keep for a minute that a file
# is not there; cluster file systems see to it that all machines see the same.
_LAG, _LAG_OF_CACHES = 10.0, 75.0
_CACHE = ("nfs", "cifs", "smb", "fuse", "9p", "afs")
_PAUSE = (10.0, 300.0)  # seconds before a job that could not begin is submitted again, the first time and at most
_MARK = re.compile(r"[0-9a-f]{32}")


class Listening:
    """For the engine's thread alone. `look_seconds`: until the next look."""

    def __init__(
        self,
        system: BatchSystem,
        jobs: Jobs,
        ledger: Ledger,
        places: Places,
        directory: Path,
        poll_seconds: float,
        longest_look: float,
    ) -> None:
        self._system, self._jobs, self._ledger, self._places = system, jobs, ledger, places
        self._directory, self._poll_seconds = directory, poll_seconds
        self._longest_look = longest_look
        self._prefix = ledger.batches.prefix()
        self._polled_at = self._poll_took = 0.0
        self._questions = 0  # about single jobs that may still be asked in this turn
        self.look_seconds = _LOOK
        self._lag = lag_of(file_system_of(directory))
        self._sandboxes = Path(os.path.realpath(directory)) / "sandboxes"
        self._ended: set[str] = set()  # tickets of which it was said that they have ended, at the last look
        self._later: list[tuple[float, int]] = []  # when to submit a job again
        self._waits: dict[int, int] = {}  # how often it could not

    def expect(self) -> None:
        """Look often again: something was submitted."""
        self.look_seconds = _LOOK

    def hear(self) -> None:
        """Look for what runs have said."""
        names = sorted(name for name in os.listdir(self._places.said) if name.endswith((BEGAN, ENDED)))
        news = False
        self._ended = {name.removesuffix(ENDED) for name in names if name.endswith(ENDED)}
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
        self.look_seconds = _LOOK if news else min(self.look_seconds * 1.1, self._longest_look)

    def ask(self) -> None:
        """Ask for the states of all jobs, when it is time, and end those that are gone and say nothing."""
        now = time.monotonic()
        runs = self._ledger.runs()
        if not runs or now < self._polled_at + max(self._poll_seconds, _TIMES * self._poll_took):
            return
        self._polled_at, self._questions = now, _MOST_QUESTIONS
        try:
            states = self._system.poll(self._prefix)
            self._poll_took = time.monotonic() - now
            self._refresh()
            for run in runs:
                batch = self._ledger.batch_of(run)
                if batch is not None and batch.id is not None:
                    self._compare(run, states.get(run.place), now)
        except SystemAway as error:
            log.warning("the batch system gives no answer, it is asked again: %s", error)

    def _refresh(self) -> None:
        """Write into the folder of what runs say: that has most file systems look again for what is there."""
        with suppress(OSError):
            tempfile.NamedTemporaryFile(dir=self._places.said).close()

    def end_cancelled(self, closing: Callable[[], bool]) -> bool:
        """Have the batch system end what was cancelled, once nothing more comes.

        False when it gave no answer, or what may run has no number yet by which it could be ended.
        """
        ledger = self._ledger
        with ledger.condition:
            until, count = time.monotonic() + _LONGEST_GATHER, 0
            while len(ledger.cancelled) > count and time.monotonic() < until and not closing():
                count = len(ledger.cancelled)
                ledger.condition.wait_for(closing, timeout=_GATHER)
            cancelled, ledger.cancelled = ledger.cancelled, []
        cancelled = [run for run in cancelled if ledger.of_ticket(run.ticket) is run]  # else it has ended meanwhile
        numbered = [(run, self._number(run)) for run in cancelled]
        unsent = [run for run, number in numbered if not number]
        for run in unsent:
            self._places.ticket(run.ticket).unlink(missing_ok=True)  # should it start, it finds nothing
        numbers = [number for _, number in numbered if number]
        try:
            if numbers:
                self._system.cancel(numbers)
        except SystemAway:
            with ledger.condition:
                ledger.cancelled += cancelled
            return False
        now = time.monotonic()
        for run in cancelled:
            run.missed = run.missed or now
        doubted = [run for run in unsent if not self._let_go(run)]
        with ledger.condition:
            ledger.cancelled += doubted
        return not doubted

    def _let_go(self, run: BatchRun) -> bool:
        """Forget a cancelled run without a number, where it surely does not run; whether it does not."""
        batch = self._ledger.batch_of(run)
        number, fresh = (None, True) if batch is None else (batch.id, batch.name in self._ledger.fresh)
        if may_run(number, fresh=fresh, claimed=self._places.is_claimed(run.ticket)):
            return False
        self._ledger.forget(run)
        return True

    def conclude(self, run: BatchRun, outcome: Outcome) -> None:
        """Store what became of a run, and forget it."""
        again = False
        if not run.over:
            if run.began is None and outcome.execution:
                self._begin(run)
            spec = self._jobs.spec(run.job)
            run.over = True
            if run.began is not None and outcome.execution:
                outcome.execution.setdefault("node", run.began["node"])
            if run.commands:
                outcome.execution["commands"] = list(run.commands)
            again = self._jobs.insist(lambda: self._jobs.ended(spec, outcome))
            if not again and self._jobs.is_open(run.job):
                return  # the service ends, and could not store it: the next one hears it again
        # Before anything else, which may fail: the job is idle again, and nobody but this list knows of it.
        if not again:
            self._waits.pop(run.job, None)
        elif outcome.status == WAITS:
            self._wait(run.job, outcome)
        else:
            self._later.append((time.monotonic(), run.job))
        self._clear(run)
        self._ledger.forget(run)

    def next_due(self) -> float | None:
        """Return when a job is to be submitted again, by the monotonic clock."""
        return min((when for when, _ in self._later), default=None)

    def submit_due(self) -> None:
        """Submit again what is to have another run, and what could not begin after its pause."""
        now = time.monotonic()
        due = [job for when, job in self._later if when <= now]
        if due:
            self._jobs.submit(due)
            self._later = [entry for entry in self._later if entry[0] > now]  # now that it has not failed

    def _wait(self, job: int, outcome: Outcome) -> None:
        """Let a job that could not begin wait: its node is short of something, and would be so again."""
        self._waits[job] = count = self._waits.get(job, 0) + 1
        pause = pause_after(count)
        log.warning("job %d could not begin, it is submitted again in %.0f s: %s", job, pause, outcome.reason)
        self._later.append((time.monotonic() + pause, job))

    def _clear(self, run: BatchRun) -> None:
        """Remove what a run that was killed has left in the service's directory; its processes are gone with it."""
        began = run.began or {}
        if began.get("parent") == str(self._sandboxes) and _MARK.fullmatch(began["mark"]):
            remove_tree(self._sandboxes / began["mark"])

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
            if not run.over and run.ticket not in self._ended:
                run.missed = None
                self._look_at_waiting(run, state)
            return
        run.missed = run.missed or now
        if run.over:
            self._clear(run)
            self._ledger.forget(run)
            return
        said = self._places.heard(run.ticket, ENDED)
        if said is not None and said["status"] != SIGNALLED:
            self.conclude(run, outcome_of(said))
            return
        cause = state.cause if state is not None else ""
        known = cause in (ends.WALLTIME, ends.MEMORY, ends.CANCELLED, ends.NODE, ends.PREEMPTED)
        if not known and now - run.missed < self._lag:
            cause = self._asked_why(run)
            if not cause:
                return
        gone = Gone(cause, state.detail if state is not None else "")
        outcome = ends.outcome_of(gone, str(self._directory), sys.executable, program.__file__)
        if said is not None:
            outcome.execution = said["execution"]
        self.conclude(run, outcome)

    def _look_at_waiting(self, run: BatchRun, state: State) -> None:
        """Fail a job that the batch system will not start, once it has said so for a while."""
        reason = state.reason if isinstance(state, Waiting) and state.in_vain else None
        run.in_vain = 0 if reason is None else run.in_vain + 1
        if run.in_vain > _MOST_IN_VAIN and (number := self._number(run)):
            self._system.cancel([number])
            self.conclude(run, Outcome("failed", f"No matching resources: the cluster does not start it: {reason}"))

    def _asked_why(self, run: BatchRun) -> str:
        """Ask about one job; "" when nobody knows, or enough was asked for now."""
        number = self._number(run)
        if not number or not self._questions:
            return ""
        self._questions -= 1
        return self._system.why_gone(number)

    def _number(self, run: BatchRun) -> str | None:
        """Return what the batch system calls a run, if that is known."""
        batch = self._ledger.batch_of(run)
        if batch is None or batch.id is None:
            return None
        # What runs may have been submitted under another number than the batch has by now. Never by its own
        # number, which for the last one of an array is that of all.
        number = (run.began or {}).get("batch") or batch.id
        return self._system.numbers(run.place, number, len(batch.tickets)) if number else None


def lag_of(file_system: str) -> float:
    """Return the seconds after which what another machine has written is seen on a file system of this type. Pure."""
    return _LAG_OF_CACHES if file_system.startswith(_CACHE) else _LAG


def may_run(number: str | None, *, fresh: bool, claimed: bool) -> bool:
    """Return whether a cancelled run without a number of its own may run all the same. Pure.

    number: of its batch; None where it is yet to be learnt whether that was submitted, unless it is fresh.
    """
    return claimed or (number is None and not fresh)


def pause_after(count: int) -> float:
    """Return the seconds before a job is submitted again that could not begin so often in a row. Pure."""
    return min(_PAUSE[0] * 2.0 ** min(count - 1, 30), _PAUSE[1])
