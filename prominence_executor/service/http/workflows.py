"""/workflows: create, list, describe, end, repeat. Their jobs are found under /jobs."""

from __future__ import annotations

import json
import sqlite3
from typing import Any

from flask import Blueprint, Response, jsonify, request

from ..schema.files import check_mounts
from ..schema.task import check_words
from ..schema.workflow import check_member_objects, check_workflow, members
from ..state.representations import events
from ..state.workflow_rows import WorkflowQuery
from .context import BASE, api, constraint, flag, me, refuse, whole, wholes

Answer = Response | tuple[Response, int]

routes = Blueprint("workflows", __name__)


@routes.post(f"{BASE}/workflows")
def create_workflow() -> Answer:
    """Create a workflow and its first jobs."""
    body = request.get_json()
    check_workflow(body)
    for job in () if api.service.containers.mounts else body["jobs"]:
        check_mounts(job)
    for job in () if api.service.platform.splits_env else body["jobs"]:
        check_words(job)
    api.costs.create()
    for member in members(body).values():
        check_member_objects(member, api.uploaded)
    return jsonify({"id": api.workflows.create(me().username, body)}), 201


@routes.get(f"{BASE}/workflows")
def list_workflows() -> Answer:
    """List workflows, in short or in detail."""
    if request.args.get("status", "idle") not in ("idle", "running"):
        return jsonify({"error": "invalid status specified"})
    return jsonify([_shown(row, flag("detail")) for row in api.workflows.rows.select(_query())])


@routes.get(f"{BASE}/workflows/<int:workflow>")
def describe_workflow(workflow: int) -> Answer:
    """Describe a workflow."""
    row = _own(workflow)
    return jsonify([] if row is None else [_shown(row, True)])


@routes.delete(f"{BASE}/workflows/<int:workflow>")
def delete_workflow(workflow: int) -> Answer:
    """End a workflow and its jobs."""
    return _delete([workflow])


@routes.delete(f"{BASE}/workflows")
def delete_workflows() -> Answer:
    """End several workflows and their jobs."""
    ids = wholes("id")
    if ids is None:
        return refuse("a workflow id or list of workflow ids must be provided")
    return _delete(ids)


@routes.put(f"{BASE}/workflows/<int:workflow>")
def rerun_workflow(workflow: int) -> Answer:
    """Create a workflow of what a failed one did not complete."""
    row = _own(workflow)
    again = None if row is None else api.workflows.rerun(row)
    if again is None:
        return refuse("Unable to find re-run workflow as the original workflow is not in a suitable state")
    return jsonify({"id": again})


@routes.put(f"{BASE}/workflows/<int:workflow>/clone")
def clone_workflow(workflow: int) -> Answer:
    """Create a workflow of the same description."""
    row, denied = _accessible(workflow)
    if row is None:
        return denied
    return jsonify({"id": api.workflows.create(me().username, json.loads(row["body"]))}), 201


@routes.put(f"{BASE}/workflows/<int:workflow>/remove")
def remove_workflow(workflow: int) -> Answer:
    """Take an ended workflow out of the queue."""
    row, denied = _accessible(workflow)
    if row is None:
        return denied
    if not row["active"]:
        return refuse("Workflow is no longer in the queue")
    api.workflows.rows.set_removed(workflow)
    return jsonify({})


@routes.get(f"{BASE}/workflows/<int:workflow>/<job>/<any(stdout, stderr):stream>")
@routes.get(f"{BASE}/workflows/<int:workflow>/<job>/<int:instance>/<any(stdout, stderr):stream>")
def member_stream(workflow: int, job: str, stream: str, instance: int = -1) -> Answer:
    """Refuse what the real service cannot do either."""
    row, denied = _accessible(workflow)
    if row is None:
        return denied
    # The real service fails here whatever is asked.
    return refuse(f"the {stream} of a workflow's job is found under the job's own id: GET /jobs/<id>/{stream}")


def _own(workflow: int) -> sqlite3.Row | None:
    row = api.workflows.rows.get(workflow)
    return row if row is not None and row["user"] == me().username else None


def _accessible(workflow: int) -> tuple[sqlite3.Row | None, Answer]:
    row = api.workflows.rows.get(workflow)
    if row is not None and row["user"] != me().username:
        return None, refuse("Not authorized to access this workflow", 403)
    return row, refuse("Workflow does not exist")


def _query() -> WorkflowQuery:
    """Read what a listing was asked for. `id` alone finds finished workflows as well."""
    every, completed, ids = flag("all"), flag("completed"), wholes("id")
    return WorkflowQuery(
        user=me().username,
        active=every or not completed or ids is not None,
        finished=every or completed or ids is not None,
        ids=ids,
        label=constraint(),
        name=request.args.get("name"),
        status=request.args.get("status"),
        limit=-1 if every or ids is not None or not completed else whole("num", 1),
    )


def _shown(row: sqlite3.Row, detail: bool) -> dict[str, Any]:
    shown: dict[str, Any] = json.loads(row["body"]) if detail else {}
    shown.update(
        events=events(row), id=row["id"], name=row["name"], progress=api.workflows.progress(row), status=row["status"]
    )
    if row["reason"]:
        shown["statusReason"] = row["reason"]
    return shown


def _delete(ids: list[int]) -> Answer:
    found = [workflow for workflow in ids if _own(workflow) is not None and api.workflows.delete(workflow)]
    return jsonify({}) if found else refuse("No such workflow(s)")
