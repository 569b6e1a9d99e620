"""The processes of one run: started, waited for, and ended together. Knows nothing of tasks and of why a run ends."""

from __future__ import annotations

import errno
import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from typing import Any

from ..containers.base import Command
from ..sandbox import processes

# Of descriptors and processes others may soon leave some over.
_SHORT = (errno.EMFILE, errno.ENFILE, errno.EAGAIN)
_PAUSE = 0.2  # seconds
_MOST_OUTPUT = 1 << 24  # bytes that a command beside the tasks may print


class RunStopped(Exception):
    """The run was ended from outside: nothing more may be started."""


class JobProcesses:
    """Every method may be called from any thread. `_lock` guards the numbers of the processes.

    A process is started under the lock, and the run is stopped under it, so that none starts after `stop`.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pids: set[int] = set()
        self._stopped = threading.Event()

    def is_stopped(self) -> bool:
        """Return whether the run was ended from outside."""
        return self._stopped.is_set()

    def check(self) -> None:
        """Raise RunStopped when the run was ended from outside."""
        if self._stopped.is_set():
            raise RunStopped

    def wait(self, seconds: float) -> None:
        """Wait before something is tried again. Raises RunStopped when the run is ended from outside meanwhile."""
        self._stopped.wait(seconds)
        self.check()

    def start(self, command: Command, stdout: int, stderr: int) -> subprocess.Popen[bytes]:
        """Start a process in a session of its own, as soon as the machine has what that takes.

        Raises RunStopped, and OSError when it cannot be executed.
        """
        while True:
            try:
                with self._lock:
                    self.check()
                    process = processes.start(
                        command.argv, cwd=command.cwd, env=command.env, stdout=stdout, stderr=stderr
                    )  # fmt: skip
                    self._pids.add(process.pid)
                return process
            except OSError as error:
                if error.errno not in _SHORT:
                    raise
            self.wait(_PAUSE)

    def reap(self, process: subprocess.Popen[bytes]) -> tuple[int, Any]:
        """Wait for a process; return its exit code, negative for a signal, and what it used."""
        processes.await_end(process)
        with self._lock:  # before the number can be somebody else's
            self._pids.discard(process.pid)
        return processes.reap(process)

    def stop(self) -> None:
        """Kill the groups of all processes, and start no more. What left its group is found by the engine's sweep."""
        with self._lock:
            self._stopped.set()
            for pid in self._pids:
                processes.kill_group(pid)

    def output(self, command: Command, seconds: float) -> bytes | None:
        """Run a command next to the tasks; return its output. Ends with the job.

        None when it fails, takes longer, or prints more than is held.
        """
        with tempfile.TemporaryFile() as said:
            try:
                process = subprocess.Popen(  # noqa: S603
                    command.argv, cwd=command.cwd, env=command.env, stdin=subprocess.DEVNULL, stdout=said,
                    stderr=subprocess.STDOUT, start_new_session=True,
                )  # fmt: skip
            except OSError:
                return None
            with process:
                _await(process, lambda: os.fstat(said.fileno()).st_size, seconds)
            size = os.fstat(said.fileno()).st_size
            return os.pread(said.fileno(), size, 0) if process.returncode == 0 and size <= _MOST_OUTPUT else None


def _await(process: subprocess.Popen[bytes], said: Callable[[], int], seconds: float) -> None:
    """Wait for a process, and end it when it takes longer or has said too much."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and said() <= _MOST_OUTPUT:
        try:
            process.wait(min(_PAUSE, max(0.0, deadline - time.monotonic())))
        except subprocess.TimeoutExpired:
            continue
        return
    processes.kill_group(process.pid)  # a container's runtime and what it runs
