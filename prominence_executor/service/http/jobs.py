"""/jobs: create, list, describe, end, repeat, and look inside."""

from __future__ import annotations

import sqlite3
import uuid
from functools import partial
from typing import Any

from ..engines.base import Run
from ..node.job_run import snapshot_key
from ..schema.allocation import allocate
from ..schema.bounds import LONGEST_WORD
from ..schema.files import check_mounts, check_objects
from ..schema.items import check_answer
from ..schema.job import check_job
from ..schema.task import check_words
from ..state.representations import detailed, short_list
from ..state.store import NewJob, Query
from ..state.tokens import OUTPUT_SECONDS
from .context import BASE, TEXT, Aborted, Answer, Ask, jsonify, refuse
from .preferences import answered
from .routes import Routes
from .transfer import log_answer
from .waiting import Topic

routes = Routes()


@routes.post(f"{BASE}/jobs")
def create_job(ask: Ask) -> Answer:
    """Create a job."""
    return jsonify({"id": create(ask, ask.json())}, 201)


ALL = "="  # the name of all jobs of a user, beside those of labels


def room_of(user: str) -> tuple[str, str]:
    """Return where changes of a user's jobs are announced."""
    return "jobs", user


@routes.get(f"{BASE}/jobs")
async def list_jobs(ask: Ask) -> Answer:
    """List jobs, in short or in detail; one that waits is answered when a job has come, or has another status."""
    label = ask.constraint()
    topic = Topic(room_of(ask.me.username), ALL if label is None else "=".join(label))
    return await answered(ask, topic, partial(ask.run, _list, ask))


def _list(ask: Ask) -> Answer:
    if ask.args.get("status", "idle") not in ("idle", "running"):
        return jsonify({"error": "invalid status specified"})  # with status 200, as recorded
    rows = ask.api.store.list_jobs(_query(ask))
    if ask.flag("detail"):
        check_answer(ask.api.store.described(rows))
        ask.api.costs.describe(ask.api.store, rows)
        return jsonify([_detailed(ask, row) for row in rows])
    return Answer(body=short_list(rows).encode())


@routes.get(f"{BASE}/jobs/<int:job>")
def describe_job(ask: Ask, job: int) -> Answer:
    """Describe a job, or nothing when it is not the asking user's."""
    row = ask.api.store.job(job)
    ask.api.costs.describe(ask.api.store, [] if row is None else [row])
    return jsonify([_detailed(ask, row)] if row is not None and row["user"] == ask.me.username else [])


@routes.delete(f"{BASE}/jobs/<int:job>")
def delete_job(ask: Ask, job: int) -> Answer:
    """End a job."""
    return _delete(ask, [job])


@routes.delete(f"{BASE}/jobs")
def delete_jobs(ask: Ask) -> Answer:
    """End several jobs."""
    jobs = ask.wholes("id")
    return refuse("a job id or list of job ids must be provided") if jobs is None else _delete(ask, jobs)


@routes.put(f"{BASE}/jobs/<int:job>/remove")
def remove_job(ask: Ask, job: int) -> Answer:
    """Take a completed job out of the queue."""
    row = _own(ask, job)
    removed = ask.api.store.set_removed(job)
    if not removed and row["ended"] is not None:
        return refuse("Job is no longer in the queue")
    return jsonify({})


@routes.put(f"{BASE}/jobs/<int:job>/clone")
def clone_job(ask: Ask, job: int) -> Answer:
    """Create a job of the same description."""
    return jsonify({"id": create(ask, ask.api.store.body(_own(ask, job)))}, 201)


@routes.get(f"{BASE}/jobs/<int:job>/<any(stdout, stderr):stream>")
def job_stream(ask: Ask, job: int, stream: str) -> Answer:
    """Return what a job has printed."""
    node, offset = ask.whole("node", 0, 0), ask.whole("offset", 0, 0)
    _own(ask, job)
    return log_answer(ask.api.service.log_file(job, {"stdout": "out", "stderr": "err"}[stream], node), offset)


@routes.post(f"{BASE}/jobs/<int:job>/exec", long=True)
def execute(ask: Ask, job: int) -> Answer:
    """Run a command next to the tasks of a running job."""
    run = _running(ask, job)
    command = ask.args.get("command")
    if not command:
        return refuse("A command to execute must be specified")
    if "\0" in command or len(command.encode()) >= LONGEST_WORD:
        return refuse("Invalid command")
    output = None if ask.api.service.platform.without_sshd else run.execute(command)
    if output is None:
        return refuse("Unable to execute command")
    return Answer(content_type=TEXT, body=output)


@routes.put(f"{BASE}/jobs/<int:job>/snapshot", long=True)
def create_snapshot(ask: Ask, job: int) -> Answer:
    """Pack a path of a running job."""
    run = _running(ask, job)
    path = ask.args.get("path")
    if not path:
        return refuse("A path to snapshot must be specified")
    if path.startswith("/") or ".." in path.split("/") or "\0" in path:
        return refuse("Invalid path")
    made = not ask.api.service.platform.without_sshd and run.snapshot(path)
    return jsonify({}) if made else refuse("Unable to create snapshot")


@routes.get(f"{BASE}/jobs/<int:job>/snapshot")
def snapshot_url(ask: Ask, job: int) -> Answer:
    """Return where the snapshot of a running job lies."""
    _running(ask, job)
    key = snapshot_key(_own(ask, job)["place"])
    return jsonify({"url": ask.api.service.signer.signed_url(ask.api.object_base, "GET", key, OUTPUT_SECONDS)})


def create(ask: Ask, body: Any) -> int:
    """Store and queue a job for the asking user; it is in the active list when this returns. Raises Refused."""
    check_job(body)
    if not ask.api.service.containers.mounts:
        check_mounts(body)
    check_objects(body, ask.uploaded)
    if not ask.api.service.platform.splits_env:
        check_words(body)
    ask.api.costs.create()
    allocation = allocate(body["resources"], ask.api.service.engine.limits().cpus)
    job = NewJob(
        user=ask.me.username, body=body, place=str(uuid.uuid4()), name=body.get("name", ""), allocation=allocation
    )
    ids = ask.api.store.add_jobs([job])
    ask.api.scheduler.submit(ids)
    return ids[0]


def _query(ask: Ask) -> Query:
    """Read what a listing was asked for: `id` alone finds finished jobs, too; of a workflow, the active ones only."""
    every, completed, ids, of_workflow = ask.flag("all"), ask.flag("completed"), ask.wholes("id"), ask.flag("workflow")
    by_id = ids is not None and not of_workflow
    return Query(
        user=ask.me.username,
        active=every or not completed or by_id,
        finished=every or completed or by_id,
        ids=None if of_workflow else ids,
        workflows=ids if of_workflow else None,
        label=ask.constraint(),
        name=ask.args.get("name"),
        status=ask.args.get("status"),
        limit=-1 if every or by_id or of_workflow else ask.whole("num", 1),
    )


def _detailed(ask: Ask, row: sqlite3.Row) -> dict[str, Any]:
    return detailed(row, ask.api.store.body(row), ask.api.output_url, ask.api.service.engine.limits().site)


def _delete(ask: Ask, jobs: list[int]) -> Answer:
    """Answer 200 when at least one of the jobs was there to be ended; the others are passed over."""
    found = 0
    for job in jobs:
        row = ask.api.store.job(job)
        if row is not None and row["user"] == ask.me.username:
            found += ask.api.scheduler.delete(job)
    return jsonify({}) if found else refuse("No such job(s)")


def _own(ask: Ask, job: int) -> sqlite3.Row:
    row = ask.api.store.job(job)
    if row is None:
        raise Aborted(refuse("Job does not exist"))
    if row["user"] != ask.me.username:
        raise Aborted(refuse("Not authorized to access this job", 403))
    return row


def _running(ask: Ask, job: int) -> Run:
    row, run = _own(ask, job), ask.api.scheduler.run_of(job)
    if run is None or row["status"] != "running":
        raise Aborted(refuse("Job is not running"))
    return run
