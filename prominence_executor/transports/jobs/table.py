"""`JobTable`: what is known of the jobs of a run's chunks, besides what the chunks themselves show.

Which count against ``max_workers``, which belong to an array, which are still to be seen in the service's list, and
which jobs of that list are nobody's. Bookkeeping only; what is to be done about it, its callers do. The lock is the
registry's: a chunk that is open and its job change together.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from ...run.chunk import Chunk
from ...run.names import job_name, parse_job_name
from ...run.registry import ChunkRegistry
from ...run.slots import Claim, Slots
from .array import Array


@dataclass(eq=False, slots=True)
class JobEntry:
    """A chunk's job."""

    chunk: Chunk
    array: Array | None = None  # in which it is one of many
    accepted_at: float = 0.0  # time.monotonic() of the answer to the POST
    uploaded: frozenset[str] = frozenset()  # objects of this chunk alone, to delete when it is settled
    in_doubt: bool = False  # a POST of it may have been carried out though nobody knows
    counts: bool = False  # against max_workers
    unseen: bool = False  # in an array that has been accepted, and not in a list yet
    removing: bool = False  # the job or its objects are being deleted


class Dropped(NamedTuple):
    """What a chunk that is over leaves to be deleted."""

    bundle: str  # the object of its array, whose last job it was; or ""
    unwanted: list[Chunk]  # the others of its array, which nobody wants any more


class JobTable:
    """The jobs of the open chunks, by the chunks' names.

    Args:
        slots: how many of them may be at the service.
        reads_only: the run's jobs are another program's, too.
    """

    def __init__(self, registry: ChunkRegistry, slots: Slots, reads_only: bool) -> None:
        self._slots = slots
        self._registry = registry
        self._changed = registry.changed
        self._reads_only = reads_only
        self._entries: dict[str, JobEntry] = {}
        self._counting: set[str] = set()  # names of those that count against max_workers
        self._unseen: set[str] = set()  # likewise of those that are still to be seen
        self._ids: set[int] = set()  # of all jobs that were accepted for this run
        self._arrays: set[Array] = set()  # that this program has made, and that are not over
        self._had_arrays = False
        self._in_doubt = False

    # -- on their way to the service -------------------------------------------------------------------------------

    def track(self, chunk: Chunk) -> JobEntry:
        """Return the entry of a chunk, which is made when it is first asked for."""
        with self._changed:
            entry = self._entries.get(chunk.name)
            if entry is None or entry.chunk is not chunk:
                entry = self._entries[chunk.name] = JobEntry(chunk, in_doubt=chunk.in_doubt)
                self._slots.wake()
            return entry

    def entries(self, chunks: Iterable[Chunk]) -> list[JobEntry]:
        """Return the entries of those of these chunks that have one."""
        with self._changed:
            found = [self._entries.get(chunk.name) for chunk in list(chunks)]
            return [entry for entry in found if entry is not None]

    def wait_for_room(self, chunk: Chunk) -> bool:
        """Wait until ``max_workers`` allows one more job; False when the chunk is not wanted any more."""
        with self._changed:
            while self._is_full(chunk) and not self._registry.broken:
                self._changed.wait()
            if not self._registry.is_open(chunk):
                self.drop_closed(chunk)
                return False
            if self.track(chunk).counts:
                return False  # it is on its way: whoever queued it was interrupted, and did so again
            self.track(chunk).counts = True
            self._counting.add(chunk.name)
            return True

    def wait_while_wanted(self, chunks: Sequence[Chunk], seconds: float) -> None:
        """Wait so long, or until nobody wants these chunks any more, or the run is broken."""
        with self._changed:
            self._changed.wait_for(lambda: not self.are_wanted(chunks), seconds)

    def are_wanted(self, chunks: Iterable[Chunk]) -> bool:
        """Return whether any of these chunks is open, and has a call that is to run."""
        with self._changed:
            return any(self._registry.is_open(chunk) and chunk.is_wanted() and not chunk.terminated for chunk in chunks)

    def is_full(self) -> bool:
        """Return whether ``max_workers`` allows no more jobs now."""
        with self._changed:
            return self._is_full()

    def _is_full(self, chunk: Chunk | None = None) -> bool:
        return not self._slots.allow(len(self._counting), chunk.first if chunk else None)

    def claim(self, look: bool) -> Claim:
        """Return what these jobs need of ``max_workers``; ``look``: also how many have not begun."""
        with self._changed:
            jobs = len(self._counting)
            waiting = len(self._entries) - jobs
            first = next((entry.chunk.first for entry in self._entries.values() if not entry.counts), None)
            idle = 0
            if look and jobs:
                idle = sum(entry.counts and entry.chunk.status != "running" for entry in self._entries.values())
            return Claim(jobs, waiting, first if waiting else None, idle)

    def in_doubt(self, chunks: Iterable[Chunk]) -> set[Chunk]:
        """Return those of these chunks whose job may exist."""
        with self._changed:
            return {chunk for chunk in chunks if self.track(chunk).in_doubt}

    def doubt(self) -> None:
        """Note that a POST has gone unanswered: there may be a job that nobody knows."""
        with self._changed:
            self._in_doubt = True

    @property
    def doubted(self) -> bool:
        """Whether a POST has gone unanswered."""
        with self._changed:
            return self._in_doubt

    @property
    def may_have_stray_arrays(self) -> bool:
        """Whether a workflow of the run may be there that nobody knows."""
        with self._changed:
            return self._had_arrays and not self._reads_only

    def put_into(self, array: Array) -> None:
        """Have the jobs of the array's chunks there."""
        with self._changed:
            self._arrays.add(array)
            for chunk in array.left.values():
                self.track(chunk).array = array

    def arrays_making_jobs(self) -> int:
        """Return how many arrays have jobs that are still to be seen, or are on their way themselves."""
        with self._changed:
            return sum(array.is_making_jobs() for array in self._arrays)

    def take_out_of(self, array: Array) -> list[Chunk]:
        """Have the array's chunks as jobs of their own after all; return them."""
        with self._changed:
            chunks = list(array.left.values())
            self._arrays.discard(array)
            for chunk in chunks:
                self.track(chunk).array = None
            return chunks

    def uploaded(self, chunk: Chunk, name: str) -> None:
        """Note an object that is this chunk's alone."""
        with self._changed:
            self.track(chunk).uploaded |= {name}

    def accepted(self, chunk: Chunk, job_id: int) -> None:
        """Note that the service has taken the job."""
        with self._changed:
            chunk.accepted(job_id)
            self.track(chunk).accepted_at = time.monotonic()
            self._ids.add(job_id)

    def accepted_array(self, array: Array, workflow_id: int) -> None:
        """Note that the service has taken the array; the ids of its jobs show when it has made them."""
        with self._changed:
            self._had_arrays = True
            array.workflow_id, array.accepted_at = workflow_id, time.monotonic()
            for chunk in array.left.values():
                if self._registry.is_open(chunk):
                    self._expect(chunk, array.accepted_at)

    def _expect(self, chunk: Chunk, since: float) -> None:
        chunk.accepted(None)
        entry = self.track(chunk)
        entry.accepted_at, entry.unseen = since, True
        self._unseen.add(chunk.name)

    def adopt(self, chunk: Chunk, array: Array | None, job_ids: Iterable[int]) -> None:
        """Take over a chunk whose job another program has created; ``job_ids``: of all jobs of the run."""
        now = time.monotonic()
        with self._changed:
            self._ids.update(job_ids)
            entry = self.track(chunk)
            entry.array, entry.accepted_at, entry.counts = array, now, True
            self._counting.add(chunk.name)
            if chunk.job_id is None:
                self._expect(chunk, now)

    # -- at the service --------------------------------------------------------------------------------------------

    def in_flight(self) -> list[JobEntry]:
        """Return the jobs that the service has and that are still wanted, and those that are still to be seen."""
        with self._changed:
            return [
                entry
                for entry in self._entries.values()
                if not entry.chunk.ended
                and (not entry.chunk.cancelled() if entry.chunk.job_id is not None else entry.unseen)
            ]

    def match(self, jobs: Iterable[dict[str, Any]]) -> list[Chunk]:
        """Find those of these jobs that are of arrays and seen for the first time; return the unwanted ones."""
        unwanted = []
        with self._changed:
            if not self._unseen:
                return []
            for job in jobs:
                calls = None if job["id"] in self._ids else parse_job_name(self._registry.run_id, _name(job))
                entry = self._entries.get(job_name(self._registry.run_id, calls)) if calls else None
                if entry is None or entry.array is None or not entry.unseen:
                    continue
                chunk = entry.chunk
                entry.unseen = False
                self._unseen.discard(chunk.name)
                self._ids.add(job["id"])
                chunk.job_id = job["id"]
                entry.array.seen = max(entry.array.seen, entry.array.position(chunk))
                if not chunk.is_wanted():
                    unwanted.append(chunk)
        return unwanted

    def duplicates(self, jobs: Iterable[dict[str, Any]]) -> list[int]:
        """Find those of these active jobs that are second ones: the later of two, or of a closed chunk.

        Of a chunk whose job still waits, an earlier one takes its place.
        """
        found = []
        with self._changed:
            for job in jobs:
                job_id = job["id"]
                calls = parse_job_name(self._registry.run_id, _name(job))
                if self._reads_only or job_id in self._ids or not calls:
                    continue
                chunk = self._registry.get(job_name(self._registry.run_id, calls))
                if chunk is None:
                    found.append(job_id)
                elif chunk.job_id is not None:  # else its sender is about to learn of it
                    if job_id < chunk.job_id and chunk.status != "running":
                        job_id, chunk.job_id = chunk.job_id, job_id
                        self._ids.add(chunk.job_id)
                    found.append(job_id)
        return found

    # -- going -----------------------------------------------------------------------------------------------------

    def want_no_more(self, chunk: Chunk) -> bool:
        """Note that all calls were cancelled; return whether the job, or its whole array, can be deleted now."""
        with self._changed:
            entry = self._entries.get(chunk.name)
            array = entry.array if entry else None
            if array is not None:
                array.wanted.discard(array.position(chunk))
            whole = array is not None and array.workflow_id is not None and not array.is_wanted()
            self._changed.notify_all()
            return chunk.job_id is not None or whole

    def begin_removal(self, chunk: Chunk) -> bool:
        """Return whether the chunk's job and objects are to be deleted now, and nobody is about it."""
        with self._changed:
            entry = self._entries.get(chunk.name)
            if entry is None or entry.removing or not self._registry.is_open(chunk):
                return False
            entry.removing = True
            if entry.array is not None:
                entry.array.wanted.discard(entry.array.position(chunk))
            return True

    def begin_termination(self, chunk: Chunk) -> bool:
        """Return whether the chunk can be ended by force; it is marked so then."""
        with self._changed:
            entry = self._entries.get(chunk.name)
            if not self._registry.is_open(chunk) or chunk.ended or (entry is not None and entry.removing):
                return False
            chunk.terminated = True
            self._changed.notify_all()
            return True

    def drop_closed(self, chunk: Chunk) -> None:
        """Forget a chunk that was closed by who carried it before, and is not to be sent: else it waits for ever."""
        with self._changed:
            entry = self._entries.get(chunk.name)
            if entry is not None and entry.chunk is chunk:
                self.drop(chunk)

    def drop(self, chunk: Chunk) -> Dropped:
        """Forget a chunk that is over; return what it leaves."""
        with self._changed:
            entry = self._entries.pop(chunk.name, None)
            self._counting.discard(chunk.name)
            self._unseen.discard(chunk.name)
            self._changed.notify_all()
            self._slots.wake()
            array = entry.array if entry else None
            if array is None:
                return Dropped("", [])
            was_wanted, position = array.is_wanted(), array.position(chunk)
            array.wanted.discard(position)
            last = bool(array.left.pop(position, None)) and not array.left
            if last:
                self._arrays.discard(array)
            if last and array.bundle:
                return Dropped(array.bundle, [])
            if array.workflow_id is not None and was_wanted and not array.is_wanted():
                return Dropped("", list(array.left.values()))
            return Dropped("", [])


def _name(job: dict[str, Any]) -> str:
    return str(job.get("name") or "")
