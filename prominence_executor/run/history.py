"""`History`: what has been seen of a run's jobs anyway, for its log and its report.

It asks nobody: transports tell it what a list, a description or an outcome has shown. It keeps the facts of so many
jobs, and of all beyond them sums. Any thread may use it; its lock is held for bookkeeping only.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ..shown import on_terminal
from .chunk import Chunk
from .future import failure_of
from .names import function_word
from .phases import CANCELLED, JobSeen, Sums, clock_offset, phases_of, seen_of
from .short_calls import ShortCalls

MOST = 20_000  # jobs whose facts are kept, each in half a kilobyte
_FUNCTIONS = 100  # of a warm worker, whose names are kept


@dataclass
class WorkerSeen:
    """A warm worker. Times are this program's, in seconds since the epoch."""

    number: int
    began: float
    cpus: int
    job_id: int | None = None
    spoke: float | None = None  # its first word
    ended: float | None = None
    reason: str = ""
    calls: int = 0
    failed: int = 0
    seconds: float = 0.0  # in its calls
    functions: dict[str, None] = field(default_factory=dict)  # that they called, in that order; not more than some

    def as_job(self, now: float) -> JobSeen:
        """Return it as a job, up to now if it goes on."""
        open_now = self.ended is None
        return JobSeen(
            job_id=self.job_id,
            first=self.number,
            size=self.calls,
            status=("running" if self.spoke else "idle") if open_now else "lost" if self.reason else "completed",
            reason=self.reason,
            failed=self.failed,
            cpus=self.cpus,
            is_worker=True,
            function=function_word(self.functions),
            created=self.began,
            started=self.spoke,
            ended=now if open_now else self.ended,
            calls=self.seconds,
        )


@dataclass(frozen=True)
class Seen:
    """What a `History` has at one moment."""

    jobs: tuple[JobSeen, ...]
    workers: tuple[JobSeen, ...]
    beyond: Sums  # of the jobs whose facts were not kept
    offset: float  # seconds by which the service's clock is ahead of this one's, as far as jobs tell


@dataclass
class History:
    """The jobs of one run that this program has seen.

    Args:
        log: has a line for each job's start and end.
    """

    run_id: str
    log: logging.Logger
    most: int = MOST
    short_calls: ShortCalls = field(default_factory=ShortCalls)

    def __post_init__(self) -> None:
        self._lock = threading.Lock()  # guards what follows
        self._jobs: list[JobSeen] = []
        self._beyond = Sums()
        self._offset: float | None = None  # of the clocks, for these
        self._workers: dict[int, WorkerSeen] = {}

    def seen(self) -> Seen:
        """Return what is there now."""
        now = time.time()
        with self._lock:
            jobs, beyond = tuple(self._jobs), replace(self._beyond, phases=dict(self._beyond.phases))
            workers = tuple(worker.as_job(now) for worker in self._workers.values())
        return Seen(jobs, workers, beyond, clock_offset(jobs))

    # -- jobs of calls ---------------------------------------------------------------------------------------------

    def saw(self, chunk: Chunk) -> None:
        """Note a status that a list has shown."""
        if chunk.status == "running" and not chunk.logged:
            chunk.logged = "started"
            self.log.info("run %s: job %s runs %s", self.run_id, chunk.job_id, what(chunk))

    def ended(self, chunk: Chunk, job: Mapping[str, Any] | None) -> None:
        """Note that a chunk's job is over, and its calls are settled or go into another one.

        ``job``: its description in detail, if there was one.
        """
        if chunk.logged == "ended" or (chunk.job_id is None and chunk.sent_at is None and job is None):
            return  # it never was at the service
        failed, again, reason = _failures(chunk)
        ran = chunk.ran
        seen = replace(
            seen_of(job or {"id": chunk.job_id, "status": chunk.status}, chunk.numbers),
            function=chunk.function,
            reason=on_terminal((job or {}).get("statusReason") or reason),
            failed=failed,
            again=again,
            began=chunk.began,
            sent=chunk.sent_at,
            settled=time.time(),
            lost=max(0, chunk.size - sum(call.cancelled() for call in chunk.calls) - ran.calls)
            if ran is not None
            else 0,
            calls=ran.seconds if ran is not None else None,
            longest=ran.longest if ran is not None else None,
        )
        if chunk.calls and chunk.cancelled():
            seen = replace(seen, status=CANCELLED)
        if seen.started is not None and not chunk.logged:
            self.log.info("run %s: job %s runs %s", self.run_id, chunk.job_id, what(chunk))
        chunk.logged = "ended"
        self._log_end(chunk, seen, reason)
        self.add(seen)

    def _log_end(self, chunk: Chunk, seen: JobSeen, reason: str) -> None:
        seconds = None if seen.started is None or seen.ended is None else seen.ended - seen.started
        if seen.task is not None and (seconds is None or seconds < seen.task):
            seconds = seen.task
        parts = [f"has ended, {on_terminal(seen.status)}"]
        parts += [f"after {seconds:.3g} s"] if seconds is not None else []
        parts += [f"of which its calls had {seen.calls:.3g} s"] if seen.calls is not None else []
        why = "; ".join(dict.fromkeys(text for text in (reason, seen.reason) if text))
        text = f"{', '.join(parts)}: {what(chunk)}" + (f": {why}" if why else "")
        self.log.info("run %s: job %s %s", self.run_id, chunk.job_id, text)

    def add(self, seen: JobSeen) -> None:
        """Take in a job that has ended; log it when short calls turn out to be a waste."""
        with self._lock:
            if len(self._jobs) < self.most:
                self._jobs.append(seen)
            else:
                if self._offset is None:
                    self._offset = clock_offset(self._jobs)
                self._beyond.add(seen, phases_of(seen, self._offset))
        text = self.short_calls.saw(seen)
        if text is not None:
            self.log.warning("run %s: %s", self.run_id, text)

    # -- warm workers ----------------------------------------------------------------------------------------------

    def worker_began(self, number: int, cpus: int) -> None:
        """Note that a worker is to be started."""
        with self._lock:
            self._workers[number] = WorkerSeen(number, time.time(), cpus)

    def worker_spoke(self, number: int, job_id: int | None) -> None:
        """Note a worker's first word."""
        with self._lock:
            worker = self._workers.get(number)
            first = worker is not None and worker.spoke is None
            if worker is not None:
                worker.job_id = job_id
                worker.spoke = worker.spoke or time.time()
        if first:
            self.log.info("run %s: job %s runs warm worker %d", self.run_id, job_id, number)

    def worker_ended(self, number: int, reason: str = "") -> None:
        """Note that a worker is no more, or is not wanted any more."""
        with self._lock:
            worker = self._workers.get(number)
            if worker is None or worker.ended is not None:
                return
            worker.ended, worker.reason = time.time(), on_terminal(reason)
            seconds = worker.ended - (worker.spoke or worker.ended)
            facts = (worker.job_id, number, seconds, worker.calls, worker.seconds)
        why = f": {worker.reason}" if worker.reason else ""
        text = "run %s: job %s, warm worker %d, has ended after %.3g s: %d calls, which had %.3g s%s"
        self.log.info(text, self.run_id, *facts, why)

    def all_workers_ended(self) -> None:
        """Note that the run is over."""
        with self._lock:
            numbers = [number for number, worker in self._workers.items() if worker.ended is None]
        for number in numbers:
            self.worker_ended(number)

    def worker_did(self, number: int, chunk: Chunk, seconds: Iterable[float]) -> None:
        """Note that a worker has run a chunk."""
        failed, again, _ = _failures(chunk)
        each = list(seconds)
        took = sum(each)
        with self._lock:
            worker = self._workers.get(number)
            if worker is not None:
                worker.calls += max(len(each), chunk.size - again)  # a lost one has no seconds
                worker.failed += failed
                worker.seconds += took
                if chunk.function and len(worker.functions) < _FUNCTIONS:
                    worker.functions[chunk.function] = None
        if self.log.isEnabledFor(logging.DEBUG):
            self.log.debug("run %s: worker %d has run %s in %.3g s", self.run_id, number, what(chunk), took)


def what(chunk: Chunk) -> str:
    """Say which calls a chunk has: their numbers in the run, and their function."""
    last = chunk.first + chunk.size - 1
    numbers = f"call {chunk.first}" if chunk.size == 1 else f"calls {chunk.first} to {last}"
    attempt = f", attempt {chunk.attempt}" if chunk.attempt > 1 else ""
    return numbers + (f", {on_terminal(chunk.function, 100)}" if chunk.function else "") + attempt


def _failures(chunk: Chunk) -> tuple[int, int, str]:
    """Count the calls that have failed, and that go again; say why in a few words, without what an exception says."""
    again = cancelled = 0
    errors: list[BaseException] = []
    for call in chunk.calls:
        if not call.done():
            again += 1
        elif call.cancelled():
            cancelled += 1
        elif (error := failure_of(call)) is not None:
            errors.append(error)
    failed, names = len(errors), sorted({type(error).__name__ for error in errors})
    parts = [f"{failed} of {chunk.size} calls failed ({on_terminal(', '.join(names))})"] if failed else []
    parts += [f"{again} to be sent again"] if again else []
    parts += [f"{cancelled} cancelled"] if cancelled else []
    return failed, again, ", ".join(parts)
