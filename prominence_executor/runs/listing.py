"""What a list of jobs says of runs: by the names of the jobs and the words of their commands alone.

A listing costs one request, or two, whatever the number of jobs. The service's lists have no labels; the name of the
function that is called stands behind the command for that reason.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..client.client import ProminenceClient
from ..client.status import has_ended, is_held
from ..errors import InvalidRequestError
from ..images.files import shown
from ..remote.wire import RUNNER_FILE
from ..run.chunk import HELD
from ..run.names import (
    MOST_CALLS,
    ArrayRange,
    CallRange,
    function_in,
    parse_array_name,
    parse_job_name,
    parse_worker_name,
    run_of,
    workflow_of,
)
from ..run.options import FUNCTION_LABEL, RUN_LABEL


@dataclass(frozen=True)
class JobInfo:
    """A job, as a list shows it.

    Attributes:
        status: the service's word; ``"held"`` of one that it calls failed, but keeps in its queue.
        function: the name of what it calls; "" where that is not known, as of jobs of other programs.
        created, started, ended: seconds since the epoch, as far as they have happened.
        run_id: of an executor's job, else None.
        calls: the numbers in the run of the calls that it runs; empty of a warm worker, and of other programs' jobs.
        attempt: of these calls: 1 for the first one.
        worker: the number of a warm worker.
    """

    id: int
    name: str
    status: str
    reason: str = ""
    function: str = ""
    image: str = ""
    created: float | None = None
    started: float | None = None
    ended: float | None = None
    run_id: str | None = None
    calls: range = range(0)
    attempt: int = 1
    worker: int | None = None
    active: bool = False

    def seconds(self, now: float | None = None) -> float | None:
        """Return for how long it has run, or did; None before it has begun."""
        if self.started is None:
            return None
        end = self.ended if self.ended is not None else (time.time() if now is None else now) if self.active else None
        return None if end is None else max(0.0, end - self.started)


@dataclass(frozen=True)
class RunInfo:
    """A run, as lists of jobs and workflows show it.

    Attributes:
        jobs: how many there are by status.
        calls: how many calls these jobs have; those that warm workers were given do not show in lists.
        functions: what they call.
        created: of the first job, in seconds since the epoch; ended: of the last one, once none is active.
        workers: how many of the active jobs are warm workers.
        all_workers: how many of all these jobs are.
    """

    run_id: str
    active: bool
    jobs: Mapping[str, int]
    calls: int
    functions: tuple[str, ...]
    created: float | None
    ended: float | None
    workers: int = 0
    all_workers: int = 0


@dataclass(frozen=True)
class ArrayInfo:
    """A workflow of which each job has some calls of a run."""

    id: int
    name: str
    span: ArrayRange
    active: bool


@dataclass
class _Found:
    jobs: list[JobInfo] = field(default_factory=list)
    arrays: list[ArrayInfo] = field(default_factory=list)


def list_jobs(
    client: ProminenceClient,
    *,
    all: bool = False,  # the service's word
    run_id: str | None = None,
    function: str | None = None,
    label: tuple[str, str] | None = None,
) -> list[JobInfo]:
    """List the user's jobs, the newest last: the active ones, or all. Blocks for one request.

    Args:
        run_id, function, label: only those of this run, that call this function, with this label; one of the three is
            asked of the service, since it knows one label at a time.

    Raises:
        ProminenceError: the service does not answer, or refuses.
    """
    constraint = label
    if run_id is not None:
        constraint = constraint or (RUN_LABEL, run_id)
    if function is not None:
        constraint = constraint or (FUNCTION_LABEL, function)
    jobs = (job_info(job) for job in client.list_jobs(constraint=constraint, all=all))
    wanted = (job for job in jobs if run_id in (None, job.run_id) and function in (None, job.function))
    return sorted(wanted, key=lambda job: job.id)


def list_runs(client: ProminenceClient, *, all: bool = False) -> list[RunInfo]:  # the service's word
    """List the user's runs, the newest last: those with active jobs, or all. Blocks for two requests.

    Of a run that is active only its active jobs count, unless ``all``.

    Raises:
        ProminenceError: the service does not answer, or refuses.
    """
    found: dict[str, _Found] = {}
    for job in map(job_info, client.list_jobs(all=all)):
        if job.run_id is not None:
            found.setdefault(job.run_id, _Found()).jobs.append(job)
    for array in list_arrays(client, all=all):
        run_id = run_of(array.name)
        if run_id is not None:
            found.setdefault(run_id, _Found()).arrays.append(array)
    infos = [summary(run_id, item.jobs, item.arrays) for run_id, item in found.items()]
    return sorted(infos, key=lambda info: (info.created or 0.0, info.run_id))


def list_arrays(
    client: ProminenceClient, *, all: bool = False, constraint: tuple[str, str] | None = None
) -> list[ArrayInfo]:
    """List the workflows that are arrays of runs; none where the service has no workflows. One request."""
    try:
        listed = client.list_workflows(all=all, constraint=constraint)
    except InvalidRequestError:
        return []
    arrays = []
    for workflow in listed:
        name = str(workflow.get("name") or "")
        run_id = run_of(name)
        span = None if run_id is None else parse_array_name(run_id, name)
        if span is not None and span.last < MOST_CALLS:
            arrays.append(ArrayInfo(int(workflow["id"]), name, span, not has_ended(workflow)))
    return arrays


def job_info(job: Mapping[str, Any]) -> JobInfo:
    """Read a job of a list."""
    name, events = str(job.get("name") or ""), job.get("events") or {}
    task: Mapping[str, Any] = next(iter(job.get("tasks") or ()), {})
    command = str(task.get("cmd") or "")
    run_id = run_of(name) if command.split()[:2] == ["python3", RUNNER_FILE] else None
    calls, worker = None, None
    if run_id is not None:
        calls, worker = parse_job_name(run_id, name), parse_worker_name(run_id, name)
        if calls is not None and calls.first + calls.size > MOST_CALLS:
            calls = None
        if calls is None and worker is None:
            run_id = None
    numbers = calls or CallRange(0, 0, 1)
    return JobInfo(
        id=int(job["id"]),
        name=name,
        status=HELD if is_held(job) else str(job["status"]),
        reason=str(job.get("statusReason") or ""),
        function=function_in(command) if run_id is not None and calls is not None else "",
        image=shown(str(task.get("image") or "")),
        created=events.get("createTime"),
        started=events.get("startTime"),
        ended=events.get("endTime"),
        run_id=run_id,
        calls=numbers.numbers(),
        attempt=numbers.attempt,
        worker=worker,
        active=not has_ended(job),
    )


def summary(run_id: str, jobs: Iterable[JobInfo], arrays: Iterable[ArrayInfo]) -> RunInfo:
    """Sum up what lists show of a run."""
    jobs, arrays = list(jobs), list(arrays)
    counts = Counter(job.status for job in jobs)
    spans = {(job.calls.start, job.calls.stop) for job in jobs if job.calls}
    made = Counter(map(workflow_of, {job.name for job in jobs}))
    for array in arrays:
        if array.active and (left := array.span.members - made[array.name]):
            counts["not made yet"] += left
        spans.add((array.span.first, array.span.last + 1))
    active = any(job.active for job in jobs) or any(array.active for array in arrays)
    functions = dict.fromkeys(job.function for job in jobs if job.function)
    ends = [job.ended for job in jobs if job.ended is not None]
    return RunInfo(
        run_id=run_id,
        active=active,
        jobs=dict(counts),
        calls=_covered(spans),
        functions=tuple(functions),
        created=min((job.created for job in jobs if job.created is not None), default=None),
        ended=None if active else max(ends, default=None),
        workers=sum(job.active and job.worker is not None for job in jobs),
        all_workers=sum(job.worker is not None for job in jobs),
    )


def _covered(spans: Iterable[tuple[int, int]]) -> int:
    """Return how many numbers there are in spans that may overlap, each from its first number to before its last."""
    count = end = 0
    for start, stop in sorted(spans):
        count += max(0, stop - max(start, end))
        end = max(end, stop)
    return count
