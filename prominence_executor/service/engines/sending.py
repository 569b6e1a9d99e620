"""How a batch engine submits: what comes within a moment goes together, and on disk before it is submitted.

A batch without an answer is looked for by its name, and submitted again when it is not there. For the engine's thread.
"""

from __future__ import annotations

import logging
import os
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path

from ..node import program
from ..node.outcome import Outcome
from ..node.ticket import Places, Ticket, put, written
from .base import Jobs, Limits, Request
from .batches import Stored, grouped, options_of
from .ledger import BatchRun, Ledger
from .system import BatchSystem, Shape, SystemAway, SystemRefuses

log = logging.getLogger("prominence_executor.local")

_GATHER, _LONGEST_GATHER = 0.05, 1.0  # seconds of quiet before a submission, and at most
_AWAY = (1.0, 30.0)  # seconds before a batch system that gave no answer is asked again


class Sending:
    """For the engine's thread alone. `conclude` stores what became of a run that cannot be submitted."""

    def __init__(
        self,
        system: BatchSystem,
        jobs: Jobs,
        ledger: Ledger,
        places: Places,
        limits: Limits,
        containers: str,
        seconds_per_minute: float,
        conclude: Callable[[BatchRun, Outcome], None],
    ) -> None:
        self._system, self._jobs, self._ledger, self._places = system, jobs, ledger, places
        self._containers, self._seconds_per_minute = containers, seconds_per_minute
        self._largest, self._conclude = limits.array, conclude
        self._prefix = ledger.batches.prefix()
        self._fresh: set[str] = set()  # batches that nobody has tried to submit
        self._tried_at, self._pause = 0.0, _AWAY[0]

    def gather(self, closing: Callable[[], bool]) -> bool:
        """Wait until nothing more comes, and write tickets and batches of what has come; whether there is any."""
        ledger = self._ledger
        with ledger.condition:
            until, count = time.monotonic() + _LONGEST_GATHER, 0
            while len(ledger.wanted) > count and time.monotonic() < until and not closing():
                count = len(ledger.wanted)
                ledger.condition.wait_for(closing, timeout=_GATHER)
            wanted, ledger.wanted = ledger.wanted, []
        try:
            return self._kept(wanted)
        except BaseException:  # a full disk: what is not in a batch is tried again
            with ledger.condition:
                ledger.wanted = [request for request in wanted if not ledger.run_of(request.job)] + ledger.wanted
            raise

    def _kept(self, wanted: list[Request]) -> bool:
        """Write tickets and batches; whether there is any."""
        ledger = self._ledger
        shaped = [found for request in wanted if (found := self._written(request)) is not None]
        for shape, tickets, jobs in grouped(shaped, self._largest):
            batch = Stored(f"{self._prefix}{os.urandom(4).hex()}-{jobs[0]}", shape, tickets, jobs)
            ledger.batches.keep(batch)
            self._fresh.add(batch.name)
            for run in ledger.add(batch):
                if not self._jobs.is_open(run.job):  # deleted while it was written
                    ledger.cancel(run)
        return bool(shaped)

    def _written(self, request: Request) -> tuple[Shape, str, int] | None:
        """Write the ticket of a job; None when it has ended, or cannot run here."""
        try:
            spec = self._jobs.spec(request.job)
        except LookupError:
            return None
        if not self._jobs.is_open(request.job):
            return None
        allocation, seconds = request.allocation, spec.walltime * self._seconds_per_minute
        disk = int(spec.body["resources"]["disk"])
        try:
            said = options_of(spec.body.get("labels", {}))
            shape = Shape(allocation.cpus, allocation.memory, allocation.nodes, disk, seconds, request.priority, said)
            self._system.check(shape)
        except (SystemRefuses, ValueError) as error:
            reason = f"No matching resources: {error}"
            self._jobs.insist(lambda: self._jobs.failed(request.job, reason))
            return None
        name = f"{request.job}-{uuid.uuid4().hex[:12]}"
        passed = self._system.passed if allocation.nodes > 1 else ()
        ticket = Ticket(name, spec, seconds, self._containers, self._system.id_variable, passed)
        put(self._places.ticket(name), written(ticket))
        return shape, name, request.job

    def send(self) -> None:
        """Submit what is not submitted, once it is sure that it is not."""
        unsent = self._ledger.unsent()
        if not unsent or time.monotonic() < self._tried_at:
            return
        try:
            doubted = [batch.name for batch in unsent if batch.name not in self._fresh]
            found = self._system.find_by_name(doubted) if doubted else {}
            for batch in unsent:
                self._fresh.discard(batch.name)
                batch.id = found.get(batch.name) or self._sent(batch)
                if self._ledger.holds(batch):
                    self._ledger.batches.keep(batch)
            self._pause = _AWAY[0]
        except SystemAway as error:
            log.warning("the batch system gives no answer, it is asked again: %s", error)
            self._tried_at = time.monotonic() + self._pause
            self._pause = min(2 * self._pause, _AWAY[1])

    def _sent(self, batch: Stored) -> str:
        """Submit a batch that is not there; return its number, "" where there is no need or no way."""
        if all(self._places.is_claimed(ticket) for ticket in batch.tickets):
            return ""
        try:
            return self._system.submit(self._ledger.batches.described(batch, sys.executable, Path(program.__file__)))
        except SystemRefuses as error:
            for ticket in batch.tickets:
                if (run := self._ledger.of_ticket(ticket)) is not None:
                    self._conclude(run, Outcome("failed", f"No matching resources: {error}"))
            return ""
