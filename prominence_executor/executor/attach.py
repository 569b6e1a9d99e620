"""Finds a run again that another program began: by the label and the names of its jobs, and by its journal.

It asks the service a few questions once and then is done; looking after what was found is the run's own business.
"""

from __future__ import annotations

import base64
import json
import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..client.job import ENDED
from ..errors import InvalidRequestError, NotSubmittedError, RunExistsError, RunNotFoundError
from ..remote.wire import JOB_FILE
from ..run.chunk import RUN_LABEL, Array, Chunk, Options
from ..run.future import ProminenceFuture
from ..run.names import Calls, Span, parse_array_name, parse_job_name, parse_worker_name
from ..transports.warm.follower import Follower, Traces

if TYPE_CHECKING:
    from ..client.client import ProminenceClient
    from ..run.journal import Journal, Kept
    from .run import Run

_RECENT = 60.0  # seconds, enough for two clocks that differ a little
_ON_THE_WAY = 1.5  # seconds that a request may take which a program sent before it was killed


@dataclass
class Found:
    """What is left of a run: its key, its jobs by the calls that they run, and its arrays."""

    run_id: str
    key: bytes
    jobs: dict[Calls, dict[str, Any]]
    job_ids: set[int]
    arrays: dict[Span, dict[str, Any]]
    traces: Traces | None  # of its warm workers, if it has had any

    def adopt(
        self, run: Run, journal: Journal | None, complete: bool, owns: bool, options: Options
    ) -> list[ProminenceFuture[Any]]:
        """Hand everything to a run that has not started; returns the futures of all calls, in their order.

        A call's last attempt counts. A call below the highest one known of which there is no trace was not submitted.
        ``options``: of calls whose own the journal does not have.
        ``complete``: there can be none behind that one. ``owns``: the program that began the run is no more.
        """
        arrays = self._in_arrays()
        unseen = [calls for calls in arrays if calls not in self.jobs]
        traced = set() if self.traces is None else {*self.traces.outcomes, *(self.traces.held.keys() - self.jobs)}
        with_workers: dict[Calls, Kept] = {}  # what the journal has of them
        unsent: dict[Calls, Kept] = {}
        for item in journal.kept(run.objects) if journal else ():
            calls = parse_job_name(self.run_id, item.name)
            if calls is not None and calls in traced:
                with_workers[calls] = item
            elif (calls in self.jobs or calls in arrays) and journal:
                journal.remove([item.name])  # the program ended before it heard that the service had accepted it
            elif calls:
                unsent[calls] = item
        every = {*self.jobs, *unseen, *unsent, *traced}
        count = max([first + size for first, size, _ in every] + [journal.next_call if journal else 0])
        last: dict[int, int] = {}  # attempt by call
        for first, size, attempt in every:
            for index in range(first, first + size):
                last[index] = max(attempt, last.get(index, 0))
        futures: list[ProminenceFuture[Any]] = [ProminenceFuture(index) for index in range(count)]
        superseded: ProminenceFuture[Any] = ProminenceFuture()
        superseded.cancel()
        chunks = []
        followed = {}
        for calls in sorted(every):
            first, size, attempt = calls
            mine = [futures[n] if last[n] == attempt else superseded for n in range(first, first + size)]
            if all(future is superseded for future in mine):
                continue
            if calls in traced:
                kept = with_workers.get(calls)
                chunk = Chunk(
                    run, first, mine, kept.options if kept else options, kept.payload if kept else None, attempt
                )
                followed[calls] = chunk
            elif calls in unsent:
                item = unsent[calls]
                chunk = Chunk(run, first, mine, item.options, item.payload, attempt, in_doubt=item.sending)
            else:
                job, array = self.jobs.get(calls), arrays.get(calls)
                chunk = Chunk(run, first, mine, options, None, attempt)
                if array is not None:
                    array.add(chunk)
                if job is not None:
                    chunk.job_id = job["id"]
                    chunk.saw(job["status"])
            chunks.append(chunk)
        missing = [future for future in futures if future._index not in last]
        for future in missing:
            text = f"call {future._index} of run {self.run_id} never reached the service, or was cancelled before"
            future._settle(False, NotSubmittedError(text))
        report = [f"{count} calls"]
        if missing:
            report.append(f"{len(missing)} of them were not submitted")
        if unsent:
            report.append(f"{sum(size for _, size, _ in unsent)} of them are submitted now")
        if not complete:
            report.append(f"whether there were more behind number {count - 1}, only a journal knows")
        level = logging.INFO if complete and not missing else logging.WARNING
        run.log.log(level, "run %s: %s", self.run_id, "; ".join(report))
        follower = None
        if self.traces is not None:
            follower = Follower(run, self.traces, followed, owns)
        run.adopt(chunks, self.job_ids, count, follower, self.traces.next_worker if self.traces else 1)
        return futures

    def _in_arrays(self) -> dict[Calls, Array]:
        """The array of the calls that travel in one."""
        found = {}
        for span, workflow in self.arrays.items():
            begun = 0.0 if workflow["status"] in ENDED else time.monotonic()
            array = Array(self.run_id, span, workflow_id=workflow["id"], accepted_at=begun)
            found.update(dict.fromkeys(span.jobs(), array))
        return found


def find(client: ProminenceClient, run_id: str, journal: Journal | None) -> Found:
    """Find the jobs of a run, active and ended, its arrays, its warm workers, and its key.

    When the run was submitting a moment ago, its last requests may still be on their way, and a job that has just ended
    may be missing from one answer: this waits and looks again.

    Raises:
        RunNotFoundError: there is no such run.
    """
    jobs: dict[Calls, dict[str, Any]] = {}
    listed = _ours(client, run_id)
    newest = max(((job.get("events") or {}).get("createTime", 0) for job in listed), default=time.time())
    if newest > time.time() - _RECENT:
        time.sleep(_ON_THE_WAY)
        listed = list({job["id"]: job for job in [*listed, *_ours(client, run_id)]}.values())
    # Of two jobs of one attempt the later has been, or will be, deleted.
    for job in sorted(listed, key=lambda job: (job["status"] == "deleted", job["id"]), reverse=True):
        calls = parse_job_name(run_id, job["name"])
        if calls is not None:
            jobs[calls] = job
    arrays = _arrays(client, run_id)
    workers = [job for job in listed if parse_worker_name(run_id, job["name"]) is not None]
    if journal is None and not jobs and not arrays and not workers:
        raise RunNotFoundError(f"the service has no jobs of a run {run_id!r}")
    if journal:
        key = journal.key
    elif jobs or workers:
        key = _key_of(client, run_id, [job["id"] for job in (*jobs.values(), *workers)])
    else:
        key = _key_of_array(client, run_id, [workflow["id"] for workflow in arrays.values()])
    traces = None
    if workers:
        traces = Traces(run_id, key, workers)
        traces.look(client)
    return Found(run_id, key, jobs, {job["id"] for job in listed}, arrays, traces)


def _ours(client: ProminenceClient, run_id: str) -> list[dict[str, Any]]:
    return [job for job in list_run(client, run_id) if _is_ours(run_id, str(job.get("name") or ""))]


def _is_ours(run_id: str, name: str) -> bool:
    return parse_job_name(run_id, name) is not None or parse_worker_name(run_id, name) is not None


def _arrays(client: ProminenceClient, run_id: str) -> dict[Span, dict[str, Any]]:
    """The run's workflows by what they consist of; of two that are the same, the one that came first."""
    try:
        listed = client.list_workflows(constraint=(RUN_LABEL, run_id), all=True)
    except InvalidRequestError:
        return {}  # this service has no workflows
    arrays: dict[Span, dict[str, Any]] = {}
    for workflow in sorted(listed, key=lambda workflow: int(workflow["id"])):
        span = parse_array_name(run_id, str(workflow.get("name") or ""))
        if span:
            arrays.setdefault(span, workflow)
    return arrays


def list_run(client: ProminenceClient, run_id: str) -> list[dict[str, Any]]:
    """All jobs that carry the run's label, active and ended: one request."""
    return client.list_jobs(constraint=(RUN_LABEL, run_id), all=True)


def check_new(client: ProminenceClient, run_id: str) -> None:
    """Raise RunExistsError when the service has jobs of a run of this id."""
    jobs = list_run(client, run_id)
    if jobs or _arrays(client, run_id):
        raise RunExistsError(
            f"run {run_id!r} exists: the service has {len(jobs)} jobs of it. "
            f"ProminenceExecutor.attach({run_id!r}) continues it; a new run needs another id"
        )


def _key_of(client: ProminenceClient, run_id: str, job_ids: list[int]) -> bytes:
    """The key stands in the description of each of the run's jobs."""
    for job_id in job_ids[:3]:
        for job in client.list_jobs(ids=[job_id], detail=True):
            if key := _key_in(job, run_id):
                return key
    raise _not_ours(run_id)


def _key_of_array(client: ProminenceClient, run_id: str, workflow_ids: list[int]) -> bytes:
    """It stands in the description of an array as well, which may have no job yet."""
    for workflow_id in workflow_ids[:3]:
        for job in client.describe_workflow(workflow_id).get("jobs") or ():
            if key := _key_in(job, run_id):
                return key
    raise _not_ours(run_id)


def _key_in(job: dict[str, Any], run_id: str) -> bytes | None:
    for item in job.get("inputs") or ():
        if item.get("filename") == JOB_FILE:
            instructions = json.loads(base64.b64decode(item["content"]))
            if instructions["run"] == run_id:
                return bytes.fromhex(instructions["key"])
    return None


def _not_ours(run_id: str) -> RunNotFoundError:
    return RunNotFoundError(f"the jobs that carry the label of run {run_id!r} are not an executor's")
