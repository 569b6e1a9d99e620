"""Ending a run, or some of its calls, from outside: its jobs, arrays and warm workers are deleted.

The program behind the run, if it is still there, sees deleted jobs.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass

from ..client.client import ProminenceClient
from ..errors import InvalidRequestError, NotFoundError
from ..run.chunk import YOUNG
from ..run.names import workflow_of
from ..transports.warm.purge import remove_workers
from .listing import ArrayInfo, JobInfo, job_info
from .state import RunState, run_state


@dataclass(frozen=True)
class Cancelled:
    """What has been deleted, by the service's numbers.

    Attributes:
        calls: those that were asked for and had ended, or were not there: nothing was done about them.
        unmade: those whose array has not made their job yet: nothing was done, and they will run, unless the whole run
            is cancelled, or they are once there is a job.
    """

    jobs: tuple[int, ...]
    workflows: tuple[int, ...]
    calls: tuple[int, ...] = ()
    unmade: tuple[int, ...] = ()


def cancel_run(
    client: ProminenceClient, run_id: str, calls: Collection[int] | None = None, *, together: bool = False
) -> Cancelled:
    """Delete what is active of a run: all of it, or the jobs of some of its calls.

    Blocks for a few requests, and, where a job has just begun to run, for two seconds: the slot of one that is deleted
    before would stay blocked.

    Args:
        calls: their numbers in the run; None for the whole run.
        together: also where other calls share a job with them, which end, too.

    Raises:
        RunNotFoundError: there is no such run.
        InvalidRequestError: other calls share a job with one of these.
        ProminenceError: the service does not answer, or refuses.
    """
    state = run_state(client, run_id)
    if calls is None:
        return _whole(client, state)
    jobs, others = jobs_to_delete(state, calls)
    if others and not together:
        raise InvalidRequestError(
            f"calls that share a job with these would end, too: {_listed(others)}; name them as well, or cancel them "
            "together"
        )
    deleted = _delete(client, jobs)
    unmade = unmade_calls(state, calls)
    done = {number for job in jobs if job.id in deleted for number in job.calls}
    left = tuple(sorted(set(calls) - done - set(unmade)))
    return Cancelled(tuple(job.id for job in jobs if job.id in deleted), (), left, tuple(unmade))


def unmade_calls(state: RunState, calls: Collection[int]) -> list[int]:
    """Return those of these calls for which an active array has still to make a job."""
    found = []
    for call in sorted(set(calls)):
        spans = [array.span for array in state.arrays if array.active and array.span.first <= call <= array.span.last]
        made = max((job.attempt for job in state.jobs_of(call)), default=0)
        if any(span.attempt > made for span in spans):
            found.append(call)
    return found


def jobs_to_delete(state: RunState, calls: Collection[int]) -> tuple[list[JobInfo], list[int]]:
    """Return the active jobs of these calls, and the numbers of other calls that they run."""
    jobs = [job for job in state.jobs if job.active and any(number in job.calls for number in calls)]
    others = sorted({number for job in jobs for number in job.calls} - set(calls))
    return jobs, others


def delete_jobs(client: ProminenceClient, ids: Collection[int]) -> dict[int, str]:
    """Delete jobs, whoever has made them; return for each that was not active why nothing was done about it.

    Blocks for two requests, and for two seconds where one has just begun to run: see `cancel_run`.

    Raises:
        ProminenceError: the service does not answer, or refuses.
    """
    found = {job.id: job for job in map(job_info, client.list_jobs(ids=sorted(set(ids))))}
    left = {number: "there is no such job" for number in ids if number not in found}
    left |= {job.id: f"it has ended already ({job.status})" for job in found.values() if not job.active}
    active = [job for job in found.values() if job.active]
    deleted = _delete(client, active)
    return left | {job.id: "it has ended meanwhile" for job in active if job.id not in deleted}


def _whole(client: ProminenceClient, state: RunState) -> Cancelled:
    arrays = [array for array in state.arrays if array.active]
    jobs = [job for job in state.jobs if job.active and job.worker is None]
    workers = [job for job in state.jobs if job.active and job.worker is not None]
    running = [job for job in jobs if job.status == "running"]
    _wait_for_young(running)
    # What waits goes before what runs: it would begin where that ends, and be too young then.
    active = {workflow_of(job.name) for job in running}
    busy = [array for array in arrays if array.name in active]
    gone = _delete_arrays(client, [array for array in arrays if array.name not in active])
    in_arrays = {job.id for job in _jobs_of(arrays, jobs)}
    left = [job for job in jobs if job.id not in in_arrays]
    deleted: set[int] = set()
    if len(busy) + bool(left) > 1:
        deleted = _delete_now(client, [job for job in (*_jobs_of(busy, jobs), *left) if job.status != "running"])
    gone += _delete_arrays(client, busy)
    deleted |= _delete_now(client, [job for job in left if job.id not in deleted])
    if workers:
        remove_workers(client, state.run_id)
    deleted |= {job.id for job in (*workers, *_jobs_of(gone, jobs))}
    return Cancelled(tuple(sorted(deleted)), tuple(array.id for array in gone))


def _jobs_of(arrays: Iterable[ArrayInfo], jobs: Iterable[JobInfo]) -> list[JobInfo]:
    names = {array.name for array in arrays}
    return [job for job in jobs if workflow_of(job.name) in names]


def _delete_arrays(client: ProminenceClient, arrays: Iterable[ArrayInfo]) -> list[ArrayInfo]:
    """Delete arrays; return those that were still there."""
    gone = []
    for array in arrays:
        with suppress(NotFoundError):  # it has ended meanwhile
            client.delete_workflow(array.id)
            gone.append(array)
    return gone


def _delete(client: ProminenceClient, jobs: Collection[JobInfo]) -> set[int]:
    """Delete jobs; return the numbers of those that were still there, as far as the service tells."""
    old: list[JobInfo] = []
    young: list[JobInfo] = []
    for job in jobs:
        (young if _is_young(job) else old).append(job)
    deleted = _delete_now(client, old)
    _wait_for_young(young)
    return deleted | _delete_now(client, young)


def _delete_now(client: ProminenceClient, jobs: Collection[JobInfo]) -> set[int]:
    ids = {job.id for job in jobs}
    if ids:
        try:
            client.delete_jobs(sorted(ids))
        except NotFoundError:  # they have ended meanwhile
            return set()
    return ids


def _wait_for_young(jobs: Iterable[JobInfo]) -> None:
    if any(map(_is_young, jobs)):
        time.sleep(YOUNG)


def _is_young(job: JobInfo) -> bool:
    """Return whether it has begun to run just now, as far as two clocks that differ a little can tell."""
    return job.status == "running" and (job.started is None or abs(time.time() - job.started) < 2 * YOUNG)


def _listed(numbers: Collection[int]) -> str:
    shown = ", ".join(map(str, sorted(numbers)[:10]))
    return shown + (f" and {len(numbers) - 10} more" if len(numbers) > 10 else "")
