"""One run of one job, in a thread of its own: stage in, tasks in sequence, stage out.

Changes no stored state; it returns an Outcome. It may be ended from any other thread by `end_with`, which first leaves
a verdict and then kills, so that no task starts after its job was ended.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from contextlib import ExitStack, suppress
from typing import Any

from ..containers.base import Containers, PullFailed
from ..sandbox.sandbox import Sandbox
from ..sandbox.staging import StageOut, pack, place_inputs
from ..state.objects import ObjectStore
from ..state.shortage import NotNow, not_now
from .job_processes import JobProcesses, RunStopped
from .machine import processor
from .outcome import NO_ARTIFACT, NO_IMAGE, WAITS, Outcome
from .spec import CAFILE_INSIDE, JobSpec
from .tasks import Tasks, WorkerCrashed

_EXEC_SECONDS = 60


class JobRun:
    """`__call__` runs the job in the calling thread, which owns `_execution`; the rest may be called from any thread.

    `_lock` guards the verdict and the commands of others.
    """

    def __init__(self, spec: JobSpec, sandbox: Sandbox, objects: ObjectStore, containers: Containers) -> None:
        self.spec, self.sandbox, self._objects = spec, sandbox, objects
        self._lock = threading.Lock()
        self._verdict: Outcome | None = None
        self._commands: list[dict[str, Any]] = []
        self._processes = JobProcesses()
        self._runner = containers.task_runner(sandbox, spec.user, spec.body["tasks"], self._processes.is_stopped)
        self._execution: dict[str, Any] = {"cpu": processor()}

    # From other threads

    def is_over(self) -> bool:
        """Return whether it is decided how this run ends, though that may not be stored yet."""
        with self._lock:
            return self._verdict is not None

    def end_with(self, status: str, reason: str | None) -> None:
        """Decide how this run ends, unless that is decided, and kill its tasks' groups.

        The engine's sweep finds the rest.
        """
        with self._lock:
            self._verdict = self._verdict or Outcome(status, reason)
        self._processes.stop()

    def execute(self, command: str) -> bytes | None:
        """Run a command next to the tasks; return its output, or None when it fails. Ends with the job."""
        with self._lock:
            if self._verdict or not self.sandbox.home.is_dir():
                return None
            self._commands.append({"command": command, "time": int(time.time())})
        start = self._runner.beside(command.split(","), self.spec.env)
        return None if start is None else self._processes.output(start, _EXEC_SECONDS)

    def snapshot(self, path: str) -> bool:
        """Store a .tgz of a path of the running job's sandbox; whether there is something of that name."""
        return take_snapshot(self.sandbox, self._objects, self.spec.place, path)

    # The run itself

    def __call__(self) -> Outcome:
        """Run the job. Raises nothing: what goes wrong is the outcome."""
        try:
            outcome = self._lifecycle()
        except RunStopped:
            outcome = Outcome("failed")
        except NotNow as error:
            outcome = Outcome(WAITS, str(error))
        except Exception as error:
            import logging  # which takes longer than what else a job needs of this

            logging.getLogger("prominence_executor.local").exception("job %d", self.spec.job)
            outcome = Outcome("failed", f"Internal error: {type(error).__name__}: {error}")
        with self._lock:
            if self._verdict:
                outcome = Outcome(self._verdict.status, self._verdict.reason)
            self._verdict = outcome
            if self._commands:
                self._execution["commands"] = list(self._commands)
        outcome.execution = self._execution
        return outcome

    def _lifecycle(self) -> Outcome:
        with ExitStack() as stack:
            try:
                logs = stack.enter_context(self.spec.logs.opened())
                place_inputs(self.sandbox, self.spec.body.get("inputs", []))
                if self.spec.cafile is not None:
                    with suppress(FileNotFoundError):  # a user's own, which this node does not see
                        shutil.copyfile(self.spec.cafile, self.sandbox.tmp / CAFILE_INSIDE)
            except OSError as error:
                raise not_now(error) from error  # nothing has been started
            try:
                self._processes.wait(self.spec.platform.job_seconds)
                if self.spec.body.get("artifacts") and not self._place_artifacts(logs):
                    return Outcome("failed", NO_ARTIFACT)
                self._processes.check()
                task_failed = self._run_tasks(logs)
            except PullFailed as error:
                _say(logs[0][1], str(error))
                return Outcome("failed", NO_IMAGE)
            except WorkerCrashed:
                del self._execution["tasks"]
                return Outcome("completed", task_failed=True)
        self._processes.check()
        return self._stage_out(task_failed)

    def _place_artifacts(self, logs: list[tuple[int, int]]) -> bool:
        """Place the artifacts; whether that could be done."""
        from ..sandbox.archives import Budget
        from ..sandbox.artifacts import StageInFailed, place_artifacts

        spec, began = self.spec, time.monotonic()
        try:
            budget = Budget(self._processes.is_stopped, spec.body["resources"]["disk"] << 30)
            place_artifacts(self.sandbox, self._objects, spec.user, spec.body["artifacts"], spec.values, budget)
        except StageInFailed as error:
            _say(logs[0][1], str(error))
            return False
        finally:
            self._execution["stageInTime"] = time.monotonic() - began
        return True

    def _run_tasks(self, logs: list[tuple[int, int]]) -> bool:
        """Run the tasks; whether one failed."""
        self._execution["runtimeVersion"] = self._runner.versions()
        tasks = Tasks(self.spec, self.sandbox, self._runner, self._processes, logs)
        try:
            with tasks.sidecars():
                return tasks.run(self._execution.setdefault("tasks", []))
        finally:
            self._runner.close()

    def _stage_out(self, task_failed: bool) -> Outcome:
        out = StageOut(self.sandbox, self._objects, self.spec.place, self.spec.values, self._processes.wait)
        began = time.monotonic()
        out.run(self.spec.body)
        if out.uploaded:
            self._execution["stageOutTime"] = time.monotonic() - began
        status = "failed" if out.reason else "completed"
        return Outcome(status, out.reason, uploaded=out.uploaded, task_failed=task_failed)


def snapshot_key(place: str) -> str:
    """Return under which key a job's snapshot is stored; the place is that of its outputs."""
    return f"snapshots/{place}/snapshot.tgz"


def take_snapshot(sandbox: Sandbox, objects: ObjectStore, place: str, path: str) -> bool:
    """Store a .tgz of a path of a sandbox; whether there is something of that name."""
    real = sandbox.resolved(path)
    if real is None:
        return False
    try:
        packed = pack(real, os.path.basename(path.rstrip("/")) or "home", sandbox)
    except (OSError, ValueError):  # its files change while they are read, or the job has ended
        return False
    try:
        objects.put_file(snapshot_key(place), packed)
        packed.unlink()
    except FileNotFoundError:  # the job ended meanwhile
        return False
    return True


def _say(log: int, sentence: str) -> None:
    if sentence:
        with suppress(OSError):  # the disk is full
            os.write(log, f"{sentence}\n".encode(errors="replace"))
