"""Starting, waiting for and killing process trees. Knows nothing of jobs.

Every process of a sandbox carries the sandbox's mark in its environment, so that also those which left their session
and their parent (daemons) are found in /proc and killed. One that also clears its environment is still known by its
working directory; one that leaves that as well gets away, and a machine without /proc loses all daemons.
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

MARK = "PROMINENCE_LOCAL_SANDBOX"
_SHORT = (errno.EMFILE, errno.ENFILE)


def start(argv: list[str], *, cwd: Path, env: Mapping[str, str], stdout: int, stderr: int) -> subprocess.Popen[bytes]:
    """Start a process in a session of its own with an empty stdin. Raises OSError when it cannot be executed.

    No preexec_fn: the interpreter can then use vfork, which is what makes starting a task cheap.
    """
    return subprocess.Popen(  # noqa: S603 (running users' commands is the service's purpose)
        argv, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, start_new_session=True
    )


def await_end(process: subprocess.Popen[bytes]) -> None:
    """Wait for a process and end what is left of its group, without reaping it.

    Unreaped, the leader keeps its number, so the group that is killed is surely its own.
    """
    if hasattr(os, "waitid"):
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        kill_group(process.pid)


def reap(process: subprocess.Popen[bytes]) -> tuple[int, resource.struct_rusage]:
    """Reap an ended process; return its exit code, negative for a signal, and what it used."""
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode, usage


def kill_group(leader: int) -> None:
    """Kill a process group, if it is still there."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)


def _marked(pid: str, marks: Iterable[bytes]) -> bool:
    try:
        environment = Path("/proc", pid, "environ").read_bytes()
    except OSError as error:  # gone, or somebody else's
        if error.errno in _SHORT:
            raise
        return False
    return any(mark in environment for mark in marks)


def _inside(pid: str, roots: Iterable[str]) -> bool:
    """Return whether a process without a terminal works in a sandbox. With one, it is somebody looking around there."""
    try:
        directory = os.readlink(f"/proc/{pid}/cwd")
        if not any(directory.startswith(root + "/") for root in roots):
            return False
        terminal = Path("/proc", pid, "stat").read_text().rpartition(")")[2].split()[4]
    except OSError as error:
        if error.errno in _SHORT:
            raise
        return False
    return terminal == "0"


def find(sandboxes: Mapping[str, Path]) -> list[int]:
    """Find the processes of sandboxes, given as mark and directory: by the mark, or by their working directory.

    Raises OSError when this process has no descriptors for that.
    """
    if not sandboxes:
        return []
    marks = [f"{MARK}={mark}".encode() for mark in sandboxes]
    roots = [str(root) for root in sandboxes.values()]
    try:
        pids = [name for name in os.listdir("/proc") if name.isdigit()]
    except OSError as error:
        if error.errno in _SHORT:
            raise
        return []
    own = str(os.getpid())
    return [int(pid) for pid in pids if pid != own and (_marked(pid, marks) or _inside(pid, roots))]


def kill_all(sandboxes: Mapping[str, Path]) -> bool:
    """Kill every process of these sandboxes, again until none is left: they may be forking. Whether none is left."""
    for attempt in range(50):
        try:
            found = find(sandboxes)
        except OSError:  # others may soon close some descriptors
            time.sleep(0.02)
            continue
        if not found:
            return True
        for pid in found:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.001 * min(attempt, 20))
    return False
