"""Real containers: a task's `runtime` decides which program runs it, and its image is had first.

The runtimes (udocker, apptainer) have rooms of their own; here is what they share: which runtime, one pull for many
jobs, and what a task sees whatever runs it.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

from ..sandbox import processes
from ..sandbox.sandbox import Sandbox
from ..state.directory import own_directory
from ..state.objects import ObjectStore
from .apptainer import Apptainer
from .base import Command, Env, PullFailed, Stopped, TaskRunner
from .images import Images
from .runtime import Container, Runtime, variables
from .udocker import Udocker


class ContainerRuntimes:
    """The containers of one service, whose images and unpacked images lie below its directory.

    shared: other processes, on other machines, have those in common with this one.
    """

    mounts = True

    def __init__(self, directory: Path, objects: ObjectStore, *, shared: bool = False) -> None:
        if ":" in str(directory):  # which separates paths on every runtime's command line
            raise ValueError(f"the path of the directory {directory} must not contain a colon, for containers' sake")
        locks = own_directory(directory / "locks") if shared else None
        self._images = Images(directory / "images", objects, locks)
        self._runtimes: dict[str, Runtime] = {
            "udocker": Udocker(directory / "udocker", locks),
            "singularity": Apptainer(directory / "apptainer", locks),
        }

    def task_runner(self, sandbox: Sandbox, user: str, tasks: list[dict[str, Any]], stopped: Stopped) -> TaskRunner:
        """Return what starts the tasks of one run in containers."""
        sandbox.mounts = []
        return _ContainerTaskRunner(self._images, self._runtimes, sandbox, user, tasks, stopped)


class _ContainerTaskRunner:
    """The run's thread pulls and closes; others may ask for a command beside. `_lock` guards the containers."""

    def __init__(
        self,
        images: Images,
        runtimes: dict[str, Runtime],
        sandbox: Sandbox,
        user: str,
        tasks: list[dict[str, Any]],
        stopped: Stopped,
    ) -> None:
        self._images, self._runtimes, self._sandbox = images, runtimes, sandbox
        self._user, self._tasks, self._stopped = user, tasks, stopped
        self._lock = threading.Lock()
        self._containers: dict[tuple[str, str], Container] = {}  # by runtime and image: tasks of one job share one

    def versions(self) -> dict[str, str]:
        names = dict.fromkeys(task["runtime"] for task in self._tasks)
        return {name: version for name in names if (version := self._runtimes[name].version()) is not None}

    def pull(self, number: int, entry: dict[str, Any]) -> None:
        task = self._tasks[number]
        key = task["runtime"], task["image"]
        if key in self._containers:
            entry["imagePullStatus"] = "cached"
            return
        began, entry["imagePullStatus"] = time.monotonic(), "failed"
        try:
            container = self._pulled(*key, entry)
            with self._lock:
                self._containers[key] = container
            entry["imagePullStatus"] = "completed"
        finally:
            entry["imagePullTime"] = time.monotonic() - began

    def _pulled(self, runtime_name: str, name: str, entry: dict[str, Any]) -> Container:
        runtime = self._runtimes[runtime_name]
        if runtime.version() is None:
            raise PullFailed(f"the runtime {runtime_name} is not installed here: {runtime.hint}")
        image = self._images.get(name, self._user, self._stopped)
        if image.sha256 is not None:
            entry["imageSha256"] = image.sha256
        prepared = runtime.prepare(image, self._sandbox.mark, self._stopped)
        return runtime.container(prepared, self._sandbox, self._stopped)

    def command(self, number: int, words: list[str], env: Env) -> Command:
        task = self._tasks[number]
        return self._start(self._containers[task["runtime"], task["image"]], words, env, task.get("workdir", ""))

    def beside(self, words: list[str], env: Env) -> Command | None:
        with self._lock:
            containers = list(self._containers.values())
        return self._start(containers[0], words, env, "") if containers else None

    def close(self) -> None:
        for container in self._containers.values():
            container.close()

    def _start(self, container: Container, words: list[str], env: Env, workdir: str) -> Command:
        seen = {"TEMP": "/tmp", "TMP": "/tmp", "TMPDIR": "/tmp", "USER": "user"}  # noqa: S108
        seen |= variables(self._sandbox)
        cwd = workdir if workdir.startswith("/") else f"/home/user/{workdir}".rstrip("/")
        return container.command(words, {**seen, **env, processes.MARK: self._sandbox.mark}, cwd)
