"""This machine as the place where jobs run: each running job has a thread, as many run as there are slots.

One thread decides: it starts what the queue says, ends what is over its walltime, and has the sandboxes of ended jobs
swept up. Where the machine is too short of something (disk, descriptors, processes), a job waits in the queue.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from ..containers.base import Containers
from ..node.job_run import JobRun
from ..node.outcome import OVER_WALLTIME, RESTARTED, WAITS
from ..node.platform import Platform
from ..state.clock import Clock
from ..state.objects import ObjectStore
from ..state.shortage import AGAIN, NotNow, not_now
from ..state.vital import VitalThreads
from .base import Jobs, Limits, Request, Room
from .memory import MemoryWatch
from .queue import Deadlines, JobQueue, QueuedJob
from .sandboxes import Sandboxes

log = logging.getLogger("prominence_executor.local")

_SILENCE = 60.0  # seconds for which the same is not said again
_LONGEST = 3600.0  # seconds between two looks: a condition cannot wait for years


class LocalEngine:
    """Every public method may be called from any thread.

    `_condition` guards the queue, the slots, the deadlines, the runs, when to start and the flags. The set of threads,
    what is to be done now and whether a turn was whole are the deciding thread's own, and after its end `stop`'s.
    """

    def __init__(
        self,
        directory: Path,
        limits: Limits,
        objects: ObjectStore,
        containers: Containers,
        platform: Platform,
        seconds_per_minute: float,
        clock: Clock,
        vital: VitalThreads,
    ) -> None:
        self._limits, self._objects, self._containers = limits, objects, containers
        self._sandboxes = Sandboxes(directory, clock)
        self._platform, self._seconds_per_minute, self._clock = platform, seconds_per_minute, clock
        self._jobs: Jobs
        self._condition = threading.Condition()
        self._woken = self._closing = False
        self._closed = threading.Event()
        self._queue = JobQueue(limits.cpus, limits.memory)
        self._free_cpus, self._free_memory = limits.cpus, limits.memory
        self._deadlines = Deadlines()
        self._runs: dict[int, JobRun] = {}
        self._starts_at = 0.0  # the time before which no job is started
        self._whole = True  # the last turn came to its end
        self._now: deque[Callable[[], object]] = deque()
        self._threads: set[threading.Thread] = set()
        self._thread = vital.make("engine", self._turn)
        self._memory = MemoryWatch(self._running, vital)

    # The engine's life

    def open(self, jobs: Jobs) -> frozenset[int]:
        """Clear away what an earlier service left; nothing of it goes on. RuntimeError: see `Sandboxes`."""
        self._jobs = jobs
        self._sandboxes.open()
        return frozenset()

    def start(self) -> None:
        """Begin."""
        self._thread.start()
        if self._platform.memory_enforced:
            self._memory.start()

    def stop(self) -> None:
        """End every running job and every thread. What still waits is not begun any more."""
        self._memory.stop()
        with self._condition:
            self._closing = True
            self._condition.notify_all()
        self._closed.set()
        if self._thread.is_alive():
            self._thread.join()
        runs = self._running()
        for run in runs:
            run.end_with("failed", RESTARTED)
        sandboxes = [run.sandbox for run in runs]
        self._sandboxes.kill(sandboxes)
        for thread in self._threads:
            thread.join()
        self._sandboxes.kill(sandboxes)

    # Jobs

    def limits(self) -> Limits:
        """Return this machine's size."""
        return self._limits

    def room(self) -> Room:
        """Return the slots of this machine, and how many are free."""
        with self._condition:
            return Room(self._limits.cpus, self._limits.memory, self._free_cpus, self._free_memory)

    def submit(self, requests: Iterable[Request]) -> None:
        """Put jobs into the queue."""
        with self._condition:
            for request in requests:
                slots = request.allocation.slots(self._limits.cpus, self._limits.memory)
                self._queue.add(QueuedJob(request.job, request.priority, *slots))
            self._wake()

    def withdraw(self, job: int) -> bool:
        """Take a job out of the queue; whether it was there."""
        with self._condition:
            return self._queue.remove(job)

    def end(self, job: int, status: str, reason: str | None) -> None:
        """End a job that runs or waits."""
        with self._condition:
            self._queue.remove(job)
            run = self._runs.get(job)
        if run:
            run.end_with(status, reason)

    def run_of(self, job: int) -> JobRun | None:
        """Return the run of a job, if it is running."""
        with self._condition:
            return self._runs.get(job)

    def _running(self) -> list[JobRun]:
        with self._condition:
            return list(self._runs.values())

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
            if not left and self._clock.monotonic() >= self._starts_at:  # what is left may take slots
                fitting = self._queue.take_fitting(self._free_cpus, self._free_memory)
                self._now.extend(partial(self._start, queued) for queued in fitting)
        while self._now:
            self._now.popleft()()
        self._threads = {thread for thread in self._threads if thread.is_alive()}
        self._sandboxes.sweep()
        self._whole = True
        return True

    def _until_next(self) -> float:
        now = self._clock.monotonic()
        times = [self._sandboxes.next_sweep(), self._deadlines.first()]
        times.append(self._starts_at if self._starts_at > now else None)
        return max(0.0, min([_LONGEST, *(when - now for when in times if when is not None)]))

    def _overdue(self) -> list[Callable[[], object]]:
        """Find runs that are over their walltime."""
        found: list[Callable[[], object]] = []
        for job, mark in self._deadlines.due(self._clock.monotonic()):
            run = self._runs.get(job)
            if run is not None and run.sandbox.mark == mark:
                found.append(partial(run.end_with, "killed", OVER_WALLTIME))
        return found

    def _start(self, queued: QueuedJob) -> None:
        self._take(queued)
        thread = threading.Thread(target=self._work, args=(queued,), name=f"job-{queued.job}", daemon=True)
        try:
            thread.start()
        except (RuntimeError, MemoryError) as error:  # there can be no more threads
            self._give_back(queued)
            self._put_back(queued, error)
            return
        self._threads.add(thread)

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
            self._jobs.insist(lambda: self._jobs.failed(queued.job, reason))
        finally:
            self._give_back(queued)
        if again:
            self._jobs.submit([queued.job])
        if refused is not None:
            self._put_back(queued, refused)

    def _run(self, job: int) -> bool:
        """Run a job; whether it is idle again, to be run once more. Raises NotNow when it could not begin."""
        spec = self._jobs.spec(job)
        try:
            sandbox = self._sandboxes.new(spec.user)
        except OSError as error:
            raise not_now(error) from error
        try:
            run = JobRun(spec, sandbox, self._objects, self._containers)
            with self._condition:
                self._runs[job] = run
                deadline = self._clock.monotonic() + spec.walltime * self._seconds_per_minute
                self._deadlines.add(deadline, job, sandbox.mark)
                closing = self._closing
                self._wake()
            # From here on the job is running, and can be looked into and ended. One that was deleted stays as it is.
            if closing or not self._jobs.begun(job):
                return False
            began, outcome = self._clock.monotonic(), run()
            if outcome.status == WAITS:
                with self._condition:
                    self._starts_at = self._clock.monotonic() + AGAIN
            try:
                again = self._jobs.ended(spec, outcome)
            except sqlite3.Error as error:
                log.error("the end of job %d is stored later: %s", job, error)
            else:
                if outcome.status == "deleted" and self._clock.monotonic() - began < spec.platform.young_seconds:
                    self._closed.wait(spec.platform.blocked_seconds)
                return again
        finally:
            self._sandboxes.release(sandbox)  # which may be what fills the disk
        return self._jobs.insist(lambda: self._jobs.ended(spec, outcome))

    # What they share

    def _wake(self) -> None:
        """Have the deciding thread look again. Under the condition's lock."""
        self._woken = True
        self._condition.notify_all()

    def _take(self, queued: QueuedJob) -> None:
        with self._condition:
            self._free_cpus -= queued.cpus
            self._free_memory -= queued.memory

    def _give_back(self, queued: QueuedJob) -> None:
        with self._condition:
            self._free_cpus += queued.cpus
            self._free_memory += queued.memory
            self._runs.pop(queued.job, None)
            self._wake()

    def _put_back(self, queued: QueuedJob, error: BaseException) -> None:
        """Let a job wait again that could not begin, and start no other for a moment."""
        is_open = self._jobs.is_open(queued.job)  # else it was deleted meanwhile
        with self._condition:
            now = self._clock.monotonic()
            news, self._starts_at = now > self._starts_at + _SILENCE, now + AGAIN
            if is_open:
                self._queue.add(queued)
            self._wake()
        if news:
            log.warning("no job can be started at the moment, which is tried again: %s", error)
