"""One run of one job, in a thread of its own: stage in, tasks in sequence, stage out.

A Run changes no stored state; it returns an Outcome. It may be ended from any other thread by `condemn`, which first
leaves a verdict and then kills, so that no task starts after its job was ended.
"""

from __future__ import annotations

import logging
import os
import shlex
import shutil
import subprocess
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..containers.base import Containers, PullFailed, Unstartable
from ..sandbox import processes
from ..sandbox.sandbox import Sandbox
from ..sandbox.staging import StageInFailed, StageOut, pack, place_artifacts, place_inputs
from ..schema.job import substituted
from ..state.objects import ObjectStore
from ..state.representations import processor
from .context import node_log
from .mpi import launched, places

log = logging.getLogger("prominence_executor.local")

_NO_COMMAND = b"There is no runscript defined for this container\n\n"
_EXEC_SECONDS = 60


@dataclass(frozen=True)
class Facts:
    """What a run needs to know of its job, and nothing that changes while it runs."""

    job: int
    user: str
    place: str
    workflow: int | None
    nodes: int  # all of them this machine
    values: dict[str, str]  # the factory's parameters as text
    body: dict[str, Any]
    told: dict[str, str]  # PROMINENCE_* for the environment
    stdout: Path
    stderr: Path


@dataclass
class Outcome:
    status: str
    reason: str | None = None
    execution: dict[str, Any] = field(default_factory=dict)
    uploaded: dict[str, dict[str, int]] = field(default_factory=dict)
    task_failed: bool = False


class _Stopped(Exception):
    """The run was ended from outside."""


class Run:
    """`__call__` runs the job in the calling thread; everything else may be called from any thread."""

    def __init__(self, facts: Facts, sandbox: Sandbox, objects: ObjectStore, containers: Containers) -> None:
        self.facts, self.sandbox, self._objects = facts, sandbox, objects
        self._lock = threading.Lock()
        self._pids: set[int] = set()
        self._verdict: Outcome | None = None
        self._logs: list[tuple[int, int]] = []  # stdout and stderr of each node
        self._room = containers.room(sandbox, facts.user, facts.body["tasks"], lambda: self._verdict is not None)
        self._commands: list[dict[str, Any]] = []
        self._execution: dict[str, Any] = {"cpu": processor()}

    # From other threads

    def condemn(self, status: str, reason: str | None) -> None:
        """Decide how this run ends and kill its tasks' groups; the scheduler's sweep finds the rest."""
        with self._lock:
            self._verdict = self._verdict or Outcome(status, reason)
            for pid in self._pids:
                processes.kill_group(pid)

    def execute(self, command: str) -> bytes | None:
        """The output of a command beside the tasks, or None when it fails. Ends with the job."""
        with self._lock:
            if self._verdict or not self.sandbox.home.is_dir():
                return None
            self._commands.append({"command": command, "time": int(time.time())})
        start = self._room.beside(command.split(","), self.facts.told)
        if start is None:
            return None
        try:
            process = subprocess.Popen(  # noqa: S603
                start.argv, cwd=start.cwd, env=start.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        except OSError:
            return None
        with process:
            try:
                said, _ = process.communicate(timeout=_EXEC_SECONDS)
            except subprocess.TimeoutExpired:
                processes.kill_group(process.pid)  # a container's runtime and what it runs
                return None
        return said if process.returncode == 0 else None

    def snapshot(self, path: str) -> Path | None:
        """A .tgz of a path of the running job's sandbox, or None when there is nothing of that name."""
        real = self.sandbox.resolved(path)
        return None if real is None else pack(real, os.path.basename(path.rstrip("/")) or "home", self.sandbox)

    # The run itself

    def __call__(self) -> Outcome:
        try:
            with ExitStack() as stack:
                self._open_logs(stack)
                outcome = self._lifecycle()
        except _Stopped:
            outcome = Outcome("failed")
        except Exception as error:  # noqa: BLE001 (a job must end, whatever the reason: it holds slots)
            log.exception("job %d", self.facts.job)
            outcome = Outcome("failed", f"Internal error: {type(error).__name__}: {error}")
        with self._lock:
            if self._verdict:
                outcome = Outcome(self._verdict.status, self._verdict.reason)
        if self._commands:
            self._execution["commands"] = self._commands
        outcome.execution = self._execution
        return outcome

    def _open_logs(self, stack: ExitStack) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_NOFOLLOW
        for node in range(self.facts.nodes):
            pair = []
            for first in (self.facts.stdout, self.facts.stderr):
                pair.append(os.open(node_log(first, node), flags, 0o600))
                stack.callback(os.close, pair[-1])
            self._logs.append((pair[0], pair[1]))

    def _lifecycle(self) -> Outcome:
        body = self.facts.body
        try:
            self._stage_in()
        except StageInFailed:
            return Outcome("failed", "Artifact download failed")
        self._execution["runtimeVersion"] = self._room.versions()
        sidecars: list[subprocess.Popen[bytes]] = []
        try:
            self._start_sidecars(sidecars)
            task_failed = self._run_tasks()
        except PullFailed as error:
            os.write(self._logs[0][1], f"{error}\n".encode())
            return Outcome("failed", "Container image pull failed")
        finally:
            for process in sidecars:
                processes.kill_group(process.pid)
                self._reap(process)
            self._room.close()
        self._check()
        out = StageOut(self.sandbox, self._objects, self.facts.place, self.facts.values)
        began = time.monotonic()
        out.run(body)
        if out.uploaded:
            self._execution["stageOutTime"] = time.monotonic() - began
        status = "failed" if out.reason else "completed"
        return Outcome(status, out.reason, uploaded=out.uploaded, task_failed=task_failed)

    def _check(self) -> None:
        if self._verdict:
            raise _Stopped

    def _stage_in(self) -> None:
        facts = self.facts
        place_inputs(self.sandbox, facts.body.get("inputs", []))
        if facts.body.get("artifacts"):
            began = time.monotonic()
            try:
                place_artifacts(
                    self.sandbox, self._objects, facts.user, facts.body["artifacts"], facts.values,
                    lambda: self._verdict is not None,
                )  # fmt: skip
            finally:
                self._execution["stageInTime"] = time.monotonic() - began
        self._check()

    def _start_sidecars(self, started: list[subprocess.Popen[bytes]]) -> None:
        for number, task in enumerate(self.facts.body["tasks"]):
            if task.get("type") == "sidecar":
                self._room.pull(number, {})
                process = self._start(number, task)
                if not isinstance(process, int):
                    started.append(process)

    def _run_tasks(self) -> bool:
        """Run the tasks until one fails; whether one did."""
        policies, entries = self.facts.body.get("policies", {}), self._execution.setdefault("tasks", [])
        for number, task in enumerate(self.facts.body["tasks"]):
            if task.get("type") == "sidecar":
                continue
            entry: dict[str, Any] = {}
            entries.append(entry)
            self._room.pull(number, entry)
            self._check()
            for attempt in range(policies.get("maximumTaskRetries", 0) + 1):
                self._run_task(number, task, entry)
                entry["retries"] = attempt
                if entry["exitCode"] == 0:
                    break
                self._check()
            if entry["exitCode"] != 0 and not policies.get("ignoreTaskFailures"):
                return True
        return False

    def _run_task(self, number: int, task: dict[str, Any], entry: dict[str, Any]) -> None:
        stdout, stderr = self.facts.stdout.stat().st_size, self.facts.stderr.stat().st_size
        began = time.monotonic()
        entry.update(cpuTimeUsage=0.0, maxResidentSetSizeKB=0)
        nodes = places(task, self.facts.body.get("policies", {}), self.facts.nodes)
        exits = []
        for process in self._started(number, task, nodes):
            if isinstance(process, int):
                exits.append(process)
                continue
            code, usage = self._reap(process)
            exits.append(code)
            entry["cpuTimeUsage"] += usage.ru_utime + usage.ru_stime
            entry["maxResidentSetSizeKB"] = max(entry["maxResidentSetSizeKB"], usage.ru_maxrss)
        entry["exitCode"] = next((code for code in exits if code), 0)
        entry["wallTimeUsage"] = time.monotonic() - began
        for item, source, offset in (("stdout", self.facts.stdout, stdout), ("stderr", self.facts.stderr, stderr)):
            if item in task:
                self._copy_stream(source, offset, task[item])

    def _started(self, number: int, task: dict[str, Any], nodes: range) -> list[subprocess.Popen[bytes] | int]:
        """A task on each of its nodes, or, when the run is ended from outside meanwhile, on none."""
        started: list[subprocess.Popen[bytes] | int] = []
        try:
            for node in nodes:
                started.append(self._start(number, task, node))
        except _Stopped:
            for process in started:
                if not isinstance(process, int):
                    self._reap(process)  # killed already
            raise
        return started

    def _start(self, number: int, task: dict[str, Any], node: int = 0) -> subprocess.Popen[bytes] | int:
        """The started process, or the exit code that the container's runtime would have given instead."""
        told = {**self.facts.told, "PROMINENCE_TASK_NUM": str(number), "PROMINENCE_NODE_NUM": str(node),
                "PROMINENCE_CONTAINER_RUNTIME": task["runtime"]}  # fmt: skip
        stdout, stderr = self._logs[node]
        words = shlex.split(substituted(task.get("cmd", ""), {**told, **self.facts.values}).replace("\n", " "))
        if not words:
            os.write(stdout, _NO_COMMAND)
            return 0
        words = launched(words, task, told)
        env = {**told, **{name: str(value) for name, value in task.get("env", {}).items()}}
        try:
            start = self._room.command(number, words, env)
        except Unstartable as error:
            return _fatal(stderr, str(error))
        with self._lock:
            self._check()
            try:
                process = processes.start(start.argv, cwd=start.cwd, env=start.env, stdout=stdout, stderr=stderr)
            except OSError as error:
                return _fatal(stderr, f'"{words[0]}": {(error.strerror or str(error)).lower()}')
            self._pids.add(process.pid)
        return process

    def _reap(self, process: subprocess.Popen[bytes]) -> tuple[int, Any]:
        processes.await_end(process)
        with self._lock:  # before the number can be somebody else's
            self._pids.discard(process.pid)
        return processes.reap(process)

    def _copy_stream(self, source: Path, offset: int, name: str) -> None:
        """A task's `stdout` item: what it printed, in a file of its own as well, if the name stays inside."""
        target = self.sandbox.inside(name)
        parent = self.sandbox.resolved(target.parent)
        if parent is None or target.name in ("", ".", ".."):
            return
        # Neither follow a link that the task left under that name, nor wait for the reader of a pipe.
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK
        try:
            descriptor = os.open(parent / target.name, flags, 0o644)
        except OSError:
            return
        with open(source, "rb") as stream, os.fdopen(descriptor, "wb") as file:
            stream.seek(offset)
            shutil.copyfileobj(stream, file)


def _fatal(log: int, sentence: str) -> int:
    """Say why nothing was started, as the container's runtime would; returns its exit code."""
    os.write(log, f"FATAL:   {sentence}\n".encode())
    return 255
