"""What one run is doing: its jobs and calls, once or again and again until it has ended.

Two requests a look, whatever the number of jobs; those of `watch_run` are the cheap ones of active jobs, and seldom one
of all, when some have ended.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from ..client.client import ProminenceClient
from ..errors import RunNotFoundError
from ..run.options import RUN_LABEL
from .listing import ArrayInfo, JobInfo, RunInfo, job_info, list_arrays, summary

QUIET_LOOKS = 2  # looks without an active job until a run counts as ended: its program may be sending the next one

_SELDOM = 10.0  # seconds between two looks at all jobs, while some are active


@dataclass(frozen=True)
class RunState:
    """A run at one moment, as the service shows it.

    Attributes:
        jobs: all that it has had, the newest last.
        arrays: the workflows that make some of them.
    """

    run_id: str
    jobs: tuple[JobInfo, ...]
    arrays: tuple[ArrayInfo, ...]

    @property
    def info(self) -> RunInfo:
        """The run in numbers."""
        return summary(self.run_id, self.jobs, self.arrays)

    @property
    def active(self) -> bool:
        """Whether a job of it has not ended, or has still to be made."""
        return any(job.active for job in self.jobs) or any(array.active for array in self.arrays)

    def calls(self) -> dict[int, JobInfo | None]:
        """Return by call the job of its last attempt; None where the array that it is in has not made the job yet.

        A number that is missing was not sent, was cancelled before, or is a warm worker's: those do not show.
        """
        found: dict[int, JobInfo | None] = {}
        for array in self.arrays:
            found.update(dict.fromkeys(range(array.span.first, array.span.last + 1)))
        # Of two jobs of one attempt the later has been, or will be, deleted.
        for job in sorted(self.jobs, key=lambda job: (job.attempt, job.status != "deleted", -job.id)):
            found.update(dict.fromkeys(job.calls, job))
        return dict(sorted(found.items()))

    def jobs_of(self, call: int) -> list[JobInfo]:
        """List the jobs that have run, or are to run, a call, the last attempt last."""
        return sorted((job for job in self.jobs if call in job.calls), key=lambda job: (job.attempt, job.id))


def run_state(client: ProminenceClient, run_id: str) -> RunState:
    """Look at a run, active or ended. Blocks for two requests.

    Raises:
        RunNotFoundError: the service has no jobs of such a run.
        ProminenceError: the service does not answer, or refuses.
    """
    jobs = _of_run(client, run_id, all=True)
    arrays = list_arrays(client, all=True, constraint=(RUN_LABEL, run_id))
    if not jobs and not arrays:
        raise RunNotFoundError(f"the service has no jobs of a run {run_id!r}")
    return RunState(run_id, jobs, tuple(arrays))


def watch_run(
    client: ProminenceClient, run_id: str, pause: float = 2.0, wait: Callable[[float], object] = time.sleep
) -> Iterator[RunState]:
    """Look at a run again and again, ``pause`` seconds after each other, until it has ended; yields each look.

    It has ended when for two looks no job of it was active: the program behind it may have more to send.

    Raises:
        RunNotFoundError: the service has no jobs of such a run.
        ProminenceError: the service does not answer for the client's ``retry_for`` seconds, or refuses.
    """
    began = time.monotonic()
    state = run_state(client, run_id)
    took, looked, quiet = time.monotonic() - began, time.monotonic(), 0
    while True:
        yield state
        quiet = 0 if state.active else quiet + 1
        if quiet > QUIET_LOOKS:
            return
        wait(pause)
        state, wants_all, is_idle = _next(client, state)
        began = time.monotonic()
        if wants_all and began - looked >= _between(took, is_idle=is_idle):
            state = run_state(client, run_id)
            took, looked = time.monotonic() - began, time.monotonic()


def _between(took: float, *, is_idle: bool) -> float:
    """Return the seconds between two looks at all jobs: a tenth of the time at most, and seldom while others run."""
    return 9.0 * took if is_idle else max(_SELDOM, 9.0 * took)


def _next(client: ProminenceClient, state: RunState) -> tuple[RunState, bool, bool]:
    """Look again, at the active jobs; say whether the others have to be looked at, and whether none is active."""
    active = {job.id: job for job in _of_run(client, state.run_id) if job.active}
    arrays = state.arrays
    if any(array.active for array in arrays):
        running = {array.id for array in list_arrays(client, constraint=(RUN_LABEL, state.run_id)) if array.active}
        arrays = tuple(replace(array, active=array.id in running) for array in arrays)
    known = {job.id: job for job in state.jobs}
    new = active.keys() - known.keys()
    wants_all = any(job.active and job.id not in active for job in state.jobs) or bool(new and not state.active)
    is_idle = not active and not any(array.active for array in arrays)
    jobs = tuple(sorted({**known, **active}.values(), key=lambda job: job.id))
    return RunState(state.run_id, jobs, arrays), wants_all, is_idle


def _of_run(client: ProminenceClient, run_id: str, *, all: bool = False) -> tuple[JobInfo, ...]:
    listed = map(job_info, client.list_jobs(constraint=(RUN_LABEL, run_id), all=all))
    return tuple(sorted((job for job in listed if job.run_id == run_id), key=lambda job: job.id))
