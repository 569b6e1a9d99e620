"""Finds a run again that another program began: by the label and the names of its jobs, and by its journal.

It asks the service a few questions once, and blocks for them; what the run consists of, adoption.py decides.
"""

from __future__ import annotations

import logging
import os
import secrets
import time
from typing import Any

from ..client.client import ProminenceClient
from ..errors import InvalidRequestError, RunExistsError, RunNotFoundError
from ..run.context import LOG
from ..run.journal import Journal
from ..run.keys import key_in
from ..run.names import MOST_CALLS, ArrayRange, CallRange, parse_array_name, parse_job_name, parse_worker_name
from ..run.options import RUN_LABEL
from ..transports.warm.traces import MailboxScan
from .adoption import RunSnapshot
from .settings import Service

_NEW = "that of 'local' is a new one for each program; one that prominence-executor serve starts keeps what it has"
_RECENT = 60.0  # seconds, enough for two clocks that differ a little
_ON_THE_WAY = 1.5  # seconds that a request may take which a program sent before it was killed


def find_again(
    service: Service, run_id: str, path: str | os.PathLike[str] | None, takeover: bool
) -> tuple[RunSnapshot, Journal | None]:
    """Find a run, and open its journal, or begin another for what is submitted now.

    Args:
        path: of the journal, if the run was begun with one.
        takeover: the run is to take new calls.

    Raises:
        RunNotFoundError: there is no such run.
        RunExistsError: the journal is in use.
        ValueError: the journal is another run's, or of a newer version, as the run may be.
    """
    kept = None if path is None else Journal.open(path)
    try:
        if kept is not None and kept.run_id != run_id:
            raise ValueError(f"the journal {path} is one of run {kept.run_id!r}, not of {run_id!r}")
        with service.connect() as client:
            try:
                found = find(client, run_id, kept)
            except RunNotFoundError as error:
                if path is None or kept is not None or not os.path.exists(path):
                    raise error if service.lasts else RunNotFoundError(f"{error}: {_NEW}") from None
                # Its program was killed while it made the journal: it has submitted nothing.
                kept = Journal.create(path, run_id, secrets.token_bytes(32))
                found = find(client, run_id, kept)
        if path is not None and kept is None:
            if not os.path.exists(path):
                level = logging.INFO if found.is_over else logging.WARNING  # one that is over has removed it, as a rule
                LOG.log(level, "run %s: there is no journal %s (it is removed when all calls are sent)", run_id, path)
            kept = Journal.create(path, run_id, found.key) if takeover else None
    except BaseException:
        if kept is not None:
            kept.close()
        raise
    return found, kept


def find(client: ProminenceClient, run_id: str, journal: Journal | None) -> RunSnapshot:
    """Find the jobs of a run, active and ended, its arrays, its warm workers, and its key.

    When the run was submitting a moment ago, its last requests may still be on their way, and a job that has just ended
    may be missing from one answer: this waits and looks again.

    Raises:
        RunNotFoundError: there is no such run.
        ValueError: a newer version has begun it.
    """
    jobs: dict[CallRange, dict[str, Any]] = {}
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
    calls = parse_job_name(run_id, name)
    if calls is None:
        return parse_worker_name(run_id, name) is not None
    return _is_credible(run_id, name, calls.first + calls.size)


def _is_credible(run_id: str, name: str, count: int) -> bool:
    """Tell whether a run can have so many calls as a name says; what cannot be is left alone."""
    if count > MOST_CALLS:
        LOG.warning("run %s: %s, which would be %d calls at least, is left alone", run_id, name, count)
    return count <= MOST_CALLS


def _arrays(client: ProminenceClient, run_id: str) -> dict[ArrayRange, dict[str, Any]]:
    """List the run's workflows by what they consist of; of two that are the same, the one that came first."""
    try:
        listed = client.list_workflows(constraint=(RUN_LABEL, run_id), all=True)
    except InvalidRequestError:
        return {}  # this service has no workflows
    arrays: dict[ArrayRange, dict[str, Any]] = {}
    for workflow in sorted(listed, key=lambda workflow: int(workflow["id"])):
        name = str(workflow.get("name") or "")
        span = parse_array_name(run_id, name)
        if span and _is_credible(run_id, name, span.last + 1):
            arrays.setdefault(span, workflow)
    return arrays


def list_run(client: ProminenceClient, run_id: str) -> list[dict[str, Any]]:
    """List all jobs that carry the run's label, active and ended; one request."""
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
    """Find the run's key, which stands in the description of each of its jobs."""
    for job_id in job_ids[:3]:
        for job in client.list_jobs(ids=[job_id], detail=True):
            if key := key_in(job, run_id):
                return key
    raise _not_ours(run_id)


def _key_of_array(client: ProminenceClient, run_id: str, workflow_ids: list[int]) -> bytes:
    """Find the run's key in the description of an array, which may have no job yet."""
    for workflow_id in workflow_ids[:3]:
        for job in client.describe_workflow(workflow_id).get("jobs") or ():
            if key := key_in(job, run_id):
                return key
    raise _not_ours(run_id)


def _not_ours(run_id: str) -> RunNotFoundError:
    return RunNotFoundError(f"the jobs that carry the label of run {run_id!r} were not made by an executor")
