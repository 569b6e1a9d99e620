"""What a run needs to know of its job, read from the store once. Changes nothing."""

from __future__ import annotations

from typing import Any

from ..node.logs import JobLogs
from ..node.spec import CAFILE_INSIDE, JobSpec, walltime_of
from ..state.representations import parameter_texts
from .context import ServiceContext

_TOKEN_SECONDS = 7 * 86400  # that a job's token outlives its walltime


def read_spec(context: ServiceContext, job: int) -> JobSpec:
    """Read a stored job. Raises LookupError when there is none."""
    row = context.store.job(job)
    if row is None:
        raise LookupError(job)
    body, values = context.store.body(row), parameter_texts(row)
    seconds = _token_seconds(body)
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
    cafile = None if context.cafile is None else str(context.cafile)
    if cafile is not None:
        env["PROMINENCE_SSL_VERIFY"] = f"/tmp/{CAFILE_INSIDE}" if context.containers.mounts else cafile  # noqa: S108
    copied = cafile if context.containers.mounts else None
    if row["workflow"] is not None:
        env["PROMINENCE_WORKFLOW_ID"] = str(row["workflow"])
    logs = JobLogs(context.log_file(job, "out"), context.log_file(job, "err"), row["nodes"])
    memory = row["memory"] * row["nodes"] << 30
    return JobSpec(
        job, row["user"], row["place"], row["nodes"], values, body, env, logs, context.platform, memory, copied
    )  # fmt: skip


def has_good_token(context: ServiceContext, job: int) -> bool:
    """Return whether a job's token is good though it has expired: its job may have waited."""
    row = context.store.job(job)
    if row is None or row["ended"] is None:
        return row is not None
    return (
        row["started"] is not None and row["started"] + _token_seconds(context.store.body(row)) > context.clock.time()
    )


def _token_seconds(body: dict[str, Any]) -> float:
    return _TOKEN_SECONDS + walltime_of(body) * 60
