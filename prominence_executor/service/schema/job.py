"""What a job description may contain, and the sentences that refuse it.

The sentences and their order are the service's own. Where it would answer with an HTML page, or accept something that
then breaks silently, there is a sentence of this service's own. Nothing here looks at stored state.
"""

from __future__ import annotations

import json
from typing import Any

from .files import check_artifacts, check_inputs, check_outputs
from .items import Refused, check_labels, check_name, check_policies
from .resources import check_resources
from .task import check_tasks

JOB_ITEMS = {
    "name", "labels", "tasks", "resources", "inputs", "artifacts", "outputFiles", "outputDirs", "policies",
    "notifications", "storage",
}  # fmt: skip


def check_job(job: Any) -> None:
    """Refuse a job description that cannot run. Names of uploaded objects are looked up by the caller."""
    if not isinstance(job, dict):
        # The service looks for the word "resources" in whatever it gets, a list too.
        raise Refused("a job must contain resources")
    json.dumps(job, ensure_ascii=False).encode()  # half a surrogate pair fails here, not later in the worker
    for item in job:
        if item not in JOB_ITEMS:
            raise Refused(f'invalid item "{item}" in job description')
    check_name(job.get("name", ""))
    check_labels(job.get("labels", {}))
    if "resources" not in job:
        raise Refused("a job must contain resources")
    check_resources(job["resources"])
    if "tasks" not in job:
        raise Refused("a job must contain tasks")
    check_tasks(job["tasks"])
    check_inputs(job.get("inputs", []))
    check_artifacts(job.get("artifacts", []))
    for item in ("outputFiles", "outputDirs"):
        check_outputs(item, job.get(item, []))
    check_policies(job.get("policies", {}))
    _check_notifications(job.get("notifications", []))
    _check_storage(job)


def _check_notifications(notifications: Any) -> None:
    if not isinstance(notifications, list):
        raise Refused("an array of notifications must be provided")
    for item in notifications:
        if not isinstance(item, dict):
            raise Refused("each notification must be defined as a dict")
        if item.get("event") != "jobFinished":
            raise Refused(f'invalid notification event "{item.get("event", "")}"')
        if item.get("type") != "email":
            raise Refused(f'invalid notification type "{item.get("type", "")}"')


def _check_storage(job: dict[str, Any]) -> None:
    if "storage" not in job:
        return
    if not isinstance(job["storage"], dict) or job["storage"].get("type") != "onedata":
        raise Refused("storage type must be onedata")
    raise Refused("storage cannot be mounted by this service")
