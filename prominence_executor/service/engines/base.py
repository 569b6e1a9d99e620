"""What an engine is: the place where jobs run, as the scheduler sees it. Interfaces and values only.

An engine queues what is submitted, starts it where it fits, limits it to its walltime, and ends it. It changes no
stored state: what has begun and ended it tells the scheduler, which stores that and decides what follows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from ..node.outcome import Outcome
from ..node.spec import JobSpec
from ..schema.allocation import Allocation


@dataclass(frozen=True)
class Limits:
    """What one engine has."""

    cpus: int
    """Of its largest node."""
    memory: int
    """GB of its largest node."""
    walltime: float | None = None
    """Minutes; None: any."""
    array: int = 1
    """Jobs that can be submitted together."""
    partitions: tuple[str, ...] = ()
    site: str = "local"
    """What this place is called."""


@dataclass(frozen=True)
class Room:
    """How much all nodes have together, and how much of it no job holds; memory in GB."""

    cpus: int
    memory: int
    free_cpus: int
    free_memory: int


@dataclass(frozen=True)
class Request:
    """A stored job that is to run, and what it gets."""

    job: int
    priority: int
    allocation: Allocation


class Run(Protocol):
    """A job that runs, as requests see it. Every method may be called from any thread."""

    def is_over(self) -> bool:
        """Return whether it is decided how this run ends, though that may not be stored yet."""

    def execute(self, command: str) -> bytes | None:
        """Run a command next to the tasks; return its output, or None when it fails. Ends with the job."""

    def snapshot(self, path: str) -> bool:
        """Store a .tgz of a path of the job's sandbox; whether there is something of that name."""


class Jobs(Protocol):
    """What an engine asks and tells of jobs, with none of its own locks held. Called from any thread."""

    def spec(self, job: int) -> JobSpec:
        """Read what a run has to know. Raises LookupError when there is no such job, and sqlite3.Error."""

    def begun(self, job: int) -> bool:
        """Store that a job runs; whether it may: it could be deleted. Raises NotNow when that cannot be stored."""

    def ended(self, spec: JobSpec, outcome: Outcome) -> bool:
        """Store what became of a run; whether it is to run again. Raises sqlite3.Error when that cannot be stored."""

    def insist(self, store: Callable[[], bool | None]) -> bool:
        """Store something as soon as that can be done, in the calling thread; what it returns, or False."""

    def failed(self, job: int, reason: str) -> None:
        """Store that a job has failed."""

    def is_open(self, job: int) -> bool:
        """Return whether there is such a job that has not ended."""

    def submit(self, jobs: Iterable[int]) -> None:
        """Put stored, idle jobs into the queue, to run again."""


class Engine(Protocol):
    """Every method may be called from any thread; `open`, `start` and `stop` once."""

    def limits(self) -> Limits:
        """Return what it has."""

    def room(self) -> Room:
        """Return how much there is, and how much of it is free."""

    def open(self, jobs: Jobs) -> frozenset[int]:
        """Clear away what an earlier service left, and return the jobs of it that go on here.

        Raises:
            RuntimeError: it cannot be used; the sentence says why.
        """

    def start(self) -> None:
        """Begin."""

    def stop(self) -> None:
        """End every thread, and every job that cannot go on without this service."""

    def submit(self, requests: Iterable[Request]) -> None:
        """Have jobs run as soon as they fit. Returns at once."""

    def withdraw(self, job: int) -> bool:
        """Take out a job that has not begun; whether it had not."""

    def end(self, job: int, status: str, reason: str | None) -> None:
        """End a job that runs with a status and a reason, and one that waits without a word."""

    def run_of(self, job: int) -> Run | None:
        """Return the run of a job, if it runs."""
