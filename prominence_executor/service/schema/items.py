"""What descriptions of jobs and workflows have in common: names, labels, policies, and how they are refused."""

from __future__ import annotations

import re
from typing import Any

POLICY_ITEMS = {
    "maximumRetries", "maximumTaskRetries", "maximumTimeInQueue", "leaveInQueue", "priority", "preemptible",
    "ignoreTaskFailures", "reportJobSuccessOnTaskFailure", "runSerialTasksOnAllNodes",
}  # fmt: skip
FLAGS = {"leaveInQueue", "preemptible", "ignoreTaskFailures", "reportJobSuccessOnTaskFailure",
         "runSerialTasksOnAllNodes"}  # fmt: skip


class Refused(ValueError):
    """A description that the service does not accept; the message is its sentence."""


def is_whole(value: object) -> bool:
    """Return whether a value is an integer of at least 0."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def check_name(name: Any) -> None:
    """Refuse a job's name."""
    if not isinstance(name, str) or not re.fullmatch(r"[a-zA-Z0-9\-_ ./]*", name):
        raise Refused("invalid job name")
    if len(name) >= 512:
        raise Refused("job name must be less than 512 characters in length")


def check_labels(labels: Any) -> None:
    """Refuse labels."""
    if not isinstance(labels, dict):
        raise Refused("labels must be defined as a dict")
    for key, value in labels.items():
        if not re.fullmatch(r"[a-zA-Z0-9]+", key):
            raise Refused(f'label name "{key}" is invalid')
        if not isinstance(value, str) or not re.fullmatch(r"[\w./\-]+", value):
            raise Refused(f'label value "{value}" is invalid')
        if len(value) >= 512:
            raise Refused("label values must be less than 512 characters in length")


def check_policies(policies: Any) -> None:
    """Refuse policies."""
    if not isinstance(policies, dict):
        raise Refused("policies must be defined as a dict")
    for item, value in policies.items():
        if item not in POLICY_ITEMS:
            raise Refused(f'invalid item "{item}" in policies')
        if item in FLAGS and not isinstance(value, bool):
            raise Refused(f"{item} must be either true or false")
        if item not in FLAGS and (not isinstance(value, int) or isinstance(value, bool)):
            raise Refused(f"{item} must be an integer")
        if item in ("maximumRetries", "maximumTaskRetries"):
            if value < 1:
                raise Refused("the number of retries must be greater than 0")
            if value > 6:
                raise Refused("the number of retries must be less than 6")
