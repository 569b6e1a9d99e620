"""The life of jobs: queued, started where they fit, ended when they are over their time.

One thread decides: it starts what the queue says, ends what is overdue, and has the engine sweep up what ended jobs
left behind. Each running job has a thread of its own. Stored state changes here and in the API; a job ends in the store
exactly once.
"""

from __future__ import annotations

import json
import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable

from ..schema.allocation import Allocation
from ..schema.bounds import MOST_MINUTES_IN_QUEUE
from ..state.directory import own_directory
from ..state.workflow_rows import WorkflowRows
from .context import ServiceContext
from .job_run import JobRun
from .memory import MemoryWatch
from .outcome import DELETED, OVER_QUEUE_TIME, OVER_WALLTIME, RESTARTED, Outcome, runs_again, succeeded
from .pace import Pace
from .queue import Deadlines, JobQueue, QueuedJob
from .spec import JobSpec, read_spec

log = logging.getLogger("prominence_executor.local")


class Scheduler:
    """Every public method may be called from any thread.

    `_condition` guards the queue, the deadlines, the runs and the two flags. The set of threads is the deciding
    thread's own, and after its end `stop`'s.
    """

    def __init__(self, context: ServiceContext) -> None:
        self._context, self._store, self._engine = context, context.store, context.engine
        self._condition = threading.Condition()
        self._woken = self._closing = False
        self._closed = threading.Event()
        self._queue = JobQueue(self._engine.cpus, self._engine.memory)
        self._deadlines = Deadlines()
        self._holds = Deadlines()  # of jobs that are held, as on the real platform
        self._runs: dict[int, JobRun] = {}
        self._threads: set[threading.Thread] = set()
        self._thread = threading.Thread(target=self._loop, name="scheduler", daemon=True)
        self.pace = Pace(WorkflowRows(context.store), self.submit, context.platform)
        self._memory = MemoryWatch(self.runs)
        self.on_ended: tuple[Callable[[int], None], ...] = ()  # called in whichever thread ended the job

    # The service's life

    def start(self) -> None:
        """Clear away what an earlier service left, take up its queue, and begin."""
        own_directory(self._context.directory / "logs")
        self._engine.open()
        self._store.release_held()
        for row in self._store.rows("SELECT id FROM jobs WHERE status = 'running' AND ended IS NULL"):
            self._end(row["id"], "failed", RESTARTED)
        queued = "SELECT id FROM jobs WHERE ended IS NULL AND active = 1 ORDER BY id"
        self.submit(row["id"] for row in self._store.rows(queued))
        self._thread.start()
        self.pace.start()
        if self._context.platform.memory_enforced:
            self._memory.start()

    def stop(self) -> None:
        """End every running job and every thread. What still waits keeps waiting, for the next start."""
        self.pace.stop()
        self._memory.stop()
        with self._condition:
            self._closing = True
            self._condition.notify()
        self._closed.set()
        self._thread.join()
        with self._condition:
            runs = list(self._runs.values())
        for run in runs:
            run.end_with("failed", RESTARTED)
        sandboxes = [run.sandbox for run in runs]
        self._engine.kill(sandboxes)
        for thread in self._threads:
            thread.join()
        self._engine.kill(sandboxes)

    # Requests

    def submit(self, jobs: Iterable[int]) -> None:
        """Put stored, idle jobs into the queue."""
        rows = [row for job in jobs if (row := self._store.job(job)) is not None]
        every, seconds = self._context.platform.hold_every, self._context.platform.held_seconds
        numbers = [row["id"] for row in rows if every and row["id"] % every == 0 and not row["retries"]]
        held = {job for job in numbers if self._store.set_held(job)}
        with self._condition:
            for row in rows:
                if row["id"] in held:
                    self._holds.add(time.time() + seconds, row["id"])
                else:
                    self._enqueue(row)
            self._wake()

    def delete(self, job: int, reason: str = DELETED) -> bool:
        """End a job that is idle or running. Whether there was one to end."""
        if not self._store.set_ended(job, "deleted", reason):
            return False
        with self._condition:
            self._queue.remove(job)
            run = self._runs.get(job)
        if run:
            run.end_with("deleted", reason)
        self._tell(job)
        return True

    def runs(self) -> list[JobRun]:
        """Return the runs of all jobs that are running."""
        with self._condition:
            return list(self._runs.values())

    def run_of(self, job: int) -> JobRun | None:
        """Return the run of a job, if it is running."""
        with self._condition:
            return self._runs.get(job)

    # The deciding thread

    def _loop(self) -> None:
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._closing or self._woken, timeout=self._until_next())
                if self._closing:
                    return
                self._woken = False
                fitting = self._queue.take_fitting(*self._engine.free())
                overdue = self._overdue()
                released = [job for job, _ in self._holds.due(time.time())]
            for queued in fitting:
                self._start(queued)
            self._release(released)
            for job, run in overdue:
                self._expire(job, run)
            self._threads = {thread for thread in self._threads if thread.is_alive()}
            self._engine.sweep()

    def _release(self, held: Iterable[int]) -> None:
        """Put jobs that were held into the queue after all, but for deleted ones."""
        rows = [row for job in held if self._store.release_held(job) and (row := self._store.job(job)) is not None]
        with self._condition:
            for row in rows:
                self._enqueue(row)
            if rows:
                self._wake()

    def _until_next(self) -> float | None:
        nexts = (self._engine.next_sweep(), self._deadlines.first(), self._holds.first())
        times = [when for when in nexts if when is not None]
        return max(0.0, min(times) - time.time()) if times else None

    def _start(self, queued: QueuedJob) -> None:
        self._engine.take(queued.cpus, queued.memory)
        thread = threading.Thread(target=self._work, args=(queued,), name=f"job-{queued.job}", daemon=True)
        self._threads.add(thread)
        thread.start()

    def _overdue(self) -> list[tuple[int, JobRun | None]]:
        """Find jobs that are over their time: with the run to end, or without one, taken out of the queue."""
        found: list[tuple[int, JobRun | None]] = []
        for job, mark in self._deadlines.due(time.time()):
            run = self._runs.get(job)
            if mark and run is not None and run.sandbox.mark == mark:
                found.append((job, run))
            elif not mark and self._queue.remove(job):
                found.append((job, None))
        return found

    def _expire(self, job: int, run: JobRun | None) -> None:
        if run:
            run.end_with("killed", OVER_WALLTIME)
        else:
            self._end(job, "failed", OVER_QUEUE_TIME)

    # Job threads

    def _work(self, queued: QueuedJob) -> None:
        """Have one run from slot to slot. Whatever happens, the slots come back."""
        again = False
        try:
            again = self._run(queued.job)
        except Exception as error:
            log.exception("job %d", queued.job)
            self._end(queued.job, "failed", f"Internal error: {error}")
        finally:
            self._engine.give_back(queued.cpus, queued.memory)
            with self._condition:
                self._runs.pop(queued.job, None)
                self._wake()
        if again:
            self.submit([queued.job])

    def _run(self, job: int) -> bool:
        """Run a job; whether it is idle again, to be run once more."""
        spec, sandbox = read_spec(self._context, job), self._engine.new_sandbox()
        try:
            run = JobRun(spec, sandbox, self._context.objects, self._context.containers)
            with self._condition:
                self._runs[job] = run
                deadline = time.time() + spec.walltime * self._context.seconds_per_minute
                self._deadlines.add(deadline, job, sandbox.mark)
                closing = self._closing
                self._wake()
            # From here on the job is running, and can be looked into and ended. One that was deleted stays as it is.
            if closing or not self._store.set_running(job):
                return False
            began, outcome = time.monotonic(), run()
            again = self._conclude(spec, outcome)
            if outcome.status == "deleted" and time.monotonic() - began < spec.platform.young_seconds:
                self._closed.wait(spec.platform.blocked_seconds)
            return again
        finally:
            self._engine.release(sandbox)

    def _conclude(self, spec: JobSpec, outcome: Outcome) -> bool:
        """Store what became of a run. Whether its job is idle again."""
        row = self._store.job(spec.job)
        if row is not None and runs_again(outcome, spec.policies, row["retries"]):
            return self._store.set_idle_again(spec.job)
        execution, uploaded = json.dumps(outcome.execution), json.dumps(outcome.uploaded)
        ok = succeeded(outcome, spec.policies)
        self._end(spec.job, outcome.status, outcome.reason, execution, uploaded, ok)
        spec.logs.remove_empty()
        return False

    # What they share

    def _wake(self) -> None:
        """Have the deciding thread look again. Under the condition's lock."""
        self._woken = True
        self._condition.notify()

    def _enqueue(self, row: sqlite3.Row) -> None:
        if row["queue_minutes"] >= 0:
            minutes = min(row["queue_minutes"], MOST_MINUTES_IN_QUEUE)  # an earlier version accepted more
            waits = minutes * self._context.seconds_per_minute
            self._deadlines.add(row["created"] + waits, row["id"])
        slots = Allocation(row["cpus"], row["memory"], row["nodes"]).slots(self._engine.cpus, self._engine.memory)
        self._queue.add(QueuedJob(row["id"], row["priority"], *slots))

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
            concerned(job)
