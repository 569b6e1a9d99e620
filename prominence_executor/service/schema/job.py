"""What a job description may contain, and the sentences that refuse it.

The sentences and their order are the service's own. Where it would answer with an HTML page, or accept something that
then breaks silently, there is a sentence of this service's own. Nothing here looks at stored state.
"""

from __future__ import annotations

from typing import Any

from .bounds import MOST_NOTIFICATIONS
from .document import check_parts
from .files import check_artifacts, check_inputs, check_outputs
from .items import Refused, check_labels, check_name, check_policies, shown
from .resources import check_resources
from .task import check_ranks, check_tasks

JOB_ITEMS = {
    "name", "labels", "tasks", "resources", "inputs", "artifacts", "outputFiles", "outputDirs", "policies",
    "notifications", "storage",
}  # fmt: skip


def check_job(job: Any) -> None:
    """Refuse a job description that cannot run. Names of uploaded objects are looked up by the caller."""
    check_parts(job)
    check_described(job)


def check_described(job: Any) -> None:
    """Refuse a job description, or one of a workflow, whose texts and depth are checked already."""
    if not isinstance(job, dict):
        # The service looks for the word "resources" in whatever it gets, a list too.
        raise Refused("a job must contain resources")
    for item in job:
        if item not in JOB_ITEMS:
            raise Refused(f'invalid item "{shown(item)}" in job description')
    check_name(job.get("name", ""))
    check_labels(job.get("labels", {}))
    if "resources" not in job:
        raise Refused("a job must contain resources")
    check_resources(job["resources"])
    if "tasks" not in job:
        raise Refused("a job must contain tasks")
    check_tasks(job["tasks"])
    check_ranks(job["tasks"], job["resources"])
    check_inputs(job.get("inputs", []))
    check_artifacts(job.get("artifacts", []))
    for item in ("outputFiles", "outputDirs"):
        check_outputs(item, job.get(item, []))
    check_policies(job.get("policies", {}))
    check_notifications(job.get("notifications", []))
    _check_storage(job)


def check_notifications(notifications: Any) -> None:
    """Refuse notifications that are none."""
    if not isinstance(notifications, list):
        raise Refused("an array of notifications must be provided")
    if len(notifications) > MOST_NOTIFICATIONS:
        raise Refused(f"a job may have at most {MOST_NOTIFICATIONS} notifications")
    for item in notifications:
        if not isinstance(item, dict):
            raise Refused("each notification must be defined as a dict")
        for key in item:
            if key not in ("event", "type"):
                raise Refused(f'invalid item "{shown(key)}" in notification')
        if item.get("event") != "jobFinished":
            raise Refused(f'invalid notification event "{shown(item.get("event", ""))}"')
        if item.get("type") != "email":
            raise Refused(f'invalid notification type "{shown(item.get("type", ""))}"')


def _check_storage(job: dict[str, Any]) -> None:
    if "storage" not in job:
        return
    if not isinstance(job["storage"], dict) or job["storage"].get("type") != "onedata":
        raise Refused("storage type must be onedata")
    raise Refused("storage cannot be mounted by this service")
