"""What a batch engine has submitted, and how far each of it is: in memory, and the batches on disk as well.

Knows no batch system. Who calls decides.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ..node.ticket import Places
from .base import Request
from .batches import Batches, Stored
from .system import Place


@dataclass
class BatchRun:
    """A job that was submitted, as requests see it. `inside` does something next to its tasks, by verb and word."""

    job: int
    ticket: str
    place: Place
    inside: Callable[[BatchRun, str, str], bytes | None]
    began: dict[str, Any] | None = None
    over: bool = False
    missed: float | None = None
    """Since when the batch system says that it is gone, or it waits for the reason why it was ended."""
    in_vain: int = 0
    """How often in a row the batch system has said that it waits for what does not come by itself."""
    commands: list[dict[str, Any]] = field(default_factory=list)

    def is_over(self) -> bool:
        """Return whether it is decided how this run ends."""
        return self.over

    def execute(self, command: str) -> bytes | None:
        """Run a command next to the tasks; return its output, or None when it fails."""
        self.commands.append({"command": command, "time": int(time.time())})
        return self.inside(self, "beside", command)

    def snapshot(self, path: str) -> bool:
        """Store a .tgz of a path of the job's sandbox; whether there is something of that name."""
        return self.inside(self, "snapshot", path) is not None


class Ledger:
    """`condition` guards all of it; whoever waits for something to do waits for it. Methods take it themselves."""

    def __init__(self, places: Places, inside: Callable[[BatchRun, str, str], bytes | None]) -> None:
        self._places, self._inside = places, inside
        self.batches = Batches(places)
        self.condition = threading.Condition()  # of a lock that its holder may take again
        self.wanted: list[Request] = []  # to be submitted
        self.cancelled: list[BatchRun] = []  # to be ended in the batch system
        self.fresh: set[str] = set()  # batches that are surely not there: nobody has tried, or there was no room
        self._runs: dict[int, BatchRun] = {}  # that are not over, by job
        self._tickets: dict[str, BatchRun] = {}  # that are not forgotten
        self._stored: dict[str, Stored] = {}
        self._left: dict[str, int] = {}  # tickets of a batch that are not yet forgotten

    def add(self, batch: Stored) -> list[BatchRun]:
        """Take in a batch that is on disk; return its runs."""
        runs = [
            BatchRun(job, ticket, (batch.name, number), self._inside)
            for number, (ticket, job) in enumerate(zip(batch.tickets, batch.jobs, strict=True))
        ]
        with self.condition:
            self._stored[batch.name], self._left[batch.name] = batch, len(runs)
            for run in runs:
                self._tickets[run.ticket] = run
                other = self._runs.get(run.job)
                if other is None or other.over:  # after a restart another batch may have its latest run
                    self._runs[run.job] = run
        return runs

    def halve(self, batch: Stored, count: int, name: str) -> Stored:
        """Take all but the first so many of a batch that is not submitted into a new one of that name."""
        with self.condition:
            rest = Stored(name, batch.shape, batch.tickets[count:], batch.jobs[count:])
            del batch.tickets[count:], batch.jobs[count:]
            runs = [self._tickets.get(ticket) for ticket in rest.tickets]
            for number, run in enumerate(runs):
                if run is not None:
                    run.place = name, number
            left = sum(run is not None for run in runs)
            self._left[batch.name] -= left
            for each, others in ((rest, left), (batch, self._left.pop(batch.name))):
                if others:
                    self._stored[each.name], self._left[each.name] = each, others
                else:
                    self._stored.pop(each.name, None)
        return rest

    def run_of(self, job: int) -> BatchRun | None:
        """Return the run of a job that was submitted and is not over."""
        with self.condition:
            return self._runs.get(job)

    def of_ticket(self, ticket: str) -> BatchRun | None:
        """Return the run of a ticket that is not forgotten."""
        with self.condition:
            return self._tickets.get(ticket)

    def runs(self) -> list[BatchRun]:
        """Return all runs that are not forgotten."""
        with self.condition:
            return list(self._tickets.values())

    def batch_of(self, run: BatchRun) -> Stored | None:
        """Return the batch of a run."""
        with self.condition:
            return self._stored.get(run.place[0])

    def holds(self, batch: Stored) -> bool:
        """Return whether there is anything left of a batch."""
        with self.condition:
            return batch.name in self._stored

    def unsent(self) -> list[Stored]:
        """Return the batches that have no number yet."""
        with self.condition:
            return [batch for batch in self._stored.values() if batch.id is None]

    def unwant(self, job: int) -> bool:
        """Take out a job that is yet to be submitted; whether it was there."""
        with self.condition:
            before = len(self.wanted)
            self.wanted = [request for request in self.wanted if request.job != job]
            return len(self.wanted) < before

    def cancel(self, run: BatchRun) -> None:
        """Let go of a run, and note that the batch system is to end it."""
        with self.condition:
            if not run.over:
                run.over = True
                if self._runs.get(run.job) is run:
                    del self._runs[run.job]
                self.cancelled.append(run)
                self.condition.notify_all()

    def forget(self, run: BatchRun) -> None:
        """Remove all of a run, and its batch with the last one."""
        name = run.place[0]
        with self.condition:
            if self._tickets.pop(run.ticket, None) is None:
                return
            if self._runs.get(run.job) is run:
                del self._runs[run.job]
            self._left[name] -= 1
            last = not self._left[name]
            if last:
                del self._stored[name], self._left[name]
                self.fresh.discard(name)
        self._places.forget(run.ticket)
        if last:
            self.batches.remove(name)
