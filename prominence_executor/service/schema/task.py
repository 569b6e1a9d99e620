"""What a task of a job may contain, and the sentences that refuse it."""

from __future__ import annotations

import shlex
from typing import Any

from .items import Refused, is_whole

TASK_ITEMS = {"image", "runtime", "cmd", "env", "workdir", "type", "procsPerNode", "stdout", "stderr"}
PARALLEL_TYPES = {"openmpi", "intelmpi", "mpich"}
LONGEST_WORD = 128 * 1024  # the kernel's limit for one argument (MAX_ARG_STRLEN)


def check_tasks(tasks: Any) -> None:
    """Refuse tasks that cannot run."""
    if not isinstance(tasks, list):
        raise Refused("an array of tasks must be provided")
    for task in tasks:
        _check_task(task)
    if all(task.get("type") == "sidecar" for task in tasks):
        raise Refused("a job cannot contain only sidecar tasks")


def _check_task(task: Any) -> None:
    if not isinstance(task, dict):
        raise Refused("each task must be defined as a dict")
    for item in task:
        if item not in TASK_ITEMS:
            raise Refused(f'invalid item "{item}" in task')
    if not isinstance(task.get("image"), str) or not task["image"].strip():
        raise Refused("each task must specify a container image")
    if "runtime" not in task:
        raise Refused("a container runtime must be defined")
    if task["runtime"] not in ("udocker", "singularity"):
        raise Refused("the container runtime must be either udocker or singularity")
    if not isinstance(task.get("cmd", ""), str):
        raise Refused("cmd must be a string")
    _check_command(task.get("cmd", ""))
    _check_env(task.get("env", {}))
    for item in ("workdir", "stdout", "stderr"):
        if not isinstance(task.get(item, ""), str) or "\0" in task.get(item, ""):
            raise Refused(f"{item} must be a string")
    kind = task.get("type", "basic")
    if kind not in ("basic", "sidecar", *PARALLEL_TYPES):
        raise Refused("invalid task type")
    if "procsPerNode" in task and (not is_whole(task["procsPerNode"]) or task["procsPerNode"] < 1):
        raise Refused("number of processes per node must be an integer of at least 1")


def _check_env(env: Any) -> None:
    if not isinstance(env, dict):
        raise Refused("environment variables must be defined as a dict")
    for name, value in env.items():
        if not name or "=" in name or "\0" in name or not isinstance(value, (str, int, float)) or "\0" in str(value):
            raise Refused(f'environment variable "{name}" is invalid')


def _check_command(command: str) -> None:
    """Refuse what the real service accepts, whose worker then crashes silently."""
    if "\0" in command:
        raise Refused("cmd must not contain null characters")
    try:
        words = shlex.split(command.replace("\n", " "))
    except ValueError as error:
        raise Refused(f"cmd cannot be split into words: {str(error).lower()}") from error
    if any(len(word.encode()) >= LONGEST_WORD for word in words):
        raise Refused("a word of cmd must be less than 131072 bytes in length")


def check_words(body: Any) -> None:
    """Refuse values of a task's environment that would arrive altered under udocker, or break its command line.

    That is split by shlex, so that a value with quotes, backslashes or white space is to be quoted for it.
    """
    for task in body["tasks"]:
        for name, value in task.get("env", {}).items() if task["runtime"] == "udocker" else ():
            try:
                words = shlex.split(f"{name}={value}")
            except ValueError:
                words = []
            arrived = words[0].removeprefix(f"{name}=") if len(words) == 1 else None
            if arrived is None or str(value) not in (arrived, shlex.quote(arrived)):
                raise Refused(f'environment variable "{name}" must be quoted as for a shell: the runtime is udocker')
