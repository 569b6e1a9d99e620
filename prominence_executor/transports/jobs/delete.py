"""Deleting jobs, arrays and objects that nobody wants any more: in the background, and together.

A job that has just begun to run is deleted a moment later (see `Chunk.too_young_for`). It settles no futures. What
cannot be deleted is logged: no call depends on it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from contextlib import suppress

from ...errors import InvalidRequestError, NotFoundError, ProminenceError
from ...run.chunk import Chunk
from ...run.context import RunContext
from ...run.options import RUN_LABEL
from .array import Array
from .table import JobEntry, JobTable

_TOGETHER = 0.02  # seconds in which cancellations are gathered into one request
_LOOK = 0.1  # seconds between two looks at whether jobs are old enough


class Deleter:
    """Deletes for one run, in a pool of threads.

    Args:
        close: called with each chunk of which nothing is left.
        look_soon: called when a job may have ended.
    """

    def __init__(
        self,
        context: RunContext,
        table: JobTable,
        pool: Callable[[], Executor],
        *,
        close: Callable[[Chunk], None],
        look_soon: Callable[[], None],
    ) -> None:
        self._context = context
        self._table = table
        self._pool = pool
        self._close = close
        self._look_soon = look_soon
        self._lock = threading.Lock()
        self._waiting: list[Chunk] = []  # guarded by the lock
        self._terminating: list[Chunk] = []  # likewise

    def delete(self, chunk: Chunk) -> None:
        """Delete the chunk's job and objects, together with others that come within a moment; it is closed then."""
        if not self._table.begin_removal(chunk):
            return
        with self._lock:
            self._waiting.append(chunk)
            first = len(self._waiting) == 1
        if first:
            self._pool().submit(self._delete_together)

    def delete_object(self, name: str) -> None:
        """Delete an uploaded object."""
        self._pool().submit(self._delete_object, name)

    def terminate(self, chunk: Chunk) -> None:
        """Delete the chunk's running job, together with others; the tracker will see its end."""
        with self._lock:
            self._terminating.append(chunk)
            first = len(self._terminating) == 1
        if first:
            self._pool().submit(self._terminate_together)

    # -- in the pool -----------------------------------------------------------------------------------------------

    def _terminate_together(self) -> None:
        time.sleep(_TOGETHER)
        while True:
            with self._lock:
                ripe = {chunk for chunk in self._terminating if not chunk.too_young_for()}
                self._terminating = [chunk for chunk in self._terminating if chunk not in ripe]
                left = bool(self._terminating)
            if running := [chunk for chunk in ripe if not chunk.ended]:
                self._terminate(running)
            if not left:
                return
            time.sleep(_LOOK)

    def _terminate(self, chunks: list[Chunk]) -> None:
        ids = [chunk.job_id for chunk in chunks if chunk.job_id is not None]
        try:
            if ids:
                self._context.client.delete_jobs(ids)
        except NotFoundError:
            for chunk in chunks:
                chunk.terminated = False  # it has just ended by itself
        except ProminenceError as error:
            for chunk in chunks:
                chunk.terminated = False
            self._context.log.warning("jobs %s could not be terminated: %s", ids, error)
        self._look_soon()

    def _delete_together(self) -> None:
        time.sleep(_TOGETHER)
        with self._lock:
            chunks, self._waiting = self._waiting, []
        found = self._table.entries(chunks)
        alone, arrays = _whole_arrays(found)
        in_arrays = (entry for array in arrays for entry in self._table.entries(array.left.values()))
        entries = dict.fromkeys([*found, *in_arrays])
        self._see_which_run([entry.chunk for entry in entries])
        try:
            self._delete_in_turn(entries, alone, arrays)
            for entry in entries:
                for name in entry.uploaded:
                    self._context.client.delete_data(name)
        except ProminenceError as error:
            self._context.log_left("jobs or objects of run %s could not be deleted: %s", error)
        finally:
            for chunk in {*chunks, *(entry.chunk for entry in entries)}:
                self._close(chunk)

    def _delete_in_turn(self, entries: Iterable[JobEntry], alone: list[JobEntry], arrays: set[Array]) -> None:
        """Delete whole arrays, and jobs alone; none that has just begun. ``entries``: all jobs of both.

        What waits goes before what runs: it would begin where that ends, and be too young then.
        """
        now = [] if arrays else [entry for entry in alone if not entry.chunk.too_young_for()]
        self._delete_jobs(now)
        time.sleep(max((entry.chunk.too_young_for() for entry in entries), default=0.0))
        busy = {array for array in arrays if any(chunk.running_since for chunk in array.left.values())}
        self._delete_arrays(arrays - busy)
        left = set(alone).difference(now)
        if len(busy) + bool(left) > 1:
            still = [entry for entry in entries if entry.array in busy or entry in left]
            waiting = [entry for entry in still if not entry.chunk.running_since]
            self._delete_jobs(waiting)
            left.difference_update(waiting)
        self._delete_arrays(busy)
        self._delete_jobs([entry for entry in alone if entry in left])

    def _delete_arrays(self, arrays: set[Array]) -> None:
        for array in arrays:
            with suppress(NotFoundError):  # it has ended
                if array.workflow_id is not None:
                    self._context.client.delete_workflow(array.workflow_id)

    def _see_which_run(self, chunks: list[Chunk]) -> None:
        """Note which jobs run that the last list showed waiting: they may be too young, too. One request, if any."""
        unseen = [chunk for chunk in chunks if chunk.running_since is None and not chunk.ended]
        waiting = {chunk.job_id: chunk for chunk in unseen if chunk.job_id is not None}
        if waiting:
            with suppress(ProminenceError):
                for job in self._context.client.list_jobs(constraint=(RUN_LABEL, self._context.run_id)):
                    if job["id"] in waiting and job["status"] == "running":
                        waiting[job["id"]].runs()

    def _delete_jobs(self, entries: list[JobEntry]) -> None:
        ids = [entry.chunk.job_id for entry in entries if not entry.chunk.ended]
        known = [job_id for job_id in ids if job_id is not None]
        if known:
            with suppress(InvalidRequestError):  # they had all ended: that is what was wanted
                self._context.client.delete_jobs(known)

    def _delete_object(self, name: str) -> None:
        try:
            self._context.client.delete_data(name)
        except ProminenceError as error:
            self._context.log.info("object %s of run %s could not be deleted: %s", name, self._context.run_id, error)


def _whole_arrays(entries: list[JobEntry]) -> tuple[list[JobEntry], set[Array]]:
    """Return the jobs that are to be deleted alone, and the arrays to be deleted whole, of which nobody needs a job."""
    arrays = {entry.array for entry in entries if entry.array is not None and not entry.array.is_wanted()}
    return [entry for entry in entries if entry.array not in arrays], arrays
