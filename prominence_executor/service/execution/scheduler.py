"""The life of jobs: submitted, given to the engine, ended in the store, repeated.

One thread decides about what waits: jobs that are held, or too long in the queue, and ends that could not be stored.
Stored state changes here and in the API; a job ends in the store exactly once. Where jobs run, and when they start, is
the engine's business.
"""

from __future__ import annotations

import json
import logging
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial

from ..engines.base import Request, Run
from ..engines.queue import Deadlines
from ..node.outcome import DELETED, OVER_QUEUE_TIME, RESTARTED, WAITS, Outcome, runs_again, succeeded
from ..node.spec import JobSpec
from ..schema.allocation import Allocation
from ..schema.bounds import MOST_MINUTES_IN_QUEUE
from ..state.directory import own_directory
from ..state.shortage import AGAIN, not_now
from .context import ServiceContext
from .facts import read_spec
from .pace import Pace
from .postponed import Postponed

log = logging.getLogger("prominence_executor.local")

_LONGEST = 3600.0  # seconds between two looks: a condition cannot wait for years


class Scheduler:
    """Every public method may be called from any thread.

    `_condition` guards the deadlines and the flags. What is to be done now and whether a turn was whole are the
    deciding thread's own.
    """

    def __init__(self, context: ServiceContext) -> None:
        self._context, self._store, self._engine = context, context.store, context.engine
        self._clock = context.clock
        self._condition = threading.Condition()
        self._woken = self._closing = False
        self._deadlines = Deadlines()  # of times in the queue
        self._holds = Deadlines()  # of jobs that are held, as on the real platform
        self._waits_until: dict[int, float] = {}  # of jobs with a time in the queue: an earlier one is over
        self._postponed = Postponed(self._clock, self._look_again)
        self._whole = True  # the last turn came to its end
        self._now: deque[Callable[[], object]] = deque()
        self._thread = context.vital.make("scheduler", self._turn)
        self.pace = Pace(context, self.submit)
        self.on_ended: tuple[Callable[[int], None], ...] = ()  # called in whichever thread ended the job

    # The service's life

    def start(self) -> None:
        """Take up what an earlier service left, and begin. Raises RuntimeError when the engine cannot be used."""
        own_directory(self._context.directory / "logs")
        going_on = self._engine.open(self)
        self._store.release_held()
        for row in self._store.rows("SELECT id FROM jobs WHERE status = 'running' AND ended IS NULL"):
            if row["id"] not in going_on:
                self._end(row["id"], "failed", RESTARTED)
        queued = self._store.rows("SELECT * FROM jobs WHERE ended IS NULL AND active = 1 ORDER BY id")
        self.submit([row["id"] for row in queued if row["id"] not in going_on])
        with self._condition:
            for row in queued:
                if row["id"] in going_on and row["status"] == "idle" and row["queue_minutes"] >= 0:
                    self._limit_queue_time(row)  # the engine has it already
        self._thread.start()
        self._engine.start()
        self.pace.start()

    def stop(self) -> None:
        """End every thread. What still waits keeps waiting, for the next start."""
        self.pace.stop()
        with self._condition:
            self._closing = True
            self._condition.notify_all()
        if self._thread.is_alive():
            self._thread.join()
        self._engine.stop()

    # Requests

    def submit(self, jobs: Iterable[int]) -> None:
        """Put stored, idle jobs into the queue."""
        rows = [row for job in jobs if (row := self._store.job(job)) is not None]
        every, seconds = self._context.platform.hold_every, self._context.platform.held_seconds
        numbers = [row["id"] for row in rows if every and row["id"] % every == 0 and not row["retries"]]
        held = {job for job in numbers if self._store.set_held(job)}
        if held:
            with self._condition:
                for job in sorted(held):
                    self._holds.add(self._clock.monotonic() + seconds, job)
                self._wake()
        self._enqueue([row for row in rows if row["id"] not in held])

    def delete(self, job: int, reason: str = DELETED) -> bool:
        """End a job that is idle or running. Whether there was one to end."""
        if not self._store.set_ended(job, "deleted", reason):
            return False
        self.deleted(job, reason)
        return True

    def deleted(self, job: int, reason: str) -> None:
        """Let go of a job that is deleted in the store."""
        self._engine.end(job, "deleted", reason)
        self._tell(job)

    def run_of(self, job: int) -> Run | None:
        """Return the run of a job, if it is running."""
        return self._engine.run_of(job)

    # What the engine asks and tells

    def spec(self, job: int) -> JobSpec:
        """Read what a run has to know of its job. Raises LookupError when there is none."""
        return read_spec(self._context, job)

    def begun(self, job: int) -> bool:
        """Store that a job runs; whether it may. Raises NotNow when that cannot be stored."""
        try:
            return self._store.set_running(job)
        except sqlite3.Error as error:
            raise not_now(error) from error

    def ended(self, spec: JobSpec, outcome: Outcome) -> bool:
        """Store what became of a run. Whether its job is idle again."""
        row = self._store.job(spec.job)
        if outcome.status == WAITS:
            return self._store.set_idle_again(spec.job, repeats=0)
        if row is not None and runs_again(outcome, spec.policies, row["retries"]):
            return self._store.set_idle_again(spec.job)
        execution, uploaded = json.dumps(outcome.execution), json.dumps(outcome.uploaded)
        ok = succeeded(outcome, spec.policies)
        self._end(spec.job, outcome.status, outcome.reason, execution, uploaded, ok)
        spec.logs.remove_empty()
        return False

    def insist(self, store: Callable[[], bool | None]) -> bool:
        """Store something as soon as that can be done, in its thread; what it returns, or False."""
        while True:
            try:
                return bool(store())
            except sqlite3.Error as error:
                with self._condition:
                    if self._closing:
                        log.error("an end was not stored: %s", error)
                        return False
                    self._condition.wait_for(lambda: self._closing, timeout=AGAIN)

    def failed(self, job: int, reason: str) -> None:
        """Store that a job has failed."""
        self._end(job, "failed", reason)

    def is_open(self, job: int) -> bool:
        """Return whether there is such a job that has not ended."""
        return self._context.is_open(job)

    # The deciding thread

    def _turn(self) -> bool:
        """Wait until there is something to do, and do it; whether to go on."""
        whole, self._whole, left = self._whole, False, bool(self._now)
        with self._condition:
            if whole:  # else the last one failed: there may be more to do than it knew
                self._condition.wait_for(lambda: self._closing or self._woken, timeout=self._until_next())
            if self._closing:
                return False
            self._woken = left
            self._now.extend(partial(self._over_queue_time, job) for job in self._overdue())
            self._now.extend(self._postponed.due())
            held = [job for job, _ in self._holds.due(self._clock.monotonic())]
            if held:
                self._now.append(partial(self._release, held))
        while self._now:
            self._now.popleft()()
        self._whole = True
        return True

    def _release(self, held: Iterable[int]) -> None:
        """Put jobs that were held into the queue after all, but for deleted ones."""
        self._enqueue(
            [row for job in held if self._store.release_held(job) and (row := self._store.job(job)) is not None]
        )

    def _until_next(self) -> float:
        now = self._clock.monotonic()
        times = [self._deadlines.first(), self._postponed.next_time(), self._holds.first()]
        return max(0.0, min([_LONGEST, *(when - now for when in times if when is not None)]))

    def _overdue(self) -> list[int]:
        """Take out the jobs whose time in the queue is over, if they still wait."""
        now = self._clock.monotonic()
        return [job for job, _ in self._deadlines.due(now) if self._waits_until.pop(job, now) <= now]

    def _over_queue_time(self, job: int) -> None:
        if self._engine.withdraw(job):
            self._postponed.attempt(partial(self._end, job, "failed", OVER_QUEUE_TIME))

    # What they share

    def _look_again(self) -> None:
        with self._condition:
            self._wake()

    def _wake(self) -> None:
        """Have the deciding thread look again. Under the condition's lock."""
        self._woken = True
        self._condition.notify_all()

    def _enqueue(self, rows: list[sqlite3.Row]) -> None:
        with self._condition:
            for row in rows:
                if row["queue_minutes"] >= 0:
                    self._limit_queue_time(row)
        self._engine.submit(
            Request(row["id"], row["priority"], Allocation(row["cpus"], row["memory"], row["nodes"])) for row in rows
        )

    def _limit_queue_time(self, row: sqlite3.Row) -> None:
        """Note until when a job may wait. Under the condition's lock."""
        # What an earlier service has let it wait counts; of a job that is to be run again, nothing.
        waited = 0.0 if row["started"] is not None else max(0.0, self._clock.time() - row["created"])
        minutes = min(row["queue_minutes"], MOST_MINUTES_IN_QUEUE)  # an earlier version accepted more
        left = minutes * self._context.seconds_per_minute - waited
        self._waits_until[row["id"]] = until = self._clock.monotonic() + left
        self._deadlines.add(until, row["id"])
        self._wake()

    def _end(
        self,
        job: int,
        status: str,
        reason: str | None,
        execution: str | None = None,
        uploaded: str | None = None,
        ok: bool = False,
    ) -> None:
        """End a job, and tell whom that concerns, unless somebody else has ended it before."""
        if self._store.set_ended(job, status, reason, execution, uploaded, ok):
            self._tell(job)

    def _tell(self, job: int) -> None:
        for concerned in self.on_ended:
            self._postponed.attempt(partial(concerned, job))
