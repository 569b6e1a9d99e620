"""The names of jobs and workflows, which say which calls they run: enough to find them again from any machine.

    RUN/7  RUN/7-11  RUN/7-11.2             a job of its own: one call, five calls, their second attempt
    RUN.0-99.10.1                           an array: a workflow of the calls 0 to 99, ten to a job, first attempt
    RUN.w3                                  a warm worker, the third one of the run
    RUN.w0                                  a courier, which leaves places for large messages of warm workers
    RUN.0-99.10.1/pxcall/3                  the job at its position 3, with the calls 30 to 39

Pure functions; each form has the function that reads it beside the one that makes it.
"""

from __future__ import annotations

import re
import secrets
import time
from typing import NamedTuple

MOST_CALLS = 10_000_000
"""Of a run, as far as another program believes the names of its jobs: more futures than that no program could hold."""
COURIER = 0
"""What a courier's job has in place of a worker's number."""
_NUMBER = "[0-9]{1,12}"
MEMBER = "pxcall"  # an array's job; the service mangles outputs of names that occur in "scratch/<uuid>"


class CallRange(NamedTuple):
    """Calls that travel as one job."""

    first: int  # the number in the run of the first one
    size: int
    attempt: int

    def numbers(self) -> range:
        """Return the numbers of its calls in the run."""
        return range(self.first, self.first + self.size)


class ArrayRange(NamedTuple):
    """Calls that travel as one array."""

    first: int
    last: int
    size: int  # calls in one job; the last job may have fewer
    attempt: int

    def at(self, position: int) -> CallRange:
        """Return the calls of one of its jobs."""
        first = self.first + position * self.size
        return CallRange(first, min(self.size, self.last - first + 1), self.attempt)

    @property
    def members(self) -> int:
        """How many jobs it has."""
        return (self.last - self.first) // self.size + 1

    def jobs(self) -> list[CallRange]:
        """List all of them, in the order of their positions."""
        return [self.at(position) for position in range(self.members)]


def new_run_id(name: str | None) -> str:
    """Make a run's name that no other run has: readable, sortable, fit for a label, a job's name and a file name."""
    return f"{name or 'px'}-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}"


def job_name(run_id: str, calls: CallRange) -> str:
    """Return the name of a job of its own."""
    first, size, attempt = calls
    numbers = f"{first}-{first + size - 1}" if size > 1 else f"{first}"
    return f"{run_id}/{numbers}" + (f".{attempt}" if attempt > 1 else "")


def array_name(run_id: str, span: ArrayRange) -> str:
    """Return the name of an array's workflow."""
    return f"{run_id}.{span.first}-{span.last}.{span.size}.{span.attempt}"


def worker_name(run_id: str, number: int) -> str:
    """Return the name of a warm worker's job."""
    return f"{run_id}.w{number}"


def parse_worker_name(run_id: str, name: str) -> int | None:
    """Return the number of a warm worker of the run; None when the name is not one of its workers'."""
    match = re.fullmatch(rf"\.w({_NUMBER})", name[len(run_id) :]) if name.startswith(run_id) else None
    return int(match[1]) if match else None


def parse_job_name(run_id: str, name: str) -> CallRange | None:
    """Return the calls of a job of the run, in an array or by itself; None when the name is not one of its jobs'."""
    if not name.startswith(run_id):
        return None
    match = re.fullmatch(rf"/({_NUMBER})(?:-({_NUMBER}))?(?:\.({_NUMBER}))?", name[len(run_id) :])
    if match:
        first, last, attempt = match.groups()
        calls = CallRange(int(first), int(last or first) - int(first) + 1, int(attempt or 1))
        return calls if job_name(run_id, calls) == name else None
    span = parse_array_name(run_id, workflow_of(name))
    position = name.rpartition("/")[2]
    if span is None or not re.fullmatch(_NUMBER, position) or int(position) >= span.members:
        return None
    return span.at(int(position))


def parse_array_name(run_id: str, name: str) -> ArrayRange | None:
    """Return what an array of the run consists of; None when the name is not one of its arrays'."""
    numbers = rf"\.({_NUMBER})-({_NUMBER})\.({_NUMBER})\.({_NUMBER})"
    match = re.fullmatch(numbers, name[len(run_id) :]) if name.startswith(run_id) else None
    if not match:
        return None
    span = ArrayRange(*map(int, match.groups()))
    return span if span.size and span.last >= span.first else None


def workflow_of(name: str) -> str:
    """Return the name of the workflow that a job is one of; "" for a job of its own."""
    return name.rpartition(f"/{MEMBER}/")[0]
