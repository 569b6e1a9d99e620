"""What a run needs to know of its job, read from the store once. Changes nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..schema.bounds import MOST_MINUTES
from ..state.representations import parameter_texts
from .context import ServiceContext
from .logs import JobLogs
from .platform import Platform

DEFAULT_WALLTIME = 720  # minutes
_TOKEN_SECONDS = 7 * 86400  # that a job's token outlives its walltime


@dataclass(frozen=True)
class JobSpec:
    """A job as its run knows it; nothing of this changes while it runs."""

    job: int
    user: str
    place: str  # of its outputs
    nodes: int  # all of them this machine
    values: dict[str, str]  # the factory's parameters as text
    body: dict[str, Any]
    env: dict[str, str]  # PROMINENCE_* for the environment
    logs: JobLogs
    platform: Platform
    memory: int  # bytes that its tasks may use, on all of its nodes

    @property
    def policies(self) -> dict[str, Any]:
        """The policies of the description."""
        policies: dict[str, Any] = self.body.get("policies", {})
        return policies

    @property
    def walltime(self) -> float:
        """Minutes."""
        return _minutes(self.body)


def _minutes(body: dict[str, Any]) -> float:
    """Return a walltime that a clock can tell, whatever an earlier version has accepted."""
    return min(float(body["resources"].get("walltime", DEFAULT_WALLTIME)), MOST_MINUTES)


def read_spec(context: ServiceContext, job: int) -> JobSpec:
    """Read a stored job. Raises LookupError when there is none."""
    row = context.store.job(job)
    if row is None:
        raise LookupError(job)
    body, values = context.store.body(row), parameter_texts(row)
    seconds = _TOKEN_SECONDS + _minutes(body) * 60
    env = {
        "PROMINENCE_URL": context.url_for_jobs,
        "PROMINENCE_TOKEN": context.signer.token(row["user"], seconds, job=job),
        "PROMINENCE_JOB_ID": str(job),
        "PROMINENCE_CPUS": str(row["cpus"]),
        "PROMINENCE_MEMORY": str(row["memory"]),
        "PROMINENCE_NODES": str(row["nodes"]),
        "PROMINENCE_NODE_NUM": "0",
        **{f"PROMINENCE_PARAMETER_{name}": value for name, value in values.items()},
    }
    if context.cafile is not None and not context.containers.mounts:  # a container does not see it
        env["PROMINENCE_SSL_VERIFY"] = str(context.cafile)
    if row["workflow"] is not None:
        env["PROMINENCE_WORKFLOW_ID"] = str(row["workflow"])
    logs = JobLogs(context.log_file(job, "out"), context.log_file(job, "err"), row["nodes"])
    memory = row["memory"] * row["nodes"] << 30
    return JobSpec(job, row["user"], row["place"], row["nodes"], values, body, env, logs, context.platform, memory)
