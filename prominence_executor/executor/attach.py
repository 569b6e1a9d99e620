"""Finds a run again that another program began: by the label and the names of its jobs, and by its journal.

`find` asks the service a few questions once; `plan_adoption` decides from the answers what the run consists of, and
asks nobody. Looking after what was found is the run's own business.
"""

from __future__ import annotations

import base64
import json
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..client.client import ProminenceClient
from ..client.job import ENDED
from ..errors import InvalidRequestError, NotSubmittedError, RunExistsError, RunNotFoundError
from ..formats import newer
from ..remote.wire import FORMAT, JOB_FILE
from ..run.journal import Journal, Kept
from ..run.names import Calls, Span, parse_array_name, parse_job_name, parse_worker_name
from ..run.options import RUN_LABEL
from ..transports.jobs.array import Array
from ..transports.warm.traces import MailboxScan

_RECENT = 60.0  # seconds, enough for two clocks that differ a little
_ON_THE_WAY = 1.5  # seconds that a request may take which a program sent before it was killed


@dataclass(frozen=True)
class RunSnapshot:
    """What the service has of a run: its key, its jobs by the calls that they run, and its arrays."""

    run_id: str
    key: bytes
    jobs: dict[Calls, dict[str, Any]]
    job_ids: frozenset[int]
    arrays: dict[Span, dict[str, Any]]
    scan: MailboxScan | None  # of its warm workers, if it has had any

    @property
    def with_workers(self) -> set[Calls]:
        """What its warm workers have, or have run."""
        return set() if self.scan is None else {*self.scan.outcomes, *(self.scan.held.keys() - self.jobs)}

    @property
    def next_worker(self) -> int:
        """A number that no warm worker of it has."""
        return self.scan.next_worker if self.scan else 1

    def in_arrays(self) -> dict[Calls, Array]:
        """The array of the calls that travel in one; it holds no chunk yet."""
        found = {}
        for span, workflow in self.arrays.items():
            begun = 0.0 if workflow["status"] in ENDED else time.monotonic()
            array = Array(self.run_id, span, workflow_id=workflow["id"], accepted_at=begun)
            found.update(dict.fromkeys(span.jobs(), array))
        return found


@dataclass(frozen=True)
class AdoptedChunk:
    """Calls that travel as one job, and where they are."""

    calls: Calls
    current: frozenset[int]  # the numbers of those whose last attempt this is
    job: dict[str, Any] | None = None  # None in an array whose job has not been made, and where it is not sent
    kept: Kept | None = None  # what the journal has of it
    is_with_worker: bool = False
    is_unsent: bool = False

    @property
    def in_doubt(self) -> bool:
        """Whether its job may exist though the service did not show it."""
        return self.is_unsent and self.kept is not None and self.kept.sending


@dataclass(frozen=True)
class AdoptionPlan:
    """What an attached run consists of.

    Attributes:
        count: how many calls it has.
        missing: by number, those that never reached the service.
        obsolete: names of chunks that the journal need not keep.
    """

    run_id: str
    count: int
    chunks: tuple[AdoptedChunk, ...]
    missing: dict[int, NotSubmittedError]
    obsolete: tuple[str, ...]

    def report(self, complete: bool) -> tuple[int, str]:
        """What to log of it, and at which level; ``complete``: there can be no call behind the last one known."""
        parts = [f"{self.count} calls"]
        if self.missing:
            parts.append(f"{len(self.missing)} of them were not submitted")
        unsent = sum(chunk.calls.size for chunk in self.chunks if chunk.is_unsent)
        if unsent:
            parts.append(f"{unsent} of them are submitted now")
        if not complete:
            parts.append(f"whether there were more behind number {self.count - 1}, only a journal knows")
        level = logging.INFO if complete and not self.missing else logging.WARNING
        return level, f"run {self.run_id}: " + "; ".join(parts)


def plan_adoption(snapshot: RunSnapshot, kept: Sequence[Kept], next_call: int) -> AdoptionPlan:
    """Decide what a run consists of. A call's last attempt counts.

    A call below the highest one known of which there is no trace was not submitted.

    Args:
        kept: what the journal has.
        next_call: the number of the next call, as far as the journal knows.
    """
    with_workers = snapshot.with_workers
    in_arrays = {calls for span in snapshot.arrays for calls in span.jobs()}
    by_calls = {calls: item for item in kept if (calls := parse_job_name(snapshot.run_id, item.name)) is not None}
    at_service = snapshot.jobs.keys() | in_arrays
    unsent = by_calls.keys() - with_workers - at_service
    every = at_service | unsent | with_workers
    count = max([calls.first + calls.size for calls in every] + [next_call])
    last: dict[int, int] = {}  # attempt by call
    for calls in every:
        for number in calls.numbers():
            last[number] = max(calls.attempt, last.get(number, 0))
    chunks = []
    for calls in sorted(every):
        current = frozenset(number for number in calls.numbers() if last[number] == calls.attempt)
        if current:
            own = by_calls.get(calls) if calls in with_workers or calls in unsent else None
            job = snapshot.jobs.get(calls)
            chunks.append(AdoptedChunk(calls, current, job, own, calls in with_workers, calls in unsent))
    missing = {
        number: NotSubmittedError(
            f"call {number} of run {snapshot.run_id} never reached the service, or was cancelled before"
        )
        for number in range(count)
        if number not in last
    }
    # The program ended before it heard that the service had accepted these.
    obsolete = tuple(item.name for calls, item in by_calls.items() if calls in at_service - with_workers)
    return AdoptionPlan(snapshot.run_id, count, tuple(chunks), missing, obsolete)


def find(client: ProminenceClient, run_id: str, journal: Journal | None) -> RunSnapshot:
    """Find the jobs of a run, active and ended, its arrays, its warm workers, and its key.

    When the run was submitting a moment ago, its last requests may still be on their way, and a job that has just ended
    may be missing from one answer: this waits and looks again.

    Raises:
        RunNotFoundError: there is no such run.
        ValueError: a newer version has begun it.
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
    scan = None
    if workers:
        scan = MailboxScan(run_id, key, workers)
        scan.look(client)
    return RunSnapshot(run_id, key, jobs, frozenset(job["id"] for job in listed), arrays, scan)


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
            if instructions["format"] > FORMAT:
                raise ValueError(newer(f"run {run_id!r}", instructions["format"], FORMAT))
            if instructions["run"] == run_id:
                return bytes.fromhex(instructions["key"])
    return None


def _not_ours(run_id: str) -> RunNotFoundError:
    return RunNotFoundError(f"the jobs that carry the label of run {run_id!r} are not an executor's")
