"""`Numbers`: what a report consists of, and the sentences that all its forms have in common. It asks nobody."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ..run.phases import JobSeen, phases_of
from ..run.short_calls import Fit
from ..shown import on_terminal

_NAMED = 5  # jobs that were lost and are named


@dataclass(frozen=True, repr=False)
class Numbers:
    """The numbers of a report; `Report` describes them."""

    run_id: str
    made: float
    phases: dict[str, float]
    jobs: int
    calls: int
    failed_calls: int
    failures_known: bool
    workers: int
    lost_jobs: int
    repeated_jobs: int
    reruns: int
    cpu_hours_asked: float
    cpu_hours_used: float | None
    used_is_estimated: bool
    used_share: float | None = field(repr=False)
    efficiency: float | None
    suggestion: str
    waiting: dict[str, int]
    notes: tuple[str, ...]
    fit: Fit | None = field(repr=False)
    seen: tuple[JobSeen, ...] = field(repr=False)  # jobs and workers, in the order of their calls
    running: tuple[JobSeen, ...] = field(repr=False)
    offset: float = field(repr=False)

    def title(self) -> str:
        """Return one line: which run, and how many jobs and calls have ended."""
        jobs = [f"{self.jobs} job{'s' * (self.jobs != 1)}"] if self.jobs or not self.workers else []
        jobs += [f"{self.workers} warm worker{'s' * (self.workers != 1)}"] if self.workers else []
        least = "" if self.failures_known else "at least "
        calls = f"{self.calls} call{'s' * (self.calls != 1)} ended"
        calls += f", {least}{self.failed_calls} failed" if self.failed_calls else ""
        return f"run {on_terminal(self.run_id)}: {' and '.join(jobs)}, {calls}"

    def cpu_sentence(self) -> str:
        """Say what was asked for, and used."""
        if self.cpu_hours_used is None or self.used_share is None:
            return f"{self.cpu_hours_asked:.3g} asked for; nobody tells how many were used"
        about, estimated = ("about ", ", estimated") if self.used_is_estimated else ("", "")
        used = f"{about}{self.cpu_hours_used:.3g} used ({self.used_share:.0%}{estimated})"
        return f"{self.cpu_hours_asked:.3g} asked for, {used}"

    def losses_sentence(self) -> str:
        """Say how many jobs were lost, and name some."""
        lost = [job for job in self.seen if job.is_lost]
        named = [f"{_which(job)} {on_terminal(job.status)}{_why(job)}" for job in lost[:_NAMED]]
        more = f", and {self.lost_jobs - len(named)} more" if self.lost_jobs > len(named) else ""
        return f"{self.lost_jobs} job{'s' * (self.lost_jobs != 1)}: " + ", ".join(named) + more

    def rows(self) -> list[dict[str, Any]]:
        """Return a dict for each job that has ended, and each warm worker, with the seconds of its phases."""
        return [row_of(job, self.offset) for job in self.seen]


COLUMNS = (
    "job", "worker", "first_call", "calls", "attempt", "function", "status", "reason", "failed", "cpus", "cpu_seconds",
    "began", "created", "started", "ended", "settled", "reruns",
)  # fmt: skip


def row_of(job: JobSeen, offset: float) -> dict[str, Any]:
    """Return what a table has of a job."""
    values = (
        job.job_id, job.first if job.is_worker else None, None if job.is_worker else job.first, job.size, job.attempt,
        job.function, job.status, job.reason, job.failed, job.cpus, job.cpu,
        job.began, job.created, job.started, job.ended, job.settled, job.reruns,
    )  # fmt: skip
    return {**dict(zip(COLUMNS, values, strict=True)), **phases_of(job, offset)}


def _which(job: JobSeen) -> str:
    if job.job_id is not None:
        return f"job {job.job_id}"
    return f"worker {job.first}" if job.is_worker else f"the job of call {job.first}"


def _why(job: JobSeen) -> str:
    return f" ({on_terminal(job.reason, 80)})" if job.reason else ""


def duration(seconds: float) -> str:
    """Return seconds as people say them: ``0.12 s``, ``75 s``, ``12 min``, ``3.4 h``."""
    if seconds < 120:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 360_000 else f"{seconds / 86400:.0f} days"
