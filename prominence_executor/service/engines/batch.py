"""A batch system as the place where jobs run: tickets out, outcomes in, and each job once, whatever is killed.

One thread does it all. It gathers what is submitted, submits it in arrays, looks into one folder for what runs have
said, and asks the batch system now and then about all jobs at once, by which it hears of those that say nothing.
A batch is on disk before it is submitted. One without an answer is looked for by its name, and submitted again when it
is not there; should both come through, the node's claim lets each ticket run once.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from pathlib import Path

from ..containers.base import Command
from ..node import program
from ..node.job_processes import JobProcesses
from ..node.ticket import Places
from ..sandbox.sandbox import install_shims
from ..state.vital import VitalThreads
from .base import Jobs, Limits, Request, Room
from .batches import Program
from .ledger import BatchRun, Ledger
from .listening import Listening
from .sending import Sending
from .system import BatchSystem, SystemAway

_IDLE = 60.0  # seconds between two turns with nothing to do
_AGAIN = 1.0  # seconds before what the batch system did not answer is tried again
_EXEC_SECONDS = 60


class BatchEngine:
    """Every public method may be called from any thread. The ledger's condition guards the flag as well."""

    def __init__(
        self,
        system: BatchSystem,
        directory: Path,
        containers: str,
        seconds_per_minute: float,
        vital: VitalThreads,
        poll_seconds: float = 2.0,
        look_seconds: float = 1.0,
    ) -> None:
        self._system, self._directory = system, directory
        self._program = Program(sys.executable, Path(program.__file__), containers)
        self._seconds_per_minute, self._poll_seconds = seconds_per_minute, poll_seconds
        self._longest_look = look_seconds
        self._places = Places(directory)
        self._ledger = Ledger(self._places, self._inside)
        self._condition = self._ledger.condition
        self._sending: Sending
        self._listening: Listening
        self._room: tuple[float, Room] | None = None
        self._closing = False
        self._thread = vital.make("engine", self._turn)

    # The engine's life

    def open(self, jobs: Jobs) -> frozenset[int]:
        """Take up the jobs that an earlier service has submitted, and return them.

        Raises:
            RuntimeError: the batch system cannot be used; the sentence says why.
        """
        self._places.make()
        (self._places.root / "log").touch(0o600)  # what a job could not make where the disk, or a quota, is full
        install_shims(self._directory / "bin")
        try:
            self._system.limits()
        except SystemAway as error:
            raise RuntimeError(f"the batch system does not answer: {error}") from error
        self._listening = Listening(
            self._system, jobs, self._ledger, self._places, self._directory, self._poll_seconds,
            self._longest_look,
        )  # fmt: skip
        self._sending = Sending(
            self._system, jobs, self._ledger, self._places, self._program, self._seconds_per_minute,
            self._listening.conclude,
        )  # fmt: skip
        going_on = set()
        for batch in self._ledger.batches.stored():
            for run in self._ledger.add(batch):
                if not self._places.is_whole(run.ticket) and not self._places.is_claimed(run.ticket):
                    self._ledger.forget(run)  # it is done with, or lost with the machine's power
                elif jobs.is_open(run.job):
                    going_on.add(run.job)
                else:
                    self._ledger.cancel(run)
        self._places.clear()
        for path in self._places.tickets.glob("*.json"):
            if self._ledger.of_ticket(path.stem) is None:  # written, but not put into a batch
                self._places.forget(path.stem)
        return frozenset(going_on)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread. Jobs go on; the next service takes them up."""
        with self._condition:
            self._closing = True
            self._condition.notify_all()
        if self._thread.is_alive():
            self._thread.join()

    # Jobs

    def limits(self) -> Limits:
        """Return what the batch system has."""
        return self._system.limits()

    def room(self) -> Room:
        """Return how much there is, and how much of it is free; a while old where that is costly to know."""
        known = self._room
        if known is None or time.monotonic() > known[0] + 5 * self._poll_seconds:
            try:
                known = self._room = time.monotonic(), self._system.room()
            except SystemAway:
                known = known or (0.0, Room(self.limits().cpus, self.limits().memory, 0, 0))
        return known[1]

    def submit(self, requests: Iterable[Request]) -> None:
        """Have jobs submitted, together with what comes within a moment."""
        with self._condition:
            self._ledger.wanted.extend(requests)
            self._condition.notify_all()

    def withdraw(self, job: int) -> bool:
        """Take out a job that has not begun; whether it had not."""
        run = self._ledger.run_of(job)
        if run is None:
            return self._ledger.unwant(job)
        if run.began is not None or run.over:
            return False
        self._ledger.cancel(run)
        return True

    def end(self, job: int, status: str, reason: str | None) -> None:
        """End a job that runs or waits; how is stored by who asks."""
        self._ledger.unwant(job)
        run = self._ledger.run_of(job)
        if run is not None:
            self._ledger.cancel(run)

    def run_of(self, job: int) -> BatchRun | None:
        """Return the run of a job, if it has begun."""
        run = self._ledger.run_of(job)
        return run if run is not None and run.began is not None else None

    def _inside(self, run: BatchRun, verb: str, what: str) -> bytes | None:
        """Do something next to the tasks of a running job; return what it printed, or None when that failed."""
        began = run.began
        if began is None or run.over:
            return None
        own = [*self._program.words, verb, str(self._directory), run.ticket, what]
        argv = self._system.exec_command(began["id"], own)
        if argv is None:
            return None
        return JobProcesses().output(Command(argv, Path("/"), self._system.environment()), _EXEC_SECONDS)

    # The thread

    def _turn(self) -> bool:
        """Wait until there is something to do, and do it; whether to go on."""
        ledger = self._ledger
        seconds = self._listening.look_seconds if ledger.runs() else _IDLE
        due = self._listening.next_due()
        seconds = seconds if due is None else max(0.0, min(seconds, due - time.monotonic()))
        with self._condition:
            self._condition.wait_for(lambda: self._closing or ledger.wanted or ledger.cancelled, timeout=seconds)
            if self._closing:
                return False
        if self._sending.gather(lambda: self._closing):
            self._listening.expect()
        self._sending.send()
        if not self._listening.end_cancelled(lambda: self._closing):
            with self._condition:
                self._condition.wait_for(lambda: self._closing, timeout=_AGAIN)
        self._listening.hear()
        self._listening.ask()
        self._listening.submit_due()
        return True
