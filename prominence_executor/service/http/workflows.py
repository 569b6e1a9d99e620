"""/workflows: create, list, describe, end, repeat. Their jobs are found under /jobs."""

from __future__ import annotations

import json
import sqlite3
from typing import Any

from ..schema.files import check_mounts
from ..schema.items import check_answer
from ..schema.task import check_words
from ..schema.workflow import check_members_objects, check_stored, check_workflow, members
from ..state.representations import events
from ..state.workflow_rows import WorkflowQuery
from .context import BASE, Answer, Ask, jsonify, refuse
from .routes import Routes

routes = Routes()


@routes.post(f"{BASE}/workflows")
def create_workflow(ask: Ask) -> Answer:
    """Create a workflow and its first jobs."""
    body = ask.json()
    check_workflow(body)
    for job in () if ask.api.service.containers.mounts else body["jobs"]:
        check_mounts(job)
    for job in () if ask.api.service.platform.splits_env else body["jobs"]:
        check_words(job)
    expanded = members(body)
    check_stored(expanded)
    check_members_objects(expanded, ask.uploaded)
    ask.api.costs.create()
    return jsonify({"id": ask.api.workflows.create(ask.me.username, body)}, 201)


@routes.get(f"{BASE}/workflows")
def list_workflows(ask: Ask) -> Answer:
    """List workflows, in short or in detail."""
    if ask.args.get("status", "idle") not in ("idle", "running"):
        return jsonify({"error": "invalid status specified"})
    rows, detail = ask.api.workflows.rows.select(_query(ask)), ask.flag("detail")
    check_answer(sum(len(row["body"]) for row in rows) if detail else 0)
    return jsonify([_shown(ask, row, detail) for row in rows])


@routes.get(f"{BASE}/workflows/<int:workflow>")
def describe_workflow(ask: Ask, workflow: int) -> Answer:
    """Describe a workflow."""
    row = _own(ask, workflow)
    return jsonify([] if row is None else [_shown(ask, row, True)])


@routes.delete(f"{BASE}/workflows/<int:workflow>")
def delete_workflow(ask: Ask, workflow: int) -> Answer:
    """End a workflow and its jobs."""
    return _delete(ask, [workflow])


@routes.delete(f"{BASE}/workflows")
def delete_workflows(ask: Ask) -> Answer:
    """End several workflows and their jobs."""
    ids = ask.wholes("id")
    if ids is None:
        return refuse("a workflow id or list of workflow ids must be provided")
    return _delete(ask, ids)


@routes.put(f"{BASE}/workflows/<int:workflow>")
def rerun_workflow(ask: Ask, workflow: int) -> Answer:
    """Create a workflow of what a failed one did not complete."""
    row = _own(ask, workflow)
    again = None if row is None else ask.api.workflows.rerun(row)
    if again is None:
        return refuse("Unable to find re-run workflow as the original workflow is not in a suitable state")
    return jsonify({"id": again})


@routes.put(f"{BASE}/workflows/<int:workflow>/clone")
def clone_workflow(ask: Ask, workflow: int) -> Answer:
    """Create a workflow of the same description."""
    row, denied = _accessible(ask, workflow)
    if row is None:
        return denied
    return jsonify({"id": ask.api.workflows.create(ask.me.username, json.loads(row["body"]))}, 201)


@routes.put(f"{BASE}/workflows/<int:workflow>/remove")
def remove_workflow(ask: Ask, workflow: int) -> Answer:
    """Take an ended workflow out of the queue."""
    row, denied = _accessible(ask, workflow)
    if row is None:
        return denied
    if not row["active"]:
        return refuse("Workflow is no longer in the queue")
    ask.api.workflows.rows.set_removed(workflow)
    return jsonify({})


@routes.get(f"{BASE}/workflows/<int:workflow>/<job>/<any(stdout, stderr):stream>")
@routes.get(f"{BASE}/workflows/<int:workflow>/<job>/<int:instance>/<any(stdout, stderr):stream>")
def member_stream(ask: Ask, workflow: int, job: str, stream: str, instance: int = -1) -> Answer:
    """Refuse what the real service cannot do either."""
    row, denied = _accessible(ask, workflow)
    if row is None:
        return denied
    # The real service fails here whatever is asked.
    return refuse(f"the {stream} of a workflow's job is found under the job's own id: GET /jobs/<id>/{stream}")


def _own(ask: Ask, workflow: int) -> sqlite3.Row | None:
    row = ask.api.workflows.rows.get(workflow)
    return row if row is not None and row["user"] == ask.me.username else None


def _accessible(ask: Ask, workflow: int) -> tuple[sqlite3.Row | None, Answer]:
    row = ask.api.workflows.rows.get(workflow)
    if row is not None and row["user"] != ask.me.username:
        return None, refuse("Not authorized to access this workflow", 403)
    return row, refuse("Workflow does not exist")


def _query(ask: Ask) -> WorkflowQuery:
    """Read what a listing was asked for. `id` alone finds finished workflows as well."""
    every, completed, ids = ask.flag("all"), ask.flag("completed"), ask.wholes("id")
    return WorkflowQuery(
        user=ask.me.username,
        active=every or not completed or ids is not None,
        finished=every or completed or ids is not None,
        ids=ids,
        label=ask.constraint(),
        name=ask.args.get("name"),
        status=ask.args.get("status"),
        limit=-1 if every or ids is not None or not completed else ask.whole("num", 1),
    )


def _shown(ask: Ask, row: sqlite3.Row, detail: bool) -> dict[str, Any]:
    shown: dict[str, Any] = json.loads(row["body"]) if detail else {}
    shown.update(
        events=events(row),
        id=row["id"],
        name=row["name"],
        progress=ask.api.workflows.progress(row),
        status=row["status"],
    )
    if row["reason"]:
        shown["statusReason"] = row["reason"]
    return shown


def _delete(ask: Ask, ids: list[int]) -> Answer:
    found = [workflow for workflow in ids if _own(ask, workflow) is not None and ask.api.workflows.delete(workflow)]
    return jsonify({}) if found else refuse("No such workflow(s)")
