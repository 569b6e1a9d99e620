"""How many calls to put into one job: what ``map(chunksize="auto")`` makes of its first calls.

Arithmetic and bookkeeping only: no HTTP, no threads, no clock of its own. `Run` asks it, and divides the rest.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ..client.job import ENDED

if TYPE_CHECKING:
    from ..run.chunk import Chunk

_EFFICIENCY = 0.92  # of the time of a job, the part that its calls are to have; 0.9 is promised
_OF_WALLTIME = 0.5  # the part of it that the calls of a job may be expected to need
_UNKNOWN_SLOTS = 8  # jobs of the first wave when nothing bounds them
_WAVES = 4  # chunks for each slot when nothing is known of the calls, as in multiprocessing's map


def first_wave(calls: int, max_workers: int | None) -> int:
    """How many calls go out at first, one to a job."""
    return min(calls, max_workers or _UNKNOWN_SLOTS)


class Held:
    """The calls of a ``map`` that wait for what the first ones tell.

    Args:
        first: the chunks of the first wave, of one call each.
        rest: the chunk of all other calls, which is not sent as it is.
        until: the time (of `time.monotonic`) at which they have waited long enough.
    """

    def __init__(self, first: Sequence[Chunk], rest: Chunk, max_workers: int | None, until: float) -> None:
        self.rest = rest
        self.until = until
        self._first = first
        self._slots = max_workers
        self._seconds: list[float] = []  # of each call that has ended
        self._overheads: list[float] = []  # of each job
        self._free: int | None = None  # slots that the service has said to be free

    def tell(self, job: dict[str, Any], seconds: Sequence[float]) -> None:
        """A job of the first wave has ended, and its calls took these seconds."""
        self._seconds += seconds
        self._overheads.append(overhead(job, sum(seconds)))

    def asks_for_slots(self, now: float) -> bool:
        """Whether the rest is about to be divided, and nobody has said among how many slots."""
        return self._slots is None and self._free is None and (bool(self._seconds) or now >= self.until)

    def hear_of_slots(self, resources: Mapping[str, Any]) -> None:
        """What the service says of its sites; 0 slots when that makes no sense."""
        running = sum(chunk.status == "running" for chunk in self._first)
        self._free = free_slots(resources, self.rest.options.resources.json()) + running

    def size(self, now: float) -> int | None:
        """Calls for each job of the rest, or None to wait on."""
        left = self.rest.size
        seen = sum(chunk.status in ("running", *ENDED) for chunk in self._first)
        slots = self._slots or max(1, seen, self._free or 0)
        if self._seconds:
            walltime = self.rest.options.resources.json()["walltime"] * 60.0
            return chunk_size(self._seconds, statistics.median(self._overheads), left, slots, walltime)
        if now >= self.until or not any(chunk.is_wanted() for chunk in self._first):
            return max(1, left // (_WAVES * (self._slots or self._free or _UNKNOWN_SLOTS)))
        return None


def free_slots(resources: Mapping[str, Any], wanted: Mapping[str, Any]) -> int:
    """How many jobs that want these CPUs and this memory could start at once, as the service describes its sites."""
    slots = 0
    with suppress(AttributeError, KeyError, TypeError, ValueError):
        for site in resources.get("existing") or ():
            free = site["free"]
            slots += max(0, min(int(free["cpus"]) // wanted["cpus"], int(free["memory"]) // wanted["memory"]))
    return slots


def overhead(job: dict[str, Any], seconds: float) -> float:
    """The seconds for which a job kept its slot beyond those of its calls: images, files, the start of Python.

    The service gives the task's time and those of the transfers as fractions, the job's own only in whole seconds.
    """
    execution, events = job.get("execution") or {}, job.get("events") or {}
    task = (execution.get("tasks") or [{}])[-1]
    parts = [task.get("wallTimeUsage"), task.get("imagePullTime"), execution.get("stageInTime")]
    kept = sum(float(part or 0.0) for part in [*parts, execution.get("stageOutTime")])
    if "startTime" in events and "endTime" in events:
        kept = max(kept, events["endTime"] - events["startTime"] - 1.0)
    return max(kept - seconds, 0.05)


def chunk_size(seconds: Sequence[float], overhead: float, left: int, slots: int, walltime: float) -> int:
    """Calls for each job, so that the overhead is small against their time.

    Never so many that a slot would stay empty, or that they would not fit well into the walltime.

    Args:
        seconds: what calls took.
        overhead: seconds that a job needs besides.
        left: calls that are to be divided.
        slots: jobs that can run at once.
        walltime: seconds.
    """
    mean, longest = max(statistics.fmean(seconds), 1e-6), max(*seconds, 1e-6)
    efficient = overhead * _EFFICIENCY / (1 - _EFFICIENCY) / mean
    return max(1, min(int(efficient) + 1, left // slots, int(_OF_WALLTIME * walltime / longest)))
