"""How the real platform behaves beyond what its API says: settings of this service, all of them off by default.

They are for measuring and testing what is to run there: how long things take, and what goes wrong. `Platform.measured`
has the figures of a pool of eight slots on two cores (HTCondor 23.9, DAGMan). Values only; who heeds one of them is
named beside it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True)
class Platform:
    """What is as on the real platform."""

    # http/costs.py
    create_seconds: float = 0.0
    """That the request which creates a job takes."""
    detail_seconds: float = 0.0
    """That each output of a job costs which is described in detail: its URL is signed."""
    requests_at_once: int = 3
    """Such requests that the service works on at once; others wait."""
    # node/job_run.py, engines/, execution/scheduler.py
    job_seconds: float = 0.0
    """For which a job is running before its first task begins."""
    memory_enforced: bool = False
    """Whether a job is killed that uses more memory than it asked for."""
    young_seconds: float = 0.0
    """In which a running job may not be deleted, or its slot stays blocked."""
    blocked_seconds: float = 600.0
    """For which it does."""
    hold_every: int = 0
    """Hold each job whose id is a multiple of this before it starts; 0 holds none."""
    held_seconds: float = 30.0
    """After which it is released."""
    # execution/pace.py
    workflow_pace: float = 0.0
    """Jobs a second that one workflow makes; 0 makes all at once."""
    workflow_starts: float = 3.5
    """Seconds until it makes the first one."""
    workflow_idle: int = 20
    """Jobs of it that may be idle; it makes no more until one starts."""
    # schema/task.py
    splits_env: bool = False
    """Whether a task's environment is accepted as it is under udocker, whose command line is split by shlex: a value
    with quotes or backslashes arrives altered, one with white space breaks the task, an unbalanced quote the job."""
    # http/jobs.py
    without_sshd: bool = False
    """Whether nothing can look into running jobs: exec and snapshots need an sshd in the workers' image."""

    # http/preferences.py
    without_waiting: bool = False
    """Whether no request can wait for a change: all are answered at once, whatever they prefer."""
    # http/app.py
    answer_seconds: float = 0.0
    """That each answer comes later: a network, or a service that has more to do."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not math.isfinite(value) or value < 0:
                raise ValueError(f"{field.name} must be a number of at least 0, not {value!r}")
        if self.requests_at_once < 1 or self.workflow_idle < 1:
            raise ValueError("requests_at_once and workflow_idle must be at least 1")

    @classmethod
    def measured(cls, changes: str = "") -> Platform:
        """Return the real platform's figures, but for changes such as ``detail_seconds=0.24,hold_every=10``.

        Raises:
            ValueError: a name or a value in them makes no sense.
        """
        values: dict[str, float] = {
            "create_seconds": 0.4, "detail_seconds": 0.025, "job_seconds": 0.6, "memory_enforced": True,
            "young_seconds": 2.0, "workflow_pace": 2.0, "splits_env": True, "without_sshd": True,
            "without_waiting": True,
        }  # fmt: skip
        kinds: dict[str, Any] = {field.name: type(field.default) for field in fields(cls)}
        for change in filter(None, changes.split(",")):
            name, _, text = change.partition("=")
            if name not in kinds:
                raise ValueError(f"{name!r} is no setting of the platform; there are {', '.join(kinds)}")
            kind = kinds[name]
            try:
                values[name] = {"true": True, "false": False}[text.lower()] if kind is bool else kind(text)
            except (KeyError, ValueError):
                raise ValueError(f"{name}={text} is not {'true or false' if kind is bool else 'a number'}") from None
        return cls(**values)  # type: ignore[arg-type]
