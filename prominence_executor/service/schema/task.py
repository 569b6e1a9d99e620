"""What a task of a job may contain, and the sentences that refuse it."""

from __future__ import annotations

import math
import shlex
from typing import Any

from .bounds import (
    LONGEST_COMMAND,
    LONGEST_PATH,
    LONGEST_WORD,
    MOST_RANKS,
    MOST_SIDECARS,
    MOST_TASKS,
    MOST_VARIABLES,
)
from .items import Refused, is_whole, shown
from .words import split

TASK_ITEMS = {"image", "runtime", "cmd", "env", "workdir", "type", "procsPerNode", "stdout", "stderr"}
PARALLEL_TYPES = {"openmpi", "intelmpi", "mpich"}
_POINTER = 9  # bytes that the kernel needs for a word beside its own


def check_tasks(tasks: Any) -> None:
    """Refuse tasks that cannot run."""
    if not isinstance(tasks, list):
        raise Refused("an array of tasks must be provided")
    if len(tasks) > MOST_TASKS:
        raise Refused(f"a job may have at most {MOST_TASKS} tasks")
    for task in tasks:
        _check_task(task)
    sidecars = sum(task.get("type") == "sidecar" for task in tasks)
    if sidecars == len(tasks):
        raise Refused("a job cannot contain only sidecar tasks")
    if sidecars > MOST_SIDECARS:
        raise Refused(f"a job may have at most {MOST_SIDECARS} sidecar tasks")


def check_ranks(tasks: list[dict[str, Any]], resources: dict[str, Any]) -> None:
    """Refuse more processes of one MPI task than a machine can have; all nodes are this machine."""
    for task in tasks:
        each = task.get("procsPerNode", resources.get("cpus", 1))
        if task.get("type") in PARALLEL_TYPES and each * resources.get("nodes", 1) > MOST_RANKS:
            raise Refused(f"a task may have at most {MOST_RANKS} processes on all nodes")


def _check_task(task: Any) -> None:
    if not isinstance(task, dict):
        raise Refused("each task must be defined as a dict")
    for item in task:
        if item not in TASK_ITEMS:
            raise Refused(f'invalid item "{shown(item)}" in task')
    _check_image(task.get("image"))
    if "runtime" not in task:
        raise Refused("a container runtime must be defined")
    if task["runtime"] not in ("udocker", "singularity"):
        raise Refused("the container runtime must be either udocker or singularity")
    if not isinstance(task.get("cmd", ""), str):
        raise Refused("cmd must be a string")
    size = _checked_command(task.get("cmd", "")) + _checked_env(task.get("env", {}))
    if size > LONGEST_COMMAND:
        raise Refused(f"cmd and env of a task must be at most {LONGEST_COMMAND} bytes in length together")
    for item in ("workdir", "stdout", "stderr"):
        _check_path(item, task.get(item, ""))
    kind = task.get("type", "basic")
    if kind not in ("basic", "sidecar", *PARALLEL_TYPES):
        raise Refused("invalid task type")
    processes = task.get("procsPerNode", 1)
    if not is_whole(processes) or processes < 1:
        raise Refused("number of processes per node must be an integer of at least 1")


def _check_image(image: Any) -> None:
    if not isinstance(image, str) or not image.strip():
        raise Refused("each task must specify a container image")
    if len(image.encode()) > LONGEST_PATH or "\0" in image:
        raise Refused(f"the name of a container image must be at most {LONGEST_PATH} bytes in length")


def _check_path(item: str, path: Any) -> None:
    if not isinstance(path, str) or "\0" in path:
        raise Refused(f"{item} must be a string")
    if len(path.encode()) >= LONGEST_PATH:
        raise Refused(f"{item} must be less than {LONGEST_PATH} bytes in length")


def _checked_env(env: Any) -> int:
    """Return how many bytes variables take."""
    if not isinstance(env, dict):
        raise Refused("environment variables must be defined as a dict")
    if len(env) > MOST_VARIABLES:
        raise Refused(f"a task may have at most {MOST_VARIABLES} environment variables")
    size = 0
    for name, value in env.items():
        bad = not name or "=" in name or "\0" in name or not isinstance(value, (str, int, float))
        if bad or "\0" in str(value) or (isinstance(value, float) and not math.isfinite(value)):
            raise Refused(f'environment variable "{shown(name)}" is invalid')
        length = len(f"{name}={value}".encode())
        if length >= LONGEST_WORD:
            raise Refused(f'environment variable "{shown(name)}" must be less than {LONGEST_WORD} bytes in length')
        size += length + _POINTER
    return size


def _checked_command(command: str) -> int:
    """Return how many bytes words take. Refuses what the real service accepts, whose worker then crashes silently."""
    if "\0" in command:
        raise Refused("cmd must not contain null characters")
    try:
        words = split(command.replace("\n", " "))
    except ValueError as error:
        raise Refused(f"cmd cannot be split into words: {str(error).lower()}") from error
    lengths = [len(word.encode()) for word in words]
    if any(length >= LONGEST_WORD for length in lengths):
        raise Refused(f"a word of cmd must be less than {LONGEST_WORD} bytes in length")
    return sum(lengths) + _POINTER * len(lengths)


def check_words(body: Any) -> None:
    """Refuse values of a task's environment that would arrive altered under udocker, or break its command line.

    That is split by shlex, so that a value with quotes, backslashes or white space is to be quoted for it.
    """
    for task in body["tasks"]:
        for name, value in task.get("env", {}).items() if task["runtime"] == "udocker" else ():
            try:
                words = split(f"{name}={value}")
            except ValueError:
                words = []
            arrived = words[0].removeprefix(f"{name}=") if len(words) == 1 else None
            if arrived is None or str(value) not in (arrived, shlex.quote(arrived)):
                raise Refused(f'environment variable "{name}" must be quoted as for a shell: the runtime is udocker')
