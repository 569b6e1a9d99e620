"""The tasks of one run: sidecars, then the others in sequence, each as often and on as many nodes as its job says.

Knows neither where files come from nor what becomes of the job.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from ..containers.base import Command, TaskRunner, Unstartable
from ..sandbox import processes
from ..sandbox.sandbox import Sandbox
from ..schema.parameters import substituted
from ..schema.words import split
from .job_processes import JobProcesses, RunStopped
from .logs import copy_into
from .mpi import nodes_of, with_mpirun
from .spec import JobSpec

_NO_COMMAND = b"There is no runscript defined for this container\n\n"


class WorkerCrashed(Exception):
    """The platform's own program came to grief over what it was given, and says nothing."""


class Tasks:
    """Runs in the thread of its job; the job's processes may be stopped from any."""

    def __init__(
        self,
        spec: JobSpec,
        sandbox: Sandbox,
        runner: TaskRunner,
        started: JobProcesses,
        logs: list[tuple[int, int]],
    ) -> None:
        self._spec, self._sandbox, self._runner = spec, sandbox, runner
        self._processes, self._logs = started, logs

    @contextmanager
    def sidecars(self) -> Iterator[None]:
        """Start the sidecars, and end them afterwards. Raises PullFailed and RunStopped."""
        started: list[subprocess.Popen[bytes]] = []
        try:
            for number, task in enumerate(self._spec.body["tasks"]):
                if task.get("type") == "sidecar":
                    self._runner.pull(number, {})
                    process = self._start(number, task)
                    if not isinstance(process, int):
                        started.append(process)
            yield
        finally:
            for process in started:
                processes.kill_group(process.pid)
                self._processes.reap(process)

    def run(self, entries: list[dict[str, Any]]) -> bool:
        """Run the tasks until one fails, and note in an entry each how it went; whether one failed.

        Raises PullFailed and RunStopped.
        """
        policies = self._spec.policies
        for number, task in enumerate(self._spec.body["tasks"]):
            if task.get("type") == "sidecar":
                continue
            entry: dict[str, Any] = {}
            entries.append(entry)
            self._runner.pull(number, entry)
            self._processes.check()
            for attempt in range(policies.get("maximumTaskRetries", 0) + 1):
                self._run_task(number, task, entry)
                entry["retries"] = attempt
                if entry["exitCode"] == 0:
                    break
                self._processes.check()
            if entry["exitCode"] != 0 and not policies.get("ignoreTaskFailures"):
                return True
        return False

    def _run_task(self, number: int, task: dict[str, Any], entry: dict[str, Any]) -> None:
        logs = {"stdout": self._spec.logs.stdout, "stderr": self._spec.logs.stderr}
        offsets = {item: log.stat().st_size for item, log in logs.items()}
        began = time.monotonic()
        entry.update(cpuTimeUsage=0.0, maxResidentSetSizeKB=0)
        exits = []
        for process in self._started(number, task, nodes_of(task, self._spec.policies, self._spec.nodes)):
            if isinstance(process, int):
                exits.append(process)
                continue
            code, usage = self._processes.reap(process)
            exits.append(code)
            entry["cpuTimeUsage"] += usage.ru_utime + usage.ru_stime
            entry["maxResidentSetSizeKB"] = max(entry["maxResidentSetSizeKB"], usage.ru_maxrss)
        entry["exitCode"] = next((code for code in exits if code), 0)
        entry["wallTimeUsage"] = time.monotonic() - began
        for item, log in logs.items():
            if item in task:
                copy_into(self._sandbox, log, offsets[item], task[item])

    def _started(self, number: int, task: dict[str, Any], nodes: range) -> list[subprocess.Popen[bytes] | int]:
        """Start a task on each of its nodes, or, when the run is ended from outside meanwhile, on none."""
        started: list[subprocess.Popen[bytes] | int] = []
        try:
            for node in nodes:
                started.append(self._start(number, task, node))
        except RunStopped:
            for process in started:
                if not isinstance(process, int):
                    self._processes.reap(process)  # killed already
            raise
        return started

    def _start(self, number: int, task: dict[str, Any], node: int = 0) -> subprocess.Popen[bytes] | int:
        """Start a task; the exit code that the container's runtime would have given instead, where it cannot be."""
        env = {**self._spec.env, "PROMINENCE_TASK_NUM": str(number), "PROMINENCE_NODE_NUM": str(node),
               "PROMINENCE_CONTAINER_RUNTIME": task["runtime"]}  # fmt: skip
        stdout, stderr = self._logs[node]
        words = split(substituted(task.get("cmd", ""), {**env, **self._spec.values}).replace("\n", " "))
        if not words:
            with suppress(OSError):
                os.write(stdout, _NO_COMMAND)
            return 0
        words = with_mpirun(words, task, env, apart=self._spec.apart)
        try:
            env.update(arriving(task))
            command = self._there(self._runner.command(number, words, env), node)
        except Unstartable as error:
            return _fatal(stderr, str(error))
        try:
            return self._processes.start(command, stdout, stderr)
        except OSError as error:
            return _fatal(stderr, f'"{words[0]}": {(error.strerror or str(error)).lower()}')

    def _there(self, command: Command, node: int) -> Command:
        """Return what runs a command on a node of the job: where nodes are machines apart, the first is this one."""
        if not node or not self._spec.on_node:
            return command
        cpus = self._spec.env["PROMINENCE_CPUS"]
        words = [word.replace("{node}", str(node)).replace("{cpus}", cpus) for word in self._spec.on_node]
        return Command([*words, *command.argv], command.cwd, {**self._spec.env, **command.env})


def arriving(task: dict[str, Any]) -> dict[str, str]:
    """Return a task's environment as it arrives: udocker's command line is split by shlex, whatever a value holds.

    Raises Unstartable when a value has become several words, and WorkerCrashed when it cannot be split.
    """
    env = {name: str(value) for name, value in task.get("env", {}).items()}
    if task["runtime"] != "udocker":
        return env
    for name, value in env.items():
        try:
            first, *others = split(f"{name}={value}")
        except ValueError:
            raise WorkerCrashed from None
        if others:
            raise Unstartable(f"udocker: no such container: {others[0]}")
        env[name] = first.partition("=")[2]
    return env


def _fatal(log: int, sentence: str) -> int:
    """Say why nothing was started, as the container's runtime would; return its exit code."""
    with suppress(OSError):  # the disk is full
        os.write(log, f"FATAL:   {sentence}\n".encode(errors="replace"))
    return 255
