"""Where a job's time went: the facts of one job, and their division into phases. Pure.

The service gives its own times in whole seconds, those of images, tasks and transfers as fractions, and nothing of what
happens inside a task: that is told by the signed records of the calls. What lies before the job and behind it, this
program's clock tells, which may differ from the service's.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .names import CallRange

PHASES: Mapping[str, str] = {
    "client": "here: waiting for max_workers, uploads, requests, downloads",
    "queue": "in the service's queue",
    "image": "fetching the container image",
    "stage_in": "inputs",
    "start": "start of container and Python, loading of the function",
    "call": "calls",
    "idle": "warm workers without a call",
    "stage_out": "outputs",
    "other": "of the job's time, what nobody tells: the platform's own work around the task, lost jobs and calls",
}
"""What a job's time is divided into, in their order, and what they mean."""
ON_SLOT = ("image", "stage_in", "start", "call", "idle", "stage_out", "other")
"""Those in which a job keeps its CPUs."""
CANCELLED = "cancelled"
"""The status of a job that was deleted since nobody wanted its calls any more."""
_WELL = ("completed", "running", "idle", CANCELLED)
_ROUNDING = 1.0  # seconds by which a difference of two whole seconds may be wrong
_CENTURY = 3.2e9  # seconds: what is longer, or older, is no time


@dataclass(frozen=True, slots=True)
class JobSeen:
    """A job, as far as anybody has seen it. None: nobody has said."""

    job_id: int | None
    first: int  # the number in the run of its first call; of a warm worker its own
    size: int  # calls that it has; of a warm worker those that it has run
    status: str  # the service's word
    attempt: int = 1
    function: str = ""
    reason: str = ""
    failed: int = 0  # calls
    again: int = 0  # calls that go into another job
    lost: int = 0  # calls that left no outcome in a job that did: nobody knows how long they took
    cpus: int | None = None  # of all nodes
    walltime: float | None = None  # seconds that it asked for
    is_worker: bool = False
    reruns: int = 0  # by the platform
    # Seconds since the epoch by this program's clock.
    began: float | None = None  # its calls were handed in
    sent: float | None = None  # the service had taken it
    settled: float | None = None  # its calls had their outcomes
    # By the service's clock, in whole seconds.
    created: float | None = None
    started: float | None = None
    ended: float | None = None
    # Seconds.
    image: float | None = None
    stage_in: float | None = None
    task: float | None = None
    stage_out: float | None = None
    cpu: float | None = None  # of processors
    calls: float | None = None  # in its calls together
    longest: float | None = None  # of one call

    @property
    def is_lost(self) -> bool:
        """Whether the platform, or somebody, has ended it, or it failed."""
        return self.status not in _WELL


def seen_of(job: Mapping[str, Any], calls: CallRange) -> JobSeen:
    """Read what the service says of a job, in a list or in detail; what makes no sense is left out."""
    execution = _mapping(job.get("execution"))
    events = _mapping(job.get("events"))
    given = {**_mapping(job.get("resources")), **_mapping(execution.get("provisionedResources"))}
    listed = execution.get("tasks")
    tasks = [task for task in listed if isinstance(task, dict)] if isinstance(listed, list) else []
    minutes = _seconds(_mapping(job.get("resources")).get("walltime"))
    cpus = _count(given.get("cpus"))
    return JobSeen(
        job_id=_count(job.get("id")),
        first=calls.first,
        size=calls.size,
        attempt=calls.attempt,
        status=str(job.get("status") or ""),
        reason=str(job.get("statusReason") or ""),
        cpus=None if cpus is None else cpus * (_count(given.get("nodes")) or 1),
        walltime=None if minutes is None else 60.0 * minutes,
        reruns=_count(execution.get("retries")) or 0,
        created=_seconds(events.get("createTime")),
        started=_seconds(events.get("startTime")),
        ended=_seconds(events.get("endTime")),
        image=_sum(task.get("imagePullTime") for task in tasks),
        stage_in=_seconds(execution.get("stageInTime")),
        task=_sum(task.get("wallTimeUsage") for task in tasks),
        stage_out=_seconds(execution.get("stageOutTime")),
        cpu=_sum(task.get("cpuTimeUsage") for task in tasks),
    )


def phases_of(job: JobSeen, offset: float = 0.0) -> dict[str, float]:
    """Divide the life of a job that has ended into `PHASES`, in seconds; together they are all of it.

    Without the records of its calls, the whole task counts as ``call``; that of a lost job, or of lost calls, as
    ``other``.

    Args:
        offset: seconds by which the service's clock is ahead of this program's.
    """
    phases = dict.fromkeys(PHASES, 0.0)
    phases.update(_on_slot(job))
    running = sum(phases.values())
    if job.began is not None and job.settled is not None:
        whole = max(0.0, job.settled - job.began)
        before = min(max(0.0, (job.sent if job.sent is not None else job.settled) - job.began), whole)
        if running > whole - before and phases["other"]:  # it is a difference of whole seconds
            excess = min(phases["other"], running - (whole - before))
            phases["other"] -= excess
            running -= excess
        rest = max(0.0, whole - before - running)
        after = 0.0
        if job.ended is not None:
            after = min(max(0.0, job.settled + offset - job.ended - _ROUNDING / 2), rest)
        phases["client"], phases["queue"] = before + after, rest - after
    elif job.created is not None:
        until = job.started if job.started is not None else job.ended
        phases["queue"] = max(0.0, until - job.created) if until is not None else 0.0
    return phases


def _on_slot(job: JobSeen) -> dict[str, float]:
    """Divide the time in which it kept its CPUs."""
    span = 0.0
    if job.started is not None and job.ended is not None:
        span = max(0.0, job.ended - job.started)
    if job.is_worker:
        if job.calls is None:
            return {"other": span}  # only its own program knows
        return {"call": job.calls, "idle": max(0.0, span - job.calls)}  # the span may be of whole seconds
    task, unknown = job.task if job.task is not None else job.calls or 0.0, 0.0
    if job.lost or (job.calls is None and job.is_lost):
        known = min(job.calls or 0.0, task)
        task, unknown = known, task - known  # nobody knows what the other calls had of it
    call = task if job.calls is None else min(job.calls, task)
    parts = {
        "image": job.image or 0.0,
        "stage_in": job.stage_in or 0.0,
        "start": task - call,
        "call": call,
        "stage_out": job.stage_out or 0.0,
    }
    missing = span - sum(parts.values()) - unknown
    return {**parts, "other": unknown + (missing if missing > _ROUNDING else 0.0)}


def clock_offset(jobs: Iterable[JobSeen]) -> float:
    """Tell by how many seconds the service's clock is ahead of this program's: 0 unless the jobs contradict.

    A job is created after its calls were handed in, and has ended before they are settled.
    """
    least, most = -math.inf, math.inf
    for job in jobs:
        if job.settled is not None and job.ended is not None:
            least = max(least, job.ended - job.settled)
        if job.began is not None and job.created is not None:
            most = min(most, job.created + _ROUNDING - job.began)
    if least > most:
        return (least + most) / 2
    return min(max(0.0, least), most)


@dataclass
class Sums:
    """Sums over jobs."""

    jobs: int = 0
    calls: int = 0
    failed: int = 0  # calls
    lost: int = 0  # jobs that did not end well
    repeated: int = 0  # jobs that were another attempt
    reruns: int = 0
    asked: float = 0.0  # seconds of CPUs
    used: float = 0.0  # of those, in which they were busy, of the jobs for which that is known
    asked_known: float = 0.0  # what those jobs have asked for
    phases: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PHASES, 0.0))

    def add(self, job: JobSeen, phases: Mapping[str, float]) -> None:
        """Add a job that has ended, and its phases."""
        self.jobs += 1
        self.calls += job.size - job.again
        self.failed += job.failed
        self.lost += job.is_lost
        self.repeated += job.attempt > 1
        self.reruns += job.reruns
        asked = (job.cpus or 1) * sum(phases[name] for name in ON_SLOT)
        self.asked += asked
        if job.cpu is not None:
            self.used += job.cpu
            self.asked_known += asked
        for name, seconds in phases.items():
            self.phases[name] += seconds


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _seconds(value: object) -> float | None:
    good = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < _CENTURY
    return float(value) if good else None  # type: ignore[arg-type]


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 60 else None


def _sum(values: Iterable[object]) -> float | None:
    known = [seconds for value in values if (seconds := _seconds(value)) is not None]
    return sum(known) if known else None
