"""What descriptions of jobs and workflows have in common: names, labels, policies, and how they are refused."""

from __future__ import annotations

import re
from typing import Any

from .bounds import LARGEST_ANSWER, LONGEST_TEXT, MOST_LABELS, MOST_MINUTES_IN_QUEUE, MOST_PRIORITY

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


def shown(value: object) -> str:
    """Return a value as a sentence can name it: cut where it is long."""
    text = str(value)
    return text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]}..."


def check_answer(size: int) -> None:
    """Refuse to list in detail what takes so many bytes, before it is read."""
    if size > LARGEST_ANSWER:
        raise Refused(f"the details of these are {size >> 20} MB: ask for fewer at a time")


def check_name(name: Any) -> None:
    """Refuse a job's name."""
    if not isinstance(name, str) or not re.fullmatch(r"[a-zA-Z0-9\-_ ./]*", name):
        raise Refused("invalid job name")
    if len(name) >= LONGEST_TEXT:
        raise Refused("job name must be less than 512 characters in length")


def check_labels(labels: Any) -> None:
    """Refuse labels."""
    if not isinstance(labels, dict):
        raise Refused("labels must be defined as a dict")
    if len(labels) > MOST_LABELS:
        raise Refused(f"there must be at most {MOST_LABELS} labels")
    for key, value in labels.items():
        if not re.fullmatch(r"[a-zA-Z0-9]+", key):
            raise Refused(f'label name "{shown(key)}" is invalid')
        if len(key) >= LONGEST_TEXT:
            raise Refused("label names must be less than 512 characters in length")
        if not isinstance(value, str) or not re.fullmatch(r"[\w./\-]+", value):
            raise Refused(f'label value "{shown(value)}" is invalid')
        if len(value) >= LONGEST_TEXT:
            raise Refused("label values must be less than 512 characters in length")


def check_policies(policies: Any) -> None:
    """Refuse policies."""
    if not isinstance(policies, dict):
        raise Refused("policies must be defined as a dict")
    for item, value in policies.items():
        if item not in POLICY_ITEMS:
            raise Refused(f'invalid item "{shown(item)}" in policies')
        if item in FLAGS and not isinstance(value, bool):
            raise Refused(f"{item} must be either true or false")
        if item not in FLAGS and (not isinstance(value, int) or isinstance(value, bool)):
            raise Refused(f"{item} must be an integer")
        if item in ("maximumRetries", "maximumTaskRetries"):
            if value < 1:
                raise Refused("the number of retries must be greater than 0")
            if value > 6:
                raise Refused("the number of retries must be less than 6")
        if item == "maximumTimeInQueue" and not -1 <= value <= MOST_MINUTES_IN_QUEUE:
            raise Refused(f"maximumTimeInQueue must be at least -1 and at most {MOST_MINUTES_IN_QUEUE} minutes")
        if item == "priority" and abs(value) > MOST_PRIORITY:
            raise Refused(f"priority must be at least -{MOST_PRIORITY} and at most {MOST_PRIORITY}")
