"""The life of jobs: queued, started where they fit, ended when they are over their time.

One thread decides: it starts what the queue says, ends what is overdue, and has the engine sweep up what ended jobs
left behind. Each running job has a thread of its own. Stored state changes here and in the API; a job ends in the store
exactly once. Where the machine is too short of something (disk, descriptors, processes), a job waits in the queue, or
its end is kept until it can be stored.
"""

from __future__ import annotations

import json
import logging
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial

from ..schema.allocation import Allocation
from ..schema.bounds import MOST_MINUTES_IN_QUEUE
from ..state.directory import own_directory
from .context import ServiceContext
from .job_run import JobRun
from .memory import MemoryWatch
from .outcome import DELETED, OVER_QUEUE_TIME, OVER_WALLTIME, RESTARTED, WAITS, Outcome, runs_again, succeeded
from .pace import Pace
from .postponed import AGAIN, NotNow, Postponed, not_now
from .queue import Deadlines, JobQueue, QueuedJob
from .spec import JobSpec, read_spec

log = logging.getLogger("prominence_executor.local")

_SILENCE = 60.0  # seconds for which the same is not said again
_LONGEST = 3600.0  # seconds between two looks: a condition cannot wait for years


class Scheduler:
    """Every public method may be called from any thread.

    `_condition` guards the queue, the deadlines, the runs, when to start and the flags. The set of threads, what is to
    be done now and whether a turn was whole are the deciding thread's own, and after its end `stop`'s.
    """

    def __init__(self, context: ServiceContext) -> None:
        self._context, self._store, self._engine = context, context.store, context.engine
        self._clock = context.clock
        self._condition = threading.Condition()
        self._woken = self._closing = False
        self._closed = threading.Event()
        self._queue = JobQueue(self._engine.cpus, self._engine.memory)
        self._deadlines = Deadlines()
        self._holds = Deadlines()  # of jobs that are held, as on the real platform
        self._waits_until: dict[int, float] = {}  # of jobs with a time in the queue: an earlier one is over
        self._runs: dict[int, JobRun] = {}
        self._starts_at = 0.0  # the time before which no job is started
        self._postponed = Postponed(self._clock, self._look_again)
        self._whole = True  # the last turn came to its end
        self._now: deque[Callable[[], object]] = deque()
        self._threads: set[threading.Thread] = set()
        self._thread = context.vital.make("scheduler", self._turn)
        self.pace = Pace(context, self.submit)
        self._memory = MemoryWatch(self.runs, context.vital)
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
            self._condition.notify_all()
        self._closed.set()
        self._thread.join()
        runs = self.runs()
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
                    self._holds.add(self._clock.monotonic() + seconds, row["id"])
                else:
                    self._enqueue(row)
            self._wake()

    def delete(self, job: int, reason: str = DELETED) -> bool:
        """End a job that is idle or running. Whether there was one to end."""
        if not self._store.set_ended(job, "deleted", reason):
            return False
        self.deleted(job, reason)
        return True

    def deleted(self, job: int, reason: str) -> None:
        """Let go of a job that is deleted in the store."""
        with self._condition:
            self._queue.remove(job)
            run = self._runs.get(job)
        if run:
            run.end_with("deleted", reason)
        self._tell(job)

    def runs(self) -> list[JobRun]:
        """Return the runs of all jobs that are running."""
        with self._condition:
            return list(self._runs.values())

    def run_of(self, job: int) -> JobRun | None:
        """Return the run of a job, if it is running."""
        with self._condition:
            return self._runs.get(job)

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
            self._now.extend(self._overdue())
            self._now.extend(self._postponed.due())
            if not left and self._clock.monotonic() >= self._starts_at:  # what is left may take slots
                fitting = self._queue.take_fitting(*self._engine.free())
                self._now.extend(partial(self._start, queued) for queued in fitting)
            held = [job for job, _ in self._holds.due(self._clock.monotonic())]
            if held:
                self._now.append(partial(self._release, held))
        while self._now:
            self._now.popleft()()
        self._threads = {thread for thread in self._threads if thread.is_alive()}
        self._engine.sweep()
        self._whole = True
        return True

    def _release(self, held: Iterable[int]) -> None:
        """Put jobs that were held into the queue after all, but for deleted ones."""
        rows = [row for job in held if self._store.release_held(job) and (row := self._store.job(job)) is not None]
        with self._condition:
            for row in rows:
                self._enqueue(row)
            if rows:
                self._wake()

    def _until_next(self) -> float:
        now = self._clock.monotonic()
        times = [self._engine.next_sweep(), self._deadlines.first(), self._postponed.next_time(), self._holds.first()]
        times.append(self._starts_at if self._starts_at > now else None)
        return max(0.0, min([_LONGEST, *(when - now for when in times if when is not None)]))

    def _start(self, queued: QueuedJob) -> None:
        self._engine.take(queued.cpus, queued.memory)
        thread = threading.Thread(target=self._work, args=(queued,), name=f"job-{queued.job}", daemon=True)
        try:
            thread.start()
        except (RuntimeError, MemoryError) as error:  # there can be no more threads
            self._engine.give_back(queued.cpus, queued.memory)
            self._put_back(queued, error)
            return
        self._threads.add(thread)

    def _overdue(self) -> list[Callable[[], object]]:
        """Find jobs that are over their time: with the run to end, or without one, taken out of the queue."""
        found: list[Callable[[], object]] = []
        now = self._clock.monotonic()
        for job, mark in self._deadlines.due(now):
            run = self._runs.get(job)
            if mark and run is not None and run.sandbox.mark == mark:
                found.append(partial(run.end_with, "killed", OVER_WALLTIME))
            elif not mark and self._waits_until.pop(job, now) <= now and self._queue.remove(job):
                found.append(partial(self._postponed.attempt, partial(self._end, job, "failed", OVER_QUEUE_TIME)))
        return found

    # Job threads

    def _work(self, queued: QueuedJob) -> None:
        """Have one run from slot to slot. Whatever happens, the slots come back."""
        again, refused = False, None
        try:
            again = self._run(queued.job)
        except NotNow as error:
            refused = error
        except Exception as error:
            log.exception("job %d", queued.job)
            reason = f"Internal error: {error}"
            self._insist(lambda: self._end(queued.job, "failed", reason))
        finally:
            self._engine.give_back(queued.cpus, queued.memory)
            with self._condition:
                self._runs.pop(queued.job, None)
                self._wake()
        if again:
            self.submit([queued.job])
        if refused is not None:
            self._put_back(queued, refused)

    def _run(self, job: int) -> bool:
        """Run a job; whether it is idle again, to be run once more. Raises NotNow when it could not begin."""
        spec = read_spec(self._context, job)
        try:
            sandbox = self._engine.new_sandbox()
        except OSError as error:
            raise not_now(error) from error
        try:
            run = JobRun(spec, sandbox, self._context.objects, self._context.containers)
            with self._condition:
                self._runs[job] = run
                deadline = self._clock.monotonic() + spec.walltime * self._context.seconds_per_minute
                self._deadlines.add(deadline, job, sandbox.mark)
                closing = self._closing
                self._wake()
            # From here on the job is running, and can be looked into and ended. One that was deleted stays as it is.
            if closing or not self._begun(job):
                return False
            began, outcome = self._clock.monotonic(), run()
            try:
                again = self._conclude(spec, outcome)
            except sqlite3.Error as error:
                log.error("the end of job %d is stored later: %s", job, error)
            else:
                if outcome.status == "deleted" and self._clock.monotonic() - began < spec.platform.young_seconds:
                    self._closed.wait(spec.platform.blocked_seconds)
                return again
        finally:
            self._engine.release(sandbox)  # which may be what fills the disk
        return self._insist(lambda: self._conclude(spec, outcome))

    def _begun(self, job: int) -> bool:
        try:
            return self._store.set_running(job)
        except sqlite3.Error as error:
            raise not_now(error) from error

    def _conclude(self, spec: JobSpec, outcome: Outcome) -> bool:
        """Store what became of a run. Whether its job is idle again."""
        row = self._store.job(spec.job)
        if outcome.status == WAITS:
            with self._condition:
                self._starts_at = self._clock.monotonic() + AGAIN
            return self._store.set_idle_again(spec.job, repeats=0)
        if row is not None and runs_again(outcome, spec.policies, row["retries"]):
            return self._store.set_idle_again(spec.job)
        execution, uploaded = json.dumps(outcome.execution), json.dumps(outcome.uploaded)
        ok = succeeded(outcome, spec.policies)
        self._end(spec.job, outcome.status, outcome.reason, execution, uploaded, ok)
        spec.logs.remove_empty()
        return False

    # What they share

    def _look_again(self) -> None:
        with self._condition:
            self._wake()

    def _wake(self) -> None:
        """Have the deciding thread look again. Under the condition's lock."""
        self._woken = True
        self._condition.notify_all()

    def _enqueue(self, row: sqlite3.Row) -> None:
        if row["queue_minutes"] >= 0:
            # What an earlier service has let it wait counts; of a job that is to be run again, nothing.
            waited = 0.0 if row["started"] is not None else max(0.0, self._clock.time() - row["created"])
            minutes = min(row["queue_minutes"], MOST_MINUTES_IN_QUEUE)  # an earlier version accepted more
            left = minutes * self._context.seconds_per_minute - waited
            self._waits_until[row["id"]] = until = self._clock.monotonic() + left
            self._deadlines.add(until, row["id"])
        slots = Allocation(row["cpus"], row["memory"], row["nodes"]).slots(self._engine.cpus, self._engine.memory)
        self._queue.add(QueuedJob(row["id"], row["priority"], *slots))

    def _put_back(self, queued: QueuedJob, error: BaseException) -> None:
        """Let a job wait again that could not begin, and start no other for a moment."""
        with self._condition:
            now = self._clock.monotonic()
            news, self._starts_at = now > self._starts_at + _SILENCE, now + AGAIN
            row = self._store.job(queued.job)
            if row is not None and row["ended"] is None:  # else it was deleted meanwhile
                self._queue.add(queued)
            self._wake()
        if news:
            log.warning("no job can be started at the moment, which is tried again: %s", error)

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

    def _insist(self, store: Callable[[], bool | None]) -> bool:
        """Store a job's end as soon as that can be done, in its thread; what it returns, or False."""
        while True:
            try:
                return bool(store())
            except sqlite3.Error as error:
                with self._condition:
                    if self._closing:
                        log.error("an end was not stored: %s", error)
                        return False
                    self._condition.wait_for(lambda: self._closing, timeout=AGAIN)
