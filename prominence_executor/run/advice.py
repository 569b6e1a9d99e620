"""What the error of a call says that had too little of something: what it had asked for, and used, and what to change.

Pure: no HTTP, no threads. What was used the service tells in a job's detailed description, if it does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..client.model import Resources
from ..errors import OutOfMemoryError, WalltimeExceededError
from .retry import Retries, Retry, most


def advice(
    error: BaseException, resources: Resources, retries: Retries, attempt: int, job: Mapping[str, Any] | None
) -> str:
    """Return sentences for the error of a call's last attempt; nothing for what more of something does not help.

    Args:
        attempt: its number.
        job: its description, in detail if there is one.
    """
    wire, task = resources.json(), _last_task(job)
    if isinstance(error, OutOfMemoryError):
        name = "memory" if "memory" in wire else "memory_per_cpu"
        asked = int(wire.get("memory") or wire["memoryPerCpu"])
        kilobytes = _number(task.get("maxResidentSetSizeKB"))
        used = f"{kilobytes * 1024 / 1e9:.1f} GB were in use at once" if kilobytes else ""
        bound = retries.max_memory if isinstance(retries, Retry) else None
        return _sentences(name, asked, "GB", used, bound, retries, attempt, 2 * asked)
    if isinstance(error, WalltimeExceededError):
        asked = int(wire["walltime"])
        seconds = task_seconds(job)
        used = f"its task took {seconds / 60:.1f} minutes" if seconds else ""
        bound = retries.max_walltime if isinstance(retries, Retry) else None
        return _sentences("walltime", asked, _minutes(asked), used, bound, retries, attempt, asked + (asked + 1) // 2)
    return ""


def _sentences(
    name: str, asked: int, unit: str, used: str, bound: int | None, retries: Retries, attempt: int, more: int
) -> str:
    times = f", in attempt {attempt}" if attempt > 1 else ""
    said = f"It had asked for {name}={asked} ({unit}){times}" + (
        f"; as far as the service tells, {used}" if used else ""
    )
    if bound is not None and asked >= bound:
        return f"{said}. Its Retry allows no more: raise max_{name.partition('_')[0]}, or let the call need less."
    if isinstance(retries, Retry) and attempt > most(retries):
        return f"{said}. Ask for more from the start, resources=Resources({name}={more}), or raise max_retries."
    return f"{said}. Ask for more, resources=Resources({name}={more}), or let further attempts do so, retries=Retry()."


def _minutes(number: int) -> str:
    return "minute" if number == 1 else "minutes"


def task_seconds(job: Mapping[str, Any] | None) -> float | None:
    """Return for how long the task of a job ran, if the service tells."""
    return _number(_last_task(job).get("wallTimeUsage"))


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) else None


def _last_task(job: Mapping[str, Any] | None) -> Mapping[str, Any]:
    tasks = ((job or {}).get("execution") or {}).get("tasks") or [{}]
    return tasks[-1] if isinstance(tasks[-1], dict) else {}
