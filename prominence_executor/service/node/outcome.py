"""How a run went, and what follows from that: pure functions and the sentences that tell a job's end."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

RESTARTED = "The service was restarted while the job was running"
DELETED = "Job deleted by user"
DELETED_WITH_WORKFLOW = "Job part of a workflow which was deleted by user"
WORKFLOW_DELETED = "Workflow deleted by user"
OVER_WALLTIME = "Walltime limit exceeded"
OVER_MEMORY = "Job used too much memory"
OVER_QUEUE_TIME = "Maximum time queued was exceeded"
NO_ARTIFACT = "Artifact download failed"
NO_IMAGE = "Container image pull failed"
WAITS = "idle"  # the status of a run that could not begin


@dataclass
class Outcome:
    """What a run leaves: the status and reason of its job if nobody ended that before, and what was measured."""

    status: str
    reason: str | None = None
    execution: dict[str, Any] = field(default_factory=dict)
    uploaded: dict[str, dict[str, int]] = field(default_factory=dict)
    task_failed: bool = False


def forgiven(policies: dict[str, Any]) -> bool:
    """Return whether a task may fail without its job counting as failed."""
    return bool(policies.get("ignoreTaskFailures") or policies.get("reportJobSuccessOnTaskFailure"))


def succeeded(outcome: Outcome, policies: dict[str, Any]) -> bool:
    """Return whether all went well, which is more than the status `completed`: what depends on the job may start."""
    return outcome.status == "completed" and (not outcome.task_failed or forgiven(policies))


def runs_again(outcome: Outcome, policies: dict[str, Any], retries: int) -> bool:
    """Return whether a job that was repeated so often is run once more."""
    failed = outcome.status == "completed" and outcome.task_failed and not forgiven(policies)
    return failed and retries < int(policies.get("maximumRetries", 0))
