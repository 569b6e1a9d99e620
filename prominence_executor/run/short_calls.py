"""Whether calls are too short for the jobs in which they travel, and what to do about it.

Pure, but for `ShortCalls`, which counts while a run goes on; any thread may use it.
"""

from __future__ import annotations

import math
import statistics
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from .phases import ON_SLOT, JobSeen, phases_of

_WASTE = 0.5  # less than this part of the time of jobs for their calls is worth a word
_AIM = 9.0  # a job's calls are to take so many times what the job costs beside them
_OF_WALLTIME = 0.5  # of it, what the calls of a job may be expected to need
# A run is long, and worth a warning, when it has cost so much; that is no short try.
_JOBS = 50
_LOST = 300.0  # seconds of jobs beside their calls
_SHORT = 0.25  # of that, what the calls have taken at most


@dataclass(frozen=True)
class Fit:
    """How calls fit into their jobs; seconds."""

    jobs: int
    calls: int
    call: float  # of one call
    overhead: float  # of one job, beside its calls
    walltime: float | None = None
    longest: float = 0.0  # call

    @property
    def efficiency(self) -> float:
        """The part of the time of the jobs that their calls had."""
        of_calls = self.call * self.calls
        whole = of_calls + self.overhead * self.jobs
        return of_calls / whole if whole else 1.0

    @property
    def chunksize(self) -> int:
        """How many calls to put into a job: so many that it is nine tenths efficient, within half of its walltime."""
        wanted = math.ceil(_AIM * self.overhead / max(self.call, 1e-4))
        if self.walltime is not None:
            wanted = min(wanted, int(_OF_WALLTIME * self.walltime / max(self.longest, self.call, 1e-4)))
        return max(1, _rounded(min(wanted, self.calls)))

    @property
    def advice(self) -> str:
        """A sentence, where there is something to gain; else nothing."""
        size = self.calls / self.jobs if self.jobs else 1.0
        if self.jobs < 2 or self.efficiency >= _WASTE or self.chunksize < 1.5 * size:
            return ""
        of_job = self.call * size + self.overhead
        return (
            f"{self.calls} calls of {self.call:.2g} s in jobs of {of_job:.2g} s: "
            f"chunksize={self.chunksize}, or workers='warm'"
        )


def fit_of(jobs: Iterable[JobSeen], phases: Iterable[Mapping[str, float]]) -> Fit | None:
    """Compute how the calls of jobs that have ended fitted into them; None where no job tells."""
    seconds, calls, longest, walltimes = 0.0, 0, 0.0, []
    overheads = []
    for job, parts in zip(jobs, phases, strict=True):
        if job.is_worker or job.calls is None or job.lost or job.status != "completed" or not job.size:
            continue
        overheads.append(sum(parts[name] for name in ON_SLOT) - parts["call"])
        seconds += parts["call"]
        calls += job.size
        longest = max(longest, job.longest or 0.0)
        walltimes += [] if job.walltime is None else [job.walltime]
    if not overheads:
        return None
    walltime = min(walltimes, default=None)
    return Fit(len(overheads), calls, seconds / calls, statistics.median(overheads), walltime, longest)


class ShortCalls:
    """Sees, while a run goes on, that it is a long one of short calls in jobs of their own; says so once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards what follows
        self._jobs = 0
        self._calls = self._lost = self._longest = 0.0  # seconds
        self._walltime: float | None = None
        self._said = False
        self._text: str | None = None

    def saw(self, job: JobSeen) -> str | None:
        """Take in a job that has ended; return the advice when it is due, once."""
        if (
            self._said
            or job.size != 1
            or job.attempt > 1
            or job.calls is None
            or job.lost
            or job.status != "completed"
            or job.is_worker
        ):
            return None
        phases = phases_of(job)
        with self._lock:
            if self._said:
                return None
            self._jobs += 1
            self._calls += phases["call"]
            self._lost += sum(phases[name] for name in ON_SLOT) - phases["call"]
            self._longest = max(self._longest, phases["call"])
            self._walltime = job.walltime if job.walltime is not None else self._walltime
            if self._jobs < _JOBS or self._lost < _LOST or self._calls > _SHORT * self._lost:
                return None
            self._said = True
            jobs, lost = self._jobs, self._lost / self._jobs
            self._text = Fit(jobs, jobs, self._calls / jobs, lost, self._walltime, self._longest).advice or None
            return self._text

    def take(self) -> str | None:
        """Return the advice if there is one that was not taken yet: for the warning, in a thread of the user's."""
        with self._lock:
            text, self._text = self._text, None
            return text


def _rounded(number: int) -> int:
    """Return it with two digits that count."""
    digits = int("1" + "0" * max(0, len(str(number)) - 2))
    return number // digits * digits
