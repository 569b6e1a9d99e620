"""What a run knows of its job. Values only; who reads them from the store is not known here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..schema.bounds import MOST_MINUTES
from .logs import JobLogs
from .platform import Platform

DEFAULT_WALLTIME = 720  # minutes
CAFILE_INSIDE = "prominence-ca.pem"  # of containers, in /tmp


@dataclass(frozen=True)
class JobSpec:
    """A job as its run knows it; nothing of this changes while it runs."""

    job: int
    user: str
    place: str  # of its outputs
    nodes: int
    values: dict[str, str]  # the factory's parameters as text
    body: dict[str, Any]
    env: dict[str, str]  # PROMINENCE_* for the environment
    logs: JobLogs
    platform: Platform
    memory: int  # bytes that its tasks may use, on all of its nodes
    cafile: str | None = None  # the authority behind the service's certificate, that containers are given a copy of
    apart: bool = False  # whether its nodes are machines of their own
    on_node: tuple[str, ...] = ()  # what runs words on another one of these: {node} is its number, {cpus} what it has

    @property
    def policies(self) -> dict[str, Any]:
        """The policies of the description."""
        policies: dict[str, Any] = self.body.get("policies", {})
        return policies

    @property
    def walltime(self) -> float:
        """Minutes."""
        return walltime_of(self.body)


def walltime_of(body: dict[str, Any]) -> float:
    """Return a walltime in minutes that a clock can tell, whatever an earlier version has accepted."""
    return min(float(body["resources"].get("walltime", DEFAULT_WALLTIME)), MOST_MINUTES)
