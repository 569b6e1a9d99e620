"""Programs that a build runs: to their end, or, when the build is interrupted, ended with all that they have started.

What one says is kept, and shown without passwords when it fails. It knows no program.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from ..credentials import without_credentials
from ..errors import ImageBuildError

_PATIENCE = 10.0  # seconds that a tool has to end when it is asked to
_GLANCE = 1.0  # seconds: a signal that comes just before a wait begins is only seen when the wait ends
_TAIL = 2000  # characters of what a failed tool said


def run(
    command: Sequence[str], what: str, environment: Mapping[str, str] | None = None, folder: Path | None = None
) -> None:
    """Run a tool to its end, in this folder.

    Raises:
        ImageBuildError: it failed; with the end of what it said.
    """
    try:
        process = subprocess.Popen(  # noqa: S603
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, errors="replace", env=None if environment is None else dict(environment), start_new_session=True,
            cwd=folder,
        )  # fmt: skip
    except OSError as error:
        raise ImageBuildError(f"{what}: {error}") from error
    try:
        output = _output(process)
    except BaseException:  # Ctrl-C: the tool, and all that it has started, must be over before its directory goes
        _end(process)
        raise
    if process.returncode:
        said = without_credentials(output.strip())[-_TAIL:]
        raise ImageBuildError(f"{what} failed with exit code {process.returncode}:\n{said}")


def _output(process: subprocess.Popen[str]) -> str:
    """Wait until a tool has ended; return what it has said."""
    while True:
        with suppress(subprocess.TimeoutExpired):
            return process.communicate(timeout=_GLANCE)[0]


def _end(process: subprocess.Popen[str]) -> None:
    """End a tool and its children: they are asked to first, since debootstrap then unmounts what it has mounted.

    Podman leaves container and mounts behind when it is asked to, and tidies up when what runs inside has ended: so
    that is ended first, which is in a session of its own.
    """
    if inside := [pid for pid, session in _below(process.pid) if session != process.pid]:
        for pid in inside:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_PATIENCE)
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_PATIENCE)
    if process.stdout is not None:
        process.stdout.close()


def _below(root: int) -> Iterator[tuple[int, int]]:
    """Yield the processes that descend from this one, each with its session; none on a machine without /proc."""
    children: dict[int, list[tuple[int, int]]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            words = stat.read_text(errors="replace").rpartition(")")[2].split()
            parent, session = int(words[1]), int(words[3])
            children.setdefault(parent, []).append((int(stat.parent.name), session))
    waiting = [root]
    while waiting:
        for pid, session in children.get(waiting.pop(), ()):
            yield pid, session
            waiting.append(pid)
