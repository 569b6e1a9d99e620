"""How many calls to put into one job: what ``map(chunksize="auto")`` makes of its first calls.

The arithmetic is pure. `AutoChunks` has a thread while calls are held back, which asks the service for its free slots
and has the rest divided; it creates no chunks itself.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from ..client.status import ENDED
from ..errors import ProminenceError
from ..run.chunk import Chunk
from ..run.context import RunContext

_EFFICIENCY = 0.92  # of the time of a job, the part that its calls are to have; 0.9 is promised
_OF_WALLTIME = 0.5  # the part of it that the calls of a job may be expected to need
_UNKNOWN_SLOTS = 8  # jobs of the first wave when nothing bounds them
_WAVES = 4  # chunks for each slot when nothing is known of the calls, as in multiprocessing's map
_LOOK = 0.5  # seconds between two looks at what has become of the first wave


def first_wave(calls: int, max_workers: int | None) -> int:
    """Return how many calls go out at first, one to a job."""
    return min(calls, max_workers or _UNKNOWN_SLOTS)


class ChunkProbe:
    """The calls of a ``map`` that wait for what the first ones tell. `AutoChunks` guards it by its lock.

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

    def record(self, job: Mapping[str, Any], seconds: Sequence[float]) -> None:
        """Note that a job of the first wave has ended, and that its calls took these seconds."""
        self._seconds += seconds
        self._overheads.append(overhead(job, sum(seconds)))

    def wants_slots(self, now: float) -> bool:
        """Return whether the rest is about to be divided, and nobody has said among how many slots."""
        return self._slots is None and self._free is None and (bool(self._seconds) or now >= self.until)

    def set_free_slots(self, resources: Mapping[str, Any]) -> None:
        """Note what the service says of its sites; 0 slots when that makes no sense."""
        running = sum(chunk.status == "running" for chunk in self._first)
        self._free = free_slots(resources, self.rest.options.resources.json()) + running

    def size(self, now: float) -> int | None:
        """Decide how many calls each job of the rest has, or None to go on waiting."""
        left = self.rest.size
        seen = sum(chunk.status in ("running", *ENDED) for chunk in self._first)
        slots = self._slots or max(1, seen, self._free or 0)
        if self._seconds:
            walltime = self.rest.options.resources.json()["walltime"] * 60.0
            return chunk_size(self._seconds, statistics.median(self._overheads), left, slots, walltime)
        if now >= self.until or not any(chunk.is_wanted() for chunk in self._first):
            return max(1, left // (_WAVES * (self._slots or self._free or _UNKNOWN_SLOTS)))
        return None


class AutoChunks:
    """The calls of a run that are held back.

    Args:
        divide: called in its thread with a chunk that was held back, and the calls for each job of it.
        failed: called when the thread cannot go on.
        is_open: whether a chunk is still wanted.
    """

    def __init__(
        self,
        context: RunContext,
        *,
        divide: Callable[[Chunk, int], None],
        is_open: Callable[[Chunk], bool],
        failed: Callable[[BaseException], None],
    ) -> None:
        self._context = context
        self._divide = divide
        self._is_open = is_open
        self._failed = failed
        self._changed = threading.Condition()  # its lock guards what follows, and the probes
        self._probes: list[ChunkProbe] = []
        self._thread: threading.Thread | None = None

    def hold(self, first: Sequence[Chunk], rest: Chunk, max_workers: int | None, patience: float) -> None:
        """Hold a chunk back until the first ones tell, or for so many seconds."""
        probe = ChunkProbe(first, rest, max_workers, time.monotonic() + patience)

        def record(job: Mapping[str, Any], seconds: Sequence[float]) -> None:
            with self._changed:
                probe.record(job, seconds)
                self._changed.notify_all()

        for chunk in first:
            chunk.observer = record
        with self._changed:
            self._probes.append(probe)
            if self._thread is None:
                name = f"prominence-chunks-{self._context.run_id}"
                self._thread = threading.Thread(target=self._loop, name=name, daemon=True)
                self._thread.start()

    def close(self) -> None:
        """End the thread; what is held back is nobody's any more."""
        with self._changed:
            self._probes.clear()
            self._changed.notify_all()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def threads(self) -> set[threading.Thread]:
        """Return those in which callbacks of futures may run."""
        with self._changed:
            return {self._thread} if self._thread else set()

    # -- its thread ------------------------------------------------------------------------------------------------

    def _loop(self) -> None:
        try:
            while self._wait():
                self._ask_for_slots()
                for rest, size in self._decided():
                    text = "run %s: %d calls go in chunks of %d"
                    self._context.log.info(text, self._context.run_id, rest.size, size)
                    self._divide(rest, size)
        except BaseException as error:  # a dead thread must not leave futures behind
            self._context.log.exception("the thread that divides calls of run %s failed", self._context.run_id)
            self._failed(error)

    def _wait(self) -> bool:
        """Wait a moment for news; False when nothing is held back any more, and the thread is to end."""
        with self._changed:
            self._probes = [probe for probe in self._probes if self._is_open(probe.rest)]
            now = time.monotonic()
            if self._probes and not any(self._is_due(probe, now) for probe in self._probes):
                until = min(probe.until for probe in self._probes)
                self._changed.wait(min(_LOOK, max(0.0, until - now)))
            if not self._probes:
                self._thread = None
                return False
            return True

    @staticmethod
    def _is_due(probe: ChunkProbe, now: float) -> bool:
        return probe.wants_slots(now) or probe.size(now) is not None

    def _ask_for_slots(self) -> None:
        with self._changed:
            now = time.monotonic()
            asking = [probe for probe in self._probes if probe.wants_slots(now)]
        if asking:
            resources: dict[str, Any] = {}
            with suppress(ProminenceError):  # then it goes by what it has seen
                resources = self._context.client.resources()
            with self._changed:
                for probe in asking:
                    probe.set_free_slots(resources)

    def _decided(self) -> list[tuple[Chunk, int]]:
        with self._changed:
            now = time.monotonic()
            sizes = [(probe, probe.size(now)) for probe in self._probes]
            self._probes = [probe for probe, size in sizes if size is None]
        return [(probe.rest, size) for probe, size in sizes if size is not None]


def free_slots(resources: Mapping[str, Any], wanted: Mapping[str, Any], which: str = "free") -> int:
    """Count the jobs of these CPUs and this memory that could start at once, as the service describes its sites.

    ``which``: of what is ``"free"``, or of the whole ``"capacity"``.
    """
    slots = 0
    with suppress(AttributeError, KeyError, TypeError, ValueError, OverflowError):
        for site in resources.get("existing") or ():
            part = site[which]
            slots += max(0, min(int(part["cpus"]) // wanted["cpus"], int(part["memory"]) // wanted["memory"]))
    return slots


def overhead(job: Mapping[str, Any], seconds: float) -> float:
    """Compute the seconds that a job kept its slot beyond those of its calls: images, files, the start of Python.

    The service gives the task's time and those of the transfers as fractions, the job's own only in whole seconds.
    """
    execution, events = job.get("execution") or {}, job.get("events") or {}
    task = (execution.get("tasks") or [{}])[-1]
    parts = [task.get("wallTimeUsage"), task.get("imagePullTime"), execution.get("stageInTime")]
    kept = sum(float(part) for part in [*parts, execution.get("stageOutTime")] if isinstance(part, int | float))
    if "startTime" in events and "endTime" in events:
        kept = max(kept, events["endTime"] - events["startTime"] - 1.0)
    return max(kept - seconds, 0.05)


def chunk_size(seconds: Sequence[float], overhead: float, left: int, slots: int, walltime: float) -> int:
    """Compute the number of calls for each job with which the overhead is small against their time.

    Never so many that a slot would stay empty, unless all calls together take no longer than the overhead of one job;
    nor so many that they would not fit well into the walltime.

    Args:
        seconds: what calls took.
        overhead: seconds that a job needs besides.
        left: calls that are to be divided.
        slots: jobs that can run at once.
        walltime: seconds.
    """
    mean, longest = max(statistics.fmean(seconds), 1e-6), max(*seconds, 1e-6)
    efficient = overhead * _EFFICIENCY / (1 - _EFFICIENCY) / mean
    shared = left if left * longest <= overhead else left // slots
    return max(1, min(int(efficient) + 1, shared, int(_OF_WALLTIME * walltime / longest)))
