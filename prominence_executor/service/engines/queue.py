"""Which queued job starts next, and what is overdue. No clock, no threads, no I/O: the scheduler's lock guards both."""

from __future__ import annotations

import heapq
import itertools
from dataclasses import dataclass


@dataclass(frozen=True)
class QueuedJob:
    """A job in the queue, and the slots that it takes."""

    job: int
    priority: int
    cpus: int
    memory: int  # GB


class JobQueue:
    """The jobs that wait for slots of a machine: highest priority first, then oldest first.

    Nothing overtakes the head of the queue, so nothing starves. A job that is too large for the machine stays in the
    queue and holds up nobody, as on the real service.
    """

    def __init__(self, cpus: int, memory: int) -> None:
        self._cpus, self._memory = cpus, memory
        self._heap: list[tuple[int, int]] = []  # (-priority, job); entries of jobs no longer waiting are skipped
        self._waiting: dict[int, QueuedJob] = {}

    def __contains__(self, job: int) -> bool:
        return job in self._waiting

    def add(self, queued: QueuedJob) -> None:
        """Put a job at its place."""
        self._waiting[queued.job] = queued
        if queued.cpus <= self._cpus and queued.memory <= self._memory:
            heapq.heappush(self._heap, (-queued.priority, queued.job))

    def remove(self, job: int) -> bool:
        """Take a job out. Whether it was there."""
        return self._waiting.pop(job, None) is not None

    def take_fitting(self, cpus: int, memory: int) -> list[QueuedJob]:
        """Take out what can start now, in order, when so many slots are free."""
        taken: list[QueuedJob] = []
        while self._heap:
            queued = self._waiting.get(self._heap[0][1])
            if queued is not None:
                if queued.cpus > cpus or queued.memory > memory:
                    break
                cpus, memory = cpus - queued.cpus, memory - queued.memory
                del self._waiting[queued.job]
                taken.append(queued)
            heapq.heappop(self._heap)
        return taken


class Deadlines:
    """Walltimes, with the mark of their run, and times in the queue, without one."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, int, str]] = []  # time, number of entry, job, mark
        self._entries = itertools.count()

    def add(self, when: float, job: int, mark: str = "") -> None:
        """Note that a run of a job, or its waiting, must be over at a time."""
        heapq.heappush(self._heap, (when, next(self._entries), job, mark))

    def first(self) -> float | None:
        """Return the earliest time that was noted."""
        return self._heap[0][0] if self._heap else None

    def due(self, now: float) -> list[tuple[int, str]]:
        """Take out what is over its time, the earliest first, as job and mark."""
        found = []
        while self._heap and self._heap[0][0] <= now:
            *_, job, mark = heapq.heappop(self._heap)
            found.append((job, mark))
        return found
