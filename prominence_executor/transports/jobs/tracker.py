"""One thread asks after all jobs in flight of a run.

Each tick is one list request for the run's active jobs, whatever their number, and one detailed request for those
that have left that list. Absence from the list is a question, not an answer: only a detailed description says that a
job has ended, and only the outcome file (see fetcher.py) says how its calls did.

Where the service lets a request wait, the list comes when it has changed; else it is asked for ever less often. What is
to be decided about that stands in waits.py.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, cast

from ...client.status import has_ended, is_held
from ...client.watching import Watch
from ...errors import (
    AuthenticationError,
    JobFailedError,
    NotFoundError,
    OutcomeLostError,
    ProminenceError,
)
from ...run.breaking import breaking
from ...run.chunk import HELD, Chunk
from ...run.context import RunContext
from ...run.options import RUN_LABEL
from ...run.registry import ChunkRegistry
from ...run.settle import Settler
from .fetcher import Fetcher
from .table import JobEntry, JobTable
from .unseen import UnseenJobs
from .waits import SHARE, longest_wait, pause_between, pause_of_looks

_TOGETHER = 100  # jobs in one detailed request, which repeats the inputs of each
_AT_ONCE = 25  # jobs in each of several such requests at once, where one job costs the service
_SLOW = 0.005  # seconds: signing its outputs' URLs takes the real one 20 to 240 ms
_LEFT_AFTER = 2  # looks in a row at which a job that was held is not active: it has ended without an end
_ALL_EVERY = 2.0  # seconds between two lists with the ended jobs
_NEWS = 0.5  # seconds: a job that is accepted has changed the list before, so one that came earlier does not show it
_jitter = random.SystemRandom()  # it has no state: neither the program's own, nor one that a fork would copy


class Tracker:
    """The reading half of the jobs' transport.

    Args:
        poll_interval: the shortest and the longest pause between two ticks, in seconds.
        release: called with each chunk that is settled.
        discard: called with each chunk of which a job has been found that nobody wants.
        ended: called in this thread as its last act, when the run is finished.
        later: called at each tick: sends what is to be sent by now; returns the seconds until there is more, if any.
    """

    def __init__(
        self,
        context: RunContext,
        registry: ChunkRegistry,
        table: JobTable,
        fetcher: Fetcher,
        settler: Settler,
        poll_interval: tuple[float, float],
        *,
        release: Callable[[Chunk], None],
        discard: Callable[[Chunk], None],
        ended: Callable[[], None],
        later: Callable[[], float | None],
    ) -> None:
        self._context = context
        self._registry = registry
        self._table = table
        self._fetcher = fetcher
        self._progress = fetcher.progress
        self._unseen = UnseenJobs(context, table, settler, match=self._match, release=release)
        self._shortest, self._longest = poll_interval
        self._release = release
        self._discard = discard
        self._ended = ended
        self._later = later
        self._wake = threading.Event()
        self._eventful_at = time.monotonic()  # when a job was last accepted or seen to end; any thread may write it
        self._listed_at = 0.0  # when the last list came; only the thread writes it
        self._watch = Watch()  # of that list; others may interrupt it
        # Of the thread alone:
        self._shown: frozenset[int] = frozenset()  # the jobs that it had, and that were not held
        self._took = 0.0  # seconds that it cost the service
        self._asks_for_all = False  # the next list is to show ended jobs, too
        self._all_at = 0.0  # when that may be asked for again
        self._seconds_a_job = 0.0  # that a job cost the service which was described in detail
        self.thread = threading.Thread(target=self._loop, name=f"prominence-track-{context.run_id}", daemon=True)

    def look_soon(self) -> None:
        """Wake the thread: a job was accepted, or the run is to end."""
        self._eventful_at = now = time.monotonic()
        self._wake.set()
        if now - self._listed_at > _NEWS or self._registry.finished():  # else the list has just shown it, or does soon
            self._watch.interrupt()

    def wake(self) -> None:
        """Look again now, though nothing has happened at the service."""
        self._wake.set()
        self._watch.interrupt()

    # -- its thread ------------------------------------------------------------------------------------------------

    def _loop(self) -> None:
        with breaking(self._registry, "tracker"):
            while not self._registry.finished():
                soon = self._later()
                entries = self._to_ask_about()
                took = self._tick(entries, soon) if entries else 0.0
                pauses = [self._pause(took, entries)] if entries else []
                pauses += [min(soon, self._longest)] if soon is not None else []
                self._wake.wait(min(pauses, default=None))
                self._wake.clear()
        with breaking(self._registry, "tracker"):
            self._fetcher.stop()
            self._last_look()
        self._ended()

    def _to_ask_about(self) -> list[JobEntry]:
        """Return the jobs that nobody is about; what is settled meanwhile is in one of the two, or in none any more."""
        under_way = self._progress.under_way()
        return [entry for entry in self._table.in_flight() if entry.chunk not in under_way]

    def _pause(self, took: float, entries: list[JobEntry]) -> float:
        """Return the seconds until the next tick, whose list may wait for more; see waits.py. Others have jitter."""
        if self._may_wait(entries):
            return pause_between(took, len(entries), self._shortest)
        now = time.monotonic()
        age = now - max(entry.accepted_at for entry in entries)
        pause = pause_of_looks(now - self._eventful_at, age, 0.0 if self._context.health.away else took)
        return min(max(self._shortest, pause), self._longest) * _jitter.uniform(0.9, 1.1)

    def _may_wait(self, entries: list[JobEntry]) -> bool:
        """Return whether nothing but a change of the list tells more: each job was in the last one."""
        return self._watch.waits and all(entry.chunk.job_id in self._shown for entry in entries)

    def _tick(self, entries: list[JobEntry], soon: float | None) -> float:
        """Ask once after all jobs; return the seconds that the list of the active ones took.

        ``soon``: seconds until there is something else to do, if there is.
        """
        began, took = time.monotonic(), 0.0
        try:
            everything, listed = self._asks_for_all, self._list(entries, soon)
            took = 0.0 if everything else self._took  # a list of all has a pause of its own
            active = {job["id"]: job for job in listed if not has_ended(job)}
            self._shown = frozenset(number for number, job in active.items() if not is_held(job))
            self._match(listed)
            self._delete_duplicates([job for job in listed if job["id"] in active])
            wants_all = self._unseen.look([entry for entry in entries if entry.chunk.job_id is None], listed)
            self._asks_for_all = self._asks_for_all or (wants_all and time.monotonic() >= self._all_at)
            gone = []
            for entry in entries:
                chunk = entry.chunk
                if chunk.job_id is None:
                    continue  # of an array that has not made it yet
                if chunk.job_id in active:
                    self._saw(chunk, active[chunk.job_id])
                elif entry.accepted_at < began:
                    gone.append(chunk)
            if gone:
                self._ask_about(gone)
        except AuthenticationError:
            raise
        except ProminenceError as error:
            self._unanswered(entries, error)
        else:
            self._context.health.answered()
        return took

    def _saw(self, chunk: Chunk, job: dict[str, Any]) -> None:
        """Note an active job; one that is held may be released, and is waited for as for a service that is away."""
        chunk.saw(HELD if is_held(job) else job["status"])
        self._context.history.saw(chunk)
        held = self._progress.seen(chunk, is_held(job))
        if held and held >= self._context.health.timeout and self._progress.may_begin(chunk):
            self._give_up(chunk, job, f"the service has held the job for {held:.0f} s")

    def _give_up(self, chunk: Chunk, job: dict[str, Any], text: str) -> None:
        """Wait no longer for a job that is held."""
        error = JobFailedError(text, job_id=chunk.job_id, status=job["status"], reason=job.get("statusReason"))
        self._fetcher.give_up(chunk, error)

    def _match(self, listed: list[dict[str, Any]]) -> None:
        """Give the jobs of arrays that are seen for the first time to their chunks."""
        for chunk in self._table.match(listed):
            self._discard(chunk)

    def _last_look(self) -> None:
        """Look for what a POST that was given up may have made after all."""
        if not self._table.doubted or self._registry.broken:
            return
        client, run_id = self._context.client, self._context.run_id
        try:
            self._delete_duplicates(self._active())
            if self._table.may_have_stray_arrays:  # everything is over: one that is active is nobody's
                for workflow in client.list_workflows(constraint=(RUN_LABEL, run_id)):
                    with suppress(NotFoundError):  # it has ended meanwhile
                        client.delete_workflow(workflow["id"])
        except ProminenceError as error:
            self._context.log.info("run %s: could not look for jobs that exist twice: %s", run_id, error)

    def _active(self, wait: float = 0.0) -> list[dict[str, Any]]:
        constraint = (RUN_LABEL, self._context.run_id)
        began, computing = time.monotonic(), time.thread_time()
        listed = self._context.client.list_jobs(constraint=constraint, wait=wait, since=self._watch)
        self._listed_at = now = time.monotonic()
        # What a list that has waited costs the service, only its length tells: reading it takes about as long.
        self._took = 2 * (time.thread_time() - computing) if wait and self._watch.waits else now - began
        return listed

    def _list(self, entries: list[JobEntry], soon: float | None) -> list[dict[str, Any]]:
        """List the active jobs, after a change if that may be waited for; now and then all, which costs more."""
        if not self._asks_for_all:
            if self._may_wait(entries):
                # It is not tried again where no answer comes, nor where it is interrupted; then a look tells.
                with suppress(ProminenceError):
                    return self._active(longest_wait(time.monotonic() - self._eventful_at, soon))
            return self._active()
        began = time.monotonic()
        listed = self._context.client.list_jobs(constraint=(RUN_LABEL, self._context.run_id), all=True)
        now = time.monotonic()
        self._asks_for_all, self._all_at = False, now + max(_ALL_EVERY, SHARE * (now - began))
        return listed

    def _delete_duplicates(self, jobs: list[dict[str, Any]]) -> None:
        """Delete one of two jobs of one attempt: a POST was carried out long after its answer was given up."""
        duplicates = self._table.duplicates(jobs)
        if duplicates:
            self._context.log.info("run %s: deleting jobs %s, which exist twice", self._context.run_id, duplicates)
            with suppress(NotFoundError):  # they have ended meanwhile
                self._context.client.delete_jobs(duplicates)

    def _ask_about(self, chunks: list[Chunk]) -> None:
        """Ask in detail for the jobs that have left the active list."""
        by_id = {job["id"]: job for job in self._described([cast(int, chunk.job_id) for chunk in chunks])}
        for chunk in chunks:
            job = by_id.get(chunk.job_id)
            if job is None:
                self._missed(chunk)
            elif not self._progress.may_begin(chunk):
                pass  # its outcome could not be fetched a moment ago
            elif has_ended(job):
                chunk.status = job["status"]
                self._eventful_at = time.monotonic()
                self._fetcher.fetch(chunk, job)
            elif is_held(job):  # it may have been, and have left the queue without an end
                if self._progress.absent(chunk) >= _LEFT_AFTER:
                    self._give_up(chunk, job, "the service held the job, which is not active any more")
            else:
                self._saw(chunk, job)

    def _described(self, ids: list[int]) -> list[dict[str, Any]]:
        """Describe jobs in detail: many in one request, or in several at once where that takes the service long."""
        size = _AT_ONCE if self._seconds_a_job > _SLOW else _TOGETHER
        batches = [ids[start : start + size] for start in range(0, len(ids), size)]
        ahead = [self._fetcher.describe(batch) for batch in batches[1:]]
        began = time.monotonic()
        jobs = self._context.client.list_jobs(ids=batches[0], detail=True)
        self._seconds_a_job = (time.monotonic() - began) / len(batches[0])
        for batch, described in zip(batches[1:], ahead, strict=True):
            # The pool may be busy with large results.
            waits = described.cancel()
            jobs += self._context.client.list_jobs(ids=batch, detail=True) if waits else described.result()
        return jobs

    def _missed(self, chunk: Chunk) -> None:
        """Note that the service does not know the job: around its end normal for a moment, but not for a minute."""
        seconds = self._progress.missed(chunk)
        if seconds is not None:
            text = f"the service has not known the job for {seconds:.0f} s"
            self._fetcher.give_up(chunk, OutcomeLostError(text, job_id=chunk.job_id))

    def _unanswered(self, entries: list[JobEntry], error: ProminenceError) -> None:
        """Wait for a service that is away, but not forever."""
        given_up = self._context.health.give_up_after(error)
        if given_up is not None:
            for entry in entries:
                entry.chunk.settle_all(given_up)
                self._release(entry.chunk)
