"""How a batch engine submits: what comes within a moment goes together, and on disk before it is submitted.

A batch without an answer is looked for by its name, and submitted again when it is not there. For the engine's thread.
"""

from __future__ import annotations

import logging
import os
import time
import uuid
from collections.abc import Callable
from dataclasses import replace

from ..node.machine import loopback_of
from ..node.outcome import Outcome
from ..node.ticket import Places, Ticket, put, written
from .base import Jobs, Request
from .batches import Program, Stored, grouped, options_of
from .ledger import BatchRun, Ledger
from .system import BatchSystem, Shape, SystemAway, SystemFull, SystemRefuses

_Options = tuple[tuple[str, str], ...]
log = logging.getLogger("prominence_executor.local")

_GATHER = (0.05, 1.0)  # seconds of quiet before a submission, and at most
_GATHER_MANY, _MANY = (0.5, 5.0), 200  # the same where so many have come: they go in fewer, larger arrays
_AWAY = (1.0, 30.0)  # seconds before a batch system that gave no answer is asked again
_FULL = (2.0, 60.0)  # seconds before jobs for which there was no room are submitted again
_HALVINGS = 4  # of a batch for which there is no room, before it waits


class Sending:
    """For the engine's thread alone. `conclude` stores what became of a run that cannot be submitted."""

    def __init__(
        self,
        system: BatchSystem,
        jobs: Jobs,
        ledger: Ledger,
        places: Places,
        started: Program,
        seconds_per_minute: float,
        conclude: Callable[[BatchRun, Outcome], None],
    ) -> None:
        self._system, self._jobs, self._ledger, self._places = system, jobs, ledger, places
        self._program, self._seconds_per_minute = started, seconds_per_minute
        self._conclude = conclude
        self._prefix = ledger.batches.prefix()
        self._tried_at, self._pause = 0.0, _AWAY[0]
        self._unkept: set[str] = set()  # batches that are not on disk yet
        # Until when jobs with which the same is said to the batch system wait for room, and for how long the next time.
        # Limits are those of a partition, an account or a quality of service: others may have room.
        self._full: dict[_Options, tuple[float, float]] = {}

    def gather(self, closing: Callable[[], bool]) -> bool:
        """Wait until nothing more comes, and write tickets and batches of what has come; whether there is any."""
        ledger = self._ledger
        with ledger.condition:
            began, count = time.monotonic(), 0
            while len(ledger.wanted) > count and not closing():
                count = len(ledger.wanted)
                quiet, longest = _GATHER if count < _MANY else _GATHER_MANY
                if time.monotonic() > began + longest:
                    break
                ledger.condition.wait_for(closing, timeout=quiet)
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
        for shape, tickets, jobs in grouped(shaped, self._system.limits().array):
            batch = Stored(f"{self._prefix}{os.urandom(4).hex()}-{jobs[0]}", shape, tickets, jobs)
            ledger.batches.keep(batch)
            self._ledger.fresh.add(batch.name)
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
        on_node = self._system.on_node if allocation.nodes > 1 else ()
        system, loopback = self._system, loopback_of(spec.env["PROMINENCE_URL"])
        ticket = Ticket(
            name, spec, seconds, self._program.containers, system.id_variable, passed, system.batch_variable, on_node,
            loopback,
        )  # fmt: skip
        put(self._places.ticket(name), written(ticket), flushed=False)
        return shape, name, request.job

    def send(self) -> None:
        """Submit what is not submitted, once it is sure that it is not."""
        unsent = self._ledger.unsent()
        if not unsent or time.monotonic() < self._tried_at:
            return
        try:
            doubted = [batch.name for batch in unsent if batch.name not in self._ledger.fresh]
            found = self._system.find_by_name(doubted) if doubted else {}
            for batch in unsent:
                if (number := found.get(batch.name)) is not None:
                    self._has(batch, number)
                elif time.monotonic() >= self._full.get(batch.shape.options, (0.0, 0.0))[0]:
                    self._place(batch)
            self._pause = _AWAY[0]
        except SystemAway as error:
            log.warning("the batch system gives no answer, it is asked again: %s", error)
            self._tried_at = time.monotonic() + self._pause
            self._pause = min(2 * self._pause, _AWAY[1])

    def _place(self, batch: Stored) -> None:
        """Submit a batch that is not there, or as much of it as there is room for. Raises SystemAway."""
        options, halvings = batch.shape.options, 0
        while True:
            if batch.name in self._unkept:
                self._ledger.batches.keep(batch)
                self._unkept.discard(batch.name)
            self._ledger.fresh.discard(batch.name)
            try:
                self._has(batch, self._sent(batch))
                self._full.pop(options, None)
                return
            except SystemFull as full:
                self._ledger.fresh.add(batch.name)  # it is surely not there
                if halvings < _HALVINGS and self._halve(batch):
                    halvings += 1
                    continue
                pause = self._full.get(options, (0.0, _FULL[0]))[1]
                log.info("the batch system takes no more jobs, they wait %.0f s: %s", pause, full)
                self._full[options] = time.monotonic() + pause, min(2 * pause, _FULL[1])
                return

    def _has(self, batch: Stored, number: str) -> None:
        """Store that a batch has a number."""
        batch.id = number
        if self._ledger.holds(batch):
            self._ledger.batches.keep(batch)

    def _halve(self, batch: Stored) -> bool:
        """Put the second half of a batch into one of its own; whether it could be halved.

        The first half is on disk before the second: of a service that is killed in between, the next one has tickets
        without a batch, whose jobs it submits anew.
        """
        count = len(batch.tickets) // 2
        if not count:
            return False
        self._ledger.batches.keep(replace(batch, tickets=batch.tickets[:count], jobs=batch.jobs[:count]))
        rest = self._ledger.halve(batch, count, f"{self._prefix}{os.urandom(4).hex()}-{batch.jobs[count]}")
        if not self._ledger.holds(batch):  # all of it was withdrawn
            self._ledger.batches.remove(batch.name)
        if self._ledger.holds(rest):
            self._ledger.fresh.add(rest.name)
            self._unkept.add(rest.name)
        return True

    def _is_due(self, ticket: str) -> bool:
        run = self._ledger.of_ticket(ticket)
        return run is not None and not run.over and not self._places.is_claimed(ticket)

    def _sent(self, batch: Stored) -> str:
        """Submit a batch that is not there; return its number, "" where there is no need or no way."""
        if not any(self._is_due(ticket) for ticket in batch.tickets):
            return ""
        try:
            return self._system.submit(self._ledger.batches.described(batch, self._program))
        except SystemRefuses as error:
            for ticket in batch.tickets:
                if (run := self._ledger.of_ticket(ticket)) is not None:
                    self._conclude(run, Outcome("failed", f"No matching resources: {error}"))
            return ""
