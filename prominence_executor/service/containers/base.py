"""How the tasks of one run become processes: as they are, or inside containers.

A TaskRunner is one run's view of this: it has an image ready before a task, and names the command that starts the
task's words. It starts no task itself. Here stand the interface and plain processes; images, udocker and apptainer have
rooms of their own.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ..sandbox.sandbox import Sandbox

# The variables by which a batch system says which of a node's accelerators are a job's: without them it takes all.
NVIDIA, AMD = "CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"
DEVICES = (NVIDIA, AMD, "GPU_DEVICE_ORDINAL", "ZE_AFFINITY_MASK")

Env = dict[str, str]  # the variables of a task's environment, in addition to those of its runtime
Stopped = Callable[[], bool]  # whether the run was ended from outside


class PullFailed(Exception):
    """An image could not be had, or its runtime is not here; the text is for the job's log."""


class Unstartable(Exception):
    """A task's words cannot be started; the text is what a container's runtime would say."""


@dataclass(frozen=True)
class Command:
    """What starts a process on this machine."""

    argv: list[str]
    cwd: Path
    env: dict[str, str]


class TaskRunner(Protocol):
    """What one run's tasks are started by."""

    def versions(self) -> dict[str, str]:
        """Return the runtimes of this run's tasks that are here, and their versions."""

    def pull(self, number: int, entry: dict[str, Any]) -> None:
        """Have the image of a task ready, and note in its entry how that went. Blocks. Raises PullFailed."""

    def command(self, number: int, words: list[str], env: Env) -> Command:
        """Return what runs the words of a task, whose image is ready. Raises Unstartable."""

    def beside(self, words: list[str], env: Env) -> Command | None:
        """Return what runs words next to the run's tasks, or None when nothing could."""

    def close(self) -> None:
        """End it after the run's last task."""


class Containers(Protocol):
    """How all jobs of one service run their tasks."""

    mounts: bool  # whether artifacts can be mounted anywhere

    def task_runner(self, sandbox: Sandbox, user: str, tasks: list[dict[str, Any]], stopped: Stopped) -> TaskRunner:
        """Return what starts the tasks of one run; `stopped` says whether the run was ended from outside."""


class PlainProcesses:
    """Images are names only, and tasks are plain processes of this machine."""

    mounts = False

    def task_runner(self, sandbox: Sandbox, user: str, tasks: list[dict[str, Any]], stopped: Stopped) -> TaskRunner:
        """Return what starts the tasks of one run as plain processes."""
        return _PlainTaskRunner(sandbox, tasks)


class _PlainTaskRunner:
    def __init__(self, sandbox: Sandbox, tasks: list[dict[str, Any]]) -> None:
        self._sandbox, self._tasks = sandbox, tasks
        self._images: set[str] = set()

    def versions(self) -> dict[str, str]:
        return {"process": _system()}

    def pull(self, number: int, entry: dict[str, Any]) -> None:
        """Pull nothing, and say so as the service's worker says it."""
        image = self._tasks[number]["image"]
        if image in self._images:
            entry["imagePullStatus"] = "cached"
        else:
            entry.update(imagePullStatus="completed", imagePullTime=0.0)
        self._images.add(image)

    def command(self, number: int, words: list[str], env: Env) -> Command:
        whole = self._sandbox.environment(env)
        cwd, shown = self._sandbox.home, self._tasks[number].get("workdir", "")
        if shown:
            cwd = self._sandbox.inside(shown)
            if not cwd.is_dir():
                shown = shown if shown.startswith("/") else f"/home/user/{shown}"
                raise Unstartable(f"failed to set working directory: chdir {shown}: no such file or directory")
        command = Command(self._sandbox.argv(words), cwd, whole)
        if not _found(command):
            raise Unstartable(f'"{command.argv[0]}": executable file not found in $PATH')
        return command

    def beside(self, words: list[str], env: Env) -> Command | None:
        command = Command(self._sandbox.argv(words), self._sandbox.home, self._sandbox.environment(env))
        return command if _found(command) else None

    def close(self) -> None:
        """Do nothing: nothing stays open."""


def _system() -> str:
    """Return this machine's system as `platform.platform` does, which takes longer than all else here."""
    here = os.uname()
    try:
        library = (os.confstr("CS_GNU_LIBC_VERSION") or "").replace(" ", "")
    except (ValueError, OSError):
        library = ""
    return "-".join([here.sysname, here.release, here.machine, *(["with", library] if library else [])])


def _found(command: Command) -> bool:
    """Return whether the program is there to be executed: on PATH, or below the working directory if it has a slash."""
    program = command.argv[0]
    path = str(command.cwd / program) if "/" in program else program
    return shutil.which(path, path=command.env.get("PATH")) is not None
