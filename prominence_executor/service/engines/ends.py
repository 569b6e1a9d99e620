"""Why a job ended that did not say so itself, in the words of the service. Pure."""

from __future__ import annotations

from ..node.outcome import OVER_MEMORY, OVER_WALLTIME, Outcome
from .system import Gone

WALLTIME, MEMORY, CANCELLED, NODE, PREEMPTED = "walltime", "memory", "cancelled", "node", "preempted"
NO_DIRECTORY, NO_PYTHON, NO_PROGRAM = "no directory", "no python", "no program"
CAUSES = (WALLTIME, MEMORY, CANCELLED, NODE, PREEMPTED, NO_DIRECTORY, NO_PYTHON, NO_PROGRAM)

_SHARE = "the environment that starts the service must lie on a file system that all nodes share"


def outcome_of(gone: Gone, directory: str, python: str, program: str) -> Outcome:
    """Return the outcome of a job that is gone and has left none."""
    where = f" ({gone.detail})" if gone.detail else ""
    return {
        WALLTIME: Outcome("killed", OVER_WALLTIME),
        MEMORY: Outcome("killed", OVER_MEMORY),
        CANCELLED: Outcome("deleted", f"Job was cancelled on the cluster{where}"),
        NODE: Outcome("failed", f"Job was evicted: its node failed{where}"),
        PREEMPTED: Outcome("failed", f"Job was evicted: it was preempted{where}"),
        NO_DIRECTORY: Outcome("failed", f"The node does not see the service's directory {directory}{where}: "
                              "it must lie on a file system that all nodes share"),
        NO_PYTHON: Outcome("failed", f"The node does not see the service's Python {python}{where}: {_SHARE}"),
        NO_PROGRAM: Outcome("failed", f"The node does not see the service's program {program}{where}: {_SHARE}"),
    }.get(gone.cause) or Outcome("failed", f"Job ended on the cluster without an outcome{where}: "
                                         f"{directory}/engine/log may say why")  # fmt: skip
