"""Arrays of which the service has not shown all jobs: are they still to come, or have they come and gone?

A part of the tracker, in whose thread all of it runs. It asks the service about a workflow only while no job shows.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, cast

from ...client.status import ENDED, has_ended, is_held
from ...errors import JobDeletedError, JobFailedError, NotFoundError
from ...run.chunk import Chunk
from ...run.context import RunContext
from ...run.names import workflow_of
from ...run.options import RUN_LABEL
from ...run.settle import Settler
from .array import Array
from .table import JobEntry, JobTable

_ARRAY_STARTS = 5.0  # seconds in which the service should have made the first job of an array
_ASK_WORKFLOW = 60.0  # seconds between two questions after an array whose jobs do not appear, at most
_WORKFLOW_LOST = 60.0  # seconds without a trace of a workflow that was accepted


class UnseenJobs:
    """The jobs of one run that are to be seen.

    Args:
        match: gives jobs that are seen for the first time to their chunks.
        release: called with each chunk that is settled.
    """

    def __init__(
        self,
        context: RunContext,
        table: JobTable,
        settler: Settler,
        *,
        match: Callable[[list[dict[str, Any]]], None],
        release: Callable[[Chunk], None],
    ) -> None:
        self._context = context
        self._table = table
        self._settler = settler
        self._match = match
        self._release = release

    def look(self, unseen: list[JobEntry], listed: list[dict[str, Any]]) -> bool:
        """Look for jobs of arrays, which appear one after the other; one that is not there may have ended already.

        That is so when a later one has been seen, or when none is active though the array has had the time to start.

        Args:
            unseen: of which no job has been seen.
            listed: the jobs that the service has listed just now.

        Returns:
            Whether a list of all jobs, the ended ones included, would tell.
        """
        arrays: dict[Array, list[Chunk]] = {}
        for entry in unseen:
            if entry.array is not None:
                arrays.setdefault(entry.array, []).append(entry.chunk)
        if not arrays:
            return False
        active = {workflow_of(str(job.get("name"))) for job in listed if not has_ended(job)}
        now, wants_all = time.monotonic(), False
        for array, chunks in arrays.items():
            quiet = now - array.accepted_at > _ARRAY_STARTS and array.name not in active
            wants_all = wants_all or quiet or array.position(chunks[0]) < array.seen
            if quiet and now >= array.ask_at:
                array.ask_at = now + min(_ARRAY_STARTS * 2**array.asked, _ASK_WORKFLOW)
                array.asked += 1
                if array.asked > 1:  # the list of all jobs comes first
                    self._ask_about_workflow(array, chunks)
        return wants_all

    def _ask_about_workflow(self, array: Array, unseen: list[Chunk]) -> None:
        """Ask whether an array without an active job has ended without making these, which have not been seen."""
        client = self._context.client
        try:
            workflow = client.describe_workflow(cast(int, array.workflow_id))
        except NotFoundError:
            workflow = {"status": "unknown"}
        status, text = workflow["status"], f"workflow {array.workflow_id} ended before it made a job of the call"
        if is_held(workflow) and self._is_active(array):
            now = self._context.health.now()
            array.held_since = now if array.held_since is None else array.held_since
            held = now - array.held_since
            if held < self._context.health.timeout:
                return
            text = f"the service has held workflow {array.workflow_id} for {held:.0f} s, which made no job of the call"
            self._delete_held(array)
        elif status not in ENDED and (status != "unknown" or time.monotonic() - array.accepted_at < _WORKFLOW_LOST):
            array.held_since = None
            return
        self._match(client.list_jobs(workflow_id=array.workflow_id, all=True))
        kind = JobDeletedError if status == "deleted" else JobFailedError
        for chunk in unseen:
            if chunk.job_id is None:
                error = kind(text, status=status, reason=workflow.get("statusReason"))
                self._settler.without_outcome(chunk, error)
                self._release(chunk)

    def _is_active(self, array: Array) -> bool:
        """Return whether its workflow is among the active ones."""
        listed = self._context.client.list_workflows(constraint=(RUN_LABEL, self._context.run_id))
        return any(workflow["id"] == array.workflow_id for workflow in listed)

    def _delete_held(self, array: Array) -> None:
        """Delete a workflow that is held, and might make jobs of its calls later; at the end, if it has jobs now."""
        if self._context.attached:
            return  # it is another program's
        self._table.doubt()
        if all(chunk.job_id is None for chunk in array.left.values()):
            with suppress(NotFoundError):  # it has ended meanwhile
                self._context.client.delete_workflow(cast(int, array.workflow_id))
