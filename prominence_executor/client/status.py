"""What the service's status words mean: whether a job or workflow has ended, or is merely held.

Pure functions of what a list or a description says.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ENDED = frozenset({"completed", "failed", "killed", "deleted"})
"""The status words after which nothing happens any more, but see `is_held`. Any other word counts as not ended."""


def is_held(described: Mapping[str, Any]) -> bool:
    """Return whether a job or workflow, as a list or a description has it, is held: ``failed``, but without an end.

    It is still in the queue, and when it is released it runs and completes. So ``failed`` without an ``endTime`` is a
    question; one that is not among the active ones any more has ended all the same. The other words are an end without
    that: a job that was deleted while it ran has none at first.
    """
    return described.get("status") == "failed" and (described.get("events") or {}).get("endTime") is None


def has_ended(described: Mapping[str, Any]) -> bool:
    """Return whether a job or workflow, as a list or a description has it, has ended."""
    return described.get("status") in ENDED and not is_held(described)
