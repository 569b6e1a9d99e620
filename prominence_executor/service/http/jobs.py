"""/jobs: create, list, describe, end, repeat, and look inside."""

from __future__ import annotations

import sqlite3
import uuid
from typing import Any

from flask import Blueprint, Response, jsonify, request

from ..execution.job_run import JobRun
from ..schema.allocation import allocate
from ..schema.files import check_mounts, check_objects
from ..schema.job import check_job
from ..schema.task import check_words
from ..state.representations import detailed, short_list
from ..state.store import NewJob, Query
from ..state.tokens import OUTPUT_SECONDS
from .context import BASE, api, constraint, flag, me, raw, refuse, whole, wholes

Answer = Response | tuple[Response, int]

routes = Blueprint("jobs", __name__)


class _Denied(Exception):
    """An answer that ends a view."""

    def __init__(self, sentence: str, status: int = 400) -> None:
        self.answer = (sentence, status)


@routes.app_errorhandler(_Denied)
def denied(error: _Denied) -> Answer:
    """Return the response that ended a view."""
    return refuse(*error.answer)


@routes.post(f"{BASE}/jobs")
def create_job() -> Answer:
    """Create a job."""
    return jsonify({"id": create(request.get_json())}), 201


@routes.get(f"{BASE}/jobs")
def list_jobs() -> Answer:
    """List jobs, in short or in detail."""
    if request.args.get("status", "idle") not in ("idle", "running"):
        return jsonify({"error": "invalid status specified"})  # with status 200, as recorded
    rows = api.store.list_jobs(_query())
    if flag("detail"):
        api.costs.describe(api.store, rows)
        return jsonify([_detailed(row) for row in rows])
    return Response(short_list(rows), content_type="application/json")


@routes.get(f"{BASE}/jobs/<int:job>")
def describe_job(job: int) -> Answer:
    """Describe a job, or nothing when it is not the asking user's."""
    row = api.store.job(job)
    api.costs.describe(api.store, [] if row is None else [row])
    return jsonify([_detailed(row)] if row is not None and row["user"] == me().username else [])


@routes.delete(f"{BASE}/jobs/<int:job>")
def delete_job(job: int) -> Answer:
    """End a job."""
    return _delete([job])


@routes.delete(f"{BASE}/jobs")
def delete_jobs() -> Answer:
    """End several jobs."""
    jobs = wholes("id")
    return refuse("a job id or list of job ids must be provided") if jobs is None else _delete(jobs)


@routes.put(f"{BASE}/jobs/<int:job>/remove")
def remove_job(job: int) -> Answer:
    """Take a completed job out of the queue."""
    row = _own(job)
    removed = api.store.set_removed(job)
    if not removed and row["ended"] is not None:
        return refuse("Job is no longer in the queue")
    return jsonify({})


@routes.put(f"{BASE}/jobs/<int:job>/clone")
def clone_job(job: int) -> Answer:
    """Create a job of the same description."""
    return jsonify({"id": create(api.store.body(_own(job)))}), 201


@routes.get(f"{BASE}/jobs/<int:job>/<any(stdout, stderr):stream>")
def job_stream(job: int, stream: str) -> Answer:
    """Return what a job has printed."""
    node, offset = whole("node", 0, 0), whole("offset", 0, 0)
    _own(job)
    return raw(api.service.log_file(job, {"stdout": "out", "stderr": "err"}[stream], node), offset)


@routes.post(f"{BASE}/jobs/<int:job>/exec")
def execute(job: int) -> Answer:
    """Run a command next to the tasks of a running job."""
    run = _running(job)
    command = request.args.get("command")
    if not command:
        return refuse("A command to execute must be specified")
    output = None if api.service.platform.without_sshd else run.execute(command)
    if output is None:
        return refuse("Unable to execute command")
    return Response(output, content_type="text/html; charset=utf-8")


@routes.put(f"{BASE}/jobs/<int:job>/snapshot")
def create_snapshot(job: int) -> Answer:
    """Pack a path of a running job."""
    run = _running(job)
    path = request.args.get("path")
    if not path:
        return refuse("A path to snapshot must be specified")
    if path.startswith("/") or ".." in path.split("/") or "\0" in path:
        return refuse("Invalid path")
    packed = None if api.service.platform.without_sshd else run.snapshot(path)
    if packed is None:
        return refuse("Unable to create snapshot")
    api.service.objects.put_file(_snapshot_key(run), packed)
    packed.unlink()
    return jsonify({})


@routes.get(f"{BASE}/jobs/<int:job>/snapshot")
def snapshot_url(job: int) -> Answer:
    """Return where the snapshot of a running job lies."""
    key = _snapshot_key(_running(job))
    return jsonify({"url": api.service.signer.signed_url(api.object_base, "GET", key, OUTPUT_SECONDS)})


def create(body: Any) -> int:
    """Store and queue a job for the asking user; it is in the active list when this returns. Raises Refused."""
    check_job(body)
    if not api.service.containers.mounts:
        check_mounts(body)
    check_objects(body, api.uploaded)
    if not api.service.platform.splits_env:
        check_words(body)
    api.costs.create()
    allocation = allocate(body["resources"], api.service.engine.cpus)
    job = NewJob(
        user=me().username, body=body, place=str(uuid.uuid4()), name=body.get("name", ""), allocation=allocation
    )
    ids = api.store.add_jobs([job])
    api.scheduler.submit(ids)
    return ids[0]


def _query() -> Query:
    """Read what a listing was asked for: `id` alone finds finished jobs, too; of a workflow, the active ones only."""
    every, completed, ids, of_workflow = flag("all"), flag("completed"), wholes("id"), flag("workflow")
    by_id = ids is not None and not of_workflow
    return Query(
        user=me().username,
        active=every or not completed or by_id,
        finished=every or completed or by_id,
        ids=None if of_workflow else ids,
        workflows=ids if of_workflow else None,
        label=constraint(),
        name=request.args.get("name"),
        status=request.args.get("status"),
        limit=-1 if every or by_id or of_workflow else whole("num", 1),
    )


def _detailed(row: sqlite3.Row) -> dict[str, Any]:
    return detailed(row, api.store.body(row), api.output_url)


def _delete(jobs: list[int]) -> Answer:
    """Answer 200 when at least one of the jobs was there to be ended; the others are passed over."""
    found = 0
    for job in jobs:
        row = api.store.job(job)
        if row is not None and row["user"] == me().username:
            found += api.scheduler.delete(job)
    return jsonify({}) if found else refuse("No such job(s)")


def _own(job: int) -> sqlite3.Row:
    row = api.store.job(job)
    if row is None:
        raise _Denied("Job does not exist")
    if row["user"] != me().username:
        raise _Denied("Not authorized to access this job", 403)
    return row


def _running(job: int) -> JobRun:
    row, run = _own(job), api.scheduler.run_of(job)
    if run is None or row["status"] != "running":
        raise _Denied("Job is not running")
    return run


def _snapshot_key(run: JobRun) -> str:
    return f"snapshots/{run.spec.place}/snapshot.tgz"
