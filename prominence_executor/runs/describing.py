"""What the service says of one job, as far as it may be shown: without keys, payloads, signed addresses and values.

Pure. The run's key stands in the job's description, in an input; whoever has it could sign results.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..images.files import shown
from ..run.options import FUNCTION_LABEL
from .listing import job_info


def described(job: Mapping[str, Any]) -> dict[str, Any]:
    """Return the facts of a job that `ProminenceClient.describe_job` has described; nothing in it is secret.

    Of inputs the names and sizes, of outputs the same, of environment variables the names.
    """
    info = job_info(job)
    labels = {str(name): value for name, value in (job.get("labels") or {}).items()}
    execution = job.get("execution") or {}
    tasks = [_task(task, done) for task, done in _pairs(job.get("tasks") or (), execution.get("tasks") or ())]
    return {
        "id": info.id,
        "name": info.name,
        "status": info.status,
        "reason": info.reason,
        "run_id": info.run_id,
        "function": labels.get(FUNCTION_LABEL, info.function),
        "calls": info.calls or None,
        "attempt": info.attempt if info.calls else None,
        "created": info.created,
        "started": info.started,
        "ended": info.ended,
        "labels": labels,
        "resources": dict(job.get("resources") or {}),
        "policies": dict(job.get("policies") or {}),
        "site": execution.get("site"),
        "retries": execution.get("retries"),
        "tasks": tasks,
        "inputs": [_input(item) for item in job.get("inputs") or ()],
        "artifacts": [str(item.get("url", "")).partition("?")[0] for item in job.get("artifacts") or ()],
        "outputs": [_output(item) for kind in ("outputFiles", "outputDirs") for item in job.get(kind) or ()],
    }


def _pairs(tasks: Any, done: Any) -> list[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    reports = [*done, *({} for _ in tasks)]
    return list(zip(tasks, reports, strict=False))


def _task(task: Mapping[str, Any], done: Mapping[str, Any]) -> dict[str, Any]:
    facts = {
        "image": shown(str(task.get("image") or "")),
        "command": task.get("cmd"),
        "env": sorted(task.get("env") or {}),
        **{name: done[name] for name in ("exitCode", "retries", "wallTimeUsage", "cpuTimeUsage") if name in done},
        "maxMemoryUsageKB": done.get("maxResidentSetSizeKB"),
    }
    return {name: value for name, value in facts.items() if value not in (None, [], "")}


def _input(item: Mapping[str, Any]) -> str:
    size = len(item.get("content") or "") * 3 // 4  # in base64
    return f"{item.get('filename')} ({size} bytes)"


def _output(item: Any) -> str:
    if not isinstance(item, Mapping):
        return str(item)
    there = f"{item.get('size', 0)} bytes" if item.get("url") else "not there"
    return f"{item.get('name')} ({there})"
